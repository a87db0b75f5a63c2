"""Chains: one-dimensional problems where each family isolates one difficulty of exploration or planning."""

from envs.checks import check_integer, check_number
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "combination_lock", "corridor", "deep_sea", "dupchain", "riverswim", "zigzag"]

LEFT = 0  # action 0 goes left, any other right


def corridor(length: int, horizon: int) -> MDP:
    """A row of cells with a reward at the right end: random exploration needs about length^2 steps.

    States: cells 0..length-1, in order. Actions: 0 left (stays in cell 0), 1 right.
    Rewards: 1 for going right from the last cell, else 0. Termination: with that reward.
    Start: cell 0. Horizon: `horizon`.

    Args:
      length: cells, >= 1.
      horizon: steps per episode, >= 1.

    Returns: a deterministic MDP, [S=length, A=2, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: BRIDGE/SQIRL specification, section 6, `corridor(n, T)`.
    Cost: O(length) on the host.
    """
    check_integer("length", length, 1)
    check_integer("horizon", horizon, 1)

    def outcomes(cell, action):
        if action == LEFT:
            return [Outcome(1.0, max(cell - 1, 0), 0.0)]
        return [Outcome(1.0, None, 1.0) if cell == length - 1 else Outcome(1.0, cell + 1, 0.0)]

    return from_rules(Rules(0, outcomes, 2, horizon))


def combination_lock(length: int, actions: int, distractor: float) -> MDP:
    """A lock whose first wrong dial pays a small sure reward: planning needs depth `length`, no less.

    States: dials 0..length-1. Actions: 0..actions-1. At dial 0, action 0 ends with reward `distractor` and action 1
    turns to dial 1; at later dials action 0 turns on. The last right turn ends with reward 1 (for length 1 that is
    action 1 at dial 0). Every other action ends with reward 0. Start: dial 0. Horizon: `length`.
    For 1/actions < distractor < 1 the smallest k that makes the problem k-QVI-solvable is `length`.

    Args:
      length: dials, >= 1.
      actions: actions, >= 2.
      distractor: the sure reward, in [0, 1].

    Returns: a deterministic MDP, [S=length, A=actions, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: BRIDGE/SQIRL specification, section 6, `lock(k, A, d)`.
    Cost: O(length actions) on the host.
    """
    check_integer("length", length, 1)
    check_integer("actions", actions, 2)
    check_number("distractor", distractor, 0.0, 1.0)

    def outcomes(dial, action):
        if dial == 0 and action == 0:
            return [Outcome(1.0, None, distractor)]
        if action == (1 if dial == 0 else 0):
            return [Outcome(1.0, None, 1.0) if dial == length - 1 else Outcome(1.0, dial + 1, 0.0)]
        return [Outcome(1.0, None, 0.0)]

    return from_rules(Rules(0, outcomes, actions, length))


def dupchain(length: int, copies: int) -> MDP:
    """A chain whose right action exists in several identical copies: ties that break naive tail bounds.

    States: 0..length-1. Actions: 0 ends with reward 0; each of 1..copies moves on, and from the last state
    ends with reward 1. Start: state 0. Horizon: `length`.

    Args:
      length: states, >= 1.
      copies: equally good actions, >= 1.

    Returns: a deterministic MDP, [S=length, A=1+copies, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: BRIDGE/SQIRL specification, section 6, `dupchain(n, g)`, for its T8.
    Cost: O(length copies) on the host.
    """
    check_integer("length", length, 1)
    check_integer("copies", copies, 1)

    def outcomes(state, action):
        if action == 0:
            return [Outcome(1.0, None, 0.0)]
        return [Outcome(1.0, None, 1.0) if state == length - 1 else Outcome(1.0, state + 1, 0.0)]

    return from_rules(Rules(0, outcomes, 1 + copies, length))


