"""Mirror descent in preference games: one mat-vec per step, in closed form on log-probabilities.

All steps have the explicit form `L((1 - eta tau) log_policy + eta tau log_reference + eta g)`: L normalises, eta is the
step size, tau the game's temperature, g win rates. They differ in the opponent that g is measured against. A constant
added to g changes nothing; with the static field `labels`, g is estimated from sampled preferences. The domain is
0 < eta tau <= 1: `init` tests it on the host by `check_step_size`; in traced code, and with `start`, it is the caller's
promise. Outside it the iterates still are policies but no theorem applies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import (
    PreferenceGame,
    available_actions,
    log_normalise,
    mixture_logits,
    unregularised_gap,
)
from rlcore.nash.oracle import Queries
from rlcore.pytree import pytree
from rlcore.types import Array, Float, Number, RandomKey

__all__ = [
    "GPO",
    "MMD",
    "MWU",
    "OMD",
    "AverageState",
    "MagnetState",
    "Memoryless",
    "MovingMagnetMMD",
    "NashMD",
    "PolicyState",
    "check_step_size",
    "explicit_step_size",
    "implicit_step_size",
    "mirror_step",
    "nash_md_schedule",
    "observe_average_gap",
    "omd_step_size",
]


class PolicyState(NamedTuple):
    """The state of a method without memory.

    log_policy: float[n], the current policy. t: int[], steps taken.
    """

    log_policy: Array
    t: Array


class AverageState(NamedTuple):
    """The state of a method whose output is an average.

    log_policy: float[n], the current policy. average: float[n], mean of the probabilities played before it (at t = 0
    the start itself). t: int[], steps taken.
    """

    log_policy: Array
    average: Array
    t: Array


class Memoryless:
    """What the methods without memory share: where they start."""

    def start(self, log_policy: Float[Array, " n"]) -> PolicyState:
        """The state before the first step from `log_policy`, which has support on all available actions."""
        return PolicyState(log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> PolicyState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)


def mirror_step(
    game: PreferenceGame, log_policy: Float[Array, " n"], rates: Float[Array, " n"], step_size: Number
) -> Float[Array, " n"]:
    """One explicit mirror step from `log_policy` against given win rates.

    Args: game: one game (its preference is not read); log_policy: float[n]; rates: float[n], win rates up to a
      constant; step_size: float[], with step_size * temperature in [0, 1].
    Returns: float[n], log-probabilities.
    Source: Zhang et al. (2025), INPO, equation 5. Cost: n exponentials.
    """
    centre = mixture_logits(log_policy, game.reference_logits, step_size * game.temperature)
    return log_normalise(centre + step_size * rates)


def nash_md_schedule(temperature: Number, t: Number) -> Number:
    """Nash-MD's decreasing step size 2 / (temperature (t + 2)), t = 0, 1, ...

    Args: temperature: float[] > 0; t: int[] steps already taken.
    Returns: float[], inverse probabilities. Source: Munos et al. (2023), Theorem 1, as quoted. Cost: O(1).
    """
    return 2 / (temperature * (t + 2))


@pytree
class NashMD(Memoryless, Queries):
    """Nash-MD: mirror descent whose opponent is the geometric mixture of policy and reference.

    step_size: float[] or None; None is the schedule 2 / (temperature (t + 2)), which needs temperature > 0.
    mixture: float[] or None, the opponent's weight c on the reference; None is Nash-MD's own c = step_size *
      temperature. With c = 0 it is OMD; with any c it is the natural policy gradient of Nash-MD-PG(c).
    labels, common_opponents: static, as in `Queries`.

    With a constant step the only fixed point is the best response to the equilibrium at temperature tau / (1 - c), not
    the equilibrium: `equilibrium` of that game tells where it stops.
    Source: Munos et al. (2023), arXiv 2312.00886, equations 3 to 5, as quoted. Cost per step: n^2, 2 n exponentials.
    """

    step_size: Array | float | None = None
    mixture: Array | float | None = None

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> PolicyState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        if self.step_size is not None:
            check_step_size(self.step_size, problem.temperature)
        return super().init(problem, key)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; `key` is used where labels are sampled."""
        dtype = state.log_policy.dtype
        if self.step_size is None:
            # eta tau computed as such: at t = 0 it is exactly 1, and the start is forgotten exactly.
            pull = 2 / (state.t.astype(dtype) + 2)
            step_size = pull / problem.temperature
        else:
            step_size = self.step_size
            pull = step_size * problem.temperature
        centre = mixture_logits(state.log_policy, problem.reference_logits, pull)
        if self.mixture is None:
            opponent = centre
        else:
            opponent = mixture_logits(state.log_policy, problem.reference_logits, self.mixture)
        rates = self.query(problem, jax.nn.softmax(opponent), key)
        return PolicyState(log_normalise(centre + step_size * rates), state.t + 1)


