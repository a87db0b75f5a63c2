"""Baselines: published totals, enumeration written once more, planners that earn what they announce, bad input."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    AdvantageIndex,
    BestFixedArm,
    Greedy,
    RoundRobin,
    WhittlePolicy,
    alpha,
    best_calendar,
    calibrated_calendar,
    dual_price,
    from_delays,
    from_tables,
    optimal_average,
    purely_periodic,
    relaxation,
    simulate,
)

# Totals of at most 4 000 payoffs in [0, 1], rounded at every addition.
TOTAL = 4000 * 4000 * 2.3e-16
EXACT = 1e-13
KEY = jax.random.key(0)


def bandit(up, down, **options):
    return from_tables(jnp.asarray(up, float), jnp.asarray(down, float), **options)


def reference(**options):
    up = [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]]
    return bandit(up, [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]], **options)


def main_instance():
    table = np.full((5, 10), 0.15)
    table[1], table[1, 2] = 0, 0.95
    table[2], table[2, 5], table[2, 8:] = 0.14, 0.16, 0.96
    return from_delays(jnp.asarray(table), start="just")


def supplement(start):
    table = np.full((2, 11), 0.05)
    table[1], table[1, 0] = 0.95, 0.06
    return from_delays(jnp.asarray(table), start=start)


RUN = jax.jit(lambda problem, planner, key: simulate(problem, planner, 600, key).trace)


def test_greedy_on_the_released_instances():
    for problem, horizon, expected in (
        (main_instance(), 3600, 548.39),
        (supplement("just"), 3300, 198.00),
        (supplement("one"), 3300, 198.89),
    ):
        run = jax.jit(jax.vmap(lambda key, p=problem, t=horizon: simulate(p, Greedy(), t, key, observe=None).total))
        # Ties are between equal arms: every draw earns the same.
        np.testing.assert_allclose(run(jax.random.split(KEY, 3)), expected, rtol=0, atol=TOTAL)


def test_simple_planners_on_the_reference_instance():
    problem = reference()
    first = RUN(problem, Greedy(ties="first"), KEY)
    # In the long run; printed to four decimals. Its cycle is short: 600 rounds hold it many times over.
    assert abs(first[100:].mean() - 0.6601) < 0.002
    np.testing.assert_allclose(RUN(problem, RoundRobin(), KEY)[3:], [0.7, 0.6, 0.2] * 199, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(RUN(problem, BestFixedArm(), KEY)[2:], np.r_[0.1, np.full(597, 0.1)])
    best = optimal_average(problem).lower
    assert all(RUN(problem, p, KEY).mean() < best for p in (Greedy(), RoundRobin(), BestFixedArm()))


def test_greedy_is_trapped():
    problem = bandit([[0.05], [0.95]], [[0.05, 0.05], [0.1, 0.1]])
    assert np.all(RUN(problem, Greedy(), KEY)[1:] == 0.1)
    np.testing.assert_allclose(best_calendar(problem, 2).value, 0.5, rtol=0, atol=EXACT)


def test_greedy_may_leave_rounds_empty_where_nothing_pays():
    # Two arms that pay 1 at delays of at least 3: played at 0, the first one never rests again.
    problem = from_delays(jnp.asarray([[0.0, 0.0, 1.0]] * 2))
    idle = Greedy(ties="first", idle_at_zero=True)
    assert RUN(problem, idle, KEY).tolist() == [1, 1, 0] * 200
    assert RUN(problem, Greedy(ties="first"), KEY).tolist() == [1, 1, 0, 0, 1, 0] + [0, 1, 0] * 198
    played = lambda planner, steps: simulate(problem, planner, steps, KEY, observe=lambda _, r: r.played).trace  # noqa: E731
    assert played(idle, 3).tolist() == [[True, False], [False, True], [False, False]]
    # Of two plays a round both are made where both arms pay, none where neither does.
    both = played(Greedy(plays=2, idle_at_zero=True), 4)
    assert both.tolist() == [[True, True], [False, False], [False, False], [True, True]]
    # Where every payoff is positive the option changes nothing.
    np.testing.assert_array_equal(RUN(reference(), idle, KEY), RUN(reference(), Greedy(ties="first"), KEY))


@pytest.mark.parametrize("delays", [(2, 3, 6), (3, 4, 4), (5, 5, 5), (2, 2, 2)])
def test_greedy_on_blocking_arms_keeps_its_share(delays):
    table = [
        [reward if d >= due else 0.0 for d in range(1, 7)] for due, reward in zip(delays, (0.4, 1, 0.7), strict=True)
    ]
    problem = from_delays(jnp.asarray(table))
    trace = RUN(problem, Greedy(ties="first", idle_at_zero=True), KEY)
    np.testing.assert_array_equal(trace[-120:-60], trace[-60:])  # whole periods
    earned = trace[-60:].mean()
    assert earned >= alpha(3) * relaxation(problem).value - EXACT
    assert earned <= optimal_average(problem).upper + EXACT


def test_several_plays_and_random_ties():
    problem = bandit(np.full((4, 2), 0.5), np.full((4, 1), 0.5))
    played = jax.jit(
        lambda planner, key: simulate(problem, planner, 600, key, observe=lambda _, r: r.played).trace,
    )
    for planner in (Greedy(plays=2), RoundRobin(plays=2), BestFixedArm(plays=2), Greedy(plays=2, ties="first")):
        seen = np.asarray(played(planner, KEY))
        assert np.all(seen.sum(axis=1) == 2)
        if planner == Greedy(plays=2):
            # Each arm in half of the rounds; standard deviation sqrt(600) / 2 = 12.
            assert np.all(np.abs(seen.sum(axis=0) - 300) < 5 * 12.3)
        if planner == RoundRobin(plays=2):
            assert seen[:3].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]]


def test_round_robin_wraps_when_plays_do_not_divide_the_arms():
    problem = bandit(np.full((3, 2), 0.5), np.full((3, 1), 0.5))
    seen = simulate(problem, RoundRobin(plays=2), 4, KEY, observe=lambda _, r: r.played).trace
    assert seen.tolist() == [[True, True, False], [True, False, True], [False, True, True], [True, True, False]]


def best_cycle(problem, length):
    """The best cycle by Python: 30 passes, the last one counts."""
    up, down = np.asarray(problem.rested), np.asarray(problem.tired)
    arms = range(problem.num_arms)
    best = -np.inf
    for cycle in itertools.product([*arms, *([None] if problem.allow_idle else [])], repeat=length):
        state, total = [problem.recovery] * len(arms), 0.0
        for now in range(30 * length):
            chosen = cycle[now % length]
            for i in arms:
                s = state[i]
                if i == chosen:
                    if now >= 29 * length:
                        total += up[i, s - 1] if s > 0 else down[i, -s - 1]
                    state[i] = -1 if s > 0 else max(s - 1, -problem.satiation)
                elif s > 0:
                    state[i] = min(s + 1, problem.recovery)
                else:
                    state[i] = 1 if problem.idle_rule == "reset" or s == -1 else s + 1
        best = max(best, total / length)
    return best


def test_best_calendars():
    problem = reference()
    for length, value in ((1, 0.1), (2, 0.4), (3, 0.5), (4, 0.525), (5, 0.66)):
        found = best_calendar(problem, length)
        np.testing.assert_allclose(found.value, value, rtol=0, atol=EXACT)
        # The planner earns what it announces, after its first pass or three.
        trace = RUN(problem, found, KEY)[60:]
        np.testing.assert_allclose(trace.mean(), value, rtol=0, atol=EXACT)
    found = best_calendar(main_instance(), 4)
    np.testing.assert_allclose(found.value, 0.3125, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    "options", [{}, {"allow_idle": False}, {"idle_rule": "decrement"}, {"idle_rule": "decrement", "allow_idle": False}]
)
def test_calendars_against_enumeration_in_python(options):
    v = np.random.default_rng(0).random((2, 7))
    problem = bandit(v[:, 4:], v[:, :4], **options)
    for length in (1, 4):
        found = best_calendar(problem, length)
        np.testing.assert_allclose(found.value, best_cycle(problem, length), rtol=0, atol=EXACT)


def test_calibrated_calendars():
    problem = main_instance()
    for order, opening in (("worst", [0, 1, 2, 3, 4]), ("best", [4, 3, 2, 1, 0])):
        found = calibrated_calendar(problem, 3, order)
        assert np.argmax(found.actions[:5], axis=1).tolist() == opening and found.actions.shape == (8, 5)
        np.testing.assert_allclose(RUN(problem, found, KEY)[40:].mean(), found.value, rtol=0, atol=EXACT)
        # Free to choose all its rounds it earns no less: 3 of 8 chosen here.
        assert found.value <= optimal_average(problem).upper


def test_purely_periodic_schedules_are_tight_where_arms_fit():
    # Arm 1 pays at delay 3, arm 2 at 9: offsets must avoid collisions.
    problem = main_instance()
    found = jax.jit(purely_periodic)(problem)
    np.testing.assert_allclose(RUN(problem, found, KEY)[60:].mean(), 4.56 / 9, rtol=0, atol=EXACT)
    # Equal periods: the search finds the round robin; equal offsets would earn a quarter.
    same = from_delays(jnp.asarray([[float(x >= 4) for x in range(1, 6)]] * 4))
    planner = jax.jit(purely_periodic)(same)
    assert np.all(RUN(same, planner, KEY)[10:] == 1) and sorted(planner.offset.tolist()) == [0, 1, 2, 3]


def test_purely_periodic_fills_every_round_where_it_must():
    problem = reference(allow_idle=False)
    planner = jax.jit(purely_periodic)(problem)
    seen = simulate(problem, planner, 100, KEY, observe=lambda _, r: r.played).trace
    assert np.all(np.sum(seen, axis=1) == 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: best_calendar(p, 0), "length: found 0, expected an integer of at least 1"),
        (lambda p: best_calendar(p, 12), "length: found 12, which makes 16777216 cycles of 4 sets of arms"),
        (lambda p: best_calendar(p, 2, 4), "plays: found 4"),
        (lambda p: best_calendar(p, 16, limit=2**33), "which makes 4294967296 cycles .* expected at most 2147483647;"),
        (lambda p: best_calendar(p, 2, opening=[0, 3]), r"opening: found \[0, 3\], expected arms in 0 .. 2"),
        (lambda p: calibrated_calendar(p, 2, "random"), "order: found 'random', expected 'worst' or 'best'"),
        (lambda p: simulate(p, Greedy(ties="last"), 3, KEY), "ties: found 'last', expected one of"),
        (
            lambda p: simulate(reference(allow_idle=False), Greedy(idle_at_zero=True), 3, KEY),
            "idle_at_zero: found True, expected False for a problem that forbids idling",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(reference())


@pytest.mark.parametrize("plays", [0, 4])
def test_no_planner_plays_more_arms_than_there_are(plays):
    problem = reference()
    periods = dataclasses.replace(purely_periodic(problem), plays=plays)
    message = rf"plays: found {plays}, expected an integer in \[1, 3\] \(the number of arms\)"
    for planner in (
        *(kind(plays=plays) for kind in (Greedy, RoundRobin, BestFixedArm, WhittlePolicy)),
        *(AdvantageIndex(price, plays=plays) for price in (None, 0.1)),
        periods,
    ):
        with pytest.raises(ValueError, match=message):
            simulate(problem, planner, 3, KEY)
    with pytest.raises(ValueError, match=message):
        dual_price(problem, plays)
