"""GORP on deterministic problems: its law (T5, T6), a Bernstein bound (T7) and binomial limits (T8).

Notation: T steps, A actions, k the depth of the sequences tried, m episodes for each, q, w, o a sequence's exploration,
worst and best value; the rest as in sqirl.py. Proofs: docs/proofs/sqirl.md.
"""

import itertools
from fractions import Fraction
from functools import cache
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import bdtr

from envs.chains import dupchain
from rlcore.claims import Bound, Exact, Falsifier, derived_here, identity, released_code, statement
from rlcore.episodic import episodic
from rlcore.mdp import MDP
from rlcore.sqirl.deterministic import DeterministicTable, deterministic_table, exploration
from rlcore.sqirl.gorp_failure import choice_law, failure, returns
from rlcore.sqirl.released_bounds import binomial_limits, released_failure
from rlcore.sqirl.simple_bound import bernstein_ratio
from rlcore.types import Array
from theory_checks.sqirl import BRIDGE, problem_of

CODE = "the authors' repository, analysis code, as digested in the specification"


class Moves(NamedTuple):
    """A deterministic problem with integer rewards of at least 0."""

    problem: MDP


def moves(next_state, reward, terminal, steps):
    """Moves of arrays [S, A]."""
    parts = (x[..., None] for x in (next_state, jnp.ones(reward.shape), reward, terminal))
    return Moves(problem_of(*parts, steps))


def game_instance(key, states, actions, steps, largest=3):
    """Random moves, one in five of which ends the episode; rewards 0, .., `largest`."""
    keys = jax.random.split(key, 3)
    shape = (states, actions)
    reward = jax.random.randint(keys[1], shape, 0, largest + 1).astype(float)
    return moves(
        jax.random.randint(keys[0], shape, 0, states), reward, jax.random.bernoulli(keys[2], 0.2, shape), steps
    )


def lock_instance(key, states, actions, steps):
    """A lock of `steps` dials that pays 10; its first wrong dial pays 5 to 9."""
    sure = jax.random.randint(key, (), 5, 10).astype(float)
    reward = jnp.zeros((states, actions)).at[0, 0].set(sure).at[steps - 1, 0].set(10.0)
    turn = jnp.arange(1, steps)
    right = jnp.where(jnp.arange(steps - 1) == 0, 1, 0)
    next_state = jnp.zeros((states, actions), int).at[jnp.arange(steps - 1), right].set(turn)
    terminal = jnp.ones((states, actions), bool).at[jnp.arange(steps - 1), right].set(False)
    return moves(next_state, reward, terminal, steps)


def table_of(problem: MDP) -> DeterministicTable:
    """`deterministic_table` of arrays that may be traced."""
    end, actions = problem.available.shape
    following = jnp.where(problem.terminal[..., 0], end, problem.next_state[..., 0])
    return DeterministicTable(
        jnp.concatenate([following, jnp.full((1, actions), end)]).astype(jnp.int32),
        jnp.concatenate([problem.reward[..., 0], jnp.zeros((1, actions))]),
        jnp.zeros((), jnp.int32),
        problem.horizon,
    )


def failure_of(table: DeterministicTable, k, m, highest, size):
    """The exact failure probability: returns are 0 .. highest, sums below `size` (both static)."""
    laws = returns(table, exploration(table), 0, highest + 1)
    # Integer rewards: everything within 1/2 of the best is best.
    return failure(table, choice_law(table, k, m, laws, size), 0.5)[0]


# ---- T5: full depth --------------------------------------------------------------------------------------------------


@statement(
    "sqirl/T5",
    "GORP(T, 1) never fails on a deterministic problem, so that its effective horizon is at most T",
    falsifiers=[
        Falsifier("sequences are as long as the episode (one action)", {"depth": 1}, share=0.9, generator=lock_instance)
    ],
    origin=derived_here("docs/proofs/sqirl.md, T5; GORP as in the released code", BRIDGE),
    proof="docs/proofs/sqirl.md#t5",
    generator=game_instance,
    cases=[{"states": 3, "actions": 3, "steps": 3}, {"states": 4, "actions": 2, "steps": 4}],
)
def full_depth(instance, depth=None):
    steps = instance.problem.horizon
    highest = 10 * steps
    # Sequences differ by `highest` at most, and so do returns.
    fails = failure_of(table_of(instance.problem), depth or steps, 1, highest, 2 * highest + 1)
    return Bound(fails, 0.0, 1.0, trivial=1.0)


# ---- T6: more episodes may be worse ----------------------------------------------------------------------------------


