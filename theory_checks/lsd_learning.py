"""Learning payoffs: explore, then commit (T13), and monotone virtual UCB (T14), whose proof is checked lemma by lemma.

Notation as in lsd.py and lsd_planning.py; N sweeps of exploration, H rounds per frame. Proofs: docs/proofs/lsd.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Chance, Falsifier, Sampled, derived_here, statement
from rlcore.lsd import (
    SwitchingBandit,
    alpha,
    etc_regret_bound,
    etc_sweeps,
    relaxation,
    virtual_ucb_regret_bound,
)
from rlcore.lsd.explore_commit import exploration_sweep
from rlcore.lsd.virtual_ucb import virtual_ucb_frame
from rlcore.types import Array
from theory_checks.lsd import LSD, SIZES, monotone_instance, problem_of
from theory_checks.lsd_planning import blocking_instance, phase_mean, spiked

# ---- T13: explore, then commit ---------------------------------------------------------------------------------------


class Estimated(NamedTuple):
    """A problem, estimates float[k, S] of its payoffs, and how far off they are at most, float[]."""

    problem: SwitchingBandit
    estimates: Array
    width: Array


def estimated_instance(key, **sizes):
    """Monotone payoffs; estimates in [0, 1] within a width up to 0.2, at its ends for half of the states."""
    table_key, width_key, error_key, end_key = jax.random.split(key, 4)
    problem = monotone_instance(table_key, **sizes).problem
    width = 0.2 * jax.random.uniform(width_key) ** 2
    error = jax.random.uniform(error_key, problem.payoffs.shape, minval=-1.0)
    error = jnp.where(jax.random.bernoulli(end_key, 0.5, error.shape), jnp.sign(error), error)
    return Estimated(problem, jnp.clip(problem.payoffs + width * error, 0, 1), width)


def nearby_estimates(instance):
    """Project a perturbed instance back."""
    problem, estimates, width = instance
    payoffs = jnp.sort(jnp.clip(problem.payoffs, 0, 1), axis=1)
    width = jnp.clip(width, 0, 0.2)
    estimates = jnp.clip(jnp.clip(estimates, payoffs - width, payoffs + width), 0, 1)
    return Estimated(problem_of(payoffs, problem.satiation), estimates, width)


def one_good_arm(key, k, recovery, satiation):
    """Arm 0 pays 0.7 to 0.9, the others 0.1 to 0.15, nearly the same in every state."""
    payoffs = jnp.sort(jax.random.uniform(key, (k, recovery + satiation)), axis=1)
    good = jnp.arange(k)[:, None] == 0
    payoffs = jnp.where(good, 0.7 + 0.2 * payoffs[:, -1:], 0.1 + 0.05 * payoffs[:, -1:]) - 0.01 * (1 - payoffs)
    return Estimated(problem_of(payoffs, satiation), payoffs, jnp.full((), 0.01))


def neighbours(estimates):
    """Every arm is taken for the one before it."""
    return jnp.roll(estimates, 1, axis=0)


def step_instance(key, k, recovery, satiation):
    """Step payoffs, known exactly."""
    problem = blocking_instance(key, k, recovery, satiation).problem
    return Estimated(problem, problem.payoffs, jnp.zeros(()))


@statement(
    "lsd/T13.commit",
    "MON, estimates within eps: their random phases earn >= T (alpha V - (1 + alpha) eps) - k from +1, T = 24",
    falsifiers=[
        Falsifier(
            "estimates are within eps (arms are mistaken for each other)",
            {"mistaken": neighbours},
            share=0.9,
            generator=one_good_arm,
            setting={"horizon": 40},
        ),
        Falsifier(
            "payoffs never fall with rest (each reward at one rest alone)",
            {"shape": spiked},
            share=0.9,
            generator=step_instance,
            cases=[{"k": 3, "recovery": 6, "satiation": 1}],
            setting={"horizon": 80},
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T13", LSD),
    proof="docs/proofs/lsd.md#t13",
    generator=estimated_instance,
    project=nearby_estimates,
    cases=[SIZES],
)
def committed(instance, mistaken=None, shape=None, horizon=24):
    problem, estimates, width = instance
    k, low = problem.num_arms, problem.satiation
    if mistaken is not None:
        estimates = mistaken(estimates)
    if shape is not None:
        problem, estimates = problem_of(shape(problem.payoffs, low), low), shape(estimates, low)
    # Estimates need not be monotone: payoffs are.
    plan = relaxation(problem_of(estimates, low))
    best = relaxation(problem)
    earned = phase_mean(problem, plan, horizon, start="one", scores=estimates)
    claimed = horizon * (alpha(k) * best.value - (1 + alpha(k)) * width) - k
    error = horizon * (jnp.abs(best.gap) + jnp.abs(plan.gap))
    return Bound(claimed, earned, 4.0 * k * horizon, error, trivial=1.0 * horizon)


class Pair(NamedTuple):
    """payoffs: float[2, 2], of two arms after a play and after a rest."""

    payoffs: Array


def rich_pair(key):
    """Monotone payoffs of 0.3 to 1: the bound says something of them."""
    return Pair(jnp.sort(0.3 + 0.7 * jax.random.uniform(key, (2, 2)), axis=1))


def one_good_of_two(key):
    """Arm 0 pays 0.9 to 1, arm 1 0.02 to 0.03."""
    return Pair(jnp.array([[0.9], [0.02]]) + jnp.array([[0.1], [0.01]]) * rich_pair(key).payoffs)


def binomial_table(chance, count):
    """float[count + 1], the distribution function of Bin(count, chance)."""
    n = jnp.arange(count + 1.0)
    log_law = (
        jax.scipy.special.gammaln(count + 1.0)
        - jax.scipy.special.gammaln(n + 1)
        - jax.scipy.special.gammaln(count - n + 1)
        + jax.scipy.special.xlogy(n, chance)
        + jax.scipy.special.xlog1py(count - n, -chance)
    )
    return jnp.cumsum(jnp.exp(log_law))


@statement(
    "lsd/T13",
    "MON, true rewards seen, k = 2, M = L = 1, T = 3 10^4: ETC loses <= N k C + (1 + alpha) eps T + k + 2 to alpha T V",
    falsifiers=[
        Falsifier(
            "rewards are seen as they are (those of arm 0 divided by 100)",
            {"seen": 0.01},
            share=0.9,
            generator=one_good_of_two,
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T13", LSD),
    proof="docs/proofs/lsd.md#t13",
    generator=rich_pair,
    chance=Chance(replicates=256, cap=2**13),
)
def explore_commit(instance, keys, seen=1.0, horizon=30_000):
    problem = problem_of(instance.payoffs, 1)
    k, m, low = 2, problem.recovery, problem.satiation
    sweeps = etc_sweeps(horizon, k, m, low)
    explored = sweeps * k * len(exploration_sweep(m, low))
    tables = jax.vmap(jax.vmap(lambda p: binomial_table(p, sweeps)))(
        instance.payoffs * jnp.array([[seen], [1.0]])
    )  # every sweep sees every local state once
    # Where one round of rest is full recovery, states after a play depend on that round alone: with periods of 1 to 3
    # the commitment repeats itself every 6 rounds from the sixth on. What is left over at its end counts as nothing.
    period = 6
    weights = np.repeat([1.0, (horizon - explored - 1 - period) // period], period)

    def regret(key):
        level = jax.random.uniform(key, (k, 2))
        successes = jnp.sum(tables < level[:, :, None], axis=2)
        estimates = jnp.minimum(successes / sweeps, 1.0)
        plan = relaxation(problem_of(estimates, low))
        earned = phase_mean(problem, plan, 2 * period, start="rested", scores=estimates, weights=weights)
        earned = sweeps * jnp.sum(instance.payoffs) + earned
        return alpha(k) * best.value - earned / horizon

    best = relaxation(problem)
    values = jax.lax.map(regret, keys, batch_size=32)
    most = alpha(k) * best.value
    bound = etc_regret_bound(horizon, k, m, low, 0.75)  # alpha(2, 1)
    return Sampled(values, bound / horizon, most - 1.0, most, 4.0, jnp.abs(best.gap), trivial=most)


# ---- T14: monotone virtual UCB ---------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A problem; raw upper bounds float[k, S] above its payoffs by twice the widths float[k, S] at most."""

    problem: SwitchingBandit
    bounds: Array
    width: Array


