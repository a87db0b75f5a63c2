"""Backward induction: exact values of a finite-horizon problem, for the best, worst, average or a given policy."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.mdp import MDP, Problem, StickyMDP, check_policy, policy_backup, uniform_policy
from rlcore.planning.kernel import action_major
from rlcore.types import Array, Bool, Float, Int

__all__ = ["FiniteValues", "aggregate_values", "backward_induction"]


class FiniteValues(NamedTuple):
    """Values of every step of a finite-horizon problem.

    q: float[H,S,A]; entries of unavailable pairs are numbers without meaning: mask them.
    value: float[H+1,S]; the last row is 0.
    """

    q: Float[Array, "H S A"]
    value: Float[Array, "H1 S"]


def aggregate_values(
    q: Float[Array, "S A"], available: Bool[Array, "S A"], aggregate: str, policy: Float[Array, "S A"] | None = None
) -> Float[Array, "S"]:
    """The value of a state from the values of its available actions.

    Args:
      q: float[S,A].
      available: bool[S,A].
      aggregate: "max", "min", or "policy" (then `policy` float[S,A] weighs them).

    Returns: float[S].
    """
    if aggregate == "max":
        return jnp.max(jnp.where(available, q, -jnp.inf), axis=-1)
    if aggregate == "min":
        return jnp.min(jnp.where(available, q, jnp.inf), axis=-1)
    return policy_backup(q, policy)


def _stationary_parts(problem: Problem) -> tuple[Problem, bool]:
    """The problem laid out for sweeps where its kernel does not change with time, and whether it does."""
    base = problem.base if isinstance(problem, StickyMDP) else problem
    if isinstance(base, MDP) and base.next_state.ndim == 3:
        base = action_major(base)
    varying = getattr(base, "next_state", getattr(base, "transition", None))
    changes = varying is not None and varying.ndim == 4
    return (StickyMDP(base, problem.probability) if isinstance(problem, StickyMDP) else base), changes


def backward_induction(
    problem: Problem,
    aggregate: str | Float[Array, "S A"] | Float[Array, "H S A"] | Int[Array, "S"] | Int[Array, "H S"] = "max",
) -> FiniteValues:
    """Values of every step of a finite-horizon problem, exact up to rounding.

    Args:
      problem: with a horizon H; its kernel may change with time, and it may be sticky (never at t = 0).
      aggregate: "max" (optimal), "min" (worst), "mean" (uniform over available actions), or a policy: float[S,A] or
        actions int[S], or either with a leading H.

    Returns: `FiniteValues(q[H,S,A], value[H+1,S])`. Rounding: |value[t] - exact| <= (H - t)(B + 5) eps (scale of the
      rewards and values), as every sweep adds its own and the discount never amplifies it.
    Raises: ValueError without a horizon or for an unknown word; as `check_policy` for what is no policy.
    Source: Puterman 1994, section 4.5 (optimal) and 4.2 (a policy).
    Cost: H sweeps, memory H S A.
    """
    if problem.horizon is None:
        raise ValueError("problem.horizon: found None, expected a number of steps; see `finite_horizon`")
    if isinstance(aggregate, str):
        if aggregate not in ("max", "min", "mean"):
            raise ValueError(f"aggregate: found {aggregate!r}, expected 'max', 'min', 'mean' or a policy")
        policy = uniform_policy(problem) if aggregate == "mean" else None
        aggregate = "policy" if aggregate == "mean" else aggregate
    else:
        policy, aggregate = check_policy(problem, aggregate, by_time=True), "policy"
        if jnp.issubdtype(policy.dtype, jnp.integer):
            policy = jax.nn.one_hot(policy, problem.available.shape[-1], dtype=problem.discount.dtype)
    return _backward_induction(problem, policy, aggregate=aggregate)


@functools.partial(jax.jit, static_argnames=("aggregate",))
def _backward_induction(problem, policy, *, aggregate):
    horizon = problem.horizon
    fast, changes = _stationary_parts(problem)
    # A sticky problem mixes the base's rewards anew at t = 0, but the base's own are computed once.
    base = fast.base if isinstance(fast, StickyMDP) else fast
    rewards = None if changes else base.expected_reward()

    def reward_at(now):
        if rewards is None:
            return now.expected_reward()
        return now.lift(rewards) if isinstance(now, StickyMDP) else rewards

    def step(value, row):
        t, rule = row
        now = fast.at_time(t)
        q = reward_at(now) + problem.discount * now.expected_next(value)
        new = aggregate_values(q, problem.available, aggregate, policy if rule is None else rule)
        return new, (q, new)

    last = jnp.zeros(problem.initial.shape, problem.discount.dtype)
    rules = policy if policy is not None and policy.ndim == 3 else None
    _, (q, value) = jax.lax.scan(step, last, (jnp.arange(horizon), rules), reverse=True)
    return FiniteValues(q, jnp.concatenate([value, last[None]]))
