"""The enumeration of rules, and what follows from the drawn maps."""

import numpy as np
import pytest

from envs.gridworlds import MAPS, grid
from envs.rules import Outcome, Rules, enumerate_states, from_rules


def test_states_come_breadth_first_and_equal_outcomes_merge():
    def outcomes(state, action):
        if action == 0:
            return [Outcome(0.25, 2 * state, 1.0), Outcome(0.5, 2 * state, 1.0), Outcome(0.25, 2 * state, 0.0)]
        return [Outcome(1.0, None if state >= 4 else 2 * state + 1, 0.5)]

    rules = Rules(1, lambda s, a: outcomes(s, a) if s < 8 else [Outcome(1.0, None, 0.0)], 2, 5)
    table = enumerate_states(rules)
    assert table.states[:5] == [1, 2, 3, 4, 5] and len(table.states) == len(set(table.states))
    assert table.prob.shape == (len(table.states), 2, 2)
    np.testing.assert_array_equal(table.next_state[0], [[1, 1], [2, 0]])
    np.testing.assert_array_equal(table.prob[0], [[0.75, 0.25], [1, 0]])
    np.testing.assert_array_equal(table.reward[0], [[1, 0], [0.5, 0]])
    row = table.states.index(4)
    assert table.terminal[row, 1].tolist() == [True, False] and table.next_state[row, 1, 0] == row
    mdp = from_rules(rules)
    assert mdp.horizon == 5 and mdp.initial[0] == 1


def test_endless_rules_stop_at_max_states():
    endless = Rules(0, lambda s, a: [Outcome(1.0, s + 1, 0.0)], 1, 5)
    with pytest.raises(ValueError, match="max_states: found more than 50 states"):
        enumerate_states(endless, max_states=50)
    assert (
        len(enumerate_states(endless._replace(outcomes=lambda s, a: [Outcome(1.0, (s + 1) % 50, 0.0)]), 50).states)
        == 50
    )


def test_rules_whose_probabilities_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="prob"):
        from_rules(Rules(0, lambda s, a: [Outcome(0.9, None, 0.0)], 1, 5))


def test_states_of_a_map_are_its_free_cells():
    letters = {(i, j): c for i, row in enumerate(MAPS["four_rooms"]) for j, c in enumerate(row)}
    states = enumerate_states(grid(MAPS["four_rooms"], 50)).states
    assert states[0] == (1, 1) and set(states) == {cell for cell, c in letters.items() if c in "S."}


def test_slipping_is_the_mean_of_three_sure_directions():
    sure, slippery = (enumerate_states(grid(MAPS["frozen_lake_8"], 60, slippery=s)) for s in (False, True))
    order = [sure.states.index(cell) for cell in slippery.states]
    value = np.sin(np.arange(len(order)))

    def backup(table, value):
        return np.sum(table.prob * (table.reward + np.where(table.terminal, 0, value[table.next_state])), -1)

    one = backup(sure, value)[order]
    three = backup(slippery, value[order])
    # the mean of three terms below 2, summed in another order
    np.testing.assert_allclose(three, (one + np.roll(one, 1, 1) + np.roll(one, -1, 1)) / 3, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "rows: found lengths"),
        (("SG", "."), r"rows: found lengths \[2, 1\]"),
        (("SG?",), r"rows: found letters \['\?'\]"),
        (("S.",), "rows: found 1 S and 0 G"),
        (("SSG",), "rows: found 2 S and 1 G"),
    ],
)
def test_bad_maps_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        grid(rows, 10)
