"""Preference games: proximal point (T7), regularisation bias (T8), averages (T9), DNO and SPPO (T9b), APO (T10).

Notation as in `theory_checks.nash`; p0 is an unregularised equilibrium, gap0 the duality gap without temperature,
lh the policies of APO before extrapolation. Proofs: docs/proofs/nash.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import circulant, random_game, random_skew, weighted_rps
from rlcore.claims import Bound, Falsifier, as_quoted, derived_here, identity, paper, statement
from rlcore.nash import (
    APO,
    EGPO,
    GPO,
    MWU,
    OMD,
    OMWU,
    NashMD,
    PreferenceGame,
    ProximalPoint,
    apo_gain,
    apo_policy,
    kl,
    log_normalise,
    unregularised_gap,
    win_probability,
    win_rates,
)
from rlcore.solver import iterate
from rlcore.types import Array
from theory_checks.nash import SIZES, kl_error, random_start, size, span, with_equilibrium

COMAL, EGPO_PAPER, DNO, SPPO, GPM, APO_PAPER, HEDGE = (
    "liu2024comal",
    "zhou2025egpo",
    "rosset2024dno",
    "wu2024sppo",
    "zhang2025gpm",
    "he2024apo",
    "freund1999adaptive",
)


# ---- instances ---------------------------------------------------------------------------------------------------


class Solved(NamedTuple):
    """A game with a known unregularised equilibrium, and a start.

    winner: float[n], log p0; -inf outside its support. temperature of `game`: that of the proximal step.
    """

    game: PreferenceGame
    start: Array
    winner: Array


def solved_game(key, n, losers=0, cyclic=False):
    """A random game made for a drawn p0: A = B + 1 u^T - u 1^T with u = B p0 has A p0 = 0 for every skew B.

    losers: actions outside the support of p0, which lose to it by up to 1/4.
    """
    skew_key, winner_key, lead_key, start_key, tau_key = jax.random.split(key, 5)
    skew = random_skew(skew_key, n) - 0.5
    logits = jnp.where(jnp.arange(n) < n - losers, jax.random.normal(winner_key, (n,)), -jnp.inf)
    p0 = jnp.exp(log_normalise(logits))
    u = skew @ p0
    payoff = skew + u[None, :] - u[:, None]
    loses = (p0 == 0).astype(p0.dtype)
    lead = 0.25 * jax.random.uniform(lead_key, (n,)) * loses
    payoff = payoff - lead[:, None] * (1 - loses)[None, :] + (1 - loses)[:, None] * lead[None, :]
    payoff = payoff * (0.5 / jnp.max(jnp.abs(payoff)))
    temperature = jnp.exp(jax.random.uniform(tau_key, (), minval=jnp.log(0.05), maxval=jnp.log(1.0)))
    game = PreferenceGame(0.5 + payoff, log_normalise(jnp.zeros(n)), temperature)
    return Solved(game, random_start(start_key, n), log_normalise(logits))


def rps_solved(key):
    """Sure rock-paper-scissors at tau = 0.1, a random start."""
    game = PreferenceGame(0.5 + jnp.sign(circulant(3) - 0.5) / 2, log_normalise(jnp.zeros(3)), jnp.asarray(0.1))
    return Solved(game, random_start(key, 3), game.reference_logits)


def cyclic_instance(key):
    """Rock-paper-scissors with margins in [0.2, 0.45], a uniform start."""
    margins = jax.random.uniform(key, (3,), minval=0.2, maxval=0.45)
    game = PreferenceGame(weighted_rps(*margins), log_normalise(jnp.zeros(3)), jnp.asarray(0.0))
    return Solved(game, game.reference_logits, jnp.log(jnp.roll(margins, -1) / jnp.sum(margins)))


def uniform_start(key, n):
    """A random game and the uniform start."""
    game, _ = random_game(key, n, reference_scale=0.0)
    return Solved(game, game.reference_logits, game.reference_logits)


def cool_instance(key, n):
    """A random game with tau log-uniform in [0.01, 0.1] and reference logits of deviation 0 or 1, solved."""
    scale_key, tau_key = jax.random.split(jax.random.fold_in(key, 1))
    temperature = jnp.exp(jax.random.uniform(tau_key, (), minval=jnp.log(0.01), maxval=jnp.log(0.1)))
    scale = jax.random.bernoulli(scale_key).astype(temperature.dtype)
    return with_equilibrium(*random_game(key, n, temperature=temperature, reference_scale=scale))


def any_start(key, n):
    """A random game, and a random start of deviation 1/2 or 2."""
    game, start = random_game(key, n)
    gentle = jax.random.bernoulli(jax.random.fold_in(key, 1))
    return Solved(game, log_normalise(jnp.where(gentle, 0.25, 1.0) * start), game.reference_logits)


class Rewarded(NamedTuple):
    """Rewards in [0, 1] (Bradley-Terry's, up to scale), a start, a step size and a momentum."""

    rewards: Array
    start: Array
    step_size: Array
    momentum: Array


def rewarded(key, n):
    """Uniform rewards, a random start, step in [0.05, 1], momentum in [0, 0.95]."""
    a, b, c, d = jax.random.split(key, 4)
    rewards = jax.random.uniform(a, (n,))
    return Rewarded(
        rewards,
        random_start(b, n),
        jax.random.uniform(c, (), minval=0.05, maxval=1.0),
        0.95 * jax.random.uniform(d, ()),
    )


SUPPORTS = [{"n": 3}, {"n": 6, "losers": 2}, {"n": 9, "losers": 4}]


def log_policies(solver, game, start, num_steps):
    """The start and the policies after each step, float[num_steps + 1, n]."""
    return iterate(solver, game, num_steps, state=solver.start(start), observe=_log_policy)[1]


def _log_policy(game, state):
    return state.log_policy


# ---- T7: proximal point --------------------------------------------------------------------------------------------


@statement(
    "nash/T7",
    "Proximal point (COMAL, MPO): KL(p0||pi_{k+1}) <= KL(p0||pi_k) - KL(pi_{k+1}||pi_k), p0 any unregularised Nash",
    falsifiers=[
        Falsifier(
            "the inner game is solved (one OMD step with eta tau = 0.9 instead)",
            {"num_inner": 1},
            share=0.95,
            generator=rps_solved,
            cases=[{}],
        ),
        Falsifier("p0 is an equilibrium (the uniform policy instead)", {"nash": False}, share=0.8),
    ],
    origin=derived_here("docs/proofs/nash.md, T7; COMAL's monotone decrease was read in reviews", COMAL),
    proof="docs/proofs/nash.md#t7",
    generator=solved_game,
    cases=SUPPORTS,
)
def proximal_decrease(instance, num_inner=None, nash=True):
    game, start, winner = instance
    winner = winner if nash else log_normalise(jnp.zeros_like(winner))
    tau, payoff = game.temperature, game.preference - 0.5
    solver = ProximalPoint() if num_inner is None else ProximalPoint(OMD(0.9 / tau), num_inner)
    _, (after, errors) = iterate(solver, game, 20, state=solver.start(start), observe=_solve)

    def bounds(old, new, error):
        # A step that is taken for what it is has no solver error.
        error = 0.0 if num_inner else error
        before, now, moved = kl(winner, old), kl(winner, new), kl(new, old)
        support = winner > -jnp.inf
        far = span(jnp.where(support, new - old, 0.0)) + span(new - old)
        scale = before + now + moved + 1 / tau + far * size(old, new)
        # log pi_{k+1} moves by `error` in span: KL(p0||.) and the product by less than it, each.
        slack = error * (1 + 1 / tau) + kl_error(error, new, old)
        product = jnp.exp(winner) @ win_rates(payoff, new) / tau
        return [
            Bound(now + moved, before, scale, slack),
            identity(now + moved, before - product, scale, slack),
        ]

    return jax.vmap(bounds)(after[:-1], after[1:], errors[1:])


def _solve(game, state):
    return state.log_policy, state.error


# ---- T8: the price of regularisation -------------------------------------------------------------------------------


@statement(
    "nash/T8",
    "gap0(pi*_tau) <= 2 tau (log(1 / min mu) - KL(pi*_tau||mu)): the bias of regularisation",
    falsifiers=[
        Falsifier("pi* is the equilibrium of this temperature (of ten times it)", {"heat": 10.0}, share=0.5),
        Falsifier("P + P^T = 1 (a bonus of 0.3 for matching the opponent)", {"bonus": 0.3}, share=0.25),
    ],
    origin=derived_here("docs/proofs/nash.md, T8", EGPO_PAPER),
    proof="docs/proofs/nash.md#t8",
    generator=cool_instance,
    cases=SIZES,
)
def regularisation_bias(instance, heat=1.0, bonus=0.0):
    game, start, star, error, solved = instance
    tau, reference = game.temperature, game.reference_logits
    changed = game._replace(preference=game.preference + bonus * jnp.eye(star.size), temperature=heat * tau)
    if heat != 1.0 or bonus:
        _, _, star, error, solved = with_equilibrium(changed, start)
    gap = unregularised_gap(changed.preference, star)
    rhs = 2 * tau * (-jnp.min(reference) - kl(star, reference))
    scale = 1 + tau * size(star, reference) * (1 + span(star - reference))
    # |pi - pi*|_1 <= error / 2 and gap0 is 1-Lipschitz in it; KL(pi*||mu) as in kl_error.
    slack = error / 2 + 2 * tau * kl_error(error, star, reference)
    return Bound(gap, rhs, scale, slack, solved, trivial=1.0)


@statement(
    "nash/T8.egpo",
    "EGPO from uniform, tau = eps / (4 log n), T >= 2 log(2 sqrt(2 log n) / eps) / (eta tau): gap0(pi_T) <= eps",
    falsifiers=[
        Falsifier(
            "the half step (OMD instead)", {"half_step": False}, share=0.6, generator=cyclic_instance, cases=[{}]
        ),
    ],
    origin=derived_here("docs/proofs/nash.md, T8; constants of the paper's polynomial rate were not read", EGPO_PAPER),
    proof="docs/proofs/nash.md#t8",
    generator=uniform_start,
    cases=SIZES,
)
def egpo_reaches_any_gap(instance, half_step=True, target=0.1):
    n = instance.start.size
    tau = target / (4 * np.log(n))
    step_size = 1 / (tau + 0.5)
    num_steps = int(np.ceil(2 * np.log(2 * np.sqrt(2 * np.log(n)) / target) / (step_size * tau)))
    solver = EGPO(step_size) if half_step else OMD(step_size)
    game = instance.game._replace(temperature=jnp.asarray(tau))
    end = iterate(solver, game, num_steps, state=solver.start(instance.start))[0].log_policy
    return Bound(unregularised_gap(game.preference, end), target, 1.0, trivial=1.0)


# ---- T9: averages of multiplicative weights ------------------------------------------------------------------------


def end_of_run(solver, instance, num_steps, last):
    """The average policy of a run, or its last policy."""
    state = iterate(solver, instance.game, num_steps, state=solver.start(instance.start))[0]
    return state.log_policy if last else jnp.log(state.average)


@statement(
    "nash/T9",
    "MWU (SPO, exact SPPO and DNO), eta = sqrt(8 log n / T), from uniform: gap0(average) <= sqrt(2 log n / T)",
    falsifiers=[
        Falsifier("the average (the last iterate)", {"last": True}, share=0.5, generator=cyclic_instance, cases=[{}]),
    ],
    origin=derived_here("docs/proofs/nash.md, T9; the shape of GPM's Theorem 5.1", HEDGE),
    proof="docs/proofs/nash.md#t9",
    generator=uniform_start,
    cases=SIZES,
)
def average_of_weights(instance, last=False, num_steps=1000):
    log_n = np.log(instance.start.size)
    end = end_of_run(MWU(np.sqrt(8 * log_n / num_steps)), instance, num_steps, last)
    gap = unregularised_gap(instance.game.preference, end)
    return Bound(gap, np.sqrt(2 * log_n / num_steps), 1.0, trivial=1.0)


@statement(
    "nash/T9.gpo",
    "Exact GPO, scores in [-s, s], eta = sqrt(2 log n / T) / s, from uniform: 2 max S avg <= 2 s sqrt(2 log n / T)",
    falsifiers=[
        Falsifier("the average (the last iterate)", {"last": True}, share=0.5, generator=cyclic_instance, cases=[{}]),
    ],
    origin=derived_here("docs/proofs/nash.md, T9; the paper's Theorem 5.1 has this shape", GPM),
    proof="docs/proofs/nash.md#t9",
    generator=uniform_start,
    cases=SIZES,
)
def average_of_scores(instance, last=False, num_steps=1000):
    log_n = np.log(instance.start.size)
    score = jax.scipy.special.logit(instance.game.preference)
    s = jnp.max(jnp.abs(score))
    end = end_of_run(GPO(np.sqrt(2 * log_n / num_steps) / s), instance, num_steps, last)
    bound = 2 * s * np.sqrt(2 * log_n / num_steps)
    return Bound(2 * jnp.max(win_rates(score, end)), bound, s, trivial=2 * s)


@statement(
    "nash/T9.cycle",
    "MWU moves away: KL(p0||pi_{t+1}) >= KL(p0||pi_t) for an unregularised equilibrium p0 with full support",
    falsifiers=[Falsifier("multiplicative weights without optimism (OMWU)", {"optimistic": True}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T9"),
    proof="docs/proofs/nash.md#t9",
    generator=solved_game,
    cases=[{"n": 3}, {"n": 6}, {"n": 9}],
)
def weights_move_away(instance, optimistic=False, step_size=0.3):
    game, start, winner = instance
    solver = OMWU(step_size) if optimistic else MWU(step_size)
    path = log_policies(solver, game, start, 30)

    def bound(old, new):
        before, after = kl(winner, old), kl(winner, new)
        return Bound(before, after, before + after + step_size + span(new - old) * size(old, new))

    return jax.vmap(bound)(path[:-1], path[1:])


# ---- T9b: DNO and SPPO -----------------------------------------------------------------------------------------------


def dno_steps(instance, mixture, step_size):
    """(before, after) along exact DNO; with a `mixture` its rewards are taken against policy and reference mixed."""
    game = instance.game._replace(temperature=jnp.zeros_like(instance.game.temperature))
    solver = MWU(step_size) if mixture is None else NashMD(step_size, mixture)
    path = log_policies(solver, game, instance.start, 10)
    return path[:-1], path[1:]


def dno_gain(instance, mixture, step_size, pairs):
    """Each step's P(pi_{t+1} > pi_t) - 1/2 beside eta_D times a sum of divergences."""

    def terms(old, new):
        gain = win_probability(instance.game.preference, new, old) - 0.5
        forward, backward = kl(new, old), kl(old, new)
        scale = 1 + (forward + backward + span(new - old) * size(old, new)) / step_size
        return pairs(gain, forward / step_size, backward / step_size, scale)

    return jax.vmap(terms)(*dno_steps(instance, mixture, step_size))


REWARD_OPPONENT = "the reward's opponent is pi_t (its mixture with the reference, c = 0.9)"


@statement(
    "nash/T9b",
    "DNO, exact iterates: P(pi_{t+1} > pi_t) >= 1/2 + eta_D KL(pi_{t+1}||pi_t)",
    falsifiers=[
        Falsifier(REWARD_OPPONENT, {"mixture": 0.9}, share=0.15, cases=SIZES[1:]),
    ],
    origin=paper("Rosset et al. 2024, arXiv 2404.03715, monotone improvement of the exact iterates", DNO),
    proof="docs/proofs/nash.md#t9b",
    generator=any_start,
    cases=SIZES,
)
def dno_monotone(instance, mixture=None, step_size=0.5):
    return dno_gain(instance, mixture, step_size, lambda gain, forward, backward, scale: Bound(forward, gain, scale))


@statement(
    "nash/T9b.identity",
    "DNO, exact iterates: P(pi_{t+1} > pi_t) = 1/2 + eta_D [KL(pi_{t+1}||pi_t) + KL(pi_t||pi_{t+1})]",
    falsifiers=[
        Falsifier(REWARD_OPPONENT, {"mixture": 0.9}, share=0.9, cases=SIZES[1:]),
    ],
    origin=derived_here("docs/proofs/nash.md, T9b", DNO),
    proof="docs/proofs/nash.md#t9b",
    generator=any_start,
    cases=SIZES,
)
def dno_identity(instance, mixture=None, step_size=0.5):
    return dno_gain(
        instance,
        mixture,
        step_size,
        lambda gain, forward, backward, scale: identity(gain, forward + backward, scale),
    )


@statement(
    "nash/T9b.sppo",
    "SPPO: 0 <= log E_pi exp(eta (P(y > pi) - 1/2)) <= eta^2 / 8, the partition constant that its loss drops",
    falsifiers=[
        Falsifier("win rates are centred at 1/2 (not centred)", {"centre": 0.0}, share=0.95),
        Falsifier("P + P^T = 1 (a bonus of 0.3 for matching the opponent)", {"bonus": 0.3}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T9b", SPPO),
    proof="docs/proofs/nash.md#t9b",
    generator=any_start,
    cases=SIZES,
)
def sppo_constant(instance, centre=0.5, bonus=0.0):
    game, start, _ = instance
    rates = win_rates(game.preference + bonus * jnp.eye(start.size), start) - centre

    def bounds(step_size):
        log_z = jax.scipy.special.logsumexp(start + step_size * rates)
        scale = 1 + step_size + size(start)
        return [
            Bound(-log_z, 0.0, scale, trivial=step_size / 2),
            Bound(log_z, step_size**2 / 8, scale, trivial=step_size / 2),
        ]

    return jax.vmap(bounds)(jnp.array([0.1, 1.0, 3.0]))


# ---- T10: APO --------------------------------------------------------------------------------------------------------


@statement(
    "nash/T10.closed",
    "APO with known rewards: lh_T = L(l_0 + c_T r / beta), c_T = T / (1 - alpha) - alpha (1 - alpha^T) / (1 - alpha)^2",
    falsifiers=[
        Falsifier("the output lh_T (the extrapolation l_T)", {"extrapolated": True}, share=0.95),
    ],
    origin=derived_here("docs/proofs/nash.md, T10; the update line is not checked against the paper", APO_PAPER),
    proof="docs/proofs/nash.md#t10",
    generator=rewarded,
    cases=SIZES,
)
def apo_closed_form(instance, extrapolated=False, num_steps=15):
    rewards, start, step_size, momentum = instance
    solver = APO(step_size, momentum, rewards)
    game = PreferenceGame(jnp.full((start.size, start.size), 0.5), start, jnp.asarray(0.0))
    _, (outputs, extrapolations) = iterate(solver, game, num_steps, state=solver.start(start), observe=_momentum)
    times = jnp.arange(1, num_steps + 1)
    closed = jax.vmap(lambda t: apo_policy(rewards, start, step_size, momentum, t))(times)
    run = (extrapolations if extrapolated else outputs)[1:]
    scale = size(start) + step_size * apo_gain(momentum, times)
    return identity(run, closed, scale[:, None])


def _momentum(game, state):
    return state.log_policy, state.extrapolated


def apo_gaps(instance, cyclic, num_steps):
    """(steps T, gap0(lh_T), log(1 / pi_0(y*)), step 1 / beta, alpha) of APO in self-play on P - 1/2 = (r_i - r_j) / 2.

    Against any opponent that preference gives the gain r / 2 up to a constant, so step 2 / beta is iterative DPO's own
    1 / beta, and gap0 is max r - <lh, r>. y* is the best reply to lh_T: the action of largest reward.
    """
    rewards, start, step_size, momentum = instance
    payoff = circulant(start.size) - 0.5 if cyclic else (rewards[:, None] - rewards[None, :]) / 2
    game = PreferenceGame(0.5 + payoff, start, jnp.asarray(0.0))
    path = log_policies(APO(2 * step_size, momentum), game, start, num_steps)[1:]
    best = jax.vmap(lambda lp: jnp.argmax(win_rates(payoff, lp)))(path)
    gaps = jax.vmap(lambda lp: unregularised_gap(game.preference, lp))(path)
    return jnp.arange(1, num_steps + 1), gaps, -start[best], step_size, momentum


ODD = [{"n": 3}, {"n": 5}, {"n": 9}]
TRANSITIVE = Falsifier("Bradley-Terry rewards (a cyclic game)", {"cyclic": True}, share=0.9)


@statement(
    "nash/T10",
    "APO with known rewards in [0, 1]: max r - <lh_T, r> <= (beta / c_T) log(1 / pi_0(y*)), c_T as in T10.closed",
    falsifiers=[TRANSITIVE],
    origin=derived_here("docs/proofs/nash.md, T10; the update line is not checked against the paper", APO_PAPER),
    proof="docs/proofs/nash.md#t10",
    generator=rewarded,
    cases=ODD,
)
def apo_rate(instance, cyclic=False, num_steps=200):
    steps, gaps, log_start, step_size, momentum = apo_gaps(instance, cyclic, num_steps)
    return Bound(gaps, log_start / (step_size * apo_gain(momentum, steps)), 1 + log_start, trivial=1.0)


@statement(
    "nash/T10.rate",
    "APO, rewards in [0, 1]: max r - <lh_T, r> <= 2 (1 - alpha) beta log(1/pi_0(y*)) / T, T >= 2 alpha/(1-alpha)",
    falsifiers=[TRANSITIVE],
    origin=as_quoted("a digest of He et al. 2024: O((1 - alpha) / T)", APO_PAPER),
    proof="docs/proofs/nash.md#t10",
    differs="the constant 2 and the condition on T are ours: uniformly in alpha and T the rate is false",
    generator=rewarded,
    cases=ODD,
)
def apo_quoted_rate(instance, cyclic=False, num_steps=200):
    steps, gaps, log_start, step_size, momentum = apo_gaps(instance, cyclic, num_steps)
    rate = 2 * (1 - momentum) * log_start / (step_size * steps)
    return Bound(gaps, rate, 1 + log_start, applies=steps * (1 - momentum) >= 2 * momentum, trivial=1.0)


class Cycle(NamedTuple):
    """A regular cycle of given margin at its uniform equilibrium, a step size and a momentum in (-1, 1)."""

    game: PreferenceGame
    step_size: Array
    momentum: Array


def cycle(key, n):
    """Margins in [0.1, 0.5], steps in [0.05, 1], momenta in (-0.95, 0.95)."""
    a, b, c = jax.random.split(key, 3)
    strength = jax.random.uniform(a, (), minval=0.1, maxval=0.5)
    game = PreferenceGame(0.5 + 2 * strength * (circulant(n) - 0.5), log_normalise(jnp.zeros(n)), jnp.asarray(0.0))
    step_size = jax.random.uniform(b, (), minval=0.05, maxval=1.0)
    return Cycle(game, step_size, jax.random.uniform(c, (), minval=-0.95, maxval=0.95))


@statement(
    "nash/T10.cycle",
    "APO in self-play leaves the equilibrium of a cycle at every momentum in (-1, 1): its largest multiplier exceeds 1",
    falsifiers=[Falsifier("momentum on the policy (on the win rates: OMWU)", {"optimistic": True}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T10", APO_PAPER),
    proof="docs/proofs/nash.md#t10",
    generator=cycle,
    cases=ODD,
)
def apo_multiplier(instance, optimistic=False):
    game, step_size, momentum = instance
    n = game.reference_logits.size
    # A Fourier mode of the cycle: A Cov v = i w v.
    mode = jnp.exp(2j * np.pi * jnp.arange(n) / n)
    w = jnp.imag(((game.preference - 0.5) @ mode)[0]) / n
    growth = 1 + 1j * step_size * w
    if optimistic:
        linear, constant = -(2 * growth - 1), growth - 1
    else:
        linear, constant = -(1 + momentum) * growth, momentum * growth
    # The root of larger modulus of x^2 + linear x + constant.
    root = jnp.sqrt(linear**2 - 4 * constant)
    root = jnp.where(jnp.abs(-linear + root) >= jnp.abs(-linear - root), root, -root)
    multiplier = (-linear + root) / 2
    solver = OMWU(step_size) if optimistic else APO(step_size, momentum)
    here = solver.step(game, solver.init(game), None)

    def step(first, second):
        moved = solver.step(game, type(here)(first, second, here.t), None)
        return jnp.stack([moved[0], moved[1]])

    # Both states are (newest policy, what it remembers): APO the extrapolation, OMWU the previous win rates.
    pair = jnp.stack([mode * multiplier, 1j * w * mode] if optimistic else [mode * growth / multiplier, mode])
    push = lambda tangent: jax.jvp(step, (here[0], here[1]), (tangent[0], tangent[1]))[1]  # noqa: E731
    pushed, expected = push(jnp.real(pair)) + 1j * push(jnp.imag(pair)), multiplier * pair
    apart = lambda part: identity(part(pushed).ravel(), part(expected).ravel(), jnp.full(2 * n, 8.0))  # noqa: E731
    return [Bound(1.0, jnp.abs(multiplier), 1.0), apart(jnp.real), apart(jnp.imag)]
