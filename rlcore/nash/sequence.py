"""Exact equilibria of sequence models with exponentially many responses, by dynamic programming over features.

A response y is L tokens out of V. The reference is Markov: the next token depends on the position and the previous
token (token V stands before the first). Preferences are P(y beats y') = 1/2 + phi(y)^T S phi(y') / 2, with S
skew-symmetric and phi(y) a sum of features of neighbouring tokens. Against any opponent whose features have mean m, the
best response is mu(y) exp(phi(y)^T S m / (2 tau)), up to a constant: Markov again. So the equilibrium is Markov and
belongs to the fixed point m = M(m) of dimension d, whatever the V^L responses.

Markov policies are log-probabilities float[L, V + 1, V]: position, previous token, token; -inf marks unavailable ones.
A constant added to phi changes the game: after subtracting its mean under mu, mu is the equilibrium at every
temperature (A mu = 0). Centre by another policy, or not at all.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import PreferenceGame, kl, log_normalise
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, Solution
from rlcore.types import Array, Float, Int, Key, Number

__all__ = [
    "SequenceGame",
    "centre_features",
    "enumerate_sequences",
    "markov_gap",
    "markov_kl",
    "markov_mean",
    "markov_sample",
    "payoff_bound",
    "response_features",
    "response_log_prob",
    "sampled_gap",
    "sequence_best_response",
    "sequence_equilibrium",
    "sequence_equilibrium_error",
    "sequence_game",
]

# The last length that the line search tries, after 1, 1/2, 1/4, ...
SHORTEST = 2.0**-19


class SequenceGame(NamedTuple):
    """A preference game over sequences of tokens; make one with `sequence_game`.

    features: float[L, V + 1, V, d], of token j after token i at a position; row V of the first position is the start.
    reference_logits: float[L, V + 1, V], normalised log-probabilities of the next token; -inf marks unavailable ones.
    skew: float[d, d], S, in probability per squared feature: |phi(y)^T S phi(y')| <= 1 is the caller's promise.
    temperature: float[], weight of the KL divergence from the reference, in probability per nat.
    """

    features: Array
    reference_logits: Array
    skew: Array
    temperature: Array


def sequence_game(features, reference_logits, skew, temperature, *, length: int | None = None) -> SequenceGame:
    """Build and check a sequence game on the host.

    Args:
      features: float[L, V + 1, V, d], or float[V + 1, V, d] for features that are the same at every position.
      reference_logits: float[L, V + 1, V] or float[V + 1, V], up to a constant per row; -inf makes a token unavailable.
      skew: float[d, d], skew-symmetric. temperature: float[], finite and > 0.
      length: L, needed where neither of the first two has a leading axis of positions.

    Returns: a `SequenceGame`. That preferences stay in [0, 1] is not checked here; `payoff_bound` can certify it.
    Raises: ValueError naming the argument when a shape, S + S^T = 0, finiteness or a range is wrong.
    Source: derived: docs/proofs/nash.md#s8-1. Cost: O(L V^2 d), on the host.
    """
    dtype = np.result_type(np.asarray(features).dtype, np.float32)
    dtype = jnp.dtype(dtype) if jax.config.jax_enable_x64 else jnp.dtype(jnp.float32)
    features, logits, skew = (np.asarray(x, dtype) for x in (features, reference_logits, skew))
    if features.ndim not in (3, 4) or features.shape[-3] != features.shape[-2] + 1 or min(features.shape) == 0:
        raise ValueError(f"features: found shape {features.shape}, expected (V + 1, V, d) or (L, V + 1, V, d)")
    if logits.ndim not in (2, 3) or logits.shape[-2:] != features.shape[-3:-1]:
        expected = f"(L, {features.shape[-3]}, {features.shape[-2]}) or without L"
        raise ValueError(f"reference_logits: found shape {logits.shape}, expected {expected}")
    lengths = {features.shape[0]} if features.ndim == 4 else set()
    lengths |= {logits.shape[0]} if logits.ndim == 3 else set()
    lengths |= {length} if length is not None else set()
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(f"length: found {sorted(lengths)} among the arguments, expected one length >= 1")
    (length,) = lengths
    d = features.shape[-1]
    if skew.shape != (d, d):
        raise ValueError(f"skew: found shape {skew.shape}, expected ({d}, {d})")
    if not np.all(np.isfinite(features)) or not np.all(np.isfinite(skew)):
        raise ValueError("features, skew: found NaN or infinite entries, expected finite numbers")
    excess = np.max(np.abs(skew + skew.T))
    if excess > 8 * np.finfo(dtype).eps * np.max(np.abs(skew)):
        raise ValueError(f"skew: found |S + S^T| up to {excess:.3g}, expected S + S^T = 0")
    if np.any(np.isnan(logits) | (logits == np.inf)) or not np.all(np.any(logits > -np.inf, axis=-1)):
        raise ValueError(
            "reference_logits: found NaN, +inf or a row of -inf only, expected finite numbers (or -inf to mask)"
        )
    temperature = np.asarray(temperature, dtype)
    if temperature.shape != () or not 0 < temperature < np.inf:
        raise ValueError(f"temperature: found {temperature}, expected a finite number > 0")
    top = np.max(logits, axis=-1, keepdims=True)
    logits = logits - top - np.log(np.sum(np.exp(logits - top), axis=-1, keepdims=True))
    return SequenceGame(
        jnp.asarray(np.broadcast_to(features, (length, *features.shape[-3:]))),
        jnp.asarray(np.broadcast_to(logits, (length, *logits.shape[-2:]))),
        jnp.asarray((skew - skew.T) / 2),
        jnp.asarray(temperature),
    )


# ---- dynamic programmes ---------------------------------------------------------------------------------------------


def _backward(reduce, potentials: Float[Array, "L C V"]) -> Float[Array, "L C"]:
    """Messages B_s(i) = reduce over j of potentials[s, i, j] + B_{s+1}(j), with B_L = 0."""

    def back(after, potential):
        message = reduce(potential + after[None, :-1])
        return message, message

    return jax.lax.scan(back, jnp.zeros_like(potentials[0, :, 0]), potentials, reverse=True)[1]


def _tilt(game: SequenceGame, direction: Float[Array, " d"]):
    """The policy mu(y) exp(phi(y) . direction) / Z, and log Z."""
    gain = jnp.einsum("sijk,k->sij", game.features, direction, precision="highest")
    potentials = game.reference_logits + gain
    messages = _backward(lambda x: jax.scipy.special.logsumexp(x, axis=1), potentials)
    after = jnp.concatenate([messages[1:], jnp.zeros_like(messages[:1])])
    log_policy = jax.vmap(jax.vmap(log_normalise))(potentials + after[:, None, :-1])
    return log_policy, messages[0, -1]


def _marginals(log_policy: Float[Array, "L C V"]) -> Float[Array, "L C"]:
    """Probability of each previous token, at each position."""

    def forward(now, row):
        after = jnp.matmul(now, jnp.exp(row), precision="highest")
        return jnp.append(after, jnp.zeros_like(after[0])), now

    start = jnp.zeros_like(log_policy[0, :, 0]).at[-1].set(1)
    return jax.lax.scan(forward, start, log_policy)[1]


def _extremes(weights: Float[Array, "L C V"], available: Array):
    """(largest, smallest) sum of weights over the available responses."""
    largest = _backward(lambda x: jnp.max(x, axis=1), jnp.where(available, weights, -jnp.inf))[0, -1]
    smallest = _backward(lambda x: jnp.min(x, axis=1), jnp.where(available, weights, jnp.inf))[0, -1]
    return largest, smallest


def markov_mean(game: SequenceGame, log_policy: Float[Array, "L C V"]) -> Float[Array, " d"]:
    """The mean of the features of a response drawn from a Markov policy.

    Args: game: one game; log_policy: float[L, V + 1, V].
    Returns: float[d], in features. Source: derived: forward marginals. Cost: L V^2 d.
    """
    pairs = _marginals(log_policy)[:, :, None] * jnp.exp(log_policy)
    return jnp.einsum("sij,sijk->k", pairs, game.features, precision="highest")


def _advantage(game: SequenceGame, mean: Float[Array, " d"]) -> Float[Array, " d"]:
    """v with phi(y) . v = (A pi)(y) / tau for an opponent of mean m: S m / (2 tau)."""
    return jnp.matmul(game.skew, mean, precision="highest") / (2 * game.temperature)


def sequence_best_response(game: SequenceGame, mean: Float[Array, " d"]) -> Float[Array, "L C V"]:
    """The policy that is best against an opponent with a given mean of features.

    Args: game: one game; mean: float[d], of any opponent, Markov or not.
    Returns: float[L, V + 1, V], a Markov policy.
    Source: derived: mu(y) exp(phi(y)^T S m / (2 tau)), by backward log-messages. Cost: L V^2 (d + exponentials).
    """
    return _tilt(game, _advantage(game, mean))[0]


def markov_kl(log_p: Float[Array, "L C V"], log_q: Float[Array, "L C V"]) -> Float[Array, ""]:
    """KL divergence between two Markov policies over whole responses, without cancellation.

    Args: log_p, log_q: float[L, V + 1, V].
    Returns: float[], in nats. Source: derived: chain rule of KL. Cost: L V^2 exponentials.
    """
    weights, rows = _marginals(log_p), jax.vmap(jax.vmap(kl))(log_p, log_q)
    return jnp.sum(jnp.where(weights > 0, weights * jnp.where(weights > 0, rows, 0), 0))


def markov_gap(game: SequenceGame, log_policy: Float[Array, "L C V"]) -> Float[Array, ""]:
    """The exact duality gap of a Markov policy, over all V^L responses.

    Args: game: one game; log_policy: float[L, V + 1, V].
    Returns: float[], in probability.
    Source: derived: 2 tau KL(pi || best response to pi), docs/proofs/nash.md#s8-1. Cost: L V^2 d.
    """
    reply = sequence_best_response(game, markov_mean(game, log_policy))
    return 2 * game.temperature * markov_kl(log_policy, reply)


def payoff_bound(game: SequenceGame) -> Float[Array, ""]:
    """A bound on |P - 1/2| over all pairs of available responses; at most 1/2 certifies that P is a preference.

    Args: game: one game.
    Returns: float[], sum_kl |S_kl| M_k M_l / 2 with M_k the largest |phi_k(y)|: not tight for d > 2.
    Source: derived: triangle inequality, M by dynamic programming. Cost: L V^2 d.
    """
    largest = _largest_features(game)
    return jnp.einsum("k,kl,l->", largest, jnp.abs(game.skew), largest, precision="highest") / 2


def _largest_features(game):
    available = game.reference_logits > -jnp.inf
    high, low = jax.vmap(lambda f: _extremes(f, available), in_axes=3)(game.features)
    return jnp.maximum(jnp.abs(high), jnp.abs(low))


def centre_features(game: SequenceGame, log_policy: Float[Array, "L C V"]) -> SequenceGame:
    """The game whose features have mean 0 under a policy; another game, unless the policy is its equilibrium.

    With `log_policy` the reference, the reference becomes the equilibrium at every temperature.

    Args: game: one game; log_policy: float[L, V + 1, V], for instance uniform.
    Returns: the game with features - mean / L at every position.
    Source: derived: docs/proofs/nash.md#s8-1. Cost: L V^2 d.
    """
    mean = markov_mean(game, log_policy) / game.features.shape[0]
    return game._replace(features=game.features - mean[None, None, None, :])


# ---- the equilibrium ------------------------------------------------------------------------------------------------


def _error_terms(game: SequenceGame, log_policy):
    """(span of the residual, bound on the rounding in it, amplification of both)."""
    length, _, num_tokens, d = game.features.shape
    available = game.reference_logits > -jnp.inf
    eps = jnp.finfo(log_policy.dtype).eps
    advantage = _advantage(game, markov_mean(game, log_policy))
    gain = jnp.einsum("sijk,k->sij", game.features, advantage, precision="highest")
    lp, reference = jnp.where(available, log_policy, 0), jnp.where(available, game.reference_logits, 0)
    high, low = _extremes(lp - reference - gain, available)
    # The residual of a response sums L terms, each rounded with its dot product, and rows that sum to 1 to eps only.
    terms = jnp.max(jnp.abs(lp)) + jnp.max(jnp.abs(reference))
    products = jnp.max(jnp.einsum("sijk,k->sij", jnp.abs(game.features), jnp.abs(advantage), precision="highest"))
    summing = length * eps * ((length + 5) * terms + (length + d + 5) * products + 2 * num_tokens)
    # Marginals multiply and add L times, the mean adds their L V (V + 1) products with features: all relative errors.
    relative = eps * (length * (num_tokens + 6) + length * num_tokens * (num_tokens + 1) + 2 * d + 4)
    absolute = jnp.sum(jnp.max(jnp.abs(game.features), axis=(1, 2)), axis=0)
    largest = _largest_features(game)
    moved = jnp.einsum("k,kl,l->", largest, jnp.abs(game.skew), absolute, precision="highest") * relative
    floor = 2 * summing + moved / game.temperature
    return high - low, floor, 1 + payoff_bound(game) / game.temperature


def sequence_equilibrium_error(game: SequenceGame, log_policy: Float[Array, "L C V"]) -> Float[Array, ""]:
    """A bound on the error of a Markov policy as the equilibrium, over all V^L responses.

    Args: game: one game; log_policy: float[L, V + 1, V].
    Returns: float[], bound on the span of log pi(y) - log pi*(y), in nats, rounding included.
    Source: derived: `equilibrium_error`, whose residual is a sum over neighbouring tokens here: its span is found by
      two max-plus recursions. Cost: L V^2 d.
    """
    residual, floor, amplification = _error_terms(game, log_policy)
    return (residual + floor) * amplification


def sequence_equilibrium(game: SequenceGame, *, tol: Number | None = None, max_steps: int = 100) -> Solution:
    """The regularised equilibrium over all V^L responses, by damped Newton on the d means of the features.

    Args:
      game: one game, temperature > 0.
      tol: the largest accepted `bound`; None is twice the rounding floor of the certificate.
      max_steps: limit on Newton steps, static.

    Returns: Solution with value = Markov log-policy float[L, V + 1, V], and bound on the span of
      log value(y) - log pi*(y), see `sequence_equilibrium_error`. STEP_LIMIT also where rounding stops the progress
      before `tol`; NOT_FINITE unless temperature > 0. It has no reverse derivative.
    Raises: ValueError for max_steps < 0.
    Source: derived: the Jacobian I - Cov(phi) S / (2 tau) has eigenvalues 1 + i w, w real: docs/proofs/nash.md#s8-1.
    Cost: a handful of steps of L V^2 d^2 + d^3; under `vmap` as the slowest lane.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps: found {max_steps}, expected an integer >= 0")
    return _solve(game, tol, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _solve(game, tol, *, max_steps):
    dtype = game.features.dtype
    reply_mean = lambda m: markov_mean(game, sequence_best_response(game, m))  # noqa: E731

    def threshold(log_policy):
        if tol is not None:
            return jnp.asarray(tol, dtype)
        _, floor, amplification = _error_terms(game, log_policy)
        return 2 * floor * amplification

    def search(mean, direction, norm):
        """The first trial length that shortens the residual enough, or the end of the list."""

        def trial(carry):
            length, _, _ = carry
            new = mean + length * direction
            fits = jnp.linalg.norm(new - reply_mean(new)) <= (1 - length / 4) * norm
            return length / 2, new, fits

        start = (jnp.ones((), dtype), mean, jnp.array(False))
        _, new, fits = jax.lax.while_loop(lambda c: ~c[2] & (c[0] >= SHORTEST), trial, start)
        return jnp.where(fits, new, mean), fits

    def body(carry):
        mean, steps, _ = carry
        residual = mean - reply_mean(mean)
        jacobian = jnp.eye(mean.size, dtype=dtype) - jax.jacfwd(reply_mean)(mean)
        direction = jnp.linalg.solve(jacobian, -residual[:, None])[:, 0]
        new, moved = search(mean, direction, jnp.linalg.norm(residual))
        log_policy = sequence_best_response(game, new)
        done = ~moved | (sequence_equilibrium_error(game, log_policy) <= threshold(log_policy))
        return new, steps + 1, done

    start = (jnp.zeros(game.skew.shape[0], dtype), jnp.zeros((), jnp.int32), jnp.array(False))
    mean, steps, _ = jax.lax.while_loop(lambda c: ~c[2] & (c[1] < max_steps), body, start)
    log_policy = sequence_best_response(game, mean)
    bound = sequence_equilibrium_error(game, log_policy)
    # At a negative temperature the certificate is negative, and would accept anything.
    finite = (bound < jnp.inf) & (game.temperature > 0)
    status = jnp.where(finite, jnp.where(bound <= threshold(log_policy), CONVERGED, STEP_LIMIT), NOT_FINITE)
    return Solution(log_policy, status.astype(jnp.int32), steps, jnp.where(finite, bound, jnp.inf))


# ---- responses ------------------------------------------------------------------------------------------------------


def _neighbours(game_or_policy: Float[Array, "L C V ..."], responses: Int[Array, "L"]):
    """The entries of a table along a response, one per position."""
    start = jnp.full((1,), game_or_policy.shape[2], responses.dtype)
    before = jnp.concatenate([start, responses[:-1]])
    return game_or_policy[jnp.arange(responses.shape[0]), before, responses]


def response_features(game: SequenceGame, response: Int[Array, " L"]) -> Float[Array, " d"]:
    """phi(y), the sum of the features along one response.

    Args: game: one game; response: int[L], tokens in [0, V).
    Returns: float[d]. Source: derived: definition. Cost: L d.
    """
    return jnp.sum(_neighbours(game.features, response), axis=0)


def response_log_prob(log_policy: Float[Array, "L C V"], response: Int[Array, " L"]) -> Float[Array, ""]:
    """Log-probability of one response under a Markov policy.

    Args: log_policy: float[L, V + 1, V]; response: int[L], tokens in [0, V).
    Returns: float[], in nats. Source: derived: definition. Cost: L.
    """
    return jnp.sum(_neighbours(log_policy, response))


def markov_sample(key: Key[Array, ""], log_policy: Float[Array, "L C V"]) -> Int[Array, " L"]:
    """One response drawn from a Markov policy.

    Args: key; log_policy: float[L, V + 1, V].
    Returns: int[L], tokens. Source: derived: definition. Cost: L V.
    """

    def draw(before, row):
        key, logits = row
        token = jax.random.categorical(key, logits[before]).astype(jnp.int32)
        return token, token

    length, _, num_tokens = log_policy.shape
    keys = jax.random.split(key, length)
    return jax.lax.scan(draw, jnp.asarray(num_tokens, jnp.int32), (keys, log_policy))[1]


def sampled_gap(
    game: SequenceGame, responses: Int[Array, "N L"], log_probs: Float[Array, " N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Plug-in estimate of the duality gap of any policy, a network too, from its own samples.

    Args:
      game: one game, not masked where the policy may go.
      responses: int[N, L], independent draws from the policy, N >= 2. log_probs: float[N], its log-probabilities.

    Returns: (estimate, standard error), float[] each, in probability. The estimate of the mean and of KL(pi || mu) are
      unbiased; log Z at an estimated mean is convex, so the estimate is biased upwards by O(1/N).
    Source: derived: gap = 2 tau (log Z(m) + KL(pi || mu)), docs/proofs/nash.md#s8-1; the error by the delta method.
    Cost: N L d + L V^2 d.
    """
    phi = jax.vmap(lambda y: response_features(game, y))(responses)
    mean = jnp.mean(phi, axis=0)
    ratio = log_probs - jax.vmap(lambda y: response_log_prob(game.reference_logits, y))(responses)
    log_z = lambda m: _tilt(game, _advantage(game, m))[1]  # noqa: E731
    gradient = jax.jacfwd(log_z)(mean)
    influence = ratio + jnp.matmul(phi, gradient, precision="highest")
    count = phi.shape[0]
    deviation = jnp.sqrt(jnp.var(influence, ddof=1) / count)
    return 2 * game.temperature * (log_z(mean) + jnp.mean(ratio)), 2 * game.temperature * deviation


def enumerate_sequences(game: SequenceGame) -> tuple[np.ndarray, PreferenceGame]:
    """All responses and the matrix game over them, for small V^L.

    Args: game: one concrete game.
    Returns: (responses int[V^L, L] in lexicographic order, `PreferenceGame` of n = V^L actions).
    Raises: ValueError above 20 000 responses. Source: derived: definition. Cost: V^(2L) d.
    """
    length, _, num_tokens, _ = game.features.shape
    if num_tokens**length > 20_000:
        raise ValueError(f"game: found {num_tokens}^{length} responses, expected at most 20000 to enumerate")
    responses = np.array(list(itertools.product(range(num_tokens), repeat=length)), np.int32)
    phi = jax.vmap(lambda y: response_features(game, y))(jnp.asarray(responses))
    half = jnp.matmul(jnp.matmul(phi, game.skew / 4, precision="highest"), phi.T, precision="highest")
    reference = jax.vmap(lambda y: response_log_prob(game.reference_logits, y))(jnp.asarray(responses))
    # half - half^T is skew-symmetric in floating point too.
    return responses, PreferenceGame(0.5 + (half - half.T), reference, game.temperature)
