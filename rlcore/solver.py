"""A solver is a frozen pytree with `init` and `step`; this file holds the only loops that run one.

Numbers of a solver (step sizes, temperatures) are pytree leaves, so they can be traced and vmapped; its
structure is static fields. What the next step needs is the state; what only a reader needs is what
`observe` returns. Every function here is for one instance: batch it with `jax.vmap` outside.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.types import Array, Bool, Float, Int, Number, PyTree, RandomKey

__all__ = [
    "CONVERGED",
    "NOT_FINITE",
    "PRECISION_LIMIT",
    "STATUS_NAMES",
    "STEP_LIMIT",
    "Solution",
    "Solver",
    "fixed_point",
    "iterate",
    "require_converged",
    "trace_steps",
]

CONVERGED, STEP_LIMIT, NOT_FINITE, PRECISION_LIMIT = 0, 1, 2, 3
STATUS_NAMES = {
    CONVERGED: "converged",
    STEP_LIMIT: "step limit reached",
    NOT_FINITE: "not finite",
    PRECISION_LIMIT: "tol is below what rounding allows",
}


@runtime_checkable
class Solver(Protocol):
    """What the loops below ask of an algorithm: two pure functions and nothing else."""

    def init(self, problem: PyTree, key: RandomKey) -> PyTree:
        """The state before the first step; `key` is None where nothing is sampled."""

    def step(self, problem: PyTree, state: PyTree, key: RandomKey) -> PyTree:
        """The state after one more step."""


class Solution(NamedTuple):
    """The outcome of a solve, a value that lives inside `jit` and `vmap`.

    value: the last state, or what a solver documents.
    status: int[], CONVERGED, STEP_LIMIT, NOT_FINITE, or PRECISION_LIMIT from solvers that know their rounding.
    steps: int[], steps taken.
    bound: float[], a certificate: the error of `value` is at most this, rounding included.
    """

    value: PyTree
    status: Int[Array, ""]
    steps: Int[Array, ""]
    bound: Float[Array, ""]


def _finite(tree: PyTree) -> Bool[Array, ""]:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    # -inf is a legitimate log-probability; NaN and +inf never are.
    return functools.reduce(jnp.logical_and, [jnp.all(x < jnp.inf) for x in floats], jnp.array(True))


def _step_key(key: RandomKey, t: Int[Array, ""] | int) -> RandomKey:
    return None if key is None else jax.random.fold_in(key, t)


def trace_steps(num_steps: int, every: int | np.ndarray | jax.Array = 1) -> np.ndarray:
    """The step counts at which `iterate` observes: 0, every, 2 every, ..., or the given array itself.

    Returns: int[rows], the coordinate of the trace's leading axis.
    """
    if isinstance(every, int):
        return np.arange(0, num_steps + 1, every)
    return np.asarray(every)


def _check_schedule(num_steps: int | None, every: int | np.ndarray | jax.Array) -> None:
    if num_steps is None and isinstance(every, int):
        raise ValueError("num_steps: found None, expected an integer, or an array of steps as `every`")
    if num_steps is not None and num_steps < 0:
        raise ValueError(f"num_steps: found {num_steps}, expected an integer >= 0")
    if isinstance(every, int):
        if every < 1:
            raise ValueError(f"every: found {every}, expected an integer >= 1 or an increasing array of steps")
    elif not isinstance(every, jax.core.Tracer):
        steps = np.asarray(every)
        if steps.ndim != 1 or steps.size == 0 or not np.issubdtype(steps.dtype, np.integer):
            raise ValueError(f"every: found {steps.dtype}{steps.shape}, expected a non-empty 1-d array of integers")
        last = steps[-1] if num_steps is None else num_steps
        if steps[0] < 0 or steps[-1] > last or np.any(np.diff(steps) <= 0):
            raise ValueError(f"every: found {steps}, expected increasing steps within [0, {last}]")


def iterate(
    solver: Solver,
    problem: PyTree,
    num_steps: int | None,
    *,
    key: RandomKey = None,
    state: PyTree = None,
    observe: Callable[[PyTree, PyTree], PyTree] | None = None,
    every: int | np.ndarray | jax.Array = 1,
) -> tuple[PyTree, PyTree]:
    """Run a solver for a fixed number of steps and observe it on the way.

    Args:
      solver: the algorithm; an ordinary (traced) argument, so new numbers do not recompile.
      problem: the instance, a pytree.
      num_steps: steps to take, static; None stops at the last step of the array `every`, which may be traced.
      key: randomness; step t (from 0) gets `fold_in(key, t)`. None for deterministic solvers.
      state: where to start; by default `solver.init(problem, key)`.
      observe: `observe(problem, state) -> pytree`, called after the steps of `trace_steps(num_steps, every)`,
        step 0 (the initial state) included. Define it at module level: a new function object compiles anew.
      every: an int, or an increasing array of steps in [0, num_steps].

    Returns: (state, trace): the state after `num_steps` steps, and the observations stacked along a leading
      axis of length `len(trace_steps(num_steps, every))`; the trace is None without `observe`.
    Raises: ValueError for a negative `num_steps` or an `every` that is no schedule.
    Cost: num_steps steps, one observation per row, memory of one state and the trace.
    """
    _check_schedule(num_steps, every)
    if state is None:
        init_key = None if key is None else jax.random.fold_in(key, np.uint32(2**32 - 1))
        state = solver.init(problem, init_key)
    if isinstance(every, int):
        return _iterate_strided(solver, problem, state, key, num_steps=num_steps, observe=observe, every=every)
    return _iterate_at(solver, problem, state, key, jnp.asarray(every), num_steps=num_steps, observe=observe)


def _advance(solver, problem, key, state, start, count: int):
    """`count` (static) steps from step number `start`."""

    def body(state, t):
        return solver.step(problem, state, _step_key(key, t)), None

    state, _ = jax.lax.scan(body, state, start + jnp.arange(count))
    return state


@functools.partial(jax.jit, static_argnames=("num_steps", "observe", "every"))
def _iterate_strided(solver, problem, state, key, *, num_steps, observe, every):
    if observe is None:
        return _advance(solver, problem, key, state, 0, num_steps), None

    def segment(state, start):
        state = _advance(solver, problem, key, state, start, every)
        return state, observe(problem, state)

    first = observe(problem, state)
    rows, rest = divmod(num_steps, every)
    state, later = jax.lax.scan(segment, state, every * jnp.arange(rows))
    trace = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, later)
    return _advance(solver, problem, key, state, rows * every, rest), trace


@functools.partial(jax.jit, static_argnames=("num_steps", "observe"))
def _iterate_at(solver, problem, state, key, steps, *, num_steps, observe):
    def one(t, state):
        return solver.step(problem, state, _step_key(key, t))

    def segment(carry, stop):
        state, start = carry
        state = jax.lax.fori_loop(start, stop, one, state)
        return (state, stop), None if observe is None else observe(problem, state)

    (state, last), trace = jax.lax.scan(segment, (state, jnp.zeros((), steps.dtype)), steps)
    return state if num_steps is None else jax.lax.fori_loop(last, num_steps, one, state), trace


def fixed_point(
    solver: Solver,
    problem: PyTree,
    certificate: Callable[[PyTree, PyTree], Float[Array, ""]],
    tol: Number,
    max_steps: int,
    *,
    key: RandomKey = None,
    state: PyTree = None,
    check_every: int = 1,
) -> Solution:
    """Run a solver until its certificate of error is at most `tol`.

    Args:
      solver, problem, key, state: as in `iterate`.
      certificate: `certificate(problem, state) -> float[]`, an upper bound on the error of `state`, rounding
        included; the method's own, with a proof. A small residual alone is no certificate.
      tol: the largest error accepted, in the certificate's unit.
      max_steps: step limit, static.
      check_every: steps between evaluations of the certificate, static.

    Returns: `Solution(state, status, steps, bound)`. Under `vmap` all lanes run until the slowest one is done;
      a finished lane keeps its state, status and count.
    Raises: ValueError for `max_steps < 0` or `check_every < 1`.
    Cost: steps taken, rounded up to `check_every`, plus one certificate per check.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps: found {max_steps}, expected an integer >= 0")
    if check_every < 1:
        raise ValueError(f"check_every: found {check_every}, expected an integer >= 1")
    if state is None:
        init_key = None if key is None else jax.random.fold_in(key, np.uint32(2**32 - 1))
        state = solver.init(problem, init_key)
    return _fixed_point(
        solver, problem, tol, state, key, certificate=certificate, max_steps=max_steps, check_every=check_every
    )


