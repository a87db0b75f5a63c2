"""SQIRL as its theory has it: step by step, k regressions on random rollouts decide the next greedy action."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.episodic import Episodic
from rlcore.mdp import greedy_policy, uniform_policy
from rlcore.sqirl.oracles import Oracle, Samples
from rlcore.sqirl.rollout import returns_to_go, rollouts
from rlcore.types import Array, Float, Int, Key, Number

__all__ = ["Learned", "sqirl"]


class Learned(NamedTuple):
    """What SQIRL learned.

    policy: int32[T,S], actions by step and row; from step `length` on the first available action.
    values: float[T,S,A], the fitted values that the policy is greedy on, estimates of Q^k.
    steps: int32[], environment steps taken.
    """

    policy: Int[Array, "T S"]
    values: Float[Array, "T S A"]
    steps: Int[Array, ""]


@functools.partial(jax.jit, static_argnames=("depth", "episodes", "folds"))
def sqirl(
    episodic: Episodic,
    oracle: Oracle,
    key: Key[Array, ""],
    *,
    depth: int,
    episodes: int,
    folds: str = "shared",
    clip: tuple[Number, Number] | None = None,
    exploration: Float[Array, "S A"] | None = None,
) -> Learned:
    """SQIRL(k, m): shallow Q-iteration via reinforcement learning, one instance; `jax.vmap` over keys and problems.

    At step i, m episodes follow the policy learned for steps before i and explore from i on; k regressions backwards
    from step i + k - 1 (a Monte-Carlo one first, then fitted Q-iteration) give the values that the policy is greedy on
    at i, ties to the lowest index.

    Args:
      episodic: one problem; S rows are pairs of a state and the action before, if sticky.
      oracle: the regression.
      key: of everything.
      depth: k >= 1, static.
      episodes: m >= 1 per fold, static.
      folds: "shared" (one set of m episodes for all k regressions of a step) or "split" (m fresh episodes for each).
      clip: (low, high) of fitted values; None for none.
      exploration: probabilities by row; None for uniform over available actions.

    Returns: `Learned`; at most T^2 m steps, k T^2 m with split folds.
    Raises: ValueError for a depth or number of episodes below 1, or another word for `folds`.
    Source: algorithm of arXiv 2312.08369 as its released code has it (the listing is remembered, not read); split folds
      and clipping: derived, docs/proofs/sqirl.md, T9.
    Cost: T (T m steps + k regressions); memory T m per fold.
    """
    if depth < 1 or episodes < 1:
        raise ValueError(f"depth, episodes: found {depth}, {episodes}, expected at least 1")
    if folds not in ("shared", "split"):
        raise ValueError(f"folds: found {folds!r}, expected 'shared' or 'split'")
    problem, split = episodic.problem, folds == "split"
    shape, available = problem.available.shape, problem.available
    explore = uniform_policy(problem) if exploration is None else exploration
    values = jnp.zeros((problem.horizon, *shape), problem.discount.dtype)

    def decide(i, learned):
        rolls, fits = jax.random.split(jax.random.fold_in(key, i))
        data = jax.vmap(lambda k: rollouts(episodic, learned.policy, i, explore, k, episodes=episodes))(
            jax.random.split(rolls, depth if split else 1)
        )
        q = jnp.zeros(shape, values.dtype)
        for j in reversed(range(depth)):
            t = jnp.minimum(i + j, problem.horizon - 1)
            fold = jax.tree.map(lambda x, j=j: x[j if split else 0], data)
            now = jax.tree.map(lambda x, t=t: x[t], fold)
            if j == depth - 1:
                target = returns_to_go(fold, t, problem.discount)
            else:
                best = jnp.max(jnp.where(available, q, -jnp.inf), axis=-1)
                target = now.reward + problem.discount * jnp.where(now.over, 0.0, best[now.next_state])
            # The last step ends every episode, so that what lies beyond has no samples and is not read.
            weight = (now.running & (i + j < episodic.length)).astype(values.dtype)
            samples = Samples(now.state, now.action, target, weight)
            q = oracle.fit(samples, shape, jax.random.fold_in(fits, j))
            q = q if clip is None else jnp.clip(q, *clip)
        return Learned(
            learned.policy.at[i].set(greedy_policy(q, available)),
            learned.values.at[i].set(q),
            learned.steps + jnp.sum(data.running, dtype=jnp.int32),
        )

    start = Learned(greedy_policy(values, available), values, jnp.zeros((), jnp.int32))
    return jax.lax.fori_loop(0, episodic.length, decide, start)
