"""Tabular Markov decision processes: a list of outcomes, its dense, matrix-free and sticky twins, and policies.

Four problem types answer the same few questions, which is all that a solver needs: `expected_reward()`,
`expected_next(value)` and its adjoint `push_forward(mass)`, and `at_time(t)`. An outcome marked terminal ends the
episode: its continuation value is 0 and it pushes no mass forward. Every type is for ONE problem; stack the leaves
and use `jax.vmap` for a batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int

__all__ = [
    "MDP",
    "DenseMDP",
    "FunctionMDP",
    "Problem",
    "StickyMDP",
    "backup",
    "check_policy",
    "dense",
    "dense_mdp",
    "deterministic_policy",
    "discounted",
    "finite_horizon",
    "from_dense",
    "from_gym",
    "function_mdp",
    "greedy_policy",
    "policy_backup",
    "sticky",
    "tabular",
    "to_dense",
    "uniform_policy",
]

# What a constructor accepts: arrays of JAX or NumPy, nested lists, numbers. It checks them itself, with its own words.
ArrayLike = Any


@runtime_checkable
class Problem(Protocol):
    """What planning asks of a problem with S states and A actions; MDP, DenseMDP, FunctionMDP, StickyMDP answer.

    available: bool[S,A]; discount: float[]; initial: float[S]; horizon: int or None, static.
    """

    available: Array
    discount: Array
    initial: Array
    horizon: int | None

    def expected_reward(self) -> Float[Array, "S A"]:
        """E[reward | s, a]."""

    def expected_next(self, value: Float[Array, "S"] | Float[Array, "S A"]) -> Float[Array, "S A"]:
        """E[value(next) ; the episode goes on | s, a], not discounted; value[S,A] is read at (next, a)."""

    def push_forward(
        self, mass: Float[Array, "S A"], *, keep_action: bool = False
    ) -> Float[Array, "S"] | Float[Array, "S A"]:
        """Mass of the next state, or of (next state, action just taken): the adjoint of `expected_next`.

        A `StickyMDP` has no `keep_action`: its states hold the action executed before already.
        """

    def at_time(self, t: Int[Array, ""] | int) -> "Problem":
        """The stationary problem whose kernel is the one of step t."""


def _scatter(next_state, mass, keep_action: bool):
    """Sum mass[S,A,B] by next state, or by (next state, action)."""
    num_states, num_actions, _ = mass.shape
    if not keep_action:
        return jnp.zeros(num_states, mass.dtype).at[next_state].add(mass)
    actions = jnp.broadcast_to(jnp.arange(num_actions)[None, :, None], mass.shape)
    return jnp.zeros((num_states, num_actions), mass.dtype).at[next_state, actions].add(mass)


@pytree
class MDP:
    """A tabular MDP as a list of B outcomes of each pair; build it with `tabular`, `from_dense` or `from_gym`.

    next_state: int32[S,A,B], or [H,S,A,B] where the kernel changes with time, as the next three.
    prob: float[S,A,B], sums to 1 over B for available pairs (padding: probability 0).
    reward: float[S,A,B].
    terminal: bool[S,A,B], this outcome ends the episode; next_state is then any valid index.
    available: bool[S,A], the actions of each state.
    discount: float[], in [0,1].
    initial: float[S], law of the first state.
    horizon: number of steps, or None; static.
    """

    next_state: Array
    prob: Array
    reward: Array
    terminal: Array
    available: Array
    discount: Array
    initial: Array
    horizon: int | None = static(None)

    def expected_reward(self) -> Float[Array, "*H S A"]:
        """E[reward | s, a]. Cost: one pass over the outcomes."""
        return jnp.sum(self.prob * self.reward, axis=-1)

    def live_prob(self) -> Float[Array, "*H S A B"]:
        """Probability of each outcome that goes on, 0 for one that ends the episode."""
        return jnp.where(self.terminal, jnp.zeros_like(self.prob), self.prob)

    def expected_next(self, value: Float[Array, "S"] | Float[Array, "S A"]) -> Float[Array, "S A"]:
        """E[value(next) ; the episode goes on | s, a]. Cost: S A B gathers."""
        if value.ndim == 1:
            seen = value[self.next_state]
        else:
            seen = value[self.next_state, jnp.arange(value.shape[1])[None, :, None]]
        return jnp.sum(self.live_prob() * seen, axis=-1)

    def push_forward(
        self, mass: Float[Array, "S A"], *, keep_action: bool = False
    ) -> Float[Array, "S"] | Float[Array, "S A"]:
        """Mass of the next state, or of (next state, action just taken). Cost: S A B scatters."""
        return _scatter(self.next_state, mass[:, :, None] * self.live_prob(), keep_action)

    def at_time(self, t: Int[Array, ""] | int) -> "MDP":
        """The stationary MDP of step t; itself where the kernel does not change with time."""
        if self.next_state.ndim == 3:
            return self
        kernel = (self.next_state, self.prob, self.reward, self.terminal)
        next_state, prob, reward, terminal = (jax.lax.dynamic_index_in_dim(x, t, keepdims=False) for x in kernel)
        return dataclasses.replace(self, next_state=next_state, prob=prob, reward=reward, terminal=terminal)


@pytree
class DenseMDP:
    """A tabular MDP as one matrix, for problems where most states follow most pairs; see `dense`, `dense_mdp`.

    transition: float[S,A,S], or [H,S,A,S]; rows sum to 1 - P(the episode ends).
    reward: float[S,A] or [H,S,A], expected.
    available, discount, initial, horizon: as in `MDP`.
    """

    transition: Array
    reward: Array
    available: Array
    discount: Array
    initial: Array
    horizon: int | None = static(None)

    def expected_reward(self) -> Float[Array, "*H S A"]:
        """E[reward | s, a]. Cost: none, it is stored."""
        return self.reward

    def expected_next(self, value: Float[Array, "S"] | Float[Array, "S A"]) -> Float[Array, "S A"]:
        """E[value(next) ; the episode goes on | s, a]. Cost: one matrix-vector product."""
        if value.ndim == 1:
            return jnp.einsum("sat,t->sa", self.transition, value)
        return jnp.einsum("sat,ta->sa", self.transition, value)

    def push_forward(
        self, mass: Float[Array, "S A"], *, keep_action: bool = False
    ) -> Float[Array, "S"] | Float[Array, "S A"]:
        """Mass of the next state, or of (next state, action just taken). Cost: one matrix-vector product."""
        return jnp.einsum("sat,sa->ta" if keep_action else "sat,sa->t", self.transition, mass)

    def at_time(self, t: Int[Array, ""] | int) -> "DenseMDP":
        """The stationary MDP of step t; itself where the kernel does not change with time."""
        if self.transition.ndim == 3:
            return self
        transition, reward = (
            jax.lax.dynamic_index_in_dim(x, t, keepdims=False) for x in (self.transition, self.reward)
        )
        return dataclasses.replace(self, transition=transition, reward=reward)


@pytree
class FunctionMDP:
    """A tabular MDP whose outcomes are computed, never stored; build it with `function_mdp`.

    outcomes: `(state int32[], action int32[]) -> (next_state int[B], prob[B], reward[B], terminal bool[B])`, a
      `jax.tree_util.Partial`: arguments bound to it are leaves of the problem.
    available, discount, initial, horizon: as in `MDP`.
    """

    outcomes: Callable
    available: Array
    discount: Array
    initial: Array
    horizon: int | None = static(None)

    def _over_pairs(self, function):
        states, actions = (jnp.arange(n, dtype=jnp.int32) for n in self.available.shape)
        each = lambda s, a: function(a, *self.outcomes(s, a))  # noqa: E731
        return jax.vmap(jax.vmap(each, (None, 0)), (0, None))(states, actions)

    def expected_reward(self) -> Float[Array, "S A"]:
        """E[reward | s, a]. Cost: S A calls of `outcomes`, fused."""
        return self._over_pairs(lambda a, next_state, prob, reward, terminal: jnp.sum(prob * reward))

    def expected_next(self, value: Float[Array, "S"] | Float[Array, "S A"]) -> Float[Array, "S A"]:
        """E[value(next) ; the episode goes on | s, a]. Cost: S A calls of `outcomes`, fused."""

        def one(a, next_state, prob, reward, terminal):
            seen = value[next_state] if value.ndim == 1 else value[next_state, a]
            return jnp.sum(jnp.where(terminal, jnp.zeros_like(prob), prob) * seen)

        return self._over_pairs(one)

    def push_forward(
        self, mass: Float[Array, "S A"], *, keep_action: bool = False
    ) -> Float[Array, "S"] | Float[Array, "S A"]:
        """Mass of the next state, or of (next state, action). Cost: S A calls of `outcomes`, S A B scatters."""

        def one(a, next_state, prob, reward, terminal):
            return next_state, jnp.where(terminal, jnp.zeros_like(prob), prob)

        next_state, live = self._over_pairs(one)
        return _scatter(next_state, mass[:, :, None] * live, keep_action)

    def at_time(self, t: Int[Array, ""] | int) -> "FunctionMDP":
        """Itself: the outcomes do not change with time."""
        return self


@pytree
class StickyMDP:
    """A problem in which the action executed before is repeated with some probability; see `sticky`.

    State (s, b) of the view, with b the action executed before, has index s A + b; nothing of size S A A is stored.

    base: the problem without stickiness, with S states.
    probability: float[], of repeating; never at t = 0.
    """

    base: Problem
    probability: Array

    @property
    def available(self) -> Bool[Array, "SA A"]:
        """Actions of each (s, b): those of s."""
        return jnp.repeat(self.base.available, self.base.available.shape[1], axis=0)

    @property
    def discount(self) -> Float[Array, ""]:
        """The base's discount."""
        return self.base.discount

    @property
    def initial(self) -> Float[Array, "SA"]:
        """The base's law, with action 0 as the action before (harmless: t = 0 is never sticky)."""
        law = self.base.initial
        return jnp.zeros((law.shape[0], self.base.available.shape[1]), law.dtype).at[:, 0].set(law).reshape(-1)

    @property
    def horizon(self) -> int | None:
        """The base's horizon."""
        return self.base.horizon

    def lift(self, fresh: Float[Array, "S A"]) -> Float[Array, "SA A"]:
        """Mix a quantity of (s, executed action) over what stickiness executes: (1-p) of a, p of b."""
        chosen, repeated = fresh[:, None, :], fresh[:, :, None]
        return ((1 - self.probability) * chosen + self.probability * repeated).reshape(fresh.size, fresh.shape[1])

    def expected_reward(self) -> Float[Array, "SA A"]:
        """E[reward | (s, b), a]. Cost: the base's, and S A A."""
        return self.lift(self.base.expected_reward())

    def expected_next(self, value: Float[Array, "SA"]) -> Float[Array, "SA A"]:
        """E[value(next, executed) ; the episode goes on | (s, b), a]. Cost: the base's, and S A A."""
        return self.lift(self.base.expected_next(value.reshape(self.base.available.shape)))

    def push_forward(self, mass: Float[Array, "SA A"]) -> Float[Array, "SA"]:
        """Mass of the next (s, b): the executed action, not the chosen one, decides it. Cost: the base's, and S A A."""
        mass = mass.reshape(*self.base.available.shape, -1)
        executed = (1 - self.probability) * jnp.sum(mass, axis=1) + self.probability * jnp.sum(mass, axis=2)
        return self.base.push_forward(executed, keep_action=True).reshape(-1)

    def at_time(self, t: Int[Array, ""] | int) -> "StickyMDP":
        """The stationary problem of step t: its base's, without stickiness at t = 0."""
        probability = jnp.where(jnp.asarray(t) == 0, jnp.zeros_like(self.probability), self.probability)
        return StickyMDP(self.base.at_time(t), probability)


