"""One arm at a price per play, and the priorities that it gives: the advantage of playing, and Whittle's index.

An arm alone is a deterministic problem with S states and two actions. At price l a play of state e is worth
A(e) = p(e) - l + h(play(e)) - h(idle(e)) more than an idle round, h the relative values at that price.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.choice import highest
from rlcore.lsd.howard import best_cycles, follow
from rlcore.lsd.problem import SwitchingBandit, require_plays, transition_tables
from rlcore.lsd.relaxation import relaxation
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, Number, PyTree, require_float64

__all__ = [
    "AdvantageIndex",
    "PricedArms",
    "WhittlePolicy",
    "dual_price",
    "indexable",
    "priced_arms",
    "whittle_index",
]

# Ties are the rule at the price of the relaxation; idling on them loses.
TIE = 1e-9
HALVINGS = 60


class PricedArms(NamedTuple):
    """Every arm alone, at a price per play. gain: float[k], best reward less price per round; load: float[k], plays per
    round of a cycle that attains it; relative: float[k, S], relative values h; advantage: float[k, S], of a play over
    an idle round, both followed by best play; error: float[k], the optimality equation holds to this.
    """

    gain: Array
    load: Array
    relative: Array
    advantage: Array
    error: Array


def _graph(problem):
    play, idle = transition_tables(problem)
    return play, idle, jnp.stack([idle, play], axis=1)


def _alone(payoffs, graph, price):
    """One arm: float[S] payoffs at one price."""
    play, idle, following = graph
    net = payoffs - price
    reward = jnp.stack([jnp.zeros_like(net), net], axis=1)
    plan = best_cycles(following, reward, (net > 0).astype(jnp.int32))
    advantage = net + plan.relative[play] - plan.relative[idle]
    next_state = jnp.where(plan.action == 1, play, idle)
    load, _ = follow(next_state, plan.action.astype(payoffs.dtype), jnp.zeros_like(net))
    gain = (plan.low + plan.high) / 2
    return PricedArms(gain, load[-1], plan.relative, advantage, (plan.high - plan.low) / 2)


def priced_arms(problem: SwitchingBandit, price: Number) -> PricedArms:
    """Solve every arm alone at a price per play, whatever the idle rule and the payoffs.

    With monotone payoffs and idle rule "reset" relative values are unique but for a constant; in general, best cycles
    that share no state leave a freedom, and one solution of the optimality equation is returned.

    Args: price: float[], may be negative.
    Returns: PricedArms. Raises: RuntimeError: float64 is off. Source: derived: docs/proofs/lsd.md#indices.
    Cost: k S log(S) per step of policy iteration, below 10 as a rule.
    """
    require_float64("priced_arms")
    graph = _graph(problem)
    return jax.vmap(lambda p: _alone(p, graph, price))(problem.payoffs)


def dual_price(problem: SwitchingBandit, plays: Number = 1) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(price float[], bound float[]): the price of a play at which plays * price + sum of gains is least, and that sum.

    It bounds every schedule's long-run reward per round, for either idle rule; with "reset" it is the value of
    `relaxation`, which is faster.

    Args: plays: m, plays per round.
    Returns: the price, and the bound, which the errors of the gains widen. Raises: ValueError: plays out of 1 .. k.
    RuntimeError: float64 is off. Source: derived: docs/proofs/lsd.md#t1. Cost: 60 times `priced_arms`.
    """
    require_plays(plays, problem.num_arms)
    top = 1.01 * jnp.max(problem.payoffs) + 1e-3

    def halve(_, bracket):
        low, high = bracket
        price = (low + high) / 2
        heavy = jnp.sum(priced_arms(problem, price).load) > plays
        return jnp.where(heavy, price, low), jnp.where(heavy, high, price)

    _, price = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(top), top))
    arms = priced_arms(problem, price)
    return price, plays * price + jnp.sum(arms.gain + arms.error)


def whittle_index(problem: SwitchingBandit) -> Float[Array, "k S"]:
    """Whittle's index of every local state: the least price per play at which an idle round is as good as a play.

    Bisection per state; a state that wants to idle, then to play again as the price rises has no index, and the number
    returned is one of its crossings: ask `indexable`.

    Returns: float[k, S], in [-(L + 1), 1.01]; error: 1e-11 and the width of 60 halvings.
    Raises: RuntimeError: float64 is off.
    Source: Whittle 1988 (remembered); bracket: derived: docs/proofs/lsd.md#indices.
    Cost: 60 k S policy iterations on S states.
    """
    require_float64("whittle_index")
    graph = _graph(problem)

    def one(payoffs, state):
        def halve(_, bracket):
            low, high = bracket
            price = (low + high) / 2
            idles = _alone(payoffs, graph, price).advantage[state] <= 1e-12
            return jnp.where(idles, low, price), jnp.where(idles, price, high)

        ends = (jnp.asarray(-problem.satiation - 1, payoffs.dtype), jnp.asarray(1.01, payoffs.dtype))
        return jax.lax.fori_loop(0, HALVINGS, halve, ends)[1]

    each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return each(problem.payoffs, jnp.arange(problem.num_local))


