"""Episodes of a traced length: many finite-horizon problems, padded to one shape, in one compiled program.

A problem's `horizon` is static, so problems of different horizons compile apart. An `Episodic` keeps the horizon as the
number of scan steps and adds the true number of steps as data; `stacked` pads a list of problems and stacks them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP, StickyMDP, backup, check_policy, deterministic_policy, uniform_policy
from rlcore.planning.finite import FiniteValues, aggregate_values
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = [
    "EpisodeState",
    "Episodic",
    "episodic",
    "episodic_values",
    "padded",
    "policy_return",
    "policy_state",
    "reset",
    "stacked",
    "step",
    "step_outcome",
]


@pytree
class Episodic:
    """A problem whose episodes have a traced number of steps; build it with `episodic`, `padded` or `stacked`.

    problem: an `MDP` or a `StickyMDP` of one, whose static horizon is the number of scan steps.
    length: int32[], the true number of steps, at most the horizon: from step `length` on nothing happens.
    """

    problem: MDP | StickyMDP
    length: Array


class EpisodeState(NamedTuple):
    """Where a simulated episode stands.

    state: int32[], of the problem without stickiness. previous: int32[], the action executed before (0 at first).
    t: int32[], steps done; equal to the length once the episode is over, for whatever reason.
    """

    state: Int[Array, ""]
    previous: Int[Array, ""]
    t: Int[Array, ""]


def _base(problem: MDP | StickyMDP):
    return problem.base if isinstance(problem, StickyMDP) else problem


def _on_base(problem: MDP | StickyMDP, change) -> MDP | StickyMDP:
    return StickyMDP(change(problem.base), problem.probability) if isinstance(problem, StickyMDP) else change(problem)


def _check(problem) -> None:
    base = problem.base if isinstance(problem, StickyMDP) else problem
    if not isinstance(base, MDP):
        raise TypeError(f"problem: found {type(base).__name__}, expected an MDP or a StickyMDP of an MDP")
    if problem.horizon is None:
        raise ValueError("problem.horizon: found None, expected a number of steps; see `finite_horizon`")


def episodic(problem: MDP | StickyMDP) -> Episodic:
    """A problem with its own horizon as length.

    Args:
      problem: an outcome list with a horizon, sticky or not.

    Returns: `Episodic`.
    Raises: TypeError for another kind of problem, ValueError without a horizon.
    Cost: none.
    """
    _check(problem)
    return Episodic(problem, jnp.asarray(problem.horizon, jnp.int32))


def padded(
    problem: MDP | StickyMDP,
    *,
    states: int | None = None,
    actions: int | None = None,
    branches: int | None = None,
    steps: int | None = None,
) -> Episodic:
    """The same problem in a larger shape; values, returns and simulations of what was there are unchanged.

    Added states are unreachable, added actions unavailable, added outcomes have probability 0, added steps do nothing.
    State (s, b) of a sticky problem has index s A + b with the A of the padded shape.

    Args:
      problem: an outcome list with a horizon, sticky or not.
      states, actions, branches, steps: the shape, no smaller than the problem's S, A, B, horizon; None leaves it.

    Returns: `Episodic` with a problem of shape [states, actions, branches] and horizon `steps`.
    Raises: ValueError for a smaller shape, or for more steps where the kernel changes with time; TypeError as
      `episodic`.
    Cost: one copy on the host.
    """
    _check(problem)
    base = _base(problem)
    old = (*base.prob.shape[-3:], base.horizon)
    given = {"states": states, "actions": actions, "branches": branches, "steps": steps}
    new = []
    for (name, size), least in zip(given.items(), old, strict=True):
        if size is not None and size < least:
            raise ValueError(f"{name}: found {size}, expected at least the problem's {least}")
        new.append(least if size is None else int(size))
    if base.prob.ndim == 4 and new[3] != base.horizon:
        raise ValueError(f"steps: found {new[3]}, expected {base.horizon}, the number of kernels of `problem`")
    grow = [(0, n - o) for n, o in zip(new[:3], old[:3], strict=True)]
    lead = [(0, 0)] * (base.prob.ndim - 3)

    def widen(array, fill):
        return np.pad(np.asarray(array), lead + grow, constant_values=fill)

    added = ~np.any(widen(np.ones(base.prob.shape, bool), False), axis=-1)
    prob, terminal = widen(base.prob, 0), widen(base.terminal, False)
    prob[..., 0] = np.where(added, 1, prob[..., 0])
    terminal[..., 0] |= added
    available = np.pad(np.asarray(base.available), grow[:2])
    available[old[0] :, 0] = True  # every state needs an action
    wide = MDP(
        next_state=jnp.asarray(widen(base.next_state, 0)),
        prob=jnp.asarray(prob),
        reward=jnp.asarray(widen(base.reward, 0)),
        terminal=jnp.asarray(terminal),
        available=jnp.asarray(available),
        discount=base.discount,
        initial=jnp.asarray(np.pad(np.asarray(base.initial), grow[0])),
        horizon=new[3],
    )
    return Episodic(_on_base(problem, lambda _: wide), jnp.asarray(base.horizon, jnp.int32))


def stacked(problems: Sequence[MDP | StickyMDP]) -> Episodic:
    """Pad a list of problems to the smallest common shape and stack them, for `jax.vmap` over the leading axis.

    Args:
      problems: outcome lists with horizons; if one is sticky, the others become sticky with probability 0.

    Returns: `Episodic` whose leaves have a leading axis, in the order given.
    Raises: ValueError for an empty list, TypeError for float types that differ; as `padded`.
    Cost: copies on the host.
    """
    if not problems:
        raise ValueError("problems: found none, expected at least one")
    for problem in problems:
        _check(problem)
    kinds = {str(_base(problem).prob.dtype) for problem in problems}
    if len(kinds) > 1:
        raise TypeError(f"problems: found float types {sorted(kinds)}, expected one")
    if any(isinstance(problem, StickyMDP) for problem in problems):
        never = jnp.zeros((), _base(problems[0]).prob.dtype)
        problems = [p if isinstance(p, StickyMDP) else StickyMDP(p, never) for p in problems]
    shapes = np.array([(*_base(p).prob.shape[-3:], p.horizon) for p in problems])
    names = ("states", "actions", "branches", "steps")
    largest = dict(zip(names, map(int, shapes.max(axis=0)), strict=True))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[padded(problem, **largest) for problem in problems])


def _draw(prob: Float[Array, "B"], uniform: Float[Array, ""]) -> Int[Array, ""]:
    """The outcome whose part of the cumulated law holds `uniform`, which is scaled so that rounding cannot miss."""
    cumulated = jnp.cumsum(prob)
    return jnp.sum(uniform * cumulated[-1] >= cumulated, dtype=jnp.int32)


def reset(episodic: Episodic, key: Key[Array, ""]) -> EpisodeState:
    """The start of an episode.

    Args:
      episodic: one problem.
      key: used where the first state is random.

    Returns: `EpisodeState`.
    Cost: O(S).
    """
    initial = _base(episodic.problem).initial
    first = _draw(initial, jax.random.uniform(key, (), initial.dtype))
    return EpisodeState(first, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def step_outcome(
    episodic: Episodic, state: EpisodeState, action: Int[Array, ""], key: Key[Array, ""]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """What `step` does with the same key: the action it executes and which of its B outcomes it draws.

    Args: as `step`.
    Returns: (int32[] the action executed, int32[] the index of the outcome).
    Cost: O(B).
    """
    base = _base(episodic.problem).at_time(state.t)
    repeats, outcome = jax.random.uniform(key, (2,), base.prob.dtype)
    executed = jnp.asarray(action, jnp.int32)
    if isinstance(episodic.problem, StickyMDP):
        sticks = (repeats < episodic.problem.probability) & (state.t > 0)
        executed = jnp.where(sticks, state.previous, executed)
    return executed, _draw(base.prob[state.state, executed], outcome)


def step(
    episodic: Episodic, state: EpisodeState, action: Int[Array, ""], key: Key[Array, ""]
) -> tuple[EpisodeState, Float[Array, ""], Bool[Array, ""]]:
    """One step of an episode; once it is over, nothing happens.

    Args:
      episodic: one problem.
      state: where the episode stands.
      action: int[], the action chosen; a sticky problem may execute the one before.
      key: of this step.

    Returns: (the next state, the reward, whether the episode is over: by a terminal outcome or by its length).
    Cost: O(B).
    """
    base = _base(episodic.problem).at_time(state.t)
    executed, drawn = step_outcome(episodic, state, action, key)
    pick = lambda table: table[state.state, executed, drawn]  # noqa: E731
    running = state.t < episodic.length
    over = ~running | pick(base.terminal) | (state.t + 1 >= episodic.length)
    after = EpisodeState(
        jnp.where(running, pick(base.next_state), state.state),
        jnp.where(running, executed, state.previous),
        jnp.where(over, episodic.length, state.t + 1),
    )
    return after, jnp.where(running, pick(base.reward), jnp.zeros_like(base.reward[0, 0, 0])), over


def policy_state(episodic: Episodic, state: EpisodeState) -> Int[Array, ""]:
    """The row of a policy's table: the state, or s A + (action before) of a sticky problem. Cost: O(1)."""
    if not isinstance(episodic.problem, StickyMDP):
        return state.state
    return state.state * episodic.problem.available.shape[1] + state.previous


