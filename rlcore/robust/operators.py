"""Worst-case expectations: what an adversary who may change a law can make of it, at a price or within a ball.

The three numbers of every operator are one `WorstCase`; `rlcore.robust.worst_case` picks the operator by name. Written
for one law m over S states; `jax.vmap` over factors, levels and instances. First derivatives of `value` are those of
the envelope theorem (the kernel does not move), so the gradient in the values IS the worst kernel; second derivatives
are not meant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.types import Array, Bool, Float, Number

__all__ = ["WorstCase", "support"]


class WorstCase(NamedTuple):
    """The outcome of a worst-case operator.

    value: float[]. worst_kernel: float[S], a law that attains it. dual: float[]: with a price, the centre nu at which
    the worst kernel has likelihood ratio (f')^-1((nu - V) / level); within a ball, the price (multiplier) that makes
    both problems one.
    """

    value: Array
    worst_kernel: Array
    dual: Array


def support(reference: Float[Array, " S"]) -> Bool[Array, " S"]:
    """The states that the reference law can reach. Cost: S."""
    return reference > 0


def lowest(values: Float[Array, " S"], where: Bool[Array, " S"]) -> Float[Array, ""]:
    """The least value on a set of states that is not empty."""
    return jnp.min(values, where=where, initial=jnp.inf)


def highest(values: Float[Array, " S"], where: Bool[Array, " S"]) -> Float[Array, ""]:
    """The largest value on a set of states that is not empty."""
    return jnp.max(values, where=where, initial=-jnp.inf)


def shared(mass: Number, where: Bool[Array, " S"], weights: Float[Array, " S"]) -> Float[Array, " S"]:
    """Mass spread over a set in proportion to weights, evenly where all of them are 0."""
    inside = jnp.where(where, weights, 0)
    total = jnp.sum(inside)
    inside_set = jnp.where(where, 1, 0).astype(weights.dtype)
    even = inside_set / jnp.sum(inside_set)
    return mass * jnp.where(total > 0, inside / jnp.where(total > 0, total, 1), even)


def log1p(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(1 + x) to a few roundings: XLA's own is off by a hundred of them for x between -1/2 and -1/4 on CPU."""
    near = x > -0.25
    return jnp.where(near, jnp.log1p(jnp.where(near, x, 0)), jnp.log(1 + jnp.where(near, 0, x)))


def envelope(
    value: Float[Array, ""],
    kernel: Float[Array, " S"],
    values: Float[Array, " S"],
    level_slope: Number,
    level: Number,
    law_slope: Float[Array, " S"],
    reference: Float[Array, " S"],
) -> Float[Array, ""]:
    """`value`, whose derivatives are the kernel in the values and the given slopes in the level and the reference.

    By Danskin's theorem these are the derivatives of an infimum that a unique law attains. A rule, not terms that are
    0: where nobody asks for derivatives or the kernel, the compiler drops what only they need.
    """
    slopes = jax.lax.stop_gradient((value, kernel, jnp.asarray(level_slope), law_slope))
    return _with_slopes(*slopes, values, jnp.asarray(level), reference)


@jax.custom_jvp
def _with_slopes(value, kernel, level_slope, law_slope, values, level, reference):
    del kernel, level_slope, law_slope, values, level, reference
    return value


@_with_slopes.defjvp
def _(primals, tangents):
    value, kernel, level_slope, law_slope, *_ = primals
    *_, values, level, reference = tangents
    finite = lambda x: jnp.where(jnp.isfinite(x), x, 0)  # noqa: E731
    # Off the support nothing of the values is read.
    moved = jnp.sum(jnp.where(kernel > 0, kernel * values, 0)) + jnp.sum(finite(law_slope) * reference)
    return value, moved + finite(level_slope) * level
