"""Tabular temporal differences for laws of the return on states and stocks: one sampled transition serves every stock.

Rewards and next states do not depend on the stock, so a transition (s, a, r, s') seen at one stock is as true at every
other: all nodes of (s, a) move at once, each towards r + discount G', G' of law (s', (c + r) / discount).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.distributional.lattice import Lattice
from rlcore.distributional.laws import Law, categorical_law, project_categorical, quantile_law
from rlcore.distributional.quantile_loss import quantile_levels
from rlcore.distributional.stock import (
    StockGrid,
    StockPolicy,
    StockValue,
    break_ties,
    next_stock,
    policy_action,
    round_stock,
)
from rlcore.distributional.stock_window import check_stock_problem
from rlcore.distributional.utility import Utility
from rlcore.mdp import MDP
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = ["CategoricalTable", "QuantileTable", "StockTD", "StockTDState"]


@pytree
class QuantileTable:
    """Laws kept as `size` equally likely atoms, moved by the gradient of the pinball loss. size: N, static."""

    size: int = static(32)

    def start(self) -> Float[Array, "N"]:
        """The law of 0."""
        return jnp.zeros(self.size)

    def law(self, row: Float[Array, "N"]) -> Law:
        """The law of a row."""
        return quantile_law(row)

    def towards(self, row: Float[Array, "N"], target: Law, rate: Number) -> Float[Array, "N"]:
        """The row after one step of size `rate`, in units of reward. Cost: N times the target's atoms."""
        below = jnp.sum(jnp.where(target.values[None, :] < row[:, None], target.probs[None, :], 0), axis=1)
        return row + rate * (quantile_levels(self.size, row.dtype) - below)


@pytree
class CategoricalTable:
    """Laws kept as probabilities of a lattice, mixed with the target's projection. points: Z points."""

    points: Lattice

    def start(self) -> Float[Array, "Z"]:
        """The law of 0."""
        return project_categorical(Law(jnp.zeros(1), jnp.ones(1)), self.points)

    def law(self, row: Float[Array, "Z"]) -> Law:
        """The law of a row."""
        return categorical_law(self.points, row)

    def towards(self, row: Float[Array, "Z"], target: Law, rate: Number) -> Float[Array, "Z"]:
        """The row after one step: (1 - rate) row + rate target. Cost: the target's atoms and Z."""
        return row + rate * (project_categorical(target, self.points) - row)


class StockTDState(NamedTuple):
    """The laws of the return, stock excluded, of every pair; rows as the table keeps them, of length N.

    window: float[S, A, C, N], at the nodes. below, above: float[S, A, N], outside, where the utility is affine.
    count: int32[], steps done.
    """

    window: Array
    below: Array
    above: Array
    count: Array


