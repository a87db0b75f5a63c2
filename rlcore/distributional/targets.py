"""Targets of the return: to reach one with the largest probability, the largest one reached at a level, to hit one."""

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.bracket import bracket
from rlcore.distributional.functionals import check_level, value_at_risk
from rlcore.distributional.lattice import NEAR
from rlcore.distributional.optimum import (
    RiskOptimum,
    evaluated,
    farthest,
    initial_values,
    interpolation_error,
    is_lossless,
    rounding_error,
    solve,
    solve_at,
    solver_error,
)
from rlcore.distributional.representations import partial_returns
from rlcore.distributional.search_grid import MOST_NODES, covering_grid, search_grid, unbounded_high
from rlcore.distributional.stock import StockGrid
from rlcore.distributional.utility import Power, Reach
from rlcore.mdp import MDP
from rlcore.types import Number

__all__ = ["maximize_probability", "maximize_value_at_risk", "minimize_distance"]

# Probabilities this close to a level count as reaching it: sums of some thousand rounded products.
CLOSE = 1e-12


def _bounds(problem: MDP, grid: StockGrid, tol: float):
    """Nodes, what the policy earns at least and the most at each, the policy: one programme where nothing is lost."""
    nodes = np.asarray(grid.nodes)
    if is_lossless(problem, grid):
        solution = solve(problem, Reach(), grid, tol)
        value = np.asarray(initial_values(problem, solution))
        return nodes, value, value, solution.policy
    found = bracket(problem, Reach(), grid, tol=tol)
    first = found._replace(**{k: v if v.ndim == 2 else v[0] for k, v in found._asdict().items() if k != "policy"})
    weight = np.asarray(problem.initial)[:, None]
    lower, upper = (np.sum(np.where(weight > 0, weight * np.asarray(x), 0), axis=0) for x in first[:2])
    return nodes, lower, upper, found.policy


def maximize_probability(
    problem: MDP, target: Number, grid: StockGrid | None = None, *, tol: float = 1e-12
) -> RiskOptimum:
    """The policy with the largest probability that the return reaches a target, P(G >= target).

    Args:
      problem: an outcome list with concrete arrays; with discount < 1 it needs a horizon. target: in units of reward.
      grid: by default `search_grid`; where it is not lossless, stocks are rounded down for the policy and up for
        `upper`. tol: without a horizon, of probabilities.

    Returns: a `RiskOptimum` of probabilities.
    Raises: TypeError, ValueError: as `check_stock_problem`; ValueError for a target that is not finite, or outside the
      window of a grid that rounds.
    Source: derived: docs/proofs/distributional.md, T11 and T17. Cost: one or two `stock_vi` and one `policy_law`.
    """
    target = float(target)
    if not np.isfinite(target):
        raise ValueError(f"target: found {target}, expected a finite number")
    grid = search_grid(problem, high=unbounded_high(problem, -target)) if grid is None else grid
    nodes, lower, upper, policy = _bounds(problem, grid, tol)
    spacing = float(grid.lattice.spacing)
    steps = -target / spacing - grid.lattice.first
    down, up = int(np.floor(steps + NEAR)), int(np.ceil(steps - NEAR))
    if is_lossless(problem, grid):
        up = down  # no return lies between
    # below the window nothing reaches the target, above it everything does
    low, high = (0.0 if i < 0 else 1.0 if i >= nodes.size else float(x[i]) for i, x in ((down, lower), (up, upper)))
    start = spacing * (down + grid.lattice.first)
    law = evaluated(problem, policy, start, tol)
    earned = jnp.sum(jnp.where(law.law.values >= target - NEAR * spacing, law.law.probs, 0))
    earned = earned if float(law.error) == 0 else jnp.asarray(low)
    return RiskOptimum(jnp.asarray(low), jnp.asarray(start), earned, jnp.asarray(min(high, 1.0)), policy, law.law)


