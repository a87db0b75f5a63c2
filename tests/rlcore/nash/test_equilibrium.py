"""Four ways to the same equilibrium, the certificate as an inequality, and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import mostly_dominated, perturbed_rps, random_game, random_skew, rps, three_type, weighted_rps
from rlcore.nash import (
    PreferenceGame,
    equilibrium,
    equilibrium_error,
    equilibrium_extragradient,
    kl,
    log_normalise,
    lottery,
    three_cycle_equilibrium,
    two_action_equilibrium,
    unregularised_gap,
)
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT


def span(v):
    return jnp.max(v, axis=-1) - jnp.min(v, axis=-1)


def games_between(seed, n, low, high, count=60):
    keys = jax.random.split(jax.random.key(seed), count)
    temperatures = jnp.asarray(np.geomspace(low, high, count))
    return jax.jit(jax.vmap(lambda key, tau: random_game(key, n, temperature=tau)))(keys, temperatures)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.05, [0.1517447, 0.46794775, 0.38030755]),
        (0.1, [0.17347803, 0.48630324, 0.34021873]),
        (0.5, [0.29813319, 0.41382045, 0.28804635]),
    ],
)
def test_published_equilibria(temperature, expected):
    for solve in (equilibrium, equilibrium_extragradient):
        solution = solve(perturbed_rps(), jnp.zeros(3), temperature)
        assert solution.status == CONVERGED
        np.testing.assert_allclose(jnp.exp(solution.value), expected, rtol=0, atol=1e-8)  # printed digits


@pytest.mark.parametrize(("n", "low"), [(2, 1e-2), (9, 1e-3), (29, 1e-2)])
def test_newton_and_extragradient_agree(n, low):
    games, _ = games_between(n, n, low, 3.0)
    newton = jax.vmap(lambda game: equilibrium(*game))(games)
    extragradient = jax.vmap(lambda game: equilibrium_extragradient(*game))(games)
    assert np.all(newton.status == CONVERGED) and np.all(extragradient.status == CONVERGED)
    difference = span(newton.value - extragradient.value)
    assert np.max(difference) <= 1e-9 and np.all(difference <= newton.bound + extragradient.bound)
    assert np.max(newton.steps) < 100
    if n == 2:
        closed = jax.vmap(two_action_equilibrium)(games.preference[:, 0, 1], games.reference_logits, games.temperature)
        assert np.all(span(newton.value - closed) <= newton.bound)


def test_the_bound_bounds_the_error_of_any_policy():
    games, starts = games_between(1, 6, 1e-2, 2.0)
    stars = jax.vmap(lambda game: equilibrium(*game))(games)
    for scale in (1.0, 1e-3, 1e-8):
        policies = jax.vmap(log_normalise)(stars.value + scale * starts)
        bounds = jax.vmap(equilibrium_error)(games, policies)
        errors = span(policies - stars.value)
        assert np.all(errors <= bounds + stars.bound)
        assert np.median(bounds / errors) < 1e4  # an informative bound
        assert np.all(jax.vmap(kl)(policies, stars.value) <= bounds**2 / 8)


def test_without_temperature():
    for seed in range(5):
        p = random_skew(jax.random.key(seed), 9)
        policy = lottery(p)
        assert unregularised_gap(p, jnp.log(jnp.asarray(policy))) < 1e-15
        assert np.sum(policy > 1e-9) % 2 == 1  # generic skew games have an odd support
        cold = equilibrium(p, jnp.zeros(9), 1e-5)
        assert cold.status == CONVERGED
        # regularisation bias of the gap: 2 tau log n
        assert unregularised_gap(p, cold.value) <= 2e-5 * np.log(9)
        np.testing.assert_allclose(jnp.exp(cold.value), policy, atol=1e-2)
    for p in (rps(0.3), weighted_rps(0.1, 0.2, 0.3), three_type(0.1), perturbed_rps()):
        np.testing.assert_allclose(three_cycle_equilibrium(p), lottery(p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("low", [1e-6, 1e-4])
def test_continuation_reaches_low_temperatures(low):
    games, _ = games_between(5, 10, low, 1e-3, count=40)
    solutions = jax.vmap(lambda game: equilibrium(*game))(games)
    assert np.all(solutions.status == CONVERGED)
    # gap = 2 tau KL(pi || BR) <= tau residual^2 / 4 <= tau bound^2 / 4, and the bound's own rounding
    assert np.all(
        jax.vmap(PreferenceGame.gap)(games, solutions.value) <= games.temperature * solutions.bound**2 / 4 + 1e-15
    )


def test_dominated_actions_are_exponentially_rare():
    solution = equilibrium(mostly_dominated(8, 3, 0.5, 0.25), jnp.zeros(8), 1e-3)
    assert solution.status == CONVERGED
    # against the uniform core, a core action wins 1/2 and the others 1/4: log-ratio .25 / tau, mass below e^-250
    np.testing.assert_allclose(solution.value[0] - solution.value[7], 250, rtol=1e-9)


def test_vmap_equals_a_loop():
    games, _ = games_between(2, 5, 1e-2, 1.0, count=4)
    batch = jax.vmap(lambda game: equilibrium(*game))(games)
    for i in range(4):
        one = equilibrium(*jax.tree.map(lambda x, i=i: x[i], games))
        assert span(batch.value[i] - one.value) <= batch.bound[i] + one.bound
        assert batch.steps[i] == one.steps


def test_mask_and_precision():
    game, _ = random_game(jax.random.key(1), 5, temperature=0.1)
    star = equilibrium(*game)
    preference = jnp.pad(game.preference, (0, 1), constant_values=0.5).at[5, :5].set(1.0).at[:5, 5].set(0.0)
    padded = (preference, jnp.append(game.reference_logits, -jnp.inf), game.temperature)
    for solve in (equilibrium, equilibrium_extragradient):
        masked = solve(*padded)
        assert masked.status == CONVERGED and masked.value[5] == -np.inf
        assert span(masked.value[:5] - star.value) <= masked.bound + star.bound
        single = solve(*jax.tree.map(lambda x: x.astype(jnp.float32), padded))
        assert single.value.dtype == jnp.float32 and single.status == CONVERGED
        # the bound is for the rounded game; rounding the game moves its equilibrium by about as much again
        assert span(single.value[:5].astype(jnp.float64) - star.value) <= 2 * single.bound.astype(jnp.float64)
    gradient = jax.grad(lambda *game: equilibrium(*game).value[0], argnums=(0, 1, 2))(*padded)
    assert all(np.all(np.isfinite(x)) for x in gradient)


def test_derivatives_are_those_of_the_equilibrium():
    game, _ = random_game(jax.random.key(4), 4, temperature=0.2)
    direction = random_skew(jax.random.key(5), 4) - 0.5

    def solve(shift):
        preference = game.preference + shift * direction
        return equilibrium(preference, game.reference_logits + shift * jnp.arange(4.0), game.temperature + shift).value

    step = 1e-5
    numeric = (solve(step) - solve(-step)) / (2 * step)  # error step^2 and 1e-13 / step
    forward = jax.jacfwd(solve)(0.0)
    np.testing.assert_allclose(forward, numeric, rtol=0, atol=1e-6)
    np.testing.assert_allclose(jax.jacrev(solve)(0.0), forward, rtol=0, atol=1e-12)


def test_failures_are_told():
    game, _ = random_game(jax.random.key(1), 5, temperature=0.01)
    short = equilibrium(*game, max_steps=1)
    assert short.status == STEP_LIMIT and short.bound > 1e-3
    assert equilibrium(*game, tol=1e-30).status == STEP_LIMIT
    loose = equilibrium(*game, tol=0.5)
    assert loose.status == CONVERGED and loose.bound <= 0.5 and loose.steps <= equilibrium(*game).steps
    assert equilibrium_extragradient(*game, max_steps=10).status == STEP_LIMIT
    assert equilibrium_extragradient(*game, tol=1e-3).bound <= 1e-3
    broken = equilibrium(game.preference * jnp.nan, game.reference_logits, 0.1)
    assert broken.status == NOT_FINITE and broken.bound == np.inf
    for solve in (equilibrium, equilibrium_extragradient):
        for temperature in (0.0, -0.1, -1.0, np.nan):
            wrong = solve(perturbed_rps(), jnp.zeros(3), temperature, max_steps=50)
            assert wrong.status == NOT_FINITE and wrong.bound == np.inf
    with pytest.raises(ValueError, match="max_steps: found -1"):
        equilibrium(*game, max_steps=-1)


def test_lottery_is_exact_on_known_games_and_keeps_what_it_cannot_improve():
    # The lotteries of a duplicated action are a segment: the linear system is singular, the programme's answer stands.
    rows = np.array([0, 0, 1, 2])
    doubled = lottery(np.asarray(weighted_rps(0.1, 0.2, 0.3))[np.ix_(rows, rows)])
    np.testing.assert_allclose([doubled[:2].sum(), *doubled[2:]], [2 / 6, 3 / 6, 1 / 6], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(lottery([[0.5, 0.7], [0.3, 0.5]]), [1.0, 0.0])
    np.testing.assert_array_equal(lottery([[0.5]]), [1.0])
    # Relabelling actions relabels the lottery, and a single-precision matrix is the game of its rounded entries.
    p, order = np.asarray(random_skew(jax.random.key(3), 7)), np.array([3, 0, 6, 1, 5, 2, 4])
    np.testing.assert_allclose(lottery(p[np.ix_(order, order)]), lottery(p)[order], rtol=0, atol=1e-13)
    single = p.astype(np.float32)
    payoff = (single.astype(float) - single.T.astype(float)) / 2
    assert np.max(payoff @ lottery(single)) < 1e-15


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((2, 2), np.inf),
        np.full((2, 2), np.nan),
        np.zeros((2, 3)),
        np.zeros(4),
        np.full((2, 2, 2), 0.5),
        [[0.5, 0.7], [0.4, 0.5]],
        [[0.4, 0.7], [0.3, 0.5]],
        [[0.5, 1.2], [-0.2, 0.5]],
    ],
    ids=repr,
)
def test_lottery_refuses_what_is_no_preference(wrong):
    with pytest.raises(ValueError, match="preference: found"):
        lottery(wrong)


def test_lottery_tells_of_a_failed_solver(monkeypatch):
    import scipy.optimize

    found = {"status": 0, "x": np.array([0.5, 0.5, 1e-6]), "message": "no"}
    monkeypatch.setattr(scipy.optimize, "linprog", lambda *args, **kwargs: scipy.optimize.OptimizeResult(found))
    with pytest.raises(RuntimeError, match=r"lottery: found the value 1/2 \+ 1e-06"):
        lottery(np.full((2, 2), 0.5))
    found["status"] = 4
    with pytest.raises(RuntimeError, match="lottery: found HiGHS status 4"):
        lottery(np.full((2, 2), 0.5))
