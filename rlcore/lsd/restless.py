"""Restless arms with ordered states and random transitions, and when they are monotone.

Monotone arms, moved by one uniform number through their quantile functions, keep their order (`simulate_restless`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, transition_tables
from rlcore.pytree import pytree
from rlcore.types import Array, Bool

__all__ = ["RestlessBandit", "as_restless", "kernels_monotone", "restless_bandit"]

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


def _faults(play, idle, error: float) -> dict:
    """What keeps kernels from being monotone, bool[k, S - 1] and [k, S]; of NumPy arrays or of traced ones."""
    play, idle = play.cumsum(axis=-1), idle.cumsum(axis=-1)
    return {
        "`play` not stochastically monotone": (play[:, 1:] - play[:, :-1] > error).any(axis=-1),
        "`idle` not stochastically monotone": (idle[:, 1:] - idle[:, :-1] > error).any(axis=-1),
        "`idle` that does not dominate `play`": (idle - play > error).any(axis=-1),
    }


def _broken(play: np.ndarray, idle: np.ndarray, payoffs: np.ndarray, error: float) -> str | None:
    """What keeps the arms from being monotone, None if nothing does."""
    falls = {"a payoff that falls": np.diff(payoffs, axis=1) < 0}
    for what, found in (falls | _faults(play, idle, error)).items():
        if np.any(found):
            arm, e = (int(i) for i in np.argwhere(found)[0])
            return f"arm {arm} with {what} at state {e}"
    return None


def kernels_monotone(problem: RestlessBandit) -> Bool[Array, ""]:
    """bool[], whether both kernels of every arm are stochastically monotone and idling dominates playing, to rounding.

    Source: definition; premises (1) and (2) of docs/proofs/lsd.md#t15. Cost: k S^2.
    """
    faults = _faults(problem.play, problem.idle, _rounding(problem.play))
    return ~jnp.any(jnp.concatenate([x.ravel() for x in faults.values()]))


def as_restless(problem: SwitchingBandit) -> RestlessBandit:
    """The same arms with kernels written out, [k, S, S]; local states in increasing order. Cost: k S^2."""
    play, idle = transition_tables(problem)
    dtype = problem.payoffs.dtype
    spread = lambda table: jnp.broadcast_to(  # noqa: E731
        jax.nn.one_hot(table, problem.num_local, dtype=dtype)[None], (problem.num_arms, *[problem.num_local] * 2)
    )
    return RestlessBandit(spread(play), spread(idle), problem.payoffs)
