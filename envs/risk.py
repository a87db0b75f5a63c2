"""Four problems whose costs vary: betting, a grid of obstacles, mud and nails, a search for treasure.

They are those of a probabilistic model checker's distributional branch (PRISM, ElSayed-Aly, Parker and Feng,
"Distributional Probabilistic Model Checking"), as the specification of distributional dynamic programming tells them.
Costs are negative rewards and nothing is discounted.
"""

from collections.abc import Callable

from envs.checks import check_integer
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "betting", "deep_sea_treasure", "mud_and_nails", "obstacle"]


def betting(stages: int = 10, money: int = 5) -> MDP:
    """Bet 0 to 5 at each stage; what is missing to 100 at the end is the cost.

    States: the reachable (stage, money), stage 1 first. Actions: the bet b = 0, ..., 5, at most the money; at the last
    stage only 0, which ends. A bet of 0 keeps the money m; else it becomes m + b with probability 0.7, 10 m with 0.05,
    m - b with 0.25, cut to [0, 100]. Rewards: m - 100 at the end, else 0. Termination: after the last stage.
    Start: stage 1 with `money`.

    Args: stages: >= 1; money: in [0, 100].
    Returns: an MDP without a horizon, [S=755, A=6, B=3] by default.
    Raises: TypeError or ValueError for a parameter out of range.
    Source: PRISM's branch `ingy`, as specified; cap 100. Cost: O(S) on the host.
    """
    check_integer("stages", stages, 1)
    check_integer("money", money, 0, 100)
    cut = lambda m: min(max(m, 0), 100)  # noqa: E731

    def outcomes(state, bet):
        stage, m = state
        if stage == stages:
            return [Outcome(1.0, None, m - 100.0)] if bet == 0 else []
        if bet > m:
            return []
        if bet == 0:
            return [Outcome(1.0, (stage + 1, m), 0.0)]
        after = ((0.7, cut(m + bet)), (0.05, cut(10 * m)), (0.25, cut(m - bet)))
        return [Outcome(prob, (stage + 1, money), 0.0) for prob, money in after]

    return from_rules(Rules((1, money), outcomes, 6, None))


# (row, column), counted from 1.
OBSTACLES = frozenset(
    [(6, 2), (8, 1), (4, 1), (5, 2), (7, 1), (8, 3), (9, 2), (9, 1),
     (4, 4), (7, 6), (9, 5), (3, 5), (6, 4), (7, 2), (5, 9), (8, 9)]
)  # fmt: skip
COMPASS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # east, south, west, north as (row, column)


def obstacle() -> MDP:
    """Cross a 10 x 10 field downwards: near the straight way stand obstacles.

    States: the 99 cells but the goal, breadth first. Actions: east, south, west, north; the intended one happens with
    probability 0.9, each other one with 0.1 / 3; off the field stays. Rewards: minus the cost of the cell that is left,
    20 for one of the 16 obstacles, else 1. Termination: goal (10, 1), counted from 1. Start: (1, 1).

    Returns: an MDP without a horizon, [S=99, A=4, B=4]; returns have no lower bound.
    Source: PRISM's branch `ingy`, as specified. Cost: O(S) on the host.
    """
    size, goal = 10, (10, 1)

    def outcomes(cell, action):
        reward = -20.0 if cell in OBSTACLES else -1.0
        after = []
        for direction, (down, right) in enumerate(COMPASS):
            target = (min(max(cell[0] + down, 1), size), min(max(cell[1] + right, 1), size))
            prob = 0.9 if direction == action else 0.1 / 3
            after.append(Outcome(prob, None if target == goal else target, reward))
        return after

    return from_rules(Rules((1, 1), outcomes, 4, None))


MUD = frozenset([(1, c) for c in (2, 3, 4)] + [(3, c) for c in (6, 7, 8)])
NAILS = frozenset([(3, c) for c in (2, 3, 4)] + [(1, c) for c in (6, 7, 8)])
WALLS = frozenset([(1, 1), (3, 1), (2, 3), (2, 4), (2, 6), (2, 7), (1, 9), (3, 9)])


