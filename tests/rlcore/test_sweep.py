"""Labels and values against plain Python loops, traces counted, and every bad argument named."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import blocks
from rlcore.sweep import sweep

OFFSET = np.array([0.5, -1.0, 2.0])


def noisy(seed, scale, power=1):
    x = scale * jax.random.normal(jax.random.key(seed), (3,)) + OFFSET
    return {"x": x, "total": jnp.sum(x**power), "twice": 2 * seed, "positive": x > 0}


def test_values_and_labels_equal_a_python_loop():
    scales = jnp.geomspace(0.1, 10, 5)
    data = sweep(noisy, {"seed": range(7), "scale": scales}, dims={"x": ("i",)}, coords={"i": ["a", "b", "c"]}, block=4)
    assert data.total.dims == ("seed", "scale") and data.x.dims == ("seed", "scale", "i")
    assert data.positive.dims == ("seed", "scale", "positive_0") and data.positive.dtype == bool
    assert data.twice.dtype == np.int64 and list(data.i.values) == ["a", "b", "c"]
    np.testing.assert_array_equal(data.scale, scales)
    for seed in range(7):
        for scale in np.asarray(scales):
            cell = data.sel(seed=seed, scale=scale)
            expected = noisy(seed, scale)
            # One addition and one product on numbers below 50: two roundings in each of three terms.
            np.testing.assert_allclose(cell.x, expected["x"], rtol=0, atol=4 * 50 * np.finfo(float).eps)
            np.testing.assert_allclose(cell.total, expected["total"], rtol=0, atol=16 * 50 * np.finfo(float).eps)
            assert cell.twice == 2 * seed
            np.testing.assert_array_equal(cell.positive, expected["positive"])
    told = {"block", "batch", "chunk", "devices", "seconds", "compile_seconds", "cells_per_second", "versions"}
    assert told <= set(data.attrs)
    assert data.attrs["block"] == 4 and data.attrs["cells_computed"] == 35


def test_numbers_are_traced_once_and_everything_else_once_per_value():
    traces = []

    def run(rate, kind, size, bonus):
        traces.append((kind, size))
        assert isinstance(size, int) and isinstance(rate, jax.core.Tracer)
        return {"y": rate * size + bonus(rate) if kind == "plus" else -rate * size}

    def square(rate):
        return rate**2

    data = sweep(
        run,
        {"rate": [0.5, 1.0, 2.0], "kind": ["plus", "minus"]},
        static={"size": np.array([2, 3]), "bonus": {"none": jnp.zeros_like, "square": square}},
    )
    assert len(traces) == 2 * 2 * 2
    assert data.y.dims == ("rate", "kind", "size", "bonus") and data.size.dtype.kind == "i"
    assert data.y.sel(rate=2.0, kind="plus", size=3, bonus="square") == 10
    assert data.y.sel(rate=2.0, kind="plus", size=3, bonus="none") == 6
    assert data.y.sel(rate=0.5, kind="minus", size=2, bonus="square") == -1
    traces.clear()
    sweep(run, {"rate": np.linspace(0, 1, 300)}, static={"kind": ["plus"], "size": [2], "bonus": [square]})
    assert len(traces) == 1


def test_configurations_instead_of_a_product():
    def run(seed, rate, kind):
        value = rate * seed.astype(rate.dtype)
        return {"y": value if kind == "a" else -value}

    rows = [
        {"seed": 3, "rate": 0.5, "kind": "a"},
        {"seed": 1, "rate": 2.0, "kind": "b"},
        {"seed": 2, "rate": 4.0, "kind": "a"},
    ]
    expected = [1.5, -2.0, 8.0]
    data = sweep(run, cells=rows)
    np.testing.assert_array_equal(data.y, expected)
    assert data.y.dims == ("cell",) and data.seed.dims == ("cell",) and list(data.kind.values) == ["a", "b", "a"]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    np.testing.assert_array_equal(sweep(run, cells=table).y, expected)
    numbers = {"seed": np.arange(5), "rate": np.ones(5)}
    both = sweep(run, cells=numbers, static={"kind": ["a", "b"]})
    assert both.y.dims == ("cell", "kind")
    np.testing.assert_array_equal(both.y, np.stack([np.arange(5), -np.arange(5)], axis=1))


def test_a_sweep_of_static_axes_only():
    data = sweep(lambda size: {"y": jnp.full(3, size)}, {}, static={"size": [1, 2]}, dims={"y": "i"})
    np.testing.assert_array_equal(data.y, [[1, 1, 1], [2, 2, 2]])
    assert data.y.dims == ("size", "i")


def test_no_number_is_altered_on_the_way():
    def run(x, flag):
        nothing = jnp.zeros(0, x.dtype)
        return {"same": x, "none": jnp.where(flag, jnp.nan, x), "z": jax.lax.complex(x, x), "empty": nothing * x}

    data = sweep(run, {"x": np.array([1.5, np.nan, np.inf], np.float32), "flag": [True, False]})
    assert data.same.dtype == np.float32 and data.z.dtype == np.complex64 and data.empty.shape == (3, 2, 0)
    np.testing.assert_array_equal(data.same[:, 0], np.array([1.5, np.nan, np.inf], np.float32))
    np.testing.assert_array_equal(data.none[:, 0], [np.nan] * 3)
    assert np.isnan(data.z.imag[1, 0]) and np.isposinf(data.z.real[2, 1])


def count_halvings(x, tol=1e-3):
    y, steps = jax.lax.while_loop(lambda c: c[0] > tol, lambda c: (c[0] / 2, c[1] + 1), (x, 0))
    return {"y": y, "steps": steps}


def test_batch_modes_agree_and_the_default_looks_for_loops_that_wait():
    x = np.geomspace(1e-4, 1e4, 11)
    by_map, by_vmap = (sweep(count_halvings, {"x": x}, batch=batch) for batch in ("map", "vmap"))
    assert by_map.equals(by_vmap)
    np.testing.assert_array_equal(by_map.steps, np.maximum(0, np.ceil(np.log2(x / 1e-3))))
    assert sweep(count_halvings, {"x": x}).attrs["batch"] == "map"
    assert sweep(count_halvings, {"x": x}, work=lambda x: x).attrs["batch"] == "vmap"
    assert sweep(lambda x: {"y": jax.lax.fori_loop(0, 3, lambda i, y: y / 2, x)}, {"x": x}).attrs["batch"] == "vmap"


@pytest.mark.parametrize(
    ("run", "waits"),
    [
        (lambda x: jax.lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] * x), (0, x))[1], False),
        (lambda x: jax.lax.scan(lambda c, _: (count_halvings(c)["y"], None), x, None, length=2)[0], True),
        (lambda x: jax.jit(lambda x: jax.lax.cond(x > 0, lambda: count_halvings(x)["y"], lambda: x))(x), True),
        (lambda x: jax.lax.fori_loop(0, jnp.int32(x), lambda i, c: c / 2, x), True),
    ],
)
def test_loops_that_wait_are_found_at_any_depth(run, waits):
    lane = blocks.trace(lambda x: {"y": run(x)}, {"x": jax.ShapeDtypeStruct((), np.float64)}, {})
    assert blocks.lanes_wait(lane) is waits


def test_work_sorts_the_lanes_and_the_result_is_unsorted():
    x = np.random.default_rng(0).permutation(np.geomspace(1e-2, 1e3, 20))
    plain = sweep(count_halvings, {"x": x, "tol": [1e-3, 1e-2]}, block=4)
    asked = []

    def work(x, tol):
        asked.append((x, tol))
        return np.log(x / tol)

    by_function = sweep(count_halvings, {"x": x, "tol": [1e-3, 1e-2]}, block=4, work=work)
    costs = np.log(x)[:, None] - np.log([1e-3, 1e-2])
    by_array = sweep(count_halvings, {"x": x, "tol": [1e-3, 1e-2]}, block=4, work=costs)
    assert plain.equals(by_function) and plain.equals(by_array)
    assert len(asked) == 1 and asked[0][0].shape == (40,)


def test_results_do_not_depend_on_chunks_and_little_on_blocks():
    def run(seed):
        matrix = jax.random.normal(jax.random.key(seed), (4, 4))
        return {"y": jax.nn.log_softmax(matrix @ jnp.exp(matrix[0]))}

    grid = {"seed": range(50)}
    whole = sweep(run, grid, block=8)
    for chunk in (1, 8, 17, 24, 1000):
        assert sweep(run, grid, block=8, chunk=chunk).equals(whole)
    for block in (1, 5, 64):
        # A product of 4 terms, a softmax of 4: some tens of roundings on logits below 100.
        other = sweep(run, grid, block=block).y
        np.testing.assert_allclose(other, whole.y, rtol=0, atol=100 * 64 * np.finfo(float).eps)


def test_chunks_fit_the_memory_asked_for():
    def run(seed):
        return {"y": jnp.full(1000, seed)}

    # 8 kB a cell, two chunks in two places: 32 kB a cell, apart from what the block itself needs.
    assert sweep(run, {"seed": range(640)}, block=8, memory=2**20).attrs["chunk"] <= 32
    with pytest.raises(ValueError, match=r"memory: found 10000 bytes, expected at least .* smaller block"):
        sweep(run, {"seed": range(640)}, block=8, memory=10_000)


def test_the_bar_is_silent_unless_asked_for(capfd):
    sweep(count_halvings, {"x": [1.0, 2.0]})
    assert capfd.readouterr() == ("", "")
    sweep(count_halvings, {"x": [1.0, 2.0]}, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "2/2" in err and "cells" in err and "left" in err


@dataclasses.dataclass
class Thing:
    name: str


def two_sizes(seed):
    return {"a": jnp.ones(2), "b": jnp.ones(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grid": {"seed": 3}}, TypeError, r"grid\['seed'\]: found int, expected a sequence"),
        ({"grid": {"seed": []}}, ValueError, "found no values"),
        ({"grid": {"seed": np.ones((2, 2))}}, ValueError, r"shape \(2, 2\), expected one dimension"),
        ({"grid": {"seed": jax.random.split(jax.random.key(0))}}, TypeError, "integer seeds"),
        ({"grid": {"seeds": [1]}}, TypeError, r"one_run: found signature .*expected arguments \['seeds'\]"),
        ({"grid": {}}, TypeError, "missing"),
        ({"grid": None}, ValueError, "neither"),
        ({"cells": [{"seed": 1}]}, ValueError, "both"),
        ({"grid": None, "cells": [{"seed": 1}, {"sed": 1}]}, ValueError, r"cells\[1\]: found arguments \['sed'\]"),
        ({"grid": None, "cells": {"seed": [1, 2], "scale": [1.0]}}, ValueError, "one length"),
        ({"grid": None, "cells": [3]}, TypeError, "list of dicts"),
        ({"static": {"seed": [1]}}, ValueError, "each argument once"),
        ({"static": {"scale": [np.tan, Thing("tan"), np.tan]}}, ValueError, "distinct"),
        ({"static": {"scale": [object()]}}, ValueError, r"address that changes .* dict \{label: value\}"),
        ({"devices": []}, ValueError, r"devices: found \[\]"),
        ({"run": lambda seed: seed}, TypeError, "expected a non-empty dict"),
        ({"run": lambda seed: {}}, TypeError, "expected a non-empty dict"),
        ({"run": lambda seed: {"x": {"y": seed}}}, TypeError, "found dict under 'x'"),
        ({"run": lambda seed: {"x": jax.random.key(seed)}}, TypeError, "dtype key"),
        ({"run": lambda seed: {"x": jnp.zeros(2, jnp.bfloat16)}}, TypeError, "bfloat16"),
        ({"run": lambda seed: {"a/b": seed}}, TypeError, "'a/b'"),
        ({"run": lambda seed: {"seed": seed}}, ValueError, "variable named 'seed'"),
        ({"dims": {"y": ()}}, ValueError, "dims: found 'y'"),
        ({"dims": {"x": ()}}, ValueError, r"dims\['x'\]: found \(\), expected a name for each axis of \(3,\)"),
        ({"dims": {"x": ("seed",)}}, ValueError, "'seed', which names something else"),
        (
            {"run": two_sizes, "dims": {"a": "i", "b": "i"}},
            ValueError,
            "size 3",
        ),
        ({"coords": {"i": [1]}}, ValueError, "coords: found 'i'"),
        ({"dims": {"x": "i"}, "coords": {"i": [1]}}, ValueError, r"found int64\(1,\), expected 3"),
        ({"run": lambda seed, n: {"x": jnp.ones(n)}, "static": {"n": [2, 3]}}, ValueError, "pad them to one shape"),
        ({"block": 0}, ValueError, "block: found 0"),
        ({"chunk": -2}, ValueError, "chunk: found -2"),
        ({"batch": "bucket"}, ValueError, "batch: found 'bucket'"),
        ({"work": lambda seed: 1.0}, ValueError, r"work: found float64\(\), expected \(2,\)"),
        ({"work": np.array([1.0, np.nan])}, ValueError, "no NaN"),
    ],
)
def test_bad_arguments_are_named_before_anything_runs(change, error, message, monkeypatch):
    monkeypatch.setattr(blocks, "compile_blocks", lambda *_: pytest.fail("computed"))
    run = change.pop("run", lambda seed, scale=1.0: {"x": jnp.full(3, seed)})
    with pytest.raises(error, match=message):
        sweep(run, **({"grid": {"seed": [1, 2]}} | change))


def test_integers_keep_their_value_under_32_bits():
    with jax.enable_x64(False):
        data = sweep(lambda seed: {"x": seed}, {"seed": range(3)})
        assert data.x.dtype == np.int32
        with pytest.raises(ValueError, match="beyond int32"):
            sweep(lambda seed: {"x": seed}, {"seed": [2**40]})


def test_importing_is_light():
    heavy = "xarray zarr rich distributed"
    code = f"import sys, rlcore.sweep; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