def backup(problem: Problem, value: Float[Array, "S"]) -> Float[Array, "S A"]:
    """One-step lookahead Q(s,a) = E[reward] + discount E[value(next) ; the episode goes on].

    Args:
      problem: a stationary problem (`problem.at_time(t)` otherwise). Unavailable pairs get a number too: mask them.
      value: float[S], the value of the next state.

    Returns: Q float[S,A].
    Source: Puterman 1994, equation 4.3.1 (finite horizon) and 6.2.1 (discounted).
    Cost: one sweep over the kernel.
    """
    return problem.expected_reward() + problem.discount * problem.expected_next(value)


def policy_backup(q: Float[Array, "*T S A"], policy: Float[Array, "*T S A"]) -> Float[Array, "*T S"]:
    """Value of acting once by `policy` with continuation `q`: the sum over actions, unavailable ones left out.

    Args:
      q: float[S,A]; may be infinite where the policy never acts.
      policy: float[S,A], action probabilities.

    Returns: float[S].
    Cost: S A.
    """
    return jnp.sum(policy * jnp.where(policy > 0, q, jnp.zeros_like(q)), axis=-1)


# --- constructors: the only place where arrays are checked ---------------------------------------------------------


def _fail(name: str, found: object, expected: str):
    raise ValueError(f"{name}: found {found}, expected {expected}")


