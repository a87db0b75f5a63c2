"""Markov virtual schedules: switching arms under either idle rule (T6), and restless arms with random states (T15).

Two or three arms and one play per round, so that the joint law of all virtual and all real states is followed exactly.
Notation as in lsd.py and lsd_planning.py. Proofs: docs/proofs/lsd.md.
"""

import itertools
import math
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


def along(arm, k, table):
    """A vector as an array of k axes that changes along one of them."""
    return table.reshape([-1 if i == arm else 1 for i in range(k)])


def schedule_mean(problem, schedule, start, horizon, mirrored=True):
    """E of the total of a Markov schedule over T rounds, one play each, ranked by virtual payoffs, by the joint law.

    start: int[k], real states; virtual ones are drawn from the schedule's law. An axis of the law is an arm's (v, e).
    """
    k, s = problem.payoffs.shape
    moves = [
        {
            (asked, played): together(
                (problem.play if asked else problem.idle)[i], (problem.play if played else problem.idle)[i], mirrored
            ).reshape(s * s, s * s)
            for asked, played in COMBINATIONS
        }
        for i in range(k)
    ]
    chance = [along(i, k, jnp.repeat(schedule.chance[i], s)) for i in range(k)]
    score = [along(i, k, jnp.repeat(problem.payoffs[i], s)) for i in range(k)]
    paid = [along(i, k, jnp.tile(problem.payoffs[i], s)) for i in range(k)]
    cases = []  # (who asks, who is played, chance of that by joint state)
    for asks in itertools.product((0, 1), repeat=k):
        weight = math.prod(chance[i] if asks[i] else 1 - chance[i] for i in range(k))
        asking = [i for i in range(k) if asks[i]]
        for best in asking:
            # Of equal scores the first arm's counts.
            rivals = [score[best] > score[i] if i < best else score[best] >= score[i] for i in asking if i != best]
            cases.append((asks, best, math.prod(rivals, start=1.0) * weight))
        if not asking:
            cases.append((asks, None, weight))

    def step(law, _):
        reward, after = 0.0, 0.0
        for asks, best, weight in cases:
            mass = law * weight
            if best is not None:
                reward += jnp.sum(mass * paid[best])
            for i in range(k):
                # The first axis is summed out and the next state's becomes the last: after k of them, all are in order.
                mass = jnp.tensordot(mass, moves[i][asks[i], int(i == best)], axes=(0, 0), precision="highest")
            after += mass
        return after, reward

    begin = [(schedule.law[i][:, None] * (jnp.arange(s) == start[i])[None, :]).reshape(-1) for i in range(k)]
    _, rewards = jax.lax.scan(step, math.prod(along(i, k, x) for i, x in enumerate(begin)), None, length=horizon)
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
TRIPLE = {"k": 3, "recovery": 1, "satiation": 2, "idle_rule": "decrement"}


