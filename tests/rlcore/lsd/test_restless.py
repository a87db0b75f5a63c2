"""Restless arms: mirrored chains keep order and guarantee, independent ones do not; the law of the coupling."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import envs
from envs.restless_bandits import persistent, restless_monotone
from rlcore.lsd import (
    RestlessBandit,
    as_restless,
    from_tables,
    markov_schedule,
    occupation_programme,
    optimal_average,
    optimal_restless,
    restless_bandit,
    simulate,
    simulate_restless,
)
from rlcore.lsd.restless import kernels_monotone

Q = from_tables([[0.5, 0.7, 0.9], [0.3, 0.6, 0.9]], [[0.3, 0.1], [0.2, 0.0]], payoff_class="monotone")
ERRORS = 4.5  # standard errors allowed
ALPHA = 1 - (1 - 1 / 3) ** 3  # three arms, one play


def watch(problem, seen):
    return jnp.sum(seen.payoff), jnp.sum(seen.local < seen.state.virtual)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def run(problem, schedule, horizon, replicas, coupling):
    one = lambda key: simulate_restless(problem, schedule, horizon, key, coupling=coupling, observe=watch)  # noqa: E731
    return jax.vmap(one)(jax.random.split(jax.random.key(5), replicas))


def mean_and_error(totals, horizon):
    x = np.asarray(totals) / horizon
    return x.mean(), x.std(ddof=1) / np.sqrt(len(x))


def expected_best(play, payoffs):
    """Mean of the largest virtual payoff of one round, by enumerating joint states; at S an arm does not ask."""
    k, s = play.shape
    chance = np.concatenate([np.asarray(play), 1 - np.asarray(play).sum(1, keepdims=True)], axis=1)
    pays = np.concatenate([np.asarray(payoffs), np.zeros((k, 1))], axis=1)
    at = np.indices((s + 1,) * k).reshape(k, -1)
    arms = np.arange(k)[:, None]
    return np.prod(chance[arms, at], axis=0) @ pays[arms, at].max(0)


# ---- the guarantee ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["mirrored", "observed"])
def test_fifteen_random_instances_keep_the_guarantee(coupling):
    for seed in range(15):
        problem = restless_monotone(jax.random.key(seed), 3, 5)
        found = occupation_programme(problem)
        promised = expected_best(found.occupancy.play, problem.payoffs)
        assert promised >= ALPHA * found.value - 1e-9  # HiGHS's rows
        done = run(problem, markov_schedule(found.occupancy), 150, 200, coupling)
        assert int(done.trace[1].sum()) == 0
        mean, error = mean_and_error(done.total, 150)
        assert mean >= promised - ERRORS * error, seed


def test_mirroring_is_what_keeps_persistent_arms_together():
    # Exact: some virtual arm is good with probability 3/4 in every round, and one that is good and asks is played.
    # Mirrored, its real twin is good too. Independent, the twin is good with probability (1 + .96^t) / 2 in round t.
    # The specification's simulations: .752 and, over longer runs, .377.
    problem, horizon = persistent(), 400
    found = occupation_programme(problem)
    assert found.value == pytest.approx(1, abs=1e-9)
    schedule = markov_schedule(found.occupancy)
    apart = 0.75 * np.mean((1 + 0.96 ** np.arange(horizon)) / 2)
    for coupling, exact in (("mirrored", 0.75), ("observed", 0.75), ("independent", apart)):
        done = run(problem, schedule, horizon, 600, coupling)
        mean, error = mean_and_error(done.total, horizon)
        assert abs(mean - exact) <= ERRORS * error, coupling
        assert error < 0.01
        assert (int(done.trace[1].sum()) > 0) == (coupling == "independent")


def test_independent_transitions_lose_the_order():
    problem = restless_monotone(jax.random.key(0), 3, 5)
    done = run(problem, markov_schedule(occupation_programme(problem).occupancy), 150, 200, "independent")
    assert int(done.trace[1].sum()) > 0


# ---- the coupling ----------------------------------------------------------------------------------------------------


def joint_law(real, virtual):
    """Law of (quantile of `real`, quantile of `virtual`) at one uniform number: lengths of overlaps."""
    top, other = np.cumsum(real), np.cumsum(virtual)
    low, below = top - real, other - virtual
    return np.maximum(np.minimum(top[:, None], other[None, :]) - np.maximum(low[:, None], below[None, :]), 0)


@pytest.mark.parametrize("coupling", ["mirrored", "observed", "independent"])
def test_one_transition_has_the_joint_law_of_its_coupling(coupling):
    problem = restless_monotone(jax.random.key(2), 1, 4)
    play, idle = np.asarray(problem.play[0]), np.asarray(problem.idle[0])
    count = 20_000
    # virtual state 1 always asks; the real arm in state 2 is then played
    schedule = dataclasses.replace(
        markov_schedule(occupation_programme(problem).occupancy),
        chance=jnp.ones((1, 4)),
        law=jnp.array([[0.0, 1.0, 0.0, 0.0]]),
    )
    start = jnp.array([2], jnp.int32)
    one = lambda key: simulate_restless(problem, schedule, 1, key, coupling=coupling, start=start)  # noqa: E731
    done = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))
    found = np.zeros((4, 4))
    np.add.at(found, (np.asarray(done.local)[:, 0], np.asarray(done.state.following)[:, 0]), 1 / count)
    exact = np.outer(play[2], play[1]) if coupling == "independent" else joint_law(play[2], play[1])
    np.testing.assert_allclose(exact.sum(1), play[2], rtol=0, atol=1e-12)
    assert np.all(np.abs(found - exact) <= 5 * np.sqrt(exact * (1 - exact) / count) + 1e-12)
    assert not np.allclose(play, idle)


def test_fixed_kernels_move_as_the_switching_bandit_does():
    for rule in ("reset", "decrement"):
        table = np.sort(np.random.default_rng(4).random((3, 5)), axis=1)
        problem = from_tables(table[:, 2:], table[:, 1::-1], idle_rule=rule)
        schedule = markov_schedule(occupation_programme(problem, 2).occupancy, 2)
        keys = jax.random.split(jax.random.key(0), 20)
        ours = jax.jit(jax.vmap(lambda key: simulate_restless(as_restless(problem), schedule, 60, key)))(keys)
        theirs = jax.jit(jax.vmap(lambda key: simulate(problem, schedule, 60, key)))(keys)
        np.testing.assert_array_equal(ours.trace, theirs.trace)
        np.testing.assert_array_equal(ours.local, theirs.local)


# ---- what is promised, and the optimum ------------------------------------------------------------------------------


def test_the_guarantee_is_the_mean_of_the_best_virtual_payoff_or_no_number():
    for seed in range(5):
        problem = restless_monotone(jax.random.key(seed), 3, 5)
        found = occupation_programme(problem)
        schedule = markov_schedule(found.occupancy)
        promised = expected_best(found.occupancy.play, problem.payoffs)
        np.testing.assert_allclose(schedule.guarantee(problem), promised, rtol=0, atol=1e-9)  # HiGHS's rows
        # play that leads higher than rest, payoffs that fall, chains of other arms: nothing is proven
        assert jnp.isnan(schedule.guarantee(RestlessBandit(problem.idle, problem.play, problem.payoffs)))
        assert jnp.isnan(schedule.guarantee(dataclasses.replace(problem, payoffs=problem.payoffs[:, ::-1])))
        other = dataclasses.replace(restless_monotone(jax.random.key(seed + 5), 3, 5), payoffs=problem.payoffs)
        assert jnp.isnan(schedule.guarantee(other))


def joint_optimum(problem, plays):
    """The best long-run average by the linear programme of the joint chain, whose states all reach each other."""
    k, s = problem.payoffs.shape
    states = np.array(list(itertools.product(range(s), repeat=k)))
    sets = [a for a in itertools.product([0, 1], repeat=k) if sum(a) <= plays]
    columns, gain = [], []
    for e in states:
        for a in sets:
            laws = [np.asarray((problem.play if a[i] else problem.idle)[i, e[i]]) for i in range(k)]
            columns.append((states == e).all(1) - functools.reduce(np.kron, laws))
            gain.append(sum(a[i] * problem.payoffs[i, e[i]] for i in range(k)))
    rows = np.vstack([np.array(columns).T, np.ones(len(gain))])
    right = np.append(np.zeros(len(states)), 1)
    return -scipy.optimize.linprog(-np.array(gain), A_eq=rows, b_eq=right, method="highs").fun


@pytest.mark.parametrize("plays", [1, 2])
def test_the_optimum_of_restless_arms(plays):
    for seed in range(3):
        problem = restless_monotone(jax.random.key(seed), 2, 3)
        found = optimal_restless(problem, plays)
        assert found.status == 0 and found.upper - found.lower <= 1e-9 and found.states == 9
        exact = joint_optimum(problem, plays)
        assert found.lower - 1e-8 <= exact <= found.upper + 1e-8  # HiGHS's rows
        assert found.upper <= occupation_programme(problem, plays).value + 1e-8
    # fixed kernels: Howard's method on the switching bandit
    exact, found = optimal_average(Q, plays), optimal_restless(as_restless(Q), plays)
    assert found.lower <= exact.upper and exact.lower <= found.upper and found.status == 0


# ---- classes and instances -------------------------------------------------------------------------------------------


def test_families_are_what_they_claim_and_batch():
    keys = jax.random.split(jax.random.key(0), 8)
    batch = jax.jit(jax.vmap(lambda key: restless_monotone(key, 2, 6)))(keys)
    assert batch.num_arms == 2 and batch.num_local == 6
    for i in range(8):
        one = RestlessBandit(*(x[i] for x in (batch.play, batch.idle, batch.payoffs)))
        assert kernels_monotone(one)
        checked = restless_bandit(one.play, one.idle, one.payoffs, payoff_class="monotone")
        np.testing.assert_array_equal(checked.play, one.play)
    assert kernels_monotone(envs.make("restless_bandits/persistent", k=3))
    table = np.sort(np.random.default_rng(0).random((2, 5)), axis=1)
    for rule in ("reset", "decrement"):
        assert kernels_monotone(as_restless(from_tables(table[:, 2:], table[:, 1::-1], idle_rule=rule)))


GOOD = np.array([[[0.5, 0.5], [0.25, 0.75]]])
BACK = np.array([[[0.25, 0.75], [0.5, 0.5]]])
PAYS = np.array([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("play", "idle", "payoffs", "message"),
    [
        (GOOD, GOOD, PAYS[0], "payoffs: found shape (2,), expected [k, S] with k, S >= 1"),
        (GOOD[0], GOOD, PAYS, "play: found shape (2, 2), expected (1, 2, 2)"),
        (GOOD, GOOD * 2, PAYS, "idle: found row [1. 1.] of arm 0, state 0, expected probabilities of sum 1"),
        (GOOD - 0.5, GOOD, PAYS, "play: found row [0. 0.] of arm 0, state 0, expected probabilities of sum 1"),
        (GOOD, GOOD * np.nan, PAYS, "idle: found row [nan nan] of arm 0, state 0, expected probabilities of sum 1"),
        (GOOD, GOOD, 2 * PAYS, "payoffs: found 2.0 at (0, 1), expected payoffs in [0, 1]"),
        (GOOD, GOOD, PAYS * np.nan, "payoffs: found nan at (0, 0), expected payoffs in [0, 1]"),
        (
            GOOD, GOOD, PAYS[:, ::-1],
            "payoff_class: found arm 0 with a payoff that falls at state 0, expected 'monotone' arms",
        ),
        (
            BACK, GOOD, PAYS,
            "payoff_class: found arm 0 with `play` not stochastically monotone at state 0, expected 'monotone' arms",
        ),
        (
            GOOD, BACK, PAYS,
            "payoff_class: found arm 0 with `idle` not stochastically monotone at state 0, expected 'monotone' arms",
        ),
        (
            GOOD, np.array([[[0.5, 0.5], [0.5, 0.5]]]), PAYS,
            "payoff_class: found arm 0 with `idle` that does not dominate `play` at state 1, expected 'monotone' arms",
        ),
    ],
)  # fmt: skip
def test_bad_arms_are_named(play, idle, payoffs, message):
    with pytest.raises(ValueError) as error:
        restless_bandit(play, idle, payoffs, payoff_class="monotone")
    assert str(error.value) == message


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"payoff_class: found 'odd', expected one of \('monotone', 'arbitrary'\)"):
        restless_bandit(GOOD, GOOD, PAYS, payoff_class="odd")
    for play, idle in ((BACK, GOOD), (GOOD, BACK), (GOOD, np.full((1, 2, 2), 0.5))):
        assert not kernels_monotone(restless_bandit(play, idle, PAYS))
    schedule = markov_schedule(occupation_programme(persistent()).occupancy)
    with pytest.raises(ValueError, match="coupling: found 'shared', expected one of"):
        simulate_restless(persistent(), schedule, 3, jax.random.key(0), coupling="shared")
    with pytest.raises(ValueError, match="horizon: found 0, expected an integer of at least 1"):
        simulate_restless(persistent(), schedule, 0, jax.random.key(0))
    for start, message in (
        (jnp.array([0, 2]), r"start: found local states in \[0, 2\], expected \[0, 1\]"),
        (jnp.array([-1, 0]), r"start: found local states in \[-1, 0\]"),
        (jnp.array([0]), r"start: found int64\(1,\), expected integers of shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate_restless(persistent(), schedule, 3, jax.random.key(0), start=start)
    with pytest.raises(ValueError, match=r"problem: found 2 arms of 2 states, 48 pairs .* expected at most 47"):
        optimal_restless(persistent(), limit=47)
    with pytest.raises(ValueError, match=r"plays: found 3, expected an integer in \[1, 2\]"):
        optimal_restless(persistent(), 3)
    for sizes, message in (((0, 3), "k: found 0, expected"), ((2, 0), "S: found 0, expected an integer >= 1")):
        with pytest.raises(ValueError, match=message):
            restless_monotone(jax.random.key(0), *sizes)
    with pytest.raises(ValueError, match=r"concentration: found 0.0, expected a finite number above 0"):
        restless_monotone(jax.random.key(0), 2, 3, 0.0)
    with pytest.raises(ValueError, match="k: found 0, expected"):
        persistent(0)
    with pytest.raises(ValueError, match=r"stay: found 0.2, expected a probability in \[1/2, 1\)"):
        persistent(stay=0.2)
