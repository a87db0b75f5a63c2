"""Every deterministic policy of the history enumerated: the truth about any functional of the return."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.distributional.evaluation import check_state
from rlcore.distributional.laws import Law
from rlcore.mdp import MDP
from rlcore.types import Array, Bool, Float, Int

__all__ = ["PolicyLaws", "brute_force_laws", "distinct_laws"]

# Atoms of all laws together above which enumeration is refused.
MOST_ATOMS = 2**24


class PolicyLaws(NamedTuple):
    """The laws of the return under all P deterministic policies of the history, each with M atoms, B^horizon paths.

    values, probs: float[P, M], atoms unsorted, equal ones apart. allowed: bool[P], whether every action that the policy
    takes is available where it takes it.
    """

    values: Float[Array, "P M"]
    probs: Float[Array, "P M"]
    allowed: Bool[Array, "P"]


def _horizon(problem: MDP, num_steps: int | None) -> int:
    if problem.horizon is not None and num_steps is not None:
        raise ValueError(f"num_steps: found {num_steps} with horizon {problem.horizon}, expected None: it counts")
    steps = problem.horizon if num_steps is None else num_steps
    if steps is None:
        raise ValueError("num_steps: found None without a horizon, expected the number of steps to enumerate")
    return steps


def brute_force_laws(problem: MDP, state: Int[Array, ""] | int, *, num_steps: int | None = None) -> PolicyLaws:
    """The law of the return under every deterministic policy of the history, with fixed shapes: `vmap` over problems.

    With A actions and B outcomes there are P_h = A P_{h-1}^B policies of h steps: 2, 8, 128, 32 768 for A = B = 2. No
    randomised policy has another law than a mixture of these.

    Args: problem: an outcome list. state: int[], the start. num_steps: static, without a horizon.
    Returns: `PolicyLaws`.
    Raises: ValueError: no number of steps, more than 2^24 atoms in all, or a state that the problem lacks.
    Source: derived: docs/proofs/distributional.md, T3. Cost: S P B^H numbers.
    """
    check_state(problem, state)
    steps = _horizon(problem, num_steps)
    num_actions, num_outcomes = problem.prob.shape[-2:]
    policies = 1
    for _ in range(steps):
        policies = num_actions * policies**num_outcomes
    atoms = problem.initial.size * policies * num_outcomes**steps
    if atoms > MOST_ATOMS:
        raise ValueError(f"problem: found {atoms} atoms of laws of {steps} steps, expected at most {MOST_ATOMS}")
    return _brute_force_laws(problem, state, steps)


@functools.partial(jax.jit, static_argnames="steps")
def _brute_force_laws(problem, state, steps):
    num_states, num_actions = problem.available.shape
    num_outcomes, dtype = problem.prob.shape[-1], problem.prob.dtype
    values, probs = jnp.zeros((num_states, 1, 1), dtype), jnp.ones((num_states, 1, 1), dtype)
    allowed = jnp.ones((num_states, 1), bool)
    for t in reversed(range(steps)):
        now = problem.at_time(t)
        count = values.shape[1]
        # which continuation follows each outcome: [count^B, B]
        chosen = np.array(list(itertools.product(range(count), repeat=num_outcomes))).reshape(-1, num_outcomes)
        follow = now.next_state[:, :, None], jnp.asarray(chosen)[None, None]
        live = ~now.terminal & (now.prob > 0)
        go_on = jnp.where(live[:, :, None, :, None], values[follow], 0)
        shape = (num_states, num_actions * len(chosen), -1)
        values = (now.reward[:, :, None, :, None] + problem.discount * go_on).reshape(shape)
        probs = (now.prob[:, :, None, :, None] * probs[follow]).reshape(shape)
        fine = jnp.all(allowed[follow] | ~live[:, :, None], axis=-1) & problem.available[..., None]
        allowed = fine.reshape(shape[:2])
    return PolicyLaws(values[state], probs[state], allowed[state])


def distinct_laws(problem: MDP, state: int, *, num_steps: int | None = None, digits: int = 10) -> list[Law]:
    """The distinct laws among those of `brute_force_laws`, merged at every step, on the host: longer horizons.

    Args: problem: with concrete arrays. state, num_steps: as there. digits: decimals to which atoms and weights are
      compared; what is returned is not rounded.
    Returns: laws with increasing distinct atoms. Raises: ValueError: no number of steps.
    Cost: sum over steps of A L^B laws, L the distinct ones of the next step.
    """
    next_state, prob, reward, terminal = (
        np.asarray(x) for x in (problem.next_state, problem.prob, problem.reward, problem.terminal)
    )
    discount, steps, available = float(problem.discount), _horizon(problem, num_steps), np.asarray(problem.available)
    nothing = [(np.zeros(1), np.ones(1))]

    @functools.cache
    def laws(state, t):
        at = (t, state) if next_state.ndim == 4 else (state,)
        found = {}
        for action in np.flatnonzero(available[state]):
            branches = []
            for b in np.flatnonzero(prob[at][action] > 0):
                index = (*at, action, b)
                ends = terminal[index] or t + 1 == steps
                after = nothing if ends else laws(int(next_state[index]), t + 1)
                branches.append([(reward[index] + discount * v, prob[index] * p) for v, p in after])
            for mixture in itertools.product(*branches):
                values, weights = (np.concatenate(x) for x in zip(*mixture, strict=True))
                _, first, where = np.unique(np.round(values, digits) + 0.0, return_index=True, return_inverse=True)
                law = values[first] + 0.0, np.bincount(where, weights=weights)
                found.setdefault(tuple(np.round(x, digits).tobytes() for x in law), law)
        return list(found.values())

    return [Law(jnp.asarray(v), jnp.asarray(p)) for v, p in laws(state, 0)]
