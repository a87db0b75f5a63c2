"""Several policies from one perceptron: each run has a learnable input of its own, all layers are shared."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlcore.types import Array, Float

__all__ = ["SharedPerceptron"]


class SharedPerceptron(nn.Module):
    """ReLU layers over one learnable "virtual" input per run; runs that share layers feel each other's gradients.

    runs: R; actions: n; width: of the inputs and hidden layers; hidden: number of hidden layers. All static. Weights
    start Xavier-normal, biases 0, inputs N(0, 1), as in the released simulations of Zhou, Fazel and Du (2025), arXiv
    2503.08942; parameters and activations are `dtype`.
    """

    runs: int
    actions: int
    width: int = 10
    hidden: int = 2
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self) -> Float[Array, "R n"]:
        """Logits of every run.

        Returns: float[R, n], not normalised.
        Source: derived: definition. Cost: R (hidden width^2 + width n) multiply-adds.
        """
        x = self.param("virtual_input", nn.initializers.normal(1.0), (self.runs, self.width), self.dtype)
        widths = [*[self.width] * self.hidden, self.actions]
        for i, width in enumerate(widths):
            weight = self.param(f"weight_{i}", nn.initializers.xavier_normal(), (x.shape[1], width), self.dtype)
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (width,), self.dtype)
            y = jnp.matmul(x, weight, precision="highest")
            y = y + jnp.broadcast_to(bias, y.shape)
            x = jax.nn.relu(y) if i < self.hidden else y
        return x
