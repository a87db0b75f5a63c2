"""One interface to all worst-case operators: `worst_case(divergence, reference, values, level, constrained=False)`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.robust.constrained import constrained_chi2, constrained_kl, constrained_tv, cvar
from rlcore.robust.general import FDivergence, Wasserstein, constrained_wasserstein, regularised_f
from rlcore.robust.general import regularised_wasserstein as _regularised_wasserstein
from rlcore.robust.operators import WorstCase
from rlcore.robust.regularised import regularised_chi2, regularised_kl, regularised_tv
from rlcore.types import Array, Float, Int, Number

__all__ = ["DIVERGENCES", "Divergence", "check_level", "operator", "worst_case"]

# A name of the table, an f-divergence, or a Wasserstein distance.
Divergence = str | FDivergence | Wasserstein

# name: (with a price, within a ball); None where there is no such problem.
DIVERGENCES = {
    "tv": (regularised_tv, constrained_tv),
    "kl": (regularised_kl, constrained_kl),
    "chi2": (regularised_chi2, constrained_chi2),
    "cvar": (None, cvar),
}


def operator(divergence: Divergence, constrained: bool = False) -> Callable:
    """The operator `(reference float[S], values float[S], level float[]) -> WorstCase` of a divergence.

    Args: divergence: "tv", "kl", "chi2", "cvar", an FDivergence or a Wasserstein; constrained: static.
    Raises: ValueError: an unknown name, or a problem that this divergence does not have. Cost: O(1).
    """
    if isinstance(divergence, Wasserstein):
        solve = constrained_wasserstein if constrained else _regularised_wasserstein
        return lambda reference, values, level: solve(reference, values, level, divergence.cost)
    if isinstance(divergence, FDivergence):
        if constrained:
            raise ValueError(f"constrained: found True with {divergence.name}, expected one of tv, kl, chi2, cvar")
        return lambda reference, values, level: regularised_f(divergence, reference, values, level)
    if divergence not in DIVERGENCES:
        raise ValueError(
            f"divergence: found {divergence!r}, expected one of {', '.join(DIVERGENCES)}, an FDivergence or a "
            "Wasserstein"
        )
    found = DIVERGENCES[divergence][int(constrained)]
    if found is None:
        raise ValueError(f"constrained: found {constrained} with {divergence!r}, expected {not constrained}")
    return found


def check_level(divergence: Divergence, level: Number | Float[Array, "..."], constrained: bool) -> None:
    """Raise ValueError for a level outside the range of its problem; traced levels are the caller's promise.

    A price is above 0 (inf asks for the nominal law), a radius is at least 0, at most 1 for TV; a CVaR level is in (0,
    1].
    """
    if isinstance(level, jax.core.Tracer):
        return
    found = np.asarray(level)
    if np.any(np.isnan(found)):
        raise ValueError(f"level: found NaN in {level}, expected numbers")
    if not constrained:
        ok, expected = np.all(found > 0), "prices above 0"
        if ok and isinstance(divergence, FDivergence):
            ok, expected = np.all(np.isfinite(found)), "finite prices above 0"
    elif divergence == "cvar":
        ok, expected = np.all((found > 0) & (found <= 1)), "levels in (0, 1]"
    elif divergence == "tv":
        ok, expected = np.all((found >= 0) & (found <= 1)), "radii in [0, 1]"
    else:
        ok, expected = np.all((found >= 0) & np.isfinite(found)), "finite radii of at least 0"
    if not ok:
        raise ValueError(f"level: found {level}, expected {expected}")


def check_cost(divergence: Divergence, num_states: int) -> None:
    """Raise ValueError for a Wasserstein distance whose cost does not fit the states; a traced one is a promise."""
    if not isinstance(divergence, Wasserstein):
        return
    if np.shape(divergence.cost) != (num_states, num_states):
        raise ValueError(f"cost: found shape {np.shape(divergence.cost)}, expected {(num_states, num_states)}")
    if isinstance(divergence.cost, jax.core.Tracer):
        return
    cost = np.asarray(divergence.cost)
    if not (np.all(np.isfinite(cost)) and np.all(cost >= 0) and np.all(np.diagonal(cost) == 0)):
        raise ValueError(
            f"cost: found entries in [{cost.min():g}, {cost.max():g}], diagonal up to {np.diagonal(cost).max():g}, "
            "expected finite numbers of at least 0 with a diagonal of 0"
        )


def worst_case(
    divergence: Divergence,
    reference: Float[Array, " S"],
    values: Float[Array, " S"] | Int[Array, " S"],
    level: Number | Float[Array, "..."],
    constrained: bool = False,
) -> WorstCase:
    """The least expectation of `values` over laws near `reference`: at a price per unit of divergence, or in a ball.

    Args: divergence: see `operator`; reference: float[S], a law; values: float[S]; level: float[], the price (in units
      of value) or the radius; constrained: whether level is a radius, static.
    Returns: WorstCase(value float[], worst_kernel float[S], dual float[]). First derivatives of the value are exact.
    Raises: ValueError: an unknown divergence, a level out of range, values or a reference that are no numbers or no
      law, a Wasserstein cost that is negative somewhere or of another shape.
    Source: each operator's. Cost: O(S) for regularised TV and KL, some passes over S for chi-square, O(S log S)
      for balls and CVaR.
    """
    check_level(divergence, level, constrained)
    if np.ndim(level) != 0:
        raise ValueError(f"level: found shape {np.shape(level)}, expected one number (`jax.vmap` over several)")
    reference, values = jnp.asarray(reference), jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        values = values.astype(reference.dtype)  # integers would round the level to theirs
    for name, x in (("reference", reference), ("values", values)):
        if not isinstance(x, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(x))):
            raise ValueError(f"{name}: found NaN or infinite entries, expected finite numbers")
    if values.shape != reference.shape:
        raise ValueError(f"values: found shape {values.shape}, expected that of reference, {reference.shape}")
    if not isinstance(reference, jax.core.Tracer):
        law = np.asarray(reference)
        if law.ndim != 1 or law.size == 0 or np.any(law < 0) or abs(law.sum() - 1) > 1e-6:
            raise ValueError(
                f"reference: found shape {law.shape}, least entry {law.min(initial=np.inf):g}, sum {law.sum():g}, "
                "expected a law: non-negative entries that sum to 1"
            )
    check_cost(divergence, reference.size)
    return operator(divergence, constrained)(reference, values, level)
