"""Return distributions with a stock: policies contract (T1), backups are monotone (T2), what greedy optimises (T3).

G the return, c the stock, c' = (c + r) / g the next one, g the discount; objective K(law of c + G). A tree is three
steps of a problem from one state and stock: 2 actions, 2 outcomes, 128 deterministic policies of the whole history.
Proofs: docs/proofs/distributional.md.
"""

import functools
import itertools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, paper_constants_not_read, statement
from rlcore.distributional import (
    Law,
    Power,
    Reach,
    almost_surely_nonnegative,
    cvar,
    essential_infimum,
    expected_utility,
    mean,
    two_slope,
    value_at_risk,
    variance,
    wasserstein,
)
from rlcore.mdp import MDP
from rlcore.types import Array

PAPER = "avilapires2025"
PROOFS = "docs/proofs/distributional.md"


def derived(number: str):
    """Proved here, for the method of Avila Pires et al."""
    return derived_here(f"{PROOFS}, {number}", PAPER)


# ---- instances -------------------------------------------------------------------------------------------------------


def normalised(uniform):
    """Dirichlet(1) along the last axis from uniform numbers: normalised exponentials."""
    x = -jnp.log1p(-uniform)
    return x / jnp.sum(x, axis=-1, keepdims=True)


def garnet(draw, discount=1.0, ending=0.0, horizon=None):
    """Uniform laws of outcomes, next states uniform, rewards in -2 .. 2; an outcome ends the episode by chance.

    draw: float[4, S, A, B], uniform on [0, 1): one call of the generator compiles faster than four.
    """
    num_states = draw.shape[1]
    return MDP(
        jnp.floor(num_states * draw[1]).astype(jnp.int32),
        normalised(draw[0]),
        jnp.floor(5 * draw[2]) - 2,
        draw[3] < ending,
        jnp.ones(draw.shape[1:3], bool),
        jnp.asarray(discount, float),
        jnp.zeros(num_states).at[0].set(1.0),
        horizon,
    )


class Start(NamedTuple):
    """A problem, its first state is 0. stock: float[], the first. which: int[], a utility of `chosen_utility`.

    scaled: float[], 1 where greedy scores g^t (c + G), 0 where it scores c + G.
    """

    problem: MDP
    stock: Array
    which: Array
    scaled: Array


def tree_instance(key, which=0, scaled=0, discounts=(1.0, 0.5)):
    """Four states, two actions, two outcomes; the first stock in -3 .. 3; one of the discounts."""
    numbers = jax.random.uniform(key, (66,))
    discount = jnp.where(numbers[0] < 0.5, discounts[0], discounts[-1])
    problem = garnet(numbers[2:].reshape(4, 4, 2, 2), discount)
    return Start(problem, jnp.floor(7 * numbers[1]) - 3, jnp.asarray(which), jnp.asarray(scaled, float))


def undiscounted_instance(key):
    """Trees of discount 1, first stock 0: for functionals that a shift of the return only shifts."""
    return tree_instance(key, discounts=(1.0,))._replace(stock=jnp.zeros(()))


# ---- trees -----------------------------------------------------------------------------------------------------------


class Tree(NamedTuple):
    """Three steps from a state and a stock. Step t has axes (a_1, o_1, .., a_t, o_t): chances, rewards, next stocks."""

    chance: tuple
    reward: tuple
    stock: tuple
    discount: Array


def grow(problem: MDP, stock, divided=True) -> Tree:
    """The tree from state 0; after an end rewards are 0. `divided` False is the broken stock c' = c + r."""
    chances, rewards, stocks = [], [], [jnp.asarray(stock)]
    state, ended = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    for _ in range(3):
        gone = ended[..., None, None]
        reward = jnp.where(gone, 0.0, problem.reward[state])
        later = stocks[-1][..., None, None] + reward
        chances.append(problem.prob[state])
        rewards.append(reward)
        stocks.append(later / problem.discount if divided else later)
        ended = gone | problem.terminal[state]
        state = problem.next_state[state]
    return Tree(tuple(chances), tuple(rewards), tuple(stocks), problem.discount)


def score(functional, values, probs):
    """A functional of laws along the last axis."""
    return jnp.vectorize(lambda v, p: functional(Law(v, p)), signature="(n),(n)->()")(values, probs)


