"""The random-phase schedule against a naive replay with signed states; domination, V_virt and golden values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    RandomPhase,
    Relaxation,
    advance,
    alpha,
    from_tables,
    random_phase,
    relaxation,
    simulate,
    undominated,
)
from rlcore.lsd.choice import payoff_ranks, pick
from rlcore.lsd.random_phase import Phases, asking, turn, virtual_payoff, virtual_state

Q = from_tables(
    [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]],
    [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]],
    payoff_class="monotone",
)


def cycles(idle, run, weight=None):
    """A plan by hand: idle, run [k] or [k, 2]."""
    idle, run = np.asarray(idle), np.asarray(run)
    if idle.ndim == 1:
        idle, run = np.stack([idle, idle], 1), np.stack([run, run], 1)
    weight = np.tile([[1.0, 0.0]], (len(idle), 1)) if weight is None else weight
    zero = jnp.zeros(())
    return Relaxation(
        zero, zero, zero, jnp.asarray(idle, jnp.int32), jnp.asarray(run, jnp.int32), jnp.asarray(weight), zero
    )


# the plan of the specification; there are others of equal value
PLAN_Q = cycles([[1, 1], [3, 3], [4, 4]], [[1, 2], [1, 1], [1, 1]], [[0.7, 0.3], [1, 0], [1, 0]])


@functools.partial(jax.jit, static_argnames=("horizon", "observe", "start"))
def replicas(problem, planner, keys, horizon, observe=None, start=None):
    return jax.vmap(lambda key: simulate(problem, planner, horizon, key, observe=observe, start=start))(keys)


def everything(problem, seen):
    return seen.local, seen.played, jnp.sum(seen.payoff), seen.state.virtual, seen.state.asked


@pytest.mark.parametrize("satiation", [1, 3])
def test_virtual_state_is_that_of_an_arm_played_whenever_it_asks(satiation):
    size = satiation + 4
    pairs = [(t, r) for t in range(1, 6) for r in range(1, 7)] + [(0, 1), (1, 0)]
    idle, run = (jnp.asarray(x, jnp.int32) for x in zip(*pairs, strict=True))
    problem = from_tables(np.ones((len(pairs), 4)), np.ones((len(pairs), satiation)))
    phases = Phases(idle, run, jnp.zeros_like(idle))
    local = jnp.full(len(pairs), size - 1, jnp.int32)
    step = jax.jit(lambda local, phases: (advance(problem, local, asking(phases))[1], turn(phases)))
    for t in range(40):
        if t >= 12:  # every cycle has come round once
            np.testing.assert_array_equal(virtual_state(phases, satiation, size), local)
        local, phases = step(local, phases)


def naive(problem, phases, rule, plays, fill, rounds):
    """Signed states in Python, the planner's rule word by word; ties by arm."""
    payoffs, low = np.asarray(problem.payoffs), problem.satiation
    k, size = payoffs.shape
    idle, run, phase = (np.array(x) for x in phases)
    pay = lambda i, s: payoffs[i, min(low + s - 1, size - 1) if s > 0 else max(low + s, 0)]  # noqa: E731
    state = [size - low] * k
    out = []
    for _ in range(rounds):
        asks = [i for i in range(k) if run[i] > 0 and phase[i] >= idle[i]]
        virtual = [idle[i] if phase[i] == idle[i] and idle[i] else -(phase[i] - idle[i]) for i in range(k)]
        virtual = [v if idle[i] else -low for i, v in enumerate(virtual)]
        order = sorted(asks, key=lambda i: (-pay(i, virtual[i] if rule == "virtual" else state[i]), i))
        if fill:
            others = [i for i in range(k) if run[i] == 0]
            order += sorted(others, key=lambda i: (-pay(i, state[i]), i))
        chosen = order[:plays]
        out.append(sum(pay(i, state[i]) for i in chosen))
        for i in range(k):
            down = i in chosen
            state[i] = (-1 if state[i] > 0 else state[i] - 1) if down else (state[i] + 1 if state[i] > 0 else 1)
            phase[i] = (phase[i] + 1) % (idle[i] + run[i])
    return out


@pytest.mark.parametrize(("rule", "plays", "fill"), [("virtual", 1, False), ("real", 2, True), ("virtual", 2, True)])
def test_replay(rule, plays, fill):
    rng = np.random.default_rng(plays)
    v = np.round(np.sort(rng.random((6, 7)), axis=1), 1)  # with ties
    problem = from_tables(v[:, 3:], v[:, :3][:, ::-1], payoff_class="monotone")
    plan = cycles([3, 2, 1, 0, 1, 4], [1, 2, 5, 1, 0, 2], None)
    planner = RandomPhase(plan, plays, rule, fill)
    run = jax.jit(lambda key: simulate(problem, planner, 60, key, observe=everything).trace)
    for seed in range(3):
        key = jax.random.key(seed)
        trace = run(key)
        phases = planner.init(problem, jax.random.split(key)[0]).phases
        np.testing.assert_allclose(trace[2], naive(problem, phases, rule, plays, fill, 60), rtol=0, atol=1e-14)


