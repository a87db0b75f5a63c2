"""The law of the return under a stock policy: mass pushed forward over states, accounts of the stock and returns."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.evaluation import check_policy, check_state, choice_of
from rlcore.distributional.lattice import NEAR, Lattice, lattice
from rlcore.distributional.law_backup import chosen_outcomes, paths
from rlcore.distributional.laws import Law
from rlcore.distributional.representations import partial_returns
from rlcore.distributional.stock import StockPolicy, discount_power, round_stock
from rlcore.distributional.stock_window import check_grid, reward_spacing
from rlcore.mdp import MDP, finite_horizon
from rlcore.types import Array, Float, Int, Key, Number

__all__ = ["PolicyLaw", "policy_law", "return_spacing", "sample_returns"]

# Numbers of mass that the default lattice may ask for, where returns lie on no lattice of their own.
CELLS = 2**18
# Numbers of mass, for policies that may never end, above which no further steps are tried.
MOST_CELLS = 2**20


class PolicyLaw(NamedTuple):
    """What `policy_law` returns.

    law: the `Law` of the return without the stock, on a lattice, increasing. error: float[], its Wasserstein distance
    w_1 from the true law is at most this, in units of reward: 0 where returns lie on the lattice. remaining: float[],
    the probability of episodes still going on at the last step, at what they have earned so far: with discount 1 and
    no horizon what they earn later is known to nobody, and not in `error`; with a lattice that is too small, also the
    mass that has left it.
    """

    law: Law
    error: Float[Array, ""]
    remaining: Float[Array, ""]


def _sees(policy: StockPolicy) -> bool:
    """Whether the policy reads the true stock; the others keep account of the rounded one."""
    return policy.grid.rounding in ("exact", "linear")


def _at(policy: StockPolicy, t) -> Int[Array, "S R"]:
    choice = choice_of(policy)
    return choice if choice.ndim == 2 else jax.lax.dynamic_index_in_dim(choice, t, keepdims=False)


def _column(policy: StockPolicy, stock) -> Int[Array, "..."]:
    """The row of the policy's table that speaks for a stock: a node, then below, then above."""
    at, size = round_stock(policy.grid, stock), policy.grid.lattice.size
    inside = at.index + (at.weight >= 0.5).astype(jnp.int32)
    return jnp.where(at.below, size, jnp.where(at.above, size + 1, inside))


def _stock_after(policy: StockPolicy, stock, total, discount, t):
    """The stock when `total`, discounted to the start, has been earned."""
    after = stock + total
    return after if policy.grid.coordinates == "discounted" else after / discount_power(discount, t)


def _kernel(problem: MDP, t):
    now = problem.at_time(t)
    return now.next_state, now.prob, now.reward, now.terminal


def _seeing(problem, policy, stock, points, t, last):
    """Row of the table, probability, reward and end of each outcome, for a policy that reads the true stock."""
    column = _column(policy, _stock_after(policy, stock, points.points, problem.discount, t))
    action = _at(policy, t)[:, column]
    state = jnp.arange(action.shape[0])[:, None]
    row, prob, reward, terminal = (x[state, action][:, None] for x in _kernel(problem, t))
    return row, prob, reward, terminal | last


def _tracking(problem, policy, stock, points, t, last):
    """The same for a policy that keeps account of the rounded stock: nothing depends on the true return."""
    size = policy.grid.lattice.size + 2
    rows = jnp.arange(size, dtype=jnp.int32)

    def of_state(row):
        return paths(chosen_outcomes(*row), rows, policy.grid, problem.discount, t, last, telescoped=False)

    going = jax.vmap(of_state)((_kernel(problem, t), _at(policy, t)))
    return tuple(x[:, :, None] for x in (going.state * size + going.column, going.prob, going.shift, going.ended))


def _start(policy: StockPolicy, stock) -> Float[Array, "R"]:
    """The weights of the rows on which the account of a stock begins."""
    if _sees(policy):
        return jnp.ones(1)
    size = policy.grid.lattice.size
    at = round_stock(policy.grid, stock)
    side = jnp.where(at.below, size, size + 1)
    out = jnp.asarray(at.below | at.above)
    lower, upper = (jnp.where(out, side, at.index + i) for i in (0, 1))
    return jnp.zeros(size + 2).at[lower].add(1 - at.weight).at[upper].add(at.weight)


