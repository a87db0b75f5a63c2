"""Simulators: pure functions that start and continue one episode."""

from collections.abc import Callable
from typing import NamedTuple

from rlcore.pytree import pytree, static
from rlcore.types import Array, PyTree

__all__ = ["Environment", "Step"]


class Step(NamedTuple):
    """What one step brings.

    state: of the environment. observation: a pytree of vectors and images. reward: float[]. terminal: bool[], the
    return from here on is 0. truncated: bool[], the episode is cut by a time limit and would have gone on.
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
    """

    reset: Callable
    step: Callable
    num_actions: int = static()
