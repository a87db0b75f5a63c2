"""The benchmark of switching bandits compares like with like: the peers are right, and wrong answers do not count."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import lsd, lsd_peers
from rlcore.lsd import SwitchingBandit, relaxation


def test_highs_solves_the_programme_of_the_relaxation():
    instance = lsd.make_instance("relaxation", (3, 4, 3, 2, 3))
    assert np.all(np.diff(instance["payoffs"], axis=-1) >= 0)
    exact = [relaxation(SwitchingBandit(jnp.asarray(table), 2)).value for table in instance["payoffs"]]
    for prepare in lsd_peers.scipy_relaxation(instance).values():
        (solve, _), units = prepare()
        assert units == 3
        np.testing.assert_allclose(solve(), exact, rtol=0, atol=1e-12)  # some 70 terms below 1
    assert not lsd_peers.scipy_relaxation(instance | {"few": np.array(0)})


def test_numpy_runs_the_schedule():
    def simulated(payoffs, low, replicas):
        instance = {"payoffs": payoffs, "satiation": np.array(low), "rounds": np.array(120), "few": np.array(replicas)}
        ((solve, _), units) = lsd_peers.numpy_simulation(instance)["loop over rounds"]()
        assert units == 120 * replicas
        return solve()

    # one arm meets nobody: at most a cycle's start and end are missed
    table = np.sort(np.random.default_rng(1).random((1, 6)), axis=1)
    value = float(relaxation(SwitchingBandit(jnp.asarray(table), 2)).value)
    np.testing.assert_allclose(simulated(table, 2, 50), value, rtol=0, atol=6 / 120)
    # three arms that each pay every third round: offsets are taken for ever, distinct ones earn
    found = simulated(np.tile([[0.0, 0.0, 1.0]], (3, 1)), 1, 4000)
    error = found.std() / np.sqrt(4000)
    assert abs(found.mean() - (1 - (2 / 3) ** 3)) <= 5 * error + 3 / 120


def rows_of(tmp_path, answers):
    rows = []
    for number, (peer, answer) in enumerate(answers):
        place = tmp_path / f"{number}.npy"
        np.save(place, np.asarray(answer))
        rows.append({"peer": peer, "version": "1", "method": "x", "answer": str(place), "median_s": 1.0 + number})
        rows[-1] |= {"units": len(answer), "processor_s": 1.0, "compile_s": 0.0, "bytes": None, "peak": 2**30}
    return [*rows, {"peer": "absent", "method": "-", "error": "stopped at 1 s"}]


def test_a_wrong_value_is_no_rival(tmp_path):
    right = np.array([0.1, 0.2, 0.3])
    answers = [("rlcore", right), ("SciPy", right[:2] + 1e-11), ("SciPy", right + 1e-8), ("SciPy", [0.1, np.nan])]
    rows = rows_of(tmp_path, answers)
    lsd.judge("relaxation", rows)
    assert [row.get("counts") for row in rows] == [True, True, False, False, None]
    assert rows[1]["ratio"] == pytest.approx(3)  # 2 s for 2 units against 1 s for 3
    text = lsd.table("a case", rows)
    assert text.count("DOES NOT COUNT") == 2 and "stopped at 1 s" in text


def test_means_must_agree_and_bounds_be_tight(tmp_path):
    noise = np.random.default_rng(0).random(1000)
    rows = rows_of(tmp_path, [("rlcore", noise), ("NumPy", noise[::-1] + 0.01), ("NumPy", noise + 0.1)])
    lsd.judge("simulation", rows)
    assert [row.get("counts") for row in rows] == [True, True, False, None]
    rows = rows_of(tmp_path, [("rlcore", [0.5, 0.5 + 1e-10]), ("rlcore", [0.5, 0.5 + 1e-6]), ("rlcore", [0.6, 0.5])])
    lsd.judge("exact", rows)
    assert [row.get("counts") for row in rows] == [True, False, False, None]
    assert "bounds 1e-10 apart" in lsd.table("a case", rows)


def test_what_was_asked_is_met_or_not(tmp_path):
    case = "relaxation, 10 000 problems of 16 arms"
    right = np.array([0.1, 0.2, 0.3])
    rows = rows_of(tmp_path, [("rlcore", right), ("SciPy", right[:2]), ("SciPy", [0.5])])
    rows[1]["median_s"] = 50.0  # 25 s a problem against a third of one
    lsd.judge("relaxation", rows)
    told = lsd.reached(case, rows)
    assert told[0].endswith(": 1, asked below 3: met") and told[1].endswith(": 75, asked at least 30: met")
    rows[0]["median_s"] = 3.0
    assert lsd.reached(case, rows)[0].endswith(": 3, asked below 3: NOT MET")
    assert lsd.reached("relaxation, 10 000 arms", rows)[1] == "- peak GiB: 1, asked below 2: met"
    rows[0]["peak"] = 2**31
    assert lsd.reached("relaxation, 10 000 arms", rows)[1].endswith(": 2, asked below 2: NOT MET")
    # Answers that do not count, and solvers that did not run, meet nothing.
    rows[0]["counts"] = False
    assert [line.endswith("NOT MET") for line in lsd.reached(case, rows)] == [True, True]
    assert lsd.reached("a quick case", rows) == []
    assert "NOT MET" in lsd.table(case, rows) and set(lsd.ASKED) == set(lsd.CASES)
