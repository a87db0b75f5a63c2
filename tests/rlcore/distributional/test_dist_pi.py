"""Distributional policy iteration: the optimum of value iteration, reached monotonically, whatever is tied."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Categorical,
    Quantiles,
    dist_pi,
    dist_vi,
    entropic,
    essential_infimum,
    lattice,
    stock_grid,
    stock_vi,
    two_slope,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem

UTILITY = two_slope(-1.0, 1.0)
PROBLEMS = [random_problem(seed, discount=0.5, states=4, ends=0.1) for seed in range(8)]
BATCH = jax.tree.map(lambda *x: jnp.stack(x), *PROBLEMS)
GRID = stock_grid(-4, 4, 1)
KEEP = Categorical(lattice(-4, 4, 1))


def values(**how):
    solve = functools.partial(dist_pi, functional=UTILITY, grid=GRID, representation=KEEP, **how)
    return jax.jit(jax.vmap(solve))(BATCH)


@pytest.fixture(scope="module")
def optimum():
    return jax.jit(jax.vmap(lambda problem: stock_vi(problem, UTILITY, GRID, tol=1e-13).value))(BATCH)


@pytest.mark.parametrize("eval_steps", [None, 1, 4])
def test_it_ends_at_the_optimum(eval_steps, optimum):
    found = values(eval_steps=eval_steps)
    for a, b in zip(found.value, optimum, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert np.all(found.residual <= 1e-9)
    assert np.all(found.steps < (12 if eval_steps is None else 60))


def test_every_improvement_is_one_and_halves_the_gap(optimum):
    last = None
    for k in range(4):
        found = values(max_steps=k + 1).value.value
        # the value of policy k: laws within 2 * END of each other, slope 1
        assert np.all(optimum.value - found <= 0.5**k * 2 * 2 / (1 - 0.5) + 1e-9)
        assert last is None or np.all(found >= last - 1e-9)
        last = found


def test_ties_keep_the_old_action():
    """Two actions that differ in nothing that counts: the second is kept where the policy has it."""
    problem = tabular([[[0, 0], [0, 0]]], [[[0.5, 0.5], [0.5, 0.5]]], [[[1.0, -1.0], [-1.0, 1.0]]], discount=0.5)
    start = stock_vi(problem, UTILITY, stock_grid(-2, 2, 1), tie_rule="last").policy
    solve = functools.partial(dist_pi, problem, UTILITY, stock_grid(-2, 2, 1), Categorical(lattice(-2, 2, 1)))
    found = solve(policy=start)
    assert np.all(found.policy.action == 1) and np.all(found.policy.above == 1) and int(found.steps) == 1
    assert np.all(solve().policy.action == 0)
    with pytest.raises(ValueError, match="policy: found one on another grid"):
        dist_pi(problem, UTILITY, stock_grid(-2, 2, 0.5), Categorical(lattice(-2, 2, 1)), policy=start)


def test_the_surest_return_needs_no_utility():
    """The worst case has its own equation, v = max_a min_b r + discount v."""
    problem = PROBLEMS[0]
    reward, next_state, ended = (np.asarray(x) for x in (problem.reward, problem.next_state, problem.terminal))
    worst = np.zeros(4)
    for _ in range(60):
        worst = np.max(np.min(reward + 0.5 * np.where(ended, 0, worst[next_state]), axis=-1), axis=-1)
    for solve in (dist_pi, dist_vi):
        found = solve(problem, essential_infimum, GRID, Quantiles(3, "low"))
        # 60 halvings of at most 4, and the tolerance
        np.testing.assert_allclose(found.value.value, worst[:, None] + np.arange(-4, 5), atol=1e-9)
        np.testing.assert_allclose(found.value.below, worst, atol=1e-9)


def test_what_it_is_not_for():
    keep = Quantiles(4)
    with pytest.raises(ValueError, match="problem: found horizon 2"):
        dist_pi(random_problem(0, discount=0.5, horizon=2), UTILITY, GRID, keep)
    with pytest.raises(ValueError, match="eval_steps: found 0"):
        dist_pi(PROBLEMS[0], UTILITY, GRID, keep, eval_steps=0)
    with pytest.raises(ValueError, match="functional: found entropic"):
        dist_pi(PROBLEMS[0], functools.partial(entropic, beta=1.0), GRID, keep)
