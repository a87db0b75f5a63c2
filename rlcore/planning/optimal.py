"""Optimal values of discounted problems: value iteration, policy iteration and what lies between, all certified.

The three methods share one state (a value, its optimal backup, the greedy actions) and one certificate; they differ
only in how they propose the next value. Each is a solver in the sense of `rlcore.solver`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.mdp import Problem
from rlcore.planning.certificate import span_certificate
from rlcore.planning.evaluation import bicgstab, choose_method, report, solve_by_lu
from rlcore.planning.kernel import Kernel, prepare
from rlcore.pytree import pytree, static
from rlcore.solver import Solution, fixed_point
from rlcore.types import Array, Float, Int, Number, PyTree, RandomKey

__all__ = [
    "ModifiedPolicyIteration",
    "Plan",
    "PlanState",
    "PolicyIteration",
    "ValueIteration",
    "modified_policy_iteration",
    "plan_certificate",
    "policy_iteration",
    "solve_optimal",
    "value_iteration",
]


class PlanState(NamedTuple):
    """What the next step needs.

    value: float[S]. backed_up: float[S], its optimal backup. action: int32[S], actions that attain the backup, to
    rounding.
    """

    value: Float[Array, "S"]
    backed_up: Float[Array, "S"]
    action: Int[Array, "S"]


class Plan(NamedTuple):
    """What a planner returns.

    value: float[S], within the solution's `bound` of the optimal value.
    action: int32[S], a policy; its own value is within `bound` of `value` too, so it loses at most 2 `bound`.
    """

    value: Float[Array, "S"]
    action: Int[Array, "S"]


def _start(kernel: Kernel) -> PlanState:
    value = jnp.zeros(kernel.num_states, kernel.reward.dtype)
    return PlanState(value, *kernel.greedy(value))


@pytree
class ValueIteration:
    """v <- T v. One sweep per step; with the span certificate it stops once all states err alike.

    The actions of its states are those of the first one: sweeps that need no action are faster, and `finish` finds
    the last ones.
    """

    def init(self, problem: Kernel, key: RandomKey) -> PlanState:
        """The value 0 and its backup."""
        return _start(problem)

    def step(self, problem: Kernel, state: PlanState, key: RandomKey) -> PlanState:
        """One sweep."""
        return PlanState(state.backed_up, problem.backup(state.backed_up), state.action)

    def finish(self, problem: Kernel, state: PlanState) -> PlanState:
        """The state with the actions that attain its backup. Cost: one sweep."""
        return state._replace(action=problem.greedy(state.value)[1])


@pytree
class ModifiedPolicyIteration:
    """v <- T_pi^m T v with pi greedy for v: `partial_sweeps` = m cheap sweeps of one policy per sweep over all actions.

    partial_sweeps: static; 0 is value iteration.
    """

    partial_sweeps: int = static(10)

    def init(self, problem: Kernel, key: RandomKey) -> PlanState:
        """The value 0 and its backup."""
        return _start(problem)

    def step(self, problem: Kernel, state: PlanState, key: RandomKey) -> PlanState:
        """`partial_sweeps` sweeps of the greedy policy, then one over all actions."""
        chain = problem.follow(state.action)
        value = jax.lax.fori_loop(0, self.partial_sweeps, lambda _, v: chain.sweep(v), state.backed_up)
        return PlanState(value, *problem.greedy(value))

    def finish(self, problem: Kernel, state: PlanState) -> PlanState:
        """The state itself."""
        return state


@pytree
class PolicyIteration:
    """v <- value of the greedy policy, by a linear solve; an action is switched only where that gains beyond rounding.

    forcing: the solve stops once its residual is this fraction of the current Bellman residual: the error of the
      evaluation never dominates, and early policies are not evaluated to digits that the next one throws away.
    evaluation: "lu", "krylov" or "auto" (LU up to 64 states), static.
    max_inner: Krylov iterations per step, static.
    """

    forcing: Number = 1e-3
    evaluation: str = static("auto")
    max_inner: int = static(500)

    def init(self, problem: Kernel, key: RandomKey) -> PlanState:
        """The value 0, its backup and its greedy policy."""
        return _start(problem)

    def step(self, problem: Kernel, state: PlanState, key: RandomKey) -> PlanState:
        """Evaluate the policy, then improve it."""
        chain = problem.follow(state.action)
        method = self.evaluation
        choose_method(method, problem.num_states)
        if method == "auto":
            method = "lu" if problem.num_states <= 64 else "krylov"
        if method == "lu":
            value = solve_by_lu(chain)
        else:
            start = span_certificate(problem, state.value, state.backed_up).center
            start = jnp.where(jnp.all(jnp.isfinite(start)) & (problem.high < 1), start, state.backed_up)
            change = jnp.max(jnp.abs(chain.sweep(start) - start))
            matvec = lambda x: x - chain.discount * chain.expected_next(x)  # noqa: E731
            value, _, _ = bicgstab(matvec, chain.reward, start, self.forcing * change, self.max_inner)
        best, action = problem.greedy(value)
        size = jnp.max(jnp.abs(best)) + problem.reward_scale
        rounding = 4 * (problem.terms + 5) * jnp.finfo(best.dtype).eps * size
        kept = chain.sweep(value) >= best - rounding
        return PlanState(value, best, jnp.where(kept, state.action, action))

    def finish(self, problem: Kernel, state: PlanState) -> PlanState:
        """The state with the actions that attain its backup: a kept one may miss it by rounding. Cost: one sweep."""
        return state._replace(action=problem.greedy(state.value)[1])


def plan_certificate(problem: Kernel, state: PlanState) -> Float[Array, ""]:
    """The error bound of a state, or 0 where only rounding is left and more steps cannot help.

    Cost: S.
    """
    certificate = span_certificate(problem, state.value, state.backed_up)
    stuck = certificate.bound <= 2 * certificate.floor
    return jnp.where(stuck & jnp.isfinite(certificate.floor), jnp.zeros_like(certificate.bound), certificate.bound)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def solve_optimal(
    solver: PyTree, problem: Problem | Kernel, *, tol: Number = 1e-6, max_steps: int = 10_000
) -> Solution:
    """Solve a stationary problem over an unlimited horizon with one of the solvers of this file.

    Args:
      solver: `ValueIteration()`, `ModifiedPolicyIteration(m)` or `PolicyIteration()`.
      problem: any problem type, or a prepared `Kernel`; its `horizon` is ignored. For a `StickyMDP` this is the value
        for t >= 1.
      tol: largest error of the value accepted, in units of reward.
      max_steps: step limit, static.

    Returns: `Solution(Plan(value, action), status, steps, bound)`: |value - optimal| <= bound in every state, rounding
      included, for the problem as stored in its own float type. Status: CONVERGED (bound <= tol), PRECISION_LIMIT
      (rounding alone exceeds tol; `bound` says by how much), STEP_LIMIT, NOT_FINITE. A discount of 1 is solved and
      certified where every available pair ends the episode with positive probability; otherwise the answer is
      STEP_LIMIT with an infinite bound, at once.
    Source: Puterman 1994, sections 6.3 to 6.6; certificate: `span_certificate`.
    Cost: one preparation, then per step one sweep over all actions and what the solver adds.
    """
    kernel = problem if isinstance(problem, Kernel) else prepare(problem)
    # No contraction, no certificate: an infinite tolerance ends the loop before its first step.
    aim = jnp.where(kernel.high < 1, tol, jnp.inf).astype(kernel.reward.dtype)
    solution = fixed_point(solver, kernel, plan_certificate, aim, max_steps)
    state = solver.finish(kernel, solution.value)
    certificate = span_certificate(kernel, state.value, state.backed_up)
    return report(certificate, Plan(certificate.center, state.action), tol, solution.steps)


def value_iteration(problem: Problem | Kernel, *, tol: Number = 1e-6, max_steps: int = 10_000) -> Solution:
    """Optimal value by value iteration; see `solve_optimal`."""
    return solve_optimal(ValueIteration(), problem, tol=tol, max_steps=max_steps)


def modified_policy_iteration(
    problem: Problem | Kernel, *, tol: Number = 1e-6, max_steps: int = 10_000, partial_sweeps: int = 10
) -> Solution:
    """Optimal value by modified policy iteration with `partial_sweeps` sweeps per policy; see `solve_optimal`."""
    return solve_optimal(ModifiedPolicyIteration(partial_sweeps), problem, tol=tol, max_steps=max_steps)


def policy_iteration(
    problem: Problem | Kernel, *, tol: Number = 1e-6, max_steps: int = 1_000, evaluation: str = "auto"
) -> Solution:
    """Optimal value by policy iteration; see `solve_optimal` and `PolicyIteration`.

    Raises: ValueError for an unknown evaluation.
    """
    if evaluation not in ("auto", "lu", "krylov"):
        raise ValueError(f"evaluation: found {evaluation!r}, expected 'auto', 'lu' or 'krylov'")
    return solve_optimal(PolicyIteration(evaluation=evaluation), problem, tol=tol, max_steps=max_steps)
