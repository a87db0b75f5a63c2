"""Games of one or two steps with known values, each of which needs one part of an agent to be right."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from rlcore.environment import Environment, Step


def game(rules, start=1, num_actions=1, available=None):
    """A game whose state is an int: `rules(state, action) -> (next state, reward, terminal, truncated)`.

    start: the first state is uniform on 0, ..., start - 1. Observed are the state as a category and a number.
    """

    def observe(state):
        return state, jnp.zeros(1, jnp.float32)

    def reset(key):
        state = jax.random.randint(key, (), 0, start, jnp.int32)
        return state, observe(state)

    def step(state, action, key):
        after, reward, terminal, truncated = rules(state, action)
        after = jnp.asarray(after, jnp.int32)
        return Step(
            after,
            observe(after),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminal, bool),
            jnp.asarray(truncated, bool),
        )

    return Environment(Partial(reset), Partial(step), num_actions, available)


def seen(state):
    """What is observed in a state."""
    return jnp.int32(state), jnp.zeros(1, jnp.float32)


def constant():
    """Reward 1, then the end."""
    return game(lambda s, a: (0, 1.0, True, False))


def by_observation():
    """Reward -1 from state 0, +1 from state 1, then the end."""
    return game(lambda s, a: (0, 2 * s - 1, True, False), start=2)


def by_action():
    """Reward 1 for action 1 and -1 for action 0, then the end."""
    return game(lambda s, a: (0, 2 * a - 1, True, False), num_actions=2)


def two_steps():
    """State 0, then state 1; reward 1 at the end of state 1."""
    return game(lambda s, a: (s + 1, s == 1, s == 1, False))


def cut(truncated):
    """Reward 1 for ever, in state 0; every step is the last by a limit (`truncated`) or ends the game."""
    return game(lambda s, a: (0, 1.0, not truncated, truncated))


def masked_best():
    """Action 2 pays most and is never available; of the others action 1 is better."""
    available = Partial(lambda observation: jnp.array([True, True, False]))
    return game(lambda s, a: (0, a, True, False), num_actions=3, available=available)
