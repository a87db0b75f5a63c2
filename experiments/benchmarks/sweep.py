"""Speed of a sweep: 100 000 cells of Nash-MD, the cost of a store, and what bounds the rate.

    python -m experiments.benchmarks.sweep [--devices 2] [--cells 100000] [--study]

Every cell is a random preference game of 10 actions, 1 000 steps of Nash-MD from the reference policy and the
duality gap every 10 steps, in float64. Printed: compile time apart, cells per second, peak memory, and the time
that a store adds per chunk. `--study` also times one block under several widths and forms of the inner product.
"""

import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Config:
    """What to time.

    cells: number of cells. devices: simulated CPU devices, one per core; other values need a fresh process.
    block: lanes of a block, None for the default. study: also time single blocks under several variants.
    """

    cells: int = 100_000
    devices: int = 1
    block: int | None = None
    study: bool = False


SIZE, STEPS, EVERY, STEP_SIZE = 10, 1000, 10, 0.1


def nash_md(seed, temperature):
    """The gap of Nash-MD on one random game: {"gap": float[STEPS / EVERY + 1]}."""
    import jax
    import jax.numpy as jnp

    from envs.preferences import random_skew
    from rlcore.nash import NashMD, PreferenceGame, observe_gap
    from rlcore.solver import iterate

    game = PreferenceGame(random_skew(jax.random.key(seed), SIZE), jnp.full(SIZE, -jnp.log(float(SIZE))), temperature)
    return {"gap": iterate(NashMD(STEP_SIZE), game, STEPS, observe=observe_gap, every=EVERY)[1]}


