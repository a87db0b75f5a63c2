"""Networks and learners shared by the deep versions, flax Linen behind `init(key, obs)` and `apply(params, obs)`."""

from rlcore.nn.cloning import behaviour_cloning
from rlcore.nn.dqn import DQN
from rlcore.nn.learning_curve import LearningCurve, learning_curve
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.nn.quantile import QuantileNetwork
from rlcore.nn.shared import SharedPerceptron
from rlcore.nn.tabular import (
    category_sizes,
    greedy_return,
    observations,
    reward_scale,
    sampled_return,
    tabular_environment,
)
from rlcore.nn.transformer import Transformer

__all__ = [
    "DQN",
    "PPO",
    "ActorCritic",
    "LearningCurve",
    "Perceptron",
    "QuantileNetwork",
    "SharedPerceptron",
    "Transformer",
    "behaviour_cloning",
    "category_sizes",
    "greedy_return",
    "learning_curve",
    "observations",
    "reward_scale",
    "sampled_return",
    "tabular_environment",
]
