"""MaxMin policies: certificates, a general solver of the primal, closed forms, the worst-group gradient, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from rlcore.nash import (
    MaxMinPG,
    RewardGroups,
    kl,
    log_normalise,
    maxmin_policy,
    minimax_regret,
    minimax_regret_policy,
    reward_groups,
)
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, iterate


def random_groups(seed, count=60, num_groups=3, n=5):
    rng = np.random.default_rng(seed)
    reference = jax.vmap(log_normalise)(jnp.asarray(rng.normal(size=(count, n))))
    temperature = jnp.asarray(np.geomspace(0.01, 2.0, count))
    return RewardGroups(jnp.asarray(rng.normal(size=(count, num_groups, n))), reference, temperature)


def test_the_certificate_bounds_value_and_divergence():
    groups = random_groups(0)
    solution = jax.vmap(maxmin_policy)(groups)
    assert np.all(solution.status == CONVERGED) and np.all(solution.bound < 1e-10) and np.max(solution.steps) < 40
    early = jax.vmap(lambda g: maxmin_policy(g, max_steps=3))(groups)
    assert np.all(early.status == STEP_LIMIT) and np.all(early.bound >= solution.bound)
    value = jax.vmap(RewardGroups.value)
    lost = value(groups, solution.value.log_policy) - value(groups, early.value.log_policy)
    # The value of the optimum is known up to its own bound.
    assert np.all(lost <= early.bound) and np.all(lost >= -solution.bound)
    both = jax.vmap(lambda p, q: kl(p, q) + kl(q, p))(early.value.log_policy, solution.value.log_policy)
    # sqrt(KL) obeys the triangle inequality up to a factor below 2; the optimum is 1e-10 away
    assert np.all(groups.temperature * both <= early.bound + 1e-5 * np.sqrt(early.bound) + 1e-10)
    assert np.median(lost / early.bound) > 1e-3  # an informative bound


@pytest.mark.parametrize("seed", range(4))
def test_a_general_solver_of_the_primal_finds_the_same_policy(seed):
    groups = jax.tree.map(lambda x: x[seed], random_groups(1, count=4))
    reward, mu, tau = np.asarray(groups.rewards), np.asarray(groups.reference_logits), float(groups.temperature)

    def cost(x):
        p = np.maximum(x[:-1], 1e-300)
        return tau * np.sum(p * (np.log(p) - mu)) - x[-1], np.append(tau * (np.log(p) - mu + 1), -1.0)

    n = mu.size
    start = np.append(np.exp(mu), np.min(reward @ np.exp(mu)))
    found = minimize(
        cost, start, jac=True, method="SLSQP", bounds=[(1e-14, 1)] * n + [(None, None)],
        constraints=[
            {"type": "eq", "fun": lambda x: np.sum(x[:-1]) - 1, "jac": lambda x: np.append(np.ones(n), 0.0)},
            {"type": "ineq", "fun": lambda x: reward @ x[:-1] - x[-1],
             "jac": lambda x: np.hstack([reward, -np.ones((reward.shape[0], 1))])},
        ],
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    solution = maxmin_policy(groups)
    # SLSQP stops at about 1e-8 in p, which is second order in the value.
    np.testing.assert_allclose(-found.fun, groups.value(solution.value.log_policy), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.x[:-1], jnp.exp(solution.value.log_policy), rtol=0, atol=1e-5)


def test_one_group_alike_groups_and_the_direction_of_the_weights():
    groups = reward_groups([[1.0, 0.0, -1.0]], temperature=0.5)
    alone = maxmin_policy(groups)
    np.testing.assert_allclose(alone.value.log_policy, groups.policies()[0], rtol=0, atol=1e-14)
    alike = maxmin_policy(groups._replace(rewards=jnp.tile(groups.rewards, (2, 1))))
    assert alike.status == CONVERGED
    np.testing.assert_allclose(alike.value.log_policy, groups.policies()[0], rtol=0, atol=1e-14)
    # A group that is content with every policy of interest gets no weight.
    content = maxmin_policy(reward_groups([[1.0, 0.0, 0.0], [5.0, 4.0, 4.0]]))
    assert content.status == CONVERGED
    np.testing.assert_allclose(content.value.weights, [1, 0], rtol=0, atol=1e-11)


def test_mirrored_groups_share_the_regret_equally():
    groups = reward_groups([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]], temperature=0.7)
    for solve in (maxmin_policy, minimax_regret_policy):
        solution = solve(groups)
        np.testing.assert_allclose(solution.value.weights, [0.5, 0.5], rtol=0, atol=1e-9)
        # The policies' mean score is (1, 1, 1): the reference.
        np.testing.assert_allclose(jnp.exp(solution.value.log_policy), 1 / 3, rtol=0, atol=1e-9)
    own = np.exp(np.asarray(groups.policies()))
    # Bhattacharyya's coefficient is the optimum at equal weights.
    expected = -0.7 * np.log(np.sum(np.sqrt(own[0] * own[1])))
    np.testing.assert_allclose(minimax_regret(groups, solution.value.weights), expected, rtol=1e-12)
    np.testing.assert_allclose(groups.regrets(solution.value.log_policy), expected, rtol=1e-8)


def test_relabelled_shifted_and_scaled_groups():
    groups = jax.tree.map(lambda x: x[30], random_groups(2))
    solution = maxmin_policy(groups)
    order, rows = np.array([3, 0, 4, 1, 2]), np.array([2, 0, 1])
    moved = RewardGroups(
        5 * (groups.rewards[rows][:, order] + 10), groups.reference_logits[order], 5 * groups.temperature
    )
    other = maxmin_policy(moved)
    # Both policies are within sqrt(2 bound / temperature) of the optimum in L1 (Pinsker).
    distance = jnp.sum(jnp.abs(jnp.exp(other.value.log_policy) - jnp.exp(solution.value.log_policy)[order]))
    radius = lambda s, g: jnp.sqrt(2 * s.bound / g.temperature)  # noqa: E731
    assert distance <= radius(solution, groups) + radius(other, moved)
    np.testing.assert_allclose(moved.value(other.value.log_policy), 5 * groups.value(solution.value.log_policy) + 50)


def test_masked_responses_are_never_played():
    reward = jnp.array([[1.0, 0.0, 9.0], [0.0, 1.5, 9.0]])
    masked = reward_groups(reward, [0.0, 0.3, -np.inf], 0.4)
    inner = reward_groups(reward[:, :2], [0.0, 0.3], 0.4)
    for solve in (maxmin_policy, minimax_regret_policy):
        a, b = solve(masked), solve(inner)
        assert a.status == CONVERGED and a.value.log_policy[2] == -np.inf
        np.testing.assert_allclose(a.value.log_policy[:2], b.value.log_policy, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            minimax_regret(masked, a.value.weights), minimax_regret(inner, a.value.weights), rtol=1e-12
        )
    state, _ = iterate(MaxMinPG(0.1), masked, 10)
    assert state.log_policy[2] == -np.inf and np.isfinite(masked.value(state.log_policy))


def test_following_the_worst_group_comes_near_and_stays_below():
    groups = jax.tree.map(lambda x: x[40], random_groups(3))
    best = groups.value(maxmin_policy(groups).value.log_policy)
    solver = MaxMinPG(0.02)
    _, values = iterate(solver, groups, 20_000, observe=lambda g, s: g.value(s.log_policy), every=5_000)
    assert np.all(values <= best + 1e-12) and values[0] < best - 0.1 and values[-1] > best - 0.01
    # Alone, a group's gradient is that of its own objective.
    one = groups._replace(rewards=groups.rewards[:1])
    objective = lambda th: one.value(log_normalise(th))  # noqa: E731
    start = log_normalise(jnp.arange(5.0))
    moved = MaxMinPG(0.1).step(one, MaxMinPG(0.1).start(start)).log_policy
    np.testing.assert_allclose(moved, log_normalise(start + 0.1 * jax.grad(objective)(start)), rtol=0, atol=1e-14)


def test_precision_follows_and_failures_are_told():
    single = jax.tree.map(lambda x: x[50].astype(jnp.float32), random_groups(4))
    solution = maxmin_policy(single)
    assert solution.value.log_policy.dtype == jnp.float32 and solution.status == CONVERGED
    for temperature in (0.0, -1.0, np.nan):
        wrong = maxmin_policy(single._replace(temperature=jnp.float32(temperature)))
        assert wrong.status == NOT_FINITE and wrong.bound == np.inf
    loose = maxmin_policy(single, tol=0.1)
    assert loose.status == CONVERGED and loose.bound <= 0.1


def test_bad_input():
    with pytest.raises(ValueError, match=r"rewards: found shape \(3,\)"):
        reward_groups([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"rewards: found shape \(1, 2\), expected finite"):
        reward_groups([[1.0, np.inf]])
    with pytest.raises(ValueError, match=r"reference_logits: found shape \(3,\), expected \(2,\)"):
        reward_groups([[1.0, 2.0]], np.zeros(3))
    with pytest.raises(ValueError, match="reference_logits: found NaN"):
        reward_groups([[1.0, 2.0]], [np.nan, 0.0])
    for temperature in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="temperature: found"):
            reward_groups([[1.0, 2.0]], temperature=temperature)
    with pytest.raises(ValueError, match="max_steps: found -1"):
        maxmin_policy(reward_groups([[1.0, 2.0]]), max_steps=-1)
