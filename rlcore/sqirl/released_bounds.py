"""The released code's tight bounds on the failure of GORP, for comparison: two of the ways they are put together are
not bounds (docs/proofs/sqirl.md#t8). The exact probability is `gorp_failure`.

At each state and time the probability of choosing a sequence is put between l and u by four methods; failure is the
largest sum of pi f with l <= pi <= u, sum pi = 1, and the smallest such value over the methods counts.
"""

from collections.abc import Callable
from functools import partial
from math import inf, isqrt, log

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP
from rlcore.sqirl.deterministic import (
    action_values,
    deterministic_table,
    exploration,
    lattice,
    optimal_values,
    sequence_ends,
)
from rlcore.sqirl.gorp import check_depth
from rlcore.sqirl.gorp_failure import returns
from rlcore.types import require_float64

__all__ = ["CORRECTED", "METHODS", "binomial_limits", "released_failure", "released_horizon", "released_search"]

METHODS = ("binomial", "bennett", "bernstein", "berry-esseen")
# The binomial method with the atom at 0 in its first bin, which is a bound.
CORRECTED = "binomial with atom"
LEVELS = np.arange(101) / 100
# The methods over a grid of levels compare all pairs of sequences; the released code stops at 100.
MOST_SEQUENCES = 100
MOST_BINOMIAL = 1_000_000
# Up to here a table of the whole law costs less than its values at the edges.
LARGEST_TABLE = 600


def _by_levels(below: Callable, above: Callable, edge_low: np.ndarray, edge_high: np.ndarray, mass: np.ndarray):
    """l and u from bins of each sequence's own law.

    below, above: bounds on P(X_s' <= x) for x[K, J], as [K, K, J] (row: whose bin, column: whose law).
    edge_low, edge_high: [K, J], ends of the bins. mass: [K, J].
    """
    own = np.eye(len(mass), dtype=bool)[:, :, None]
    low = np.sum(mass * np.prod(np.where(own, 1, below(edge_low)), axis=1), axis=1)
    high = np.sum(mass * np.prod(np.where(own, 1, above(edge_high)), axis=1), axis=1)
    return low, high


def binomial_limits(q: np.ndarray, m: int, *, atom: bool) -> tuple[np.ndarray, np.ndarray]:
    """Limits on the probability that each of Bin(m, q_s) is the first largest.

    Args: q: float[K]; m: from 1; atom: whether X = 0 belongs to the first bin; in the released code it is in none.
    Returns: (l float[K], u float[K]); with the atom these are bounds. Source: docs/proofs/sqirl.md#t8. Cost: 100 K^2.
    """
    from scipy.special import bdtr, ndtri

    # Actions often tie: one table per value.
    values, index = np.unique(q, return_inverse=True)
    table = bdtr(np.arange(m + 1), m, values[:, None])[index] if m < LARGEST_TABLE else None
    if m < 30:
        edges = np.stack([np.searchsorted(row, LEVELS) for row in table]).astype(float)
    else:
        spread = np.sqrt(m * q * (1 - q))[:, None]
        steps = ndtri(LEVELS) * np.where(spread > 0, spread, 1)
        edges = np.floor(np.clip(np.where(spread > 0, steps, 0) + (m * q)[:, None], 0, m))
    edges[:, 0], edges[:, -1] = 0, m
    if table is None:
        cdf = bdtr(edges[:, None, :], m, q[None, :, None])
    else:
        cdf = np.swapaxes(table[:, edges.astype(int)], 0, 1)
    mass = np.diff(np.diagonal(cdf).T, axis=1)
    low, high = _by_levels(lambda _: cdf[..., :-1], lambda _: cdf[..., 1:], edges[:, :-1], edges[:, 1:], mass)
    if atom:
        high = high + np.prod(cdf[0, :, 0])
    return low, high


