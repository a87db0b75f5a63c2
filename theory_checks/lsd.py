"""Switching bandits: the three programmes (T1), upper bounds (T2), structure (T3), optimal cycles (T16).

Notation: k arms, m plays per round, L and M the depths of satiation and recovery, S = L + M, p(+s) and p(-j) payoffs
after s rounds of rest and j plays in a row, V the relaxation, D(price) its dual, V_T the best total of T rounds, g* the
best long-run mean, MON payoffs that never fall in the order -L .. -1, +1 .. +M. Proofs: docs/proofs/lsd.md.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.lsd import SwitchingBandit, dual, occupancy, relaxation
from rlcore.lsd.exact import joint_rewards, optimal_average, optimal_finite, reachable
from rlcore.lsd.howard import best_cycles
from rlcore.lsd.occupation import TOLERANCE, cycle_programme, occupation_programme
from rlcore.lsd.problem import transition_tables
from rlcore.lsd.relaxation import cycle_options, cycle_payoffs, price_plays
from rlcore.types import Array

LSD = "foussoul2023lsd"
SIZES = {"k": 3, "recovery": 3, "satiation": 2}
RULES = [SIZES | {"idle_rule": "reset"}, SIZES | {"idle_rule": "decrement"}]
STARTS = ("rested", "one", "just")


# ---- instances -------------------------------------------------------------------------------------------------------


class Instance(NamedTuple):
    """A problem, and a price of plays, float[]."""

    problem: SwitchingBandit
    price: Array


class Solved(NamedTuple):
    """A problem and the value of its occupation programme by HiGHS, float[]."""

    problem: SwitchingBandit
    value: Array


def random_payoffs(key, k, recovery, satiation, monotone=True):
    """float[k, S]: powers of uniforms, each arm scaled, sorted if monotone: from even tables to a few high payoffs."""
    value_key, power_key, scale_key = jax.random.split(key, 3)
    power = jnp.exp(jax.random.uniform(power_key, (k, 1), minval=-1.0, maxval=1.5))
    values = jax.random.uniform(value_key, (k, recovery + satiation)) ** power
    values = values * jax.random.uniform(scale_key, (k, 1)) ** 0.5
    return jnp.sort(values, axis=1) if monotone else values


def problem_of(payoffs, satiation, idle_rule="reset"):
    """A problem from payoffs that may be traced."""
    return SwitchingBandit(payoffs, satiation, idle_rule)


def monotone_instance(key, k, recovery, satiation, idle_rule="reset"):
    """Monotone payoffs, a price in [0, 1]."""
    table_key, price_key = jax.random.split(key)
    payoffs = random_payoffs(table_key, k, recovery, satiation)
    return Instance(problem_of(payoffs, satiation, idle_rule), jax.random.uniform(price_key))


def any_instance(key, k, recovery, satiation, idle_rule="reset"):
    """Payoffs in any order for half of the instances, a price in [0, 1]."""
    table_key, order_key = jax.random.split(key)
    instance = monotone_instance(table_key, k, recovery, satiation, idle_rule)
    payoffs = random_payoffs(table_key, k, recovery, satiation, monotone=False)
    ordered = jax.random.bernoulli(order_key)
    payoffs = jnp.where(ordered, jnp.sort(payoffs, axis=1), payoffs)
    return instance._replace(problem=problem_of(payoffs, satiation, idle_rule))


def slowly_tiring(key, k, recovery, satiation, idle_rule="reset"):
    """Rested arms pay near 1, and plays in a row hardly less: runs are long, and playing without end is good."""
    instance = monotone_instance(key, k, recovery, satiation, idle_rule)
    tired = 0.8 + 0.1 * jnp.sort(jax.random.uniform(key, (k, satiation)), axis=1)
    rested = jnp.sort(0.95 + 0.05 * jax.random.uniform(key, (k, recovery)), axis=1)
    payoffs = jnp.concatenate([tired, rested], axis=1)
    return Instance(problem_of(payoffs, satiation, idle_rule), 0.3 * instance.price)


def endurance(key, k, recovery, satiation, idle_rule="reset"):
    """Arms that are good for L plays in a row and then worthless: under decrement they walk all the way back."""
    instance = monotone_instance(key, k, recovery, satiation, idle_rule)
    payoffs = 0.9 + 0.1 * jnp.sort(instance.problem.payoffs, axis=1)
    payoffs = payoffs.at[:, 0].set(0.1 * instance.price)
    return Instance(problem_of(payoffs, satiation, idle_rule), 0.1 * instance.price)


def well_priced(generator, plays=1):
    """The generator's problem at the price of its relaxation with so many plays per round."""

    def draw(key, **sizes):
        problem = generator(key, **sizes).problem
        known = problem_of(problem.payoffs, problem.satiation)  # a good price under the other idle rule too
        return Instance(problem, relaxation(known, plays).price)

    return draw


