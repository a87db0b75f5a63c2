"""Markov virtual schedules: switching arms under either idle rule (T6), and restless arms with random states (T15).

Two arms and one play per round, so that the joint law of both virtual and both real states is followed exactly.
Notation as in lsd.py and lsd_planning.py. Proofs: docs/proofs/lsd.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.restless_bandits import restless_monotone
from rlcore.claims import Bound, Falsifier, derived_here, statement
from rlcore.lsd import (
    Occupancy,
    RestlessBandit,
    SwitchingBandit,
    alpha,
    as_restless,
    initial_state,
    markov_schedule,
    virtual_value,
)
from rlcore.lsd.problem import transition_tables
from rlcore.lsd.relaxation import Options, price_plays
from theory_checks.lsd import LSD, Instance, monotone_instance, nearby, problem_of

COMBINATIONS = ((0, 0), (1, 0), (1, 1))  # of virtual and real plays of an arm


# ---- exact laws ------------------------------------------------------------------------------------------------------


def together(virtual, real, mirrored):
    """float[S, S, S, S], law of the next (virtual, real) states of an arm from (v, e), by kernels float[S, S].

    Mirrored: one uniform number moves both by their quantile functions, so they share the overlap of two intervals.
    """
    if not mirrored:
        return virtual[:, None, :, None] * real[None, :, None, :]
    ends = lambda kernel: jnp.cumsum(kernel, axis=1).at[:, -1].set(1.0)  # noqa: E731
    high_v, high_e = ends(virtual), ends(real)
    low_v, low_e = (jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1) for x in (high_v, high_e))
    top = jnp.minimum(high_v[:, None, :, None], high_e[None, :, None, :])
    return jnp.maximum(top - jnp.maximum(low_v[:, None, :, None], low_e[None, :, None, :]), 0.0)


def schedule_mean(problem, schedule, start, horizon, mirrored=True):
    """E of the total of a Markov schedule on two restless arms over T rounds, one play each, ranked by virtual payoffs.

    start: int[2], real states; virtual ones are drawn from the schedule's law.
    """
    _, s = problem.payoffs.shape
    moves = [
        {
            (asked, played): together(
                (problem.play if asked else problem.idle)[i], (problem.play if played else problem.idle)[i], mirrored
            ).reshape(s * s, s * s)
            for asked, played in COMBINATIONS
        }
        for i in range(2)
    ]
    flat = lambda table, real: jnp.repeat(table, s) if not real else jnp.tile(table, s)  # noqa: E731
    chance = [flat(schedule.chance[i], False) for i in range(2)]
    score = [flat(problem.payoffs[i], False) for i in range(2)]
    paid = [flat(problem.payoffs[i], True) for i in range(2)]
    first = jnp.where(score[0][:, None] >= score[1][None, :], 1.0, 0.0)  # where both ask, whether the first one plays
    both = chance[0][:, None] * chance[1][None, :]
    cases = [
        ((0, 0), (0, 0), (1 - chance[0])[:, None] * (1 - chance[1])[None, :]),
        ((1, 1), (0, 0), chance[0][:, None] * (1 - chance[1])[None, :]),
        ((0, 0), (1, 1), (1 - chance[0])[:, None] * chance[1][None, :]),
        ((1, 1), (1, 0), both * first),
        ((1, 0), (1, 1), both * (1 - first)),
    ]

    def step(law, _):
        reward, after = 0.0, 0.0
        for one, two, weight in cases:
            mass = law * weight
            reward += jnp.sum(mass * (one[1] * paid[0][:, None] + two[1] * paid[1][None, :]))
            after += jnp.einsum("ab,ac,bd->cd", mass, moves[0][one], moves[1][two], precision="highest")
        return after, reward

    begin = [(schedule.law[i][:, None] * (jnp.arange(s) == start[i])[None, :]).reshape(-1) for i in range(2)]
    _, rewards = jax.lax.scan(step, begin[0][:, None] * begin[1][None, :], None, length=horizon)
    return jnp.sum(rewards)


# ---- switching arms --------------------------------------------------------------------------------------------------


def simple_cycles(recovery, satiation, idle_rule):
    """Rates of rest and of plays by state along every simple cycle of an arm's graph, float[N, S] twice, by load."""
    s = recovery + satiation
    with jax.ensure_compile_time_eval():
        tables = transition_tables(SwitchingBandit(jnp.zeros((1, s)), satiation, idle_rule))
        following = np.stack([np.asarray(tables[1]), np.asarray(tables[0])])  # rest, play
    cycles = []

    def walk(path, state, least):
        for action in (0, 1):
            after = int(following[action, state])
            if after == least:
                cycles.append([*path, (action, state)])
            elif after > least and after not in [at for _, at in path] and after != state:
                walk([*path, (action, state)], after, least)

    for least in range(s):
        walk([], least, least)
    rates = np.zeros((len(cycles), 2, s))
    for row, cycle in zip(rates, cycles, strict=True):
        for action, state in cycle:
            row[action, state] += 1 / len(cycle)
    order = np.argsort(rates[:, 1].sum(axis=1), kind="stable")
    return rates[order, 0], rates[order, 1]


