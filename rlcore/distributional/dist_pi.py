"""Distributional policy iteration over states and stocks: a policy's laws, then the actions that score best by them."""

import functools

import jax
import jax.numpy as jnp

from rlcore.distributional.dist_vi import DistSolution, solution_of
from rlcore.distributional.evaluation import check_policy, choice_of, laws_of_choice, same_grid
from rlcore.distributional.law_backup import law_backup, mark_unknown, scores, worth, zero_laws
from rlcore.distributional.objective import (
    Functional,
    best_value,
    change_of_value,
    check_functional,
    enough_change,
    functional_tree,
)
from rlcore.distributional.representations import Representation
from rlcore.distributional.stock import StockGrid, StockPolicy, break_ties, tied_actions
from rlcore.mdp import MDP
from rlcore.types import Number

__all__ = ["dist_pi"]


def dist_pi(
    problem: MDP,
    functional: Functional,
    grid: StockGrid,
    representation: Representation,
    *,
    policy: StockPolicy | None = None,
    eval_steps: int | None = None,
    tol: Number = 1e-10,
    max_steps: int = 1000,
    homogeneous: bool | None = None,
    shifts: bool | None = None,
) -> DistSolution:
    """Policy iteration by laws of the return: evaluate, score K(c + reward + discount G') of every action, improve.

    An action is changed only for one that scores better by more than tol (1 + |best|), so that ties and the error of
    evaluation start no cycle. It ends when no action changes and, where evaluation is cut short, the value has settled.

    Args:
      problem: an outcome list without a horizon; with one, `dist_vi` is exact in one pass.
      functional, grid, representation, homogeneous, shifts: as in `dist_vi`.
      policy: to start from, on `grid`; by default the first available action everywhere.
      eval_steps: sweeps of each evaluation, which goes on from the last laws; 1 is value iteration with sticky ties.
        None: sweeps to tol / 4, 10 000 at most.
      tol: float[], of ties and of the value. max_steps: improvements at most.

    Returns: a `DistSolution`: laws of the returned policy where evaluation is to tolerance; steps counts evaluations.
    Raises: as `dist_vi`; ValueError for a horizon, eval_steps < 1, or a policy on another grid.
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for the method; derived: docs/proofs/distributional.md, T6.
    Cost: S C B N reads a sweep and one scoring an improvement; memory as `dist_vi`.
    """
    if problem.horizon is not None:
        raise ValueError(f"problem: found horizon {problem.horizon}, expected none: dist_vi is exact in one pass")
    if eval_steps is not None and eval_steps < 1:
        raise ValueError(f"eval_steps: found {eval_steps}, expected None or a number >= 1")
    check_functional(problem, functional, grid, homogeneous, shifts)
    if policy is None:
        first = jnp.argmax(problem.available, axis=-1).astype(jnp.int32)
        choice = jnp.broadcast_to(first[:, None], (first.shape[0], grid.lattice.size + 2))
    else:
        check_policy(problem, policy)
        if not same_grid(policy.grid, grid):
            raise ValueError("policy: found one on another grid, expected the grid of this call")
        choice = choice_of(policy).astype(jnp.int32)
    return _dist_pi(
        problem,
        functional_tree(functional, shifts),
        grid,
        representation,
        choice,
        tol,
        eval_steps=eval_steps,
        max_steps=max_steps,
    )


@functools.partial(jax.jit, static_argnames=("eval_steps", "max_steps"))
def _dist_pi(problem, functional, grid, representation, choice, tol, *, eval_steps, max_steps):
    table = zero_laws(problem, grid, representation)
    backup = functools.partial(law_backup, problem, grid, representation)
    enough = enough_change(problem, functional, grid, tol) if eval_steps is not None else jnp.inf

    def evaluate(table, choice):
        if eval_steps is None:
            return laws_of_choice(problem, backup, table, choice, tol / 4, 10_000)[0]
        return jax.lax.fori_loop(0, eval_steps, lambda _, x: backup(x, choice), table)

    def step(state):
        table, choice, _, _, _, n = state
        table = evaluate(table, choice)
        value = worth(functional, grid, representation, table, problem.discount)
        q = scores(problem, functional, grid, representation, table, value)
        kept = jnp.take_along_axis(tied_actions(q, tol), choice[..., None], axis=-1)[..., 0]
        better = jnp.where(kept, choice, break_ties(q, "first"))
        residual = change_of_value(functional, best_value(functional, q), value)
        return table, better, value, jnp.any(better != choice), residual, n + 1

    def go_on(state):
        _, _, _, changed, residual, n = state
        return (changed | ~(residual <= enough)) & (n < max_steps)

    value = worth(functional, grid, representation, table, problem.discount)
    state = (table, choice, value, jnp.asarray(True), jnp.asarray(jnp.inf, table.dtype), jnp.zeros((), jnp.int32))
    table, choice, value, _, residual, steps = jax.lax.while_loop(go_on, step, state)
    return solution_of(grid, representation, mark_unknown(functional, table), value, choice, steps, residual)
