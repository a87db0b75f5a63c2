"""Every search on grids that round: the truth, by enumeration of all policies, lies between lower and upper."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

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
    optimistic_cvar,
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
# On the first two, rounding moves values beyond the optimum: without what it may cost, intervals would miss.
PROBLEMS = [tree(2), tree(3), tree(0, 0.5)]
GRID = functools.partial(stock_grid, -33, 33, 0.7)


@pytest.mark.parametrize("name", SEARCHES)
def test_intervals_hold_the_optimum_on_grids_that_round(name):
    search, functional, best = SEARCHES[name]
    for problem in PROBLEMS:
        truth = float(best(of_all_laws(problem, functional)))
        for rounding in ("linear", "stochastic", "nearest", "floor", "ceil"):
            found = search(problem, grid=GRID(rounding=rounding))
            assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING, rounding


def minimax(problem, level):
    """min over b of max over policies of b + E max(G - b, 0) / level, by linear programming."""
    laws = brute_force_laws(problem, 0)
    atoms, where = np.unique(np.round(laws.values, 9), return_inverse=True)
    gain = np.zeros((len(laws.values), atoms.size))
    np.add.at(gain, (np.arange(len(gain))[:, None], where.reshape(laws.values.shape)), np.asarray(laws.probs) / level)
    # variables: the maximum, b, and max(atom - b, 0) of every atom
    ones = np.ones((len(gain), 1))
    rows = np.block([[-ones, ones, gain], [np.zeros((atoms.size, 1)), -np.ones((atoms.size, 1)), -np.eye(atoms.size)]])
    cost = np.zeros(atoms.size + 2)
    cost[0] = 1
    bounds = [(None, None)] * 2 + [(0, None)] * atoms.size
    return linprog(cost, A_ub=rows, b_ub=np.concatenate([0 * ones[:, 0], -atoms]), bounds=bounds).fun


@pytest.mark.parametrize(("seed", "level"), [(5, 0.2), (16, 0.2), (16, 0.4)])
def test_the_interval_of_the_coin_holds_the_minimax_value(seed, level):
    problem = tree(seed)
    truth = minimax(problem, level)
    # without the coin the best policy is worse
    assert of_all_laws(problem, functools.partial(optimistic_cvar, level=level)).max() < truth - 0.01
    for rounding in (None, "linear", "floor", "ceil"):
        found = maximize_optimistic_cvar(problem, level, None if rounding is None else GRID(rounding=rounding))
        # the programme is solved to 1e-9
        assert float(found.lower) - 1e-8 <= truth <= float(found.upper) + 1e-8
        if rounding is None:
            assert float(found.lower) == pytest.approx(truth, abs=1e-8)
