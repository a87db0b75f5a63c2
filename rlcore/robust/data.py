"""Offline trajectories, and what a learner knows of a problem: features and rewards at any state."""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.robust.linear_mdp import LinearMDP, check_laws, check_rewards, kernels
from rlcore.robust.linear_mdp import rewards as expected_rewards
from rlcore.types import Array, Bool, Float, Int, Key, PyTree

__all__ = ["Features", "OfflineData", "Table", "check_coverage", "offline_data", "sample_trajectories", "table"]


@pytree
class OfflineData:
    """K trajectories of H steps from one behaviour policy; build it with `offline_data`.

    states: [K, H + 1] (int32 where states are indices) or [K, H + 1, ...]. actions: int32[K, H]. rewards: float[K, H].
    """

    states: Array
    actions: Array
    rewards: Array


def offline_data(
    states, actions, rewards, num_states: int | None = None, num_actions: int | None = None
) -> OfflineData:
    """Check trajectories on the host and build an `OfflineData`.

    Args: states: [K, H + 1, ...]; actions: [K, H]; rewards: [K, H]; num_states, num_actions: the ranges of indices.
    Returns: OfflineData; rewards may lie outside [0, 1] (noise, payoffs): the learners' caps suppose that they do not.
    Raises: ValueError: no trajectory, lengths that do not fit, NaN, actions that are no integers, indices out of range.
    Cost: one pass.
    """
    states, actions, rewards = np.asarray(states), np.asarray(actions), np.asarray(rewards, float)
    if not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions: found {actions.dtype}, expected integers")
    if actions.ndim != 2 or 0 in actions.shape:
        raise ValueError(f"actions: found shape {actions.shape}, expected [K, H] with at least one trajectory and step")
    k, h = actions.shape
    if states.shape[:2] != (k, h + 1) or rewards.shape != (k, h):
        raise ValueError(
            f"states, rewards: found shapes {states.shape}, {rewards.shape}, expected [{k}, {h + 1}, ...], [{k}, {h}]"
        )
    if not np.all(np.isfinite(rewards)) or not np.all(np.isfinite(states.astype(float))):
        raise ValueError("states, rewards: found NaN or infinite entries, expected finite numbers")
    for name, x, count in (("states", states, num_states), ("actions", actions, num_actions)):
        if count is not None and (x.min() < 0 or x.max() >= count):
            raise ValueError(f"{name}: found indices in [{x.min()}, {x.max()}], expected [0, {count - 1}]")
    kind = jnp.int32 if np.issubdtype(states.dtype, np.integer) else None
    return OfflineData(jnp.asarray(states, kind), jnp.asarray(actions, jnp.int32), jnp.asarray(rewards))


@pytree
class Table:
    """Features and rewards of finitely many states; build it with `table`. features: [S, A, d]; rewards: [H, S, A]."""

    features: Array
    rewards: Array

    @property
    def horizon(self) -> int:
        """Number of steps."""
        return self.rewards.shape[0]

    def at(self, states: Int[Array, "..."]) -> Float[Array, "... A d"]:
        """Features of every action at the given states."""
        return self.features[states]


@pytree
class Features:
    """Features and rewards as functions of one state, for states that cannot be listed.

    feature: `state -> float[A, d]`, rewarded: `(step int[], state) -> float[A]`, both `jax.tree_util.Partial`; an
    action that ends the episode has zero features and its payoff as reward. horizon: static.
    """

    feature: Callable
    rewarded: Callable
    horizon: int = static()

    def at(self, states: PyTree) -> Float[Array, "... A d"]:
        """Features of every action at the given states [K, ...]."""
        return jax.vmap(self.feature)(states)


def table(features, reward, *, check: bool = True) -> Table:
    """Features [S, A, d] with reward weights [H, d] or rewards [H, S, A], as the learners take them.

    Args: check: whether features must lie on the simplex and rewards in [0, 1], as the theory supposes (on the host;
      traced arrays are the caller's promise).
    Raises: ValueError: shapes that do not fit, NaN, features off the simplex, rewards off [0, 1]. Cost: H S A d.
    """
    features, reward = jnp.asarray(features), jnp.asarray(reward)
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features: found shape {features.shape}, expected [S, A, d], none of them 0")
    s, a, d = features.shape
    if reward.ndim == 2 and reward.shape[1] == d:
        reward = jnp.einsum("sad,hd->hsa", features, reward, precision="highest")
    if reward.ndim != 3 or reward.shape[1:] != (s, a):
        raise ValueError(f"reward: found shape {reward.shape}, expected [H, {d}] or [H, {s}, {a}]")
    if check and not any(isinstance(x, jax.core.Tracer) for x in (features, reward)):
        check_laws("features", np.asarray(features))
        check_rewards("reward", np.asarray(reward))
    return Table(features, reward)


