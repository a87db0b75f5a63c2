"""Value iteration over states and stocks: the optimal expected utility of stock plus return, for one utility."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.distributional.lattice import Place, place
from rlcore.distributional.stock import (
    StockGrid,
    StockPolicy,
    StockValue,
    break_ties,
    mean_factor,
    next_stock,
    round_stock,
    scale_factor,
)
from rlcore.distributional.stock_window import check_stock_problem
from rlcore.distributional.utility import Utility
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = ["StockSolution", "stock_backup", "stock_value", "stock_vi"]

# Pairs of an outcome and a node above which the stocks of one state at a time are computed, to save memory.
LARGE = 2**24


class StockSolution(NamedTuple):
    """What `stock_vi` returns.

    value: the `StockValue`. policy: the greedy `StockPolicy`. steps: int32[], sweeps taken. residual: float[], the last
    change. bound: float[], `value` is within it of the optimum of the rounded problem, rounding aside: 0 with a
    horizon, inf where nothing contracts (discount 1, or a utility of degree 0).
    """

    value: StockValue
    policy: StockPolicy
    steps: Int[Array, ""]
    residual: Float[Array, ""]
    bound: Float[Array, ""]


class Arrivals(NamedTuple):
    """Where each outcome takes each node. stock: float[S, A, B, C], the stock after it; at: its `Place`."""

    stock: Array
    at: Place


def arrivals(reward: Float[Array, "*S A B"], grid: StockGrid, discount: Number, t: Number) -> Arrivals:
    """The stocks after every outcome and where they are rounded to. Cost: S A B C."""
    nodes = jnp.expand_dims(grid.nodes, tuple(range(reward.ndim)))
    stock = next_stock(grid, nodes, reward[..., None], discount, t)
    return Arrivals(stock, round_stock(grid, stock))


def _between(lower, upper, weight):
    # a neighbour of weight 0 may be NaN
    return lower + weight * jnp.where(weight > 0, upper - lower, 0)


def _outcomes(problem: MDP, utility: Utility, grid: StockGrid, value: StockValue, kernel, going: Arrivals, t, last):
    """Q[..., A, C] of some states, before unavailable actions are masked."""
    next_state, prob, _, terminal = kernel
    tails = utility.tails()
    row = next_state[..., None] * grid.lattice.size + going.at.index
    flat = value.value.reshape(-1)
    lower = flat.at[row].get(mode="promise_in_bounds")
    upper = flat.at[row + 1].get(mode="promise_in_bounds")
    inside = _between(lower, upper, going.at.weight)
    if tails is None:
        beyond = jnp.full_like(inside, jnp.nan)
    else:
        factor = mean_factor(grid, problem.discount, t)
        mean = jnp.where(going.at.above, value.above[next_state][..., None], value.below[next_state][..., None])
        slope, level = (jnp.where(going.at.above, x[1], x[0]) for x in tails)
        beyond = slope * (going.stock + factor * mean) + level
    seen = jnp.where(going.at.above | going.at.below, beyond, inside)
    seen = jnp.where((terminal | last)[..., None], utility(going.stock), seen)
    seen = jnp.where(prob[..., None] > 0, prob[..., None] * seen, 0)
    return scale_factor(grid, utility, problem.discount) * jnp.sum(seen, axis=-2)


def _mean_backup(problem: MDP, kernel, mean: Float[Array, "S"], slope, last) -> Float[Array, "S A"]:
    """sign(slope) times the mean return of each pair: what is maximised where the utility is affine."""
    next_state, prob, reward, terminal = kernel
    go_on = jnp.where(terminal | last, 0, mean[next_state])
    # padding may hold NaN
    seen = jnp.where(prob > 0, prob * (reward + problem.discount * go_on), 0)
    return jnp.where(slope < 0, -1, 1) * jnp.sum(seen, axis=-1)


def stock_backup(
    problem: MDP,
    utility: Utility,
    grid: StockGrid,
    value: StockValue,
    *,
    t: Number = 0,
    last: bool | Array = False,
    going: Arrivals | None = None,
) -> tuple[Float[Array, "S C A"], Float[Array, "S A"], Float[Array, "S A"]]:
    """One backup: Q(s, c, a) inside the window, and what is maximised below and above it.

    Args:
      problem: an outcome list. value: of the next step, without a time axis. t: int[], steps taken before.
      last: whether no step follows. going: the stocks after each outcome, computed here by default.

    Returns: (q float[S,C,A], below float[S,A], above float[S,A]), -inf for unavailable actions; the last two are the
      mean return times the sign of the slope there. NaN at nodes from which the window and the utility cannot tell.
    Source: derived: docs/proofs/distributional.md, T9 and T10. Cost: 2 S A B C reads.
    """
    now = problem.at_time(t)
    kernel = (now.next_state, now.prob, now.reward, now.terminal)
    backup = functools.partial(_outcomes, problem, utility, grid, value, t=t, last=last)
    if going is not None:
        q = backup(kernel, going)
    elif now.reward.size * grid.lattice.size <= LARGE:
        q = backup(kernel, arrivals(now.reward, grid, problem.discount, t))
    else:
        q = jax.lax.map(lambda row: backup(row, arrivals(row[2], grid, problem.discount, t)), kernel)
    # transposed last: the nodes stay next to each other in memory
    q = jnp.where(problem.available[:, :, None], q, -jnp.inf).swapaxes(1, 2)
    tails = utility.tails()
    if tails is None:
        nothing = jnp.where(problem.available, jnp.zeros((), q.dtype), -jnp.inf)
        return q, nothing, nothing
    sides = [_mean_backup(problem, kernel, m, s, last) for m, s in zip(value[1:], tails.slope, strict=True)]
    return q, *(jnp.where(problem.available, side, -jnp.inf) for side in sides)


def _signed(side, utility: Utility, which: int):
    """The mean return from the maximised quantity."""
    tails = utility.tails()
    best = jnp.max(side, axis=-1)
    return best if tails is None else jnp.where(tails.slope[which] < 0, -1, 1) * best


def _best(q, below, above, utility: Utility) -> StockValue:
    best = jnp.max(q, axis=-1)
    if utility.tails() is None:  # a maximum need not keep NaN on every device
        best = jnp.where(jnp.any(jnp.isnan(q), axis=-1), jnp.nan, best)
    return StockValue(best, _signed(below, utility, 0), _signed(above, utility, 1))


def _greedy(q, below, above, tie_rule: str, key) -> tuple[Array, Array, Array]:
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    return tuple(break_ties(x, tie_rule, k) for x, k in zip((q, below, above), keys, strict=True))


def stock_vi(
    problem: MDP,
    utility: Utility,
    grid: StockGrid,
    *,
    tol: Number = 1e-10,
    max_steps: int = 10_000,
    tie_rule: str = "first",
    key: RandomKey = None,
) -> StockSolution:
    """The optimal E f(c + G) of every state and stock, over policies of the whole history, and a policy attaining it.

    Without a horizon, sweeps are made until the change is at most tol (1 - scale) / (2 scale), or tol where the scale
    factor is 1; with one, exactly `horizon` of them. Outside the window f is affine for the rest of the episode and the
    value is that of the best mean (the least, where the slope is negative): nothing is clipped. An outcome that ends
    the episode is worth f of the unrounded stock.

    Args:
      problem: an outcome list. utility: `two_slope(...)`, `Reach()`, `Power(...)` or `Custom(...)`. grid: the stocks.
      tol: float[], of the value; max_steps: int, sweeps at most, both without a horizon.
      tie_rule: "first", "last" or "random" (needs `key`) among actions within 1e-12 (1 + |best|) of the best.

    Returns: a `StockSolution`.
    Raises: as `check_stock_problem`, where the arguments are concrete; ValueError for an unknown tie rule or no key.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for the stock and the method; derived:
      docs/proofs/distributional.md, T9 to T11, for window, rounding and bound.
    Cost: 2 S A B C reads a sweep; 18 S A B C bytes to start with, or S times less where that passes 300 MB.
    """
    if tie_rule not in ("first", "last", "random"):
        raise ValueError(f"tie_rule: found {tie_rule!r}, expected 'first', 'last' or 'random'")
    if tie_rule == "random" and key is None:
        raise ValueError("key: found None, expected a key for tie_rule 'random'")
    check_stock_problem(problem, utility, grid)
    return _stock_vi(problem, utility, grid, tol, key, max_steps=max_steps, tie_rule=tie_rule)


@functools.partial(jax.jit, static_argnames=("max_steps", "tie_rule"))
def _stock_vi(problem, utility, grid, tol, key, *, max_steps, tie_rule):
    num_states = problem.available.shape[0]
    start = utility(grid.nodes)
    start = StockValue(
        jnp.broadcast_to(start, (num_states, grid.lattice.size)), *jnp.zeros((2, num_states), start.dtype)
    )
    solve = _finite if problem.horizon is not None else _unlimited
    return solve(problem, utility, grid, start, tol, key, max_steps, tie_rule)


def _finite(problem, utility, grid, start, tol, key, max_steps, tie_rule):
    horizon = problem.horizon

    def step(value, t):
        backed = stock_backup(problem, utility, grid, value, t=t, last=t == horizon - 1)
        chosen = _greedy(*backed, tie_rule, None if key is None else jax.random.fold_in(key, t))
        best = _best(*backed, utility)
        return best, (best, chosen)

    _, (value, chosen) = jax.lax.scan(step, start, jnp.arange(horizon), reverse=True)
    value = StockValue(jnp.concatenate([value.value, start.value[None]]), value.below, value.above)
    zero = jnp.zeros((), start.value.dtype)
    return StockSolution(value, StockPolicy(grid, *chosen), jnp.asarray(horizon, jnp.int32), zero, zero)


def _unlimited(problem, utility, grid, start, tol, key, max_steps, tie_rule):
    scale = jnp.asarray(scale_factor(grid, utility, problem.discount), start.value.dtype)
    contracts = scale < 1
    enough = jnp.where(contracts, tol * (1 - scale) / (2 * scale), tol)
    small = problem.reward.size * grid.lattice.size <= LARGE
    going = arrivals(problem.reward, grid, problem.discount, 0) if small else None
    tails = utility.tails()

    def step(state):
        value, _, n = state
        new = _best(*stock_backup(problem, utility, grid, value, going=going), utility)
        change = jnp.max(jnp.abs(new.value - value.value))
        if tails is not None:
            moved = (jnp.max(jnp.abs(a - b)) for a, b in zip(new[1:], value[1:], strict=True))
            slopes = (jnp.where(s == 0, 0, jnp.abs(s)) for s in tails.slope)
            change = functools.reduce(jnp.maximum, (s * m for s, m in zip(slopes, moved, strict=True)), change)
        return new, change, n + 1

    def go_on(state):
        _, change, n = state
        return ~(change <= enough) & (n < max_steps)

    state = (start, jnp.asarray(jnp.inf, start.value.dtype), jnp.zeros((), jnp.int32))
    value, change, steps = jax.lax.while_loop(go_on, step, state)
    chosen = _greedy(*stock_backup(problem, utility, grid, value, going=going), tie_rule, key)
    bound = jnp.where(contracts, scale / (1 - scale) * change, jnp.inf)
    return StockSolution(value, StockPolicy(grid, *chosen), steps, change, bound)


def stock_value(
    solution: StockSolution, utility: Utility, state: Int[Array, ""] | int, stock: Number, t: int = 0
) -> Float[Array, ""]:
    """The value of a state at any stock: interpolated between nodes, exact outside the window.

    Args: solution: of `stock_vi` with this utility; state: int[]; stock: float[], in the grid's coordinates; t: int,
      the step, with a horizon.
    Returns: float[]. Source: derived: docs/proofs/distributional.md, T10. Cost: O(1).
    """
    grid, value = solution.policy.grid, solution.value
    if value.value.ndim == 3:
        value = StockValue(value.value[t], value.below[t], value.above[t])
    at = place(grid.lattice, stock)
    row = value.value[state]
    inside = _between(row[at.index], row[at.index + 1], at.weight)
    tails = utility.tails()
    if tails is None:
        return jnp.where(at.below | at.above, jnp.nan, inside)
    mean = jnp.where(at.above, value.above[state], value.below[state])
    slope, level = (jnp.where(at.above, x[1], x[0]) for x in tails)
    return jnp.where(at.below | at.above, slope * (stock + mean) + level, inside)
