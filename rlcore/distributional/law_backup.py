"""One distributional backup over states and stocks: where outcomes lead, what actions score, the projected laws.

Kept laws are rows of one table [S, C + 2, N]: the nodes of the stock grid, then the sides below and above the window.
Inside the window rewards are telescoped, discount c' - c with c' the rounded stock, so that stock plus return keeps
its value whatever the rounding; on the sides, where utilities are affine, and at the end of an episode they are true.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.distributional.functionals import expected_utility, mean
from rlcore.distributional.laws import Law
from rlcore.distributional.objective import Functional, sides
from rlcore.distributional.representations import Mixture, Representation, mixture_law
from rlcore.distributional.stock import StockGrid, StockValue, discount_power, next_stock, round_stock
from rlcore.distributional.stock_vi import stock_backup
from rlcore.distributional.utility import Utility
from rlcore.mdp import MDP
from rlcore.types import Array, Float, Int, Number

__all__ = [
    "Paths",
    "chosen_outcomes",
    "law_backup",
    "mark_unknown",
    "mixtures",
    "paths",
    "scores",
    "worth",
    "zero_laws",
]

# Numbers that one piece of the states may hold at a time: on a CPU what fits its cache, elsewhere what fills it.
PIECE_CPU, PIECE = 2**18, 2**26


class Paths(NamedTuple):
    """Where the outcomes of some rows of one state lead; M outcomes, twice as many where the grid interpolates.

    state, column: int32[..., M], where in the table: a node, C below or C + 1 above. stock: float[..., M], before
    rounding. prob, shift: float[..., M], shift the reward that the law of the return is moved by. ended: bool[..., M].
    """

    state: Array
    column: Array
    stock: Array
    prob: Array
    shift: Array
    ended: Array


def paths(kernel, rows: Int[Array, "*L"], grid: StockGrid, discount: Number, t, last, telescoped: bool = True) -> Paths:
    """Follow outcomes from rows of the table.

    Args:
      kernel: (next_state, prob, reward, terminal), each [..., B], of these rows. rows: int32[...], their columns.
      t: int[], steps taken; last: bool[], whether no step follows.
      telescoped: False keeps true rewards everywhere: laws of the true return under a policy that tracks the rounded
        stock, which its value does not follow.

    Returns: the paths. Source: derived: docs/proofs/distributional.md, T10 and T11. Cost: their size.
    """
    next_state, prob, reward, terminal = kernel
    nodes, size = grid.nodes.astype(reward.dtype), grid.lattice.size
    side = rows[..., None] >= size
    node = nodes[jnp.minimum(rows, size - 1)][..., None]
    stock = next_stock(grid, node, reward, discount, t)
    at = round_stock(grid, stock)
    ended = jnp.broadcast_to(terminal | last, reward.shape)
    outside = side | at.below | at.above
    beyond = jnp.where(side, rows[..., None], jnp.where(at.below, size, size + 1))

    def branch(index, share):
        column = jnp.where(outside, beyond, index)
        if not telescoped or grid.rounding == "exact":
            return Paths(next_state, column, stock, share, reward, ended)
        landed = nodes[index]
        if grid.coordinates == "discounted":
            shift = (landed - node) / discount_power(discount, t)
        else:
            shift = discount * landed - node
        return Paths(next_state, column, stock, share, jnp.where(outside | ended, reward, shift), ended)

    if grid.rounding not in ("linear", "stochastic"):
        return branch(at.index + at.weight.astype(jnp.int32), prob)
    upper = jnp.where(outside | ended, 0, prob * at.weight)
    both = (branch(at.index, prob - upper), branch(at.index + 1, upper))
    return Paths(*(jnp.concatenate(pair, axis=-1) for pair in zip(*both, strict=True)))


def _by_state(function, arguments, cost: int):
    """Map over states, `cost` numbers each, in pieces."""
    states = jax.tree.leaves(arguments)[0].shape[0]
    at_once = max(1, (PIECE_CPU if jax.default_backend() == "cpu" else PIECE) // cost)
    if at_once >= states:
        return jax.vmap(function)(arguments)
    return jax.lax.map(function, arguments, batch_size=at_once)


def _kernel(problem: MDP):
    return problem.next_state, problem.prob, problem.reward, problem.terminal


def chosen_outcomes(kernel, choice):
    """The outcomes of the chosen action of each row, or of all actions with their weights: [C + 2, M]."""
    if choice.ndim == 1:
        return tuple(x[choice] for x in kernel)
    next_state, prob, reward, terminal = (jnp.broadcast_to(x, (choice.shape[0], *x.shape)) for x in kernel)
    kernel = (next_state, prob * choice[..., None], reward, terminal)
    return tuple(x.reshape(x.shape[0], -1) for x in kernel)


def _mixture(kernel, rows, grid: StockGrid, discount, t, last, telescoped) -> Mixture:
    going = paths(kernel, rows, grid, discount, t, last, telescoped)
    return Mixture(going.state * (grid.lattice.size + 2) + going.column, going.prob, going.shift, going.ended)


def mixtures(
    problem: MDP,
    grid: StockGrid,
    choice: Int[Array, "S R"] | Float[Array, "S R A"],
    *,
    t: Number = 0,
    last: bool | Array = False,
    telescoped: bool = True,
) -> Mixture:
    """The mixtures of all states and rows, at once: what `law_backup` makes piece by piece.

    Args: choice: R = C + 2, actions or their weights. Returns: [S, R, M]. Cost: their size.
    """
    problem = problem.at_time(t)
    rows = jnp.arange(grid.lattice.size + 2, dtype=jnp.int32)
    make = functools.partial(_mixture, rows=rows, grid=grid, discount=problem.discount)
    return jax.vmap(lambda row: make(chosen_outcomes(row[0], row[1]), t=t, last=last, telescoped=telescoped))(
        (_kernel(problem), choice)
    )


def law_backup(
    problem: MDP,
    grid: StockGrid,
    representation: Representation,
    table: Float[Array, "S R N"],
    choice: Int[Array, "S R"] | Float[Array, "S R A"],
    *,
    t: Number = 0,
    last: bool | Array = False,
    telescoped: bool = True,
) -> Float[Array, "S R N"]:
    """The projected laws of one step under a policy, then of what the table holds.

    Args:
      problem: an outcome list. table: kept laws of the next step, R = C + 2 rows a state. choice: the action of each
        state and row, or weights of actions. t: int[], steps taken; last: whether no step follows.
      telescoped: see `paths`.

    Returns: kept laws, float[S, C + 2, N].
    Source: Avila Pires et al. (2025), arXiv 2501.13028, for the method; derived: docs/proofs/distributional.md, T10
      to T12. Cost: S C M reads of laws (A times more with weights); beside the result the numbers of one piece,
      `PIECE_CPU` or `PIECE`, or those of one state where it needs more.
    """
    problem = problem.at_time(t)
    rows = jnp.arange(grid.lattice.size + 2, dtype=jnp.int32)
    flat = table.reshape(-1, representation.size)

    def of_state(row):
        mixture = _mixture(chosen_outcomes(*row), rows, grid, problem.discount, t, last, telescoped)
        return representation.backup(flat, mixture, problem.discount)

    outcomes = problem.prob.shape[-1] * (choice.shape[-1] if choice.ndim == 3 else 1)
    return _by_state(of_state, (_kernel(problem), choice), rows.shape[0] * outcomes * representation.size)


def _score(functional: Functional, law: Law) -> Float[Array, ""]:
    # functionals need not keep NaN
    unknown = jnp.any(jnp.isnan(jnp.where(law.probs == 0, 0, law.values * law.probs)))
    score = expected_utility(law, functional) if isinstance(functional, Utility) else functional(law)
    return jnp.where(unknown, jnp.nan, score)


def _scored(functional: Functional, law: Law, node, scale) -> Float[Array, "*L"]:
    """K(node + scale G) of laws [..., N], `node` of the same shape."""
    law = Law(node[..., None] + scale * law.values, law.probs)
    flat = Law(*(x.reshape(-1, x.shape[-1]) for x in law))
    score = jax.vmap(lambda values, probs: _score(functional, Law(values, probs)))(*flat)
    return score.reshape(law.values.shape[:-1])


def stock_scale(grid: StockGrid, discount: Number, t) -> Number:
    """What one unit of return from step t on adds to the stock of that step."""
    return discount_power(discount, t) if grid.coordinates == "discounted" else 1.0


def worth(
    functional: Functional,
    grid: StockGrid,
    representation: Representation,
    table: Float[Array, "S R N"],
    discount: Number,
    t: Number = 0,
) -> StockValue:
    """What the kept laws are worth: K(c + G) at the nodes, and what counts on the sides.

    Args: functional: a utility f, for K = E f, or a function of a `Law`; t: int[], the step of these laws.
    Returns: the values; on the sides the mean return where a utility is affine, K(G) of a function of laws that orders
      them alike after every shift, else NaN.
    Cost: the functional, S C times.
    """
    scale = stock_scale(grid, discount, t)
    size = grid.lattice.size
    kind = sides(functional)

    def of_state(kept):
        law = representation.law(kept, exact=isinstance(functional, Utility))
        outside = Law(*(x[size:] for x in law))
        inside = _scored(functional, Law(*(x[:size] for x in law)), grid.nodes.astype(kept.dtype), scale)
        if kind == "shifted":
            return inside, _scored(functional, outside, jnp.zeros(2, kept.dtype), scale)
        return inside, jax.vmap(mean)(outside) if kind == "affine" else jnp.full(2, jnp.nan, kept.dtype)

    value, beyond = _by_state(of_state, table, table.shape[1] * table.shape[2])
    return StockValue(value, beyond[:, 0], beyond[:, 1])


def scores(
    problem: MDP,
    functional: Functional,
    grid: StockGrid,
    representation: Representation,
    table: Float[Array, "S R N"],
    value: StockValue,
    *,
    t: Number = 0,
    last: bool | Array = False,
) -> Float[Array, "S R A"]:
    """K(c + mixture) of every action before any projection, -inf for unavailable ones.

    Args: table, value: kept laws of the next step and what they are worth. A utility reads `value` alone: E f of a
      mixture is the mixture of its values.
    Returns: float[S, C + 2, A]; the rows of the sides hold what is maximised there (the signed mean, for a utility with
      affine tails; K at stock 0 for a function of laws). NaN where nothing is known.
    Source: derived: docs/proofs/distributional.md, T9 and T14. Cost: 2 S A B C reads for a utility, else the functional
      of S A C laws of M N atoms.
    """
    if isinstance(functional, Utility):
        q, below, above = stock_backup(problem, functional, grid, value, t=t, last=last)
        return jnp.concatenate([q, below[:, None], above[:, None]], axis=1)
    now = problem.at_time(t)
    num_actions, outcomes = now.prob.shape[-2:]
    size = grid.lattice.size
    flat = table.reshape(-1, representation.size)
    # the sides are scored at stock 0
    nodes = jnp.concatenate([grid.nodes, jnp.zeros(2, grid.nodes.dtype)]).astype(table.dtype)
    nodes = jnp.broadcast_to(nodes[:, None], (size + 2, num_actions))
    rows = jnp.broadcast_to(jnp.arange(size + 2, dtype=jnp.int32)[:, None], nodes.shape)
    scale = stock_scale(grid, now.discount, t)

    def of_state(kernel):
        kernel = tuple(jnp.broadcast_to(x, (size + 2, *x.shape)) for x in kernel)
        mixture = _mixture(kernel, rows, grid, now.discount, t, last, True)
        return _scored(functional, mixture_law(representation, flat, mixture, now.discount), nodes, scale)

    q = _by_state(of_state, _kernel(now), size * num_actions * outcomes * 2 * representation.size)
    if sides(functional) == "unknown":
        q = q.at[:, size:].set(0)
    return jnp.where(now.available[:, None], q, -jnp.inf)


def zero_laws(problem: MDP, grid: StockGrid, representation: Representation) -> Float[Array, "S R N"]:
    """A table of laws of 0 to start from.

    Raises: ValueError: 2^31 numbers or more, or none. Cost: its size, S (C + 2) N.
    """
    if representation.size < 1:
        raise ValueError(f"representation: found {representation.size} numbers of a law, expected at least one")
    shape = (problem.available.shape[0], grid.lattice.size + 2, representation.size)
    if math.prod(shape) >= 2**31:
        raise ValueError(f"representation: found {math.prod(shape)} numbers in all, expected fewer than 2^31")
    return jnp.broadcast_to(representation.zero(problem.reward.dtype), shape)


def mark_unknown(
    functional: Functional, table: Float[Array, "S R N"], q: Float[Array, "S R A"] | None = None
) -> Float[Array, "S R N"]:
    """NaN for laws of which the functional cannot tell: the sides where it is unknown there, rows of NaN scores.

    Cost: the size of the table.
    """
    unknown = jnp.zeros(table.shape[:2], bool) if q is None else jnp.any(jnp.isnan(q), axis=-1)
    if sides(functional) == "unknown":
        unknown = unknown | (jnp.arange(table.shape[1]) >= table.shape[1] - 2)[None]
    return jnp.where(unknown[..., None], jnp.nan, table)
