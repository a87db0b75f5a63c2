"""Preference games: existence and uniqueness (T1), gap identities (T2), Nash-MD (T3), EGPO (T4), OMD / INPO (T5).

Notation: pi* is the equilibrium at temperature tau, mu the reference, A = P - 1/2, a = max |A|, eta the step size,
c a mixture coefficient. Proofs: docs/proofs/nash.md. Instances are pairs (game, start) of `envs.preferences`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.preferences import random_game, rps
from rlcore.claims import Bound, Falsifier, as_quoted, derived_here, identity, paper, statement
from rlcore.nash import (
    EGPO,
    OMD,
    NashMD,
    PreferenceGame,
    critical_step_size,
    egpo_step_size,
    equilibrium,
    geometric_mixture,
    kl,
    log_normalise,
    mirror_step,
    omd_step_size,
    regularised_preference,
    win_rates,
)
from rlcore.solver import CONVERGED, iterate
from rlcore.types import Array, PyTree

SIZES = [{"n": 2}, {"n": 5}, {"n": 12}]
NLHF, EGPO_PAPER, MIRROR_PROX, INPO, MMD = (
    "munos2024nash",
    "zhou2025egpo",
    "tiapkin2025nashmp",
    "zhang2025inpo",
    "sokota2023mmd",
)


# ---- instances ---------------------------------------------------------------------------------------------------


class Instance(NamedTuple):
    """A game, a start (or several), and the solved equilibrium.

    star: float[n], log pi*. error: float[], certified bound on span of its error. solved: bool[], whether it converged.
    """

    game: PreferenceGame
    start: PyTree
    star: Array
    error: Array
    solved: Array


def with_equilibrium(game, start):
    """The instance of a game and a start."""
    solution = equilibrium(*game)
    return Instance(game, start, solution.value, solution.bound, solution.status == CONVERGED)


def random_instance(key, n):
    """The generator G: preferences U(0, 1), logits of deviation 0, 1 or 2, tau log-uniform in [0.03, 2]."""
    return with_equilibrium(*random_game(key, n))


def warm_instance(key, n):
    """G with temperature at least 0.3, where a pull towards the reference matters most."""
    game, start = random_game(key, n)
    temperature = 0.3 + 1.7 * jax.random.uniform(jax.random.fold_in(key, 1))
    return with_equilibrium(game._replace(temperature=temperature), start)


def random_start(key, n):
    """A policy with logits of standard deviation 2."""
    return log_normalise(2 * jax.random.normal(key, (n,)))


def rps_game():
    """Sure rock-paper-scissors, uniform reference, tau = 0.1: the hardest game to contract in."""
    return PreferenceGame(rps(0.5), log_normalise(jnp.zeros(3)), jnp.asarray(0.1))


def rps_instance(key):
    """Rock-paper-scissors from a random start."""
    return with_equilibrium(rps_game(), random_start(key, 3))


def two_starts(key, n):
    """A game of G and two starts."""
    game, start = random_game(key, n)
    return with_equilibrium(game, (start, random_start(jax.random.fold_in(key, 1), n)))


def duplicated_rps(key):
    """Rock-paper-scissors with rock twice, and two starts: without temperature it has a segment of equilibria."""
    rows = jnp.array([0, 0, 1, 2])
    game = rps_game()._replace(preference=rps(0.5)[rows][:, rows], reference_logits=log_normalise(jnp.zeros(4)))
    return with_equilibrium(game, (random_start(key, 4), random_start(jax.random.fold_in(key, 1), 4)))


def nearest(instance):
    """Project a perturbed instance back: skew preferences in [0, 1], logits within 8 of their mean, tau in [.03, 2]."""
    game, starts = instance.game, instance.start
    skew = (game.preference - game.preference.T) / 2
    flat = lambda x: log_normalise(jnp.clip(x - jnp.mean(x), -8.0, 8.0))  # noqa: E731
    game = PreferenceGame(
        0.5 + jnp.clip(skew, -0.5, 0.5), flat(game.reference_logits), jnp.clip(game.temperature, 0.03, 2.0)
    )
    return with_equilibrium(game, jax.tree.map(flat, starts))


# ---- rounding and solver errors ------------------------------------------------------------------------------------


def span(x):
    """max - min, blind to constants."""
    return jnp.max(x) - jnp.min(x)


def kl_error(error, log_p, log_q):
    """Bound on the change of KL(p||q) when log p moves by `error` in span: error (span(log p/q) + error) / 4."""
    return error * (span(log_p - log_q) + error) / 4


def size(*log_policies):
    """Magnitude of the logits that a KL is computed from: its rounding is eps times span times this."""
    return 1 + sum(jnp.max(jnp.abs(x)) for x in log_policies)


def with_payoffs_times(game, scale):
    """The same game with A multiplied: for scale > 1 entries of P leave [0, 1]."""
    return game._replace(preference=0.5 + scale * (game.preference - 0.5))


# ---- T1: existence and uniqueness ----------------------------------------------------------------------------------


@statement(
    "nash/T1a",
    "tau (KL(p||q) + KL(q||p)) = <F(p) - F(q), p - q>, F = tau log(p/mu) - A p: strong monotonicity",
    falsifiers=[Falsifier("P + P^T = 1 (a bonus of 0.3 for matching the opponent)", {"bonus": 0.3}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T1; the paper's Proposition 1 was read in a digest", NLHF),
    proof="docs/proofs/nash.md#t1",
    generator=two_starts,
    project=nearest,
    cases=SIZES,
)
def strong_monotonicity(instance, bonus=0.0):
    game, (log_p, log_q) = instance.game, instance.start
    payoff = game.preference - 0.5 + bonus * jnp.eye(log_p.size)
    p, q, tau = jnp.exp(log_p), jnp.exp(log_q), game.temperature
    field = lambda lp: tau * (lp - game.reference_logits) - payoff @ jnp.exp(lp)  # noqa: E731
    lhs, rhs = tau * (kl(log_p, log_q) + kl(log_q, log_p)), (field(log_p) - field(log_q)) @ (p - q)
    scale = 1 + tau * size(log_p, log_q, game.reference_logits)
    distance = jnp.sum(jnp.abs(p - q))
    return [
        identity(lhs, rhs, scale),
        Bound(2 * tau * distance, span(field(log_p)) + span(field(log_q)), scale, trivial=4 * tau),
    ]


@statement(
    "nash/T1",
    "A regularised equilibrium exists, and solvers from all starts end in the same one",
    falsifiers=[
        Falsifier(
            "tau > 0 (the players do not pay the KL; an action stands twice)",
            {"pay": 0.0},
            share=0.95,
            generator=duplicated_rps,
            cases=[{}],
        )
    ],
    origin=as_quoted("a digest of Munos et al. 2024, Proposition 1", NLHF),
    proof="docs/proofs/nash.md#t1",
    generator=two_starts,
    project=nearest,
    cases=SIZES,
)
def unique_equilibrium(instance, pay=1.0):
    game, starts = instance.game, instance.start
    tau, played = game.temperature, game._replace(temperature=pay * game.temperature)
    ends = [iterate(EGPO(), played, 600, state=EGPO().start(start))[0].log_policy for start in starts]
    residuals = [span(pay * tau * (lp - game.reference_logits) - win_rates(game.preference - 0.5, lp)) for lp in ends]
    distance = jnp.sum(jnp.abs(jnp.exp(ends[0]) - jnp.exp(ends[1])))
    scale = 1 + tau * size(*ends, game.reference_logits)
    return [
        Bound(game.gap(instance.star), 0.0, scale, applies=instance.solved),
        Bound(jnp.where(instance.solved, 0.0, 1.0), 0.0, 1.0),
        Bound(2 * tau * distance, residuals[0] + residuals[1], scale),
    ]


# ---- T2: the duality gap -------------------------------------------------------------------------------------------


@statement(
    "nash/T2a",
    "max_q P_tau(q > p) - min_q P_tau(p > q) = 2 tau KL(p || BR(p)), the regularised duality gap",
    falsifiers=[Falsifier("P + P^T = 1 (a bonus of 0.3 for matching the opponent)", {"bonus": 0.3}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T2"),
    proof="docs/proofs/nash.md#t2",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def gap_identity(instance, bonus=0.0):
    game, log_p = instance.game, instance.start
    game = game._replace(preference=game.preference + bonus * jnp.eye(log_p.size))
    tau, reference = game.temperature, game.reference_logits
    as_row = game.best_response(log_p)
    as_column = log_normalise(reference - (game.preference.T @ jnp.exp(log_p)) / tau)
    by_definition = regularised_preference(game, as_row, log_p) - regularised_preference(game, log_p, as_column)
    return identity(by_definition, game.gap(log_p), 1 + tau * size(log_p, reference, as_row))


@statement(
    "nash/T2b",
    "P_tau(pi* > p) = 1/2 + tau KL(p || pi*) for every policy p",
    falsifiers=[Falsifier("P + P^T = 1 (a bonus of 0.3 for matching the opponent)", {"bonus": 0.3}, share=0.85)],
    origin=derived_here("docs/proofs/nash.md, T2"),
    proof="docs/proofs/nash.md#t2",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def win_over_any_policy(instance, bonus=0.0):
    game, log_p = instance.game, instance.start
    game = game._replace(preference=game.preference + bonus * jnp.eye(log_p.size))
    # A game changed by the bonus has another fixed point; the unbroken arm keeps the solved one.
    _, _, star, error, converged = with_equilibrium(game, log_p) if bonus else instance
    tau, reference = game.temperature, game.reference_logits
    lhs = regularised_preference(game, star, log_p)
    # log pi* moves by `error` in span: probabilities by at most error / 2 in L1, KL(pi*||mu) as in kl_error.
    moved = error * (0.5 + tau) + tau * kl_error(error, star, reference)
    scale = 1 + tau * size(log_p, reference, star)
    return identity(lhs, 0.5 + tau * kl(log_p, star), scale, moved, applies=converged)


@statement(
    "nash/T2c",
    "2 tau KL(p || pi*) <= gap(p) <= 2 (tau + a^2 / tau) KL(p || pi*)",
    falsifiers=[
        Falsifier("pi* is the equilibrium of this temperature (taken at twice it)", {"heat": 2.0}, share=0.5),
    ],
    origin=derived_here("docs/proofs/nash.md, T2"),
    proof="docs/proofs/nash.md#t2",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def gap_sandwich(instance, heat=1.0):
    game, start, star, error, converged = instance
    tau, a = game.temperature, jnp.max(jnp.abs(game.preference - 0.5))
    # From far to near: where the two sides differ most and where they meet.
    log_ps = jax.vmap(lambda c: geometric_mixture(start, star, c))(jnp.array([0.0, 0.9, 0.999]))
    if heat != 1.0:
        _, _, star, error, converged = with_equilibrium(game._replace(temperature=heat * tau), start)

    def both(log_p):
        gap, divergence, factor = game.gap(log_p), kl(log_p, star), 2 * (tau + a**2 / tau)
        moved = factor * error * (jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(star))) / 2 + error)
        scale = gap + factor * (divergence + span(log_p - star) * size(log_p, star))
        return [
            Bound(2 * tau * divergence, gap, scale, moved, converged),
            Bound(gap, factor * divergence, scale, moved, converged, trivial=1 + 2 * tau * span(log_p)),
        ]

    return jax.vmap(both)(log_ps)


# ---- T3: Nash-MD ---------------------------------------------------------------------------------------------------


def nash_md_step(game, log_policy, step_size):
    """(opponent, next policy) of the library's Nash-MD."""
    opponent = geometric_mixture(log_policy, game.reference_logits, step_size * game.temperature)
    solver = NashMD(step_size)
    return opponent, solver.step(game, solver.start(log_policy), None).log_policy


