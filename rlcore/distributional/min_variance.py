"""The least variance of the return: the least E (G - b)^2 over policies and over b, with a certificate for all b.

min over policies of E (G - b)^2 is b^2 + g(b) with g concave: between two b's g is above its chord, so an interval
where chord and parabola stay above the best variance found is done with, and the others are split.
"""

import heapq

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.functionals import variance
from rlcore.distributional.lattice import NEAR
from rlcore.distributional.optimum import (
    RiskOptimum,
    evaluated,
    farthest,
    interpolation_error,
    rounding_error,
    solve_at,
)
from rlcore.distributional.representations import partial_returns
from rlcore.distributional.search_grid import covering_grid
from rlcore.distributional.stock import StockGrid
from rlcore.distributional.stock_window import return_range
from rlcore.distributional.utility import Power
from rlcore.mdp import MDP

__all__ = ["minimize_variance"]


def minimize_variance(
    problem: MDP, grid: StockGrid | None = None, *, tol: float = 1e-9, max_plans: int = 100
) -> RiskOptimum:
    """The policy with the least variance of the return.

    Args:
      problem: an outcome list with concrete arrays and a horizon.
      grid: by default one that holds every stock that can follow, lossless where `search_grid` is.
      tol: the search ends when upper - lower is at most this, in squared units of reward, on a lossless grid.
      max_plans: at most this many plans; the interval that is left is then reported.

    Returns: a `RiskOptimum` of variances: here `upper` is what the policy has and none has less than `lower`.
    Raises: ValueError: no horizon. TypeError, ValueError: as `check_stock_problem`.
    Source: derived: docs/proofs/distributional.md, T17. Cost: some ten `stock_vi` and `policy_law`.
    """
    if problem.horizon is None:
        raise ValueError("problem: found no horizon, expected one: E (G - b)^2 is not known outside a window")
    low, high = _returns(problem)
    if grid is None:
        least, most = partial_returns(problem)
        grid = covering_grid(problem, least - high, most - low)
    slope = 2 * farthest(problem, grid)
    off = 2 * rounding_error(problem, grid, slope) + interpolation_error(problem, grid, slope)
    # where values are interpolated g is concave up to `off` only: no interval shorter than a spacing is split
    narrow = float(grid.lattice.spacing) * (NEAR if off == 0 else 1.0)
    best, closed = None, np.inf

    def plan(b: float) -> float:
        """g at b; the policy planned for it may be the best."""
        nonlocal best
        found = solve_at(problem, Power(2.0), grid, -b)
        law = evaluated(problem, found.solution.policy, found.start)
        has = variance(law.law) + slope * law.error
        if best is None or float(has) < float(best.upper):
            start, zero = jnp.asarray(found.start), jnp.zeros(())
            best = RiskOptimum(has, start, zero, has, found.solution.policy, law.law)
        return -found.value - b * b

    def bound(left, right) -> tuple[float, float]:
        """The least of b^2 + chord on an interval, and where it is."""
        chord = (right[1] - left[1]) / (right[0] - left[0])
        b = float(np.clip(-chord / 2, left[0], right[0]))
        return b * b + left[1] + chord * (b - left[0]), b

    ends = (low, plan(low)), (high, plan(high))
    open_intervals = [(*bound(*ends), *ends)] if high > low else []
    for _ in range(max_plans):
        if not open_intervals or open_intervals[0][0] >= float(best.upper) - tol:
            break
        least, b, left, right = heapq.heappop(open_intervals)
        if right[0] - left[0] <= narrow:
            closed = min(closed, least)
            continue
        if not narrow / 2 < b - left[0] < right[0] - left[0] - narrow / 2:
            b = (left[0] + right[0]) / 2
        middle = (b, plan(b))
        for pair in ((left, middle), (middle, right)):
            heapq.heappush(open_intervals, (*bound(*pair), *pair))
    certain = min(closed, float(best.upper), *(interval[0] for interval in open_intervals[:1])) - off
    certain = max(certain, 0.0)
    return best._replace(lower=jnp.asarray(certain))


def _returns(problem: MDP) -> tuple[float, float]:
    """The least and the greatest return from the initial law."""
    least, most = return_range(problem)
    first = np.asarray(problem.initial) > 0
    return float(np.min(least[0][first])), float(np.max(most[0][first]))
