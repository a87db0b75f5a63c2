"""Functionals against scipy and direct searches, on 200 random laws; how they move with shifts and scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlcore.distributional import (
    Law,
    almost_surely_nonnegative,
    cvar,
    entropic,
    essential_infimum,
    expected_utility,
    expectile,
    mean,
    optimistic_cvar,
    spectral,
    two_slope,
    value_at_risk,
    variance,
)
from rlcore.distributional.functionals import orders_alike, shifts_alike
from tests.rlcore.distributional.test_laws import LAWS, ROUNDING

LEVELS = jnp.asarray(np.random.default_rng(2).uniform(0.05, 0.95, 200))
VALUES, PROBS = np.asarray(LAWS.values), np.asarray(LAWS.probs)


def every(functional):
    return np.asarray(jax.jit(jax.vmap(functional))(LAWS))


def at_levels(functional, laws=LAWS):
    return np.asarray(jax.jit(jax.vmap(functional))(laws, LEVELS))


def test_cvar_is_the_best_cut_of_rockafellar_and_uryasev():
    cuts = (
        VALUES[:, :, None]
        - np.maximum(VALUES[:, :, None] - VALUES[:, None], 0) @ PROBS[:, :, None] / LEVELS[:, None, None]
    )
    np.testing.assert_allclose(at_levels(cvar), np.max(cuts[..., 0], axis=1), atol=20 * ROUNDING)


def test_optimistic_cvar_and_cvar_share_the_mean():
    best, worst = at_levels(optimistic_cvar), at_levels(lambda law, level: cvar(law, 1 - level))
    np.testing.assert_allclose(LEVELS * best + (1 - LEVELS) * worst, every(mean), atol=ROUNDING)
    np.testing.assert_allclose(every(functools.partial(cvar, level=1.0)), every(mean), atol=ROUNDING)


def test_cvar_of_a_level_that_is_no_whole_number_of_atoms():
    law = Law(jnp.array([3.0, 0.0, 1.0, 2.0]), jnp.full(4, 0.25))
    # (0 * .25 + 1 * .05) / .3
    assert float(cvar(law, 0.3)) == pytest.approx(0.05 / 0.3, abs=1e-15)
    assert float(cvar(law, 0.1)) == 0.0


def test_expectiles_agree_with_scipy_and_solve_their_equation():
    found = at_levels(expectile)
    # scipy brackets the root and stops near 1e-12 of its values
    for i in range(200):
        kept = PROBS[i] > 0
        expected = stats.expectile(VALUES[i][kept], float(LEVELS[i]), weights=PROBS[i][kept])
        assert abs(found[i] - expected) < 1e-9
    excess = jax.vmap(lambda law, e, q: expected_utility(Law(law.values - e, law.probs), two_slope(q, 1 - q)))
    np.testing.assert_allclose(excess(LAWS, jnp.asarray(found), LEVELS), 0, atol=ROUNDING)
    np.testing.assert_allclose(every(functools.partial(expectile, level=0.5)), every(mean), atol=ROUNDING)


def test_value_at_risk_is_the_largest_value_reached_surely_enough():
    found = at_levels(value_at_risk)
    reach = np.sum(PROBS[:, None] * (VALUES[:, None] >= VALUES[:, :, None]), axis=-1)
    enough = (reach >= 1 - np.asarray(LEVELS)[:, None] - 1e-12) & (PROBS > 0)
    np.testing.assert_array_equal(found, np.max(np.where(enough, VALUES, -np.inf), axis=1))
    np.testing.assert_array_equal(every(functools.partial(value_at_risk, level=0.0)), every(essential_infimum))


def test_a_spectral_risk_is_its_sum_of_tails():
    levels, weights = jnp.array([0.1, 0.5, 1.0]), jnp.array([0.2, 0.5, 0.3])
    parts = [float(w) * every(functools.partial(cvar, level=t)) for w, t in zip(weights, levels, strict=True)]
    np.testing.assert_allclose(
        every(functools.partial(spectral, levels=levels, weights=weights)), sum(parts), atol=ROUNDING
    )


def test_moments_entropic_risk_and_infimum_against_their_definitions():
    first = np.sum(PROBS * VALUES, axis=1)
    np.testing.assert_allclose(every(mean), first, atol=ROUNDING)
    np.testing.assert_allclose(every(variance), np.sum(PROBS * VALUES**2, axis=1) - first**2, atol=20 * ROUNDING)
    for beta in (-2.0, 0.5):
        expected = np.log(np.sum(PROBS * np.exp(beta * VALUES), axis=1)) / beta
        np.testing.assert_allclose(every(functools.partial(entropic, beta=beta)), expected, atol=ROUNDING)
    # no overflow: the answer is the largest value up to log(probability) / beta
    far = entropic(Law(jnp.array([0.0, 1e6]), jnp.array([0.5, 0.5])), 1.0)
    assert float(far) == pytest.approx(1e6 - np.log(2), rel=1e-15)
    infimum = np.min(np.where(PROBS > 0, VALUES, np.inf), axis=1)
    np.testing.assert_array_equal(every(essential_infimum), infimum)
    np.testing.assert_array_equal(every(almost_surely_nonnegative), infimum >= 0)


CASES = {
    "mean": mean,
    "cvar": functools.partial(cvar, level=0.3),
    "optimistic_cvar": functools.partial(optimistic_cvar, level=0.3),
    "value_at_risk": functools.partial(value_at_risk, level=0.3),
    "expectile": functools.partial(expectile, level=0.2),
    "essential_infimum": essential_infimum,
    "spectral": functools.partial(spectral, levels=jnp.array([0.2, 0.7]), weights=jnp.array([0.5, 0.5])),
    "variance": variance,
    "almost_surely_nonnegative": almost_surely_nonnegative,
    "entropic": functools.partial(entropic, beta=-0.5),
}


@pytest.mark.parametrize("name", CASES)
def test_which_functionals_order_laws_alike_at_every_scale_and_after_every_shift(name):
    functional = CASES[name]
    ranks = every(functional)
    scaled = every(lambda law: functional(Law(0.25 * law.values, law.probs)))
    gap, after = (x[:, None] - x[None] for x in (ranks, scaled))
    # an order that is clear at one scale, by more than rounding, is not reversed or lost at the other
    kept = np.all(after[gap > 1e-9] > 0)
    assert kept == orders_alike(functional) == (name != "entropic")
    shifted = every(lambda law: functional(Law(law.values - 1.5, law.probs)))
    kept = np.all((shifted[:, None] - shifted[None])[gap > 1e-9] > 0)
    assert kept == shifts_alike(functional) == (name != "almost_surely_nonnegative")


def test_an_unknown_function_is_not_taken_to_order_laws_alike():
    assert not orders_alike(lambda law: mean(law)) and not shifts_alike(lambda law: mean(law))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda law: cvar(law, 0.0), r"level: found 0.0, expected a number in \(0, 1\]"),
        (lambda law: cvar(law, 1.5), r"level: found 1.5, expected a number in \(0, 1\]"),
        (lambda law: optimistic_cvar(law, jnp.nan), "level: found nan"),
        (lambda law: value_at_risk(law, 1.0), r"level: found 1.0, expected a number in \[0, 1\)"),
        (lambda law: expectile(law, 1.0), r"level: found 1.0, expected a number in \(0, 1\)"),
        (lambda law: spectral(law, jnp.array([0.5, 1.5]), jnp.array([0.5, 0.5])), "levels: found"),
        (lambda law: spectral(law, jnp.array([0.5, 1.0]), jnp.array([0.5, 0.6])), "weights: found"),
        (lambda law: entropic(law, 0.0), "beta: found 0.0"),
    ],
)
def test_parameters_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Law(jnp.arange(2.0), jnp.full(2, 0.5)))
