"""Policies of states and stocks evaluated: the law of their return, projected, and the value of a utility, exact."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.law_backup import chosen_outcomes, law_backup, paths, zero_laws
from rlcore.distributional.representations import Representation
from rlcore.distributional.stock import StockGrid, StockPolicy, StockValue, mean_factor, scale_factor
from rlcore.distributional.stock_vi import StockSolution
from rlcore.distributional.stock_window import check_grid, check_stock_problem
from rlcore.distributional.utility import Utility
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Int, Number

__all__ = [
    "LawEvaluation",
    "check_policy",
    "check_state",
    "choice_of",
    "law_evaluation",
    "laws_of_choice",
    "stock_evaluation",
]


class LawEvaluation(NamedTuple):
    """What `law_evaluation` returns.

    laws: float[S, C, N] of the return without the stock, probabilities on a lattice or quantiles. below, above:
    float[S, N], outside the window. With a horizon they are those of step 0. steps: int32[], sweeps. residual:
    float[], the last change, in units of reward: of the stop-loss curves, or of the quantiles.
    """

    laws: Array
    below: Array
    above: Array
    steps: Int[Array, ""]
    residual: Float[Array, ""]


def choice_of(policy: StockPolicy) -> Int[Array, "*H S R"]:
    """The policy's actions as the table of laws has its rows: nodes, below, above. Cost: its size."""
    return jnp.concatenate([policy.action, policy.below[..., None], policy.above[..., None]], axis=-1)


def same_grid(first: StockGrid, second: StockGrid) -> bool:
    """Whether two grids have the same nodes and rounding; traced spacings are taken to agree. Cost: O(1)."""
    if jax.tree.structure(first) != jax.tree.structure(second):
        return False
    spacings = (first.lattice.spacing, second.lattice.spacing)
    if any(isinstance(x, jax.core.Tracer) for x in spacings):
        return True
    return float(spacings[0]) == float(spacings[1])


def check_policy(problem: MDP, policy: StockPolicy) -> None:
    """Refuse, on the host, a policy that is not for this problem.

    Raises: ValueError: arrays of wrong shapes; actions out of range or, where concrete, not available.
    Cost: its size.
    """
    lead = () if problem.horizon is None else (problem.horizon,)
    num_states, num_actions = problem.available.shape
    expected = (*lead, num_states, policy.grid.lattice.size)
    shapes = (policy.action.shape, policy.below.shape, policy.above.shape)
    if shapes != (expected, expected[:-1], expected[:-1]):
        raise ValueError(f"policy: found shapes {shapes}, expected action {expected}, below and above {expected[:-1]}")
    if any(isinstance(x, jax.core.Tracer) for x in (*jax.tree.leaves(policy), problem.available)):
        return
    choice = np.asarray(choice_of(policy))
    if choice.min() < 0 or choice.max() >= num_actions:
        raise ValueError(f"policy: found actions {choice.min()} to {choice.max()}, expected 0 to {num_actions - 1}")
    available = np.broadcast_to(np.asarray(problem.available), (*lead, num_states, num_actions))
    if not np.all(np.take_along_axis(available, choice, axis=-1)):
        raise ValueError("policy: found an action that its state does not have, expected available ones")


def check_state(problem: MDP, state: Int[Array, ""] | int | None) -> None:
    """Refuse, on the host, a state that the problem lacks: indexing would take another. Raises: ValueError."""
    count = problem.available.shape[0]
    if state is not None and not isinstance(state, jax.core.Tracer) and not 0 <= int(state) < count:
        raise ValueError(f"state: found {state}, expected a number in 0, ..., {count - 1}")


