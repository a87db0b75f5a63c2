"""Offline robust learners: R2PVI and its rivals, each an estimate of the worst case from a regression.

All share `pessimistic_values`; what differs is how the worst case of the next values is estimated from samples. Levels
may be numbers or anything that broadcasts to [H, d]. `released_code=True` asks for the three deviations of the
published code (l2 penalty, no truncation at 0, least value over the next states seen), needed for its figures alone.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.ridge import ridge as factorise
from rlcore.robust.data import Features, OfflineData, Table, table
from rlcore.robust.general import FDivergence
from rlcore.robust.operators import log1p
from rlcore.robust.pessimism import Estimate, Regression, Rules, action_values, pessimistic_values
from rlcore.robust.regression import largest_capped_mean, largest_mean_variance
from rlcore.robust.worst_case import check_level
from rlcore.types import Array, Float, Number, RandomKey

__all__ = ["drpvi", "drvi_l", "pevi", "r2pvi", "va_drpvi", "va_r2pvi"]

Level = Number | Float[Array, "..."]
# DRVI-L: prices on the grid, and those that an interpolation takes.
PRICES, STENCIL = 256, 16


def _space(features, rewards) -> Table | Features:
    if isinstance(features, Table | Features):
        return features
    return table(features, rewards)


def _levels(data, features, level) -> Float[Array, "H d"]:
    horizon = data.actions.shape[1]
    d = features.features.shape[-1] if isinstance(features, Table) else features.at(data.states[:1, 0]).shape[-1]
    shape = np.shape(level)
    if len(shape) > 2 or any(a not in (1, b) for a, b in zip(shape[::-1], (d, horizon), strict=False)):
        raise ValueError(f"level: found shape {shape}, expected one that broadcasts to ({horizon}, {d})")
    return jnp.broadcast_to(jnp.asarray(level, data.rewards.dtype), (horizon, d))


def _check(penalty: Number | Array, ridge: Number) -> None:
    if not isinstance(penalty, jax.core.Tracer) and not np.all(np.asarray(penalty) >= 0):
        raise ValueError(f"penalty: found {penalty}, expected numbers of at least 0")
    if not isinstance(ridge, jax.core.Tracer) and not np.asarray(ridge) > 0:
        raise ValueError(f"ridge: found {ridge}, expected a number above 0")


def _rules(rules: Rules | None, released_code: bool) -> Rules:
    rules = Rules() if rules is None else rules
    if not released_code:
        return rules
    return dataclasses.replace(rules, norm="released", floor=False, least="data", unvisited="estimate")


# ---- estimates: (Regression, level float[d]) -> float[d] -------------------------------------------------------------


def _diagonal(view: Regression, targets: Float[Array, "d K"]) -> Float[Array, " d"]:
    """Coordinate i of the regression of target i."""
    return jnp.einsum("dk,dk->d", view.ridge.sample_weights(), targets, precision="highest")


def _tv(view: Regression, level, centred: bool):
    values, level = view.values[None, :], level[:, None]
    if centred:
        return view.least + _diagonal(view, jnp.minimum(values - view.least, level))
    return _diagonal(view, jnp.minimum(values, view.least + level))


def _kl(view: Regression, level, centred: bool):
    column = level[:, None]
    if centred:
        # Without data the deviation is 0 and the estimate the least value. The truth lies between least and greatest;
        # a floor below the logarithm, exp(-span / level), would underflow to log 0 = -inf at small levels.
        deviation = _diagonal(view, jnp.expm1(-(view.values - view.least)[None, :] / column))
        logs = jnp.where(deviation > -1, log1p(jnp.where(deviation > -1, deviation, 0)), -jnp.inf)
        return view.least + jnp.clip(-level * logs, 0, jnp.maximum(view.greatest - view.least, 0))
    # In units of the least value, so that a small level underflows nowhere; the floor exp(-H / level) caps at H.
    least = jnp.min(view.values)
    x = _diagonal(view, jnp.exp(-(view.values - least)[None, :] / column))
    logs = jnp.log(jnp.where(x > 0, x, 1))
    return jnp.where(x > 0, jnp.minimum(least - level * logs, view.horizon), view.horizon)


def _chi2(view: Regression, level, centred: bool):
    del centred
    clip = (view.horizon, view.horizon**2)
    weights = view.ridge.sample_weights()
    return largest_mean_variance(weights, view.values, level, view.least, view.greatest, clip)[0]


def _any_f(divergence: FDivergence, grid: int, view: Regression, level, centred: bool):
    """max over centres of nu - level W f*((nu - y) / level), by a grid and golden sections: not concave in nu."""
    weights = view.ridge.sample_weights()
    total = jnp.sum(weights, axis=1)
    left, right = divergence.slopes_at_one

    def one(at):
        w, total, level = at
        # Centred, everything is counted from the least value: no data gives weights 0 and the least value.
        origin = view.least if centred else jnp.zeros_like(view.least)
        least, greatest, values = view.least - origin, view.greatest - origin, view.values - origin
        high = jnp.minimum(greatest + level * right, least + level * divergence.slope_at_infinity)
        low = jnp.minimum(jnp.min(values) + level * left, high)

        def objective(nu):
            y = (nu - values) / level
            t = divergence.ratio(y)
            conjugate = y * t - divergence.generator(t)
            return nu * total - level * jnp.dot(w, conjugate, precision="highest")

        return origin + _maximum(objective, low, high, grid)

    return jax.lax.map(one, (weights, total, level))


def _maximum(objective, low, high, grid: int):
    """The largest value on a grid, refined by golden sections around it."""
    points = low + (high - low) * jnp.linspace(0, 1, grid, dtype=low.dtype)
    found = jax.lax.map(objective, points)
    best = jnp.argmax(found)
    bracket = points[jnp.maximum(best - 1, 0)], points[jnp.minimum(best + 1, grid - 1)]
    return jnp.maximum(found[best], _golden(objective, *bracket, 40))


def _golden(objective, low, high, steps: int):
    """The largest value that golden sections meet between low and high, one evaluation a step."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)

    def shrink(_, state):
        low, high, left, right, at_left, at_right = state
        keep = at_left >= at_right
        low, high = jnp.where(keep, low, left), jnp.where(keep, right, high)
        new = jnp.where(keep, high - ratio * (high - low), low + ratio * (high - low))
        at_new = objective(new)
        left, right = jnp.where(keep, new, right), jnp.where(keep, left, new)
        at_left, at_right = jnp.where(keep, at_new, at_right), jnp.where(keep, at_left, at_new)
        return low, high, left, right, at_left, at_right

    *_, at_left, at_right = jax.lax.fori_loop(
        0, steps, shrink, (low, high, left, right, objective(left), objective(right))
    )
    return jnp.maximum(at_left, at_right)


