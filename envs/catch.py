"""Catch: a ball falls, a paddle moves."""

from envs.checks import check_integer
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "catch"]


def catch(rows: int, columns: int) -> MDP:
    """Catch a ball that falls straight down from a random column.

    States: a reset node (row 0 of the table), then the reachable (ball row, ball column, paddle column).
    Actions: 0 left, 1 stay, 2 right. From the reset node every action leads to ball row 0, a uniform ball column and
    the paddle in column columns // 2; then each step moves the paddle (clipped) and drops the ball by one row.
    Rewards: on arrival in the last row, after the paddle moved, 1 if the paddle is under the ball, else 0.
    Termination: that arrival. Start: the reset node, so a sticky action may repeat the arbitrary first one.
    Horizon: `rows` (one reset and rows - 1 moves).

    Args:
      rows: >= 2.
      columns: >= 1.

    Returns: an MDP, [S, A=3, B=columns]; only the reset node uses more than one outcome.
    Raises: TypeError or ValueError for a parameter out of range.
    Source: bsuite's Catch with the BRIDGE/SQIRL specification, section 6; bsuite pays -1 for a miss.
    Cost: O(rows columns^2) on the host.
    """
    check_integer("rows", rows, 2)
    check_integer("columns", columns, 1)

    def outcomes(state, action):
        if state == "reset":
            return [Outcome(1.0 / columns, (0, ball, columns // 2), 0.0) for ball in range(columns)]
        row, ball, paddle = state
        paddle = min(max(paddle + action - 1, 0), columns - 1)
        if row + 1 == rows - 1:
            return [Outcome(1.0, None, 1.0 if paddle == ball else 0.0)]
        return [Outcome(1.0, (row + 1, ball, paddle), 0.0)]

    return from_rules(Rules("reset", outcomes, 3, rows))


FAMILIES = {"catch": catch}
