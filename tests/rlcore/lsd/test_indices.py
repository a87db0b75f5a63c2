"""One arm at a price, advantages and Whittle's index: enumeration of policies, explicit formulas, published values."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    AdvantageIndex,
    WhittlePolicy,
    dual,
    dual_price,
    from_tables,
    indexable,
    relaxation,
    simulate,
    whittle_index,
)
from rlcore.lsd.choice import highest
from rlcore.lsd.indices import priced_arms
from rlcore.lsd.problem import transition_tables

# Sums of a few dozen payoffs and prices below 10, each rounded.
EXACT = 1e-12
# Policy iteration stops at 1e-12, and what it compares changes by at least 1 / (M + L + 1) per unit of price.
INDEX = 2e-11
KEY = jax.random.key(0)

PRICED = jax.jit(priced_arms)
DUAL_PRICE = jax.jit(dual_price)
INDEXABLE = jax.jit(indexable)
WHITTLE = jax.jit(lambda p: (lambda w: (w, indexable(p, w)))(whittle_index(p)))
RUN = jax.jit(lambda problem, planner: simulate(problem, planner, 4000, KEY).total / 4000)


def bandit(up, down, **options):
    return from_tables(jnp.asarray(up, float), jnp.asarray(down, float), **options)


def reference(**options):
    up = [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]]
    return bandit(up, [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]], **options)


def random_bandit(seed, *, monotone=True, **options):
    """Three arms, M = 4, L = 3."""
    v = np.random.default_rng(seed).random((3, 7))
    v = np.sort(v, axis=1) if monotone else v
    return bandit(v[:, 3:], v[:, :3][:, ::-1], **options)


def best_mean(problem, arm, price):
    """(gain, load) of the best of all 2^S policies of one arm, by walking them."""
    play, idle = (np.asarray(x) for x in transition_tables(problem))
    payoffs, s = np.asarray(problem.payoffs)[arm], problem.num_local
    best = (-np.inf, None)
    for plays in itertools.product((False, True), repeat=s):
        for first in range(s):
            e, path = first, []
            while e not in path:
                path.append(e)
                e = play[e] if plays[e] else idle[e]
            cycle = path[path.index(e) :]
            gain = sum(payoffs[x] - price for x in cycle if plays[x]) / len(cycle)
            best = max(best, (gain, sum(plays[x] for x in cycle) / len(cycle)))
    return best


@pytest.mark.parametrize("rule", ["reset", "decrement"])
@pytest.mark.parametrize("price", [-0.4, 0.0, 0.15, 0.55, 1.2])
def test_gain_is_that_of_the_best_policy(rule, price):
    problem = random_bandit(3, monotone=False, idle_rule=rule)
    found = PRICED(problem, price)
    for arm in range(3):
        gain, load = best_mean(problem, arm, price)
        np.testing.assert_allclose(found.gain[arm], gain, rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.load[arm], load, rtol=0, atol=EXACT)
    assert np.all(found.error < EXACT)


def test_relative_values_solve_the_optimality_equation_and_follow_lazy_sweeps():
    for rule in ("reset", "decrement"):
        problem = random_bandit(4, idle_rule=rule)
        play, idle = (np.asarray(x) for x in transition_tables(problem))
        for price in (0.1, 0.4):
            found = PRICED(problem, price)
            h, payoffs = np.asarray(found.relative), np.asarray(problem.payoffs)
            lookahead = np.maximum(h[:, idle], payoffs - price + h[:, play])
            np.testing.assert_allclose(lookahead, h + np.asarray(found.gain)[:, None], rtol=0, atol=EXACT)
            advantage = payoffs - price + h[:, play] - h[:, idle]
            np.testing.assert_allclose(found.advantage, advantage, rtol=0, atol=EXACT)
            v = np.zeros_like(h)
            for _ in range(4000):
                v = (v + np.maximum(v[:, idle], payoffs - price + v[:, play])) / 2
                v -= v[:, :1]
            # Lazy cycles of at most 8 rounds forget at rate cos(pi / 8) = .92 per sweep.
            np.testing.assert_allclose(v, h - h[:, :1], rtol=0, atol=1e-11)


def test_gains_add_up_to_the_dual_of_the_relaxation():
    for problem in (reference(), random_bandit(7), random_bandit(8, monotone=False)):
        for price in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            total = price + PRICED(problem, price).gain.sum()
            np.testing.assert_allclose(total, dual(problem, price), rtol=0, atol=EXACT)
        price, bound = DUAL_PRICE(problem)
        best = relaxation(problem)
        np.testing.assert_allclose(bound, best.value, rtol=0, atol=EXACT)
        np.testing.assert_allclose(dual(problem, price), best.value, rtol=0, atol=EXACT)
    q = reference()
    np.testing.assert_allclose(PRICED(q, 0.0).gain, [0.8 / 3, 0.9 / 4, 1 / 5], rtol=0, atol=EXACT)
    # printed to six decimals
    for price, total in ((0.0, 0.691667), (0.2, 0.701667), (0.4, 0.745), (0.6, 0.815), (0.8, 0.885), (1.0, 1.0)):
        np.testing.assert_allclose(price + PRICED(q, price).gain.sum(), total, rtol=0, atol=5e-7)
    price, bound = DUAL_PRICE(q)
    np.testing.assert_allclose(price, 0.1, rtol=0, atol=INDEX)
    np.testing.assert_allclose(bound, 0.68, rtol=0, atol=EXACT)


def test_dual_price_is_the_occupation_programme_under_decrement():
    from scipy.optimize import linprog

    problem = random_bandit(9, monotone=False, idle_rule="decrement")
    play, idle = (np.asarray(x) for x in transition_tables(problem))
    k, s = problem.payoffs.shape
    # Variables: idle rates [k, S], then play rates [k, S].
    balance = np.zeros((k * s + k, 2 * k * s))
    for i, e in itertools.product(range(k), range(s)):
        u, a = i * s + e, k * s + i * s + e
        balance[i * s + e, [u, a]] += 1
        balance[i * s + idle[e], u] -= 1
        balance[i * s + play[e], a] -= 1
        balance[k * s + i, [u, a]] = 1
    right = np.concatenate([np.zeros(k * s), np.ones(k)])
    cost = -np.concatenate([np.zeros(k * s), np.asarray(problem.payoffs).ravel()])
    shared = np.concatenate([np.zeros(k * s), np.ones(k * s)])[None]
    truth = linprog(cost, shared, [1.0], balance, right, method="highs")
    np.testing.assert_allclose(DUAL_PRICE(problem)[1], -truth.fun, rtol=0, atol=1e-9)


# ---- Whittle's index -------------------------------------------------------------------------------------------------


def test_whittle_index_of_monotone_arms_is_the_explicit_one():
    for problem in (random_bandit(11), random_bandit(12), random_bandit(13)):
        index, fine = WHITTLE(problem)
        assert np.all(fine)
        up, down = np.asarray(problem.rested), np.asarray(problem.tired)
        m, low = problem.recovery, problem.satiation
        for i in range(3):
            gains = [np.asarray(PRICED(problem, index[i, e]).gain)[i] for e in range(m + low)]
            for s in range(1, m):
                slope = max((up[i, s - 1 + w] - up[i, s - 1]) / w for w in range(1, m - s + 1))
                np.testing.assert_allclose(gains[low + s - 1], slope, rtol=0, atol=INDEX)
            # +M: the price at which it is best to do nothing.
            assert abs(gains[-1]) < INDEX and PRICED(problem, index[i, -1] - 1e-6).gain[i] > 0
            for j in range(1, low):
                np.testing.assert_allclose(index[i, low - j] + gains[low - j], down[i, j - 1], rtol=0, atol=INDEX)
            rest = [(up[i, t - 1] + down[i, : low - 1].sum() - low * down[i, -1]) / t for t in range(1, m + 1)]
            np.testing.assert_allclose(index[i, 0], down[i, -1] - max(rest), rtol=0, atol=INDEX)


@pytest.mark.parametrize("rule", ["reset", "decrement"])
def test_whittle_index_is_where_the_best_choice_changes(rule):
    problem = random_bandit(14, monotone=False, idle_rule=rule)
    index, fine = WHITTLE(problem)
    assert np.all(fine)
    for i, e in itertools.product(range(3), range(problem.num_local)):
        below, above = (PRICED(problem, index[i, e] + x).advantage[i, e] for x in (-1e-6, 1e-6))
        assert below > 0 >= above
    # A price too many, a price too few: the sets between them are not optimal.
    for step in (0.01, -0.01):
        wrong = index.at[1, 3].add(step)
        assert np.array_equal(INDEXABLE(problem, wrong), [True, False, True])


def test_whittle_index_of_the_reference_instance():
    # markovianbandit-pkg 0.4 gives the same, but for NaN at +3 of arm 1 (a policy with two recurrent classes).
    known = [
        [-0.5, 0.1, 0.1, 0.4, 0.4, 0.9],
        [-0.5, -0.1 / 3, -0.2, -0.2, 0.9, 0.9],
        [-0.2, -0.125, -0.65 / 3, -0.35, -0.75, 1.0],
    ]
    index, fine = WHITTLE(reference())
    assert np.all(fine)
    np.testing.assert_allclose(index, known, rtol=0, atol=INDEX)
    # An arm that pays the same always has that price in every state.
    flat, fine = WHITTLE(bandit(np.full((3, 4), 0.15), np.full((3, 2), 0.15)))
    assert np.all(fine)
    np.testing.assert_allclose(flat, 0.15, rtol=0, atol=INDEX)


# ---- planners --------------------------------------------------------------------------------------------------------


def test_advantage_index_on_the_reference_instance():
    # printed to four decimals, of a run of 4 000 rounds
    for problem, planner, expected in (
        (reference(), AdvantageIndex(), 0.6565),
        (reference(), AdvantageIndex(threshold=-jnp.inf), 0.6736),
        (reference(allow_idle=False), AdvantageIndex(), 0.6736),
        (reference(), AdvantageIndex(threshold=1e-9), 0.6127),
    ):
        np.testing.assert_allclose(RUN(problem, planner), expected, rtol=0, atol=5.1e-5)


def test_index_planners_stay_below_the_bound_and_play_what_they_may():
    problem = reference()
    bound = relaxation(problem, 2).value
    seen = jax.jit(
        lambda p: simulate(problem, p, 400, KEY, observe=lambda _, r: (r.played.sum(), r.payoff.sum())).trace
    )
    for planner in (AdvantageIndex(plays=2), WhittlePolicy(plays=2), WhittlePolicy(threshold=-jnp.inf, plays=2)):
        count, paid = seen(planner)
        # From the rested state the first 4 rounds may earn more.
        assert np.max(count) <= 2 and paid.mean() <= bound * 404 / 400
        # Two plays in every round tire the arms of the reference instance.
        assert paid.mean() > 0.9 * bound if np.min(count) < 2 else planner.threshold == -jnp.inf
    decrement = dataclasses.replace(problem, idle_rule="decrement")
    rate = RUN(decrement, AdvantageIndex())
    assert 0.8 * dual_price(decrement)[1] < rate <= dual_price(decrement)[1] * 4004 / 4000


def test_the_highest_scores_are_played():
    score = jnp.array([0.3, 0.9, 0.9, 0.1])
    for plays, first in ((1, [1]), (2, [1, 2]), (3, [0, 1, 2])):
        assert np.flatnonzero(highest(score, plays)).tolist() == first
    noise = jnp.array([0.9, 0.1, 0.2, 0.8])
    assert np.flatnonzero(highest(score, 1, noise)).tolist() == [2]
    assert np.flatnonzero(highest(score, 3, noise)).tolist() == [0, 1, 2]
