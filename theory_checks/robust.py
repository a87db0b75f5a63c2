"""Robust planning: duals (C1), Bellman (C2), linearity (C3), rectangularity (C4), prices (C5, C7), C6 range, C8 risk.

Notation: m a law, V values, sigma_lambda(m, V) = inf_q E_q V + lambda D(q || m), sigma^rho the infimum over the ball
D(q || m) <= rho, w the worst cases of the factors, H the horizon, h = 0 .. H - 1. Proofs: docs/proofs/robust.md.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import random_linear_mdp, tabular
from rlcore.claims import Bound, Falsifier, as_quoted, derived_here, identity, paper, statement
from rlcore.robust import (
    LinearMDP,
    constrained_tv,
    cvar,
    divergence_of,
    evaluate,
    kernels,
    levels_of_radius,
    nominal_values,
    plan,
    regularised_kl,
    rewards,
    worst_case,
)
from rlcore.types import Array

NAMES = ("tv", "kl", "chi2")
STATES = [{"num_states": 6}]
SIZES = [{"num_states": 4, "num_actions": 3, "horizon": 4, "num_factors": 3}]
SLIDES, R2PVI, DRPVI = "the authors' slides of November 2024", "tang2025r2pvi", "liu2024drpvi"


# ---- instances -------------------------------------------------------------------------------------------------------


class Law(NamedTuple):
    """law: float[S], with zeros. values: float[S], with ties. others: float[N, S], laws. price, radius: float[]."""

    law: Array
    values: Array
    others: Array
    price: Array
    radius: Array


class Instance(NamedTuple):
    """A linear MDP, a price, a radius, a stochastic policy float[H, S, A] and another problem's factors."""

    model: LinearMDP
    price: Array
    radius: Array
    policy: Array
    factors: Array


def log_uniform(key, low, high):
    """A number whose logarithm is uniform."""
    return jnp.exp(jax.random.uniform(key, minval=jnp.log(low), maxval=jnp.log(high)))


def random_law(key, num_states):
    """Dirichlet(1/2), entries 0 with probability 0.2, values in [0, 3] with ties, and laws from near to far."""
    keys = jax.random.split(key, 8)
    law = jax.random.dirichlet(keys[0], jnp.full(num_states, 0.5))
    law = jnp.where((jax.random.uniform(keys[1], law.shape) > 0.2) | (law == jnp.max(law)), law, 0.0)
    values = 3 * jax.random.uniform(keys[2], law.shape)
    values = jnp.where(jax.random.uniform(keys[3], law.shape) > 0.2, values, values[0])
    others = jax.random.dirichlet(keys[4], jnp.full(num_states, 0.5), (32,))
    mix = jax.random.uniform(keys[5], (32, 1)) ** 3
    others = (1 - mix) * law / jnp.sum(law) + mix * others
    price, radius = log_uniform(keys[6], 0.05, 5.0), log_uniform(keys[7], 0.003, 1.0)
    return Law(law / jnp.sum(law), values, others, price, radius)


def blind_law(key, num_states):
    """A law without mass on the least value, and a price below half of the span: where V_min is taken matters."""
    instance = random_law(key, num_states)
    values = instance.values.at[0].set(-1.0)
    law = jnp.where(jnp.arange(num_states) == 0, 0.0, instance.law + 0.1)
    return instance._replace(law=law / jnp.sum(law), values=values, price=0.5 + 0.0 * instance.price)


def cheap_law(key, num_states):
    """A price so small that chi-square truncates: 2 price < (max V - E V) / 2, on full support."""
    instance = random_law(key, num_states)
    law = instance.law + 0.05
    law, values = law / jnp.sum(law), instance.values.at[1].set(4.0)
    return instance._replace(law=law, values=values, price=(4.0 - law @ values) / 8)


