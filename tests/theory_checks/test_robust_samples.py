"""What the sampled statements of the robust family are made of: counts, estimated factors, pivots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.ridge import ridge
from rlcore.robust import Table, r2pvi, rewards, sample_trajectories
from theory_checks.robust_offline import uniform_policy
from theory_checks.robust_samples import (
    constant,
    counts,
    covered_instance,
    estimate,
    fold_instance,
    pivots,
    signed_laws,
)

SIZES = {"num_states": 4, "num_actions": 3, "horizon": 2, "num_factors": 3}


def test_counts_are_those_of_so_many_draws_and_only_of_what_can_come_up():
    law, count, runs = jnp.array([0.2, 0.0, 0.5, 0.3]), 37.0, 2000
    found = np.asarray(jax.vmap(lambda k: counts(k, law, 50, count))(jax.random.split(jax.random.key(0), runs)))
    assert np.all(found == np.round(found)) and np.all(found >= 0)
    assert np.all(found.sum(axis=1) == count) and np.all(found[:, 1] == 0)
    # Means and variances of a multinomial law: five standard errors, that of a variance being about sqrt(2 / runs).
    p = np.asarray(law)
    assert np.all(np.abs(found.mean(axis=0) - count * p) <= 5 * np.sqrt(count * p * (1 - p) / runs))
    assert np.all(np.abs(found.var(axis=0) - count * p * (1 - p)) <= 5 * count * p * (1 - p) * np.sqrt(2.2 / runs))


def test_a_step_s_pairs_are_visited_as_often_as_trajectories_do():
    model, _, pairs = fold_instance(jax.random.key(1), **SIZES)
    data = sample_trajectories(jax.random.key(2), model, uniform_policy(model), 20_000)
    np.testing.assert_allclose(pairs.sum(axis=1), 1.0, rtol=1e-14)  # sums of 12 terms
    for h in range(2):
        share = np.bincount(np.asarray(data.states[:, h] * 3 + data.actions[:, h]), minlength=12) / 20_000
        assert np.all(np.abs(share - pairs[h]) <= 5 * np.sqrt(np.asarray(pairs[h]) / 20_000))


@pytest.mark.parametrize("name", ["tv", "kl", "chi2"])
def test_the_estimate_from_counts_is_that_from_samples(name):
    model, price, _ = fold_instance(jax.random.key(3), **SIZES)
    data = sample_trajectories(jax.random.key(4), model, uniform_policy(model), 60)
    reward, gamma = rewards(model), 0.1
    seen = np.zeros((12, 4))
    np.add.at(seen, (np.asarray(data.states[:, 0] * 3 + data.actions[:, 0]), np.asarray(data.states[:, 1])), 1.0)
    signed, spread = signed_laws(model.features.reshape(-1, 3), jnp.asarray(seen), gamma)
    values = jnp.max(reward[1], axis=1)
    deviation = values - jnp.min(values)
    found = estimate(name, signed, deviation, price)
    if name == "chi2":  # a grid of cuts, of spacing 1e-5: both objectives are Lipschitz with constants below 10
        at = np.linspace(0, float(deviation.max()), 100_001)
        capped, length = np.minimum(np.asarray(deviation)[:, None], at), float(deviation.max())
        z, z2 = (np.clip(np.asarray(signed) @ capped**k, 0, length**k) for k in (1, 2))
        best = np.max(z + (z**2 - z2) / (4 * float(price)), axis=1)
        assert np.all(best <= found + 1e-12) and np.all(found <= best + 1e-4)
        return
    learned = r2pvi(data, Table(model.features, reward), None, name, price, 0.0, gamma, centred=True)
    # Condition numbers here are below 1e3, so the solves agree to 1e3 eps.
    np.testing.assert_allclose(found, learned.weights[0] - jnp.min(values), atol=1e-12)
    rows = ridge(model.features[data.states[:, 0], data.actions[:, 0]], gamma)
    np.testing.assert_allclose(spread, rows.spread, rtol=1e-12)


def test_pivots_are_positive_exactly_for_positive_definite_matrices():
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        x = rng.normal(size=(3, 4))
        matrix = x @ x.T - rng.uniform(0, 3) * np.eye(3)
        found = bool(jnp.all(pivots(jnp.asarray(matrix)) > 0))
        assert found == (np.linalg.eigvalsh(matrix)[0] > 0)
        outcomes.add(found)
    assert outcomes == {True, False}


def test_constants_of_a_high_price_are_the_nominal_one():
    # (e^x - 1) / x <= 1 + x and 1 + x / 2 at x = R / lambda = 1e-6
    for name in ("tv", "kl", "chi2"):
        assert constant(name, 1e6, 1.0) == pytest.approx(1.0, abs=1e-6)


def test_the_narrow_policy_never_excites_factor_0_and_the_robust_policy_uses_it():
    instance = covered_instance(jax.random.key(5), **{**SIZES, "concentration": 0.3})
    assert np.all(np.asarray(instance.narrow @ instance.phi)[:, 0] == 0)
    assert np.all(np.asarray(instance.used)[:, :, 0] > 0.01)
    np.testing.assert_allclose(instance.used.sum(axis=2), 1.0, rtol=1e-14)
    gram = np.einsum("hn,ni,nj->hij", instance.pairs, instance.phi, instance.phi)
    assert float(instance.kappa) == pytest.approx(np.linalg.eigvalsh(gram)[:, 0].min(), rel=1e-10)
