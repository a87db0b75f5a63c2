"""Occupancies, covering lengths and laws of returns of random exploration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.episodic import episodic, episodic_values, padded
from rlcore.mdp import discounted, sticky, tabular
from rlcore.sqirl import covering_length, exploration_occupancy, return_law


def test_covering_a_corridor():
    found = covering_length(episodic(make("corridor", length=10, horizon=20)))
    assert float(found.smallest) == pytest.approx(0.00739288, abs=5e-9)
    assert (int(found.pairs), float(found.episodes), float(found.steps)) == (20, 499.0, 9980.0)


def test_covering_key_corridor():
    key = padded(make("key_corridor"), states=160, steps=101)
    found = covering_length(key)
    assert float(found.smallest_state) == pytest.approx(2.17508e-6, abs=5e-12)
    assert float(found.smallest) == pytest.approx(3.62514e-7, abs=5e-13)
    assert int(found.pairs) == 156 * 6
    assert float(covering_length(key, rule="unsound_sum").smallest_state) == pytest.approx(2.90881e-5, abs=5e-11)
    with pytest.raises(ValueError, match=r"rule: found 'sum'"):
        covering_length(key, rule="sum")


def test_occupancy_pays_the_return_and_a_policy_without_support_never_covers():
    problem = sticky(make("riverswim", length=4, horizon=9), 0.3)
    one = episodic(problem)
    visits = exploration_occupancy(one)
    # No episode ends early, so every step has mass one.
    np.testing.assert_allclose(jnp.sum(visits, axis=(1, 2)), np.ones(9), rtol=1e-14)
    # The reward of a chosen action depends on time through stickiness: none at t = 0.
    earned = sum(float(jnp.sum(visits[t] * problem.at_time(t).expected_reward())) for t in range(9))
    assert earned == pytest.approx(float(problem.initial @ episodic_values(one, "mean").value[0]), rel=1e-13)
    left = jnp.zeros((8, 2)).at[:, 0].set(1.0)
    assert float(covering_length(one, left).episodes) == np.inf


@pytest.mark.parametrize("stick", [0.0, 0.25])
def test_a_law_of_returns_by_all_paths(stick):
    mdp = make("catch", rows=4, columns=3)
    problem = sticky(mdp, stick) if stick else mdp
    one = padded(problem, states=25, branches=4, steps=6)
    law = return_law(one, 0.5)
    start = one.problem.initial @ law.prob[0]
    assert law.low == 0 and start.shape == (3,)
    # A return of 0 or 1: its law is that of its mean.
    mean = float(one.problem.initial @ episodic_values(one, "mean").value[0])
    np.testing.assert_allclose(start, [1 - mean, 0, mean], rtol=0, atol=1e-14)


def test_a_law_of_returns_against_simulation_of_its_lattice():
    # Costs and gains: three steps of -1, 0 or +2, hand-counted from independent uniform choices.
    reward = np.array([[[-1.0], [0.0], [2.0]]])
    mdp = tabular(np.zeros((1, 3, 1), int), np.ones((1, 3, 1)), reward, horizon=3)
    law = return_law(episodic(mdp), 1.0)
    counts = {}
    for returns in np.stack(np.meshgrid(*[[-1, 0, 2]] * 3)).reshape(3, -1).sum(axis=0):
        counts[int(returns)] = counts.get(int(returns), 0) + 1
    found = {int(law.low + i * law.spacing): float(p) for i, p in enumerate(law.prob[0, 0]) if p > 0}
    assert found == pytest.approx({k: v / 27 for k, v in counts.items()}, abs=1e-15)
    np.testing.assert_allclose(jnp.mean(law.action_prob[0, 0], axis=0), law.prob[0, 0], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(law.prob[3, 0], jax.nn.one_hot(3, 10))


def test_bad_lattices():
    cliff = episodic(make("cliff"))
    with pytest.raises(ValueError, match=r"spacing: found 0.02 and reward -0.01"):
        return_law(cliff, 0.02)
    with pytest.raises(ValueError, match=r"max_atoms: found a lattice of \d+ atoms"):
        return_law(cliff, 0.01, max_atoms=100)
    with pytest.raises(ValueError, match=r"discount: found 0.5"):
        return_law(episodic(discounted(make("cliff"), 0.5)), 0.01)
    with pytest.raises(ValueError, match=r"spacing: found 0"):
        return_law(cliff, 0)
