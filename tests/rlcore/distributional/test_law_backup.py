"""The distributional backup against a scattering projection, mixtures of policies, and the atoms that lose nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import (
    Categorical,
    Law,
    fitting_grid,
    fitting_lattice,
    from_stop_loss,
    lattice,
    project_categorical,
    stock_grid,
    to_stop_loss,
)
from rlcore.distributional.law_backup import law_backup, mixtures
from rlcore.distributional.representations import mixture_law
from rlcore.mdp import tabular
from tests.rlcore.distributional.problems import random_problem


@pytest.mark.parametrize("rounding", ["exact", "nearest", "floor", "ceil", "linear"])
def test_the_gathering_backup_is_the_scattering_projection(rounding):
    problem = random_problem(3, discount=0.5 if rounding == "exact" else 0.9, states=4, actions=3, outcomes=3, ends=0.2)
    grid = stock_grid(-6, 6, 1 if rounding == "exact" else 0.7, rounding=rounding)
    # too narrow on purpose: mass leaves it on both sides
    representation = Categorical(lattice(-5, 5, 0.4))
    rng = np.random.default_rng(0)
    choice = jnp.asarray(rng.integers(0, 3, (4, grid.lattice.size + 2)), jnp.int32)
    pmf = jnp.asarray(rng.dirichlet(np.ones(representation.size), choice.shape))

    @jax.jit
    def both(curve, pmf):
        gathered = law_backup(problem, grid, representation, curve, choice)
        kept = to_stop_loss(representation.points, pmf).reshape(-1, representation.size)
        law = mixture_law(representation, kept, mixtures(problem, grid, choice), problem.discount)
        project = jax.vmap(jax.vmap(lambda *law: project_categorical(Law(*law), representation.points)))
        return gathered, project(*law)

    curve = to_stop_loss(representation.points, pmf)
    for _ in range(6):
        curve, pmf = both(curve, pmf)
        assert np.all(curve[..., 0] == 0)
    np.testing.assert_allclose(from_stop_loss(representation.points, curve), pmf, atol=1e-11)


def test_weights_of_actions_mix_their_laws():
    problem = random_problem(4, discount=0.9)
    grid = stock_grid(-6, 6, 0.5, rounding="linear")
    representation = Categorical(lattice(-20, 20, 0.5))
    pmf = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(representation.size), (3, grid.lattice.size + 2)))
    curve = to_stop_loss(representation.points, pmf)
    backup = jax.jit(functools.partial(law_backup, problem, grid, representation, curve))
    pure = [backup(jnp.full(curve.shape[:2], a, jnp.int32)) for a in range(2)]
    mixed = backup(jnp.broadcast_to(jnp.array([0.25, 0.75]), (*curve.shape[:2], 2)))
    np.testing.assert_allclose(mixed, 0.25 * pure[0] + 0.75 * pure[1], atol=1e-12)


def test_a_fitting_lattice_covers_every_partial_return():
    costs = tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[-3.0, -1.0]]], terminal=np.array([[[True, False]]]), horizon=4)
    points = fitting_lattice(costs, fitting_grid(costs))
    # no return, or three of -1 and the last of -3; and minus every stock
    assert (float(points.low), float(points.high)) == (-6.0, 0.0)
    rewards = tabular([[[0]]], [[[1.0]]], [[[1.0]]], discount=0.5)
    # after one step 1, at the end 2
    assert float(fitting_lattice(rewards, stock_grid(-2, 0, 1)).high) == 2.0
    endless = tabular([[[0, 0]]], [[[0.5, 0.5]]], [[[-3.0, -1.0]]], terminal=np.array([[[True, False]]]))
    with pytest.raises(ValueError, match="problem: found returns without a bound"):
        fitting_lattice(endless, stock_grid(0, 9, 1))
    with pytest.raises(ValueError, match="refine: found 0"):
        fitting_lattice(costs, fitting_grid(costs), refine=0)
    with pytest.raises(ValueError, match="grid: found coordinates 'discounted'"):
        fitting_lattice(costs, stock_grid(-6, 6, 1, coordinates="discounted"))
