"""Gridworlds with a heading, doors, keys and balls, after MiniGrid, fully observed and without time penalty."""

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import numpy as np

from envs.checks import check_flag, check_integer
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = [
    "FAMILIES",
    "Item",
    "World",
    "door_key",
    "key_corridor",
    "minigrid_empty",
    "minigrid_rules",
    "simple_crossing",
]

# (dx, dy) of the directions 0 east, 1 south, 2 west, 3 north; y grows downwards.
HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
HORIZON = 100
Cell = tuple[int, int]


class Item(NamedTuple):
    """A thing in a cell or in the hand: kind "key", "ball" or "door"; `status` of a door "open", "closed", "locked"."""

    kind: str
    colour: str
    status: str = ""


class Node(NamedTuple):
    """One state: where the agent stands (x, y), its direction, what it carries, and the things that lie around."""

    cell: Cell
    heading: int
    carried: Item | None
    items: frozenset[tuple[Cell, Item]]


class World(NamedTuple):
    """A layout; everything outside `free` is wall.

    free: cells (x, y) that are not wall, doors and things included.
    start, heading: where the agent stands and looks (0 east, 1 south, 2 west, 3 north).
    goal: entering it ends the episode with reward 1; None where the aim is a thing.
    target: the thing whose pickup ends the episode with reward 1, or None.
    items: the things at the start, by cell.
    """

    free: frozenset[Cell]
    start: Cell
    heading: int
    goal: Cell | None = None
    target: Item | None = None
    items: Mapping[Cell, Item] = {}


def _ahead(cell: Cell, heading: int) -> Cell:
    return (cell[0] + HEADINGS[heading][0], cell[1] + HEADINGS[heading][1])


def minigrid_rules(
    world: World,
    num_actions: int = 6,
    *,
    horizon: int = HORIZON,
    potential: Callable[[Cell, int], float] | None = None,
) -> Rules:
    """The rules of a layout.

    Forward enters a free cell without a thing, or an open door. Pickup takes a key or ball in front if the hands are
    empty. Drop puts the carried thing into the cell in front if that is free, empty and not the goal. Toggle opens and
    closes an unlocked door in front; a locked one opens, for good, if a key of its colour is carried.

    Args:
      world: the layout.
      num_actions: 6 for turn left, turn right, forward, pickup, drop, toggle; 3 for the first three.
      horizon: steps per episode.
      potential: shaping; `potential(cell, heading)` before minus after is added to every reward.

    Returns: rules whose states are `Node`s.
    Source: Chevalier-Boisvert et al. 2023 (MiniGrid), as restated in the BRIDGE/SQIRL specification, section 6.
    Cost: O(things) per call of the rules.
    """

    def shaping(before: Node, cell: Cell, heading: int) -> float:
        return 0.0 if potential is None else potential(before.cell, before.heading) - potential(cell, heading)

    def act(node: Node, action: int) -> tuple[Hashable, float]:
        if action in (LEFT, RIGHT):
            heading = (node.heading + (1 if action == RIGHT else -1)) % 4
            return node._replace(heading=heading), shaping(node, node.cell, heading)
        front = _ahead(node.cell, node.heading)
        things = dict(node.items)
        thing = things.get(front)
        if action == FORWARD:
            if front not in world.free or (thing is not None and thing.status != "open"):
                return node, 0.0
            if front == world.goal:
                return None, 1.0 + shaping(node, front, node.heading)
            return node._replace(cell=front), shaping(node, front, node.heading)
        if action == PICKUP and thing is not None and thing.kind != "door" and node.carried is None:
            if thing == world.target:
                return None, 1.0
            return node._replace(carried=thing, items=node.items - {(front, thing)}), 0.0
        if action == DROP and node.carried is not None:
            if front in world.free and thing is None and front != world.goal:
                return node._replace(carried=None, items=node.items | {(front, node.carried)}), 0.0
        elif action == TOGGLE and thing is not None and thing.kind == "door":
            if thing.status == "locked" and node.carried != Item("key", thing.colour):
                return node, 0.0
            turned = thing._replace(status="closed" if thing.status == "open" else "open")
            return node._replace(items=(node.items - {(front, thing)}) | {(front, turned)}), 0.0
        return node, 0.0

    start = Node(world.start, world.heading, None, frozenset(world.items.items()))
    return Rules(start, lambda node, action: [Outcome(1.0, *act(node, action))], num_actions, horizon)


