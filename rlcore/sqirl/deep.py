"""SQIRL as it was run: one network with k heads, a replay shared by all steps, and simultaneous moving targets.

It departs from `rlcore.sqirl.sqirl` in all three: regressions are not sequential, targets move, and samples of all
times are pooled. Neither is the other.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rlcore.episodic import Episodic
from rlcore.mdp import StickyMDP, uniform_policy
from rlcore.pytree import pytree, static
from rlcore.sqirl.rollout import rollouts
from rlcore.types import Array, Float, Int, Key, Number, PyTree

__all__ = ["DeepLearned", "DeepSqirl", "HeadNetwork", "deep_sqirl"]

# Iterations without a random step after which the released code stops.
PATIENCE = 10


class HeadNetwork(nn.Module):
    """Values of k heads from a row and the time: embeddings added up, then ReLU layers; float32.

    states: S without stickiness; actions: A; heads: k; hidden: widths; sticky: whether rows hold the action before.
    """

    states: int
    actions: int
    heads: int
    hidden: tuple[int, ...]
    sticky: bool

    @nn.compact
    def __call__(self, row: Int[Array, ""], time: Float[Array, ""]) -> Float[Array, "k A"]:
        """Values of one row at `time` in [0, 1].

        Args: row: int32[]; time: float32[], t / length. Returns: float32[k, A].
        Source: derived: definition. Cost: one multiply-add per weight beyond the embeddings.
        """
        first = self.hidden[0]
        state = row // self.actions if self.sticky else row
        x = nn.Embed(self.states, first, name="state")(state) + nn.Dense(first, name="time")(time[None])
        if self.sticky:
            x = x + nn.Embed(self.actions, first, name="previous")(row % self.actions)
        x = jax.nn.relu(x)
        for width in self.hidden[1:]:
            x = jax.nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.heads * self.actions)(x).reshape(self.heads, self.actions)


@pytree
class DeepSqirl:
    """Settings, with the defaults of the released code.

    learning_rate: of Adam. max_norm: of the gradient. discount: of targets; the problem's own return is undiscounted.
    reward_scale: rewards are multiplied by it. decay: of the running mean of each head's loss.
    depth: k, heads. episodes: m per iteration. epochs, batch: passes over what was collected, and samples per update.
    capacity: steps kept in the replay. hidden: widths of the network. Static.
    """

    learning_rate: Number = 1e-4
    max_norm: Number = 10.0
    discount: Number = 1.0
    reward_scale: Number = 1.0
    decay: Number = 0.99
    depth: int = static(1)
    episodes: int = static(1)
    epochs: int = static(10)
    batch: int = static(128)
    capacity: int = static(1_000_000)
    hidden: tuple[int, ...] = static((64, 64))


class DeepLearned(NamedTuple):
    """What the deep version learned.

    policy: int32[T,S], greedy on the last head of step t's snapshot, of the last network where there is none.
    steps: int32[], environment steps taken. updates: int32[], of the network. iterations: int32[], snapshots made.
    losses: float32[k], running means of the heads' losses. params: the last network.
    """

    policy: Int[Array, "T S"]
    steps: Int[Array, ""]
    updates: Int[Array, ""]
    iterations: Int[Array, ""]
    losses: Float[Array, "k"]
    params: PyTree


class _Replay(NamedTuple):
    """Stored steps; `size` were ever added, the oldest are overwritten."""

    row: Array
    time: Array
    action: Array
    reward: Array
    next_row: Array
    over: Array
    togo: Array
    size: Array


def _store(replay: _Replay, data, length, from_step, discount):
    """Add the steps t >= from_step that were taken, with their discounted returns-to-go."""

    reward = data.reward.astype(jnp.float32)

    def back(t, carry):
        record, togo = carry
        t = length - 1 - t
        togo = reward[t] + discount * togo
        return record.at[t].set(togo), togo

    steps, lanes = reward.shape
    togo, _ = jax.lax.fori_loop(0, length, back, (jnp.zeros_like(reward), jnp.zeros(lanes, jnp.float32)))
    t = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[:, None], data.running.shape)
    kept = (data.running & (t >= from_step)).reshape(-1)
    capacity = replay.row.shape[0]
    # Where a step is not kept its place lies outside, and nothing is written.
    place = jnp.where(kept, (replay.size + jnp.cumsum(kept, dtype=jnp.int32) - 1) % capacity, capacity)
    columns = (data.state, t / length, data.action, reward, data.next_state, data.over, togo)
    new = [
        old.at[place].set(x.reshape(-1).astype(old.dtype), mode="drop")
        for old, x in zip(replay[:-1], columns, strict=True)
    ]
    return _Replay(*new, replay.size + jnp.sum(kept, dtype=jnp.int32))


def _losses(network, params, replay, index, available, length, settings):
    """Squared errors of the k heads, float32[k]: returns-to-go, then rewards and the best value of the head before."""
    row, time, action, reward, next_row, over, togo = (column[index] for column in replay[:-1])
    heads = jax.vmap(network.apply, (None, 0, 0))
    chosen = jnp.take_along_axis(heads(params, row, time), action[:, None, None], axis=2)[..., 0]
    target = (settings.reward_scale * togo)[:, None]
    if settings.depth > 1:
        onward = heads(params, next_row, time + 1 / length.astype(time.dtype))[:, :-1]
        onward = jnp.max(jnp.where(available[next_row][:, None], onward, -jnp.inf), axis=-1)
        fitted = settings.reward_scale * reward[:, None] + settings.discount * jnp.where(over[:, None], 0.0, onward)
        target = jnp.concatenate([target, fitted], axis=1)
    return jnp.mean((chosen - jax.lax.stop_gradient(target)) ** 2, axis=0)


@jax.jit
def deep_sqirl(episodic: Episodic, settings: DeepSqirl, key: Key[Array, ""]) -> DeepLearned:
    """SQIRL with a network, one instance and seed; `jax.vmap` over keys, settings' numbers and a padded stack.

    Iteration i collects m episodes that follow snapshots 0..i-1 before step i and explore from i on, keeps the steps
    t >= i with their returns-to-go, takes (steps of these episodes) epochs / batch updates, rounded up, on the whole
    replay, and makes snapshot i. The network is never reset. Head 1 learns returns-to-go, head j + 1 rewards plus the
    best value of head j of the current network; each head's loss is divided by a running mean of itself. The horizon
    ends episodes, and the network sees t / length.

    Args:
      episodic: one problem.
      settings: `DeepSqirl`.
      key: of everything.

    Returns: `DeepLearned`; stops after `length` iterations, or more than 10 in a row without a random step.
    Raises: ValueError for a depth, number of episodes, batch or capacity below 1.
    Source: released code of arXiv 2312.08369 with its defaults; its options (Huber, averaged weights, priorities,
      distributions, separate networks) are off there and absent here. Time in the observation: derived.
    Cost: T^2 m steps, and epochs T m / batch updates per iteration at most; T copies of the network.
    """
    for name in ("depth", "episodes", "epochs", "batch", "capacity"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}: found {getattr(settings, name)}, expected at least 1")
    numbers = ("learning_rate", "max_norm", "discount", "reward_scale", "decay")
    settings = dataclasses.replace(settings, **{n: jnp.asarray(getattr(settings, n), jnp.float32) for n in numbers})
    problem, horizon, length = episodic.problem, episodic.problem.horizon, episodic.length
    available = problem.available
    rows, actions = available.shape
    sticky = isinstance(problem, StickyMDP)
    network = HeadNetwork(rows // actions if sticky else rows, actions, settings.depth, settings.hidden, sticky)
    start, rest = jax.random.split(key)
    params = network.init(start, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))
    adam = optax.chain(optax.clip_by_global_norm(settings.max_norm), optax.adam(settings.learning_rate))
    explore = uniform_policy(problem)
    # At least what one iteration may store, so that one iteration cannot overwrite its own steps.
    capacity = max(settings.capacity, horizon * settings.episodes)
    kinds = (jnp.int32, jnp.float32, jnp.int32, jnp.float32, jnp.int32, bool, jnp.float32)
    replay = _Replay(*(jnp.zeros(capacity, kind) for kind in kinds), jnp.zeros((), jnp.int32))

    def greedy(params, t):
        """Actions of all rows at step t, by the last head."""
        time = (t / length).astype(jnp.float32)
        values = jax.vmap(lambda row: network.apply(params, row, time)[-1])(jnp.arange(rows, dtype=jnp.int32))
        return jnp.argmax(jnp.where(available, values, -jnp.inf), axis=-1).astype(jnp.int32)

    def update(replay, carry, key):
        params, moments, losses, count = carry
        index = jax.random.randint(key, (settings.batch,), 0, jnp.minimum(replay.size, capacity), jnp.int32)

        def objective(params):
            now = _losses(network, params, replay, index, available, length, settings)
            # The first batch sets the running mean.
            mean = jnp.where(count > 0, settings.decay * losses + (1 - settings.decay) * now, now)
            mean = jax.lax.stop_gradient(mean)
            return jnp.mean(now / jnp.maximum(mean, 1e-8)), mean

        slope, losses = jax.grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes its own types
            changes, moments = adam.update(slope, moments, params)
            params = optax.apply_updates(params, changes)
        return params, moments, losses.astype(jnp.float32), count + 1

    def iterate(carry):
        i, idle, policy, replay, learner, steps = carry
        rolls, draws = jax.random.split(jax.random.fold_in(rest, i))
        data = rollouts(episodic, policy, i, explore, rolls, episodes=settings.episodes)
        before = replay.size
        replay = _store(replay, data, length, i, settings.discount)
        # All steps taken count, also those before i that are not kept.
        taken = jnp.sum(data.running, dtype=jnp.int32)
        updates = jnp.where(replay.size > 0, -(-taken * settings.epochs // settings.batch), 0)
        learner = jax.lax.fori_loop(
            0, updates, lambda u, learner: update(replay, learner, jax.random.fold_in(draws, u)), learner
        )
        idle = jnp.where(replay.size > before, 0, idle + 1)
        return i + 1, idle, policy.at[i].set(greedy(learner[0], i)), replay, learner, steps + taken

    policy = jnp.zeros((horizon, rows), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    learner = (params, adam.init(params), jnp.zeros(settings.depth, jnp.float32), zero)
    i, _, policy, _, learner, steps = jax.lax.while_loop(
        lambda carry: (carry[0] < length) & (carry[1] <= PATIENCE), iterate, (zero, zero, policy, replay, learner, zero)
    )
    last = jax.lax.map(lambda t: greedy(learner[0], t), jnp.arange(horizon, dtype=jnp.int32))
    policy = jnp.where(jnp.arange(horizon, dtype=jnp.int32)[:, None] < i, policy, last)
    return DeepLearned(policy, steps, learner[3], i, learner[2], learner[0])
