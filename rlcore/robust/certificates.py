"""What can be promised of a learned policy: in a known simulator everything, in deployment a bound on its return."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.robust.general import CHI2, KL, TV, FDivergence
from rlcore.robust.linear_mdp import LinearMDP, check_laws, kernels, rewards
from rlcore.robust.pessimism import Estimate
from rlcore.robust.planning import evaluate, plan
from rlcore.robust.worst_case import Divergence, operator
from rlcore.types import Array, Float, Int, Number

__all__ = ["Deployment", "Verification", "deployment_bound", "divergence_of", "lower_bound", "verify"]

F_DIVERGENCES = {"tv": TV, "kl": KL, "chi2": CHI2}


def divergence_of(divergence: Divergence, law: Float[Array, " S"], reference: Float[Array, " S"]) -> Float[Array, ""]:
    """D(law || reference) = sum m f(q / m), and mass off the support at its price (inf where that is forbidden).

    Args: divergence: "tv", "kl", "chi2" or an FDivergence, static; law, reference: float[S].
    Returns: float[] >= 0. Raises: ValueError: another divergence. Source: definition. Cost: S.
    """
    if isinstance(divergence, str):
        if divergence not in F_DIVERGENCES:
            raise ValueError(f"divergence: found {divergence!r}, expected one of {', '.join(F_DIVERGENCES)}")
        divergence = F_DIVERGENCES[divergence]
    if not isinstance(divergence, FDivergence):
        raise ValueError(f"divergence: found {type(divergence).__name__}, expected a name or an FDivergence")
    on = reference > 0
    ratio = jnp.where(on, law / jnp.where(on, reference, 1), 1)
    inside = jnp.sum(jnp.where(on, reference * divergence.generator(ratio), 0))
    off = jnp.sum(jnp.where(on, 0, law))
    return inside + jnp.where(off > 0, off * divergence.slope_at_infinity, 0)


class Verification(NamedTuple):
    """A learned estimate against a known model, by state of the first step (float[S]) unless said.

    event: bool[], every weight is within its penalty of the truth. margin: float[H, d], penalty less error (>= 0 on the
    event). estimate <= policy_value <= optimum on the event; suboptimality = optimum - policy_value <= upper <=
    upper_ball.
    """

    event: Array
    margin: Array
    estimate: Array
    policy_value: Array
    optimum: Array
    suboptimality: Array
    upper: Array
    upper_ball: Array


def _expected_penalty(model, policy, laws, penalty):
    """E sum_h penalty(s_h, policy_h(s_h)) under kernels built from the factors `laws`, from every first state."""

    def step(total, at):
        chosen, law, penalty = at
        phi = jnp.take_along_axis(model.features, chosen[:, None, None], axis=1)[:, 0]
        ahead = jnp.matmul(law, total, precision="highest")
        return jnp.matmul(phi, penalty + ahead, precision="highest"), None

    zero = jnp.zeros(model.features.shape[0], model.factors.dtype)
    return jax.lax.scan(step, zero, (policy, laws, penalty), reverse=True)[0]


def verify(
    model: LinearMDP,
    learned: Estimate,
    divergence: str | FDivergence,
    level: Number | Float[Array, "..."],
    constrained: bool = False,
) -> Verification:
    """Everything the upper bound's proof says of one estimate, computed exactly.

    Args: model: the truth; learned: an Estimate with the penalty of norm "factor" and truncation at 0; divergence:
      "tv", "kl", "chi2" (an FDivergence has no `upper_ball`: NaN); level: prices, or radii where
      constrained (static), broadcast to [H, d].
    Returns: Verification.
    Raises: ValueError: an estimate without a table of values, or of another model's sizes, and as `plan`.
    Source: derived: docs/proofs/robust.md#c10a, after Tang, Liu and Xu (2024), Theorem 5.2 and Liu and Xu (2024), Lemma
      D.1. Cost: three plans.
    """
    if learned.values is None:
        raise ValueError("learned: found an estimate without a table of values, expected one of a listed state space")
    h, d, s = model.factors.shape
    if learned.weights.shape != (h, d) or learned.values.shape != (h + 1, s):
        raise ValueError(
            f"learned: found weights and values of shapes {learned.weights.shape}, {learned.values.shape}, expected "
            f"{(h, d)}, {(h + 1, s)}, as the model"
        )
    solve = operator(divergence, constrained)
    level = jnp.broadcast_to(jnp.asarray(level, model.factors.dtype), model.factors.shape[:-1])
    next_values = learned.values[1:]
    each = jax.vmap(jax.vmap(solve, in_axes=(0, None, 0)))
    truth = each(model.factors, next_values, level)
    margin = learned.spread - jnp.abs(learned.weights - truth.value)
    # The solves above round by some eps of the values' size.
    rounding = 64 * jnp.finfo(margin.dtype).eps * (1 + jnp.max(jnp.abs(learned.weights)))
    best = plan(model, divergence, level, constrained)
    own = evaluate(model, learned.policy, divergence, level, constrained)
    upper = 2 * _expected_penalty(model, best.policy, truth.worst_kernel, learned.spread)
    if isinstance(divergence, str):
        span = jnp.max(next_values, axis=1) - jnp.min(next_values, axis=1)
        radius = level if constrained else span[:, None] / level
        upper_ball = 2 * _largest_penalty(model, best.policy, divergence, radius, learned.spread)
    else:
        upper_ball = jnp.full_like(upper, jnp.nan)
    return Verification(
        jnp.all(margin >= -rounding),
        margin,
        learned.values[0],
        own.values[0],
        best.values[0],
        best.values[0] - own.values[0],
        upper,
        upper_ball,
    )


def _largest_penalty(model, policy, divergence, radius, penalty):
    """sup of E sum_h penalty over factors within divergence `radius` of the model's."""
    ball = jax.vmap(operator(divergence, constrained=True), in_axes=(0, None, 0))

    def step(total, at):
        chosen, law, penalty, radius = at
        radius = jnp.minimum(radius, 1) if divergence == "tv" else radius
        ahead = -ball(law, -total, radius).value
        phi = jnp.take_along_axis(model.features, chosen[:, None, None], axis=1)[:, 0]
        return jnp.matmul(phi, penalty + ahead, precision="highest"), None

    zero = jnp.zeros(model.features.shape[0], model.factors.dtype)
    return jax.lax.scan(step, zero, (policy, model.factors, penalty, radius), reverse=True)[0]


