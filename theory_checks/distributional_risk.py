"""Searches over the first stock: CVaR (T15), optimistic CVaR and its coin (T16), roots (T17).

On trees of three steps, 128 policies. t is the level, h(c) = -c + V(c) / t, V the optimal E f(c + G).
Proofs: docs/proofs/distributional.md.
"""

import functools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, identity, statement
from rlcore.distributional import (
    Law,
    Power,
    Reach,
    cvar,
    expectile,
    optimistic_cvar,
    stock_vi,
    two_slope,
    value_at_risk,
    variance,
)
from rlcore.mdp import MDP
from rlcore.types import Array
from theory_checks.distributional import (
    PROOFS,
    Hand,
    Start,
    derived,
    every_law,
    from_stocks,
    greedy,
    grow,
    hand_instance,
    least,
    mean,
    most,
    path_laws,
    score,
    tree_instance,
    utility_of,
)
from theory_checks.distributional_scalar import WINDOW, sloped_instance

SIZE = 6.0  # returns of three steps


class Risk(NamedTuple):
    """A tree of discount 1 from stock 0, a level in [0.1, 0.9], and a shift of a coarse grid in [0, 1]."""

    start: Start
    level: Array
    shift: Array


def risk_instance(key):
    """No ends; horizon 3 for the library's solver."""
    sloped = sloped_instance(key)
    problem = sloped.start.problem
    problem = MDP(
        problem.next_state, problem.prob, problem.reward, jnp.zeros_like(problem.terminal), problem.available,
        jnp.ones(()), problem.initial, 3,
    )  # fmt: skip
    numbers = (sloped.slopes + 1) / 2
    return Risk(sloped.start._replace(problem=problem, stock=jnp.zeros(())), 0.1 + 0.8 * numbers[0], numbers[1])


# ---- T15 -------------------------------------------------------------------------------------------------------------


def split_instance(key):
    """By chance 3, or else 0 (A) or -2 or 6 (B), as one chooses: B is better at levels of about 3/5.

    Which of A and B the recursion over levels takes hangs on a level at which both are worth the same.
    """
    numbers = jax.random.uniform(key, (2,))
    instance = risk_instance(key)
    problem = instance.start.problem
    lose = 0.4925 + 0.0075 * numbers[0]
    next_state = jnp.full((4, 2, 2), 3).at[0].set(jnp.array([[1, 2], [1, 2]]))
    prob = jnp.full((4, 2, 2), 0.5).at[1, 1].set(jnp.stack([lose, 1 - lose]))
    reward = jnp.zeros((4, 2, 2)).at[1, 1].set(jnp.array([-2.0, 6.0])).at[2].set(3.0)
    problem = MDP(
        next_state, prob, reward, problem.terminal, problem.available, problem.discount, problem.initial, 3
    )  # fmt: skip
    return instance._replace(start=instance.start._replace(problem=problem), level=0.56 + 0.08 * numbers[1])


LEVELS = np.linspace(0.0, 1.0, 33)


def on_levels(curve, level):
    """A curve at any level, linear between LEVELS."""
    at = level * (LEVELS.size - 1)
    index = jnp.clip(jnp.floor(at), 0, LEVELS.size - 2).astype(int)
    return curve[index] + (at - index) * (curve[index + 1] - curve[index])


def split(chance, reward, later, level):
    """The adversary of Chow et al.: levels y_i with sum p_i y_i = y that minimise sum p_i (r_i y_i + u_i(y_i)).

    chance, reward: float[2]; later: float[2, K], y times the value after each outcome, at LEVELS, linear between.
    Returns (value, levels float[2]); exact for these curves, whose kinks are candidates.
    """
    p, q = chance
    first = jnp.concatenate([LEVELS, (level - q * LEVELS) / p])
    second = jnp.concatenate([(level - p * LEVELS) / q, LEVELS])
    # at level 1 both are 1 up to rounding
    lowest, highest = jnp.minimum(first, second), jnp.maximum(first, second)
    allowed = (lowest >= -1e-12) & (highest <= 1 + 1e-12)
    first, second = (jnp.clip(x, 0, 1) for x in (first, second))
    cost = p * (reward[0] * first + on_levels(later[0], first))
    cost = cost + q * (reward[1] * second + on_levels(later[1], second))
    best = jnp.argmin(jnp.where(allowed, cost, jnp.inf))
    return cost[best], jnp.stack([first[best], second[best]])


def level_choice(chance, reward, later, level):
    """The best action of a node at a level, and the levels after its outcomes."""
    # at level 0 all costs are 0: the worst case decides, as it does just above
    level = jnp.maximum(level, 1e-6)
    value, levels = jax.vmap(split, (0, 0, 0, None))(chance, reward, later, level)
    best = jnp.argmax(value)
    return value[best], best, levels[best]


