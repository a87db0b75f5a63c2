"""Objectives of preference optimisation for training: what each samples, and its loss of `losses.py`.

An objective is `loss(key, game, paths, seen) -> float[]`: `paths` are the token log-probabilities float[n, L] of the
policy in training, `seen` what it was given besides. With `batch` responses or pairs it sees what it would see with a
language model: sampled sequences, their token log-probabilities and comparisons of pairs; with batch = None it is the
population loss, its measure exact. `DeepNash` trains networks on them, `IterativePO` tables. All gradients at the
reference have the size of the policy gradient's, which fixes the factors in front (Adam forgets them).
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from rlcore.nash.game import geometric_mixture
from rlcore.nash.losses import (
    dno_loss,
    dpo_loss,
    inpo_loss,
    ipo_loss,
    score_regression_loss,
    token_policy_gradient_loss,
)
from rlcore.nash.measure import (
    all_judged_pairs,
    all_pairs,
    all_responses,
    all_tuples,
    as_scores,
    best_and_worst,
    bradley_terry_votes,
    judge,
    sampled_judged_pairs,
    sampled_pairs,
    sampled_tuples,
)
from rlcore.nash.text import TextGame, token_mixture
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, RandomKey

__all__ = [
    "DNO",
    "INPO",
    "DNOPairs",
    "OnlineDPO",
    "PairIPO",
    "PolicyGradient",
    "ScoreRegression",
    "Seen",
    "UniformIPO",
]


class Seen(NamedTuple):
    """What an objective is given besides the policy in training; nothing is differentiated.

    reference: float[n, L], token log-probabilities. opponent: float[n, L], those of the policy played against.
    anchor: float[n], log-probabilities of the policy at the last refresh.
    """

    reference: Array
    opponent: Array
    anchor: Array


def _pairs(key, game, log_first, log_second, batch, bernoulli=False):
    """Pairs of two policies, judged against each other."""
    if batch is None:
        return all_pairs(game.judge, log_first, log_second)
    return sampled_pairs(key, game.judge, log_first, log_second, batch, bernoulli)


@pytree
class PolicyGradient:
    """Advantage over a sampled opponent, less the KL cost of the tokens to come: self-play, Nash-MD-PG, best response.

    mixture: float[] in [0, 1], weight of the reference in the opponent; 0 self-play, 1 the best response to the
    reference. batch: static. token_mixing: mix token by token, as one can sample, or whole sequences; static.
    per_token_kl: each token pays for its own log-ratio alone, as released code does: biased (T16); static.
    bernoulli: votes instead of probabilities; static.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest; TRL's trainer for `per_token_kl`.
    """

    mixture: Array | float = 0.0
    batch: int | None = static(256)
    token_mixing: bool = static(True)
    per_token_kl: bool = static(False)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Its gradient is minus the policy gradient."""
        if self.token_mixing:
            opponent = token_mixture(seen.opponent, seen.reference, self.mixture)
        else:
            opponent = geometric_mixture(jnp.sum(seen.opponent, 1), jnp.sum(seen.reference, 1), self.mixture)
        policy = jnp.sum(paths, axis=1)
        if self.batch is None:
            responses = all_responses(game.judge, policy, opponent)
        else:
            responses = sampled_pairs(key, game.judge, policy, opponent, self.batch, self.bernoulli).responses()
        return token_policy_gradient_loss(paths, seen.reference, responses, game.temperature, self.per_token_kl)


@pytree
class PairIPO:
    """Squared error of log-ratio differences on pairs of one's own: Online IPO 2 at mixture 0, IPO-MD above.

    mixture: float[] in [0, 1], weight of the reference in the policy that both responses come from; batch: pairs;
    bernoulli. The last two are static.
    Source: Calandriello et al. (2024), arXiv 2403.08635, as quoted in digests.
    """

    mixture: Array | float = 0.0
    batch: int | None = static(256)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """temperature / 4 times the squared error."""
        source = token_mixture(seen.opponent, seen.reference, self.mixture)
        pairs = _pairs(key, game, source, source, self.batch, self.bernoulli)
        loss = ipo_loss(jnp.sum(paths, axis=1), jnp.sum(seen.reference, axis=1), pairs, game.temperature)
        return game.temperature / 4 * loss


@pytree
class UniformIPO:
    """Squared error on uniform pairs, both judged against an opponent: Online IPO 1, the step inside EGPO.

    mixture: float[] in [0, 1], weight of the reference in the opponent (above 0 the "Nash-MD" of the released code);
    batch: pairs; bernoulli. The last two are static.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code as restated in this project's specification.
    """

    mixture: Array | float = 0.0
    batch: int | None = static(256)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """temperature / 4 times the squared error."""
        opponent = token_mixture(seen.opponent, seen.reference, self.mixture)
        if self.batch is None:
            pairs = all_judged_pairs(game.judge, opponent)
        else:
            pairs = sampled_judged_pairs(key, game.judge, opponent, self.batch, self.bernoulli)
        loss = ipo_loss(jnp.sum(paths, axis=1), jnp.sum(seen.reference, axis=1), pairs, game.temperature)
        return game.temperature / 4 * loss