def _interpolate(values: Float[Array, " n"], at: Float[Array, ""]) -> Float[Array, ""]:
    """The polynomial through values at 0, 1, .. n - 1, by the barycentric formula."""
    n = values.size
    signs = np.array([(-1.0) ** j * math.comb(n - 1, j) for j in range(n)])
    distance = at - jnp.arange(n, dtype=values.dtype)
    hit = distance == 0
    terms = jnp.asarray(signs, values.dtype) / jnp.where(hit, 1, distance)
    inside = jnp.sum(terms * values) / jnp.sum(terms)
    return jnp.where(jnp.any(hit), jnp.sum(jnp.where(hit, values, 0)), inside)


_ESTIMATES = {"tv": _tv, "kl": _kl, "chi2": _chi2}


# ---- learners --------------------------------------------------------------------------------------------------------


def r2pvi(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    divergence: str | FDivergence,
    level: Level,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    centred: bool = False,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    released_code: bool = False,
    scale: Float[Array, "H K"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Robust regularised pessimistic value iteration.

    Args: data: OfflineData; features: [S, A, d], a `Table` or `Features`; rewards: [H, d], [H, S, A], or None where
      features carry them; divergence: "tv", "kl", "chi2" or an FDivergence, static; level: lambda, broadcasts to [H,
      d]; penalty: beta >= 0, float[] or float[H]; ridge: gamma > 0; centred: regress deviations from the least next
      value, so that ridge pulls towards it rather than, for KL, towards H, static; rules: see `Rules`; cap: float[H];
      scale: weights of samples.
    Returns: Estimate. Raises: ValueError: a divergence, level (inf is for TV and chi-square), penalty or ridge out of
      range, features off the simplex, rewards off [0, 1].
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, Algorithms 1-4 (slides read); the maximum over cuts for
      chi-square is exact here (derived: docs/proofs/robust.md#signed). Cost: H (K d^2 + d^3), and for each step K log K
      + d K for chi2, about 210 d K evaluations of f* for an FDivergence.
    """
    space = _space(features, rewards)
    check_level(divergence, level, constrained=False)
    _check(penalty, ridge)
    if isinstance(divergence, FDivergence):
        base: Callable = lambda view, level: _any_f(divergence, 128, view, level, centred)  # noqa: E731
    elif isinstance(divergence, str) and divergence in _ESTIMATES:
        base = lambda view, level: _ESTIMATES[divergence](view, level, centred)  # noqa: E731
    else:
        raise ValueError(f"divergence: found {divergence!r}, expected tv, kl, chi2 or an FDivergence")
    unpriced = not isinstance(level, jax.core.Tracer) and np.any(np.isinf(np.asarray(level)))
    if unpriced and divergence not in ("tv", "chi2"):
        raise ValueError(f"level: found {level}, expected finite prices for an estimate that divides by them")
    levels = _levels(data, space, level)
    return pessimistic_values(
        data, space, base, penalty, ridge, _rules(rules, released_code), levels=levels, cap=cap, scale=scale, key=key
    )


def pevi(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Pessimistic value iteration without an adversary (LSVI-LCB): rewards are regressed with the next values.

    Args, returns, raises: as `r2pvi`; `rewards` serve only actions without features. Source: Jin, Yang and Wang (2021).
    Cost: H (K d^2 + d^3).
    """
    space = _space(features, rewards)
    _check(penalty, ridge)
    rules = dataclasses.replace(Rules() if rules is None else rules, norm="ellipsoid", own_rewards=True)

    def estimate(view: Regression, level):
        return view.ridge.fit(view.rewards + view.values)

    return pessimistic_values(data, space, estimate, penalty, ridge, rules, cap=cap, key=key)


def drpvi(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    radius: Level,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    released_code: bool = False,
    scale: Float[Array, "H K"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Distributionally robust pessimistic value iteration within total-variation balls of the given radius.

    The maximum over cuts is exact: one sort and prefix sums. `released_code` also takes 0 for the least value.

    Args, returns, raises: as `r2pvi`; radius: rho in [0, 1], broadcasts to [H, d].
    Source: Liu and Xu (2024), arXiv 2403.09621, Algorithm 1 (full text read); exact maximum derived.
    Cost: H (K d^2 + d^3 + K log K + d K).
    """
    space = _space(features, rewards)
    check_level("tv", radius, constrained=True)
    _check(penalty, ridge)
    rules = _rules(rules, released_code)
    if released_code:
        rules = dataclasses.replace(rules, least=0.0)

    def estimate(view: Regression, radius):
        return largest_capped_mean(view.ridge.sample_weights(), view.values, radius, view.least, view.horizon)[0]

    levels = _levels(data, space, radius)
    return pessimistic_values(
        data, space, estimate, penalty, ridge, rules, levels=levels, cap=cap, scale=scale, key=key
    )


def drvi_l(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    radius: Level,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    released_code: bool = False,
    key: RandomKey = None,
) -> Estimate:
    """Robust pessimistic value iteration within KL balls: the dual over a price, on 256 log-spaced points and refined.

    Between two points the regression of e^(-y/a) - 1 is interpolated in log a from the 16 around them, at an error of
    1e-14 of the weights' absolute sum (docs/proofs/robust.md#drvi-l).

    Args, returns, raises: as `r2pvi`; radius: rho >= 0, nats.
    Source: the official form of DRVI-L, -min over a in [1e-6, H] of a log max(1 + W (e^(-y/a) - 1), 1e-6) + a rho, read
      in released code. Cost: H (K d^2 + d^3 + 256 d K), and 256 H K exponentials.
    """
    space = _space(features, rewards)
    check_level("kl", radius, constrained=True)
    _check(penalty, ridge)

    def estimate(view: Regression, radius):
        weights = view.ridge.sample_weights()
        low, high = jnp.log(jnp.asarray(1e-6, weights.dtype)), jnp.log(view.horizon)
        points = jnp.linspace(low, high, PRICES)

        def deviations(points):
            terms = jnp.expm1(-view.values[:, None] / jnp.exp(points)[None, :])
            return jnp.matmul(weights, terms, precision="highest")

        # All factors share the exponentials, which are nearly all of the cost: none is taken after the grid.
        x = jax.lax.map(deviations, points.reshape(-1, 16))
        x = jnp.moveaxis(x, 1, 0).reshape(-1, PRICES)

        def factor(x, radius):
            def value(x, at):
                return -jnp.exp(at) * (jnp.log(jnp.maximum(1 + x, 1e-6)) + radius)

            found = value(x, points)
            best = jnp.argmax(found)
            bracket = points[jnp.maximum(best - 1, 0)], points[jnp.minimum(best + 1, PRICES - 1)]
            first = jnp.clip(best - STENCIL // 2, 0, PRICES - STENCIL)
            near, spacing = jax.lax.dynamic_slice(x, (first,), (STENCIL,)), (high - low) / (PRICES - 1)
            between = lambda at: _interpolate(near, (at - points[first]) / spacing)  # noqa: E731
            return jnp.maximum(found[best], _golden(lambda at: value(between(at), at), *bracket, 32))

        return jax.vmap(factor)(x, radius)

    levels = _levels(data, space, radius)
    rules = _rules(rules, released_code)
    return pessimistic_values(data, space, estimate, penalty, ridge, rules, levels=levels, cap=cap, key=key)


def _variance_weights(data, half, space: Table | Features, first: Estimate, rules: Rules, penalty, slack, cap):
    """1 / max(1, variance of the next value) at the pairs of `data`, float[H, K], regressed on `half`."""
    horizon = data.actions.shape[1]
    cap = (horizon - jnp.arange(horizon)).astype(data.rewards.dtype) if cap is None else cap

    def played(sample, h):
        phi = space.at(sample.states[:, h])
        return jnp.take_along_axis(phi, sample.actions[:, h][:, None, None], axis=1)[:, 0]

    def step(h):
        ahead = jnp.minimum(h + 1, horizon - 1)
        following = half.states[:, h + 1]
        phi = space.at(following)
        if isinstance(space, Table):
            reward = space.rewards[ahead][following]
        else:
            reward = jax.vmap(lambda state: space.rewarded(ahead, state))(following)
        now = (first.weights[ahead], first.spread[ahead], first.precision[ahead])
        q, _ = action_values(rules, phi, reward, *now, cap[ahead])
        value = jnp.where(h + 1 < horizon, jnp.max(q, axis=-1), 0)
        fitted = factorise(played(half, h), penalty)
        mean, square = (jnp.matmul(played(data, h), fitted.fit(value**k), precision="highest") for k in (1, 2))
        variance = jnp.clip(square, 0, horizon**2) - jnp.clip(mean, 0, horizon) ** 2 - slack
        return 1 / jnp.maximum(variance, 1)

    return jax.lax.map(step, jnp.arange(horizon))


def va_drpvi(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    radius: Level,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    first_half: OfflineData | None = None,
    slack: Number = 0.0,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Variance-aware DRPVI: regressions weighted by 1 / max(1, estimated variance of the next value).

    Args: as `drpvi`; first_half: independent data for the variances (the same data where None, which the theory does
      not cover); slack: what the theory subtracts from the variance, O(d H^3 / sqrt(K kappa)).
    Returns, raises: as `drpvi`. Source: Liu and Xu (2024), arXiv 2403.09621, Algorithm 3 (full text read).
    Cost: twice `drpvi`.
    """
    space, rules = _space(features, rewards), Rules() if rules is None else rules
    half = data if first_half is None else first_half
    first = drpvi(half, space, None, radius, penalty, ridge, rules=rules, cap=cap, key=key)
    scale = _variance_weights(data, half, space, first, rules, ridge, slack, cap)
    return drpvi(data, space, None, radius, penalty, ridge, rules=rules, cap=cap, scale=scale, key=key)


def va_r2pvi(
    data: OfflineData,
    features: Float[Array, "S A d"] | Table | Features,
    rewards: Float[Array, "H d"] | Float[Array, "H S A"] | None,
    divergence: str | FDivergence,
    level: Level,
    penalty: Number | Float[Array, " H"],
    ridge: Number = 1.0,
    *,
    first_half: OfflineData | None = None,
    slack: Number = 0.0,
    centred: bool = False,
    rules: Rules | None = None,
    cap: Float[Array, " H"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Variance-aware R2PVI: as `va_drpvi`, around the regularised estimate of any divergence.

    Args, returns, raises: as `r2pvi` and `va_drpvi`. Source: released code for total variation (same data for both
      passes, no slack); the other divergences are this project's. Cost: twice `r2pvi`.
    """
    space, rules = _space(features, rewards), Rules() if rules is None else rules
    half = data if first_half is None else first_half
    first = r2pvi(half, space, None, divergence, level, penalty, ridge, centred=centred, rules=rules, cap=cap, key=key)
    scale = _variance_weights(data, half, space, first, rules, ridge, slack, cap)
    return r2pvi(
        data, space, None, divergence, level, penalty, ridge,
        centred=centred, rules=rules, cap=cap, scale=scale, key=key,
    )  # fmt: skip
