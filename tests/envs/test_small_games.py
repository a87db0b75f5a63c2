"""The small arcade games: rules played by hand, tables against the rules, merging leaves values alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from envs import small_games as games
from rlcore.planning import backward_induction

RULES = {
    "small_asterix": (games.asterix_rules, 5),
    "small_breakout": (games.breakout_rules, 3),
    "small_freeway": (games.freeway_rules, 3),
    "small_invaders": (games.invaders_rules, 4),
}


def whole(*x):
    return jnp.array(x, jnp.int32)


def played(game, actions):
    """Rewards of a sequence of actions, until the end."""
    step, state = game
    step, rewards, done = jax.jit(step), [], False
    for action in actions:
        if done:
            break
        state, reward, done = step(state, action)
        rewards.append(float(reward))
    return state, rewards, bool(done)


@pytest.mark.parametrize("id", RULES)
def test_tables_replay_the_rules(id):
    rules, num_actions = RULES[id]
    mdp = make(id, seed=3, horizon=8)
    following, reward, terminal = (np.asarray(x)[..., 0] for x in (mdp.next_state, mdp.reward, mdp.terminal))
    rng = np.random.default_rng(0)
    for actions in rng.integers(num_actions, size=(20, 8)):
        _, rewards, done = played(rules(3), actions)
        state, table, ended = 0, [], False
        for action in actions:
            if ended:
                break
            table.append(float(reward[state, action]))
            ended, state = bool(terminal[state, action]), following[state, action]
        # A state first reached at the horizon is no row, so that its table ends where the rules may go on.
        assert table == rewards and (ended or not done)


@pytest.mark.parametrize("id", RULES)
def test_merging_leaves_the_values_of_the_start(id):
    merged, whole = make(id, seed=1, horizon=8), make(id, seed=1, horizon=8, merge=False)
    assert merged.prob.shape[0] <= whole.prob.shape[0]
    best = [float(backward_induction(mdp).value[0, 0]) for mdp in (merged, whole)]
    assert best[0] == best[1] > 0


@pytest.mark.parametrize("id", RULES)
def test_seeds_draw_the_layout(id):
    tables = [content(make(id, seed=seed, horizon=6)) for seed in (*range(6), 5)]
    assert len(set(tables)) > 1 and tables[-1] == tables[-2]


def content(mdp):
    """The table's bytes."""
    return b"".join(np.asarray(x).tobytes() for x in (mdp.next_state, mdp.reward, mdp.terminal))


def test_a_ball_missed_ends_and_a_ball_caught_comes_back():
    step, start = games.breakout_rules(0)
    low = start | {"ball": whole(1, 4), "speed": whole(1, 1)}
    _, reward, done = step(low | {"paddle": whole(0)[0]}, 1)
    assert bool(done) and reward == 0
    after, _, done = step(low | {"paddle": whole(1)[0]}, 2)
    assert not done and after["speed"].tolist() == [1, -1] and after["ball"].tolist() == [2, 5]
    # The same catch while moving to the left sends it there.
    after, _, _ = step(low | {"paddle": whole(3)[0]}, 0)
    assert after["speed"].tolist() == [-1, -1]


def test_a_brick_pays_once():
    step, start = games.breakout_rules(0)
    below = start | {"ball": whole(1, 2), "speed": whole(1, -1)}
    after, reward, _ = step(below, 1)
    assert reward == 1 and not after["bricks"][1, 2] and after["speed"].tolist() == [1, 1]
    again, reward, _ = step(below | {"bricks": after["bricks"]}, 1)
    assert reward == 0 and again["ball"].tolist() == [2, 1]


def test_the_last_brick_ends_the_game():
    step, start = games.breakout_rules(0)
    one = jnp.zeros((2, 5), bool).at[1, 2].set(True)
    _, reward, done = step(start | {"ball": whole(1, 2), "speed": whole(1, -1), "bricks": one}, 1)
    assert reward == 1 and bool(done)


def test_cars_strike_and_the_far_side_pays():
    step, _ = games.freeway_rules(0)
    struck = 0
    for row in range(1, 5):
        for phase in range(5):
            after, reward, done = step({"row": whole(row)[0], "phase": whole(phase)[0]}, 1)
            assert reward == 0 and not done and int(after["row"]) in (0, row)
            struck += int(after["row"]) == 0
    # Each lane's car passes the chicken's column once in a period of five.
    assert struck == 4
    after, reward, _ = step({"row": whole(4)[0], "phase": whole(0)[0]}, 2)
    assert reward == 1 and int(after["row"]) == 0


def test_gold_pays_and_enemies_end():
    step, start = games.asterix_rules(0)
    for thing, paid, ends in ((games.GOLD, 1, False), (games.ENEMY, 0, True), (games.NOTHING, 0, False)):
        here = start["cells"].at[2, 1].set(thing)
        _, reward, done = step(start | {"cells": here, "player": whole(2, 2)}, 0)
        assert (float(reward), bool(done)) == (paid, ends)


def test_one_bullet_at_a_time_and_aliens_descend():
    step, start = games.invaders_rules(0)
    state, rewards, done = played((step, start), [3, 3, 3])
    assert int(jnp.sum(state["aliens"])) + sum(rewards) == 3 and not done
    # Left alone they land.
    _, rewards, done = played((step, start), [0] * 40)
    assert done and sum(rewards) == 0 and len(rewards) < 40
