"""The benchmark of robust learning compares like with like: the closed forms agree, and wrong answers do not count."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import robust, robust_peers
from rlcore.robust import worst_case


@pytest.fixture(scope="module")
def operators():
    instance = robust.make_instance("operators", (6, 5, 4))
    numbers = {}
    for name, build in (("NumPy", robust_peers.numpy_operators), ("SciPy", robust_peers.scipy_operators)):
        numbers[name] = {kind: prepare()[0][0]() for kind, prepare in build(instance).items()}
    return instance, numbers


@pytest.mark.parametrize("kind", robust_peers.KINDS)
def test_numpy_and_the_search_find_the_worst_case(operators, kind):
    instance, numbers = operators
    exact = np.array(
        [
            worst_case(kind, jnp.asarray(m), jnp.asarray(v), float(instance["level"])).value
            for m, v in zip(instance["laws"], instance["values"], strict=True)
        ]
    )
    # closed forms of values below 1, in other orders of summation
    np.testing.assert_allclose(numbers["NumPy"][kind], exact, atol=1e-14)
    # Nelder-Mead stops at 1e-4 in the argument; a dual value is never above the worst case.
    assert np.all(numbers["SciPy"][kind] <= exact[:4] + 1e-12)
    np.testing.assert_allclose(numbers["SciPy"][kind], exact[:4], atol=1e-3)


def test_a_wrong_answer_is_no_rival(tmp_path):
    rows = []
    right = np.array([0.1, 0.2, 0.3])
    for number, (peer, answer) in enumerate(
        (("rlcore", right), ("NumPy", right + 1e-8), ("SciPy", right[:2] - 0.01), ("SciPy", right[:2] + 1e-8))
    ):
        place = tmp_path / f"{number}.npy"
        np.save(place, answer)
        rows.append({"peer": peer, "version": "1", "method": "tv", "answer": str(place), "median_s": 1.0 + number})
        rows[-1] |= {"units": len(answer), "processor_s": 1.0, "compile_s": 0.0, "bytes": None}
    rows.append({"peer": "absent", "method": "-", "error": "stopped at 1 s"})
    robust.judge("operators", rows)
    assert [row.get("counts") for row in rows] == [True, False, True, False, None]
    assert rows[2]["missed"] == 1.0 and rows[2]["ratio"] == pytest.approx(4.5)
    text = robust.table("a case", rows)
    assert text.count("DOES NOT COUNT") == 2 and "stopped at 1 s" in text


def test_loops_count_where_their_weights_are_ours_and_searches_always(tmp_path):
    rows, right = [], np.ones((20, 3))
    cases = [("rlcore", "PEVI", 0), ("rlcore", "DRPVI", 0), ("loops", "PEVI", 0), ("loops", "PEVI", 1e-6)]
    cases += [("loops", "DRPVI", -0.1), ("loops", "DRPVI, exact cuts", 0), ("loops", "DRPVI, exact cuts", -0.1)]
    for number, (peer, method, off) in enumerate(cases):
        place = tmp_path / f"{number}.npy"
        np.save(place, right + off)
        rows.append({"peer": peer, "method": method, "answer": str(place), "median_s": 1.0 + number, "units": 1})
    robust.judge("training", rows)
    assert [row["counts"] for row in rows] == [True, True, True, False, True, True, False]
    assert rows[2]["ratio"] == 3 and rows[6]["ratio"] == 3.5


def test_the_exponent_is_that_of_the_times():
    record = {
        f"training, N = {n}": {
            "kind": "training",
            "rows": [
                {"peer": "rlcore", "method": "A", "processor_s": 3e-6 * n**1.25},
                {"peer": "loops", "method": "A", "processor_s": 3e-3 * n**2},
            ],
        }
        for n in (100, 1000, 10_000)
    }
    assert robust.exponents(record)["A"] == pytest.approx(1.25)
