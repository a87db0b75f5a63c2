"""Neither J_k nor solvability is monotone in k (T4), in floats and in fractions. Notation as in sqirl.py."""

import dataclasses
import functools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.chains import zigzag
from envs.gridworlds import frozen_lake
from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.episodic import episodic
from rlcore.mdp import MDP
from rlcore.sqirl import analyze, analyze_episodic
from rlcore.types import Array

BRIDGE = "laidlaw2023"


# ---- the ladder in fractions -----------------------------------------------------------------------------------------


class ExactRung(NamedTuple):
    """One rung: J_k with the worst ties, V^k at the start, and whether every greedy policy is optimal."""

    earned: Fraction
    certificate: Fraction
    solvable: bool


def exact_ladder(mdp: MDP, max_k: int, denominator: int = 1000) -> list[ExactRung]:
    """The ladder of uniform exploration in rational arithmetic: ties and optimality are exact.

    Args:
      mdp: undiscounted, stationary, starting in state 0; its numbers are read as the fractions nearest to them.
      max_k: rungs.
      denominator: the largest denominator of a probability or a reward.

    Returns: rungs 1 .. max_k.
    Cost: 3 T S A B fraction operations a rung, on the host.
    """
    rational = np.vectorize(lambda x: Fraction(float(x)).limit_denominator(denominator), otypes=[object])
    prob, reward = rational(mdp.prob), rational(mdp.reward)
    following, terminal, steps = np.asarray(mdp.next_state), np.asarray(mdp.terminal), mdp.horizon
    states, actions, _ = prob.shape
    gain = (prob * reward).sum(axis=-1)
    live = np.where(terminal, Fraction(0), prob)
    zero = np.full(states, Fraction(0), dtype=object)

    def backup(value):
        return gain + (live * value[following]).sum(axis=-1)

    def from_the_end(join):
        q, value = [], zero
        for _ in range(steps):
            q.insert(0, backup(value))
            value = join(q[0])
        return q

    best = from_the_end(lambda q: q.max(axis=1))
    q = from_the_end(lambda q: q.sum(axis=1) / actions)
    rungs = []
    for _ in range(max_k):
        tops = [row.max(axis=1) for row in q]
        greedy = [row == top[:, None] for row, top in zip(q, tops, strict=True)]
        value = zero
        for t in reversed(range(steps)):
            value = np.array([min(row[mask]) for row, mask in zip(backup(value), greedy[t], strict=True)])
        rungs.append(ExactRung(value[0], tops[0][0], value[0] == best[0].max(axis=1)[0]))
        q = [backup(top) for top in [*tops[1:], zero]]
    return rungs


# ---- T4 --------------------------------------------------------------------------------------------------------------


class Zigzag(NamedTuple):
    """second: float[], what the short way pays."""

    second: Array


def zigzag_instance(key):
    """Between .55 and .95: more than random exploration makes of the long way, less than the long way."""
    return Zigzag(0.55 + 0.4 * jax.random.uniform(key))


def zigzag_of(second):
    """The problem `zigzag` with another reward than .6 at the end of the short way."""
    with jax.ensure_compile_time_eval():  # built on the host, whatever is being traced
        problem = zigzag()
    return dataclasses.replace(problem, reward=jnp.where(problem.reward == 0.6, second, problem.reward))


@statement(
    "sqirl/T4",
    "Zigzag, short way d in (1/2, 1): J_1 = 1, J_2 = d, J_3 = 1, gaps (1 - d)/2, none, 1 - d: k = 1, 3 solve it, 2 not",
    falsifiers=[Falsifier("J_2 may lie below J_1 (J_k does not fall)", {"monotone": True}, share=0.9)],
    origin=derived_here("docs/proofs/sqirl.md, T4", BRIDGE),
    proof="docs/proofs/sqirl.md#t4",
    generator=zigzag_instance,
)
def not_monotone(instance, monotone=False):
    second = instance.second
    found = analyze_episodic(episodic(zigzag_of(second)), max_k=3, tol=1e-9)
    expected = jnp.stack([jnp.ones(()), second, jnp.ones(())])
    gaps = jnp.stack([(1 - second) / 2, jnp.zeros(()), 1 - second])
    bounds = [identity(found.returns_by_k, expected, 2.0), identity(found.gaps_by_k, gaps, 2.0)]
    return [*bounds, Bound(found.returns_by_k[0], found.returns_by_k[1], 2.0)] if monotone else bounds


class Rung(NamedTuple):
    """k: int[], a rung of the slippery lake, 2 to 13."""

    k: Array


def rung_instance(key):
    """Any of them."""
    return Rung(jax.random.randint(key, (), 2, 14))


@functools.cache
def returns_of(name):
    """(J_k in fractions, J_k as `analyze` has it) of zigzag, k <= 3, or of the slippery lake, k <= 13."""
    problem = zigzag() if name == "zigzag" else frozen_lake(size=4, slippery=True)
    max_k = 3 if name == "zigzag" else 13
    ours = analyze(problem, max_k=max_k).returns_by_k
    return [rung.earned for rung in exact_ladder(problem, max_k)], np.asarray(ours)


@statement(
    "sqirl/T4.exact",
    "J_k in fractions: zigzag 1, 3/5, 1; slippery 4 x 4 lake, T = 40: J_1 > .. > J_5 and J_7 < .. < J_13 = J*",
    falsifiers=[Falsifier("J_k may lie below J_{k-1} (J_k does not fall)", {"monotone": True}, share=0.5)],
    origin=derived_here("docs/proofs/sqirl.md, T4", BRIDGE),
    proof="docs/proofs/sqirl.md#t4",
    generator=rung_instance,
    host=True,
)
def not_monotone_in_fractions(instance, monotone=False):
    k = int(instance.k)
    bounds = []
    for name, at in (("zigzag", 2 + k % 2), ("lake", k)):
        exact, ours = returns_of(name)
        before, now = exact[at - 2], exact[at - 1]
        bounds.append(identity(ours[at - 1], float(now), 1.0))
        turns = {2: -1, 3: 1} if name == "zigzag" else {2: -1, 3: -1, 4: -1, 5: -1, 6: 0, 7: 0}
        bounds.append(identity(float((now > before) - (now < before)), float(turns.get(at, 1)), 1.0))
        if monotone:
            bounds.append(Bound(float(before), float(now), 1.0))
    return bounds
