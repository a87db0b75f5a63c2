"""Learners against their definitions written out, the tabular closed form, re-measured tables, and bad data."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.linear_mdps import perturbed, random_linear_mdp, simulated, tabular
from rlcore.robust import (
    TV,
    OfflineData,
    Rules,
    act,
    bootstrap_radius,
    calibrated_levels,
    check_coverage,
    drpvi,
    drvi_l,
    estimate_model,
    evaluate,
    kernels,
    offline_data,
    pevi,
    plan,
    r2pvi,
    rewards,
    sample_trajectories,
    table,
    va_drpvi,
    va_r2pvi,
    verify,
)
from rlcore.robust.learners import _interpolate

NAMES = ("tv", "kl", "chi2")
# d = 3 regressions of 200 samples, values up to 3: condition numbers below 100.
EXACT = 1e-11


def uniform(model):
    s, a, _ = model.features.shape
    return jnp.full((model.factors.shape[0], s, a), 1 / a)


LEARN = jax.jit(r2pvi, static_argnames=("divergence", "centred", "rules", "released_code"))
RADIUS = jax.jit(bootstrap_radius, static_argnames=("divergence", "replicates"))
LEVELS = jax.jit(calibrated_levels, static_argnames=("divergence", "replicates"))
MODEL = random_linear_mdp(jax.random.key(1), 4, 3, 3, 3)
TABLE = table(MODEL.features, MODEL.reward_weights)
DATA = jax.jit(lambda key: sample_trajectories(key, MODEL, uniform(MODEL), 200))(jax.random.key(2))


# ---- the definitions, written out in NumPy ---------------------------------------------------------------------------


def by_hand(estimate, penalty, ridge, norm="factor", floor=True, least="states"):
    """weights [H, d] and policy [H, S] of a learner, one matrix inverse and one loop at a time."""
    features, reward = np.asarray(MODEL.features), np.asarray(rewards(MODEL))
    states, actions, seen = (np.asarray(x) for x in (DATA.states, DATA.actions, DATA.rewards))
    horizon, values = 3, np.zeros(4)
    weights, policy = [], []
    for h in reversed(range(horizon)):
        phi = features[states[:, h], actions[:, h]]
        inverse = np.linalg.inv(phi.T @ phi + ridge * np.eye(3))
        y = values[states[:, h + 1]]
        pool = values if least == "states" else y
        w = estimate(inverse @ phi.T, y, pool.min(), pool.max(), seen[:, h])
        spread = np.sqrt(np.diag(inverse))
        gamma = {
            "factor": penalty * features @ spread,
            "released": penalty * np.sqrt((features**2) @ spread**2),
            "ellipsoid": penalty * np.sqrt(np.einsum("sad,de,sae->sa", features, inverse, features)),
        }[norm]
        known = 0 if norm == "ellipsoid" else reward[h]
        q = np.minimum(known + features @ w - gamma, horizon - h)
        q = np.maximum(q, 0) if floor else q
        values = q.max(1)
        weights.append(w)
        policy.append(q.argmax(1))
    return np.array(weights[::-1]), np.array(policy[::-1])


def chi2_by_grid(level):
    def estimate(w, y, low, high, _):
        cuts = np.linspace(low, high, 20001)
        capped = np.minimum(y[:, None], cuts)
        z, z2 = np.clip(w @ capped, 0, 3), np.clip(w @ capped**2, 0, 9)
        return np.max(z + (z**2 - z2) / (4 * level), axis=1)

    return estimate


def drpvi_by_grid(radius):
    def estimate(w, y, low, high, _):
        cuts = np.linspace(0, 3, 30001)
        return np.max(w @ np.minimum(y[:, None], cuts) - radius * (cuts - np.minimum(low, cuts)), axis=1)

    return estimate


def drvi_by_grid(radius):
    def estimate(w, y, low, high, _):
        prices = np.geomspace(1e-6, 3, 20001)
        x = np.maximum(1 + w @ np.expm1(-y[:, None] / prices), 1e-6)
        return np.max(-prices * np.log(x) - prices * radius, axis=1)

    return estimate


LEARNERS = {
    "pevi": (
        lambda p: pevi(DATA, TABLE, None, p, 0.5),
        lambda w, y, lo, hi, r: w @ (r + y),
        {"norm": "ellipsoid"},
        EXACT,
    ),
    "tv": (
        lambda p: r2pvi(DATA, TABLE, None, "tv", 0.4, p, 0.5),
        lambda w, y, lo, hi, r: w @ np.minimum(y, lo + 0.4),
        {},
        EXACT,
    ),
    "tv, centred": (
        lambda p: r2pvi(DATA, TABLE, None, "tv", 0.4, p, 0.5, centred=True),
        lambda w, y, lo, hi, r: lo + w @ np.minimum(y - lo, 0.4),
        {},
        EXACT,
    ),
    "tv, released": (
        lambda p: r2pvi(DATA, TABLE, None, "tv", 0.4, p, 0.5, released_code=True),
        lambda w, y, lo, hi, r: w @ np.minimum(y, lo + 0.4),
        {"norm": "released", "floor": False, "least": "data"},
        EXACT,
    ),
    "kl": (
        lambda p: r2pvi(DATA, TABLE, None, "kl", 0.4, p, 0.5),
        lambda w, y, lo, hi, r: -0.4 * np.log(np.maximum(w @ np.exp(-y / 0.4), np.exp(-3 / 0.4))),
        {},
        EXACT,
    ),
    "kl, centred": (
        lambda p: r2pvi(DATA, TABLE, None, "kl", 0.4, p, 0.5, centred=True),
        lambda w, y, lo, hi, r: lo + np.clip(-0.4 * np.log(1 + w @ np.expm1(-(y - lo) / 0.4)), 0, hi - lo),
        {},
        EXACT,
    ),
    # Grids of spacing 1.5e-4 of a value, at a maximum (quadratic) or a kink; the peak where DRVI-L's floor of 1e-6
    # begins is narrower than the grid.
    "chi2": (lambda p: r2pvi(DATA, TABLE, None, "chi2", 0.4, p, 0.5), chi2_by_grid(0.4), {}, 3e-4),
    "drpvi": (lambda p: drpvi(DATA, TABLE, None, 0.2, p, 0.5), drpvi_by_grid(0.2), {}, 3e-4),
    "drvi_l": (lambda p: drvi_l(DATA, TABLE, None, 0.1, p, 0.5), drvi_by_grid(0.1), {}, 2e-3),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_is_its_definition(name):
    learner, estimate, choices, tolerance = LEARNERS[name]
    found = jax.jit(learner)(0.05)
    weights, policy = by_hand(estimate, 0.05, 0.5, **choices)
    np.testing.assert_allclose(found.weights, weights, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found.policy, policy)
    if tolerance > EXACT:  # the last step that has something to maximise: never below a grid
        assert jnp.all(found.weights[1] >= weights[1] - 1e-9)


def test_one_factor_per_pair_is_count_based():
    model = tabular(jax.random.key(3), 3, 2, 2)
    data = sample_trajectories(jax.random.key(4), model, uniform(model), 60)
    space = table(model.features, model.reward_weights)
    learn = jax.jit(lambda ridge: [LEARN(data, space, None, name, 0.3, 0.1, ridge) for name in NAMES])
    count = np.zeros((2, 6))
    for h in range(2):
        np.add.at(count[h], np.asarray(data.states[:, h] * 2 + data.actions[:, h]), 1)
    for found in learn(0.7):
        # the Gram matrix is diagonal: spread = penalty / sqrt(ridge + visits)
        np.testing.assert_allclose(found.spread, 0.1 / np.sqrt(0.7 + count), rtol=0, atol=EXACT)
    # without ridge the estimates are exact solutions for the empirical kernel
    assert count.min() > 0
    for name, found in zip(NAMES, learn(1e-9), strict=True):
        law = np.zeros((6, 3))
        pair = np.asarray(data.states[:, 0] * 2 + data.actions[:, 0])
        np.add.at(law, (pair, np.asarray(data.states[:, 1])), 1)
        law = jnp.asarray(law / law.sum(1, keepdims=True))
        from rlcore.robust import worst_case

        exact = jax.vmap(lambda m, name=name, v=found.values[1]: worst_case(name, m, v, 0.3).value)(law)
        np.testing.assert_allclose(found.weights[0], exact, rtol=0, atol=1e-7)  # the ridge
    # nonnegative weights: the general dual is the closed form
    general = LEARN(data, space, None, TV, 0.3, 0.1, 0.7, centred=True)
    np.testing.assert_allclose(
        general.weights, LEARN(data, space, None, "tv", 0.3, 0.1, 0.7, centred=True).weights, rtol=0, atol=1e-9
    )


def test_without_an_adversary_all_learners_are_one():
    # A radius of 0 and an infinite price are the same regression; PEVI differs by rewards and norm alone.
    tv = LEARN(DATA, TABLE, None, "tv", jnp.inf, 0.05, 0.5)
    chi2 = LEARN(DATA, TABLE, None, "chi2", jnp.inf, 0.05, 0.5)
    ball = drpvi(DATA, TABLE, None, 0.0, 0.05, 0.5)
    np.testing.assert_allclose(chi2.weights[-1], tv.weights[-1], rtol=0, atol=EXACT)
    # with signed weights the largest cut need not be the best one: the maximum is at least the mean
    assert jnp.all(ball.weights >= tv.weights - EXACT)


def test_variance_weights_of_small_variances_are_one():
    # Values up to 3 with little variance: the weights 1 / max(1, variance) are 1.
    plain, aware = drpvi(DATA, TABLE, None, 0.2, 0.5, 1.0), va_drpvi(DATA, TABLE, None, 0.2, 0.5, 1.0)
    np.testing.assert_allclose(aware.weights, plain.weights, rtol=0, atol=EXACT)
    plain = LEARN(DATA, TABLE, None, "tv", 0.2, 0.5)
    np.testing.assert_allclose(
        va_r2pvi(DATA, TABLE, None, "tv", 0.2, 0.5, slack=-1e3).spread >= plain.spread, True
    )  # a variance of 1000 makes every sample count a thousandth


# ---- the loop around them --------------------------------------------------------------------------------------------


def test_ties_floors_and_acting():
    large = 50.0
    for rules in (Rules(), Rules(ties="unclipped")):
        found = LEARN(DATA, TABLE, None, "tv", 0.4, large, rules=rules)
        assert jnp.all(found.zero_rows == 1) and jnp.all(found.values == 0)
        if rules.ties == "first":
            assert jnp.all(found.policy == 0)
        else:
            assert jnp.any(found.policy != 0)
    random = LEARN(DATA, TABLE, None, "tv", 0.4, large, rules=Rules(ties="random"), key=jax.random.key(0))
    assert len(np.unique(random.policy)) == 3
    with pytest.raises(ValueError, match="key: found None"):
        LEARN(DATA, TABLE, None, "tv", 0.4, 1.0, rules=Rules(ties="random"))
    below = LEARN(DATA, TABLE, None, "tv", 0.4, large, rules=Rules(floor=False))
    assert jnp.all(below.values[:3] < 0)
    found = LEARN(DATA, TABLE, None, "tv", 0.4, 0.05)
    for h in range(3):
        np.testing.assert_array_equal(act(found, TABLE, h, jnp.arange(4)), found.policy[h])
    capped = LEARN(DATA, TABLE, None, "tv", 0.4, 0.0, cap=jnp.array([0.1, 3.0, 3.0]))
    reward = rewards(MODEL)
    assert jnp.all(capped.q_values[0] <= jnp.maximum(reward[0], 0.1))


def test_small_levels_do_not_turn_kl_into_optimism():
    # exp(-H / level) underflows below H / 745; the released code then returned +inf, hence the cap, for every pair.
    for level in (1e-2, 1e-3, 1e-6):
        for centred in (False, True):
            found = LEARN(DATA, TABLE, None, "kl", level, 0.0, 1.0, centred=centred)
            assert jnp.all(jnp.isfinite(found.weights))
    found = LEARN(DATA, TABLE, None, "kl", 1e-3, 0.0, 1.0, centred=True)
    truth = plan(MODEL, "kl", 1e-3)
    # near the least value, up to the logarithm of ridge against 200 visits times the level
    assert jnp.all(found.values[0] <= truth.values[0] + 0.1)


def test_a_factor_without_data_is_pessimistic_and_named():
    # Features of state 0 excite factor 0 alone, and no trajectory leaves it.
    features = jnp.eye(3)[:, None, :] * jnp.ones((1, 2, 1))
    space = table(features, jnp.full((2, 3), 0.5))
    data = offline_data(np.zeros((5, 3), int), np.zeros((5, 2), int), np.full((5, 2), 0.5), 3, 2)
    with pytest.warns(UserWarning, match="found no visit to factor 1 at step 0"):
        missing = check_coverage(data, space)
    assert missing == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for name in (*NAMES, TV):
        found = LEARN(data, space, None, name, 0.3, 0.1, 1.0, centred=True)
        # at the least next value, less the whole penalty: below any state that was visited
        np.testing.assert_allclose(
            found.weights[:, 1:], found.least[:, None] * jnp.ones((1, 2)) if name != "chi2" else 0
        )
        assert jnp.all(found.values[0, 1:] < found.values[0, 0])
    # the uncentred KL regression shrinks towards the horizon instead, and is not believed
    for rules, worth in ((Rules(), None), (Rules(unvisited="estimate"), 2)):
        found = LEARN(data, space, None, "kl", 0.3, 0.1, 1.0, rules=rules)
        np.testing.assert_array_equal(found.visited, np.eye(3, dtype=bool)[:1].repeat(2, axis=0))
        assert jnp.all(found.weights[:, 1:] == (found.least[:, None] if worth is None else worth))
    with pytest.warns(UserWarning, match="found no visit to factor 1 at step 0"):
        r2pvi(data, space, None, "tv", 0.3, 0.1)
    with pytest.raises(ValueError, match="unvisited: found 'best'"):
        Rules(unvisited="best")
    model = simulated()
    start = sample_trajectories(jax.random.key(0), model, uniform(model), 10)
    with pytest.warns(UserWarning, match="factor 1 at step 0"):
        check_coverage(start, table(model.features, model.reward_weights))
    assert check_coverage(DATA, TABLE) == []


def test_trajectories_follow_the_kernels():
    data = sample_trajectories(jax.random.key(5), MODEL, uniform(MODEL), 40_000)
    law = np.asarray(kernels(MODEL))
    for h, s, a in ((0, 1, 2), (2, 3, 0)):
        at = np.asarray((data.states[:, h] == s) & (data.actions[:, h] == a))
        share = np.bincount(np.asarray(data.states[at, h + 1]), minlength=4) / at.sum()
        # five standard errors
        assert np.all(np.abs(share - law[h, s, a]) <= 5 * np.sqrt(law[h, s, a] * (1 - law[h, s, a]) / at.sum()))
    np.testing.assert_allclose(
        data.rewards, rewards(MODEL)[jnp.arange(3)[None], data.states[:, :-1], data.actions], rtol=0, atol=0
    )


# ---- the re-measured table -------------------------------------------------------------------------------------------


@functools.cache
def table_of_returns():
    """Exact target returns at q = 0, 1/2, 1 of every learner of the published figure, on 100 data sets."""
    model = simulated()
    space = table(model.features, model.reward_weights)

    def returns(policy):
        target = lambda q: evaluate(perturbed(model, q), policy).values[0, 0]  # noqa: E731
        return jax.vmap(target)(jnp.array([0.0, 0.5, 1.0]))

    def one(key):
        data = sample_trajectories(key, model, uniform(model), 100)
        robust = functools.partial(r2pvi, data, space, None)
        ball = jnp.zeros((3, 4)).at[0, 3].set(0.5)
        found = {
            "pevi": pevi(data, space, None, 1.0, 0.1),
            "tv": robust("tv", 0.1, 1.0, 0.1),
            "kl": robust("kl", 0.1, 1.0, 0.1),
            "chi2": robust("chi2", 0.1, 1.0, 0.1),
            "drpvi": drpvi(data, space, None, ball, 1.0, 0.1),
        }
        return {name: returns(x.policy) for name, x in found.items()}, found["tv"].zero_rows[0]

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 100))


@pytest.mark.parametrize(
    ("name", "expected", "theirs"),
    [
        ("pevi", [1.539, 1.153, 0.768], 0.0),
        ("tv", [1.325, 1.225, 1.125], 0.0),
        ("kl", [1.424, 1.192, 0.960], 0.0),
        ("chi2", [1.485, 1.171, 0.858], 0.0),
        # 2 of their 300 runs took the other action, none of ours: 0.3 to 0.5 apart, s.e. 0.5 sqrt(2) / 300
        ("drpvi", [1.327, 1.224, 1.121], 0.0024),
    ],
)
def test_the_mean_returns_are_the_remeasured_ones(name, expected, theirs):
    found = np.asarray(table_of_returns()[0][name])
    error = found.std(axis=0, ddof=1) / 10
    # theirs are means of 300 data sets (error smaller by sqrt 3), printed to three decimals: five joint errors
    error = np.hypot(error * (4 / 3) ** 0.5, theirs)
    assert np.all(np.abs(found.mean(axis=0) - expected) <= 5 * error + 5e-4), found.mean(axis=0)


def test_the_total_variation_curve_is_tie_breaking_alone():
    zero = table_of_returns()[1]
    # all values of the first step are truncated to 0, in every run, and the first action is the most careful one
    assert jnp.all(zero == 1)


# ---- verification and calibration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_verification_is_the_theorem_on_its_event(name):
    sure = verify(MODEL, LEARN(DATA, TABLE, None, name, 1.0, 3.0, centred=name == "kl"), name, 1.0)
    assert sure.event and jnp.all(sure.margin >= 0)
    assert jnp.all(sure.estimate <= sure.policy_value + EXACT) and jnp.all(sure.policy_value <= sure.optimum + EXACT)
    assert jnp.all(sure.suboptimality <= sure.upper + EXACT) and jnp.all(sure.upper <= sure.upper_ball + 1e-8)
    bold = verify(MODEL, LEARN(DATA, TABLE, None, name, 1.0, 0.0), name, 1.0)
    assert not bold.event
    with pytest.raises(ValueError, match="learned: found an estimate without a table"):
        verify(MODEL, LEARN(DATA, TABLE, None, name, 1.0, 0.0)._replace(values=None), name, 1.0)


def test_levels_from_data():
    radius = RADIUS(jax.random.key(0), DATA, TABLE, "tv", replicates=20)
    assert radius.shape == (3, 3) and jnp.all((radius > 0) & (radius < 1))
    few = jax.tree.map(lambda x: x[:20], DATA)
    wider = RADIUS(jax.random.key(0), few, TABLE, "tv", replicates=20)
    assert jnp.mean(wider) > jnp.mean(radius)  # ten times less data
    sharper = RADIUS(jax.random.key(0), DATA, TABLE, "tv", quantile=0.5, replicates=20)
    assert jnp.all(sharper <= radius)
    # the estimate approaches the truth, and the prices feed the learner
    many = sample_trajectories(jax.random.key(6), MODEL, uniform(MODEL), 50_000)
    close = estimate_model(many, TABLE, MODEL.reward_weights, smoothing=0.0)
    np.testing.assert_allclose(close.factors, MODEL.factors, rtol=0, atol=0.1)
    for name in NAMES:
        level = LEVELS(jax.random.key(0), DATA, TABLE, MODEL.reward_weights, name, replicates=10)
        assert level.shape == (3, 3) and jnp.all((level >= 1e-3) & jnp.isfinite(level))
        LEARN(DATA, TABLE, None, name, level, 0.1, centred=True)
    with pytest.raises(ValueError, match=r"quantile: found 1\.0"):
        bootstrap_radius(jax.random.key(0), DATA, TABLE, "tv", quantile=1.0)
    with pytest.raises(ValueError, match="replicates: found 1"):
        bootstrap_radius(jax.random.key(0), DATA, TABLE, "tv", replicates=1)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_data():
    states, actions, reward = np.zeros((2, 4), int), np.zeros((2, 3), int), np.zeros((2, 3))
    assert isinstance(offline_data(states, actions, reward), OfflineData)
    for arguments, message in [
        ((states[:0], actions[:0], reward[:0]), r"actions: found shape \(0, 3\)"),
        ((states[:, :3], actions, reward), "states, rewards: found shapes"),
        ((states, actions + 0.5, reward), "actions: found float64, expected integers"),
        ((states, actions, np.full((2, 3), np.nan)), "states, rewards: found NaN"),
        ((states + 7, actions, reward, 4, 3), r"states: found indices in \[7, 7\], expected \[0, 3\]"),
        ((states, actions - 1, reward, 4, 3), r"actions: found indices in \[-1, -1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            offline_data(*arguments)


def test_data_that_do_not_fit_are_refused():
    for data, message in [
        (jax.tree.map(lambda x: x[:0], DATA), "data: found no trajectory"),
        (dataclasses.replace(DATA, states=DATA.states + 1), r"data: found states in \[1, 4\], expected \[0, 3\]"),
        (dataclasses.replace(DATA, actions=DATA.actions - 1), r"data: found actions in \[-1, 1\], expected \[0, 2\]"),
        (dataclasses.replace(DATA, rewards=DATA.rewards * jnp.nan), "data: found NaN or infinite rewards"),
    ]:
        with pytest.raises(ValueError, match=message):
            r2pvi(data, TABLE, None, "tv", 0.4, 1.0)
    closed = jax.jit(lambda level: r2pvi(DATA, TABLE, None, "tv", level, 0.05, 0.5).weights)(0.4)
    np.testing.assert_allclose(closed, LEARN(DATA, TABLE, None, "tv", 0.4, 0.05, 0.5).weights, rtol=0, atol=EXACT)
    with pytest.raises(ValueError, match="features: found rewards of 2 steps, expected 3, as in the data"):
        r2pvi(DATA, MODEL.features, MODEL.reward_weights[:2], "tv", 0.4, 1.0)
    behaviour = uniform(MODEL)
    for law, count, message in [
        (behaviour[:2], 5, r"behaviour: found shape \(2, 4, 3\), expected \(3, 4, 3\)"),
        (2 * behaviour, 5, r"behaviour: found .* at \(0, 0\)"),
        (behaviour, 0, "num_trajectories: found 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample_trajectories(jax.random.key(0), MODEL, law, count)
    with pytest.raises(ValueError, match="key: found None, expected a key"):
        act(LEARN(DATA, TABLE, None, "tv", 0.4, 0.05), TABLE, 0, jnp.arange(4), Rules(ties="random"))


def test_bad_arguments():
    features, weights = MODEL.features, MODEL.reward_weights
    learn = lambda *args, **kwargs: r2pvi(DATA, *args, **kwargs)  # noqa: E731
    for arguments, message in [
        ((2 * features, weights, "tv", 1.0, 1.0), "features: found .*simplex"),
        ((features, 3 * weights, "tv", 1.0, 1.0), "reward: found rewards in"),
        ((features, weights * np.nan, "tv", 1.0, 1.0), "reward: found NaN"),
        ((features, weights, "tv", 0.0, 1.0), r"level: found 0\.0, expected prices above 0"),
        ((features, weights, "kl", jnp.inf, 1.0), "level: found inf, expected finite prices"),
        ((features, weights, "l2", 1.0, 1.0), "divergence: found 'l2'"),
        ((features, weights, "tv", 1.0, -1.0), "penalty: found -1.0"),
        ((features, weights, "tv", 1.0, np.nan), "penalty: found nan"),
        ((features, weights, "tv", 1.0, 1.0, 0.0), "ridge: found 0.0, expected a number above 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            learn(*arguments)
    with pytest.raises(ValueError, match=r"level: found 1\.5, expected radii"):
        drpvi(DATA, features, weights, 1.5, 1.0)
    with pytest.raises(ValueError, match=r"level: found -1\.0, expected finite radii"):
        drvi_l(DATA, features, weights, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"reward: found shape \(3, 2\)"):
        table(features, weights[:, :2])
    with pytest.raises(ValueError, match=r"features: found shape \(3, 3\)"):
        table(features[0], weights)
    assert table(2 * features, 3 * weights, check=False).rewards.shape == (3, 4, 3)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"least: found {value}, expected 'states', 'data' or a finite number"):
            Rules(least=value)
    for wrong, message in [
        ((DATA, TABLE, weights, 0.0), "ridge: found 0.0, expected a number above 0"),
        ((DATA, TABLE, weights, 1.0, None, 2.0), r"smoothing: found 2\.0, expected a number in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            estimate_model(*wrong)
    with pytest.raises(ValueError, match=r"learned: found weights and values of shapes \(3, 3\), \(4, 4\), expected"):
        verify(simulated(), LEARN(DATA, TABLE, None, "tv", 0.4, 0.05), "tv", 1.0)
    for field, value in (("norm", "l2"), ("ties", "last"), ("least", "most")):
        with pytest.raises(ValueError, match=f"{field}: found '{value}'"):
            dataclasses.replace(Rules(), **{field: value})


@pytest.mark.parametrize("name", [*NAMES, "drpvi"])
def test_single_precision(name):
    single = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, tree)  # noqa: E731
    if name == "drpvi":
        learn = jax.jit(lambda data, space: drpvi(data, space, None, 0.2, 0.1))
    else:
        learn = lambda data, space: LEARN(data, space, None, name, 0.4, 0.1)  # noqa: E731
    found = learn(single(DATA), single(TABLE))
    assert found.weights.dtype == found.values.dtype == jnp.float32
    # 2^-24, sums of 200 samples, condition numbers below 100
    np.testing.assert_allclose(found.weights.astype(jnp.float64), learn(DATA, TABLE).weights, rtol=0, atol=1e-4)


def test_drvi_between_the_prices_of_its_grid():
    # The bound of docs/proofs/robust.md#drvi-l: 1.2e-14 in the middle of 16 points of a grid of 256 prices.
    points = jnp.linspace(jnp.log(1e-6), jnp.log(20.0), 256)
    spacing = points[1] - points[0]
    between = jax.jit(jax.vmap(_interpolate, in_axes=(None, 0)))
    for value in (1e-5, 0.3, 5.0, 20.0):
        for first in (0, 100, 240):
            near = points[first : first + 16]
            at = jnp.linspace(7.0, 8.0, 9)
            found = between(jnp.expm1(-value * jnp.exp(-near)), at)
            exact = jnp.expm1(-value * jnp.exp(-(points[first] + spacing * at)))
            # plus the rounding of the grid, whose points are up to 14 in size
            np.testing.assert_allclose(found, exact, rtol=0, atol=1.2e-14 + 64 * jnp.finfo(float).eps)


def test_levels_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"level: found shape \(4,\), expected one that broadcasts to \(3, 3\)"):
        r2pvi(DATA, TABLE, None, "tv", jnp.ones(4), 0.1)
