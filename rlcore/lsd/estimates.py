"""What a learner knows of the payoffs: plays and rewards by arm and local state, and the bounds they give."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.problem import SwitchingBandit
from rlcore.types import Array, Bool, Float, Int, Number

__all__ = ["Estimates", "isotonic", "no_estimates", "rising_upper_bound", "upper_bound"]


class Estimates(NamedTuple):
    """count, total: float[k, S], plays seen from each local state and the sum of their rewards."""

    count: Array
    total: Array

    def seen(self, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]) -> "Estimates":
        """With one round more: rewards float[k] of the arms `played`, from local states int32[k]. Cost: k S."""
        here = played[:, None] & (jnp.arange(self.count.shape[1], dtype=local.dtype)[None, :] == local[:, None])
        return Estimates(self.count + here.astype(self.count.dtype), self.total + jnp.where(here, reward[:, None], 0.0))

    @property
    def mean(self) -> Float[Array, "*batch k S"]:
        """Mean reward by arm and local state, 0 where none was seen."""
        return self.total / jnp.maximum(self.count, 1)


def no_estimates(problem: SwitchingBandit) -> Estimates:
    """Nothing seen yet. The payoffs are not read, only their shape."""
    nothing = jnp.zeros(problem.payoffs.shape, problem.payoffs.dtype)
    return Estimates(nothing, nothing)


def upper_bound(estimates: Estimates, log_term: Number, unseen: Number = jnp.inf) -> Float[Array, "k S"]:
    """Mean + sqrt(log_term / count); `unseen` where nothing was seen. Cost: k S."""
    width = jnp.sqrt(log_term / jnp.maximum(estimates.count, 1))
    return jnp.where(estimates.count > 0, estimates.mean + width, unseen)


def rising_upper_bound(estimates: Estimates, log_term: Number) -> Float[Array, "k S"]:
    """The least bound of all states at least as good, at most 1: above the payoffs wherever they are monotone.

    Args: as `upper_bound`. Returns: float[k, S], non-decreasing in the state.
    Source: derived: docs/proofs/lsd.md#t14. Cost: k S.
    """
    return jax.lax.cummin(jnp.minimum(upper_bound(estimates, log_term), 1), axis=1, reverse=True)


def isotonic(payoffs: Float[Array, "k S"]) -> Float[Array, "k S"]:
    """The non-decreasing rows nearest in squares: no further from monotone payoffs, in the maximum norm, than before.

    x*(e) = max over a <= e of min over b >= e of the mean of a .. b: monotone in the rows and exact on constants.
    Source: pool adjacent violators by its min-max formula; derived: docs/proofs/lsd.md#t13. Cost: k S^2.
    """
    s = payoffs.shape[1]
    sums = jnp.concatenate([jnp.zeros_like(payoffs[:, :1]), jnp.cumsum(payoffs, axis=1)], axis=1)
    e = jnp.arange(s)
    length = jnp.maximum(e[None, :] - e[:, None] + 1, 1).astype(payoffs.dtype)
    mean = (sums[:, None, 1:] - sums[:, :-1, None]) / length[None]  # [k, a, b]
    mean = jnp.where((e[None, :] >= e[:, None])[None], mean, jnp.inf)
    least = jax.lax.cummin(mean, axis=2, reverse=True)  # over b >= e, at [k, a, e]
    least = jnp.where((e[None, :] >= e[:, None])[None], least, -jnp.inf)
    return jnp.max(least, axis=1)
