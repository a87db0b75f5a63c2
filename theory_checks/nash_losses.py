"""Losses of preference optimisation: what their gradients are (T12, T16), where they stop (T13, T9c), and where
released code or a digest says otherwise.

Notation as in nash.py; r = log(pi/mu), q = mix_c(pi) the mixture of policy and reference. Expectations are exact sums.
Counterexamples are computed with fractions from the definitions alone: logarithms of powers of two are multiples of one
number, which drops out or is kept apart. Proofs: docs/proofs/nash.md.
"""

import itertools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.preferences import bt, random_game
from rlcore.claims import Bound, Exact, Falsifier, as_quoted, derived_here, identity, released_code, statement
from rlcore.nash import (
    MWU,
    NashMD,
    PreferenceGame,
    Responses,
    all_judged_pairs,
    all_pairs,
    all_responses,
    all_votes,
    dpo_loss,
    geometric_mixture,
    ipo_loss,
    kl,
    log_normalise,
    paths_of_tree,
    policy_gradient_loss,
    score_regression_loss,
    token_policy_gradient_loss,
    win_rates,
)
from rlcore.types import Array
from theory_checks.nash import EGPO_PAPER, SIZES, random_instance, size

ONLINE_IPO, SPPO, TRL = "calandriello2024online", "wu2024sppo", "vonwerra2020trl"
T12, T13, T16 = (f"docs/proofs/nash.md#{t}" for t in ("t12", "t13", "t16"))


# ---- T12: gradients --------------------------------------------------------------------------------------------------


class Featured(NamedTuple):
    """A game and a log-linear policy; features: float[n, d], policy = L(start + features @ weights) at weights 0."""

    game: PreferenceGame
    start: Array
    features: Array


def featured_instance(key, n):
    """G, with three normal features per action."""
    game, start = random_game(key, n)
    return Featured(game, start, jax.random.normal(jax.random.fold_in(key, 2), (n, 3)))


def in_weights(instance, loss):
    """Gradient of loss(log policy) in the weights, at 0."""
    policy = lambda weights: log_normalise(instance.start + instance.features @ weights)  # noqa: E731
    return jax.grad(lambda weights: loss(policy(weights)))(jnp.zeros(instance.features.shape[1]))


def gradient_scale(instance):
    """Size of the terms of a gradient of the squared loss in the weights."""
    game, start, features = instance
    terms = 1 + game.temperature * size(start, game.reference_logits)
    return 16 / game.temperature * terms * (1 + jnp.max(jnp.abs(features)))


def ipo_md_gradient(instance, c):
    """Gradient of the library's IPO-MD(c)."""
    game, start, _ = instance
    q = geometric_mixture(start, game.reference_logits, c)
    pairs = all_pairs(game.preference, q, q)
    return in_weights(instance, lambda lp: ipo_loss(lp, game.reference_logits, pairs, game.temperature))


def scored_direction(instance, c, centred):
    """E_q [grad log pi(y) (P(y > q) - 1/2 - tau (r(y) - E_q r))], with or without E_q r."""
    game, start, features = instance
    q = geometric_mixture(start, game.reference_logits, c)
    ratio = start - game.reference_logits
    ratio = ratio - jnp.exp(q) @ ratio if centred else ratio
    score = win_rates(game.preference - 0.5, q) - game.temperature * ratio
    return (features - jnp.exp(start) @ features).T @ (jnp.exp(q) * score)


