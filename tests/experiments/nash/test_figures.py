"""The two Nash experiments on tiny settings: labels, exact values at known points, and figures that draw."""

import dataclasses

import jax
import numpy as np

from experiments.nash import egpo_simulations, rates
from rlcore.nash import equilibrium, kl
from rlcore.solver import iterate


def test_rates_obey_the_bounds_that_the_figure_draws():
    config = rates.Config(num_games=3, num_actions=4, temperatures=(0.1, 0.3), num_steps=200, num_rows=12)
    data = rates.run(config)
    assert dict(data.sizes) == {"game": 3, "temperature": 2, "algorithm": 3, "step": len(data["step"])}
    tau, time = data["temperature"], data["step"]
    floor = data["floor"].max("algorithm")
    assert (data["kl"].sel(algorithm="Nash-MD") <= 0.5 / (tau**2 * (time + 1)) + floor).all()
    assert (
        data["kl"].sel(algorithm="OMD") <= data["kl_start"] * (1 + 4 * tau**2) ** (-time.astype(float)) + floor
    ).all()
    assert (data["kl"].sel(algorithm="EGPO") <= data["kl_start"] * (1 + 2 * tau) ** (-time.astype(float)) + floor).all()
    figure = rates.plot(data)
    assert len(figure.axes) == 2 and figure.axes[0].get_ylabel().endswith("[nats]")
    for axis in figure.axes:
        (reference,) = [line for line in axis.get_lines() if str(line.get_label()).startswith("slope -2.00")]
        x, y = np.log(reference.get_xdata()), np.log(reference.get_ydata())
        np.testing.assert_allclose(np.diff(y) / np.diff(x), rates.REFERENCES[rates.SLOPE].value, rtol=1e-9)


def test_one_cell_of_the_rates_is_what_the_library_computes():
    config = rates.Config(num_games=2, num_actions=4, temperatures=(0.2,), num_steps=50, num_rows=4)
    data = rates.run(config)
    game, start = rates.random_game(jax.random.key(1), 4, temperature=0.2)
    star = equilibrium(*game).value
    solver = rates.make_solver("EGPO", game)
    state, _ = iterate(solver, game, 50, state=solver.start(start))
    ours = data["kl"].sel(game=1, temperature=0.2, algorithm="EGPO", step=50).item()
    # 50 contracting steps, each rounding logits of size below 20 once: far below this.
    np.testing.assert_allclose(ours, kl(star, state.log_policy), rtol=1e-6, atol=1e-25)


def test_simulations_start_at_the_reference_and_know_their_critical_step(monkeypatch):
    shorter = tuple((tau, min(updates, 300), rate) for tau, updates, rate in egpo_simulations.SETTINGS)
    monkeypatch.setattr(egpo_simulations, "SETTINGS", shorter)
    data = egpo_simulations.run(egpo_simulations.Config(num_games=3, num_rows=4))
    assert dict(data.sizes) == {"setting": 3, "algorithm": 6, "game": 3, "fraction": 4}
    for i, (tau, _, _) in enumerate(shorter):
        game = egpo_simulations.random_simulation_game(jax.random.fold_in(jax.random.key(0), 2), tau)
        first = data["gap"].sel(setting=i, game=2).isel(fraction=0)
        # One vmapped mat-vec instead of another: a few units of rounding of a gap below 2.
        np.testing.assert_allclose(first, float(game.gap(game.reference_logits)), rtol=1e-10)
    assert (data["equilibrium_gap"] < 1e-15).all()
    assert (
        data["gap"].sel(algorithm="EGPO").isel(fraction=-1) < data["gap"].sel(algorithm="EGPO").isel(fraction=0)
    ).all()
    numbers = egpo_simulations.measured(data)
    assert set(egpo_simulations.REFERENCES) <= set(numbers)
    figure = egpo_simulations.plot(data)
    assert len(figure.axes) == 4 and all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    title = figure.axes[3].get_title()
    assert "(prototype 32%)" in title and "(prototype 33%)" in title


def test_the_full_settings_are_those_of_the_released_code():
    assert egpo_simulations.SETTINGS == ((0.001, 100_000, 2e-4), (0.01, 5_000, 0.02), (0.1, 1_000, 0.1))
    assert dataclasses.asdict(egpo_simulations.QUICK)["num_games"] == 10
