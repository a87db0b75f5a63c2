"""A block: a fixed number of lanes in one compiled program, the unit of work whose bits never change.

The width of a batch changes the last bits of its lanes, so a sweep never varies it: every device, chunk and
worker runs the same program on whole blocks. A run is traced once; its trace is checked, hashed and compiled.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = [
    "Lane",
    "Program",
    "collect",
    "compile_blocks",
    "default_batch",
    "dispatch",
    "lanes_wait",
    "provenance",
    "require_no_deadlock",
    "trace",
    "versions",
]


FACTORISATIONS = frozenset({"lu", "cholesky", "eig", "eigh", "geqrf", "householder_product", "qr", "schur", "svd"})


class Lane(NamedTuple):
    """One run, traced once.

    jaxpr: the trace; its constants are the arrays that the function closes over.
    inputs: argument -> shape and dtype of one lane.
    outputs: variable -> shape and dtype of one lane, sorted by name.
    """

    jaxpr: Any
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: dict[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """A compiled program that runs one block on each of its devices.

    call: `call(constants, *columns[devices * block])` -> list of arrays with that leading axis.
    constants: the closed-over arrays, on the devices.
    outputs: variable -> shape and dtype of one lane.
    block, devices: lanes of a block, number of devices.
    seconds: time to compile.
    temporary: bytes that one call needs on one device, arguments and results included.
    """

    call: Callable
    constants: list[Any]
    sharding: NamedSharding
    outputs: dict[str, jax.ShapeDtypeStruct]
    block: int
    devices: int
    seconds: float
    temporary: int


def trace(one_run: Callable, inputs: Mapping[str, jax.ShapeDtypeStruct], static: Mapping[str, Any]) -> Lane:
    """Trace a run for one cell without computing anything.

    Args: one_run: the function; inputs: traced argument -> shape and dtype; static: the other arguments.
    Returns: its trace, with the shapes of what it takes and returns.
    Source: derived here. Cost: one trace.
    Raises: TypeError unless the run returns a non-empty dict from names to arrays or numbers.
    """

    def positional(*numbers):
        return one_run(**dict(zip(inputs, numbers, strict=True)), **static)

    jaxpr, result = jax.make_jaxpr(positional, return_shape=True)(*inputs.values())
    if not isinstance(result, dict) or not result:
        raise TypeError(f"one_run: found a result of type {type(result).__name__}, expected a non-empty dict of arrays")
    for name, value in result.items():
        if not isinstance(name, str) or not name or "/" in name or name[0] in "._":
            raise TypeError(f"one_run: found the variable name {name!r}, expected a plain string")
        if not isinstance(value, jax.ShapeDtypeStruct):
            raise TypeError(f"one_run: found {type(value).__name__} under {name!r}, expected an array or a number")
        # Extended types (keys, bfloat16, float8) have no counterpart in a labelled data set.
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) or np.dtype(value.dtype).kind not in "biufc":
            raise TypeError(f"one_run: found dtype {value.dtype} under {name!r}, expected a NumPy number type")
    outputs = {name: jax.ShapeDtypeStruct(result[name].shape, result[name].dtype) for name in sorted(result)}
    return Lane(jaxpr, dict(inputs), outputs)


def _lane_function(lane: Lane) -> Callable:
    def call(constants, numbers):
        closed = jax.extend.core.ClosedJaxpr(lane.jaxpr.jaxpr, constants)
        return jax.extend.core.jaxpr_as_fun(closed)(*numbers)

    return call


def _block_function(lane: Lane, block: int, batch: str) -> Callable:
    """`(constants, *columns[block]) -> list of outputs[block, ...]`."""
    call = _lane_function(lane)

    def run(constants, *columns):
        # The lane number is unused: it gives the batch its width when no argument is traced.
        lanes = (jax.numpy.arange(block), *columns)
        one = lambda numbers: call(constants, numbers[1:])  # noqa: E731
        return jax.vmap(one)(lanes) if batch == "vmap" else jax.lax.map(one, lanes)

    return run


def lanes_wait(lane: Lane) -> bool:
    """Whether under `vmap` the length of a loop depends on the lane, so that all lanes run until the slowest is done.

    JAX marks such a loop itself: the condition of the batched `while` has one entry per lane.

    Args: lane: a traced run. Returns: bool. Source: derived here, from JAX's batching rule. Cost: one trace.
    """
    specs = [jax.ShapeDtypeStruct((2, *s.shape), s.dtype) for s in lane.inputs.values()]
    batched = jax.make_jaxpr(_block_function(lane, 2, "vmap"))(lane.jaxpr.consts, *specs)
    whiles = (equation for equation in _equations(batched.jaxpr) if equation.primitive.name == "while")
    return any(equation.params["cond_jaxpr"].out_avals[0].shape for equation in whiles)


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations at any depth."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for value in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)


def require_no_deadlock(lane: Lane, devices: Sequence[jax.Device]) -> None:
    """Raise RuntimeError where the program would hang instead of running.

    On JAX 0.10, batched factorisations on several simulated CPU devices wait for threads that wait for them,
    unless there are more threads than devices; 0.11 is free of it.

    Args: lane: a traced run; devices: where its blocks are to run.
    Source: derived here: measured, 4 devices on 2 cores hang on 0.10.2 and finish on 0.11.2. Cost: reads the trace.
    """
    threads = int(os.environ.get("NPROC", 0)) or os.cpu_count() or 1
    if (
        devices[0].platform != "cpu"
        or len(devices) == 1
        or threads >= 2 * len(devices)
        or jax.__version_info__ >= (0, 11)
    ):
        return
    found = sorted({e.primitive.name for e in _equations(lane.jaxpr.jaxpr)} & FACTORISATIONS)
    if found:
        raise RuntimeError(
            f"devices: found {len(devices)} CPU devices and {threads} threads for a run that uses {', '.join(found)}, "
            f"which hangs on JAX {jax.__version__}; start Python with NPROC={2 * len(devices)} in the environment, "
            "or use one device"
        )


def default_batch(lane: Lane, platform: str) -> str:
    """How to run the lanes of a block: "map" on a CPU if they would wait for each other, else "vmap".

    Measured on 2 CPU cores, 256 value iterations (50 states, 4 actions, float64) as one block, vmap against map:
    all discounts .9, 31 against 50 ms; one of them .999, 2 830 against 70 ms; .9 and .99 mixed, 281 against
    308 ms (and 178 ms by vmap in blocks of 32 sorted by `work`). On a CPU "map" thus loses at most a factor of
    2 and may win one of 40; an accelerator runs a single lane far below its capacity.
    """
    return "map" if platform == "cpu" and lanes_wait(lane) else "vmap"


def code_hash(lane: Lane, platform: str) -> str:
    """Hash of the lowered program of a batch of two lanes, without the values of closed-over arrays.

    The program text contains everything that the function calls, whatever file it is in, and no source
    positions, so that moving code changes nothing and changing a callee does. The width is fixed, so that
    another block size is not mistaken for other code.
    """
    specs = [jax.ShapeDtypeStruct((2, *s.shape), s.dtype) for s in lane.inputs.values()]
    traced = jax.jit(_block_function(lane, 2, "vmap")).trace(lane.jaxpr.consts, *specs)
    return hashlib.sha256(traced.lower(lowering_platforms=(platform,)).as_text().encode()).hexdigest()


def constants_hash(lane: Lane) -> str:
    """Hash of the arrays that the function closes over."""
    digest = hashlib.sha256()
    for value in lane.jaxpr.consts:
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            digest.update(str(value.dtype).encode())
            value = jax.random.key_data(value)
        array = np.asarray(value)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def flags() -> dict[str, Any]:
    """The settings of JAX that results depend on."""
    # Folders and the number of simulated devices differ between machines and change no bits.
    xla = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f and "dump" not in f]
    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
    return {name: getattr(jax.config, name) for name in names} | {"XLA_FLAGS": sorted(xla)}


def versions() -> dict[str, str]:
    """The versions that results depend on, by package. Source: derived here. Cost: O(1)."""
    import jaxlib

    from rlcore import __version__

    return {"rlcore": __version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__}


def provenance(lane: Lane, block: int, batch: str, device: jax.Device) -> dict[str, Any]:
    """Everything besides the grid that decides the bits of a lane; two equal ones give equal bits.

    Args: lane: a traced run; block, batch: how it is run; device: one of those that run it.
    Returns: name of the part -> a value that JSON can hold. Source: derived here. Cost: one lowering.
    """
    return {
        "code": code_hash(lane, device.platform),
        "closed-over arrays": constants_hash(lane),
        "block": block,
        "batch": batch,
        "versions": versions(),
        "flags": flags(),
        "device": f"{device.platform} {device.device_kind}",
    }


def compile_blocks(lane: Lane, block: int, batch: str, devices: Sequence[jax.Device]) -> Program:
    """Compile the program that runs one block on each device.

    Each device runs its own block inside `shard_map`, without any communication.

    Args: lane: a traced run; block: lanes per device and call; batch: "vmap" or "map"; devices: of one kind.
    Returns: the program.
    Raises: RuntimeError where the program would hang (`require_no_deadlock`).
    Source: derived here. Cost: one compilation.
    """
    require_no_deadlock(lane, devices)
    start = time.perf_counter()
    # Auto: with explicit axes, the default, gathers and loops inside a run would be refused.
    mesh = Mesh(np.array(devices), ("devices",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("devices"), PartitionSpec()
    run = jax.shard_map(
        _block_function(lane, block, batch),
        mesh=mesh,
        in_specs=(whole, *(split for _ in lane.inputs)),
        out_specs=split,
        check_vma=False,
    )
    sharding = NamedSharding(mesh, split)
    constants = jax.device_put(lane.jaxpr.consts, NamedSharding(mesh, whole))
    width = block * len(devices)
    specs = [jax.ShapeDtypeStruct((width, *s.shape), s.dtype, sharding=sharding) for s in lane.inputs.values()]
    call = jax.jit(run).lower(constants, *specs).compile()
    return Program(
        call,
        constants,
        sharding,
        lane.outputs,
        block,
        len(devices),
        time.perf_counter() - start,
        _temporary_bytes(call),
    )


def _temporary_bytes(call: Any) -> int:
    try:
        memory = call.memory_analysis()
    except (NotImplementedError, RuntimeError):  # not every backend reports it
        return 0
    if memory is None:
        return 0
    return int(memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes)


def dispatch(program: Program, columns: Sequence[np.ndarray], count: int) -> list[Any]:
    """Start the blocks of `count` cells (columns[count]) and return at once.

    What is missing in the last call is filled by repeating the last cell.

    Args: program: what to run; columns: one array[count] per traced argument; count: number of cells.
    Returns: what `collect` takes. Source: derived here. Cost: about 0.2 ms per call, and none of the computation.
    """
    width, calls = program.block * program.devices, []
    for start in range(0, count, width):
        parts = [column[start : start + width] for column in columns]
        if count - start < width:
            parts = [np.concatenate([p, np.repeat(p[-1:], width - len(p), axis=0)]) for p in parts]
        calls.append(program.call(program.constants, *jax.device_put(parts, program.sharding)))
    return calls


def collect(program: Program, calls: Sequence[Any], count: int) -> dict[str, np.ndarray]:
    """Wait for started blocks and copy their results to the host.

    Args: program, count: as given to `dispatch`; calls: what it returned.
    Returns: variable -> array[count, ...]. Source: derived here. Cost: one copy.
    """
    width, results = program.block * program.devices, {}
    for i, (name, spec) in enumerate(program.outputs.items()):
        results[name] = np.empty((count, *spec.shape), spec.dtype)
        for start, outputs in zip(range(0, count, width), calls, strict=True):
            stop = min(start + width, count)
            results[name][start:stop] = np.asarray(outputs[i])[: stop - start]
    return results
