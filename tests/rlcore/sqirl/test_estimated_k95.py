"""k95 by simulation against the exact analysis, and its intervals against exact returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.episodic import Episodic, episodic, policy_return, stacked
from rlcore.mdp import sticky, tabular, uniform_policy
from rlcore.sqirl import TabularMean, analyze, estimate_k95, sqirl
from rlcore.sqirl.estimated_k95 import solved_depths


def lock(length, distractor=0.6):
    return make("combination_lock", length=length, actions=2, distractor=distractor)


def estimate(problem, seed=0, **changes):
    one = problem if isinstance(problem, Episodic) else episodic(problem)
    words = dict(depths=(1, 2, 3), episodes=512, test_episodes=2**14, bounds=(0.0, 1.0)) | changes
    return estimate_k95(one, TabularMean(), jax.random.key(seed), **words)


# Name: (problem, whether no depth is near the level, so that the intervals decide too).
PROBLEMS = {
    "lock-1": (lock(1), True),
    "lock-2": (lock(2), True),
    "lock-3": (lock(3), True),
    "lock-3 sticky": (sticky(lock(3, 0.3), 0.1), True),
    "zigzag": (make("zigzag"), True),
    "corridor": (make("corridor", length=3, horizon=6), True),
    # What 512 episodes teach of this one earns .95 to .99, and .956 is asked for.
    "catch sticky": (sticky(make("catch", rows=4, columns=3), 0.25), False),
}


@pytest.fixture(scope="module")
def padded_problems():
    """All in one shape, so that a depth is one program."""
    stack = stacked([problem for problem, _ in PROBLEMS.values()])
    return {name: jax.tree.map(lambda x, i=i: x[i], stack) for i, name in enumerate(PROBLEMS)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_finds_the_k95_of_the_exact_analysis(name, padded_problems):
    problem, decided = PROBLEMS[name]
    exact, found = analyze(problem, max_k=problem.horizon), estimate(padded_problems[name])
    assert found.k95 == int(exact.k95)
    assert found.lowest <= found.k95 <= found.highest
    assert not decided or found.lowest == found.highest
    assert found.random_low <= float(exact.random_return) <= found.random_high
    assert np.all(found.low <= float(exact.optimal_return))


def test_intervals_hold_the_exact_returns_of_what_was_learned():
    one = episodic(sticky(make("catch", rows=4, columns=3), 0.25))
    explore = uniform_policy(one.problem)
    random = float(policy_return(one, explore))
    missed = 0
    for seed in range(20):
        found = estimate(one.problem, seed, depths=(1, 2), episodes=4, test_episodes=200, delta=0.3)
        truth = []
        for depth in (1, 2):
            learns, _ = jax.random.split(jax.random.fold_in(jax.random.key(seed), depth))
            learned = sqirl(one, TabularMean(), learns, depth=depth, episodes=4, exploration=explore)
            truth.append(float(policy_return(one, learned.policy)))
        # What the interval of k95 is about.
        needed = [random if j == k else 0.05 * random + 0.95 * truth[j] for k in (0, 1) for j in (0, 1)]
        reached = [*(truth[k] >= max(needed[2 * k : 2 * k + 2]) - 1e-12 for k in (0, 1)), True]
        held = np.all((found.low <= truth) & (truth <= found.high)) and found.random_low <= random <= found.random_high
        missed += not held
        assert not held or found.lowest <= 1 + int(np.argmax(reached)) <= found.highest
    # At most 0.3 of them miss: 14 of 20 has probability 4e-5.
    assert missed < 14


def test_what_is_sure_holds_and_what_holds_is_possible():
    draw = np.random.default_rng(0)
    decided = 0
    for _ in range(300):
        low = draw.uniform(0, 1, 4)
        high = low + draw.uniform(0, 0.1, 4)
        floor = draw.uniform(0, 0.3)
        ceiling = floor + draw.uniform(0, 0.1)
        best = draw.choice([None, 1.1])
        middle = (low + high) / 2
        _, surely, possibly = solved_depths(middle, low, high, (floor, floor, ceiling), best, 0.8)
        for _ in range(20):
            value, start = draw.uniform(low, high), draw.uniform(floor, ceiling)
            holds, *_ = solved_depths(value, low, high, (start, floor, ceiling), best, 0.8)
            np.testing.assert_array_equal(
                holds, value >= start + 0.8 * ((value.max() if best is None else best) - start) - 1e-12
            )
            assert np.all(~surely | holds) and np.all(~holds | possibly)
        decided += np.sum(surely == possibly)
    assert decided > 600  # of 1200: mostly not vacuous


def test_without_a_deep_enough_depth_the_optimum_must_be_given():
    found = estimate(lock(3), depths=(1, 2))
    assert found.k95 == 1
    found = estimate(lock(3), depths=(1, 2), optimal_return=1.0)
    assert found.k95 == found.lowest == found.highest == 3


def test_optimism_is_the_fitted_value_of_the_start_less_the_return():
    # A sure reward at depth 1, a right dial and a sure 1 at depth 2: means of equal numbers, up to rounding.
    found = estimate(lock(2), depths=(1, 2), test_episodes=16)
    np.testing.assert_allclose(found.returns, [0.6, 1.0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.optimism, [0.0, 0.0], rtol=0, atol=512 * 2.3e-16)


def test_a_fit_of_few_samples_is_found_out():
    # Sixteen fair coins: the best of a few tosses each looks like 1 and earns 1/2.
    coins = tabular(
        jnp.zeros((1, 16, 2), int), jnp.full((1, 16, 2), 0.5), jnp.tile(jnp.array([0.0, 1.0]), (1, 16, 1)), horizon=1
    )
    few, many = (estimate(coins, depths=(1,), episodes=m) for m in (32, 2**16))
    # The largest of 16 means of 2 tosses is 1 but for .75^16; that of 4096 is within five standard errors of 1/2.
    assert few.optimism[0] > 0.3 and few.optimism_low[0] > 0.2
    assert abs(many.optimism[0]) < 5 * (0.5 / 64 + 0.5 / 128)


def test_steps_are_those_taken():
    found = estimate(make("riverswim", length=4, horizon=5), depths=(1, 3), episodes=8, test_episodes=16)
    # Nothing ends a river: T^2 m to learn at each depth, T n to test each and exploration.
    assert found.steps == 2 * 25 * 8 + 3 * 5 * 16


def test_bad_input():
    for depths in ((), (0, 1), (2, 2)):
        with pytest.raises(ValueError, match=r"depths: found .*, expected increasing numbers from 1 on"):
            estimate(lock(2), depths=depths)
    with pytest.raises(ValueError, match="test_episodes: found 1, expected at least 2"):
        estimate(lock(2), test_episodes=1)
    for name in ("level", "delta"):
        with pytest.raises(ValueError, match=rf"{name}: found 1.0, expected a number in \(0, 1\)"):
            estimate(lock(2), **{name: 1.0})
    with pytest.raises(ValueError, match=r"bounds: found returns from 0.6 to 0.6, expected 0.0 to 0.5"):
        estimate(lock(2), bounds=(0.0, 0.5), depths=(1,))