@statement(
    "nash/T12",
    "IPO-MD(c): grad L = -(4/tau) E_q [grad log pi(y) (P(y > q) - 1/2 - tau (r(y) - E_q r))], log-linear policies",
    falsifiers=[Falsifier("r is centred under q (left as it is)", {"centred": False}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T12; corrects Proposition 5.1 as a digest has it", ONLINE_IPO),
    proof=T12,
    generator=featured_instance,
    cases=[{"n": 3}, {"n": 5}, {"n": 12}],
)
def ipo_md_identity(instance, centred=True, c=0.4):
    rhs = -4 / instance.game.temperature * scored_direction(instance, c, centred)
    return identity(ipo_md_gradient(instance, c), rhs, gradient_scale(instance))


def without_centring() -> Exact:
    """Even odds, c = 1/2, three actions: mu = (5, 21, 16)/42, pi = (20, 21, 1)/42, r in units of log 2."""
    mu, pi = ([Fraction(x, 42) for x in row] for row in ((5, 21, 16), (20, 21, 1)))
    r = (2, 0, -4)
    assert all(p == m * Fraction(2) ** k for p, m, k in zip(pi, mu, r, strict=True))
    root = [m * Fraction(2) ** (k // 2) for m, k in zip(mu, r, strict=True)]  # sqrt(pi mu)
    q = [x / sum(root) for x in root]
    grad_log = [[(y == z) - pi[z] for z in range(3)] for y in range(3)]
    # With even odds the loss is E (r(y) - r(y'))^2, and the quoted direction is that of E_q r grad log pi.
    loss, quoted = [Fraction(0)] * 3, [Fraction(0)] * 3
    for z in range(3):
        for y, other in itertools.product(range(3), repeat=2):
            loss[z] += q[y] * q[other] * 2 * (r[y] - r[other]) * (grad_log[y][z] - grad_log[other][z])
        quoted[z] = sum(q[y] * r[y] * grad_log[y][z] for y in range(3))
    minor = loss[0] * quoted[1] - loss[1] * quoted[0]
    return Exact(abs(minor), Fraction(0), f"minor {minor} of the gradient {loss} and the quoted direction {quoted}")


@statement(
    "nash/T12.quoted",
    "IPO-MD(c), c > 0: grad L is proportional to E_q [grad log pi(y) (P(y > q) - 1/2 - tau r(y))], r not centred",
    falsifiers=[],
    origin=as_quoted("a digest of Calandriello et al. 2024, Proposition 5.1", ONLINE_IPO),
    proof=T12,
    generator=featured_instance,
    cases=[{"n": 3}, {"n": 5}, {"n": 12}],
    refutation=without_centring,
    corrected="nash/T12",
)
def ipo_md_as_quoted(instance, c=0.4):
    u, v = ipo_md_gradient(instance, c), scored_direction(instance, c, centred=False)
    product = (u @ u) * (v @ v)
    return Bound(product - (u @ v) ** 2, 0.0, product + gradient_scale(instance) * (u @ u + v @ v))


@statement(
    "nash/T12.self-play",
    "Online IPO, soft or with votes: its gradient is 4/tau times minus that of P_tau(pi > sg pi), self-play",
    falsifiers=[Falsifier("pairs come from the policy (from its mixture with mu)", {"c": 0.4}, share=0.95)],
    origin=as_quoted("digests of Calandriello et al. 2024, Proposition 4.2", ONLINE_IPO),
    proof=T12,
    differs="the factor 4/tau is derived here; one digest has 2/tau, 'proportional' is the claim",
    generator=featured_instance,
    cases=[{"n": 3}, {"n": 5}, {"n": 12}],
)
def online_ipo_is_self_play(instance, c=0.0):
    game, start, _ = instance
    q = geometric_mixture(start, game.reference_logits, c)
    pairs = all_pairs(game.preference, q, q)
    self_play = all_responses(game.preference, start, start)
    loss = lambda pairs: in_weights(  # noqa: E731
        instance, lambda lp: ipo_loss(lp, game.reference_logits, pairs, game.temperature)
    )
    direction = in_weights(
        instance, lambda lp: policy_gradient_loss(lp, game.reference_logits, self_play, game.temperature)
    )
    rhs, scale = 4 / game.temperature * direction, gradient_scale(instance)
    return [identity(loss(pairs), rhs, scale), identity(loss(all_votes(pairs)), rhs, scale)]


@statement(
    "nash/T12.contrast",
    "Both orders of a pair: Var((X1 + X2)/2) <= Var X1, X1 = (P(y > y') - 1/2) grad log pi(y), X2 with y, y' swapped",
    falsifiers=[
        Falsifier("both come from the policy (the second from the reference)", {"alike": False}, share=0.3),
    ],
    origin=as_quoted("a digest of Calandriello et al. 2024, Proposition D.1", ONLINE_IPO),
    proof=T12,
    generator=random_instance,
    cases=SIZES,
)
def contrastive_variance(instance, alike=True):
    game, start = instance.game, instance.start
    p = jnp.exp(start)
    weight = p[:, None] * (p if alike else jnp.exp(game.reference_logits))[None, :]
    score = jnp.eye(p.size) - p[None, :]  # grad log pi(y) in the logits, one row per y
    gain = game.preference - 0.5
    one, two = gain[:, :, None] * score[:, None, :], gain.T[:, :, None] * score[None, :, :]

    def variance(x):
        mean = jnp.sum(weight[:, :, None] * x, axis=(0, 1))
        return jnp.sum(weight[:, :, None] * (x - mean[None, None, :]) ** 2)

    return Bound(variance((one + two) / 2), variance(one), variance(one) + variance(two) + jnp.max(jnp.abs(gain)) ** 2)


# ---- T12: the mixture of the released simulations --------------------------------------------------------------------


def released_step(instance, share, uniform=True, pull=0.3):
    """(SGD on the uniform-pair loss against mix_{share eta tau}(pi), Nash-MD's own step), eta tau = 4 lr / n."""
    game, start = instance.game, instance.start
    opponent = geometric_mixture(start, game.reference_logits, share * pull)
    pairs = all_judged_pairs(game.preference, opponent, None if uniform else start)
    gradient = jax.grad(lambda logits: ipo_loss(log_normalise(logits), game.reference_logits, pairs, game.temperature))(
        start
    )
    solver = NashMD(pull / game.temperature)
    ours = log_normalise(start - pull * start.size / 4 * gradient)
    scale = size(start, game.reference_logits) + pull / game.temperature
    return identity(ours, solver.step(game, solver.start(start), None).log_policy, start.size * scale)


@statement(
    "nash/T12.sgd",
    "SGD with rate lr on the uniform-pair loss against mix_c(pi) is Nash-MD, eta tau = 4 lr/n, for c = 4 lr/n",
    falsifiers=[
        # With two actions win rates do not depend on the opponent.
        Falsifier("the mixture is 4 lr/n (half of it)", {"share": 0.5}, share=0.95, cases=SIZES[1:]),
        Falsifier("pairs are uniform (drawn from the policy)", {"uniform": False}, share=0.95),
    ],
    origin=derived_here("docs/proofs/nash.md, T12", EGPO_PAPER),
    proof=T12,
    generator=random_instance,
    cases=SIZES,
)
def sgd_is_nash_md(instance, share=1.0, uniform=True):
    return released_step(instance, share, uniform)


def half_mixture() -> Exact:
    """Rock-paper-scissors, tau = 1, lr = 3/8: 4 lr/n = 1/2, 2 lr/n = 1/4; mu uniform, pi ~ (16, 1, 1)."""
    n, lr, tau = 3, Fraction(3, 8), Fraction(1)
    win = [[Fraction(x, 2) for x in row] for row in ((1, 2, 0), (0, 1, 2), (2, 0, 1))]
    pi = [Fraction(16, 18), Fraction(1, 18), Fraction(1, 18)]
    log2_ratio = (4, 0, 0)  # log(pi/mu) in units of log 2, up to a constant

    def rates(c):
        weights = [Fraction(2) ** int(k * (1 - c)) for k in log2_ratio]
        return [sum(w * x for w, x in zip(row, weights, strict=True)) / sum(weights) for row in win]

    def slope(vector):
        """Gradient in the logits of mean over pairs of (x(y) - x(y'))^2 with x = vector at the present logits."""
        grad_log = [[(y == z) - pi[z] for z in range(n)] for y in range(n)]
        return [
            sum(
                2 * (vector[y] - vector[o]) * (grad_log[y][z] - grad_log[o][z])
                for y, o in itertools.product(range(n), repeat=2)
            )
            / n**2
            for z in range(n)
        ]

    # The gradient is linear in r - P q / tau: multiples of log 2 and rationals are kept apart.
    released = [lr / tau * s for s in slope(rates(2 * lr / n))]
    logs = [k - lr * s for k, s in zip(log2_ratio, slope(log2_ratio), strict=True)]
    step = 4 * lr / (n * tau)
    nash_md = [step * x for x in rates(4 * lr / n)]
    nash_md_logs = [(1 - step * tau) * k for k in log2_ratio]

    def spread(x, y):
        difference = [a - b for a, b in zip(x, y, strict=True)]
        return max(difference) - min(difference)

    assert spread(logs, nash_md_logs) == 0
    moved = spread(released, nash_md)
    return Exact(moved, Fraction(0), f"next logits {released} of the released step, {nash_md} of Nash-MD, up to logs")


@statement(
    "nash/T12.released",
    "SGD with rate lr on the uniform-pair loss against mix_c(pi) is Nash-MD for c = 2 lr/n",
    falsifiers=[],
    origin=released_code("EGPO, tabular simulations: true_lr * beta with true_lr = 2 lr/(beta n)", EGPO_PAPER),
    proof=T12,
    generator=random_instance,
    cases=SIZES[1:],
    refutation=half_mixture,
    corrected="nash/T12.sgd",
)
def sgd_with_half_the_mixture(instance):
    return released_step(instance, 0.5)


# ---- T13: online DPO -------------------------------------------------------------------------------------------------


def dpo_gradient(game, log_policy):
    """Gradient of the library's online DPO in the logits."""
    pairs = all_pairs(game.preference, log_policy, log_policy)
    return jax.grad(
        lambda logits: dpo_loss(log_normalise(logits), game.reference_logits, pairs, game.temperature)
    )(log_policy)  # fmt: skip


@statement(
    "nash/T13",
    "Online DPO at pi*: gradient -2 tau pi*(y) [P(y > pi*) - sum pi*(y') sigmoid(P(y > pi*) - P(y' > pi*))]",
    falsifiers=[Falsifier("pi* is the equilibrium (another policy)", {"at_equilibrium": False}, share=0.9)],
    origin=as_quoted("a digest of Calandriello et al. 2024, Lemma F.5", ONLINE_IPO),
    proof=T13,
    differs="the gradient is derived here; the lemma, stationary iff the bracket is 0, follows as pi* > 0",
    generator=random_instance,
    cases=SIZES,
)
def dpo_at_the_equilibrium(instance, at_equilibrium=True):
    game, start, star, error, converged = instance
    tau, policy = game.temperature, star if at_equilibrium else start
    p, rates = jnp.exp(policy), win_rates(game.preference, policy)
    residual = rates - jax.nn.sigmoid(rates[:, None] - rates[None, :]) @ p
    # tau r - A pi* is constant up to (tau + 1) error, and the slope of the sigmoid is at most 1/4.
    moved = tau * (1 + tau) * error
    scale = tau * (1 + tau * size(policy, game.reference_logits))
    return identity(dpo_gradient(game, policy), -2 * tau * p * residual, scale, moved, converged)


@statement(
    "nash/T13.two",
    "Online DPO, two actions: 3/2 tau pi1 pi2 |P12 - 1/2| <= |gradient at pi*| <= 2 tau pi1 pi2 |P12 - 1/2|",
    falsifiers=[
        Falsifier("pi* is the equilibrium (the optimum of RLHF)", {"aligned": True}, share=0.7),
    ],
    origin=as_quoted("a digest of Calandriello et al. 2024, Theorem F.6: not stationary unless P12 = 1/2", ONLINE_IPO),
    proof=T13,
    differs="the two bounds are derived here and imply the theorem",
    generator=random_instance,
    cases=SIZES[:1],
)
def dpo_with_two_actions(instance, aligned=False):
    game, _, star, error, converged = instance
    tau, gain = game.temperature, game.preference[0, 1] - 0.5
    rewards = jnp.stack([jax.scipy.special.logit(game.preference[0, 1]), jnp.zeros_like(gain)])
    policy = log_normalise(game.reference_logits + rewards / tau) if aligned else star
    least = tau * jnp.exp(policy[0] + policy[1]) * jnp.abs(gain)
    slope = jnp.abs(dpo_gradient(game, policy)[0])
    scale, moved = tau * (1 + tau * size(policy, game.reference_logits)), tau * (2 + tau) * error
    return [
        Bound(1.5 * least, slope, scale, moved, converged),
        Bound(slope, 2 * least, scale, moved, converged),
    ]


class Rewarded(NamedTuple):
    """A game of G and rewards float[n]."""

    game: PreferenceGame
    rewards: Array


def rewarded_instance(key, n):
    """G's reference and temperature, normal rewards of deviation 2, and G's preferences for the falsifier."""
    return Rewarded(random_game(key, n)[0], 2 * jax.random.normal(jax.random.fold_in(key, 2), (n,)))


@statement(
    "nash/T13.rewards",
    "Online DPO under Bradley-Terry preferences: the optimum of RLHF, mu exp(rewards / tau), is stationary",
    falsifiers=[Falsifier("preferences are Bradley-Terry (drawn freely)", {"transitive": False}, share=0.6)],
    origin=as_quoted("a digest of Calandriello et al. 2024, Theorem F.7", ONLINE_IPO),
    proof=T13,
    generator=rewarded_instance,
    cases=[{"n": 3}, {"n": 5}, {"n": 12}],
)
def dpo_fits_rewards(instance, transitive=True):
    game, rewards = instance
    game = game._replace(preference=bt(rewards)) if transitive else game
    aligned = log_normalise(game.reference_logits + rewards / game.temperature)
    slope = dpo_gradient(game, aligned)
    tau = game.temperature
    scale = tau * (1 + jnp.max(jnp.abs(rewards)) + tau * size(aligned, game.reference_logits))
    return Bound(jnp.abs(slope), 0.0, scale)


# ---- T9c: SPPO's own minimum -----------------------------------------------------------------------------------------


def damped_ratio(gain, policy, steps=60):
    """(rho, k) of log rho + k rho = gain, E rho = 1 under float[n] probabilities, for gains of span at most 1."""

    def ratio(k):
        # u + k e^u = gain: convex and increasing, so Newton from above goes down to the root.
        newton = lambda _, u: u - (u + k * jnp.exp(u) - gain) / (1 + k * jnp.exp(u))  # noqa: E731
        return jnp.exp(jax.lax.fori_loop(0, 12, newton, gain))

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        more = policy @ ratio(middle) > 1
        return jnp.where(more, middle, low), jnp.where(more, high, middle)

    low, high = jax.lax.fori_loop(0, steps, halve, (jnp.zeros(()), jnp.ones(())))
    return ratio((low + high) / 2), (low + high) / 2


@statement(
    "nash/T9c",
    "SPPO without log Z: at its minimum log rho + k rho = eta g, rho = pi/pi_t, k = KL(pi_t||pi) <= log Z / min rho",
    falsifiers=[Falsifier("the damping (multiplicative weights, k = 0)", {"damped": False}, share=0.9)],
    origin=derived_here("docs/proofs/nash.md, T9c; the loss was read in released code", SPPO),
    proof="docs/proofs/nash.md#t9c",
    generator=random_instance,
    cases=SIZES,
)
def score_regression_minimum(instance, damped=True, step_size=1.0):
    game, start = instance.game, instance.start
    responses = all_responses(game.preference, start, start)
    exact = MWU(step_size).step(game, MWU(step_size).start(start), None).log_policy
    rho, k = damped_ratio(step_size * responses.gain, jnp.exp(start))
    policy = log_normalise(start + jnp.log(rho)) if damped else exact
    slope = jax.grad(lambda x: score_regression_loss(log_normalise(x), start, responses, step_size))(policy)
    log_z = jax.scipy.special.logsumexp(start + step_size * responses.gain)
    scale = size(start)
    return [
        Bound(jnp.abs(slope), 0.0, scale),
        identity(kl(start, policy), k, scale) if damped else Bound(0.0, 0.0, scale),
        Bound(k * jnp.min(rho), log_z, scale),
        Bound(log_z, k * (jnp.exp(exact) @ rho), scale),
    ]


# ---- T16: the KL gradient of sequences -------------------------------------------------------------------------------


class Models(NamedTuple):
    """Two sequence models: levels and reference float[V^t, V] per position, bigram float[V + 1, V] added to levels."""

    levels: list
    bigram: Array
    reference: list


def random_models(key, tokens, length):
    """Normal logits after every prefix, and a shared table of bigrams."""
    keys = jax.random.split(key, 2 * length + 1)
    draw = lambda k, t: jax.random.normal(k, (tokens**t, tokens))  # noqa: E731
    levels = [draw(k, t) for t, k in enumerate(keys[:length])]
    reference = [draw(k, t) for t, k in enumerate(keys[length : 2 * length])]
    return Models(levels, jax.random.normal(keys[-1], (tokens + 1, tokens)), reference)


def token_paths(levels, bigram=None):
    """Token log-probabilities float[V^L, L]; the last token's row of the bigrams is shared by all prefixes."""
    v = levels[0].shape[1]
    if bigram is not None:
        rows = [bigram[v:]] + [jnp.tile(bigram[:v], (v ** (t - 1), 1)) for t in range(1, len(levels))]
        levels = [x + row for x, row in zip(levels, rows, strict=True)]
    return paths_of_tree([jax.nn.log_softmax(x, axis=1) for x in levels])


def kl_gradients(models, per_token, length):
    """(expected gradient of the sampled form, gradient of KL by differentiation, scale), in all parameters."""
    levels, bigram, reference = models
    reference = token_paths(reference[:length])

    def sampled(parameters):
        tokens = token_paths(*parameters)
        policy = jax.lax.stop_gradient(jnp.sum(tokens, axis=1))
        index = jnp.arange(policy.size)
        responses = Responses(index, jnp.zeros_like(policy), jnp.exp(policy))
        return token_policy_gradient_loss(tokens, reference, responses, jnp.ones(()), per_token)

    def divergence(parameters):
        tokens = token_paths(*parameters)
        return jnp.exp(jnp.sum(tokens, axis=1)) @ jnp.sum(tokens - reference, axis=1)

    parameters = levels[:length], bigram
    flat = lambda tree: jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])  # noqa: E731
    scale = length**2 * (1 + jnp.max(jnp.abs(token_paths(*parameters))) + jnp.max(jnp.abs(reference)))
    return flat(jax.grad(sampled)(parameters)), flat(jax.grad(divergence)(parameters)), scale


MODELS = [{"tokens": 2, "length": 2}, {"tokens": 2, "length": 4}, {"tokens": 3, "length": 3}]


@statement(
    "nash/T16",
    "Reward-to-go: E sum_t G_t grad log pi(y_t|.) = grad KL(pi||mu), G_t the sum of log-ratios from token t on",
    falsifiers=[Falsifier("tokens pay for what comes after them (for themselves)", {"per_token": True}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T16"),
    proof=T16,
    generator=random_models,
    cases=MODELS,
)
def reward_to_go(models, per_token=False):
    return identity(*kl_gradients(models, per_token, len(models.levels)))


@statement(
    "nash/T16.one-token",
    "Responses of one token: E (log-ratio) grad log pi = grad KL(pi||mu), the per-token form is right there",
    falsifiers=[Falsifier("one token (two)", {"length": 2}, share=0.95)],
    origin=derived_here("docs/proofs/nash.md, T16"),
    proof=T16,
    generator=random_models,
    cases=MODELS[:1],
)
def one_token(models, length=1):
    return identity(*kl_gradients(models, True, length))


def per_token_counterexample() -> Exact:
    """Two binary tokens, the first fair in both models; after token 0, pi = (2, 1)/3 and mu = (1, 2)/3; else equal."""
    half, third = Fraction(1, 2), Fraction(1, 3)
    pi = {(): (half, half), (0,): (2 * third, third), (1,): (half, half)}
    log2_ratio = {(): (0, 0), (0,): (1, -1), (1,): (0, 0)}  # of pi over mu, in units of log 2
    divergence, sampled = Fraction(0), Fraction(0)
    for y in itertools.product((0, 1), repeat=2):
        chance = pi[()][y[0]] * pi[y[:1]][y[1]]
        ratios = log2_ratio[()][y[0]], log2_ratio[y[:1]][y[1]]
        score = (y[0] == 0) - pi[()][0]  # of the first token, in its logit; the second token's is 0 there
        # grad KL = sum of grad pi times the whole log-ratio: the log-ratio's own gradient has mean 0.
        divergence += chance * score * sum(ratios)
        sampled += chance * ratios[0] * score
    return Exact(abs(divergence - sampled), Fraction(0), f"gradient {divergence} log 2 against {sampled} per token")


@statement(
    "nash/T16.trl",
    "Per-token product: E sum_t log-ratio_t grad log pi(y_t|.) = grad KL(pi||mu) for sequences",
    falsifiers=[],
    origin=released_code("TRL, trl/experimental/nash_md, NashMDTrainer", TRL),
    proof=T16,
    generator=random_models,
    cases=MODELS,
    refutation=per_token_counterexample,
    corrected="nash/T16",
)
def per_token_kl(models):
    return identity(*kl_gradients(models, True, len(models.levels)))