def law_evaluation(
    problem: MDP,
    policy: StockPolicy,
    representation: Representation,
    *,
    tol: Number = 1e-10,
    num_steps: int | None = None,
    max_steps: int = 10_000,
    telescoped: bool = True,
) -> LawEvaluation:
    """The law of the return under a policy, on the policy's own grid, projected at every step.

    The categorical law has the true mean, a larger variance, by at most d^2 / (4 (1 - discount^2)), and is dominated in
    convex order: every CVaR is a lower bound, all within (d / 2) / sqrt(1 - discount^2) of the true law in w_1 and w_2,
    d the spacing of its atoms, where no mass leaves the lattice. Quantiles "low" and "high" bracket the true law in
    first-order stochastic dominance. A stock that has left the window counts as outside for good.

    Args:
      problem: an outcome list. policy: with a horizon, one per step. representation: `Categorical` or `Quantiles`.
      tol: float[], without a horizon: sweeps end where curves or quantiles are within tol of the fixed point, or
        change by at most tol where the discount is 1. num_steps: exactly this many sweeps instead. max_steps: at most
        this many.
      telescoped: by default laws of the rounded problem, whose rewards make up for the rounding of the stock. False:
        of the true return when the policy is followed by keeping track of the rounded stock.

    Returns: a `LawEvaluation`.
    Raises: ValueError: a policy of a wrong shape or with unavailable actions; num_steps with a horizon. TypeError,
      ValueError: as `check_grid`.
    Source: Rowland et al. (2018) and Dabney et al. (2018) for the projections; derived: docs/proofs/distributional.md,
      T12. Cost: S C B reads of laws a sweep, three tables of S C N numbers.
    """
    check_grid(problem, policy.grid)
    check_policy(problem, policy)
    if num_steps is not None:
        if problem.horizon is not None:
            raise ValueError(f"num_steps: found {num_steps} with horizon {problem.horizon}, expected None: it counts")
        tol, max_steps = -1.0, num_steps
    return _law_evaluation(problem, policy, representation, tol, max_steps=max_steps, telescoped=telescoped)


@functools.partial(jax.jit, static_argnames=("max_steps", "telescoped"))
def _law_evaluation(problem, policy, representation, tol, *, max_steps, telescoped):
    grid, choice = policy.grid, choice_of(policy)
    table = zero_laws(problem, grid, representation)
    backup = functools.partial(law_backup, problem, grid, representation, telescoped=telescoped)
    if problem.horizon is None:
        table, steps, change = laws_of_choice(problem, backup, table, choice, tol, max_steps)
    else:
        times = jnp.arange(problem.horizon)

        def step(table, now):
            t, choice = now
            return backup(table, choice, t=t, last=t == problem.horizon - 1), None

        table, _ = jax.lax.scan(step, table, (times, choice), reverse=True)
        steps, change = jnp.asarray(problem.horizon, jnp.int32), jnp.zeros((), table.dtype)
    laws = representation.output(table)
    return LawEvaluation(laws[:, :-2], laws[:, -2], laws[:, -1], steps, change)


def laws_of_choice(problem: MDP, backup, table: Float[Array, "S R N"], choice, tol: Number, max_steps: int):
    """Sweep `backup` until the table changes by at most tol (1 - discount) / discount, or tol for discount 1.

    Returns: (table, sweeps, last change). Source: derived: docs/proofs/distributional.md, T12: curves and quantiles
      contract by the discount in the supremum norm. Cost: that of the sweeps.
    """
    discount = jnp.asarray(problem.discount, table.dtype)
    enough = jnp.where(discount < 1, tol * (1 - discount) / discount, tol)

    def step(state):
        table, _, n = state
        new = backup(table, choice)
        return new, jnp.max(jnp.abs(new - table)), n + 1

    def go_on(state):
        _, change, n = state
        return ~(change <= enough) & (n < max_steps)

    state = (table, jnp.asarray(jnp.inf, table.dtype), jnp.zeros((), jnp.int32))
    table, change, steps = jax.lax.while_loop(go_on, step, state)
    return table, steps, change


def stock_evaluation(
    problem: MDP, utility: Utility, policy: StockPolicy, *, tol: Number = 1e-10, max_steps: int = 10_000
) -> StockSolution:
    """E f(c + G) of every state and stock under a policy, on the policy's own grid, without any law.

    Args: problem: an outcome list. utility: f. policy: with a horizon, one per step. tol, max_steps: as in `stock_vi`,
      without a horizon.
    Returns: a `StockSolution` of this policy; its bound is to the fixed point, inf where nothing contracts.
    Raises: as `check_stock_problem`; ValueError for a policy of a wrong shape or with unavailable actions.
    Source: derived: docs/proofs/distributional.md, T9 and T10. Cost: 2 S C B reads a sweep.
    """
    check_stock_problem(problem, utility, policy.grid)
    check_policy(problem, policy)
    return _stock_evaluation(problem, utility, policy, tol, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames="max_steps")