def grid(cells: int) -> dict:
    """Seeds times ten temperatures."""
    import numpy as np

    return {"seed": range(-(-cells // 10)), "temperature": np.geomspace(0.01, 1, 10)}


def rate(config: Config) -> None:
    """The whole sweep, in memory."""
    from rlcore.sweep import sweep

    start = time.process_time()
    data = sweep(nash_md, grid(config.cells), dims={"gap": ("step",)}, block=config.block)
    busy = time.process_time() - start
    told, peak = data.attrs, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{told['cells_computed']} cells in {told['seconds']:.1f} s, {told['compile_seconds']:.1f} s of it to compile, "
        f"{busy:.1f} s of processor time; "
        f"{told['cells_per_second']:.0f} cells/s; blocks of {told['block']} ({told['batch']}) in chunks of "
        f"{told['chunk']} on {told['devices']}; peak memory {peak:.2f} GiB; "
        f"gap at the end, median {float(data.gap[..., -1].median()):.2g}"
    )


def overhead(config: Config) -> None:
    """What writing and bookkeeping add to chunks of about one second.

    The writing of a chunk is timed by itself, as if nothing of it were hidden behind the next chunk's computation.
    """
    import jax
    import numpy as np

    from rlcore import blocks, store
    from rlcore.sweep import sweep

    few = grid(min(config.cells, 20_000))
    alone = sweep(nash_md, few, dims={"gap": ("step",)}, block=config.block)
    block = alone.attrs["block"]
    chunk = max(1, round(alone.attrs["cells_per_second"] / block)) * block
    rows = {"gap": alone.gap.values.reshape(-1, alone.gap.shape[-1])[:chunk]}
    specs = {"gap": jax.ShapeDtypeStruct(rows["gap"].shape[1:], rows["gap"].dtype)}
    writes = []
    with tempfile.TemporaryDirectory() as folder:
        layout = store.Layout(chunk, (chunk,) * 10)
        store.create(Path(folder), {}, layout, np.arange(10 * chunk), specs)
        for number in range(10):
            start = time.perf_counter()
            store.write_chunk(Path(folder), layout, number, rows)
            writes.append(time.perf_counter() - start)
    numbers = {"seed": jax.ShapeDtypeStruct((), np.int64), "temperature": jax.ShapeDtypeStruct((), np.float64)}
    lane = blocks.trace(lambda seed, temperature: {"gap": temperature}, numbers, {})
    program = blocks.compile_blocks(lane, block, "vmap", jax.devices())
    columns, start = [np.zeros(chunk, int), np.zeros(chunk)], time.perf_counter()
    blocks.collect(program, blocks.dispatch(program, columns, chunk), chunk)
    empty = time.perf_counter() - start
    seconds = chunk / alone.attrs["cells_per_second"]
    print(
        f"a chunk of {chunk} cells and {seconds:.2f} s: writing {1e3 * np.median(writes):.1f} ms (median, worst "
        f"{1e3 * max(writes):.1f}), dispatching its {-(-chunk // block)} blocks {1e3 * empty:.1f} ms: "
        f"{100 * (np.median(writes) + empty) / seconds:.1f}% of the chunk"
    )


def study(config: Config) -> None:
    """One block of a bare Nash-MD loop, by form of the matrix-vector product and by width."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from rlcore import blocks

    products = {
        "matmul": lambda a, x: a @ x,
        "multiply and sum": lambda a, x: jnp.sum(a * x[None, :], axis=1),
        "unrolled": lambda a, x: sum(a[:, j] * x[j] for j in range(SIZE)),
        "no product": lambda a, x: a[0] * x,
        "no exponentials": None,
    }

    def make(name):
        product = products[name] or (lambda a, x: a @ x)
        exp = jnp.exp if products[name] else (lambda x: x)
        normalise = jax.nn.log_softmax if products[name] else (lambda x: x - jnp.mean(x))

        def run(seed, temperature):
            game = jax.random.uniform(jax.random.key(seed), (SIZE, SIZE))
            pull, reference = STEP_SIZE * temperature, jnp.full(SIZE, -jnp.log(float(SIZE)))

            def step(logits, _):
                mixed = normalise((1 - pull) * logits + pull * reference)
                return normalise(mixed + STEP_SIZE * product(game - game.T, exp(mixed))), None

            def segment(logits, _):
                logits = jax.lax.scan(step, logits, None, length=EVERY)[0]
                return logits, jnp.max(product(game - game.T, exp(logits)))

            return {"gap": jax.lax.scan(segment, reference, None, length=STEPS // EVERY)[1]}

        return run

    for name, width in [*((n, 256) for n in products), *(("matmul", w) for w in (16, 64, 1024, 4096))]:
        spec = {"seed": jax.ShapeDtypeStruct((), np.int64), "temperature": jax.ShapeDtypeStruct((), np.float64)}
        lane = blocks.trace(make(name), spec, {})
        program = blocks.compile_blocks(lane, width, "vmap", jax.devices())
        count = width * len(jax.devices())
        columns, seconds = (np.arange(count), np.full(count, 0.1)), []
        for _ in range(5):
            # Processor time: other users of the machine disturb it less.
            start = time.process_time()
            blocks.collect(program, blocks.dispatch(program, columns, count), count)
            seconds.append(time.process_time() - start)
        print(f"block of {width:4d}, {name:16s}: {count / min(seconds):6.0f} cells per second of processor time")


def main(config: Config) -> None:
    """Run the parts; simulated devices must exist before JAX starts, so they take a child process."""
    if config.devices > 1 and "RLCORE_BENCHMARK_CHILD" not in os.environ:
        flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={config.devices}"
        # On JAX 0.10 the thread pool must be larger than the number of devices.
        child = {"RLCORE_BENCHMARK_CHILD": "1", "XLA_FLAGS": flags, "NPROC": str(4 * config.devices)}
        command = [sys.executable, "-m", "experiments.benchmarks.sweep", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env={**os.environ, **child}).returncode)
    import jax

    jax.config.update("jax_enable_x64", True)
    print(
        f"jax {jax.__version__}, {jax.device_count()} device(s); load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    )
    rate(config)
    overhead(config)
    if config.study:
        study(config)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
