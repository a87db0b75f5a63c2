"""The type aliases that every signature shares, and the one check of precision."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Number", "PyTree", "RandomKey", "Shaped", "require_float64"]

# A number that may be traced: a Python number or a scalar array.
Number = float | int | Float[Array, ""] | Int[Array, ""]
# A key made by `jax.random.key`, or None where nothing is sampled.
RandomKey = Key[Array, ""] | None
PyTree = Any


def require_float64(where: str) -> None:
    """Raise unless 64-bit floats are on; `where` names the function that needs them.

    Raises:
      RuntimeError: float64 is off. The library never switches it on itself.
    """
    if not jax.config.jax_enable_x64:
        raise RuntimeError(
            f"{where} needs float64, found float32: call jax.config.update('jax_enable_x64', True) "
            "at the start of your program, or set JAX_ENABLE_X64=1"
        )
