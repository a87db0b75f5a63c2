"""Preference games regularised towards a reference policy, and the quantities that every algorithm is judged by.

Two players pick one of n actions; action i is preferred to action j with probability P[i, j]. Both pay
`temperature` times their KL divergence from the reference policy. Policies are log-probabilities throughout.
Every function is for one game: contextual games and batches are `jax.vmap` outside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.types import Array, Bool, Float, Number

__all__ = [
    "PreferenceGame",
    "available_actions",
    "best_response",
    "duality_gap",
    "geometric_mixture",
    "kl",
    "log_normalise",
    "mixture_logits",
    "observe_gap",
    "observe_kl",
    "preference_game",
    "regularised_preference",
    "unregularised_gap",
    "win_probability",
    "win_rates",
]


class PreferenceGame(NamedTuple):
    """A symmetric two-player game over n actions; make one with `preference_game`.

    preference: float[n, n], P[i, j] = Prob(i beats j), with P + P^T = 1.
    reference_logits: float[n], normalised log-probabilities of the reference policy; -inf marks an unavailable action.
    temperature: float[], weight of the KL divergence from the reference policy, in units of probability per nat.
    """

    preference: Array
    reference_logits: Array
    temperature: Array

    def best_response(self, opponent: Float[Array, " n"]) -> Float[Array, " n"]:
        """`best_response` in this game."""
        return best_response(self.preference, opponent, self.reference_logits, self.temperature)

    def gap(self, log_policy: Float[Array, " n"]) -> Float[Array, ""]:
        """`duality_gap` in this game."""
        return duality_gap(self.preference, log_policy, self.reference_logits, self.temperature)


def preference_game(preference, reference_logits=None, temperature=1.0, *, available=None) -> PreferenceGame:
    """Build and check a preference game on the host.

    Args:
      preference: float[..., n, n], Prob(row beats column).
      reference_logits: float[..., n], log-probabilities of the reference policy up to a constant; uniform by default.
        Finite: a reference has full support.
      temperature: float[...], finite and > 0; the gap without temperature is `unregularised_gap`, or that of
        `game._replace(temperature=0.0)`. Leading axes of all arguments broadcast: the result is a batch for `vmap`.
      available: bool[..., n], the actions that can be played, all by default. The reference's logits of the others are
        not read; they become -inf.

    Returns: a `PreferenceGame` whose reference policy is normalised.
    Raises: ValueError naming the argument when a shape, range, P + P^T = 1, the diagonal, the support or finiteness is
      wrong; TypeError for arguments that are not real numbers, or no bool.
    Source: derived: symmetric constant-sum game, section 2 of Munos et al. (2023), arXiv 2312.00886.
    Cost: O(n^2) per game, on the host.
    """
    preference = _real("preference", preference)
    if preference.ndim < 2 or preference.shape[-1] != preference.shape[-2] or preference.shape[-1] == 0:
        raise ValueError(f"preference: found shape {preference.shape}, expected (..., n, n) with n >= 1")
    if not np.all((preference >= 0) & (preference <= 1)):
        raise ValueError(
            f"preference: found entries in [{np.min(preference)}, {np.max(preference)}], expected probabilities"
        )
    # p and 1 - p, each rounded once, sum to 1 within one unit of rounding; a few more for entries computed apart.
    tolerance = 8 * np.finfo(preference.dtype).eps
    excess = np.abs(preference + np.swapaxes(preference, -1, -2) - 1)
    n = preference.shape[-1]
    worst = np.max(np.where(np.eye(n, dtype=bool), 0, excess), initial=0.0)
    if worst > tolerance:
        raise ValueError(f"preference: found |P + P^T - 1| up to {worst:.3g}, expected P + P^T = 1")
    tied = np.diagonal(preference, axis1=-2, axis2=-1)[np.diagonal(excess, axis1=-2, axis2=-1) > tolerance]
    if tied.size:
        raise ValueError(f"preference: found {tied[0]} on the diagonal, expected 1/2: an action ties with itself")
    logits = np.zeros(n, preference.dtype) if reference_logits is None else _real("reference_logits", reference_logits)
    if logits.ndim < 1 or logits.shape[-1] != n:
        raise ValueError(f"reference_logits: found shape {logits.shape}, expected (..., {n})")
    mask = np.ones(n, bool) if available is None else _mask(available, n)
    temperature = _real("temperature", temperature)
    if not np.all((temperature > 0) & (temperature < np.inf)):
        raise ValueError(f"temperature: found {temperature}, expected a finite number > 0")
    try:
        batch = np.broadcast_shapes(preference.shape[:-2], logits.shape[:-1], temperature.shape, mask.shape[:-1])
    except ValueError:
        raise ValueError(
            f"batch axes: found {preference.shape[:-2]} of preference, {logits.shape[:-1]} of reference_logits, "
            f"{temperature.shape} of temperature and {mask.shape[:-1]} of available, expected shapes that broadcast"
        ) from None
    dtype = preference.dtype
    logits, mask = np.broadcast_to(logits, (*batch, n)), np.broadcast_to(mask, (*batch, n))
    if np.any(mask & (np.isnan(logits) | (logits == np.inf))):
        raise ValueError("reference_logits: found NaN or +inf, expected finite numbers")
    if np.any(mask & (logits == -np.inf)):
        found = np.unique(np.nonzero(mask & (logits == -np.inf))[-1])
        raise ValueError(
            f"reference_logits: found -inf for actions {found.tolist()}, expected a reference with full support; "
            "`available` says which actions cannot be played"
        )
    logits = np.where(mask, logits, -np.inf)
    top = np.max(logits, axis=-1, keepdims=True)
    logits = logits - top - np.log(np.sum(np.exp(logits - top), axis=-1, keepdims=True))
    return PreferenceGame(
        jnp.asarray(np.broadcast_to(preference, (*batch, n, n)), dtype),
        jnp.asarray(np.broadcast_to(logits, (*batch, n)), dtype),
        jnp.asarray(np.broadcast_to(temperature, batch), dtype),
    )


def _mask(available, n: int) -> np.ndarray:
    mask = np.asarray(available)
    if mask.dtype != bool:
        raise TypeError(f"available: found {mask.dtype}, expected bool")
    if mask.ndim < 1 or mask.shape[-1] != n:
        raise ValueError(f"available: found shape {mask.shape}, expected (..., {n})")
    if not np.all(np.any(mask, axis=-1)):
        raise ValueError("available: found a game without actions, expected at least one True")
    return mask


def _real(name: str, x) -> np.ndarray:
    x = np.asarray(x)
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise TypeError(f"{name}: found {x.dtype}, expected real numbers")
    default = np.float64 if jax.config.jax_enable_x64 else np.float32
    return x.astype(default if np.issubdtype(x.dtype, np.integer) or x.dtype == np.float64 else x.dtype)


def log_normalise(logits: Float[Array, " n"]) -> Float[Array, " n"]:
    """Subtract the log of the sum of exponentials.

    Args: logits: float[n]; -inf allowed, but not everywhere.
    Returns: float[n], log-probabilities.
    Source: derived: definition. Cost: n exponentials.
    """
    return logits - jax.scipy.special.logsumexp(logits)


def kl(log_p: Float[Array, " n"], log_q: Float[Array, " n"]) -> Float[Array, ""]:
    """KL divergence of p from q, accurate also where the two nearly agree.

    Args: log_p, log_q: float[n], normalised log-probabilities; -inf allowed.
    Returns: float[], >= 0, in nats; +inf if p puts mass where q puts none.
    Source: derived: sum p log(p/q) = sum (p u - p + q) with u = log(p/q), whose terms are all >= 0; near u = 0 a term
      is q (u e^u - (e^u - 1)). The plain sum of p u cancels and stops at 1e-16.
    Cost: 3 n exponentials.
    """
    both = (log_p > -jnp.inf) & (log_q > -jnp.inf)
    u = jnp.where(both, log_p, 0) - jnp.where(both, log_q, 0)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    near = jnp.abs(u) < 0.5
    growth = jnp.expm1(jnp.where(near, u, 0))
    # Where u is large, e^u would overflow, and nothing cancels.
    term = jnp.where(near, q * (u * growth + u - growth), p * u - p + q)
    return jnp.sum(jnp.where(both, jnp.maximum(term, 0), jnp.where(log_p > -jnp.inf, jnp.inf, q)))


def win_rates(preference: Float[Array, "n n"], log_policy: Float[Array, " n"]) -> Float[Array, " n"]:
    """Probability of each action to beat an opponent who plays `log_policy`.

    Args: preference: float[n, n]; log_policy: float[n].
    Returns: float[n], P exp(log_policy).
    Source: derived: definition. Cost: n exponentials and n^2 multiply-adds.
    """
    return jnp.matmul(preference, jnp.exp(log_policy), precision="highest")


def win_probability(
    preference: Float[Array, "n n"], log_p: Float[Array, " n"], log_q: Float[Array, " n"]
) -> Float[Array, ""]:
    """Probability that an action drawn from p beats one drawn from q.

    Args: preference: float[n, n]; log_p, log_q: float[n].
    Returns: float[], in [0, 1]; 1/2 when p = q.
    Source: derived: definition, centred at 1/2 so that rounding is relative to the advantage. Cost: n^2.
    """
    return 0.5 + jnp.dot(jnp.exp(log_p), win_rates(preference - 0.5, log_q), precision="highest")


def available_actions(game: PreferenceGame) -> Bool[Array, " n"]:
    """The actions to which the reference policy gives mass.

    Args: game: one game. Returns: bool[n]. Source: derived: definition. Cost: n.
    """
    return game.reference_logits > -jnp.inf


def mixture_logits(
    log_policy: Float[Array, " n"], log_reference: Float[Array, " n"], coefficient: Number
) -> Float[Array, " n"]:
    """(1 - coefficient) log_policy + coefficient log_reference, not normalised, -inf where the reference is.

    Args: log_policy, log_reference: float[n]; coefficient: float[], usually in [0, 1].
    Returns: float[n]. Source: derived: definition. Cost: n.
    """
    available = log_reference > -jnp.inf
    # 0 * (-inf) is NaN: the coefficient is 1 in the first step of Nash-MD's schedule.
    mixed = (1 - coefficient) * jnp.where(available, log_policy, 0) + coefficient * jnp.where(
        available, log_reference, 0
    )
    return jnp.where(available, mixed, -jnp.inf)


def geometric_mixture(
    log_policy: Float[Array, " n"], log_reference: Float[Array, " n"], coefficient: Number
) -> Float[Array, " n"]:
    """The policy proportional to policy^(1 - c) reference^c.

    Args: log_policy, log_reference: float[n]; coefficient: float[], c in [0, 1].
    Returns: float[n], log-probabilities.
    Source: Munos et al. (2023), arXiv 2312.00886, the regularised policy of Nash-MD. Cost: n exponentials.
    """
    return log_normalise(mixture_logits(log_policy, log_reference, coefficient))


def best_response(
    preference: Float[Array, "n n"],
    opponent: Float[Array, " n"],
    reference_logits: Float[Array, " n"],
    temperature: Number,
) -> Float[Array, " n"]:
    """The policy that is best against a fixed opponent in the regularised game.

    Args: preference: float[n, n]; opponent: float[n], log-probabilities; reference_logits: float[n], up to a constant;
      temperature: float[] > 0.
    Returns: float[n], log-probabilities of reference exp(P q / temperature).
    Source: derived: maximiser of a linear function minus a KL divergence. Cost: n^2, 2 n exponentials.
    """
    return log_normalise(reference_logits + win_rates(preference - 0.5, opponent) / temperature)


def regularised_preference(
    game: PreferenceGame, log_p: Float[Array, " n"], log_q: Float[Array, " n"]
) -> Float[Array, ""]:
    """P(p beats q) - temperature KL(p || reference) + temperature KL(q || reference).

    Args: game: one game; log_p, log_q: float[n].
    Returns: float[]; the game is max over p, min over q of it, with value 1/2.
    Source: Munos et al. (2023), arXiv 2312.00886, regularised preference. Cost: n^2.
    """
    reference = game.reference_logits
    return win_probability(game.preference, log_p, log_q) - game.temperature * (
        kl(log_p, reference) - kl(log_q, reference)
    )


def unregularised_gap(
    preference: Float[Array, "n n"], log_policy: Float[Array, " n"], available: Bool[Array, " n"] | None = None
) -> Float[Array, ""]:
    """Duality gap of a policy in the game without temperature: twice the largest advantage over it.

    Args: preference: float[n, n]; log_policy: float[n]; available: bool[n], the replies allowed, all by default.
    Returns: float[] in [0, 1] up to rounding; 0 exactly at the von Neumann winners.
    Source: derived: skew-symmetry makes both players' gains equal. Cost: n^2.
    """
    advantage = win_rates(preference - 0.5, log_policy)
    return 2 * jnp.max(advantage if available is None else jnp.where(available, advantage, -jnp.inf))


def duality_gap(
    preference: Float[Array, "n n"],
    log_policy: Float[Array, " n"],
    reference_logits: Float[Array, " n"],
    temperature: Number,
) -> Float[Array, ""]:
    """Duality gap of a policy in the regularised game, exact and without cancellation.

    Args: preference: float[n, n]; log_policy: float[n], normalised; reference_logits: float[n], up to a constant;
      temperature: float[] >= 0; at 0 it is the unregularised gap over the available actions.
    Returns: float[], >= 0; 0 exactly at the equilibrium.
    Source: derived: max_p' P_tau(p' > p) - min_p' P_tau(p > p') = 2 tau KL(p || best response to p), by the duality
      of logsumexp and KL and skew-symmetry. A difference of game values would lose all digits below 1e-8.
    Cost: n^2, 5 n exponentials.
    """
    temperature = jnp.asarray(temperature, log_policy.dtype)
    cold = temperature == 0
    warm = jnp.where(cold, jnp.ones_like(temperature), temperature)
    regularised = 2 * warm * kl(log_policy, best_response(preference, log_policy, reference_logits, warm))
    return jnp.where(cold, unregularised_gap(preference, log_policy, reference_logits > -jnp.inf), regularised)


def observe_gap(game: PreferenceGame, state) -> Float[Array, ""]:
    """Duality gap of `state.log_policy`, for `iterate(..., observe=observe_gap)`.

    Args: game: one game; state: any solver state with `log_policy`.
    Returns: float[]. Source: `duality_gap`. Cost: as `duality_gap`.
    """
    return game.gap(state.log_policy)


def observe_kl(game: PreferenceGame, state) -> Float[Array, ""]:
    """KL(state.log_policy || reference), for `iterate(..., observe=observe_kl)`.

    Args: game: one game; state: any solver state with `log_policy`.
    Returns: float[], in nats. Source: derived: definition. Cost: 3 n exponentials.
    """
    return kl(state.log_policy, game.reference_logits)
