"""Functionals, convergence, projections and the CVaR suite on tiny settings: values known otherwise, and figures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.risk import MUD, NAILS, OBSTACLES, WALLS, mud_and_nails, obstacle
from experiments.distributional import convergence, cvar_suite, functionals, projections
from experiments.reference import table
from rlcore.distributional import Law, mean, stock_vi, two_slope, variance, wasserstein


def drawn(module, data, panels):
    """The figure has its panels, each with an x label, and every reference is measured; returns the measurements."""
    figure = module.plot(data)
    assert len(figure.axes) == panels and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    table(module.REFERENCES, numbers)
    return numbers


# ---- functionals -----------------------------------------------------------------------------------------------------


def branches(problem, state, action):
    rows = (np.asarray(x)[state, action] for x in (problem.next_state, problem.prob, problem.reward))
    return list(zip(*rows, strict=True))


def greedy_law(problem, functional, state, stock, steps):
    """(return, probability) pairs of the policy that is greedy for K(stock + return), on paths."""
    if steps == 0:
        return [(0.0, 1.0)]
    best, discount = None, float(problem.discount)
    for action in range(2):
        pairs = []
        for after, prob, reward in branches(problem, state, action):
            rest = greedy_law(problem, functional, after, (stock + reward) / discount, steps - 1)
            pairs += [(reward + discount * value, prob * p) for value, p in rest]
        score = float(functional(Law(*(jnp.asarray(x) for x in zip(*((stock + v, p) for v, p in pairs), strict=True)))))
        if best is None or score > best[0] + 1e-11:
            best = (score, pairs)
    return best[1]


def all_laws(problem, state, steps):
    """The same of every policy of the history."""
    if steps == 0:
        return [[(0.0, 1.0)]]
    out, discount = [], float(problem.discount)
    for action in range(2):
        follow = [
            [[(reward + discount * v, prob * p) for v, p in law] for law in all_laws(problem, after, steps - 1)]
            for after, prob, reward in branches(problem, state, action)
        ]
        out += [list(itertools.chain(*mix)) for mix in itertools.product(*follow)]
    return out


@pytest.mark.parametrize("name", ["CVaR 1/2", "-E exp(-x)"])
def test_greedy_and_the_best_policy_of_a_tree(name):
    functional, keys = functionals.FUNCTIONALS[name], jax.random.split(jax.random.key(3), 3)
    which, discount = jnp.asarray(functionals.NAMES.index(name)), 0.5
    greedy, policies = functionals._one_functional(which, keys, jnp.asarray(discount))
    assert policies.shape == (3, 128)
    for key, ours, values in zip(keys, greedy, policies, strict=True):
        own, stock_key = jax.random.split(key)
        problem = functionals.random_problem(own, functionals.STATES, discount)
        stock = int(jax.random.randint(stock_key, (), -3, 4))
        score = lambda pairs: float(functional(Law(*(jnp.asarray(x) for x in zip(*pairs, strict=True)))))  # noqa: E731
        moved = lambda pairs: [(stock + v, p) for v, p in pairs]  # noqa: E731
        # sums of eight terms, of which none is above e^7
        assert float(ours) == pytest.approx(score(moved(greedy_law(problem, functional, 0, stock, 3))), rel=1e-10)
        assert float(values.max()) == pytest.approx(max(score(moved(x)) for x in all_laws(problem, 0, 3)), rel=1e-10)


def test_the_instances_by_hand():
    for which, greedy, values in (("mixtures", -8.5, (-8.5, -25 / 3)), ("discount", 0.5, (0.5, 0.55))):
        _, functional, law, laws = functionals.by_hand(which)
        # sums of four terms of size 10
        assert float(functional(law)) == pytest.approx(greedy, abs=1e-13)
        np.testing.assert_allclose(sorted(float(functional(x)) for x in laws), values, atol=1e-13)


def test_functionals_measure_and_draw():
    data = functionals.run(functionals.Config(num_instances=8))
    assert data["loss"].sizes == {"functional": 13, "discount": 2, "instance": 8}
    found = drawn(functionals, data, 6)
    for name in functionals.NAMES:
        for discount in functionals.DISCOUNTS:
            share = found[f"share that fails, {name}, discount {discount:g}"].value
            assert (share > 0) <= functionals._fails(name, discount)
    # of the six that fail on a fifth of the trees or more, eight trees show most
    assert (data["loss"].sel(functional=list(functionals.LACKS), discount=0.5) > 0).any("instance").sum() >= 4
    assert data["rounding"].max() < 1e-9


# ---- convergence -----------------------------------------------------------------------------------------------------


def test_errors_are_those_of_stock_value_iteration():
    key, discount, slopes = jax.random.key(5), jnp.asarray(0.5), jnp.array([0.3, 1.0])
    found = jax.jit(convergence.one_run, static_argnums=(3, 4))(key, discount, slopes, 3, 2)
    problem = functionals.random_problem(jax.random.split(key)[0], convergence.STATES, 0.5)
    utility = two_slope(*slopes)
    best = stock_vi(problem, utility, convergence.GRID, tol=1e-13)
    for n in (1, 3):
        after = stock_vi(problem, utility, convergence.GRID, tol=0.0, max_steps=n)
        # solves to 1e-12, on both sides
        expected = float(convergence.gap(utility, best.value, after.value))
        assert float(found["error"][n]) == pytest.approx(expected, abs=1e-11)


def test_convergence_measures_and_draws():
    data = convergence.run(convergence.Config(num_instances=4, sweeps=8, improvements=3))
    found = drawn(convergence, data, 6)
    for theorem in ("T4", "T5", "T6"):
        assert found[f"{theorem}: largest excess over the bound"].value <= convergence.SLACK
        assert 0 < found[f"{theorem}: largest {'error' if theorem == 'T4' else 'loss'} / bound, -|x|"].value <= 1
    assert found["T6: largest fall of a value"].value <= convergence.SLACK
    assert (data["loss_no_division"] > data["loss"] + convergence.SLACK).any()
    assert (data["loss_no_stock"] > data["loss"] + convergence.SLACK).any()


# ---- projections -----------------------------------------------------------------------------------------------------


def test_moments_and_the_fine_law_of_a_chain():
    problem = projections.chain(jax.random.key(1), 0.5)
    exact = projections.particle_law(problem, 12)
    middle, spread = projections.moments(problem)
    left = 2 * 0.5**12  # what twelve steps leave of returns below 2
    assert float(mean(exact)) == pytest.approx(float(middle), abs=left)
    # |X^2 - Y^2| <= (|X| + |Y|) |X - Y|, for the square and for the mean's
    assert float(variance(exact)) == pytest.approx(float(spread), abs=8 * left)
    law, error = projections.true_law(problem, jnp.asarray(0.5), 401)
    assert float(wasserstein(law, exact)) <= float(error) + left
    assert float(error) <= 0.01 / 2 * np.sqrt(projections.STEPS)  # a shared reward moves by half a spacing at most


def test_projections_measure_and_draw():
    data = projections.run(projections.Config(num_chains=2, atoms=(11, 51), particles=(2, 4), points=401))
    found = drawn(projections, data, 6)
    for name in ("w_1 / bound, categorical", "variance added / bound, categorical", "w_1 / bound, quantiles"):
        assert 0 < found[f"{name}, largest"].value <= 1
    assert found["bias of the mean, categorical, all"].value <= 1e-11  # sweeps end at 1e-12 of at most ten
    assert found["bias of the mean, quantiles, discount 0.9, 51 atoms"].value > 1e-4
    # two computations of one law, through differences of curves of size 20
    assert found["stop-loss against scattered, largest difference"].value <= 1e-8
    assert np.all(np.diff(projections.pick(data, "categorical", 0.5)["w1"].max("chain")) < 0)


# ---- the CVaR suite --------------------------------------------------------------------------------------------------


def test_cells_are_where_their_costs_are():
    for name, problem in (("obstacle", obstacle()), ("mud_and_nails", mud_and_nails())):
        where = cvar_suite.cells(problem, cvar_suite.STARTS[name])
        rows, columns = cvar_suite.SHAPES[name]
        assert len(where) == rows * columns - 1 and len(set(where.values())) == len(where)
        for (row, column), state in where.items():
            cell = (row + 1, column + 1)
            if name == "obstacle":
                cost = 20 if cell in OBSTACLES else 1
            else:
                cost = (3 if cell in MUD else 1) + 35 * (cell in WALLS)
                assert cell not in NAILS or float(problem.prob[state, 0].max()) == pytest.approx(0.5)
            assert float(problem.reward[state, 0, 0]) == -cost


def test_the_suite_measures_and_draws():
    data = cvar_suite.run(cvar_suite.Config(problems=("betting", "mud_and_nails")))
    found = drawn(cvar_suite, data, 6)
    for name, reference in cvar_suite.REFERENCES.items():
        ours = found[name]
        if name.startswith("betting"):
            assert abs(ours.value - reference.value) <= reference.error + ours.error, name
        else:
            assert np.isnan(ours.value)
    assert found["largest difference of a law's CVaR from the search"].value <= cvar_suite.SWEEPS
    least, most = data["betting.tied_mean"].values
    own = data["betting.law_mean"].values
    assert np.all(least <= own + 1e-9) and np.all(own <= most + 1e-9) and np.all(most > least + 1)
    np.testing.assert_allclose(data["betting.probs"].sum("betting.point"), 1, atol=1e-12)
