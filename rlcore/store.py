"""A folder that a sweep writes chunk by chunk and that a later process can trust, resume or refuse.

The folder is a zarr group: one array per variable along one flat `cell` dimension (rows in the order of
computation), and `flat`, the position of each row in the labelled grid. `sweep.json` says what the sweep is; it
is written after the arrays exist, and `done/<chunk>` after the chunk's rows. A row without its marker does not
exist, whatever zarr returns for it. Everything that decides is written to a temporary name and moved, so a
killed process leaves no half-truth. Markers carry checksums, so that rows damaged later are computed again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Layout", "create", "done_chunks", "identity", "lock", "read", "read_header", "require_same", "write_chunk"]

HEADER, LOCK, MARKERS, FORMAT = "sweep.json", "sweep.lock", "done", 1
FIELDS = ("identity", "dims", "shape", "labels", "coords", "variables", "chunk", "counts")


class Layout(NamedTuple):
    """Where rows lie: every chunk has `chunk` rows, of which the first `counts[i]` hold cells."""

    chunk: int
    counts: tuple[int, ...]


def identity(parts: Mapping[str, Any]) -> str:
    """One hash of everything that decides a sweep's results.

    Args: parts: name -> JSON value. Returns: 64 hexadecimal digits. Source: derived here. Cost: O(1).
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Say which store could not be written, and that what is done is kept."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"store {str(folder)!r}: cannot write ({error.strerror or error}); finished chunks are kept, "
            "unfinished ones will be computed again",
        ) from error


def _write_atomic(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Create the folder if need be and hold it alone; a killed process releases it by dying.

    Args: folder: the store. Source: derived here, flock(2). Cost: O(1).
    Raises:
      ValueError: the path exists and is not the folder of a sweep.
      RuntimeError: another sweep holds it.
      OSError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"store: found a file at {str(folder)!r}, expected a folder or nothing")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK).exists():
        found = sorted(p.name for p in folder.iterdir())[:5]
        raise ValueError(f"store: found other files at {str(folder)!r} ({found}), expected a sweep's store or nothing")
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a")  # noqa: SIM115
    with file:
        with _named(folder):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RuntimeError(f"store {str(folder)!r}: found another sweep writing to it, expected none") from None
        yield


def read_header(folder: Path) -> dict[str, Any] | None:
    """What a store says of itself.

    Args: folder: the store. Source: derived here. Cost: one small file.
    Returns: the header, or None where there is none, or creation was not finished.
    Raises: ValueError for a header that is damaged or of another format.
    """
    try:
        text = (folder / HEADER).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}")
        if missing := [name for name in FIELDS if name not in header]:
            raise ValueError(f"without {', '.join(missing)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"store {str(folder)!r}: damaged {HEADER} ({error}), expected format {FORMAT}") from None
    return header


def require_same(folder: Path, stored: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a store that belongs to another sweep.

    Args: folder: for the message; stored, found: identities, part by part.
    Raises: ValueError naming the parts that differ. Source: derived here. Cost: O(1).
    """
    differing = [name for name in found if stored.get(name) != found[name]]
    if not differing:
        return

    def tell(name: str) -> str:
        old, new = stored.get(name), found[name]
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
            return f"{name} (" + ", ".join(f"{k}: stored {old.get(k)}, found {new.get(k)}" for k in keys) + ")"
        hashed = isinstance(new, list) or (isinstance(new, str) and len(new) == 64)
        return name if hashed else f"{name} (stored {old}, found {new})"

    raise ValueError(
        f"store {str(folder)!r}: belongs to another sweep, which differs in its {'; '.join(map(tell, differing))}. "
        "Use another folder, or delete this one"
    )


def create(
    folder: Path, header: Mapping[str, Any], layout: Layout, flat: np.ndarray, variables: Mapping[str, Any]
) -> None:
    """Lay out the arrays of a new store, then its header.

    Args:
      folder: an empty (locked) folder, or one whose creation was killed.
      header: identity, labels and layout, as JSON.
      layout: rows and chunks.
      flat: int[rows], position of each row in the grid, -1 where there is no cell.
      variables: name -> shape and dtype of one cell.

    Raises: OSError if it cannot be written; nothing but the lock is left then.
    Source: derived here; zarr v3. Cost: writes `flat`.
    """
    import zarr

    try:
        with _named(folder):
            _clear(folder)
            rows = layout.chunk * len(layout.counts)
            root = zarr.create_group(folder, zarr_format=3, overwrite=False)
            group = root.create_group("variables")
            for name, spec in variables.items():
                shape, chunks = (rows, *spec.shape), (layout.chunk, *spec.shape)
                chunks = tuple(max(c, 1) for c in chunks)
                group.create_array(
                    name,
                    shape=shape,
                    chunks=chunks,
                    dtype=spec.dtype,
                    dimension_names=["cell", *(f"{name}_{i}" for i in range(len(spec.shape)))],
                )
            root.create_array("flat", data=flat, chunks=(layout.chunk,))
            (folder / MARKERS).mkdir()
            _write_atomic(folder / HEADER, json.dumps(dict(header, format=FORMAT)))
    except OSError:
        with contextlib.suppress(OSError):
            _clear(folder)
        raise


def _clear(folder: Path) -> None:
    """Remove what an unfinished creation left; the lock stays, other people's files were refused before."""
    for name in ("variables", "flat", MARKERS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "zarr.json").unlink(missing_ok=True)


@contextlib.contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Say which part of a store cannot be read; zarr's own errors are of all these kinds."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"store {str(folder)!r}: damaged {what} ({type(error).__name__}: {error}), expected what a sweep wrote; "
            "delete the folder to compute it again"
        ) from error


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1) if array.size else b"")


