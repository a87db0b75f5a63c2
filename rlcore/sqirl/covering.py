"""Where random exploration goes, and how many episodes it needs to see everything that can be reached."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.mdp import uniform_policy
from rlcore.types import Array, Float, Int

__all__ = ["Covering", "covering_length", "exploration_occupancy"]


class Covering(NamedTuple):
    """How long random exploration takes to cover the reachable pairs.

    smallest: float[], the smallest visiting probability of a reachable pair.
    smallest_state: float[], the same of a reachable state.
    pairs: int32[], reachable (state, available action) pairs, terminal states not counted.
    episodes: float[], ceil(ln(2 pairs) / smallest); a whole number, inf where some pair is never visited.
    steps: float[], the length times that.
    """

    smallest: Float[Array, ""]
    smallest_state: Float[Array, ""]
    pairs: Int[Array, ""]
    episodes: Float[Array, ""]
    steps: Float[Array, ""]


def exploration_occupancy(
    episodic: Episodic, exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None
) -> Float[Array, "T S A"]:
    """P(s_t = s, a_t = a, the episode still runs) under the exploration policy.

    Args:
      episodic: one problem.
      exploration: probabilities; None for uniform over the available actions.

    Returns: float[T,S,A], 0 from step `length` on.
    Source: Puterman 1994, section 4.2, forward equations.
    Cost: T sweeps of the adjoint kernel.
    """
    problem = episodic.problem
    policy = uniform_policy(problem) if exploration is None else exploration
    policy = jnp.broadcast_to(policy, (problem.horizon, *problem.available.shape))

    def forward(mass, row):
        t, rule = row
        here = jnp.where(t < episodic.length, mass[:, None] * rule, 0.0)
        return problem.at_time(t).push_forward(here), here

    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    return jax.lax.scan(forward, problem.initial, (steps, policy))[1]


@functools.partial(jax.jit, static_argnames=("rule",))
def covering_length(
    episodic: Episodic,
    exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None,
    *,
    rule: str = "max",
) -> Covering:
    """Episodes after which random exploration has visited every reachable pair with probability at least 1/2.

    Args:
      episodic: one problem.
      exploration: probabilities; None for uniform over the available actions.
      rule: "max" bounds a pair's visiting probability from below by its largest occupancy over time; "unsound_sum", in
        the released code, takes the sum, an expected count and no probability: the guarantee is false for it.

    Returns: `Covering`. A pair counts as reachable if some exploration of full support reaches it.
    Raises: ValueError for another rule.
    Source: derived: docs/proofs/sqirl.md, T11; released code of the effective horizon for both rules.
    Cost: 2 T sweeps of the adjoint kernel.
    """
    if rule not in ("max", "unsound_sum"):
        raise ValueError(f"rule: found {rule!r}, expected 'max' or 'unsound_sum'")
    join = jnp.max if rule == "max" else jnp.sum
    visits = exploration_occupancy(episodic, exploration)
    everywhere = visits if exploration is None else exploration_occupancy(episodic)
    pairs = jnp.any(everywhere > 0, axis=0)
    smallest = jnp.min(jnp.where(pairs, join(visits, axis=0), jnp.inf))
    by_state = join(jnp.sum(visits, axis=-1), axis=0)
    smallest_state = jnp.min(jnp.where(jnp.any(pairs, axis=-1), by_state, jnp.inf))
    count = jnp.sum(pairs, dtype=jnp.int32)
    episodes = jnp.ceil(jnp.log(2.0 * count.astype(visits.dtype)) / smallest)
    return Covering(smallest, smallest_state, count, episodes, episodes * episodic.length.astype(visits.dtype))
