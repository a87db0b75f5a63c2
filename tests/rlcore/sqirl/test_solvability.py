"""Reachability, ties, gaps and greedy returns against fractions and against the released code's stored answers."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore.episodic import episodic, episodic_values, padded
from rlcore.mdp import sticky, tabular
from rlcore.sqirl import (
    analyze,
    basic_values,
    greedy_actions,
    greedy_return,
    immediate_values,
    min_k,
    num_reachable,
    optimal_actions,
    qvi_step,
    solvable,
)
from theory_checks.sqirl import tied_trap
from theory_checks.sqirl_exact import exact_ladder

# Values of size 1, at most 100 steps of at most 5 operations each: 500 eps is 1.1e-13.
close = dict(rtol=0, atol=2e-13)


def test_zigzag_in_fractions():
    rungs = exact_ladder(make("zigzag"), 3)
    assert [(r.earned, r.certificate, r.solvable) for r in rungs] == [
        (1, Fraction(1, 2), True),
        (Fraction(3, 5), Fraction(3, 5), False),
        (1, 1, True),
    ]
    found = analyze(make("zigzag"))
    np.testing.assert_allclose(found.returns_by_k, [1, 0.6, 1], **close)
    np.testing.assert_allclose(found.gaps_by_k, [0.2, 0, 0.4], **close)
    assert (int(found.min_k), int(found.window)) == (1, 3)


def test_the_slippery_lake_in_fractions():
    lake = make("frozen_lake", size=4, slippery=True)
    rungs = exact_ladder(lake, 13)
    printed = [461601, 373434, 373262, 371105, *[353929] * 3, 457351, 459759, 461346, 461561, 461595, 461601]
    assert [f"{float(r.earned):.6f}" for r in rungs] == [f"0.{digits}" for digits in printed]
    assert [r.solvable for r in rungs] == [False] * 12 + [True]
    found = analyze(lake, max_k=13)
    np.testing.assert_allclose(found.returns_by_k, [float(r.earned) for r in rungs], **close)
    np.testing.assert_allclose(found.certificates, [float(r.certificate) for r in rungs], **close)
    # At the released code's tolerance k = 1 passes: it loses 2.65e-7.
    assert int(found.min_k) == 1
    assert float(rungs[12].earned - rungs[0].earned) == pytest.approx(2.65e-7, abs=5e-10)
    assert int(analyze(lake, max_k=13, tol=1e-6).min_k) == 13
    assert list(np.asarray(found.gaps_by_k) > 0) == [True] + [False] * 11 + [True]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_lock_is_solved_at_its_length(length):
    found = analyze(make("combination_lock", length=length, actions=3, distractor=0.4))
    assert int(found.min_k) == int(found.solvable_k) == length
    one = episodic(make("combination_lock", length=length, actions=3, distractor=0.4))
    values = basic_values(one)
    optimal = optimal_actions(values.optimal.q, one.problem.available[None], 1e-4)
    assert int(min_k(one, values.exploration.q, optimal, length)) == length
    # What no rung reaches is told by the next number.
    if length > 1:
        assert int(min_k(one, values.exploration.q, optimal, length - 1)) == length


def test_all_greedy_policies_by_enumeration():
    rng = np.random.default_rng(0)
    problems = [tied_trap(jax.random.key(0), states=3, steps=2).problem]
    for _ in range(15):
        prob = rng.integers(1, 4, (3, 2, 1)) / 4
        problems.append(
            tabular(
                rng.integers(0, 3, (3, 2, 2)),
                np.concatenate([prob, 1 - prob], axis=-1),
                rng.integers(0, 3, (3, 2, 2)) / 4,
                terminal=rng.random((3, 2, 2)) < 0.25,
                horizon=2,
            )
        )
    ties_mattered = []
    for mdp in problems:
        one = episodic(mdp)
        q = basic_values(one).exploration.q
        greedy = np.asarray(q) >= np.asarray(q).max(axis=-1, keepdims=True)
        returns = []
        for choice in itertools.product((0, 1), repeat=6):
            policy = np.array(choice, np.int32).reshape(2, 3)
            if np.take_along_axis(greedy, policy[..., None], axis=-1).all():
                returns.append(float(episodic_values(one, jnp.asarray(policy)).value[0, 0]))
        earned = greedy_return(one, q)
        assert (float(earned.worst), float(earned.best)) == (min(returns), max(returns))
        optimum = episodic_values(one)
        optimal = optimal_actions(optimum.q, one.problem.available[None], 1e-9)
        assert bool(solvable(one, q, optimal)) == (min(returns) >= float(optimum.value[0, 0]) - 1e-9)
        ties_mattered.append(min(returns) < max(returns))
    assert ties_mattered[0]


def test_key_corridor_as_the_released_code_has_it():
    key = make("key_corridor")
    one = episodic(sticky(key, 0.25))
    assert int(num_reachable(one)) == 892
    # The released code keeps an absorbing state, which the episode walks on in with any action: 6 pairs, 898 in all.
    ended = np.where(np.asarray(key.terminal), 156, np.asarray(key.next_state))
    table = np.concatenate([ended, np.full((1, 6, 1), 156)])
    absorbing = tabular(table, np.ones(table.shape), np.zeros(table.shape), horizon=100)
    assert int(num_reachable(episodic(sticky(absorbing, 0.25)))) == 898
    random = episodic_values(one, "mean").value[0] @ one.problem.initial
    assert float(random) == pytest.approx(0.0010068890119441542, rel=1e-13)
    plain = episodic_values(episodic(key), "mean").value[0] @ key.initial
    assert float(plain) == pytest.approx(0.0032357130021994796, rel=1e-13)


def test_honest_gaps_are_below_an_absolute_tie_tolerance():
    # 16 x 16 cells: gaps of 1.3e-13 at values of 1e-13. A relative tolerance tells them, an absolute 1e-12 does not.
    q = jnp.asarray([[[2.31e-13, 1.0e-13, -jnp.inf]]])
    available = jnp.asarray([[[True, True, False]]])
    np.testing.assert_array_equal(greedy_actions(q, available, 1e-12), [[[True, False, False]]])
    np.testing.assert_array_equal(q >= q.max() - 1e-12, [[[True, True, False]]])
    # Ties by rounding are ties, and an action that is not available never is one.
    q = jnp.asarray([[[0.1 + 0.2, 0.3, 5.0]]])
    np.testing.assert_array_equal(greedy_actions(q, available, 1e-12), [[[True, True, False]]])
    np.testing.assert_array_equal(greedy_actions(q, available, 0.0), [[[True, False, False]]])


def test_padding_changes_no_answer():
    problem = sticky(make("catch", rows=4, columns=3), 0.25)
    wide = padded(problem, states=25, actions=4, branches=4, steps=7)
    answers = []
    for one in (episodic(problem), wide):
        values = basic_values(one)
        optimal = optimal_actions(values.optimal.q, one.problem.available[None], 1e-4)
        q = qvi_step(one, values.exploration.q)
        earned = greedy_return(one, q)
        window = min_k(one, immediate_values(one), optimal, 4)
        answers.append([*earned, solvable(one, q, optimal), window, num_reachable(one)])
    np.testing.assert_allclose(*(np.asarray(a, float) for a in answers), **close)
