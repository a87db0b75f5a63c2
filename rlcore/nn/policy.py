"""Choosing among available actions: masked scores and draws by the cumulated law."""

import jax.numpy as jnp

from rlcore.environment import Environment
from rlcore.types import Array, Bool, Float, Int, PyTree

__all__ = ["UNAVAILABLE", "available_actions", "draw", "masked"]

# The score of an action that is not available: its probability is exactly 0, and nothing becomes infinite.
UNAVAILABLE = -1e9


def available_actions(environment: Environment, observation: PyTree) -> Bool[Array, "A"]:
    """The actions of an observation. Cost: the environment's."""
    if environment.available is None:
        return jnp.ones(environment.num_actions, bool)
    return environment.available(observation)


def masked(environment: Environment, observation: PyTree, scores: Float[Array, "A"]) -> Float[Array, "A"]:
    """Scores of one observation, -1e9 where the action is not available. Cost: A."""
    if environment.available is None:
        return scores
    return jnp.where(environment.available(observation), scores, jnp.full_like(scores, UNAVAILABLE))


def draw(prob: Float[Array, "A"], uniform: Float[Array, ""]) -> Int[Array, ""]:
    """The action whose part of the cumulated law holds `uniform`; one of probability 0 is never drawn.

    Args: prob: need not sum to 1 exactly; uniform: in [0, 1). Returns: int32[]. Cost: A.
    """
    cumulated = jnp.cumsum(prob)
    return jnp.sum(uniform * cumulated[-1] >= cumulated, dtype=jnp.int32)