def _room(width: int, height: int) -> set[Cell]:
    return {(x, y) for x in range(1, width - 1) for y in range(1, height - 1)}


def minigrid_empty(size: int, shaped: bool = False) -> MDP:
    """An empty room, goal in the opposite corner, moved through by turning and walking.

    States: the 4 ((size-2)^2 - 1) pairs (cell, direction) off the goal, breadth first from the start.
    Actions: 0 turn left, 1 turn right, 2 forward. Rewards: 1 on the goal, else 0, without time penalty. Shaped: plus
    0.1 (d before - d after), d = |Δx| + |Δy| + turns to the goal; turns = 0 at the goal, 1 - dot in line with it,
    else 1 (2 if dot < 0), dot = sgn(Δx) dir_x + sgn(Δy) dir_y. Termination: goal. Start: (1, 1) facing east.
    Horizon: 100.

    Args:
      size: cells per side, outer wall included, >= 4.
      shaped: whether to add the distance shaping.

    Returns: a deterministic MDP, [S=4((size-2)^2-1), A=3, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: MiniGrid-Empty as in the BRIDGE/SQIRL specification, section 6; size 16 shaped is bisimilar to BRIDGE's.
    Cost: O(size^2) on the host.
    """
    check_integer("size", size, 4)
    check_flag("shaped", shaped)
    goal = (size - 2, size - 2)

    def distance(cell: Cell, heading: int) -> float:
        dx, dy = goal[0] - cell[0], goal[1] - cell[1]
        dot = int(np.sign(dx)) * HEADINGS[heading][0] + int(np.sign(dy)) * HEADINGS[heading][1]
        if dx == 0 and dy == 0:
            turns = 0
        elif dx == 0 or dy == 0:
            turns = 1 - dot
        else:
            turns = 2 if dot < 0 else 1
        return 0.1 * (abs(dx) + abs(dy) + turns)

    world = World(frozenset(_room(size, size)), (1, 1), 0, goal=goal)
    return from_rules(minigrid_rules(world, 3, potential=distance if shaped else None))


def key_corridor() -> MDP:
    """Fetch a key behind one door to open another and take the ball: KeyCorridorS3R1 with the layout of seed 0.

    States: the 156 reachable combinations of cell, direction, things and hands, breadth first from the start.
    Actions: 0 turn left, 1 turn right, 2 forward, 3 pickup, 4 drop, 5 toggle. The row of five cells holds the yellow
    key, a blue closed door, the agent facing south, a yellow locked door, the purple ball. Rewards: 1 for taking the
    ball, else 0. Termination: with it. Horizon: 100.

    Returns: a deterministic MDP, [S=156, A=6, B=1].
    Source: BRIDGE's MiniGrid-KeyCorridorS3R1-v0 as in the BRIDGE/SQIRL specification, section 6; BRIDGE itself keeps
      168 states, of which 12 duplicate others.
    Cost: O(S) on the host.
    """
    ball = Item("ball", "purple")
    items = {
        (1, 1): Item("key", "yellow"),
        (2, 1): Item("door", "blue", "closed"),
        (4, 1): Item("door", "yellow", "locked"),
        (5, 1): ball,
    }
    return from_rules(minigrid_rules(World(frozenset(_room(7, 3)), (3, 1), 1, target=ball, items=items)))


