"""Analyses of two public BRIDGE tables beside the outputs stored with them and golden values of the specification.

The tables are not part of this repository: they are looked for in `shared/data/bridge` beside it, or in the folder that
RLCORE_BRIDGE names.
"""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from envs.bridge import load_bridge
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
from theory_checks.external import Row

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "bridge"
STICKINESS = 0.25

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
    },
    "prototype": {
        "random return": ".00902640",
        "classes": "33",
        "failure, k=1, m=30": ".49123",
        "failure, k=1, m=29": ".50756",
        "failure above 1/2, k=2, m=9": "1",
        "failure above 1/2, k=2, m=10": "0",
        "failure above 1/2, k=3, m=3": "1",
        "failure above 1/2, k=3, m=4": "0",
        "released m, k=1": "37",
        "released m, k=2": "61",
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
    },
    "prototype": {
        "random return": ".0032357130021994796",
        "classes": "156",
        "least occupancy of a pair": "3.62514e-7",
        "least occupancy of a state": "2.17508e-6",
        "failure, k=1, m=49": ".50617",
        "failure, k=1, m=50": ".49752",
        "failure, k=1, m=244": ".0405",
        "released m, k=1": "244",
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
    plain, stuck = analyze(mdp), analyze(mdp, STICKINESS, max_k=5)
    official = simple_bound(mdp, "official")
    found = {
        "states": lambda: mdp.available.shape[0],
        "least k": lambda: plain.min_k,
        "window": lambda: plain.window,
        "optimal return": lambda: plain.optimal_return,
        "random return": lambda: plain.random_return,
        "simple effective horizon": lambda: official.horizon,
        "simple bound, m": lambda: official.episodes[0],
        "simple bound, gap": lambda: official.gap[0],
        # The absorbing state is no row here; there it counts once for each action before, if it is reached in time.
        "sticky, reachable": lambda: num_reachable(episodic(sticky(mdp, STICKINESS))) + actions * ends_in_time(mdp),
        "sticky, least k": lambda: stuck.min_k,
        "sticky, window": lambda: analyze(mdp, STICKINESS).window,
        "sticky, random return": lambda: stuck.random_return,
        "classes": lambda: coarsest_bisimulation(mdp).mdp.available.shape[0],
        "least occupancy of a pair": lambda: covering_length(episodic(mdp)).smallest,
        "least occupancy of a state": lambda: covering_length(episodic(mdp)).smallest_state,
        "released m, k=1": lambda: released_horizon(mdp, 1)[1],
        "released m, k=2": lambda: released_horizon(mdp, 2)[1],
    }
    return found


def value_of(name: str, mdp, found: dict) -> float:
    """One of our numbers."""
    asked = re.fullmatch(r"failure( above 1/2)?, k=(\d+), m=(\d+)", name)
    if not asked:
        return float(found[name]())
    failure = float(gorp_failure(mdp, int(asked[2]), int(asked[3])))
    return float(failure > 0.5) if asked[1] else failure


def rows_of(name: str, path: Path) -> list[Row]:
    """The comparisons of one table."""
    horizon, printed = TABLES[name]
    rows = []
    mdp = load_bridge(path, horizon) if path.is_file() else None
    found = answers(mdp) if mdp is not None else {}
    for kind, numbers in printed.items():
        what = f"{len(numbers)} {kind} numbers of {name}, in half units of the last printed digit"
        if mdp is None:
            rows.append(Row(what, "table missing", None, 1.0))
            continue
        off = {key: abs(value_of(key, mdp, found) - float(text)) / half_digit(text) for key, text in numbers.items()}
        worst = max(off, key=off.get)
        rows.append(Row(what, "BRIDGE", off[worst], 1.0, f"largest: {worst}"))
        jax.clear_caches()
    return rows


def checks() -> list[Row]:
    """All comparisons of this family."""
    folder = Path(os.environ.get("RLCORE_BRIDGE", FOLDER))
    return [row for name in TABLES for row in rows_of(name, folder / f"{name}.npz")]
