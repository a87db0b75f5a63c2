"""Speed of return distributions: stock values and laws beside NumPy, sweeps over utilities, the CVaR suite, D-eta-N.

    python -m experiments.benchmarks.distributional [--quick] [--only CASE ...]

Each solver runs in a process of its own with a time limit and an empty folder of compiled programs; times are medians
of repeats after a first call, compile time apart, except for the suite, the treasure and the agent, which run once;
float64, the agent float32. Where others keep the machine busy, run it on one core (`taskset`) and read processor time.

- Values: 200 sweeps of stock value iteration, 100 states, 4 actions, 4 outcomes, 201 stocks, discount 0.9, beside the
  same sweeps in NumPy with everything that sweeps share computed before.
- Backups: six projected backups of laws on 201 atoms, at every state and stock: stop-loss curves interpolated, beside
  probabilities scattered, by the same compiler and by NumPy. All compute the same projection.
- Slopes: 50 sweeps for 1 to 256 utilities, side by side (`vmap`) and one after another (`lax.map`), beside what the
  machine streams, looks up and computes (a product of matrices) per second in the same run. Each outcome of each stock
  takes two look-ups and about 12 operations, and what the program keeps is written and read once a sweep, in or out of
  the cache as its size says; the times that these would take alone are given as shares of the time taken.
- Suite: the best CVaR of four problems at three levels each with the exact laws of their policies, in one process,
  compilation and all. Golden costs are the specification's, of its prototype.
- Treasure: distributional value iteration on the treasure dive with 201 atoms: peak memory of the whole process.
- Agent: D-eta-N on Catch-match with the specification's settings: mean distances from nine targets in 4000 episodes
  each, less the exact least; eight seeds side by side, one seed, eight with the stock frozen at the start.

Under each case stands what was asked and whether it is met.

Measured on two idle AMD EPYC cores (JAX 0.10.2; processor seconds in brackets); all that was asked is met. Values: 74
ms [146], 14 times as fast as NumPy [6.8 by processor time]. Backups: stop-loss curves 0.25 s [0.46], 3.6 times as
fast as the compiled scatter, 3.9 as NumPy's. Slopes: linear in their number, 16 to 19 ms each for 50 sweeps one after
another, of which look-ups alone would take 60 to 69 %, arithmetic 10 %; side by side 31 ms, where 2.2 GB leave the
cache. Suite: 15 s [21] with compilation, nine golden costs of nine. Treasure: 10 s, 1.99 GiB. Agent: one seed 13 s
[17], eight 52 s [78]; mean regret .0269, worst seed .0376, with the stock frozen .453.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from experiments.benchmarks import peer
from experiments.benchmarks.distributional_peers import CACHED, LOOKED_UP, OPERATIONS, SOLVERS, UNCACHED

SUITE = {
    "betting": (0.1, 0.2, 0.5),
    "obstacle": (0.1, 0.2, 0.3),
    "mud_and_nails": (0.1, 0.2, 0.3),
    "deep_sea_treasure": (0.1, 0.2, 0.5),
}
# Best CVaR of the cost by level, to six decimals; none is printed for mud and nails.
GOLDEN = {
    "betting": (93.862633, 92.193919, 84.656789),
    "obstacle": (49.109073, 41.079294, 36.523180),
    "mud_and_nails": (np.nan,) * 3,
    "deep_sea_treasure": (474.034450, 453.872599, 419.982713),
}
# (states, actions, outcomes, half the stocks, sweeps, utilities); (states, actions, outcomes, half the stocks, atoms,
# backups); problems; (problem, level, first atom, spacing, atoms); (seeds, iterations, episodes).
CASES = {
    "values, 100 states": ("values", (100, 4, 4, 100, 200, 1)),
    "backups of laws, 201 atoms": ("backups", (100, 4, 4, 100, 201, 6)),
    "slopes, 256 utilities": ("slopes", (100, 4, 4, 100, 50, 256)),
    "suite, twelve risks": ("suite", tuple(SUITE)),
    "treasure, 201 atoms": ("treasure", ("deep_sea_treasure", 0.2, -1000, 5, 201)),
    "agent, 6000 iterations": ("agent", (8, 6000, 4000)),
}
QUICK = {
    "values, 10 states": ("values", (10, 2, 3, 20, 20, 1)),
    "backups of laws, 21 atoms": ("backups", (5, 2, 3, 10, 21, 3)),
    "slopes, 4 utilities": ("slopes", (10, 2, 3, 20, 20, 4)),
    "suite, three risks": ("suite", ("betting",)),
    "treasure, betting instead": ("treasure", ("betting", 0.2, -100, 1, 101)),
    "agent, 60 iterations": ("agent", (2, 60, 20)),
}
# What was asked of the full cases: quantity, below or at least, number.
ASKED = {
    "values, 100 states": (
        ("seconds after compilation", "below", 0.25),
        ("NumPy's least time over ours", "at least", 5.0),
    ),
    "backups of laws, 201 atoms": (("the compiled scatter's least time over the stop-loss curves'", "at least", 3.0),),
    "slopes, 256 utilities": (),
    "suite, twelve risks": (
        ("seconds with compilation", "below", 60.0),
        ("golden costs met to six decimals", "at least", 9),
        ("costs that the exact laws have", "at least", 12),
    ),
    "treasure, 201 atoms": (("peak GiB", "below", 4.0),),
    "agent, 6000 iterations": (
        ("seconds of one seed after compilation", "below", 70.0),
        ("seconds of all seeds after compilation", "below", 70.0),
        ("mean regret", "at most", 0.08),
        ("worst seed's regret", "at most", 0.12),
        ("mean regret with the stock frozen", "at least", 0.25),
    ),
}
# Both sum 200 sweeps of numbers below 10; stop-loss curves of a few backups reach 20 and are cumulated over 201 atoms.
TOL = {"values": 1e-11, "slopes": 1e-11, "backups": 1e-10}
GOLDEN_TOL = 5.1e-7  # half of the last digit printed
LAW_TOL = 1e-7  # sweeps and pushes end at 1e-10, over the level 0.1, times the tens of steps that may be left
CACHE = 2**25  # bytes: a last cache of 32 MiB


def make_instance(kind: str, sizes: tuple) -> dict:
    """What the solvers of one case are given."""
    if kind == "suite":
        return {"names": np.array(sizes), "levels": np.array([SUITE[name] for name in sizes])}
    if kind == "treasure":
        return dict(zip(("name", "level", "low", "spacing", "atoms"), map(np.array, sizes), strict=True))
    if kind == "agent":
        return dict(zip(("seeds", "steps", "episodes"), map(np.array, sizes), strict=True))
    rng = np.random.default_rng(0)
    states, actions, outcomes, half, *rest = sizes
    shape = (states, actions, outcomes)
    instance = {
        "next_state": rng.integers(0, states, shape, np.int32),
        "prob": rng.dirichlet(np.ones(outcomes), shape[:2]),
    }
    instance |= {"reward": rng.uniform(-1, 1, shape), "discount": np.array(0.9), "window": np.array(10.0)}
    instance |= {"half": np.array(half), "rounding": np.array("nearest" if kind == "backups" else "linear")}
    if kind == "backups":
        choice = rng.integers(0, actions, (states, 2 * half + 3), np.int32)
        return instance | {"choice": choice, "atoms": np.array(rest[0]), "backups": np.array(rest[1])}
    slopes = np.stack([np.ones(rest[1]), np.linspace(0.2, 2, rest[1])], axis=1)
    return instance | {"sweeps": np.array(rest[0]), "slopes": slopes}


def shares(row: dict, instance: dict, machine: dict[str, float]) -> dict[str, float]:
    """Time that look-ups, operations or traffic of bytes alone would take on this machine, over the time taken."""
    sweeps = int(instance["sweeps"])
    outcomes = instance["prob"].size * (2 * int(instance["half"]) + 1) * sweeps * row["units"]
    programs = 1 if row["method"].startswith("one vmap") else row["units"]
    needs = {LOOKED_UP: 2 * outcomes, OPERATIONS: 12 * outcomes}
    needs[CACHED if row["bytes"] < CACHE else UNCACHED] = 2 * row["bytes"] * sweeps * programs
    return {name: need / machine[name] / row["median_s"] for name, need in needs.items() if name in machine}


def judge(kind: str, rows: list[dict], instance: dict) -> None:
    """Add time per unit, whether the answer counts, what it says, and for rivals the ratio to our fastest."""
    done = [row for row in rows if "error" not in row]
    answers = {id(row): np.load(row.pop("answer")) for row in done}
    for row in done:
        row["per_unit_s"] = row["median_s"] / row["units"]
        row["counts"] = bool(np.isfinite(answers[id(row)]).all())
    machine = {row["method"]: row["units"] / row["min_s"] for row in done if row["peer"] == "machine"}
    rivals = [row for row in done if row["peer"] != "machine"]
    ours = [row for row in rivals if row["peer"] == "rlcore"]
    best = min(ours, key=lambda row: row["per_unit_s"], default=None)
    for row in rivals:
        answer = answers[id(row)]
        if kind in TOL and best is not None:
            reference = answers[id(best)]
            some = min(len(answer), len(reference))
            row["difference"] = float(np.abs(answer[:some] - reference[:some]).max())
            row["counts"] &= row["difference"] <= TOL[kind]
            row["ratio"] = row["per_unit_s"] / best["per_unit_s"]
        if kind == "slopes":
            row["shares"] = shares(row, instance, machine)
        if kind == "suite":
            golden = np.concatenate([GOLDEN[str(name)] for name in instance["names"]])
            row["risks"] = [
                {"problem": name, "level": level, "cost": cost, "golden": printed, "stock": stock, "by_law": by_law}
                | {"mean": mean, "bounds": apart}
                for name, printed, (level, cost, stock, by_law, mean, apart) in zip(
                    np.repeat(instance["names"], 3).tolist(), golden.tolist(), answer.tolist(), strict=True
                )
            ]
        if kind == "treasure":
            at = SUITE[str(instance["name"])].index(float(instance["level"]))
            row["difference"] = float(abs(answer[0] - GOLDEN[str(instance["name"])][at]))
            row["counts"] &= row["difference"] <= GOLDEN_TOL
        if kind == "agent":
            row["regrets"] = answer.mean(axis=1).tolist()


def told(kind: str, rows: list[dict]) -> dict[str, float]:
    """The quantities of a case that something may have been asked of; by answers that count alone."""
    ours = [row for row in rows if row["peer"] == "rlcore" and row.get("counts")]
    if not ours:
        return {}
    numbers = {"peak GiB": max(row["peak"] for row in ours) / 2**30}
    numbers["seconds after compilation"] = min(row["median_s"] for row in ours)
    numbers["seconds with compilation"] = min(row["compile_s"] + row["median_s"] for row in ours)
    theirs = [row["ratio"] for row in rows if row["peer"] == "NumPy" and row.get("counts")]
    numbers |= {"NumPy's least time over ours": min(theirs)} if theirs else {}
    if kind == "backups":
        curves = [row["median_s"] for row in ours if row["method"].startswith("stop-loss")]
        scatter = [row["median_s"] for row in ours if row["method"].startswith("scatter")]
        if curves and scatter:
            numbers["the compiled scatter's least time over the stop-loss curves'"] = min(scatter) / curves[0]
    if kind == "suite":
        risks = ours[0]["risks"]
        met = [abs(risk["cost"] - risk["golden"]) <= GOLDEN_TOL for risk in risks]
        right = [max(abs(risk["cost"] - risk["by_law"]), abs(risk["bounds"])) <= LAW_TOL for risk in risks]
        numbers |= {"golden costs met to six decimals": sum(met), "costs that the exact laws have": sum(right)}
    for row in ours if kind == "agent" else ():
        if row["method"].endswith("frozen"):
            numbers["mean regret with the stock frozen"] = float(np.mean(row["regrets"]))
        elif row["method"] == "1 seed":
            numbers["seconds of one seed after compilation"] = row["median_s"]
        else:
            numbers["seconds of all seeds after compilation"] = row["median_s"]
            numbers |= {"mean regret": float(np.mean(row["regrets"])), "worst seed's regret": max(row["regrets"])}
    return numbers


def words(row: dict) -> list[str]:
    """What the answer of one row says."""
    said = [f"differ by {row['difference']:.1e}"] if row.get("difference") else []
    if "shares" in row:
        said += [f"{name} alone {share:.0%}" for name, share in row["shares"].items()]
    if "regrets" in row:
        said.append("regrets " + ", ".join(f"{regret:.3f}" for regret in row["regrets"]))
    return said + ([] if row["counts"] else ["DOES NOT COUNT"])


def risks(rows: list[dict]) -> list[str]:
    """The table of the suite, costs positive."""
    lines = []
    for row in rows:
        for risk in row.get("risks", ()):
            golden = "-" if np.isnan(risk["golden"]) else f"{risk['golden']:.6f}"
            cells = f"{risk['cost']:.6f} | {golden} | {risk['by_law']:.6f} | {risk['mean']:.6f} | {risk['stock']:g}"
            lines.append(f"| {risk['problem']} | {risk['level']:g} | {cells} | {risk['bounds']:.0e} |")
    if not lines:
        return []
    head = "| problem | level | least CVaR of the cost | golden | by the law | mean cost | stock | upper - lower |"
    return ["", head, "|---|---|---|---|---|---|---|---|", *lines]


def exponents(rows: list[dict]) -> list[str]:
    """How the time of each way grows with the number of utilities: the slope of its logarithm."""
    points: dict[str, list] = {}
    for row in rows:
        if row["peer"] == "rlcore" and row.get("counts"):
            points.setdefault(row["method"].split(",")[0], []).append((row["units"], row["median_s"]))
    fit = lambda times: float(np.polyfit(*np.log(np.array(times)).T, 1)[0])  # noqa: E731
    told = [f"{way} {fit(times):.2f}" for way, times in points.items() if len(times) > 1]
    return ["", f"Exponent of time in the number of utilities: {', '.join(told)}"] if told else []


def table(case: str, kind: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        "| solver | method | median s | processor s | compile s | load | units | us per unit | units per s | MB "
        "| peak MB | times ours | answers |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['peer']} {row.get('version', '')}".strip()
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} |{' - |' * 10} {row['error']} |")
            continue
        memory = f"{row['bytes'] / 1e6:.1f}" if row.get("bytes") is not None else "-"
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else "-"
        cells = f"{row['median_s']:.4g} | {row['processor_s']:.4g} | {row['compile_s']:.2f} | {row['load']:.1f}"
        cells += f" | {row['units']} | {1e6 * row['per_unit_s']:.4g} | {1 / row['per_unit_s']:.3g} | {memory}"
        cells += f" | {row['peak'] / 1e6:.0f} | {ratio}"
        lines.append(f"| {name} | {row['method']} | {cells} | {', '.join(words(row))} |")
    asked = peer.reached(ASKED.get(case, ()), told(kind, rows))
    scaling = exponents(rows) if kind == "slopes" else []
    return "\n".join([*lines, *risks(rows), *scaling, *([""] if asked else []), *asked])


def run_case(kind: str, sizes: tuple, options: argparse.Namespace, folder: Path) -> list[dict]:
    """The judged rows of one case."""
    instance, path, rows = make_instance(kind, sizes), folder / "instance.npz", []
    np.savez(path, **instance)
    once = kind in ("suite", "treasure", "agent")
    seconds = "0" if once else "0.2" if options.quick else "3"
    for name in SOLVERS[kind]:
        fresh = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(folder / name)}
        module = [sys.executable, "-m", "experiments.benchmarks.distributional_peers", kind, name, str(path), seconds]
        rows += peer.run(name, [*module, str(folder / name)], options.limit, fresh)
    judge(kind, rows, instance)
    return rows


if __name__ == "__main__":
    peer.bench("distributional", __doc__, CASES, QUICK, run_case, table, limit=900.0)
