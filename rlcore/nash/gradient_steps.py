"""Exact gradient steps on the population losses of online preference optimisation, with tabular softmax logits.

Each step is stochastic gradient descent on its loss with the expectation taken exactly and the sampling distribution
held fixed (stop-gradient). Only differences of logits matter, so the state keeps them normalised: they are the log
policy. r is log policy - log reference, p the policy, q = geometric mixture of policy and reference with coefficient c.
Gradient descent on the uniform-pair loss "Online IPO 1" is `OMD(sgd_step_size(...))`, and the natural gradient of
Nash-MD-PG(c) is `NashMD(rate, mixture=c)`: mirror descent, in `mirror_descent.py`.
"""

import jax
import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, log_normalise, mixture_logits
from rlcore.nash.losses import log_ratio
from rlcore.nash.mirror_descent import Memoryless, PolicyState
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Number, RandomKey

__all__ = ["IPO2", "NashMDPG", "OnlineDPO", "policy_gradient", "sgd_step_size"]


def sgd_step_size(learning_rate: Number, num_actions: int, temperature: Number) -> Number:
    """The step of `OMD` (or `EGPO`) that equals gradient descent on the uniform-pair loss: 4 lr / (n tau).

    The loss is mean over all pairs of (r(y) - r(y') - ((P q)(y) - (P q)(y')) / tau)^2 with the opponent q held fixed;
    n counts the actions the pairs are drawn from.

    Args: learning_rate: float[]; num_actions: n; temperature: float[] tau > 0.
    Returns: float[] eta. Source: derived: the gradient is (4 / n) (g - mean g), g = r - P q / tau. Cost: O(1).
    """
    return 4 * learning_rate / (num_actions * temperature)


def policy_gradient(
    game: PreferenceGame, log_policy: Float[Array, " n"], opponent: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Gradient in the logits of P(policy beats opponent) - tau KL(policy || reference), the opponent held fixed.

    Args: game: one game; log_policy: float[n]; opponent: float[n], probabilities.
    Returns: float[n], summing to 0. Source: derived: p (w - <p, w>), w = P q - 1/2 - tau r. Cost: n^2, n exponentials.
    """
    p = jnp.exp(log_policy)
    advantage = jnp.matmul(game.preference - 0.5, opponent, precision="highest")
    weight = advantage - game.temperature * log_ratio(log_policy, game.reference_logits)
    return p * (weight - jnp.dot(p, weight, precision="highest"))


def _opponent(game: PreferenceGame, log_policy: Float[Array, " n"], mixture: Number) -> Float[Array, " n"]:
    return jax.nn.softmax(mixture_logits(log_policy, game.reference_logits, mixture))


@pytree
class IPO2(Memoryless):
    """Gradient descent on Online IPO (version 2), or on IPO-MD(c): pairs drawn from the opponent itself.

    The loss is E over y, y' ~ q of (r(y) - r(y') - (P(y > y') - 1/2) / tau)^2, temperature tau > 0.

    learning_rate: float[]. mixture: float[] c; 0 is Online IPO 2, c > 0 is IPO-MD(c).
    Source: Calandriello et al. (2024), arXiv 2403.08635; gradient derived: 4 q (r - <q, r> - (P q - 1/2) / tau).
    Cost per step: n^2, 3 n exponentials.
    """

    learning_rate: Array | float
    mixture: Array | float = 0.0

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; nothing is sampled."""
        q = _opponent(problem, state.log_policy, self.mixture)
        advantage = jnp.matmul(problem.preference - 0.5, q, precision="highest")
        error = log_ratio(state.log_policy, problem.reference_logits) - advantage / problem.temperature
        # <q, advantage> = 0 by skew-symmetry, so centring the error centres r alone.
        gradient = 4 * q * (error - jnp.dot(q, error, precision="highest"))
        return PolicyState(log_normalise(state.log_policy - self.learning_rate * gradient), state.t + 1)


@pytree
class NashMDPG(Memoryless):
    """Policy gradient ascent on P(policy beats q) - tau KL(policy || reference), q held fixed.

    learning_rate: float[]. mixture: float[] c of the opponent; 0 is self-play, 1 a best response to the reference.
    Source: Munos et al. (2023), arXiv 2312.00886, Nash-MD-PG, as quoted; softmax gradient derived:
      p (w - <p, w>), w = P q - 1/2 - tau r.
    Cost per step: n^2, 3 n exponentials.
    """

    learning_rate: Array | float
    mixture: Array | float = 0.0

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; nothing is sampled."""
        q = _opponent(problem, state.log_policy, self.mixture)
        gradient = policy_gradient(problem, state.log_policy, q)
        return PolicyState(log_normalise(state.log_policy + self.learning_rate * gradient), state.t + 1)


@pytree
class OnlineDPO(Memoryless):
    """Gradient descent on online DPO: the logistic loss of tau (r(y) - r(y')) on pairs drawn from the policy.

    The loss is -E over y, y' ~ p of P(y > y') log sigmoid(h) + P(y' > y) log sigmoid(-h), h = tau (r(y) - r(y')).
    Its stationary point is not the equilibrium unless the preference is Bradley-Terry.

    learning_rate: float[].
    Source: Calandriello et al. (2024), arXiv 2403.08635; gradient derived: -2 tau p (P p - sigmoid(h) p).
    Cost per step: 3 n^2, n^2 exponentials.
    """

    learning_rate: Array | float

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; nothing is sampled."""
        p = jnp.exp(state.log_policy)
        ratio = log_ratio(state.log_policy, problem.reference_logits)
        model = jax.nn.sigmoid(problem.temperature * (ratio[:, None] - ratio[None, :]))
        gradient = -2 * problem.temperature * p * jnp.matmul(problem.preference - model, p, precision="highest")
        return PolicyState(log_normalise(state.log_policy - self.learning_rate * gradient), state.t + 1)
