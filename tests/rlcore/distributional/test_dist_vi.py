"""Distributional value iteration against stock value iteration, enumeration of all policies, and hand-made problems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Categorical,
    Custom,
    Quantiles,
    Reach,
    almost_surely_nonnegative,
    categorical_law,
    cvar,
    dist_vi,
    entropic,
    essential_infimum,
    expected_utility,
    fitting_lattice,
    lattice,
    mean,
    stock_grid,
    stock_vi,
    two_slope,
    variance,
    wasserstein,
)
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem, return_laws

# A functional, and K of values and probabilities by definition.
BY_HAND = {
    "shortfall": (two_slope(0.0, 1.0), lambda v, p: np.sum(p * np.minimum(v, 0))),
    "distance": (two_slope(-1.0, 1.0), lambda v, p: -np.sum(p * np.abs(v))),
    "reach": (Reach(), lambda v, p: np.sum(p * (v >= 0))),
    "surely": (essential_infimum, lambda v, p: np.min(v)),
}
SLOPES = [(0.0, 1.0), (-1.0, 1.0), (0.3, 1.0), (-0.5, 1.0)]


def stack(problems):
    return jax.tree.map(lambda *x: jnp.stack(x), *problems)


def gap_to_stock_vi(problem, grid, points, steps, slopes=SLOPES):
    """The greatest difference of values, window and sides, over problems and slopes, after each number of steps."""

    @jax.jit
    @jax.vmap
    def gap(problem):
        def one(a_plus, a_minus, n):
            utility = two_slope(a_plus, a_minus)
            value = dist_vi(problem, utility, grid, Categorical(points), num_steps=n).value
            other = stock_vi(problem, utility, grid, tol=-1.0, max_steps=n).value
            return jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in zip(value, other, strict=True)])

        each = jax.vmap(one, in_axes=(0, 0, None))
        return jnp.stack([each(*map(jnp.asarray, zip(*slopes, strict=True)), n) for n in steps])

    return float(jnp.max(gap(problem)))


def seven_tenths(rounding, spacing):
    """The specification's window and discount, and random problems, a third of them without ends."""
    end = np.ceil(2 / 0.3 / spacing) * spacing
    problems = [random_problem(seed, discount=0.7, states=4, ends=0.1 * (seed % 3)) for seed in range(12)]
    return stock_grid(-end, end, spacing, rounding=rounding), problems


def widest(lattices):
    """The lattice, of their common spacing, that covers all."""
    lattices = list(lattices)
    low, high = min(float(x.low) for x in lattices), max(float(x.high) for x in lattices)
    return lattice(low, high, float(lattices[0].spacing))


@pytest.mark.parametrize(
    ("rounding", "spacing", "refine"), [("nearest", 0.7, 1), ("floor", 0.3, 1), ("ceil", 0.25, 1), ("linear", 0.3, 3)]
)
def test_atoms_at_minus_the_stocks_lose_nothing_of_any_iterate(rounding, spacing, refine):
    grid, problems = seven_tenths(rounding, spacing)
    points = widest(fitting_lattice(problem, grid, refine=refine) for problem in problems)
    # the specification's bound: curves reach 20 and are rounded some hundred times
    assert gap_to_stock_vi(stack(problems), grid, points, (2, 40)) < 5e-11


@pytest.mark.parametrize("spoil", ["kinks between atoms", "too narrow"])
def test_other_atoms_lose_something(spoil):
    grid, problems = seven_tenths("nearest", 0.3)
    points = widest(fitting_lattice(problem, grid) for problem in problems)
    if spoil == "too narrow":
        # the window, rounded rewards apart
        points = lattice(-2 / 0.3, 2 / 0.3, 0.3)
    else:
        points = lattice(float(points.low), float(points.high), 0.63 * 0.3)
    assert gap_to_stock_vi(stack(problems), grid, points, (40,)) > (1e-6 if spoil == "too narrow" else 1e-3)


