"""The block problem of Laforgue et al. as a linear programme on the host, and the greedy prefix that it leads.

Their planner, a reference for `block_optimum` that the tests run on their instances: its value is an upper bound, its
sequence need not be the best. Learners plan by `block_optimum`, which is exact and faster.
"""

from typing import NamedTuple

import numpy as np

from rlcore.lsd.problem import SwitchingBandit
from rlcore.types import Array, Float, Int, Shaped

__all__ = ["GuidedBlock", "block_programme", "guided_block"]


class GuidedBlock(NamedTuple):
    """bound: float, the programme's value before any arm is fixed; value: float, what the sequence earns; arms: int[d],
    the sequence; programmes: how many were solved."""

    bound: float
    value: float
    arms: np.ndarray
    programmes: int


def _delays(problem: SwitchingBandit, length: int, local: Int[Array, " k"] | None) -> tuple[np.ndarray, np.ndarray]:
    """Payoffs [k, d] at delays 1 .. d, and [k, d] of first pulls by position."""
    if problem.satiation != 1:
        raise ValueError(f"problem: found satiation depth {problem.satiation}, expected 1 (payoffs by delay)")
    payoffs = np.asarray(problem.payoffs)
    at = np.minimum(np.arange(length), problem.num_local - 1)
    later = payoffs[:, at]
    if local is None:
        return later, np.zeros_like(later)
    start = np.asarray(local)[:, None] + np.arange(length)[None, :]
    return later, np.take_along_axis(payoffs, np.minimum(start, problem.num_local - 1), axis=1)


def block_programme(
    later: Float[np.ndarray, "k d"], first: Float[np.ndarray, "k d"], prefix: Shaped[np.ndarray, " n"] | None = None
) -> float:
    """The linear programme over a block of d rounds, one arm in each, whose first arms may be fixed.

    F[i, t]: the first pull of i is at t; Y[i, e, t]: i is pulled at t, and was last at t - e. One pull a round; a first
    pull at most once; a later pull only after the pull that it is counted from, with none between.
    Args: later: payoffs at delays 1 .. d; first: of first pulls at positions 0 .. d - 1; prefix: int[n], n <= d, arms
      of the first rounds, none by default.
    Returns: its value over all d rounds, at least that of every sequence with this prefix.
    Source: Laforgue et al. (2022), arXiv 2110.11819, released code. Cost: one sparse linear programme, k d^2 variables.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    k, d = later.shape
    index = {("F", i, 0, t): i * d + t for i in range(k) for t in range(d)}
    for i in range(k):
        for t in range(d):
            for e in range(1, t + 1):
                index["Y", i, e, t] = len(index)
    n = len(index)
    gain = np.zeros(n)
    for (kind, i, e, t), j in index.items():
        gain[j] = first[i, t] if kind == "F" else later[i, e - 1]

    def matrix(rows: list[dict[int, float]]):
        at = [(r, j, v) for r, row in enumerate(rows) for j, v in row.items()]
        r, j, v = zip(*at, strict=True)
        return csr_array((v, (r, j)), shape=(len(rows), n))

    def pulls(i: int, t: int) -> list[int]:
        return [index["F", i, 0, t], *(index["Y", i, e, t] for e in range(1, t + 1))]

    equal = [{j: 1.0 for i in range(k) for j in pulls(i, t)} for t in range(d)]
    most = [{index["F", i, 0, t]: 1.0 for t in range(d)} for i in range(k)]
    limit = [1.0] * k
    for i in range(k):
        for t in range(1, d):
            row = {index["Y", i, e, t]: 1.0 for e in range(1, t + 1)}
            most.append(row | {index["F", i, 0, s]: -1.0 for s in range(t)})
            for e in range(1, t + 1):
                row = {index["Y", i, e, t]: 1.0} | dict.fromkeys(pulls(i, t - e), -1.0)
                most.append(row | {index["Y", i, e - q, t - q]: 1.0 for q in range(1, e)})
    limit += [0.0] * (len(most) - k)
    low, high = np.zeros(n), np.ones(n)
    last = {}
    for t, arm in enumerate([] if prefix is None else prefix):
        fixed = ("Y", int(arm), t - last[int(arm)], t) if int(arm) in last else ("F", int(arm), 0, t)
        last[int(arm)] = t
        low[index[fixed]] = 1
    answer = linprog(
        -gain, matrix(most), limit, matrix(equal), np.ones(d), np.stack([low, high], axis=1), method="highs"
    )
    if answer.status != 0:
        raise RuntimeError(f"block_programme: HiGHS stopped with status {answer.status}: {answer.message}")
    return -float(answer.fun)


def guided_block(problem: SwitchingBandit, length: int, local: Int[Array, " k"] | None = None) -> GuidedBlock:
    """The block planner of Laforgue et al.: arm by arm, the one after which the programme still promises most.

    Args, as `block_optimum`; payoffs by delay alone (L = 1); one arm is played every round.
    Returns: GuidedBlock. Raises: ValueError: L above 1. Source: their released code; ties go to the first arm.
    Cost: 1 + k d programmes on the host.
    """
    later, first = _delays(problem, length, local)
    arms: list[int] = []
    bound = block_programme(later, first)
    for _ in range(length):
        # HiGHS answers to about 1e-9: equal promises must not be told apart by its last digits.
        promise = [round(block_programme(later, first, np.array([*arms, i])), 7) for i in range(problem.num_arms)]
        arms.append(int(np.argmax(promise)))
    value, last = 0.0, {}
    for t, arm in enumerate(arms):
        value += later[arm, t - last[arm] - 1] if arm in last else first[arm, t]
        last[arm] = t
    return GuidedBlock(bound, float(value), np.array(arms), 1 + length * problem.num_arms)
