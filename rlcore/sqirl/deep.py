"""SQIRL as it was run: one network with k heads, a replay shared by all steps, and simultaneous moving targets.

It departs from `rlcore.sqirl.sqirl` in all three: regressions are not sequential, targets move, and samples of all
times are pooled. Neither is the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.environment import Environment
from rlcore.nn.adam import adam_moments, adam_step
from rlcore.nn.perceptron import Perceptron
from rlcore.nn.policy import available_actions, draw, masked
from rlcore.nn.precision import at_precision
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Int, Key, PyTree

__all__ = ["DeepLearned", "DeepSqirl", "deep_sqirl"]

# Iterations without a random step after which the released code stops.
PATIENCE = 10


class DeepLearned(NamedTuple):
    """What the deep version learned.

    snapshots: parameters [T, ...], those of step t made by iteration t. params: the last ones.
    iterations: int32[], snapshots made. steps: int32[], of the environment. updates: int32[], of the network.
    losses: float[k], running means of the heads' losses.
    """

    snapshots: PyTree
    params: PyTree
    iterations: Int[Array, ""]
    steps: Int[Array, ""]
    updates: Int[Array, ""]
    losses: Float[Array, "k"]


class _Kept(NamedTuple):
    """Stored steps [n, ...]; after: the observation that a step led to; togo: the discounted return from it on."""

    observation: PyTree
    action: Array
    reward: Array
    after: PyTree
    terminal: Array
    togo: Array


@pytree
class DeepSqirl:
    """Settings, with the defaults of the released code; numbers are traced.

    network: depth x A outputs, head after head; its numbers are of its own precision. learning_rate, adam_epsilon: of
    Adam. max_norm: of the gradient. discount: of targets. decay: of the running mean of each head's loss. depth: k,
    heads. episodes: m per iteration. epochs, batch: passes over what was collected, and samples per update. capacity:
    steps kept in the replay. Static from `depth` on.
    """

    network: Perceptron = static()
    learning_rate: Array | float = 1e-4
    adam_epsilon: Array | float = 1e-8
    max_norm: Array | float = 10.0
    discount: Array | float = 1.0
    decay: Array | float = 0.99
    depth: int = static(1)
    episodes: int = static(1)
    epochs: int = static(10)
    batch: int = static(128)
    capacity: int = static(1_000_000)

    def heads(self, environment: Environment, params: PyTree, observation: PyTree) -> Float[Array, "k A"]:
        """Values of all heads for one observation, -1e9 for actions that are not available."""
        values = self.network.apply(params, observation).reshape(self.depth, environment.num_actions)
        return jax.vmap(lambda q: masked(environment, observation, q))(values)

    def greedy(self, environment: Environment, params: PyTree, observation: PyTree) -> Int[Array, ""]:
        """The best action of the last head, the lowest among ties."""
        return jnp.argmax(self.heads(environment, params, observation)[-1]).astype(jnp.int32)

    def act(
        self, environment: Environment, learned: DeepLearned, t: Int[Array, ""], observation: PyTree
    ) -> Int[Array, ""]:
        """The action at step t: of its own snapshot, or of the last network where there is none yet."""
        at = lambda every, last: jnp.where(t < learned.iterations, every[t], last)  # noqa: E731
        return self.greedy(environment, jax.tree.map(at, learned.snapshots, learned.params), observation)

    def loss(self, params: PyTree, environment: Environment, seen: _Kept) -> Float[Array, "k"]:
        """Squared errors of the heads: of returns-to-go, then of rewards and the best value of the head before."""

        def one(step):
            values = self.heads(environment, params, step.observation)[:, step.action]
            onward = jnp.max(self.heads(environment, params, step.after)[:-1], axis=-1)
            onward = step.reward + self.discount * jnp.where(step.terminal, jnp.zeros_like(onward), onward)
            target = jnp.concatenate([step.togo[None], onward])
            return jnp.square(values - jax.lax.stop_gradient(target))

        return jnp.mean(jax.vmap(one)(seen), axis=0)


def _check(environment, settings):
    for name in ("depth", "episodes", "epochs", "batch", "capacity"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}: found {getattr(settings, name)}, expected at least 1")
    outputs = settings.depth * environment.num_actions
    if settings.network.outputs != outputs:
        expected = f"depth times the environment's actions, {outputs}"
        raise ValueError(f"network: found {settings.network.outputs} outputs, expected {expected}")


def _play(environment, settings, snapshots, explore_from, length, steps, key):
    """m episodes, [steps, m]: what is kept of every step, and whether it was taken."""
    dtype = settings.network.dtype
    start_key, act_key, step_key = jax.random.split(key, 3)
    lanes = settings.episodes
    state, observation = jax.vmap(environment.reset)(jax.random.split(start_key, lanes))
    uniforms = jax.random.uniform(act_key, (steps, lanes), dtype)

    def advance(carry, row):
        t, uniform, keys = row
        params = jax.tree.map(lambda x: x[t], snapshots)

        def one(state, observation, running, uniform, key):
            allowed = available_actions(environment, observation).astype(dtype)
            drawn = draw(allowed / jnp.sum(allowed), uniform)
            action = jnp.where(t < explore_from, settings.greedy(environment, params, observation), drawn)
            out = environment.step(state, action, key)
            zero = jnp.zeros((), dtype)
            kept = _Kept(observation, action, out.reward.astype(dtype), out.observation, out.terminal, zero)
            return (out.state, out.observation, running & ~(out.terminal | out.truncated)), (kept, running)

        carry = (*carry[:2], carry[2] & (t < length))
        return jax.vmap(one)(*carry, uniform, keys)

    rows = (jnp.arange(steps, dtype=jnp.int32), uniforms, jax.random.split(step_key, (steps, lanes)))
    carry = (state, observation, jnp.ones(lanes, bool))
    _, (kept, running) = jax.lax.scan(advance, carry, rows)

    def back(later, row):
        reward, running = row
        now = jnp.where(running, reward + settings.discount * later, jnp.zeros_like(later))
        return now, now

    _, togo = jax.lax.scan(back, jnp.zeros(lanes, dtype), (kept.reward, running), reverse=True)
    return kept._replace(togo=togo), running


def _store(replay, size, kept, keep):
    """Write the rows of `kept` [T, m, ...] where `keep` holds, over the oldest where the replay is full."""
    capacity = replay.action.shape[0]
    keep = keep.reshape(-1)
    place = (size + jnp.cumsum(keep, dtype=jnp.int32) - 1) % capacity
    # Where a step is not kept its place lies outside, and nothing is written.
    place = jnp.where(keep, place, capacity)
    flat = jax.tree.map(lambda x: x.reshape(place.shape[0], *x.shape[2:]), kept)
    replay = jax.tree.map(lambda old, new: old.at[place].set(new, mode="drop"), replay, flat)
    return replay, size + jnp.sum(keep, dtype=jnp.int32)


def deep_sqirl(
    environment: Environment,
    settings: DeepSqirl,
    key: Key[Array, ""],
    *,
    steps: int,
    length: Int[Array, ""] | int | None = None,
    iterations: Int[Array, ""] | int | None = None,
) -> DeepLearned:
    """SQIRL with a network, one problem and seed; `jax.vmap` over keys, settings' numbers and padded problems.

    Iteration i collects m episodes that follow snapshots 0..i-1 before step i and explore from i on, keeps the steps
    t >= i with their returns-to-go, takes (steps of these episodes) epochs / batch updates, rounded up, on the whole
    replay, and makes snapshot i. The network is never reset. Head 1 learns returns-to-go, head j + 1 rewards plus the
    best value of head j of the current network; each head's loss is divided by a running mean of itself.

    Args:
      environment: one simulator; what it observes decides what the network knows of time and the action before.
      settings: `DeepSqirl`.
      key: of everything.
      steps: of an episode at most, static.
      length: int32[], the true number of steps, at most `steps`; None for `steps`.
      iterations: int32[], to make at most; None for `length`.

    Returns: `DeepLearned`; stops after `iterations`, or after more than 10 in a row without a random step.
    Raises: ValueError for a depth, number of episodes, epochs, batch or capacity below 1, or a network of another size.
    Source: released code of arXiv 2312.08369 with its defaults; its options (Huber, averaged weights, priorities,
      distributions, separate networks) are off there and absent here.
    Cost: T^2 m steps, and epochs T m / batch updates per iteration at most; T copies of the network, and the replay.
    """
    _check(environment, settings)
    length = jnp.asarray(steps if length is None else length, jnp.int32)
    return _learn(environment, settings, key, length, length if iterations is None else iterations, steps)


@jax.jit(static_argnames="steps")
def _learn(environment, settings, key, length, iterations, steps):
    settings = at_precision(settings.network.dtype, settings)
    start_key, rest = jax.random.split(key)
    _, example = jax.eval_shape(environment.reset, rest)
    example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
    params = settings.network.init(start_key, example)
    zero, nothing = jnp.zeros((), jnp.int32), jnp.zeros((), settings.network.dtype)
    # At least what one iteration may store, so that it does not overwrite its own steps; at most all there will be.
    most = max(1, settings.episodes * steps * (steps + 1) // 2)
    capacity = min(most, max(settings.capacity, steps * settings.episodes))
    row = _Kept(example, zero, nothing, example, jnp.zeros((), bool), nothing)
    replay = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
    numbers = dict(learning_rate=settings.learning_rate, epsilon=settings.adam_epsilon, max_norm=settings.max_norm)

    def update(replay, size, carry, key):
        params, moments, losses, count = carry
        index = jax.random.randint(key, (settings.batch,), 0, jnp.minimum(size, capacity), jnp.int32)
        seen = jax.tree.map(lambda x: x[index], replay)

        def objective(params):
            now = settings.loss(params, environment, seen)
            # The first batch sets the running mean.
            mean = jnp.where(count > 0, settings.decay * losses + (1 - settings.decay) * now, now)
            mean = jax.lax.stop_gradient(mean)
            return jnp.mean(now / jnp.maximum(mean, 1e-8)), mean

        slope, losses = jax.grad(objective, has_aux=True)(params)
        params, moments = adam_step(params, slope, moments, **numbers)
        return params, moments, losses, count + 1

    def iterate(carry):
        i, idle, snapshots, (replay, size), learner, taken = carry
        play_key, draws = jax.random.split(jax.random.fold_in(rest, i))
        kept, running = _play(environment, settings, snapshots, i, length, steps, play_key)
        random = running & (jnp.arange(steps, dtype=jnp.int32) >= i)[:, None]
        replay, after = _store(replay, size, kept, random)
        # All steps taken count, also those before i that are not kept.
        now = jnp.sum(running, dtype=jnp.int32)
        updates = jnp.where(after > 0, (now * settings.epochs + settings.batch - 1) // settings.batch, 0)
        learner = jax.lax.fori_loop(
            0, updates, lambda u, x: update(replay, after, x, jax.random.fold_in(draws, u)), learner
        )
        idle = jnp.where(after > size, 0, idle + 1)
        snapshots = jax.tree.map(lambda all_, new: all_.at[i].set(new), snapshots, learner[0])
        return i + 1, idle, snapshots, (replay, after), learner, taken + now

    snapshots = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps, *x.shape)), params)
    losses = jnp.zeros(settings.depth, settings.network.dtype)
    carry = (zero, zero, snapshots, (replay, zero), (params, adam_moments(params), losses, zero), zero)
    last = jnp.minimum(jnp.asarray(iterations, jnp.int32), length)
    i, _, snapshots, _, learner, taken = jax.lax.while_loop(
        lambda carry: (carry[0] < last) & (carry[1] <= PATIENCE), iterate, carry
    )
    return DeepLearned(snapshots, learner[0], i, taken, learner[3], learner[2])
