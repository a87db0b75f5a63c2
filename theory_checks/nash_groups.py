"""Preference games: groups with rewards of their own (T11): regrets, the minimax one, pooled rewards, EM.

Notation as in `theory_checks.nash`; group u has rewards r_u and optimal policy p_u = L(log mu + r_u / beta), its regret
for a policy p is what it loses against p_u in <., r_u> - beta KL(.||mu). Proofs: docs/proofs/nash.md, T11.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import mixture
from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.nash import (
    RewardEM,
    RewardGroups,
    bradley_terry,
    kl,
    log_normalise,
    minimax_regret,
    minimax_regret_policy,
)
from rlcore.solver import CONVERGED
from rlcore.types import Array
from theory_checks.nash import random_start, size, span

MAXMIN = "chakraborty2024maxmin"
CROWDS = [{"n": 3, "count": 2}, {"n": 8, "count": 4}]


# ---- instances -----------------------------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """Groups, a policy and a weight of the groups.

    policy: float[n], log-probabilities. weights: float[U], a distribution.
    """

    groups: RewardGroups
    policy: Array
    weights: Array


def random_crowd(key, n, count, coldest=0.1, hottest=2.0):
    """Normal rewards, a reference of deviation 1, temperature log-uniform between two, any policy, any weights."""
    a, b, c, d, e = jax.random.split(key, 5)
    temperature = jnp.exp(jax.random.uniform(c, (), minval=jnp.log(coldest), maxval=jnp.log(hottest)))
    reference = log_normalise(jax.random.normal(b, (n,)))
    groups = RewardGroups(jax.random.normal(a, (count, n)), reference, temperature)
    return Crowd(groups, random_start(d, n), jax.nn.softmax(jax.random.normal(e, (count,))))


class SolvedCrowd(NamedTuple):
    """Groups and what a general solver says of their minimax regret, in units of the temperature.

    upper: float[], largest KL(p||p_u) at its policy p. lower: float[], a lower bound that convexity alone gives there.
    """

    groups: RewardGroups
    upper: Array
    lower: Array


def solved_crowd(key, n, count):
    """Rewards in [0, 1], temperature in [0.3, 2], solved on the host by sequential quadratic programming."""
    a, b, c = jax.random.split(key, 3)
    temperature = jnp.exp(jax.random.uniform(c, (), minval=jnp.log(0.3), maxval=jnp.log(2.0)))
    reference = log_normalise(0.5 * jax.random.normal(b, (n,)))
    groups = RewardGroups(jax.random.uniform(a, (count, n)), reference, temperature)
    number = jax.ShapeDtypeStruct((), temperature.dtype)
    upper, lower = jax.pure_callback(_general_solver, (number, number), groups.policies(), vmap_method="sequential")
    return SolvedCrowd(groups, upper, lower)


def _general_solver(log_policies) -> tuple[np.ndarray, np.ndarray]:
    """min_p max_u KL(p||p_u) by scipy's SLSQP: its value, and a lower bound from the gradients where it stopped."""
    from scipy.optimize import minimize, nnls

    log_policies = np.asarray(log_policies)
    count, n = log_policies.shape
    ratio = lambda p: np.log(p) - log_policies  # noqa: E731
    simplex = {
        "type": "eq",
        "fun": lambda x: np.sum(x[:n]) - 1,
        "jac": lambda x: np.append(np.ones(n), 0.0),
    }
    below = {
        "type": "ineq",
        "fun": lambda x: x[n] - ratio(x[:n]) @ x[:n],
        "jac": lambda x: np.hstack([-(ratio(x[:n]) + 1), np.ones((count, 1))]),
    }
    start = np.mean(np.exp(log_policies), axis=0)
    found = minimize(
        lambda x: x[n],
        np.append(start, np.max(ratio(start) @ start)),
        jac=lambda x: np.append(np.zeros(n), 1.0),
        method="SLSQP",
        bounds=[(1e-9, 1.0)] * n + [(0.0, None)],
        constraints=[simplex, below],
        options={"ftol": 1e-16, "maxiter": 300},
    )
    p = found.x[:n] / np.sum(found.x[:n])
    here = ratio(p)
    # Any weights bound the minimum, as KL is convex: sum w_u KL(q||p_u) >= <sum w_u here_u, q> >= its least entry.
    flat = np.vstack([(here - (here @ p)[:, None]).T, 10 * np.ones(count)])
    weights, _ = nnls(flat, np.append(np.zeros(n), 10.0))
    return np.max(here @ p), np.min(weights @ here) / np.sum(weights)


