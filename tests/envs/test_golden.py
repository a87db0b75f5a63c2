"""Section 6 of the BRIDGE/SQIRL specification: J* and J_random of every family, without and with sticky actions."""

import jax
import pytest

import envs
from rlcore.mdp import sticky
from rlcore.planning import backward_induction

STICKINESS = 0.25
LOCK = dict(actions=4, distractor=0.5)
# id, parameters, J* and J_random at p = 0, J* and J_random at p = .25; as printed
TABLE = [
    ("combination_lock", dict(length=2, **LOCK), "1", ".1875", ".75", ".171875"),
    ("combination_lock", dict(length=3, **LOCK), "1", ".140625", ".75", ".1455"),
    ("combination_lock", dict(length=4, **LOCK), "1", ".1289", ".75", ".1340"),
    ("combination_lock", dict(length=6, **LOCK), "1", ".1252", ".75", ".1267"),
    ("corridor", dict(length=5, horizon=10), "1", ".1748", "1", ".2852"),
    ("corridor", dict(length=10, horizon=20), "1", ".03842", "1", ".1090"),
    ("corridor", dict(length=10, horizon=40), "1", ".1980", "1", ".3509"),
    ("deep_sea", dict(size=5), ".99", ".02625", ".99", ".07129"),
    ("deep_sea", dict(size=10), ".99", "-.004023", ".99", ".002276"),
    ("deep_sea", dict(size=20), ".99", "-.004999", ".99", "-.004934"),
    ("frozen_lake", dict(size=4, slippery=False), "1", ".01244", ".999637", ".01943"),
    ("frozen_lake", dict(size=4, slippery=True), ".461601", ".01391", ".224332", ".01534"),
    ("frozen_lake", dict(size=8, slippery=False), "1", ".001160", "1", ".006198"),
    ("four_rooms", {}, "1", ".0002131", "1", ".001053"),
    ("crossing", {}, "1", ".01369", ".999998", ".02305"),
    ("lava_gap", {}, "1", ".03128", ".999929", ".04238"),
    ("cliff", dict(variant="0"), "1", ".0002471", "1", ".001661"),
    ("catch", dict(rows=5, columns=3), "1", ".3333", ".997396", ".3333"),
    ("riverswim", dict(length=6, horizon=20), ".169863", ".002189", ".169858", ".004282"),
    ("minigrid_empty", dict(size=5), "1", ".7620", "1", ".7258"),
    ("minigrid_empty", dict(size=6), "1", ".4993", "1", ".5057"),
    ("minigrid_empty", dict(size=8), "1", ".1784", "1", ".2151"),
    ("minigrid_empty", dict(size=16), "1", ".0004604", "1", ".002123"),
    ("minigrid_empty", dict(size=16, shaped=True), "3.7", ".6883", "3.7", ".7718"),
    ("key_corridor", {}, "1", ".0032357", "1", ".0010069"),
]
NAMES = [f"{id}{list(parameters.values()) or ''}" for id, parameters, *_ in TABLE]


def half_unit(printed: str) -> float:
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def six_decimals(printed: str) -> float:
    # The J* column has six decimals and drops trailing zeros: "1" beside ".999998" is 1.000000.
    return half_unit(".000000")


@pytest.mark.parametrize(("id", "parameters", "best", "random", "sticky_best", "sticky_random"), TABLE, ids=NAMES)
def test_values_to_the_printed_digits(
    id, parameters, best, random, sticky_best, sticky_random, optimal_value, random_value
):
    mdp = envs.make(id, **parameters)
    assert optimal_value(mdp) == pytest.approx(float(best), rel=0, abs=six_decimals(best))
    assert random_value(mdp) == pytest.approx(float(random), rel=0, abs=half_unit(random))
    assert optimal_value(mdp, STICKINESS) == pytest.approx(float(sticky_best), rel=0, abs=six_decimals(sticky_best))
    assert random_value(mdp, STICKINESS) == pytest.approx(float(sticky_random), rel=0, abs=half_unit(sticky_random))


def test_key_corridor_agrees_with_the_official_program(random_value):
    # Full digits of T12. Each return is a sum of 100 steps of terms in [0, 1]: far below 1e-13 of rounding.
    mdp = envs.make("key_corridor")
    assert random_value(mdp) == pytest.approx(0.0032357130021994796, rel=0, abs=1e-13)
    assert random_value(mdp, STICKINESS) == pytest.approx(0.0010068890119441542, rel=0, abs=1e-13)


def value_from_start(mdp, stickiness: float, rule: str) -> float:
    """The library's answer; stickiness is a leaf, so both of its values share one compilation."""
    problem = sticky(mdp, stickiness)
    return float(jax.device_get(backward_induction(problem, rule).value)[0] @ jax.device_get(problem.initial))


@pytest.mark.parametrize(
    ("id", "parameters"),
    [
        ("combination_lock", dict(length=4, **LOCK)),
        ("deep_sea", dict(size=20)),
        ("frozen_lake", dict(size=4, slippery=True)),
        ("catch", dict(rows=5, columns=3)),
        ("riverswim", dict(length=6, horizon=20)),
        ("minigrid_empty", dict(size=16, shaped=True)),
        ("key_corridor", {}),
    ],
)
def test_the_librarys_backward_induction_agrees(id, parameters, optimal_value, random_value):
    mdp = envs.make(id, **parameters)
    for p in (0.0, STICKINESS):
        # at most 100 sweeps of sums of a dozen terms below 4: 1e-12 is over ten times their rounding
        assert value_from_start(mdp, p, "max") == pytest.approx(optimal_value(mdp, p), rel=0, abs=1e-12)
        assert value_from_start(mdp, p, "mean") == pytest.approx(random_value(mdp, p), rel=0, abs=1e-12)
