"""Training a transformer on a preference game over all short texts, with every measure exact.

The responses can be enumerated, so one pass over the tree of prefixes gives the log-probability of each; sequences are
then drawn from that table, and losses look their log-probabilities up in it. Every objective still sees only what it
would see with a language model: sampled sequences, their token log-probabilities and comparisons of pairs.

An objective is `loss(key, game, paths, seen) -> float[]`: `paths` are the token log-probabilities float[n, L] of the
policy in training, `seen` what it was given besides. All gradients at the reference have the size of the policy
gradient's, which fixes the factors in front (Adam forgets them).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcore.nash.game import geometric_mixture, kl, log_normalise, unregularised_gap, win_probability
from rlcore.nash.text import TextGame, paths_of_tree, sample_responses, token_mixture
from rlcore.nn.transformer import Transformer
from rlcore.solver import iterate
from rlcore.types import Array, Float, PyTree, RandomKey

__all__ = [
    "DNO",
    "INPO",
    "DNOPairs",
    "DeepNash",
    "DeepState",
    "OnlineDPO",
    "PairIPO",
    "PolicyGradient",
    "ScoreRegression",
    "Seen",
    "UniformIPO",
    "train",
]


class Seen(NamedTuple):
    """What an objective is given besides the policy in training; nothing is differentiated.

    reference: float[n, L], token log-probabilities. opponent: float[n, L], those of the policy played against.
    anchor: float[n], log-probabilities of the policy at the last refresh.
    """

    reference: Array
    opponent: Array
    anchor: Array


def _labels(key, game, first, second, bernoulli):
    """What the judge says of pairs: probabilities, or one vote each."""
    win = game.judge[first, second]
    return (jax.random.uniform(key, win.shape, win.dtype) < win).astype(win.dtype) if bernoulli else win


def _static(default):
    return dataclasses.field(default=default, metadata={"static": True})


def _objective(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_objective
class PolicyGradient:
    """Advantage over a sampled opponent, less the KL cost of the tokens to come: self-play, Nash-MD-PG, best response.

    mixture: float[] in [0, 1], weight of the reference in the opponent; 0 self-play, 1 the best response to the
    reference. batch: static. token_mixing: mix token by token, as one can sample, or whole sequences; static.
    per_token_kl: each token pays for its own log-ratio alone, as released code does: biased (T16); static.
    bernoulli: votes instead of probabilities; static.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted in a digest; TRL's trainer for `per_token_kl`.
    """

    mixture: Array | float = 0.0
    batch: int = _static(256)
    token_mixing: bool = _static(True)
    per_token_kl: bool = _static(False)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Its gradient is minus the policy gradient."""
        own, other, vote = jax.random.split(key, 3)
        if self.token_mixing:
            opponent = token_mixture(seen.opponent, seen.reference, self.mixture)
        else:
            opponent = geometric_mixture(jnp.sum(seen.opponent, 1), jnp.sum(seen.reference, 1), self.mixture)
        first = sample_responses(own, jax.lax.stop_gradient(jnp.sum(paths, axis=1)), self.batch)
        second = sample_responses(other, opponent, self.batch)
        tokens = paths[first]
        ratio = jax.lax.stop_gradient(tokens) - seen.reference[first]
        cost = ratio if self.per_token_kl else jnp.flip(jnp.cumsum(jnp.flip(ratio, 1), axis=1), 1)
        gain = _labels(vote, game, first, second, self.bernoulli) - 0.5
        return -jnp.mean(jnp.sum((gain[:, None] - game.temperature * cost) * tokens, axis=1))


@_objective
class PairIPO:
    """Squared error of log-ratio differences on pairs of one's own: Online IPO 2 at mixture 0, IPO-MD above.

    mixture: float[] in [0, 1], weight of the reference in the policy that both responses come from; batch: pairs;
    bernoulli. The last two are static.
    Source: Calandriello et al. (2024), arXiv 2403.08635, as quoted in digests.
    """

    mixture: Array | float = 0.0
    batch: int = _static(256)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """temperature / 4 times the squared error."""
        own, other, vote = jax.random.split(key, 3)
        opponent = token_mixture(seen.opponent, seen.reference, self.mixture)
        first, second = (sample_responses(k, opponent, self.batch) for k in (own, other))
        ratio = jnp.sum(paths - seen.reference, axis=1)
        gain = _labels(vote, game, first, second, self.bernoulli) - 0.5
        return game.temperature / 4 * jnp.mean((ratio[first] - ratio[second] - gain / game.temperature) ** 2)


