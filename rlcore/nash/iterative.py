"""Iterative preference optimisation on a table: freeze the policy, compare its responses, minimise the loss, repeat.

The outer loop of INPO, DNO, DNO-Prct, SPPO and GPO. The inner problem is solved by Newton's method where papers train a
network for an epoch: what is left is the method's own error, of its loss and of its samples.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, available_actions, log_normalise
from rlcore.nash.mirror_descent import Memoryless, PolicyState
from rlcore.nash.objectives import Seen
from rlcore.nash.text import TextGame
from rlcore.types import Array, Float, PyTree, RandomKey

__all__ = ["IterativePO"]


def _static(default):
    return dataclasses.field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IterativePO(Memoryless):
    """Each step minimises an objective whose comparisons come from the current policy, starting from that policy.

    objective: one of `objectives.py`; batch = None takes its population form, else the step's key draws fresh
      comparisons. With exact measures `INPO(eta)` is `OMD(eta)`, `DNO(scale)` is `MWU(1 / scale)`, and
      `ScoreRegression(eta)` a damped `MWU(eta)`: docs/proofs/nash.md, T9b, T9c.
    ridge: float[] > 0, of the inner Newton steps, relative to the largest curvature: it limits steps along which the
      loss is flat (an action that was not drawn, votes that all agree) and does not move the minimiser.
    inner_steps: Newton steps, static. A contrast without a minimiser (`DNOPairs`: labels are sure) goes as far as they
      take it: one or two units of score each.

    Source: Zhang et al. (2025), INPO, algorithm 1; Rosset et al. (2024), DNO, arXiv 2404.03715, algorithms 1 and 2.
    Cost per step: inner_steps times (an n x n eigendecomposition and n gradients of the loss).
    """

    objective: PyTree
    ridge: Array | float = 1e-6
    inner_steps: int = _static(20)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One outer step.

        Raises: ValueError without a key where comparisons are sampled, or for inner_steps < 1.
        """
        if key is None and self.objective.batch is not None:
            raise ValueError("key: found None, expected a key: comparisons are sampled")
        if self.inner_steps < 1:
            raise ValueError(f"inner_steps: found {self.inner_steps}, expected an integer >= 1")
        available = available_actions(problem)
        anchor = state.log_policy
        n = anchor.shape[0]
        # A response is one token long here: a text game whose vocabulary is the actions.
        reference = jnp.broadcast_to(problem.reference_logits, (n + 1, n))
        text = TextGame(problem.preference, reference, problem.temperature, problem.preference)
        seen = Seen(problem.reference_logits[:, None], anchor[:, None], anchor)

        def loss(change: Float[Array, " n"]) -> Float[Array, ""]:
            log_policy = log_normalise(jnp.where(available, anchor + change, -jnp.inf))
            return self.objective.loss(key, text, log_policy[:, None], seen)

        def newton(_, change):
            curvature, axes = jnp.linalg.eigh(jax.hessian(loss)(change))
            size = jnp.abs(curvature)  # against a saddle, and the rounding of zero curvatures
            largest = jnp.max(size)
            size = jnp.where(largest > 0, size + self.ridge * largest, 1)  # nothing was compared: nothing moves
            along = jnp.matmul(axes.T, jax.grad(loss)(change), precision="highest")
            return change - jnp.matmul(axes, along / size, precision="highest")

        change = jax.lax.fori_loop(0, self.inner_steps, newton, jnp.zeros_like(anchor))
        log_policy = log_normalise(jnp.where(available, anchor + change, -jnp.inf))
        return PolicyState(log_policy, state.t + 1)
