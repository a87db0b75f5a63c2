"""The trees, baselines and hand instances of the distributional statements, beside plain enumeration and fractions."""

import functools
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Law,
    StockGrid,
    TwoSlope,
    cvar,
    expected_utility,
    mean,
    optimistic_cvar,
    stock_grid,
    stock_vi,
    value_at_risk,
    variance,
)
from theory_checks import distributional as trees
from theory_checks import distributional_grids as grids
from theory_checks import distributional_laws as laws
from theory_checks import distributional_risk as risk
from theory_checks import distributional_scalar as scalar

KEY = jax.random.key(7)


@pytest.fixture(autouse=True)
def ledger_settings():
    """The ledger runs under JAX's ordinary promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def enumerated(problem):
    """Every policy's law of three steps from state 0, by plain loops: a set of sorted (value, chance) lists."""
    nxt, prob, reward, end = (np.asarray(getattr(problem, x)) for x in ("next_state", "prob", "reward", "terminal"))
    discount = float(problem.discount)

    def returns(state, t):
        if t == 3:
            return [[(0.0, 1.0)]]
        found = []
        for action in range(2):
            after = [
                [[(0.0, 1.0)]] if end[state, action, b] else returns(nxt[state, action, b], t + 1) for b in range(2)
            ]
            for pair in itertools.product(*after):
                found.append(
                    [
                        (reward[state, action, b] + discount * value, prob[state, action, b] * chance)
                        for b in range(2)
                        for value, chance in pair[b]
                    ]
                )
        return found

    return [np.array(sorted(law)) for law in returns(0, 0)]


def test_trees_hold_the_laws_of_all_policies():
    for i in range(4):
        problem = scalar.sloped_instance(jax.random.fold_in(KEY, i)).start.problem
        expected = enumerated(problem)
        found = trees.every_law(trees.grow(problem, 0.0))
        for functional in (
            mean,
            variance,
            functools.partial(cvar, level=0.3),
            functools.partial(optimistic_cvar, level=0.3),
        ):
            ours = {float(np.round(functional(Law(v, p)), 9)) for v, p in zip(*found, strict=True)}
            theirs = {float(np.round(functional(Law(jnp.asarray(x[:, 0]), jnp.asarray(x[:, 1]))), 9)) for x in expected}
            assert ours == theirs


def test_a_tree_without_choice_is_its_only_law():
    start = trees.tree_instance(KEY)
    problem = start.problem
    kernel = {x: getattr(problem, x).at[:, 1].set(getattr(problem, x)[:, 0]) for x in ("next_state", "prob", "reward")}
    tree = trees.grow(type(problem)(**{**vars(problem), **kernel}), start.stock)
    law, every = trees.greedy(tree, mean), trees.every_law(tree)
    np.testing.assert_array_equal(np.sort(law.values), np.sort(every.values[5]))
    assert float(variance(law)) == pytest.approx(float(variance(Law(every.values[9], every.probs[9]))), rel=1e-14)


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_greedy_fails_for_functionals_without_mixtures_on_a_twentieth_of_the_trees(discount):
    """The lower half of the table of T3: at least 5 % failures each, clear of rounding."""
    functionals = (
        functools.partial(cvar, level=0.5),
        functools.partial(value_at_risk, level=0.5),
        lambda law: mean(law) - variance(law) / 2,
        trees.mean_and_infimum,
    )

    def losses(key):
        start = trees.tree_instance(key, discounts=(discount,))
        tree = trees.grow(start.problem, start.stock)
        lost = []
        for functional in functionals:
            law = trees.greedy(tree, functional)
            lost.append(trees.best_of_all(tree, functional) - functional(Law(start.stock + law.values, law.probs)))
        return jnp.stack(lost)

    found = np.asarray(jax.jit(jax.vmap(losses))(jax.random.split(KEY, 200)))
    assert np.all(found >= -1e-12)
    assert np.all(np.mean(found > 1e-9, axis=0) >= 0.05)


def tail(law, level):
    """CVaR in fractions: the mean of the worst share."""
    left, total = level, Fraction(0)
    for value, chance in sorted(law):
        part = min(left, chance)
        total, left = total + part * value, left - part
    return total / level