def _float_dtype(*arrays) -> np.dtype:
    kinds = [np.asarray(x).dtype for x in arrays]
    floats = [k for k in kinds if np.issubdtype(k, np.floating)]
    # Integer and Python-list input takes JAX's default float; an explicit float32 stays float32.
    return jax.dtypes.canonicalize_dtype(np.result_type(*floats) if floats else np.float64)


def _numbers(name: str, x, *, integer: bool = False) -> np.ndarray:
    x = np.asarray(x)
    wanted = np.integer if integer else np.number
    if not np.issubdtype(x.dtype, wanted) or np.issubdtype(x.dtype, np.complexfloating):
        raise TypeError(f"{name}: found dtype {x.dtype}, expected {'integers' if integer else 'real numbers'}")
    return x


def _where(bad: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _check_finite(name: str, x: np.ndarray) -> None:
    bad = ~np.isfinite(x)
    if bad.any():
        _fail(name, f"{x[_where(bad)]} at {_where(bad)}", "finite numbers")


def _check_rows(name: str, prob: np.ndarray, needed: Any, *, at_most: bool = False) -> None:
    """Rows over the last axis are laws; the tolerance is the rounding of their terms and of their sum."""
    _check_finite(name, prob)
    if (prob < 0).any():
        _fail(name, f"{prob[_where(prob < 0)]} at {_where(prob < 0)}", "probabilities >= 0")
    eps = np.finfo(prob.dtype).eps if np.issubdtype(prob.dtype, np.floating) else 0.0
    excess = prob.sum(axis=-1, dtype=np.float64) - 1
    bad = needed & ((excess if at_most else np.abs(excess)) > 8 * prob.shape[-1] * eps)
    if bad.any():
        where = _where(bad)
        _fail(
            f"{name}{list(where) or ''}",
            f"sum {1 + excess[where]:.17g}",
            "at most 1" if at_most else "1 within rounding",
        )


def _check_discount(discount: ArrayLike) -> None:
    if isinstance(discount, jax.core.Tracer):
        return
    value = _numbers("discount", discount)
    if value.ndim != 0:
        _fail("discount", f"shape {value.shape}", "a scalar")
    if not 0 <= value <= 1:
        _fail("discount", float(value), "a number in [0, 1]")


def _check_horizon(horizon: Any) -> None:
    if horizon is None:
        return
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer):
        raise TypeError(f"horizon: found {type(horizon).__name__}, expected a static int or None")
    if horizon < 1:
        _fail("horizon", horizon, "an integer >= 1 or None")