def zigzag() -> MDP:
    """The three-step problem where solvability is not monotone in the planning depth.

    States: start s, good g, hub h, bad b (rows 0..3 are s, g, b, h). Actions: from s, 0 goes to g and 1 to b; g goes
    to h by both; in h action 0 ends with reward 1, action 1 with 0; in b action 0 ends with 0.6, action 1 with 0.
    Start: s. Horizon: 3.

    Returns: a deterministic MDP, [S=4, A=2, B=1].
    Source: BRIDGE/SQIRL specification, section 6, `zigzag`, for its T4.
    Cost: constant.
    """
    moves = {("s", 0): "g", ("s", 1): "b", ("g", 0): "h", ("g", 1): "h"}
    ends = {("h", 0): 1.0, ("h", 1): 0.0, ("b", 0): 0.6, ("b", 1): 0.0}

    def outcomes(state, action):
        pair = (state, action)
        return [Outcome(1.0, moves[pair], 0.0) if pair in moves else Outcome(1.0, None, ends[pair])]

    return from_rules(Rules("s", outcomes, 2, 3))


def riverswim(length: int, horizon: int) -> MDP:
    """Swim upstream against a current towards a large reward, or rest for a small one.

    States: 0..length-1, in order. Actions: 0 left, sure; 1 right: from 0 (.4 stay, .6 right), in the middle (.05 left,
    .6 stay, .35 right), from the last (.4 left, .6 stay). Rewards: 0.005/horizon for left in state 0; 1/horizon for
    right in the last state whatever the outcome; else 0. Termination: none. Start: state 0. Horizon: `horizon`.

    Args:
      length: states, >= 2.
      horizon: steps per episode, >= 1; it also scales the rewards.

    Returns: an MDP, [S=length, A=2, B=3] (B=2 for length 2).
    Raises: TypeError or ValueError for a parameter out of range.
    Source: Strehl and Littman 2008, with the numbers of the BRIDGE/SQIRL specification, section 6.
    Cost: O(length) on the host.
    """
    check_integer("length", length, 2)
    check_integer("horizon", horizon, 1)
    last = length - 1

    def outcomes(state, action):
        if action == LEFT:
            return [Outcome(1.0, max(state - 1, 0), 0.005 / horizon if state == 0 else 0.0)]
        if state == 0:
            return [Outcome(0.4, 0, 0.0), Outcome(0.6, 1, 0.0)]
        if state == last:
            return [Outcome(0.4, last - 1, 1.0 / horizon), Outcome(0.6, last, 1.0 / horizon)]
        return [Outcome(0.05, state - 1, 0.0), Outcome(0.6, state, 0.0), Outcome(0.35, state + 1, 0.0)]

    return from_rules(Rules(0, outcomes, 2, horizon))


def deep_sea(size: int) -> MDP:
    """Dive: one action sequence in 2^size finds the treasure, and each step towards it costs a little.

    States: the size (size + 1) / 2 reachable cells (row, column <= row). Actions: 0 column - 1 (at least 0), 1 column
    + 1 (at most size - 1); both go down one row. Rewards: -0.01/size for action 1, and +1 more for it in the last row
    and column. Termination: after the last row. Start: (0, 0). Horizon: `size`.

    Args:
      size: rows and columns, >= 1.

    Returns: a deterministic MDP, [S=size(size+1)/2, A=2, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: Osband et al. 2019 (bsuite), with the BRIDGE/SQIRL specification, section 6, `deepsea(N)`.
    Cost: O(size^2) on the host.
    """
    check_integer("size", size, 1)
    last = size - 1

    def outcomes(cell, action):
        row, column = cell
        target = max(column - 1, 0) if action == LEFT else min(column + 1, last)
        reward = 0.0 if action == LEFT else -0.01 / size + (1.0 if cell == (last, last) else 0.0)
        return [Outcome(1.0, None if row == last else (row + 1, target), reward)]

    return from_rules(Rules((0, 0), outcomes, 2, size))


FAMILIES = {
    "combination_lock": combination_lock,
    "corridor": corridor,
    "deep_sea": deep_sea,
    "dupchain": dupchain,
    "riverswim": riverswim,
    "zigzag": zigzag,
}
