"""Speed of preference games beside peers: one run, the same games, every answer compared.

    python -m experiments.benchmarks.nash [--quick] [--peer-python PYTHON] [--only CASE ...]

Peers come with `pip install -e ".[bench]"` (PyTorch) and `".[external]"` (pygambit), here or in the environment whose
interpreter is given; NumPy and SciPy are always there. Each runs in a process of its own with a time limit; one that is
missing or fails is a row that says so. Times are medians of repeats after a first call, compile time apart. A peer may
do fewer updates or games: all are compared per unit, and its answers with ours on the part that it did.

- Table: the released simulations of EGPO (five algorithms, three temperatures, ten games), wall time of a fresh process
  with an empty cache of compiled programs: all algorithms in one program, and the experiment as it is shipped.
- Updates: seconds per update of one game, its duality gap included, beside PyTorch in the form of the released loops
  and beside the same closed-form steps in NumPy.
- Equilibria: ten thousand games of 10 actions, and one game of 1 000.
- Training: one method of the deep text game, one seed and eight.

Measured on 2 AMD EPYC cores at a load of 1.6 at the start (JAX 0.10.2). Table: 3.4 s from start to end with an empty
cache, .18 us per game-update; the experiment as shipped, six algorithms and figure, 12.8 s. With all gaps,
10 games: .44 to .58 us per game-update; PyTorch 2.13.0 takes 207 to 413 times that, NumPy 4.0 to 5.4 times; 500 games:
PyTorch 359 to 710 times, NumPy 1.0 to 1.3 times: no difference to speak of.
Equilibria of 10000 games: 0.40 s in blocks of 32 sorted by temperature, 0.94 s unsorted, 3.8 s by vmap, all gaps below
1e-26; NumPy's batch, which drops finished games and tries one step length at a time, 0.28 s; its loop 25 times ours.
scipy.optimize.root fails on 1% of the games. One game of 1000: 0.08 s at temperature 0.1, 0.25 s at 0.001; NumPy 0.06
and 0.27 s, SciPy 0.5 and 4.2 s. Training: 1500 steps 0.96 s, eight seeds 4.1 s by vmap (4.3 times one), 3.3 s by a
thread per core (3.5 times).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks import peer
from experiments.benchmarks.nash_peers import SOLVERS

# (kind, sizes). Table: games, divisor of the updates. Updates: games, updates, updates of slow peers.
# Equilibria: games, actions, games of slow peers, temperature range. Training: seeds, steps.
CASES = {
    "table, 10 games": ("table", (10, 1)),
    "updates, 10 games": ("updates", (10, 1000, 200)),
    "updates, 500 games": ("updates", (500, 1000, 200)),
    "equilibria, 10000 games of 10": ("equilibria", (10_000, 10, 200, 1e-3, 2.0)),
    "equilibrium, 1 game of 1000, temperature 0.1": ("equilibria", (1, 1000, 1, 0.1, 0.1)),
    "equilibrium, 1 game of 1000, temperature 0.001": ("equilibria", (1, 1000, 1, 1e-3, 1e-3)),
    "training": ("training", (8, 1500)),
}
QUICK = {
    "table, 2 games": ("table", (2, 100)),
    "updates, 3 games": ("updates", (3, 50, 20)),
    "equilibria, 200 games of 10": ("equilibria", (200, 10, 40, 1e-3, 2.0)),
    "equilibrium, 1 game of 50": ("equilibria", (1, 50, 1, 0.1, 0.1)),
    "training": ("training", (2, 20)),
}
# Gaps after equal numbers of updates. Each update rounds logits of up to 1e3 nats, by 1e-13; its derivative has modulus
# below 1.02 at these settings, so 200 updates add up to 200 * 1.02^200 * 1e-13 = 1e-9, and a gap moves by at most
# twice that.
UPDATE_TOL = 2e-9
# Probabilities of solvers that stop at residuals of 1e-12 relative to 1 / temperature <= 1e3.
EQUILIBRIUM_TOL = 1e-8
SOLVED = 1e-12  # gap of a solved game


def random_games(count: int, num_actions: int, low: float, high: float, seed: int = 0) -> dict:
    """U(0, 1) preferences, reference logits N(0, s^2) with s from {0, 1, 2}, temperatures log-uniform."""
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.random((count, num_actions, num_actions)), -1)
    below = np.tril(np.ones((num_actions, num_actions)), -1)
    preference = lower + (below - lower).transpose(0, 2, 1) * below.T + 0.5 * np.eye(num_actions)
    logits = rng.normal(size=(count, num_actions)) * rng.integers(0, 3, count)[:, None]
    temperature = np.exp(rng.uniform(np.log(low), np.log(high), count))
    return {"preference": preference, "reference": normalised(logits), "temperature": temperature}


def normalised(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits."""
    top = logits - logits.max(-1, keepdims=True)
    return top - np.log(np.exp(top).sum(-1, keepdims=True))


