"""Stores: killed, damaged, full, foreign, contested or changed ones give the right bits or a clear refusal."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import blocks
from rlcore import store as stores
from rlcore.sweep import open_sweep, sweep

# The same sweep here and in child processes: random numbers, exponentials, a loop, a factorisation, and a product
# with a shared matrix, whose bits do change with the width of a batch.
CASE = """
import jax, jax.numpy as jnp
from rlcore.sweep import sweep

SHARED = jax.random.normal(jax.random.key(1), (37, 37)) / 6

def play(seed, rate):
    mixed = jnp.tanh(SHARED @ jax.random.normal(jax.random.key(seed), (37,)))
    game = jax.random.normal(jax.random.key(seed), (5, 5))
    def step(logits, _):
        logits = jax.nn.log_softmax(logits + rate * (game @ jnp.exp(logits)))
        return logits, jnp.max(game @ jnp.exp(logits))
    logits, trace = jax.lax.scan(step, jnp.zeros(5), None, length=40)
    solved = jnp.linalg.solve(game + 9 * jnp.eye(5), logits[:, None])[:, 0]
    return {"logits": logits, "gap": trace, "seeds": seed, "mixed": mixed, "solved": solved}

GRID = {"seed": range(23), "rate": jnp.geomspace(0.01, 1, 3)}

def run(**options):
    return sweep(play, GRID, **{"block": 8, "dims": {"gap": ("step",)}, **options})
"""
HEADER = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
"""
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
case = {}
exec(CASE, case)


def child(code, *arguments, **environment):
    """Run code in a fresh process; thread pools hang on JAX 0.10 unless there are more threads than devices."""
    script = HEADER + CASE + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "NPROC": "8", **CACHE, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def uninterrupted():
    return case["run"]()


def same_bits(a, b):
    return set(a.data_vars) == set(b.data_vars) and all(
        a[n].dtype == b[n].dtype and a[n].values.tobytes() == b[n].values.tobytes() for n in a.data_vars
    )


def test_a_stored_sweep_equals_one_in_memory_and_opens_again(tmp_path, uninterrupted):
    stored = case["run"](store=tmp_path / "a" / "b", chunk=16)
    assert same_bits(stored, uninterrupted) and stored.equals(uninterrupted)
    opened = open_sweep(tmp_path / "a" / "b")
    assert same_bits(opened, uninterrupted) and bool(opened.computed.all())
    assert opened.drop_vars("computed").equals(uninterrupted)
    assert opened.attrs["identity"] == stored.attrs["identity"] == uninterrupted.attrs["identity"]
    again = case["run"](store=tmp_path / "a" / "b", chunk=40)
    assert again.attrs["cells_computed"] == 0 and again.attrs["chunk"] == 16 and same_bits(again, uninterrupted)