@statement(
    "lsd/T6.markov",
    "MON, either rule, k = 2, 3: Markov schedules earn >= T V_virt >= alpha T V, less k max p from +1 (reset: or -1)",
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
    cases=[*PAIRS, TRIPLE],
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
        # Laws of S^2k states are summed in every round.
        bounds.append(Bound(horizon * virtual - lost, earned, 4.0 * k * horizon))
    return bounds


# ---- T15: restless arms ----------------------------------------------------------------------------------------------


class Restless(NamedTuple):
    """Restless arms of three ordered states."""

    problem: RestlessBandit


def restless_instance(key, k):
    """The generator of envs: kernels of Dirichlet(0.7) rows, sorted; squares of uniforms as payoffs."""
    return Restless(restless_monotone(key, k, 3))


def persistent_instance(key, k):
    """Arms that no play changes, that stay with probability 0.85 to 0.95, and pay in the best state alone."""
    stay = 0.85 + 0.1 * jax.random.uniform(key, (k, 1, 1))
    law = jnp.where(jnp.eye(3, dtype=bool)[None], stay, (1 - stay) / 2)
    return Restless(RestlessBandit(law, law, jnp.tile(jnp.array([[0.0, 0.0, 1.0]]), (k, 1))))


def tired_by_play(key, k):
    """Persistent arms that a play in any state may, with probability 0.05 to 0.15, throw down to the worst."""
    law_key, fall_key = jax.random.split(key)
    arms = persistent_instance(law_key, k).problem
    fall = 0.05 + 0.1 * jax.random.uniform(fall_key, (k, 1, 1))
    worst = jnp.zeros(3).at[0].set(1.0)
    return Restless(RestlessBandit((1 - fall) * arms.idle + fall * worst, arms.idle, arms.payoffs))


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
    """(value, Occupancy) of the occupation programme for one play a round: the best of all its vertices.

    At a vertex each arm follows a deterministic policy, or one arm mixes two so that plays are used up.
    """
    k = problem.payoffs.shape[0]

    def extreme(play, idle, payoff):
        law = jax.vmap(lambda plays: stationary(jnp.where(plays[:, None], play, idle)))(POLICIES)
        played = law * POLICIES
        return law - played, played, played @ payoff, jnp.sum(played, axis=1)

    rest, played, rate, load = jax.vmap(extreme)(problem.play, problem.idle, problem.payoffs)
    *fixed, one, two = jnp.asarray(list(itertools.product(range(8), repeat=k + 1))).T

    def mixed(mixing):
        # Policy `one` with weight w, `two` with the rest; w = 1 is no mixture.
        others = [i for i in range(k) if i != mixing]
        others_load = sum(load[i][at] for i, at in zip(others, fixed, strict=True))
        spread = load[mixing][one] - load[mixing][two]
        room = 1 - others_load - load[mixing][two]
        w = jnp.where(one == two, 1.0, room / jnp.where(spread > 0, spread, 1.0))
        total = others_load + w * load[mixing][one] + (1 - w) * load[mixing][two]
        feasible = (w >= 0) & (w <= 1) & ((spread > 0) | (one == two)) & (total <= 1 + 1e-12)
        value = sum(rate[i][at] for i, at in zip(others, fixed, strict=True))
        value = jnp.where(feasible, value + w * rate[mixing][one] + (1 - w) * rate[mixing][two], -1.0)
        at = jnp.argmax(value)

        def join(table):
            rows = [table[i][x[at]] for i, x in zip(others, fixed, strict=True)]
            rows.insert(mixing, w[at] * table[mixing][one[at]] + (1 - w[at]) * table[mixing][two[at]])
            return jnp.stack(rows)

        return value[at], join(rest), join(played)

    value, rests, plays = jax.tree.map(lambda *x: jnp.stack(x), *[mixed(i) for i in range(k)])
    best = jnp.argmax(value)
    return value[best], Occupancy(rests[best], plays[best])


ARMS = [{"k": 2}, {"k": 3}]


@statement(
    "lsd/T15",
    "k = 2, 3 stochastically monotone arms, rest above play; one number moves arm and twin: >= alpha(k, 1) T V",
    falsifiers=[
        Falsifier(
            "one uniform number moves both (independent ones)",
            {"mirrored": False},
            share=0.9,
            generator=persistent_instance,
            setting={"horizon": 40},
        ),
        Falsifier(
            "rest leads higher than play (the kernels change places)",
            {"swapped": True},
            share=0.9,
            generator=tired_by_play,
            cases=ARMS[:1],
            setting={"horizon": 200},
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T15; restless arms go beyond the source", LSD),
    proof="docs/proofs/lsd.md#t15",
    generator=restless_instance,
    cases=ARMS,
)
def mirrored_arms(instance, mirrored=True, swapped=False, horizon=24):
    problem = instance.problem
    k, s = problem.payoffs.shape
    if swapped:
        problem = RestlessBandit(problem.idle, problem.play, problem.payoffs)
    value, rates = restless_plan(problem)
    schedule = markov_schedule(rates)
    virtual = virtual_value(problem, rates.play) if swapped else schedule.guarantee(problem)  # as above
    earned = schedule_mean(problem, schedule, jnp.full(k, s - 1), horizon, mirrored)
    return [
        Bound(alpha(k) * value, virtual, 2.0 * k, trivial=value),
        # Laws of S^2k states are summed in every round.
        Bound(horizon * virtual, earned, 4.0 * k * horizon),
    ]
