"""The perceptron: a category is a one-hot vector, weights start as they should, observations are checked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nn.perceptron import ActorCritic, Perceptron, convolution, orthonormal


def test_a_category_is_a_one_hot_vector():
    network = Perceptron(3, sizes=(4, 2), hidden=(5, 6), dtype=jnp.float64)
    observation = (jnp.int32(2), jnp.int32(1)), jnp.array([0.3])
    params = network.init(jax.random.key(0), observation)
    w = jax.tree.map(lambda x: np.asarray(x) + 0.1, params["params"])
    x = np.array([0, 0, 1, 0, 0, 1, 0.3])
    for name in ("dense_0", "dense_1"):
        x = np.maximum(x @ w[f"{name}_weight"] + w[f"{name}_bias"], 0)
    expected = x @ w["output_weight"] + w["output_bias"]
    # a few dozen operations on numbers of order one
    np.testing.assert_allclose(network.apply({"params": w}, observation), expected, rtol=0, atol=1e-13)


def test_weights_start_orthogonal_with_their_gains():
    observation = jnp.int32(0), jnp.zeros(3)
    network = ActorCritic(4, sizes=(7,), hidden=(16, 16), dtype=jnp.float64)
    params = network.init(jax.random.key(1), observation)["params"]
    for part, gain, outputs in (("policy", 0.01, 4), ("value", 1.0, 1)):
        w = params[part]
        first, second, last = w["dense_0_weight"], w["dense_1_weight"], w["output_weight"]
        for square, size in ((first @ first.T / 2, 10), (second.T @ second / 2, 16)):
            np.testing.assert_allclose(square, np.eye(size), rtol=0, atol=1e-13)
        np.testing.assert_allclose(last.T @ last, gain**2 * np.eye(outputs), rtol=0, atol=1e-13)
        assert not any(w[f"{name}_bias"].any() for name in ("dense_0", "dense_1", "output"))


@pytest.mark.parametrize("shape", [(9, 4), (6, 6), (3, 8)])
def test_gram_schmidt_spans_what_householder_spans(shape):
    stack = jax.random.normal(jax.random.key(2), (5, *shape), jnp.float64)
    wide = shape[0] < shape[1]
    for ours, matrix in zip(np.asarray(jax.vmap(orthonormal)(stack)), np.asarray(stack), strict=True):
        theirs = np.linalg.qr(matrix.T if wide else matrix)[0]
        theirs = theirs.T if wide else theirs
        # Equal but for signs, which the triangular factor's diagonal decides; conditions of these draws are below 1e3.
        axis = 1 if wide else 0
        np.testing.assert_allclose(np.abs(np.sum(ours * theirs, axis=axis)), 1, rtol=0, atol=1e-12)


def test_uniform_weights_are_within_their_bound():
    params = Perceptron(2, sizes=(20,), hidden=(50,), uniform=True).init(
        jax.random.key(0), (jnp.int32(0), jnp.zeros(5))
    )
    weight, bias = (params["params"][f"dense_0_{name}"] for name in ("weight", "bias"))
    bound = 1 / math.sqrt(25)
    # of 1250 uniform numbers the largest is within 2% of the bound, except with probability 1e-11
    assert bound * 0.98 < float(jnp.max(jnp.abs(weight))) <= bound
    assert 0 < float(jnp.max(jnp.abs(bias))) <= bound


def test_images():
    network = Perceptron(2, channels=(4,), hidden=(8,))
    params = network.init(jax.random.key(0), jnp.ones((5, 6, 2), bool))
    assert params["params"]["dense_0_weight"].shape == (3 * 4 * 4, 8)
    assert network.apply(params, jnp.ones((5, 6, 2), bool)).shape == (2,)


def test_the_product_of_patches_is_the_convolution():
    rng = np.random.default_rng(0)
    image, weight = jnp.asarray(rng.normal(size=(6, 5, 2))), jnp.asarray(rng.normal(size=(3, 2, 2, 4)))
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(image[None], weight, (1, 1), "VALID", dimension_numbers=layout)[0]
    # Sums of 12 products of size 1, in another order.
    np.testing.assert_allclose(convolution(image, weight), expected, rtol=0, atol=1e-13)


def test_observations_are_checked():
    with pytest.raises(ValueError, match="observation: found 1 categories, expected 2, as many as `sizes`"):
        Perceptron(2, sizes=(3, 3)).init(jax.random.key(0), jnp.int32(0))
    with pytest.raises(ValueError, match=r"observation: found float32 \(2, 2\), expected an int \[\], or \[m\]"):
        Perceptron(2).init(jax.random.key(0), jnp.zeros((2, 2), jnp.float32))