class Deployment(NamedTuple):
    """The promise for one deployed environment, by first state, float[S]: bound <= value.

    robust_value: V of the policy at the given prices. price: what the environment's distance costs along the way.
    """

    bound: Array
    value: Array
    robust_value: Array
    price: Array


def deployment_bound(
    model: LinearMDP,
    policy: Int[Array, "H S"] | Float[Array, "H S A"],
    factors: Float[Array, "H d S"],
    divergence: str | FDivergence,
    level: Number | Float[Array, "..."],
) -> Deployment:
    """V of the policy under other factors is at least its robust value less the expected price of their distance.

    Args: model: nominal; policy: as in `evaluate`; factors: float[H, d, S], of the deployed environment; divergence,
      level: as in `plan`.
    Returns: Deployment; price inf and bound -inf where the policy may come to a factor at infinite distance.
    Raises: ValueError: factors of another shape or that are no laws, and as `evaluate`. Source: derived:
      docs/proofs/robust.md#c9 (the definition of the robust value). Cost: two evaluations.
    """
    if factors.shape != model.factors.shape:
        raise ValueError(f"factors: found shape {factors.shape}, expected {model.factors.shape}, that of the model's")
    if not isinstance(factors, jax.core.Tracer):
        check_laws("factors", np.asarray(factors))
    policy = jnp.asarray(policy)
    level = jnp.broadcast_to(jnp.asarray(level, model.factors.dtype), model.factors.shape[:-1])
    robust = evaluate(model, policy, divergence, level)
    distance = jax.vmap(jax.vmap(lambda q, m: divergence_of(divergence, q, m)))(factors, model.factors)
    charge = jnp.where(distance > 0, level * distance, 0)
    reward = rewards(model)
    # A charge may be infinite: what has weight 0 is left out, 0 * inf is no number.
    toll = _weighted(model.features[None], charge[:, None, None, :])
    laws = kernels(model, factors)

    def step(carry, at):
        value, price = carry
        law, reward, toll, chosen = at
        q, t = reward + jnp.matmul(law, value, precision="highest"), toll + _weighted(law, price[None, None, :])
        if chosen.ndim == 1:
            pick = lambda x: jnp.take_along_axis(x, chosen[:, None], axis=1)[:, 0]  # noqa: E731
        else:
            pick = lambda x: _weighted(chosen, x)  # noqa: E731
        return (pick(q), pick(t)), None

    zero = jnp.zeros(model.features.shape[0], model.factors.dtype)
    (value, price), _ = jax.lax.scan(step, (zero, zero), (laws, reward, toll, policy), reverse=True)
    return Deployment(robust.values[0] - price, value, robust.values[0], price)


def _weighted(weights: Float[Array, "... k"], values: Float[Array, "... k"]) -> Float[Array, "..."]:
    """Sums of values, infinite ones too, with weights >= 0; those of weight 0 are left out."""
    used = weights > 0
    return jnp.sum(jnp.where(used, weights, 0) * jnp.where(used, values, 0), axis=-1)


def lower_bound(num_factors: Number, horizon: Number, num_trajectories: Number) -> Number:
    """d^(3/2) H / (32 sqrt(2 K)): on the hard class no learner's worst expected suboptimality is below it.

    Args: num_factors: d bits of the hidden signs; horizon: H; num_trajectories: K, at least d^3 max(1/2, 1.05 H^2 /
      level^2). Returns: float[]. Source: derived: docs/proofs/robust.md#c13, an explicit form of Tang, Liu and Xu
      (2024), Theorem 6.1. Cost: O(1).
    """
    return num_factors**1.5 * horizon / (32 * (2 * num_trajectories) ** 0.5)
