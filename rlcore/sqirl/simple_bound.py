"""How many episodes GORP needs at most, by Bernstein's inequality: a sound bound and the one of the released code."""

import dataclasses
from functools import partial
from math import ceil, inf, log
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic, episodic
from rlcore.mdp import MDP, check_policy
from rlcore.sqirl.deterministic import deterministic_table
from rlcore.sqirl.ladder import basic_values, qvi_step
from rlcore.sqirl.solvability import confusable_gaps
from rlcore.sqirl.ties import optimal_actions
from rlcore.types import Array, Bool, Float, Number, require_float64

__all__ = ["SimpleBound", "bernstein_ratio", "simple_bound"]

MODES = ("sound", "official")


class SimpleBound(NamedTuple):
    """horizon: min_k k + log_A m_k, and T where no depth does better. Per depth 1, 2, .. that was tried:
    episodes: m_k, an integer as a float, inf where the problem is not C-solvable; gap: Delta_k, the smallest gap."""

    horizon: float
    episodes: tuple[float, ...]
    gap: tuple[float, ...]


def bernstein_ratio(
    episodic: Episodic, exploration: Array | None, k: Number, *, mode: str, tolerance: Number
) -> tuple[Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """What the logarithm ln(2 T A^k) is multiplied by in the number of episodes of depth k.

    Sound: max (8 sigma^2 + 4/3 b gap) / gap^2, sigma^2 = (q - w) (o - q) and b = o - w per action sequence, with q, w,
    o its exploration, worst and best value. Official: max 16 (q - w) (o - w) / gap^2.

    Args: episodic: one deterministic problem; exploration: float[S,A] or [T,S,A], None for uniform; k: depth, may be
      traced; mode: "sound" or "official", static; tolerance: as in `simple_bound`.
    Returns: (ratio float[], smallest gap float[], whether the problem is C-solvable at k).
    Source: docs/proofs/sqirl.md#t7; official: the authors' code, BRIDGE/SQIRL specification, 3.7. Cost: O(k T S A).
    """
    problem = episodic.problem
    values = basic_values(episodic, exploration)
    q, best, worst = values.exploration.q, values.optimal.q, values.worst.q
    # A sequence keeps its variance and range on the way up; the largest of those that begin with an action counts.
    unpaid = dataclasses.replace(episodic, problem=dataclasses.replace(problem, reward=jnp.zeros_like(problem.reward)))
    parts = (q, (q - worst) * (best - (q if mode == "sound" else worst)), best - worst)

    def rung(_, ladder):
        q, spread, width = ladder
        return qvi_step(episodic, q), qvi_step(unpaid, spread), qvi_step(unpaid, width)

    q, spread, width = jax.lax.fori_loop(1, k, rung, parts)
    gaps = confusable_gaps(episodic, q, optimal_actions(best, problem.available[None], tolerance))
    spread, width = jnp.max(spread, axis=2), jnp.max(width, axis=2)
    counts = gaps.confusable & jnp.isfinite(gaps.gap) & (gaps.gap > 0)
    gap = jnp.where(counts, gaps.gap, 1)
    terms = 8 * spread + 4 / 3 * width * gap if mode == "sound" else 16 * spread
    return jnp.max(jnp.where(counts, terms / gap**2, 0)), gaps.smallest, gaps.separated


_ratio = partial(jax.jit, static_argnames="mode")(bernstein_ratio)


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
    table, one = deterministic_table(mdp), episodic(mdp)
    policy = None if policy is None else check_policy(mdp, policy, by_time=True)
    best, episodes, gaps, k = float(table.horizon), [], [], 1
    base = table.num_actions
    while k < best:
        ratio, gap, solvable = (float(x) for x in _ratio(one, policy, k, mode=mode, tolerance=tolerance))
        m = float(max(1, ceil(ratio * (log(2 * table.horizon) + k * log(base))))) if solvable else inf
        episodes.append(m)
        gaps.append(gap)
        best = min(best, k + (log(m) / log(base) if base > 1 else 0.0))
        k += 1
    return SimpleBound(best, tuple(episodes), tuple(gaps))
