"""Exact robust planning and evaluation of a known model, and the level that a radius comes to.

The robust Bellman equation is Q_h(s, a) = <features(s, a), theta_h + w_h>, w_{h,i} = the worst case of V_{h+1} under
factor i. Levels may differ between steps and factors: anything that broadcasts to [H, d] ([H, S, A] for the
(s, a)-rectangular adversary).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.robust.general import Wasserstein
from rlcore.robust.linear_mdp import LinearMDP, kernels, rewards
from rlcore.robust.worst_case import Divergence, check_cost, check_level, operator
from rlcore.types import Array, Float, Int, Number

__all__ = ["RobustValues", "evaluate", "levels_of_radius", "nominal_values", "plan"]


class RobustValues(NamedTuple):
    """Values, policy and adversary, by step; the rows of `values` are one more than the horizon, the last 0.

    values: float[H + 1, S]. q_values: float[H, S, A]. policy: int[H, S] (greedy, first of ties), or what was evaluated.
    weights: float[H, d], worst cases of the next value ([H, S, A] for the (s, a)-rectangular adversary, as below).
    worst_factors: float[H, d, S]. duals: float[H, d].
    """

    values: Array
    q_values: Array
    policy: Array
    weights: Array
    worst_factors: Array
    duals: Array


def plan(
    model: LinearMDP,
    divergence: Divergence,
    level: Number | Float[Array, "..."],
    constrained: bool = False,
    rectangular: str = "d",
) -> RobustValues:
    """Optimal robust values and the greedy policy, which attains them at every state.

    Args: model: one LinearMDP; divergence, constrained: see `worst_case`, static; level: price or radius, broadcasts to
      [H, d]; rectangular: "d" (one adversary per factor) or "sa" (one per state and action), static.
    Returns: RobustValues. Raises: ValueError: a level out of range or of another shape, an unknown `rectangular`.
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, Propositions 3.2, 3.3, 4.1 (slides read), proof derived.
    Cost: H (d operators on S states + S A d).
    """
    return _backward(model, None, divergence, level, constrained, rectangular)


def evaluate(
    model: LinearMDP,
    policy: Int[Array, "H S"] | Float[Array, "H S A"],
    divergence: Divergence | None = None,
    level: Number | Float[Array, "..."] = jnp.inf,
    constrained: bool = False,
    rectangular: str = "d",
) -> RobustValues:
    """Robust values of a policy, deterministic or stochastic; of the model itself without a divergence.

    Args: policy: int[H, S] actions or float[H, S, A] probabilities; the rest as in `plan`.
    Returns: RobustValues, with `policy` as given. Raises: as `plan`, for a policy that is none, and for a level
      without a divergence.
    Source, cost: as `plan`.
    """
    policy = jnp.asarray(policy)
    _check_policy(policy, *model.factors.shape[::2], model.features.shape[1])
    if divergence is None:
        if constrained or (not isinstance(level, jax.core.Tracer) and not np.all(np.isposinf(np.asarray(level)))):
            raise ValueError(f"divergence: found None with the level {level}, expected one that the level prices")
        divergence, level, constrained = "kl", jnp.inf, False
    return _backward(model, policy, divergence, level, constrained, rectangular)


def _check_policy(policy, horizon: int, num_states: int, num_actions: int) -> None:
    """Raise ValueError unless it is int[H, S] of actions or float[H, S, A] of laws; entries where not traced."""
    chosen, laws = (horizon, num_states), (horizon, num_states, num_actions)
    integer = jnp.issubdtype(policy.dtype, jnp.integer)
    if policy.shape != (chosen if integer else laws):
        raise ValueError(f"policy: found {policy.dtype}{policy.shape}, expected int{chosen} or float{laws}")
    if isinstance(policy, jax.core.Tracer):
        return
    policy = np.asarray(policy)  # under jit, JAX would trace the sums of a constant
    if integer:
        ok, found = (policy.min() >= 0) & (policy.max() < num_actions), f"[{policy.min()}, {policy.max()}]"
    else:
        total = np.sum(policy, axis=-1)
        ok = np.all(policy >= 0) & np.all(np.abs(total - 1) <= 1e-6)
        found = f"entries from {policy.min():g}, rows that sum to [{total.min():g}, {total.max():g}]"
    if not ok:
        raise ValueError(f"policy: found {found}, expected actions from 0 to {num_actions - 1}, or laws over them")


def nominal_values(model: LinearMDP) -> RobustValues:
    """Optimal values without an adversary.

    Args: model: one LinearMDP. Returns: RobustValues. Source: derived: the price inf of `plan`. Cost: H S (d + A d).
    """
    return plan(model, "kl", jnp.inf)


def _backward(model, policy, divergence, level, constrained, rectangular):
    if rectangular not in ("d", "sa"):
        raise ValueError(f"rectangular: found {rectangular!r}, expected 'd' or 'sa'")
    check_level(divergence, level, constrained)
    operator(divergence, constrained)  # refuses what there is not
    check_cost(divergence, model.features.shape[0])
    # A Wasserstein distance holds an array; everything else of a divergence is static.
    cost, divergence = (divergence.cost, None) if isinstance(divergence, Wasserstein) else (None, divergence)
    level = jnp.asarray(level, model.factors.dtype)
    horizon, d, s = model.factors.shape
    expected = (horizon, d) if rectangular == "d" else (horizon, s, model.features.shape[1])
    if level.ndim > len(expected) or any(
        n not in (1, m) for n, m in zip(level.shape[::-1], expected[::-1], strict=False)
    ):
        raise ValueError(f"level: found shape {level.shape}, expected one that broadcasts to {expected}")
    return _scan(model, policy, level, cost, divergence=divergence, constrained=constrained, rectangular=rectangular)


@functools.partial(jax.jit, static_argnames=("divergence", "constrained", "rectangular"))
def _scan(model, policy, level, cost, *, divergence, constrained, rectangular):
    solve = operator(divergence if cost is None else Wasserstein(cost), constrained)
    s = model.features.shape[0]
    by_factor = rectangular == "d"
    laws = model.factors if by_factor else kernels(model)
    level = jnp.broadcast_to(level, laws.shape[:-1])
    for _ in range(laws.ndim - 2):
        solve = jax.vmap(solve, in_axes=(0, None, 0))

    def step(value, at):
        laws, level, reward, chosen = at
        worst = solve(laws, value, level)
        weights = worst.value
        continuation = jnp.einsum("sad,d->sa", model.features, weights, precision="highest") if by_factor else weights
        q = reward + continuation
        if chosen is None:
            chosen = jnp.argmax(q, axis=1).astype(jnp.int32)
            new = jnp.max(q, axis=1)
        elif chosen.ndim == 1:
            new = jnp.take_along_axis(q, chosen[:, None], axis=1)[:, 0]
        else:
            new = jnp.sum(chosen * q, axis=1)
        return new, (new, q, chosen, weights, worst.worst_kernel, worst.dual)

    end = jnp.zeros(s, laws.dtype)
    _, found = jax.lax.scan(step, end, (laws, level, rewards(model), policy), reverse=True)
    return RobustValues(jnp.concatenate([found[0], end[None]]), *found[1:])


def levels_of_radius(
    model: LinearMDP,
    divergence: Divergence,
    radius: Number | Float[Array, "..."],
    policy: Int[Array, "H S"] | Float[Array, "H S A"] | None = None,
) -> Float[Array, "H d"]:
    """The prices, one per step and factor, at which the regularised problem is the constrained one.

    With these prices, w_{h,i} = (regularised worst case) - price * radius reproduces the constrained values exactly,
    and the greedy policies are the same.

    Args: model; divergence: "tv", "kl" or "chi2"; radius: broadcasts to [H, d]; policy: to evaluate; None plans.
    Returns: float[H, d] >= 0; 0 where the ball holds the worst law of all; at radius 0 inf (KL, chi-square) or, for
      TV, the largest value that the factor reaches less the least one of all, from where on nothing moves.
    Raises: ValueError: a divergence whose balls have no price, a radius out of range.
    Source: derived: docs/proofs/robust.md#c7. Cost: one plan.
    """
    if divergence == "cvar":
        raise ValueError("divergence: found 'cvar', expected tv, kl or chi2: the level of a CVaR is not a radius")
    return _backward(model, policy, divergence, radius, True, "d").duals
