"""D-eta-N: deep Q-learning of the return's quantiles, for states augmented by the stock.

The network sees an observation and the stock and predicts, for every action, quantiles of the return that is still to
come; actions are compared by the mean utility of stock plus quantiles. One network serves all starting stocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcore.distributional.functionals import check_level
from rlcore.distributional.quantile_loss import quantile_huber_loss
from rlcore.distributional.utility import Utility
from rlcore.environment import Environment
from rlcore.nn.precision import at_precision
from rlcore.nn.quantile import QuantileNetwork
from rlcore.nn.replay import Ring, empty_ring, push, sample
from rlcore.pytree import pytree, static
from rlcore.solver import iterate
from rlcore.types import Array, Float, Int, Key, Number, PyTree, RandomKey

__all__ = ["DEtaN", "DEtaNState", "Task", "Totals", "cvar_start", "play", "train"]

# Scores this close, relative to 1 + |best|, are tied: rounding of a float32 mean of some hundred utilities.
TIED = 1e-5


@pytree
class Task:
    """What is learnt: to maximise E f(c_0 + G) for every starting stock c_0 of a list.

    environment: an `Environment`. utility: f. starts: float[K], starting stocks, drawn uniformly in training.
    """

    environment: Environment
    utility: Utility
    starts: Array


class Transition(NamedTuple):
    """One step as it is kept; the stock after it follows from stock and reward."""

    observation: PyTree
    stock: Array
    action: Array
    reward: Array
    after: PyTree
    terminal: Array


class Totals(NamedTuple):
    """Sums since the start of training; the mean over a stretch is a difference over a difference.

    loss: float[], of all updates. utility: float[], f(c_0 + G) of all episodes that ended, explored actions included.
    episodes: float[], how many ended.
    """

    loss: Array
    utility: Array
    episodes: Array


class Running(NamedTuple):
    """The episodes that are being played, [num_envs, ...]; start: c_0; gain: return so far; weight: discount^t."""

    state: PyTree
    observation: PyTree
    stock: Array
    start: Array
    gain: Array
    weight: Array


class DEtaNState(NamedTuple):
    """params, target: of the network and of its older copy. moments: of Adam. count: int32[], iterations done."""

    params: PyTree
    target: PyTree
    moments: PyTree
    ring: Ring
    running: Running
    totals: Totals
    count: Array


@pytree
class DEtaN:
    """The agent and how it is trained, a `Solver` for a `Task`: an iteration is one step of every environment and one
    update. Everything is float32, or the network's `dtype`.

    network: static, with as many actions as the environment.
    discount: float[] in (0, 1]. window: float[] > 0, the network sees clip(stock / window, -1, 1), in units of reward;
      scores use the stock itself. kappa: float[] >= 0, of the loss. learning_rate: float[], of Adam, constant and, over
      the second half, linear to 0.
    epsilon_first, epsilon_last, epsilon_share: float[], the share of random actions falls linearly from the first to
      the last over that share of the iterations.
    num_steps: iterations; num_envs: environments; capacity: transitions kept, a multiple of num_envs; batch:
      transitions per update; refresh: iterations between copies to the target: an episode of H steps needs more than
      H copies until its first state has heard of its end. All static.
    polyak: float[] or None: the target moves by this share towards the network at every update instead.
    average_ties: the target law is the mean of the quantiles of all actions tied for the best score; static.
    relabel: sampled transitions get stocks uniform in [-window, window], the same transition being true for every
      stock; static.
    frozen: bool[], the stock stays at c_0, an ablation. sees_stock: False hides it from the network alone; static.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for the method, as recalled; settings are this project's.
    Cost: an iteration is num_envs + 4 batch forward passes, and batch N^2 operations of the loss.
    """

    network: QuantileNetwork = static()
    discount: Array | float = 1.0
    window: Array | float = 1.0
    kappa: Array | float = 0.1
    learning_rate: Array | float = 5e-4
    epsilon_first: Array | float = 1.0
    epsilon_last: Array | float = 0.05
    epsilon_share: Array | float = 0.4
    polyak: Array | float | None = None
    num_steps: int = static(6000)
    num_envs: int = static(64)
    capacity: int = static(65_536)
    batch: int = static(256)
    refresh: int = static(250)
    average_ties: bool = static(False)
    relabel: bool = static(False)
    frozen: Array | bool = False
    sees_stock: bool = static(True)

    def quantiles(self, params: PyTree, observation: PyTree, stock: Number) -> Float[Array, "A N"]:
        """Predicted quantiles of the return from here on, stock excluded, of every action."""
        seen = jnp.clip(jnp.asarray(stock, self.network.dtype) / self.window, -1, 1)
        return self.network.apply(params, observation, seen[None] if self.sees_stock else seen[None][:0])

    def scores(self, utility: Utility, params: PyTree, observation: PyTree, stock: Number) -> Float[Array, "A"]:
        """Predicted E f(stock + G) of every action."""
        return jnp.mean(utility(stock + self.quantiles(params, observation, stock)), axis=1)

    def next_stock(self, stock: Number, reward: Number) -> Float[Array, ""]:
        """(stock + reward) / discount, or the stock itself where it is frozen."""
        return jnp.where(self.frozen, stock, (stock + reward) / self.discount)

    def rates(self, count: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Learning rate and share of random actions of an iteration."""
        done = count.astype(self.network.dtype) / self.num_steps
        explored = jnp.minimum(done / self.epsilon_share, 1)
        epsilon = self.epsilon_first + (self.epsilon_last - self.epsilon_first) * explored
        return self.learning_rate * jnp.minimum(1, 2 * (1 - done)), epsilon

    def init(self, problem: Task, key: RandomKey) -> DEtaNState:
        """New episodes, an empty ring, and a network whose target is itself.

        Raises: ValueError: a network of another number of actions; a capacity that is no multiple of num_envs.
        """
        actions = problem.environment.num_actions
        if self.network.actions != actions:
            raise ValueError(f"network: found {self.network.actions} actions, expected the environment's {actions}")
        if self.capacity < self.num_envs or self.capacity % self.num_envs:
            raise ValueError(f"capacity: found {self.capacity}, expected a multiple of num_envs = {self.num_envs}")
        self, problem = at_precision(self.network.dtype, (self, problem))
        key, start_key = jax.random.split(key)
        running = jax.vmap(lambda key: _start(problem, key))(jax.random.split(start_key, self.num_envs))
        first = jax.tree.map(lambda x: x[0], running.observation)
        params = self.network.init(key, first, jnp.zeros(int(self.sees_stock), self.network.dtype))
        action, terminal = jnp.zeros(self.num_envs, jnp.int32), jnp.zeros(self.num_envs, bool)
        row = Transition(running.observation, running.stock, action, running.stock, running.observation, terminal)
        zero = jnp.zeros((), self.network.dtype)
        ring = empty_ring(row, self.capacity // self.num_envs)
        return DEtaNState(
            params, params, _ADAM.init(params), ring, running, Totals(zero, zero, zero), jnp.zeros((), jnp.int32)
        )

    def step(self, problem: Task, state: DEtaNState, key: RandomKey) -> DEtaNState:
        """One step of every environment, then one update of the network."""
        self, problem = at_precision(self.network.dtype, (self, problem))
        act_key, sample_key, stock_key = jax.random.split(key, 3)
        rate, epsilon = self.rates(state.count)
        advance = lambda running, key: self._advance(problem, state.params, epsilon, running, key)  # noqa: E731
        running, row, ended, utility = jax.vmap(advance)(state.running, jax.random.split(act_key, self.num_envs))
        ring = push(state.ring, row)
        seen = sample(sample_key, ring, self.batch)
        if self.relabel:
            stock = jax.random.uniform(stock_key, seen.stock.shape, seen.stock.dtype, -1, 1) * self.window
            seen = seen._replace(stock=stock)
        goals = jax.vmap(lambda one: self.target_quantiles(problem.utility, state.target, one))(seen)

        def mean_loss(params):
            one = lambda t, goal: quantile_huber_loss(  # noqa: E731
                self.quantiles(params, t.observation, t.stock)[t.action], goal, self.kappa
            )
            return jnp.mean(jax.vmap(one)(seen, goals))

        loss, gradient = jax.value_and_grad(mean_loss)(state.params)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes its own types
            direction, moments = _ADAM.update(gradient, state.moments)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        count = state.count + 1
        if self.polyak is None:
            target = jax.lax.cond(count % self.refresh == 0, lambda: params, lambda: state.target)
        else:
            target = jax.tree.map(lambda old, new: old + self.polyak * (new - old), state.target, params)
        ends = ended.astype(loss.dtype)
        new = Totals(loss, jnp.sum(jnp.where(ended, utility, 0)), jnp.sum(ends))
        totals = jax.tree.map(jnp.add, state.totals, new)
        return DEtaNState(params, target, moments, ring, running, totals, count)

    def target_quantiles(self, utility: Utility, params: PyTree, transition: Transition) -> Float[Array, "N"]:
        """The law of reward plus discounted return that a transition points to, under the best next action."""
        stock = self.next_stock(transition.stock, transition.reward)
        quantiles = self.quantiles(params, transition.after, stock)
        score = jnp.mean(utility(stock + quantiles), axis=1)
        best = jnp.max(score)
        if self.average_ties:
            tied = (score >= best - TIED * (1 + jnp.abs(best))).astype(score.dtype)
            follow = tied @ quantiles / jnp.sum(tied)
        else:
            follow = quantiles[jnp.argmax(score)]
        return transition.reward + self.discount * jnp.where(transition.terminal, 0, follow)

    def _advance(self, problem: Task, params, epsilon, running: Running, key):
        """One step of one environment: what runs then, the transition, whether an episode ended, its utility."""
        coin_key, action_key, step_key, reset_key = jax.random.split(key, 4)
        dtype = self.network.dtype
        greedy = jnp.argmax(self.scores(problem.utility, params, running.observation, running.stock))
        guess = jax.random.randint(action_key, (), 0, problem.environment.num_actions, jnp.int32)
        action = jnp.where(jax.random.uniform(coin_key, (), dtype) < epsilon, guess, greedy.astype(jnp.int32))
        out = problem.environment.step(running.state, action, step_key)
        reward = out.reward.astype(dtype)
        gain = running.gain + running.weight * reward
        stock = self.next_stock(running.stock, reward)
        row = Transition(running.observation, running.stock, action, reward, out.observation, out.terminal)
        going = Running(out.state, out.observation, stock, running.start, gain, running.weight * self.discount)
        ended = out.terminal | out.truncated
        fresh = _start(problem, reset_key)
        now = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, going)
        return now, row, ended, problem.utility(running.start + gain)


