"""The Markov virtual schedule: every arm follows a stationary chain of its own, and the best arms that ask are played.

The chain of an arm has the law of an occupation measure; in virtual state v it plays with the measure's share of plays
in v. Chains are independent and know nothing of each other, so too many may ask at once: the real arms follow the real
plays, and where payoffs are monotone they are never in a worse state than their virtual twins.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.choice import highest
from rlcore.lsd.guarantee import virtual_value
from rlcore.lsd.problem import SwitchingBandit, advance, require_plays, transition_tables
from rlcore.lsd.relaxation import Occupancy
from rlcore.lsd.restless import RestlessBandit, kernels_monotone
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = ["RULES", "MarkovSchedule", "MarkovState", "markov_schedule", "play_best"]

RULES = ("virtual", "real")
NO_MASS = 1e-12  # a state of less mass than this is not visited
ALWAYS = 1e-9  # more than the programmes' tolerance


class MarkovState(NamedTuple):
    """virtual: int32[k], virtual states in the round just acted on; asked: bool[k], the virtual plays of that round;
    following: int32[k], virtual states before the next one."""

    virtual: Array
    asked: Array
    following: Array


def play_best(
    score: Float[Array, " k"], asked: Bool[Array, " k"], plays: int, fill: Float[Array, " k"] | None = None
) -> Bool[Array, " k"]:
    """The at most `plays` arms of best score among those that asked, ties to the first; then the best of `fill`.

    Args: score: [k], values in [0, 1]; plays: m, static; fill: [k] in [0, 1], arms to play where fewer asked, by value,
      -inf for those that must not be; None leaves the rest of the round empty.
    Returns: bool[k]. Cost: k, or k log k for m > 1.
    """
    # Fillers rank below every arm that asked.
    rest = jnp.full_like(score, -jnp.inf) if fill is None else fill - 2
    rank = jnp.where(asked, score, rest)
    return highest(rank, min(plays, score.shape[0])) & (rank > -jnp.inf)


@pytree
class MarkovSchedule:
    """A planner made by `markov_schedule`; it runs in `simulate`, and on random kernels in `simulate_restless`.

    chance: float[k, S], of a virtual play by virtual state, or float[T, k, S], by round too; law: float[k, S], of the
    first virtual state; filler: bool[k], arms that the plan never plays; plays: m; rule: what ranks the arms that ask,
    the payoff of their "virtual" or of their "real" state; safe_fill: whether fillers are played where fewer than m
    arms ask (always, where a round may not be left empty). These three are static. scores: float[k, S], what a play is
    believed to pay, by which arms that ask are compared; None: the problem's payoffs.
    """

    chance: Array
    law: Array
    filler: Array
    plays: int = static(1)
    rule: str = static("virtual")
    safe_fill: bool = static(False)
    scores: Array | None = None

    def init(self, problem, key: Key[Array, ""]) -> MarkovState:
        """Virtual states drawn from their law.

        Raises: ValueError: a schedule for other sizes, plays above k, or rounds that must be filled and, as far as can
          be seen, too few arms that can fill them.
        """
        self._require_sizes(problem)
        self.require_fillers(problem)
        at = inverse_cdf(jnp.cumsum(self.law, axis=-1), uniform(key, self.law.shape[:1], self.law.dtype))
        return MarkovState(at, jnp.zeros(at.shape, bool), at)

    def _require_sizes(self, problem) -> None:
        require_plays(self.plays, problem.num_arms)
        expected = (problem.num_arms, problem.num_local)
        if self.chance.shape[-2:] != expected:
            raise ValueError(
                f"problem: found {expected[0]} arms of {expected[1]} states, expected those of the schedule, "
                f"{self.chance.shape[-2:]}"
            )

    def require_fillers(self, problem) -> None:
        """Raise ValueError where rounds must be filled and too few arms can fill them; traced schedules pass."""
        if not getattr(problem, "allow_idle", True) and not isinstance(self.chance, jax.core.Tracer):
            found = int(np.sum(np.asarray(self.filler)))
            if self.chance.ndim == 2:  # an arm that asks in every round fills rounds too
                asks = np.sum(np.asarray(self.law) * np.asarray(self.chance), axis=-1)
                found += int(np.sum(asks >= 1 - ALWAYS))
            if found < self.plays:
                raise ValueError(
                    f"problem: found allow_idle=False and {found} arms that the plan plays never or always, expected "
                    f"at least {self.plays} to fill rounds with; add an arm without payoff"
                )

    def act(
        self, problem: SwitchingBandit, state: MarkovState, local: Int[Array, " k"], t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], MarkovState]:  # fmt: skip
        """(bool[k], arms to play; the next state): as every planner."""
        asked, played = self.decide(problem, state.following, local, t, key)
        _, following = advance(problem, state.following, asked)
        return played, MarkovState(state.following, asked, following)

    def decide(
        self, problem, virtual: Int[Array, " k"], local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], Bool[Array, " k"]]:
        """(virtual plays bool[k], real plays bool[k]) in given virtual and real states. Cost: k."""
        at = lambda table, e: jnp.take_along_axis(table, e[:, None], axis=1)[:, 0]  # noqa: E731
        chance = self.chance if self.chance.ndim == 2 else self.chance[t]
        asked = jax.random.uniform(key, virtual.shape, chance.dtype) < at(chance, virtual)
        scores = problem.payoffs if self.scores is None else self.scores
        score = at(scores, virtual if self.rule == "virtual" else local)
        fill = None
        if self.safe_fill or not getattr(problem, "allow_idle", True):
            fill = jnp.where(self.filler, at(problem.payoffs, local), -jnp.inf)
        return asked, play_best(score, asked, self.plays, fill)

    def guarantee(self, problem: SwitchingBandit | RestlessBandit) -> Float[Array, ""]:
        """float[], reward per round that the schedule earns in expectation at least, in the long run.

        V_virt of the scores. NaN where that is not proven: scores that fall or exceed the payoffs, restless kernels
        that are not monotone (`kernels_monotone`), rates that are not stationary on this problem's arms to 1e-9 or to
        rounding, a schedule by rounds, which has no long run, and the idle rule "decrement" from the start "just".
        Restless arms must start in their highest states and share the chains' numbers ("mirrored" or "observed").
        Raises: ValueError: a schedule for other sizes. Source: derived: docs/proofs/lsd.md#t15. Cost: k S^2, and see
        `virtual_value`.
        """
        self._require_sizes(problem)
        switching = isinstance(problem, SwitchingBandit)
        behind = switching and problem.idle_rule == "decrement" and problem.start == "just"
        if self.chance.ndim == 3 or behind:
            return jnp.full((), jnp.nan, problem.payoffs.dtype)
        scores = problem.payoffs if self.scores is None else self.scores
        valid = jnp.all(jnp.diff(scores, axis=-1) >= 0) & jnp.all(scores <= problem.payoffs)
        play = self.law * self.chance
        idle = self.law - play
        if switching:
            played, rested = transition_tables(problem)
            following = jnp.zeros_like(play).at[:, played].add(play).at[:, rested].add(idle)
        else:
            valid &= kernels_monotone(problem)
            flow = lambda mass, law: jnp.einsum("ie,iex->ix", mass, law, precision="highest")  # noqa: E731
            following = flow(play, problem.play) + flow(idle, problem.idle)
        drift = jnp.max(jnp.abs(following - self.law))
        valid &= drift <= max(ALWAYS, 4 * problem.num_local * float(jnp.finfo(play.dtype).eps))
        known = dataclasses.replace(problem, payoffs=scores)
        return jnp.where(valid, virtual_value(known, play, self.plays), jnp.nan)


def markov_schedule(
    occupancy: Occupancy,
    plays: int = 1,
    *,
    rule: str = "virtual",
    safe_fill: bool = False,
    scores: Float[Array, "k S"] | None = None,
) -> MarkovSchedule:
    """The schedule whose virtual chains have the rates of an occupation measure.

    Args: occupancy: of `occupation_programme`, or of `relaxation` by `occupancy`; [k, S] twice; with a leading T, of
      `finite_programme`, virtual states begin where the programme's arms do; plays: m, static; rule, safe_fill, scores:
      see `MarkovSchedule`.
    Returns: MarkovSchedule. Where payoffs are monotone it earns, from the rested state, at least
      alpha(k, m) V per round in expectation.
    Raises: ValueError: an unknown rule, plays below 1, or shapes that do not fit.
    Source: derived: docs/proofs/lsd.md#t15 (domination and its use; idea of mirrored virtual states: Foussoul et al.
      (2023), arXiv 2306.00338, abstract read). Cost: k S.
    """
    idle, play = jnp.asarray(occupancy.idle), jnp.asarray(occupancy.play)
    if rule not in RULES:
        raise ValueError(f"rule: found {rule!r}, expected one of {RULES}")
    if plays < 1:
        raise ValueError(f"plays: found {plays}, expected an integer of at least 1")
    if idle.shape != play.shape or idle.ndim not in (2, 3):
        raise ValueError(f"occupancy: found shapes {idle.shape}, {play.shape}, expected [k, S] or [T, k, S] twice")
    idle, play = jnp.maximum(idle, 0), jnp.maximum(play, 0)
    mass = idle + play
    seen = mass > NO_MASS
    chance = jnp.where(seen, play / jnp.where(seen, mass, 1), 0)
    law = mass if mass.ndim == 2 else mass[0]
    law = law / jnp.sum(law, axis=-1, keepdims=True)
    filler = jnp.all(jnp.moveaxis(chance, -2, 0).reshape(chance.shape[-2], -1) <= NO_MASS, axis=1)
    return MarkovSchedule(chance, law, filler, plays, rule, safe_fill, scores)


def uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype) -> Float[Array, "..."]:
    """Uniform on (0, 1]: a quantile never falls on a state of no mass at the bottom."""
    return 1 - jax.random.uniform(key, shape, dtype)


def inverse_cdf(cdf: Float[Array, "... S"], level: Float[Array, "..."]) -> Int[Array, "..."]:
    """#{x : level > cdf(x)}, the quantile; nondecreasing in the level, and in the law's stochastic order."""
    # A last entry short of 1 by rounding must not lead outside.
    return jnp.minimum(jnp.sum(level[..., None] > cdf, axis=-1), cdf.shape[-1] - 1).astype(jnp.int32)
