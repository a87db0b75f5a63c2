"""Restless arms with ordered states and random transitions, and virtual chains that share their randomness.

Where both kernels of an arm are stochastically monotone and idling dominates playing, a real and a virtual arm moved
by one uniform number through their quantile functions keep their order: the guarantee of the Markov schedule carries
over. With independent transitions it does not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.markov import MarkovSchedule, MarkovState, inverse_cdf, uniform
from rlcore.lsd.problem import SwitchingBandit, transition_tables
from rlcore.lsd.simulate import Round, Simulation
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Int, Key, PyTree

__all__ = ["COUPLINGS", "RestlessBandit", "as_restless", "restless_bandit", "restless_class", "simulate_restless"]

COUPLINGS = ("mirrored", "observed", "independent")
CLASSES = ("monotone", "arbitrary")
# Sums of S probabilities err by this many times S rounding units of their type.
ROUNDINGS = 4


@pytree
class RestlessBandit:
    """k arms with S ordered states each; build it with `restless_bandit`.

    play, idle: float[k, S, S], law of the next state (last axis) after a round with and without a play. payoffs:
    float[k, S], mean reward of a play in [0, 1], by the state before the transition.
    """

    play: Array
    idle: Array
    payoffs: Array

    @property
    def num_arms(self) -> int:
        """k."""
        return self.payoffs.shape[-2]

    @property
    def num_local(self) -> int:
        """S."""
        return self.payoffs.shape[-1]


def restless_bandit(play, idle, payoffs, *, payoff_class: str = "arbitrary") -> RestlessBandit:
    """Check a restless bandit on the host and build it.

    Args: play, idle: [k, S, S], rows of probabilities; payoffs: [k, S] in [0, 1]; payoff_class: what the caller claims,
      "monotone" (payoffs never fall, both kernels stochastically monotone, idling dominates playing) or "arbitrary".
    Returns: RestlessBandit. Raises: ValueError: shapes that do not fit, rows that are no probabilities, payoffs off
      [0, 1], a class that the arms are not of; the message names the arm.
    Source: definition. Cost: k S^2.
    """
    laws = {"play": np.asarray(play, float), "idle": np.asarray(idle, float)}
    pays = np.asarray(payoffs, float)
    if pays.ndim != 2 or 0 in pays.shape:
        raise ValueError(f"payoffs: found shape {pays.shape}, expected [k, S] with k, S >= 1")
    expected = (*pays.shape, pays.shape[1])
    slack = {name: max(1e-9, _rounding(x)) for name, x in (("play", play), ("idle", idle))}
    for name, x in laws.items():
        if x.shape != expected:
            raise ValueError(f"{name}: found shape {x.shape}, expected {expected}")
        off = ~(x >= 0) | ~(np.abs(x.sum(-1, keepdims=True) - 1) <= slack[name])
        if np.any(off):
            arm, e, _ = (int(i) for i in np.argwhere(off)[0])
            raise ValueError(f"{name}: found row {x[arm, e]} of arm {arm}, state {e}, expected probabilities of sum 1")
    if not np.all((pays >= 0) & (pays <= 1)):
        at = tuple(int(i) for i in np.argwhere(~((pays >= 0) & (pays <= 1)))[0])
        raise ValueError(f"payoffs: found {pays[at]} at {at}, expected payoffs in [0, 1]")
    if payoff_class not in CLASSES:
        raise ValueError(f"payoff_class: found {payoff_class!r}, expected one of {CLASSES}")
    # Under a trace `jnp.asarray` would hide the numbers: checked before.
    broken = _broken(laws["play"], laws["idle"], pays, _rounding(play)) if payoff_class == "monotone" else None
    if broken:
        raise ValueError(f"payoff_class: found {broken}, expected 'monotone' arms")
    return RestlessBandit(*(jnp.asarray(x) for x in (laws["play"], laws["idle"], pays)))


def _rounding(law) -> float:
    """Error of a distribution function, from the type of its probabilities."""
    dtype = getattr(law, "dtype", np.dtype(float))
    eps = jnp.finfo(dtype).eps if jnp.issubdtype(dtype, jnp.floating) else 0
    return ROUNDINGS * np.shape(law)[-1] * float(eps)


def _broken(play: np.ndarray, idle: np.ndarray, payoffs: np.ndarray, error: float) -> str | None:
    """What keeps the arms from being monotone, None if nothing does."""
    play, idle = np.cumsum(play, axis=-1), np.cumsum(idle, axis=-1)
    tests = (
        ("a payoff that falls", np.diff(payoffs, axis=1) < 0),
        ("`play` not stochastically monotone", np.any(np.diff(play, axis=1) > error, axis=-1)),
        ("`idle` not stochastically monotone", np.any(np.diff(idle, axis=1) > error, axis=-1)),
        ("`idle` that does not dominate `play`", np.any(idle - play > error, axis=-1)),
    )
    for what, found in tests:
        if np.any(found):
            arm, e = (int(i) for i in np.argwhere(found)[0])
            return f"arm {arm} with {what} at state {e}"
    return None


def restless_class(problem: RestlessBandit) -> str:
    """The strongest class of the arms: "monotone" or "arbitrary". Reads them on the host."""
    arrays = (np.asarray(x, float) for x in (problem.play, problem.idle, problem.payoffs))
    return "arbitrary" if _broken(*arrays, _rounding(problem.play)) else "monotone"


def as_restless(problem: SwitchingBandit) -> RestlessBandit:
    """The same arms with kernels written out, [k, S, S]; local states in increasing order. Cost: k S^2."""
    play, idle = transition_tables(problem)
    dtype = problem.payoffs.dtype
    spread = lambda table: jnp.broadcast_to(  # noqa: E731
        jax.nn.one_hot(table, problem.num_local, dtype=dtype)[None], (problem.num_arms, *[problem.num_local] * 2)
    )
    return RestlessBandit(spread(play), spread(idle), problem.payoffs)


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
    Returns: Simulation; its `state` is the last round's MarkovState. Raises: ValueError: a horizon below 1 or an
      unknown coupling.
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
    local = jnp.full(k, size - 1, jnp.int32) if start is None else jnp.asarray(start, jnp.int32)
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
