"""Best responses, fictitious play, Nash-EMA: fixed points, end points of averages, convergence on random games."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game, random_skew, rps
from rlcore.nash import (
    OMD,
    BestResponse,
    FictitiousPlay,
    NashEMA,
    NashEMAPG,
    NashEMAStart,
    NashMD,
    NashMDPG,
    equilibrium,
    geometric_mixture,
    kl,
    log_normalise,
    lottery,
    observe_average_gap,
    preference_game,
)
from rlcore.solver import iterate

EPS = 2.0**-52
N = 5


@pytest.fixture(scope="module")
def games():
    """Twenty games of five actions at temperature 0.4, a start of each, and its equilibrium."""
    make = jax.jit(jax.vmap(lambda key: random_game(key, N, temperature=0.4)))
    batch, starts = make(jax.random.split(jax.random.key(21), 20))
    return batch, starts, jax.vmap(lambda game: equilibrium(*game))(batch).value


def run(solver, batch, starts, num_steps):
    """Policies after `num_steps` steps from the starts."""
    return jax.vmap(lambda game, start: iterate(solver, game, num_steps, state=solver.start(start))[0].log_policy)(
        batch, starts
    )


def test_the_equilibrium_is_the_only_fixed_point_of_best_responses(games):
    batch, starts, stars = games
    # rounding of log-probabilities below 20 and of P p / tau
    np.testing.assert_allclose(run(BestResponse(), batch, stars, 1), stars, rtol=0, atol=64 * 20 * EPS)
    moved = run(BestResponse(), batch, starts, 1)
    assert np.all(np.max(np.abs(moved - starts), axis=1) > 1e-3)
    # the longest step of OMD: eta tau = 1
    np.testing.assert_allclose(moved, run(OMD(1 / 0.4), batch, starts, 1), rtol=0, atol=64 * 20 * EPS)


def test_best_responses_contract_where_the_game_is_weak_and_jump_where_it_cycles():
    # span(log BR(p) - log BR(q)) <= 2 a |p - q|_1 / tau <= (a / tau) span(log p - log q): a factor 1/4 for a = tau / 4
    preference = 0.5 + 0.2 * (random_skew(jax.random.key(3), N) - 0.5)
    a = jnp.max(jnp.abs(preference - 0.5))
    game = preference_game(preference, temperature=float(4 * a))
    star = equilibrium(*game).value
    start = log_normalise(2 * jax.random.normal(jax.random.key(4), (N,)))
    path = iterate(BestResponse(), game, 15, state=BestResponse().start(start), observe=lambda g, s: s.log_policy)[1]
    spans = jnp.ptp(path - star[None], axis=1)
    assert np.all(spans[1:] <= spans[:-1] / 4 + 64 * 20 * EPS) and spans[-1] < 1e-7 < spans[0]
    # rock-paper-scissors at tau = 0.05: the replies go round in a cycle of three, paper to rock and so on
    cycling = preference_game(rps(0.5), temperature=0.05)
    state = BestResponse().start(log_normalise(jnp.array([1.0, 0.0, 0.0])))
    plays = iterate(BestResponse(), cycling, 9, state=state, observe=lambda g, s: jnp.argmax(s.log_policy))[1]
    np.testing.assert_array_equal(plays[3:], plays[:-3])
    assert set(np.array(plays)) == {0, 1, 2}


def test_fictitious_play_by_hand():
    game = preference_game(rps(0.4), temperature=0.3)
    start = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    plays = [jnp.exp(start)]
    for _ in range(3):
        plays.append(jnp.exp(game.best_response(jnp.log(sum(plays) / len(plays)))))
    state = iterate(FictitiousPlay(), game, 3, state=FictitiousPlay().start(start))[0]
    np.testing.assert_allclose(state.average, sum(plays) / 4, rtol=0, atol=8 * EPS)
    np.testing.assert_allclose(jnp.exp(state.log_policy), plays[-1], rtol=0, atol=8 * EPS)


def test_fictitious_play_converges_with_and_without_temperature(games):
    batch, starts, stars = games
    solver = FictitiousPlay()

    def average(game, start):
        return iterate(solver, game, 2000, state=solver.start(start))[0].average

    # Near the equilibrium d -> d + (J - 1) d / T with imaginary eigenvalues of J: the error falls as 1 / T, here from a
    # start that counts as one of T plays. The transient is not bounded by this; measured 1.0 / T.
    averages = jax.vmap(average)(batch, starts)
    assert np.max(np.abs(averages - jnp.exp(stars))) < 5 / 2000
    # A cold game is one of pure replies; its gap falls as T^-1/2 at least on these games, here to a tenth of the start.
    preferences = jax.vmap(lambda key: random_skew(key, N))(jax.random.split(jax.random.key(5), 10))
    cold = preference_game(preferences, temperature=1e-6)
    gaps = jax.vmap(lambda game: iterate(solver, game, 2000, observe=observe_average_gap, every=2000)[1])(cold)
    assert np.all(gaps[:, -1] < 0.05) and np.all(gaps[:, -1] < gaps[:, 0])
    final = jax.vmap(lambda game: iterate(solver, game, 2000)[0].average)(cold)
    winners = np.stack([lottery(preference) for preference in preferences])
    assert np.median(np.sum(np.abs(final - winners), axis=1)) < 0.2


def test_the_end_points_of_the_averages(games):
    batch, starts, _ = games
    at_rest = 64 * 20 * EPS * 10
    selfplay = run(OMD(0.5), batch, starts, 10)
    for method in (NashEMA, NashEMAStart):
        np.testing.assert_allclose(run(method(0.5, 0.0), batch, starts, 10), selfplay, rtol=0, atol=at_rest)
    np.testing.assert_allclose(
        run(NashEMAPG(0.5, 0.0), batch, starts, 10), run(NashMDPG(0.5), batch, starts, 10), rtol=0, atol=at_rest
    )
    # decay 1 plays against the start for ever: the limit is the best response to it, reached by the factor 1 - eta tau
    reply = jax.vmap(lambda game, start: game.best_response(start))(batch, starts)
    for method in (NashEMA, NashEMAStart):
        last = run(method(1.25, 1.0), batch, starts, 60)
        assert np.max(np.abs(last - reply)) < 40 * 0.5**60 + at_rest


def test_the_second_reading_is_nash_md_from_the_reference(games):
    batch, _, stars = games
    references = batch.reference_logits
    ours = run(NashEMAStart(0.5, 0.3), batch, references, 12)
    np.testing.assert_allclose(ours, run(NashMD(0.5, 0.3), batch, references, 12), rtol=0, atol=64 * 20 * EPS * 12)
    # hence its bias, which the first reading has not
    biased = run(NashEMAStart(0.5, 0.3), batch, references, 400)
    warmer = jax.vmap(lambda game: equilibrium(game.preference, game.reference_logits, 0.4 / 0.7).value)(batch)
    expected = jax.vmap(lambda game, q: game.best_response(q))(batch, warmer)
    np.testing.assert_allclose(biased, expected, rtol=0, atol=1e-12)
    running = run(NashEMA(0.5, 0.3), batch, references, 400)
    np.testing.assert_allclose(running, stars, rtol=0, atol=1e-12)
    assert np.median(jax.vmap(kl)(stars, biased)) > 1e-5


def test_the_running_average_by_hand(games):
    game, start = jax.tree.map(lambda x: x[0], games[0]), games[1][0]
    policy = opponent = start
    for _ in range(3):
        policy = log_normalise(
            (1 - 0.2) * policy + 0.2 * game.reference_logits + 0.5 * (game.preference @ jnp.exp(opponent))
        )
        opponent = geometric_mixture(policy, opponent, 0.9)
    state = iterate(NashEMA(0.5, 0.9), game, 3, state=NashEMA(0.5, 0.9).start(start))[0]
    np.testing.assert_allclose(state.log_policy, policy, rtol=0, atol=64 * 20 * EPS)
    np.testing.assert_allclose(state.anchor, opponent, rtol=0, atol=64 * 20 * EPS)


def test_hyper_parameters_may_be_traced(games):
    game, start = jax.tree.map(lambda x: x[0], games[0]), games[1][0]

    def last(method, step_size, decay):
        solver = method(step_size, decay)
        return iterate(solver, game, 5, state=solver.start(start))[0].log_policy

    steps, decays = jnp.array([0.1, 0.5]), jnp.array([0.2, 0.9])
    for method in (NashEMA, NashEMAStart, NashEMAPG):
        grid = jax.vmap(lambda s, d, m=method: last(m, s, d))(steps, decays)
        np.testing.assert_allclose(grid[1], last(method, 0.5, 0.9), rtol=0, atol=64 * 20 * EPS * 5)
        assert not np.allclose(grid[0], grid[1], atol=1e-3)
