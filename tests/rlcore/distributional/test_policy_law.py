"""Laws of stock policies against enumeration of paths, simulation and what they must not lose."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Law,
    StockPolicy,
    expected_utility,
    lattice,
    mean,
    policy_law,
    sample_returns,
    stock_evaluation,
    stock_grid,
    stock_vi,
    two_slope,
    wasserstein,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import law_of_policy, random_problem

SHORTFALL = two_slope(0.0, 1.0)
# Sums of products of some hundred terms of at most 10, in float64.
ROUNDING = 1e-12


def planned(problem, grid):
    return stock_vi(problem, SHORTFALL, grid).policy


def enumerated(problem, policy, state, stock):
    values, probs = zip(*law_of_policy(problem, policy, state, stock), strict=True)
    return Law(jnp.array(values), jnp.array(probs))


@pytest.mark.parametrize(("discount", "rounding"), [(1.0, "exact"), (0.5, "exact"), (1.0, "linear")])
def test_on_a_lattice_the_law_is_that_of_all_paths(discount, rounding):
    problem = random_problem(1, discount=discount, horizon=4, ends=0.2)
    policy = planned(problem, stock_grid(-12, 12, 1.0, rounding=rounding))
    for stock in (1.0, 0.37, -40.0):  # a node, between nodes, outside the window
        found = policy_law(problem, policy, stock, state=0)
        assert float(found.error) == 0 and abs(float(found.remaining)) < ROUNDING
        assert float(wasserstein(found.law, enumerated(problem, policy, 0, stock))) < ROUNDING


def test_off_the_lattice_the_law_is_within_its_error_and_has_the_true_mean():
    problem = random_problem(3, discount=0.9, horizon=4, ends=0.2)
    policy = planned(problem, stock_grid(-12, 12, 1.0, rounding="linear"))
    found, true = policy_law(problem, policy, 1.0, state=0), enumerated(problem, policy, 0, 1.0)
    assert 0 < float(wasserstein(found.law, true)) <= float(found.error) < 1e-3
    assert abs(float(mean(found.law) - mean(true))) < ROUNDING
    coarse = policy_law(problem, policy, 1.0, state=0, points=lattice(-16, 16, 0.25))
    assert float(found.error) < float(wasserstein(coarse.law, true)) <= float(coarse.error)


def test_initial_law_mixes_states():
    weights = np.array([0.2, 0.3, 0.5])
    problem = random_problem(1, discount=1.0, horizon=4, ends=0.2)
    problem = dataclasses.replace(problem, initial=jnp.asarray(weights))
    policy = planned(problem, stock_grid(-12, 12, 1.0))
    each = [policy_law(problem, policy, 1.0, state=s, points=lattice(-8, 8, 1.0)).law.probs for s in range(3)]
    found = policy_law(problem, policy, 1.0, points=lattice(-8, 8, 1.0))
    np.testing.assert_allclose(found.law.probs, weights @ np.array(each), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "linear"])
def test_simulation_agrees(rounding):
    """Five standard errors, of the mean and of the shortfall, with 5 000 episodes."""
    problem = random_problem(5, discount=0.9, ends=0.1)
    policy, start = planned(problem, stock_grid(-20, 20, 0.7, rounding=rounding)), 1.3
    found = policy_law(problem, policy, start)
    sample = np.asarray(sample_returns(problem, policy, start, jax.random.key(0), 5_000, 150))
    law = Law(found.law.values + start, found.law.probs)
    for got, expected in (
        (sample, mean(found.law)),
        (np.minimum(sample + start, 0), expected_utility(law, SHORTFALL)),
    ):
        assert abs(got.mean() - float(expected)) < 5 * got.std() / np.sqrt(got.size) + float(found.error)


def test_a_rounding_policy_keeps_its_own_account():
    """What it earns is its value on the rounded problem, whose rewards make up for the rounding, up to the rounding."""
    problem = random_problem(2, discount=0.9, horizon=5)
    grid = stock_grid(-20, 20, 0.7, rounding="floor")
    policy = planned(problem, grid)
    value = stock_evaluation(problem, SHORTFALL, policy).value.value[0]
    earned = []
    for node in (0, 30, 57):
        start = float(grid.nodes[node])
        found = policy_law(problem, policy, start, state=0)
        law = Law(found.law.values + start, found.law.probs)
        earned.append(float(expected_utility(law, SHORTFALL) + found.error - value[0, node]))
    # rounded down, a stock never promises more than is earned; five roundings lose less than 5 spacings
    assert min(earned) >= -ROUNDING and max(earned) < 5 * 0.7


@pytest.mark.parametrize(("rounding", "returns"), [("exact", {-2.0: 0.0, 2.0: 4.0}), ("floor", {-2.0: 4.0, 2.0: 4.0})])
def test_outside_the_window_the_sides_act(rounding, returns):
    """Down at the nodes -1, 0, 1, up on both sides: a true stock comes back into the window, a rounded one does not."""
    walk = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[-1.0], [1.0]]])
    up, down = jnp.ones(1, jnp.int32), jnp.zeros((1, 3), jnp.int32)
    policy = StockPolicy(stock_grid(-1, 1, 1.0, rounding=rounding), down, up, up)
    for start, end in returns.items():
        law = policy_law(walk, policy, start, num_steps=4).law
        assert float(law.probs[law.values == end].sum()) == 1
        assert float(sample_returns(walk, policy, start, jax.random.key(0), 1, 4)[0]) == end


def test_costs_are_followed_until_the_episode_is_over():
    """A geometric number of steps: P(G = -n) = 2^-n."""
    coin = tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[-1.0, -1.0]]], terminal=[[[True, False]]])
    policy = planned(coin, stock_grid(0, 10, 1.0))
    found = policy_law(coin, policy, 3.0)
    assert float(found.remaining) <= 1e-10
    values, probs = np.asarray(found.law.values), np.asarray(found.law.probs)
    for n in range(1, 20):
        assert abs(probs[values == -n].item() - 0.5**n) < ROUNDING
    short = policy_law(coin, policy, 3.0, num_steps=4)
    assert float(short.remaining) == 0.5**4 and float(short.law.probs.sum()) == 1


def test_a_discounted_tail_is_counted_as_error():
    forever = tabular([[[0]]], [[[1.0]]], [[[1.0]]], discount=0.9)
    policy = planned(forever, stock_grid(-10, 10, 0.1, rounding="linear"))
    found = policy_law(forever, policy, 0.0, num_steps=10, points=lattice(0, 12, 1e-3))
    missing = 10 - float(mean(found.law))
    assert abs(missing - 0.9**10 * 10) < 1e-9 and missing <= float(found.error)


def test_traced_problems_and_policies():
    problems = [random_problem(seed, discount=1.0, horizon=3, ends=0.2) for seed in range(8)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    grid, points = stock_grid(-8, 8, 1.0), lattice(-6, 6, 1.0)

    @jax.jit
    @jax.vmap
    def laws(problem):
        return policy_law(problem, planned(problem, grid), 1.0, points=points).law.probs

    for problem, probs in zip(problems, laws(batch), strict=True):
        single = policy_law(problem, planned(problem, grid), 1.0, points=points)
        np.testing.assert_allclose(probs, single.law.probs, rtol=0, atol=ROUNDING)


def test_bad_input_is_named():
    problem = random_problem(1, discount=1.0, horizon=4)
    policy = planned(problem, stock_grid(-12, 12, 1.0))
    with pytest.raises(ValueError, match="num_steps: found 3 with horizon 4"):
        policy_law(problem, policy, 0.0, num_steps=3)
    with pytest.raises(ValueError, match=r"points: found -1.0 to 1.0, expected the partial sums"):
        policy_law(problem, policy, 0.0, points=lattice(-1, 1, 1.0))
    with pytest.raises(ValueError, match="points: found 2 to 9, expected the point 0"):
        policy_law(problem, policy, 0.0, points=lattice(2, 9, 1.0))
    with pytest.raises(ValueError, match=r"state: found 3, expected a number in 0, \.\.\., 2"):
        policy_law(problem, policy, 0.0, state=3)
    with pytest.raises(ValueError, match="policy: found shapes"):
        policy_law(dataclasses.replace(problem, horizon=3), policy, 0.0)
    with pytest.raises(ValueError, match="points, num_steps: found None with a traced problem"):
        jax.jit(lambda p: policy_law(p, policy, 0.0).law.probs)(problem)
