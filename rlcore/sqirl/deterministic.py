"""Deterministic problems as tables: one successor and one reward per pair, and values over a finite horizon.

The end of an episode is one more state, index S: absorbing and without reward, so that every step is one gather.
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP, check_policy
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Int

__all__ = [
    "DeterministicTable",
    "action_values",
    "deterministic_table",
    "exploration",
    "lattice",
    "optimal_values",
    "sequence_ends",
]

LARGEST_DENOMINATOR = 10_000


@pytree
class DeterministicTable:
    """A deterministic undiscounted problem with S states, made by `deterministic_table`.

    next_state: int32[S+1,A]; S is the end of the episode, where it stays.
    reward: float[S+1,A]; row S is 0.
    initial: int32[], the first state.
    horizon: T, static.
    """

    next_state: Array
    reward: Array
    initial: Array
    horizon: int = static()

    @property
    def num_actions(self) -> int:
        """A."""
        return self.next_state.shape[1]

    @property
    def end(self) -> int:
        """S, the index of the end."""
        return self.next_state.shape[0] - 1


def _fail(name: str, found: object, expected: str):
    raise ValueError(f"{name}: found {found}, expected {expected}")


def deterministic_table(mdp: MDP) -> DeterministicTable:
    """The table of a deterministic MDP, checked on the host.

    Args: mdp: concrete (not traced); one start, a horizon, discount 1, every action available, and one outcome of
      positive probability per pair.
    Returns: DeterministicTable. Raises: TypeError: not an MDP. ValueError: one of these premises fails.
    Source: BRIDGE/SQIRL specification, 3.7. Cost: O(S A B) on the host.
    """
    if not isinstance(mdp, MDP):
        raise TypeError(f"mdp: found {type(mdp).__name__}, expected an MDP with deterministic outcomes")
    if mdp.horizon is None:
        _fail("mdp.horizon", None, "a number of steps, see rlcore.mdp.finite_horizon")
    if mdp.prob.ndim != 3:
        _fail("mdp", "a kernel that changes with time", "a stationary one, [S,A,B]")
    if np.asarray(mdp.discount) != 1:
        _fail("mdp.discount", float(mdp.discount), "1: these are methods for undiscounted returns")
    prob, initial = np.asarray(mdp.prob), np.asarray(mdp.initial)
    if np.sum(initial > 0) != 1:
        _fail("mdp.initial", f"{np.sum(initial > 0)} possible first states", "one")
    if not np.all(np.asarray(mdp.available)):
        pair = tuple(int(i) for i in np.argwhere(~np.asarray(mdp.available))[0])
        _fail("mdp.available", f"unavailable pair {pair}", "every action available in every state")
    random = np.sum(prob > 0, axis=2) != 1
    if np.any(random):
        pair = tuple(int(i) for i in np.argwhere(random)[0])
        _fail("mdp", f"a stochastic MDP: {np.sum(prob[pair] > 0)} outcomes of pair {pair}", "a deterministic one")
    pick = np.argmax(prob, axis=2)[..., None]
    terminal, following, reward = (
        np.take_along_axis(np.asarray(x), pick, axis=2)[..., 0] for x in (mdp.terminal, mdp.next_state, mdp.reward)
    )
    end = len(prob)
    following = np.where(terminal, end, following)
    return DeterministicTable(
        jnp.asarray(np.concatenate([following, np.full((1, following.shape[1]), end)]), jnp.int32),
        jnp.asarray(np.concatenate([reward, np.zeros_like(reward[:1])])),
        jnp.asarray(int(np.argmax(initial)), jnp.int32),
        mdp.horizon,
    )


def lattice(table: DeterministicTable, unit: float | None = None) -> tuple[DeterministicTable, float]:
    """The table with rewards counted in units of which they are whole multiples, so that ties of sums are exact.

    Args: table: concrete; unit: the unit, found by default: the largest one of which all rewards, as fractions with
      denominators up to 10 000, are multiples.
    Returns: (table with integer-valued float rewards, unit). Raises: ValueError: a reward is no multiple of the unit,
      to a millionth of the largest reward (tables stored as float32 hold decimals to 6e-8).
    Source: derived, BRIDGE/SQIRL specification, 3.7 ("reward lattice"). Cost: O(S A) on the host.
    """
    reward = np.asarray(table.reward, np.float64)
    if unit is None:
        fractions = {Fraction(float(r)).limit_denominator(LARGEST_DENOMINATOR) for r in np.unique(reward)} - {0}
        # gcd(a/b, c/d) = gcd(a d, c b) / (b d)
        common = Fraction(0)
        for x in fractions:
            common = Fraction(
                gcd(common.numerator * x.denominator, x.numerator * common.denominator),
                common.denominator * x.denominator,
            )
        unit = float(common) or 1.0
    if not unit > 0:
        _fail("unit", unit, "a positive number")
    steps = np.round(reward / unit)
    off = np.abs(steps * unit - reward) > 1e-6 * np.max(np.abs(reward), initial=0.0)
    if np.any(off):
        pair = tuple(int(i) for i in np.argwhere(off)[0])
        _fail("rewards", f"{reward[pair]} at pair {pair}", f"multiples of {unit:.6g}; give `unit`")
    return dataclasses.replace(table, reward=jnp.asarray(steps, table.reward.dtype)), unit


def exploration(table: DeterministicTable, policy: object = None) -> Float[Array, "T S1 A"]:
    """The exploration policy at every step, uniform by default; the end gets a row too.

    Args: policy: float[S,A] or [T,S,A], or None.
    Returns: float[T,S+1,A]. Raises: ValueError, TypeError: as `rlcore.mdp.check_policy`. Cost: O(T S A).
    """
    shape = (table.horizon, *table.next_state.shape)
    if policy is None:
        return jnp.full(shape, 1 / table.num_actions, table.reward.dtype)
    frame = MDP(
        *(jnp.zeros(()),) * 4,
        available=jnp.ones((table.end, table.num_actions), bool),
        discount=jnp.ones((), table.reward.dtype),
        initial=jnp.zeros(()),
        horizon=table.horizon,
    )
    policy = check_policy(frame, policy, by_time=True)
    if jnp.issubdtype(policy.dtype, jnp.integer):
        policy = jax.nn.one_hot(policy, table.num_actions, dtype=table.reward.dtype)
    policy = jnp.broadcast_to(policy, (table.horizon, table.end, table.num_actions))
    return jnp.concatenate([policy, jnp.full((table.horizon, 1, shape[2]), 1 / shape[2], policy.dtype)], axis=1)


def action_values(table: DeterministicTable, value: Callable) -> Float[Array, "T S1 A"]:
    """Q_t(s,a) = r + V_{t+1}(s'), where V_t = value(Q_t, t) and V_T = 0.

    Args: value: (float[S+1,A], int32[]) -> float[S+1], how a state's value follows from its actions'.
    Returns: float[T,S+1,A]. Cost: O(T S A).
    """

    def back(following, t):
        q = table.reward + following[table.next_state]
        return value(q, t), q

    return jax.lax.scan(
        back, jnp.zeros_like(table.reward[:, 0]), jnp.arange(table.horizon, dtype=jnp.int32), reverse=True
    )[1]


def optimal_values(table: DeterministicTable) -> Float[Array, "T S1 A"]:
    """Q*: float[T,S+1,A]. Cost: O(T S A)."""
    return action_values(table, lambda q, t: jnp.max(q, axis=1))


def sequence_ends(
    table: DeterministicTable, depth: int, t: Int[Array, ""]
) -> tuple[Int[Array, "S1 K"], Float[Array, "S1 K"]]:
    """Where each of the A^depth action sequences leads from each state at time t, and what it pays on the way.

    Sequences are in lexicographic order, first action most significant; actions from T on do nothing.
    Returns: (state int32[S+1,A^depth] at time min(t + depth, T), reward float[S+1,A^depth]). Cost: S A^depth depth.
    """
    count = table.num_actions**depth
    state = jnp.broadcast_to(jnp.arange(table.end + 1, dtype=jnp.int32)[:, None], (table.end + 1, count))
    total = jnp.zeros(state.shape, table.reward.dtype)
    # Known while tracing: XLA would take seconds to fold the divisions.
    digits = np.stack(np.unravel_index(np.arange(count), (table.num_actions,) * depth)).astype(np.int32)
    for j in range(depth):
        action, inside = jnp.asarray(digits[j])[None], t + j < table.horizon
        total = total + jnp.where(inside, table.reward[state, action], 0)
        state = jnp.where(inside, table.next_state[state, action], state)
    return state, total
