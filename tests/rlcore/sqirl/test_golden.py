"""The golden table of the specification (section 6), in float64, to its printed digits: every entry of every row."""

import functools
import itertools
import re

import jax
import pytest

from envs import make
from rlcore.episodic import stacked
from rlcore.mdp import sticky
from rlcore.sqirl import analyze_episodic

LOCK = dict(id="combination_lock", actions=4, distractor=0.5)
EMPTY = dict(id="minigrid_empty")
SUITE = {
    "lock k=2": LOCK | dict(length=2),
    "lock k=3": LOCK | dict(length=3),
    "lock k=4": LOCK | dict(length=4),
    "lock k=6": LOCK | dict(length=6),
    "corridor-5 T10": dict(id="corridor", length=5, horizon=10),
    "corridor-10 T20": dict(id="corridor", length=10, horizon=20),
    "corridor-10 T40": dict(id="corridor", length=10, horizon=40),
    "deepsea-5": dict(id="deep_sea", size=5),
    "deepsea-10": dict(id="deep_sea", size=10),
    "deepsea-20": dict(id="deep_sea", size=20),
    "frozen4-det": dict(id="frozen_lake", size=4, slippery=False),
    "frozen4-slip": dict(id="frozen_lake", size=4, slippery=True),
    "frozen8-det": dict(id="frozen_lake", size=8, slippery=False),
    "fourrooms": dict(id="four_rooms"),
    "crossing9": dict(id="crossing"),
    "lavagap5": dict(id="lava_gap"),
    "cliff-0": dict(id="cliff", variant="0"),
    "catch-5x3": dict(id="catch", rows=5, columns=3),
    "riverswim-6 T20": dict(id="riverswim", length=6, horizon=20),
    "riverswim-6 T60": dict(id="riverswim", length=6, horizon=60),
    "Empty-5x5": EMPTY | dict(size=5),
    "Empty-6x6": EMPTY | dict(size=6),
    "Empty-8x8": EMPTY | dict(size=8),
    "Empty-16x16": EMPTY | dict(size=16),
    "Empty-16x16 shaped": EMPTY | dict(size=16, shaped=True),
    "KeyCorridorS3R1": dict(id="key_corridor"),
}
# Few shapes, so few programs: small state spaces, grids of 37 to 210 states, rooms with a heading, the large room.
GROUPS = {
    "small": [name for name in SUITE if re.match("lock|corr|deepsea-5|deepsea-10|frozen4|lava|catch|river", name)],
    "grids": ["deepsea-20", "frozen8-det", "fourrooms", "crossing9", "cliff-0"],
    "rooms": ["Empty-5x5", "Empty-6x6", "Empty-8x8", "KeyCorridorS3R1"],
    "large": ["Empty-16x16", "Empty-16x16 shaped"],
}
# MDP|J*|J_rand|min_k|first C-solvable k, gap there|W|J_1, J_2|k95, each without/with sticky actions (p = .25).
TABLE = """
lock k=2|1/.75|.1875/.171875|2/2|2,.5/2,.25|2/2|.5,1/.5,.75|2/2
lock k=3|1/.75|.140625/.1455|3/3|3,.5/3,.25|3/3|.5,.5/.5,.5|3/3
lock k=4|1/.75|.1289/.1340|4/4|4,.5/4,.25|4/4|.5,.5/.5,.5|4/4
lock k=6|1/.75|.1252/.1267|6/6|6,.5/6,.25|6/6|.5,.5/.5,.5|6/6
corridor-5 T10|1/1|.1748/.2852|1/1|1,.0625/1,.100|5/5|1,1/1,1|1/1
corridor-10 T20|1/1|.03842/.1090|1/1|1,.00195/1,.00682|10/10|1,1/1,1|1/1
corridor-10 T40|1/1|.1980/.3509|1/1|1,.00195/1,.00682|10/10|1,1/1,1|1/1
deepsea-5|.99/.99|.02625/.07129|1/1|1,.0605/1,.150|5/5|.99,.99/.99,.99|1/1
deepsea-10|.99/.99|-.004023/.002276|1/1|1,.000953/1,.0132|10/10|.99,.99/.99,.99|1/1
deepsea-20|.99/.99|-.004999/-.004934|13/9|13,.00131/9,.00102|20/20|0,0/0,0|13/9
frozen4-det|1/.999637|.01244/.01943|1/1|1,.00195/1,.000315|6/6|1,1/.9996,.9996|1/1
frozen4-slip|.461601/.224332|.01391/.01534|1/12|1,1.95e-5/12,5.81e-5|15/14|.4616,.3734/.1530,.1529|1/7
frozen8-det|1/1|.001160/.006198|1/1|1,2.38e-7/16,1.83e-4|14/14|1,1/1,1|1/1
fourrooms|1/1|.0002131/.001053|1/17|1,4.0e-9/17,8.57e-5|20/20|1,1/1,1|1/1
crossing9|1/.999998|.01369/.02305|1/1|1,1.43e-5/1,3.22e-5|12/12|1,1/1,1|1/1
lavagap5|1/.999929|.03128/.04238|1/1|1,.0156/1,.0115|4/4|1,1/.9999,.9999|1/1
cliff-0|1/1|2.471e-4/.001661|1/1|1,5.96e-8/1,6.77e-6|13/14|1,1/1,1|1/1
catch-5x3|1/.997396|.3333/.3333|1/3|1,.333/3,.0156|2/5|1,1/.9857,.9857|1/1
riverswim-6 T20|.169863/.169858|.002189/.004282|6/6|6,2.13e-4/6,1.72e-4|7/7|.005,.005/.1695,.1698|4/1
Empty-5x5|1/1|.7620/.7258|1/1|1,.00412/1,.00293|5/5|1,1/1,1|1/1
Empty-6x6|1/1|.4993/.5057|1/1|1,4.57e-4/1,7.32e-4|7/7|1,1/1,1|1/1
Empty-8x8|1/1|.1784/.2151|1/1|1,5.65e-6/1,4.58e-5|11/11|1,1/1,1|1/1
Empty-16x16|1/1|4.604e-4/.002123|1/1|1,1.31e-13/1,6.98e-10|27/27|1,1/1,1|1/1
Empty-16x16 shaped|3.7/3.7|.6883/.7718|1/13|1,.0154/14,8.72e-4|1/1|3.7,3.7/3.7,3.7|1/1
KeyCorridorS3R1|1/1|.0032357/.0010069|1/1|1,1.70e-11/16,1.83e-4|15/16|1,1/1,1|1/1
"""
# What changes at tol = 1e-9: (name, sticky): (first C-solvable k, its gap), and min_k where it changes too.
TIGHTER = {
    ("frozen4-slip", False): (13, "1.67e-4", 13),
    ("crossing9", True): (2, "1.15e-6", 2),
    ("Empty-16x16", True): (13, "4.29e-6", 13),
    ("corridor-10 T20", True): (None, ".0375", None),
    ("frozen4-slip", True): (None, "2.7e-6", None),
    ("frozen8-det", True): (None, "2.79e-9", None),
    ("fourrooms", True): (None, "2.79e-9", None),
    ("KeyCorridorS3R1", True): (None, "2.79e-9", None),
    ("riverswim-6 T60", False): (None, "7.1e-5", None),
    ("riverswim-6 T60", True): (None, "5.75e-5", None),
    ("Empty-16x16 shaped", True): (None, "7.51e-4", None),
}


