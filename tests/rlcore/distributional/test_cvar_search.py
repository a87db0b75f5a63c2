"""The largest CVaR on any grid: the optimum lies in every interval; initial laws, costs without an end, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import Law, cvar, stock_grid
from rlcore.distributional.brute_force import distinct_laws
from rlcore.distributional.max_cvar import cvar_curve, maximize_cvar, maximize_mean_cvar
from rlcore.mdp import tabular
from rlcore.planning import backward_induction
from tests.rlcore.distributional.problems import random_problem
from tests.rlcore.distributional.searches import moved, of_all_laws, stacked, tree

# Values are sums of at most 3 * 2^3 products of rounded numbers below 6, divided by levels above 0.1.
ROUNDING = 1e-13
LEVELS = (0.1, 0.25, 0.5, 0.8, 1.0)


def test_states_are_drawn_from_the_initial_law():
    problem = random_problem(7, discount=1.0, horizon=2)
    problem = dataclasses.replace(problem, initial=jnp.array([0.3, 0.0, 0.7]))
    # the policies of both starts are chosen together
    mixtures = [
        Law(jnp.concatenate([a.values, b.values]), jnp.concatenate([0.3 * a.probs, 0.7 * b.probs]))
        for a in distinct_laws(problem, 0)
        for b in distinct_laws(problem, 2)
    ]
    for level in (0.2, 0.6):
        found = maximize_cvar(problem, level)
        truth = max(float(cvar(law, level)) for law in mixtures)
        assert float(found.value) == pytest.approx(truth, abs=ROUNDING)
        assert float(found.lower) == pytest.approx(truth, abs=ROUNDING)


def test_levels_shifts_and_scales():
    problem = random_problem(3, discount=1.0, horizon=3)  # no ends: a shift adds 3 of it
    levels = jnp.linspace(0.02, 1.0, 50)
    curve = cvar_curve(problem, levels)
    assert np.all(np.diff(np.asarray(curve.value)) >= -ROUNDING)
    # level times the best CVaR is a maximum of concave, piecewise linear functions of the level: no kink falls
    assert float(curve.value[-1]) == pytest.approx(float(backward_induction(problem).value[0, 0]), abs=ROUNDING)
    after = cvar_curve(moved(problem, scale=3.0, shift=2.0), levels)
    np.testing.assert_allclose(after.value, 3 * curve.value + 6, atol=10 * ROUNDING)
    worst = max(float(jnp.min(jnp.where(law.probs > 0, law.values, jnp.inf))) for law in distinct_laws(problem, 0))
    least = float(jnp.min(problem.prob)) ** 3  # below it only the worst value counts
    assert float(cvar_curve(problem, [least / 2]).value[0]) == pytest.approx(worst, abs=1e-9)


@pytest.mark.parametrize("discount", [1.0, 0.5, 0.9])
@pytest.mark.parametrize("rounding", ["linear", "stochastic", "nearest", "floor", "ceil", None])
def test_the_interval_holds_the_optimum_on_any_grid(rounding, discount):
    for seed in range(2):
        problem = tree(seed, discount)
        grid = None if rounding is None else stock_grid(-16, 16, 0.4, rounding=rounding)
        for level in (0.25, 0.8):
            found = maximize_cvar(problem, level, grid)
            truth = of_all_laws(problem, lambda law, t=level: cvar(law, t)).max()
            assert float(found.lower) - ROUNDING <= truth <= float(found.upper) + ROUNDING
            # less than the range of returns; the default grid of about 2049 nodes on a range below 12: three roundings
            # of half a spacing at slope 4 are 0.036, for the optimum and again for the policy
            width = float(found.upper - found.lower)
            assert width <= (12.0 if rounding else 0.08 if discount == 0.9 else ROUNDING)


def test_a_coarse_search_loses_at_most_the_part_proved():
    # h at every ninth node of a lattice of spacing 0.1: spacing 0.9, values exact; T15's loss is (1 - level) 0.9
    problems = stacked([tree(seed) for seed in range(100)])
    fine = stock_grid(-7.2, 7.2, 0.1)
    curve = jax.jit(jax.vmap(lambda p: cvar_curve(p, jnp.asarray(LEVELS), fine).curve))(problems)
    curve = np.asarray(curve)
    loss = curve.max(axis=-1) - curve[..., ::9].max(axis=-1)
    share = loss / ((1 - np.asarray(LEVELS)) * 0.9 + 1e-12)
    assert share[:, :-1].max() <= 1 + 1e-9 and share[:, :-1].max() > 0.8
    assert np.all(loss[:, -1] < ROUNDING)
    # a smaller constant is false
    assert np.any(loss > 0.75 * (1 - np.asarray(LEVELS)) * 0.9)


def geometric(stop):
    """Each step costs 1 and ends with probability `stop`."""
    return tabular([[[0, 0]]], [[[stop, 1 - stop]]], [[[-1.0, -1.0]]], terminal=[[[True, False]]])


def cvar_of_geometric(stop, level):
    """Minus the mean of the largest share `level` of a geometric number."""
    k = np.arange(1, 5000)
    law = Law(jnp.asarray(-k, float), jnp.asarray(stop * (1 - stop) ** (k - 1.0)))
    return float(cvar(law, level))


@pytest.mark.parametrize(("stop", "level"), [(0.5, 0.1), (0.02, 0.05)])
def test_the_grid_grows_for_costs_without_a_horizon(stop, level):
    found = maximize_cvar(geometric(stop), level)
    # sweeps stop at changes of 1e-10, and what they leave out is 1 / stop times that, over the level
    slack = 1e-10 / stop / level
    truth = cvar_of_geometric(stop, level)
    assert float(found.value) == pytest.approx(truth, abs=slack)
    assert float(found.lower) <= truth + ROUNDING and float(found.lower) == pytest.approx(truth, abs=10 * slack)
    assert float(found.upper) >= truth - ROUNDING
    # beyond it no stock can win: h(c) <= -c
    assert float(found.policy.grid.lattice.high) >= -float(found.value)


@pytest.mark.parametrize(("price", "truth"), [(3.0, -3.0), (5.0, -4.25)])
def test_to_try_again_or_to_stop_for_good(price, truth):
    # try: cost 1, ends with probability 1/2; stop: the price, surely. CVaR_0.2 of always trying is -4.25
    problem = tabular(
        [[[0, 0], [0, 0]]],
        [[[0.5, 0.5], [1.0, 0.0]]],
        [[[-1.0, -1.0], [-price, 0.0]]],
        terminal=[[[True, False], [True, True]]],
    )

    @functools.cache
    def shortfall(c):
        """max E min(c + G, 0) by hand: below 0 the mean counts, and to try costs 2 on average."""
        return c - 2.0 if c <= 0 else max(min(c - price, 0.0), 0.5 * min(c - 1.0, 0.0) + 0.5 * shortfall(c - 1))

    assert max(-c + shortfall(c) / 0.2 for c in range(100)) == pytest.approx(truth, abs=ROUNDING)
    found = maximize_cvar(problem, 0.2)
    # sweeps end at changes of 1e-10, half of what is left: 2e-10, over the level
    assert float(found.value) == pytest.approx(truth, abs=1e-9)
    assert float(found.lower) == pytest.approx(truth, abs=1e-8) and float(found.upper) >= truth - ROUNDING


def test_a_discount_without_horizon_is_bracketed():
    problem = random_problem(4, discount=0.5, ends=0.1)
    ends = []
    for grid in (stock_grid(-4, 4, 1), stock_grid(-4, 4, 0.25), None):
        found = maximize_cvar(problem, 0.3, grid)
        ends.append((float(found.lower), float(found.upper)))
    # every interval holds the optimum, so all meet; the default one is narrow
    assert max(low for low, _ in ends) <= min(high for _, high in ends) + ROUNDING
    assert ends[-1][1] - ends[-1][0] < 0.02


def test_what_is_refused():
    problem = tree(0)
    for level in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="level: found"):
            maximize_cvar(problem, level)
        with pytest.raises(ValueError, match="levels: found"):
            cvar_curve(problem, [0.5, level])
    for weight in (-0.1, 1.1):
        with pytest.raises(ValueError, match="weight: found"):
            maximize_mean_cvar(problem, 0.5, weight)
    with pytest.raises(ValueError, match="grid: found last node 1"):
        maximize_cvar(problem, 0.5, stock_grid(-6, 1, 1))
    with pytest.raises(ValueError, match="grid: found None for the mean"):
        maximize_mean_cvar(geometric(0.5), 0.5, 1.0)
    gains = moved(geometric(0.5), scale=-1.0)
    with pytest.raises(ValueError, match="problem: found returns without an upper bound"):
        maximize_cvar(gains, 0.5)
