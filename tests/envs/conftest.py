"""Backward induction in NumPy, written from the definition: the algorithm that the library's is compared with."""

import numpy as np
import pytest


def value_from_the_start(mdp, stickiness, horizon, aggregate) -> float:
    next_state, prob, reward, terminal = (np.asarray(x) for x in (mdp.next_state, mdp.prob, mdp.reward, mdp.terminal))
    num_states, num_actions, _ = prob.shape
    executed = np.arange(num_actions)[None, :, None]
    value = np.zeros((num_states, num_actions))  # by state and action executed before
    for t in reversed(range(mdp.horizon if horizon is None else horizon)):
        fresh = np.sum(prob * (reward + np.where(terminal, 0.0, value[next_state, executed])), axis=-1)
        p = stickiness if t > 0 else 0.0
        value = aggregate((1 - p) * fresh[:, None, :] + p * fresh[:, :, None])
    return float(np.asarray(mdp.initial) @ value[:, 0])


@pytest.fixture
def optimal_value():
    """`optimal_value(mdp, stickiness=0, horizon=None)`: the optimal return from the start."""
    return lambda mdp, p=0.0, horizon=None: value_from_the_start(mdp, p, horizon, lambda q: q.max(axis=-1))


@pytest.fixture
def random_value():
    """`random_value(mdp, stickiness=0, horizon=None)`: the return of the uniform policy from the start."""
    return lambda mdp, p=0.0, horizon=None: value_from_the_start(mdp, p, horizon, lambda q: q.mean(axis=-1))
