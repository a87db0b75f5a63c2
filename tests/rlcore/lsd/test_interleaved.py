"""The interleaved schedule against naive replays, their proven values and golden numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    Interleaved,
    SwitchingBandit,
    delay_relaxation,
    from_delays,
    from_tables,
    interleaved,
    relaxation,
    simulate,
)
from rlcore.lsd.interleaved import interleaved_value, play_rates

KEY = jax.random.key(0)
bounds = jax.jit(lambda planner, problem: planner.guarantee(problem))


@functools.partial(jax.jit, static_argnames=("horizon", "runs"))
def rewards(problem, planner, horizon, runs=500):
    keys = jax.random.split(jax.random.key(horizon), runs)
    return jax.lax.map(lambda key: simulate(problem, planner, horizon, key, observe=None).total, keys, batch_size=500)


def four_errors(x):
    return 4 * np.std(x, ddof=1) / len(x) ** 0.5


def step_delays(delays):
    table = 1.0 * (np.arange(1, max(delays) + 1)[None, :] >= np.array(delays)[:, None])
    return from_delays(table, payoff_class="monotone")


def test_delay_relaxation_is_the_relaxation():
    rng = np.random.default_rng(0)
    solve = jax.jit(lambda p: (delay_relaxation(p), delay_relaxation(p, 2), relaxation(p), relaxation(p, 2)))
    for trial in range(20):
        table = np.round(rng.random((4, 6)), 1) if trial % 2 else rng.random((4, 6))
        problem = from_delays(table)
        one, two, whole, whole2 = solve(problem)
        np.testing.assert_allclose((one.value, two.value), (whole.value, whole2.value), rtol=0, atol=1e-13)
        for m, plan in ((1, one), (2, two)):
            assert plan.gap <= 1e-13 and jnp.all(plan.run <= 1) and jnp.sum(play_rates(plan)) <= m + 1e-13
            pays = np.take_along_axis(table, np.asarray(plan.idle), axis=1) * np.asarray(plan.run)
            earned = np.sum(np.asarray(plan.weight) * pays / np.asarray(plan.idle + plan.run))
            np.testing.assert_allclose(earned, plan.value, rtol=0, atol=1e-13)


def test_interleaving_is_the_order_of_all_times():
    rates = jnp.array([0.31, 0.2, 0.0, 0.17])
    problem = from_delays(np.ones((4, 3)))
    planner = Interleaved(rates)
    observe = lambda p, s: jnp.where(jnp.any(s.played), jnp.argmax(s.played), 4)  # noqa: E731
    run = jax.jit(lambda key: simulate(problem, planner, 300, key, observe=observe).trace)
    for seed in range(3):
        key = jax.random.key(seed)
        found = run(key)
        offset = np.asarray(planner.init(problem, jax.random.split(key)[0]).offset)
        every = np.append(rates, 1 - np.sum(rates))
        times = [
            ((u + n) / x, i) for i, (u, x) in enumerate(zip(offset, every, strict=True)) if x > 0 for n in range(300)
        ]
        np.testing.assert_array_equal(found, [i for _, i in sorted(times)[:300]])


def test_single_precision_keeps_rates_and_orders_short_runs():
    # multiples of 2^-12: their sum, hence the dummy's rate, is exact in whatever order
    rates = jnp.array([1195, 874, 275, 704], jnp.float32) / 4096
    problem, horizon = from_delays(np.ones((4, 3), np.float32)), 200_000
    planner = Interleaved(rates)
    observe = lambda p, s: jnp.where(jnp.any(s.played), jnp.argmax(s.played), 4)  # noqa: E731
    found = np.asarray(jax.jit(lambda key: simulate(problem, planner, horizon, key, observe=observe).trace)(KEY))
    offset = np.asarray(planner.init(problem, jax.random.split(KEY)[0]).offset, np.float64)
    assert planner.init(problem, KEY).offset.dtype == jnp.float32
    every = np.append(rates, 1 - jnp.sum(rates)).astype(np.float64)  # the dummy's as it is computed there
    times = [(u + np.arange(horizon * x + 9)) / x for u, x in zip(offset, every, strict=True)]
    arms = np.repeat(np.arange(5), [len(x) for x in times])
    times = np.concatenate(times)
    order = np.argsort(times, kind="stable")[:horizon]
    # a count plus an offset, their sum and a quotient: two roundings of eps / 2 relatively, on either side of a gap
    gaps, error = np.diff(times[order]), 2 * np.finfo(np.float32).eps * times[order[1:]]
    close = np.append(gaps <= error, False) | np.append(False, gaps <= error)
    assert np.all((found == arms[order]) | close) and np.mean(close) < 0.05
    # every arm has had its plays, but for the round in progress
    assert np.all(np.abs(np.bincount(found, minlength=5) - np.bincount(arms[order], minlength=5)) <= 1)


@pytest.mark.parametrize(
    ("delays", "golden"), [((3, 4, 5, 5), 0.752), ((2, 3, 7), 0.750), ((6, 7, 8, 9, 10, 11, 12), 0.681)]
)
def test_steps_lose_more_when_interleaved(delays, golden):
    # spec T10, falsifier: simulated there over a finite horizon, which loses a little
    problem = step_delays(delays)
    planner = interleaved(problem)
    value = relaxation(problem, 1).value
    np.testing.assert_allclose(play_rates(delay_relaxation(problem)), 1 / np.array(delays), rtol=1e-12)
    ratio = bounds(planner, problem) / value
    assert abs(ratio - golden) < 5e-3 and ratio < 1 - 1 / (2 * np.e)
    # the long-run value is exact: T rounds differ by the ends, k + 1 payoffs each
    mean = rewards(problem, planner, 1000) / 1000
    assert abs(jnp.mean(mean) - ratio * value) <= four_errors(mean) + 2 * (len(delays) + 1) / 1000


def test_equal_delays_make_a_perfect_round_robin():
    problem = step_delays((4, 4, 4, 4))
    np.testing.assert_allclose(bounds(interleaved(problem), problem), 1, rtol=1e-12)


def test_concave_payoffs_keep_their_share():
    share = 1 - 1 / (2 * np.e)

    def ratio(key):
        rises = -jnp.sort(-(jax.random.uniform(key, (4, 6)) ** 3), axis=1)
        problem = SwitchingBandit(jnp.cumsum(rises, axis=1) / 6, 1)
        plan = delay_relaxation(problem)
        return interleaved_value(problem, play_rates(plan)) / plan.value

    ratios = jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(0), 300))
    assert jnp.min(ratios) >= share
    # nearly tight: one arm capped at delay 2, many that pay nothing in between
    for others, above in ((20, 6e-3), (200, 6e-4)):
        problem = from_delays(np.concatenate([[[0.5, 1.0]], np.zeros((others, 2))]))
        rates = jnp.append(0.5, jnp.full(others, 0.5 / others))
        assert share <= interleaved_value(problem, rates) / 0.5 <= share + above


def test_interleaving_of_must_play_problems_and_bad_input():
    table = [[0.0, 0.5, 1.0], [0.0, 0.3, 0.6], [0.0, 0.0, 0.0]]
    problem = from_delays(table, allow_idle=False)
    planner = Interleaved(jnp.array([0.3, 0.3, 0.0]))
    played = simulate(problem, planner, 200, jax.random.key(0), observe=lambda p, s: s.played).trace
    assert jnp.all(jnp.sum(played, axis=1) == 1) and jnp.sum(played[:, 2]) > 60
    # below 1e-12 is no rate, wherever it is read: that arm fills rounds and never has its own
    faint = Interleaved(jnp.array([0.3, 0.3, 1e-13]))
    np.testing.assert_array_equal(
        simulate(problem, faint, 200, jax.random.key(0), observe=lambda p, s: s.played).trace, played
    )
    # what a sum of rates lacks of 1 by rounding is no dummy
    for dtype, count in ((jnp.float32, 3), (jnp.float32, 49), (jnp.float64, 49)):
        full = from_delays(np.ones((count, 2)), allow_idle=False)
        rates = jnp.full(count, (1 - 2 * jnp.finfo(dtype).eps) / count, dtype)
        observe = lambda p, s: s.played  # noqa: E731
        trace = simulate(full, Interleaved(rates), 5 * count, jax.random.key(0), observe=observe).trace
        np.testing.assert_array_equal(jnp.sum(trace, axis=0), 5)
    with pytest.raises(ValueError, match=r"must-play model .* with 0.4 of the rounds left empty"):
        simulate(problem, Interleaved(jnp.array([0.3, 0.2, 0.1])), 5, jax.random.key(0))
    with pytest.raises(ValueError, match=r"found satiation depth 2, expected 1"):
        interleaved(from_tables([[0.5]], [[0.2, 0.1]]))
    with pytest.raises(ValueError, match=r"plays: found 9, expected an integer in \[1, 3\]"):
        delay_relaxation(problem, 9)
