"""The exact probability that GORP(k, m) fails on a deterministic problem, and the exact effective horizon.

Fresh episodes are drawn for every step, so the plan is a Markov chain: GORP is the policy c_t(s, a), the probability
that the best of A^k independent sample means belongs to a sequence that begins with a.
"""

import itertools
from collections.abc import Iterable
from functools import partial
from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlog1py, xlogy

from rlcore.mdp import MDP
from rlcore.sqirl.deterministic import (
    DeterministicTable,
    action_values,
    deterministic_table,
    exploration,
    lattice,
    optimal_values,
    sequence_ends,
)
from rlcore.sqirl.gorp import check_depth
from rlcore.types import Array, Float, Int, Number, require_float64

__all__ = ["GorpHorizon", "SuccessCurve", "choice_law", "failure", "gorp_failure", "gorp_horizon", "h_exact", "returns"]

# Numbers held at once while states are worked through.
BLOCK = 1 << 21
LARGEST_LAW = 1 << 26


class SuccessCurve(NamedTuple):
    """failure: float[n] at the n values of `m`, int[n]. smallest: the first m of the grid with failure at most 1/2,
    inf if none. horizon: k + log_A(smallest). k: the depth."""

    m: np.ndarray
    failure: np.ndarray
    smallest: float
    horizon: float
    k: int


class GorpHorizon(NamedTuple):
    """horizon: min_k k + log_A m_k, over the k in `depth`; smallest: m_k, inf where none was found.
    complete: whether no larger m could have been better, that is, `max_m` cut nothing off."""

    horizon: float
    depth: tuple[int, ...]
    smallest: tuple[float, ...]
    complete: bool


def returns(
    table: DeterministicTable, policy: Float[Array, "T S1 A"], lowest: Number, points: int
) -> Float[Array, "T1 S1 L"]:
    """Law of the return-to-go under a policy, for rewards that are integers.

    Args: policy: float[T,S+1,A]; lowest: the smallest return-to-go, an integer of at most 0; points: L, static, so
      that all lie in lowest .. lowest + L - 1.
    Returns: float[T+1,S+1,L]: probability of `lowest + i` from time t on.
    Source: derived, BRIDGE/SQIRL specification, 3.7. Cost: O(T S A L).
    """
    size = table.end + 1
    last = jnp.broadcast_to(jnp.arange(points, dtype=jnp.int32) == -jnp.asarray(lowest, jnp.int32), (size, points))
    last = last.astype(policy.dtype)
    index = jnp.arange(points, dtype=jnp.int32)[None, None] - table.reward.astype(jnp.int32)[..., None]
    inside = (index >= 0) & (index < points)
    index = jnp.clip(index, 0, points - 1)

    def back(law, now):
        moved = jnp.where(inside, law[table.next_state[..., None], index], 0)
        law = jnp.einsum("sa,sal->sl", now, moved)
        return law, law

    laws = jax.lax.scan(back, last, policy, reverse=True)[1]
    return jnp.concatenate([laws, last[None]])


def sum_law(law: Float[Array, "S L"], m: Int[Array, ""], size: int) -> Float[Array, "S C"]:
    """Law of the sum of m independent copies, on 0 .. size - 1 (static, at least m (L - 1) + 1).

    Cost: S C log C by a Fourier transform, whose error is about m machine epsilons; S C for L = 2, the binomial law.
    """
    if law.shape[-1] == 2:
        c = jnp.arange(size, dtype=law.dtype)[None]
        chance = jnp.clip(law[..., 1:], 0, 1)
        n = jnp.asarray(m, law.dtype)
        inside = jnp.where(c <= n, c, n)
        ways = gammaln(n + 1) - gammaln(inside + 1) - gammaln(n - inside + 1)
        mass = jnp.exp(ways + xlogy(inside, chance) + xlog1py(n - inside, -chance))
        return jnp.where(c <= n, mass, 0)
    transform = jnp.fft.rfft(law, size)
    times = jnp.asarray(m, law.dtype)
    angle = times * jnp.angle(transform)
    radius = jnp.abs(transform) ** times
    power = jax.lax.complex(radius * jnp.cos(angle), radius * jnp.sin(angle))
    inside = jnp.arange(size, dtype=jnp.int32)[None] <= m * (law.shape[-1] - 1)
    mass = jnp.where(inside, jnp.maximum(jnp.fft.irfft(power, size), 0), 0)
    return mass / jnp.sum(mass, axis=-1, keepdims=True)


