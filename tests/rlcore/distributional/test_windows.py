"""Values at the edge of a window: unknown beyond it, known at its last node."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.distributional import Power, stock_grid, stock_value, stock_vi
from rlcore.mdp import tabular


@pytest.fixture(scope="module")
def solution():
    one = np.ones((1, 1, 1))
    problem = tabular(np.zeros((1, 1, 1), int), one, one, discount=1.0, horizon=3)
    return stock_vi(problem, Power(2.0), stock_grid(0, 5, 1))


def test_nodes_are_known_until_a_path_leaves_the_window(solution):
    # three rewards of 1, the last without a node: from c = 0 ... 3 the window holds the path
    found = np.asarray(solution.value.value[0, 0])
    np.testing.assert_array_equal(found, [-9, -16, -25, -36, np.nan, np.nan])


def test_a_node_is_read_whatever_its_neighbour(solution):
    found = [float(stock_value(solution, Power(2.0), jnp.int32(0), c)) for c in (2.5, 3.0, 3.5)]
    np.testing.assert_array_equal(found, [-30.5, -36.0, np.nan])
