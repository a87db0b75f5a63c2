"""The largest optimistic CVaR, the mean of the best share of the return: a minimum over stocks, and sometimes a coin.

Optimistic CVaR is concave in the law, so a policy that first tosses a private coin may beat every other. With the coin
the optimum is min_c h(c), h(c) = -c + max E max(c + G, 0) / level, a convex function. A plan for c is a line of slope
P(c + G > 0) / level - 1 through h(c); at the minimum either one plan is flat or two of opposite slopes meet, and the
weight that makes their mixture flat is that of the coin.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.functionals import check_level, optimistic_cvar
from rlcore.distributional.lattice import NEAR
from rlcore.distributional.laws import Law
from rlcore.distributional.optimum import evaluated, initial_values, is_lossless, solve_at, upper_error
from rlcore.distributional.policy_law import PolicyLaw
from rlcore.distributional.search_grid import search_grid, unbounded_high
from rlcore.distributional.stock import StockGrid, StockPolicy
from rlcore.distributional.stock_vi import stock_vi
from rlcore.distributional.utility import two_slope
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Number

__all__ = ["CoinOptimum", "maximize_optimistic_cvar"]

MAX_PLANS = 100


class CoinOptimum(NamedTuple):
    """Two policies and a coin that are optimal together, and what is certain about them.

    value: float[], the optimum as solved on the grid. stock: float[], where h is least. lower: float[], what the
    mixture earns. upper: float[], no policy earns more, with or without a coin. policies: two `StockPolicy`. starts:
    float[2], their stocks. weight: float[], the probability of the first, 1 where it does alone. law: of the return of
    the mixture.
    """

    value: Float[Array, ""]
    stock: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    policies: tuple[StockPolicy, StockPolicy]
    starts: Float[Array, "2"]
    weight: Float[Array, ""]
    law: Law


class _Plan(NamedTuple):
    """A policy, planned for one stock, as a line in the stock. slope: that to its right; left: to its left."""

    stock: float
    height: float
    slope: float
    left: float
    start: float
    policy: StockPolicy
    found: PolicyLaw


def _plan(problem, level: float, grid: StockGrid, stock: float, tol: float) -> _Plan:
    found = solve_at(problem, two_slope(1.0, 0.0), grid, stock, tol)
    law = evaluated(problem, found.solution.policy, found.start, tol)
    values, probs = np.asarray(law.law.values), np.asarray(law.law.probs)
    close = NEAR * float(grid.lattice.spacing)
    slope, left = (float(probs[values + stock > edge].sum()) / level - 1 for edge in (-close, close))
    height = found.value / level - stock
    return _Plan(stock, height, slope, left, found.start, found.solution.policy, law)


def _mixed(first: _Plan, second: _Plan, weight: float) -> Law:
    values = jnp.concatenate([first.found.law.values, second.found.law.values])
    return Law(values, jnp.concatenate([weight * first.found.law.probs, (1 - weight) * second.found.law.probs]))


def maximize_optimistic_cvar(
    problem: MDP, level: Number, grid: StockGrid | None = None, *, tol: float = 1e-10
) -> CoinOptimum:
    """The policies and the coin with the largest mean of the best share `level` of the return.

    Args: problem: an outcome list with concrete arrays. level: in (0, 1]. grid: by default `search_grid`; for costs
      without a horizon it grows until h rises at its end. tol: of values of stocks.
    Returns: a `CoinOptimum`; lower = value = upper within rounding where the grid is lossless.
    Raises: ValueError: a level outside (0, 1]. TypeError, ValueError: as `check_stock_problem`, `search_grid`.
    Source: derived: docs/proofs/distributional.md, T16. Cost: one `stock_vi` for all nodes, then some three to six
      with a `policy_law` each.
    """
    check_level(level)
    level, given = float(level), grid is not None
    high = None if given else unbounded_high(problem, 0.0, nodes=64)
    while True:
        grid = grid if given else search_grid(problem, high=high)
        solution = stock_vi(problem, two_slope(1.0, 0.0), grid, tol=tol)
        nodes = np.asarray(grid.nodes)
        curve = np.asarray(initial_values(problem, solution)) / level - nodes
        best = int(np.argmin(curve))
        if high is None or best < nodes.size - 1:
            break
        high = 2 * high
    middle = _plan(problem, level, grid, float(nodes[best]), tol)
    # any stock gives an upper bound
    error = upper_error(problem, grid, solution, 1.0) / level
    if not is_lossless(problem, grid):
        near = [i for i in (best - 1, best + 1) if 0 <= i < nodes.size]
        plans = [middle, *(_plan(problem, level, grid, float(nodes[i]), tol) for i in near)]
        return _best_mixture(plans, level, curve[best], nodes[best], curve[best] + error)
    left, right = _facing(problem, level, grid, nodes, best, middle, tol)
    for _ in range(MAX_PLANS):
        if left is right:
            weight, stock, height = 1.0, left.stock, left.height
            break
        # between nodes all plans are lines, and h is their upper envelope
        stock = (right.height - left.height + left.slope * left.stock - right.left * right.stock) / (
            left.slope - right.left
        )
        meet = left.height + left.slope * (stock - left.stock)
        plan = _plan(problem, level, grid, stock, tol)
        if plan.height <= meet + tol:
            weight, height = right.left / (right.left - left.slope), plan.height
            break
        flat = abs(plan.slope) <= tol
        left, right = (plan, plan) if flat else (plan, right) if plan.slope < 0 else (left, plan)
    else:
        raise RuntimeError(f"maximize_optimistic_cvar: found no minimum with {MAX_PLANS} plans, expected at most ten")
    law = _mixed(left, right, weight)
    lower = optimistic_cvar(law, level) - max(left.found.error, right.found.error) / level
    numbers = (jnp.asarray(float(x)) for x in (height, stock, lower, height + error))
    starts = jnp.array([left.start, right.start])
    return CoinOptimum(*numbers, (left.policy, right.policy), starts, jnp.asarray(weight), law)


def _facing(problem, level, grid, nodes, best: int, middle: _Plan, tol) -> tuple[_Plan, _Plan]:
    """A falling and a rising plan of one cell next to the best node; the same one twice where it is flat there."""
    if middle.slope < -tol and best + 1 < nodes.size:
        return middle, _plan(problem, level, grid, float(nodes[best + 1]), tol)
    if middle.left > tol and best > 0:
        return _plan(problem, level, grid, float(nodes[best - 1]), tol), middle
    return middle, middle


def _best_mixture(plans: list[_Plan], level, value, stock, upper) -> CoinOptimum:
    """The best plan, or mixture of two that is flat between their stocks: rounding leaves open which it is."""
    plans = sorted(plans, key=lambda plan: plan.stock)
    pairs = [(plan, plan, 1.0) for plan in plans]
    for first, second in itertools.combinations(plans, 2):
        if first.slope < 0 < second.left:
            pairs.append((first, second, second.left / (second.left - first.slope)))
    tried = []
    for first, second, weight in pairs:
        error = max(float(first.found.error), float(second.found.error)) / level
        tried.append((float(optimistic_cvar(_mixed(first, second, weight), level)) - error, first, second, weight))
    lower, first, second, weight = max(tried, key=lambda x: x[0])
    numbers = (jnp.asarray(float(x)) for x in (value, stock, lower, upper))
    law = _mixed(first, second, weight)
    starts = jnp.array([first.start, second.start])
    return CoinOptimum(*numbers, (first.policy, second.policy), starts, jnp.asarray(weight), law)
