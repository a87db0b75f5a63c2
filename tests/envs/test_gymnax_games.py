"""gymnax environments inside our own programs: the same episodes, sticky actions, the two meanings of a limit."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.gymnax_adapter import gymnax_modes
from envs.gymnax_games import gymnax_game


def play(game, actions, key, num_steps):
    """Rows of one episode that takes `actions` in turn and goes on after its end."""

    def run(key):
        reset_key, key = jax.random.split(key)
        state, observation = game.reset(reset_key)

        def step(state, at):
            action, key = at
            out = game.step(state, action, key)
            return out.state, out._replace(state=None)

        return observation, jax.lax.scan(step, state, (actions, jax.random.split(key, num_steps)))[1]

    return jax.jit(run)(key)


@pytest.mark.parametrize("id", ["CartPole-v1", "Breakout-MinAtar"])
def test_without_stickiness_an_episode_is_gymnax_s(id):
    game, key = gymnax_game(id, sticky=0.0, limit=30), jax.random.key(3)
    actions = jax.random.randint(key, (12,), 0, game.num_actions, jnp.int32)
    first, rows = play(game, actions, key, 12)
    with gymnax_modes():
        world, params = gymnax.make(id)
        reset_key, later = jax.random.split(key)
        observation, state = world.reset_env(reset_key, params)
        np.testing.assert_array_equal(first[0], observation)
        for t, step_key in enumerate(jax.random.split(later, 12)):
            observation, state, reward, ended, _ = world.step_env(
                jax.random.split(step_key)[1], state, actions[t], params
            )
            # one program may fuse what gymnax computes operation by operation: a few roundings of float32
            np.testing.assert_allclose(rows.observation[0][t], observation, rtol=0, atol=1e-5)
            assert float(rows.reward[t]) == float(reward) and bool(rows.terminal[t]) == bool(ended)
    numbers = np.asarray(rows.observation[1])
    np.testing.assert_array_equal(numbers[:, :-1].argmax(1), actions)
    np.testing.assert_allclose(numbers[:, -1], np.arange(1, 13) / 30, rtol=1e-6)
    assert not np.any(first[1]) and rows.reward.dtype == jnp.float32
    assert rows.observation[0].dtype == (jnp.bool if id == "Breakout-MinAtar" else jnp.float32)


def test_actions_stick():
    key, num_steps = jax.random.key(0), 4000
    actions = jnp.arange(num_steps, dtype=jnp.int32) % 3

    def executed(sticky):
        game = gymnax_game("Breakout-MinAtar", sticky=sticky)
        seen = np.asarray(play(game, actions, key, num_steps)[1].observation[1])[:, :3]
        assert np.all(seen.sum(axis=1) == 1)
        return seen.argmax(1)

    always, sometimes = executed(1.0), executed(0.25)
    assert set(always) == {0}
    taken = sometimes[1:] == np.asarray(actions)[1:]
    # what did not come to pass was stuck, so it repeats
    assert np.all(taken | (sometimes[1:] == sometimes[:-1]))
    # stuck with probability 1/4; unseen where the last free action is 3, 6, ... steps old: (1/4) (3/64) (64/63)
    unseen = 1 / 84
    # five standard deviations, twice the variance of independent steps
    assert abs(1 - taken.mean() - (0.25 - unseen)) < 5 * np.sqrt(2 * 0.1875 / num_steps)


def test_a_limit_ends_an_episode_or_truncates_it():
    actions = jnp.arange(6, dtype=jnp.int32) % 2
    for ends in (True, False):
        _, rows = play(gymnax_game("CartPole-v1", sticky=0.0, limit=5, limit_ends=ends), actions, jax.random.key(0), 6)
        assert rows.terminal.tolist() == [False] * 4 + [ends] * 2
        assert rows.truncated.tolist() == [False] * 4 + [not ends] * 2
        assert rows.observation[1].shape == (6, 3 if ends else 2)


def test_bad_input():
    with pytest.raises(ValueError, match=r"sticky: found 1\.5, expected a number in"):
        gymnax_game("CartPole-v1", sticky=1.5)
    with pytest.raises(ValueError, match="limit: found 0, expected an integer >= 1"):
        gymnax_game("CartPole-v1", limit=0)
    with pytest.raises(ValueError, match="id: found 'Pong', expected one of"):
        gymnax_game("Pong")
    with pytest.raises(TypeError, match="id: found Pendulum-v1 with actions Box, expected a finite number"):
        gymnax_game("Pendulum-v1")
