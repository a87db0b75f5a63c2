"""Two evaluations of the transformer agree, and it is causal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nash import paths_of_tree, tree_of_paths
from rlcore.nn.transformer import Transformer


def random_params(network, seed):
    params = network.init(jax.random.key(seed), jnp.zeros((1, network.length), jnp.int32))
    keys = jax.random.split(jax.random.key(seed + 1), len(jax.tree.leaves(params)))
    leaves, shape = jax.tree.flatten(params)
    return jax.tree.unflatten(
        shape, [x + 0.3 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("blocks", [1, 2])
def test_tree_of_prefixes_agrees_with_every_sequence(blocks):
    network = Transformer(3, 4, width=8, blocks=blocks, dtype=jnp.float64)
    params = random_params(network, blocks)
    tokens = jnp.asarray(np.indices((3,) * 4).reshape(4, -1).T)
    dense = jnp.take_along_axis(network.apply(params, tokens), tokens[..., None], axis=2)[..., 0]
    tree = paths_of_tree(network.apply(params, method="tree"))
    # A few hundred float64 operations on numbers of order 10.
    np.testing.assert_allclose(tree, dense, atol=1e-11)
    assert float(jnp.std(dense)) > 0.1
    again = paths_of_tree(tree_of_paths(tree))
    assert np.array_equal(again, tree)


def test_a_token_changes_only_what_follows_it():
    network = Transformer(4, 4, width=8, dtype=jnp.float64)
    params = random_params(network, 0)
    one, other = jnp.array([0, 1, 2, 3]), jnp.array([0, 3, 2, 3])
    change = jnp.max(jnp.abs(network.apply(params, one) - network.apply(params, other)), axis=1)
    assert float(change[0]) == float(change[1]) == 0 and float(jnp.min(change[2:])) > 1e-3


def test_output_starts_at_zero_and_keeps_its_precision():
    network = Transformer(3, 2, width=4)
    params = network.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    out = network.apply(params, jnp.zeros((5, 2), jnp.int32))
    assert out.shape == (5, 2, 3) and out.dtype == jnp.float32 and not out.any()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads: found 3, expected a divisor"):
        Transformer(3, 2, width=4, heads=3).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
