"""Tabulate a small gymnax environment: breadth-first search over its states, one vectorised step per layer.

gymnax breaks under 64-bit floats and strict promotion, so it runs with both off: inside `gymnax_modes`, here and in
`gymnax_games`.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.checks import check_integer
from rlcore.mdp import MDP, tabular
from rlcore.types import Array, Key, PyTree

__all__ = ["Episodes", "Tabulation", "episodes", "gymnax_modes", "tabulate", "tabulate_states"]

CHECK_KEYS = 8  # keys that must agree before an environment passes as deterministic
CHUNK = 1024  # pairs per device call
CLOCK_STEPS = 200_000  # steps to spend on checking that a clock is only a clock
Leaves = list[np.ndarray | np.generic]  # of one environment state, or of many along leading axes
Noise = int | tuple[Key[Array, "K"], Sequence[float] | np.ndarray] | None


class Tabulation(NamedTuple):
    """The table of an environment.

    mdp: the MDP; rewards keep the rounding of gymnax's float32.
    states: the environment states of its rows, a pytree of NumPy arrays with leading axis S; ignored fields are 0.
    exact: False where probabilities are frequencies over sampled keys.
    """

    mdp: MDP
    states: PyTree
    exact: bool


@contextlib.contextmanager
def gymnax_modes():
    """Run or trace gymnax's functions: 32 bits, standard promotion, its warnings about types silent."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        # gymnax holds constants that are 64 bits wide if it was first imported under x64; here they are cut to 32.
        warnings.filterwarnings("ignore", message="Explicitly requested dtype")
        yield


class _Steps(NamedTuple):
    """What pairs (state, action), in state-major order, do under K keys: arrays with leading axes [pairs, K].

    raw: leaves of the next state. label: a number for each distinct next state, ignored fields apart.
    """

    raw: Leaves
    label: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def agree(self, other: "_Steps") -> np.ndarray:
        """bool[pairs, K]: same reward, same ending, same next state where the episode goes on."""
        same = (self.reward == other.reward) & (self.terminated == other.terminated)
        return same & (self.terminated | (self.label == other.label))

    def under(self, key: int) -> "_Steps":
        """The same pairs all under one of the keys."""
        return _Steps([x[:, [key]] for x in self.raw], *(x[:, [key]] for x in self[1:]))


def _weights(name: str, noise: Noise, seed: int) -> tuple[jax.Array, np.ndarray]:
    """Keys and their probabilities."""
    if noise is None or isinstance(noise, int):
        count = CHECK_KEYS if noise is None else check_integer(name, noise, 1)
        return jax.random.split(jax.random.key(seed), count), np.full(count, 1.0 / count)
    keys, probs = noise
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 1 or probs.shape != keys.shape or len(probs) == 0:
        raise ValueError(f"{name}: found keys {keys.shape} and probabilities {probs.shape}, expected [K] of each")
    if not np.all(probs > 0) or abs(probs.sum() - 1) > 8 * len(probs) * np.finfo(np.float64).eps:
        raise ValueError(f"{name}: found probabilities {probs}, expected positive numbers that sum to 1")
    return keys, probs


