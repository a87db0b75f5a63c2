"""Who may import whom, read off the source; and that importing anything does nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# package -> the packages of this repository that it may import
MAY_IMPORT = {
    "rlcore": {"rlcore"},
    "envs": {"rlcore", "envs"},
    "experiments": {"rlcore", "envs", "experiments"},
    "theory_checks": {"rlcore", "envs", "theory_checks"},
}
OURS = {*MAY_IMPORT, "tests", "notebooks"}
FAMILIES = {"distributional", "sqirl", "robust", "lsd", "bq", "nash"}
FLOOR = {"mdp", "episodic", "environment", "solver", "planning", "types", "pytree", "claims"}
SHARED_WITH_FAMILIES = FLOOR | {"nn", "ridge"}
# Imported inside the functions of rlcore and envs that use them, because they are slow or need other settings.
LATE = {"gymnax", "distrax", "xarray", "zarr", "rich", "cloudpickle", "scipy"}
# For experiments and entry points alone.
NEVER_IN_THE_LIBRARY = {"matplotlib", "tyro", "pytest", "pickle"}


def sources(package):
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files, f"no source of {package}"
    return files


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path, nodes):
    """Dotted names that the nodes import, relative ones resolved, names of `from` imports included."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            base = ".".join(x for x in (base, node.module or "") if x)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (x.value for x in node.args[:1] if isinstance(x, ast.Constant))


def at_import(node):
    """The nodes that run when the module is imported: all but bodies of functions and what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).split(".")[-1] == "TYPE_CHECKING":
            continue
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from at_import(child)


def is_settings_call(node):
    """`jax.config.update(...)`, `config.update(...)` or a write to `os.environ`."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        return name.endswith("config.update") or name in ("os.putenv", "os.environ.update", "os.environ.setdefault")
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return any("os.environ" in ast.unparse(t) or "jax.config" in ast.unparse(t) for t in targets)


def breaches(package, path, source):
    """What a module does that its package may not."""
    found = []
    for name in imported(path, ast.walk(source)):
        top = name.split(".")[0]
        if top in OURS - MAY_IMPORT[package]:
            found.append(f"imports {name}")
        if package in ("rlcore", "envs") and top in NEVER_IN_THE_LIBRARY:
            found.append(f"imports {name}")
    if package in ("rlcore", "envs"):
        late = [n for n in imported(path, at_import(source)) if n.split(".")[0] in LATE]
        found += [f"imports {name} at module level" for name in late]
    relative = path.relative_to(REPOSITORY).parts
    if package == "rlcore" and (family := relative[1].removesuffix(".py")) in FAMILIES:
        for name in imported(path, ast.walk(source)):
            if name.startswith("rlcore.") and name.split(".")[1] not in {family, *SHARED_WITH_FAMILIES}:
                found.append(f"imports {name}")
    if any(is_settings_call(node) for node in at_import(source)):
        found.append("changes a setting when imported")
    # A worker process takes over the settings of the parent: the one place where the library sets any.
    if package in ("rlcore", "envs") and relative != ("rlcore", "executors.py"):
        found += ["changes a setting"] * any(is_settings_call(node) for node in ast.walk(source))
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_module_keeps_to_its_layer(package):
    found = {str(path.relative_to(REPOSITORY)): breaches(package, path, tree(path)) for path in sources(package)}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("path", "source", "what"),
    [
        ("rlcore/mdp.py", "def f():\n    from envs import make", "imports envs.make"),
        ("rlcore/mdp.py", "import importlib\nimportlib.import_module('envs.chains')", "imports envs.chains"),
        ("rlcore/nash/game.py", "from rlcore.robust import dual", "imports rlcore.robust.dual"),
        ("rlcore/nash/game.py", "from rlcore import sweep", "imports rlcore.sweep"),
        ("rlcore/nash/game.py", "from ..lsd import plan", "imports rlcore.lsd.plan"),
        ("rlcore/mdp.py", "if True:\n    import xarray as xr", "imports xarray at module level"),
        ("rlcore/mdp.py", "def f():\n    import matplotlib.pyplot", "imports matplotlib.pyplot"),
        ("rlcore/mdp.py", "def f():\n    import jax\n    jax.config.update('x', 1)", "changes a setting"),
        ("rlcore/executors.py", "import jax\njax.config.update('x', 1)", "changes a setting when imported"),
        ("envs/chains.py", "import os\nos.environ['A'] = '1'", "changes a setting when imported"),
        ("envs/chains.py", "from theory_checks import nash", "imports theory_checks.nash"),
        ("experiments/record.py", "import theory_checks", "imports theory_checks"),
        ("theory_checks/nash.py", "from experiments.nash import rates", "imports experiments.nash.rates"),
        ("theory_checks/nash.py", "from tests import conftest", "imports tests.conftest"),
    ],
)
def test_a_breach_is_found(path, source, what):
    found = breaches(path.split("/")[0], REPOSITORY / path, ast.parse(source))
    assert what in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("rlcore/nash/game.py", "from rlcore.nash import kl\nfrom rlcore import solver\nimport jax"),
        ("rlcore/store.py", "def f():\n    import zarr, xarray"),
        ("rlcore/sweep.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import xarray"),
        ("rlcore/executors.py", "def f():\n    import jax\n    jax.config.update('x', 1)"),
        ("experiments/record.py", "import matplotlib, tyro, xarray, envs, rlcore"),
    ],
)
def test_what_is_allowed_is_no_breach(path, source):
    assert breaches(path.split("/")[0], REPOSITORY / path, ast.parse(source)) == []


