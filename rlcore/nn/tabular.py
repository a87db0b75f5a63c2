"""Tabular problems for deep agents: the simulator of one, what an agent observes, and its exact greedy return."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from rlcore import episodic as ep
from rlcore.environment import Environment, Step
from rlcore.episodic import EpisodeState, Episodic
from rlcore.mdp import MDP, StickyMDP, backup
from rlcore.nn.precision import at_precision
from rlcore.pytree import pytree, static
from rlcore.types import Array, Float, Number, PyTree

__all__ = [
    "category_sizes",
    "greedy_return",
    "observations",
    "reward_scale",
    "sampled_return",
    "tabular_environment",
]

MODES = ("markov", "official")


@pytree
class _World:
    episodic: Episodic
    scale: Array | float
    shows_previous: bool = static()


def _base(episodic: Episodic) -> MDP:
    problem = episodic.problem
    return problem.base if isinstance(problem, StickyMDP) else problem


def _shows_previous(episodic: Episodic, observation: str) -> bool:
    if observation not in MODES:
        raise ValueError(f"observation: found {observation!r}, expected 'markov' or 'official'")
    return observation == "markov" and isinstance(episodic.problem, StickyMDP)


def category_sizes(episodic: Episodic, observation: str = "markov") -> tuple[int, ...]:
    """How many values each category of the observation has: the `sizes` of a network.

    Args: episodic: one problem or a stack; observation: as in `tabular_environment`.
    Returns: (S, A), or (S,) where the action before is not observed. Raises: ValueError for an unknown mode.
    Cost: none.
    """
    sizes = _base(episodic).available.shape[-2:]
    return tuple(sizes) if _shows_previous(episodic, observation) else (sizes[0],)


def _observe(episodic: Episodic, shows_previous: bool, state: EpisodeState) -> PyTree:
    share = state.t.astype(jnp.float32) / episodic.length.astype(jnp.float32)
    return ((state.state, state.previous) if shows_previous else (state.state,)), share[None]


def tabular_environment(episodic: Episodic, *, observation: str = "markov", scale: Number = 1.0) -> Environment:
    """The simulator of a tabular problem in single precision; the end of the horizon is terminal.

    Args:
      episodic: one problem; call this inside the `vmap` over a padded stack.
      observation: "markov": the state, the action executed before (of a sticky problem) and the share of the time that
        has passed; "official": without the action before, as the released code has it, so that a sticky problem is
        only partially observed.
      scale: float[], times every reward; see `reward_scale`.

    Returns: `Environment` whose observation is ((state int32[], action before int32[]), float32[1]) and whose
      unavailable actions are masked.
    Raises: ValueError for an unknown mode.
    Source: specification of SQIRL, 3.10. Cost: of a step: `rlcore.episodic.step` and a reset, O(S).
    """
    shows_previous = _shows_previous(episodic, observation)
    world = at_precision(jnp.float32, _World(episodic, scale, shows_previous))
    available = _base(episodic).available
    return Environment(
        Partial(_reset, world), Partial(_step, world), available.shape[-1], Partial(_available, available)
    )


def _reset(world, key):
    state = ep.reset(world.episodic, key)
    return state, _observe(world.episodic, world.shows_previous, state)


def _step(world, state, action, key):
    state, reward, over = ep.step(world.episodic, state, action, key)
    seen = _observe(world.episodic, world.shows_previous, state)
    return Step(state, seen, reward * world.scale, over, jnp.zeros((), bool))


def _available(available, observation):
    return available[observation[0][0]]


def reward_scale(optimal: Number, random: Number) -> Float[Array, ""]:
    """1 / max(|J*|, |J_rand|), or 1 where both are 0.

    Args: optimal, random: float[], returns of the best and the uniform policy.
    Returns: float[]. Source: specification of SQIRL, 3.10. Cost: O(1).
    """
    largest = jnp.maximum(jnp.abs(optimal), jnp.abs(random))
    one = jnp.ones_like(largest)
    return 1 / jnp.where(largest > 0, largest, one)


def observations(episodic: Episodic, t: Array, observation: str = "markov") -> PyTree:
    """What an agent sees at step t in every row of a policy: leaves [S,...], S pairs if sticky.

    Args: episodic: one problem; t: int32[]; observation: as in `tabular_environment`.
    Raises: ValueError for an unknown mode. Cost: S.
    """
    shows_previous = _shows_previous(episodic, observation)
    num_actions = _base(episodic).available.shape[1]
    rows = jnp.arange(episodic.problem.initial.shape[0], dtype=jnp.int32)
    sticky = isinstance(episodic.problem, StickyMDP)
    states, previous = (rows // num_actions, rows % num_actions) if sticky else (rows, jnp.zeros_like(rows))
    return jax.vmap(lambda s, b: _observe(episodic, shows_previous, EpisodeState(s, b, t)))(states, previous)


def _return_of(episodic, rule, weigh, observation):
    """The return of a rule of what is observed; `weigh(q [A], what the rule says)` is a row's value."""
    problem, shows_previous = episodic.problem, _shows_previous(episodic, observation)
    num_states, num_actions = _base(episodic).available.shape
    states = jnp.arange(num_states, dtype=jnp.int32)
    previous = jnp.arange(num_actions if shows_previous else 1, dtype=jnp.int32)
    per_state = problem.initial.shape[0] // num_states

    def table(t):
        # Where the action before is not seen the rule is asked once for all of them.
        one = lambda s, b: rule(_observe(episodic, shows_previous, EpisodeState(s, b, t)))  # noqa: E731
        said = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(states, previous)
        return jnp.broadcast_to(said, (num_states, per_state, *said.shape[2:])).reshape(-1, *said.shape[2:])

    def back(value, t):
        new = jax.vmap(weigh)(backup(problem.at_time(t), value), table(t))
        return jnp.where(t < episodic.length, new, jnp.zeros_like(new)), None

    last = jnp.zeros(problem.initial.shape, problem.discount.dtype)
    value, _ = jax.lax.scan(back, last, jnp.arange(problem.horizon, dtype=jnp.int32), reverse=True)
    return problem.initial @ value


def greedy_return(
    episodic: Episodic, act: Callable[[PyTree], Array], *, observation: str = "markov"
) -> Float[Array, ""]:
    """The expected return of a deterministic policy of the observation, exact up to rounding.

    Args:
      episodic: one problem. act: `observation -> int[]`, an available action.
      observation: what the policy sees, as in `tabular_environment`.

    Returns: float[], in the problem's own unit and precision.
    Raises: ValueError for an unknown mode.
    Source: Puterman 1994, section 4.2; the table over (t, s, action before) is made one step at a time, never whole.
    Cost: T times (S or S A calls of `act`, one sweep).
    """
    return _return_of(episodic, act, lambda q, action: q[action], observation)


def sampled_return(
    episodic: Episodic, prob: Callable[[PyTree], Array], *, observation: str = "markov"
) -> Float[Array, ""]:
    """The expected return of a policy that draws its action, exact up to rounding.

    Args: as `greedy_return`, but prob: `observation -> float[A]`, 0 for actions that are not available; it need not sum
      to 1 exactly and is divided by its sum.
    Returns, raises, source, cost: as `greedy_return`.
    """

    def weigh(q, prob):
        prob = prob.astype(q.dtype)
        return jnp.sum(jnp.where(prob > 0, prob * q, 0.0)) / jnp.sum(prob)

    return _return_of(episodic, prob, weigh, observation)
