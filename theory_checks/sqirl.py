"""The effective horizon, exact analysis: reachability (T1), ladder (T2, T3), stickiness (T10), covering (T11).

Notation: T steps, Q^k the ladder's rung k (Q^1 of random exploration, Q^{k+1} one more max-backup), V^k its maximum,
J_k the return of a greedy policy of Q^k with the worst tie-breaking, Opt the optimal actions, p the stickiness.
Proofs: docs/proofs/sqirl.md.
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, derived_here, identity, statement
from rlcore.episodic import Episodic, episodic, episodic_values
from rlcore.mdp import MDP, StickyMDP, policy_backup
from rlcore.sqirl import (
    basic_values,
    best_value,
    covering_length,
    greedy_return,
    immediate_values,
    num_reachable,
    optimal_actions,
    qvi_step,
    reachable,
    solvable,
)
from rlcore.types import Array

SQIRL = "laidlaw2024"
BRIDGE = "laidlaw2023"


def problem_of(next_state, prob, reward, terminal, horizon):
    """An undiscounted MDP from arrays that may be traced; state 0 starts, every action is available."""
    num_states, num_actions, _ = prob.shape
    return MDP(
        next_state=next_state.astype(jnp.int32),
        prob=prob,
        reward=reward,
        terminal=terminal,
        available=jnp.ones((num_states, num_actions), bool),
        discount=jnp.ones(()),
        initial=jnp.zeros(num_states).at[0].set(1.0),
        horizon=horizon,
    )


# ---- T1: the reachability test ---------------------------------------------------------------------------------------


class Tiny(NamedTuple):
    """A problem whose values are sums of few powers of two: ties are exact, and so is all arithmetic."""

    problem: MDP


def dyadic_instance(key, states, steps):
    """Two actions, two outcomes of probabilities in quarters, rewards of 0, 1/4 or 1/2: many ties."""
    keys = jax.random.split(key, 4)
    shape = (states, 2, 2)
    first = jax.random.randint(keys[0], shape[:2], 1, 5) / 4
    return Tiny(
        problem_of(
            jax.random.randint(keys[1], shape, 0, states),
            jnp.stack([first, 1 - first], axis=-1),
            jax.random.randint(keys[2], shape, 0, 3) / 4,
            jax.random.bernoulli(keys[3], 0.25, shape),
            steps,
        )
    )


def tied_trap(key, states, steps):
    """Both first actions are worth the same to random exploration; only the first of them can be made more of."""
    low, high = jax.random.randint(key, (2,), 0, 4) / 8
    reward = jnp.zeros((states, 2, 2))
    reward = reward.at[1, 0].set(1.0 - low).at[1, 1].set(low).at[2].set(0.5).at[3:].set(high)
    next_state = jnp.zeros((states, 2, 2), int).at[0, 0].set(1).at[0, 1].set(2)
    terminal = jnp.ones((states, 2, 2), bool).at[0].set(False)
    return Tiny(problem_of(next_state, jnp.full((states, 2, 2), 0.5), reward, terminal, steps))


@statement(
    "sqirl/T1",
    "The reachability test of rung k says whether J_k = J*; J_k is the least return of all its greedy policies",
    falsifiers=[
        Falsifier(
            "greedy means every action that ties (the first alone)", {"ties": False}, share=0.9, generator=tied_trap
        )
    ],
    origin=derived_here("docs/proofs/sqirl.md, T1; the test's meaning is that of the released code", BRIDGE),
    proof="docs/proofs/sqirl.md#t1",
    generator=dyadic_instance,
    cases=[{"states": 3, "steps": 3}],
)
def reachability(instance, ties=True):
    one = episodic(instance.problem)
    states, steps = instance.problem.initial.shape[0], instance.problem.horizon
    policies = jnp.asarray(list(itertools.product((0, 1), repeat=states * steps)), jnp.int32)
    policies = policies.reshape(-1, steps, states)
    one_hot = jax.nn.one_hot(policies, 2)
    returns = jax.vmap(lambda policy: one.problem.initial @ episodic_values(one, policy).value[0])(one_hot)
    values = basic_values(one)
    optimal = optimal_actions(values.optimal.q, one.problem.available[None], 1e-9)
    best = jnp.max(returns)

    def rung(q, _):
        greedy = q >= jnp.max(q, axis=-1, keepdims=True)
        belongs = jnp.all(jnp.take_along_axis(greedy[None], policies[..., None], axis=-1), axis=(1, 2, 3))
        least = jnp.min(jnp.where(belongs, returns, jnp.inf))
        most = jnp.max(jnp.where(belongs, returns, -jnp.inf))
        seen = q if ties else q + jax.nn.one_hot(jnp.argmax(q, axis=-1), 2)
        earned = greedy_return(one, seen, 0.0)
        verdict = solvable(one, seen, optimal, 0.0).astype(float)
        ours = jnp.stack([verdict, earned.worst, earned.best])
        return qvi_step(one, q), (ours, jnp.stack([(least >= best - 1e-9).astype(float), least, most]))

    _, (ours, enumerated) = jax.lax.scan(rung, values.exploration.q, None, length=steps)
    return identity(ours, enumerated, 1.0)


# ---- T2, T3: the ladder ----------------------------------------------------------------------------------------------


class Game(NamedTuple):
    """A problem, sticky or not, and noise float[T,S,A] for a ladder that starts elsewhere."""

    problem: StickyMDP
    noise: Array


def random_game(key, states, actions, steps):
    """Two outcomes a pair, one in ten of which ends the episode; normal rewards; stickiness 0 for half of them."""
    keys = jax.random.split(key, 6)
    shape = (states, actions, 2)
    first = jax.random.uniform(keys[0], shape[:2])
    problem = problem_of(
        jax.random.randint(keys[1], shape, 0, states),
        jnp.stack([first, 1 - first], axis=-1),
        jax.random.normal(keys[2], shape),
        jax.random.bernoulli(keys[3], 0.1, shape),
        steps,
    )
    stick = jnp.where(jax.random.bernoulli(keys[4]), 0.5 * jax.random.uniform(keys[4]), 0.0)
    noise = jax.random.normal(keys[5], (steps, states * actions, actions))
    return Game(StickyMDP(problem, stick), noise)


def costly_game(key, states, actions, steps):
    """Every reward is a cost."""
    game = random_game(key, states, actions, steps)
    base = game.problem.base
    base = dataclasses.replace(base, reward=-1.0 - jnp.abs(base.reward))
    return Game(StickyMDP(base, game.problem.probability), game.noise)


def size_of(problem):
    """The sum of the absolute rewards of an episode at most, times the sums that rounding enters."""
    return problem.horizon**2 * jnp.max(jnp.abs(problem.base.reward))


def rungs(game, start):
    """The ladder Q^1 .. Q^T, float[T,T,SA,A], with exploration's values and the others."""
    one = episodic(game.problem)
    values = basic_values(one)
    first = {
        "exploration": values.exploration.q,
        "rewards": immediate_values(one),
        "noisy optimum": values.optimal.q + game.noise,
    }[start]
    climb = lambda q, _: (qvi_step(one, q), q)  # noqa: E731
    return one, values, jax.lax.scan(climb, first, None, length=game.problem.horizon)[1]