_ADAM = optax.scale_by_adam()


def _start(problem: Task, key) -> Running:
    reset_key, start_key = jax.random.split(key)
    state, observation = problem.environment.reset(reset_key)
    start = problem.starts[jax.random.randint(start_key, (), 0, problem.starts.shape[0], jnp.int32)]
    return Running(state, observation, start, start, jnp.zeros_like(start), jnp.ones_like(start))


def _totals(problem: Task, state: DEtaNState) -> Totals:
    return state.totals


def train(
    key: Key[Array, ""], environment: Environment, utility: Utility, config: DEtaN, starts: Float[Array, "K"]
) -> tuple[DEtaNState, Totals]:
    """Train one agent for all starting stocks; jit it, and vmap it over keys for several seeds.

    Args: environment, utility, starts: as in `Task`; config: its `num_steps` iterations are made.
    Returns: (state, trace): the last state, and `Totals` before the first and after every hundredth iteration, or
      every one where there are fewer.
    Raises: as `DEtaN.init`. Source, cost: as `DEtaN`.
    """
    every = 100 if config.num_steps >= 100 else 1
    task = Task(environment, utility, jnp.asarray(starts))
    return iterate(config, task, config.num_steps, key=key, observe=_totals, every=every)


def play(
    key: Key[Array, ""],
    environment: Environment,
    utility: Utility,
    config: DEtaN,
    params: PyTree,
    start: Number,
    max_steps: int,
) -> Float[Array, ""]:
    """The return of one episode under the greedy policy; vmap it over keys and starts.

    Args: params: of the network; start: float[], c_0; max_steps: static, the episode is cut there at the latest.
    Returns: float[], the discounted return, without the stock. Cost: max_steps forward passes, also after the end.
    """
    dtype = config.network.dtype
    config, utility, environment, start = at_precision(dtype, (config, utility, environment, start))
    reset_key, key = jax.random.split(key)
    state, observation = environment.reset(reset_key)

    def step(carry, key):
        state, observation, stock, gain, weight = carry
        action = jnp.argmax(config.scores(utility, params, observation, stock)).astype(jnp.int32)
        out = environment.step(state, action, key)
        reward = out.reward.astype(dtype)
        going = jnp.where(out.terminal | out.truncated, 0, weight * config.discount)
        # after the end the weight is 0: nothing counts
        stock = config.next_stock(stock, reward)
        return (out.state, out.observation, stock, gain + weight * reward, going), None

    carry = (state, observation, start, jnp.zeros_like(start), jnp.ones_like(start))
    (_, _, _, gain, _), _ = jax.lax.scan(step, carry, jax.random.split(key, max_steps))
    return gain


def cvar_start(
    config: DEtaN,
    utility: Utility,
    params: PyTree,
    observations: PyTree,
    stocks: Float[Array, "C"],
    level: Number,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The starting stock from which the trained agent's CVaR is predicted to be greatest: argmax of -c + V(c) / level.

    Args:
      utility: min(x, 0), `two_slope(0, 1)`, with which the agent was trained.
      observations: a pytree with a leading axis of first observations, over which V is averaged.
      stocks: float[C], candidates: minus the returns that may be the level's quantile. level: float[] in (0, 1].

    Returns: (stock float[], predicted CVaR float[]). Raises: ValueError: a level outside (0, 1].
    Source: derived: docs/proofs/distributional.md, T15, with V from predicted quantiles. Cost: a forward pass for
      every stock and observation.
    """
    check_level(level)
    config, utility, stocks, level = at_precision(config.network.dtype, (config, utility, stocks, level))
    value = lambda observation, c: jnp.max(config.scores(utility, params, observation, c))  # noqa: E731
    over_stocks = jax.vmap(value, (None, 0))
    values = jnp.mean(jax.vmap(over_stocks, (0, None))(observations, stocks), axis=0)
    objective = values / level - stocks
    best = jnp.argmax(objective)
    return stocks[best], objective[best]
