"""Blocks of lanes: all of them once, in order, whatever the block; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lanes import blockwise


@pytest.mark.parametrize("block", [1, 3, 7, 50])
def test_every_lane_is_done_once_and_in_order(block):
    lanes = {"x": jnp.arange(7.0), "y": jnp.arange(14).reshape(7, 2)}, jax.random.split(jax.random.key(0), 7)

    def one(tree, key):
        return tree["x"] + jax.random.uniform(key), tree["y"][::-1]

    expected = jax.vmap(one)(*lanes)
    found = blockwise(one, lanes, block=block)()
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(expected))


def test_bad_input():
    with pytest.raises(ValueError, match="block: found 0, expected at least 1"):
        blockwise(jnp.sin, (jnp.ones(3),), block=0)