def greedy(tree: Tree, functional, seen=True, scaled=0.0) -> Law:
    """The law of the return of the policy that is greedy for K(c + G), from the last step to the first.

    seen: whether it sees the stock that the path has made, or the first one throughout. scaled: 1 for K(g^t (c + G))
    instead, the coordinates "discounted".
    """
    values, probs = jnp.zeros((1,) * 6 + (1,)), jnp.ones((1,) * 6 + (1,))
    for t in reversed(range(3)):
        values = tree.reward[t][..., None] + tree.discount * values
        probs = tree.chance[t][..., None] * probs
        shape = (*tree.reward[t].shape[:-1], -1)
        values, probs = (jnp.broadcast_to(x, (*tree.reward[t].shape, x.shape[-1])) for x in (values, probs))
        values, probs = values.reshape(shape), probs.reshape(shape)
        stock = (tree.stock[t] if seen else jnp.broadcast_to(tree.stock[0], tree.stock[t].shape))[..., None, None]
        factor = tree.discount ** (t * scaled)
        best = jnp.argmax(score(functional, factor * (stock + values), probs), axis=-1)[..., None, None]
        values, probs = (jnp.take_along_axis(x, best, axis=-2)[..., 0, :] for x in (values, probs))
    return Law(values, probs)


# Every policy (a_1, a_2 by o_1, a_3 by o_1 and o_2) on every path of outcomes.
PATHS = np.array(list(itertools.product(range(2), repeat=3)))
POLICIES = np.array(list(itertools.product(range(2), repeat=7)))
FIRST, SECOND = PATHS[:, 0], PATHS[:, 1]
TAKEN = (
    np.broadcast_to(POLICIES[:, :1], (128, 8)),
    FIRST,
    POLICIES[:, 1 + FIRST],
    SECOND,
    POLICIES[:, 3 + 2 * FIRST + SECOND],
    PATHS[:, 2],
)


def path_laws(tree: Tree) -> tuple[Array, Array]:
    """Return and chance of every action and outcome path, float[2, 2, 2, 2, 2, 2] each, rounded as in `greedy`."""
    first, second, third = tree.reward
    later = second[..., None, None] + tree.discount * third
    total = first[(..., *(None,) * 4)] + tree.discount * later
    chance = tree.chance[0][(..., *(None,) * 4)] * (tree.chance[1][..., None, None] * tree.chance[2])
    return total, chance


def every_law(tree: Tree) -> Law:
    """The laws of the return of all 128 policies, float[128, 8]."""
    return Law(*(x[TAKEN] for x in path_laws(tree)))


def best_of_all(tree: Tree, functional):
    """max K(c + G) over all policies."""
    laws = every_law(tree)
    return jnp.max(score(functional, tree.stock[0] + laws.values, laws.probs))


# ---- T1 --------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """One state: chances and rewards float[A, B], two return functions' laws after each, two policies float[A]."""

    chance: Array
    reward: Array
    first: Law
    second: Law
    policies: Array
    discount: Array


def pair_instance(key):
    """Three actions, two outcomes, laws of four atoms, from far to near each other; discount in [0.3, 1]."""
    numbers = jax.random.uniform(key, (2 + 6 + 6 + 6 + 4 * 24,))
    near, discount, rest = 1 - numbers[0] ** 2, 0.3 + 0.7 * numbers[1], numbers[2:]
    chance, policies, reward = normalised(rest[:6].reshape(3, 2)), rest[6:12], 4 * rest[12:18].reshape(3, 2) - 2
    values, probs = rest[18:].reshape(2, 2, 3, 2, 4)
    first, second = (Law(8 * values[i] - 4, normalised(probs[i])) for i in range(2))
    second = Law(*((1 - near) * y + near * x for x, y in zip(first, second, strict=True)))
    return Pair(chance, reward, first, second, normalised(policies.reshape(2, 3)), discount)


def mixture(chance, reward, discount, law: Law) -> Law:
    """The law of R + g G, G ~ law[A, B] after the outcome."""
    return Law((reward[..., None] + discount * law.values).ravel(), (chance[..., None] * law.probs).ravel())


