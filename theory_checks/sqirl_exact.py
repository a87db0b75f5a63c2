"""Neither J_k nor solvability is monotone in k (T4), in floats and in fractions. Notation as in sqirl.py."""

import dataclasses
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.chains import zigzag
from envs.gridworlds import frozen_lake
from rlcore.claims import Bound, Exact, Falsifier, derived_here, identity, statement
from rlcore.episodic import episodic
from rlcore.mdp import MDP
from rlcore.sqirl import analyze_episodic
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


def zigzag_counterexample() -> Exact:
    """J_1 = 1 and J_2 = 3/5, in fractions."""
    rungs = exact_ladder(zigzag(), 3)
    earned = [rung.earned for rung in rungs]
    assert [rung.solvable for rung in rungs] == [True, False, True]
    text = f"zigzag: J_1, J_2, J_3 = {', '.join(map(str, earned))}; solvable at k = 1 and 3, not at 2"
    return Exact(earned[0], earned[1], text)


def lake_counterexample() -> Exact:
    """J_1 > J_2 on the slippery lake, in fractions."""
    rungs = exact_ladder(frozen_lake(size=4, slippery=True), 2)
    one, two = (rung.earned for rung in rungs)
    return Exact(one, two, f"slippery lake of 4 x 4 cells, T = 40: J_1 = {float(one):.6f}, J_2 = {float(two):.6f}")


def never_falls(instance, problem_of):
    """J_1 <= J_2 <= J_3 on the problem."""
    found = analyze_episodic(episodic(problem_of(instance)), max_k=3)
    return Bound(found.returns_by_k[:-1], found.returns_by_k[1:], 2.0)


@statement(
    "sqirl/T4.monotone",
    "J_k does not fall in k, and what k solves, k + 1 solves (a bisection over k would need it)",
    falsifiers=[],
    origin=derived_here("docs/proofs/sqirl.md, T4, the converse", BRIDGE),
    proof="docs/proofs/sqirl.md#t4",
    generator=zigzag_instance,
    refutation=zigzag_counterexample,
    corrected="sqirl/T4",
)
def monotone_on_zigzag(instance):
    return never_falls(instance, lambda instance: zigzag_of(instance.second))


@statement(
    "sqirl/T4.lake",
    "J_k does not fall in k on the slippery lake of 4 x 4 cells",
    falsifiers=[],
    origin=derived_here("docs/proofs/sqirl.md, T4, the converse on a standard problem", BRIDGE),
    proof="docs/proofs/sqirl.md#t4",
    generator=zigzag_instance,
    refutation=lake_counterexample,
    corrected="sqirl/T4",
)
def monotone_on_ice(instance):
    return never_falls(instance, lambda _: frozen_lake(size=4, slippery=True))
