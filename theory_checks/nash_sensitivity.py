"""Preference games: what errors in the preference do (8.7), and the derivative of the equilibrium (8.9).

Notation as in `theory_checks.nash`. Proofs: docs/proofs/nash.md, 8.7 and 8.9.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.preferences import random_game, random_skew
from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.nash import EGPO, PreferenceGame, equilibrium, equilibrium_error, log_normalise, win_rates
from rlcore.solver import CONVERGED, iterate
from rlcore.types import Array
from theory_checks.nash import SIZES, size, span


class Estimated(NamedTuple):
    """A game, another preference for it, and any policy."""

    game: PreferenceGame
    other: Array
    start: Array


def estimated(key, n):
    """The generator G beside a second preference: between 0.1% and all of the way to an independent one."""
    game, start = random_game(key, n)
    a, b = jax.random.split(jax.random.fold_in(key, 1))
    share = jnp.exp(jax.random.uniform(a, (), minval=jnp.log(1e-3), maxval=0.0))
    return Estimated(game, game.preference + share * (random_skew(b, n) - game.preference), start)


def moderate(key, n):
    """As `estimated`, with temperature log-uniform in [0.2, 2]."""
    instance = estimated(key, n)
    draw = jax.random.uniform(jax.random.fold_in(key, 2), minval=jnp.log(0.2), maxval=jnp.log(2.0))
    return instance._replace(game=instance.game._replace(temperature=jnp.exp(draw)))


@statement(
    "nash/8.7",
    "|gap(p; A) - gap(p; A')| <= 2 max |A - A'| for every policy p: the price of a wrong preference model",
    falsifiers=[
        Falsifier("both games have one temperature (twice it in the second)", {"heat": 2.0}, share=0.6),
        Falsifier("both games have one reference (its square in the second)", {"power": 2.0}, share=0.35),
    ],
    origin=derived_here("docs/proofs/nash.md, 8.7"),
    proof="docs/proofs/nash.md#s8-7",
    generator=estimated,
    cases=SIZES,
)
def gap_moves_with_the_model(instance, heat=1.0, power=1.0):
    game, other, start = instance
    largest = jnp.max(jnp.abs(game.preference - other))
    second = PreferenceGame(other, log_normalise(power * game.reference_logits), heat * game.temperature)
    # A random policy, and a vertex with its best reply made better: where the bound is tight.
    vertex = log_normalise(30.0 * jax.nn.one_hot(jnp.argmax(start), start.size))
    tried = jnp.stack([start, game.reference_logits, vertex])
    gaps = jax.vmap(lambda lp: jnp.stack([game.gap(lp), second.gap(lp)]))(tried)
    scale = jnp.sum(gaps, axis=1) + game.temperature * size(tried, game.reference_logits)
    return Bound(jnp.abs(gaps[:, 0] - gaps[:, 1]), 2 * largest, scale, trivial=jnp.max(gaps, axis=1))


class Moving(NamedTuple):
    """A game, a direction for each of its arrays, its solved equilibrium, and that of the other preference.

    star, other_star: float[n], log pi*. error: float[], certified span of either's error. solved: bool[].
    """

    game: PreferenceGame
    direction: PreferenceGame
    other: Array
    star: Array
    other_star: Array
    error: Array
    solved: Array


def moving(key, n):
    """A game at a moderate temperature, with a direction towards the other preference and random others."""
    game, other, start = moderate(key, n)
    tau_direction = game.temperature * jax.random.normal(jax.random.fold_in(key, 3))
    direction = PreferenceGame(other - game.preference, start - game.reference_logits, tau_direction)
    both = jax.vmap(lambda p: equilibrium(p, game.reference_logits, game.temperature))(
        jnp.stack([game.preference, other])
    )
    solved = jnp.all(both.status == CONVERGED)
    return Moving(game, direction, other, both.value[0], both.value[1], jnp.max(both.bound), solved)


@statement(
    "nash/8.9.lipschitz",
    "|pi*_A - pi*_A'|_1 <= max |A - A'| / tau: the equilibrium moves smoothly with the population",
    falsifiers=[
        Falsifier("each is the equilibrium of its game (the second at twice tau)", {"heat": 2.0}, share=0.4),
    ],
    origin=derived_here("docs/proofs/nash.md, 8.9"),
    proof="docs/proofs/nash.md#s8-9",
    generator=moving,
    cases=[{"n": 4}],
)
def equilibrium_is_lipschitz(instance, heat=1.0):
    game, other = instance.game, instance.other
    second = instance.other_star
    if heat != 1.0:
        second = equilibrium(other, game.reference_logits, heat * game.temperature).value
    moved = jnp.sum(jnp.abs(jnp.exp(instance.star) - jnp.exp(second)))
    bound = jnp.max(jnp.abs(game.preference - other)) / game.temperature
    return Bound(moved, bound, 1 + size(instance.star), instance.error, instance.solved, trivial=2.0)


def implicit(instance, direction):
    """The library's derivative of the equilibrium."""
    return jax.jvp(lambda *arrays: equilibrium(*arrays).value, tuple(instance.game), tuple(direction))[1]


