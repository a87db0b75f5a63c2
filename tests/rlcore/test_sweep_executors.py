"""Chunks in other processes: the same bits, the parent's settings, and refusals of what would hang or lie."""

import concurrent.futures
import multiprocessing
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import blocks, executors
from rlcore.sweep import open_sweep, sweep


def make_play():
    """A closure travels by value, so the workers need not find this file."""
    offset = jnp.array([0.25, -1.0, 3.0])

    def play(seed, rate, kind):
        noise = jax.random.normal(jax.random.key(seed), (3,))
        x = jax.nn.log_softmax(offset + rate * noise @ jnp.outer(noise, noise))
        return {"x": x if kind == "plain" else -x, "seeds": seed}

    return play


GRID = {"seed": range(11), "rate": [0.5, 1.0], "kind": ["plain", "minus"]}


@pytest.fixture(scope="module")
def pool():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        yield executor


@pytest.fixture(scope="module")
def expected():
    return sweep(make_play(), GRID, block=4, dims={"x": "i"})


def same_bits(a, b):
    return a.equals(b) and all(a[n].values.tobytes() == b[n].values.tobytes() for n in a.data_vars)


@pytest.mark.timeout(120)
def test_a_process_pool_gives_the_same_bits_and_finishes_what_others_began(pool, expected, tmp_path):
    assert same_bits(sweep(make_play(), GRID, block=4, dims={"x": "i"}, executor=pool), expected)
    stored = sweep(make_play(), GRID, block=4, chunk=8, dims={"x": "i"}, executor=pool, store=tmp_path)
    assert same_bits(stored, expected) and stored.attrs["devices"] == "ProcessPoolExecutor"
    (tmp_path / "done" / "000001").unlink()
    here = sweep(make_play(), GRID, dims={"x": "i"}, store=tmp_path)
    assert here.attrs["cells_computed"] == 8 and same_bits(here, expected)
    (tmp_path / "done" / "000004").unlink()
    there = sweep(make_play(), GRID, dims={"x": "i"}, store=tmp_path, executor=pool)
    assert there.attrs["cells_computed"] == 8 and same_bits(there, expected)


@pytest.mark.timeout(120)
def test_workers_take_over_the_settings(pool):
    def play(seed):
        return {"x": jax.random.normal(jax.random.key(seed), dtype=float), "seeds": seed}

    for wide in (False, True):
        with jax.enable_x64(wide):
            data = sweep(play, {"seed": range(3)}, executor=pool)
            assert data.x.dtype == (np.float64 if wide else np.float32)
            assert same_bits(data, sweep(play, {"seed": range(3)}))


@pytest.mark.timeout(120)
def test_a_failing_chunk_names_its_cells_and_finished_chunks_stay(pool, tmp_path):
    parent = os.getpid()

    def make(broken):
        def play(seed, kind):
            if broken and kind == "b" and os.getpid() != parent:
                raise ArithmeticError("not today")
            return {"x": 2 * seed}

        return play

    grid = {"seed": range(8), "kind": ["a", "b"]}
    with pytest.raises(RuntimeError, match=r"4 cells, from \(seed=., kind=b\).*ArithmeticError: not today"):
        sweep(make(True), grid, block=4, chunk=4, executor=pool, store=tmp_path)
    assert open_sweep(tmp_path).computed.sel(kind="a").all() and not open_sweep(tmp_path).computed.sel(kind="b").any()
    data = sweep(make(False), grid, executor=pool, store=tmp_path)
    np.testing.assert_array_equal(data.x, 2 * np.arange(8)[:, None] * [1, 1])


@pytest.mark.timeout(120)
def test_a_worker_with_another_program_is_refused(pool):
    parent = os.getpid()

    def play(seed):  # impure: the program differs between machines, as with another version of the code
        return {"x": seed + (1 if os.getpid() == parent else 2)}

    with pytest.raises(RuntimeError, match="its code differ from the parent's"):
        sweep(play, {"seed": range(3)}, executor=pool)


@pytest.mark.timeout(180)
def test_a_dask_cluster_of_two_processes_gives_the_same_bits(expected):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        data = sweep(make_play(), GRID, block=4, dims={"x": "i"}, executor=client.get_executor())
    assert same_bits(data, expected)


def test_executors_that_would_hang_are_refused():
    refuse = lambda executor, message: pytest.raises(TypeError, match=message)  # noqa: E731
    with concurrent.futures.ThreadPoolExecutor(1) as threads, refuse(threads, "found a ThreadPoolExecutor"):
        sweep(make_play(), GRID, executor=threads)
    forking = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with forking, refuse(forking, "found a process pool that forks.*spawn"):
        sweep(make_play(), GRID, executor=forking)
    with pytest.raises(TypeError, match="found Pool, expected"):
        executors.check_executor(type("Pool", (), {})())


def test_devices_and_executor_exclude_each_other(pool):
    with pytest.raises(ValueError, match="pass one"):
        sweep(make_play(), GRID, executor=pool, devices=jax.devices())


def test_few_tasks_are_under_way_and_one_program_serves_them(monkeypatch):
    compiled = []
    compile_blocks = blocks.compile_blocks
    monkeypatch.setattr(blocks, "compile_blocks", lambda *a: compiled.append(a) or compile_blocks(*a))
    submitted, waits = [], []
    wait = concurrent.futures.wait
    monkeypatch.setattr(
        executors.concurrent.futures, "wait", lambda futures, **k: waits.append(len(futures)) or wait(futures, **k)
    )

    class Inline(concurrent.futures.Executor):
        _max_workers = 2

        def submit(self, function, *arguments):
            submitted.append(arguments)
            future = concurrent.futures.Future()
            future.set_result(function(*arguments))
            return future

    data = sweep(lambda seed: {"x": 3 * seed}, {"seed": range(40)}, block=2, chunk=2, executor=Inline())
    np.testing.assert_array_equal(data.x, 3 * np.arange(40))
    assert len(submitted) == 20 and max(waits) == 4 and len(compiled) == 1
