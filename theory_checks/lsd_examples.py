"""What greedy loses (T8), and when delays fit a calendar (T9). Notation as in lsd.py. Proofs: docs/proofs/lsd.md."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.lsd import SwitchingBandit, alpha, optimal_average, relaxation
from rlcore.lsd.exact import joint_rewards, reachable
from rlcore.lsd.howard import follow
from rlcore.types import Array
from theory_checks.lsd import LSD, greedy_policy, problem_of


def greedy_average(problem):
    """Long-run mean of playing what pays most at once, from rest; ties to the first arm, no play where none pays."""
    states = reachable(problem)
    policy = greedy_policy(problem, states)[:, None]
    following = jnp.take_along_axis(jnp.asarray(states.following), policy, axis=1)[:, 0]
    reward = jnp.take_along_axis(joint_rewards(problem.payoffs, states), policy, axis=1)[:, 0]
    return follow(following, reward, jnp.zeros_like(reward))[0][states.start]


# ---- T8: greedy ------------------------------------------------------------------------------------------------------


class Trap(NamedTuple):
    """epsilon: float[], in (0, 0.3), below 0.95 / 3."""

    epsilon: Array


def trap_instance(key):
    """From nothing to nearly a third."""
    return Trap(0.3 * jax.random.uniform(key, minval=0.01) ** 2)


@statement(
    "lsd/T8",
    "Arms of eps <= 0.95 / 3, and of 0.95 (rested) or 2 eps (tired): greedy earns 2 eps, the optimum (0.95 + eps) / 2",
    falsifiers=[
        Falsifier("the tired arm still pays more than the other (half as much)", {"tired": 0.5}, share=0.9),
        Falsifier("one play tires the arm (it pays 0.95 all the same)", {"tires": False}, share=0.9),
    ],
    origin=derived_here("docs/proofs/lsd.md, T8", LSD),
    proof="docs/proofs/lsd.md#t8",
    generator=trap_instance,
)
def greedy_trap(instance, tired=2.0, tires=True):
    epsilon = instance.epsilon
    second = jnp.stack([tired * epsilon if tires else jnp.full_like(epsilon, 0.95), jnp.full_like(epsilon, 0.95)])
    problem = problem_of(jnp.stack([jnp.stack([epsilon, epsilon]), second]), 1)
    best = optimal_average(problem)
    return [
        identity(greedy_average(problem), 2 * epsilon, 4.0),
        identity(best.lower, (0.95 + epsilon) / 2, 4.0, best.upper - best.lower),
    ]


class Blocked(NamedTuple):
    """delays: int[k]. rewards: float[k]. epsilon: float[]."""

    delays: Array
    rewards: Array
    epsilon: Array


def blocked_instance(key, k, recovery):
    """Delays 1 .. M + 1, rewards in [0, 1]."""
    delay_key, reward_key, epsilon_key = jax.random.split(key, 3)
    delays = jax.random.randint(delay_key, (k,), 1, recovery + 2)
    return Blocked(delays, jax.random.uniform(reward_key, (k,)), 0.1 * jax.random.uniform(epsilon_key))


def blocking_problem(delays, rewards, recovery):
    """Arms that pay `rewards` at delays of at least `delays`: L = 1, p(-1) is delay 1, p(+s) delay s + 1."""
    delay = jnp.arange(1, recovery + 2)
    return problem_of(jnp.where(delay[None] >= delays[:, None], rewards[:, None], 0.0), 1)


@statement(
    "lsd/T8.blocking",
    "Blocking arms: greedy earns at least alpha(k, 1) V in the long run, hence 1 - 1/e of the optimum",
    falsifiers=[
        Falsifier(
            "a blocked arm pays nothing (twice what the other pays, that one at any delay)", {"pays": True}, share=0.9
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T8; the abstract of arXiv 1907.11975 says 1 - 1/e", "basu2019"),
    proof="docs/proofs/lsd.md#t8",
    generator=blocked_instance,
    cases=[{"k": 3, "recovery": 4}],
)
def greedy_on_blocking_arms(instance, pays=False, recovery=4):
    delays, rewards, epsilon = instance
    problem = blocking_problem(delays, rewards, recovery)
    if pays:
        trap = jnp.full_like(problem.payoffs, 0.95).at[0].set(epsilon).at[1, 0].set(2 * epsilon).at[2].set(0.0)
        problem = problem_of(trap, 1)
    best = optimal_average(problem)
    plan = relaxation(problem)
    earned = greedy_average(problem)
    return [
        Bound(alpha(3) * plan.value, earned, 4.0, jnp.abs(plan.gap)),
        Bound((1 - jnp.exp(-1.0)) * best.lower, earned, 4.0, best.upper - best.lower),
    ]


# ---- T9: pinwheels ---------------------------------------------------------------------------------------------------

LONGEST = 8
# Delays of three arms that could fill no more than all rounds.
DELAYS = np.array(
    [d for d in itertools.product(range(2, LONGEST + 1), repeat=3) if sum(1 / x for x in d) <= 1 + 1e-12], np.int32
)
OFFSETS = np.array(list(itertools.product(range(LONGEST), repeat=3)))


class Pinwheel(NamedTuple):
    """delays: int[3]. reward: float[]."""

    delays: Array
    reward: Array


def pinwheel_instance(key):
    """Delays of 2 to 8 with sum 1 / D at most 1; one reward for all."""
    choice_key, reward_key = jax.random.split(key)
    delays = jnp.asarray(DELAYS)[jax.random.randint(choice_key, (), 0, len(DELAYS))]
    return Pinwheel(delays, 0.5 + 0.5 * jax.random.uniform(reward_key))


def has_calendar(delays):
    """Whether every arm may be played exactly every D_i rounds: offsets whose residue classes are disjoint."""
    apart = jnp.ones(len(OFFSETS), bool)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        gcd = jnp.gcd(delays[i], delays[j])
        apart &= (OFFSETS[:, i] - OFFSETS[:, j]) % gcd != 0
    return jnp.any(apart)


@statement(
    "lsd/T9",
    "Blocking arms, sum 1/D <= 1: V = sum 1/D; g* = V if each arm can be played exactly every D rounds, else g* < V",
    falsifiers=[
        Falsifier("a calendar of exact periods exists (the rounds suffice)", {"exact": False}, share=0.7),
        Falsifier("an arm must rest for D - 1 rounds (for D - 2)", {"shorter": 1}, share=0.9),
    ],
    origin=derived_here("docs/proofs/lsd.md, T9", LSD),
    proof="docs/proofs/lsd.md#t9",
    generator=pinwheel_instance,
)
def pinwheel(instance, exact=True, shorter=0):
    delays, reward = instance
    problem: SwitchingBandit = blocking_problem(delays - shorter, jnp.full(3, 1.0) * reward, LONGEST - 1)
    density = jnp.sum(1.0 / delays)
    fits = has_calendar(delays) if exact else jnp.array(True)
    best = optimal_average(problem)
    wide = best.upper - best.lower
    # Two different fractions, of denominators at most n and lcm(D), differ by 1 / (n lcm) at least.
    n = reachable(problem).local.shape[0]
    lcm = jnp.lcm(jnp.lcm(delays[0], delays[1]), delays[2])
    apart = jnp.where(fits, 0.0, reward / (n * lcm))
    plan = relaxation(problem)
    return [
        identity(plan.value, reward * density, 4.0, jnp.abs(plan.gap)),
        Bound(best.lower, reward * density - apart, 4.0, wide),
        Bound(jnp.where(fits, reward * density, best.lower), best.lower, 4.0, wide, applies=fits),
    ]
