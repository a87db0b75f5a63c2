"""The quantile regression loss: its definition, its minimiser, its derivative, and what others got wrong in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import project_quantile, quantile_huber_loss, quantile_law, quantile_levels


def by_definition(predicted, target, kappa):
    total = 0.0
    for i, theta in enumerate(predicted):
        level = (2 * i + 1) / (2 * len(predicted))
        for y in target:
            u = y - theta
            huber = abs(u) - kappa / 2 if kappa == 0 or abs(u) > kappa else u * u / (2 * kappa)
            total += abs(level - (u < 0)) * huber / len(target)
    return total


@pytest.mark.parametrize("kappa", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("size", "other"), [(1, 5), (5, 3), (4, 4)])
def test_it_is_its_definition_for_any_two_sizes(size, other, kappa):
    rng = np.random.default_rng(size)
    predicted, target = rng.normal(size=size), rng.normal(size=other)
    target[0] = predicted[0]
    found = quantile_huber_loss(jnp.asarray(predicted), jnp.asarray(target), kappa)
    # a sum of 20 terms of order 1
    assert float(found) == pytest.approx(by_definition(predicted, target, kappa), rel=0, abs=1e-14)


def test_the_smoothing_tends_to_the_pinball_loss():
    predicted, target = jnp.array([-1.0, 0.3, 2.0]), jnp.array([0.1, 1.5])
    exact = quantile_huber_loss(predicted, target, 0.0)
    for kappa in (0.1, 0.01):
        # every term falls by kappa / 2 at most, times a weight of at most 1, for three quantiles
        assert 0 <= float(exact - quantile_huber_loss(predicted, target, kappa)) <= 3 * kappa / 2


def test_a_batch_is_a_vmap_whatever_its_size():
    rng = np.random.default_rng(0)
    predicted, target = jnp.asarray(rng.normal(size=(7, 4))), jnp.asarray(rng.normal(size=(7, 5)))
    found = jax.vmap(quantile_huber_loss, (0, 0, None))(predicted, target, 0.5)
    assert found.shape == (7,)
    one = [float(quantile_huber_loss(p, t, 0.5)) for p, t in zip(predicted, target, strict=True)]
    np.testing.assert_allclose(found, one, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_the_derivative_is_that_of_the_definition(kappa):
    predicted, target = np.array([-1.0, 0.2, 0.5]), np.array([0.1, 0.9, -0.4, 3.0])
    found = jax.grad(quantile_huber_loss, (0, 1))(jnp.asarray(predicted), jnp.asarray(target), kappa)
    step = 1e-6
    for x, gradient in zip((predicted, target), found, strict=True):
        for i in range(x.size):
            values = []
            for sign in (1, -1):
                x[i] += sign * step
                values.append(by_definition(predicted, target, kappa))
                x[i] -= sign * step
            # no kink within a step; second differences are at most step / kappa, rounding 1e-16 / step
            assert float(gradient[i]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=0, abs=1e-8)
    loss = lambda p: quantile_huber_loss(p, jnp.asarray(target), kappa)  # noqa: E731
    along = jax.jvp(loss, (jnp.asarray(predicted),), (found[0],))[1]
    assert float(along) == pytest.approx(float(found[0] @ found[0]), rel=1e-12)


def test_descent_ends_at_the_quantiles():
    # 0 has weight 3/10, 1 has 3/10, 4 has 4/10: no level is within 1/10 of a jump
    target = jnp.array([0.0] * 3 + [1.0] * 3 + [4.0] * 4)
    exact = project_quantile(quantile_law(target), 3)
    np.testing.assert_array_equal(exact, [0, 1, 4])
    gradient = jax.grad(quantile_huber_loss)

    def step(predicted, rate):
        return predicted - rate * gradient(predicted, target, 0.0), None

    found, _ = jax.lax.scan(step, jnp.full(3, 2.0), 10 / jnp.arange(1.0, 3001.0))
    # a subgradient of size at most 1 oscillates by one step at the end
    np.testing.assert_allclose(found, exact, rtol=0, atol=10 / 3000)


def test_levels():
    np.testing.assert_allclose(quantile_levels(4), [0.125, 0.375, 0.625, 0.875])
    assert quantile_levels(3, jnp.float32).dtype == jnp.float32
    assert quantile_huber_loss(jnp.zeros(2, jnp.float32), jnp.ones(3, jnp.float32), 0.1).dtype == jnp.float32