def _stock_evaluation(problem, utility, policy, tol, *, max_steps):
    grid, choice = policy.grid, choice_of(policy)
    start = utility(grid.nodes)
    start = jnp.broadcast_to(start, (problem.available.shape[0], grid.lattice.size))
    table = jnp.concatenate([start, jnp.zeros((start.shape[0], 2), start.dtype)], axis=1)
    backup = functools.partial(_value_backup, problem, utility, grid)
    if problem.horizon is None:
        return _fixed_value(problem, utility, policy, backup, table, choice, tol, max_steps)

    def step(table, now):
        t, choice = now
        new = backup(table, choice, t=t, last=t == problem.horizon - 1)
        return new, new

    _, tables = jax.lax.scan(step, table, (jnp.arange(problem.horizon), choice), reverse=True)
    value = jnp.concatenate([tables[..., :-2], start[None]])
    zero = jnp.zeros((), start.dtype)
    value = StockValue(value, tables[..., -2], tables[..., -1])
    return StockSolution(value, policy, jnp.asarray(problem.horizon, jnp.int32), zero, zero)


def _fixed_value(problem, utility, policy, backup, table, choice, tol, max_steps):
    scale = jnp.asarray(scale_factor(policy.grid, utility, problem.discount), table.dtype)
    contracts = scale < 1
    enough = jnp.where(contracts, tol * (1 - scale) / (2 * scale), tol)
    tails = utility.tails()
    slopes = jnp.zeros(2) if tails is None else jnp.abs(tails.slope)
    weight = jnp.concatenate([jnp.ones(table.shape[1] - 2), slopes]).astype(table.dtype)[None]

    def step(state):
        table, _, n = state
        new = backup(table, choice)
        return new, jnp.max(jnp.where(weight > 0, weight * jnp.abs(new - table), 0)), n + 1

    def go_on(state):
        _, change, n = state
        return ~(change <= enough) & (n < max_steps)

    state = (table, jnp.asarray(jnp.inf, table.dtype), jnp.zeros((), jnp.int32))
    table, change, steps = jax.lax.while_loop(go_on, step, state)
    bound = jnp.where(contracts, scale / (1 - scale) * change, jnp.inf)
    return StockSolution(StockValue(table[:, :-2], table[:, -2], table[:, -1]), policy, steps, change, bound)


def _value_backup(problem, utility, grid, table, choice, *, t=0, last=False) -> Float[Array, "S R"]:
    """Values of one step under a policy; the last two columns hold mean returns."""
    now = problem.at_time(t)
    size = grid.lattice.size
    rows = jnp.arange(size + 2, dtype=jnp.int32)
    tails = utility.tails()
    factor, scale = mean_factor(grid, problem.discount, t), scale_factor(grid, utility, problem.discount)

    def of_state(row):
        kernel = chosen_outcomes(*row)
        going = paths(kernel, rows, grid, problem.discount, t, last)
        seen = table[going.state, going.column]
        # on the sides the true reward is the shift, whatever the grid does
        mean = going.shift + problem.discount * jnp.where(going.ended, 0, seen)
        outside = going.column >= size
        if tails is None:
            seen = jnp.where(outside, jnp.nan, seen)
        else:
            slope, level = (jnp.where(going.column == size, x[0], x[1]) for x in tails)
            seen = jnp.where(outside, slope * (going.stock + factor * seen) + level, seen)
        seen = scale * jnp.where(going.ended, utility(going.stock), seen)
        seen = jnp.where(rows[:, None] >= size, mean, seen)
        return jnp.sum(jnp.where(going.prob > 0, going.prob * seen, 0), axis=-1)

    return jax.vmap(of_state)(((now.next_state, now.prob, now.reward, now.terminal), choice))
