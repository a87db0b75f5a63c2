"""The stock: what the past has earned, in units of now, and the grids on which dynamic programmes keep it.

The stock starts at c_0 and follows c <- (c + reward) / discount, so that discount^t (c_t + G_t) = c_0 + G_0 at every
step t, G_t the return from then on. In the coordinates "discounted" the grid holds b_t = discount^t c_t instead, which
stays bounded and follows b <- b + discount^t reward; it needs t, hence a horizon, and makes any utility legal.
`rlcore.distributional.stock_window` finds the grid of a problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.distributional.lattice import Lattice, Place, lattice, place
from rlcore.distributional.utility import Utility
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Number, RandomKey

__all__ = [
    "ROUNDINGS",
    "StockGrid",
    "StockPolicy",
    "discount_power",
    "mean_factor",
    "next_stock",
    "policy_action",
    "round_stock",
    "scale_factor",
    "stock_grid",
    "tied_actions",
]

ROUNDINGS = ("exact", "nearest", "floor", "ceil", "linear", "stochastic")
COORDINATES = ("stock", "discounted")


@pytree
class StockGrid:
    """The stocks at which a dynamic programme is solved; build it with `stock_grid` or `fitting_grid`.

    lattice: the nodes, spacing * integer, in units of reward. rounding, static: where a stock between nodes goes.
      "exact": every stock is a node (rewards are multiples of the spacing and 1 / discount is an integer);
      "nearest", "floor", "ceil": to that node; "linear": values are interpolated, policies see the true stock;
      "stochastic": to one of the two nodes around it by a coin that keeps the mean; values are those of "linear".
    coordinates, static: "stock" or "discounted".
    """

    lattice: Lattice
    rounding: str = static("exact")
    coordinates: str = static("stock")

    @property
    def nodes(self) -> Float[Array, "C"]:
        """All nodes, increasing."""
        return self.lattice.points


def stock_grid(
    low: float | int, high: float | int, spacing: float | int, *, rounding: str = "exact", coordinates: str = "stock"
) -> StockGrid:
    """The grid of the multiples of `spacing` that covers [low, high].

    Args: low, high, spacing: host numbers in units of reward; rounding, coordinates: as in `StockGrid`.
    Raises: ValueError for numbers out of range or an unknown word.
    Cost: O(1).
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding: found {rounding!r}, expected one of {', '.join(ROUNDINGS)}")
    if coordinates not in COORDINATES:
        raise ValueError(f"coordinates: found {coordinates!r}, expected one of {', '.join(COORDINATES)}")
    return StockGrid(lattice(low, high, spacing), rounding, coordinates)


def discount_power(discount: Number, t: Number) -> Float[Array, ""]:
    """discount^t for a traced step t. Args: t: an integer, in any type. Cost: O(1)."""
    discount = jnp.asarray(discount)
    return discount ** jnp.asarray(t).astype(discount.dtype)


def next_stock(
    grid: StockGrid,
    stock: Float[Array, "..."],
    reward: Float[Array, "..."],
    discount: Number,
    t: Number = 0,
) -> Float[Array, "..."]:
    """The stock after a reward: (stock + reward) / discount, or stock + discount^t reward in discounted coordinates.

    Args: stock, reward: float[...]; discount: float[] in (0, 1]; t: int[], steps taken before.
    Returns: float[...]. Source: Avila Pires et al. (2025), arXiv 2501.13028, as recalled. Cost: O(size).
    """
    if grid.coordinates == "discounted":
        return stock + discount_power(discount, t) * reward
    return (stock + reward) / discount


def scale_factor(grid: StockGrid, utility: Utility, discount: Number) -> Number:
    """The factor of one step, f(discount x) = factor f(x); 1 in discounted coordinates. Cost: O(1)."""
    if grid.coordinates == "discounted" or utility.degree is None:
        return jnp.ones_like(discount)
    return discount**utility.degree


def mean_factor(grid: StockGrid, discount: Number, t: Number = 0) -> Number:
    """What one unit of return from step t + 1 on adds to the stock after step t. Cost: O(1)."""
    return discount_power(discount, t) * discount if grid.coordinates == "discounted" else jnp.ones_like(discount)


def round_stock(grid: StockGrid, stock: Number | Float[Array, "..."]) -> Place:
    """The nodes that stand for a stock: `weight` on the upper one, 0 or 1 unless the grid interpolates.

    Args: stock: float[...]. Returns: a `Place` on the grid's lattice. Cost: O(size of stock).
    """
    at = place(grid.lattice, stock)
    if grid.rounding in ("linear", "stochastic"):
        return at
    if grid.rounding in ("exact", "nearest"):
        upper = at.weight >= 0.5
    elif grid.rounding == "ceil":
        upper = at.weight > 0
    else:
        upper = at.weight >= 1
    return at._replace(weight=upper.astype(at.weight.dtype))


@pytree
class StockPolicy:
    """A deterministic policy of state and stock; with a horizon every array has a leading axis of time.

    grid: where stocks are looked up: the node below where the grid interpolates and the stock is nearer to it, else
      the node it is rounded to. action: int32[*H, S, C]. below, above: int32[*H, S], outside the window.
    """

    grid: StockGrid
    action: Array
    below: Array
    above: Array


def policy_action(policy: StockPolicy, state: Int[Array, ""] | int, stock: Number, t: Number = 0) -> Int[Array, ""]:
    """The action of a stock policy at one state and stock.

    Args: state: int[]; stock: float[], in the grid's coordinates; t: int[], used with a horizon.
    Returns: int32[]. Cost: O(1).
    """
    action, below, above = policy.action, policy.below, policy.above
    if action.ndim == 3:
        action, below, above = action[t], below[t], above[t]
    at = round_stock(policy.grid, stock)
    inside = action[state, at.index + (at.weight >= 0.5).astype(jnp.int32)]
    return jnp.where(at.below, below[state], jnp.where(at.above, above[state], inside))


def tied_actions(value: Float[Array, "... A"], tol: Number = 1e-12) -> Bool[Array, "... A"]:
    """Which actions are within tol (1 + |best|) of the best. Cost: O(size of value)."""
    best = jnp.max(value, axis=-1, keepdims=True)
    return value >= best - tol * (1 + jnp.abs(best))


def break_ties(value: Float[Array, "... A"], rule: str, key: RandomKey = None) -> Int[Array, "..."]:
    """A maximiser along the last axis, values within 1e-12 (1 + |best|) of the best being tied.

    Args: value: float[..., A], -inf for unavailable; rule: "first", "last" or "random"; key: for "random".
    Returns: int32[...]. Cost: O(size of value).
    """
    tied = tied_actions(value)
    if rule == "first":
        return jnp.argmax(tied, axis=-1).astype(jnp.int32)
    if rule == "last":
        return (value.shape[-1] - 1 - jnp.argmax(tied[..., ::-1], axis=-1)).astype(jnp.int32)
    return jnp.argmax(jnp.where(tied, jax.random.uniform(key, value.shape), -1.0), axis=-1).astype(jnp.int32)


class StockValue(NamedTuple):
    """Values of states and stocks; with a horizon every array has a leading axis of time, and `value` one row more.

    value: float[*H, S, C], E f(c + G) at the nodes. below, above: float[*H, S], the mean return where f is affine.
    """

    value: Array
    below: Array
    above: Array