class TwoDials(NamedTuple):
    """A lock of two dials and two actions that pays `whole`; its first wrong dial pays `sure` < `whole`."""

    sure: Array
    whole: Array


def two_dials(key):
    """Whole numbers 1 <= sure < whole <= 7."""
    keys = jax.random.split(key)
    whole = jax.random.randint(keys[0], (), 2, 8)
    return TwoDials(1 + jnp.floor(jax.random.uniform(keys[1]) * (whole - 1)).astype(jnp.int32), whole)


EPISODES = 8


def successes(instance):
    """Success of GORP(1, m), m = 1 .. 8: float[8]."""
    sure, whole = (x.astype(float) for x in instance)
    reward = jnp.zeros((2, 2)).at[0, 0].set(sure).at[1, 0].set(whole)
    terminal = jnp.array([[True, False], [True, True]])
    table = table_of(moves(jnp.array([[0, 1], [0, 0]]), reward, terminal, 2).problem)
    return jnp.stack([1 - failure_of(table, 1, m, 7, 14 * EPISODES + 1) for m in range(1, EPISODES + 1)])


@statement(
    "sqirl/T6",
    "On lock(2, 2, d) GORP(1, m) succeeds with probability P(Bin(m, 1/2) > d m): up and down in m",
    falsifiers=[Falsifier("ties go to the first action (to the second)", {"first": False}, share=0.9)],
    origin=derived_here("docs/proofs/sqirl.md, T6", BRIDGE),
    proof="docs/proofs/sqirl.md#t6",
    generator=two_dials,
)
def lock_success(instance, first=True):
    closed = []
    for m in range(1, EPISODES + 1):
        heads = jnp.arange(m + 1)
        chance = jnp.array([comb(m, i) / 2**m for i in range(m + 1)])
        enough, needed = instance.whole * heads, instance.sure * m
        closed.append(jnp.sum(jnp.where(enough > needed if first else enough >= needed, chance, 0.0)))
    return identity(successes(instance), jnp.stack(closed), 1.0)


def five_dips() -> Exact:
    """lock(2, 2, 3/5): success with m = 1 and with m = 2."""
    success = lambda m: sum(Fraction(comb(m, i), 2**m) for i in range(m + 1) if 5 * i > 3 * m)  # noqa: E731
    assert [success(m) for m in range(1, 7)] == [Fraction(x, 32) for x in (16, 8, 16, 10, 6, 11)]
    # From m = 4 on it stays below 1/2 for good: the search's largest m fails, whatever it is.
    assert all(success(m) < Fraction(1, 2) for m in range(4, 200))
    return Exact(success(1), success(2), "lock(2, 2, 3/5), k = 1: success 1/2 with m = 1, 1/4 with m = 2")


@statement(
    "sqirl/T6.bisection",
    "GORP(k, m)'s probability of success does not fall as m grows: what a search for m by bisection presumes",
    falsifiers=[],
    origin=released_code(CODE, BRIDGE),
    proof="docs/proofs/sqirl.md#t6",
    differs="the released code states no theorem: it bisects m, and gives up where the largest m fails",
    generator=two_dials,
    refutation=five_dips,
    corrected="sqirl/T6",
)
def monotone_success(instance):
    success = successes(instance)
    return Bound(success[:-1], success[1:], 1.0)


# ---- T7: Bernstein ---------------------------------------------------------------------------------------------------


def trap_instance(key, states, actions, steps):
    """Two steps: action 0 pays 18 and leads where `many` actions pay 2; the others lead where one action pays 19."""
    many = jax.random.randint(key, (), 8, 21)
    reward = jnp.zeros((states, actions)).at[0, 0].set(18.0).at[2, 0].set(19.0)
    reward = reward.at[1].set(jnp.where(jnp.arange(actions) < many, 2.0, 0.0))
    next_state = jnp.zeros((states, actions), int).at[0].set(2).at[0, 0].set(1)
    return moves(next_state, reward, jnp.ones((states, actions), bool).at[0].set(False), steps)


GAMES = [
    {"states": 4, "actions": 2, "steps": 4, "largest": 1},
    {"states": 3, "actions": 3, "steps": 3, "largest": 1},
]


def trap_of_256() -> Exact:
    """The trap in units of 1/20 with 12 paying actions, T = 2, A = 256, k = 1."""
    actions, many = 256, 12
    one = Fraction(1, actions)
    gap = 18 + 2 * many * one - 19 * one
    proxy = max(2 * many * one * 2, 19 * one * 19)  # (q - w)(o - w) of action 0 and of the others
    # ln(2 T A^k) = ln 1024 = 10 ln 2 < 7: the released number of episodes is 1.
    assert 16 * proxy / gap**2 * 7 <= 1
    fails = (1 - (1 - one) ** (actions - 1)) * (1 - many * one)
    return Exact(fails, Fraction(1, 2), "A = 256, T = 2, k = 1: the formula gives m = 1; failure against 1/2")


