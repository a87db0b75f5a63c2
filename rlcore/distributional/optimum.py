"""What a search over stocks returns, and how far rounding the stock may have moved the values that it compares."""

from typing import NamedTuple

import numpy as np

from rlcore.distributional.laws import Law
from rlcore.distributional.policy_law import PolicyLaw, policy_law
from rlcore.distributional.stock import StockGrid, StockPolicy
from rlcore.distributional.stock_vi import StockSolution
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Number

__all__ = ["RiskOptimum", "check_level", "evaluated", "initial_values", "rounding_error", "upper_error"]


class RiskOptimum(NamedTuple):
    """A policy that is optimal for a risk measure of the return, and what is certain about it.

    value: float[], the optimum as solved on the grid. stock: float[], with which the policy starts. lower: float[],
    what the policy earns, from the law of its return. upper: float[], no policy earns more; inf where nothing is
    certain (discount 1, no horizon, gains). policy: the `StockPolicy`. law: of its return, without the stock.
    """

    value: Float[Array, ""]
    stock: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    policy: StockPolicy
    law: Law


def check_level(level: Number, name: str = "level", *, zero: bool = False, one: bool = True) -> None:
    """Refuse a level that is not in (0, 1], or with the ends that the flags say. Raises: ValueError. Cost: O(1)."""
    x = np.asarray(level, float)
    if not np.all((x >= 0 if zero else x > 0) & (x <= 1 if one else x < 1)):
        ends = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise ValueError(f"{name}: found {level}, expected a number in {ends}")


def initial_values(problem: MDP, solution: StockSolution) -> Float[Array, "C"]:
    """E f(c + G) at every node, states drawn from the initial law. Cost: S C."""
    value = solution.value.value
    value = value if value.ndim == 2 else value[0]
    # states that cannot be first may hold NaN
    return (problem.initial[:, None] * value.at[problem.initial == 0].set(0)).sum(axis=0)


def rounding_error(problem: MDP, grid: StockGrid, slope: Number) -> float:
    """How far rounding stocks may move the optimal E f(c + G) from the true one, f having slopes of at most `slope`.

    Args: problem, grid: with concrete arrays.
    Returns: a number, inf with discount 1, no horizon and a grid that rounds.
    Source: derived: docs/proofs/distributional.md, T11. Cost: O(1).
    """
    if grid.rounding == "exact":
        return 0.0
    discount, horizon = float(problem.discount), problem.horizon
    each = float(slope) * float(grid.lattice.spacing) * (1.0 if grid.rounding in ("floor", "ceil") else 0.5)
    if grid.coordinates == "discounted" or discount == 1:
        return each * (np.inf if horizon is None else horizon)
    return each * discount * (1 - (0 if horizon is None else discount**horizon)) / (1 - discount)


def upper_error(problem: MDP, grid: StockGrid, solution: StockSolution, slope: Number) -> float:
    """What the true optimum at a node may exceed the solution by, for a nondecreasing f of at most this slope.

    With discount 1 and no horizon sweeps fall towards the optimum from above where no reward is positive.

    Args: as in `rounding_error`. Returns: a number >= 0 or inf.
    Source: derived: docs/proofs/distributional.md, T4 and T11. Cost: one pass over the outcomes.
    """
    rounded = 0.0 if grid.rounding == "ceil" else rounding_error(problem, grid, slope)
    bound = float(solution.bound)
    if not np.isfinite(bound):
        costs = np.all(np.asarray(problem.reward)[np.asarray(problem.prob) > 0] <= 0)
        bound = 0.0 if costs and float(problem.discount) == 1 else np.inf
    return rounded + bound


def evaluated(problem: MDP, policy: StockPolicy, stock: Number, tol: float = 1e-10) -> PolicyLaw:
    """The law of a policy found by a search; its error is inf if episodes may not end. Cost: that of `policy_law`."""
    found = policy_law(problem, policy, stock, tol=tol)
    if problem.horizon is None and float(problem.discount) == 1 and float(found.remaining) > tol:
        return found._replace(error=found.error + np.inf)
    return found
