"""A causal transformer over short sequences, evaluated on given sequences or on all prefixes at once."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlcore.types import Array, Float, Int

__all__ = ["Transformer", "rms_norm"]


class Transformer(nn.Module):
    """Pre-norm causal transformer with RMS norms and learned positions; its output is 0 at the start of training.

    vocabulary: V; row V of the embedding is the start symbol. length: L, tokens per sequence. width: d; heads: divides
    d; blocks; expansion: of the MLP. All static; parameters and activations are `dtype`.
    """

    vocabulary: int
    length: int
    width: int = 32
    heads: int = 2
    blocks: int = 1
    expansion: int = 4
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Parameters; the output matrix is 0, so that a policy that adds the output to a reference starts there."""
        if self.width % self.heads:
            raise ValueError(f"heads: found {self.heads}, expected a divisor of width = {self.width}")
        d, hidden = self.width, self.expansion * self.width

        def new(name, initialiser, *shape):
            return self.param(name, initialiser, shape, self.dtype)

        dense, ones, normal = nn.initializers.lecun_normal(), nn.initializers.ones, nn.initializers.normal(0.5)
        self.embedding = new("embedding", normal, self.vocabulary + 1, d)
        self.position = new("position", normal, self.length, d)
        self.layers = [
            (
                new(f"norm_attention_{i}", ones, d),
                new(f"query_key_value_{i}", dense, d, 3 * d),
                new(f"join_{i}", dense, d, d),
                new(f"norm_mlp_{i}", ones, d),
                new(f"up_{i}", dense, d, hidden),
                new(f"down_{i}", dense, hidden, d),
            )
            for i in range(self.blocks)
        ]
        self.norm_output = new("norm_output", ones, d)
        self.output = new("output", nn.initializers.zeros, d, self.vocabulary)

    def __call__(self, tokens: Int[Array, "... L"]) -> Float[Array, "... L V"]:
        """Logits of every token given those before it.

        Args: tokens: int[..., L].
        Returns: float[..., L, V]; entry t sees tokens before t alone.
        Source: Vaswani et al. (2017); RMS norm: Zhang and Sennrich (2019). Cost: 12 d^2 multiplications per token.
        """
        start = jnp.full_like(tokens[..., :1], self.vocabulary)
        seen = jnp.concatenate([start, tokens[..., :-1]], axis=-1)
        x = self.embedding[seen]
        causal = jnp.tril(jnp.ones((self.length, self.length), bool))

        def attend(query, key, value):
            score = jnp.einsum("...qhd,...khd->...hqk", query, key) / (self.width // self.heads) ** 0.5
            score = jnp.where(jnp.broadcast_to(causal, score.shape), score, -jnp.inf)
            return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(score, axis=-1), value)

        return self._trunk(x + jnp.broadcast_to(self.position, x.shape), attend)

    def tree(self) -> list[Float[Array, "_ V"]]:
        """Logits after every prefix, one array per length of prefix.

        Returns: L arrays, float[V^t, V] for t = 0 ... L-1, prefixes in lexicographic order. Each prefix is computed
          once, from keys and values of its ancestors: no sequence is repeated and nothing is looked up.
        Source: derived: a causal network depends on the prefix alone; tested against `__call__`.
        Cost: 12 d^2 multiplications per prefix, (V^L - 1) / (V - 1) of them.
        """
        v, sizes = self.vocabulary, [self.vocabulary**t for t in range(self.length)]
        levels = [self.embedding[v:]] + [jnp.tile(self.embedding[:v], (size // v, 1)) for size in sizes[1:]]
        x = jnp.concatenate([x + jnp.broadcast_to(p, x.shape) for x, p in zip(levels, self.position, strict=True)])
        offsets = [sum(sizes[:t]) for t in range(self.length + 1)]

        def split(x):
            return [x[a:b] for a, b in itertools.pairwise(offsets)]

        def attend(query, key, value):
            keys, values, out = split(key), split(value), []
            for t, q in enumerate(split(query)):
                # Ancestor s of a prefix is the same for V^(t-s) neighbours.
                k, u = (
                    jnp.stack([jnp.repeat(x[s], v ** (t - s), axis=0) for s in range(t + 1)], axis=1)
                    for x in (keys, values)
                )
                score = jnp.einsum("nhd,nkhd->nhk", q, k) / (self.width // self.heads) ** 0.5
                out.append(jnp.einsum("nhk,nkhd->nhd", jax.nn.softmax(score, axis=-1), u))
            return jnp.concatenate(out)

        return split(self._trunk(x, attend))

    def _trunk(self, x, attend):
        for norm_attention, query_key_value, join, norm_mlp, up, down in self.layers:
            fused = rms_norm(x, norm_attention) @ query_key_value
            heads = fused.reshape(*x.shape[:-1], 3, self.heads, self.width // self.heads)
            x = x + attend(heads[..., 0, :, :], heads[..., 1, :, :], heads[..., 2, :, :]).reshape(x.shape) @ join
            x = x + jax.nn.gelu(rms_norm(x, norm_mlp) @ up) @ down
        return rms_norm(x, self.norm_output) @ self.output


def rms_norm(x: Float[Array, "... d"], scale: Float[Array, " d"]) -> Float[Array, "... d"]:
    """x over its root mean square, times scale.

    Args: x: float[..., d]; scale: float[d]. Returns: float[..., d].
    Source: Zhang and Sennrich (2019). Cost: 4 operations per entry.
    """
    size = jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6
    return x * jax.lax.rsqrt(size) * jnp.broadcast_to(scale, x.shape)
