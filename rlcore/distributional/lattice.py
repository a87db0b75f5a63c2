"""Evenly spaced points: the atoms of laws and the nodes of stock grids, and where a number lies among them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Number

__all__ = ["Lattice", "Place", "lattice", "place"]

# A number this close to a point, in spacings, is that point: stocks are sums of at most some thousand rounded terms.
NEAR = 1e-9


@pytree
class Lattice:
    """The points spacing * first, ..., spacing * (first + size - 1); build it with `lattice`.

    spacing: float[] > 0, in units of reward. first: int, static. size: int >= 2, static. Zero is a multiple of the
    spacing, so it is a point wherever the ends allow.
    """

    spacing: Array | np.ndarray
    first: int = static()
    size: int = static()

    @property
    def points(self) -> Float[Array, "Z"]:
        """All points, increasing. Cost: size."""
        spacing = jnp.asarray(self.spacing)
        return spacing * (self.first + jnp.arange(self.size)).astype(spacing.dtype)

    @property
    def low(self) -> Float[Array, ""]:
        """The first point."""
        return jnp.asarray(self.spacing) * self.first

    @property
    def high(self) -> Float[Array, ""]:
        """The last point."""
        return jnp.asarray(self.spacing) * (self.first + self.size - 1)


def lattice(low: float | int, high: float | int, spacing: float | int) -> Lattice:
    """The multiples of `spacing` from the last one <= low to the first one >= high.

    Args: low, high, spacing: finite host numbers, low <= high, spacing > 0, in units of reward.
    Returns: a lattice of at least two points.
    Raises: ValueError: numbers out of that range, or more than 2^31 - 1 points.
    Cost: O(1).
    """
    for name, x in (("low", low), ("high", high), ("spacing", spacing)):
        if not np.isfinite(x):
            raise ValueError(f"{name}: found {x}, expected a finite number")
    if not spacing > 0:
        raise ValueError(f"spacing: found {spacing}, expected a number > 0")
    if low > high:
        raise ValueError(f"low, high: found {low} > {high}, expected low <= high")
    first = int(np.floor(low / spacing + NEAR))
    last = max(int(np.ceil(high / spacing - NEAR)), first + 1)
    if last - first >= 2**31 - 1:
        raise ValueError(f"spacing: found {last - first + 1} points, expected fewer than 2^31: a wider spacing")
    # on the host: a lattice at the top of a module must not start a device
    return Lattice(np.asarray(spacing, jnp.result_type(float)), first, last - first + 1)


class Place(NamedTuple):
    """Where numbers lie on a lattice.

    index: int32[...], the point at or below, at most size - 2; weight: float[...] in [0, 1], how far it lies towards
    the next point (both clipped to the ends outside). below, above: bool[...], strictly outside.
    """

    index: Int[Array, "..."]
    weight: Float[Array, "..."]
    below: Bool[Array, "..."]
    above: Bool[Array, "..."]


def place(points: Lattice, x: Number | Float[Array, "..."]) -> Place:
    """Find numbers on a lattice; within 1e-9 spacings of a point they are that point.

    Args: points: the lattice; x: float[...], in units of reward.
    Returns: the places.
    Cost: O(size of x), no search.
    """
    steps = jnp.asarray(x) / points.spacing - points.first
    whole = jnp.round(steps)
    steps = jnp.where(jnp.abs(steps - whole) <= NEAR, whole, steps)
    below, above = steps < 0, steps > points.size - 1
    steps = jnp.clip(steps, 0, points.size - 1)
    index = jnp.clip(jnp.floor(steps), 0, points.size - 2)
    return Place(index.astype(jnp.int32), steps - index, below, above)
