"""Speed of switching bandits: relaxations beside HiGHS, simulation beside NumPy, exact planning.

    python -m experiments.benchmarks.lsd [--quick] [--only CASE ...]

Each solver runs in a process of its own with a time limit; times are medians of repeats after a first call, compile
time apart; float64. Where others keep the machine busy, run it on one core (`taskset`) and read processor time.

- Relaxation: 10 000 monotone problems of 16 arms and 16 local states (L = M = 8, which has the most cycles), HiGHS on
  the first of them, through scipy, on the cycle programme; then one problem of 10 000 arms and 64 local states.
- Simulation: the random-phase schedule, 8 arms and 16 local states; mean rewards agree within five standard errors.
- Exact planning: 5 arms, M = 6, L = 3: bounds of the optimal average by two algorithms.

Measured on one AMD EPYC core (`taskset -c 1`, the other one busy; JAX 0.10.2). 10 000 relaxations: 0.65 s in blocks and
0.87 s side by side, after 0.8 s of compilation, 75 times as fast as HiGHS per problem (63 times if its programmes are
built before); answers differ by 4e-16. 10 000 arms of 64 local states: 1.5 s, 169 MB beside the problem. Simulation: 67
million rounds x replicas per second in blocks, 47 side by side, 12 times a NumPy loop over all replicas; bound by two
look-ups per arm and round. Exact planning: 5 ms (Howard, after 1.1 s) and 0.16 s (value iteration).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks import peer
from experiments.benchmarks.lsd_peers import SOLVERS

# (problems, arms, rest depth, play depth, problems that HiGHS solves); (arms, depths, rounds, replicas, NumPy's).
CASES = {
    "relaxation, 10 000 problems of 16 arms": ("relaxation", (10_000, 16, 8, 8, 60)),
    "relaxation, 10 000 arms": ("relaxation", (1, 10_000, 32, 32, 0)),
    "simulation, 8 arms": ("simulation", (8, 8, 8, 1000, 10_000, 1000)),
    "exact planning, 5 arms": ("exact", (5, 6, 3)),
}
QUICK = {
    "relaxation, 50 problems of 4 arms": ("relaxation", (50, 4, 4, 4, 3)),
    "relaxation, 100 arms": ("relaxation", (1, 100, 8, 8, 0)),
    "simulation, 3 arms": ("simulation", (3, 4, 2, 200, 100, 50)),
    "exact planning, 3 arms": ("exact", (3, 3, 2)),
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


def table(case: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        "| solver | method | median s | processor s | compile s | units | us per unit | units per s | MB | times ours "
        "| answers |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['peer']} {row.get('version', '')}".strip()
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} | - | - | - | - | - | - | - | - | {row['error']} |")
            continue
        memory = f"{row['bytes'] / 1e6:.1f}" if row.get("bytes") is not None else "-"
        told = [f"differ by {row['difference']:.1e}"] if row.get("difference") else []
        told += [f"mean reward {row['reward']:.4f}"] if "reward" in row else []
        told += [f"bounds {row['width']:.0e} apart"] if "width" in row else []
        told += [] if row["counts"] else ["DOES NOT COUNT"]
        cells = f"{row['median_s']:.4g} | {row['processor_s']:.4g} | {row['compile_s']:.2f} | {row['units']}"
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else "-"
        cells += f" | {1e6 * row['per_unit_s']:.4g} | {1 / row['per_unit_s']:.3g} | {memory} | {ratio}"
        lines.append(f"| {name} | {row['method']} | {cells} | {', '.join(told)} |")
    return "\n".join(lines)


def run_case(kind: str, sizes: tuple, options: argparse.Namespace, folder: Path) -> list[dict]:
    """The judged rows of one case."""
    path, rows = folder / "instance.npz", []
    np.savez(path, **make_instance(kind, sizes))
    seconds = 0.2 if options.quick else 3.0
    fresh = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(folder)}
    for name in SOLVERS[kind]:
        module = [sys.executable, "-m", "experiments.benchmarks.lsd_peers", kind, name, str(path), str(seconds)]
        rows += peer.run(name, [*module, str(folder / name)], options.limit, fresh)
    judge(kind, rows)
    return rows


def main() -> None:
    """Run the cases and write `results/benchmarks/lsd.{json,md}`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, few repeats: checks that everything runs")
    parser.add_argument("--only", nargs="*", help="words that a case's name must contain")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds allowed per solver and case")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    cases = QUICK if options.quick else CASES
    cases = {name: case for name, case in cases.items() if all(word in name for word in options.only or ())}
    if not cases:
        parser.error(f"--only: found {options.only}, expected words of {list(QUICK if options.quick else CASES)}")
    header = peer.machine()
    print(header)
    record, pieces = {"machine": header, "cases": {}}, []
    for case, (kind, sizes) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = run_case(kind, sizes, options, Path(folder))
        record["cases"][case] = {"kind": kind, "rows": rows}
        pieces.append(table(case, rows))
        print(f"\n{pieces[-1]}", flush=True)
    peer.write(options.out, "lsd", record, "\n\n".join([header, *pieces]))


if __name__ == "__main__":
    main()
