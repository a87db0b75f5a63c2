"""The loss whose minimiser is a law's quantiles: pinball, or Huber's smoothing of it."""

import jax.numpy as jnp

from rlcore.types import Array, Float, Number

__all__ = ["quantile_huber_loss", "quantile_levels"]


def quantile_levels(size: int, dtype: object = None) -> Float[Array, "N"]:
    """The levels (2 i + 1) / (2 size) of `size` quantiles. Args: size: static. Cost: size."""
    dtype = dtype or jnp.result_type(float)
    return (jnp.arange(size, dtype=dtype) + 0.5) / size


def quantile_huber_loss(
    predicted: Float[Array, "N"], target: Float[Array, "M"], kappa: Number = 1.0
) -> Float[Array, ""]:
    """The quantile regression loss of N predicted quantiles towards M equally likely values.

    sum_i mean_j |tau_i - 1{u_ij < 0}| h(u_ij), u_ij = target_j - predicted_i, h(u) = u^2 / (2 kappa) for |u| < kappa,
    else |u| - kappa / 2: Huber's function over kappa, which tends to |u| for kappa -> 0.

    Args:
      predicted: float[N], of levels (2 i + 1) / (2 N). target: float[M], any M; gradients pass into it.
      kappa: float[] >= 0, in units of reward; 0 is the pinball loss.

    Returns: float[], in units of reward.
    Source: Dabney et al. (2018), arXiv 1710.10044, as recalled; they do not divide by kappa. Cost: N M.
    """
    kappa = jnp.asarray(kappa, predicted.dtype)
    u = target[None, :] - predicted[:, None]
    size = jnp.abs(u)
    smooth = u * u / (2 * jnp.where(kappa > 0, kappa, 1))
    huber = jnp.where(size < kappa, smooth, size - kappa / 2)
    levels = quantile_levels(predicted.shape[0], predicted.dtype)[:, None]
    return jnp.sum(jnp.mean(jnp.where(u < 0, 1 - levels, levels) * huber, axis=1))