def test_blocks_of_another_size_agree_to_rounding_and_not_to_the_bit(uninterrupted):
    other = case["run"](block=1)
    # This is what makes equal bits elsewhere in this file mean something: here they are not equal.
    assert not same_bits(other, uninterrupted)
    # A sum of 37 products, the factors below 0.7 and 4: 37 roundings of at most 37 * 2.8, and tanh contracts.
    tolerance = 37 * 37 * 2.8 * np.finfo(float).eps
    np.testing.assert_allclose(other.mixed, uninterrupted.mixed, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(other.seeds, uninterrupted.seeds)


def test_the_store_has_one_zarr_chunk_per_chunk(tmp_path):
    import zarr

    case["run"](store=tmp_path, chunk=16)
    gap = zarr.open_array(tmp_path / "variables" / "gap", mode="r")
    assert gap.chunks == (16, 40) and gap.shape == (5 * 16, 40) and gap.metadata.dimension_names[0] == "cell"
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == [f"{i:06d}" for i in range(5)]


def test_killed_in_the_middle_of_a_chunk_it_resumes_to_the_same_bits(tmp_path, uninterrupted):
    killed = child(
        """
        from rlcore import store
        import numpy as np
        write = store.write_chunk
        def half_then_die(folder, layout, chunk, results):
            if chunk == 2:
                # Some rows right, some rubbish, one variable not at all: whatever a kill may leave.
                half = {"gap": np.where(np.arange(16)[:, None] < 8, results["gap"], 7.0)}
                store._write_atomic = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
                write(folder, layout, chunk, half)
            write(folder, layout, chunk, results)
        store.write_chunk = half_then_die
        run(store=sys.argv[1], chunk=16)
        """,
        tmp_path,
    )
    assert killed.returncode == -9, killed.stderr
    partial = open_sweep(tmp_path)
    assert partial.attrs["cells_computed"] == 32 == int(partial.computed.sum())
    first = partial.computed.values
    assert np.isnan(partial.gap.values[~first]).all() and not np.isnan(partial.gap.values[first]).any()
    assert (partial.seeds.values[~first] == 0).all()
    resumed = case["run"](store=tmp_path)
    assert resumed.attrs["cells_computed"] == 69 - 32
    assert same_bits(resumed, uninterrupted)


def test_four_devices_give_the_bits_of_one(tmp_path, uninterrupted):
    done = child(
        """
        assert jax.device_count() == 4
        run(store=sys.argv[1] + "/fresh")
        run(store=sys.argv[1] + "/chunked", chunk=8)
        run(store=sys.argv[1] + "/by_map", batch="map", block=5)
        try:
            os.environ["NPROC"] = "4"
            run(block=3)
        except RuntimeError as error:
            assert "start Python with NPROC=8" in str(error), error
        else:
            assert jax.__version_info__ >= (0, 11)
        """,
        tmp_path,
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )
    assert done.returncode == 0, done.stderr
    for name in ("fresh", "chunked"):
        assert same_bits(open_sweep(tmp_path / name), uninterrupted)
    assert same_bits(open_sweep(tmp_path / "by_map"), case["run"](batch="map", block=5))
    # and one device may resume what four have begun
    (tmp_path / "chunked" / "done" / "000003").unlink()
    resumed = case["run"](store=tmp_path / "chunked")
    assert resumed.attrs["cells_computed"] == 8 and same_bits(resumed, uninterrupted)


def test_a_full_disk_is_named_and_nothing_half_written_counts(tmp_path, uninterrupted):
    # A limit on the size of files is a full disk that also stops root: 16 rows of 40 random doubles exceed it.
    full = child(
        """
        import resource
        from rlcore import store
        write = store.write_chunk
        def limited(folder, layout, chunk, results):
            if chunk == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2048, -1))
            write(folder, layout, chunk, results)
        store.write_chunk = limited
        run(store=sys.argv[1], chunk=16)
        """,
        tmp_path,
    )
    assert full.returncode == 1 and "OSError" in full.stderr
    assert f"store '{tmp_path}': cannot write" in full.stderr and "finished chunks are kept" in full.stderr
    assert open_sweep(tmp_path).attrs["cells_computed"] == 48
    assert same_bits(case["run"](store=tmp_path), uninterrupted)


@pytest.mark.parametrize("refusing", ["create_array", "replace"])
def test_a_store_that_cannot_be_created_leaves_nothing_but_its_lock(tmp_path, monkeypatch, refusing):
    import zarr

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(*((zarr.Group, "create_array") if refusing == "create_array" else (os, "replace")), refuse)
        with pytest.raises(OSError, match=r"store .*: cannot write .*Read-only file system") as caught:
            case["run"](store=tmp_path / "x")
    assert caught.value.errno == errno.EROFS
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["sweep.lock"]
    with pytest.raises(ValueError, match="no sweep"):
        open_sweep(tmp_path / "x")
    assert case["run"](store=tmp_path / "x").attrs["cells_computed"] == 69


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other files at .*notes.txt.*expected a sweep's store or nothing"):
        case["run"](store=tmp_path)
    with pytest.raises(ValueError, match="found a file at"):
        case["run"](store=tmp_path / "notes.txt")
    with pytest.raises(OSError, match="cannot write"):
        case["run"](store=tmp_path / "notes.txt" / "below")
    with pytest.raises(ValueError, match="no sweep"):
        open_sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"] and (tmp_path / "notes.txt").read_text() == "mine"


def test_two_sweeps_cannot_write_to_one_store(tmp_path):
    with stores.lock(tmp_path), pytest.raises(RuntimeError, match=r"store .*: found another sweep writing to it"):
        case["run"](store=tmp_path)
    assert case["run"](store=tmp_path).attrs["cells_computed"] == 69


def test_damaged_rows_are_computed_again_and_a_damaged_header_is_named(tmp_path, uninterrupted):
    case["run"](store=tmp_path, chunk=16)
    file = next(p for p in (tmp_path / "variables" / "gap" / "c").rglob("*") if p.is_file() and "2" in p.parts)
    file.write_bytes(file.read_bytes()[:-7])
    (tmp_path / "variables" / "logits" / "c" / "4" / "0").unlink()
    assert open_sweep(tmp_path).attrs["cells_computed"] == 69 - 16 - 5
    mended = case["run"](store=tmp_path)
    assert mended.attrs["cells_computed"] == 16 + 5 and same_bits(mended, uninterrupted)
    text = (tmp_path / "sweep.json").read_text()
    partial = {name: value for name, value in json.loads(text).items() if name != "identity"}
    for bad in (text[:-20], json.dumps({**json.loads(text), "format": 99}), json.dumps(partial)):
        (tmp_path / "sweep.json").write_text(bad)
        with pytest.raises(ValueError, match=r"damaged sweep\.json"):
            case["run"](store=tmp_path)


@pytest.mark.parametrize("content", [None, '{"zarr_form'])
@pytest.mark.parametrize("file", ["variables/zarr.json", "variables/gap/zarr.json", "flat/zarr.json"])
def test_damaged_arrays_are_named(tmp_path, file, content):
    case["run"](store=tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    for attempt in (lambda: open_sweep(tmp_path), lambda: case["run"](store=tmp_path)):
        with pytest.raises(ValueError, match=rf"store '{tmp_path}': damaged {file.split('/')[0]} .*delete the folder"):
            attempt()


@pytest.mark.parametrize("content", ["", "[1]", "[[1, 2]]", "7", "null"])
def test_a_damaged_marker_marks_nothing(tmp_path, uninterrupted, content):
    case["run"](store=tmp_path, chunk=16)
    (tmp_path / "done" / "000002").write_text(content)
    mended = case["run"](store=tmp_path)
    assert mended.attrs["cells_computed"] == 16 and same_bits(mended, uninterrupted)


FACTOR = jnp.ones(3)


def callee(x):
    return x * 2


def inner_constant(values):
    inside = jax.jit(lambda x: jnp.sum(x * values))
    return lambda seed: {"y": inside(seed.astype(float))}


def make_run(factor, double):
    return lambda seed: {"y": double(jnp.sum(factor)) + seed.astype(float)}


def test_a_store_refuses_another_sweep_and_says_which_part_differs(tmp_path, monkeypatch):
    grid = {"seed": range(6)}
    first = lambda **options: sweep(make_run(FACTOR, callee), grid, store=tmp_path, **options)  # noqa: E731
    before = first(block=4, batch="map")
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = first()
    assert again.attrs["cells_computed"] == 0 and (again.attrs["block"], again.attrs["batch"]) == (4, "map")

    def refused(part, run, values=grid, **options):
        with pytest.raises(ValueError, match=rf"belongs to another sweep, which differs in its {part}\. Use another"):
            sweep(run, values, store=tmp_path, **options)

    same = make_run(FACTOR, callee)
    refused("code", lambda seed: {"y": 2 * jnp.sum(FACTOR) - seed.astype(float)})
    refused("code", make_run(FACTOR, lambda x: x * 3))
    refused("closed-over arrays", make_run(FACTOR.at[1].set(1.25), callee))
    refused("grid", same, {"seed": range(7)})
    refused("grid", same, {"seed": [0, 1, 2, 3, 5, 4]})
    refused("code; grid", lambda seed, more: {"y": same(seed)["y"] + more}, {"seed": range(6), "more": [0.0]})
    refused("grid", same, work=lambda seed: seed)
    refused(r"block \(stored 4, found 3\)", same, block=3)
    refused(r"batch \(stored map, found vmap\)", same, batch="vmap")
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "versions", lambda: {**before_versions, "jaxlib": "0.0.1"})
        refused(r"versions \(jaxlib: stored \S+, found 0.0.1\)", same)
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        refused(r"flags \(XLA_FLAGS: stored \[\], found \['--xla_cpu_enable_fast_math=true'\]\)", same)
    assert files == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert first().equals(before)


before_versions = blocks.versions()


def test_one_changed_number_in_a_large_constant_of_an_inner_function_is_seen(tmp_path):
    values = np.arange(200_000.0)
    sweep(inner_constant(values), {"seed": range(3)}, store=tmp_path)
    values[100_000] += 1
    with pytest.raises(ValueError, match=r"differs in its (code|closed-over arrays)"):
        sweep(inner_constant(values), {"seed": range(3)}, store=tmp_path)


def test_a_failed_chunk_names_its_cells_and_the_finished_ones_stay(tmp_path, monkeypatch):
    collect = blocks.collect

    def fail_late(program, calls, count, seen=[]):  # noqa: B006
        seen.append(count)
        if len(seen) == 3:
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return collect(program, calls, count)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "collect", fail_late)
        with pytest.raises(RuntimeError, match=r"16 cells, from \(seed=10, rate=1.0\).* to .*RESOURCE_EXHAUSTED"):
            case["run"](store=tmp_path, chunk=16)
    assert open_sweep(tmp_path).attrs["cells_computed"] == 32
