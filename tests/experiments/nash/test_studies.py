"""The other studies of preference games on tiny settings: labels, values known otherwise, and figures that draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs.text
from envs.preferences import roshambo as roshambo_table
from experiments.nash import deep_text, egpo_sampled, learned_judge, perturbed_rps, phase_diagram, roshambo
from experiments.reference import table
from rlcore.nash import EGPO, bradley_terry, critical_step_size, equilibrium, lottery
from rlcore.nn.transformer import Transformer
from rlcore.solver import iterate


def drawn(module, data, panels):
    """The figure has its panels, each with an x label or under one, and every reference is measured."""
    figure = module.plot(data)
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert len(axes) == panels and any(axis.get_ylabel() for axis in axes)
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    table(module.REFERENCES, numbers)
    return figure


def test_sampled_simulations(monkeypatch):
    monkeypatch.setattr(egpo_sampled, "ALGORITHMS", ("Nash-MD-PG", "EGPO"))
    data = egpo_sampled.run(egpo_sampled.Config(num_games=2, num_steps=6, samples=4, num_rows=3))
    assert dict(data.sizes) == {"algorithm": 2, "gradient": 2, "game": 2, "step": 3}
    assert np.all(np.isfinite(data["gap"])) and np.all(data["gap"] > 0)
    first, last = data["gap"].isel(step=0), data["gap"].isel(step=-1)
    assert np.all(first == first.isel(algorithm=0, gradient=0))  # one start for all
    assert np.all(last.sel(gradient="sampled") != last.sel(gradient="exact"))
    drawn(egpo_sampled, data, 2)


def test_perturbed_rock_paper_scissors():
    data = perturbed_rps.run(perturbed_rps.Config(num_steps=2_000, num_rows=5))
    assert set(data["policy"].dims) == {"temperature", "action"}
    # the slowest factor per step is 1 / (1 + tau^2): at tau = 0.5 2000 steps reach rounding
    np.testing.assert_allclose(data["policy"].sel(temperature=0.5), perturbed_rps.GOLDEN[0.5], rtol=0, atol=5e-9)
    np.testing.assert_allclose(data["policy"].sum("action"), 1, rtol=1e-14)
    drawn(perturbed_rps, data, 2)


def test_phase_diagram(monkeypatch):
    monkeypatch.setattr(phase_diagram, "ALGORITHMS", ("EGPO", "OMD, sampled"))
    config = phase_diagram.Config(points=3, num_steps=20, labels=2, games=("RPS",))
    data = phase_diagram.run(config)
    assert dict(data.sizes) == {"algorithm": 2, "game": 1, "step_size": 3, "temperature": 3}
    admissible = data["step_size"] * data["temperature"] <= 1
    assert np.all(np.isfinite(data["log_gap"]) == admissible)
    step, tau = data["step_size"].values[1], data["temperature"].values[0]
    game, start = phase_diagram.make_game("RPS", jnp.asarray(tau))
    state = iterate(EGPO(step), game, 20, state=EGPO(step).start(start))[0]
    here = data.sel(game="RPS").isel(temperature=0)
    # 20 steps, each rounded a few dozen times
    np.testing.assert_allclose(
        here["log_gap"].sel(algorithm="EGPO").isel(step_size=1), jnp.log10(game.gap(state.log_policy)), rtol=1e-9
    )
    star = equilibrium(*game).value
    np.testing.assert_allclose(here["critical"], critical_step_size(game, star), rtol=1e-12)
    drawn(phase_diagram, data, 2)


def test_roshambo():
    data = roshambo.run(roshambo.Config(num_temperatures=3, num_resamples=2))
    assert data.sizes["bot"] == 43 and data.sizes["resample"] == 2
    np.testing.assert_allclose(data["policy"].sum("bot"), 1, rtol=1e-12)
    np.testing.assert_allclose(data["lottery"], lottery(roshambo_table()), rtol=0, atol=1e-15)
    cycle = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])
    assert roshambo.three_cycles(cycle) == 1 and roshambo.three_cycles(cycle, 0.2) == 0
    assert roshambo.three_cycles(np.array([[0.5, 0.9, 0.7], [0.1, 0.5, 0.6], [0.3, 0.4, 0.5]])) == 0
    drawn(roshambo, data, 4)


def test_deep_text(monkeypatch):
    small = envs.text.bigram_text(0, vocabulary=3, length=2)
    monkeypatch.setattr(deep_text, "bigram_text", lambda seed: small)
    monkeypatch.setattr(deep_text, "Transformer", lambda *shape: Transformer(3, 2, width=4, heads=1))
    data = deep_text.run(deep_text.Config(num_seeds=2, num_steps=2, every=1, methods=("Online IPO 2",)))
    assert dict(data.sizes) == {"algorithm": 1, "seed": 2, "step": 3, "mixture": 6}
    game = small.game()
    # every seed starts at the reference; float32 gaps are good to 1e-6
    start = float(game.gap(game.reference_logits))
    np.testing.assert_allclose(data["gap"].isel(step=0), start, rtol=0, atol=4e-6)
    # c = 0 stops at the equilibrium, c = 1 at the best response to the reference
    assert data["stationary_gap"].sel(mixture=0) < 1e-15
    reply = game.best_response(game.reference_logits)
    np.testing.assert_allclose(data["stationary_gap"].sel(mixture=1), game.gap(reply), rtol=1e-12)
    # RLHF's policy answers itself even, and maximises its own reward less the divergence
    rival = deep_text.reward_policy(game)
    rewards = bradley_terry(game.preference).value
    np.testing.assert_allclose(jnp.exp(rival), jax.nn.softmax(game.reference_logits + rewards / 0.2), rtol=1e-12)
    assert np.all((data["win_rlhf"] > 0) & (data["win_rlhf"] < 1)) and 0 < data["star_win_rlhf"] < 1
    drawn(deep_text, data, 2)
    assert jax.config.jax_enable_x64


def test_learned_judge(monkeypatch):
    small = envs.text.bigram_text(0, vocabulary=3, length=2)
    monkeypatch.setattr(learned_judge, "bigram_text", lambda seed: small)
    monkeypatch.setattr(learned_judge, "VOCABULARY", 3)
    monkeypatch.setattr(learned_judge, "LENGTH", 2)
    monkeypatch.setattr(learned_judge, "Transformer", lambda *shape: Transformer(3, 2, width=4, heads=1))
    counts = learned_judge.bigram_counts()
    # every response of two tokens has a start and one bigram; no two have the same counts
    assert np.all(counts.sum(axis=1) == 2) and len(np.unique(counts, axis=0)) == 9
    config = learned_judge.Config(num_pairs=(20, 2_000), num_seeds=1, num_steps=2, models=("Bradley-Terry",))
    data = learned_judge.run(config)
    assert dict(data.sizes) == {"judge": 1, "pairs": 2, "seed": 1}
    # a loss above the truth's is a divergence, so not negative but for float32 sums over 50 000 votes; more votes help
    loss = data["excess_loss"].values.ravel()
    assert loss[1] > -1e-4 and loss[1] < loss[0]
    assert np.all(data["judge_gap"] >= 0) and np.all(np.isfinite(data["trained_gap"]))
    drawn(learned_judge, data, 2)


@pytest.mark.parametrize("module", [deep_text, egpo_sampled, learned_judge, perturbed_rps, phase_diagram, roshambo])
def test_what_has_no_published_reference_says_so(module):
    assert "(a study)" in module.TITLE
    assert not any(reference.kind.startswith("published") for reference in module.REFERENCES.values())
