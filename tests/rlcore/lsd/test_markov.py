"""The Markov schedule: stationary virtual chains, what it earns, domination, fillers, finite horizons, bad input."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    as_restless,
    finite_programme,
    from_tables,
    initial_state,
    markov_schedule,
    occupancy,
    occupation_programme,
    relaxation,
    simulate,
)
from rlcore.lsd.markov import inverse_cdf, play_best

Q = from_tables(
    [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]],
    [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]],
    payoff_class="monotone",
)
slowly = lambda problem: dataclasses.replace(problem, idle_rule="decrement")  # noqa: E731
SLOW = slowly(Q)
ALPHA = {1: 1 - (1 - 1 / 3) ** 3, 2: (3 * 2 / 3 * (1 / 3) ** 2 + 2 * (1 - (1 / 3) ** 3 - 3 * 2 / 3 * (1 / 3) ** 2)) / 2}
ERRORS = 4.5  # standard errors allowed
SIMPLEX = 1e-9  # of rates by HiGHS: where chains are periodic the means below have no other error


def expected_best(play, payoffs, plays):
    """Mean of the sum of the largest `plays` virtual payoffs of one round, by enumerating joint states."""
    k, s = play.shape
    chance = np.concatenate([np.asarray(play), 1 - np.asarray(play).sum(1, keepdims=True)], axis=1)
    pays = np.concatenate([np.asarray(payoffs), np.zeros((k, 1))], axis=1)
    total = 0.0
    for e in itertools.product(range(s + 1), repeat=k):
        at = np.arange(k), np.array(e)
        total += np.prod(chance[at]) * np.sort(pays[at])[-plays:].sum()
    return total


def watch(problem, seen):
    virtual = jnp.take_along_axis(problem.payoffs, seen.state.virtual[:, None], axis=1)[:, 0]
    return {
        "payoff": jnp.sum(seen.payoff),
        "virtual": jnp.sum(jnp.where(seen.played & seen.state.asked, virtual, 0)),
        "below": jnp.sum(seen.local < seen.state.virtual),
        "asked": jnp.sum(seen.state.asked),
        "served": jnp.sum(seen.played & seen.state.asked),
        "played": jnp.sum(seen.played),
    }


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def run(problem, schedule, horizon, replicas, start=None):
    one = lambda key: simulate(problem, schedule, horizon, key, start=start, observe=watch)  # noqa: E731
    return jax.vmap(one)(jax.random.split(jax.random.key(7), replicas))


def mean_and_error(x):
    """Over replicas, of the mean of each over its rounds."""
    x = np.asarray(x).mean(1)
    return x.mean(), x.std(ddof=1) / np.sqrt(len(x))


@pytest.mark.parametrize("plays", [1, 2])
@pytest.mark.parametrize("problem", [Q, SLOW], ids=["reset", "decrement"])
def test_it_earns_its_guarantee_and_never_falls_behind(problem, plays):
    found = occupation_programme(problem, plays)
    promised = expected_best(found.occupancy.play, problem.payoffs, plays)
    assert promised >= ALPHA[plays] * found.value - 1e-12
    if problem is Q and plays == 1:
        assert found.value == pytest.approx(0.68, abs=1e-9) and promised == pytest.approx(0.533, abs=5e-4)
    trace = run(problem, markov_schedule(found.occupancy, plays), 300, 300).trace
    assert int(trace["below"].sum()) == 0
    assert int(trace["played"].max()) == plays
    np.testing.assert_array_equal(trace["served"], np.minimum(trace["asked"], plays))
    # the best virtual payoffs have the mean of independent stationary chains, in every round
    mean, error = mean_and_error(trace["virtual"])
    assert abs(mean - promised) <= ERRORS * error + SIMPLEX
    mean, error = mean_and_error(trace["payoff"])
    assert mean >= promised - ERRORS * error - SIMPLEX
    assert np.all(np.asarray(trace["payoff"]) >= np.asarray(trace["virtual"]) - 1e-12)


def test_ranked_by_real_payoffs_it_earns_the_guarantee_too():
    found = occupation_programme(Q)
    promised = expected_best(found.occupancy.play, Q.payoffs, 1)
    trace = run(Q, markov_schedule(found.occupancy, rule="real"), 300, 300).trace
    mean, error = mean_and_error(trace["payoff"])
    assert mean >= promised - ERRORS * error - SIMPLEX
    assert int(trace["below"].sum()) == 0


@pytest.mark.parametrize("start", ["one", "just"])
def test_other_starts_lose_one_payoff_per_arm_at_most(start):
    found = occupation_programme(Q)
    promised = expected_best(found.occupancy.play, Q.payoffs, 1)
    totals = np.asarray(run(Q, markov_schedule(found.occupancy), 300, 300, start).total)
    error = totals.std(ddof=1) / np.sqrt(len(totals))
    assert totals.mean() >= 300 * promised - 3 - ERRORS * error - SIMPLEX


@pytest.mark.parametrize("problem", [Q, SLOW], ids=["reset", "decrement"])
def test_virtual_chains_are_stationary_with_the_rates_of_the_programme(problem):
    found = occupation_programme(problem)
    schedule = markov_schedule(found.occupancy)
    arms = as_restless(problem)
    law, chance = np.asarray(schedule.law), np.asarray(schedule.chance)
    kernel = chance[..., None] * arms.play + (1 - chance[..., None]) * arms.idle
    np.testing.assert_allclose(np.einsum("ie,iex->ix", law, kernel), law, rtol=0, atol=1e-9)  # HiGHS's rows
    np.testing.assert_allclose(law * chance, found.occupancy.play, rtol=0, atol=1e-9)


def test_the_relaxation_feeds_it_without_leaving_the_device():
    @jax.jit
    @jax.vmap
    def total(scale):
        problem = dataclasses.replace(Q, payoffs=scale * Q.payoffs)
        schedule = markov_schedule(occupancy(problem, relaxation(problem)))
        return jnp.mean(jax.vmap(lambda key: simulate(problem, schedule, 50, key).total)(KEYS))

    whole, half = total(jnp.array([1.0, 0.5]))
    assert float(half) == pytest.approx(float(whole) / 2, rel=1e-12)  # the same plan, scaled
    assert float(whole) > 0.5 * 50


KEYS = jax.random.split(jax.random.key(3), 100)


def test_finite_horizon_schedules_keep_alpha_of_the_optimum_from_any_start():
    for start in (initial_state(Q), jnp.array([0, 2, 3], jnp.int32)):
        found = finite_programme(Q, 12, start=np.asarray(start))
        trace = run_from(markov_schedule(found.occupancy), start)
        np.testing.assert_array_equal(trace["first"], np.broadcast_to(start, trace["first"].shape))
        assert int(trace["below"].sum()) == 0
        total = np.asarray(trace["payoff"]).sum(1)
        assert total.mean() >= ALPHA[1] * found.value - ERRORS * total.std(ddof=1) / np.sqrt(len(total)) - SIMPLEX
        assert total.mean() <= found.value + ERRORS * total.std(ddof=1) / np.sqrt(len(total)) + SIMPLEX


@jax.jit
def run_from(schedule, start):
    observe = lambda p, seen: watch(p, seen) | {"first": seen.state.virtual}  # noqa: E731
    one = lambda key: simulate(Q, schedule, 12, key, start=start, observe=observe).trace  # noqa: E731
    trace = jax.vmap(one)(jax.random.split(jax.random.key(1), 1000))
    return trace | {"first": trace["first"][:, 0]}


# ---- its guarantee ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plays", [1, 2])
@pytest.mark.parametrize("problem", [Q, SLOW], ids=["reset", "decrement"])
def test_the_guarantee_is_the_mean_of_the_best_virtual_payoffs(problem, plays):
    found = occupation_programme(problem, plays)
    promised = expected_best(found.occupancy.play, problem.payoffs, plays)
    for rule in ("virtual", "real"):
        schedule = markov_schedule(found.occupancy, plays, rule=rule)
        np.testing.assert_allclose(schedule.guarantee(problem), promised, rtol=0, atol=SIMPLEX)
    for start in ("one", "just"):
        other = schedule.guarantee(dataclasses.replace(problem, start=start))
        # one play behind for ever: docs/proofs/lsd.md#t15
        assert jnp.isnan(other) if (problem is SLOW and start == "just") else other == schedule.guarantee(problem)


def test_without_its_premises_the_guarantee_is_no_number():
    found = occupation_programme(Q)
    schedule = markov_schedule(found.occupancy)
    turned = dataclasses.replace(Q, payoffs=Q.payoffs[:, ::-1])
    assert jnp.isnan(schedule.guarantee(turned))
    # scores below the payoffs save it, above them they do not
    low = dataclasses.replace(schedule, scores=Q.payoffs / 2)
    assert low.guarantee(Q) == schedule.guarantee(Q) / 2
    assert jnp.isnan(dataclasses.replace(schedule, scores=Q.payoffs + 0.01).guarantee(Q))
    # the chains of one idle rule are not stationary under the other
    run = from_tables([[1.0]], [[0.9, 0.0]])  # two plays, then one round of rest, or two of them
    assert markov_schedule(occupation_programme(run).occupancy).guarantee(run) == pytest.approx(1.9 / 3, abs=SIMPLEX)
    assert jnp.isnan(markov_schedule(occupation_programme(run).occupancy).guarantee(slowly(run)))
    # a plan by rounds has no long run
    assert jnp.isnan(markov_schedule(finite_programme(Q, 4).occupancy).guarantee(Q))
    # rates of single precision are stationary to their own rounding
    rates = type(found.occupancy)(*(x.astype(jnp.float32) for x in found.occupancy))
    single = dataclasses.replace(Q, payoffs=Q.payoffs.astype(jnp.float32))
    value = markov_schedule(rates).guarantee(single)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, schedule.guarantee(Q), rtol=1e-5)


def test_scores_rank_the_arms_that_ask():
    schedule = dataclasses.replace(markov_schedule(occupation_programme(Q).occupancy), chance=jnp.ones((3, 6)))
    scores = jnp.zeros((3, 6)).at[1].set(1.0)
    at = jnp.full(3, 5)
    _, played = schedule.decide(Q, at, at, jnp.asarray(0), KEYS[0])
    _, other = dataclasses.replace(schedule, scores=scores).decide(Q, at, at, jnp.asarray(0), KEYS[0])
    np.testing.assert_array_equal([played, other], [[False, False, True], [False, True, False]])


# ---- choice of arms --------------------------------------------------------------------------------------------------


def test_choice_is_the_best_of_those_who_ask():
    rng = np.random.default_rng(0)
    for trial in range(60):
        score, asked = rng.integers(0, 4, 5) / 4, rng.random(5) < 0.5
        fill = np.where(rng.random(5) < 0.4, rng.random(5), -np.inf) if trial % 2 else None
        if fill is not None:
            fill[asked] = -np.inf
        for plays in (1, 2, 3, 7):
            found = np.asarray(
                play_best(jnp.asarray(score), jnp.asarray(asked), plays, None if fill is None else jnp.asarray(fill))
            )
            order = [(-score[i], i) for i in range(5) if asked[i]]
            rest = [] if fill is None else [(-fill[i], i) for i in range(5) if fill[i] > -np.inf]
            expected = [i for _, i in (sorted(order) + sorted(rest))[:plays]]
            np.testing.assert_array_equal(np.flatnonzero(found), sorted(expected))


def test_quantiles_stay_inside_and_follow_the_law():
    law = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    cdf = jnp.asarray(np.cumsum(law))[None, :]
    at = lambda u: int(inverse_cdf(cdf, jnp.array([u]))[0])  # noqa: E731
    assert [at(u) for u in (1e-300, 0.25, 0.2500001, 1.0)] == [1, 1, 3, 3]
    assert int(inverse_cdf(cdf * (1 - 1e-12), jnp.array([1.0]))[0]) == 4  # a sum short of 1 does not lead outside


# ---- rounds that must be filled --------------------------------------------------------------------------------------


def with_idle_arm(problem):
    payoffs = jnp.concatenate([problem.payoffs, jnp.zeros((1, problem.num_local))])
    return dataclasses.replace(problem, payoffs=payoffs)


def test_fillers_fill_every_round_and_harm_nobody():
    padded = dataclasses.replace(with_idle_arm(Q), allow_idle=False)
    found = occupation_programme(padded)
    schedule = markov_schedule(found.occupancy)
    np.testing.assert_array_equal(schedule.filler, [False, False, False, True])

    def observe(problem, seen):
        return watch(problem, seen) | {"below": jnp.sum((seen.local < seen.state.virtual) & ~schedule.filler)}

    trace = jax.jit(jax.vmap(lambda key: simulate(padded, schedule, 200, key, observe=observe).trace))(KEYS)
    assert np.all(trace["played"] == 1) and int(trace["below"].sum()) == 0
    idle = jax.jit(jax.vmap(lambda key: simulate(with_idle_arm(Q), schedule, 200, key, observe=watch).trace))(KEYS)
    assert int(idle["played"].min()) == 0
    np.testing.assert_array_equal(trace["payoff"], idle["payoff"])  # the filler pays nothing


def test_safe_fill_uses_rounds_that_may_stay_empty():
    schedule = markov_schedule(occupation_programme(with_idle_arm(Q)).occupancy, safe_fill=True)
    assert np.all(run(with_idle_arm(Q), schedule, 50, 20).trace["played"] == 1)


def test_an_arm_that_always_asks_fills_rounds_too():
    problem = from_tables([[0.9, 0.9]], [[0.9]], allow_idle=False)
    schedule = markov_schedule(occupation_programme(problem).occupancy)
    assert not np.any(schedule.filler)
    np.testing.assert_allclose(simulate(problem, schedule, 20, jax.random.key(0)).trace, 0.9)


def test_bad_arguments_are_named():
    found = occupation_programme(Q)
    must = dataclasses.replace(Q, allow_idle=False)
    with pytest.raises(ValueError) as error:
        simulate(must, markov_schedule(found.occupancy), 3, jax.random.key(0))
    assert str(error.value) == (
        "problem: found allow_idle=False and 0 arms that the plan plays never or always, expected at least 1 to fill "
        "rounds with; add an arm without payoff"
    )
    with pytest.raises(ValueError, match=r"rule: found 'best', expected one of \('virtual', 'real'\)"):
        markov_schedule(found.occupancy, rule="best")
    schedule = markov_schedule(found.occupancy, 4)
    for call in (lambda: schedule.init(Q, KEYS[0]), lambda: schedule.guarantee(Q)):
        with pytest.raises(ValueError, match=r"plays: found 4, expected an integer in \[1, 3\]"):
            call()
    with pytest.raises(ValueError, match=r"problem: found 4 arms of 6 states, expected .* \(3, 6\)"):
        markov_schedule(found.occupancy).guarantee(with_idle_arm(Q))
    with pytest.raises(ValueError, match="plays: found 0, expected an integer of at least 1"):
        markov_schedule(found.occupancy, 0)
    with pytest.raises(ValueError, match=r"occupancy: found shapes \(3, 6\), \(2, 6\), expected"):
        markov_schedule(found.occupancy._replace(play=found.occupancy.play[:2]))
