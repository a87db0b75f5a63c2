"""Stretched schedule: runs of plays that, once begun, are never interrupted; for payoffs that may grow during a run.

Every arm repeats its cycle at half its pace, from a random phase. A run begins if no other run is under way, else it is
dropped whole. At half the pace the others are away at least half of the time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.guarantee import minorant
from rlcore.lsd.interleaved import play_rates
from rlcore.lsd.problem import SwitchingBandit, require_reset
from rlcore.lsd.random_phase import best_filler, draw_options, require_fillers
from rlcore.lsd.relaxation import Relaxation, cycle_options, price_plays, run_payoffs
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = ["Stretched", "StretchedState", "run_relaxation", "stretched"]


def run_relaxation(problem: SwitchingBandit, longest: int) -> Relaxation:
    """The cycle programme with runs of at most `longest` plays and without play without end, for one play per round.

    Its value V_R is at least (1 - (L + 1) / (longest + 1)) V.

    Args: longest: R >= 1, static. Returns: Relaxation. Raises: ValueError: longest below 1, or an idle rule other than
    "reset". Source: derived: docs/proofs/lsd.md#t11. Cost: k M R per evaluation of the dual.
    """
    if longest < 1:
        raise ValueError(f"longest: found {longest}, expected an integer of at least 1")
    return price_plays(cycle_options(run_payoffs(problem, longest), None))


class StretchedState(NamedTuple):
    """idle, run, phase: int32[k], cycles drawn and the phase of the next round, 0 .. 2 (idle + run) - 1, run last.
    worth: float[k], payoff of a run. current: int32[], the arm under way; left: int32[], plays it has left."""

    idle: Array
    run: Array
    phase: Array
    worth: Array
    current: Array
    left: Array


@pytree
class Stretched:
    """Planner: cycles at half pace, one uninterrupted run at a time; of runs that begin together the most valuable.

    plan: Relaxation without play without end, see `run_relaxation`. A must-play problem gives empty rounds to an arm
    that the plan never plays, or of constant payoff.
    """

    plan: Relaxation

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> StretchedState:
        """Cycles and phases drawn; raises ValueError for a must-play problem without an arm to fill."""
        require_reset(problem)
        if not problem.allow_idle:
            require_fillers(problem, self.plan, 1)
        option_key, phase_key = jax.random.split(key)
        idle, run = draw_options(self.plan, option_key)
        phase = jax.random.randint(phase_key, idle.shape, 0, 2 * (idle + run), jnp.int32)
        worth = jax.vmap(_run_payoff, (0, 0, 0, None))(problem.payoffs, idle, run, problem.satiation)
        zero = jnp.zeros((), jnp.int32)
        return StretchedState(idle, run, phase, worth, zero, zero)

    def act(
        self,
        problem: SwitchingBandit,
        state: StretchedState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], StretchedState]:
        """One round; see the class. Cost: k."""
        idle, run, phase, worth, current, left = state
        begins = (run > 0) & (phase == 2 * idle + run)
        starts = (left == 0) & jnp.any(begins)
        arm = jnp.argmax(jnp.where(begins, worth, -1)).astype(jnp.int32)
        current, left = jnp.where(starts, arm, current), jnp.where(starts, run[arm], left)
        arms = jnp.arange(problem.num_arms, dtype=jnp.int32)
        played = (arms == current) & (left > 0)
        if not problem.allow_idle:
            played |= (left == 0) & (arms == best_filler(problem, self.plan))
        following = phase + 1
        phase = jnp.where(following >= 2 * (idle + run), 0, following)
        return played, StretchedState(idle, run, phase, worth, current, jnp.maximum(left - 1, 0))

    def guarantee(self, problem: SwitchingBandit) -> Float[Array, ""]:
        """float[], reward per round in expectation at least, in the long run, for any payoffs.

        Half the value of every arm's cycle times the chance that no other arm's run is under way; an arm that rested
        longer than planned is credited with the least that it may pay. At least a quarter of the plan's value if
        payoffs never fall with rest. Source: derived: docs/proofs/lsd.md#t11. Cost: k S.
        """
        require_reset(problem)
        sure = minorant(problem, "recovering").payoffs
        pay = jax.vmap(jax.vmap(_run_payoff, (None, 0, 0, None)), (0, 0, 0, None))
        period = (self.plan.idle + self.plan.run).astype(sure.dtype)
        value = self.plan.weight * pay(sure, self.plan.idle, self.plan.run, problem.satiation) / period
        return jnp.sum(jnp.sum(value, axis=-1) * others_away(play_rates(self.plan) / 2)) / 2


def others_away(busy: Float[Array, " k"]) -> Float[Array, " k"]:
    """float[k], the chance that all arms but i are away, each busy with probability busy[j]. Cost: k^2."""
    return jnp.prod(jnp.where(jnp.eye(busy.shape[0], dtype=bool), 1, 1 - busy[None, :]), axis=1)


def _run_payoff(payoffs, idle, run, satiation: int):
    """Payoff of `run` plays of one arm, float[S], after `idle` rounds of rest; 0 of none."""
    e = jnp.arange(payoffs.shape[0], dtype=jnp.int32)
    first = e == satiation + idle - 1
    later = jnp.where((e < satiation) & (satiation - e < run), 1, 0)
    later = jnp.where(e == 0, jnp.maximum(run - satiation, 0), later)
    return jnp.where(run > 0, jnp.sum(jnp.where(first, payoffs, 0) + later.astype(payoffs.dtype) * payoffs), 0)


def stretched(problem: SwitchingBandit, longest: int | None = None) -> Stretched:
    """The stretched schedule of the problem's own cycles; a quarter of V_R at least if payoffs never fall with rest.

    Of other payoffs, after rest, it plans with what they are at least from there on (`minorant`).

    Args: longest: R, runs are at most that long; 8 (L + 1) by default, static.
    Returns: Stretched. Raises: ValueError: as `run_relaxation`, or a must-play problem without an arm to fill.
    Source: derived: docs/proofs/lsd.md#t11. Cost: one relaxation with k M R cycles.
    """
    longest = 8 * (problem.satiation + 1) if longest is None else longest
    planner = Stretched(run_relaxation(minorant(problem, "recovering"), longest))
    if not problem.allow_idle:
        require_fillers(problem, planner.plan, 1)
    return planner
