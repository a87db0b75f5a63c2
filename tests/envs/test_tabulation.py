"""Tables by breadth-first search over the states of a JAX environment."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from envs.tabulation import tabulate
from rlcore.mdp import finite_horizon
from rlcore.planning import backward_induction, coarsest_bisimulation

SIZE = 5


def turn_and_walk(state, action):
    """MiniGrid's empty room of 3 x 3 free cells: (cell, heading), turn left, turn right, forward."""
    cell, heading = state["cell"], state["heading"]
    heading = jnp.where(action == 0, (heading + 3) % 4, jnp.where(action == 1, (heading + 1) % 4, heading))
    ahead = cell + jnp.asarray([[1, 0], [0, 1], [-1, 0], [0, -1]], jnp.int32)[heading]
    cell = jnp.where(action == 2, jnp.clip(ahead, 1, SIZE - 2), cell)
    done = jnp.all(cell == SIZE - 2)
    return {"cell": cell, "heading": heading}, done.astype(jnp.float32), done


START = {"cell": jnp.asarray([1, 1], jnp.int32), "heading": jnp.zeros((), jnp.int32)}


@pytest.mark.parametrize("chunk", [3, 1024])
def test_the_empty_room_is_found_again(chunk):
    found = tabulate(turn_and_walk, START, 3, 100, chunk=chunk)
    room = make("minigrid_empty", size=SIZE)
    np.testing.assert_array_equal(found.mdp.next_state * ~found.mdp.terminal, room.next_state * ~room.terminal)
    for field in ("reward", "terminal", "initial"):
        np.testing.assert_array_equal(getattr(found.mdp, field), getattr(room, field))
    assert found.mdp.horizon == 100 and found.states["cell"].shape == (32, 2)
    np.testing.assert_array_equal(found.states["cell"][0], [1, 1])
    assert coarsest_bisimulation(found.mdp).mdp.prob.shape[0] == 32


def test_the_horizon_cuts_the_table_and_changes_no_value():
    short = tabulate(turn_and_walk, START, 3, 3)
    assert short.depth.max() == 2 and short.mdp.prob.shape[0] < 32
    full = tabulate(turn_and_walk, START, 3, 100).mdp
    for horizon in (3, 6):
        cut = tabulate(turn_and_walk, START, 3, horizon).mdp
        exact = backward_induction(finite_horizon(full, horizon), "mean").value[0, 0]
        assert float(backward_induction(cut, "mean").value[0, 0]) == float(exact)


def test_minus_zero_is_zero():
    flip = lambda state, action: (-state, jnp.zeros(()), jnp.zeros((), bool))  # noqa: E731
    assert tabulate(flip, jnp.zeros(()), 2, 5).mdp.prob.shape[0] == 1


def test_a_cap_tells_how_far_it_came():
    with pytest.raises(ValueError, match=r"max_states: found 20 states by depth \d+ of 100 .* at most 20"):
        tabulate(turn_and_walk, START, 3, 100, max_states=20)
    count = lambda state, action: (state + 1 + action, jnp.zeros(()), jnp.zeros((), bool))  # noqa: E731
    with pytest.raises(ValueError, match=r"max_states: found 50 states by depth 25 of 1000"):
        tabulate(count, jnp.zeros((), jnp.int32), 2, 1000, max_states=50)