def right_side(instance, direction):
    """What moves log pi at fixed pi: the change of log mu + A pi / tau."""
    game, star = instance.game, instance.star
    moved = win_rates(direction.preference, star)
    return (
        direction.reference_logits
        + (moved - win_rates(game.preference - 0.5, star) * direction.temperature / game.temperature) / game.temperature
    )


def covariance(log_policy):
    """diag(p) - p p^T."""
    p = jnp.exp(log_policy)
    return jnp.diag(p) - p[:, None] * p[None, :]


def by_matrix(instance, direction, matrix):
    """Solve (I - matrix / tau) x = right side, and normalise."""
    star = instance.star
    x = jnp.linalg.solve(jnp.eye(star.size) - matrix / instance.game.temperature, right_side(instance, direction))
    return x - jnp.exp(star) @ x


def transposed(instance, direction):
    """The derivative with A Cov transposed in the Jacobian."""
    return by_matrix(instance, direction, ((instance.game.preference - 0.5) @ covariance(instance.star)).T)


def without_mean(instance, direction):
    """The derivative with diag(pi) in place of the covariance: it forgets that probabilities sum to 1."""
    return by_matrix(instance, direction, (instance.game.preference - 0.5) * jnp.exp(instance.star)[None, :])


def direct_only(instance, direction):
    """The derivative of the best response to a fixed opponent."""
    return by_matrix(instance, direction, jnp.zeros_like(instance.game.preference))


def unrolled(instance, direction, num_steps=300):
    """The derivative of a long EGPO run, step by step, which knows nothing of fixed points."""

    def run(*arrays):
        game = PreferenceGame(*arrays)._replace(reference_logits=log_normalise(arrays[1]))
        return iterate(EGPO(), game, num_steps)[0].log_policy

    return jax.jvp(run, tuple(instance.game), tuple(direction))


@statement(
    "nash/8.9",
    "The implicit derivative of pi* in A, mu and tau is the derivative of a long EGPO run",
    falsifiers=[
        Falsifier("the Jacobian I - A Cov / tau (transposed)", {"derivative": transposed}, share=0.9),
        Falsifier("the covariance in the Jacobian (diag(pi) instead)", {"derivative": without_mean}, share=0.9),
        Falsifier("the opponent moves too (it stands still)", {"derivative": direct_only}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, 8.9"),
    proof="docs/proofs/nash.md#s8-9",
    generator=moving,
    cases=[{"n": 4}],
)
def derivative_of_the_equilibrium(instance, derivative=implicit):
    game, star, direction = instance.game, instance.star, instance.direction
    x = derivative(instance, direction)
    end, run = unrolled(instance, direction)
    tau, a = game.temperature, jnp.max(jnp.abs(game.preference - 0.5))
    force = right_side(instance, direction)
    # Certificate of any candidate y: span(y - x) <= (1 + a / tau) span(y - A Cov y / tau - force), docs 8.9.
    left = span(run - (game.preference - 0.5) @ (covariance(star) @ run) / tau - force)
    # pi* is known up to `error`, and with it the two sides: probabilities and covariances move by it, relatively.
    largest = jnp.max(jnp.abs(force)) + (1 + a / tau) * jnp.max(jnp.abs(run))
    known = 8 * (1 + 1 / tau) * instance.error * largest
    error = (1 + a / tau) * (left + known)
    scale = (1 + a / tau) * largest * size(star) * star.size
    centred = lambda v: v - jnp.exp(star) @ v  # noqa: E731
    return [
        identity(centred(x), centred(run), scale, error, instance.solved),
        # The certificate is worth something: the run has come to its end.
        Bound(error, 1e-7 * scale, scale, 0.0, instance.solved),
        Bound(span(end - star), equilibrium_error(game, end) + instance.error, size(star), 0.0, instance.solved),
    ]


@statement(
    "nash/8.9.variance",
    "Var_pi*(d log pi*) <= Var_pi*(d log mu + d(A / tau) pi*): the reaction of the opponent never amplifies",
    falsifiers=[
        Falsifier("the covariance in the Jacobian (diag(pi) instead)", {"derivative": without_mean}, share=0.25),
        Falsifier("P + P^T = 1 (a bonus of 1 for matching the opponent)", {"bonus": 1.0}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, 8.9"),
    proof="docs/proofs/nash.md#s8-9",
    generator=moving,
    cases=[{"n": 4}],
)
def reactions_do_not_amplify(instance, derivative=implicit, bonus=0.0):
    if bonus:
        cov = covariance(instance.star)
        derivative = lambda i, d: by_matrix(i, d, (i.game.preference - 0.5 + bonus * jnp.eye(4)) @ cov)  # noqa: E731
    x, force = derivative(instance, instance.direction), right_side(instance, instance.direction)
    cov = covariance(instance.star)
    tau = instance.game.temperature
    before, after = force @ cov @ force, x @ cov @ x
    scale = (1 + 1 / tau) * (jnp.max(jnp.abs(force)) + jnp.max(jnp.abs(x))) ** 2 * size(instance.star)
    slack = 8 * (1 + 1 / tau) ** 2 * instance.error * (jnp.max(jnp.abs(force)) + jnp.max(jnp.abs(x))) ** 2
    return Bound(after, before, scale, slack, instance.solved)