def episodic_values(
    episodic: Episodic,
    aggregate: str | Float[Array, "S A"] | Float[Array, "T S A"] | Int[Array, "S"] | Int[Array, "T S"] = "max",
) -> FiniteValues:
    """Values of every step, exact up to rounding; 0 from step `length` on.

    Args:
      episodic: one problem; `jax.vmap` a padded stack.
      aggregate: "max" (optimal), "min" (worst), "mean" (uniform over available actions), or a policy: float[S,A] or
        actions int[S], or either with a leading axis of the problem's horizon; states as `policy_state` counts them.

    Returns: `FiniteValues(q[T,S,A], value[T+1,S])` with T the problem's static horizon.
    Raises: ValueError for an unknown word; as `check_policy` for what is no policy.
    Source: Puterman 1994, section 4.5 (optimal) and 4.2 (a policy).
    Cost: T sweeps, memory T S A.
    """
    if isinstance(aggregate, str):
        if aggregate not in ("max", "min", "mean"):
            raise ValueError(f"aggregate: found {aggregate!r}, expected 'max', 'min', 'mean' or a policy")
        policy = uniform_policy(episodic.problem) if aggregate == "mean" else None
        aggregate = "policy" if aggregate == "mean" else aggregate
    else:
        policy, aggregate = check_policy(episodic.problem, aggregate, by_time=True), "policy"
        if jnp.issubdtype(policy.dtype, jnp.integer):
            policy = deterministic_policy(policy, episodic.problem.available.shape[-1], episodic.problem.discount.dtype)
    return _values(episodic, policy, aggregate=aggregate)