def _frame(shape: tuple[int, int], available, discount, initial, horizon, dtype) -> dict:
    """The fields that every type shares, checked."""
    num_states, num_actions = shape
    if num_states == 0 or num_actions == 0:
        _fail("shape", f"{num_states} states and {num_actions} actions", "at least one of each")
    available = np.ones(shape, bool) if available is None else np.asarray(available)
    if available.dtype != bool:
        raise TypeError(f"available: found dtype {available.dtype}, expected bool")
    if available.shape != shape:
        _fail("available", f"shape {available.shape}", f"[S,A] = {shape}")
    empty = ~available.any(axis=1)
    if empty.any():
        _fail("available", f"no action in state {_where(empty)[0]}", "at least one available action in every state")
    _check_discount(discount)
    _check_horizon(horizon)
    initial = np.eye(1, num_states)[0] if initial is None else _numbers("initial", initial)
    if initial.shape != (num_states,):
        _fail("initial", f"shape {initial.shape}", f"[S] = ({num_states},)")
    _check_rows("initial", initial, np.True_)
    return {
        "available": jnp.asarray(available),
        "discount": jnp.asarray(discount, dtype),
        "initial": jnp.asarray(initial, dtype),
        "horizon": None if horizon is None else int(horizon),
    }


def _time_axis(name: str, lead: tuple[int, ...], horizon: Any) -> int | None:
    _check_horizon(horizon)
    if not lead:
        return horizon
    if horizon is not None and horizon != lead[0]:
        _fail(name, f"{lead[0]} kernels along the leading axis", f"horizon = {horizon} of them")
    return lead[0]


