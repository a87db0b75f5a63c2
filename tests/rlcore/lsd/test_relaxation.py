"""The relaxation against two programmes by simplex, known values, structure of the plan, precision, batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    SwitchingBandit,
    cycle_programme,
    dual,
    from_tables,
    occupancy,
    occupation_programme,
    relaxation,
)
from rlcore.lsd.problem import transition_tables
from rlcore.lsd.relaxation import cycle_payoffs

Q = from_tables(
    [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]],
    [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]],
    payoff_class="monotone",
)
# Sums of at most a few dozen numbers below 1, in another order; HiGHS's vertices are solves of that size.
ROUNDING = 1e-12
SIMPLEX = 1e-9
# One program per shape and number of plays.
SOLVE = jax.jit(relaxation, static_argnums=1)
DUAL = jax.jit(dual, static_argnums=2)
KINDS = ("monotone", "sparse", "scaled", "quarters", "blocking", "constant", "equal arms", "some arms useless", "any")


def tables(kind, k, deep, low, rng):
    """One table float[k, S] of a kind."""
    v = rng.random((k, low + deep))
    return {
        "monotone": lambda: np.sort(v, axis=1),
        "sparse": lambda: np.sort(v**4, axis=1),
        "scaled": lambda: np.sort(v, axis=1) * rng.random((k, 1)),
        "quarters": lambda: np.round(4 * v) / 4,
        "blocking": lambda: (
            (np.arange(low + deep)[None, :] >= low + rng.integers(0, deep, (k, 1))) * rng.random((k, 1))
        ),
        "constant": lambda: np.full((k, low + deep), 0.98),
        "equal arms": lambda: np.tile(np.sort(v[:1], axis=1), (k, 1)),
        "some arms useless": lambda: v * (rng.random((k, 1)) < 0.5),
        "any": lambda: v,
    }[kind]()


@functools.cache
def solved(k, deep, low, plays, count=3, dtype="float64"):
    """(problems float[n, k, S], kinds, plans, occupancies), `count` of every kind."""
    rng = np.random.default_rng(k + 10 * deep + 100 * low)
    names = [kind for kind in KINDS for _ in range(count)]
    batch = jnp.asarray(np.array([tables(kind, k, deep, low, rng) for kind in names]), dtype)

    @jax.jit
    @jax.vmap
    def solve(table):
        problem = SwitchingBandit(table, low)
        plan = relaxation(problem, plays)
        return plan, occupancy(problem, plan)

    return batch, names, *solve(batch)


SHAPES = [(4, 4, 3, 2), (5, 2, 7, 1), (3, 6, 1, 1)]


@pytest.mark.parametrize(("k", "deep", "low", "plays"), SHAPES)
def test_three_programmes_agree(k, deep, low, plays):
    batch, names, plans, _ = solved(k, deep, low, plays)
    for i, kind in enumerate(names):
        problem = SwitchingBandit(batch[i], low)
        cycles, measure = cycle_programme(problem, plays), occupation_programme(problem, plays)
        assert abs(plans.value[i] - cycles.value) <= SIMPLEX, kind
        assert abs(plans.value[i] - measure.value) <= SIMPLEX, kind
        # every price of a dual optimum is optimal for the others too, though it need not be unique
        for price in (cycles.price, measure.price):
            assert abs(float(DUAL(problem, float(price), plays)) - cycles.value) <= SIMPLEX, kind


@pytest.mark.parametrize(("k", "deep", "low", "plays"), SHAPES)
def test_the_plan_is_feasible_attains_the_value_and_mixes_one_arm_at_most(k, deep, low, plays):
    batch, _, plans, rates = solved(k, deep, low, plays)
    assert np.all((plans.weight >= 0) & (plans.weight <= 1))
    np.testing.assert_allclose(plans.weight.sum(-1), 1, rtol=0, atol=ROUNDING)
    mixed = np.asarray(plans.weight).min(-1) > 0
    assert mixed.sum(-1).max() == 1  # somewhere one is, nowhere two
    # the gap is a difference of two sums: 0 up to rounding, of either sign
    assert np.all(np.abs(plans.gap) <= ROUNDING) and np.all(plans.steps < 20)
    idle, play = np.asarray(rates.idle), np.asarray(rates.play)
    assert idle.min() >= 0 and play.min() >= 0
    np.testing.assert_allclose((idle + play).sum(-1), 1, rtol=0, atol=ROUNDING)
    assert np.all(play.sum((1, 2)) <= plays + ROUNDING)
    np.testing.assert_allclose((play * batch).sum((1, 2)), plans.value, rtol=0, atol=ROUNDING)
    # flow: what enters a local state leaves it
    to_play, to_idle = (np.eye(deep + low)[np.asarray(x)] for x in transition_tables(SwitchingBandit(batch[0], low)))
    np.testing.assert_allclose(play @ to_play + idle @ to_idle, idle + play, rtol=0, atol=ROUNDING)


def test_simplex_vertices_mix_one_arm_at_most_and_two_with_a_second_row():
    rng = np.random.default_rng(0)
    worst = {1: 0, 2: 0}
    for _ in range(30):
        problem = SwitchingBandit(jnp.asarray(tables("monotone", 6, 4, 2, rng)), 2)
        for rows, options in ((1, {}), (2, {"costs": rng.random(6), "budget": 0.3})):
            weight = cycle_programme(problem, **options).weight
            worst[rows] = max(worst[rows], int(((weight > 1e-9).sum(1) > 1).sum()))
    assert worst == {1: 1, 2: 2}


# ---- known values ----------------------------------------------------------------------------------------------------


def test_reference_instance():
    plan = SOLVE(Q)
    np.testing.assert_allclose([plan.value, plan.price], [0.68, 0.1], rtol=0, atol=ROUNDING)
    assert abs(plan.gap) <= ROUNDING
    prices = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    expected = [0.691667, 0.701667, 0.745, 0.815, 0.885, 1.0]  # as printed, to 6 digits
    np.testing.assert_allclose([float(DUAL(Q, x)) for x in prices], expected, rtol=0, atol=5e-7)
    alone = [float(DUAL(SwitchingBandit(Q.payoffs[i : i + 1], 2), 0.0)) for i in range(3)]
    np.testing.assert_allclose(alone, [0.266667, 0.225, 0.2], rtol=0, atol=5e-7)
    # a printed optimum: arm 0 mixes (1, 1) and (1, 2), arm 1 repeats (3, 1), arm 2 (4, 1)
    w = cycle_payoffs(Q)
    by_hand = 0.7 * w[0, 0, 0] / 2 + 0.3 * w[0, 0, 1] / 3 + w[1, 2, 0] / 4 + w[2, 3, 0] / 5
    np.testing.assert_allclose(by_hand, 0.68, rtol=0, atol=ROUNDING)


def test_cycles_pay_what_is_read_along_them():
    w = np.asarray(cycle_payoffs(Q))
    assert w.shape == (3, 4, 3)
    # two idle rounds after a play lead to +2: .7; then -1 and -2: .3, .1
    np.testing.assert_allclose(w[0, 1], [0.7, 1.0, 1.1], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(w[2, 3], [1.0, 1.1, 1.15], rtol=0, atol=ROUNDING)


def test_play_without_end_is_an_option():
    problem = from_tables([[1.0, 1.0]], [[0.95, 0.9]])
    assert float(SOLVE(problem).value) == pytest.approx(0.9, abs=ROUNDING)
    assert cycle_programme(problem, permanent=False, longest=2).value == pytest.approx(0.65, abs=SIMPLEX)
    for longest in (3, 10, 50):
        assert cycle_programme(problem, permanent=False, longest=longest).value < 0.9 - 1e-3
    # runs beyond L + 1 are mixtures with it
    for longest in (2, 3, 9):
        assert cycle_programme(problem, longest=longest).value == pytest.approx(0.9, abs=SIMPLEX)


def test_constant_payoffs_need_no_price_above_them():
    # a bracket that ends at the payoff itself goes wrong by rounding: (k, M, L) = (5, 2, 7), payoff .98 gave 4.29
    for c in (0.98, 1.0, 0.1, 1 / 3):
        for plays in (1, 2):
            problem = from_tables(np.full((5, 2), c), np.full((5, 7), c))
            assert float(SOLVE(problem, plays).value) == pytest.approx(plays * c, abs=ROUNDING)


def test_pinwheels_have_their_values():
    # a blocking arm of delay D pays 1 every D rounds: V = min(1, sum 1 / D)
    for delays, value in [((2, 3, 7), 0.97619), ((3, 4, 5, 5), 0.98333), ((2, 4, 4), 1.0), ((2, 3, 6), 1.0)]:
        up = np.zeros((4, 6))  # arms beyond the delays pay nothing
        up[: len(delays)] = np.arange(1, 7)[None, :] >= np.array(delays)[:, None] - 1
        plan = SOLVE(from_tables(up, np.zeros((4, 1)), payoff_class="monotone"))
        assert float(plan.value) == pytest.approx(value, abs=5e-6)


def test_nothing_to_earn_and_nothing_scarce():
    nothing = SOLVE(from_tables(np.zeros((3, 4)), np.zeros((3, 2))))
    assert (float(nothing.value), float(nothing.price)) == (0.0, 0.0)
    # as many plays as arms: each does what is best alone, and a play costs nothing
    plan = SOLVE(Q, 3)
    assert float(plan.price) == 0.0
    assert float(plan.value) == pytest.approx(0.266667 + 0.225 + 0.2, abs=1e-6)


# ---- relations between problems --------------------------------------------------------------------------------------


def test_order_scale_and_copies():
    plan = SOLVE(Q)
    turned = SOLVE(dataclasses.replace(Q, payoffs=Q.payoffs[::-1]))
    halved = SOLVE(dataclasses.replace(Q, payoffs=Q.payoffs / 2))
    twice = SOLVE(dataclasses.replace(Q, payoffs=jnp.concatenate([Q.payoffs, Q.payoffs])), 2)
    np.testing.assert_allclose(
        [turned.value, 2 * halved.value, twice.value / 2], [plan.value] * 3, rtol=0, atol=ROUNDING
    )
    np.testing.assert_allclose([turned.price, 2 * halved.price, twice.price], [0.1] * 3, rtol=0, atol=ROUNDING)


def test_the_dual_lies_above_the_value_and_is_convex():
    batch, _, plans, _ = solved(4, 4, 3, 2)
    prices = jnp.linspace(0, 1, 41)
    curve = jax.jit(jax.vmap(lambda p: jax.vmap(lambda x: dual(SwitchingBandit(p, 3), x, 2))(prices)))(batch)
    assert np.all(curve >= plans.value[:, None] - ROUNDING)
    assert np.all(np.diff(curve, 2, axis=1) >= -ROUNDING)


# ---- precision, batches, bad input -----------------------------------------------------------------------------------


def test_a_batch_is_a_loop():
    batch, _, plans, _ = solved(4, 4, 3, 2)
    alone = jax.jit(lambda table: SOLVE(SwitchingBandit(table, 3), 2))
    for i in range(0, len(batch), 4):
        found = alone(batch[i])
        one = jax.tree.map(lambda x, i=i: x[i], plans)
        np.testing.assert_allclose(found.value, one.value, rtol=0, atol=ROUNDING)
        np.testing.assert_array_equal(found.idle, one.idle)
        np.testing.assert_array_equal(found.run, one.run)


def test_float32_stays_float32_and_near():
    _, _, plans, _ = solved(4, 4, 3, 2)
    _, _, found, rates = solved(4, 4, 3, 2, dtype="float32")
    assert found.value.dtype == found.weight.dtype == rates.play.dtype == jnp.float32
    # eps = 1.2e-7; 16 states, payoffs below 1, some ten roundings each; the inputs are rounded too
    np.testing.assert_allclose(found.value, plans.value, rtol=0, atol=1e-5)
    assert np.all(np.abs(found.gap) <= 1e-5) and np.all(found.steps < 40)


@pytest.mark.parametrize("plays", [0, 4, -1])
def test_more_plays_than_arms_are_refused(plays):
    for solve in (relaxation, cycle_programme, occupation_programme):
        with pytest.raises(ValueError) as error:
            solve(Q, plays)
        assert str(error.value) == f"plays: found {plays}, expected an integer in [1, 3] (the number of arms)"


def test_gradual_recovery_has_no_cycles():
    gradual = dataclasses.replace(Q, idle_rule="decrement")
    for solve in (relaxation, cycle_payoffs, cycle_programme):
        with pytest.raises(ValueError, match="idle_rule: found 'decrement', expected 'reset'"):
            solve(gradual)