def arithmetic(log_policies, weights):
    """Log of the mean of the groups' policies."""
    return jax.scipy.special.logsumexp(log_policies + jnp.log(weights)[:, None], axis=0)


def geometric(log_policies, weights):
    """The normalised geometric mixture of the groups' policies."""
    return log_normalise(weights @ log_policies)


# ---- regret --------------------------------------------------------------------------------------------------------


@statement(
    "nash/T11.regret",
    "The regret J_u(p_u) - J_u(p) of any policy p is beta KL(p||p_u), J_u(p) = <p, r_u> - beta KL(p||mu)",
    falsifiers=[Falsifier("p_u at this temperature (at twice it)", {"heat": 2.0}, share=0.9)],
    origin=derived_here("docs/proofs/nash.md, T11", MAXMIN),
    proof="docs/proofs/nash.md#t11",
    generator=random_crowd,
    cases=CROWDS,
)
def regret_is_a_divergence(crowd, heat=1.0):
    groups, policy, _ = crowd
    own = groups._replace(temperature=heat * groups.temperature).policies()
    beta, reference = groups.temperature, groups.reference_logits

    def objective(rewards, log_p):
        return rewards @ jnp.exp(log_p) - beta * kl(log_p, reference)

    lost = jax.vmap(lambda r, best: objective(r, best) - objective(r, policy))(groups.rewards, own)
    divergence = beta * jax.vmap(lambda best: kl(policy, best))(own)
    scale = jnp.max(jnp.abs(groups.rewards)) + beta * size(policy, reference, own)
    return identity(lost, divergence, scale)


@statement(
    "nash/T11.decomposition",
    "sum_u w_u KL(p||p_u) = KL(p||p_w) - log sum_y prod_u p_u(y)^(w_u), p_w the geometric mixture of the p_u",
    falsifiers=[Falsifier("the geometric mixture of the p_u (arithmetic)", {"mix": arithmetic}, share=0.9)],
    origin=derived_here("docs/proofs/nash.md, T11", MAXMIN),
    proof="docs/proofs/nash.md#t11",
    generator=random_crowd,
    cases=CROWDS,
)
def mean_regret(crowd, mix=geometric):
    groups, policy, weights = crowd
    own = groups.policies()
    mean = weights @ jax.vmap(lambda best: kl(policy, best))(own)
    beta = groups.temperature
    rest = minimax_regret(groups, weights) / beta
    scale = size(policy, own)
    worst = jnp.max(groups.regrets(policy))
    return [
        identity(mean, kl(policy, mix(own, weights)) + rest, scale),
        # The impossibility: whatever the policy, some group regrets at least this.
        Bound(beta * rest, worst, beta * scale),
    ]


@statement(
    "nash/T11.positive",
    "max_u beta KL(p||p_u) >= beta max_{u,v} |p_u - p_v|_1^2 / 8 for every policy p: no policy serves unlike groups",
    falsifiers=[
        Falsifier("the worst-off group (the best-off one)", {"who": jnp.min}, share=0.9),
    ],
    origin=derived_here(
        "docs/proofs/nash.md, T11; constants of the paper's impossibility theorem were not read", MAXMIN
    ),
    proof="docs/proofs/nash.md#t11",
    generator=random_crowd,
    # Cold groups are so far apart that any regret exceeds the largest floor.
    cases=[case | {"coldest": 1.5, "hottest": 6.0} for case in CROWDS],
)
def unlike_groups_cannot_all_be_served(crowd, who=jnp.max):
    groups, policy, weights = crowd
    own = groups.policies()
    apart = jnp.sum(jnp.abs(jnp.exp(own)[:, None] - jnp.exp(own)[None, :]), axis=2)
    beta = groups.temperature
    floor = beta * jnp.max(apart) ** 2 / 8
    # Policies that serve some group or all of them a little: far from every group the bound is no news.
    mixture = geometric(own, weights)
    tried = jnp.stack([log_normalise(0.8 * mixture + 0.2 * policy), mixture, own[0]])
    regrets = jax.vmap(lambda log_p: who(groups.regrets(log_p)))(tried)
    # The farthest apart that two policies can be is 2.
    return Bound(floor, regrets, beta * size(policy, own), trivial=beta / 2)