# ---- importing has no side effect ------------------------------------------------------------------------------------

IMPORT_ALL = """
import json, pkgutil, sys, importlib
from pathlib import Path
package, repository = sys.argv[1:]
import jax
before = {name: getattr(jax.config, name, None) for name in jax.config.values}
assert "jax_enable_x64" in before
opened = []
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(repository + "/"):
        if "/.venv" not in arguments[0] and not arguments[0].endswith((".py", ".pyc")) and ".pyc." not in arguments[0]:
            opened.append(arguments[0])
sys.addaudithook(audit)
root = importlib.import_module(package)
assert Path(root.__file__).is_relative_to(repository), root.__file__
names = [m.name for m in pkgutil.walk_packages(root.__path__, package + ".") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
bridge = sys.modules.get("jax._src.xla_bridge")
print(json.dumps({
    "changed": [name for name, value in before.items() if getattr(jax.config, name, None) != value],
    "opened": opened,
    "backends": sorted(getattr(bridge, "_backends", {})),
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "names": names,
}))
"""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_importing_touches_no_device_flag_or_file(package, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{IMPORT_ALL}", package,
         str(REPOSITORY)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["changed"] == [] and seen["opened"] == [] and seen["backends"] == []
    loaded = set(seen["modules"])
    assert loaded & OURS <= MAY_IMPORT[package]
    # Figures and tables are the business of experiments; a bare import of the rest stays light.
    heavy = {"gymnax", "distrax", "xarray", "zarr"} | (set() if package == "experiments" else {"matplotlib", "tyro"})
    assert loaded & heavy == set()
    assert list(tmp_path.iterdir()) == []


def test_the_bare_packages_import_without_a_plotting_library(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "import rlcore, envs, experiments, theory_checks\n"
        "heavy = {'matplotlib', 'tyro', 'gymnax', 'distrax', 'xarray', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dataclasses_are_registered_by_our_own_decorator(package):
    """See rlcore/pytree.py: JAX's own registration lets one class be taken for another."""
    for path in sources(package):
        calls = [n for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute) and n.attr == "register_dataclass"]
        assert not calls, f"{path}: use rlcore.pytree.pytree"
