"""Tabular problems for deep agents: exact returns, what is observed, scales, and curves of one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.chains import combination_lock, corridor
from rlcore.episodic import episodic, episodic_values, policy_return, stacked
from rlcore.mdp import greedy_policy, sticky, uniform_policy
from rlcore.nn.cloning import behaviour_cloning
from rlcore.nn.dqn import DQN
from rlcore.nn.learning_curve import learning_curve
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.nn.tabular import (
    category_sizes,
    greedy_return,
    observations,
    reward_scale,
    sampled_return,
    tabular_environment,
)
from rlcore.sqirl import exploration_occupancy

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


def test_the_sampled_return_is_that_of_the_probabilities():
    one = episodic(PROBLEMS[0])
    rows = one.problem.available.shape[0]
    prob = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(2), (9, rows)))

    def at(seen):
        (state, before), share = seen
        t = jnp.round(share[0] * one.length.astype(share.dtype)).astype(jnp.int32)
        # Not normalised: only proportions count.
        return 3 * prob[t, state * 2 + before]

    expected = one.problem.initial @ episodic_values(one, prob[:8]).value[0]
    np.testing.assert_allclose(sampled_return(one, at), expected, rtol=0, atol=1e-14)
    greedy = lambda seen: jax.nn.one_hot(jnp.argmax(at(seen)), 2)  # noqa: E731
    np.testing.assert_allclose(
        sampled_return(one, greedy), greedy_return(one, lambda seen: jnp.argmax(at(seen))), rtol=0, atol=1e-14
    )


def test_rows_show_what_the_simulator_shows():
    one = episodic(PROBLEMS[0])
    (states, before), share = observations(one, jnp.int32(2))
    assert states.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and before.tolist() == [0, 1] * 4
    assert share.tolist() == [[0.25]] * 8
    (states,), _ = observations(episodic(PROBLEMS[1]), jnp.int32(0))
    assert states.tolist() == [0, 1, 2]


def test_a_clone_earns_what_its_model_earns():
    stack = stacked(PROBLEMS)
    network = ActorCritic(4, category_sizes(stack), hidden=(32,))

    def both(one, key):
        best = greedy_policy(episodic_values(one, "max").q, one.problem.available)
        best = jax.nn.one_hot(best, 4, dtype=one.problem.discount.dtype)
        policy = 0.7 * best + 0.3 * uniform_policy(one.problem)[None]
        occupancy = exploration_occupancy(one, policy)
        params = behaviour_cloning(network, one, policy, occupancy, key, updates=3000)
        agent, world = PPO(network), tabular_environment(one)
        prob = lambda seen: jax.nn.softmax(agent.logits(world, params, seen))  # noqa: E731
        return sampled_return(one, prob), one.problem.initial @ episodic_values(one, policy).value[0]

    earned, model = jax.jit(jax.vmap(both))(stack, jax.random.split(jax.random.key(0), 2))
    # The networks have a parameter for almost every row; what is left is how far Adam came.
    np.testing.assert_allclose(earned, model, atol=0.02)


def test_training_starts_from_given_parameters_and_asks_ppo_for_probabilities():
    one = episodic(PROBLEMS[1])
    agent = PPO(ActorCritic(4, (3,), hidden=(8,)), num_envs=2, num_steps=8, batch=8)
    world, at = tabular_environment(one), np.array([0, 1])
    params = agent.network.init(jax.random.key(7), world.reset(jax.random.key(0))[1])
    prob = lambda seen: jax.nn.softmax(agent.logits(world, params, seen))  # noqa: E731
    curve = learning_curve(agent, one, jax.random.key(1), at, params=params, sampled=True)
    np.testing.assert_allclose(curve.returns[0], sampled_return(one, prob), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="sampled: found True with DQN, expected PPO"):
        learning_curve(DQN(Perceptron(4, (3,)), total_steps=8.0), one, jax.random.key(1), at, sampled=True)