def random_instance(key, **sizes):
    """The generator G: Dirichlet features and factors (entries 0 with probability 0.2), uniform reward weights."""
    model_key, price_key, radius_key, policy_key, far_key, mix_key = jax.random.split(key, 6)
    model = random_linear_mdp(model_key, **sizes)
    h, _, s = model.factors.shape
    policy = jax.random.dirichlet(policy_key, jnp.ones(sizes["num_actions"]), (h, s))
    far = jax.random.dirichlet(far_key, jnp.full(s, 0.5), model.factors.shape[:2])
    mix = jax.random.uniform(mix_key) ** 2
    factors = (1 - mix) * model.factors + mix * far
    return Instance(model, log_uniform(price_key, 0.05, 4.0), log_uniform(radius_key, 0.02, 0.8), policy, factors)


def simplex(x):
    """Rows made laws again: negative entries to 0, then normalised; a row without mass becomes uniform."""
    kept = jnp.maximum(x, 0.0)
    total = jnp.sum(kept, axis=-1, keepdims=True)
    return jnp.where(total > 0, kept / jnp.where(total > 0, total, 1.0), 1 / x.shape[-1])


def nearby_law(instance):
    """Project a perturbed `random_law` back: laws on the simplex, values in [0, 3], price and radius within range."""
    law, values, others, price, radius = instance
    return Law(
        simplex(law), jnp.clip(values, 0, 3), simplex(others), jnp.clip(price, 0.05, 5.0), jnp.clip(radius, 0.003, 1.0)
    )


def nearby_instance(instance):
    """Project a perturbed `random_instance` back: features, factors and policies on the simplex, rewards in [0, 1]."""
    model, price, radius, policy, factors = instance
    weights = jnp.clip(model.reward_weights, 0, 1)
    model = LinearMDP(simplex(model.features), simplex(model.factors), weights, simplex(model.initial))
    return Instance(model, jnp.clip(price, 0.05, 4.0), jnp.clip(radius, 0.02, 0.8), simplex(policy), simplex(factors))


def mean_of(law, values):
    """E_m V."""
    return jnp.dot(law, values, precision="highest")


def variance_of(law, values):
    """Var_m V."""
    return mean_of(law, (values - mean_of(law, values)) ** 2)


def span(x):
    """max - min."""
    return jnp.max(x) - jnp.min(x)


# ---- C1: operators ---------------------------------------------------------------------------------------------------


def blind_tv(law, values, price):
    """Total variation whose least value is taken over the support alone."""
    least = jnp.min(values, where=law > 0, initial=jnp.inf)
    return mean_of(law, jnp.minimum(values, least + price))


def untruncated_chi2(law, values, price):
    """Mean less variance / (4 price), without the sign constraint."""
    return mean_of(law, values) - variance_of(law, values) / (4 * price)


def optimistic_kl(law, values, price):
    """+price log E exp(V / price)."""
    return price * jax.nn.logsumexp(values / price, b=law)


def attained(name, instance, value, kernel):
    """value <= E_q V + price D(q || m) for all the laws at hand and the kernel, with equality at the kernel."""
    law, values, others, price, _ = instance
    laws = jnp.concatenate([others, law[None], kernel[None]])
    distance = jax.vmap(lambda q: divergence_of(name, q, law))(laws)
    cost = laws @ values + jnp.where(jnp.isfinite(distance), price * distance, jnp.inf)
    reachable = jnp.isfinite(cost)
    size = jnp.max(jnp.abs(values)) + price * (1 + jnp.where(reachable, distance, 0.0))
    below = Bound(value, jnp.where(reachable, cost, value), size, applies=reachable)
    return [below, identity(value, cost[-1], size[-1])]


def operator_statement(name, formula, falsifier, generator):
    @statement(
        f"robust/C1.{name}",
        f"{formula}: <= E_q V + lambda D(q || m) for all q, equal at the worst kernel",
        falsifiers=[Falsifier(falsifier[0], {"value_of": falsifier[1]}, share=falsifier[2], generator=generator)],
        origin=as_quoted(f"{SLIDES}, the dual; the exact solution is derived in docs/proofs/robust.md", R2PVI),
        proof="docs/proofs/robust.md#c1",
        generator=random_law,
        project=nearby_law,
        cases=STATES,
    )
    def claim(instance, value_of=None):
        found = worst_case(name, instance.law, instance.values, instance.price)
        value = found.value if value_of is None else value_of(instance.law, instance.values, instance.price)
        return attained(name, instance, value, found.worst_kernel)

    return claim


