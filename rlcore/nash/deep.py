"""Training a transformer on a preference game over all short texts, with every measure exact.

The responses can be enumerated, so one pass over the tree of prefixes gives the log-probability of each; sequences are
then drawn from that table, and losses look their log-probabilities up in it. Every objective still sees only what it
would see with a language model: sampled sequences, their token log-probabilities and comparisons of pairs.

Objectives are those of `objectives.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcore.nash.game import kl, log_normalise, unregularised_gap, win_probability
from rlcore.nash.objectives import Seen
from rlcore.nash.text import TextGame, paths_of_tree
from rlcore.nn.transformer import Transformer
from rlcore.pytree import pytree, static
from rlcore.solver import iterate
from rlcore.types import Array, Float, PyTree, RandomKey

__all__ = ["DeepNash", "DeepState", "train"]


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


@pytree
class DeepNash:
    """Adam on an objective, for a policy that is the reference plus a transformer: a `Solver` for a `TextGame`.

    objective: one of `objectives.py`. learning_rate: float[], decays linearly to 0 at `decay_steps`, float[] (inf:
    never). network: static. extragradient: the opponent is the policy after a temporary step, of which neither
    parameters nor moments remain (EGPO); static. refresh: steps between renewals of the anchor, if `anchored`; static.
    decay: float[] or None: the opponent is the running mean thbar <- decay thbar + (1 - decay) th of the parameters
    (Nash-EMA); None plays against the policy itself.
    Source: as the objective; extragradient: Zhou, Fazel and Du (2025), arXiv 2503.08942, released code restated.
    Cost: one pass forward and backward over (V^L - 1) / (V - 1) prefixes per step, two for the extragradient.
    """

    objective: PyTree
    network: Transformer = static(Transformer(6, 4))
    learning_rate: Array | float = 5e-4
    decay_steps: Array | float = 1500.0
    decay: Array | float | None = None
    extragradient: bool = static(False)
    refresh: int = static(100)

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
