"""The neural simulations on tiny settings: labels, starts at the references, one game alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.nash import egpo_neural
from rlcore.nash import PreferenceGame, observe_gaps
from rlcore.solver import iterate


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(egpo_neural, "NUM_ACTIONS", 6)
    monkeypatch.setattr(egpo_neural, "NUM_GAMES", 2)
    return egpo_neural.Config(2, 20, 10, samples=3, num_rows=3, algorithms=("EGPO",))


def test_labels_starts_and_figure(small):
    data = egpo_neural.run(small)
    assert dict(data.sizes) == {"algorithm": 1, "panel": 3, "seed": 2, "game": 2, "fraction": 3}
    assert np.all(np.isfinite(data["gap"])) and np.all(data["gap"] > 0)
    first = data["gap"].isel(fraction=0)
    for seed in range(2):
        preference, params = egpo_neural.make_games(seed)
        policies = jax.nn.log_softmax(egpo_neural.make_network(2).apply(params), axis=-1)
        games = PreferenceGame(preference, policies, jnp.full(2, 0.01))
        expected = jax.vmap(PreferenceGame.gap)(games, policies)
        for panel in egpo_neural.PANELS[:2]:
            # rounding of logits of size 1 over a temperature of 0.01
            np.testing.assert_allclose(first.sel(seed=seed, panel=panel, algorithm="EGPO"), expected, rtol=1e-11)
    last = data["gap"].isel(fraction=-1)
    assert not np.allclose(last.sel(panel="exact, shared layers"), last.sel(panel="exact, own layers"))
    # the second game alone, with the layers to itself
    solver = egpo_neural.make_solver("EGPO", egpo_neural.make_network(1), 0.003, 0.01, None)
    state = solver.start(egpo_neural.own_params(params, 1))
    game = PreferenceGame(preference[1:], state.log_policy, jnp.full(1, 0.01))
    alone = observe_gaps(game, iterate(solver, game, 20, state=state)[0])[0]
    np.testing.assert_allclose(last.sel(seed=1, game=1, panel="exact, own layers"), alone, rtol=1e-9)
    assert set(egpo_neural.REFERENCES) <= set(egpo_neural.measured(data))
    figure = egpo_neural.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() for axis in figure.axes)


def test_the_full_settings_are_those_of_the_released_code():
    assert egpo_neural.SETTINGS == {"exact": (0.01, 0.003), "sampled": (0.1, 0.001)}
    assert (egpo_neural.NUM_ACTIONS, egpo_neural.NUM_GAMES, egpo_neural.WIDTH, egpo_neural.HIDDEN) == (100, 10, 10, 2)
    config = egpo_neural.Config()
    assert (config.exact_steps, config.sampled_steps, config.samples) == (10_000, 20_000, 100)
