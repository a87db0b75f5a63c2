"""Sampled preferences (T6): EGPO with fresh, unbiased noise contracts to a level linear in the step and the variance.

Notation as in nash.py; xi is the noise of the win rates at the policy, xib at the half step pb. Expectations over few
outcomes are exact, by enumeration; the library's own sampler is judged by confidence intervals.
Proofs: docs/proofs/nash.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import position_bias, random_game
from rlcore.claims import Bound, Chance, Falsifier, Sampled, derived_here, statement
from rlcore.nash import (
    EGPO,
    PreferenceGame,
    egpo_step_size,
    geometric_mixture,
    kl,
    labelled_game,
    mirror_step,
    query,
    win_rates,
)
from rlcore.types import Array
from theory_checks.nash import EGPO_PAPER, Instance, kl_error, nearest, size, span, with_equilibrium

PROOF = "docs/proofs/nash.md#t6"
# Half of the largest step that T4 allows: near it 1 - eta a is about tau eta, and the bound says little.
CAUTION = 0.5


# ---- instances ---------------------------------------------------------------------------------------------------


class Noisy(NamedTuple):
    """An instance, with what its noise is made of.

    noise: float[2, n], a vector for each of the two queries of a step (T6a), or its magnitudes (T6).
    """

    game: PreferenceGame
    start: Array
    star: Array
    error: Array
    solved: Array
    noise: Array


class Surveyed(NamedTuple):
    """An instance whose two win rates are estimated from N labels each; levels: float[N + 1], what a mean can be."""

    game: PreferenceGame
    start: Array
    star: Array
    error: Array
    solved: Array
    levels: Array


def noisy_instance(key, n):
    """G, with normal noise whose scale is uniform in [0, 1], from a start anywhere between G's and the equilibrium."""
    game_key, scale_key, noise_key, start_key = jax.random.split(key, 4)
    instance = with_equilibrium(*random_game(game_key, n))
    start = geometric_mixture(instance.start, instance.star, jax.random.uniform(start_key))
    noise = jax.random.uniform(scale_key) * jax.random.normal(noise_key, (2, n))
    return Noisy(*instance._replace(start=start), noise)


def surveyed_instance(key, labels):
    """Two actions of G, each of whose win rates is estimated from `labels` labels."""
    return Surveyed(*with_equilibrium(*random_game(key, 2)), jnp.arange(labels + 1) / labels)


def decided_instance(key, labels):
    """Two actions of which the first wins 75 to 95%, uniform reference and tau in [0.3, 1]: a bias is not lost."""
    win_key, temperature_key = jax.random.split(key)
    win = 0.75 + 0.2 * jax.random.uniform(win_key)
    temperature = 0.3 + 0.7 * jax.random.uniform(temperature_key)
    preference = jnp.stack([jnp.stack([0.5 * jnp.ones_like(win), win]), jnp.stack([1 - win, 0.5 * jnp.ones_like(win)])])
    reference = jnp.full(2, -jnp.log(2.0))
    game = PreferenceGame(preference, reference, temperature)
    return Surveyed(*with_equilibrium(game, reference), jnp.arange(labels + 1) / labels)


def nearby(instance):
    """Project a perturbed instance back: the game as in nash.py, noise within [-3, 3]."""
    return Noisy(*nearest(Instance(*instance[:5])), jnp.clip(instance.noise, -3.0, 3.0))


def in_surveys(instance):
    """Project a perturbed instance back; what a mean can be does not move."""
    count = instance.levels.size - 1
    return Surveyed(*nearest(Instance(*instance[:5])), jnp.arange(count + 1) / count)


# ---- one step --------------------------------------------------------------------------------------------------------


def noisy_step(game, log_policy, step_size, noise, half_noise):
    """(half step, next policy) of EGPO whose win rates carry the given noise."""
    half = mirror_step(game, log_policy, win_rates(game.preference, log_policy) + noise, step_size)
    return half, mirror_step(game, log_policy, win_rates(game.preference, half) + half_noise, step_size)


def step_of(game):
    """(eta, 1 - eta tau, 1 - eta a)."""
    step_size = CAUTION * egpo_step_size(game)
    return step_size, 1 - step_size * game.temperature, 1 - step_size * jnp.max(jnp.abs(game.preference - 0.5))


