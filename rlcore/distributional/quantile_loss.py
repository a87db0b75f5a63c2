"""The loss whose minimiser is a law's quantiles: pinball, or Huber's smoothing of it."""

import jax
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
      kappa: float[] >= 0, in units of reward; 0 is the pinball loss. Taken as a constant: no derivative.

    Returns: float[], in units of reward.
    Source: Dabney et al. (2018), arXiv 1710.10044, as recalled; they do not divide by kappa. Cost: N M.
    """
    return _loss(predicted, target, jnp.asarray(kappa, predicted.dtype))


@jax.custom_jvp
def _loss(predicted, target, kappa):
    pull, excess = _terms(predicted, target, kappa)
    return jnp.sum(jnp.mean(pull * excess, axis=1))


def _terms(predicted, target, kappa):
    """The derivatives of the N M terms in u, and what they multiply in the terms."""
    u = target[None, :] - predicted[:, None]
    # h = s (u - kappa s / 2) with s the slope of h, -1 or 1 where kappa is 0
    slope = jnp.clip(u / jnp.maximum(kappa, jnp.finfo(u.dtype).tiny), -1, 1)
    levels = quantile_levels(predicted.shape[0], u.dtype)[:, None]
    return jnp.where(u < 0, 1 - levels, levels) * slope, u - kappa * slope / 2


@_loss.defjvp
def _derivative(primals, tangents):
    # as a rule: the N M terms are summed at once and never stored for a pass backwards
    predicted, target, kappa = primals
    pull, excess = _terms(predicted, target, kappa)
    value = jnp.sum(jnp.mean(pull * excess, axis=1))
    towards = jnp.sum(pull, axis=0) / target.shape[0]
    return value, jnp.vdot(towards, tangents[1]) - jnp.vdot(jnp.mean(pull, axis=1), tangents[0])