def frame_instance(key, **sizes):
    """Monotone payoffs and widths of any size, as after any number of visits; bounds up to 1."""
    table_key, width_key, level_key = jax.random.split(key, 3)
    problem = monotone_instance(table_key, **sizes).problem
    width = 0.3 * jax.random.uniform(width_key, problem.payoffs.shape) ** 3
    bounds = problem.payoffs + 2 * width * jax.random.uniform(level_key, width.shape)
    return Frame(problem, jnp.minimum(bounds, 1), width)


def nearby_frame(instance):
    """Project a perturbed frame back."""
    problem, bounds, width = instance
    payoffs = jnp.sort(jnp.clip(problem.payoffs, 0, 1), axis=1)
    width = jnp.clip(width, 0, 0.5)
    bounds = jnp.clip(bounds, payoffs, jnp.minimum(payoffs + 2 * width, 1))
    return Frame(problem_of(payoffs, problem.satiation), bounds, width)


def narrow_good_arm(key, k, recovery, satiation):
    """One good arm, and hardly any uncertainty."""
    problem, payoffs, _ = one_good_arm(key, k, recovery, satiation)
    return Frame(problem, payoffs, jnp.full_like(payoffs, 0.001))


def narrow_steps(key, k, recovery, satiation):
    """Step payoffs, and hardly any uncertainty."""
    problem = blocking_instance(key, k, recovery, satiation).problem
    return Frame(problem, problem.payoffs, jnp.full_like(problem.payoffs, 0.001))


