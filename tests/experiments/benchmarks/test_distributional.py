"""The benchmark of return distributions compares like with like: peers are right, and wrong answers do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import distributional, distributional_peers, peer
from rlcore.distributional import stock_grid, stock_vi, two_slope
from rlcore.mdp import tabular


def answers(build, instance):
    return {method: prepare()[0][0]() for method, prepare in build(instance).items()}


def test_numpy_and_the_sweep_compute_stock_values():
    instance = distributional.make_instance("values", (6, 2, 3, 10, 15, 1))
    assert np.all(np.abs(instance["reward"]) <= 1) and instance["slopes"].shape == (1, 2)
    tables = (jnp.asarray(instance[name]) for name in ("next_state", "prob", "reward"))
    grid = stock_grid(-10.0, 10.0, 1.0, rounding="linear")
    below, above = instance["slopes"][0]
    solution = stock_vi(tabular(*tables, discount=0.9), two_slope(above, below), grid, tol=-1.0, max_steps=15)
    assert int(solution.steps) == 15
    # 15 sweeps of sums of at most six products of numbers below 20, in another order: some hundred roundings of 4e-15
    (ours,) = answers(distributional_peers.rlcore_values, instance).values()
    np.testing.assert_allclose(ours[0], solution.value.value, rtol=0, atol=1e-13)
    for slopes in ([[1.0, 0.2]], [[1.0, -1.0]], [[-0.5, 2.0]]):  # the least mean counts where a slope is negative
        instance["slopes"] = np.array(slopes)
        (ours,) = answers(distributional_peers.rlcore_values, instance).values()
        (theirs,) = answers(distributional_peers.numpy_values, instance).values()
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-13)


def test_all_ways_sweep_over_the_same_slopes():
    instance = distributional.make_instance("slopes", (5, 2, 3, 8, 10, 4))
    ways = distributional_peers.rlcore_slopes(instance)
    assert list(ways) == ["one vmap, 1", "one vmap, 4", "lax.map, 1", "lax.map, 4"]
    found = {method: ways[method]()[0][0]() for method in ("one vmap, 1", "one vmap, 4", "lax.map, 4")}
    assert [len(value) for value in found.values()] == [1, 4, 4]
    most = found["one vmap, 4"]
    assert np.ptp(most, axis=0).max() > 0.1  # utilities differ
    for value in found.values():
        np.testing.assert_allclose(value, most[: len(value)], rtol=0, atol=1e-13)


def test_what_the_machine_is_asked_for():
    instance = distributional.make_instance("slopes", (5, 2, 3, 8, 10, 4))
    programs = {method: prepare() for method, prepare in distributional_peers.machine_slopes(instance).items()}
    assert [units for _, units in programs.values()] == [24 * 2**12 * 64, 24 * 2**14 * 4, 50 * 30 * 17, 2 * 128**3]
    streamed, _, looked_up, _ = (solve() for (solve, _), _ in programs.values())
    # x + y / 2 again and again tends to 2 x: 64 times, to its rounding
    np.testing.assert_allclose(streamed, 2 * np.linspace(0, 1, 2**12), rtol=1e-15)
    assert looked_up.shape == (5 * 17,) and np.all((looked_up >= 0) & (looked_up <= 1))


def test_curves_and_scattered_probabilities_are_the_same_laws():
    instance = distributional.make_instance("backups", (4, 2, 3, 6, 13, 3))
    found = answers(distributional_peers.rlcore_backups, instance)
    found |= answers(distributional_peers.numpy_backups, instance)
    curves = found.pop("stop-loss curves")
    assert curves.shape == (4, 15, 13) and len(found) == 3
    assert np.all(np.diff(curves, 2) >= -1e-12) and curves.max() > 5
    for other in found.values():  # curves up to 20, cumulated over 13 atoms
        np.testing.assert_allclose(other, curves, rtol=0, atol=1e-12)


def rows_of(tmp_path, rows):
    out = []
    for number, (name, method, answer) in enumerate(rows):
        place = tmp_path / f"{number}.npy"
        np.save(place, np.asarray(answer, float))
        out.append({"peer": name, "version": "1", "method": method, "answer": str(place), "median_s": 1.0 + number})
        out[-1] |= {"units": 1, "processor_s": 1.0, "compile_s": 50.0, "bytes": None, "peak": 2**30, "load": 0.0}
    return [*out, {"peer": "absent", "method": "-", "error": "stopped at 1 s"}]


def test_a_wrong_value_is_no_rival(tmp_path):
    right = np.zeros((1, 2, 3))
    rows = [("rlcore", "stock_vi", right), ("NumPy", "a", right + 1e-12), ("NumPy", "b", right + 1e-8)]
    rows = rows_of(tmp_path, [*rows, ("NumPy", "c", right * np.nan)])
    case = "values, 100 states"
    distributional.judge("values", rows, {})
    assert [row.get("counts") for row in rows] == [True, True, False, False, None]
    assert distributional.told("values", rows)["NumPy's least time over ours"] == 2
    text = distributional.table(case, "values", rows)
    assert text.count("DOES NOT COUNT") == 2 and "stopped at 1 s" in text and text.count("NOT MET") == 2
    rows[0]["median_s"], rows[1]["ratio"] = 0.2, 5.0
    assert distributional.table(case, "values", rows).count(": met") == 2
    rows[0]["counts"] = False  # answers that do not count meet nothing
    assert distributional.table(case, "values", rows).count("NOT MET") == 2


def test_the_scatter_is_compared_with_the_curves(tmp_path):
    right = np.zeros((2, 3))
    rows = [("rlcore", "stop-loss curves", right), ("rlcore", "scatter projection, by state", right)]
    rows = rows_of(tmp_path, [*rows, ("rlcore", "scatter projection, all states", right + 1e-9)])
    distributional.judge("backups", rows, {})
    quantity = distributional.ASKED["backups of laws, 201 atoms"][0][0]
    # the third is wrong and slower: the second took twice as long as the first
    assert rows[2]["counts"] is False and distributional.told("backups", rows)[quantity] == 2


def test_shares_of_the_machine(tmp_path):
    instance = distributional.make_instance("slopes", (2, 1, 2, 1, 10, 4))
    outcomes = 2 * 1 * 2 * 3 * 10
    row = {"method": "one vmap, 4", "units": 4, "median_s": 2.0, "bytes": 2**26}
    looked_up, operations, cached = "look-ups", "operations", "bytes streamed, in cache"
    machine = {looked_up: 100.0, operations: 1e3, cached: 1e9, "bytes streamed, out of cache": 1e8}
    found = distributional.shares(row, instance, machine)
    assert found[looked_up] == pytest.approx(2 * outcomes * 4 / 100 / 2)
    assert found[operations] == pytest.approx(12 * outcomes * 4 / 1e3 / 2)
    assert found["bytes streamed, out of cache"] == pytest.approx(2 * 2**26 * 10 / 1e8 / 2) and len(found) == 3
    found = distributional.shares(row | {"method": "lax.map, 4", "bytes": 2**20}, instance, machine)
    assert found[cached] == pytest.approx(2 * 2**20 * 10 * 4 / 1e9 / 2)  # four programs in a row
    rows = rows_of(tmp_path, [("machine", looked_up, [0.0]), ("rlcore", "one vmap, 1", np.zeros((1, 2, 3)))])
    rows[0]["min_s"], rows[1]["bytes"] = 0.5, 0
    distributional.judge("slopes", rows, instance)
    assert rows[1]["shares"] == {looked_up: pytest.approx(2 * outcomes / 2 / 2)} and "ratio" not in rows[0]
    assert "look-ups alone" in distributional.table("a case", "slopes", rows)


def test_the_growth_of_time_is_told(tmp_path):
    rows = rows_of(tmp_path, [("rlcore", f"lax.map, {n}", np.zeros((n, 2, 3))) for n in (1, 4, 16)])
    for row, n in zip(rows, (1, 4, 16), strict=False):
        row |= {"units": n, "median_s": 0.3 * n**1.5, "counts": True}
    assert distributional.exponents(rows)[1].endswith(": lax.map 1.50")
    assert distributional.exponents(rows[:1]) == []


def test_goldens_and_laws_of_the_suite(tmp_path):
    instance = distributional.make_instance("suite", ("betting",))
    golden = distributional.GOLDEN["betting"]
    found = [
        [level, cost, 90, cost, 80, 0] for level, cost in zip(distributional.SUITE["betting"], golden, strict=True)
    ]
    found[1][1] += 1e-6  # no golden, nor what the law says
    found[2][3] += 1e-6
    rows = rows_of(tmp_path, [("rlcore", "maximize_cvar", found)])
    distributional.judge("suite", rows, instance)
    numbers = distributional.told("suite", rows)
    assert numbers["golden costs met to six decimals"] == 2 and numbers["costs that the exact laws have"] == 1
    text = distributional.table("suite, twelve risks", "suite", rows)
    assert "| betting | 0.1 | 93.862633 | 93.862633 |" in text and ": 2, asked at least 9: NOT MET" in text


def test_a_law_without_the_golden_cost_does_not_count(tmp_path):
    instance = distributional.make_instance("treasure", ("deep_sea_treasure", 0.2, -1000, 5, 201))
    rows = rows_of(tmp_path, [("rlcore", "dist_vi", [453.872599]), ("rlcore", "dist_vi", [453.8727])])
    distributional.judge("treasure", rows, instance)
    assert [row.get("counts") for row in rows] == [True, False, None]
    assert ": 1, asked below 4: met" in distributional.table("treasure, 201 atoms", "treasure", rows)


def test_regrets_of_the_agent(tmp_path):
    rows = [("rlcore", "2 seeds", [[0.02, 0.06], [0.1, 0.2]]), ("rlcore", "1 seed", [[0.04, 0.0]])]
    rows = rows_of(tmp_path, [*rows, ("rlcore", "2 seeds, stock frozen", [[0.5, 0.3], [0.2, 0.4]])])
    distributional.judge("agent", rows, {})
    numbers = distributional.told("agent", rows)
    assert numbers["mean regret"] == pytest.approx(0.095) and numbers["worst seed's regret"] == pytest.approx(0.15)
    assert numbers["mean regret with the stock frozen"] == pytest.approx(0.35)
    assert numbers["seconds of one seed after compilation"] == 2
    text = distributional.table("agent, 6000 iterations", "agent", rows)
    assert "regrets 0.040, 0.150" in text and text.count("NOT MET") == 2 and text.count(": met") == 3


def test_every_quantity_that_is_asked_of_is_told():
    assert set(distributional.ASKED) == set(distributional.CASES)
    assert peer.reached((("a", "below", 1.0), ("b", "at most", 1.0)), {"b": 1.0}) == [
        "- a: nan, asked below 1: NOT MET",
        "- b: 1, asked at most 1: met",
    ]


@pytest.mark.slow
def test_a_short_agent_has_regrets():
    (_, prepare, _) = distributional_peers.rlcore_agent({"seeds": 1, "steps": 3, "episodes": 5}).values()
    (solve, _), units = prepare()
    regrets = solve()
    assert units == 1 and regrets.shape == (1, 9) and np.all(regrets > -1.1)  # five episodes may be lucky
    assert jax.config.jax_enable_x64
