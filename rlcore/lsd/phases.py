"""Random phases: every arm repeats its cycle from a uniform offset; its virtual state is where that has led it."""

import jax
import jax.numpy as jnp

from rlcore.lsd.problem import SwitchingBandit
from rlcore.lsd.relaxation import Relaxation
from rlcore.types import Array, Bool, Int, Key

__all__ = ["draw_phases", "virtual_states"]


def draw_phases(key: Key[Array, ""], plan: Relaxation) -> tuple[Int[Array, " k"], Int[Array, " k"], Int[Array, " k"]]:
    """(idle int32[k], run int32[k], offset int32[k]): a cycle per arm by the plan's weights, a uniform phase in it.

    Args: plan: of `relaxation`; (0, 1) plays without end, (1, 0) never plays, both of period 1.
    Source: derived: docs/proofs/lsd.md#t6. Cost: k.
    """
    uniform = jax.random.uniform(key, (2, plan.weight.shape[0]), plan.weight.dtype)
    second = uniform[0] >= plan.weight[:, 0]
    idle = jnp.where(second, plan.idle[:, 1], plan.idle[:, 0])
    run = jnp.where(second, plan.run[:, 1], plan.run[:, 0])
    period = idle + run
    offset = jnp.floor(uniform[1] * period.astype(uniform.dtype)).astype(jnp.int32)
    return idle, run, jnp.minimum(offset, period - 1)


def virtual_states(
    problem: SwitchingBandit, idle: Int[Array, " k"], run: Int[Array, " k"], offset: Int[Array, " k"], t: Int[Array, ""]
) -> tuple[Bool[Array, " k"], Int[Array, " k"]]:
    """(bool[k], whose cycle asks for a play in round t; int32[k], local states before it, had all been played so far).

    Args: idle, run, offset: of `draw_phases`; t: int32[], round. The payoffs are not read.
    Source: derived: docs/proofs/lsd.md#t6; an arm that never plays is fully rested. Cost: k.
    """
    low, top = problem.satiation, problem.num_local - 1
    phase = (offset + t) % (idle + run)
    played = phase - idle  # plays of the run so far
    asks = (run > 0) & (played >= 0)
    # The run's first play sees +idle, its later ones -1, -2, ...; the rest sees -run, then +1, +2, ...
    run_state = jnp.where((played == 0) & (idle > 0), jnp.minimum(low + idle - 1, top), jnp.maximum(low - played, 0))
    rest_state = jnp.where(phase == 0, jnp.maximum(low - run, 0), jnp.minimum(low + phase - 1, top))
    virtual = jnp.where(asks, run_state, rest_state)
    # Play without end is a run that began long ago.
    virtual = jnp.where(idle == 0, 0, jnp.where(run == 0, top, virtual))
    return asks, virtual
