"""The loops against hand-rolled Python loops on a linear recursion with a known fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import solver as solvers
from rlcore.pytree import pytree
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, fixed_point, iterate, trace_steps


@pytree
class Relax:
    """x <- x + rate (target - x), optionally with noise: the smallest honest solver."""

    rate: object
    noise: object = 0.0

    def init(self, problem, key):
        return jnp.zeros_like(problem)

    def step(self, problem, state, key):
        new = state + self.rate * (problem - state)
        return new if key is None else new + self.noise * jax.random.normal(key, state.shape)


TARGET = jnp.array([1.0, -2.0])


def distance(problem, state):
    return jnp.max(jnp.abs(problem - state))


def test_iterate_equals_a_python_loop():
    x, rows = np.zeros(2), [np.zeros(2)]
    for _ in range(7):
        x = x + 0.3 * (np.array(TARGET) - x)
        rows.append(x)
    state, trace = iterate(Relax(0.3), TARGET, 7, observe=lambda p, s: s)
    np.testing.assert_allclose(trace, rows, rtol=1e-15)
    np.testing.assert_array_equal(state, trace[-1])


def test_strides_and_arrays_of_steps_pick_rows_of_the_full_trace():
    full = iterate(Relax(0.3), TARGET, 23, observe=distance)[1]
    for every in (5, np.array([0, 1, 2, 4, 8, 16]), np.array([23]), np.array([3, 7])):
        state, trace = iterate(Relax(0.3), TARGET, 23, observe=distance, every=every)
        np.testing.assert_array_equal(trace, full[trace_steps(23, every)])
        np.testing.assert_array_equal(distance(TARGET, state), full[-1])


def test_the_number_of_steps_may_be_traced():
    full = iterate(Relax(0.3), TARGET, 23, observe=distance)[1]
    run = jax.jit(lambda last: iterate(Relax(0.3), TARGET, None, observe=distance, every=jnp.array([0, 1]) * last))
    for last in (5, 23):
        state, trace = run(last)
        np.testing.assert_array_equal(trace, full[jnp.array([0, last])])
        np.testing.assert_array_equal(distance(TARGET, state), full[last])


def test_keys_depend_on_the_step_number_only():
    key, noisy = jax.random.key(0), Relax(0.3, 0.1)
    full = iterate(noisy, TARGET, 12, key=key, observe=lambda p, s: s)[1]
    strided = iterate(noisy, TARGET, 12, key=key, observe=lambda p, s: s, every=4)[1]
    np.testing.assert_array_equal(strided, full[::4])
    np.testing.assert_array_equal(iterate(noisy, TARGET, 12, key=key)[0], full[-1])
    assert not np.allclose(full, iterate(Relax(0.3, 0.0), TARGET, 12, key=key, observe=lambda p, s: s)[1])


def test_new_numbers_do_not_compile_again():
    iterate(Relax(0.3), TARGET, 5, observe=distance)
    before = solvers._iterate_strided._cache_size()
    iterate(Relax(0.4), TARGET, 5, observe=distance)
    assert solvers._iterate_strided._cache_size() == before


def test_vmap_over_solver_numbers_equals_a_loop():
    rates = jnp.array([0.1, 0.5, 0.9])
    batched = jax.vmap(lambda rate: iterate(Relax(rate), TARGET, 9, observe=distance)[1])(rates)
    for row, rate in zip(batched, rates, strict=True):
        np.testing.assert_allclose(row, iterate(Relax(rate), TARGET, 9, observe=distance)[1], rtol=1e-14)


@pytest.mark.parametrize("check_every", [1, 4])
def test_fixed_point_stops_at_the_certificate(check_every):
    solution = fixed_point(Relax(0.5), TARGET, distance, 1e-9, 1000, check_every=check_every)
    assert solution.status == CONVERGED and solution.bound <= 1e-9
    # error after t steps is 2 * 0.5**t: the first t with 2**(1 - t) <= 1e-9 is 31
    assert solution.steps == -(-31 // check_every) * check_every
    np.testing.assert_allclose(solution.value, TARGET, atol=1e-9)


def test_fixed_point_tells_how_it_failed():
    assert fixed_point(Relax(0.5), TARGET, distance, 1e-9, 5).status == STEP_LIMIT
    diverging = fixed_point(Relax(1e200), TARGET, distance, 1e-9, 100)
    assert diverging.status == NOT_FINITE and diverging.bound == np.inf
    lanes = jax.vmap(lambda rate: fixed_point(Relax(rate), TARGET, distance, 1e-9, 100))(jnp.array([0.5, 1e-3, 1e200]))
    np.testing.assert_array_equal(lanes.status, [CONVERGED, STEP_LIMIT, NOT_FINITE])
    assert lanes.steps[0] == 31
    with pytest.raises(RuntimeError, match="step limit reached"):
        solvers.require_converged(lanes, "relaxation")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_steps": -1}, "num_steps: found -1"),
        ({"num_steps": None}, "num_steps: found None"),
        ({"num_steps": 3, "every": 0}, "every: found 0"),
        ({"num_steps": 3, "every": np.array([2, 1])}, "increasing"),
        ({"num_steps": 3, "every": np.array([0, 4])}, r"within \[0, 3\]"),
        ({"num_steps": 3, "every": np.array([0.5])}, "integers"),
    ],
)
def test_bad_schedules_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        iterate(Relax(0.3), TARGET, **kwargs)
