"""How many steps SQIRL and GORP need: the least over depths and doubled numbers of episodes, searched upward."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.episodic import Episodic, episodic, episodic_values, policy_return
from rlcore.mdp import MDP, StickyMDP
from rlcore.sqirl.gorp import gorp
from rlcore.sqirl.oracles import TabularMean
from rlcore.sqirl.pooled import pooled_sqirl
from rlcore.sqirl.sqirl import sqirl
from rlcore.types import Array, Float, Key, require_float64

__all__ = ["SampleComplexity", "gorp_complexity", "sample_complexity"]

LEARNERS = ("pooled", "by_step")


class SampleComplexity(NamedTuple):
    """What the search found, on the host.

    steps: float, the median of the seeds' steps at the first success; inf for none within `max_steps`.
    depth, episodes: int, k and m of it; 0 for none.
    target: float, the return that counts as solved.
    tried: int[M], the numbers of episodes tried. returns: float[M,K,R], exact returns by m, k and seed, NaN where a
    depth was not tried. taken: int[M,K,R], steps taken.
    """

    steps: float
    depth: int
    episodes: int
    target: float
    tried: np.ndarray
    returns: np.ndarray
    taken: np.ndarray


@jax.jit
def solved_return(episodic: Episodic, level: Float[Array, ""]) -> Float[Array, ""]:
    """random + level (optimal - random), less 1e-12: the return that counts as solved. Cost: 2 T sweeps."""
    best, random = (episodic.problem.initial @ episodic_values(episodic, word).value[0] for word in ("max", "mean"))
    return random + level * (best - random) - 1e-12


@functools.partial(jax.jit, static_argnames=("max_depth", "lanes"))
def _pooled(episodic, keys, depths, episodes, *, max_depth, lanes):
    def run(depth, key):
        learned = pooled_sqirl(episodic, key, depth=depth, episodes=episodes, max_depth=max_depth, lanes=lanes)
        return policy_return(episodic, learned.policy), learned.steps

    return jax.vmap(lambda depth: jax.vmap(lambda key: run(depth, key))(keys))(depths)


@functools.partial(jax.jit, static_argnames=("depth", "episodes"))
def _by_step(episodic, keys, *, depth, episodes):
    def run(key):
        learned = sqirl(episodic, TabularMean(), key, depth=depth, episodes=episodes)
        return policy_return(episodic, learned.policy), learned.steps

    return jax.vmap(run)(keys)


def _success(
    earned: np.ndarray, steps: np.ndarray, target: float, depths: Sequence[int], episodes: int
) -> tuple[float, int, int]:
    """(steps, k, m) of the depth whose median seed solved the problem with fewest steps; (inf, 0, 0) for none."""
    median = np.sort(np.where(earned >= target, steps, math.inf), axis=1)[:, earned.shape[1] // 2]
    best = int(np.argmin(median))
    return (float(median[best]), int(depths[best]), episodes) if median[best] < math.inf else (math.inf, 0, 0)


def sample_complexity(
    episodic: Episodic,
    key: Key[Array, ""],
    *,
    learner: str = "pooled",
    depths: Sequence[int] = (1, 2, 3),
    seeds: int = 5,
    max_steps: int = 300_000,
    level: float = 0.95,
    lanes: int = 64,
) -> SampleComplexity:
    """Steps of tabular SQIRL until the median seed is nearly optimal: the first m = 1, 2, 4, .. where some depth is.

    Success is not monotone in m, so the search goes upward and never bisects. Problems padded to one shape
    (`rlcore.episodic.padded`) share the pooled learner's single program, whatever m and the length.

    Args:
      episodic: one concrete problem, float64.
      key: of all seeds; every m has its own.
      learner: "pooled" (time-free tables) or "by_step" (the theory's version, one program per m and depth).
      depths: the k to try, together.
      seeds: R, odd, so that a median is one of them.
      max_steps: m stops where length^2 m, the most that a run can take, exceeds it.
      level: solved means random + level (optimal - random), by exact evaluation.
      lanes: as in `pooled_sqirl`.

    Returns: `SampleComplexity`; where several depths succeed at the same m, the one of fewest steps.
    Raises: RuntimeError without float64; ValueError for another learner, an even number of seeds, a depth below 1, or
      no room for m = 1.
    Source: derived: the convention of the released results (median of seeds); depths and doubling are this project's.
    Cost: at most 2 max_steps steps per depth and seed.
    """
    require_float64("rlcore.sqirl.sample_complexity")
    if learner not in LEARNERS:
        raise ValueError(f"learner: found {learner!r}, expected one of {LEARNERS}")
    if seeds < 1 or seeds % 2 == 0:
        raise ValueError(f"seeds: found {seeds}, expected an odd number")
    if not depths or min(depths) < 1:
        raise ValueError(f"depths: found {tuple(depths)}, expected at least one, from 1")
    most = max_steps // int(episodic.length) ** 2
    if most < 1:
        raise ValueError(f"max_steps: found {max_steps}, expected at least length^2 = {int(episodic.length) ** 2}")
    target = float(solved_return(episodic, level))
    tried, returns, taken = [], [], []
    found = (math.inf, 0, 0)
    for power in range(most.bit_length()):
        episodes = 2**power
        keys = jax.random.split(jax.random.fold_in(key, power), seeds)
        if learner == "pooled":
            narrow = min(lanes, 8 if episodes <= 8 else lanes)
            ks = jnp.asarray(depths, jnp.int32)
            earned, steps = _pooled(episodic, keys, ks, episodes, max_depth=max(depths), lanes=narrow)
        else:
            runs = [_by_step(episodic, keys, depth=depth, episodes=episodes) for depth in depths]
            earned, steps = (jnp.stack(part) for part in zip(*runs, strict=True))
        earned, steps = np.asarray(earned), np.asarray(steps)
        tried.append(episodes)
        returns.append(earned)
        taken.append(steps)
        found = _success(earned, steps, target, depths, episodes)
        if found[0] < math.inf:
            break
    return SampleComplexity(*found, target, np.array(tried), np.stack(returns), np.stack(taken))


def gorp_complexity(
    problem: MDP | StickyMDP,
    key: Key[Array, ""],
    *,
    depths: Sequence[int] = (1, 2, 3),
    seeds: int = 3,
    max_steps: int = 300_000,
    level: float = 0.95,
    growth: int = 2,
) -> SampleComplexity:
    """The fewest steps after which the median seed's open-loop plan of GORP(k, m) solves the problem.

    As `sample_complexity`, with m = 1, growth, growth^2, ...; success is not monotone in m, and no other m is tried.

    Args: problem: deterministic, or `sticky` of a deterministic one, float64; growth: at least 2; the rest as
      `sample_complexity`, but a depth k stops where length^2 A^k m exceeds `max_steps`, and one beyond the horizon is
      left out.
    Returns: `SampleComplexity`; steps count episodes from their start to their end, as `gorp`.
    Raises: as `gorp`; RuntimeError without float64; ValueError for an even number of seeds, no depth, a growth below 2,
      or no room for m = 1 at any depth.
    Source: derived: as `sample_complexity`. Cost: one compilation per k and m tried.
    """
    require_float64("rlcore.sqirl.gorp_complexity")
    if seeds < 1 or seeds % 2 == 0:
        raise ValueError(f"seeds: found {seeds}, expected an odd number")
    if not depths or min(depths) < 1 or growth < 2:
        raise ValueError(f"depths, growth: found {tuple(depths)}, {growth}, expected at least one, from 1, and 2")
    target = float(solved_return(episodic(problem), level))
    depths = [k for k in depths if k <= problem.horizon] or [problem.horizon]
    per_episode = [problem.horizon**2 * problem.available.shape[1] ** k for k in depths]
    if min(per_episode) > max_steps:
        raise ValueError(f"max_steps: found {max_steps}, expected at least length^2 A^k = {min(per_episode)}")
    tried, returns, taken, found, m = [], [], [], (math.inf, 0, 0), 1
    while found[0] == math.inf and m * min(per_episode) <= max_steps:
        keys = jax.random.split(jax.random.fold_in(key, len(tried)), seeds)
        earned, steps = np.full((len(depths), seeds), np.nan), np.zeros((len(depths), seeds), int)
        for i, k in enumerate(depths):
            if m * per_episode[i] <= max_steps:
                plan = jax.jit(jax.vmap(lambda key, k=k, m=m: gorp(problem, k, m, key)))(keys)
                earned[i], steps[i] = plan.total, plan.steps
        tried.append(m)
        returns.append(earned)
        taken.append(steps)
        found = _success(earned, steps, target, depths, m)
        m *= growth
    return SampleComplexity(*found, target, np.array(tried), np.stack(returns), np.stack(taken))
