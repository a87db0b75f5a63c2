"""What a search over stocks returns, and how far rounding the stock may have moved the values that it compares."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.lattice import NEAR
from rlcore.distributional.laws import Law
from rlcore.distributional.policy_law import PolicyLaw, policy_law
from rlcore.distributional.stock import StockGrid, StockPolicy
from rlcore.distributional.stock_vi import StockSolution, stock_value, stock_vi
from rlcore.distributional.stock_window import possible_rewards, return_range
from rlcore.distributional.utility import Shifted, Utility, two_slope
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Number

__all__ = [
    "RiskOptimum",
    "StartedSolution",
    "evaluated",
    "farthest",
    "initial_values",
    "interpolation_error",
    "is_lossless",
    "rounding_error",
    "solve",
    "solve_at",
    "solver_error",
    "upper_error",
]


class RiskOptimum(NamedTuple):
    """A policy that is optimal for a risk measure of the return, and what is certain about it.

    value: float[], the optimum as solved on the grid. stock: float[], with which the policy starts. lower: float[],
    what the policy earns, from the law of its return; where returns lie on no lattice, the policy that reads the stock
    at the resolution of that law. upper: float[], no policy earns more; inf where nothing is certain (discount 1, no
    horizon, and gains or a grid that rounds). policy: the `StockPolicy`. law: of its return, without the stock.
    """

    value: Float[Array, ""]
    stock: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    policy: StockPolicy
    law: Law


def initial_values(problem: MDP, solution: StockSolution) -> Float[Array, "C"]:
    """E f(c + G) at every node, states drawn from the initial law. Cost: S C."""
    value = solution.value.value
    value = value if value.ndim == 2 else value[0]
    # states that cannot be first may hold NaN
    weight = problem.initial[:, None]
    return jnp.sum(jnp.where(weight > 0, weight * value, 0), axis=0)


def rounding_error(problem: MDP, grid: StockGrid, slope: Number) -> float:
    """How far rounding stocks may move the optimal E f(c + G) from the true one, f having slopes of at most `slope`.

    Args: problem, grid: with concrete arrays. Returns: a number, inf for a grid that rounds with discount 1
      and no horizon.
    Source: derived: docs/proofs/distributional.md, T11. Cost: O(1).
    """
    if grid.rounding == "exact":
        return 0.0
    discount, horizon = float(problem.discount), problem.horizon
    each = float(slope) * float(grid.lattice.spacing) * (1.0 if grid.rounding in ("floor", "ceil") else 0.5)
    if grid.coordinates == "discounted" or discount == 1:
        return each * (np.inf if horizon is None else horizon)
    return each * discount * (1 - (0 if horizon is None else discount**horizon)) / (1 - discount)


def solver_error(problem: MDP, solution: StockSolution, *, monotone: bool) -> float:
    """How far sweeps may have ended below the optimum of the rounded problem.

    With discount 1 and no horizon nothing contracts. Sweeps then fall towards the optimum from above where no reward is
    positive and f is nondecreasing; and where all returns are bounded, the optimum is at most what no sweep changes.

    Args: problem: with concrete arrays. monotone: whether f is nondecreasing. Returns: a number >= 0, or inf.
    Source: derived: docs/proofs/distributional.md, T4 and T15. Cost: that of `return_range`.
    """
    bound = float(solution.bound)
    if np.isfinite(bound) or float(problem.discount) < 1:
        return bound
    costs = np.all(possible_rewards(problem) <= 0)
    bounded = float(solution.residual) == 0 and np.isfinite(return_range(problem)).all()
    return 0.0 if (costs and monotone) or bounded else np.inf


def upper_error(problem: MDP, grid: StockGrid, solution: StockSolution, slope: Number) -> float:
    """What the true optimum at a node may exceed the solution by, for a nondecreasing f of at most this slope.

    Args: as in `rounding_error` and `solver_error`. Returns: a number >= 0, or inf.
    Source: derived: docs/proofs/distributional.md, T11. Cost: that of `solver_error`.
    """
    rounded = 0.0 if grid.rounding == "ceil" else rounding_error(problem, grid, slope)
    return rounded + solver_error(problem, solution, monotone=True)


def evaluated(problem: MDP, policy: StockPolicy, stock: Number, tol: float = 1e-10) -> PolicyLaw:
    """The law of a policy found by a search; its error is inf if episodes may not end. Cost: that of `policy_law`."""
    found = policy_law(problem, policy, stock, tol=tol)
    if problem.horizon is None and float(problem.discount) == 1 and float(found.remaining) > tol:
        return found._replace(error=found.error + np.inf)
    return found


def is_lossless(problem: MDP, grid: StockGrid) -> bool:
    """Whether all returns lie on the grid's lattice, so that stocks between nodes are shifted nodes. Cost: O(1)."""
    return grid.rounding == "exact" and (grid.coordinates == "discounted" or float(problem.discount) == 1)


