"""gymnax environments as tables: against our own families, against real episodes, and against misuse."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import envs
from envs.gymnax_adapter import episodes, gymnax_modes, tabulate, tabulate_states

STATISTICS = ("bad_episode", "total_bad_episodes", "denoised_return")


def build(id, **options):
    with gymnax_modes():
        return gymnax.make(id, **options)


def assert_same_table(found, expected, reward_error=0.0):
    np.testing.assert_array_equal(found.terminal, expected.terminal)
    np.testing.assert_array_equal(found.next_state, expected.next_state)
    np.testing.assert_allclose(found.prob, expected.prob, rtol=1e-15, atol=0)
    np.testing.assert_allclose(found.reward, expected.reward, rtol=0, atol=reward_error)


@pytest.mark.parametrize(("name", "size", "horizon"), [("4x4", 4, 100), ("8x8", 8, 200)])
def test_frozen_lake_is_ours(name, size, horizon):
    env, _ = build("FrozenLake-misc", map_name=name, is_slippery=False)
    found = tabulate(env)
    assert_same_table(found, envs.make("frozen_lake", size=size, slippery=False))
    assert found.horizon == horizon and found.discount == 1


def test_slippery_frozen_lake_with_declared_noise_is_ours(optimal_value):
    env, _ = build("FrozenLake-misc")
    with gymnax_modes():
        candidates = jax.random.split(jax.random.key(0), 64)
        turns = [int(env._transition_action(key, 1)[0]) - 1 for key in candidates]
        keys = candidates[jnp.array([turns.index(turn) for turn in (-1, 0, 1)])]
    table = tabulate_states(env, step_noise=(keys, [1 / 3] * 3), horizon=40)
    ours = envs.make("frozen_lake", size=4, slippery=True)
    assert table.exact and table.mdp.prob.shape == ours.prob.shape
    # rows may be met in another order
    assert optimal_value(table.mdp) == pytest.approx(optimal_value(ours), rel=0, abs=1e-14)
    assert sorted(table.states.position.tolist()) == [0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 14]


def test_frequencies_are_labelled_an_estimate(optimal_value):
    env, _ = build("FrozenLake-misc")
    table = tabulate_states(env, step_noise=300, horizon=40)
    assert not table.exact
    # 300 common keys: each direction's frequency is within 5 standard deviations of 1/3
    ours = envs.make("frozen_lake", size=4, slippery=True)
    assert np.abs(np.sort(table.mdp.prob[0, 1]) - np.sort(ours.prob[0, 1])).max() < 5 * np.sqrt(2 / 9 / 300)
    assert tabulate_states(env, step_noise=300, seed=1).mdp.prob[0, 1, 0] != table.mdp.prob[0, 1, 0]


def test_deep_sea_is_ours():
    env, params = build("DeepSea-bsuite", size=6)
    found = tabulate(env, params.replace(randomize_actions=False), ignore=STATISTICS)
    # rewards of order 1 in float32
    assert_same_table(found, envs.make("deep_sea", size=6), reward_error=2 * np.finfo(np.float32).eps)
    assert found.horizon == 6


def test_four_rooms_is_ours(optimal_value, random_value):
    env, params = build("FourRooms-misc", pos_fixed=[1, 1], goal_fixed=[11, 11])
    found = tabulate(env, params.replace(fail_prob=0.0), horizon=50)
    ours = envs.make("four_rooms")
    assert found.prob.shape == ours.prob.shape
    assert optimal_value(found) == optimal_value(ours) == 1
    # the same 50 sums in another order of actions
    assert random_value(found) == pytest.approx(random_value(ours), rel=1e-13)


def test_catch_with_a_declared_reset_is_ours(optimal_value, random_value):
    env, params = build("Catch-bsuite", rows=5, columns=3)
    with gymnax_modes():
        candidates = jax.random.split(jax.random.key(0), 64)
        balls = jax.vmap(lambda key: env.reset_env(key, params)[1].ball_x)(candidates).tolist()
        keys = candidates[jnp.array([balls.index(column) for column in range(3)])]
    table = tabulate_states(env, reset_noise=(keys, [1 / 3] * 3))
    ours = envs.make("catch", rows=5, columns=3)
    assert table.exact and len(table.mdp.initial) == len(ours.initial) - 1  # ours has a reset node
    skewed = tabulate_states(env, reset_noise=(keys, [0.5, 0.375, 0.125]))
    np.testing.assert_array_equal(skewed.mdp.initial[jnp.argsort(skewed.states.ball_x[:3])], [0.5, 0.375, 0.125])
    np.testing.assert_allclose(np.sort(table.mdp.initial)[-3:], 1 / 3)
    # a miss costs 1 there and nothing here: their return is 2 P(caught) - 1
    for value in (optimal_value, random_value):
        assert value(table.mdp, horizon=4) == pytest.approx(2 * value(ours) - 1, rel=0, abs=1e-14)


@pytest.mark.parametrize(
    ("id", "options", "changes", "how"),
    [
        ("DeepSea-bsuite", dict(size=5), {}, dict(ignore=STATISTICS)),
        ("FrozenLake-misc", dict(is_slippery=False), dict(max_steps_in_episode=7), {}),
        ("FourRooms-misc", {}, dict(fail_prob=0.0, max_steps_in_episode=60), {}),
    ],
)
def test_real_episodes_pay_what_the_table_says(id, options, changes, how):
    env, params = build(id, **options)
    params = params.replace(**changes)
    mdp = tabulate(env, params, **how)
    steps, episodes = 60, 40
    actions = np.random.default_rng(0).integers(env.num_actions, size=(episodes, steps), dtype=np.int32)

    def episode(key, actions):
        def step(state, x):
            _, state, reward, terminated, truncated, _ = env.step(x[0], state, x[1], params)
            return state, (reward, terminated, truncated)

        key, reset = jax.random.split(key)
        return jax.lax.scan(step, env.reset(reset, params)[1], (jax.random.split(key, steps), actions))[1]

    with gymnax_modes():
        keys = jax.random.split(jax.random.key(1), episodes)
        rewards, terminated, truncated = jax.device_get(jax.jit(jax.vmap(episode))(keys, actions))
    next_state, reward, ends = (np.asarray(x)[..., 0] for x in (mdp.next_state, mdp.reward, mdp.terminal))
    start, seen = int(np.argmax(mdp.initial)), set()
    for row in range(episodes):
        state, clock = start, 0
        for t in range(steps):
            pair = (state, int(actions[row, t]))
            clock += 1
            assert rewards[row, t] == np.float32(reward[pair])
            assert terminated[row, t] == ends[pair]
            assert truncated[row, t] == (clock == mdp.horizon)
            over = ends[pair] or clock == mdp.horizon
            seen.add((bool(ends[pair]), clock == mdp.horizon))
            state, clock = (start, 0) if over else (int(next_state[pair]), clock)
    assert len(seen) > 1  # some episodes ended


@struct.dataclass
class PulseState(environment.EnvState):
    count: jax.Array


class Pulse(environment.Environment):
    """Two states; action 1 flips; reward 1 in the state 1, and a bonus at one moment of the episode."""

    def __init__(self, bonus_at=-1, count_matters=False, coin=False):
        super().__init__()
        self.bonus_at, self.count_matters, self.coin = bonus_at, count_matters, coin

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=9)

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def reset_env(self, key, params):
        state = PulseState(time=0, count=jnp.zeros(2, jnp.int32))
        return state.count, state

    def step_env(self, key, state, action, params):
        on = (state.count[0] + action) % 2
        reward = on.astype(jnp.float32) + (state.time == self.bonus_at)
        reward += (state.count[1] >= 1) * float(self.count_matters)
        reward += jax.random.bernoulli(key).astype(jnp.float32) * float(self.coin)
        state = PulseState(time=state.time + 1, count=jnp.stack([on, state.count[1] * 0 + on]))
        return state.count, state, reward, jnp.array(False), {}


def test_a_clock_that_matters_is_found_and_may_be_kept(optimal_value):
    steady = tabulate(Pulse())
    assert steady.horizon == 9 and not steady.terminal.any()
    assert optimal_value(steady) == 9
    with pytest.raises(ValueError, match=r"clock: .*the same at time 6 as at 0, or clock=\(\)"):
        tabulate(Pulse(bonus_at=6))
    kept = tabulate(Pulse(bonus_at=6), clock=())
    assert len(kept.initial) == 1 + 2 * 9
    assert optimal_value(kept) == 10
    last = np.asarray(kept.next_state)[..., 0] == np.arange(19)[:, None]
    assert last.all(axis=1).sum() == 2 and not np.asarray(kept.reward)[last].any()
    with pytest.raises(ValueError, match="horizon: found None with a clock kept"):
        tabulate(Pulse(bonus_at=6), clock=(), horizon=None)


def test_declared_probabilities_are_used_as_declared():
    with gymnax_modes():
        candidates = jax.random.split(jax.random.key(0), 16)
        heads = [bool(jax.random.bernoulli(key)) for key in candidates]
        keys = candidates[jnp.array([heads.index(True), heads.index(False)])]
    mdp = tabulate(Pulse(coin=True), step_noise=(keys, [0.875, 0.125]))
    # action 0 stays in state 0 and is paid 1 with the coin alone
    law = dict(zip(mdp.reward[0, 0].tolist(), mdp.prob[0, 0].tolist(), strict=True))
    assert law == {1.0: 0.875, 0.0: 0.125}


def test_discounted_tables_have_no_limit():
    mdp = tabulate(Pulse(), horizon=None, discount=0.9)
    assert mdp.horizon is None and mdp.discount == 0.9


def test_misuse_is_named():
    env, _ = build("DeepSea-bsuite", size=4)
    some_keys = jax.random.split(jax.random.key(0), 2)
    cases = [
        (dict(env="Nowhere-v0"), ValueError, "Nowhere-v0"),
        (dict(env="Pendulum-v1"), TypeError, "env: found Pendulum-v1 with actions Box"),
        (dict(env="CartPole-v1"), ValueError, "reset_noise: found 8 initial states"),
        (dict(env="CartPole-v1", reset_noise=2, max_states=50), ValueError, "max_states: found more than 50"),
        (dict(env=Pulse(coin=True)), ValueError, "step_noise: found transitions that differ"),
        (dict(env=Pulse(count_matters=True), ignore=("count",)), ValueError, "ignore: found transitions that differ"),
        (dict(env=env, ignore=("rows",)), ValueError, r"found \['rows'\], expected fields of the state: .*'row'"),
        (dict(env=env, max_states=0), ValueError, "max_states: found 0"),
        (dict(env=env, step_noise=0), ValueError, "step_noise: found 0"),
        (dict(env=env, step_noise=(some_keys, [0.5, 0.6])), ValueError, "step_noise: found probabilities"),
        (dict(env=env, reset_noise=(some_keys, [1.0])), ValueError, r"reset_noise: found keys \(2,\)"),
        (dict(env=env, ignore=STATISTICS, discount=2.0), ValueError, "discount"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            tabulate(**arguments)
    assert jax.config.jax_enable_x64 and jax.config.jax_numpy_dtype_promotion == "strict"


def push_right(step, observations, key):
    return jnp.ones(len(observations), jnp.int32)


def test_episodes_follow_the_changed_pole_and_stop_counting_at_the_fall():
    length, force = 1.5, 7.0
    changed = {"length": length, "polemass_length": 0.1 * length, "force_mag": force}
    played = episodes("CartPole-v1", changed, push_right, jax.random.key(0), 3, 60)
    seen, alive, rewards = (np.asarray(x) for x in (played.observations, played.alive, played.rewards))
    assert seen.shape == (3, 61, 4) and alive[:, 0].all() and not alive[:, -1].any()
    assert np.all(alive[:, 1:] <= alive[:, :-1])
    np.testing.assert_array_equal(rewards, alive[:, :-1])  # one for every step that began upright
    x, speed, angle, turn = (seen[:, t, i].astype(float) for t in (0,) for i in range(4))
    # Barto, Sutton and Anderson's equations, one Euler step of 0.02 s
    push = (force + 0.1 * length * turn**2 * np.sin(angle)) / 1.1
    spin = (9.8 * np.sin(angle) - np.cos(angle) * push) / (length * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
    pull = push - 0.1 * length * spin * np.cos(angle) / 1.1
    expected = np.stack([x + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * turn, turn + 0.02 * spin], axis=1)
    # a dozen roundings of float32 on numbers below 1
    np.testing.assert_allclose(seen[:, 1], expected, atol=2e-6)


def test_unknown_parameters_of_episodes_are_named():
    with pytest.raises(ValueError, match="pole_length"):
        episodes("CartPole-v1", {"pole_length": 1.0}, push_right, jax.random.key(0), 2, 3)