@functools.partial(jax.jit, static_argnames=("certificate", "max_steps", "check_every"))
def _fixed_point(solver, problem, tol, state, key, *, certificate, max_steps, check_every):
    def unfinished(carry):
        _, steps, bound, finite = carry
        return (steps < max_steps) & finite & ~(bound <= tol)

    def body(carry):
        state, steps, _, _ = carry
        stop = jnp.minimum(steps + check_every, max_steps)
        one = lambda t, s: solver.step(problem, s, _step_key(key, t))  # noqa: E731
        state = one(steps, state) if check_every == 1 else jax.lax.fori_loop(steps, stop, one, state)
        bound = certificate(problem, state)
        return state, stop, bound, _finite(state) & (bound == bound)

    bound = certificate(problem, state)
    start = (state, jnp.zeros((), jnp.int32), bound, _finite(state) & (bound == bound))
    state, steps, bound, finite = jax.lax.while_loop(unfinished, body, start)
    status = jnp.where(finite, jnp.where(bound <= tol, CONVERGED, STEP_LIMIT), NOT_FINITE).astype(jnp.int32)
    return Solution(state, status, steps, jnp.where(finite, bound, jnp.inf))


def require_converged(solution: Solution, name: str = "solve") -> Solution:
    """Return `solution` unchanged, or raise on the host if any lane did not converge.

    Raises: RuntimeError naming the statuses found and the worst bound.
    """
    status = np.asarray(solution.status)
    if np.any(status != CONVERGED):
        counts = {text: int(np.sum(status == code)) for code, text in STATUS_NAMES.items() if np.any(status == code)}
        raise RuntimeError(
            f"{name}: found {counts} among {status.size} solves (worst bound {np.max(solution.bound):.3g}), "
            "expected all converged"
        )
    return solution
