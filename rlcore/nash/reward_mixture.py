"""Several kinds of annotators: a mixture of Bradley-Terry rewards, fitted to who compared what by EM.

All that the likelihood needs of an annotator is how often each response beat each other one: `wins`, float[H, n, n].
A comparison of a response with itself says nothing, so lists of pairs are padded with those, and none is counted.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.preference_models import Pairs, bradley_terry, count_wins, pair_data
from rlcore.pytree import pytree, static
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT
from rlcore.types import Array, Float, Number, RandomKey

__all__ = [
    "MixtureFit",
    "MixtureState",
    "RewardEM",
    "annotator_pairs",
    "annotator_wins",
    "fit_reward_mixture",
    "observe_objective",
]


def annotator_pairs(annotators, num_responses: int) -> Pairs:
    """Check the comparisons of each annotator on the host, and pad them to one length.

    Args: annotators: a sequence of (first, second, label), each as in `pair_data`, one per annotator;
      num_responses: n.
    Returns: `Pairs` with arrays [H, B], B the longest list, padded with the pair (0, 0).
    Raises: ValueError for no annotators; as `pair_data`, naming the annotator: no pairs, indices out of range, labels
      that are not probabilities. Source: derived: definition. Cost: O(H B).
    """
    annotators = list(annotators)
    if not annotators:
        raise ValueError("annotators: found none, expected at least one list of pairs")
    checked = []
    for h, lists in enumerate(annotators):
        try:
            first, second, label = lists
        except (TypeError, ValueError):
            raise ValueError(
                f"annotators[{h}]: found {type(lists).__name__}, expected (first, second, label)"
            ) from None
        try:
            checked.append(pair_data(first, second, label, num_responses))
        except (TypeError, ValueError) as error:
            raise type(error)(f"annotators[{h}]: {error}") from None
    longest = max(pairs.first.shape[0] for pairs in checked)
    pad = lambda x: np.pad(np.asarray(x), (0, longest - x.shape[0]))  # noqa: E731
    return Pairs(*(jnp.asarray(np.stack([pad(x) for x in column])) for column in zip(*checked, strict=True)))


def annotator_wins(pairs: Pairs, num_responses: int) -> Float[Array, "H n n"]:
    """How often each response beat each other one, by annotator.

    Args: pairs: arrays [H, B], of `annotator_pairs`; num_responses: n, static.
    Returns: float[H, n, n], summed labels, 0 on the diagonal. Source: derived: definition. Cost: H (n^2 + B).
    """
    off_diagonal = 1 - jnp.eye(num_responses, dtype=pairs.label.dtype)
    return jax.vmap(lambda one: off_diagonal * count_wins(one, num_responses))(pairs)


class MixtureState(NamedTuple):
    """A mixture of rewards and what it says of the annotators.

    log_shares: float[U], log-probabilities of the groups. rewards: float[U, n], in logits, mean 0 per group.
    joint: float[H, U], log share + log-likelihood of an annotator's labels in a group.
    objective: float[], log-likelihood - ridge sum |rewards|^2; what EM climbs. t: int[], steps taken.
    """

    log_shares: Array
    rewards: Array
    joint: Array
    objective: Array
    t: Array


@pytree
class RewardEM:
    """EM for U groups of Bradley-Terry annotators; the problem is `wins`, float[H, n, n].

    E: the probability of each group given an annotator's labels. M: per group the maximum of the weighted
    log-likelihood - ridge |r|^2, by Newton (`bradley_terry`); shares are mean probabilities.

    num_groups: U, static. hard: each annotator belongs to the likeliest group alone, and the objective is the
      likelihood with these memberships; static. ridge: float[] > 0; also fixes the gauge (mean 0).
    Source: Chakraborty et al. (2024), arXiv 2402.08925, as quoted in a digest; the hard variant was not checked
      against the paper. Cost per step: H U n^2 and U Newton solves of about 10 steps.
    """

    num_groups: int = static()
    hard: bool = static(False)
    ridge: Array | float = 1e-3

    def start(
        self, wins: Float[Array, "H n n"], log_shares: Float[Array, " U"], rewards: Float[Array, "U n"]
    ) -> MixtureState:
        """The state of given parameters before the first step."""
        return self._state(wins, log_shares, rewards, jnp.zeros((), jnp.int32))

    def init(self, problem: Float[Array, "H n n"], key: RandomKey) -> MixtureState:
        """Standard normal rewards, equal shares."""
        rewards = jax.random.normal(key, (self.num_groups, problem.shape[-1]), problem.dtype)
        log_shares = jnp.full((self.num_groups,), -np.log(self.num_groups), problem.dtype)
        return self.start(problem, log_shares, rewards - jnp.mean(rewards, axis=1, keepdims=True))

    def responsibilities(self, state: MixtureState) -> Float[Array, "H U"]:
        """Probability of each group for each annotator; 0 or 1 if `hard`."""
        if self.hard:
            return jax.nn.one_hot(jnp.argmax(state.joint, axis=1), self.num_groups, dtype=state.joint.dtype)
        return jax.nn.softmax(state.joint, axis=1)

    def step(self, problem: Float[Array, "H n n"], state: MixtureState, key: RandomKey = None) -> MixtureState:
        """One E and one M step; nothing is sampled."""
        weights = self.responsibilities(state)
        pooled = jnp.einsum("hu,hij->uij", weights, problem, precision="highest")
        best = jax.vmap(lambda wins, start: bradley_terry(wins, ridge=self.ridge, start=start).value)
        return self._state(problem, jnp.log(jnp.mean(weights, axis=0)), best(pooled, state.rewards), state.t + 1)

    def _state(self, wins, log_shares, rewards, t):
        log_win = -jax.nn.softplus(rewards[:, None, :] - rewards[:, :, None])
        joint = log_shares[None, :] + jnp.einsum("hij,uij->hu", wins, log_win, precision="highest")
        likelihood = jnp.max(joint, axis=1) if self.hard else jax.scipy.special.logsumexp(joint, axis=1)
        return MixtureState(log_shares, rewards, joint, jnp.sum(likelihood) - self.ridge * jnp.sum(rewards**2), t)


def observe_objective(wins: Float[Array, "H n n"], state: MixtureState) -> Float[Array, ""]:
    """The penalised log-likelihood, for `iterate(..., observe=observe_objective)`.

    Args: wins: the problem; state. Returns: float[], in nats. Source: derived: definition. Cost: none.
    """
    return state.objective


class MixtureFit(NamedTuple):
    """The best of several runs of EM.

    state: its last state. responsibilities: float[H, U]. status: int[], CONVERGED once a step gains less than `tol`:
    a stationary point, not a certified maximum. steps: int[]. objectives: float[restarts], where all runs ended.
    """

    state: MixtureState
    responsibilities: Array
    status: Array
    steps: Array
    objectives: Array


def fit_reward_mixture(
    wins: Float[Array, "H n n"],
    num_groups: int,
    key: RandomKey,
    *,
    ridge: Number = 1e-3,
    hard: bool = False,
    restarts: int = 5,
    tol: Number = 1e-10,
    max_steps: int = 1000,
) -> MixtureFit:
    """`RewardEM` from several random starts, the best end kept.

    Args: wins: float[H, n, n]; num_groups: U, static; key; ridge, hard: as in `RewardEM`; restarts: static;
      tol: smallest gain of a step, in nats, that goes on; max_steps: static.
    Returns: `MixtureFit`; the groups come in no particular order. Raises: ValueError for num_groups or restarts < 1.
    Source: as `RewardEM`. Cost: restarts times the slowest run; tens to hundreds of steps.
    """
    for name, value in (("num_groups", num_groups), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected an integer >= 1")
    solver = RewardEM(num_groups, hard, jnp.asarray(ridge, wins.dtype))
    return _fit(solver, wins, jax.random.split(key, restarts), jnp.asarray(tol, wins.dtype), max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _fit(solver, wins, keys, tol, *, max_steps):
    def run(key):
        def body(carry):
            state, _ = carry
            new = solver.step(wins, state)
            return new, new.objective - state.objective

        # A NaN gain ends the run too.
        unfinished = lambda carry: (carry[0].t < max_steps) & (carry[1] >= tol)  # noqa: E731
        return jax.lax.while_loop(unfinished, body, (solver.init(wins, key), jnp.asarray(jnp.inf, wins.dtype)))

    states, gains = jax.vmap(run)(keys)
    best = jnp.argmax(jnp.where(jnp.isnan(states.objective), -jnp.inf, states.objective))
    state, gain = jax.tree.map(lambda x: x[best], (states, gains))
    ended = jnp.where(jnp.isfinite(state.objective), jnp.where(gain < tol, CONVERGED, STEP_LIMIT), NOT_FINITE)
    return MixtureFit(state, solver.responsibilities(state), ended.astype(jnp.int32), state.t, states.objective)