def sample_trajectories(
    key: Key[Array, ""], model: LinearMDP, behaviour: Float[Array, "H S A"], num_trajectories: int
) -> OfflineData:
    """Independent trajectories of a linear MDP under a behaviour policy; rewards are the expected ones.

    Args: behaviour: float[H, S, A], probabilities; num_trajectories: K, static.
    Returns: OfflineData. Raises: ValueError: no trajectory, a behaviour of another shape or that is no law. Source:
      derived: definition. Cost: K H (A + S) comparisons, one table of H S A S.
    """
    if num_trajectories < 1:
        raise ValueError(f"num_trajectories: found {num_trajectories}, expected an integer of at least 1")
    expected = (model.factors.shape[0], *model.features.shape[:2])
    if behaviour.shape != expected:
        raise ValueError(f"behaviour: found shape {behaviour.shape}, expected {expected}")
    if not isinstance(behaviour, jax.core.Tracer):
        check_laws("behaviour", np.asarray(behaviour))
    cumulative = jnp.cumsum(kernels(model), axis=-1)
    acting = jnp.cumsum(behaviour, axis=-1)
    reward = expected_rewards(model)
    first_key, key = jax.random.split(key)

    def draw(cdf, uniform):
        # Rounding may leave the last sum below 1, hence the scale and the minimum.
        return jnp.minimum(jnp.sum(cdf <= uniform[:, None] * cdf[:, -1:], axis=1), cdf.shape[1] - 1).astype(jnp.int32)

    uniform = lambda k: jax.random.uniform(k, (num_trajectories,), cumulative.dtype)  # noqa: E731
    start = jnp.cumsum(model.initial)
    state = draw(jnp.broadcast_to(start, (num_trajectories, start.size)), uniform(first_key))

    def step(state, at):
        key, acting, cumulative, reward = at
        own, other = jax.random.split(key)
        action = draw(acting[state], uniform(own))
        following = draw(cumulative[state, action], uniform(other))
        return following, (state, action, reward[state, action])

    keys = jax.random.split(key, model.factors.shape[0])
    last, (states, actions, rewarded) = jax.lax.scan(step, state, (keys, acting, cumulative, reward))
    return OfflineData(jnp.concatenate([states, last[None]]).T, actions.T, rewarded.T)


def check_coverage(data: OfflineData, features: Table | Features) -> list[tuple[int, int]]:
    """Warn of factors that the data never visits: nothing is known of them, and learners take them for the worst.

    Args: data: OfflineData; features: as the learners take them.
    Returns: the (step, factor) pairs, empty where all are visited. Cost: one pass over the data, on the host.
    """
    visited = np.any(np.asarray(visited_features(data, features)) != 0, axis=0)
    warn_of_unvisited(visited)
    return [(int(h), int(i)) for h, i in np.argwhere(~visited)]


def warn_of_unvisited(visited: Bool[Array, "H d"] | np.ndarray) -> None:
    """Warn, naming the first, if a factor was never visited at a step; nothing where `visited` is traced."""
    if isinstance(visited, jax.core.Tracer) or np.all(visited):
        return
    missing = np.argwhere(~np.asarray(visited))
    h, i = missing[0]
    warnings.warn(
        f"data: found no visit to factor {i} at step {h} ({len(missing)} such pairs), expected every factor at every "
        "step; nothing is known of them",
        stacklevel=3,
    )


def visited_features(data: OfflineData, features: Table | Features) -> Float[Array, "K H d"]:
    """Features of the pairs that were played. Cost: K H A d where features are a function, K H d for a table."""
    if isinstance(features, Table):
        return features.features[data.states[:, :-1], data.actions]
    of = jax.vmap(jax.vmap(lambda state, action: features.feature(state)[action]))
    return of(data.states[:, :-1], data.actions)
