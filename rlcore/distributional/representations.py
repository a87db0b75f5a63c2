"""What a dynamic programme keeps of a law: its stop-loss curve on a lattice, or equally likely quantiles."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.lattice import Lattice, lattice
from rlcore.distributional.laws import Law, from_stop_loss, project_categorical, project_quantile, to_stop_loss
from rlcore.distributional.stock import StockGrid
from rlcore.distributional.stock_window import check_grid, possible_rewards, return_range
from rlcore.mdp import MDP
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number

__all__ = ["Categorical", "Mixture", "Quantiles", "Representation", "fitting_lattice", "mixture_law"]


# Differences of stop-loss curves below this many units of rounding per atom are no mass.
NOISE = 16


class Mixture(NamedTuple):
    """A mixture of M laws of shift + discount G', where the law of G' is a row of a table of kept laws.

    row: int32[..., M]. prob, shift: float[..., M]; a probability of 0 is padding. ended: bool[..., M], G' is 0.
    """

    row: Array
    prob: Array
    shift: Array
    ended: Array


def _mix(prob, x):
    """Sum over the mixture, the last axis of `prob`; padding may hold NaN."""
    prob = prob[..., None]
    return jnp.sum(jnp.where(prob > 0, prob * x, 0), axis=-2)


@pytree
class Categorical:
    """Probabilities on a lattice, kept as the stop-loss curve J_j = E max(z_j - G, 0).

    points: the lattice of Z atoms. The projection moves mass to the two nearest atoms and keeps the mean; what lies
    outside goes to the ends. It is the interpolation of J between atoms: a backup gathers, and scatters nothing.
    """

    points: Lattice

    @property
    def size(self) -> int:
        """Numbers kept of one law."""
        return self.points.size

    def zero(self, dtype) -> Float[Array, "Z"]:
        """The law of 0. Cost: Z."""
        pmf = project_categorical(Law(jnp.zeros(1, dtype), jnp.ones(1, dtype)), self.points)
        return to_stop_loss(self.points, pmf)

    def law(self, kept: Float[Array, "*L Z"], *, exact: bool = False) -> Law:
        """The kept laws as atoms and their probabilities.

        Args: exact: the second differences as they are. They may be of either sign at the size of rounding, which
          cancels in expectations, but an infimum sees atoms where there is no mass: by default these get 0.
        Cost: their size.
        """
        pmf = from_stop_loss(self.points, kept) if exact else self.output(kept)
        return Law(jnp.broadcast_to(self.points.points.astype(pmf.dtype), pmf.shape), pmf)

    def output(self, kept: Float[Array, "*L Z"]) -> Float[Array, "*L Z"]:
        """What solvers return of the kept laws: probabilities of the atoms, without rounding. Cost: their size."""
        pmf = from_stop_loss(self.points, kept)
        # curves reach size * spacing and are rounded some times a sweep: differences lose that many units
        pmf = jnp.where(pmf <= NOISE * self.size * jnp.finfo(pmf.dtype).eps, 0, pmf)
        return pmf / jnp.sum(pmf, axis=-1, keepdims=True)

    def backup(self, table: Float[Array, "R Z"], mixture: Mixture, discount: Number) -> Float[Array, "*L Z"]:
        """The projected mixture: J(z) = sum_m p_m discount J_m((z - shift_m) / discount), mass below z_0 moved to z_0.

        Source: derived: docs/proofs/distributional.md, T12. Cost: 2 M Z reads a law.
        """
        first, last, spacing = self.points.first, self.size - 1, jnp.asarray(self.points.spacing, table.dtype)
        atoms = (first + jnp.arange(self.size)).astype(table.dtype)
        atoms = jnp.expand_dims(atoms, tuple(range(mixture.shift.ndim)))
        # in spacings from the first atom; the curve is continuous, so that rounding cannot choose a wrong piece
        steps = (atoms - mixture.shift[..., None] / spacing) / discount - first
        inner = jnp.clip(steps, 0, last)
        index = jnp.minimum(inner.astype(jnp.int32), last - 1)
        at = mixture.row[..., None] * self.size + index
        flat = table.reshape(-1)
        lower = flat.at[at].get(mode="promise_in_bounds")
        upper = flat.at[at + 1].get(mode="promise_in_bounds")
        curve = lower + (inner - index.astype(inner.dtype)) * (upper - lower) + spacing * jnp.maximum(steps - last, 0)
        curve = jnp.where(mixture.ended[..., None], spacing * jnp.maximum(steps + first, 0), curve)
        curve = discount * _mix(mixture.prob, curve)
        return curve - curve[..., :1]


@pytree
class Quantiles:
    """Equally likely atoms in increasing order.

    size: int >= 1, static, their number N. which, static: "middle", the nearest in w_1; "low" or "high", a bracket in
    first-order stochastic dominance.
    """

    size: int = static()
    which: str = static("middle")

    def zero(self, dtype) -> Float[Array, "N"]:
        """The law of 0. Cost: N."""
        return jnp.zeros(self.size, dtype)

    def law(self, kept: Float[Array, "*L N"], *, exact: bool = False) -> Law:
        """The kept laws as atoms and their probabilities, exact in any case. Cost: their size."""
        return Law(kept, jnp.full_like(kept, 1 / self.size))

    def output(self, kept: Float[Array, "*L N"]) -> Float[Array, "*L N"]:
        """What solvers return of the kept laws: the atoms."""
        return kept

    def backup(self, table: Float[Array, "R N"], mixture: Mixture, discount: Number) -> Float[Array, "*L N"]:
        """The projected mixture; see `project_quantile`. Cost: M N log(M N) a law."""
        law = mixture_law(self, table, mixture, discount)
        flat = Law(*(x.reshape(-1, x.shape[-1]) for x in law))
        kept = jax.vmap(lambda values, probs: project_quantile(Law(values, probs), self.size, self.which))(*flat)
        return kept.reshape(*law.values.shape[:-1], self.size)


Representation = Categorical | Quantiles


def mixture_law(representation: Representation, table: Float[Array, "R N"], mixture: Mixture, discount: Number) -> Law:
    """The mixture itself, unprojected: what is scored, and what a scattering projection starts from.

    Args: table: kept laws; mixture: [..., M]; discount: float[].
    Returns: laws of M N atoms, [..., M N]. Cost: their size.
    """
    inner = representation.law(table[mixture.row])
    prob, ended = mixture.prob[..., None], mixture.ended[..., None]
    # a law that is not known has NaN for values, whatever it is kept as, but padding must not
    unknown = jnp.isnan(inner.probs) & (prob > 0) & ~ended
    tail = jnp.where(ended | (prob == 0), 0, jnp.where(unknown, jnp.nan, inner.values))
    share = jnp.where(ended | jnp.isnan(inner.probs), 1 / representation.size, inner.probs)
    flat = (*mixture.row.shape[:-1], mixture.row.shape[-1] * representation.size)
    values = mixture.shift[..., None] + discount * tail
    return Law(values.reshape(flat), (prob * share).reshape(flat))


def fitting_lattice(problem: MDP, grid: StockGrid, *, refine: int = 1) -> Lattice:
    """Atoms with which the projection loses nothing of a two-slope utility on a window [-W, W].

    Minus every node of the grid is an atom, so that the kink lies on one; and no mass of a return, of any number of
    steps and with rewards telescoped over rounded stocks, leaves the lattice. On windows that are not symmetric, laws
    outside the window can cost a little (docs/proofs/distributional.md, T13).

    Args: problem: with concrete arrays. grid: in the coordinates "stock". refine: int >= 1, atoms per stock spacing.
    Returns: the lattice, of spacing (that of the grid) / refine.
    Raises: TypeError, ValueError: as `check_grid`; ValueError: discounted coordinates, where the kink moves with time;
      refine < 1; returns without a bound (discount 1, no horizon): give `Categorical` a lattice of your own.
    Source: derived: docs/proofs/distributional.md, T13. Cost: that of `return_range`.
    """
    check_grid(problem, grid)
    if grid.coordinates != "stock":
        raise ValueError(f"grid: found coordinates {grid.coordinates!r}, expected 'stock': the kink must stay in place")
    if refine < 1:
        raise ValueError(f"refine: found {refine}, expected a number >= 1")
    discount, horizon, spacing = float(problem.discount), problem.horizon, float(grid.lattice.spacing)
    off = {"exact": 0.0, "nearest": spacing / 2}.get(grid.rounding, spacing)
    reward = possible_rewards(problem)
    if discount < 1:
        # an end from which no step leads out, since discount end + (greatest reward + off) <= end
        ends = [(x + s * discount * off) / (1 - discount) for x, s in ((reward.min(), -1), (reward.max(), 1))]
    else:
        # each step may round the stock, and on the sides and at the end an atom off the lattice
        aligned = np.all(np.abs(reward / spacing - np.rint(reward / spacing)) <= 1e-9)
        slack = off + (0.0 if aligned else spacing / refine)
        least, most = partial_returns(problem)
        more = 0.0 if slack == 0 else np.inf if horizon is None else slack * horizon
        ends = [least - more, most + more]
    if not np.all(np.isfinite(ends)):
        raise ValueError("problem: found returns without a bound, expected a horizon, a discount < 1 or an end")
    low = min(float(ends[0]), -float(grid.lattice.high), 0.0)
    high = max(float(ends[1]), -float(grid.lattice.low), 0.0)
    return lattice(low, high, spacing / refine)


def partial_returns(problem: MDP) -> tuple[float, float]:
    """The least and the greatest sum of rewards of a path that may stop at any step."""
    stop = dict(next_state=0, prob=1.0, reward=0.0, terminal=True)
    kernel = {
        name: jnp.concatenate([x := getattr(problem, name), jnp.full_like(x[..., :1], value)], axis=-1)
        for name, value in stop.items()
    }
    low, high = return_range(dataclasses.replace(problem, **kernel))
    return float(np.min(low)), float(np.max(high))
