"""Stretched and coupled schedules against naive replays, their proven values and golden numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    Coupled,
    RandomPhase,
    Relaxation,
    Stretched,
    SwitchingBandit,
    coupled,
    from_tables,
    minorant,
    relaxation,
    simulate,
    stretched,
)
from rlcore.lsd.stretched import run_relaxation

bounds = jax.jit(lambda planner, problem: planner.guarantee(problem))


def cycles(idle, run):
    idle, run = (jnp.asarray(np.stack([x, x], 1), jnp.int32) for x in (idle, run))
    zero = jnp.zeros(())
    return Relaxation(zero, zero, zero, idle, run, jnp.tile(jnp.array([[1.0, 0.0]]), (idle.shape[0], 1)), zero)


@functools.partial(jax.jit, static_argnames=("horizon", "runs"))
def rewards(problem, planner, horizon, runs=500):
    keys = jax.random.split(jax.random.key(horizon), runs)
    return jax.lax.map(lambda key: simulate(problem, planner, horizon, key, observe=None).total, keys, batch_size=500)


def four_errors(x):
    return 4 * np.std(x, ddof=1) / len(x) ** 0.5


def test_runs_without_end_are_the_limit_of_long_runs():
    problem = from_tables([[1.0, 1.0]], [[0.95, 0.9]])  # spec T1: .65 with runs of at most 2
    np.testing.assert_allclose(run_relaxation(problem, 2).value, 0.65, rtol=1e-14)
    np.testing.assert_allclose(relaxation(problem, 1).value, 0.9, rtol=1e-14)
    solve = jax.jit(lambda p: [run_relaxation(p, r).value for r in (3, 8, 24)])
    rng = np.random.default_rng(0)
    for _ in range(10):
        problem = from_tables(rng.random((3, 3)), rng.random((3, 2)))
        v = relaxation(problem, 1).value
        for r, value in zip((3, 8, 24), solve(problem), strict=True):
            assert (1 - 3 / (r + 1)) * v - 1e-13 <= value <= v + 1e-13
    with pytest.raises(ValueError, match=r"longest: found 0, expected an integer of at least 1"):
        run_relaxation(problem, 0)


def played_arm(problem, seen):
    return jnp.where(jnp.any(seen.played), jnp.argmax(seen.played), problem.num_arms), jnp.sum(seen.payoff)


def test_stretched_replay():
    rng = np.random.default_rng(1)
    problem = from_tables(rng.random((4, 3)), rng.random((4, 3)))
    payoffs = np.asarray(problem.payoffs)
    idle, run = np.array([2, 1, 3, 1]), np.array([3, 1, 5, 0])
    planner = Stretched(cycles(idle, run))
    worth = [
        payoffs[i, 2 + idle[i]] + sum(payoffs[i, max(3 - j, 0)] for j in range(1, run[i])) if run[i] else 0
        for i in range(4)
    ]
    run_it = jax.jit(lambda key: simulate(problem, planner, 150, key, observe=played_arm).trace)
    for seed in range(3):
        key = jax.random.key(seed)
        arms, _ = run_it(key)
        state = planner.init(problem, jax.random.split(key)[0])
        np.testing.assert_allclose(state.worth, worth, rtol=1e-14)
        phase, until, arm, expected = np.array(state.phase), 0, 4, []
        for t in range(150):
            begins = [i for i in range(4) if run[i] and phase[i] == 2 * idle[i] + run[i]]
            if t >= until and begins:
                arm = max(begins, key=lambda i: worth[i])
                until = t + run[arm]
            expected.append(arm if t < until else 4)
            phase = (phase + 1) % (2 * (idle + run))
        np.testing.assert_array_equal(arms, expected)


def test_longer_rest_is_credited_with_the_least():
    # planned at +1, which pays 1; but a run begins after 3 rounds of rest, at +2, which pays nothing
    problem = from_tables([[1.0, 0.0]], [[0.0]])
    planner = Stretched(cycles(np.array([1]), np.array([1])))
    assert bounds(planner, problem) == 0 and simulate(problem, planner, 40, jax.random.key(0)).total <= 1


def test_stretched_runs_keep_a_quarter():
    rng = np.random.default_rng(2)
    build = jax.jit(lambda p: stretched(p, 12))
    for trial in range(4):
        problem = from_tables(np.sort(rng.random((3, 3)), axis=1), rng.random((3, 2)), payoff_class="recovering")
        planner = build(problem)
        bound = bounds(planner, problem)
        assert bound >= planner.plan.value / 4 - 1e-14
        if trial < 2:
            mean = rewards(problem, planner, 2000) / 2000
            # the first run of an arm may be cut by the start: at most two periods of 30 rounds each
            assert jnp.mean(mean) >= bound - four_errors(mean) - 3 * 60 / 2000


def test_short_runs_interrupt_a_long_one():
    short, random, whole = 8, 0.225, 0.418
    # spec T11: arm 0 pays 1 in state -19 alone
    idle, run = np.array([20] + [2 * short - 1] * short), np.array([20] + [1] * short)
    rest, play = np.zeros((short + 1, 2 * short)), np.zeros((short + 1, 20))
    rest[1:], play[0, 18] = 0.02, 1.0
    problem = from_tables(rest, play, payoff_class="recovering")
    planned = 1 / 40 + 0.01
    preempted = rewards(problem, RandomPhase(cycles(idle, run)), 2000, 1000) / 2000 / planned
    assert abs(jnp.mean(preempted) - random) < four_errors(preempted) + 2e-3
    uncut = rewards(problem, Stretched(cycles(idle, run)), 2000, 1000) / 2000 / planned
    # ties go to the longer run here, which the specification leaves open: more than its number
    assert jnp.mean(uncut) > whole and bounds(Stretched(cycles(idle, run)), problem) / planned >= 0.25


@pytest.mark.parametrize(("k", "golden"), [(4, 0.30), (8, 0.28)])
def test_momentum(k, golden):
    play = np.zeros((k, 10))
    play[:, 8] = 1.0
    problem = from_tables(np.zeros((k, 10)), play)
    np.testing.assert_allclose(relaxation(problem, 1).value, 0.1, rtol=1e-14)
    planner = RandomPhase(cycles([(k - 1) * 10] * k, [10] * k))
    share = rewards(problem, planner, 40 * k, 2000) / (40 * k) / 0.1
    # the start is rested and T covers 4 periods; two digits are given
    assert abs(jnp.mean(share) - golden) < four_errors(share) + 0.01


def test_coupled_replay():
    rng = np.random.default_rng(3)
    problem = from_tables(rng.random((5, 4)), rng.random((5, 2)))
    idle, run = np.array([1, 2, 1, 3, 1]), np.array([1, 1, 1, 1, 0])
    planner = Coupled(cycles(idle, run))
    pays = np.asarray(problem.rested)[np.arange(5), idle - 1]
    run_it = jax.jit(lambda key: simulate(problem, planner, 200, key, observe=played_arm).trace)
    for seed in range(3):
        key = jax.random.key(seed)
        arms, payoff = run_it(key)
        phase, owner, collects = np.array(planner.init(problem, jax.random.split(key)[0]).phase), {}, {}
        for t in range(200):
            free = lambda s: s not in owner  # noqa: E731
            asks = [i for i in range(5) if run[i] and phase[i] == 0 and free(t) and free(t + idle[i] + 1)]
            if asks:
                i = max(asks, key=lambda i: pays[i])
                owner[t] = owner[t + idle[i] + 1] = i
                collects[t + idle[i] + 1] = pays[i]
            phase = (phase + 1) % (8 * (idle + 1))
        np.testing.assert_array_equal(arms, [owner.get(t, 5) for t in range(200)])
        late = [t for t in collects if t < 200]
        # the second play is worth exactly what the plan says
        np.testing.assert_array_equal(payoff[np.array(late)], [collects[t] for t in late])


def test_spikes_are_collected_in_time():
    for delays in ((3, 4, 5, 5), (4, 5, 6, 7, 8, 9)):
        spikes = 1.0 * (np.arange(1, max(delays) + 1)[None] == np.array(delays)[:, None] - 1)
        problem = from_tables(spikes, np.zeros((len(delays), 1)))
        planner = coupled(problem)
        mean = rewards(problem, planner, 2000) / 2000
        bound = bounds(planner, problem)
        assert bound >= planner.plan.value / 16 - 1e-14 and jnp.mean(mean) >= bound - four_errors(mean)
        assert 0.102 - 5e-3 < jnp.mean(mean) / planner.plan.value < 0.120  # spec T12


def test_any_payoffs_keep_a_twentieth():
    # spec T12, with runs of at most R = 12: the better of the two proven values
    def ratio(key):
        payoffs = jax.random.uniform(key, (4, 6))
        problem = SwitchingBandit(payoffs, 2)
        blank = dataclasses.replace(problem, payoffs=payoffs.at[:, 2:].set(0))
        runs, tasks = run_relaxation(blank, 12), run_relaxation(problem, 1)
        first, second = Stretched(runs).guarantee(blank), Coupled(tasks).guarantee(problem)
        sharper = stretched(problem, 12)
        best = jnp.maximum(first, second)
        return jnp.stack(
            [
                best / ((1 - 3 / 13) * relaxation(problem).value / 20),
                first / (runs.value / 4),
                second / (tasks.value / 16),
                # planning with the payoffs after rest that are sure is at least as good in value
                sharper.plan.value / runs.value,
                relaxation(minorant(problem, "recovering")).value / runs.value,
            ]
        )

    ratios = jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(0), 100))
    assert jnp.min(ratios) >= 1 - 1e-12


def test_must_play_and_bad_input():
    problem = from_tables([[0.5, 1.0], [0.2, 0.7]], [[0.0], [0.0]], allow_idle=False)
    for build in (stretched, coupled):
        with pytest.raises(ValueError, match=r"must-play model .* with 0 arms"):
            build(problem)
    padded = from_tables([[0.5, 1.0], [0.2, 0.7], [0.1, 0.1]], [[0.0], [0.0], [0.1]], allow_idle=False)
    for build in (stretched, coupled):
        arms, payoff = simulate(padded, build(padded), 100, jax.random.key(0), observe=played_arm).trace
        assert jnp.all(arms < 3) and jnp.any(arms == 2) and jnp.min(payoff[arms == 2]) == 0.1
    gradual = dataclasses.replace(padded, idle_rule="decrement")
    with pytest.raises(ValueError, match=r"idle_rule: found 'decrement', expected 'reset'"):
        coupled(gradual)
