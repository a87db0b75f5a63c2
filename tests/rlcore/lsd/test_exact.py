"""Exact planning: published values, brute force over action sequences, three algorithms for the average, bad input."""

import dataclasses
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    from_delays,
    from_tables,
    initial_state,
    joint_policy,
    optimal_average,
    optimal_finite,
    policy_cycle,
    relaxation,
    simulate,
)
from rlcore.lsd.exact import _as_mdp, policy_gain
from rlcore.lsd.howard import best_cycles
from rlcore.lsd.joint import reachable
from rlcore.mdp import finite_horizon
from rlcore.planning import backward_induction
from rlcore.solver import CONVERGED, PRECISION_LIMIT, STEP_LIMIT

# Sums of at most 50 payoffs in [0, 1], each rounded once.
EXACT = 1e-13
KEY = jax.random.key(0)
METHODS = ("howard", "value_iteration")
RUN = jax.jit(lambda problem, planner: simulate(problem, planner, 60, KEY).trace)


def bandit(up, down, **options):
    return from_tables(jnp.asarray(up, float), jnp.asarray(down, float), **options)


def reference(**options):
    up = [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]]
    return bandit(up, [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]], **options)


def random_bandit(seed, k, m, low, *, monotone=True, **options):
    v = np.random.default_rng(seed).random((k, m + low))
    v = np.sort(v, axis=1) if monotone else v
    return bandit(v[:, low:], v[:, :low][:, ::-1], **options)


def pinwheel(delays):
    """Arms that pay 1 after a delay of d, in tables as long as the batch needs."""
    return jnp.asarray([[float(x >= d) for x in range(1, 9)] for d in delays])


# ---- the model, written once more: signed states, payoffs by rule ----------------------------------------------------


def signed_step(problem, state, plays):
    """(payoff of one arm, next signed state)."""
    up, down = problem.recovery, problem.satiation
    arm, s = state
    table = np.asarray(problem.rested)[arm] if s > 0 else np.asarray(problem.tired)[arm]
    if plays:
        return table[abs(s) - 1], (arm, -1 if s > 0 else -min(-s + 1, down))
    if s > 0:
        return 0.0, (arm, min(s + 1, up))
    return 0.0, (arm, 1 if problem.idle_rule == "reset" or s == -1 else s + 1)


def by_enumeration(problem, horizon, plays):
    """The best total over all sequences of action sets, and the totals of all shorter ones on the way."""
    k = problem.num_arms
    start = {"rested": problem.recovery, "one": 1, "just": -1}[problem.start]
    sizes = range(plays + 1) if problem.allow_idle else (plays,)
    sets = [c for size in sizes for c in itertools.combinations(range(k), size)]
    best = np.full(horizon, -np.inf)

    def go(states, depth, total):
        for chosen in sets:
            steps = [signed_step(problem, state, state[0] in chosen) for state in states]
            now = total + sum(paid for paid, _ in steps)
            best[depth] = max(best[depth], now)
            if depth + 1 < horizon:
                go([after for _, after in steps], depth + 1, now)

    go([(i, start) for i in range(k)], 0, 0.0)
    return best


@pytest.mark.parametrize(
    ("k", "m", "low", "plays", "horizon", "options"),
    [
        (2, 3, 2, 1, 7, {}),
        (2, 3, 2, 1, 7, {"idle_rule": "decrement", "start": "just"}),
        (3, 2, 3, 2, 4, {"idle_rule": "decrement", "start": "one"}),
        (3, 3, 1, 2, 5, {"allow_idle": False, "start": "just"}),
        (1, 4, 3, 1, 9, {"start": "one"}),
    ],
)
def test_finite_horizon_is_the_best_of_all_action_sequences(k, m, low, plays, horizon, options):
    # One arm with monotone payoffs does better to rest now and then.
    problem = random_bandit(k + m, k, m, low, monotone=k == 1, **options)
    found = optimal_finite(problem, horizon, plays)
    np.testing.assert_allclose(found.values, by_enumeration(problem, horizon, plays), rtol=0, atol=EXACT)
    # The policy earns what it promises.
    planner = joint_policy(problem, found.policy, plays)
    np.testing.assert_allclose(simulate(problem, planner, horizon, KEY).total, found.values[-1], rtol=0, atol=EXACT)
    states = reachable(problem, plays=plays)
    slow = backward_induction(finite_horizon(_as_mdp(problem.payoffs, states), horizon))
    np.testing.assert_allclose(found.values, slow.value[:horizon, states.start][::-1], rtol=0, atol=EXACT)


