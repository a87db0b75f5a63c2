"""Constrained worst case, inf of E_q V over the laws q within a ball of radius rho around m: exact solvers.

Total variation (radius at most 1), KL, chi-square, and CVaR, whose ball is q <= m / level. By Lagrange duality the
value is the maximum over prices of (regularised value - price * radius); `dual` is the maximising price.
"""

import jax
import jax.numpy as jnp

from rlcore.robust.operators import WorstCase, envelope, highest, log1p, lowest, shared, support
from rlcore.types import Array, Float, Number

__all__ = ["constrained_chi2", "constrained_kl", "constrained_tv", "cvar"]

BISECTIONS = 64


def constrained_tv(reference: Float[Array, " S"], values: Float[Array, " S"], radius: Number) -> WorstCase:
    """Mass `radius` moves from the best states to the worst of all states.

    Args: reference: float[S], m; values: float[S]; radius: float[] in [0, 1].
    Returns: WorstCase; dual: the least atom above which m has at most the radius, less the least value.
    Source: Liu and Xu (2024), arXiv 2403.09621; dual max_a E min(V, a) - radius (a - min V). Cost: O(S log S).
    """
    radius = jnp.asarray(radius, values.dtype)
    least = jnp.min(values)
    excess = values - least
    order = jnp.argsort(-excess)
    p = reference[order]
    above = jnp.cumsum(p) - p
    removed = jnp.clip(radius - above, 0, p)
    moved = jnp.sum(removed)
    kept = jnp.zeros_like(reference).at[order].set(p - removed)
    kernel = kept + shared(moved, excess == 0, reference)
    price = lowest(excess[order], above <= radius)
    value = least + jnp.dot(kept, excess, precision="highest")
    value = envelope(value, kernel, values, -price, radius, jnp.minimum(values, least + price), reference)
    return WorstCase(value, kernel, price)


def cvar(reference: Float[Array, " S"], values: Float[Array, " S"], level: Number) -> WorstCase:
    """Mean of the lowest `level` mass: the ball of laws with q <= m / level.

    Args: reference: float[S], m; values: float[S]; level: float[] in (0, 1]; 1 is the mean.
    Returns: WorstCase; dual: the level-quantile (value at risk).
    Source: Rockafellar and Uryasev (2000). Cost: O(S log S).
    """
    level = jnp.asarray(level, values.dtype)
    on = support(reference)
    least = lowest(values, on)
    excess = jnp.where(on, values - least, 0)
    # States off the support go last: the quantile is a value that m can reach.
    order = jnp.argsort(jnp.where(on, excess, jnp.inf))
    p = reference[order]
    below = jnp.cumsum(p) - p
    taken = jnp.clip(level - below, 0, p)
    kernel = jnp.zeros_like(reference).at[order].set(taken / jnp.sum(taken))
    quantile = highest(excess[order], (below < level) & (p > 0))
    value = least + jnp.dot(kernel, excess, precision="highest")
    # value = max_a a - E(a - V)_+ / level
    short = jnp.maximum(quantile - excess, 0)
    level_slope = jnp.dot(reference, short, precision="highest") / level**2
    law_slope = jnp.where(on, least + quantile - short / level, 0)
    return WorstCase(
        envelope(value, kernel, values, level_slope, level, law_slope, reference), kernel, least + quantile
    )