@statement(
    "sqirl/T7",
    "GORP(k, m) fails w.p. <= 1/2 if C-solvable and m >= max (8 (q-w)(o-q) + 4/3 (o-w) gap)/gap^2 ln(2 T A^k)",
    falsifiers=[
        Falsifier(
            "Bernstein's term in the range is kept (the released formula)",
            {"mode": "official"},
            share=0.9,
            generator=trap_instance,
            setting={"k": 1},
            cases=[{"states": 3, "actions": 128, "steps": 2}],
        )
    ],
    origin=derived_here("docs/proofs/sqirl.md, T7; corrects the released code's formula", BRIDGE),
    proof="docs/proofs/sqirl.md#t7",
    generator=game_instance,
    cases=GAMES,
)
def bernstein(instance, mode="sound", k=2):
    problem = instance.problem
    steps, actions = problem.horizon, problem.available.shape[1]
    # The trap has few episodes (one by the released formula), the games few actions.
    most, highest = (1 if mode == "official" else 12, 20) if actions > 16 else (80, steps)
    ratio, _, separated = bernstein_ratio(episodic(problem), None, k, mode=mode, tolerance=0.5)
    needed = jnp.maximum(1.0, jnp.ceil(ratio * (jnp.log(2.0 * steps) + k * jnp.log(float(actions)))))
    m = jnp.minimum(needed, most).astype(jnp.int32)
    fails = failure_of(table_of(problem), k, m, highest, 2 * most * highest + 1)
    return Bound(fails, 0.5, 1.0, applies=separated & (needed <= most), trivial=1.0)


@statement(
    "sqirl/T7.released",
    "GORP(k, m) fails w.p. <= 1/2 if C-solvable and m >= max(1, 16 max (q-w)(o-w)/gap^2 ln(2 T A^k))",
    falsifiers=[],
    origin=released_code(CODE + '; "Theorem 5.4" in its readme', BRIDGE),
    proof="docs/proofs/sqirl.md#t7",
    differs="w is each sequence's own worst value, as computed there; the paper's theorem was not read",
    generator=trap_instance,
    cases=[{"states": 3, "actions": 128, "steps": 2}],
    refutation=trap_of_256,
    corrected="sqirl/T7",
)
def released_formula(instance):
    return bernstein.claim(instance, mode="official", k=1)


# ---- T8: binomial limits ---------------------------------------------------------------------------------------------


class Coins(NamedTuple):
    """chance: float[K]; m: throws of each."""

    chance: Array
    m: Array


def coins_instance(key, number):
    """Uniform chances, one of them doubled, up to 40 throws."""
    keys = jax.random.split(key)
    chance = jax.random.uniform(keys[0], (number,))
    return Coins(chance.at[-1].set(chance[0]), jax.random.randint(keys[1], (), 1, 41))


def tied_coins(key, number):
    """A coin that never falls on its head and others of one chance, of 0.05 to 0.5 heads in all throws."""
    keys = jax.random.split(key)
    m = jax.random.randint(keys[1], (), 2, 30)
    chance = jax.random.uniform(keys[0], minval=0.05, maxval=0.5) / m
    return Coins(jnp.full(number, chance).at[0].set(0.0), m)


def first_largest(chance: np.ndarray, m: int) -> np.ndarray:
    """P(coin i has the most heads, the first of those that tie), by summing over its heads."""
    below = bdtr(np.arange(m + 1), m, chance[:, None])
    strictly = np.concatenate([np.zeros((len(chance), 1)), below[:, :-1]], axis=1)
    mass = below - strictly
    numbers = range(len(chance))
    others = lambda i: [strictly[j] if j < i else below[j] for j in numbers if j != i]  # noqa: E731
    return np.array([np.sum(mass[i] * np.prod(others(i), axis=0)) for i in numbers])


