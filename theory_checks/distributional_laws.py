"""Projected laws (T12), laws that do not converge (T18), quoted constants of categorical and quantile laws (T19).

A chain of three states with two outcomes, rewards in [-1, 1] (or [0, 1]), discount g; n sweeps, so that the exact law
has 2^n atoms. d the spacing of atoms, N the number of quantiles. Proofs: docs/proofs/distributional.md.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.distributional import (
    Lattice,
    Law,
    cramer,
    cvar,
    expected_utility,
    mean,
    project_categorical,
    project_quantile,
    two_slope,
    variance,
    wasserstein,
)
from rlcore.types import Array
from theory_checks.distributional import PROOFS, derived, normalised

SWEEPS = 5
CELLS = 20
EPS = jnp.finfo(jnp.float64).eps


class Chain(NamedTuple):
    """next_state int[3, 2], prob and reward float[3, 2], a discount; probabilities of two return functions float[3, Z].

    Z = CELLS + 1.
    """

    next_state: Array
    prob: Array
    reward: Array
    discount: Array
    first: Array
    second: Array


def chain_instance(key):
    """Rewards in [0, 1], discount in [0.5, 0.9]."""
    numbers = jax.random.uniform(key, (19 + 6 * (CELLS + 1),))
    following, prob, reward = numbers[:18].reshape(3, 3, 2)
    pmf = normalised(numbers[19:].reshape(2, 3, CELLS + 1))
    return Chain(jnp.floor(3 * following).astype(int), normalised(prob), reward, 0.5 + 0.4 * numbers[18], *pmf)


def centred_instance(key):
    """Rewards in [-1, 1]."""
    chain = chain_instance(key)
    return chain._replace(reward=2 * chain.reward - 1)


def backed_up(chain, law: Law) -> Law:
    """The laws of R + g G' of all states, from those of G', [3, M] to [3, 2 M]."""
    values = chain.reward[..., None] + chain.discount * law.values[chain.next_state]
    probs = chain.prob[..., None] * law.probs[chain.next_state]
    return Law(values.reshape(3, -1), probs.reshape(3, -1))


def exact_sweeps(chain) -> Law:
    """The exact laws after 1 .. n sweeps from 0, [n, 3, 2^n] with padding, so that one program compares all."""
    law, rows = Law(jnp.zeros((3, 1)), jnp.ones((3, 1))), []
    for _ in range(SWEEPS):
        law = backed_up(chain, law)
        rows.append(jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 2**SWEEPS - x.shape[1]))), law))
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def projected_sweeps(chain, project) -> Law:
    """The kept laws after 1 .. n sweeps from 0, [n, 3, M]."""
    start = jax.vmap(project)(Law(jnp.zeros((3, 1)), jnp.ones((3, 1))))

    def step(law, _):
        new = jax.vmap(project)(backed_up(chain, law))
        return new, new

    return jax.lax.scan(step, start, None, length=SWEEPS)[1]


def last(laws):
    """After all sweeps."""
    return jax.tree.map(lambda x: x[-1], laws)


def onto(points):
    """Pi_C as a map of laws."""
    return lambda law: Law(points.points, project_categorical(law, points))


def quantiles(size, which="middle"):
    """Pi_Q as a map of laws."""
    return lambda law: Law(project_quantile(law, size, which), jnp.full(size, 1 / size))


def to_nearest(points):
    """The broken projection: all of an atom's mass to the nearest point."""

    def project(law):
        spot = points.spacing * jnp.round(law.values / points.spacing)
        return Law(points.points, project_categorical(Law(spot, law.probs), points))

    return project


def distances(order):
    """w_p of every state."""
    return jax.vmap(functools.partial(wasserstein, order=order))


# Twice sixty atoms: pieces of levels narrower than this are left out of w_2^2.
LEFT_OUT = 60 * 4 * 60 * EPS


