"""Preference games: embeddings of skew-symmetric scores (T14).

S is a skew-symmetric score, V an embedding with rows v_i, R = blockdiag([[0, -1], [1, 0]]) turns a vector by a right
angle; the score of a pair is <R v_i, v_j>. Proofs: docs/proofs/nash.md, T14.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.claims import Bound, Falsifier, derived_here, identity, paper, statement
from rlcore.nash import bradley_terry, factorise, gpm_constructive, gpm_score
from rlcore.types import Array

GPM = "zhang2025gpm"
RANKS = [{"n": 5, "k": 1}, {"n": 9, "k": 3}]


def random_score(key, n, k):
    """A skew-symmetric score of rank 2 k with singular values in [1, 5], each twice, in random planes."""
    a, b = jax.random.split(key)
    planes, _ = jnp.linalg.qr(jax.random.normal(a, (n, 2 * k)))
    values = jax.random.uniform(b, (k,), minval=1.0, maxval=5.0)
    half = (planes[:, 0::2] * values) @ planes[:, 1::2].T
    return half - half.T


def any_score(key, n):
    """A skew-symmetric score with normal entries."""
    lower = jnp.tril(jax.random.normal(key, (n, n)), -1)
    return lower - lower.T


def quarter_turn(v):
    """R v for every row."""
    return jnp.stack([-v[:, 1::2], v[:, 0::2]], axis=2).reshape(v.shape)


def rounding(score):
    """What eigenvectors and products of n terms round: n times the largest singular value, n + 1 planes."""
    n = score.shape[0]
    return n * (n + 1) * jnp.linalg.norm(score)


def exchanged(score):
    """The embedding with the two coordinates of each plane exchanged."""
    v = gpm_constructive(score)
    return v.reshape(-1, 2)[:, ::-1].reshape(v.shape)


@statement(
    "nash/T14",
    "Every skew-symmetric S is the score of an embedding in 2n dimensions: block l of v_i is (S_il / 2, delta_il)",
    falsifiers=[
        Falsifier("S + S^T = 0 (a symmetric part of a tenth)", {"symmetric": 0.1}, share=0.95),
        Falsifier("the order inside a plane (exchanged: the theorem's sign)", {"embed": exchanged}, share=0.95),
    ],
    origin=paper("Zhang et al., arXiv 2410.02197, Theorem 4.4 (expressiveness); the embedding is ours", GPM),
    proof="docs/proofs/nash.md#t14",
    differs="the score is the model's definition <R v_i, v_j>; the theorem's v_i^T R v_j has the other sign",
    generator=any_score,
    cases=[{"n": 4}, {"n": 9}],
)
def constructive_embedding(score, symmetric=0.0, embed=gpm_constructive):
    score = score + symmetric * jnp.abs(score)
    return identity(gpm_score(embed(score)), score, jnp.max(jnp.abs(score)))


@statement(
    "nash/T14.rank",
    "rank(S) dimensions suffice: factorise(S) has that many, and its score is S",
    falsifiers=[Falsifier("rank(S) dimensions (two fewer)", {"fewer": 2}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T14", GPM),
    proof="docs/proofs/nash.md#t14",
    generator=random_score,
    cases=RANKS,
)
def rank_suffices(score, fewer=0):
    n = score.shape[0]
    rank = {5: 2, 9: 6}[n]
    return identity(gpm_score(factorise(score, rank - fewer)), score, rounding(score))


@statement(
    "nash/T14.residual",
    "Two dimensions too few: the best |S - score(V)|_F is sqrt(2) times the least nonzero singular value",
    falsifiers=[Falsifier("two dimensions too few (rank(S) of them)", {"fewer": 0}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T14", GPM),
    proof="docs/proofs/nash.md#t14",
    generator=random_score,
    cases=RANKS,
)
def rank_is_needed(score, fewer=2):
    n = score.shape[0]
    rank = {5: 2, 9: 6}[n]
    least = jnp.linalg.svd(score, compute_uv=False)[rank - 1]
    best = factorise(score, rank - fewer)
    # Around the best embedding, and far from it.
    noise = jax.random.normal(jax.random.key(n), (4, *best.shape))
    size = jnp.array([0.0, 1e-3, 0.1, 2.0])
    left = jax.vmap(lambda d, x: jnp.linalg.norm(score - gpm_score(best + d * x)))(size, noise)
    scale = rounding(score) * (1 + jnp.max(size * jnp.max(jnp.abs(noise), axis=(1, 2), initial=0.0)) ** 2)
    return [
        Bound(jnp.sqrt(2.0) * least, left, scale),
        Bound(left[0], jnp.sqrt(2.0) * least, rounding(score)),
    ]


class Pair(NamedTuple):
    """Two embeddings and a linear map of the same dimension."""

    embedding: Array
    map: Array


def random_pair(key, n):
    """Two normal vectors of n coordinates, and a skew-symmetric map that is no quarter turn."""
    return Pair(jax.random.normal(key, (2, n)), any_score(jax.random.fold_in(key, 1), n))


@statement(
    "nash/T14.norm",
    "|R v| = |v|, so a score is at most |v_i| |v_j|, and at most 1 for unit embeddings",
    falsifiers=[Falsifier("R is a quarter turn (some other skew-symmetric map)", {"turn": False}, share=0.95)],
    origin=paper("Zhang et al., arXiv 2410.02197, section 4", GPM),
    proof="docs/proofs/nash.md#t14",
    generator=random_pair,
    cases=[{"n": 2}, {"n": 8}],
)
def magnitude(pair, turn=True):
    v = pair.embedding
    turned = quarter_turn(v) if turn else v @ pair.map.T
    norms, after = jnp.linalg.norm(v, axis=1), jnp.linalg.norm(turned, axis=1)
    unit = v / norms[:, None]
    product = norms[0] * norms[1]
    score = turned[0] @ v[1]
    return [
        identity(after, norms, jnp.sum(norms)),
        identity(score, gpm_score(v)[0, 1], product),
        Bound(jnp.abs(score), product, product),
        Bound(jnp.abs(gpm_score(unit)[0, 1]), 1.0, 1.0),
    ]


def random_cycle(key):
    """Scores of a cycle of three, 1 over 2 over 3 over 1, each between 0.1 and 4."""
    a, b, c = jax.random.uniform(key, (3,), minval=0.1, maxval=4.0)
    zero = jnp.zeros(())
    return jnp.stack([jnp.stack([zero, a, -c]), jnp.stack([-a, zero, b]), jnp.stack([c, -b, zero])])


def by_rewards(score):
    """Scores of the Bradley-Terry model fitted to the win probabilities."""
    rewards = bradley_terry(jax.nn.sigmoid(score)).value
    return rewards[:, None] - rewards[None, :]


def by_embedding(score):
    """Scores of the two-dimensional embedding."""
    return gpm_score(factorise(score, 2))


def accuracy(predicted, score):
    """Share of the three pairs whose winner is predicted; a predicted tie counts one half."""
    pairs = (jnp.array([0, 1, 2]), jnp.array([1, 2, 0]))
    # Fitted rewards that tie differ by rounding only.
    right = jnp.sign(jnp.where(jnp.abs(predicted) > 1e-9, predicted, 0))[pairs] * jnp.sign(score)[pairs]
    return jnp.mean((1 + right) / 2)


@statement(
    "nash/T14.cycle",
    "On a cycle of three no rewards predict more than 2/3 of the winners; an embedding in the plane predicts all",
    falsifiers=[
        Falsifier("the preferences cycle (one pair reversed)", {"cyclic": False}, share=0.85),
        Falsifier("the model has rewards (an embedding in the plane)", {"model": by_embedding}, share=0.95),
    ],
    origin=derived_here("docs/proofs/nash.md, T14; the paper's cyclic sets have 50% to 63% against 100%", GPM),
    proof="docs/proofs/nash.md#t14",
    generator=random_cycle,
)
def cycles_need_the_plane(score, cyclic=True, model=by_rewards):
    reversed_pair = score.at[2, 0].multiply(-1).at[0, 2].multiply(-1)
    asked = score if cyclic else reversed_pair
    return [
        Bound(accuracy(model(asked), asked), 2 / 3, 1.0, trivial=1.0),
        identity(accuracy(by_embedding(score), score), 1.0, 1.0),
    ]