GAMES = [{"states": 3, "actions": 2, "steps": 5}, {"states": 5, "actions": 3, "steps": 7}]


@statement(
    "sqirl/T2",
    "Q^k <= Q^{k+1} <= Q*, and Q^T = Q*, so that some k <= T is solvable",
    falsifiers=[
        Falsifier(
            "the ladder starts from a policy's values (from immediate rewards)",
            {"start": "rewards"},
            share=0.9,
            generator=costly_game,
        ),
        Falsifier(
            "the ladder starts from a policy's values (from Q* and noise)", {"start": "noisy optimum"}, share=0.9
        ),
    ],
    origin=derived_here("docs/proofs/sqirl.md, T2", BRIDGE),
    proof="docs/proofs/sqirl.md#t2",
    generator=random_game,
    cases=GAMES,
)
def ladder(instance, start="exploration"):
    _, values, ladder = rungs(instance, start)
    scale = size_of(instance.problem)
    return [
        Bound(ladder[:-1], ladder[1:], scale),
        Bound(ladder, values.optimal.q[None], scale),
        identity(ladder[-1], values.optimal.q, scale),
    ]


@statement(
    "sqirl/T3",
    "J_k >= V^k >= V^{k-1} >= J_random at the start: V^k certifies what greedy policies of rung k earn",
    falsifiers=[
        Falsifier(
            "the ladder starts from a policy's values (from immediate rewards, which are costs)",
            {"start": "rewards"},
            share=0.9,
            generator=costly_game,
        )
    ],
    origin=derived_here("docs/proofs/sqirl.md, T3", BRIDGE),
    proof="docs/proofs/sqirl.md#t3",
    generator=random_game,
    cases=GAMES,
)
def certificate(instance, start="exploration"):
    one, values, ladder = rungs(instance, start)
    initial = one.problem.initial
    certified = jax.vmap(lambda q: initial @ best_value(one, q)[0])(ladder)
    earned = jax.vmap(lambda q: greedy_return(one, q, 0.0).worst)(ladder)
    random = initial @ values.exploration.value[0]
    scale = size_of(instance.problem)
    return [
        Bound(certified, earned, scale),
        Bound(jnp.concatenate([random[None], certified[:-1]]), certified, scale),
    ]


