"""The derivative of the regularised equilibrium: against differences, under jit and vmap, and in the large."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_game, random_skew, three_type
from rlcore.nash import equilibrium, log_normalise

N = 4
GAMES = jax.vmap(lambda key: random_game(key, N)[0])(jax.random.split(jax.random.key(0), 3))._replace(
    temperature=jnp.array([0.1, 0.3, 1.0])
)
SKEW = random_skew(jax.random.key(1), N) - 0.5
# One direction per argument.
DIRECTIONS = (
    (SKEW, jnp.zeros(N), jnp.zeros(())),
    (jnp.zeros((N, N)), jnp.array([1.0, -2.0, 0.5, 0.0]), jnp.zeros(())),
    (jnp.zeros((N, N)), jnp.zeros(N), jnp.ones(())),
)


def solve(*game):
    return equilibrium(*game).value


def test_each_argument_against_central_differences_under_jit_and_vmap():
    step = 1e-5
    tangent = jax.jit(jax.vmap(lambda game, d: jax.jvp(solve, tuple(game), d)[1], in_axes=(0, None)))
    moved = jax.jit(jax.vmap(lambda game, d, h: solve(*(x + h * v for x, v in zip(game, d, strict=True))),
                             in_axes=(0, None, None)))  # fmt: skip
    for direction in DIRECTIONS:
        numeric = (moved(GAMES, direction, step) - moved(GAMES, direction, -step)) / (2 * step)
        exact = tangent(GAMES, direction)
        # The third derivative is below about 1 / tau^4 = 1e4, times step^2; rounding is 1e-12 / step.
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)
        assert np.max(np.abs(exact)) > 1e-2
        # Log-probabilities stay normalised.
        np.testing.assert_allclose(jnp.sum(jnp.exp(jax.vmap(solve)(*GAMES)) * exact, axis=1), 0, atol=1e-10)


def test_reverse_mode_is_the_adjoint_of_forward_mode():
    weight = jnp.array([0.3, -1.0, 2.0, 0.7])

    def loss(game):
        return jnp.dot(weight, solve(*game))

    gradients = jax.jit(jax.vmap(jax.grad(loss)))(GAMES)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, GAMES)
    for direction in DIRECTIONS:
        forward = jax.vmap(lambda game, d=direction: jax.jvp(loss, (game,), (type(game)(*d),))[1])(GAMES)
        pairs = zip(gradients, direction, strict=True)
        backward = sum(jnp.sum((g * v[None]).reshape(3, -1), axis=1) for g, v in pairs)
        np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-10)


def test_the_equilibrium_of_three_types_moves_with_their_shares():
    # Near temperature 0 the equilibrium is (1/3 + e/2, 1/3 + e/2, 1/3 - e): derivative (1/2, 1/2, -1).
    policy = lambda e: jnp.exp(equilibrium(three_type(e), jnp.zeros(3), 1e-4).value)  # noqa: E731
    # The bias of the temperature is of its order.
    np.testing.assert_allclose(jax.jacfwd(policy)(0.1), [0.5, 0.5, -1.0], rtol=0, atol=1e-2)


def test_a_reference_can_be_designed_by_gradients():
    game = jax.tree.map(lambda x: x[1], GAMES)
    target = log_normalise(jnp.array([0.0, 1.0, 0.5, -0.5]))
    # The reference whose equilibrium is the target, in closed form: log target - A target / tau.
    wanted = log_normalise(target - jnp.matmul(game.preference - 0.5, jnp.exp(target)) / game.temperature)

    def miss(reference):
        return jnp.sum((solve(game.preference, reference, game.temperature) - target) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(miss))(wanted)
    assert value < 1e-20 and np.max(np.abs(gradient)) < 1e-8
    away = wanted + jnp.array([0.1, 0.0, -0.1, 0.0])
    value, gradient = jax.jit(jax.value_and_grad(miss))(away)
    assert miss(away - 0.05 * gradient) < value
