"""Exact policy evaluation: a linear solve, direct or by Krylov iteration, with a certificate from its residual."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from rlcore.mdp import Problem, check_policy
from rlcore.planning.certificate import Certificate, span_certificate
from rlcore.planning.kernel import PolicyKernel, prepare
from rlcore.solver import CONVERGED, NOT_FINITE, PRECISION_LIMIT, STEP_LIMIT, Solution
from rlcore.types import Array, Float, Int, Number, PyTree

__all__ = ["LU_STATES", "bicgstab", "choose_method", "policy_evaluation", "report", "solve_by_lu"]

# Dense LU costs S^3 / 3 and S^2 memory; above this many states it loses to Krylov by orders of magnitude.
LU_STATES = 2000


class _Krylov(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    image: Array
    rho: Array
    size: Array
    steps: Array


def bicgstab(
    matvec,
    rhs: Float[Array, "S"],
    start: Float[Array, "S"],
    tol: Number,
    max_steps: int,
) -> tuple[Float[Array, "S"], Float[Array, ""], Int[Array, ""]]:
    """Solve `matvec(x) = rhs` by stabilised bi-conjugate gradients until the sup norm of the residual is at most `tol`.

    Args:
      matvec: linear function float[S] -> float[S].
      rhs, start: float[S].
      tol: largest residual entry accepted.
      max_steps: iterations, two products each.

    Returns: (x, largest entry of the recursive residual, iterations). A breakdown ends the loop with the best x so far.
    Source: van der Vorst 1992, algorithm in section 3.
    Cost: two products and about ten vector operations per iteration.
    """
    norm = lambda x: jnp.max(jnp.abs(x))  # noqa: E731
    first = rhs - matvec(start)
    shadow = first
    zero = jnp.zeros_like(first)
    one = jnp.ones((), first.dtype)
    state = _Krylov(start, first, first, zero, jnp.vdot(shadow, first), norm(first), jnp.zeros((), jnp.int32))

    def unfinished(carry):
        state, going = carry
        return going & (state.size > tol) & (state.steps < max_steps)

    def body(carry):
        state, _ = carry
        image = matvec(state.direction)
        alpha = state.rho / jnp.vdot(shadow, image)
        half = state.residual - alpha * image
        moved = matvec(half)
        square = jnp.vdot(moved, moved)
        omega = jnp.where(square > 0, jnp.vdot(moved, half) / jnp.where(square > 0, square, one), jnp.zeros_like(one))
        x = state.x + alpha * state.direction + omega * half
        residual = half - omega * moved
        rho = jnp.vdot(shadow, residual)
        beta = rho / state.rho * (alpha / omega)
        direction = residual + beta * (state.direction - omega * image)
        new = _Krylov(x, residual, direction, image, rho, norm(residual), state.steps + 1)
        # x stays finite when only the next direction breaks down: keep x, and stop.
        kept = jnp.all(jnp.isfinite(x))
        going = kept & jnp.all(jnp.isfinite(direction))
        return jax.tree.map(lambda a, b: jnp.where(kept, a, b), new, state), going

    state, _ = jax.lax.while_loop(unfinished, body, (state, jnp.array(True)))
    return state.x, state.size, state.steps


def solve_by_lu(chain: PolicyKernel) -> Float[Array, "S"]:
    """The value of a chain by dense LU and one step of refinement, after which the residual is rounding.

    Cost: S^3 / 3.
    """
    identity = jnp.eye(chain.reward.shape[0], dtype=chain.reward.dtype)
    factors = jax.scipy.linalg.lu_factor(identity - chain.discount * chain.dense())
    value = jax.scipy.linalg.lu_solve(factors, chain.reward)
    return value + jax.scipy.linalg.lu_solve(factors, chain.sweep(value) - value)


def choose_method(name: str, num_states: int) -> str:
    """LU or Krylov by size, unless named.

    Raises: ValueError for an unknown name.
    """
    if name not in ("auto", "lu", "krylov"):
        raise ValueError(f"method: found {name!r}, expected 'auto', 'lu' or 'krylov'")
    if name == "auto":
        return "lu" if num_states <= LU_STATES else "krylov"
    return name


def policy_evaluation(
    problem: Problem,
    policy: Int[Array, "S"] | Float[Array, "S A"],
    *,
    method: str = "auto",
    tol: Number = 1e-8,
    max_steps: int = 1000,
) -> Solution:
    """The value of a stationary policy over an unlimited horizon, by a linear solve.

    Args:
      problem: stationary; its `horizon` is ignored. For a `StickyMDP` this is the value for t >= 1.
      policy: actions int[S], or probabilities float[S,A].
      method: "lu" (dense), "krylov" (BiCGStab on the outcome lists), or "auto": LU up to 2000 states.
      tol: largest error of the value accepted.
      max_steps: BiCGStab iterations; a restart with a tighter residual follows where the first is not enough.

    Returns: `Solution` with value float[S] and a bound on its error, rounding included; status CONVERGED,
      PRECISION_LIMIT (tol is below the rounding floor), STEP_LIMIT or NOT_FINITE. An undiscounted chain that need not
      end has no certificate: its bound is infinite and its status never CONVERGED.
    Raises: ValueError for an unknown method; ValueError or TypeError for what is no policy, see `check_policy`.
    Source: Puterman 1994, theorem 6.1.1; BiCGStab: van der Vorst 1992; certificate: `span_certificate`.
    Cost: S^3 / 3 and S^2 memory for LU; two sweeps of the policy per iteration for Krylov.
    """
    choose_method(method, 1)
    return _policy_evaluation(problem, check_policy(problem, policy), tol, method=method, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("method", "max_steps"))
def _policy_evaluation(problem, policy, tol, *, method, max_steps):
    kernel = prepare(problem)
    chain = kernel.follow(policy)
    if choose_method(method, kernel.num_states) == "lu":
        value, steps = solve_by_lu(chain), jnp.ones((), jnp.int32)
    else:
        matvec = lambda x: x - chain.discount * chain.expected_next(x)  # noqa: E731
        # A residual e gives an error of at most e / (1 - high). The second round starts from the true residual,
        # which the recursive one of the first has drifted from.
        aim = tol * jnp.maximum(1 - kernel.high, jnp.finfo(chain.reward.dtype).eps) / 4
        value, _, steps = bicgstab(matvec, chain.reward, jnp.zeros_like(chain.reward), aim, max_steps)
        value, _, more = bicgstab(matvec, chain.reward, value, aim, max_steps)
        steps = steps + more
    if policy.ndim == 2:  # a sweep adds up the outcomes of every action
        kernel = dataclasses.replace(kernel, terms=kernel.terms * policy.shape[1])
    certificate = span_certificate(kernel, value, chain.sweep(value))
    return report(certificate, certificate.center, tol, steps)


def report(certificate: Certificate, value: PyTree, tol: Number, steps: Int[Array, ""]) -> Solution:
    """The solution that a certificate supports: CONVERGED where its bound is at most `tol`, else the reason."""
    finite = jnp.all(jnp.isfinite(certificate.center))
    at_floor = jnp.isfinite(certificate.floor) & (certificate.bound <= 4 * certificate.floor)
    failed = jnp.where(at_floor, PRECISION_LIMIT, STEP_LIMIT)
    status = jnp.where(finite, jnp.where(certificate.bound <= tol, CONVERGED, failed), NOT_FINITE)
    return Solution(value, status.astype(jnp.int32), steps, jnp.where(finite, certificate.bound, jnp.inf))
