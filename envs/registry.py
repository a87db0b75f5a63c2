"""One name for every problem of every family: `make(id, **parameters)` and `list()`.

A family is a function in a module of this package, named in that module's `FAMILIES = {name: maker}`; a new module
is found by itself. Tabular MDPs have plain ids (`deep_sea`); every other kind of problem carries its module's name
(`preferences/cyclic`), or the PREFIX that the module gives (`lsd/reference`), so that an id tells what comes back.
"""

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

__all__ = ["list", "make"]

# Modules whose families are tabular MDPs, or an MDP with a vector of rewards beside it.
PLAIN = (
    "american_put",
    "catch",
    "catch_match",
    "chains",
    "garnet",
    "gridworlds",
    "minigrid",
    "risk",
    "small_games",
    "targets",
    "vector_rewards",
)


@functools.cache
def _makers() -> dict[str, Callable[..., Any]]:
    """Every id with its maker, sorted; imports the package's modules, at the first use only."""
    package = importlib.import_module(__package__)
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name == "registry":
            continue
        module = importlib.import_module(f"{__package__}.{info.name}")
        for name, maker in getattr(module, "FAMILIES", {}).items():
            id = name if info.name in PLAIN else f"{getattr(module, 'PREFIX', info.name)}/{name}"
            if id in found:
                raise ValueError(f"FAMILIES: found {id!r} in {module.__name__} and before, expected unique names")
            found[id] = maker
    return dict(sorted(found.items()))


def make(id: str, **parameters: Any) -> Any:
    """Build the problem named `id`.

    Args:
      id: one of `list()`.
      parameters: those of its maker, by name; `help(envs.chains.deep_sea)` and so on is the data sheet.

    Returns: an rlcore problem: an `MDP` for plain ids, with its vector rewards beside it for `hazards` and
      `homeostasis`.
    Raises:
      ValueError: an unknown id (the nearest are suggested), or a parameter out of range.
      TypeError: a missing or unknown parameter, naming those accepted, or one of the wrong type.
    Cost: that of the maker.
    """
    makers = _makers()
    if id not in makers:
        near = difflib.get_close_matches(str(id), makers, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {', '.join(makers)}"
        raise ValueError(f"id: found {id!r}, {hint}")
    accepted = inspect.signature(makers[id]).parameters
    unknown = [name for name in parameters if name not in accepted]
    missing = [name for name, p in accepted.items() if p.default is p.empty and name not in parameters]
    if unknown or missing:
        found = [f"unknown {name!r}" for name in unknown] + [f"no {name!r}" for name in missing]
        usage = ", ".join(name if p.default is p.empty else f"{name}={p.default!r}" for name, p in accepted.items())
        raise TypeError(f"{id}: found {', '.join(found)}, expected {id}({usage})")
    return makers[id](**parameters)


def list() -> dict[str, str]:
    """Every id that `make` knows, sorted, with the first sentence of its data sheet.

    Returns: {id: description}; iterating gives the ids.
    Cost: imports the modules of this package at the first call.
    """
    return {id: (inspect.getdoc(maker) or "").split("\n")[0] for id, maker in _makers().items()}
