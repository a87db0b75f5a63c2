"""Distances between laws against scipy, couplings of equal weights, and the properties of a metric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlcore.distributional import Law, cramer, quantile_law, wasserstein
from tests.rlcore.distributional.test_laws import LAWS, ROUNDING, random_laws

OTHERS = random_laws(2)


def test_distances_agree_with_scipy():
    w1 = jax.jit(jax.vmap(wasserstein))(LAWS, OTHERS)
    close = jax.jit(jax.vmap(lambda a, b: wasserstein(a, b, 1.0000001)))(LAWS, OTHERS)
    l2 = jax.jit(jax.vmap(cramer))(LAWS, OTHERS)
    for i in range(200):
        a, b = ([np.asarray(x[i])[np.asarray(law.probs[i]) > 0] for x in law] for law in (LAWS, OTHERS))
        assert abs(float(w1[i]) - stats.wasserstein_distance(a[0], b[0], a[1], b[1])) < ROUNDING
        # scipy's energy distance is sqrt(2) times Cramer's; a root loses half the digits near 0
        assert abs(float(l2[i]) - stats.energy_distance(a[0], b[0], a[1], b[1]) / np.sqrt(2)) < 1e-7
    # the general branch is continuous in the order: (order - 1) times the largest log of a distance
    np.testing.assert_allclose(close, w1, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3.5, jnp.inf])
def test_equally_many_equal_atoms_are_matched_in_order(order):
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 50, 7))
    found = jax.vmap(lambda a, b: wasserstein(quantile_law(a), quantile_law(b), order))(
        *map(jnp.asarray, (first, second))
    )
    gap = np.abs(np.sort(first) - np.sort(second))
    expected = gap.max(axis=1) if order == jnp.inf else np.mean(gap**order, axis=1) ** (1 / order)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


@pytest.mark.parametrize("order", [1, 2, jnp.inf])
def test_translation_scale_and_triangle(order):
    distance = jax.jit(jax.vmap(lambda a, b: wasserstein(a, b, order)))
    third = random_laws(4)
    move = lambda law: Law(0.5 * law.values + 3.0, law.probs)  # noqa: E731
    base = distance(LAWS, OTHERS)
    # atoms closer than rounding may change places in the order: what they cost is their distance times their weight
    np.testing.assert_allclose(distance(move(LAWS), move(OTHERS)), 0.5 * base, atol=1e-7)
    np.testing.assert_allclose(distance(OTHERS, LAWS), base, atol=1e-7)
    assert np.all(base <= distance(LAWS, third) + distance(third, OTHERS) + 1e-7)
    np.testing.assert_allclose(distance(LAWS, LAWS), 0, atol=1e-7)


def test_an_order_below_one_is_refused():
    law = Law(jnp.zeros(1), jnp.ones(1))
    for order in (0.5, float("nan")):
        with pytest.raises(ValueError, match="order: found"):
            wasserstein(law, law, order)


def test_weights_that_are_no_law_are_named():
    law, short = (Law(jnp.arange(2.0), jnp.array([0.5, p])) for p in (0.5, 0.2))
    for distance in (wasserstein, cramer):
        with pytest.raises(ValueError, match=r"first: found weights that sum to 0\.7, expected 1"):
            distance(short, law)
        with pytest.raises(ValueError, match="second: found weights that sum to nan"):
            distance(law, Law(law.values, law.probs * jnp.nan))
        # a law pushed through thousands of rounded steps is one
        assert float(distance(Law(law.values, law.probs * (1 + 1e-12)), law)) < 1e-11
