"""Programmes on the host: against all policies of one arm, dynamic programming, the cycle programme, known values."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.restless_bandits import persistent, restless_monotone
from rlcore.lsd import (
    SwitchingBandit,
    advance,
    as_restless,
    cycle_programme,
    finite_programme,
    from_tables,
    initial_state,
    occupation_programme,
)

# HiGHS's vertices are solves of a few dozen equations with entries near 1; its own tolerance is 1e-10 per row.
SIMPLEX = 1e-9
RULES = ("reset", "decrement")


def switching(k, deep, low, rule, seed):
    table = np.sort(np.random.default_rng(seed).random((k, deep + low)), axis=1)
    return from_tables(table[:, low:], table[:, :low][:, ::-1], idle_rule=rule, payoff_class="monotone")


def problems():
    yield switching(2, 2, 2, "reset", 0)
    yield switching(2, 2, 2, "decrement", 1)
    yield switching(3, 1, 3, "decrement", 2)
    yield restless_monotone(jax.random.key(0), 2, 4)
    yield restless_monotone(jax.random.key(1), 3, 3)


def gains(play, idle, payoffs, price):
    """Best average reward of one arm net of a price, over all stationary policies and first states."""
    s = len(payoffs)
    best = -np.inf
    for policy in itertools.product((False, True), repeat=s):
        chosen = np.array(policy)
        law = np.where(chosen[:, None], play, idle)
        lazy = (np.eye(s) + law) / 2  # periodic chains settle too
        limit = np.linalg.matrix_power(lazy, 2**20)
        best = max(best, (limit @ np.where(chosen, payoffs - price, 0)).max())
    return best


@pytest.mark.parametrize("number", range(5))
def test_value_and_price_are_those_of_the_dual_over_all_policies(number):
    problem = list(problems())[number]
    arms = as_restless(problem) if isinstance(problem, SwitchingBandit) else problem
    play, idle, payoffs = (np.asarray(x) for x in (arms.play, arms.idle, arms.payoffs))
    k = len(payoffs)
    for plays in range(1, k + 1):
        found = occupation_programme(problem, plays)
        dual = lambda x, m=plays: m * x + sum(gains(play[i], idle[i], payoffs[i], x) for i in range(k))  # noqa: E731
        assert dual(found.price) == pytest.approx(found.value, abs=SIMPLEX)
        for price in (0.0, found.price / 2, found.price + 0.1, 1.0):
            assert dual(price) >= found.value - SIMPLEX


@pytest.mark.parametrize("number", range(5))
def test_rates_flow_and_attain_the_value(number):
    problem = list(problems())[number]
    arms = as_restless(problem) if isinstance(problem, SwitchingBandit) else problem
    for plays in (1, 2):
        found = occupation_programme(problem, plays)
        idle, play = np.asarray(found.occupancy.idle), np.asarray(found.occupancy.play)
        assert idle.min() >= 0 and play.min() >= 0 and play.sum() <= plays + SIMPLEX
        np.testing.assert_allclose((idle + play).sum(1), 1, rtol=0, atol=SIMPLEX)
        inflow = np.einsum("ie,iex->ix", play, arms.play) + np.einsum("ie,iex->ix", idle, arms.idle)
        np.testing.assert_allclose(inflow, idle + play, rtol=0, atol=SIMPLEX)
        assert (play * np.asarray(problem.payoffs)).sum() == pytest.approx(found.value, abs=SIMPLEX)
        # a price is paid only where plays are scarce
        assert found.price >= 0 and found.price * (plays - play.sum()) == pytest.approx(0, abs=SIMPLEX)
        assert found.value == pytest.approx(occupation_programme(arms, plays).value, abs=SIMPLEX)


def test_recovery_step_by_step_is_worth_less_than_the_cycles():
    gaps = []
    for seed in range(12):
        quick, slow = (switching(2, 3, 3, rule, seed) for rule in RULES)
        gaps.append(cycle_programme(quick).value - occupation_programme(slow).value)
    assert min(gaps) >= -SIMPLEX and max(gaps) > 0.02
    # where a run is never longer than one play the rules are one: L = 1
    quick, slow = (switching(3, 4, 1, rule, 0) for rule in RULES)
    assert cycle_programme(quick).value == pytest.approx(occupation_programme(slow).value, abs=SIMPLEX)


def test_recovery_step_by_step_forgives_longer_starts():
    # three plays from +1 earn 3, more than (3 + 1) V = 2: the transient of "decrement" is s0 + L - 1
    problem = from_tables([[1.0]], [[1.0, 1.0, 0.0]], idle_rule="decrement", start="one")
    assert occupation_programme(problem).value == pytest.approx(0.5, abs=SIMPLEX)
    assert finite_programme(problem, 3, start=initial_state(problem)).value == pytest.approx(3, abs=SIMPLEX)


def test_persistent_arms_are_worth_one_play_each_time_one_is_good():
    for k, plays, value in ((2, 1, 1.0), (2, 2, 1.0), (4, 1, 1.0), (4, 2, 2.0), (1, 1, 0.5)):
        assert occupation_programme(persistent(k), plays).value == pytest.approx(value, abs=SIMPLEX)


# ---- finite horizons -------------------------------------------------------------------------------------------------


def best_total(problem, horizon, plays, discount, start):
    """The most that can be earned, by dynamic programming over all joint local states."""
    k, s = problem.payoffs.shape
    actions = np.array([x for x in itertools.product((False, True), repeat=k) if sum(x) <= plays])
    states = np.array(list(itertools.product(range(s), repeat=k)), np.int32)
    move = jax.vmap(jax.vmap(lambda e, x: advance(problem, e, x), (None, 0)), (0, None))
    payoff, after = move(jnp.asarray(states), jnp.asarray(actions))
    payoff, after = np.asarray(payoff).sum(-1), np.asarray(after) @ (s ** np.arange(k)[::-1])
    value = np.zeros(len(states))
    for _ in range(horizon):
        value = (payoff + discount * value[after]).max(1)
    return value[int(np.asarray(start) @ (s ** np.arange(k)[::-1]))]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("horizon", "discount"), [(1, 1.0), (4, 1.0), (9, 0.8)])
def test_over_a_finite_horizon_one_arm_is_exact_and_two_are_bounded(rule, horizon, discount):
    for k, plays in ((1, 1), (2, 2), (2, 1)):
        problem = switching(k, 3, 2, rule, 5 + k)
        for start in (np.full(k, 4), np.full(k, 1)):
            found = finite_programme(problem, horizon, plays, start=start, discount=discount)
            exact = best_total(problem, horizon, plays, discount, start)
            if plays == k:  # nothing is scarce
                assert found.value == pytest.approx(exact, abs=SIMPLEX)
            assert found.value >= exact - SIMPLEX
            play, idle = np.asarray(found.occupancy.play), np.asarray(found.occupancy.idle)
            assert play.shape == (horizon, k, 5) and found.price.shape == (horizon,)
            assert np.all(play.sum((1, 2)) <= plays + SIMPLEX) and np.all(found.price >= 0)
            np.testing.assert_allclose((play + idle)[0], np.eye(5)[start], rtol=0, atol=SIMPLEX)
            earned = discount ** np.arange(horizon) @ (play * np.asarray(problem.payoffs)).sum((1, 2))
            assert earned == pytest.approx(found.value, abs=SIMPLEX)


def test_a_long_horizon_earns_the_long_run_value():
    problem = switching(3, 3, 2, "reset", 0)
    value = occupation_programme(problem).value
    short, long = finite_programme(problem, 20).value, finite_programme(problem, 60).value
    # 40 rounds more, far from both ends, for 40 V; both within (T + s0) V, s0 = M = 3
    assert long - short == pytest.approx(40 * value, abs=0.05)
    assert 60 * value - SIMPLEX <= long <= 63 * value + SIMPLEX


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: finite_programme(p, 0), "horizon: found 0, expected an integer of at least 1"),
        (lambda p: finite_programme(p, 3, discount=0.0), "discount: found 0.0, expected a number in (0, 1]"),
        (lambda p: finite_programme(p, 3, start=[0, 4]), "start: found [0 4], expected 2 local states in 0 .. 3"),
        (lambda p: finite_programme(p, 3, start=[0]), "start: found [0], expected 2 local states in 0 .. 3"),
        (lambda p: finite_programme(p, 3, 3), "plays: found 3, expected an integer in [1, 2] (the number of arms)"),
        (lambda p: cycle_programme(p, longest=0), "longest: found 0, expected an integer of at least 1"),
        (
            lambda p: occupation_programme(dataclasses.replace(p, payoffs=p.payoffs[None])),
            "problem: found payoffs of shape (1, 2, 4), expected one problem, [k, S]",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError) as error:
        call(switching(2, 2, 2, "reset", 0))
    assert str(error.value) == message


def test_a_solver_that_fails_says_so():
    problem = dataclasses.replace(switching(2, 2, 2, "reset", 0), payoffs=jnp.full((2, 4), jnp.nan))
    with pytest.raises((ValueError, RuntimeError)):
        occupation_programme(problem)
