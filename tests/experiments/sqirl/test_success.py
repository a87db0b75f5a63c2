"""Success and correlation tables: statistics known by hand, a made-up data set, and the evaluation times."""

import itertools

import numpy as np
import pytest
import xarray as xr

from envs.effective_horizon import PILOT
from experiments.reference import table
from experiments.sqirl import success

INF = np.inf


def test_ranks_tie_at_infinity():
    x, y = np.array([1.0, 2.0, INF, INF]), np.array([10.0, 20.0, 30.0, INF])
    # Ranks 1, 2, 3.5, 3.5 against 1, 2, 3, 4: covariance 4.5 over sqrt(4.5 * 5).
    assert success.spearman(x, y) == pytest.approx(4.5 / np.sqrt(4.5 * 5), abs=1e-15)
    assert success.spearman(x, x) == pytest.approx(1, abs=1e-15)
    assert np.isnan(success.spearman(x, np.full(4, INF)))
    # Five pairs agree, one ties in x: tau-b = 5 / sqrt(5 * 6).
    assert success.kendall(x, y) == pytest.approx(5 / np.sqrt(30), abs=1e-15)


def test_ratios_and_thresholds():
    assert success.median_log_ratio(np.array([10.0, 1000.0, INF]), np.array([1.0, 1.0, 1.0])) == 2.0
    assert np.isnan(success.median_log_ratio(np.array([INF]), np.array([1.0])))
    solved = np.array([True, True, False, False])
    assert success.balanced_accuracy(np.array([1.0, 2.0, 3.0, INF]), solved) == 1.0
    # Best cut: at most 1, one of two solved and none of the others.
    assert success.balanced_accuracy(np.array([1.0, 3.0, 2.0, 4.0]), solved) == 0.75
    assert np.isnan(success.balanced_accuracy(np.ones(2), np.ones(2, bool)))


def test_the_bootstrap_holds_the_statistic_and_shrinks():
    x = np.arange(20.0)
    y = x + np.random.default_rng(0).normal(size=20) * 5
    low, high = success.interval(success.spearman, (x, y), 200)
    assert low < success.spearman(x, y) < high
    again = np.tile(x, 8), np.tile(y, 8)
    narrow = success.interval(success.spearman, again, 200)
    assert narrow[1] - narrow[0] < (high - low) / 2


def test_evaluation_times_are_even_on_a_log_scale():
    times = success.when(293, 20)
    assert times[0] == 1 and times[-1] == 293 and (np.diff(times) > 0).all() and len(times) <= 20
    late = times[times > 20]
    assert np.ptp(np.log(late[1:] / late[:-1])) < 0.1
    assert success.when(1, 20).tolist() == [1] and success.when(7, 1).tolist() == [7]


def made_up(learners):
    """A data set of the pilot's problems; learner i solves all but the last i problems of every five."""
    names = list(PILOT)
    size = len(names)
    rng = np.random.default_rng(1)
    steps = np.exp(rng.uniform(5, 12, size))
    first = np.stack([np.where(np.arange(size) % 5 < 5 - i, steps * (i + 1), INF) for i in range(len(learners))])
    data = {"first_success": (("learner", "problem"), first), "target": ("problem", np.ones(size))}
    for field in ("k95", "min_k", "solvable_k"):
        data[field] = ("problem", 1 + (np.arange(size) % 3 == 2))
    data["effective_horizon"] = ("problem", np.log(steps))
    for name in (n.lower() for n in learners if n != "SQIRL"):
        data[f"{name}_first"] = (("problem", "seed"), np.full((size, 2), 100.0))
        data[f"{name}_final"] = (("problem", "seed"), np.tile([1.0, 0.5], (size, 1)))
    return xr.Dataset(data, {"learner": list(learners), "problem": names}, {"resamples": 30, "max_k": 3})


def test_tables_and_figure_of_a_known_data_set():
    data = made_up(success.LEARNERS)
    numbers = success.measured(data)
    assert set(success.REFERENCES) <= set(numbers) and len(data["problem"]) == 29
    table(success.REFERENCES, numbers)
    # 29 problems: five whole fives and four of the last; the learners leave out none to three of each five.
    assert [numbers[f"problems solved by {n}"].value for n in success.LEARNERS] == [29, 24, 18, 12]
    assert numbers["share that SQIRL solves of those PPO solves"].value == pytest.approx(18 / 29)
    assert numbers["median log10 ratio, SQIRL and PPO"].value == pytest.approx(np.log10(3))
    assert numbers["runs of PPO that succeed and end below the target"].value == 29
    assert numbers["Spearman, effective horizon and PPO"].value == pytest.approx(1)
    figure = success.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()


def test_other_problems_are_not_compared_with_the_pilot():
    data = made_up(("PPO", "SQIRL")).isel(problem=slice(0, 7))
    numbers = success.measured(data)
    assert all(np.isnan(numbers[name].value) for name in success.REFERENCES)
    assert not any("DQN" in name and not np.isnan(x.value) for name, x in numbers.items())


def test_a_moment_of_training():
    config = success.Config(
        problems=("lock k=2", "lock k=3"),
        learners=("DQN", "SQIRL"),
        seeds=1,
        dqn_steps=2048,
        sqirl_steps=200,
        evaluations=2,
        max_k=2,
        resamples=5,
    )
    data = success.run(config)
    assert data["dqn_returns"].sizes["dqn_step"] == data["dqn_step"].size
    assert data["k95"].values.tolist() == [2, 3]
    # A fresh lock falls to depth 2 at once, and depth 1 never opens it.
    assert data["sqirl_depth"].values[0] >= 2 and np.isfinite(data["first_success"].sel(learner="SQIRL").values[0])
    best, random = data["optimal_return"].values, data["random_return"].values
    np.testing.assert_allclose(data["target"], random + 0.95 * (best - random), rtol=1e-14)
    assert all(np.isfinite(x) for x in itertools.chain(data["dqn_final"].values.ravel()))
