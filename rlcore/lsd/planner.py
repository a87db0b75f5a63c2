"""Which planner for which payoffs, its best draw, and a certificate of what it earns."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.coupled import coupled
from rlcore.lsd.exact import optimal_average, optimal_restless
from rlcore.lsd.guarantee import minorant
from rlcore.lsd.interleaved import interleaved
from rlcore.lsd.joint import TooLarge
from rlcore.lsd.markov import MarkovSchedule, markov_schedule
from rlcore.lsd.mirrored import simulate_restless
from rlcore.lsd.occupation import TOLERANCE, occupation_programme
from rlcore.lsd.problem import SwitchingBandit, payoff_class
from rlcore.lsd.random_phase import RandomPhase, require_fillers
from rlcore.lsd.relaxation import relaxation
from rlcore.lsd.restless import RestlessBandit
from rlcore.lsd.simulate import Planner, simulate
from rlcore.lsd.stretched import stretched
from rlcore.pytree import pytree
from rlcore.types import Array, Bool, Float, Int, Key, Number, PyTree

__all__ = ["BestDraw", "Certificate", "Fixed", "best_of", "candidates", "certify", "plan", "replicate"]

# Replicas that run side by side: their states fit the cache.
BLOCK = 1024
# Joint states x actions up to which a certificate holds the exact optimum: below a second.
SMALL = 200_000


def candidates(problem: SwitchingBandit, plays: int = 1, *, longest: int | None = None) -> dict[str, Planner]:
    """The planners that guarantee something for the class of the payoffs, by name; each has `guarantee(problem)`.

    Idle rule "reset": "random_phase" always; "interleaved" for one play per round and payoffs by delay; "stretched" and
    "coupled" for one play per round, where payoffs are not monotone. "decrement": "markov" (from the start "just" its
    guarantee is not proven). Where payoffs are not monotone, random phases and Markov chains plan with the least that
    they may be (`minorant`).

    Args: plays: m, static; longest: see `stretched`.
    Returns: dict. Raises: ValueError: none fits, for instance a must-play problem without an arm to fill empty rounds.
    Cost: at most three relaxations, or one `occupation_programme`.
    """
    monotone = payoff_class(problem) == "monotone"
    known = problem if monotone else minorant(problem, "monotone")

    def markov():
        scores = None if monotone else known.payoffs
        planner = markov_schedule(occupation_programme(known, plays).occupancy, plays, safe_fill=True, scores=scores)
        planner.require_fillers(problem)
        return planner

    def random():
        planner = RandomPhase(
            relaxation(known, plays), plays, safe_fill=True, scores=None if monotone else known.payoffs
        )
        if not problem.allow_idle:
            require_fillers(problem, planner.plan, plays)
        return planner

    reset = problem.idle_rule == "reset"
    builders = {"random_phase": random} if reset else {"markov": markov}
    if plays == 1 and problem.satiation == 1 and reset:
        builders["interleaved"] = lambda: interleaved(problem)
    if plays == 1 and not monotone and reset:
        builders["stretched"] = lambda: stretched(problem, longest)
        builders["coupled"] = lambda: coupled(problem)
    found, refused = {}, []
    for name, build in builders.items():
        try:
            found[name] = build()
        except ValueError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return found


@jax.jit
def _guarantee(planner, problem):
    return planner.guarantee(problem)


def plan(problem: SwitchingBandit, plays: int = 1, *, longest: int | None = None) -> Planner:
    """The planner of largest guarantee among `candidates`: at least alpha(k, m) V if payoffs are monotone, .816 V of
    concave payoffs by delay, about V / 4 where they never fall with rest, and V / 20 of any (the last three for m = 1,
    idle rule "reset").

    Args, raises: as `candidates`. Returns: a planner. Source: derived:
    docs/proofs/lsd.md#t12 and #t15. Cost: as `candidates`, and their guarantees. Payoffs are read on the host.
    """
    found = candidates(problem, plays, longest=longest)
    return max(found.values(), key=lambda planner: float(_guarantee(planner, problem)))


@pytree
class Fixed:
    """Planner: another one whose key is fixed, so that its schedule is deterministic."""

    planner: PyTree
    key: Array

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> PyTree:
        """The planner's state by the fixed key."""
        return self.planner.init(problem, self.key)

    def act(
        self, problem: SwitchingBandit, state: PyTree, local: Int[Array, " k"], t: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[Bool[Array, " k"], PyTree]:
        """The planner's round, by the fixed key."""
        return self.planner.act(problem, state, local, t, jax.random.fold_in(self.key, t))


@functools.partial(jax.jit, static_argnames=("horizon", "fixed"))
def _replicas(problem, planner, keys, horizon: int, fixed: bool):
    def one(key):
        if isinstance(problem, RestlessBandit):
            return simulate_restless(problem, planner, horizon, key, observe=None).total / horizon
        runs = Fixed(planner, key) if fixed else planner
        return simulate(problem, runs, horizon, key, observe=None).total / horizon

    return jax.lax.map(one, keys, batch_size=min(BLOCK, keys.shape[0]))


def replicate(
    problem: SwitchingBandit | RestlessBandit,
    planner: Planner,
    horizon: int,
    replicas: int,
    key: Key[Array, ""],
    *,
    fixed: bool = False,
) -> Float[Array, " n"]:
    """float[n], mean payoff per round of independent runs of a planner, in blocks that fit the cache.

    Args: problem: restless arms are moved by `simulate_restless`, mirrored, from their highest states; horizon: T, and
      replicas: n, static; fixed: run `Fixed(planner, key)` for the keys split off `key`.
    Raises: ValueError: replicas below 1, a planner of restless arms that is no `MarkovSchedule` or is fixed, and what
      the planner's `init` raises. Cost: n T rounds.
    """
    if isinstance(problem, RestlessBandit) and (fixed or not isinstance(planner, MarkovSchedule)):
        found = f"{type(planner).__name__}{' with fixed=True' if fixed else ''}"
        raise ValueError(f"planner: found {found}, expected a MarkovSchedule, not fixed, for restless arms")
    if replicas < 1:
        raise ValueError(f"replicas: found {replicas}, expected an integer of at least 1")
    # Once outside jit, where numbers are known and bad input is seen.
    planner.init(problem, key)
    return _replicas(problem, planner, jax.random.split(key, replicas), horizon, fixed)


class BestDraw(NamedTuple):
    """planner: Fixed, of the best draw. value: float[], payoff per round over the horizon. values: float[n], of all."""

    planner: Fixed
    value: Array
    values: Array


def best_of(problem: SwitchingBandit, planner: Planner, draws: int, horizon: int, key: Key[Array, ""]) -> BestDraw:
    """Draw a planner's cycles and phases `draws` times and keep the best: deterministic, and no worse than the mean.

    Args: planner: one that is random through its keys alone; draws: n, and horizon: T, static.
    Returns: BestDraw. Raises: ValueError: as `replicate`. Source: definition. Cost: n T rounds.
    """
    values = replicate(problem, planner, horizon, draws, key, fixed=True)
    best = jnp.argmax(values)
    return BestDraw(Fixed(planner, jax.random.split(key, draws)[best]), values[best], values)


class Certificate(NamedTuple):
    """What is known of a planner on a problem, float[] each, reward per round.

    upper: no schedule earns more in the long run (in T rounds from rest at most (T + M) / T times as much under the
    idle rule "reset", and with monotone payoffs (T + M + L - 1) / T times under "decrement").
    guaranteed: the planner's expectation is at least this, by proof, in the long run; NaN where it has no such proof.
    mean, error: of simulated replicas, and its standard error. lower_optimum, upper_optimum: bounds of the exact
    optimum; NaN where it was not computed.
    """

    upper: Array
    guaranteed: Array
    mean: Array
    error: Array
    lower_optimum: Array
    upper_optimum: Array


def certify(
    problem: SwitchingBandit | RestlessBandit,
    planner: Planner,
    horizon: int,
    replicas: int,
    key: Key[Array, ""],
    *,
    upper: Number | None = None,
    optimum: tuple[Number, Number] | None = None,
) -> Certificate:
    """Put together the bounds and the simulated value of a planner.

    Args: problem: restless arms take a `MarkovSchedule`, and are moved as in `replicate`; planner: any `Planner`; one
      with a field `plays` plays so many arms per round, else one. horizon: T, and replicas: n >= 2, static; upper: an
      upper bound, by default that of `relaxation`, or of `occupation_programme` for the idle rule "decrement" and for
      restless arms; optimum: (lower, upper) of the exact optimum; by default that of a small problem in float64, by
      `optimal_average` (200 000 joint states x actions) or `optimal_restless` (200 000 pairs of states x actions).
    Returns: Certificate. Raises: ValueError: replicas below 2; plays out of 1 .. k; as `replicate`.
    Source: definition; docs/proofs/lsd.md#t2. Cost: one relaxation or programme, the guarantee, n T rounds, the exact
      optimum of a small problem.
    """
    if replicas < 2:
        raise ValueError(f"replicas: found {replicas}, expected at least 2 (for a standard error)")
    plays = getattr(planner, "plays", 1)
    if upper is None:
        upper = _upper(problem, plays)
    values = replicate(problem, planner, horizon, replicas, key)
    low, high = _exact(problem, plays) if optimum is None else optimum
    numbers = (
        upper,
        _guarantee(planner, problem) if hasattr(planner, "guarantee") else jnp.nan,
        jnp.mean(values),
        jnp.std(values, ddof=1) / replicas**0.5,
        low,
        high,
    )
    return Certificate(*(jnp.asarray(x, values.dtype) for x in numbers))


def _upper(problem, plays: int) -> Number:
    """Nothing earns more per round in the long run; solved to its last digits or widened by what they may be."""
    if isinstance(problem, SwitchingBandit) and problem.idle_rule == "reset":
        relaxed = relaxation(problem, plays)
        return relaxed.value + relaxed.gap
    # Prices that are feasible to TOLERANCE bound all rates, which sum to k, by so much more.
    return occupation_programme(problem, plays).value + problem.num_arms * TOLERANCE


def _exact(problem, plays: int) -> tuple[Number, Number]:
    """Bounds of the exact optimum, not numbers where the problem is not small or floats are not float64."""
    if problem.payoffs.dtype != jnp.float64:
        return jnp.nan, jnp.nan
    solve = optimal_restless if isinstance(problem, RestlessBandit) else optimal_average
    try:
        found = solve(problem, plays, limit=SMALL)
    except TooLarge:
        return jnp.nan, jnp.nan
    return found.lower, found.upper
