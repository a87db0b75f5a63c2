"""gymnax environments with sticky actions as simulators of one episode, for agents that train inside one program."""

import functools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from envs.checks import check_integer
from envs.gymnax_adapter import gymnax_modes
from rlcore.environment import Environment, Step
from rlcore.types import Number

__all__ = ["gymnax_game"]


def gymnax_game(id: str, *, sticky: Number = 0.25, limit: int | None = None, limit_ends: bool = True) -> Environment:
    """A gymnax environment whose actions stick: with probability `sticky` the action executed before is repeated.

    What happens next depends on the action executed before and, where the limit ends the episode, on the time, so both
    are observed: the process is Markov. gymnax's functions run in 32 bits, whatever the precision of the caller.

    Args:
      id: of gymnax, with finitely many actions and an image or a vector as observation, such as "Breakout-MinAtar" or
        "CartPole-v1".
      sticky: float[] in [0, 1], may be traced; the first action of an episode is never replaced.
      limit: steps per episode, static; None keeps gymnax's.
      limit_ends: static; True: the limit is an end, and the share of the limit that has passed is observed; False: it
        truncates the episode.

    Returns: an `Environment`; its observation is (what gymnax shows, numbers float32[A or A + 1]): the action executed
      before as a one-hot vector (zeros at first) and the share of time. MinAtar's planes are bool, to save memory.
    Raises: ValueError, TypeError for an id gymnax does not have, infinitely many actions, numbers out of range.
    Source: sticky actions: Machado et al. (2018), arXiv 1709.06009, as recalled. Cost: one gymnax step.
    """
    if not isinstance(sticky, jax.core.Tracer) and not 0 <= sticky <= 1:
        raise ValueError(f"sticky: found {sticky}, expected a number in [0, 1]")
    if limit is not None:
        check_integer("limit", limit, 1)
    reset, step, num_actions = _functions(id, limit, bool(limit_ends))
    return Environment(Partial(reset), Partial(step, jnp.asarray(sticky, jnp.float32)), num_actions)


@functools.cache
def _functions(id, limit, limit_ends):
    """Reset and step; cached, so that two games alike are one program."""
    import gymnax

    if id not in gymnax.registered_envs:
        raise ValueError(f"id: found {id!r}, expected one of {', '.join(gymnax.registered_envs)}")
    with gymnax_modes():
        world, params = gymnax.make(id)
        if limit is not None:
            params = params.replace(max_steps_in_episode=limit)
        space = world.action_space(params)
        if not hasattr(space, "n"):
            raise TypeError(f"id: found {id} with actions {type(space).__name__}, expected a finite number")
        first = jax.eval_shape(lambda: world.reset_env(jax.random.key(0), params)[1])
        # Step decides the types: reset writes Python numbers into some fields.
        types = jax.eval_shape(lambda state: world.step_env(jax.random.key(0), state, 0, params)[1], first)
    num_actions, horizon = int(space.n), float(params.max_steps_in_episode)
    binary = id.endswith("MinAtar")

    def show(observation, state, before):
        numbers = (before == jnp.arange(num_actions, dtype=jnp.int32)).astype(jnp.float32)
        if limit_ends:
            numbers = jnp.append(numbers, jnp.asarray(state.time, jnp.float32) / horizon)
        return (observation > 0 if binary else observation.astype(jnp.float32)), numbers

    def reset(key):
        with gymnax_modes():
            observation, state = world.reset_env(key, params)
            state = jax.tree.map(lambda x, t: jnp.broadcast_to(jnp.asarray(x, t.dtype), t.shape), state, types)
            none = jnp.full((), -1, jnp.int32)
            return (state, none), show(observation, state, none)

    def step(sticky, state, action, key):
        with gymnax_modes():
            state, before = state
            stick_key, step_key = jax.random.split(key)
            stuck = (jax.random.uniform(stick_key, (), jnp.float32) < sticky) & (before >= 0)
            action = jnp.where(stuck, before, action).astype(jnp.int32)
            observation, state, reward, ended, _ = world.step_env(step_key, state, action, params)
            ended, cut = jnp.asarray(ended, bool), jnp.asarray(world.is_truncated(state, params), bool)
            terminal = ended | cut if limit_ends else ended
            seen = show(observation, state, action)
            return Step((state, action), seen, jnp.asarray(reward, jnp.float32), terminal, cut & ~terminal)

    return reset, step, num_actions