def tabular(
    next_state: ArrayLike,
    prob: ArrayLike,
    reward: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    available: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    horizon: Any = None,
    initial: ArrayLike | None = None,
) -> MDP:
    """Check the outcome lists on the host and build the MDP.

    Discount 1 without a horizon is allowed: such an episodic problem is well posed where its episodes end, which a
    table cannot show cheaply; the solvers certify it or answer with a status.

    Args:
      next_state: int[S,A,B], or [H,S,A,B] for a kernel that changes with time.
      prob: [S,A,B] or [H,S,A,B], non-negative, sums to 1 over B to 8 B machine epsilons (available pairs only).
      reward: finite, the shape of `prob`, or [S,A] (or [H,S,A]) where it does not depend on the outcome.
      terminal: bool, the shape of `prob`: this outcome ends the episode. None: none does.
      available: bool[S,A], at least one per state. None: all.
      discount: in [0,1].
      horizon: steps, static; None: unlimited, or H where the kernel changes with time.
      initial: float[S], law of the first state. None: state 0.

    Returns: `MDP`; its float type is that of `prob` and `reward` (JAX's default for lists and integers).
    Raises: ValueError or TypeError naming the argument, what was found and what was expected.
    Cost: one pass over the arrays on the host.
    """
    next_state = _numbers("next_state", next_state, integer=True)
    prob, reward = _numbers("prob", prob), _numbers("reward", reward)
    if next_state.ndim not in (3, 4) or 0 in next_state.shape:
        _fail("next_state", f"shape {next_state.shape}", "non-empty [S,A,B], or [H,S,A,B] for a time-varying kernel")
    shape, lead = next_state.shape, next_state.shape[:-3]
    dtype = _float_dtype(prob, reward)
    if prob.shape != shape:
        _fail("prob", f"shape {prob.shape}", f"the shape of next_state, {shape}")
    if reward.shape == shape[:-1] and reward.shape != shape:
        reward = np.broadcast_to(reward[..., None], shape)
    if reward.shape != shape:
        _fail("reward", f"shape {reward.shape}", f"{shape}, or {shape[:-1]} without the outcome axis")
    terminal = np.zeros(shape, bool) if terminal is None else np.asarray(terminal)
    if terminal.dtype != bool:
        raise TypeError(f"terminal: found dtype {terminal.dtype}, expected bool")
    if terminal.shape != shape:
        _fail("terminal", f"shape {terminal.shape}", f"the shape of next_state, {shape}")
    outside = (next_state < 0) | (next_state >= shape[-3])
    if outside.any():
        _fail("next_state", f"{next_state[_where(outside)]} at {_where(outside)}", f"states 0..{shape[-3] - 1}")
    horizon = _time_axis("next_state", lead, horizon)
    frame = _frame(shape[-3:-1], available, discount, initial, horizon, dtype)
    _check_rows("prob", prob, np.asarray(frame["available"]))
    _check_finite("reward", reward)
    return MDP(
        next_state=jnp.asarray(next_state, jnp.int32),
        prob=jnp.asarray(prob, dtype),
        reward=jnp.asarray(reward, dtype),
        terminal=jnp.asarray(terminal),
        **frame,
    )


def dense_mdp(
    transition: ArrayLike,
    reward: ArrayLike,
    *,
    available: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    horizon: Any = None,
    initial: ArrayLike | None = None,
    missing_mass_ends: bool = False,
) -> DenseMDP:
    """Check a transition matrix on the host and build the dense MDP.

    Args:
      transition: float[S,A,S] or [H,S,A,S], rows are laws of the next state.
      reward: float[S,A], or [S,A,S] where it depends on the next state; with a leading H where the kernel has one.
      available, discount, horizon, initial: as in `tabular`.
      missing_mass_ends: rows may sum to less than 1; what is missing ends the episode (its reward is then part
        of a reward[S,A], as `to_dense` gives it).

    Returns: `DenseMDP`.
    Raises: ValueError or TypeError naming the argument, what was found and what was expected.
    Cost: one pass over the arrays on the host.
    """
    transition, reward = _numbers("transition", transition), _numbers("reward", reward)
    shape = transition.shape
    if transition.ndim not in (3, 4) or 0 in shape or shape[-1] != shape[-3]:
        _fail("transition", f"shape {shape}", "non-empty [S,A,S], or [H,S,A,S] for a time-varying kernel")
    if reward.shape not in (shape, shape[:-1]):
        _fail("reward", f"shape {reward.shape}", f"{shape[:-1]} or {shape}")
    dtype = _float_dtype(transition, reward)
    horizon = _time_axis("transition", shape[:-3], horizon)
    frame = _frame(shape[-3:-1], available, discount, initial, horizon, dtype)
    _check_rows("transition", transition, np.asarray(frame["available"]), at_most=missing_mass_ends)
    _check_finite("reward", reward)
    if reward.shape == shape:
        reward = (transition * reward).sum(axis=-1)
    return DenseMDP(jnp.asarray(transition, dtype), jnp.asarray(reward, dtype), **frame)


