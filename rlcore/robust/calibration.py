"""Levels from data: factors estimated, their uncertainty bootstrapped, and the prices that this radius comes to."""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.ridge import ridge as factorise
from rlcore.robust.certificates import divergence_of
from rlcore.robust.data import OfflineData, Table, visited_features
from rlcore.robust.linear_mdp import LinearMDP
from rlcore.robust.planning import levels_of_radius
from rlcore.types import Array, Float, Key, Number

__all__ = ["bootstrap_radius", "calibrated_levels", "estimate_model"]


def estimate_model(
    data: OfflineData,
    features: Table,
    reward_weights: Float[Array, "H d"],
    ridge: Number = 1.0,
    scale: Float[Array, " K"] | None = None,
    smoothing: Number = 1e-3,
) -> LinearMDP:
    """The linear MDP of regressed factors: ridge on indicators of the next state, clipped at 0, normalised, smoothed.

    Args: features: Table [S, A, d]; reward_weights: float[H, d]; scale: float[K], weights of trajectories, 1 by
      default; smoothing: share of the uniform law mixed in, so that no state is impossible. A factor without data is
      uniform.
    Returns: LinearMDP, its initial law the empirical one. Raises: ValueError: features without a table, a ridge that is
      not above 0, a smoothing off [0, 1]. Source: derived (plug-in). Cost: H (K d^2 + d^3 + K d S).
    """
    if not isinstance(features, Table):
        raise ValueError(f"features: found {type(features).__name__}, expected a Table")
    if not isinstance(ridge, jax.core.Tracer) and not ridge > 0:
        raise ValueError(f"ridge: found {ridge}, expected a number above 0")
    if not isinstance(smoothing, jax.core.Tracer) and not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: found {smoothing}, expected a number in [0, 1]")
    s = features.features.shape[0]
    k = data.actions.shape[0]
    dtype = data.rewards.dtype
    scale = jnp.ones(k, dtype) if scale is None else scale
    played = visited_features(data, features).astype(dtype)

    def step(phi, following):
        raw = factorise(phi, ridge, scale).fit(jax.nn.one_hot(following, s, dtype=dtype))
        kept = jnp.maximum(raw, 0)
        total = jnp.sum(kept, axis=1, keepdims=True)
        law = jnp.where(total > 0, kept / jnp.where(total > 0, total, 1), 1 / s)
        return (1 - smoothing) * law + smoothing / s

    factors = jax.vmap(step, in_axes=(1, 1))(played, data.states[:, 1:])
    first = jnp.einsum("k,ks->s", scale, jax.nn.one_hot(data.states[:, 0], s, dtype=dtype)) / jnp.sum(scale)
    return LinearMDP(features.features.astype(dtype), factors, reward_weights.astype(dtype), first)


def bootstrap_radius(
    key: Key[Array, ""],
    data: OfflineData,
    features: Table,
    divergence: str,
    ridge: Number = 1.0,
    quantile: Number = 0.9,
    replicates: int = 100,
    smoothing: Number = 1e-3,
) -> Float[Array, "H d"]:
    """The given quantile of D(bootstrapped factor || estimated factor), trajectories drawn with replacement.

    Args: divergence: "tv", "kl" or "chi2"; quantile: float[] in (0, 1); replicates: static; the rest as in
      `estimate_model`.
    Returns: float[H, d], a radius per step and factor, at most 1 for "tv". Raises: ValueError: a quantile off (0, 1),
      fewer than 2 replicates. Source: this project's; no coverage is proved. Cost: `replicates` estimates.
    """
    if not isinstance(quantile, jax.core.Tracer) and not 0 < float(np.asarray(quantile)) < 1:
        raise ValueError(f"quantile: found {quantile}, expected a number in (0, 1)")
    if replicates < 2:
        raise ValueError(f"replicates: found {replicates}, expected an integer of at least 2")
    k, h = data.actions.shape
    none = jnp.zeros((h, features.features.shape[-1]), data.rewards.dtype)
    centre = estimate_model(data, features, none, ridge, None, smoothing).factors

    def replicate(key):
        drawn = jax.random.randint(key, (k,), 0, k)
        scale = jax.ops.segment_sum(jnp.ones(k, none.dtype), drawn, k)
        return estimate_model(data, features, none, ridge, scale, smoothing).factors

    found = jax.lax.map(replicate, jax.random.split(key, replicates))
    distance = jax.vmap(jax.vmap(lambda q, m: divergence_of(divergence, q, m)))
    far = jax.vmap(distance, in_axes=(0, None))(found, centre)
    return jnp.quantile(far, jnp.asarray(quantile, far.dtype), axis=0)


def calibrated_levels(
    key: Key[Array, ""],
    data: OfflineData,
    features: Table,
    reward_weights: Float[Array, "H d"],
    divergence: str,
    ridge: Number = 1.0,
    quantile: Number = 0.9,
    replicates: int = 100,
    smallest: Number = 1e-3,
) -> Float[Array, "H d"]:
    """Prices for `r2pvi` from data alone: those at which the bootstrap ball of the estimated problem is regularised.

    Args: smallest: a floor of the prices, which the learners need above 0; the rest as in `bootstrap_radius`.
    Returns: float[H, d] in [smallest, 1000 H]; the upper end stands for the infinite price of a radius of 0.
    Source: derived: docs/proofs/robust.md#c7 for the price of a radius; the bootstrap is this project's.
    Cost: `replicates` estimates and one plan.
    """
    radius = bootstrap_radius(key, data, features, divergence, ridge, quantile, replicates)
    model = estimate_model(data, features, reward_weights, ridge)
    # The radius is no tracer only outside jit; clipped, it is always in range.
    price = levels_of_radius(model, divergence, jnp.clip(radius, 0, 1) if divergence == "tv" else radius)
    horizon = jnp.asarray(float(data.actions.shape[1]), price.dtype)
    return jnp.clip(jnp.where(jnp.isfinite(price), price, 1e3 * horizon), smallest, 1e3 * horizon)
