"""alpha against exact rationals, the mean of the m largest against enumeration, V_virt against its bound."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    SwitchingBandit,
    alpha,
    from_tables,
    minorant,
    occupancy,
    payoff_class,
    poisson_alpha,
    relaxation,
    virtual_value,
)
from rlcore.lsd.guarantee import top_mean


def exact_alpha(k, m):
    p = Fraction(m, k)
    return sum(min(m, x) * math.comb(k, x) * p**x * (1 - p) ** (k - x) for x in range(k + 1)) / m


def test_alpha_is_the_binomial_sum():
    pairs = [(k, m) for k in (1, 2, 3, 5, 10, 16, 17, 40, 90) for m in (1, 2, 3, 7, 16, 39) if m <= k]
    found = jax.jit(jax.vmap(alpha))(*(jnp.asarray(x) for x in zip(*pairs, strict=True)))
    exact = [float(exact_alpha(k, m)) for k, m in pairs]
    np.testing.assert_allclose(found, exact, rtol=16 * np.finfo(float).eps)  # a few operations on terms below 1
    assert alpha(3, 5) == 1 and alpha(4, 4) == 1


def test_alpha_golden_values_and_limit():
    # spec T4
    np.testing.assert_allclose([alpha(k) for k in (2, 3, 4, 5, 10)], [0.75, 0.7037, 0.6836, 0.6723, 0.6513], atol=5e-5)
    np.testing.assert_allclose([poisson_alpha(m) for m in (1, 2, 3)], [0.6321, 0.7293, 0.7760], atol=5e-5)
    np.testing.assert_allclose(poisson_alpha(1), 1 - np.exp(-1), rtol=1e-15)
    ks = jnp.array([10, 100, 10**4, 10**6, 10**9])
    for m in (1, 4, 9):
        values = jax.vmap(lambda k, m=m: alpha(k, m))(ks)
        assert np.all(np.diff(values) < 0) and values[-1] > poisson_alpha(m)
        # (1 - m / k)^k differs from its limit by the order of m^2 / k
        assert values[-1] - poisson_alpha(m) < 1e-9 * m**2


def enumerated(payoffs, chance, plays):
    """E of the sum of the m largest, over all outcomes of all arms."""
    arms = []
    for pay, q in zip(payoffs, chance, strict=True):
        arms.append([*zip(pay, q, strict=True), (0.0, 1 - sum(q))])
    total = 0.0
    for outcome in itertools.product(*arms):
        prob = math.prod(q for _, q in outcome)
        total += prob * sum(sorted((pay for pay, _ in outcome), reverse=True)[:plays])
    return total


@pytest.mark.parametrize("plays", [1, 2, 3])
def test_top_mean_is_the_enumerated_one(plays):
    rng = np.random.default_rng(plays)
    compute = jax.jit(lambda p, q: top_mean(p, q, plays))
    for trial in range(6):
        payoffs = rng.random((3, 3)) if trial % 2 else rng.integers(0, 3, (3, 3)) / 2  # with ties and zeros
        chance = rng.dirichlet(np.ones(4), 3)[:, :3]
        if trial == 5:
            chance[0] = [1.0, 0.0, 0.0]
        found = compute(jnp.asarray(payoffs), jnp.asarray(chance))
        np.testing.assert_allclose(found, enumerated(payoffs, chance, plays), rtol=0, atol=1e-14)


def test_instance_q():
    q = from_tables(
        [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]],
        [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]],
        payoff_class="monotone",
    )
    np.testing.assert_allclose(virtual_value(q, occupancy(q, relaxation(q)).play), 0.533, rtol=0, atol=1e-12)


def draw(key, kind):
    v = jnp.sort(jax.random.uniform(key, (4, 6)), axis=1)
    v = v**4 if kind == 1 else v
    return v * jax.random.uniform(key, (4, 1)) if kind == 2 else v


@pytest.mark.parametrize("plays", [1, 2, 3])
def test_the_guarantee_is_at_least_alpha(plays):
    def slack(payoffs):
        problem = SwitchingBandit(payoffs, 2)
        plan = relaxation(problem, plays)
        return virtual_value(problem, occupancy(problem, plan).play, plays) - alpha(4, plays) * plan.value

    keys = jax.random.split(jax.random.key(plays), 100)
    payoffs = jnp.concatenate([jax.vmap(lambda key, kind=kind: draw(key, kind))(keys) for kind in range(3)])
    assert jnp.min(jax.jit(jax.vmap(slack))(payoffs)) >= -1e-12


def test_no_collision_loses_nothing():
    # one arm alone is never in the way
    problem = from_tables([[0.2, 0.9, 1.0]], [[0.1, 0.0]])
    plan = relaxation(problem)
    np.testing.assert_allclose(virtual_value(problem, occupancy(problem, plan).play), plan.value, rtol=1e-14)


def test_minorants():
    rng = np.random.default_rng(0)
    problem = from_tables(rng.random((3, 4)), rng.random((3, 2)))
    for name in ("monotone", "recovering"):
        least = minorant(problem, name)
        first = 0 if name == "monotone" else 2
        p = np.asarray(problem.payoffs)
        by_hand = p.copy()
        for e in range(first, 6):
            by_hand[:, e] = p[:, e:].min(axis=1)
        np.testing.assert_array_equal(least.payoffs, by_hand)
        assert payoff_class(least) in ("monotone", name)
    with pytest.raises(ValueError, match=r"payoff_class: found 'arbitrary', expected 'monotone' or 'recovering'"):
        minorant(problem, "arbitrary")
