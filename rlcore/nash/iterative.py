"""Iterative preference optimisation on a table: freeze the policy, compare its responses, minimise the loss, repeat.

The outer loop of INPO, DNO, DNO-Prct, SPPO and GPO. The inner problem is solved by Newton's method where papers train a
network for an epoch: what is left is the method's own error, of its loss and of its samples.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlcore.nash.game import PreferenceGame, log_normalise
from rlcore.nash.mirror_descent import Memoryless, PolicyState
from rlcore.nash.objectives import Seen
from rlcore.nash.text import TextGame
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number, PyTree, RandomKey

__all__ = ["IterativePO", "fit_policy"]


def fit_policy(
    loss: Callable[[Float[Array, " n"]], Float[Array, ""]],
    start: Float[Array, " n"],
    ridge: Number = 1e-6,
    num_steps: int = 20,
) -> Float[Array, " n"]:
    """The policy that minimises a loss, by Newton steps on its logits from a given one.

    Args: loss: log-probabilities float[n] to float[]; start: float[n], log-probabilities, -inf for what stays out;
      ridge: float[] > 0, relative to the largest curvature: it limits steps along which the loss is flat and does not
      move the minimiser; num_steps: static.
    Returns: float[n], log-probabilities. Logits that the loss does not see stay as they were, up to a constant. Where
      there is no minimiser it goes as far as the steps take it.
    Raises: ValueError for num_steps < 1.
    Source: derived: proximal Newton steps with absolute curvatures. Cost: num_steps (n^3 + n gradients).
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: found {num_steps}, expected an integer >= 1")
    available = start > -jnp.inf

    def moved(change):
        return log_normalise(jnp.where(available, start + change, -jnp.inf))

    def newton(_, change):
        of_change = lambda change: loss(moved(change))  # noqa: E731
        curvature, axes = jnp.linalg.eigh(jax.hessian(of_change)(change))
        size = jnp.abs(curvature)  # against a saddle, and the rounding of zero curvatures
        largest = jnp.max(size)
        size = jnp.where(largest > 0, size + ridge * largest, 1)  # nothing was compared: nothing moves
        along = jnp.matmul(axes.T, jax.grad(of_change)(change), precision="highest")
        return change - jnp.matmul(axes, along / size, precision="highest")

    return moved(jax.lax.fori_loop(0, num_steps, newton, jnp.zeros_like(start)))


@pytree
class IterativePO(Memoryless):
    """Each step minimises an objective whose comparisons come from the current policy, starting from that policy.

    objective: one of `objectives.py`; batch = None takes its population form, else the step's key draws fresh
      comparisons. With exact measures `INPO(eta)` is `OMD(eta)`, `DNO(scale)` is `MWU(1 / scale)`, and
      `ScoreRegression(eta)` a damped `MWU(eta)`: docs/proofs/nash.md, T9b, T9c.
    ridge: float[] > 0; inner_steps: static: of `fit_policy`. An action that was not drawn keeps its logit. A contrast
      without a minimiser (`DNOPairs`: labels are sure) goes as far as steps take it, one or two units of score each.

    Source: Zhang et al. (2025), INPO, algorithm 1; Rosset et al. (2024), DNO, arXiv 2404.03715, algorithms 1 and 2.
    Cost per step: inner_steps times (an n x n eigendecomposition and n gradients of the loss).
    """

    objective: PyTree
    ridge: Array | float = 1e-6
    inner_steps: int = static(20)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One outer step.

        Raises: ValueError without a key where comparisons are sampled, and as `fit_policy`.
        """
        if key is None and self.objective.batch is not None:
            raise ValueError("key: found None, expected a key: comparisons are sampled")
        anchor = state.log_policy
        n = anchor.shape[0]
        # A response is one token long here: a text game whose vocabulary is the actions.
        reference = jnp.broadcast_to(problem.reference_logits, (n + 1, n))
        text = TextGame(problem.preference, reference, problem.temperature, problem.preference)
        seen = Seen(problem.reference_logits[:, None], anchor[:, None], anchor)

        def loss(log_policy):
            return self.objective.loss(key, text, log_policy[:, None], seen)

        return PolicyState(fit_policy(loss, anchor, self.ridge, self.inner_steps), state.t + 1)
