"""Independent lanes of one function on all cores: one compiled program, called on blocks by a thread per core."""

import concurrent.futures
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 8  # lanes of small networks whose parameters and activations stay in a core's cache


def blockwise(function: Callable, lanes: tuple, *, block: int = BLOCK) -> Callable[[], object]:
    """Compile `jax.vmap(function)` for a block of lanes.

    Many small networks trained in one `vmap` stream through memory and multiply on one core; blocks stay in its cache,
    and every core has its own. On other devices than a CPU the block is the whole batch.

    Args: function: of one lane, without LAPACK (its batches hang where several threads call them, JAX 0.10); lanes: its
      arguments, pytrees with a leading axis; block: lanes at a time.
    Returns: `run() -> results on the host, leading axis first`; the last block is filled up with copies of a lane.
    Raises: ValueError for a block below 1. Cost: one compilation here; the lanes in `run`.
    """
    if block < 1:
        raise ValueError(f"block: found {block}, expected at least 1")
    count = len(jax.tree.leaves(lanes)[0])
    cpu = jax.default_backend() == "cpu"
    block = min(block, count) if cpu else count
    leaves, kind = jax.tree.flatten(lanes)
    part = lambda start: [jnp.take(x, _places(start, block, count), axis=0) for x in leaves]  # noqa: E731
    program = jax.jit(lambda part: jax.vmap(function)(*jax.tree.unflatten(kind, part))).lower(part(0)).compile()

    def one(start):
        return jax.device_get(program(part(start)))

    def run():
        starts = range(0, count, block)
        with concurrent.futures.ThreadPoolExecutor(_cores() if cpu else 1) as pool:
            found = list(pool.map(one, starts))
        return jax.tree.map(lambda *rows: np.concatenate(rows)[:count], *found)

    return run


def _cores() -> int:
    """The cores that this process may use; macOS does not say and gets all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _places(start, block, count):
    return jnp.asarray(np.minimum(np.arange(start, start + block), count - 1), jnp.int32)
