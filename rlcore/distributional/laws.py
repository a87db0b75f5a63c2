"""Laws of the return and what keeps them finite: particles, quantiles, probabilities on a lattice, stop-loss curves."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.lattice import Lattice, place
from rlcore.types import Array, Float

__all__ = [
    "Law",
    "categorical_law",
    "check_law",
    "from_stop_loss",
    "interpolate_stop_loss",
    "merge",
    "project_categorical",
    "project_quantile",
    "quantile_law",
    "sort_law",
    "to_stop_loss",
]

# Cumulated weights this close below a level count as reaching it.
ROUNDING = 1e-13


class Law(NamedTuple):
    """A law with finitely many atoms, in any order, equal ones allowed; see `check_law`.

    values: float[N], in units of reward. probs: float[N], summing to 1; a weight of 0 is padding.
    """

    values: Array
    probs: Array


def check_law(law: Law, *, ordered: bool = False) -> Law:
    """Refuse, on the host, arrays that are no law.

    Args: ordered: whether atoms must be in increasing order.
    Returns: the law as arrays. Raises: ValueError: shapes that differ, NaN, negative weights, weights whose sum is not
      1 within rounding, atoms out of order. Cost: one pass.
    """
    values, probs = np.asarray(law[0]), np.asarray(law[1])
    if values.ndim != 1 or values.shape != probs.shape or values.size == 0:
        raise ValueError(f"values, probs: found shapes {values.shape} and {probs.shape}, expected one [N], N >= 1")
    for name, x in (("values", values), ("probs", probs)):
        if not np.all(np.isfinite(x)):
            raise ValueError(f"{name}: found {x[~np.isfinite(x)][0]}, expected finite numbers")
    if np.any(probs < 0):
        raise ValueError(f"probs: found {probs.min()}, expected numbers >= 0")
    eps = np.finfo(probs.dtype).eps if np.issubdtype(probs.dtype, np.floating) else 0.0
    if abs(probs.sum(dtype=float) - 1) > 8 * probs.size * eps:
        raise ValueError(f"probs: found sum {probs.sum(dtype=float):.17g}, expected 1 within rounding")
    if ordered and np.any(np.diff(values) < 0):
        i = int(np.argmax(np.diff(values) < 0))
        raise ValueError(f"values: found {values[i]} before {values[i + 1]}, expected increasing atoms")
    return Law(jnp.asarray(values), jnp.asarray(probs))


def sort_law(law: Law) -> Law:
    """The law with its atoms in increasing order. Cost: N log N."""
    order = jnp.argsort(law.values)
    return Law(law.values[order], law.probs[order])


def merge(law: Law, *, digits: int = 12) -> Law:
    """The law with equal atoms made one, those of weight 0 dropped, increasing, on the host.

    Args: digits: decimals to which atoms are compared. Returns: a law of at most N atoms. Cost: N log N.
    """
    values, probs = np.asarray(law.values), np.asarray(law.probs)
    values, probs = values[probs > 0], probs[probs > 0]
    atoms, where = np.unique(np.round(values, digits) + 0.0, return_inverse=True)
    return Law(jnp.asarray(atoms), jnp.asarray(np.bincount(where, weights=probs, minlength=atoms.size)))


def quantile_law(quantiles: Float[Array, "N"]) -> Law:
    """The law of N equally likely atoms. Cost: N."""
    return Law(quantiles, jnp.full_like(quantiles, 1 / quantiles.shape[0]))


def categorical_law(points: Lattice, pmf: Float[Array, "Z"]) -> Law:
    """The law with these probabilities on a lattice. Cost: Z."""
    return Law(points.points.astype(pmf.dtype), pmf)


def project_quantile(law: Law, size: int, which: str = "middle") -> Float[Array, "N"]:
    """The `size` equally likely atoms nearest to a law in the Wasserstein distance w_1, or a bracket of it.

    Args:
      law: N atoms. size: int, static.
      which: "middle" takes the quantiles of levels (2 i + 1) / (2 size); "low" those just above i / size (the essential
        infimum for i = 0), "high" those of (i + 1) / size: first-order stochastic dominance low <= law <= high.

    Returns: float[size], increasing. Raises: ValueError for an unknown word.
    Source: Dabney et al. (2018), arXiv 1710.10044, for "middle"; derived: docs/proofs/distributional.md, T12.
    Cost: N log N.
    """
    shift = {"low": 0.0, "middle": 0.5, "high": 1.0}.get(which)
    if shift is None:
        raise ValueError(f"which: found {which!r}, expected 'low', 'middle' or 'high'")
    # padding sorts last: its value must not be taken for the infimum
    values = jnp.where(law.probs > 0, law.values, jnp.inf)
    order = jnp.argsort(values)
    total = jnp.cumsum(law.probs[order])
    total = total / total[-1]
    levels = (jnp.arange(size, dtype=total.dtype) + shift) / size
    # "low" looks just above its level, else at a jump it would fall an atom too far, anew at every backup
    levels = jnp.where(levels > 0, levels + (ROUNDING if which == "low" else -ROUNDING), 0)
    at = jnp.searchsorted(total, levels)
    return law.values[order][jnp.minimum(at, (jnp.sum(law.probs > 0) - 1).astype(at.dtype))]


def project_categorical(law: Law, points: Lattice) -> Float[Array, "Z"]:
    """Probabilities on a lattice: each atom is shared by its two neighbours so that its mean is kept.

    Args: law: N atoms; what lies outside the lattice goes to its ends, and the mean is then lost. points: Z points.
    Returns: float[Z], the nearest law on the lattice in the Cramer distance where nothing lies outside.
    Source: Rowland et al. (2018), as recalled; derived: docs/proofs/distributional.md, T12. Cost: N scattered adds.
    """
    at = place(points, law.values)
    upper = law.probs * at.weight
    pmf = jnp.zeros(points.size, law.probs.dtype)
    return pmf.at[at.index].add(law.probs - upper).at[at.index + 1].add(upper)


def to_stop_loss(points: Lattice, pmf: Float[Array, "*L Z"]) -> Float[Array, "*L Z"]:
    """The stop-loss curve J_j = E max(z_j - G, 0) at the points of a lattice.

    Args: pmf: float[..., Z], probabilities of the points. Returns: float[..., Z], convex, 0 at the first point.
    Source: derived: docs/proofs/distributional.md, T12. Cost: two cumulated sums.
    """
    below = jnp.cumsum(pmf, axis=-1)
    return points.spacing * (jnp.cumsum(below, axis=-1) - below)


def from_stop_loss(points: Lattice, curve: Float[Array, "*L Z"]) -> Float[Array, "*L Z"]:
    """The probabilities of the points from a stop-loss curve: its second differences.

    Args: curve: float[..., Z]. Returns: float[..., Z]; in float32 they lose about (range / spacing) 1e-7.
    Source: derived: docs/proofs/distributional.md, T12. Cost: Z.
    """
    below = jnp.diff(curve, axis=-1) / points.spacing
    below = jnp.concatenate([below, jnp.ones_like(below[..., :1])], axis=-1)
    return jnp.diff(below, axis=-1, prepend=jnp.zeros_like(below[..., :1]))


def interpolate_stop_loss(points: Lattice, curve: Float[Array, "Z"], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """E max(x - G, 0) at any x, exactly, for a law on the lattice.

    Args: curve: float[Z]; x: float[...], in units of reward. Returns: float[...].
    Source: derived: docs/proofs/distributional.md, T12. Cost: two reads per number.
    """
    x = jnp.asarray(x)
    at = place(points, x)
    inside = curve[at.index] + at.weight * (curve[at.index + 1] - curve[at.index])
    return jnp.where(at.below, 0, jnp.where(at.above, curve[-1] + (x - points.high), inside))
