"""`Bound`: one inequality lhs <= rhs on one random instance, and the only rule by which it passes."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.types import Array, Bool, Float, Number, PyTree

# The only slack a bound gets beyond its certified solver error: 64 units of rounding of its terms.
TOLERANCE_IN_EPS = 64
# A falsifier bites where the broken claim misses by this many tolerances.
BITE = 100


class Bound(NamedTuple):
    """The claim lhs <= rhs; every field is a scalar or broadcasts to one shape (several inequalities at once).

    lhs, rhs: the two sides.
    scale: the sum of the absolute terms that were added to form them: rounding is proportional to it.
    error: a certified bound on the error that solves inside the claim put into lhs - rhs.
    applies: whether the premise holds on this instance.
    trivial: the a-priori range of lhs: where rhs plus the tolerance reaches it the claim says nothing.
    """

    lhs: PyTree
    rhs: PyTree
    scale: PyTree
    error: PyTree = 0.0
    applies: PyTree = True
    trivial: PyTree = jnp.inf


class Sampled(NamedTuple):
    """The claim E[value] <= rhs from independent values in [low, high] on one fixed instance.

    values: float[R], one per fresh data set; 0 or 1 for "the event fails with probability at most rhs".
    rhs, low, high, scale, error, applies, trivial: scalars, as in `Bound`.
    """

    values: PyTree
    rhs: PyTree
    low: PyTree
    high: PyTree
    scale: PyTree
    error: PyTree = 0.0
    applies: PyTree = True
    trivial: PyTree = jnp.inf


class Summary(NamedTuple):
    """What one instance says; all scalars.

    applies: some inequality of the instance has its premise.
    passes: every applicable inequality holds within its tolerance; NaN and infinities fail, a NaN premise too.
    trivial: no applicable inequality can fail: rhs + tolerance >= trivial, or error >= scale.
    bites: some inequality, applicable or not, fails by at least BITE tolerances (finite numbers only).
    slack: the largest (lhs - rhs - error) / scale among the applicable ones; negative is room to spare.
    tightness: the largest lhs / rhs among applicable ones with rhs clear of rounding; -inf where there is none.
    excess: the largest (lhs - rhs) / (|lhs| + |rhs|), the objective of an attack.
    """

    applies: Bool[Array, ""]
    passes: Bool[Array, ""]
    trivial: Bool[Array, ""]
    bites: Bool[Array, ""]
    slack: Float[Array, ""]
    tightness: Float[Array, ""]
    excess: Float[Array, ""]


def identity(lhs: PyTree, rhs: PyTree, scale: PyTree, error: Number = 0.0, applies: PyTree = True) -> Bound:
    """The identity lhs = rhs as its two inequalities, stacked along a new leading axis.

    Args: as in `Bound`; lhs, rhs, scale and applies broadcast.
    Returns: a `Bound` with leading axis 2.
    """
    fields = jnp.broadcast_arrays(*(jnp.asarray(x) for x in (lhs, rhs, scale, error, applies)))
    lhs, rhs, *rest = fields
    # Every field has one shape, so that the identity may stand inside a vmap.
    fields = [jnp.stack([lhs, rhs]), jnp.stack([rhs, lhs]), *(jnp.stack([x, x]) for x in rest)]
    return Bound(*fields, trivial=jnp.full_like(fields[0], jnp.inf))


def tolerance(bound: Bound | Sampled) -> Array:
    """64 eps scale + error, and nothing else."""
    scale = jnp.asarray(bound.scale)
    return TOLERANCE_IN_EPS * jnp.finfo(scale.dtype).eps * scale + bound.error


def _flat(bound: Bound) -> Bound:
    """The fields as float64 vectors of one length."""
    fields = [jnp.asarray(x, jnp.float64) for x in bound]
    shape = jnp.broadcast_shapes(*(x.shape for x in fields))
    return Bound(*(jnp.broadcast_to(x, shape).ravel() for x in fields))


def summarise(bounds: PyTree) -> Summary:
    """Reduce the inequalities of one instance to a `Summary`.

    Args:
      bounds: one `Bound` or a sequence of them, all about the same instance.
    Raises: TypeError if the claim returned something else.
    """
    if isinstance(bounds, Bound):
        bounds = [bounds]
    if not isinstance(bounds, (list, tuple)) or not bounds or not all(isinstance(b, Bound) for b in bounds):
        raise TypeError(f"claim: found a result of type {type(bounds).__name__}, expected a Bound or a list of Bounds")
    lhs, rhs, scale, error, applies, trivial = (
        jnp.concatenate(field) for field in zip(*map(_flat, bounds), strict=True)
    )
    known = ~jnp.isnan(applies) & ~jnp.isnan(trivial)
    applies = applies != 0  # NaN counts as applying, and fails
    tol = tolerance(Bound(lhs, rhs, scale, error))
    finite = known & jnp.isfinite(lhs) & jnp.isfinite(rhs) & jnp.isfinite(tol) & (tol >= 0)
    miss = lhs - rhs
    # lhs / rhs is a ratio of the mathematics only where both are far above rounding.
    clear = applies & finite & (rhs > BITE * tol)
    ratio = jnp.where(clear, lhs / jnp.where(clear, rhs, 1.0), -jnp.inf)
    unit = jnp.where(scale > 0, scale, 1.0)
    size = jnp.abs(lhs) + jnp.abs(rhs)
    return Summary(
        applies=jnp.any(applies),
        passes=jnp.all((finite & (miss <= tol)) | ~applies),
        # |lhs - rhs| <= scale: an error as large as the terms excuses everything.
        trivial=jnp.all((rhs + tol >= trivial) | ((error > 0) & (error >= scale)) | ~applies),
        bites=jnp.any(finite & (miss > 0) & (miss >= BITE * tol)),
        slack=jnp.max(jnp.where(applies, jnp.where(finite, (miss - error) / unit, jnp.inf), -jnp.inf)),
        tightness=jnp.max(ratio),
        excess=jnp.max(jnp.where(clear, miss / jnp.where(size > 0, size, 1.0), -jnp.inf)),
    )