@_objective
class UniformIPO:
    """Squared error on uniform pairs, both judged against an opponent: Online IPO 1, the step inside EGPO.

    mixture: float[] in [0, 1], weight of the reference in the opponent (above 0 the "Nash-MD" of the released code);
    batch: pairs; bernoulli. The last two are static.
    Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code as restated in this project's specification.
    """

    mixture: Array | float = 0.0
    batch: int = _static(256)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """temperature / 4 times the squared error."""
        pair, other, vote, last = jax.random.split(key, 4)
        first, second = jax.random.randint(pair, (2, self.batch), 0, paths.shape[0], jnp.int32)
        opponent = sample_responses(other, token_mixture(seen.opponent, seen.reference, self.mixture), self.batch)
        ratio = jnp.sum(paths - seen.reference, axis=1)
        gain = _labels(vote, game, first, opponent, self.bernoulli) - _labels(
            last, game, second, opponent, self.bernoulli
        )
        return game.temperature / 4 * jnp.mean((ratio[first] - ratio[second] - gain / game.temperature) ** 2)


@_objective
class OnlineDPO:
    """Logistic loss on pairs of one's own: no Nash solver, it fits rewards (T13).

    batch: pairs, static; bernoulli: static. Source: Rafailov et al. (2023), with pairs from the policy itself.
    """

    batch: int = _static(256)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Cross-entropy over 2 temperature."""
        own, other, vote = jax.random.split(key, 3)
        policy = jax.lax.stop_gradient(jnp.sum(paths, axis=1))
        first, second = (sample_responses(k, policy, self.batch) for k in (own, other))
        ratio = jnp.sum(paths - seen.reference, axis=1)
        label = _labels(vote, game, first, second, self.bernoulli)
        score = game.temperature * (ratio[first] - ratio[second])
        return jnp.mean(jax.nn.softplus(score) - label * score) / (2 * game.temperature)


@_objective
class INPO:
    """Regression whose minimiser is one mirror-descent step from the anchor.

    step_size: float[] in (0, 1 / temperature], of the explicit step; batch: pairs, static; bernoulli: static.
    Source: Zhang et al. (2025), INPO, equation 8. step_size is 1 over the paper's eta.
    """

    anchored: ClassVar[bool] = True
    step_size: Array | float = 2.0
    batch: int = _static(256)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Squared error over 4 step sizes."""
        own, other, vote = jax.random.split(key, 3)
        first, second = (sample_responses(k, seen.anchor, self.batch) for k in (own, other))
        pull = self.step_size * game.temperature
        ratio = jnp.sum(paths, 1) - pull * jnp.sum(seen.reference, 1) - (1 - pull) * seen.anchor
        gain = _labels(vote, game, first, second, self.bernoulli) - 0.5
        return jnp.mean((ratio[first] - ratio[second] - self.step_size * gain) ** 2) / (4 * self.step_size)