def mud_and_nails() -> MDP:
    """Drive a 3 x 9 road past mud, which costs a little, and nails, which may flatten a tyre.

    States: the reachable (row, column, flat tyre or not). Actions: east, south, west, north; off the road stays. With
    probability 0.3 nothing moves; off the nails the move happens with 0.7, on them with 0.5, and with 0.2 the car stays
    and the tyre changes between whole and flat. Rewards: minus the cost of the cell that is left: 3 for mud, on nails
    1, or 5 with a flat tyre, else 1, and 35 more for a wall, which blocks nothing. Termination: goal (2, 9).
    Start: (2, 1), counted from 1.

    Returns: an MDP without a horizon, [S, A=4, B<=3]; returns have no lower bound.
    Source: PRISM's branch `ingy`, as specified. Cost: O(S) on the host.
    """

    def outcomes(state, action):
        row, column, flat = state
        cell = (row, column)
        cost = 3.0 if cell in MUD else 5.0 if cell in NAILS and flat else 1.0
        reward = -(cost + 35.0 * (cell in WALLS))
        down, right = COMPASS[action]
        target = (min(max(row + down, 1), 3), min(max(column + right, 1), 9))
        moved = None if target == (2, 9) else (*target, flat)
        if cell in NAILS:
            toggled = (row, column, not flat)
            return [Outcome(0.3, state, reward), Outcome(0.5, moved, reward), Outcome(0.2, toggled, reward)]
        return [Outcome(0.3, state, reward), Outcome(0.7, moved, reward)]

    return from_rules(Rules((2, 1, False), outcomes, 4, None))


# (column, row), counted from 1.
TREASURES = {
    (1, 4): 10, (2, 6): 15, (3, 6): 25, (4, 7): 30, (5, 8): 40, (6, 8): 55, (7, 9): 75, (8, 10): 100,
    (9, 10): 140, (10, 11): 190, (11, 12): 240, (12, 12): 300, (13, 13): 360, (14, 14): 430, (15, 14): 500,
}  # fmt: skip
WEST_WALL = (2, 5)
SOUTH_WEST_WALL = frozenset([(2, 4), (2, 5), (4, 6), (5, 7), (7, 8), (8, 9), (10, 10), (11, 11), (13, 12), (14, 13)])
HEADINGS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))  # E SE S SW W NW N NE


def _drift(cell: tuple[int, int], heading: tuple[int, int]) -> list[tuple[float, tuple[int, int]]]:
    """Where a heading leads from a cell of the sea, with probabilities; nowhere if it is forbidden."""
    right, down = heading
    if heading == (-1, 0) and cell == WEST_WALL:
        return []
    if heading == (-1, 1) and cell in SOUTH_WEST_WALL:
        return []
    if heading == (-1, -1) and cell == WEST_WALL:
        return [(0.6, (-1, -1)), (0.4, (0, -1))]
    if heading == (0, 1) and cell in SOUTH_WEST_WALL:
        return [(0.6, (0, 1)), (0.4, (1, 1))]
    if heading == (-1, 0) and cell in SOUTH_WEST_WALL:
        return [(0.6, (-1, 0)), (0.4, (-1, -1))]
    if right and down:
        return [(0.6, heading), (0.2, (right, 0)), (0.2, (0, down))]
    sides = [(right, -1), (right, 1)] if right else [(-1, down), (1, down)]
    return [(0.6, heading), *((0.2, side) for side in sides)]


def deep_sea_treasure() -> MDP:
    """Dive for treasures that are worth more the farther they lie, in drifting water and 15 moves.

    States: the reachable (column, row, time), time 1 first. Actions: the headings E, SE, S, SW, W, NW, N, NE; the
    intended one happens with probability 0.6, its two neighbours with 0.2 each, off the map is cut; walls forbid or
    turn some. On a treasure, and at time 16, action 0 ends the episode and is the only one. Rewards: -5 a move; at the
    end value - 500 on a treasure, -500 elsewhere, and at time 16 on a treasure another -500. Start: (1, 2) at time 1,
    counted from 1.

    Returns: an MDP without a horizon, [S=1078, A=8, B=3].
    Source: PRISM's branch `ingy`, as specified. Cost: O(S) on the host.
    """

    def outcomes(state, action):
        column, row, time = state
        if (column, row) in TREASURES or time == 16:
            value = TREASURES.get((column, row))
            cost = 500.0 if value is None else 500.0 - value + 500.0 * (time == 16)
            return [Outcome(1.0, None, -cost)] if action == 0 else []
        cut = lambda x: min(max(x, 1), 15)  # noqa: E731
        drift = _drift((column, row), HEADINGS[action])
        return [Outcome(prob, (cut(column + x), cut(row + y), time + 1), -5.0) for prob, (x, y) in drift]

    return from_rules(Rules((1, 2, 1), outcomes, 8, None))


FAMILIES: dict[str, Callable[..., MDP]] = {
    "betting": betting,
    "deep_sea_treasure": deep_sea_treasure,
    "mud_and_nails": mud_and_nails,
    "obstacle": obstacle,
}
