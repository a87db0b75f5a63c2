"""Certified intervals of optimal expected utilities: stocks rounded down, stocks rounded up."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from rlcore.distributional.optimum import upper_error
from rlcore.distributional.stock import StockGrid, StockPolicy
from rlcore.distributional.stock_vi import stock_vi
from rlcore.distributional.utility import TwoSlope, Utility
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Number

__all__ = ["Bracket", "bracket", "bracket_at", "check_monotone"]


class Bracket(NamedTuple):
    """An interval for the optimal E f(c + G) of every state and node, and a policy that earns its lower end.

    lower, upper: float[*H, S, C]; -inf or inf where sweeps cannot tell how far they are (discount 1, no horizon).
    policy: keeps account of the stock rounded down, never more than the true one.
    """

    lower: Float[Array, "*H S C"]
    upper: Float[Array, "*H S C"]
    policy: StockPolicy


def check_monotone(utility: Utility, grid: StockGrid) -> None:
    """Refuse a utility that falls somewhere; other than two-slope ones are judged at the nodes.

    Raises: ValueError. Cost: one pass over the nodes.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((utility, grid))):
        return
    reason = "a rounded stock is then no bound, as more stock may be worth less"
    if isinstance(utility, TwoSlope):
        for name in ("a_plus", "a_minus"):
            if not float(getattr(utility, name)) >= 0:
                found = f"slope {name} = {getattr(utility, name)}"
                raise ValueError(f"utility: found {found}, expected slopes >= 0: {reason}")
        return
    value = np.asarray(utility(grid.nodes))
    fall = np.flatnonzero(np.diff(value) < 0)
    if fall.size:
        at = float(grid.nodes[fall[0]])
        raise ValueError(
            f"utility: found {type(utility).__name__} falling after {at}, expected a nondecreasing one: {reason}"
        )


def bracket(problem: MDP, utility: Utility, grid: StockGrid, *, tol: float = 1e-10) -> Bracket:
    """Bounds of the optimal E f(c + G) for a nondecreasing f on any grid, from two stock programmes.

    Args: problem: an outcome list with concrete arrays. utility: nondecreasing f. grid: the nodes; its rounding is
      replaced. tol: as in `stock_vi`.
    Returns: a `Bracket`: lower <= value of `policy` <= optimum <= upper, at every node.
    Raises: ValueError: a utility that is not monotone. TypeError, ValueError: as `check_stock_problem`.
    Source: derived: docs/proofs/distributional.md, T11. Cost: two `stock_vi`.
    """
    check_monotone(utility, grid)
    down, up = (dataclasses.replace(grid, rounding=rounding) for rounding in ("floor", "ceil"))
    floor, ceil = (stock_vi(problem, utility, rounded, tol=tol) for rounded in (down, up))
    above = upper_error(problem, up, ceil, 0.0)
    return Bracket(floor.value.value - floor.bound, ceil.value.value + above, floor.policy)


def bracket_at(problem: MDP, found: Bracket, stock: Number) -> tuple[float, float, float]:
    """A bracket read at any stock inside the window, states drawn from the initial law.

    Args: problem: with concrete arrays. found: of `bracket`. stock: a host number.
    Returns: (start, lower, upper): start the node at or below, from which the policy earns `lower` at least.
    Raises: ValueError: a stock outside the window. Cost: S.
    """
    points = found.policy.grid.lattice
    steps = float(stock) / float(points.spacing) - points.first
    if not -1e-9 <= steps <= points.size - 1 + 1e-9:
        raise ValueError(f"stock: found {stock}, expected a stock in [{float(points.low)}, {float(points.high)}]")
    down, up = int(np.floor(steps + 1e-9)), int(np.ceil(steps - 1e-9))
    initial = np.asarray(problem.initial)
    ends = []
    for table, node in ((found.lower, down), (found.upper, up)):
        column = np.asarray(table if table.ndim == 2 else table[0])[:, node]
        ends.append(float(np.sum(initial * np.where(initial > 0, column, 0))))
    return float(points.points[down]), ends[0], ends[1]
