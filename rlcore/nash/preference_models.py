"""Preference models learned from compared pairs: Bradley-Terry, general preference embeddings, pair networks.

A model has `fit(pairs, features, key) -> params`, `apply(params, first, second) -> win probability` on feature vectors,
and `matrix(params, features) -> float[n, n]`, a valid preference of all n responses. `features` is float[n, d], or just
the number n: then every response has parameters of its own (features are the unit vectors, never formed).
All fits are pure: jit them, and vmap them over keys, data and numeric hyper-parameters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlcore.nash.gpm import gpm_score, logistic
from rlcore.pytree import pytree, static
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, Solution
from rlcore.types import Array, Float, Number, PyTree, RandomKey

__all__ = [
    "BradleyTerry",
    "GeneralPreference",
    "PairNetwork",
    "Pairs",
    "bradley_terry",
    "count_wins",
    "log_loss",
    "pair_data",
]

Features = Float[Array, "n d"] | int
# Step lengths 1, 1/2, ..., 2^-11 of the line search of Newton's method.
TRIALS = 12


class Pairs(NamedTuple):
    """Compared pairs; make them with `pair_data`.

    first, second: int[B], responses. label: float[B], 1 where the first won, 0 where it lost, or a probability.
    """

    first: Array
    second: Array
    label: Array


def pair_data(first, second, label, num_responses: int) -> Pairs:
    """Check compared pairs on the host.

    Args: first, second: int[B] in [0, num_responses); label: float[B] in [0, 1], of the dtype that the fit will have;
      num_responses: n.
    Returns: `Pairs`. Raises: ValueError for no pairs, other shapes or values out of range; TypeError for indices that
      are not integers. Source: derived: definition. Cost: O(B).
    """
    first, second, label = np.asarray(first), np.asarray(second), np.asarray(label)
    if first.ndim != 1 or first.shape != second.shape or first.shape != label.shape:
        raise ValueError(
            f"pairs: found shapes {first.shape}, {second.shape}, {label.shape} of first, second and label, "
            "expected three of one shape (B,)"
        )
    if first.size == 0:
        raise ValueError("pairs: found no pairs, expected at least one: a preference cannot be learned from nothing")
    for name, index in (("first", first), ("second", second)):
        if not np.issubdtype(index.dtype, np.integer):
            raise TypeError(f"{name}: found {index.dtype}, expected integers")
        if index.min() < 0 or index.max() >= num_responses:
            raise ValueError(f"{name}: found indices in [{index.min()}, {index.max()}], expected [0, {num_responses})")
    if not np.all((label >= 0) & (label <= 1)):
        raise ValueError(f"label: found values in [{label.min()}, {label.max()}], expected probabilities")
    default = np.float64 if jax.config.jax_enable_x64 else np.float32
    keep = np.issubdtype(label.dtype, np.floating) and label.dtype != np.float64
    return Pairs(
        jnp.asarray(first, jnp.int32),
        jnp.asarray(second, jnp.int32),
        jnp.asarray(label, label.dtype if keep else default),
    )


def count_wins(pairs: Pairs, num_responses: int) -> Float[Array, "n n"]:
    """How often each response beat each other one.

    Args: pairs; num_responses: n, static.
    Returns: float[n, n], summed labels; all that Bradley-Terry needs of the data. Source: derived. Cost: n^2 + B.
    """
    wins = jnp.zeros((num_responses, num_responses), pairs.label.dtype)
    wins = wins.at[pairs.first, pairs.second].add(pairs.label)
    return wins.at[pairs.second, pairs.first].add(1 - pairs.label)


def bradley_terry(
    wins: Float[Array, "n n"],
    features: Float[Array, "n d"] | None = None,
    ridge: Number = 1e-3,
    *,
    start: Float[Array, " d"] | None = None,
    max_steps: int = 100,
) -> Solution:
    """Maximise sum_ij wins_ij log sigmoid(r_i - r_j) - ridge |w|^2 over w, r = features w, by damped Newton.

    Args: wins: float[n, n] >= 0; features: float[n, d], the unit vectors by default (w = r); ridge: float[] > 0, which
      also fixes the gauge (r has mean 0); start: float[d], 0 by default; max_steps: static.
    Returns: Solution with value = w and bound on |w - w*|_2: |gradient|_2 / (2 ridge), rounding included.
    Source: Bradley and Terry (1952), Hunter (2004); bound derived: the objective is 2 ridge-strongly concave.
    Cost: about 10 steps of a d x d solve and TRIALS n^2 exponentials.
    """
    n, dtype = wins.shape[0], wins.dtype
    total = wins + wins.T
    # Without features the maximum has mean 0, and so has the gradient wherever w has: only rounding says otherwise.
    centre = (lambda v: v - jnp.mean(v)) if features is None else (lambda v: v)
    spread = (lambda g: g) if features is None else (lambda g: jnp.matmul(features.T, g, precision="highest"))
    rewards = (lambda w: w) if features is None else (lambda w: jnp.matmul(features, w, precision="highest"))
    ridge = jnp.asarray(ridge, dtype)

    def gradient(w):
        r = rewards(w)
        surprise = wins - total * logistic(r[:, None] - r[None, :])
        return centre(spread(jnp.sum(surprise, axis=1))) - 2 * ridge * w

    def norm(v):
        return jnp.sqrt(jnp.sum(v * v))

    def step(w, g):
        r = rewards(w)
        p = logistic(r[:, None] - r[None, :])
        weight = total * p * p.T
        laplacian = jnp.diag(jnp.sum(weight, axis=1)) - weight
        curvature = spread(spread(laplacian).T) + 2 * ridge * jnp.eye(w.shape[0], dtype=dtype)
        direction = centre(jnp.linalg.solve(curvature, g[:, None])[:, 0])
        lengths = 0.5 ** jnp.arange(TRIALS, dtype=dtype)
        # Along a Newton direction the gradient's norm falls; unlike the objective it is sharp near the maximum.
        norms = jax.lax.map(lambda length: norm(gradient(w + length * direction)), lengths)
        return w + lengths[jnp.argmin(norms)] * direction

    # Each gradient entry sums n terms of size at most total_ij (|features| of them), and the ridge's.
    mass = jnp.sum(total, axis=1)
    mass = mass if features is None else jnp.matmul(jnp.abs(features).T, mass, precision="highest")
    eps = jnp.finfo(dtype).eps

    def floor(w):
        return eps * (norm(mass) * (n + 8 + 4 * jnp.max(jnp.abs(rewards(w)))) + 8 * ridge * norm(w))

    def unfinished(carry):
        w, g, previous, t = carry
        return (t < max_steps) & (norm(g) > floor(w)) & (norm(g) < previous)

    def body(carry):
        w, g, _, t = carry
        new = step(w, g)
        return new, gradient(new), norm(g), t + 1

    w = jnp.zeros(n if features is None else features.shape[1], dtype) if start is None else centre(start)
    carry = (w, gradient(w), jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32))
    w, g, _, t = jax.lax.while_loop(unfinished, body, carry)
    bound = (norm(g) + floor(w)) / (2 * ridge)
    reached = norm(g) <= 8 * floor(w)  # stopped by rounding, not by the step limit
    status = jnp.where(bound < jnp.inf, jnp.where(reached, CONVERGED, STEP_LIMIT), NOT_FINITE).astype(jnp.int32)
    return Solution(w, status, t, jnp.where(bound < jnp.inf, bound, jnp.inf))


def log_loss(model, params: PyTree, features: Features, pairs: Pairs) -> Float[Array, ""]:
    """Mean negative log-likelihood of labels under a model.

    Args: model: one of this module; params: what its `fit` returned; features: as fitted; pairs: often held out.
    Returns: float[], in nats per label; log 2 for a model that knows nothing.
    Source: derived: binary cross-entropy. Cost: B scores.
    """
    return _cross_entropy(model.pair_scores(params, features, pairs), pairs.label)


def _cross_entropy(score, label):
    return jnp.mean(jax.nn.softplus(-score) * label + jax.nn.softplus(score) * (1 - label))


@pytree
class BradleyTerry:
    """Scores are differences of rewards, linear in the features: transitive.

    ridge: float[] > 0, weight of |w|^2 against the summed log-likelihood.
    Parameters: float[d], w. Source: Bradley and Terry (1952). Cost: as `bradley_terry`.
    """

    ridge: Array | float = 1e-3

    def fit(self, pairs: Pairs, features: Features, key: RandomKey = None) -> Float[Array, " d"]:
        """Penalised maximum likelihood; the key is not used."""
        table = isinstance(features, int)
        wins = count_wins(pairs, features if table else features.shape[0])
        return bradley_terry(wins, None if table else features, self.ridge).value

    def rewards(self, params: Float[Array, " d"], features: Features) -> Float[Array, " n"]:
        """Rewards of all responses, in logits."""
        return params if isinstance(features, int) else jnp.matmul(features, params, precision="highest")

    def apply(self, params: Float[Array, " d"], first: Float[Array, "... d"], second: Float[Array, "... d"]):
        """Probability that `first` beats `second`, float[...], from feature vectors."""
        return logistic(jnp.matmul(first - second, params, precision="highest"))

    def pair_scores(self, params: Float[Array, " d"], features: Features, pairs: Pairs) -> Float[Array, " B"]:
        """Scores of the given pairs, in logits."""
        r = self.rewards(params, features)
        return r[pairs.first] - r[pairs.second]

    def matrix(self, params: Float[Array, " d"], features: Features) -> Float[Array, "n n"]:
        """The preference of all responses."""
        r = self.rewards(params, features)
        return logistic(r[:, None] - r[None, :])


def _dense(x, matrix):
    """features @ matrix, where a number stands for unit vectors."""
    return matrix if isinstance(x, int) else jnp.matmul(x, matrix, precision="highest")


def _layers(key, widths, dtype):
    """Hidden layers with weights N(0, 2 / inputs), biases 0: [(matrix, bias), ...]."""
    keys = jax.random.split(key, max(len(widths) - 1, 1))
    return [
        (jax.random.normal(k, (a, b), dtype) * (2 / a) ** 0.5, jnp.zeros(b, dtype))
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=False)
    ]


def _through(layers, x):
    for matrix, bias in layers:
        z = _dense(x, matrix)
        x = jax.nn.gelu(z + jnp.broadcast_to(bias, z.shape))
    return x


def _adam(loss, params, learning_rate, num_steps):
    """Full-batch Adam, constant step."""
    # optax mixes dtypes inside, and returns those it was given.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        optimiser = optax.adam(learning_rate)

        def step(carry, _):
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), length=num_steps)[0][0]


def _dtype(features, pairs):
    return pairs.label.dtype if isinstance(features, int) else features.dtype


@pytree
class GeneralPreference:
    """Scores are skew-symmetric forms of embeddings, v = network(features): cycles allowed.

    dim: even dimension of the embedding, static. hidden: widths of hidden layers, static; none is a linear embedding.
    learning_rate: float[]. num_steps: full-batch Adam steps, static.
    The embedding starts with entries of variance 1 / dim on average over the responses, never at the saddle 0.
    Parameters: [(matrix, bias), ...]. Source: Zhang et al. (2025), arXiv 2410.02197. Cost: num_steps passes.
    """

    dim: int = static(2)
    hidden: tuple[int, ...] = static(())
    learning_rate: Array | float = 1e-2
    num_steps: int = static(1000)

    def init(self, features: Features, dtype, key: RandomKey) -> PyTree:
        """Random parameters."""
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"dim: found {self.dim}, expected an even integer >= 2")
        inputs = features if isinstance(features, int) else features.shape[1]
        hidden_key, last_key = jax.random.split(key)
        layers = _layers(hidden_key, (inputs, *self.hidden), dtype)
        last = _through(layers, features)
        width, size = (last, 1.0) if isinstance(last, int) else (last.shape[1], jnp.mean(jnp.sum(last**2, axis=1)))
        matrix = jax.random.normal(last_key, (width, self.dim), dtype) / jnp.sqrt(jnp.asarray(self.dim * size, dtype))
        return [*layers, (matrix, jnp.zeros(self.dim, dtype))]

    def embed(self, params: PyTree, features: Float[Array, "... d"] | int) -> Float[Array, "... dim"]:
        """The embeddings of all responses."""
        *layers, (matrix, bias) = params
        v = _dense(_through(layers, features), matrix)
        return v + jnp.broadcast_to(bias, v.shape)

    def fit(self, pairs: Pairs, features: Features, key: RandomKey) -> PyTree:
        """Minimise the cross-entropy of the labels from a random start."""
        start = self.init(features, _dtype(features, pairs), key)
        loss = lambda params: log_loss(self, params, features, pairs)  # noqa: E731
        return _adam(loss, start, self.learning_rate, self.num_steps)

    def apply(self, params: PyTree, first: Float[Array, "... d"], second: Float[Array, "... d"]):
        """Probability that `first` beats `second`, float[...], from feature vectors."""
        return logistic(_form(self.embed(params, first), self.embed(params, second)))

    def pair_scores(self, params: PyTree, features: Features, pairs: Pairs) -> Float[Array, " B"]:
        """Scores of the given pairs, in logits."""
        v = self.embed(params, features)
        return _form(v[pairs.first], v[pairs.second])

    def matrix(self, params: PyTree, features: Features) -> Float[Array, "n n"]:
        """The preference of all responses."""
        return logistic(gpm_score(self.embed(params, features)))


def _form(v, u):
    """<R v, u> along the last axis."""
    return jnp.sum(v[..., 0::2] * u[..., 1::2] - v[..., 1::2] * u[..., 0::2], axis=-1)


@pytree
class PairNetwork:
    """Scores are f(first, second) - f(second, first) with a network f of both feature vectors: any preference.

    hidden: widths of hidden layers, static, at least one. learning_rate: float[]. num_steps: full-batch Adam steps,
    static.
    Parameters: (two matrices of the first layer, its bias, further layers, last vector). Source: the pairwise models of
    Munos et al. (2023), arXiv 2312.00886, made antisymmetric here. Cost: num_steps passes over the pairs.
    """

    hidden: tuple[int, ...] = static((64,))
    learning_rate: Array | float = 1e-2
    num_steps: int = static(1000)

    def init(self, features: Features, dtype, key: RandomKey) -> PyTree:
        """Random parameters; the last vector is small, so that all preferences start near 1/2."""
        if not self.hidden:
            raise ValueError("hidden: found (), expected the width of at least one hidden layer")
        inputs = features if isinstance(features, int) else features.shape[1]
        first_key, hidden_key, last_key = jax.random.split(key, 3)
        # Unit vectors have norm 1, whatever their number.
        size = 1 if isinstance(features, int) else inputs
        first = jax.random.normal(first_key, (2, inputs, self.hidden[0]), dtype) / size**0.5
        last = jax.random.normal(last_key, (self.hidden[-1],), dtype) / self.hidden[-1]
        bias = jnp.zeros(self.hidden[0], dtype)
        return (first, bias, _layers(hidden_key, self.hidden, dtype), last)

    def _scores(self, params, left, right):
        """left, right: what the first layer sees of either place, float[2, ..., width] of the two responses."""
        _, bias, layers, last = params

        def f(a, b):
            x = jax.nn.gelu(a + b + jnp.broadcast_to(bias, a.shape))
            return jnp.matmul(_through(layers, x), last, precision="highest")

        return f(left[0], right[1]) - f(right[0], left[1])

    def _first_layer(self, params, x):
        return jnp.stack([_dense(x, matrix) for matrix in params[0]])

    def fit(self, pairs: Pairs, features: Features, key: RandomKey) -> PyTree:
        """Minimise the cross-entropy of the labels from a random start."""
        start = self.init(features, _dtype(features, pairs), key)
        loss = lambda params: log_loss(self, params, features, pairs)  # noqa: E731
        return _adam(loss, start, self.learning_rate, self.num_steps)

    def apply(self, params: PyTree, first: Float[Array, "... d"], second: Float[Array, "... d"]):
        """Probability that `first` beats `second`, float[...], from feature vectors."""
        left, right = self._first_layer(params, first), self._first_layer(params, second)
        return logistic(self._scores(params, left, right))

    def pair_scores(self, params: PyTree, features: Features, pairs: Pairs) -> Float[Array, " B"]:
        """Scores of the given pairs, in logits."""
        seen = self._first_layer(params, features)
        return self._scores(params, seen[:, pairs.first], seen[:, pairs.second])

    def matrix(self, params: PyTree, features: Features) -> Float[Array, "n n"]:
        """The preference of all responses, row by row; memory of n vectors of hidden units."""
        seen = self._first_layer(params, features)
        rows = lambda one: self._scores(params, jnp.broadcast_to(one[:, None], seen.shape), seen)  # noqa: E731
        score = jax.lax.map(rows, jnp.swapaxes(seen, 0, 1))
        # Two orders of evaluation may differ in the last bit.
        return logistic((score - score.T) / 2)