def level_policy(tree, level):
    """The recursion over risk levels at the tree's root: (the CVaR that it claims, the law of its policy)."""
    curves = jnp.zeros((2,) * 6 + (LEVELS.size,))
    kept = []
    for t in reversed(range(3)):
        kept.append(curves)
        if t == 0:
            break
        nodes = (
            tree.chance[t].reshape(-1, 2, 2),
            tree.reward[t].reshape(-1, 2, 2),
            curves.reshape(-1, 2, 2, LEVELS.size),
        )
        over_levels = jax.vmap(
            lambda p, r, u: jax.vmap(lambda y: jnp.max(jax.vmap(split, (0, 0, 0, None))(p, r, u, y)[0]))(LEVELS)
        )
        curves = over_levels(*nodes).reshape(*tree.chance[t].shape[:-2], LEVELS.size)
    after = kept[::-1]
    values, probs = [], []
    claimed, a1, y1 = level_choice(tree.chance[0], tree.reward[0], after[0], level)
    for o1 in range(2):
        here = (a1, o1)
        _, a2, y2 = level_choice(tree.chance[1][here], tree.reward[1][here], after[1][here], y1[o1])
        for o2 in range(2):
            there = (a1, o1, a2, o2)
            _, a3, _ = level_choice(tree.chance[2][there], tree.reward[2][there], after[2][there], y2[o2])
            total = tree.reward[0][here] + tree.reward[1][there] + tree.reward[2][(*there, a3)]
            values.append(total)
            probs.append(tree.chance[0][here] * tree.chance[1][there] * tree.chance[2][(*there, a3)])
    return claimed / level, Law(jnp.concatenate(values), jnp.concatenate(probs))


@statement(
    "distributional/T15",
    "max CVaR_t of 128 policies = max_c h(c), f = min(x, 0); greedy from the best c* attains it; -c* is its quantile",
    falsifiers=[
        Falsifier("greedy sees the stock (the first one throughout)", {"method": "frozen"}, share=0.08),
        Falsifier(
            "a stock (risk levels, Chow et al. 2015, 33 of them)",
            {"method": "levels"},
            share=0.9,
            generator=split_instance,
        ),
    ],
    origin=derived("T15"),
    proof=f"{PROOFS}#t15",
    generator=risk_instance,
)
def best_cvar(instance, method="stock"):
    tree, level = grow(instance.start.problem, instance.start.stock), instance.level
    risk = functools.partial(cvar, level=level)
    best = jnp.max(score(risk, *every_law(tree)))
    solution = stock_vi(instance.start.problem, two_slope(0.0, 1.0), WINDOW)
    search = -WINDOW.nodes + solution.value.value[0, 0] / level
    stock = WINDOW.nodes[jnp.argmax(search)]
    if method == "levels":
        law = level_policy(tree, level)[1]
    else:
        law = greedy(grow(instance.start.problem, stock), utility_of(least), seen=method == "stock")
    size = SIZE / level
    below = jnp.sum(jnp.where(law.values < -stock - 1e-9, law.probs, 0.0))
    up_to = jnp.sum(jnp.where(law.values <= -stock + 1e-9, law.probs, 0.0))
    bounds = [identity(jnp.max(search), best, size), Bound(best, risk(law), size)]
    if method == "stock":
        bounds += [Bound(below, level, 1.0), Bound(level, up_to, 1.0)]
    return bounds


@statement(
    "distributional/T15.grid",
    "First stocks at spacing d lose <= (1 - t) d; an error x of V costs <= 2 x / t more through the choice of c",
    falsifiers=[
        Falsifier("the spacing counts (as 0)", {"spacing_counts": 0.0}, share=0.5),
        Falsifier("the error of V counts (as 0)", {"error_counts": 0.0}, share=0.1),
    ],
    origin=derived("T15"),
    proof=f"{PROOFS}#t15",
    generator=risk_instance,
)
def coarse_search(instance, spacing_counts=1.0, error_counts=1.0, spacing=0.9, error=0.2):
    level = instance.level
    tree = grow(instance.start.problem, instance.start.stock)
    best = jnp.max(score(functools.partial(cvar, level=level), *every_law(tree)))
    stocks = -SIZE - spacing + spacing * (jnp.arange(16) + instance.shift)
    search = -stocks + from_stocks(instance.start, utility_of(least), stocks) / level
    lost = spacing_counts * (1 - level) * spacing
    # the worst errors: up and down in turn
    noisy = search + error / level * jnp.where(jnp.arange(16) % 2 == 0, 1, -1)
    size = (2 * SIZE + error) / level
    return [
        Bound(best - jnp.max(search), lost, size),
        Bound(best - search[jnp.argmax(noisy)], lost + error_counts * 2 * error / level, size),
    ]


