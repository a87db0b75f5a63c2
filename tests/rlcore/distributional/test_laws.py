"""Lattices, laws and their projections, on 200 random laws with ties, padding and integer-aligned atoms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Law,
    categorical_law,
    check_law,
    from_stop_loss,
    lattice,
    mean,
    merge,
    project_categorical,
    project_quantile,
    quantile_law,
    to_stop_loss,
)
from rlcore.distributional.lattice import place
from rlcore.distributional.laws import interpolate_stop_loss

N = 6
# Sums of some hundred terms of size at most 10: 100 * 10 * 2.2e-16, rounded up.
ROUNDING = 1e-12


def random_laws(seed, count=200):
    """Integer atoms in every second law, normal ones elsewhere; some atoms are padding."""
    rng = np.random.default_rng(seed)
    values = np.where(np.arange(count)[:, None] % 2, rng.integers(-3, 4, (count, N)), rng.normal(size=(count, N)))
    probs = rng.dirichlet(np.ones(N), count) * (np.arange(N) < rng.integers(1, N + 1, (count, 1)))
    return Law(jnp.asarray(values), jnp.asarray(probs / probs.sum(axis=1, keepdims=True)))


LAWS = random_laws(1)
POINTS = lattice(-6, 6, 0.25)


def test_a_lattice_covers_its_ends_and_holds_zero():
    points = lattice(-1.1, 2.0, 0.25)
    np.testing.assert_array_equal(points.points, np.arange(-5, 9) * 0.25)
    assert (float(points.low), float(points.high)) == (-1.25, 2.0)
    assert lattice(3.0, 3.0, 1.0).size == 2
    # 0.3 is 3 spacings of 0.1 up to rounding, and no fourth is needed
    assert lattice(0.0, 0.3, 0.1).size == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0.0, 1.0, 0.0), "spacing: found 0.0"),
        ((0.0, float("nan"), 1.0), "high: found nan"),
        ((2.0, 1.0, 1.0), "low, high: found 2.0 > 1.0"),
        ((0.0, 1.0, 1e-12), "spacing: found .* points"),
    ],
)
def test_lattices_refuse_what_is_none(args, message):
    with pytest.raises(ValueError, match=message):
        lattice(*args)


def test_places_of_points_between_and_outside():
    at = place(lattice(0, 1, 0.1), jnp.array([0.3, 0.35, 1.0, -0.05, 1.2, 0.1 + 0.2]))
    np.testing.assert_array_equal(at.index, [3, 3, 9 - 1 + 1, 0, 9, 3])
    np.testing.assert_allclose(at.weight, [0.0, 0.5, 1.0, 0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_array_equal(at.below, [False, False, False, True, False, False])
    np.testing.assert_array_equal(at.above, [False, False, False, False, True, False])


def test_the_categorical_projection_keeps_mass_and_mean_and_integer_atoms():
    pmf = jax.vmap(lambda law: project_categorical(law, POINTS))(LAWS)
    np.testing.assert_allclose(pmf.sum(axis=1), 1, atol=ROUNDING)
    np.testing.assert_allclose(pmf @ POINTS.points, jax.vmap(mean)(LAWS), atol=ROUNDING)
    # integer atoms are points: each keeps its own mass, none is lost or doubled
    for values, probs, row in zip(*(np.asarray(x)[1::2] for x in LAWS), np.asarray(pmf)[1::2], strict=True):
        expected = np.zeros(POINTS.size)
        np.add.at(expected, np.rint((values + 6) / 0.25).astype(int), probs)
        np.testing.assert_allclose(row, expected, atol=ROUNDING)


def test_outside_a_lattice_mass_goes_to_its_ends_and_the_mean_is_lost():
    pmf = project_categorical(Law(jnp.array([-2.0, 0.5, 9.0]), jnp.array([0.25, 0.5, 0.25])), lattice(0, 1, 0.5))
    np.testing.assert_array_equal(pmf, [0.25, 0.5, 0.25])
    assert abs(float(pmf @ jnp.array([0.0, 0.5, 1.0])) - 2.0) > 1


def test_stop_loss_curves_are_expected_shortfalls_and_invert():
    pmf = jax.vmap(lambda law: project_categorical(law, POINTS))(LAWS)
    curve = to_stop_loss(POINTS, pmf)
    gap = np.maximum(np.asarray(POINTS.points)[:, None] - np.asarray(LAWS.values)[:, None], 0)
    np.testing.assert_allclose(curve, np.einsum("ijk,ik->ij", gap, np.asarray(LAWS.probs)), atol=ROUNDING)
    np.testing.assert_allclose(from_stop_loss(POINTS, curve), pmf, atol=ROUNDING)
    x = jnp.linspace(-8.0, 8.0, 37)
    values = np.asarray(POINTS.points)
    exact = np.maximum(np.asarray(x)[None, :, None] - values[None, None], 0) @ np.asarray(pmf)[:, :, None]
    found = jax.vmap(lambda c: interpolate_stop_loss(POINTS, c, x))(curve)
    np.testing.assert_allclose(found, exact[..., 0], atol=ROUNDING)


def test_quantiles_are_those_of_the_distribution_function():
    for which, shift in (("low", 0.0), ("middle", 0.5), ("high", 1.0)):
        found = np.asarray(jax.vmap(lambda law, which=which: project_quantile(law, 8, which))(LAWS))
        for values, probs, row in zip(*(np.asarray(x) for x in LAWS), found, strict=True):
            order = np.argsort(values[probs > 0])
            values, total = values[probs > 0][order], np.cumsum(probs[probs > 0][order])
            for i, theta in enumerate(row):
                # the first atom at which the distribution function reaches the level, or passes it for "low"
                level = (i + shift) / 8 + (1e-13 if which == "low" else -1e-13)
                assert theta == values[min(np.searchsorted(total, level), values.size - 1)]


@pytest.mark.parametrize("size", [10, 49])
def test_quantiles_of_quantiles_are_themselves(size):
    """Cumulated tenths miss the levels by rounding: no atom may be skipped or taken twice."""
    atoms = jnp.asarray(np.random.default_rng(0).normal(size=size))
    for which in ("low", "middle", "high"):
        np.testing.assert_array_equal(project_quantile(quantile_law(atoms), size, which), jnp.sort(atoms))


def test_low_and_high_quantiles_bracket_every_increasing_expectation():
    low, high = (
        jax.vmap(lambda law, w=w: mean(quantile_law(project_quantile(law, 5, w))))(LAWS) for w in ("low", "high")
    )
    middle = jax.vmap(mean)(LAWS)
    assert np.all(low <= middle + ROUNDING) and np.all(middle <= high + ROUNDING)
    assert np.min(high - low) > -ROUNDING and np.median(high - low) > 0.1
    with pytest.raises(ValueError, match="which: found 'median'"):
        project_quantile(Law(*(x[0] for x in LAWS)), 5, "median")


def test_merging_makes_equal_atoms_one():
    law = merge(Law(jnp.array([2.0, 0.1 + 0.2, 0.3, -1.0, 5.0]), jnp.array([0.25, 0.25, 0.25, 0.25, 0.0])))
    np.testing.assert_allclose(law.values, [-1.0, 0.3, 2.0], atol=1e-12)
    np.testing.assert_array_equal(law.probs, [0.25, 0.5, 0.25])


def test_a_categorical_law_is_its_points():
    law = categorical_law(lattice(0, 1, 0.5), jnp.array([0.5, 0.25, 0.25]))
    np.testing.assert_array_equal(law.values, [0.0, 0.5, 1.0])
    check_law(law, ordered=True)


@pytest.mark.parametrize(
    ("values", "probs", "message"),
    [
        ([0.0, 1.0], [0.5, 0.6], "probs: found sum 1.1.*expected 1"),
        ([0.0, 1.0], [1.5, -0.5], "probs: found -0.5"),
        ([0.0, np.nan], [0.5, 0.5], "values: found nan"),
        ([0.0, 1.0], [np.nan, 0.5], "probs: found nan"),
        ([1.0, 0.0], [0.5, 0.5], "values: found 1.0 before 0.0"),
        ([0.0], [0.5, 0.5], "values, probs: found shapes"),
        ([], [], "values, probs: found shapes"),
    ],
)
def test_arrays_that_are_no_law_are_refused(values, probs, message):
    with pytest.raises(ValueError, match=message):
        check_law(Law(np.array(values), np.array(probs)), ordered=True)