@pytree
class StockTD:
    """Stock-augmented distributional Q-learning with a generative model, a `Solver` for an `MDP` without horizon.

    A step draws one outcome of every pair of state and action, and moves the laws of the pair at all nodes and outside
    the window towards it. Actions are greedy for E f(c + G); where a stock is rounded, the reward that the law sees is
    what the rounded stock has earned, and between nodes of a grid "linear" or "stochastic" a coin decides.

    utility: f, with affine sides. grid: the nodes. table: `QuantileTable` or `CategoricalTable`.
    first, delay, power: float[], the rate of step n (from 0) is first / (1 + n / delay)^power; of a categorical table
      a share in (0, 1], of a quantile table in units of reward.
    Source: this project, after Dabney et al. (2018), arXiv 1710.10044, and Bellemare et al. (2017), as recalled, for
      the updates. Cost: a step is S A C of the table's updates.
    """

    utility: Utility
    grid: StockGrid
    table: QuantileTable | CategoricalTable
    first: Array | float = 1.0
    delay: Array | float = 1.0
    power: Array | float = 1.0

    def init(self, problem: MDP, key: RandomKey = None) -> StockTDState:
        """Every law that of 0; the key is not used.

        Raises: as `check_stock_problem`; ValueError: a horizon (put the time into the state), a utility that is not
          affine outside the window.
        """
        del key
        if problem.horizon is not None:
            raise ValueError(f"problem: found horizon {problem.horizon}, expected None: put the time into the state")
        if self.utility.tails() is None:
            raise ValueError(f"utility: found {type(self.utility).__name__}, expected one with affine sides")
        check_stock_problem(problem, self.utility, self.grid)
        row = self.table.start()
        fill = lambda *shape: jnp.broadcast_to(row, (*shape, row.size))  # noqa: E731
        pairs = problem.available.shape
        return StockTDState(fill(*pairs, self.grid.lattice.size), fill(*pairs), fill(*pairs), jnp.zeros((), jnp.int32))

    def step(self, problem: MDP, state: StockTDState, key: RandomKey) -> StockTDState:
        """One sampled transition of every pair, for all stocks."""
        coin_key, outcome_key = jax.random.split(key)
        pairs = problem.available.shape
        drawn = self._draw(problem, outcome_key)
        coins = jax.random.uniform(coin_key, (*pairs, self.grid.lattice.size))
        policy = self.policy(problem, state)
        best = StockTDState(
            jnp.take_along_axis(state.window, policy.action[:, None, :, None], axis=1)[:, 0],
            *(
                jnp.take_along_axis(side, a[:, None, None], axis=1)[:, 0]
                for side, a in ((state.below, policy.below), (state.above, policy.above))
            ),
            state.count,
        )
        rate = self.first / (1 + state.count.astype(coins.dtype) / self.delay) ** self.power
        node = jax.vmap(self._node, (None, None, None, None, 0, 0, 0))
        side = lambda reward, next_state, terminal, row, follow: self._move(  # noqa: E731
            row, reward, problem.discount, self.table.law(follow[next_state]), terminal, rate
        )

        def pair(reward, next_state, terminal, row, below, above, coin):
            outcome = (reward, next_state, terminal)
            window = node(problem.discount, outcome, best, rate, row, self.grid.nodes, coin)
            return window, side(*outcome, below, best.below), side(*outcome, above, best.above)

        laws = jax.vmap(jax.vmap(pair))(*drawn, state.window, state.below, state.above, coins)
        return StockTDState(*laws, state.count + 1)

    def _draw(self, problem: MDP, key) -> tuple[Array, Array, Array]:
        """Reward, next state and end of one outcome of every pair."""
        total = jnp.cumsum(problem.prob, axis=-1)
        u = jax.random.uniform(key, total.shape[:-1], total.dtype)[..., None] * total[..., -1:]
        chosen = jnp.argmax(total > u, axis=-1)[..., None]
        take = lambda x: jnp.take_along_axis(x, chosen, axis=-1)[..., 0]  # noqa: E731
        return take(problem.reward), take(problem.next_state), take(problem.terminal)

    def _move(self, row, reward, discount, follow: Law, terminal, rate):
        target = Law(reward + discount * jnp.where(terminal, 0, follow.values), follow.probs)
        return self.table.towards(row, target, rate)

    def _node(self, discount, outcome, best: StockTDState, rate, row, node, coin):
        """The row of one pair at one node after an outcome."""
        reward, next_state, terminal = outcome
        stock = next_stock(self.grid, node, reward, discount)
        at = round_stock(self.grid, stock)
        index = at.index + (coin < at.weight).astype(jnp.int32)
        outside = at.below | at.above
        follow = jnp.where(at.above, best.above[next_state], best.below[next_state])
        follow = jnp.where(outside, follow, best.window[next_state, index])
        # the rounded stock is what the next law was learnt for: the reward telescopes to it
        seen = jnp.where(outside | terminal, reward, discount * self.grid.nodes[index] - node)
        return self._move(row, seen, discount, self.table.law(follow), terminal, rate)

    def scores(
        self, problem: MDP, state: StockTDState
    ) -> tuple[Float[Array, "S C A"], Float[Array, "S A"], Float[Array, "S A"]]:
        """E f(c + G) of every node and action, and the mean return times the sign of the slope below and above."""

        def score(row, c):
            law = self.table.law(row)
            return jnp.sum(law.probs * self.utility(c + law.values))

        def mean(row):
            law = self.table.law(row)
            return jnp.sum(law.probs * law.values)

        q = jax.vmap(jax.vmap(jax.vmap(score), (0, None)), (0, None))(state.window, self.grid.nodes)
        q = jnp.where(problem.available[:, :, None], q, -jnp.inf).swapaxes(1, 2)
        slope = self.utility.tails().slope
        sides = (
            jnp.where(slope[i] < 0, -1, 1) * jax.vmap(jax.vmap(mean))(rows)
            for i, rows in enumerate((state.below, state.above))
        )
        return q, *(jnp.where(problem.available, side, -jnp.inf) for side in sides)

    def policy(self, problem: MDP, state: StockTDState) -> StockPolicy:
        """The greedy policy, the first of tied actions."""
        return StockPolicy(self.grid, *(break_ties(x, "first") for x in self.scores(problem, state)))

    def value(self, problem: MDP, state: StockTDState) -> StockValue:
        """The predicted value of every state and stock, to compare with `stock_vi`."""
        q, *sides = self.scores(problem, state)
        slope = self.utility.tails().slope
        means = (jnp.where(slope[i] < 0, -1, 1) * jnp.max(side, axis=1) for i, side in enumerate(sides))
        return StockValue(jnp.max(q, axis=2), *means)

    def law(self, problem: MDP, state: StockTDState, at: Int[Array, ""], stock: Number) -> Law:
        """The predicted law of the return from one state and stock under the greedy policy."""
        action = policy_action(self.policy(problem, state), at, stock)
        place = round_stock(self.grid, stock)
        row = state.window[at, action, place.index + (place.weight >= 0.5).astype(jnp.int32)]
        row = jnp.where(place.above, state.above[at, action], jnp.where(place.below, state.below[at, action], row))
        return self.table.law(row)
