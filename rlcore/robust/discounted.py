"""Robust tabular problems over an unlimited horizon, (s, a)-rectangular, certified; the KL price as a risk-sensitive
problem; and the functional-dual regression that estimates a worst case from samples of pairs.

The robust backup (T V)(s) = max_a r(s, a) + discount * worst case of V is monotone and commutes with constants up to
the discount, as the usual one: the same interval around the fixed point holds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import DenseMDP
from rlcore.pytree import pytree, static
from rlcore.robust.general import FDivergence
from rlcore.robust.worst_case import Divergence, check_level, operator
from rlcore.solver import NOT_FINITE, Solution, fixed_point
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = [
    "DiscountedPlan",
    "ExponentialIteration",
    "RobustValueIteration",
    "functional_dual",
    "plan_discounted",
    "plan_exponential",
]


class DiscountedPlan(NamedTuple):
    """value: float[S], within the solution's bound of the optimum. action: int32[S]. q_values: float[S, A]."""

    value: Array
    action: Array
    q_values: Array


class _State(NamedTuple):
    # A value, its backup, and the magnitude that one backup rounds beside the values.
    value: Array
    backed_up: Array
    size: Array


@pytree
class RobustValueIteration:
    """V <- T V for an adversary at every pair.

    level: price or radius, broadcasts to [S, A]. divergence: "tv", "kl", "chi2" or "cvar"; constrained: static.
    """

    level: Array
    divergence: str = static("tv")
    constrained: bool = static(False)

    def q_values(self, problem: DenseMDP, value: Float[Array, " S"]) -> Float[Array, "S A"]:
        """One robust backup, by pair. Cost: S A operators on S states."""
        solve = operator(self.divergence, self.constrained)
        level = jnp.broadcast_to(jnp.asarray(self.level, value.dtype), problem.reward.shape)
        worst = jax.vmap(jax.vmap(solve, in_axes=(0, None, 0)), in_axes=(0, None, 0))(problem.transition, value, level)
        return problem.reward + problem.discount * worst.value

    def backup(self, problem: DenseMDP, value: Float[Array, " S"]) -> Float[Array, " S"]:
        """The best action of every state."""
        return jnp.max(jnp.where(problem.available, self.q_values(problem, value), -jnp.inf), axis=1)

    def init(self, problem: DenseMDP, key: RandomKey) -> _State:
        """The value 0 and its backup."""
        value = jnp.zeros(problem.reward.shape[0], problem.reward.dtype)
        # The operators' own rounding is that of the values, whatever the level: nothing of the level's size cancels.
        return _State(value, self.backup(problem, value), jnp.max(jnp.abs(problem.reward)))

    def step(self, problem: DenseMDP, state: _State, key: RandomKey) -> _State:
        """One sweep."""
        return state._replace(value=state.backed_up, backed_up=self.backup(problem, state.backed_up))


@pytree
class ExponentialIteration:
    """Z(s, a) <- E exp(-max_a' [r - discount level log Z](s', a') / level): the KL price as a risk-sensitive problem.

    No worst law is formed; Z is kept as its logarithm. With an empirical kernel it is the tabular fitted-Z iteration.
    level: float[] > 0.
    """

    level: Array

    def backup(self, problem: DenseMDP, value: Float[Array, " S"]) -> Float[Array, " S"]:
        """max_a r - discount level log E exp(-V / level). Cost: S A S."""
        return jnp.max(jnp.where(problem.available, self.q_values(problem, value), -jnp.inf), axis=1)

    def q_values(self, problem: DenseMDP, value: Float[Array, " S"]) -> Float[Array, "S A"]:
        """The same, by pair."""
        log_z = jax.nn.logsumexp(
            jnp.broadcast_to(-value / self.level, problem.transition.shape), axis=-1, b=problem.transition
        )
        return problem.reward - problem.discount * self.level * log_z

    def init(self, problem: DenseMDP, key: RandomKey) -> _State:
        """Z = 1, the value of the largest reward."""
        value = jnp.max(jnp.where(problem.available, problem.reward, -jnp.inf), axis=1)
        # The plain logarithm of a sum near 1 is wrong by eps, times the level.
        return _State(value, self.backup(problem, value), jnp.max(jnp.abs(problem.reward)) + self.level)

    def step(self, problem: DenseMDP, state: _State, key: RandomKey) -> _State:
        """One sweep."""
        return state._replace(value=state.backed_up, backed_up=self.backup(problem, state.backed_up))