# ---- the long run ----------------------------------------------------------------------------------------------------


def karp(following, reward):
    """The largest mean of a cycle: Karp 1978, on the host, n^2 A."""
    n = len(following)
    walk = np.zeros((n + 1, n))
    for step in range(n):
        arrive = np.full(n, -np.inf)
        np.maximum.at(arrive, following.ravel(), (walk[step][:, None] + reward).ravel())
        walk[step + 1] = arrive
    length = n - np.arange(n)
    with np.errstate(invalid="ignore"):
        means = (walk[n][None] - walk[:n]) / length[:, None]
    # A state that no walk of n steps reaches is on no cycle.
    return np.max(np.min(np.where(np.isnan(means), np.inf, means), axis=0), where=np.isfinite(walk[n]), initial=-np.inf)


def rewards(problem, states):
    payoffs = np.asarray(problem.payoffs)[np.arange(problem.num_arms)[None], states.local]
    return payoffs @ states.actions.T.astype(float)


@pytest.mark.parametrize(
    ("plays", "options"),
    [
        (1, {}),
        (1, {"allow_idle": False}),
        (2, {"idle_rule": "decrement"}),
        (2, {"allow_idle": False, "idle_rule": "decrement", "start": "just"}),
    ],
)
def test_three_algorithms_agree_on_the_average(plays, options):
    problem = random_bandit(plays, 3, 3, 2, monotone=False, **options)
    states = reachable(problem, plays=plays)
    truth = karp(states.following, rewards(problem, states))
    for method in METHODS:
        found = optimal_average(problem, plays, method=method)
        assert found.status == CONVERGED and found.states == len(states.local)
        # Karp's own rounding: differences of sums of n payoffs.
        assert found.lower - EXACT <= truth <= found.upper + EXACT
        assert found.upper - found.lower <= 1e-9
        cycle = policy_cycle(problem, found.policy, plays)
        assert found.lower - EXACT <= cycle.mean <= found.upper + EXACT
        assert len(cycle.actions) <= len(states.local)
        np.testing.assert_allclose(policy_gain(problem, found.policy, plays), cycle.mean, rtol=0, atol=EXACT)
        if method == "howard":
            # It is exact: what is left is rounding. The last round of a cycle is the first of the next.
            assert found.upper - found.lower < 1e-11
            trace = RUN(problem, joint_policy(problem, found.policy, plays))
            whole = len(cycle.actions) * ((len(trace) - cycle.lead) // len(cycle.actions))
            assert whole > 0
            mean = trace[cycle.lead : cycle.lead + whole].mean()
            np.testing.assert_allclose(mean, cycle.mean, rtol=0, atol=EXACT)


def test_reference_instance():
    for idle, count in ((True, 94), (False, 43)):
        problem = reference(allow_idle=idle)
        for method in METHODS[: 1 + idle]:
            found = optimal_average(problem, method=method)
            assert found.states == count
            assert found.lower <= 2.02 / 3 <= found.upper and found.upper - found.lower <= 1e-9
    problem = reference(start="one")
    assert len(reachable(problem).local) == 109
    values = optimal_finite(problem, 50).values
    np.testing.assert_allclose(values[np.array([0, 1, 4, 9, 49])], [0.5, 1.1, 3.4, 6.7, 33.7], rtol=0, atol=EXACT)
    values = optimal_finite(reference(), 50).values
    np.testing.assert_allclose(values[np.array([0, 49])], [1.0, 34.5], rtol=0, atol=EXACT)
    # "one" is a state like any other: a start may be named or given.
    given = optimal_finite(reference(), 50, start=initial_state(problem)).values
    np.testing.assert_array_equal(given, optimal_finite(problem, 50).values)


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        ([(2, 4, 4), (3, 3, 3), (2, 3, 6), (2, 3, 7)], [1, 1, 7 / 8, 7 / 8]),
        ([(2, 4, 8, 8), (3, 4, 5, 5)], [1, 0.9]),
    ],
)
def test_pinwheels(delays, expected):
    batch = jax.vmap(lambda d: optimal_average(dataclasses.replace(from_delays(pinwheel(delays[0])), payoffs=d)))
    found = batch(jnp.stack([from_delays(pinwheel(d)).payoffs for d in delays]))
    np.testing.assert_allclose(found.lower, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.upper, expected, rtol=0, atol=1e-12)
    assert np.all(found.lower <= np.asarray(expected)) and np.all(found.upper >= np.asarray(expected))
    bounds = [relaxation(from_delays(pinwheel(d))).value for d in delays]
    np.testing.assert_allclose(bounds, [min(1, sum(1 / x for x in d)) for d in delays], rtol=0, atol=EXACT)


