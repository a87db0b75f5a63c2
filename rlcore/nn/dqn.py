"""DQN: Q-learning from a replay ring with a target network, for one problem and one seed; batch it with `vmap`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.environment import Environment, autoreset
from rlcore.nn.adam import adam_moments, adam_step
from rlcore.nn.perceptron import Perceptron
from rlcore.nn.policy import available_actions, draw, masked
from rlcore.nn.precision import at_precision
from rlcore.nn.replay import Ring, empty_ring, push, sample
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Int, Key, Number, PyTree

__all__ = ["DQN", "DQNState", "huber"]


class Transition(NamedTuple):
    """One step as it is kept; after: the observation that it led to, the final one where the episode is over."""

    observation: PyTree
    action: Array
    reward: Array
    after: PyTree
    terminal: Array


class DQNState(NamedTuple):
    """params, target, moments: of the network, its copy, and Adam. ring: transitions, one a row.

    state, observation: where the environment stands. count: int32[], iterations done.
    """

    params: PyTree
    target: PyTree
    moments: PyTree
    ring: Ring
    state: PyTree
    observation: PyTree
    count: Int[Array, ""]


def huber(error: Float[Array, "*n"], delta: Number) -> Float[Array, "*n"]:
    """error^2 / 2 up to `delta`, from there on linear with slope `delta`. Cost: O(n)."""
    size = jnp.abs(error)
    return jnp.where(size <= delta, jnp.square(error) / 2, delta * (size - delta / 2))


@pytree
class DQN:
    """A solver whose step plays `train_every` steps in one environment and makes one update; numbers are traced.

    network: Q of every action. The share of random actions falls from epsilon_first to epsilon_last over the first
    exploration_fraction of total_steps, then stays. refresh: steps between copies to the target network. delta: of the
    Huber loss. discount, max_norm, adam_epsilon: of the return, the gradient, Adam. capacity: transitions kept;
    train_every, batch: static. Neither double nor dueling.
    Source: Mnih et al. (2015), as recalled; settings: specification of SQIRL, 3.10 (released code; what the library
      adds is recalled).
    Cost: of an iteration: train_every steps, and 4 batch passes through the network.
    """

    network: Perceptron = static()
    total_steps: Array | float
    exploration_fraction: Array | float = 1.0
    epsilon_first: Array | float = 1.0
    epsilon_last: Array | float = 0.01
    learning_rate: Array | float = 1e-4
    discount: Array | float = 1.0
    delta: Array | float = 1.0
    max_norm: Array | float = 10.0
    adam_epsilon: Array | float = 1e-8
    refresh: Array | int = 1000
    capacity: int = static(100_000)
    train_every: int = static(4)
    batch: int = static(32)

    @property
    def steps_per_iteration(self) -> int:
        """Steps of the environment that one `step` takes."""
        return self.train_every

    def epsilon(self, steps: Float[Array, ""]) -> Float[Array, ""]:
        """The share of random actions after so many steps."""
        total = jnp.asarray(self.total_steps).astype(steps.dtype)
        share = jnp.minimum(steps / (self.exploration_fraction * total), 1)
        return self.epsilon_first + (self.epsilon_last - self.epsilon_first) * share

    def init(self, environment: Environment, key: Key[Array, ""]) -> DQNState:
        """A new episode, an empty ring, and a network whose target is itself.

        Raises: ValueError: a network of another number of actions; no capacity.
        """
        if self.network.outputs != environment.num_actions:
            expected = f"the environment's {environment.num_actions}"
            raise ValueError(f"network: found {self.network.outputs} outputs, expected {expected}")
        net_key, start_key = jax.random.split(key)
        state, observation = environment.reset(start_key)
        params = self.network.init(net_key, observation)
        kept = Transition(
            observation, jnp.int32(0), jnp.zeros((), self.network.dtype), observation, jnp.zeros((), bool)
        )
        ring = empty_ring(jax.tree.map(lambda x: x[None], kept), self.capacity)
        return DQNState(params, params, adam_moments(params), ring, state, observation, jnp.zeros((), jnp.int32))

    def q(self, environment: Environment, params: PyTree, observation: PyTree) -> Float[Array, "A"]:
        """Q of one observation, -1e9 for actions that are not available."""
        return masked(environment, observation, self.network.apply(params, observation))

    def greedy(self, environment: Environment, params: PyTree, observation: PyTree) -> Int[Array, ""]:
        """The best action of one observation, the lowest among ties."""
        return jnp.argmax(self.q(environment, params, observation)).astype(jnp.int32)

    def step(self, environment: Environment, state: DQNState, key: Key[Array, ""]) -> DQNState:
        """`train_every` steps of the environment, then one update of the network."""
        self = at_precision(self.network.dtype, self)
        play_key, sample_key = jax.random.split(key)
        before = state.count * self.train_every
        state = self._play(environment, state, before, play_key)
        # The copy is made between the steps, hence before the update that follows them.
        copied = (before + self.train_every) // self.refresh > before // self.refresh
        target = jax.tree.map(lambda new, old: jnp.where(copied, new, old), state.params, state.target)
        seen = sample(sample_key, state.ring, self.batch)
        gradient = jax.grad(self.loss)(state.params, environment, target, seen)
        numbers = dict(learning_rate=self.learning_rate, epsilon=self.adam_epsilon, max_norm=self.max_norm)
        params, moments = adam_step(state.params, gradient, state.moments, **numbers)
        return state._replace(params=params, target=target, moments=moments, count=state.count + 1)

    def loss(self, params, environment: Environment, target, seen: Transition):
        """Mean Huber loss of the one-step errors of transitions [n, ...]: float[]."""

        def one(transition):
            follow = jnp.max(self.q(environment, target, transition.after))
            follow = jnp.where(transition.terminal, jnp.zeros_like(follow), follow)
            goal = transition.reward + self.discount * follow
            return huber(self.q(environment, params, transition.observation)[transition.action] - goal, self.delta)

        return jnp.mean(jax.vmap(one)(seen))

    def _play(self, environment: Environment, state: DQNState, before, key):
        # Rows are written inside this loop: written beside the read of a batch, XLA would copy the ring every time.
        dtype = self.network.dtype
        act_key, step_key = jax.random.split(key)
        uniforms = jax.random.uniform(act_key, (self.train_every,), dtype)

        def one(carry, row):
            (state, observation, ring), (number, uniform, key) = carry, row
            epsilon = self.epsilon((before + number).astype(dtype))
            allowed = available_actions(environment, observation).astype(dtype)
            best = self.greedy(environment, params, observation) == jnp.arange(allowed.shape[0], dtype=jnp.int32)
            action = draw((1 - epsilon) * best.astype(dtype) + epsilon * allowed / jnp.sum(allowed), uniform)
            out, state, after = autoreset(environment, state, action, key)
            kept = Transition(observation, action, out.reward.astype(dtype), out.observation, out.terminal)
            return (state, after, push(ring, jax.tree.map(lambda x: x[None], kept))), None

        params, numbers = state.params, jnp.arange(self.train_every, dtype=jnp.int32)
        rows = (numbers, uniforms, jax.random.split(step_key, self.train_every))
        (now, observation, ring), _ = jax.lax.scan(one, (state.state, state.observation, state.ring), rows)
        return state._replace(state=now, observation=observation, ring=ring)
