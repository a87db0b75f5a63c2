"""Objectives against exact gradients on an enumerated game, and training that reaches the equilibrium."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.text import bigram_text
from rlcore.nash import (
    deep,
    equilibrium,
    kl,
    log_normalise,
    objectives,
    paths_of_tree,
    sample_responses,
    text_game,
    token_mixture,
)
from rlcore.nn.transformer import Transformer

V, L = 3, 2
LARGE = 200_000


@pytest.fixture(scope="module")
def small():
    return bigram_text(1, V, L, temperature=0.2)


def policy_paths(seed):
    """Token log-probabilities of a random policy."""
    keys = jax.random.split(jax.random.key(seed), L)
    levels = [jax.nn.log_softmax(jax.random.normal(k, (V**t, V)), axis=1) for t, k in enumerate(keys)]
    return paths_of_tree(levels), levels


def exact_gradient(game, levels, opponent):
    """Of the regularised value against a fixed opponent, in the tokens' logits, by automatic differentiation."""

    def value(levels):
        policy = jnp.sum(paths_of_tree([jax.nn.log_softmax(x, axis=1) for x in levels]), axis=1)
        wins = jnp.sum(jnp.exp(policy) * jnp.matmul(game.preference, jnp.exp(opponent)))
        return wins - game.temperature * kl(policy, game.game().reference_logits)

    return jnp.concatenate([x.ravel() for x in jax.grad(value)(levels)])


def sampled_gradient(objective, game, levels, key=0):
    reference = game.paths()

    def loss(levels):
        paths = paths_of_tree([jax.nn.log_softmax(x, axis=1) for x in levels])
        fixed = jax.lax.stop_gradient(paths)
        return objective.loss(
            jax.random.key(key), game, paths, objectives.Seen(reference, fixed, jnp.sum(fixed, axis=1))
        )

    return jnp.concatenate([x.ravel() for x in jax.grad(loss)(levels)])


# 200 000 draws of terms of size below 5: standard errors below 0.011 each; the gradients are larger.
NOISE = 0.02