def simulation_instance(games: int) -> dict:
    """Games and settings of the released simulations: reference logits N(0, 1)."""
    from experiments.nash.egpo_simulations import NUM_ACTIONS, SETTINGS

    instance = random_games(games, NUM_ACTIONS, 1.0, 1.0)
    instance["reference"] = normalised(np.random.default_rng(1).normal(size=instance["reference"].shape))
    temperature, updates, rate = (np.array(column) for column in zip(*SETTINGS, strict=True))
    return instance | {"temperature": temperature, "updates": updates, "rate": rate}


def make_instance(kind: str, sizes: tuple) -> dict:
    """What the solvers of one case are given."""
    if kind == "table":
        instance = simulation_instance(sizes[0])
        return instance | {"updates": instance["updates"] // sizes[1], "rows": np.array(min(201, 1000 // sizes[1] + 1))}
    if kind == "updates":
        return simulation_instance(sizes[0]) | {"updates": np.array(sizes[1]), "slow_updates": np.array(sizes[2])}
    if kind == "equilibria":
        count, actions, few, low, high = sizes
        return random_games(count, actions, low, high) | {"slow_games": np.array(few)}
    return {"seeds": np.array(sizes[0]), "steps": np.array(sizes[1])}


def gaps(instance: dict, policies: np.ndarray) -> np.ndarray:
    """Duality gaps 2 tau KL(pi || best response) of log-policies, by terms that are all at least 0."""
    count = len(policies)
    payoff, reference = instance["preference"][:count] - 0.5, instance["reference"][:count]
    tau = instance["temperature"][:count, None]
    best = normalised(reference + np.matmul(payoff, np.exp(policies)[..., None])[..., 0] / tau)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = policies - best
        near = np.abs(difference) < 0.5
        growth = np.expm1(np.where(near, difference, 0))
        close = np.exp(best) * (difference * growth + difference - growth)
        far = np.where(np.exp(policies) > 0, np.exp(policies) * difference, 0) - np.exp(policies) + np.exp(best)
    return 2 * tau[:, 0] * np.maximum(np.where(near, close, far), 0).sum(-1)


def judge(kind: str, rows: list[dict], instance: dict) -> None:
    """Add to each row the difference of its answer from ours, whether it counts, and our time per unit against its."""
    done = [row for row in rows if "error" not in row]
    answers = {id(row): np.load(row.pop("answer")) for row in done}
    for row in done:
        row["per_unit_s"] = row["median_s"] / row["units"]
        answer = answers[id(row)]
        ours = [other for other in done if other["peer"] == "rlcore" and other["method"] == row["method"]]
        if kind == "updates" and ours:
            reference = answers[id(ours[0])][:, : answer.shape[1], : answer.shape[2]]
            row["difference"] = float(np.abs(answer[..., : reference.shape[2]] - reference).max())
            row["counts"] = row["difference"] <= UPDATE_TOL
        elif kind == "equilibria":
            known = ~np.isnan(answer).any(1)
            reference = next((answers[id(other)] for other in done if other["peer"] == "rlcore"), answer)
            row["difference"] = float(np.abs(np.exp(answer) - np.exp(reference[: len(answer)]))[known].max())
            found = gaps(instance, answer)[known]
            row["solved"], row["largest_gap"] = float((found < SOLVED).mean()), float(found.max())
            row["counts"] = row["difference"] <= EQUILIBRIUM_TOL
        else:
            row["counts"] = bool(np.isfinite(answer).all())
            row["largest_gap"] = float(answer[:, -1, :, -1].max() if kind == "table" else answer.max())
        if kind == "training":
            row["times_first"] = row["median_s"] / done[0]["median_s"]
    for row in done:
        own = [r for r in done if r["peer"] == "rlcore" and (kind != "updates" or r["method"] == row["method"])]
        if own and row["peer"] != "rlcore" and row["counts"]:
            row["ratio"] = row["per_unit_s"] / min(r["per_unit_s"] for r in own)


UNITS = {"table": "game-update", "updates": "game-update", "equilibria": "game", "training": "seed"}


def table(case: str, kind: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        f"| solver | method | median s | compile s | units | us per {UNITS[kind]} | times ours | answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['peer']} {row.get('version', '')}".strip()
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} | - | - | - | - | - | {row['error']} |")
            continue
        told = [f"differ by {row['difference']:.1e}"] if "difference" in row else []
        told += [f"{row['solved']:.2%} solved"] if "solved" in row else []
        told += [f"largest gap {row['largest_gap']:.1e}"] if "largest_gap" in row else []
        told += [f"{row['times_first']:.1f} times the first row"] if "times_first" in row else []
        if "process_s" in row:
            told.append(f"process {row['process_s']:.1f} s, {row['processor_s']:.1f} s of processor time")
        told += [] if row["counts"] else ["OUTSIDE THE TOLERANCE"]
        compiled = f"{row['compile_s']:.2f}" if "compile_s" in row else "-"
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else "1" if row["peer"] == "rlcore" else "-"
        cells = f"{row['median_s']:.4g} | {compiled} | {row['units']} | {1e6 * row['per_unit_s']:.4g} | {ratio}"
        lines.append(f"| {name} | {row['method']} | {cells} | {', '.join(told)} |")
    return "\n".join(lines)


def run_case(kind: str, sizes: tuple, options: argparse.Namespace, folder: Path) -> list[dict]:
    """The judged rows of one case."""
    instance, rows = make_instance(kind, sizes), []
    path = folder / "instance.npz"
    np.savez(path, **instance)
    # Solvers whose time is minutes or includes the start of a process run once.
    seconds = 0.0 if kind in ("table", "training") else 0.3 if options.quick else 3.0
    # An empty folder of compiled programs for every process.
    fresh = lambda name: {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(folder / name)}  # noqa: E731
    for name in SOLVERS[kind]:
        if name not in options.peers:
            continue
        python = sys.executable if name == "rlcore" else options.peer_python
        module = [python, "-m", "experiments.benchmarks.nash_peers", kind, name, str(path), str(seconds)]
        started = time.perf_counter()
        found = peer.run(name, [*module, str(folder / name)], options.limit, fresh(name))
        for row in found if kind == "table" else []:
            # The start of Python and its imports are in it.
            row["process_s"] = time.perf_counter() - started
        rows += found
    judge(kind, rows, instance)
    if kind == "table" and sizes[1] == 1 and "rlcore" in options.peers:
        rows.append(shipped_experiment(folder, options.limit, fresh("shipped")))
    return rows


def shipped_experiment(folder: Path, limit: float, environment: dict) -> dict:
    """Wall time of the experiment itself, quick preset: six algorithms, critical steps, data set and figure."""
    out = folder / "out"
    command = [sys.executable, "-m", "experiments", "nash.egpo_simulations", "--quick", "--out", str(out)]
    started = time.perf_counter()
    trouble = peer.run("rlcore", command, limit, environment)
    row = {"peer": "rlcore", "method": "the experiment as shipped, with its figure"}
    if trouble:
        return row | {"error": trouble[-1]["error"]}
    seconds = time.perf_counter() - started
    from experiments.nash.egpo_simulations import ALGORITHMS, QUICK, SETTINGS

    units = QUICK.num_games * len(ALGORITHMS) * sum(updates for _, updates, _ in SETTINGS)
    return row | {"median_s": seconds, "units": units, "per_unit_s": seconds / units, "counts": True}


def main() -> None:
    """Run the cases and write `results/benchmarks/nash.{json,md}`."""
    names = list(dict.fromkeys(name for solvers in SOLVERS.values() for name in solvers))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, few repeats: checks that everything runs")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--only", nargs="*", help="words that a case's name must contain")
    parser.add_argument("--peers", nargs="*", default=names, help="solvers to run")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds allowed per solver and case")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    unknown = set(options.peers) - set(names)
    if unknown:
        parser.error(f"--peers: found {sorted(unknown)}, expected some of {names}")
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
        pieces.append(table(case, kind, rows))
        print(f"\n{pieces[-1]}", flush=True)
    peer.write(options.out, "nash", record, "\n\n".join([header, *pieces]))


if __name__ == "__main__":
    main()