def _tail(distance: np.ndarray, m: float, spread: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Bernstein: exp(-m d^2 / 2 / (sigma^2 + b d / 3)) for d > 0, else 1."""
    d = np.maximum(distance, 0)
    scale = spread + width * d / 3
    # A sequence of one value never strays.
    return np.where(d > 0, np.where(scale > 0, np.exp(-m * d**2 / 2 / np.where(scale > 0, scale, 1)), 0), 1)


def _bernstein(q: np.ndarray, w: np.ndarray, o: np.ndarray, m: float):
    spread, width = (q - w) * (o - q), o - w
    # Level 0 is far enough by any finite number: the ends are clipped to the range.
    steps = -np.log(np.maximum(LEVELS, 1e-300))
    room = width[:, None] * steps / m
    reach = (room + np.sqrt(18 * spread[:, None] * steps / m + room**2)) / 3
    reach[:, 0] = inf
    low = np.maximum(q[:, None] - reach, w[:, None])[:, :-1]
    high = np.minimum(q[:, None] + reach[:, ::-1], o[:, None])[:, 1:]
    args = m, spread[None, :, None], width[None, :, None]
    below = lambda x: 1 - _tail(x[:, None, :] - q[None, :, None], *args)  # noqa: E731
    above = lambda x: _tail(q[None, :, None] - x[:, None, :], *args)  # noqa: E731
    return _by_levels(below, above, low, high, np.full(low.shape, 0.01))


def _berry_esseen(q: np.ndarray, deviation: np.ndarray, third: np.ndarray, m: float):
    from scipy.special import ndtr, ndtri

    s, rho = deviation, third
    certain = s <= 0
    cube = np.where(certain, 1, s**3)
    error = np.minimum(0.33554 * (rho + 0.415 * s**3), 0.3328 * (rho + 0.429 * s**3)) / (cube * np.sqrt(m))
    error = np.where(certain, 0, error)
    scale = np.where(certain, 1, s) / np.sqrt(m)
    with np.errstate(invalid="ignore"):
        step = lambda level: np.where(  # noqa: E731
            certain[:, None], q[:, None], q[:, None] + scale[:, None] * ndtri(np.clip(level, 0, 1))
        )
        low = step(LEVELS[:-1] - error[:, None])
        high = step(LEVELS[1:] + error[:, None])

    def normal(x, sign):
        at = np.where(certain[None, :, None], np.where(x[:, None, :] >= q[None, :, None], inf, -inf), 0.0)
        at = np.where(certain[None, :, None], at, (x[:, None, :] - q[None, :, None]) / scale[None, :, None])
        return np.clip(ndtr(at) + sign * error[None, :, None], 0, 1)

    return _by_levels(lambda x: normal(x, -1), lambda x: normal(x, 1), low, high, np.full(low.shape, 0.01))


def _bennett(q: np.ndarray, w: np.ndarray, o: np.ndarray, m: float):
    """One threshold, midway between the best and the next-best mean."""
    best = q >= np.max(q) - 1e-12 * abs(np.max(q))
    if np.all(best):
        return np.zeros_like(q), np.ones_like(q)
    threshold = (np.max(q) + np.max(q[~best])) / 2
    spread, width = (q - w) * (o - np.where(best, w, q)), o - w
    distance = np.abs(q - threshold)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = width * distance / spread
        tail = np.exp(-m * spread / width**2 * ((1 + x) * np.log1p(x) - x))
    # A sequence of one value never strays.
    tail = np.where((spread > 0) & (width > 0), tail, 0)
    missed = np.prod(tail[best])
    return np.zeros_like(q), np.where(best, 1, np.minimum(1, tail + missed))


def _worst(low: np.ndarray, high: np.ndarray, fails: np.ndarray) -> float:
    """max sum pi f over l <= pi <= u, sum pi = 1: what l leaves goes to the largest f first."""
    if np.sum(high) < 1:
        high = np.minimum(1, high + 1 - np.sum(high))
    order = np.argsort(-fails)
    room = np.maximum(high - low, 0)[order]
    left = 1 - np.sum(low)
    added = np.clip(left - np.concatenate([[0.0], np.cumsum(room)[:-1]]), 0, room)
    return float(np.clip(low @ fails + added @ fails[order], 0, 1))


_returns = jax.jit(returns, static_argnames="points")


@jax.jit
def _values(table, policy):
    best = optimal_values(table)
    worst = action_values(table, lambda q, t: jnp.min(q, axis=1))
    explored = action_values(table, lambda q, t: jnp.sum(policy[t] * q, axis=1))
    return jnp.clip(explored, worst, best), worst, best


@partial(jax.jit, static_argnames="k")
def _ends(table, k):
    return jax.lax.map(lambda t: sequence_ends(table, k, t), jnp.arange(table.horizon, dtype=jnp.int32))


class _Nodes:
    """Per time the states reached by optimal actions, and per state what each sequence is worth."""

    def __init__(self, mdp: MDP, k: int, policy: object, tolerance: float):
        table, unit = lattice(deterministic_table(mdp))
        check_depth(k, table.horizon)
        policy = exploration(table, policy)
        explored, worst, best = _values(table, policy)
        none = np.zeros((1, table.end + 1))
        value = lambda q: np.concatenate([np.asarray(q), none])  # noqa: E731
        values = [
            value(jnp.sum(policy * explored, axis=2)),
            value(jnp.min(worst, axis=2)),
            value(jnp.max(best, axis=2)),
        ]
        low, high = int(min(0, values[1].min())), int(max(0, values[2].max()))
        laws = np.asarray(_returns(table, policy, low, points=high - low + 1))
        points = low + np.arange(high - low + 1)
        off = points - np.sum(laws * points, axis=2, keepdims=True)
        moments = [np.sqrt(np.sum(laws * off**2, axis=2)), np.sum(laws * np.abs(off) ** 3, axis=2)]
        self.good = np.asarray(best >= jnp.max(best, axis=2, keepdims=True) - tolerance / unit)
        self.next_state, self.horizon, self.num_actions = np.asarray(table.next_state), table.horizon, table.num_actions
        self.first = np.arange(table.num_actions**k) // table.num_actions ** (k - 1)
        top = float(values[2][0, table.initial])
        self.binary = k == 1 and top > 0 and bool(np.all(np.isin(np.asarray(table.reward), (0, top))))
        self.best, self.reached, self.worth = top, [], []
        self.initial = here = int(table.initial)
        here = np.array([here])
        ends, rewards = (np.asarray(x) for x in _ends(table, k))
        for t in range(table.horizon):
            state, paid = ends[t, here], rewards[t, here]
            then = min(t + k, table.horizon)
            self.reached.append(here)
            self.worth.append([*(paid + v[then, state] for v in values), *(v[then, state] for v in moments)])
            here = np.unique(self.next_state[here][self.good[t, here]])

    def failure(self, m: int, methods: tuple[str, ...]) -> float:
        limits, fails = {}, {}
        for t in range(self.horizon - 1, -1, -1):
            after, fails = fails, {}
            for row, state in enumerate(self.reached[t]):
                by_action = [
                    after.get(int(self.next_state[state, a]), 0.0) if self.good[t, state, a] else 1.0
                    for a in range(self.num_actions)
                ]
                if min(by_action) == max(by_action):
                    fails[int(state)] = by_action[0]
                    continue
                worth = np.stack([x[row] for x in self.worth[t]])
                key = worth.tobytes()
                if key not in limits:
                    limits[key] = self.limits(worth, m, methods)
                given = np.array(by_action)[self.first]
                fails[int(state)] = min((_worst(*pair, given) for pair in limits[key]), default=1.0)
        return fails[self.initial]

    def limits(self, worth: np.ndarray, m: int, methods: tuple[str, ...]) -> list:
        q, w, o, deviation, third = worth
        found = []
        if "binomial" in methods and self.binary and m <= MOST_BINOMIAL:
            found.append(binomial_limits(np.clip(q / self.best, 0, 1), m, atom=False))
        if CORRECTED in methods and self.binary:
            found.append(binomial_limits(np.clip(q / self.best, 0, 1), m, atom=True))
        if "bennett" in methods:
            found.append(_bennett(q, w, o, float(m)))
        if len(q) <= MOST_SEQUENCES:
            if "bernstein" in methods:
                found.append(_bernstein(q, w, o, float(m)))
            if "berry-esseen" in methods:
                found.append(_berry_esseen(q, deviation, third, float(m)))
        return found


def released_search(works: Callable[[int], bool], largest: int, ratio: float = 1.0) -> float:
    """The smallest m that works, by bisection: the released code's search, right only where success is monotone in m.

    Args: works: m -> bool; largest: the largest m, >= 1; ratio: 1 bisects whole numbers; above 1 bisects
      geometrically until the ends are within this ratio.
    Returns: m, or inf if the largest does not work. Source: BRIDGE/SQIRL specification, 3.7, from the authors' code; on
      lock(2, 2, 0.6) it misses m = 1 (docs/proofs/sqirl.md#t6). Cost: a logarithm of calls.
    """
    if not works(largest):
        return inf
    if works(1):
        return 1.0
    fails, high = 1, largest
    while high - fails > 1 and high > fails * ratio:
        middle = isqrt(fails * high) if ratio > 1 else (fails + high) // 2
        middle = min(max(middle, fails + 1), high - 1)
        fails, high = (fails, middle) if works(middle) else (middle, high)
    return float(high)


def released_failure(
    mdp: MDP,
    k: int,
    m: int,
    *,
    methods: tuple[str, ...] = METHODS,
    policy: object = None,
    tolerance: float = 1e-4,
) -> float:
    """What the released code takes for an upper bound on the probability that GORP(k, m) fails.

    Args: mdp: deterministic, rewards on a lattice; k, m: depth and episodes per sequence; methods: some of `METHODS`
      ("binomial" for k = 1 and rewards 0 or J* alone), or `CORRECTED` in its place; policy: exploration, uniform by
      default; tolerance: in reward.
    Returns: the number, in [0, 1]; not a bound where two actions tie and "binomial" counts.
    Raises: RuntimeError: float64 is off. ValueError: unknown methods, m below 1, and as `gorp_failure`.
    Source: the authors' code, BRIDGE/SQIRL specification, 3.7; the linear programme in closed form. Bennett's single
      threshold and the bins of Bernstein and Berry-Esseen are read from their description alone.
      Cost: per state and time A^(2k) 100.
    """
    nodes = _checked(mdp, k, methods, policy, tolerance, "released_failure")
    if m < 1:
        raise ValueError(f"m: found {m}, expected at least 1 episode per sequence")
    return nodes.failure(m, methods)


def released_horizon(
    mdp: MDP, k: int, *, methods: tuple[str, ...] = METHODS, policy: object = None, tolerance: float = 1e-4
) -> tuple[float, float]:
    """The released code's m and k + log_A m: geometric bisection from 10^100 to one per cent.

    Args: as `released_failure`. Returns: (horizon, m). Raises: as `released_failure`.
    Source: as `released_failure`. Cost: about 15 calls of `released_failure`.
    """
    nodes = _checked(mdp, k, methods, policy, tolerance, "released_horizon")
    m = released_search(lambda m: nodes.failure(m, methods) <= 0.5, 10**100, ratio=1.01)
    return k + log(m) / log(nodes.num_actions), m


def _checked(mdp, k, methods, policy, tolerance, where) -> _Nodes:
    require_float64(where)
    if not methods or set(methods) - {*METHODS, CORRECTED}:
        raise ValueError(f"methods: found {methods}, expected some of {(*METHODS, CORRECTED)}")
    return _Nodes(mdp, k, policy, tolerance)
