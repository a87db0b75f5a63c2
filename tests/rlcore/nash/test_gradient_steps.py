"""Every exact gradient step against automatic differentiation of its population loss, written out as a double sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import bt, random_game
from rlcore.nash import (
    EGPO,
    IPO2,
    OMD,
    NashMDPG,
    OnlineDPO,
    equilibrium,
    kl,
    log_normalise,
    preference_game,
    sgd_step_size,
)
from rlcore.solver import iterate


def pairs(v):
    return v[:, None] - v[None, :]


def opponent(game, logits, c):
    policy = jax.nn.log_softmax(logits)
    return jax.lax.stop_gradient(jnp.exp(log_normalise((1 - c) * policy + c * game.reference_logits)))


def uniform_pairs_loss(logits, game, c, q=None):
    q = opponent(game, logits, 0.0) if q is None else q
    error = pairs(jax.nn.log_softmax(logits) - game.reference_logits) - pairs(game.preference @ q) / game.temperature
    return jnp.mean(error**2)


def ipo_loss(logits, game, c):
    q = opponent(game, logits, c)
    ratio = jax.nn.log_softmax(logits) - game.reference_logits
    return jnp.sum(q[:, None] * q[None, :] * (pairs(ratio) - (game.preference - 0.5) / game.temperature) ** 2)


def policy_gradient_loss(logits, game, c):
    policy = jax.nn.softmax(logits)
    divergence = jnp.sum(policy * (jax.nn.log_softmax(logits) - game.reference_logits))
    return -(policy @ game.preference @ opponent(game, logits, c) - game.temperature * divergence)


def dpo_loss(logits, game, c):
    p = opponent(game, logits, 0.0)
    h = game.temperature * pairs(jax.nn.log_softmax(logits) - game.reference_logits)
    likelihood = game.preference * jax.nn.log_sigmoid(h) + (1 - game.preference) * jax.nn.log_sigmoid(-h)
    return -jnp.sum(p[:, None] * p[None, :] * likelihood)


@pytest.mark.parametrize(
    ("loss", "make", "c"),
    [
        (uniform_pairs_loss, lambda lr, c, game: OMD(sgd_step_size(lr, 5, game.temperature)), 0.0),
        (ipo_loss, lambda lr, c, game: IPO2(lr), 0.0),
        (ipo_loss, lambda lr, c, game: IPO2(lr, c), 0.4),
        (policy_gradient_loss, lambda lr, c, game: NashMDPG(lr), 0.0),
        (policy_gradient_loss, lambda lr, c, game: NashMDPG(lr, c), 0.4),
        (policy_gradient_loss, lambda lr, c, game: NashMDPG(lr, c), 1.0),
        (dpo_loss, lambda lr, c, game: OnlineDPO(lr), 0.0),
    ],
)
def test_step_is_gradient_descent(loss, make, c):
    games, starts = jax.jit(jax.vmap(lambda key: random_game(key, 5)))(jax.random.split(jax.random.key(1), 50))

    def difference(game, start):
        rate = 0.1 * game.temperature
        solver = make(rate, c, game)
        step = solver.step(game, solver.start(start), None).log_policy
        return step - jax.nn.log_softmax(start - rate * jax.grad(loss)(start, game, c))

    # log-ratios up to 20, a few dozen operations
    np.testing.assert_allclose(jax.vmap(difference)(games, starts), 0, atol=64 * 20 * 2.0**-52)


def test_egpo_is_gradient_descent_with_a_restored_half_step():
    game, logits = random_game(jax.random.key(2), 5)
    rate = 0.1 * game.temperature
    half = logits - rate * jax.grad(uniform_pairs_loss)(logits, game, 0.0)
    new = logits - rate * jax.grad(uniform_pairs_loss)(logits, game, 0.0, jax.nn.softmax(half))
    solver = EGPO(sgd_step_size(rate, 5, game.temperature))
    step = solver.step(game, solver.start(logits), None)
    np.testing.assert_allclose(step.log_policy, jax.nn.log_softmax(new), rtol=0, atol=1e-13)


def test_where_the_losses_stop():
    game, _ = random_game(jax.random.key(3), 4, temperature=0.5)
    star = equilibrium(*game).value
    for solver in (IPO2(0.1), NashMDPG(1.0)):
        assert kl(star, iterate(solver, game, 5000)[0].log_policy) < 1e-20
    # online DPO's stationary point is another one, except for two even actions or Bradley-Terry preferences
    assert kl(star, OnlineDPO(1.0).step(game, OnlineDPO(1.0).start(star), None).log_policy) > 1e-6
    rewards = jnp.array([0.3, -0.2, 0.9, 0.0])
    fair = preference_game(bt(rewards), game.reference_logits, 0.5)
    aligned = log_normalise(fair.reference_logits + rewards / 0.5)
    step = OnlineDPO(1.0).step(fair, OnlineDPO(1.0).start(aligned), None)
    np.testing.assert_allclose(step.log_policy, aligned, rtol=0, atol=1e-14)
