"""What a plan is worth when arms collide: the most valuable of the arms that ask for a play get one.

Arms ask independently of each other. The expected sum of the m largest of independent payoffs, of which m are positive
on average, is at least alpha(k, m) times the sum of their means; for given laws it is a finite sum, computed here.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit
from rlcore.lsd.restless import RestlessBandit
from rlcore.types import Array, Float, Number

__all__ = ["alpha", "minorant", "poisson_alpha", "top_mean", "virtual_value"]


def _stirling_error(n):
    """log n! - log(sqrt(2 pi n) (n / e)^n), n > 0: by its series above 15, where the error is below 1e-16."""
    dtype = jnp.result_type(float)
    # log n! of 0 .. 15 as a table: lgamma is less exact than the difference asks for.
    small = np.arange(1, 16, dtype=float)
    table = np.cumsum(np.log(small)) - ((small + 0.5) * np.log(small) - small + 0.5 * np.log(2 * np.pi))
    n = jnp.asarray(n, dtype)
    at = jnp.clip(n.astype(jnp.int32) - 1, 0, 14)
    big = jnp.maximum(n, 15)
    x = 1 / (big * big)
    series = (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / big
    return jnp.where(n > 15, series, jnp.asarray(table, dtype)[at])


def alpha(arms: Number, plays: Number = 1) -> Float[Array, ""]:
    """E min(m, Bin(k, m / k)) / m: the share of its value that a plan keeps at least when its arms collide.

    Args: arms: k >= 1, and plays: m >= 1, integers, static or traced; 1 where m >= k.
    Returns: float[], relative error of a few units in the last place for every k.
    Source: derived: docs/proofs/lsd.md#t4. Cost: constant.
    """
    dtype = jnp.result_type(float)
    k, m = jnp.asarray(arms, dtype), jnp.asarray(plays, dtype)
    rest = jnp.maximum(k - m, 1)
    # m P(Bin = m) (1 - m / k) is the mean shortfall below the mean m; at its mean the binomial needs no powers.
    error = _stirling_error(k) - _stirling_error(m) - _stirling_error(rest)
    mass = jnp.sqrt(k / (2 * np.pi * m * rest)) * jnp.exp(error)
    return jnp.where(m >= k, 1.0, 1 - (rest / k) * mass)


def poisson_alpha(plays: Number = 1) -> Float[Array, ""]:
    """The limit of `alpha` in the number of arms, from above: 1 - m^m exp(-m) / m!, 1 - 1 / e for one play.

    Args: plays: m >= 1. Returns: float[]. Source: derived: docs/proofs/lsd.md#t4. Cost: constant.
    """
    m = jnp.asarray(plays, jnp.result_type(float))
    return 1 - jnp.exp(-_stirling_error(m)) / jnp.sqrt(2 * np.pi * m)


def _mean_served(asks, plays: int):
    """E min(m, number of asking arms) for independent arms that ask with probability `asks`."""
    if plays == 1:
        return 1 - jnp.prod(1 - asks)

    def one(law, q):
        # law[j]: probability of j arms so far, j < m; more need no telling apart.
        below = jnp.concatenate([jnp.zeros(1, law.dtype), law[:-1]])
        return law * (1 - q) + below * q, None

    law = jnp.zeros(plays, asks.dtype).at[0].set(1)
    law, _ = jax.lax.scan(one, law, asks)
    return plays - jnp.sum(law * jnp.arange(plays, 0, -1).astype(law.dtype))


@functools.partial(jax.jit, static_argnames="plays")
def top_mean(payoffs: Float[Array, "k S"], chance: Float[Array, "k S"], plays: int = 1) -> Float[Array, ""]:
    """Expected sum of the m largest of k independent random payoffs, X_i = payoffs[i, e] with probability chance[i, e].

    Args: payoffs: nonnegative; chance: rows sum to at most 1, X_i = 0 otherwise; plays: m, static.
    Returns: float[]. Source: derived: docs/proofs/lsd.md#t6. Cost: k^2 S, times m for m > 1; memory k S.
    """
    k, s = payoffs.shape
    order = jnp.argsort(-payoffs.ravel())
    level = payoffs.ravel()[order]
    width = level - jnp.append(level[1:], jnp.zeros(1, level.dtype))

    def one(asks, at):
        index, width = at
        asks = asks.at[index // s].add(chance.ravel()[index])
        return asks, width * _mean_served(jnp.clip(asks, 0, 1), plays)

    _, parts = jax.lax.scan(one, jnp.zeros(k, payoffs.dtype), (order, width))
    return jnp.sum(parts)


def virtual_value(
    problem: SwitchingBandit | RestlessBandit, play: Float[Array, "k S"], plays: int = 1
) -> Float[Array, ""]:
    """V_virt: what random phases, or Markov chains, of a plan earn per round at least, if the arms are monotone.

    Args: problem: its payoffs are read; play: rates of plays by local state, `occupancy(problem, plan).play` or those
      of `occupation_programme`; plays: m, static.
    Returns: float[], at least alpha(k, m) times the plan's value. Source: derived: docs/proofs/lsd.md#t6, #t15.
    Cost: see `top_mean`.
    """
    return top_mean(problem.payoffs, play, plays)


def minorant(problem: SwitchingBandit, payoff_class: str) -> SwitchingBandit:
    """The largest problem of a class whose payoffs are nowhere above the given ones.

    A play is worth in it what it pays at least once the arm has rested longer, or been played less, than planned.

    Args: payoff_class: "monotone" or "recovering"; see `from_tables`.
    Returns: SwitchingBandit, the problem itself where it is of the class. Cost: k S.
    """
    if payoff_class not in ("monotone", "recovering"):
        raise ValueError(f"payoff_class: found {payoff_class!r}, expected 'monotone' or 'recovering'")
    first = 0 if payoff_class == "monotone" else problem.satiation
    least = jax.lax.cummin(problem.payoffs[..., first:], axis=problem.payoffs.ndim - 1, reverse=True)
    return dataclasses.replace(problem, payoffs=jnp.concatenate([problem.payoffs[..., :first], least], axis=-1))
