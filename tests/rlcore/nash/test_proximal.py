"""The proximal point: its inequality to rounding, its limit by linear programming, too short an inner loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from envs.preferences import random_skew, rps
from rlcore.nash import (
    EGPO,
    MWU,
    OMD,
    PreferenceGame,
    ProximalPoint,
    equilibrium,
    equilibrium_error,
    kl,
    log_normalise,
    lottery,
    preference_game,
    unregularised_gap,
)
from rlcore.solver import iterate

EPS = 2.0**-52
N = 7
ROWS = np.array([0, 1, 10, 50, 100, 200])
UNIFORM = log_normalise(jnp.zeros(N))


def observe_outer(game, state):
    return unregularised_gap(game.preference, state.log_policy), state.log_policy, state.error


@pytest.fixture(scope="module")
def paths():
    """Thirty random games of seven actions at tau = 0.1, and 200 outer steps of the exact method on each."""
    preferences = jax.vmap(lambda key: random_skew(key, N))(jax.random.split(jax.random.key(0), 30))

    def path(preference):
        game = PreferenceGame(preference, UNIFORM, jnp.asarray(0.1))
        return iterate(ProximalPoint(), game, 200, observe=observe_outer)[1]

    gaps, policies, errors = jax.jit(jax.vmap(path))(preferences)
    return preferences, gaps, policies, errors


def test_kl_to_a_winner_falls_by_the_length_of_the_step(paths):
    preferences, _, policies, errors = paths
    winners = np.stack([lottery(preference) for preference in preferences])
    logs = jnp.log(jnp.asarray(winners))
    to_winner = jax.vmap(lambda winner, path: jax.vmap(lambda policy: kl(winner, policy))(path))(logs, policies)
    length = jax.vmap(jax.vmap(kl))(policies[:, 1:], policies[:, :-1])
    # Solves are certified to `errors` in span, and a winner's margins to 1e-15: each moves a KL by about as much. Log
    # probabilities reach -300.
    tolerance = 64 * EPS * 300 + 2 * np.max(errors)
    assert tolerance < 1e-10
    assert np.all(to_winner[:, 1:] <= to_winner[:, :-1] - length + tolerance)
    assert np.all(to_winner[:, -1] < to_winner[:, 0])


def test_gaps_fall_as_the_specification_measured(paths):
    _, gaps, _, _ = paths
    # One game of its own drawing: 1.3e-1, 1.8e-3, 5e-6, 8e-10, 8e-17 after 1, 10, 50, 100, 200 steps. Ours spread over
    # decades, and each of these lies well inside.
    golden = np.array([1.3e-1, 1.8e-3, 5e-6, 8e-10, 8e-17])
    low, high = np.quantile(gaps[:, ROWS[1:]], [0.1, 0.9], axis=0)
    assert np.all((low < golden) & (golden < high))


def test_the_limit_is_the_lottery(paths):
    preferences, gaps, policies, _ = paths
    done = np.flatnonzero(gaps[:, -1] < 1e-14)
    assert done.size >= 5
    for i in done:
        # a gap of 1e-14 leaves a distance larger by the condition of the support's linear system
        np.testing.assert_allclose(jnp.exp(policies[i, -1]), lottery(preferences[i]), rtol=0, atol=1e-9)


def test_one_inner_step_of_mirror_descent_is_multiplicative_weights():
    game = preference_game(random_skew(jax.random.key(1), N), temperature=0.1)
    start = log_normalise(jax.random.normal(jax.random.key(2), (N,)))
    proximal, weights = ProximalPoint(OMD(3.0), 1), MWU(3.0)
    ours = iterate(proximal, game, 20, state=proximal.start(start))[0].log_policy
    theirs = iterate(weights, game, 20, state=weights.start(start))[0].log_policy
    # 20 steps of 3 (P p), logits below 60
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * EPS * 60 * 20)


def test_too_short_an_inner_loop_leaves_rock_paper_scissors():
    # The specification: eta tau = 0.9 at tau = 0.1, KL from 0.13 to 10.6 in 20 rounds; the direction is not told
    # and moves the last figure by 10%.
    game, uniform = preference_game(rps(0.5), temperature=0.1), log_normalise(jnp.zeros(3))
    solver = ProximalPoint(OMD(9.0), 1)
    for direction in ([1.0, 0.0, 0.0], [1.0, -1.0, 0.0]):
        direction = jnp.array(direction)
        size = brentq(lambda c, d=direction: float(kl(uniform, log_normalise(c * d))) - 0.13, 0, 10)
        state = iterate(solver, game, 20, state=solver.start(log_normalise(size * direction)))[0]
        assert kl(uniform, state.log_policy) == pytest.approx(10.6, rel=0.1)
        exact = iterate(ProximalPoint(), game, 20, state=ProximalPoint().start(log_normalise(size * direction)))[0]
        assert kl(uniform, exact.log_policy) < 0.13


def test_inner_solvers_agree_and_count_their_steps():
    game = preference_game(random_skew(jax.random.key(3), N), temperature=0.2)
    newton, _ = iterate(ProximalPoint(), game, 4)
    solver = ProximalPoint(EGPO(), 2000, tol=1e-9)
    run = jax.jit(lambda tol: iterate(dataclasses.replace(solver, tol=tol), game, 4)[0])
    close = run(1e-9)
    # an error of 1e-9 per solve passes on to the next reference, and at most adds up
    np.testing.assert_allclose(close.log_policy, newton.log_policy, rtol=0, atol=4e-9)
    assert close.error <= 1e-9 and 4 < close.inner_steps < 4 * 2000
    rough = run(1e-3)
    assert 1e-9 < rough.error <= 1e-3 and rough.inner_steps < close.inner_steps
    # the certificate is that of the last inner game
    last = iterate(solver, game, 3)[0]
    here = game._replace(reference_logits=last.log_policy)
    np.testing.assert_allclose(equilibrium_error(here, close.log_policy), close.error, rtol=1e-6)
    fixed = iterate(ProximalPoint(EGPO(), 5), game, 4)[0]
    assert fixed.inner_steps == 20 and fixed.t == 4


def test_a_step_is_the_equilibrium_of_the_game_regularised_towards_itself():
    game = preference_game(random_skew(jax.random.key(4), N), temperature=0.2)
    start = log_normalise(jax.random.normal(jax.random.key(5), (N,)))
    state = ProximalPoint().step(game, ProximalPoint().start(start), None)
    expected = equilibrium(game.preference, start, game.temperature)
    np.testing.assert_array_equal(state.log_policy, expected.value)
    # a winner stays where it is
    resting = preference_game(rps(0.3), temperature=0.2)
    still = ProximalPoint().step(resting, ProximalPoint().init(resting), None).log_policy
    np.testing.assert_allclose(still, resting.reference_logits, rtol=0, atol=16 * EPS)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="num_inner: found 0, expected an integer >= 1"):
        ProximalPoint(EGPO(), 0)
