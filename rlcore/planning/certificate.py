"""How far a value function is from a fixed point: span bounds that count their own rounding."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.planning.kernel import Kernel
from rlcore.types import Array, Float

__all__ = ["Certificate", "span_certificate"]


class Certificate(NamedTuple):
    """An interval around the fixed point of a backup.

    center: float[S], the midpoint, the best guess.
    bound: float[], |center - fixed point| <= bound in every state, rounding included.
    floor: float[], the part of `bound` that is rounding: no more sweeps lower it.
    """

    center: Float[Array, "S"]
    bound: Float[Array, ""]
    floor: Float[Array, ""]


def span_certificate(kernel: Kernel, value: Float[Array, "S"], backed_up: Float[Array, "S"]) -> Certificate:
    """Bracket the fixed point of a backup T from one application of it.

    T may be the optimal backup or that of any policy. If every available pair goes on with discounted mass in
    [low, high], then T v <= v + c implies T T v <= T v + g c with g = high for c >= 0 and g = low for c < 0; summing
    the geometric series gives the upper end T v + c g / (1 - g), and the lower end likewise. With low = high this is
    MacQueen's bound. The midpoint removes the error that all states share, which plain sweeps lose only at rate
    `discount`.

    Rounding: a computed sweep is within e = (terms + 5) eps (reward_scale + |v|) of the exact one; an error e of the
    backup moves the fixed point by at most e / (1 - high); `floor` is that, plus the rounding of the midpoint itself.

    Args:
      kernel: the problem.
      value, backed_up: float[S], v and the computed T v.

    Returns: `Certificate`; infinite where `high` >= 1, as in an undiscounted problem whose pairs need not end.
    Source: MacQueen 1966; Puterman 1994, proposition 6.6.5 and theorem 6.6.6; the mass interval and the floor: derived.
    Cost: S.
    """
    eps = jnp.finfo(value.dtype).eps
    change = backed_up - value
    top, bottom = jnp.max(change), jnp.min(change)
    contracts = kernel.high < 1
    high = jnp.where(contracts, kernel.high, jnp.full_like(kernel.high, 0.5))
    low = jnp.minimum(kernel.low, high)
    far, near = high / (1 - high), low / (1 - low)
    above = top * jnp.where(top >= 0, far, near)
    below = bottom * jnp.where(bottom <= 0, far, near)
    center = backed_up + (above + below) / 2
    size = jnp.maximum(jnp.max(jnp.abs(value)), jnp.max(jnp.abs(backed_up)))
    sweep_error = (kernel.terms + 5) * eps * (kernel.reward_scale + size)
    series_error = 4 * eps * (jnp.abs(above) + jnp.abs(below) + jnp.max(jnp.abs(center)))
    floor = sweep_error / (1 - high) + series_error
    bound = (above - below) / 2 + floor
    return Certificate(center, jnp.where(contracts, bound, jnp.inf), jnp.where(contracts, floor, jnp.inf))
