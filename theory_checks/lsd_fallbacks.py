"""Other schedules: interleaving of concave payoffs (T10), whole runs (T11) and coupled tasks (T12) without MON.

Expectations are exact: the long-run mean of interleaving is a finite sum, and for two arms every draw of phases is
enumerated. Notation as in lsd.py; V_R is the cycle programme with runs of R plays at most and no play without end.
Proofs: docs/proofs/lsd.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import concave_random
from rlcore.claims import Bound, Chance, Falsifier, Sampled, derived_here, statement
from rlcore.lsd import (
    Coupled,
    Interleaved,
    Relaxation,
    Stretched,
    SwitchingBandit,
    delay_relaxation,
    relaxation,
    simulate,
)
from rlcore.lsd.coupled import CoupledState
from rlcore.lsd.interleaved import interleaved_value, play_rates
from rlcore.lsd.stretched import StretchedState, run_relaxation
from rlcore.pytree import pytree
from theory_checks.lsd import LSD, problem_of, random_payoffs
from theory_checks.lsd_planning import Started, enumerate_draws, phase_mean

PCS = "papadigenopoulos2022"
KEPT = 1 - np.exp(-1) / 2  # 1 - 1 / (2 e)


# ---- T10: interleaving -----------------------------------------------------------------------------------------------


class Recharging(NamedTuple):
    """A problem whose payoffs depend on the delay alone."""

    problem: SwitchingBandit


def concave_instance(key, k, depth):
    """Concave payoffs by delay 1 .. depth: random ones, or caps min(d, c) / depth, where the bound is nearly tight."""
    random_key, cap_key, scale_key, kind_key = jax.random.split(key, 4)
    caps = jax.random.randint(cap_key, (k, 1), 2, depth + 1).astype(float)
    scale = 0.2 + 0.8 * jax.random.uniform(scale_key, (k, 1))
    capped = scale * jnp.minimum(jnp.arange(1.0, depth + 1), caps) / caps
    payoffs = jnp.where(jax.random.bernoulli(kind_key), capped, concave_random(random_key, k, depth).payoffs)
    return Recharging(problem_of(payoffs, 1))


def nearby_concave(instance):
    """Project a perturbed instance back: increments in [0, 1 / depth], falling."""
    payoffs = instance.problem.payoffs
    steps = jnp.clip(jnp.diff(payoffs, axis=1, prepend=0.0), 0, 1 / payoffs.shape[1])
    return Recharging(problem_of(jnp.cumsum(-jnp.sort(-steps, axis=1), axis=1), 1))


def uneven_steps(key, k, depth):
    """Blocking arms of different delays that nearly fill the rounds: the payoffs are steps, not concave."""
    choice_key, reward_key = jax.random.split(key)
    delays = jnp.array([[3, 4, 5, 5], [3, 4, 4, 7], [3, 5, 5, 5], [4, 4, 4, 5], [3, 4, 6, 6]])
    delays = delays[jax.random.randint(choice_key, (), 0, len(delays))][:k]
    rewards = 0.9 + 0.1 * jax.random.uniform(reward_key, (k, 1))
    return Recharging(problem_of(jnp.where(jnp.arange(1, depth + 1) >= delays[:, None], rewards, 0.0), 1))


def to_concave(payoffs):
    """The least concave majorant from 0, over the delays."""
    depth = payoffs.shape[1]
    d = jnp.arange(1.0, depth + 1)
    table = jnp.concatenate([jnp.zeros_like(payoffs[:, :1]), payoffs], axis=1)
    ends = jnp.arange(0.0, depth + 1)
    # chords from a to b at d between them
    a, b = ends[:, None, None], ends[None, :, None]
    chord = table[:, :, None, None] + (table[:, None, :, None] - table[:, :, None, None]) * ((d - a) / (b - a))[None]
    return jnp.max(jnp.where(((a < d) & (d <= b))[None], chord, 0.0), axis=(1, 2))


@statement(
    "lsd/T10",
    "Concave payoffs by delay: interleaving at the plan's rates earns >= (1 - 1/(2e)) V a round in the long run",
    falsifiers=[
        Falsifier(
            "payoffs are concave (steps, instead of their concave majorants)",
            {"steps": True},
            share=0.9,
            generator=uneven_steps,
            cases=[{"k": 4, "depth": 8}],
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T10; the idea of interleaving", PCS),
    proof="docs/proofs/lsd.md#t10",
    generator=concave_instance,
    project=nearby_concave,
    cases=[{"k": 4, "depth": 8}],
)
def interleaving(instance, steps=False):
    problem = instance.problem
    if not steps:
        problem = problem_of(to_concave(problem.payoffs), 1)
    plan = delay_relaxation(problem)
    k = problem.num_arms
    earned = interleaved_value(problem, play_rates(plan))
    return Bound(KEPT * plan.value, earned, 2.0 * k, jnp.abs(plan.gap), trivial=plan.value)


def one_good_arm(key, k, depth):
    """Arm 0 pays 1 at any delay and gets all rounds; what the others pay is not worth them."""
    payoffs = concave_instance(key, k, depth).problem.payoffs
    scale = jnp.where(jnp.arange(k) == 0, 0.0, 0.05 / depth)[:, None]
    return Recharging(problem_of((scale * payoffs).at[0].set(1.0), 1))


@statement(
    "lsd/T10.finite",
    "From rest, T = 60: E of interleaving's total >= (1 - 1/(2e)) V (T - k - 1)",
    falsifiers=[
        Falsifier(
            "every arm has its own rate (each has its neighbour's)", {"shifted": 1}, share=0.9, generator=one_good_arm
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T10; the idea of interleaving", PCS),
    proof="docs/proofs/lsd.md#t10",
    generator=concave_instance,
    cases=[{"k": 3, "depth": 6}],
    chance=Chance(replicates=256, cap=2**14),
)
def interleaved_rounds(instance, keys, shifted=0, horizon=60):
    problem = instance.problem
    plan = delay_relaxation(problem)
    planner = Interleaved(jnp.roll(play_rates(plan), shifted))
    k = problem.num_arms
    total = lambda key: simulate(problem, planner, horizon, key, start="rested", observe=None).total  # noqa: E731
    claimed = KEPT * plan.value * (horizon - k - 1)
    most = horizon * jnp.max(problem.payoffs)
    return Sampled(-jax.vmap(total)(keys), -claimed, -most, 0.0, 2.0 * horizon, horizon * jnp.abs(plan.gap))


# ---- T11: whole runs -------------------------------------------------------------------------------------------------


class Planned(NamedTuple):
    """A problem and a plan of cycles for it."""

    problem: SwitchingBandit
    plan: Relaxation


RUN = 4  # R


def recovering_instance(key, k, recovery, satiation):
    """Any payoffs in a run, rising ones with rest; the plan is that of runs of R plays at most."""
    payoffs = random_payoffs(key, k, recovery, satiation, monotone=False)
    payoffs = payoffs.at[:, satiation:].set(jnp.sort(payoffs[:, satiation:], axis=1))
    problem = problem_of(payoffs, satiation)
    return Planned(problem, run_relaxation(problem, RUN))


def interrupter_instance(key, k, recovery, satiation):
    """An arm that pays 1 in the last play of its run, one that pays little every other round: half the load each."""
    small = 0.05 * jax.random.uniform(key)
    payoffs = jnp.zeros((2, recovery + satiation)).at[0, satiation - RUN + 1].set(1.0).at[1, satiation:].set(small)
    idle, run = jnp.array([[RUN, RUN], [1, 1]], jnp.int32), jnp.array([[RUN, RUN], [1, 1]], jnp.int32)
    value = 1 / (2 * RUN) + small / 2
    zero = jnp.zeros_like(value)
    weight = jnp.tile(jnp.array([[1.0, 0.0]]), (2, 1))
    return Planned(problem_of(payoffs, satiation), Relaxation(value, zero, zero, idle, run, weight, jnp.zeros((), int)))


def never_later(payoffs, satiation):
    """Rest beyond one round pays nothing."""
    return payoffs.at[:, satiation + 1 :].set(0.0)


def early_instance(key, k, recovery, satiation):
    """Arms that pay after any rest and never in a run: single plays after one round of rest."""
    rewards = 0.5 + 0.5 * jax.random.uniform(key, (k, 1))
    payoffs = jnp.where(jnp.arange(recovery + satiation)[None] >= satiation, rewards, 0.0)
    problem = problem_of(payoffs, satiation)
    return Planned(problem, run_relaxation(problem, 1))


def steady_instance(key, k, recovery, satiation):
    """Nothing at first, much when tired: play without end is best."""
    payoffs = jnp.zeros((k, recovery + satiation)).at[:, 0].set(0.5 + 0.5 * jax.random.uniform(key, (k,)))
    problem = problem_of(payoffs, satiation)
    return Planned(problem, run_relaxation(problem, RUN))


def stretched_mean(problem, plan, horizon, longest):
    """E of the total of the stretched schedule over T rounds from rest, exactly."""
    planner = Stretched(plan)
    first = planner.init(problem, jax.random.key(0))

    def total(idle, run, phase):
        # Of runs that begin together the first arm's is taken, whatever it pays.
        begun = StretchedState(idle, run, phase, jnp.ones_like(first.worth), first.current, first.left)
        return simulate(
            problem, Started(planner, begun), horizon, jax.random.key(0), start="rested", observe=None
        ).total

    return enumerate_draws(plan, longest, 2, total)


def preemptive_mean(problem, plan, horizon, longest):
    """E of the total of random phases, where any arm may cut a run."""
    return phase_mean(problem, plan, horizon, start="rested")


@statement(
    "lsd/T11",
    "Rest never hurts, any payoffs in runs: whole runs at half pace earn >= V_R (T - R + 1) / 4 from rest, T = 48",
    falsifiers=[
        Falsifier(
            "a run is never interrupted (the best arm of each round is played)",
            {"mean": preemptive_mean},
            share=0.9,
            generator=interrupter_instance,
            cases=[{"k": 2, "recovery": 4, "satiation": 4}],
        ),
        Falsifier(
            "payoffs never fall with rest (they vanish beyond one round)",
            {"shape": never_later},
            share=0.9,
            generator=early_instance,
            cases=[{"k": 2, "recovery": 4, "satiation": 1}],
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T11", LSD),
    proof="docs/proofs/lsd.md#t11",
    generator=recovering_instance,
    cases=[{"k": 2, "recovery": 3, "satiation": 2}],
)
def whole_runs(instance, mean=stretched_mean, shape=None, horizon=48):
    problem, plan = instance
    low = problem.satiation
    if shape is not None:
        problem = problem_of(shape(problem.payoffs, low), low)
    complete = horizon - RUN + 1
    earned = mean(problem, plan, horizon, problem.recovery + RUN)
    bounds = [Bound(complete * plan.value / 4, earned, 4.0 * horizon, complete * jnp.abs(plan.gap))]
    if shape is None and mean is stretched_mean:
        sure = Stretched(plan).guarantee(problem)
        bounds.append(Bound(complete * sure, earned, 4.0 * horizon))
        bounds.append(Bound(plan.value / 4, sure, 4.0, jnp.abs(plan.gap)))
    return bounds


@statement(
    "lsd/T11.runs",
    "V_R >= (1 - (L + 1) / (R + 1)) V for R >= L + 1: what leaving out play without end may cost",
    falsifiers=[
        Falsifier(
            "runs of R plays are allowed (of one only)",
            {"longest": 1},
            share=0.9,
            generator=steady_instance,
            cases=[{"k": 1, "recovery": 2, "satiation": 2}],
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T11", LSD),
    proof="docs/proofs/lsd.md#t11",
    generator=recovering_instance,
    cases=[{"k": 2, "recovery": 3, "satiation": 2}],
)
def run_length(instance, longest=None):
    problem = instance.problem
    best = relaxation(problem)
    bounds = []
    for most in (RUN, 3 * RUN):
        plan = run_relaxation(problem, most if longest is None else longest)
        share = 1 - (problem.satiation + 1) / (most + 1)
        bounds.append(Bound(share * best.value, plan.value, 4.0, jnp.abs(best.gap) + jnp.abs(plan.gap)))
    return bounds


# ---- T12: coupled tasks ----------------------------------------------------------------------------------------------


@pytree
class Uncoupled:
    """Coupled tasks without their first play: the arm has then rested for longer than planned."""

    planner: Coupled

    def act(self, problem, state, local, t, key):
        """The planner's round, first plays left out: of an arm's two plays, the one that has another ahead."""
        played, after = self.planner.act(problem, state, local, t, key)
        arms = jnp.arange(problem.num_arms)
        ahead = jnp.any(after.slots[None, :] == arms[:, None], axis=1)
        return played & ~ahead, after


def arbitrary_instance(key, k, recovery, satiation):
    """Payoffs in any order; the plan is that of single plays."""
    problem = problem_of(random_payoffs(key, k, recovery, satiation, monotone=False), satiation)
    return Planned(problem, run_relaxation(problem, 1))


def spike_instance(key, k, recovery, satiation):
    """Each arm pays at one rest of less than M rounds alone."""
    rest_key, reward_key = jax.random.split(key)
    rest = jax.random.randint(rest_key, (k, 1), 1, recovery)
    rewards = 0.5 + 0.5 * jax.random.uniform(reward_key, (k, 1))
    payoffs = jnp.where(jnp.arange(recovery + satiation)[None] == satiation + rest - 1, rewards, 0.0)
    problem = problem_of(payoffs, satiation)
    return Planned(problem, run_relaxation(problem, 1))


@statement(
    "lsd/T12",
    "Any payoffs: coupled tasks earn >= V_1 (T - M - 1) / 16 in T = 60 rounds, V_1 the programme of single plays",
    falsifiers=[
        Falsifier(
            "a first play fixes the rest (left out)",
            {"around": Uncoupled},
            share=0.9,
            generator=spike_instance,
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T12", LSD),
    proof="docs/proofs/lsd.md#t12",
    generator=arbitrary_instance,
    cases=[{"k": 2, "recovery": 2, "satiation": 1}],
)
def coupled_tasks(instance, around=None, horizon=60):
    problem, plan = instance
    planner = Coupled(plan)
    first = planner.init(problem, jax.random.key(0))
    runs = planner if around is None else around(planner)

    def total(idle, run, phase):
        begun = Started(runs, CoupledState(idle, run, phase, first.slots))
        return simulate(problem, begun, horizon, jax.random.key(0), start="rested", observe=None).total

    earned = enumerate_draws(plan, problem.recovery + 1, 8, total)
    complete = horizon - problem.recovery - 1
    bounds = [Bound(complete * plan.value / 16, earned, 4.0 * horizon, complete * jnp.abs(plan.gap))]
    if around is None:
        sure = planner.guarantee(problem)
        bounds.append(Bound(complete * sure, earned, 4.0 * horizon))
        bounds.append(Bound(plan.value / 16, sure, 4.0, jnp.abs(plan.gap)))
    return bounds


@statement(
    "lsd/T12.better",
    "Any payoffs: the better of whole runs (payoffs after rest taken as 0) and coupled tasks keeps V_R / 20",
    falsifiers=[
        Falsifier(
            "coupled tasks are one of the two (whole runs alone)",
            {"tasks": False},
            share=0.9,
            generator=spike_instance,
        ),
        Falsifier(
            "whole runs are one of the two (coupled tasks alone)",
            {"runs": False},
            share=0.9,
            generator=steady_instance,
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T12", LSD),
    proof="docs/proofs/lsd.md#t12",
    generator=arbitrary_instance,
    cases=[{"k": 3, "recovery": 3, "satiation": 2}],
)
def better_of_two(instance, tasks=True, runs=True):
    problem = instance.problem
    low = problem.satiation
    tired = problem_of(problem.payoffs.at[:, low:].set(0.0), low)
    whole, part, single = run_relaxation(problem, RUN), run_relaxation(tired, RUN), run_relaxation(problem, 1)
    kept = jnp.maximum(part.value / 4 if runs else 0.0, single.value / 16 if tasks else 0.0)
    error = jnp.abs(whole.gap) + jnp.abs(part.gap) + jnp.abs(single.gap)
    bounds = [Bound(whole.value / 20, kept, 4.0, error)]
    if tasks and runs:
        sure = jnp.maximum(Stretched(part).guarantee(tired), Coupled(single).guarantee(problem))
        bounds.append(Bound(kept, sure, 4.0, error))
    return bounds
