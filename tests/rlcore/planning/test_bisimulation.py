"""The coarsest bisimulation against problems whose classes are known by construction."""

import numpy as np
import pytest

from envs import make
from rlcore.mdp import tabular
from rlcore.planning import backward_induction, coarsest_bisimulation

# Values of size one over at most 100 steps: 100 (B + 5) eps.
close = dict(rtol=0, atol=3e-13)


def copied(mdp, copies, seed):
    """Every state in several copies, each move leading to a random copy; probabilities split between two copies."""
    rng = np.random.default_rng(seed)
    states, actions, outcomes = mdp.prob.shape
    take = lambda x: np.repeat(np.asarray(x), copies, axis=0)  # noqa: E731
    split = rng.random((states * copies, actions, outcomes))
    prob = take(mdp.prob)
    target = take(mdp.next_state) * copies
    return tabular(
        np.concatenate([target + rng.integers(0, copies, target.shape) for _ in range(2)], axis=-1),
        np.concatenate([prob * split, prob - prob * split], axis=-1),
        np.concatenate([take(mdp.reward)] * 2, axis=-1),
        terminal=np.concatenate([take(mdp.terminal)] * 2, axis=-1),
        horizon=mdp.horizon,
    )


@pytest.mark.parametrize(
    ("id", "parameters"),
    [("key_corridor", {}), ("minigrid_empty", {"size": 6}), ("riverswim", {"length": 6, "horizon": 20})],
)
def test_copies_are_merged_and_nothing_else(id, parameters):
    mdp = make(id, **parameters)
    # KeyCorridor's 156 states are all different, as are the rooms'; turning left and right makes cycles among copies.
    assert coarsest_bisimulation(mdp).mdp.prob.shape[0] == mdp.prob.shape[0]
    found = coarsest_bisimulation(copied(mdp, 3, 0))
    np.testing.assert_array_equal(found.class_of, np.repeat(np.arange(mdp.prob.shape[0]), 3))
    ours, exact = backward_induction(found.mdp).value, backward_induction(mdp).value
    np.testing.assert_allclose(ours, exact, **close)


def test_a_dead_state_is_no_end_and_labels_keep_apart():
    # 0 goes to 1 or 2, which both loop without reward, or ends.
    next_state = np.array([[[1], [2], [0]], [[2], [1], [1]], [[1], [2], [2]]])
    terminal = np.zeros((3, 3, 1), bool)
    terminal[0, 2] = True
    mdp = tabular(next_state, np.ones((3, 3, 1)), np.zeros((3, 3, 1)), terminal=terminal, horizon=4)
    found = coarsest_bisimulation(mdp)
    np.testing.assert_array_equal(found.class_of, [0, 1, 1])
    assert bool(found.mdp.terminal[0, 2, 0]) and not bool(found.mdp.terminal[1].any())
    np.testing.assert_array_equal(coarsest_bisimulation(mdp, np.array([0, 1, 2])).class_of, [0, 1, 2])
    # Without the ending all three are alike.
    assert coarsest_bisimulation(tabular(next_state, np.ones((3, 3, 1)), np.zeros((3, 3, 1)))).mdp.prob.shape[0] == 1


def test_unavailable_actions_are_part_of_a_state():
    available = np.array([[True, True], [True, False], [True, True]])
    mdp = tabular(np.zeros((3, 2, 1), int), np.ones((3, 2, 1)), np.zeros((3, 2, 1)), available=available)
    np.testing.assert_array_equal(coarsest_bisimulation(mdp).class_of, [0, 1, 0])


def test_bad_input():
    mdp = make("zigzag")
    with pytest.raises(ValueError, match=r"labels: found shape \(3,\), expected \[S\] = \(4,\)"):
        coarsest_bisimulation(mdp, np.zeros(3, int))
    varying = tabular(np.zeros((2, 1, 1, 1), int), np.ones((2, 1, 1, 1)), np.zeros((2, 1, 1, 1)))
    with pytest.raises(ValueError, match="time axis"):
        coarsest_bisimulation(varying)
