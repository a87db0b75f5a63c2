"""Markov schedules on restless arms: one uniform number moves a real arm and its virtual chain.

Where both kernels of an arm are stochastically monotone and idling dominates playing, both keep their order, and the
guarantee of the schedule carries over. With independent transitions it does not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlcore.lsd.markov import MarkovSchedule, MarkovState, inverse_cdf, uniform
from rlcore.lsd.restless import RestlessBandit
from rlcore.lsd.simulate import Round, Simulation, given_state
from rlcore.types import Array, Float, Int, Key, PyTree

__all__ = ["COUPLINGS", "simulate_restless"]

COUPLINGS = ("mirrored", "observed", "independent")


def _payoff_of_round(problem: RestlessBandit, seen: Round) -> Float[Array, ""]:
    return jnp.sum(seen.payoff)


def simulate_restless(
    problem: RestlessBandit,
    schedule: MarkovSchedule,
    horizon: int,
    key: Key[Array, ""],
    *,
    coupling: str = "mirrored",
    start: Int[Array, " k"] | None = None,
    observe: Callable[[RestlessBandit, Round], PyTree] | None = _payoff_of_round,
) -> Simulation:
    """Run a Markov schedule on restless arms and collect mean payoffs.

    Args: schedule: of `markov_schedule`, from `occupation_programme(problem)`; horizon: T, static; coupling:
      "mirrored" (one uniform number moves the real and the virtual arm), "observed" (the same law, as it can be had
      from a real arm: its transition is seen first, then the number is drawn given it) or "independent", static; start:
      int32[k], the highest states by default: they dominate every virtual state; observe: as in `simulate`; its Round's
      state is a `MarkovState`, so `seen.local >= seen.state.virtual` is domination.
    Returns: Simulation; its `state` is the last round's MarkovState. Raises: ValueError: a horizon below 1, an
      unknown coupling, or a start that is none.
    Source: derived: docs/proofs/lsd.md#t15. Cost: T k S, after k S^2.
    """
    if horizon < 1:
        raise ValueError(f"horizon: found {horizon}, expected an integer of at least 1")
    if coupling not in COUPLINGS:
        raise ValueError(f"coupling: found {coupling!r}, expected one of {COUPLINGS}")
    k, size = problem.num_arms, problem.num_local
    dtype = problem.payoffs.dtype
    # By arm and (state, action): a played arm reads the upper half of its table.
    cdf = jnp.cumsum(jnp.concatenate([problem.idle, problem.play], axis=1), axis=-1)
    init_key, round_key = jax.random.split(key)
    local = jnp.full(k, size - 1, jnp.int32) if start is None else given_state(problem, start)
    rows = lambda e, acts: jnp.take_along_axis(cdf, (e + size * acts)[:, None, None], axis=1)[:, 0]  # noqa: E731

    def move(local, played, virtual, asked, key):
        first, second = (uniform(x, (k,), dtype) for x in jax.random.split(key))
        real = rows(local, played.astype(jnp.int32))
        following = inverse_cdf(real, first)
        if coupling == "mirrored":
            level = first
        elif coupling == "independent":
            level = second
        else:
            at = lambda e: jnp.take_along_axis(real, e[:, None], axis=1)[:, 0]  # noqa: E731
            below = jnp.where(following > 0, at(jnp.maximum(following - 1, 0)), 0)
            # Rounding must not lift the number out of the observed state's part.
            level = jnp.minimum(below + second * (at(following) - below), at(following))
        return following, inverse_cdf(rows(virtual, asked.astype(jnp.int32)), level)

    def one(carry, t):
        local, state, total = carry
        act_key, move_key = jax.random.split(jax.random.fold_in(round_key, t))
        virtual = state.following
        asked, played = schedule.decide(problem, virtual, local, t, act_key)
        payoff = jnp.where(played, jnp.take_along_axis(problem.payoffs, local[:, None], axis=1)[:, 0], 0)
        following, after = move(local, played, virtual, asked, move_key)
        state = MarkovState(virtual, asked, after)
        trace = None if observe is None else observe(problem, Round(local, played, payoff, state))
        return (following, state, total + jnp.sum(payoff)), trace

    begin = (local, schedule.init(problem, init_key), jnp.zeros((), dtype))
    (local, state, total), trace = jax.lax.scan(one, begin, jnp.arange(horizon, dtype=jnp.int32))
    return Simulation(total, local, state, trace)
