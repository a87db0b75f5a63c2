"""Catch-match: the rules step by step, and the optimal policy of the exact table played in the simulator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.catch_match_game import catch_match_game
from envs.rules import Outcome, Rules, enumerate_states
from rlcore.distributional import policy_action, stock_grid, stock_vi, two_slope
from rlcore.mdp import tabular


def step(game, state, action, key=0):
    out = game.step(tuple(jnp.int32(x) for x in state), jnp.int32(action), jax.random.key(key))
    return [int(x) for x in out.state], float(out.reward), bool(out.terminal), bool(out.truncated)


def test_a_ball_falls_and_the_paddle_moves():
    game = catch_match_game(stick=0.0)
    assert step(game, (0, 4, 2, 4), 2) == ([1, 4, 3, 4], 0.0, False, False)
    assert step(game, (1, 4, 0, 4), 0) == ([2, 4, 0, 4], 0.0, False, False)
    assert step(game, (1, 4, 4, 4), 2) == ([2, 4, 4, 4], 0.0, False, False)
    assert step(catch_match_game(stick=1.0), (1, 4, 2, 4), 2) == ([2, 4, 2, 4], 0.0, False, False)


def test_a_ball_is_judged_after_the_last_move():
    game = catch_match_game(stick=0.0)
    (row, _, paddle, left), reward, terminal, _ = step(game, (3, 3, 2, 2), 2)
    assert (row, paddle, left, reward, terminal) == (0, 3, 1, 1.0, False)
    (row, _, paddle, left), reward, terminal, _ = step(game, (3, 3, 2, 2), 1)
    assert (row, paddle, left, reward, terminal) == (0, 2, 1, -1.0, False)
    assert step(game, (3, 3, 3, 1), 1)[1:] == (1.0, True, False)
    columns = [step(game, (3, 3, 2, 2), 2, key)[0][1] for key in range(200)]
    # 200 draws of 5 columns: five standard deviations
    assert np.abs(np.bincount(columns, minlength=5) / 200 - 0.2).max() < 5 * np.sqrt(0.16 / 200)


def test_what_is_seen():
    game = catch_match_game(balls=3, width=4, height=3)
    state, seen = game.reset(jax.random.key(0))
    assert [int(x) for x in (state[0], state[2], state[3])] == [0, 2, 3]
    expected = np.concatenate([np.eye(3)[0], np.eye(4)[int(state[1])], np.eye(4)[2], [1]])
    np.testing.assert_array_equal(seen, expected)
    assert seen.dtype == jnp.float32


def test_bad_input():
    with pytest.raises(ValueError, match="balls: found 0, expected an integer >= 1"):
        catch_match_game(balls=0)
    with pytest.raises(ValueError, match=r"stick: found -0\.1, expected a number in"):
        catch_match_game(stick=-0.1)


def table(balls, width, height, stick):
    """The game as an outcome list, written from its rules: an outcome is a stuck or free paddle and a new column."""
    shape = (balls, height, width, width)
    states = np.arange(np.prod(shape)).reshape(shape)
    next_state = np.zeros((states.size, 3, 2 * width), int)
    prob, reward, terminal = np.zeros(next_state.shape), np.zeros(next_state.shape), np.zeros(next_state.shape, bool)
    for left, row, column, paddle in np.ndindex(shape):
        s = states[left, row, column, paddle]
        for a, stuck, new in np.ndindex(3, 2, width):
            at, b = min(max(paddle + (0 if stuck else a - 1), 0), width - 1), stuck * width + new
            prob[s, a, b] = (stick if stuck else 1 - stick) / width
            if row + 1 < height - 1:
                next_state[s, a, b] = states[left, row + 1, column, at]
                continue
            reward[s, a, b] = 1 if at == column else -1
            terminal[s, a, b] = left == 0
            next_state[s, a, b] = states[max(left - 1, 0), 0, new, at]
    initial = np.zeros(shape)
    initial[balls - 1, 0, :, width // 2] = 1 / width
    return tabular(next_state, prob, reward, terminal=terminal, initial=initial.ravel())


def test_the_simulator_has_the_transitions_and_rewards_of_the_exact_problem():
    balls, size, stick = 2, 3, 0.2
    exact = envs.make("catch_match", balls=balls, size=size, stick=stick)
    keys = jax.random.split(jax.random.key(0), 64)  # of 3 columns all are seen, but for a chance of 2e-11 each time

    @jax.jit
    def steps(state, action, stick):
        one = lambda key: catch_match_game(balls, size, size, stick).step(state, action, key)  # noqa: E731
        return jax.vmap(one)(keys)

    def outcomes(state, action):
        if state == "start":
            return [Outcome(1 / size, (0, column, size // 2, balls), 0.0) for column in range(size)]
        ways = []
        for share, stuck in ((1 - stick, 0.0), (stick, 1.0)):  # what happens to the paddle is then certain
            out = steps(tuple(jnp.int32(x) for x in state), jnp.int32(action), stuck)
            drawn = zip(*(np.asarray(x).tolist() for x in (*out.state, out.reward, out.terminal)), strict=True)
            found = {(None if over else tuple(after), reward) for *after, reward, over in drawn}
            ways += [Outcome(share / len(found), *way) for way in sorted(found, key=str)]
        return ways

    table = enumerate_states(Rules("start", outcomes, 3, None))
    # the row of the start is left out, as the problem does; columns are drawn uniformly (tested above)
    np.testing.assert_array_equal(np.maximum(table.next_state[1:] - 1, 0), exact.next_state)
    np.testing.assert_allclose(table.prob[1:], exact.prob, rtol=1e-15)
    np.testing.assert_array_equal(table.reward[1:], exact.reward)
    np.testing.assert_array_equal(table.terminal[1:], exact.terminal)
    firsts = [i for i, state in enumerate(table.states[1:]) if state[0] == 0 and state[2:] == (size // 2, balls)]
    assert np.flatnonzero(exact.initial).tolist() == firsts


GOLDEN = {-4: 0.002560, -3: 1.000001, -2: 0.001290, -1: 1.000001, 0: 0.001413, 1: 1.000206, 2: 0.024327}
GOLDEN |= {3: 1.023792, 4: 0.484676}


def test_the_optimal_policy_of_the_table_is_worth_as_much_in_the_simulator():
    problem = table(4, 5, 5, 0.2)
    solution = stock_vi(problem, two_slope(-1.0, 1.0), stock_grid(-4.0, 4.0, 1.0))
    targets = jnp.arange(-4.0, 5.0)
    exact = -problem.initial @ solution.value.value[:, ::-1]
    np.testing.assert_allclose(exact, [GOLDEN[g] for g in range(-4, 5)], rtol=0, atol=5.1e-7)
    game, episodes = catch_match_game(), 4000

    def episode(key, target):
        reset_key, key = jax.random.split(key)

        def step(carry, key):
            state, gain, ended = carry
            row, column, paddle, left = state
            number = (((left - 1) * 5 + row) * 5 + column) * 5 + paddle
            out = game.step(state, policy_action(solution.policy, number, gain - target), key)
            gain = gain + jnp.where(ended, 0, out.reward.astype(float))
            return (out.state, gain, ended | out.terminal), None

        start = (game.reset(reset_key)[0], jnp.zeros(()), jnp.zeros((), bool))
        (_, gain, ended), _ = jax.lax.scan(step, start, jax.random.split(key, 16))
        return jnp.abs(gain - target), ended

    keys = jax.random.split(jax.random.key(0), episodes)
    missed, ended = jax.jit(jax.vmap(jax.vmap(episode, (0, None)), (None, 0)))(keys, targets)
    assert bool(jnp.all(ended))
    error = np.asarray(missed.std(axis=1)) / np.sqrt(episodes)
    # five standard errors; a rare event may not have been seen at all: fewer than 12 expected
    assert np.all(np.abs(missed.mean(axis=1) - exact) < 5 * error + 12 / episodes)
