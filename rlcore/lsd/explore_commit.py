"""Explore, then commit: play every local state of every arm equally often, then random phases of the estimates."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.estimates import Estimates, isotonic, no_estimates
from rlcore.lsd.learned_phases import best_candidate, check_may_idle, never
from rlcore.lsd.problem import SwitchingBandit
from rlcore.lsd.random_phase import Phases, draw_phases, turn
from rlcore.lsd.relaxation import relaxation
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, Number

__all__ = ["ExploreCommit", "etc_regret_bound", "etc_sweeps", "exploration_sweep"]


def exploration_sweep(recovery: int, satiation: int) -> np.ndarray:
    """bool[C], C = M (M + 3) / 2 + L: when to play one arm so that every local state is played once, from any start.

    M rounds of rest and a play see +M; L more plays see -1 .. -L; then s rounds of rest and a play see +s, s = 1 ..
    M - 1. In another order, short rests first, +1 would never be seen: the arm has rested meanwhile.
    Args: recovery: M; satiation: L.
    Source: derived: docs/proofs/lsd.md#t13. Cost: C.
    """
    pauses = [recovery, *[0] * satiation, *range(1, recovery)]
    return np.concatenate([[*[False] * pause, True] for pause in pauses])


def etc_sweeps(horizon: int, num_arms: int, recovery: int, satiation: int) -> int:
    """N = (T / (k C))^(2/3) log(2 k S T)^(1/3) rounded up, at most T / (k C), at least 1. Source: #t13."""
    sweep = num_arms * (recovery * (recovery + 3) // 2 + satiation)
    log_term = math.log(2 * num_arms * (recovery + satiation) * horizon)
    return max(1, min(math.ceil((horizon / sweep) ** (2 / 3) * log_term ** (1 / 3)), horizon // sweep))


def etc_regret_bound(
    horizon: int, num_arms: int, recovery: int, satiation: int, guarantee: Number = 1.0, sweeps: int | None = None
) -> float:
    """N k C + (1 + guarantee) T sqrt(log(2 k S T) / (2 N)) + k + 2, at least alpha T V less the expected reward.

    Holds for monotone payoffs, rewards in [0, 1], one play per round and the rule "reset".
    Args: horizon: T; recovery, satiation: M, L, S = M + L; guarantee: alpha = alpha(k, 1) = 1 - (1 - 1/k)^k of
      random phases, or any number above it; sweeps: N, as `etc_sweeps` by default.
    Source: derived: docs/proofs/lsd.md#t13. Cost: O(1).
    """
    n = etc_sweeps(horizon, num_arms, recovery, satiation) if sweeps is None else sweeps
    explore = n * num_arms * (recovery * (recovery + 3) // 2 + satiation)
    width = math.sqrt(math.log(2 * num_arms * (recovery + satiation) * horizon) / (2 * n))
    return explore + (1 + float(guarantee)) * width * horizon + num_arms + 2


class ExploreCommitState(NamedTuple):
    """estimates; payoffs: float[k, S], committed to; phases: of the round just decided."""

    estimates: Estimates
    payoffs: Array
    phases: Phases


@pytree
class ExploreCommit:
    """N sweeps over all arms in turn, then the random-phase schedule of the relaxation at the estimated payoffs.

    horizon: T. sweeps: N, by `etc_sweeps` where None. isotonic: whether estimates are made monotone first. All static.
    Rounds are left empty: the problem must allow it, and its rule must be "reset".
    Source: derived: docs/proofs/lsd.md#t13, after Foussoul et al. (2023), arXiv 2306.00338, for the idea of committing
      to a planner (abstract read). Cost: k S per round, one relaxation.
    """

    horizon: int = static()
    sweeps: int | None = static(None)
    isotonic: bool = static(False)

    def explores(self, problem: SwitchingBandit) -> int:
        """Rounds of exploration, N k C. Raises: ValueError: a horizon or number of sweeps below 1."""
        for name, x in (("horizon", self.horizon), ("sweeps", 1 if self.sweeps is None else self.sweeps)):
            if x < 1:
                raise ValueError(f"{name}: found {x}, expected an integer of at least 1")
        k, m, low = problem.num_arms, problem.recovery, problem.satiation
        n = etc_sweeps(self.horizon, k, m, low) if self.sweeps is None else self.sweeps
        return n * k * len(exploration_sweep(m, low))

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> ExploreCommitState:
        """Nothing seen. Raises: ValueError: a problem whose rounds may not be left empty."""
        check_may_idle(problem)
        self.explores(problem)
        none = no_estimates(problem)
        return ExploreCommitState(none, none.total, never(problem))

    def act(
        self,
        problem: SwitchingBandit,
        state: ExploreCommitState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], ExploreCommitState]:
        """The sweep's play, or the candidate of largest estimated payoff; the first round after the sweeps is empty."""
        explores, arms = self.explores(problem), jnp.arange(problem.num_arms, dtype=jnp.int32)
        pattern = jnp.asarray(exploration_sweep(problem.recovery, problem.satiation))
        at = t % (len(pattern) * problem.num_arms)
        sweep = pattern[at % len(pattern)] & (arms == at // len(pattern))

        def commit(state: ExploreCommitState) -> ExploreCommitState:
            payoffs = state.estimates.mean
            payoffs = isotonic(payoffs) if self.isotonic else payoffs
            plan = relaxation(dataclasses.replace(problem, payoffs=payoffs))
            return ExploreCommitState(state.estimates, payoffs, draw_phases(plan, key))

        further = lambda s: s._replace(phases=turn(s.phases))  # noqa: E731
        state = jax.lax.cond(t == explores, commit, further, state)
        chosen = best_candidate(problem, state.payoffs, state.phases)
        return jnp.where(t < explores, sweep, chosen & (t > explores)), state

    def learn(
        self, state: ExploreCommitState, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]
    ) -> ExploreCommitState:
        """One round more in the estimates (after the commitment nothing reads them)."""
        return state._replace(estimates=state.estimates.seen(local, played, reward))
