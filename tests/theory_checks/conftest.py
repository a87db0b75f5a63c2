"""The runner as a user meets it: a folder that holds other packages under our names, and the ledger run from there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A folder with packages of its own called rlcore, envs and experiments, which must never be imported."""
    folder = tmp_path_factory.mktemp("stranger")
    for name in ("rlcore", "envs", "experiments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ImportError('the {name} of somebody else was imported')\n")
    return folder


@pytest.fixture(scope="session")
def python(stranger):
    """`python(*arguments)` in the stranger's folder, with this repository importable: a finished process."""

    def run(*arguments, cwd=stranger, timeout=250, **variables):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
        environment.pop("JAX_ENABLE_X64", None)
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def full_run(python, stranger):
    """Every statement once, at 120 instances: the process and the ledger.json that it wrote."""
    # With an empty compilation cache it compiles for minutes. Each program runs once, so the compiler need not optimise
    # it: half the time; tolerances are derived from rounding, whatever the order of operations.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
    words = ("-m", "theory_checks", "--instances", "120", "--seed", "5")
    process = python(*words, timeout=2300, XLA_FLAGS=flags)
    path = stranger / "results" / "ledger" / "ledger.json"
    ledger = json.loads(path.read_text()) if path.exists() else None
    return SimpleNamespace(process=process, ledger=ledger, folder=path.parent)