def nearby(instance):
    """Project a perturbed `monotone_instance` back: payoffs in [0, 1] and sorted, the price in [0, 1]."""
    problem, price = instance
    payoffs = jnp.sort(jnp.clip(problem.payoffs, 0, 1), axis=1)
    return Instance(problem_of(payoffs, problem.satiation, problem.idle_rule), jnp.clip(price, 0, 1))


def nearby_any(instance):
    """Project a perturbed `any_instance` back: payoffs and the price in [0, 1]."""
    problem, price = instance
    payoffs = jnp.clip(problem.payoffs, 0, 1)
    return Instance(problem_of(payoffs, problem.satiation, problem.idle_rule), jnp.clip(price, 0, 1))


# ---- T1: three programmes, one value ---------------------------------------------------------------------------------


def solved_instance(generator):
    """The generator's problem with its occupation programme solved by HiGHS."""

    def draw(key, **sizes):
        problem = generator(key, **sizes).problem
        return Solved(problem, jnp.asarray(occupation_programme(problem).value))

    return draw


@functools.partial(jax.jit, static_argnames="permanent")
def cycle_value(problem, permanent=True):
    """(value, gap) of the cycle programme, with or without play without end."""
    always = problem.payoffs[:, 0] if permanent else None
    plan = price_plays(cycle_options(cycle_payoffs(problem), always))
    return plan.value, plan.gap