@statement(
    "distributional/T1",
    "w_p(T_pi eta, T_pi eta')(s, c) <= g max over successors of w_p(eta, eta'), p = 1, 2 and infinity",
    falsifiers=[
        Falsifier("one policy (another one for eta')", {"same": False}, share=0.3),
        Falsifier("one next stock (that of another path: laws exchanged)", {"moved": True}, share=0.3),
    ],
    origin=derived("T1"),
    proof=f"{PROOFS}#t1",
    generator=pair_instance,
)
def contraction(pair, same=True, moved=False):
    chance = [policy[:, None] * pair.chance for policy in (pair.policies if not same else pair.policies[:1])]
    second = Law(*(jnp.roll(x, 1, axis=0) for x in pair.second)) if moved else pair.second
    backed = [
        mixture(p, pair.reward, pair.discount, law)
        for p, law in zip((chance[0], chance[-1]), (pair.first, second), strict=True)
    ]
    size = jnp.max(jnp.abs(pair.first.values)) + jnp.max(jnp.abs(pair.second.values)) + 4.0
    # the six pairs of successors and the pair backed up, of one length: one program for all
    rows = [
        Law(*(jnp.concatenate([y.reshape(6, 4), jnp.zeros((6, 20))], axis=1) for y in law))
        for law in (pair.first, pair.second)
    ]
    rows = [
        Law(*(jnp.concatenate([x, y[None]]) for x, y in zip(*both, strict=True)))
        for both in zip(rows, backed, strict=True)
    ]
    bounds = []
    for order in (1, 2, jnp.inf):
        distance = jax.vmap(functools.partial(wasserstein, order=order))(*rows)
        found = distance[-1]
        # 48 cut points: pieces of levels narrower than 192 eps are left out, which moves w_2^2 by their share of size^2
        left_out = 48 * 192 * jnp.finfo(size.dtype).eps
        error = left_out * size**2 / jnp.where(found > 0, found, 1.0) if order == 2 else 0.0
        bounds.append(Bound(found, pair.discount * jnp.max(distance[:-1]), size, error))
    return bounds


# ---- T2 --------------------------------------------------------------------------------------------------------------


def kinked(x):
    """min(x - 1, 0): concave, kink at 1."""
    return jnp.minimum(x - 1, 0.0)


def negative_exponential(x):
    """-exp(-x)."""
    return -jnp.exp(-x)


def utility_of(f):
    """E f."""
    return functools.partial(expected_utility, utility=f)


def least(x):
    """min(x, 0)."""
    return two_slope(0.0, 1.0)(x)


def most(x):
    """max(x, 0)."""
    return two_slope(1.0, 0.0)(x)


# The first five have a degree, the next two have none, the last is the mean.
FUNCTIONS = (
    least, most, two_slope(-1.0, 1.0), Reach(), Power(2.0), negative_exponential, kinked, lambda x: x,
)  # fmt: skip


def chosen_utility(which):
    """E f for the utility of that number, which may be traced."""
    return utility_of(lambda x: jnp.select([which == i for i in range(len(FUNCTIONS))], [f(x) for f in FUNCTIONS]))


MONOTONE = (*map(utility_of, FUNCTIONS[:5]), essential_infimum, almost_surely_nonnegative)


class Backup(NamedTuple):
    """Sixteen pairs: a stock, chance and reward float[B] of its outcomes, two laws float[B, N] after each."""

    stock: Array
    chance: Array
    reward: Array
    first: Law
    second: Law


def backup_instance(key):
    """Three outcomes, laws of three atoms in quarters."""
    numbers = jax.random.uniform(key, (16, 7 + 4 * 9))
    stock, chance, reward, rest = numbers[:, 0], numbers[:, 1:4], numbers[:, 4:7], numbers[:, 7:]
    rest = rest.reshape(16, 4, 3, 3)
    laws = [Law(jnp.floor(33 * rest[:, i]) / 4 - 4, normalised(rest[:, i + 2])) for i in range(2)]
    return Backup(jnp.floor(7 * stock) - 3, normalised(chance), jnp.floor(5 * reward) - 2, *laws)


def mean_and_infimum(law):
    """E X + ess inf X."""
    return mean(law) + essential_infimum(law)


