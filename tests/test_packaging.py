"""The wheel: everything that the packages read is in it, and it imports far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("rlcore", "envs", "experiments", "theory_checks")
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    return out / built.stdout.strip().splitlines()[-1]


def test_the_wheel_holds_every_source_and_data_file(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True)
    # Outside a git checkout (an unpacked source archive): everything on disk.
    wanted = listed.stdout.split() or [
        str(p.relative_to(REPOSITORY)) for name in PACKAGES for p in (REPOSITORY / name).rglob("*.py")
    ]
    missing = [name for name in wanted if name not in held and (REPOSITORY / name).exists()]
    assert not missing
    assert {"theory_checks/references.bib", "theory_checks/ledger.schema.json"} <= held


def test_the_wheel_holds_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == set(PACKAGES)
    assert not [n for n in names if n.endswith((".pyc", ".part", ".lock")) or "__pycache__" in n]
    assert any(n.endswith("/licenses/LICENSE") for n in names)


def test_the_packages_import_and_the_ledger_runs_from_the_unpacked_wheel(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = (
        f"import {', '.join(PACKAGES)}\n"
        f"for module in ({', '.join(PACKAGES)}): print(module.__file__)\n"
        "import envs.registry, theory_checks.ledger as ledger\n"
        "print(ledger.bibtex('rlcore')[:9], ledger.revision(), len(ledger.select([])) > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *files, last = done.stdout.splitlines()
    assert [Path(f).parent for f in files] == [site / name for name in PACKAGES]
    # No revision: what lies around an installed package is not its repository.
    assert last == "@software None True"
    listed = subprocess.run(
        [sys.executable, "-m", "theory_checks", "--list"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert listed.returncode == 0 and "nash/T4 " in listed.stdout, listed.stderr
