"""American put on a binomial price: exact on its lattice, and with continuous prices for learners with hat features.

The price moves by 1.02 with probability p, else by 0.98; at each of H steps one holds (action 0, pays 0) or exercises
(action 1, pays max(0, strike - price) and ends the episode); holding past the end pays 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.mdp import MDP
from rlcore.robust import Features, OfflineData
from rlcore.types import Array, Float, Key, Number

__all__ = ["FAMILIES", "hat_features", "lattice", "lattice_prices", "payoff", "sample_prices"]

UP, DOWN, STRIKE, HORIZON = 1.02, 0.98, 100.0, 20
HOLD, EXERCISE = 0, 1


def payoff(price: Float[Array, "*n"], strike: Number = STRIKE) -> Float[Array, "*n"]:
    """What exercising pays. Args: price: float[...]. Returns: float[...]. Cost: one comparison."""
    return jnp.maximum(strike - price, 0)


def lattice_prices(
    initial_price: Number, horizon: int = HORIZON, up: Number = UP, down: Number = DOWN
) -> Float[Array, "H S"]:
    """Prices by step and number of ups, S = horizon + 1; entries with more ups than steps are never reached.

    Returns: float[H, S]. Source: definition. Cost: H S powers.
    """
    step, ups = np.arange(horizon)[:, None], np.arange(horizon + 1)[None, :]
    downs = np.maximum(step - ups, 0)
    # By logarithms: one rounding law for every node, and traced factors work.
    return initial_price * jnp.exp(ups * 1.0 * jnp.log(up) + downs * 1.0 * jnp.log(down))


def _check(horizon: int, up_probability: Number, **positive: Number) -> None:
    if horizon < 1:
        raise ValueError(f"horizon: found {horizon}, expected an integer of at least 1")
    if not isinstance(up_probability, jax.core.Tracer) and not 0 <= float(up_probability) <= 1:
        raise ValueError(f"up_probability: found {up_probability}, expected a number in [0, 1]")
    for name, x in positive.items():
        if not isinstance(x, jax.core.Tracer) and not 0 < float(x) < np.inf:
            raise ValueError(f"{name}: found {x}, expected a finite number above 0")


def lattice(
    up_probability: Number,
    initial_price: Number = 100.0,
    strike: Number = STRIKE,
    horizon: int = HORIZON,
    up: Number = UP,
    down: Number = DOWN,
) -> MDP:
    """The exact option on its binomial lattice, for `rlcore.planning.backward_induction`.

    States are the number of ups so far; rewards change with the step.

    Args: up_probability: float[] in [0, 1]; initial_price, strike: float[], units of money; horizon: H, static; up,
      down: price factors.
    Returns: MDP with H + 1 states, 2 actions, kernels with a leading H. Raises: ValueError: a probability off [0, 1], a
      horizon below 1, prices that are not positive.
    Source: released code of Tang, Liu and Xu (2024), after Ma et al. (2022). Cost: H^2.
    """
    _check(horizon, up_probability, initial_price=initial_price, strike=strike, up=up, down=down)
    s = horizon + 1
    prices = lattice_prices(initial_price, horizon, up, down)
    ups = np.arange(s, dtype=np.int32)
    hold = np.stack([np.minimum(ups + 1, horizon), ups], axis=1)
    next_state = np.broadcast_to(np.stack([hold, np.stack([ups, ups], axis=1)], axis=1), (horizon, s, 2, 2))
    p = jnp.asarray(up_probability, prices.dtype)
    law = jnp.stack([jnp.stack([p, 1 - p]), jnp.array([1.0, 0.0], prices.dtype)])
    prob = jnp.broadcast_to(law, (horizon, s, 2, 2))
    gain = payoff(prices, strike)
    pays = jnp.stack([jnp.zeros_like(gain), gain], axis=-1)
    reward = jnp.stack([pays, pays], axis=-1)
    terminal = np.broadcast_to(np.array([[False, False], [True, True]]), (horizon, s, 2, 2))
    initial = jnp.zeros(s, prices.dtype).at[0].set(1)
    return MDP(
        jnp.asarray(next_state, jnp.int32), prob, reward, jnp.asarray(terminal), jnp.ones((s, 2), bool),
        jnp.ones((), prices.dtype), initial, horizon,
    )  # fmt: skip


def _hats(anchors, width, outside, price):
    hold = jnp.maximum(1 - jnp.abs(price - anchors) / width, 0)
    if outside:
        # What the hats leave out goes to one more feature: rows stay on the simplex at any price.
        hold = jnp.concatenate([hold, 1 - jnp.sum(hold, keepdims=True)])
    return jnp.stack([hold, jnp.zeros_like(hold)])


def _rewarded(strike, step, price):
    del step
    gain = payoff(price, strike)
    return jnp.stack([jnp.zeros_like(gain), gain])


def hat_features(
    num_features: int = 30,
    low: float = 80.0,
    high: float = 180.0,
    strike: float = STRIKE,
    horizon: int = HORIZON,
    outside: bool = False,
) -> Features:
    """Hat functions of the price on anchors low, low + D, ..., D = (high - low) / d, for "hold"; "exercise" is known.

    As in the released code they sum to 1 on [low, high - D] only; `outside=True` adds a feature for the rest.

    Args: num_features: d; low, high: the anchors' range; strike; horizon; outside.
    Returns: Features with 2 actions, d (or d + 1) features. Raises: ValueError: fewer than 2 features, an empty range.
    Source: released code of Tang, Liu and Xu (2024) (defaults); the corrected variant low=60, high=160, outside=True is
      this project's. Cost: d per price.
    """
    if num_features < 2 or not low < high:
        raise ValueError(
            f"num_features, low, high: found {num_features}, {low}, {high}, expected d >= 2 and low < high"
        )
    width = (high - low) / num_features
    anchors = jnp.asarray(low + width * np.arange(num_features))
    # `outside` shapes the result: bound as a keyword of the partial it would be traced.
    hats = jax.tree_util.Partial(_padded_hats if outside else _plain_hats, anchors, jnp.asarray(width))
    return Features(hats, jax.tree_util.Partial(_rewarded, jnp.asarray(float(strike))), horizon)


def _plain_hats(anchors, width, price):
    return _hats(anchors, width, False, price)


def _padded_hats(anchors, width, price):
    return _hats(anchors, width, True, price)


def sample_prices(
    key: Key[Array, ""],
    num_trajectories: int,
    up_probability: Number = 0.5,
    initial_price: Number = 100.0,
    horizon: int = HORIZON,
    up: Number = UP,
    down: Number = DOWN,
) -> OfflineData:
    """Trajectories that never exercise, from one initial price, as the released code collects them.

    Args: num_trajectories: K, static; the rest as in `lattice`. Returns: OfflineData, states float[K, H + 1].
    Raises: ValueError: no trajectory, and as `lattice`. Source: released code of Tang, Liu and Xu (2024). Cost: K H.
    """
    if num_trajectories < 1:
        raise ValueError(f"num_trajectories: found {num_trajectories}, expected an integer of at least 1")
    _check(horizon, up_probability, initial_price=initial_price, up=up, down=down)
    rises = jax.random.bernoulli(key, up_probability, (num_trajectories, horizon))
    factors = jnp.where(rises, jnp.asarray(up), jnp.asarray(down))
    start = jnp.ones((num_trajectories, 1), factors.dtype)
    prices = initial_price * jnp.concatenate([start, jnp.cumprod(factors, axis=1)], axis=1)
    still = jnp.zeros((num_trajectories, horizon), jnp.int32)
    return OfflineData(prices, still, jnp.zeros((num_trajectories, horizon), prices.dtype))


FAMILIES = {"lattice": lattice}
