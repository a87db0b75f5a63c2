"""How many steps of lookahead a problem needs, by simulation alone: learn at every depth, then test on new episodes.

Nothing is tabulated: J* is not known, and what is estimated is stated for the policies that SQIRL learned.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import empirical_bernstein
from rlcore.episodic import Episodic
from rlcore.mdp import uniform_policy
from rlcore.sqirl.oracles import Oracle
from rlcore.sqirl.rollout import returns_to_go, rollouts
from rlcore.sqirl.sqirl import sqirl
from rlcore.types import Array, Float, Int, Key

__all__ = ["K95Estimate", "estimate_k95"]


class K95Estimate(NamedTuple):
    """k95 of the learned policies, on the host; K depths, and the last depth plus 1 stands for "none of them".

    k95: int, the first depth whose mean return is the level's share of the way from random to the best.
    lowest, highest: int, bounds of the same for true returns; with all intervals below they hold at once.
    returns, low, high: float[K], mean returns of the learned policies and their intervals.
    random_return, random_low, random_high: float, the same of exploration.
    optimism: float[K], the fitted value of the start less the return that was earned; optimism_low: float[K], its lower
      bound. Above 0 it proves that the fit errs, upward or in its policy: a rung's policy earns at least its value.
    steps: int, environment steps taken, of learning and testing.
    """

    k95: int
    lowest: int
    highest: int
    returns: np.ndarray
    low: np.ndarray
    high: np.ndarray
    random_return: float
    random_low: float
    random_high: float
    optimism: np.ndarray
    optimism_low: np.ndarray
    steps: int


def solved_depths(returns, low, high, random, best: float | None, level: float):
    """Which depths reach `level`: by the means, surely, and possibly.

    Args:
      returns, low, high: float[K], means and intervals. random: (mean, low, high) of exploration.
      best: the return that counts as optimal; None for the best of the K.
      level: in (0, 1).

    Returns: three bool[K]. Solved is J_k >= (1 - level) J_random + level J_j for every j (or for `best`); where the
      best is depth k itself, that is J_k >= J_random.
    Source: derived: docs/proofs/sqirl.md, k95 by simulation.
    Cost: K^2.
    """
    mean, floor, ceiling = random
    if best is not None:
        reach = lambda value, start: value >= (1 - level) * start + level * best - 1e-12  # noqa: E731
        return reach(returns, mean), reach(low, ceiling), reach(high, floor)
    itself = np.eye(len(returns), dtype=bool)

    def reach(value, start, others):
        needed = np.where(itself, start, (1 - level) * start + level * others[None, :])
        return np.all(value[:, None] >= needed - 1e-12, axis=1)

    return reach(returns, mean, returns), reach(low, ceiling, high), reach(high, floor, low)


@jax.jit(static_argnames="episodes")
def _tested(
    episodic: Episodic,
    policy: Int[Array, "T S"],
    values: Float[Array, "T S A"],
    explore_from: Int[Array, ""],
    exploration: Float[Array, "S A"],
    key: Key[Array, ""],
    *,
    episodes: int,
):
    """(returns [n], fitted values of the first states [n], steps) of fresh episodes."""
    data = rollouts(episodic, policy, explore_from, exploration, key, episodes=episodes)
    best = jnp.max(jnp.where(episodic.problem.available, values[0], -jnp.inf), axis=-1)
    earned = returns_to_go(data, jnp.int32(0), episodic.problem.discount)
    return earned, best[data.state[0]], jnp.sum(data.running, dtype=jnp.int32)


def estimate_k95(
    episodic: Episodic,
    oracle: Oracle,
    key: Key[Array, ""],
    *,
    depths: Sequence[int],
    episodes: int,
    test_episodes: int,
    bounds: tuple[float, float],
    optimal_return: float | None = None,
    level: float = 0.95,
    delta: float = 0.05,
    exploration: Float[Array, "S A"] | None = None,
) -> K95Estimate:
    """k95 from simulated episodes: SQIRL learns at every depth, new episodes say what its policies earn.

    The interval is about the learned policies. They tend to greedy policies of the rungs as `episodes` grows, and this
    k95 to that of `analyze` then, unless ties decide it, or every depth tried falls short of the optimum and
    `optimal_return` is not given: the best of the depths counts as optimal, and k95 comes out too small.

    Args:
      episodic: one problem; only `reset` and `step` of it are used, and which actions are available.
      oracle: the regression.
      key: of everything.
      depths: the k to try, increasing, from 1.
      episodes: m per step and depth, to learn from.
      test_episodes: new episodes per depth, and of exploration; at least 2.
      bounds: (low, high) of every return [reward]; intervals are as wide as these allow.
      optimal_return: J* [reward] or what counts as it; None for the best of the depths.
      level: the share of the way from random to optimal return, in (0, 1).
      delta: probability that some interval misses.
      exploration: probabilities by row; None for uniform over available actions.

    Returns: `K95Estimate`.
    Raises: ValueError for depths that do not increase from at least 1, fewer than 2 test episodes, `level` or `delta`
      outside (0, 1), or a return outside `bounds`.
    Source: derived: docs/proofs/sqirl.md, k95 by simulation; intervals of Maurer and Pontil (2009).
    Cost: K times SQIRL, and (K + 1) T test_episodes steps.
    """
    depths = tuple(int(depth) for depth in depths)
    if not depths or depths[0] < 1 or any(b <= a for a, b in itertools.pairwise(depths)):
        raise ValueError(f"depths: found {depths}, expected increasing numbers from 1 on")
    if test_episodes < 2:
        raise ValueError(f"test_episodes: found {test_episodes}, expected at least 2")
    for name, share in (("level", level), ("delta", delta)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: found {share}, expected a number in (0, 1)")
    explore = uniform_policy(episodic.problem) if exploration is None else exploration
    low, high = bounds
    # One interval per depth and one of exploration on two sides, optimism on one: 3 K + 2 sides of equal chances.
    side = delta / (3 * len(depths) + 2)
    steps = 0

    def interval(values, range_low, range_high):
        mean, variance = np.mean(values), np.var(values, ddof=1)
        return (mean, *empirical_bernstein(mean, variance, len(values), range_low, range_high, 2 * side))

    def test(policy, values, explore_from, key):
        earned, fitted, taken = _tested(episodic, policy, values, explore_from, explore, key, episodes=test_episodes)
        earned, fitted = np.asarray(earned, np.float64), np.asarray(fitted, np.float64)
        slack = 1e-6 * (high - low)
        if earned.min() < low - slack or earned.max() > high + slack:
            raise ValueError(f"bounds: found returns from {earned.min()} to {earned.max()}, expected {low} to {high}")
        # A fitted value out of bounds is surely wrong; clipped it counts as less wrong, and the difference is bounded.
        optimism = interval(np.clip(fitted, low, high) - earned, low - high, high - low)
        return interval(earned, low, high), optimism, int(taken)

    rows = []
    for depth in depths:
        learns, tests = jax.random.split(jax.random.fold_in(key, depth))
        learned = sqirl(episodic, oracle, learns, depth=depth, episodes=episodes, exploration=explore)
        earned, optimism, taken = test(learned.policy, learned.values, episodic.length, tests)
        steps += int(learned.steps) + taken
        rows.append((*earned, *optimism[:2]))
    # Depth 0 is no depth: its key is free for exploration, which the policy does not enter.
    random, _, taken = test(learned.policy, learned.values, jnp.int32(0), jax.random.fold_in(key, 0))
    returns, lower, upper, optimism, optimism_low = np.array(rows).T
    first = lambda found: [*depths, depths[-1] + 1][int(np.argmax([*found, True]))]  # noqa: E731
    solved, surely, possibly = solved_depths(returns, lower, upper, random, optimal_return, level)
    return K95Estimate(
        first(solved), first(possibly), first(surely), returns, lower, upper, *map(float, random), optimism,
        optimism_low, steps + taken,
    )  # fmt: skip
