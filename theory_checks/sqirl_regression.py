"""SQIRL's guarantee: tables of means (T9a), one step's errors (T9.sharp), and whole runs with split folds (T9).

Notation: T steps, A actions, m episodes per fold, Q^k the ladder's rung k (Q^1 of random exploration), sub the largest
Q^k of an action that is not optimal, Delta the least V^k - sub over confusable states, mu the law of the data, |X| the
pairs of positive probability. Proofs: docs/proofs/sqirl.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from rlcore.claims import Bound, Chance, Falsifier, Sampled, derived_here, statement
from rlcore.episodic import episodic, policy_return
from rlcore.mdp import MDP, StickyMDP, greedy_policy
from rlcore.sqirl import (
    TabularMean,
    basic_values,
    confusable_gaps,
    optimal_actions,
    qvi_step,
    sqirl,
    sqirl_certificate,
    tabular_squared_error,
)
from rlcore.types import Array
from theory_checks.sqirl import SQIRL, problem_of, random_game

# ---- T9a: tables of means --------------------------------------------------------------------------------------------


class Cells(NamedTuple):
    """Probabilities float[X] of pairs, in all 1 or less (void samples), chances float[X] of target 1, and m <= 50."""

    law: Array
    mean: Array
    samples: Array


def cells_instance(key, pairs, samples):
    """A law of any concentration and Bernoulli targets of any mean."""
    keys = jax.random.split(key, 4)
    weight = jax.random.gamma(keys[0], jnp.exp(2 * jax.random.normal(keys[1])), (pairs,)) + 1e-9
    whole = jax.random.uniform(keys[2], minval=0.1)
    return Cells(whole * weight / jnp.sum(weight), jax.random.uniform(keys[3], (pairs,)), jnp.asarray(float(samples)))


def even_cells(key, pairs, samples):
    """Equally likely pairs whose targets are hardly ever 1."""
    return Cells(jnp.full(pairs, 1.0 / pairs), 1e-3 * jax.random.uniform(key, (pairs,)), jnp.asarray(float(samples)))


@statement(
    "sqirl/T9a",
    "Means of m targets in [0, 1] on |X| pairs, 1/2 where there is none: squared error <= (1/2 + 1/(4e)) |X| / m",
    falsifiers=[
        Falsifier(
            "the default is the middle of the targets' range (2)",
            {"default": 2.0},
            share=0.9,
            generator=even_cells,
            cases=[{"pairs": 50, "samples": 50}],
        )
    ],
    origin=derived_here("docs/proofs/sqirl.md, T9a", SQIRL),
    proof="docs/proofs/sqirl.md#t9a",
    generator=cells_instance,
    cases=[{"pairs": 3, "samples": 8}, {"pairs": 20, "samples": 50}, {"pairs": 50, "samples": 50}],
)
def table_of_means(instance, default=0.5):
    law, mean, samples = instance
    n, law = jnp.arange(1.0, 51.0)[:, None], law[None]
    choose = gammaln(samples + 1.0) - gammaln(n + 1.0) - gammaln(jnp.maximum(samples - n, 0.0) + 1.0)
    chance = jnp.exp(choose + n * jnp.log(law) + (samples - n) * jnp.log1p(-law))
    inverse, law = jnp.sum(jnp.where(n <= samples, chance / n, 0.0), axis=0), law[0]
    missed = jnp.exp(samples * jnp.log1p(-law))
    squared = jnp.sum(law * (mean * (1 - mean) * inverse + missed * (mean - default) ** 2))
    # Logarithms of up to some hundred, each rounded, enter the chances: relative errors of as many epsilons.
    error = 1e3 * jnp.finfo(law.dtype).eps * squared
    return Bound(squared, tabular_squared_error(law.shape[0], samples), 1.0, error, trivial=1.0)


# ---- T9.sharp: one step's errors -------------------------------------------------------------------------------------


class Fitted(NamedTuple):
    """A problem, sticky or not, and the errors float[T,SA,A] of fitted values."""

    problem: StickyMDP
    error: Array


def judged(problem, rung):
    """(the values of a rung, its gaps): rung 0 is exploration, the last the optimum."""
    one = episodic(problem)
    values = basic_values(one)
    q = values.exploration.q
    for _ in range(rung):
        q = qvi_step(one, q)
    optimal = optimal_actions(values.optimal.q, problem.available[None], 1e-10)
    return q, confusable_gaps(one, q, optimal)


def fitted_instance(key, states, actions, steps):
    """Normal errors, their size .13 to .6 of the least gap of the rungs that are judged."""
    game = random_game(key, states, actions, steps)
    found = [judged(game.problem, rung)[1] for rung in (0, 1, steps - 1)]
    least = jnp.min(jnp.stack([jnp.where(gaps.separated, gaps.smallest, jnp.inf) for gaps in found]))
    share = jnp.exp(jax.random.uniform(jax.random.fold_in(key, 1), minval=-2.0, maxval=-0.5))
    return Fitted(game.problem, share * jnp.where(jnp.isfinite(least), least, 1.0) * game.noise)


def half_gap(key, states, actions, steps):
    """Exact values, but where the least gap of the optimum is: there the two best are moved together by half of it."""
    problem = random_game(key, states, actions, steps).problem
    q, gaps = judged(problem, steps - 1)
    least = jnp.where(gaps.confusable, gaps.gap, jnp.inf)
    here = least == jnp.min(least)
    best = q == jnp.max(q, axis=-1, keepdims=True)
    second = q == gaps.sub[..., None]
    move = 0.501 * jnp.where(here, gaps.gap, 0.0)[..., None]
    return Fitted(problem, jnp.where(second, move, jnp.where(best, -move, 0.0)))


@statement(
    "sqirl/T9.sharp",
    "P(the first action with Q^k <= sub is at i) <= 2 A ||Qhat_i - Q^k_i||^2 / Delta^2, in the data's law at i",
    falsifiers=[
        Falsifier(
            "exploration meets an action once in A times (the factor A is left out)",
            {"factor": False},
            share=0.9,
            generator=half_gap,
        )
    ],
    origin=derived_here("docs/proofs/sqirl.md, T9, step iii", SQIRL),
    proof="docs/proofs/sqirl.md#t9",
    generator=fitted_instance,
    cases=[{"states": 3, "actions": 2, "steps": 5}, {"states": 4, "actions": 3, "steps": 6}],
)
def first_mistake(instance, factor=True):
    problem, error = instance
    actions, steps = problem.available.shape[1], problem.horizon

    def bound(rung):
        q, gaps = judged(problem, rung)
        taken = greedy_policy(q + error, problem.available)
        chosen = jax.nn.one_hot(taken, actions, dtype=bool)
        bad = jnp.any(chosen & (q <= gaps.sub[..., None]), axis=-1)

        def forward(mass, row):
            t, chosen, bad, error = row
            everyone, innocent = mass
            now = problem.at_time(t)
            mistaken = jnp.sum(jnp.where(bad, innocent, 0.0))
            squared = jnp.sum(everyone[:, None] * error**2) / actions
            push = lambda x: now.push_forward(jnp.where(chosen, x[:, None], 0.0))  # noqa: E731
            return (push(everyone), push(jnp.where(bad, 0.0, innocent))), (mistaken, squared)

        times = jnp.arange(steps, dtype=jnp.int32)
        start = (problem.initial, problem.initial)
        _, (mistaken, squared) = jax.lax.scan(forward, start, (times, chosen, bad, error))
        rhs = 2 * (actions if factor else 1) * squared / gaps.smallest**2
        return Bound(mistaken, rhs, 1.0, 0.0, gaps.separated, trivial=1.0)

    return [bound(rung) for rung in (0, 1, steps - 1)]


# ---- T9: whole runs --------------------------------------------------------------------------------------------------


class Lock(NamedTuple):
    """A lock of two dials and two actions: action 0 pays a sure reward at once, actions 1 and then 0 pay 1."""

    problem: MDP


def lock_instance(key):
    """A sure reward between .55 and .6: rung 1 prefers it, as the other action is worth 1/2 to exploration."""
    sure = jax.random.uniform(key, minval=0.55, maxval=0.6)
    reward = jnp.stack([jnp.stack([sure, jnp.zeros(())]), jnp.array([1.0, 0.0])])[..., None]
    next_state = jnp.zeros((2, 2, 1), int).at[0, 1].set(1)
    terminal = jnp.ones((2, 2, 1), bool).at[0, 1].set(False)
    return Lock(problem_of(next_state, jnp.ones((2, 2, 1)), reward, terminal, 2))


@statement(
    "sqirl/T9",
    "SQIRL(2, 512), split folds, tables of means in [0, 1]: P(J < J*) <= 2 A sum_i e_i^2 / Delta^2 on a lock",
    falsifiers=[
        Falsifier("rung k has a gap (the learner stops at rung 1)", {"depth": 1}, share=0.9),
        Falsifier("exploration is uniform (it never turns the first dial)", {"first": 1.0}, share=0.9),
    ],
    origin=derived_here("docs/proofs/sqirl.md, T9; the theorem of the paper was not read", SQIRL),
    proof="docs/proofs/sqirl.md#t9",
    generator=lock_instance,
    chance=Chance(kind="probability", replicates=32, cap=2**12),
)
def split_folds(instance, keys, depth=2, first=0.5, episodes=512):
    one = episodic(instance.problem)
    promise = sqirl_certificate(one, 2)
    exploration = jnp.array([[first, 1 - first], [0.5, 0.5]])

    def lost(key):
        learned = sqirl(
            one,
            TabularMean(0.5),
            key,
            depth=depth,
            episodes=episodes,
            folds="split",
            clip=(0.0, 1.0),
            exploration=exploration,
        )
        return (policy_return(one, learned.policy) < 1.0 - 1e-9).astype(float)

    values = jax.lax.map(lost, keys, batch_size=32)
    return Sampled(values, promise.suboptimality(episodes), 0.0, 1.0, 2.0, applies=promise.applies, trivial=1.0)
