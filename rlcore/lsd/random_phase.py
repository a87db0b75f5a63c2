"""Random-phase schedule: every arm follows its own cycle from a random offset; of those that ask, the best are played.

An arm's *virtual* state is what its local state would be, were it played whenever it asks. A real play is always one
that was asked for, so with monotone payoffs the real state is never worse: the plan's value carries over to the
schedule, up to collisions (`virtual_value`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.choice import payoff_ranks, pick
from rlcore.lsd.guarantee import virtual_value
from rlcore.lsd.problem import SwitchingBandit, require_plays, require_reset
from rlcore.lsd.relaxation import Relaxation, occupancy, relaxation
from rlcore.lsd.simulate import Round
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = [
    "Phases",
    "RandomPhase",
    "RandomPhaseState",
    "asking",
    "best_filler",
    "constant_arms",
    "draw_options",
    "draw_phases",
    "fillers",
    "random_phase",
    "require_fillers",
    "turn",
    "undominated",
    "virtual_payoff",
    "virtual_state",
]

RULES = ("virtual", "real")


class Phases(NamedTuple):
    """The cycles that arms follow, int32[k] each: `idle` rounds of rest, then `run` plays; `phase` counts from 0 to
    idle + run - 1. (0, 1) plays without end, (1, 0) never."""

    idle: Array
    run: Array
    phase: Array


def draw_options(plan: Relaxation, key: Key[Array, ""]) -> tuple[Int[Array, " k"], Int[Array, " k"]]:
    """(int32[k] idle, int32[k] run): each arm's cycle of a plan, drawn by its weights. Cost: k."""
    second = jax.random.uniform(key, plan.weight.shape[:1], plan.weight.dtype) >= plan.weight[:, 0]
    return jnp.where(second, plan.idle[:, 1], plan.idle[:, 0]), jnp.where(second, plan.run[:, 1], plan.run[:, 0])


def draw_phases(plan: Relaxation, key: Key[Array, ""]) -> Phases:
    """Cycles drawn by the plan's weights, each at a uniform phase: virtual states are then stationary. Cost: k."""
    option_key, phase_key = jax.random.split(key)
    idle, run = draw_options(plan, option_key)
    return Phases(idle, run, jax.random.randint(phase_key, idle.shape, 0, idle + run, jnp.int32))


def turn(phases: Phases) -> Phases:
    """The phases one round later. Cost: k."""
    following = phases.phase + 1
    return phases._replace(phase=jnp.where(following >= phases.idle + phases.run, 0, following))


def asking(phases: Phases) -> Bool[Array, " k"]:
    """bool[k], whether the arm's virtual process plays in this round. Cost: k."""
    return (phases.phase >= phases.idle) & (phases.run > 0)


def virtual_state(phases: Phases, satiation: int, num_local: int) -> Int[Array, " k"]:
    """int32[k], the local state of every arm, were it played whenever it asks.

    Args: satiation: L, and num_local: S, of the problem. Cost: k.
    """
    low, top = satiation, num_local - 1
    idle, run, phase = phases
    played = phase - idle  # plays of the run so far
    rested = jnp.where(phase == 0, low - run, low + phase - 1)
    first = jnp.where(idle > 0, low + idle - 1, 0)
    state = jnp.where(played < 0, rested, jnp.where(played == 0, first, low - played))
    return jnp.where(run == 0, top, jnp.clip(state, 0, top))


class RandomPhaseState(NamedTuple):
    """phases: of the next round. virtual: int32[k], and asked: bool[k], in the round just decided. fill: bool[k], arms
    that may be played unasked. rank: int32[k, S], order of the scores. key: of the redraws."""

    phases: Phases
    virtual: Array
    asked: Array
    fill: Array
    rank: Array
    key: Array


