"""The benchmark of preference games compares like with like: the answers agree, and wrong ones do not count."""

import argparse
import sys

import jax
import numpy as np
import pytest

from experiments.benchmarks import nash, nash_peers
from rlcore.nash import preference_game


@pytest.fixture(scope="module")
def updates():
    instance = nash.make_instance("updates", (2, 12, 8))
    return instance, {name: prepare()[0]() for name, prepare in nash_peers.numpy_updates(instance).items()}


def test_the_games_are_games():
    instance = nash.random_games(5, 4, 1e-3, 2.0)
    game = preference_game(instance["preference"], instance["reference"], instance["temperature"])
    # normalised twice: rounding of log-probabilities below 10 nats
    np.testing.assert_allclose(game.reference_logits, instance["reference"], rtol=0, atol=1e-14)
    assert np.all((instance["temperature"] >= 1e-3) & (instance["temperature"] <= 2))
    assert len(np.unique(instance["preference"])) > 5 * 6


@pytest.mark.parametrize("algorithm", ["Online IPO 2", "EGPO"])
def test_numpy_and_this_library_take_the_same_steps(updates, algorithm):
    instance, found = updates
    solve, units = nash_peers.rlcore_updates(instance)[algorithm]()
    ours = np.asarray(solve())
    assert ours.shape == (3, 2, 13) and units == 3 * 2 * 12
    # 8 updates round logits below 1e3 nats by 1e-13 each
    np.testing.assert_allclose(ours[..., :9], found[algorithm], rtol=0, atol=1e-11)
    assert np.max(np.abs(ours[..., 8] - ours[..., 0])) > 1e-3  # they moved


def test_the_steps_in_numpy_are_those_of_the_library(updates):
    """One game, one step at a time, without a compiled loop."""
    from experiments.nash.egpo_simulations import make_solver

    instance, found = updates
    tau, rate = float(instance["temperature"][2]), float(instance["rate"][2])
    game = preference_game(instance["preference"][1], instance["reference"][1], tau)
    for algorithm in nash_peers.ALGORITHMS:
        solver = make_solver(algorithm, tau, rate)
        state = solver.step(game, solver.init(game, None), None)
        # a gap below 1, after one rounded step
        np.testing.assert_allclose(game.gap(state.log_policy), found[algorithm][2, 1, 1], rtol=0, atol=1e-14)


def test_pytorch_descends_the_losses_of_the_same_steps(updates):
    pytest.importorskip("torch")
    instance, found = updates
    for algorithm, prepare in nash_peers.pytorch_updates(instance).items():
        np.testing.assert_allclose(prepare()[0](), found[algorithm][:, :1], rtol=0, atol=1e-11)  # as above


def test_equilibria_agree_and_gaps_are_the_library_s():
    instance = nash.make_instance("equilibria", (6, 5, 6, 1e-2, 2.0))
    ours = nash_peers.rlcore_equilibria(instance)["vmap"]()[0]()
    loop, batch = (prepare()[0]() for prepare in nash_peers.numpy_equilibria(instance).values())
    root = nash_peers.scipy_equilibria(instance)["root, hybr"]()[0]()
    for other in (loop, batch, root):
        # residuals of 1e-12 (1 + largest log-ratio), amplified by at most 1 + 1 / (2 tau)
        np.testing.assert_allclose(np.exp(other), np.exp(ours), rtol=0, atol=1e-9)
        assert np.all(nash.gaps(instance, other) < nash.SOLVED)
    reference = instance["reference"]
    games = preference_game(instance["preference"], reference, instance["temperature"])
    expected = jax.vmap(lambda game: game.gap(game.reference_logits))(games)
    np.testing.assert_allclose(nash.gaps(instance, reference), expected, rtol=1e-12)


def test_a_wrong_answer_is_no_rival(updates, tmp_path):
    instance, found = updates
    right, rows = found["EGPO"], []
    for number, (name, shift, seconds) in enumerate((("rlcore", 0, 1.0), ("right", 0, 6.0), ("wrong", 1e-8, 2.0))):
        path = tmp_path / f"{number}.npy"
        np.save(path, right + shift)
        rows.append({"peer": name, "method": "EGPO", "median_s": seconds, "compile_s": 0.0, "units": 2})
        rows[-1]["answer"] = str(path)
    rows.append({"peer": "absent", "method": "-", "error": "No module named 'absent'"})
    nash.judge("updates", rows, instance)
    assert rows[1]["ratio"] == 6.0 and not rows[2]["counts"] and "ratio" not in rows[2]
    text = nash.table("a case", "updates", rows)
    assert "OUTSIDE THE TOLERANCE" in text and "No module named 'absent'" in text


def test_a_missing_peer_is_a_row_of_a_real_run(tmp_path):
    blocked = tmp_path / "python"
    code = "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[2:]; "
    code += "runpy.run_module(sys.argv[0], run_name='__main__')"
    blocked.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    blocked.chmod(0o755)
    options = argparse.Namespace(peers=["PyTorch", "NumPy"], peer_python=str(blocked), quick=True, limit=60.0)
    rows = nash.run_case("updates", (2, 4, 4), options, tmp_path)
    assert "torch" in rows[0]["error"] and [row["method"] for row in rows[1:]] == list(nash_peers.ALGORITHMS)
