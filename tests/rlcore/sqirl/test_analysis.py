"""`analyze` and `epsilon_horizon`: fields, tolerances, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.mdp import sticky, tabular
from rlcore.sqirl import analyze, effective_horizons, epsilon_horizon


@pytest.fixture(scope="module")
def lock():
    return make("combination_lock", length=3, actions=4, distractor=0.5)


def test_every_field_on_a_lock(lock):
    found = analyze(lock)
    assert (float(found.optimal_return), float(found.worst_return)) == (1.0, 0.0)
    assert float(found.random_return) == 0.140625
    assert [int(x) for x in (found.min_k, found.solvable_k, found.window, found.k95)] == [3, 3, 3, 3]
    # Rung k sees 1 at the end with probability 4^-(3 - k), or the distractor at once.
    np.testing.assert_array_equal(found.certificates, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(found.returns_by_k, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(found.best_returns_by_k, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(found.gaps_by_k, [0.0, 0.0, 0.5])
    # 3 + log_4(1 / (1/2)^2) = 4.
    assert float(found.effective_horizon) == pytest.approx(4.0, abs=1e-12)
    assert bool(found.horizon_exact)
    assert int(analyze(lock, max_k=2).min_k) == 3 and not bool(analyze(lock, max_k=2).horizon_exact)


def test_what_is_sticky_may_come_either_way(lock):
    one, other = analyze(lock, 0.25), analyze(sticky(lock, 0.25))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), one, other))
    assert float(one.optimal_return) == 0.75


def test_exploration_is_the_first_rung(lock):
    optimal = jnp.zeros((3, 4)).at[0, 1].set(1.0).at[1:, 0].set(1.0)
    found = analyze(lock, exploration=optimal)
    assert (int(found.min_k), float(found.random_return)) == (1, 1.0)
    by_time = analyze(lock, exploration=jnp.broadcast_to(optimal, (3, 3, 4)))
    assert float(by_time.random_return) == 1.0


def test_scaling_rewards_scales_returns_and_leaves_k(lock):
    scaled = dataclasses.replace(lock, reward=1024 * lock.reward)
    one, other = analyze(lock, relative_tol=True), analyze(scaled, relative_tol=True)
    assert [int(one.min_k), int(one.window), int(one.k95)] == [int(other.min_k), int(other.window), int(other.k95)]
    np.testing.assert_array_equal(1024 * one.returns_by_k, other.returns_by_k)
    # Gaps are in units of max(1, J*), so that from a return of 1 upwards the horizon does not change.
    np.testing.assert_array_equal(one.horizons_by_k, other.horizons_by_k)
    # An absolute tolerance depends on the scale: losses of half a unit of 1e-5 are none.
    small = dataclasses.replace(lock, reward=1e-5 * lock.reward)
    assert int(analyze(small).min_k) == 1 and int(analyze(small, relative_tol=True).min_k) == 3


def test_released_code_compares_ties_exactly():
    # 0.1 + 0.2 and 0.3 tie up to rounding; exactly compared the larger one, which is optimal, is chosen.
    # Actions at 0: to state 1 (0.1 + 0.2 on the way), or 0.3 at once; rung 2 adds 0.6 after the first only in state 1.
    next_state = np.array([[[1], [0]], [[1], [1]]])
    reward = np.array([[[0.1 + 0.2], [0.3]], [[0.6], [-0.6]]])
    terminal = np.array([[[False], [True]], [[True], [True]]])
    mdp = tabular(next_state, np.ones((2, 2, 1)), reward, terminal=terminal, horizon=2)
    assert int(analyze(mdp).min_k) == 2
    assert int(analyze(mdp, official=True).min_k) == 1


def test_the_horizon_of_some_gaps():
    found = effective_horizons(jnp.asarray([0.0, 0.25, 1.0, jnp.inf, 2.0]), jnp.int32(2), jnp.asarray(2.0))
    np.testing.assert_allclose(found, [np.inf, 2 + 6, 3 + 2, 4, 5], rtol=1e-15)
    assert float(effective_horizons(jnp.asarray([jnp.inf]), jnp.int32(1), jnp.asarray(1.0))[0]) == 1


def test_up_to_epsilon_starts_at_the_effective_horizon_and_falls():
    lake = make("frozen_lake", size=4, slippery=False)
    exact = analyze(lake, 0.25, max_k=6)
    found = [epsilon_horizon(lake, epsilon, 0.25, max_k=6) for epsilon in (0.0, 0.05, 0.5, 1.0)]
    np.testing.assert_array_equal(found[0].gaps_by_k, exact.gaps_by_k)
    assert float(found[0].effective_horizon) == float(exact.effective_horizon)
    horizons = [float(f.effective_horizon) for f in found]
    assert horizons == sorted(horizons, reverse=True) and horizons[-1] < horizons[0]
    for epsilon, f in zip((0.0, 0.05, 0.5, 1.0), found, strict=True):
        assert np.all(np.asarray(f.hits_by_k) <= epsilon)
        k = int(f.certified_k)
        certified = np.asarray(exact.certificates) >= float(exact.optimal_return) - epsilon
        assert k == (np.argmax(certified) + 1 if certified.any() else 7)


def test_bad_input(lock):
    with pytest.raises(ValueError, match=r"max_k: found 4, expected 1 to the horizon, 3"):
        analyze(lock, max_k=4)
    with pytest.raises(ValueError, match=r"max_k: found 0"):
        analyze(lock, max_k=0)
    half = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, lock)
    with pytest.raises(TypeError, match=r"mdp: found float32, expected float64"):
        analyze(half)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="needs float64"):
        analyze(half)
    with pytest.raises(ValueError, match=r"prob\[0, 0\]: found sum 0.5"):
        analyze(dataclasses.replace(lock, prob=lock.prob.at[0, 0].set(0.5)))
    with pytest.raises(ValueError, match=r"official=True"):
        analyze(lock, official=True, relative_tol=True)
    with pytest.raises(ValueError, match=r"problem.horizon: found None"):
        analyze(dataclasses.replace(lock, horizon=None))
    with pytest.raises(ValueError, match=r"epsilon: found 1.5"):
        epsilon_horizon(lock, 1.5)
