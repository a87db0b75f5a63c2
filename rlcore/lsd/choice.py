"""Which arms of a round to play: the m of highest score."""

import jax
import jax.numpy as jnp

from rlcore.types import Array, Bool, Float, Int

__all__ = ["highest", "payoff_ranks", "pick"]

MOST_MAXIMA = 8


def highest(score: Float[Array, " k"], plays: int, noise: Float[Array, " k"] | None = None) -> Bool[Array, " k"]:
    """The `plays` arms of highest score: bool[k]; ties by least index, or by most `noise`. Cost: k, or a sort."""
    arms = jnp.arange(score.shape[0])
    if plays == 1:
        if noise is not None:
            score = jnp.where(score == jnp.max(score), noise, -jnp.inf)
        return arms == jnp.argmax(score)
    order = jnp.lexsort((arms, -score) if noise is None else (-noise, -score))
    return jnp.zeros(score.shape, bool).at[order[:plays]].set(True)


def payoff_ranks(payoffs: Float[Array, "k S"]) -> Int[Array, "k S"]:
    """int32[k, S], 1 for the least payoff to k S for the largest; of equal ones the first arm's is larger.

    Distinct integers make the choice of the best arm one maximum and one comparison. Cost: k S log(k S).
    """
    order = jnp.argsort(-payoffs.ravel(), stable=True)
    falling = jnp.arange(order.size, 0, -1, dtype=jnp.int32)
    return jnp.zeros(order.size, jnp.int32).at[order].set(falling).reshape(payoffs.shape)


def pick(score: Int[Array, " k"], plays: int) -> Bool[Array, " k"]:
    """bool[k], the `plays` arms of largest score among those above 0; positive scores are distinct. Cost: k m."""
    if plays > MOST_MAXIMA:
        least = jax.lax.top_k(score, plays)[0][plays - 1]
    else:
        # A few maxima cost less than a sort: 10 times less for 2 of 8 arms.
        rest = score
        for _ in range(plays - 1):
            rest = jnp.where(rest >= jnp.max(rest), 0, rest)
        least = jnp.max(rest)
    return (score >= least) & (score > 0)
