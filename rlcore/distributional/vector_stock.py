"""Stocks with several coordinates: value iteration for utilities of a vector of returns, over a finite horizon.

Each coordinate has its own reward and its own grid; a utility with f(discount x) = discount f(x) on vectors, such as
minus a norm, or a return of which other coordinates may spend a budget, is optimised as in one dimension.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.stock import StockGrid, break_ties, next_stock, round_stock
from rlcore.mdp import MDP
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Int

__all__ = ["Constrained", "MinusNorm", "VectorSolution", "final_stocks", "vector_grid_value", "vector_stock_vi"]


@pytree
class MinusNorm:
    """f(x) = -||x||_order: drives to be brought back to 0. order, static: 1, 2 or inf."""

    order: float = static(1.0)

    def __call__(self, x: Float[Array, "*L m"]) -> Float[Array, "*L"]:
        """f of the last axis. Cost: size of x."""
        return -jnp.linalg.norm(x, ord=self.order, axis=-1)


@pytree
class Constrained:
    """f(x) = x_0 + weight sum over i >= 1 of min(x_i, 0): a return, and budgets that should not be overdrawn.

    weight: float[] >= 0, utility per unit overdrawn. Coordinate i starts with its budget as stock.
    """

    weight: Array | float

    def __call__(self, x: Float[Array, "*L m"]) -> Float[Array, "*L"]:
        """f of the last axis. Cost: size of x."""
        return x[..., 0] + self.weight * jnp.sum(jnp.minimum(x[..., 1:], 0), axis=-1)


class VectorSolution(NamedTuple):
    """What `vector_stock_vi` returns.

    value: float[H + 1, S, C_1, ..., C_m], E f(c + G) at the nodes, NaN where a path leaves the windows; action:
    int32[H, S, C_1, ..., C_m]. grids: the m grids.
    """

    value: Array
    action: Array
    grids: tuple[StockGrid, ...]


def _check(problem: MDP, rewards, grids) -> None:
    if problem.horizon is None:
        raise ValueError("problem: found no horizon, expected one: nothing is known of a vector outside its windows")
    m = len(grids)
    if not 1 <= m <= 3 or rewards.shape != (*problem.prob.shape[-3:], m) or problem.prob.ndim != 3:
        raise ValueError(
            f"rewards, grids: found shape {rewards.shape} and {m} grids, expected [S, A, B, m] = "
            f"{(*problem.prob.shape[-3:], m)}, m in 1, 2, 3, and a kernel that does not change with time"
        )
    if isinstance(rewards, jax.core.Tracer) or isinstance(problem.prob, jax.core.Tracer):
        return
    happens = np.asarray(problem.prob) > 0
    if not np.all(np.isfinite(np.asarray(rewards)[happens])):
        raise ValueError("rewards: found NaN or inf, expected finite numbers")
    discount = float(problem.discount)
    if not 0 < discount <= 1:
        raise ValueError(f"discount: found {discount}, expected a number in (0, 1]")
    for i, grid in enumerate(grids):
        if grid.coordinates != "stock":
            raise ValueError(f"grids[{i}].coordinates: found {grid.coordinates!r}, expected 'stock'")
        steps = np.asarray(rewards)[happens][:, i] / float(grid.lattice.spacing)
        whole = np.all(np.abs(steps - np.rint(steps)) < 1e-9 * np.maximum(1, np.abs(steps)))
        if grid.rounding == "exact" and not (whole and abs(1 / discount - round(1 / discount)) < 1e-12):
            raise ValueError(
                f"grids[{i}]: found rounding 'exact', spacing {float(grid.lattice.spacing)} and discount {discount}, "
                "expected rewards that are multiples of the spacing and an integer 1 / discount"
            )


def _mesh(grids) -> Float[Array, "*C m"]:
    return jnp.stack(jnp.meshgrid(*(grid.nodes for grid in grids), indexing="ij"), axis=-1)


def vector_grid_value(
    values: Float[Array, "*C"], grids: tuple[StockGrid, ...], stock: Float[Array, "*L m"]
) -> Float[Array, "*L"]:
    """Read a table over the product of grids at any stocks, each coordinate rounded or interpolated as its grid says.

    Args: values: float[C_1, ..., C_m]; stock: float[..., m]. Returns: float[...], NaN outside the windows.
    Cost: 2^m reads per stock.
    """
    places = [round_stock(grid, stock[..., i]) for i, grid in enumerate(grids)]
    total, inside = 0.0, True
    for corner in itertools.product((0, 1), repeat=len(grids)):
        weight, index = 1.0, []
        for place, upper in zip(places, corner, strict=True):
            weight = weight * (place.weight if upper else 1 - place.weight)
            index.append(place.index + upper)
        seen = values[tuple(index)]
        total = total + jnp.where(weight > 0, weight * seen, 0)
    for place in places:
        inside = inside & ~(place.below | place.above)
    return jnp.where(inside, total, jnp.nan)


def vector_stock_vi(
    problem: MDP,
    rewards: Float[Array, "S A B m"],
    utility: Callable[[Float[Array, "*L m"]], Float[Array, "*L"]],
    grids: tuple[StockGrid, ...],
) -> VectorSolution:
    """The optimal E f(c + G) of every state and vector of stocks over a finite horizon, and a policy attaining it.

    Args:
      problem: an outcome list with a horizon; its own rewards are not read. rewards: float[S, A, B, m].
      utility: f on the last axis, homogeneous of degree 1 where discount < 1; a pytree, as `MinusNorm`.
      grids: m <= 3 of them, in stock coordinates.

    Returns: a `VectorSolution`.
    Raises: ValueError: no horizon, shapes that do not fit, NaN rewards, a discount out of (0, 1], an "exact" grid that
      rewards or discount leave; where the arguments are concrete.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for vector stocks, as recalled; derived:
      docs/proofs/distributional.md, T2 and T7. Cost: 2^m S A B C_1 ... C_m reads a step.
    """
    grids = tuple(grids)
    _check(problem, rewards, grids)
    return _vector_stock_vi(problem, rewards, utility, grids)


@jax.jit
def _vector_stock_vi(problem, rewards, utility, grids):
    m, horizon = len(grids), problem.horizon
    sizes = tuple(grid.lattice.size for grid in grids)
    mesh = _mesh(grids)
    ends = utility(mesh)

    def outcome(value, last, next_state, prob, reward, terminal):
        after = jnp.stack([next_stock(g, mesh[..., i], reward[i], problem.discount) for i, g in enumerate(grids)], -1)
        seen = vector_grid_value(value[next_state], grids, after)
        seen = jnp.where(terminal | last, utility(after), seen)
        return jnp.where(prob > 0, prob * seen, 0)

    over = functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0, 0))
    every = over(over(over(outcome)))
    shape = problem.available.shape + (1,) * m
    available = problem.available.reshape(shape)

    def step(value, t):
        kernel = (problem.next_state, problem.prob, rewards, problem.terminal)
        q = problem.discount * jnp.sum(every(value, t == horizon - 1, *kernel), axis=2)
        q = jnp.moveaxis(jnp.where(available, q, -jnp.inf), 1, -1)
        best = jnp.where(jnp.any(jnp.isnan(q), axis=-1), jnp.nan, jnp.max(q, axis=-1))
        return best, (best, break_ties(q, "first"))

    start = jnp.broadcast_to(ends, (problem.available.shape[0], *sizes))
    _, (value, action) = jax.lax.scan(step, start, jnp.arange(horizon), reverse=True)
    return VectorSolution(jnp.concatenate([value, start[None]]), action, grids)


def final_stocks(
    problem: MDP,
    rewards: Float[Array, "S A B m"],
    solution: VectorSolution,
    state: Int[Array, ""] | int,
    stock: Float[Array, "m"],
) -> tuple[Float[Array, "*C"], Float[Array, ""]]:
    """The exact law of the stocks at the end, undiscounted, under a solution's policy on exact grids.

    Args: state: int[]; stock: float[m], a node. rewards, solution: as before.
    Returns: (probabilities float[C_1, ..., C_m] of the final stocks, mass that left the windows float[]).
    Raises: ValueError for a discount other than 1 or a grid that rounds.
    Source: derived: docs/proofs/distributional.md, the conservation law. Cost: S A B C_1 ... C_m scatters a step.
    """
    if any(grid.rounding != "exact" for grid in solution.grids) or float(problem.discount) != 1:
        raise ValueError("problem, grids: found a discount or a rounding, expected discount 1 and exact grids")
    return _final_stocks(problem, rewards, solution, jnp.asarray(state), jnp.asarray(stock))


def _node(place):
    return place.index + jnp.where(place.weight >= 0.5, 1, 0)


@jax.jit
def _final_stocks(problem, rewards, solution, state, stock):
    grids, action = solution.grids, solution.action
    sizes = tuple(grid.lattice.size for grid in grids)
    mesh = _mesh(grids)
    at = tuple(round_stock(grid, stock[i]) for i, grid in enumerate(grids))
    begin = tuple(_node(place) for place in at)
    mass = jnp.zeros((problem.available.shape[0], *sizes)).at[(state, *begin)].set(1.0)
    states = jnp.arange(problem.available.shape[0]).reshape((-1,) + (1,) * len(sizes))

    def step(carry, act):
        mass, done, left = carry
        prob, reward = problem.prob[states, act], rewards[states, act]  # [S, C..., B], [S, C..., B, m]
        after = mesh[None, ..., None, :] + reward
        places = [round_stock(grid, after[..., i]) for i, grid in enumerate(grids)]
        index = [_node(place) for place in places]
        outside = functools.reduce(jnp.logical_or, [place.below | place.above for place in places])
        moved = mass[..., None] * prob
        ends, kept = problem.terminal[states, act], jnp.where(outside, 0, moved)
        left = left + jnp.sum(moved - kept)
        done = done.at[tuple(index)].add(jnp.where(ends, kept, 0))
        nxt = problem.next_state[states, act]
        mass = jnp.zeros_like(mass).at[(nxt, *index)].add(jnp.where(ends, 0, kept))
        return (mass, done, left), None

    start = (mass, jnp.zeros(sizes), jnp.zeros(()))
    (mass, done, left), _ = jax.lax.scan(step, start, action)
    return done + jnp.sum(mass, axis=0), left
