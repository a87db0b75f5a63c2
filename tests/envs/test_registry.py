"""One name for every problem: what exists, what is suggested, and how a new family is found."""

import subprocess
import sys
import types

import pytest

import envs
from envs import registry
from envs.chains import corridor


def test_list_names_every_family_with_a_line():
    listed = envs.list()
    assert list(listed) == sorted(listed)
    assert {"deep_sea", "garnet", "key_corridor"} <= set(listed)
    assert all(line.endswith(".") and len(line) < 120 for line in listed.values())
    assert listed["corridor"] == corridor.__doc__.split("\n")[0]


def test_make_calls_the_maker():
    assert envs.make("corridor", length=3, horizon=4).prob.shape == corridor(3, 4).prob.shape == (3, 2, 1)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("deepsea", "id: found 'deepsea', did you mean 'deep_sea'"),
        ("riverswimm", "'riverswim'"),
        ("frozenlake", "'frozen_lake'"),
        ("???", "expected one of american_put, betting"),
    ],
)
def test_unknown_ids_suggest_the_nearest(id, message):
    with pytest.raises(ValueError, match=message):
        envs.make(id)


def test_unknown_and_missing_parameters_are_named():
    with pytest.raises(
        TypeError, match=r"corridor: found unknown 'size', no 'length', expected corridor\(length, horizon\)"
    ):
        envs.make("corridor", size=3, horizon=4)
    with pytest.raises(TypeError, match=r"expected minigrid_empty\(size, shaped=False\)"):
        envs.make("minigrid_empty", sizes=3)
    # right names, wrong type: the maker's own error, or the shape checker's in tests
    with pytest.raises(TypeError, match="length"):
        envs.make("corridor", length="3", horizon=4)


@pytest.fixture
def with_module(monkeypatch):
    """Pretend that the package holds one more module."""

    def add(name, **families):
        module = types.ModuleType(f"envs.{name}")
        module.FAMILIES = families
        found = [*registry.pkgutil.iter_modules(envs.__path__), types.SimpleNamespace(name=name)]
        monkeypatch.setattr(registry.pkgutil, "iter_modules", lambda path: found)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        registry._makers.cache_clear()

    yield add
    monkeypatch.undo()
    registry._makers.cache_clear()


def test_a_new_module_is_found_by_itself(with_module):
    def maze(width: int):
        """A maze."""
        return width

    with_module("mazes", maze=maze)
    assert envs.list()["mazes/maze"] == "A maze." and envs.make("mazes/maze", width=3) == 3


def test_a_module_may_give_its_prefix():
    assert "lsd/reference" in envs.list() and not any(id.startswith("switching_bandits") for id in envs.list())
    assert envs.make("lsd/tight", k=3).num_arms == 3


def test_one_id_for_two_families_is_refused(with_module, monkeypatch):
    monkeypatch.setattr(registry, "PLAIN", (*registry.PLAIN, "mazes"))
    with_module("mazes", corridor=corridor)
    with pytest.raises(ValueError, match=r"'corridor' in envs\.mazes and before"):
        envs.list()


def test_importing_and_listing_stays_light():
    code = (
        "import sys, envs; envs.list(); import envs.gymnax_adapter; "
        "heavy = {'gymnax', 'gymnasium', 'distrax', 'xarray', 'zarr', 'matplotlib', 'flax'} & set(sys.modules); "
        "import jax; assert not heavy, heavy; assert not jax.config.jax_enable_x64"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
