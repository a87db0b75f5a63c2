"""SQIRL with one table for all steps: the tabular analogue of the deep version, by sums that grow with the data."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic, reset, step, step_outcome
from rlcore.mdp import MDP, StickyMDP, greedy_policy, uniform_policy
from rlcore.sqirl.rollout import choose
from rlcore.types import Array, Float, Int, Key, Number

__all__ = ["PooledLearned", "pooled_sqirl"]


class PooledLearned(NamedTuple):
    """What pooled SQIRL learned.

    policy: int32[T,S], actions by step and row; from step `length` on the first available action.
    values: float[S,A], the fitted values of the last step.
    steps: int32[], environment steps taken.
    """

    policy: Int[Array, "T S"]
    values: Float[Array, "S A"]
    steps: Int[Array, ""]


class _Sums(NamedTuple):
    """All that the regressions ask of the data, as sums over stored steps.

    cells: float[S A, 3], of 1, reward and return-to-go. moves: float[S A, E, B], how often a pair was continued by
    outcome b of the chosen action or (E = 2, sticky) of the repeated one; stored flat. An outcome's next row is known.
    """

    cells: Float[Array, "SA 3"]
    moves: Float[Array, "SAEB"]


def _continuation(problem: MDP | StickyMDP, value, moves):
    """The sum over stored steps of a pair of the next row's value, float[S,A]."""
    if not isinstance(problem, StickyMDP):
        worth = jnp.where(problem.terminal, 0.0, value[problem.next_state])
        return jnp.sum(moves.reshape(worth.shape) * worth, axis=-1)
    base = problem.base
    states, actions, outcomes = base.prob.shape
    worth = value.reshape(states, actions)[base.next_state, jnp.arange(actions)[None, :, None]]
    worth = jnp.where(base.terminal, 0.0, worth)
    moves = moves.reshape(states, actions, actions, 2, outcomes)
    chosen = jnp.sum(moves[..., 0, :] * worth[:, None], axis=-1)
    repeated = jnp.sum(moves[..., 1, :] * worth[:, :, None], axis=-1)
    return (chosen + repeated).reshape(states * actions, actions)


def _refit(problem, sums: _Sums, depth, max_depth, default):
    """Q^1 from returns-to-go, then Q^j from rewards and the best value of Q^{j-1}, up to Q^depth."""
    shape = problem.available.shape
    count, reward, togo = sums.cells.T.reshape(3, *shape)
    seen, some = count > 0, jnp.where(count > 0, count, 1.0)
    q = jnp.where(seen, togo / some, default)

    def climb(j, q):
        best = jnp.max(jnp.where(problem.available, q, -jnp.inf), axis=-1)
        onward = reward + problem.discount * _continuation(problem, best, sums.moves)
        return jnp.where(j < depth, jnp.where(seen, onward / some, default), q)

    return jax.lax.fori_loop(jnp.int32(1), jnp.int32(max_depth), climb, q)


def pooled_sqirl(
    episodic: Episodic,
    key: Key[Array, ""],
    *,
    depth: Number,
    episodes: Number,
    max_depth: int,
    lanes: int = 64,
    default: Number = 0.0,
    exploration: Float[Array, "S A"] | None = None,
) -> PooledLearned:
    """SQIRL(k, m) whose k tables are means over the steps t >= i of all episodes so far, whatever their time.

    Every stored step was followed by exploration, so that old samples stay valid up to the change of time. Tables of
    means need sums alone: nothing is replayed.

    Args:
      episodic: one stationary problem; S rows are pairs of a state and the action before, if sticky.
      key: of everything.
      depth: k, at most `max_depth`; may be traced.
      episodes: m >= 1 per step; may be traced.
      max_depth: static.
      lanes: episodes simulated side by side, static.
      default: the value of a pair without samples.
      exploration: probabilities by row; None for uniform over available actions.

    Returns: `PooledLearned`; at most T^2 m steps.
    Raises: ValueError for `max_depth` or `lanes` below 1, a concrete depth outside 1..max_depth or number of episodes
      below 1, or a kernel that changes with time.
    Source: derived: the tabular analogue of the released deep version.
    Cost: T (T ceil(m / lanes) lanes steps + k S A B); memory S A B and T lanes.
    """
    base = episodic.problem.base if isinstance(episodic.problem, StickyMDP) else episodic.problem
    if max_depth < 1 or lanes < 1:
        raise ValueError(f"max_depth, lanes: found {max_depth}, {lanes}, expected at least 1")
    if not isinstance(depth, jax.core.Tracer) and not 1 <= depth <= max_depth:
        raise ValueError(f"depth: found {depth}, expected 1 to max_depth = {max_depth}")
    if not isinstance(episodes, jax.core.Tracer) and episodes < 1:
        raise ValueError(f"episodes: found {episodes}, expected at least 1")
    if base.prob.ndim != 3:
        raise ValueError("episodic: found a kernel that changes with time, expected a stationary one")
    return _learn(episodic, key, depth, episodes, max_depth, lanes, default, exploration)