# ---- T10: stickiness -------------------------------------------------------------------------------------------------


def always_sticky(key, states, actions, steps):
    """A random game of stickiness between .1 and .6."""
    game = random_game(key, states, actions, steps)
    return game._replace(problem=StickyMDP(game.problem.base, 0.1 + 0.5 * jax.random.uniform(key)))


def lifted(problem: StickyMDP, stores="executed", first_sticks=False):
    """The explicit problem over (state, action before): 2 B outcomes a pair, a kernel per step."""
    base, stick = problem.base, problem.probability
    states, actions, outcomes = base.prob.shape
    before = jnp.arange(actions, dtype=jnp.int32)

    def part(executed_before, weight, stored):
        """Outcomes of (s, b), a: the base's of b or a, with weight, storing b or a as the action before."""
        take = lambda x: jnp.broadcast_to(  # noqa: E731
            x[:, :, None] if executed_before else x[:, None], (states, actions, actions, outcomes)
        )
        kept = before[None, :, None, None] if stored == "before" else before[None, None, :, None]
        return take(base.next_state) * actions + kept, weight * take(base.prob), take(base.reward), take(base.terminal)

    def kernel(t):
        weight = jnp.where((t > 0) | first_sticks, stick, 0.0)
        repeated = part(True, weight, "before" if stores == "executed" else "chosen")
        parts = zip(part(False, 1 - weight, "chosen"), repeated, strict=True)
        flat = (states * actions, actions, 2 * outcomes)
        return [jnp.concatenate(both, axis=-1).reshape(flat) for both in parts]

    next_state, prob, reward, terminal = jax.vmap(kernel)(jnp.arange(base.horizon))
    return MDP(
        next_state.astype(jnp.int32),
        prob,
        reward,
        terminal,
        problem.available,
        problem.discount,
        problem.initial,
        base.horizon,
    )


@statement(
    "sqirl/T10",
    "Values and reachable states of the implicit sticky problem are those of the explicit one over (s, action before)",
    falsifiers=[
        Falsifier("the first step is never sticky (it is)", {"first_sticks": True}, share=0.9),
        Falsifier("the executed action is kept (the chosen one)", {"stores": "chosen"}, share=0.9),
    ],
    origin=derived_here("docs/proofs/sqirl.md, T10; stickiness as in the released code", SQIRL),
    proof="docs/proofs/sqirl.md#t10",
    generator=always_sticky,
    cases=GAMES[1:],
)
def sticky_lift(instance, stores="executed", first_sticks=False):
    implicit = episodic(instance.problem)
    explicit = episodic(lifted(instance.problem, stores, first_sticks))
    scale = size_of(instance.problem)
    bounds = [
        identity(episodic_values(implicit, word).value, episodic_values(explicit, word).value, scale)
        for word in ("max", "mean")
    ]
    counts = jnp.stack([num_reachable(implicit), num_reachable(explicit)]).astype(float)
    return [*bounds, identity(counts[0], counts[1], counts[0])]


