"""The benchmark of the effective horizon: its peer computes the same ladder, and wrong answers do not count."""

import numpy as np
import pytest

from experiments.benchmarks import sqirl, sqirl_peers


def test_numpy_climbs_the_same_ladder():
    instance = sqirl.make_instance("analysis", (5, 6))
    answers = []
    for build in (sqirl_peers.rlcore_analysis, sqirl_peers.numpy_analysis):
        ((prepare,),) = (build(instance).values(),)
        (solve, _), units = prepare()
        assert units == 1
        answers.append(np.asarray(solve()))
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=sqirl.TOL)
    # Golden values of the sticky room: optimal 1, random .7258, and one step of lookahead is enough.
    assert answers[0][0] == pytest.approx(1, abs=1e-12) and answers[0][1] == pytest.approx(0.7258, abs=5e-5)
    assert answers[0][2] == pytest.approx(1, abs=1e-12) and len(answers[0]) == 8


def test_instances_are_plain_arrays():
    instance = sqirl.make_instance("ppo", (("lock k=2", "corridor-5 T10"), "corridor-5 T10", 1024, 1, 512))
    assert instance["random"] == pytest.approx(0.2852, abs=5e-5) and instance["best"] == pytest.approx(1)
    assert all(np.asarray(x).dtype != object for x in instance.values())
    assert instance["prob"].shape == instance["reward"].shape == instance["terminal"].shape
    assert set(sqirl.make_instance("sqirl", (("lock k=2",), "lock k=2", 10, 1, 0))) >= {"problems", "steps", "seeds"}


def test_both_learners_of_this_library_run():
    names = ("lock k=2", "corridor-5 T10")
    instance = sqirl.make_instance("ppo", (names, names[1], 1024, 2, 512))
    ways = sqirl_peers.rlcore_ppo(instance)
    assert len(ways) == 2
    (train, _), units = ways["2 x 2, one exact evaluation"]()
    returns = train()
    assert units == 4 * 1024 and returns.shape == (2,) and (returns <= 1 + 1e-12).all()
    instance = sqirl.make_instance("sqirl", (names, names[1], 800, 1, 0))
    ((prepare,),) = (sqirl_peers.rlcore_sqirl(instance).values(),)
    (search, _), units = prepare()
    assert units == 2 and np.isfinite(search()).all()


def rows_of(tmp_path, answers):
    rows = []
    for number, (peer, answer) in enumerate(answers):
        place = tmp_path / f"{number}.npy"
        np.save(place, np.asarray(answer, float))
        rows.append({"peer": peer, "version": "1", "method": "x", "answer": str(place), "median_s": 1.0 + number})
        rows[-1] |= {"units": 10, "processor_s": 1.0, "compile_s": 0.5, "bytes": None, "peak": 2**30}
    return [*rows, {"peer": "absent", "method": "-", "error": "No module named 'stable_baselines3'"}]


def test_what_differs_or_did_not_learn_does_not_count(tmp_path):
    right = np.array([1.0, 0.2, 0.5])
    answers = [("rlcore", right), ("NumPy", right + 1e-12), ("NumPy", right + 1e-9), ("NumPy", [1.0, np.nan, 0.5])]
    rows = rows_of(tmp_path, answers)
    sqirl.judge("analysis", rows, {})
    assert [row.get("counts") for row in rows] == [True, True, False, False, None]
    told = sqirl.table("a case", rows)
    assert told.count("DOES NOT COUNT") == 2 and "No module named" in told
    instance = {"best": np.array(1.0), "random": np.array(0.3)}
    answers = [("rlcore", [1.0, 0.2, 1.0]), ("Stable-Baselines3", [0.9]), ("Stable-Baselines3", [0.3])]
    rows = rows_of(tmp_path, [*answers, ("Stable-Baselines3", [1.1])])
    sqirl.judge("ppo", rows, instance)
    assert [row.get("counts") for row in rows] == [True, True, False, False, None]
    rows = rows_of(tmp_path, [("rlcore", [10.0, np.inf]), ("rlcore", [np.inf, np.inf])])
    sqirl.judge("sqirl", rows, {})
    assert [(row.get("solved"), row.get("counts")) for row in rows] == [(1, True), (0, False), (None, None)]


def test_what_was_asked_is_met_or_not(tmp_path):
    case = "PPO, 29 problems"
    rows = rows_of(tmp_path, [("rlcore", [1.0]), ("Stable-Baselines3", [1.0]), ("Stable-Baselines3", [0.0])])
    rows[1]["median_s"] = 40.0
    sqirl.judge("ppo", rows, {"best": np.array(1.0), "random": np.array(0.3)})
    told = sqirl.reached(case, rows)
    assert told[0].endswith(": 1.5, asked below 240: met") and told[1].endswith(": 40, asked at least 30: met")
    rows[1]["counts"] = False
    assert sqirl.reached(case, rows)[1].endswith("NOT MET")
    assert sqirl.reached("a quick case", rows) == [] and set(sqirl.ASKED) == set(sqirl.CASES)
