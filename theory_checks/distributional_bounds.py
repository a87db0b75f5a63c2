"""Sweeps of value iteration, their greedy policies, policy iteration (T4 to T6), and errors on the way (T14).

Problems of three states whose stocks stay on integers, discount g = 1/2 or 1/3, so that nothing is rounded; utilities
are two-slope, L the larger slope, R the largest reward, F* the optimum. Proofs: docs/proofs/distributional.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.claims import Bound, Falsifier, statement
from rlcore.distributional import Power, Reach, TwoSlope, stock_grid, stock_vi
from rlcore.distributional.lattice import place
from rlcore.distributional.stock import StockValue, break_ties
from rlcore.distributional.stock_vi import Arrivals, stock_backup
from rlcore.mdp import MDP
from rlcore.types import Array
from theory_checks.distributional import PROOFS, derived, garnet

# Returns are at most 2 / (1 - 1/2) in size: beyond 4 utilities are affine.
GRID = stock_grid(-4.0, 4.0, 1.0)
NODES = GRID.lattice.size
# 2^-56 of the largest value is left after this many sweeps at g = 1/2.
SWEEPS = 56
SHOWN = 8


class Rule(NamedTuple):
    """Actions int[S, C] at the nodes, int[S] below and above the window."""

    action: Array
    below: Array
    above: Array


class Lattice(NamedTuple):
    """A problem and a utility; a law of two atoms per state to start from, float[2, S] each; a policy to start from."""

    problem: MDP
    utility: TwoSlope
    atoms: Array
    weights: Array
    rule: Rule


def lattice_instance(key):
    """Three states, two actions, two outcomes, an end in a tenth of them; slopes of all signs, the larger 1."""
    numbers = jax.random.uniform(key, (4 * 12 + 16 + 3 * NODES + 6,))
    problem = garnet(numbers[:48].reshape(4, 3, 2, 2), jnp.where(numbers[48] < 0.7, 1 / 2, 1 / 3), ending=0.1)
    slope = jnp.where(numbers[49] < 0.5, 1.0, -1.0)
    other = jnp.where(numbers[51] < 0.4, 0.0, 2 * numbers[50] - 1)
    slopes = jnp.where(numbers[52] < 0.5, jnp.stack([slope, other]), jnp.stack([other, slope]))
    atoms, weights = jnp.floor(5 * numbers[53:59].reshape(2, 3)) - 2, numbers[59:62]
    coins = (numbers[64:] < 0.5).astype(jnp.int32)
    rule = Rule(coins[: 3 * NODES].reshape(3, NODES), coins[3 * NODES : 3 * NODES + 3], coins[3 * NODES + 3 :])
    return Lattice(problem, TwoSlope(*slopes), atoms, jnp.stack([weights, 1 - weights]), rule)


def lipschitz(utility):
    """L."""
    return jnp.maximum(jnp.abs(utility.a_plus), jnp.abs(utility.a_minus))


def largest_reward(problem):
    """R."""
    return jnp.max(jnp.abs(problem.reward))


def zero_value(utility):
    """The values of the law of 0."""
    return StockValue(jnp.broadcast_to(utility(GRID.nodes), (3, NODES)), jnp.zeros(3), jnp.zeros(3))


def without_division(problem):
    """The broken stock c' = c + r."""
    stock = GRID.nodes + problem.reward[..., None]
    return Arrivals(stock, place(GRID.lattice, stock))


def backed(problem, utility, value, rule=None, divided=True):
    """One sweep, greedy or of a policy: (values, rule)."""
    going = None if divided else without_division(problem)
    rows = stock_backup(problem, utility, GRID, value, going=going)
    if rule is None:
        rule = Rule(*(break_ties(x, "first") for x in rows))
    best, below, above = (
        jnp.take_along_axis(x, a[..., None], axis=-1)[..., 0] for x, a in zip(rows, rule, strict=True)
    )
    signs = jnp.where(utility.tails().slope < 0, -1.0, 1.0)
    return StockValue(best, signs[0] * below, signs[1] * above), rule


