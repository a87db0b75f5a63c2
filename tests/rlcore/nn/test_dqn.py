"""DQN: its parts against numbers by hand, games whose answer is known, equal runs from equal keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nn.dqn import DQN, Transition, huber
from rlcore.nn.perceptron import Perceptron
from rlcore.solver import iterate
from tests.rlcore.nn import probes

# A higher rate and a smaller ring than the defaults: a probe is learnt in 1 000 iterations.
PROBE = DQN(
    Perceptron(1, (3,), hidden=(16,), uniform=True),
    total_steps=4000.0,
    learning_rate=1e-2,
    refresh=40,
    capacity=1000,
    discount=0.5,
)


def trained(environment, iterations=1000):
    agent = dataclasses.replace(PROBE, network=Perceptron(environment.num_actions, (3,), hidden=(16,), uniform=True))
    state, _ = iterate(agent, environment, iterations, key=jax.random.key(0))
    return lambda s: np.asarray(agent.q(environment, state.params, probes.seen(s)))


# ---- games whose answer is known: learnt values are within 0.1 of it, and wrong ones would be 0.2 or more away ----


def test_a_constant_reward_is_the_value():
    assert trained(probes.constant())(0)[0] == pytest.approx(1, abs=0.1)


def test_values_depend_on_the_observation():
    q = trained(probes.by_observation())
    assert q(0)[0] == pytest.approx(-1, abs=0.1) and q(1)[0] == pytest.approx(1, abs=0.1)


def test_values_depend_on_the_action():
    np.testing.assert_allclose(trained(probes.by_action())(0), [-1, 1], rtol=0, atol=0.1)


def test_values_are_discounted_over_two_steps():
    q = trained(probes.two_steps())
    assert q(1)[0] == pytest.approx(1, abs=0.1) and q(0)[0] == pytest.approx(0.5, abs=0.1)


def test_a_limit_is_bootstrapped_and_an_end_is_not():
    # truncated at every step: Q = 1 + Q / 2 = 2; terminal: Q = 1
    assert trained(probes.cut(True))(0)[0] == pytest.approx(2, abs=0.15)
    assert trained(probes.cut(False))(0)[0] == pytest.approx(1, abs=0.1)


def test_an_action_that_is_not_available_is_never_played():
    q = trained(probes.masked_best())(0)
    np.testing.assert_allclose(q[:2], [0, 1], rtol=0, atol=0.1)
    agent = dataclasses.replace(PROBE, network=Perceptron(3, (3,), hidden=(4,), uniform=True))
    state, _ = iterate(agent, probes.masked_best(), 200, key=jax.random.key(1))
    # of 800 actions, nearly all at random, both others occur and the third never
    assert set(np.unique(state.ring.data.action[: int(state.ring.count)])) == {0, 1}


# ---- parts ----


def test_huber():
    found = huber(jnp.array([-3.0, -1.0, 0.5, 2.0]), 1.0)
    np.testing.assert_allclose(found, [2.5, 0.5, 0.125, 1.5])


def test_the_share_of_random_actions():
    agent = DQN(Perceptron(2), total_steps=1000.0, exploration_fraction=0.1)
    found = [float(agent.epsilon(jnp.asarray(n, float))) for n in (0, 50, 100, 900)]
    np.testing.assert_allclose(found, [1, 0.505, 0.01, 0.01])


def test_the_loss_looks_ahead_with_the_target():
    environment = probes.by_action()
    agent = DQN(Perceptron(2, (3,), hidden=(8,), uniform=True, dtype=jnp.float64), total_steps=1.0, discount=0.9)
    params, target = (agent.network.init(jax.random.key(i), probes.seen(0)) for i in range(2))
    state, after = jnp.array([0, 1, 2], jnp.int32), jnp.array([1, 2, 0], jnp.int32)
    numbers, action, reward = jnp.zeros((3, 1)), jnp.array([0, 1, 1], jnp.int32), jnp.array([0.3, -3.0, 1.0])
    terminal = jnp.array([False, False, True])
    found = agent.loss(
        params, environment, target, Transition((state, numbers), action, reward, (after, numbers), terminal)
    )
    expected = 0.0
    for s, a, r, s2, end in zip(state, action, reward, after, terminal, strict=True):
        follow = 0.0 if end else float(max(agent.q(environment, target, probes.seen(s2))))
        error = float(agent.q(environment, params, probes.seen(s))[a]) - (float(r) + 0.9 * follow)
        expected += (error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5) / 3
    # a few dozen operations on numbers of order one
    assert float(found) == pytest.approx(expected, abs=1e-13)


def test_the_target_is_a_copy_of_every_fortieth_step():
    environment = probes.constant()
    same = lambda a, b: all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b)))  # noqa: E731
    start = PROBE.init(environment, jax.random.key(0))
    step = jax.jit(lambda state: PROBE.step(environment, state, jax.random.key(1)))
    state = start
    for _ in range(9):
        state = step(state)
    assert same(state.target, start.params) and not same(state.params, start.params)
    before = state.params
    state = step(state)
    # the tenth iteration ends at step 40: the copy is made before its update
    assert same(state.target, before) and int(state.count) == 10
    assert int(state.ring.count) == 40


def test_settings_are_those_of_the_specification():
    agent = DQN(Perceptron(2), total_steps=1.0)
    assert (agent.capacity, agent.train_every, agent.batch, agent.refresh) == (100_000, 4, 32, 1000)
    numbers = (agent.learning_rate, agent.epsilon_first, agent.epsilon_last, agent.delta)
    assert numbers == (1e-4, 1.0, 0.01, 1.0)
    assert (agent.max_norm, agent.adam_epsilon, agent.discount) == (10.0, 1e-8, 1.0)


def test_equal_keys_give_equal_bits_and_a_batch_gives_the_single_runs():
    environment = probes.by_observation()
    rates = jnp.array([1e-2, 1e-3])
    keys = jax.random.split(jax.random.key(3), 2)

    def run(rate, key):
        return iterate(dataclasses.replace(PROBE, learning_rate=rate), environment, 20, key=key)[0].params

    single = [run(rate, key) for rate, key in zip(rates, keys, strict=True)]
    jax.tree.map(np.testing.assert_array_equal, single[0], run(rates[0], keys[0]))
    together = jax.vmap(run)(rates, keys)
    for i, one in enumerate(single):
        # 20 steps of Adam of at most 1e-2: rounding of single precision, and what Adam makes of it, stay below 1e-4
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-4), together, one)


def test_bad_input():
    with pytest.raises(ValueError, match="network: found 1 outputs, expected the environment's 2"):
        PROBE.init(probes.by_action(), jax.random.key(0))
    with pytest.raises(ValueError, match="rows: found 0, expected at least one"):
        dataclasses.replace(PROBE, capacity=0).init(probes.constant(), jax.random.key(0))
