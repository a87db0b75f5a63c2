"""The exact law of a vector of returns under a policy of stock vectors, on the host."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.distributional.vector_stock import VectorPolicy, vector_policy_nodes
from rlcore.mdp import MDP
from rlcore.types import Array, Float

__all__ = ["VectorLaw", "vector_law"]


class VectorLaw(NamedTuple):
    """A law of vectors with finitely many atoms. values: float[N, m], in units of reward. probs: float[N]."""

    values: Array
    probs: Array


def vector_law(
    problem: MDP,
    rewards: Float[Array, "*H S A B m"],
    policy: VectorPolicy,
    stock: Float[Array, "m"],
    *,
    digits: int = 9,
) -> VectorLaw:
    """The law of the vector of returns, without the stock, of a policy that starts with `stock`.

    What can have happened is kept as pairs of a state and the rewards so far, which decide the stock; equal pairs are
    merged. Nothing is rounded but the node at which the policy is looked up.

    Args:
      problem: with concrete arrays and a horizon; starts by its initial law. rewards: as in `vector_stock_vi`.
      policy: of `vector_stock_vi`. stock: float[m], the first stock. digits: decimals to which returns are compared.

    Returns: a `VectorLaw`, atoms in lexicographic order.
    Raises: ValueError: a stock that leaves the policy's window.
    Source: definition. Cost: H sweeps over the pairs that can be reached; their number is bounded by S C_1 ... C_m on
      exact grids and may grow exponentially elsewhere.
    """
    next_state, prob, terminal = (np.asarray(x) for x in (problem.next_state, problem.prob, problem.terminal))
    rewards, action = np.asarray(rewards), np.asarray(policy.action)
    discount, first = float(problem.discount), np.asarray(stock, float)
    shrinks = policy.grids[0].coordinates == "stock"
    state = np.flatnonzero(np.asarray(problem.initial) > 0)
    mass, total = np.asarray(problem.initial)[state], np.zeros((state.size, first.size))
    ended = []
    for t in range(problem.horizon):
        at = (t,) if prob.ndim == 4 else ()
        now = (first + total) / discount**t if shrinks else first + total
        chosen = action[(t, state, *vector_policy_nodes(policy, now))]
        branch = mass[:, None] * prob[at][state, chosen]
        paid = total[:, None] + discount**t * rewards[at][state, chosen]
        stops = terminal[at][state, chosen] | (t == problem.horizon - 1)
        happens = branch > 0
        ended.append((paid[happens & stops], branch[happens & stops]))
        goes = happens & ~stops
        pairs = np.column_stack([next_state[at][state, chosen][goes], paid[goes]])
        pairs, mass = _merged(pairs, branch[goes], digits)
        state, total = pairs[:, 0].astype(int), pairs[:, 1:]
    values, probs = (np.concatenate(x) for x in zip(*ended, strict=True))
    values, probs = _merged(values, probs, digits)
    return VectorLaw(jnp.asarray(values), jnp.asarray(probs))


def _merged(rows: np.ndarray, mass: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal rows made one."""
    _, kept, where = np.unique(np.round(rows, digits) + 0.0, axis=0, return_index=True, return_inverse=True)
    return rows[kept], np.bincount(where.reshape(-1), weights=mass, minlength=kept.size)
