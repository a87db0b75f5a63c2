"""Stock value iteration against enumeration of all policies; windows, roundings, ranges, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Custom,
    Power,
    Reach,
    fitting_grid,
    policy_action,
    return_range,
    stock_grid,
    stock_value,
    stock_vi,
    two_slope,
)
from rlcore.distributional.stock_window import reward_spacing
from rlcore.mdp import dense, tabular
from tests.rlcore.distributional.problems import random_problem, return_laws

UTILITIES = {
    "shortfall": two_slope(0.0, 1.0),
    "distance": two_slope(-1.0, 1.0),
    "reach": Reach(),
    "square": Power(2.0),
}
STARTS = np.arange(-4, 5)


def stack(problems):
    return jax.tree.map(lambda *x: jnp.stack(x), *problems)


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_finite_horizons_are_exact(discount):
    problems = [random_problem(seed, discount=discount, horizon=3, ends=0.2) for seed in range(3)]
    laws = [[return_laws(problem, state, 3) for state in range(3)] for problem in problems]
    grid = stock_grid(-46, 46, 1)
    for name, utility in UTILITIES.items():
        solve = jax.jit(jax.vmap(lambda problem, utility=utility: stock_vi(problem, utility, grid).value.value))
        found = solve(stack(problems))[:, 0][..., 46 + STARTS]
        f = lambda x, utility=utility: np.asarray(utility(jnp.asarray(x)))  # noqa: E731
        best = [[[max(np.sum(p * f(c + v)) for v, p in of) for c in STARTS] for of in rows] for rows in laws]
        # eight paths, squares below 400
        np.testing.assert_allclose(found, best, atol=1e-11, err_msg=name)


def test_any_utility_is_legal_in_discounted_coordinates():
    problem = random_problem(3, discount=0.5, horizon=3, ends=0.2)
    grid = stock_grid(-8, 8, 0.25, coordinates="discounted")
    found = stock_vi(problem, Custom(lambda x: -jnp.exp(-x)), grid).value.value[0]
    for state in range(3):
        best = [max(np.sum(-p * np.exp(-c - v)) for v, p in return_laws(problem, state, 3)) for c in STARTS]
        np.testing.assert_allclose(found[state, 32 + 4 * STARTS], best, rtol=1e-12)


def test_a_wider_window_changes_nothing():
    problems = stack([random_problem(seed, discount=0.5, states=4, ends=0.1) for seed in range(8)])
    slopes = jnp.array([[0.0, 1.0], [-1.0, 1.0], [-0.5, 1.0]])

    def solve(end):
        one = lambda problem, a: stock_vi(problem, two_slope(*a), stock_grid(-end, end, 1), tol=1e-13)  # noqa: E731
        return jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(None, 0)))(problems, slopes)

    narrow, wide = solve(4), solve(8)
    np.testing.assert_allclose(narrow.value.value, wide.value.value[..., 4:-4], atol=1e-12)
    # and where the narrow one ends its continuation agrees with the nodes of the wide one
    for stock, node in ((7.0, 15), (-6.0, 2)):
        read = lambda solution, a, stock=stock: stock_value(solution, two_slope(*a), jnp.asarray(1), stock)  # noqa: E731
        found = jax.vmap(jax.vmap(read, in_axes=(0, None)))(narrow, slopes)
        np.testing.assert_allclose(found, wide.value.value[:, :, 1, node], atol=1e-12)


@pytest.mark.parametrize("spacing", [0.7, 0.3])
def test_roundings_stay_within_their_bounds(spacing):
    problems = [random_problem(seed, discount=0.5, states=4) for seed in range(8)]
    utility = UTILITIES["shortfall"]
    exact = jax.vmap(lambda problem: stock_vi(problem, utility, stock_grid(-4, 4, 1), tol=1e-12))(stack(problems))
    # |error| <= L discount e / (1 - discount), e the rounding, L = 1; half of it where values are interpolated
    bounds = {"nearest": (-0.5, 0.5), "floor": (-1.0, 0.0), "ceil": (0.0, 1.0), "linear": (-0.5, 0.5)}
    end = np.ceil(4 / spacing) * spacing
    for rounding, (below, above) in bounds.items():
        grid = stock_grid(-end, end, spacing, rounding=rounding)
        solve = jax.jit(jax.vmap(lambda problem, grid=grid: stock_vi(problem, utility, grid, tol=1e-12).value.value))
        found = solve(stack(problems))
        gaps = []
        for stock in np.arange(-4, 5):
            at = int(np.argmin(np.abs(np.asarray(grid.nodes) - stock)))
            if abs(float(grid.nodes[at]) - stock) < 1e-9:
                gaps.append(found[..., at] - exact.value.value[..., 4 + stock])
        assert gaps and np.min(gaps) >= below * spacing - 1e-9 and np.max(gaps) <= above * spacing + 1e-9
        assert np.max(np.abs(gaps)) > 1e-3


def test_the_true_stock_and_the_window_are_read_by_the_policy():
    problem = random_problem(2, discount=0.5)
    policy = stock_vi(problem, UTILITIES["distance"], stock_grid(-4, 4, 1)).policy
    marked = policy.__class__(policy.grid, policy.action, policy.below + 10, policy.above + 20)
    read = functools.partial(policy_action, marked, jnp.asarray(1))
    assert int(read(-4.5)) == 10 + int(policy.below[1]) and int(read(5)) == 20 + int(policy.above[1])
    for node in range(9):
        assert int(read(node - 4.0)) == int(policy.action[1, node])


def test_ranges_and_grids_of_costs():
    costs = tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[-3.0, -1.5]]], terminal=np.array([[[True, False]]]))
    low, high = return_range(costs)
    assert low[0] == -np.inf and high[0] == -3.0
    assert reward_spacing(costs) == 1.5
    grid = fitting_grid(costs, high=9)
    np.testing.assert_array_equal(grid.nodes, [3.0, 4.5, 6.0, 7.5, 9.0])
    with pytest.raises(ValueError, match="high: found None for returns without a lower bound"):
        fitting_grid(costs)
    with pytest.raises(ValueError, match="problem: found returns without an upper bound"):
        fitting_grid(tabular([[[0]]], [[[1.0]]], [[[1.0]]]))
    with pytest.raises(ValueError, match="reward: found no common divisor"):
        reward_spacing(tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[1.0, np.pi]]]))


def test_ranges_of_paths_that_need_not_end():
    """One state: going on costs 1, the end costs 50; then a state besides from which nothing ends."""
    going_on, stuck = np.array([[[False], [True]]]), np.array([[[True], [False]], [[False], [False]]])
    priced = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[-1.0], [-50.0]]], terminal=going_on)
    low, high = return_range(priced)
    assert low[0] == -np.inf and high[0] == -50.0
    low, high = return_range(dataclasses.replace(priced, reward=-priced.reward))
    assert low[0] == 50.0 and high[0] == np.inf
    ones, reward = np.ones((2, 2, 1)), np.array([[[-2.0], [-1.0]], [[-1.0], [-3.0]]])
    problem = tabular([[[0], [1]], [[1], [1]]], ones, reward, terminal=stuck, initial=[1.0, 0.0])
    low, high = return_range(problem)
    assert list(low) == [-np.inf] * 2 and list(high) == [-2.0, -np.inf]
    with pytest.raises(ValueError, match="problem: found a first state with costs for ever"):
        fitting_grid(dataclasses.replace(problem, initial=jnp.array([0.0, 1.0])), high=3)
    with pytest.raises(ValueError, match="problem: found costs for ever on every path"):
        fitting_grid(tabular([[[0]]], [[[1.0]]], [[[-1.0]]]), high=3)
    # rewards that cancel around a cycle have no last partial sum: all states on it are given up
    around = np.array([[[0.1], [-1.0]], [[0.2], [-1.0]], [[-0.3], [-1.0]]])
    ends = np.broadcast_to(np.array([[False], [True]]), (3, 2, 1))
    cycle = tabular([[[1], [0]], [[2], [0]], [[0], [0]]], np.ones((3, 2, 1)), around, terminal=ends)
    assert list(return_range(cycle)[1]) == [np.inf] * 3


def test_only_what_can_happen_matters():
    """Rewards of unavailable actions and of padding are nobody's, even NaN."""
    kernel = dict(terminal=np.ones((1, 2, 2), bool), available=np.array([[True, False]]))
    prob, reward = np.array([[[1.0, 0.0], [0.5, 0.5]]]), np.array([[[-2.0, 0.0], [np.pi, 7.0]]])
    problem = tabular(np.zeros((1, 2, 2), int), prob, reward, **kernel)
    hidden = jnp.array([[[-2.0, jnp.nan], [jnp.nan, jnp.nan]]])
    for same in (problem, dataclasses.replace(problem, reward=hidden)):
        assert reward_spacing(same) == 2.0
        assert [float(x[0]) for x in return_range(same)] == [-2.0, -2.0]
        value = stock_vi(same, two_slope(0.0, 1.0), stock_grid(-4, 4, 2)).value
        np.testing.assert_array_equal(value.value[0], [-6.0, -4.0, -2.0, 0.0, 0.0])
        assert float(value.below[0]) == float(value.above[0]) == -2.0


