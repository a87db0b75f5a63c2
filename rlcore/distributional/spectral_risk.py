"""Spectral risks maximised: weighted sums of CVaRs, each with a stock of its own, all of which one stock tells.

The sum over i of weights_i CVaR_{levels_i}(G) is the maximum over thresholds b of sum_i weights_i (b_i + E min(G - b_i,
0) / levels_i). Stock i starts at -b_i and all earn the same rewards: their differences b_i - b_1 never change (in
discounted coordinates), so that one stock and a utility with kinks at these differences do for all m.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.evaluation import stock_evaluation
from rlcore.distributional.stock import StockGrid, StockPolicy, stock_grid
from rlcore.distributional.stock_vi import stock_vi
from rlcore.distributional.stock_window import return_range, reward_spacing
from rlcore.distributional.utility import Tails
from rlcore.mdp import MDP
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Number

__all__ = ["Hinges", "SpectralSolution", "maximize_spectral"]

# Solves of a stock problem that one call makes at most.
MOST = 100_000


@pytree
class Hinges:
    """f(x) = sum_i slopes_i min(x - kinks_i, 0).

    slopes: float[m] >= 0, utility per unit of reward. kinks: float[m] >= 0, in units of reward. Affine below 0 and from
    the last kink on: a grid has to reach up to the last kink minus the least return.
    """

    slopes: Array
    kinks: Array

    degree = None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x). Cost: m times the size of x."""
        x = jnp.asarray(x)[..., None]
        lead = tuple(range(x.ndim - 1))
        return jnp.sum(jnp.expand_dims(self.slopes, lead) * jnp.minimum(x - jnp.expand_dims(self.kinks, lead), 0), -1)

    def tails(self) -> Tails:
        """The sum of the slopes far below, 0 far above."""
        zero = jnp.zeros_like(self.slopes[0])
        slope, level = jnp.sum(self.slopes), -jnp.sum(self.slopes * self.kinks)
        return Tails(jnp.stack([slope, zero]), jnp.stack([level, zero]))


class SpectralSolution(NamedTuple):
    """What `maximize_spectral` returns.

    value: float[], the greatest spectral risk. lower: float[], that of `policy` is at least this: the policy evaluated
    anew. upper: float[], no policy has more: `value` with a horizon, inf without one. thresholds: float[m], increasing,
    quantiles of the optimal law at the levels. stock: float[], where `policy` starts: minus the first threshold.
    policy: the `StockPolicy`.
    """

    value: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    thresholds: Float[Array, "m"]
    stock: Float[Array, ""]
    policy: StockPolicy


def maximize_spectral(
    problem: MDP,
    levels: Sequence[float],
    weights: Sequence[float],
    *,
    high: float | int | None = None,
    tol: Number = 1e-10,
) -> SpectralSolution:
    """The greatest sum of weights_i CVaR_{levels_i} of the return, over policies of the whole history.

    Thresholds are searched over all returns on the rewards' lattice, where the maximum is attained; for each set of
    differences one stock problem gives the values of all first thresholds.

    Args:
      problem: with concrete arrays; discount 1, or 1 / discount an integer and a horizon. levels: m increasing numbers
        in (0, 1]. weights: m numbers >= 0 that sum to 1. high: where returns have no lower bound (costs without a
        horizon), minus the least threshold that is tried. tol: as in `stock_vi`, without a horizon.

    Returns: a `SpectralSolution`.
    Raises: ValueError: levels or weights out of range, a discount off that list, returns unbounded above or below
      without `high`, more than 100,000 sets of differences.
    Source: Acerbi (2002) for the risks, Rockafellar and Uryasev (2000) for the formula; derived:
      docs/proofs/distributional.md, T15, term by term. Cost: n^(m - 1) / (m - 1)! solves by `stock_vi` with up to 2 n
      nodes, n the number of lattice points in the range of returns.
    """
    levels, weights = _check(levels, weights)
    grid, low, top = _grid(problem, high)
    spacing = float(grid.lattice.spacing)
    count = round((top - low) / spacing)
    if (solves := math.comb(count + levels.size - 1, levels.size - 1)) > MOST:
        raise ValueError(f"levels: found {solves} sets of thresholds, expected at most {MOST}: fewer levels or returns")
    steps = itertools.combinations_with_replacement(range(count + 1), levels.size - 1)
    kinks = jnp.asarray([(0, *rest) for rest in steps], jnp.result_type(float)) * spacing
    slopes = jnp.asarray(weights / levels, kinks.dtype)
    weights = jnp.asarray(weights, kinks.dtype)
    best, node = _search(problem, grid, slopes, weights, kinks, tol)
    which = int(jnp.argmax(best))
    utility = Hinges(slopes, kinks[which])
    solution = stock_vi(problem, utility, grid, tol=tol)
    constant = jnp.sum(weights * kinks[which]) - grid.nodes[node[which]]
    again = stock_evaluation(problem, utility, solution.policy, tol=tol)
    lower = constant + _at_start(problem, again)[node[which]]
    stock = grid.nodes[node[which]]
    return SpectralSolution(
        best[which], lower, best[which] + solution.bound, kinks[which] - stock, stock, solution.policy
    )


