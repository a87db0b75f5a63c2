"""Occupancy measures, returns, advantages and the performance-difference identity."""

import functools

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from rlcore.mdp import MDP, DenseMDP, Problem, StickyMDP, backup, check_policy, policy_backup
from rlcore.planning.evaluation import bicgstab, choose_method, policy_evaluation
from rlcore.planning.finite import backward_induction
from rlcore.planning.kernel import ActionMajorMDP, num_terms, prepare
from rlcore.solver import CONVERGED, NOT_FINITE, PRECISION_LIMIT, STEP_LIMIT, Solution
from rlcore.types import Array, Float, Int, Number

__all__ = ["advantage", "occupancy", "performance_difference", "policy_return"]


def occupancy(
    problem: Problem,
    policy: Int[Array, "S"] | Float[Array, "S A"] | Float[Array, "H S A"],
    *,
    method: str = "auto",
    tol: Number = 1e-10,
    max_steps: int = 1000,
) -> Solution:
    """Expected (discounted) number of visits to each pair, from the problem's initial law.

    Args:
      problem: with `horizon` H: visits in the first H steps; without: over an unlimited horizon, stationary.
      policy: float[S,A], or actions int[S]; with a horizon also float[H,S,A].
      method, max_steps: as in `policy_evaluation` (unlimited horizon only).
      tol: largest total error (sum over pairs) accepted.

    Returns: `Solution`. Unlimited: value d float[S,A] = sum_t discount^t P(s_t = s, a_t = a), so <d, r> is the return.
      With a horizon: value d float[H,S,A], step t discounted by discount^t, status CONVERGED. `bound` bounds the sum
      over pairs of the errors; infinite, with status STEP_LIMIT, for an undiscounted problem that need not end.
    Raises: ValueError for an unknown method; as `check_policy` for what is no policy.
    Source: Puterman 1994, section 6.9.1 (flow equations).
    Cost: one adjoint solve, or H adjoint sweeps.
    """
    choose_method(method, 1)
    policy = check_policy(problem, policy, by_time=True)
    return _occupancy(problem, policy, tol, method=method, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("method", "max_steps"))
def _occupancy(problem, policy, tol, *, method, max_steps):
    if problem.horizon is not None:
        return _finite_occupancy(problem, policy)
    # The first step alone may differ from the others (a sticky problem): one push, then the stationary flow.
    policy = _probabilities(problem, policy)
    kernel = prepare(problem.at_time(1))
    chain = kernel.follow(policy)
    start = problem.initial
    first = start[:, None] * policy
    source = problem.discount * problem.at_time(0).push_forward(first)
    flow = lambda d: problem.discount * kernel.problem.push_forward(d[:, None] * policy)  # noqa: E731
    if choose_method(method, kernel.num_states) == "lu":
        identity = jnp.eye(source.shape[0], dtype=source.dtype)
        factors = jax.scipy.linalg.lu_factor((identity - problem.discount * chain.dense()).T)
        later = jax.scipy.linalg.lu_solve(factors, source)
        steps = jnp.ones((), jnp.int32)
    else:
        aim = tol * jnp.maximum(1 - kernel.high, jnp.finfo(source.dtype).eps) / (4 * source.shape[0])
        later, _, steps = bicgstab(lambda d: d - flow(d), source, source, aim, max_steps)
    later = jnp.maximum(later, 0)
    residual = jnp.sum(jnp.abs(source + flow(later) - later))
    eps = jnp.finfo(source.dtype).eps
    total = 1 + jnp.sum(later)
    rounding = (_fan_in(kernel.problem).astype(total.dtype) + 5) * eps * total
    gap = jnp.where(kernel.high < 1, 1 - kernel.high, jnp.zeros_like(kernel.high))
    bound = jnp.where(gap > 0, (residual + rounding) / gap, jnp.inf)
    value = first + later[:, None] * policy
    finite = jnp.all(jnp.isfinite(value))
    failed = jnp.where((gap > 0) & (residual <= rounding), PRECISION_LIMIT, STEP_LIMIT)
    status = jnp.where(finite, jnp.where(bound <= tol, CONVERGED, failed), NOT_FINITE)
    return Solution(value, status.astype(jnp.int32), steps, jnp.where(finite, bound, jnp.inf))


def _fan_in(problem: Problem) -> Float[Array, ""]:
    """At most how many terms one sum in `push_forward` has: outcomes that lead to a state, and a view's own mixing."""
    num_states, num_actions = problem.available.shape
    if isinstance(problem, StickyMDP):
        return _fan_in(problem.base) + (num_actions + 3)
    if isinstance(problem, ActionMajorMDP | MDP) and problem.next_state.ndim == 3:
        count = jnp.max(jnp.zeros(num_states, jnp.int32).at[problem.next_state].add(1))
        return count.astype(problem.discount.dtype)
    # A float: at 10^5 states and 10 actions of 10^4 outcomes the number passes 2^31.
    per_pair = 1 if isinstance(problem, DenseMDP) else num_terms(problem)
    return jnp.asarray(float(num_states * num_actions * per_pair), problem.discount.dtype)


