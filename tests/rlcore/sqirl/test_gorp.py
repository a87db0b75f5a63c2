"""GORP against its exact law, its exact law against enumeration, closed forms and the specification's golden values."""

import dataclasses
import itertools
from fractions import Fraction
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.mdp import discounted, finite_horizon, sticky, tabular, uniform_policy
from rlcore.sqirl import GorpPlan, gorp, gorp_failure, gorp_horizon, h_exact, open_loop_return
from rlcore.sqirl.deterministic import deterministic_table, lattice

LOCK = make("combination_lock", length=2, actions=2, distractor=0.6)


def small_problem(rewards, actions=2, states=3, horizon=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (states, actions, 1)
    return tabular(
        rng.integers(0, states, shape),
        np.ones(shape),
        rng.choice(rewards, shape),
        terminal=rng.random(shape) < 0.2,
        horizon=horizon,
    )


def failure_by_enumeration(mdp, k, m):
    """All random draws of all episodes, in fractions."""
    following, terminal = np.asarray(mdp.next_state)[..., 0], np.asarray(mdp.terminal)[..., 0]
    reward = [[Fraction(float(x)).limit_denominator(100) for x in row] for row in np.asarray(mdp.reward)[..., 0]]
    actions = following.shape[1]

    def run(state, choices):
        total = Fraction(0)
        for a in choices:
            if state is None:
                break
            total += reward[state][a]
            state = None if terminal[state, a] else int(following[state, a])
        return total

    def best(state, t):
        return max(run(state, c) for c in itertools.product(range(actions), repeat=mdp.horizon - t))

    def fails(state, t):
        if t == mdp.horizon or state is None:
            return Fraction(0)
        depth = min(k, mdp.horizon - t)
        laws = []
        for sequence in itertools.product(range(actions), repeat=k):
            tails = list(itertools.product(range(actions), repeat=mdp.horizon - t - depth))
            single = [run(state, (*sequence[:depth], *tail)) for tail in tails]
            law = {}
            for draws in itertools.product(single, repeat=m):
                law[sum(draws)] = law.get(sum(draws), 0) + Fraction(1, len(single) ** m)
            laws.append(law)
        choice = [Fraction(0)] * actions
        for scores in itertools.product(*(law.items() for law in laws)):
            first = max(range(len(scores)), key=lambda i: (scores[i][0], -i))
            chance = Fraction(1)
            for _, p in scores:
                chance *= p
            choice[first // actions ** (k - 1)] += chance
        total = Fraction(0)
        for a, chance in enumerate(choice):
            after = None if terminal[state, a] else int(following[state, a])
            worth = reward[state][a] + (best(after, t + 1) if after is not None and t + 1 < mdp.horizon else 0)
            total += chance * (1 if worth < best(state, t) else fails(after, t + 1))
        return total

    return fails(0, 0)


@pytest.mark.parametrize(
    "k,m,rewards", [(1, 2, (0, 1, 2)), (1, 3, (0.2, -0.4, 0.6)), (2, 2, (0, 1)), (3, 1, (0, 1, 3))]
)
def test_failure_is_what_enumerating_all_draws_gives(k, m, rewards):
    for seed in range(3):
        mdp = small_problem(rewards, seed=seed)
        # Transforms of at most 64 points, probabilities of size 1: a few hundred roundings.
        assert gorp_failure(mdp, k, m) == pytest.approx(float(failure_by_enumeration(mdp, k, m)), abs=1e-13)


def test_success_is_not_monotone_in_m():
    success = [1 - gorp_failure(LOCK, 1, m) for m in range(1, 7)]
    closed = [sum(comb(m, i) for i in range(m + 1) if 5 * i > 3 * m) / 2**m for m in range(1, 7)]
    assert success == pytest.approx(closed, abs=1e-14)
    assert closed == [0.5, 0.25, 0.5, 0.3125, 0.1875, 0.34375]
    curve = h_exact(LOCK, 1, range(1, 7))
    assert (curve.smallest, curve.horizon) == (1, 1) and h_exact(LOCK, 1, [2, 4, 5]).smallest == np.inf
    np.testing.assert_allclose(1 - curve.failure, closed, atol=1e-14)


@pytest.mark.parametrize("n,g,m,failure,smallest", [(8, 3, 2, 0.725, None), (12, 3, 6, 0.800, 10), (6, 2, 3, 0.643, 4)])
def test_golden_failures_of_duplicated_actions(n, g, m, failure, smallest):
    mdp = make("dupchain", length=n, copies=g)
    exact = gorp_failure(mdp, 1, m)
    assert abs(exact - failure) < 5e-4
    stay = [1 - (1 - (g / (g + 1)) ** (n - 1 - i)) ** (m * g) for i in range(n)]
    # n products of numbers below 1, binomial masses by lgamma: some tens of roundings.
    assert exact == pytest.approx(1 - np.prod(stay), abs=1e-13)
    if smallest is not None:
        assert h_exact(mdp, 1, range(1, smallest + 1)).smallest == smallest


def test_golden_key_corridor():
    curve = h_exact(make("key_corridor"), 1, [49, 50])
    np.testing.assert_allclose(curve.failure, [0.50617, 0.49752], atol=5e-6)
    assert curve.smallest == 50 and abs(curve.horizon - 3.183) < 5e-4


def test_units_shifts_and_scales_of_rewards_change_nothing():
    mdp = small_problem((0, 1, 2), seed=4)
    base = gorp_failure(mdp, 2, 2)
    scaled = dataclasses.replace(mdp, reward=0.3 * mdp.reward)
    assert gorp_failure(scaled, 2, 2) == pytest.approx(base, abs=1e-13)
    assert gorp_failure(mdp, 2, 2, unit=0.25) == pytest.approx(base, abs=1e-13)
    uniform = np.asarray(uniform_policy(mdp))
    assert gorp_failure(mdp, 2, 2, policy=uniform) == pytest.approx(base, abs=1e-13)
    assert gorp_failure(mdp, 2, 2, policy=np.broadcast_to(uniform, (3, 3, 2))) == pytest.approx(base, abs=1e-13)


def test_exploring_optimally_never_fails():
    mdp = make("combination_lock", length=3, actions=3, distractor=0.5)
    optimal = np.zeros((3, 3))
    optimal[0, 1] = optimal[1, 0] = optimal[2, 0] = 1
    # Rounding of one transform.
    assert gorp_failure(mdp, 1, 1, policy=optimal) < 1e-15


def test_full_depth_never_fails_and_bounds_the_horizon():
    for seed in range(3):
        assert gorp_failure(small_problem((0, 1, 2), seed=seed), 3, 1) < 1e-15
    lock = make("combination_lock", length=3, actions=4, distractor=0.5)
    found = gorp_horizon(lock, max_m=8)
    assert found.horizon == 3 and not found.complete and found.smallest[0] > 1
    assert gorp_horizon(LOCK).horizon == 1


def test_runs_follow_the_exact_law():
    mdp = make("dupchain", length=6, copies=2)
    runs, exact = 4000, gorp_failure(mdp, 1, 4)
    plans = jax.jit(jax.vmap(lambda key: gorp(mdp, 1, 4, key)))(jax.random.split(jax.random.key(0), runs))
    failed = np.mean(np.asarray(plans.total) < 1)
    assert abs(failed - exact) < 4 * np.sqrt(exact * (1 - exact) / runs)
    table = deterministic_table(mdp)
    for actions, total in zip(np.asarray(plans.actions)[:20], np.asarray(plans.total)[:20], strict=True):
        state, paid = 0, 0.0
        for a in actions:
            paid, state = paid + float(table.reward[state, a]), int(table.next_state[state, a])
        assert paid == total


def test_steps_are_counted_from_the_start_of_each_episode():
    endless = tabular(np.zeros((1, 2, 1), int), np.ones((1, 2, 1)), np.zeros((1, 2, 1)), horizon=5)
    assert int(gorp(endless, 2, 3, jax.random.key(0)).steps) == 5 * 5 * 2**2 * 3
    # Ties: the first sequence; the lock's first action ends every episode after one step, the other after two.
    lock = make("combination_lock", length=2, actions=2, distractor=1.0)
    plan = gorp(lock, 1, 1, jax.random.key(0))
    assert plan.actions.tolist() == [0, 0]
    assert int(plan.steps) == (1 + 2) + 2 * 1


def test_the_largest_return_counts_under_max():
    mdp = make("corridor", length=6, horizon=8)
    plans = jax.vmap(lambda key: gorp(mdp, 1, 4, key, score="max"))(jax.random.split(jax.random.key(1), 500))
    mean = jax.vmap(lambda key: gorp(mdp, 1, 4, key))(jax.random.split(jax.random.key(1), 500))
    # The largest of four returns of 0 or 1 says less than how many there were.
    assert np.all(np.asarray(plans.steps) <= 8 * 8 * 2 * 4)
    assert float(mean.total.mean()) >= float(plans.total.mean()) > 0


def test_sticky_plans_are_open_loop_with_exact_returns():
    base = make("corridor", length=3, horizon=6)
    plan = gorp(sticky(base, 0.25), 2, 20, jax.random.key(0))
    assert isinstance(plan, GorpPlan) and plan.actions.shape == (6,)

    def by_enumeration(actions):
        total = 0.0
        for stuck in itertools.product((False, True), repeat=5):
            chance = np.prod([0.25 if s else 0.75 for s in stuck])
            cell, before = 0, 0
            for t, a in enumerate(actions):
                a = before if t > 0 and stuck[t - 1] else a
                before = a
                if a == 1 and cell == 2:
                    total += chance
                    break
                cell = cell + 1 if a == 1 else max(cell - 1, 0)
        return total

    # 32 terms of size below 1.
    assert float(plan.total) == pytest.approx(by_enumeration(plan.actions.tolist()), abs=1e-14)
    still = gorp(sticky(base, 0.0), 2, 20, jax.random.key(0))
    assert float(still.total) == 1 and int(still.steps) <= 36 * 4 * 20
    assert float(open_loop_return(base, jnp.array([1, 1, 0, 1, 1, 0]))) == 1


def test_bad_input_is_refused():
    slippery = make("frozen_lake", size=4, slippery=True)
    with pytest.raises(ValueError, match=r"found a stochastic MDP: \d outcomes"):
        gorp(slippery, 1, 1, jax.random.key(0))
    with pytest.raises(ValueError, match="found a stochastic MDP"):
        gorp_failure(slippery, 1, 1)
    for k in (0, 3):
        with pytest.raises(ValueError, match=rf"k: found {k}, expected .* at most the horizon 2"):
            gorp_failure(LOCK, k, 1)
        with pytest.raises(ValueError, match=f"k: found {k}"):
            gorp(LOCK, k, 1, jax.random.key(0))
    with pytest.raises(ValueError, match="m: found 0"):
        gorp(LOCK, 1, 0, jax.random.key(0))
    with pytest.raises(ValueError, match="m: found 0"):
        gorp_failure(LOCK, 1, 0)
    with pytest.raises(ValueError, match="score: found 'max' with k = 2"):
        gorp(LOCK, 2, 1, jax.random.key(0), score="max")
    with pytest.raises(ValueError, match=r"expected at most the .* one can count"):
        gorp(LOCK, 2, 2**62, jax.random.key(0))
    with pytest.raises(ValueError, match="m_grid: found"):
        h_exact(LOCK, 1, [2, 2])
    with pytest.raises(ValueError, match="unit"):
        gorp_failure(LOCK, 1, 1, unit=0.25)
    with pytest.raises(TypeError, match="StickyMDP"):
        gorp_failure(sticky(LOCK, 0.1), 1, 1)
    with pytest.raises(ValueError, match=r"mdp\.horizon"):
        gorp_failure(finite_horizon(LOCK, None), 1, 1)
    with pytest.raises(ValueError, match=r"mdp\.discount"):
        gorp_failure(discounted(LOCK, 0.9), 1, 1)
    with pytest.raises(ValueError, match=r"mdp\.initial: found 2"):
        gorp_failure(dataclasses.replace(LOCK, initial=jnp.array([0.5, 0.5])), 1, 1)
    with pytest.raises(ValueError, match=r"mdp\.available: found unavailable pair \(0, 1\)"):
        gorp_failure(dataclasses.replace(LOCK, available=jnp.array([[True, False], [True, True]])), 1, 1)


def test_the_unit_of_rewards():
    assert lattice(deterministic_table(LOCK))[1] == pytest.approx(0.2, abs=1e-15)
    single = dataclasses.replace(LOCK, reward=LOCK.reward.astype(jnp.float32))
    assert lattice(deterministic_table(single))[1] == pytest.approx(0.2, abs=1e-15)
    with pytest.raises(ValueError, match="rewards: found"):
        lattice(deterministic_table(dataclasses.replace(LOCK, reward=LOCK.reward * np.pi)), 0.1)


def test_float32_is_refused_by_the_exact_analysis():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="gorp_failure needs float64"):
        gorp_failure(LOCK, 1, 1)
