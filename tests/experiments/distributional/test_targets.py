"""Experiments on tails, targets, drives and budgets, on small settings: plans by hand, laws, figures that draw."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import envs
from experiments.distributional import desired_returns, hazards, homeostasis, lotteries
from experiments.reference import table
from rlcore.distributional import stock_grid, stock_vi, vector_grids, vector_stock_vi
from rlcore.distributional.vector_utility import norm_drive

# Sums of some thousand products of numbers below 100.
ROUNDING = 1e-11


def drawn(module, data, panels):
    """The figure has its panels, each with an x label; every reference is measured, and none differs."""
    figure = module.plot(data)
    axes = [axis for axis in figure.axes if axis.get_visible() and axis.get_label() != "<colorbar>"]
    assert len(axes) == panels and all(axis.get_xlabel() for axis in axes)
    figure.canvas.draw()
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    rows = table(module.REFERENCES, numbers)
    assert {row["verdict"] for row in rows} == {"agrees", "-"}
    return numbers


# ---- paths: what can be done without stocks ----


def test_paths_of_the_lotteries():
    pairs = set(map(tuple, lotteries.paths(envs.make("lotteries"))))
    # straight on with k lotteries, two moves more for each avoided; bumps waste moves, or play a lottery again
    assert {(7 + 2 * (3 - k), k) for k in range(4)} <= pairs
    assert (7, 2) not in pairs and (9, 1) not in pairs and (12, 0) not in pairs
    assert (8, 4) in pairs and (14, 0) in pairs
    assert min(moves for moves, _ in pairs) == 7 and max(moves for moves, _ in pairs) == 20


def test_paths_of_the_hazards():
    pairs = hazards.paths(envs.make("hazards").problem)
    least = {k: pairs[pairs[:, 1] == k, 0].min() for k in range(4)}
    # the detour costs two moves however many hazards are met before it; three of them are on the short way
    assert least == {0: 6, 1: 6, 2: 6, 3: 4}


def test_binomial():
    found = lotteries.binomial(np.array([0, 2, 3]), 0.25)
    expected = [[1, 0, 0, 0], [9 / 16, 6 / 16, 1 / 16, 0], [27 / 64, 27 / 64, 9 / 64, 1 / 64]]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_without_stocks_at_the_ends():
    prices = np.array([0.0, 1.0, 100.0])
    found = hazards.without_stocks(envs.make("hazards").problem, prices)
    # free hazards: the short way; at 1, 4 moves and 1.5 hazards, or what is above the budget; dear: the safe way,
    # but the budget of 3 is never overspent
    above = [1.5, (1 * 3 + 2) / 8, 1 / 8, 0]
    np.testing.assert_allclose(found[0], -4, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found[1], [-4 - x for x in above], rtol=1e-15)
    np.testing.assert_allclose(found[2], [-6, -6, -6, -4], rtol=1e-15)


# ---- frozen stocks ----


def test_a_frozen_policy_reads_its_first_stock_alone():
    problem = envs.make("desired_returns", slip=0.2)
    policy = stock_vi(problem, desired_returns.DISTANCE, stock_grid(-60, 60, 1)).policy
    frozen = desired_returns.frozen(policy, 57)
    for column in (0, 57, 120):
        np.testing.assert_array_equal(frozen.action[..., column], policy.action[..., 57])
    np.testing.assert_array_equal(frozen.below, policy.action[..., 57])
    np.testing.assert_array_equal(frozen.above, policy.action[..., 57])

    problem, rewards = envs.make("homeostasis")
    policy = vector_stock_vi(problem, rewards, norm_drive(1), vector_grids(problem, rewards, [(0, 0)])).policy
    frozen = homeostasis.frozen(policy, (9, 12))
    for i, j in itertools.product((0, 9, 20), repeat=2):
        np.testing.assert_array_equal(frozen.action[..., i, j], policy.action[..., 9, 12])


# ---- the experiments ----


def test_lotteries():
    data = lotteries.run(lotteries.QUICK)
    found = drawn(lotteries, data, 6)
    np.testing.assert_allclose(data["law"].sum("return"), 1, rtol=0, atol=ROUNDING)
    # the plan for the worst returns is sure, the one for the mean plays all three
    assert data["law"].sel({"shown": 0.4, "return": -13}).item() == pytest.approx(1, abs=ROUNDING)
    straight = {-7: 0.85**3, -15: 3 * 0.85**2 * 0.15, -23: 3 * 0.85 * 0.15**2, -31: 0.15**3}
    law = data["law"].sel(shown=1.0).values
    expected = [straight.get(int(g), 0.0) for g in data["return"].values]
    np.testing.assert_allclose(law, expected, rtol=0, atol=ROUNDING)
    # stocks cost nothing, and help nobody at the ends
    gain = (data["cvar"] - data["cvar_by_plan"].max("plan")).values
    assert gain.min() >= -ROUNDING and abs(gain[0]) < ROUNDING and abs(gain[-1]) < ROUNDING
    assert found["largest gain of stocks in CVaR"].value == pytest.approx(gain.max())
    for name, sign in (("chance", 1), ("expectile", 1), ("distance", -1)):
        of_plans = sign * (sign * data[f"{name}_by_plan"]).max("plan")
        assert float((sign * (data[name] - of_plans)).min()) >= -1e-9  # a root ends within its tolerance
    with pytest.raises(ValueError, match="expected all returns that occur"):
        lotteries._on(lotteries.Law(jnp.array([-41.0]), jnp.ones(1)), lotteries.RETURNS)


def test_desired_returns():
    data = desired_returns.run(desired_returns.Config(slips=(0.0, 0.2), every=6))
    drawn(desired_returns, data, 4)
    np.testing.assert_allclose(data["law"].sum("return"), 1, rtol=0, atol=ROUNDING)
    assert float((data["frozen"] - data["distance"]).min()) >= -ROUNDING
    # a miss is by 1 at least, and any policy that hits is one that comes near
    assert float((data["distance"] - (1 - data["hit"])).min()) >= -ROUNDING
    # nothing needs to be done for 0
    assert float(np.abs(data["distance"].sel(target=0)).max()) == 0


def test_homeostasis():
    data = homeostasis.run(homeostasis.Config(low=-4, high=12))
    drawn(homeostasis, data, 6)
    np.testing.assert_allclose(data["law"].sum(("food_return", "water_return")), 1, rtol=0, atol=ROUNDING)
    # food and water lie alike
    distance = data["distance"].transpose("slip", "order", "food", "water").values
    np.testing.assert_allclose(distance, distance.swapaxes(2, 3), rtol=0, atol=ROUNDING)
    assert np.all(distance[:, 1] <= distance[:, 0] + ROUNDING)  # l2 is below l1
    for start in homeostasis.STARTS:
        here = data.sel(food=start[0], water=start[1], start=str(start))
        assert float((here["frozen"] - here["distance"]).min()) >= -ROUNDING


def test_hazards():
    data = hazards.run(hazards.Config(step=2.0))
    found = drawn(hazards, data, 4)
    assert list(data["price"].values) == [0, 0.5, 2, 4, 6, 8, 10]
    np.testing.assert_allclose(data["law"].sum(("length", "met")), 1, rtol=0, atol=ROUNDING)
    assert found["largest |moves and hazards of the law - value|"].value < ROUNDING
    gain = (data["value"] - data["without"]).values
    # with no budget, or one that cannot be overspent, there is nothing to adapt to
    assert gain.min() >= -ROUNDING and np.abs(gain[:, [0, 3]]).max() < ROUNDING and gain[:, 1:3].max() > 0.5
    # value falls with the price, rises with the budget
    assert np.diff(data["value"], axis=0).max() <= ROUNDING and np.diff(data["value"], axis=1).min() >= -ROUNDING
