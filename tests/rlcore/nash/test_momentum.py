"""APO: its closed form for known rewards, its rate, and what momentum does on a cycle."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import rps
from rlcore.nash import APO, MWU, OMWU, apo_gain, apo_policy, kl, log_normalise, preference_game, unregularised_gap
from rlcore.solver import iterate

EPS = 2.0**-52
N, STEPS = 6, 50
START = log_normalise(jax.random.normal(jax.random.key(1), (N,)))
REWARDS = jax.random.uniform(jax.random.key(2), (N,))
GAME = preference_game(jnp.full((N, N), 0.5))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, -0.5])
def test_known_rewards_have_a_closed_form(momentum):
    solver = APO(0.5, momentum, REWARDS)
    observe = lambda game, state: state.log_policy  # noqa: E731
    path = iterate(solver, GAME, STEPS, state=solver.start(START), observe=observe)[1]
    closed = jax.vmap(lambda t: apo_policy(REWARDS, START, 0.5, momentum, t))(jnp.arange(STEPS + 1))
    # The specification verified 4e-14. Each step rounds logits up to 0.5 c_T < 300, and momentum repeats an error up to
    # 1 / (1 - m) times.
    np.testing.assert_allclose(path, closed, rtol=0, atol=8 * EPS * 300 / (1 - momentum))
    if momentum < 0.5:
        np.testing.assert_allclose(path, closed, rtol=0, atol=4e-14)


@pytest.mark.parametrize("momentum", ["0", "1/2", "-1/3", "9/10"])
def test_the_gain_in_exact_arithmetic(momentum):
    m = fractions.Fraction(momentum)
    gain, step = fractions.Fraction(0), fractions.Fraction(0)
    for t in range(12):
        np.testing.assert_allclose(apo_gain(float(m), t), float(gain), rtol=64 * EPS / (1 - float(m)) ** 2, atol=1e-14)
        # the recursion itself: a step is 1 plus momentum times the step before
        step = 1 + m * step
        gain += step


def test_the_rate_of_known_rewards():
    best = jnp.max(REWARDS)
    for momentum in (0.0, 0.5, 0.9):
        for steps in (1, 10, 200):
            policy = jnp.exp(apo_policy(REWARDS, START, 0.5, momentum, steps))
            regret = best - policy @ REWARDS
            bound = -START[jnp.argmax(REWARDS)] / (0.5 * apo_gain(momentum, steps))
            assert 0 <= regret <= bound
    # about 1 / (1 - m) times faster in the long run
    np.testing.assert_allclose(apo_gain(0.9, 5000) / apo_gain(0.0, 5000), 10, rtol=0.01)


def test_without_momentum_it_is_multiplicative_weights():
    game = preference_game(rps(0.4))
    start = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    ours = iterate(APO(0.3, 0.0), game, 30, state=APO(0.3, 0.0).start(start))[0].log_policy
    theirs = iterate(MWU(0.3), game, 30, state=MWU(0.3).start(start))[0].log_policy
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * EPS * 30)


def test_on_a_cycle_every_momentum_diverges_and_optimism_does_not():
    # The specification: RPS s = 1/2, eta = 0.2, start (.4, .3, .3), KL(uniform||lh_T).
    game, start = preference_game(rps(0.5)), jnp.log(jnp.array([0.4, 0.3, 0.3]))
    uniform = game.reference_logits

    def distance(momentum):
        solver = APO(0.2, momentum)
        observe = lambda game, state: kl(uniform, state.log_policy)  # noqa: E731
        return iterate(solver, game, 1000, state=solver.start(start), observe=observe, every=100)[1]

    momenta = [0.0, 0.6, -0.2, -0.9]
    paths = dict(zip(momenta, jax.jit(jax.vmap(distance))(jnp.array(momenta)), strict=True))
    for momentum, steps, golden in ((0.0, 3, 0.025), (0.6, 3, 2.5), (-0.2, 3, 0.0195)):
        assert paths[momentum][steps] == pytest.approx(golden, rel=0.05)  # two printed digits
    for momentum, golden in ((0.0, 0.19), (-0.2, 0.095), (-0.9, 0.049)):
        assert paths[momentum][10] == pytest.approx(golden, rel=0.06)
        assert paths[momentum][10] > paths[momentum][0] == pytest.approx(0.0095, rel=0.02)
    optimistic = iterate(OMWU(0.2), game, 1000, state=OMWU(0.2).start(start))[0].log_policy
    assert kl(uniform, optimistic) < 0.0095 and unregularised_gap(game.preference, optimistic) < 0.05


def test_hyper_parameters_may_be_traced_and_rewards_batched():
    grid = jax.jit(
        jax.vmap(lambda m, r: iterate(APO(0.5, m, r), GAME, 5, state=APO(0.5, m, r).start(START))[0].log_policy)
    )(jnp.array([0.0, 0.5]), jnp.stack([REWARDS, -REWARDS]))
    for i, (m, r) in enumerate(((0.0, REWARDS), (0.5, -REWARDS))):
        np.testing.assert_allclose(grid[i], apo_policy(r, START, 0.5, m, 5), rtol=0, atol=64 * EPS * 10)
