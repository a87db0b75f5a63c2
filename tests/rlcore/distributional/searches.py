"""Random trees for searches over the start, and the truth about them by enumeration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional import Law
from rlcore.distributional.brute_force import brute_force_laws
from rlcore.mdp import MDP
from tests.rlcore.distributional.problems import random_problem

HORIZON = 3


def tree(seed, discount=1.0) -> MDP:
    """Three steps from state 0, two actions, two outcomes, rewards in {-2, ..., 2}; a tenth of the outcomes end."""
    return random_problem(seed, discount=discount, horizon=HORIZON, ends=0.1)


def stacked(problems) -> MDP:
    return jax.tree.map(lambda *x: jnp.stack(x), *problems)


def of_all_laws(problem: MDP, functional) -> np.ndarray:
    """A functional of the law of every deterministic policy of the history."""
    laws = brute_force_laws(problem, jnp.asarray(0))
    return np.asarray(jax.vmap(lambda values, probs: functional(Law(values, probs)))(laws.values, laws.probs))


def moved(problem: MDP, *, scale=1.0, shift=0.0) -> MDP:
    """Every reward scaled, then shifted."""
    return dataclasses.replace(problem, reward=problem.reward * scale + shift)
