"""Interleaved schedule of recharging arms: each has its own evenly spaced times; rounds go by the order of all times.

No play is ever dropped; the delay of an arm is the number of all events between two of its own. With a dummy arm for
the rounds that the plan leaves empty, a delay is the planned one on average.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, require_plays, require_reset
from rlcore.lsd.relaxation import Options, Relaxation, price_plays
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key

__all__ = [
    "Interleaved",
    "InterleavedState",
    "delay_payoffs",
    "delay_relaxation",
    "interleaved",
    "interleaved_value",
    "play_rates",
]

SMALLEST_RATE = 1e-12


def delay_payoffs(problem: SwitchingBandit) -> Float[Array, "k D"]:
    """H[i, d - 1], the payoff at delay d = 1 .. M + 1, constant beyond.

    Raises: ValueError: satiation depth above 1: payoffs then depend on more than the delay. Cost: none.
    """
    if problem.satiation != 1:
        raise ValueError(f"problem: found satiation depth {problem.satiation}, expected 1 (payoffs by delay)")
    return problem.payoffs


def delay_relaxation(problem: SwitchingBandit, plays: int = 1) -> Relaxation:
    """max sum_i sum_d H_i(d) z_i(d) with sum_d d z_i(d) <= 1 per arm and at most m plays per round, sum z <= m.

    The value is that of `relaxation`; the plan has single plays only: run 1 after idle = d - 1 rounds.

    Args: plays: m, static. Returns: Relaxation. Raises: ValueError: as `delay_payoffs`, or plays out of 1 .. k.
    Source: derived: docs/proofs/lsd.md#t10. Cost: k M per evaluation of the dual.
    """
    require_plays(plays, problem.num_arms)
    payoffs = delay_payoffs(problem)
    delay = np.arange(payoffs.shape[1], 0, -1)
    load = jnp.asarray(1 / delay, payoffs.dtype)
    rate = payoffs[:, ::-1] * load[None, :]
    rate = jnp.concatenate([jnp.zeros_like(rate[:, :1]), rate], axis=1)
    idle = jnp.asarray(np.append(1, delay - 1), jnp.int32)
    run = jnp.asarray(np.append(0, np.ones_like(delay)), jnp.int32)
    return price_plays(Options(rate, jnp.append(jnp.zeros_like(load[:1]), load), idle, run), plays)


def play_rates(plan: Relaxation) -> Float[Array, " k"]:
    """Plays per round of every arm under a plan. Cost: k."""
    run, period = plan.run, plan.idle + plan.run
    return jnp.sum(plan.weight * run.astype(plan.weight.dtype) / period.astype(plan.weight.dtype), axis=-1)


def _everyone(rates: Float[Array, " k"]) -> Float[Array, " n"]:
    """float[k + 1], the rates and the dummy's; 0 for an arm below 1e-12, and for a dummy within the rounding of 1."""
    rest = 1 - jnp.sum(rates)
    rest = jnp.where(rest >= rates.shape[0] * jnp.finfo(rates.dtype).eps, rest, 0)
    everyone = jnp.append(rates, rest)
    return jnp.where(everyone >= SMALLEST_RATE, everyone, 0)


@jax.jit
def interleaved_value(problem: SwitchingBandit, rates: Float[Array, " k"]) -> Float[Array, ""]:
    """What interleaving with given rates earns per round in expectation, in the long run, exactly.

    Between two plays of arm i every other arm j is played floor or ceil of rates[j] / rates[i] times, independently.

    Args: rates: plays per round, nonnegative, of sum at most 1; the dummy has the rest.
    Returns: float[], for payoffs by delay of any shape. Raises: ValueError: as `delay_payoffs`.
    Source: derived: docs/proofs/lsd.md#t10. Cost: k^2 M.
    """
    payoffs = delay_payoffs(problem)
    k, depth = payoffs.shape
    dtype = payoffs.dtype
    everyone = _everyone(rates)
    active = everyone > 0

    def one(i):
        rate = jnp.where(active[i], everyone[i], 1)
        others = active & (jnp.arange(k + 1) != i)
        mean = jnp.where(others, everyone / rate, 0)
        # A whole ratio that rounding puts just below it would count one too few, half of the time neither.
        whole = jnp.floor(mean + 8 * jnp.finfo(dtype).eps * mean)
        chance = jnp.clip(mean - whole, 0, 1)

        def add(law, q):
            # law[n]: n extra events so far; the last cell takes all beyond.
            up = jnp.concatenate([jnp.zeros(1, dtype), law[:-1]]).at[-1].add(law[-1])
            return law * (1 - q) + up * q, None

        law, _ = jax.lax.scan(add, jnp.zeros(depth + 1, dtype).at[0].set(1), chance)
        surely = jnp.minimum(jnp.sum(whole), depth).astype(jnp.int32)
        delay = jnp.minimum(surely + jnp.arange(depth + 1, dtype=jnp.int32), depth - 1)
        return jnp.where(active[i], rate, 0) * jnp.sum(law * payoffs[i, delay])

    return jnp.sum(jax.lax.map(one, jnp.arange(k)))


