"""What greedy policies of given values earn, with ties broken in the worst and in the best way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.mdp import backup
from rlcore.sqirl.ties import greedy_actions
from rlcore.types import Array, Float, Number

__all__ = ["GreedyReturn", "greedy_return"]


class GreedyReturn(NamedTuple):
    """Expected returns from the start, float[] each, of the worst and the best tie-breaking."""

    worst: Float[Array, ""]
    best: Float[Array, ""]


def greedy_return(episodic: Episodic, q: Float[Array, "T S A"], tie_tol: Number = 1e-12) -> GreedyReturn:
    """The range of returns over all policies that are greedy on `q`.

    Args:
      episodic: one problem.
      q: values to be greedy on.
      tie_tol: relative tie tolerance.

    Returns: `GreedyReturn`; `worst` on rung k of the ladder is J_k.
    Source: derived: docs/proofs/sqirl.md, T1 (ties at different steps and states are independent choices).
    Cost: 2 T sweeps.
    """
    problem = episodic.problem
    greedy = greedy_actions(q, problem.available[None], tie_tol)

    def back(values, row):
        t, allowed = row
        low, high = jax.vmap(lambda value: backup(problem.at_time(t), value))(values)
        low = jnp.min(jnp.where(allowed, low, jnp.inf), axis=-1)
        high = jnp.max(jnp.where(allowed, high, -jnp.inf), axis=-1)
        return jnp.where(t < episodic.length, jnp.stack([low, high]), jnp.zeros_like(values)), None

    last = jnp.zeros((2, problem.initial.shape[0]), problem.discount.dtype)
    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    low, high = jax.lax.scan(back, last, (steps, greedy), reverse=True)[0] @ problem.initial
    return GreedyReturn(low, high)