def test_choice_by_ranks_is_the_choice_by_payoff():
    rng = np.random.default_rng(1)
    payoffs = np.round(rng.random((5, 4)), 1)
    ranks = np.asarray(payoff_ranks(jnp.asarray(payoffs)))
    assert sorted(ranks.ravel()) == list(range(1, 21))
    for _ in range(20):
        at, asks, plays = rng.integers(0, 4, 5), rng.random(5) < 0.6, int(rng.integers(1, 4))
        pays = payoffs[np.arange(5), at]
        chosen = sorted(np.flatnonzero(asks), key=lambda i: (-pays[i], i))[:plays]
        score = jnp.where(jnp.asarray(asks), jnp.asarray(ranks[np.arange(5), at]), 0)
        np.testing.assert_array_equal(np.flatnonzero(pick(score, plays)), sorted(chosen))
    # more plays than maxima are taken one by one
    score = jnp.asarray(rng.permutation(20) - 8)
    np.testing.assert_array_equal(np.sort(score[pick(score, 10)]), np.arange(2, 12))
    np.testing.assert_array_equal(np.sort(score[pick(score, 15)]), np.arange(1, 12))


def checks(problem, seen):
    return undominated(problem, seen), virtual_payoff(problem, seen)


def four_errors(x):
    return 4 * np.std(x, ddof=1) / len(x) ** 0.5


@pytest.mark.parametrize(("rule", "golden"), [("virtual", 0.5878), ("real", 0.5807)])
def test_instance_q(rule, golden):
    planner = RandomPhase(PLAN_Q, rule=rule)
    runs = replicas(Q, planner, jax.random.split(jax.random.key(0), 6000), 300, checks)
    reward, virtual = runs.total / 300, jnp.mean(runs.trace[1], axis=1)
    assert jnp.sum(runs.trace[0]) == 0
    # the specification's standard error is 2e-4; its digits add half a unit
    assert abs(jnp.mean(reward) - golden) <= four_errors(reward) + 4 * 2e-4 + 5e-5
    bound = planner.guarantee(Q)
    np.testing.assert_allclose(bound, 0.533, rtol=0, atol=1e-12)
    assert jnp.mean(reward) >= bound - four_errors(reward)
    if rule == "virtual":
        assert abs(jnp.mean(virtual) - bound) <= four_errors(virtual)


@pytest.mark.parametrize(("rule", "plays"), [("real", 1), ("virtual", 2)])
def test_random_instances_keep_their_guarantee(rule, plays):
    rng = np.random.default_rng(plays)
    for _ in range(3):
        v = np.sort(rng.random((4, 6)), axis=1) ** 3
        problem = from_tables(v[:, 2:], v[:, :2][:, ::-1], payoff_class="monotone")
        planner = random_phase(problem, plays, rule=rule, safe_fill=rule == "real")
        runs = replicas(problem, planner, jax.random.split(jax.random.key(1), 1000), 200, checks)
        reward = runs.total / 200
        assert jnp.sum(runs.trace[0]) == 0
        assert jnp.mean(reward) >= planner.guarantee(problem) - four_errors(reward)


def test_the_check_of_domination_can_fail():
    # From "just" an arm may ask before it has rested as its virtual state has.
    runs = replicas(Q, random_phase(Q), jax.random.split(jax.random.key(0), 50), 30, checks, "just")
    assert jnp.sum(runs.trace[0]) > 0 and jnp.sum(runs.trace[0][:, 10:]) == 0


def test_collisions_are_tight_on_identical_arms():
    k = 10  # spec T7: one replica earns the share of distinct offsets
    steps = np.tile(1.0 * (np.arange(1, k) >= k - 1), (k, 1))
    problem = from_tables(steps, np.zeros((k, 1)), payoff_class="monotone")
    planner = RandomPhase(cycles([k - 1] * k, [1] * k))
    np.testing.assert_allclose(planner.guarantee(problem), alpha(k), rtol=1e-14)
    np.testing.assert_allclose(relaxation(problem).value, 1, rtol=1e-14)
    reward = replicas(problem, planner, jax.random.split(jax.random.key(k), 4000), 10 * k).total / (10 * k)
    assert abs(jnp.mean(reward) - alpha(k)) <= four_errors(reward)