def interpolation_error(problem: MDP, grid: StockGrid, slope: Number) -> float:
    """How far a value read between nodes may be off beyond those of the nodes: 0 on a lossless grid. Cost: O(1)."""
    return 0.0 if is_lossless(problem, grid) else float(slope) * float(grid.lattice.spacing) / 2


def farthest(problem: MDP, grid: StockGrid) -> float:
    """The greatest distance from 0 of a stock in the window, or of one that rounding made of it. Cost: O(1)."""
    # a coin between two nodes may move the stock by a whole spacing
    moved = 2 * rounding_error(problem, grid, 1.0)
    return max(abs(float(grid.lattice.low)), abs(float(grid.lattice.high))) + moved


def solve(problem: MDP, utility: Utility, grid: StockGrid, tol: float) -> StockSolution:
    """`stock_vi`, with the best mean acting on sides where f is flat, also if its sweeps ended before that mean's.

    Without it episodes of discount 1 whose stock has left the window might go on for ever.

    Args: as in `stock_vi`. Returns, raises: as there. Cost: one `stock_vi`, two with discount 1 and no horizon.
    """
    solution, tails = stock_vi(problem, utility, grid, tol=tol), utility.tails()
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((problem, grid)))
    if traced or tails is None or problem.horizon is not None or float(problem.discount) < 1:
        return solution
    mean = stock_vi(problem, two_slope(1.0, 1.0), grid, tol=tol).policy
    below, above = (
        jnp.where(slope == 0, best, own)
        for slope, best, own in zip(
            tails.slope, (mean.below, mean.above), (solution.policy.below, solution.policy.above), strict=True
        )
    )
    return solution._replace(policy=dataclasses.replace(solution.policy, below=below, above=above))


class StartedSolution(NamedTuple):
    """The optimum from one stock. value: float, E f(stock + G); start: where the policy starts; solution: of all."""

    value: float
    start: float
    solution: StockSolution


def solve_at(problem: MDP, utility: Utility, grid: StockGrid, stock: float, tol: float = 1e-10) -> StartedSolution:
    """The optimal E f(stock + G) at any stock, from the initial law; a lossless grid is shifted, others interpolated.

    Args: problem: with concrete arrays. utility: f, affine on both sides of 0 unless the stock is a node. stock: a host
      number. tol: as in `stock_vi`.
    Returns: a `StartedSolution`; `start` differs from `stock` by less than a spacing on a lossless grid.
    Raises: as `check_stock_problem`. Source: derived: docs/proofs/distributional.md, T17. Cost: one `stock_vi`.
    """
    start = float(stock)
    if is_lossless(problem, grid):
        spacing = float(grid.lattice.spacing)
        start = spacing * np.floor(stock / spacing + NEAR)
        shift = max(stock - start, 0.0)
        utility = Shifted(utility, jnp.asarray(0.0 if shift < 2 * NEAR * spacing else shift, problem.prob.dtype))
    solution = solve(problem, utility, grid, tol)
    at = jax.vmap(lambda state: stock_value(solution, utility, state, start))(jnp.arange(problem.initial.size))
    return StartedSolution(float(jnp.sum(jnp.where(problem.initial > 0, problem.initial * at, 0))), start, solution)
