"""Speed of the effective horizon: the golden table, one large analysis, PPO beside Stable-Baselines3, pooled SQIRL.

    python -m experiments.benchmarks.sqirl [--quick] [--peer-python PYTHON] [--only CASE ...]

Each solver runs in a process of its own with a time limit and without compiled programs from before.

- Golden table: the experiment sqirl.golden as shipped, whole: start of Python, compilation, figure.
- Analysis: the empty room of 16 x 16 cells (781 states, with the action before 2343), sticky, T = 100, 30 rungs;
  beside the same ladder in NumPy; returns agree. float64.
- PPO: 29 problems x 3 seeds x 300 000 steps, with 20 exact evaluations each and with one, by one program on blocks of
  eight runs, a thread per core; beside Stable-Baselines3 with the same settings on one of the problems (`bench` extra).
  Compared are steps per second in all, with one evaluation each; both policies are evaluated exactly.
- SQIRL: pooled, k = 1, 2, 3, doubled m up to 300 000 steps, 29 problems x 3 seeds, with compilation.

Under each case stands what was asked and whether it is met. Peak memory is that of the whole process.

Measured on two idle AMD EPYC cores (JAX 0.10.2), PPO: 92 s and 8 s of compilation with 20 evaluations (asked 240),
2.8e5 steps per second; 3.45e5 with one evaluation, 32 times Stable-Baselines3 2.9.2 (1.06e4 with two threads of PyTorch
2.13, 9.2e3 with one; asked 30). All solve the problem that is compared.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from envs.effective_horizon import PILOT, STICKINESS, pilot_problems
from experiments.benchmarks import peer
from experiments.benchmarks.sqirl_peers import SOLVERS

# groups of the table; (size, rungs); (problems, the one that peers learn, steps, seeds, peers' steps); the same.
CASES = {
    "golden table": ("golden", ("small", "grids", "rooms", "large")),
    "analysis, 2343 rows": ("analysis", (16, 30)),
    "PPO, 29 problems": ("ppo", (tuple(PILOT), "corridor-10 T20", 300_000, 3, 40_960)),
    "SQIRL, 29 problems": ("sqirl", (tuple(PILOT), "corridor-10 T20", 300_000, 3, 0)),
}
QUICK = {
    "golden table, rooms": ("golden", ("rooms",)),
    "analysis, small": ("analysis", (5, 5)),
    "PPO, 2 problems": ("ppo", (("lock k=2", "corridor-5 T10"), "corridor-5 T10", 4096, 2, 2048)),
    "SQIRL, 2 problems": ("sqirl", (("lock k=2", "corridor-5 T10"), "corridor-5 T10", 2000, 1, 0)),
}
# What was asked of the full cases: quantity, below or at least, number.
ASKED = {
    "golden table": (("seconds with compilation", "below", 90.0),),
    "analysis, 2343 rows": (("seconds with compilation", "below", 5.0), ("peak GiB", "below", 1.0)),
    "PPO, 29 problems": (
        ("seconds with compilation", "below", 240.0),
        ("steps per second over Stable-Baselines3's best", "at least", 30.0),
    ),
    "SQIRL, 29 problems": (("seconds with compilation", "below", 120.0),),
}
# Returns of at most 1 after 100 backups of sums of a few terms each, in two orders.
TOL = 1e-11


def arrays(problem, stickiness: float) -> dict:
    """A problem as plain arrays, for peers."""
    names = ("next_state", "prob", "reward", "terminal", "initial")
    found = {name: np.asarray(getattr(problem, name)) for name in names}
    shape = found["prob"].shape
    found |= {name: np.broadcast_to(found[name], shape) for name in ("reward", "terminal")}
    return found | {"horizon": np.array(problem.horizon), "stickiness": np.array(stickiness)}


def make_instance(kind: str, sizes: tuple) -> dict:
    """What the solvers of one case are given."""
    if kind == "analysis":
        from envs import make

        size, rungs = sizes
        problem = make("minigrid_empty", size=size)
        return arrays(problem, STICKINESS) | {"size": np.array(size), "max_k": np.array(rungs)}
    problems, learned, steps, seeds, few = sizes
    numbers = {"steps": np.array(steps), "seeds": np.array(seeds), "few": np.array(few)}
    words = {"problems": np.array(problems), "learned": np.array(learned)}
    if kind == "sqirl":
        return numbers | words
    from rlcore.episodic import episodic, episodic_values

    one = episodic(pilot_problems((learned,))[learned])
    best, random = (float(one.problem.initial @ episodic_values(one, w).value[0]) for w in ("max", "mean"))
    return arrays(one.problem.base, STICKINESS) | numbers | words | {"best": np.array(best), "random": np.array(random)}


def judge(kind: str, rows: list[dict], instance: dict) -> None:
    """Add time per unit, whether the answer counts, and what it says."""
    done = [row for row in rows if "error" not in row]
    answers = {id(row): np.load(row.pop("answer")) for row in done}
    ours = next((row for row in done if row["peer"] == "rlcore"), None)
    for row in done:
        answer = answers[id(row)]
        row["per_unit_s"] = row["median_s"] / row["units"]
        if kind == "analysis":
            reference = answers[id(ours)] if ours else answer
            row["difference"] = float(np.abs(answer - reference).max())
            row["counts"] = bool(np.isfinite(answer).all()) and row["difference"] <= TOL
        elif kind == "ppo":
            # No policy earns more than the optimum; training that ends below the random policy did not learn.
            row["returns"] = answer.tolist()
            best, random = float(instance["best"]), float(instance["random"])
            row["counts"] = bool(np.all(answer <= best + TOL) and np.median(answer) > random)
        else:
            row["solved"] = int(np.isfinite(answer).sum())
            row["counts"] = row["solved"] > 0 and not np.isnan(answer).any()


def reached(case: str, rows: list[dict]) -> list[str]:
    """One line per number asked of a case: ours, what was asked, met or not; by answers that count alone."""
    ours = [row for row in rows if row["peer"] == "rlcore" and row.get("counts")]
    others = [row["per_unit_s"] for row in rows if row["peer"] == "Stable-Baselines3" and row.get("counts")]
    told = {}
    if ours:
        # The first way is the one that was asked for.
        told["seconds with compilation"] = ours[0]["compile_s"] + ours[0]["median_s"]
        told["peak GiB"] = max(row["peak"] for row in ours) / 2**30
        if others:
            told["steps per second over Stable-Baselines3's best"] = min(others) / min(
                row["per_unit_s"] for row in ours
            )
    return peer.reached(ASKED.get(case, ()), told)


def table(case: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        "| solver | method | median s | processor s | compile s | units | units per s | peak MB | answers |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['peer']} {row.get('version', '')}".strip()
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} | - | - | - | - | - | - | {row['error']} |")
            continue
        told = [f"differ by {row['difference']:.1e}"] if row.get("difference") else []
        told += [f"returns {', '.join(f'{x:.4f}' for x in row['returns'])}"] if "returns" in row else []
        told += [f"{row['solved']} solved"] if "solved" in row else []
        told += [row["said"]] if "said" in row else []
        told += [] if row["counts"] else ["DOES NOT COUNT"]
        cells = f"{row['median_s']:.4g} | {row['processor_s']:.4g} | {row['compile_s']:.2f} | {row['units']}"
        cells += f" | {1 / row['per_unit_s']:.3g} | {row['peak'] / 1e6:.0f}"
        lines.append(f"| {name} | {row['method']} | {cells} | {', '.join(told)} |")
    asked = reached(case, rows)
    return "\n".join([*lines, *([""] if asked else []), *asked])


def golden_experiment(groups: tuple, folder: Path, limit: float, environment: dict) -> dict:
    """The golden table as shipped in a process of its own: all of it is the time; every printed number must agree."""
    words = ["-m", "experiments", "sqirl.golden", "--groups", *groups, "--out", str(folder / "out")]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    trouble = peer.run("rlcore", [sys.executable, *words], limit, environment)
    row = {"peer": "rlcore", "method": "the experiment as shipped, with its figure"}
    if trouble:
        return row | {"error": trouble[-1]["error"]}
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    import xarray as xr

    from experiments.sqirl import golden

    data = xr.open_zarr(next((folder / "out").glob("*/data.zarr")), consolidated=False).load()
    ours = golden.measured(data)
    known = [(ours[name], theirs) for name, theirs in golden.REFERENCES.items() if np.isfinite(ours[name].value)]
    agree = sum(abs(mine.value - theirs.value) <= mine.error + theirs.error for mine, theirs in known)
    units = 2 * data.sizes["problem"]
    row |= {"median_s": seconds, "processor_s": used, "compile_s": 0.0, "units": units, "peak": 1024 * after.ru_maxrss}
    row |= {
        "per_unit_s": seconds / units,
        "load": os.getloadavg()[0],
        "said": f"{agree} of {len(known)} rows of printed numbers agree",
    }
    return row | {"counts": bool(known) and agree == len(known)}


def run_case(kind: str, sizes: tuple, options: argparse.Namespace, folder: Path) -> list[dict]:
    """The judged rows of one case."""
    # An empty folder of compiled programs for every process.
    fresh = lambda name: {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(folder / f"cache {name}")}  # noqa: E731
    if kind == "golden":
        return [golden_experiment(sizes, folder, options.limit, fresh("golden"))]
    path, rows, instance = folder / "instance.npz", [], make_instance(kind, sizes)
    np.savez(path, **instance)
    # What takes minutes, or includes compilation, is done once.
    seconds = 3.0 if kind == "analysis" and not options.quick else 0.0
    for name in SOLVERS[kind]:
        python = sys.executable if name in ("rlcore", "NumPy") else options.peer_python
        module = [python, "-m", "experiments.benchmarks.sqirl_peers", kind, name, str(path), str(seconds)]
        rows += peer.run(name, [*module, str(folder / name)], options.limit, fresh(name))
    judge(kind, rows, instance)
    return rows


if __name__ == "__main__":
    peer.bench(
        "sqirl",
        __doc__,
        CASES,
        QUICK,
        run_case,
        lambda case, _, rows: table(case, rows),
        limit=600.0,
        outside="stable-baselines3",
    )