def from_dense(
    transition: ArrayLike,
    reward: ArrayLike,
    *,
    available: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    horizon: Any = None,
    initial: ArrayLike | None = None,
    missing_mass_ends: bool = False,
) -> MDP:
    """Build the outcome-list MDP of a transition matrix, one outcome per successor of positive probability.

    Args: as in `dense_mdp`; the mass missing under `missing_mass_ends` becomes one terminal outcome of the pair.

    Returns: `MDP` with B = the largest number of outcomes of a pair.
    Raises: as `dense_mdp`.
    Cost: one sort of the arrays on the host.
    """
    checked = dense_mdp(
        transition,
        reward,
        available=available,
        discount=discount,
        horizon=horizon,
        initial=initial,
        missing_mass_ends=missing_mass_ends,
    )
    transition, reward = np.asarray(transition), np.asarray(reward)
    ends = np.zeros_like(transition[..., :1], dtype=bool)
    if missing_mass_ends:
        missing = np.maximum(1 - transition.sum(axis=-1, keepdims=True), 0)
        # What rounding alone leaves missing is no ending: the pair keeps its own outcomes.
        eps = np.finfo(transition.dtype).eps if np.issubdtype(transition.dtype, np.floating) else 0.0
        missing = np.where(missing > 8 * transition.shape[-1] * eps, missing, 0)
        if reward.shape == transition.shape:
            reward = np.concatenate([reward, np.zeros_like(reward[..., :1])], axis=-1)
        transition = np.concatenate([transition, missing.astype(transition.dtype)], axis=-1)
        ends = missing > 0
    num_outcomes = max(1, int((transition > 0).sum(axis=-1).max()))
    order = np.argsort(transition <= 0, axis=-1, kind="stable")[..., :num_outcomes]
    prob = np.take_along_axis(transition, order, axis=-1)
    if reward.shape == transition.shape:
        reward = np.take_along_axis(reward, order, axis=-1)
    else:
        reward = np.broadcast_to(reward[..., None], prob.shape)
    terminal = (order == checked.initial.shape[0]) & (prob > 0) & ends
    next_state = np.where((prob > 0) & ~terminal, order, 0)
    # Checked above; `tabular` would hold rows of S terms to the rounding of their B outcomes.
    dtype = checked.transition.dtype
    return MDP(
        next_state=jnp.asarray(next_state, jnp.int32),
        prob=jnp.asarray(prob, dtype),
        reward=jnp.asarray(reward, dtype),
        terminal=jnp.asarray(terminal),
        available=checked.available,
        discount=checked.discount,
        initial=checked.initial,
        horizon=checked.horizon,
    )


def from_gym(
    table: Mapping[int, Mapping[int, list]],
    *,
    discount: ArrayLike = 1.0,
    horizon: Any = None,
    initial: ArrayLike | None = None,
) -> MDP:
    """Build the MDP of a Gym toy-text table `P`.

    Args:
      table: {state: {action: [(probability, next_state, reward, done), ...]}} over states 0..S-1; actions may be
        missing in some states, which makes them unavailable there.
      discount, horizon, initial: as in `tabular`.

    Returns: `MDP`; an outcome that is `done` is terminal.
    Raises: ValueError for states that are not 0..S-1, an empty list or a row of another form, TypeError for a next
      state that is no integer or a `done` that is no bool; and as `tabular`.
    Cost: one pass over the table on the host.
    """
    num_states = len(table)
    if num_states == 0 or sorted(table) != list(range(num_states)):
        _fail("table", f"states {sorted(table)[:5]}...", f"states 0..{num_states - 1}, at least one")
    actions = sorted({a for row in table.values() for a in row})
    num_actions = 1 + max(actions, default=-1)
    if not actions or actions[0] < 0:
        _fail("table", f"actions {actions[:5]}", "actions 0..A-1, at least one")
    num_outcomes = max((len(outcomes) for row in table.values() for outcomes in row.values()), default=0)
    shape = (num_states, num_actions, max(1, num_outcomes))
    next_state, prob, reward = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
    terminal, available = np.zeros(shape, bool), np.zeros(shape[:2], bool)
    for s, row in table.items():
        for a, outcomes in row.items():
            if len(outcomes) == 0 or any(len(outcome) != 4 for outcome in outcomes):
                _fail(f"table[{s}][{a}]", outcomes, "a non-empty list of (probability, next_state, reward, done)")
            available[s, a] = True
            for b, (p, n, r, done) in enumerate(outcomes):
                if not isinstance(n, int | np.integer) or not isinstance(done, bool | np.bool_):
                    raise TypeError(f"table[{s}][{a}]: found {outcomes[b]}, expected an int next_state and a bool done")
                prob[s, a, b], next_state[s, a, b], reward[s, a, b], terminal[s, a, b] = p, n, r, bool(done)
    return tabular(
        next_state,
        prob,
        reward,
        terminal=terminal,
        available=available,
        discount=discount,
        horizon=horizon,
        initial=initial,
    )