def _probabilities(problem: Problem, policy) -> Float[Array, "*H S A"]:
    if not jnp.issubdtype(policy.dtype, jnp.integer):
        return policy
    return jax.nn.one_hot(policy, problem.available.shape[-1], dtype=problem.discount.dtype)


def _finite_occupancy(problem: Problem, policy) -> Solution:
    horizon = problem.horizon
    policy = _probabilities(problem, policy)
    if policy.ndim == 2:
        policy = jnp.broadcast_to(policy, (horizon, *policy.shape))

    def step(law, now):
        t, rule = now
        mass = law[:, None] * rule
        return problem.discount * problem.at_time(t).push_forward(mass), mass

    _, visits = jax.lax.scan(step, problem.initial, (jnp.arange(horizon), policy))
    # Each push rounds its sums relatively, by at most the fan-in of a state; errors add up over the steps.
    eps = jnp.finfo(visits.dtype).eps
    bound = (_fan_in(problem) + 5) * (float(horizon) ** 2 * float(eps))
    status = jnp.where(jnp.all(jnp.isfinite(visits)), CONVERGED, NOT_FINITE).astype(jnp.int32)
    return Solution(visits, status, jnp.asarray(horizon, jnp.int32), bound)


def advantage(
    problem: Problem,
    policy: Int[Array, "*H S"] | Float[Array, "*H S A"],
    *,
    method: str = "auto",
    tol: Number = 1e-10,
    max_steps: int = 1000,
) -> tuple[Float[Array, "*T S A"], Float[Array, "*T S"]]:
    """What one deviation from a policy gains: A(s,a) = Q(s,a) - V(s), and V.

    Args: as `policy_evaluation`; with a horizon the policy may change with time. Not for a sticky problem without a
      horizon, whose first step differs: give it a horizon.

    Returns: (advantage, value): float[S,A] and float[S], with a leading H where the problem has a horizon. Entries of
      unavailable pairs are numbers without meaning.
    Raises: ValueError for a sticky problem without a horizon; as `policy_evaluation`.
    Source: Kakade and Langford 2002, section 2.
    Cost: one policy evaluation.
    """
    if problem.horizon is not None:
        plan = backward_induction(problem, policy)
        return plan.q - plan.value[:-1, :, None], plan.value[:-1]
    if isinstance(problem, StickyMDP):
        raise ValueError("problem: found a sticky problem without a horizon, expected `finite_horizon(problem, H)`")
    value = policy_evaluation(problem, policy, method=method, tol=tol, max_steps=max_steps).value
    return jax.jit(backup)(problem, value) - value[:, None], value


def policy_return(
    problem: Problem,
    policy: Int[Array, "*H S"] | Float[Array, "*H S A"],
    *,
    method: str = "auto",
    tol: Number = 1e-10,
    max_steps: int = 1000,
) -> Float[Array, ""]:
    """Expected (discounted) return of a policy from the initial law.

    Args: as `occupancy`.

    Returns: float[], accurate to the bound of `policy_evaluation` (check that one where convergence is in doubt).
    Raises: as `occupancy`.
    Source: Puterman 1994, sections 4.2 and 5.1.
    Cost: one backward induction or one policy evaluation.
    """
    if problem.horizon is not None:
        return jnp.vdot(problem.initial, backward_induction(problem, policy).value[0])
    rule = _probabilities(problem, check_policy(problem, policy))
    value = policy_evaluation(problem.at_time(1), rule, method=method, tol=tol, max_steps=max_steps).value
    # A sticky problem's first step is not sticky; for the others this backup changes nothing.
    return jnp.vdot(problem.initial, policy_backup(jax.jit(backup)(problem.at_time(0), value), rule))


def performance_difference(
    problem: Problem,
    policy: Int[Array, "*H S"] | Float[Array, "*H S A"],
    reference: Int[Array, "*H S"] | Float[Array, "*H S A"],
    *,
    method: str = "auto",
) -> Float[Array, ""]:
    """Return of `policy` minus return of `reference`, as the visits of the first times the advantages of the second.

    Unlike the difference of two returns, this loses no digits when the policies are close.

    Args: as `advantage`, both policies.

    Returns: float[].
    Raises: as `advantage`.
    Source: Kakade and Langford 2002, lemma 6.1.
    Cost: one occupancy and one policy evaluation.
    """
    visits = occupancy(problem, policy, method=method).value
    gains, _ = advantage(problem, reference, method=method)
    return jnp.sum(visits * jnp.where(visits > 0, gains, jnp.zeros_like(gains)))
