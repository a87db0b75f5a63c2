"""The best block of plays: what to play in the next d rounds, exactly, by dynamic programming over the block's states.

An arm's first pull of a block may count for nothing (the plan then does not depend on the states in which the block
starts: "initial states ignored", ISI) or for what its known state pays. After it the block itself fixes the states.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit
from rlcore.types import Array, Float, Int

__all__ = ["Block", "block_optimum"]

# States times actions of one block that fit in a compiled program's constants.
MOST = 4_000_000


class Block(NamedTuple):
    """value: float[], what the plan counts over the block. arms: int32[d], the arm of each round, k for none."""

    value: Array
    arms: Array


def block_optimum(problem: SwitchingBandit, length: int, local: Int[Array, " k"] | None = None) -> Block:
    """The best sequence of d plays, one arm a round (or none, where the problem allows it), for any payoffs.

    Args: length: d, static; local: int32[k], states before the block, of which first pulls are paid; None: first pulls
      count 0, and a run that begins with the block counts as one after rest.
    Returns: Block; of equal plans the one of first arms. Raises: ValueError: a length below 1, the rule "decrement", a
      block of too many states.
    Source: the exact optimum of the block problem of Laforgue et al. (2022), arXiv 2110.11819 (released code: linear
      programmes and a greedy prefix, `guided_block`). Cost: states of the block times k, below (d + 1)^k d k.
    """
    if problem.idle_rule != "reset":
        raise ValueError(f"idle_rule: found {problem.idle_rule!r}, expected 'reset'")
    if length < 1:
        raise ValueError(f"length: found {length}, expected an integer of at least 1")
    k, low = problem.num_arms, problem.satiation
    levels = _levels(k, low, problem.num_local, length, problem.allow_idle)
    first, run = _first_pulls(problem, length, local)
    # Where the programs below look payoffs up: known states, first pulls, runs that began with the block, no play.
    nothing = jnp.zeros(1, problem.payoffs.dtype)
    payoff = jnp.concatenate([problem.payoffs.ravel(), first.ravel(), run.ravel(), nothing])
    value, choices = jnp.zeros(levels[-1].leaves, payoff.dtype), []
    for level in reversed(levels):
        worth = payoff[level.payoff] + value[level.following]
        choices.append(jnp.argmax(worth, axis=1).astype(jnp.int32))
        value = jnp.max(worth, axis=1)
    at, arms = jnp.zeros((), jnp.int32), []
    for level, choice in zip(levels, reversed(choices), strict=True):
        arms.append(choice[at])
        at = jnp.asarray(level.following)[at, arms[-1]]
    return Block(value[0], jnp.stack(arms))


def _first_pulls(
    problem: SwitchingBandit, length: int, local: Int[Array, " k"] | None
) -> tuple[Float[Array, "k d"], Float[Array, "k d"]]:
    """Payoffs at position t of an arm not yet pulled, and of one pulled in all rounds before."""
    low, top = problem.satiation, problem.num_local - 1
    t = jnp.arange(length, dtype=jnp.int32)[None, :]
    if local is None:
        run = jnp.broadcast_to(jnp.maximum(low - t, 0), (problem.num_arms, length))
        run = jnp.take_along_axis(problem.payoffs, run, axis=1)
        return jnp.zeros_like(run), run
    start = local[:, None]
    rests = jnp.where(start >= low, jnp.minimum(start + t, top), jnp.minimum(low + t - 1, top))
    rests = jnp.where(t == 0, start, rests)
    plays = jnp.where(t == 0, start, jnp.maximum(jnp.where(start >= low, low - t, start - t), 0))
    return jnp.take_along_axis(problem.payoffs, rests, axis=1), jnp.take_along_axis(problem.payoffs, plays, axis=1)


class _Level(NamedTuple):
    """Of every state before one round and every action: int32[n, A] where its payoff stands, int32[n, A] the state
    after it; `leaves` states after the round."""

    payoff: np.ndarray
    following: np.ndarray
    leaves: int


@functools.lru_cache(maxsize=32)
def _levels(k: int, low: int, num_local: int, length: int, allow_idle: bool) -> tuple[_Level, ...]:
    """The block's states, round by round, from no arm pulled; two more local states: not yet pulled, pulled always."""
    top, untouched, running = num_local - 1, num_local, num_local + 1
    base, actions, found = num_local + 2, k + allow_idle, 0
    if base**k >= 2**62:
        raise ValueError(
            f"payoffs: found {k} arms of {num_local} states, expected fewer (`relaxation` takes any number)"
        )
    powers = base ** np.arange(k, dtype=np.int64)
    states, levels = np.full((1, k), untouched), []
    for t in range(length):
        n = len(states)
        found += n * actions
        if found > MOST:
            raise ValueError(
                f"length: found {length}, whose block has more than {MOST} pairs of states and actions by round {t}, "
                "expected a shorter block or fewer arms (`relaxation` takes any number)"
            )
        known = np.arange(k)[None, :] * num_local + states
        position = np.arange(k)[None, :] * length + t
        payoff = np.where(states == untouched, k * num_local + position, known)
        payoff = np.where(states == running, k * num_local + k * length + position, payoff)
        rest = np.where(states >= low, np.minimum(states + 1, top), low)
        rest = np.where(states == untouched, untouched, np.where(states == running, low, rest))
        play = np.where(states >= low, low - 1, np.maximum(states - 1, 0))
        # With L = 1 every run pays alike after its first play: no need to know where it began.
        play = np.where(states == untouched, running if t == 0 and low > 1 else low - 1, play)
        play = np.where(states == running, running, play)
        after = np.repeat(rest[:, None, :], actions, axis=1)
        after[:, np.arange(k), np.arange(k)] = play
        if allow_idle:
            payoff = np.concatenate([payoff, np.full((n, 1), k * (num_local + 2 * length))], axis=1)
        codes, first, following = np.unique(after.reshape(-1, k) @ powers, return_index=True, return_inverse=True)
        states = after.reshape(-1, k)[first]
        levels.append(_Level(payoff.astype(np.int32), following.reshape(n, actions).astype(np.int32), len(codes)))
    return tuple(levels)
