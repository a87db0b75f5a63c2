"""Planners without a guarantee, to compare with: greedy, round robin, one arm, the best short cycle, fixed periods."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.choice import highest
from rlcore.lsd.joint import joint_actions
from rlcore.lsd.problem import SwitchingBandit, advance, initial_state, require_plays
from rlcore.lsd.relaxation import Relaxation, relaxation
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Int, Key, PyTree

__all__ = [
    "BestFixedArm",
    "Calendar",
    "Greedy",
    "PurelyPeriodic",
    "RoundRobin",
    "best_calendar",
    "calibrated_calendar",
    "purely_periodic",
]

TIES = ("random", "first")
# Cycles that one enumeration may try, and may number.
LIMIT, MOST = 10_000_000, 2**31 - 1


def _payoffs_at(problem, local):
    return jnp.take_along_axis(problem.payoffs, local[:, None], axis=1)[:, 0]


class _Stateless:
    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """Nothing to remember."""
        return ()


@pytree
class Greedy(_Stateless):
    """A planner: the arms that pay most now, m in every round.

    plays: m, static. ties: "random" or "first", static. idle_at_zero: static; True leaves out arms that pay 0, which
    would only lose their rest, False plays them.

    No constant share of the optimum; on blocking arms `idle_at_zero` earns alpha(k, 1) V at least, m = 1
    (docs/proofs/lsd.md#t8). Source: definition; the released code of Laforgue et al. draws ties and plays always.
    Cost: k.
    """

    plays: int = static(1)
    ties: str = static("random")
    idle_at_zero: bool = static(False)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the largest payoffs.

        Raises: ValueError: unknown ties; plays out of 1 .. k; idle_at_zero where idling is forbidden.
        """
        require_plays(self.plays, problem.num_arms)
        if self.ties not in TIES:
            raise ValueError(f"ties: found {self.ties!r}, expected one of {TIES}")
        if self.idle_at_zero and not problem.allow_idle:
            raise ValueError("idle_at_zero: found True, expected False for a problem that forbids idling")
        noise = jax.random.uniform(key, local.shape, problem.payoffs.dtype) if self.ties == "random" else None
        payoff = _payoffs_at(problem, local)
        chosen = highest(payoff, self.plays, noise)
        return chosen & (payoff > 0) if self.idle_at_zero else chosen, state


@pytree
class RoundRobin(_Stateless):
    """A planner: arms 0 .. k - 1 in turn, m of them per round. plays: m, static. Source: definition. Cost: k."""

    plays: int = static(1)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the next arms. Raises: ValueError: plays out of 1 .. k."""
        require_plays(self.plays, problem.num_arms)
        k = problem.num_arms
        first = (t % k) * self.plays % k
        return (jnp.arange(k, dtype=t.dtype) - first) % k < self.plays, state


@pytree
class BestFixedArm(_Stateless):
    """A planner: always the arms that pay most when most tired. plays: m, static. Source: definition. Cost: k."""

    plays: int = static(1)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the largest p(-L). Raises: ValueError: plays out of 1 .. k."""
        require_plays(self.plays, problem.num_arms)
        return highest(problem.payoffs[:, 0], self.plays), state


@pytree
class Calendar(_Stateless):
    """A planner: a fixed cycle of rounds, for ever. actions: bool[n, k], arms played. value: float[], its reward per
    round in the long run. Source: definition. Cost: k."""

    actions: Array
    value: Array

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the row of round t."""
        return self.actions[t % self.actions.shape[0]], state


def _passes_to_settle(problem, length):
    """Passes of a cycle after which local states repeat, from a rested start.

    Under "reset" a run's length is all that can still grow. Else: one pass is a monotone map of the S states of an arm,
    so that its iterates climb, or fall, to a fixed point.
    """
    return max(1, -(-problem.satiation // length)) if problem.idle_rule == "reset" else problem.num_local


def _long_run(problem, actions):
    """Reward per round, in the long run, of a cycle bool[n, k]."""
    n = actions.shape[0]

    def one_pass(local):
        def one(local, played):
            payoff, local = advance(problem, local, played)
            return local, jnp.sum(payoff)

        return jax.lax.scan(one, local, actions)

    settle = _passes_to_settle(problem, n)
    local = jax.lax.fori_loop(0, settle, lambda _, e: one_pass(e)[0], initial_state(problem, "rested"))
    return jnp.sum(one_pass(local)[1]) / n


def best_calendar(
    problem: SwitchingBandit,
    length: int,
    plays: int = 1,
    *,
    opening: Sequence[int] | np.ndarray | None = None,
    limit: int = LIMIT,
) -> Calendar:
    """The best of all cycles of `length` rounds, by trying each.

    Args: length: n, static; plays: m, sets of at most m arms per round (exactly m where idling is forbidden), static;
      opening: int[o], arms played one by one at the head of the cycle, before the n rounds that are chosen; limit:
      cycles allowed, never more than 2^31 - 1.
    Returns: Calendar with actions bool[o + n, k]. Raises: ValueError: a length below 1, plays out of 1 .. k, arms of
      the opening out of range, more cycles than the limit. Source: derived: docs/proofs/lsd.md#calendar.
    Cost: A^n cycles, A the sets of arms, each simulated for n + L rounds or so.
    """
    if length < 1:
        raise ValueError(f"length: found {length}, expected an integer of at least 1")
    k = problem.num_arms
    sets = joint_actions(k, plays, problem.allow_idle)
    number = len(sets) ** length
    limit = min(limit, MOST)
    if number > limit:
        raise ValueError(
            f"length: found {length}, which makes {number} cycles of {len(sets)} sets of arms, expected at most "
            f"{limit}; choose a shorter one, or `optimal_average`"
        )
    opening = np.zeros(0, int) if opening is None else np.asarray(opening)
    if opening.ndim != 1 or np.any((opening < 0) | (opening >= k)):
        raise ValueError(f"opening: found {opening.tolist()}, expected arms in 0 .. {k - 1}")
    head = jnp.asarray(opening[:, None] == np.arange(k)[None, :])
    table, radix = jnp.asarray(sets), jnp.asarray(len(sets) ** np.arange(length), jnp.int32)

    def cycle(code):
        return jnp.concatenate([head, table[code // radix % len(sets)]])

    # Blocks keep the states of at most 2^16 cycles in memory at a time.
    value = jax.lax.map(
        lambda code: _long_run(problem, cycle(code)), jnp.arange(number, dtype=jnp.int32), batch_size=min(number, 2**16)
    )
    best = jnp.argmax(value)
    return Calendar(cycle(best.astype(jnp.int32)), value[best])


def calibrated_calendar(problem: SwitchingBandit, block: int, order: str = "best") -> Calendar:
    """The best block of rounds after one play of every arm in a fixed order: that play makes the block's start known.

    Args: block: rounds chosen, static; order: "worst", arms 0 .. k - 1, or "best", arms k - 1 .. 0, static: the names
      that the released code of Laforgue et al. gives its two orders.
    Returns: Calendar of k + block rounds. Raises: ValueError: an unknown order, or as `best_calendar`.
    Source: Laforgue et al. (2022), released code, with known payoffs and exact search for its heuristic. Cost: as
      `best_calendar`.
    """
    if order not in ("worst", "best"):
        raise ValueError(f"order: found {order!r}, expected 'worst' or 'best'")
    arms = np.arange(problem.num_arms)
    return best_calendar(problem, block, opening=arms if order == "worst" else arms[::-1])


@pytree
class PurelyPeriodic(_Stateless):
    """A planner: every arm asks for a play at fixed phases of its own period; of those that ask, the best paid play.

    idle, run, offset: int32[k]; arm i asks in round t if (offset + t) mod (idle + run) >= idle; run 0 never asks.
    plays: m, static. Build it with `purely_periodic`. A problem that forbids idling is filled up with the arms that pay
    most. Cost: k.
    """

    idle: Array
    run: Array
    offset: Array
    plays: int = static(1)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the best paid arms that ask."""
        return self.played(problem, local, t), state

    def played(self, problem: SwitchingBandit, local: Int[Array, " k"], t: Int[Array, ""]) -> Bool[Array, " k"]:
        """bool[k], the arms of round t. Raises: ValueError: plays out of 1 .. k."""
        require_plays(self.plays, problem.num_arms)
        asks = (self.offset + t.astype(self.offset.dtype)) % (self.idle + self.run) >= self.idle
        payoff = _payoffs_at(problem, local)
        # Payoffs are in [0, 1]: whoever asks comes first.
        chosen = highest(jnp.where(asks, payoff + 2, payoff), self.plays)
        return chosen & asks if problem.allow_idle else chosen


def purely_periodic(
    problem: SwitchingBandit,
    plan: Relaxation | None = None,
    plays: int = 1,
    *,
    window: int = 256,
    rounds: int = 2,
) -> PurelyPeriodic:
    """One cycle per arm, that of the larger weight in the relaxation, and offsets by coordinate search.

    Args: plan: of the same problem and plays, or None to solve it here; plays: m, static; window: rounds that a set of
      offsets is tried for, after as many to forget the start, static; rounds: times that every arm's offset is chosen
      anew among all of its period, static.
    Returns: PurelyPeriodic; a local optimum over the window. Source: the form of policy: Simchi-Levi et al. 2021
      (abstract read). Cost: rounds k (M + L + 1) simulations of 2 window rounds.
    """
    plan = relaxation(problem, plays) if plan is None else plan
    pick = jnp.argmax(plan.weight, axis=1)[:, None]
    idle, run = (jnp.take_along_axis(x, pick, axis=1)[:, 0] for x in (plan.idle, plan.run))
    periods = problem.num_local + 1

    def earned(offset):
        planner = PurelyPeriodic(idle, run, offset, plays)

        def one(local, t):
            payoff, local = advance(problem, local, planner.played(problem, local, t))
            return local, jnp.where(t >= window, jnp.sum(payoff), 0)

        times = jnp.arange(2 * window, dtype=jnp.int32)
        return jnp.sum(jax.lax.scan(one, initial_state(problem), times)[1])

    def choose(step, offset):
        arm = step % problem.num_arms
        trial = jnp.arange(periods, dtype=offset.dtype) % (idle[arm] + run[arm])
        trials = jax.vmap(lambda x: offset.at[arm].set(x))(trial)
        values = jax.vmap(earned)(trials)
        # Kept unless better: ties must not walk.
        better = jnp.max(values) > values[jnp.argmax(trial == offset[arm])]
        return jnp.where(better, trials[jnp.argmax(values)], offset)

    offset = jax.lax.fori_loop(0, rounds * problem.num_arms, choose, jnp.zeros_like(idle))
    return PurelyPeriodic(idle, run, offset, plays)
