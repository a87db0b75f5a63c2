"""Howard's policy iteration where every action leads to one state: the largest mean reward of a cycle, exactly.

A policy is then a map of states into themselves; repeated squaring finds the cycle that every state falls into, its
mean reward and the rewards on the way, in log2(n) gathers. No linear system, no chance.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.types import Array, Float, Int

__all__ = ["CyclePlan", "best_cycles", "follow"]


class CyclePlan(NamedTuple):
    """A policy of a deterministic problem, its gain and relative values.

    action: int32[n]. gain: float[n], mean reward of the cycle that each state falls into. relative: float[n], with
    relative = reward - gain + relative[next] along the policy. low, high: float[], the least and largest
    max_a (reward + relative[next]) - relative: they enclose the optimal mean of every state. steps: int[].
    """

    action: Array
    gain: Array
    relative: Array
    low: Array
    high: Array
    steps: Array


def follow(
    following: Int[Array, " n"], reward: Float[Array, " n"], anchor: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """(gain float[n], relative float[n]) of one policy: state s pays reward[s] and leads to following[s].

    Args: anchor: float[n]; on every cycle, its state of least index has this relative value.
    Source: derived: after 2^J >= n steps every walk is on its cycle, and 2^J steps from there see all of it.
    Cost: 5 n log2(n) gathers.
    """
    return _follow(following, reward, anchor)[:2]


def _follow(following, reward, anchor):
    """(gain, relative, float[n] length of the cycle that each state falls into)."""
    n = following.shape[0]
    doublings = max(1, math.ceil(math.log2(n)))
    node = jnp.arange(n, dtype=jnp.int32)

    def squared(_, state):
        hop, least = state
        return hop[hop], jnp.minimum(least, least[hop])

    hop, least = jax.lax.fori_loop(0, doublings, squared, (following, node))
    root = least[hop]
    on_cycle = jnp.zeros(n, bool).at[hop].set(True)
    total = jnp.zeros_like(reward).at[root].add(jnp.where(on_cycle, reward, 0))
    length = jnp.zeros_like(reward).at[root].add(jnp.where(on_cycle, 1.0, 0.0).astype(reward.dtype))
    length = length[root]
    gain = total[root] / length
    stops = node == root

    def summed(_, state):
        hop, gathered = state
        return hop[hop], gathered + gathered[hop]

    start = (jnp.where(stops, node, following), jnp.where(stops, 0, reward - gain))
    _, gathered = jax.lax.fori_loop(0, doublings, summed, start)
    return gain, gathered + anchor[root], length


def best_cycles(
    following: Int[Array, "n A"], reward: Float[Array, "n A"], action: Int[Array, " n"], max_steps: int = 500
) -> CyclePlan:
    """The policy of largest mean reward from every state, by policy iteration.

    Args: following: int32[n, A], the next state; reward: float[n, A]; action: int32[n], the first policy;
      max_steps: static.
    Returns: CyclePlan; whether it is optimal its `low` and `high` say, not the count of steps. Source: Howard's
      multichain policy iteration for deterministic problems (Cochet-Terrasson et al. 1998, remembered): a state
      changes its action only for a better cycle, or for more on the way to one as good, and a cycle keeps the relative
      value of one of its states, so that nothing is won by renaming. Cost: per step n (A + 5 log2(n)) gathers.
    """
    eps, largest = jnp.finfo(reward.dtype).eps, jnp.max(jnp.abs(reward))
    take = lambda table, index: jnp.take_along_axis(table, index[:, None], axis=1)[:, 0]  # noqa: E731

    def evaluated(action, anchor):
        return _follow(take(following, action), take(reward, action), anchor)

    def improved(action, gain, relative, length):
        # A gain, the mean of L rewards, errs by L eps times the largest; two of them are compared.
        tiny = 2 * jnp.max(length) * eps * largest
        # Values err by what they fail the policy's own equation by; two of them are compared, sums of three numbers.
        failure = take(reward, action) - gain + take(relative[following], action) - relative
        room = 2 * jnp.max(jnp.abs(failure)) + 4 * eps * (2 * largest + jnp.max(jnp.abs(relative)))
        reached = gain[following]
        best = jnp.max(reached, axis=1)
        value = jnp.where(reached >= best[:, None] - tiny, reward + relative[following], -jnp.inf)
        better_cycle = best > gain + tiny
        better_way = ~better_cycle & (jnp.max(value, axis=1) > gain + relative + room)
        change = better_cycle | better_way
        return jnp.where(change, jnp.argmax(value, axis=1).astype(jnp.int32), action), jnp.any(change)

    def step(state):
        action, gain, relative, length, _, count = state
        action, changed = improved(action, gain, relative, length)
        return action, *evaluated(action, relative), changed, count + 1

    action = action.astype(jnp.int32)
    start = (action, *evaluated(action, jnp.zeros_like(reward[:, 0])), jnp.array(True), jnp.zeros((), jnp.int32))
    action, gain, relative, _, _, count = jax.lax.while_loop(lambda s: s[4] & (s[5] < max_steps), step, start)
    change = jnp.max(reward + relative[following], axis=1) - relative
    return CyclePlan(action, gain, relative, jnp.min(change), jnp.max(change), count)
