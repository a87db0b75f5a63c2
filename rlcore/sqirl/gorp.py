"""GORP: try every action sequence of length k, follow it by random actions, keep the first action of the best."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP, Problem, StickyMDP
from rlcore.pytree import pytree
from rlcore.sqirl.deterministic import DeterministicTable, deterministic_table, exploration, lattice
from rlcore.types import Array, Float, Int, Key

__all__ = ["GorpPlan", "gorp", "open_loop_return"]

SCORES = ("mean", "max")


@pytree
class GorpPlan:
    """actions: int32[T], an open-loop plan. total: float[], its (expected) return, exact.
    steps: int[], environment steps of all episodes, from their start to their end."""

    actions: Array
    total: Array
    steps: Array


def check_depth(depth: int, horizon: int) -> None:
    """Raise ValueError for a depth k outside 1..T."""
    if not 1 <= depth <= horizon:
        raise ValueError(f"k: found {depth}, expected a planning depth of at least 1 and at most the horizon {horizon}")


def open_loop_return(problem: Problem, actions: Int[Array, " T"]) -> Float[Array, ""]:
    """Expected return of a sequence of actions that looks at no state.

    Args: problem: any, with S states; discount 1 is not required; actions: int32[T].
    Returns: float[]. Source: derived, the law of the state pushed forward. Cost: T sweeps.
    """
    num_actions = problem.available.shape[1]

    def step(carry, action_and_time):
        mass, total, weight = carry
        action, t = action_and_time
        now = problem.at_time(t)
        pairs = mass[:, None] * jax.nn.one_hot(action, num_actions, dtype=mass.dtype)[None]
        total = total + weight * jnp.sum(pairs * now.expected_reward())
        return (now.push_forward(pairs), total, weight * problem.discount), None

    start = (problem.initial, jnp.zeros_like(problem.discount), jnp.ones_like(problem.discount))
    return jax.lax.scan(step, start, (actions, jnp.arange(len(actions), dtype=jnp.int32)))[0][1]


@partial(jax.jit, static_argnames=("k", "m", "score", "replayed"))
def _plan(
    table: DeterministicTable, repeat: Array, policy: Array, key: Array, k: int, m: int, score: str, replayed: bool
):
    """Actions int32[T] and steps. `replayed`: episodes start at time 0, as they must where the prefix is random."""
    horizon, num_actions, count = table.horizon, table.num_actions, table.num_actions**k
    integer = jnp.result_type(int)
    digits = jnp.asarray(np.stack(np.unravel_index(np.arange(count), (num_actions,) * k), axis=1), jnp.int32)
    # The last level is left out: a uniform number beyond it by rounding still draws the last action.
    levels = jnp.cumsum(policy, axis=-1)[..., :-1]

    def episodes(i, plan, state, key):
        """Returns [A^k, m] and steps of the episodes whose first i actions are the plan's."""

        def step(t, carry):
            state, before, total, steps = carry
            draw, again = jax.random.split(jax.random.fold_in(key, t))
            u = jax.random.uniform(draw, (count, m), policy.dtype)
            chosen = jnp.sum(u[..., None] >= levels[t][state], axis=-1, dtype=jnp.int32)
            planned = jnp.where(t < i, plan[t], digits[:, jnp.clip(t - i, 0, k - 1)])[:, None]
            chosen = jnp.where(t < i + k, planned, chosen)
            if replayed:
                stuck = (t > 0) & (jax.random.uniform(again, (count, m), policy.dtype) < repeat)
                chosen = jnp.where(stuck, before, chosen)
            steps = steps + jnp.sum(state != table.end, dtype=integer)
            return table.next_state[state, chosen], chosen, total + table.reward[state, chosen], steps

        start = jnp.full((count, m), table.initial if replayed else state, jnp.int32)
        none = jnp.zeros((count, m), table.reward.dtype)
        carry = (start, jnp.zeros((count, m), jnp.int32), none, jnp.zeros((), integer))
        return jax.lax.fori_loop(0 if replayed else i, horizon, step, carry)[2:]

    def choose(i, carry):
        plan, state, elapsed, steps = carry
        total, taken = episodes(i, plan, state, jax.random.fold_in(key, i))
        # Sums instead of means: the same order, and exact for rewards that are integers.
        best = jnp.argmax(jnp.sum(total, axis=1) if score == "mean" else jnp.max(total, axis=1))
        action = (best // num_actions ** (k - 1)).astype(jnp.int32)
        replay = 0 if replayed else elapsed * count * m
        elapsed = elapsed + (state != table.end).astype(integer)
        return plan.at[i].set(action), table.next_state[state, action], elapsed, steps + taken + replay

    zero = jnp.zeros((), integer)
    plan, _, _, steps = jax.lax.fori_loop(
        0, horizon, choose, (jnp.zeros(horizon, jnp.int32), table.initial, zero, zero)
    )
    return plan, steps


def gorp(
    problem: MDP | StickyMDP, k: int, m: int, key: Key[Array, ""], *, policy: object = None, score: str = "mean"
) -> GorpPlan:
    """Greedy Over Random Policy: for each step, m episodes per action sequence of length k, then random actions.

    The first action of the sequence of best score joins the plan; ties go to the first sequence in lexicographic
    order. Rewards on a lattice are added in its units, so that equal sums tie exactly. One run: vmap over keys, with
    the problem closed over.

    Args: problem: a deterministic MDP, or `sticky` of one (then episodes are random, the plan stays open-loop and
      its expected return is exact); k, m: depth and episodes per sequence, static; policy: what follows a
      sequence, float[S,A] or [T,S,A], uniform by default; score: "mean", or "max" (the largest return, k = 1 only).
    Returns: GorpPlan; steps count every episode from its start to its end, the plan's prefix too, at most T^2 A^k m.
    Raises: ValueError: a stochastic MDP, and all that `deterministic_table` refuses; k outside 1..T; m below 1; an
      unknown score, or "max" with k > 1; more steps than the integer type can count.
    Source: Laidlaw et al. 2023 as the authors' code has it: BRIDGE/SQIRL specification, 3.7. Cost: at most T^2 A^k m
      steps; half of that where the MDP is deterministic, as episodes start where the plan leads.
    """
    base = problem.base if isinstance(problem, StickyMDP) else problem
    # Eager under a jit that closes over the problem, too.
    with jax.ensure_compile_time_eval():
        table = deterministic_table(base)
        try:
            scored, _ = lattice(table)
        except ValueError:
            scored = table
    check_depth(k, table.horizon)
    if m < 1:
        raise ValueError(f"m: found {m}, expected at least 1 episode per sequence")
    if score not in SCORES or (score == "max" and k > 1):
        raise ValueError(f"score: found {score!r} with k = {k}, expected 'mean', or 'max' with k = 1")
    most, limit = table.horizon**2 * table.num_actions**k * m, np.iinfo(jnp.result_type(int)).max
    if most > limit:
        raise ValueError(
            f"m: found {m}, that is up to {most:.3g} steps, expected at most the {limit:.3g} one can count"
        )
    is_sticky = isinstance(problem, StickyMDP)
    repeat = problem.probability if is_sticky else jnp.zeros((), table.reward.dtype)
    actions, steps = _plan(scored, repeat, exploration(table, policy), key, k, m, score, is_sticky)
    return GorpPlan(actions, open_loop_return(problem, actions), steps)