def arithmetic_step(game, log_policy, step_size):
    """Nash-MD with the mixture of probabilities instead of the geometric one."""
    c = step_size * game.temperature
    opponent = jnp.log((1 - c) * jnp.exp(log_policy) + c * jnp.exp(game.reference_logits))
    return opponent, log_normalise(opponent + step_size * win_rates(game.preference, opponent))


def no_pull_step(game, log_policy, step_size):
    """Nash-MD without the pull to the reference: multiplicative weights against oneself."""
    return log_policy, log_normalise(log_policy + step_size * win_rates(game.preference, log_policy))


def path(step, game, start, step_sizes):
    """(policies, opponents, next policies) along a run, float[steps, n] each."""

    def advance(log_policy, step_size):
        opponent, new = step(game, log_policy, step_size)
        return new, (log_policy, opponent, new)

    return jax.lax.scan(advance, start, step_sizes)[1]


def one_step(star, error, converged, before, after, contraction, extra, scale=0.0, trivial=jnp.inf):
    """KL(pi*||after) <= contraction KL(pi*||before) + extra, along a path."""

    def bound(lp, new, extra, scale):
        old, now = kl(star, lp), kl(star, new)
        rounding = (span(star - lp) + span(star - new)) * size(star, lp, new)
        moved = kl_error(error, star, lp) + kl_error(error, star, new)
        return Bound(now, contraction * old + extra, now + old + extra + rounding + scale, moved, converged, trivial)

    extra, scale = (jnp.broadcast_to(x, before.shape[:1]) for x in (extra, scale))
    return jax.vmap(bound)(before, after, extra, scale)


