"""UCB-greedy: the arm of largest upper bound at the state it is in; it plays in every round and plans nothing."""

import jax.numpy as jnp

from rlcore.lsd.estimates import Estimates, no_estimates, upper_bound
from rlcore.lsd.problem import SwitchingBandit
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key, Number

__all__ = ["UCBGreedy"]


@pytree
class UCBGreedy:
    """confidence: c of the index mean + sqrt(c log t / n); unseen states first, ties to the first arm.

    Source: greedy by UCB indices as in Basu et al. (2019), arXiv 1907.11975 (abstract read); c = 1.5 as in CombUCB1.
    Cost: k S per round.
    """

    confidence: Number = 1.5

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> Estimates:
        """Nothing seen."""
        return no_estimates(problem)

    def act(
        self,
        problem: SwitchingBandit,
        state: Estimates,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], Estimates]:
        """The arm of largest index."""
        log = jnp.log(t.astype(state.count.dtype) + 1)
        index = jnp.take_along_axis(upper_bound(state, self.confidence * log), local[:, None], axis=1)[:, 0]
        return jnp.arange(problem.num_arms) == jnp.argmax(index), state

    def learn(
        self, state: Estimates, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]
    ) -> Estimates:
        """One round more in the estimates."""
        return state.seen(local, played, reward)
