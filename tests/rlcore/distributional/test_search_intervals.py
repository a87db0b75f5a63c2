"""Every search on grids that round: the truth, by enumeration of all policies, lies between lower and upper."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rlcore.distributional import (
    brute_force_laws,
    expected_utility,
    expectile,
    maximize_expectile,
    maximize_omega,
    maximize_optimistic_cvar,
    maximize_probability,
    maximize_value_at_risk,
    minimize_distance,
    minimize_variance,
    stock_grid,
    two_slope,
    value_at_risk,
    variance,
)
from tests.rlcore.distributional.searches import of_all_laws, tree

# Values are sums of some tens of products below 100; a sum that has to reach a target may miss it by as much.
ROUNDING = 1e-12
TARGET = 0.7


def reaches(law):
    return jnp.sum(jnp.where(law.values >= TARGET - 1e-9, law.probs, 0))


def omega(law):
    moved = law._replace(values=law.values - TARGET)
    loss = -expected_utility(moved, two_slope(0.0, 1.0))
    return expected_utility(moved, two_slope(1.0, 0.0)) / loss


def distance(law, power):
    return expected_utility(law, lambda x: jnp.abs(x - TARGET) ** power)


# What is searched, and the functional of the law whose best value it finds: the largest, or the least.
SEARCHES = {
    "expectile": (functools.partial(maximize_expectile, level=0.25), functools.partial(expectile, level=0.25), np.max),
    "value_at_risk": (
        functools.partial(maximize_value_at_risk, level=0.25),
        functools.partial(value_at_risk, level=0.25),
        np.max,
    ),
    "probability": (functools.partial(maximize_probability, target=TARGET), reaches, np.max),
    "omega": (functools.partial(maximize_omega, target=TARGET), omega, np.max),
    "distance": (functools.partial(minimize_distance, target=TARGET), functools.partial(distance, power=1.0), np.min),
    "square": (
        functools.partial(minimize_distance, target=TARGET, power=2.0),
        functools.partial(distance, power=2.0),
        np.min,
    ),
    "variance": (minimize_variance, variance, np.min),
}
PROBLEMS = [tree(seed, 0.5) for seed in range(2)]


@pytest.mark.parametrize("name", SEARCHES)
def test_intervals_hold_the_optimum_on_grids_that_round(name):
    search, functional, best = SEARCHES[name]
    for problem in PROBLEMS:
        truth = float(best(of_all_laws(problem, functional)))
        for rounding in ("linear", "stochastic", "nearest", "floor", "ceil"):
            found = search(problem, grid=stock_grid(-30, 30, 0.4, rounding=rounding))
            assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING, rounding


def test_the_interval_of_the_coin_holds_the_minimax_value():
    for problem, level in zip(PROBLEMS, (0.2, 0.6), strict=True):
        laws = brute_force_laws(problem, 0)
        values, probs = np.asarray(laws.values), np.asarray(laws.probs)

        def height(b, level=level, values=values, probs=probs):
            return float(np.max(b + np.sum(probs * np.maximum(values - b, 0), axis=1) / level))

        # convex: the least on a lattice of spacing 0.05 has the minimum between its neighbours
        points = np.linspace(-4, 4, 161)
        i = int(np.argmin([height(b) for b in points]))
        ends = points[max(i - 1, 0)], points[min(i + 1, 160)]
        truth = minimize_scalar(height, bounds=ends, method="bounded", options={"xatol": 1e-10}).fun
        # slopes are below 1 / 0.2, the search is off by some 1e-10
        for rounding in (None, "linear", "floor", "ceil"):
            grid = None if rounding is None else stock_grid(-30, 30, 0.4, rounding=rounding)
            found = maximize_optimistic_cvar(problem, level, grid)
            assert float(found.lower) - 1e-8 <= truth <= float(found.upper) + 1e-8
            if rounding is None:
                assert float(found.lower) == pytest.approx(truth, abs=1e-8)
