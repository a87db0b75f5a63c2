"""Stochastic gradient steps on the losses of online preference optimisation, with tabular softmax logits.

The sampled forms of `OMD(sgd_step_size(...))`, `EGPO`, `IPO2` and `NashMDPG`: a step draws `samples` pairs or triples,
labels them, and follows the gradient of the mean loss, whose expectation is the exact method's. Labels are soft (the
probability itself, as in the released simulations of Zhou, Fazel and Du, 2025) or hard (one Bernoulli label each).
Only differences of logits matter, so the state keeps them normalised. r is log policy - log reference.
"""

import jax
import jax.numpy as jnp

from rlcore.nash.extragradient import ExtragradientState
from rlcore.nash.game import PreferenceGame, available_actions, log_normalise, mixture_logits
from rlcore.nash.losses import log_ratio
from rlcore.nash.mirror_descent import Memoryless, PolicyState
from rlcore.nash.oracle import bernoulli, draw_actions
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, RandomKey

__all__ = ["SampledEGPO", "SampledIPO1", "SampledIPO2", "SampledNashMDPG"]


def _require(key: RandomKey, samples: int) -> None:
    if key is None:
        raise ValueError("key: found None, expected a key: pairs are sampled")
    if samples < 1:
        raise ValueError(f"samples: found {samples}, expected an integer >= 1")


def _label(key, game, i, j, soft):
    return game.preference[i, j] if soft else bernoulli(key, game.preference, i, j)


def _mean_at(actions: Int[Array, " K"], weights: Float[Array, " K"], n: int) -> Float[Array, " n"]:
    """Mean over samples of weight times the unit vector of the action; a product, not a scatter, which is slow."""
    chosen = (actions[None, :] == jnp.arange(n, dtype=actions.dtype)[:, None]).astype(weights.dtype)
    return jnp.matmul(chosen, weights, precision="highest") / weights.shape[0]


def _mixed(game, log_policy, mixture):
    return jax.nn.softmax(mixture_logits(log_policy, game.reference_logits, mixture))


def _uniform(available: Bool[Array, " n"], dtype) -> Float[Array, " n"]:
    return available.astype(dtype) / jnp.sum(available).astype(dtype)


def _uniform_pair_gradient(
    key: Key[Array, ""],
    game: PreferenceGame,
    log_policy: Float[Array, " n"],
    opponent: Float[Array, " n"],
    samples: int,
    soft: bool,
) -> Float[Array, " n"]:
    """Gradient of mean (r(y) - r(y') - (z(y, y'') - z(y', y'')) / tau)^2, y and y' uniform, y'' from the opponent."""
    pair_key, opponent_key, first_key, second_key = jax.random.split(key, 4)
    uniform = _uniform(available_actions(game), log_policy.dtype)
    y, other = draw_actions(pair_key, uniform, (2, samples))
    rival = draw_actions(opponent_key, opponent, (samples,))
    target = _label(first_key, game, y, rival, soft) - _label(second_key, game, other, rival, soft)
    ratio = log_ratio(log_policy, game.reference_logits)
    error = 2 * (ratio[y] - ratio[other] - target / game.temperature)
    n = log_policy.shape[0]
    return _mean_at(y, error, n) - _mean_at(other, error, n)