@functools.partial(jax.jit, static_argnames=("num_steps", "split"))
def _push(problem, policy, stock, initial, points, num_steps, split):
    size, dtype = points.size, problem.prob.dtype
    outcomes = _seeing if _sees(policy) else _tracking
    start = initial[:, None] * _start(policy, stock).astype(dtype)[None]
    mass = jnp.zeros((*start.shape, size), dtype).at[:, :, -points.first].set(start)
    zero = jnp.zeros((), dtype)

    def step(carry, t):
        mass, ended, square = carry
        last = jnp.asarray(False) if problem.horizon is None else t == problem.horizon - 1
        row, prob, reward, end = outcomes(problem, policy, stock, points, t, last)
        units = discount_power(problem.discount, t) * reward / points.spacing
        whole = jnp.floor(units + NEAR)
        weight = jnp.where(units - whole > NEAR, units - whole, 0)
        amount = mass[..., None] * prob
        # a split keeps the mean, so the errors of the steps are uncorrelated and their squares add up
        square = square + jnp.sum(amount * weight * (1 - weight))
        new = jnp.zeros((mass.shape[0] * mass.shape[1], size), dtype)
        for up, share in ((0, 1 - weight), (1, weight)) if split else ((0, jnp.ones_like(weight)),):
            column = jnp.arange(size, dtype=jnp.int32)[None, None, :, None] + whole.astype(jnp.int32) + up
            column = jnp.where(column < 0, size, column)
            part = amount * share
            new = new.at[row, column].add(jnp.where(end, 0, part), mode="drop")
            ended = ended.at[column].add(jnp.where(end, part, 0), mode="drop")
        return (new.reshape(mass.shape), ended, square), None

    carry = (mass, jnp.zeros(size, dtype), zero)
    (mass, ended, square), _ = jax.lax.scan(step, carry, jnp.arange(num_steps))
    alive = jnp.sum(mass)
    discount = jnp.asarray(problem.discount, dtype)
    ahead = discount_power(discount, num_steps) * jnp.max(jnp.abs(jnp.where(problem.prob > 0, problem.reward, 0)))
    ahead = jnp.where(discount < 1, alive * ahead / (1 - discount), 0)
    error = points.spacing.astype(dtype) * jnp.sqrt(square) + ahead
    law = Law(points.points.astype(dtype), ended + jnp.sum(mass, axis=(0, 1)))
    return PolicyLaw(law, error, 1 - jnp.sum(ended))


def policy_law(
    problem: MDP,
    policy: StockPolicy,
    stock: Number,
    *,
    state: Int[Array, ""] | int | None = None,
    points: Lattice | None = None,
    tol: float = 1e-10,
    num_steps: int | None = None,
    max_steps: int = 4096,
) -> PolicyLaw:
    """The law of the return when a policy starts with some stock: exact where returns lie on a lattice.

    A policy on a grid that is "exact" or "linear" reads the true stock; one that rounds keeps account of its rounded
    stock, and a stock that has left its window counts as outside for good. Outside the window the saturated actions
    act; returns are never clipped. Where returns lie on no lattice (discount < 1, as a rule) each reward is shared by
    two points so that the mean is kept, a policy that reads the stock reads it to that resolution, and `error` bounds
    what the law can be off.

    Args:
      problem: an outcome list. policy: with a horizon, one per step. stock: float[], in the grid's coordinates, any
        number. state: int[], where episodes start, by default drawn from `problem.initial`.
      points: a lattice with the point 0 that holds every partial sum of discounted rewards; by default the rewards' own
        where they have one (with discount 1 / m: within 65 536 points), else as fine as 2^18 cells allow. Needed, as
        is `num_steps`, where the problem is traced.
      tol: without a horizon, steps are taken until at most this probability is left (discount 1) or at most this much
        reward (discount < 1). num_steps: exactly this many instead. max_steps: at most this many, and none once
        the law has grown to 2^20 cells.

    Returns: a `PolicyLaw`.
    Raises: TypeError, ValueError: as `check_grid`; ValueError: a policy of a wrong shape or with unavailable actions;
      points without 0 or too few for the partial sums; num_steps with a horizon; a state that the problem lacks.
    Source: derived: docs/proofs/distributional.md, T11. Cost: S Z B scattered adds a step, Z the points, or
      S C Z B where the policy keeps account of its rounded stock.
    """
    check_grid(problem, policy.grid)
    check_policy(problem, policy)
    if problem.horizon is not None and num_steps is not None:
        raise ValueError(f"num_steps: found {num_steps} with horizon {problem.horizon}, expected None: it counts")
    if points is not None and not points.first <= 0 < points.first + points.size:
        raise ValueError(f"points: found {points.first} to {points.first + points.size - 1}, expected the point 0 too")
    check_state(problem, state)
    initial = problem.initial if state is None else jax.nn.one_hot(state, problem.initial.size)
    initial = initial.astype(problem.prob.dtype)
    leaves = jax.tree.leaves((problem, policy))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        steps = problem.horizon if num_steps is None else num_steps
        if points is None or steps is None:
            raise ValueError("points, num_steps: found None with a traced problem, expected both (or a horizon)")
        return _push(problem, policy, stock, initial, points, steps, True)
    used = _only_used(problem, policy)
    steps = problem.horizon if problem.horizon is not None else num_steps
    counted = steps is not None or float(problem.discount) < 1
    steps = min(64, max_steps) if steps is None else steps
    while True:
        fitting, split, enough = _fitting(used, policy, steps, points, tol)
        if counted and problem.horizon is None and num_steps is None:
            steps = min(enough, max_steps)
        found = _push(problem, policy, stock, initial, fitting, steps, split)
        crowded = found.law.values.size * initial.size > MOST_CELLS
        if counted or float(found.remaining) <= tol or steps >= max_steps or crowded:
            return found
        steps = min(2 * steps, max_steps)


