"""Adam with the gradient clipped by its norm and every number traced."""

import jax
import jax.numpy as jnp
import optax

from rlcore.types import Number, PyTree

__all__ = ["adam_moments", "adam_step"]


def adam_moments(params: PyTree) -> PyTree:
    """The state of Adam before the first step. Cost: two copies of the parameters."""
    return optax.scale_by_adam().init(params)


def adam_step(
    params: PyTree, gradient: PyTree, moments: PyTree, *, learning_rate: Number, epsilon: Number, max_norm: Number
) -> tuple[PyTree, PyTree]:
    """One step of Adam (decays 0.9 and 0.999) on a gradient scaled down to at most a norm.

    Args:
      params, gradient, moments: pytrees of one precision. learning_rate, epsilon: of Adam. max_norm: the largest norm
        of the whole gradient; a longer one is scaled by max_norm / (norm + 1e-6).

    Returns: (params, moments).
    Source: Kingma and Ba (2015), through optax; the clipping as in PyTorch's `clip_grad_norm_`, as recalled.
    Cost: a few passes over the parameters.
    """
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    scale = jnp.minimum(1, max_norm / (norm + 1e-6))
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes its own types
        direction, moments = optax.scale_by_adam(eps=epsilon).update(gradient, moments)
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction), moments
