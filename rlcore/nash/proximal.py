"""The proximal point method: a sequence of regularised games, each with the last solution as its reference."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.nash.equilibrium import equilibrium, equilibrium_error
from rlcore.nash.game import PreferenceGame
from rlcore.pytree import pytree, static
from rlcore.solver import Solver, fixed_point, iterate
from rlcore.types import Array, Float, RandomKey

__all__ = ["ProximalPoint", "ProximalState"]


class ProximalState(NamedTuple):
    """The state between two outer steps.

    log_policy: float[n], the current policy, the next reference. error: float[], certified bound on the span of the
    error of the last inner solve (0 before the first). inner_steps: int[], Newton or inner solver steps taken so far.
    t: int[], outer steps taken.
    """

    log_policy: Array
    error: Array
    inner_steps: Array
    t: Array


@pytree
class ProximalPoint:
    """pi <- the equilibrium of the game regularised towards pi itself: COMAL, MPO and Nash-Prox.

    Converges to an unregularised equilibrium, in KL monotonically; the game's temperature is the inverse step, and its
    reference is only where `init` starts. `observe` of `iterate` sees the outer states.

    inner: None solves each game by Newton's method (`equilibrium`), to rounding; a solver takes `num_inner` steps of
      it, started at pi. COMAL's released script is 12 steps of `OMD`, with temperature a third of its step size eta_I,
      that is OMD(eta) with eta tau = 1/3.
    num_inner: inner steps per outer step, static, >= 1; with `tol` the most. With `OMD` take 2 or more: one step from
      the reference is one of multiplicative weights, which cycles.
    tol: float[] or None; the inner solver stops once `equilibrium_error` is at most this, in nats. None takes all of
      `num_inner` steps.
    Source: Liu et al. (2024), COMAL, arXiv 2410.23223; Wang et al. (2024), MPO, arXiv 2410.16714;
      docs/proofs/nash.md, T7.
    Cost per step: one equilibrium, or `num_inner` steps of `inner`; one n^2 certificate, with `tol` one per inner step
      and one before.
    """

    inner: Solver | None = None
    num_inner: int = static(12)
    tol: Array | float | None = None

    def __post_init__(self):
        if isinstance(self.num_inner, int) and self.num_inner < 1:
            raise ValueError(f"num_inner: found {self.num_inner}, expected an integer >= 1")

    def start(self, log_policy: Float[Array, " n"]) -> ProximalState:
        """The state before the first step from `log_policy`."""
        zero = jnp.zeros((), jnp.int32)
        return ProximalState(log_policy, jnp.zeros((), log_policy.dtype), zero, zero)

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> ProximalState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: ProximalState, key: RandomKey = None) -> ProximalState:
        """One outer step; `key` goes to the inner solver."""
        here = problem._replace(reference_logits=state.log_policy)
        if self.inner is None:
            solution = equilibrium(*here)
            log_policy, error, steps = solution.value, solution.bound, solution.steps
        elif self.tol is not None:
            solution = fixed_point(self.inner, here, _inner_error, self.tol, self.num_inner, key=key)
            log_policy, error, steps = solution.value.log_policy, solution.bound, solution.steps
        else:
            inner_state, _ = iterate(self.inner, here, self.num_inner, key=key)
            log_policy, steps = inner_state.log_policy, self.num_inner
            error = equilibrium_error(here, log_policy)
        return ProximalState(log_policy, error, state.inner_steps + steps, state.t + 1)


def _inner_error(game, state):
    return equilibrium_error(game, state.log_policy)
