"""The losses of preference optimisation, as functions of a policy's log-probabilities and a measure of comparisons.

A method is a loss and a measure (`measure.py`); pi is the policy in training, mu the reference, pi_t one held fixed:

| method                        | loss                    | pairs from   | gain                                     |
| ----------------------------- | ----------------------- | ------------ | ---------------------------------------- |
| IPO                           | `ipo_loss`              | a data set   | votes                                    |
| Online IPO 2                  | `ipo_loss`              | pi           | first against second                     |
| IPO-MD(c)                     | `ipo_loss`              | mix_c(pi)    | first against second                     |
| Online IPO 1                  | `ipo_loss`              | uniform      | both against pi                          |
| released "Nash-MD"            | `ipo_loss`              | uniform      | both against mix_c(pi)                   |
| EGPO                          | `ipo_loss`, twice       | uniform      | both against pi, then the half step      |
| INPO                          | `inpo_loss`             | pi_t         | first against second                     |
| DNO                           | `dno_loss`              | pi_t         | both against pi_t                        |
| DNO-Prct                      | `dpo_loss` from pi_t    | pi_t         | `best_and_worst`                         |
| SPPO                          | `score_regression_loss` | pi_t         | against pi_t                             |
| GPO                           | `score_regression_loss` | pi_t         | `as_scores` of it                        |
| online DPO                    | `dpo_loss`              | pi           | first against second                     |
| Nash-MD-PG, self-play         | `policy_gradient_loss`  | pi           | against mix_c(pi)                        |

Measures hold the policies that they are made from fixed, so the gradient of a loss is the method's. Log-probabilities
are a table, indexed by response; with a model too large for one, a batch's own (say float[2 m], first = 0..m-1,
second = m..2m-1). Constants added to them cancel in losses on pairs. -inf in the reference masks a response.
"""

import jax
import jax.numpy as jnp

from rlcore.nash.game import mixture_logits
from rlcore.nash.measure import Comparisons, Responses
from rlcore.types import Array, Float, Number

__all__ = [
    "dno_loss",
    "dpo_loss",
    "inpo_loss",
    "ipo_loss",
    "log_ratio",
    "policy_gradient_loss",
    "score_regression_loss",
    "token_policy_gradient_loss",
]


def log_ratio(log_policy: Float[Array, "..."], log_reference: Float[Array, "..."]) -> Float[Array, "..."]:
    """log policy - log reference, 0 where the reference masks.

    Args: log_policy, log_reference: float[...] of one shape. Returns: float[...], in nats.
    Source: derived: definition. Cost: n.
    """
    available = log_reference > -jnp.inf
    return jnp.where(available, log_policy, 0) - jnp.where(available, log_reference, 0)


def _difference(ratio: Float[Array, " n"], pairs: Comparisons) -> Float[Array, " m"]:
    return ratio[pairs.first] - ratio[pairs.second]


def ipo_loss(
    log_policy: Float[Array, " n"], log_reference: Float[Array, " n"], pairs: Comparisons, temperature: Number
) -> Float[Array, ""]:
    """E (r(y) - r(y') - gain / tau)^2, r = log(pi / mu).

    Args: log_policy, log_reference: float[n]; pairs; temperature: float[] tau > 0.
    Returns: float[], in nats squared. With votes it is (r(winner) - r(loser) - 1 / (2 tau))^2: the same gradient.
    Source: Calandriello et al. (2024), arXiv 2403.08635, as quoted in digests; uniform pairs: Zhou, Fazel and Du
      (2025), arXiv 2503.08942, released code as restated in this project's specification. Cost: m.
    """
    error = _difference(log_ratio(log_policy, log_reference), pairs) - pairs.gain / temperature
    return jnp.sum(pairs.weight * error**2)


def inpo_loss(
    log_policy: Float[Array, " n"],
    log_reference: Float[Array, " n"],
    log_anchor: Float[Array, " n"],
    pairs: Comparisons,
    temperature: Number,
    step_size: Number,
) -> Float[Array, ""]:
    """E (h(y) - h(y') - eta gain)^2, h = log pi - eta tau log mu - (1 - eta tau) log pi_t.

    Args: log_policy, log_reference: float[n]; log_anchor: float[n], pi_t; pairs: of pi_t; temperature: float[] tau;
      step_size: float[] eta, one over the paper's.
    Returns: float[], in nats squared; its minimiser over all policies is the step of `OMD(step_size)` from pi_t.
    Source: Zhang et al. (2025), INPO, equation 8. Cost: m.
    """
    centre = mixture_logits(log_anchor, log_reference, step_size * temperature)
    error = _difference(log_ratio(log_policy, centre), pairs) - step_size * pairs.gain
    return jnp.sum(pairs.weight * error**2)