@statement(
    "sqirl/T8",
    "l <= P(Bin(m, q_a) is the first largest) <= u, from bins of which the first holds the atom at 0",
    falsifiers=[
        Falsifier("the first bin holds the atom at 0 (no bin does)", {"atom": False}, share=0.9, generator=tied_coins)
    ],
    origin=derived_here("docs/proofs/sqirl.md, T8; corrects the released code's bins", BRIDGE),
    proof="docs/proofs/sqirl.md#t8",
    generator=coins_instance,
    cases=[{"number": 3}, {"number": 5}],
    host=True,
)
def limits(instance, atom=True):
    chance, m = np.asarray(instance.chance), int(instance.m)
    exact = first_largest(chance, m)
    low, high = binomial_limits(chance, m, atom=atom)
    # Sums of at most 100 bins' products, below 1.
    return [Bound(low, exact, 2.0), Bound(exact, high, 2.0)]


class Episodes(NamedTuple):
    """m episodes a sequence."""

    m: Array


def some_episodes(key):
    """1 to 8."""
    return Episodes(jax.random.randint(key, (), 1, 9))


def few_episodes(key):
    """2 or 3."""
    return Episodes(jax.random.randint(key, (), 2, 4))


def chain_failure(length, copies, m, one):
    """1 - prod (1 - (1 - q_i)^(copies m)); `one` is a float or a Fraction."""
    stays = one
    for i in range(length):
        q = (one * copies / (copies + 1)) ** (length - 1 - i)
        stays = stays * (1 - (1 - q) ** (copies * m))
    return 1 - stays


@statement(
    "sqirl/T8.chain",
    "On dupchain(n, g) GORP(1, m) fails with probability 1 - prod_i (1 - (1 - q_i)^(g m))",
    falsifiers=[Falsifier("ties go to the first action (to a good one)", {"first": False}, share=0.9)],
    origin=derived_here("docs/proofs/sqirl.md, T8", BRIDGE),
    proof="docs/proofs/sqirl.md#t8",
    generator=some_episodes,
)
def chain(instance, first=True, length=6, copies=2):
    with jax.ensure_compile_time_eval():
        table = deterministic_table(dupchain(length, copies))
    fails = failure_of(table, 1, instance.m, 1, 9)
    # The ends of the chain fail surely or never; binomial masses come from lgamma: 20 roundings of numbers below 20.
    rhs = chain_failure(length, copies, instance.m, 1.0) if first else 0.0
    return identity(fails, rhs, 10.0)


def eight_of_three() -> Exact:
    """dupchain(8, 3), m = 2: exact failure against the released limits, in fractions."""
    length, copies, m, actions = 8, 3, 2, 4
    claimed = Fraction(0)
    for i in reversed(range(length)):
        q = [Fraction(0)] + [Fraction(copies, copies + 1) ** (length - 1 - i)] * copies
        pmf = [[comb(m, x) * p**x * (1 - p) ** (m - x) for x in range(m + 1)] for p in q]
        cdf = [[sum(row[: x + 1]) for x in range(m + 1)] for row in pmf]
        low, high = [], []
        for a in range(actions):
            edges = {0, m} | {min(x for x in range(m + 1) if cdf[a][x] >= Fraction(j, 100)) for j in range(1, 100)}
            edges = sorted(edges)
            parts = [Fraction(0), Fraction(0)]
            for lo, hi in itertools.pairwise(edges):
                mass = [cdf[a][hi] - cdf[a][lo]] * 2
                for b in set(range(actions)) - {a}:
                    mass = [mass[0] * cdf[b][lo], mass[1] * cdf[b][hi]]
                parts = [p + x for p, x in zip(parts, mass, strict=True)]
            low.append(parts[0])
            high.append(parts[1])
        missing = max(Fraction(0), 1 - sum(high))
        high = [min(Fraction(1), u + missing) for u in high]
        # Action 0 fails for sure: as much of it as u allows and the others' l leaves.
        bad = min(high[0], low[0] + 1 - sum(low))
        claimed = bad + (1 - bad) * claimed
    exact = chain_failure(length, copies, m, Fraction(1))
    return Exact(
        exact, claimed, f"dupchain(8, 3), k = 1, m = 2: failure {float(exact):.4f}, claimed {float(claimed):.4f}"
    )


@cache
def claimed_failure(m):
    return released_failure(dupchain(8, 3), 1, m, methods=("binomial",))


@statement(
    "sqirl/T8.released",
    "GORP(1, m) fails with at most the probability of the released code's tight bound, binomial method",
    falsifiers=[],
    origin=released_code(CODE + ', "Appendix C" there', BRIDGE),
    proof="docs/proofs/sqirl.md#t8",
    generator=few_episodes,
    host=True,
    refutation=eight_of_three,
    corrected="sqirl/T8",
)
def released_limits(instance):
    m = int(instance.m)
    return Bound(chain_failure(8, 3, m, 1.0), claimed_failure(m), 10.0, trivial=1.0)
