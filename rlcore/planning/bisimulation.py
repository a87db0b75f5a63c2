"""The coarsest bisimulation of a tabular problem, and its quotient: states that no policy could tell apart."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP
from rlcore.types import Array, Int

__all__ = ["Bisimulation", "coarsest_bisimulation"]

# Decimals to which expected rewards and probabilities of classes are compared: sums of the same terms in another
# order differ by rounding.
DECIMALS = 12


class Bisimulation(NamedTuple):
    """A problem over classes of states.

    mdp: one row per class, numbered by first occurrence; values at a class are those of its states.
    class_of: int32[S], the class of each state.
    """

    mdp: MDP
    class_of: Int[Array, "S"]


def _renumbered(rows: np.ndarray) -> np.ndarray:
    """Ids of equal rows, numbered by first occurrence."""
    _, first, ids = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[ids.reshape(-1)]


def _law_of_classes(target: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Each pair's law over classes as one canonical row: outcomes sorted by class, equal ones merged."""
    order = np.argsort(target, axis=-1, kind="stable")
    target, prob = (np.take_along_axis(x, order, axis=-1) for x in (target, prob))
    target, prob = target.copy(), prob.copy()
    for b in range(1, target.shape[-1]):
        same = target[..., b] == target[..., b - 1]
        prob[..., b] += np.where(same, prob[..., b - 1], 0)
        prob[..., b - 1] = np.where(same, 0, prob[..., b - 1])
    prob = np.round(prob, DECIMALS)
    target = np.where(prob > 0, target, -3)
    order = np.argsort(target, axis=-1, kind="stable")
    return np.concatenate([np.take_along_axis(x, order, axis=-1) for x in (target.astype(float), prob)], axis=-1)


def coarsest_bisimulation(mdp: MDP, labels: Any = None) -> Bisimulation:
    """Merge all states that agree, for ever and under every action, in expected reward, ending and label.

    Args:
      mdp: a stationary outcome list.
      labels: int[S], states of different labels are never merged; None: all alike.

    Returns: `Bisimulation`; optimal values and those of policies that act alike within classes are unchanged. Ending
      the episode is a class of its own: a state from which nothing is earned any more is not an end.
    Raises: ValueError for a kernel that changes with time, or labels of another shape.
    Source: Givan, Dean and Greig 2003, partition refinement; repeated merging of equal rows, as in the released code
      of the effective horizon, misses cycles and is not the coarsest.
    Cost: a sort of S rows of 2 A B + 1 numbers per round, at most S rounds, on the host.
    """
    if mdp.prob.ndim != 3:
        raise ValueError(f"mdp: found a kernel of shape {mdp.prob.shape} with a time axis, expected a stationary one")
    prob, following, terminal = (np.asarray(x) for x in (mdp.prob, mdp.next_state, mdp.terminal))
    available = np.asarray(mdp.available)
    states = prob.shape[0]
    labels = np.zeros(states, np.int64) if labels is None else np.asarray(labels)
    if labels.shape != (states,):
        raise ValueError(f"labels: found shape {labels.shape}, expected [S] = ({states},)")
    prob = np.where(available[..., None], prob, 0)
    reward = np.round((prob * np.where(prob > 0, np.asarray(mdp.reward), 0)).sum(axis=-1), DECIMALS) + 0.0
    class_of = _renumbered(np.concatenate([labels[:, None], available, reward], axis=1))
    while True:
        target = np.where(terminal, -2, class_of[following])
        law = _law_of_classes(target, prob).reshape(states, -1)
        finer = _renumbered(np.concatenate([class_of[:, None].astype(float), law], axis=1))
        if finer.max() == class_of.max():
            break
        class_of = finer
    first = np.unique(class_of, return_index=True)[1]
    rows = np.arange(len(first))[:, None, None]
    quotient = MDP(
        next_state=jnp.asarray(np.where(terminal[first], rows, class_of[following[first]]), jnp.int32),
        prob=mdp.prob[first],
        reward=mdp.reward[first],
        terminal=mdp.terminal[first],
        available=mdp.available[first],
        discount=mdp.discount,
        initial=jnp.zeros(len(first), mdp.initial.dtype).at[class_of].add(mdp.initial),
        horizon=mdp.horizon,
    )
    return Bisimulation(quotient, jnp.asarray(class_of, jnp.int32))