def _first_best(mass: Float[Array, "K C"]) -> Float[Array, " K"]:
    """Probability that each of K independent variables on 0 .. C-1 is the first largest."""
    below = jnp.cumsum(mass, axis=1)
    strictly = jnp.concatenate([jnp.zeros_like(below[:, :1]), below[:, :-1]], axis=1)
    ones = jnp.ones_like(below[:1])
    # Products over the others without a division, which would fail at 0.
    earlier = jnp.concatenate([ones, jnp.cumprod(strictly, axis=0)[:-1]])
    later = jnp.concatenate([jnp.cumprod(below[::-1], axis=0)[:-1][::-1], ones])
    return jnp.sum(mass * earlier * later, axis=1)


def choice_law(
    table: DeterministicTable, k: int, m: Number, laws: Float[Array, "T1 S1 L"], size: int
) -> Float[Array, "T S1 A"]:
    """The policy that GORP(k, m) is: the law of the action it chooses at each step and state.

    Args: table: integer rewards; k: depth, static; m: episodes per sequence, may be traced; laws: of `returns`;
      size: static, at least m (L - 1 + D) + 1, D the largest difference between what two sequences of one state pay.
    Returns: float[T,S+1,A]. Source: derived: docs/proofs/sqirl.md#gorp. Cost: O(T S A^k C) and T S C log C.
    """
    count = table.num_actions**k
    m = jnp.asarray(m, jnp.int32)

    def at(t):
        state, paid = sequence_ends(table, k, t)
        total = sum_law(laws[jnp.minimum(t + k, table.horizon)], m, size)
        ahead = m * (paid - jnp.min(paid, axis=1, keepdims=True)).astype(jnp.int32)

        def one(state_and_ahead):
            state, ahead = state_and_ahead
            index = jnp.arange(size, dtype=jnp.int32)[None] - ahead[:, None]
            mass = jnp.where(index >= 0, total[state[:, None], jnp.maximum(index, 0)], 0)
            return jnp.sum(_first_best(mass).reshape(table.num_actions, -1), axis=1)

        return jax.lax.map(one, (state, ahead), batch_size=max(1, min(table.end + 1, BLOCK // (count * size))))

    return jax.lax.map(at, jnp.arange(table.horizon, dtype=jnp.int32))


def failure(
    table: DeterministicTable, choice: Float[Array, "T S1 A"], tolerance: Number
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Probability that a policy takes some action that is not optimal, and the largest defect of its rows.

    Args: choice: float[T,S+1,A]; tolerance: an action is optimal within it, in units of the table's rewards.
    Returns: (float[], float[]: the largest |row sum - 1|). Cost: O(T S A).
    """
    best = optimal_values(table)
    good = best >= jnp.max(best, axis=2, keepdims=True) - tolerance

    def back(following, now):
        law, good = now
        return jnp.sum(law * jnp.where(good, following[table.next_state], 1.0), axis=1), None

    fails = jax.lax.scan(back, jnp.zeros_like(table.reward[:, 0]), (choice, good), reverse=True)[0]
    return fails[table.initial], jnp.max(jnp.abs(jnp.sum(choice, axis=2) - 1))


@partial(jax.jit, static_argnames=("k", "size"))
def _failure(table, k, m, laws, size, tolerance):
    return failure(table, choice_law(table, k, m, laws, size), tolerance)


_returns = jax.jit(returns, static_argnames="points")


@jax.jit
def _extremes(table):
    low = action_values(table, lambda q, t: jnp.min(q, axis=1))
    return jnp.minimum(jnp.min(low), 0), jnp.maximum(jnp.max(optimal_values(table)), 0)


@partial(jax.jit, static_argnames="k")
def _spread(table, k):
    paid = jax.lax.map(lambda t: sequence_ends(table, k, t)[1], jnp.arange(table.horizon, dtype=jnp.int32))
    return jnp.max(jnp.max(paid, axis=2) - jnp.min(paid, axis=2))


class _Exact(NamedTuple):
    """What the failure probabilities of one problem share: a table of integer rewards, its laws, the tolerance in units
    of them."""

    table: DeterministicTable
    laws: Array
    tolerance: float


def _prepare(mdp: MDP, policy: object, unit: float | None, tolerance: float, where: str) -> _Exact:
    require_float64(where)
    table, unit = lattice(deterministic_table(mdp), unit)
    low, high = (int(x) for x in _extremes(table))
    # Two points at least, so that a problem without any reward has a law too.
    points = max(2, high - low + 1)
    laws = _returns(table, exploration(table, policy), low, points=points)
    return _Exact(table, laws, tolerance / unit)


def _exact_failure(exact: _Exact, k: int, m: int) -> float:
    check_depth(k, exact.table.horizon)
    if m < 1:
        raise ValueError(f"m: found {m}, expected at least 1 episode per sequence")
    needed = m * (exact.laws.shape[-1] - 1 + int(_spread(exact.table, k))) + 1
    if needed > LARGEST_LAW:
        raise ValueError(f"m: found {m}, a law of {needed:.3g} points, expected at most {LARGEST_LAW:.3g}")
    # Powers of two: few shapes to compile.
    size = 1 << max(3, (needed - 1).bit_length())
    value, defect = (float(x) for x in _failure(exact.table, k, m, exact.laws, size, exact.tolerance))
    if not defect < 1e-9:
        raise ArithmeticError(f"m: found {m}, where rounding moves a mass of {defect:.1e}, expected below 1e-9")
    return value


def gorp_failure(
    mdp: MDP, k: int, m: int, *, policy: object = None, unit: float | None = None, tolerance: float = 1e-4
) -> float:
    """The exact probability that GORP(k, m) plays an action that is not optimal.

    Args: mdp: deterministic, with rewards on a lattice; k: depth; m: episodes per sequence; policy: exploration,
      float[S,A] or [T,S,A], uniform by default; unit: of the lattice, see `lattice`; tolerance: in reward: actions this
      close to the best count as optimal.
    Returns: the probability, to about m machine epsilons per step. Raises: RuntimeError: float64 is off. ValueError: a
      stochastic MDP and all that `deterministic_table` and `lattice` refuse; k outside 1..T; m below 1.
    Source: derived: docs/proofs/sqirl.md#gorp. Cost: O(T S A^k C), C = m times the number of lattice points.
    """
    exact = _prepare(mdp, policy, unit, tolerance, "gorp_failure")
    return _exact_failure(exact, k, m)


def h_exact(
    mdp: MDP,
    k: int,
    m_grid: Iterable[int],
    *,
    policy: object = None,
    unit: float | None = None,
    tolerance: float = 1e-4,
) -> SuccessCurve:
    """The failure of GORP(k, m) for every m of a grid, and the first that succeeds with probability 1/2.

    Success is not monotone in m, so the grid is gone through upwards and never bisected.

    Args: as `gorp_failure`; m_grid: increasing.
    Returns: SuccessCurve. Raises: as `gorp_failure`; ValueError: a grid that is empty or not increasing.
    Source: derived: docs/proofs/sqirl.md#gorp. Cost: one `gorp_failure` per m; one compilation per power of two.
    """
    grid = [int(m) for m in m_grid]
    if not grid or any(b <= a for a, b in itertools.pairwise(grid)):
        raise ValueError(f"m_grid: found {grid[:8]}, expected increasing numbers of episodes, at least one")
    exact = _prepare(mdp, policy, unit, tolerance, "h_exact")
    fails = np.array([_exact_failure(exact, k, m) for m in grid])
    works = np.flatnonzero(fails <= 0.5)
    smallest = float(grid[works[0]]) if len(works) else float("inf")
    return SuccessCurve(np.array(grid), fails, smallest, _horizon(k, smallest, exact.table.num_actions), k)


def _horizon(k: int, m: float | int, num_actions: int) -> float:
    # With one action there is nothing to find out: every m is as good as 1.
    return float("inf") if m == float("inf") else k + (log(m) / log(num_actions) if num_actions > 1 else 0.0)


def gorp_horizon(
    mdp: MDP,
    *,
    max_m: int = 256,
    policy: object = None,
    unit: float | None = None,
    tolerance: float = 1e-4,
) -> GorpHorizon:
    """The exact effective horizon H = min_k k + log_A m_k, m_k the smallest m with which GORP(k, m) fails at most half.

    Depths and m go upwards while they can still be better than the best so far; H <= T, as GORP(T, 1) is optimal.

    Args: as `gorp_failure`; max_m: no more episodes are tried at any depth.
    Returns: GorpHorizon. Raises: as `gorp_failure`.
    Source: Laidlaw et al. 2023 as quoted in the BRIDGE/SQIRL specification, 2; the search: derived, #gorp.
    Cost: one `gorp_failure` per (k, m) tried: lower `max_m` where T or A is large.
    """
    exact = _prepare(mdp, policy, unit, tolerance, "gorp_horizon")
    horizon, num_actions = exact.table.horizon, exact.table.num_actions
    best, depth, smallest, complete, k = float(horizon), [], [], True, 1
    while k < best:
        found, m = float("inf"), 1
        while _horizon(k, m, num_actions) < best:
            if m > max_m:
                complete = False
                break
            if _exact_failure(exact, k, m) <= 0.5:
                found = float(m)
                break
            m += 1
        depth.append(k)
        smallest.append(found)
        best = min(best, _horizon(k, found, num_actions))
        k += 1
    return GorpHorizon(best, tuple(depth), tuple(smallest), complete)
