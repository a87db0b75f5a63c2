"""Garnet: random MDPs of given size and branching, drawn inside JAX, so that a batch is one `vmap`."""

import functools

import jax
import jax.numpy as jnp

from envs.checks import check_flag, check_integer, check_number
from rlcore.mdp import MDP
from rlcore.types import Array, Int, Key, Number

__all__ = ["FAMILIES", "garnet"]


def _distinct_successors(key, num_states: int, shape: tuple[int, ...], branching: int) -> Array:
    """A uniform random subset of size `branching` for each entry of `shape`, by Floyd's algorithm: no S-sized rows."""
    last = jnp.arange(num_states - branching, num_states, dtype=jnp.int32)
    last_of = jnp.broadcast_to(last, (*shape, branching))
    candidates = jax.random.randint(key, last_of.shape, 0, last_of + 1, jnp.int32)

    def choose(chosen, slot):
        candidate = candidates[..., slot]
        # A repeated candidate is replaced by `last`, which no earlier slot could hold.
        repeated = jnp.any(chosen == candidate[..., None], axis=-1)
        return chosen.at[..., slot].set(jnp.where(repeated, last[slot], candidate)), None

    return jax.lax.scan(choose, jnp.full_like(candidates, -1), jnp.arange(branching))[0]


def _simplex(uniform: Array) -> Array:
    """Uniform numbers in [0, 1) as points uniform on the simplex, over the last axis: normalised exponentials."""
    # A uniform number is exactly 0 once in 2^23 in float32: a row of such would be 0 / 0.
    weight = jnp.maximum(-jnp.log1p(-uniform), jnp.finfo(uniform.dtype).tiny)
    return weight / jnp.sum(weight, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnames=("shape", "outcome_rewards"))
def _draw(key, termination, *, shape: tuple[int, int, int], outcome_rewards: bool):
    successor_key, number_key = jax.random.split(key)
    weight, reward, end = jax.random.uniform(number_key, (3, *shape), termination.dtype)
    return (
        _distinct_successors(successor_key, shape[0], shape[:2], shape[2]),
        _simplex(weight),
        reward if outcome_rewards else jnp.broadcast_to(reward[..., :1], shape),
        end < termination,
    )


def garnet(
    seed: int | Int[Array, ""] | Key[Array, ""],
    states: int,
    actions: int,
    branching: int,
    *,
    discount: Number = 0.95,
    horizon: int | None = None,
    termination: Number = 0.0,
    outcome_rewards: bool = False,
) -> MDP:
    """A random MDP: every pair has `branching` distinct successors with uniformly random probabilities.

    States: `states`, exchangeable. Actions: `actions`. Successors: a uniform subset of the states. Probabilities:
    uniform on the simplex. Rewards: uniform on [0, 1), one per pair (per outcome with `outcome_rewards`).
    Termination: each outcome ends the episode with probability `termination`, drawn once with the MDP.
    Start: state 0. Horizon: none by default.

    Args:
      seed: an integer or a `jax.random.key`; may be traced: a batch of 1000 is
        `jax.vmap(lambda seed: garnet(seed, 100, 5, 5))(jnp.arange(1000))`.
      states, actions: >= 1, static.
      branching: 1..states, static.
      discount: in [0, 1], may be traced.
      horizon: steps per episode or None, static.
      termination: in [0, 1], may be traced.
      outcome_rewards: whether the reward depends on the outcome, static.

    Returns: an MDP, [S=states, A=actions, B=branching], floats of JAX's default dtype.
    Raises: TypeError or ValueError for a parameter out of range (what is traced is not checked).
    Source: Archibald, McKinnon and Thomas 1995, with uniform rewards.
    Cost: O(states actions branching^2).
    """
    check_integer("states", states, 1)
    check_integer("actions", actions, 1)
    check_integer("branching", branching, 1, states)
    check_flag("outcome_rewards", outcome_rewards)
    if horizon is not None:
        check_integer("horizon", horizon, 1)
    for name, value in (("discount", discount), ("termination", termination)):
        if not isinstance(value, jax.core.Tracer):
            check_number(name, value.item() if isinstance(value, jax.Array) else value, 0.0, 1.0)
    if not isinstance(seed, jax.Array):
        seed = check_integer("seed", seed, 0)
    if not (isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)):
        seed = jax.random.key(seed)
    dtype = jnp.result_type(float)
    next_state, prob, reward, terminal = _draw(
        seed,
        jnp.asarray(termination, dtype),
        shape=(states, actions, branching),
        outcome_rewards=bool(outcome_rewards),
    )
    return MDP(
        next_state=next_state,
        prob=prob,
        reward=reward,
        terminal=terminal,
        available=jnp.ones((states, actions), bool),
        discount=jnp.asarray(discount, dtype),
        initial=jnp.zeros(states, dtype).at[0].set(1),
        horizon=horizon,
    )


FAMILIES = {"garnet": garnet}