def test_hand_instances_in_fractions():
    half, level = Fraction(1, 2), Fraction(3, 5)
    local = {"A": [(-1, Fraction(1, 5)), (1, Fraction(4, 5))], "B": [(0, Fraction(1))]}
    whole = {name: [(-10, half), *((v, half * p) for v, p in law)] for name, law in local.items()}
    assert tail(local["A"], level) == Fraction(1, 3) > tail(local["B"], level) == 0
    assert tail(whole["A"], level) == Fraction(-17, 2) < tail(whole["B"], level) == Fraction(-25, 3)
    f = lambda x: min(x, Fraction(1))  # noqa: E731
    choices = {"A": [(Fraction(1), Fraction(1))], "B": [(Fraction(1, 5), half), (Fraction(3), half)]}
    here = {name: sum(p * f(v) for v, p in law) for name, law in choices.items()}
    later = {name: sum(p * f(half * v) for v, p in law) for name, law in choices.items()}
    assert here == {"A": 1, "B": Fraction(3, 5)} and later == {"A": half, "B": Fraction(11, 20)}
    mixed = [(-10, Fraction(4, 45)), (0, Fraction(8, 10)), (-5, Fraction(1, 9))]
    assert sum(p for _, p in mixed) == 1
    assert -tail(mixed, Fraction(1, 5)) == Fraction(65, 9)


def test_risk_levels_claim_at_least_the_optimum_and_earn_at_most_it():
    def gaps(key, draw=risk.risk_instance):
        instance = draw(key)
        tree = trees.grow(instance.start.problem, 0.0)
        claimed, law = risk.level_policy(tree, instance.level)
        best = jnp.max(trees.score(functools.partial(cvar, level=instance.level), *trees.every_law(tree)))
        return jnp.stack([claimed - best, best - cvar(law, instance.level), jnp.sum(law.probs) - 1])

    claim, loss, mass = np.asarray(jax.jit(jax.vmap(gaps))(jax.random.split(KEY, 100))).T
    assert np.all(claim > -1e-10) and np.all(loss > -1e-12) and np.all(np.abs(mass) < 1e-14)
    assert np.mean(loss > 1e-9) > 0.01
    claim, loss, _ = np.asarray(jax.jit(jax.vmap(lambda k: gaps(k, risk.split_instance)))(jax.random.split(KEY, 20))).T
    assert np.all(claim > 0.1) and np.all(loss > 0.1)


def test_tracked_stocks_on_an_exact_grid_earn_the_value():
    problem = grids.returning_instance(KEY).problem
    whole = type(problem)(**{**vars(problem), "reward": jnp.round(problem.reward), "discount": jnp.asarray(0.5)})
    utility = TwoSlope(jnp.asarray(0.3), jnp.asarray(1.0))
    found = stock_vi(whole, utility, stock_grid(-4.0, 4.0, 1.0))
    for remember in (True, False):
        earned = grids.tracked_value(whole, utility, found.policy, remember)
        np.testing.assert_allclose(earned, found.value.value[0], rtol=0, atol=1e-14)
    assert isinstance(found.policy.grid, StockGrid)


def test_exact_sweeps_are_the_laws_of_paths():
    chain = laws.centred_instance(KEY)
    found = jax.tree.map(lambda x: np.asarray(x[1, 0]), laws.exact_sweeps(chain))
    nxt, prob, reward = (np.asarray(x) for x in chain[:3])
    expected = {}
    for a, b in itertools.product(range(2), repeat=2):
        value = reward[0, a] + float(chain.discount) * reward[nxt[0, a], b]
        expected[round(value, 12)] = prob[0, a] * prob[nxt[0, a], b]
    kept = found.probs > 0
    assert {
        round(float(v), 12): p for v, p in zip(found.values[kept], found.probs[kept], strict=True)
    } == pytest.approx(expected, rel=1e-14)
    f = lambda x: x**2  # noqa: E731
    assert float(expected_utility(Law(*map(jnp.asarray, found)), f)) == pytest.approx(
        sum(p * v**2 for v, p in expected.items()), rel=1e-11
    )
