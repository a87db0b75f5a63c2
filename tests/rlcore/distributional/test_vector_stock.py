"""Vector stocks: golden values of two problems, every policy enumerated, one stock as a special case, windows.

Golden values are printed to six decimals: half of the last digit is the tolerance. Elsewhere values are sums of at most
some hundred products of numbers below 100, hence exact to 1e-12.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from rlcore.distributional import (
    Custom,
    Power,
    constrained,
    norm_drive,
    stock_grid,
    stock_vi,
    two_slope,
    vector_evaluation,
    vector_grids,
    vector_law,
    vector_policy_action,
    vector_stock_vi,
    vector_value,
)
from rlcore.mdp import finite_horizon
from tests.rlcore.distributional.problems import random_problem, return_laws

DIGITS, ROUNDING = 6e-7, 1e-12
STARTS = ((0, 0), (5, 0), (0, 5), (-4, 4), (6, 6), (12, 12))
ROOT = 2**0.5


def at_start(solution, starts):
    state = jnp.int32(0)
    return np.asarray([vector_value(solution, state, jnp.asarray(c, float)) for c in starts])


def scored(law, utility, start):
    return float(jnp.sum(law.probs * utility(jnp.asarray(start, float)[None] + law.values)))


@pytest.mark.parametrize(
    ("slip", "order", "golden"),
    [
        (0.0, 1, (2, 2, 2, 2, 2, 4)),
        (0.0, 2, (ROOT, ROOT, ROOT, 2, ROOT, 2 * ROOT)),
        (0.2, 1, (6.260297, 3.454239, 3.454239, 5.311880, 2.694877, 4)),
    ],
)
def test_homeostasis(slip, order, golden):
    problem, rewards = envs.make("homeostasis", slip=slip)
    drive = norm_drive(order)
    solution = vector_stock_vi(problem, rewards, drive, vector_grids(problem, rewards, STARTS))
    np.testing.assert_allclose(-at_start(solution, STARTS), golden, rtol=0, atol=DIGITS)
    for start, best in zip(STARTS, at_start(solution, STARTS), strict=True):
        law = vector_law(problem, rewards, solution.policy, jnp.asarray(start, float))
        np.testing.assert_allclose(float(jnp.sum(law.probs)), 1, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(scored(law, drive, start), best, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("weight", "golden", "lengths"),
    [
        (0.5, (-4.75, -4.3125, -4.0625, -4.0), (4, 4, 4, 4)),
        (2.0, (-6.0, -5.25, -4.25, -4.0), None),
        (8.0, (-6.0, -5.5, -4.5, -4.0), (6, 5.5, 4.5, 4)),
    ],
)
def test_hazards(weight, golden, lengths):
    problem, rewards = envs.make("hazards")
    budgets = [(0.0, float(d)) for d in range(4)]
    solution = vector_stock_vi(problem, rewards, constrained(weight), vector_grids(problem, rewards, budgets))
    np.testing.assert_allclose(at_start(solution, budgets), golden, rtol=0, atol=ROUNDING)
    laws = [vector_law(problem, rewards, solution.policy, jnp.asarray(c)) for c in budgets]
    if lengths is not None:
        np.testing.assert_allclose([-float(x.probs @ x.values[:, 0]) for x in laws], lengths, rtol=0, atol=ROUNDING)
    if weight == 8:  # the price is so high that no budget is overspent: hazards met adaptively
        assert all(float(jnp.min(law.values[:, 1])) >= -d for d, law in enumerate(laws))


def two_rewards(seed, **settings):
    """A random problem and two rewards of each outcome, whole numbers in {-2, ..., 2}."""
    problem = random_problem(seed, **settings)
    second = np.random.default_rng(1000 + seed).integers(-2, 3, problem.reward.shape)
    return problem, jnp.stack([problem.reward, jnp.asarray(second, float)], axis=-1)


@functools.cache
def every_law(seed, discount):
    """A problem, its rewards, and the returns [n, 2] of every policy of the history, with probabilities and owners."""
    problem, rewards = two_rewards(seed, discount=discount, horizon=3, ends=0.2)
    # a pair is coded as one number: returns are multiples of 1/4 below 10
    coded = dataclasses.replace(problem, reward=rewards[..., 0] + 1e4 * rewards[..., 1])
    laws = return_laws(coded, 0, problem.horizon)
    values, probs = (np.concatenate(x) for x in zip(*laws, strict=True))
    second = np.rint(values * 4 / 1e4) / 4
    owner = np.repeat(np.arange(len(laws)), [law[1].size for law in laws])
    return problem, rewards, np.stack([values - 1e4 * second, second], axis=-1), probs, owner


def below(x):
    return jnp.minimum(jnp.min(x, axis=-1), 0.5)


UTILITIES = [norm_drive(1), norm_drive(2), norm_drive(float("inf")), constrained(1.5), Custom(below)]


@pytest.mark.parametrize("discount", [1.0, 0.5])
@pytest.mark.parametrize("utility", UTILITIES, ids=["l1", "l2", "max", "constrained", "min"])
def test_no_policy_of_the_history_is_better(utility, discount):
    start = np.array([1.0, -1.0])
    if discount == 1:
        grids = (stock_grid(-6, 6, 1),) * 2
    else:
        grids = (stock_grid(-4, 4, 0.25, coordinates="discounted"),) * 2
    for seed in range(4):
        problem, rewards, returns, probs, owner = every_law(seed, discount)
        value = at_start(vector_stock_vi(problem, rewards, utility, grids), [start])[0]
        scores = np.bincount(owner, weights=probs * np.asarray(utility(jnp.asarray(start[None] + returns))))
        # the code loses eps times 1e5 of each return
        np.testing.assert_allclose(value, scores.max(), rtol=0, atol=1e-10)


def test_coordinates_agree():
    """Stocks divided by the discount and discounted ones are the same problem, for norms."""
    problem, rewards = two_rewards(7, discount=0.5, horizon=3)
    drive, start = norm_drive(2), jnp.array([1.0, -2.0])
    discounted = vector_stock_vi(problem, rewards, drive, vector_grids(problem, rewards, start, spacing=0.25))
    # c <- 2 (c + r): at most 20 after two steps from 2
    wide = vector_stock_vi(problem, rewards, drive, (stock_grid(-20, 20, 1), stock_grid(-20, 20, 1)))
    np.testing.assert_allclose(at_start(wide, [start]), at_start(discounted, [start]), rtol=0, atol=ROUNDING)
    for solution in (discounted, wide):
        # a policy that changes from node to node, so that its law shows where it was looked up
        action = np.random.default_rng(0).integers(0, 2, solution.policy.action.shape).astype(np.int32)
        policy = dataclasses.replace(solution.policy, action=jnp.asarray(action))
        evaluated = vector_evaluation(problem, rewards, drive, policy)
        values = [float(vector_value(evaluated, jnp.int32(state), start)) for state in range(3)]
        law = vector_law(problem, rewards, policy, start)
        expected = np.asarray(problem.initial) @ values
        np.testing.assert_allclose(scored(law, drive, start), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("utility", [two_slope(0.3, 1.0), Power(2.0)], ids=["slopes", "square"])
def test_one_reward_is_the_scalar_solver(utility):
    problem = random_problem(3, discount=1.0, horizon=4)
    grid = stock_grid(-12, 12, 1)
    one = vector_stock_vi(problem, problem.reward[..., None], Custom(lambda x: utility(x[..., 0]), 1.0), (grid,))
    scalar = stock_vi(problem, utility, grid)
    inside = slice(6, -6)  # two-slope utilities are known outside the window too
    found, expected = np.asarray(one.value)[..., inside], np.asarray(scalar.value.value)[..., inside]
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(one.policy.action[..., inside], scalar.policy.action[..., inside])


def test_exchanged_rewards_exchange_the_stocks():
    problem, rewards = two_rewards(5, discount=1.0, horizon=3)
    grids = vector_grids(problem, rewards, (0, 0))
    value = vector_stock_vi(problem, rewards, norm_drive(2), grids).value
    other = vector_stock_vi(problem, rewards[..., ::-1], norm_drive(2), grids[::-1]).value
    np.testing.assert_allclose(np.asarray(other).swapaxes(-1, -2), value, rtol=0, atol=ROUNDING)


def test_interpolation_is_within_its_bound():
    """Each of H - 1 roundings moves a coordinate by half a spacing on average, and |x|_1 is 1-Lipschitz in each."""
    for seed in range(3):
        problem, rewards = two_rewards(seed, discount=1.0, horizon=4)
        exact, close = (
            at_start(vector_stock_vi(problem, rewards, norm_drive(1), (grid, grid)), [(0, 0)])[0]
            for grid in (stock_grid(-6, 6, 1), stock_grid(-6, 6, 0.7, rounding="linear"))
        )
        assert abs(close - exact) <= 3 * 2 * 0.7 / 2 + ROUNDING
        assert close != exact


def test_three_rewards():
    problem, pair = two_rewards(11, discount=1.0, horizon=3)
    rewards = jnp.concatenate([pair, jnp.zeros_like(pair[..., :1])], axis=-1)
    two = vector_stock_vi(problem, pair, norm_drive(2), vector_grids(problem, pair, (0, 0)))
    three = vector_stock_vi(problem, rewards, norm_drive(2), vector_grids(problem, rewards, (0, 0, 0)))
    # a third reward that is never paid adds a constant distance, here none
    np.testing.assert_allclose(at_start(three, [(0, 0, 0)]), at_start(two, [(0, 0)]), rtol=0, atol=ROUNDING)


def test_policies_are_evaluated():
    problem, rewards = two_rewards(2, discount=1.0, horizon=4)
    utility = norm_drive(1)
    solution = vector_stock_vi(problem, rewards, utility, vector_grids(problem, rewards, (0, 0)))
    again = vector_evaluation(problem, rewards, utility, solution.policy)
    # where the optimum is not known one action's value may be
    known = ~np.isnan(np.asarray(solution.value))
    np.testing.assert_array_equal(np.asarray(again.value)[known], np.asarray(solution.value)[known])
    first = dataclasses.replace(solution.policy, action=jnp.zeros_like(solution.policy.action))
    worse = vector_evaluation(problem, rewards, utility, first)
    gap = np.asarray(solution.value - worse.value)
    assert np.nanmin(gap) >= -ROUNDING and np.nanmax(gap) > 0.1
    law = vector_law(problem, rewards, first, jnp.zeros(2))
    mixed = np.asarray(problem.initial) @ np.asarray([at_value(worse, s) for s in range(3)])
    np.testing.assert_allclose(scored(law, utility, (0, 0)), mixed, rtol=0, atol=ROUNDING)
    action = vector_policy_action(solution.policy, jnp.int32(1), jnp.array([0.2, -0.3]))
    nodes = [int(np.argmin(np.abs(np.asarray(grid.nodes)))) for grid in solution.policy.grids]
    assert action == solution.policy.action[(0, 1, *nodes)]


def at_value(solution, state):
    return float(vector_value(solution, jnp.int32(state), jnp.zeros(2)))


def test_actions_that_are_not_available_and_kernels_of_time():
    problem, rewards = two_rewards(4, discount=1.0, horizon=3)
    grids = vector_grids(problem, rewards, (0, 0))
    fewer = dataclasses.replace(problem, available=problem.available.at[:, 0].set(False))
    forced = vector_stock_vi(fewer, rewards, norm_drive(1), grids)
    assert np.all(np.asarray(forced.policy.action)[~np.isnan(np.asarray(forced.value[:-1]))] == 1)
    repeated = [jnp.stack([x] * 3) for x in (problem.next_state, problem.prob, problem.reward, problem.terminal)]
    names = ("next_state", "prob", "reward", "terminal")
    timed = dataclasses.replace(problem, **dict(zip(names, repeated, strict=True)))
    stacked = jnp.stack([rewards] * 3)
    one, other = (vector_stock_vi(p, r, norm_drive(1), grids) for p, r in ((problem, rewards), (timed, stacked)))
    np.testing.assert_array_equal(one.value, other.value)
    laws = [vector_law(p, r, one.policy, jnp.zeros(2)) for p, r in ((problem, rewards), (timed, stacked))]
    np.testing.assert_array_equal(laws[0].values, laws[1].values)


def test_nothing_is_known_where_a_path_leaves_the_window():
    problem, rewards = envs.make("hazards")
    grid = stock_grid(-3, 0, 1)
    solution = vector_stock_vi(finite_horizon(problem, 2), rewards, constrained(1.0), (grid, grid))
    # the first reward is always -1 and the last step needs no node: only the first node is lost at step 0
    value = np.asarray(solution.value)
    assert np.all(np.isnan(value[0, 0, 0])) and np.all(np.isfinite(value[0, 0, 1:, 1:])) and np.all(~np.isnan(value[1]))
    with pytest.raises(ValueError, match=r"stock: found -4\.0 in coordinate 0, expected numbers in the window"):
        vector_law(finite_horizon(problem, 2), rewards, solution.policy, jnp.array([-3.0, 0.0]))


def test_problems_are_batched():
    problem, rewards = two_rewards(0, discount=1.0, horizon=3)
    grids = vector_grids(problem, rewards, (0, 0))
    weights = jnp.array([0.0, 1.0, 4.0])
    many = jax.vmap(lambda weight: vector_stock_vi(problem, rewards, constrained(weight), grids).value)(weights)
    for weight, value in zip(weights, many, strict=True):
        alone = vector_stock_vi(problem, rewards, constrained(weight), grids).value
        np.testing.assert_allclose(value, alone, rtol=0, atol=ROUNDING)


def test_refusals():
    problem, rewards = two_rewards(0, discount=1.0, horizon=3)
    grids = vector_grids(problem, rewards, (0, 0))
    drive = norm_drive(1)
    half = dataclasses.replace(problem, discount=jnp.asarray(0.5))
    cases = [
        ("order: found 0.5", lambda: norm_drive(0.5)),
        ("weight: found -1", lambda: constrained(-1.0)),
        ("weight: found nan", lambda: constrained(float("nan"))),
        ("no horizon", lambda: vector_stock_vi(finite_horizon(problem, None), rewards, drive, grids)),
        ("grids: found 1, expected 2", lambda: vector_stock_vi(problem, rewards, drive, grids[:1])),
        ("rewards: found shape", lambda: vector_stock_vi(problem, rewards[:, :1], drive, grids)),
        ("last axis of 1 to 3", lambda: vector_grids(problem, jnp.concatenate([rewards] * 2, -1), (0, 0, 0, 0))),
        ("reward: found nan", lambda: vector_stock_vi(problem, rewards * jnp.nan, drive, grids)),
        ("one number", lambda: vector_stock_vi(problem, rewards, two_slope(0.0, 1.0), grids)),
        ("tie_rule: found 'best'", lambda: vector_stock_vi(problem, rewards, drive, grids, tie_rule="best")),
        ("without a degree", lambda: vector_stock_vi(half, rewards, Custom(below), (stock_grid(-9, 9, 1),) * 2)),
        ("spacing: found None", lambda: vector_grids(half, rewards, (0, 0))),
        ("starts: found 0.5", lambda: vector_grids(problem, rewards, (0.5, 0))),
        ("starts: found shape", lambda: vector_grids(problem, rewards, (0,))),
        (
            "rounding 'floor'",
            lambda: vector_stock_vi(problem, rewards, drive, (stock_grid(-9, 9, 1, rounding="floor"),) * 2),
        ),
        ("rounding 'exact'", lambda: vector_stock_vi(problem, rewards / 3, drive, grids)),
        (
            "expected the same in all",
            lambda: vector_stock_vi(
                problem, rewards, drive, (grids[0], stock_grid(-9, 9, 1, coordinates="discounted"))
            ),
        ),
    ]
    for words, call in cases:
        with pytest.raises(ValueError, match=words):
            call()
    solution = vector_stock_vi(problem, rewards, drive, grids)
    short = dataclasses.replace(solution.policy, action=solution.policy.action[1:])
    with pytest.raises(ValueError, match="policy: found action of shape"):
        vector_evaluation(problem, rewards, drive, short)
