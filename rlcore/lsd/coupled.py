"""Coupled tasks: a play that resets an arm, then one after exactly so many idle rounds; for payoffs of any shape.

An arm of period 8 (idle + 1) asks for both rounds at once and gets both or none. At an eighth of the pace both are free
at least half of the time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.interleaved import play_rates
from rlcore.lsd.problem import SwitchingBandit, require_reset
from rlcore.lsd.random_phase import best_filler, draw_options, require_fillers
from rlcore.lsd.relaxation import Relaxation
from rlcore.lsd.stretched import others_away, run_relaxation
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = ["Coupled", "CoupledState", "coupled"]


class CoupledState(NamedTuple):
    """idle, run, phase: int32[k], options drawn and the phase of the next round, 0 .. 8 (idle + 1) - 1; run is 0 for
    never. slots: int32[M + 2], the arm that the next rounds belong to, k where free."""

    idle: Array
    run: Array
    phase: Array
    slots: Array


@pytree
class Coupled:
    """Planner: tasks of two plays, exactly `idle` rounds apart; of tasks that begin together the one that pays most.

    plan: Relaxation with runs of one play, see `run_relaxation(problem, 1)`. A must-play problem gives empty rounds to
    an arm that the plan never plays, or of constant payoff.
    """

    plan: Relaxation

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> CoupledState:
        """Options and phases drawn; raises ValueError for a must-play problem without an arm to fill."""
        require_reset(problem)
        if not problem.allow_idle:
            require_fillers(problem, self.plan, 1)
        option_key, phase_key = jax.random.split(key)
        idle, run = draw_options(self.plan, option_key)
        phase = jax.random.randint(phase_key, idle.shape, 0, 8 * (idle + 1), jnp.int32)
        return CoupledState(idle, run, phase, jnp.full(problem.recovery + 2, problem.num_arms, jnp.int32))

    def act(
        self,
        problem: SwitchingBandit,
        state: CoupledState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], CoupledState]:
        """One round; see the class. Cost: k + M."""
        idle, run, phase, slots = state
        k = problem.num_arms
        asks = (run > 0) & (phase == 0) & (slots[0] == k) & (slots[idle + 1] == k)
        pays = jnp.take_along_axis(problem.rested, idle[:, None] - 1, axis=1)[:, 0]
        arm = jnp.argmax(jnp.where(asks, pays, -1)).astype(jnp.int32)
        ahead = jnp.arange(slots.shape[0], dtype=jnp.int32)
        slots = jnp.where(jnp.any(asks) & ((ahead == 0) | (ahead == idle[arm] + 1)), arm, slots)
        now = slots[0]
        if not problem.allow_idle:
            now = jnp.where(now == k, best_filler(problem, self.plan), now)
        following = phase + 1
        phase = jnp.where(following >= 8 * (idle + 1), 0, following)
        slots = jnp.append(slots[1:], jnp.full(1, k, jnp.int32))
        return jnp.arange(k, dtype=jnp.int32) == now, CoupledState(idle, run, phase, slots)

    def guarantee(self, problem: SwitchingBandit) -> Float[Array, ""]:
        """float[], reward per round in expectation at least, in the long run, for any payoffs.

        An eighth of the payoff of every arm's second play times the chance that no other arm has asked for either of
        its rounds: at least a sixteenth of the plan's value. Source: derived: docs/proofs/lsd.md#t12. Cost: k^2.
        """
        require_reset(problem)
        pays = jnp.take_along_axis(problem.rested, jnp.maximum(self.plan.idle - 1, 0), axis=1)
        pays = jnp.where(self.plan.run > 0, pays, 0)
        period = (self.plan.idle + 1).astype(pays.dtype)
        value = jnp.sum(self.plan.weight * pays / period, axis=-1)
        return jnp.sum(value * others_away(play_rates(self.plan) / 2)) / 8


def coupled(problem: SwitchingBandit) -> Coupled:
    """The schedule of coupled tasks by the payoffs after rest alone; a sixteenth of that programme's value at least.

    Returns: Coupled. Raises: ValueError: an idle rule other than "reset", or must-play without an arm to fill.
    Source: derived: docs/proofs/lsd.md#t12. Cost: one relaxation with k M cycles.
    """
    planner = Coupled(run_relaxation(problem, 1))
    if not problem.allow_idle:
        require_fillers(problem, planner.plan, 1)
    return planner
