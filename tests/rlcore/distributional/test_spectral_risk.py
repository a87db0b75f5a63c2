"""Spectral risks: every policy enumerated, one stock against a product of grids, known special cases, refusals.

Returns are sums of at most 20 rewards below 10, found on a lattice: values are exact to 1e-12.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Custom,
    Law,
    fitting_grid,
    maximize_spectral,
    policy_action,
    spectral,
    stock_vi,
    two_slope,
    vector_grids,
    vector_stock_vi,
    vector_value,
)
from rlcore.distributional.spectral_risk import Hinges
from rlcore.mdp import finite_horizon, tabular
from tests.rlcore.distributional.problems import law_of_policy, random_problem, return_laws

ROUNDING = 1e-12
RISKS = {
    "one": ((0.3,), (1.0,)),
    "two": ((0.25, 0.8), (0.6, 0.4)),
    "three": ((0.2, 0.5, 1.0), (0.3, 0.4, 0.3)),
}


def tree(seed, discount, outcomes=2):
    problem = random_problem(seed, discount=discount, horizon=3, ends=0.2, outcomes=outcomes)
    return dataclasses.replace(problem, initial=jnp.array([1.0, 0.0, 0.0]))


@functools.cache
def every_law(seed, discount):
    """Padded laws (values, probs) [n, 8] of all policies of the history."""
    laws = return_laws(tree(seed, discount), 0, 3)
    table = np.zeros((2, len(laws), 8))
    for i, (values, probs) in enumerate(laws):
        table[0, i, : values.size], table[1, i, : probs.size] = values, probs
    return table


# returns of the discounted trees have four times as many lattice points: two levels there
@pytest.mark.parametrize(("discount", "risk"), [(1.0, "one"), (1.0, "two"), (1.0, "three"), (0.5, "two")])
def test_no_policy_of_the_history_is_better(discount, risk):
    levels, weights = RISKS[risk]
    score = jax.jit(jax.vmap(lambda v, p: spectral(Law(v, p), jnp.array(levels), jnp.array(weights))))
    for seed in range(2):
        problem = tree(seed, discount)
        found = maximize_spectral(problem, levels, weights)
        best = np.max(score(*every_law(seed, discount)))
        np.testing.assert_allclose(found.value, best, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose([found.lower, found.upper], best, rtol=0, atol=ROUNDING)
        if discount == 1:  # `law_of_policy` follows the stock in stock coordinates
            law = np.array(law_of_policy(problem, found.policy, 0, float(found.stock)))
            own = spectral(Law(*jnp.asarray(law.T)), jnp.array(levels), jnp.array(weights))
            np.testing.assert_allclose(own, best, rtol=0, atol=ROUNDING)


def test_one_stock_does_for_two():
    """The product of two grids, both earning the same reward, has the same values at all pairs of thresholds."""
    levels, weights = (np.array(x) for x in RISKS["two"])
    slopes = jnp.asarray(weights / levels)
    problem = tree(1, 1.0)
    rewards = jnp.stack([problem.reward] * 2, axis=-1)
    lowest = Custom(lambda x: slopes[0] * jnp.minimum(x[..., 0], 0) + slopes[1] * jnp.minimum(x[..., 1], 0), 1.0)
    pairs = [(0.0, 0.0), (1.0, -2.0), (2.0, 0.0), (-1.0, -4.0)]
    product = vector_stock_vi(problem, rewards, lowest, vector_grids(problem, rewards, pairs))
    grid = fitting_grid(problem, high=20)
    for first, second in pairs:
        one = stock_vi(problem, Hinges(slopes, jnp.array([0.0, first - second])), grid)
        found = one.value.value[0, 0, int(np.argmin(np.abs(np.asarray(grid.nodes) - first)))]
        expected = vector_value(product, jnp.int32(0), jnp.array([first, second]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


def test_mean_and_cvar_are_one_utility_of_two_slopes():
    """w mean + (1 - w) CVaR_level: slopes w above the threshold and w + (1 - w) / level below it."""
    problem, level, weight = tree(3, 1.0), 0.5, 0.3
    found = maximize_spectral(problem, (level, 1.0), (1 - weight, weight))
    grid = fitting_grid(problem)
    slopes = two_slope(weight, weight + (1 - weight) / level)
    curve = stock_vi(problem, slopes, grid).value.value[0, 0] - grid.nodes
    np.testing.assert_allclose(found.value, jnp.max(curve), rtol=0, atol=ROUNDING)


def test_level_one_is_the_mean_and_weight_zero_is_nothing():
    problem = tree(0, 1.0)
    mean = np.max(np.sum(np.prod(every_law(0, 1.0), axis=0), axis=-1))
    np.testing.assert_allclose(maximize_spectral(problem, (1.0,), (1.0,)).value, mean, rtol=0, atol=ROUNDING)
    one = maximize_spectral(problem, (0.3,), (1.0,)).value
    np.testing.assert_allclose(maximize_spectral(problem, (0.3, 0.9), (1.0, 0.0)).value, one, rtol=0, atol=ROUNDING)


def test_the_window_reaches_past_the_last_kink():
    """Nothing, or 10 and then a choice: the stock is above 10 where the mean's threshold is still to come."""
    problem = tabular(
        np.array([[[0, 1], [0, 1]], [[1, 1], [1, 1]]]),
        np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]]),
        np.array([[[0.0, 10.0], [0.0, 10.0]], [[-4.0, 4.0], [-1.0, 0.0]]]),
        terminal=np.array([[[True, False], [True, False]], [[True, True], [True, True]]]),
        discount=1.0,
        horizon=2,
        initial=np.array([1.0, 0.0]),
    )
    # the gamble has mean 5, the sure way 4.5; the worst quarter is 0 on both
    found = maximize_spectral(problem, (0.25, 1.0), (0.5, 0.5))
    np.testing.assert_allclose(found.value, 2.5, rtol=0, atol=ROUNDING)
    assert found.thresholds[0] == 0 and found.thresholds[1] == 14
    assert policy_action(found.policy, 1, found.stock + 10, 1) == 0