def sweeps(problem, utility, value, rule=None, steps=SWEEPS):
    """The values after many sweeps."""
    return jax.lax.scan(lambda v, _: (backed(problem, utility, v, rule)[0], None), value, None, length=steps)[0]


def frozen(rule):
    """The action of stock 0 at every stock."""
    middle = rule.action[..., NODES // 2]
    return Rule(jnp.broadcast_to(middle[..., None], rule.action.shape), middle, middle)


def left_over(problem, utility):
    """Certified: what `SWEEPS` sweeps from the law of 0 leave, L g^n R / (1 - g)."""
    return lipschitz(utility) * problem.discount**SWEEPS * largest_reward(problem) / (1 - problem.discount)


def first_sweeps(instance, value, divided=True):
    """Values after 0 .. SHOWN sweeps and the policies greedy for each, stacked."""
    problem, utility = instance.problem, instance.utility

    def step(value, _):
        new, rule = backed(problem, utility, value, divided=divided)
        return new, (value, rule)

    return jax.lax.scan(step, value, None, length=SHOWN + 1)[1]


def slope_weights(utility):
    """|a-|, |a+|: what a mean return below and above the window is worth."""
    return jnp.abs(utility.tails().slope)


def gaps(utility, best, value):
    """best - value at the nodes and, times the slope, on the sides; float[..., S, C + 2]."""
    signs = utility.tails().slope
    sides = [(s * (a - b))[..., None] for s, a, b in zip(signs, best[1:], value[1:], strict=True)]
    return jnp.concatenate([best.value - value.value, *sides], axis=-1)


UNDIVIDED = {"divided": False}
SIZE = 16.0  # |f(c + G)| at nodes and sides, twice


@statement(
    "distributional/T4",
    "|F eta_n - F*| <= L g^n (R / (1 - g) + max |eta_0|) at every state and stock, n = 0 .. 8, from any law eta_0",
    falsifiers=[Falsifier("the stock is divided by the discount", UNDIVIDED, share=0.5)],
    origin=derived("T4"),
    proof=f"{PROOFS}#t4",
    generator=lattice_instance,
)
def value_iteration(instance, divided=True):
    problem, utility = instance.problem, instance.utility
    spread = instance.utility(GRID.nodes[:, None, None] + instance.atoms.T)
    mean = jnp.sum(instance.weights * instance.atoms, axis=0)
    start = StockValue(jnp.sum(instance.weights.T * spread, axis=-1).T, mean, mean)
    found, _ = first_sweeps(instance, start, divided)
    best = sweeps(problem, utility, zero_value(utility))
    n = jnp.arange(SHOWN + 1.0)[:, None, None]
    furthest = largest_reward(problem) / (1 - problem.discount) + jnp.max(jnp.abs(instance.atoms))
    limit = lipschitz(utility) * problem.discount**n * furthest
    miss = jnp.abs(gaps(utility, best, found))
    return Bound(miss, limit, SIZE, left_over(problem, utility), trivial=SIZE)


def rising_slopes(key):
    """Slopes in [0, 1]."""
    return TwoSlope(*jax.random.uniform(key, (2,)))


@statement(
    "distributional/T4.jump",
    "One state, rewards 1 or 0, g = 1/2, f nondecreasing and 1-Lipschitz: f(c + 2) - F eta_n(c) <= 2 g^n",
    falsifiers=[Falsifier("(L) (f = 1[x >= 0]: 1 against 0 for every n)", {"utility": Reach()}, share=0.95)],
    origin=derived("T4"),
    proof=f"{PROOFS}#t4",
    generator=rising_slopes,
)
def target_reached_in_the_limit(slopes, utility=None):
    utility = slopes if utility is None else utility
    shape = (1, 2, 1)
    reward = jnp.array([1.0, 0.0]).reshape(shape)
    problem = MDP(
        jnp.zeros(shape, jnp.int32),
        jnp.ones(shape),
        reward,
        jnp.zeros(shape, bool),
        jnp.ones((1, 2), bool),
        jnp.asarray(0.5),
        jnp.ones(1),
    )
    start = StockValue(utility(GRID.nodes)[None], jnp.zeros(1), jnp.zeros(1))
    step = lambda value, _: (backed(problem, utility, value)[0], value)  # noqa: E731
    found = jax.lax.scan(step, start, None, length=SHOWN + 1)[1].value[:, 0]
    return Bound(utility(GRID.nodes + 2) - found, 2 * 0.5 ** jnp.arange(SHOWN + 1.0)[:, None], SIZE, trivial=6.0)


def worst_action(problem):
    """max over states of the least expected |reward|: inf over policies of w_1(T delta_0, delta_0)."""
    return jnp.max(jnp.min(jnp.sum(problem.prob * jnp.abs(problem.reward), axis=-1), axis=-1))


@statement(
    "distributional/T5",
    "Greedy after n sweeps from delta_0: F* - F eta^{pi_n} <= L g^n (D_0 + D_1 / (1 - g)), n = 0 .. 8, everywhere",
    falsifiers=[
        Falsifier("the stock is divided by the discount", UNDIVIDED, share=0.4),
        Falsifier("the policy sees the stock (the action of stock 0)", {"seen": False}, share=0.3),
    ],
    origin=derived("T5"),
    proof=f"{PROOFS}#t5",
    generator=lattice_instance,
)
def greedy_policies(instance, divided=True, seen=True):
    problem, utility = instance.problem, instance.utility
    start = zero_value(utility)
    _, rules = first_sweeps(instance, start, divided)
    rules = rules if seen else frozen(rules)
    found = jax.vmap(lambda rule: sweeps(problem, utility, start, rule))(rules)
    best = sweeps(problem, utility, start)
    n = jnp.arange(SHOWN + 1.0)[:, None, None]
    scale = 1 / (1 - problem.discount)
    limit = lipschitz(utility) * problem.discount**n * scale * (largest_reward(problem) + worst_action(problem))
    return Bound(gaps(utility, best, found), limit, SIZE, 2 * left_over(problem, utility), trivial=SIZE)


@statement(
    "distributional/T6",
    "Policy iteration: F eta^{pi_k} never falls, and F* - F eta^{pi_k} <= 2 L g^k R / (1 - g), k = 0 .. 5, everywhere",
    falsifiers=[
        Falsifier("the stock is divided by the discount", UNDIVIDED, share=0.4),
        Falsifier("the new policy sees the stock (the action of stock 0)", {"seen": False}, share=0.3),
    ],
    origin=derived("T6"),
    proof=f"{PROOFS}#t6",
    generator=lattice_instance,
)
def policy_iteration(instance, divided=True, seen=True):
    problem, utility = instance.problem, instance.utility
    start = zero_value(utility)

    def improve(rule, _):
        value = sweeps(problem, utility, start, rule)
        _, new = backed(problem, utility, value, divided=divided)
        return new if seen else frozen(new), value

    _, found = jax.lax.scan(improve, instance.rule, None, length=6)
    best = sweeps(problem, utility, start)
    k = jnp.arange(6.0)[:, None, None]
    limit = 2 * lipschitz(utility) * problem.discount**k * largest_reward(problem) / (1 - problem.discount)
    error = 2 * left_over(problem, utility)
    before, after = (jax.tree.map(lambda x, cut=cut: x[cut], found) for cut in (slice(None, -1), slice(1, None)))
    return [
        Bound(gaps(utility, best, found), limit, SIZE, error, trivial=SIZE),
        Bound(gaps(utility, before, after), 0.0, SIZE, error),
    ]


def least_return(problem, value, action=None, average=False):
    """One sweep of the essential infimum: (values, greedy actions); `average` is greedy on the mean instead."""
    possible = problem.prob > 0
    later = jnp.where(problem.terminal, 0.0, value[problem.next_state])
    outcome = problem.reward + problem.discount * later
    worst = jnp.min(jnp.where(possible, outcome, jnp.inf), axis=-1)
    ranking = jnp.sum(problem.prob * outcome, axis=-1) if average else worst
    action = jnp.argmax(ranking, axis=-1) if action is None else action
    return jnp.take_along_axis(worst, action[:, None], axis=-1)[:, 0], action


@statement(
    "distributional/T6.infimum",
    "ess inf, Lipschitz in w_inf: |F eta_n - F*| <= g^n R / (1 - g), greedy loses <= g^n (R + D_1) / (1 - g)",
    falsifiers=[Falsifier("greedy on the infimum (on the mean)", {"average": True}, share=0.25)],
    origin=derived("T6"),
    proof=f"{PROOFS}#t6",
    generator=lattice_instance,
)
def infimum_iteration(instance, average=False):
    problem = instance.problem
    many = lambda value, action=None: jax.lax.scan(  # noqa: E731
        lambda v, _: (least_return(problem, v, action)[0], None), value, None, length=SWEEPS
    )[0]

    def step(value, _):
        new, action = least_return(problem, value, average=average)
        return new, (value, action)

    start = jnp.zeros(3)
    _, (found, actions) = jax.lax.scan(step, start, None, length=SHOWN + 1)
    best, own = many(start), jax.vmap(lambda action: many(start, action))(actions)
    scale = problem.discount ** jnp.arange(SHOWN + 1.0)[:, None] / (1 - problem.discount)
    largest = largest_reward(problem)
    least = jnp.max(jnp.min(jnp.max(jnp.abs(problem.reward), axis=-1), axis=-1))
    error = 2 * problem.discount**SWEEPS * largest / (1 - problem.discount)
    return [
        Bound(jnp.abs(best - found), scale * largest, SIZE, error, trivial=SIZE),
        Bound(best - own, scale * (largest + least), SIZE, error, trivial=SIZE),
    ]


# ---- weaker than Lipschitz -------------------------------------------------------------------------------------------

STEPS = 7
# g^t (c + return so far) of first stocks -2 .. 2 and rewards -2 .. 2 at g = 1/2, in units of g^6
FINE = stock_grid(-6.0, 6.0, 0.5 ** (STEPS - 1), coordinates="discounted")


def fine_instance(key):
    """Three states, two actions, two outcomes, an end in a tenth of them, g = 1/2, seven steps."""
    return garnet(jax.random.uniform(key, (4, 3, 2, 2)), 1 / 2, ending=0.1, horizon=STEPS)


@statement(
    "distributional/T6.power",
    "f = -|x|^a, a = 1/2: |F eta_n - F eta_7| <= o(g^n R (1 - g^{7-n}) / (1 - g)), o(x) = x^a, n = 1 .. 6, eta_0 = 0",
    falsifiers=[Falsifier("o(x) = x^a (o(x) = x, as of a Lipschitz utility)", {"power": 1.0}, share=0.3)],
    origin=derived("T6"),
    proof=f"{PROOFS}#t6",
    generator=fine_instance,
)
def hoelder_sweeps(problem, power=0.5):
    utility = Power(0.5)
    value = stock_vi(problem, utility, FINE).value.value  # [t, S, b]: g^{t/2} F eta_{7-t}(s, c) at b = g^t c
    stocks = jnp.arange(-2.0, 3.0)
    shown = []
    for t in range(STEPS):
        at = jnp.round((stocks * 0.5**t - FINE.nodes[0]) / FINE.lattice.spacing).astype(jnp.int32)
        shown.append(2.0 ** (t / 2) * value[t][:, at])
    steps = STEPS - jnp.arange(1.0, STEPS)[:, None, None]
    tail = largest_reward(problem) * (0.5**steps - 0.5**STEPS) / (1 - 0.5)
    # 2^{7/2} times values of at most 6^{1/2}
    return Bound(jnp.abs(jnp.stack(shown[1:]) - shown[0]), tail**power, 2.0 ** (STEPS / 2) * SIZE, trivial=2 * SIZE)


# ---- T14 -------------------------------------------------------------------------------------------------------------


class Noisy(NamedTuple):
    """A lattice instance, noise of each of 30 sweeps in [-1, 1] at all nodes and sides, and its sizes."""

    lattice: Lattice
    noise: Array
    projection: Array
    greedy: Array


def noisy_instance(key):
    """Errors of F up to 0.3 a sweep, all upwards in half of the instances; greedy up to 0.3 worse than the best."""
    own_key, key = jax.random.split(key)
    numbers = jax.random.uniform(own_key, (3 + 90 * (NODES + 2),))
    noise = jnp.where(numbers[2] < 0.5, 1.0, 2 * numbers[3:] - 1).reshape(30, 3, NODES + 2)
    return Noisy(lattice_instance(key), noise, 0.3 * numbers[0], 0.3 * numbers[1])


def careless(rows, utility, slack):
    """The worst action whose score is within `slack` of the best, in units of utility on the sides too."""
    units = (1.0, *slope_weights(utility))
    chosen = []
    for row, unit in zip(rows, units, strict=True):
        near = unit * row >= unit * jnp.max(row, axis=-1, keepdims=True) - slack
        chosen.append(jnp.argmin(jnp.where(near, row, jnp.inf), axis=-1))
    return Rule(*chosen)


@statement(
    "distributional/T14",
    "Errors x of F, y of greedy: e = |F eta_n - F*| <= g^n D + (x + y) / (1 - g), greedy loses (2 g e + y) / (1 - g)",
    falsifiers=[
        Falsifier("errors accumulate, 1 / (1 - g) (once)", {"accumulated": False}, share=0.2),
        Falsifier("the projection's error counts (as 0, what matching atoms alone allow)", {"counted": 0.0}, share=0.3),
    ],
    origin=derived("T14"),
    proof=f"{PROOFS}#t14",
    generator=noisy_instance,
)
def approximate_iteration(instance, accumulated=True, counted=1.0):
    problem, utility = instance.lattice.problem, instance.lattice.utility
    start, weights = zero_value(utility), slope_weights(utility)
    # a mean return on a side is off by the error of F over the slope; a slope of 0 has none
    units = jnp.concatenate([jnp.ones(NODES), jnp.where(weights > 0, 1 / jnp.where(weights > 0, weights, 1.0), 0.0)])

    def step(value, noise):
        rule = careless(stock_backup(problem, utility, GRID, value), utility, instance.greedy)
        new, _ = backed(problem, utility, value, rule)
        noise = instance.projection * noise * units
        new = StockValue(new.value + noise[:, :NODES], new.below + noise[:, NODES], new.above + noise[:, NODES + 1])
        return new, None

    found, _ = jax.lax.scan(step, start, instance.noise)
    rule = careless(stock_backup(problem, utility, GRID, found), utility, instance.greedy)
    own = sweeps(problem, utility, start, rule)
    best = sweeps(problem, utility, start)
    miss = jnp.max(jnp.abs(gaps(utility, best, found)))
    g = problem.discount
    sums = 1 / (1 - g) if accumulated else 1.0
    first = jnp.max(jnp.abs(gaps(utility, best, start)))
    steps = instance.noise.shape[0]
    error = 2 * left_over(problem, utility)
    limit = g**steps * first + sums * (counted * instance.projection + instance.greedy)
    return [
        Bound(miss, limit, SIZE, error, trivial=SIZE),
        Bound(jnp.max(gaps(utility, best, own)), sums * (2 * g * miss + instance.greedy), SIZE, error, trivial=SIZE),
    ]
