"""Figure 2: the loops compute what the library does, searches fall short and never go beyond, the figure draws."""

import jax
import numpy as np
import pytest
import xarray as xr

from envs.put_option import HORIZON, hat_features, sample_prices
from experiments.benchmarks import robust_loops
from experiments.robust import timing

COUNT, FACTORS = 60, 12
# Values up to 20 through up to 20 regressions with condition numbers up to COUNT / RIDGE, times 10.
TOL = 10 * np.finfo(float).eps * 20 * 20 * COUNT


@pytest.fixture(scope="module")
def runs():
    """{learner: (ours, the loops on our values of the next step, the loops alone)}, weights float[H, d]."""
    features = hat_features(FACTORS)
    data = sample_prices(jax.random.key(1), COUNT)
    given, found = robust_loops.paths(data, features), {}
    for name in timing.LEARNERS:
        learn = robust_loops.library(name, features)
        ours = np.asarray(jax.jit(lambda data: learn(data).weights)(data))
        found[name] = (ours, *(robust_loops.train(name, given, start=start) for start in (ours, None)))
    return found


@pytest.mark.parametrize("name", [name for name in timing.LEARNERS if name not in robust_loops.SEARCHED])
def test_loops_without_a_search_are_the_library(runs, name):
    ours, step, whole = runs[name]
    assert ours.shape == (HORIZON, FACTORS) and np.ptp(ours) > 1
    np.testing.assert_allclose(step, ours, atol=TOL)
    np.testing.assert_allclose(whole, ours, atol=TOL)


@pytest.mark.parametrize("name", robust_loops.SEARCHED)
def test_a_search_is_never_above_the_maximum_and_sometimes_short(runs, name):
    ours, step, _ = runs[name]
    gap = ours - step
    assert gap.min() >= -TOL
    # Most coordinates are found: it is the same problem.
    assert np.median(gap) < timing.MISSED
    if name == "DRPVI":
        assert np.mean(gap > timing.MISSED) > 0.005


def test_every_reference_is_measured_and_the_figure_draws():
    rng = np.random.default_rng(0)
    settings = [(100, 30), (1000, 30), (1000, 60)]
    shape = (len(timing.CODES), len(timing.LEARNERS), len(settings))
    seconds = rng.random(shape) + 0.1
    seconds[1:, list(timing.LEARNERS).index("DRPVI"), 1:] = np.nan  # too slow for the loops
    gap = np.zeros((len(timing.LEARNERS), 2, 2, HORIZON, 30))
    gap[list(timing.LEARNERS).index("DRPVI"), 0, 0, 3, :15] = 0.2
    data = xr.Dataset(
        {
            "seconds": (("code", "learner", "setting"), seconds),
            "least_seconds": (("code", "learner", "setting"), seconds / 2),
            "compile_seconds": (("learner", "setting"), rng.random(shape[1:])),
            "gap": (("learner", "dataset", "run", "step", "factor"), gap),
        },
        {
            "code": list(timing.CODES), "learner": list(timing.LEARNERS), "run": ["same problems", "whole runs"],
            "trajectories": ("setting", [n for n, _ in settings]), "factors": ("setting", [d for _, d in settings]),
        },
        {"compared": 100, "trajectories_at": 1000},
    )  # fmt: skip
    found = timing.measured(data)
    assert set(timing.REFERENCES) <= set(found)
    # 15 coordinates of 19 steps by 30, on one data set of two
    assert found[timing.SHARE].value == pytest.approx(15 / 570 / 2)
    ratio = timing.ratios(data)
    learner = {name: i for i, name in enumerate(timing.LEARNERS)}
    expected = seconds[0, learner["DRPVI"], 1] / seconds[0, learner["R2PVI-TV"], 1]
    assert ratio["library"][0] == 1000 and ratio["library"][1].value == pytest.approx(expected)
    assert ratio["loops"][0] == 100  # the largest where both ran
    figure = timing.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()