def test_released_instances_of_laforgue():
    table = np.full((5, 10), 0.15)
    table[1], table[1, 2] = 0, 0.95
    table[2], table[2, 5], table[2, 8:] = 0.14, 0.16, 0.96
    first = from_delays(jnp.asarray(table), start="just")
    found = optimal_average(first)
    assert found.lower <= 4.56 / 9 <= found.upper and found.upper - found.lower < 1e-11
    np.testing.assert_allclose(relaxation(first).value, 4.56 / 9, rtol=0, atol=EXACT)
    table = np.full((2, 11), 0.05)
    table[1], table[1, 0] = 0.95, 0.06
    found = optimal_average(from_delays(jnp.asarray(table), start="just"))
    assert found.lower <= 0.5 <= found.upper and found.upper - found.lower < 1e-11


def test_greedy_trap_alternates():
    problem = bandit([[0.05], [0.95]], [[0.05, 0.05], [0.1, 0.1]])
    found = optimal_average(problem)
    np.testing.assert_allclose(found.lower, 0.5, rtol=0, atol=1e-12)
    assert sorted(policy_cycle(problem, found.policy).actions.tolist()) == [[False, True], [True, False]]


def cycle_payoffs_in_order(problem, cycle):
    """The payoffs of one pass of a cycle of single plays, after a pass that settles the states."""
    state, paid = [(i, problem.recovery) for i in range(problem.num_arms)], []
    for played in [*cycle.actions] * 9:
        steps = [signed_step(problem, x, played[x[0]]) for x in state]
        state = [after for _, after in steps]
        paid.append(max(p for p, _ in steps))
    return paid[-len(cycle.actions) :]


def test_a_batch_of_payoffs_shares_its_graph_and_stays_below_the_relaxation():
    payoffs = jnp.stack([random_bandit(seed, 4, 5, 3).payoffs for seed in range(12)])
    first = random_bandit(0, 4, 5, 3)
    problem = lambda p: dataclasses.replace(first, payoffs=p)  # noqa: E731
    batch = jax.jit(jax.vmap(lambda p: (optimal_average(problem(p)), relaxation(problem(p)).value)))
    found, bound = batch(payoffs)
    assert np.all(found.status == CONVERGED) and np.all(found.states == 689)
    assert np.all(found.lower <= bound + EXACT) and np.all(found.lower > 0.9 * bound)
    np.testing.assert_allclose(found.lower[0], optimal_average(first).lower, rtol=0, atol=1e-12)
    # Bounds count their rounding: the cycle's mean in exact arithmetic lies between them.
    for p, policy, lower, upper in zip(payoffs, found.policy, found.lower, found.upper, strict=True):
        paid = [Fraction(float(x)) for x in cycle_payoffs_in_order(problem(p), policy_cycle(problem(p), policy))]
        assert Fraction(float(lower)) <= sum(paid) / len(paid) <= Fraction(float(upper))