ONE = tabular([[[0]]], [[[1.0]]], [[[1.0]]], discount=0.5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_rewards_that_are_no_numbers_are_named(bad):
    problem = dataclasses.replace(ONE, reward=ONE.reward * bad)
    grid = stock_grid(-2, 2, 1)
    calls = (return_range, reward_spacing, fitting_grid, lambda p: stock_vi(p, two_slope(0, 1), grid))
    for call in calls:
        with pytest.raises(ValueError, match=f"reward: found {bad}, expected finite numbers"):
            call(problem)


@pytest.mark.parametrize(
    ("problem", "utility", "grid", "message"),
    [
        (ONE, Custom(jnp.abs), stock_grid(-2, 2, 1), "utility: found Custom without a degree at discount 0.5"),
        (ONE, Reach(), stock_grid(-2, 2, 1), "utility: found Reach at discount 0.5 without a horizon"),
        (ONE, two_slope(0, 1), stock_grid(-1, 2, 1), "grid: found first node -1.0, expected at most -2.0"),
        (ONE, two_slope(0, 1), stock_grid(-3, 3, 0.3), "grid: found rounding 'exact' with spacing 0.3"),
        (ONE, two_slope(0, 1), stock_grid(-2, 2, 1, coordinates="discounted"), "coordinates: found 'discounted'"),
        (ONE, Power(2.0), stock_grid(-2, 2, 1), "grid: found last node 2.0"),
    ],
)
def test_what_cannot_be_solved_is_refused_by_name(problem, utility, grid, message):
    with pytest.raises(ValueError, match=message):
        stock_vi(problem, utility, grid)


def test_other_bad_input():
    with pytest.raises(ValueError, match="rounding: found 'round'"):
        stock_grid(-1, 1, 1, rounding="round")
    with pytest.raises(ValueError, match="coordinates: found 'time'"):
        stock_grid(-1, 1, 1, coordinates="time")
    with pytest.raises(ValueError, match="a_minus: found nan"):
        two_slope(0.0, float("nan"))
    nan = ONE.__class__(**{**vars(ONE), "reward": jnp.full((1, 1, 1), jnp.nan)})
    with pytest.raises(ValueError, match="reward: found nan"):
        stock_vi(nan, two_slope(0, 1), stock_grid(-2, 2, 1))
    with pytest.raises(ValueError, match="tie_rule: found 'average'"):
        stock_vi(ONE, two_slope(0, 1), stock_grid(-2, 2, 1), tie_rule="average")
    with pytest.raises(ValueError, match="key: found None"):
        stock_vi(ONE, two_slope(0, 1), stock_grid(-2, 2, 1), tie_rule="random")
    with pytest.raises(TypeError):
        stock_vi(dense(ONE), two_slope(0, 1), stock_grid(-2, 2, 1))
