"""Dynamics whose opponent is not the present policy: best responses, means of the past, averages of logits."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, log_normalise, mixture_logits, win_rates
from rlcore.nash.gradient_steps import policy_gradient
from rlcore.nash.mirror_descent import AverageState, Memoryless, PolicyState, check_step_size, mirror_step
from rlcore.pytree import pytree
from rlcore.types import Array, Float, RandomKey

__all__ = ["BestResponse", "EMAState", "FictitiousPlay", "NashEMA", "NashEMAPG", "NashEMAStart"]


@pytree
class BestResponse(Memoryless):
    """Play the best response to the present policy: the iteration pi <- BR(pi) of the regularised game.

    The longest step of `OMD`, step_size = 1 / temperature. Contracts in the span of logits where a < tau / 2 (a the
    largest |P - 1/2|); on cyclic games at small temperatures it jumps around for ever.

    Source: derived: definition. Cost per step: n^2, 2 n exponentials.
    """

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; nothing is sampled."""
        return PolicyState(problem.best_response(state.log_policy), state.t + 1)


@pytree
class FictitiousPlay:
    """Best response to the arithmetic mean of all probabilities played so far.

    `state.average` is that mean, this method's output; the start counts as the first play.

    Source: Brown (1951), in its smooth form for temperature > 0. Cost per step: n^2, 3 n exponentials.
    """

    def start(self, log_policy: Float[Array, " n"]) -> AverageState:
        """The state before the first step from `log_policy`."""
        return AverageState(log_policy, jnp.exp(log_policy), jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> AverageState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: AverageState, key: RandomKey = None) -> AverageState:
        """One step; nothing is sampled."""
        log_policy = problem.best_response(jnp.log(state.average))
        played = jnp.exp(log_policy)
        average = state.average + (played - state.average) / (state.t + 2).astype(played.dtype)
        return AverageState(log_policy, average, state.t + 1)


class EMAState(NamedTuple):
    """The state of the Nash-EMA methods.

    log_policy: float[n], the current policy. anchor: float[n], normalised logits: their running average, which is the
    opponent (`NashEMA`, `NashEMAPG`), or the start (`NashEMAStart`). t: int[], steps taken.
    """

    log_policy: Array
    anchor: Array
    t: Array


class _Averaged:
    """What the Nash-EMA methods share: where they start."""

    def start(self, log_policy: Float[Array, " n"]) -> EMAState:
        """The state before the first step from `log_policy`, which is also the first opponent."""
        return EMAState(log_policy, log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> EMAState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)


@pytree
class NashEMA(_Averaged):
    """Mirror descent against the running exponential average of one's logits: Nash-EMA, first reading.

    opponent <- L(decay opponent + (1 - decay) log_policy) after each step, from the start on. The natural gradient of
    `NashEMAPG`. decay = 0 is `OMD` (self-play), decay = 1 plays against the start for ever. Where it converges and
    decay < 1, it converges to the equilibrium.

    step_size: float[], with step_size * temperature in [0, 1]. decay: float[] in [0, 1].
    Source: Munos et al. (2023), arXiv 2312.00886, Nash-EMA, as quoted in a digest.
    Cost per step: n^2, 3 n exponentials.
    """

    step_size: Array | float
    decay: Array | float

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> EMAState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        check_step_size(self.step_size, problem.temperature)
        return super().init(problem, key)

    def step(self, problem: PreferenceGame, state: EMAState, key: RandomKey = None) -> EMAState:
        """One step; nothing is sampled."""
        rates = win_rates(problem.preference, state.anchor)
        log_policy = mirror_step(problem, state.log_policy, rates, self.step_size)
        average = log_normalise(mixture_logits(log_policy, state.anchor, self.decay))
        return EMAState(log_policy, average, state.t + 1)


@pytree
class NashEMAStart(_Averaged):
    """Mirror descent against a fixed mixture with the start: Nash-EMA, second reading.

    opponent = L((1 - decay) log_policy + decay start). From the reference it is `NashMD(step_size, mixture=decay)`,
    hence biased as that is. One digest writes the average so; the other end points, decay = 0 and 1, fit both readings.

    step_size: float[], with step_size * temperature in [0, 1]. decay: float[] in [0, 1].
    Source: Munos et al. (2023), arXiv 2312.00886, Nash-EMA, as quoted in a digest.
    Cost per step: n^2, 3 n exponentials.
    """

    step_size: Array | float
    decay: Array | float

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> EMAState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        check_step_size(self.step_size, problem.temperature)
        return super().init(problem, key)

    def step(self, problem: PreferenceGame, state: EMAState, key: RandomKey = None) -> EMAState:
        """One step; nothing is sampled."""
        opponent = log_normalise(mixture_logits(state.log_policy, state.anchor, self.decay))
        rates = win_rates(problem.preference, opponent)
        return EMAState(mirror_step(problem, state.log_policy, rates, self.step_size), state.anchor, state.t + 1)


@pytree
class NashEMAPG(_Averaged):
    """Policy gradient ascent on P(policy beats opponent) - tau KL, the opponent a running average of one's logits.

    `NashMDPG` with the opponent of `NashEMA`, whose step is this one's natural gradient.

    learning_rate: float[]. decay: float[] in [0, 1].
    Source: Munos et al. (2023), arXiv 2312.00886, Nash-EMA-PG, as quoted in a digest; gradient as in `NashMDPG`.
    Cost per step: n^2, 3 n exponentials.
    """

    learning_rate: Array | float
    decay: Array | float

    def step(self, problem: PreferenceGame, state: EMAState, key: RandomKey = None) -> EMAState:
        """One step; nothing is sampled."""
        gradient = policy_gradient(problem, state.log_policy, jnp.exp(state.anchor))
        log_policy = log_normalise(state.log_policy + self.learning_rate * gradient)
        average = log_normalise(mixture_logits(log_policy, state.anchor, self.decay))
        return EMAState(log_policy, average, state.t + 1)