def door_key(size: int, seed: int) -> MDP:
    """Two rooms: fetch the key on this side, open the locked door, reach the goal beyond.

    States: the reachable combinations of cell, direction, things and hands, breadth first from the start.
    Actions: 0 turn left, 1 turn right, 2 forward, 3 pickup, 4 drop, 5 toggle. Rewards: 1 on the goal, else 0.
    Termination: goal. Start, key, dividing wall and door are drawn from `seed` with MiniGrid's distribution; the
    drawings are this project's own, not those of MiniGrid for the same seed. Horizon: 100.

    Args:
      size: cells per side, outer wall included, >= 5.
      seed: layout, >= 0.

    Returns: a deterministic MDP, [S, A=6, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: MiniGrid's DoorKey, with the rules of the BRIDGE/SQIRL specification, section 6.
    Cost: O(size^4) on the host: the key may be dropped in every cell.
    """
    check_integer("size", size, 5)
    check_integer("seed", seed, 0)
    rng = np.random.default_rng(seed)
    wall = int(rng.integers(2, size - 2))
    door = (wall, int(rng.integers(1, size - 2)))
    near = sorted(cell for cell in _room(size, size) if cell[0] < wall)
    start, key = (near[i] for i in rng.choice(len(near), 2, replace=False))
    free = {cell for cell in _room(size, size) if cell[0] != wall} | {door}
    items = {door: Item("door", "yellow", "locked"), key: Item("key", "yellow")}
    world = World(frozenset(free), start, int(rng.integers(4)), goal=(size - 2, size - 2), items=items)
    return from_rules(minigrid_rules(world))


def simple_crossing(size: int, walls: int, seed: int) -> MDP:
    """A room cut by straight walls, each with one gap, so placed that a way to the goal exists.

    States: the reachable pairs (cell, direction) off the goal, breadth first from the start. Actions: 0 turn left,
    1 turn right, 2 forward. Rewards: 1 on the goal, else 0. Termination: goal. Start: (1, 1) facing east; goal in
    the opposite corner. The walls stand on even coordinates, drawn from `seed` with MiniGrid's distribution; the
    drawings are this project's own, not those of MiniGrid for the same seed. Horizon: 100.

    Args:
      size: cells per side, outer wall included, odd and >= 5.
      walls: 1 to size - 3, the number of even inner columns and rows together.
      seed: layout, >= 0.

    Returns: a deterministic MDP, [S, A=3, B=1].
    Raises: TypeError or ValueError for a parameter out of range.
    Source: MiniGrid's SimpleCrossing, with the rules of the BRIDGE/SQIRL specification, section 6.
    Cost: O(size^2) on the host.
    """
    check_integer("size", size, 5)
    if size % 2 == 0:
        raise ValueError(f"size: found {size}, expected an odd integer >= 5")
    check_integer("walls", walls, 1, size - 3)
    check_integer("seed", seed, 0)
    rng = np.random.default_rng(seed)
    lines = [(axis, i) for axis in (0, 1) for i in range(2, size - 2, 2)]
    chosen = [lines[i] for i in rng.choice(len(lines), walls, replace=False)]
    free = {cell for cell in _room(size, size) if all(cell[axis] != i for axis, i in chosen)}
    # A monotone path that crosses each wall once; between crossings it walks along the room it is in.
    cuts = [sorted(i for axis, i in chosen if axis == which) for which in (0, 1)]
    limits = [[0, *cut, size - 1] for cut in cuts]
    room = [0, 0]
    for axis in rng.permutation([0] * len(cuts[0]) + [1] * len(cuts[1])):
        along = 1 - axis
        gap = [0, 0]
        gap[axis] = limits[axis][room[axis] + 1]
        gap[along] = int(rng.integers(limits[along][room[along]] + 1, limits[along][room[along] + 1]))
        free.add((gap[0], gap[1]))
        room[axis] += 1
    return from_rules(minigrid_rules(World(frozenset(free), (1, 1), 0, goal=(size - 2, size - 2)), 3))


FAMILIES = {
    "door_key": door_key,
    "key_corridor": key_corridor,
    "minigrid_empty": minigrid_empty,
    "simple_crossing": simple_crossing,
}