@pytree
class OnlineDPO:
    """Logistic loss on pairs of one's own: no Nash solver, it fits rewards (T13).

    batch: pairs, static; bernoulli: static. Source: Rafailov et al. (2023), with pairs from the policy itself.
    """

    batch: int | None = static(256)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Cross-entropy over 2 temperature."""
        policy = jnp.sum(paths, axis=1)
        pairs = _pairs(key, game, policy, policy, self.batch, self.bernoulli)
        return dpo_loss(policy, jnp.sum(seen.reference, axis=1), pairs, game.temperature) / (2 * game.temperature)


@pytree
class INPO:
    """Regression whose minimiser is one mirror-descent step from the anchor.

    step_size: float[] in (0, 1 / temperature], of the explicit step; batch: pairs, static; bernoulli: static.
    Source: Zhang et al. (2025), INPO, equation 8. step_size is 1 over the paper's eta.
    """

    anchored: ClassVar[bool] = True
    step_size: Array | float = 2.0
    batch: int | None = static(256)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Squared error over 4 step sizes."""
        pairs = _pairs(key, game, seen.anchor, seen.anchor, self.batch, self.bernoulli)
        policy, reference = jnp.sum(paths, axis=1), jnp.sum(seen.reference, axis=1)
        loss = inpo_loss(policy, reference, seen.anchor, pairs, game.temperature, self.step_size)
        return loss / (4 * self.step_size)


@pytree
class ScoreRegression:
    """Regression of log-ratios to the anchor on gains against it: SPPO on probabilities, GPO on their logits.

    step_size: float[] > 0; batch: static; logits: regress on the preference score instead, static; bernoulli: static.
    Without a reference both aim at the game without temperature.
    Source: SPPO (arXiv 2405.00675), here with all samples instead of the best and worst of 5; GPO: Zhang et al. (2025),
    arXiv 2410.02197, equation 5.3.
    """

    anchored: ClassVar[bool] = True
    step_size: Array | float = 2.0
    batch: int | None = static(256)
    logits: bool = static(False)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Squared error over 2 step sizes."""
        if self.batch is None and not self.logits:
            responses = all_responses(game.judge, seen.anchor, seen.anchor)
        else:
            votes = self.bernoulli and not self.logits
            responses = _pairs(key, game, seen.anchor, seen.anchor, self.batch, votes).responses()
        responses = as_scores(responses) if self.logits else responses
        return score_regression_loss(jnp.sum(paths, axis=1), seen.anchor, responses, self.step_size) / (
            2 * self.step_size
        )


@pytree
class DNO:
    """Cross-entropy of log-ratios to the anchor with win rates against it.

    scale: float[] > 0, the paper's eta, one over the step; batch: pairs, static. Win rates against it are exact.
    bernoulli: static, one vote of probability sigmoid(difference of win rates) for each sampled pair.
    Source: Rosset et al. (2024), arXiv 2404.03715, equation 8.
    """

    anchored: ClassVar[bool] = True
    scale: Array | float = 0.5
    batch: int | None = static(256)
    bernoulli: bool = static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Cross-entropy over the scale."""
        policy = jnp.sum(paths, axis=1)
        pairs = judge(_pairs(key, game, seen.anchor, seen.anchor, self.batch), game.judge, seen.anchor)
        if self.bernoulli and self.batch is not None:
            votes = bradley_terry_votes(jax.random.fold_in(key, 1), pairs)
            return dpo_loss(policy, seen.anchor, votes, self.scale) / self.scale
        return dno_loss(policy, seen.anchor, pairs, self.scale) / self.scale


@pytree
class DNOPairs:
    """Contrast of the best with the worst of a few samples where they are far apart: DNO-Prct.

    scale: float[] > 0; margin: float[], least difference of win rates; batch: prompts, static; samples: responses each,
    static; they are judged against each other.
    Source: Rosset et al. (2024), arXiv 2404.03715, algorithm 2.
    """

    anchored: ClassVar[bool] = True
    scale: Array | float = 0.5
    margin: Array | float = 0.25
    batch: int | None = static(256)
    samples: int = static(5)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Logistic loss over the scale, mean over the pairs kept."""
        if self.batch is None:
            drawn, weight = all_tuples(seen.anchor, self.samples)
        else:
            drawn, weight = sampled_tuples(key, seen.anchor, self.batch, self.samples)
        pairs = best_and_worst(drawn, weight, game.judge, self.margin)
        return dpo_loss(jnp.sum(paths, axis=1), seen.anchor, pairs, self.scale) / self.scale
