"""D-eta-N on Catch-match: one agent for all targets, against the exact optimum of each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.catch_match_game import catch_match_game
from rlcore.distributional import two_slope
from rlcore.distributional.din import DEtaN, play, train
from rlcore.nn.quantile import QuantileNetwork

TARGET = two_slope(-1.0, 1.0)
# Exact least mean distances from the targets -4, ..., 4 (tests/envs/test_catch_match_game.py).
OPTIMA = np.array([0.002560, 1.000001, 0.001290, 1.000001, 0.001413, 1.000206, 0.024327, 1.023792, 0.484676])
PUBLISHED = DEtaN(QuantileNetwork(3), window=4.0)


def regrets(config, seeds, episodes):
    """Mean distance from each target less the least possible: [seed, target]."""
    game, targets = catch_match_game(), jnp.arange(-4.0, 5.0)

    def one(key):
        state, totals = train(key, game, TARGET, config, -targets)
        episode = lambda c, k: play(k, game, TARGET, config, state.params, c, 16)  # noqa: E731
        keys = jax.random.split(key, episodes)
        returns = jax.lax.map(lambda c: jax.vmap(lambda k: episode(c, k))(keys), -targets)
        return jnp.mean(jnp.abs(returns - targets[:, None].astype(jnp.float32)), axis=1), totals

    missed, totals = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))
    return np.asarray(missed) - OPTIMA, totals


def test_a_short_training_is_better_than_a_long_one_without_stocks():
    config = dataclasses.replace(PUBLISHED, num_steps=1500, num_envs=32, capacity=16_384, batch=128)
    found, totals = regrets(config, 1, 500)
    # the ablation's regret after full training is above 0.25 (the specification's bound)
    assert found.mean() < 0.25
    assert totals.episodes.shape == (1, 16) and int(totals.episodes[0, -1]) == 32 * (1500 // 16)
    utility = np.diff(totals.utility[0]) / np.diff(totals.episodes[0])
    # with fewer random actions and more knowledge episodes end nearer to their targets
    assert utility[-3:].mean() > utility[:3].mean() + 1
    assert np.all(np.diff(totals.loss[0]) > 0) and np.isfinite(totals.loss[0, -1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_settings():
    found, _ = regrets(PUBLISHED, 2, 4000)
    assert found.mean() <= 0.08 and found.mean(axis=1).max() <= 0.12
    found, _ = regrets(dataclasses.replace(PUBLISHED, frozen=True), 2, 4000)
    assert found.mean() >= 0.25
