"""PPO: its parts against loops by hand, games whose answer is known, equal runs from equal keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nn.perceptron import ActorCritic
from rlcore.nn.ppo import PPO, advantages, shuffled
from rlcore.solver import iterate
from tests.rlcore.nn import probes

# A higher rate than the default: a probe is learnt in 60 iterations of 64 steps.
PROBE = PPO(ActorCritic(1, (3,), hidden=(16,)), learning_rate=1e-2, num_envs=4, num_steps=16, batch=32, discount=0.9)


def trained(environment, agent=PROBE, iterations=60, seed=0):
    actions = environment.num_actions
    agent = dataclasses.replace(agent, network=ActorCritic(actions, (3,), hidden=(16,)))
    state, _ = iterate(agent, environment, iterations, key=jax.random.key(seed))
    value = lambda s: float(agent.value(state.params, probes.seen(s)))  # noqa: E731
    policy = lambda s: np.asarray(jax.nn.softmax(agent.logits(environment, state.params, probes.seen(s))))  # noqa: E731
    return value, policy


# ---- games whose answer is known: learnt values are within 0.1 of it, and wrong ones would be 0.2 or more away ----


def test_a_constant_reward_is_the_value():
    assert trained(probes.constant())[0](0) == pytest.approx(1, abs=0.1)


def test_values_depend_on_the_observation():
    value, _ = trained(probes.by_observation())
    assert value(0) == pytest.approx(-1, abs=0.1) and value(1) == pytest.approx(1, abs=0.1)


def test_values_are_discounted_over_two_steps():
    value, _ = trained(probes.two_steps(), dataclasses.replace(PROBE, discount=0.5))
    assert value(1) == pytest.approx(1, abs=0.1) and value(0) == pytest.approx(0.5, abs=0.1)


def test_the_better_action_is_taken():
    assert trained(probes.by_action())[1](0)[1] > 0.95


def test_an_action_that_is_not_available_is_never_taken():
    policy = trained(probes.masked_best())[1](0)
    assert policy[2] == 0 and policy[1] > 0.95


def test_a_limit_is_bootstrapped_and_an_end_is_not():
    # truncated at every step: V = 1 + V / 2 = 2; terminal: V = 1
    agent = dataclasses.replace(PROBE, discount=0.5)
    assert trained(probes.cut(True), agent)[0](0) == pytest.approx(2, abs=0.15)
    assert trained(probes.cut(False), agent)[0](0) == pytest.approx(1, abs=0.1)


# ---- parts ----


def test_advantages_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    shape = (20, 3)
    reward, value, after = rng.normal(size=(3, *shape))
    terminal = rng.random(shape) < 0.2
    over = terminal | (rng.random(shape) < 0.2)
    expected = np.zeros(shape)
    for n in range(3):
        for t in range(20):
            weight = 1.0
            for u in range(t, 20):
                error = reward[u, n] + 0.9 * (0 if terminal[u, n] else after[u, n]) - value[u, n]
                expected[t, n] += weight * error
                weight *= 0.9 * 0.8
                if over[u, n]:
                    break
    found = advantages(*map(jnp.asarray, (reward, value, after, terminal, over)), 0.9, 0.8)
    # at most twenty terms of order one
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_the_one_by_hand(seed):
    environment = probes.by_action()
    agent = PPO(ActorCritic(2, (3,), hidden=(8,), dtype=jnp.float64), clip=0.1, batch=6)
    params = agent.network.init(jax.random.key(seed), probes.seen(0))
    rng = np.random.default_rng(seed)
    state, action = rng.integers(0, 3, 6), rng.integers(0, 2, 6)
    log_prob, advantage, target = np.log(rng.uniform(0.3, 0.7, 6)), rng.normal(size=6), rng.normal(size=6)
    observation = (jnp.asarray(state, jnp.int32), jnp.zeros((6, 1)))
    found = agent.loss(
        params, environment, observation, jnp.asarray(action), *map(jnp.asarray, (log_prob, advantage, target))
    )
    logits = np.array([agent.logits(environment, params, probes.seen(s)) for s in state])
    value = np.array([agent.value(params, probes.seen(s)) for s in state])
    prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ratio = prob[np.arange(6), action] / np.exp(log_prob)
    normal = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    gain = np.minimum(ratio * normal, np.clip(ratio, 0.9, 1.1) * normal)
    assert (ratio != np.clip(ratio, 0.9, 1.1)).any()
    entropy = -(prob * np.log(prob)).sum(1)
    expected = -gain.mean() + 0.5 * ((value - target) ** 2).mean() - 0.01 * entropy.mean()
    # a few dozen operations on numbers of order one
    assert float(found) == pytest.approx(expected, abs=1e-13)


def test_settings_are_those_of_the_specification():
    agent = PPO(ActorCritic(2))
    assert (agent.num_envs, agent.num_steps, agent.epochs, agent.batch) == (8, 128, 4, 256)
    numbers = (agent.learning_rate, agent.clip, agent.trace, agent.value_weight, agent.entropy_weight)
    assert numbers == (2.5e-4, 0.1, 0.95, 0.5, 0.01)
    assert (agent.max_norm, agent.adam_epsilon, agent.discount) == (0.5, 1e-5, 1.0)


def test_equal_keys_give_equal_bits_and_a_batch_gives_the_single_runs():
    environment = probes.by_observation()
    rates = jnp.array([1e-2, 1e-3])
    keys = jax.random.split(jax.random.key(3), 2)

    def run(rate, key):
        return iterate(dataclasses.replace(PROBE, learning_rate=rate), environment, 3, key=key)[0].params

    single = [run(rate, key) for rate, key in zip(rates, keys, strict=True)]
    again = run(rates[0], keys[0])
    jax.tree.map(np.testing.assert_array_equal, single[0], again)
    together = jax.vmap(run)(rates, keys)
    for i, one in enumerate(single):
        # 24 steps of Adam of at most 1e-2: rounding of single precision, and what Adam makes of it, stay below 1e-4
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-4), together, one)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), *single)
    assert max(jax.tree.leaves(moved)) > 1e-2


def test_bad_input():
    with pytest.raises(ValueError, match="network: found 1 actions, expected the environment's 2"):
        PROBE.init(probes.by_action(), jax.random.key(0))
    with pytest.raises(ValueError, match="batch: found 48, expected a divisor of num_envs num_steps = 64"):
        dataclasses.replace(PROBE, batch=48).init(probes.constant(), jax.random.key(0))


@pytest.mark.parametrize("size", [1, 2, 5, 1024, 5000])
def test_shuffled_is_a_permutation_of_its_key(size):
    first, again, other = (np.asarray(shuffled(jax.random.key(s), size)) for s in (0, 0, 1))
    assert sorted(first) == list(range(size)) and (first == again).all()
    assert size < 1000 or (first != other).mean() > 0.99


def test_every_order_is_as_likely():
    orders = np.asarray(jax.vmap(lambda key: shuffled(key, 3))(jax.random.split(jax.random.key(2), 6000)))
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    # Six orders, 1000 expected of each; standard deviation sqrt(6000 / 6 * 5 / 6) = 29; five of them.
    assert len(counts) == 6 and (abs(counts - 1000) < 145).all()
    with pytest.raises(ValueError, match="size: found 0, expected at least 1"):
        shuffled(jax.random.key(0), 0)
