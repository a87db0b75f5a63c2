"""The exact expectations of the lsd statements, beside the library's own simulations and linear programmes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    ExploreCommit,
    RandomPhase,
    etc_sweeps,
    initial_state,
    learn,
    markov_schedule,
    occupation_programme,
    relaxation,
    simulate,
    simulate_restless,
)
from theory_checks import lsd, lsd_learning, lsd_planning, lsd_restless

KEY = jax.random.key(20)


@pytest.fixture(autouse=True)
def ledger_settings():
    """The ledger runs under JAX's ordinary promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def close(values, expected):
    """The mean of independent values within 5 of its standard errors."""
    error = np.std(values) / np.sqrt(len(values))
    assert error > 0 and abs(np.mean(values) - expected) < 5 * error


@pytest.mark.parametrize("rule", ["virtual", "real"])
def test_enumerated_phases_agree_with_simulated_ones(rule):
    problem = lsd.monotone_instance(KEY, 3, 3, 2).problem
    plan = relaxation(problem)
    assert float(jnp.max(plan.weight[:, 1])) > 0.05  # both options of an arm matter
    exact = jax.jit(lambda: lsd_planning.phase_mean(problem, plan, 20, rule=rule, start="just"))()
    planner = RandomPhase(plan, rule=rule)
    totals = jax.jit(jax.vmap(lambda key: simulate(problem, planner, 20, key, start="just", observe=None).total))
    close(totals(jax.random.split(KEY, 20_000)), exact)


@pytest.mark.parametrize(("k", "mirrored"), [(2, True), (2, False), (3, True)])
def test_followed_laws_agree_with_simulated_restless_arms(k, mirrored):
    problem = lsd_restless.restless_instance(KEY, k).problem
    _, rates = lsd_restless.restless_plan(problem)
    schedule = markov_schedule(rates)
    exact = jax.jit(lambda: lsd_restless.schedule_mean(problem, schedule, jnp.full(k, 2), 15, mirrored))()

    def run(key):
        coupling = "mirrored" if mirrored else "independent"
        return simulate_restless(problem, schedule, 15, key, coupling=coupling, observe=None).total

    close(jax.jit(jax.vmap(run))(jax.random.split(KEY, 20_000)), exact)


def test_plans_from_extreme_points_are_those_of_the_programmes():
    for i in range(6):
        key = jax.random.fold_in(KEY, i)
        problem = lsd_restless.restless_instance(key, 2 + i % 2).problem
        value, rates = lsd_restless.restless_plan(problem)
        # HiGHS stops at 1e-10 per row
        assert np.isclose(value, occupation_programme(problem).value, atol=1e-8, rtol=0)
        assert float(jnp.sum(rates.play)) <= 1 + 1e-12
        assert np.isclose(jnp.sum(rates.play * problem.payoffs), value, atol=1e-14, rtol=0)
        for rule in ("reset", "decrement"):
            problem = lsd.monotone_instance(key, 2 + i % 2, 2, 3, rule).problem
            value, gap, rates = lsd_restless.occupation_plan(problem)
            assert abs(gap) < 1e-14
            assert np.isclose(value, occupation_programme(problem).value, atol=1e-8, rtol=0)
            assert np.allclose(jnp.sum(rates.idle + rates.play, axis=1), 1, atol=1e-14, rtol=0)


def test_under_decrement_an_arm_that_starts_tired_may_stay_behind_for_ever():
    """The specification's loss of at most one payoff per arm: here half of all rounds' payoffs are lost."""
    problem = lsd.problem_of(jnp.array([[0.0, 0.0, 1.0]]), 2, "decrement")
    value, _, rates = lsd_restless.occupation_plan(problem)
    planner = markov_schedule(rates)
    run = lambda key, start: simulate(problem, planner, 40, key, start=start, observe=None).total  # noqa: E731
    keys = jax.random.split(KEY, 200)
    assert np.isclose(value, 0.5)
    assert set(np.asarray(jax.vmap(lambda key: run(key, "just"))(keys)).tolist()) == {0.0, 20.0}
    assert np.all(jax.vmap(lambda key: run(key, "one"))(keys) == 20.0)
    assert initial_state(problem, "just")[0] == 1


def test_the_shortened_explore_then_commit_has_the_learners_expectation():
    payoffs = jnp.array([[0.5, 0.9], [0.3, 0.6]])
    sweeps = lambda horizon: etc_sweeps(horizon, 2, 1, 1)  # noqa: E731
    # No rounds are left over at the end.
    horizon = next(t for t in range(300, 330) if (t - 6 * sweeps(t) - 1) % 6 == 0)
    keys = jax.random.split(KEY, 4096)
    claim = lambda keys: lsd_learning.explore_commit.claim(lsd_learning.Pair(payoffs), keys, horizon=horizon).values  # noqa: E731
    ours = np.asarray(jax.jit(claim)(keys))
    problem = lsd.problem_of(payoffs, 1)
    learner = ExploreCommit(horizon)
    run = lambda key: learn(problem, learner, horizon, key, observe=None).total  # noqa: E731
    theirs = 0.75 * relaxation(problem).value - np.asarray(jax.jit(jax.vmap(run))(keys)) / horizon
    error = np.sqrt((np.var(ours) + np.var(theirs)) / len(keys))
    assert abs(ours.mean() - theirs.mean()) < 5 * error