def occupation_plan(problem):
    """(value, gap, Occupancy) of the occupation programme of either idle rule, from its extreme points."""
    rest, play = simple_cycles(problem.recovery, problem.satiation, problem.idle_rule)
    count = len(play)
    options = Options(
        problem.payoffs @ play.T,
        jnp.asarray(play.sum(axis=1)),
        jnp.arange(count, dtype=jnp.int32),
        jnp.ones(count, jnp.int32),
    )
    plan = price_plays(options)
    mix = lambda rates: jnp.sum(plan.weight[:, :, None] * jnp.asarray(rates)[plan.idle], axis=1)  # noqa: E731
    return plan.value, plan.gap, Occupancy(mix(rest), mix(play))


def tiring_at_once(key, k, recovery, satiation, idle_rule):
    """Arms that pay when rested and nothing when tired: one lasting step behind costs everything."""
    rewards = 0.6 + 0.4 * jax.random.uniform(key, (k, 1))
    payoffs = jnp.where(jnp.arange(recovery + satiation)[None] >= satiation, rewards, 0.0)
    return Instance(problem_of(payoffs, satiation, idle_rule), jnp.zeros(()))


PAIRS = [{"k": 2, "recovery": 2, "satiation": 2, "idle_rule": rule} for rule in ("reset", "decrement")]


