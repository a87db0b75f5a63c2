"""The enumeration of policies against an independent one, and counts known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import Law, brute_force_laws, cvar, distinct_laws, variance
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem, return_laws


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_three_enumerations_agree(discount):
    problems = [random_problem(seed, discount=discount, horizon=3, ends=0.2) for seed in range(6)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    found = jax.vmap(lambda problem: brute_force_laws(problem, 1))(batch)
    assert found.values.shape == (6, 128, 8) and bool(found.allowed.all())
    for functional in (lambda law: cvar(law, 0.3), variance):
        batched = jax.jit(jax.vmap(jax.vmap(lambda v, p: functional(Law(v, p)))))(found.values, found.probs)
        for row, problem in zip(batched, problems, strict=True):
            slow = [float(functional(Law(*map(jnp.asarray, law)))) for law in return_laws(problem, 1, 3)]
            merged = [float(functional(law)) for law in distinct_laws(problem, 1)]
            # sums of eight products
            for ends in (np.min, np.max):
                assert abs(ends(row) - ends(slow)) < 1e-12 and abs(ends(merged) - ends(slow)) < 1e-10


def test_laws_are_laws_and_ends_end():
    stop = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[1.0], [2.0]]], terminal=[[[True], [False]]])
    found = brute_force_laws(stop, 0, num_steps=3)
    assert sorted(np.unique(found.values)) == [1.0, 3.0, 5.0, 6.0]
    assert bool((found.probs.sum(axis=1) == 1).all())
    assert sorted(float(law.values[0]) for law in distinct_laws(stop, 0, num_steps=3)) == [1.0, 3.0, 5.0, 6.0]


def test_policies_of_unavailable_actions_are_marked():
    two = tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[1.0], [2.0]]], available=[[True, False]], horizon=3)
    found = brute_force_laws(two, 0)
    assert found.allowed.sum() == 1 and float(found.values[found.allowed][0, 0]) == 3.0
    assert [float(law.values[0]) for law in distinct_laws(two, 0)] == [3.0]


def test_kernels_that_change_with_time():
    reward = np.arange(3.0).reshape(3, 1, 1, 1)
    problem = tabular(np.zeros((3, 1, 1, 1), int), np.ones((3, 1, 1, 1)), 10.0**reward, horizon=3, discount=0.5)
    assert float(brute_force_laws(problem, 0).values[0, 0]) == 1 + 5 + 25
    assert float(distinct_laws(problem, 0)[0].values[0]) == 1 + 5 + 25


def test_bad_input_is_named():
    problem = random_problem(0, discount=0.5)
    with pytest.raises(ValueError, match="num_steps: found None without a horizon"):
        brute_force_laws(problem, 0)
    with pytest.raises(ValueError, match="expected at most 16777216"):
        brute_force_laws(problem, 0, num_steps=5)
    with pytest.raises(ValueError, match=r"state: found -1, expected a number in 0, \.\.\., 2"):
        brute_force_laws(problem, -1, num_steps=1)
