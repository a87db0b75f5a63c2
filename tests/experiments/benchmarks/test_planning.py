"""The planning benchmark counts only right answers, and tells of every planner that gave none."""

import sys

import numpy as np
import pytest

from experiments.benchmarks import planning, planning_peers


@pytest.fixture(scope="module")
def small():
    instance = planning.random_instance(1, 30, 3, 2)
    return instance, planning.exact_values(instance)


def test_the_exact_values_solve_the_optimality_equation(small):
    instance, exact = small
    next_state, prob, reward, discount = (instance[k][0] for k in planning.KEYS)
    backed_up = (reward + discount * (prob * exact[0][next_state]).sum(-1)).max(-1)
    # the residual of values within 1e-8
    np.testing.assert_allclose(backed_up, exact[0], rtol=0, atol=2e-8)


@pytest.mark.parametrize("method", ["MPI", "VI prepared"])
def test_our_answer_is_within_the_tolerance(small, method):
    instance, exact = small
    value = planning_peers.rlcore(instance, planning.TOL)[method]()()
    assert np.abs(value - exact).max() <= planning.TOL


def test_a_wrong_answer_is_no_rival(small, tmp_path):
    _, exact = small
    rows = []
    for peer, seconds, shift in (("rlcore", 2.0, 0), ("right", 6.0, 0), ("wrong", 1.0, 3 * planning.TOL)):
        np.save(tmp_path / f"{peer}.npy", exact + shift)
        row = {"peer": peer, "version": "1", "method": "VI", "build_s": 0.0, "answer": str(tmp_path / f"{peer}.npy")}
        rows.append(row | {"first_s": seconds, "median_s": seconds, "min_s": seconds})
    rows.append({"peer": "absent", "method": "-", "error": "No module named 'absent'"})
    planning.judge(rows, exact)
    ours, right, wrong, _ = rows
    assert (ours["times_faster"], right["times_faster"]) == (3.0, 1.0)
    assert not wrong["counts"] and "times_faster" not in wrong
    text = planning.table("a case", rows)
    assert "answer outside the tolerance" in text and "No module named 'absent'" in text


def script(tmp_path, body):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("echo first >&2; echo 'ModuleNotFoundError: gone' >&2; exit 1", "ModuleNotFoundError: gone"),
        ("kill -9 $$", "ended with status -9"),  # out of memory: no last words
        ("exec sleep 60", "stopped at 1 s"),
    ],
)
def test_a_planner_that_dies_is_a_row(tmp_path, body, error):
    rows = planning.run_peer("mdpax", script(tmp_path, body), tmp_path / "none.npz", 0.1, 1.0)
    assert [row["error"] for row in rows] == [error]


def test_a_missing_peer_is_a_row(tmp_path, small):
    np.savez(tmp_path / "instance.npz", **small[0])
    blocked = f"exec {sys.executable} -c 'import sys; sys.modules[\"mdptoolbox\"] = None; '"
    blocked += '\'import runpy; sys.argv = sys.argv[2:]; runpy.run_module(sys.argv[0], run_name="__main__")\' "$@"'
    rows = planning.run_peer("pymdptoolbox", script(tmp_path, blocked), tmp_path / "instance.npz", 0.1, 60.0)
    assert len(rows) == 1 and "mdptoolbox" in rows[0]["error"]
