"""The loop that runs a planner, or a learner, on a switching bandit.

A planner is a frozen pytree with `init` and `act`; a learner has `learn` besides and sees rewards, never payoffs. Both
are written for one bandit: `jax.vmap` over keys makes replicas. Rounds are counted from 0 by the loop, not by a batch:
`jax.lax.cond` on the round number stays a branch under `vmap`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, advance, initial_state
from rlcore.types import Array, Bool, Float, Int, Key, PyTree

__all__ = ["Learner", "Planner", "Round", "Simulation", "given_state", "learn", "simulate"]


@runtime_checkable
class Planner(Protocol):
    """What the loop asks of a planner; it may read the payoffs."""

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """The planner's own state before round 0."""

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """(bool[k], the arms to play in round t; the planner's next state)."""


@runtime_checkable
class Learner(Protocol):
    """As a planner, but its problem has NaN for payoffs; after every round it is told what it saw."""

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """The learner's own state before round 0."""

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """(bool[k], the arms to play in round t; the learner's next state)."""

    def learn(
        self, state: PyTree, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]
    ) -> PyTree:
        """The state after reward float[k] was seen where `played`, from local states int32[k] before the round."""


class Round(NamedTuple):
    """One round as `observe` sees it: local int32[k] before it, played bool[k], payoff float[k] (0 where not played),
    and the planner's state after it acted."""

    local: Array
    played: Array
    payoff: Array
    state: PyTree


class Simulation(NamedTuple):
    """total: float[], mean payoffs collected. local: int32[k], after the last round. state: the planner's. trace: what
    `observe` saw, stacked over rounds; float[T] payoff of every round by default."""

    total: Array
    local: Array
    state: PyTree
    trace: PyTree


def _payoff_of_round(problem: SwitchingBandit, seen: Round) -> Float[Array, ""]:
    return jnp.sum(seen.payoff)


def simulate(
    problem: SwitchingBandit,
    planner: Planner,
    horizon: int,
    key: Key[Array, ""],
    *,
    start: str | Int[Array, " k"] | None = None,
    observe: Callable[[SwitchingBandit, Round], PyTree] | None = _payoff_of_round,
) -> Simulation:
    """Run a planner for `horizon` rounds and collect mean payoffs.

    Args: planner: a `Planner`; horizon: T, static; start: "rested", "one", "just" or int32[k], the problem's own by
      default; observe: `observe(problem, Round) -> pytree`, called every round; None keeps no trace.
    Returns: Simulation. Raises: ValueError: a horizon below 1, or a start that is none. Cost: T rounds of O(k) and the
      planner's own.
    """
    return _run(problem, problem, planner, horizon, key, start, observe, learns=False)


def learn(
    problem: SwitchingBandit,
    learner: Learner,
    horizon: int,
    key: Key[Array, ""],
    *,
    start: str | Int[Array, " k"] | None = None,
    observe: Callable[[SwitchingBandit, Round], PyTree] | None = _payoff_of_round,
) -> Simulation:
    """Run a learner for `horizon` rounds with Bernoulli rewards; what is collected are the mean payoffs behind them.

    Args, returns, raises, cost: as `simulate`; learner: a `Learner`, handed a problem without payoffs.
    """
    blank = dataclasses.replace(problem, payoffs=jnp.full_like(problem.payoffs, jnp.nan))
    return _run(problem, blank, learner, horizon, key, start, observe, learns=True)


def _run(problem, known, planner, horizon, key, start, observe, learns: bool) -> Simulation:
    if horizon < 1:
        raise ValueError(f"horizon: found {horizon}, expected an integer of at least 1")
    init_key, round_key = jax.random.split(key)
    local = _first_state(problem, start)

    def one(carry, t):
        local, state, total = carry
        act_key, reward_key = jax.random.split(jax.random.fold_in(round_key, t))
        played, state = planner.act(known, state, local, t, act_key)
        payoff, following = advance(problem, local, played)
        seen = Round(local, played, payoff, state)
        if learns:
            reward = jax.random.bernoulli(reward_key, payoff).astype(payoff.dtype)
            state = planner.learn(state, local, played, reward)
        trace = None if observe is None else observe(problem, seen)
        return (following, state, total + jnp.sum(payoff)), trace

    begin = (local, planner.init(known, init_key), jnp.zeros((), problem.payoffs.dtype))
    (local, state, total), trace = jax.lax.scan(one, begin, jnp.arange(horizon, dtype=jnp.int32))
    return Simulation(total, local, state, trace)


def _first_state(problem: SwitchingBandit, start: str | Int[Array, " k"] | None) -> Int[Array, " k"]:
    return initial_state(problem, start) if start is None or isinstance(start, str) else given_state(problem, start)


def given_state(problem, start: Int[Array, " k"]) -> Int[Array, " k"]:
    """int32[k], the first local states that a caller gives.

    Args: problem: of k arms with S local states, switching or restless. Raises: ValueError: another shape, no
      integers, or states out of 0 .. S - 1 as far as they are not traced. Cost: k.
    """
    start = jnp.asarray(start)
    if start.shape != (problem.num_arms,) or not jnp.issubdtype(start.dtype, jnp.integer):
        raise ValueError(f"start: found {start.dtype}{start.shape}, expected integers of shape ({problem.num_arms},)")
    if not isinstance(start, jax.core.Tracer):
        low, high = int(np.min(np.asarray(start))), int(np.max(np.asarray(start)))
        if low < 0 or high >= problem.num_local:
            raise ValueError(f"start: found local states in [{low}, {high}], expected [0, {problem.num_local - 1}]")
    return start.astype(jnp.int32)
