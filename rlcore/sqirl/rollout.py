"""Episodes that follow a policy up to some step and explore from there on: the data of every SQIRL variant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import EpisodeState, Episodic, policy_state, reset, step
from rlcore.nn.policy import draw
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = ["Rollouts", "returns_to_go", "rollouts"]


class Rollouts(NamedTuple):
    """m episodes, step by step; rows are those of a policy (pairs of a state and the action before, if sticky).

    state, next_state: int32[T,m], rows. action: int32[T,m], as chosen. reward: float[T,m].
    running: bool[T,m], whether the step was taken. over: bool[T,m], whether it ended the episode.
    """

    state: Int[Array, "T m"]
    action: Int[Array, "T m"]
    reward: Float[Array, "T m"]
    next_state: Int[Array, "T m"]
    running: Bool[Array, "T m"]
    over: Bool[Array, "T m"]


def choose(
    episodic: Episodic,
    state: EpisodeState,
    policy: Int[Array, "T S"],
    explore_from: Int[Array, ""],
    exploration: Float[Array, "S A"],
    key: Key[Array, ""],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """(row, action) of an episode: the policy's before step `explore_from`, drawn from then on. Cost: A."""
    row = policy_state(episodic, state)
    drawn = draw(exploration[row], jax.random.uniform(key, (), exploration.dtype))
    return row, jnp.where(state.t < explore_from, policy[state.t, row], drawn)


def rollouts(
    episodic: Episodic,
    policy: Int[Array, "T S"],
    explore_from: Int[Array, ""],
    exploration: Float[Array, "S A"],
    key: Key[Array, ""],
    *,
    episodes: int,
) -> Rollouts:
    """Simulate episodes that follow `policy` before step `explore_from` and `exploration` from it on.

    Args:
      episodic: one problem.
      policy: actions by step and row.
      explore_from: int32[]; the length for the policy alone.
      exploration: probabilities by row.
      key: of all episodes.
      episodes: m, static.

    Returns: `Rollouts`.
    Source: derived: definition.
    Cost: `length` steps of m lanes; memory 22 bytes (float64) per T m.
    """
    steps = episodic.problem.horizon
    dtype = episodic.problem.discount.dtype
    starts, moves = jax.random.split(key)
    state = jax.vmap(reset, (None, 0))(episodic, jax.random.split(starts, episodes))
    empty = lambda kind: jnp.zeros((steps, episodes), kind)  # noqa: E731
    record = Rollouts(*map(empty, (jnp.int32, jnp.int32, dtype, jnp.int32, bool, bool)))

    def one(state, key):
        acts, goes = jax.random.split(key)
        row, action = choose(episodic, state, policy, explore_from, exploration, acts)
        after, reward, over = step(episodic, state, action, goes)
        running = state.t < episodic.length
        return after, Rollouts(row, action, reward, policy_state(episodic, after), running, over)

    def advance(t, carry):
        state, record = carry
        state, now = jax.vmap(one)(state, jax.random.split(jax.random.fold_in(moves, t), episodes))
        return state, jax.tree.map(lambda all_steps, here: all_steps.at[t].set(here), record, now)

    return jax.lax.fori_loop(0, episodic.length, advance, (state, record))[1]


def returns_to_go(data: Rollouts, t: Int[Array, ""], discount: Float[Array, ""]) -> Float[Array, "m"]:
    """The sum of rewards from step t on, discounted to t, per episode. Cost: T m."""
    ahead = jnp.arange(data.reward.shape[0], dtype=jnp.int32) - t
    weight = jnp.where(ahead >= 0, discount ** jnp.maximum(ahead, 0).astype(discount.dtype), 0.0)
    return weight @ data.reward