@functools.partial(jax.jit, static_argnames=("max_depth", "lanes"))
def _learn(episodic, key, depth, episodes, max_depth, lanes, default, exploration):
    problem, horizon, length = episodic.problem, episodic.problem.horizon, episodic.length
    base = problem.base if isinstance(problem, StickyMDP) else problem
    shape, dtype = problem.available.shape, problem.discount.dtype
    outcomes = base.prob.shape[-1]
    ways = 2 if isinstance(problem, StickyMDP) else 1
    explore = uniform_policy(problem) if exploration is None else exploration
    depth, episodes = jnp.asarray(depth, jnp.int32), jnp.asarray(episodes, jnp.int32)

    def advance(policy, i, state, key):
        acts, goes = jax.random.split(key)
        row, action = choose(episodic, state, policy, i, explore, acts)
        after, reward, over = step(episodic, state, action, goes)
        executed, drawn = step_outcome(episodic, state, action, goes)
        running = state.t < length
        cell = row * shape[1] + action
        move = (cell * ways + (executed != action).astype(jnp.int32)) * outcomes + drawn
        return after, (cell, move, reward, running, running & ~over)

    def collect(policy, i, block, carry, keys):
        sums, steps = carry
        starts, moves = jax.random.split(jax.random.fold_in(keys, block))
        state = jax.vmap(reset, (None, 0))(episodic, jax.random.split(starts, lanes))
        idle = block * lanes + jnp.arange(lanes, dtype=jnp.int32) >= episodes
        state = state._replace(t=jnp.where(idle, length, state.t))

        def walk(t, carry):
            state, steps, record = carry
            each = jax.random.split(jax.random.fold_in(moves, t), lanes)
            state, now = jax.vmap(advance, (None, None, 0, 0))(policy, i, state, each)
            if record is not None:
                record = jax.tree.map(lambda rows, row: rows.at[t].set(row), record, now)
            return state, steps + jnp.sum(now[3], dtype=jnp.int32), record

        state, steps, _ = jax.lax.fori_loop(0, i, walk, (state, steps, None))
        kinds = (jnp.int32, jnp.int32, dtype, bool, bool)
        record = tuple(jnp.zeros((horizon, lanes), kind) for kind in kinds)
        state, steps, record = jax.lax.fori_loop(i, length, walk, (state, steps, record))

        def tally(back, carry):
            sums, togo = carry
            cell, move, reward, running, onward = (row[length - 1 - back] for row in record)
            togo = reward + problem.discount * togo
            weight = running.astype(dtype)
            added = jnp.stack([jnp.ones_like(togo), reward, togo], axis=-1) * weight[:, None]
            cells = sums.cells.at[cell].add(added)
            return _Sums(cells, sums.moves.at[move].add(onward.astype(dtype))), togo

        sums, _ = jax.lax.fori_loop(0, length - i, tally, (sums, jnp.zeros(lanes, dtype)))
        return sums, steps

    def decide(i, carry):
        policy, _, sums, steps = carry
        keys = jax.random.fold_in(key, i)
        blocks = (episodes + lanes - 1) // lanes
        sums, steps = jax.lax.fori_loop(
            0, blocks, lambda block, carry: collect(policy, i, block, carry, keys), (sums, steps)
        )
        q = _refit(problem, sums, depth, max_depth, default)
        return policy.at[i].set(greedy_policy(q, problem.available)), q, sums, steps

    q = jnp.zeros(shape, dtype)
    first = jnp.broadcast_to(greedy_policy(q, problem.available), (horizon, shape[0]))
    cells = shape[0] * shape[1]
    sums = _Sums(jnp.zeros((cells, 3), dtype), jnp.zeros(cells * ways * outcomes, dtype))
    policy, q, _, steps = jax.lax.fori_loop(0, length, decide, (first, q, sums, jnp.zeros((), jnp.int32)))
    return PooledLearned(policy, q, steps)
