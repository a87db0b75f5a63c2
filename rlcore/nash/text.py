"""Preference games over all short texts: their trees of prefixes, and sampling from them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import PreferenceGame, geometric_mixture, log_normalise, preference_game
from rlcore.types import Array, Float, Int, Number, RandomKey

__all__ = ["TextGame", "paths_of_tree", "sample_responses", "text_game", "token_mixture", "tree_of_paths"]


class TextGame(NamedTuple):
    """A game over the n = V^L texts of L tokens, in lexicographic order; make one with `text_game`.

    preference: float[n, n], Prob(row beats column). reference: float[V+1, V], log-probabilities of the next token given
    the one before, row V at the start. temperature: float[], probability per nat. judge: float[n, n], the preference
    that training sees: the true one, or a learned one.
    """

    preference: Array
    reference: Array
    temperature: Array
    judge: Array

    def paths(self) -> Float[Array, "n L"]:
        """Token log-probabilities of the reference along all texts."""
        return paths_of_tree(self.tree())

    def tree(self) -> list[Float[Array, "_ V"]]:
        """Log-probabilities of the next token under the reference, after every prefix."""
        v = self.reference.shape[1]
        length = round(np.log(self.preference.shape[0]) / np.log(v))
        return [self.reference[v:]] + [jnp.tile(self.reference[:v], (v ** (t - 1), 1)) for t in range(1, length)]

    def game(self) -> PreferenceGame:
        """The same game without its tokens."""
        return PreferenceGame(self.preference, jnp.sum(self.paths(), axis=1), self.temperature)

    def astype(self, dtype) -> "TextGame":
        """All arrays in another precision: the one place where precision changes."""
        return TextGame(*(jnp.asarray(x, dtype) for x in self))


def text_game(preference, reference_logits, temperature, judge=None) -> TextGame:
    """Build and check a text game on the host.

    Args: preference: float[n, n]; reference_logits: float[V+1, V], finite, row V for the first token;
      temperature: float[] > 0; judge: float[n, n], by default the preference.
    Returns: `TextGame`, reference normalised. Raises: ValueError for an n that is no power of V, logits that are not
      finite, and as `preference_game`. Source: derived: definition. Cost: n^2, on the host.
    """
    logits = np.asarray(reference_logits)
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] + 1 or logits.shape[1] < 2:
        raise ValueError(f"reference_logits: found shape {logits.shape}, expected (V + 1, V) with V >= 2")
    if not np.all(np.isfinite(logits)):
        raise ValueError("reference_logits: found entries that are not finite, expected every token to be available")
    n, v = np.shape(preference)[-1], logits.shape[1]
    if n < v or v ** round(np.log(n) / np.log(v)) != n:
        raise ValueError(f"preference: found {n} responses, expected a power of V = {v}")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: found {temperature}, expected a finite number > 0")
    checked = preference_game(preference, temperature=temperature)
    judge = checked.preference if judge is None else preference_game(judge).preference
    reference = jax.vmap(log_normalise)(jnp.asarray(logits, checked.preference.dtype))
    return TextGame(checked.preference, reference, checked.temperature, judge)


def sample_responses(key: RandomKey, log_policy: Float[Array, " n"], count: int) -> Int[Array, " count"]:
    """Independent responses by inversion of the cumulative distribution.

    Args: key; log_policy: float[n], log-probabilities; count: static.
    Returns: int32[count]. Source: derived: inversion. Cost: n exponentials, count log n comparisons.
    """
    cumulative = jnp.cumsum(jnp.exp(log_policy))
    # Rounding may put a draw at the very end, hence the minimum.
    draw = jax.random.uniform(key, (count,), log_policy.dtype) * cumulative[-1]
    index = jnp.searchsorted(cumulative, draw, side="right", method="scan_unrolled")
    return jnp.minimum(index, log_policy.shape[0] - 1).astype(jnp.int32)


def token_mixture(paths: Float[Array, "n L"], other: Float[Array, "n L"], coefficient: Number) -> Float[Array, " n"]:
    """Log-probabilities when every token is drawn from the geometric mixture of both policies at its prefix.

    Args: paths, other: float[n, L], token log-probabilities; coefficient: float[] in [0, 1], weight of `other`.
    Returns: float[n]. What can be sampled from two language models; not the mixture of the sequences' distributions.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest. Cost: n L copies, 2 n exponentials.
    """
    mix = jax.vmap(geometric_mixture, in_axes=(0, 0, None))
    pairs = zip(tree_of_paths(paths), tree_of_paths(other), strict=True)
    return jnp.sum(paths_of_tree([mix(p, q, coefficient) for p, q in pairs]), axis=1)


def paths_of_tree(levels: list[Float[Array, "_ V"]]) -> Float[Array, "n L"]:
    """What a tree says along the path of each of the n = V^L sequences, in lexicographic order.

    Args: levels: L arrays, float[V^t, V]. Returns: float[n, L]. Source: derived: definition. Cost: n L copies.
    """
    v, length = levels[0].shape[-1], len(levels)
    return jnp.stack([jnp.repeat(x.reshape(-1), v ** (length - 1 - t)) for t, x in enumerate(levels)], axis=1)


def tree_of_paths(paths: Float[Array, "n L"]) -> list[Float[Array, "_ V"]]:
    """The inverse of `paths_of_tree`.

    Args: paths: float[n, L], n = V^L. Returns: L arrays, float[V^t, V]. Source: derived. Cost: copies.
    """
    n, length = paths.shape
    v = round(n ** (1 / length))
    return [paths[:: v ** (length - 1 - t), t].reshape(-1, v) for t in range(length)]
