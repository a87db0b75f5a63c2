"""Families of switching bandits: their tables by hand, the class that each claims, known relaxations, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs import switching_bandits as sb
from rlcore.lsd import SwitchingBandit, payoff_class, relaxation

KEY = jax.random.key(5)
solve = jax.jit(relaxation)
# One instance of each family and the class it claims: a full table, so that a new family without a row fails.
INSTANCES = {
    "blocking": (lambda: sb.blocking([2, 4], [0.5, 1.0]), "monotone"),
    "cap": (lambda: sb.cap([1.0, 2.5, 6.0], [1.0, 0.5, 0.7]), "monotone"),
    "concave_random": (lambda: sb.concave_random(KEY, 4, 30), "monotone"),
    "exp_recharge": (lambda: sb.exp_recharge([0.1, 1.0, 9.0], recovery=40), "monotone"),
    "greedy_trap": (sb.greedy_trap, "monotone"),
    "hunger_satiation": (lambda: sb.hunger_satiation([0.3, 1.0], [4.0, 0.05], 0.9), "monotone"),
    "interrupter": (lambda: sb.interrupter(3, 0.02), "recovering"),
    "laforgue_main": (sb.laforgue_main, "arbitrary"),
    "laforgue_supplement": (sb.laforgue_supplement, "monotone"),
    "momentum": (sb.momentum, "recovering"),
    "pinwheel": (lambda: sb.pinwheel([2, 3, 6]), "monotone"),
    "reference": (sb.reference, "monotone"),
    "satiation": (lambda: sb.satiation([0.5, 1.0], 0.8), "monotone"),
    "scaled": (lambda: sb.scaled(KEY, 3, 4, 2), "monotone"),
    "seasonal": (lambda: sb.seasonal([4, 6]), "arbitrary"),
    "sparse": (lambda: sb.sparse(KEY, 3, 4, 2), "monotone"),
    "spike": (lambda: sb.spike([3, 4, 5, 5]), "arbitrary"),
    "tight": (lambda: sb.tight(4), "monotone"),
    "uniform": (lambda: sb.uniform(KEY, 3, 4, 2), "monotone"),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_every_family_is_of_the_class_it_claims(name):
    make, claimed = INSTANCES[name]
    problem = make()
    assert isinstance(problem, SwitchingBandit) and payoff_class(problem) == claimed
    assert np.all((problem.payoffs >= 0) & (problem.payoffs <= 1)) and problem.payoffs.dtype == jnp.float64


def test_no_family_is_left_out_and_all_are_registered():
    assert set(INSTANCES) == set(sb.FAMILIES)
    assert {f"lsd/{name}" for name in sb.FAMILIES} <= set(envs.list())
    np.testing.assert_array_equal(envs.make("lsd/uniform", key=KEY, k=3, recovery=4, satiation=2).payoffs,
                                  sb.uniform(KEY, 3, 4, 2).payoffs)  # fmt: skip


def by_delay(problem):
    """[k, M + 1], payoffs at delays 1 .. M + 1, of a problem with L = 1."""
    assert problem.satiation == 1
    return np.concatenate([problem.tired, problem.rested], axis=1)


def test_tables_by_hand():
    np.testing.assert_array_equal(by_delay(sb.blocking([2, 4], [0.5, 1.0])), [[0, 0.5, 0.5, 0.5], [0, 0, 0, 1]])
    np.testing.assert_array_equal(by_delay(sb.pinwheel([2, 3])), [[0, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(by_delay(sb.tight(3)), [[0, 0, 1]] * 3)
    np.testing.assert_array_equal(by_delay(sb.spike([2, 3])), [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(by_delay(sb.cap([2.5], 0.5)), [[0.2, 0.4, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(
        by_delay(sb.exp_recharge(2.0, 0.5, recovery=2)), [0.5 * (1 - np.exp(-np.array([0.5, 1, 1.5])))], rtol=1e-14
    )
    np.testing.assert_allclose(by_delay(sb.greedy_trap(0.1)), [[0.1, 0.1], [0.2, 0.95]], rtol=1e-15)
    # s = 1 .. 4 of period 4: cos is 0, -1, 0, 1; a rounding of cos at pi / 2 is below 1e-16
    np.testing.assert_allclose(by_delay(sb.seasonal([4])), [[0, 0.5, 0, 0.5, 1]], atol=1e-15)
    problem = sb.satiation([0.5], 0.8, depth=3)
    np.testing.assert_allclose(problem.payoffs, [[0.1, 0.2, 0.4, 0.8]], rtol=1e-15)
    problem = sb.hunger_satiation([0.5], 2.0, 0.8, depth=2, recovery=2)
    charge = 0.8 * (1 - np.exp(-np.array([0.5, 1, 1.5])))
    np.testing.assert_allclose(problem.payoffs, [[charge[0] / 4, charge[0] / 2, *charge[1:]]], rtol=1e-14)
    problem = sb.momentum(3, k=2)
    np.testing.assert_array_equal(problem.tired, [[0, 0, 1, 0]] * 2)
    problem = sb.interrupter(2, 0.02)
    assert problem.satiation == 20 and problem.tired[0, 18] == 1 and float(jnp.sum(problem.tired)) == 1
    np.testing.assert_array_equal(problem.rested, [[0], [0.02], [0.02]])


def test_published_instances():
    main, supplement = sb.laforgue_main(), sb.laforgue_supplement()
    table = by_delay(main)
    np.testing.assert_array_equal(table[1], [0, 0, 0.95, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(table[2], [0.14] * 5 + [0.16, 0.14, 0.14, 0.96, 0.96])
    np.testing.assert_array_equal(table[[0, 3, 4]], np.full((3, 10), 0.15))
    np.testing.assert_array_equal(by_delay(supplement), [[0.05] * 11, [0.06] + [0.95] * 10])
    assert {(p.start, p.allow_idle) for p in (main, supplement)} == {("just", False)}


@pytest.mark.parametrize(
    ("make", "value", "tolerance"),
    [
        (sb.reference, 0.68, 1e-12),
        # The spec's rounded values: half of the last digit printed.
        (sb.laforgue_main, 4.56 / 9, 1e-12),
        (sb.laforgue_supplement, 0.5, 1e-12),
        (lambda: sb.tight(5), 1.0, 1e-12),
        (lambda: sb.pinwheel([2, 3, 6]), 1.0, 1e-12),
        (lambda: sb.pinwheel([2, 3, 7]), 0.97619, 5e-6),
        (lambda: sb.pinwheel([3, 4, 5, 5]), 0.98333, 5e-6),
        (sb.momentum, 0.1, 1e-12),
        (lambda: sb.interrupter(4, 0.02), 0.0486, 5e-5),
        (lambda: sb.greedy_trap(0.05), (0.95 + 0.05) / 2, 1e-12),
        (lambda: sb.seasonal([4]), 0.5 / 2, 1e-12),  # after one round of rest; a full season pays 1 / 5
    ],
)
def test_known_relaxations(make, value, tolerance):
    assert abs(float(solve(make()).value) - value) <= tolerance


def test_the_reference_has_its_price():
    assert abs(float(solve(sb.reference()).price) - 0.1) <= 1e-12


BATCHES = {
    "uniform": lambda key, x: sb.uniform(key, 3, 4, 2),
    "sparse": lambda key, x: sb.sparse(key, 3, 4, 2),
    "scaled": lambda key, x: sb.scaled(key, 3, 4, 2),
    "concave_random": lambda key, x: sb.concave_random(key, 3, 6),
    "blocking": lambda key, x: sb.blocking(jnp.stack([2 + x, 4 * x + 2]), x, recovery=5),
    "cap": lambda key, x: sb.cap(jnp.stack([1 + x, 4 * x + 1]), x, recovery=5),
    "exp_recharge": lambda key, x: sb.exp_recharge(x, x),
    "satiation": lambda key, x: sb.satiation(jnp.stack([x, x / 2]), x),
    "hunger_satiation": lambda key, x: sb.hunger_satiation(x, jnp.stack([x, 3 * x]), x),
    "spike": lambda key, x: sb.spike(jnp.stack([jnp.round(2 + x), jnp.round(2 + 3 * x)]), recovery=5),
    "interrupter": lambda key, x: sb.interrupter(3, x),
    "seasonal": lambda key, x: sb.seasonal(jnp.stack([1 + x, 3 + x]), recovery=5),
    "greedy_trap": lambda key, x: sb.greedy_trap(x / 3),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_equal_loops(name):
    keys, xs = jax.random.split(KEY, 3), jnp.array([0.1, 0.6, 0.9])
    many = jax.vmap(BATCHES[name])(keys, xs)
    for i in range(3):
        one = BATCHES[name](keys[i], xs[i])
        # two roundings of exp and powers between the compiled batch and one instance
        np.testing.assert_allclose(many.payoffs[i], one.payoffs, rtol=0, atol=4e-16)
        assert (many.satiation, many.allow_idle, many.start) == (one.satiation, one.allow_idle, one.start)


@given(st.integers(0, 10**6), st.sampled_from([2, 40]))
def test_random_concave_arms_are_concave_through_zero(seed, depth):
    table = by_delay(sb.concave_random(jax.random.key(seed), 4, depth))
    steps = np.diff(np.concatenate([np.zeros((4, 1)), table], axis=1), axis=1)
    # a cumulative sum over `depth` terms of at most 1 errs by depth roundings
    assert steps.min() >= 0 and np.all(np.diff(steps, axis=1) <= 2 * depth * np.finfo(float).eps)


def test_random_kinds_differ_as_they_say():
    plain, few, arms = (make(KEY, 2000, 2, 1).payoffs for make in (sb.uniform, sb.sparse, sb.scaled))
    # means 1/2, 1/5, 1/4; standard errors below 0.01 with 6 000 (2 000 arms of 3) draws
    assert [round(float(jnp.mean(x)), 1) for x in (plain, few)] == [0.5, 0.2]
    assert abs(float(jnp.mean(arms)) - 0.25) < 0.02
    np.testing.assert_array_equal(few, plain**4)
    ratio = arms / plain
    np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sb.blocking([0, 2]), r"delays: found \[0, 2\], expected numbers of at least 1"),
        (lambda: sb.blocking([2, 3], 1.5), r"rewards: found 1.5, expected numbers in \[0, 1\]"),
        (lambda: sb.blocking([2, 3], [0.1, 0.2, 0.3]), r"found shapes delays \(2,\), rewards \(3,\)"),
        (lambda: sb.pinwheel([2, 2.5]), r"expected \[k\] integers of at least 2"),
        (lambda: sb.pinwheel([1, 3]), "integers of at least 2"),
        (lambda: sb.tight(1), "k: found 1, expected an integer >= 2"),
        (lambda: sb.exp_recharge(0.0), r"time: found 0.0, expected numbers above 0"),
        (lambda: sb.satiation(1.1), r"decay: found 1.1, expected numbers in \[0, 1\]"),
        (lambda: sb.satiation(0.5, depth=0), "depth: found 0"),
        (lambda: sb.spike([3, 5], recovery=4), "recovery: found 4, expected an integer >= 5"),
        (lambda: sb.spike(2.5), r"delays: found 2.5, expected \[k\] integers of at least 2"),
        (lambda: sb.spike([3, 1]), r"delays: found \[3, 1\], expected \[k\] integers of at least 2"),
        (lambda: sb.spike(np.inf), r"delays: found inf"),
        (lambda: sb.pinwheel(3), r"delays: found 3, expected \[k\] integers"),
        (lambda: sb.greedy_trap(0.6), r"epsilon: found 0.6"),
        (lambda: sb.uniform(KEY, 3, 0, 2), "recovery: found 0"),
        (lambda: sb.cap(float("nan")), "time: found nan"),
        (lambda: jax.vmap(sb.blocking)(jnp.ones((2, 2))), "recovery: found None, expected a depth, as delays is"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_class_is_checked_and_not_repaired(monkeypatch):
    rows = jnp.array([[0.1, 0.3, 0.3 - 1e-16, 0.2]])
    np.testing.assert_array_equal(sb._without_dents(rows), [[0.1, 0.3, 0.3, 0.2]])
    with pytest.raises(ValueError, match="found arm 0 paying 0"):
        sb._by_delay(sb._without_dents(rows), "monotone")
