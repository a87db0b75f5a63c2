"""Preference games: the elementary examples (T15), with their numbers where they are rational.

Read in a digest of Munos et al. (2023); each is stated for a whole family of instances, its own numbers among them.
"BT-RLHF" fits Bradley-Terry rewards to the population and maximises them. Proofs: docs/proofs/nash.md, T15.
"""

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import elo_constrained, three_type
from rlcore.claims import Bound, Falsifier, as_quoted, identity, statement
from rlcore.nash import (
    NashMD,
    PreferenceGame,
    bradley_terry,
    duality_gap,
    geometric_mixture,
    log_normalise,
    three_cycle_equilibrium,
    two_action_equilibrium,
    unregularised_gap,
    win_probability,
    win_rates,
)
from rlcore.solver import CONVERGED
from rlcore.types import Array

NLHF = "munos2024nash"


# ---- three types of annotators -------------------------------------------------------------------------------------


class Populations(NamedTuple):
    """Two populations of three types, by their excess: float[] below 0, float[] above 0."""

    below: Array
    above: Array


def populations(key):
    """Excesses in [-0.3, -0.003] and [0.003, 0.3]."""
    a, b = jax.random.uniform(key, (2,), minval=0.003, maxval=0.3)
    return Populations(-a, b)


def shares_of(excess):
    """The types' shares, (1/3 - e, 1/3 + e/2, 1/3 + e/2)."""
    return jnp.stack([1 / 3 - excess, 1 / 3 + excess / 2, 1 / 3 + excess / 2])


def nash_policy(preference):
    """The unregularised equilibrium of a cycle."""
    return three_cycle_equilibrium(preference)


def reward_policy(preference):
    """BT-RLHF without temperature: the action of largest fitted reward."""
    return jax.nn.one_hot(jnp.argmax(bradley_terry(preference, ridge=1e-6).value), 3, dtype=preference.dtype)


@statement(
    "nash/T15.types",
    "Three types of annotators: the unregularised Nash is (1/3 + e/2, 1/3 + e/2, 1/3 - e); BT's best jumps at e = 0",
    falsifiers=[
        Falsifier("type 1 is the one that differs (type 2 instead)", {"special": 1}, share=0.95),
    ],
    origin=as_quoted("a digest of Munos et al. 2023, the example of three types", NLHF),
    proof="docs/proofs/nash.md#t15",
    generator=populations,
)
def three_types(pair, special=0):
    bounds = []
    for excess, best in ((pair.below, 1), (pair.above, 0)):
        order = jnp.array(np.roll(np.arange(3), special))
        preference = three_type(excess)[order][:, order]
        expected = jnp.stack([1 / 3 + excess / 2, 1 / 3 + excess / 2, 1 / 3 - excess])
        # The win rates of the example: 2 over 1, 3 over 2, 1 over 3.
        quoted = jnp.stack([2 / 3 - excess / 2, 2 / 3 + excess / 4, 2 / 3 + excess / 4])
        found = preference[jnp.array([1, 2, 0]), jnp.array([0, 1, 2])]
        fit = bradley_terry(preference, ridge=1e-6)
        lead = jnp.max(fit.value) - fit.value[best]
        bounds += [
            identity(nash_policy(preference), expected, 1.0),
            Bound(unregularised_gap(preference, jnp.log(expected)), 0.0, 1.0),
            identity(found, quoted, 1.0),
            Bound(lead, 0.0, 1.0, fit.bound),
            Bound(jnp.where(fit.status == CONVERGED, 0.0, 1.0), 0.0, 1.0),
        ]
    return bounds


@statement(
    "nash/T15.smooth",
    "Three types: the unregularised Nash moves as far as the population, |pi - pi'|_1 = 2 |e - e'|",
    falsifiers=[Falsifier("Nash (the best action of a fitted reward, BT-RLHF)", {"solve": reward_policy}, share=0.95)],
    origin=as_quoted("a digest of Munos et al. 2023, the example of three types", NLHF),
    proof="docs/proofs/nash.md#t15",
    differs="the constant is ours: twice the change of e, which is the change of the shares",
    generator=populations,
)
def smooth_in_the_population(pair, solve=nash_policy):
    policies = [solve(three_type(excess)) for excess in pair]
    moved = jnp.sum(jnp.abs(policies[0] - policies[1]))
    changed = jnp.sum(jnp.abs(shares_of(pair.above) - shares_of(pair.below)))
    return [
        identity(moved, changed, 1.0),
        identity(moved, 2 * (pair.above - pair.below), 1.0),
    ]


