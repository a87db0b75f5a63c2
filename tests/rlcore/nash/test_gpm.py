"""Embeddings of skew-symmetric scores: both sign conventions, the smallest dimension, Bradley-Terry, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.preferences import bt, rps
from rlcore.nash import factorise, gpm_constructive, gpm_from_rewards, gpm_preference, gpm_score

EPS = 2.0**-52


def skew(seed, n, rank=None):
    """A random score; of the given rank if any: V R^T V^T with Gaussian V."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n, n if rank is None else rank // 2))
    return jnp.asarray(x @ y.T - y @ x.T)


def form(v, transpose):
    """v_i^T R v_j (or with R^T), R written out."""
    r = np.kron(np.eye(v.shape[1] // 2), [[0.0, -1.0], [1.0, 0.0]])
    return np.asarray(v) @ (r.T if transpose else r) @ np.asarray(v).T


@given(st.integers(0, 10_000))
def test_factorisation_in_both_conventions(seed):
    score = skew(seed, 7, rank=4)
    # eigh is backward stable: errors of some n eps |S|
    atol = 64 * 7 * EPS * float(jnp.abs(score).max())
    v = factorise(score)
    assert v.shape == (7, 4)
    np.testing.assert_allclose(form(v, transpose=True), score, rtol=0, atol=atol)
    np.testing.assert_allclose(gpm_score(v), score, rtol=0, atol=atol)
    v = factorise(score, convention="theorem")
    np.testing.assert_allclose(form(v, transpose=False), score, rtol=0, atol=atol)
    np.testing.assert_allclose(gpm_score(v), -score, rtol=0, atol=atol)
    np.testing.assert_allclose(gpm_score(gpm_constructive(score)), score, rtol=0, atol=4 * EPS * 40)


def test_rank_is_found_relative_to_the_largest_singular_value():
    assert factorise(1e-9 * skew(1, 9, rank=2)).shape == (9, 2)
    assert factorise(1e9 * skew(1, 9, rank=6)).shape == (9, 6)
    assert factorise(skew(2, 5)).shape == (5, 4)  # an odd size is singular
    assert factorise(jnp.zeros((4, 4))).shape == (4, 0)
    # repeated singular values: the circulant of five
    shift = np.roll(np.eye(5), 1, axis=0)
    score = jnp.asarray(shift - shift.T)
    np.testing.assert_allclose(gpm_score(factorise(score)), score, rtol=0, atol=64 * 5 * EPS)


def test_a_static_dimension_truncates_pads_and_lives_inside_jit_and_vmap():
    scores = jnp.stack([skew(seed, 6) for seed in range(5)])
    batched = jax.jit(jax.vmap(lambda s: factorise(s, 4)))(scores)
    for score, v in zip(scores, batched, strict=True):
        singular = np.linalg.svd(score, compute_uv=False)
        residual = np.linalg.norm(gpm_score(v) - score)
        np.testing.assert_allclose(residual, np.linalg.norm(singular[4:]), rtol=1e-10)
    padded = factorise(scores[0], 10)
    assert padded.shape == (6, 10) and not padded[:, 6:].any()
    np.testing.assert_allclose(gpm_score(padded), scores[0], rtol=0, atol=64 * 6 * EPS * 10)


def test_dtype_follows_and_scores_are_exactly_skew():
    v = factorise(skew(3, 6).astype(jnp.float32))
    assert v.dtype == jnp.float32
    score = gpm_score(v)
    assert (score == -score.T).all()


def test_bradley_terry_is_an_embedding_in_the_plane():
    rewards = jnp.array([0.3, -1.0, 2.0, 0.0])
    np.testing.assert_allclose(gpm_preference(gpm_from_rewards(rewards)), bt(rewards), rtol=0, atol=4 * EPS)
    # rewards centred: S has rank 2
    assert factorise(gpm_score(gpm_from_rewards(rewards))).shape == (4, 2)


def test_a_cycle_needs_two_dimensions_and_a_gate_weighs_the_pairs():
    wanted = rps(0.3)
    v = factorise(jnp.log(wanted) - jnp.log1p(-wanted))
    assert v.shape == (3, 2)
    np.testing.assert_allclose(gpm_preference(v), wanted, rtol=0, atol=64 * 3 * EPS)
    v = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
    gate = jnp.array([2.0, 0.5])
    np.testing.assert_allclose(
        gpm_score(v, gate), 2 * gpm_score(v[:, :2]) + 0.5 * gpm_score(v[:, 2:]), rtol=0, atol=64 * EPS * 10
    )


def test_bad_input():
    score = skew(0, 4)
    with pytest.raises(ValueError, match=r"score: found \|S \+ S\^T\|"):
        factorise(score + jnp.eye(4))
    with pytest.raises(ValueError, match="finite"):
        factorise(score.at[0, 1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"score: found shape \(4, 3\)"):
        factorise(score[:, :3])
    with pytest.raises(ValueError, match="dim: found 3"):
        factorise(score, 3)
    with pytest.raises(ValueError, match="convention: found 'paper'"):
        factorise(score, convention="paper")
    with pytest.raises(TypeError, match="dim: found None with a traced score"):
        jax.jit(factorise)(score)
    with pytest.raises(ValueError, match="embedding: found 3 coordinates"):
        gpm_score(jnp.ones((4, 3)))
