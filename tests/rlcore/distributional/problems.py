"""Small random problems, and laws of returns by enumeration: nothing here uses a solver."""

import itertools

import jax.numpy as jnp
import numpy as np

from rlcore.distributional import policy_action
from rlcore.mdp import MDP, tabular


def random_problem(seed, *, discount, horizon=None, states=3, actions=2, outcomes=2, ends=0.0) -> MDP:
    """Dirichlet outcomes, uniform successors, rewards in {-2, ..., 2}; each outcome ends with probability `ends`."""
    rng = np.random.default_rng(seed)
    shape = (states, actions, outcomes)
    return tabular(
        rng.integers(0, states, shape),
        rng.dirichlet(np.ones(outcomes), shape[:2]),
        rng.integers(-2, 3, shape).astype(float),
        discount=discount,
        horizon=horizon,
        terminal=rng.random(shape) < ends,
    )


def outcomes_of(problem, state, action):
    rows = (np.asarray(x)[state, action] for x in (problem.next_state, problem.prob, problem.reward, problem.terminal))
    return [row for row in zip(*rows, strict=True) if row[1] > 0]


def return_laws(problem, state, steps) -> list[tuple[np.ndarray, np.ndarray]]:
    """The law (values, probs) of the return under every deterministic policy of the history, `steps` to go."""
    if steps == 0:
        return [(np.zeros(1), np.ones(1))]
    laws, discount = [], float(problem.discount)
    for action in np.flatnonzero(np.asarray(problem.available)[state]):
        branches = []
        for next_state, prob, reward, ended in outcomes_of(problem, state, action):
            after = [(np.zeros(1), np.ones(1))] if ended else return_laws(problem, next_state, steps - 1)
            branches.append([(reward + discount * v, prob * p) for v, p in after])
        laws += [tuple(np.concatenate(x) for x in zip(*mix, strict=True)) for mix in itertools.product(*branches)]
    return laws


def law_of_policy(problem, policy, state, stock, t=0) -> list[tuple[float, float]]:
    """Pairs (return, probability) of a policy that reads the true stock, until the horizon."""
    if t == problem.horizon:
        return [(0.0, 1.0)]
    discount, pairs = float(problem.discount), []
    action = int(policy_action(policy, jnp.asarray(state), stock, t))
    for next_state, prob, reward, ended in outcomes_of(problem, state, action):
        after = [(0.0, 1.0)]
        if not ended:
            after = law_of_policy(problem, policy, next_state, (stock + reward) / discount, t + 1)
        pairs += [(reward + discount * value, prob * p) for value, p in after]
    return pairs
