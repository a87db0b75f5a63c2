"""An experiment's folder appears whole or not at all; names are suggested; references decide honestly."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from experiments import __main__ as runner
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
        (
            Reference(1.0, 0.1, PROTOTYPE, "", noted="docs/decisions.md"),
            Measured(2.0, 0.1),
            "differs, not explained: docs",
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
        assert published or "study" in m.TITLE, f"{name}: no published reference, so a study"
        assert m.__doc__ and m.run.__doc__ and m.plot.__doc__


def test_a_revision_is_that_of_this_code_or_none(tmp_path, monkeypatch):
    import shutil

    shutil.copy(record.__file__, tmp_path)  # inside a repository of somebody else
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        identity = ["-c", "user.name=them", "-c", "user.email=them@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "PACKAGE", tmp_path)
    assert record.provenance(1.0)["revision"] is None
    subprocess.run(["git", "add", "record.py"], cwd=tmp_path, check=True)
    assert record.provenance(1.0)["revision"].endswith("+")


def test_the_summary_tells_fresh_results_from_old_and_missing_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "load", lambda name: module())
    monkeypatch.setattr(record, "names", lambda: ["toy.gone", "toy.one"])
    record.execute("toy.one", Config(), tmp_path, quick=True)
    made = (tmp_path / "toy.one.quick" / "provenance.json").stat().st_mtime
    gone, one = record.summary(tmp_path, made)
    assert gone == ("toy.gone", "-", "FAILED", "-", "-") and one[0] == "toy.one" and one[2] == "1 of 1 agree"
    assert all(Path(path).exists() for path in one[3:])
    assert record.summary(tmp_path, made + 1)[1] == ("toy.one", "-", "FAILED", "-", "-")


def test_reproduce_ends_with_a_table_of_paths_and_the_status_of_the_worst(tmp_path, monkeypatch, capsys):
    ran = []

    def finish(words):
        ran.append(words)
        if "experiments" in words:
            record.execute("toy.one", Config(), tmp_path, quick=True)
        return SimpleNamespace(returncode=int("theory_checks" in words))

    monkeypatch.setattr(record, "load", lambda name: module())
    monkeypatch.setattr(record, "names", lambda: ["toy.one"])
    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=finish))
    assert runner.main(["reproduce", "--out", str(tmp_path)]) == 1 and len(ran) == 2
    out = capsys.readouterr().out
    assert f"{tmp_path}/toy.one.quick/figure.png  {tmp_path}/toy.one.quick/data.zarr" in out
    assert "experiments: all ran\nledger: FAILED" in out


def test_experiments_of_two_precisions_run_apart_with_the_same_flags(tmp_path, monkeypatch):
    ran = []
    one, two = (module(PRECISION=p, Config=Config, QUICK=Config(2)) for p in ("float64", "float32"))
    monkeypatch.setattr(record, "load", {"toy.one": one, "toy.two": two}.__getitem__)
    monkeypatch.setattr(record, "names", lambda: ["toy.one", "toy.two"])
    note = lambda words: ran.append(words[3:]) or SimpleNamespace(returncode=0)  # noqa: E731
    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=note))
    assert runner.main(["toy", "--publish", "--out", str(tmp_path), "--size", "4"]) == 0
    rest = ["--publish", "--out", str(tmp_path), "--size", "4"]
    assert ran == [["toy.two", *rest], ["toy.one", *rest]]


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
    (tmp_path / "file").touch()
    nowhere = command("nash.rates", "--out", str(tmp_path / "file" / "below"), cwd=record.PACKAGE.parent)
    assert nowhere.returncode == 2 and "error: --out: found" in nowhere.stderr and "Not a directory" in nowhere.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and "Traceback" not in nowhere.stderr