@statement(
    "nash/T6a",
    "EGPO, any noise: KL+ <= (1 - eta tau) KL + eta <xib, pb - pi*> + eta^2 span(xi - xib)^2 / (8 (1 - eta a))",
    falsifiers=[
        Falsifier("the noise at the half step is paid for (its product left out)", {"product": 0.0}, share=0.05),
        Falsifier("the two noises differ (the last term left out)", {"difference": 0.0}, share=0.6),
    ],
    origin=derived_here("docs/proofs/nash.md, T6", EGPO_PAPER),
    proof=PROOF,
    generator=noisy_instance,
    project=nearby,
    cases=[{"n": 2}, {"n": 5}, {"n": 12}],
)
def any_noise(instance, product=1.0, difference=1.0):
    game, start, star, error, converged, (xi, xib) = instance
    step_size, keep, room = step_of(game)

    def bound(lp):
        half, new = noisy_step(game, lp, step_size, xi, xib)
        first, last = keep * kl(star, lp), step_size**2 * span(xi - xib) ** 2 / (8 * room)
        middle = step_size * jnp.vdot(xib, jnp.exp(half) - jnp.exp(star))
        scale = kl(star, new) + first + last + step_size * jnp.max(jnp.abs(xib))
        scale += (span(star - new) + span(star - lp)) * size(star, lp, new)
        moved = kl_error(error, star, new) + kl_error(error, star, lp) + step_size * span(xib) * error / 4
        return Bound(kl(star, new), first + product * middle + difference * last, scale, moved, converged)

    # From where the instance starts, and from the equilibrium, where nothing but noise is left.
    return jax.vmap(bound)(jnp.stack([start, star]))


def outcomes(magnitudes):
    """Independent random signs times magnitudes float[n]: all outcomes, float[2^n, n], equally likely."""
    n = magnitudes.size
    return magnitudes[None] * jnp.asarray(2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1)


@statement(
    "nash/T6",
    "EGPO, fresh noise of mean 0: E KL+ <= (1 - eta tau) KL + eta^2 E span(xi - xib)^2 / (8 (1 - eta a))",
    falsifiers=[
        Falsifier("the noise is fresh at the half step (the same vector twice)", {"fresh": False}, share=0.9),
        Falsifier("the noise has mean 0 (five times its magnitudes added)", {"drift": 5.0}, share=0.6),
    ],
    origin=derived_here("docs/proofs/nash.md, T6", EGPO_PAPER),
    proof=PROOF,
    generator=noisy_instance,
    project=nearby,
    cases=[{"n": 2}, {"n": 3}, {"n": 5}],
)
def sign_noise(instance, fresh=True, drift=0.0):
    game, start, star, error, converged, (here, there) = instance
    step_size, keep, room = step_of(game)
    xi, xib = outcomes(here), outcomes(there if fresh else here)
    if fresh:
        xi, xib = (jnp.repeat(xi, len(xib), axis=0), jnp.tile(xib, (len(xi), 1)))

    def bound(lp):
        new = jax.vmap(lambda a, b: noisy_step(game, lp, step_size, a + drift * here, b + drift * there)[1])(xi, xib)
        first = keep * kl(star, lp)
        last = step_size**2 * jnp.mean(jax.vmap(span)(xi - xib) ** 2) / (8 * room)
        lhs = jnp.mean(jax.vmap(kl, (None, 0))(star, new))
        far = jax.vmap(lambda new: span(star - new) * size(star, new))(new)
        scale = lhs + first + last + jnp.mean(far) + span(star - lp) * size(star, lp)
        moved = jnp.mean(jax.vmap(kl_error, (None, None, 0))(error, star, new)) + kl_error(error, star, lp)
        return Bound(lhs, first + last, scale, moved, converged)

    return jax.vmap(bound)(jnp.stack([start, star]))


def difference_law(win, levels):
    """(values, probabilities) of x_0 - x_1, x_y the mean of N labels of probability win[y]: float[2 N + 1] each."""
    count = levels.size - 1
    successes = jnp.arange(count + 1.0)
    choose = jax.scipy.special.gammaln(count + 1.0) - jax.scipy.special.gammaln(successes + 1.0)
    choose = choose - jax.scipy.special.gammaln(count - successes + 1.0)
    log_law = lambda p: (  # noqa: E731
        choose
        + jax.scipy.special.xlogy(successes, jnp.clip(p, 0.0, 1.0))
        + jax.scipy.special.xlog1py(count - successes, -jnp.clip(p, 0.0, 1.0))
    )
    first, second = jnp.exp(log_law(win[0])), jnp.exp(log_law(win[1]))
    other = np.arange(count + 1) - np.arange(-count, count + 1)[:, None]
    inside = (other >= 0) & (other <= count)
    law = jnp.sum(jnp.where(inside, first[None] * second[np.where(inside, other, 0)], 0.0), axis=1)
    return jnp.arange(-count, count + 1) / count, law / jnp.sum(law)


