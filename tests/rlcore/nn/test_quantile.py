"""The quantile network: shapes, precision, where it starts, and what it may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nn.quantile import QuantileNetwork


def test_shapes_and_precision():
    network = QuantileNetwork(3, 5, hidden=(8,), channels=(4,))
    observation = (jnp.ones((6, 7, 2), bool), jnp.ones(4, jnp.float32))
    params = network.init(jax.random.key(0), observation, jnp.zeros(1))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert network.apply(params, observation, jnp.ones(1)).shape == (3, 5)
    weights = params["params"]
    assert weights["image_0_0_weight"].shape == (3, 3, 2, 4)
    # 4 x 5 positions of 4 channels, 4 numbers, 1 beside them
    assert weights["dense_0_weight"].shape == (4 * 5 * 4 + 4 + 1, 8)
    # float64 inputs are cast: outputs are the same
    wide = jax.tree.map(lambda x: x.astype(float), observation)
    np.testing.assert_array_equal(
        network.apply(params, wide, jnp.ones(1)), network.apply(params, observation, jnp.ones(1))
    )


def test_layers_are_what_they_say():
    network = QuantileNetwork(2, 3, hidden=(4, 4), dtype=jnp.float64)
    params = network.init(jax.random.key(1), jnp.zeros(5), jnp.zeros(1))
    params = jax.tree.map(lambda x: x + 0.1, params)
    x, extra = np.arange(5.0) - 2, np.array([0.7])
    w = params["params"]
    y = np.maximum(np.concatenate([extra, x]) @ w["dense_0_weight"] + w["dense_0_bias"], 0)
    y = np.maximum(y @ w["dense_1_weight"] + w["dense_1_bias"], 0)
    y = (y @ w["output_weight"] + w["output_bias"]).reshape(2, 3)
    # twenty operations on numbers of order 10
    np.testing.assert_allclose(network.apply(params, jnp.asarray(x), jnp.asarray(extra)), y, rtol=0, atol=1e-13)


def test_weights_start_at_their_scale():
    network = QuantileNetwork(4, 50, hidden=(400, 300))
    w = network.init(jax.random.key(0), jnp.zeros(99), jnp.zeros(1))["params"]
    for name, fan_in, scale in (("dense_0", 100, 1.0), ("dense_1", 400, 1.0), ("output", 300, 0.1)):
        # 40 000 numbers: their standard deviation is known to 1/3%
        assert float(jnp.std(w[f"{name}_weight"])) == pytest.approx(scale / fan_in**0.5, rel=0.02)
        assert not w[f"{name}_bias"].any()


def test_observations_are_vectors_or_images():
    with pytest.raises(ValueError, match=r"observation: found an array of shape \(2, 2\), expected \[m\] or"):
        QuantileNetwork(2).init(jax.random.key(0), jnp.zeros((2, 2)), jnp.zeros(1))