def test_on_an_exact_lattice_laws_of_a_finite_horizon_are_those_of_the_best_policies():
    for discount, seeds in ((1.0, range(4)), (0.5, range(4, 8))):
        problems = [random_problem(seed, discount=discount, horizon=3, ends=0.2) for seed in seeds]
        # every stock that a start in [-4, 4] can reach, and every return, whose atoms are multiples of 1/4
        grid = stock_grid(-46, 46, 1)
        points = lattice(-12, 12, 0.25)
        starts = np.arange(-4, 5)
        laws = [[return_laws(problem, state, 3) for state in range(3)] for problem in problems]
        for functional, by_hand in BY_HAND.values():
            solve = functools.partial(dist_vi, functional=functional, grid=grid, representation=Categorical(points))
            found = jax.jit(jax.vmap(solve))(stack(problems)).value.value[:, 0][..., 46 + starts]
            best = [[[max(by_hand(c + v, p) for v, p in of) for c in starts] for of in rows] for rows in laws]
            # eight paths, numbers below 50
            np.testing.assert_allclose(found, best, atol=1e-11)


def test_any_function_of_laws_scores_as_the_utility_it_is():
    utility = two_slope(-1.0, 1.0)
    problem = random_problem(2, discount=1.0, horizon=3, ends=0.3)
    grid = stock_grid(-12, 12, 1)
    for representation in (Categorical(fitting_lattice(problem, grid)), Quantiles(9)):
        known = dist_vi(problem, utility, grid, representation)
        found = dist_vi(problem, lambda law: expected_utility(law, utility), grid, representation)
        # nodes from which the window is left are not known to the function: the rest is the same
        unknown = jnp.isnan(found.value.value)
        assert not np.any(unknown[:, :, 12]) and np.all(np.any(unknown[0], axis=1)) and not np.any(unknown[2:])
        gap = jnp.where(unknown, 0, found.value.value - known.value.value)
        np.testing.assert_allclose(gap, 0, atol=1e-12)
        assert np.all(jnp.where(unknown[:-1], True, found.policy.action == known.policy.action))
        assert np.all(jnp.isnan(found.laws[..., 0]) == unknown[0]) and np.all(jnp.isnan(found.above))


def test_any_utility_is_exact_in_discounted_coordinates():
    problem = random_problem(5, discount=0.5, horizon=3, ends=0.2)
    grid = stock_grid(-8, 8, 0.25, coordinates="discounted")
    representation = Categorical(lattice(-8, 8, 0.25))
    risk = functools.partial(entropic, beta=-0.5)
    laws = [return_laws(problem, state, 3) for state in range(3)]
    best = [max(np.log(np.sum(p * np.exp(-0.5 * v))) / -0.5 for v, p in of) for of in laws]
    found = dist_vi(problem, risk, grid, representation)
    np.testing.assert_allclose(found.value.value[0, :, 32], best, atol=1e-11)
    utility = Custom(lambda x: -jnp.exp(-0.5 * x))
    worth = dist_vi(problem, utility, grid, representation).value.value[0, :, 32]
    np.testing.assert_allclose(-2 * jnp.log(-worth), best, atol=1e-11)
    with pytest.raises(ValueError, match=r"functional: found entropic at discount 0\.5.*homogeneous=True"):
        dist_vi(problem, risk, stock_grid(-28, 28, 0.25), representation)


def test_a_false_promise_of_homogeneity_is_paid_for():
    """A free step, then 1 surely or 0.2 and 3 by a coin, for f(x) = min(x, 1): a step later is half as large."""
    problem = tabular(
        [[[1, 1], [1, 1]], [[0, 0], [0, 0]]],
        [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5]]],
        [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.2, 3.0]]],
        discount=0.5,
        horizon=2,
    )
    capped = Custom(lambda x: jnp.minimum(x, 1.0), degree=1.0)
    found = dist_vi(problem, capped, stock_grid(-8, 8, 0.2), Categorical(lattice(-4, 4, 0.1)))
    # 1 halved; the coin is worth (0.1 + 1) / 2
    assert float(found.value.value[0, 0, 40]) == pytest.approx(0.5, abs=1e-12)
    honest = Custom(capped.function)
    found = dist_vi(problem, honest, stock_grid(-8, 8, 0.1, coordinates="discounted"), Categorical(lattice(-4, 4, 0.1)))
    assert float(found.value.value[0, 0, 80]) == pytest.approx(0.55, abs=1e-12)