@pytree
class SampledIPO1(Memoryless):
    """Online IPO 1 from samples: uniform pairs, a common opponent drawn from the mixture of policy and reference.

    The step's mean is `OMD(sgd_step_size(learning_rate, n, tau))` for mixture 0, and `NashMD` of that step with
    `mixture` otherwise: the "Nash-MD" of the released simulations.

    learning_rate: float[]. mixture: float[] c. samples: triples per step, static. soft: static, probabilities as
      labels; else Bernoulli labels, two per triple.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code. Cost per step: 3 samples n comparisons.
    """

    learning_rate: Array | float
    mixture: Array | float = 0.0
    samples: int = static(100)
    soft: bool = static(True)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step on fresh samples."""
        _require(key, self.samples)
        opponent = _mixed(problem, state.log_policy, self.mixture)
        gradient = _uniform_pair_gradient(key, problem, state.log_policy, opponent, self.samples, self.soft)
        return PolicyState(log_normalise(state.log_policy - self.learning_rate * gradient), state.t + 1)


@pytree
class SampledEGPO:
    """EGPO from samples: a half step of `SampledIPO1`, then a step from the same place against the half step.

    learning_rate: float[]; the mean of each step is that of `EGPO(sgd_step_size(learning_rate, n, tau))`. samples:
      triples per query, static; the two queries draw afresh. soft: static, as in `SampledIPO1`.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code. Cost per step: twice `SampledIPO1`.
    """

    learning_rate: Array | float
    samples: int = static(100)
    soft: bool = static(True)

    def start(self, log_policy: Float[Array, " n"]) -> ExtragradientState:
        """The state before the first step from `log_policy`."""
        return ExtragradientState(log_policy, log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> ExtragradientState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: ExtragradientState, key: RandomKey = None) -> ExtragradientState:
        """One step, each half on fresh samples."""
        _require(key, self.samples)
        here = state.log_policy

        def move(key, opponent):
            gradient = _uniform_pair_gradient(key, problem, here, jnp.exp(opponent), self.samples, self.soft)
            return log_normalise(here - self.learning_rate * gradient)

        here_key, half_key = jax.random.split(key)
        half_step = move(here_key, here)
        return ExtragradientState(move(half_key, half_step), half_step, state.t + 1)


@pytree
class SampledIPO2(Memoryless):
    """Online IPO 2, or IPO-MD(c), from samples: both actions of a pair drawn from the mixture of policy and reference.

    learning_rate: float[]; the step's mean is that of `IPO2(learning_rate, mixture)`. mixture: float[] c. samples:
      pairs per step, static. soft: static, probabilities as labels; else one Bernoulli label per pair.
    Source: Calandriello et al. (2024), arXiv 2403.08635, as quoted. Cost per step: 2 samples n comparisons.
    """

    learning_rate: Array | float
    mixture: Array | float = 0.0
    samples: int = static(100)
    soft: bool = static(True)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step on fresh samples."""
        _require(key, self.samples)
        pair_key, label_key = jax.random.split(key)
        y, other = draw_actions(pair_key, _mixed(problem, state.log_policy, self.mixture), (2, self.samples))
        margin = _label(label_key, problem, y, other, self.soft) - 0.5
        ratio = log_ratio(state.log_policy, problem.reference_logits)
        error = 2 * (ratio[y] - ratio[other] - margin / problem.temperature)
        n = state.log_policy.shape[0]
        gradient = _mean_at(y, error, n) - _mean_at(other, error, n)
        return PolicyState(log_normalise(state.log_policy - self.learning_rate * gradient), state.t + 1)


@pytree
class SampledNashMDPG(Memoryless):
    """Nash-MD-PG from samples: the policy's own actions, weighted by advantage over the mixture minus the KL's part.

    learning_rate: float[]; the step's mean is that of `NashMDPG(learning_rate, mixture)`. mixture: float[] c. samples:
      pairs (policy, opponent) per step, static. soft: static, probabilities as labels; else one Bernoulli label each.
    Source: Munos et al. (2023), arXiv 2312.00886, Nash-MD-PG, as quoted. Cost per step: 2 samples n comparisons.
    """

    learning_rate: Array | float
    mixture: Array | float = 0.0
    samples: int = static(100)
    soft: bool = static(True)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step on fresh samples."""
        _require(key, self.samples)
        own_key, rival_key, label_key = jax.random.split(key, 3)
        p = jnp.exp(state.log_policy)
        y = draw_actions(own_key, p, (self.samples,))
        rival = draw_actions(rival_key, _mixed(problem, state.log_policy, self.mixture), (self.samples,))
        margin = _label(label_key, problem, y, rival, self.soft) - 0.5
        weight = margin - problem.temperature * log_ratio(state.log_policy, problem.reference_logits)[y]
        gradient = _mean_at(y, weight, p.shape[0]) - p * jnp.mean(weight)
        return PolicyState(log_normalise(state.log_policy + self.learning_rate * gradient), state.t + 1)
