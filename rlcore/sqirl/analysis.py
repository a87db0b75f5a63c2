"""The exact analysis of one problem: solvability, windows, gaps, certificates and the effective horizon."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore import mdp as mdps
from rlcore.episodic import Episodic, episodic
from rlcore.mdp import MDP, StickyMDP
from rlcore.sqirl.greedy_return import greedy_return
from rlcore.sqirl.ladder import basic_values, best_value, immediate_values, qvi_step
from rlcore.sqirl.solvability import confusable_gaps, min_k, solvable
from rlcore.sqirl.ties import optimal_actions
from rlcore.types import Array, Bool, Float, Int, Number, require_float64

__all__ = ["Analysis", "analyze", "analyze_episodic", "effective_horizons"]

# The default depth of the ladder, as in the golden table.
MAX_K = 30


class Analysis(NamedTuple):
    """What `analyze` finds; K is max_k, and K + 1 stands for "none up to K".

    optimal_return, random_return, worst_return: float[], of the best, the exploration and the worst policy.
    min_k: int32[], the first k for which every greedy policy of rung k is optimal.
    solvable_k: int32[], the first k with a positive gap over all confusable states ("C-solvable").
    gap: float[], that gap, in units of return (0 where there is none).
    window: int32[], the effective planning window: min_k of the ladder that starts from immediate rewards.
    returns_by_k: float[K], J_k: the return of rung k's greedy policy with the worst tie-breaking.
    best_returns_by_k: float[K], with the best tie-breaking.
    certificates: float[K], V_k of the start; J_k >= V_k, so V_k near the optimum certifies rung k.
    gaps_by_k: float[K], the gap of rung k over confusable states, 0 where it is not C-solvable.
    k95: int32[], the first k with J_k >= random + 0.95 (optimal - random).
    horizons_by_k: float[K], k + log_A(1 / gap^2), gap in units of max(1, |optimal_return|); inf if not C-solvable.
    effective_horizon: float[], the smallest of them.
    horizon_exact: bool[], whether no k beyond K could make it smaller.
    """

    optimal_return: Float[Array, ""]
    random_return: Float[Array, ""]
    worst_return: Float[Array, ""]
    min_k: Int[Array, ""]
    solvable_k: Int[Array, ""]
    gap: Float[Array, ""]
    window: Int[Array, ""]
    returns_by_k: Float[Array, "K"]
    best_returns_by_k: Float[Array, "K"]
    certificates: Float[Array, "K"]
    gaps_by_k: Float[Array, "K"]
    k95: Int[Array, ""]
    horizons_by_k: Float[Array, "K"]
    effective_horizon: Float[Array, ""]
    horizon_exact: Bool[Array, ""]


def effective_horizons(
    gaps: Float[Array, "K"], num_actions: Int[Array, ""], scale: Float[Array, ""]
) -> Float[Array, "K"]:
    """k + log_A(1 / gap_k^2) for k = 1 .. K, with gaps in units of `scale`, at most one unit.

    Args:
      gaps: float[K], 0 where there is none.
      num_actions: int32[], A.
      scale: float[], returns are divided by it.

    Returns: float[K]; k where the gap is a unit or more (then A = 1 is no trouble either), inf where it is 0.
    Source: remembered shape of the stochastic effective horizon, consistent with docs/proofs/sqirl.md, T9.
    Cost: O(K).
    """
    k = jnp.arange(1, gaps.shape[0] + 1).astype(gaps.dtype)
    share = jnp.minimum(gaps / scale, 1.0)
    depth = -2 * jnp.log(share) / jnp.log(num_actions.astype(gaps.dtype))
    return k + jnp.where(share >= 1, jnp.zeros_like(depth), depth)


def _first(found: Bool[Array, "K"]) -> Int[Array, ""]:
    """The first k from 1 that is True, K + 1 if none."""
    return jnp.where(jnp.any(found), jnp.argmax(found), found.shape[0]).astype(jnp.int32) + 1


@functools.partial(jax.jit, static_argnames=("max_k", "relative_tol"))
def analyze_episodic(
    episodic: Episodic,
    exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None,
    *,
    max_k: int,
    tol: Number = 1e-4,
    tie_tol: Number = 1e-12,
    relative_tol: bool = False,
    level: Number = 0.95,
) -> Analysis:
    """The analysis as a pure function of one problem of traced length: `jax.vmap` it over a padded stack.

    Args:
      episodic: one problem, float64.
      exploration: probabilities; None for uniform over the available actions.
      max_k: rungs, static; rungs beyond the length equal the optimum.
      tol, tie_tol, relative_tol, level: as in `analyze`.

    Returns: `Analysis`.
    Raises: RuntimeError without float64.
    Source: as `analyze`.
    Cost: about 6 T sweeps per rung, memory a few T S A; no rung is kept.
    """
    require_float64("rlcore.sqirl.analyze")
    problem = episodic.problem
    values = basic_values(episodic, exploration)
    best, random, worst = (problem.initial @ v.value[0] for v in (values.optimal, values.exploration, values.worst))
    margin = tol * (best - worst) if relative_tol else tol
    optimal = optimal_actions(values.optimal.q, problem.available[None], margin)

    def rung(q, _):
        gaps = confusable_gaps(episodic, q, optimal, tie_tol)
        gap = jnp.where(gaps.separated, gaps.smallest, jnp.zeros_like(gaps.smallest))
        certificate = problem.initial @ best_value(episodic, q)[0]
        earned = greedy_return(episodic, q, tie_tol)
        found = (solvable(episodic, q, optimal, tie_tol), gaps.separated, gap, certificate, earned.worst, earned.best)
        return qvi_step(episodic, q), found

    _, found = jax.lax.scan(rung, values.exploration.q, None, length=max_k)
    solved, separated, gap, certificates, returns, best_returns = found
    first = _first(separated)
    num_actions = jnp.sum(jnp.any(problem.available, axis=0), dtype=jnp.int32)
    horizons = effective_horizons(gap, num_actions, jnp.maximum(1.0, jnp.abs(best)))
    horizon = jnp.min(horizons)
    return Analysis(
        optimal_return=best,
        random_return=random,
        worst_return=worst,
        min_k=_first(solved),
        solvable_k=first,
        gap=jnp.where(first > max_k, 0.0, gap[jnp.minimum(first, max_k) - 1]),
        window=min_k(episodic, immediate_values(episodic), optimal, max_k, tie_tol),
        returns_by_k=returns,
        best_returns_by_k=best_returns,
        certificates=certificates,
        gaps_by_k=gap,
        k95=_first(returns >= random + level * (best - random) - 1e-12),
        horizons_by_k=horizons,
        effective_horizon=horizon,
        # A rung beyond K costs K + 1 at least, and beyond the length it repeats an earlier one.
        horizon_exact=(horizon <= max_k + 1) | (max_k >= episodic.length),
    )


def prepared(mdp: MDP | StickyMDP, sticky: float, max_k: int | None) -> tuple[Episodic, int]:
    """A problem and a depth as `analyze` takes them, checked on the host.

    Args: mdp, sticky, max_k: as in `analyze`.
    Returns: (the problem with its length, max_k).
    Raises: as `analyze`.
    Cost: one pass over the outcomes.
    """
    require_float64("rlcore.sqirl.analyze")
    problem = mdps.sticky(mdp, sticky) if sticky != 0 else mdp
    one = episodic(problem)
    base = problem.base if isinstance(problem, StickyMDP) else problem
    if base.prob.dtype != np.float64:
        raise TypeError(f"mdp: found {base.prob.dtype}, expected float64: gaps of 1e-13 are real")
    parts = {name: getattr(base, name) for name in ("terminal", "available", "discount", "horizon", "initial")}
    mdps.tabular(base.next_state, base.prob, base.reward, **parts)
    max_k = min(MAX_K, problem.horizon) if max_k is None else max_k
    if not 1 <= max_k <= problem.horizon:
        raise ValueError(f"max_k: found {max_k}, expected 1 to the horizon, {problem.horizon}")
    return one, int(max_k)


def analyze(
    mdp: MDP | StickyMDP,
    sticky: float = 0.0,
    *,
    max_k: int | None = None,
    tol: float = 1e-4,
    tie_tol: float = 1e-12,
    relative_tol: bool = False,
    exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None,
    official: bool = False,
    level: float = 0.95,
) -> Analysis:
    """Everything exact about planning k steps on top of random exploration, for k up to `max_k`.

    Args:
      mdp: an outcome list with a horizon, float64.
      sticky: probability that the action executed before is repeated; the lifted table is never built.
      max_k: rungs of the ladder, at most the horizon; None for 30, or the horizon if that is less.
      tol: an action is optimal if its optimal value is within `tol` of the best, in units of return.
      tie_tol: relative tie tolerance of greedy actions.
      relative_tol: `tol` in units of the optimal less the worst return.
      exploration: probabilities [S,A] or [T,S,A] (S pairs of a state and the action before, if sticky); None: uniform.
      official: exact ties and an absolute `tol`, as the released code has them.
      level: the share of the way from random to optimal return that `k95` asks for.

    Returns: `Analysis`.
    Raises: RuntimeError without float64, TypeError for a float32 problem, ValueError for `max_k` out of 1..horizon, a
      problem that its constructor would refuse, `official` with `relative_tol`, or without a horizon.
    Source: released code of the effective horizon (arXiv 2304.09853, 2312.08369); tolerances derived:
      docs/proofs/sqirl.md, T1 to T4.
    Cost: about 6 T sweeps per rung, memory a few T S A.
    """
    one, max_k = prepared(mdp, sticky, max_k)
    if official and relative_tol:
        raise ValueError("relative_tol: found True with official=True, expected the absolute tolerance")
    return analyze_episodic(
        one,
        exploration,
        max_k=max_k,
        tol=tol,
        tie_tol=0.0 if official else tie_tol,
        relative_tol=relative_tol,
        level=level,
    )
