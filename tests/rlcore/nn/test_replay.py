"""The ring keeps the latest rows, and draws from what was written alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nn.replay import empty_ring, push, sample


def row(t):
    """Row t of three transitions."""
    return {"x": t * 10 + jnp.arange(3.0), "flag": jnp.array([t % 2 == 0] * 3), "image": jnp.full((3, 2, 2), t)}


def filled(rows, count):
    ring = empty_ring(row(0), rows)
    for t in range(count):
        ring = push(ring, row(t))
    return ring


def test_the_oldest_row_is_written_over():
    ring = filled(4, 6)
    assert int(ring.count) == 6
    np.testing.assert_array_equal(ring.data["x"][:, 0] // 10, [4, 5, 2, 3])
    np.testing.assert_array_equal(ring.data["image"][:, 1, 0, 1], [4, 5, 2, 3])
    assert ring.data["flag"].dtype == bool and ring.data["x"].shape == (4, 3)


@pytest.mark.parametrize(("count", "expected"), [(2, range(2)), (4, range(4)), (6, range(2, 6))])
def test_draws_are_uniform_over_what_is_there(count, expected):
    size = 6000
    drawn = sample(jax.random.key(count), filled(4, count), size)
    values, counts = np.unique(np.asarray(drawn["x"]), return_counts=True)
    np.testing.assert_array_equal(values, sorted(10 * t + i for t in expected for i in range(3)))
    share = 1 / values.size
    # each count is within five standard deviations
    assert np.abs(counts / size - share).max() < 5 * np.sqrt(share / size)
    # the parts of a transition stay together
    np.testing.assert_array_equal(drawn["image"][:, 0, 0], np.asarray(drawn["x"]) // 10)
    np.testing.assert_array_equal(drawn["flag"], np.asarray(drawn["x"]) // 10 % 2 == 0)


def test_a_ring_has_a_row():
    with pytest.raises(ValueError, match="rows: found 0, expected at least one"):
        empty_ring(row(0), 0)
