"""Distributional value iteration over states and stocks: laws of the return, and actions that score best by them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.distributional.law_backup import law_backup, mark_unknown, scores, worth, zero_laws
from rlcore.distributional.objective import (
    Functional,
    change_of_value,
    check_functional,
    enough_change,
    functional_tree,
)
from rlcore.distributional.representations import Representation
from rlcore.distributional.stock import StockGrid, StockPolicy, StockValue, break_ties, tied_actions
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = ["DistSolution", "dist_vi", "solution_of"]

TIE_RULES = ("first", "last", "random", "average")


class DistSolution(NamedTuple):
    """What `dist_vi` and `dist_pi` return.

    value: `StockValue`, what `laws` are worth: K(c + G) at the nodes; on the sides the mean return for a utility, K(G)
    for a function of laws; with a horizon at every step, as in `StockSolution`. laws: float[S, C, N] of the return
    without the stock, probabilities on a lattice or quantiles; below, above: float[S, N], laws outside the window. With
    a horizon laws are those of step 0. policy: greedy with respect to `laws`, with a horizon to those of the next step.
    steps: int32[], sweeps, or improvements. residual: float[], the last change of the value or, of `dist_pi`, what the
    best action would change.
    """

    value: StockValue
    laws: Array
    below: Array
    above: Array
    policy: StockPolicy
    steps: Int[Array, ""]
    residual: Float[Array, ""]


def solution_of(
    grid: StockGrid, representation: Representation, table, value: StockValue, choice, steps, residual
) -> DistSolution:
    """The answer from a table of laws and the actions of its rows, with a horizon of every step. Cost: one table."""
    laws = representation.output(table)
    policy = StockPolicy(grid, choice[..., :-2], choice[..., -2], choice[..., -1])
    return DistSolution(value, laws[:, :-2], laws[:, -2], laws[:, -1], policy, steps, residual)


def dist_vi(
    problem: MDP,
    functional: Functional,
    grid: StockGrid,
    representation: Representation,
    *,
    tol: Number = 1e-10,
    num_steps: int | None = None,
    max_steps: int = 10_000,
    tie_rule: str = "first",
    key: RandomKey = None,
    homogeneous: bool | None = None,
    shifts: bool | None = None,
) -> DistSolution:
    """Laws of the return by dynamic programming: each sweep scores K(c + reward + discount G'), then projects the best.

    The functional K must be indifferent to mixtures (what is better in every branch is better in the mixture) and to
    the discount; then finite horizons are exact but for the grid and the projection. Expectations of utilities and
    almost sure guarantees (`essential_infimum`) are. The CVaR or the variance of the return themselves are not: they
    run, at every discount, and are not optimised, since what is best for a tail later need not be best for the tail
    now; optimise them over the initial stock of a two-slope utility. Actions are scored before the projection, by laws
    that were projected before; `stock_vi` has no projection at all, and its policy no error by it.

    Without a horizon sweeps end when the value changes by at most tol (1 - scale) / (2 scale), or tol where nothing
    contracts. Laws need not converge, where actions are tied, and do not end them.

    Args:
      problem: an outcome list.
      functional: a utility f, for K = E f(c + G), or a function of the `Law` of c + G, such as
        `functools.partial(cvar, level=0.5)`.
      grid: the stocks. representation: `Categorical(lattice)` or `Quantiles(size)`.
      tol: float[], of the value. num_steps: exactly this many sweeps instead. max_steps: at most this many. All three
        without a horizon.
      tie_rule: "first", "last", "random" (needs `key`, drawn anew every sweep) or "average": the mean of the laws of
        all tied actions, of which the policy names the first. Tied is within 1e-12 (1 + |best|).
      homogeneous, shifts: promises that a function of laws orders those of g X alike for every g > 0, and those of
        c + X for every c; by default what is known of the functionals of this package. Without the second nothing is
        known outside the window: nodes whose paths leave it get NaN with a horizon, and without one it is refused.

    Returns: a `DistSolution`.
    Raises: as `check_stock_problem`, where the arguments are concrete; ValueError for a functional that is not
      indifferent to the discount, an unknown tie rule or a random one without a key, num_steps with a horizon.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for the method; derived: docs/proofs/distributional.md, T3 and
      T9 to T14, for what it needs and what it loses.
    Cost: 2 S C B N reads a sweep beside the scores (A times more with "average"). Memory: about four tables of S C N
      numbers, and intermediate ones of a piece of the states (2 MB on a CPU, 512 MB elsewhere) or of one state.
    """
    if tie_rule not in TIE_RULES:
        raise ValueError(f"tie_rule: found {tie_rule!r}, expected one of {', '.join(TIE_RULES)}")
    if tie_rule == "random" and key is None:
        raise ValueError("key: found None, expected a key for tie_rule 'random'")
    check_functional(problem, functional, grid, homogeneous, shifts)
    if num_steps is not None:
        if problem.horizon is not None:
            raise ValueError(f"num_steps: found {num_steps} with horizon {problem.horizon}, expected None: it counts")
        tol, max_steps = -1.0, num_steps
    functional = functional_tree(functional, shifts)
    return _dist_vi(problem, functional, grid, representation, tol, key, max_steps=max_steps, tie_rule=tie_rule)


@functools.partial(jax.jit, static_argnames=("max_steps", "tie_rule"))
def _dist_vi(problem, functional, grid, representation, tol, key, *, max_steps, tie_rule):
    table = mark_unknown(functional, zero_laws(problem, grid, representation))
    solve = _unlimited if problem.horizon is None else _finite
    return solve(problem, functional, grid, representation, table, tol, key, max_steps, tie_rule)


def _choose(q, tie_rule: str, key) -> tuple[Int[Array, "S R"], Array]:
    """The named action, and what is propagated: the same, or weights of all tied ones."""
    if tie_rule != "average":
        choice = break_ties(q, tie_rule, key)
        return choice, choice
    tied = tied_actions(q).astype(q.dtype)
    return break_ties(q, "first"), tied / jnp.maximum(jnp.sum(tied, axis=-1, keepdims=True), 1)


def _sweep(problem, functional, grid, representation, tie_rule, table, value, key, t, last):
    q = scores(problem, functional, grid, representation, table, value, t=t, last=last)
    choice, propagated = _choose(q, tie_rule, key)
    table = law_backup(problem, grid, representation, table, propagated, t=t, last=last)
    table = mark_unknown(functional, table, q)
    return table, worth(functional, grid, representation, table, problem.discount, t), choice


def _finite(problem, functional, grid, representation, table, tol, key, max_steps, tie_rule):
    horizon = problem.horizon
    start = worth(functional, grid, representation, table, problem.discount, horizon)

    def step(carry, t):
        now = None if key is None else jax.random.fold_in(key, t)
        last = t == horizon - 1
        table, value, choice = _sweep(problem, functional, grid, representation, tie_rule, *carry, now, t, last)
        return (table, value), (value, choice)

    (table, _), (value, choice) = jax.lax.scan(step, (table, start), jnp.arange(horizon), reverse=True)
    value = StockValue(jnp.concatenate([value.value, start.value[None]]), value.below, value.above)
    steps, zero = jnp.asarray(horizon, jnp.int32), jnp.zeros((), table.dtype)
    return solution_of(grid, representation, table, value, choice, steps, zero)


def _unlimited(problem, functional, grid, representation, table, tol, key, max_steps, tie_rule):
    enough = enough_change(problem, functional, grid, tol)

    def step(state):
        table, value, _, n = state
        now = None if key is None else jax.random.fold_in(key, n)
        table, new, _ = _sweep(problem, functional, grid, representation, tie_rule, table, value, now, 0, False)
        return table, new, change_of_value(functional, new, value), n + 1

    def go_on(state):
        _, _, change, n = state
        return ~(change <= enough) & (n < max_steps)

    value = worth(functional, grid, representation, table, problem.discount)
    state = (table, value, jnp.asarray(jnp.inf, table.dtype), jnp.zeros((), jnp.int32))
    table, value, change, steps = jax.lax.while_loop(go_on, step, state)
    q = scores(problem, functional, grid, representation, table, value)
    choice, _ = _choose(q, tie_rule, None if key is None else jax.random.fold_in(key, steps))
    return solution_of(grid, representation, table, value, choice, steps, change)