tv_dual = operator_statement(
    "tv",
    "sigma = E_m min(V, V_min + lambda)",
    ("V_min over all states (over the support of m alone)", blind_tv, 0.9),
    blind_law,
)
kl_dual = operator_statement(
    "kl",
    "sigma = -lambda log E_m exp(-V / lambda)",
    ("the signs (+lambda log E exp(V / lambda))", optimistic_kl, 0.9),
    cheap_law,
)
chi2_dual = operator_statement(
    "chi2",
    "sigma = E_m W - Var_m W / (4 lambda), W = min(V, a)",
    ("the cut a solves E_m (a - V)_+ = 2 lambda (a = max V, q >= 0 dropped)", untruncated_chi2, 0.9),
    cheap_law,
)


@statement(
    "robust/C1.ball",
    "sigma^rho = max over lambda of sigma_lambda - lambda rho, at the returned price; below E_q V for q in the ball",
    falsifiers=[Falsifier("the price (taken twice)", {"times": 2.0}, share=0.6)],
    origin=derived_here("docs/proofs/robust.md, C1; total variation as in Liu and Xu 2024", DRPVI),
    proof="docs/proofs/robust.md#c1",
    generator=random_law,
    project=nearby_law,
    cases=STATES,
)
def ball_dual(instance, times=1.0):
    law, values, others, _, radius = instance
    bounds = []
    for name in NAMES:
        found = worst_case(name, law, values, radius, constrained=True)
        price = times * found.dual
        size = jnp.max(jnp.abs(values)) + price * radius
        priced = worst_case(name, law, values, price).value - price * radius
        bounds.append(identity(found.value, priced, size, error=ball_error(name, radius, span(values))))
        distance = jax.vmap(lambda q, name=name: divergence_of(name, q, law))(others)
        inside = distance <= radius
        bounds.append(Bound(found.value, jnp.where(inside, others @ values, found.value), size, applies=inside))
        # at any other price the dual is lower
        for other in (0.3, 1.0, 3.0):
            lower = worst_case(name, law, values, other).value - other * radius
            error = ball_error(name, radius, span(values))
            bounds.append(Bound(lower, found.value, size + other * (1 + radius), error))
    return bounds


def ball_error(name, radius, spread):
    """Certified error of a ball's value: near-tied minima cost the KL bisection 2e-9 radius span; the others solve."""
    return 2.1e-9 * radius * spread if name == "kl" else 0.0


# ---- C2: the robust Bellman equation ---------------------------------------------------------------------------------


@statement(
    "robust/C2",
    "sum_i phi_i sigma(m_i, V) <= sum_i phi_i (E_{q_i} V + lambda D(q_i || m_i)) for every adversary and row",
    falsifiers=[
        Falsifier("features are nonnegative (0.3 taken from one and given to another)", {"move": 0.3}, share=0.3),
    ],
    origin=as_quoted(f"{SLIDES}, Propositions 3.2 and 3.3; proof derived", R2PVI),
    proof="docs/proofs/robust.md#c2",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def bellman(instance, move=0.0):
    model, price = instance.model, instance.price
    value = nominal_values(model).values[1]
    phi = model.features.reshape(-1, model.features.shape[-1])
    phi = phi.at[:, 0].add(move).at[:, 1].add(-move)
    bounds = []
    for name in NAMES:
        law = model.factors[0]
        found = jax.vmap(lambda m, name=name: worst_case(name, m, value, price))(law)
        distance = jax.vmap(lambda q, m, name=name: divergence_of(name, q, m))
        # Adversaries: the worst laws, the nominal ones, others near and far, and each mixed with the next.
        near = jnp.where(law > 0, instance.factors[0], 0)
        near = near / jnp.sum(near, axis=1, keepdims=True)
        every = [found.worst_kernel, law, near]
        if name == "tv":
            every.append(instance.factors[0])
        every += [jnp.concatenate([found.worst_kernel[:1], law[1:]]), (found.worst_kernel + near) / 2]
        for laws in every:
            cost = phi @ (laws @ value + price * distance(laws, law))
            valid = jnp.all(phi @ laws >= 0, axis=1)  # the adversary must leave a kernel
            size = jnp.sum(jnp.abs(phi), axis=1) * (jnp.max(value) + price * (1 + jnp.max(distance(laws, law))))
            mixed = phi @ found.value
            bounds.append(Bound(jnp.where(valid, mixed, cost), cost, size, applies=valid))
    return bounds


def small_instance(key):
    """G with three states, two actions and two steps: 64 deterministic policies."""
    return random_instance(key, num_states=3, num_actions=2, horizon=2, num_factors=2)


def tempting_instance(key):
    """From state 0 a sure half, or 1 with a chance of 0.6 to 0.8: only the first is robust at these prices."""
    instance = small_instance(key)
    chance_key, price_key = jax.random.split(key)
    chance = 0.6 + 0.2 * jax.random.uniform(chance_key)
    none = jnp.zeros_like(chance)
    law = jnp.stack([jnp.array([0.0, 1.0, 0.0]), jnp.stack([chance, none, 1 - chance])])
    features = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]])
    model = LinearMDP(features, jnp.stack([law, law]), jnp.array([[0.0, 0.0], [0.0, 1.0]]), instance.model.initial)
    return instance._replace(model=model, price=0.02 + 0.08 * jax.random.uniform(price_key))


