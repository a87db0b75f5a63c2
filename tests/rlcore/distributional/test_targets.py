"""Targets, roots, ratios and spreads of the return: all policies of small trees, and the specification's tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Law,
    Power,
    Reach,
    brute_force_laws,
    expected_utility,
    expectile,
    maximize_expectile,
    maximize_omega,
    maximize_probability,
    maximize_value_at_risk,
    mean,
    minimize_distance,
    minimize_variance,
    two_slope,
    value_at_risk,
    variance,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem
from tests.rlcore.distributional.risk_problems import lotteries, obstacle

ROUNDING = 1e-10


def moved(law, target):
    return Law(law.values - target, law.probs)


def reached(law, target):
    return expected_utility(moved(law, target - 1e-9), Reach())


def ratio(law, target):
    gain = expected_utility(moved(law, target), two_slope(1.0, 0.0))
    return gain / expected_utility(moved(law, target), two_slope(0.0, -1.0))


# search, functional of a law by definition, whether it is minimised
SEARCHES = {
    "expectile .25": (lambda p: maximize_expectile(p, 0.25), lambda x: expectile(x, 0.25), False),
    "expectile .9": (lambda p: maximize_expectile(p, 0.9), lambda x: expectile(x, 0.9), False),
    "omega": (lambda p: maximize_omega(p, -0.3), lambda x: ratio(x, -0.3), False),
    "probability": (lambda p: maximize_probability(p, 0.6), lambda x: reached(x, 0.6), False),
    "value at risk": (lambda p: maximize_value_at_risk(p, 0.25), lambda x: value_at_risk(x, 0.25), False),
    "distance": (lambda p: minimize_distance(p, 0.6), lambda x: -expected_utility(moved(x, 0.6), Power(1.0)), True),
    "square": (
        lambda p: minimize_distance(p, 0.6, power=2.0),
        lambda x: -expected_utility(moved(x, 0.6), Power(2.0)),
        True,
    ),
    "variance": (lambda p: minimize_variance(p, max_plans=40), variance, True),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_no_policy_of_the_history_does_better(name):
    """Exact where returns lie on a lattice (discounts 1 and 1/2), else between the certified ends (9/10)."""
    search, functional, minimised = SEARCHES[name]
    for discount in (1.0, 0.5, 0.9):
        problem = random_problem(1, discount=discount, horizon=3, ends=0.2)
        laws = brute_force_laws(problem, 0)
        each = jax.vmap(lambda v, p: functional(Law(v, p)))(laws.values, laws.probs)
        truth = float(jnp.min(each) if minimised else jnp.max(each))
        found = search(problem)
        # the least variance ends within its own tolerance, 1e-9; the ratio is a quotient of size 100
        slack = 2e-9 if name == "variance" else ROUNDING * max(1.0, abs(truth))
        slack = slack if np.isfinite(truth) else 0.0  # a ratio without any loss is infinite, exactly
        assert float(found.lower) - slack <= truth <= float(found.upper) + slack
        if discount != 0.9:
            for number in (found.value, found.lower, found.upper):
                assert float(number) == truth or abs(float(number) - truth) <= slack


def test_lotteries_of_the_specification():
    problem = lotteries()
    for target, probability in ((-7, 0.614125), (-9, 0.7225), (-11, 0.85), (-13, 1.0)):
        found = maximize_probability(problem, target)
        for number in (found.value, found.lower, found.upper):
            assert abs(float(number) - probability) < ROUNDING
        level = 1 - probability
        assert float(maximize_value_at_risk(problem, level).lower) == target
    for level, e in ((0.1, -13), (0.25, -13), (0.5, -10.6), (0.75, -8.615618)):
        found = maximize_expectile(problem, level)
        for number in (found.value, found.lower, found.upper):
            assert abs(float(number) - e) < 5e-7
    for target, distance in ((-7, 3.6), (-9, 2.178), (-11, 0.96), (-13, 0.0)):
        found = minimize_distance(problem, target)
        for number in (found.value, found.lower, found.upper):
            assert abs(float(number) - distance) < ROUNDING
    assert float(minimize_variance(problem).upper) < 1e-9  # the detour


def test_targets_between_and_beyond_returns():
    problem = lotteries()
    between = maximize_probability(problem, -10.5)
    assert abs(float(between.value) - 0.7225) < ROUNDING and abs(float(between.lower) - 0.7225) < ROUNDING
    for target, probability in ((0.0, 0.0), (1e3, 0.0), (-1e4, 1.0)):
        found = maximize_probability(problem, target)
        assert float(found.value) == float(found.upper) == probability
        assert abs(float(found.lower) - probability) < ROUNDING


def test_costs_without_an_end():
    """The least cost of a path of Obstacle-10 is 10: nothing comes within 9, and most within 40."""
    problem = obstacle()
    hopeless = maximize_probability(problem, -8.0)
    assert float(hopeless.upper) == 0.0
    # eight steps are lost at most, each costs at most 20; then the best mean acts, 25.24 from the start
    assert float(mean(hopeless.law)) > -8 * 20 - 60
    found = maximize_probability(problem, -40.0)
    assert abs(float(found.lower) - float(found.value)) < 1e-9 and 0.5 < float(found.value) < 1
    level = 1 - float(found.value)
    assert float(maximize_value_at_risk(problem, level + 1e-9).value) >= -40.0
    sure = maximize_value_at_risk(problem, level - 1e-3)
    assert float(sure.value) < -40.0 and float(sure.lower) == float(sure.value)


def test_expectiles_and_ratios_of_costs_without_an_end():
    """One state: a coin costs 1 and ends the episode by half, or one pays 2 to end.

    Coins for ever, or one and then the end, have expectiles e with q (-1 - e) / 2 = (1 - q) (e + 3) / 2: -5/2 at 1/4,
    -3/2 at 3/4; the end at once has -2. Beyond 3/2 coins gain (3/2 - 1) / 2 and lose 3/4.
    """
    kernel = [[[0, 0], [0, 0]]], [[[0.5, 0.5], [1.0, 0.0]]], [[[-1.0, -1.0], [-2.0, 0.0]]]
    problem = tabular(*kernel, terminal=[[[True, False], [True, True]]])
    found = (maximize_expectile(problem, 0.25), -2.0), (maximize_expectile(problem, 0.75), -1.5)
    for optimum, truth in (*found, (maximize_omega(problem, -1.5), 1 / 3)):
        # sweeps and laws end at 1e-10, over the smaller slope 1/4 or the loss 3/4, times the two steps that are left
        for number in (optimum.value, optimum.lower, optimum.upper):
            assert abs(float(number) - truth) < 1e-9


def test_ratios_without_losses_or_gains():
    problem = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[1.0], [3.0]]], terminal=[[[True], [True]]], horizon=1)
    assert float(maximize_omega(problem, 0.5).value) == np.inf
    none = maximize_omega(problem, 4.0)
    assert float(none.value) == float(none.lower) == float(none.upper) == 0.0


def test_bad_input_is_named():
    problem, endless = random_problem(0, discount=1.0, horizon=3), random_problem(0, discount=0.5)
    with pytest.raises(ValueError, match=r"level: found 1.0, expected a number in \(0, 1\)"):
        maximize_expectile(problem, 1.0)
    with pytest.raises(ValueError, match=r"level: found 1.0, expected a number in \[0, 1\)"):
        maximize_value_at_risk(problem, 1.0)
    for search in (maximize_probability, maximize_omega, minimize_distance):
        with pytest.raises(ValueError, match="target: found nan, expected a finite number"):
            search(problem, np.nan)
    with pytest.raises(ValueError, match=r"power: found 0.5, expected a number >= 1"):
        minimize_distance(problem, 0.0, power=0.5)
    with pytest.raises(ValueError, match="problem: found no horizon"):
        minimize_variance(endless)
    with pytest.raises(ValueError, match=r"problem: found no horizon with power 2.0"):
        minimize_distance(endless, 0.0, power=2.0)
    with pytest.raises(ValueError, match=r"Reach at discount 0.5 without a horizon"):
        maximize_probability(endless, 0.0)
    off = tabular([[[0]]], [[[1.0]]], [[[1 / 3]]], terminal=[[[True]]])
    with pytest.raises(ValueError, match="problem: found discount 1, no horizon and returns on no node"):
        maximize_value_at_risk(off, 0.3)
