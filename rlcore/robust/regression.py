"""Exact maxima over a cut of regressed targets, with weights of either sign.

Regression weights may be negative, so the sample versions of the duals are neither concave nor unimodal: the maxima
here look at every piece, with one sort and prefix sums shared by all factors.
"""

import jax
import jax.numpy as jnp

from rlcore.types import Array, Float, Number

__all__ = ["largest_capped_mean", "largest_mean_variance"]


def _sums(weights, targets):
    """Sums over the targets up to and with each: of w y, of w y^2, and of the weights beyond it."""
    total = jnp.cumsum(weights)
    return jnp.cumsum(weights * targets), jnp.cumsum(weights * targets**2), total[-1] - total


def largest_capped_mean(
    weights: Float[Array, "d K"],
    targets: Float[Array, " K"],
    radius: Number | Float[Array, " d"],
    low: Number,
    high: Number,
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """max over cuts a in [0, high] of sum_k w_k min(y_k, a) - radius (a - min(low, a)), for each row of weights.

    Piecewise linear in a, with breaks at the targets, 0, `low` and `high`: the largest of the values there.

    Args: weights: float[d, K], any sign; targets: float[K] >= 0; radius: float[] or float[d]; low, high: float[], the
      least value and the largest cut.
    Returns: (float[d] maxima, float[d] maximisers). Source: derived: docs/proofs/robust.md#signed.
    Cost: K log K + d K, memory K: one row at a time.
    """
    order = jnp.argsort(targets)
    y = targets[order]
    low, high = jnp.asarray(low, y.dtype), jnp.asarray(high, y.dtype)
    cuts = jnp.clip(jnp.concatenate([jnp.stack([jnp.zeros_like(high), low, high]), y]), 0, high)
    at_most = jnp.searchsorted(y, cuts, side="right")
    spent = cuts - jnp.minimum(low, cuts)

    def row(at):
        w, radius = at
        w = w[order]
        first, _, beyond = _sums(w, y)
        below = jnp.concatenate([jnp.zeros(1, y.dtype), first])[at_most]
        above = jnp.concatenate([jnp.sum(w)[None], beyond])[at_most]
        value = below + above * cuts - radius * spent
        best = jnp.argmax(value)
        return value[best], cuts[best]

    radius = jnp.broadcast_to(jnp.asarray(radius, y.dtype), (weights.shape[0],))
    return jax.lax.map(row, (weights, radius))


def largest_mean_variance(
    weights: Float[Array, "d K"],
    targets: Float[Array, " K"],
    level: Number | Float[Array, " d"],
    low: Number,
    high: Number,
    clip: tuple[Number, Number] | None = None,
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """max over cuts a in [low, high] of z + (z^2 - z2) / (4 level), z = sum w min(y, a), z2 = sum w min(y, a)^2.

    Piecewise quadratic in a: between two targets the ends, the vertices, and where z or z2 reaches a clip.

    Args: weights: float[d, K], any sign; targets: float[K]; level: float[] or float[d] > 0; low, high: float[];
      clip: (largest z, largest z2), both then also at least 0; None leaves them.
    Returns: (float[d] maxima, float[d] maximisers). Source: derived: docs/proofs/robust.md#signed.
    Cost: K log K + d K, memory K: one row at a time.
    """
    order = jnp.argsort(targets)
    y = targets[order]
    low, high = jnp.asarray(low, y.dtype), jnp.asarray(high, y.dtype)
    left = jnp.clip(jnp.concatenate([low[None], y]), low, high)
    right = jnp.clip(jnp.concatenate([y, high[None]]), low, high)
    none = jnp.zeros(1, y.dtype)
    # A piece that the range of cuts does not meet has another formula there.
    edge = jnp.full(1, jnp.inf, y.dtype)
    met = (jnp.concatenate([y, edge]) >= low) & (jnp.concatenate([-edge, y]) <= high)

    def row(at):
        w, level = at
        w = w[order]
        first, second, beyond = _sums(w, y)
        # On the piece between two targets z = a0 + b cut and z2 = c0 + b cut^2.
        a0, c0 = jnp.concatenate([none, first]), jnp.concatenate([none, second])
        b = jnp.concatenate([jnp.sum(w)[None], beyond])

        def objective(cut):
            z, z2 = a0 + b * cut, c0 + b * cut**2
            if clip is not None:
                z, z2 = jnp.clip(z, 0, clip[0]), jnp.clip(z2, 0, clip[1])
            return z + (z**2 - z2) / (4 * level)

        moves = b != 0
        safe = jnp.where(moves, b, 1)
        bend = b**2 - b
        vertex = -(2 * level + a0) * b / jnp.where(bend < 0, bend, 1)
        cuts = [left, right, jnp.where(bend < 0, vertex, left)]
        if clip is not None:
            cuts += [jnp.where(moves, (bound - a0) / safe, left) for bound in (0, clip[0])]
            for bound in (0, clip[1]):
                root = jnp.sqrt(jnp.maximum(jnp.where(moves, (bound - c0) / safe, 0), 0))
                cuts += [root, -root]
            # Where z is clipped only z2 moves, and the other way round.
            cuts += [jnp.zeros_like(b), jnp.where(moves, -(2 * level + a0) / safe, left)]
        value, cut = objective(left), left
        for other in cuts[1:]:
            other = jnp.clip(other, left, right)
            better = objective(other) > value
            value, cut = jnp.where(better, objective(other), value), jnp.where(better, other, cut)
        value = jnp.where(met, value, -jnp.inf)
        best = jnp.argmax(value)
        return value[best], cut[best]

    level = jnp.broadcast_to(jnp.asarray(level, y.dtype), (weights.shape[0],))
    return jax.lax.map(row, (weights, level))
