"""Speed of planning beside peers: one run, the same MDPs, the same certified accuracy, every answer checked.

    python -m experiments.benchmarks.planning [--quick] [--peer-python PYTHON] [--only CASE ...]

Peers come with `pip install -e ".[bench]"`, here or in the environment whose interpreter is given. Each runs in a
process of its own with a time limit; one that is missing or fails is a row that says so. Times are medians of repeats
after a first call, whose excess over the median is shown as compile time. An answer counts only if it is within the
tolerance of the exact value; its ratio is against the fastest peer method whose answer counts.

What a peer builds before it solves (its matrices, nested lists, checks) is "set-up", imports included, and is not in
its time. The like-for-like rows of this library are therefore the "prepared" ones, which start from
`rlcore.planning.prepare(problem)`; the others lay the problem out anew at every call.

Measured on 2 AMD EPYC cores (JAX 0.10.2, QuantEcon 0.11.4), fastest peer's median over ours: 1000 x 10 x 5 prepared MPI
0.37 ms, 3.1 (0.53 ms and 2.2 with the layout); 20000 x 10 x 10 prepared MPI 18.8 ms, 1.17 (43 ms and 0.51);
1000000 x 4 x 4 prepared VI 484 ms, 3.8 (637 ms and 2.9). Batch of 1000, idle machine: MPI "map" 40 ms, 6.0 against
QuantEcon's dense PI and 8.1 against its MPI. "map" uses one core: two lax.maps in one program run 62 ms, 4 lanes at a
time 42 to 47 ms, and one map on each of two simulated devices 27 ms.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks import peer
from experiments.benchmarks.planning_peers import PEERS

TOL = 1e-6  # largest error of a value; rewards are uniform on [0, 1]
CASES = {
    "1000 x 10 x 5": (1, 1000, 10, 5),
    "20000 x 10 x 10": (1, 20_000, 10, 10),
    "1000000 x 4 x 4": (1, 1_000_000, 4, 4),
    "batch of 1000, 100 x 5 x 5": (1000, 100, 5, 5),
}
QUICK = {"1000 x 10 x 5": (1, 1000, 10, 5), "batch of 50, 100 x 5 x 5": (50, 100, 5, 5)}


def random_instance(lanes: int, num_states: int, num_actions: int, num_outcomes: int, seed: int = 0) -> dict:
    """Random successors, Dirichlet(1) weights, rewards uniform on [0, 1]; discount .99, or .9 to .999 over a batch."""
    rng = np.random.default_rng(seed)
    shape = (lanes, num_states, num_actions, num_outcomes)
    weights = rng.exponential(size=shape)
    spread = 1 - np.geomspace(0.1, 0.001, lanes)
    return {
        "next_state": rng.integers(0, num_states, shape, dtype=np.int32),
        "prob": weights / weights.sum(-1, keepdims=True),
        "reward": rng.random(shape[:-1]),
        "discount": rng.permutation(spread) if lanes > 1 else np.array([0.99]),
    }


def exact_values(instance: dict) -> np.ndarray:
    """Optimal values to 1e-9 where rounding allows, by policy iteration with a certificate of its own."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from rlcore.mdp import tabular
    from rlcore.planning import policy_iteration

    values = []
    for next_state, prob, reward, discount in zip(*(instance[k] for k in KEYS), strict=True):
        solution = policy_iteration(tabular(next_state, prob, reward, discount=discount), tol=1e-8)
        assert float(solution.bound) < TOL / 10, float(solution.bound)
        values.append(np.asarray(solution.value.value))
    return np.stack(values)


KEYS = ("next_state", "prob", "reward", "discount")


def run_peer(name: str, python: str, instance: Path, seconds: float, limit: float) -> list[dict]:
    """The rows of one planner on one instance."""
    answers = instance.with_name(f"{name.replace(' ', '_')}")
    command = [python, "-m", "experiments.benchmarks.planning_peers", name, str(instance), str(TOL), str(seconds)]
    rows = peer.run(name, [*command, str(answers)], limit)
    for row in rows:
        if row["method"] != "-":
            row["answer"] = f"{answers}.{row['method'].replace(' ', '_')}.npy"
    return rows