@statement(
    "nash/T6.labels",
    "T6 for N labels per action, two actions: the exact law of the estimated win rates, N = 1 and 8",
    falsifiers=[
        Falsifier("labels are fresh at the half step (the same ones twice)", {"fresh": False}, share=0.9),
        Falsifier(
            "labels are unbiased (log-odds of whoever stands first raised by 3)",
            {"bias": 3.0},
            share=0.9,
            generator=decided_instance,
            cases=[{"labels": 16}],
        ),
    ],
    origin=derived_here("docs/proofs/nash.md, T6", EGPO_PAPER),
    proof=PROOF,
    generator=surveyed_instance,
    project=in_surveys,
    cases=[{"labels": 1}, {"labels": 8}],
)
def label_noise(instance, fresh=True, bias=0.0):
    game, start, star, error, converged, levels = instance
    step_size, keep, room = step_of(game)
    seen = labelled_game(game, position_bias(game.preference, bias)) if bias else game
    vector = lambda x: jnp.stack([x, jnp.zeros_like(x)])  # noqa: E731

    def bound(lp):
        values, law = difference_law(win_rates(seen.preference, lp), levels)

        def after(x):
            half = mirror_step(game, lp, vector(x), step_size)
            fresh_values, fresh_law = difference_law(win_rates(seen.preference, half), levels)
            if not fresh:
                fresh_values, fresh_law = x[None], jnp.ones(1)
            # With two actions the true difference is the same against every opponent, so the noises' spans are |x - y|.
            new = jax.vmap(lambda y: mirror_step(game, lp, vector(y), step_size))(fresh_values)
            mean = lambda f: jnp.sum(fresh_law * jax.vmap(f)(new))  # noqa: E731
            return (
                mean(lambda new: kl(star, new)),
                jnp.sum(fresh_law * (x - fresh_values) ** 2),
                mean(lambda new: span(star - new) * size(star, new)),
                mean(lambda new: kl_error(error, star, new)),
            )

        # One outcome at a time: all pairs of outcomes of a block of instances would fill the memory.
        lhs, square, far, moved = (jnp.sum(law * each) for each in jax.lax.map(after, values))
        first, last = keep * kl(star, lp), step_size**2 * square / (8 * room)
        scale = lhs + first + last + far + span(star - lp) * size(star, lp)
        return Bound(lhs, first + last, scale, moved + kl_error(error, star, lp), converged)

    return jax.vmap(bound)(jnp.stack([start, star]))


# ---- the library's sampler -------------------------------------------------------------------------------------------


def own_step(game, state, key, step_size, labels):
    """EGPO of the library, labels sampled."""
    return EGPO(step_size, labels=labels).step(game, state, key)


def stale_step(game, state, key, step_size, labels):
    """The same, but both queries use one key: the half step sees the randomness that led to it."""
    here = state.log_policy
    half = mirror_step(game, here, query(game.preference, jnp.exp(here), key, labels), step_size)
    new = mirror_step(game, here, query(game.preference, jnp.exp(half), key, labels), step_size)
    return type(state)(new, half, state.t + 1)


@statement(
    "nash/T6.sampled",
    "EGPO(labels=1), 6 steps from pi*: E KL(pi*||pi_T) <= E of the noise terms, (1 - eta tau) for each later step",
    falsifiers=[
        Falsifier("the half step asks afresh (both queries use one key)", {"step": stale_step}, share=0.25),
    ],
    origin=derived_here("docs/proofs/nash.md, T6", EGPO_PAPER),
    proof=PROOF,
    generator=noisy_instance,
    cases=[{"n": 3}],
    chance=Chance(replicates=512, cap=2**12),
)
def sampled_egpo(instance, keys, step=own_step, num_steps=6):
    game, _, star, error, converged, _ = instance
    step_size, keep, room = step_of(game)
    state = EGPO(step_size).start(star)

    def advance(carry, key):
        state, paid = carry
        new = step(game, state, key, step_size, 1)
        # half - new is eta (A p - A pb + xi - xib), up to a constant.
        drift = win_rates(game.preference, state.log_policy) - win_rates(game.preference, new.half_step)
        noise = span(new.half_step - new.log_policy - step_size * drift)
        return (new, keep * paid + noise**2 / (8 * room)), None

    def replicate(key):
        (state, paid), _ = jax.lax.scan(advance, (state_0, jnp.zeros_like(step_size)), jax.random.split(key, num_steps))
        return jnp.minimum(kl(star, state.log_policy), most) - paid

    state_0 = state
    # Two estimates have span 2 at most, two exact rates 2 a |p - pb|_1; and span(log p/pb) <= 2 eta, as log(p/mu) has
    # span <= 1 / tau from pi* on, so |p - pb|_1 <= eta (Hoeffding, Pinsker).
    a = jnp.max(jnp.abs(game.preference - 0.5))
    noise = 2 + 2 * a * jnp.minimum(step_size, 2.0)
    largest = (step_size * noise) ** 2 / (8 * room) * (1 - keep**num_steps) / (1 - keep)
    most = largest / 4  # a smaller KL only weakens the claim
    scale = largest + 8 * size(star)
    moved = kl_error(error, star, star) + error
    return Sampled(jax.vmap(replicate)(keys), 0.0, -largest, most, scale, moved, converged)
