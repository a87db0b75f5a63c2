"""What a distributional programme maximises: a utility's expectation, or any function of the law of stock plus return.

Outside the window of stocks a solver needs to know how the objective goes on. A utility with affine tails ranks laws
there by their mean. A function of laws that ranks them alike after every shift ranks them there as at stock 0. Of
anything else nothing is known.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.functionals import orders_alike, shifts_alike
from rlcore.distributional.laws import Law
from rlcore.distributional.stock import StockGrid, StockValue, scale_factor
from rlcore.distributional.stock_window import check_grid, check_stock_problem
from rlcore.distributional.utility import Custom, Utility
from rlcore.mdp import MDP
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number

__all__ = [
    "Functional",
    "OfLaw",
    "best_value",
    "change_of_value",
    "check_functional",
    "enough_change",
    "functional_tree",
    "sides",
]


@pytree
class OfLaw:
    """A function of laws as solvers hold it; build it with `functional_tree`.

    function: a `jax.tree_util.Partial`, Law -> float[]. shifts, static: whether it ranks laws alike after every shift.
    """

    function: Callable[[Law], Array]
    shifts: bool = static(False)

    def __call__(self, law: Law) -> Float[Array, ""]:
        """function(law)."""
        return self.function(law)


Functional = Utility | Callable[[Law], Array]


def functional_tree(functional: Functional, shifts: bool | None = None) -> Functional:
    """A functional as a pytree: numbers bound by `functools.partial` are traced, so that others need no new program.

    Args: shifts: the promise of `OfLaw`; None: what this package knows of it. Cost: O(1).
    """
    if isinstance(functional, Utility):
        return functional
    shifts = shifts_alike(functional) if shifts is None else shifts
    if isinstance(functional, functools.partial):
        bound = jax.tree.leaves((functional.args, functional.keywords))
        if all(isinstance(x, float | int | np.ndarray | np.number | jax.Array) for x in bound):
            return OfLaw(jax.tree_util.Partial(functional.func, *functional.args, **functional.keywords), shifts)
    return OfLaw(jax.tree_util.Partial(functional), shifts)


def sides(functional: Functional) -> str:
    """How the objective goes on outside the window: "affine", "shifted" or "unknown"."""
    if isinstance(functional, Utility):
        return "unknown" if functional.tails() is None else "affine"
    return "shifted" if getattr(functional, "shifts", False) else "unknown"


def check_functional(
    problem: MDP, functional: Functional, grid: StockGrid, homogeneous: bool | None, shifts: bool | None
) -> None:
    """Refuse, on the host, what a distributional programme cannot keep consistent over steps.

    Args: homogeneous, shifts: promises for a function of laws; None: what this package knows of it.
    Raises: ValueError: promises for a utility; a function of laws that is not known to order them alike at every scale,
      at a discount below 1 in stock coordinates, or whose parameters are out of range; values that are not one number.
      TypeError, ValueError: as `check_stock_problem`.
    """
    if isinstance(functional, Utility):
        if homogeneous is not None or shifts is not None:
            raise ValueError("homogeneous, shifts: found promises for a utility, expected none: it tells by itself")
        check_stock_problem(problem, functional, grid)
        return
    # traced on shapes alone: bound levels are checked before solvers trace them
    atoms = jax.ShapeDtypeStruct((2,), problem.prob.dtype)
    value = jax.eval_shape(functional, Law(atoms, atoms))
    if getattr(value, "shape", None) != ():
        raise ValueError(f"functional: found {value} for a law, expected one number")
    scales = orders_alike(functional) if homogeneous is None else homogeneous
    discounted = not isinstance(problem.discount, jax.core.Tracer) and float(problem.discount) < 1
    if discounted and grid.coordinates == "stock" and not scales:
        name = getattr(getattr(functional, "func", functional), "__name__", type(functional).__name__)
        raise ValueError(
            f"functional: found {name} at discount {float(problem.discount)}, not known to order the laws of "
            "discount X and discount Y as those of X and Y, expected one that does (cvar, essential_infimum, "
            "two_slope): promise it by homogeneous=True, or use the coordinates 'discounted' with a horizon"
        )
    if sides(functional_tree(functional, shifts)) == "shifted":
        check_grid(problem, grid)
    else:
        check_stock_problem(problem, Custom(functional, 1.0), grid)


def enough_change(problem: MDP, functional: Functional, grid: StockGrid, tol: Number) -> Array:
    """The change of the value at which sweeps stop: tol (1 - scale) / (2 scale), or tol where nothing contracts."""
    utility = functional if isinstance(functional, Utility) else Custom(functional, 1.0)
    scale = jnp.asarray(scale_factor(grid, utility, problem.discount), problem.reward.dtype)
    return jnp.where(scale < 1, tol * (1 - scale) / (2 * scale), tol)


def _slopes(functional: Functional) -> Array | None:
    """What one unit of the value of the sides, below and above, is worth there."""
    kind = sides(functional)
    if kind == "affine":
        return functional.tails().slope
    return jnp.ones(2) if kind == "shifted" else None


def best_value(functional: Functional, q: Float[Array, "S R A"]) -> StockValue:
    """The values of the best actions, from scores: where the slope is negative the least mean. Cost: the size of q."""
    best = jnp.max(q, axis=-1)
    slopes = _slopes(functional)
    sign = jnp.ones(2) if slopes is None else jnp.where(slopes < 0, -1, 1)
    below, above = best[:, -2] * sign[0].astype(q.dtype), best[:, -1] * sign[1].astype(q.dtype)
    return StockValue(best[:, :-2], below, above)


def change_of_value(functional: Functional, new: StockValue, old: StockValue) -> Float[Array, ""]:
    """The greatest change at a node or, times the slope there, on the sides."""
    change = jnp.max(jnp.abs(new.value - old.value))
    slopes = _slopes(functional)
    if slopes is None:
        return change
    for slope, a, b in zip(slopes.astype(change.dtype), new[1:], old[1:], strict=True):
        change = jnp.maximum(change, jnp.where(slope == 0, 0, jnp.abs(slope)) * jnp.max(jnp.abs(a - b)))
    return change
