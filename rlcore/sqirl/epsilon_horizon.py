"""The effective horizon up to epsilon: near-ties that are rarely met do not count."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.mdp import MDP, StickyMDP
from rlcore.sqirl.analysis import effective_horizons, prepared
from rlcore.sqirl.ladder import basic_values, best_value, qvi_step
from rlcore.sqirl.solvability import confusable_gaps
from rlcore.sqirl.ties import optimal_actions
from rlcore.types import Array, Bool, Float, Int, Number

__all__ = ["EpsilonHorizon", "epsilon_gap", "epsilon_horizon"]


class EpsilonHorizon(NamedTuple):
    """What `epsilon_horizon` finds; K is max_k.

    effective_horizon: float[], the smallest k + log_A(1 / gap_k^2).
    k: int32[], where it is attained.
    gaps_by_k: float[K], the gap of rung k up to epsilon, in units of return; 0 where there is none.
    hits_by_k: float[K], the largest probability of meeting a smaller gap.
    certified_k: int32[], the first k with V_k >= J* - epsilon of a unit, which certifies rung k's greedy policies;
      K + 1 for none.
    horizon_exact: bool[], whether no k beyond K could make the horizon smaller.
    """

    effective_horizon: Float[Array, ""]
    k: Int[Array, ""]
    gaps_by_k: Float[Array, "K"]
    hits_by_k: Float[Array, "K"]
    certified_k: Int[Array, ""]
    horizon_exact: Bool[Array, ""]


def epsilon_gap(
    episodic: Episodic,
    q: Float[Array, "T S A"],
    optimal: Bool[Array, "T S A"],
    epsilon: Number,
    tie_tol: Number = 1e-12,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest gap that is undercut with probability at most epsilon, whatever actions above `sub` are taken.

    Values that err by less than half of that gap lead to a policy that takes optimal actions until, with probability
    at most epsilon, it meets a state of a smaller gap.

    Args:
      episodic, q, optimal, tie_tol: as `confusable_gaps`.
      epsilon: probability.

    Returns: (the gap, float[]; the largest probability of meeting a smaller one, float[]). At epsilon = 0 the gap is
      that of `confusable_gaps`; 0 where states without a gap are met too often.
    Source: derived: docs/proofs/sqirl.md, "Up to epsilon".
    Cost: T log2(T S) sweeps.
    """
    problem = episodic.problem
    gaps = confusable_gaps(episodic, q, optimal, tie_tol)
    allowed = problem.available[None] & (q > gaps.sub[..., None])
    top = best_value(episodic, q)
    clear = jnp.isinf(gaps.sub) | (gaps.gap > tie_tol * jnp.maximum(jnp.abs(top), jnp.abs(gaps.sub)))
    gap = jnp.where(clear, gaps.gap, jnp.zeros_like(gaps.gap))

    def hit(least):
        def back(value, row):
            t, mask, small = row
            onward = jnp.max(jnp.where(mask, problem.at_time(t).expected_next(value), 0.0), axis=-1)
            return jnp.where(t < episodic.length, jnp.where(small, 1.0, onward), 0.0), None

        steps = jnp.arange(problem.horizon, dtype=jnp.int32)
        rows = (steps, allowed, gap < least)
        return problem.initial @ jax.lax.scan(back, jnp.zeros(problem.initial.shape), rows, reverse=True)[0]

    # A larger threshold is met at least as often, so the largest good one is found by bisection over the gaps.
    grid = jnp.sort(gap.ravel())
    halvings = int(grid.size).bit_length()

    def halve(_, ends):
        low, high = ends
        middle = (low + high + 1) // 2
        good = hit(grid[middle]) <= epsilon
        return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

    ends = (jnp.zeros((), jnp.int32), jnp.full((), grid.size - 1, jnp.int32))
    found = grid[jax.lax.fori_loop(0, halvings, halve, ends)[0]]
    return found, hit(found)


@functools.partial(jax.jit, static_argnames=("max_k",))
def _epsilon_horizon(episodic, exploration, epsilon, tol, tie_tol, *, max_k):
    problem = episodic.problem
    values = basic_values(episodic, exploration)
    best = problem.initial @ values.optimal.value[0]
    scale = jnp.maximum(1.0, jnp.abs(best))
    optimal = optimal_actions(values.optimal.q, problem.available[None], tol)

    def rung(q, _):
        gap, hit = epsilon_gap(episodic, q, optimal, epsilon, tie_tol)
        return qvi_step(episodic, q), (gap, hit, problem.initial @ best_value(episodic, q)[0])

    _, (gaps, hits, certificates) = jax.lax.scan(rung, values.exploration.q, None, length=max_k)
    horizons = effective_horizons(gaps, jnp.sum(jnp.any(problem.available, axis=0), dtype=jnp.int32), scale)
    certified = certificates >= best - epsilon * scale
    first = jnp.where(jnp.any(certified), jnp.argmax(certified), max_k).astype(jnp.int32) + 1
    horizon, k = jnp.min(horizons), jnp.argmin(horizons).astype(jnp.int32) + 1
    exact = (horizon <= max_k + 1) | (max_k >= episodic.length)
    return EpsilonHorizon(horizon, k, gaps, hits, first, exact)


def epsilon_horizon(
    mdp: MDP | StickyMDP,
    epsilon: float,
    sticky: float = 0.0,
    *,
    max_k: int | None = None,
    tol: float = 1e-4,
    tie_tol: float = 1e-12,
    exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None,
) -> EpsilonHorizon:
    """The effective horizon with gaps counted only up to a total visitation of epsilon.

    Args:
      mdp, sticky, max_k, tol, tie_tol, exploration: as in `analyze`.
      epsilon: probability, in [0, 1]; 0 gives the effective horizon of `analyze`.

    Returns: `EpsilonHorizon`.
    Raises: ValueError for an epsilon outside [0, 1]; as `analyze`.
    Source: derived: docs/proofs/sqirl.md, "Up to epsilon" and T3.
    Cost: T log2(T S) sweeps per rung.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: found {epsilon}, expected a probability")
    one, max_k = prepared(mdp, sticky, max_k)
    return _epsilon_horizon(one, exploration, epsilon, tol, tie_tol, max_k=max_k)
