"""Grids of stocks for searches over the start: lossless where returns lie on a lattice that is not too fine."""

import numpy as np

from rlcore.distributional.policy_law import return_spacing
from rlcore.distributional.representations import partial_returns
from rlcore.distributional.stock import StockGrid, stock_grid
from rlcore.distributional.stock_window import fitting_grid, return_range, reward_spacing
from rlcore.mdp import MDP

__all__ = ["MOST_NODES", "covering_grid", "search_grid", "unbounded_high"]

# Nodes above which a lossless grid is given up, and those of the grid that interpolates instead.
MOST_NODES, NODES = 2**14, 2**11


def covering_grid(problem: MDP, low: float, high: float) -> StockGrid:
    """A window with discount 1, or of discounted stocks with a horizon: lossless if it can be, else interpolated.

    Args: problem: with concrete arrays. low, high: in units of reward.
    Returns: the grid. Cost: one pass over the outcomes.
    """
    coordinates = "stock" if float(problem.discount) == 1 else "discounted"
    width, spacing = max(high - low, 1e-9), return_spacing(problem)
    if spacing is None or width / spacing > MOST_NODES:
        return stock_grid(low, low + width, width / NODES, rounding="linear", coordinates=coordinates)
    return stock_grid(low, low + width, spacing, coordinates=coordinates)


def search_grid(problem: MDP, *, high: float | None = None) -> StockGrid:
    """Nodes for minus every return, outside which two-slope utilities are affine for the rest of the episode.

    Lossless with discount 1, and with discount 1 / m and a horizon, where at most 16 384 nodes do; else 2 049 nodes,
    interpolated between (with discount 1 / m: exact, as fine).

    Args: problem: with concrete arrays. high: the last node for costs without a horizon.
    Returns: the grid. Raises: ValueError: as `fitting_grid`. Cost: that of `return_range`.
    """
    discount = float(problem.discount)
    least, most = partial_returns(problem)
    if np.isfinite(least + most) and (discount == 1 or problem.horizon is not None):
        return covering_grid(problem, -most, -least)
    if discount == 1:
        return fitting_grid(problem, high=high)
    grid = fitting_grid(problem)
    width = float(grid.lattice.high - grid.lattice.low)
    if grid.rounding == "exact":
        spacing = float(grid.lattice.spacing)
        return fitting_grid(problem, spacing=spacing / max(1, np.ceil(NODES * spacing / width)))
    return fitting_grid(problem, spacing=width / NODES)


def unbounded_high(problem: MDP, stock: float, nodes: int = 1) -> float | None:
    """A last node, some nodes beyond a stock, where returns have no lower bound; None where they have one.

    Cost: that of `return_range`.
    """
    if np.isfinite(return_range(problem)[0]).all():
        return None
    return max(stock, 0.0) + nodes * reward_spacing(problem)