@statement(
    "lsd/T1",
    "Rule reset: the cycle programme and the occupation programme (HiGHS) have one value",
    falsifiers=[
        Falsifier(
            "an arm may be played without end (runs of at most L + 1 plays)",
            {"permanent": False},
            share=0.9,
            generator=solved_instance(slowly_tiring),
            cases=[{"k": 1, "recovery": 2, "satiation": 2}],
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T1", LSD),
    proof="docs/proofs/lsd.md#t1",
    generator=solved_instance(any_instance),
    cases=[SIZES],
    host=True,
)
def programmes_agree(instance, permanent=True):
    problem, value = instance
    k, s = problem.payoffs.shape
    found, gap = cycle_value(problem, permanent)
    # HiGHS: rows and reduced costs within its tolerance; its duals are prices and relative values, at most S apart.
    error = TOLERANCE * (k * s * s + 2 * k + 1)
    return identity(found, value, 2.0 * k, error + jnp.abs(gap))


def best_mean_cycle(payoff, price, problem, idle_rule):
    """The largest mean of payoff - price per play over cycles of one arm's graph, by walks of up to S steps."""
    play, idle = transition_tables(problem_of(problem.payoffs, problem.satiation, idle_rule))
    s = payoff.shape[0]
    walks = [jnp.zeros(s)]
    for _ in range(s):
        here = jnp.full(s, -jnp.inf).at[idle].max(walks[-1])
        walks.append(here.at[play].max(walks[-1] + payoff - price))
    steps = jnp.arange(s, 0.0, -1.0)
    means = (walks[-1] - jnp.stack(walks[:-1])) / steps[:, None]
    return jnp.max(jnp.min(jnp.where(jnp.isfinite(walks[-1]), means, -jnp.inf), axis=0))


@statement(
    "lsd/T1.price",
    "D(price) = m price + sum over arms of the best mean cycle of their graphs net of the price; V = least D",
    falsifiers=[
        Falsifier(
            "idling resets a run (it takes a run's length to recover)",
            {"idle_rule": "decrement"},
            share=0.9,
            generator=endurance,
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T1", LSD),
    proof="docs/proofs/lsd.md#t1",
    generator=any_instance,
    project=nearby_any,
    cases=[SIZES],
)
def price_form(instance, idle_rule="reset"):
    problem, price = instance
    k, s = problem.payoffs.shape
    gains = jax.vmap(lambda p: best_mean_cycle(p, price, problem, idle_rule))(problem.payoffs)
    bounds = []
    for plays in (1, 2):
        plan = relaxation(problem, plays)
        bounds.append(identity(dual(problem, price, plays), plays * price + jnp.sum(gains), 2.0 * k * s))
        # weak duality at any price, strong duality at the plan's
        bounds.append(Bound(plan.value, dual(problem, price, plays), 2.0 * k))
        bounds.append(identity(plan.value, dual(problem, plan.price, plays), 2.0 * k))
        # the plan's rates of plays earn its value
        bounds.append(identity(jnp.sum(occupancy(problem, plan).play * problem.payoffs), plan.value, 2.0 * k))
    return bounds


# ---- T2: upper bounds ------------------------------------------------------------------------------------------------


def head_start(problem, start):
    """Rounds that a start is worth: +s counts s; just played counts 1, or 2 where payoffs are not monotone."""
    sorted_payoffs = jnp.all(jnp.diff(problem.payoffs, axis=1) >= 0)
    return {"rested": 1.0 * problem.recovery, "one": 1.0, "just": jnp.where(sorted_payoffs, 1.0, 2.0)}[start]


@statement(
    "lsd/T2",
    "Rule reset, any payoffs: V_T <= (T + s0) V for T = 1 .. 12; all arms start at +s0, or just played (1; 2 off MON)",
    falsifiers=[Falsifier("the start is worth s0 rounds (nothing)", {"worth": 0.0}, share=0.8)],
    origin=derived_here("docs/proofs/lsd.md, T2", LSD),
    proof="docs/proofs/lsd.md#t2",
    generator=any_instance,
    project=nearby_any,
    cases=[SIZES],
)
def finite_horizon(instance, worth=1.0, horizon=12):
    problem = instance.problem
    rounds = jnp.arange(1.0, horizon + 1)
    bounds = []
    for start, plays in ((STARTS[0], 1), (STARTS[0], 2), (STARTS[1], 1), (STARTS[2], 1), (STARTS[2], 2)):
        best = optimal_finite(problem, horizon, plays, start).values
        plan = relaxation(problem, plays)
        length = rounds + worth * head_start(problem, start)
        bounds.append(Bound(best, length * plan.value, plays * (rounds + length), length * jnp.abs(plan.gap)))
    return bounds


@statement(
    "lsd/T2.price",
    "Either idle rule, any price: V_T(e) <= T D(price) + sum over arms of h(e) - min h, h their relative values",
    falsifiers=[
        Falsifier(
            "the start is worth its relative values (nothing)",
            {"worth": 0.0},
            share=0.9,
            generator=well_priced(monotone_instance),
        ),
        Falsifier(
            "plays are paid for m times a round (once, m = 2)",
            {"paid": 1.0},
            share=0.9,
            generator=well_priced(slowly_tiring, 2),
        ),
    ],
    origin=derived_here("docs/proofs/lsd.md, T2", LSD),
    proof="docs/proofs/lsd.md#t2",
    generator=any_instance,
    cases=RULES,
)
def priced_horizon(instance, worth=1.0, paid=None, horizon=12):
    problem, price = instance
    k, s = problem.payoffs.shape
    following = jnp.stack(transition_tables(problem), axis=1)

    def alone(payoff):
        reward = jnp.stack([payoff - price, jnp.zeros(s)], axis=1)
        return best_cycles(following, reward, jnp.zeros(s, jnp.int32))

    arms = jax.vmap(alone)(problem.payoffs)
    gain, high = jnp.sum(jnp.max(arms.gain, axis=1)), jnp.sum(arms.high)
    rounds = jnp.arange(1.0, horizon + 1)
    states = {"rested": s - 1, "one": problem.satiation, "just": problem.satiation - 1}
    bounds = []
    for start, plays in ((STARTS[0], 1), (STARTS[1], 2), (STARTS[2], 1)):
        best = optimal_finite(problem, horizon, plays, start).values
        ahead = jnp.sum(arms.relative[:, states[start]] - jnp.min(arms.relative, axis=1))
        bound = rounds * ((plays if paid is None else paid) * price + gain) + worth * ahead
        scale = rounds * (plays + 2 * k) + jnp.sum(jnp.abs(arms.relative))
        bounds.append(Bound(best, bound, scale, rounds * jnp.abs(high - gain)))
    return bounds


@statement(
    "lsd/T2.rest",
    "MON, rounds may be left empty: V_T <= (T + s0) g*; rule decrement: V_T <= (T + s0 + L - 1) g*",
    falsifiers=[
        Falsifier(
            "recovery takes L - 1 rounds more under decrement (none)",
            {"walk": 0.0},
            share=0.9,
            generator=endurance,
            cases=[{"k": 1, "recovery": 1, "satiation": 4, "idle_rule": "decrement"}],
            setting={"starts": ("one",)},
        ),
        Falsifier("the start is worth s0 rounds (nothing)", {"worth": 0.0}, share=0.9),
    ],
    origin=derived_here("docs/proofs/lsd.md, T2", LSD),
    proof="docs/proofs/lsd.md#t2",
    generator=monotone_instance,
    cases=RULES,
)
def horizon_by_rest(instance, worth=1.0, walk=1.0, horizon=12, starts=STARTS):
    problem = instance.problem
    more = walk * (problem.satiation - 1) if problem.idle_rule == "decrement" else 0.0
    rounds = jnp.arange(1.0, horizon + 1)
    # One mean for all starts: whatever is reachable from rest is so from everywhere, by resting.
    average = optimal_average(problem, start="rested")
    bounds = []
    for start in starts:
        best = optimal_finite(problem, horizon, 1, start).values
        length = rounds + worth * (head_start(problem, start) + more)
        wide = length * (average.upper - average.lower)
        bounds.append(Bound(best, length * average.lower, rounds + length, wide))
    # and the mean is at most V
    if problem.idle_rule == "reset":
        plan = relaxation(problem)
        bounds.append(Bound(average.lower, plan.value, 2.0, jnp.abs(plan.gap)))
    return bounds


# ---- T3: structure ---------------------------------------------------------------------------------------------------


@jax.jit
def own_plan(problem):
    """(arms that mix two options, value, what the weights earn, their load by arm) of the library's plan."""
    plan = relaxation(problem)
    table = jnp.concatenate([jnp.zeros_like(problem.payoffs[:, :1]), problem.payoffs[:, :1]], axis=1)
    cycles = cycle_payoffs(problem)
    at = jnp.clip(plan.idle - 1, 0), jnp.clip(plan.run - 1, 0)
    paid = cycles[jnp.arange(problem.num_arms)[:, None], at[0], at[1]] / (plan.idle + plan.run)
    rate = jnp.where((plan.idle > 0) & (plan.run > 0), paid, jnp.where(plan.run > 0, table[:, 1:], 0.0))
    load = jnp.sum(plan.weight * plan.run / (plan.idle + plan.run), axis=1)
    mixed = jnp.sum(jnp.where(jnp.sum(jnp.where(plan.weight > 0, 1, 0), axis=1) > 1, 1.0, 0.0))
    return mixed, plan.value, jnp.sum(plan.weight * rate), load


@statement(
    "lsd/T3",
    "An optimal plan mixes two options in one arm at most: HiGHS's vertex, and the library's plan",
    falsifiers=[
        Falsifier(
            "plays are the only coupling (play costs with a budget beside them)",
            {"budget": 0.85},
            share=0.9,
            cases=[{"k": 10, "recovery": 3, "satiation": 2}],
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T3", LSD),
    proof="docs/proofs/lsd.md#t3",
    generator=monotone_instance,
    cases=[SIZES],
    host=True,
)
def one_mixed_arm(instance, budget=None):
    problem = instance.problem
    k = problem.num_arms
    mixed, value, earned, load = own_plan(problem)
    row = {}
    if budget is not None:
        # A second row: fixed costs of plays, off any pattern of the payoffs; a share of what the plan spends is left.
        costs = np.array([(0.37 + 0.61 * i) % 1.0 for i in range(k)])
        row = {"costs": costs, "budget": budget * float(costs @ load)}
    vertex = cycle_programme(problem, **row)
    # A weight below the tolerance of HiGHS is none.
    count = ((vertex.weight > 10 * TOLERANCE).sum(axis=1) > 1).sum()
    return [
        Bound(1.0 * count, 1.0, 1.0, trivial=1.0 * k),
        Bound(mixed, 1.0, 1.0, trivial=1.0 * k),
        Bound(jnp.sum(load), 1.0, 2.0),
        identity(value, earned, 2.0 * k),
    ]


# ---- T16: optimal play is a cycle ------------------------------------------------------------------------------------


def greedy_policy(problem, states):
    """int[n], the joint action that pays most at once; the empty round, the last one, where none pays."""
    reward = joint_rewards(problem.payoffs, states)
    return jnp.where(jnp.max(reward, axis=1) > 0, jnp.argmax(reward, axis=1), reward.shape[1] - 1)


@statement(
    "lsd/T16",
    "The optimal policy ends in a cycle of at most n rounds, n the reachable joint states, whose mean is g*",
    falsifiers=[Falsifier("the policy is optimal (it plays what pays most at once)", {"greedy": True}, share=0.55)],
    origin=derived_here("docs/proofs/lsd.md, T16", LSD),
    proof="docs/proofs/lsd.md#t16",
    generator=any_instance,
    cases=RULES,
)
def optimal_cycle(instance, greedy=False):
    problem = instance.problem
    states = reachable(problem)
    found = optimal_average(problem)
    policy = greedy_policy(problem, states) if greedy else found.policy
    n = states.local.shape[0]
    following = jnp.take_along_axis(jnp.asarray(states.following), policy[:, None], axis=1)[:, 0]
    reward = jnp.take_along_axis(joint_rewards(problem.payoffs, states), policy[:, None], axis=1)[:, 0]
    # After n rounds the walk is on its cycle: go on until the state where it then is comes back.
    home = jax.lax.fori_loop(0, n, lambda _, row: following[row], states.start)

    def step(state, _):
        row, total, length, open_ = state
        total, length = total + jnp.where(open_, reward[row], 0.0), length + jnp.where(open_, 1.0, 0.0)
        row = following[row]
        return (row, total, length, open_ & (row != home)), None

    start = (home, jnp.zeros(()), jnp.zeros(()), jnp.array(True))
    (_, total, length, unfinished), _ = jax.lax.scan(step, start, None, length=n)
    mean = total / length
    return [
        Bound(jnp.where(unfinished, jnp.inf, length), 1.0 * n, 1.0 * n),
        # the sum of a cycle carries the rounding of its terms
        identity(mean, found.lower, 1.0 + length, found.upper - found.lower),
    ]