# ---- T11: covering ---------------------------------------------------------------------------------------------------


class Maze(NamedTuple):
    """A problem of 4 states and 2 actions."""

    problem: MDP


def maze_instance(key, steps):
    """Deterministic moves of 4 states, one in five of which ends the episode."""
    keys = jax.random.split(key, 2)
    next_state = jax.random.randint(keys[0], (4, 2, 1), 0, 4)
    terminal = jax.random.bernoulli(keys[1], 0.2, (4, 2, 1))
    return Maze(problem_of(next_state, jnp.ones((4, 2, 1)), jnp.zeros((4, 2, 1)), terminal, steps))


def rare_room(key, steps):
    """From the start, one step in 15 to 30 leads to state 1 for ever, else to state 2 for ever."""
    rare = 1 / (15 + 15 * jax.random.uniform(key))
    next_state = jnp.array([[1, 2], [1, 1], [2, 2], [3, 3]])[:, None].repeat(2, axis=1)
    prob = jnp.full((4, 2, 2), 0.5).at[0].set(jnp.stack([rare, 1 - rare]))
    return Maze(problem_of(next_state, prob, jnp.zeros((4, 2, 2)), jnp.zeros((4, 2, 2), bool), steps))


def chance_to_miss(one: Episodic, episodes):
    """P(some reachable pair is not visited in so many episodes), exactly, by inclusion and exclusion over 8 pairs."""
    pairs = np.array(list(itertools.product((False, True), repeat=8))).reshape(-1, 4, 2)
    everything = jnp.ones((one.problem.horizon, 4, 2), bool)
    can = jnp.any(reachable(one, everything), axis=0)[:, None] & jnp.ones((4, 2), bool)

    def avoid(chosen):
        """P(an episode visits none of the chosen pairs)."""

        def back(value, t):
            now = one.problem.at_time(t)
            ends = 1 - now.expected_next(jnp.ones(4))
            q = jnp.where(chosen, 0.0, ends + now.expected_next(value))
            return policy_backup(q, jnp.full((4, 2), 0.5)), None

        steps = jnp.arange(one.problem.horizon, dtype=jnp.int32)
        return one.problem.initial @ jax.lax.scan(back, jnp.ones(4), steps, reverse=True)[0]

    pairs = jnp.asarray(pairs)
    real = jnp.all(~pairs | can[None], axis=(1, 2))
    sign = 1.0 - 2.0 * (jnp.sum(pairs, axis=(1, 2)) % 2)
    powers = jax.vmap(avoid)(pairs) ** episodes
    return 1 - jnp.sum(jnp.where(real, sign * powers, 0.0))


@statement(
    "sqirl/T11",
    "After ceil(ln(2 n) / p_min) random episodes, n pairs, all are visited with probability >= 1/2",
    falsifiers=[
        Falsifier(
            "p_min is a probability (the sum of the occupancies over time)",
            {"rule": "unsound_sum"},
            share=0.9,
            generator=rare_room,
            cases=[{"steps": 48}],
        ),
        Falsifier(
            "p_min is the smallest over pairs (the mean)",
            {"rule": "mean"},
            share=0.9,
            generator=rare_room,
            cases=[{"steps": 3}],
        ),
    ],
    origin=derived_here("docs/proofs/sqirl.md, T11; the count, with both rules, is in the released code", BRIDGE),
    proof="docs/proofs/sqirl.md#t11",
    generator=maze_instance,
    cases=[{"steps": 4}, {"steps": 8}],
)
def covering(instance, rule="max"):
    one = episodic(instance.problem)
    found = covering_length(one, rule="max" if rule == "mean" else rule)
    episodes = found.episodes
    if rule == "mean":
        # Two pairs at the start, two in each room: occupancies 1/2, rare / 2, (1 - rare) / 2, the mean 1/3.
        episodes = jnp.ceil(jnp.log(2.0 * found.pairs) * 3)
    # 256 terms of at most 1, and a power of up to some thousand episodes.
    error = 4 * episodes * jnp.finfo(episodes.dtype).eps
    return Bound(chance_to_miss(one, episodes), 0.5, 256.0, error, trivial=1.0)
