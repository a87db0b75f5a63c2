"""Simulators: pure functions that start and continue one episode, and start the next one when it is over."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.pytree import pytree, static
from rlcore.types import Array, Int, Key, PyTree

__all__ = ["Environment", "Step", "autoreset"]


class Step(NamedTuple):
    """What one step brings.

    state: of the environment. observation: a pytree of vectors, images and int32[] categories. reward: float[].
    terminal: bool[], the return from here on is 0. truncated: bool[], the episode is cut by a time limit and would have
    gone on.
    """

    state: PyTree
    observation: PyTree
    reward: Array
    terminal: Array
    truncated: Array


@pytree
class Environment:
    """A simulator of one episode at a time, without autoreset; batch it with `vmap`.

    reset: `key -> (state, observation)`; step: `(state, action int32[], key) -> Step`. Both are
      `jax.tree_util.Partial` objects: numbers bound to them are leaves. Types and shapes do not change with time.
    num_actions: static; actions are 0, ..., num_actions - 1.
    available: `observation -> bool[num_actions]`, a `Partial` too; None where every action is always available.
    """

    reset: Callable
    step: Callable
    num_actions: int = static()
    available: Callable | None = None


def autoreset(
    environment: Environment, state: PyTree, action: Int[Array, ""], key: Key[Array, ""]
) -> tuple[Step, PyTree, PyTree]:
    """One step; where it ends the episode or cuts it, the next episode has begun when this returns.

    Args: state, action: of the episode that runs; key: of the step and of a new start.
    Returns: (the step, with the final observation of an episode that is over; the state and the observation from which
      to go on). A truncated episode's value is that of `step.observation`, never that of the new start.
    Source: the same-step autoreset of gymnax 1.0, `Environment.step`, with its `final_observation`.
    Cost: one step and one reset.
    """
    step_key, reset_key = jax.random.split(key)
    out = environment.step(state, action, step_key)
    over = out.terminal | out.truncated
    fresh, going = environment.reset(reset_key), (out.state, out.observation)
    state, observation = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, going)
    return out, state, observation
