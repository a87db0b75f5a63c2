"""The experiment on gymnax, on a training of a moment; what is measured, on returns made by hand."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from experiments.distributional import gymnax_targets


def by_hand():
    """Two seeds of each game; returns 1, 2, 3, 4 from every start of CartPole, the target plus 0 or 1 in Breakout."""
    start = -np.array([0.0, 2.0, 4.0])
    cartpole = np.broadcast_to(np.arange(1.0, 5), (3, 2, 3, 4))
    # E min(c + G, 0) at level 1/4: 0; -1/4; -(3 + 2 + 1)/4. The second start is predicted right, the first too high
    predicted = np.broadcast_to([[0.5, -0.25, -1.5]], (3, 2, 3))
    goal = -np.array([0.0, 1.0])
    breakout = -goal[None, None, :, None] + np.array([0.0, 1.0])[None, :, None, None] * np.ones((2, 1, 2, 4))
    dims = lambda name: (f"agent_{name}", "seed", f"start_{name}")  # noqa: E731
    return xr.Dataset(
        {
            "predicted_CartPole": (dims("CartPole"), predicted),
            "returns_CartPole": ((*dims("CartPole"), "episode"), cartpole),
            "predicted_Breakout": (dims("Breakout"), np.full((2, 2, 2), -0.25)),
            "returns_Breakout": ((*dims("Breakout"), "episode"), breakout),
        },
        {
            "agent_CartPole": list(gymnax_targets.CARTPOLE), "start_CartPole": start,
            "agent_Breakout": list(gymnax_targets.BREAKOUT), "start_Breakout": goal,
        },
        {"limit": 5, "full": 1},
    )  # fmt: skip


def test_what_is_measured():
    data = by_hand()
    predicted, earned = gymnax_targets._cvar_curves(data)
    # the objective of returns 1 .. 4 at level 1/4: at -c = 0, 2, 4: 0, 2 - 1, 4 - 6
    np.testing.assert_allclose(earned.isel(agent_CartPole=0, seed=0), [0, 1, -2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(predicted.isel(agent_CartPole=0, seed=0), [2, 1, -2], rtol=0, atol=1e-12)
    assert list(predicted["agent_CartPole"].values) == ["CVaR", "CVaR, stock frozen"]
    found = gymnax_targets.measured(data)
    assert found["CartPole, CVaR: CVaR 0.25 predicted"].value == pytest.approx(2)
    assert found["CartPole, CVaR: CVaR 0.25 earned"].value == pytest.approx(1)
    assert found["CartPole, mean: mean earned"].value == pytest.approx(2.5)
    name = "Breakout, stock: mean of E|G - g| over targets, "
    assert found[name + "predicted"].value == pytest.approx(0.25)
    # one seed hits, the other is off by 1: mean 1/2, two standard errors 2 sqrt(1/2) / sqrt 2
    assert found[name + "earned"].value == pytest.approx(0.5) and found[name + "earned"].error == pytest.approx(1)
    assert found["Breakout, stock: E|G - g|, g = 1"].value == pytest.approx(0.5)
    figure = gymnax_targets.plot(data)
    assert len(figure.axes) == 4 and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()


@pytest.mark.slow
def test_a_moment_of_training():
    tiny = gymnax_targets.Config(("CartPole", "Breakout"), 1, 20, 20, 4, 64, 8, 10, 8, 12, 2)
    data = gymnax_targets.run(tiny)
    assert data["returns_CartPole"].sizes == {"agent_CartPole": 3, "seed": 1, "start_CartPole": 21, "episode": 8}
    # a pole stands for some steps at least, and 12 at most
    returns = data["returns_CartPole"].values
    assert np.all((returns >= 5) & (returns <= 12) & (returns == np.rint(returns)))
    assert np.all(data["returns_Breakout"].values >= 0)
    # nothing predicted is a gain where only losses count
    assert data["predicted_Breakout"].values.max() <= 0
    gymnax_targets.plot(data).canvas.draw()


def test_agents():
    config = gymnax_targets.QUICK
    agent, frozen = (gymnax_targets.agent_of(config, "CartPole", x) for x in (False, True))
    assert frozen == dataclasses.replace(agent, frozen=True) and agent.num_steps == config.num_steps
    assert gymnax_targets.agent_of(config, "Breakout", False).network.channels == (16,)
    starts = gymnax_targets.starts_of(config, "CartPole")
    assert starts[0] == 0 and starts[-1] == -config.limit
    np.testing.assert_array_equal(gymnax_targets.starts_of(config, "Breakout"), -np.arange(7.0))
