"""Ridge regression on features, factorised once for many targets, without LAPACK."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.types import Array, Float, Number

__all__ = ["Ridge", "ridge"]


class Ridge(NamedTuple):
    """One step's regression.

    features: float[K, d]; inverse: float[d, d], L^-1 where L L^T is the Gram matrix plus ridge I; spread: float[d],
    roots of the diagonal of (L L^T)^-1; scale: float[K], weights of the samples.
    """

    features: Array
    inverse: Array
    spread: Array
    scale: Array

    def fit(self, targets: Float[Array, "K *m"]) -> Float[Array, "d *m"]:
        """The ridge solution for one or several targets. Cost: K d m + d^2 m."""
        weighted = self.scale[(...,) + (None,) * (targets.ndim - 1)] * targets
        moments = jnp.tensordot(self.features, weighted, axes=((0,), (0,)), precision="highest")
        return self._solve(moments)

    def sample_weights(self) -> Float[Array, "d K"]:
        """The matrix that takes targets to the solution. Cost: K d^2."""
        return self._solve((self.features * self.scale[:, None]).T)

    def _solve(self, moments):
        turned = jnp.tensordot(self.inverse, moments, axes=1, precision="highest")
        return jnp.tensordot(self.inverse.T, turned, axes=1, precision="highest")


def _inverse_factor(gram: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The inverse of the lower Cholesky factor, by columns and rows.

    Without LAPACK: two batched calls at once, as of two learners or steps in one program, hang on JAX 0.10's CPU.
    """
    d = gram.shape[-1]
    rows = jnp.arange(d)

    def column(j, carry):
        rest, factor = carry
        new = jnp.where(rows >= j, rest[:, j] / jnp.sqrt(rest[j, j]), 0)
        return rest - jnp.outer(new, new), factor.at[:, j].set(new)

    factor = jax.lax.fori_loop(0, d, column, (gram, jnp.zeros_like(gram)))[1]
    eye = jnp.eye(d, dtype=gram.dtype)

    def row(i, inverse):
        # Rows from i on are still 0, so the whole product may be taken.
        known = jnp.matmul(factor[i], inverse, precision="highest")
        return inverse.at[i].set((eye[i] - known) / factor[i, i])

    return jax.lax.fori_loop(0, d, row, jnp.zeros_like(gram))


def ridge(features: Float[Array, "K d"], penalty: Number, scale: Float[Array, " K"] | None = None) -> Ridge:
    """Factorise sum_k scale_k f_k f_k^T + penalty I once.

    Args: features: float[K, d]; penalty: float[] > 0; scale: float[K] > 0, 1 by default.
    Returns: Ridge. Source: standard. Cost: K d^2 + d^3.
    """
    k, d = features.shape
    scale = jnp.ones(k, features.dtype) if scale is None else scale
    eye = jnp.eye(d, dtype=features.dtype)
    gram = jnp.matmul((features * scale[:, None]).T, features, precision="highest") + penalty * eye
    inverse = _inverse_factor(gram)
    # The diagonal of the inverse as sums of squares: positive whatever the rounding.
    return Ridge(features, inverse, jnp.sqrt(jnp.sum(inverse**2, axis=0)), scale)