@statement(
    "distributional/T12",
    "Pi_C, nothing clipped: same mean, 0 <= Var^ - Var <= q = (d^2/4) sum g^{2t}, w_1 <= w_2 <= sqrt q, CVaR^ <= CVaR",
    falsifiers=[
        Falsifier("the atoms cover all returns (0.4 of them)", {"cover": 0.4}, share=0.5),
        Falsifier("mass is split to keep the mean (goes to the nearest atom)", {"keep": "nearest"}, share=0.9),
        Falsifier("mass is split to keep the mean (21 quantiles)", {"keep": "quantiles"}, share=0.9),
    ],
    origin=derived("T12"),
    proof=f"{PROOFS}#t12",
    generator=centred_instance,
)
def categorical_evaluation(chain, cover=1.0, keep="split"):
    g = chain.discount
    spacing = cover * 2 / (1 - g) / CELLS
    points = Lattice(spacing, -CELLS // 2, CELLS + 1)
    project = {"split": onto(points), "nearest": to_nearest(points), "quantiles": quantiles(CELLS + 1)}[keep]
    exact, kept = last(exact_sweeps(chain)), last(projected_sweeps(chain, project))
    noise = spacing**2 / 4 * jnp.sum(g ** (2 * jnp.arange(SWEEPS)))
    size = 1 / (1 - g)
    more = jax.vmap(variance)(kept) - jax.vmap(variance)(exact)
    w1, w2 = (distances(order)(kept, exact) for order in (1, 2))
    bounds = [
        identity(jax.vmap(mean)(kept), jax.vmap(mean)(exact), SWEEPS * size),
        Bound(more, noise, SWEEPS * size**2),
        Bound(-more, 0.0, SWEEPS * size**2),
        Bound(w1, w2, SWEEPS * size, LEFT_OUT * size**2 / jnp.where(w2 > 0, w2, 1.0)),
        Bound(w2, jnp.sqrt(noise), SWEEPS * size, LEFT_OUT * size**2 / jnp.where(w2 > 0, w2, 1.0)),
    ]
    for level in (0.1, 0.5):
        tail = [jax.vmap(functools.partial(cvar, level=level))(law) for law in (kept, exact)]
        bounds.append(Bound(*tail, SWEEPS * size / level))
    return bounds


@statement(
    "distributional/T12.quantiles",
    "Pi_Q: one step w_1 <= range / (2 N), n sweeps w_1 <= (1 + g + .. + g^{n-1}) (2 R / (1 - g)) / (2 N)",
    falsifiers=[Falsifier("levels in the middle (at the lower ends)", {"which": "low"}, share=0.5)],
    origin=derived("T12"),
    proof=f"{PROOFS}#t12",
    generator=centred_instance,
)
def quantile_evaluation(chain, which="middle", size=8):
    g, far = chain.discount, 1 / (1 - chain.discount)
    points = Lattice(2 * far / CELLS, -CELLS // 2, CELLS + 1)
    laws = Law(jnp.broadcast_to(points.points, (3, CELLS + 1)), chain.first)
    project = quantiles(size, which)
    step = distances(1)(jax.vmap(project)(laws), laws)
    bounds = [Bound(step, far / size, 2 * far, trivial=2 * far)]
    found = jax.vmap(distances(1))(projected_sweeps(chain, project), exact_sweeps(chain))
    limit = jnp.cumsum(g ** jnp.arange(SWEEPS))[:, None] * far / size
    return [*bounds, Bound(found, limit, SWEEPS * far, trivial=2 * far)]


def reached(law, x):
    """P(X <= x) at many x, one state."""
    return jnp.sum(jnp.where(law.values[None] <= x[:, None], law.probs[None], 0.0), axis=-1)


@statement(
    "distributional/T12.bracket",
    "Pi_low and Pi_high, n sweeps: P(low <= x) >= P(G <= x) >= P(high <= x) at every x, and means in that order",
    falsifiers=[Falsifier("levels at the ends of cells (in the middle)", {"ends": ("middle", "middle")}, share=0.9)],
    origin=derived("T12"),
    proof=f"{PROOFS}#t12",
    generator=centred_instance,
)
def quantile_bracket(chain, ends=("low", "high"), size=8):
    exact = last(exact_sweeps(chain))
    low, high = (last(projected_sweeps(chain, quantiles(size, end))) for end in ends)
    bounds = []
    for lower, upper in ((low, exact), (exact, high)):
        # in the gaps between atoms, clear of rounding
        atoms = jnp.sort(jnp.concatenate([lower.values, upper.values], axis=1), axis=1)
        x = (atoms[:, 1:] + atoms[:, :-1]) / 2
        apart = jnp.diff(atoms, axis=1) > 1e-12
        at_most = [jax.vmap(reached)(law, x) for law in (upper, lower)]
        # cumulated weights are taken to reach a level from 1e-13 below it
        bounds.append(Bound(*at_most, 1.0, SWEEPS * 1e-13, applies=apart))
        means = [jax.vmap(mean)(law) for law in (lower, upper)]
        bounds.append(Bound(*means, SWEEPS / (1 - chain.discount), SWEEPS * 2e-13 / (1 - chain.discount)))
    return bounds


# ---- T18 -------------------------------------------------------------------------------------------------------------


class Tied(NamedTuple):
    """Mean and spread of the rewards, discount in [0.2, 0.5], the slope above 0."""

    mean: Array
    spread: Array
    discount: Array
    slope: Array


def tied_instance(key):
    """Means in [-1, 1], spreads in [0.2, 2], slopes in [-1, 1]."""
    numbers = jax.random.uniform(key, (4,))
    return Tied(2 * numbers[0] - 1, 0.2 + 1.8 * numbers[1], 0.2 + 0.3 * numbers[2], 2 * numbers[3] - 1)


@statement(
    "distributional/T18",
    "Tied actions in turn, spreads 0, y: w_1(eta_{n+1}, eta_n) >= (1 - g) y - g^n |m|, |F_{n+1} - F_n| = |a+| g^n |m|",
    falsifiers=[Falsifier("the tie rule alternates (always the one that spreads)", {"alternate": False}, share=0.95)],
    origin=derived("T18"),
    proof=f"{PROOFS}#t18",
    generator=tied_instance,
)
def no_convergence(tied, alternate=True):
    g = tied.discount
    law = Law(jnp.zeros(1), jnp.ones(1))
    utility = two_slope(tied.slope, 1.0)
    stock = 2 * (jnp.abs(tied.mean) + tied.spread) / (1 - g)
    size = 3 * stock
    laws = []
    for n in range(7):
        spread = tied.spread if n % 2 == 0 or not alternate else 0.0
        reward = tied.mean + jnp.stack([-spread, spread]) if n % 2 == 0 or not alternate else tied.mean[None]
        values = reward[:, None] + g * law.values
        law = Law(values.ravel(), (jnp.full((len(reward), 1), 1 / len(reward)) * law.probs).ravel())
        laws.append(law)
    laws = jax.tree.map(lambda *x: jnp.stack([jnp.pad(y, (0, x[-1].size - y.size)) for y in x]), *laws)
    before, after = (jax.tree.map(lambda x, cut=cut: x[cut], laws) for cut in (slice(None, -1), slice(1, None)))
    moved = g ** jnp.arange(1, 7) * jnp.abs(tied.mean)
    worth = [jax.vmap(lambda v, p: expected_utility(Law(stock + v, p), utility))(*law) for law in (before, after)]
    return [
        Bound((1 - g) * tied.spread - moved, distances(1)(before, after), size),
        identity(jnp.abs(worth[1] - worth[0]), jnp.abs(tied.slope) * moved, size),
    ]


# ---- T19 -------------------------------------------------------------------------------------------------------------

PENG = derived_here(f"{PROOFS}, T19; quoted by Peng et al. (2025) for the fixed point", "peng2025")


def unit_points(discount):
    """Z cells over [0, 1 / (1 - g)]."""
    return Lattice(1 / (1 - discount) / CELLS, 0, CELLS + 1)


@statement(
    "distributional/T19.contraction",
    "Pi_C T is a root-g contraction in the largest Cramer distance, for any two laws on the atoms",
    falsifiers=[
        Falsifier("the factor root g (g)", {"power": 1.0}, share=0.1),
        Falsifier("one chain (rewards of the second law larger by 0.2)", {"shift": 0.2}, share=0.1),
    ],
    origin=PENG,
    proof=f"{PROOFS}#t19",
    generator=chain_instance,
)
def cramer_contraction(chain, power=0.5, shift=0.0):
    points = unit_points(chain.discount)
    laws = [Law(jnp.broadcast_to(points.points, pmf.shape), pmf) for pmf in (chain.first, chain.second)]
    chains = (chain, chain._replace(reward=jnp.minimum(chain.reward + shift, 1.0)))
    after = [jax.vmap(onto(points))(backed_up(*pair)) for pair in zip(chains, laws, strict=True)]
    both = [jax.tree.map(lambda *x: jnp.concatenate(x), *pair) for pair in zip(laws, after, strict=True)]
    found = jax.vmap(cramer)(*both)
    size = (1 / (1 - chain.discount)) ** 0.5
    return Bound(found[3:], chain.discount**power * jnp.max(found[:3]), size)


@statement(
    "distributional/T19",
    "Z cells of [0, 1/(1 - g)]: l2_n^2 <= sum_k g^{n-k} l2(eta_k, Pi_C eta_k)^2, each <= d/4; w_1^2 <= 1/(4Z(1 - g)^3)",
    falsifiers=[
        Falsifier("errors add up over sweeps (the last one's)", {"accumulated": False}, share=0.3),
        Falsifier("Pi_C (to the nearest atom)", {"split": False}, share=0.3),
    ],
    origin=PENG,
    proof=f"{PROOFS}#t19",
    differs="quoted for the fixed point, and the last up to a constant",
    generator=chain_instance,
)
def categorical_rate(chain, accumulated=True, split=True):
    g, points = chain.discount, unit_points(chain.discount)
    exact, kept = exact_sweeps(chain), projected_sweeps(chain, onto(points) if split else to_nearest(points))
    far, root = 1 / (1 - g), jax.vmap(jax.vmap(cramer))
    own = jnp.max(root(jax.vmap(jax.vmap(onto(points)))(exact), exact) ** 2, axis=1)
    total = jax.lax.scan(lambda x, y: (g * x * accumulated + y,) * 2, jnp.zeros(()), own)[1]
    return [
        Bound(root(kept, exact) ** 2, total[:, None], SWEEPS * far),
        Bound(own, points.spacing / 4, SWEEPS * far),
        Bound(jax.vmap(distances(1))(kept, exact) ** 2, far**3 / (4 * CELLS), SWEEPS * far**2, trivial=far**2),
    ]


@statement(
    "distributional/T19.quantiles",
    "Pi_Q T is a g-contraction in w_infinity, for any two laws on equally likely atoms",
    falsifiers=[Falsifier("w_infinity (w_1)", {"order": 1}, share=0.02)],
    origin=derived("T19"),
    proof=f"{PROOFS}#t19",
    generator=chain_instance,
)
def quantile_contraction(chain, order=jnp.inf, size=3):
    laws = [
        Law(jnp.sort(pmf[:, :size] * 4, axis=1), jnp.full((3, size), 1 / size)) for pmf in (chain.first, chain.second)
    ]
    before = distances(order)(*laws)
    after = distances(order)(*(jax.vmap(quantiles(size))(backed_up(chain, law)) for law in laws))
    return Bound(after, chain.discount * jnp.max(before), 6.0)
