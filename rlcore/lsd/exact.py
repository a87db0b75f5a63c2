"""Exact planning of small switching bandits: optimal play among the joint local states that can be reached."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.howard import best_cycles, follow
from rlcore.lsd.joint import LIMIT, Start, TooLarge, joint_actions, joint_rewards, reachable
from rlcore.lsd.problem import SwitchingBandit, require_plays
from rlcore.lsd.restless import RestlessBandit
from rlcore.mdp import MDP, DenseMDP
from rlcore.planning import prepare
from rlcore.solver import CONVERGED, NOT_FINITE, PRECISION_LIMIT, STEP_LIMIT
from rlcore.types import Array, Float, Int, Number, require_float64

__all__ = [
    "OptimalAverage",
    "OptimalFinite",
    "PolicyCycle",
    "optimal_average",
    "optimal_finite",
    "optimal_restless",
    "policy_cycle",
    "policy_gain",
]

METHODS = ("howard", "value_iteration")
# Sweeps between two looks at the bounds.
STRIDE = 8


class OptimalAverage(NamedTuple):
    """lower, upper: float[], they enclose the best long-run reward per round, rounding included. policy: int32[n],
    joint action of every row of `reachable(...).local`; it earns at least `lower` per round. states: int, n. steps:
    int[], sweeps or policies. status: int[], CONVERGED, STEP_LIMIT, PRECISION_LIMIT or NOT_FINITE of `rlcore.solver`.
    """

    lower: Array
    upper: Array
    policy: Array
    states: Array
    steps: Array
    status: Array


class OptimalFinite(NamedTuple):
    """values: float[T], the best expected total of 1 .. T rounds from the first state. policy: int32[T, n], joint
    action in round t = 0 .. T - 1 of T, of every row of `reachable(...).local`."""

    values: Array
    policy: Array


class PolicyCycle(NamedTuple):
    """actions: bool[c, k], the arms played in each round of the cycle that a policy ends in. mean: float, its reward
    per round. lead: int, rounds before it."""

    actions: np.ndarray
    mean: float
    lead: int


def _as_mdp(payoffs, states) -> MDP:
    reward = joint_rewards(payoffs, states)
    shape = (*reward.shape, 1)
    initial = jnp.zeros(shape[0], payoffs.dtype).at[states.start].set(1)
    following = jnp.asarray(states.following)[:, :, None]
    one = jnp.ones((), payoffs.dtype)
    ended, available = jnp.zeros(shape, bool), jnp.ones(shape[:2], bool)
    return MDP(following, jnp.ones(shape, payoffs.dtype), reward[:, :, None], ended, available, one, initial)


def optimal_average(
    problem: SwitchingBandit,
    plays: int = 1,
    tol: Number = 1e-9,
    *,
    start: Start = None,
    method: str = "howard",
    max_steps: int = 1_000_000,
    limit: int = LIMIT,
) -> OptimalAverage:
    """The best long-run reward per round, between certified bounds, with a policy that earns the lower one.

    "howard": policy iteration on cycles, a few steps and exact; the change that one sweep makes to its relative values
    encloses the optimum. "value_iteration": sweeps v <- v/2 + max_a (r + v')/2, bounded in the same way; half of v is
    kept because optimal play is periodic, and plain sweeps then swing for ever.

    Args: plays: m, at most (exactly, where idling is forbidden) this many arms per round, static; tol: the width of
      the bounds that is good enough ("value_iteration"); start, limit: see `reachable`; max_steps: sweeps, static.
    Returns: OptimalAverage. Raises: ValueError: as `reachable`, or an unknown method. RuntimeError: float64 is off.
    Source: bounds: derived: docs/proofs/lsd.md#t16, after Odoni 1969 (remembered). Cost: n A per sweep; n A numbers.
    """
    require_float64("optimal_average")
    if method not in METHODS:
        raise ValueError(f"method: found {method!r}, expected one of {METHODS}")
    states = reachable(problem, start, plays, limit=limit)
    solve = _by_sweeps if method == "value_iteration" else _by_howard
    found = solve(problem.payoffs, states._replace(start=np.int32(states.start)), tol, max_steps)
    return _answer(*found, tol, max_steps)


def _answer(low, high, policy, steps, tol, max_steps) -> OptimalAverage:
    finite = jnp.isfinite(low) & jnp.isfinite(high)
    short = jnp.where(steps >= max_steps, STEP_LIMIT, PRECISION_LIMIT)
    status = jnp.where(finite, jnp.where(high - low <= tol, CONVERGED, short), NOT_FINITE).astype(jnp.int32)
    return OptimalAverage(low, high, policy, jnp.asarray(policy.shape[0], jnp.int32), steps, status)


def _rounding(value, scale, terms):
    """Error of one computed difference of a backed-up value and a value: a sum of `terms` and three operations."""
    return (4 + terms) * jnp.finfo(value.dtype).eps * (scale + jnp.max(jnp.abs(value)))


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _by_sweeps(payoffs, states, tol, max_steps):
    return _sweeps(prepare(_as_mdp(payoffs, states)), payoffs.shape[0], tol, max_steps)


def _sweeps(kernel, terms, tol, max_steps):
    """Half sweeps until the bounds are `tol` apart; terms: numbers that a backed-up value is a sum of."""

    def sweep(_, value):
        return value + (kernel.backup(value) - value) / 2

    def step(state):
        value, _, _, _, count = state
        value = jax.lax.fori_loop(0, STRIDE - 1, sweep, value - jnp.min(value))
        change = kernel.backup(value) - value
        error = _rounding(value, kernel.reward_scale, terms)
        low, high = jnp.min(change), jnp.max(change)
        return value + change / 2, low - error, high + error, high - low <= 2 * error, count + STRIDE

    def going(state):
        _, low, high, at_floor, count = state
        return (high - low > tol) & ~at_floor & (count < max_steps)

    inf = jnp.asarray(jnp.inf, kernel.reward_scale.dtype)
    start = (jnp.zeros(kernel.num_states, inf.dtype), -inf, inf, jnp.array(False), jnp.zeros((), jnp.int32))
    value, low, high, _, count = jax.lax.while_loop(going, step, start)
    return low, high, kernel.greedy(value)[1], count


def optimal_restless(
    problem: RestlessBandit,
    plays: int = 1,
    tol: Number = 1e-9,
    *,
    max_steps: int = 1_000_000,
    limit: int = LIMIT,
) -> OptimalAverage:
    """The best long-run reward per round of a few restless arms, between certified bounds.

    The sweeps of "value_iteration" in `optimal_average`, on all S^k joint states.

    Args: plays: m, at most this many arms per round, static; tol: the width of the bounds that is good enough;
      max_steps: sweeps, static; limit: joint states squared times actions allowed.
    Returns: OptimalAverage; joint states are counted in the order of `np.indices((S,) * k)`, actions as in
      `joint_actions`; the bounds hold from every state, and need not meet where states of different gain do not reach
      each other. Raises: ValueError: plays out of 1 .. k, or an instance above the limit. RuntimeError: float64 is off.
    Source: bounds: derived: docs/proofs/lsd.md#t16. Cost: n^2 A per sweep and in memory.
    """
    require_float64("optimal_restless")
    require_plays(plays, problem.num_arms)
    actions = sum(math.comb(problem.num_arms, m) for m in range(plays + 1))
    size = problem.num_local ** (2 * problem.num_arms) * actions
    if size > limit:
        raise TooLarge(
            f"problem: found {problem.num_arms} arms of {problem.num_local} states, {size} pairs of joint states times "
            f"actions, expected at most {limit}"
        )
    sets = jnp.asarray(joint_actions(problem.num_arms, plays, True))
    return _answer(*_by_dense_sweeps(problem, sets, tol, max_steps), tol, max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _by_dense_sweeps(problem, sets, tol, max_steps):
    k, s = problem.payoffs.shape
    laws = jnp.stack([problem.idle, problem.play], axis=1)

    def joint(played):
        law, reward = jnp.ones((1, 1), laws.dtype), jnp.zeros(1, laws.dtype)
        for i in range(k):
            law = jnp.kron(law, laws[i, played[i].astype(jnp.int32)])
            reward = (reward[:, None] + jnp.where(played[i], problem.payoffs[i], 0)[None, :]).ravel()
        return law, reward

    law, reward = jax.vmap(joint, out_axes=1)(sets)
    n = s**k
    one, initial = jnp.ones((), laws.dtype), jnp.full(n, 1 / n, laws.dtype)
    kernel = prepare(DenseMDP(law, reward, jnp.ones(reward.shape, bool), one, initial))
    # A sum over joint states of products of k probabilities, whose own sums err by S roundings each.
    return _sweeps(kernel, n + k * (problem.num_local + 2), tol, max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _by_howard(payoffs, states, tol, max_steps):
    reward = joint_rewards(payoffs, states)
    following = jnp.asarray(states.following)
    plan = best_cycles(following, reward, jnp.argmax(reward, axis=1), max_steps)
    error = _rounding(plan.relative, jnp.max(jnp.abs(reward)), payoffs.shape[0])
    # Greedy rather than `plan.action`: what it earns is bounded by `plan.low` without any tolerance.
    policy = jnp.argmax(reward + plan.relative[following], axis=1).astype(jnp.int32)
    return plan.low - error, plan.high + error, policy, plan.steps


def optimal_finite(
    problem: SwitchingBandit,
    horizon: int,
    plays: int = 1,
    start: Start = None,
    *,
    limit: int = LIMIT,
) -> OptimalFinite:
    """The best expected totals of 1 .. T rounds from one first state, by backward induction.

    Args: horizon: T, static; plays, start, limit: see `reachable`; the first state is the problem's own, "rested"
      unless it says otherwise.
    Returns: OptimalFinite. Rounding: values[T - 1] errs by at most 2 T^2 m machine epsilons. Raises: ValueError: as
      `reachable`, or a horizon below 1. RuntimeError: float64 is off. Source: Puterman 1994, section 4.5.
    Cost: T n A; memory n A + T n numbers.
    """
    require_float64("optimal_finite")
    if horizon < 1:
        raise ValueError(f"horizon: found {horizon}, expected an integer of at least 1")
    states = reachable(problem, start, plays, limit=limit)
    return _by_induction(problem.payoffs, states._replace(start=np.int32(states.start)), horizon)


@functools.partial(jax.jit, static_argnames=("horizon",))
def _by_induction(payoffs, states, horizon):
    # Not `backward_induction`: that keeps q[T, n, A], a hundred times the values asked for here.
    kernel = prepare(_as_mdp(payoffs, states))

    def step(value, _):
        value, action = kernel.greedy(value)
        return value, (value[states.start], action)

    value = jnp.zeros(kernel.num_states, payoffs.dtype)
    _, (values, actions) = jax.lax.scan(step, value, None, length=horizon)
    return OptimalFinite(values, actions[::-1])


def policy_cycle(
    problem: SwitchingBandit,
    policy: Int[Array, " n"] | Int[np.ndarray, " n"],
    plays: int = 1,
    start: Start = None,
    *,
    limit: int = LIMIT,
) -> PolicyCycle:
    """Follow a stationary policy from the first state until a joint state comes back; on the host.

    Args: policy: int32[n], as in `OptimalAverage`; plays, start, limit: those it was made with.
    Returns: PolicyCycle. Raises: ValueError: a policy of another size, or as `reachable`. Source: derived:
      docs/proofs/lsd.md#t16. Cost: at most n rounds of k.
    """
    states = reachable(problem, start, plays, limit=limit)
    policy = np.asarray(policy)
    if policy.shape != states.local.shape[:1]:
        raise ValueError(f"policy: found shape {policy.shape}, expected {states.local.shape[:1]}, one action per state")
    payoffs, arms = np.asarray(problem.payoffs), np.arange(problem.num_arms)
    row, met, chosen, paid = states.start, {}, [], []
    while row not in met:
        met[row] = len(chosen)
        action = policy[row]
        chosen.append(states.actions[action])
        paid.append(payoffs[arms, states.local[row]][chosen[-1]].sum())
        row = int(states.following[row, action])
    lead = met[row]
    return PolicyCycle(np.stack(chosen[lead:]), math.fsum(paid[lead:]) / len(paid[lead:]), lead)


def policy_gain(
    problem: SwitchingBandit,
    policy: Int[Array, " n"],
    plays: int = 1,
    start: Start = None,
    *,
    limit: int = LIMIT,
) -> Float[Array, ""]:
    """The reward per round of the cycle that a stationary policy ends in: `policy_cycle` under jit.

    Args, raises: as `policy_cycle`. Returns: float[]. Source: derived: docs/proofs/lsd.md#t16. Cost: n log n gathers.
    """
    states = reachable(problem, start, plays, limit=limit)
    take = lambda table: jnp.take_along_axis(table, policy[:, None], axis=1)[:, 0]  # noqa: E731
    reward = take(joint_rewards(problem.payoffs, states))
    gain, _ = follow(take(jnp.asarray(states.following)), reward, jnp.zeros_like(reward))
    return gain[states.start]
