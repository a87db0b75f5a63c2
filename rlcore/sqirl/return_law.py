"""The law of the return-to-go of random exploration, where all rewards lie on a lattice."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.episodic import Episodic
from rlcore.mdp import StickyMDP, uniform_policy
from rlcore.types import Array, Float, require_float64

__all__ = ["ReturnLaw", "return_law"]


class ReturnLaw(NamedTuple):
    """Laws of the return-to-go.

    low, spacing: floats; atom l stands for the return low + l spacing.
    prob: float[T+1,S,L], by step and state (pair of a state and the action before, if sticky).
    action_prob: float[T,S,A,L], after choosing an action.
    """

    low: float
    spacing: float
    prob: Float[Array, "T1 S L"]
    action_prob: Float[Array, "T S A L"]


def _extremes(next_state, live, units, length):
    """Least and largest return-to-go in lattice units over all paths, step by step from the end, on the host."""
    low, high = np.zeros(next_state.shape[0], np.int64), np.zeros(next_state.shape[0], np.int64)
    least, largest = 0, 0
    for _ in range(length):
        low = np.min(units + np.where(live, low[next_state], 0), axis=(1, 2))
        high = np.max(units + np.where(live, high[next_state], 0), axis=(1, 2))
        least, largest = min(least, int(low.min())), max(largest, int(high.max()))
    return least, largest


@functools.partial(jax.jit, static_argnames=("low", "size"))
def _laws(episodic, units, policy, *, low, size):
    problem = episodic.problem
    base = problem.base if isinstance(problem, StickyMDP) else problem
    num_states, num_actions, num_outcomes = base.prob.shape
    atoms = jnp.arange(size, dtype=jnp.int32)
    now = (atoms == -low).astype(base.prob.dtype)  # a return-to-go of 0
    executed = jnp.arange(num_actions)[None]

    def shifted(law, units):
        """The law of X + units; nothing is ever shifted out, as the lattice holds every path."""
        source = atoms - units
        inside = (source >= 0) & (source < size)
        return jnp.where(inside, law[jnp.clip(source, 0, size - 1)], 0.0)

    def back(law, row):
        t, rule = row
        fresh = jnp.zeros((num_states, num_actions, size), law.dtype)
        for b in range(num_outcomes):
            target = base.next_state[..., b]
            if isinstance(problem, StickyMDP):
                onward = law.reshape(num_states, num_actions, size)[target, executed]
            else:
                onward = law[target]
            onward = jnp.where(base.terminal[..., b, None], now[None, None], onward)
            moved = jax.vmap(jax.vmap(shifted))(onward, units[..., b])
            fresh = fresh + base.prob[..., b, None] * moved
        if isinstance(problem, StickyMDP):
            here = problem.at_time(t)
            fresh = jax.vmap(here.lift, in_axes=2, out_axes=2)(fresh)
        law = jnp.einsum("sa,sal->sl", rule, fresh)
        live = t < episodic.length
        law = jnp.where(live, law, now[None])
        return law, (law, jnp.where(live, fresh, now[None, None]))

    start = jnp.broadcast_to(now, (problem.initial.shape[0], size))
    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    _, (law, after) = jax.lax.scan(back, start, (steps, policy), reverse=True)
    return jnp.concatenate([law, start[None]]), after


def return_law(
    episodic: Episodic,
    spacing: float,
    exploration: Float[Array, "S A"] | Float[Array, "T S A"] | None = None,
    *,
    max_atoms: int = 4096,
) -> ReturnLaw:
    """Exact laws of the return-to-go under the exploration policy, by dynamic programming on a lattice.

    Args:
      episodic: one undiscounted stationary problem whose rewards are whole multiples of `spacing`.
      spacing: > 0, in units of reward.
      exploration: probabilities; None for uniform over the available actions.
      max_atoms: refuse a longer lattice.

    Returns: `ReturnLaw`; the lattice holds the returns of all paths of available actions.
    Raises: ValueError for a reward off the lattice (by more than 1e-9 of the spacing), a discount other than 1, a
      kernel that changes with time, or a lattice of more than `max_atoms`; RuntimeError without float64.
    Source: derived, the forward convolution; the released code merges values at 1e-4 instead.
    Cost: T S A B L; memory T S A L.
    """
    require_float64("rlcore.sqirl.return_law")
    problem = episodic.problem
    base = problem.base if isinstance(problem, StickyMDP) else problem
    if base.prob.ndim != 3:
        raise ValueError("episodic: found a kernel that changes with time, expected a stationary one")
    if float(problem.discount) != 1:
        raise ValueError(f"discount: found {float(problem.discount)}, expected 1")
    if not spacing > 0:
        raise ValueError(f"spacing: found {spacing}, expected a positive number")
    happens = (np.asarray(base.prob) > 0) & np.asarray(base.available)[..., None]
    exact = np.where(happens, np.asarray(base.reward) / spacing, 0.0)
    units = np.round(exact)
    off = np.abs(exact - units) > 1e-9
    if off.any():
        where = tuple(int(i) for i in np.argwhere(off)[0])
        raise ValueError(
            f"spacing: found {spacing} and reward {exact[where] * spacing} at {where}, expected a multiple"
        )
    units = units.astype(np.int64)
    live = happens & ~np.asarray(base.terminal)
    least, largest = _extremes(np.asarray(base.next_state), live, units, int(episodic.length))
    size = largest - least + 1
    if size > max_atoms:
        raise ValueError(f"max_atoms: found a lattice of {size} atoms, expected at most {max_atoms}")
    policy = uniform_policy(problem) if exploration is None else exploration
    policy = jnp.broadcast_to(policy, (problem.horizon, *problem.available.shape))
    prob, action_prob = _laws(episodic, jnp.asarray(units, jnp.int32), policy, low=least, size=size)
    return ReturnLaw(least * spacing, spacing, prob, action_prob)
