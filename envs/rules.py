"""A problem told as rules, `outcomes(state, action)`, and its table of the states reachable from the start.

Rows are numbered in breadth-first order, so the start is row 0. Terminal states are no rows: an outcome that
ends the episode is marked `terminal`. (The specification of the effective-horizon suite appends one absorbing
row without reward instead, and counts it in S; every value is the same.)
"""

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import numpy as np

from rlcore.mdp import MDP, tabular

__all__ = ["Outcome", "Rules", "Table", "enumerate_states", "from_rules"]


class Outcome(NamedTuple):
    """One thing that may happen: with probability `prob`, move to `state` (None ends the episode) and get `reward`."""

    prob: float
    state: Hashable
    reward: float


class Rules(NamedTuple):
    """An episodic problem as a program.

    start: the initial state, any hashable value.
    outcomes: `outcomes(state, action)`, the outcomes of one step; their probabilities sum to 1. None at all where the
      action is not available.
    num_actions: actions are 0, ..., num_actions - 1.
    horizon: steps per episode, or None where the rules end it.
    """

    start: Hashable
    outcomes: Callable[[Hashable, int], Iterable[Outcome]]
    num_actions: int
    horizon: int | None


class Table(NamedTuple):
    """What `enumerate_states` finds, as NumPy arrays.

    states: the label of each row, in breadth-first order from the start (row 0).
    next_state: int32[S, A, B], the own row where the episode ends or the outcome is padding.
    prob, reward: float64[S, A, B], 0 in padding.
    terminal: bool[S, A, B], whether the outcome ends the episode.
    available: bool[S, A], whether the action has outcomes.
    """

    states: list[Hashable]
    next_state: np.ndarray
    prob: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    available: np.ndarray


def enumerate_states(rules: Rules, max_states: int = 1_000_000) -> Table:
    """Every state reachable from the start, with its outcomes; equal outcomes of a pair are merged.

    Args:
      rules: the problem.
      max_states: refuse to go beyond this many rows.

    Returns: the table; B is the largest number of distinct outcomes of any pair.
    Raises: ValueError when there are more than `max_states` states.
    Cost: one call of `rules.outcomes` per pair, on the host.
    """
    row_of = {rules.start: 0}
    states, rows = [rules.start], []
    for state in states:  # grows while we read it: breadth first
        for action in range(rules.num_actions):
            merged: dict[tuple[int, float, bool], float] = {}
            for prob, successor, reward in rules.outcomes(state, action):
                ends = successor is None
                target = state if ends else successor
                if target not in row_of:
                    if len(states) >= max_states:
                        raise ValueError(f"max_states: found more than {max_states} states, expected at most that many")
                    row_of[target] = len(states)
                    states.append(target)
                outcome = (row_of[target], float(reward), ends)
                merged[outcome] = merged.get(outcome, 0.0) + prob
            rows.append(merged)
    width = max(len(merged) for merged in rows)
    shape = (len(states), rules.num_actions, width)
    next_state = np.broadcast_to(np.arange(len(states), dtype=np.int32)[:, None, None], shape).copy()
    prob, reward, terminal = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    for index, merged in enumerate(rows):
        pair = divmod(index, rules.num_actions)
        for slot, ((row, gain, ends), weight) in enumerate(merged.items()):
            next_state[*pair, slot], prob[*pair, slot] = row, weight
            reward[*pair, slot], terminal[*pair, slot] = gain, ends
    available = np.array([bool(merged) for merged in rows]).reshape(shape[:2])
    return Table(states, next_state, prob, reward, terminal, available)


def from_rules(rules: Rules, max_states: int = 1_000_000) -> MDP:
    """The undiscounted MDP of some rules: `enumerate_states` behind rlcore's validating constructor.

    Args:
      rules, max_states: as in `enumerate_states`.

    Returns: an MDP starting in row 0, discount 1, horizon `rules.horizon`, floats of JAX's default dtype.
    Raises: ValueError as `enumerate_states`, or if probabilities do not sum to 1.
    Cost: as `enumerate_states`.
    """
    table = enumerate_states(rules, max_states)
    return tabular(
        table.next_state,
        table.prob,
        table.reward,
        terminal=table.terminal,
        available=table.available,
        discount=1.0,
        horizon=rules.horizon,
        initial=np.eye(1, len(table.states))[0],
    )
