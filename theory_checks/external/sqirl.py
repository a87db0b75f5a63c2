"""Analyses of two public BRIDGE tables beside the outputs stored with them and golden values of the specification.

The tables are not part of this repository: they are looked for in `shared/data/bridge` beside it, or in the folder that
RLCORE_BRIDGE names.
"""

import functools
import itertools
import math
import os
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from envs.bridge import load_bridge
from envs.effective_horizon import STICKINESS
from rlcore.episodic import episodic
from rlcore.mdp import sticky
from rlcore.planning.bisimulation import coarsest_bisimulation
from rlcore.sqirl import (
    analyze,
    covering_length,
    gorp_failure,
    num_reachable,
    reachable,
    released_horizon,
    simple_bound,
)
from rlcore.sqirl.simple_bound import bernstein_ratio
from theory_checks.external import Row

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "bridge"

# Printed numbers by table; "official" were stored with it, the rest is of the specification's prototype.
FREEWAY = {
    "official": {
        "states": "197",
        "least k": "1",
        "window": "6",
        "simple effective horizon": "8.0",
        "optimal return": "1",
        "sticky, reachable": "322",
        "sticky, least k": "1",
        "sticky, window": "6",
        "sticky, random return": ".031809488932291664",
        "simple bound, m": "5307",
        "simple bound, gap": ".0123457",
        "simple bound, variance": ".0123457",
        # J_1 .. J_5 were all stored as the optimal return.
        "sticky, largest loss of rungs 1 to 5": "0.000000000000",
    },
    "prototype": {
        "random return": ".00902640",
        "classes": "33",
        "failure, k=1, m=30": ".49123",
        "failure, k=1, m=29": ".50756",
        "smallest m, k=1": "30",
        "smallest m, k=2": "10",
        "smallest m, k=3": "4",
        # Printed there as the effective horizon, which is less: docs/decisions.md.
        "horizon, k=1": "4.0959",
        "released m, k=1": "37",
        "released m, k=2": "61",
        "released horizon, k=1": "4.287",
    },
}
CORRIDOR = {
    "official": {
        "states": "168",
        "least k": "1",
        "window": "15",
        "simple effective horizon": "16.0",
        "optimal return": "1",
        "sticky, reachable": "967",
        "sticky, least k": "1",
        "sticky, window": "16",
        "sticky, random return": ".0010068890119441542",
        "simple bound, m": "6667295335345",
        "simple bound, gap": "1.70146e-11",
        "simple bound, variance": "1.70146e-11",
        # J_1 .. J_5 were all stored as the optimal return.
        "sticky, largest loss of rungs 1 to 5": "0.000000000000",
    },
    "prototype": {
        "random return": ".0032357130021994796",
        "classes": "156",
        "least occupancy of a pair": "3.62514e-7",
        "least occupancy of a state": "2.17508e-6",
        "failure, k=1, m=49": ".50617",
        "failure, k=1, m=50": ".49752",
        "failure, k=1, m=244": ".0405",
        "smallest m, k=1": "50",
        "horizon, k=1": "3.183",
        "released m, k=1": "244",
        "released horizon, k=1": "4.068",
    },
}
TABLES = {"freeway_10_fs30": (10, FREEWAY), "MiniGrid-KeyCorridorS3R1-v0": (100, CORRIDOR)}