def _only_used(problem: MDP, policy: StockPolicy) -> MDP:
    """The problem without the actions that the policy never takes."""
    choice = np.asarray(choice_of(policy))
    used = np.any(choice[..., None] == np.arange(problem.available.shape[1]), axis=-2)
    used = used if used.ndim == 2 else used.any(axis=0)
    return dataclasses.replace(problem, available=problem.available & jnp.asarray(used))


def _enough(problem: MDP, tol: float) -> int:
    """The steps after which at most tol of discounted reward is left; 1 with discount 1."""
    discount = float(problem.discount)
    most = np.max(np.abs(np.where(np.asarray(problem.prob) > 0, np.asarray(problem.reward), 0)))
    if discount == 1 or most == 0:
        return 1
    return max(1, int(np.ceil(np.log(tol * (1 - discount) / most) / np.log(discount))))


def _fitting(problem: MDP, policy: StockPolicy, steps: int, points: Lattice | None, tol: float):
    """The lattice of returns, whether rewards must be shared between its points, and the steps that matter on it."""
    least, most = partial_returns(problem)
    if not np.isfinite(least + most):
        least, most = partial_returns(finite_horizon(problem, steps))
    least, most, discount = min(least, 0.0), max(most, 0.0), float(problem.discount)
    spacing = return_spacing(problem)
    if points is not None:
        width = float(points.spacing)
        first, size = points.first, points.size
        if least < width * (first - NEAR) or most > width * (first + size - 1 + NEAR):
            raise ValueError(
                f"points: found {width * first} to {width * (first + size - 1)}, expected the partial sums of rewards, "
                f"{least} to {most}, inside"
            )
        split = spacing is None or abs(spacing / width - round(spacing / width)) > 1e-9
        return points, split, _enough(problem, max(tol, width / 8) if split else tol)
    if spacing is not None and (discount == 1 or (most - least) / spacing < 2**16):
        return lattice(least, most, spacing), False, _enough(problem, tol)
    rows = 1 if _sees(policy) else policy.grid.lattice.size + 2
    spacing = max(most - least, 1e-9) / max(CELLS // (rows * problem.initial.size), 2**8)
    # beyond these steps rewards are far below a point; each step before may leave the range by one
    enough = _enough(problem, max(tol, spacing / 8))
    out = spacing * (steps if discount == 1 or problem.horizon is not None else enough)
    return lattice(least - out, most + out, spacing), True, enough


def return_spacing(problem: MDP) -> float | None:
    """The spacing of a lattice that holds every discounted reward, or None where there is none. Cost: one pass."""
    inverse = 1 / float(problem.discount)
    if inverse > 1 and (problem.horizon is None or abs(inverse - round(inverse)) > 1e-12):
        return None
    try:
        return reward_spacing(problem) * float(problem.discount) ** (1 if inverse == 1 else problem.horizon - 1)
    except ValueError:
        return None


@functools.partial(jax.jit, static_argnames=("num_episodes", "num_steps"))
def sample_returns(
    problem: MDP, policy: StockPolicy, stock: Number, key: Key[Array, ""], num_episodes: int, num_steps: int
) -> Float[Array, "N"]:
    """Returns of simulated episodes from the initial law, cut after `num_steps` steps or at the horizon.

    Args: problem: an outcome list. policy, stock: as in `policy_law`. key: of the draws. num_episodes: N; num_steps:
      static.
    Returns: float[N], discounted sums of rewards. Cost: N num_steps draws.
    """
    steps = num_steps if problem.horizon is None else min(num_steps, problem.horizon)
    stock = jnp.asarray(stock, problem.prob.dtype)
    rows = 1 if _sees(policy) else policy.grid.lattice.size + 2

    def episode(key):
        state_key, column_key, key = jax.random.split(key, 3)
        state = jax.random.categorical(state_key, jnp.log(problem.initial)).astype(jnp.int32)
        column = jax.random.categorical(column_key, jnp.log(_start(policy, stock))).astype(jnp.int32)

        def step(carry, t):
            state, column, total, alive = carry
            row = column
            if _sees(policy):
                row = _column(policy, _stock_after(policy, stock, total, problem.discount, t))
            kernel = tuple(x[state, _at(policy, t)[state, row]] for x in _kernel(problem, t))
            going = paths(kernel, row, policy.grid, problem.discount, t, jnp.asarray(False), telescoped=False)
            if _sees(policy):  # only the true stock counts: no coin of an interpolating grid is tossed
                going = going._replace(**dict(zip(("state", "prob", "shift", "ended"), kernel, strict=True)))
            i = jax.random.categorical(jax.random.fold_in(key, t), jnp.log(going.prob))
            total = total + jnp.where(alive, discount_power(problem.discount, t) * going.shift[i], 0)
            column = jnp.where(rows == 1, column, going.column[jnp.minimum(i, going.column.size - 1)])
            return (going.state[i], column, total, alive & ~going.ended[i]), None

        start = (state, column, jnp.zeros((), problem.prob.dtype), jnp.asarray(True))
        return jax.lax.scan(step, start, jnp.arange(steps))[0][2]

    return jax.vmap(episode)(jax.random.split(key, num_episodes))
