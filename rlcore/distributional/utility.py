"""Utilities of the return: what they ask of the discount, and how they continue outside a window of stocks.

The objective is E f(c + G), c the stock and G the return. A dynamic programme over stocks needs f(discount x) =
scale f(x) with one number `scale` for all x: f is homogeneous of some degree, scale = discount^degree.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number

__all__ = ["Custom", "Power", "Reach", "Shifted", "Tails", "TwoSlope", "Utility", "two_slope"]


class Tails(NamedTuple):
    """An f that is affine on each side of 0: slope[0] x + level[0] below, slope[1] x + level[1] from 0 on.

    slope, level: float[2].
    """

    slope: Array
    level: Array


@runtime_checkable
class Utility(Protocol):
    """What the solvers ask of f. degree: its degree of homogeneity, or None where it has none."""

    degree: float | None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x), elementwise."""

    def tails(self) -> Tails | None:
        """Its affine sides, or None where it has none: then no stock outside the window has a known value."""


@pytree
class TwoSlope:
    """f(x) = a_plus max(x, 0) + a_minus min(x, 0), homogeneous of degree 1; see `two_slope`.

    a_plus, a_minus: float[], any signs. (1, 1) mean, (0, 1) CVaR, (1, 0) optimistic CVaR, (-1, 1) minus the distance
    from the target -c, (q, 1 - q) the expectile of level q.
    """

    a_plus: Array | np.ndarray
    a_minus: Array | np.ndarray

    degree = 1.0

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x). Cost: O(size of x)."""
        return jnp.where(x < 0, self.a_minus, self.a_plus) * x

    def tails(self) -> Tails:
        """The two slopes."""
        slope = jnp.stack([jnp.asarray(self.a_minus), jnp.asarray(self.a_plus)])
        return Tails(slope, jnp.zeros_like(slope))


def two_slope(a_plus: Number, a_minus: Number) -> TwoSlope:
    """The utility a_plus max(x, 0) + a_minus min(x, 0): up to a constant, all that every discount allows on the line.

    Args: a_plus, a_minus: float[], utility per reward above and below 0.
    Returns: the utility.
    Raises: ValueError for slopes that are no finite numbers.
    Source: derived: docs/proofs/distributional.md, T7. Cost: O(1).
    """
    # plain numbers stay on the host: a utility at the top of a module must not start a device
    dtype = jnp.result_type(float)
    slopes = [jnp.asarray(a, dtype) if isinstance(a, jax.Array) else np.asarray(a, dtype) for a in (a_plus, a_minus)]
    for name, given in (("a_plus", a_plus), ("a_minus", a_minus)):
        if not isinstance(given, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(given))):
            raise ValueError(f"{name}: found {given}, expected a finite number")
    return TwoSlope(*slopes)


@pytree
class Reach:
    """f(x) = 1 for x >= 0, else 0: the probability that the return reaches the target -c. Degree 0."""

    degree = 0.0

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x). Cost: O(size of x)."""
        return jnp.asarray(x >= 0, jnp.asarray(x).dtype)

    def tails(self) -> Tails:
        """Constant on both sides."""
        return Tails(jnp.zeros(2), jnp.array([0.0, 1.0]))


@pytree
class Power:
    """f(x) = -|x|^degree, degree > 0: minus the distance from the target -c, to a power.

    degree: float, static. Degree 2 is minus the variance where c is minus the mean.
    """

    degree: float = static(2.0)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x). Cost: O(size of x)."""
        return -(jnp.abs(x) ** self.degree)

    def tails(self) -> Tails | None:
        """The slopes (-1, 1) for degree 1; none otherwise."""
        return Tails(jnp.array([1.0, -1.0]), jnp.zeros(2)) if self.degree == 1 else None


@pytree
class Custom:
    """Any utility of one variable.

    function: elementwise, static: define it once, a new object compiles anew. degree: float or None, static: d with
    function(g x) = g^d function(x) for all g > 0, the caller's promise; None where there is none, for discount 1 or
    the coordinates "discounted" alone.
    """

    function: Callable = static()
    degree: float | None = static(None)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """function(x)."""
        return self.function(x)

    def tails(self) -> None:
        """None: nothing is known outside the window."""
        return None


@pytree
class Shifted:
    """f(x + shift): stocks between the nodes of an exact grid, for discount 1 or the coordinates "discounted".

    utility: f. shift: float[] in [0, spacing of the grid). Its sides are right on that grid, where x < 0 is at most
    minus the spacing.
    """

    utility: Utility
    shift: Array

    degree = None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x + shift). Cost: that of f."""
        return self.utility(x + self.shift)

    def tails(self) -> Tails | None:
        """The sides of f, moved."""
        tails = self.utility.tails()
        return tails if tails is None else Tails(tails.slope, tails.level + tails.slope * self.shift)
