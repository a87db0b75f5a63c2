"""Garnet: random MDPs of given size and branching, drawn inside JAX, so that a batch is one `vmap`."""

import jax
import jax.numpy as jnp

from envs.checks import check_flag, check_integer, check_number
from rlcore.mdp import MDP
from rlcore.types import Array, Int, Key, Number

__all__ = ["FAMILIES", "garnet"]


def _distinct_successors(key, num_states: int, shape: tuple[int, ...], branching: int) -> Array:
    """A uniform random subset of size `branching` for each entry of `shape`, by Floyd's algorithm: no S-sized rows."""

    def draw(chosen, x):
        index, last, key = x
        candidate = jax.random.randint(key, shape, 0, last + 1, jnp.int32)
        # A repeated candidate is replaced by `last`, which no earlier draw could reach.
        repeated = jnp.any(chosen == candidate[..., None], axis=-1)
        return chosen.at[..., index].set(jnp.where(repeated, last, candidate)), None

    start = jnp.full((*shape, branching), -1, jnp.int32)
    slots = jnp.arange(branching, dtype=jnp.int32)
    xs = (slots, slots + (num_states - branching), jax.random.split(key, branching))
    return jax.lax.scan(draw, start, xs)[0]


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
        if not isinstance(value, jax.Array):
            check_number(name, value, 0.0, 1.0)
    if not isinstance(seed, jax.Array):
        seed = check_integer("seed", seed, 0)
    if not (isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)):
        seed = jax.random.key(seed)
    successor_key, prob_key, reward_key, end_key = jax.random.split(seed, 4)
    dtype = jnp.result_type(float)
    shape = (states, actions, branching)
    weight = jax.random.exponential(prob_key, shape, dtype)
    reward = jax.random.uniform(reward_key, shape if outcome_rewards else (states, actions, 1), dtype)
    return MDP(
        next_state=_distinct_successors(successor_key, states, (states, actions), branching),
        prob=weight / jnp.sum(weight, axis=-1, keepdims=True),
        reward=jnp.broadcast_to(reward, shape),
        terminal=jax.random.uniform(end_key, shape, dtype) < jnp.asarray(termination, dtype),
        available=jnp.ones((states, actions), bool),
        discount=jnp.asarray(discount, dtype),
        initial=jax.nn.one_hot(0, states, dtype=dtype),
        horizon=horizon,
    )


FAMILIES = {"garnet": garnet}