def _interval(problem: DenseMDP, state: _State):
    """(centre, bound) of the fixed point: T V + discount / (1 - discount) [min, max] of T V - V, and rounding."""
    change = state.backed_up - state.value
    factor = problem.discount / (1 - problem.discount)
    eps = jnp.finfo(change.dtype).eps
    centre = state.backed_up + factor * (jnp.max(change) + jnp.min(change)) / 2
    terms = problem.reward.shape[0] + 16
    size = state.size + jnp.max(jnp.abs(state.value)) + jnp.max(jnp.abs(centre))
    rounding = terms * eps * size / (1 - problem.discount)
    return centre, factor * (jnp.max(change) - jnp.min(change)) / 2 + rounding


def _certificate(problem, state):
    return _interval(problem, state)[1]


def _solve(solver, problem, tol, max_steps) -> Solution:
    found = fixed_point(solver, problem, _certificate, jnp.asarray(tol, problem.reward.dtype), max_steps)
    centre, bound = _interval(problem, found.value)
    q = solver.q_values(problem, centre)
    action = jnp.argmax(jnp.where(problem.available, q, -jnp.inf), axis=1).astype(jnp.int32)
    bound = jnp.where(found.status == NOT_FINITE, jnp.inf, bound)
    return Solution(DiscountedPlan(centre, action, q), found.status, found.steps, bound)


def _check(problem: DenseMDP) -> None:
    if problem.transition.ndim != 3:
        raise ValueError(f"problem: found kernels of shape {problem.transition.shape}, expected [S, A, S]")
    if not isinstance(problem.transition, jax.core.Tracer):
        total = np.sum(np.asarray(problem.transition), axis=-1)
        if not np.all(np.abs(total - 1) <= 1e-6):
            raise ValueError(
                f"problem: found rows that sum to [{total.min():g}, {total.max():g}], expected laws: an adversary "
                "moves mass between states, so an end must be a state"
            )
    discount = problem.discount
    if not isinstance(discount, jax.core.Tracer) and not float(discount) < 1:
        raise ValueError(f"problem: found the discount {discount}, expected one below 1: there is no contraction")


def plan_discounted(
    problem: DenseMDP,
    divergence: Divergence,
    level: Number | Float[Array, "..."],
    constrained: bool = False,
    *,
    tol: Number = 1e-8,
    max_steps: int = 100_000,
) -> Solution:
    """Optimal robust values of a stationary tabular problem.

    Args: problem: DenseMDP with discount < 1, its horizon is ignored; divergence: "tv", "kl", "chi2", "cvar"; level,
      constrained: as in `worst_case`, broadcasts to [S, A]; tol: largest error accepted, in units of reward; max_steps:
      static.
    Returns: Solution(DiscountedPlan, status, steps, bound): |value - optimum| <= bound, rounding included (the error of
      a KL ball's bisection, at most 2e-9 radius span per backup, is added too).
    Raises: ValueError: another divergence, a level out of range, a discount of 1, kernels that change with time, rows
      that are no laws.
    Source: Tang, Liu and Xu (2024) for the operators; contraction derived: docs/proofs/robust.md#discounted.
    Cost: log(1 / tol) / (1 - discount) sweeps of S A operators.
    """
    if not isinstance(divergence, str):
        # The general dual rounds by its level, which the certificate does not count.
        raise ValueError(f"divergence: found {type(divergence).__name__}, expected one of tv, kl, chi2, cvar")
    check_level(divergence, level, constrained)
    operator(divergence, constrained)  # refuses what there is not
    _check(problem)
    solver = RobustValueIteration(jnp.asarray(level, problem.reward.dtype), divergence, constrained)
    found = _solve(solver, problem, tol, max_steps)
    if divergence == "kl" and constrained:
        span = jnp.max(found.value.value) - jnp.min(found.value.value)
        found = found._replace(bound=found.bound + 2e-9 * jnp.max(solver.level) * span / (1 - problem.discount))
    return found


