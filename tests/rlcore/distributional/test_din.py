"""D-eta-N: its parts against hand-made numbers, and games whose answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from envs.catch_match_game import catch_match_game
from rlcore.distributional import Environment, Step, quantile_levels, two_slope
from rlcore.distributional.din import DEtaN, Task, Transition, cvar_start, play, train
from rlcore.nn.quantile import QuantileNetwork

TARGET = two_slope(-1.0, 1.0)
SMALL = DEtaN(
    QuantileNetwork(2, 8, hidden=(32,)),
    window=4.0,
    learning_rate=5e-3,
    num_steps=800,
    num_envs=8,
    capacity=4096,
    batch=64,
    refresh=25,
)


def fixed(rows):
    """A network that answers the same quantiles whatever it sees: its output bias."""
    rows = jnp.asarray(rows, jnp.float32)
    network = QuantileNetwork(*rows.shape, hidden=())
    params = network.init(jax.random.key(0), jnp.zeros(1), jnp.zeros(1))
    weights = {"output_weight": jnp.zeros_like(params["params"]["output_weight"]), "output_bias": rows.reshape(-1)}
    return network, {"params": weights}


def transition(stock=1.0, reward=2.0, terminal=False):
    nothing = jnp.zeros(1, jnp.float32)
    stock, reward = jnp.float32(stock), jnp.float32(reward)
    return Transition(nothing, stock, jnp.int32(0), reward, nothing, jnp.asarray(terminal))


# ---- parts ----


def test_actions_are_scored_by_the_mean_utility_of_stock_plus_quantiles():
    network, params = fixed([[0.0, 0.0], [-3.0, 4.0]])
    agent = DEtaN(network, window=2.0)
    for utility, stock, expected in (
        (TARGET, 0.0, [0, -3.5]),
        (TARGET, 3.0, [-3, -3.5]),
        (TARGET, 5.0, [-5, -5.5]),
        (two_slope(1.0, 1.0), 5.0, [5, 5.5]),
        (two_slope(0.0, 1.0), 0.0, [0, -1.5]),
        (two_slope(0.0, 1.0), 3.0, [0, 0]),
    ):
        found = agent.scores(jax.tree.map(lambda x: x.astype(jnp.float32), utility), params, jnp.zeros(1), stock)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_target_follows_the_action_that_is_best_at_the_next_stock():
    network, params = fixed([[0.0, 0.0], [-3.0, 4.0], [0.0, 0.0]])
    agent = DEtaN(network, discount=0.5, window=2.0)
    one = lambda utility, agent=agent, **changes: agent.target_quantiles(  # noqa: E731
        jax.tree.map(lambda x: x.astype(jnp.float32), utility), params, transition(**changes)
    )
    mean = two_slope(1.0, 1.0)
    np.testing.assert_allclose(one(mean), [2 - 1.5, 2 + 2.0])
    np.testing.assert_allclose(one(TARGET, stock=-2.0), [2.0, 2.0])
    # the stock after the step is (1 - 4.5) / 0.5 = -7: nothing is near 7, the gamble least far from it
    np.testing.assert_allclose(one(TARGET, reward=-4.5), [-4.5 - 1.5, -4.5 + 2.0])
    np.testing.assert_allclose(one(mean, terminal=True), [2.0, 2.0])
    # frozen, the stock stays 1: the sure 0 is nearer to -1
    frozen = dataclasses.replace(agent, frozen=True)
    np.testing.assert_allclose(one(TARGET, frozen, reward=-4.5), [-4.5, -4.5])
    # above 3 all is above 0: a loss below 0 cannot occur and all three actions tie
    averaged = dataclasses.replace(agent, average_ties=True)
    np.testing.assert_allclose(one(two_slope(0.0, 1.0), averaged), [2 - 0.5, 2 + 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(one(mean, averaged), one(mean))


def test_schedules():
    agent = DEtaN(QuantileNetwork(2), num_steps=100, learning_rate=0.5)
    agent = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), agent)
    rows = [[float(x) for x in agent.rates(jnp.int32(t))] for t in (0, 20, 40, 50, 75, 99)]
    expected = [[0.5, 1], [0.5, 0.525], [0.5, 0.05], [0.5, 0.05], [0.25, 0.05], [0.01, 0.05]]
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_the_start_that_is_best_for_cvar():
    # one action, returns 0, 1, 2, 3 equally likely: CVaR 1/2 is 1/2, from any c between -2 and -1
    network, params = fixed([[0.0, 1.0, 2.0, 3.0]])
    agent = DEtaN(network, window=3.0)
    stocks = jnp.arange(-3.0, 0.5)
    start, value = cvar_start(agent, two_slope(0.0, 1.0), params, jnp.zeros((5, 1)), stocks, 0.5)
    assert float(value) == pytest.approx(0.5, abs=1e-6) and float(start) in (-2.0, -1.0)
    _, value = cvar_start(agent, two_slope(0.0, 1.0), params, jnp.zeros((5, 1)), stocks, 1.0)
    assert float(value) == pytest.approx(1.5, abs=1e-6)
    with pytest.raises(ValueError, match=r"level: found 0\.0"):
        cvar_start(agent, two_slope(0.0, 1.0), params, jnp.zeros((5, 1)), stocks, 0.0)


def test_bad_input():
    task = Task(catch_match_game(), TARGET, jnp.zeros(1))
    with pytest.raises(ValueError, match="network: found 2 actions, expected the environment's 3"):
        SMALL.init(task, jax.random.key(0))
    with pytest.raises(ValueError, match="capacity: found 100, expected a multiple of num_envs = 8"):
        dataclasses.replace(SMALL, network=QuantileNetwork(3), capacity=100).init(task, jax.random.key(0))


# ---- games whose answer is known ----


def settle_reset(key):
    gain = jnp.zeros((), jnp.int32)
    return (gain, jnp.where(jax.random.bernoulli(key), 1.0, -1.0)), jnp.array([1.0, 0.0], jnp.float32)


def settle_step(state, action, key):
    """The first reward is a coin, +1 or -1, whatever is done; then one may add 1 or subtract 1. Time alone is seen."""
    time, coin = state
    reward = jnp.where(time == 0, coin.astype(jnp.float32), jnp.where(action == 1, 1.0, -1.0).astype(jnp.float32))
    return Step((time + 1, coin), jnp.array([0.0, 1.0], jnp.float32), reward, time == 1, jnp.zeros((), bool))


SETTLE = Environment(Partial(settle_reset), Partial(settle_step), 2)
STARTS = jnp.array([0.0, -2.0, 2.0])


def settle_returns(config, seeds=2):
    """Returns [seed, start, episode] of the trained greedy policies."""

    def one(key):
        state, _ = train(key, SETTLE, TARGET, config, STARTS)
        keys = jax.random.split(key, 64)
        episode = lambda c: jax.vmap(lambda k: play(k, SETTLE, TARGET, config, state.params, c, 2))(keys)  # noqa: E731
        return jax.vmap(episode)(STARTS), state.params

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))


@pytest.mark.parametrize("changes", [{}, {"relabel": True, "polyak": 0.05, "average_ties": True}])
def test_the_stock_tells_what_the_observation_does_not(changes):
    config = dataclasses.replace(SMALL, **changes)
    returns, params = settle_returns(config)
    # target 0 is always met, by undoing the coin; from -2 and 2 one of the coin's sides lets the target be met
    missed = np.abs(np.asarray(returns) + np.asarray(STARTS)[None, :, None])
    assert np.all(missed[:, 0] == 0)
    coins = np.asarray(returns)[:, 1:]
    assert set(np.unique(coins)) <= {-2.0, 0.0, 2.0}
    for row, sign in ((1, 1.0), (2, -1.0)):
        # a good coin is completed, and a bad one undone rather than doubled: never on the wrong side
        assert np.all(returns[:, row] * sign >= 0) and np.any(returns[:, row] == 2 * sign)
    # after the coin the return is -1 or 1 surely: all quantiles of each action are there
    final = config.quantiles(jax.tree.map(lambda x: x[0], params), jnp.array([0.0, 1.0], jnp.float32), jnp.float32(1.0))
    np.testing.assert_allclose(final, np.array([[-1.0] * 8, [1.0] * 8]), rtol=0, atol=0.2)


def test_frozen_stocks_undo_the_coin_only_by_luck():
    returns, _ = settle_returns(dataclasses.replace(SMALL, frozen=True))
    # the choice cannot depend on the coin: half of the episodes miss the target 0 by 2
    missed = np.abs(np.asarray(returns)[:, 0])
    assert set(np.unique(missed)) == {0.0, 2.0}
    # 64 coins per seed, the same for both actions: five standard deviations around 1
    assert np.all(np.abs(missed.mean(axis=1) - 1) < 5 / np.sqrt(64))


def loop_reset(key):
    del key
    return jnp.zeros((), jnp.int32), jnp.ones(1, jnp.float32)


def loop_step(truncates, state, action, key):
    """Reward 1 with probability 1/2, else 0; after three steps the episode ends or is truncated; nothing is seen."""
    reward = jax.random.bernoulli(key).astype(jnp.float32)
    over = state == 2
    return Step(state + 1, jnp.ones(1, jnp.float32), reward, over & ~truncates, over & truncates)


def test_a_truncated_episode_is_worth_as_much_as_one_that_goes_on():
    config = dataclasses.replace(
        SMALL, discount=0.5, sees_stock=False, kappa=0.0, network=QuantileNetwork(1, 16, (32,))
    )

    def one(truncates):
        game = Environment(Partial(loop_reset), Partial(loop_step, truncates), 1)
        state, _ = train(jax.random.key(1), game, two_slope(1.0, 1.0), config, jnp.zeros(1))
        return config.quantiles(state.params, jnp.ones(1, jnp.float32), jnp.zeros((), jnp.float32))[0]

    ends, goes_on = jax.jit(jax.vmap(one))(jnp.array([False, True]))
    # for ever, the return is uniform on [0, 2]: quantiles 2 tau; the network cannot tell time, so an end that
    # comes at one step in three takes half of the return there: the mean solves m = 1/2 + (1/2) (2/3) m
    np.testing.assert_allclose(np.sort(goes_on), 2 * quantile_levels(16), rtol=0, atol=0.2)
    assert float(jnp.mean(ends)) == pytest.approx(0.75, abs=0.1)
    assert float(jnp.mean(goes_on)) == pytest.approx(1.0, abs=0.1)
