"""Run one experiment and leave its data, figure, config, table and provenance in a folder of its own."""

import dataclasses
import datetime
import difflib
import importlib
import json
import os
import pkgutil
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.reference import table

PACKAGE = Path(__file__).parent


def names() -> list[str]:
    """Every experiment, as "family.figure", found by looking: a new file is a new experiment."""
    found = []
    for family in pkgutil.iter_modules([str(PACKAGE)]):
        if family.ispkg and family.name != "benchmarks":
            found += [f"{family.name}.{m.name}" for m in pkgutil.iter_modules([str(PACKAGE / family.name)])]
    return sorted(found)


def load(name: str) -> ModuleType:
    """The module of an experiment.

    Raises: ValueError for an unknown name, with the nearest.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *{k.split(".")[0] for k in known}], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {known}"
        raise ValueError(f"experiment: found {name!r}, {hint}")
    return importlib.import_module(f"experiments.{name}")


def select(wanted: list[str]) -> list[str]:
    """Names of experiments from names or families; all for none."""
    known, chosen = names(), []
    for name in wanted:
        family = [k for k in known if k.split(".")[0] == name]
        if not family:
            load(name)
        chosen += family or [name]
    return chosen or known


def provenance(seconds: float) -> dict[str, Any]:
    """What made a result: versions, device, git revision, date, seconds."""
    import jax
    import numpy

    def git(*arguments: str) -> str | None:
        try:
            out = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return out.stdout.strip()

    # A plain install may lie inside somebody else's repository, whose revision says nothing about this code.
    ours = git("ls-files", "--error-unmatch", Path(__file__).name)
    head = git("rev-parse", "--short=12", "HEAD") if ours else None
    dirty = "+" if head and git("status", "--porcelain", "-uno") else ""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "revision": head and head + dirty,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": numpy.__version__,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "x64": bool(jax.config.jax_enable_x64),
        "cpu_cores": os.cpu_count(),
        "seconds": round(seconds, 2),
    }


def execute(name: str, config: Any, root: Path, *, quick: bool = False) -> dict[str, Any]:
    """Run an experiment whole: the folder appears with everything in it, or not at all.

    Args: name: of the experiment; config: its Config; root: folder for results; quick: goes into the folder's name.
    Returns: {"name", "folder", "figure", "data", "seconds", "table"}.
    """
    from experiments import figures  # matplotlib: not needed to list experiments

    module = load(name)
    final = root / (name + (".quick" if quick else ""))
    final.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        data = module.run(config)
        data.attrs["config"] = json.dumps(dataclasses.asdict(config))
        # Strings of variable length are the ones that zarr's format specifies.
        texts = {n: c.astype(object) for n, c in data.coords.items() if c.dtype.kind == "U"}
        data.assign_coords(texts).to_zarr(folder / "data.zarr", mode="w", consolidated=False)
        figure = module.plot(data)
        with figures.style():
            figure.savefig(folder / "figure.png")
            figure.savefig(folder / "figure.pdf")
        rows = table(getattr(module, "REFERENCES", {}), module.measured(data)) if hasattr(module, "measured") else []
        seconds = time.perf_counter() - began
        for file, content in (
            ("config.json", dataclasses.asdict(config)),
            ("provenance.json", provenance(seconds)),
            ("table.json", rows),
        ):
            (folder / file).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        folder.chmod(0o755)
        if final.exists():
            shutil.rmtree(final)
        os.replace(folder, final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return {
        "name": name,
        "title": module.TITLE,
        "folder": final,
        "figure": final / "figure.png",
        "data": final / "data.zarr",
        "seconds": seconds,
        "table": rows,
    }


def summary(root: Path, since: float) -> list[tuple[str, ...]]:
    """One row per experiment from what its quick run left: name, seconds, verdicts, figure, data.

    Args: root: folder for results; since: seconds since the epoch; what is older was left by another run.
    """
    rows = []
    for name in names():
        folder = root / f"{name}.quick"
        try:
            fresh = (folder / "provenance.json").stat().st_mtime >= since
            seconds = json.loads((folder / "provenance.json").read_text())["seconds"]
            verdicts = [row["verdict"] for row in json.loads((folder / "table.json").read_text())]
        except FileNotFoundError:
            fresh = False
        if not fresh:
            rows.append((name, "-", "FAILED", "-", "-"))
            continue
        known = [v for v in verdicts if v != "-"]
        told = f"{sum(v == 'agrees' for v in known)} of {len(known)} agree"
        rows.append((name, f"{seconds:.1f}", told, str(folder / "figure.png"), str(folder / "data.zarr")))
    return rows


def publish(result: dict[str, Any]) -> Path:
    """Copy the figure of a full run to docs/figures of the checkout; returns where it went."""
    target = PACKAGE.parent / "docs" / "figures" / f"{result['name']}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    shutil.copyfile(result["figure"], part)
    os.replace(part, target)
    return target.relative_to(PACKAGE.parent)