def dpo_loss(
    log_policy: Float[Array, " n"], log_reference: Float[Array, " n"], pairs: Comparisons, temperature: Number
) -> Float[Array, ""]:
    """Cross-entropy of sigmoid(tau (r(y) - r(y'))) with the labels 1/2 + gain, r = log(pi / mu).

    Args: log_policy, log_reference: float[n]; pairs: gains in [-1/2, 1/2]; temperature: float[] tau > 0.
    Returns: float[], in nats. With pairs of pi it is online DPO, which fits rewards and is no Nash solver (T13).
    Source: Rafailov et al. (2023); Calandriello et al. (2024), arXiv 2403.08635, as quoted in digests. Cost: m.
    """
    score = temperature * _difference(log_ratio(log_policy, log_reference), pairs)
    # Both terms are >= 0: softplus(score) - label * score would cancel for large scores.
    loss = (0.5 + pairs.gain) * jax.nn.softplus(-score) + (0.5 - pairs.gain) * jax.nn.softplus(score)
    return jnp.sum(pairs.weight * loss)


def dno_loss(
    log_policy: Float[Array, " n"], log_anchor: Float[Array, " n"], pairs: Comparisons, scale: Number
) -> Float[Array, ""]:
    """Cross-entropy of sigmoid(eta_D (log pi/pi_t (y) - log pi/pi_t (y'))) with sigmoid(gain).

    Args: log_policy: float[n]; log_anchor: float[n], pi_t; pairs: of pi_t, judged against it; scale: float[] eta_D > 0.
    Returns: float[], in nats; its minimiser over all policies is the step of `MWU(1 / scale)` from pi_t.
    Source: Rosset et al. (2024), DNO, arXiv 2404.03715, equation 8. Cost: m.
    """
    labels = pairs._replace(gain=jax.nn.sigmoid(pairs.gain) - 0.5)
    return dpo_loss(log_policy, log_anchor, labels, scale)


def score_regression_loss(
    log_policy: Float[Array, " n"], log_anchor: Float[Array, " n"], responses: Responses, step_size: Number
) -> Float[Array, ""]:
    """E (log(pi / pi_t) - eta gain)^2, without the log of the partition function: SPPO, GPO.

    Args: log_policy: float[n], normalised; log_anchor: float[n], pi_t; responses: of pi_t, judged against it;
      step_size: float[] eta > 0.
    Returns: float[], in nats squared. Its minimiser over all policies is not the step of `MWU(step_size)` but a damped
      one, pi_t W(k exp(eta gain)) / k with Lambert's W: docs/proofs/nash.md, T9c.
    Source: SPPO (arXiv 2405.00675), released code; GPO: Zhang et al. (2025), arXiv 2410.02197, equation 5.3. Cost: m.
    """
    error = log_ratio(log_policy, log_anchor)[responses.response] - step_size * responses.gain
    return jnp.sum(responses.weight * error**2)


def token_policy_gradient_loss(
    tokens: Float[Array, "n L"],
    reference: Float[Array, "n L"],
    responses: Responses,
    temperature: Number,
    per_token: bool = False,
) -> Float[Array, ""]:
    """A number whose gradient is minus the policy gradient of P(pi beats the opponent) - tau KL(pi || mu).

    Args: tokens, reference: float[n, L], log-probabilities of the tokens of each response, 0 after its end; responses:
      of pi, judged against the opponent; temperature: float[] tau; per_token: static, each token pays for its own
      log-ratio instead of those to come, as released code does: the gradient of no KL divergence (T16).
    Returns: float[]; only its gradient means anything.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest; reward-to-go: docs/proofs/nash.md, T16.
    Cost: m L.
    """
    taken = tokens[responses.response]
    ratio = jax.lax.stop_gradient(log_ratio(taken, reference[responses.response]))
    cost = ratio if per_token else jnp.flip(jnp.cumsum(jnp.flip(ratio, 1), axis=1), 1)
    # A masked token has probability 0 and weight 0; -inf must not meet that weight.
    seen = jnp.where(reference[responses.response] > -jnp.inf, taken, 0)
    weight = (responses.gain[:, None] - temperature * cost) * seen
    return -jnp.sum(responses.weight * jnp.sum(weight, axis=1))


def policy_gradient_loss(
    log_policy: Float[Array, " n"], log_reference: Float[Array, " n"], responses: Responses, temperature: Number
) -> Float[Array, ""]:
    """`token_policy_gradient_loss` for responses of one token: Nash-MD-PG, self-play, best response.

    Args: log_policy, log_reference: float[n]; responses: of pi, judged against the opponent; temperature: float[] tau.
    Returns: float[]; minus its gradient in the logits is `policy_gradient`.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest. Cost: m.
    """
    return token_policy_gradient_loss(log_policy[:, None], log_reference[:, None], responses, temperature)
