"""The names of a data set: dimensions and coordinates, checked against what a run returns, kept as JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlcore.grid import Grid

if TYPE_CHECKING:
    import xarray

__all__ = ["Labels", "decode", "encode", "label_outputs", "to_dataset"]


class Labels(NamedTuple):
    """Dimensions of every variable beyond the grid's, and their coordinates."""

    dims: dict[str, tuple[str, ...]]
    coords: dict[str, tuple[str, np.ndarray]]


def label_outputs(grid: Grid, outputs: Mapping[str, Any], dims: Any, coords: Any) -> Labels:
    """Check the names of output axes and their coordinates against what a run returns.

    Args: grid: whose names are taken; outputs: variable -> shape and dtype; dims: variable -> axis names; coords:
      axis name -> labels.
    Returns: names for every axis, by default f"{variable}_{i}". Source: derived here. Cost: O(1).
    Raises: ValueError for unknown or clashing names, wrong ranks and wrong lengths.
    """
    dims, coords, sizes, named = dict(dims or {}), dict(coords or {}), {}, {}
    taken = {*grid.coords, *grid.dims, *outputs, "computed"}
    for name in dims:
        if name not in outputs:
            raise ValueError(f"dims: found {name!r}, expected one of the variables {list(outputs)}")
    for name, spec in outputs.items():
        if name in grid.coords or name in grid.dims or name == "computed":
            raise ValueError(f"one_run: found a variable named {name!r}, which is an argument's or a reserved name")
        axes = dims.get(name, tuple(f"{name}_{i}" for i in range(len(spec.shape))))
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        if len(axes) != len(spec.shape):
            raise ValueError(f"dims[{name!r}]: found {axes}, expected a name for each axis of {spec.shape}")
        for axis, size in zip(axes, spec.shape, strict=True):
            if axis in taken or axes.count(axis) > 1:
                raise ValueError(f"dims[{name!r}]: found {axis!r}, which names something else already")
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"dims[{name!r}]: found size {size} for {axis!r}, expected {sizes[axis]} as elsewhere")
        named[name] = axes
    checked = {}
    for name, values in coords.items():
        values = np.asarray(values)
        if name not in sizes:
            raise ValueError(f"coords: found {name!r}, expected one of the output axes {list(sizes)}")
        if values.shape != (sizes[name],) or values.dtype.kind not in "biufU":
            raise ValueError(
                f"coords[{name!r}]: found {values.dtype}{values.shape}, expected {sizes[name]} numbers or strings"
            )
        checked[name] = (name, values)
    return Labels(named, checked)


def encode(coords: Mapping[str, tuple[str, np.ndarray]]) -> dict[str, Any]:
    """Coordinates as JSON; numbers come back with all their bits.

    Args: coords: name -> (dimension, labels). Returns: a JSON value. Source: derived here. Cost: one copy.
    """
    return {name: [dim, values.dtype.str, values.tolist()] for name, (dim, values) in coords.items()}


def decode(coords: Mapping[str, Any]) -> dict[str, tuple[str, np.ndarray]]:
    """The coordinates that `encode` wrote.

    Args: coords: its result. Returns: name -> (dimension, labels). Source: derived here. Cost: one copy.
    """
    return {name: (dim, np.array(values, dtype)) for name, (dim, dtype, values) in coords.items()}


def to_dataset(
    dims: Sequence[str],
    shape: Sequence[int],
    coords: Mapping[str, tuple[str, np.ndarray]],
    labels: Labels,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> "xarray.Dataset":
    """Lay flat variables over the dimensions of the grid.

    Args: dims, shape, coords: the grid's; labels: the variables' own; arrays: variable -> [cells, ...]; attributes.
    Returns: the Dataset, without a copy. Source: derived here. Cost: O(1).
    """
    import xarray

    variables = {
        name: ((*dims, *labels.dims[name]), array.reshape(*shape, *array.shape[1:])) for name, array in arrays.items()
    }
    return xarray.Dataset(variables, coords={**coords, **labels.coords}, attrs=attributes)
