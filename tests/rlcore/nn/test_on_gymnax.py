"""The same PPO and DQN on gymnax: images, sticky actions, time limits that end or cut; reproducible from a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.gymnax_games import gymnax_game
from rlcore.nn.dqn import DQN
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.solver import iterate


def ppo(actions):
    return PPO(ActorCritic(actions, hidden=(16,), channels=(4,)), num_envs=2, num_steps=16, batch=16, epochs=2)


def dqn(actions):
    network = Perceptron(actions, hidden=(16,), channels=(4,), uniform=True)
    return DQN(network, total_steps=100.0, capacity=64, batch=8, refresh=20)


@pytest.mark.parametrize(
    ("id", "limit_ends", "make"),
    [("Breakout-MinAtar", True, ppo), ("Breakout-MinAtar", True, dqn), ("CartPole-v1", False, ppo)],
)
def test_agents_learn_something_and_equal_keys_give_equal_bits(id, limit_ends, make):
    game = gymnax_game(id, sticky=0.25, limit=10, limit_ends=limit_ends)
    agent = make(game.num_actions)
    run = jax.jit(lambda key: iterate(agent, game, 6, key=key)[0])
    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    leaves = jax.tree.leaves(first.params)
    assert all(x.dtype == jnp.float32 and np.isfinite(x).all() for x in leaves)
    assert any((a != b).any() for a, b in zip(leaves, jax.tree.leaves(other.params), strict=True))
    start = agent.init(game, jax.random.key(0)).params
    assert any((a != b).any() for a, b in zip(leaves, jax.tree.leaves(start), strict=True))
    assert int(first.count) == 6
