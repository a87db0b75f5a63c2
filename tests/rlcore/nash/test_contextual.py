"""Contextual games: sums over contexts, and one big game over deterministic plans that must agree with them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game
from rlcore.nash import (
    EGPO,
    ContextualGame,
    PreferenceGame,
    contextual_equilibrium,
    contextual_game,
    contextual_gap,
    contextual_kl,
    duality_gap,
    equilibrium,
    kl,
    regularised_preference,
)
from rlcore.solver import CONVERGED, iterate

WEIGHTS = np.array([0.5, 0.2, 0.3])


def random_contexts(seed, n=4, temperature=0.2):
    games, starts = jax.vmap(lambda key: random_game(key, n, temperature=temperature))(
        jax.random.split(jax.random.key(seed), 3)
    )
    return ContextualGame(games, jnp.asarray(WEIGHTS)), starts


def test_every_context_by_itself():
    game, starts = random_contexts(0)
    stars = contextual_equilibrium(game)
    assert np.all(stars.status == CONVERGED) and stars.value.shape == (3, 4)
    gap = divergence = 0.0
    for x, weight in enumerate(WEIGHTS):
        one = jax.tree.map(lambda leaf, x=x: leaf[x], game.games)
        star = equilibrium(*one)
        assert np.max(np.abs(stars.value[x] - star.value)) <= stars.bound[x] + star.bound
        gap += weight * duality_gap(one.preference, starts[x], one.reference_logits, one.temperature)
        divergence += weight * kl(starts[x], one.reference_logits)
    np.testing.assert_allclose(contextual_gap(game, starts), gap, rtol=1e-14)
    np.testing.assert_allclose(contextual_kl(game, starts, game.games.reference_logits), divergence, rtol=1e-14)
    assert contextual_gap(game, stars.value) < 1e-20


def test_the_gap_is_that_of_the_whole_game():
    """Gains of replies that know the context, by the definition of the gap: no formula of the library's gap."""
    game, starts = random_contexts(1)

    def value(log_p, log_q):
        return jnp.dot(jnp.asarray(WEIGHTS), jax.vmap(regularised_preference)(game.games, log_p, log_q))

    replies = jax.vmap(PreferenceGame.best_response)(game.games, starts)
    best = value(replies, starts) - value(starts, replies)
    np.testing.assert_allclose(contextual_gap(game, starts), best, rtol=1e-12)
    for key in jax.random.split(jax.random.key(2), 20):  # no other reply gains more
        other = jax.nn.log_softmax(replies + 0.1 * jax.random.normal(key, replies.shape))
        assert value(other, starts) - value(starts, other) < best


def test_mixing_contexts_before_answering_is_another_game():
    """A policy that is blind to the context solves the mean matrix, whose equilibrium is not optimal here."""
    game, _ = random_contexts(3)
    blind = equilibrium(jnp.einsum("x,xij->ij", jnp.asarray(WEIGHTS), game.games.preference), jnp.zeros(4), 0.2).value
    assert contextual_gap(game, jnp.broadcast_to(blind, (3, 4))) > 1e-2


def test_algorithms_run_under_vmap():
    game, starts = random_contexts(4)
    last = jax.vmap(lambda one, start: iterate(EGPO(), one, 800, state=EGPO().start(start))[0])(game.games, starts)
    assert contextual_kl(game, contextual_equilibrium(game).value, last.log_policy) < 1e-20


def test_constructor_and_weightless_contexts():
    half = np.full((2, 2), 0.5)
    shared = contextual_game(half, weights=[0.25, 0.75])
    assert shared.games.preference.shape == (2, 2, 2) and shared.games.temperature.shape == (2,)
    equal = contextual_game(np.stack([half] * 3), np.zeros(2), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(equal.weights, 1 / 3)
    ignored = contextual_game(half, weights=[1.0, 0.0])
    sure = jnp.array([[np.log(0.5)] * 2, [0.0, -np.inf]])
    assert contextual_kl(ignored, sure[::-1][::-1], sure.at[1].set(jnp.array([-np.inf, 0.0]))) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, r"contexts: found batch axes \(\)"),
        ([0.5, 0.6], "weights: found sum 1.1"),
        ([1.5, -0.5], "least -0.5"),
        ([np.nan, 1.0], "weights: found sum nan"),
        (1.0, r"weights: found shape \(\)"),
        ([], r"weights: found shape \(0,\)"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        contextual_game(np.full((2, 2), 0.5), weights=weights)


def test_contexts_and_weights_must_fit():
    for shape, weights in itertools.product([(3,), (2, 2)], ([0.5, 0.5],)):
        with pytest.raises(ValueError, match="expected one weight per context"):
            contextual_game(np.full((*shape, 2, 2), 0.5), weights=weights)
