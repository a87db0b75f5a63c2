"""Utilities of a vector of returns: the distance from a balance, and a reward with budgets for the rest."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number

__all__ = ["Constrained", "NormDrive", "VectorUtility", "constrained", "norm_drive"]


@runtime_checkable
class VectorUtility(Protocol):
    """What `vector_stock_vi` asks of f; `Custom` with a function of the last axis is one.

    degree: its degree of homogeneity, f(g x) = g^degree f(x) for all g > 0, or None where it has none.
    """

    degree: float | None

    def __call__(self, x: Float[Array, "... m"]) -> Float[Array, "..."]:
        """f(x), of vectors along the last axis."""


@pytree
class NormDrive:
    """f(x) = -||x||_order, minus the distance from the balance; build it with `norm_drive`. order: float, static."""

    order: float = static(2.0)

    degree = 1.0

    def __call__(self, x: Float[Array, "... m"]) -> Float[Array, "..."]:
        """f(x). Cost: O(size of x)."""
        x = jnp.abs(x)
        if self.order == 1:
            return -jnp.sum(x, axis=-1)
        if np.isinf(self.order):
            return -jnp.max(x, axis=-1)
        if self.order == 2:
            return -jnp.sqrt(jnp.sum(x**2, axis=-1))
        return -(jnp.sum(x**self.order, axis=-1) ** (1 / self.order))


def norm_drive(order: float | int = 2.0) -> NormDrive:
    """The utility -||x||_order: with stock c the drives that are left to still by the return, c + G = 0 being balance.

    Args: order: >= 1 or inf, a host number. Raises: ValueError for another. Source: Keramati and Gutkin (2014), as
      recalled, for drives that are norms. Cost: O(1).
    """
    if not order >= 1:
        raise ValueError(f"order: found {order}, expected a number >= 1 or inf")
    return NormDrive(float(order))


@pytree
class Constrained:
    """f(x) = x_1 + weight sum_{i > 1} min(x_i, 0); build it with `constrained`. weight: float[]."""

    weight: Array

    degree = 1.0

    def __call__(self, x: Float[Array, "... m"]) -> Float[Array, "..."]:
        """f(x). Cost: O(size of x)."""
        return x[..., 0] + self.weight * jnp.sum(jnp.minimum(x[..., 1:], 0), axis=-1)


def constrained(weight: Number) -> Constrained:
    """The utility x_1 + weight sum_{i > 1} min(x_i, 0): the first return, less a price for what exceeds the budgets.

    With negative rewards for what is to be limited, and the budgets as first stocks, x_i < 0 is what was spent above
    budget i. The expected excess is limited, not the excess itself.

    Args: weight: float[] >= 0, utility of the first reward per unit of excess. Raises: ValueError for a negative weight
      or one that is no number. Source: this project's specification. Cost: O(1).
    """
    if not isinstance(weight, jax.core.Tracer) and not 0 <= float(weight) < np.inf:
        raise ValueError(f"weight: found {weight}, expected a finite number >= 0")
    return Constrained(jnp.asarray(weight, jnp.result_type(float)))
