"""Regularised worst case, inf over laws q of E_q V + level D(q || m): TV, KL and chi-square in closed form.

D is TV (total variation) = sum |q - m| / 2, KL = sum q log(q / m) or chi-square = sum (q - m)^2 / m. KL and chi-square
keep q on the support of m; TV may move mass to any of the S states. All share: monotone in V; value(V + c) = value + c;
1-Lipschitz in the maximum norm; concave jointly in (V, level) and nondecreasing in the level. level = inf gives E_m V,
level = 0 the least value (over all states for TV, over the support otherwise).
"""

import jax
import jax.numpy as jnp

from rlcore.robust.operators import WorstCase, envelope, log1p, lowest, shared, support
from rlcore.types import Array, Bool, Float, Number

__all__ = ["regularised_chi2", "regularised_kl", "regularised_tv"]


def regularised_tv(reference: Float[Array, " S"], values: Float[Array, " S"], level: Number) -> WorstCase:
    """E_m min(V, V_min + level): the mass of every state above the cut moves to the worst state.

    Args: reference: float[S], m; values: float[S]; level: float[] >= 0, in units of value.
    Returns: WorstCase; mass moved to tied worst states is shared in proportion to m, evenly if m is 0 there.
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, read in the authors' slides. Cost: O(S).
    """
    level = jnp.asarray(level, values.dtype)
    least = jnp.min(values)
    cut = least + level
    kept = jnp.where(values <= cut, reference, 0)
    moved = jnp.sum(jnp.where(values > cut, reference, 0))
    kernel = kept + shared(moved, values == least, reference)
    capped = jnp.minimum(values, cut)
    value = least + jnp.dot(reference, jnp.minimum(values - least, level), precision="highest")
    value = envelope(value, kernel, values, moved, level, capped, reference)
    return WorstCase(value, kernel, least + level / 2)


def regularised_kl(reference: Float[Array, " S"], values: Float[Array, " S"], level: Number) -> WorstCase:
    """-level log E_m exp(-V / level), the entropic risk of V.

    Args: reference: float[S], m; values: float[S]; level: float[] >= 0, in units of value per nat.
    Returns: WorstCase; the worst kernel is proportional to m exp(-V / level).
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, read in the authors' slides. Cost: O(S), S exponentials.
    """
    level = jnp.asarray(level, values.dtype)
    on = support(reference)
    least = lowest(values, on)
    excess = jnp.where(on, values - least, 0)
    priced = _priced(level)
    safe = jnp.where(priced, level, 1)
    weights = reference * jnp.exp(-excess / safe)
    total = jnp.sum(weights)
    # Near a sum of 1 the plain logarithm loses level * eps; far from it log1p would cancel.
    shortfall = jnp.dot(reference, jnp.expm1(-excess / safe), precision="highest")
    log_total = jnp.where(shortfall > -0.25, log1p(jnp.maximum(shortfall, -0.25)), jnp.log(total))
    mean = jnp.dot(reference, excess, precision="highest")
    at_worst = shared(1.0, on & (excess == 0), reference)
    value = least + jnp.where(priced, -safe * log_total, jnp.where(level > 0, mean, 0))
    kernel = jnp.where(priced, weights / total, jnp.where(level > 0, reference, at_worst))
    slope = jnp.where(priced, -log_total - jnp.dot(kernel, excess / safe, precision="highest"), 0)  # KL(q || m)
    law_slope = jnp.where(priced, jnp.where(on, -safe * jnp.exp(-excess / safe) / total, 0), jnp.where(on, values, 0))
    value = envelope(value, kernel, values, slope, level, law_slope, reference)
    centre = jnp.where(priced, least + safe * (1 - log_total), jnp.where(level > 0, jnp.inf, least))
    return WorstCase(value, kernel, centre)


def regularised_chi2(reference: Float[Array, " S"], values: Float[Array, " S"], level: Number) -> WorstCase:
    """E_m W - Var_m(W) / (4 level) with W = min(V, cut): monotone mean-variance.

    The cut solves E_m (cut - V)_+ = 2 level, whose left side is convex and piecewise linear in the cut: Newton's method
    from the right ends at it after at most S steps, exactly, and needs no sort.

    Args: reference: float[S], m; values: float[S]; level: float[] >= 0, in units of value.
    Returns: WorstCase; the worst kernel is m (1 - (V - nu) / (2 level))_+, nu = cut - 2 level.
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, dual read in the authors' slides; exact cut derived:
      docs/proofs/robust.md#chi2. Cost: O(S) a step, below 10 steps as a rule; a batch takes as many as its slowest.
    """
    level = jnp.asarray(level, values.dtype)
    on = support(reference)
    least = lowest(values, on)
    excess = jnp.where(on, values - least, 0)
    priced = _priced(level)
    safe = jnp.where(priced, level, 1)
    centre = _centre(reference, excess, 2 * safe)
    capped = jnp.minimum(excess, centre + 2 * safe)
    deviation = jnp.minimum(excess - centre, 2 * safe)
    weights = jnp.where(on, reference * jnp.maximum(1 - (excess - centre) / (2 * safe), 0), 0)
    mean = jnp.dot(reference, excess, precision="highest")
    spread = jnp.dot(reference, deviation**2, precision="highest") / (4 * safe)
    inside = jnp.dot(reference, capped, precision="highest") - spread
    at_worst = shared(1.0, on & (excess == 0), reference)
    value = least + jnp.where(priced, inside, jnp.where(level > 0, mean, 0))
    kernel = jnp.where(priced, weights / jnp.sum(weights), jnp.where(level > 0, reference, at_worst))
    law_slope = jnp.where(priced, capped - deviation**2 / (4 * safe), values - least)
    slope = jnp.where(priced, spread / safe, 0)
    value = envelope(value, kernel, values, slope, level, jnp.where(on, law_slope, 0), reference)
    nu = least + jnp.where(priced, centre, jnp.where(level > 0, mean, 0))
    return WorstCase(value, kernel, nu)


def _priced(level: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether a level has a price: neither 0 nor so large that twice it is infinite."""
    return (level > 0) & (level < jnp.finfo(level.dtype).max / 4)


def _centre(reference: Float[Array, " S"], excess: Float[Array, " S"], short: Float[Array, ""]) -> Float[Array, ""]:
    """The cut less `short`, where E (cut - excess)_+ = short > 0 and excess >= 0 is 0 with positive probability."""
    reference, excess, short = jax.lax.stop_gradient((reference, excess, short))

    def newton(state):
        cut, _ = state
        below = jnp.where(excess < cut, reference, 0)
        new = (short + jnp.sum(below * excess)) / jnp.sum(below)
        # The same set gives the same number, and sets only shrink: this ends, whatever the rounding.
        return new, new < cut

    start = short + jnp.dot(reference, excess, precision="highest")
    cut, _ = jax.lax.while_loop(lambda state: state[1], newton, (start, short > 0))
    # Less `short` without subtracting it: the mean itself where nothing is cut, so a large price loses no digit.
    below = jnp.where(excess < cut, reference, 0)
    above = jnp.sum(jnp.where(excess < cut, 0, reference))
    return (jnp.sum(below * excess) + short * above) / jnp.sum(below)
