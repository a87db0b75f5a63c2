"""The optimistic baseline on deterministic problems: what was never tried leads back to itself and pays the most."""

from functools import partial

import jax
import jax.numpy as jnp

from rlcore.mdp import MDP
from rlcore.sqirl.deterministic import DeterministicTable, action_values, deterministic_table, optimal_values
from rlcore.types import Array, Float, Key, require_float64

__all__ = ["optimistic_median", "optimistic_steps"]

TOLERANCE = 1e-4  # of ties and of success, in the released code


@partial(jax.jit, static_argnames="max_steps")
def _steps(table: DeterministicTable, key: Array, max_steps: int) -> Array:
    horizon, num_actions = table.horizon, table.num_actions
    target = jnp.max(optimal_values(table)[0, table.initial]) - TOLERANCE
    ends = (jnp.arange(table.end + 1) == table.end)[:, None]
    own = jnp.broadcast_to(jnp.arange(table.end + 1, dtype=jnp.int32)[:, None], table.next_state.shape)
    most = jnp.broadcast_to(jnp.max(table.reward[: table.end]), table.reward.shape)
    unknown = DeterministicTable(own, jnp.where(ends, jnp.zeros_like(most), most), table.initial, horizon)

    def episode(carry):
        model, steps, number, _ = carry
        q = action_values(model, lambda q, t: jnp.max(q, axis=1))
        level = jax.random.uniform(jax.random.fold_in(key, number), (horizon, num_actions))

        def step(carry, now):
            state, next_state, reward, total, taken = carry
            q, level = now
            close = q[state] >= jnp.max(q[state]) - TOLERANCE
            # The largest of independent uniform numbers: a fair choice among the tied.
            action = jnp.argmax(jnp.where(close, level, -1))
            following, paid = table.next_state[state, action], table.reward[state, action]
            next_state = next_state.at[state, action].set(following)
            reward = reward.at[state, action].set(paid)
            return (following, next_state, reward, total + paid, taken + (state != table.end).astype(taken.dtype)), None

        start = (
            table.initial,
            model.next_state,
            model.reward,
            jnp.zeros((), table.reward.dtype),
            jnp.zeros((), jnp.result_type(int)),
        )
        (_, next_state, reward, total, taken), _ = jax.lax.scan(step, start, (q, level))
        model = DeterministicTable(next_state, reward, table.initial, horizon)
        return model, steps + taken, number + 1, total

    def goes_on(carry):
        _, steps, _, total = carry
        return (total < target) & (steps < max_steps)

    low = jnp.asarray(-jnp.inf, table.reward.dtype)
    _, steps, _, total = jax.lax.while_loop(
        goes_on, episode, (unknown, jnp.zeros((), jnp.result_type(int)), jnp.zeros((), jnp.result_type(int)), low)
    )
    return jnp.where(total >= target, steps.astype(table.reward.dtype), jnp.inf)


def optimistic_steps(mdp: MDP, key: Key[Array, ""], *, max_steps: int = 100_000_000) -> Float[Array, ""]:
    """Steps until optimism in the face of uncertainty plays an optimal episode.

    The model begins with every pair leading to itself for the largest reward; each episode is greedy in the model's
    values, with random ties (to 1e-4), and what it saw replaces the model. One run: vmap over keys, with the problem
    closed over.

    Args: mdp: deterministic; max_steps: an episode that begins at or after this many steps is not played, static.
    Returns: float[]: steps of all episodes with the first whose return is within 1e-4 of the best, or inf.
    Raises: RuntimeError: float64 is off. ValueError: a stochastic MDP and all that `deterministic_table` refuses.
    Source: the authors' code ("UCB" there), BRIDGE/SQIRL specification, 3.7. Cost: O(T S A) per episode.
    """
    require_float64("optimistic_steps")
    # Eager under a jit that closes over the problem, too.
    with jax.ensure_compile_time_eval():
        table = deterministic_table(mdp)
    return _steps(table, key, max_steps)


def optimistic_median(mdp: MDP, key: Key[Array, ""], *, runs: int = 25, max_steps: int = 100_000_000) -> float:
    """The median number of steps over independent runs, as the authors report it; inf where half do not succeed.

    Args: as `optimistic_steps`; runs: at least 1.
    Returns: steps. Raises: as `optimistic_steps`; ValueError: runs below 1. Cost: `runs` runs side by side.
    """
    if runs < 1:
        raise ValueError(f"runs: found {runs}, expected at least 1")
    each = jax.vmap(lambda key: optimistic_steps(mdp, key, max_steps=max_steps))(jax.random.split(key, runs))
    return float(jnp.sort(each)[runs // 2])