@statement(
    "distributional/T2",
    "K has (M), (G): F eta >= F eta' at the successors implies F T_pi eta >= F T_pi eta', seven functionals, g = 1/2",
    falsifiers=[
        Falsifier("(M) (CVaR at 1/2)", {"functionals": (functools.partial(cvar, level=0.5),)}, share=0.3),
        Falsifier("(G) (min(x - 1, 0))", {"functionals": (utility_of(kinked),)}, share=0.3),
        Falsifier("the stock is divided by the discount", {"divided": False}, share=0.5),
    ],
    origin=paper_constants_not_read(f"arXiv 2501.13028; conditions and proof: {PROOFS}, T2", PAPER),
    proof=f"{PROOFS}#t2",
    generator=backup_instance,
)
def monotone(instance, functionals=MONOTONE, divided=True, discount=0.5):
    stock, chance, reward, *laws = instance
    later = (stock[:, None] + reward) / (discount if divided else 1.0)
    bounds = []
    for functional in functionals:
        scores = [score(functional, later[..., None] + law.values, law.probs) for law in laws]
        swap = (scores[0] < scores[1])[..., None]
        ordered = [
            Law(*(jnp.where(swap, y, x) for x, y in zip(*pair, strict=True))) for pair in (laws, laws[::-1])
        ]  # fmt: skip
        upper, lower = (
            score(functional, stock[:, None] + law.values, law.probs)
            for law in (jax.vmap(mixture, (0, 0, None, 0))(chance, reward, discount, law) for law in ordered)
        )
        # values are at most 9 in size, the square is the largest utility
        bounds.append(Bound(lower, upper, 81.0))
    return bounds


# ---- T3: what greedy optimises, against all 128 policies of a tree ---------------------------------------------------


def size_of(tree, f):
    """The largest |f| on the tree: expectations of f are sums of terms no larger."""
    return 1.0 + jnp.max(jnp.abs(f(tree.stock[0] + path_laws(tree)[0])))


def attained(instance, functional, scale, seen=True, divided=True, scaled=None):
    """Greedy on K is as good as the best of all policies."""
    true = grow(instance.problem, instance.stock)
    scaled = instance.scaled if scaled is None else scaled
    law = greedy(grow(instance.problem, instance.stock, divided), functional, seen, scaled)
    found = functional(Law(instance.stock + law.values, law.probs))
    return identity(found, best_of_all(true, functional), size_of(true, scale))


def optimal_utility(instance, seen=True, divided=True, scaled=None):
    """One program for all utilities."""
    # |x|, x^2 and e^{-x} bound them
    scale = lambda x: 1 + x**2 + jnp.where(instance.which == 5, jnp.exp(-x), 0.0)  # noqa: E731
    return attained(instance, chosen_utility(instance.which), scale, seen, divided, scaled)


def draw(which, scaled=0, discounts=(1.0, 0.5)):
    """Trees of one utility."""
    return functools.partial(tree_instance, which=which, scaled=scaled, discounts=discounts)


def utility_statement(name, which, title, falsifiers, scaled=0):
    """Greedy on one expected utility is best of all 128 policies."""
    return statement(
        f"distributional/T3.{name}",
        title,
        falsifiers=falsifiers,
        origin=derived("T3"),
        proof=f"{PROOFS}#t3",
        generator=draw(which, scaled),
    )(optimal_utility)


def homogeneous(name, which, words, blind, undivided):
    """A utility with a degree: every discount."""
    falsifiers = [
        Falsifier("greedy sees the stock (the first one throughout)", {"seen": False}, share=blind),
        Falsifier(
            "the stock is divided by the discount (1/2)",
            {"divided": False},
            share=undivided,
            generator=draw(which, discounts=(0.5,)),
        ),
    ]
    title = f"Greedy on {words} is best of all 128 policies of three steps, g = 1 and 1/2"
    return utility_statement(name, which, title, falsifiers)


def without_degree(name, which, words):
    """A utility without one: discount 1, or the coordinates g^t c."""
    falsifier = Falsifier(
        "(G) (greedy in c + G at g = 1/2)",
        {"scaled": 0.0},
        share=0.1,
        generator=draw(which, scaled=1, discounts=(0.5,)),
    )
    title = f"{words}: greedy in g^t (c + G) is best of all 128 policies, g = 1 and 1/2; in c + G for g = 1 alone"
    return utility_statement(name, which, title, [falsifier], scaled=1)


