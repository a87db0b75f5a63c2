"""Counterexamples and examples of the losses' statements: the exact numbers, and the library at the same points."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash import IPO2, NashMD, PreferenceGame, all_judged_pairs, geometric_mixture, ipo_loss, log_normalise
from theory_checks import nash_losses as checks
from theory_checks.nash import Instance

# gradients of size below 10, a few dozen operations
ROUNDING = 64 * 10 * 2.0**-52


def game(preference, reference, temperature):
    return PreferenceGame(jnp.asarray(preference), jnp.log(jnp.asarray(reference)), jnp.asarray(temperature))


def test_both_orders_of_a_pair_in_the_example_of_two_actions():
    # p = .7, pi = 1/2: X1 = X2 is (.1, -.1) or 0 with equal chance; in the difference of logits both variances are
    # 0.0025, in the two logits (half of it with each sign) twice that.
    even = jnp.log(jnp.array([0.5, 0.5]))
    problem = game([[0.5, 0.7], [0.3, 0.5]], [0.5, 0.5], 1.0)
    bound = checks.contrastive_variance(Instance(problem, even, even, jnp.zeros(()), jnp.asarray(True)))
    np.testing.assert_allclose([bound.lhs, bound.rhs], 0.005, rtol=1e-12)


def test_the_minor_is_that_of_the_library_at_even_odds():
    exact = checks.without_centring()
    assert exact.lhs == Fraction(32, 1715) and exact.rhs == 0
    problem = game(np.full((3, 3), 0.5), np.array([5, 21, 16]) / 42, 1.0)
    policy = jnp.log(jnp.array([20, 21, 1]) / 42)
    # gradient of the library's own step, and E_q r grad log pi = q r - pi E_q r
    solver = IPO2(1.0, 0.5)
    slope = policy - solver.step(problem, solver.start(policy)).log_policy
    slope = slope - jnp.mean(slope)
    q = jnp.exp(geometric_mixture(policy, problem.reference_logits, 0.5))
    r = policy - problem.reference_logits
    quoted = q * r - jnp.exp(policy) * (q @ r)
    minor = (slope[0] * quoted[1] - slope[1] * quoted[0]) / np.log(2) ** 2
    np.testing.assert_allclose(jnp.abs(minor), float(exact.lhs), rtol=0, atol=ROUNDING)


def test_the_released_mixture_moves_the_library_as_much_as_the_fractions():
    exact = checks.half_mixture()
    assert exact.lhs == Fraction(1, 10) and exact.rhs == 0
    problem = game([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], np.full(3, 1 / 3), 1.0)
    policy = jnp.log(jnp.array([16, 1, 1]) / 18)
    pairs = all_judged_pairs(problem.preference, geometric_mixture(policy, problem.reference_logits, 0.25))
    slope = jax.grad(lambda x: ipo_loss(log_normalise(x), problem.reference_logits, pairs, 1.0))(policy)
    solver = NashMD(0.5)
    moved = policy - 3 / 8 * slope - solver.step(problem, solver.start(policy)).log_policy
    np.testing.assert_allclose(jnp.max(moved) - jnp.min(moved), 0.1, rtol=0, atol=ROUNDING)


def test_the_per_token_form_misses_what_the_fractions_say():
    exact = checks.per_token_counterexample()
    assert exact.lhs == Fraction(1, 12) and exact.rhs == 0
    levels = [jnp.zeros((1, 2)), jnp.array([[np.log(2), 0.0], [0.0, 0.0]])]
    reference = [jnp.zeros((1, 2)), jnp.array([[0.0, np.log(2)], [0.0, 0.0]])]
    models = checks.Models(levels, jnp.zeros((3, 2)), reference)
    per_token, right, _ = checks.kl_gradients(models, True, 2)
    go, _, _ = checks.kl_gradients(models, False, 2)
    # the first level's logits come first
    np.testing.assert_allclose(jnp.abs(right - per_token)[:2], np.log(2) / 12, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(go, right, rtol=0, atol=ROUNDING)
