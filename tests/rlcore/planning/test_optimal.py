"""VI, MPI and PI against brute force, the linear programme, one another; their certificates as inequalities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import planning
from rlcore.mdp import dense, discounted, sticky, tabular
from rlcore.planning import (
    ModifiedPolicyIteration,
    PolicyIteration,
    ValueIteration,
    linear_programme,
    modified_policy_iteration,
    policy_iteration,
    solve_batch,
    solve_optimal,
    value_iteration,
)
from rlcore.solver import CONVERGED, NOT_FINITE, PRECISION_LIMIT, STEP_LIMIT, iterate

SOLVERS = {
    "vi": ValueIteration(),
    "mpi": ModifiedPolicyIteration(5),
    "pi_lu": PolicyIteration(evaluation="lu"),
    "pi_krylov": PolicyIteration(evaluation="krylov"),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


@each_solver
@pytest.mark.parametrize("ends", [0.0, 0.3])
def test_every_method_finds_the_best_policy(oracle, solver, ends):
    for seed in range(4):
        mdp = oracle.make_problem(seed, (4, 3, 2), ends=ends, masked=True)
        best = oracle.brute_force(mdp)
        solution = solve_optimal(solver, mdp, tol=1e-9)
        assert solution.status == CONVERGED and solution.bound <= 1e-9
        # the exact side: a 4 x 4 float64 solve at 1 / (1 - discount) = 10, some 1e-14
        np.testing.assert_allclose(solution.value.value, best, rtol=0, atol=float(solution.bound) + 1e-13)
        own = oracle.value_of(mdp, solution.value.action)
        assert np.all(best - own <= 2 * float(solution.bound) + 1e-13)
        assert np.all(np.asarray(mdp.available)[np.arange(4), solution.value.action])


def test_the_linear_programme_agrees(oracle):
    for seed in range(3):
        mdp = oracle.make_problem(seed, ends=0.2, masked=True, discount=0.95)
        value, visits = linear_programme(mdp)
        # HiGHS is asked for feasibility 1e-10, which moves values by at most 1e-10 / (1 - .95)
        np.testing.assert_allclose(value, policy_iteration(mdp, tol=1e-10).value.value, rtol=0, atol=1e-8)
        np.testing.assert_allclose(linear_programme(dense(mdp))[0], value, rtol=0, atol=1e-8)
        transition, reward, discount = oracle.as_float64(mdp)
        inflow = 1 + discount * np.einsum("sat,sa->t", transition, visits)
        np.testing.assert_allclose(visits.sum(1), inflow, rtol=1e-8)
        np.testing.assert_allclose((visits * reward).sum(), value.sum(), rtol=1e-8)
        assert np.all(visits[~np.asarray(mdp.available)] == 0)
    undiscounted = discounted(oracle.make_problem(0), 1.0)
    with pytest.raises(RuntimeError, match="HiGHS answered"):
        linear_programme(undiscounted)


@each_solver
def test_dense_list_and_function_agree(oracle, solver):
    mdp = oracle.make_problem(3, ends=0.2, masked=True)
    solutions = [solve_optimal(solver, p, tol=1e-10) for p in (mdp, dense(mdp), oracle.as_function(mdp))]
    for other in solutions[1:]:
        np.testing.assert_allclose(other.value.value, solutions[0].value.value, rtol=0, atol=2e-10)
        np.testing.assert_array_equal(other.value.action, solutions[0].value.action)


@each_solver
def test_sticky_view_agrees_with_its_table(oracle, solver):
    mdp = oracle.make_problem(4, (4, 3, 2), ends=0.2)
    states, actions, outcomes = mdp.prob.shape
    shape = (states * actions, actions, 2 * outcomes)
    next_state, prob, reward, terminal = (np.zeros(shape, d) for d in (int, float, float, bool))
    for s, b, a in np.ndindex(states, actions, actions):
        for half, (done, share) in enumerate(((a, 0.75), (b, 0.25))):
            cells = (s * actions + b, a, slice(half * outcomes, (half + 1) * outcomes))
            next_state[cells] = mdp.next_state[s, done] * actions + done
            prob[cells], reward[cells] = share * mdp.prob[s, done], mdp.reward[s, done]
            terminal[cells] = mdp.terminal[s, done]
    lifted = tabular(next_state, prob, reward, terminal=terminal, discount=0.9)
    expected = oracle.exact_optimum(lifted)
    for base in (mdp, dense(mdp)):
        solution = solve_optimal(solver, sticky(base, 0.25), tol=1e-9)
        assert solution.status == CONVERGED
        np.testing.assert_allclose(solution.value.value, expected, rtol=0, atol=1.1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_solver
def test_certificates_are_upper_bounds(oracle, solver, dtype):
    """At any step and discount the true error is at most the bound: an inequality, at slow discounts in float32 too."""
    gammas = np.array([0.5, 0.9, 0.99, 0.999, 0.9999] * 2)
    problems = [oracle.make_problem(i, (10, 3, 4), g, 0.1 * (i // 5), dtype=dtype) for i, g in enumerate(gammas)]
    exact = np.stack([oracle.exact_optimum(mdp) for mdp in problems])
    batch = oracle.stack(problems)
    for steps in (2, 400):
        solution = jax.vmap(lambda mdp, n=steps: solve_optimal(solver, mdp, tol=0.0, max_steps=n))(batch)
        error = np.abs(np.asarray(solution.value.value, np.float64) - exact).max(axis=1)
        # the exact side: a float64 solve of condition 2 / (1 - discount)
        slack = 64 * np.finfo(np.float64).eps * np.abs(exact).max(axis=1) / (1 - gammas)
        assert np.all(error <= np.asarray(solution.bound, np.float64) + slack), (error, solution.bound)
        assert np.all(np.isfinite(solution.bound))
    if isinstance(solver, PolicyIteration):  # only rounding is left
        assert np.all(solution.status == PRECISION_LIMIT)
    else:
        assert np.all((solution.status == PRECISION_LIMIT) | (solution.status == STEP_LIMIT))


def test_a_zero_residual_certifies_nothing_in_float32():
    """Falsifier: plain sweeps of one state stop moving while wrong; without its floor the bound would say 0."""
    mdp = tabular(
        *(np.full((1, 1, 1), x, t) for x, t in ((0, int), (1, np.float32), (0.3, np.float32))), discount=0.9999
    )
    kernel = jax.jit(planning.prepare)(mdp)
    state, _ = iterate(ValueIteration(), kernel, 150_000)
    np.testing.assert_array_equal(state.value, state.backed_up)
    certificate = planning.span_certificate(kernel, state.value, state.backed_up)
    error = abs(float(certificate.center[0]) - float(mdp.reward[0, 0, 0]) / (1 - float(mdp.discount)))
    assert float(certificate.bound - certificate.floor) == 0 < error <= float(certificate.bound)


def test_lanes_equal_a_loop_in_every_batch_mode(oracle):
    gammas = np.linspace(0.5, 0.999, 7)[[3, 0, 6, 2, 5, 1, 4]]  # out of order: buckets sort, and must sort back
    problems = [oracle.make_problem(i, discount=g, ends=0.1, masked=True) for i, g in enumerate(gammas)]
    single = [solve_optimal(PolicyIteration(evaluation="krylov"), p, tol=1e-8) for p in problems]
    for mode in ("map", "vmap", "bucket"):
        lanes = solve_batch(SOLVERS["pi_krylov"], oracle.stack(problems), tol=1e-8, batch=mode, width=3)
        assert np.all(lanes.status == CONVERGED)
        for i, one in enumerate(single):
            np.testing.assert_allclose(lanes.value.value[i], one.value.value, rtol=0, atol=2e-8)
            np.testing.assert_array_equal(lanes.value.action[i], one.value.action)
    with pytest.raises(ValueError, match="batch: found 'all'"):
        solve_batch(ValueIteration(), oracle.stack(problems), batch="all")
    with pytest.raises(ValueError, match="problems: found leading axes"):
        solve_batch(ValueIteration(), problems[0])
    with pytest.raises(ValueError, match="width: found 0"):
        solve_batch(ValueIteration(), oracle.stack(problems), width=0)


def test_discounts_are_traced_and_zero_is_allowed(oracle):
    mdp = oracle.make_problem(1)
    lanes = jax.vmap(lambda g: value_iteration(discounted(mdp, g), tol=1e-9))(jnp.array([0.0, 0.9]))
    np.testing.assert_allclose(lanes.value.value[0], mdp.expected_reward().max(1), rtol=1e-14)
    np.testing.assert_allclose(lanes.value.value[1], oracle.exact_optimum(mdp), rtol=0, atol=1.1e-9)


def test_relabelling_scaling_and_shifting(oracle):
    mdp = oracle.make_problem(2)
    base = policy_iteration(mdp, tol=1e-10).value.value
    rng = np.random.default_rng(0)
    order = rng.permutation(6)
    relabelled = dataclasses.replace(
        mdp, next_state=jnp.argsort(order)[mdp.next_state[order]], prob=mdp.prob[order], reward=mdp.reward[order]
    )
    atol = 2.1e-10
    np.testing.assert_allclose(policy_iteration(relabelled, tol=1e-10).value.value, base[order], rtol=0, atol=atol)
    scaled = dataclasses.replace(mdp, reward=8 * mdp.reward)
    np.testing.assert_allclose(policy_iteration(scaled, tol=8e-10).value.value, 8 * base, rtol=0, atol=8 * atol)
    shifted = dataclasses.replace(mdp, reward=mdp.reward + 3)  # a constant c adds c / (1 - discount) = 30
    np.testing.assert_allclose(policy_iteration(shifted, tol=1e-10).value.value, base + 30, rtol=0, atol=atol)


def test_ties_do_not_loop():
    """All actions equal: policy iteration must stop with the first one, not switch for ever."""
    mdp = tabular(np.tile(np.arange(5)[:, None, None], (1, 4, 1)), np.ones((5, 4, 1)), np.ones((5, 4)), discount=0.9)
    for evaluation in ("lu", "krylov"):
        solution = policy_iteration(mdp, tol=1e-10, evaluation=evaluation)
        assert solution.status == CONVERGED and solution.steps <= 2
        np.testing.assert_array_equal(solution.value.action, 0)


def test_the_policy_returned_is_worth_what_is_said():
    """Policy iteration keeps an action that is worse by less than rounding; the answer must not."""
    gain = 40 * np.finfo(float).eps
    # state 0: take 1 and end, or 0.5 + gain and go on to state 1, which pays 1 and ends
    mdp = tabular(
        [[[0], [1]], [[1], [1]]],
        np.ones((2, 2, 1)),
        np.array([[[1.0], [0.5 + gain]], [[1.0], [1.0]]]),
        terminal=np.array([[[True], [False]], [[True], [True]]]),
        discount=0.5,
    )
    for solver in SOLVERS.values():
        solution = solve_optimal(solver, mdp, tol=1e-12)
        assert solution.value.action[0] == 1
        own = np.array([1 + gain, 1.0])
        assert np.all(np.abs(own - solution.value.value) <= float(solution.bound))


def test_failures_are_told():
    loop = tabular([[[0]]], [[[1.0]]], [[[1.0]]], discount=0.99)
    assert value_iteration(loop, tol=1e-9).status == CONVERGED  # the span is 0 at once
    chain = tabular([[[1]], [[0]]], np.ones((2, 1, 1)), [[0.0], [1.0]], discount=0.99)
    short = value_iteration(chain, tol=1e-9, max_steps=5)
    assert short.status == STEP_LIMIT and short.steps == 5 and short.bound > 1e-9
    huge = dataclasses.replace(chain, reward=chain.reward.at[1, 0, 0].set(jnp.inf))
    assert value_iteration(huge).status == NOT_FINITE
    assert value_iteration(chain, tol=1e-20).status == PRECISION_LIMIT
    endless = value_iteration(discounted(loop, 1.0))
    assert endless.status == STEP_LIMIT and endless.bound == np.inf and endless.steps == 0


def test_undiscounted_problems_that_end_are_certified(oracle):
    """Discount 1, but every outcome list ends with probability at least 0.2."""
    rng = np.random.default_rng(0)
    prob = np.concatenate([rng.dirichlet(np.ones(2), (5, 2)) * 0.8, np.full((5, 2, 1), 0.2)], axis=-1)
    mdp = tabular(rng.integers(0, 5, (5, 2, 3)), prob, rng.normal(size=(5, 2, 3)), terminal=prob * 0 + [0, 0, 1] > 0)
    for solver in SOLVERS.values():
        solution = solve_optimal(solver, mdp, tol=1e-9)
        assert solution.status == CONVERGED
        np.testing.assert_allclose(solution.value.value, oracle.brute_force(mdp), rtol=0, atol=1.1e-9)


def test_convenience_functions_run_under_jit_and_name_bad_words(oracle):
    mdp = oracle.make_problem(0)
    expected = oracle.exact_optimum(mdp)
    for solve in (value_iteration, modified_policy_iteration, policy_iteration):
        np.testing.assert_allclose(jax.jit(solve)(mdp).value.value, expected, rtol=0, atol=1e-6)
    kernel = planning.prepare(mdp)
    for solve in (value_iteration, modified_policy_iteration, policy_iteration):
        np.testing.assert_allclose(solve(kernel).value.value, solve(mdp).value.value, rtol=0, atol=2e-6)
    with pytest.raises(TypeError, match="problem"):
        linear_programme(oracle.as_function(mdp))
    with pytest.raises(ValueError, match="evaluation: found 'qr'"):
        policy_iteration(mdp, evaluation="qr")
    with pytest.raises(ValueError, match="method: found 'qr'"):
        solve_optimal(PolicyIteration(evaluation="qr"), mdp)
    varying = oracle.make_problem(0, (3, 6, 3, 2))
    with pytest.raises(ValueError, match="time axis"):
        value_iteration(varying)