def test_relations_between_problems():
    problem = random_bandit(5, 3, 4, 2)
    middle = lambda p, **o: (lambda r: (r.lower + r.upper) / 2)(optimal_average(p, **o))  # noqa: E731
    value = middle(problem)
    scaled = dataclasses.replace(problem, payoffs=problem.payoffs / 2)
    np.testing.assert_allclose(middle(scaled), value / 2, rtol=0, atol=1e-12)
    turned = dataclasses.replace(problem, payoffs=problem.payoffs[::-1])
    np.testing.assert_allclose(middle(turned), value, rtol=0, atol=1e-12)
    # Where idling is allowed an arm that pays nothing changes nothing; where it is not, it is a way to idle.
    more = dataclasses.replace(problem, payoffs=jnp.concatenate([problem.payoffs, jnp.zeros((1, 6))]))
    np.testing.assert_allclose(middle(more), value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(middle(dataclasses.replace(more, allow_idle=False)), value, rtol=0, atol=1e-12)


def test_arms_that_share_nothing_are_solved_alone():
    problem = random_bandit(5, 2, 3, 2)
    both = optimal_average(problem, plays=2)
    alone = [optimal_average(dataclasses.replace(problem, payoffs=problem.payoffs[i : i + 1])) for i in range(2)]
    np.testing.assert_allclose(both.lower, sum(x.lower for x in alone), rtol=0, atol=1e-12)


def test_the_decrement_rule_takes_more_than_one_round_to_forgive():
    problem = bandit([[1.0]], [[1.0, 1.0, 0.0]], idle_rule="decrement", start="one")
    assert optimal_finite(problem, 3).values[-1] == 3
    found = optimal_average(problem)
    assert found.lower <= 0.5 <= found.upper and found.upper - found.lower < 1e-11


def test_status_says_what_stopped_the_sweeps():
    problem = random_bandit(1, 3, 3, 2)
    few = optimal_average(problem, method="value_iteration", max_steps=8)
    assert few.status == STEP_LIMIT and few.upper - few.lower > 1e-9
    assert few.lower <= optimal_average(problem).upper and optimal_average(problem).lower <= few.upper
    fine = optimal_average(problem, tol=0.0, method="value_iteration")
    assert fine.status == PRECISION_LIMIT and fine.upper - fine.lower < 1e-12
    assert fine.lower <= optimal_average(problem).upper and optimal_average(problem).lower <= fine.upper


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: optimal_average(p, 4), "plays: found 4, expected an integer in"),
        (lambda p: optimal_average(p, 0), "plays: found 0"),
        (lambda p: optimal_average(p, method="karp"), "method: found 'karp', expected one of"),
        (lambda p: optimal_average(p, start="tired"), "start: found 'tired', expected one of"),
        (lambda p: reachable(p, [0, 0]), r"start: found \[0, 0\], expected 3 local states in 0 .. 5"),
        (lambda p: reachable(p, [0, 0, 6]), r"start: found \[0, 0, 6\]"),
        (lambda p: optimal_finite(p, 0), "horizon: found 0, expected an integer of at least 1"),
        (lambda p: policy_cycle(p, np.zeros(3, int)), r"policy: found shape \(3,\), expected \(94,\)"),
        (lambda p: optimal_average(p, limit=100), "found more than 42 joint states out of 216 with 4 actions"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(reference())


def test_an_instance_too_large_says_so_before_it_is_searched():
    problem = random_bandit(0, 64, 32, 32)
    with pytest.raises(ValueError, match=r"an unknown number of joint states .* `relaxation`"):
        optimal_average(problem)
    # 4 096 states would do for two arms; here the search stops at the limit.
    with pytest.raises(ValueError, match=r"more than [0-9]+ joint states out of 16777216 with 9 actions each"):
        optimal_average(random_bandit(0, 8, 6, 2), limit=10_000)


@pytest.mark.parametrize("tied", [False, True])
def test_policy_iteration_knows_no_unit_of_reward(tied):
    rng = np.random.default_rng(0)
    following = jnp.asarray(rng.integers(0, 200, (200, 3)), jnp.int32)
    reward = jnp.asarray(np.round(rng.random((200, 3)), 1) if tied else rng.random((200, 3)))
    solve = jax.jit(best_cycles)
    plain = solve(following, reward, jnp.zeros(200, jnp.int32))
    assert plain.high - plain.low <= 1e-13  # some hundred roundings of relative values of order 1
    for scale in (2.0**-60, 2.0**40):  # powers of two round nothing
        other = solve(following, scale * reward, jnp.zeros(200, jnp.int32))
        np.testing.assert_array_equal(other.action, plain.action)
        assert (other.low, other.high) == (scale * plain.low, scale * plain.high)