def half_digit(text: str) -> float:
    """Half a unit of the last printed place, at least 1e-13 of the number: ours is a sum of many terms."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2])
    return max(0.5000001 * 10.0 ** (int(exponent or 0) - places), 1e-13 * abs(float(text)))


def ends_in_time(mdp) -> bool:
    """Whether an episode can end before its last step."""
    everything = jnp.broadcast_to(mdp.available, (mdp.horizon, *mdp.available.shape))
    ending = jnp.any(mdp.terminal, axis=(1, 2))
    return bool(jnp.any(reachable(episodic(mdp), everything)[:-1] & ending[None]))


def answers(mdp) -> dict:
    """Everything of ours, by name, as functions: what is not printed is not computed."""
    actions = mdp.available.shape[1]
    plain, stuck = analyze(mdp), analyze(mdp, STICKINESS, max_k=min(5, mdp.horizon))
    official = simple_bound(mdp, "official")

    def variance():
        """What the official formula has in the place of a variance."""
        ratio, gap, _ = bernstein_ratio(episodic(mdp), None, 1, mode="official", tolerance=1e-4)
        return ratio * gap**2 / 16

    return {
        "states": lambda: mdp.available.shape[0],
        "least k": lambda: plain.min_k,
        "window": lambda: plain.window,
        "optimal return": lambda: plain.optimal_return,
        "random return": lambda: plain.random_return,
        "simple effective horizon": lambda: official.horizon,
        "simple bound, m": lambda: official.episodes[0],
        "simple bound, gap": lambda: official.gap[0],
        "simple bound, variance": variance,
        # The absorbing state is no row here; there it counts once for each action before, if it is reached in time.
        "sticky, reachable": lambda: num_reachable(episodic(sticky(mdp, STICKINESS))) + actions * ends_in_time(mdp),
        "sticky, least k": lambda: stuck.min_k,
        "sticky, window": lambda: analyze(mdp, STICKINESS).window,
        "sticky, random return": lambda: stuck.random_return,
        "sticky, largest loss of rungs 1 to 5": lambda: jnp.max(jnp.abs(stuck.optimal_return - stuck.returns_by_k)),
        "classes": lambda: coarsest_bisimulation(mdp).mdp.available.shape[0],
        "least occupancy of a pair": lambda: covering_length(episodic(mdp)).smallest,
        "least occupancy of a state": lambda: covering_length(episodic(mdp)).smallest_state,
    }


def of_gorp(mdp) -> dict:
    """Ours on GORP, by name, as functions of the depth k and of further numbers in the name."""

    @functools.cache
    def smallest(k):
        return next(m for m in itertools.count(1) if gorp_failure(mdp, k, m) <= 0.5)

    released = functools.cache(lambda k: released_horizon(mdp, k))
    return {
        "failure": lambda k, m: gorp_failure(mdp, k, m),
        "smallest m": smallest,
        "horizon": lambda k: k + math.log(smallest(k)) / math.log(mdp.available.shape[1]),
        "released m": lambda k: released(k)[1],
        "released horizon": lambda k: released(k)[0],
    }


def value_of(name: str, found: dict, gorp: dict) -> float:
    """One of our numbers."""
    asked = re.fullmatch(r"(.+), k=(\d+)(?:, m=(\d+))?", name)
    if asked is None:
        return float(found[name]())
    return float(gorp[asked[1]](*(int(x) for x in asked.groups()[1:] if x)))


def rows_of(name: str, path: Path) -> list[Row]:
    """The comparisons of one table."""
    horizon, printed = TABLES[name]
    rows = []
    mdp = load_bridge(path, horizon) if path.is_file() else None
    found, gorp = (answers(mdp), of_gorp(mdp)) if mdp is not None else ({}, {})
    for kind, numbers in printed.items():
        what = f"{len(numbers)} {kind} numbers of {name}, in half units of the last printed digit"
        if mdp is None:
            rows.append(Row(what, "table missing", None, 1.0))
            continue
        started = time.perf_counter()
        off = {key: abs(value_of(key, found, gorp) - float(text)) / half_digit(text) for key, text in numbers.items()}
        worst = max(off, key=off.get)
        note = f"largest: {worst}; {time.perf_counter() - started:.0f} s"
        rows.append(Row(what, "BRIDGE", off[worst], 1.0, note))
        jax.clear_caches()
    return rows


def checks() -> list[Row]:
    """All comparisons of this family."""
    folder = Path(os.environ.get("RLCORE_BRIDGE", FOLDER))
    return [row for name in TABLES for row in rows_of(name, folder / f"{name}.npz")]
