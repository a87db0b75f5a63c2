"""The checks that every maker makes of its parameters: one error text, argument, found, expected."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

__all__ = ["check_choice", "check_flag", "check_integer", "check_number"]


def check_integer(name: str, value: object, at_least: int, at_most: int | None = None) -> int:
    """The integer `value`, refused unless it lies in [at_least, at_most].

    Raises:
      TypeError: not an integer (a bool is none).
      ValueError: out of range.
    """
    bounds = f"an integer >= {at_least}" if at_most is None else f"an integer in [{at_least}, {at_most}]"
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{name}: found {value!r}, expected {bounds}")
    if value < at_least or (at_most is not None and value > at_most):
        raise ValueError(f"{name}: found {value}, expected {bounds}")
    return int(value)


def check_number(name: str, value: object, low: float, high: float) -> float:
    """The finite number `value`, refused unless it lies in [low, high].

    Raises:
      TypeError: not a real number.
      ValueError: out of range, infinite or NaN.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: found {value!r}, expected a number in [{low}, {high}]")
    if not (low <= value <= high and abs(value) < float("inf")):
        raise ValueError(f"{name}: found {value}, expected a finite number in [{low}, {high}]")
    return float(value)


def check_flag(name: str, value: object) -> bool:
    """The bool `value`.

    Raises: TypeError for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: found {value!r}, expected True or False")
    return bool(value)


def check_choice(name: str, value: object, options: Sequence[object]):
    """`value`, refused unless it is one of `options`.

    Raises: ValueError naming the options.
    """
    if value not in options:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(map(repr, options))}")
    return value