class InterleavedState(NamedTuple):
    """offset: float[k + 1], uniform on [0, 1); count: int32[k + 1], plays so far; the last entry is the dummy's."""

    offset: Array
    count: Array


@pytree
class Interleaved:
    """Planner: arm i has times (offset_i + n) / rate_i, n = 0, 1, ..; round by round the earliest is played.

    rates: float[k], plays per round, of sum at most 1; the rest are empty rounds of a dummy, which a must-play problem
    gives to an arm of rate 0. Rates below 1e-12 count as 0, and so does a dummy's within the rounding of a sum.

    Times of round t are known to t eps / 2, eps the machine epsilon of the rates. Of equal times and offsets, single
    precision orders 0.2% of the rounds 10^4 .. 10^5 otherwise than exact times do, 2% up to 10^6 and 14% up to 10^7
    (four random rates); rates and mean gaps stay, gaps err by a round or two. Run in float64 beyond 10^5 rounds.
    """

    rates: Array

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> InterleavedState:
        """Offsets drawn; raises ValueError for a must-play problem with empty rounds and no arm for them."""
        require_reset(problem)
        if not (problem.allow_idle or isinstance(self.rates, jax.core.Tracer)):
            with jax.ensure_compile_time_eval():
                *arms, rest = np.asarray(_everyone(self.rates))
            if rest > 0 and min(arms) > 0:
                raise ValueError(
                    "problem: found a must-play model (allow_idle=False) whose arms all have positive rates, with "
                    f"{rest:g} of the rounds left empty, expected an arm of rate 0 to fill them "
                    "(add an arm that pays 0)"
                )
        k = self.rates.shape[0]
        return InterleavedState(jax.random.uniform(key, (k + 1,), self.rates.dtype), jnp.zeros(k + 1, jnp.int32))

    def act(
        self,
        problem: SwitchingBandit,
        state: InterleavedState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], InterleavedState]:
        """One round; see the class. Cost: k."""
        rates = _everyone(self.rates)
        moving = rates > 0
        # Counts rather than sums of spacings: no drift.
        time = (state.offset + state.count.astype(rates.dtype)) / jnp.where(moving, rates, 1)
        k = self.rates.shape[0]
        chosen = jnp.arange(k + 1) == jnp.argmin(jnp.where(moving, time, jnp.inf))
        played = chosen[:k]
        if not problem.allow_idle:
            played |= chosen[k] & (jnp.arange(k) == jnp.argmin(rates[:k]))
        return played, state._replace(count=state.count + chosen.astype(jnp.int32))

    def guarantee(self, problem: SwitchingBandit) -> Float[Array, ""]:
        """float[], reward per round in expectation, in the long run: see `interleaved_value`."""
        require_reset(problem)
        return interleaved_value(problem, self.rates)


def interleaved(problem: SwitchingBandit) -> Interleaved:
    """The interleaved schedule of the delay relaxation; of concave payoffs it keeps 1 - 1 / (2 e) = .816 of the value.

    Returns: Interleaved. Raises: ValueError: as `delay_relaxation`, or a must-play problem without an arm to fill.
    Source: derived, after Papadigenopoulos et al. (2022), arXiv 2205.14790 (abstract read); constant derived:
      docs/proofs/lsd.md#t10. Cost: one relaxation.
    """
    return Interleaved(play_rates(delay_relaxation(problem)))
