"""Which utilities (T7), when no stock is needed (T8), the scalar recursion (T9) and its window (T10).

G the return, c the stock, g the discount. Trees as in distributional.py. Proofs: docs/proofs/distributional.md.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.claims import Falsifier, identity, statement
from rlcore.distributional import (
    Law,
    Power,
    Reach,
    TwoSlope,
    entropic,
    essential_infimum,
    expected_utility,
    mean,
    stock_grid,
    stock_vi,
)
from rlcore.distributional.lattice import place
from rlcore.distributional.stock import StockValue
from rlcore.distributional.stock_vi import Arrivals, stock_backup
from rlcore.mdp import MDP
from rlcore.planning import backward_induction
from rlcore.pytree import pytree
from rlcore.types import Array
from theory_checks.distributional import (
    PROOFS,
    Start,
    best_of_all,
    derived,
    garnet,
    greedy,
    grow,
    kinked,
    least,
    negative_exponential,
    normalised,
    size_of,
    tree_instance,
    utility_of,
)
from theory_checks.distributional_bounds import GRID, SIZE, lattice_instance

# ---- T7 --------------------------------------------------------------------------------------------------------------


class Laws(NamedTuple):
    """Two laws of five atoms, a discount in [0.2, 0.95] and two slopes."""

    first: Law
    second: Law
    discount: Array
    slopes: Array


def laws_instance(key):
    """Atoms in [-3, 3], slopes in [-1, 1]."""
    numbers = jax.random.uniform(key, (23,))
    atoms, weights = 6 * numbers[:10].reshape(2, 5) - 3, normalised(numbers[10:20].reshape(2, 5))
    laws = (Law(atoms[i], weights[i]) for i in range(2))
    return Laws(*laws, 0.2 + 0.75 * numbers[20], 2 * numbers[21:] - 1)


def log_periodic(x):
    """x (2 + sin of the logarithm to base 1/2): homogeneous for the discount 1/2 and its powers alone."""
    size = jnp.abs(x)
    phase = jnp.log(jnp.where(size > 0, size, 1.0)) * (2 * math.pi / math.log(2))
    return x * (2 + jnp.sin(phase))


def homogeneous_utilities(slopes):
    """(f, degree) of the utilities that every discount allows."""
    return ((TwoSlope(*slopes), 1.0), (Power(2.0), 2.0), (Power(0.5), 0.5), (Reach(), 0.0))


@statement(
    "distributional/T7",
    "f(g x) = g^d f(x): E f(g X) - E f(g Y) = g^d (E f(X) - E f(Y)), so no order of laws changes with the discount",
    falsifiers=[
        Falsifier("the kink at 0 (at 1)", {"utilities": ((kinked, 1.0),)}, share=0.9),
        Falsifier("a degree (exponential utility)", {"utilities": ((negative_exponential, 1.0),)}, share=0.9),
        Falsifier("every discount (g = 1/2 alone)", {"utilities": ((log_periodic, 1.0),)}, share=0.9),
    ],
    origin=derived("T7"),
    proof=f"{PROOFS}#t7",
    generator=laws_instance,
)
def order_kept(laws, utilities=None):
    bounds = []
    for f, degree in utilities or homogeneous_utilities(laws.slopes):
        both = [expected_utility(law, f) for law in laws[:2]]
        scaled = [expected_utility(Law(laws.discount * law.values, law.probs), f) for law in laws[:2]]
        bounds.append(identity(scaled[0] - scaled[1], laws.discount**degree * (both[0] - both[1]), 40.0))
    return bounds


@statement(
    "distributional/T7.only",
    "f(0) = 0, f(g x_i) = a_i f(x_i), x_i > 0: mixtures with 0 tied under E f differ under E f(g .) by |a_1 - a_2| m",
    falsifiers=[Falsifier("the mixtures are tied (equal weights)", {"tied": False}, share=0.9)],
    origin=derived("T7"),
    proof=f"{PROOFS}#t7",
    generator=laws_instance,
)
def order_reversed(laws, tied=True):
    g = laws.discount
    x = 0.1 + jnp.abs(laws.first.values[:2])
    bounds = []
    for f in (lambda x: 1 - jnp.exp(-x), lambda x: jnp.minimum(x, 1.0), log_periodic):
        worth, scaled = f(x), f(g * x)
        weight = jnp.min(worth) / worth if tied else jnp.full(2, 0.5)
        mixed = [Law(jnp.stack([x[i], jnp.zeros(())]), jnp.stack([weight[i], 1 - weight[i]])) for i in range(2)]
        before = [expected_utility(law, f) for law in mixed]
        after = [expected_utility(Law(g * law.values, law.probs), f) for law in mixed]
        ratio = scaled / worth
        gap = jnp.abs(ratio[0] - ratio[1]) * jnp.min(worth)
        # ratios divide numbers of f's own size
        bounds += [
            identity(before[0], before[1], 9.0),
            identity(jnp.abs(after[0] - after[1]), gap, 9.0 + jnp.sum(ratio)),
        ]
    return bounds


# ---- T8 --------------------------------------------------------------------------------------------------------------


@statement(
    "distributional/T8",
    "Mean, ess inf, and at g = 1 entropic risk: greedy that never sees the stock is best of all 128 policies",
    falsifiers=[Falsifier("K(c + .) orders as K (f = min(x, 0))", {"functional": utility_of(least)}, share=0.1)],
    origin=derived("T8"),
    proof=f"{PROOFS}#t8",
    generator=tree_instance,
)
def no_stock(instance, functional=None):
    def one(problem, functional, scale):
        tree = grow(problem, instance.stock)
        law = greedy(tree, functional, seen=False)
        found = functional(Law(instance.stock + law.values, law.probs))
        return identity(found, best_of_all(tree, functional), size_of(tree, scale))

    problem = instance.problem
    if functional is not None:
        return one(problem, functional, jnp.abs)
    undiscounted = MDP(*(getattr(problem, name) for name in KERNEL), jnp.ones(()), problem.initial)
    # logarithms of sums of exponentials of numbers up to 9, divided by 1/2
    risk = functools.partial(entropic, beta=-0.5)
    return [one(problem, mean, jnp.abs), one(problem, essential_infimum, jnp.abs), one(undiscounted, risk, jnp.abs)]


KERNEL = ("next_state", "prob", "reward", "terminal", "available")

# ---- T9 --------------------------------------------------------------------------------------------------------------


@pytree
class Unscaled:
    """The two-slope utility that is told to be of degree 0: the broken recursion, scale 1."""

    a_plus: Array
    a_minus: Array

    degree = 0.0

    __call__ = TwoSlope.__call__
    tails = TwoSlope.tails


class Sloped(NamedTuple):
    """A start of a tree with ends, of three steps, and two slopes in [-1, 1]."""

    start: Start
    slopes: Array


def sloped_instance(key):
    """An outcome in five ends the episode; discount 1 or 1/2."""
    numbers = jax.random.uniform(key, (68,))
    discount = jnp.where(numbers[0] < 0.5, 1.0, 0.5)
    problem = garnet(numbers[4:].reshape(4, 4, 2, 2), discount, ending=0.2, horizon=3)
    start = Start(problem, jnp.floor(7 * numbers[1]) - 3, jnp.zeros((), int), jnp.zeros(()))
    return Sloped(start, 2 * numbers[2:4] - 1)


# Three rewards of 2 at discount 1.
WINDOW = stock_grid(-6.0, 6.0, 1.0)


@statement(
    "distributional/T9",
    "Stock value iteration on integers, two slopes, three steps with ends: the best of all 128 history policies",
    falsifiers=[Falsifier("scale g in V <- max g sum p V (scale 1, at g = 1/2)", {"utility_of": Unscaled}, share=0.4)],
    origin=derived("T9"),
    proof=f"{PROOFS}#t9",
    generator=sloped_instance,
)
def exact_recursion(instance, utility_of=TwoSlope):
    start, utility = instance.start, TwoSlope(*instance.slopes)
    tree = grow(start.problem, start.stock)
    best = best_of_all(tree, functools.partial(expected_utility, utility=utility))
    found = stock_vi(start.problem, utility_of(*instance.slopes), WINDOW)
    node = (start.stock + 6).astype(jnp.int32)
    return identity(found.value.value[0, 0, node], best, size_of(tree, utility))


# From stocks within 3 a discount of 1/2 leads to at most (3 + 2) 2, then 24 before the last step.
WIDE = stock_grid(-24.0, 24.0, 1.0)


@statement(
    "distributional/T9.shaped",
    "V - f is the optimum of the ordinary MDP on (s, c) with discount k and reward k f(c') - f(c), f(g x) = k f(x)",
    falsifiers=[Falsifier("the discount k (1, at g = 1/2)", {"scaled": False}, share=0.3)],
    origin=derived("T9"),
    proof=f"{PROOFS}#t9",
    generator=sloped_instance,
)
def shaped_rewards(instance, scaled=True):
    problem = instance.start.problem
    bounds = []
    for utility in (TwoSlope(*instance.slopes), Power(2.0)):
        scale = problem.discount**utility.degree
        value = stock_vi(problem, utility, WIDE).value.value[0]
        nodes = WIDE.nodes
        num_states, size = value.shape
        later = (nodes[:, None, None] + problem.reward[:, None]) / problem.discount
        index = jnp.clip(jnp.round(later) - WIDE.lattice.first, 0, size - 1).astype(jnp.int32)
        reward = scale * utility(later) - utility(nodes)[:, None, None]
        shape = (num_states * size, 2, 2)
        ordinary = MDP(
            (problem.next_state[:, None] * size + index).reshape(shape),
            jnp.broadcast_to(problem.prob[:, None], index.shape).reshape(shape),
            reward.reshape(shape),
            jnp.broadcast_to(problem.terminal[:, None], index.shape).reshape(shape),
            jnp.ones(shape[:2], bool),
            scale if scaled else jnp.ones(()),
            jnp.zeros(shape[0]).at[0].set(1.0),
            3,
        )
        found = backward_induction(ordinary).value[0].reshape(num_states, size)
        inner = jnp.abs(nodes) <= 3
        gain = value - utility(nodes)
        # a stock within 3 is worth at most k^2 times that of (((3 + 2) 2) + 2) 2 + 2
        largest = scale**2 * 26.0**utility.degree
        # a square of the window's end may be infinite or NaN outside
        pick = lambda x, inner=inner: jnp.where(inner, x, 0.0)  # noqa: E731
        bounds.append(identity(pick(found), pick(gain), 60.0 + largest))
    return bounds


# ---- T10 -------------------------------------------------------------------------------------------------------------

DOUBLE = stock_grid(-8.0, 8.0, 1.0)


@statement(
    "distributional/T10",
    "Two slopes, window [-W, W] with W = R / (1 - g) or more: doubling it changes no value; beyond it V = a (c + m(s))",
    falsifiers=[Falsifier("stocks outside keep their mean (clipped into the window)", {"clipped": True}, share=0.5)],
    origin=derived("T10"),
    proof=f"{PROOFS}#t10",
    generator=lattice_instance,
)
def saturation(instance, clipped=False):
    problem, utility = instance.problem, instance.utility
    narrow = repeated(problem, utility, GRID, clipped)
    wide = repeated(problem, utility, DOUBLE, False)
    outside = [utility.tails().slope[i] * (DOUBLE.nodes + wide[1 + i][:, None]) for i in range(2)]
    nodes = jnp.broadcast_to(DOUBLE.nodes, wide.value.shape)
    beyond = jnp.where(nodes < -4, outside[0], jnp.where(nodes > 4, outside[1], wide.value))
    return [identity(narrow.value, wide.value[:, 4:-4], SIZE), identity(beyond, wide.value, SIZE)]


def repeated(problem, utility, grid, clipped):
    """56 sweeps from f; `clipped` moves every next stock into the window."""
    stock = (grid.nodes + problem.reward[..., None]) / problem.discount
    stock = jnp.clip(stock, grid.lattice.low, grid.lattice.high) if clipped else stock
    going = Arrivals(stock, place(grid.lattice, stock))
    signs = jnp.where(utility.tails().slope < 0, -1.0, 1.0)

    def step(value, _):
        q, *sides = stock_backup(problem, utility, grid, value, going=going)
        return StockValue(*(s * jnp.max(x, axis=-1) for s, x in zip((1.0, *signs), (q, *sides), strict=True))), None

    start = StockValue(jnp.broadcast_to(utility(grid.nodes), (3, grid.lattice.size)), jnp.zeros(3), jnp.zeros(3))
    return jax.lax.scan(step, start, None, length=56)[0]
