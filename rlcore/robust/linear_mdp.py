"""The d-rectangular linear MDP: rewards and kernels linear in known features on the simplex, one law per factor."""

import jax.numpy as jnp
import numpy as np

from rlcore.mdp import DenseMDP
from rlcore.pytree import pytree
from rlcore.types import Array, Float

__all__ = ["LinearMDP", "kernels", "linear_mdp", "one_hot", "rewards", "to_mdp"]


@pytree
class LinearMDP:
    """A finite-horizon MDP with P_h(s' | s, a) = <features(s, a), factors_h(., s')>; build it with `linear_mdp`.

    features: float[S, A, d], rows on the simplex. factors: float[H, d, S], laws over the next state. reward_weights:
    float[H, d]; the reward is <features, reward_weights_h>, in [0, 1]. initial: float[S], law of the first state.
    """

    features: Array
    factors: Array
    reward_weights: Array
    initial: Array


def linear_mdp(features, factors, reward_weights, initial=None, *, unit_rewards: bool = True) -> LinearMDP:
    """Check a d-rectangular linear MDP on the host and build it.

    Args: features: [S, A, d]; factors: [H, d, S]; reward_weights: [H, d]; initial: [S], uniform by default;
      unit_rewards: whether rewards must lie in [0, 1], as the theory supposes.
    Raises: ValueError: shapes that do not fit, NaN, features off the simplex, factors that are no laws, rewards off
      [0, 1]; the message names the first place.
    Source: Tang, Liu and Xu (2024), arXiv 2411.18612, section 3, read in the authors' slides. Cost: one pass.
    """
    features, factors, weights = (np.asarray(x, float) for x in (features, factors, reward_weights))
    if features.ndim != 3 or factors.ndim != 3 or weights.ndim != 2:
        raise ValueError(
            f"features, factors, reward_weights: found shapes {features.shape}, {factors.shape}, {weights.shape}, "
            "expected [S, A, d], [H, d, S], [H, d]"
        )
    (s, _, d), (h, d2, s2) = features.shape, factors.shape
    if (d2, s2) != (d, s) or weights.shape != (h, d) or 0 in (*features.shape, h):
        raise ValueError(
            f"factors, reward_weights: found shapes {factors.shape}, {weights.shape}, expected [H, {d}, {s}], [H, {d}] "
            f"to go with features {features.shape}"
        )
    initial = np.full(s, 1 / s) if initial is None else np.asarray(initial, float)
    if initial.shape != (s,):
        raise ValueError(f"initial: found shape {initial.shape}, expected ({s},)")
    for name, x in (("features", features), ("factors", factors), ("initial", initial)):
        check_laws(name, x)
    reward = features @ weights.T
    check_rewards("reward_weights", reward, unit_rewards)
    return LinearMDP(*(jnp.asarray(x) for x in (features, factors, weights, initial)))


def check_rewards(name: str, reward: np.ndarray, unit: bool = True) -> None:
    """Raise ValueError for rewards that are no numbers, or not in [0, 1] to a rounding of 1e-6."""
    if not np.all(np.isfinite(reward)):
        raise ValueError(f"{name}: found NaN or infinite entries, expected finite numbers")
    if unit and (reward.min() < -1e-6 or reward.max() > 1 + 1e-6):
        raise ValueError(f"{name}: found rewards in [{reward.min():g}, {reward.max():g}], expected [0, 1]")


def check_laws(name: str, x: np.ndarray) -> None:
    """Raise ValueError for a row that is no law; the message names the first."""
    good = np.all(np.isfinite(x), axis=-1) & np.all(x >= 0, axis=-1) & (np.abs(x.sum(-1) - 1) <= 1e-6)
    if not np.all(good):
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(
            f"{name}: found {x[at]} at {at}, expected non-negative numbers that sum to 1 (the simplex) in every row"
        )


def rewards(model: LinearMDP) -> Float[Array, "H S A"]:
    """E[reward | step, s, a], float[H, S, A]. Source: definition. Cost: H S A d."""
    return jnp.einsum("sad,hd->hsa", model.features, model.reward_weights, precision="highest")


def kernels(model: LinearMDP, factors: Float[Array, "H d S"] | None = None) -> Float[Array, "H S A S"]:
    """The kernels of all steps, of the model's factors or of others (an adversary's). Cost: H S A d S."""
    factors = model.factors if factors is None else factors
    return jnp.einsum("sad,hdt->hsat", model.features, factors, precision="highest")


def to_mdp(model: LinearMDP) -> DenseMDP:
    """The same problem for `rlcore.planning`: dense kernels, a finite horizon, no discount. Cost: H S A d S."""
    horizon, (s, a, _) = model.factors.shape[0], model.features.shape
    one = jnp.ones((), model.factors.dtype)
    return DenseMDP(kernels(model), rewards(model), jnp.ones((s, a), bool), one, model.initial, horizon)


def one_hot(
    transition: Float[Array, "H S A S"], reward: Float[Array, "H S A"], initial: Float[Array, " S"]
) -> LinearMDP:
    """A tabular problem as a linear one: d = S A, features e_{s A + a}; its d-rectangular sets are (s, a)-rectangular.

    Args: transition, reward, initial: a finite-horizon tabular MDP.
    Returns: LinearMDP. Source: derived: definition. Cost: (S A)^2.
    """
    h, s, a, _ = transition.shape
    features = jnp.eye(s * a, dtype=transition.dtype).reshape(s, a, s * a)
    return LinearMDP(features, transition.reshape(h, s * a, s), reward.reshape(h, s * a), initial)
