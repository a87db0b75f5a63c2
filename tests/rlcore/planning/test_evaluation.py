"""Policy values, occupancies and the performance-difference identity against float64 linear algebra."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.mdp import dense, discounted, finite_horizon, sticky, uniform_policy
from rlcore.planning import advantage, occupancy, performance_difference, policy_evaluation, policy_return
from rlcore.planning.evaluation import bicgstab, choose_method
from rlcore.solver import CONVERGED, PRECISION_LIMIT, STEP_LIMIT

both_methods = pytest.mark.parametrize("method", ["lu", "krylov"])


def random_policy(seed, shape, available=None):
    policy = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])
    if available is not None:
        policy = policy * np.asarray(available)
        policy /= policy.sum(-1, keepdims=True)
    return jnp.asarray(policy)


def chain_of(oracle, mdp, policy):
    transition, reward, discount = oracle.as_float64(mdp)
    return discount * np.einsum("sat,sa->st", transition, policy), (reward * policy).sum(-1)


@both_methods
def test_policy_values_solve_their_equation(oracle, method):
    mdp = oracle.make_problem(0, (8, 3, 3), ends=0.2, masked=True)
    policy = random_policy(0, (8, 3), mdp.available)
    matrix, reward = chain_of(oracle, mdp, policy)
    exact = np.linalg.solve(np.eye(8) - matrix, reward)
    for problem in (mdp, dense(mdp), oracle.as_function(mdp)):
        solution = policy_evaluation(problem, policy, method=method)
        assert solution.status == CONVERGED
        np.testing.assert_allclose(solution.value, exact, rtol=0, atol=float(solution.bound))
        np.testing.assert_allclose(solution.value, exact, rtol=0, atol=1e-8)
        actions = jnp.zeros(8, jnp.int32)
        own = policy_evaluation(problem, actions, method=method)
        np.testing.assert_allclose(own.value, oracle.value_of(mdp, actions), rtol=0, atol=1e-8)


@both_methods
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_evaluation_bounds_are_upper_bounds(oracle, method, dtype):
    gammas = [0.5, 0.9, 0.99, 0.999, 0.9999]
    problems = [oracle.make_problem(i, (10, 3, 4), g, dtype=dtype) for i, g in enumerate(gammas)]
    actions = jnp.zeros(10, jnp.int32)
    exact = np.stack([oracle.value_of(mdp, actions) for mdp in problems])
    for steps in (2, 200):
        lanes = jax.vmap(lambda m, n=steps: policy_evaluation(m, actions, method=method, tol=0.0, max_steps=n))(
            oracle.stack(problems)
        )
        error = np.abs(np.asarray(lanes.value, np.float64) - exact).max(axis=1)
        slack = 64 * np.finfo(np.float64).eps * np.abs(exact).max(axis=1) / (1 - np.array(gammas))
        assert np.all(error <= np.asarray(lanes.bound, np.float64) + slack)
    assert np.all(lanes.status == PRECISION_LIMIT)


def test_unsolved_systems_are_told(oracle):
    mdp = oracle.make_problem(1, (50, 2, 2), 0.999)
    policy = uniform_policy(mdp)
    short = policy_evaluation(mdp, policy, method="krylov", tol=1e-10, max_steps=1)
    assert short.status == STEP_LIMIT and short.bound > 1e-10
    endless = policy_evaluation(discounted(mdp, 1.0), policy, method="krylov")
    assert endless.status != CONVERGED and endless.bound == np.inf
    visits = occupancy(discounted(mdp, 1.0), policy, method="krylov", max_steps=5)
    assert visits.status != CONVERGED and visits.bound == np.inf
    # each state ends its episode under action 0, but nothing says that all pairs do
    ending = dataclasses.replace(discounted(mdp, 1.0), terminal=mdp.terminal.at[:, 0].set(True))
    visits = occupancy(ending, jnp.zeros(50, jnp.int32))
    assert visits.status == STEP_LIMIT and visits.bound == np.inf
    np.testing.assert_allclose(visits.value.sum(), 1, rtol=1e-14)
    for call in (policy_evaluation, occupancy, policy_return):
        with pytest.raises(ValueError, match="method: found 'qr'"):
            call(mdp, policy, method="qr")


def test_what_is_no_policy_is_refused_everywhere(oracle):
    for mdp in (oracle.make_problem(0), oracle.make_problem(0, horizon=4)):
        good = uniform_policy(mdp)
        for call in (
            lambda p, m=mdp: policy_evaluation(m, p),
            lambda p, m=mdp: occupancy(m, p),
            lambda p, m=mdp: advantage(m, p),
            lambda p, m=mdp: policy_return(m, p),
            lambda p, m=mdp: performance_difference(m, p, good),
            lambda p, m=mdp: performance_difference(m, good, p),
        ):
            with pytest.raises(ValueError, match=r"policy\[0\]: found sum"):
                call(0.9 * good)
            with pytest.raises(ValueError, match="policy: found action 3"):
                call(jnp.full(6, 3))


def test_the_method_changes_at_2000_states_and_krylov_is_certified_above(oracle):
    assert (choose_method("auto", 2000), choose_method("auto", 2001)) == ("lu", "krylov")
    mdp = oracle.make_problem(0, (2001, 2, 3), 0.99)
    policy = uniform_policy(mdp)
    solution = policy_evaluation(mdp, policy)
    assert solution.status == CONVERGED and solution.steps > 1  # LU takes one
    other = policy_evaluation(mdp, policy, method="lu")
    np.testing.assert_allclose(solution.value, other.value, rtol=0, atol=float(solution.bound + other.bound))


def test_the_floor_counts_the_actions_of_a_random_policy(oracle):
    """A sweep of a policy over A actions is a sum of A terms: at discount 0 rounding may reach A eps / 2 of it."""
    mdp = oracle.make_problem(0, (2, 500, 1), 0.0)
    for problem in (mdp, dense(mdp)):
        solution = policy_evaluation(problem, uniform_policy(mdp))
        assert solution.bound >= 250 * np.finfo(float).eps * np.abs(mdp.reward).max()


def test_everything_runs_over_discounts_in_lanes(oracle):
    mdp = oracle.make_problem(7, (4, 3, 2), ends=0.2)
    old, new = random_policy(0, (4, 3)), random_policy(1, (4, 3))
    gammas = jnp.array([0.3, 0.9, 0.99])
    for base in (mdp, dense(mdp), oracle.as_function(mdp)):
        for horizon in (None, 5):

            def all_of_it(gamma, base=base, horizon=horizon):
                problem = finite_horizon(discounted(base, gamma), horizon)
                return (
                    occupancy(problem, new).value,
                    advantage(problem, old),
                    policy_return(problem, new),
                    performance_difference(problem, new, old),
                )

            lanes = jax.vmap(all_of_it)(gammas)
            for i, gamma in enumerate(gammas):
                for lane, alone in zip(jax.tree.leaves(lanes), jax.tree.leaves(all_of_it(gamma)), strict=True):
                    # two certified solves, each within 1e-10 of numbers below 100
                    np.testing.assert_allclose(lane[i], alone, rtol=0, atol=1e-8)


def test_bicgstab_solves_a_general_system_and_survives_breakdown():
    rng = np.random.default_rng(0)
    matrix = np.eye(30) + 0.1 * rng.normal(size=(30, 30))
    rhs = rng.normal(size=30)
    x, size, _ = bicgstab(lambda v: jnp.asarray(matrix) @ v, jnp.asarray(rhs), jnp.zeros(30), 1e-11, 200)
    assert size <= 1e-11
    np.testing.assert_allclose(x, np.linalg.solve(matrix, rhs), rtol=0, atol=1e-9)
    # a rotation by 90 degrees: the first product is orthogonal to the shadow residual, alpha is infinite
    x, _, steps = bicgstab(lambda v: jnp.array([-v[1], v[0]]), jnp.ones(2), jnp.zeros(2), 1e-11, 200)
    assert np.all(np.isfinite(x)) and steps <= 1


@both_methods
def test_discounted_occupancy_flows_and_pays(oracle, method):
    mdp = oracle.make_problem(2, (8, 3, 3), ends=0.2)
    policy = random_policy(1, (8, 3))
    matrix, reward = chain_of(oracle, mdp, policy)
    law = np.linalg.solve(np.eye(8) - matrix.T, np.asarray(mdp.initial))
    exact = law[:, None] * policy
    for problem in (mdp, dense(mdp), oracle.as_function(mdp)):
        solution = occupancy(problem, policy, method=method)
        assert solution.status == CONVERGED
        assert np.abs(solution.value - exact).sum() <= float(solution.bound) + 1e-14
        inflow = mdp.initial + mdp.discount * problem.push_forward(solution.value)
        np.testing.assert_allclose(solution.value.sum(1), inflow, rtol=0, atol=1e-9)
        paid = jnp.vdot(solution.value, problem.expected_reward())
        np.testing.assert_allclose(paid, policy_return(problem, policy, method=method), rtol=0, atol=1e-8)
    np.testing.assert_allclose(paid, law @ reward, rtol=0, atol=1e-8)


def test_finite_occupancy_flows_and_pays(oracle):
    mdp = oracle.make_problem(3, (6, 3, 2), ends=0.2, horizon=5)
    policy = random_policy(2, (5, 6, 3))
    for problem in (mdp, dense(mdp), oracle.as_function(mdp), sticky(mdp, 0.3)):
        rule = policy if problem.initial.shape == (6,) else jnp.repeat(policy, 3, axis=1)
        visits = occupancy(problem, rule)
        paid, law = 0.0, problem.initial
        for t in range(5):
            now = problem.at_time(t)
            np.testing.assert_allclose(visits.value[t], law[:, None] * rule[t], rtol=0, atol=1e-14)
            paid += jnp.vdot(visits.value[t], now.expected_reward())
            law = problem.discount * now.push_forward(visits.value[t])
        np.testing.assert_allclose(paid, policy_return(problem, rule), rtol=0, atol=1e-13)
        assert visits.bound < 1e-10


def test_kernels_and_policies_that_change_with_time(oracle):
    mdp = oracle.make_problem(8, (5, 6, 3, 2), ends=0.2)
    new, old = random_policy(0, (5, 6, 3)), random_policy(1, (5, 6, 3))
    for problem in (mdp, dense(mdp)):
        visits = occupancy(problem, new).value
        # rewards of each step by the visits of that step
        paid = jnp.sum(visits * problem.expected_reward())
        np.testing.assert_allclose(paid, policy_return(problem, new), rtol=0, atol=1e-13)
        gap = policy_return(problem, new) - policy_return(problem, old)
        np.testing.assert_allclose(performance_difference(problem, new, old), gap, rtol=0, atol=1e-13)
        assert abs(gap) > 1e-3


def test_occupancies_of_dense_problems_are_certified(oracle):
    """A state of a dense problem receives S A terms; a floor that counted S A S of them would refuse tol = 1e-10."""
    mdp = dense(oracle.make_problem(9, (200, 5, 2), 0.95))
    solution = occupancy(mdp, uniform_policy(mdp))
    assert solution.status == CONVERGED and solution.bound <= 1e-10


def test_a_sticky_return_has_a_free_first_step(oracle):
    """Unlimited horizon: <d, r> with the sticky kernel, the first step not sticky, equals a long finite horizon."""
    view = sticky(oracle.make_problem(4, (4, 3, 2), discount=0.7), 0.4)
    policy = random_policy(3, (12, 3))
    long = finite_horizon(view, 120)  # 0.7**120 / 0.3 < 1e-17
    np.testing.assert_allclose(policy_return(view, policy), policy_return(long, policy), rtol=0, atol=1e-9)
    visits, steps = occupancy(view, policy).value, occupancy(long, policy).value
    np.testing.assert_allclose(visits, steps.sum(0), rtol=0, atol=1e-9)


@both_methods
@pytest.mark.parametrize("horizon", [None, 5])
def test_performance_difference_is_the_difference_of_returns(oracle, method, horizon):
    for seed in range(3):
        mdp = oracle.make_problem(seed, (6, 3, 2), ends=0.2, masked=True, horizon=horizon)
        new, old = (random_policy(seed + k, (6, 3), mdp.available) for k in (10, 20))
        gap = policy_return(mdp, new, method=method) - policy_return(mdp, old, method=method)
        np.testing.assert_allclose(performance_difference(mdp, new, old, method=method), gap, rtol=0, atol=1e-8)
        assert performance_difference(mdp, old, old, method=method) == pytest.approx(0, abs=1e-8)


def test_advantages_average_to_zero(oracle):
    mdp = oracle.make_problem(5, (6, 3, 2))
    policy = random_policy(4, (6, 3))
    gains, value = advantage(mdp, policy)
    np.testing.assert_allclose((policy * gains).sum(1), 0, rtol=0, atol=1e-8)
    np.testing.assert_allclose(value, policy_evaluation(mdp, policy).value, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="sticky"):
        advantage(sticky(mdp, 0.1), jnp.ones((18, 3)) / 3)
