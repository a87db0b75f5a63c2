"""Laws and values of policies: projection errors against their bounds, enumeration of paths, linear equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Categorical,
    Law,
    Quantiles,
    StockPolicy,
    categorical_law,
    cvar,
    fitting_lattice,
    lattice,
    law_evaluation,
    mean,
    quantile_law,
    stock_evaluation,
    stock_grid,
    stock_vi,
    two_slope,
    variance,
    wasserstein,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import law_of_policy, random_problem

DISCOUNT, STATES = 0.8, 4
END = 2 / (1 - DISCOUNT)
FINE = 0.0125


def chain(seed):
    """A problem of one action: laws of a chain, all stocks alike."""
    return random_problem(seed, discount=DISCOUNT, states=STATES, actions=1)


def only_policy(grid, states=STATES):
    zeros = jnp.zeros((states, grid.lattice.size), jnp.int32)
    return StockPolicy(grid, zeros, zeros[:, 0], zeros[:, 0])


# Two nodes: the side below holds the laws without stocks, with true rewards.
POLICY = only_policy(stock_grid(0, 1, 1, rounding="nearest"))
CHAINS = jax.tree.map(lambda *x: jnp.stack(x), *[chain(seed) for seed in range(10)])


def laws_of_chains(representation):
    evaluate = functools.partial(law_evaluation, policy=POLICY, representation=representation, tol=1e-11)
    return jax.jit(jax.vmap(lambda problem: evaluate(problem).below))(CHAINS)


def moments():
    """Mean and variance of the return of every chain and state, by their linear equations."""
    found = []
    for seed in range(10):
        problem = chain(seed)
        prob, reward, next_state = (np.asarray(x)[:, 0] for x in (problem.prob, problem.reward, problem.next_state))
        matrix = np.zeros((STATES, STATES))
        np.add.at(matrix, (np.arange(STATES)[:, None], next_state), prob)
        first = np.linalg.solve(np.eye(STATES) - DISCOUNT * matrix, np.sum(prob * reward, axis=1))
        known = np.sum(prob * (reward**2 + 2 * DISCOUNT * reward * first[next_state]), axis=1)
        second = np.linalg.solve(np.eye(STATES) - DISCOUNT**2 * matrix, known)
        found.append((first, second - first**2))
    return np.array(found).swapaxes(0, 1)


def each(function, points, pmf):
    """A functional of laws on a lattice, [10, STATES]."""
    return np.asarray(jax.vmap(jax.vmap(lambda p: function(categorical_law(points, p))))(pmf))


@pytest.fixture(scope="module")
def fine():
    points = lattice(-END, END, FINE)
    return points, laws_of_chains(Categorical(points))


@pytest.mark.parametrize("spacing", [0.2, 0.8])
def test_categorical_laws_keep_the_mean_and_spread_by_no_more_than_their_bound(spacing, fine):
    points = lattice(-END, END, spacing)
    pmf = laws_of_chains(Categorical(points))
    true_mean, true_variance = moments()
    # tolerance 1e-11 in each of 100 curve points, of slope at most 1
    np.testing.assert_allclose(each(mean, points, pmf), true_mean, atol=1e-9)
    excess = each(variance, points, pmf) - true_variance
    assert np.all(excess > -1e-9) and np.all(excess <= spacing**2 / (4 * (1 - DISCOUNT**2)) + 1e-9)
    bound = spacing / 2 / np.sqrt(1 - DISCOUNT**2)
    # the fine law has the same bound, at its own spacing
    known = FINE / 2 / np.sqrt(1 - DISCOUNT**2)
    law = functools.partial(categorical_law, points)
    for order in (1, 2):
        distance = jax.vmap(jax.vmap(lambda p, q, o=order: wasserstein(law(p), categorical_law(fine[0], q), o)))
        found = distance(pmf, fine[1])
        assert np.all(found <= bound + known) and np.max(found) > 0.05 * bound
    # a lattice inside the other spreads more: every tail is worse
    for level in (0.05, 0.3):
        tail = functools.partial(cvar, level=level)
        assert np.all(each(tail, points, pmf) <= each(tail, *fine) + 1e-8)


def test_a_lattice_that_is_too_narrow_loses_the_mean():
    points = lattice(-2, 2, 0.2)
    assert np.max(np.abs(each(mean, points, laws_of_chains(Categorical(points))) - moments()[0])) > 0.1


def test_quantiles_bracket_the_law_and_are_biased(fine):
    size, (true_mean, _) = 50, moments()
    kept = {which: laws_of_chains(Quantiles(size, which)) for which in ("low", "middle", "high")}
    means = {which: np.asarray(jnp.mean(x, axis=-1)) for which, x in kept.items()}
    assert np.all(means["low"] <= true_mean + 1e-9) and np.all(true_mean <= means["high"] + 1e-9)
    assert np.max(np.abs(means["middle"] - true_mean)) > 1e-3
    # the range over the number of quantiles, over 1 - discount
    bound = 2 * END / (2 * size) / (1 - DISCOUNT)
    distance = jax.vmap(jax.vmap(lambda x, q: wasserstein(quantile_law(x), categorical_law(fine[0], q))))
    assert np.all(distance(kept["middle"], fine[1]) <= bound + FINE)
    # the order of distribution functions: the fine law is the true one and noise of standard deviation below 0.0105, of
    # which, by Chebyshev, a share of at most 0.012 is above 0.1
    atoms, cuts = np.asarray(fine[0].points), np.linspace(-END, END, 81)
    for which, sign in (("low", 1), ("high", -1)):
        below = np.mean(np.asarray(kept[which])[..., None] <= cuts, axis=-2)
        true = np.asarray(fine[1]) @ (atoms[:, None] <= cuts - sign * 0.1)
        assert np.all(sign * (below - true) >= -0.012)


@pytest.fixture(scope="module")
def rounded():
    """The specification's discount and window, floored stocks, an optimal policy."""
    problem = random_problem(1, discount=0.7, states=4, ends=0.1)
    grid = stock_grid(-7, 7, 0.25, rounding="floor")
    utility = two_slope(-1.0, 1.0)
    return problem, utility, stock_vi(problem, utility, grid, tol=1e-12)


