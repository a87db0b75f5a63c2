"""The deep version of SQIRL: what it stores, its targets, its snapshots, and problems of known depth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.episodic import episodic
from rlcore.mdp import sticky
from rlcore.nn.perceptron import Perceptron
from rlcore.nn.tabular import category_sizes, greedy_return, tabular_environment
from rlcore.sqirl import DeepSqirl, deep_sqirl
from rlcore.sqirl.deep import _Kept, _play, _store


def lock(length=2):
    return episodic(make("combination_lock", length=length, actions=2, distractor=0.7))


def settings_for(one, depth, **changes):
    sizes = category_sizes(one)
    actions = one.problem.available.shape[1]
    network = Perceptron(depth * actions, sizes, hidden=(16,), uniform=True)
    return DeepSqirl(network, depth=depth, **changes)


def earned(one, settings, learned):
    """The exact return of the policy that was learned."""
    environment = tabular_environment(one)

    def act(seen):
        t = jnp.round(seen[1][0] * one.length.astype(jnp.float32)).astype(jnp.int32)
        return settings.act(environment, learned, t, seen)

    return greedy_return(one, act)


def test_depth_two_opens_the_lock_and_depth_one_takes_the_sure_reward():
    one = lock()
    returns = []
    for depth in (1, 2):
        settings = settings_for(one, depth, episodes=64, learning_rate=1e-2, epochs=20, batch=8)
        learned = deep_sqirl(tabular_environment(one), settings, jax.random.key(1), steps=2)
        returns.append(float(earned(one, settings, learned)))
        assert int(learned.iterations) == 2 and 64 * 2 <= int(learned.steps) <= 64 * 4
        assert learned.losses.shape == (depth,)
    # On random rollouts the lock's right dial is worth 1/2, less than the sure 0.7.
    assert returns == pytest.approx([0.7, 1.0], abs=1e-12)


def test_updates_are_those_of_the_steps_taken():
    one = lock()
    settings = settings_for(one, 1, episodes=8, epochs=3, batch=5)
    learned = deep_sqirl(tabular_environment(one), settings, jax.random.key(0), steps=2, iterations=1)
    assert int(learned.updates) == -(-int(learned.steps) * 3 // 5) and int(learned.iterations) == 1
    # The snapshot made is the last network, the one that was not is the first.
    after, before = (jax.tree.map(lambda x, i=i: x[i], learned.snapshots) for i in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, after, learned.params)
    moved = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)]
    assert any(moved)


def test_episodes_explore_from_their_step_on_and_returns_are_to_go():
    one = episodic(make("corridor", length=3, horizon=6))
    environment, settings = tabular_environment(one), settings_for(one, 1, episodes=64, discount=0.5)
    params = settings.network.init(jax.random.key(3), environment.reset(jax.random.key(0))[1])
    # A network that always goes right.
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["output_bias"] = jnp.array([0.0, 1.0], jnp.float32)
    snapshots = jax.tree.map(lambda x: jnp.broadcast_to(x, (6, *x.shape)), params)
    kept, running = jax.jit(lambda i: _play(environment, settings, snapshots, i, 6, 6, jax.random.key(1)))(2)
    action, reward, running = np.asarray(kept.action), np.asarray(kept.reward), np.asarray(running)
    assert (action[:2] == 1).all() and 0 < (action[2:][running[2:]] == 0).mean() < 1
    for lane in range(64):
        togo = 0.0
        for t in reversed(range(6)):
            togo = float(reward[t, lane]) + 0.5 * togo if running[t, lane] else 0.0
            assert float(kept.togo[t, lane]) == togo
    # The corridor pays once, at its end, which ends the episode.
    assert ((reward * running).sum(axis=0) == ~running.all(axis=0) | (reward[-1] * running[-1] > 0)).all()


def test_the_replay_keeps_the_latest_steps_that_are_kept():
    def rows(*numbers):
        x = jnp.array(numbers, jnp.float32)[:, None]
        return _Kept(x, x.astype(jnp.int32), x, x, x > 100, x)

    replay = jax.tree.map(lambda x: jnp.zeros((3, *x.shape[2:]), x.dtype), rows(0))
    replay, size = _store(replay, jnp.int32(0), rows(1, 2, 3), jnp.array([[True], [False], [True]]))
    assert replay.action.tolist() == [1, 3, 0] and int(size) == 2
    replay, size = _store(replay, size, rows(4, 5), jnp.ones((2, 1), bool))
    assert replay.action.tolist() == [5, 3, 4] and replay.togo.tolist() == [5.0, 3.0, 4.0] and int(size) == 4


def test_targets_are_returns_to_go_then_the_head_before():
    one = lock()
    environment, settings = tabular_environment(one), settings_for(one, 2, discount=0.5)
    key = jax.random.key(0)
    state, seen = environment.reset(key)
    out = environment.step(state, jnp.int32(1), key)
    params = settings.network.init(jax.random.key(5), seen)
    row = _Kept(seen, jnp.int32(1), jnp.float32(0.25), out.observation, jnp.array(False), jnp.float32(3.0))
    batch = jax.tree.map(lambda x: x[None], row)
    now = np.asarray(settings.heads(environment, params, seen))
    after = np.asarray(settings.heads(environment, params, out.observation))
    found = settings.loss(params, environment, batch)
    expected = [(now[0, 1] - 3.0) ** 2, (now[1, 1] - (0.25 + 0.5 * after[0].max())) ** 2]
    # A few float32 roundings of numbers below 10.
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    ended = settings.loss(params, environment, batch._replace(terminal=jnp.array([True])))
    np.testing.assert_allclose(ended[1], (now[1, 1] - 0.25) ** 2, rtol=1e-5)
    # Targets are not learned from: without the network's own row the gradient vanishes where the target is met.
    met = batch._replace(reward=jnp.asarray(now[1:, 1] - 0.5 * after[0].max()), togo=jnp.asarray(now[:1, 1]))
    slope = jax.grad(lambda p: jnp.sum(settings.loss(p, environment, met)))(params)
    assert max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(slope)) < 1e-5


def test_it_stops_where_nothing_random_is_left():
    # The policy ends every episode at step 0, so that after the first iterations no step is random.
    one = lock(length=2)
    long = dataclasses.replace(one, problem=dataclasses.replace(one.problem, horizon=40), length=jnp.int32(40))
    settings = settings_for(long, 1, episodes=16, learning_rate=1e-2, epochs=20)
    learned = deep_sqirl(tabular_environment(long), settings, jax.random.key(1), steps=40)
    assert 11 < int(learned.iterations) < 40


def test_equal_keys_give_equal_bits_and_sticky_problems_run():
    one = episodic(sticky(make("corridor", length=4, horizon=8), 0.25))
    settings = settings_for(one, 1, episodes=8, learning_rate=1e-2)
    run = lambda seed: deep_sqirl(tabular_environment(one), settings, jax.random.key(seed), steps=8)  # noqa: E731
    first, again, other = run(0), run(0), run(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(other.params), strict=True)
    )
    assert float(earned(one, settings, first)) > 0.9


def test_bad_input():
    one = lock()
    good, key = settings_for(one, 2), jax.random.key(0)
    for name in ("episodes", "epochs", "batch", "capacity"):
        with pytest.raises(ValueError, match=f"{name}: found 0, expected at least 1"):
            deep_sqirl(tabular_environment(one), dataclasses.replace(good, **{name: 0}), key, steps=2)
    wrong = dataclasses.replace(good, depth=3)
    with pytest.raises(ValueError, match="network: found 4 outputs, expected depth times the environment's actions, 6"):
        deep_sqirl(tabular_environment(one), wrong, key, steps=2)
