"""PPO: proximal policy optimisation by clipped ratios, for one problem and one seed; batch it with `vmap`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.environment import Environment, autoreset
from rlcore.nn.adam import adam_moments, adam_step
from rlcore.nn.perceptron import ActorCritic
from rlcore.nn.policy import draw, masked
from rlcore.nn.precision import at_precision
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, Number, PyTree

__all__ = ["PPO", "PPOState", "advantages"]


class PPOState(NamedTuple):
    """params, moments: of the network and of Adam. state, observation: of every environment, where it stands.

    count: int32[], iterations done.
    """

    params: PyTree
    moments: PyTree
    state: PyTree
    observation: PyTree
    count: Int[Array, ""]


class Rollout(NamedTuple):
    """What the environments went through, [steps, environments, ...]; after: the observation that a step led to."""

    observation: PyTree
    action: Array
    log_prob: Array
    reward: Array
    after: PyTree
    terminal: Array
    over: Array


def advantages(
    reward: Float[Array, "T *n"],
    value: Float[Array, "T *n"],
    next_value: Float[Array, "T *n"],
    terminal: Bool[Array, "T *n"],
    over: Bool[Array, "T *n"],
    discount: Number,
    trace: Number,
) -> Float[Array, "T *n"]:
    """Generalised advantage estimates of consecutive steps, which may belong to several episodes.

    Args:
      reward, value: of each step and its observation. next_value: of the observation that the step led to; the final
        one of an episode, not the first of the next. terminal: what follows is worth 0. over: the next step belongs to
        another episode. discount, trace: gamma and lambda.

    Returns: float[T, ...]: sum over l of (gamma lambda)^l times the one-step error, up to the episode's end.
    Source: Schulman et al. (2016), arXiv 1506.02438, equation 16, as recalled; cut episodes: derived, the value of the
      final observation stands for what was cut off.
    Cost: T steps.
    """
    error = reward + discount * jnp.where(terminal, jnp.zeros_like(next_value), next_value) - value

    def back(later, row):
        error, over = row
        now = error + discount * trace * jnp.where(over, jnp.zeros_like(later), later)
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(error[0]), (error, over), reverse=True)[1]


def shuffled(key: Key[Array, ""], size: int) -> Int[Array, "n"]:
    """0..size-1 in random order.

    Up to 4096 by one sort of numbers that hold a random part and, below it, their place: five times as fast as sorting
    pairs, as `jax.random.permutation` does. Equal random parts stay in order: of 1024 places any two have them with
    probability 2^-22, of 4096 with 2^-20.

    Args: size: static. Returns: int32[size]. Raises: ValueError for a size below 1. Source: derived: definition.
    Cost: one sort.
    """
    if size < 1:
        raise ValueError(f"size: found {size}, expected at least 1")
    if size > 4096:
        return jax.random.permutation(key, jnp.arange(size, dtype=jnp.int32))
    place = jnp.uint32((1 << (size - 1).bit_length()) - 1)
    noise = jax.random.bits(key, (size,), jnp.uint32) & ~place
    return (jnp.sort(noise | jnp.arange(size, dtype=jnp.uint32)) & place).astype(jnp.int32)


@pytree
class PPO:
    """A solver whose step plays `num_steps` steps in every environment and learns from them; numbers are traced.

    network: logits and value; its numbers are of its own precision. learning_rate and clip are constant; the value is
    not clipped. discount, trace: gamma and lambda. value_weight, entropy_weight: of the loss. max_norm: of the
    gradient. adam_epsilon: of Adam. num_envs, num_steps, epochs, batch: static; advantages are normalised in every
    minibatch.
    Source: Schulman et al. (2017), arXiv 1707.06347; settings: specification of SQIRL, 3.10 (released code; what the
      library adds is recalled).
    Cost: of an iteration: num_envs num_steps steps, and 3 epochs times as many passes through the network.
    """

    network: ActorCritic = static()
    learning_rate: Array | float = 2.5e-4
    clip: Array | float = 0.1
    discount: Array | float = 1.0
    trace: Array | float = 0.95
    value_weight: Array | float = 0.5
    entropy_weight: Array | float = 0.01
    max_norm: Array | float = 0.5
    adam_epsilon: Array | float = 1e-5
    num_envs: int = static(8)
    num_steps: int = static(128)
    epochs: int = static(4)
    batch: int = static(256)

    @property
    def steps_per_iteration(self) -> int:
        """Steps of the environment that one `step` takes."""
        return self.num_envs * self.num_steps

    def init(self, environment: Environment, key: Key[Array, ""]) -> PPOState:
        """New episodes and a new network.

        Raises: ValueError: a network of another number of actions; a batch of one or that does not divide the rollout.
        """
        if self.network.actions != environment.num_actions:
            expected = f"the environment's {environment.num_actions}"
            raise ValueError(f"network: found {self.network.actions} actions, expected {expected}")
        if self.batch < 2 or self.steps_per_iteration % self.batch:
            expected = f"a divisor of num_envs num_steps = {self.steps_per_iteration} that is at least 2"
            raise ValueError(f"batch: found {self.batch}, expected {expected}")
        net_key, start_key = jax.random.split(key)
        state, observation = jax.vmap(environment.reset)(jax.random.split(start_key, self.num_envs))
        params = self.network.init(net_key, jax.tree.map(lambda x: x[0], observation))
        return PPOState(params, adam_moments(params), state, observation, jnp.zeros((), jnp.int32))

    def logits(self, environment: Environment, params: PyTree, observation: PyTree) -> Float[Array, "A"]:
        """Logits of one observation, -1e9 for actions that are not available."""
        return masked(environment, observation, self.network.apply(params, observation)[0])

    def value(self, params: PyTree, observation: PyTree) -> Float[Array, ""]:
        """The predicted return of one observation."""
        return self.network.apply(params, observation)[1]

    def greedy(self, environment: Environment, params: PyTree, observation: PyTree) -> Int[Array, ""]:
        """The likeliest action of one observation, the lowest among ties."""
        return jnp.argmax(self.logits(environment, params, observation)).astype(jnp.int32)

    def step(self, environment: Environment, state: PPOState, key: Key[Array, ""]) -> PPOState:
        """One rollout of every environment, then `epochs` passes over it in minibatches."""
        self = at_precision(self.network.dtype, self)
        play_key, shuffle_key = jax.random.split(key)
        state, seen = self._play(environment, state, play_key)
        over_all = lambda observation: jax.vmap(jax.vmap(lambda o: self.value(state.params, o)))(observation)  # noqa: E731
        value = over_all(seen.observation)
        advantage = advantages(
            seen.reward, value, over_all(seen.after), seen.terminal, seen.over, self.discount, self.trace
        )
        data = (seen.observation, seen.action, seen.log_prob, advantage, value + advantage)
        data = jax.tree.map(lambda x: x.reshape(self.steps_per_iteration, *x.shape[2:]), data)
        rows = jax.vmap(lambda key: shuffled(key, self.steps_per_iteration))(jax.random.split(shuffle_key, self.epochs))
        rows = rows.reshape(-1, self.batch)

        def learn(carry, rows):
            params, moments = carry
            gradient = jax.grad(self.loss)(params, environment, *jax.tree.map(lambda x: x[rows], data))
            numbers = dict(learning_rate=self.learning_rate, epsilon=self.adam_epsilon, max_norm=self.max_norm)
            return adam_step(params, gradient, moments, **numbers), None

        (params, moments), _ = jax.lax.scan(learn, (state.params, state.moments), rows)
        return state._replace(params=params, moments=moments, count=state.count + 1)

    def loss(self, params, environment: Environment, observation, action, log_prob, advantage, target):
        """Clipped surrogate, squared error of the value and entropy of a minibatch [n, ...]: float[]."""

        def one(observation, action):
            logits, value = self.network.apply(params, observation)
            log_policy = jax.nn.log_softmax(masked(environment, observation, logits))
            return log_policy[action], value, -jnp.sum(jnp.exp(log_policy) * log_policy)

        now, value, entropy = jax.vmap(one)(observation, action)
        centred = advantage - jnp.mean(advantage)
        advantage = centred / (jnp.sqrt(jnp.sum(jnp.square(centred)) / (self.batch - 1)) + 1e-8)
        ratio = jnp.exp(now - log_prob)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - self.clip, 1 + self.clip) * advantage)
        value_loss = jnp.mean(jnp.square(value - target))
        return self.value_weight * value_loss - jnp.mean(gain) - self.entropy_weight * jnp.mean(entropy)

    def _play(self, environment: Environment, state: PPOState, key):
        """`num_steps` steps of every environment. All random numbers are made at once: small draws are slow."""
        dtype, shape = self.network.dtype, (self.num_steps, self.num_envs)
        act_key, step_key = jax.random.split(key)
        uniforms = jax.random.uniform(act_key, shape, dtype)

        def one(state, observation, uniform, key):
            log_policy = jax.nn.log_softmax(self.logits(environment, params, observation))
            action = draw(jnp.exp(log_policy), uniform)
            out, state, after = autoreset(environment, state, action, key)
            over = out.terminal | out.truncated
            reward = out.reward.astype(dtype)
            kept = Rollout(observation, action, log_policy[action], reward, out.observation, out.terminal, over)
            return (state, after), kept

        params = state.params
        every = lambda carry, row: jax.vmap(one)(*carry, *row)  # noqa: E731
        carry = (state.state, state.observation)
        carry, seen = jax.lax.scan(every, carry, (uniforms, jax.random.split(step_key, shape)))
        return state._replace(state=carry[0], observation=carry[1]), seen
