"""Preference games over all responses of a short text: small enough to enumerate, large enough to train on."""

import jax.numpy as jnp
import numpy as np

from rlcore.nash.text import TextGame, text_game

__all__ = ["FAMILIES", "bigram_text", "cyclic_text"]

FEATURES = 4


def bigram_text(
    seed: int = 0,
    vocabulary: int = 6,
    length: int = 4,
    *,
    temperature: float = 0.05,
    cycle: float = 0.6,
    quality: float = 0.6,
    dtype=None,
) -> TextGame:
    """Responses of `length` tokens, a random bigram reference, a preference with a cyclic and a transitive part.

    A response y has features phi(y), the sum of those of its bigrams less the uniform mean; W and g are random.
    P - 1/2 = 0.49 tanh(cycle Z + quality (q_i - q_j)) with Z = phi (W - W^T) phi^T and q = phi g, both scaled to
    deviation 1. (Less the mean under the reference, the reference itself would be the equilibrium.)

    Args: seed: of numpy's default generator, which draws reference logits, features, W and g in this order;
      vocabulary: V >= 2; length: L >= 1; temperature: > 0, in probability per nat; cycle, quality: weights;
      dtype: of the arrays, the default float type if None; all is computed in float64 and rounded once.
    Returns: `TextGame` over n = V^L responses. Raises: ValueError for a size or temperature out of range, or n > 20000.
    Source: derived: the validated configuration of this project's specification, E7. Cost: n^2, on the host.
    """
    for name, value, least in (("vocabulary", vocabulary, 2), ("length", length, 1)):
        if not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}: found {value!r}, expected an integer >= {least}")
    if vocabulary**length > 20_000:
        raise ValueError(f"vocabulary ** length: found {vocabulary**length} responses, expected at most 20000")
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((vocabulary + 1, vocabulary))
    table = rng.standard_normal((vocabulary + 1, vocabulary, FEATURES))
    form, direction = rng.standard_normal((FEATURES, FEATURES)), rng.standard_normal(FEATURES)
    tokens = np.indices((vocabulary,) * length).reshape(length, -1).T
    before = np.concatenate([np.full((len(tokens), 1), vocabulary), tokens[:, :-1]], axis=1)
    features = table[before, tokens].sum(axis=1)
    features -= features.mean(axis=0)
    cyclic = features @ (form - form.T) @ features.T
    value = features @ direction
    score = cycle * cyclic / cyclic.std() + quality * (value[:, None] - value[None, :]) / value.std()
    margin = 0.49 * np.tanh(score)
    # Matrix products round the two halves differently.
    margin = np.triu(margin, 1) - np.triu(margin, 1).T
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return text_game(0.5 + margin.astype(dtype), logits.astype(dtype), temperature)


def cyclic_text(
    seed: int = 0, vocabulary: int = 6, length: int = 4, *, temperature: float = 0.02, cycle: float = 1.0, dtype=None
) -> TextGame:
    """`bigram_text` without its transitive part and colder: training first makes the gap worse.

    Args: as `bigram_text`. Returns: `TextGame`. Raises: as `bigram_text`.
    Source: derived: the harder variant of this project's specification, E7. Cost: n^2, on the host.
    """
    return bigram_text(seed, vocabulary, length, temperature=temperature, cycle=cycle, quality=0.0, dtype=dtype)


FAMILIES = {"bigram": bigram_text, "cyclic": cyclic_text}
