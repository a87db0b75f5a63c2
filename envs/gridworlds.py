"""Gridworlds drawn as text: frozen lake, four rooms, crossing, lava gap, cliff."""

from collections.abc import Sequence

from envs.checks import check_choice, check_flag, check_integer
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "MAPS", "cliff", "crossing", "four_rooms", "frozen_lake", "grid", "lava_gap"]

# (row, column) steps of the actions, in Gym's order: left, down, right, up.
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
MAPS = {
    "frozen_lake_4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "frozen_lake_8": (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
    "four_rooms": (
        "#############",
        "#S....#.....#",
        "#.....#.....#",
        "#...........#",
        "#.....#.....#",
        "#.....#.....#",
        "##.####.....#",
        "#.....###.###",
        "#.....#.....#",
        "#.....#.....#",
        "#...........#",
        "#.....#....G#",
        "#############",
    ),
    "crossing": (
        "#########",
        "#S..#...#",
        "#...#...#",
        "#...#...#",
        "#.......#",
        "#...#...#",
        "#...#...#",
        "#...#..G#",
        "#########",
    ),
    "lava_gap": ("#####", "#SL.#", "#...#", "#.LG#", "#####"),
    "cliff": ("............", "............", "............", "SLLLLLLLLLLG"),
}


def grid(
    rows: Sequence[str],
    horizon: int,
    *,
    slippery: bool = False,
    step_reward: float = 0.0,
    hole_reward: float = 0.0,
    goal_reward: float = 1.0,
) -> Rules:
    """The rules of a gridworld drawn as text; moving into a wall or off the map stays.

    Args:
      rows: equally long strings; `S` start, `G` goal, `H` or `L` hole, `#` wall, `.` or `F` free.
      horizon: steps per episode.
      slippery: the intended and the two perpendicular directions happen with probability 1/3 each.
      step_reward: added at every move; hole_reward, goal_reward: added on entering a hole or the goal, which ends
        the episode.

    Returns: rules with states (row, column) and actions 0 left, 1 down, 2 right, 3 up.
    Raises: ValueError for a map that is not rectangular, has an unknown letter, or not exactly one S and one G.
    Source: BRIDGE/SQIRL specification, section 6; slipping as in Gym's FrozenLake.
    Cost: O(cells).
    """
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"rows: found lengths {[len(row) for row in rows]}, expected equally long rows, at least one")
    cells = {(i, j): letter for i, row in enumerate(rows) for j, letter in enumerate(row)}
    unknown = sorted(set(cells.values()) - set("SGHL#.F"))
    if unknown:
        raise ValueError(f"rows: found letters {unknown}, expected only S G H L # . F")
    starts = [cell for cell, letter in cells.items() if letter == "S"]
    goals = [cell for cell, letter in cells.items() if letter == "G"]
    if len(starts) != 1 or len(goals) != 1:
        raise ValueError(f"rows: found {len(starts)} S and {len(goals)} G, expected exactly one of each")

    def move(cell, direction):
        target = (cell[0] + MOVES[direction][0], cell[1] + MOVES[direction][1])
        letter = cells.get(target, "#")
        if letter == "#":
            return cell, step_reward
        if letter == "G":
            return None, step_reward + goal_reward
        if letter in "HL":
            return None, step_reward + hole_reward
        return target, step_reward

    def outcomes(cell, action):
        directions = [(action + turn) % 4 for turn in (-1, 0, 1)] if slippery else [action]
        return [Outcome(1.0 / len(directions), *move(cell, direction)) for direction in directions]

    return Rules(starts[0], outcomes, 4, horizon)