# ---- dice ----------------------------------------------------------------------------------------------------------

DICE = ((2, 4, 9), (1, 6, 8), (3, 5, 7))


class Printing(NamedTuple):
    """Nine increasing numbers to print on the faces of the dice in place of 1 to 9, and a policy to start from."""

    numbers: Array
    start: Array


def printing(key):
    """Numbers with gaps between 0.1 and 2, and any policy."""
    a, b = jax.random.split(key)
    numbers = jnp.cumsum(jax.random.uniform(a, (9,), minval=0.1, maxval=2.0))
    return Printing(numbers, log_normalise(2 * jax.random.normal(b, (3,))))


def exact_wins() -> np.ndarray:
    """Prob(row beats column) for the example's dice, by counting, in exact arithmetic."""
    return np.array([[float(Fraction(_wins(x, y), 18)) for y in DICE] for x in DICE])


def _wins(x, y):
    """Twice the number of face pairs that x wins, ties counting one half."""
    return sum(1 + (i > j) - (i < j) for i in x for j in y)


def nash_md_step(preference, start, temperature, step_size):
    """(opponent, next policy) of one step with a uniform reference."""
    reference = log_normalise(jnp.zeros_like(start))
    opponent = geometric_mixture(start, reference, step_size * temperature)
    return opponent, log_normalise(opponent + step_size * win_rates(preference, opponent))


@statement(
    "nash/T15.dice",
    "Dice {2,4,9}, {1,6,8}, {3,5,7} beat each other in a cycle with 5/9, and so does every increasing relabelling",
    falsifiers=[Falsifier("the relabelling is increasing (decreasing)", {"sign": -1.0}, share=0.95)],
    origin=as_quoted("a digest of Munos et al. 2023, the example of dice", NLHF),
    proof="docs/proofs/nash.md#t15",
    generator=printing,
)
def dice_cycle(printing, sign=1.0):
    faces = sign * printing.numbers[jnp.array(DICE) - 1]
    wins = jnp.sign(faces[:, None, :, None] - faces[None, :, None, :])
    preference = 0.5 + jnp.sum(wins, axis=(2, 3)) / 18
    exact = jnp.asarray(exact_wins())
    ahead, behind = jnp.array([0, 1, 2]), jnp.array([1, 2, 0])
    cycle = jnp.where(exact[0, 1] > 0.5, preference[ahead, behind], preference[behind, ahead])
    uniform = log_normalise(jnp.zeros(3))
    return [
        identity(preference, exact, 1.0),
        identity(cycle, 5 / 9, 1.0),
        # Uniform play is the equilibrium at every temperature: no start changes that.
        Bound(duality_gap(preference, uniform, uniform, 0.1), 0.0, 1.0),
        Bound(0.5, win_probability(preference, uniform, printing.start), 1.0),
    ]


# What the digest prints of one step from (0.6, 0.3, 0.1): opponent, then policy.
PRINTED = ((0.4727, 0.3343, 0.1930), (0.4909, 0.3088, 0.2003))


@statement(
    "nash/T15.step",
    "Dice, one Nash-MD step from (0.6, 0.3, 0.1), tau = 0.1, eta = 5: the printed digits, and the library's step",
    falsifiers=[Falsifier("the temperature of the example (0.2)", {"temperature": 0.2}, share=0.95)],
    origin=as_quoted("a digest of Munos et al. 2023, the example of dice", NLHF),
    proof="docs/proofs/nash.md#t15",
    generator=printing,
)
def dice_step(printing, temperature=0.1, step_size=5.0):
    preference = jnp.asarray(exact_wins())
    example = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    opponent, policy = (jnp.exp(x) for x in nash_md_step(preference, example, temperature, step_size))
    # In closed form q ~ sqrt(p), and p' ~ q exp(5 (P q)): no library involved.
    closed = jnp.sqrt(jnp.exp(printing.start))
    closed = closed / jnp.sum(closed)
    tilted = closed * jnp.exp(step_size * preference @ closed)
    solver = NashMD(step_size)
    game = PreferenceGame(preference, log_normalise(jnp.zeros(3)), jnp.asarray(temperature))
    moved = solver.step(game, solver.start(printing.start), None).log_policy
    return [
        # Four printed digits: half a unit of the last.
        Bound(jnp.abs(opponent - jnp.array(PRINTED[0])), 5e-5, 1.0),
        Bound(jnp.abs(policy - jnp.array(PRINTED[1])), 5e-5, 1.0),
        identity(jnp.exp(moved), tilted / jnp.sum(tilted), 1.0 + jnp.max(jnp.abs(printing.start))),
    ]


