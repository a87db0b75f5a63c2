"""Behaviour cloning: a policy network that imitates a tabular policy where that policy goes."""

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.nn.adam import adam_moments, adam_step
from rlcore.nn.perceptron import ActorCritic
from rlcore.nn.policy import UNAVAILABLE
from rlcore.nn.tabular import observations
from rlcore.types import Array, Float, Key, Number, PyTree

__all__ = ["behaviour_cloning"]


def behaviour_cloning(
    network: ActorCritic,
    episodic: Episodic,
    policy: Float[Array, "T S A"],
    occupancy: Float[Array, "T S A"],
    key: Key[Array, ""],
    *,
    updates: int = 500,
    learning_rate: Number = 1e-2,
    observation: str = "markov",
) -> PyTree:
    """Parameters whose policy is close to a given one, as infinitely many episodes of it would teach.

    Every update is a step of Adam on the whole cross-entropy, the sum over steps and rows of the occupancy times that
    of the two laws; the rate falls to 0 in a straight line. The value stays as it starts.

    Args:
      network: of the problem's number of actions and the observation's sizes.
      episodic: one problem; `jax.vmap` over padded problems, policies and keys.
      policy: probabilities by step and row, 0 for actions that are not available.
      occupancy: P(s_t = s, a_t = a, the episode still runs) under it: `rlcore.sqirl.exploration_occupancy`.
      key: of the start.
      updates: static. learning_rate: of the first one.
      observation: as in `tabular_environment`.

    Returns: the network's parameters.
    Raises: ValueError as the network and `tabular_environment`.
    Source: maximum likelihood; derived: definition.
    Cost: `updates` passes of T S observations forward and back.
    """
    dtype, problem = network.dtype, episodic.problem
    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    seen = jax.vmap(lambda t: observations(episodic, t, observation))(steps)
    weight = jnp.sum(occupancy, axis=-1, keepdims=True).astype(dtype) * policy.astype(dtype)
    weight = weight / jnp.sum(weight)

    def loss(params):
        logits, _ = jax.vmap(jax.vmap(lambda o: network.apply(params, o)))(seen)
        logits = jnp.where(problem.available[None], logits, jnp.full_like(logits, UNAVAILABLE))
        return -jnp.sum(jnp.where(weight > 0, weight * jax.nn.log_softmax(logits), jnp.zeros_like(logits)))

    def update(carry, left):
        params, moments = carry
        rate = jnp.asarray(learning_rate, dtype) * left
        numbers = dict(learning_rate=rate, epsilon=jnp.asarray(1e-8, dtype), max_norm=jnp.asarray(jnp.inf, dtype))
        return adam_step(params, jax.grad(loss)(params), moments, **numbers), None

    params = network.init(key, jax.tree.map(lambda x: x[0, 0], seen))
    left = jnp.linspace(1, 0, updates, endpoint=False, dtype=dtype)
    return jax.lax.scan(update, (params, adam_moments(params)), left)[0][0]