def plan_exponential(problem: DenseMDP, level: Number, *, tol: Number = 1e-8, max_steps: int = 100_000) -> Solution:
    """The same values as `plan_discounted(problem, "kl", level)`, by the risk-sensitive recursion.

    Args: level: float[] > 0, finite; the rest as there.
    Returns: Solution(DiscountedPlan, status, steps, bound). Raises: as there.
    Source: derived: docs/proofs/robust.md#discounted, after Zhang, Hu and Li (2024) as quoted in a digest. Cost: as
      there.
    """
    check_level("kl", level, False)
    if not isinstance(level, jax.core.Tracer) and not level < jnp.inf:
        raise ValueError(f"level: found {level}, expected a finite number above 0")
    _check(problem)
    level = jnp.asarray(level, problem.reward.dtype)
    return _solve(ExponentialIteration(level), problem, tol, max_steps)


def functional_dual(
    divergence: FDivergence,
    pairs: Int[Array, " N"],
    next_values: Float[Array, " N"],
    num_pairs: int,
    level: Number,
    least: Number,
) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """Regularised worst cases from samples: least E[level f*((eta - V) / level)] - eta over functions of the pair.

    One number eta per pair, found by golden sections on its convex risk: as regression would, no law is estimated.

    Args: divergence: static; pairs: int[N], which pair each sample is of; next_values: float[N]; num_pairs: P, static;
      level: float[] > 0; least: float[], least value of all states (only divergences with mass off the support use it).
    Returns: (float[P] worst cases, float[P] eta); NaN for pairs without a sample. Raises: ValueError: a level that is
      not a finite price above 0.
    Source: derived: docs/proofs/robust.md#discounted; the functional form is that of robust fitted Q-iteration, as
      quoted in a digest. Cost: 80 passes over N.
    """
    check_level(divergence, level, constrained=False)
    level = jnp.asarray(level, next_values.dtype)
    count = jax.ops.segment_sum(jnp.ones_like(next_values), pairs, num_pairs)
    left, right = divergence.slopes_at_one
    cap = least + level * divergence.slope_at_infinity
    low = jnp.minimum(jnp.min(next_values) + level * left, cap)
    high = jnp.minimum(jnp.max(next_values) + level * right, cap)

    def risk(eta):
        y = (eta[pairs] - next_values) / level
        t = divergence.ratio(y)
        return jax.ops.segment_sum(level * (y * t - divergence.generator(t)), pairs, num_pairs) / count - eta

    ratio = (5**0.5 - 1) / 2

    def shrink(_, bracket):
        a, b = bracket
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        left = risk(c) <= risk(d)
        return jnp.where(left, a, c), jnp.where(left, d, b)

    start = (jnp.full(num_pairs, low), jnp.full(num_pairs, high))
    a, b = jax.lax.fori_loop(0, 80, shrink, start)
    # The minimum of a convex function on the ends too: the cap may be the minimiser.
    points = jnp.stack([a, (a + b) / 2, b, jnp.full(num_pairs, high)])
    risks = jax.vmap(risk)(points)
    best = jnp.argmin(risks, axis=0)
    pick = lambda x: jnp.take_along_axis(x, best[None], axis=0)[0]  # noqa: E731
    return jnp.where(count > 0, -pick(risks), jnp.nan), jnp.where(count > 0, pick(points), jnp.nan)
