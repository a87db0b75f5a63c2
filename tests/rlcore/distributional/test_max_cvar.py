"""The largest CVaR: all policies of small trees, the specification's tables, certificates, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Law,
    brute_force_laws,
    cvar,
    cvar_curve,
    lattice,
    maximize_cvar,
    maximize_mean_cvar,
    mean,
    policy_law,
    stock_grid,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem
from tests.rlcore.distributional.risk_problems import lotteries, obstacle

# What stands below is in sums of at most some thousand terms of size 100.
ROUNDING = 1e-10


def best_of_all(problem, functional):
    laws = brute_force_laws(problem, 0)
    return jnp.max(jax.vmap(lambda v, p: functional(Law(v, p)))(laws.values, laws.probs))


def test_no_policy_of_200_trees_does_better_and_the_policy_found_does_as_well():
    problems = [random_problem(seed, discount=1.0, horizon=3, ends=0.2) for seed in range(200)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    grid, points, levels = stock_grid(-6, 6, 1.0), lattice(-6, 6, 1.0), [0.1, 0.35, 0.5, 0.9, 1.0]

    @jax.jit
    @jax.vmap
    def compare(problem):
        found = cvar_curve(problem, levels, grid)
        truth = jnp.stack([best_of_all(problem, lambda law, level=level: cvar(law, level)) for level in levels])
        laws = [policy_law(problem, found.solution.policy, c, points=points).law for c in found.stock]
        earned = jnp.stack([cvar(law, level) for law, level in zip(laws, levels, strict=True)])
        return found.value, truth, earned

    value, truth, earned = compare(batch)
    np.testing.assert_allclose(value, truth, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(earned, truth, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("discount", [0.5, 0.9])
def test_discounted_trees(discount):
    """Discounted by one half returns lie on a lattice and nothing is lost; by nine tenths the truth lies between."""
    for seed in (1, 2):
        problem = random_problem(seed, discount=discount, horizon=3, ends=0.2)
        for level, weight in ((0.35, 0.0), (0.7, 0.25)):
            truth = float(best_of_all(problem, lambda x, a=level, w=weight: w * mean(x) + (1 - w) * cvar(x, a)))
            found = maximize_mean_cvar(problem, level, weight)
            assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING
            slack = ROUNDING if discount == 0.5 else 0.05
            assert float(found.upper - found.lower) < slack and abs(float(found.value) - truth) < slack


def test_a_coarse_grid_loses_no_more_than_its_certificate():
    """Stocks of the exact lattice of one half, spaced 1: the largest CVaR may lie between nodes."""
    lost = []
    for seed in range(3):
        problem = random_problem(seed, discount=0.5, horizon=3, ends=0.2)
        truth = float(best_of_all(problem, lambda law: cvar(law, 0.3)))
        found = maximize_cvar(problem, 0.3, stock_grid(-4, 4, 1.0))
        assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING
        assert float(found.value) <= truth + ROUNDING and truth - float(found.value) <= (1 - 0.3) * 1.0
        lost.append(truth - float(found.value))
    assert max(lost) > 1e-3


def test_lotteries_of_the_specification():
    levels = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    expected = [-13, -12.92, -12.60, -12.111429, -11.5, -11, -10.6]
    problem = lotteries()
    np.testing.assert_allclose(cvar_curve(problem, levels).value, expected, rtol=0, atol=5e-7)
    found = maximize_cvar(problem, 0.5)
    for number in (found.value, found.lower, found.upper):
        assert abs(float(number) + 12.92) < ROUNDING
    law = dict(zip(np.asarray(found.law.values).tolist(), np.asarray(found.law.probs).tolist(), strict=True))
    for value, prob in ((-31, 0.003375), (-23, 0.03825), (-15, 0.108375), (-11, 0.85)):
        assert abs(law[value] - prob) < ROUNDING
    # without the stock three plans are left, one for each number of lotteries taken
    assert float(found.value) > -13 + 0.07


def test_costs_without_an_end_are_certified_on_a_grid_that_grew():
    """Obstacle-10; 64 nodes do for all but the smallest level, where the grid grows."""
    problem = obstacle()
    for level, cost in ((0.1, 49.109073), (0.3, 36.523180)):
        found = maximize_cvar(problem, level)
        assert abs(float(found.value) + cost) < 1e-5 and abs(float(found.lower) + cost) < 1e-5
        assert float(found.upper) == float(found.value) and float(found.policy.grid.nodes[-1]) >= cost
    grown = cvar_curve(problem, [0.01, 1.0])
    nodes = grown.solution.policy.grid.nodes
    assert float(nodes[-1]) >= -float(grown.value[0]) > 64
    assert abs(float(grown.value[1]) + 25.240160) < 1e-5


def test_gains_move_the_stock_and_scales_move_the_value():
    problem = random_problem(4, discount=1.0, horizon=3, ends=0.0)
    found = maximize_cvar(problem, 0.4)
    doubled = maximize_cvar(dataclasses.replace(problem, reward=2 * problem.reward), 0.4)
    assert abs(float(doubled.value) - 2 * float(found.value)) < ROUNDING
    more = maximize_cvar(dataclasses.replace(problem, reward=problem.reward + 1), 0.4)
    assert abs(float(more.value) - float(found.value) - 3) < ROUNDING


@pytest.mark.parametrize("level", [0.0, -0.1, 1.5, np.nan])
def test_levels_are_named(level):
    problem = random_problem(0, discount=1.0, horizon=3)
    with pytest.raises(ValueError, match=r"level: found .* expected a number in \(0, 1\]"):
        maximize_cvar(problem, level)
    with pytest.raises(ValueError, match="levels: found"):
        cvar_curve(problem, [0.5, level])
    with pytest.raises(ValueError, match=r"weight: found 2.0, expected a number in \[0, 1\]"):
        maximize_mean_cvar(problem, 0.5, 2.0)


def test_returns_without_bounds_are_refused():
    forever = tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[1.0, -1.0]]])
    with pytest.raises(ValueError, match="returns without an upper bound"):
        maximize_cvar(forever, 0.5)


def test_a_discount_of_zero_is_named():
    problem = random_problem(0, discount=0.0, horizon=3)
    with pytest.raises(ValueError, match=r"discount: found 0\.0"):
        maximize_cvar(problem, 0.5)