# ---- the minimax regret --------------------------------------------------------------------------------------------


@statement(
    "nash/T11",
    "min_p max_u regret = beta max_w -log sum_y prod_u p_u(y)^(w_u), attained by a geometric mixture of the p_u",
    falsifiers=[Falsifier("the geometric mixture of the p_u (arithmetic)", {"mix": arithmetic}, share=0.8)],
    origin=derived_here(
        "docs/proofs/nash.md, T11; constants of the paper's impossibility theorem were not read", MAXMIN
    ),
    proof="docs/proofs/nash.md#t11",
    generator=solved_crowd,
    cases=[{"n": 4, "count": 3}],
)
def minimax_regret_formula(instance, mix=geometric):
    groups, upper, lower = instance
    solution = minimax_regret_policy(groups)
    weights, own = solution.value.weights, groups.policies()
    value = minimax_regret(groups, weights)
    beta = groups.temperature
    scale = beta * size(own)
    # The optimum of the independent solver lies in [lower, upper]; ours is within its duality gap.
    primal_error = beta * (upper - lower)
    attained = jnp.max(groups.regrets(mix(own, weights)))
    return [
        identity(beta * upper, value, scale, primal_error + solution.bound),
        identity(attained, value, scale, solution.bound),
        Bound(primal_error, 2e-7 * beta, scale),
        Bound(jnp.where(solution.status == CONVERGED, solution.bound, 1.0), 1e-10, scale),
    ]


def bisection(own):
    """The weight of the first of two groups at which both KLs from the geometric mixture agree, by bisection."""

    def difference(weight):
        p = geometric(own, jnp.stack([weight, 1 - weight]))
        return jnp.exp(p) @ (own[1] - own[0])

    def body(bracket, _):
        low, high = bracket
        middle = (low + high) / 2
        # KL(p||p_0) - KL(p||p_1) = <p, own_1 - own_0> falls as p moves to p_0.
        return jax.lax.cond(difference(middle) > 0, lambda: (middle, high), lambda: (low, middle)), None

    (low, high), _ = jax.lax.scan(body, (jnp.zeros(()), jnp.ones(())), length=60)
    return (low + high) / 2


def halves(own):
    """Both groups weigh the same: Bhattacharyya's distance in place of Chernoff's information."""
    return jnp.asarray(0.5)


@statement(
    "nash/T11.chernoff",
    "Two groups: the minimax regret is beta times Chernoff's information, where KL(p||p_1) = KL(p||p_2)",
    falsifiers=[
        Falsifier("the weight that equalises both KLs (one half)", {"weigh": halves}, share=0.9),
        Falsifier("the geometric mixture of the p_u (arithmetic)", {"mix": arithmetic}, share=0.9),
    ],
    origin=derived_here("docs/proofs/nash.md, T11", MAXMIN),
    proof="docs/proofs/nash.md#t11",
    generator=random_crowd,
    cases=[{"n": 5, "count": 2}],
)
def chernoff_information(crowd, weigh=bisection, mix=geometric):
    groups = crowd.groups
    own = groups.policies()
    weight = weigh(own)
    weights = jnp.stack([weight, 1 - weight])
    first, second = groups.regrets(mix(own, weights))
    solution = minimax_regret_policy(groups)
    beta = groups.temperature
    # The bisection stops at one rounding of the weight; the KLs move by at most span^2 / 4 per unit of it.
    scale = beta * (size(own) + span(own[0] - own[1]) ** 2)
    return [
        identity(first, second, scale),
        identity(first, minimax_regret(groups, weights), scale),
        identity(minimax_regret(groups, solution.value.weights), first, scale, solution.bound),
        Bound(jnp.where(solution.status == CONVERGED, 0.0, 1.0), 0.0, 1.0),
    ]


# ---- one reward for all --------------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """A population's preference, and how often each pair is asked, symmetric, in one design that is not uniform."""

    preference: Array
    design: Array


def random_pool(key, n, count):
    """Groups with normal rewards of deviation 2 and any shares."""
    a, b, c = jax.random.split(key, 3)
    shares = jax.nn.softmax(jax.random.normal(a, (count,)))
    design = jnp.exp(2 * jax.random.normal(c, (n, n)))
    return Pool(mixture(shares, 2 * jax.random.normal(b, (count, n))), design + design.T)


