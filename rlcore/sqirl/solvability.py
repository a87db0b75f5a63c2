"""Whether acting greedily on a rung of the ladder is optimal, by reachability, and by how much it is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.sqirl.ladder import qvi_step
from rlcore.sqirl.ties import greedy_actions
from rlcore.types import Array, Bool, Float, Int, Number

__all__ = ["Gaps", "confusable_gaps", "min_k", "num_reachable", "reachable", "solvable"]


class Gaps(NamedTuple):
    """How clearly a rung tells optimal actions from the others.

    gap: float[T,S], the best value less the best of the actions that are not optimal; inf where every one is.
    sub: float[T,S], that second value, -inf where every action is optimal.
    confusable: bool[T,S], states reached by actions with values above `sub`: where a rung's error could lead.
    smallest: float[], the smallest gap over confusable states.
    separated: bool[], whether all those gaps are above ties ("C-solvable").
    """

    gap: Float[Array, "T S"]
    sub: Float[Array, "T S"]
    confusable: Bool[Array, "T S"]
    smallest: Float[Array, ""]
    separated: Bool[Array, ""]


def reachable(episodic: Episodic, allowed: Bool[Array, "T S A"]) -> Bool[Array, "T S"]:
    """The states that some choice among the allowed actions reaches with positive probability.

    Args:
      episodic: one problem.
      allowed: bool[T,S,A].

    Returns: bool[T,S]; False from step `length` on.
    Cost: T scatters of the kernel.
    """
    problem = episodic.problem

    def forward(here, row):
        t, mask = row
        here = here & (t < episodic.length)
        mass = (here[:, None] & mask).astype(problem.discount.dtype)
        return problem.at_time(t).push_forward(mass) > 0, here

    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    return jax.lax.scan(forward, problem.initial > 0, (steps, allowed))[1]


def num_reachable(episodic: Episodic) -> Int[Array, ""]:
    """How many states (pairs with the action before, if sticky) some policy reaches before the episode ends.

    Args: episodic: one problem. Returns: int32[]. Cost: T scatters of the kernel.
    Terminal states are no rows: the released code counts one more, or A more (with each action before) if sticky.
    """
    everything = jnp.broadcast_to(
        episodic.problem.available, (episodic.problem.horizon, *episodic.problem.available.shape)
    )
    return jnp.sum(jnp.any(reachable(episodic, everything), axis=0), dtype=jnp.int32)


def solvable(
    episodic: Episodic, q: Float[Array, "T S A"], optimal: Bool[Array, "T S A"], tie_tol: Number = 1e-12
) -> Bool[Array, ""]:
    """Whether every greedy policy of `q`, however ties are broken, takes optimal actions only.

    Args:
      episodic: one problem.
      q: the values to be greedy on.
      optimal: the optimal actions, as `optimal_actions` gives them.
      tie_tol: relative tie tolerance.

    Returns: bool[].
    Source: derived: docs/proofs/sqirl.md, T1; the meaning is that of the released code's minimal k.
    Cost: T scatters of the kernel.
    """
    greedy = greedy_actions(q, episodic.problem.available[None], tie_tol)
    return ~jnp.any(reachable(episodic, greedy)[..., None] & greedy & ~optimal)


def confusable_gaps(
    episodic: Episodic, q: Float[Array, "T S A"], optimal: Bool[Array, "T S A"], tie_tol: Number = 1e-12
) -> Gaps:
    """Gaps between optimal and other actions under `q`, over the states that such values could lead to.

    With sub the largest value of an action that is not optimal, C_0 holds the start and C_{t+1} the successors of C_t
    by actions with Q > sub. If every gap over C is positive, greedy policies stay in C and are optimal.

    Args: as `solvable`.

    Returns: `Gaps`.
    Source: released code of the effective horizon (the set of its simple bound).
    Cost: T scatters of the kernel.
    """
    available = episodic.problem.available[None]
    top = jnp.max(jnp.where(available, q, -jnp.inf), axis=-1)
    sub = jnp.max(jnp.where(optimal | ~available, -jnp.inf, q), axis=-1)
    gap = top - sub
    confusable = reachable(episodic, available & (q > sub[..., None]))
    # Test for inf first: inf > tie_tol inf is False.
    clear = jnp.isinf(sub) | (gap > tie_tol * jnp.maximum(jnp.abs(top), jnp.abs(sub)))
    smallest = jnp.min(jnp.where(confusable, gap, jnp.inf))
    return Gaps(gap, sub, confusable, smallest, jnp.all(clear | ~confusable))


def min_k(
    episodic: Episodic,
    first: Float[Array, "T S A"],
    optimal: Bool[Array, "T S A"],
    max_k: Int[Array, ""] | int,
    tie_tol: Number = 1e-12,
) -> Int[Array, ""]:
    """The smallest k whose rung, counted from `first` as rung 1, is solvable.

    Solvability is not monotone in k (docs/proofs/sqirl.md, T4), so the search goes upward and never bisects.

    Args:
      episodic, optimal, tie_tol: as `solvable`.
      first: the first rung: exploration values (k of k-QVI-solvable) or `immediate_values` (the planning window).
      max_k: where to stop; the horizon always suffices.

    Returns: int32[], max_k + 1 where no rung up to max_k is solvable.
    Cost: 2 T sweeps per rung.
    """

    def search(carry):
        k, q = carry
        return (k <= max_k) & ~solvable(episodic, q, optimal, tie_tol)

    def climb(carry):
        k, q = carry
        return k + 1, qvi_step(episodic, q)

    return jax.lax.while_loop(search, climb, (jnp.ones((), jnp.int32), first))[0]
