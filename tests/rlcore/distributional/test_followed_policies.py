"""Laws of policies against recursions over paths on the host, laws known by hand, and simulated episodes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import StockPolicy, lattice, stock_grid
from rlcore.distributional.policy_law import policy_law, sample_returns
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import outcomes_of, random_problem

# Probabilities are sums of at most 3 * 2^4 products of 4 rounded numbers.
ROUNDING = 1e-14
HORIZON = 4
# All sums of four rewards in {-2, ..., 2}, discounted or not: one compiled program for many problems.
POINTS = {1.0: lattice(-8, 8, 1), 0.5: lattice(-4, 4, 0.125)}


def random_policy(seed, grid, problem):
    """Actions drawn anew for every step, state and stock, and on the sides."""
    rng = np.random.default_rng(seed)
    lead = () if problem.horizon is None else (problem.horizon,)
    states, actions = problem.available.shape
    shapes = ((*lead, states, grid.lattice.size), (*lead, states), (*lead, states))
    return StockPolicy(grid, *(jnp.asarray(rng.integers(0, actions, shape), jnp.int32) for shape in shapes))


def same_law(found, pairs, tol=ROUNDING):
    """Whether a law on a lattice is the one of the pairs (return, probability)."""
    expected = {}
    for value, prob in pairs:
        key = round(value, 9) + 0.0
        expected[key] = expected.get(key, 0.0) + prob
    values, probs = np.asarray(found.law.values), np.asarray(found.law.probs)
    assert abs(probs.sum() - 1) < tol
    seen = {round(v, 9) + 0.0: p for v, p in zip(values, probs, strict=True) if p > 0}
    assert seen.keys() == {key for key, prob in expected.items() if prob > 0}
    np.testing.assert_allclose([seen[key] for key in seen], [expected[key] for key in seen], atol=tol)


def path_law(problem, policy, state, stock, t=0, column=None):
    """Pairs (return, probability) of a policy, path by path.

    It reads the true stock, or keeps account of the rounded one: `column`, a node, C below the window, C + 1 above,
    the last two for good.
    """
    if t == problem.horizon:
        return [(0.0, 1.0)]
    grid, discount, size = policy.grid, float(problem.discount), policy.grid.lattice.size
    row = rounded(grid, stock)[0][0] if column is None else column
    tables = [np.asarray(x)[t, state] for x in (policy.action, policy.below, policy.above)]
    action = int(tables[0][row] if row < size else tables[1 + row - size])
    pairs = []
    for next_state, prob, reward, ended in outcomes_of(problem, state, action):
        after = (stock + reward) / discount
        branches = [(column, 1.0)]
        if column is not None and column < size:
            branches = rounded(grid, (float(grid.nodes[column]) + reward) / discount)
        for landed, share in branches if not ended else [(None, 1.0)]:
            go_on = [(0.0, 1.0)] if ended else path_law(problem, policy, int(next_state), after, t + 1, landed)
            pairs += [(reward + discount * value, prob * share * p) for value, p in go_on]
    return pairs


def rounded(grid, stock):
    """Where a stock goes, with what probability."""
    size, steps = grid.lattice.size, stock / float(grid.lattice.spacing) - grid.lattice.first
    steps = round(steps) if abs(steps - round(steps)) < 1e-9 else steps
    if steps < 0 or steps > size - 1:
        return [(size if steps < 0 else size + 1, 1.0)]
    if grid.rounding == "stochastic":
        low = min(int(steps), size - 2)
        return [(low + i, w) for i, w in ((0, low + 1 - steps), (1, steps - low)) if w > 0]
    how = {"floor": np.floor, "ceil": np.ceil}.get(grid.rounding, lambda x: np.floor(x + 0.5))
    return [(int(how(steps)), 1.0)]


@pytest.mark.parametrize("discount", [1.0, 0.5])
@pytest.mark.parametrize(("rounding", "spacing"), [("exact", 1), ("linear", 0.7)])
def test_policies_that_read_the_stock_against_all_paths(discount, rounding, spacing):
    # a window of [-2, 2] is left by most paths: the actions of the sides are half of what is tested
    grid = stock_grid(-2, 2, spacing, rounding=rounding)
    for seed in range(4):
        problem = random_problem(seed, discount=discount, horizon=HORIZON, ends=0.1)
        policy = random_policy(seed, grid, problem)
        for stock in (0.0, -2.0, 1.3, 7.0):
            found = policy_law(problem, policy, stock, state=seed % 3, points=POINTS[discount])
            same_law(found, path_law(problem, policy, seed % 3, stock))
            assert float(found.error) == 0.0 and float(found.remaining) < ROUNDING


@pytest.mark.parametrize("discount", [1.0, 0.5])
@pytest.mark.parametrize("rounding", ["nearest", "floor", "ceil", "stochastic"])
def test_policies_that_track_the_rounded_stock_earn_true_rewards(rounding, discount):
    grid = stock_grid(-2.1, 2.1, 0.7, rounding=rounding)
    for seed in range(3):
        problem = random_problem(seed, discount=discount, horizon=HORIZON, ends=0.1)
        policy = random_policy(seed + 10, grid, problem)
        for stock in (0.3, -4.0):
            pairs = []
            for column, share in rounded(grid, stock):
                pairs += [(v, share * p) for v, p in path_law(problem, policy, 1, stock, column=column)]
            same_law(policy_law(problem, policy, stock, state=1, points=POINTS[discount]), pairs)


def test_states_are_drawn_from_the_initial_law():
    grid = stock_grid(-3, 3, 1)
    problem = random_problem(5, discount=1.0, horizon=HORIZON)
    problem = dataclasses.replace(problem, initial=jnp.array([0.25, 0.0, 0.75]))
    policy = random_policy(5, grid, problem)
    pairs = [(v, w * p) for s, w in ((0, 0.25), (2, 0.75)) for v, p in path_law(problem, policy, s, 1.0)]
    same_law(policy_law(problem, policy, 1.0), pairs)


def test_kernels_that_change_with_time():
    problems = [random_problem(seed, discount=1.0, horizon=HORIZON) for seed in range(HORIZON)]
    kernel = {
        name: np.stack([np.asarray(getattr(p, name)) for p in problems]) for name in ("next_state", "prob", "reward")
    }
    problem = tabular(**kernel, horizon=HORIZON)
    grid = stock_grid(-3, 3, 1)
    policy = random_policy(3, grid, problem)

    def pairs(state, stock, t):
        if t == HORIZON:
            return [(0.0, 1.0)]
        at = dataclasses.replace(policy, action=policy.action[t], below=policy.below[t], above=policy.above[t])
        size, index = grid.lattice.size, int(stock) + 3
        action = int(at.action[state, index] if 0 <= index < size else (at.below if index < 0 else at.above)[state])
        return [
            (r + v, q * p)
            for s, q, r, _ in outcomes_of(problems[t], state, action)
            for v, p in pairs(int(s), stock + r, t + 1)
        ]

    same_law(policy_law(problem, policy, 0.0), pairs(0, 0.0, 0))


def test_discounted_coordinates_give_the_same_law():
    problem = random_problem(2, discount=0.5, horizon=3)
    # nodes of the discounted stock, and a policy that acts by its sign alone, as one on undiscounted stocks can
    fine, coarse = stock_grid(-4, 4, 0.25, coordinates="discounted"), stock_grid(-16, 16, 1)
    laws = []
    for grid in (fine, coarse):
        sign = jnp.where(grid.nodes >= 0, 1, 0).astype(jnp.int32)
        action = jnp.broadcast_to(sign, (3, 3, grid.lattice.size))
        sides = jnp.zeros((3, 3), jnp.int32), jnp.ones((3, 3), jnp.int32)
        laws.append(policy_law(problem, StockPolicy(grid, action, *sides), 1.0))
    same_law(laws[0], list(zip(np.asarray(laws[1].law.values), np.asarray(laws[1].law.probs), strict=True)))


def one_state(rewards, probs, ends=None, **kwargs):
    """One state, one action."""
    shape = (1, 1, len(rewards))
    ends = np.zeros(shape, bool) if ends is None else np.reshape(ends, shape)
    return tabular(np.zeros(shape, int), np.reshape(probs, shape), np.reshape(rewards, shape), terminal=ends, **kwargs)


def only_action(problem, grid):
    return random_policy(0, grid, problem)


def test_an_episode_without_horizon_is_followed_until_hardly_any_is_left():
    problem = one_state([-1.0, -1.0], [0.5, 0.5], [True, False])
    policy = only_action(problem, stock_grid(0, 2, 1))
    found = policy_law(problem, policy, 0.0, tol=1e-12)
    values, probs = np.asarray(found.law.values), np.asarray(found.law.probs)
    assert float(found.remaining) <= 1e-12
    for k in (1, 2, 10, 30):
        assert probs[values == -k] == 0.5**k  # powers of two: no rounding
    cut = policy_law(problem, policy, 0.0, max_steps=20)
    assert float(cut.remaining) == 0.5**20
    assert float(cut.law.probs[cut.law.values == -20][0]) == 2 * 0.5**20


def test_fair_binary_digits_are_uniform():
    # sum of 2^-t times 0 or 1 is uniform on [0, 2]; after n steps the law is uniform on multiples of 2^(1-n)
    problem = one_state([0.0, 1.0], [0.5, 0.5], discount=0.5)
    policy = only_action(problem, stock_grid(-2, 0, 0.5, rounding="nearest"))
    for num_steps in (6, None):
        found = policy_law(problem, policy, 0.0, num_steps=num_steps, tol=1e-6)
        values, probs = np.asarray(found.law.values), np.asarray(found.law.probs)
        # w_1 to the uniform law, piecewise exact: integral of |F - x / 2| over each gap, F constant there
        below, edges = np.concatenate([[0], np.cumsum(probs)]), np.concatenate([[0], np.clip(values, 0, 2), [2]])
        primitive = lambda x, level: np.sign(x / 2 - level) * (x / 2 - level) ** 2  # noqa: E731
        distance = np.sum(primitive(edges[1:], below) - primitive(edges[:-1], below))
        outside = np.sum(probs * np.maximum(np.abs(values - 1) - 1, 0))
        assert distance + outside <= float(found.error) + ROUNDING
        spacing = float(values[1] - values[0])
        assert float(found.error) <= (2.0**-5 + spacing if num_steps else 2 * spacing)


@pytest.mark.parametrize("horizon", [None, 6])
def test_without_a_common_lattice_the_mean_is_kept_and_the_error_bounds_the_rest(horizon):
    # rewards 0 and 1 at discount 0.7: no lattice holds all returns
    problem = one_state([0.0, 1.0], [0.4, 0.6], discount=0.7, horizon=horizon)
    policy = only_action(problem, stock_grid(-4, 0, 0.5, rounding="linear"))
    found = policy_law(problem, policy, 0.0, points=lattice(-1, 4, 0.05), num_steps=6 if horizon is None else None)
    steps, tail = np.arange(6), 0.7**6 / 0.3
    paths = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T
    truth, weight = paths @ 0.7**steps, np.prod(np.where(paths, 0.6, 0.4), axis=1)
    law = found.law
    assert float(jnp.sum(law.values * law.probs)) == pytest.approx(np.sum(weight * truth), abs=10 * ROUNDING)
    at = np.sort(np.concatenate([truth, np.asarray(law.values)]))
    cdf = lambda v, p: np.array([np.sum(p[v <= x + 1e-12]) for x in at])  # noqa: E731
    distance = np.sum(
        np.abs(cdf(truth, weight) - cdf(np.asarray(law.values), np.asarray(law.probs)))[:-1] * np.diff(at)
    )
    error = float(found.error) - (tail if horizon is None else 0)
    # below half a spacing for each of six steps, and more than what it bounds
    assert 0 < distance <= error <= 0.05 / 2 * np.sqrt(6)


@pytest.mark.parametrize("rounding", ["linear", "floor", "stochastic"])
def test_simulated_returns_have_the_law(rounding):
    grid = stock_grid(-2, 2, 0.7, rounding=rounding)
    problem = random_problem(3, discount=1.0, horizon=HORIZON, ends=0.1)
    problem = dataclasses.replace(problem, initial=jnp.array([0.5, 0.25, 0.25]))
    policy = random_policy(4, grid, problem)
    law = policy_law(problem, policy, 0.4).law
    returns = np.asarray(sample_returns(problem, policy, 0.4, jax.random.key(0), 50_000, 100))
    below = np.mean(returns[:, None] <= np.asarray(law.values)[None] + 1e-9, axis=0)
    # Dvoretzky, Kiefer, Wolfowitz and Massart: wrong once in 10^9
    assert np.max(np.abs(below - np.cumsum(law.probs))) <= np.sqrt(np.log(2e9) / (2 * 50_000))


def test_many_problems_at_once():
    grid, points = stock_grid(-2, 2, 1), lattice(-8, 8, 1)
    problems = [random_problem(seed, discount=1.0, horizon=HORIZON) for seed in range(3)]
    policies = [random_policy(seed, grid, p) for seed, p in enumerate(problems)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems), jax.tree.map(lambda *x: jnp.stack(x), *policies)
    together = jax.vmap(lambda p, q, c: policy_law(p, q, c, points=points))(*stacked, jnp.array([0.0, 1.0, -5.0]))
    for i, stock in enumerate((0.0, 1.0, -5.0)):
        one = jax.tree.map(lambda x, i=i: x[i], together)
        pairs = path_law(problems[i], policies[i], 0, stock)
        same_law(one, pairs)
        assert float(one.error) == 0.0


def test_mass_that_leaves_a_lattice_too_small_is_reported_not_moved():
    problem = one_state([-1.0, 2.0], [0.25, 0.75], horizon=1)
    policy = only_action(problem, stock_grid(-2, 1, 1))
    # only a traced problem gets this far: on the host such a lattice is refused
    for points, kept in ((lattice(0, 3, 1), 0.75), (lattice(-1, 1, 1), 0.25)):
        found = jax.jit(lambda p, points=points: policy_law(p, policy, 0.0, points=points))(problem)
        assert float(jnp.sum(found.law.probs)) == kept and float(found.remaining) == 1 - kept


def test_what_is_refused():
    problem = random_problem(0, discount=1.0, horizon=HORIZON)
    grid = stock_grid(-2, 2, 1)
    policy = random_policy(0, grid, problem)
    law = functools.partial(policy_law, problem)
    with pytest.raises(ValueError, match="num_steps: found 3 with horizon 4"):
        law(policy, 0.0, num_steps=3)
    with pytest.raises(ValueError, match="points: found 1 to 9, expected the point 0"):
        law(policy, 0.0, points=lattice(1, 9, 1))
    with pytest.raises(ValueError, match=r"points: found .* expected the partial sums"):
        law(policy, 0.0, points=lattice(-2, 2, 1))
    with pytest.raises(ValueError, match="policy: found shapes"):
        law(dataclasses.replace(policy, below=policy.below[0]), 0.0)
    shut = dataclasses.replace(problem, available=jnp.array([[True, False]] * 3))
    with pytest.raises(ValueError, match="an action that its state does not have"):
        policy_law(shut, policy, 0.0)
    with pytest.raises(ValueError, match="points, num_steps: found None with a traced problem"):
        jax.jit(lambda p: policy_law(p, policy, 0.0).law)(problem)