def test_frames_redraw_and_begin_empty():
    planner = RandomPhase(PLAN_Q, frame=25)
    keys = jax.random.split(jax.random.key(2), 200)
    runs = replicas(Q, planner, keys, 500, lambda p, s: (jnp.sum(s.played), s.state.phases.run[0]))
    played, asked = runs.trace
    assert jnp.all(played[:, ::25] == 0) and jnp.max(played) == 1
    drawn = asked[:, 1::25]
    # arm 0 takes its second cycle in 3 of 10 frames: 4000 draws
    assert abs(jnp.mean(drawn == 2) - 0.3) < 4 * (0.21 / 4000) ** 0.5
    assert jnp.all(asked[:, 1:25] == drawn[:, :1])
    still, again = replicas(Q, RandomPhase(PLAN_Q), keys, 500).total, runs.total
    assert jnp.std(again) < jnp.std(still) / 2
    assert planner.guarantee(Q) < jnp.mean(again) / 500
    # in frames each arm loses one payoff at most and the first round: (24 V_virt - 3 max p) / 25
    np.testing.assert_allclose(planner.guarantee(Q), (24 * 0.533 - 3) / 25, atol=1e-12)


@pytest.mark.parametrize(("plays", "frame"), [(1, None), (2, 7)])
def test_must_play_fills_every_round(plays, frame):
    must = dataclasses.replace(Q, allow_idle=False)
    with pytest.raises(ValueError, match=r"problem: found a must-play model .* with 0 arms .* at least 1"):
        random_phase(must)
    with pytest.raises(ValueError, match=r"must-play"):
        simulate(must, RandomPhase(PLAN_Q), 5, jax.random.key(0))
    padded = from_tables(
        np.concatenate([Q.rested, np.zeros((2, 4))]), np.concatenate([Q.tired, np.zeros((2, 2))]), allow_idle=False
    )
    planner = random_phase(padded, plays, frame=frame)
    count = lambda p, s: (jnp.sum(s.played), undominated(p, s))  # noqa: E731
    played, below = replicas(padded, planner, jax.random.split(jax.random.key(3), 50), 60, count).trace
    assert jnp.all(played == plays)
    if frame is None:
        assert jnp.sum(below) == 0


def test_lower_scores_carry_the_guarantee_to_payoffs_that_are_not_monotone():
    rng = np.random.default_rng(4)
    problem = from_tables(rng.random((3, 4)), rng.random((3, 2)))
    assert random_phase(problem).guarantee(problem) == 0
    scores = jnp.asarray(np.minimum.accumulate(np.asarray(problem.payoffs)[:, ::-1], axis=1)[:, ::-1])
    below = dataclasses.replace(problem, payoffs=scores)
    planner = RandomPhase(relaxation(below), scores=scores)
    assert planner.guarantee(problem) == random_phase(below).guarantee(below) > 0
    reward = replicas(problem, planner, jax.random.split(jax.random.key(0), 1000), 200).total / 200
    assert jnp.mean(reward) >= planner.guarantee(problem)


def test_bad_input():
    with pytest.raises(ValueError, match=r"rule: found 'best', expected one of \('virtual', 'real'\)"):
        RandomPhase(PLAN_Q, rule="best")
    with pytest.raises(ValueError, match=r"plays: found 0, expected an integer of at least 1"):
        RandomPhase(PLAN_Q, 0)
    with pytest.raises(ValueError, match=r"frame: found 1, expected None or at least 2 rounds"):
        RandomPhase(PLAN_Q, frame=1)
    with pytest.raises(ValueError, match=r"plays: found 4, expected an integer in \[1, 3\]"):
        random_phase(Q, 4)


def test_a_plan_for_reset_promises_nothing_under_another_idle_rule():
    gradual = dataclasses.replace(Q, idle_rule="decrement")
    planner = random_phase(Q)
    for call in (lambda: planner.guarantee(gradual), lambda: simulate(gradual, planner, 10, jax.random.key(0))):
        with pytest.raises(ValueError, match="idle_rule: found 'decrement', expected 'reset'"):
            call()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([0, 6, 1], r"start: found local states in \[0, 6\], expected \[0, 5\]"),
        ([0, -1, 1], r"start: found local states in \[-1, 1\], expected \[0, 5\]"),
        ([0, 1], r"start: found int64\(2,\), expected integers of shape \(3,\)"),
    ],
)
def test_bad_first_states(start, message):
    with pytest.raises(ValueError, match=message):
        simulate(Q, random_phase(Q), 10, jax.random.key(0), start=jnp.asarray(start))
    with pytest.raises(ValueError, match=r"plays: found 4, expected an integer in \[1, 3\]"):
        simulate(Q, dataclasses.replace(random_phase(Q), plays=4), 10, jax.random.key(0))
