"""Restless arms with ordered states: random monotone ones, and good-or-bad arms that no play changes."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.checks import check_integer
from rlcore.lsd.restless import RestlessBandit, restless_bandit
from rlcore.types import Array, Key, Number

__all__ = ["FAMILIES", "persistent", "restless_monotone"]


def restless_monotone(key: Key[Array, ""], k: int, S: int, concentration: Number = 0.7) -> RestlessBandit:
    """Random arms, stochastically monotone, with idling dominating playing, and payoffs that never fall.

    Two random stochastic matrices per arm; their distribution functions are sorted so that higher states have smaller
    ones; the smaller of the two, entry by entry, is idling and the larger playing. Payoffs are sorted squares of
    uniforms.

    Args: k, S: sizes, static; concentration: of the Dirichlet rows.
    Returns: RestlessBandit; key and concentration may be traced. The class is checked where they are concrete.
    Raises: ValueError: sizes below 1, or a concentration not above 0.
    Source: this project's family; its class: docs/proofs/lsd.md#t15. Cost: k S^2 log S.
    """
    k, S = check_integer("k", k, 1), check_integer("S", S, 1)
    if not isinstance(concentration, jax.core.Tracer) and not 0 < float(concentration) < np.inf:
        raise ValueError(f"concentration: found {concentration}, expected a finite number above 0")
    law_key, payoff_key = jax.random.split(key)
    rows = jax.random.dirichlet(law_key, jnp.full(S, concentration), (2, k, S))
    # Sorting columns keeps every row nondecreasing; the last column is 1 whatever the rounding of the sums.
    cdf = -jnp.sort(-jnp.cumsum(rows, axis=-1), axis=-2)
    cdf = jnp.minimum(cdf, 1).at[..., -1].set(1)
    law = lambda x: jnp.diff(x, axis=-1, prepend=0)  # noqa: E731
    payoffs = jnp.sort(jax.random.uniform(payoff_key, (k, S)) ** 2, axis=-1)
    parts = law(jnp.max(cdf, axis=0)), law(jnp.min(cdf, axis=0)), payoffs
    if any(isinstance(x, jax.core.Tracer) for x in parts):
        return RestlessBandit(*parts)
    return restless_bandit(*parts, payoff_class="monotone")


def persistent(k: int = 2, stay: float = 0.98) -> RestlessBandit:
    """Arms in a bad (0) or a good (1) state that stays with probability `stay`, played or not; only good ones pay, 1.

    Args: k: arms; stay: in [1/2, 1). Half the time an arm is good.
    Returns: RestlessBandit, S = 2. Raises: ValueError: `stay` off [1/2, 1), or k below 1.
    Source: derived: docs/proofs/lsd.md#t15. Cost: k.
    """
    k = check_integer("k", k, 1)
    if not 0.5 <= stay < 1:
        raise ValueError(f"stay: found {stay}, expected a probability in [1/2, 1)")
    law = np.tile([[stay, 1 - stay], [1 - stay, stay]], (k, 1, 1))
    return restless_bandit(law, law, np.tile([0.0, 1.0], (k, 1)), payoff_class="monotone")


FAMILIES = {"monotone": restless_monotone, "persistent": persistent}