negative = homogeneous("negative", 0, "E min(c + G, 0)", 0.1, 0.05)
positive = homogeneous("positive", 1, "E max(c + G, 0)", 0.2, 0.03)
distance = homogeneous("distance", 2, "-E |c + G|", 0.5, 0.3)
reach = homogeneous("reach", 3, "P(c + G >= 0)", 0.15, 0.05)
square = homogeneous("square", 4, "-E (c + G)^2", 0.5, 0.3)
exponential = without_degree("exponential", 5, "-E e^{-(c + G)}")
kink = without_degree("kink", 6, "E min(c + G - 1, 0)")


@statement(
    "distributional/T3.infimum",
    "Greedy on ess inf (c + G), no expected utility, is best of all 128 policies of three steps, g = 1 and 1/2",
    falsifiers=[Falsifier("(M) (the mean added)", {"functional": mean_and_infimum}, share=0.1)],
    origin=derived("T3"),
    proof=f"{PROOFS}#t3",
    generator=tree_instance,
)
def optimal_infimum(instance, functional=essential_infimum):
    return attained(instance, functional, lambda x: x)


@statement(
    "distributional/T3.surely",
    "Greedy on 1[c + G >= 0 surely], no expected utility, is best of all 128 policies of three steps, g = 1 and 1/2",
    falsifiers=[Falsifier("greedy sees the stock (the first one throughout)", {"seen": False}, share=0.03)],
    origin=derived("T3"),
    proof=f"{PROOFS}#t3",
    generator=tree_instance,
)
def optimal_safety(instance, seen=True):
    return attained(instance, almost_surely_nonnegative, lambda x: x, seen)


def from_stocks(instance, functional, stocks):
    """The best value of a functional from each first stock, by the greedy programme."""

    def value(stock):
        tree = grow(instance.problem, stock)
        law = greedy(tree, functional)
        return functional(Law(stock + law.values, law.probs))

    return jax.vmap(value)(stocks)


def searched(name, title, functional, search, share, scale=lambda x: x):
    """A functional without (M): its optimum by a search over the first stock; greedy on itself is the falsifier."""

    @statement(
        f"distributional/T3.{name}",
        title,
        falsifiers=[Falsifier("(M) (greedy on the functional itself)", {"direct": True}, share=share)],
        origin=derived("T3"),
        proof=f"{PROOFS}#t3",
        generator=undiscounted_instance,
    )
    def claim(instance, direct=False):
        tree = grow(instance.problem, instance.stock)
        found = functional(greedy(tree, functional)) if direct else search(instance, tree)
        return identity(found, best_of_all(tree, functional), size_of(tree, scale))

    return claim


HALF = 0.5


def search_cvar(instance, tree):
    """max_b b + E min(G - b, 0) / level over all returns b."""
    b = path_laws(tree)[0].ravel()
    return jnp.max(b + from_stocks(instance, utility_of(least), -b) / HALF)


def search_median(instance, tree):
    """The largest return b with P(G >= b) >= 1/2."""
    b = path_laws(tree)[0].ravel()
    return jnp.max(jnp.where(from_stocks(instance, utility_of(Reach()), -b) >= HALF, b, -jnp.inf))


def bent(x):
    """x - x^2 / 2."""
    return x - x**2 / 2


def search_variance(instance, tree):
    """max_b b + E f(G - b), f(x) = x - x^2 / 2, over the means b of all policies."""
    laws = every_law(tree)
    b = jax.vmap(mean)(laws)
    return jnp.max(b + from_stocks(instance, utility_of(bent), -b))


LOST = -1e6


def mean_if_surely(law):
    """E X if X >= 0 surely, else a number below all means."""
    return jnp.where(almost_surely_nonnegative(law) > 0, mean(law), LOST)


def search_infimum(instance, tree):
    """max_b 2 b + E (G - b) among policies with G >= b surely, over all returns b."""
    b = path_laws(tree)[0].ravel()
    return jnp.max(2 * b + from_stocks(instance, mean_if_surely, -b))


best_cvar = searched(
    "cvar",
    "CVaR at 1/2: the search over first stocks with f = min(x, 0) is best of all 128 policies of three steps, g = 1",
    functools.partial(cvar, level=HALF),
    search_cvar,
    0.1,
)
best_median = searched(
    "median",
    "Median: the largest b with max P(G >= b) >= 1/2, one programme for each stock -b, is best of all 128 policies",
    functools.partial(value_at_risk, level=HALF),
    search_median,
    0.1,
)
best_mean_variance = searched(
    "variance",
    "Mean less half the variance: max over b of b + E f(G - b), f(x) = x - x^2 / 2, is best of all 128 policies",
    lambda law: mean(law) - variance(law) / 2,
    search_variance,
    0.2,
    scale=jnp.square,
)
best_mean_infimum = searched(
    "mean+infimum",
    "Mean plus ess inf: max over b of b + E G among policies with G >= b surely is best of all 128 policies",
    mean_and_infimum,
    search_infimum,
    0.1,
)