POLICIES = np.array(list(itertools.product(range(2), repeat=6)), np.int32).reshape(-1, 2, 3)


@statement(
    "robust/C2.greedy",
    "The greedy policy of Q* is optimal at every state: none of the 64 deterministic or random policies beats it",
    falsifiers=[
        Falsifier(
            "greedy in the robust values (in the nominal ones)",
            {"robust": False},
            share=0.9,
            generator=tempting_instance,
        ),
    ],
    origin=as_quoted(f"{SLIDES}, Proposition 4.1; proof derived", R2PVI),
    proof="docs/proofs/robust.md#c2",
    generator=small_instance,
)
def greedy_is_optimal(instance, robust=True):
    model, price = instance.model, instance.price
    bounds = []
    for name in NAMES:
        best = plan(model, name, price) if robust else nominal_values(model)
        own = evaluate(model, best.policy, name, price).values[0]
        others = jax.vmap(lambda policy, name=name: evaluate(model, policy, name, price).values[0])(POLICIES)
        mixed = evaluate(model, instance.policy, name, price).values[0]
        size = 2.0 * model.factors.shape[0]
        bounds += [Bound(others, own[None], size), Bound(mixed, own, size)]
        # the recursion's own value is that of its policy
        bounds.append(identity(plan(model, name, price).values[0] if robust else own, own, size))
    return bounds


# ---- C3, C4: linearity and rectangularity ----------------------------------------------------------------------------


