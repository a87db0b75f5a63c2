"""An experiment's folder appears whole or not at all; names are suggested; references decide honestly."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from experiments import record
from experiments.reference import Measured, Reference, table, verdict

PROTOTYPE = "prototype of this project"


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3


def module(run=None, **fields):
    default = {
        "TITLE": "a tiny experiment",
        "run": run
        or (lambda config: xarray.Dataset({"x": ("i", np.arange(config.size))}, {"i": list("abcdef"[: config.size])})),
        "plot": lambda data: Figure(),
        "measured": lambda data: {"x": Measured(float(data["x"].max()), 0.0)},
        "REFERENCES": {"x": Reference(2.0, 0.0, PROTOTYPE, "here")},
    }
    return SimpleNamespace(**(default | fields))


def test_everything_is_left_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "load", lambda name: module())
    result = record.execute("toy.one", Config(), tmp_path)
    folder = tmp_path / "toy.one"
    assert result["folder"] == folder and result["table"][0]["verdict"] == "agrees"
    names = {"data.zarr", "figure.png", "figure.pdf", "config.json", "provenance.json", "table.json"}
    assert {p.name for p in folder.iterdir()} == names
    assert json.loads((folder / "config.json").read_text()) == {"size": 3}
    stored = json.loads((folder / "provenance.json").read_text())
    assert stored["seconds"] >= 0 and stored["jax"] and stored["device"]
    data = xarray.open_zarr(folder / "data.zarr", consolidated=False)
    np.testing.assert_array_equal(data["x"].values, [0, 1, 2])
    assert list(data["i"].values) == ["a", "b", "c"]
    again = record.execute("toy.one", Config(), tmp_path, quick=True)
    assert again["folder"].name == "toy.one.quick"


def test_a_failure_leaves_the_former_result_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "load", lambda name: module())
    record.execute("toy.one", Config(), tmp_path)
    before = (tmp_path / "toy.one" / "config.json").read_text()

    def broken(data):
        raise RuntimeError("no figure today")

    monkeypatch.setattr(record, "load", lambda name: module(plot=broken))
    with pytest.raises(RuntimeError, match="no figure"):
        record.execute("toy.one", Config(2), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.one"]
    assert (tmp_path / "toy.one" / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("reference", "ours", "expected"),
    [
        (Reference(1.0, 0.1, PROTOTYPE, ""), Measured(1.15, 0.06), "agrees"),
        (Reference(1.0, 0.1, PROTOTYPE, ""), Measured(1.15, 0.04), "DIFFERS"),
        (
            Reference(1.0, 0.1, PROTOTYPE, "", explained="docs/decisions.md"),
            Measured(2.0, 0.1),
            "differs, explained at",
        ),
        (Reference(1.0, 0.1, PROTOTYPE, "", comparable=False), Measured(1.0, 0.1), "not comparable"),
        (Reference(1.0, 0.1, PROTOTYPE, ""), Measured(float("nan"), 0.1), "DIFFERS"),
    ],
)
def test_verdicts(reference, ours, expected):
    assert verdict(reference, ours).startswith(expected)


def test_references_must_be_measured_and_have_a_source():
    with pytest.raises(ValueError, match="found nothing for"):
        table({"y": Reference(1.0, 0.0, PROTOTYPE, "")}, {"x": Measured(1.0, 0.0)})
    with pytest.raises(ValueError, match="kind: found 'remembered'"):
        Reference(1.0, 0.0, "remembered", "")


def test_names_are_found_and_suggested():
    assert {"nash.rates", "nash.egpo_simulations"} <= set(record.names())
    assert record.select(["nash"]) == [n for n in record.names() if n.startswith("nash.")]
    with pytest.raises(ValueError, match=r"did you mean 'nash.rates'"):
        record.load("nash.rate")


def test_every_experiment_declares_what_the_house_asks():
    for name in record.names():
        m = record.load(name)
        assert m.PRECISION in ("float64", "float32") and "\n" not in m.TITLE
        assert dataclasses.is_dataclass(m.Config) and m.Config.__dataclass_params__.frozen and m.Config() != m.QUICK
        published = any(r.kind != PROTOTYPE for r in m.REFERENCES.values())
        assert published or "study" in m.TITLE or "simulations" in m.TITLE, (
            f"{name}: no published reference, so a study"
        )
        assert m.__doc__ and m.run.__doc__ and m.plot.__doc__


def command(*words, cwd):
    return subprocess.run([sys.executable, "-m", "experiments", *words], capture_output=True, text=True, cwd=cwd)


def test_the_command_line_lists_refuses_and_leaves_nothing(tmp_path):
    listing = command(cwd=record.PACKAGE.parent)
    assert listing.returncode == 0 and "nash.rates" in listing.stdout
    wrong = command("nash.rats", "--out", str(tmp_path), cwd=record.PACKAGE.parent)
    assert wrong.returncode == 2 and "did you mean 'nash.rates'" in wrong.stderr
    unknown = command("nash.rates", "--out", str(tmp_path), "--num-gams", "3", cwd=record.PACKAGE.parent)
    assert unknown.returncode == 2 and "num-gams" in unknown.stderr + unknown.stdout
    assert list(tmp_path.iterdir()) == []
