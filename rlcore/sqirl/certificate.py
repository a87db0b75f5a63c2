"""What SQIRL with split folds promises: a bound on its expected suboptimality, from gaps and an oracle's error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.mdp import StickyMDP
from rlcore.sqirl.ladder import basic_values, qvi_step
from rlcore.sqirl.solvability import confusable_gaps, reachable
from rlcore.sqirl.ties import optimal_actions
from rlcore.types import Array, Bool, Float, Int, Number, require_float64

__all__ = ["TABULAR_ERROR", "SqirlCertificate", "regression_errors", "sqirl_certificate", "tabular_squared_error"]

# 1/2 + 1/(4 e): the squared error of a table of means is at most this times b^2 |X| / m.
TABULAR_ERROR = 0.5 + 0.25 / jnp.e


class SqirlCertificate(NamedTuple):
    """Bounds of docs/proofs/sqirl.md, T9, that fall as 1 / m; inf where the premise fails.

    by_step: float[], expected suboptimality times m, from every step's own pairs, ranges and depth.
    worst_case: float[], the same from the largest number of pairs, the ranges 1 and 2, and full depth at every step.
    tolerance: float[], to be added to either over m: the length times `tol`.
    pairs: int32[T], reachable pairs of a row and an available action.
    gap: float[], the gap of rung k. applies: bool[], rewards and returns in [0, 1], and a positive gap.
    """

    by_step: Float[Array, ""]
    worst_case: Float[Array, ""]
    tolerance: Float[Array, ""]
    pairs: Int[Array, "T"]
    gap: Float[Array, ""]
    applies: Bool[Array, ""]

    def suboptimality(self, episodes: Number) -> Float[Array, ""]:
        """An upper bound on E[J* - J] with m = `episodes` per fold, at most 1. Cost: O(1)."""
        return jnp.minimum(self.by_step / episodes + self.tolerance, 1.0)

    def episodes(self, epsilon: Number) -> Float[Array, ""]:
        """The m per fold that certifies E[J* - J] <= epsilon; inf for one not above the tolerance. Cost: O(1)."""
        left = jnp.asarray(epsilon - self.tolerance)
        return jnp.where(left > 0, jnp.ceil(self.by_step / jnp.where(left > 0, left, 1.0)), jnp.inf)


def tabular_squared_error(pairs: Number, episodes: Number, spread: Number = 1.0) -> Float[Array, ""]:
    """T9a: E || table of means - regression function ||^2 under the data's law is at most (1/2 + 1/(4e)) b^2 |X| / m.

    Args:
      pairs: |X|, pairs of positive probability. episodes: m independent samples, some of which may be void.
      spread: b, targets lie in [0, b] and unvisited pairs are valued b / 2.

    Returns: float[].
    Source: derived: docs/proofs/sqirl.md, T9a.
    Cost: O(1).
    """
    return jnp.asarray(TABULAR_ERROR * spread**2 * pairs / episodes)


def regression_errors(
    dimension: Float[Array, "k"], spread: Float[Array, "k"], num_actions: Number, amplification: Number
) -> Float[Array, ""]:
    """e_k sqrt(m) of the recursion e_1 = b_1 sqrt(D_1 / m), e_{j+1} = alpha sqrt(A) e_j + b_{j+1} sqrt(D_{j+1} / m).

    Args:
      dimension, spread: D and b of the regressions in the order they are done: the Monte-Carlo one first.
      num_actions: A. amplification: alpha, 1 for tables of means and convex classes that hold the next rung.

    Returns: float[], the L2 error of the last regression times sqrt(m).
    Source: derived: docs/proofs/sqirl.md, T9.
    Cost: O(k).
    """

    def climb(error, row):
        own, spread = row
        return amplification * jnp.sqrt(jnp.asarray(num_actions, own.dtype)) * error + spread * jnp.sqrt(own), None

    return jax.lax.scan(climb, jnp.zeros((), dimension.dtype), (dimension, spread))[0]


def sqirl_certificate(
    episodic: Episodic, depth: int, *, tol: Number = 1e-9, amplification: Number = 1.0, dimension: Number | None = None
) -> SqirlCertificate:
    """The guarantee of SQIRL(k, m) with split folds, fitted values clipped to [0, 1] and uniform exploration.

    Args:
      episodic: one undiscounted problem with rewards >= 0 and returns at most 1, float64.
      depth: k, static.
      tol: an action is optimal if its optimal value is within `tol` of the best.
      amplification: alpha of the oracle.
      dimension: D of the oracle, the same at every step; None for tables of means with default b / 2, where
        D = (1/2 + 1/(4e)) times the step's reachable pairs.

    Returns: `SqirlCertificate`, bounds times m. With m below any of use they exceed 1 and say nothing.
    Raises: RuntimeError without float64; ValueError for a depth below 1.
    Source: derived: docs/proofs/sqirl.md, T9 and T9a; the theorem of arXiv 2312.08369 was not read.
    Cost: k + 6 times T sweeps.
    """
    require_float64("rlcore.sqirl.sqirl_certificate")
    if depth < 1:
        raise ValueError(f"depth: found {depth}, expected at least 1")
    problem, length = episodic.problem, episodic.length
    base = problem.base if isinstance(problem, StickyMDP) else problem
    available = problem.available
    num_actions = jnp.max(jnp.sum(available, axis=1)).astype(problem.discount.dtype)
    values = basic_values(episodic)
    optimal = optimal_actions(values.optimal.q, available[None], tol)
    q = values.exploration.q
    for _ in range(depth - 1):
        q = qvi_step(episodic, q)
    gaps = confusable_gaps(episodic, q, optimal)
    anything = jnp.broadcast_to(available, (problem.horizon, *available.shape))
    rows = reachable(episodic, anything)
    pairs = jnp.sum(rows[..., None] & available[None], axis=(1, 2), dtype=jnp.int32)
    dtype = problem.discount.dtype
    size = TABULAR_ERROR * pairs.astype(dtype) if dimension is None else jnp.full(pairs.shape, dimension, dtype)
    reward = jnp.max(jnp.where((base.prob > 0) & base.available[..., None], base.reward, -jnp.inf))

    def error(i):
        """e_k sqrt(m) of the decision at step i: regressions at min(i + k - 1, T - 1), .., i."""
        t = i + jnp.arange(depth - 1, -1, -1, dtype=jnp.int32)
        own = jnp.where(t < length, size[jnp.minimum(t, problem.horizon - 1)], 0.0)
        # Returns-to-go lie in [0, 1], as do the last step's rewards; a reward plus a clipped value in [0, 1 + reward].
        sampled = (t >= jnp.minimum(i + depth - 1, length - 1)) | (t == length - 1)
        return regression_errors(own, jnp.where(sampled, 1.0, 1.0 + reward), num_actions, amplification)

    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    live = steps < length
    squares = jnp.where(live, jax.vmap(error)(steps) ** 2, 0.0)
    spread = jnp.full(depth, 2.0, dtype).at[0].set(1.0)
    worst = regression_errors(jnp.full(depth, jnp.max(size)), spread, num_actions, amplification) ** 2
    rewards = jnp.where((base.prob > 0) & base.available[..., None], base.reward, 0.0)
    applies = gaps.separated & jnp.all(rewards >= 0) & (most_return(episodic) <= 1 + 1e-12) & (problem.discount == 1)
    gap = jnp.where(applies, gaps.smallest, 0.0)
    # An infinite gap, where every action is optimal, promises a suboptimality of nothing.
    factor = jnp.where(applies, 2 * num_actions / jnp.where(gap > 0, gap, 1.0) ** 2, jnp.inf)
    count = length.astype(dtype)
    tolerance = count * jnp.asarray(tol, dtype)
    return SqirlCertificate(factor * jnp.sum(squares), factor * count * worst, tolerance, pairs, gap, applies)


def most_return(episodic: Episodic) -> Float[Array, ""]:
    """The largest return-to-go of any path that has positive probability. Cost: T S A B."""
    problem = episodic.problem
    base = problem.base if isinstance(problem, StickyMDP) else problem
    real = (base.prob > 0) & base.available[..., None]
    following = base.next_state

    def back(value, t):
        onward = base.reward + jnp.where(base.terminal, 0.0, value[following])
        value = jnp.max(jnp.where(real, onward, -jnp.inf), axis=(1, 2))
        return jnp.where(t < episodic.length, value, 0.0), jnp.max(value)

    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    start = jnp.zeros(base.prob.shape[0], base.prob.dtype)
    largest = jax.lax.scan(back, start, steps, reverse=True)[1]
    return jnp.max(jnp.where(steps < episodic.length, largest, -jnp.inf))
