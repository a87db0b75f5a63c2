"""Discounted robust planning against its own fixed point, the risk-sensitive recursion, and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.mdp import dense_mdp
from rlcore.planning import value_iteration
from rlcore.robust import (
    CHI2,
    KL,
    REVERSE_KL,
    TV,
    RobustValueIteration,
    Wasserstein,
    constrained_tv,
    functional_dual,
    plan_discounted,
    plan_exponential,
    worst_case,
)
from rlcore.solver import CONVERGED, STEP_LIMIT


def problem(seed, discount=0.9):
    kernel_key, reward_key = jax.random.split(jax.random.key(seed))
    kernel = jax.random.dirichlet(kernel_key, jnp.full(4, 0.5), (4, 3))
    return dense_mdp(kernel, jax.random.uniform(reward_key, (4, 3)), discount=discount)


@pytest.mark.parametrize(
    ("name", "constrained"), [("tv", False), ("kl", False), ("chi2", False), ("tv", True), ("kl", True), ("cvar", True)]
)
def test_the_bound_bounds_the_error(name, constrained):
    level = 0.3
    sharp = plan_discounted(problem(0), name, level, constrained, tol=1e-12 if name != "kl" else 1e-9)
    # the KL ball's bisection is in the bound, so it asks for less
    assert sharp.status == CONVERGED
    solver = RobustValueIteration(jnp.asarray(level), name, constrained)
    fixed = solver.backup(problem(0), sharp.value.value)
    np.testing.assert_allclose(fixed, sharp.value.value, rtol=0, atol=1e-8)
    for tol in (1e-1, 1e-3):
        loose = plan_discounted(problem(0), name, level, constrained, tol=tol)
        error = jnp.max(jnp.abs(loose.value.value - sharp.value.value))
        assert error <= loose.bound + sharp.bound and loose.steps < sharp.steps
    # the policy attains the values: its q is the largest
    np.testing.assert_allclose(
        jnp.take_along_axis(sharp.value.q_values, sharp.value.action[:, None], axis=1)[:, 0],
        jnp.max(sharp.value.q_values, axis=1),
    )


def test_without_an_adversary_it_is_value_iteration():
    exact = value_iteration(problem(1), tol=1e-12)
    for name, level, constrained in (("tv", jnp.inf, False), ("kl", jnp.inf, False), ("cvar", 1.0, True)):
        found = plan_discounted(problem(1), name, level, constrained, tol=1e-12)
        assert jnp.max(jnp.abs(found.value.value - exact.value.value)) <= found.bound + exact.bound
        np.testing.assert_array_equal(found.value.action, exact.value.action)


@pytest.mark.parametrize("level", [0.05, 0.5, 20.0])
def test_the_kl_price_is_the_risk_sensitive_recursion(level):
    robust = plan_discounted(problem(2), "kl", level, tol=1e-11)
    exponential = plan_exponential(problem(2), level, tol=1e-11)
    assert robust.status == CONVERGED and exponential.status == CONVERGED
    assert jnp.max(jnp.abs(robust.value.value - exponential.value.value)) <= robust.bound + exponential.bound


def test_vmap_over_levels_and_step_limit():
    levels = jnp.array([0.1, 1.0])
    batch = jax.vmap(lambda level: plan_discounted(problem(0), "tv", level).value.value)(levels)
    one = plan_discounted(problem(0), "tv", 1.0)
    np.testing.assert_allclose(batch[1], one.value.value, rtol=0, atol=2e-8)  # twice the tolerance
    constant = problem(0)
    jitted = jax.jit(lambda level: plan_discounted(constant, "tv", level).value.value)(1.0)
    np.testing.assert_allclose(jitted, one.value.value, rtol=0, atol=2e-8)
    short = plan_discounted(problem(0), "tv", 1.0, max_steps=2)
    assert short.status == STEP_LIMIT and jnp.max(jnp.abs(short.value.value - one.value.value)) <= short.bound


@pytest.mark.parametrize("divergence", [TV, KL, CHI2, REVERSE_KL], ids=lambda d: d.name)
def test_functional_dual_regression_is_the_worst_case_of_the_empirical_law(divergence):
    values = jnp.array([0.2, 1.0, 2.5, 0.1])
    pairs = jnp.array([0, 0, 0, 1, 1, 1, 1, 3])
    states = jnp.array([0, 1, 1, 2, 2, 1, 0, 2])
    level = 0.4
    found, eta = functional_dual(divergence, pairs, values[states], 4, level, jnp.min(values))
    for pair in (0, 1, 3):
        law = jnp.bincount(states[pairs == pair], length=4).astype(float)
        law = law / jnp.sum(law)
        exact = worst_case(divergence, law, values, level)
        # golden sections: the risk is flat to rounding at distance 1e-8 of its minimiser
        np.testing.assert_allclose(found[pair], exact.value, rtol=0, atol=1e-12)
        if divergence is not TV:
            np.testing.assert_allclose(eta[pair], exact.dual, rtol=0, atol=1e-6)
    assert jnp.isnan(found[2]) and jnp.isnan(eta[2])
    # TV ball with a fail state of value 0: max over eta of (1 - radius) eta - E (eta - V)_+
    fail, law = jnp.array([0.0, 1.0, 2.5, 0.4]), jnp.array([0.0, 0.5, 0.2, 0.3])
    grid = fail[:, None]  # concave and piecewise linear: the maximum is at a value
    dual = 0.7 * fail - jnp.maximum(grid - fail[None, :], 0) @ law
    np.testing.assert_allclose(jnp.max(dual), constrained_tv(law, fail, 0.3).value, rtol=0, atol=1e-15)


def test_bad_input():
    with pytest.raises(ValueError, match=r"level: found 0\.0, expected prices"):
        plan_discounted(problem(0), "tv", 0.0)
    with pytest.raises(ValueError, match="level: found inf, expected a finite number"):
        plan_exponential(problem(0), jnp.inf)
    for other in (KL, Wasserstein(jnp.zeros((4, 4)))):
        with pytest.raises(ValueError, match=f"divergence: found {type(other).__name__}, expected one of tv"):
            plan_discounted(problem(0), other, 1.0)
    with pytest.raises(ValueError, match="constrained: found False with 'cvar'"):
        plan_discounted(problem(0), "cvar", 0.5)
    with pytest.raises(ValueError, match=r"level: found 0\.0, expected prices above 0"):
        functional_dual(TV, jnp.zeros(1, int), jnp.zeros(1), 1, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"problem: found the discount 1\.0, expected one below 1"):
        plan_discounted(problem(0, 1.0), "tv", 1.0)
    ending = dense_mdp(jnp.full((2, 1, 2), 0.4), jnp.zeros((2, 1)), discount=0.9, missing_mass_ends=True)
    with pytest.raises(ValueError, match=r"problem: found rows that sum to \[0.8, 0.8\], expected laws"):
        plan_discounted(ending, "tv", 1.0)
