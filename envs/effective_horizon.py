"""The problems on which the effective horizon is studied: those of its golden table and those of its pilot study."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from envs.registry import make
from rlcore.mdp import MDP, StickyMDP, sticky

__all__ = ["GOLDEN", "PILOT", "STICKINESS", "golden_problems", "pilot_problems"]

# The probability with which the study repeats the action before.
STICKINESS = 0.25


def _lock(length: int) -> dict[str, Any]:
    return {"id": "combination_lock", "length": length, "actions": 4, "distractor": 0.5}


def _corridor(length: int, horizon: int) -> dict[str, Any]:
    return {"id": "corridor", "length": length, "horizon": horizon}


def _lake(size: int, slippery: bool) -> dict[str, Any]:
    return {"id": "frozen_lake", "size": size, "slippery": slippery}


def _empty(size: int, shaped: bool = False) -> dict[str, Any]:
    return {"id": "minigrid_empty", "size": size, "shaped": shaped}


# Parameters of `make` by the name that a table prints.
GOLDEN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "lock k=2": _lock(2),
        "lock k=3": _lock(3),
        "lock k=4": _lock(4),
        "lock k=6": _lock(6),
        "corridor-5 T10": _corridor(5, 10),
        "corridor-10 T20": _corridor(10, 20),
        "corridor-10 T40": _corridor(10, 40),
        "deepsea-5": {"id": "deep_sea", "size": 5},
        "deepsea-10": {"id": "deep_sea", "size": 10},
        "deepsea-20": {"id": "deep_sea", "size": 20},
        "frozen4-det": _lake(4, False),
        "frozen4-slip": _lake(4, True),
        "frozen8-det": _lake(8, False),
        "fourrooms": {"id": "four_rooms"},
        "crossing9": {"id": "crossing"},
        "lavagap5": {"id": "lava_gap"},
        "cliff-0": {"id": "cliff", "variant": "0"},
        "catch-5x3": {"id": "catch", "rows": 5, "columns": 3},
        "riverswim-6 T20": {"id": "riverswim", "length": 6, "horizon": 20},
        "riverswim-6 T60": {"id": "riverswim", "length": 6, "horizon": 60},
        "Empty-5x5": _empty(5),
        "Empty-6x6": _empty(6),
        "Empty-8x8": _empty(8),
        "Empty-16x16": _empty(16),
        "Empty-16x16 shaped": _empty(16, shaped=True),
        "KeyCorridorS3R1": {"id": "key_corridor"},
    }
)
# The 29 problems of the pilot; all but one are sticky. The garnets' seeds are ours: the pilot's were not recorded.
PILOT: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {f"lock k={k}": _lock(k) for k in (1, 2, 3, 4)}
    | {name: GOLDEN[name] for name in ("corridor-5 T10", "corridor-10 T20", "corridor-10 T40")}
    | {f"deepsea-{size}": {"id": "deep_sea", "size": size} for size in (5, 8, 10, 14)}
    | {name: GOLDEN[name] for name in ("frozen4-det", "frozen4-slip", "frozen8-det", "fourrooms", "crossing9")}
    | {name: GOLDEN[name] for name in ("lavagap5", "cliff-0")}
    | {"cliff-r": {"id": "cliff", "variant": "r"}}
    | {"catch-10x5": {"id": "catch", "rows": 10, "columns": 5}, "catch-5x3": GOLDEN["catch-5x3"]}
    | {"riverswim-6 T20": GOLDEN["riverswim-6 T20"]}
    | {
        f"garnet-{seed}": {"id": "garnet", "seed": seed, "states": 20, "actions": 3, "branching": 3, "horizon": 10}
        | {"discount": 1.0}
        for seed in range(3)
    }
    | {name: GOLDEN[name] for name in ("Empty-5x5", "Empty-6x6", "Empty-8x8", "KeyCorridorS3R1")}
)


def golden_problems(names: tuple[str, ...] = tuple(GOLDEN)) -> dict[str, MDP]:
    """The problems of the golden table, without stickiness.

    Args: names: some of `GOLDEN`.
    Returns: {name: problem}, in the order of `names`.
    Raises: ValueError for an unknown name.
    Source: specification of the family, section 6 (prototype of this project).
    Cost: that of their makers.
    """
    return {name: make(**_known(name, GOLDEN)) for name in names}


def pilot_problems(names: tuple[str, ...] = tuple(PILOT)) -> dict[str, MDP | StickyMDP]:
    """The problems of the pilot study, sticky with probability 1/4 but for slippery ice.

    Args: names: some of `PILOT`, or of `GOLDEN` beside them.
    Returns: {name: problem}, in the order of `names`.
    Raises: ValueError for an unknown name.
    Source: specification of the family, section 5, "Pilot" (prototype of this project).
    Cost: that of their makers.
    """
    plain = {name: make(**_known(name, {**GOLDEN, **PILOT})) for name in names}
    return {name: mdp if name == "frozen4-slip" else sticky(mdp, STICKINESS) for name, mdp in plain.items()}


def _known(name: str, table: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if name not in table:
        raise ValueError(f"names: found {name!r}, expected some of {', '.join(table)}")
    return table[name]
