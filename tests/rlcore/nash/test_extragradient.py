"""Extragradient and optimistic methods: proved contraction, and convergence where plain mirror descent cycles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game, rps
from rlcore.nash import (
    EGPO,
    OMD,
    OMWU,
    OptimisticMD,
    egpo_step_size,
    equilibrium,
    kl,
    preference_game,
    unregularised_gap,
)
from rlcore.solver import iterate


def ratios(solver, game, start, star, step_size, num_steps):
    """KL from the equilibrium after each step over (1 - eta tau) times the one before it."""
    policies = iterate(solver, game, num_steps, state=solver.start(start), observe=lambda g, s: s.log_policy)[1]
    distances = jax.vmap(lambda policy: kl(star, policy))(policies)
    ratio = distances[1:] / ((1 - step_size * game.temperature) * distances[:-1])
    return jnp.where(distances[1:] > 1e-12, ratio, 0)


def test_egpo_contracts_from_every_start():
    games, starts = jax.jit(jax.vmap(lambda key: random_game(key, 5)))(jax.random.split(jax.random.key(3), 100))
    stars = jax.vmap(lambda game: equilibrium(*game))(games).value

    def worst(game, start, star):
        eta = egpo_step_size(game)
        default = 1 / (game.temperature + 0.5)
        return ratios(EGPO(eta), game, start, star, eta, 40), ratios(EGPO(), game, start, star, default, 40)

    largest, safe = jax.vmap(worst)(games, starts, stars)
    # KL above 1e-12 is known to about 1e-16 / sqrt(KL)
    assert np.max(largest) <= 1 + 1e-9 and np.max(safe) <= 1 + 1e-9


def test_restarting_from_the_half_step_breaks_it():
    # two steps of OMD use the same two queries but a wrong restart point
    game, starts = preference_game(rps(0.5), temperature=0.1), jax.random.normal(jax.random.key(1), (20, 3))
    star, eta = equilibrium(*game).value, egpo_step_size(game)
    contraction = 1 - eta * 0.1

    def one(start):
        start = jax.nn.log_softmax(start)
        policies = iterate(OMD(eta), game, 80, state=OMD(eta).start(start), observe=lambda g, s: s.log_policy, every=2)[
            1
        ]
        distances = jax.vmap(lambda policy: kl(star, policy))(policies)
        return distances[1:] / (contraction * distances[:-1]), ratios(EGPO(eta), game, start, star, eta, 40)

    broken, right = jax.vmap(one)(starts)
    assert np.all(np.max(broken, axis=1) > 1.01) and np.all(right <= 1 + 1e-9)


def test_half_step_is_the_mirror_descent_step():
    game, start = random_game(jax.random.key(8), 4)
    state = EGPO(0.3).step(game, EGPO(0.3).start(start), None)
    np.testing.assert_array_equal(state.half_step, OMD(0.3).step(game, OMD(0.3).start(start), None).log_policy)


def test_optimistic_steps_by_hand():
    game, start = random_game(jax.random.key(9), 4, temperature=0.2)
    solver, eta = OptimisticMD(0.3), 0.3
    policy, previous = start, None
    for _ in range(3):
        rates = game.preference @ jnp.exp(policy)
        guess = rates if previous is None else 2 * rates - previous
        policy = jax.nn.log_softmax((1 - eta * 0.2) * policy + eta * 0.2 * game.reference_logits + eta * guess)
        previous = rates
    state = iterate(solver, game, 3, state=solver.start(start))[0]
    np.testing.assert_allclose(state.log_policy, policy, rtol=0, atol=1e-14)
    end = iterate(solver, game, 2000, state=solver.start(start))[0].log_policy
    assert kl(equilibrium(*game).value, end) < 1e-24


def test_omwu_converges_where_mwu_cycles():
    game = preference_game(rps(0.5))
    solver = OMWU(0.5)
    state = iterate(solver, game, 2000, state=solver.start(jnp.log(jnp.array([0.4, 0.3, 0.3]))))[0]
    gap = unregularised_gap(game.preference, state.log_policy)
    assert gap == pytest.approx(3e-11, rel=0.2)  # one printed digit
