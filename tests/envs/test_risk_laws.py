"""Laws of the policies of risk and of targets, further golden values, and the American put against its own recursion.

Golden values are printed to six decimals: half of the last digit is the tolerance. The exact laws are sums of products
of at most 20 probabilities: 1e-12.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from rlcore.distributional import (
    Custom,
    Law,
    VectorPolicy,
    cvar,
    fitting_grid,
    merge,
    stock_grid,
    stock_value,
    stock_vi,
    two_slope,
    vector_law,
)
from rlcore.mdp import finite_horizon
from rlcore.pytree import pytree
from rlcore.types import Array

DIGITS, ROUNDING = 6e-7, 1e-12
WORST, MEAN, DISTANCE = two_slope(0.0, 1.0), two_slope(1.0, 1.0), two_slope(-1.0, 1.0)


def law_of(problem, solution, stock) -> Law:
    """The exact law of the return of a stock policy whose stock stays in its window."""
    policy = VectorPolicy((solution.policy.grid,), solution.policy.action)
    law = vector_law(problem, problem.reward[..., None], policy, jnp.asarray([stock], float))
    return Law(law.values[:, 0], law.probs)


@pytest.mark.parametrize(
    ("id", "horizon", "grid", "golden"),
    [
        ("lotteries", 20, (-180, 180, 1), {0.4: 13, 0.5: 12.92, 0.6: 12.6, 0.7: 12.111429, 0.8: 11.5, 0.9: 11}),
        ("betting", 10, (0, 100, 1), {0.1: 93.862633, 0.2: 92.193919, 0.5: 84.656789}),
        ("deep_sea_treasure", 16, (0, 600, 5), {0.2: 453.872599}),
    ],
)
def test_extracted_policies_earn_the_best_cvar(id, horizon, grid, golden):
    """The laws are those of the policies, pushed forward outcome by outcome: nothing of the solver is used."""
    problem = finite_horizon(envs.make(id), horizon)
    grid = stock_grid(*grid)
    solution = stock_vi(problem, WORST, grid)
    nodes = np.asarray(grid.nodes)
    for level, cost in golden.items():
        curve = np.where(nodes >= 0, -nodes + np.asarray(solution.value.value[0, 0]) / level, -np.inf)
        law = law_of(problem, solution, nodes[curve.argmax()])
        np.testing.assert_allclose([-curve.max(), -float(cvar(law, level))], cost, rtol=0, atol=DIGITS)


def test_lotteries_of_the_mean():
    """The best mean takes all three: 7 moves and 8 for each that is lost."""
    problem = envs.make("lotteries")
    grid = stock_grid(-180, 180, 1)
    law = merge(law_of(problem, stock_vi(problem, MEAN, grid), 0.0))
    lost = np.array([3, 2, 1, 0])
    np.testing.assert_array_equal(law.values, -7.0 - 8 * lost)
    np.testing.assert_allclose(
        law.probs, [math.comb(3, k) * 0.15**k * 0.85 ** (3 - k) for k in lost], rtol=0, atol=ROUNDING
    )
    golden = {0.4: -16, 0.5: -14.2, 0.6: -13, 0.7: -12.142857, 0.8: -11.5, 0.9: -11, 1.0: -10.6}
    np.testing.assert_allclose([cvar(law, x) for x in golden], list(golden.values()), rtol=0, atol=DIGITS)
    # what the specification tells of the policies at 0.5: after a win round the others, after a loss through them
    solution = stock_vi(problem, WORST, grid)
    curve = -np.asarray(grid.nodes) + np.asarray(solution.value.value[0, 0]) / 0.5
    start = float(grid.nodes[np.where(np.asarray(grid.nodes) >= 0, curve, -np.inf).argmax()])
    law = merge(law_of(problem, solution, start))
    np.testing.assert_array_equal(law.values, [-31, -23, -15, -11])
    np.testing.assert_allclose(law.probs, [0.003375, 0.03825, 0.108375, 0.85], rtol=0, atol=ROUNDING)


@pytree
class Around:
    """The expectile's utility with its kink at `target`, which need not be a node."""

    level: Array
    target: Array

    degree = None

    def __call__(self, x):
        x = x - self.target
        return jnp.where(x < 0, 1 - self.level, self.level) * x

    def tails(self):
        return None