def schedule_bound(instance, constant, step, payoff_scale, num_steps=2000):
    """KL(pi*||pi_T) <= constant / (tau^2 (T + 1)) for eta_t = 2 / (tau (t + 2)), at T = 1, 2, 4, ..., num_steps."""
    if payoff_scale != 1.0:
        instance = with_equilibrium(with_payoffs_times(instance.game, payoff_scale), instance.start)
    game, start, star, error, converged = instance
    tau = game.temperature
    times = 2 ** jnp.arange(11)
    if step is None:
        # Every step is observed: a strided scan has a reverse derivative, for an attack; an array of steps has none.
        log_policies = iterate(NashMD(), game, num_steps, state=NashMD().start(start), observe=_log_policy)[1][times]
    else:
        log_policies = path(step, game, start, 2 / (tau * (jnp.arange(num_steps) + 2)))[2][times - 1]

    def bound(log_policy, time):
        divergence = kl(star, log_policy)
        scale = divergence + span(star - log_policy) * size(star, log_policy)
        moved = kl_error(error, star, log_policy)
        # Both log(pi*/mu) and log(pi_T/mu) have span <= 1/tau, so KL <= min(2/tau, 1/(2 tau^2)) anyway.
        trivial = jnp.minimum(2 / tau, 0.5 / tau**2)
        return Bound(divergence, constant / (tau**2 * (time + 1)), scale, moved, converged, trivial)

    return jax.vmap(bound)(log_policies, times)