@functools.partial(jax.jit, static_argnames=("aggregate",))
def _values(episodic, policy, *, aggregate):
    problem = episodic.problem

    def back(value, row):
        t, rule = row
        q = backup(problem.at_time(t), value)
        value = aggregate_values(q, problem.available, aggregate, policy if rule is None else rule)
        q, value = (jnp.where(t < episodic.length, x, jnp.zeros_like(x)) for x in (q, value))
        return value, (q, value)

    last = jnp.zeros(problem.initial.shape, problem.discount.dtype)
    rules = policy if policy is not None and policy.ndim == 3 else None
    _, (q, value) = jax.lax.scan(back, last, (jnp.arange(problem.horizon, dtype=jnp.int32), rules), reverse=True)
    return FiniteValues(q, jnp.concatenate([value, last[None]]))


def policy_return(
    episodic: Episodic, policy: Float[Array, "S A"] | Float[Array, "T S A"] | Int[Array, "S"] | Int[Array, "T S"]
) -> Float[Array, ""]:
    """The expected return of a policy from the start, exact up to rounding.

    Args:
      episodic, policy: as in `episodic_values`.

    Returns: float[].
    Raises: as `check_policy` for what is no policy.
    Cost: T sweeps.
    """
    return episodic.problem.initial @ episodic_values(episodic, policy).value[0]