def bandwidth(instance: dict) -> dict:
    """Seconds and bytes of one optimal sweep, against the rate of a large copy on this machine."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from rlcore.mdp import tabular
    from rlcore.planning import prepare

    kernel = jax.jit(prepare)(tabular(*(instance[k][0] for k in KEYS[:3]), discount=instance["discount"][0]))
    count = 50 if instance["prob"].size < 10**6 else 5
    sweeps = jax.jit(lambda k, v: jax.lax.fori_loop(0, count, lambda _, v: k.greedy(v)[0], v))
    start = jax.numpy.zeros(kernel.num_states)
    seconds = peer.median_seconds(lambda: jax.block_until_ready(sweeps(kernel, start))) / count
    source = np.ones(25_000_000)
    target = np.empty_like(source)
    copied = peer.median_seconds(lambda: np.copyto(target, source))
    # Indices and weights of every outcome, rewards, and the value once; gathers that miss the cache read more.
    read = instance["prob"].size * 12 + instance["reward"].size * 8 + kernel.num_states * 8
    rate = 2 * source.nbytes / copied
    return {"sweep_s": seconds, "bytes": read, "copy_bytes_per_s": rate, "share": read / seconds / rate}


def judge(rows: list[dict], exact: np.ndarray) -> None:
    """Add to each row the error of its answer, whether it counts, and its ratio to the fastest peer that counts."""
    for row in rows:
        if "error" not in row:
            row["value_error"] = float(np.abs(np.load(row.pop("answer")) - exact).max())
            row["counts"] = row["value_error"] <= TOL * (1 + 1e-3)
        row.pop("answer", None)
    peers = [row["median_s"] for row in rows if row.get("counts") and row["peer"] != "rlcore"]
    for row in rows:
        if peers and row.get("counts"):
            row["times_faster"] = min(peers) / row["median_s"]


def table(case: str, rows: list[dict]) -> str:
    """One case as Markdown."""
    lines = [
        f"### {case}",
        "| planner | method | median ms | min ms | compile s | set-up s | largest error | fastest peer's time / this |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.get("median_s", np.inf)):
        name = f"{row['peer']} {row.get('version', '')}"
        if "median_s" not in row:
            lines.append(f"| {name} | {row['method']} | - | - | - | - | {row['error']} | - |")
            continue
        ratio = f"{row['times_faster']:.2f}" if "times_faster" in row else "answer outside the tolerance"
        compiled = max(0.0, row["first_s"] - row["median_s"])
        cells = (
            f"{1e3 * row['median_s']:.3f}",
            f"{1e3 * row['min_s']:.3f}",
            f"{compiled:.2f}",
            f"{row['build_s']:.2f}",
        )
        lines.append(f"| {name} | {row['method']} | {' | '.join(cells)} | {row['value_error']:.1e} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cases and write `results/benchmarks/planning.{json,md}`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, few repeats: checks that everything runs")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--only", nargs="*", help="words that a case's name must contain")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="planners to run")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds allowed per planner and case")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"--peers: found {sorted(unknown)}, expected some of {list(PEERS)}")
    cases = QUICK if options.quick else CASES
    cases = {name: sizes for name, sizes in cases.items() if all(word in name for word in options.only or ())}
    if not cases:
        parser.error(f"--only: found {options.only}, expected words of {list(QUICK if options.quick else CASES)}")
    header = peer.machine()
    print(f"{header}; values within {TOL:g}")
    record, pieces = {"machine": header, "tol": TOL, "cases": {}}, []
    for case, sizes in cases.items():
        instance = random_instance(*sizes)
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "instance.npz"
            np.savez(path, **instance)
            for name in options.peers:
                python = sys.executable if name == "rlcore" else options.peer_python
                rows += run_peer(name, python, path, 0.5 if options.quick else 5.0, options.limit)
            judge(rows, exact_values(instance))
        piece = table(case, rows)
        record["cases"][case] = {"rows": rows}
        if sizes[0] == 1:
            use = record["cases"][case]["bandwidth"] = bandwidth(instance)
            piece += (
                f"\n\nOne sweep: {1e3 * use['sweep_s']:.3f} ms for {use['bytes'] / 1e6:.1f} MB, "
                f"{100 * use['share']:.0f}% of the measured copy rate, {use['copy_bytes_per_s'] / 1e9:.1f} GB/s."
            )
        pieces.append(piece)
        print(f"\n{piece}", flush=True)
    peer.write(options.out, "planning", record, "\n\n".join([header, *pieces]))


if __name__ == "__main__":
    main()