@pytree
class OMD(Memoryless, Queries):
    """Online mirror descent against oneself: the explicit step whose opponent is the current policy.

    The same iteration under other names, each with its conversion to `step_size` (eta) at temperature tau:
      INPO with eta_INPO: eta = 1 / eta_INPO.
      Online IPO 1, gradient descent on tabular logits with rate lr: eta = 4 lr / (n tau).
      Magnetic mirror descent and Nash-MP's inner form with implicit step h: eta = h / (1 + h tau).
      Natural policy gradient in self-play with rate lr: eta = lr.

    step_size: float[], converges linearly for eta <= tau / (tau^2 + a^2), a = max |P - 1/2|.
    labels, common_opponents: static, as in `Queries`.
    Source: Zhang et al. (2025), INPO, equation 5. Cost per step: n^2, 2 n exponentials.
    """

    step_size: Array | float

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> PolicyState:
        """Start at the reference policy; ValueError unless step_size * temperature, where concrete, is in (0, 1]."""
        check_step_size(self.step_size, problem.temperature)
        return super().init(problem, key)

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; `key` is used where labels are sampled."""
        rates = self.query(problem, jnp.exp(state.log_policy), key)
        return PolicyState(mirror_step(problem, state.log_policy, rates, self.step_size), state.t + 1)


@pytree
class MMD(Memoryless, Queries):
    """Magnetic mirror descent in its own, implicit form: OMD with step h / (1 + h tau), any h > 0.

    step_size: float[], the implicit step h: `L((log_policy + h tau log_reference + h P p) / (1 + h tau))`.
    labels, common_opponents: static, as in `Queries`.
    Source: Sokota et al. (2023), arXiv 2206.05825, released code. Cost per step: n^2, 2 n exponentials.
    """

    step_size: Array | float

    def step(self, problem: PreferenceGame, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; `key` is used where labels are sampled."""
        h, tau = self.step_size, problem.temperature
        available = available_actions(problem)
        rates = self.query(problem, jnp.exp(state.log_policy), key)
        pull = tau * jnp.where(available, problem.reference_logits, 0)
        logits = (jnp.where(available, state.log_policy, 0) + h * (pull + rates)) / (1 + h * tau)
        return PolicyState(log_normalise(jnp.where(available, logits, -jnp.inf)), state.t + 1)


@pytree
class MWU(Queries):
    """Multiplicative weights against oneself: no pull to the reference, output the average of probabilities.

    The game's temperature is not used. The last iterate cycles outwards; the average after T steps has unregularised
    gap <= sqrt(2 log n / T) for step_size = sqrt(8 log n / T) from uniform. The same iteration under other names, each
    fitted exactly over all policies:
      SPO (self-play preference optimisation) with weights exp(eta P p): step_size = eta.
      SPPO with eta, or beta of its released code: step_size = eta = 1 / beta. Its loss drops the log of the partition
        function E_p exp(eta (P p - 1/2)), which lies in [0, eta^2 / 8] (docs/proofs/nash.md, T9b), and so stops at a
        damped step (T9c).
      DNO with eta_DNO: step_size = 1 / eta_DNO.
      `GPO` with score P - 1/2.

    step_size: float[]. labels, common_opponents: static, as in `Queries`.
    Source: Freund and Schapire (1999). Cost per step: n^2, 2 n exponentials.
    """

    step_size: Array | float

    def start(self, log_policy: Float[Array, " n"]) -> AverageState:
        """The state before the first step from `log_policy`."""
        return AverageState(log_policy, jnp.exp(log_policy), jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> AverageState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: AverageState, key: RandomKey = None) -> AverageState:
        """One step; `key` is used where labels are sampled."""
        policy = jnp.exp(state.log_policy)
        rates = self.query(problem, policy, key)
        average = state.average + (policy - state.average) / (state.t + 1).astype(policy.dtype)
        return AverageState(log_normalise(state.log_policy + self.step_size * rates), average, state.t + 1)


@pytree
class GPO(MWU):
    """General preference optimisation, fitted exactly: multiplicative weights on preference scores, not win rates.

    `L(log_policy + step_size S p)`. From uniform, with scores in [-s, s] and step_size = sqrt(2 log n / T) / s, no
    reply scores more than s sqrt(2 log n / T) against the average of T steps. Its limit is the equilibrium of S, which
    is not that of P unless one action beats all others.

    step_size: float[], 1 / beta of the source. score: float[n, n], skew-symmetric, in logits; None is logit(P), which
      needs preferences strictly between 0 and 1.
    Source: Zhang et al. (2025), arXiv 2410.02197, section 5. Cost per step: n^2 (n^2 logarithms without `score`).
    """

    score: Array | None = None

    def step(self, problem: PreferenceGame, state: AverageState, key: RandomKey = None) -> AverageState:
        """One step; nothing is sampled."""
        score = jax.scipy.special.logit(problem.preference) if self.score is None else self.score
        return super().step(problem._replace(preference=score), state, key)


