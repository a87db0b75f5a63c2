"""The studies of MaxMin and of embedding dimensions on tiny settings: labels, known orders, figures that draw."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.nash import gpm_elbow, maxmin
from rlcore.nash import factorise


def test_the_population_is_as_its_settings_say():
    config = maxmin.Config()
    rewards, kinds, pairs = maxmin.population(jax.random.key(0), jnp.asarray(0.3), config)
    assert kinds.sum() == 10 and pairs.first.shape == (110, 20)
    assert np.all(pairs.first != pairs.second)
    np.testing.assert_allclose(rewards.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(rewards.std(axis=1), config.reward_scale, rtol=1e-12)
    np.testing.assert_allclose(np.corrcoef(rewards)[0, 1], 0.3, rtol=1e-10)


def test_maxmin_serves_the_minority_of_opposed_groups():
    config = maxmin.Config(num_seeds=2, correlations=(0.5, -1.0))
    data = maxmin.run(config)
    assert dict(data.sizes) == {"seed": 2, "correlation": 2, "algorithm": 5, "group": 2}
    assert (data["certified"] < 1e-9).all() and (data["recovered"] <= 1).all()
    worst = data["utility"].min("group").sel(correlation=-1.0)
    assert (worst.sel(algorithm="MaxMin") > worst.sel(algorithm="single reward") + 1).all()
    # Opposed rewards cancel: no policy gives both groups more than the reference does.
    np.testing.assert_allclose(worst.sel(algorithm="MaxMin, true rewards"), 0, atol=1e-9)
    assert set(maxmin.REFERENCES) <= set(maxmin.measured(data))
    figure = maxmin.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)


def test_scores_have_the_rank_they_are_drawn_with():
    for rank in (2, 4):
        preference = gpm_elbow.random_preference(jax.random.key(1), 7, rank, 2.0)
        assert factorise(jnp.log(preference) - jnp.log1p(-preference), tol=1e-9).shape == (7, rank)
    pairs = gpm_elbow.sample_pairs(jax.random.key(2), preference, 20_000)
    assert np.all(pairs.first != pairs.second)
    # The mean loss of the truth is the mean entropy, within 5 deviations of a mean of 20 000 losses below 5.
    off = ~np.eye(7, dtype=bool)
    p = np.asarray(preference)
    entropy = -np.mean((p * np.log(p) + (1 - p) * np.log1p(-p))[off])
    np.testing.assert_allclose(gpm_elbow.loss_of_truth(preference, pairs), entropy, atol=5 * 1.0 / np.sqrt(20_000))


def test_the_loss_falls_until_the_dimension_reaches_the_rank():
    config = gpm_elbow.Config(
        num_seeds=2, num_actions=7, ranks=(2, 4), dims=(2, 4), num_pairs=2_000, num_steps=200, temperature=0.1
    )
    data = gpm_elbow.run(config)
    assert list(data["algorithm"].values) == ["Bradley-Terry", "GPM 2", "GPM 4"]
    mean = data["excess"].mean("seed")
    assert mean.sel(rank=2, algorithm="GPM 2") < mean.sel(rank=2, algorithm="Bradley-Terry") / 3
    assert mean.sel(rank=4, algorithm="GPM 4") < mean.sel(rank=4, algorithm="GPM 2")
    # 8.7, with an equilibrium of the fitted game that is exact to 1e-9
    assert (data["gap"] <= 2 * data["error"] + 1e-9).all() and (data["bound"] < 1e-9).all()
    assert set(gpm_elbow.measured(data))
    figure = gpm_elbow.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
