"""Families of problems; every one returns rlcore pytrees. `make(id, **parameters)` builds, `list()` names them."""

from envs.registry import list, make

__all__ = ["list", "make"]
