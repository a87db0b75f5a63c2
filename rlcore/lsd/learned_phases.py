"""What the learners that follow random phases of learned payoffs share."""

import jax.numpy as jnp

from rlcore.lsd.problem import SwitchingBandit
from rlcore.lsd.random_phase import Phases, asking, virtual_state
from rlcore.types import Array, Bool, Float

__all__ = ["best_candidate", "check_may_idle", "never"]


def check_may_idle(problem: SwitchingBandit) -> None:
    """Raises: ValueError: a problem whose rounds may not be left empty."""
    if not problem.allow_idle:
        raise ValueError(
            "allow_idle: found False, expected True: this learner leaves rounds empty (`BlockUCB` and `UCBGreedy` play "
            "in every round)"
        )


def never(problem: SwitchingBandit) -> Phases:
    """Phases of arms that never ask for a play."""
    none = jnp.zeros(problem.num_arms, jnp.int32)
    return Phases(none + 1, none, none)


def best_candidate(problem: SwitchingBandit, payoffs: Float[Array, "k S"], phases: Phases) -> Bool[Array, " k"]:
    """bool[k]: of the arms whose cycles ask for a play the one whose virtual state pays most, if any. Cost: k."""
    asks, virtual = asking(phases), virtual_state(phases, problem.satiation, problem.num_local)
    payoff = jnp.take_along_axis(payoffs, virtual[:, None], axis=1)[:, 0]
    best = jnp.argmax(jnp.where(asks, payoff, -1))
    return asks & (jnp.arange(problem.num_arms) == best)