def maximize_value_at_risk(
    problem: MDP, level: Number, grid: StockGrid | None = None, *, tol: float = 1e-12
) -> RiskOptimum:
    """The policy with the largest value at risk: the largest b that some policy reaches, P(G >= b) >= 1 - level.

    Args: problem, grid, tol: as in `maximize_probability`. level: in [0, 1); 0 is the worst case.
    Returns: a `RiskOptimum`; a default grid for costs without a horizon grows until the level is reached.
    Raises: ValueError: a level outside [0, 1), no node that reaches it, or returns off the nodes with discount 1 and no
      horizon; as `maximize_probability`.
    Source: derived: docs/proofs/distributional.md, T17. Cost: one or two `stock_vi` and one `policy_law`.
    """
    check_level(level, zero=True, one=False)
    level, given = float(level), grid is not None
    high = None if given else unbounded_high(problem, 0.0, nodes=64)
    while True:
        grid = grid if given else search_grid(problem, high=high)
        nodes, lower, upper, policy = _bounds(problem, grid, tol)
        if not np.isfinite(lower).any():
            raise ValueError(
                "problem: found discount 1, no horizon and returns on no node, expected a horizon, or returns on the "
                "nodes: nothing is certain about how near sweeps are"
            )
        reached = np.flatnonzero(lower >= 1 - level - CLOSE)
        if reached.size:
            break
        if high is None or nodes.size > MOST_NODES:
            raise ValueError(
                f"grid: found probabilities up to {lower.max()} at its last node {nodes[-1]}, expected {1 - level}"
            )
        high = 2 * high
    start = float(nodes[reached[0]])
    law = evaluated(problem, policy, start, tol)
    earned = value_at_risk(law.law, level) if float(law.error) == 0 else jnp.asarray(-start)
    above = -start
    if not is_lossless(problem, grid):
        short = np.flatnonzero(upper < 1 - level - CLOSE)
        above = -float(nodes[short[-1]]) if short.size else -float(nodes[0])
    return RiskOptimum(jnp.asarray(-start), jnp.asarray(start), earned, jnp.asarray(above), policy, law.law)


def minimize_distance(
    problem: MDP, target: Number, grid: StockGrid | None = None, *, power: float = 1.0, tol: float = 1e-10
) -> RiskOptimum:
    """The policy whose return comes nearest to a target: the least E |G - target|^power.

    Args:
      problem: an outcome list with concrete arrays. target: in units of reward. power: >= 1; above 1 it needs a
        horizon.
      grid: by default as `search_grid` makes it.
      tol: of values of stocks, without a horizon.

    Returns: a `RiskOptimum` of distances to that power: here `upper` is what the policy pays and no policy pays less
      than `lower`.
    Raises: TypeError, ValueError: as `check_stock_problem`; ValueError for a target that is not finite, a power < 1.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, abstract, for returns near a target; derived:
      docs/proofs/distributional.md, T11. Cost: one `stock_vi` and one `policy_law`.
    """
    target, power = float(target), float(power)
    if not np.isfinite(target):
        raise ValueError(f"target: found {target}, expected a finite number")
    if not 1 <= power < np.inf:
        raise ValueError(f"power: found {power}, expected a number >= 1")
    grid = _distance_grid(problem, target, power) if grid is None else grid
    found = solve_at(problem, Power(power), grid, -target, tol)
    slope = 1.0 if power == 1 else power * farthest(problem, grid) ** (power - 1)
    law = evaluated(problem, found.solution.policy, found.start, tol)
    distance = jnp.abs(law.law.values - target) ** power
    pays = jnp.sum(law.law.probs * distance) + slope * law.error
    error = rounding_error(problem, grid, slope) * (1 if power == 1 else 2) + interpolation_error(problem, grid, slope)
    error += solver_error(problem, found.solution, monotone=False)
    lower = max(-found.value - error, 0.0)
    numbers = (jnp.asarray(x) for x in (-found.value, found.start, lower))
    return RiskOptimum(*numbers, pays, found.solution.policy, law.law)


def _distance_grid(problem: MDP, target: float, power: float) -> StockGrid:
    if power == 1:
        return search_grid(problem, high=unbounded_high(problem, -target))
    if problem.horizon is None:
        raise ValueError(f"problem: found no horizon with power {power}, expected one: nothing is known off the grid")
    least, most = partial_returns(problem)
    return covering_grid(problem, least - target, most - target)