@statement(
    "robust/C3",
    "Q^{pi, lambda}_h - r_h lies in the span of the features, for every policy",
    falsifiers=[
        Falsifier(
            "the adversary picks one law per factor (one per state and action; KL, chi-square)",
            {"rectangular": "sa"},
            share=0.9,
            setting={"names": ("kl", "chi2")},
        )
    ],
    origin=derived_here("docs/proofs/robust.md, C3; the slides state it", R2PVI),
    proof="docs/proofs/robust.md#c3",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def linear_q(instance, rectangular="d", names=NAMES):
    model = instance.model
    phi = model.features.reshape(-1, model.features.shape[-1])
    # Directions orthogonal to the features, from a full QR: backward stable.
    null = jnp.linalg.qr(phi, mode="complete")[0][:, phi.shape[1] :]
    bounds = []
    for name in names:
        q = evaluate(model, instance.policy, name, instance.price, rectangular=rectangular).q_values
        q = q.reshape(q.shape[0], -1)
        bounds.append(Bound(jnp.abs(q @ null), 0.0, 2.0 * q.shape[0] * phi.shape[0] ** 0.5))
    return bounds


@statement(
    "robust/C4",
    "V^{(s,a)-rectangular} <= V^{d-rectangular} <= V^{nominal}; total variation: the first two are equal",
    falsifiers=[
        Falsifier("the order (reversed; KL, chi-square)", {"reverse": True}, share=0.9, setting={"names": NAMES[1:]}),
        Falsifier("divergences are priced (one ball of TV per factor or pair)", {"constrained": True}, share=0.5),
    ],
    origin=derived_here("docs/proofs/robust.md, C4"),
    proof="docs/proofs/robust.md#c4",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def ordering(instance, reverse=False, names=NAMES, constrained=False):
    model = instance.model
    nominal = evaluate(model, instance.policy).values[0]
    size = 2.0 * model.factors.shape[0]
    bounds = []
    for name in names:
        ball = constrained and name == "tv"
        level = jnp.minimum(instance.radius, 1.0) if ball else instance.price
        by_pair, by_factor = (
            evaluate(model, instance.policy, name, level, ball, rectangular=x).values[0] for x in ("sa", "d")
        )
        if name == "tv":
            bounds.append(identity(by_pair, by_factor, size))
        lower, upper = (by_factor, by_pair) if reverse else (by_pair, by_factor)
        bounds += [Bound(lower, upper, size), Bound(by_factor, nominal, size)]
    return bounds


# ---- C5, C7: prices --------------------------------------------------------------------------------------------------


@statement(
    "robust/C5",
    "V^{pi, lambda} is nondecreasing and concave in lambda, at every state and for every policy",
    falsifiers=[
        Falsifier(
            "the policy is fixed (the optimal one of each price)",
            {"optimal": True},
            share=0.9,
            generator=tempting_instance,
            cases=[{}],
        )
    ],
    origin=derived_here("docs/proofs/robust.md, C5"),
    proof="docs/proofs/robust.md#c5",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def concave_in_price(instance, optimal=False):
    model = instance.model
    prices = jnp.linspace(0.05, 2.0, 14)
    size = 4.0 * model.factors.shape[0]
    bounds = []
    for name in NAMES:
        if optimal:
            value = jax.vmap(lambda price, name=name: plan(model, name, price).values[0])(prices)
        else:
            value = jax.vmap(lambda p, name=name: evaluate(model, instance.policy, name, p).values[0])(prices)
        bounds += [
            Bound(value[:-1], value[1:], size),
            Bound((value[2:] + value[:-2]) / 2, value[1:-1], size),
        ]
    return bounds


@statement(
    "robust/C5.gap",
    "E V - sigma: 0 (TV, lambda >= span); Var/(4 lambda) (chi2, lambda >= (max - E)/2); <= span^2/(8 lambda) (KL)",
    falsifiers=[Falsifier("the price is above its threshold (half of it)", {"times": 0.5}, share=0.6)],
    origin=derived_here("docs/proofs/robust.md, C5"),
    proof="docs/proofs/robust.md#c5",
    generator=random_law,
    project=nearby_law,
    cases=STATES,
)
def one_step_gap(instance, times=1.0):
    law, values, _, extra, _ = instance
    mean, spread = mean_of(law, values), span(values)
    highest = jnp.max(values, where=law > 0, initial=-jnp.inf)
    size = jnp.max(jnp.abs(values))
    tv = times * (spread + jnp.where(times < 1, 0.0, extra))
    chi2 = times * ((highest - mean) / 2 + jnp.where(times < 1, 0.0, extra)) + 1e-3
    return [
        identity(worst_case("tv", law, values, tv).value, mean, size),
        identity(
            worst_case("chi2", law, values, chi2).value,
            mean - variance_of(law, values) / (4 * chi2),
            size + variance_of(law, values) / (4 * chi2),
        ),
        Bound(mean - worst_case("kl", law, values, extra).value, spread**2 / (8 * extra), size, trivial=spread),
    ]


@statement(
    "robust/C7",
    "The ball's plan is the regularised one at its own prices lambda_{h,i}: w = sigma_lambda - lambda rho, same values",
    falsifiers=[
        Falsifier("one price per step and factor (one for all, the best of 40)", {"common": True}, share=0.9),
    ],
    origin=derived_here("docs/proofs/robust.md, C7"),
    proof="docs/proofs/robust.md#c7",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def priced_ball(instance, common=False):
    model, radius = instance.model, instance.radius
    horizon, d, _ = model.factors.shape
    bounds = []
    for name in NAMES:
        ball = plan(model, name, radius, constrained=True)

        def priced(price, name=name):
            # A reward of -price * radius for each factor, at steps that have a next value.
            toll = (price * radius).at[-1].set(0.0)
            weights = model.reward_weights - toll
            shifted = LinearMDP(model.features, model.factors, weights, model.initial)
            return plan(shifted, name, price).values[0]

        price = levels_of_radius(model, name, radius)
        spread = jax.vmap(span)(ball.values[1:])
        if common:
            grid = jax.vmap(lambda x: jnp.full((horizon, d), x))(jnp.geomspace(0.01, 10.0, 40))
            miss = jnp.min(jax.vmap(lambda p: jnp.max(jnp.abs(priced(p) - ball.values[0])))(grid))
        else:
            miss = jnp.max(jnp.abs(priced(price) - ball.values[0]))
        size = 2.0 * horizon + jnp.sum(jnp.max(price, axis=1)) * radius
        error = jnp.sum(ball_error(name, radius, spread)) if name == "kl" else 0.0
        bounds.append(Bound(miss, 0.0, size, error))
    return bounds


@statement(
    "robust/C7.weak",
    "V^rho_h >= V^lambda_h - lambda rho (H - h - 1) for every price, h = 0 .. H - 1",
    falsifiers=[Falsifier("the ball costs its radius (nothing is paid)", {"pay": 0.0}, share=0.6)],
    origin=derived_here("docs/proofs/robust.md, C7"),
    proof="docs/proofs/robust.md#c7",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def weak_duality(instance, pay=1.0):
    model, radius, price = instance.model, instance.radius, instance.price
    horizon = model.factors.shape[0]
    left = jnp.arange(horizon - 1.0, -1.0, -1.0)[:, None]
    bounds = []
    for name in NAMES:
        ball = plan(model, name, radius, constrained=True)
        priced = plan(model, name, price)
        toll = pay * price * radius * left
        error = ball_error(name, radius, horizon * 1.0) * horizon
        lower = priced.values[:-1] - toll
        bounds.append(Bound(lower, ball.values[:-1], 2.0 * horizon + toll, error, trivial=horizon * 1.0))
    return bounds


# ---- C6: ranges ------------------------------------------------------------------------------------------------------


def frozen_instance(key, **sizes):
    """Two states that never change, one paid and one not: only total variation can move between them."""
    instance = random_instance(key, **sizes)
    model = instance.model
    features = jnp.zeros_like(model.features).at[0, :, 0].set(1.0).at[1:, :, 1].set(1.0)
    factors = jnp.zeros_like(model.factors).at[:, 0, 0].set(1.0).at[:, 1:, 1].set(1.0)
    weights = jnp.zeros_like(model.reward_weights).at[:, 0].set(1.0 - 0.2 * model.reward_weights[:, 0])
    model = LinearMDP(features, factors, weights, model.initial)
    return instance._replace(model=model, price=instance.price / 20)


@statement(
    "robust/C6",
    "Total variation: span V^{pi, lambda}_h <= 1 + min(lambda, span V_{h+1}), hence at most min(H - h, 1 + lambda)",
    falsifiers=[
        Falsifier(
            "the divergence is total variation (KL, with frozen states)",
            {"divergence": "kl"},
            share=0.9,
            generator=frozen_instance,
        )
    ],
    origin=derived_here("docs/proofs/robust.md, C6"),
    proof="docs/proofs/robust.md#c6",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def shrunk_range(instance, divergence="tv"):
    model, price = instance.model, instance.price
    horizon = model.factors.shape[0]
    value = evaluate(model, instance.policy, divergence, price).values
    spread = jax.vmap(span)(value)
    left = jnp.arange(horizon, 0.0, -1.0)
    return [
        Bound(spread[:-1], 1 + jnp.minimum(price, spread[1:]), 2.0 * horizon + price, trivial=left),
        Bound(spread[:-1], jnp.minimum(left, 1 + price), 2.0 * horizon + price),
    ]


@statement(
    "robust/C6.ball",
    "TV balls: span V^{pi, rho}_h <= (1 - (1 - rho)^(H - h)) / rho",
    falsifiers=[
        Falsifier(
            "the ball holds every law near the nominal one (KL balls, frozen states)",
            {"divergence": "kl"},
            share=0.5,
            generator=frozen_instance,
        )
    ],
    origin=paper("arXiv 2403.09621, Lemma 5.1", DRPVI),
    proof="docs/proofs/robust.md#c6",
    generator=random_instance,
    project=nearby_instance,
    cases=SIZES,
)
def shrunk_range_of_balls(instance, divergence="tv"):
    model, radius = instance.model, instance.radius
    horizon = model.factors.shape[0]
    value = evaluate(model, instance.policy, divergence, radius, constrained=True).values[:-1]
    left = jnp.arange(horizon, 0.0, -1.0)
    limit = -jnp.expm1(left * jnp.log1p(-radius)) / radius
    return Bound(jax.vmap(span)(value), limit, 2.0 * horizon, trivial=left)


# ---- C8: risk --------------------------------------------------------------------------------------------------------


def tabular_instance(key):
    """A tabular problem with three states, two actions and three steps: 216 paths of pairs from each state."""
    model_key, price_key, policy_key = jax.random.split(key, 3)
    model = tabular(model_key, 3, 2, 3)
    chosen = jax.random.randint(policy_key, (3, 3), 0, 2)
    mixed = jax.random.dirichlet(policy_key, jnp.ones(2), (3, 3))
    return kernels(model), rewards(model), chosen, mixed, log_uniform(price_key, 0.2, 3.0)


PATHS = np.array(list(itertools.product(range(2), range(3), range(2), range(3), range(2))))


@statement(
    "robust/C8",
    "Tabular KL, deterministic policy: V^{pi, lambda}_1 = -lambda log E exp(-sum of rewards / lambda), over all paths",
    falsifiers=[
        Falsifier("no discount (0.7 a step: nested risk is not static risk)", {"discount": 0.7}, share=0.9),
        Falsifier("the policy is deterministic (actions at random)", {"mixed": True}, share=0.9),
    ],
    origin=derived_here("docs/proofs/robust.md, C8"),
    proof="docs/proofs/robust.md#c8",
    generator=tabular_instance,
)
def entropic_risk(instance, discount=1.0, mixed=False):
    law, reward, chosen, mixture, price = instance
    policy = mixture if mixed else jax.nn.one_hot(chosen, 2, dtype=law.dtype)
    value = jnp.zeros(3)
    for h in reversed(range(3)):
        worst = jax.vmap(jax.vmap(lambda m, v=value: regularised_kl(m, v, price).value))(law[h])
        value = jnp.sum(policy[h] * (reward[h] + discount * worst), axis=1)
    a0, s1, a1, s2, a2 = PATHS.T

    def risk(s0):
        chance = policy[0, s0, a0] * law[0, s0, a0, s1] * policy[1, s1, a1] * law[1, s1, a1, s2] * policy[2, s2, a2]
        total = reward[0, s0, a0] + discount * (reward[1, s1, a1] + discount * reward[2, s2, a2])
        return -price * jax.nn.logsumexp(-total / price, b=chance)

    return identity(value, jnp.stack([risk(s) for s in range(3)]), 6.0 + price)


@statement(
    "robust/C8.cvar",
    "TV ball: sigma^rho = rho min V + (1 - rho) CVaR_{1 - rho}, the mean of the lowest 1 - rho mass",
    falsifiers=[
        Falsifier(
            "min V over all states (over the support of m)", {"everywhere": False}, share=0.9, generator=blind_law
        )
    ],
    origin=derived_here("docs/proofs/robust.md, C8"),
    proof="docs/proofs/robust.md#c8",
    generator=random_law,
    project=nearby_law,
    cases=STATES,
)
def ball_of_cvar(instance, everywhere=True):
    law, values, _, _, radius = instance
    radius = 0.9 * radius
    least = jnp.min(values) if everywhere else jnp.min(values, where=law > 0, initial=jnp.inf)
    tail = cvar(law, values, 1 - radius).value
    # a mean of mass 1 - radius divides by it
    size = jnp.max(jnp.abs(values)) / (1 - radius)
    return identity(constrained_tv(law, values, radius).value, radius * least + (1 - radius) * tail, size)
