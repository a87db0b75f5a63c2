"""Statistical functionals of laws with finitely many atoms: expectations, tails, quantiles, expectiles, risk spectra.

Each takes a `Law` in any order and returns a number in units of reward (or of utility); batch by `vmap`. As arguments
of `dist_vi`, bind their parameters: `functools.partial(cvar, level=0.1)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.laws import ROUNDING, Law, sort_law
from rlcore.types import Array, Float, Number

__all__ = [
    "almost_surely_nonnegative",
    "check_level",
    "cvar",
    "entropic",
    "essential_infimum",
    "expected_utility",
    "expectile",
    "mean",
    "optimistic_cvar",
    "orders_alike",
    "shifts_alike",
    "spectral",
    "value_at_risk",
    "variance",
]


def check_level(
    level: Number | list | Float[Array, "L"], name: str = "level", *, zero: bool = False, one: bool = True
) -> None:
    """Refuse a level that is not in (0, 1], or with the ends that the flags say; tracers are the caller's promise.

    Raises: ValueError. Cost: O(1).
    """
    if isinstance(level, jax.core.Tracer):
        return
    x = np.asarray(level, float)
    if not np.all((x >= 0 if zero else x > 0) & (x <= 1 if one else x < 1)):
        ends = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise ValueError(f"{name}: found {level}, expected a number in {ends}")


def expected_utility(law: Law, utility: Callable) -> Float[Array, ""]:
    """E f(X). Args: utility: any elementwise function. Cost: N."""
    return jnp.sum(jnp.where(law.probs == 0, 0, law.probs * utility(law.values)))


def mean(law: Law) -> Float[Array, ""]:
    """E X. Cost: N."""
    return jnp.sum(law.probs * law.values)


def variance(law: Law) -> Float[Array, ""]:
    """E (X - E X)^2. Cost: N."""
    return jnp.sum(law.probs * (law.values - mean(law)) ** 2)


def _shares(law: Law, lower: Number, upper: Number) -> Float[Array, "N"]:
    """How much of each atom, sorted, lies between two levels of the distribution function."""
    total = jnp.cumsum(law.probs)
    before = total - law.probs
    return jnp.clip(total, lower, upper) - jnp.clip(before, lower, upper)


def cvar(law: Law, level: Number) -> Float[Array, ""]:
    """The mean of the worst share `level` of a law; level 1 is the mean.

    Args: level: float[] in (0, 1]. Raises: ValueError for another. Source: Rockafellar and Uryasev (2000).
    Cost: N log N; level N need not be whole.
    """
    check_level(level)
    law = sort_law(law)
    return jnp.sum(_shares(law, 0.0, level) * law.values) / level


def optimistic_cvar(law: Law, level: Number) -> Float[Array, ""]:
    """The mean of the best share `level` of a law. Args, Raises: as in `cvar`. Cost: N log N."""
    return -cvar(Law(-law.values, law.probs), level)


def value_at_risk(law: Law, level: Number) -> Float[Array, ""]:
    """The largest b with P(X >= b) >= 1 - level: the upper quantile.

    Args: level: float[] in [0, 1). Raises: ValueError for another. Cost: N log N.
    """
    check_level(level, zero=True, one=False)
    law = sort_law(law)
    before = jnp.cumsum(law.probs) - law.probs
    reached = (before <= level + ROUNDING) & (law.probs > 0)
    return jnp.max(jnp.where(reached, law.values, -jnp.inf))


def expectile(law: Law, level: Number) -> Float[Array, ""]:
    """The e with level E max(X - e, 0) = (1 - level) E max(e - X, 0).

    Args: level: float[] in (0, 1); 1/2 is the mean. Raises: ValueError for another. Source: Newey and Powell (1987).
    Cost: N log N, exact.
    """
    check_level(level, one=False)
    law = sort_law(law)
    below = jnp.cumsum(law.probs)
    part = jnp.cumsum(law.probs * law.values)
    # on [x_i, x_{i+1}] the root solves a linear equation; it is the root if it lies there
    weight = level * (below[-1] - below) + (1 - level) * below
    root = (level * (part[-1] - part) + (1 - level) * part) / weight
    next_value = jnp.append(law.values[1:], jnp.inf)
    # excess at x_{i+1} is decreasing in i: the first i where it is <= 0 holds the root
    excess = level * (part[-1] - part) + (1 - level) * part - weight * next_value
    i = jnp.argmax(excess <= 0)
    return jnp.clip(root[i], law.values[i], next_value[i])


def entropic(law: Law, beta: Number) -> Float[Array, ""]:
    """log E exp(beta X) / beta: risk averse for beta < 0, seeking for beta > 0.

    Args: beta: float[], not 0, per unit of reward. Raises: ValueError for 0 or NaN. Source: Howard and Matheson (1972).
    Cost: N exponentials.
    """
    if not isinstance(beta, jax.core.Tracer) and not np.all(np.abs(np.asarray(beta, float)) > 0):
        raise ValueError(f"beta: found {beta}, expected a number other than 0: the limit is `mean`")
    exponent = jnp.where(law.probs > 0, beta * law.values, -jnp.inf)
    largest = jnp.max(exponent)
    return (largest + jnp.log(jnp.sum(law.probs * jnp.exp(exponent - largest)))) / beta


def spectral(law: Law, levels: Float[Array, "m"], weights: Float[Array, "m"]) -> Float[Array, ""]:
    """A weighted sum of CVaRs, sum_i weights_i CVaR_{levels_i}: a spectral risk with a step spectrum.

    Args: levels: float[m] in (0, 1]; weights: float[m], >= 0, summing to 1.
    Raises: ValueError: levels or weights out of range. Source: Acerbi (2002). Cost: N log N + N m.
    """
    check_level(levels, "levels")
    if not isinstance(weights, jax.core.Tracer):
        given = np.asarray(weights)
        if not np.all(given >= 0) or abs(given.sum() - 1) > 8 * given.size * np.finfo(given.dtype).eps:
            raise ValueError(f"weights: found {given.tolist()}, expected numbers >= 0 that sum to 1")
    levels, weights = jnp.asarray(levels), jnp.asarray(weights)
    law = sort_law(law)
    total = jnp.cumsum(law.probs)[:, None]
    share = jnp.clip(total, 0.0, levels[None]) - jnp.clip(total - law.probs[:, None], 0.0, levels[None])
    return jnp.sum(share * law.values[:, None] * (weights / levels)[None])


def essential_infimum(law: Law) -> Float[Array, ""]:
    """The least value that occurs. Cost: N."""
    return jnp.min(jnp.where(law.probs > 0, law.values, jnp.inf))


def almost_surely_nonnegative(law: Law) -> Float[Array, ""]:
    """1 if no negative value occurs, else 0. Cost: N."""
    return (essential_infimum(law) >= -ROUNDING).astype(law.values.dtype)


# K(X) >= K(Y) implies K(g X) >= K(g Y) for every g > 0, and K(c + X) >= K(c + Y) for every c.
BOTH = frozenset({cvar, essential_infimum, expectile, mean, optimistic_cvar, spectral, value_at_risk, variance})
SCALES = BOTH | {almost_surely_nonnegative}
SHIFTS = BOTH | {entropic}


def orders_alike(functional: Callable) -> bool:
    """Whether a functional of this module, bound to parameters or not, orders laws alike at every scale.

    Returns: False where it does not (entropic) or where that is not known here. Cost: O(1).
    """
    return getattr(functional, "func", functional) in SCALES


def shifts_alike(functional: Callable) -> bool:
    """Whether a functional of this module, bound to parameters or not, orders laws alike after every shift.

    Returns: False where it does not (almost_surely_nonnegative) or where that is not known here. Cost: O(1).
    """
    return getattr(functional, "func", functional) in SHIFTS
