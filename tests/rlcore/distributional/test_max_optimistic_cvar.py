"""The largest optimistic CVaR: the instance that needs a coin, all mixtures of the policies of trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import Law, brute_force_laws, maximize_optimistic_cvar, optimistic_cvar
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem
from tests.rlcore.distributional.risk_problems import lotteries, obstacle

ROUNDING = 1e-9


def test_the_specification_s_instance_needs_the_coin():
    """A pays 10 with probability .1, B pays 5: both have 5, the coin 65/9, at the return 40/9."""
    outcomes = [[[0, 0], [0, 0]]], [[[0.1, 0.9], [1.0, 0.0]]], [[[10.0, 0.0], [5.0, 0.0]]]
    found = maximize_optimistic_cvar(tabular(*outcomes, terminal=np.ones((1, 2, 2), bool), horizon=1), 0.2)
    for number in (found.value, found.lower, found.upper):
        assert abs(float(number) - 65 / 9) < ROUNDING
    assert abs(float(found.stock) + 40 / 9) < ROUNDING and abs(float(found.weight) - 8 / 9) < ROUNDING
    laws = brute_force_laws(tabular(*outcomes, horizon=1), 0)
    alone = jax.vmap(lambda v, p: optimistic_cvar(Law(v, p), 0.2))(laws.values, laws.probs)
    np.testing.assert_allclose(alone, 5.0, rtol=0, atol=ROUNDING)


def minimax(laws, level):
    """min over b of the best policy's b + E max(G - b, 0) / level: a minimum of kinks and crossings, found by ternary
    search on the convex function of b."""
    values, probs = np.asarray(laws.values), np.asarray(laws.probs)

    def height(b):
        return b + np.max(np.sum(probs * np.maximum(values - b, 0), axis=1)) / level

    low, high = values.min(), values.max()
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if height(left) <= height(right) else (left, high)
    return height((low + high) / 2)


@pytest.mark.parametrize("discount", [1.0, 0.5, 0.9])
def test_trees(discount):
    gains = []
    for seed in (1, 2):
        problem = random_problem(seed, discount=discount, horizon=3, ends=0.2)
        laws = brute_force_laws(problem, 0)
        truth = minimax(laws, 0.6)
        found = maximize_optimistic_cvar(problem, 0.6)
        assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING
        if discount != 0.9:
            for number in (found.value, found.lower, found.upper):
                assert abs(float(number) - truth) < ROUNDING
        alone = jax.vmap(lambda v, p: optimistic_cvar(Law(v, p), 0.6))(laws.values, laws.probs)
        gains.append(truth - float(jnp.max(alone)))
        assert abs(float(found.law.probs.sum()) - 1) < ROUNDING
    assert min(gains) > -ROUNDING


def test_level_one_is_the_mean_and_costs_may_go_on():
    found = maximize_optimistic_cvar(lotteries(), 1.0)
    assert abs(float(found.value) + 10.6) < ROUNDING and abs(float(found.lower) + 10.6) < ROUNDING
    found = maximize_optimistic_cvar(obstacle(), 0.3)
    assert abs(float(found.lower) - float(found.value)) < 1e-7 and float(found.value) <= float(found.upper)
    assert -25.24 < float(found.value) < -9


def test_levels_are_named():
    with pytest.raises(ValueError, match=r"level: found 0, expected a number in \(0, 1\]"):
        maximize_optimistic_cvar(lotteries(), 0)
