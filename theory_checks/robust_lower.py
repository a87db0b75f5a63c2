"""The lower bound (C13): on a class with hidden signs every learner loses.

Instance: d bits per step, hidden signs xi in {-1, 1}, gain Delta, price lambda, eps = 1 / (4 H) to be absorbed.
Proofs: docs/proofs/robust.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import hard_instance
from rlcore.claims import Bound, Chance, Falsifier, Sampled, derived_here, statement
from rlcore.robust import evaluate, plan
from rlcore.types import Array
from theory_checks.robust import NAMES, R2PVI

PROOF = "docs/proofs/robust.md#c13"


class Hidden(NamedTuple):
    """signs: float[H, d]. gain: float[]. policy: float[H, 2^d], probabilities in state 0. slack: float[] >= 1."""

    signs: Array
    gain: Array
    policy: Array
    slack: Array


def bits_of(d):
    """Actions as bits, float[2^d, d], in lexicographic order."""
    return ((np.arange(2**d)[:, None] >> np.arange(d)[::-1]) & 1) * 1.0


def hidden_instance(key, horizon, d):
    """Random signs, gain in [0.02, 0.2], policies from nearly deterministic to nearly uniform."""
    sign_key, gain_key, policy_key, sharp_key, slack_key = jax.random.split(key, 5)
    signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, (horizon, d)), 1.0, -1.0)
    sharp = jnp.exp(jax.random.uniform(sharp_key, minval=-2.0, maxval=4.0))
    policy = jax.nn.softmax(sharp * jax.random.normal(policy_key, (horizon, 2**d)), axis=1)
    gain = 0.02 + 0.18 * jax.random.uniform(gain_key)
    return Hidden(signs, gain, policy, 1 + jax.random.uniform(slack_key))


def wrong_instance(key, horizon, d):
    """The policy that sets every bit wrong."""
    instance = hidden_instance(key, horizon, d)
    wrong = jnp.all(bits_of(d)[None] == (1 - instance.signs[:, None]) / 2, axis=2)
    return instance._replace(policy=jnp.where(wrong, 1.0, 0.0))


@statement(
    "robust/C13",
    "H Delta <= lambda log 2: V*(x1) - V^pi(x1) >= sum_h (1 - 2 eps)^h (Delta / 4d) #{i: xi_hi E(2 a_i - 1) <= 0}",
    falsifiers=[
        Falsifier(
            "H Delta <= lambda log 2 (lambda a tenth of it; TV, every bit wrong, 10 steps)",
            {"room": 0.1},
            share=0.9,
            generator=wrong_instance,
            cases=[{"horizon": 10, "d": 2}],
            setting={"names": ("tv",)},
        )
    ],
    origin=derived_here("docs/proofs/robust.md, C13, an explicit form of Theorem 6.1 as read in the slides", R2PVI),
    proof=PROOF,
    generator=hidden_instance,
    cases=[{"horizon": 4, "d": 3}],
)
def gap(instance, room=1.0, names=NAMES):
    signs, gain, policy, slack = instance
    horizon, d = signs.shape
    price = room * slack * horizon * gain / jnp.log(2.0)
    model = hard_instance(signs, gain)
    full = jnp.stack([policy, policy], axis=1)
    lean = policy @ (2 * bits_of(d) - 1)
    missed = jnp.sum(jnp.where(signs * lean <= 0, 1.0, 0.0), axis=1)
    leak = 1 / (4 * horizon)
    claimed = jnp.sum((1 - 2 * leak) ** jnp.arange(horizon) * missed) * gain / (4 * d)
    bounds = []
    for name in names:
        lost = plan(model, name, price).values[0, 0] - evaluate(model, full, name, price).values[0, 0]
        # At lambda H Delta / log 2 values of size H Delta are subtracted; nothing of lambda's size cancels.
        bounds.append(Bound(claimed, lost, 2 * horizon * gain, trivial=horizon * gain))
    return bounds


class Budget(NamedTuple):
    """price: float[], with which the class is hard for the trajectories at hand."""

    price: Array


def budget_instance(key):
    """A price in [1, 3]."""
    return Budget(1 + 2 * jax.random.uniform(key))


@statement(
    "robust/C13.learner",
    "Signs uniform, K = 100 trajectories: E suboptimality of the plug-in learner >= d^{3/2} H / (32 sqrt(2 K)), TV",
    falsifiers=[Falsifier("the signs are hidden (told to the learner)", {"told": True}, share=0.9)],
    origin=derived_here("docs/proofs/robust.md, C13", R2PVI),
    proof=PROOF,
    generator=budget_instance,
    chance=Chance(replicates=1024, cap=2**14),
)
def any_learner(instance, keys, told=False, horizon=2, d=2, num_trajectories=100):
    price, k = instance.price, num_trajectories
    gain = d**1.5 / (2 * k) ** 0.5
    bits = jnp.asarray(bits_of(d))
    leak = 1 / (4 * horizon)
    # Behaviour: one of the d unit actions or none set, equally likely; rewards are normal with variance 1.
    tried = jnp.asarray(np.concatenate([np.eye(d), np.zeros((1, d))]))

    def lost(key):
        sign_key, start_key, action_key, leave_key, noise_key = jax.random.split(key, 5)
        signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, (horizon, d)), 1.0, -1.0)
        start = jax.random.bernoulli(start_key, (d + 1) / (d + 2), (k, 1))
        stays = jnp.cumprod(jnp.where(jax.random.bernoulli(leave_key, 1 - leak, (k, horizon - 1)), 1, 0), axis=1)
        here = jnp.concatenate([start, start & (stays == 1)], axis=1)
        action = jax.random.randint(action_key, (k, horizon), 0, d + 1)
        count = jnp.sum(jnp.where(here[:, :, None], jax.nn.one_hot(action, d + 1), 0.0), axis=0)
        weights = jnp.concatenate([(signs + 1) / 2, jnp.full((horizon, 1), 0.5)], axis=1)
        mean = gain * jnp.concatenate([tried / d, 1 - jnp.sum(tried, axis=1, keepdims=True) / d], axis=1) @ weights.T
        noise = jax.random.normal(noise_key, (horizon, d + 1)) / jnp.sqrt(jnp.maximum(count, 1.0))
        seen = jnp.where(count > 0, mean.T + noise, gain / 2)
        # Plug-in: a bit is set where its unit action did better than none.
        guess = signs > 0 if told else seen[:, :d] > seen[:, d:]
        right = jnp.all(bits[None] == jnp.where(guess, 1.0, 0.0)[:, None], axis=2)
        policy = jnp.broadcast_to(jnp.argmax(right, axis=1)[:, None], (horizon, 2)).astype(jnp.int32)
        model = hard_instance(signs, gain)
        return plan(model, "tv", price).values[0, 0] - evaluate(model, policy, "tv", price).values[0, 0]

    most = horizon * gain
    claimed = d**1.5 * horizon / (32 * (2 * k) ** 0.5)
    # In batches: the trajectories of all replicates of a block would fill the memory.
    return Sampled(-jax.lax.map(lost, keys, batch_size=32), -claimed, -most, 0.0, 2 * most)