class _World:
    """A gymnax environment behind two host functions, reset and step; it lives for one tabulation."""

    def __init__(self, env: Any, params: Any, clock: Sequence[str], ignore: Sequence[str]):
        import gymnax

        if isinstance(env, str):
            env = gymnax.make(env)[0]
        params = env.default_params if params is None else params
        space = env.action_space(params)
        if not hasattr(space, "n"):
            raise TypeError(f"env: found {env.name} with actions {type(space).__name__}, expected a finite number")
        self.name, self.num_actions = env.name, int(space.n)
        key = jax.random.key(0)
        first = jax.eval_shape(lambda: env.reset_env(key, params)[1])
        unknown = [field for field in (*clock, *ignore) if not hasattr(first, field)]
        if unknown:
            raise ValueError(f"clock, ignore: found {unknown}, expected fields of the state: {sorted(vars(first))}")
        # Step decides the types: reset writes Python numbers into some fields.
        after = jax.eval_shape(lambda state: env.step_env(key, state, 0, params)[1], first)
        leaves = jax.tree_util.tree_flatten_with_path(after)[0]
        self.dtypes, self.treedef = [leaf.dtype for _, leaf in leaves], jax.tree.structure(after)
        if any(jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) for dtype in self.dtypes):
            raise TypeError(f"env: found a random key inside the state of {self.name}, expected numbers only")
        names = [path[0].name for path, _ in leaves]
        self.is_clock = [name in clock for name in names]
        self.is_ignored = [name in (*clock, *ignore) for name in names]
        self.limit = int(params.max_steps_in_episode)
        self.numbers: dict[bytes, int] = {}

        def step(state, action, key):
            _, state, reward, terminated, _ = env.step_env(key, state, action, params)
            return state, reward, terminated, env.is_truncated(state, params)

        self._step = jax.jit(jax.vmap(jax.vmap(step, (None, None, 0)), (0, 0, None)))
        self._reset = jax.jit(jax.vmap(lambda key: env.reset_env(key, params)[1]))

    def label(self, raw: Leaves, lead: int) -> np.ndarray:
        """A number for each state of the `lead` leading axes, equal where states are equal, ignored fields apart."""
        rows = [np.zeros((*raw[0].shape[:lead], 0), np.uint8)]
        for leaf, ignored in zip(raw, self.is_ignored, strict=True):
            if not ignored:
                # 64 bits hold every value; + 0.0 makes the two zeros one.
                leaf = leaf.astype(np.float64) + 0.0 if leaf.dtype.kind == "f" else leaf.astype(np.int64)
                rows.append(np.ascontiguousarray(leaf.reshape(*leaf.shape[:lead], -1)).view(np.uint8))
        rows = np.concatenate(rows, axis=-1)
        flat = rows.reshape(math.prod(rows.shape[:lead]), rows.shape[-1])
        numbers = [self.numbers.setdefault(row.tobytes(), len(self.numbers)) for row in flat]
        return np.array(numbers, np.int64).reshape(rows.shape[:lead])

    def clear(self, raw: Leaves, *, clock_only: bool = False) -> Leaves:
        """The same states with the ignored fields, or the clock alone, set to 0."""
        flags = self.is_clock if clock_only else self.is_ignored
        return [np.zeros_like(leaf) if flag else leaf for leaf, flag in zip(raw, flags, strict=True)]

    def reset(self, keys: jax.Array) -> Leaves:
        """Leaves of the initial states, [K, ...]."""
        leaves = jax.tree.leaves(self._reset(keys))
        return [np.asarray(leaf).astype(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]

    def step(self, raw: Leaves, keys: jax.Array) -> _Steps:
        """Every action in every one of the given states under every key."""
        pairs = [np.repeat(leaf, self.num_actions, axis=0) for leaf in raw]
        actions = np.tile(np.arange(self.num_actions, dtype=np.int32), len(raw[0]))
        parts = []
        for start in range(0, len(actions), CHUNK):
            # Clipped, not shortened: every chunk has one shape, so the step compiles once.
            rows = np.minimum(np.arange(start, start + CHUNK), len(actions) - 1)
            state = jax.tree.unflatten(self.treedef, [leaf[rows] for leaf in pairs])
            out = jax.tree.leaves(self._step(state, actions[rows], keys))
            parts.append([np.asarray(leaf)[: len(actions) - start] for leaf in out])
        *after, reward, terminated, truncated = (np.concatenate(column) for column in zip(*parts, strict=True))
        after = [leaf.astype(dtype) for leaf, dtype in zip(after, self.dtypes, strict=True)]
        flags = terminated.astype(bool), truncated.astype(bool)
        return _Steps(after, self.label(after, 2), reward.astype(np.float64), *flags)

    def require(self, name: str, agree: np.ndarray, expected: str) -> None:
        """Raise unless `agree`, bool[pairs, K], holds everywhere."""
        if not agree.all():
            row, action = divmod(int(np.argmin(agree.all(axis=1))), self.num_actions)
            raise ValueError(
                f"{name}: found transitions that differ, action {action} in row {row}, expected {expected}"
            )


def tabulate_states(
    env: Any,
    params: Any = None,
    *,
    clock: Sequence[str] = ("time",),
    ignore: Sequence[str] = (),
    reset_noise: Noise = None,
    step_noise: Noise = None,
    horizon: int | str | None = "limit",
    discount: float = 1.0,
    max_states: int = 10_000,
    seed: int = 0,
) -> Tabulation:
    """Tabulate a gymnax environment with finitely many states, and keep the states.

    The environment's own step is used, without autoreset. An outcome is terminal where the environment says
    `terminated`; its time limit is no termination, it becomes the horizon of the MDP.

    Args:
      env: an id of gymnax, or an environment.
      params: its parameters; the default ones if None.
      clock: fields of the state that only count steps: not part of the MDP's state. Checked by stepping every state
        at other values, all up to the limit where that is cheap. Pass () where the dynamics depend on time.
      ignore: further fields without influence, such as statistics of the episode. Checked on the values met.
      reset_noise, step_noise: None: deterministic, an error if eight random keys do not agree. (keys[K], probs[K]):
        key k stands for an event of probability probs[k]; exact if that is true. An integer N: frequencies over N
        random keys, an ESTIMATE.
      horizon: steps per episode, None for no limit, "limit" for `params.max_steps_in_episode`.
      discount: in [0, 1].
      max_states: refuse to go beyond this many states.
      seed: of the keys drawn here.

    Returns: `Tabulation(mdp, states, exact)`, rows in breadth-first order from the initial states. With `clock=()`
      states at the time limit are rows that loop onto themselves without reward.
    Raises:
      TypeError: actions that are not finitely many, a random key inside the state.
      ValueError: transitions that differ between keys without noise given, or with a clock or ignored field; more
        than `max_states` states; unknown fields; noise that is no law; a kept clock without horizon.
    Source: derived: exhaustive search, the construction of BRIDGE (Laidlaw, Russell and Dragan 2023).
    Cost: S A K steps for K keys, and the checks; memory O(S A K).
    """
    check_integer("max_states", max_states, 1)
    clock, ignore = tuple(clock), tuple(ignore)
    with gymnax_modes():
        world = _World(env, params, clock, ignore)
        reset_keys, reset_probs = _weights("reset_noise", reset_noise, seed)
        step_keys, step_probs = _weights("step_noise", step_noise, seed + 1)
        row_of: dict[int, int] = {}
        states: list[Leaves] = []  # leaves of each row, ignored fields 0
        latest: list[Leaves] = []  # the same row as met last, with its ignored fields
        at_limit: list[bool] = []

        def visit(label: int, raw: Leaves, truncated: bool) -> int:
            if label not in row_of:
                if len(states) >= max_states:
                    raise ValueError(
                        f"max_states: found more than {max_states} states of {world.name}, expected at most that many; "
                        "fields that only gather statistics belong into `ignore`"
                    )
                row_of[label] = len(states)
                states.append(world.clear(raw))
                latest.append(raw)
                at_limit.append(truncated)
            latest[row_of[label]] = raw
            return row_of[label]

        raw = world.reset(reset_keys)
        starts = [visit(n, [leaf[k] for leaf in raw], False) for k, n in enumerate(world.label(raw, 1).tolist())]
        if reset_noise is None and len(set(starts)) > 1:
            raise ValueError(
                f"reset_noise: found {len(set(starts))} initial states of {world.name}, expected one or their law"
            )
        outcomes: list[dict[tuple[int, float, bool], float]] = []
        layers: list[_Steps] = []
        done = 0
        while done < len(states):
            layer = range(done, len(states))
            steps = world.step(_stack(states[done:]), step_keys)
            if step_noise is None:
                world.require("step_noise", steps.agree(steps.under(0)), "one outcome whatever the key, or their law")
                steps = steps.under(0)
            for pair, labels in enumerate(steps.label.tolist()):
                merged: dict[tuple[int, float, bool], float] = {}
                row = layer[pair // world.num_actions]
                for k, label in enumerate(labels):
                    ends = bool(steps.terminated[pair, k])
                    if at_limit[row]:
                        outcome = (row, 0.0, False)
                    elif ends:
                        outcome = (row, float(steps.reward[pair, k]), True)
                    else:
                        successor = [leaf[pair, k] for leaf in steps.raw]
                        target = visit(label, successor, bool(steps.truncated[pair, k]) and not clock)
                        outcome = (target, float(steps.reward[pair, k]), False)
                    weight = 1.0 if step_noise is None else float(step_probs[k])
                    merged[outcome] = merged.get(outcome, 0.0) + weight
                outcomes.append(merged)
            layers.append(steps)
            done = layer.stop
        if any(at_limit) and horizon is None:
            raise ValueError("horizon: found None with a clock kept in the state, expected a horizon")
        keys = step_keys[:1] if step_noise is None else step_keys
        table = _Steps([], *(np.concatenate([getattr(s, name) for s in layers]) for name in _Steps._fields[1:]))
        if ignore:
            again = world.step(world.clear(_stack(latest), clock_only=True), keys)
            world.require("ignore", table.agree(again), "fields without influence on reward, ending or next state")
        if clock:
            count = max(8, CLOCK_STEPS // (len(outcomes) * len(keys)))
            for time in np.unique(np.linspace(0, world.limit - 1, min(count, world.limit)).astype(int)):
                cleared = zip(_stack(states), world.is_clock, strict=True)
                again = world.step([np.full_like(x, time) if is_clock else x for x, is_clock in cleared], keys)
                world.require("clock", table.agree(again), f"the same at time {time} as at 0, or clock=()")
    mdp = _table(outcomes, len(states), world.num_actions, starts, reset_probs, discount, horizon, world.limit)
    exact = not (isinstance(reset_noise, int) or isinstance(step_noise, int))
    return Tabulation(mdp, jax.tree.unflatten(world.treedef, _stack(states)), exact)


def _stack(states: list[Leaves]) -> Leaves:
    return [np.stack(column) for column in zip(*states, strict=True)]


def _table(outcomes, num_states, num_actions, starts, start_probs, discount, horizon, limit) -> MDP:
    shape = (num_states, num_actions, max(len(merged) for merged in outcomes))
    next_state, prob, reward = np.zeros(shape, np.int32), np.zeros(shape), np.zeros(shape)
    terminal = np.zeros(shape, bool)
    for pair, merged in enumerate(outcomes):
        for slot, ((row, gain, ends), weight) in enumerate(merged.items()):
            at = (*divmod(pair, num_actions), slot)
            next_state[at], prob[at], reward[at], terminal[at] = row, weight, gain, ends
    initial = np.bincount(starts, weights=start_probs, minlength=num_states)
    # Frequencies of one event add up to 1 only within rounding.
    return tabular(
        next_state,
        prob / prob.sum(axis=-1, keepdims=True),
        reward,
        terminal=terminal,
        discount=discount,
        horizon=limit if horizon == "limit" else horizon,
        initial=initial / initial.sum(),
    )


def tabulate(env: Any, params: Any = None, **options: Any) -> MDP:
    """The MDP of a small gymnax environment: `tabulate_states(env, params, **options).mdp`.

    Args:
      env, params, options: as in `tabulate_states`; it documents them, the errors, the source and the cost.

    Returns: `MDP`. With a number of keys as noise its probabilities are an estimate; `tabulate_states` says so.
    """
    return tabulate_states(env, params, **options).mdp


class Episodes(NamedTuple):
    """n episodes of H steps. observations: float32[n, H + 1, ...]; actions: int32[n, H]; rewards: float32[n, H], 0 once
    ended; alive: bool[n, H + 1], whether the episode still runs at that step."""

    observations: Array
    actions: Array
    rewards: Array
    alive: Array


def episodes(
    env: str,
    changed: Mapping[str, float],
    policy: Callable[..., Array],
    key: Key[Array, ""],
    num_episodes: int,
    horizon: int,
    arguments: tuple[PyTree, ...] = (),
) -> Episodes:
    """Play episodes of a gymnax environment with changed parameters, all at once, without autoreset.

    Args:
      env: an id of gymnax.
      changed: parameters that differ from the default ones, by name.
      policy: `(step int[], observations float32[n, ...], key, *arguments) -> int[n]`; one function compiles once.
      key: of the episodes; the same key gives the same first states and, in gymnax's noise, the same draws.
      num_episodes, horizon: n and H, static.
      arguments: of the policy.

    Returns: `Episodes`. Raises: ValueError: parameters that the environment does not have.
    Source: derived. Cost: n H steps.
    """
    import gymnax

    with gymnax_modes():
        params = gymnax.make(env)[1]
        unknown = [name for name in changed if not hasattr(params, name)]
        if unknown:
            raise ValueError(f"changed: found {unknown}, expected parameters of {env}: {sorted(vars(params))}")
        values = {name: np.float32(value) for name, value in changed.items()}
        return _play(values, key, arguments, env=env, policy=policy, num_episodes=num_episodes, horizon=horizon)


@functools.partial(jax.jit, static_argnames=("env", "policy", "num_episodes", "horizon"))
def _play(values, key, arguments, *, env, policy, num_episodes, horizon):
    import gymnax

    world, params = gymnax.make(env)
    params = params.replace(**values)
    first, key = jax.random.split(key)
    observation, state = jax.vmap(world.reset_env, (0, None))(jax.random.split(first, num_episodes), params)

    def step(carry, at):
        observation, state, alive = carry
        number, key = at
        own, other = jax.random.split(key)
        action = policy(number, observation, own, *arguments)
        keys = jax.random.split(other, num_episodes)
        after, state, reward, ended, _ = jax.vmap(world.step_env, (0, 0, 0, None))(keys, state, action, params)
        reward = jnp.where(alive, reward, 0.0)
        return (after, state, alive & ~ended), (observation, action, reward, alive)

    # A loop's state has the types that steps give it; reset writes Python numbers into some fields.
    types = jax.eval_shape(lambda: jax.vmap(world.step_env, (None, 0, 0, None))(
        key, state, jnp.zeros(num_episodes, jnp.int32), params
    ))[1]  # fmt: skip
    state = jax.tree.map(lambda x, t: jnp.broadcast_to(jnp.asarray(x, t.dtype), t.shape), state, types)
    alive = jnp.ones(num_episodes, bool)
    steps = jnp.arange(horizon), jax.random.split(key, horizon)
    last, rows = jax.lax.scan(step, (observation, state, alive), steps)
    observations, actions, rewards, alive = (jnp.moveaxis(x, 0, 1) for x in rows)
    with_last = lambda x, end: jnp.concatenate([x, end[:, None]], axis=1)  # noqa: E731
    return Episodes(with_last(observations, last[0]), actions, rewards, with_last(alive, last[2]))
