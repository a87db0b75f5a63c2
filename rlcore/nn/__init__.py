"""Networks and learners shared by the deep versions, flax Linen behind `init(key, obs)` and `apply(params, obs)`."""

from rlcore.nn.dqn import DQN
from rlcore.nn.learning_curve import LearningCurve, learning_curve
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.nn.quantile import QuantileNetwork
from rlcore.nn.shared import SharedPerceptron
from rlcore.nn.tabular import category_sizes, greedy_return, reward_scale, tabular_environment
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
    "category_sizes",
    "greedy_return",
    "learning_curve",
    "reward_scale",
    "tabular_environment",
]
