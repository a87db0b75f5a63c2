"""The quantities of a preference game against brute force, exact arithmetic and each other."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game, rps
from rlcore.nash import (
    PreferenceGame,
    equilibrium,
    geometric_mixture,
    kl,
    log_normalise,
    observe_gap,
    observe_kl,
    preference_game,
    regularised_preference,
    unregularised_gap,
    win_probability,
)
from rlcore.nash.mirror_descent import PolicyState

EPS = 2.0**-52


@pytest.fixture(scope="module")
def games():
    """200 games of 6 actions, a policy of each, and its equilibrium."""
    games, policies = jax.jit(jax.vmap(lambda key: random_game(key, 6)))(jax.random.split(jax.random.key(0), 200))
    solutions = jax.vmap(lambda game: equilibrium(*game))(games)
    assert np.all(solutions.status == 0)
    # Rounding of sums of a dozen products of numbers up to these sizes.
    scale = 1 + games.temperature * (jnp.max(jnp.abs(policies), -1) + jnp.max(jnp.abs(games.reference_logits), -1))
    return games, policies, solutions.value, 64 * EPS * scale


def exact_kl(log_p, log_q):
    """KL of the normalised policies, in 60 digits."""
    with decimal.localcontext() as context:
        context.prec = 60
        p, q = ([decimal.Decimal(float(x)).exp() for x in v] for v in (log_p, log_q))
        p, q = ([x / sum(v) for x in v] for v in (p, q))
        return float(sum(x * (x / y).ln() for x, y in zip(p, q, strict=True)))


@pytest.mark.parametrize("distance", [3.0, 0.3, 1e-3, 1e-6])
def test_kl_has_digits_where_the_plain_sum_has_none(distance):
    rng = np.random.default_rng(1)
    log_p = log_normalise(jnp.array(rng.normal(size=7)))
    log_q = log_normalise(log_p + distance * jnp.array(rng.normal(size=7)))
    # u = log p - log q carries an absolute error of about 2 eps |log p|, i.e. 4 eps |log p| / |u| of u^2 / 2
    np.testing.assert_allclose(kl(log_p, log_q), exact_kl(log_p, log_q), rtol=64 * EPS / distance)
    assert kl(log_p, log_p) == 0


def test_kl_at_the_edges():
    inf = np.inf
    half = np.log(0.5)
    assert kl(jnp.array([half, half, -inf]), jnp.array([half, half, -inf])) == 0
    np.testing.assert_allclose(kl(jnp.array([0.0, -inf]), jnp.array([half, half])), np.log(2), rtol=4 * EPS)
    assert kl(jnp.array([half, half]), jnp.array([0.0, -inf])) == inf
    assert kl(jnp.array([0.0, -2000.0]), jnp.array([-2000.0, 0.0])) == 2000
    gradient = jax.grad(kl)(jnp.array([half, half, -inf]), jnp.array([half, half, -inf]))
    assert np.all(np.isfinite(gradient))


def test_gap_is_the_difference_of_the_two_values(games):
    batch, policies, _, tolerance = games

    def by_definition(game, policy):
        # the best reply attains both the largest and, by antisymmetry, the smallest value
        reply = game.best_response(policy)
        return regularised_preference(game, reply, policy) - regularised_preference(game, policy, reply)

    difference = jax.vmap(PreferenceGame.gap)(batch, policies) - jax.vmap(by_definition)(batch, policies)
    assert np.all(np.abs(difference) <= tolerance)


def test_best_response_beats_every_other_reply(games):
    batch, policies, _, tolerance = games
    others = jax.random.normal(jax.random.key(1), (200, 20, 6))

    def advantage(game, policy, replies):
        best = regularised_preference(game, game.best_response(policy), policy)
        return best - jax.vmap(lambda r: regularised_preference(game, log_normalise(r), policy))(replies)

    assert np.all(jax.vmap(advantage)(batch, policies, others) >= -tolerance[:, None])


def test_equilibrium_beats_a_policy_by_temperature_times_kl(games):
    batch, policies, stars, tolerance = games

    def excess(game, policy, star):
        return regularised_preference(game, star, policy) - 0.5 - game.temperature * kl(policy, star)

    assert np.all(np.abs(jax.vmap(excess)(batch, policies, stars)) <= tolerance)
    # the identity needs P + P^T = 1
    broken = batch._replace(preference=jnp.triu(batch.preference))
    assert np.median(np.abs(jax.vmap(excess)(broken, policies, stars))) > 1e-3


def test_gap_is_equivalent_to_kl_from_the_equilibrium(games):
    batch, policies, stars, tolerance = games
    gap, distance = jax.vmap(PreferenceGame.gap)(batch, policies), jax.vmap(kl)(policies, stars)
    largest = jnp.max(jnp.abs(batch.preference - 0.5), axis=(1, 2))
    lower = 2 * batch.temperature * distance
    upper = 2 * (batch.temperature + largest**2 / batch.temperature) * distance
    assert np.all(gap >= lower - tolerance) and np.all(gap <= upper + tolerance)
    assert np.all(jax.vmap(PreferenceGame.gap)(batch, stars) <= 1e-24)


def test_antisymmetry_and_values(games):
    batch, policies, stars, tolerance = games
    forth = jax.vmap(regularised_preference)(batch, policies, stars)
    back = jax.vmap(regularised_preference)(batch, stars, policies)
    assert np.all(np.abs(forth + back - 1) <= tolerance)
    assert np.all(np.abs(jax.vmap(win_probability)(batch.preference, policies, policies) - 0.5) <= 8 * EPS)
    # mean of 6 x 6 entries
    np.testing.assert_allclose(win_probability(rps(0.3), jnp.log(jnp.full(3, 1 / 3)), jnp.zeros(3)), 1.5 - 1.0)


def test_gap_without_temperature():
    game = preference_game(rps(0.4))._replace(temperature=jnp.array(0.0))
    policy = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    # against (.5, .3, .2): 3 beats 1 .5 of the time and loses to 2 .3 of it, etc.
    expected = 2 * 0.4 * max(0.3 - 0.2, 0.2 - 0.5, 0.5 - 0.3)
    np.testing.assert_allclose(unregularised_gap(game.preference, policy), expected, rtol=1e-14)
    np.testing.assert_allclose(game.gap(policy), expected, rtol=1e-14)
    cold = game._replace(temperature=jnp.array(1e-9)).gap(policy)
    np.testing.assert_allclose(cold, expected, atol=1e-8)  # tau times log-probabilities


def test_geometric_mixture():
    p, q = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.log(jnp.array([0.1, 0.1, 0.8]))
    expected = np.array([0.7**0.75 * 0.1**0.25, 0.2**0.75 * 0.1**0.25, 0.1**0.75 * 0.8**0.25])
    np.testing.assert_allclose(jnp.exp(geometric_mixture(p, q, 0.25)), expected / expected.sum(), rtol=1e-14)
    np.testing.assert_allclose(geometric_mixture(p, q, 1.0), q, rtol=0, atol=8 * EPS)
    np.testing.assert_allclose(geometric_mixture(p, q, 0), p, rtol=0, atol=8 * EPS)


def test_an_unavailable_action_changes_nothing():
    game, policy = random_game(jax.random.key(5), 4, temperature=0.2)
    padded = preference_game(
        np.pad(game.preference, (0, 1), constant_values=0.5),
        np.append(game.reference_logits, 7.0),  # not read
        0.2,
        available=np.arange(5) < 4,
    )
    wide = jnp.append(policy, -jnp.inf)
    for function in (PreferenceGame.gap, PreferenceGame.best_response, lambda g, p: kl(p, g.reference_logits)):
        narrow, padded_result = function(game, policy), function(padded, wide)
        np.testing.assert_allclose(padded_result[:4] if padded_result.ndim else padded_result, narrow, rtol=1e-12)
    assert padded.best_response(wide)[4] == -np.inf
    assert padded._replace(temperature=jnp.array(0.0)).gap(wide) == unregularised_gap(game.preference, policy)
    gradient = jax.grad(lambda g: g.gap(wide))(padded)
    assert all(np.all(np.isfinite(x)) for x in gradient)
    state = PolicyState(wide, jnp.array(0))
    assert observe_gap(padded, state) == padded.gap(wide)
    assert observe_kl(padded, state) == kl(wide, padded.reference_logits)


def test_relabelling_actions_relabels_everything():
    game, policy = random_game(jax.random.key(6), 5)
    order = jnp.array([3, 0, 4, 1, 2])
    moved = PreferenceGame(game.preference[order][:, order], game.reference_logits[order], game.temperature)
    np.testing.assert_allclose(moved.gap(policy[order]), game.gap(policy), rtol=1e-12)
    np.testing.assert_allclose(moved.best_response(policy[order]), game.best_response(policy)[order], rtol=1e-12)


def test_constructor_normalises_broadcasts_and_keeps_the_dtype():
    game = preference_game([[0.5, 1], [0, 0.5]], [5, 5], 2)
    assert game.preference.dtype == jnp.float64 and game.temperature == 2
    np.testing.assert_allclose(game.reference_logits, np.log(0.5), rtol=4 * EPS)
    batch = preference_game(np.full((3, 2, 2), 0.5), temperature=[0.1, 0.2, 0.3])
    assert [x.shape for x in batch] == [(3, 2, 2), (3, 2), (3,)]
    grid = preference_game(np.full((2, 2), 0.5), np.zeros((4, 1, 2)), np.ones(3))
    assert [x.shape for x in grid] == [(4, 3, 2, 2), (4, 3, 2), (4, 3)]
    assert jax.vmap(PreferenceGame.gap)(batch, batch.reference_logits).shape == (3,)
    single = preference_game(np.float32([[0.5, 0.1], [0.9, 0.5]]), np.zeros(2), 0.1)
    assert {x.dtype for x in single} == {jnp.dtype("float32")}
    assert single.gap(single.reference_logits).dtype == jnp.float32


HALF = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.full(3, 0.5),), ValueError, r"preference: found shape \(3,\)"),
        ((np.full((2, 3), 0.5),), ValueError, r"preference: found shape \(2, 3\)"),
        ((np.zeros((0, 0)),), ValueError, "n >= 1"),
        (([[0.5, 1.2], [-0.2, 0.5]],), ValueError, r"preference: found entries in \[-0.2, 1.2\]"),
        (([[0.5, np.nan], [0.2, 0.5]],), ValueError, "preference: found entries"),
        (([[0.5, 0.7], [0.2, 0.5]],), ValueError, r"P \+ P\^T - 1\| up to 0.1"),
        (([[0.6, 0.7], [0.3, 0.5]],), ValueError, "preference: found 0.6 on the diagonal, expected 1/2"),
        (([[0.5, 0.7], [0.3, 0.4]],), ValueError, "preference: found 0.4 on the diagonal, expected 1/2"),
        ((HALF, np.zeros(3)), ValueError, r"reference_logits: found shape \(3,\), expected \(..., 2\)"),
        ((HALF, [0, np.nan]), ValueError, "reference_logits: found NaN"),
        ((HALF, [-np.inf, -np.inf]), ValueError, "reference_logits: found -inf for actions"),
        ((HALF, [0, -np.inf]), ValueError, r"reference_logits: found -inf for actions \[1\], expected .* full support"),
        ((HALF, [[0, 0], [-np.inf, 0]]), ValueError, r"reference_logits: found -inf for actions \[0\]"),
        ((HALF, [np.inf, 0]), ValueError, "reference_logits"),
        ((HALF, None, -0.1), ValueError, "temperature: found -0.1, expected a finite number > 0"),
        ((HALF, None, 0.0), ValueError, "temperature: found 0.0, expected a finite number > 0"),
        ((HALF, None, [0.1, 0]), ValueError, "temperature: found"),
        ((HALF, None, np.inf), ValueError, "temperature: found inf"),
        ((HALF, None, np.nan), ValueError, "temperature: found nan"),
        ((HALF, np.zeros((3, 2)), np.ones(2)), ValueError, "batch axes"),
        ((np.array([["a"]]),), TypeError, "preference: found <U1"),
        ((HALF, None, 1j), TypeError, "temperature: found complex128"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        preference_game(*arguments)


@pytest.mark.parametrize(
    ("available", "error", "message"),
    [
        ([1, 0], TypeError, "available: found int64, expected bool"),
        ([True], ValueError, r"available: found shape \(1,\), expected \(..., 2\)"),
        ([False, False], ValueError, "available: found a game without actions"),
        ([[True, True]] * 3, ValueError, r"batch axes: found .* \(3,\) of available"),
    ],
)
def test_a_bad_mask_is_named(available, error, message):
    with pytest.raises(error, match=message):
        preference_game(HALF, None, np.ones(2), available=available)


def test_masks_broadcast():
    batch = preference_game(HALF, [0.0, 1.0], available=[[True, False], [True, True]])
    np.testing.assert_array_equal(batch.reference_logits[0], [0, -np.inf])
    np.testing.assert_allclose(jnp.exp(batch.reference_logits[1]), [1 / (1 + np.e), np.e / (1 + np.e)], rtol=4 * EPS)
    assert batch.preference.shape == (2, 2, 2) and batch.temperature.shape == (2,)
