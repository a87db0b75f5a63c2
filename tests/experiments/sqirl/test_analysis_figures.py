"""Golden table, depths and stickiness on few problems: numbers known otherwise, and figures."""

import numpy as np
import pytest

from experiments.reference import table
from experiments.sqirl import depths, golden, stickiness


def drawn(module, data, panels):
    """The figure has its panels, each with an x label, and every reference is measured; returns the measurements."""
    figure = module.plot(data)
    assert len(figure.axes) == panels and all(axis.get_xlabel() for axis in figure.axes)
    figure.canvas.draw()
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    table(module.REFERENCES, numbers)
    return numbers


def test_the_golden_table_counts_the_numbers_met():
    data = golden.run(golden.QUICK)
    numbers = drawn(golden, data, 3)
    met = {name: x.value for name, x in numbers.items() if name.endswith("printed numbers met")}
    here = [name for name in met if name.split(",")[0].split(":")[0] in data["problem"].values]
    assert len(here) == 2 * (len(golden.GROUPS["small"]) - 1) and all(met[name] == 9 for name in here)
    assert all(np.isnan(met[name]) for name in met.keys() - set(here))
    # A gap off by two units of its last digit, and a depth off by one, are seen.
    data["gap"].loc[dict(problem="frozen4-det", stickiness=0.0)] += 2e-5
    data["k95"].loc[dict(problem="frozen4-det", stickiness=0.0)] += 1
    assert golden.measured(data)["frozen4-det: printed numbers met"].value == 7


def test_every_golden_line_is_whole():
    rows = golden.golden_rows()
    assert len(rows) == 50 and all(set(row) == set(golden.COLUMNS) for row in rows.values())
    assert rows["deepsea-20", True]["min_k"] == "9" and rows["Empty-16x16 shaped", True]["solvable_k"] == "14"


def test_locks_need_their_dials_and_ice_falls():
    data = depths.run(depths.QUICK)
    numbers = drawn(depths, data, 4)
    assert numbers["problems whose J_k falls somewhere, stickiness 0"].value == 1
    for k in (2, 3, 4, 6):
        assert data["k95"].sel(problem=f"lock k={k}", stickiness=0.0) == k
    # With unlimited rungs J_k ends at the optimum.
    assert np.allclose(depths.share(data).isel(k=-1), 1, atol=1e-3)


def test_stickiness_moves_depths_both_ways():
    config = stickiness.Config(problems=("deepsea-20", "fourrooms"), stickiness=(0.0, 0.25))
    data = stickiness.run(config)
    drawn(stickiness, data, 3)
    least = data["min_k"].transpose("problem", "stickiness").values
    assert least.tolist() == [[13, 9], [1, 17]]
    # At the golden stickinesses the answers are those of the golden table.
    for p in (0.0, 0.25):
        again = golden.analysed("grids", p > 0)
        for name in config.problems:
            ours = data["effective_horizon"].sel(problem=name, stickiness=p).item()
            assert ours == pytest.approx(float(again[name].effective_horizon), rel=1e-9)
