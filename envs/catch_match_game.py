"""Catch-match as a simulator: catch or miss each of a few balls, so that the score meets a target."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from envs.checks import check_integer
from rlcore.environment import Environment, Step
from rlcore.pytree import pytree, static
from rlcore.types import Number

__all__ = ["catch_match_game"]


@pytree
class _Size:
    balls: int = static()
    width: int = static()
    height: int = static()


def catch_match_game(balls: int = 4, width: int = 5, height: int = 5, stick: Number = 0.2) -> Environment:
    """Balls fall one at a time; the score is +1 for each that the paddle meets in the last row, -1 for each missed.

    Every ball appears in the first row, in a uniform column, and falls by one row a step. The paddle starts in the
    middle and moves by -1, 0 or +1 (actions 0, 1, 2), clamped, before the ball is judged; with probability `stick` it
    stays instead. The next ball appears at once and the paddle keeps its place; the last ball ends the episode.

    Args: balls >= 1, width >= 2, height >= 2: static. stick: float[] in [0, 1], may be traced.
    Returns: an `Environment`; its state is (row, column, paddle, balls left), int32[]; its observation float32
      [height + 2 width + 1]: row, column and paddle as one-hot vectors, and the share of balls that are left.
    Raises: TypeError, ValueError for numbers that are none or out of range. Source: this project's. Cost: O(1) a step.
    """
    bounds = {"balls": (balls, 1), "width": (width, 2), "height": (height, 2)}
    size = _Size(*(check_integer(name, value, least) for name, (value, least) in bounds.items()))
    if not isinstance(stick, jax.core.Tracer) and not 0 <= stick <= 1:
        raise ValueError(f"stick: found {stick}, expected a number in [0, 1]")
    return Environment(Partial(_reset, size), Partial(_step, size, jnp.asarray(stick, jnp.float32)), 3)


def _observe(size, state):
    row, column, paddle, left = state
    one_hot = lambda i, n: (i == jnp.arange(n, dtype=jnp.int32)).astype(jnp.float32)  # noqa: E731
    share = left.astype(jnp.float32)[None] / size.balls
    return jnp.concatenate([one_hot(row, size.height), one_hot(column, size.width), one_hot(paddle, size.width), share])


def _column(size, key):
    return jax.random.randint(key, (), 0, size.width, jnp.int32)


def _reset(size, key):
    zero = jnp.zeros((), jnp.int32)
    state = (zero, _column(size, key), zero + size.width // 2, zero + size.balls)
    return state, _observe(size, state)


def _step(size, stick, state, action, key):
    row, column, paddle, left = state
    stick_key, column_key = jax.random.split(key)
    stuck = jax.random.uniform(stick_key, (), jnp.float32) < stick
    paddle = jnp.clip(paddle + jnp.where(stuck, 0, action - 1), 0, size.width - 1)
    row = row + 1
    judged = row == size.height - 1
    score = jnp.where(judged, jnp.where(paddle == column, 1.0, -1.0), 0.0).astype(jnp.float32)
    left = jnp.where(judged, left - 1, left)
    state = (jnp.where(judged, 0, row), jnp.where(judged, _column(size, column_key), column), paddle, left)
    return Step(state, _observe(size, state), score, left == 0, jnp.zeros((), bool))
