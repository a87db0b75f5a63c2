"""What is left where arms collide: the largest of independent payoffs (T4), and of a plan's (T6).

alpha(k, m) = E min(m, Bin(k, m / k)) / m, and V_virt is the mean of the m largest virtual payoffs; the rest as in
lsd.py. Proofs: docs/proofs/lsd.md.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.lsd import alpha, occupancy, poisson_alpha, relaxation, virtual_value
from rlcore.lsd.guarantee import top_mean
from rlcore.types import Array
from theory_checks.lsd import LSD, monotone_instance, nearby

# ---- T4: the largest of independent payoffs --------------------------------------------------------------------------


class Draws(NamedTuple):
    """payoffs: float[k, n], what k independent variables may be, if not 0. chance: float[3, k, n], their laws for
    m = 1, 2, 3, such that at most m are positive on average."""

    payoffs: Array
    chance: Array


def random_draws(key, k, n):
    """From nearly identical arms of one value, where the lemma is tight, to arms of any law."""
    value_key, law_key, width_key, load_key = jax.random.split(key, 4)
    width = jax.random.uniform(width_key) ** 2
    payoffs = 1 - width * jax.random.uniform(value_key, (k, n))
    law = 1 / n + width * (jax.random.dirichlet(law_key, jnp.ones(n), (k,)) - 1 / n)
    load = 1 - 0.3 * width * jax.random.uniform(load_key, (k,))
    plays = jnp.arange(1.0, 4.0)[:, None, None]
    return Draws(payoffs, jnp.minimum(plays / k, 1) * load[:, None] * law)


OUTCOMES = np.array(list(itertools.product(range(4), repeat=4)))  # of 4 arms: nothing, or one of 3 payoffs


def largest_mean(payoffs, chance, plays, together=False):
    """E of the sum of the m largest, over all outcomes; `together`: all are positive at once as far as possible."""
    k = payoffs.shape[0]
    values = jnp.concatenate([jnp.zeros((k, 1)), payoffs], axis=1)
    laws = jnp.concatenate([1 - jnp.sum(chance, axis=1, keepdims=True), chance], axis=1)
    if together:
        # One uniform number for all: the first part of [0, 1) is where an arm is positive.
        edges = jnp.cumsum(jnp.concatenate([chance, laws[:, :1]], axis=1), axis=1)
        cuts = jnp.sort(jnp.concatenate([jnp.zeros(1), edges.ravel()]))
        middle = (cuts[1:] + cuts[:-1]) / 2
        at = jnp.sum(middle[:, None, None] > edges[None], axis=2)  # [outcomes, k]
        drawn = jnp.take_along_axis(jnp.concatenate([payoffs, jnp.zeros((k, 1))], axis=1)[None], at[:, :, None], axis=2)
        top = jnp.sort(drawn[:, :, 0], axis=1)[:, k - plays :]
        return jnp.sum((cuts[1:] - cuts[:-1]) * jnp.sum(top, axis=1))
    arms = np.arange(k)
    probability = jnp.prod(laws[arms[None], OUTCOMES], axis=1)
    top = jnp.sort(values[arms[None], OUTCOMES], axis=1)[:, k - plays :]
    return jnp.sum(probability * jnp.sum(top, axis=1))


@statement(
    "lsd/T4",
    "X_i >= 0 independent, sum P(X_i > 0) <= m: E of the m largest >= alpha(k, m) sum E X_i, m = 1, 2, 3",
    falsifiers=[
        Falsifier("the variables are independent (one uniform number for all)", {"together": True}, share=0.9),
        Falsifier("at most m are positive on average (2 m; m = 1, 2)", {"load": 2.0}, share=0.9, setting={"most": 2}),
    ],
    origin=derived_here("docs/proofs/lsd.md, T4", LSD),
    proof="docs/proofs/lsd.md#t4",
    generator=random_draws,
    cases=[{"k": 4, "n": 3}],
)
def max_lemma(instance, together=False, load=1.0, most=3):
    payoffs = instance.payoffs
    k = payoffs.shape[0]
    bounds = []
    for plays in range(1, most + 1):
        chance = jnp.minimum(load * instance.chance[plays - 1], 1.0)
        total = jnp.sum(payoffs * chance)
        best = largest_mean(payoffs, chance, plays, together)
        bounds.append(Bound(alpha(k, plays) * total, best, 2.0 * k, trivial=total))
        if not together:
            # the library's finite sum
            bounds.append(identity(top_mean(payoffs, chance, plays), best, 2.0 * k))
    return bounds


class Sizes(NamedTuple):
    """k, m: float[], whole numbers, m <= k."""

    k: Array
    m: Array


def random_sizes(key):
    """k up to 400, m up to k, small ones often."""
    k_key, m_key = jax.random.split(key)
    k = jnp.floor(jnp.exp(jax.random.uniform(k_key, minval=jnp.log(2.0), maxval=jnp.log(400.0))))
    return Sizes(k, jnp.maximum(jnp.floor(k ** jax.random.uniform(m_key)), 1.0))


@statement(
    "lsd/T4.alpha",
    "alpha(k, m) >= alpha(k + 1, m) >= 1 - m^m e^-m / m!, and alpha is the binomial sum; k <= 400",
    falsifiers=[Falsifier("arms ask independently (two by two)", {"pairs": True}, share=0.9)],
    origin=derived_here("docs/proofs/lsd.md, T4", LSD),
    proof="docs/proofs/lsd.md#t4",
    generator=random_sizes,
)
def alpha_values(instance, pairs=False, most=401):
    k, m = instance
    count = jnp.arange(most + 1.0)
    arms = jnp.floor(k / 2) if pairs else k
    chance = m / k
    log_law = (
        jax.scipy.special.gammaln(arms + 1)
        - jax.scipy.special.gammaln(count + 1)
        - jax.scipy.special.gammaln(jnp.maximum(arms - count, 0) + 1)
        + jax.scipy.special.xlogy(count, chance)
        + jax.scipy.special.xlog1py(jnp.maximum(arms - count, 0), -chance)
    )
    law = jnp.where(count <= arms, jnp.exp(log_law), 0.0)
    served = jnp.sum(law * jnp.minimum((2.0 if pairs else 1.0) * count, m)) / m
    # log-factorials of up to k log k lose that much of their last digits
    scale = 2.0 + k * jnp.log(k)
    return [
        identity(alpha(k, m), served, scale),
        Bound(alpha(k + 1, m), alpha(k, m), scale),
        Bound(poisson_alpha(m), alpha(k, m), scale),
    ]


# ---- T6: a plan whose arms collide ---------------------------------------------------------------------------------


@statement(
    "lsd/T6.value",
    "V_virt >= alpha(k, m) V, m = 1, 2: what the plan keeps when its arms collide, without any simulation",
    falsifiers=[
        Falsifier(
            "arms share m plays (each plans for itself)",
            {"shared": False},
            share=0.9,
            cases=[{"k": 6, "recovery": 2, "satiation": 2}],
        )
    ],
    origin=derived_here("docs/proofs/lsd.md, T6; the idea of rounding virtual states", LSD),
    proof="docs/proofs/lsd.md#t6",
    generator=monotone_instance,
    project=nearby,
    cases=[{"k": 4, "recovery": 4, "satiation": 2}],
)
def collisions(instance, shared=True):
    problem = instance.problem
    k = problem.num_arms
    bounds = []
    for plays in (1, 2):
        plan = relaxation(problem, plays if shared else k)
        value = virtual_value(problem, occupancy(problem, plan).play, plays)
        bounds.append(Bound(alpha(k, plays) * plan.value, value, 2.0 * k, trivial=plan.value))
    return bounds