@statement(
    "lsd/T14.frame",
    "MON, bounds within 2c: a frame of MV-UCB earns >= (H - 1) alpha V - k - E sum of 2c at the states played, H = 25",
    falsifiers=[
        Falsifier(
            "bounds exceed payoffs by 2c at most (those of poor arms are 1)",
            {"inflated": 1.0},
            share=0.9,
            generator=narrow_good_arm,
            setting={"rounds": 40},
        ),
        Falsifier(
            "payoffs never fall with rest (each reward at one rest alone)",
            {"shape": spiked},
            share=0.9,
            generator=narrow_steps,
            cases=[{"k": 3, "recovery": 6, "satiation": 1}],
            setting={"rounds": 80},
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T14", LSD),
    proof="docs/proofs/lsd.md#t14",
    generator=frame_instance,
    project=nearby_frame,
    cases=[SIZES],
)
def one_frame(instance, inflated=0.0, shape=None, rounds=24):
    problem, bounds, width = instance
    k, low = problem.num_arms, problem.satiation
    if shape is not None:
        problem, bounds = problem_of(shape(problem.payoffs, low), low), shape(bounds, low)
    bounds = jnp.maximum(bounds, jnp.where(jnp.arange(k)[:, None] > 0, inflated, 0.0))
    # As the learner does: no state is better than those above it.
    bounds = jax.lax.cummin(bounds, axis=1, reverse=True)
    plan = relaxation(problem_of(bounds, low))
    best = relaxation(problem)
    # What a play earns, and twice the width at the real state where it is made; after the frame's empty round no arm is
    # below +1.
    credited = problem_of(problem.payoffs + 2 * width, low)
    earned = phase_mean(credited, plan, rounds, start="one", scores=bounds)
    error = rounds * (jnp.abs(best.gap) + jnp.abs(plan.gap))
    return Bound(rounds * alpha(k) * best.value - k, earned, 4.0 * k * rounds, error)


@statement(
    "lsd/T14.bounds",
    "MON, bounds above payoffs: their least over all higher states still is, and its relaxation is at least V",
    falsifiers=[
        Falsifier(
            "payoffs never fall with rest (each reward at one rest alone)",
            {"shape": spiked},
            share=0.9,
            generator=narrow_steps,
            cases=[{"k": 3, "recovery": 6, "satiation": 1}],
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T14", LSD),
    proof="docs/proofs/lsd.md#t14",
    generator=frame_instance,
    project=nearby_frame,
    cases=[SIZES],
)
def rising_bounds(instance, shape=None):
    problem, bounds, _ = instance
    low = problem.satiation
    if shape is not None:
        problem, bounds = problem_of(shape(problem.payoffs, low), low), shape(bounds, low)
    least = jax.lax.cummin(bounds, axis=1, reverse=True)
    best, plan = relaxation(problem), relaxation(problem_of(least, low))
    error = jnp.abs(best.gap) + jnp.abs(plan.gap)
    return [Bound(problem.payoffs, least, 2.0), Bound(best.value, plan.value, 2.0 * problem.num_arms, error)]


class Visits(NamedTuple):
    """visits: int[F, n], of n states in each of F frames, at most H in all of a frame."""

    visits: Array


NUM_STATES, LENGTH = 4, 4000
ROUNDS = virtual_ucb_frame(LENGTH, 2)
FRAMES = LENGTH // ROUNDS


def random_visits(key):
    """Every round of a frame goes to one of n states, by a law of the frame: from one state to all of them."""
    law_key, visit_key, sharp_key = jax.random.split(key, 3)
    sharp = jnp.exp(3 * jax.random.normal(sharp_key))
    law = sharp * jax.random.normal(law_key, (FRAMES, NUM_STATES))
    chosen = jax.random.categorical(visit_key, law[:, None, :], shape=(FRAMES, ROUNDS))
    return Visits(jnp.sum(jax.nn.one_hot(chosen, NUM_STATES, dtype=jnp.int64), axis=1))


@statement(
    "lsd/T14.counts",
    "Widths frozen in frames of H rounds: sum of min(1, 2c) over all visits <= 4 sqrt(k S T lg) + 2 k S H, T = 4000",
    falsifiers=[
        Falsifier("counts are renewed at every frame (every hundredth)", {"renewed": 100}, share=0.9),
        Falsifier("a frame has H rounds at most (20 H, as many frames)", {"longer": 20}, share=0.9),
    ],
    origin=derived_here("docs/proofs/lsd.md, T14", LSD),
    proof="docs/proofs/lsd.md#t14",
    generator=random_visits,
)
def frozen_widths(instance, renewed=1, longer=1):
    visits = 1.0 * longer * instance.visits
    log_term = np.log(2 * NUM_STATES * LENGTH**2)

    def step(state, frame):
        count, known, t = state
        known = jnp.where(t % renewed == 0, count, known)
        loss = jnp.where(known > 0, jnp.minimum(2 * jnp.sqrt(log_term / (2 * jnp.maximum(known, 1.0))), 1.0), 1.0)
        return (count + frame, known, t + 1), jnp.sum(frame * loss)

    zero = jnp.zeros(NUM_STATES)
    _, losses = jax.lax.scan(step, (zero, zero, 0), visits)
    restarts = 3 * (LENGTH / ROUNDS + 1) + 1  # (k + 1) (T / H + 1) + 1 of the whole bound, k = 2
    bound = virtual_ucb_regret_bound(LENGTH, 2, NUM_STATES // 2, ROUNDS) - restarts
    return Bound(jnp.sum(losses), bound, 2.0 * LENGTH * longer, trivial=1.0 * LENGTH)
