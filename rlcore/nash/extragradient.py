"""Extragradient and optimistic mirror descent: linear last-iterate convergence at a constant step."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame
from rlcore.nash.mirror_descent import check_step_size, mirror_step
from rlcore.nash.oracle import Queries, split
from rlcore.pytree import pytree
from rlcore.types import Array, Float, RandomKey

__all__ = ["EGPO", "OMWU", "ExtragradientState", "OptimisticMD", "OptimisticState", "egpo_step_size"]


class ExtragradientState(NamedTuple):
    """The state of EGPO.

    log_policy: float[n], the current policy. half_step: float[n], the half step that led to it. t: int[], steps taken.
    """

    log_policy: Array
    half_step: Array
    t: Array


class OptimisticState(NamedTuple):
    """The state of the optimistic methods.

    log_policy: float[n], the current policy. rates: float[n], win rates of the previous step. t: int[], steps taken.
    """

    log_policy: Array
    rates: Array
    t: Array


def egpo_step_size(game: PreferenceGame) -> Float[Array, ""]:
    """The largest step for which EGPO's linear convergence is proved: 1 / (tau + a), a = max |P - 1/2|.

    Args: game: one game.
    Returns: float[]; KL from the equilibrium shrinks by 1 - step tau = a / (tau + a) per step.
    Source: derived: docs/proofs/nash.md, T4. Cost: n^2.
    """
    return 1 / (game.temperature + jnp.max(jnp.abs(game.preference - 0.5)))


@pytree
class EGPO(Queries):
    """Extragradient preference optimisation: a half step, then a step from the same place against the half step.

    The same as Nash Mirror Prox (its eta_MP gives step_size = eta_MP / (tau (1 + eta_MP))) and the predictive update
    for entropy-regularised games.

    step_size: float[] or None; None is 1 / (temperature + 1/2), proved for every game; `egpo_step_size(game)` is
      larger where all preferences are far from 0 and 1.
    labels, common_opponents: static, as in `Queries`; with N labels per action and query KL from the equilibrium stops
      at most at step_size s / (8 tau (1 - step_size a)), s = n / N (docs/proofs/nash.md, T6).
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code. Cost per step: 2 n^2, 4 n exponentials.
    """

    step_size: Array | float | None = None

    def start(self, log_policy: Float[Array, " n"]) -> ExtragradientState:
        """The state before the first step from `log_policy`."""
        return ExtragradientState(log_policy, log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> ExtragradientState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        if self.step_size is not None:
            check_step_size(self.step_size, problem.temperature)
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: ExtragradientState, key: RandomKey = None) -> ExtragradientState:
        """One step of two preference queries, each with fresh labels where they are sampled."""
        step_size = 1 / (problem.temperature + 0.5) if self.step_size is None else self.step_size
        here = state.log_policy
        here_key, half_key = split(key, 2)
        half_step = mirror_step(problem, here, self.query(problem, jnp.exp(here), here_key), step_size)
        log_policy = mirror_step(problem, here, self.query(problem, jnp.exp(half_step), half_key), step_size)
        return ExtragradientState(log_policy, half_step, state.t + 1)


@pytree
class OptimisticMD(Queries):
    """Extragradient with one preference query per step: twice the present win rates minus the previous ones.

    step_size: float[]. labels, common_opponents: static, as in `Queries`; a step's labels count twice now and are
      subtracted once in the next step.
    Source: derived: the optimistic form of `EGPO`, as in Rakhlin and Sridharan (2013).
    Cost per step: n^2, 2 n exponentials.
    """

    step_size: Array | float

    def start(self, log_policy: Float[Array, " n"]) -> OptimisticState:
        """The state before the first step from `log_policy`; the first step is plain mirror descent."""
        return OptimisticState(log_policy, jnp.zeros_like(log_policy), jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> OptimisticState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        check_step_size(self.step_size, problem.temperature)
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: OptimisticState, key: RandomKey = None) -> OptimisticState:
        """One step; `key` is used where labels are sampled."""
        rates = self.query(problem, jnp.exp(state.log_policy), key)
        previous = jnp.where(state.t == 0, rates, state.rates)
        log_policy = mirror_step(problem, state.log_policy, 2 * rates - previous, self.step_size)
        return OptimisticState(log_policy, rates, state.t + 1)


@pytree
class OMWU(OptimisticMD):
    """Optimistic multiplicative weights: `OptimisticMD` without temperature, for the unregularised game.

    The game's temperature is not used; the last iterate converges where `MWU` cycles.

    step_size: float[]. labels, common_opponents: static, as in `Queries`.
    Source: Daskalakis and Panageas (2019), arXiv 1807.04252. Cost per step: n^2, 2 n exponentials.
    """

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> OptimisticState:
        """Start at the reference policy; any step will do, since nothing pulls to it."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: OptimisticState, key: RandomKey = None) -> OptimisticState:
        """One step; `key` is used where labels are sampled."""
        return super().step(problem._replace(temperature=jnp.zeros_like(problem.temperature)), state, key)
