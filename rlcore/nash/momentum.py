"""Accelerated preference optimisation: momentum on the logits of an iterative method, and its closed form."""

from typing import NamedTuple

import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, log_normalise, mixture_logits, win_rates
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = ["APO", "APOState", "apo_gain", "apo_policy"]


class APOState(NamedTuple):
    """The state of APO.

    log_policy: float[n], the policy before extrapolation: the output. extrapolated: float[n], where the next update
    starts. t: int[], steps taken.
    """

    log_policy: Array
    extrapolated: Array
    t: Array


@pytree
class APO:
    """Accelerated preference optimisation: after each update of the policy, extrapolate its logits by `momentum`.

    `new = L(extrapolated + step_size g)`, `extrapolated = L(new + momentum (new - log_policy))`, output `new`, not the
    extrapolation. The game's temperature is not used. For a fixed reward g it is 1 / (1 - momentum) times faster in the
    long run (`apo_policy` is its closed form); in self-play on a cyclic game it leaves the equilibrium at every
    momentum in (-1, 1).

    step_size: float[]; 1 / beta of iterative DPO, eta of SPPO. momentum: float[] in (-1, 1), 0 is no acceleration.
    rewards: float[n], the known Bradley-Terry rewards g of iterative DPO; None is g = P exp(extrapolated), SPPO.
    Source: He et al. (2024), arXiv 2410.06293; the rate as quoted in a digest, the update line not checked against the
      paper. Cost per step: n^2, 3 n exponentials.
    """

    step_size: Array | float
    momentum: Array | float
    rewards: Array | None = None

    def start(self, log_policy: Float[Array, " n"]) -> APOState:
        """The state before the first step from `log_policy`, at rest."""
        return APOState(log_policy, log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> APOState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: APOState, key: RandomKey = None) -> APOState:
        """One step; nothing is sampled."""
        gain = win_rates(problem.preference, state.extrapolated) if self.rewards is None else self.rewards
        log_policy = log_normalise(state.extrapolated + self.step_size * gain)
        # new + m (new - old) = (1 + m) new - m old, with the masked entries left alone.
        extrapolated = log_normalise(mixture_logits(log_policy, state.log_policy, -self.momentum))
        return APOState(log_policy, extrapolated, state.t + 1)


def apo_gain(momentum: Number, num_steps: int | Int[Array, "..."]) -> Float[Array, "..."]:
    """How many plain updates the first `num_steps` updates of `APO` amount to, for a fixed reward.

    Args: momentum: float[] in (-1, 1); num_steps: int[...].
    Returns: float[...], T / (1 - m) - m (1 - m^T) / (1 - m)^2: T for momentum 0, T (T + 1) / 2 in the limit momentum 1.
    Source: derived: docs/proofs/nash.md, T10. Cost: O(1).
    """
    t = jnp.asarray(num_steps, jnp.result_type(float))
    rest = 1 - momentum
    return t / rest - momentum * (1 - momentum**t) / rest**2


def apo_policy(
    rewards: Float[Array, " n"],
    log_policy: Float[Array, " n"],
    step_size: Number,
    momentum: Number,
    num_steps: int | Int[Array, ""],
) -> Float[Array, " n"]:
    """The output of `APO` with known rewards after `num_steps` steps, in closed form.

    Args: rewards, log_policy: float[n], the start; step_size, momentum: float[]; num_steps: int[].
    Returns: float[n], log-probabilities of start exp(step_size apo_gain rewards).
    Source: derived: docs/proofs/nash.md, T10. Cost: n exponentials.
    """
    gain = apo_gain(momentum, num_steps).astype(log_policy.dtype)
    return log_normalise(log_policy + step_size * gain * rewards)