# ---- T16 -------------------------------------------------------------------------------------------------------------


@statement(
    "distributional/T16.instance",
    "A: 10 w.p. 1/10, else 0; B: 5; t = 1/5: each has 5, a coin of 8/9 for A has 65/9, the minimum of h, at b = 40/9",
    falsifiers=[Falsifier("a coin (A alone)", {"weight": Fraction(1)}, share=0.95)],
    origin=derived("T16"),
    proof=f"{PROOFS}#t16",
    generator=hand_instance,
)
def coin_instance(hand: Hand, weight=Fraction(8, 9)):
    level, w = Fraction(1, 5), float(weight)
    b = Fraction(40, 9)
    exact = b + max(Fraction(1, 10) * (10 - b), 5 - b) / level
    law = Law(hand.size * jnp.array([10.0, 0.0, 5.0]) + hand.shift, jnp.array([w / 10, 9 * w / 10, 1 - w]))
    found = optimistic_cvar(law, float(level))
    grid = jnp.linspace(0.0, 10.0, 91)
    dual = grid + jnp.maximum(0.1 * (10 - grid), jnp.maximum(5 - grid, 0.0)) / float(level)
    # the best fifth: numbers of ten sizes and a shift, divided by 1/5
    size = 5 * (10 * hand.size + jnp.abs(hand.shift))
    alone = optimistic_cvar(Law(law.values[:2], jnp.array([0.1, 0.9])), float(level))
    return [
        identity(found, hand.size * float(exact) + hand.shift, size),
        Bound(found, hand.size * dual + hand.shift, size),
        identity(alone, 5 * hand.size + hand.shift, size),
    ]


@statement(
    "distributional/T16",
    "Optimistic CVaR: min_c -c + V(c) / t, f = max(x, 0), is attained by a coin between two greedy policies at c*",
    falsifiers=[Falsifier("a coin (the best of 128 policies)", {"coin": False}, share=0.1)],
    origin=derived("T16"),
    proof=f"{PROOFS}#t16",
    generator=risk_instance,
)
def best_optimistic_cvar(instance, coin=True):
    tree, level = grow(instance.start.problem, instance.start.stock), instance.level
    risk = functools.partial(optimistic_cvar, level=level)

    def follow(b):
        law = greedy(grow(instance.start.problem, -b), utility_of(most))
        beyond = jnp.sum(jnp.where(law.values > b, law.probs, 0.0))
        return law, beyond, b + jnp.sum(law.probs * jnp.maximum(law.values - b, 0.0)) / level

    def halve(ends, _):
        middle = jnp.mean(ends)
        rises = follow(middle)[1] <= level
        return jnp.where(rises, jnp.stack([ends[0], middle]), jnp.stack([middle, ends[1]])), None

    ends = jax.lax.scan(halve, jnp.array([-SIZE - 1, SIZE]), None, length=56)[0]
    low, high = (follow(b) for b in ends)
    # P(G > b) exceeds the level for the policy from the lower b and does not for the other: mixed, it is the level
    weight = (level - high[1]) / (low[1] - high[1])
    both = [jnp.concatenate([x, y]) for x, y in zip(low[0], high[0], strict=True)]
    mixed = Law(both[0], both[1] * jnp.repeat(jnp.stack([weight, 1 - weight]), 8))
    laws = every_law(tree)
    alone = jnp.max(score(risk, *laws))
    size = SIZE / level
    found = risk(mixed) if coin else alone
    # h has slopes within 1 / t: its minimum is that close to its value at either end; weights divide by a difference
    error = (ends[1] - ends[0]) / level
    return [identity(found, high[2], 2 * size, error), Bound(alone, high[2], 2 * size, error)]


# ---- T17 -------------------------------------------------------------------------------------------------------------