def _log_policy(game, state):
    return state.log_policy


@statement(
    "nash/T3",
    "Nash-MD, last iterate: KL(pi*||pi_T) <= 8 / (tau^2 (T + 1))",
    falsifiers=[
        Falsifier("the pull to the reference", {"step": no_pull_step}, share=0.5, generator=warm_instance),
        Falsifier(
            "preferences in [0, 1] (payoffs times 100)", {"payoff_scale": 100.0}, share=0.3, generator=warm_instance
        ),
    ],
    origin=as_quoted("a digest of Munos et al. 2024, Theorem 1", NLHF),
    proof="docs/proofs/nash.md#t3",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_rate(instance, step=None, payoff_scale=1.0):
    return schedule_bound(instance, 8.0, step, payoff_scale)


@statement(
    "nash/T3.sharp",
    "Nash-MD, last iterate, sharper: KL(pi*||pi_T) <= 1 / (2 tau^2 (T + 1))",
    falsifiers=[
        Falsifier("the pull to the reference", {"step": no_pull_step}, share=0.7, generator=warm_instance),
        Falsifier("preferences in [0, 1] (payoffs times 20)", {"payoff_scale": 20.0}, share=0.5),
    ],
    origin=derived_here("docs/proofs/nash.md, T3", NLHF),
    proof="docs/proofs/nash.md#t3",
    differs="constant 1/2 in place of the quoted 8",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_rate_sharp(instance, step=None, payoff_scale=1.0):
    return schedule_bound(instance, 0.5, step, payoff_scale)


def nash_md_one_step(instance, constant, step, pull):
    game, start, star, error, converged = instance
    step_size = pull / game.temperature
    before, _, after = path(step, game, start, jnp.full(30, step_size))
    return one_step(star, error, converged, before, after, 1 - pull, constant * step_size**2)


@statement(
    "nash/T3.step",
    "Nash-MD, one step: KL(pi*||pi_{t+1}) <= (1 - eta tau) KL(pi*||pi_t) + 2 eta^2",
    falsifiers=[
        Falsifier(
            "the pull to the reference",
            {"step": no_pull_step},
            share=0.5,
            generator=warm_instance,
            setting={"pull": 0.01},
        )
    ],
    origin=as_quoted("a digest of Munos et al. 2024, Theorem 1", NLHF),
    proof="docs/proofs/nash.md#t3",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_recursion(instance, step=nash_md_step, pull=0.3):
    return nash_md_one_step(instance, 2.0, step, pull)


@statement(
    "nash/T3.step-sharp",
    "Nash-MD, one step, sharper: KL(pi*||pi_{t+1}) <= (1 - eta tau) KL(pi*||pi_t) + eta^2 / 8",
    falsifiers=[
        Falsifier(
            "the pull to the reference",
            {"step": no_pull_step},
            share=0.9,
            generator=warm_instance,
            setting={"pull": 0.03},
        )
    ],
    origin=derived_here("docs/proofs/nash.md, T3", NLHF),
    proof="docs/proofs/nash.md#t3",
    differs="constant 1/8 in place of the quoted 2",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_recursion_sharp(instance, step=nash_md_step, pull=0.3):
    return nash_md_one_step(instance, 0.125, step, pull)


@statement(
    "nash/T3.identity",
    "Nash-MD: KL(pi*||pi+) = (1 - eta tau) [KL(pi*||pi) - KL(q||pi)] - eta tau KL(q||pi*) + log E_q e^(eta A q)",
    falsifiers=[
        Falsifier("the geometric mixture (taken arithmetic)", {"step": arithmetic_step}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T3"),
    proof="docs/proofs/nash.md#t3",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_identity(instance, step=nash_md_step, pull=0.3):
    game, start, star, error, converged = instance
    step_size = pull / game.temperature

    def terms(lp, q, new):
        growth = jax.scipy.special.logsumexp(q + step_size * win_rates(game.preference - 0.5, q))
        rhs = (1 - pull) * (kl(star, lp) - kl(q, lp)) - pull * kl(q, star) + growth
        far = span(star - lp) + span(star - new) + span(q - lp) + span(q - star)
        scale = kl(star, lp) + kl(q, lp) + kl(q, star) + kl(star, new) + step_size + far * size(star, lp, q, new)
        moved = kl_error(error, star, lp) + kl_error(error, star, new) + error
        return identity(kl(star, new), rhs, scale, moved, converged)

    return jax.vmap(terms)(*path(step, game, start, jnp.full(30, step_size)))


@statement(
    "nash/T3.growth",
    "log E_q exp(eta A q) <= eta^2 / 8 along Nash-MD (Hoeffding; the only lossy step of T3)",
    falsifiers=[
        Falsifier(
            "preferences in [0, 1] (payoffs times 6)",
            {"payoff_scale": 6.0},
            share=0.5,
            setting={"step_size": 0.1},
        )
    ],
    origin=derived_here("docs/proofs/nash.md, T3"),
    proof="docs/proofs/nash.md#t3",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def hoeffding_growth(instance, payoff_scale=1.0, step_size=0.4):
    game, start = instance.game, instance.start
    opponents = path(nash_md_step, game, start, jnp.full(30, step_size))[1]
    scaled = with_payoffs_times(game, payoff_scale)
    growth = lambda q: jax.scipy.special.logsumexp(q + step_size * win_rates(scaled.preference - 0.5, q))  # noqa: E731
    scale = 1 + jnp.max(jnp.abs(opponents))
    return Bound(jax.vmap(growth)(opponents), step_size**2 / 8, scale, trivial=payoff_scale * step_size / 2)


@statement(
    "nash/T3b",
    "Nash-MD with mixture c has the fixed point BR_tau(pi*_{tau/(1-c)}), whose mixture is pi*_{tau/(1-c)}; not pi*_tau",
    # With two actions the win rates do not depend on the opponent, and there is no bias.
    falsifiers=[Falsifier("the fixed point (taken to be pi*_tau)", {"biased": False}, share=0.9, cases=SIZES[1:])],
    origin=derived_here("docs/proofs/nash.md, T3b; as Online IPO's Proposition 5.2 is quoted in a digest", NLHF),
    proof="docs/proofs/nash.md#t3b",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_fixed_point(instance, biased=True, c=0.3, pull=0.2):
    game, start = instance.game, instance.start
    tau = game.temperature
    _, _, hot, error, converged = with_equilibrium(game._replace(temperature=tau / (1 - c)), start)
    fixed = game.best_response(hot) if biased else instance.star
    solver = NashMD(pull / tau, mixture=c)
    moved = solver.step(game, solver.start(fixed), None).log_policy
    mixed = geometric_mixture(fixed, game.reference_logits, c)
    # log BR_tau moves by 2 a |pi - pi'|_1 / tau <= a error / tau: the mixture by (1 - c) times it.
    slack = 2 * (1 + 1 / tau) * error
    scale = size(fixed, hot, game.reference_logits) + 1 / tau
    return [
        identity(moved - fixed, jnp.zeros_like(fixed), scale, slack, converged),
        identity(mixed, hot, scale, slack, converged),
    ]


@statement(
    "nash/T3b.omd",
    "Nash-MD at constant step is OMD in q: step eta (1 - eta tau) at temperature tau / (1 - eta tau)",
    falsifiers=[
        Falsifier("the temperature of OMD (left at tau)", {"rescaled": False}, share=0.9),
        Falsifier("the geometric mixture (taken arithmetic)", {"step": arithmetic_step}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T3b"),
    proof="docs/proofs/nash.md#t3b",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_is_omd(instance, rescaled=True, step=nash_md_step, pull=0.3):
    game, start = instance.game, instance.start
    tau = game.temperature
    _, opponents, _ = path(step, game, start, jnp.full(20, pull / tau))
    hot = game._replace(temperature=tau / (1 - pull)) if rescaled else game
    omd = OMD((1 - pull) * pull / tau)
    forward = jax.vmap(lambda q: omd.step(hot, omd.start(q), None).log_policy)(opponents[:-1])
    return identity(forward, opponents[1:], size(opponents, game.reference_logits) + pull / tau)


@statement(
    "nash/T3b.rate",
    "Nash-MD, constant step: KL(pi'||q_T) <= (1 - eta tau)^T KL(pi'||q_0), pi' the equilibrium at tau / (1 - eta tau)",
    falsifiers=[Falsifier("the limit (taken to be pi*_tau)", {"biased": False}, share=0.5)],
    origin=derived_here("docs/proofs/nash.md, T3b and T5"),
    proof="docs/proofs/nash.md#t3b",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def nash_md_constant_step_rate(instance, biased=True):
    game, start = instance.game, instance.start
    tau, a = game.temperature, jnp.max(jnp.abs(game.preference - 0.5))
    pull = tau**2 / (tau**2 + a**2)  # satisfies T5's condition, see the proof
    hot = game._replace(temperature=tau / (1 - pull))
    _, _, star, error, converged = with_equilibrium(hot, start) if biased else instance
    _, opponents, _ = path(nash_md_step, game, start, jnp.full(200, pull / tau))
    first = kl(star, opponents[0])

    def bound(q, t):
        scale = kl(star, q) + first + (span(star - q) + span(star - opponents[0])) * size(star, q)
        moved = kl_error(error, star, q) + kl_error(error, star, opponents[0])
        return Bound(kl(star, q), (1 - pull) ** t * first, scale, moved, converged)

    return jax.vmap(bound)(opponents, jnp.arange(200))


# ---- T4: EGPO = Nash mirror prox -------------------------------------------------------------------------------------


def egpo_step(game, log_policy, step_size):
    """(half step, next policy) of the library's EGPO."""
    solver = EGPO(step_size)
    state = solver.step(game, solver.start(log_policy), None)
    return state.half_step, state.log_policy


def restarted_step(game, log_policy, step_size):
    """EGPO that goes on from the half step instead of going back: two steps of OMD."""
    half = mirror_step(game, log_policy, win_rates(game.preference, log_policy), step_size)
    return half, mirror_step(game, half, win_rates(game.preference, half), step_size)


@statement(
    "nash/T4",
    "EGPO: KL(pi*||pi_T) <= (1 - eta tau)^T KL(pi*||pi_0) for eta (tau + a) <= 1; checked step by step",
    falsifiers=[
        Falsifier(
            "eta (tau + a) <= 1 (three times that)", {"factor": 3.0}, share=0.95, generator=rps_instance, cases=[{}]
        ),
        Falsifier(
            "the second step starts where the first did",
            {"step": restarted_step},
            share=0.95,
            generator=rps_instance,
            cases=[{}],
        ),
    ],
    origin=derived_here(
        "docs/proofs/nash.md, T4; the rate equals Nash-MP's published (1 + 2 beta)^(-N/2)", MIRROR_PROX
    ),
    proof="docs/proofs/nash.md#t4",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def egpo_contraction(instance, step=egpo_step, factor=1.0):
    game, start, star, error, converged = instance
    step_size = factor * egpo_step_size(game)
    before, _, after = path(step, game, start, jnp.full(40, step_size))
    return one_step(star, error, converged, before, after, 1 - step_size * game.temperature, 0.0)


@statement(
    "nash/T4.identity",
    "EGPO: KL(pi*||pi+) = (1 - eta tau) [KL(pi*||pi) - KL(pb||pi)] - eta tau KL(pb||pi*) + KL(pb||pi+), pb half a step",
    falsifiers=[
        Falsifier("the second step starts where the first did", {"step": restarted_step}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T4", EGPO_PAPER),
    proof="docs/proofs/nash.md#t4",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def egpo_identity(instance, step=egpo_step):
    game, start, star, error, converged = instance
    step_size = egpo_step_size(game)
    pull = step_size * game.temperature

    def terms(lp, half, new):
        rhs = (1 - pull) * (kl(star, lp) - kl(half, lp)) - pull * kl(half, star) + kl(half, new)
        far = span(star - lp) + span(half - lp) + span(half - star) + span(half - new) + span(star - new)
        scale = kl(star, lp) + kl(half, lp) + kl(half, star) + kl(half, new) + far * size(star, lp, half, new)
        moved = kl_error(error, star, lp) + kl_error(error, star, new) + error * (span(half - star) + error)
        return identity(kl(star, new), rhs, scale, moved, converged)

    return jax.vmap(terms)(*path(step, game, start, jnp.full(20, step_size)))


@statement(
    "nash/T4.last-iterate",
    "EGPO: span(log pi_T/pi*) <= r^T S_0 + (4a/tau) sqrt(2 K_0 / (1 - eta a)) r^(T/2); gap <= (tau + a^2/tau) span^2/4",
    falsifiers=[
        Falsifier(
            "eta (tau + a) <= 1 (three times that)", {"factor": 3.0}, share=0.95, generator=rps_instance, cases=[{}]
        ),
    ],
    origin=derived_here("docs/proofs/nash.md, T4, corollaries", EGPO_PAPER),
    proof="docs/proofs/nash.md#t4",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def egpo_corollaries(instance, factor=1.0):
    game, start, star, error, converged = instance
    tau, a = game.temperature, jnp.max(jnp.abs(game.preference - 0.5))
    # The bound is evaluated at the step it is proved for; the run may take another.
    eta = egpo_step_size(game) * 0.9
    rate, k0, s0 = 1 - eta * tau, kl(star, start), span(start - star)
    before, half, _ = path(egpo_step, game, start, jnp.full(200, factor * eta))

    def bounds(t, lp, pb):
        distance, rounding = span(lp - star), size(lp, star)
        decay = rate**t * s0 + 4 * a / tau * jnp.sqrt(2 * k0 / (1 - eta * a)) * rate ** (t / 2)
        curvature = (tau + a**2 / tau) / 4
        kl_scale = (span(star - lp) + span(star - pb)) * rounding / (1 - eta * a)
        kl_moved = (kl_error(error, star, lp) + kl_error(error, star, pb)) / (1 - eta * a)
        spread = curvature * (distance**2 + distance * rounding)
        return [
            Bound(distance, decay, decay + rounding, error * (1 + 4 * a / tau), converged),
            Bound(
                game.gap(lp),
                curvature * distance**2,
                spread,
                curvature * error * (2 * distance + error),
                converged,
            ),
            Bound(kl(star, pb), rate / (1 - eta * a) * kl(star, lp), kl_scale, kl_moved, converged),
        ]

    return jax.vmap(bounds)(jnp.arange(200), before, half)


# ---- T5: OMD = INPO = MMD --------------------------------------------------------------------------------------------


def omd_step(game, log_policy, step_size):
    """(itself, next policy) of the library's OMD."""
    solver = OMD(step_size)
    return log_policy, solver.step(game, solver.start(log_policy), None).log_policy


@statement(
    "nash/T5",
    "OMD / INPO / MMD: KL(pi*||pi_T) <= (1 - eta tau)^T KL(pi*||pi_0) for eta <= tau / (tau^2 + a^2); step by step",
    falsifiers=[
        Falsifier(
            "eta <= tau / (tau^2 + a^2) (four times that)",
            {"factor": 4.0},
            share=0.95,
            generator=rps_instance,
            cases=[{}],
        ),
    ],
    origin=derived_here("docs/proofs/nash.md, T5; the condition is MMD's as quoted in a digest", MMD),
    proof="docs/proofs/nash.md#t5",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def omd_contraction(instance, factor=1.0):
    game, start, star, error, converged = instance
    step_size = factor * omd_step_size(game)
    before, _, after = path(omd_step, game, start, jnp.full(40, step_size))
    return one_step(star, error, converged, before, after, 1 - step_size * game.temperature, 0.0)


@statement(
    "nash/T5.identity",
    "OMD: KL(pi*||pi+) = (1 - eta tau) [KL(pi*||pi) - KL(pi+||pi)] - eta tau KL(pi+||pi*) + eta <pi+ - pi*, A(pi-pi+)>",
    falsifiers=[
        Falsifier("the pull to the reference", {"step": no_pull_step}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T5", MMD),
    proof="docs/proofs/nash.md#t5",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def omd_identity(instance, step=omd_step, pull=0.3):
    game, start, star, error, converged = instance
    step_size = pull / game.temperature

    def terms(lp, _, new):
        drift = win_rates(game.preference - 0.5, lp) - win_rates(game.preference - 0.5, new)
        cross = step_size * (jnp.exp(new) - jnp.exp(star)) @ drift
        rhs = (1 - pull) * (kl(star, lp) - kl(new, lp)) - pull * kl(new, star) + cross
        far = span(star - lp) + span(new - lp) + span(new - star)
        scale = kl(star, lp) + kl(new, lp) + kl(new, star) + step_size + far * size(star, lp, new)
        moved = kl_error(error, star, lp) + kl_error(error, star, new) + error * (step_size + span(new - star) + error)
        return identity(kl(star, new), rhs, scale, moved, converged)

    return jax.vmap(terms)(*path(step, game, start, jnp.full(20, step_size)))


@statement(
    "nash/T5.inpo",
    "INPO: KL(pi*||pi+) <= (1 - tau/eta_I) KL(pi*||pi) + 8 C^2 / eta_I^2, C = max(B tau, 1), B = max |log(pi/mu)|",
    falsifiers=[
        Falsifier(
            "the pull to the reference",
            {"step": no_pull_step},
            share=0.3,
            generator=warm_instance,
            setting={"pull": 0.002},
        ),
    ],
    origin=paper("Zhang et al., ICLR 2025, Theorem 4, first inequality", INPO),
    proof="docs/proofs/nash.md#t5",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def inpo_recursion(instance, step=omd_step, pull=0.3):
    game, start, star, error, converged = instance
    tau = game.temperature
    before, _, after = path(step, game, start, jnp.full(30, pull / tau))
    reach = jnp.max(jnp.abs(jnp.concatenate([before, after, star[None]]) - game.reference_logits[None]))
    c = jnp.maximum(reach * tau, 1.0)
    return one_step(star, error, converged, before, after, 1 - pull, 8 * c**2 * (pull / tau) ** 2)


@statement(
    "nash/T5.inpo-rate",
    "INPO, eta_t = 2 / (tau (t + 2)): KL(pi*||pi_T) <= 32 C^2 / (tau^2 (T + 1)), C = max(B tau, 1) = 1",
    falsifiers=[Falsifier("the pull to the reference", {"step": no_pull_step}, share=0.3, generator=warm_instance)],
    origin=paper("Zhang et al., ICLR 2025, Theorem 4, second inequality", INPO),
    proof="docs/proofs/nash.md#t5",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def inpo_rate(instance, step=omd_step):
    # From the first step on span(log pi/mu) <= 1/tau, hence B tau <= 1.
    return schedule_bound(instance, 32.0, step, 1.0)


@statement(
    "nash/T5b",
    "OMD is locally stable at pi* for eta < 2 tau / (tau^2 + w^2): its derivative contracts the covariance norm",
    falsifiers=[
        Falsifier("eta < eta_c (1.05 times eta_c)", {"factor": 1.05}, share=0.95, generator=rps_instance, cases=[{}]),
        Falsifier(
            "the pull to the reference",
            {"pulled": 0.0},
            share=0.95,
            generator=rps_instance,
            cases=[{}],
            setting={"factor": 0.5},
        ),
    ],
    origin=derived_here("docs/proofs/nash.md, T5b"),
    proof="docs/proofs/nash.md#t5b",
    generator=random_instance,
    project=nearest,
    cases=SIZES,
)
def omd_stability(instance, factor=0.99, pulled=1.0):
    game, direction, star, error, converged = instance
    step_size = jnp.minimum(factor * critical_step_size(game, star), 1 / game.temperature)
    played = game._replace(temperature=pulled * game.temperature)
    step = lambda logits: omd_step(played, log_normalise(logits), step_size)[1]  # noqa: E731
    pushed = jax.jvp(step, (star,), (direction,))[1]
    p = jnp.exp(star)
    variance = lambda u: p @ (u - p @ u) ** 2  # noqa: E731
    before, after = variance(direction), variance(pushed)
    size_of_terms = (1 + step_size * (1 + game.temperature)) ** 2 * jnp.max(jnp.abs(direction)) ** 2
    return Bound(after, before, size_of_terms, error * size_of_terms, converged)
