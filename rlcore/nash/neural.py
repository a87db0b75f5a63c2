"""Gradient descent on the losses of online preference optimisation through any parameterisation of the policies.

An objective is `loss(key, game, log_policy, opponent) -> float[]` for one game: r = log_policy - log reference, and
nothing but `log_policy` is differentiated; every action must be available. Its static field `samples` says how the
expectation is taken: None is exact, K draws K pairs or triples with soft labels (the probability itself). For tabular
logits the steps are those of `gradient_steps.py`, `mirror_descent.py` and `sampled_gradients.py`, which share no code
with this file.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, geometric_mixture, log_normalise
from rlcore.nash.oracle import draw_actions
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, PyTree, RandomKey

__all__ = ["Advantage", "NeuralDescent", "NeuralState", "OwnPairs", "UniformPairs", "observe_gaps"]


def _require(key: RandomKey, samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples: found {samples}, expected an integer >= 1, or None for the exact expectation")
    if key is None:
        raise ValueError(f"key: found None with samples = {samples}, expected a key: pairs are sampled")


def _inner(x, y):
    return jnp.dot(x, y, precision="highest")


def _rates(game: PreferenceGame, opponent: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.matmul(game.preference - 0.5, opponent, precision="highest")


@pytree
class UniformPairs:
    """Squared error on uniform pairs, both judged against an opponent: Online IPO 1, and the step inside EGPO.

    The mean of (r(y) - r(y') - (P(y > y'') - P(y' > y'')) / tau)^2 over uniform y, y' and y'' from the opponent; exact,
    P(. > y'') is averaged inside the square.

    mixture: float[] c, weight of the reference in the opponent; above 0 it is the "Nash-MD" of the released
      simulations. samples: triples, static, or None.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code. Cost: n^2, or 3 K draws.
    """

    mixture: Array | float = 0.0
    samples: int | None = static(None)

    def loss(
        self, key: RandomKey, game: PreferenceGame, log_policy: Float[Array, " n"], opponent: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """The loss; `opponent` is log-probabilities before mixing."""
        q = jnp.exp(geometric_mixture(opponent, game.reference_logits, self.mixture))
        ratio = log_policy - game.reference_logits
        if self.samples is None:
            # The mean square of all differences is twice the variance.
            return 2 * jnp.var(ratio - _rates(game, q) / game.temperature)
        _require(key, self.samples)
        pair_key, opponent_key = jax.random.split(key)
        first, second = jax.random.randint(pair_key, (2, self.samples), 0, ratio.shape[0], jnp.int32)
        rival = draw_actions(opponent_key, q, (self.samples,))
        gain = game.preference[first, rival] - game.preference[second, rival]
        return jnp.mean((ratio[first] - ratio[second] - gain / game.temperature) ** 2)


@pytree
class OwnPairs:
    """Squared error on pairs from the policy itself: Online IPO 2, or IPO-MD(c) from its mixture with the reference.

    The mean of (r(y) - r(y') - (P(y > y') - 1/2) / tau)^2, less its value at r = 0 where it is exact.

    mixture: float[] c, weight of the reference in the law of the pairs. samples: pairs, static, or None.
    Source: Calandriello et al. (2024), arXiv 2403.08635, as quoted in a digest. Cost: n^2, or 2 K draws.
    """

    mixture: Array | float = 0.0
    samples: int | None = static(None)

    def loss(
        self, key: RandomKey, game: PreferenceGame, log_policy: Float[Array, " n"], opponent: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """The loss; `opponent` is log-probabilities before mixing."""
        q = jnp.exp(geometric_mixture(opponent, game.reference_logits, self.mixture))
        ratio = log_policy - game.reference_logits
        if self.samples is None:
            # The square expanded, by skew-symmetry of P - 1/2; centred, so that nothing cancels.
            ratio = ratio - _inner(q, ratio)
            return 2 * _inner(q, ratio**2) - 4 * _inner(q * ratio, _rates(game, q)) / game.temperature
        _require(key, self.samples)
        first, second = draw_actions(key, q, (2, self.samples))
        gain = game.preference[first, second] - 0.5
        return jnp.mean((ratio[first] - ratio[second] - gain / game.temperature) ** 2)


@pytree
class Advantage:
    """Policy gradient: log-probabilities of own actions, weighted by the advantage over the opponent less tau r.

    The value is of no interest; the gradient is that of -(P(policy beats q) - tau KL(policy || reference)), q held
    fixed: self-play (c = 0), Nash-MD-PG, best response to the reference (c = 1). The advantage is centred at 1/2; the
    released simulations leave out the 1/2, which adds noise to sampled steps and nothing to their mean.

    mixture: float[] c, weight of the reference in q. samples: pairs (own action, opponent's), static, or None.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest. Cost: n^2, or 2 K draws.
    """

    mixture: Array | float = 0.0
    samples: int | None = static(None)

    def loss(
        self, key: RandomKey, game: PreferenceGame, log_policy: Float[Array, " n"], opponent: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """The surrogate; `opponent` is log-probabilities before mixing."""
        q = jnp.exp(geometric_mixture(opponent, game.reference_logits, self.mixture))
        held = jax.lax.stop_gradient(log_policy)
        cost = game.temperature * (held - game.reference_logits)
        if self.samples is None:
            return -_inner(jnp.exp(held) * (_rates(game, q) - cost), log_policy)
        _require(key, self.samples)
        own_key, rival_key = jax.random.split(key)
        y = draw_actions(own_key, jnp.exp(held), (self.samples,))
        rival = draw_actions(rival_key, q, (self.samples,))
        return -jnp.mean((game.preference[y, rival] - 0.5 - cost[y]) * log_policy[y])


class NeuralState(NamedTuple):
    """The state of `NeuralDescent`.

    params: of the network. log_policy: float[R, n], the policies that they give. t: int[], steps taken.
    """

    params: PyTree
    log_policy: Array
    t: Array


@pytree
class NeuralDescent:
    """Gradient descent on the sum of an objective over R games, whose policies come from one network.

    The problem is a `PreferenceGame` with a leading axis R on its arrays. Where policies share parameters the runs are
    coupled: each follows the gradients of all.

    network: static, `init(key) -> params` and `apply(params) -> float[R, n]`, logits (`rlcore.nn.shared`). objective:
      one of this module. learning_rate: float[]. extragradient: static; the opponents are the policies after a
      temporary step from the same parameters (EGPO), both gradients being taken at these.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released simulations: plain SGD, losses summed over runs.
    Cost per step: R losses, one pass of the network forward and backward; the extragradient doubles it.
    """

    network: object = static()
    objective: PyTree = dataclasses.field(default_factory=UniformPairs)
    learning_rate: Array | float = 1e-3
    extragradient: bool = static(False)

    def policies(self, params: PyTree) -> Float[Array, "R n"]:
        """Log-probabilities of all runs."""
        return jax.vmap(log_normalise)(self.network.apply(params))

    def start(self, params: PyTree) -> NeuralState:
        """The state before the first step from these parameters."""
        return NeuralState(params, self.policies(params), jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey) -> NeuralState:
        """Start at a fresh network; its policies are the references only if those were made from it."""
        return self.start(self.network.init(key))

    def step(self, problem: PreferenceGame, state: NeuralState, key: RandomKey = None) -> NeuralState:
        """One step, each gradient on fresh samples where they are drawn."""
        runs = state.log_policy.shape[0]
        half_key, key = (None, None) if key is None else jax.random.split(key)

        def descend(key, opponents):
            keys = None if key is None else jax.random.split(key, runs)
            held = jax.lax.stop_gradient(opponents)

            def total(params):
                losses = jax.vmap(self.objective.loss, in_axes=(None if key is None else 0, 0, 0, 0))
                return jnp.sum(losses(keys, problem, self.policies(params), held))

            gradient = jax.grad(total)(state.params)
            return jax.tree.map(lambda p, g: p - self.learning_rate * g, state.params, gradient)

        opponents = state.log_policy
        if self.extragradient:
            opponents = self.policies(descend(half_key, opponents))
        params = descend(key, opponents)
        return NeuralState(params, self.policies(params), state.t + 1)


def observe_gaps(games: PreferenceGame, state: NeuralState) -> Float[Array, " R"]:
    """Duality gap of every run, best responses over all policies (not those of the network).

    Args: games: leading axis R; state: one with `log_policy` float[R, n].
    Returns: float[R]. Source: `duality_gap`. Cost: R n^2.
    """
    return jax.vmap(PreferenceGame.gap)(games, state.log_policy)