@_objective
class ScoreRegression:
    """Regression of log-ratios to the anchor on gains against it: SPPO on probabilities, GPO on their logits.

    step_size: float[] > 0; batch: static; logits: regress on the preference score instead, static; bernoulli: static.
    Without a reference both aim at the game without temperature.
    Source: SPPO (arXiv 2405.00675), here with all samples instead of the best and worst of 5; GPO: Zhang et al. (2025),
    arXiv 2410.02197, equation 5.3.
    """

    anchored: ClassVar[bool] = True
    step_size: Array | float = 2.0
    batch: int = _static(256)
    logits: bool = _static(False)
    bernoulli: bool = _static(False)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Squared error over 2 step sizes."""
        own, other, vote = jax.random.split(key, 3)
        first, second = (sample_responses(k, seen.anchor, self.batch) for k in (own, other))
        label = _labels(vote, game, first, second, self.bernoulli and not self.logits)
        gain = jax.scipy.special.logit(label) if self.logits else label - 0.5
        error = jnp.sum(paths[first], axis=1) - seen.anchor[first] - self.step_size * gain
        return jnp.mean(error**2) / (2 * self.step_size)


@_objective
class DNO:
    """Cross-entropy of log-ratios to the anchor with win rates against it.

    scale: float[] > 0, the paper's eta, one over the step; batch: pairs, static. Win rates against it are exact.
    Source: Rosset et al. (2024), arXiv 2404.03715, equation 8.
    """

    anchored: ClassVar[bool] = True
    scale: Array | float = 0.5
    batch: int = _static(256)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Cross-entropy over the scale."""
        first, second = (sample_responses(k, seen.anchor, self.batch) for k in jax.random.split(key))
        wins = jnp.matmul(game.judge, jnp.exp(seen.anchor))
        ratio = jnp.sum(paths, axis=1) - seen.anchor
        score = self.scale * (ratio[first] - ratio[second])
        label = jax.nn.sigmoid(wins[first] - wins[second])
        return jnp.mean(jax.nn.softplus(score) - label * score) / self.scale


@_objective
class DNOPairs:
    """Contrast of the best with the worst of a few samples where they are far apart: DNO-Prct.

    scale: float[] > 0; margin: float[], least difference of win rates; batch: prompts, static; samples: responses each,
    static; they are judged against each other.
    Source: Rosset et al. (2024), arXiv 2404.03715, algorithm 2.
    """

    anchored: ClassVar[bool] = True
    scale: Array | float = 0.5
    margin: Array | float = 0.25
    batch: int = _static(256)
    samples: int = _static(5)

    def loss(self, key: RandomKey, game: TextGame, paths: Float[Array, "n L"], seen: Seen) -> Float[Array, ""]:
        """Logistic loss over the scale, mean over the pairs kept."""
        drawn = sample_responses(key, seen.anchor, self.batch * self.samples).reshape(self.batch, self.samples)
        wins = jnp.mean(game.judge[drawn[:, :, None], drawn[:, None, :]], axis=2)
        best, worst = (
            jnp.take_along_axis(drawn, f(wins, axis=1)[:, None], axis=1)[:, 0] for f in (jnp.argmax, jnp.argmin)
        )
        keep = (jnp.max(wins, axis=1) - jnp.min(wins, axis=1) >= self.margin).astype(wins.dtype)
        ratio = jnp.sum(paths, axis=1) - seen.anchor
        score = self.scale * (ratio[best] - ratio[worst])
        return jnp.sum(keep * jax.nn.softplus(-score)) / jnp.maximum(jnp.sum(keep), 1) / self.scale


class DeepState(NamedTuple):
    """The state of training.

    params: of the network; moments: of Adam; average: running mean of the parameters, or None; anchor: float[n],
    log-probabilities at the last refresh; count: int32[], steps done.
    """

    params: PyTree
    moments: PyTree
    average: PyTree
    anchor: Array
    count: Array


