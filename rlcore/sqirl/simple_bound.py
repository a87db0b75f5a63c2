"""How many episodes GORP needs at most, by Bernstein's inequality: a sound bound and the one of the released code."""

from functools import partial
from math import ceil, inf, log

import jax
import jax.numpy as jnp

from rlcore.mdp import MDP
from rlcore.pytree import pytree, static
from rlcore.sqirl.deterministic import (
    DeterministicTable,
    action_values,
    deterministic_table,
    exploration,
    lookahead,
    optimal_actions,
    optimal_values,
)
from rlcore.types import Array, Bool, Float, Number, require_float64

__all__ = ["SimpleBound", "bernstein_ratio", "confusable_gaps", "simple_bound"]

MODES = ("sound", "official")


@pytree
class SimpleBound:
    """horizon: min_k k + log_A m_k, and T where no depth does better. Per depth 1, 2, .. that was tried:
    episodes: m_k, an integer as a float, inf where the problem is not C-solvable; gap: Delta_k, the smallest gap."""

    horizon: float
    episodes: tuple[float, ...] = static()
    gap: tuple[float, ...] = static()


def confusable_gaps(
    table: DeterministicTable, q: Float[Array, "T S1 A"], good: Bool[Array, "T S1 A"], rounding: Number = 1e-12
) -> tuple[Float[Array, "T S1"], Bool[Array, "T S1"], Bool[Array, ""]]:
    """Gaps between the best action and the best one that is not optimal, and the set where they matter.

    Args: q: Q^k; good: the optimal actions; rounding: values this close, relative to their size, are ties.
    Returns: (gap float[T,S+1], inf where every action is optimal; C bool[T,S+1], what is reached from the start by
      actions above every action that is not optimal; whether all gaps in C are positive).
    Source: BRIDGE/SQIRL specification, 2 and 3.6, from the authors' code. Cost: O(T S A).
    """
    best = jnp.max(q, axis=2)
    second = jnp.max(jnp.where(good, -jnp.inf, q), axis=2)
    gap = best - second
    clear = gap > rounding * jnp.maximum(jnp.abs(best), jnp.where(jnp.isinf(second), 0, jnp.abs(second)))

    def forward(here, now):
        q, second = now
        go = here[:, None] & (q > second[:, None])
        return jnp.zeros_like(here).at[table.next_state].max(go), here

    start = jnp.arange(table.end + 1) == table.initial
    inside = jax.lax.scan(forward, start, (q, second))[1]
    return gap, inside, jnp.all(clear | ~inside)


def bernstein_ratio(
    table: DeterministicTable, policy: Float[Array, "T S1 A"], k: Number, mode: str, tolerance: Number
) -> tuple[Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """What the logarithm ln(2 T A^k) is multiplied by in the number of episodes of depth k.

    Sound: max (8 sigma^2 + 4/3 b gap) / gap^2, sigma^2 = (q - w) (o - q) and b = o - w per action sequence, with q, w,
    o its exploration, worst and best value. Official: max 16 (q - w) (o - w) / gap^2.

    Args: policy: exploration, float[T,S+1,A]; k: depth, may be traced; mode: "sound" or "official", static.
    Returns: (ratio float[], smallest gap float[], whether the problem is C-solvable at k).
    Source: docs/proofs/sqirl.md#t7; official: the authors' code, BRIDGE/SQIRL specification, 3.7. Cost: O(k T S A).
    """
    explored = action_values(table, lambda q, t: jnp.sum(policy[t] * q, axis=1))
    best = optimal_values(table)
    worst = action_values(table, lambda q, t: jnp.min(q, axis=1))
    # Rounding must not take the exploration value out of its range.
    explored = jnp.clip(explored, worst, best)
    spread = (explored - worst) * (best - (explored if mode == "sound" else worst))
    # A sequence keeps its variance and range on the way up; the largest of those that begin with an action counts.
    still = jax.tree.map(jnp.zeros_like, table.reward)
    unpaid = DeterministicTable(table.next_state, still, table.initial, table.horizon)

    def rung(_, ladder):
        q, spread, width = ladder
        return lookahead(table, q), lookahead(unpaid, spread), lookahead(unpaid, width)

    q, spread, width = jax.lax.fori_loop(1, k, rung, (explored, spread, best - worst))
    gap, inside, solvable = confusable_gaps(table, q, optimal_actions(best, tolerance))
    spread, width = jnp.max(spread, axis=2), jnp.max(width, axis=2)
    terms = 8 * spread + 4 / 3 * width * gap if mode == "sound" else 16 * spread
    counts = inside & jnp.isfinite(gap)
    ratio = jnp.where(counts, terms / jnp.where(counts & (gap > 0), gap, 1) ** 2, 0)
    return jnp.max(ratio), jnp.min(jnp.where(inside, gap, jnp.inf)), solvable


@partial(jax.jit, static_argnames="mode")
def _ratio(table, policy, k, mode, tolerance):
    return bernstein_ratio(table, policy, k, mode, tolerance)


def simple_bound(mdp: MDP, mode: str = "sound", *, policy: object = None, tolerance: float = 1e-4) -> SimpleBound:
    """An upper bound on the effective horizon of GORP from gaps and variances alone.

    Args: mdp: deterministic; mode: "sound" (proved), or "official": the released code's formula, which is wrong on some
      problems (docs/proofs/sqirl.md#t7) and stands for comparison; policy: exploration, float[S,A] or
      [T,S,A], uniform by default; tolerance: in reward: actions this close to the best count as optimal.
    Returns: SimpleBound. Raises: RuntimeError: float64 is off. ValueError: an unknown mode, a stochastic MDP and all
      that `deterministic_table` refuses.
    Source: docs/proofs/sqirl.md#t7; BRIDGE/SQIRL specification, 3.7 (called Theorem 5.4 of Laidlaw et al. 2023 there).
    Cost: O(k T S A) for every depth k below the bound.
    """
    require_float64("simple_bound")
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {MODES}")
    table = deterministic_table(mdp)
    policy = exploration(table, policy)
    best, episodes, gaps, k = float(table.horizon), [], [], 1
    base = table.num_actions
    while k < best:
        ratio, gap, solvable = (float(x) for x in _ratio(table, policy, k, mode, tolerance))
        m = float(max(1, ceil(ratio * (log(2 * table.horizon) + k * log(base))))) if solvable else inf
        episodes.append(m)
        gaps.append(gap)
        best = min(best, k + (log(m) / log(base) if base > 1 else 0.0))
        k += 1
    return SimpleBound(best, tuple(episodes), tuple(gaps))
