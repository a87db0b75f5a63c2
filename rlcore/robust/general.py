"""Regularised worst case for any convex f, by its one-dimensional dual, and for the Wasserstein distance."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlcore.pytree import pytree
from rlcore.robust.operators import WorstCase, envelope, shared, support
from rlcore.types import Array, Float, Number

__all__ = [
    "CHI2",
    "HELLINGER",
    "KL",
    "REVERSE_KL",
    "TV",
    "FDivergence",
    "Wasserstein",
    "constrained_wasserstein",
    "cressie_read",
    "regularised_f",
    "regularised_wasserstein",
]

BISECTIONS = 100


@dataclasses.dataclass(frozen=True)
class FDivergence:
    """D(q || m) = sum m f(q / m) + slope_at_infinity * (mass of q off the support of m), f convex, f(1) = 0.

    generator: f, on ratios >= 0. ratio: the inverse of f', clipped to ratios >= 0, nondecreasing. slope_at_infinity:
    lim f(t) / t, inf where mass off the support is forbidden. slopes_at_one: left and right derivatives of f at 1.
    Hashable: a static argument.
    """

    name: str
    generator: Callable
    ratio: Callable
    slope_at_infinity: float
    slopes_at_one: tuple[float, float] = (0.0, 0.0)


def _tv_ratio(y):
    return jnp.where(y > -0.5, 1.0, 0.0).astype(y.dtype)


def _below_one(y):
    # At and above the slope at infinity any ratio is a maximiser; the caller places that mass itself.
    return jnp.where(y < 1, 1 - y, jnp.finfo(y.dtype).tiny ** 0.25)


TV = FDivergence("tv", lambda t: jnp.abs(t - 1) / 2, _tv_ratio, 0.5, (-0.5, 0.5))
KL = FDivergence("kl", lambda t: jax.scipy.special.xlogy(t, t), lambda y: jnp.exp(y - 1), jnp.inf, (1.0, 1.0))
CHI2 = FDivergence("chi2", lambda t: (t - 1) ** 2, lambda y: jnp.maximum(1 + y / 2, 0), jnp.inf)
REVERSE_KL = FDivergence("reverse_kl", lambda t: t - 1 - jnp.log(t), lambda y: 1 / _below_one(y), 1.0)
HELLINGER = FDivergence("hellinger", lambda t: (jnp.sqrt(t) - 1) ** 2, lambda y: 1 / _below_one(y) ** 2, 1.0)


def cressie_read(power: float) -> FDivergence:
    """The family (t^k - k t + k - 1) / (k (k - 1)), k > 1; k = 2 is half of chi-square.

    Args: power: k. Raises: ValueError: power <= 1 (use KL, HELLINGER or REVERSE_KL). Cost: O(1).
    """
    if not power > 1:
        raise ValueError(f"power: found {power}, expected a number above 1")
    k = float(power)
    return FDivergence(
        f"cressie_read({k:g})",
        lambda t: (t**k - k * t + k - 1) / (k * (k - 1)),
        lambda y: jnp.maximum(1 + (k - 1) * y, 0) ** (1 / (k - 1)),
        jnp.inf,
    )


def regularised_f(
    divergence: FDivergence, reference: Float[Array, " S"], values: Float[Array, " S"], level: Number
) -> WorstCase:
    """sup over nu of nu - level E_m f*((nu - V) / level): the optimised certainty equivalence of V.

    The centre nu is where the likelihood ratios average to 1, found by bisection; it is at most min_S V +
    level f'(inf), and mass that is then missing sits on the worst of all states.

    Args: divergence: static; reference: float[S], m; values: float[S]; level: float[] in (0, inf); the value rounds by
      some eps of the level, so far above the span of the values (1e8 of it in float32) the closed forms are meant.
    Returns: WorstCase. Source: Ben-Tal and Teboulle (2007), standard duality; cap derived. Cost: 100 passes over S.
    """
    on = support(reference)
    least = jnp.min(values)
    inside = jnp.min(values, where=on, initial=jnp.inf)
    # Off the support V is read through its minimum alone.
    excess = jnp.where(on, values - least, 0)
    level = jnp.asarray(level, excess.dtype)
    cap = level * divergence.slope_at_infinity
    left, right = divergence.slopes_at_one
    low = inside - least + level * left
    high = jnp.minimum(jnp.max(excess) + level * right, cap)
    low = jnp.minimum(low, high)

    def ratios(centre):
        return jnp.where(on, divergence.ratio((centre - excess) / level), 0)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = jnp.dot(reference, ratios(middle), precision="highest") > 1
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    # If even the cap leaves mass over, the bracket shrinks to the cap.
    low, centre = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    t = ratios(low)
    inside_mass = reference * t
    missing = jnp.maximum(1 - jnp.sum(inside_mass), 0)
    capped = centre >= cap
    # Missing mass: to the worst state where the cap holds, else it is rounding (or a jump of the ratio at the centre).
    # At levels far below the rounding of the values the ratio overflows there: cut, it still says where mass goes.
    above = divergence.ratio((_high_side(centre, level) - excess) / level)
    above = jnp.minimum(above, float(jnp.finfo(above.dtype).max) ** 0.5)
    jump = jnp.where(on, above, 0) * reference - inside_mass
    total_jump = jnp.sum(jump)
    share = jnp.clip(missing / jnp.where(total_jump > 0, total_jump, 1), 0, 1)
    kernel = jnp.where(capped, inside_mass + shared(missing, values == least, reference), inside_mass + share * jump)
    kernel = kernel / jnp.sum(kernel)
    y = (centre - excess) / level
    conjugate = jnp.where(on, y * t - divergence.generator(jnp.where(on, t, 1)), 0)
    value = centre - level * jnp.dot(reference, conjugate, precision="highest")
    transported = jnp.dot(kernel, jnp.where(on, excess, 0), precision="highest")
    slope = (value - transported) / level
    value = envelope(least + value, kernel, values, slope, level, -level * conjugate, reference)
    return WorstCase(value, kernel, least + centre)


def _high_side(centre: Float[Array, ""], level: Float[Array, ""]) -> Float[Array, ""]:
    """A point just above the centre, by a few roundings."""
    return centre + 8 * jnp.finfo(centre.dtype).eps * (jnp.abs(centre) + level)


@pytree
class Wasserstein:
    """The Wasserstein-1 distance of a ground cost; cost: float[S, S] >= 0, 0 on the diagonal."""

    cost: Array


def regularised_wasserstein(
    reference: Float[Array, " S"], values: Float[Array, " S"], level: Number, cost: Float[Array, "S S"]
) -> WorstCase:
    """E_m min over s' of V(s') + level cost(s, s'): every state's mass goes where that is least.

    Args: reference: float[S], m; values: float[S]; level: float[] >= 0; cost: float[S, S].
    Returns: WorstCase; dual: the level. Source: Kantorovich duality; derived. Cost: S^2.
    """
    price = jnp.asarray(level, values.dtype)
    # At the price inf nothing moves that costs anything; inf * 0 is no number.
    total = values[None, :] + jnp.where(cost > 0, price * jnp.where(cost > 0, cost, 0), 0)
    target = jnp.argmin(total, axis=1)
    best = jnp.take_along_axis(total, target[:, None], axis=1)[:, 0]
    kernel = jnp.zeros_like(reference).at[target].add(reference)
    paid = jnp.dot(reference, jnp.take_along_axis(cost, target[:, None], axis=1)[:, 0], precision="highest")
    value = jnp.dot(reference, best, precision="highest")
    return WorstCase(envelope(value, kernel, values, paid, level, best, reference), kernel, price)


def constrained_wasserstein(
    reference: Float[Array, " S"], values: Float[Array, " S"], radius: Number, cost: Float[Array, "S S"]
) -> WorstCase:
    """The worst law within transport cost `radius`: bisection on the price, then the mixture that spends the radius.

    Args: reference: float[S], m; values: float[S]; radius: float[] >= 0; cost: float[S, S].
    Returns: WorstCase. Source: Kantorovich duality; derived. Cost: 60 S^2.
    """
    away = jnp.where(cost > 0, cost, jnp.inf)
    # Above the largest slope nothing moves.
    steepest = jnp.max(jnp.maximum(values[:, None] - values[None, :], 0) / away)

    def plan(price):
        target = jnp.argmin(values[None, :] + price * cost, axis=1)
        paid = jnp.dot(reference, jnp.take_along_axis(cost, target[:, None], axis=1)[:, 0], precision="highest")
        return jnp.zeros_like(reference).at[target].add(reference), paid

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        spends = plan(middle)[1] > radius
        return jnp.where(spends, middle, low), jnp.where(spends, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(steepest), 2 * steepest))
    # One rounding to each side: the loop may have rounded its sums differently.
    slack = 8 * jnp.finfo(values.dtype).eps * (high + jnp.max(jnp.abs(values)) / jnp.min(away))
    (far, paid_far), (near, paid_near) = plan(low - slack), plan(high + slack)
    extra = paid_far - paid_near
    weight = jnp.clip((radius - paid_near) / jnp.where(extra > 0, extra, 1), 0, 1)
    kernel = weight * far + (1 - weight) * near
    free = plan(jnp.zeros_like(steepest))
    kernel, price = jnp.where(free[1] <= radius, free[0], kernel), jnp.where(free[1] <= radius, 0, high)
    value = jnp.dot(kernel, values, precision="highest")
    law_slope = jnp.min(values[None, :] + price * cost, axis=1)
    return WorstCase(envelope(value, kernel, values, -price, radius, law_slope, reference), kernel, price)
