"""Shaping and lookahead on few problems: numbers known otherwise, and figures."""

import numpy as np
import pytest
import xarray as xr

from experiments.reference import table
from experiments.sqirl import bounds, guided, lookahead, minatar, oracles, shaping


def drawn(module, data, panels):
    """The figure has its panels, each shown one with an x label; every reference is measured; the measurements."""
    figure = module.plot(data)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == panels and all(axis.get_xlabel() for axis in shown)
    figure.canvas.draw()
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    table(module.REFERENCES, numbers)
    return numbers


def test_shaping_shortens_the_window_and_widens_the_gap():
    config = shaping.Config(sizes=(5,), learners=("PPO",), max_k=6, seeds=1, steps=2048, every=1024)
    data = shaping.run(config)
    numbers = drawn(shaping, data, 3)
    # Golden values of the unshaped room; a shaped one needs no lookahead.
    assert numbers["size 5, goal only: window"].value == 5 and numbers["size 5, shaped: window"].value == 1
    assert numbers["size 5, goal only: gap at k = 1"].value == pytest.approx(0.00412, abs=5e-6)
    assert numbers["size 5, shaped: gap at k = 1"].value > numbers["size 5, goal only: gap at k = 1"].value
    assert data["share"].shape == (1, 1, 2, 1, 2) and (data["share"] <= 1 + 1e-12).all()
    # Sizes that were left out are not compared.
    assert np.isnan(numbers["size 16, shaped: window"].value)


def test_a_lock_is_opened_from_its_depth_on():
    data = lookahead.run(lookahead.Config(problems=("lock k=2",), max_depth=2, steps=2000, seeds=3))
    numbers = drawn(lookahead, data, 1)
    assert data["k95"].values.tolist() == [2]
    assert (data["taken"] <= 2000).all()
    for version in lookahead.VARIANTS:
        assert numbers[f"lock k=2, {version}: best depth"].value == 2
        assert numbers[f"{version}: problems whose best depth is k95"].value == 1
        assert (data["share"].sel(version=version, k=1) < 0.95).all()


def test_the_best_depth_is_the_first_within_a_standard_error():
    share = np.zeros((1, 1, 3, 4))
    share[0, 0] = [[0.0, 0.1, 0.0, 0.1], [0.9, 1.0, 0.9, 1.0], [0.91, 1.0, 0.91, 1.0]]
    data = xr.Dataset({"share": (("problem", "version", "k", "seed"), share)}, {"k": [1, 2, 3]})
    assert lookahead.best_depth(data).item() == 2
    data["share"][0, 0, 2] = 1.0
    assert lookahead.best_depth(data).item() == 3


def test_bounds_of_a_lock():
    config = bounds.Config(problems=("lock k=2",), learners=("PPO",), max_m=4, seeds=1, ppo_steps=1024, evaluations=1)
    data = bounds.run(config)
    drawn(bounds, data, 7)
    log = data["log_bound"].isel(problem=0)
    # Two steps, four actions: with one episode per pair of actions nothing is left to chance, with one step 1/4 wins.
    assert data["exact_horizon"].item() == 2 and data["complete"].item()
    for bound, steps in (("worst case", 4**2), ("window", 2**2 * 4**2), ("exact", 2**2 * 4**2)):
        assert 10 ** log.sel(bound=bound).item() == pytest.approx(steps)
    assert log.sel(bound="exact") <= log.sel(bound="sound") + 1e-12


def test_a_policy_that_knows_shortens_the_horizon():
    config = guided.Config(
        problems=("lock k=2",), shares=(0.0, 0.5, 1.0), max_m=8, cloning=100, seeds=1, steps=1024, evaluations=2
    )
    data = guided.run(config)
    numbers = drawn(guided, data, 3)
    # Every plan of two steps, or nothing to plan at all.
    assert data["horizon"].values[0, 0] == 2 and data["horizon"].values[0, 2] == 1 and data["complete"].all()
    assert (np.diff(data["horizon"]) <= 0).all()
    # The clone of the optimal policy is optimal before it learns; that of the uniform one is random.
    assert data["step"].values[0] == 0 and numbers["lock k=2, 1: steps of PPO"].value == 0
    assert abs(float(data["way"].isel(problem=0, share=0, seed=0, step=0))) < 0.02


def test_means_err_as_their_bound_says_and_the_network_is_asked_the_same():
    config = oracles.Config(
        problems=("catch-5x3",), depths=(1,), oracles=("means", "network"), episodes=(16, 256), seeds=4, epochs=2
    )
    data = oracles.run(config)
    numbers = drawn(oracles, data, 2)
    assert numbers["catch-5x3, means: D"].value <= numbers["catch-5x3: D that T9a proves for means"].value
    assert (np.diff(data["error"].isel(oracle=0).max("t"), axis=-1) < 0).all()
    assert numbers["catch-5x3, means: slope of the error"].value < 0
    assert numbers["catch-5x3, means: alpha"].value == pytest.approx(1, abs=0.05)
    assert (data["error"].isel(oracle=1, m=1).max("t") > data["error"].isel(oracle=0, m=1).max("t")).all()
    assert (data["suboptimality"] >= -1e-12).all()


def test_games_are_played_by_all_three():
    config = minatar.Config(
        ("Breakout",), ("PPO", "DQN"), 256, (2,), (1,), limit=4, seeds=2, tests=8, evaluations=2, hidden=8, channels=2
    )
    data = minatar.run(config)
    drawn(minatar, data, 1)
    # At most the sum of 1 to 4 steps' iterations: every one plays at most 4 steps.
    assert (data["sqirl_steps"] <= 16).all() and (data["sqirl_steps"] > 0).all()
    assert data["ppo_step"].values.tolist() == [1024] and data["dqn_return"].shape == (1, 2, data["dqn_step"].size)
