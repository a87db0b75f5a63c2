"""Brackets by rounding stocks down and up: around the exact lattice, earned by the policy, refused where they fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Custom,
    Law,
    Power,
    Reach,
    bracket,
    expected_utility,
    policy_law,
    stock_grid,
    stock_vi,
    two_slope,
)
from rlcore.distributional.bracket import bracket_at
from tests.rlcore.distributional.problems import random_problem

ROUNDING = 1e-8


def between(exact, problem, utility, node):
    """The exact optimum at a node of another grid, from a lattice of a tenth of a unit, nodes of which they all are."""
    solution = stock_vi(problem, utility, exact)
    index = np.rint((np.asarray(node) - float(exact.lattice.low)) / float(exact.lattice.spacing)).astype(int)
    return solution.value.value[:, index]


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (1.0, 0.3), (0.5, 1.0)])
def test_the_exact_optimum_lies_inside(slopes):
    """Without a horizon, discount 1/2, spacings .7 and .3 beside an exact lattice of .1."""
    utility, exact = two_slope(*slopes), stock_grid(-4, 4, 0.1)
    for seed in range(3):
        problem = random_problem(seed, discount=0.5, ends=0.1)
        for spacing in (0.7, 0.3):
            grid = stock_grid(-4.2, 4.2, spacing, rounding="nearest")
            found = bracket(problem, utility, grid)
            inside = np.abs(np.asarray(grid.nodes)) <= 4
            true = between(exact, problem, utility, grid.nodes[inside])
            low, high = found.lower[:, inside], found.upper[:, inside]
            assert bool(jnp.all(low <= true + ROUNDING)) and bool(jnp.all(true <= high + ROUNDING))
            # T11: each side is off by at most slope spacing discount / (1 - discount)
            assert float(jnp.max(high - low)) <= 2 * max(slopes) * spacing + ROUNDING
            assert float(jnp.max(high - low)) > 1e-3
            assert found.policy.grid.rounding == "floor"


def test_the_policy_earns_the_lower_end():
    problem, utility = random_problem(1, discount=0.9, horizon=6, ends=0.1), two_slope(0.3, 1.0)
    found = bracket(problem, utility, stock_grid(-14, 14, 0.6))
    for stock in (-1.0, 0.35, 2.4):
        start, lower, upper = bracket_at(problem, found, stock)
        law = policy_law(problem, found.policy, start)
        earned = float(expected_utility(Law(law.law.values + stock, law.law.probs), utility))
        assert lower - float(law.error) <= earned <= upper + float(law.error)
        assert start <= stock < start + 0.6 and lower < upper


def test_jumps_are_bracketed():
    """P(G >= target) on a coarse grid around the lattice that loses nothing."""
    problem = random_problem(3, discount=0.5, horizon=4, ends=0.1)
    exact = stock_vi(problem, Reach(), stock_grid(-4, 4, 0.125, coordinates="discounted"))
    found = bracket(problem, Reach(), stock_grid(-4, 4, 0.5, coordinates="discounted"))
    true = exact.value.value[0, :, ::4]
    assert bool(jnp.all(found.lower[0] <= true + ROUNDING)) and bool(jnp.all(true <= found.upper[0] + ROUNDING))
    assert bool(jnp.any(found.upper[0] > found.lower[0] + ROUNDING))  # not the same table twice


def test_a_distance_would_escape_its_bracket():
    """The reason of the refusal: rounding is no bound for a utility that falls."""
    problem, grid = random_problem(0, discount=0.5, ends=0.1), stock_grid(-4.2, 4.2, 0.7)
    floor, ceil = (
        stock_vi(problem, two_slope(-1.0, 1.0), dataclasses.replace(grid, rounding=rounding)).value.value
        for rounding in ("floor", "ceil")
    )
    assert bool(jnp.any(floor > ceil + 0.05))
    with pytest.raises(ValueError, match=r"utility: found slope a_plus = -1.0, expected slopes >= 0: a rounded stock"):
        bracket(problem, two_slope(-1.0, 1.0), grid)


def test_bad_input_is_named():
    problem = random_problem(0, discount=1.0, horizon=3)
    grid = stock_grid(-6, 6, 1.0)
    with pytest.raises(ValueError, match=r"utility: found Power falling after 0.0, expected a nondecreasing one"):
        bracket(problem, Power(2.0), grid)
    with pytest.raises(ValueError, match=r"utility: found Custom falling after -6.0"):
        bracket(problem, Custom(jax.lax.neg, 1.0), grid)
    found = bracket(problem, two_slope(0.0, 1.0), grid)
    with pytest.raises(ValueError, match=r"stock: found 7.0, expected a stock in \[-6.0, 6.0\]"):
        bracket_at(problem, found, 7.0)
    # on an exact lattice nothing is rounded
    assert bool(jnp.all(found.lower == found.upper))