# ---- T3: the two hand instances --------------------------------------------------------------------------------------


class Hand(NamedTuple):
    """size: float[] > 0, multiplies all rewards; shift: float[], added to the rewards at the end."""

    size: Array
    shift: Array


def hand_instance(key):
    """Sizes in [0.2, 5], shifts in [-3, 3]."""
    a, b = jax.random.uniform(key, (2,))
    return Hand(0.2 + 4.8 * a, 6 * b - 3)


@statement(
    "distributional/T3.mixtures",
    "-10 w.p. 1/2, else A (-1 w.p. 1/5, 1) or B (0): greedy on CVaR at 3/5 takes A, -17/2, and loses 1/6 to B, -25/3",
    falsifiers=[Falsifier("greedy on CVaR itself (on min(c + G, 0) from the best stock)", {"stock": True}, share=0.95)],
    origin=derived("T3"),
    proof=f"{PROOFS}#t3",
    generator=hand_instance,
)
def hand_mixtures(hand, stock=False):
    level = Fraction(3, 5)
    # the worst 3/5 of each law, in fractions
    exact = {
        "A": (Fraction(1, 2) * -10 + Fraction(1, 10) * -1) / level,
        "B": (Fraction(1, 2) * -10 + Fraction(1, 10) * 0) / level,
    }
    risk = functools.partial(cvar, level=float(level))
    local = [Law(jnp.array([-1.0, 1.0]), jnp.array([0.2, 0.8])), Law(jnp.array([0.0, 0.0]), jnp.array([0.5, 0.5]))]
    local = [Law(hand.size * law.values + hand.shift, law.probs) for law in local]
    other = -10 * hand.size + hand.shift
    whole = [Law(jnp.append(law.values, other), jnp.append(law.probs / 2, 0.5)) for law in local]
    if stock:
        # the first stock is minus a quantile of B, and the second step sees it
        scores = jnp.stack([jnp.sum(law.probs * jnp.minimum(law.values - hand.shift, 0.0)) for law in local])
    else:
        scores = jnp.stack([risk(law) for law in local])
    chosen = jnp.where(scores[0] > scores[1], risk(whole[0]), risk(whole[1]))
    size = 10 * hand.size + jnp.abs(hand.shift)
    return [
        identity(chosen, hand.size * float(exact["A"]) + hand.shift, size),
        identity(risk(whole[1]) - chosen, hand.size * float(exact["B"] - exact["A"]), 2 * size),
    ]


@statement(
    "distributional/T3.discount",
    "g = 1/2, f = min(x, 1), no reward, then A = 1 or B in {1/5, 3}: greedy takes A, 1/2, and loses 1/20 to B, 11/20",
    falsifiers=[Falsifier("stocks c (g^t c, which any utility allows)", {"scaled": True}, share=0.95)],
    origin=derived("T3"),
    proof=f"{PROOFS}#t3",
    generator=hand_instance,
)
def hand_discount(hand, scaled=False):
    half = Fraction(1, 2)
    exact = {
        "A": min(half * 1, Fraction(1)),
        "B": half * min(half * Fraction(1, 5), Fraction(1)) + half * min(half * 3, Fraction(1)),
    }
    f = lambda x: jnp.minimum(x, hand.size)  # noqa: E731
    values = hand.size * jnp.array([[1.0, 1.0], [0.2, 3.0]])
    factor = 0.5 if scaled else 1.0
    scores = jnp.mean(f(factor * values), axis=1)
    worth = jnp.mean(f(0.5 * values), axis=1)
    chosen = jnp.where(scores[0] > scores[1], worth[0], worth[1])
    return [
        identity(chosen, hand.size * float(exact["A"]), 3 * hand.size),
        identity(worth[1] - chosen, hand.size * float(exact["B"] - exact["A"]), 3 * hand.size),
    ]
