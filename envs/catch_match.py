"""Catch-match: catch or miss a number of balls so that the score meets a target."""

import numpy as np

from envs.checks import check_integer, check_number
from envs.rules import Outcome, Rules, enumerate_states
from rlcore.mdp import MDP, tabular

__all__ = ["FAMILIES", "catch_match"]


def catch_match(balls: int = 4, size: int = 5, stick: float = 0.0) -> MDP:
    """Catch balls that fall from random columns; the score is balls caught minus balls missed.

    States: the reachable (ball row, ball column, paddle column, balls left). Actions: the paddle moves -1, 0, +1,
    clipped; with probability `stick` it stays. The ball falls by one row; when it arrives in the last row, after the
    paddle moved, the reward is 1 if the paddle is under it, else -1, and the next ball starts in row 0 of a uniform
    column, the paddle where it is. Other rewards: 0. Termination: after the last ball. Start: a uniform column, the
    paddle in column size // 2. Horizon: balls (size - 1).

    Args: balls: >= 1; size: rows and columns, >= 2; stick: in [0, 1].
    Returns: an MDP, [S, A=3, B<=2 size].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: the specification of distributional dynamic programming, section 6. Cost: O(balls size^3) on the host.
    """
    check_integer("balls", balls, 1)
    check_integer("size", size, 2)
    check_number("stick", stick, 0.0, 1.0)

    def outcomes(state, action):
        if state == "start":  # reaches every first ball; dropped below
            return [Outcome(1 / size, (0, column, size // 2, balls), 0.0) for column in range(size)]
        row, column, paddle, left = state
        after = []
        for prob, move in ((1 - stick, action - 1), (stick, 0)):
            if prob == 0:
                continue
            place = min(max(paddle + move, 0), size - 1)
            if row + 1 < size - 1:
                after.append(Outcome(prob, (row + 1, column, place, left), 0.0))
                continue
            reward = 1.0 if place == column else -1.0
            if left == 1:
                after.append(Outcome(prob, None, reward))
            else:
                after += [Outcome(prob / size, (0, new, place, left - 1), reward) for new in range(size)]
        return after

    table = enumerate_states(Rules("start", outcomes, 3, None))
    first = np.array([state[:1] + state[2:] == (0, size // 2, balls) for state in table.states[1:]], float)
    return tabular(
        np.maximum(table.next_state[1:] - 1, 0),
        table.prob[1:],
        table.reward[1:],
        terminal=table.terminal[1:],
        horizon=balls * (size - 1),
        initial=first / first.sum(),
    )


FAMILIES = {"catch_match": catch_match}
