"""The law of random MDPs, and that a batch is one vmap."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.garnet import _simplex, garnet

# The seeds are fixed, so these tests do not flake; the bounds are those of a test at level about 1e-6.
SIGMAS = 5.0


@pytest.fixture(scope="module")
def batch():
    """4000 garnets with 5 states, 1 action, 3 successors: 20 000 independent draws of successors."""
    draw = jax.jit(jax.vmap(lambda seed: garnet(seed, 5, 1, 3, termination=0.3, outcome_rewards=True)))
    many = draw(jnp.arange(4000))
    fields = ("next_state", "prob", "reward", "terminal")
    return types.SimpleNamespace(**{field: np.asarray(getattr(many, field)) for field in fields})


def within(count, n, p):
    return abs(count - n * p) <= SIGMAS * np.sqrt(n * p * (1 - p))


def test_successors_are_a_uniform_subset(batch):
    rows = np.sort(batch.next_state.reshape(-1, 3), axis=1)
    assert (np.diff(rows, axis=1) > 0).all() and rows.min() == 0 and rows.max() == 4
    subsets, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(subsets) == 10
    assert all(within(count, len(rows), 1 / 10) for count in counts)


def test_probabilities_are_uniform_on_the_simplex(batch):
    prob = batch.prob.reshape(-1, 3)
    assert (prob > 0).all()
    np.testing.assert_allclose(prob.sum(-1), 1, rtol=0, atol=3 * np.finfo(float).eps)
    # P(p_1 > x) = (1 - x)^2 on the simplex with three corners
    for x in (0.1, 0.3, 0.5, 0.8):
        for slot in range(3):
            assert within(np.sum(prob[:, slot] > x), len(prob), (1 - x) ** 2)
    # and the probability does not lean on the number of the successor
    assert within(np.sum(prob[batch.next_state.reshape(-1, 3) == 4] > 0.5), np.sum(batch.next_state == 4), 0.25)


def test_a_uniform_number_that_is_zero_gives_a_law_still():
    # in float32 one number in 2^23 is 0; with one successor per pair its row would be 0 / 0
    zero = jnp.zeros((1, 1), jnp.float32)
    np.testing.assert_array_equal(_simplex(zero), [[1.0]])
    np.testing.assert_array_equal(_simplex(jnp.zeros((1, 2), jnp.float32)), [[0.5, 0.5]])
    assert _simplex(jnp.array([[0.0, 0.5]], jnp.float32))[0, 1] == 1


def test_rewards_and_endings(batch):
    rewards = batch.reward.reshape(-1)
    assert rewards.min() >= 0 and rewards.max() < 1
    assert all(within(np.sum(rewards < x), rewards.size, x) for x in (0.1, 0.5, 0.9))
    assert within(batch.terminal.sum(), batch.terminal.size, 0.3)
    plain = garnet(0, 4, 3, 2)
    np.testing.assert_array_equal(plain.reward[..., 0], plain.reward[..., 1])
    assert not plain.terminal.any() and plain.horizon is None


def test_all_states_as_successors_and_one_state():
    np.testing.assert_array_equal(np.sort(garnet(3, 6, 2, 6).next_state, axis=-1)[1, 1], np.arange(6))
    assert (garnet(3, 1, 2, 1).prob == 1).all()


def test_a_batch_is_a_loop_and_seeds_are_keys():
    make = lambda seed, discount: garnet(seed, 6, 2, 3, discount=discount, horizon=7)  # noqa: E731
    seeds, discounts = jnp.arange(4), jnp.linspace(0.5, 0.99, 4)
    many = jax.vmap(make)(seeds, discounts)
    keys = jax.vmap(make)(jax.vmap(jax.random.key)(seeds), discounts)
    assert many.horizon == 7
    for field in dataclasses.fields(many):
        if field.name == "horizon":
            continue
        rows, by_key = getattr(many, field.name), getattr(keys, field.name)
        np.testing.assert_array_equal(rows, by_key)
        for i in range(4):
            one = getattr(make(i, float(discounts[i])), field.name)
            # a vmapped division may be compiled in another way: one unit in the last place
            np.testing.assert_allclose(rows[i], one, rtol=4 * np.finfo(float).eps, atol=0)
    assert not np.array_equal(many.next_state[0], many.next_state[1])
