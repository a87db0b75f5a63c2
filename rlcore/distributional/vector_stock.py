"""Stocks of several rewards at once: the optimal expected utility of a vector of returns, on a product of grids.

The outcomes of the problem pay vectors, the stock is a vector, and everything else is as for one: c <- (c + reward) /
discount, or b <- b + discount^t reward in the coordinates "discounted". A utility of vectors has no affine sides, so
nothing is known outside the window: problems have a horizon, and windows hold what can be reached (`vector_grids`).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.lattice import NEAR, place
from rlcore.distributional.stock import StockGrid, break_ties, next_stock, round_stock, stock_grid
from rlcore.distributional.stock_window import check_grid, reward_spacing
from rlcore.distributional.vector_utility import VectorUtility
from rlcore.mdp import MDP
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Int

__all__ = [
    "VectorPolicy",
    "VectorSolution",
    "vector_evaluation",
    "vector_grids",
    "vector_policy_action",
    "vector_policy_nodes",
    "vector_stock_vi",
    "vector_value",
]

# Numbers in one table of outcomes and nodes above which one state at a time is backed up, to save memory.
LARGE = 2**24
MOST = 3


@pytree
class VectorPolicy:
    """A deterministic policy of state and stock vector, one per step.

    grids: a tuple of m `StockGrid`; a stock is looked up at its nearest node. action: int32[H, S, C_1, ..., C_m].
    """

    grids: tuple[StockGrid, ...]
    action: Array


class VectorSolution(NamedTuple):
    """What `vector_stock_vi` and `vector_evaluation` return.

    value: float[H + 1, S, C_1, ..., C_m], E f(c + G) at the nodes; NaN where a path leaves the window first: there the
    policy means nothing either. policy: the `VectorPolicy`.
    """

    value: Array
    policy: VectorPolicy


def vector_grids(
    problem: MDP,
    rewards: Float[Array, "*H S A B m"],
    starts: Sequence | np.ndarray | Array,
    *,
    spacing: float | int | None = None,
    rounding: str = "exact",
) -> tuple[StockGrid, ...]:
    """Grids that hold every stock that any policy can reach from some first stocks, whatever the first state.

    Args:
      problem: with concrete arrays and a horizon. rewards: in place of the problem's own.
      starts: float[n, m] (or [m]), in units of reward.
      spacing: in units of reward, by default the common divisor of each coordinate's rewards; needed for discount < 1.
      rounding: "exact" or "linear".

    Returns: m grids, in the coordinates "discounted" where discount < 1 (then a first stock is the same in both).
    Raises: ValueError: no horizon, shapes that do not fit, no spacing at discount < 1, first stocks between the nodes
      of an "exact" grid.
    Cost: H sweeps over the outcomes and coordinates.
    """
    _check_rewards(problem, rewards)
    starts = np.atleast_2d(np.asarray(starts, float))
    size = rewards.shape[-1]
    if starts.shape[-1] != size or starts.ndim != 2:
        raise ValueError(f"starts: found shape {starts.shape}, expected [n, {size}], one number per reward")
    discount = float(problem.discount)
    if spacing is None and discount < 1:
        raise ValueError(f"spacing: found None at discount {discount}, expected a number: rewards shrink")
    grids = []
    for i in range(size):
        width = reward_spacing(_with_reward(problem, rewards, i)) if spacing is None else spacing
        low, high = (
            sign * float(np.max(sign * starts[:, i]) + _farthest(problem, sign * np.asarray(rewards)[..., i]))
            for sign in (-1, 1)
        )
        off = np.abs(starts[:, i] / width - np.rint(starts[:, i] / width)) > 1e-9
        if rounding == "exact" and off.any():
            raise ValueError(
                f"starts: found {starts[off, i][0]} in coordinate {i}, expected multiples of {width}: give a spacing"
            )
        grids.append(
            stock_grid(low, high, width, rounding=rounding, coordinates="stock" if discount == 1 else "discounted")
        )
    return tuple(grids)


def _farthest(problem: MDP, reward: np.ndarray) -> float:
    """The greatest partial sum of discounted rewards that is followed by another step."""
    possible = (np.asarray(problem.prob) > 0) & np.asarray(problem.available)[..., None] & ~np.asarray(problem.terminal)
    next_state = np.asarray(problem.next_state)
    value = np.zeros(possible.shape[-3])
    for t in reversed(range(problem.horizon - 1)):
        at = (t,) if possible.ndim == 4 else ()
        onward = float(problem.discount) ** t * reward[at] + value[next_state[at]]
        value = np.maximum(0, np.max(np.where(possible[at], onward, -np.inf), axis=(-2, -1)))
    return float(value.max())


def _with_reward(problem: MDP, rewards, i: int) -> MDP:
    return dataclasses.replace(problem, reward=rewards[..., i])


def _check_rewards(problem: MDP, rewards) -> None:
    if not isinstance(problem, MDP):
        raise TypeError(f"problem: found {type(problem).__name__}, expected an MDP of outcomes: laws of rewards matter")
    if rewards.shape[:-1] != problem.prob.shape or not 1 <= rewards.shape[-1] <= MOST:
        raise ValueError(
            f"rewards: found shape {rewards.shape}, expected {problem.prob.shape} and a last axis of 1 to {MOST}"
        )
    if problem.horizon is None:
        raise ValueError("problem: found no horizon, expected one (`finite_horizon`): nothing is known off the window")


def _check(problem: MDP, rewards, utility: VectorUtility, grids: Sequence[StockGrid]) -> None:
    _check_rewards(problem, rewards)
    size = rewards.shape[-1]
    if len(grids) != size:
        raise ValueError(f"grids: found {len(grids)}, expected {size}, one per reward")
    if len({grid.coordinates for grid in grids}) != 1:
        raise ValueError(f"grids: found coordinates {[grid.coordinates for grid in grids]}, expected the same in all")
    for grid in grids:
        if grid.rounding not in ("exact", "linear"):
            raise ValueError(f"grids: found rounding {grid.rounding!r}, expected 'exact' or 'linear'")
    shape = jax.eval_shape(utility, jax.ShapeDtypeStruct((size,), rewards.dtype)).shape
    if shape != ():
        raise ValueError(f"utility: found values of shape {shape} for a vector, expected one number")
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((problem, rewards, utility, grids))):
        return
    for i, grid in enumerate(grids):
        check_grid(_with_reward(problem, rewards, i), grid)
    if grids[0].coordinates == "stock" and float(problem.discount) < 1 and utility.degree is None:
        raise ValueError(
            f"utility: found {type(utility).__name__} without a degree at discount {float(problem.discount)}, expected "
            "f(discount x) = scale f(x), or grids in the coordinates 'discounted'"
        )


def vector_stock_vi(
    problem: MDP,
    rewards: Float[Array, "*H S A B m"],
    utility: VectorUtility,
    grids: tuple[StockGrid, ...],
    *,
    tie_rule: str = "first",
) -> VectorSolution:
    """The optimal E f(c + G) of every state and stock vector, and a policy of both that attains it.

    Exact on grids whose rounding is "exact"; with "linear", values are interpolated between the 2^m nodes around a
    stock, exact on average for a player whose stock is rounded at random, keeping its mean, to one of them.

    Args:
      problem: an outcome list with a horizon; its own reward is not used. rewards: m <= 3 rewards of each outcome.
      utility: `norm_drive(...)`, `constrained(...)`, or `Custom` of a function of the last axis. grids: m grids, as
        from `vector_grids`. tie_rule: "first" or "last" among actions within 1e-12 (1 + |best|) of the best.

    Returns: a `VectorSolution`.
    Raises: TypeError, ValueError: no horizon; shapes that do not fit; grids that rewards leave, of another rounding or
      of mixed coordinates; a utility without a degree at discount < 1 in the coordinates "stock"; NaN rewards.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for vector stocks, as recalled; derived:
      docs/proofs/distributional.md, T9, whose proof never uses that the stock is one number.
    Cost: H S A B C_1 ... C_m reads, 2^m times as many where all grids interpolate.
    """
    if tie_rule not in ("first", "last"):
        raise ValueError(f"tie_rule: found {tie_rule!r}, expected 'first' or 'last'")
    _check(problem, rewards, utility, grids)
    return _sweep(problem, rewards, utility, tuple(grids), None, tie_rule=tie_rule)


def vector_evaluation(
    problem: MDP, rewards: Float[Array, "*H S A B m"], utility: VectorUtility, policy: VectorPolicy
) -> VectorSolution:
    """E f(c + G) of every state and stock vector under a policy, on the policy's own grids.

    Args, Raises: as `vector_stock_vi`; ValueError for actions of a wrong shape. Returns: a `VectorSolution`.
    Source: derived: docs/proofs/distributional.md, T9. Cost: A times less than `vector_stock_vi`.
    """
    _check(problem, rewards, utility, policy.grids)
    expected = (problem.horizon, problem.available.shape[0], *(grid.lattice.size for grid in policy.grids))
    if policy.action.shape != expected:
        raise ValueError(f"policy: found action of shape {policy.action.shape}, expected {expected}")
    return _sweep(problem, rewards, utility, policy.grids, policy.action, tie_rule="first")


@functools.partial(jax.jit, static_argnames="tie_rule")
def _sweep(problem, rewards, utility, grids, action, *, tie_rule):
    horizon, num_states = problem.horizon, problem.available.shape[0]
    start = utility(_mesh([grid.nodes for grid in grids]))
    start = jnp.broadcast_to(start, (num_states, *start.shape))

    def step(value, now):
        t, given = now
        q = _backup(problem, rewards, utility, grids, value, t, t == horizon - 1)
        q = jnp.where(jnp.expand_dims(problem.available, tuple(range(2, q.ndim))), q, -jnp.inf)
        q = jnp.moveaxis(q, 1, -1)
        if given is None:
            given = break_ties(q, tie_rule)
            best = jnp.where(jnp.any(jnp.isnan(q), axis=-1), jnp.nan, jnp.max(q, axis=-1))
        else:
            best = jnp.take_along_axis(q, given[..., None], axis=-1)[..., 0]
        return best, (best, given)

    _, (values, chosen) = jax.lax.scan(step, start, (jnp.arange(horizon), action), reverse=True)
    return VectorSolution(jnp.concatenate([values, start[None]]), VectorPolicy(grids, chosen))


def _mesh(axes: Sequence[Array]) -> Array:
    """Vectors [..., C_1, ..., C_m, m] from m arrays [..., C_i] with equal leading axes."""
    size = len(axes)
    lead = axes[0].shape[:-1]
    shape = (*lead, *(x.shape[-1] for x in axes))
    return jnp.stack([jnp.broadcast_to(_spread(x, i, size), shape) for i, x in enumerate(axes)], axis=-1)


def _spread(x: Array, i: int, size: int) -> Array:
    """[..., C_i] as [..., 1, C_i, 1] among `size` axes of nodes."""
    return jnp.expand_dims(x, tuple(x.ndim - 1 + j for j in range(size) if j != i))


def _backup(problem, rewards, utility, grids, value, t, last) -> Float[Array, "S A ..."]:
    """Q of every state, action and stock vector at step t."""
    if problem.next_state.ndim == 4:
        rewards = jax.lax.dynamic_index_in_dim(rewards, t, keepdims=False)
    now = problem.at_time(t)
    scaled = grids[0].coordinates == "stock" and utility.degree is not None
    scale = problem.discount**utility.degree if scaled else 1.0

    def of_state(row):
        next_state, prob, gain, terminal = row
        gain = jnp.moveaxis(gain, -1, 0)[..., None]
        after = [
            next_stock(grid, jnp.expand_dims(grid.nodes, (0, 1)), x, problem.discount, t)
            for grid, x in zip(grids, gain, strict=True)
        ]
        wide = lambda x: jnp.expand_dims(x, tuple(range(2, 2 + len(grids))))  # noqa: E731
        seen = jnp.where(wide(terminal | last), utility(_mesh(after)), _read(value, wide(next_state), grids, after))
        return scale * jnp.sum(jnp.where(wide(prob) > 0, wide(prob) * seen, 0), axis=1)

    rows = (now.next_state, now.prob, rewards, now.terminal)
    if now.prob.size * value[0].size * len(grids) <= LARGE:
        return jax.vmap(of_state)(rows)
    return jax.lax.map(of_state, rows)


def _read(value: Float[Array, "S ..."], state: Array, grids, stocks: Sequence[Array]) -> Array:
    """The value of states at stocks, interpolated; NaN outside the window. stocks: m arrays [..., C_i]."""
    size = len(grids)
    places = [
        jax.tree.map(functools.partial(_spread, i=i, size=size), round_stock(grid, x))
        for i, (grid, x) in enumerate(zip(grids, stocks, strict=True))
    ]
    strides = [math.prod(grid.lattice.size for grid in grids[i + 1 :]) for i in range(size)]
    flat, seen = value.reshape(-1), 0.0
    corners = [(0, 1) if grid.rounding == "linear" else (None,) for grid in grids]
    for corner in itertools.product(*corners):
        row, weight = state * math.prod(value.shape[1:]), jnp.ones((), value.dtype)
        for at, up, stride in zip(places, corner, strides, strict=True):
            row = row + stride * (at.index + ((at.weight >= 0.5).astype(jnp.int32) if up is None else up))
            weight = weight * (1.0 if up is None else at.weight if up else 1 - at.weight)
        read = flat.at[row].get(mode="promise_in_bounds")
        # a corner of weight 0 may be NaN
        seen = seen + jnp.where(weight > 0, weight * read, 0)
    outside = functools.reduce(jnp.logical_or, (at.below | at.above for at in places))
    return jnp.where(outside, jnp.nan, seen)


def vector_value(
    solution: VectorSolution, state: Int[Array, ""], stock: Float[Array, "m"], t: int = 0
) -> Float[Array, ""]:
    """The value of a state at any stock vector, interpolated between nodes; NaN outside the window.

    Args: state: int[]; stock: float[m], in the grids' coordinates; t: int, the step. Returns: float[]. Cost: 2^m reads.
    """
    grids = solution.policy.grids
    linear = tuple(dataclasses.replace(grid, rounding="linear") for grid in grids)
    return _read(solution.value[t], state, linear, [x[None] for x in stock]).reshape(())


def vector_policy_action(
    policy: VectorPolicy, state: Int[Array, ""], stock: Float[Array, "m"], t: int | Int[Array, ""] = 0
) -> Int[Array, ""]:
    """The action of a policy at one state and stock vector: that of the nearest node.

    Args: state: int[]; stock: float[m], in the grids' coordinates; t: int[], the step.
    Returns: int32[]; outside the window the nearest node's, which means nothing. Cost: O(m).
    """
    nodes = []
    for grid, x in zip(policy.grids, stock, strict=True):
        at = place(grid.lattice, x)
        nodes.append(at.index + (at.weight >= 0.5).astype(jnp.int32))
    return policy.action[(t, state, *nodes)]


def vector_policy_nodes(policy: VectorPolicy, stocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """The nearest nodes of stock vectors [n, m], on the host: m index arrays [n].

    Raises: ValueError: a stock outside the window. Cost: n m.
    """
    nodes = []
    for i, grid in enumerate(policy.grids):
        points = grid.lattice
        # NumPy: arrays of every new length would be compiled anew
        steps = stocks[:, i] / float(points.spacing) - points.first
        steps = np.where(np.abs(steps - np.rint(steps)) <= NEAR, np.rint(steps), steps)
        outside = (steps < 0) | (steps > points.size - 1)
        if outside.any():
            window = f"[{float(points.low)}, {float(points.high)}]"
            raise ValueError(
                f"stock: found {stocks[outside, i][0]} in coordinate {i}, expected numbers in the window {window}"
            )
        nodes.append(np.floor(steps + 0.5).astype(int))
    return tuple(nodes)
