"""The two-index relaxation: every arm repeats cycles of idle rounds and a run of plays; arms share plays on average.

    V = max sum_i (x_i(t, r) W_i(t, r) + y_i p_i(-L)),  (t + r) x_i + y_i <= 1 per arm,  sum_i (r x_i + y_i) <= m

W(t, r) is the payoff of t = 1 .. M idle rounds and r = 1 .. L + 1 plays, y the share of time in play without end. No
schedule earns more per round in the long run. The dual is a convex piecewise-linear function of one price.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd.problem import SwitchingBandit, require_plays, require_reset
from rlcore.types import Array, Float, Int, Number

__all__ = [
    "Occupancy",
    "Options",
    "Relaxation",
    "cycle_options",
    "cycle_payoffs",
    "dual",
    "occupancy",
    "price_plays",
    "relaxation",
    "run_payoffs",
]

MOST_STEPS = 200


class Relaxation(NamedTuple):
    """The optimum of the relaxation and a plan that attains it.

    value: float[], V, reward per round. price: float[], of a play, at which the dual is least. gap: float[], dual less
    primal value: the error of both is at most this. idle, run: int32[k, 2], two cycles per arm: `idle` rounds of rest,
    then `run` plays; (0, 1) plays without end, (1, 0) never. weight: float[k, 2], shares of time, summing to 1; only
    one arm at most gives weight to its second cycle. steps: int[], evaluations of the dual.
    """

    value: Array
    price: Array
    gap: Array
    idle: Array
    run: Array
    weight: Array
    steps: Array


class Options(NamedTuple):
    """What an arm may repeat for ever: the same N options for every arm, by load; the first is to rest, at load 0.

    rate: float[k, N], payoff per round; load: float[N], plays per round; idle, run: int32[N], as in `Relaxation`.
    """

    rate: Array
    load: Array
    idle: Array
    run: Array


class Occupancy(NamedTuple):
    """Rates per round by arm and local state, float[k, S] each: of idle rounds, and of plays; they sum to 1 per arm."""

    idle: Array
    play: Array


def run_payoffs(problem: SwitchingBandit, longest: int) -> Float[Array, "k M R"]:
    """W[i, t - 1, r - 1], the payoff of a run of r = 1 .. `longest` plays of arm i after t = 1 .. M idle rounds.

    Raises: ValueError: the idle rule is not "reset": recovery then takes a run's length, and cycles say too little.
    Source: definition. Cost: k M `longest`.
    """
    require_reset(problem)
    tired = problem.tired[..., np.minimum(np.arange(longest - 1), problem.satiation - 1)]
    later = jnp.cumsum(tired, axis=-1)
    later = jnp.concatenate([jnp.zeros_like(problem.rested[..., :1]), later], axis=-1)
    return problem.rested[..., :, None] + later[..., None, :]


def cycle_payoffs(problem: SwitchingBandit) -> Float[Array, "k M R"]:
    """`run_payoffs` of the runs that the relaxation needs, r = 1 .. L + 1: play without end stands for longer ones.

    Raises: ValueError: an idle rule other than "reset". Source: derived: docs/proofs/lsd.md#t1. Cost: k M L.
    """
    return run_payoffs(problem, problem.satiation + 1)


class _Choice(NamedTuple):
    """One option per arm: rate float[k] of payoff, load float[k] of plays per round, and its index in the table."""

    rate: Array
    load: Array
    index: Array


def cycle_options(payoffs: Float[Array, "k M R"], always: Float[Array, " k"] | None) -> Options:
    """The options of cycles with payoffs W and, unless None, of play without end at rate `always`. Cost: k M R."""
    k, m, r = payoffs.shape
    idle, run = np.meshgrid(np.arange(1, m + 1), np.arange(1, r + 1), indexing="ij")
    # In order of load, so that the first of tied options is the one of least load.
    order = np.argsort((run / (idle + run)).ravel(), kind="stable")
    idle, run = idle.ravel()[order], run.ravel()[order]
    cycles = payoffs.reshape(k, m * r)[:, order] / jnp.asarray(idle + run, payoffs.dtype)[None, :]
    rates = [jnp.zeros((k, 1), payoffs.dtype), cycles]
    idle, run = np.concatenate([[1], idle]), np.concatenate([[0], run])
    if always is not None:
        rates.append(always[:, None])
        idle, run = np.append(idle, 0), np.append(run, 1)
    load = jnp.asarray(run / (idle + run), payoffs.dtype)
    return Options(jnp.concatenate(rates, axis=1), load, jnp.asarray(idle, jnp.int32), jnp.asarray(run, jnp.int32))


def _table(problem) -> Options:
    return cycle_options(cycle_payoffs(problem), problem.payoffs[:, 0])


def _best(rates, loads, price) -> _Choice:
    index = jnp.argmax(rates - price * loads[None, :], axis=1)
    rate = jnp.take_along_axis(rates, index[:, None], axis=1)[:, 0]
    return _Choice(rate, loads[index], index)


def dual(problem: SwitchingBandit, price: Number, plays: Number = 1) -> Float[Array, ""]:
    """D(price) = plays * price + sum over arms of the best average reward net of the price: at least V.

    Args: price: float[] >= 0; plays: m, plays per round.
    Returns: float[]. Source: derived: docs/proofs/lsd.md#t1. Cost: k M L.
    """
    options = _table(problem)
    best = _best(options.rate, options.load, price)
    return plays * price + jnp.sum(best.rate - price * best.load)


@functools.partial(jax.jit, static_argnames="plays")
def relaxation(problem: SwitchingBandit, plays: int = 1) -> Relaxation:
    """Solve the relaxation: see `price_plays`.

    Args: plays: m, at most this many arms per round, static.
    Returns: Relaxation. Raises: ValueError: plays out of 1 .. k, or an idle rule other than "reset".
    Source: derived: docs/proofs/lsd.md#t1 and #t3, after Foussoul et al. (2023) for the idea (abstract read).
    Cost: k M L per evaluation and in memory.
    """
    require_plays(plays, problem.num_arms)
    return price_plays(_table(problem), plays)


@functools.partial(jax.jit, static_argnames="plays")
def price_plays(options: Options, plays: int = 1) -> Relaxation:
    """Give every arm options so that plays are not exceeded, by cutting planes on the dual of that one constraint.

    Exact after finitely many evaluations, below 15 as a rule. Two prices bracket the least of the dual; their lines
    meet at the next one, and where the dual touches that point both plans are optimal and their mixture loads the
    rounds exactly. Every fourth price halves the bracket instead.

    Args: options: see `Options`; plays: m >= 1, at most this many plays per round.
    Returns: Relaxation; value, price and gap have derivatives in the options' rates (where the plan does not change).
    Source: derived: docs/proofs/lsd.md#t1 and #t3. Cost: k N per evaluation and in memory.
    """
    _, loads, idle, run = options
    # The search for the plan has no derivative, what the plan earns has: reverse mode does not pass through the loop.
    rates = jax.lax.stop_gradient(options.rate)
    dtype = rates.dtype
    eps = jnp.finfo(dtype).eps
    zero = jnp.zeros((), dtype)
    # Strictly above every payoff: there "never" is the best option of every arm, whatever the rounding.
    per_play = rates / jnp.where(loads > 0, loads, 1)[None, :]
    top = 1.01 * jnp.maximum(jnp.max(per_play), 0) + 1e-3

    def at(price):
        best = _best(rates, loads, price)
        return best, jnp.sum(best.rate), jnp.sum(best.load)

    def line(rate, load, price):
        return rate + price * (plays - load)

    def step(state):
        count, lo, hi, below, above, _ = state
        (_, rate_low, load_low), (_, rate_high, load_high) = below, above
        spread = load_low - load_high
        meet = (rate_low - rate_high) / jnp.where(spread > 0, spread, 1)
        price = jnp.where((count % 4 == 3) | (spread <= 0), (lo + hi) / 2, jnp.clip(meet, lo, hi))
        _, rate, load = new = at(price)
        bound = jnp.maximum(line(rate_low, load_low, price), line(rate_high, load_high, price))
        # The dual touches the lines that bracket it where they meet: the optimum.
        tolerance = 8 * eps * (jnp.abs(rate) + price * (plays + load) + eps)
        touches = (line(rate, load, price) - bound <= tolerance) & (price == jnp.clip(meet, lo, hi))
        heavy = load > plays
        pick = lambda cond, x, y: jax.tree.map(lambda a, b: jnp.where(cond, a, b), x, y)  # noqa: E731
        below, above = pick(heavy & ~touches, new, below), pick(~heavy & ~touches, new, above)
        lo, hi = jnp.where(heavy & ~touches, price, lo), jnp.where(~heavy & ~touches, price, hi)
        return count + 1, lo, hi, below, above, touches | (hi - lo <= 4 * eps * hi)

    free = at(zero)
    # Where plays are not scarce at price 0 the plan is free.
    slack = free[2] <= plays
    start = (jnp.zeros((), jnp.int32), zero, top, free, at(top), slack)
    count, lo, hi, below, above, _ = jax.lax.while_loop(lambda s: ~s[5] & (s[0] < MOST_STEPS), step, start)
    (low, _, load_low), (high, _, load_high) = below, above
    # Arms change from the plan of the lower price to that of the higher one in turn: one of them is cut in between.
    gain = jnp.maximum(low.load - high.load, 0)
    relief = jnp.clip(jnp.maximum(load_low - plays, 0) - (jnp.cumsum(gain) - gain), 0, gain)
    second = jnp.where(slack, 0, relief / jnp.where(gain > 0, gain, 1))
    changed = second >= 1
    first_index = jnp.where(changed, high.index, low.index)
    index = jnp.stack([first_index, high.index], axis=1)
    weight = jnp.where(changed, 0, second)
    weight = jnp.stack([1 - weight, weight], axis=1)
    value = jnp.sum(weight * jnp.take_along_axis(options.rate, index, axis=1))
    rate_low, rate_high = (jnp.sum(jnp.take_along_axis(options.rate, x.index[:, None], axis=1)) for x in (low, high))
    meet = (rate_low - rate_high) / jnp.where(load_low > load_high, load_low - load_high, 1)
    price = jnp.where(slack, 0, jnp.clip(meet, lo, hi))
    best = _best(options.rate, loads, price)
    gap = line(jnp.sum(best.rate), jnp.sum(best.load), price) - value
    return Relaxation(value, price, gap, idle[index], run[index], weight, count + 2)


@jax.jit
def occupancy(problem: SwitchingBandit, plan: Relaxation) -> Occupancy:
    """How often each local state is rested in and played from under the plan of a relaxation.

    Args: plan: of the same problem. Returns: Occupancy, float[k, S] twice. Source: derived: docs/proofs/lsd.md#t1.
    Cost: k S.
    """
    low, s = problem.satiation, problem.num_local

    def option(idle: Int[Array, ""], run: Int[Array, ""], weight: Float[Array, ""]):
        # In a cycle the rounds of rest see -run, +1 .. +(idle - 1); the plays see +idle, -1 .. -(run - 1).
        e = jnp.arange(s, dtype=jnp.int32)
        up = e - low + 1  # +s of rested states
        down = low - e  # j of states -j
        rate = weight / (idle + run).astype(weight.dtype)
        tail = jnp.maximum(run - low, 0)  # plays at the saturated state -L beyond the first
        rested = (e >= low) & (up < idle)
        rested = jnp.where(rested, 1, 0) + jnp.where(e == jnp.maximum(low - run, 0), 1, 0)
        played = jnp.where((e >= low) & (up == idle), 1, 0)
        played += jnp.where((e < low) & (down <= run - 1), 1, 0) + jnp.where((e == 0) & (run > low), tail - 1, 0)
        never, always = run == 0, idle == 0
        rested = jnp.where(never, jnp.where(e == s - 1, 1, 0), jnp.where(always, 0, rested))
        played = jnp.where(never, 0, jnp.where(always, jnp.where(e == 0, 1, 0), played))
        return rate * rested.astype(weight.dtype), rate * played.astype(weight.dtype)

    rested, played = jax.vmap(jax.vmap(option))(plan.idle, plan.run, plan.weight)
    return Occupancy(jnp.sum(rested, axis=1), jnp.sum(played, axis=1))
