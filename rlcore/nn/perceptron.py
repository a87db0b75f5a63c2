"""Perceptrons over observations with categories: what is one-hot is looked up, not multiplied."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlcore.types import Array, Float, PyTree

__all__ = ["ActorCritic", "Perceptron"]


def orthonormal(matrix: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Orthonormal columns with the span of the matrix's (rows with the span of its rows where n < m).

    Without LAPACK: the batched QR factorisations of several layers at once hang on JAX 0.10's CPU.

    Args: matrix: of full rank; for independent normal entries the result is uniformly distributed.
    Returns: float[n, m].
    Source: Gram-Schmidt, every column made orthogonal twice, which is enough (Giraud et al. 2005).
    Cost: 4 n m min(n, m).
    """
    if matrix.shape[0] < matrix.shape[1]:
        return orthonormal(matrix.T).T

    def column(j, basis):
        new = matrix[:, j]
        # Columns from j on are still 0, so that the whole product may be taken.
        for _ in range(2):
            new = new - jnp.matmul(basis, jnp.matmul(basis.T, new, precision="highest"), precision="highest")
        return basis.at[:, j].set(new / jnp.sqrt(jnp.sum(jnp.square(new))))

    return jax.lax.fori_loop(0, matrix.shape[1], column, jnp.zeros_like(matrix))


def convolution(image: Float[Array, "h w c"], weight: Float[Array, "i j c n"]) -> Float[Array, "h2 w2 n"]:
    """The convolution of an image without padding, as one product with its patches.

    XLA's own convolutions are several times slower on a CPU inside loops, and slower still with weights of each lane.

    Args: image: [h, w, c]; weight: [i, j, c, n].
    Returns: float[h - i + 1, w - j + 1, n]. Source: derived: definition. Cost: i j copies of the image.
    """
    rows, columns, _, channels = weight.shape
    height, width = image.shape[0] - rows + 1, image.shape[1] - columns + 1
    patches = [image[i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(patches, axis=-1) @ weight.reshape(-1, channels)


class Perceptron(nn.Module):
    """ReLU layers over the one-hot vectors of categories, vectors, and images after 3 x 3 convolutions.

    outputs: n. sizes: how many values each category has, in the order of the observation's leaves. hidden: widths.
    channels: of each convolution. output_gain: of the last layer. uniform: how weights start. All static; parameters
    and activations are `dtype`. Weights start orthogonal with gain sqrt(2), the last ones `output_gain`, biases 0; with
    `uniform` both are uniform within 1 / sqrt(fan-in).
    """

    outputs: int
    sizes: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (64, 64)
    channels: tuple[int, ...] = ()
    output_gain: float = 1.0
    uniform: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, observation: PyTree) -> Float[Array, "n"]:
        """The outputs for one observation.

        Args: observation: a pytree of categories int[], vectors [m] and images [h, w, c].
        Returns: float[n].
        Raises: ValueError for leaves of another rank, or another number of categories than `sizes`.
        Source: derived: definition. Cost: one multiply-add per weight that is not of a category's.
        """
        rows, parts, offset = [], [], 0
        leaves = [jnp.asarray(x) for x in jax.tree.leaves(observation)]
        found = sum(x.ndim == 0 for x in leaves)
        if found != len(self.sizes):
            raise ValueError(f"observation: found {found} categories, expected {len(self.sizes)}, as many as `sizes`")
        for i, x in enumerate(leaves):
            if x.ndim not in (0, 1, 3) or (x.ndim == 0 and not jnp.issubdtype(x.dtype, jnp.integer)):
                raise ValueError(f"observation: found {x.dtype} {x.shape}, expected an int [], or [m], or [h, w, c]")
            if x.ndim == 0:
                rows.append(x + offset)
                offset += self.sizes[len(rows) - 1]
                continue
            x = x.astype(self.dtype)
            if x.ndim == 3:
                for j, channels in enumerate(self.channels):
                    x = jax.nn.relu(self._convolve(f"image_{i}_{j}", x, channels))
            parts.append(x.reshape(-1))
        dense = jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)
        widths = [*self.hidden, self.outputs]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            gain = self.output_gain if last else math.sqrt(2)
            # The categories' rows come first, so that the one-hot part of the product is a sum of rows.
            weight, bias = self._weights("output" if last else f"dense_{i}", (offset + dense.shape[0], width), gain)
            y = bias + dense @ weight[offset:]
            for row in rows:
                y = y + weight[row]
            dense, rows, offset = y if last else jax.nn.relu(y), [], 0
        return dense

    def _weights(self, name, shape, gain):
        bound = 1 / math.sqrt(math.prod(shape[:-1]))

        def spread(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        def orthogonal(key, shape, dtype):
            return gain * orthonormal(jax.random.normal(key, shape, dtype).reshape(-1, shape[-1])).reshape(shape)

        weight = self.param(f"{name}_weight", spread if self.uniform else orthogonal, shape, self.dtype)
        start = spread if self.uniform else nn.initializers.zeros
        return weight, self.param(f"{name}_bias", start, shape[-1:], self.dtype)

    def _convolve(self, name, x, channels):
        weight, bias = self._weights(name, (3, 3, x.shape[2], channels), math.sqrt(2))
        return convolution(x, weight) + bias[None, None]


class ActorCritic(nn.Module):
    """Logits of actions and a value, by two perceptrons that share nothing.

    actions: A. sizes, hidden, channels, dtype: as in `Perceptron`. The logits start 100 times smaller than the value.
    """

    actions: int
    sizes: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (64, 64)
    channels: tuple[int, ...] = ()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, observation: PyTree) -> tuple[Float[Array, "A"], Float[Array, ""]]:
        """Logits and value of one observation. Args, raises, source, cost: as `Perceptron`, twice."""
        shape = dict(sizes=self.sizes, hidden=self.hidden, channels=self.channels, dtype=self.dtype)
        logits = Perceptron(self.actions, output_gain=0.01, name="policy", **shape)(observation)
        return logits, Perceptron(1, name="value", **shape)(observation)[0]
