"""Random-phase planning: domination (T5), what it earns (T6), and that it may earn no more (T7).

Expectations are exact: every draw of options and phases is enumerated. Notation as in lsd.py and lsd_collisions.py.
Proofs: docs/proofs/lsd.md.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.lsd import (
    RandomPhase,
    SwitchingBandit,
    alpha,
    occupancy,
    relaxation,
    simulate,
    undominated,
    virtual_value,
)
from rlcore.lsd.problem import transition_tables
from rlcore.lsd.random_phase import Phases
from rlcore.pytree import pytree
from rlcore.types import Array, PyTree
from theory_checks.lsd import LSD, SIZES, Instance, monotone_instance, nearby, problem_of

SMALL = [{"k": 3, "recovery": 3, "satiation": 2}]


# ---- T5: domination --------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """real, virtual: int[], first states. asked, taken: bool[T], virtual plays, and which are real ones too. extra:
    int[], a round. recovery, satiation are those of the problem of zeros."""

    problem: SwitchingBandit
    real: Array
    virtual: Array
    asked: Array
    taken: Array
    extra: Array


def random_walk(key, recovery, satiation, idle_rule, horizon):
    """Virtual plays in runs and rests of random lengths; any first states with real >= virtual."""
    keys = jax.random.split(key, 5)
    s = recovery + satiation
    states = jnp.sort(jax.random.randint(keys[0], (2,), 0, s, jnp.int32))
    stays = jax.random.uniform(keys[1])
    turns = jax.random.bernoulli(keys[2], stays, (horizon,))
    asked = jnp.cumsum(jnp.where(turns, 1, 0)) % 2 == 0
    taken = jax.random.bernoulli(keys[3], jax.random.uniform(keys[4]), (horizon,))
    problem = problem_of(jnp.zeros((1, s)), satiation, idle_rule)
    return Walk(problem, states[1], states[0], asked, taken, jnp.argmax(~asked))


def resting_walk(key, recovery, satiation, idle_rule, horizon):
    """The virtual arm rests to the top and is then played once; the real one is as high."""
    walk = random_walk(key, recovery, satiation, idle_rule, horizon)
    asked = jnp.arange(horizon) % (recovery + 2) == recovery + 1
    top = jnp.full_like(walk.real, recovery + satiation - 1)
    return walk._replace(real=top, virtual=top, asked=asked, extra=jax.random.randint(key, (), 1, recovery))


def climbing_walk(key, recovery, satiation, idle_rule, horizon):
    """The virtual arm is in +1 .. +(M - 1) and rests in the first round: an arm one state below does not catch up."""
    walk = random_walk(key, recovery, satiation, idle_rule, horizon)
    virtual = satiation + jax.random.randint(key, (), 0, recovery - 1, jnp.int32)
    return walk._replace(real=virtual, virtual=virtual, asked=walk.asked.at[0].set(False))


WALKS = [SIZES | {"idle_rule": rule, "horizon": 60} for rule in ("reset", "decrement")]
WALKS = [{name: value for name, value in walk.items() if name != "k"} for walk in WALKS]


@statement(
    "lsd/T5",
    "Real plays among virtual ones, real state >= virtual at first: then so for ever, under either idle rule",
    falsifiers=[
        Falsifier(
            "real plays are virtual ones (one more, in a rest)", {"more": True}, share=0.9, generator=resting_walk
        ),
        Falsifier(
            "the real arm starts no lower (it starts lower by one)", {"lower": 1}, share=0.9, generator=climbing_walk
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T5, for the idea of virtual states", LSD),
    proof="docs/proofs/lsd.md#t5",
    generator=random_walk,
    cases=WALKS,
)
def domination(instance, more=False, lower=0):
    problem, real, virtual, asked, taken, extra = instance
    play, idle = transition_tables(problem)
    rounds = jnp.arange(asked.shape[0])
    taken = (asked & taken) | (more & (rounds == extra))

    def step(state, plays):
        real, virtual = state
        asks, takes = plays
        real, virtual = jnp.where(takes, play[real], idle[real]), jnp.where(asks, play[virtual], idle[virtual])
        return (real, virtual), virtual - real

    start = (jnp.maximum(virtual - lower, 0) if lower else real, virtual)
    _, behind = jax.lax.scan(step, start, (asked, taken))
    return Bound(1.0 * jnp.max(behind), 0.0, 1.0)


# ---- T6: what random phases earn -------------------------------------------------------------------------------------


@pytree
class Started:
    """A planner that begins in a given state of its own."""

    planner: PyTree
    state: PyTree

    def init(self, problem, key):
        """That state."""
        return self.state

    def act(self, problem, state, local, t, key):
        """The planner's round."""
        return self.planner.act(problem, state, local, t, key)


