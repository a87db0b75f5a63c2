"""Preference queries: exact win rates, or their estimates from fresh labels against sampled opponents.

A method that needs win rates asks here. Its static field `labels` says how: None is exact, N estimates the win rate
of every action from N Bernoulli labels, with the step's key. Every query takes a key of its own; the second query of an
extragradient step must be fresh, or the noise no longer has mean zero at the half step. Labels may come from a matrix
that is no preference (a position bias): `labelled_game` gives solvers what they see; gaps are judged in the true game.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import PreferenceGame
from rlcore.pytree import static
from rlcore.types import Array, Float, Int, Key, RandomKey

__all__ = [
    "Queries",
    "bernoulli",
    "draw_actions",
    "estimate_win_rates",
    "labelled_game",
    "query",
]


def labelled_game(game: PreferenceGame, label_source: Float[Array, "n n"]) -> PreferenceGame:
    """The game as a solver sees it through labels of another matrix; judge what it finds by `game.gap`.

    Args: game: the true game; label_source: float[n, n], Prob(label for the row | row shown first), which need not
      satisfy P + P^T = 1.
    Returns: a `PreferenceGame` for solvers alone: its own gap and equilibrium mean nothing.
    Raises: ValueError for another shape, or concrete entries outside [0, 1]. Source: derived: definition. Cost: n^2.
    """
    if label_source.shape != game.preference.shape:
        raise ValueError(f"label_source: found shape {label_source.shape}, expected {game.preference.shape}")
    if not isinstance(label_source, jax.core.Tracer):
        entries = np.asarray(label_source)
        if not np.all((entries >= 0) & (entries <= 1)):
            raise ValueError(
                f"label_source: found entries in [{entries.min()}, {entries.max()}], expected probabilities"
            )
    return game._replace(preference=label_source)


def bernoulli(
    key: Key[Array, ""], preference: Float[Array, "n n"], i: Int[Array, "..."], j: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Sampled labels: 1 with probability P[i, j], else 0.

    Args: key; preference: float[n, n]; i, j: int[...] of one shape, actions compared.
    Returns: float[...], in {0, 1}. Source: derived: definition. Cost: one uniform per label.
    """
    win = preference[i, j]
    return (jax.random.uniform(key, win.shape, win.dtype) < win).astype(win.dtype)


def draw_actions(key: Key[Array, ""], policy: Float[Array, " n"], shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Independent actions of a policy, by uniforms against its cumulative distribution.

    Args: key; policy: float[n], probabilities (their sum need not be exactly 1); shape: static.
    Returns: int32[shape]; actions of probability 0 are never drawn.
    Source: derived: inverse distribution function; far cheaper on a CPU than `jax.random.categorical`.
    Cost: one uniform and n comparisons (log n above 64 actions) per action.
    """
    n = policy.shape[0]
    cumulative = jnp.cumsum(policy)
    uniform = jax.random.uniform(key, shape, policy.dtype) * cumulative[-1]
    method = "compare_all" if n <= 64 else "scan_unrolled"
    action = jnp.searchsorted(cumulative, uniform, side="right", method=method).astype(jnp.int32)
    # The product may round up to the total; the last action that counts is then meant.
    return jnp.minimum(action, n - 1 - jnp.argmax(policy[::-1] > 0).astype(jnp.int32))


def _estimate(key, preference, opponent, labels, common_opponents):
    n = opponent.shape[0]
    opponent_key, label_key = jax.random.split(key)
    shape = (labels,) if common_opponents else (n, labels)
    opponents = jnp.broadcast_to(draw_actions(opponent_key, opponent, shape), (n, labels))
    actions = jnp.broadcast_to(jnp.arange(n)[:, None], (n, labels))
    return jnp.mean(bernoulli(label_key, preference, actions, opponents), axis=1)


def estimate_win_rates(
    key: Key[Array, ""],
    preference: Float[Array, "n n"],
    log_policy: Float[Array, " n"],
    num_labels: int,
    common_opponents: bool = True,
) -> Float[Array, " n"]:
    """Unbiased estimate of P exp(log_policy) from fresh labels against sampled opponents.

    Call it with a new key at every query; in extragradient methods also at the half step.

    Args: key; preference: float[n, n]; log_policy: float[n]; num_labels: labels per action, static;
      common_opponents: the same opponents for all actions (labels stay independent), static.
    Returns: float[n], multiples of 1 / num_labels.
    Raises: ValueError for num_labels < 1.
    Source: derived: mean of independent labels. Cost: n num_labels labels.
    """
    if num_labels < 1:
        raise ValueError(f"num_labels: found {num_labels}, expected an integer >= 1")
    return _estimate(key, preference, jnp.exp(log_policy), num_labels, common_opponents)


def query(
    preference: Float[Array, "n n"],
    opponent: Float[Array, " n"],
    key: RandomKey = None,
    labels: int | None = None,
    common_opponents: bool = False,
) -> Float[Array, " n"]:
    """Win rates of all actions against an opponent: exact, or estimated from labels.

    Args:
      preference: float[n, n], Prob(row beats column).
      opponent: float[n], probabilities (not logarithms: mixtures are normalised anyway).
      key: randomness of this query alone; not used for exact rates.
      labels: labels per action, static; None is exact.
      common_opponents: the same sampled opponents for all actions, static: less noise between actions where the
        preference is transitive, more where it cycles. Without, estimates are independent binomials.

    Returns: float[n], P opponent, or an unbiased estimate of it in multiples of 1 / labels.
    Raises: ValueError for labels < 1, or labels without a key.
    Source: derived: definition. Cost: n^2 multiply-adds, or n labels uniforms twice.
    """
    if labels is None:
        return jnp.matmul(preference, opponent, precision="highest")
    if labels < 1:
        raise ValueError(f"labels: found {labels}, expected an integer >= 1, or None for exact win rates")
    if key is None:
        raise ValueError(f"key: found None with labels = {labels}, expected a key: labels are sampled")
    return _estimate(key, preference, opponent, labels, common_opponents)


@dataclasses.dataclass(frozen=True)
class Queries:
    """What the methods that ask for win rates share: how they ask. Both fields are static and by keyword.

    labels: int or None, labels per action and query; None is exact. common_opponents: bool, as in `query`.
    """

    labels: int | None = static(None, kw_only=True)
    common_opponents: bool = static(False, kw_only=True)

    def query(self, problem: PreferenceGame, opponent: Float[Array, " n"], key: RandomKey) -> Float[Array, " n"]:
        """`query` of the problem's preference, as the fields say."""
        return query(problem.preference, opponent, key, self.labels, self.common_opponents)


def split(key: RandomKey, count: int) -> tuple[RandomKey, ...]:
    """Keys of several queries in one step; None for exact methods run without a key.

    Args: key; count: static. Returns: tuple of `count` keys or Nones. Source: derived: definition. Cost: O(1).
    """
    return (None,) * count if key is None else tuple(jax.random.split(key, count))