def test_costs_without_a_horizon():
    """A wheel that turns until it stops, or a fixed price: the threshold is searched down to -high."""
    problem = random_problem(0, discount=1.0, states=1, outcomes=2)
    spin = dataclasses.replace(
        problem,
        prob=jnp.array([[[0.5, 0.5], [1.0, 0.0]]]),
        reward=jnp.array([[[-1.0, -1.0], [-3.0, 0.0]]]),
        terminal=jnp.array([[[False, True], [True, True]]]),
    )
    # the number of spins is geometric: its worst tenth has mean 5.25; stopping after k spins costs k + 3
    found = maximize_spectral(spin, (0.1,), (1.0,), high=60)
    np.testing.assert_allclose(found.value, -3.0, rtol=0, atol=1e-9)
    assert found.upper == np.inf
    with pytest.raises(ValueError, match="high: found None"):
        maximize_spectral(spin, (0.1,), (1.0,))
    # the mean is 2 spins
    np.testing.assert_allclose(maximize_spectral(spin, (1.0,), (1.0,), high=60).value, -2.0, rtol=0, atol=1e-9)


def test_refusals():
    problem = tree(0, 1.0)
    thin = dataclasses.replace(problem, discount=jnp.asarray(0.9))
    endless = finite_horizon(dataclasses.replace(problem, discount=jnp.asarray(0.5)), None)
    fine = dataclasses.replace(problem, reward=(1000 * problem.reward).at[0, 0, 0].add(1))
    cases = [
        ((problem, (0.0, 0.5), (0.5, 0.5)), r"levels: found \[0\.0, 0\.5\]"),
        ((problem, (0.5, 0.5), (0.5, 0.5)), r"levels: found .* increasing"),
        ((problem, (float("nan"),), (1.0,)), "levels: found"),
        ((problem, (0.5, 1.0), (0.5, 0.6)), r"weights: found .* sum to 1"),
        ((problem, (0.5,), (0.5, 0.5)), "levels, weights: found shapes"),
        ((thin, (0.5,), (1.0,)), r"discount 0\.9 and horizon 3"),
        ((endless, (0.5,), (1.0,)), r"discount 0\.5 and horizon None"),
        ((fine, (0.1, 0.5, 1.0), (0.2, 0.3, 0.5)), "sets of thresholds, expected at most 100000"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            maximize_spectral(*arguments)
