"""Quantiles of the return of every action, from an observation and a few numbers beside it."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlcore.nn.perceptron import convolution
from rlcore.types import Array, Float, PyTree

__all__ = ["QuantileNetwork"]


class QuantileNetwork(nn.Module):
    """ReLU layers, after 3 x 3 convolutions where the observation holds images.

    actions: A; quantiles: N; hidden: widths of the dense layers; channels: of each convolution. All static. Weights
    start normal with variance 1 / fan-in, those of the output 100 times less, biases 0; parameters and activations are
    `dtype`.
    """

    actions: int
    quantiles: int = 32
    hidden: tuple[int, ...] = (128, 128)
    channels: tuple[int, ...] = ()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, observation: PyTree, extra: Float[Array, "k"]) -> Float[Array, "A N"]:
        """Quantiles of one observation.

        Args: observation: a pytree of vectors [m] and images [h, w, c], of any type; extra: float[k], joined to them.
        Returns: float[A, N], in no order that training does not teach.
        Raises: ValueError for an observation of another rank.
        Source: derived: definition. Cost: one multiply-add per weight, for convolutions per weight and pixel.
        """
        parts = [extra.astype(self.dtype)]
        for i, x in enumerate(jax.tree.leaves(observation)):
            x = jnp.asarray(x).astype(self.dtype)
            if x.ndim not in (1, 3):
                raise ValueError(f"observation: found an array of shape {x.shape}, expected [m] or [h, w, c]")
            if x.ndim == 3:
                for j, channels in enumerate(self.channels):
                    x = jax.nn.relu(self._convolve(f"image_{i}_{j}", x, channels))
            parts.append(x.reshape(-1))
        x = jnp.concatenate(parts)
        for i, width in enumerate(self.hidden):
            x = jax.nn.relu(self._dense(f"dense_{i}", x, width, 1.0))
        return self._dense("output", x, self.actions * self.quantiles, 0.01).reshape(self.actions, self.quantiles)

    def _weights(self, name, shape, variance):
        normal = nn.initializers.normal(math.sqrt(variance / math.prod(shape[:-1])))
        weight = self.param(f"{name}_weight", normal, shape, self.dtype)
        return weight, self.param(f"{name}_bias", nn.initializers.zeros, shape[-1:], self.dtype)

    def _dense(self, name, x, width, variance):
        weight, bias = self._weights(name, (x.shape[0], width), variance)
        return x @ weight + bias

    def _convolve(self, name, x, channels):
        weight, bias = self._weights(name, (3, 3, x.shape[2], channels), 1.0)
        return convolution(x, weight) + bias[None, None]
