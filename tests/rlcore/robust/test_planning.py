"""Planners: published values, brute force over policies and adversaries, relations between problems, bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.linear_mdps import hard_instance, perturbed, random_linear_mdp, simulated, tabular
from rlcore.planning import backward_induction
from rlcore.robust import (
    HELLINGER,
    KL,
    Wasserstein,
    deployment_bound,
    divergence_of,
    evaluate,
    kernels,
    levels_of_radius,
    linear_mdp,
    lower_bound,
    nominal_values,
    one_hot,
    plan,
    rewards,
    to_mdp,
)

NAMES = ("tv", "kl", "chi2")
# Values are at most H = 4, sums have at most 20 terms: a few hundred roundings of 1e-16.
EXACT = 1e-13
MODELS = jax.jit(jax.vmap(lambda key: random_linear_mdp(key, 4, 3, 3, 3)))(jax.random.split(jax.random.key(0), 20))


def model(i=0):
    return jax.tree.map(lambda x: x[i], MODELS)


# ---- published numbers -----------------------------------------------------------------------------------------------


def test_simulated_problem_has_its_known_values():
    found = nominal_values(simulated())
    np.testing.assert_allclose(
        found.values[0, 0], 1.624250125, rtol=0, atol=1e-14
    )  # exact decimals, published as 1.62425
    np.testing.assert_allclose(found.values[1], [1.24975, 1.24975, 1, 0, 2], rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.values[2], [0.5, 0.5, 0.5, 0, 1], rtol=0, atol=1e-14)
    # "xi a = x at step 0, then all +1" in the target of perturbation q
    for q, x, expected in [(0.0, 0.2, 1.624875), (1.0, 0.2, 0.624875), (1.0, -0.2, 1.124775), (0.5, -0.2, 1.224775)]:
        policy = jnp.full((3, 5), 15).at[0].set(15 if x > 0 else 0)
        target = evaluate(perturbed(simulated(), q), policy).values[0, 0]
        np.testing.assert_allclose(target, expected, rtol=0, atol=1e-14)
        same = evaluate(simulated(perturbation=q), policy).values[0, 0]
        np.testing.assert_allclose(same, target, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "leak", "switch"),
    [
        ("tv", 0.02, 1.27398), ("kl", 0.02, 0.32361), ("chi2", 0.02, 0.02696),
        ("tv", 0.1, 1.38722), ("kl", 0.1, 0.62665), ("chi2", 0.1, 0.16243),
    ],
)  # fmt: skip
def test_the_leaky_problem_switches_its_first_action_at_the_known_price(name, leak, switch):
    problem = simulated(leak=leak)
    careful = lambda level: int(plan(problem, name, level).policy[0, 0])  # noqa: E731
    # printed to five decimals
    assert careful(switch - 1e-5) == 0 and careful(switch + 1e-5) == 15
    if name == "tv":
        np.testing.assert_allclose(1.24850025 / (1 - leak), switch, rtol=0, atol=5e-6)


def test_the_simulated_optimum_is_not_robust_unless_the_level_is_heterogeneous():
    problem = simulated()
    for name, level in itertools.product(NAMES, (0.01, 0.1, 1.0, 3.0)):
        assert plan(problem, name, level).policy[0, 0] == 15
    level = jnp.full((3, 4), jnp.inf).at[0, 3].set(1.24)
    robust = plan(problem, "tv", level)
    assert robust.policy[0, 0] == 0
    np.testing.assert_allclose(robust.values[0, 0], 1.24765, rtol=0, atol=5e-6)
    for radius, action in ((0.4, 0), (0.375, 15)):
        ball = plan(problem, "tv", jnp.zeros((3, 4)).at[0, 3].set(radius), constrained=True)
        assert ball.policy[0, 0] == action


# ---- against other ways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_and_no_adversary_does_better(name):
    problem = random_linear_mdp(jax.random.key(3), 3, 2, 2, 2)
    best = plan(problem, name, 0.3)
    all_policies = jnp.array(list(itertools.product(range(2), repeat=6))).reshape(-1, 2, 3)
    values = jax.jit(jax.vmap(lambda policy: evaluate(problem, policy, name, 0.3).values[0]))(all_policies)
    # attained by one policy at every state at once
    np.testing.assert_allclose(jnp.max(values, axis=0), best.values[0], rtol=0, atol=EXACT)
    assert jnp.min(jnp.max(jnp.abs(values - best.values[0][None]), axis=1)) <= EXACT
    mixed = jax.random.dirichlet(jax.random.key(1), jnp.ones(2), (200, 2, 3))
    assert jnp.all(
        jax.vmap(lambda policy: evaluate(problem, policy, name, 0.3).values[0])(mixed) <= best.values[0][None] + EXACT
    )
    # adversaries: random factors near and far, and the one returned
    far = jax.random.dirichlet(jax.random.key(2), jnp.ones(3), (300, 2, 2))
    far = jnp.where((problem.factors > 0)[None] | (name == "tv"), far, 0)
    far = far / jnp.sum(far, axis=-1, keepdims=True)
    mix = jax.random.uniform(jax.random.key(4), (300, 1, 1, 1)) ** 2
    factors = jnp.concatenate([(1 - mix) * problem.factors[None] + mix * far, best.worst_factors[None]])
    found = jax.vmap(lambda f: deployment_bound(problem, best.policy, f, name, 0.3))(factors)
    assert jnp.all(found.bound <= found.value + EXACT)
    np.testing.assert_allclose(found.bound[-1], found.value[-1], rtol=0, atol=1e-12)


def test_a_deployment_at_infinite_distance_is_promised_nothing_where_it_is_met():
    # The target's jump fails with chance 1/2: KL and chi-square are infinite there, and 0 times infinity lurks wherever
    # a state has no part in that factor.
    nominal = simulated()
    target = perturbed(nominal, 0.5)
    policy = jnp.full((3, 5), 15, jnp.int32)
    mixed = jax.nn.one_hot(policy, 16, dtype=float)
    for name, rule in itertools.product(("kl", "chi2"), (policy, mixed)):
        found = deployment_bound(nominal, rule, target.factors, name, 0.5)
        assert jnp.isneginf(found.bound[0]) and jnp.isposinf(found.price[0])
        np.testing.assert_allclose(found.value, evaluate(target, policy).values[0], rtol=0, atol=EXACT)
        # the fail state never comes to that factor
        assert found.price[3] == 0 and found.bound[3] == found.value[3] == 0
        from_jit = jax.jit(lambda f, n=name, r=rule: deployment_bound(nominal, r, f, n, 0.5).bound)(target.factors)
        np.testing.assert_array_equal(from_jit, found.bound)
    near = deployment_bound(nominal, policy, target.factors, "tv", 0.5)
    assert jnp.all(jnp.isfinite(near.bound)) and jnp.all(near.bound <= near.value + EXACT)


def test_the_nominal_problem_is_that_of_the_planner():
    for i in range(3):
        problem = model(i)
        exact = backward_induction(to_mdp(problem))
        for level in (jnp.inf, 1e9):
            np.testing.assert_allclose(plan(problem, "tv", level).values, exact.value, rtol=0, atol=EXACT)
        np.testing.assert_allclose(nominal_values(problem).values, exact.value, rtol=0, atol=EXACT)
        np.testing.assert_allclose(plan(problem, "kl", 0.0, True).values, exact.value, rtol=0, atol=EXACT)
        policy = jax.random.dirichlet(jax.random.key(i), jnp.ones(3), (3, 4))
        np.testing.assert_allclose(
            evaluate(problem, policy).values, backward_induction(to_mdp(problem), policy).value, rtol=0, atol=EXACT
        )


def test_one_law_per_pair_is_one_law_per_factor_of_one_hot_features():
    problem = tabular(jax.random.key(0), 3, 2, 3)
    for name in NAMES:
        by_factor, by_pair = plan(problem, name, 0.3), plan(problem, name, 0.3, rectangular="sa")
        np.testing.assert_allclose(by_factor.values, by_pair.values, rtol=0, atol=EXACT)
        assert by_pair.weights.shape == (3, 3, 2)
    rebuilt = one_hot(kernels(problem), rewards(problem), problem.initial)
    np.testing.assert_array_equal(rebuilt.factors, problem.factors)


@pytest.mark.parametrize("name", NAMES)
def test_a_radius_is_a_price_per_step_and_factor(name):
    for i in range(5):
        problem = model(i)
        ball = plan(problem, name, 0.15, constrained=True)
        price = levels_of_radius(problem, name, 0.15)
        # w = regularised value - price * radius, a reward of -price * radius per factor
        shifted = linear_mdp(
            problem.features,
            problem.factors,
            problem.reward_weights - 0.15 * price,
            problem.initial,
            unit_rewards=False,
        )
        priced = plan(shifted, name, jnp.maximum(price, 1e-300))
        np.testing.assert_allclose(priced.values, ball.values, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(priced.policy, ball.policy)


def test_any_divergence_plans_and_single_precision_stays():
    problem = model()
    np.testing.assert_allclose(plan(problem, KL, 0.3).values, plan(problem, "kl", 0.3).values, rtol=0, atol=EXACT)
    between = plan(problem, HELLINGER, 0.3).values[0]
    assert jnp.all(between <= nominal_values(problem).values[0] + EXACT)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), problem)
    found = plan(single, "chi2", 0.3)
    assert found.values.dtype == jnp.float32
    np.testing.assert_allclose(found.values.astype(jnp.float64), plan(problem, "chi2", 0.3).values, rtol=0, atol=1e-5)


def test_constants_of_a_jitted_function_are_checked_and_solved():
    # Under jit the sums of a constant are traced: checks must not use them.
    problem, policy = model(), jnp.zeros((3, 4), jnp.int32)
    mixed = jnp.full((3, 4, 3), 1 / 3)
    for rule in (policy, mixed):
        found = jax.jit(lambda level, rule=rule: evaluate(problem, rule, "tv", level).values)(0.3)
        np.testing.assert_allclose(found, evaluate(problem, rule, "tv", 0.3).values, rtol=0, atol=EXACT)
    wrong = policy + 3
    with pytest.raises(ValueError, match="policy: found"):
        jax.jit(lambda level: evaluate(problem, wrong, "tv", level).values)(0.3)


def test_vmap_over_models_and_levels_equals_a_loop():
    levels = jnp.linspace(0.1, 2.0, 20)
    batch = jax.jit(jax.vmap(lambda m, level: plan(m, "chi2", level).values))(MODELS, levels)
    for i in (0, 19):
        np.testing.assert_allclose(batch[i], plan(model(i), "chi2", levels[i]).values, rtol=0, atol=EXACT)


def test_relabelled_states_relabel_the_values():
    problem, order = model(), jnp.array([2, 0, 3, 1])
    moved = linear_mdp(
        problem.features[order], problem.factors[:, :, order], problem.reward_weights, problem.initial[order]
    )
    for name in NAMES:
        np.testing.assert_allclose(
            plan(moved, name, 0.3).values, plan(problem, name, 0.3).values[:, order], rtol=0, atol=EXACT
        )


def test_the_lower_bound_is_its_formula_and_the_hard_class_is_a_linear_mdp():
    np.testing.assert_allclose(lower_bound(3, 4, 4000), 3**1.5 * 4 / (32 * 8000**0.5), rtol=1e-15)
    problem = hard_instance(jnp.array([[1.0, -1.0], [-1.0, -1.0]]), 0.1)
    best = plan(problem, "tv", 10.0)
    # the optimal action sets exactly the bits whose sign is +1: actions are in lexicographic order
    np.testing.assert_array_equal(best.policy[:, 0], [2, 0])
    assert divergence_of("tv", problem.factors[0, 0], problem.factors[0, -1]) == 0.875  # 1 - 1 / (4 H)


def test_the_design_of_the_hard_class_has_the_known_inverse():
    # E phi phi^T of the behaviour uniform on the d unit actions and none, without absorption
    for d in (1, 2, 3, 5, 8):
        unit = np.concatenate([np.eye(d) / d, np.full((d, 1), 1 - 1 / d), np.zeros((d, 1))], axis=1)
        none = np.eye(d + 2)[d : d + 1]
        here = np.concatenate([unit, none])
        gram = here.T @ here / (d + 2)
        gram[-1, -1] += 1 / (d + 2)
        diagonal = np.diag(np.linalg.inv(gram))
        expected = [(d + 2) / d * (2 * d**3 - 2 * d**2 + d)] * d + [d + 2] * 2
        np.testing.assert_allclose(diagonal, expected, rtol=1e-10)  # condition numbers up to d^3
        assert (d + 2) * (2 * d**2 - 2 * d + 1) <= 3 * d**3


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input():
    problem = model()
    for level in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="level: found"):
            plan(problem, "tv", level)
    with pytest.raises(ValueError, match=r"level: found .*expected radii in \[0, 1\]"):
        plan(problem, "tv", 1.5, constrained=True)
    for shape in ((2,), (4, 3), (1, 1, 3, 3)):
        with pytest.raises(ValueError, match=r"level: found shape .*, expected one that broadcasts to \(3, 3\)"):
            plan(problem, "tv", jnp.ones(shape))
    with pytest.raises(ValueError, match=r"broadcasts to \(3, 4, 3\)"):
        plan(problem, "tv", jnp.ones((3, 3, 3)), rectangular="sa")
    with pytest.raises(ValueError, match=r"divergence: found None with the level 0\.5"):
        evaluate(problem, jnp.zeros((3, 4), jnp.int32), level=0.5)
    with pytest.raises(ValueError, match="divergence: found 'cvar', expected tv, kl or chi2"):
        levels_of_radius(problem, "cvar", 0.5)
    with pytest.raises(ValueError, match=r"cost: found shape \(3, 3\), expected \(4, 4\)"):
        plan(problem, Wasserstein(jnp.zeros((3, 3))), 0.5)
    for factors, message in (
        (problem.factors[:2], r"factors: found shape \(2, 3, 4\), expected \(3, 3, 4\)"),
        (2 * problem.factors, r"factors: found .* at \(0, 0\)"),
        (problem.factors * jnp.nan, r"factors: found .* at \(0, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            deployment_bound(problem, jnp.zeros((len(factors), 4), jnp.int32), factors, "tv", 0.5)
    with pytest.raises(ValueError, match="rectangular: found 's', expected 'd' or 'sa'"):
        plan(problem, "tv", 1.0, rectangular="s")
    with pytest.raises(ValueError, match="policy: found int"):
        evaluate(problem, jnp.zeros((2, 4), jnp.int32))
    with pytest.raises(ValueError, match=r"policy: found \[0, 3\], expected actions from 0 to 2"):
        evaluate(problem, jnp.zeros((3, 4), jnp.int32).at[0, 0].set(3))
    with pytest.raises(ValueError, match=r"policy: found entries from 0\.5, rows that sum to"):
        evaluate(problem, jnp.full((3, 4, 3), 0.5))
    features, factors, weights = (np.array(x) for x in (problem.features, problem.factors, problem.reward_weights))

    def broken(name, index, value):
        arrays = {"features": features.copy(), "factors": factors.copy(), "reward_weights": weights.copy()}
        arrays[name][index] = value
        return arrays.values()

    for name, index, value, message in [
        ("features", (1, 2, 0), 1.3, r"features: found .* at \(1, 2\), expected .*simplex"),
        ("features", (0, 0, 0), np.nan, r"features: found .* at \(0, 0\)"),
        ("factors", (2, 1, 0), -0.1, r"factors: found .* at \(2, 1\)"),
        ("reward_weights", (0, 0), 7.0, r"reward_weights: found rewards in \[.*, expected \[0, 1\]"),
        ("reward_weights", (0, 0), np.nan, "reward_weights: found NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            linear_mdp(*broken(name, index, value))
    with pytest.raises(ValueError, match="factors, reward_weights: found shapes"):
        linear_mdp(features, factors[:, :2], weights)
    with pytest.raises(ValueError, match="features, factors, reward_weights: found shapes"):
        linear_mdp(features[0], factors, weights)
    with pytest.raises(ValueError, match=r"initial: found shape \(3,\)"):
        linear_mdp(features, factors, weights, np.full(3, 1 / 3))