@statement(
    "distributional/T17",
    "The best expectile of 128 policies is the root e of V(-e) = 0, f with slopes (q, 1 - q), at g = 1 and 1/2",
    falsifiers=[Falsifier("greedy sees the stock (the first one throughout)", {"seen": False}, share=0.03)],
    origin=derived("T17"),
    proof=f"{PROOFS}#t17",
    generator=lambda key: (tree_instance(key), 0.1 + 0.8 * jax.random.uniform(jax.random.fold_in(key, 1))),
)
def best_expectile(instance, seen=True):
    start, q = instance
    tree = grow(start.problem, jnp.zeros(()))
    best = jnp.max(score(functools.partial(expectile, level=q), *every_law(tree)))
    functional = utility_of(two_slope(q, 1 - q))

    def follow(e):
        law = greedy(grow(start.problem, -e), functional, seen)
        return functional(Law(law.values - e, law.probs)), law

    def halve(ends, _):
        middle = jnp.mean(ends)
        enough = follow(middle)[0] >= 0
        return jnp.where(enough, jnp.stack([middle, ends[1]]), jnp.stack([ends[0], middle])), None

    ends = jax.lax.scan(halve, jnp.array([-SIZE - 1, SIZE + 1]), None, length=56)[0]
    attained = expectile(follow(ends[0])[1], q)
    # values are sums of numbers up to 7; V falls at a rate of at least min(q, 1 - q)
    size = (SIZE + 1) / jnp.minimum(q, 1 - q)
    error = ends[1] - ends[0]
    return [identity(ends[0], best, size, error), identity(attained, best, size, error)]


@statement(
    "distributional/T17.quantile",
    "The best quantile of level t of 128 policies is the largest return b with max P(G >= b) >= 1 - t",
    falsifiers=[Falsifier("one programme for each b (that of b = 0 serves all)", {"own": False}, share=0.1)],
    origin=derived("T17"),
    proof=f"{PROOFS}#t17",
    generator=risk_instance,
)
def best_quantile(instance, own=True):
    tree, level = grow(instance.start.problem, instance.start.stock), instance.level
    best = jnp.max(score(functools.partial(value_at_risk, level=level), *every_law(tree)))
    returns = path_laws(tree)[0].ravel()
    if own:
        chance = from_stocks(instance.start, utility_of(Reach()), -returns)
    else:
        law = greedy(tree, utility_of(Reach()))
        chance = jnp.sum(jnp.where(law.values >= returns[:, None], law.probs, 0.0), axis=-1)
    found = jnp.max(jnp.where(chance >= 1 - level, returns, -jnp.inf))
    return identity(jnp.maximum(found, -SIZE), best, SIZE)


@statement(
    "distributional/T17.variance",
    "The least variance of 128 policies is min_b -V(-b), f = -x^2, over the means b of policies",
    falsifiers=[Falsifier("greedy sees the stock (-b throughout)", {"seen": False}, share=0.1)],
    origin=derived("T17"),
    proof=f"{PROOFS}#t17",
    generator=risk_instance,
)
def least_variance(instance, seen=True):
    tree = grow(instance.start.problem, instance.start.stock)
    laws = every_law(tree)
    best = jnp.min(score(variance, *laws))
    square = utility_of(Power(2.0))

    def value(b):
        law = greedy(grow(instance.start.problem, -b), square, seen)
        return -square(Law(law.values - b, law.probs))

    found = jnp.min(jax.vmap(value)(score(mean, *laws)))
    return identity(found, best, SIZE**2)


@statement(
    "distributional/T17.omega",
    "The best E (G - b)_+ / E (b - G)_+ of 128 policies is the root l of V(-b) = 0 for slopes (1, l)",
    falsifiers=[Falsifier("greedy sees the stock (-b throughout)", {"seen": False}, share=0.1)],
    origin=derived("T17"),
    proof=f"{PROOFS}#t17",
    generator=risk_instance,
)
def best_omega(instance, seen=True):
    tree = grow(instance.start.problem, instance.start.stock)
    values, probs = every_law(tree)
    # above what any policy earns surely: a policy that loses nothing has no ratio
    surely = jnp.max(jnp.min(jnp.where(probs > 0, values, jnp.inf), axis=-1))
    b = jnp.floor(surely) + 1 + jnp.floor(2 * instance.shift)
    gain, loss = (jnp.sum(probs * jnp.maximum(x, 0.0), axis=-1) for x in (values - b, b - values))
    least = jnp.min(loss)
    applies = (least >= 1e-4) & (jnp.max(gain) > 0)
    best = jnp.max(jnp.where(applies, gain / jnp.where(loss > 0, loss, 1.0), 1.0))
    tree = grow(instance.start.problem, -b)

    def dinkelbach(ratio, _):
        law = greedy(tree, utility_of(two_slope(1.0, ratio)), seen)
        parts = [jnp.sum(law.probs * jnp.maximum(x, 0.0)) for x in (law.values - b, b - law.values)]
        return parts[0] / jnp.where(parts[1] > 0, parts[1], 1.0), None

    # each step is the best policy's ratio: it never falls, and there are at most 128
    found = jax.lax.scan(dinkelbach, jnp.zeros(()), None, length=12)[0]
    # a quotient of numbers up to 10 by at least the least loss
    scale = 10 * (1 + best) / jnp.where(applies, least, 1.0)
    return identity(jnp.where(applies, found, 1.0), best, scale, applies=applies)
