"""Families of linear MDPs: valid, as published, and refused where they are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import linear_mdps
from envs.linear_mdps import FAMILIES, hard_instance, random_linear_mdp, simulated
from rlcore.robust import kernels, linear_mdp, rewards

KEY = jax.random.key(3)
INSTANCES = {
    "simulated": lambda: simulated(leak=0.1),
    "random": lambda: random_linear_mdp(KEY, 5, 3, 4, 3),
    "hard": lambda: hard_instance(jnp.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]), 0.2),
    "tabular": lambda: linear_mdps.tabular(KEY, 3, 2, 4),
}


def test_every_family_is_a_valid_linear_mdp():
    assert set(INSTANCES) == set(FAMILIES)
    for name, make in INSTANCES.items():
        model = make()
        linear_mdp(model.features, model.factors, model.reward_weights, model.initial)  # raises unless valid
        assert model.features.dtype == jnp.float64, name
        # sums of d products of rounded laws
        np.testing.assert_allclose(jnp.sum(kernels(model), axis=-1), 1, rtol=0, atol=1e-14, err_msg=name)


def test_the_simulated_problem_is_as_described():
    model = simulated(slip=0.01)
    assert model.features.shape == (5, 16, 4) and model.factors.shape == (3, 4, 5)
    jump = 0.3 + 0.2 * np.linspace(-1, 1, 5)  # delta + <xi, a> by the number of ones
    ones = [bin(i).count("1") for i in range(16)]  # lexicographic in {-1, 1}^4
    np.testing.assert_allclose(model.features[0, :, 3], jump[ones], rtol=0, atol=1e-15)
    np.testing.assert_allclose(model.factors[0, 0], [0, 0.99, 0, 0.01, 0], rtol=0, atol=0)
    # goal and fail state keep, and only the goal pays, from the second step
    law, pay = kernels(model), rewards(model)
    np.testing.assert_allclose(law[:, 3, :, 3], 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(law[1:, 4, :, 4], 1, rtol=0, atol=1e-15)
    assert jnp.all(pay[0] == 0) and jnp.all(pay[1:, 3] == 0) and jnp.all(pay[1:, 4] == 1)
    target = simulated(slip=0.01, perturbation=0.4)
    np.testing.assert_allclose(target.factors[0, 3], [0, 0, 0, 0.4, 0.6], rtol=0, atol=0)
    np.testing.assert_array_equal(target.factors[1:], model.factors[1:])
    np.testing.assert_array_equal(linear_mdps.perturbed(model, 0.4).factors, target.factors)


def test_random_instances_have_zeros_and_vmap():
    keys = jax.random.split(KEY, 50)
    batch = jax.jit(jax.vmap(lambda key: random_linear_mdp(key, 5, 3, 2, 3)))(keys)
    share = jnp.mean(jnp.where(batch.factors == 0, 1.0, 0.0))
    # 20% of the 4 of 5 entries that are not the largest
    assert 0.12 < share < 0.2
    assert jnp.all(jnp.sum(batch.factors, axis=-1) > 1 - 1e-12)
    none = random_linear_mdp(KEY, 5, 3, 2, 3, zeros=0.0)
    assert jnp.all(none.factors > 0)
    dense = jax.random.dirichlet(jax.random.split(KEY, 4)[1], jnp.full(5, 0.5), (2, 3))
    np.testing.assert_allclose(none.factors, dense, rtol=1e-14, atol=0)


def test_the_hard_class_pays_by_matching_bits():
    signs = jnp.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    model = hard_instance(signs, 0.3)
    assert model.features.shape == (2, 4, 4)
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    # a bit pays 1 where its sign is 1 and 0 where it is -1, a missing bit pays 1/2
    for h in range(3):
        expected = 0.3 * (bits @ ((np.asarray(signs[h]) + 1) / 2) / 2 + (1 - bits.sum(1) / 2) / 2)
        np.testing.assert_allclose(rewards(model)[h, 0], expected, rtol=0, atol=1e-16)
    np.testing.assert_allclose(kernels(model)[0, 0, :, 1], 1 / 12, rtol=0, atol=1e-15)
    assert jnp.all(rewards(model)[:, 1] == 0)


def test_bad_input():
    for arguments, message in [
        ({"tilt": 0.5}, "base, tilt: found 0.3, 0.5"),
        ({"base": 0.9, "tilt": 0.2}, "base, tilt: found 0.9, 0.2"),
        ({"slip": -0.1}, "slip: found -0.1, expected a probability"),
        ({"leak": 1.1}, "leak: found 1.1"),
        ({"perturbation": 2.0}, "perturbation: found 2.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            simulated(**arguments)
    with pytest.raises(ValueError, match=r"sizes: found \(4, 3, 0, 3\)"):
        random_linear_mdp(KEY, 4, 3, 0, 3)
    with pytest.raises(ValueError, match=r"concentration: found 0\.0"):
        linear_mdps.tabular(KEY, 4, 3, 2, 0.0)
    with pytest.raises(ValueError, match="signs: found shape"):
        hard_instance(jnp.array([[0.5]]), 0.1)
    with pytest.raises(ValueError, match=r"gain: found 1\.5"):
        hard_instance(jnp.ones((1, 1)), 1.5)
    with pytest.raises(ValueError, match=r"leak: found 2\.0, expected a probability"):
        hard_instance(jnp.ones((1, 1)), 0.5, 2.0)
