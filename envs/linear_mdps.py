"""d-rectangular linear MDPs: the simulated one of the robust offline papers, leaky variant, hard class, random ones."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.robust import LinearMDP, linear_mdp, one_hot
from rlcore.types import Array, Float, Key, Number

__all__ = ["FAMILIES", "hard_instance", "perturbed", "random_linear_mdp", "simulated", "tabular"]

HORIZON, FAIL, GOAL = 3, 3, 4


def simulated(
    base: float = 0.3, tilt: float = 0.2, slip: float = 0.001, leak: float = 0.0, perturbation: float | None = None
) -> LinearMDP:
    """Five states, 16 actions in {-1, 1}^4, three steps; a goal (reward 1 a step, from the second) and a fail state.

    The features of the first three states are (1 - u) on "go on" and u = base + <xi, action> on "jump to the goal", xi
    = (tilt / 4) (1, 1, 1, 1). Actions are in lexicographic order: the first is all -1, the most careful at step 0.

    Args: base: delta; tilt: the l1 norm of xi; slip: p, chance to fail on the way; leak: chance that the jump at step 0
      fails (0 in the papers: then KL and chi-square adversaries can do nothing about it); perturbation: q, the target
      environment in which the jump at step 0 fails with probability q and nothing slips there; None is the nominal one.
    Returns: LinearMDP, S = 5, A = 16, d = 4, H = 3, start in state 0.
    Raises: ValueError: u outside [0, 1], or probabilities outside [0, 1].
    Source: Liu and Xu (2024), arXiv 2403.09621, and released code of Tang, Liu and Xu (2024); `leak` is this project's.
    """
    for name, x in (("slip", slip), ("leak", leak), ("perturbation", perturbation or 0.0)):
        if not 0 <= x <= 1:
            raise ValueError(f"{name}: found {x}, expected a probability")
    if not 0 <= tilt <= min(base, 1 - base):
        raise ValueError(
            f"base, tilt: found {base}, {tilt}, expected 0 <= tilt <= base <= 1 - tilt: u is a probability"
        )
    actions = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    jump = base + actions @ np.full(4, tilt / 4)
    none, sure = np.zeros(16), np.ones(16)
    features = np.stack(
        [
            np.stack([1 - jump, none, none, jump], axis=1),
            np.stack([none, 1 - jump, none, jump], axis=1),
            np.stack([none, none, 1 - jump, jump], axis=1),
            np.stack([none, none, sure, none], axis=1),
            np.stack([none, none, none, sure], axis=1),
        ]
    )
    state = np.eye(5)
    law = np.stack(
        [
            (1 - slip) * state[1] + slip * state[FAIL],
            (1 - slip) * state[2] + slip * state[FAIL],
            state[FAIL],
            state[GOAL],
        ]
    )
    factors = np.stack([law] * HORIZON)
    factors[0, 3] = (1 - leak) * state[GOAL] + leak * state[FAIL]
    if perturbation is not None:
        factors[0, 0] = state[1]
        factors[0, 3] = perturbation * state[FAIL] + (1 - perturbation) * state[GOAL]
    weights = np.zeros((HORIZON, 4))
    weights[1:, 3] = 1.0
    return linear_mdp(features, factors, weights, state[0])


def perturbed(model: LinearMDP, perturbation: Number) -> LinearMDP:
    """The target of `simulated` at a perturbation that may be traced.

    Returns: LinearMDP. Source, cost: as `simulated`.
    """
    state = jnp.eye(5, dtype=model.factors.dtype)
    jump = perturbation * state[FAIL] + (1 - perturbation) * state[GOAL]
    factors = model.factors.at[0, 0].set(state[1]).at[0, 3].set(jump)
    return dataclasses.replace(model, factors=factors)


def _check_sizes(concentration: Number, *sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"sizes: found {sizes}, expected integers of at least 1")
    if not isinstance(concentration, jax.core.Tracer) and not concentration > 0:
        raise ValueError(f"concentration: found {concentration}, expected a number above 0")


def random_linear_mdp(
    key: Key[Array, ""], num_states: int, num_actions: int, horizon: int, num_factors: int, concentration: Number = 0.5,
    zeros: Number = 0.2,
) -> LinearMDP:  # fmt: skip
    """Dirichlet features and factors, uniform reward weights; a share of the factors' entries is 0.

    Args: sizes static; concentration: of both Dirichlet laws; zeros: chance that an entry of a factor is 0 (the largest
      entry of every factor stays).
    Returns: LinearMDP. Raises: ValueError: a size below 1, a concentration that is not above 0. Source: derived:
      generator G of the specification. Cost: its size.
    """
    _check_sizes(concentration, num_states, num_actions, horizon, num_factors)
    feature_key, factor_key, weight_key, zero_key = jax.random.split(key, 4)
    alpha = lambda n: jnp.full(n, concentration)  # noqa: E731
    features = jax.random.dirichlet(feature_key, alpha(num_factors), (num_states, num_actions))
    factors = jax.random.dirichlet(factor_key, alpha(num_states), (horizon, num_factors))
    largest = factors == jnp.max(factors, axis=-1, keepdims=True)
    kept = largest | (jax.random.uniform(zero_key, factors.shape) >= zeros)
    factors = jnp.where(kept, factors, 0)
    factors = factors / jnp.sum(factors, axis=-1, keepdims=True)
    weights = jax.random.uniform(weight_key, (horizon, num_factors))
    return LinearMDP(features, factors, weights, jnp.full(num_states, 1 / num_states))


def hard_instance(signs: Float[Array, "H d"], gain: Number, leak: Number | None = None) -> LinearMDP:
    """The lower bound's instance: state 0 pays by how well the action's bits match hidden signs, state 1 is absorbing.

    Args: signs: [H, d] in {-1, 1}; gain: Delta in (0, 1]; leak: epsilon, chance to be absorbed, 1 / (4 H) by default.
    Returns: LinearMDP, S = 2, A = 2^d, d + 2 features. Raises: ValueError: signs that are no signs, a gain off (0, 1].
    Source: derived from Liu and Xu (2024), arXiv 2403.09621 (features and rewards), explicit constants derived:
      docs/proofs/robust.md#c13.
    """
    traced = lambda x: isinstance(x, jax.core.Tracer)  # noqa: E731
    signs = jnp.asarray(signs, float)
    if signs.ndim != 2 or not (traced(signs) or np.all(np.abs(np.asarray(signs)) == 1)):
        raise ValueError(f"signs: found shape {signs.shape}, {signs}, expected [H, d] of -1 and 1")
    if not traced(gain) and not 0 < gain <= 1:
        raise ValueError(f"gain: found {gain}, expected a number in (0, 1]")
    horizon, d = signs.shape
    leak = 1 / (4 * horizon) if leak is None else leak
    if not traced(leak) and not 0 <= leak <= 1:
        raise ValueError(f"leak: found {leak}, expected a probability")
    bits = np.array(list(itertools.product([0.0, 1.0], repeat=d)))
    here = np.concatenate([bits / d, 1 - bits.sum(1, keepdims=True) / d, np.zeros((len(bits), 1))], axis=1)
    absorbed = np.zeros((len(bits), d + 2))
    absorbed[:, -1] = 1
    leak = jnp.asarray(leak, float)
    law = jnp.concatenate([jnp.tile(jnp.stack([1 - leak, leak]), (d + 1, 1)), jnp.array([[0.0, 1.0]])])
    weights = gain * jnp.concatenate([(signs + 1) / 2, jnp.full((horizon, 1), 0.5), jnp.zeros((horizon, 1))], axis=1)
    features = jnp.asarray(np.stack([here, absorbed]))
    return LinearMDP(features, jnp.stack([law] * horizon), weights, jnp.array([1.0, 0.0]))


def tabular(
    key: Key[Array, ""], num_states: int, num_actions: int, horizon: int, concentration: Number = 0.5
) -> LinearMDP:
    """A random tabular problem with one-hot features: its d-rectangular sets are (s, a)-rectangular.

    Args: sizes static; concentration: of the Dirichlet law of the kernel rows. Returns: LinearMDP, d = S A.
    Raises: ValueError: a size below 1, a concentration that is not above 0. Source: derived. Cost: its size, (S A)^2.
    """
    _check_sizes(concentration, num_states, num_actions, horizon)
    kernel_key, reward_key = jax.random.split(key)
    shape = (horizon, num_states, num_actions)
    transition = jax.random.dirichlet(kernel_key, jnp.full(num_states, concentration), shape)
    return one_hot(transition, jax.random.uniform(reward_key, shape), jnp.full(num_states, 1 / num_states))


FAMILIES = {
    "simulated": simulated,
    "random": random_linear_mdp,
    "hard": hard_instance,
    "tabular": tabular,
}