@jax.jit
def analyze_suite(suite, tol):
    return jax.vmap(lambda one: analyze_episodic(one, max_k=30, tol=tol))(suite)


def as_printed(value, text):
    """Whether a number rounds to the printed one; short decimals (.5, 1, .99) are exact to 4 places and more."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2])
    if not exponent and places < 3:
        places = 4
    return abs(value - float(text)) <= 0.5000001 * 10.0 ** (int(exponent or 0) - places)


@functools.cache
def analysed(group, sticking, tol):
    mdps = [make(**SUITE[name]) for name in GROUPS[group]]
    suite = stacked([sticky(mdp, 0.25) for mdp in mdps] if sticking else mdps)
    answers = jax.device_get(analyze_suite(suite, tol))
    return {name: jax.tree.map(lambda x, i=i: x[i], answers) for i, name in enumerate(GROUPS[group])}


groups = [pytest.param(g, marks=pytest.mark.slow) if g == "large" else g for g in GROUPS]


@pytest.mark.parametrize("group", groups)
@pytest.mark.parametrize("sticking", [False, True])
def test_the_golden_table(group, sticking):
    rows = [[cell.strip() for cell in row.split("|")] for row in TABLE.strip().splitlines()]
    assert {row[0] for row in rows} | {"riverswim-6 T60"} == set(itertools.chain(*GROUPS.values())) == set(SUITE)
    found = analysed(group, sticking, 1e-4)
    wrong = []
    for name, *cells in (row for row in rows if row[0] in found):
        best, random, min_k, separated, window, returns, k95 = (cell.split("/")[sticking].strip() for cell in cells)
        first, gap = separated.split(",")
        ours, (one, two) = found[name], returns.split(",")
        for field, value, text in [
            ("optimal_return", ours.optimal_return, best),
            ("random_return", ours.random_return, random),
            ("gap", ours.gap, gap),
            ("J_1", ours.returns_by_k[0], one),
            ("J_2", ours.returns_by_k[1], two),
        ]:
            wrong += [] if as_printed(float(value), text) else [f"{name}: {field} {value}, expected {text}"]
        for field, value, text in [
            ("min_k", ours.min_k, min_k),
            ("solvable_k", ours.solvable_k, first),
            ("window", ours.window, window),
            ("k95", ours.k95, k95),
        ]:
            wrong += [] if int(value) == int(text) else [f"{name}: {field} {value}, expected {text}"]
    assert wrong == []


@pytest.mark.parametrize("group", groups)
@pytest.mark.parametrize("sticking", [False, True])
def test_a_tighter_tolerance_changes_what_it_should_and_nothing_else(group, sticking):
    loose, tight = (analysed(group, sticking, tol) for tol in (1e-4, 1e-9))
    wrong = []
    for name, ours in tight.items():
        first, gap, min_k = TIGHTER.get((name, sticking), (None, None, None))
        before = loose[name]
        expected_gap = as_printed(float(ours.gap), gap) if gap else float(ours.gap) == float(before.gap)
        wrong += [] if expected_gap else [f"{name}: gap {ours.gap}, expected {gap or before.gap}"]
        for field, value, wanted in [
            ("solvable_k", ours.solvable_k, first or before.solvable_k),
            ("min_k", ours.min_k, min_k or before.min_k),
            ("window", ours.window, before.window),
            ("k95", ours.k95, before.k95),
        ]:
            wrong += [] if int(value) == int(wanted) else [f"{name}: {field} {value}, expected {wanted}"]
    assert wrong == []


def test_printed_digits_are_held_to():
    assert as_printed(0.12455, ".1245") and not as_printed(0.1256, ".1255") and as_printed(1.314e-13, "1.31e-13")
    assert not as_printed(0.9989, "1") and not as_printed(1.316e-13, "1.31e-13") and not as_printed(0.5002, ".5")