@statement(
    "nash/T11.borda",
    "Bradley-Terry fitted to a population with uniform pairs matches and orders the actions' mean win rates (Borda)",
    falsifiers=[Falsifier("uniform pairs (some asked more often)", {"uniform": False}, share=0.9)],
    origin=derived_here("docs/proofs/nash.md, T11", MAXMIN),
    proof="docs/proofs/nash.md#t11",
    generator=random_pool,
    cases=[{"n": 3, "count": 2}, {"n": 7, "count": 3}],
)
def borda_matching(pool, uniform=True, ridge=1e-6):
    n = pool.preference.shape[0]
    asked = jnp.ones((n, n)) if uniform else pool.design * n**2 / jnp.sum(pool.design)
    fit = bradley_terry(asked * pool.preference, ridge=ridge)
    rewards = fit.value
    model = jax.nn.sigmoid(rewards[:, None] - rewards[None, :])
    borda, fitted = jnp.sum(pool.preference, axis=1), jnp.sum(model, axis=1)
    # The gradient at the fit is at most 2 ridge times the certified error.
    error = 2 * ridge * fit.bound
    order = (rewards[:, None] - rewards[None, :]) * (borda[:, None] - borda[None, :])
    scale = n * (1 + jnp.max(jnp.abs(rewards)))
    return [
        identity(fitted + 2 * ridge * rewards, borda, scale, error),
        Bound(-order, 0.0, scale, error * span(rewards) + span(borda) * fit.bound),
        Bound(jnp.where(fit.status == CONVERGED, 0.0, 1.0), 0.0, 1.0),
    ]


# ---- EM ------------------------------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """What H annotators said: float[H, n, n] counts of wins; and where EM starts."""

    wins: Array
    log_shares: Array
    rewards: Array


def labelled(key, n, count):
    """24 annotators with 12 labels each, of `count` groups with rewards of deviation 3; a start near the truth."""
    a, b, c, d, e = jax.random.split(key, 5)
    rewards = 3 * jax.random.normal(a, (count, n))
    kinds = jax.random.randint(b, (24,), 0, count)
    first, second = jax.random.randint(c, (2, 24, 12), 0, n)
    score = jnp.take_along_axis(rewards[kinds], first, 1) - jnp.take_along_axis(rewards[kinds], second, 1)
    won = jax.random.bernoulli(d, jax.nn.sigmoid(score)).astype(rewards.dtype)
    rows = jnp.broadcast_to(jnp.arange(24)[:, None], first.shape)
    wins = jnp.zeros((24, n, n)).at[rows, first, second].add(won).at[rows, second, first].add(1 - won)
    start = rewards + 0.5 * jax.random.normal(e, rewards.shape)
    start = start - jnp.mean(start, axis=1, keepdims=True)
    return Labelled(wins * (1 - jnp.eye(n)), jnp.full((count,), -np.log(count)), start)


def unweighted(solver, wins, state):
    """An M step that forgets who is likely to belong where."""
    everybody = bradley_terry(jnp.sum(wins, axis=0), ridge=solver.ridge).value
    weights = jnp.mean(solver.responsibilities(state), axis=0)
    moved = solver.start(wins, jnp.log(weights), jnp.broadcast_to(everybody, state.rewards.shape))
    return moved._replace(t=state.t + 1)


def em_step(solver, wins, state):
    """The library's step."""
    return solver.step(wins, state)


@statement(
    "nash/T11.em",
    "EM for a mixture of Bradley-Terry rewards: log-likelihood - ridge sum |r_u|^2 never falls",
    falsifiers=[Falsifier("the M step weighs annotators (unweighted data)", {"step": unweighted}, share=0.8)],
    origin=derived_here("docs/proofs/nash.md, T11; EM's general property", MAXMIN),
    proof="docs/proofs/nash.md#t11",
    generator=labelled,
    cases=[{"n": 5, "count": 2}],
)
def em_climbs(data, step=em_step):
    solver = RewardEM(data.rewards.shape[0])
    state = solver.start(data.wins, data.log_shares, data.rewards)

    def advance(state, _):
        new = step(solver, data.wins, state)
        return new, (state.objective, new.objective, jnp.max(jnp.abs(new.rewards)))

    _, (before, after, largest) = jax.lax.scan(advance, state, length=10)
    # Every label adds a term as large as its score.
    scale = jnp.sum(data.wins) * (1 + 2 * largest)
    return Bound(before, after, scale)