@pytest.mark.parametrize("mixture", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bernoulli", [False, True])
def test_policy_gradient_is_that_of_the_regularised_value(small, mixture, bernoulli):
    paths, levels = policy_paths(0)
    opponent = token_mixture(paths, small.paths(), mixture)
    exact = exact_gradient(small, levels, opponent)
    sampled = sampled_gradient(objectives.PolicyGradient(mixture, LARGE, bernoulli=bernoulli), small, levels)
    np.testing.assert_allclose(-sampled, exact, atol=NOISE)


def test_per_token_cost_is_another_gradient(small):
    # Expectations by the formula: each token pays for its own log-ratio alone, so later costs are not seen earlier.
    _, levels = policy_paths(0)
    right = sampled_gradient(objectives.PolicyGradient(0.0, LARGE), small, levels)
    wrong = sampled_gradient(objectives.PolicyGradient(0.0, LARGE, per_token_kl=True), small, levels)
    # The last token has no later cost: same gradient there for the same draws.
    np.testing.assert_allclose(right[V:], wrong[V:], atol=1e-12)
    # The first one misses temperature p (KL after it - mean); draws of size 0.2 leave an error below 2.2e-4.
    paths, _ = policy_paths(0)
    ratio = (paths - small.paths())[:, 1].reshape(V, V)
    first, later = jnp.exp(paths[::V, 0]), jnp.sum(jnp.exp(paths[:, 1]).reshape(V, V) * ratio, axis=1)
    missing = 0.2 * first * (later - jnp.sum(first * later))
    np.testing.assert_allclose((right - wrong)[:V], missing, atol=1.1e-3)
    assert float(jnp.max(jnp.abs(missing))) > 4e-3


def test_pair_loss_has_the_gradient_of_self_play(small):
    # Half the IPO gradient is the policy gradient: E over pairs of the same policy, scaled by temperature / 4.
    paths, levels = policy_paths(0)
    exact = exact_gradient(small, levels, jnp.sum(paths, axis=1))
    sampled = sampled_gradient(objectives.PairIPO(0.0, LARGE), small, levels)
    np.testing.assert_allclose(-sampled, exact, atol=NOISE)


@pytest.mark.parametrize(
    "objective",
    [objectives.PairIPO(0.0, LARGE), objectives.PairIPO(0.0, LARGE, bernoulli=True), objectives.UniformIPO(0.0, LARGE)],
)
def test_nothing_moves_at_the_equilibrium_and_something_moves_elsewhere(small, objective):
    star = equilibrium(*small.game()).value
    joint = star.reshape(V, V)
    first = jax.nn.logsumexp(joint, axis=1)
    levels = [first[None, :], joint - first[:, None]]
    assert float(jnp.max(jnp.abs(sampled_gradient(objective, small, levels)))) < NOISE
    _, elsewhere = policy_paths(0)
    assert float(jnp.max(jnp.abs(sampled_gradient(objective, small, elsewhere)))) > 2 * NOISE


def test_anchored_regressions_are_solved_by_their_mirror_step(small):
    paths, _ = policy_paths(0)
    anchor = jnp.sum(paths, axis=1)
    wins = jnp.matmul(small.preference, jnp.exp(anchor))
    step, tau = 1.5, 0.2
    reference = small.game().reference_logits
    omd = log_normalise((1 - step * tau) * anchor + step * tau * reference + step * wins)
    mwu = log_normalise(anchor + step * wins)

    def gradient(objective, solution):
        start = solution.reshape(V, V)
        first = jax.nn.logsumexp(start, axis=1)
        levels = [first[None, :], start - first[:, None]]
        seen = objectives.Seen(small.paths(), paths, anchor)
        loss = lambda x: objective.loss(  # noqa: E731
            jax.random.key(1), small, paths_of_tree([jax.nn.log_softmax(y, axis=1) for y in x]), seen
        )
        return float(max(jnp.max(jnp.abs(x)) for x in jax.grad(loss)(levels)))

    # DNO's labels are sigmoid(difference of win rates): its minimiser is the step 1 / scale exactly.
    for objective, solution in (
        (objectives.INPO(step, LARGE), omd),
        (objectives.DNO(1 / step, LARGE), mwu),
    ):
        # Errors of size below 1: a standard error below 0.0022.
        assert gradient(objective, solution) < 0.01
        assert gradient(objective, anchor) > 0.02


def test_samples_have_the_right_frequencies():
    policy = log_normalise(jnp.array([0.0, 1.0, -jnp.inf, 2.0, 0.5]))
    drawn = sample_responses(jax.random.key(0), policy, LARGE)
    shares = np.bincount(drawn, minlength=5) / LARGE
    # Five standard errors of a share.
    np.testing.assert_allclose(shares, np.exp(policy), atol=5 * 0.5 / np.sqrt(LARGE))
    assert shares[2] == 0


def test_training_starts_at_the_reference_and_reaches_the_equilibrium(small):
    game = small.astype(jnp.float32)
    star = equilibrium(*small.game()).value.astype(jnp.float32)
    network = Transformer(V, L, width=16)

    def final(objective, **options):
        solver = deep.DeepNash(objective, network, 5e-3, 300.0, **options)
        policy, trace = jax.jit(lambda k: deep.train(solver, game, star, 300, k, every=100))(jax.random.key(0))
        assert policy.dtype == trace["gap"].dtype == jnp.float32 and trace["gap"].shape == (4,)
        # float32: gap of the reference, from sums of 9 probabilities.
        start = float(small.game().gap(small.game().reference_logits))
        np.testing.assert_allclose(trace["gap"][0], start, rtol=1e-4)
        assert abs(float(trace["kl_reference"][0])) < 1e-6
        return float(trace["gap"][-1]) / start

    assert final(objectives.PolicyGradient()) < 0.05
    assert final(objectives.PairIPO()) < 0.05
    assert final(objectives.UniformIPO(), extragradient=True) < 0.05
    assert final(objectives.INPO(1.0), refresh=30) < 0.05
    assert final(objectives.PolicyGradient(), decay=0.9) < 0.05
    assert final(objectives.PolicyGradient(1.0)) > 0.002


def test_extragradient_keeps_no_trace_of_the_half_step(small):
    game = small.astype(jnp.float32)
    solver = deep.DeepNash(objectives.UniformIPO(), Transformer(V, L, width=8), extragradient=True)
    state = solver.init(game, jax.random.key(0))
    state = solver.step(game, state, jax.random.key(1))
    assert int(state.moments.count) == int(state.count) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reference_logits", dict(reference_logits=np.zeros((3, 3)))),
        ("reference_logits", dict(reference_logits=np.full((4, 3), -np.inf))),
        ("preference", dict(preference=np.full((8, 8), 0.5))),
        ("preference", dict(preference=np.full((9, 9), 0.6))),
        ("temperature", dict(temperature=np.nan)),
    ],
)
def test_bad_input_is_named(name, change):
    good = dict(preference=np.full((9, 9), 0.5), reference_logits=np.zeros((4, 3)), temperature=0.1)
    with pytest.raises(ValueError, match=f"{name}: found|{name}.*expected"):
        text_game(**(good | change))