@pytree
class RandomPhase:
    """Planner: random phases of a plan, the best `plays` of the arms that ask.

    plan: Relaxation, what the arms do; virtual states, and the guarantee, are those of the idle rule "reset".
    plays: m, static. rule: what makes an arm the best, its payoff in its "virtual"
    or in its "real" state; static. safe_fill: whether a round that nobody asks for goes to arms that the plan never
    plays (or whose payoff is constant): their states do not matter; static. A must-play problem is always filled.
    frame: rounds after which cycles and phases are drawn anew, each frame from an empty round (of a must-play problem:
    a round that only such arms get), so that time averages approach the mean over phases; None never; static.
    scores: float[k, S], what a play is believed to pay, by which arms are compared; None: the problem's payoffs.
    """

    plan: Relaxation
    plays: int = static(1)
    rule: str = static("virtual")
    safe_fill: bool = static(False)
    frame: int | None = static(None)
    scores: Array | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule: found {self.rule!r}, expected one of {RULES}")
        if self.plays < 1:
            raise ValueError(f"plays: found {self.plays}, expected an integer of at least 1")
        if self.frame is not None and self.frame < 2:
            raise ValueError(f"frame: found {self.frame}, expected None or at least 2 rounds, the first of them empty")

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> RandomPhaseState:
        """Phases drawn; raises ValueError for a must-play problem without enough arms that may always be played."""
        require_reset(problem)
        require_plays(self.plays, problem.num_arms)
        if not problem.allow_idle:
            require_fillers(problem, self.plan, self.plays)
        draw_key, key = jax.random.split(key)
        phases = draw_phases(self.plan, draw_key)
        scores = problem.payoffs if self.scores is None else self.scores
        none = jnp.zeros(problem.num_arms, bool)
        return RandomPhaseState(phases, phases.phase, none, constant_arms(problem), payoff_ranks(scores), key)

    def act(
        self,
        problem: SwitchingBandit,
        state: RandomPhaseState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], RandomPhaseState]:
        """One round; see the class. Cost: k."""
        phases, fresh = state.phases, None
        if self.frame is not None:
            fresh = t % self.frame == 0
            draw = lambda _: draw_phases(self.plan, jax.random.fold_in(state.key, t))  # noqa: E731
            phases = jax.lax.cond(fresh & (t > 0), draw, lambda phases: phases, phases)
        virtual, asked = virtual_state(phases, problem.satiation, problem.num_local), asking(phases)

        def rank_at(e):
            return jnp.take_along_axis(state.rank, e[:, None], axis=1, mode="promise_in_bounds")[:, 0]

        wanted = asked if fresh is None else asked & ~fresh
        score = rank_at(virtual if self.rule == "virtual" else local)
        if self.safe_fill or not problem.allow_idle:
            fill = state.fill | (phases.run == 0)
            if not problem.allow_idle:
                fill |= phases.idle == 0
            # Fillers come after all that ask.
            score = jnp.where(wanted, score + problem.payoffs.size, jnp.where(fill, rank_at(local), 0))
        else:
            score = jnp.where(wanted, score, 0)
        return pick(score, self.plays), state._replace(phases=turn(phases), virtual=virtual, asked=asked)

    def guarantee(self, problem: SwitchingBandit) -> Float[Array, ""]:
        """float[], reward per round that the schedule earns in expectation at least, in the long run.

        V_virt of the scores if they are monotone and nowhere above the payoffs, else 0; in frames less what the
        restarts cost. Source: derived: docs/proofs/lsd.md#t6. Cost: see `virtual_value`.
        """
        require_reset(problem)
        scores = problem.payoffs if self.scores is None else self.scores
        valid = jnp.all(jnp.diff(scores, axis=-1) >= 0) & jnp.all(scores <= problem.payoffs)
        known = dataclasses.replace(problem, payoffs=scores)
        value = virtual_value(known, occupancy(known, self.plan).play, self.plays)
        if self.frame is not None:
            lost = problem.num_arms * jnp.max(scores)
            value = jnp.maximum((value * (self.frame - 1) - lost) / self.frame, 0)
        return jnp.where(valid, value, 0)


def constant_arms(problem: SwitchingBandit) -> Bool[Array, " k"]:
    """bool[k], arms whose payoff is the same in every state. Cost: k S."""
    return jnp.max(problem.payoffs, axis=-1) == jnp.min(problem.payoffs, axis=-1)


def fillers(problem: SwitchingBandit, plan: Relaxation) -> Bool[Array, " k"]:
    """bool[k], arms that may be played at any time at no harm to the plan: see `require_fillers`. Cost: k S."""
    return jnp.all((plan.weight <= 0) | (plan.run == 0) | (plan.idle == 0), axis=-1) | constant_arms(problem)


def best_filler(problem: SwitchingBandit, plan: Relaxation) -> Int[Array, ""]:
    """int32[], of the fillers the arm that pays most in its worst state. Cost: k S."""
    return jnp.argmax(jnp.where(fillers(problem, plan), jnp.min(problem.payoffs, axis=-1), -1)).astype(jnp.int32)


def require_fillers(problem: SwitchingBandit, plan: Relaxation, plays: int) -> None:
    """Raise ValueError unless `plays` arms may be played at any time at no harm to the plan; traced plans pass.

    Such are arms that the plan never plays, or always, and arms whose payoff is constant.
    """
    if any(isinstance(x, jax.core.Tracer) for x in (*plan, problem.payoffs)):
        return
    # Under a trace too, numbers are seen.
    with jax.ensure_compile_time_eval():
        free = np.asarray(fillers(problem, plan))
    if free.sum() < plays:
        raise ValueError(
            f"problem: found a must-play model (allow_idle=False) with {int(free.sum())} arms that may be played when "
            f"nobody asks, expected at least {plays}: arms that the plan never plays, always plays, or of constant "
            "payoff (add an arm that pays 0)"
        )


def random_phase(
    problem: SwitchingBandit,
    plays: int = 1,
    *,
    rule: str = "virtual",
    safe_fill: bool = False,
    frame: int | None = None,
) -> RandomPhase:
    """The random-phase schedule of the problem's own relaxation.

    Args: see `RandomPhase`. Returns: RandomPhase. Raises: ValueError: as `relaxation` and `RandomPhase`, or no fillers.
    Source: derived, after Foussoul et al. (2023), arXiv 2306.00338 (abstract read); guarantee derived:
      docs/proofs/lsd.md#t6. Cost: one relaxation.
    """
    planner = RandomPhase(relaxation(problem, plays), plays, rule, safe_fill, frame)
    if not problem.allow_idle:
        require_fillers(problem, planner.plan, plays)
    return planner


def undominated(problem: SwitchingBandit, seen: Round) -> Int[Array, ""]:
    """For `observe`: int32[], arms whose real state is below their virtual one; 0 in all rounds from "rested".

    Arms that never ask, or of constant payoff, are not counted: they may be fillers. Source: derived:
    docs/proofs/lsd.md#t5. Cost: k.
    """
    counts = ~seen.state.fill & (seen.state.phases.run > 0)
    return jnp.sum(counts & (seen.local < seen.state.virtual), dtype=jnp.int32)


def virtual_payoff(problem: SwitchingBandit, seen: Round) -> Float[Array, ""]:
    """For `observe`: float[], what the arms played would pay in their virtual states; its mean is V_virt under the
    rule "virtual" (without fillers and frames). Cost: k."""
    payoffs = jnp.take_along_axis(problem.payoffs, seen.state.virtual[:, None], axis=1)[:, 0]
    return jnp.sum(jnp.where(seen.played & seen.state.asked, payoffs, 0))
