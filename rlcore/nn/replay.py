"""A ring of the latest transitions: rows written by all environments at once, read at random."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.types import Array, Int, Key, PyTree

__all__ = ["Ring", "empty_ring", "push", "sample"]


class Ring(NamedTuple):
    """data: a pytree of arrays [rows, n, ...]. count: int32[], rows written so far, also those written over."""

    data: PyTree
    count: Int[Array, ""]


def empty_ring(example: PyTree, rows: int) -> Ring:
    """A ring of `rows` rows shaped like `example`, nothing written.

    Args: example: a pytree of arrays [n, ...], or of their shapes and types; rows: int >= 1, static.
    Returns: the ring. Raises: ValueError for no rows. Cost: its memory.
    """
    if rows < 1:
        raise ValueError(f"rows: found {rows}, expected at least one")
    return Ring(jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), example), jnp.zeros((), jnp.int32))


def push(ring: Ring, row: PyTree) -> Ring:
    """Write one row, over the oldest where the ring is full. Args: row: arrays [n, ...]. Cost: one row."""
    rows = jax.tree.leaves(ring.data)[0].shape[0]
    at = ring.count % rows
    write = lambda data, x: jax.lax.dynamic_update_index_in_dim(data, x, at, 0)  # noqa: E731
    return Ring(jax.tree.map(write, ring.data, row), ring.count + 1)


def sample(key: Key[Array, ""], ring: Ring, size: int) -> PyTree:
    """Draw transitions uniformly, with replacement, from what is in the ring; at least one row must be.

    Args: key; size: static. Returns: a pytree of arrays [size, ...]. Cost: size reads.
    """
    rows, width = jax.tree.leaves(ring.data)[0].shape[:2]
    filled = jnp.minimum(ring.count, rows)
    at = jax.random.randint(key, (size,), 0, filled * width, jnp.int32)
    return jax.tree.map(lambda x: x[at // width, at % width], ring.data)