@statement(
    "lsd/T6.markov",
    "MON, either rule: the Markov schedule earns >= T V_virt >= alpha T V, less k max p from +1 (reset: or from -1)",
    falsifiers=[
        Falsifier(
            "under decrement no arm starts tired (all just played)",
            {"start": "just"},
            share=0.9,
            generator=tiring_at_once,
            cases=[{"k": 2, "recovery": 1, "satiation": 2, "idle_rule": "decrement"}],
            setting={"horizon": 40},
        ),
        Falsifier(
            "payoffs never fall with rest (they are turned round)",
            {"turned": True},
            share=0.9,
            cases=PAIRS[:1],
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T6 and T15", LSD),
    proof="docs/proofs/lsd.md#t15",
    generator=monotone_instance,
    project=nearby,
    cases=PAIRS,
)
def markov_schedules(instance, start=None, turned=False, horizon=24):
    problem = instance.problem
    if turned:
        low = problem.satiation
        rested = problem.payoffs[:, low:][:, ::-1]
        problem = problem_of(problem.payoffs.at[:, low:].set(rested), low, problem.idle_rule)
    k = problem.num_arms
    value, gap, rates = occupation_plan(problem)
    schedule = markov_schedule(rates)
    # Off its premises the guarantee is no number: the falsifier asks the bare formula.
    virtual = virtual_value(problem, rates.play) if turned else schedule.guarantee(problem)
    arms = as_restless(problem)
    bounds = [Bound(alpha(k) * value, virtual, 2.0 * k, jnp.abs(gap))]
    safe = ("rested", "one", "just") if problem.idle_rule == "reset" else ("rested", "one")
    for name in safe if start is None else (start,):
        earned = schedule_mean(arms, schedule, initial_state(problem, name), horizon)
        lost = 0.0 if name == "rested" else k * jnp.max(problem.payoffs)
        # Laws of S^4 states are summed in every round.
        bounds.append(Bound(horizon * virtual - lost, earned, 4.0 * k * horizon))
    return bounds


# ---- T15: restless arms ----------------------------------------------------------------------------------------------


class Restless(NamedTuple):
    """Two restless arms of three ordered states."""

    problem: RestlessBandit


def restless_instance(key):
    """The generator of envs: kernels of Dirichlet(0.7) rows, sorted; squares of uniforms as payoffs."""
    return Restless(restless_monotone(key, 2, 3))


def persistent_instance(key):
    """Arms that no play changes, that stay with probability 0.85 to 0.95, and pay in the best state alone."""
    stay = 0.85 + 0.1 * jax.random.uniform(key, (2, 1, 1))
    law = jnp.where(jnp.eye(3, dtype=bool)[None], stay, (1 - stay) / 2)
    return Restless(RestlessBandit(law, law, jnp.tile(jnp.array([[0.0, 0.0, 1.0]]), (2, 1))))


def stationary(kernel):
    """float[3], the stationary law of three states, by spanning trees: sums of products, nothing is subtracted."""
    p = kernel
    weight = jnp.stack(
        [
            p[1, 0] * p[2, 0] + p[1, 2] * p[2, 0] + p[2, 1] * p[1, 0],
            p[0, 1] * p[2, 1] + p[0, 2] * p[2, 1] + p[2, 0] * p[0, 1],
            p[0, 2] * p[1, 2] + p[0, 1] * p[1, 2] + p[1, 0] * p[0, 2],
        ]
    )
    return weight / jnp.sum(weight)


POLICIES = np.array([[b >> e & 1 for e in range(3)] for b in range(8)], bool)  # played states


def restless_plan(problem):
    """(value, Occupancy) of the occupation programme of two arms, one play: the best of all its vertices.

    At a vertex each arm follows a deterministic policy, or one arm mixes two so that plays are used up.
    """

    def extreme(play, idle, payoff):
        law = jax.vmap(lambda plays: stationary(jnp.where(plays[:, None], play, idle)))(POLICIES)
        played = law * POLICIES
        return law - played, played, played @ payoff, jnp.sum(played, axis=1)

    rest, played, rate, load = jax.vmap(extreme)(problem.play, problem.idle, problem.payoffs)
    fixed, one, two = (x.ravel() for x in np.meshgrid(range(8), range(8), range(8), indexing="ij"))

    def mixed(mixing, other):
        # Policy `one` with weight w, `two` with the rest; w = 1 is no mixture.
        room = 1 - load[other][fixed] - load[mixing][two]
        spread = load[mixing][one] - load[mixing][two]
        w = jnp.where(one == two, 1.0, room / jnp.where(spread > 0, spread, 1.0))
        total = load[other][fixed] + w * load[mixing][one] + (1 - w) * load[mixing][two]
        feasible = (w >= 0) & (w <= 1) & ((spread > 0) | (one == two)) & (total <= 1 + 1e-12)
        value = rate[other][fixed] + w * rate[mixing][one] + (1 - w) * rate[mixing][two]
        value = jnp.where(feasible, value, -1.0)
        at = jnp.argmax(value)
        join = lambda table: jnp.stack(  # noqa: E731
            [
                table[other][fixed[at]],
                w[at] * table[mixing][one[at]] + (1 - w[at]) * table[mixing][two[at]],
            ]
        )
        order = jnp.array([1, 0]) if other == 1 else jnp.array([0, 1])
        return value[at], join(rest)[order], join(played)[order]

    fixed, one, two = (jnp.asarray(x) for x in (fixed, one, two))
    first, second = mixed(0, 1), mixed(1, 0)
    value, rests, plays = jax.tree.map(lambda a, b: jnp.where(first[0] >= second[0], a, b), first, second)
    return value, Occupancy(rests, plays)


@statement(
    "lsd/T15",
    "Stochastically monotone arms, rest above play, one uniform moves an arm and its virtual twin: >= alpha(k, 1) T V",
    falsifiers=[
        Falsifier(
            "one uniform number moves both (independent ones)",
            {"mirrored": False},
            share=0.9,
            generator=persistent_instance,
            setting={"horizon": 40},
        ),
        Falsifier("rest leads higher than play (the kernels change places)", {"swapped": True}, share=0.3),
    ],
    origin=derived_here("docs/proofs/lsd.md, T15; restless arms go beyond the source", LSD),
    proof="docs/proofs/lsd.md#t15",
    generator=restless_instance,
)
def mirrored_arms(instance, mirrored=True, swapped=False, horizon=24):
    problem = instance.problem
    if swapped:
        problem = RestlessBandit(problem.idle, problem.play, problem.payoffs)
    value, rates = restless_plan(problem)
    schedule = markov_schedule(rates)
    virtual = virtual_value(problem, rates.play) if swapped else schedule.guarantee(problem)  # as above
    earned = schedule_mean(problem, schedule, jnp.full(2, 2), horizon, mirrored)
    return [
        Bound(alpha(2) * value, virtual, 4.0, trivial=value),
        Bound(horizon * virtual, earned, 8.0 * horizon),
    ]
