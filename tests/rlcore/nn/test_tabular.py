"""Tabular problems for deep agents: exact returns, what is observed, scales, and curves of one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.chains import combination_lock, corridor
from rlcore.episodic import episodic, policy_return, stacked
from rlcore.mdp import sticky
from rlcore.nn.learning_curve import learning_curve
from rlcore.nn.perceptron import ActorCritic
from rlcore.nn.ppo import PPO
from rlcore.nn.tabular import category_sizes, greedy_return, reward_scale, tabular_environment

PROBLEMS = [sticky(corridor(4, 8), 0.25), combination_lock(3, 4, 0.5)]


@pytest.mark.parametrize("mode", ["markov", "official"])
def test_the_greedy_return_is_that_of_the_table(mode):
    stack = stacked(PROBLEMS)
    states, actions = category_sizes(stack)
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.integers(0, 2, (9, states, actions)), jnp.int32)

    def act(observation, length):
        categories, share = observation
        t = jnp.round(share[0] * length.astype(share.dtype)).astype(jnp.int32)
        return table[t, categories[0], categories[1] if mode == "markov" else 0]

    whole = table[:8] if mode == "markov" else jnp.broadcast_to(table[:8, :, :1], (8, states, actions))

    def both(one):
        found = greedy_return(one, lambda seen: act(seen, one.length), observation=mode)
        return found, policy_return(one, whole.reshape(8, -1))

    found, expected = jax.vmap(both)(stack)
    # eight steps of values of at most one
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert (np.asarray(found) > 0).any()


def test_what_is_observed():
    one = episodic(PROBLEMS[0])
    world = tabular_environment(one, scale=0.5)
    state, seen = world.reset(jax.random.key(0))
    assert jax.tree.map(lambda x: x.tolist(), seen) == ((0, 0), [0.0])
    rewards = []
    for t in range(8):
        out = world.step(state, jnp.int32(1), jax.random.key(t))
        state, seen = out.state, out.observation
        rewards.append(float(out.reward))
        if bool(out.terminal):
            break
        # right is chosen and executed every time: the first step is never sticky
        assert jax.tree.map(lambda x: x.tolist(), seen) == ((t + 1, 1), [(t + 1) / 8])
    assert rewards == [0, 0, 0, 0.5] and not bool(out.truncated) and float(seen[1][0]) == 1
    assert world.available(seen).tolist() == [True, True]
    official = tabular_environment(one, observation="official")
    assert jax.tree.map(lambda x: x.tolist(), official.reset(jax.random.key(0))[1]) == ((0,), [0.0])
    assert category_sizes(one) == (4, 2) and category_sizes(one, "official") == (4,)
    assert category_sizes(episodic(PROBLEMS[1])) == (3,)


def test_reward_scale():
    found = [float(reward_scale(jnp.asarray(a), jnp.asarray(b))) for a, b in ((2.0, 1.0), (-1.0, -4.0), (0.0, 0.0))]
    assert found == [0.5, 0.25, 1.0]


def test_a_stack_is_learnt_in_one_program():
    stack = stacked(PROBLEMS)
    agent = PPO(
        ActorCritic(4, category_sizes(stack), hidden=(16,)), learning_rate=1e-2, num_envs=4, num_steps=16, batch=32
    )
    keys = jax.random.split(jax.random.key(0), 2)
    iterations = np.array([0, 10, 60])
    run = jax.jit(
        lambda one, rate, key: learning_curve(dataclasses.replace(agent, learning_rate=rate), one, key, iterations)
    )
    curve = jax.vmap(run)(stack, jnp.array([1e-2, 2e-2]), keys)
    assert curve.steps[0].tolist() == [0, 640, 3840]
    # exact optima and random returns: the corridor of 4 cells in 8 steps, the lock's optimum is not sticky
    assert float(curve.optimal[1]) == 1 and float(curve.random[1]) == pytest.approx(0.140625, abs=1e-15)
    np.testing.assert_allclose(curve.target, curve.random + 0.95 * (curve.optimal - curve.random), rtol=1e-15)
    assert float(curve.final[0]) >= float(curve.target[0]) and np.isfinite(curve.first_success[0])
    for i in range(2):
        reached = np.asarray(curve.returns[i] >= curve.target[i])
        first = float(curve.steps[i][reached.argmax()]) if reached.any() else np.inf
        assert float(curve.first_success[i]) == first and float(curve.final[i]) == float(curve.returns[i, -1])
    assert (np.asarray(curve.returns) <= np.asarray(curve.optimal)[:, None] + 1e-14).all()


def test_bad_input():
    with pytest.raises(ValueError, match="observation: found 'all', expected 'markov' or 'official'"):
        tabular_environment(episodic(PROBLEMS[0]), observation="all")
