"""Distances between laws: Wasserstein of any order, and Cramer."""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.laws import Law, sort_law
from rlcore.types import Array, Float, Number

__all__ = ["cramer", "wasserstein"]


def _check(first: Law, second: Law) -> None:
    """Refuse, on the host, weights that do not sum to 1: a distance to no law is no number. Rounding is let pass."""
    for name, law in (("first", first), ("second", second)):
        if isinstance(law.probs, jax.core.Tracer):
            continue
        probs = np.asarray(law.probs)
        if not abs(probs.sum(dtype=float) - 1) <= np.sqrt(np.finfo(np.result_type(probs, np.float32)).eps):
            raise ValueError(f"{name}: found weights that sum to {probs.sum(dtype=float)}, expected 1")


def _differences(first: Law, second: Law) -> tuple[Float[Array, "M"], Float[Array, "M"]]:
    """The difference of two distribution functions on the gaps between all atoms, and the gaps."""
    both = sort_law(Law(jnp.concatenate([first.values, second.values]), jnp.concatenate([first.probs, -second.probs])))
    return jnp.cumsum(both.probs)[:-1], jnp.diff(both.values)


def wasserstein(first: Law, second: Law, order: Number = 1) -> Float[Array, ""]:
    """The Wasserstein distance (integral of |difference of quantiles|^order)^(1/order); the largest for order inf.

    Args: first, second: laws, N and M atoms; order: float >= 1 or inf, a host number.
    Returns: float[], in units of reward. Raises: ValueError: an order below 1, weights that do not sum to 1.
    Source: Bobkov and Ledoux (2019), one dimension. Cost: (N + M) log (N + M).
    """
    if not order >= 1:
        raise ValueError(f"order: found {order}, expected a number >= 1 or inf")
    _check(first, second)
    if order == 1:
        gap, width = _differences(first, second)
        return jnp.sum(jnp.abs(gap) * width)
    first, second = sort_law(first), sort_law(second)
    totals = [jnp.cumsum(law.probs) for law in (first, second)]
    totals = [jnp.minimum(total / total[-1], 1.0) for total in totals]
    ends = jnp.sort(jnp.concatenate(totals))
    width = jnp.diff(ends, prepend=jnp.zeros(1, ends.dtype))
    # pieces narrower than the rounding of the cumulated weights are no pieces
    real = width > 4 * ends.shape[0] * jnp.finfo(ends.dtype).eps
    level = ends - width / 2
    quantiles = [
        law.values[jnp.minimum(jnp.searchsorted(total, level), total.shape[0] - 1)]
        for law, total in zip((first, second), totals, strict=True)
    ]
    distance = jnp.where(real, jnp.abs(quantiles[0] - quantiles[1]), 0)
    if order == jnp.inf:
        return jnp.max(distance)
    return jnp.sum(width * distance**order) ** (1 / order)


def cramer(first: Law, second: Law) -> Float[Array, ""]:
    """The Cramer distance, the root of the integral of the squared difference of distribution functions.

    Args: first, second: laws, N and M atoms. Returns: float[], in root units of reward.
    Raises: ValueError: weights that do not sum to 1. Source: Szekely (2003); Rowland et al. (2018).
    Cost: (N + M) log (N + M).
    """
    _check(first, second)
    gap, width = _differences(first, second)
    return jnp.sqrt(jnp.sum(gap**2 * width))
