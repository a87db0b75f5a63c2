"""SQIRL by step and pooled: rollouts, oracles, what is learned, and sums against a replay scanned anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.episodic import episodic, episodic_values, padded, policy_return, policy_state, reset, step
from rlcore.mdp import finite_horizon, greedy_policy, sticky, uniform_policy
from rlcore.sqirl import (
    PerceptronFit,
    RidgeFit,
    Samples,
    TabularMean,
    basic_values,
    exploration_occupancy,
    gorp_complexity,
    pooled_sqirl,
    qvi_step,
    rollouts,
    sample_complexity,
    sqirl,
)
from rlcore.sqirl.rollout import choose

LOCK = dict(id="combination_lock", length=2, actions=2, distractor=0.7)


def catch(stick=0.25):
    return sticky(make("catch", rows=4, columns=3), stick)


# ---- rollouts --------------------------------------------------------------------------------------------------------


def test_rollouts_have_the_law_of_their_policies():
    one = padded(catch(), states=25, steps=6)
    explore = uniform_policy(one.problem)
    best = greedy_policy(episodic_values(one).q, one.problem.available)
    mixed = jnp.where(jnp.arange(6)[:, None, None] < 2, jax.nn.one_hot(best, 3), explore)
    m = 20_000
    data = rollouts(one, best, jnp.array(2), explore, jax.random.key(0), episodes=m)
    occupancy = exploration_occupancy(one, mixed)
    for t in range(6):
        count = np.zeros(occupancy.shape[1:])
        np.add.at(count, (data.state[t], data.action[t]), np.asarray(data.running[t], float))
        # Five standard errors of a frequency; 75 rows times 3 actions times 6 steps are looked at.
        p = np.asarray(occupancy[t])
        assert np.all(np.abs(count / m - p) <= 5 * np.sqrt(p * (1 - p) / m) + 1e-15)
    assert not np.any(data.running[4:]) and np.all(data.over[3] | ~data.running[3])
    returns = np.asarray(jnp.sum(data.reward, axis=0))
    expected = float(policy_return(one, mixed))
    assert abs(returns.mean() - expected) <= 5 * returns.std() / np.sqrt(m)


# ---- oracles ---------------------------------------------------------------------------------------------------------


def some_samples(n=200, states=4, actions=3):
    keys = jax.random.split(jax.random.key(3), 4)
    return Samples(
        jax.random.randint(keys[0], (n,), 0, states - 1),  # the last row is never seen
        jax.random.randint(keys[1], (n,), 0, actions),
        jax.random.normal(keys[2], (n,)),
        jax.random.bernoulli(keys[3], 0.7, (n,)).astype(float),
    )


def test_tabular_means_and_ridge_on_indicators():
    samples = some_samples()
    table = np.asarray(TabularMean(0.25).fit(samples, (4, 3)))
    for s in range(4):
        for a in range(3):
            here = (np.asarray(samples.state) == s) & (np.asarray(samples.action) == a)
            here &= np.asarray(samples.weight) > 0
            expected = np.asarray(samples.target)[here].mean() if here.any() else 0.25
            # Sums of at most 200 numbers of size 3.
            assert abs(table[s, a] - expected) <= 200 * 3 * 2.3e-16
    indicators = jnp.eye(12).reshape(4, 3, 12)
    fitted = RidgeFit(indicators, 1e-8).fit(samples, (4, 3))
    counts = TabularMean(0.0).fit(samples._replace(target=jnp.ones(200)), (4, 3))
    # The penalty shrinks a mean of n >= 5 samples by 1e-8 / n at most.
    np.testing.assert_allclose(fitted[:3], table[:3], rtol=0, atol=1e-8)
    assert np.all(np.asarray(fitted[3]) == 0) and np.all(np.asarray(counts[3]) == 0)
    with pytest.raises(ValueError, match=r"features: found shape \(4, 3, 12\), expected \(4, 2\)"):
        RidgeFit(indicators).fit(samples, (4, 2))


def test_a_perceptron_fits_a_table():
    samples = some_samples()._replace(target=None)
    truth = jnp.array([[0.0, 1.0, 0.5], [0.2, -0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    samples = samples._replace(target=truth[samples.state, samples.action])
    fitted = PerceptronFit(jnp.eye(4), 1e-2, hidden=(32,), epochs=200).fit(samples, (4, 3), jax.random.key(0))
    # No noise and fewer cells than weights: what is left is Adam's, far below the entries.
    np.testing.assert_allclose(fitted[:3], truth[:3], atol=0.02)
    with pytest.raises(ValueError, match="features: found 4 rows, expected 5"):
        PerceptronFit(jnp.eye(4)).fit(samples, (5, 3), jax.random.key(0))


# ---- by step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", ["shared", "split"])
@pytest.mark.parametrize(("depth", "expected"), [(1, 0.7), (2, 1.0)])
def test_depth_decides_on_the_lock(folds, depth, expected):
    one = episodic(make(**LOCK))
    learned = sqirl(one, TabularMean(0.5), jax.random.key(0), depth=depth, episodes=500, folds=folds, clip=(0.0, 1.0))
    assert float(policy_return(one, learned.policy)) == pytest.approx(expected, abs=1e-15)
    most = 2 * 2 * 500 * (depth if folds == "split" else 1)
    assert int(learned.steps) <= most


def test_values_tend_to_the_ladder_where_the_data_goes():
    one = padded(catch(), states=25, steps=6)
    m = 20_000
    learned = sqirl(one, TabularMean(), jax.random.key(1), depth=2, episodes=m)
    exact = qvi_step(one, basic_values(one).exploration.q)
    taken = jax.nn.one_hot(learned.policy, 3)
    for i in range(4):
        mixed = jnp.where(jnp.arange(6)[:, None, None] < i, taken, uniform_policy(one.problem))
        p = np.asarray(exploration_occupancy(one, mixed)[i])
        often = p > 1e-3
        # Returns in [0, 1]: five standard errors of a mean of two regressions, the second's error adding to the first.
        bound = 10 * np.sqrt(0.25 / (m * p[often] / 9))
        assert np.all(np.abs(np.asarray(learned.values[i] - exact[i]))[often] <= bound)
    assert float(policy_return(one, learned.policy)) > 0.9


def test_padding_changes_nothing_that_is_learned():
    problem = sticky(make("riverswim", length=4, horizon=5), 0.25)
    small, large = episodic(problem), padded(problem, states=6, branches=4, steps=8)
    one, other = (
        sqirl(problem, TabularMean(), jax.random.key(5), depth=2, episodes=40, folds="split")
        for problem in (small, large)
    )
    np.testing.assert_array_equal(one.policy, other.policy[:5, :8])
    np.testing.assert_array_equal(one.values, other.values[:5, :8])
    # Nothing ends a river: T^2 m steps for each of two folds.
    assert int(one.steps) == int(other.steps) == 2 * 25 * 40
    one, other = (pooled_sqirl(p, jax.random.key(5), depth=2, episodes=40, max_depth=3) for p in (small, large))
    np.testing.assert_array_equal(one.policy, other.policy[:5, :8])
    assert int(one.steps) == int(other.steps) == 25 * 40


def test_an_action_that_exploration_never_takes_is_never_learned():
    one = episodic(make(**LOCK))
    biased = jnp.array([[1.0, 0.0], [0.5, 0.5]])
    learned = sqirl(one, TabularMean(), jax.random.key(0), depth=2, episodes=2000, exploration=biased)
    assert float(policy_return(one, learned.policy)) == pytest.approx(0.7, abs=1e-15)


def test_runs_side_by_side_are_single_runs():
    one = episodic(catch())
    keys = jax.random.split(jax.random.key(7), 3)
    run = lambda key: sqirl(one, TabularMean(), key, depth=2, episodes=20)  # noqa: E731
    together = jax.vmap(run)(keys)
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(together.policy[i], run(key).policy)


def test_bad_input_by_step():
    one, key = episodic(make(**LOCK)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"depth, episodes: found 0, 5"):
        sqirl(one, TabularMean(), key, depth=0, episodes=5)
    with pytest.raises(ValueError, match=r"folds: found 'fresh'"):
        sqirl(one, TabularMean(), key, depth=1, episodes=5, folds="fresh")


# ---- pooled ----------------------------------------------------------------------------------------------------------


def replayed(one, key, depth, episodes, lanes):
    """Pooled SQIRL by a list of samples, all scanned again at every step; the same keys, one episode after another."""
    steps, problem = int(one.length), one.problem
    shape = problem.available.shape
    explore = uniform_policy(problem)
    policy = np.zeros((problem.horizon, shape[0]), np.int32)
    replay, taken = [], 0
    for i in range(steps):
        for block in range(-(-episodes // lanes)):
            starts, moves = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, i), block))
            starts = jax.random.split(starts, lanes)
            for lane in range(min(lanes, episodes - block * lanes)):
                state, path = reset(one, starts[lane]), []
                for t in range(steps):
                    if int(state.t) >= steps:
                        break
                    acts, goes = jax.random.split(jax.random.split(jax.random.fold_in(moves, t), lanes)[lane])
                    row, action = choose(one, state, jnp.asarray(policy), jnp.asarray(i), explore, acts)
                    state, reward, over = step(one, state, action, goes)
                    path.append((int(row), int(action), float(reward), int(policy_state(one, state)), bool(over)))
                taken += len(path)
                rewards = [reward for _, _, reward, _, _ in path]
                replay += [(*path[t], sum(rewards[t:])) for t in range(i, len(path))]
        q = None
        for _ in range(depth):
            total, count = np.zeros(shape), np.zeros(shape)
            for row, action, reward, following, over, togo in replay:
                total[row, action] += togo if q is None else reward + (0 if over else q[following].max())
                count[row, action] += 1
            q = total / np.maximum(count, 1)
        policy[i] = q.argmax(axis=1)
    return policy, q, taken


@pytest.mark.parametrize("stick", [0.0, 0.4])
def test_sums_are_a_replay_scanned_again(stick):
    mdp = make("frozen_lake", size=4, slippery=True)
    problem = finite_horizon(sticky(mdp, stick) if stick else mdp, 5)
    one = padded(problem, steps=6)
    learned = pooled_sqirl(one, jax.random.key(2), depth=3, episodes=7, max_depth=4, lanes=3)
    policy, q, taken = replayed(one, jax.random.key(2), 3, 7, 3)
    # Sums of at most 5 * 7 * 5 numbers in [0, 1].
    np.testing.assert_allclose(learned.values, q, rtol=0, atol=175 * 2.3e-16)
    np.testing.assert_array_equal(learned.policy, policy)
    assert int(learned.steps) == taken


def test_bad_input_pooled():
    one, key = episodic(make(**LOCK)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"depth: found 3, expected 1 to max_depth = 2"):
        pooled_sqirl(one, key, depth=3, episodes=5, max_depth=2)
    with pytest.raises(ValueError, match=r"episodes: found 0"):
        pooled_sqirl(one, key, depth=1, episodes=0, max_depth=2)
    with pytest.raises(ValueError, match=r"max_depth, lanes: found 1, 0"):
        pooled_sqirl(one, key, depth=1, episodes=1, max_depth=1, lanes=0)


# ---- sample complexity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["pooled", "by_step"])
def test_the_search_stops_at_the_first_success_of_the_median(learner):
    one = padded(make("combination_lock", length=3, actions=2, distractor=0.6), states=4, steps=4)
    found = sample_complexity(one, jax.random.key(0), learner=learner, depths=(1, 3), seeds=3, max_steps=20_000)
    assert found.depth == 3 and found.tried[-1] == found.episodes
    solved = found.returns >= found.target
    assert not np.any(np.sum(solved[:-1], axis=2) >= 2) and np.sum(solved[-1, 1]) >= 2
    assert found.steps == np.sort(np.where(solved[-1, 1], found.taken[-1, 1], np.inf))[1] <= 9 * found.episodes
    # Depth 1 takes the sure reward from some m on, and a median of it never solves what is tried last.
    never = sample_complexity(one, jax.random.key(0), learner=learner, depths=(1,), seeds=3, max_steps=9)
    assert never.steps == np.inf and never.depth == 0 and list(never.tried) == [1]


def test_bad_input_of_the_search():
    one, key = episodic(make(**LOCK)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"learner: found 'deep'"):
        sample_complexity(one, key, learner="deep")
    with pytest.raises(ValueError, match=r"seeds: found 4, expected an odd number"):
        sample_complexity(one, key, seeds=4)
    with pytest.raises(ValueError, match=r"depths: found \(0, 1\)"):
        sample_complexity(one, key, depths=(0, 1))
    with pytest.raises(ValueError, match=r"max_steps: found 3, expected at least length\^2 = 4"):
        sample_complexity(one, key, max_steps=3)


@pytest.mark.parametrize("rho", [0.0, 0.25])
def test_the_search_for_gorp_plans_at_its_depth(rho):
    lock = make("combination_lock", length=2, actions=2, distractor=0.6)
    problem = sticky(lock, rho) if rho else lock
    found = gorp_complexity(problem, jax.random.key(0), depths=(1, 2), seeds=3, max_steps=64)
    solved = found.returns >= found.target
    assert found.steps == np.sort(np.where(solved[-1], found.taken[-1], np.inf), axis=1)[:, 1].min()
    assert list(found.tried) == [2**i for i in range(len(found.tried))]
    # All pairs of actions are tried; the sticky lock has nothing better than the sure reward, or the same plan.
    assert found.steps <= 4 * 4 * found.episodes
    if not rho:
        # Depth 1 with one episode opens it by luck alone; depth 2 always: four sequences, two decisions.
        assert found.episodes == 1 and found.steps <= 4 * 4 and solved[0, 1].all()
    # Depths beyond the horizon of two are left out.
    assert gorp_complexity(problem, jax.random.key(0), depths=(1, 2, 3), seeds=1, max_steps=16).returns.shape[1] == 2
    # k = 2 costs 16 steps an episode and is left out where 15 are allowed.
    short = gorp_complexity(problem, jax.random.key(0), depths=(1, 2), seeds=1, max_steps=15, level=2.0)
    assert short.steps == np.inf and np.isnan(short.returns[:, 1]).all() and not np.isnan(short.returns[:, 0]).any()


def test_bad_input_of_the_search_for_gorp():
    lock, key = make(**LOCK), jax.random.key(0)
    with pytest.raises(ValueError, match=r"seeds: found 2, expected an odd number"):
        gorp_complexity(lock, key, seeds=2)
    with pytest.raises(ValueError, match=r"depths, growth: found \(1,\), 1"):
        gorp_complexity(lock, key, depths=(1,), growth=1)
    with pytest.raises(ValueError, match=r"max_steps: found 3, expected at least length\^2 A\^k"):
        gorp_complexity(lock, key, max_steps=3)