# ---- Elo -----------------------------------------------------------------------------------------------------------


def mixing(key):
    """A weight x in (0, 1/3) of the policy (2 x, x, 1 - 3 x)."""
    return jax.random.uniform(key, (), minval=0.01, maxval=1 / 3)


@statement(
    "nash/T15.elo",
    "Elo (0, log 9, log 2) under pi_1 = 2 pi_2: ratings prefer (2/3, 1/3, 0), yet (0, 0, 1) beats it with 50/99",
    falsifiers=[
        Falsifier("the policy is mixed as the constraint says (pi_1 = pi_2)", {"ratio": 1.0}, share=0.95),
    ],
    origin=as_quoted("a digest of Munos et al. 2023, the example of a constrained Elo model", NLHF),
    proof="docs/proofs/nash.md#t15",
    generator=mixing,
)
def elo_under_a_constraint(x, ratio=2.0):
    preference = elo_constrained()
    ratings = jnp.log(jnp.array([1.0, 9.0, 2.0]))
    # (2 x, x, 1 - 3 x) with x up to 1/3: the mass 3 x is split by the ratio.
    split = lambda x: jnp.stack([3 * x * ratio / (1 + ratio), 3 * x / (1 + ratio), 1 - 3 * x])  # noqa: E731
    here, top = split(x), split(1 / 3)
    third = jnp.array([0.0, 0.0, 1.0])
    # 2 beats 1 with odds 2, and 9 with odds 2/9: 50/99.
    exact = Fraction(2, 3) * Fraction(2, 3) + Fraction(1, 3) * Fraction(2, 11)
    return [
        # The mean rating grows with x,
        Bound(here @ ratings, top @ ratings, 3.0),
        # and the third action beats the policy all the more: 1/2 + x / 66.
        identity(third @ preference @ here, 0.5 + 3 * x * float(exact - Fraction(1, 2)), 1.0),
        identity(third @ preference @ top, 50 / 99, 1.0),
    ]


# ---- two actions ---------------------------------------------------------------------------------------------------


class Odds(NamedTuple):
    """Prob(first beats second), and a temperature."""

    win: Array
    temperature: Array


def random_odds(key):
    """A win probability in [0.55, 0.95], a temperature in [0.05, 2]."""
    a, b = jax.random.split(key)
    win = jax.random.uniform(a, (), minval=0.55, maxval=0.95)
    return Odds(win, jnp.exp(jax.random.uniform(b, (), minval=jnp.log(0.05), maxval=jnp.log(2.0))))


def nash_odds(win, temperature):
    """Log-odds of the regularised equilibrium."""
    lp = two_action_equilibrium(win, log_normalise(jnp.zeros(2)), temperature)
    return lp[0] - lp[1]


def rlhf_odds(win, temperature):
    """Log-odds of BT-RLHF, logit(p) / tau."""
    return jnp.log(win / (1 - win)) / temperature


@statement(
    "nash/T15.odds",
    "Two actions, uniform reference: the log-odds of Nash and IPO are (2p - 1) / (2 tau); BT-RLHF's are logit(p) / tau",
    falsifiers=[Falsifier("Nash (BT-RLHF's odds)", {"odds": rlhf_odds}, share=0.95)],
    origin=as_quoted("a digest of Munos et al. 2023, p = 0.7: 0.2 / tau against 0.847 / tau", NLHF),
    proof="docs/proofs/nash.md#t15",
    generator=random_odds,
)
def two_action_odds(instance, odds=nash_odds):
    win, temperature = instance
    log_odds = odds(win, temperature)
    policy = log_normalise(jnp.stack([log_odds, jnp.zeros(())]))
    uniform = log_normalise(jnp.zeros(2))
    preference = jnp.stack([jnp.stack([jnp.asarray(0.5), win]), jnp.stack([1 - win, jnp.asarray(0.5)])])
    ipo = uniform + win_rates(preference, uniform) / temperature
    scale = 1 + 1 / temperature
    return [
        identity(log_odds, (2 * win - 1) / (2 * temperature), scale),
        identity(log_odds, ipo[0] - ipo[1], scale),
        Bound(duality_gap(preference, policy, uniform, temperature), 0.0, 1.0),
        # The example's own numbers: three printed digits.
        Bound(jnp.abs(odds(jnp.asarray(0.7), jnp.ones(())) - 0.2), 5e-4, 1.0),
        Bound(jnp.abs(rlhf_odds(jnp.asarray(0.7), jnp.ones(())) - 0.847), 5e-4, 1.0),
    ]