def function_mdp(
    outcomes: Callable,
    num_states: int,
    num_actions: int,
    *,
    available: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    horizon: Any = None,
    initial: ArrayLike | None = None,
) -> FunctionMDP:
    """Build a matrix-free MDP from a function; all its outcomes are checked once, here, unless `outcomes` is traced.

    Args:
      outcomes: `(state int32[], action int32[]) -> (next_state int[B], prob[B], reward[B], terminal bool[B])`, pure
        JAX; a plain function (static) or a `jax.tree_util.Partial` (its arguments may be traced).
      num_states, num_actions: sizes.
      available, discount, horizon, initial: as in `tabular`; the float type is that of `prob`.

    Returns: `FunctionMDP`.
    Raises: ValueError or TypeError as `tabular`.
    Cost: num_states num_actions calls of `outcomes`, in blocks of states.
    """
    if not isinstance(outcomes, jax.tree_util.Partial):
        outcomes = jax.tree_util.Partial(outcomes)
    parts = jax.eval_shape(outcomes, jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32))
    if len(parts) != 4 or any(len(part.shape) != 1 or part.shape != parts[0].shape for part in parts):
        _fail(
            "outcomes",
            [getattr(p, "shape", p) for p in parts],
            "four arrays [B] of one length: next_state, prob, reward, terminal",
        )
    kinds = (jnp.integer, jnp.floating, jnp.floating, jnp.bool_)
    if not all(jnp.issubdtype(part.dtype, kind) for part, kind in zip(parts, kinds, strict=True)):
        raise TypeError(f"outcomes: found dtypes {[str(p.dtype) for p in parts]}, expected (int, float, float, bool)")
    frame = _frame((num_states, num_actions), available, discount, initial, horizon, parts[1].dtype)
    problem = FunctionMDP(outcomes, **frame)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(problem)):
        return problem
    block = jax.jit(jax.vmap(jax.vmap(outcomes, (None, 0)), (0, None)))
    actions, mask = jnp.arange(num_actions, dtype=jnp.int32), np.asarray(frame["available"])
    size = min(num_states, 4096)
    for start in range(0, num_states, size):
        # Clipped at the end rather than shortened: one shape, one compilation.
        states = np.minimum(np.arange(start, start + size), num_states - 1).astype(np.int32)
        next_state, prob, reward, _ = (np.asarray(x) for x in block(jnp.asarray(states), actions))
        outside = (next_state < 0) | (next_state >= num_states)
        if outside.any():
            _fail(
                "next_state", f"{next_state[_where(outside)]} from state {states[_where(outside)[0]]}", "valid states"
            )
        _check_rows("prob", prob, mask[states])
        _check_finite("reward", reward)
    return problem


def to_dense(mdp: MDP) -> tuple[Float[Array, "*H S A S"], Float[Array, "*H S A"]]:
    """The transition matrix and expected reward of an MDP.

    Returns: (P, r): P float[S,A,S], whose rows sum to 1 - P(the episode ends): terminal outcomes carry no mass; and
      r float[S,A]. Both have a leading H where the kernel changes with time.
    Cost: S A S numbers.
    """
    live, shape = mdp.live_prob(), mdp.prob.shape[:-1]
    rows = live.reshape(-1, live.shape[-1])
    index = mdp.next_state.reshape(rows.shape)
    row = jnp.arange(rows.shape[0])[:, None]
    matrix = jnp.zeros((rows.shape[0], shape[-2]), live.dtype).at[row, index].add(rows)
    return matrix.reshape(*shape, shape[-2]), mdp.expected_reward()


def dense(mdp: MDP) -> DenseMDP:
    """The dense twin of an outcome-list MDP.

    Cost: S A S numbers.
    """
    transition, reward = to_dense(mdp)
    return DenseMDP(transition, reward, mdp.available, mdp.discount, mdp.initial, mdp.horizon)


# --- views ----------------------------------------------------------------------------------------------------------


def sticky(problem: MDP | DenseMDP | FunctionMDP, probability: ArrayLike) -> StickyMDP:
    """View of a problem in which the action EXECUTED at the previous step is repeated with some probability.

    Q_t((s,b),a) = fresh(s,a) at t = 0, else (1 - p) fresh(s,a) + p fresh(s,b), where fresh is the base's backup with
    values read at (next state, executed action). The index of (s, b) is s A + b.

    Args:
      problem: every action available in every state (a repeated action must exist where it is repeated).
      probability: p in [0,1].

    Returns: `StickyMDP`; it is stationary except that t = 0 is never sticky, see `at_time`.
    Raises: ValueError for a probability outside [0,1] or unavailable actions, TypeError for a sticky problem.
    Source: Machado et al. 2018, section 5.2; the implicit lift: derived, an identity of conditional expectations.
    Cost: none; a sweep costs the base's and S A A.
    """
    if isinstance(problem, StickyMDP):
        raise TypeError("problem: found a StickyMDP, expected a problem that is not sticky yet")
    if not isinstance(probability, jax.core.Tracer):
        value = _numbers("probability", probability)
        if value.ndim != 0 or not 0 <= value <= 1:
            _fail("probability", value, "a number in [0, 1]")
    if not isinstance(problem.available, jax.core.Tracer) and not np.all(problem.available):
        _fail(
            "problem.available", f"unavailable pair {_where(~np.asarray(problem.available))}", "every action available"
        )
    return StickyMDP(problem, jnp.asarray(probability, problem.discount.dtype))


