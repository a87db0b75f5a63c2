"""Which actions count as best: relative ties of a rung of the ladder, an absolute tolerance for optimality.

Honest gaps fall to 1e-13 (an empty room of 16 by 16 cells), so an absolute tie tolerance of 1e-12 would misjudge them,
and float32 is of no use. Unavailable actions are excluded by the mask, never by values of -inf alone.
"""

import jax.numpy as jnp

from rlcore.types import Array, Bool, Float, Number

__all__ = ["greedy_actions", "optimal_actions"]


def _masked(q, available, fill):
    return jnp.where(jnp.broadcast_to(available, q.shape), q, fill)


def greedy_actions(q: Float[Array, "T S A"], available: Bool[Array, "T1 S A"], tie_tol: Number) -> Bool[Array, "T S A"]:
    """Every action that ties for the largest value: Q >= M - tie_tol max(|M|, |Q|), M the largest.

    Args:
      q: float[T,S,A].
      available: bool[1,S,A] or bool[T,S,A].
      tie_tol: relative; 0 compares exactly.

    Returns: bool[T,S,A].
    Source: derived; the released code compares exactly (`tie_tol=0`).
    Cost: T S A.
    """
    top = jnp.max(_masked(q, available, -jnp.inf), axis=-1, keepdims=True)
    return available & (q >= top - tie_tol * jnp.maximum(jnp.abs(top), jnp.abs(q)))


def optimal_actions(q: Float[Array, "T S A"], available: Bool[Array, "T1 S A"], tol: Number) -> Bool[Array, "T S A"]:
    """Every action whose optimal value is within `tol` of the best: Q* >= V* - tol.

    Args:
      q: the optimal action values, float[T,S,A].
      available: bool[1,S,A] or bool[T,S,A].
      tol: absolute, in units of return.

    Returns: bool[T,S,A].
    Source: released code of the effective horizon (`tol=1e-4`).
    Cost: T S A.
    """
    top = jnp.max(_masked(q, available, -jnp.inf), axis=-1, keepdims=True)
    return available & (q >= top - tol)