def constrained_kl(reference: Float[Array, " S"], values: Float[Array, " S"], radius: Number) -> WorstCase:
    """sup over b > 0 of -b log E_m exp(-V / b) - b radius; b by bisection on KL(q_b || m) = radius, in log b.

    Args: reference: float[S], m; values: float[S]; radius: float[] >= 0, nats.
    Returns: WorstCase; dual b, 0 where the ball reaches the law that sits on the least value of the support.
    Source: Hu and Hong (2013) for the dual; bracket derived: KL(q_b || m) <= span^2 / (8 b^2) bounds b from above; from
      below log b >= log span - 20 unless minima nearly tie, which costs at most 2e-9 radius span. Cost: 64 passes over
      S.
    """
    radius = jnp.asarray(radius, values.dtype)
    none = radius == 0
    on = support(reference)
    least = lowest(values, on)
    excess = jnp.where(on, values - least, 0)
    span = jnp.max(excess)
    at_least = jnp.dot(reference, jnp.where(on & (excess == 0), 1, 0).astype(reference.dtype))
    reached = (at_least >= jnp.exp(-radius)) | (span == 0)
    unit = jnp.where(span > 0, span, 1)

    def tilted(b):
        weights = reference * jnp.exp(-excess / b)
        total = jnp.sum(weights)
        shortfall = jnp.dot(reference, jnp.expm1(-excess / b), precision="highest")
        log_total = jnp.where(shortfall > -0.25, log1p(jnp.maximum(shortfall, -0.25)), jnp.log(total))
        return weights / total, log_total

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        b = unit * jnp.exp(middle)
        kernel, log_total = tilted(b)
        # KL(q_b || m) = -E_q V / b - log E_m exp(-V / b), decreasing in b.
        too_far = -jnp.dot(kernel, excess) / b - log_total > radius
        return jnp.where(too_far, middle, low), jnp.where(too_far, high, middle)

    low = jnp.asarray(-20.0, values.dtype)
    high = jnp.maximum(-jnp.log(8 * jnp.where(none, 1, radius)) / 2, low)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    b = unit * jnp.exp((low + high) / 2)
    kernel, log_total = tilted(b)
    inner = jnp.maximum(-b * (log_total + radius), 0)
    at_worst = shared(1.0, on & (excess == 0), reference)
    inner = jnp.where(none, jnp.dot(reference, excess, precision="highest"), inner)
    value = least + jnp.where(reached & ~none, 0, inner)
    kernel = jnp.where(none, reference, jnp.where(reached, at_worst, kernel))
    price = jnp.where(reached, 0, jnp.where(none, jnp.inf, b))
    law_slope = jnp.where(reached | ~on, 0, -b * jnp.exp(-excess / b - log_total))
    law_slope = jnp.where(none, excess, law_slope)
    value = envelope(value, kernel, values, -price, radius, law_slope, reference)
    return WorstCase(value, kernel, price)


def constrained_chi2(reference: Float[Array, " S"], values: Float[Array, " S"], radius: Number) -> WorstCase:
    """max over cuts a of E_m min(V, a) - sqrt(radius Var_m min(V, a)).

    With m1 = E(a - V)_+ and m2 = E(a - V)_+^2 the maximiser solves m2 = (1 + radius) m1^2, a quadratic between two
    atoms whose stable root is taken in the first piece that holds one.

    Args: reference: float[S], m; values: float[S]; radius: float[] >= 0.
    Returns: WorstCase; dual sqrt(Var W / (4 radius)), W = min(V, a).
    Source: Duchi and Namkoong (2021) for the dual; exact root derived: docs/proofs/robust.md#chi2. Cost: O(S log S).
    """
    radius = jnp.asarray(radius, values.dtype)
    none = radius == 0
    on = support(reference)
    least = lowest(values, on)
    excess = jnp.where(on, values - least, 0)
    order = jnp.argsort(excess)
    v, p = excess[order], reference[order]
    mass = jnp.cumsum(p)
    gap = jnp.diff(v)

    def advance(moments, piece):
        m1, m2 = moments
        width, below = piece
        following = (m1 + below * width, m2 + 2 * m1 * width + below * width**2)
        return following, moments

    zero = jnp.zeros((), v.dtype)
    _, (m1, m2) = jax.lax.scan(advance, (zero, zero), (gap, mass[:-1]))
    below = mass[:-1]
    kappa = (1 + radius) * below - 1
    needed = jnp.maximum(m2 - (1 + radius) * m1**2, 0) / jnp.where(kappa > 0, kappa, 1)
    root = m1 + jnp.sqrt(m1**2 + below * needed)
    t = jnp.where(root > 0, needed / jnp.where(root > 0, root, 1), 0)
    holds = (kappa > 0) & (t <= gap)
    # Where no piece holds one, the cut is the largest value.
    stops = jnp.concatenate([holds, jnp.ones(1, bool)])
    cut = jnp.concatenate([v[:-1] + t, v[-1:]])[jnp.argmax(stops)]
    capped = jnp.minimum(excess, cut)
    mean = jnp.dot(reference, capped, precision="highest")
    variance = jnp.dot(reference, (capped - mean) ** 2, precision="highest")
    safe = jnp.where(none, 1, radius)
    price = jnp.where(none, jnp.inf, jnp.sqrt(variance / (4 * safe)))
    flat = variance == 0
    scale = jnp.where(flat | none, 1, price)
    weights = jnp.where(on, reference * jnp.maximum(1 - (excess - mean) / (2 * scale), 0), 0)
    at_worst = shared(1.0, on & (excess == 0), reference)
    value = least + jnp.maximum(mean - jnp.sqrt(jnp.where(none, 0, radius) * variance), 0)
    kernel = jnp.where(none, reference, jnp.where(flat, at_worst, weights / jnp.sum(weights)))
    law_slope = jnp.where(on & ~flat, capped - (capped - mean) ** 2 / (4 * scale), 0)
    law_slope = jnp.where(none, excess, law_slope)
    value = envelope(value, kernel, values, -price, radius, law_slope, reference)
    return WorstCase(value, kernel, jnp.where(flat & ~none, 0, price))
