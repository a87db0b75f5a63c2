"""Problems of risk and of targets: sizes, single transitions, and the optimal values that the specification computed.

Golden values are printed to six decimals: half of the last digit is the tolerance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.risk import SOUTH_WEST_WALL, TREASURES, betting, deep_sea_treasure, mud_and_nails, obstacle
from rlcore.distributional import Reach, fitting_grid, return_range, stock_grid, stock_value, stock_vi, two_slope

DIGITS = 6e-7
WORST, MEAN, DISTANCE = two_slope(0.0, 1.0), two_slope(1.0, 1.0), two_slope(-1.0, 1.0)


def cvar_costs(problem, grid, levels):
    """(mean cost, best CVaR of the cost at each level) by the formula of Rockafellar and Uryasev."""
    curve = stock_vi(problem, WORST, grid, tol=1e-9).value.value[0]
    mean = stock_vi(problem, MEAN, grid, tol=1e-9).value.above[0]
    return -mean, [-jnp.max(-grid.nodes + curve / level) for level in levels]


@pytest.mark.parametrize(
    ("problem", "states", "grid", "mean", "suite"),
    [
        (betting, 756, (0, 100, 1), 56.609101, {0.1: 93.862633, 0.2: 92.193919, 0.5: 84.656789}),
        (obstacle, 100, (0, 300, 1), 25.240160, {0.1: 49.109073, 0.2: 41.079294, 0.3: 36.523180}),
        (deep_sea_treasure, 1079, (0, 1100, 5), 359.342353, {0.1: 474.034450, 0.2: 453.872599, 0.5: 419.982713}),
    ],
    ids=["betting", "obstacle", "deep_sea_treasure"],
)
def test_cvar_suite(problem, states, grid, mean, suite):
    problem = problem()
    assert problem.prob.shape[0] + 1 == states  # the specification counts the end as a state
    cost, tails = cvar_costs(problem, stock_grid(*grid), suite)
    np.testing.assert_allclose(cost, mean, rtol=0, atol=DIGITS)
    np.testing.assert_allclose(tails, list(suite.values()), rtol=0, atol=DIGITS)


def test_mud_and_nails():
    problem = mud_and_nails()
    # wheel whole or flat in 26 cells: all are reached, for nails lie on the way
    assert problem.prob.shape == (52, 4, 3)
    costs = set(np.unique(-np.asarray(problem.reward)[np.asarray(problem.prob) > 0]))
    assert costs == {1.0, 3.0, 5.0, 36.0}
    # nothing happens with probability 0.3, which a bump into the edge adds to
    assert np.allclose(np.asarray(problem.prob).sum(-1), 1) and np.asarray(problem.prob).max() == 1.0
    low, high = return_range(problem)
    assert np.all(np.isneginf(low)) and np.all(high <= -1)


def test_single_transitions():
    bets = betting()
    assert np.asarray(bets.available)[0].tolist() == [True] * 6
    # from 5, betting 5: 10, 50 or 0
    row = {(p, r) for p, r in zip(np.asarray(bets.prob)[0, 5], np.asarray(bets.reward)[0, 5], strict=True)}
    assert row == {(0.7, 0.0), (0.05, 0.0), (0.25, 0.0)}
    assert len(TREASURES) == 15 and len(SOUTH_WEST_WALL) == 10
    sea = deep_sea_treasure()
    assert np.asarray(sea.available)[0].all() and np.all(np.asarray(sea.reward)[0][np.asarray(sea.prob)[0] > 0] == -5)
    with pytest.raises(ValueError, match="money: found 101"):
        betting(money=101)


TARGETS = {
    0.0: dict.fromkeys(range(-12, 13), 0.0),
    0.2: {-9: 0.265422, -6: 0.099355, -3: 0.038923, -1: 0.018541, 0: 0.0, 1: 0.118721, 3: 0.002546, 6: 0.011456}
    | {9: 0.034305},
}


@pytest.mark.parametrize("slip", TARGETS)
def test_desired_returns(slip):
    problem = envs.make("desired_returns", slip=slip)
    assert problem.prob.shape[:2] == (23, 4) and problem.horizon == 12
    solution = stock_vi(problem, DISTANCE, fitting_grid(problem))
    targets = jnp.asarray(list(TARGETS[slip]), float)
    distance = jax.vmap(lambda target: -stock_value(solution, DISTANCE, 0, -target))(targets)
    np.testing.assert_allclose(distance, list(TARGETS[slip].values()), rtol=0, atol=DIGITS)


def test_lotteries():
    problem = envs.make("lotteries")
    grid = fitting_grid(problem)
    curve = stock_vi(problem, WORST, grid).value.value[0, 0]
    levels = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    best = [jnp.max(-grid.nodes + curve / level) for level in levels]
    np.testing.assert_allclose(best, [-13, -12.92, -12.6, -12.111429, -11.5, -11, -10.6], rtol=0, atol=DIGITS)
    reached = stock_vi(problem, Reach(), grid)
    chance = [stock_value(reached, Reach(), 0, float(-b)) for b in (-7, -9, -11, -13)]
    np.testing.assert_allclose(chance, [0.614125, 0.7225, 0.85, 1], rtol=0, atol=DIGITS)


@pytest.mark.parametrize(
    ("balls", "stick", "mean", "distances"),
    [
        (
            4,
            0.2,
            3.515324,
            {-4: 0.00256, -3: 1.000001, -2: 0.00129, -1: 1.000001, 0: 0.001413, 1: 1.000206, 2: 0.024327}
            | {3: 1.023792, 4: 0.484676},
        ),
        (
            6,
            0.2,
            5.215969,
            {-6: 0.00384, -4: 0.001291, -2: 0.001291, 0: 0.001322, 2: 0.004617, 4: 0.090075, 6: 0.784031},
        ),
        (4, 0.0, 4.0, {-4: 0, -3: 1, -2: 0, -1: 1, 0: 0, 1: 1, 2: 0, 3: 1, 4: 0}),
    ],
)
def test_catch_match(balls, stick, mean, distances):
    problem = envs.make("catch_match", balls=balls, stick=stick)
    grid = fitting_grid(problem)
    np.testing.assert_allclose(
        problem.initial @ stock_vi(problem, MEAN, grid).value.above[0], mean, rtol=0, atol=DIGITS
    )
    solution = stock_vi(problem, DISTANCE, grid)
    targets = jnp.asarray(list(distances), float)
    by_state = jax.vmap(lambda target: solution.value.value[0, :, jnp.argmin(jnp.abs(grid.nodes + target))])(targets)
    np.testing.assert_allclose(-by_state @ problem.initial, list(distances.values()), rtol=0, atol=DIGITS)


def test_vector_rewards():
    drives = envs.make("homeostasis", slip=0.25)
    assert drives.rewards.shape == (9, 5, 2, 2) and drives.problem.horizon == 10
    np.testing.assert_array_equal(drives.problem.reward, drives.rewards[..., 0])
    struck = envs.make("hazards")
    # from the start to the right: a hazard strikes every other time
    law = dict(zip(map(tuple, np.asarray(struck.rewards)[0, 1]), np.asarray(struck.problem.prob)[0, 1], strict=True))
    assert law == {(-1.0, 0.0): 0.5, (-1.0, -1.0): 0.5}
    with pytest.raises(ValueError, match="slip: found 2"):
        envs.make("homeostasis", slip=2.0)