def enumerate_draws(plan, longest, stretch, run):
    """E run(idle, run, phase) over the options of a plan, of which one arm mixes two, and uniform phases.

    longest: the largest period; stretch: the schedule's periods are so many times those of the cycles.
    """
    k = plan.weight.shape[0]
    digits = np.array(list(itertools.product(range(stretch * longest), repeat=k)), np.int32)

    def option(second):
        chosen = jnp.where(plan.weight[:, 1] > 0, second, 0)[:, None]
        idle = jnp.take_along_axis(plan.idle, chosen, axis=1)[:, 0]
        length = jnp.take_along_axis(plan.run, chosen, axis=1)[:, 0]
        period = stretch * (idle + length)
        valid = jnp.all(digits < period[None], axis=1)
        totals = jax.vmap(lambda phase: run(idle, length, phase))(jnp.minimum(digits, period[None] - 1))
        return jnp.sum(jnp.where(valid, totals, 0.0)) / jnp.prod(1.0 * period)

    mixing = jnp.max(plan.weight[:, 1])
    return (1 - mixing) * option(0) + mixing * option(1)


def phase_mean(
    problem, plan, horizon, plays=1, rule="virtual", start=None, scores=None, phases=lambda phase: phase, weights=None
):
    """E of the total of a random-phase schedule over T rounds, exactly; rounds may have weights float[T]."""
    planner = RandomPhase(plan, plays, rule, scores=scores)
    first = planner.init(problem, jax.random.key(0))

    def total(idle, run, phase):
        begun = first._replace(phases=Phases(idle, run, phases(phase)))
        # The keys of the loop are not used.
        run = simulate(problem, Started(planner, begun), horizon, jax.random.key(0), start=start)
        return run.total if weights is None else run.trace @ weights

    return enumerate_draws(plan, problem.num_local + 1, 1, total)


def blocking_instance(key, k, recovery, satiation):
    """Step payoffs, one reward per arm near 1, delays of 2 to M that nearly fill the rounds but fit no calendar."""
    choice_key, reward_key, order_key = jax.random.split(key, 3)
    delays = jnp.array([[2, 3, 6], [2, 3, 6], [2, 4, 5], [3, 4, 3], [2, 5, 4], [3, 4, 4]])
    delays = jax.random.permutation(order_key, delays[jax.random.randint(choice_key, (), 0, len(delays))])
    rest = jnp.arange(1, recovery + 1)
    reward = 1 - 0.05 * jax.random.uniform(reward_key, (k, 1))
    rested = jnp.where(rest[None] >= delays[:, None] - 1, reward, 0.0)
    payoffs = jnp.concatenate([jnp.zeros((k, satiation)), rested], axis=1)
    return Instance(problem_of(payoffs, satiation), jnp.zeros(()))


def spiked(payoffs, satiation):
    """The same rewards at exactly the least rest that earns them."""
    rested = payoffs[:, satiation:]
    rises = jnp.diff(rested, axis=1, prepend=0.0) > 0
    return payoffs.at[:, satiation:].set(jnp.where(rises, rested, 0.0))


def in_momentum(payoffs, satiation):
    """Every arm pays its most in the second play of a run, and nothing else."""
    return jnp.zeros_like(payoffs).at[:, satiation - 1].set(jnp.max(payoffs, axis=1))


def identical_instance(key, k, recovery, satiation):
    """k arms of one reward that is due after k - 1 rounds of rest."""
    reward = 0.5 + 0.5 * jax.random.uniform(key)
    rested = jnp.where(jnp.arange(1, recovery + 1) >= k - 1, reward, 0.0)
    payoffs = jnp.tile(jnp.concatenate([jnp.zeros(satiation), rested])[None], (k, 1))
    return Instance(problem_of(payoffs, satiation), jnp.zeros(()))


def aligned(phase):
    """All arms at the phase of the first."""
    return jnp.zeros_like(phase) + phase[0]