def test_lotteries_expectiles_and_distances():
    problem = envs.make("lotteries")
    # 13 moves are enough for every detour, and the stock only falls
    short, grid = finite_horizon(problem, 13), stock_grid(-117, 0, 1)

    @jax.jit
    @jax.vmap
    def largest(level):
        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            above = stock_vi(short, Around(level, middle), grid).value.value[0, 0, -1] >= 0
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        return jax.lax.fori_loop(0, 35, halve, (jnp.asarray(-60.0), jnp.asarray(0.0)))[0]

    golden = {0.1: -13, 0.25: -13, 0.5: -10.6, 0.75: -8.615618}
    np.testing.assert_allclose(largest(jnp.asarray(list(golden))), list(golden.values()), rtol=0, atol=DIGITS)
    solution = stock_vi(problem, DISTANCE, fitting_grid(problem))
    distances = {-7: 3.6, -9: 2.178, -11: 0.96, -13: 0.0}
    found = [-stock_value(solution, DISTANCE, 0, float(-g)) for g in distances]
    np.testing.assert_allclose(found, list(distances.values()), rtol=0, atol=DIGITS)


def hits(x):
    return (jnp.abs(x) < 0.5).astype(x.dtype)


def test_desired_returns_are_hit():
    problem = envs.make("desired_returns", slip=0.2)
    solution = stock_vi(problem, Custom(hits), stock_grid(-60, 60, 1))
    golden = {-9: 0.895384, -6: 0.947155, -3: 0.983066, -1: 0.992241, 1: 0.918953, 3: 0.999064}
    golden |= {6: 0.997084, 9: 0.992498}
    found = [stock_value(solution, Custom(hits), 0, float(-g)) for g in golden]
    np.testing.assert_allclose(found, list(golden.values()), rtol=0, atol=DIGITS)
    law = merge(law_of(problem, solution, -6.0))
    np.testing.assert_allclose(law.probs[np.asarray(law.values) == 6], golden[6], rtol=0, atol=DIGITS)


def test_american_put():
    problem = envs.make("american_put")
    assert problem.prob.shape == (55, 2, 2) and problem.horizon == 10
    # holding at the start: up first
    np.testing.assert_allclose(problem.prob[0, 0], [0.320768, 0.679232], rtol=0, atol=DIGITS)
    grid = stock_grid(-1, 0, 0.01, rounding="linear")
    found = stock_vi(problem, WORST, grid).value.value[0, 0]
    # the stock stays c until the end: one sweep per c over (period, ups)
    up = math.exp(0.3 * math.sqrt(0.1))
    chance = (math.exp(-0.03) - 1 / up) / (up - 1 / up)
    for c, value in zip(np.asarray(grid.nodes), found, strict=True):
        utility = [[min(c + max(1 - up ** (2 * k - t), 0), 0) for k in range(t + 1)] for t in range(10)]
        v = np.array(utility[9])
        for t in reversed(range(9)):
            v = np.maximum(utility[t], chance * v[1:] + (1 - chance) * v[:-1])
        np.testing.assert_allclose(value, v[0], rtol=0, atol=ROUNDING)
    mean = stock_vi(problem, MEAN, grid).value.above[0, 0]
    # exercised at once it pays nothing, and a price that falls is worth waiting for
    assert 0.2 < mean < 0.3
    with pytest.raises(ValueError, match=r"drift: found 2, a chance of 32\..* expected one in \[0, 1\]"):
        envs.make("american_put", periods=1, drift=2, volatility=0.1)
    with pytest.raises(ValueError, match="periods: found 0"):
        envs.make("american_put", periods=0)


def test_all_problems_are_listed():
    ids = {"american_put", "betting", "catch_match", "deep_sea_treasure", "desired_returns", "hazards", "homeostasis"}
    assert ids | {"lotteries", "mud_and_nails", "obstacle"} <= set(envs.list())
    small = {"catch_match": dict(balls=1, size=2)}
    for id in sorted(ids - {"hazards", "homeostasis"}):
        problem = envs.make(id, **small.get(id, {}))
        assert float(problem.discount) == 1 and dataclasses.is_dataclass(problem)
