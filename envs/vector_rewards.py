"""Problems with several rewards at once: drives to keep in balance, and hazards to meet at most so often."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from envs.checks import check_number
from envs.rules import from_rules
from envs.targets import MAPS, walk
from rlcore.mdp import MDP
from rlcore.types import Array

__all__ = ["FAMILIES", "VectorProblem", "hazards", "homeostasis"]


class VectorProblem(NamedTuple):
    """An MDP whose outcomes pay a vector.

    problem: the MDP; its own reward is the first coordinate. rewards: float[S, A, B, m].
    """

    problem: MDP
    rewards: Array


def _with_rewards(rules, table: np.ndarray) -> VectorProblem:
    """The rules' rewards are rows of a table; padding pays nothing."""
    problem = from_rules(rules)
    rewards = jnp.asarray(table, problem.reward.dtype)[problem.reward.astype(int)]
    rewards = jnp.where(problem.prob[..., None] > 0, rewards, 0)
    return VectorProblem(dataclasses.replace(problem, reward=rewards[..., 0]), rewards)


def homeostasis(slip: float = 0.0) -> VectorProblem:
    """Keep two drives in balance on a 3 x 3 grid: food in one corner, water in the opposite one.

    States: 9 cells. Actions: up, right, down, left, stay; off the map stays. Rewards, of the cell after the move:
    -1 + 3 in the food cell, and -1 + 3 in the water cell. Never ends before the horizon, 10. Start: the middle.

    Args: slip: in [0, 1], the chance of staying instead.
    Returns: a `VectorProblem`, [S=9, A=5, B=1 or 2], m = 2.
    Raises: TypeError or ValueError for a slip out of range.
    Source: the specification of distributional dynamic programming, section 6. Cost: O(cells) on the host.
    """
    check_number("slip", slip, 0.0, 1.0)
    row = {"F": 1.0, "W": 2.0}
    rules = walk(MAPS["homeostasis"], 10, lambda letter: [(1.0, row.get(letter, 0.0))], stall=slip, num_actions=5)
    return _with_rewards(rules, np.array([[-1.0, -1.0], [2.0, -1.0], [-1.0, 2.0]]))


def hazards() -> VectorProblem:
    """Reach the end quickly, by a short way on which hazards strike with probability 1/2, or by a longer, safe one.

    States: the 9 cells but the end. Actions: up, right, down, left; off the map stays. Rewards: (-1, -1 if a hazard
    struck); it may on every move that ends in `^`. Termination: the end. Start: upper left. Horizon: 12.

    Returns: a `VectorProblem`, [S=9, A=4, B<=2], m = 2.
    Source: the specification of distributional dynamic programming, section 6, "constraint". Cost: O(cells).
    """
    strike = lambda letter: [(0.5, 0.0), (0.5, 1.0)] if letter == "^" else [(1.0, 0.0)]  # noqa: E731
    return _with_rewards(walk(MAPS["hazards"], 12, strike), np.array([[-1.0, 0.0], [-1.0, -1.0]]))


FAMILIES = {"hazards": hazards, "homeostasis": homeostasis}