def write_chunk(folder: Path, layout: Layout, chunk: int, results: Mapping[str, np.ndarray]) -> None:
    """Write the rows of one chunk and then its marker.

    Args: folder: the store; layout: its rows; chunk: number; results: variable -> array[count, ...].
    Source: derived here. Cost: one compression and one checksum.
    Raises: OSError naming the store; the chunk is not marked then.
    """
    import zarr

    with _named(folder):
        group = zarr.open_group(folder / "variables", mode="r+")
        start, checksums = chunk * layout.chunk, {}
        for name, array in results.items():
            group[name][start : start + len(array)] = array
            checksums[name] = _checksum(array)
        _write_atomic(folder / MARKERS / f"{chunk:06d}", json.dumps(checksums))


def done_chunks(folder: Path, layout: Layout, variables: Mapping[str, Any]) -> set[int]:
    """The chunks that are marked and whose rows still have their checksums.

    Args: as `read`. Returns: chunk numbers. Source: derived here. Cost: reads every finished chunk.
    """
    return {chunk for chunk, _ in read(folder, layout, variables)}


def read(folder: Path, layout: Layout, names: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The finished chunks, one at a time; damaged ones are left out.

    Args: folder: the store; layout: its rows; names: the variables to read.
    Yields: (number, variable -> array[count, ...]). Source: derived here. Cost: memory of one chunk.
    Raises: ValueError where the arrays themselves cannot be opened.
    """
    import zarr

    with _reading(folder, "variables"):
        group = zarr.open_group(folder / "variables", mode="r")
        arrays = {name: group[name] for name in names}
    for chunk, count in enumerate(layout.counts):
        try:
            checksums = dict(json.loads((folder / MARKERS / f"{chunk:06d}").read_text()))
            start = chunk * layout.chunk
            rows = {name: np.asarray(array[start : start + count]) for name, array in arrays.items()}
        except (FileNotFoundError, ValueError, TypeError, RuntimeError):
            continue
        if all(checksums.get(name) == _checksum(array) for name, array in rows.items()):
            yield chunk, rows


def read_flat(folder: Path) -> np.ndarray:
    """The position of each row in the labelled grid.

    Args: folder: the store. Returns: int[rows], -1 for rows without a cell. Source: derived here. Cost: one read.
    Raises: ValueError where it cannot be read.
    """
    import zarr

    with _reading(folder, "flat"):
        return np.asarray(zarr.open_array(folder / "flat", mode="r")[:])
