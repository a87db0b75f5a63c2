"""The American put: its lattice against hand values, ties, hat features, data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.put_option import FAMILIES, hat_features, lattice, lattice_prices, payoff, sample_prices
from rlcore.planning import backward_induction
from rlcore.robust import act, r2pvi

START = 99.17022
PROBABILITIES = (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


@functools.cache
def learned():
    """Exact values at every probability: of the policy optimal at 1/2 under both tie rules, and the optimum."""
    half = backward_induction(lattice(0.5, START))
    gap = half.q[:, :, 1] - half.q[:, :, 0]
    exercise, hold = (jnp.where(gap > x, 1, 0).astype(jnp.int32) for x in (-1e-9, 1e-9))

    @jax.jit
    def at(p):
        problem = lattice(p, START)
        return [backward_induction(problem, policy).value[0, 0] for policy in (exercise, hold, "max")]

    return np.array([at(p) for p in PROBABILITIES]).T


def test_the_lattice_has_its_known_values():
    exercise, hold, optimum = learned()
    # printed to three decimals; the policy that is optimal at 1/2 is not unique: ties, and rounding, decide elsewhere
    np.testing.assert_allclose(exercise, [14.805, 7.829, 3.905, 1.233, 0.008, 0], rtol=0, atol=5e-4)
    np.testing.assert_allclose(hold, [21.160, 8.833, 3.905, 1.106, 0.006, 0], rtol=0, atol=5e-4)
    assert np.all(optimum >= np.maximum(exercise, hold) - 1e-12)
    np.testing.assert_allclose(optimum[-1], 100 - START, rtol=0, atol=1e-12)  # sure to rise: exercise at once
    np.testing.assert_allclose(optimum[3], 1.926, rtol=0, atol=5e-4)


def test_a_one_step_put_by_hand():
    for horizon, expected in ((1, 5.0), (2, 5.0)):
        model = lattice(0.5, 95.0, horizon=horizon)
        np.testing.assert_allclose(backward_induction(model).value[0, 0], expected, rtol=0, atol=1e-13)
    # at 101 one cannot gain now; down with probability .4 to 98.98, and exercise there
    model = lattice(0.6, 101.0, horizon=2)
    np.testing.assert_allclose(backward_induction(model).value[0, 0], 0.4 * (100 - 101 * 0.98), rtol=0, atol=1e-12)
    sure = lattice(0.0, 100.0, horizon=3)
    np.testing.assert_allclose(backward_induction(sure).value[0, 0], 100 - 100 * 0.98**2, rtol=0, atol=1e-12)


def test_prices_and_payoffs():
    prices = lattice_prices(100.0, 3)
    np.testing.assert_allclose(prices[2, :3], [100 * 0.98**2, 100 * 0.98 * 1.02, 100 * 1.02**2], rtol=1e-15)
    np.testing.assert_array_equal(payoff(jnp.array([90.0, 110.0])), [10.0, 0.0])
    assert set(FAMILIES) == {"lattice"}


def test_hat_features_interpolate_and_cover():
    inside = jnp.linspace(80.0, 176.0, 50)
    released, covered = hat_features(), hat_features(low=60.0, high=160.0, outside=True)
    at = released.at(inside)
    assert at.shape == (50, 2, 30) and jnp.all(at[:, 1] == 0)
    np.testing.assert_allclose(jnp.sum(at[:, 0], axis=1), 1, rtol=0, atol=1e-13)  # prices of 100, width 3.3
    anchors = 80 + 100 / 30 * np.arange(30)
    np.testing.assert_allclose(at[:, 0] @ anchors, inside, rtol=1e-14)  # linear functions are reproduced
    assert jnp.all(released.at(jnp.array([70.0]))[0, 0] == 0)
    wild = covered.at(jnp.array([20.0, 61.0, 100.0, 300.0]))
    assert wild.shape == (4, 2, 31)
    np.testing.assert_allclose(jnp.sum(wild[:, 0], axis=1), 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(wild[jnp.array([0, 3]), 0, 30], 1, rtol=0, atol=0)


def test_trajectories_move_by_the_factors():
    data = sample_prices(jax.random.key(0), 400, 0.3, START)
    ratio = data.states[:, 1:] / data.states[:, :-1]
    up = jnp.abs(ratio - 1.02) < 1e-12
    assert jnp.all(up | (jnp.abs(ratio - 0.98) < 1e-12)) and jnp.all(data.states[:, 0] == START)
    assert abs(jnp.mean(jnp.where(up, 1.0, 0.0)) - 0.3) < 5 * (0.21 / 8000) ** 0.5  # five standard errors
    assert jnp.all(data.actions == 0) and jnp.all(data.rewards == 0)


def test_a_learner_exercises_where_holding_is_worth_less():
    data = sample_prices(jax.random.key(1), 100, 0.5, START)
    features = hat_features()
    learn = jax.jit(lambda data: r2pvi(data, features, None, "tv", 1.0, 0.1, 1.0, released_code=True))
    found = learn(data)
    assert found.policy is None and jnp.all(jnp.isfinite(found.weights))
    # deep in the money at the last step holding pays nothing; out of the money exercising pays nothing
    np.testing.assert_array_equal(act(found, features, 19, jnp.array([80.0, 99.0])), [1, 1])
    deep = act(found, features, 5, jnp.array([85.0, 120.0]))
    assert deep[0] == 1 and deep[1] == 0


def test_bad_input():
    for arguments, message in [
        ((1.5,), r"up_probability: found 1\.5"),
        ((0.5, -1.0), "initial_price: found -1.0, expected a finite number above 0"),
        ((0.5, 100.0, np.inf), "strike: found inf"),
        ((0.5, 100.0, 100.0, 0), "horizon: found 0, expected an integer of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            lattice(*arguments)
    for arguments, message in [
        ((0,), "num_trajectories: found 0, expected an integer of at least 1"),
        ((5, -0.1), r"up_probability: found -0\.1"),
        ((5, 0.5, np.nan), "initial_price: found nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample_prices(jax.random.key(0), *arguments)
    with pytest.raises(ValueError, match=r"num_features, low, high: found 1, 80\.0, 180\.0"):
        hat_features(1)