@statement(
    "lsd/T6",
    "MON: random phases earn, in expectation over T = 24 rounds, >= T V_virt, less k max p if not started rested",
    falsifiers=[
        Falsifier(
            "payoffs never fall with rest (each reward at one rest alone)",
            {"shape": spiked},
            share=0.9,
            generator=blocking_instance,
            cases=[{"k": 3, "recovery": 6, "satiation": 1}],
            setting={"forms": ((1, "virtual", "rested"),), "horizon": 60},
        ),
        Falsifier(
            "payoffs never rise along a run (only the second play pays)",
            {"shape": in_momentum},
            share=0.9,
            setting={"forms": ((1, "virtual", "rested"),)},
        ),
        Falsifier(
            "phases are independent (all arms in step)",
            {"phases": aligned},
            share=0.9,
            generator=identical_instance,
            cases=[{"k": 3, "recovery": 3, "satiation": 1}],
            setting={"forms": ((1, "virtual", "rested"),)},
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T6; the idea of rounding virtual states", LSD),
    proof="docs/proofs/lsd.md#t6",
    generator=monotone_instance,
    project=nearby,
    cases=SMALL,
)
def random_phases(
    instance,
    shape=None,
    phases=lambda phase: phase,
    horizon=24,
    forms=((1, "virtual", "rested"), (1, "real", "one"), (1, "virtual", "just"), (2, "real", "just")),
):
    problem = instance.problem
    if shape is not None:
        problem = problem_of(shape(problem.payoffs, problem.satiation), problem.satiation)
    k = problem.num_arms
    bounds = []
    for plays, rule, start in forms:
        plan = relaxation(problem, plays)
        value = virtual_value(problem, occupancy(problem, plan).play, plays)
        earned = phase_mean(problem, plan, horizon, plays, rule, start, phases=phases)
        lost = 0.0 if start == "rested" else k * jnp.max(problem.payoffs)
        bounds.append(Bound(horizon * value - lost, earned, 2.0 * k * horizon))
    return bounds


@pytree
class Backfill:
    """Random phases whose empty rounds go to the arm that pays most, asked or not."""

    planner: RandomPhase

    def init(self, problem, key):
        """Phases drawn."""
        return self.planner.init(problem, key)

    def act(self, problem, state, local, t, key):
        """The planner's round, filled."""
        played, state = self.planner.act(problem, state, local, t, key)
        payoff = jnp.take_along_axis(problem.payoffs, local[:, None], axis=1)[:, 0]
        best = jnp.arange(payoff.shape[0]) == jnp.argmax(payoff)
        return jnp.where(jnp.any(played), played, best), state


class Seeded(NamedTuple):
    """An instance with a key of its schedule."""

    problem: SwitchingBandit
    price: Array
    key: Array


def seeded_instance(key, **sizes):
    """Monotone payoffs, and a key."""
    return Seeded(*monotone_instance(key, **sizes), jax.random.fold_in(key, 1))


@statement(
    "lsd/T5.schedule",
    "Random phases from rest: in none of 80 rounds is an arm below its virtual state, whichever rule and m",
    falsifiers=[Falsifier("rounds that nobody asks for stay empty (filled)", {"around": Backfill}, share=0.8)],
    origin=derived_here("docs/proofs/lsd.md, T5", LSD),
    proof="docs/proofs/lsd.md#t5",
    generator=seeded_instance,
    cases=SMALL,
)
def schedule_dominates(instance, around=None, horizon=80):
    problem, _, key = instance
    bounds = []
    for plays, rule in ((1, "virtual"), (2, "real")):
        planner = RandomPhase(relaxation(problem, plays), plays, rule)
        planner = planner if around is None else around(planner)
        count = lambda problem, seen: undominated(problem, seen)  # noqa: E731
        behind = simulate(problem, planner, horizon, key, start="rested", observe=count).trace
        bounds.append(Bound(1.0 * jnp.sum(behind), 0.0, 1.0))
    return bounds


# ---- T7: tightness ---------------------------------------------------------------------------------------------------


def stratified(phase):
    """Arm i at the first arm's phase plus i: no two collide."""
    return (phase[0] + jnp.arange(phase.shape[0], dtype=phase.dtype)) % phase.shape[0]


@statement(
    "lsd/T7",
    "k identical arms due after k - 1 rests: V = OPT, random phases earn alpha(k, 1) V a round, no more; k = 2 .. 4",
    falsifiers=[
        Falsifier("phases are independent (one arm to each)", {"phases": stratified}, share=0.9),
        Falsifier("arms are identical (one pays twice as much)", {"double": 2.0}, share=0.9),
    ],
    origin=derived_here("docs/proofs/lsd.md, T7", LSD),
    proof="docs/proofs/lsd.md#t7",
    generator=identical_instance,
    cases=[{"k": k, "recovery": k - 1, "satiation": 1} for k in (2, 3, 4)],
)
def tight_arms(instance, phases=lambda phase: phase, double=1.0, horizon=12):
    payoffs = instance.problem.payoffs
    k = payoffs.shape[0]
    reward = payoffs[0, -1]
    problem = problem_of(payoffs.at[0].multiply(double), 1)
    plan = relaxation(problem)
    earned = phase_mean(problem, plan, horizon, start="rested", phases=phases)
    turns = jnp.arange(horizon) % k

    def round_robin(local, arm):
        play, idle = transition_tables(problem)
        paid = problem.payoffs[arm, local[arm]]
        return jnp.where(jnp.arange(k) == arm, play[local], idle[local]), paid

    _, paid = jax.lax.scan(round_robin, jnp.full(k, problem.num_local - 1, jnp.int32), turns)
    return [
        identity(earned, horizon * alpha(k, 1) * reward, 2.0 * horizon * k),
        identity(plan.value, reward, 2.0 * k),
        identity(jnp.sum(paid), horizon * reward, 2.0 * horizon),
    ]
