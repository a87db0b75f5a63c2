"""General preference embeddings: scores that are skew-symmetric forms of vectors, so that preferences may cycle.

A response is a vector v of even length, made of pairs (x_l, y_l). With R = blockdiag([[0, -1], [1, 0]]) the score is
s(i > j) = <R v_i, v_j> = sum_l x_il y_jl - y_il x_jl, and P = sigmoid(s).

Sign. The model's definition, used here, is <R v_i, v_j> = v_i^T R^T v_j; its theorem of expressiveness is written
v_i^T R v_j, the opposite sign. Swapping x and y turns one into the other.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.types import Array, Float

__all__ = ["factorise", "gpm_constructive", "gpm_from_rewards", "gpm_preference", "gpm_score", "logistic"]

CONVENTIONS = ("definition", "theorem")


def logistic(score: Float[Array, "..."]) -> Float[Array, "..."]:
    """sigmoid(score), with logistic(s) + logistic(-s) = 1 to one rounding.

    Args: score: float[...], in logits. Returns: float[...]. Source: derived: tanh is odd in floating point. Cost: O(1).
    """
    return 0.5 + 0.5 * jnp.tanh(score / 2)


def gpm_score(embedding: Float[Array, "n dim"], gate: Float[Array, " half"] | None = None) -> Float[Array, "n n"]:
    """Scores of all pairs, s(i > j) = <R D v_i, D v_j>; exactly skew-symmetric.

    Args: embedding: float[n, dim], dim even, pairs (x_l, y_l) side by side; gate: float[dim / 2] >= 0, the squares
      lambda_l of the prompt gate D = blockdiag(sqrt(lambda_l) I_2), all 1 by default.
    Returns: float[n, n], in logits.
    Raises: ValueError for an odd dim.
    Source: Zhang et al. (2025), "Beyond Bradley-Terry", arXiv 2410.02197, section 4: the definition, not the theorem's
      sign. Cost: n^2 dim.
    """
    if embedding.shape[-1] % 2:
        raise ValueError(f"embedding: found {embedding.shape[-1]} coordinates, expected an even number")
    x, y = embedding[..., 0::2], embedding[..., 1::2]
    half = jnp.matmul(x if gate is None else x * gate[None, :], y.T, precision="highest")
    return half - half.T


def gpm_preference(embedding: Float[Array, "n dim"], gate: Float[Array, " half"] | None = None) -> Float[Array, "n n"]:
    """Win probabilities of an embedding, sigmoid of `gpm_score`.

    Args: as `gpm_score`.
    Returns: float[n, n] with P + P^T = 1. Raises, Source: as `gpm_score`. Cost: n^2 dim, n^2 exponentials.
    """
    return logistic(gpm_score(embedding, gate))


def gpm_from_rewards(rewards: Float[Array, " n"]) -> Float[Array, "n 2"]:
    """Bradley-Terry as an embedding in two dimensions, v = (reward, 1).

    Args: rewards: float[n], in logits.
    Returns: float[n, 2] whose score is rewards_i - rewards_j.
    Source: derived: <R v_i, v_j> = r_i * 1 - 1 * r_j. Cost: n.
    """
    return jnp.stack([rewards, jnp.ones_like(rewards)], axis=1)


def gpm_constructive(score: Float[Array, "n n"]) -> Float[Array, "n m"]:
    """An embedding of dimension 2n of any skew-symmetric score, without linear algebra.

    Args: score: float[n, n], skew-symmetric.
    Returns: float[n, 2n], block l of v_i is (S_il / 2, delta_il).
    Source: derived: docs/proofs/nash.md, T14; dimension as in Theorem 4.4 of arXiv 2410.02197. Cost: n^2.
    """
    n = score.shape[0]
    return jnp.stack([score / 2, jnp.eye(n, dtype=score.dtype)], axis=2).reshape(n, 2 * n)


def factorise(
    score: Float[Array, "n m"],
    dim: int | None = None,
    *,
    tol: float | None = None,
    convention: str = "definition",
) -> Float[Array, "n dim"]:
    """An embedding of smallest dimension, rank(S), with the given scores: the inverse of `gpm_score`.

    Args:
      score: float[n, n] (m = n), skew-symmetric. A win-probability matrix P has the scores logit(P).
      dim: even dimension of the embedding, static; the best approximation in Frobenius norm where it is below the
        rank, zeros beyond it. None finds the rank on the host, so it needs a concrete score.
      tol: singular values up to tol times the largest count as 0; n eps by default.
      convention: "definition" is v_i^T R^T v_j = S_ij, `gpm_score(factorise(S)) = S`; "theorem" is
        v_i^T R v_j = S_ij, whose `gpm_score` is -S. Static.

    Returns: float[n, dim].
    Raises: ValueError for a score that is not a finite skew-symmetric matrix, an odd or negative dim, an unknown
      convention; TypeError for a traced score without dim.
    Source: derived: the Hermitian matrix i S has eigenvalues +-w_l; docs/proofs/nash.md, T14. Cost: one n x n eigh.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: found {convention!r}, expected one of {CONVENTIONS}")
    if score.shape[0] != score.shape[1]:
        raise ValueError(f"score: found shape {score.shape}, expected (n, n)")
    if dim is not None and (dim < 0 or dim % 2):
        raise ValueError(f"dim: found {dim}, expected an even integer >= 0")
    n = score.shape[0]
    eps = jnp.finfo(score.dtype).eps
    if isinstance(score, jax.core.Tracer):
        if dim is None:
            raise TypeError("dim: found None with a traced score, expected an even integer: the rank is data")
    else:
        values = np.asarray(score)
        excess, largest = np.max(np.abs(values + values.T), initial=0.0), np.max(np.abs(values), initial=0.0)
        if not excess <= 8 * eps * largest or not largest < np.inf:
            raise ValueError(f"score: found |S + S^T| up to {excess:.3g}, expected a finite matrix with S = -S^T")
    w, u = jnp.linalg.eigh(jax.lax.complex(jnp.zeros_like(score), score))
    # Ascending, in pairs +-w: the largest come last.
    w, u = w[::-1][: n // 2], u[:, ::-1][:, : n // 2]
    kept = w > (n * eps if tol is None else tol) * (w[0] if w.size else 1)
    if dim is None:
        dim = 2 * int(jnp.sum(kept))
    k = min(dim // 2, n // 2)
    size = jnp.sqrt(jnp.where(kept, 2 * w, 0))[None, :k]
    real, imaginary = size * jnp.real(u[:, :k]), size * jnp.imag(u[:, :k])
    pair = (imaginary, real) if convention == "definition" else (real, imaginary)
    return jnp.pad(jnp.stack(pair, axis=2).reshape(n, 2 * k), ((0, 0), (0, dim - 2 * k)))
