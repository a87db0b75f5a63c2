"""Vectors of stocks: the specification's homeostasis and hazards, and what the policy really reaches.

Golden values are printed to six decimals at most: half of the last digit is the tolerance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from rlcore.distributional import fitting_grid, stock_grid, stock_vi, two_slope
from rlcore.distributional.vector_stock import Constrained, MinusNorm, final_stocks, vector_stock_vi

DIGITS = 6e-7
WORST = jax.tree_util.Partial(lambda x: jnp.minimum(x[..., 0], 0))
WIDE = (stock_grid(-14, 32, 1), stock_grid(-14, 32, 1))


def at(solution, *stock, state=0):
    steps = [(c - g.lattice.low) / g.lattice.spacing for c, g in zip(stock, solution.grids, strict=True)]
    index = tuple(int(jnp.round(x)) for x in steps)
    return solution.value[(0, state, *index)]


@pytest.mark.parametrize(
    ("slip", "order", "golden"),
    [
        (0.0, 1, {(0, 0): 2, (5, 0): 2, (0, 5): 2, (-4, 4): 2, (6, 6): 2, (12, 12): 4}),
        (0.0, 2, {(0, 0): 2**0.5, (5, 0): 2**0.5, (0, 5): 2**0.5, (-4, 4): 2, (6, 6): 2**0.5, (12, 12): 8**0.5}),
        (
            0.2,
            1,
            {(0, 0): 6.260297, (5, 0): 3.454239, (0, 5): 3.454239, (-4, 4): 5.31188, (6, 6): 2.694877, (12, 12): 4},
        ),
    ],
)
def test_homeostasis(slip, order, golden):
    problem, rewards = envs.make("homeostasis", slip=slip)
    solution = vector_stock_vi(problem, rewards, MinusNorm(float(order)), WIDE)
    np.testing.assert_allclose([-at(solution, *c) for c in golden], list(golden.values()), rtol=0, atol=DIGITS)
    # the policy's own law of the final stocks earns what the value promises
    law, left = final_stocks(problem, rewards, solution, 0, jnp.array([5.0, 0.0]))
    mesh = jnp.stack(jnp.meshgrid(*(g.nodes for g in WIDE), indexing="ij"), -1)
    assert left == 0
    np.testing.assert_allclose(jnp.sum(law), 1, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(law * MinusNorm(float(order))(mesh)), at(solution, 5, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("weight", "golden"),
    [(0.5, (-4.75, -4.3125, -4.0625, -4.0)), (2.0, (-6.0, -5.25, -4.25, -4.0)), (8.0, (-6.0, -5.5, -4.5, -4.0))],
)
def test_hazards(weight, golden):
    problem, rewards = envs.make("hazards")
    grids = (stock_grid(-12, 0, 1), stock_grid(-12, 3, 1))
    solution = vector_stock_vi(problem, rewards, Constrained(weight), grids)
    # from budget d; NaN where twelve hazards could leave the window is not among them
    np.testing.assert_allclose([at(solution, 0, d) for d in range(4)], golden, rtol=0, atol=1e-12)


def test_one_coordinate_is_the_scalar_solver():
    problem = envs.make("lotteries")
    grid = stock_grid(-180, 180, 1)
    vector = vector_stock_vi(problem, problem.reward[..., None], WORST, (grid,))
    scalar = stock_vi(problem, two_slope(0.0, 1.0), fitting_grid(problem))
    nodes = np.asarray(scalar.policy.grid.nodes)
    common = (nodes >= 0) & (nodes <= 180)
    wide = np.isin(np.asarray(grid.nodes), nodes[common])
    np.testing.assert_allclose(vector.value[0][:, wide], scalar.value.value[0][:, common], rtol=0, atol=1e-12)


def test_bad_input():
    problem, rewards = envs.make("hazards")
    grids = (stock_grid(-12, 0, 1), stock_grid(-12, 3, 1))
    with pytest.raises(ValueError, match="rewards, grids: found shape"):
        vector_stock_vi(problem, rewards[..., :1], MinusNorm(), grids)
    with pytest.raises(ValueError, match=r"found rounding .exact., spacing 0\.7"):
        vector_stock_vi(problem, rewards, MinusNorm(), (stock_grid(-12, 0, 0.7), grids[1]))
    with pytest.raises(ValueError, match="rewards: found NaN"):
        vector_stock_vi(problem, rewards * jnp.nan, MinusNorm(), grids)
    solution = vector_stock_vi(problem, rewards, MinusNorm(), grids)
    assert np.isnan(at(solution, -12, 0))  # the next reward leaves the window
