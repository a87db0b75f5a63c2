"""Sequence games against enumeration: 4^5 and 5^5 responses, masked tokens, and the trap of centring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nash import equilibrium, equilibrium_extragradient, kl, unregularised_gap
from rlcore.nash.sequence import (
    centre_features,
    enumerate_sequences,
    markov_gap,
    markov_kl,
    markov_mean,
    markov_sample,
    payoff_bound,
    response_features,
    response_log_prob,
    sampled_gap,
    sequence_best_response,
    sequence_equilibrium,
    sequence_equilibrium_error,
    sequence_game,
)
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT

EPS = np.finfo(np.float64).eps


def random_sequence_game(seed, num_tokens, length, d=4, temperature=0.1, by_position=True, masked=False):
    """Bigram logits N(0, 1), features N(0, 1), centred uniformly and scaled so that preferences are probabilities."""
    rng = np.random.default_rng(seed)
    lead = (length,) if by_position else ()
    logits = rng.normal(size=(*lead, num_tokens + 1, num_tokens))
    features = rng.normal(size=(*lead, num_tokens + 1, num_tokens, d))
    if masked:
        logits[..., 0] = np.where(rng.random(logits.shape[:-1]) < 0.5, -np.inf, logits[..., 0])
    matrix = rng.normal(size=(d, d))
    game = sequence_game(features, logits, matrix - matrix.T, temperature, length=length)
    return game._replace(skew=game.skew / (2 * payoff_bound(game)))


def span(x):
    return float(jnp.max(x) - jnp.min(x))


def over_responses(log_policy, responses):
    return jax.jit(jax.vmap(response_log_prob, (None, 0)))(log_policy, jnp.asarray(responses))


@pytest.mark.parametrize(
    ("num_tokens", "length", "masked", "temperature"),
    [(2, 3, False, 0.02), (3, 4, True, 0.003), (4, 5, False, 0.03), (6, 3, False, 0.05), (3, 1, False, 0.01)],
)
def test_agrees_with_newton_on_the_enumerated_matrix(num_tokens, length, masked, temperature):
    game = random_sequence_game(num_tokens, num_tokens, length, temperature=temperature, masked=masked)
    responses, matrix = enumerate_sequences(game)
    solution = sequence_equilibrium(game)
    assert solution.status == CONVERGED and solution.steps < 20
    star = equilibrium(*matrix, tol=1e-9)
    assert star.status == CONVERGED
    ours = over_responses(solution.value, responses)
    available = matrix.reference_logits > -jnp.inf
    assert np.array_equal(ours > -jnp.inf, available) and masked == (not np.all(available))
    assert span((ours - star.value)[available]) <= solution.bound + star.bound
    assert solution.bound < 1e-8 and kl(matrix.reference_logits, star.value) > 1e-3
    # a quadratic certificate: the gap of the answer is rounding
    assert markov_gap(game, solution.value) < 1e-20 and matrix.gap(ours) < 1e-20


def test_three_thousand_responses_by_the_second_solver():
    game = random_sequence_game(0, 5, 5, temperature=0.2, by_position=False)
    responses, matrix = enumerate_sequences(game)
    assert matrix.preference.shape == (3125, 3125)
    egpo = equilibrium_extragradient(*matrix, tol=1e-8)
    solution = sequence_equilibrium(game)
    assert egpo.status == solution.status == CONVERGED
    assert span(over_responses(solution.value, responses) - egpo.value) <= solution.bound + egpo.bound < 1e-7


def test_quantities_of_any_markov_policy_are_those_of_the_matrix_game():
    game = random_sequence_game(1, 3, 4, masked=True)
    responses, matrix = enumerate_sequences(game)
    noise = jax.random.normal(jax.random.key(0), game.reference_logits.shape)
    policies = [jax.nn.log_softmax(game.reference_logits + scale * noise) for scale in (0.0, 1.0)]
    for log_policy in policies:
        lp = over_responses(log_policy, responses)
        probability = jnp.exp(lp)
        np.testing.assert_allclose(jnp.sum(probability), 1, rtol=0, atol=1e3 * EPS)  # 81 terms of 4 factors
        phi = jax.vmap(lambda y: response_features(game, y))(jnp.asarray(responses))
        mean = markov_mean(game, log_policy)
        np.testing.assert_allclose(mean, probability @ phi, rtol=0, atol=1e3 * EPS * float(jnp.max(jnp.abs(phi))))
        np.testing.assert_allclose(markov_gap(game, log_policy), matrix.gap(lp), rtol=1e-11)
        reply = over_responses(sequence_best_response(game, mean), responses)
        seen = matrix.reference_logits > -jnp.inf
        assert span((reply - matrix.best_response(lp))[seen]) < 1e-12
        star = equilibrium(*matrix, tol=1e-9)
        error = span((lp - star.value)[seen])
        assert error <= sequence_equilibrium_error(game, log_policy) + star.bound
    np.testing.assert_allclose(
        markov_kl(policies[1], policies[0]), kl(over_responses(policies[1], responses), matrix.reference_logits),
        rtol=1e-12,
    )  # fmt: skip
    assert float(payoff_bound(game)) <= 0.5 + 4 * EPS  # scaled to it
    assert float(jnp.max(jnp.abs(matrix.preference - 0.5))) <= float(payoff_bound(game))


def test_centring_by_the_reference_makes_the_reference_the_equilibrium():
    game = random_sequence_game(2, 3, 3, temperature=0.02)
    uniform = jnp.full_like(game.reference_logits, -np.log(3))
    for log_policy in (uniform, game.reference_logits):
        centred = centre_features(game, log_policy)
        np.testing.assert_allclose(markov_mean(centred, log_policy), 0, atol=100 * EPS)
    trapped, fair = centre_features(game, game.reference_logits), centre_features(game, uniform)
    for temperature in (1.0, 0.02, 1e-3):
        stuck = sequence_equilibrium(trapped._replace(temperature=jnp.asarray(temperature)))
        assert markov_kl(stuck.value, game.reference_logits) < 1e-20
        star = sequence_equilibrium(fair._replace(temperature=jnp.asarray(temperature)))
        assert star.status == CONVERGED
    assert markov_kl(star.value, game.reference_logits) > 0.1
    assert markov_gap(fair, game.reference_logits) > 1e-3


def test_millions_of_responses_and_low_temperatures():
    game = random_sequence_game(3, 12, 10, d=6)  # 6e10 responses
    temperatures = jnp.asarray([1.0, 0.1, 0.01, 1e-3])
    solutions = jax.vmap(lambda tau: sequence_equilibrium(game._replace(temperature=tau)))(temperatures)
    assert np.all(solutions.status == CONVERGED)
    gaps = jax.vmap(lambda tau, lp: markov_gap(game._replace(temperature=tau), lp))(temperatures, solutions.value)
    assert np.all(gaps < 1e-16)
    # colder: nearer to the unregularised equilibrium over the responses that were sampled
    sample = jax.vmap(lambda key: markov_sample(key, solutions.value[3]))(jax.random.split(jax.random.key(0), 200))
    phi = jax.vmap(lambda y: response_features(game, y))(sample)
    half = phi @ game.skew @ phi.T / 2
    uniform = jnp.full(200, -np.log(200.0))
    assert unregularised_gap(0.5 + half, uniform) < 0.5  # draws of an equilibrium hardly beat each other


def test_gap_from_samples():
    game = random_sequence_game(4, 4, 4, temperature=0.05)
    log_policy = game.reference_logits
    exact = markov_gap(game, log_policy)

    @jax.jit
    def estimate(key):
        responses = jax.vmap(lambda key: markov_sample(key, log_policy))(jax.random.split(key, 2000))
        return sampled_gap(game, responses, jax.vmap(response_log_prob, (None, 0))(log_policy, responses))

    estimates, errors = jax.lax.map(estimate, jax.random.split(jax.random.key(1), 64))
    # 64 independent runs: the mean is within five standard errors, the errors are those of the spread
    assert abs(jnp.mean(estimates) - exact) < 5 * jnp.std(estimates) / 8 + 0.1 * jnp.mean(errors)
    assert 0.6 < jnp.std(estimates) / jnp.mean(errors) < 1.6
    star = sequence_equilibrium(game).value
    responses = jax.vmap(lambda key: markov_sample(key, star))(jax.random.split(jax.random.key(2), 2000))
    gap, error = sampled_gap(game, responses, jax.vmap(response_log_prob, (None, 0))(star, responses))
    # at the equilibrium log(pi/mu) cancels phi^T S m: what is left is the bias, O(1/N) and never negative by convexity
    assert -1e-14 < gap < exact / 100 and error < jnp.mean(errors) / 10


def test_samples_have_the_frequencies_of_the_policy():
    game = random_sequence_game(5, 3, 3)
    responses, matrix = enumerate_sequences(game)
    count = 20_000
    draws = jax.jit(jax.vmap(lambda key: markov_sample(key, game.reference_logits)))(
        jax.random.split(jax.random.key(3), count)
    )
    seen = np.bincount(np.asarray(draws) @ np.array([9, 3, 1]), minlength=27)
    expected = count * np.exp(matrix.reference_logits)
    assert np.array_equal(responses[5], [0, 1, 2])
    # chi-squared with 26 degrees of freedom: mean 26, deviation 7.2
    assert np.sum((seen - expected) ** 2 / expected) < 26 + 6 * 7.2


def test_float32_failures_and_limits():
    game = random_sequence_game(6, 3, 3)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), game)
    solution = sequence_equilibrium(single)
    assert solution.value.dtype == jnp.float32 and solution.status == CONVERGED
    assert markov_kl(solution.value.astype(jnp.float64), sequence_equilibrium(game).value) < 1e-9
    assert sequence_equilibrium(game, max_steps=0).status == STEP_LIMIT
    assert sequence_equilibrium(game, tol=1e-30).status == STEP_LIMIT
    for temperature in (0.0, -0.1, np.nan):
        wrong = sequence_equilibrium(game._replace(temperature=jnp.asarray(temperature)))
        assert wrong.status == NOT_FINITE and wrong.bound == np.inf
    with pytest.raises(ValueError, match="max_steps: found -1"):
        sequence_equilibrium(game, max_steps=-1)
    with pytest.raises(ValueError, match=r"game: found 12\^10 responses"):
        enumerate_sequences(random_sequence_game(3, 12, 10))


FEATURES, LOGITS, SKEW = np.zeros((4, 3, 2)), np.zeros((4, 3)), np.array([[0.0, 1], [-1, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((3, 3, 2))}, r"features: found shape \(3, 3, 2\)"),
        ({"features": np.full((4, 3, 2), np.nan)}, "features, skew: found NaN"),
        ({"reference_logits": np.zeros((3, 3))}, r"reference_logits: found shape \(3, 3\)"),
        ({"reference_logits": np.full((4, 3), -np.inf)}, "a row of -inf only"),
        ({"reference_logits": np.full((4, 3), np.nan)}, "reference_logits: found NaN"),
        ({"reference_logits": np.zeros((5, 4, 3))}, r"length: found \[2, 5\]"),
        ({"length": None}, r"length: found \[\]"),
        ({"length": 0}, r"length: found \[0\]"),
        ({"skew": np.eye(2)}, r"S \+ S\^T\| up to 2"),
        ({"skew": np.zeros((3, 3))}, r"skew: found shape \(3, 3\)"),
        ({"temperature": 0.0}, "temperature: found 0.0"),
        ({"temperature": np.nan}, "temperature: found nan"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"features": FEATURES, "reference_logits": LOGITS, "skew": SKEW, "temperature": 0.1, "length": 2}
    sequence_game(**arguments)
    with pytest.raises(ValueError, match=message):
        sequence_game(**(arguments | change))
