"""Contextual preference games: independent games per context, judged by weighted sums.

The class of policies is a product over contexts, so best responses, equilibria and gaps separate exactly: every
quantity is a `jax.vmap` over contexts and a sum with their weights rho. Algorithms run under `jax.vmap` over
`game.games` as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.equilibrium import equilibrium
from rlcore.nash.game import PreferenceGame, kl, preference_game
from rlcore.solver import Solution
from rlcore.types import Array, Float, Number

__all__ = ["ContextualGame", "contextual_equilibrium", "contextual_game", "contextual_gap", "contextual_kl"]


class ContextualGame(NamedTuple):
    """One preference game per context; make one with `contextual_game`.

    games: a `PreferenceGame` whose arrays have a leading axis X of contexts.
    weights: float[X], probability rho of each context.
    """

    games: PreferenceGame
    weights: Array


def contextual_game(
    preference, reference_logits=None, temperature=1.0, weights=None, *, available=None
) -> ContextualGame:
    """Build and check a contextual game on the host.

    Args:
      preference: float[X, n, n], or float[n, n] shared by all contexts; reference_logits: float[X, n] or float[n],
        uniform by default; temperature: float[X] or float[]: as in `preference_game`, broadcast over contexts.
      weights: float[X], non-negative with sum 1; equal by default.
      available: bool[X, n] or bool[n], as in `preference_game`.

    Returns: a `ContextualGame`.
    Raises: ValueError naming the argument; TypeError for arguments that are not real numbers.
    Source: derived: definition. Cost: O(X n^2), on the host.
    """
    games = preference_game(preference, reference_logits, temperature, available=available)
    batch = games.temperature.shape
    if weights is None:
        if len(batch) != 1:
            raise ValueError(f"contexts: found batch axes {batch}, expected one axis of contexts, or weights")
        weights = np.full(batch, 1 / batch[0])
    weights = np.asarray(weights, games.preference.dtype)
    if weights.ndim != 1 or weights.size == 0 or batch not in ((), weights.shape, (1,)):
        raise ValueError(f"weights: found shape {weights.shape} for contexts {batch}, expected one weight per context")
    total = np.sum(weights)
    if not np.all(weights >= 0) or not abs(total - 1) <= 4 * weights.size * np.finfo(weights.dtype).eps:
        raise ValueError(f"weights: found sum {total}, least {np.min(weights)}, expected probabilities")
    fields = (jnp.broadcast_to(x, (weights.size, *x.shape[len(batch) :])) for x in games)
    return ContextualGame(PreferenceGame(*fields), jnp.asarray(weights))


def _mean(game, values):
    # A context without weight may hold anything, infinity too.
    return jnp.sum(jnp.where(game.weights > 0, game.weights * jnp.where(game.weights > 0, values, 0), 0))


def contextual_equilibrium(game: ContextualGame, *, tol: Number | None = None, max_steps: int = 400) -> Solution:
    """The regularised equilibrium of every context; together they are the equilibrium of the whole.

    Args: game: one contextual game; tol, max_steps: as in `equilibrium`.
    Returns: Solution with a leading axis of contexts on every field: value float[X, n].
    Raises: ValueError for max_steps < 0. Source: `equilibrium`. Cost: X times `equilibrium` of the slowest context.
    """
    return jax.vmap(lambda one: equilibrium(*one, tol=tol, max_steps=max_steps))(game.games)


def contextual_gap(game: ContextualGame, log_policy: Float[Array, "X n"]) -> Float[Array, ""]:
    """Duality gap of a contextual policy: the mean over contexts of `duality_gap`.

    Args: game: one contextual game; log_policy: float[X, n].
    Returns: float[], in probability. Source: derived: best responses separate over contexts. Cost: X n^2.
    """
    return _mean(game, jax.vmap(PreferenceGame.gap)(game.games, log_policy))


def contextual_kl(game: ContextualGame, log_p: Float[Array, "X n"], log_q: Float[Array, "X n"]) -> Float[Array, ""]:
    """KL_rho(p || q), the mean over contexts of `kl`.

    Args: game: one contextual game (its weights are read); log_p, log_q: float[X, n].
    Returns: float[], in nats. Source: derived: definition. Cost: 3 X n exponentials.
    """
    return _mean(game, jax.vmap(kl)(log_p, log_q))
