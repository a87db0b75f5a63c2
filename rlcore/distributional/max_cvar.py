"""The largest CVaR of the return, and its mixtures with the mean: one stock programme, then a search over stocks.

CVaR_level(G) = max_c -c + E min(c + G, 0) / level, so the best policy is the one that is best for the best c; the
curve h(c) = -c + max E f(c + G) has several peaks, and all nodes are compared.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.functionals import check_level, cvar, mean
from rlcore.distributional.optimum import RiskOptimum, evaluated, initial_values, solve, upper_error
from rlcore.distributional.search_grid import search_grid
from rlcore.distributional.stock import StockGrid
from rlcore.distributional.stock_vi import StockSolution
from rlcore.distributional.stock_window import return_range, reward_spacing
from rlcore.distributional.utility import TwoSlope, two_slope
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Number

__all__ = ["CVaRCurve", "cvar_curve", "maximize_cvar", "maximize_mean_cvar"]


class CVaRCurve(NamedTuple):
    """The largest CVaR by level. value, stock: float[L]; curve: float[L, C], h at the nodes; solution: of stocks."""

    value: Float[Array, "L"]
    stock: Float[Array, "L"]
    curve: Float[Array, "L C"]
    solution: StockSolution


def _curves(problem: MDP, solution: StockSolution, scale: Float[Array, "L"]) -> CVaRCurve:
    nodes = solution.policy.grid.nodes
    values = initial_values(problem, solution)
    curve = scale[:, None] * values[None] - nodes[None]
    best = jnp.argmax(curve, axis=1)
    return CVaRCurve(jnp.max(curve, axis=1), nodes[best], curve, solution)


def _solve(problem: MDP, utility: TwoSlope, scale: Float[Array, "L"], grid: StockGrid | None, tol: float) -> CVaRCurve:
    """The curves on a grid that holds all maximisers; by default one is made."""
    if grid is not None:
        return _curves(problem, solve(problem, utility, grid, tol), scale)
    least, most = return_range(problem)
    if np.isfinite(least).all() or np.max(most) == np.inf:
        return _curves(problem, solve(problem, utility, search_grid(problem), tol), scale)
    # costs without an end: h(c) <= -c + a_plus (c + most), so stocks beyond the root of the best h found cannot win
    spacing, largest = reward_spacing(problem), float(np.max(most))
    slope = float(jnp.max(scale) * utility.a_plus)
    if slope >= 1:
        raise ValueError("grid: found None for the mean of returns without a lower bound, expected a grid")
    high = 64 * spacing
    while True:
        rounded = search_grid(problem, high=high)
        found = _curves(problem, solve(problem, utility, rounded, tol), scale)
        enough = (slope * max(largest, 0.0) - float(jnp.min(found.value))) / (1 - slope)
        if high >= enough:
            return found
        high = min(2 * high, spacing * float(np.ceil(enough / spacing)))


def cvar_curve(
    problem: MDP, levels: Float[Array, "L"] | list, grid: StockGrid | None = None, *, tol: float = 1e-10
) -> CVaRCurve:
    """The largest CVaR of the return at many levels, from one stock programme.

    Args: problem: an outcome list. levels: float[L] in (0, 1]. grid: by default `search_grid`; needed where
      the problem is traced. tol: of the values of stocks, without a horizon.
    Returns: a `CVaRCurve`; its policy is optimal at a level when started at that level's stock.
    Raises: ValueError: levels outside (0, 1]. TypeError, ValueError: as `check_stock_problem`.
    Source: Rockafellar and Uryasev (2000); Bauerle and Ott (2011), as recalled; derived:
      docs/proofs/distributional.md, T15. Cost: one `stock_vi` and L C numbers.
    """
    check_level(levels, "levels")
    levels = jnp.asarray(levels, problem.prob.dtype)
    return _solve(problem, two_slope(0.0, 1.0), 1 / levels, grid, tol)


def maximize_cvar(problem: MDP, level: Number, grid: StockGrid | None = None, *, tol: float = 1e-10) -> RiskOptimum:
    """The policy of the whole history with the largest CVaR of the return: the mean of its worst share `level`.

    Args:
      problem: an outcome list with concrete arrays. level: in (0, 1]; 1 is the mean.
      grid: the stocks, by default the rewards' own lattice where they have one; for costs without a horizon it grows
        until no stock beyond it can win.
      tol: of the values of stocks and of the mass that the law may leave out, without a horizon.

    Returns: a `RiskOptimum`: lower <= the largest CVaR <= upper, equal to `value` with discount 1 and an exact grid.
    Raises: ValueError: a level outside (0, 1]. TypeError, ValueError: as `check_stock_problem`.
    Source: Rockafellar and Uryasev (2000); Bauerle and Ott (2011), as recalled; derived:
      docs/proofs/distributional.md, T15. Cost: one `stock_vi` and one `policy_law`.
    """
    return maximize_mean_cvar(problem, level, 0.0, grid, tol=tol)


def maximize_mean_cvar(
    problem: MDP, level: Number, weight: Number, grid: StockGrid | None = None, *, tol: float = 1e-10
) -> RiskOptimum:
    """The policy with the largest weight E G + (1 - weight) CVaR_level(G).

    Args: problem, grid, tol: as in `maximize_cvar`. level: in (0, 1]; weight: of the mean, in [0, 1].
    Returns: a `RiskOptimum`. Raises: ValueError: a level outside (0, 1], a weight outside [0, 1]; as `maximize_cvar`.
    Source: the same, with slopes (1 - weight) / level + weight and weight. Cost: one `stock_vi`, one `policy_law`.
    """
    check_level(level)
    check_level(weight, "weight", zero=True)
    level, weight = float(level), float(weight)
    a_plus, a_minus = weight, (1 - weight) / level + weight
    found = _solve(problem, two_slope(a_plus, a_minus), jnp.ones(1), grid, tol)
    solution, curve = found.solution, np.asarray(found.curve[0])
    grid = solution.policy.grid
    error = upper_error(problem, grid, solution, a_minus)
    law = evaluated(problem, solution.policy, found.stock[0], tol)
    lower = weight * mean(law.law) + (1 - weight) * cvar(law.law, level) - a_minus * law.error
    upper = curve.max() + error
    if not (grid.rounding == "exact" and (float(problem.discount) == 1 or grid.coordinates == "discounted")):
        upper = max(upper, _between(curve, 1 - a_plus, a_minus - 1, float(grid.lattice.spacing)) + error)
    return RiskOptimum(found.value[0], found.stock[0], lower, jnp.asarray(upper), solution.policy, law.law)


def _between(curve: np.ndarray, down: float, up: float, spacing: float) -> float:
    """The greatest height between nodes of a curve that rises by at most `up` and falls by at most `down` per unit."""
    if down + up <= 0:
        return curve.max()
    left, right = curve[:-1], curve[1:]
    return float(np.max(down * left + up * right) / (down + up) + down * up * spacing / (down + up))
