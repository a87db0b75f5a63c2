"""A pure function over a labelled grid -> one labelled data set, on all devices, chunk by chunk, resumable.

The unit of work is a *block*: a fixed number of lanes, always the same cells (`rlcore.blocks`). For one block
size, batch mode, kind of device and set of versions, results are bit-identical whatever the chunks, the number
of devices, the executor or the moment of a kill. The grid is flattened in `rlcore.grid`, stored by
`rlcore.store` and handed to clusters by `rlcore.executors`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rlcore import blocks, executors
from rlcore import store as stores
from rlcore.grid import Grid, check_arguments, columns, describe, hash_grid, make_grid, order_by_work
from rlcore.labels import Labels, decode, encode, label_outputs, to_dataset
from rlcore.store import Layout

if TYPE_CHECKING:
    import xarray

__all__ = ["open_sweep", "sweep"]

# Lanes of a block: wide enough to amortise the overhead of an operation, narrow enough to stay in the cache.
LANES = {"cpu": 256}
LANES_ELSEWHERE = 4096
CHUNK_SECONDS = 2.0
TASKS = 64  # chunks of a sweep with an executor, and tasks under way where the number of workers is unknown


def sweep(
    one_run: Callable[..., Mapping[str, Any]],
    grid: Mapping[str, Any] | None = None,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    static: Mapping[str, Any] | None = None,
    cells: Any = None,
    block: int | None = None,
    chunk: int | None = None,
    batch: str | None = None,
    work: Callable | np.ndarray | jax.Array | None = None,
    store: str | Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    memory: int = 2**31,
) -> "xarray.Dataset":
    """Run a pure function over a grid of arguments and return everything it returns, labelled.

    Args:
      one_run: `one_run(**arguments) -> dict[str, scalar or array]`, pure; its randomness comes from an integer
        seed among the arguments (`jax.random.key(seed)`), so a cell does not depend on its neighbours.
      grid: argument -> values; the product of all axes is run. Axes of numbers are traced: one compilation
        serves them all. Other values (strings, functions, objects) compile once each.
      dims: variable -> names of its own axes; by default f"{variable}_{i}".
      coords: name of such an axis -> its coordinates.
      static: argument -> values (or {label: value}) to fix at compile time, one compilation each.
      cells: instead of `grid`, a list of configurations (dicts, or a dict of equally long columns); the
        result has one dimension `cell`.
      block: lanes in the unit of work; by default at most 256 on a CPU and 4096 elsewhere, evened out over the
        grid. Results of different block sizes agree to rounding only, so a store keeps its block size.
      chunk: cells between two writes, rounded up to whole blocks; by default about two seconds of work,
        within `memory`. No result depends on it.
      batch: "vmap" runs the lanes of a block together, until the slowest is done; "map" one after another. By
        default "map" on a CPU if the length of a loop depends on the lane, else "vmap"; with `work`, "vmap".
      work: predicted cost of a cell, `work(**arguments)` on 1-d arrays or an array of the grid's shape: cells
        are sorted by it before they are cut into blocks, so that the lanes of a block end together.
      store: folder to write to and to resume from; zarr, one row per cell.
      devices: by default all devices of this process; each runs whole blocks.
      executor: runs chunks elsewhere: a spawning ProcessPoolExecutor, a Dask client's `get_executor()`, a
        Slurm submitter. Workers take over the settings of JAX and must reproduce the parent's program.
      progress: a bar on stderr; by default only on a terminal.
      memory: bytes that a chunk may use at a time.

    Returns: a Dataset with the dimensions of the grid, in order (static ones last), then each variable's own.
      Its attributes say what was run: block, batch, chunk, devices, seconds, compile_seconds,
      cells_per_second (compilation left out), versions, identity.
    Raises:
      TypeError, ValueError: an argument does not fit, before anything is computed; or `store` belongs to
        another sweep (the message says which part differs).
      RuntimeError: another sweep writes to `store`, or a chunk failed (its cells are named); finished chunks stay.
      OSError: `store` cannot be written.
    Source: derived here; design, section 8 items 1, 2, 5 and 6.
    Cost: one compilation per static configuration, one dispatch per block and device.
    """
    begin = time.perf_counter()
    cells_grid = make_grid(grid, cells, static)
    check_arguments(one_run, cells_grid)
    if work is not None:
        cells_grid = order_by_work(cells_grid, work)
    inputs = {name: jax.ShapeDtypeStruct((), values.dtype) for name, (_, values) in cells_grid.traced.items()}
    lanes = [blocks.trace(one_run, inputs, group.static) for group in cells_grid.groups]
    _require_same_outputs(cells_grid, lanes)
    labels = label_outputs(cells_grid, lanes[0].outputs, dims, coords)
    for name, value in (("block", block), ("chunk", chunk), ("memory", memory)):
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name}: found {value!r}, expected a positive integer")
    if batch not in (None, "vmap", "map"):
        raise ValueError(f"batch: found {batch!r}, expected 'vmap', 'map' or None")
    if executor is not None:
        executors.check_executor(executor)
        if devices is not None:
            raise ValueError("devices: found them together with an executor, whose workers use their own; pass one")
    devices = list(jax.local_devices() if devices is None else devices)
    if not devices or len({(d.platform, d.device_kind) for d in devices}) > 1:
        raise ValueError(f"devices: found {devices}, expected one or more of one kind")
    folder = None if store is None else Path(store)

    with contextlib.ExitStack() as stack:
        header = None
        if folder is not None:
            stack.enter_context(stores.lock(folder))
            header = stores.read_header(folder)
        kept = header["identity"] if header else {}
        platform = devices[0].platform
        block = int(block or kept.get("block") or _default_block(cells_grid, platform))
        batch = batch or kept.get("batch") or ("vmap" if work is not None else None)
        batch = batch or _default_batch(lanes, platform)
        provenances = [blocks.provenance(lane, block, batch, devices[0]) for lane in lanes]
        identity = dict(provenances[0], grid=hash_grid(cells_grid, labels.dims, labels.coords)) | {
            part: [p[part] for p in provenances] for part in ("code", "closed-over arrays")
        }
        if header:
            stores.require_same(folder, kept, identity)
        work_of = _Workers(one_run, cells_grid, lanes, provenances, block, batch, devices)
        work_of.compile_seconds = time.perf_counter() - begin
        if header:
            chunk = header["chunk"]
        else:
            chunk = _chunk(chunk, work_of, memory, executor)
        pieces = [
            (g, start, min(start + chunk, len(group.members)))
            for g, group in enumerate(cells_grid.groups)
            for start in range(0, len(group.members), chunk)
        ]
        layout = Layout(chunk, tuple(stop - start for _, start, stop in pieces))
        done: set[int] = set()
        if folder is not None:
            if header:
                done = stores.done_chunks(folder, layout, lanes[0].outputs)
            else:
                header = _header(cells_grid, labels, lanes[0].outputs, identity, layout)
                stores.create(folder, header, layout, _flat(cells_grid, pieces, layout), lanes[0].outputs)
            write = lambda number, results: stores.write_chunk(folder, layout, number, results)  # noqa: E731
        else:
            arrays = {n: np.empty((cells_grid.size, *s.shape), s.dtype) for n, s in lanes[0].outputs.items()}

            def write(number, results):
                g, start, stop = pieces[number]
                for name, rows in results.items():
                    arrays[name][cells_grid.groups[g].flat[start:stop]] = rows

        missing = [number for number in range(len(pieces)) if number not in done]
        total, before = cells_grid.size, sum(layout.counts[number] for number in done)
        # Closing gives up the tasks of an executor that are still waiting when something fails here.
        computed = contextlib.closing(work_of.run(pieces, missing, executor))
        with _progress_bar(progress, total, before) as advance, computed as chunks:
            for number, results in chunks:
                write(number, results)
                advance(layout.counts[number])
        if folder is not None:
            arrays, _ = _gather(folder, header)
    seconds = time.perf_counter() - begin
    attributes = {
        "block": block,
        "batch": batch,
        "chunk": chunk,
        "devices": f"{len(devices)} x {identity['device']}" if executor is None else type(executor).__name__,
        "seconds": seconds,
        "compile_seconds": work_of.compile_seconds,
        "cells_computed": total - before,
        "cells_per_second": (total - before) / max(seconds - work_of.compile_seconds, 1e-9),
        "versions": " ".join(f"{k} {v}" for k, v in identity["versions"].items()),
        "identity": stores.identity(identity),
    }
    return to_dataset(cells_grid.dims, cells_grid.shape, cells_grid.coords, labels, arrays, attributes)


def open_sweep(store: str | Path) -> "xarray.Dataset":
    """Open the store of a finished, running or killed sweep.

    Args:
      store: the folder.

    Returns: the Dataset of `sweep`, with a coordinate `computed` (bool, over the grid): cells that are not
      computed are NaN in variables of floats and 0 in others. Attributes `cells` and `cells_computed` count them.
    Raises: ValueError if the folder is no sweep's store, or its header or its arrays are damaged.
    Cost: reads everything into memory.
    """
    folder = Path(store)
    header = stores.read_header(folder)
    if header is None:
        raise ValueError(f"store: found no sweep at {str(folder)!r}, expected the folder of a sweep that has started")
    arrays, computed = _gather(folder, header)
    labels = Labels({name: tuple(spec["dims"]) for name, spec in header["variables"].items()}, decode(header["coords"]))
    identity = header["identity"]
    attributes = {
        "block": identity["block"],
        "batch": identity["batch"],
        "chunk": header["chunk"],
        "cells": computed.size,
        "cells_computed": int(computed.sum()),
        "versions": " ".join(f"{k} {v}" for k, v in identity["versions"].items()),
        "identity": stores.identity(identity),
    }
    data = to_dataset(header["dims"], header["shape"], decode(header["labels"]), labels, arrays, attributes)
    return data.assign_coords(computed=(tuple(header["dims"]), computed.reshape(header["shape"])))


def _require_same_outputs(grid: Grid, lanes: Sequence[blocks.Lane]) -> None:
    for group, lane in zip(grid.groups, lanes, strict=True):
        if lane.outputs != lanes[0].outputs:
            tell = lambda l: {n: f"{s.dtype}{s.shape}" for n, s in l.outputs.items()}  # noqa: E731
            raise ValueError(
                f"one_run: found outputs {tell(lane)} for {group.static}, expected those for "
                f"{grid.groups[0].static}, {tell(lanes[0])}; sweep them separately or pad them to one shape"
            )


def _default_block(grid: Grid, platform: str) -> int:
    """At most the platform's number of lanes, evened out so that little of the last block is padding."""
    most = max(len(group.members) for group in grid.groups)
    return -(-most // -(-most // LANES.get(platform, LANES_ELSEWHERE)))


def _default_batch(lanes: Sequence[blocks.Lane], platform: str) -> str:
    modes = {blocks.default_batch(lane, platform) for lane in lanes}
    return "map" if "map" in modes else "vmap"


class _Workers:
    """Computes chunks here or elsewhere; the compiled programs and the time they took are its only state."""

    def __init__(self, one_run, grid, lanes, provenances, block, batch, devices):
        self.one_run, self.grid, self.lanes, self.provenances = one_run, grid, lanes, provenances
        self.block, self.batch, self.devices = block, batch, devices
        self.compile_seconds, self.compiled, self.ready = 0.0, {}, {}

    def program(self, g: int) -> blocks.Program:
        if g not in self.compiled:
            self.compiled.clear()  # groups come one after another
            self.compiled[g] = blocks.compile_blocks(self.lanes[g], self.block, self.batch, self.devices)
            self.compile_seconds += self.compiled[g].seconds
        return self.compiled[g]

    def columns(self, g: int, start: int, stop: int) -> list[np.ndarray]:
        return list(columns(self.grid, self.grid.groups[g].members[start:stop]))

    def run(self, pieces, missing, executor) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        return self._run_here(pieces, missing) if executor is None else self._run_there(pieces, missing, executor)

    def _failed(self, piece, error):
        where = describe(self.grid, self.grid.groups[piece[0]], *piece[1:])
        return RuntimeError(f"sweep: the chunk of {where} failed: {type(error).__name__}: {error}")

    def _run_here(self, pieces, missing):
        """Start the next chunk before collecting the last one, so that writing costs no device time."""
        started = None
        yield from self.ready.items()
        for number in [*(m for m in missing if m not in self.ready), None]:
            following, error = None, None
            if number is not None:
                g, start, stop = pieces[number]
                try:
                    program = self.program(g)
                    calls = blocks.dispatch(program, self.columns(g, start, stop), stop - start)
                    following = (number, program, calls)
                except Exception as caught:
                    error = self._failed(pieces[number], caught)
                    error.__cause__ = caught
            if started is not None:
                last, program, calls = started
                try:
                    results = blocks.collect(program, calls, pieces[last][2] - pieces[last][1])
                except Exception as caught:
                    raise self._failed(pieces[last], caught) from caught
                yield last, results
            if error is not None:
                raise error
            started = following

    def _run_there(self, pieces, missing, executor):
        payloads = {}

        def tasks():
            for number in missing:
                g, start, stop = pieces[number]
                if g not in payloads:
                    static, lane, expected = self.grid.groups[g].static, self.lanes[g], self.provenances[g]
                    payloads[g] = executors.make_payload(self.one_run, static, lane, self.block, self.batch, expected)
                yield number, (*payloads[g], self.columns(g, start, stop), stop - start)

        failure = None
        limit = 2 * getattr(executor, "_max_workers", TASKS // 2)
        for number, result in executors.map_bounded(executor, tasks(), limit):
            if isinstance(result, BaseException):
                failure = failure or (number, result)
            else:
                yield number, result
        if failure is not None:
            raise self._failed(pieces[failure[0]], failure[1]) from failure[1]


def _chunk(chunk: int | None, workers: _Workers, memory: int, executor: Executor | None) -> int:
    """Cells of a chunk: whole blocks, within memory, and long enough that writing them costs little."""
    block, most = workers.block, max(len(group.members) for group in workers.grid.groups)
    whole = lambda count: max(1, -(-count // block)) * block  # noqa: E731
    if chunk is not None:
        return min(whole(chunk), whole(most))
    lane_bytes = sum(s.dtype.itemsize * int(np.prod(s.shape)) for s in workers.lanes[0].outputs.values())
    # Two chunks are alive at a time, each on the device and on the host.
    fitting = lambda left: left // (4 * max(lane_bytes, 1)) // block * block  # noqa: E731
    if executor is not None:
        return min(whole(-(-most // TASKS)), max(block, fitting(memory)), whole(most))
    program = workers.program(0)
    needed = program.temporary * (program.devices if workers.devices[0].platform == "cpu" else 1)
    width = block * program.devices
    if needed > memory:
        raise ValueError(
            f"memory: found {memory} bytes, expected at least {needed} for blocks of {block} lanes on "
            f"{program.devices} device(s); pass a smaller block or more memory"
        )
    # The first call also warms up; it is repeated only where that costs little, and kept where it is a chunk.
    count = min(width, len(workers.grid.groups[0].members))
    for _ in range(2):
        start = time.perf_counter()
        results = blocks.collect(program, blocks.dispatch(program, workers.columns(0, 0, count), count), count)
        seconds = time.perf_counter() - start
        if seconds > CHUNK_SECONDS / 4:
            break
    calls = max(1, round(CHUNK_SECONDS / max(seconds, 1e-6)))
    chunk = min(max(width, min(calls * width, fitting(memory - needed))), whole(most))
    if chunk == width or count == len(workers.grid.groups[0].members):
        workers.ready = {0: results}
    return chunk


def _flat(grid: Grid, pieces: Sequence[tuple[int, int, int]], layout: Layout) -> np.ndarray:
    """int[rows], the position in the grid of every row of the store, -1 for the rows that stay empty."""
    flat = np.full((len(pieces), layout.chunk), -1)
    for row, (g, start, stop) in zip(flat, pieces, strict=True):
        row[: stop - start] = grid.groups[g].flat[start:stop]
    return flat.reshape(-1)


def _header(grid: Grid, labels: Labels, outputs: Mapping[str, Any], identity: Any, layout: Layout) -> dict[str, Any]:
    return {
        "identity": identity,
        "dims": grid.dims,
        "shape": grid.shape,
        "labels": encode(grid.coords),
        "coords": encode(labels.coords),
        "variables": {
            name: {"dtype": np.dtype(spec.dtype).str, "shape": spec.shape, "dims": labels.dims[name]}
            for name, spec in outputs.items()
        },
        "chunk": layout.chunk,
        "counts": layout.counts,
    }


def _gather(folder: Path, header: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The variables of a store in the order of the grid, [cells, ...], and which cells are there."""
    layout, size = Layout(header["chunk"], tuple(header["counts"])), int(np.prod(header["shape"]))
    arrays = {}
    for name, spec in header["variables"].items():
        dtype = np.dtype(spec["dtype"])
        arrays[name] = np.full((size, *spec["shape"]), np.nan if dtype.kind in "fc" else 0, dtype)
    flat, computed = stores.read_flat(folder), np.zeros(size, bool)
    for chunk, rows in stores.read(folder, layout, arrays):
        start = chunk * layout.chunk
        where = flat[start : start + layout.counts[chunk]]
        computed[where] = True
        for name, values in rows.items():
            arrays[name][where] = values
    return arrays, computed


@contextlib.contextmanager
def _progress_bar(progress: bool | None, total: int, before: int) -> Iterator[Callable[[int], None]]:
    if progress is None:
        progress = sys.stderr.isatty()
    if not progress:
        yield lambda count: None
        return
    from rich import console
    from rich import progress as bars

    begin, done = time.perf_counter(), before
    line = bars.Progress(
        bars.TextColumn("sweep"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("cells, {task.fields[rate]:.0f}/s,"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left"),
        console=console.Console(file=sys.stderr, force_terminal=True if progress else None),
        speed_estimate_period=600,
    )
    with line:
        task = line.add_task("sweep", total=total, completed=before, rate=0.0)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            line.update(task, completed=done, rate=(done - before) / (time.perf_counter() - begin))

        yield advance
