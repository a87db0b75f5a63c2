"""How fast a deep agent learns a tabular problem: exact returns of its greedy policy on the way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.environment import Environment
from rlcore.episodic import Episodic, episodic_values
from rlcore.nn.dqn import DQN
from rlcore.nn.ppo import PPO
from rlcore.nn.tabular import greedy_return, reward_scale, sampled_return, tabular_environment
from rlcore.pytree import pytree, static
from rlcore.solver import iterate
from rlcore.types import Array, Float, Int, Key, Number, PyTree

__all__ = ["LearningCurve", "learning_curve"]


class LearningCurve(NamedTuple):
    """steps: int32[R], of the environment, at each evaluation. returns: float[R], exact, of the policy.

    optimal, random: float[], returns of the best and the uniform policy. target: float[], from which on the problem
    counts as solved. first_success: float[], steps at the first evaluation that reached the target, inf if none did.
    final: float[], the last return: agents that succeed once may collapse later.
    """

    steps: Int[Array, "R"]
    returns: Float[Array, "R"]
    optimal: Float[Array, ""]
    random: Float[Array, ""]
    target: Float[Array, ""]
    first_success: Float[Array, ""]
    final: Float[Array, ""]


@pytree
class _Task:
    agent: PPO | DQN
    environment: Environment
    episodic: Episodic
    params: PyTree
    observation: str = static()
    sampled: bool = static()


@pytree
class _Learner:
    """The agent of the task as a solver, so that the task can be asked what its policy earns."""

    def init(self, problem, key):
        state = problem.agent.init(problem.environment, key)
        return state if problem.params is None else state._replace(params=problem.params)

    def step(self, problem, state, key):
        return problem.agent.step(problem.environment, state, key)


def _evaluate(problem, state):
    if problem.sampled:
        prob = lambda seen: jax.nn.softmax(problem.agent.logits(problem.environment, state.params, seen))  # noqa: E731
        return sampled_return(problem.episodic, prob, observation=problem.observation)
    act = lambda seen: problem.agent.greedy(problem.environment, state.params, seen)  # noqa: E731
    return greedy_return(problem.episodic, act, observation=problem.observation)


def learning_curve(
    agent: PPO | DQN,
    episodic: Episodic,
    key: Key[Array, ""],
    iterations: Int[Array, "R"] | np.ndarray,
    *,
    observation: str = "markov",
    level: Number = 0.95,
    params: PyTree = None,
    sampled: bool = False,
) -> LearningCurve:
    """Train an agent and evaluate its policy exactly on the way, the greedy one by default.

    Args:
      agent: `PPO` or `DQN`; its network has the sizes `category_sizes(episodic, observation)`.
      episodic: one problem; `jax.vmap` over padded problems, keys and agents is one program.
      key: of the run; equal keys give equal runs.
      iterations: increasing, the agent's steps after which it is evaluated; training ends with the last. An iteration
        is `agent.steps_per_iteration` steps of the environment. Shared by all lanes of a `vmap`.
      observation: as in `tabular_environment`.
      level: share of the way from the random to the optimal return that counts as solved.
      params: of the network at the start, see `behaviour_cloning`; None for new ones.
      sampled: True: evaluate the policy that PPO draws its actions from. Static.

    Returns: `LearningCurve`. Rewards are scaled by `reward_scale` for the agent, returns are in the problem's unit.
    Raises: ValueError as the agent's `init`, `tabular_environment` and `iterate`, or for `sampled` with DQN.
    Source: specification of SQIRL, 3.10 and section 5, pilot.
    Cost: the agent's iterations; each evaluation passes T S A observations through the network.
    """
    if sampled and not isinstance(agent, PPO):
        raise ValueError(f"sampled: found True with {type(agent).__name__}, expected PPO, which has probabilities")
    start = episodic.problem.initial
    optimal, random = (start @ episodic_values(episodic, word).value[0] for word in ("max", "mean"))
    scale = reward_scale(optimal, random)
    environment = tabular_environment(episodic, observation=observation, scale=scale)
    task = _Task(agent, environment, episodic, params, observation, sampled)
    _, returns = iterate(_Learner(), task, None, key=key, observe=_evaluate, every=iterations)
    steps = jnp.asarray(iterations, jnp.int32) * agent.steps_per_iteration
    target = random + level * (optimal - random)
    reached = returns >= target
    first = jnp.where(jnp.any(reached), steps[jnp.argmax(reached)].astype(returns.dtype), jnp.inf)
    return LearningCurve(steps, returns, optimal, random, target, first, returns[-1])
