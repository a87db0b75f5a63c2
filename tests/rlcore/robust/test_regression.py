"""Signed maxima against dense grids, ridge against the normal equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.ridge import ridge
from rlcore.robust.regression import largest_capped_mean, largest_mean_variance

D, K, H = 4, 7, 3.0


def draw(seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    targets = H * jax.random.uniform(keys[0], (K,))
    targets = jnp.where(jax.random.uniform(keys[1], (K,)) < 0.3, targets[0], targets)  # ties
    weights = jax.random.normal(keys[2], (D, K)) * jnp.exp(jax.random.normal(keys[3], (D, 1)))
    return weights, targets


WEIGHTS, TARGETS = jax.jit(jax.vmap(draw))(jnp.arange(200))
GRID = np.linspace(0, H, 4001)


def on_grid(function, low, high):
    """The largest value of `function(cuts) -> [200, D, cuts]` over a dense grid of cuts in [low, high]."""
    cuts = np.clip(GRID, low, high)
    return np.max(function(cuts), axis=-1)


def moments(cuts):
    capped = np.minimum(np.asarray(TARGETS)[:, None, :], cuts[None, :, None])  # [200, cuts, K]
    weights = np.asarray(WEIGHTS)
    return np.einsum("ndk,nck->ndc", weights, capped), np.einsum("ndk,nck->ndc", weights, capped**2)


@pytest.mark.parametrize(("radius", "low"), [(0.0, 0.0), (0.3, 0.0), (0.9, 0.7), (1.0, 0.2)])
def test_the_capped_mean_is_the_maximum_over_a_grid(radius, low):
    found, cut = jax.jit(jax.vmap(lambda w, y: largest_capped_mean(w, y, radius, low, H)))(WEIGHTS, TARGETS)
    objective = lambda cuts: moments(cuts)[0] - radius * (cuts - np.minimum(low, cuts))  # noqa: E731
    dense = on_grid(objective, 0.0, H)
    # piecewise linear with slopes at most sum |w| + 1, grid of step H / 4000
    slope = np.sum(np.abs(np.asarray(WEIGHTS)), axis=-1) + 1
    assert np.all(found >= dense - 1e-13) and np.all(found <= dense + slope * H / 4000)
    own = np.array(
        [[w @ np.minimum(y, c) - radius * (c - min(low, c)) for w, c in zip(ws, cs, strict=True)]
         for ws, y, cs in zip(np.asarray(WEIGHTS), np.asarray(TARGETS), np.asarray(cut), strict=True)]
    )  # fmt: skip
    np.testing.assert_allclose(own, found, rtol=0, atol=1e-12)  # prefix sums of K terms of size up to 100


@pytest.mark.parametrize("clip", [None, (H, H**2)])
@pytest.mark.parametrize("level", [0.1, 1.0, 30.0])
def test_the_mean_variance_is_the_maximum_over_a_grid(level, clip):
    low, high = 0.2, 2.8
    solve = lambda w, y: largest_mean_variance(w, y, level, low, high, clip)  # noqa: E731
    found, cut = jax.jit(jax.vmap(solve))(WEIGHTS, TARGETS)

    def objective(cuts):
        z, z2 = moments(cuts)
        if clip is not None:
            z, z2 = np.clip(z, 0, clip[0]), np.clip(z2, 0, clip[1])
        return z + (z**2 - z2) / (4 * level)

    dense = on_grid(objective, low, high)
    total = np.sum(np.abs(np.asarray(WEIGHTS)), axis=-1)
    # z moves by at most sum |w| per unit of cut, z2 by 2 H of that, z^2 by 2 H sum |w| of that
    slope = total * (1 + (2 * H * total + 2 * H) / (4 * level))
    assert np.all(found >= dense - 1e-12 * (1 + slope)) and np.all(found <= dense + slope * H / 4000)
    assert np.all((cut >= low) & (cut <= high))


def test_nonnegative_weights_are_the_operators():
    from rlcore.robust import constrained_tv, regularised_chi2

    law = jax.random.dirichlet(jax.random.key(0), jnp.ones(K), (1,))
    y = TARGETS[0]
    found = largest_mean_variance(law, y, 0.3, jnp.min(y), jnp.max(y))[0][0]
    np.testing.assert_allclose(found, regularised_chi2(law[0], y, 0.3).value, rtol=0, atol=1e-14)
    ball = largest_capped_mean(law, y, 0.2, jnp.min(y), H)[0][0]
    np.testing.assert_allclose(ball, constrained_tv(law[0], y, 0.2).value, rtol=0, atol=1e-14)


def test_ridge_solves_the_normal_equations():
    features = jax.random.normal(jax.random.key(1), (9, 3))
    scale = jnp.linspace(0.5, 2.0, 9)
    targets = jax.random.normal(jax.random.key(2), (9, 2))
    fitted = ridge(features, 0.7, scale)
    f, w = np.asarray(features), np.asarray(scale)
    gram = (f * w[:, None]).T @ f + 0.7 * np.eye(3)
    expected = np.linalg.solve(gram, (f * w[:, None]).T @ np.asarray(targets))
    np.testing.assert_allclose(fitted.fit(targets), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(fitted.sample_weights() @ targets, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(fitted.spread, np.sqrt(np.diag(np.linalg.inv(gram))), rtol=0, atol=1e-13)
    # the sum of squared feature norms in the inverse Gram matrix is below the dimension
    plain = ridge(features, 0.7)
    turned = plain.inverse @ features.T
    assert jnp.sum(turned**2) < 3
