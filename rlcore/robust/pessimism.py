"""The loop that all pessimistic learners share: backwards, estimate, subtract a penalty, truncate, act greedily.

Q_h = max(0, min(reward + <features, w_h> - penalty, H - h)) for steps h = 0 .. H - 1; an action whose reward exceeds
the cap keeps it (the payoff of stopping is known). Only the estimate w_h differs between learners.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.ridge import Ridge, ridge
from rlcore.robust.data import Features, OfflineData, Table, warn_of_unvisited
from rlcore.types import Array, Float, Int, Number, PyTree, RandomKey

__all__ = ["Estimate", "Regression", "Rules", "act", "action_values", "greedy", "pessimistic_values"]

NORMS = ("factor", "released", "ellipsoid")
TIES = ("first", "random", "unclipped")
UNVISITED = ("least", "estimate")


@dataclasses.dataclass(frozen=True)
class Rules:
    """Choices around the estimate, all static.

    norm: the penalty: "factor" (sum_i features_i spread_i, what the theorem needs), "released" (the l2 norm of the same
    products, as the released code computes) or "ellipsoid" (the norm of PEVI). floor: truncate at 0 from below. least:
    "states" takes the least next value over all states, "data" over the next states seen; a number is taken as it is.
    ties: among equal action values the "first", a "random" one, or the largest before truncation ("unclipped").
    own_rewards: regress the observed rewards too, as PEVI does, wherever features are not 0.
    unvisited: what a factor without data is worth: at most the "least" next value, or the "estimate" that ridge alone
    makes (the horizon for a KL regression that is not centred, as in the released code).
    """

    norm: str = "factor"
    floor: bool = True
    least: str | float = "states"
    ties: str = "first"
    own_rewards: bool = False
    unvisited: str = "least"

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"norm: found {self.norm!r}, expected one of {NORMS}")
        if self.ties not in TIES:
            raise ValueError(f"ties: found {self.ties!r}, expected one of {TIES}")
        if self.unvisited not in UNVISITED:
            raise ValueError(f"unvisited: found {self.unvisited!r}, expected one of {UNVISITED}")
        number = isinstance(self.least, int | float) and math.isfinite(self.least)
        if not number and self.least not in ("states", "data"):
            raise ValueError(f"least: found {self.least!r}, expected 'states', 'data' or a finite number")


class Regression(NamedTuple):
    """What an estimate may use at one step.

    ridge: the step's Ridge. values: float[K], V of the next states. rewards: float[K], observed. least, greatest:
    float[], of the next values, as `Rules.least` says. horizon: float[], the number of steps H.
    """

    ridge: Ridge
    values: Array
    rewards: Array
    least: Array
    greatest: Array
    horizon: Array


class Estimate(NamedTuple):
    """What a learner leaves, by step h = 0 .. H - 1; rows of a table's values are one more, the last 0.

    weights: float[H, d]. spread: float[H, d], sqrt of the diagonal of the inverse Gram matrix, times the penalty.
    precision: float[H, d, d], inverse Cholesky factor of the Gram matrix, times the penalty. values: float[H + 1, S],
    q_values: float[H, S, A], policy: int[H, S], all None where features are functions. zero_rows: float[H], share of
    states (of next states seen, one step later) whose values are all truncated to 0: there the tie rule alone acts.
    least: float[H], the least next value used. visited: bool[H, d], whether any sample has this factor.
    """

    weights: Array
    spread: Array
    precision: Array
    values: Array | None
    q_values: Array | None
    policy: Array | None
    zero_rows: Array
    least: Array
    visited: Array


def _penalty(norm, features, spread, precision):
    if norm == "factor":
        return jnp.einsum("...d,d->...", features, spread, precision="highest")
    if norm == "released":
        return jnp.sqrt(jnp.einsum("...d,d->...", features**2, spread**2, precision="highest"))
    # features^T (L L^T)^-1 features = |L^-1 features|^2
    turned = jnp.einsum("ij,...j->...i", precision, features, precision="highest")
    return jnp.sqrt(jnp.sum(turned**2, axis=-1))


def action_values(
    rules: Rules,
    features: Float[Array, "*n A d"],
    rewards: Float[Array, "*n A"],
    weights: Float[Array, " d"],
    spread: Float[Array, " d"],
    precision: Float[Array, "d d"],
    cap: Number,
) -> tuple[Float[Array, "*n A"], Float[Array, "*n A"]]:
    """(truncated, untruncated) values of every action. Cost: n A d, or n A d^2 for the ellipsoid."""
    if rules.own_rewards:
        rewards = jnp.where(jnp.any(features != 0, axis=-1), 0, rewards)
    raw = rewards + jnp.einsum("...d,d->...", features, weights, precision="highest")
    raw = raw - _penalty(rules.norm, features, spread, precision)
    q = jnp.minimum(raw, jnp.maximum(cap, rewards))
    return (jnp.maximum(q, 0) if rules.floor else q), raw


def _check_ties(rules: Rules, key: RandomKey) -> None:
    if rules.ties == "random" and key is None:
        raise ValueError("key: found None, expected a key, since ties are broken at random")


def _check_data(data: OfflineData, features: Table | Features) -> None:
    """Raise ValueError for data that do not fit the features; entries where they are not traced."""
    k, horizon = data.actions.shape
    if k == 0:
        raise ValueError("data: found no trajectory, expected at least one")
    if features.horizon != horizon:
        raise ValueError(f"features: found rewards of {features.horizon} steps, expected {horizon}, as in the data")
    for name, x in (("states", data.states), ("rewards", data.rewards)):
        if not isinstance(x, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(x))):
            raise ValueError(f"data: found NaN or infinite {name}, expected finite numbers")
    if not isinstance(features, Table):
        return
    for name, x, count in zip(
        ("states", "actions"), (data.states, data.actions), features.features.shape, strict=False
    ):
        # An index out of range would be read as the last one.
        if isinstance(x, jax.core.Tracer):
            continue
        low, high = np.min(np.asarray(x)), np.max(np.asarray(x))
        if low < 0 or high >= count:
            raise ValueError(f"data: found {name} in [{low}, {high}], expected [0, {count - 1}]")


def greedy(rules: Rules, q: Float[Array, "*n A"], raw: Float[Array, "*n A"], key: RandomKey) -> Int[Array, "*n"]:
    """The greedy action under the tie rule. Raises: ValueError: random ties without a key. Cost: n A."""
    _check_ties(rules, key)
    if rules.ties == "first":
        return jnp.argmax(q, axis=-1).astype(jnp.int32)
    best = q == jnp.max(q, axis=-1, keepdims=True)
    score = jax.random.uniform(key, q.shape, q.dtype) if rules.ties == "random" else raw
    return jnp.argmax(jnp.where(best, score, -jnp.inf), axis=-1).astype(jnp.int32)


def pessimistic_values(
    data: OfflineData,
    features: Table | Features,
    estimate: Callable[[Regression, Float[Array, "..."]], Float[Array, " d"]],
    penalty: Number | Float[Array, " H"],
    ridge_penalty: Number,
    rules: Rules,
    *,
    levels: Float[Array, "H d"] | None = None,
    cap: Float[Array, " H"] | None = None,
    scale: Float[Array, "H K"] | None = None,
    key: RandomKey = None,
) -> Estimate:
    """Run a learner backwards over the steps.

    Args: estimate: `(Regression, level float[d]) -> float[d]`; penalty: beta, float[] or float[H]; ridge_penalty:
      float[] > 0; levels: float[H, d], handed to the estimate; cap: float[H], H - h by default; scale: float[H, K],
      weights of the samples; key: for random ties.
    Returns: Estimate; warns, outside of `jit`, of factors without data.
    Raises: ValueError: random ties without a key, no data, data that do not fit the features.
    Source: Jin, Yang and Wang (2021) for the scheme; Tang, Liu and Xu (2024), arXiv 2411.18612, Algorithm 1 (slides).
    Cost: H (K d^2 + d^3), the estimates, and values at all S states, or at the K next states.
    """
    _check_ties(rules, key)
    _check_data(data, features)
    horizon = data.actions.shape[1]
    listed = isinstance(features, Table)
    d = features.features.shape[-1] if listed else features.at(data.states[:1, 0]).shape[-1]
    dtype = data.rewards.dtype
    steps = jnp.arange(horizon)
    if np.shape(penalty) not in ((), (horizon,)):
        raise ValueError(f"penalty: found shape {np.shape(penalty)}, expected () or ({horizon},)")
    penalty = jnp.broadcast_to(jnp.asarray(penalty, dtype), (horizon,))
    cap = (horizon - steps).astype(dtype) if cap is None else jnp.broadcast_to(jnp.asarray(cap, dtype), (horizon,))
    levels = jnp.ones((horizon, d), dtype) if levels is None else levels

    def evaluate(h, states, weights, spread, precision):
        if listed:
            phi, reward = features.features, features.rewards[h]
        else:
            phi = features.at(states)
            reward = jax.vmap(lambda state: features.rewarded(h, state))(states)
        return action_values(rules, phi, reward, weights, spread, precision, cap[h])

    def step(carry, at):
        h, states, actions, following, rewards, scale, level = at
        weights, spread, precision = carry
        # Values one step later: of all states, or of those that were reached.
        ahead = jnp.minimum(h + 1, horizon - 1)
        q, _ = evaluate(ahead, following, weights, spread, precision)
        q = jnp.where(h + 1 < horizon, q, 0)
        value = jnp.max(q, axis=-1)
        seen = value[following] if listed else value
        pool = value if rules.least == "states" else seen
        least = jnp.min(pool) if isinstance(rules.least, str) else jnp.asarray(float(rules.least), dtype)
        phi = features.at(states)
        visited = jnp.take_along_axis(phi, actions[:, None, None], axis=1)[:, 0]
        fitted = ridge(visited, ridge_penalty, scale)
        view = Regression(fitted, seen, rewards, least, jnp.max(pool), jnp.asarray(float(horizon), dtype))
        new = estimate(view, level)
        counted = visited if scale is None else jnp.where(scale[:, None] > 0, visited, 0)
        known = jnp.any(counted != 0, axis=0)
        if rules.unvisited == "least":
            new = jnp.where(known, new, jnp.minimum(new, least))
        found = (new, penalty[h] * fitted.spread, penalty[h] * fitted.inverse)
        zero = jnp.where(h + 1 < horizon, jnp.mean(jnp.all(q <= 0, axis=-1)), 0)
        return found, (*found, least, zero, known)

    zeros = (jnp.zeros(d, dtype), jnp.zeros(d, dtype), jnp.zeros((d, d), dtype))
    by_step = lambda x: jnp.moveaxis(x, 1, 0)  # noqa: E731
    xs = (
        steps,
        by_step(data.states[:, :-1]),
        by_step(data.actions),
        by_step(data.states[:, 1:]),
        by_step(data.rewards),
        scale,
        levels,
    )
    _, (weights, spread, precision, least, later_zero, known) = jax.lax.scan(step, zeros, xs, reverse=True)
    warn_of_unvisited(known)
    if not listed:
        return Estimate(weights, spread, precision, None, None, None, later_zero, least, known)
    everything = jax.vmap(evaluate, in_axes=(0, None, 0, 0, 0))
    q, raw = everything(steps, None, weights, spread, precision)
    policy = greedy(rules, q, raw, key)
    values = jnp.concatenate([jnp.max(q, axis=-1), jnp.zeros((1, q.shape[1]), dtype)])
    zero_rows = jnp.mean(jnp.all(q <= 0, axis=-1), axis=-1)
    return Estimate(weights, spread, precision, values, q, policy, zero_rows, least, known)


def act(
    estimate: Estimate,
    features: Table | Features,
    step: Int[Array, ""] | int,
    states: PyTree,
    rules: Rules | None = None,
    cap: Number | None = None,
    key: RandomKey = None,
) -> Int[Array, "*n"]:
    """The learned policy at any states of one step.

    Args: estimate, features, rules, cap (of this step, H - h by default): as the learner had them; states: [n, ...].
    Returns: int32[n]. Raises: ValueError: random ties without a key. Cost: n A d.
    """
    rules = Rules() if rules is None else rules
    cap = jnp.asarray(features.horizon - step if cap is None else cap, estimate.weights.dtype)
    if isinstance(features, Table):
        reward = features.rewards[step][states]
    else:
        reward = jax.vmap(lambda state: features.rewarded(step, state))(states)
    row = (estimate.weights[step], estimate.spread[step], estimate.precision[step])
    q, raw = action_values(rules, features.at(states), reward, *row, cap)
    return greedy(rules, q, raw, key)
