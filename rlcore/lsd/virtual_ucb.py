"""Monotone virtual UCB: in every frame, fresh random phases of the relaxation at upper bounds of the payoffs."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.estimates import Estimates, no_estimates, rising_upper_bound, upper_bound
from rlcore.lsd.learned_phases import best_candidate, check_may_idle, never
from rlcore.lsd.problem import SwitchingBandit
from rlcore.lsd.random_phase import Phases, draw_phases, turn
from rlcore.lsd.relaxation import relaxation
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, Number

__all__ = ["VirtualUCB", "virtual_ucb_frame", "virtual_ucb_regret_bound"]


def virtual_ucb_frame(horizon: int, num_local: int) -> int:
    """H = sqrt(T / (2 S)) rounded up, at least 2. Source: derived: docs/proofs/lsd.md#t14."""
    return max(2, math.ceil(math.sqrt(horizon / (2 * num_local))))


def virtual_ucb_regret_bound(horizon: int, num_arms: int, num_local: int, frame: int | None = None) -> float:
    """4 sqrt(k S T l) + 2 k S H + (k + 1)(T / H + 1) + 1, l = log(2 k S T^2): at least alpha T V less expected reward.

    Holds for monotone payoffs, rewards in [0, 1], one play per round, the rule "reset", confidence 1; alpha = alpha(k,
    1) = 1 - (1 - 1/k)^k.
    Args: horizon: T; num_local: S; frame: H, as `virtual_ucb_frame` by default.
    Source: derived: docs/proofs/lsd.md#t14. Cost: O(1).
    """
    h = virtual_ucb_frame(horizon, num_local) if frame is None else frame
    states = num_arms * num_local
    log_term = math.log(2 * states * horizon**2)
    return 4 * math.sqrt(states * horizon * log_term) + 2 * states * h + (num_arms + 1) * (horizon / h + 1) + 1


class VirtualUCBState(NamedTuple):
    """estimates; payoffs: float[k, S], the frame's upper bounds; phases: of the round just decided."""

    estimates: Estimates
    payoffs: Array
    phases: Phases


@pytree
class VirtualUCB:
    """MV-UCB. horizon: T, static. confidence: float[], factor of the width of the bounds, 1 in the theorem. frame: H,
    static, by `virtual_ucb_frame` where None. monotone: whether bounds use that payoffs are monotone, static.

    A frame's first round is empty: every arm has rested then. In the others the candidate of largest upper bound at its
    virtual state is played; the reward is credited to its real state. Frames must not end by counts: their lengths
    would then depend on the phases drawn. Rounds are left empty: the problem must allow it, its rule be "reset".
    Source: derived: docs/proofs/lsd.md#t14, after Foussoul et al. (2023), arXiv 2306.00338, for virtual states and
      relaxation (abstract read). Cost: k S per round, one relaxation per frame.
    """

    horizon: int = static()
    confidence: Number = 1.0
    frame: int | None = static(None)
    monotone: bool = static(True)

    def frame_length(self, problem: SwitchingBandit) -> int:
        """H. Raises: ValueError: a horizon below 1 or a frame below 2 rounds."""
        frame = virtual_ucb_frame(self.horizon, problem.num_local) if self.frame is None else self.frame
        for name, x, least in (("horizon", self.horizon, 1), ("frame", frame, 2)):
            if x < least:
                raise ValueError(f"{name}: found {x}, expected an integer of at least {least}")
        return frame

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> VirtualUCBState:
        """Nothing seen. Raises: ValueError: a problem whose rounds may not be left empty."""
        check_may_idle(problem)
        self.frame_length(problem)
        none = no_estimates(problem)
        return VirtualUCBState(none, none.total, never(problem))

    def act(
        self,
        problem: SwitchingBandit,
        state: VirtualUCBState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], VirtualUCBState]:
        """New bounds and phases where a frame begins, in an empty round; else the best candidate."""
        frame = self.frame_length(problem)
        log_term = math.log(2 * problem.num_arms * problem.num_local * self.horizon**2)

        def renew(state: VirtualUCBState) -> VirtualUCBState:
            # (confidence * sqrt(log / (2 n)))^2 = confidence^2 log / 2 / n
            width = self.confidence**2 * (log_term / 2)
            if self.monotone:
                payoffs = rising_upper_bound(state.estimates, width)
            else:
                payoffs = jnp.minimum(upper_bound(state.estimates, width), 1)
            payoffs = payoffs.astype(state.payoffs.dtype)
            plan = relaxation(dataclasses.replace(problem, payoffs=payoffs))
            return VirtualUCBState(state.estimates, payoffs, draw_phases(plan, key))

        at = t % frame
        further = lambda s: s._replace(phases=turn(s.phases))  # noqa: E731
        state = jax.lax.cond(at == 0, renew, further, state)
        return best_candidate(problem, state.payoffs, state.phases) & (at > 0), state

    def learn(
        self, state: VirtualUCBState, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]
    ) -> VirtualUCBState:
        """One round more in the estimates, at real states."""
        return state._replace(estimates=state.estimates.seen(local, played, reward))
