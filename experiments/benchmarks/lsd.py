"""Speed of switching bandits: relaxations beside HiGHS, simulation beside NumPy, exact planning, learning.

    python -m experiments.benchmarks.lsd [--quick] [--only CASE ...]

Each solver runs in a process of its own with a time limit; times are medians of repeats after a first call, compile
time apart; float64. Where others keep the machine busy, run it on one core (`taskset`) and read processor time.

- Relaxation: 10 000 monotone problems of 16 arms and 16 local states (L = M = 8, which has the most cycles), HiGHS on
  the first of them, through scipy, on the cycle programme; then one problem of 10 000 arms and 64 local states.
- Simulation: the random-phase schedule, 8 arms and 16 local states; mean rewards agree within five standard errors.
- Exact planning: 5 arms, M = 6, L = 3: bounds of the optimal average by two algorithms.
- Learning: the experiment lsd.learning (E8) as shipped, its quick preset at T = 30 000 and 8 seeds, whole: start of
  Python, compilation, figure.

Under each case stands what was asked and whether it is met. Peak memory is that of the whole process.

Measured on two idle AMD EPYC cores (JAX 0.10.2; processor seconds in brackets); all that was asked is met. 10 000
relaxations: 0.36 s [0.71] in blocks and 0.43 [0.85] side by side, 153 times as fast per problem as HiGHS with its
programmes built before, 163 with them built anew; answers differ by 4e-16. 10 000 arms of 64 local states: 0.68 s
[1.3], 169 MB beside the problem, at most 0.46 GiB of memory in all. Simulation: 48 million rounds x replicas per
second side by side, 43 in blocks; NumPy's loop over all replicas takes 12 times as long; bound by two look-ups per
arm and round. Exact planning: 8 ms (Howard, after 0.9 s of compilation) and 0.23 s (value iteration). Learning: 17 s
[23], most of it compilation, at most 0.6 GiB. Where nine other processes ran: 1.9 s, 71 times HiGHS; 3.0 s; 20
million; 10 ms; 97 s.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks import peer
from experiments.benchmarks.lsd_peers import SOLVERS

# (problems, arms, rest depth, play depth, problems that HiGHS solves); (arms, depths, rounds, replicas, NumPy's);
# (arms, depths); (rounds, seeds).
CASES = {
    "relaxation, 10 000 problems of 16 arms": ("relaxation", (10_000, 16, 8, 8, 60)),
    "relaxation, 10 000 arms": ("relaxation", (1, 10_000, 32, 32, 0)),
    "simulation, 8 arms": ("simulation", (8, 8, 8, 1000, 10_000, 1000)),
    "exact planning, 5 arms": ("exact", (5, 6, 3)),
    "learning, 30 000 rounds": ("learning", (30_000, 8)),
}
QUICK = {
    "relaxation, 50 problems of 4 arms": ("relaxation", (50, 4, 4, 4, 3)),
    "relaxation, 100 arms": ("relaxation", (1, 100, 8, 8, 0)),
    "simulation, 3 arms": ("simulation", (3, 4, 2, 200, 100, 50)),
    "exact planning, 3 arms": ("exact", (3, 3, 2)),
    "learning, 2 000 rounds": ("learning", (2_000, 2)),
}
# What was asked of the full cases: quantity, below or at least, number.
ASKED = {
    "relaxation, 10 000 problems of 16 arms": (
        ("seconds after compilation", "below", 3.0),
        ("HiGHS's least time per problem over ours", "at least", 30.0),
    ),
    "relaxation, 10 000 arms": (("seconds after compilation", "below", 5.0), ("peak GiB", "below", 2.0)),
    "simulation, 8 arms": (("units per second", "at least", 1e7),),
    "exact planning, 5 arms": (("seconds with compilation", "below", 20.0),),
    "learning, 30 000 rounds": (("seconds with compilation", "below", 120.0),),
}
TOL = 1e-9  # values below the number of arms; HiGHS's own tolerance is 1e-7 per row, its vertices are far better


def make_instance(kind: str, sizes: tuple) -> dict:
    """What the solvers of one case are given."""
    rng = np.random.default_rng(0)
    if kind == "relaxation":
        count, arms, deep, low, few = sizes
        payoffs = np.sort(rng.random((count, arms, deep + low)), axis=-1)
        return {"payoffs": payoffs, "satiation": np.array(low), "few": np.array(few)}
    arms, deep, low, *rest = sizes
    payoffs = np.sort(rng.random((arms, deep + low)), axis=-1)
    names = ("rounds", "replicas", "few") if kind == "simulation" else ()
    return {"payoffs": payoffs, "satiation": np.array(low)} | dict(zip(names, map(np.array, rest), strict=True))


def judge(kind: str, rows: list[dict]) -> None:
    """Add time per unit, whether the answer counts, the difference from ours, and the ratio to our fastest."""
    done = [row for row in rows if "error" not in row]
    answers = {id(row): np.load(row.pop("answer")) for row in done}
    for row in done:
        row["per_unit_s"] = row["median_s"] / row["units"]
    ours = [row for row in done if row["peer"] == "rlcore"]
    best = min(ours, key=lambda row: row["per_unit_s"], default=None)
    for row in done:
        answer = answers[id(row)]
        row["counts"] = bool(np.isfinite(answer).all())
        if best is None:
            continue
        reference = answers[id(best)]
        if kind == "simulation":
            row["reward"] = float(answer.mean())
            row["difference"] = abs(float(answer.mean() - reference.mean()))
            row["error_of_means"] = float(np.sqrt(answer.var() / len(answer) + reference.var() / len(reference)))
            row["counts"] &= row["difference"] <= 5 * row["error_of_means"] + TOL
        else:
            row["difference"] = float(np.abs(reference[: len(answer)] - answer).max())
            row["counts"] &= row["difference"] <= TOL
            if kind == "exact":
                row["width"] = float(answer[1] - answer[0])
                row["counts"] &= 0 <= row["width"] <= TOL
        row["ratio"] = row["per_unit_s"] / best["per_unit_s"]


def reached(case: str, rows: list[dict]) -> list[str]:
    """One line per number asked of a case: ours, what was asked, met or not; by answers that count alone."""
    ours = [row for row in rows if row["peer"] == "rlcore" and row.get("counts")]
    others = [row["ratio"] for row in rows if row["peer"] != "rlcore" and row.get("counts")]
    told = {}
    if ours:
        told["seconds after compilation"] = min(row["median_s"] for row in ours)
        told["seconds with compilation"] = min(row["compile_s"] + row["median_s"] for row in ours)
        told["units per second"] = max(1 / row["per_unit_s"] for row in ours)
        told["peak GiB"] = max(row["peak"] for row in ours) / 2**30
        told |= {"HiGHS's least time per problem over ours": min(others)} if others else {}
    return peer.reached(ASKED.get(case, ()), told)


def table(case: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        "| solver | method | median s | processor s | compile s | units | us per unit | units per s | MB | peak MB "
        "| times ours | answers |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['peer']} {row.get('version', '')}".strip()
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} | - | - | - | - | - | - | - | - | - | {row['error']} |")
            continue
        memory = f"{row['bytes'] / 1e6:.1f}" if row.get("bytes") is not None else "-"
        told = [f"differ by {row['difference']:.1e}"] if row.get("difference") else []
        told += [f"mean reward {row['reward']:.4f}"] if "reward" in row else []
        told += [f"bounds {row['width']:.0e} apart"] if "width" in row else []
        told += [] if row["counts"] else ["DOES NOT COUNT"]
        cells = f"{row['median_s']:.4g} | {row['processor_s']:.4g} | {row['compile_s']:.2f} | {row['units']}"
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else "-"
        cells += f" | {1e6 * row['per_unit_s']:.4g} | {1 / row['per_unit_s']:.3g} | {memory}"
        cells += f" | {row['peak'] / 1e6:.0f} | {ratio}"
        lines.append(f"| {name} | {row['method']} | {cells} | {', '.join(told)} |")
    asked = reached(case, rows)
    return "\n".join([*lines, *([""] if asked else []), *asked])


def learning_experiment(sizes: tuple, folder: Path, limit: float, environment: dict) -> dict:
    """The experiment on learning, quick preset at other sizes, in a process of its own: all of it is the time."""
    horizon, seeds = sizes
    words = ["lsd.learning", "--quick", "--horizon", str(horizon), "--num-seeds", str(seeds), "--out", str(folder)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    trouble = peer.run("rlcore", [sys.executable, "-m", "experiments", *words], limit, environment)
    row = {"peer": "rlcore", "method": "the experiment as shipped, with its figure"}
    if trouble:
        return row | {"error": trouble[-1]["error"]}
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    from experiments.lsd.learning import OTHERS, UCB

    units = horizon * seeds * len(UCB + OTHERS)  # rounds of the learning curves; the regret by horizon comes on top
    # The largest of all processes so far: at least that of this one.
    row |= {"median_s": seconds, "processor_s": used, "compile_s": 0.0, "units": units, "peak": 1024 * after.ru_maxrss}
    return row | {"per_unit_s": seconds / units, "load": os.getloadavg()[0], "counts": True}


def run_case(kind: str, sizes: tuple, options: argparse.Namespace, folder: Path) -> list[dict]:
    """The judged rows of one case."""
    fresh = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(folder)}
    if kind == "learning":
        return [learning_experiment(sizes, folder, options.limit, fresh)]
    path, rows = folder / "instance.npz", []
    np.savez(path, **make_instance(kind, sizes))
    seconds = 0.2 if options.quick else 3.0
    for name in SOLVERS[kind]:
        module = [sys.executable, "-m", "experiments.benchmarks.lsd_peers", kind, name, str(path), str(seconds)]
        rows += peer.run(name, [*module, str(folder / name)], options.limit, fresh)
    judge(kind, rows)
    return rows


if __name__ == "__main__":
    peer.bench("lsd", __doc__, CASES, QUICK, run_case, lambda case, _, rows: table(case, rows))
