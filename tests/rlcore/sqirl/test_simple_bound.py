"""Bounds on what GORP needs: golden values of the released code, soundness, and what is refused."""

import jax
import numpy as np
import pytest

from envs import make
from rlcore.mdp import tabular
from rlcore.sqirl import (
    gorp_failure,
    optimistic_median,
    optimistic_steps,
    released_failure,
    released_horizon,
    released_search,
    simple_bound,
)
from rlcore.sqirl.released_bounds import CORRECTED, binomial_limits

LOCK = make("combination_lock", length=2, actions=2, distractor=0.6)


def trap():
    """The specification's counterexample (T7) to the released formula: 256 actions, two steps."""
    following, reward = np.zeros((3, 256, 1), int), np.zeros((3, 256, 1))
    terminal = np.ones((3, 256, 1), bool)
    following[0], following[0, 0], terminal[0] = 2, 1, False
    reward[0, 0], reward[1, :12], reward[2, 0] = 0.9, 0.1, 0.95
    return tabular(following, np.ones((3, 256, 1)), reward, terminal=terminal, horizon=2)


def test_golden_simple_bounds_of_key_corridor():
    mdp = make("key_corridor")
    official, sound = (simple_bound(mdp, mode) for mode in ("official", "sound"))
    assert official.horizon == 16 and official.episodes[0] == 6667295335345
    assert official.gap[0] == pytest.approx(1.70146e-11, rel=1e-6)
    assert sound.episodes[0] == pytest.approx(3.889e12, rel=1e-3)


def test_the_released_formula_fails_where_the_sound_one_holds():
    mdp = trap()
    official, sound = (simple_bound(mdp, mode) for mode in ("official", "sound"))
    assert official.episodes == (1,) and official.horizon == 1 and sound.episodes == (10,)
    # Sums of 255 products of numbers below 1.
    closed = 1 - (1 - (1 - (255 / 256) ** 255)) - (1 - (255 / 256) ** 255) * 12 / 256
    assert gorp_failure(mdp, 1, 1) == pytest.approx(closed, abs=1e-12)
    assert closed > 0.6 and gorp_failure(mdp, 1, 10) < 0.5


def test_a_problem_that_is_not_separated_has_no_bound_below_its_horizon():
    bound = simple_bound(LOCK)
    assert bound.horizon == 2 and bound.episodes == (np.inf,)


@pytest.mark.parametrize("n,g,m,claimed", [(8, 3, 2, 0.336), (12, 3, 6, 0.464), (6, 2, 3, 0.412)])
def test_the_released_tight_bound_is_replicated_and_no_bound(n, g, m, claimed):
    mdp = make("dupchain", length=n, copies=g)
    released = released_failure(mdp, 1, m)
    assert abs(released - claimed) < 5e-4 and gorp_failure(mdp, 1, m) > released + 0.2
    # Tight here, so up to rounding of some tens of operations on numbers below 1.
    assert released_failure(mdp, 1, m, methods=(CORRECTED,)) >= gorp_failure(mdp, 1, m) - 1e-13


@pytest.mark.parametrize("method", ["bennett", "bernstein", "berry-esseen", CORRECTED])
def test_the_other_methods_bound_the_exact_failure(method):
    for mdp, m in [(make("dupchain", length=6, copies=2), 8), (make("corridor", length=4, horizon=6), 40)]:
        assert released_failure(mdp, 1, m, methods=(method,)) >= gorp_failure(mdp, 1, m) - 1e-12


def test_limits_of_binomials_hold_the_chance_to_be_the_first_largest():
    q, m = np.array([0.0, 0.3, 0.3, 0.6]), 5
    counts = np.arange(m + 1)
    from scipy.stats import binom

    mass = binom.pmf(counts, m, q[:, None])
    chance = [
        sum(mass[i, c] * np.prod([mass[j, : c if j < i else c + 1].sum() for j in range(4) if j != i]) for c in counts)
        for i in range(4)
    ]
    low, high = binomial_limits(q, m, atom=True)
    assert np.all(low <= np.array(chance) + 1e-14) and np.all(chance <= high + 1e-14)
    # All others at 0: the atom alone.
    low, high = (binomial_limits(np.array([0.0, 0.3, 0.3, 0.3]), 2, atom=atom)[1][0] for atom in (False, True))
    assert low == 0 and high == pytest.approx(0.7**6, abs=1e-15)


@pytest.mark.slow
def test_the_released_tight_bound_of_key_corridor():
    # The released code says 244: its bisection ends within one per cent of the least number that passes, 243.
    mdp = make("key_corridor")
    passes = [released_failure(mdp, 1, m, methods=("binomial",)) <= 0.5 for m in (242, 243)]
    assert passes == [False, True]
    assert released_search(lambda m: m >= 243, 10**100, 1.01) == 244


def test_the_released_search_misses_what_is_not_monotone():
    works = lambda m: gorp_failure(LOCK, 1, m) <= 0.5  # noqa: E731
    assert released_search(works, 64) == np.inf and works(1)
    assert released_search(lambda m: m >= 37, 10**6) == 37 and released_search(lambda m: True, 5) == 1


def test_optimism_finds_the_treasure_in_few_episodes():
    mdp = make("deep_sea", size=6)
    steps = np.asarray(jax.vmap(lambda key: optimistic_steps(mdp, key))(jax.random.split(jax.random.key(0), 25)))
    # Every episode tries at least one of the 42 pairs, or is the last.
    assert np.all(np.isfinite(steps)) and np.all(steps % 6 == 0) and np.all(steps <= 43 * 6)
    assert optimistic_median(mdp, jax.random.key(0)) == np.sort(steps)[12]
    assert float(optimistic_steps(mdp, jax.random.key(0), max_steps=6)) == np.inf


def test_bad_input_is_refused():
    slippery = make("frozen_lake", size=4, slippery=True)
    for call in (simple_bound, lambda m: released_failure(m, 1, 1), lambda m: optimistic_steps(m, jax.random.key(0))):
        with pytest.raises(ValueError, match="found a stochastic MDP"):
            call(slippery)
    with pytest.raises(ValueError, match="mode: found 'tight'"):
        simple_bound(LOCK, "tight")
    with pytest.raises(ValueError, match="methods: found"):
        released_failure(LOCK, 1, 1, methods=("hoeffding",))
    with pytest.raises(ValueError, match="m: found 0"):
        released_failure(LOCK, 1, 0)
    with pytest.raises(ValueError, match="k: found 3"):
        released_horizon(LOCK, 3)
    with pytest.raises(ValueError, match="runs: found 0"):
        optimistic_median(LOCK, jax.random.key(0), runs=0)
