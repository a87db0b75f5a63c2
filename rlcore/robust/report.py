"""What is promised of one estimate in a known model, in words and numbers."""

import itertools

import jax.numpy as jnp
import numpy as np

from rlcore.robust.certificates import lower_bound, verify
from rlcore.robust.general import FDivergence
from rlcore.robust.linear_mdp import LinearMDP
from rlcore.robust.pessimism import Estimate
from rlcore.types import Array, Float, Number

__all__ = ["report"]


def report(
    model: LinearMDP,
    learned: Estimate,
    divergence: str | FDivergence,
    level: Number | Float[Array, "..."],
    constrained: bool = False,
    *,
    num_trajectories: int | None = None,
) -> str:
    """The event, estimate <= robust value <= optimum, both upper bounds, and what no learner can beat, as text.

    Args: model, learned, divergence, level, constrained: as in `verify`; num_trajectories: K, of which the
      lower bound speaks; None leaves it out. Values are means under the model's initial law; inequalities are checked
      at every state.
    Returns: lines to print. Raises: as `verify`. Source: derived: docs/proofs/robust.md#c10a and #c13. Cost: three
      plans.
    """
    found = verify(model, learned, divergence, level, constrained)
    mean = lambda x: float(jnp.dot(model.initial, x))  # noqa: E731
    tolerance = 1e-9 * (1 + model.factors.shape[0])
    ordered = lambda *xs: all(bool(np.all(x <= y + tolerance)) for x, y in itertools.pairwise(xs))  # noqa: E731
    step, factor = (int(i) for i in np.unravel_index(int(jnp.argmin(found.margin)), found.margin.shape))
    event = bool(found.event)
    values = (found.estimate, found.policy_value, found.optimum)
    uppers = (found.suboptimality, found.upper)
    uppers += () if bool(jnp.any(jnp.isnan(found.upper_ball))) else (found.upper_ball,)
    told = lambda holds: "holds" if holds else "fails"  # noqa: E731
    told_if = lambda holds: told(holds) + ("" if event else ", and was not promised")  # noqa: E731
    chain = lambda xs: " <= ".join(f"{mean(x):.4g}" for x in xs)  # noqa: E731
    lines = [
        f"event, every weight within its penalty of the truth: {'yes' if event else 'no'} "
        f"(least margin {float(jnp.min(found.margin)):.3g}, step {step}, factor {factor})",
        f"estimate <= robust value <= optimum: {chain(values)} ({told_if(ordered(*values))})",
        f"suboptimality <= penalties along the worst kernels <= over their ball: {chain(uppers)} "
        f"({told_if(ordered(*uppers))})",
    ]
    if num_trajectories is not None:
        lines.append(_least_of_any_learner(learned, level, constrained, num_trajectories, mean(found.upper)))
    return "\n".join(lines)


def _least_of_any_learner(learned: Estimate, level, constrained: bool, k: int, upper: float) -> str:
    """The lower end of the sandwich: the class of `envs.linear_mdps.hard_instance` with as many factors and steps."""
    horizon, d = learned.weights.shape
    bits = d - 2  # two more factors: to stay, and to be absorbed
    needed = np.inf
    if not constrained and bits >= 1:
        needed = bits**3 * max(0.5, 1.05 * horizon**2 / float(np.min(np.asarray(level))) ** 2)
    if k < needed:
        return f"lower bound for every learner: none at {k} trajectories, it asks for {needed:.3g}"
    least = float(lower_bound(bits, horizon, k))
    return (
        f"lower bound for every learner <= upper bound here: {least:.3g} <= {upper:.3g} (the former for the worst "
        f"problem of {d} factors and {horizon} steps whose rewards are hidden in noise)"
    )