def test_a_value_without_laws_is_that_of_value_iteration_and_of_the_laws(rounded):
    problem, utility, optimal = rounded
    found = stock_evaluation(problem, utility, optimal.policy, tol=1e-12)
    for a, b in zip(found.value, optimal.value, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    assert 0 < float(found.bound) < 1e-12
    points = fitting_lattice(problem, optimal.policy.grid)
    law = law_evaluation(problem, optimal.policy, Categorical(points), tol=1e-12)
    distance = np.abs(np.asarray(optimal.policy.grid.nodes)[:, None] + np.asarray(points.points))
    np.testing.assert_allclose(-np.sum(np.asarray(law.laws) * distance, axis=-1), found.value.value, atol=1e-10)
    # true rewards give another law: stock and return no longer add up
    true = law_evaluation(problem, optimal.policy, Categorical(points), tol=1e-12, telescoped=False)
    assert np.max(np.abs(-np.sum(np.asarray(true.laws) * distance, axis=-1) - found.value.value)) > 1e-2


def test_another_policy_is_worth_less(rounded):
    problem, utility, optimal = rounded
    flipped = StockPolicy(
        optimal.policy.grid,
        *(1 - x for x in (optimal.policy.action, *optimal.policy[2:]))
        if False
        else (1 - optimal.policy.action, 1 - optimal.policy.below, 1 - optimal.policy.above),
    )
    found = stock_evaluation(problem, utility, flipped)
    assert np.all(found.value.value <= optimal.value.value + 1e-9)
    assert np.mean(found.value.value < optimal.value.value - 0.01) > 0.5


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_with_a_horizon_laws_are_those_of_all_paths(discount):
    problem = random_problem(8, discount=discount, horizon=3, states=3, ends=0.2)
    utility = two_slope(0.0, 1.0)
    grid = stock_grid(-46, 46, 1)
    policy = stock_vi(problem, utility, grid).policy
    points = lattice(-8, 8, 0.25)
    found = law_evaluation(problem, policy, Categorical(points))
    value = stock_evaluation(problem, utility, policy).value.value
    for state in range(3):
        for stock in (-3, 2):
            pairs = np.array(law_of_policy(problem, policy, state, stock))
            exact = Law(jnp.asarray(pairs[:, 0]), jnp.asarray(pairs[:, 1]))
            law = categorical_law(points, found.laws[state, 46 + stock])
            assert float(wasserstein(law, exact)) < 1e-11
            worth = np.sum(pairs[:, 1] * np.minimum(stock + pairs[:, 0], 0))
            assert float(value[0, state, 46 + stock]) == pytest.approx(worth, abs=1e-12)


def test_numbers_of_steps_and_policies_are_checked():
    problem = random_problem(0, discount=0.5)
    grid = stock_grid(-4, 4, 1)
    policy = only_policy(grid, 3)
    evaluate = functools.partial(law_evaluation, representation=Quantiles(4))
    assert int(evaluate(problem, policy, num_steps=3).steps) == 3
    with pytest.raises(ValueError, match="policy: found shapes"):
        evaluate(problem, only_policy(grid, 2))
    bad = StockPolicy(grid, policy.action.at[1, 2].set(2), policy.below, policy.above)
    with pytest.raises(ValueError, match="policy: found actions 0 to 2, expected 0 to 1"):
        evaluate(problem, bad)
    lacking = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[1.0], [1.0]]], available=[[False, True]], discount=0.5)
    with pytest.raises(ValueError, match="policy: found an action that its state does not have"):
        stock_evaluation(lacking, two_slope(1.0, 1.0), only_policy(grid, 1))
    timed = random_problem(0, discount=0.5, horizon=2)
    with pytest.raises(ValueError, match="num_steps: found 3 with horizon 2"):
        evaluate(timed, stock_vi(timed, two_slope(1.0, 1.0), grid).policy, num_steps=3)
    with pytest.raises(ValueError, match="grid: found rounding 'exact'"):
        evaluate(random_problem(0, discount=0.7), policy)
