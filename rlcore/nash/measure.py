"""What the losses of preference optimisation average over: all pairs of responses with exact weights, or samples.

A measure is a list of compared pairs (or single responses), each with a gain and a weight; weights sum to 1. The gain
is what the comparison says, centred: P - 1/2, or +-1/2 for one vote, or a difference of win rates. `losses.py` reads
both kinds alike, and the mean over samples of a sampled measure is the exact one: test a sampled loss against its own
population form. Nothing here is differentiated: the policies that responses come from are held fixed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import win_rates
from rlcore.nash.oracle import bernoulli, draw_actions
from rlcore.nash.preference_models import Pairs
from rlcore.types import Array, Float, Int, Key, Number

__all__ = [
    "Comparisons",
    "Responses",
    "all_judged_pairs",
    "all_pairs",
    "all_responses",
    "all_tuples",
    "all_votes",
    "as_scores",
    "best_and_worst",
    "bradley_terry_votes",
    "judge",
    "pooled",
    "recorded_pairs",
    "sampled_judged_pairs",
    "sampled_pairs",
    "sampled_tuples",
]


class Responses(NamedTuple):
    """Weighted responses.

    response: int[m]. gain: float[m], what each won against its opponent, centred, in probability (or a score in
    logits). weight: float[m], with sum 1.
    """

    response: Array
    gain: Array
    weight: Array


class Comparisons(NamedTuple):
    """Weighted pairs of responses.

    first, second: int[m]. gain: float[m], what the first won over the second, centred: in [-1/2, 1/2] where one judged
    them against each other, in [-1, 1] where each was judged against an opponent. weight: float[m], with sum 1.
    """

    first: Array
    second: Array
    gain: Array
    weight: Array

    def responses(self) -> Responses:
        """The first ones alone, judged by the second ones."""
        return Responses(self.first, self.gain, self.weight)


def _probabilities(log_policy: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.exp(jax.lax.stop_gradient(log_policy))


def _need_samples(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name}: found {count}, expected an integer >= 1")


# ---- exact -----------------------------------------------------------------------------------------------------------


def all_pairs(
    preference: Float[Array, "n n"], log_first: Float[Array, " n"], log_second: Float[Array, " n"]
) -> Comparisons:
    """Every pair of responses, weighted by the chance that two policies draw it.

    Args: preference: float[n, n]; log_first, log_second: float[n], log-probabilities of the policies.
    Returns: `Comparisons` with m = n^2. Source: derived: definition. Cost: n^2.
    """
    n = preference.shape[0]
    first, second = np.divmod(np.arange(n * n, dtype=np.int32), np.int32(n))
    weight = _probabilities(log_first)[:, None] * _probabilities(log_second)[None, :]
    return Comparisons(jnp.asarray(first), jnp.asarray(second), preference.ravel() - 0.5, weight.ravel())


def all_responses(
    preference: Float[Array, "n n"], log_policy: Float[Array, " n"], log_opponent: Float[Array, " n"]
) -> Responses:
    """Every response of a policy, with its exact gain against an opponent.

    Args: preference: float[n, n]; log_policy, log_opponent: float[n].
    Returns: `Responses` with m = n. Source: derived: definition. Cost: n^2.
    """
    rates = win_rates(preference, jax.lax.stop_gradient(log_opponent))
    return Responses(jnp.arange(rates.size, dtype=jnp.int32), rates - 0.5, _probabilities(log_policy))


def judge(pairs: Comparisons, preference: Float[Array, "n n"], log_opponent: Float[Array, " n"]) -> Comparisons:
    """The same pairs, but each response judged against an opponent: gain = difference of exact win rates.

    Args: pairs: their gains are not read; preference: float[n, n]; log_opponent: float[n].
    Returns: `Comparisons`. Source: derived: definition. Cost: n^2 + m.
    """
    rates = win_rates(preference, jax.lax.stop_gradient(log_opponent))
    return pairs._replace(gain=rates[pairs.first] - rates[pairs.second])


def all_judged_pairs(
    preference: Float[Array, "n n"], log_opponent: Float[Array, " n"], log_pair: Float[Array, " n"] | None = None
) -> Comparisons:
    """Every pair, both responses drawn from one policy and judged against an opponent.

    Args: preference: float[n, n]; log_opponent: float[n]; log_pair: float[n], uniform over all n by default (a game
      that masks actions needs the uniform policy over those available).
    Returns: `Comparisons` with m = n^2. Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code as restated
      in this project's specification. Cost: n^2.
    """
    if log_pair is None:
        log_pair = jnp.full_like(log_opponent, -np.log(log_opponent.shape[0]))
    return judge(all_pairs(preference, log_pair, log_pair), preference, log_opponent)


def all_votes(pairs: Comparisons) -> Comparisons:
    """The measure of one vote per pair: both outcomes of each, with their probabilities.

    Args: pairs: gains in [-1/2, 1/2], judged against each other.
    Returns: `Comparisons` of twice the length with gains +-1/2. Source: derived: definition. Cost: m.
    """
    twice = lambda x: jnp.concatenate([x, x])  # noqa: E731
    half = jnp.full_like(pairs.gain, 0.5)
    chance = jnp.concatenate([0.5 + pairs.gain, 0.5 - pairs.gain])
    return Comparisons(
        twice(pairs.first), twice(pairs.second), jnp.concatenate([half, -half]), twice(pairs.weight) * chance
    )


def all_tuples(log_policy: Float[Array, " n"], samples: int) -> tuple[Int[Array, "m K"], Float[Array, " m"]]:
    """Every way to draw K responses, and its probability.

    Args: log_policy: float[n]; samples: K, static.
    Returns: (int32[n^K, K], float[n^K]). Raises: ValueError for K < 1. Source: derived: definition. Cost: K n^K.
    """
    _need_samples("samples", samples)
    grids = np.indices((log_policy.shape[0],) * samples).reshape(samples, -1).T
    return jnp.asarray(grids, jnp.int32), jnp.prod(_probabilities(log_policy)[grids], axis=1)


# ---- sampled ---------------------------------------------------------------------------------------------------------


def _equal(like: Float[Array, " m"]) -> Float[Array, " m"]:
    return jnp.full_like(like, 1 / like.shape[0])


def _says(key, preference, first, second, votes):
    """What the judge says: the probability, or one vote."""
    return bernoulli(key, preference, first, second) if votes else preference[first, second]


def sampled_pairs(
    key: Key[Array, ""],
    preference: Float[Array, "n n"],
    log_first: Float[Array, " n"],
    log_second: Float[Array, " n"],
    count: int,
    votes: bool = False,
) -> Comparisons:
    """Independent pairs drawn from two policies and judged against each other: `all_pairs` from samples.

    Args: key; preference: float[n, n]; log_first, log_second: float[n]; count: m, static; votes: one vote each, not
      the probability, static.
    Returns: `Comparisons`. Raises: ValueError for count < 1. Source: derived: definition. Cost: 2 m draws.
    """
    _need_samples("count", count)
    own, other, vote = jax.random.split(key, 3)
    first = draw_actions(own, _probabilities(log_first), (count,))
    second = draw_actions(other, _probabilities(log_second), (count,))
    gain = _says(vote, preference, first, second, votes) - 0.5
    return Comparisons(first, second, gain, _equal(gain))


def sampled_judged_pairs(
    key: Key[Array, ""],
    preference: Float[Array, "n n"],
    log_opponent: Float[Array, " n"],
    count: int,
    votes: bool = False,
    log_pair: Float[Array, " n"] | None = None,
) -> Comparisons:
    """Independent triples: a pair of one policy, and one draw of the opponent that judges both.

    Args: key; preference: float[n, n]; log_opponent: float[n]; count: m, static; votes: one vote for each of the two,
      static; log_pair: float[n], uniform over all n by default.
    Returns: `Comparisons`. Raises: ValueError for count < 1.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code as restated in this project's specification.
    Cost: 3 m draws.
    """
    _need_samples("count", count)
    pair, other, vote, last = jax.random.split(key, 4)
    if log_pair is None:
        first, second = jax.random.randint(pair, (2, count), 0, preference.shape[0], jnp.int32)
    else:
        first, second = draw_actions(pair, _probabilities(log_pair), (2, count))
    rival = draw_actions(other, _probabilities(log_opponent), (count,))
    gain = _says(vote, preference, first, rival, votes) - _says(last, preference, second, rival, votes)
    return Comparisons(first, second, gain, _equal(gain))


def sampled_tuples(
    key: Key[Array, ""], log_policy: Float[Array, " n"], count: int, samples: int
) -> tuple[Int[Array, "m K"], Float[Array, " m"]]:
    """K responses for each of m prompts: `all_tuples` from samples.

    Args: key; log_policy: float[n]; count: m, samples: K, static.
    Returns: (int32[m, K], float[m]). Raises: ValueError for count < 1 or K < 1. Source: derived. Cost: m K draws.
    """
    _need_samples("count", count)
    _need_samples("samples", samples)
    drawn = draw_actions(key, _probabilities(log_policy), (count, samples))
    return drawn, _equal(jnp.zeros(count, log_policy.dtype))


def bradley_terry_votes(key: Key[Array, ""], pairs: Comparisons) -> Comparisons:
    """One vote for each pair: the first wins with probability sigmoid(gain), whatever the gain's unit.

    Args: key; pairs. Returns: `Comparisons` with gains +-1/2.
    Source: Rosset et al. (2024), DNO, arXiv 2404.03715, the labels behind Theorem 1. Cost: m.
    """
    chance = jax.nn.sigmoid(pairs.gain)
    won = jax.random.uniform(key, chance.shape, chance.dtype) < chance
    return pairs._replace(gain=won.astype(chance.dtype) - 0.5)


def recorded_pairs(data: Pairs) -> Comparisons:
    """A data set of compared pairs, as it comes from `pair_data`.

    Args: data: first, second int[B], label float[B].
    Returns: `Comparisons` with gain = label - 1/2, equal weights. Source: derived: definition. Cost: B.
    """
    return Comparisons(data.first, data.second, data.label - 0.5, _equal(data.label))


# ---- either ----------------------------------------------------------------------------------------------------------


def best_and_worst(
    drawn: Int[Array, "m K"], weight: Float[Array, " m"], preference: Float[Array, "n n"], margin: Number
) -> Comparisons:
    """The best of K responses against the worst, by win rate against each other, where they are far apart.

    Args: drawn: int[m, K] and weight: float[m], from `all_tuples` or `sampled_tuples`; preference: float[n, n];
      margin: float[] >= 0, the least difference of win rates that is kept.
    Returns: `Comparisons` with gain 1/2, weights renormalised over what is kept (all 0 if nothing is).
    Source: Rosset et al. (2024), DNO, arXiv 2404.03715, algorithm 2. Cost: m K^2.
    """
    wins = jnp.mean(preference[drawn[:, :, None], drawn[:, None, :]], axis=2)
    pick = lambda index: jnp.take_along_axis(drawn, index(wins, axis=1)[:, None], axis=1)[:, 0]  # noqa: E731
    far = jnp.max(wins, axis=1) - jnp.min(wins, axis=1) >= margin
    kept = jnp.where(far, weight, 0)
    total = jnp.sum(kept)
    kept = kept / jnp.where(total > 0, total, 1)
    return Comparisons(pick(jnp.argmax), pick(jnp.argmin), jnp.full_like(kept, 0.5), kept)


def as_scores(measure: Comparisons | Responses) -> Comparisons | Responses:
    """The same measure with log-odds in place of probabilities: what GPO regresses on.

    Args: measure: gains strictly between -1/2 and 1/2, no votes.
    Returns: the measure with gain logit(1/2 + gain). Source: Zhang et al. (2025), arXiv 2410.02197, equation 5.3.
    Cost: m logarithms.
    """
    return measure._replace(gain=jax.scipy.special.logit(0.5 + measure.gain))


def pooled(pairs: Comparisons, num_responses: int) -> Comparisons:
    """Equal pairs put together: all n^2 pairs with summed weights and mean gains.

    Args: pairs; num_responses: n, static.
    Returns: `Comparisons` with m = n^2, for which a logistic loss is the same number and a squared one has the same
      gradient; gain 0 where there was no pair. Source: derived: both losses are linear in the gain, up to a constant.
    Cost: m + n^2.
    """
    n = num_responses
    grid = jnp.zeros((n, n), pairs.weight.dtype)
    weight = grid.at[pairs.first, pairs.second].add(pairs.weight)
    total = grid.at[pairs.first, pairs.second].add(pairs.weight * pairs.gain)
    gain = total / jnp.where(weight > 0, weight, 1)
    first, second = np.divmod(np.arange(n * n, dtype=np.int32), np.int32(n))
    return Comparisons(jnp.asarray(first), jnp.asarray(second), gain.ravel(), weight.ravel())
