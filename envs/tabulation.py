"""The table of any deterministic JAX environment: breadth-first search over its states."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from rlcore.mdp import MDP, tabular
from rlcore.types import PyTree

__all__ = ["Tabulation", "tabulate"]


class Tabulation(NamedTuple):
    """A table and what its rows stand for.

    mdp: deterministic, [S, A, B=1], starting in row 0, with the horizon.
    states: the environment's states, leaves [S, ...] in NumPy, in the order in which they were found.
    depth: int32[S], the first step at which each can be reached.
    """

    mdp: MDP
    states: PyTree
    depth: np.ndarray


def _packed(states: PyTree, count: int) -> list[bytes]:
    """Every state as bytes; -0.0 is 0.0."""
    columns = []
    for leaf in jax.tree.leaves(states):
        leaf = np.asarray(leaf)
        leaf = leaf + np.zeros((), leaf.dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf
        columns.append(np.ascontiguousarray(leaf.reshape(count, -1)).view(np.uint8).reshape(count, -1))
    return [row.tobytes() for row in np.concatenate(columns, axis=1)]


def tabulate(
    step: Callable,
    start: PyTree,
    num_actions: int,
    horizon: int,
    *,
    max_states: int = 100_000,
    chunk: int = 1024,
) -> Tabulation:
    """Find every state that can be reached within the horizon, and what each action does there.

    Args:
      step: `step(state, action) -> (state, reward, done)`, pure JAX and deterministic: freeze an environment's
        randomness with a fixed key, and keep counters of time out of the state.
      start: the first state, a pytree of arrays.
      num_actions: actions are 0 .. num_actions - 1.
      horizon: steps per episode, >= 1; states that are first reached at its end are no rows, as nobody acts there.
      max_states: refuse to go beyond this many rows.
      chunk: states stepped in one call.

    Returns: `Tabulation`.
    Raises: ValueError for more than `max_states` states, telling how many were found by which depth, or for what the
      table's constructor refuses.
    Source: the construction of BRIDGE (arXiv 2304.09853), without its merging: see `coarsest_bisimulation`.
    Cost: S A steps in chunks, and one hash of every state reached.
    """
    actions = np.arange(num_actions, dtype=np.int32)
    batched = jax.jit(jax.vmap(jax.vmap(step, (None, 0)), (0, None)))
    frontier = jax.tree.map(lambda x: np.asarray(x)[None], start)
    row_of = {_packed(frontier, 1)[0]: 0}
    layers, depth, tables = [frontier], [0], []
    for t in range(horizon):
        count = len(jax.tree.leaves(frontier)[0])
        first_row = sum(len(jax.tree.leaves(layer)[0]) for layer in layers[:-1])
        found = []
        for begin in range(0, count, chunk):
            # Clipped at the end rather than shortened: one shape, one compilation.
            index = np.minimum(np.arange(begin, begin + min(chunk, max(count, 1))), count - 1)
            out = jax.device_get(batched(jax.tree.map(lambda x, i=index: x[i], frontier), actions))
            found.append(jax.tree.map(lambda x, n=count - begin: x[:n], out))
        following, reward, done = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        flat = jax.tree.map(lambda x: x.reshape(count * num_actions, *x.shape[2:]), following)
        rows, new = np.zeros(count * num_actions, np.int64), []
        ends = np.asarray(done).reshape(-1).copy()
        for i, key in enumerate(_packed(flat, count * num_actions)):
            if key not in row_of and t + 1 == horizon:
                ends[i] = True
            if ends[i]:  # stays, as all endings do
                rows[i] = first_row + i // num_actions
                continue
            if key not in row_of:
                if len(row_of) >= max_states:
                    raise ValueError(
                        f"max_states: found {len(row_of)} states by depth {t + 1} of {horizon} and more to come, "
                        f"expected at most {max_states}"
                    )
                row_of[key] = len(row_of)
                new.append(i)
            rows[i] = row_of[key]
        tables.append((rows, np.asarray(reward, np.float64).reshape(-1), ends))
        if not new:
            break
        frontier = jax.tree.map(lambda x, new=new: x[new], flat)
        layers.append(frontier)
        depth += [t + 1] * len(new)
    next_state, reward, terminal = (
        np.concatenate(parts).reshape(len(row_of), num_actions, 1) for parts in zip(*tables, strict=True)
    )
    mdp = tabular(next_state, np.ones(reward.shape), reward, terminal=terminal, horizon=horizon)
    states = jax.tree.map(lambda *parts: np.concatenate(parts), *layers)
    return Tabulation(mdp, states, np.asarray(depth, np.int32))
