"""Temporal differences on states and stocks: exact where nothing is random, else within sampling error of the exact
law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    CategoricalTable,
    Law,
    Power,
    QuantileTable,
    StockTD,
    fitting_grid,
    lattice,
    policy_action,
    project_quantile,
    stock_grid,
    stock_vi,
    two_slope,
    wasserstein,
)
from rlcore.mdp import tabular
from rlcore.solver import iterate

TARGET = two_slope(-1.0, 1.0)
# On every path from the stocks -1, 0 and 2 of this tree the best action is better than the other by 0.6 or more.
UNIQUE = 43


def tree(seed=0, *, discount=1.0, outcomes=2):
    """Three layers: state 0, then 1 or 2, then 3, then the end; whole rewards."""
    rng = np.random.default_rng(seed)
    shape = (4, 2, outcomes)
    next_state = np.full(shape, 3)
    next_state[0] = rng.integers(1, 3, (2, outcomes))
    terminal = np.zeros(shape, bool)
    terminal[3] = True
    prob = rng.dirichlet(np.ones(outcomes), shape[:2])
    reward = rng.integers(-2, 3, shape).astype(float)
    return tabular(next_state, prob, reward, terminal=terminal, discount=discount)


def atoms(problem, grid):
    """A lattice on which no mass is clipped, minus every node and all returns of three steps among its points."""
    spacing = float(grid.lattice.spacing)
    reach = float(jnp.max(jnp.abs(problem.reward))) + spacing * float(problem.discount)
    reach = reach / (1 - float(problem.discount)) if problem.discount < 1 else 3 * reach
    reach = max(reach, float(jnp.max(jnp.abs(grid.nodes))))
    return CategoricalTable(lattice(-reach, reach, spacing * float(problem.discount) ** 2))


def assert_values(found, expected, tolerance):
    for name, x, y in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance, err_msg=name)


def exact_law(problem, policy, state, stock):
    """The law of the return under a stock policy, by following every path."""
    a = int(policy_action(policy, jnp.int32(state), float(stock)))
    values, probs = [], []
    for b in range(problem.prob.shape[2]):
        p, r, discount = (float(x) for x in (problem.prob[state, a, b], problem.reward[state, a, b], problem.discount))
        after, end = int(problem.next_state[state, a, b]), bool(problem.terminal[state, a, b])
        rest = ([0.0], [1.0]) if end else exact_law(problem, policy, after, (stock + r) / discount)
        values += [r + discount * x for x in rest[0]]
        probs += [p * q for q in rest[1]]
    return values, probs


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_without_chance_every_step_is_a_sweep(discount):
    problem = tree(1, discount=discount, outcomes=1)
    grid = fitting_grid(problem)
    expected = stock_vi(problem, TARGET, grid).value
    learner = StockTD(TARGET, grid, atoms(problem, grid), power=0.0)
    state, _ = iterate(learner, problem, 3, key=jax.random.key(0))
    # a few sums of small numbers
    assert_values(learner.value(problem, state), expected, 1e-13)
    for stock in (-2.0, 0.0, 1.0):
        values, _ = exact_law(problem, learner.policy(problem, state), 0, stock)
        law = learner.law(problem, state, jnp.int32(0), stock)
        assert float(wasserstein(law, Law(jnp.array(values), jnp.ones(1)))) < 1e-12


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_sampled_laws_tend_to_the_exact_law(discount):
    problem = tree(UNIQUE, discount=discount)
    grid = fitting_grid(problem)
    solution = stock_vi(problem, TARGET, grid)
    best_mean = stock_vi(problem, two_slope(1.0, 1.0), grid)
    learner = StockTD(TARGET, grid, atoms(problem, grid))
    steps, seeds = np.array([250, 4000]), 8

    def errors(key):
        observe = lambda problem, state: learner.value(problem, state)  # noqa: E731
        state, trace = iterate(learner, problem, 4000, key=key, observe=observe, every=steps)
        laws = [learner.law(problem, state, jnp.int32(0), c) for c in (-1.0, 0.0, 2.0)]
        return jnp.max(jnp.abs(trace.value - solution.value.value[None]), axis=(1, 2)), laws

    worst, laws = jax.jit(jax.vmap(errors))(jax.random.split(jax.random.key(0), seeds))
    # averages of n draws: sixteen times as many, a quarter of the error; half is asked for
    assert float(worst[:, 1].mean()) < 0.5 * float(worst[:, 0].mean())
    # values are means of at most three rewards within [-2, 2], each the average of 4000 draws: five standard errors
    assert float(worst[:, 1].max()) < 5 * 3 * 2 / np.sqrt(4000)
    for stock, law in zip((-1.0, 0.0, 2.0), laws, strict=True):
        exact = Law(*(jnp.array(x) for x in exact_law(problem, solution.policy, 0, stock)))
        distance = jax.vmap(wasserstein, (0, None))(law, exact)
        # a distribution function's standard error, at most 1 / (2 sqrt(4000)), times the widths 12, 8 and 4 of three
        # layers bounds the mean distance; twice that is far from the law of the policy with the best mean
        allowed = 2 * 24 / (2 * np.sqrt(4000))
        assert float(distance.max()) < allowed
        other = Law(*(jnp.array(x) for x in exact_law(problem, best_mean.policy, 0, stock)))
        assert float(wasserstein(other, exact)) > 1.5 * allowed


def test_quantiles_tend_to_those_of_the_exact_law():
    problem = tree(UNIQUE)
    grid = fitting_grid(problem)
    solution = stock_vi(problem, TARGET, grid)
    learner = StockTD(TARGET, grid, QuantileTable(40), first=0.4, delay=1000.0)
    state, _ = iterate(learner, problem, 8000, key=jax.random.key(1))
    for stock in (-1.0, 0.0, 2.0):
        exact = Law(*(jnp.array(x) for x in exact_law(problem, solution.policy, 0, stock)))
        found = learner.law(problem, state, jnp.int32(0), stock)
        projected = Law(project_quantile(exact, 40), found.probs)
        # three projections, each within range / (2 N) of its law in w_1, and the last steps, of size 0.4 / 9
        assert float(wasserstein(found, projected)) < 3 * 12 / 80 + 3 * 0.4 / 9


def off_the_nodes(outcomes=1):
    """Three states without end, rewards that no grid contains."""
    rng = np.random.default_rng(4)
    shape = (3, 2, outcomes)
    prob = rng.dirichlet(np.ones(outcomes), shape[:2])
    return tabular(rng.integers(0, 3, shape), prob, rng.uniform(-1, 1, shape), discount=0.5)


@pytest.mark.parametrize("rounding", ["nearest", "floor", "ceil"])
def test_laws_are_those_of_the_rounded_stock(rounding):
    problem, grid = off_the_nodes(), stock_grid(-2.25, 2.25, 0.25, rounding=rounding)
    expected = stock_vi(problem, TARGET, grid, tol=1e-14).value
    learner = StockTD(TARGET, grid, CategoricalTable(lattice(-2.5, 2.5, 0.25)), power=0.0)
    state, _ = iterate(learner, problem, 60, key=jax.random.key(0))
    # after 60 sweeps 2^-60 of the start is left; rounding is added at every sweep and halved at the next
    assert_values(learner.value(problem, state), expected, 1e-13)


def test_a_coin_between_nodes_learns_the_interpolated_values():
    problem, steps = off_the_nodes(), 3000
    grid = stock_grid(-2.25, 2.25, 0.25, rounding="linear")
    expected = stock_vi(problem, TARGET, grid).value
    learner = StockTD(TARGET, grid, CategoricalTable(lattice(-2.5, 2.5, 0.25)), power=0.8)
    state, _ = iterate(learner, problem, steps, key=jax.random.key(2))
    # a coin moves the target's value by at most discount spacing = 1/8, so its deviation is at most 1/16; at the last
    # rates half of their number is averaged, and what follows doubles it; five such deviations
    allowed = 5 * 2 / 16 / np.sqrt(2 * steps**0.8)
    assert_values(learner.value(problem, state), expected, allowed)
    nearest = stock_vi(problem, TARGET, dataclasses.replace(grid, rounding="nearest")).value
    assert float(jnp.max(jnp.abs(nearest.value - expected.value))) > 2 * allowed


def test_unavailable_actions_are_never_greedy():
    problem = dataclasses.replace(
        tree(), available=jnp.array([[True, True], [False, True], [True, False], [True, True]])
    )
    grid = fitting_grid(problem)
    learner = StockTD(TARGET, grid, QuantileTable(4), first=0.1)
    state, _ = iterate(learner, problem, 5, key=jax.random.key(0))
    policy = learner.policy(problem, state)
    for actions in (policy.action, policy.below, policy.above):
        assert np.all(np.asarray(actions)[1] == 1) and np.all(np.asarray(actions)[2] == 0)


def test_bad_input():
    problem, grid = tree(), stock_grid(-8.0, 8.0, 1.0)
    learner = StockTD(TARGET, grid, QuantileTable(4))
    with pytest.raises(ValueError, match="problem: found horizon 3, expected None"):
        learner.init(dataclasses.replace(problem, horizon=3))
    with pytest.raises(ValueError, match="utility: found Power, expected one with affine sides"):
        dataclasses.replace(learner, utility=Power(2.0)).init(problem)
    with pytest.raises(ValueError, match="grid: found last node"):
        dataclasses.replace(learner, grid=stock_grid(-1.0, 1.0, 1.0)).init(problem)