def _check(levels, weights) -> tuple[np.ndarray, np.ndarray]:
    levels, weights = np.asarray(levels, float), np.asarray(weights, float)
    if levels.ndim != 1 or levels.shape != weights.shape or levels.size == 0:
        raise ValueError(f"levels, weights: found shapes {levels.shape} and {weights.shape}, expected one [m], m >= 1")
    if not np.all((levels > 0) & (levels <= 1)) or np.any(np.diff(levels) <= 0):
        raise ValueError(f"levels: found {levels.tolist()}, expected increasing numbers in (0, 1]")
    if not np.all(weights >= 0) or abs(weights.sum() - 1) > 8 * weights.size * np.finfo(float).eps:
        raise ValueError(f"weights: found {weights.tolist()}, expected numbers >= 0 that sum to 1")
    return levels, weights


def _grid(problem: MDP, high) -> tuple[StockGrid, float, float]:
    """A grid for every set of thresholds, and the range of the returns from the start."""
    least, most = return_range(problem)
    discount, horizon = float(problem.discount), problem.horizon
    begins = np.asarray(problem.initial) > 0
    spacing = reward_spacing(problem)
    if horizon is None:
        least, most = least[None], most[None]
    if discount < 1:
        if horizon is None or abs(1 / discount - round(1 / discount)) > 1e-12:
            raise ValueError(
                f"problem: found discount {discount} and horizon {horizon}, expected discount 1, or a horizon and an "
                "integer 1 / discount: only there returns lie on a lattice"
            )
        spacing *= discount ** (horizon - 1)
        shrink = discount ** np.arange(horizon)[:, None]
        least, most = shrink * least, shrink * most
    if not np.isfinite(most).all():
        raise ValueError("problem: found returns without an upper bound, expected a horizon or an end")
    top = float(most[0, begins].max())
    if not np.isfinite(least).all():
        if high is None:
            raise ValueError("high: found None for returns without a lower bound, expected minus the least threshold")
        # costs: the stock never rises above its start
        low, last = -float(high), float(high)
    else:
        low = float(least[0, begins].min())
        last = (top - low) - float(least.min())
    first = min(-float(most.max()), -top)
    coordinates = "discounted" if discount < 1 else "stock"
    return stock_grid(first, last, spacing, coordinates=coordinates), low, top


def _at_start(problem: MDP, solution) -> Float[Array, "C"]:
    value = solution.value.value
    return jnp.sum(problem.initial[:, None] * (value[0] if value.ndim == 3 else value), axis=0)


@jax.jit
def _search(problem, grid, slopes, weights, kinks, tol):
    """The greatest value over first thresholds for each set of differences, and its node."""

    def one(kinks):
        curve = _at_start(problem, stock_vi(problem, Hinges(slopes, kinks), grid, tol=tol))
        curve = curve - grid.nodes + jnp.sum(weights * kinks)
        return jnp.max(curve), jnp.argmax(curve)

    return jax.lax.map(one, kinks, batch_size=min(16, kinks.shape[0]))
