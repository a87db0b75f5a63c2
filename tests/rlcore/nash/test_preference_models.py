"""Learned preference models: exact fits, who can learn a cycle, features against tables, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from envs.preferences import bt, rps
from rlcore.nash import (
    BradleyTerry,
    GeneralPreference,
    PairNetwork,
    bradley_terry,
    count_wins,
    log_loss,
    pair_data,
)
from rlcore.solver import CONVERGED

EPS = 2.0**-52
MODELS = (
    BradleyTerry(),
    GeneralPreference(dim=4, num_steps=50),
    GeneralPreference(dim=2, hidden=(8,), num_steps=50),
    PairNetwork(hidden=(8, 8), num_steps=50),
)


def sampled_pairs(preference, count, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, preference.shape[0], (2, count))
    wins = rng.random(count) < np.asarray(preference)[first, second]
    return pair_data(first, second, wins.astype(dtype), preference.shape[0])


def expected_pairs(preference):
    """Every ordered pair once, with its probability as the label."""
    n = preference.shape[0]
    first, second = np.divmod(np.arange(n * n), n)
    return pair_data(first, second, np.asarray(preference)[first, second], n)


def test_newton_finds_the_maximum_that_a_general_optimiser_finds():
    wins = count_wins(sampled_pairs(bt(jnp.array([1.0, 0.0, -0.5, 2.0])), 60), 4)

    def loss(r):
        return np.sum(np.asarray(wins) * np.logaddexp(0, r[None, :] - r[:, None])) + 0.1 * r @ r

    other = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13, "maxiter": 4000})
    solution = bradley_terry(wins, ridge=0.1)
    assert solution.status == CONVERGED and solution.bound < 1e-10
    np.testing.assert_allclose(solution.value, other.x, rtol=0, atol=1e-5)  # Nelder-Mead stops at sqrt(eps)
    assert abs(solution.value.sum()) < 1e-12


def test_the_bound_holds_and_rewards_are_recovered():
    rewards = jnp.array([1.0, 0.0, -0.5, 2.0, -2.5])
    centred = rewards - rewards.mean()
    wins = count_wins(expected_pairs(bt(rewards)), 5)
    # Without ridge the maximum is the truth; with ridge * wins scaled together nothing changes.
    solution = bradley_terry(1e6 * wins, ridge=1e-6)
    np.testing.assert_allclose(solution.value, centred, rtol=0, atol=1e-9)
    one, other = bradley_terry(wins, ridge=0.02), bradley_terry(50 * wins, ridge=1.0)
    assert jnp.linalg.norm(one.value - other.value) <= one.bound + other.bound
    early = bradley_terry(wins, ridge=0.02, max_steps=1)
    assert jnp.linalg.norm(early.value - one.value) <= early.bound + one.bound
    assert early.status != CONVERGED


def test_separable_data_have_a_maximum_with_the_ridge():
    wins = jnp.zeros((3, 3)).at[0, 1].set(1e4).at[1, 2].set(1e4)
    solution = jax.jit(bradley_terry)(wins)
    assert solution.status == CONVERGED
    assert solution.value[0] > solution.value[1] > solution.value[2]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrix_is_a_preference_and_apply_agrees_with_it(model, dtype):
    pairs = sampled_pairs(rps(0.4), 50, dtype=dtype)
    features = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), dtype)
    for given, vectors in ((3, jnp.eye(3, dtype=dtype)), (features, features)):
        params = model.fit(pairs, given, jax.random.key(0))
        preference = model.matrix(params, given)
        assert preference.shape == (3, 3) and preference.dtype == dtype
        eps = np.finfo(dtype).eps
        assert jnp.abs(preference + preference.T - 1).max() <= 2 * eps
        first = jnp.repeat(vectors[:, None], 3, axis=1)
        applied = model.apply(params, first, jnp.swapaxes(first, 0, 1))
        np.testing.assert_allclose(applied, preference, rtol=0, atol=100 * eps)  # sums in another order
        loss = log_loss(model, params, given, pairs)
        by_hand = -np.log(np.where(pairs.label > 0, preference[pairs.first, pairs.second],
                                   preference[pairs.second, pairs.first])).mean()  # fmt: skip
        np.testing.assert_allclose(loss, by_hand, rtol=1000 * eps)


def test_only_general_models_learn_a_cycle():
    pairs = expected_pairs(rps(0.4))
    fitted = {}
    for name, model in (
        ("bt", BradleyTerry()),
        ("gpm", GeneralPreference(dim=2, num_steps=400)),
        ("network", PairNetwork(num_steps=400)),
    ):
        fitted[name] = model.matrix(jax.jit(lambda p, m=model: m.fit(p, 3, jax.random.key(0)))(pairs), 3)
    np.testing.assert_allclose(fitted["bt"], 0.5, rtol=0, atol=1e-9)
    for name in ("gpm", "network"):
        np.testing.assert_allclose(fitted[name], rps(0.4), rtol=0, atol=1e-2)


def test_features_and_tables_are_the_same_model_where_features_are_unit_vectors():
    pairs = sampled_pairs(bt(jnp.array([1.0, 0.0, -1.0])), 40)
    for model in MODELS:
        start = lambda given, m=model: m.fit(pairs, given, jax.random.key(2))  # noqa: E731
        if isinstance(model, PairNetwork):
            continue  # its first layer scales with the number of features
        table, vectors = (model.matrix(start(given), given) for given in (3, jnp.eye(3)))
        np.testing.assert_allclose(table, vectors, rtol=0, atol=1e-9)


def test_fits_vmap_over_seeds_and_step_sizes():
    pairs = sampled_pairs(rps(0.4), 30)

    def fit(key, rate):
        model = GeneralPreference(dim=2, learning_rate=rate, num_steps=20)
        return model.matrix(model.fit(pairs, 3, key), 3)

    keys, rates = jax.random.split(jax.random.key(0), 3), jnp.array([1e-3, 1e-2, 1e-1])
    together = jax.vmap(fit)(keys, rates)
    for i in range(3):
        # 20 Adam steps normalise by the root of squared gradients, which magnifies rounding
        np.testing.assert_allclose(together[i], fit(keys[i], rates[i]), rtol=0, atol=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match="pairs: found no pairs"):
        pair_data(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 3)
    with pytest.raises(ValueError, match=r"second: found indices in \[1, 3\], expected \[0, 3\)"):
        pair_data([0, 1], [1, 3], [1.0, 0.0], 3)
    with pytest.raises(ValueError, match=r"first: found indices in \[-1, 1\]"):
        pair_data([-1, 1], [1, 2], [1.0, 0.0], 3)
    with pytest.raises(ValueError, match="label: found values"):
        pair_data([0], [1], [1.5], 3)
    with pytest.raises(ValueError, match="label: found values"):
        pair_data([0], [1], [np.nan], 3)
    with pytest.raises(ValueError, match="shapes"):
        pair_data([0, 1], [1], [1.0], 3)
    with pytest.raises(TypeError, match="first: found float64"):
        pair_data([0.0], [1], [1.0], 3)
    pairs = pair_data([0], [1], [1], 2)
    with pytest.raises(ValueError, match="dim: found 3"):
        GeneralPreference(dim=3).fit(pairs, 2, jax.random.key(0))
    with pytest.raises(ValueError, match=r"hidden: found \(\)"):
        PairNetwork(hidden=()).fit(pairs, 2, jax.random.key(0))
