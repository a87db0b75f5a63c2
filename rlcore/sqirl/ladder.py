"""The ladder of action values from random exploration up to the optimum: one more max-backup per rung."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic, episodic_values
from rlcore.mdp import backup
from rlcore.planning import FiniteValues
from rlcore.types import Array, Float

__all__ = ["Values", "basic_values", "best_value", "immediate_values", "qvi_step"]


class Values(NamedTuple):
    """Values of the exploration policy (the ladder's first rung), of the best and of the worst policy."""

    exploration: FiniteValues
    optimal: FiniteValues
    worst: FiniteValues


def basic_values(episodic: Episodic, exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None) -> Values:
    """Exact values of exploring, of the optimum and of the worst policy.

    Args:
      episodic: one problem, S states (pairs of a state and the action before, if sticky), T scan steps.
      exploration: probabilities; None for uniform over the available actions.

    Returns: `Values`; exploration is clipped into [worst, optimal], which removes rounding and nothing else.
    Raises: as `check_policy` for what is no policy.
    Source: derived: docs/proofs/sqirl.md, T2; the clipping is in the released code of the effective horizon.
    Cost: 3 T sweeps.
    """
    optimal, worst = (episodic_values(episodic, word) for word in ("max", "min"))
    explored = episodic_values(episodic, "mean" if exploration is None else exploration)
    return Values(FiniteValues(*map(jnp.clip, explored, worst, optimal)), optimal, worst)


def best_value(episodic: Episodic, q: Float[Array, "T S A"]) -> Float[Array, "T S"]:
    """V(s) = max over available actions of Q(s, a), at every step. Cost: T S A."""
    return jnp.max(jnp.where(episodic.problem.available[None], q, -jnp.inf), axis=-1)


def immediate_values(episodic: Episodic) -> Float[Array, "T S A"]:
    """The expected immediate reward at every step, 0 from `length` on: where the planning window starts its ladder.

    Args:
      episodic: one problem.

    Returns: float[T,S,A].
    Source: released code of the effective horizon ("effective planning window").
    Cost: T passes over the rewards.
    """
    problem = episodic.problem
    return qvi_step(episodic, jnp.zeros((problem.horizon, *problem.available.shape), problem.discount.dtype))


def qvi_step(episodic: Episodic, q: Float[Array, "T S A"]) -> Float[Array, "T S A"]:
    """The next rung: Q'_t(s, a) = E[reward + max over a' of Q_{t+1}(s', a')].

    Args:
      episodic: one problem.
      q: a rung; entries of unavailable pairs are not read.

    Returns: float[T,S,A]; from step `length` on 0, so that the last step is the expected reward on every rung.
    Source: derived: docs/proofs/sqirl.md, T2; "QVI" in the released code of the effective horizon.
    Cost: T sweeps, all at once.
    """
    value = best_value(episodic, q)
    following = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    t = jnp.arange(episodic.problem.horizon, dtype=jnp.int32)
    live = t < episodic.length
    following = jnp.where((t + 1 < episodic.length)[:, None], following, jnp.zeros_like(following))
    backed = jax.vmap(lambda t, value: backup(episodic.problem.at_time(t), value))(t, following)
    return jnp.where(live[:, None, None], backed, jnp.zeros_like(backed))