def frozen_lake(size: int, slippery: bool) -> MDP:
    """Cross a frozen lake with holes; on slippery ice one goes sideways two times out of three.

    States: reachable cells that are neither hole nor goal, breadth first from the start (11 for size 4, 53 for
    size 8). Actions: left, down, right, up; into the edge stays. Rewards: 1 on the goal, else 0. Termination: goal
    and holes. Start: upper left. Horizon: size 4: 20, slippery 40; size 8: 60, slippery 100.

    Args:
      size: 4 or 8, the two standard maps.
      slippery: intended and both perpendicular directions with probability 1/3 each.

    Returns: an MDP, [S, A=4, B=1 or 3].
    Raises: TypeError or ValueError for another size or a `slippery` that is no bool.
    Source: OpenAI Gym's FrozenLake, with the horizons of the BRIDGE/SQIRL specification, section 6.
    Cost: O(size^2) on the host.
    """
    check_choice("size", check_integer("size", size, 4), (4, 8))
    check_flag("slippery", slippery)
    horizon = {(4, False): 20, (4, True): 40, (8, False): 60, (8, True): 100}[size, bool(slippery)]
    return from_rules(grid(MAPS[f"frozen_lake_{size}"], horizon, slippery=slippery))


def four_rooms() -> MDP:
    """Four rooms joined by doorways, goal in the opposite corner.

    States: the 103 free cells other than the goal, breadth first from the start. Actions: left, down, right, up.
    Rewards: 1 on the goal, else 0. Termination: goal. Start: row 1, column 1. Horizon: 50.

    Returns: a deterministic MDP, [S=103, A=4, B=1].
    Source: Sutton, Precup and Singh 1999, with the map of the BRIDGE/SQIRL specification, section 6.
    Cost: O(S) on the host.
    """
    return from_rules(grid(MAPS["four_rooms"], 50))


def crossing() -> MDP:
    """A 7 x 7 room cut by a wall with one opening, goal in the opposite corner.

    States: the 42 free cells other than the goal, breadth first from the start. Actions: left, down, right, up.
    Rewards: 1 on the goal, else 0. Termination: goal. Start: row 1, column 1. Horizon: 40.

    Returns: a deterministic MDP, [S=42, A=4, B=1].
    Source: BRIDGE/SQIRL specification, section 6, `crossing9`.
    Cost: O(S) on the host.
    """
    return from_rules(grid(MAPS["crossing"], 40))


def lava_gap() -> MDP:
    """A 3 x 3 room with two lava cells between start and goal.

    States: the 6 reachable cells that are neither lava nor goal. Actions: left, down, right, up.
    Rewards: 1 on the goal, else 0. Termination: goal, and lava without reward. Start: upper left. Horizon: 20.

    Returns: a deterministic MDP, [S=6, A=4, B=1].
    Source: BRIDGE/SQIRL specification, section 6, `lavagap5`.
    Cost: O(S) on the host.
    """
    return from_rules(grid(MAPS["lava_gap"], 20))


def cliff(variant: str = "r") -> MDP:
    """Walk along a cliff, 4 x 12 cells: the short way is the dangerous one.

    States: the 37 cells that are neither cliff nor goal. Actions: left, down, right, up; off the map stays.
    Rewards: variant "0": 1 on the goal, else 0; variant "r": -0.01 at every move, and besides -1 on entering the
    cliff, +1 on entering the goal. Termination: goal and cliff. Start: lower left. Horizon: 40.

    Args:
      variant: "r" (rewards along the way) or "0" (sparse).

    Returns: a deterministic MDP, [S=37, A=4, B=1].
    Raises: ValueError for another variant.
    Source: Sutton and Barto, example 6.6, with the rewards of the BRIDGE/SQIRL specification, section 6.
    Cost: O(S) on the host.
    """
    check_choice("variant", variant, ("r", "0"))
    if variant == "0":
        return from_rules(grid(MAPS["cliff"], 40))
    return from_rules(grid(MAPS["cliff"], 40, step_reward=-0.01, hole_reward=-1.0))


FAMILIES = {
    "cliff": cliff,
    "crossing": crossing,
    "four_rooms": four_rooms,
    "frozen_lake": frozen_lake,
    "lava_gap": lava_gap,
}
