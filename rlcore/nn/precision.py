"""Numbers of one precision, so that a network's type decides what is computed, whatever the caller's flags."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlcore.types import PyTree

__all__ = ["at_precision"]


def at_precision(dtype: DTypeLike, tree: PyTree) -> PyTree:
    """All floats of a tree, Python numbers too, as arrays of one type; other leaves become arrays.

    Args: dtype: of floats; tree. Returns: the tree. Cost: one copy of what has another type.
    """

    def cast(x):
        x = jnp.asarray(x)
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)
