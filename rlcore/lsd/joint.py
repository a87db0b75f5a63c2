"""The joint local states of a small switching bandit: which can be reached, and a planner that looks them up.

Their graph does not depend on payoffs: it is searched on the host, once per size; `jax.vmap` over payoffs shares it.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, initial_state, require_plays, transition_tables
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key, PyTree, require_float64

__all__ = [
    "LIMIT",
    "JointPolicy",
    "JointStates",
    "Start",
    "TooLarge",
    "joint_actions",
    "joint_policy",
    "joint_rewards",
    "reachable",
]

# A named start, or the local state of every arm.
Start = str | Sequence[int] | Int[np.ndarray, " k"] | Int[Array, " k"] | None
LIMIT = 20_000_000


class TooLarge(ValueError):
    """An instance has more joint states than exact planning was allowed to take."""


class JointStates(NamedTuple):
    """The n joint local states that can be reached, and where the A joint actions lead.

    local: int32[n, k], in order of their mixed-radix code. following: int32[n, A]. actions: bool[A, k], arms played;
    the empty round, where it is allowed, is the last. start: int, row of the first state. Arrays of NumPy.
    """

    local: np.ndarray
    following: np.ndarray
    actions: np.ndarray
    start: int


def joint_actions(num_arms: int, plays: int, allow_idle: bool) -> np.ndarray:
    """bool[A, k]: the sets of arms that one round may play, at most `plays` of them, or exactly where none may idle.

    Large sets first, the empty one last. Raises: ValueError: plays out of 1 .. k. Cost: A k.
    """
    require_plays(plays, num_arms)
    sizes = range(plays, -1, -1) if allow_idle else (plays,)
    sets = [s for size in sizes for s in itertools.combinations(range(num_arms), size)]
    masks = np.zeros((len(sets), num_arms), bool)
    for row, chosen in zip(masks, sets, strict=True):
        row[list(chosen)] = True
    return masks


def reachable(problem: SwitchingBandit, start: Start = None, plays: int = 1, *, limit: int = LIMIT) -> JointStates:
    """Search the joint local states that can be reached, breadth first; payoffs are not read.

    Args: start: "rested", "one", "just", int[k] local states, or None for the problem's own; plays: m, at most this
      many arms per round (exactly, where the problem forbids idling); limit: states x actions allowed.
    Returns: JointStates. Raises: ValueError: an instance above the limit, plays out of 1 .. k, a start that is no
      state.
    Source: definition. Cost: n A k, once: the last few graphs are kept.
    """
    local = _start_local(problem, start)
    key = (problem.num_local, problem.satiation, problem.idle_rule, problem.allow_idle, plays, tuple(local), limit)
    return _search(*key)


def _start_local(problem, start):
    if start is None or isinstance(start, str):
        # A problem may be traced here: only its sizes are read.
        with jax.ensure_compile_time_eval():
            return np.asarray(initial_state(problem, start)).tolist()
    local = np.asarray(start)
    k, s = problem.num_arms, problem.num_local
    if local.shape != (k,) or not np.issubdtype(local.dtype, np.integer) or local.min() < 0 or local.max() >= s:
        raise ValueError(f"start: found {local.tolist()}, expected {k} local states in 0 .. {s - 1}")
    return local.tolist()


def _refuse(found, size, num_actions, limit):
    raise TooLarge(
        f"problem: found {found} joint states out of {size} with {num_actions} actions each, expected at most {limit} "
        "states x actions for exact planning; bound the optimum by `relaxation` and play by a planner with a "
        "certificate instead, or raise `limit`"
    )


@functools.lru_cache(maxsize=8)
def _search(s, low, idle_rule, allow_idle, plays, start, limit) -> JointStates:
    k = len(start)
    sets = sum(math.comb(k, m) for m in (range(plays + 1) if allow_idle else (plays,)))
    if sets > limit or s**k >= 2**62:
        _refuse("an unknown number of", s**k, sets, limit)
    actions = joint_actions(k, plays, allow_idle)
    with jax.ensure_compile_time_eval():
        tables = transition_tables(SwitchingBandit(jnp.zeros((k, s)), low, idle_rule, allow_idle))
        play, idle = (np.asarray(x, np.int64) for x in tables)
    radix = s ** np.arange(k - 1, -1, -1, dtype=np.int64)

    def successors(codes):
        after = np.zeros((len(codes), len(actions)), np.int64)
        for i in range(k):
            e = codes // radix[i] % s
            after += np.where(actions[None, :, i], play[e][:, None], idle[e][:, None]) * radix[i]
        return after

    first = np.array([np.dot(start, radix)])
    seen, frontier = first, first
    while len(frontier):
        if len(seen) * len(actions) > limit:
            _refuse(f"more than {len(seen) - 1}", s**k, len(actions), limit)
        new = np.unique(successors(frontier))
        at = np.minimum(np.searchsorted(seen, new), len(seen) - 1)
        frontier = new[seen[at] != new]
        seen = np.sort(np.concatenate([seen, frontier]), kind="stable")
    local = np.stack([seen // r % s for r in radix], axis=1).astype(np.int32)
    following = np.searchsorted(seen, successors(seen)).astype(np.int32)
    for x in (local, following, actions):
        x.flags.writeable = False
    return JointStates(local, following, actions, int(np.searchsorted(seen, first[0])))


def joint_rewards(payoffs: Float[Array, "k S"], states: JointStates) -> Float[Array, "n A"]:
    """float[n, A], the mean payoff of every joint action in every joint state. Cost: n A k."""
    arms = jnp.arange(payoffs.shape[0])[None, :]
    return payoffs[arms, states.local] @ jnp.asarray(states.actions, payoffs.dtype).T


@pytree
class JointPolicy:
    """A planner that looks its joint state up in a table; build it with `joint_policy`.

    codes: int64[n], increasing, of the joint states; radix: int64[k], code = sum of radix * local. policy: int32[n], or
    int32[T, n] for round t of T. actions: bool[A, k]. Cost: log n look-ups.
    """

    codes: Array
    radix: Array
    policy: Array
    actions: Array

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """Nothing to remember."""
        return ()

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play as the table says; a state that is not in it is answered as a neighbour."""
        code = jnp.sum(local.astype(self.codes.dtype) * self.radix)
        row = jnp.minimum(jnp.searchsorted(self.codes, code), self.codes.shape[0] - 1)
        now = self.policy if self.policy.ndim == 1 else self.policy[t]
        return self.actions[now[row]], state


def joint_policy(
    problem: SwitchingBandit,
    policy: Int[Array, " n"] | Int[Array, "T n"],
    plays: int = 1,
    start: Start = None,
    *,
    limit: int = LIMIT,
) -> JointPolicy:
    """The planner of an exact policy, for `simulate` from the same start.

    Args: policy: of `OptimalAverage` or `OptimalFinite`; plays, start, limit: those it was made with.
    Returns: JointPolicy. Raises: RuntimeError: float64 is off (codes need 64 bits); as `reachable`. Cost: n k.
    """
    require_float64("joint_policy")
    states = reachable(problem, start, plays, limit=limit)
    radix = problem.num_local ** np.arange(problem.num_arms - 1, -1, -1, dtype=np.int64)
    codes = states.local.astype(np.int64) @ radix
    return JointPolicy(jnp.asarray(codes), jnp.asarray(radix), jnp.asarray(policy), jnp.asarray(states.actions))