class MagnetState(NamedTuple):
    """The state of `MovingMagnetMMD`.

    log_policy: float[n], the current policy. magnet: float[n], what it is pulled to. t: int[], steps taken.
    """

    log_policy: Array
    magnet: Array
    t: Array


@pytree
class MovingMagnetMMD:
    """Magnetic mirror descent whose magnet follows: after each step `magnet <- L((1 - m) magnet + m log_policy)`.

    The magnet starts at the start, not at the game's reference, and the limit is an unregularised equilibrium. m = 0 is
    `MMD` with the start as reference, m = 1 is `MWU` with step h / (1 + h tau).

    step_size: float[], the implicit step h. magnet_rate: float[] m in [0, 1].
    Source: Sokota et al. (2023), arXiv 2206.05825, released code. Cost per step: n^2, 3 n exponentials.
    """

    step_size: Array | float
    magnet_rate: Array | float

    def start(self, log_policy: Float[Array, " n"]) -> MagnetState:
        """The state before the first step from `log_policy`, the first magnet."""
        return MagnetState(log_policy, log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: PreferenceGame, key: RandomKey = None) -> MagnetState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: PreferenceGame, state: MagnetState, key: RandomKey = None) -> MagnetState:
        """One step; nothing is sampled."""
        here = problem._replace(reference_logits=state.magnet)
        inner = MMD(self.step_size)
        log_policy = inner.step(here, inner.start(state.log_policy), key).log_policy
        magnet = log_normalise(mixture_logits(state.magnet, log_policy, self.magnet_rate))
        return MagnetState(log_policy, magnet, state.t + 1)


def observe_average_gap(game: PreferenceGame, state: AverageState) -> Float[Array, ""]:
    """Unregularised gap of the average policy of `MWU` or `FictitiousPlay`, over the available actions.

    Args: game: one game; state: one with `average`.
    Returns: float[]. Source: `unregularised_gap`. Cost: n^2.
    """
    return unregularised_gap(game.preference, jnp.log(state.average), available_actions(game))


def explicit_step_size(implicit: Number, temperature: Number) -> Number:
    """The step of `OMD` that equals the implicit step h of MMD and Nash-MP: h / (1 + h tau).

    Args: implicit: float[] h > 0; temperature: float[] tau.
    Returns: float[] < 1 / tau. Source: derived: divide numerator and denominator by 1 + h tau. Cost: O(1).
    """
    return implicit / (1 + implicit * temperature)


def implicit_step_size(explicit: Number, temperature: Number) -> Number:
    """The inverse of `explicit_step_size`: eta / (1 - eta tau).

    Args: explicit: float[] eta with eta tau < 1; temperature: float[] tau.
    Returns: float[] h. Source: derived: inverse. Cost: O(1).
    """
    return explicit / (1 - explicit * temperature)


def omd_step_size(game: PreferenceGame) -> Float[Array, ""]:
    """The largest step for which OMD's linear last-iterate convergence is proved: tau / (tau^2 + a^2).

    Args: game: temperature > 0 or a preference that is not constant.
    Returns: float[]; the factor per step in KL is 1 / (1 + tau^2 / a^2), with a = max |P - 1/2|.
    Source: derived: docs/proofs/nash.md, T5; matches Sokota et al. (2023) with Lipschitz constant a. Cost: n^2.
    """
    largest = jnp.max(jnp.abs(game.preference - 0.5))
    return game.temperature / (game.temperature**2 + largest**2)


def check_step_size(step_size: Number, temperature: Number) -> Number:
    """Return `step_size` unchanged, or raise on the host unless 0 < step_size * temperature <= 1.

    Args: step_size, temperature: concrete float[...]; tracers pass unchecked.
    Returns: `step_size`.
    Raises: ValueError outside the domain of the explicit step (temperature 0 allows every step > 0).
    Source: derived: the explicit step is a convex combination only there. Cost: none.
    """
    if isinstance(step_size, jax.core.Tracer) or isinstance(temperature, jax.core.Tracer):
        return step_size
    eta, tau = np.asarray(step_size), np.asarray(temperature)
    # 1 / tau * tau may round to just above 1.
    if not np.all((eta > 0) & (eta < np.inf) & (eta * tau <= 1 + 4 * np.finfo(np.float32).eps)):
        raise ValueError(
            f"step_size: found {step_size} at temperature {temperature}, expected 0 < step_size * temperature <= 1"
        )
    return step_size
