"""The experiment on Catch-match, on a training of a moment: its numbers against the game itself, and its figure."""

import dataclasses

import numpy as np
import pytest

from experiments.distributional import catch_match
from experiments.reference import table

TINY = catch_match.Config(2, 40, 4, 64, 8, 20, 20, ("stock", "stock frozen"), ((4, 0.2),))


def test_optima():
    for game in ((4, 0.2), (4, 0.0)):
        least, best = catch_match.exact(*game)
        assert least.shape == (9,) and np.all(least >= 0)
        listed = catch_match.OPTIMA[game]
        np.testing.assert_allclose(least[np.array(list(listed)) + 4], list(listed.values()), rtol=0, atol=6e-7)
        # nothing is nearer to the highest score than the largest mean
        assert least[-1] == pytest.approx(4 - best, abs=1e-12)


def test_agents_are_the_specifications():
    config = catch_match.Config()
    agent, frozen = (catch_match.agent_of(config, name) for name in ("stock", "stock frozen"))
    assert (agent.num_steps, agent.num_envs, agent.batch, agent.refresh) == (6000, 64, 256, 250)
    assert agent.network.quantiles == 32 and agent.network.hidden == (128, 128) and agent.capacity == 65_536
    assert frozen == dataclasses.replace(agent, frozen=True)
    assert not catch_match.agent_of(config, "stock not seen").sees_stock


def test_a_moment_of_training():
    data = catch_match.run(TINY)
    assert data["distance"].sizes == {"agent": 2, "seed": 2, "target_4": 9}
    assert data["training_distance"].sizes == {"agent": 2, "seed": 2, "iteration": 40}
    # episodes of 16 steps end together, at 16 and 32
    ended = np.isfinite(data["training_distance"].values)
    assert ended[:, :, [15, 31]].all() and ended.sum() == 8
    target = data["target_4"].values
    # |mean - g| <= E|G - g|, and scores lie in [-4, 4]
    assert np.all(np.abs(data["score"].values - target) <= data["distance"].values + 1e-6)
    assert np.abs(data["score"].values).max() <= 4
    # the least and the greatest score are met from one side only
    np.testing.assert_allclose(data["distance"][..., 0], data["score"][..., 0] + 4, rtol=0, atol=1e-5)
    # what is measured: no number of a full training
    found = catch_match.measured(data)
    rows = {row["quantity"]: row for row in table(catch_match.REFERENCES, found)}
    assert not any(name.startswith("mean regret of one run") for name in rows)
    assert all(row["verdict"] in ("agrees", "-") for row in rows.values())
    regret = data["distance"].sel(agent="stock").mean().item() - data["least 4 balls, stick 0.2"].mean().item()
    assert found["mean regret, stock, cut short at 40 iterations"].value == pytest.approx(regret)
    figure = catch_match.plot(data)
    assert len(figure.axes) == 4 and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()


def test_regrets_of_full_trainings():
    """Two seeds whose regrets are 0.01 and 0.05 at every target: mean 0.03, deviation 0.02 sqrt 2."""
    import xarray as xr

    least = np.arange(9.0)
    regret = np.array([[0.01, 0.05], [0.4, 0.44]])
    data = xr.Dataset(
        {
            "least 4 balls, stick 0.2": ("target_4", least),
            "distance": (("agent", "seed", "target_4"), least + regret[:, :, None]),
        },
        {"agent": ["stock", "stock frozen"], "target_4": np.arange(-4, 5)},
        {"num_steps": 6000},
    )
    found = catch_match.measured(data)
    assert found["mean regret, stock"].value == pytest.approx(0.03)
    assert found["mean regret, stock"].error == pytest.approx(2 * 0.02)
    assert found["mean regret of one run, stock"].error == pytest.approx(2 * 0.02 * np.sqrt(3))
    assert found["mean regret, stock, worst seed"].value == pytest.approx(0.05)
    rows = {row["quantity"]: row["verdict"] for row in table(catch_match.REFERENCES, found)}
    assert rows["mean regret of one run, stock"] == rows["mean regret of one run, stock frozen"] == "agrees"
    assert "mean regret of one run, stock not seen" not in rows
