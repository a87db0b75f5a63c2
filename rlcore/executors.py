"""Chunks as independent tasks of any `concurrent.futures.Executor`: a process pool, a Dask client's, a Slurm submitter.

A task carries the settings of JAX and the function by cloudpickle. The worker takes the settings over, traces
the function itself and goes on only if that gives the very program of the parent, so that equal bits are
checked and not hoped for. Results come back to the parent, which alone writes.
"""

import concurrent.futures
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from rlcore import blocks

__all__ = ["check_executor", "make_payload", "map_bounded", "run_task"]

SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)
# A worker runs many chunks of one sweep: it compiles once. Several threads must not drive a CPU device at once.
_programs: dict[str, blocks.Program] = {}
_one_at_a_time = threading.Lock()


def check_executor(executor: Any) -> None:
    """Raise TypeError for an executor whose workers are no fresh processes.

    Threads would share, and could deadlock, one JAX runtime; a forked process inherits its locks.

    Args: executor: any object. Source: derived here; Python's and JAX's documentation of `fork`. Cost: O(1).
    """
    if not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(f"executor: found {type(executor).__name__}, expected a concurrent.futures.Executor")
    if isinstance(executor, concurrent.futures.ThreadPoolExecutor):
        raise TypeError(
            "executor: found a ThreadPoolExecutor, expected processes; without an executor all devices are used already"
        )
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise TypeError(
            "executor: found a process pool that forks, which deadlocks after JAX has started; expected "
            "ProcessPoolExecutor(..., mp_context=multiprocessing.get_context('spawn'))"
        )


def make_payload(
    one_run: Callable,
    static: Mapping[str, Any],
    lane: blocks.Lane,
    block: int,
    batch: str,
    expected: Mapping[str, Any],
) -> tuple[dict[str, Any], bytes]:
    """What a worker needs to rebuild the program of a group of cells.

    Args: one_run, static: the run and its fixed arguments; lane: its trace; block, batch: how to run it; expected:
      `blocks.provenance` of the parent.
    Returns: (settings and expectations, function and fixed arguments by cloudpickle).
    Raises: whatever pickling raises. Source: derived here. Cost: one pickling.
    """
    import cloudpickle

    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    inputs = {name: (spec.shape, spec.dtype) for name, spec in lane.inputs.items()}
    return {"settings": settings, "block": block, "batch": batch, "inputs": inputs, "expected": dict(expected)}, (
        cloudpickle.dumps((one_run, dict(static)))
    )


def _build(head: Mapping[str, Any], function: bytes) -> blocks.Program:
    import cloudpickle

    for name, value in head["settings"].items():
        jax.config.update(name, value)
        if getattr(jax.config, name) != value:
            raise RuntimeError(f"worker: could not set {name} to {value}")
    one_run, static = cloudpickle.loads(function)
    inputs = {name: jax.ShapeDtypeStruct(*spec) for name, spec in head["inputs"].items()}
    lane = blocks.trace(one_run, inputs, static)
    devices = jax.local_devices()
    found = blocks.provenance(lane, head["block"], head["batch"], devices[0])
    differing = [name for name, value in head["expected"].items() if found[name] != value]
    if differing:
        raise RuntimeError(
            f"worker: its {', '.join(differing)} differ from the parent's "
            f"({[(found[n], head['expected'][n]) for n in differing]}), expected the same program"
        )
    return blocks.compile_blocks(lane, head["block"], head["batch"], devices)


def run_task(head: Mapping[str, Any], function: bytes, columns: list[np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Run one chunk in a worker process: variable -> array[count, ...].

    Args: head, function: from `make_payload`; columns: one array[count] per traced argument; count: cells.
    Raises: RuntimeError if the worker's versions, settings, device or program differ from the parent's.
    Source: derived here. Cost: one compilation per worker and group, then that of the cells.
    """
    with _one_at_a_time:
        key = hashlib.sha256(function + repr(sorted(head.items())).encode()).hexdigest()
        if key not in _programs:
            _programs[key] = _build(head, function)
        program = _programs[key]
        return blocks.collect(program, blocks.dispatch(program, columns, count), count)


def map_bounded(
    executor: concurrent.futures.Executor, tasks: Iterable[tuple[Any, tuple]], limit: int
) -> Iterator[tuple[Any, dict[str, np.ndarray] | BaseException]]:
    """Run `run_task(*arguments)` for (name, arguments) with at most `limit` submitted at a time.

    Args: executor: where; tasks: taken as they are needed; limit: >= 1.
    Source: derived here. Cost: memory of `limit` tasks and results.
    Yields: (name, result or exception) in the order of completion. After an exception nothing more is
      submitted, and what is under way is still yielded.
    """
    waiting, tasks, failed = {}, iter(tasks), False
    try:
        while True:
            while len(waiting) < limit and not failed:
                task = next(tasks, None)
                if task is None:
                    break
                waiting[executor.submit(run_task, *task[1])] = task[0]
            if not waiting:
                return
            finished, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in finished:
                name, error = waiting.pop(future), future.exception()
                failed = failed or error is not None
                yield name, future.result() if error is None else error
    finally:
        for future in waiting:
            future.cancel()
