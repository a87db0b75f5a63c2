"""Random problems, and the slow and obvious ways to solve them that every solver is held against."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.mdp import function_mdp, tabular


def make_problem(seed, shape=(6, 3, 2), discount=0.9, ends=0.0, masked=False, dtype=np.float64, **kwargs):
    """A random outcome list: some outcomes end the episode, some actions are unavailable."""
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(dtype)
    available = rng.random(shape[-3:-1]) < 0.6 if masked else np.ones(shape[-3:-1], bool)
    available[:, 0] = True
    return tabular(
        rng.integers(0, shape[-3], shape),
        prob / prob.sum(-1, keepdims=True),
        rng.normal(size=shape).astype(dtype),
        terminal=rng.random(shape) < ends,
        available=available,
        discount=discount,
        initial=np.full(shape[-3], 1 / shape[-3]),
        **kwargs,
    )


def as_float64(mdp):
    """The problem as stored, in NumPy float64: (P[S,A,S], r[S,A], discount); exact even for a float32 problem."""
    prob, reward = np.asarray(mdp.prob, np.float64), np.asarray(mdp.reward, np.float64)
    live = np.where(np.asarray(mdp.terminal), 0, prob)
    transition = np.zeros((*prob.shape[:2], prob.shape[0]))
    s, a, _ = np.indices(prob.shape)
    np.add.at(transition, (s, a, np.asarray(mdp.next_state)), live)
    return transition, (prob * reward).sum(-1), float(mdp.discount)


def value_of(mdp, actions):
    """Value of a deterministic policy by a float64 solve."""
    transition, reward, discount = as_float64(mdp)
    rows = np.arange(len(actions)), np.asarray(actions)
    return np.linalg.solve(np.eye(len(actions)) - discount * transition[rows], reward[rows])


def brute_force(mdp):
    """Optimal value: the maximum over every deterministic policy."""
    choices = [np.flatnonzero(row) for row in np.asarray(mdp.available)]
    return np.max([value_of(mdp, actions) for actions in itertools.product(*choices)], axis=0)


def exact_optimum(mdp):
    """Optimal value by textbook policy iteration in NumPy float64."""
    transition, reward, discount = as_float64(mdp)
    mask = np.where(np.asarray(mdp.available), 0, -np.inf)
    value = np.full(len(reward), -np.inf)
    actions = np.argmax(reward + mask, axis=1)
    for _ in range(100):
        new = value_of(mdp, actions)
        if np.all(new <= value + 1e-12 * np.abs(new).max()):
            return np.maximum(new, value)
        value, q = new, reward + discount * transition @ new + mask
        better = q.max(1) > q[np.arange(len(actions)), actions] + 1e-13 * np.abs(q).max(where=np.isfinite(q), initial=1)
        actions = np.where(better, q.argmax(1), actions)
    raise AssertionError("policy iteration did not settle")


def as_function(mdp):
    def outcomes(next_state, prob, reward, terminal, s, a):
        return next_state[s, a], prob[s, a], reward[s, a], terminal[s, a]

    bound = jax.tree_util.Partial(outcomes, mdp.next_state, mdp.prob, mdp.reward, mdp.terminal)
    return function_mdp(
        bound,
        *mdp.available.shape,
        available=mdp.available,
        discount=mdp.discount,
        initial=mdp.initial,
        horizon=mdp.horizon,
    )


def stack(problems):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)


@pytest.fixture(scope="session")
def oracle():
    """The functions above, as one namespace (test folders are not packages)."""
    from types import SimpleNamespace

    names = (make_problem, as_float64, value_of, brute_force, exact_optimum, as_function, stack)
    return SimpleNamespace(**{f.__name__: f for f in names})
