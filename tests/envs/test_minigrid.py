"""MiniGrid's rules: scripted walks, shaping identities, layouts that can be solved."""

import numpy as np
import pytest

import envs
from envs.minigrid import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, Item, Node, World, minigrid_rules


def walk(mdp, actions):
    """Return and whether the episode ended, for a deterministic MDP."""
    state, total, ended = 0, 0.0, False
    for action in actions:
        assert not ended
        total += float(mdp.reward[state, action, 0])
        ended = bool(mdp.terminal[state, action, 0])
        state = int(mdp.next_state[state, action, 0])
    return total, ended


TURN = [RIGHT, RIGHT]
# west through the blue door, take the key, back, open the yellow door, put the key down behind, take the ball
PLAN = [RIGHT, TOGGLE, FORWARD, PICKUP, *TURN, FORWARD, TOGGLE, FORWARD, *TURN, DROP, *TURN, PICKUP]


def test_key_corridor_by_hand(optimal_value):
    mdp = envs.make("key_corridor")
    assert walk(mdp, PLAN) == (1.0, True)
    # with the key in hand the ball cannot be taken
    assert walk(mdp, [*PLAN[:9], PICKUP]) == (0.0, False)
    # the yellow door stays shut without the key
    assert walk(mdp, [LEFT, TOGGLE, FORWARD, FORWARD, PICKUP]) == (0.0, False)
    # 15 steps is the shortest way, as W = 15 in the specification's table says
    assert len(PLAN) == 15
    assert optimal_value(mdp, horizon=15) == 1 and optimal_value(mdp, horizon=14) == 0


def play(world, actions):
    """The node after some actions in a deterministic world that does not end."""
    rules = minigrid_rules(world)
    node = rules.start
    for action in actions:
        ((_, node, _),) = rules.outcomes(node, action)
    return node


def test_doors_keys_and_hands():
    key, other = Item("key", "yellow"), Item("key", "red")
    shut, wide = Item("door", "yellow", "closed"), Item("door", "yellow", "open")
    free = frozenset({(1, 1), (2, 1), (3, 1), (1, 2)})
    world = World(free, (1, 1), 0, items={(2, 1): Item("door", "yellow", "locked"), (1, 2): key})
    start = minigrid_rules(world).start
    # nothing to take through a wall, nothing to drop, a locked door without key: nothing changes
    for useless in (PICKUP, DROP, TOGGLE, FORWARD):
        assert play(world, [useless]) == start
    assert play(world, [RIGHT, PICKUP]) == Node((1, 1), 1, key, frozenset({((2, 1), Item("door", "yellow", "locked"))}))
    opened = [RIGHT, PICKUP, LEFT, TOGGLE]
    assert dict(play(world, opened).items)[(2, 1)] == wide
    # once open it is unlocked for good: it shuts and opens again without the key
    assert dict(play(world, [*opened, TOGGLE]).items)[(2, 1)] == shut
    assert dict(play(world, [*opened, RIGHT, DROP, LEFT, TOGGLE, TOGGLE]).items)[(2, 1)] == wide
    # neither into a door, nor into a wall, nor onto the goal can a thing be dropped
    assert play(world, [*opened, DROP]).carried == key
    assert play(world, [*opened, FORWARD, FORWARD, DROP]).carried == key
    assert play(world._replace(goal=(1, 2), items={(2, 1): key}), [PICKUP, RIGHT, DROP]).carried == key
    # a key of another colour opens nothing; a second thing is not taken
    assert dict(play(world._replace(items={**world.items, (1, 2): other}), opened).items)[(2, 1)].status == "locked"
    two = world._replace(items={(2, 1): key, (1, 2): other})
    assert play(two, [PICKUP, RIGHT, PICKUP]).carried == key
    # a closed door stops, a thing stops
    assert play(world._replace(items={(2, 1): shut}), [FORWARD]).cell == (1, 1)
    assert play(world, [RIGHT, FORWARD]).cell == (1, 1)


@pytest.mark.parametrize("size", [4, 5, 8])
def test_shaping_adds_the_potential_of_the_start_on_the_way_to_the_goal(size, optimal_value, random_value):
    plain, shaped = (envs.make("minigrid_empty", size=size, shaped=s) for s in (False, True))
    np.testing.assert_array_equal(plain.next_state, shaped.next_state)
    start = 0.1 * (2 * (size - 3) + 1)  # |dx| + |dy| + one turn
    # sums of at most 100 terms below 0.2, each rounded: 100 * 2 * 1e-16 and the return itself
    assert optimal_value(shaped) == pytest.approx(optimal_value(plain) + start, rel=0, abs=1e-13)
    # the shaping telescopes: around any loop it adds nothing
    assert walk(shaped, [FORWARD, *TURN, FORWARD, *TURN])[0] == pytest.approx(0.0, abs=1e-15)
    assert walk(shaped, [LEFT, RIGHT])[0] == pytest.approx(0.0, abs=1e-15)


def test_shaping_counts_the_turns_that_remain():
    # Returns cannot see the count: it cancels along any walk to the goal. Goal at (3, 3), start at (1, 1) facing east.
    mdp = envs.make("minigrid_empty", size=5, shaped=True)
    in_line = [FORWARD, FORWARD]  # at (3, 1) facing east: one turn from the goal
    for actions, gains in [
        ([LEFT, LEFT], [-0.1, 0.0]),  # off the line: east 1, north 2, west 2
        ([RIGHT, RIGHT], [0.0, -0.1]),  # south 1, west 2
        ([*in_line, RIGHT], [0.1, 0.1, 0.1]),  # in line facing it: none
        ([*in_line, LEFT], [0.1, 0.1, -0.1]),  # in line with the back to it: two
        ([*in_line, RIGHT, FORWARD, FORWARD], [0.1, 0.1, 0.1, 0.1, 1.1]),
    ]:
        totals = [walk(mdp, actions[:n])[0] for n in range(len(actions) + 1)]
        np.testing.assert_allclose(np.diff(totals), gains, rtol=0, atol=1e-15 * 4)


def test_random_layouts_differ_and_can_be_solved(optimal_value):
    for id, sizes in (("door_key", dict(size=6)), ("simple_crossing", dict(size=9, walls=4))):
        problems = [envs.make(id, **sizes, seed=seed) for seed in range(6)]
        assert all(optimal_value(mdp) == 1 for mdp in problems)
        assert len({np.asarray(mdp.next_state).tobytes() for mdp in problems}) > 3
        again = envs.make(id, **sizes, seed=0)
        np.testing.assert_array_equal(again.next_state, problems[0].next_state)


def test_every_gap_of_a_crossing_is_needed():
    # size - 3 walls of full length leave single rooms joined by one gap each: 1 + walls rooms in a row
    mdp = envs.make("simple_crossing", size=5, walls=2, seed=0)
    # rooms are single cells (1 or 3, 1 or 3); the path crosses two of the four gaps: 3 rooms + 2 gaps - goal
    assert mdp.prob.shape[0] == 4 * 4