@_objective
class DeepNash:
    """Adam on an objective, for a policy that is the reference plus a transformer: a `Solver` for a `TextGame`.

    objective: one of this module. learning_rate: float[], decays linearly to 0 at `decay_steps`, float[] (inf: never).
    network: static. extragradient: the opponent is the policy after a temporary step, of which neither parameters nor
    moments remain (EGPO); static. refresh: steps between renewals of the anchor, if `anchored`; static.
    decay: float[] or None: the opponent is the running mean thbar <- decay thbar + (1 - decay) th of the parameters
    (Nash-EMA); None plays against the policy itself.
    Source: as the objective; extragradient: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code restated.
    Cost: one pass forward and backward over (V^L - 1) / (V - 1) prefixes per step, two for the extragradient.
    """

    objective: PyTree
    network: Transformer = _static(Transformer(6, 4))
    learning_rate: Array | float = 5e-4
    decay_steps: Array | float = 1500.0
    decay: Array | float | None = None
    extragradient: bool = _static(False)
    refresh: int = _static(100)

    def paths(self, game: TextGame, params: PyTree) -> Float[Array, "n L"]:
        """Token log-probabilities of the policy along all texts."""
        logits = self.network.apply(params, method="tree")
        return paths_of_tree([jax.nn.log_softmax(r + x, axis=-1) for r, x in zip(game.tree(), logits, strict=True)])

    def log_policy(self, game: TextGame, state: DeepState) -> Float[Array, " n"]:
        """Log-probabilities of all texts."""
        return log_normalise(jnp.sum(self.paths(game, state.params), axis=1))

    def init(self, game: TextGame, key: RandomKey) -> DeepState:
        """A policy equal to the reference."""
        params = self.network.init(key, jnp.zeros((1, self.network.length), jnp.int32))
        average = None if self.decay is None else params
        anchor = jnp.sum(game.paths(), axis=1)
        return DeepState(params, _ADAM.init(params), average, anchor, jnp.zeros((), jnp.int32))

    def step(self, game: TextGame, state: DeepState, key: RandomKey) -> DeepState:
        """One update of the parameters."""
        half_key, key = jax.random.split(key)
        rate = jnp.asarray(self.learning_rate, game.reference.dtype)
        rate = rate * jnp.maximum(1 - state.count.astype(rate.dtype) / self.decay_steps, 0)
        reference = game.paths()
        anchor = state.anchor
        if getattr(self.objective, "anchored", False):
            renewed = lambda: jnp.sum(self.paths(game, state.params), axis=1)  # noqa: E731
            anchor = jax.lax.cond(state.count % self.refresh == 0, renewed, lambda: state.anchor)

        def loss(params, key, opponent):
            paths = self.paths(game, params)
            played = jax.lax.stop_gradient(paths if opponent is None else self.paths(game, opponent))
            return self.objective.loss(key, game, paths, Seen(reference, played, anchor))

        opponent = state.average
        if self.extragradient:
            gradient = jax.grad(loss)(state.params, half_key, opponent)
            opponent, _ = _adam_step(state.params, state.moments, gradient, rate)
        gradient = jax.grad(loss)(state.params, key, opponent)
        params, moments = _adam_step(state.params, state.moments, gradient, rate)
        average = state.average
        if self.decay is not None:
            average = jax.tree.map(lambda old, new: self.decay * old + (1 - self.decay) * new, average, params)
        return DeepState(params, moments, average, anchor, state.count + 1)


_ADAM = optax.scale_by_adam(0.9, 0.99)


def _adam_step(params, moments, gradient, rate):
    # optax mixes its own integers and floats; what comes back has the parameters' precision.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        direction, moments = _ADAM.update(gradient, moments)
    return jax.tree.map(lambda p, d: p - rate * d, params, direction), moments


def train(
    solver: DeepNash,
    game: TextGame,
    equilibrium: Float[Array, " n"],
    num_steps: int,
    key: RandomKey,
    *,
    every: int = 100,
) -> tuple[Float[Array, " n"], dict[str, Float[Array, " rows"]]]:
    """Train a policy and measure it exactly on the way; jit it, and vmap it over keys.

    Args: solver; game; equilibrium: float[n], log-probabilities that KL is measured from; num_steps: static; key;
      every: steps between measurements, static.
    Returns: (log-probabilities float[n] of the last policy, trace): `gap` and `gap0` (duality gap with and without
      temperature, probability), `kl_equilibrium` = KL(pi* || pi) and `kl_reference` = KL(pi || mu) in nats, `win` =
      P(pi beats mu); one entry for each step of `trace_steps(num_steps, every)`.
    Source: derived: all n responses are summed over. In float32 a gap has an error of about 1e-6: far below what
      training reaches. Cost: num_steps steps, 3 n^2 per measurement.
    """
    plain = game.game()

    def observe(_, state):
        policy = solver.log_policy(game, state)
        return {
            "gap": plain.gap(policy),
            "gap0": unregularised_gap(plain.preference, policy),
            "kl_equilibrium": kl(equilibrium, policy),
            "kl_reference": kl(policy, plain.reference_logits),
            "win": win_probability(plain.preference, policy, plain.reference_logits),
        }

    state, trace = iterate(solver, game, num_steps, key=key, observe=observe, every=every)
    return solver.log_policy(game, state), trace
