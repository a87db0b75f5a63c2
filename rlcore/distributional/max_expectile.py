"""Roots and ratios: the largest expectile of the return, and the largest ratio of its gains to its losses.

E f(G - e) with slopes (q, 1 - q) falls in e and is 0 at the expectile of level q, so the largest expectile is minus
the root of the optimal E f(c + G) in the stock c. Each step plans for the best value so far and takes what that plan
earns: on a lattice there are finitely many plans, and none comes back.
"""

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.functionals import check_level, expected_utility, expectile
from rlcore.distributional.laws import Law
from rlcore.distributional.optimum import (
    RiskOptimum,
    evaluated,
    initial_values,
    interpolation_error,
    is_lossless,
    solve_at,
    upper_error,
)
from rlcore.distributional.search_grid import MOST_NODES, search_grid, unbounded_high
from rlcore.distributional.stock import StockGrid
from rlcore.distributional.stock_vi import stock_vi
from rlcore.distributional.utility import two_slope
from rlcore.mdp import MDP
from rlcore.types import Number

__all__ = ["maximize_expectile", "maximize_omega"]

MAX_PLANS = 100


def maximize_expectile(
    problem: MDP, level: Number, grid: StockGrid | None = None, *, tol: float = 1e-10
) -> RiskOptimum:
    """The policy with the largest expectile of the return.

    Args: problem: an outcome list with concrete arrays. level: in (0, 1); 1/2 is the mean. grid: by default as
      `search_grid` makes it, and for costs without a horizon grown until the root lies on it. tol: of values of stocks,
      and of the root times the smaller slope.
    Returns: a `RiskOptimum`; the policy starts at the node below minus the root where the grid is lossless.
    Raises: ValueError: a level outside (0, 1). TypeError, ValueError: as `check_stock_problem`, `search_grid`.
    Source: derived: docs/proofs/distributional.md, T17. Cost: two to five times `stock_vi` and `policy_law`.
    """
    check_level(level, one=False)
    level = float(level)
    utility, flat, steep = two_slope(level, 1 - level), min(level, 1 - level), max(level, 1 - level)
    given = grid is not None
    high = None if given else unbounded_high(problem, 0.0, nodes=64)
    while True:
        grid = grid if given else search_grid(problem, high=high)
        nodes = np.asarray(grid.nodes)
        curve = np.asarray(initial_values(problem, stock_vi(problem, utility, grid, tol=tol)))
        if high is None or curve[-1] >= 0:
            break
        if nodes.size > MOST_NODES:
            raise ValueError(
                f"problem: found no expectile down to {-nodes[-1]}, expected paths that end, or a coarser grid"
            )
        high = 2 * high
    root = -_root(nodes, curve)
    for _ in range(MAX_PLANS):
        found = solve_at(problem, utility, grid, -root, tol)
        law = evaluated(problem, found.solution.policy, found.start, tol)
        earned = expectile(law.law, level)
        # V has slopes of at least `flat`, and an expectile moves by at most steep / flat times w_1
        error = upper_error(problem, grid, found.solution, steep) + interpolation_error(problem, grid, steep)
        upper = root + max(found.value + error, 0.0) / flat
        lower = earned - law.error * steep / flat
        value = earned if is_lossless(problem, grid) else jnp.asarray(root)
        if not is_lossless(problem, grid) or (found.value <= tol and float(earned) >= root - tol / flat):
            return RiskOptimum(
                value, jnp.asarray(found.start), lower, jnp.asarray(upper), found.solution.policy, law.law
            )
        root = float(earned)
    raise RuntimeError(f"maximize_expectile: found no root with {MAX_PLANS} plans, expected at most ten")


def _root(nodes: np.ndarray, curve: np.ndarray) -> float:
    """Where the curve, interpolated or continued from its last two nodes, is 0."""
    i = int(np.clip(np.searchsorted(curve, 0.0), 1, nodes.size - 1))
    return float(nodes[i] - curve[i] * (nodes[i] - nodes[i - 1]) / (curve[i] - curve[i - 1]))


def maximize_omega(problem: MDP, target: Number, grid: StockGrid | None = None, *, tol: float = 1e-10) -> RiskOptimum:
    """The policy with the largest omega ratio E max(G - target, 0) / E max(target - G, 0).

    Args: problem: an outcome list with concrete arrays. target: in units of reward. grid: by default `search_grid`.
      tol: of values of stocks.
    Returns: a `RiskOptimum` of ratios; inf where a policy gains and never loses, 0 where none can gain.
    Raises: TypeError, ValueError: as `check_stock_problem`, `search_grid`; ValueError for a target that is not finite.
    Source: Keating and Shadwick (2002), as recalled; Dinkelbach (1967), as recalled; derived:
      docs/proofs/distributional.md, T17. Cost: three to six times `stock_vi` and `policy_law`.
    """
    target = float(target)
    if not np.isfinite(target):
        raise ValueError(f"target: found {target}, expected a finite number")
    grid = search_grid(problem, high=unbounded_high(problem, -target)) if grid is None else grid
    shortfall = solve_at(problem, two_slope(0.0, 1.0), grid, -target, tol)
    slack = upper_error(problem, grid, shortfall.solution, 1.0) + interpolation_error(problem, grid, 1.0)
    least_loss = -shortfall.value - slack  # no policy loses less
    ratio, best = 0.0, None
    for _ in range(MAX_PLANS):
        found = solve_at(problem, two_slope(1.0, ratio), grid, -target, tol)
        law = evaluated(problem, found.solution.policy, found.start, tol)
        error = upper_error(problem, grid, found.solution, max(1.0, ratio))
        error += interpolation_error(problem, grid, max(1.0, ratio))
        over = max(found.value + error, 0.0)
        upper = ratio if over == 0 else ratio + over / least_loss if least_loss > 0 else np.inf
        gain, loss = _gain_and_loss(law.law, target)
        earned = gain / loss if loss > 0 else np.inf if gain > tol else 0.0
        lower = max(gain - float(law.error), 0.0) / (loss + float(law.error)) if law.error > 0 else earned
        if best is None or earned > float(best.value):
            numbers = (jnp.asarray(float(x)) for x in (earned, found.start, lower, upper))
            best = RiskOptimum(*numbers, found.solution.policy, law.law)
        best = best._replace(upper=jnp.minimum(best.upper, upper))
        if earned <= ratio + tol or earned == np.inf:
            return best
        ratio = earned
    raise RuntimeError(f"maximize_omega: found no ratio with {MAX_PLANS} plans, expected at most ten")


def _gain_and_loss(law: Law, target: float) -> tuple[float, float]:
    moved = Law(law.values - target, law.probs)
    gain, loss = (expected_utility(moved, two_slope(*slopes)) for slopes in ((1.0, 0.0), (0.0, -1.0)))
    return float(gain), float(loss)
