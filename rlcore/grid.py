"""A labelled grid of arguments, flattened into groups of cells that share one compiled program.

Axes that are numbers are traced; everything else (strings, functions, objects, the axes of `static`) is fixed
when a program is compiled, so the cells that agree on it form one group. The order of cells inside a group is
the order in which they are cut into blocks.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["Grid", "Group", "check_arguments", "columns", "describe", "hash_grid", "make_grid", "order_by_work"]

NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


class Group(NamedTuple):
    """Cells that share one compiled program.

    static: arguments fixed at compile time.
    members: int[n], positions of the cells in the product of the traced axes, in the order they are computed.
    flat: int[n], positions of the same cells in the whole grid, flattened in the order of `Grid.dims`.
    """

    static: dict[str, Any]
    members: np.ndarray
    flat: np.ndarray


class Grid(NamedTuple):
    """What is computed and how it is labelled.

    dims, shape: the dimensions of the result and their sizes.
    coords: name -> (dimension, labels[size]).
    traced: argument -> (axis of `traced_shape`, values[size]), with the dtype that the run sees.
    traced_shape: sizes of the product of traced axes.
    groups: the cells, group by group.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, tuple[str, np.ndarray]]
    traced: dict[str, tuple[int, np.ndarray]]
    traced_shape: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))


def _is_numeric(values: Any) -> bool:
    if isinstance(values, np.ndarray | jax.Array):
        return values.dtype.kind in "biuf"
    return len(values) > 0 and all(isinstance(v, NUMBERS) or (_is_array(v) and v.ndim == 0) for v in values)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _sequence(name: str, values: Any) -> Any:
    if isinstance(values, jax.Array) and jax.dtypes.issubdtype(values.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name}: found an array of keys, expected integer seeds; make the key inside the run")
    if isinstance(values, np.ndarray | jax.Array):
        if values.ndim != 1:
            raise ValueError(f"{name}: found an array of shape {values.shape}, expected one dimension")
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise TypeError(f"{name}: found {type(values).__name__}, expected a sequence of values")
    if len(values) == 0:
        raise ValueError(f"{name}: found no values, expected at least one")
    return values


def _numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype == object:
        raise ValueError(f"{name}: found {array.dtype}{array.shape}, expected numbers along one dimension")
    return array


def _as_traced(name: str, array: np.ndarray) -> np.ndarray:
    # Under 32-bit JAX a run sees 32-bit numbers; an integer must not change its value on the way.
    narrow = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    if np.issubdtype(array.dtype, np.integer) and not np.array_equal(narrow, array):
        raise ValueError(f"{name}: found integers beyond {narrow.dtype}, expected values that fit it (or float64 mode)")
    return narrow