def finite_horizon(problem: Problem, horizon: Any) -> Problem:
    """The same problem with another horizon (static), or None for none.

    Raises: ValueError for a horizon below 1, or other than H where the kernel changes with time.
    """
    _check_horizon(horizon)
    if isinstance(problem, StickyMDP):
        return StickyMDP(finite_horizon(problem.base, horizon), problem.probability)
    kernel = getattr(problem, "next_state", getattr(problem, "transition", None))
    if kernel is not None and kernel.ndim == 4 and horizon != kernel.shape[0]:
        _fail("horizon", horizon, f"{kernel.shape[0]}, the number of kernels")
    return dataclasses.replace(problem, horizon=horizon)


def discounted(problem: Problem, discount: ArrayLike) -> Problem:
    """The same problem with another discount, which may be traced.

    Raises: ValueError for a discount outside [0,1].
    """
    _check_discount(discount)
    if isinstance(problem, StickyMDP):
        return StickyMDP(discounted(problem.base, discount), problem.probability)
    return dataclasses.replace(problem, discount=jnp.asarray(discount, problem.discount.dtype))


# --- policies -------------------------------------------------------------------------------------------------------


def uniform_policy(problem: Problem) -> Float[Array, "S A"]:
    """The policy that draws uniformly among the available actions.

    Returns: float[S,A], rows sum to 1.
    """
    mask = problem.available.astype(problem.discount.dtype)
    return mask / jnp.sum(mask, axis=-1, keepdims=True)


def check_policy(problem: Problem, policy: ArrayLike, *, by_time: bool = False) -> Array:
    """A policy for `problem` as an array; what is traced is checked for shape and type only.

    Args:
      policy: actions int[S], or probabilities [S,A] over available actions whose rows sum to 1 to 8 A machine epsilons.
      by_time: whether a leading axis of `problem.horizon` steps is accepted too.

    Returns: int32[S] or [S,A] of the problem's float type, with the leading axis where given.
    Raises: ValueError or TypeError naming the argument, what was found and what was expected.
    Cost: one pass over the policy on the host.
    """
    traced = isinstance(policy, jax.core.Tracer)
    policy = policy if traced else _numbers("policy", policy)
    num_states, num_actions = problem.available.shape
    integer = jnp.issubdtype(policy.dtype, jnp.integer)
    own = (num_states,) if integer else (num_states, num_actions)
    allowed = (own, (problem.horizon, *own)) if by_time and problem.horizon is not None else (own,)
    if policy.shape not in allowed:
        kind = "actions" if integer else "probabilities"
        _fail("policy", f"{kind} of shape {policy.shape}", " or ".join(map(str, allowed)))
    if traced:
        return policy.astype(jnp.int32 if integer else problem.discount.dtype)
    if integer:
        outside = (policy < 0) | (policy >= num_actions)
        if outside.any():
            _fail("policy", f"action {policy[_where(outside)]} at {_where(outside)}", f"actions 0..{num_actions - 1}")
        used = np.arange(num_actions) == policy[..., None]
    else:
        _check_rows("policy", policy, np.True_)
        used = policy > 0
    if not isinstance(problem.available, jax.core.Tracer):
        refused = used & ~np.asarray(problem.available)
        if refused.any():
            _fail("policy", f"an action that is not available at {_where(refused)}", "available actions only")
    return jnp.asarray(policy, jnp.int32 if integer else problem.discount.dtype)


def greedy_policy(q: Float[Array, "*T S A"], available: Bool[Array, "S A"] | None = None) -> Int[Array, "*T S"]:
    """The available action of largest value, the lowest index among exact ties.

    Args:
      q: float[S,A], or with leading axes.
      available: bool[S,A], None for all.

    Returns: int32[S].
    """
    if available is not None:
        q = jnp.where(jnp.broadcast_to(available, q.shape), q, -jnp.inf)
    return jnp.argmax(q, axis=-1).astype(jnp.int32)


def deterministic_policy(actions: Int[Array, "*T S"], num_actions: int, dtype=None) -> Float[Array, "*T S A"]:
    """The stochastic form of a deterministic policy: one-hot rows.

    Args:
      actions: int[S].
      num_actions: A.
      dtype: float type, JAX's default if None.

    Returns: float[S,A].
    """
    return jax.nn.one_hot(actions, num_actions, dtype=dtype if dtype is not None else jnp.result_type(float))
