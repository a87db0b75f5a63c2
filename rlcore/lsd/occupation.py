"""Linear programmes on the host (HiGHS): occupation measures, for any idle rule and any kernels, and cycles as written.

They are the reference for `relaxation` and serve where it cannot: "decrement" arms, restless arms, finite horizons. No
code is shared with `relaxation`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, require_plays, transition_tables
from rlcore.lsd.relaxation import Occupancy
from rlcore.lsd.restless import RestlessBandit
from rlcore.types import Array

__all__ = [
    "CycleProgramme",
    "OccupationProgramme",
    "cycle_programme",
    "finite_programme",
    "occupation_programme",
]

TOLERANCE = 1e-10  # of HiGHS, per row


class OccupationProgramme(NamedTuple):
    """value: float, the optimum; price: float, of a play (float[T], one per round, over a finite horizon); occupancy:
    `Occupancy` of rates float[k, S] twice, or [T, k, S]."""

    value: float
    price: Array
    occupancy: Occupancy


class CycleProgramme(NamedTuple):
    """value: float, V; price: float, of a play; idle, run: int[N], the options, (1, 0) is none and (0, 1) play without
    end; weight: float[k, N], share of an arm's time in each, a vertex of the programme."""

    value: float
    price: float
    idle: np.ndarray
    run: np.ndarray
    weight: np.ndarray


def occupation_programme(problem: SwitchingBandit | RestlessBandit, plays: int = 1) -> OccupationProgramme:
    """The most that arms earn per round in the long run if at most `plays` are played per round on average.

    max sum a_i(e) p_i(e) over rates u of idle rounds and a of plays: flow in = flow out in every local state, rates of
    an arm sum to 1, sum a <= plays.

    Args: problem: concrete; plays: m.
    Returns: OccupationProgramme; its value is at least the optimal average, and that of `relaxation` where that exists.
    Raises: ValueError: plays out of 1 .. k, or a batch of problems; RuntimeError: HiGHS finds no optimum.
    Source: derived: docs/proofs/lsd.md#t1; the standard relaxation of restless bandits (Whittle 1988).
    Cost: one sparse LP of 2 k S variables and k (S + 1) + 1 rows: 10 ms at k S = 100.
    """
    import scipy.sparse as sp

    payoffs = _payoffs(problem, plays)
    k, s = payoffs.shape
    play, idle = _inflow(problem)
    one = sp.identity(k * s, format="csr")
    flow = sp.hstack([one - idle, one - play])
    own = sp.kron(sp.identity(k), np.ones((1, s)))
    result = _solve(
        np.concatenate([np.zeros(k * s), payoffs.ravel()]),
        sp.csr_matrix(np.concatenate([np.zeros(k * s), np.ones(k * s)])[None, :]),
        np.array([float(plays)]),
        sp.vstack([flow, sp.hstack([own, own])], format="csr"),
        np.concatenate([np.zeros(k * s), np.ones(k)]),
    )
    rates = result.x.reshape(2, k, s)
    return OccupationProgramme(-result.fun, -result.ineqlin.marginals[0], _occupancy(problem, rates[0], rates[1]))


def finite_programme(
    problem: SwitchingBandit | RestlessBandit,
    horizon: int,
    plays: int = 1,
    *,
    start=None,
    discount: float = 1.0,
) -> OccupationProgramme:
    """The most that arms earn in T rounds if at most `plays` are played in every round in expectation.

    Args: problem: concrete; horizon: T; plays: m; start: int[k], local states before round 0, the highest by default;
      discount: weight of the next round, in (0, 1].
    Returns: OccupationProgramme: value at least that of every schedule over T rounds, discounted; price float[T], of a
      play in each round (discounted); rates [T, k, S], which `markov_schedule` turns into a planner that earns at least
      alpha(k, m) of the value over rounds 0 .. T - 1 where payoffs are monotone, from the same start.
    Raises: ValueError: plays out of 1 .. k, a horizon below 1, a start or a discount out of range; RuntimeError: HiGHS
      finds no optimum.
    Source: derived: docs/proofs/lsd.md#t15. Cost: one sparse LP of 2 k S T variables and (k S + 1) T rows.
    """
    import scipy.sparse as sp

    payoffs = _payoffs(problem, plays)
    k, s = payoffs.shape
    if horizon < 1:
        raise ValueError(f"horizon: found {horizon}, expected an integer of at least 1")
    if not 0 < discount <= 1:
        raise ValueError(f"discount: found {discount}, expected a number in (0, 1]")
    at = np.full(k, s - 1) if start is None else np.asarray(start)
    if at.shape != (k,) or np.any((at < 0) | (at >= s)):
        raise ValueError(f"start: found {at}, expected {k} local states in 0 .. {s - 1}")
    play, idle = _inflow(problem)
    one = sp.identity(k * s, format="csr")
    # By round, then idle or play, then arm and local state.
    rounds = sp.identity(horizon, format="csr")
    flow = sp.kron(rounds, sp.hstack([one, one])) - sp.kron(sp.eye(horizon, k=-1), sp.hstack([idle, play]))
    begin = np.zeros((horizon, k, s))
    begin[0, np.arange(k), at] = 1
    weights = discount ** np.arange(horizon)
    result = _solve(
        np.kron(weights, np.concatenate([np.zeros(k * s), payoffs.ravel()])),
        sp.csr_matrix(sp.kron(rounds, np.concatenate([np.zeros(k * s), np.ones(k * s)])[None, :])),
        np.full(horizon, float(plays)),
        sp.csr_matrix(flow),
        begin.ravel(),
    )
    rates = result.x.reshape(horizon, 2, k, s)
    return OccupationProgramme(-result.fun, -result.ineqlin.marginals, _occupancy(problem, rates[:, 0], rates[:, 1]))