def _label(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    return getattr(value, "__name__", None) or str(value)


def _require_lasting(name: str, labels: Iterable[Any]) -> None:
    for label in labels:
        if " at 0x" in str(label):
            raise ValueError(
                f"{name}: found the label {str(label)!r}, an address that changes from run to run; give the object a "
                "__name__ or a __str__, or pass a dict {label: value}"
            )


def _static_axis(name: str, values: Any) -> tuple[list[Any], np.ndarray]:
    """Values fixed at compile time and their labels; a mapping gives the labels itself."""
    if isinstance(values, Mapping):
        labels, values = list(values.keys()), list(values.values())
    else:
        values = [v.item() if isinstance(v, np.generic) else v for v in _sequence(name, values)]
        labels = [_label(v) for v in values]
    if not values:
        raise ValueError(f"{name}: found no values, expected at least one")
    if not all(isinstance(label, bool | int | float) for label in labels):
        labels = [str(label) for label in labels]
    _require_lasting(name, labels)
    if len(set(labels)) != len(labels):
        raise ValueError(f"{name}: found labels {labels}, expected distinct ones; pass a dict {{label: value}}")
    return values, np.asarray(labels)


def _table(cells: Any) -> dict[str, Any]:
    """Configurations as columns: from a list of dicts, or a dict of equally long sequences."""
    if isinstance(cells, Mapping):
        table = {name: _sequence(f"cells[{name!r}]", values) for name, values in cells.items()}
        lengths = {name: len(values) for name, values in table.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"cells: found lengths {lengths}, expected columns of one length")
        return table
    cells = list(cells)
    if not cells or not all(isinstance(c, Mapping) for c in cells):
        raise TypeError("cells: expected a non-empty list of dicts, or a dict of equally long columns")
    names = list(cells[0])
    for i, cell in enumerate(cells):
        if set(cell) != set(names):
            raise ValueError(f"cells[{i}]: found arguments {sorted(cell)}, expected {sorted(names)}")
    return {name: [cell[name] for cell in cells] for name in names}


def _positions(values: Sequence[Any]) -> np.ndarray:
    """For each value, the position of the first equal one (by identity where values cannot be hashed)."""
    seen: dict[Any, int] = {}
    keys = [v if getattr(v, "__hash__", None) else id(v) for v in values]
    return np.array([seen.setdefault((type(k), k), i) for i, k in enumerate(keys)])


def _unravel(members: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(members, shape) if shape else ()


def make_grid(grid: Mapping[str, Any] | None, cells: Any = None, static: Mapping[str, Any] | None = None) -> Grid:
    """Check and flatten the arguments of a sweep.

    Args:
      grid: argument -> values along its own dimension; a product.
      cells: instead of `grid`, configurations along one dimension `cell`.
      static: argument -> values (or {label: value}), fixed at compile time.

    Returns: the grid; its dimensions are those of `grid` (or `cell`), then those of `static`.
    Raises: TypeError or ValueError naming the argument, what was found and what was expected.
    Source: derived here.
    Cost: memory of one integer per cell.
    """
    if (grid is None) == (cells is None):
        raise ValueError(f"grid, cells: found {'neither' if grid is None else 'both'}, expected exactly one of them")
    static = dict(static or {})
    for name in static:
        if name in (grid or {}):
            raise ValueError(f"static: found {name!r} in the grid too, expected each argument once")
    traced, coords, dims, fixed = {}, {}, [], {}
    if cells is None:
        for name, values in grid.items():
            dims.append(name)
            if not isinstance(values, Mapping) and _is_numeric(_sequence(f"grid[{name!r}]", values)):
                labels = _numbers(f"grid[{name!r}]", values)
                traced[name] = (len(traced), _as_traced(f"grid[{name!r}]", labels))
            else:
                fixed[name], labels = _static_axis(f"grid[{name!r}]", values)
            coords[name] = (name, labels)
        traced_shape = tuple(len(values) for _, values in traced.values())
        kinds = [((), np.arange(int(np.prod(traced_shape))))]
    else:
        table = _table(cells)
        dims.append("cell")
        size = len(next(iter(table.values()))) if table else 1
        objects = {}
        for name, values in table.items():
            if name in static:
                raise ValueError(f"static: found {name!r} in cells too, expected each argument once")
            if _is_numeric(values):
                labels = _numbers(f"cells[{name!r}]", values)
                traced[name] = (0, _as_traced(f"cells[{name!r}]", labels))
            else:
                objects[name] = values
                labels = np.asarray([str(_label(v)) for v in values])
                _require_lasting(f"cells[{name!r}]", labels)
            coords[name] = ("cell", labels)
        traced_shape = (size,)
        # Cells that share all their objects share a program.
        rows = np.stack([_positions(v) for v in objects.values()], axis=1) if objects else np.zeros((size, 0), int)
        firsts, inverse = np.unique(rows, axis=0, return_inverse=True)
        kinds = [
            (
                tuple((name, values[i]) for (name, values), i in zip(objects.items(), first, strict=True)),
                np.flatnonzero(inverse.reshape(-1) == k),
            )
            for k, first in enumerate(firsts)
        ]
    for name, values in static.items():
        dims.append(name)
        fixed[name], labels = _static_axis(f"static[{name!r}]", values)
        coords[name] = (name, labels)
    sizes = {name: len(values) for name, values in fixed.items()}
    if cells is None:
        sizes |= {name: len(values) for name, (_, values) in traced.items()}
    else:
        sizes["cell"] = traced_shape[0]
    shape = tuple(sizes[d] for d in dims)
    traced_dims = [d for d in dims if d not in fixed]
    groups = []
    for choice in np.ndindex(*(len(values) for values in fixed.values())):
        where = dict(zip(fixed, choice, strict=True))
        chosen = {name: fixed[name][i] for name, i in where.items()}
        for kind, members in kinds:
            index = dict(zip(traced_dims, _unravel(members, traced_shape), strict=True))
            position = [index[d] if d in index else np.full(len(members), where[d]) for d in dims]
            flat = np.ravel_multi_index(position, shape) if dims else np.zeros(len(members), int)
            groups.append(Group(chosen | dict(kind), members, flat))
    return Grid(tuple(dims), shape, coords, traced, traced_shape, tuple(groups))


def check_arguments(one_run: Callable, grid: Grid) -> None:
    """Check that a run takes exactly the arguments of the grid.

    Args: one_run: the function; functions without a signature pass. grid: the cells.
    Raises: TypeError naming the signature and the arguments.
    Source: derived here. Cost: one binding.
    """
    try:
        signature = inspect.signature(one_run)
    except (TypeError, ValueError):
        return
    names = dict.fromkeys([*grid.traced, *grid.groups[0].static])
    try:
        signature.bind(**names)
    except TypeError as error:
        raise TypeError(f"one_run: found signature {signature}, expected arguments {list(names)}: {error}") from None


def columns(grid: Grid, members: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values of the traced arguments at some cells.

    Args: grid: the cells; members: int[n], positions in the product of the traced axes.
    Returns: one array[n] per traced argument, in order. Source: derived here. Cost: n reads per argument.
    """
    if not grid.traced:
        return ()
    index = _unravel(members, grid.traced_shape)
    return tuple(values[index[axis]] for axis, values in grid.traced.values())


def describe(grid: Grid, group: Group, start: int, stop: int) -> str:
    """Name some cells by their arguments, for error messages.

    Args: grid, group: the cells; start, stop: the slice of the group's members, not empty.
    Returns: their number, the first and the last. Source: derived here. Cost: O(1).
    """

    def name(i: int) -> str:
        values = columns(grid, group.members[i : i + 1])
        numbers = {k: v[0].item() for k, v in zip(grid.traced, values, strict=True)}
        return ", ".join(f"{k}={_label(v)}" for k, v in (numbers | group.static).items())

    return f"{stop - start} cells, from ({name(start)}) to ({name(stop - 1)})"


def order_by_work(grid: Grid, work: Callable | np.ndarray) -> Grid:
    """Sort the cells of each group by predicted cost, dearest first, so that a block holds lanes that end together.

    Args:
      grid: the cells.
      work: `work(**arguments)`, called once per group with 1-d arrays of the traced arguments and the static
        ones as they are, returning the costs; or an array of the grid's shape.

    Returns: the grid with the members of its groups in that order; equal costs keep the order of the grid.
    Raises: ValueError unless there is one number, not NaN, per cell.
    Source: derived here. Cost: one stable sort.
    """
    groups = []
    for group in grid.groups:
        if callable(work):
            values = dict(zip(grid.traced, columns(grid, group.members), strict=True))
            costs = np.asarray(work(**values, **group.static))
            expected = group.members.shape
        else:
            costs, expected = np.asarray(work), grid.shape
        if costs.shape != expected or costs.dtype == object or np.any(np.isnan(costs)):
            raise ValueError(f"work: found {costs.dtype}{costs.shape}, expected {expected} numbers, no NaN")
        if not callable(work):
            costs = costs.reshape(-1)[group.flat]
        order = np.argsort(-costs.astype(float), kind="stable")
        groups.append(group._replace(members=group.members[order], flat=group.flat[order]))
    return grid._replace(groups=tuple(groups))


def hash_grid(grid: Grid, dims: Mapping[str, tuple[str, ...]], coords: Mapping[str, tuple[str, np.ndarray]]) -> str:
    """Hash of everything in a grid: labels, values, dtypes and the order of computation.

    Args: grid: the cells; dims: variable -> names of its own axes; coords: name -> (dimension, labels).
    Returns: 64 hexadecimal digits, the same in every process. Source: derived here. Cost: reads the grid once.
    """
    digest = hashlib.sha256(repr((grid.dims, grid.shape, grid.traced_shape, sorted(dims.items()))).encode())
    arrays = [(name, *entry) for name, entry in (*grid.coords.items(), *coords.items(), *grid.traced.items())]
    for name, where, values in arrays:
        digest.update(f"{name} {where} {values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    for group in grid.groups:
        digest.update(group.members.astype(np.int64).tobytes() + group.flat.astype(np.int64).tobytes())
    return digest.hexdigest()
