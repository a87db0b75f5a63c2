"""Regression oracles of SQIRL: samples (row, action) -> target in, a table of fitted values out.

An oracle is any pytree with a method `fit(samples, shape, key)`; the table it returns is float[S,A] = `shape`, over all
rows of the problem, so that acting and bootstrapping read a table whatever was fitted.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from rlcore.nn.adam import adam_moments, adam_step
from rlcore.nn.perceptron import Perceptron
from rlcore.pytree import pytree, static
from rlcore.ridge import ridge
from rlcore.types import Array, Float, Int, Key, Number

__all__ = ["Oracle", "PerceptronFit", "RidgeFit", "Samples", "TabularMean"]


class Samples(NamedTuple):
    """n samples: row int32[n], action int32[n], target float[n], and weight float[n], 0 for what is no sample."""

    state: Int[Array, "n"]
    action: Int[Array, "n"]
    target: Float[Array, "n"]
    weight: Float[Array, "n"]


@runtime_checkable
class Oracle(Protocol):
    """What SQIRL asks of a regression."""

    def fit(self, samples: Samples, shape: tuple[int, int], key: Key[Array, ""]) -> Float[Array, "S A"]:
        """Fitted values of all rows and actions."""


@pytree
class TabularMean:
    """The mean target of each pair.

    default: the value of a pair without samples; half the targets' range for docs/proofs/sqirl.md, T9a, 0 in practice.
    """

    default: Number = 0.0

    def fit(self, samples: Samples, shape: tuple[int, int], key: Key[Array, ""] | None = None) -> Float[Array, "S A"]:
        """Means per pair.

        Args: samples; shape: (S, A); key: not used.
        Returns: float[S,A].
        Source: derived: definition. Cost: n + S A.
        """
        cell = samples.state * shape[1] + samples.action
        both = jnp.stack([samples.weight, samples.weight * samples.target], axis=-1)
        count, total = jax.ops.segment_sum(both, cell, shape[0] * shape[1]).T
        mean = total / jnp.where(count > 0, count, 1.0)
        return jnp.where(count > 0, mean, self.default).reshape(shape)


@pytree
class RidgeFit:
    """Least squares on features of pairs, with a ridge, by the normal equations.

    features: float[S,A,d], of every row and action, float64. penalty: > 0, of the squared weights; 1e-8 at least.
    """

    features: Array
    penalty: Number = 1e-8

    def fit(self, samples: Samples, shape: tuple[int, int], key: Key[Array, ""] | None = None) -> Float[Array, "S A"]:
        """Fitted values.

        Args: samples; shape: (S, A), that of the features; key: not used.
        Returns: float[S,A].
        Raises: ValueError for features of another shape.
        Source: derived: definition. Cost: n d^2 + d^3 + S A d.
        """
        if self.features.shape[:2] != tuple(shape):
            raise ValueError(f"features: found shape {self.features.shape}, expected {tuple(shape)} and their number")
        rows = self.features[samples.state, samples.action]
        # Not LAPACK: k batched solves in one program hang on JAX 0.10's CPU.
        return self.features @ ridge(rows, self.penalty, samples.weight).fit(samples.target)


@pytree
class PerceptronFit:
    """A ReLU network with one output per action, fitted anew by Adam on batches drawn with replacement.

    features: float[S,f], of every row; the network's numbers have their type. learning_rate: of Adam.
    hidden: widths. epochs: passes over the samples, in batches of `batch`. Static.
    """

    features: Array
    learning_rate: Number = 1e-3
    hidden: tuple[int, ...] = static((64, 64))
    epochs: int = static(50)
    batch: int = static(64)

    def fit(self, samples: Samples, shape: tuple[int, int], key: Key[Array, ""]) -> Float[Array, "S A"]:
        """Fitted values.

        Args: samples; shape: (S, A); key: of the start and the batches.
        Returns: float[S,A], of the samples' type.
        Raises: ValueError for features of another number of rows.
        Source: derived: definition (Kingma and Ba 2015 for Adam). Cost: `epochs` passes forward and back.
        """
        if self.features.shape[0] != shape[0]:
            raise ValueError(f"features: found {self.features.shape[0]} rows, expected {shape[0]}")
        dtype = self.features.dtype
        network = Perceptron(shape[1], hidden=self.hidden, uniform=True, dtype=dtype)
        starts, draws = jax.random.split(key)
        params = network.init(starts, self.features[0])
        target, weight = samples.target.astype(dtype), samples.weight.astype(dtype)
        total = target.shape[0]

        def loss(params, index):
            fitted = jax.vmap(network.apply, (None, 0))(params, self.features[samples.state[index]])
            fitted = jnp.take_along_axis(fitted, samples.action[index][:, None], axis=1)[:, 0]
            return jnp.sum(weight[index] * (fitted - target[index]) ** 2) / index.shape[0]

        def update(carry, key):
            params, moments = carry
            index = jax.random.randint(key, (min(self.batch, total),), 0, total)
            slope = jax.grad(loss)(params, index)
            numbers = dict(learning_rate=self.learning_rate, epsilon=1e-8, max_norm=jnp.inf)
            return adam_step(params, slope, moments, **numbers), None

        updates = -(-self.epochs * total // min(self.batch, total))
        (params, _), _ = jax.lax.scan(update, (params, adam_moments(params)), jax.random.split(draws, updates))
        return jax.vmap(network.apply, (None, 0))(params, self.features).astype(samples.target.dtype)