def indexable(problem: SwitchingBandit, index: Float[Array, "k S"]) -> Bool[Array, " k"]:
    """Whether each arm is indexable: the set of states that idle grows with the price, one state at its index.

    Between two indices in a row the set {index <= price} must be optimal; advantages under one policy are linear in the
    price, so that it is enough to look at both ends.

    Args: index: what `whittle_index` returned.
    Returns: bool[k]; an arm where two cycles of one policy earn alike may be called False wrongly.
    Source: derived: docs/proofs/lsd.md#indices. Cost: k S policy evaluations.
    """
    play, idle, _ = _graph(problem)
    tolerance = 1e-8  # indices are known to 1e-11, and slopes are at most S + 1

    def one(payoffs, index):
        def between(low, high):
            active = index > (low + high) / 2
            following = jnp.where(active, play, idle)
            zero = jnp.zeros_like(payoffs)
            gain, relative = follow(following, jnp.where(active, payoffs, zero), zero)
            rate, effort = follow(following, active.astype(payoffs.dtype), zero)

            def optimal(price):
                h, g = relative - price * effort, gain - price * rate
                advantage = payoffs - price + h[play] - h[idle]
                signs = jnp.all(jnp.where(active, advantage >= -tolerance, advantage <= tolerance))
                # Two cycles in one policy: only where they earn the same.
                return signs & (jnp.max(g) - jnp.min(g) <= tolerance)

            narrow = high - low <= tolerance
            return narrow | (optimal(low) & optimal(high))

        cuts = jnp.sort(index)
        ends = jnp.concatenate([cuts[:1] - 1, cuts]), jnp.concatenate([cuts, cuts[-1:] + 1])
        return jnp.all(jax.vmap(between)(*ends))

    return jax.vmap(one)(problem.payoffs, index)


def _play_by(problem, table, local, plays, threshold):
    score = jnp.take_along_axis(table, local[:, None], axis=1)[:, 0]
    chosen = highest(score, plays)
    return chosen & (score >= threshold) if problem.allow_idle else chosen


@pytree
class AdvantageIndex:
    """A planner: play the arms of largest advantage at one price per play.

    price: float[], or None for the price of the relaxation (`dual_price` where the idle rule is not "reset").
    threshold: float[], only advantages of at least this are played; -inf fills all m plays even at a loss, and a
    problem that forbids idling is always filled. plays: m, static. No guarantee. Source: Lagrangian priorities,
    derived: docs/proofs/lsd.md#indices. Cost: `relaxation` and `priced_arms` once, then k per round.
    """

    price: Number | None = None
    threshold: Number = -TIE
    plays: int = static(1)

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """The advantages, float[k, S]. Raises: ValueError: plays out of 1 .. k. RuntimeError: float64 is off."""
        require_plays(self.plays, problem.num_arms)
        price = self.price
        if price is None and problem.idle_rule == "reset":
            price = relaxation(problem, self.plays).price
        elif price is None:
            price = dual_price(problem, self.plays)[0]
        return priced_arms(problem, price).advantage

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the largest advantages."""
        return _play_by(problem, state, local, self.plays, self.threshold), state


@pytree
class WhittlePolicy:
    """A planner: play the arms of largest Whittle index.

    threshold: float[], only indices of at least this are played (a negative one asks to be paid for the play); -inf
    fills all m plays, and a problem that forbids idling is always filled. plays: m, static. No guarantee; indexability
    is not checked here. Source: Whittle 1988 (remembered). Cost: `whittle_index` once, then k per round.
    """

    threshold: Number = -TIE
    plays: int = static(1)

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """The indices, float[k, S]. Raises: ValueError: plays out of 1 .. k. RuntimeError: float64 is off."""
        require_plays(self.plays, problem.num_arms)
        return whittle_index(problem)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """Play the largest indices."""
        return _play_by(problem, state, local, self.plays, self.threshold), state
