"""Enumerated laws: the best mean, unavailable actions and ends, kernels that change with time, long horizons."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import Law, merge
from rlcore.distributional.brute_force import brute_force_laws, distinct_laws
from rlcore.mdp import tabular
from rlcore.planning import backward_induction
from tests.rlcore.distributional.problems import random_problem, return_laws

# Probabilities are products of three rounded numbers, values sums of three.
ROUNDING = 1e-14


def keys(laws, digits=9):
    """Laws as a set that can be compared: atoms and weights rounded, equal atoms merged."""
    found = set()
    for values, probs in laws:
        law = merge(Law(jnp.asarray(values), jnp.asarray(probs)), digits=digits)
        pair = (np.round(np.asarray(x), digits) + 0.0 for x in law)
        found.add(tuple(tuple(x.tolist()) for x in pair))
    return found


def allowed_laws(found):
    return [(v, p) for v, p, fine in zip(*map(np.asarray, found), strict=True) if fine]


def test_the_best_mean_is_that_of_backward_induction():
    for seed in range(5):
        problem = random_problem(seed, discount=0.9, horizon=3, ends=0.1)
        laws = brute_force_laws(problem, jnp.asarray(2))
        best = float(jnp.max(jnp.sum(laws.values * laws.probs, axis=1)))
        assert best == pytest.approx(float(backward_induction(problem).value[0, 2]), abs=ROUNDING)


def test_unavailable_actions_and_the_ends_of_episodes():
    # state 0: stop for 1, or walk for 0 to state 1, where only action 0 is available: 5, and the end
    problem = tabular(
        [[[0], [1]], [[0], [0]]],
        np.ones((2, 2, 1)),
        np.array([[[1.0], [0.0]], [[5.0], [100.0]]]),
        terminal=np.array([[[True], [False]], [[True], [True]]]),
        available=[[True, True], [True, False]],
    )
    expected = {((1.0,), (1.0,)), ((5.0,), (1.0,))}
    assert keys(allowed_laws(brute_force_laws(problem, jnp.asarray(0), num_steps=3))) == expected
    assert keys(distinct_laws(problem, 0, num_steps=3)) == expected


def test_kernels_that_change_with_time():
    first, second = (random_problem(seed, discount=0.5, horizon=1) for seed in (0, 1))
    kernel = {
        name: np.stack([getattr(first, name), getattr(second, name)]) for name in ("next_state", "prob", "reward")
    }
    problem = tabular(**kernel, discount=0.5, horizon=2)
    expected = []
    for action in range(2):
        after = [return_laws(second, int(s), 1) for s in first.next_state[0, action]]
        for one in after[0]:
            for other in after[1]:
                parts = zip(first.reward[0, action], first.prob[0, action], (one, other), strict=True)
                moved = [(float(r) + 0.5 * v, float(q) * p) for r, q, (v, p) in parts]
                expected.append(tuple(np.concatenate(x) for x in zip(*moved, strict=True)))
    assert keys(allowed_laws(brute_force_laws(problem, jnp.asarray(0)))) == keys(expected)
    assert keys(distinct_laws(problem, 0)) == keys(expected)


def test_a_longer_horizon_on_the_host():
    # equal rewards everywhere: one law, however many policies (2^(2^6) of them)
    problem = random_problem(0, discount=1.0, horizon=6)
    problem = dataclasses.replace(problem, reward=jnp.full_like(problem.reward, 0.5))
    (law,) = distinct_laws(problem, 0)
    assert np.asarray(law.values).tolist() == [3.0] and float(law.probs[0]) == pytest.approx(1, abs=ROUNDING)


def test_what_is_refused():
    problem = random_problem(0, discount=1.0)
    for enumerate_laws in (brute_force_laws, distinct_laws):
        with pytest.raises(ValueError, match="num_steps: found None without a horizon"):
            enumerate_laws(problem, 0)
        with pytest.raises(ValueError, match="num_steps: found 3 with horizon 2"):
            enumerate_laws(dataclasses.replace(problem, horizon=2), 0, num_steps=3)
    with pytest.raises(ValueError, match=r"problem: found \d+ atoms of laws of 5 steps"):
        brute_force_laws(problem, 0, num_steps=5)
