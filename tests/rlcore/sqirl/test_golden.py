"""The golden table of the specification (section 6), in float64, to its printed digits: every entry of every row."""

import functools
import itertools

import pytest

from envs.effective_horizon import GOLDEN
from experiments.sqirl.golden import COLUMNS, COUNTS, GROUPS, TIGHTER, golden_rows, half_digit, row
from experiments.sqirl.golden import analysed as analysed_once

analysed = functools.cache(analysed_once)


def as_printed(value, text):
    """Whether a number rounds to the printed one."""
    return abs(value - float(text)) <= half_digit(text)


groups = [pytest.param(g, marks=pytest.mark.slow) if g == "large" else g for g in GROUPS]


@pytest.mark.parametrize("group", groups)
@pytest.mark.parametrize("sticking", [False, True])
def test_the_golden_table(group, sticking):
    rows = golden_rows()
    names = {name for name, _ in rows}
    assert names | {"riverswim-6 T60"} == set(itertools.chain(*GROUPS.values())) == set(GOLDEN)
    found = analysed(group, sticking, 1e-4)
    wrong = []
    for name in found.keys() & names:
        ours = row(found[name])
        for column in COLUMNS:
            text = rows[name, sticking][column]
            met = int(ours[column]) == int(text) if column in COUNTS else as_printed(ours[column], text)
            wrong += [] if met else [f"{name}: {column} {ours[column]}, expected {text}"]
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