def test_the_cvar_itself_runs_and_is_not_optimised():
    """Half the time the return is -10; else A pays -1 with probability 0.2, else 1, and B pays 0."""
    next_state = [[[0, 1], [0, 1]], [[0, 0], [0, 0]]]
    prob = [[[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [1.0, 0.0]]]
    reward = [[[-10.0, 0.0], [-10.0, 0.0]], [[-1.0, 1.0], [0.0, 0.0]]]
    terminal = [[[True, False]] * 2, [[True, True]] * 2]
    problem = tabular(next_state, prob, reward, terminal=np.array(terminal), horizon=2)
    found = dist_vi(problem, functools.partial(cvar, level=0.6), stock_grid(-20, 20, 1), Quantiles(10))
    # A: (5/6) (-10) + (1/6) (-1); of the best plan, B: (5/6) (-10). Ten quantiles hold these laws exactly
    assert float(found.value.value[0, 0, 20]) == pytest.approx(-8.5, abs=1e-12)
    assert int(found.policy.action[1, 1, 20]) == 0


def test_ties_of_the_value_may_leave_the_laws_apart():
    """Far above the target all that counts is the mean: 0 surely, or -1 and 1 by a coin."""
    problem = tabular([[[0, 0], [0, 0]]], [[[1.0, 0.0], [0.5, 0.5]]], [[[0.0, 0.0], [-1.0, 1.0]]], discount=0.5)
    grid, utility = stock_grid(-2, 2, 1), two_slope(0.0, 1.0)
    representation = Categorical(lattice(-2, 2, 0.125))
    solve = functools.partial(dist_vi, problem, utility, grid, representation, tol=1e-9)
    first, last, average = (solve(tie_rule=rule) for rule in ("first", "last", "average"))
    random = solve(tie_rule="random", key=jax.random.key(0))
    for other in (last, average, random):
        np.testing.assert_allclose(other.value.value, first.value.value, atol=1e-12)
        assert int(other.steps) < 10
    law = lambda x: categorical_law(representation.points, x.above[0])  # noqa: E731
    assert float(wasserstein(law(first), law(last))) > 0.5
    # the average of one more step of each: no more than its own laws know
    assert 0.1 < float(variance(law(average))) < float(variance(law(last)))
    assert float(mean(law(average))) == pytest.approx(0.0, abs=1e-12)
    assert int(average.policy.above[0]) == 0 and int(last.policy.above[0]) == 1


def test_levels_are_traced_and_a_batch_is_its_members():
    problem = random_problem(6, discount=1.0, horizon=3)
    grid, representation = stock_grid(-9, 9, 1), Quantiles(7)

    def solve(level):
        return dist_vi(problem, functools.partial(cvar, level=level), grid, representation)

    levels = jnp.array([0.2, 1.0])
    both = jax.vmap(solve)(levels)
    for i, level in enumerate(levels):
        alone = solve(level)
        np.testing.assert_allclose(both.value.value[i], alone.value.value, atol=1e-12)
        np.testing.assert_array_equal(both.policy.action[i], alone.policy.action)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_rule": "best"}, "tie_rule: found 'best'"),
        ({"tie_rule": "random"}, "key: found None"),
        ({"homogeneous": True}, "homogeneous, shifts: found promises for a utility"),
        ({"functional": lambda law: mean(law)}, "functional: found <lambda> at discount 0.5"),
        ({"functional": functools.partial(cvar, level=1.5)}, "level: found 1.5"),
        ({"functional": lambda law: law.values, "homogeneous": True}, "functional: found .* expected one number"),
        ({"functional": almost_surely_nonnegative}, "grid: found last node 4"),
        ({"functional": Reach()}, "utility: found Reach at discount 0.5 without a horizon"),
        ({"grid": stock_grid(-1, 4, 1)}, "grid: found first node -1"),
        ({"grid": stock_grid(-4, 4, 0.7)}, "grid: found rounding 'exact'"),
        ({"representation": Quantiles(0)}, "representation: found 0 numbers"),
        ({"representation": Categorical(lattice(0, 1e9, 1))}, "representation: found .*, expected fewer"),
    ],
)
def test_what_cannot_be_solved_is_refused_by_name(change, message):
    problem = random_problem(0, discount=0.5)
    args = dict(functional=two_slope(0.0, 1.0), grid=stock_grid(-4, 4, 1), representation=Quantiles(4))
    with pytest.raises((ValueError, TypeError), match=message):
        dist_vi(problem, **{**args, **change})


def test_steps_are_counted_by_the_horizon_alone():
    with pytest.raises(ValueError, match="num_steps: found 3 with horizon 2"):
        dist_vi(
            random_problem(0, discount=0.5, horizon=2),
            two_slope(0.0, 1.0),
            stock_grid(-4, 4, 1),
            Quantiles(4),
            num_steps=3,
        )