def cycle_programme(
    problem: SwitchingBandit,
    plays: int = 1,
    *,
    permanent: bool = True,
    longest: int | None = None,
    costs=None,
    budget: float = 0.0,
) -> CycleProgramme:
    """The two-index relaxation as it is written, by a simplex method: the independent reference of `relaxation`.

    Args: problem: concrete, idle rule "reset"; plays: m; permanent: whether play without end is an option; longest: of
      a run, L + 1 by default; costs: float[k], of a play of each arm, for a second row, sum of costs at most `budget`.
    Returns: CycleProgramme. Raises: ValueError: plays out of 1 .. k, the idle rule "decrement", a batch of problems, a
      run below 1; RuntimeError: HiGHS finds no optimum.
    Source: derived: docs/proofs/lsd.md#t1, #t3. Cost: one sparse LP of k (M (L + 1) + 1) variables and k + 1 rows.
    """
    import scipy.sparse as sp

    payoffs = _payoffs(problem, plays)
    if problem.idle_rule != "reset":
        raise ValueError(f"idle_rule: found {problem.idle_rule!r}, expected 'reset'")
    k, low, deep = len(payoffs), problem.satiation, problem.recovery
    longest = low + 1 if longest is None else longest
    if longest < 1:
        raise ValueError(f"longest: found {longest}, expected an integer of at least 1")
    options = [(t, r) for t in range(1, deep + 1) for r in range(1, longest + 1)]
    earned = {}
    for t, r in options:  # the payoff at +t, then those at -1, -2, ... down to -L
        run = [low - min(j, low) for j in range(1, r)]
        earned[t, r] = payoffs[:, low + t - 1] + payoffs[:, run].sum(axis=1)
    if permanent:
        options.append((0, 1))
        earned[0, 1] = payoffs[:, 0]
    idle, run = np.array(options).T
    length = idle + run
    gain = np.stack([earned[option] for option in options], axis=1)
    load = np.tile(run, k)
    rows = [sp.kron(sp.identity(k), length[None, :]), sp.csr_matrix(load[None, :])]
    limits = [np.ones(k), [float(plays)]]
    if costs is not None:
        rows.append(sp.csr_matrix((np.repeat(np.asarray(costs, float), len(run)) * load)[None, :]))
        limits.append([float(budget)])
    result = _solve(gain.ravel(), sp.vstack(rows, format="csr"), np.concatenate(limits), None, None)
    weight = np.maximum(result.x.reshape(k, -1), 0) * length[None, :]
    none = np.maximum(1 - weight.sum(axis=1, keepdims=True), 0)
    return CycleProgramme(
        -result.fun, -result.ineqlin.marginals[k], np.append(1, idle), np.append(0, run), np.hstack([none, weight])
    )


def _payoffs(problem, plays: int) -> np.ndarray:
    payoffs = np.asarray(problem.payoffs, np.float64)
    if payoffs.ndim != 2:
        raise ValueError(f"problem: found payoffs of shape {payoffs.shape}, expected one problem, [k, S]")
    require_plays(plays, len(payoffs))
    return payoffs


def _inflow(problem):
    """Two sparse matrices [k S, k S]: what a unit of plays, and of idle rounds, sends on; columns are where from."""
    import scipy.sparse as sp

    k, s = problem.num_arms, problem.num_local
    if isinstance(problem, RestlessBandit):
        found = [np.nonzero(np.asarray(kernel)) for kernel in (problem.play, problem.idle)]
        mass = [np.asarray(x, np.float64)[at] for x, at in zip((problem.play, problem.idle), found, strict=True)]
        ends = [(arm * s + after, arm * s + e) for arm, e, after in found]
    else:
        here = np.arange(k * s)
        ends = [(here - here % s + np.tile(np.asarray(table), k), here) for table in transition_tables(problem)]
        mass = [np.ones(k * s)] * 2
    return [sp.csr_matrix((x, end), shape=(k * s, k * s)) for x, end in zip(mass, ends, strict=True)]


def _solve(gain, upper, limit, equal, right):
    import scipy.optimize

    result = scipy.optimize.linprog(
        -gain,
        A_ub=upper,
        b_ub=limit,
        A_eq=equal,
        b_eq=right,
        method="highs-ds",
        options={"primal_feasibility_tolerance": TOLERANCE, "dual_feasibility_tolerance": TOLERANCE},
    )
    if result.status != 0:
        raise RuntimeError(f"problem: HiGHS answered {result.message!r}, expected an optimum")
    return result


def _occupancy(problem, idle: np.ndarray, play: np.ndarray) -> Occupancy:
    dtype = problem.payoffs.dtype
    return Occupancy(jnp.asarray(np.maximum(idle, 0), dtype), jnp.asarray(np.maximum(play, 0), dtype))
