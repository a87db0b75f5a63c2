"""What every tabular family promises, on one small instance of each, and every call that it must refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import checks
from rlcore.mdp import MDP, backup, sticky

SAMPLES = {
    "american_put": dict(periods=4, drift=-0.3, volatility=0.3),
    "betting": dict(stages=3, money=5),
    "catch": dict(rows=5, columns=3),
    "catch_match": dict(balls=2, size=3, stick=0.2),
    "cliff": dict(variant="r"),
    "combination_lock": dict(length=3, actions=4, distractor=0.5),
    "corridor": dict(length=5, horizon=10),
    "crossing": {},
    "deep_sea": dict(size=5),
    "deep_sea_treasure": {},
    "desired_returns": dict(slip=0.2),
    "door_key": dict(size=5, seed=3),
    "dupchain": dict(length=4, copies=3),
    "four_rooms": {},
    "frozen_lake": dict(size=4, slippery=True),
    "garnet": dict(seed=1, states=7, actions=3, branching=2, horizon=6, discount=1.0),
    "hazards": {},
    "homeostasis": dict(slip=0.2),
    "key_corridor": {},
    "lava_gap": {},
    "lotteries": {},
    "minigrid_empty": dict(size=5, shaped=True),
    "mud_and_nails": {},
    "obstacle": {},
    "riverswim": dict(length=6, horizon=20),
    "simple_crossing": dict(size=9, walls=3, seed=0),
    "small_asterix": dict(seed=1, horizon=6),
    "small_breakout": dict(seed=1, horizon=8),
    "small_freeway": dict(seed=1, horizon=8),
    "small_invaders": dict(seed=1, horizon=8),
    "zigzag": {},
}

# end by their rules, not by a horizon
ENDLESS = {"betting", "deep_sea_treasure", "mud_and_nails", "obstacle"}
# some actions are missing in some states
PARTIAL = {"betting", "deep_sea_treasure"}
# a vector of rewards beside the MDP
VECTORS = {"hazards", "homeostasis"}

# id, changes to its sample, what the error must name
REFUSED = [
    ("american_put", dict(periods=0), "periods: found 0"),
    ("american_put", dict(drift=3.0), r"drift: found 3\.0"),
    ("american_put", dict(volatility=0.0), r"volatility: found 0\.0"),
    ("betting", dict(stages=0), "stages: found 0"),
    ("betting", dict(money=-1), "money: found -1"),
    ("catch", dict(rows=1), "rows: found 1, expected an integer >= 2"),
    ("catch", dict(columns=0), "columns: found 0"),
    ("catch_match", dict(balls=0), "balls: found 0"),
    ("catch_match", dict(size=1), "size: found 1"),
    ("catch_match", dict(stick=1.1), r"stick: found 1\.1"),
    ("cliff", dict(variant="s"), "variant: found 's', expected one of 'r', '0'"),
    ("combination_lock", dict(length=0), "length: found 0"),
    ("combination_lock", dict(actions=1), "actions: found 1"),
    ("combination_lock", dict(distractor=1.5), "distractor: found 1.5"),
    ("combination_lock", dict(distractor=float("nan")), "distractor: found nan"),
    ("corridor", dict(length=0), "length: found 0"),
    ("corridor", dict(horizon=0), "horizon: found 0"),
    ("deep_sea", dict(size=0), "size: found 0"),
    ("desired_returns", dict(slip=-0.1), r"slip: found -0\.1"),
    ("door_key", dict(size=4), "size: found 4"),
    ("door_key", dict(seed=-1), "seed: found -1"),
    ("dupchain", dict(length=0), "length: found 0"),
    ("dupchain", dict(copies=0), "copies: found 0"),
    ("frozen_lake", dict(size=5), "size: found 5, expected one of 4, 8"),
    ("garnet", dict(states=0), "states: found 0"),
    ("garnet", dict(actions=0), "actions: found 0"),
    ("garnet", dict(branching=8), r"branching: found 8, expected an integer in \[1, 7\]"),
    ("garnet", dict(seed=-1), "seed: found -1"),
    ("garnet", dict(discount=1.5), "discount: found 1.5"),
    ("garnet", dict(discount=jnp.asarray(1.5, jnp.float32)), "discount: found 1.5"),
    ("garnet", dict(termination=-0.1), "termination: found -0.1"),
    ("garnet", dict(horizon=0), "horizon: found 0"),
    ("homeostasis", dict(slip=2.0), r"slip: found 2\.0"),
    ("minigrid_empty", dict(size=3), "size: found 3"),
    ("riverswim", dict(length=1), "length: found 1"),
    ("riverswim", dict(horizon=0), "horizon: found 0"),
    ("simple_crossing", dict(size=3), "size: found 3"),
    ("simple_crossing", dict(size=8), "size: found 8, expected an odd integer"),
    ("simple_crossing", dict(walls=0), "walls: found 0"),
    ("simple_crossing", dict(walls=7), r"walls: found 7, expected an integer in \[1, 6\]"),
    ("simple_crossing", dict(seed=-1), "seed: found -1"),
    ("small_asterix", dict(seed=-1), "seed: found -1"),
    ("small_asterix", dict(horizon=0), "horizon: found 0"),
    ("small_breakout", dict(seed=-1), "seed: found -1"),
    ("small_breakout", dict(horizon=0), "horizon: found 0"),
    ("small_freeway", dict(seed=-1), "seed: found -1"),
    ("small_freeway", dict(horizon=0), "horizon: found 0"),
    ("small_invaders", dict(seed=-1), "seed: found -1"),
    ("small_invaders", dict(horizon=0), "horizon: found 0"),
]


SIZES = {  # id, parameters, rows as the specification or a count by hand gives them
    "Empty-5": ("minigrid_empty", dict(size=5), 4 * (9 - 1)),
    "Empty-16": ("minigrid_empty", dict(size=16), 780),  # BRIDGE keeps 784: the four at the goal
    "KeyCorridor": ("key_corridor", {}, 156),
    "frozen4": ("frozen_lake", dict(size=4, slippery=False), 11),
    "frozen8": ("frozen_lake", dict(size=8, slippery=True), 53),
    "four rooms": ("four_rooms", {}, 103),
    "crossing": ("crossing", {}, 42),
    "lava gap": ("lava_gap", {}, 6),
    "cliff": ("cliff", dict(variant="0"), 37),
    "deep sea": ("deep_sea", dict(size=6), 21),
    "catch": ("catch", dict(rows=2, columns=4), 1 + 4),
    # the specification counts the end as a state
    "betting": ("betting", {}, 756 - 1),
    "obstacle": ("obstacle", {}, 100 - 1),
    "treasure": ("deep_sea_treasure", {}, 1079 - 1),
    "mud": ("mud_and_nails", {}, 2 * (3 * 9 - 1)),
    "desired returns": ("desired_returns", {}, 25 - 2),
    "lotteries": ("lotteries", {}, 3 + 8 + 6 - 1),
    "homeostasis": ("homeostasis", {}, 9),
    "hazards": ("hazards", {}, 10 - 1),
    "put": ("american_put", dict(periods=10), 10 * 11 // 2),
    # 5 columns, and the places that a paddle reaches from the middle: 1 + 3 + 5 + 5 + 5 with all balls, then any
    "catch match": ("catch_match", dict(balls=2, size=5), 5 * (1 + 3 + 5 + 5) + 5 * 4 * 5),
}


def made(id, **parameters) -> MDP:
    problem = envs.make(id, **parameters)
    return problem.problem if id in VECTORS else problem


def reachable(mdp) -> np.ndarray:
    reached = np.asarray(mdp.initial) > 0
    follows = np.asarray((mdp.prob > 0) & ~mdp.terminal)
    for _ in range(len(reached)):
        reached = reached.copy()
        reached[np.asarray(mdp.next_state)[reached][follows[reached]]] = True
    return reached


def test_every_plain_family_has_a_sample_here():
    assert sorted(SAMPLES) == [id for id in envs.list() if "/" not in id]


@pytest.mark.parametrize("id", SAMPLES)
def test_a_sample_is_a_sound_problem(id):
    mdp = made(id, **SAMPLES[id])
    assert isinstance(mdp, MDP)
    num_states, num_actions, num_outcomes = mdp.prob.shape
    assert mdp.discount == 1 and (mdp.horizon is None if id in ENDLESS else mdp.horizon >= 1)
    assert all(leaf.dtype == jnp.float64 for leaf in (mdp.prob, mdp.reward, mdp.discount, mdp.initial))
    # a sum of B rounded terms
    np.testing.assert_allclose(mdp.prob.sum(-1), mdp.available, rtol=0, atol=num_outcomes * np.finfo(float).eps)
    first = np.asarray(mdp.initial) > 0
    if id == "catch_match":  # the first ball's column is random
        assert first.sum() == 3 and mdp.initial.sum() == 1
    else:
        np.testing.assert_array_equal(mdp.initial, np.eye(num_states)[0])
    assert mdp.available.shape == (num_states, num_actions) and mdp.available.any(-1).all()
    assert mdp.available.all() == (id not in PARTIAL)
    assert id == "garnet" or reachable(mdp).all()


@pytest.mark.parametrize("id", SAMPLES)
def test_padding_and_endings_are_inert(id):
    mdp = made(id, **SAMPLES[id])
    if id == "garnet":  # every slot is an outcome, next_state is drawn before the ending
        assert (mdp.prob > 0).all()
        return
    stays = np.broadcast_to(np.arange(len(mdp.initial))[:, None, None], mdp.prob.shape)
    idle = np.asarray((mdp.prob == 0) | mdp.terminal)
    np.testing.assert_array_equal(np.asarray(mdp.next_state)[idle], stays[idle])
    assert not np.asarray(mdp.reward)[np.asarray(mdp.prob) == 0].any()


# repeating an action needs every state to have it
@pytest.mark.parametrize("id", sorted(set(SAMPLES) - PARTIAL))
def test_sticky_with_probability_zero_is_the_problem_itself(id):
    mdp = made(id, **SAMPLES[id])
    num_states, num_actions = mdp.available.shape
    value = jnp.linspace(-1.0, 2.0, num_states)
    native = backup(mdp, value)
    lifted = backup(sticky(mdp, 0.0).at_time(1), jnp.repeat(value, num_actions))
    np.testing.assert_array_equal(
        lifted.reshape(num_states, num_actions, num_actions), native[:, None, :].repeat(num_actions, 1)
    )


def test_makers_follow_the_precision_in_force():
    with jax.enable_x64(False):
        for id in ("catch", "garnet"):
            mdp = made(id, **SAMPLES[id])
            assert {leaf.dtype.name for leaf in jax.tree.leaves(mdp)} == {"int32", "float32", "bool"}


@pytest.mark.parametrize(("id", "parameters", "rows"), SIZES.values(), ids=list(SIZES))
def test_number_of_states(id, parameters, rows):
    assert made(id, **parameters).prob.shape[0] == rows


@pytest.mark.parametrize(("id", "changes", "message"), REFUSED, ids=[f"{id}-{changes}" for id, changes, _ in REFUSED])
def test_parameters_out_of_range_are_named(id, changes, message):
    with pytest.raises(ValueError, match=message):
        envs.make(id, **(SAMPLES[id] | changes))


def test_every_parameter_of_every_sample_is_refused_once():
    numeric = {(id, name) for id, parameters in SAMPLES.items() for name in parameters} - {
        ("frozen_lake", "slippery"),  # flags and their TypeError: below
        ("minigrid_empty", "shaped"),
    }
    assert numeric <= {(id, name) for id, changes, _ in REFUSED for name in changes}


def test_the_checks_tell_types_apart():
    assert checks.check_integer("n", np.int64(3), 1) == 3
    assert checks.check_number("x", 1, 0.0, 2.0) == 1.0
    assert checks.check_flag("f", np.True_) is True
    for bad in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match="n: found"):
            checks.check_integer("n", bad, 1)
    for bad in (False, "2", None, 1j):
        with pytest.raises(TypeError, match="x: found"):
            checks.check_number("x", bad, 0.0, 1.0)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="x: found"):
            checks.check_number("x", bad, 0.0, float("inf"))
    for bad in (0, 1, "yes"):
        with pytest.raises(TypeError, match="f: found"):
            checks.check_flag("f", bad)
