"""Sampled gradient steps: their mean over all samples, by enumeration, is the exact step; and they move as it does."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game
from rlcore.nash import (
    EGPO,
    IPO2,
    OMD,
    NashMD,
    NashMDPG,
    SampledEGPO,
    SampledIPO1,
    SampledIPO2,
    SampledNashMDPG,
    geometric_mixture,
    log_normalise,
    sgd_step_size,
)
from rlcore.solver import iterate

KEY = jax.random.key(5)
RATE, MIXTURE, N, TAU = 0.05, 0.3, 4, 0.5
STEP = sgd_step_size(RATE, N, TAU)
PAIRS = {
    "Online IPO 1": (OMD(STEP), functools.partial(SampledIPO1, RATE)),
    "Nash-MD as released": (NashMD(STEP, MIXTURE), functools.partial(SampledIPO1, RATE, MIXTURE)),
    "EGPO": (EGPO(STEP), functools.partial(SampledEGPO, RATE)),
    "Online IPO 2": (IPO2(RATE), functools.partial(SampledIPO2, RATE)),
    "IPO-MD": (IPO2(RATE, MIXTURE), functools.partial(SampledIPO2, RATE, MIXTURE)),
    "Nash-MD-PG": (NashMDPG(RATE, MIXTURE), functools.partial(SampledNashMDPG, RATE, MIXTURE)),
}


def game_and_start():
    return random_game(KEY, N, temperature=TAU)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_many_samples_give_the_exact_step(name, soft):
    exact, make = PAIRS[name]
    game, start = game_and_start()
    centre = lambda x: x - jnp.mean(x)  # noqa: E731
    right = centre(exact.step(game, exact.start(start)).log_policy - start)
    solver = make(samples=400_000, soft=soft)
    ours = centre(solver.step(game, solver.start(start), KEY).log_policy - start)
    # One sample moves the logits with a deviation below 1/2 (policy gradient: 1/10), so these are five of the mean.
    deviation = 5 * (0.1 if name == "Nash-MD-PG" else 0.5) / np.sqrt(400_000)
    np.testing.assert_allclose(ours, right, rtol=0, atol=deviation)
    assert np.max(np.abs(right)) > 10 * deviation


def test_the_mean_over_all_triples_and_labels_is_the_gradient():
    # by brute force, independent of the sampler: the definition of the loss, each triple with its probability
    game, start = game_and_start()
    q = jnp.exp(geometric_mixture(start, game.reference_logits, MIXTURE))
    ratio = np.array(start - game.reference_logits)
    gradient = np.zeros(N)
    for y, other, rival in itertools.product(range(N), repeat=3):
        for z, w in itertools.product((0, 1), repeat=2):
            win, second = game.preference[y, rival], game.preference[other, rival]
            chance = (win if z else 1 - win) * (second if w else 1 - second) * q[rival] / N**2
            error = 2 * (ratio[y] - ratio[other] - (z - w) / TAU)
            gradient[y] += chance * error
            gradient[other] -= chance * error
    expected = log_normalise(start - RATE * gradient)
    exact = NashMD(STEP, MIXTURE)
    # 256 terms of size 10, rounded
    np.testing.assert_allclose(exact.step(game, exact.start(start)).log_policy, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_one_step_is_unbiased_and_moves_by_the_loss_of_its_samples(name):
    exact, make = PAIRS[name]
    game, start = game_and_start()
    solver = make(samples=2)
    steps = jax.jit(jax.vmap(lambda key: solver.step(game, solver.start(start), key).log_policy - start))
    moves = np.array(steps(jax.random.split(KEY, 20_000)))
    moves -= moves.mean(axis=1, keepdims=True)
    right = exact.step(game, exact.start(start)).log_policy - start
    right = np.array(right - jnp.mean(right))
    # The second half of EGPO sees a random opponent: its mean is the exact one only up to the square of the step.
    bias = 0.3 * STEP**2 if name == "EGPO" else 0.0
    np.testing.assert_array_less(np.abs(moves.mean(0) - right), 5 * moves.std(0) / np.sqrt(20_000) + bias)


def test_egpo_draws_afresh_at_the_half_step():
    game, start = game_and_start()
    solver = SampledEGPO(RATE, samples=1)
    state = jax.vmap(lambda key: solver.step(game, solver.start(start), key))(jax.random.split(KEY, 200))
    pairs = [np.argmax(np.abs(np.array(x - start[None])), axis=1) for x in (state.half_step, state.log_policy)]
    assert 0.05 < np.mean(pairs[0] == pairs[1]) < 0.95


@pytest.mark.parametrize("name", PAIRS)
def test_masks_dtype_and_lanes(name):
    make = PAIRS[name][1]
    game, start = game_and_start()
    hide = lambda x: log_normalise(jnp.where(jnp.arange(N) == 1, -jnp.inf, x))  # noqa: E731
    game, start = game._replace(reference_logits=hide(game.reference_logits)), hide(start)
    solver = make(samples=7, soft=False)
    keys = jax.random.split(KEY, 3)
    run = lambda key: iterate(solver, game, 3, state=solver.start(start), key=key)[0].log_policy  # noqa: E731
    batch = jax.vmap(run)(keys)
    assert np.all(batch[:, 1] == -np.inf) and np.all(np.isfinite(np.delete(batch, 1, axis=1)))
    # a vmapped program may round differently
    np.testing.assert_allclose(batch[2], run(keys[2]), rtol=0, atol=1e-13)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (game, start))
    assert solver.step(single[0], solver.start(single[1]), KEY).log_policy.dtype == jnp.float32
    for bad, message in ((make(samples=0), "samples: found 0"), (solver, "key: found None")):
        with pytest.raises(ValueError, match=message):
            bad.step(game, solver.start(start), KEY if bad is not solver else None)
