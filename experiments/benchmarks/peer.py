"""One planner or solver in a process of its own: started with a time limit, read as JSON lines, timed by repeats."""

import argparse
import importlib.metadata
import json
import operator
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def machine() -> str:
    """What timings depend on: versions, the cores of this process, and how busy they are now."""
    import jax

    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"JAX {jax.__version__}, Python {platform.python_version()}, {cores} cores, load {load:.1f} at the start"


def run(name: str, command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None) -> list[dict]:
    """The rows that a process printed; one that died, hung or left no last words ends them with a row that says so."""
    # One thread per BLAS: peers that call it on small systems are slower with more.
    settings = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            command, env=os.environ | settings | dict(environment or {}), cwd=ROOT, capture_output=True, text=True,
            timeout=limit,
        )  # fmt: skip
        output, trouble = done.stdout, []
        if done.returncode:  # killed for memory, it leaves no last words
            trouble = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}"]
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if expired.stdout else ""
        trouble = [f"stopped at {limit:.0f} s"]
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return rows + [{"peer": name, "method": "-", "error": text[:160]} for text in trouble]


def repeat(solve: Callable, seconds: float) -> tuple[object, float, list[float]]:
    """Call once, then again until three times and `seconds` are spent: (answer, first time, later times)."""
    started = time.perf_counter()
    value = solve()
    first, times = time.perf_counter() - started, []
    began = time.perf_counter()
    while len(times) < 3 or (len(times) < 21 and time.perf_counter() - began < seconds):
        started = time.perf_counter()
        value = solve()
        times.append(time.perf_counter() - started)
        if times[-1] > seconds:
            break
    return value, first, times


def serve(solvers: Mapping, kind: str, name: str, path: str, seconds: str, answers: str) -> None:
    """Time every method of one solver on one instance, print a JSON line for each and write what each found.

    Args: solvers: {kind: {name: (build, package)}}, build(instance) -> {method: prepare}, prepare() -> ((solve, bytes),
      units). path: of the instance. seconds: to repeat for; "0": each is called once, and that is its time. answers:
      the beginning of the paths of what is written.
    """
    build, package = solvers[kind][name]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "source"
    with np.load(path) as data:
        instance = dict(data)
    for number, (method, prepare) in enumerate(build(instance).items()):
        try:
            started = time.perf_counter()
            (solve, memory), units = prepare()
            compiled = time.perf_counter() - started
            began, started = time.process_time(), time.perf_counter()
            if float(seconds):
                value, _, times = repeat(solve, float(seconds))
                calls = len(times) + 1
            else:
                value = solve()
                times, calls = [time.perf_counter() - started], 1
            used = (time.process_time() - began) / calls
            place = f"{answers}.{number}.npy"
            np.save(place, np.asarray(value, np.float64))
            row = {"method": method, "compile_s": compiled, "median_s": float(np.median(times)), "min_s": min(times)}
            row |= {"processor_s": used, "repeats": len(times), "units": int(units), "bytes": memory, "answer": place}
            row["load"] = os.getloadavg()[0]
            # Of the whole process until now: Python, JAX and the instance are in it.
            row["peak"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        except Exception as error:  # a peer's failure is a row of the table, not the end of it
            row = {"method": method, "error": f"{type(error).__name__}: {str(error)[:120]}"}
        print(json.dumps({"peer": name, "version": version} | row), flush=True)


def compiled(function: Callable, *arguments) -> tuple[Callable, int]:
    """A call that returns NumPy's array, and the bytes that the program takes beside its arguments."""
    import jax

    program = jax.jit(function).lower(*arguments).compile()
    return lambda: np.asarray(program(*arguments)), program.memory_analysis().temp_size_in_bytes


def reached(asked: Sequence[tuple[str, str, float]], told: Mapping[str, float]) -> list[str]:
    """One line per number asked, (quantity, "below" or "at least" or "at most", number): ours, met or not."""
    lines = []
    for quantity, word, number in asked:
        value = told.get(quantity, float("nan"))  # NaN meets nothing
        met = {"below": operator.lt, "at most": operator.le, "at least": operator.ge}[word](value, number)
        lines.append(f"- {quantity}: {value:.3g}, asked {word} {number:g}: {'met' if met else 'NOT MET'}")
    return lines


def median_seconds(call: Callable, repeats: int = 9) -> float:
    """Median wall time after one call."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def bench(
    name: str,
    about: str,
    cases: Mapping,
    quick: Mapping,
    run_case: Callable,
    table: Callable,
    *,
    limit: float = 300.0,
    outside: str | None = None,
    last: Callable | None = None,
) -> None:
    """The command line of a benchmark: run its cases, print their tables, write `results/benchmarks/<name>.{json,md}`.

    Args: cases, quick: {case: (kind, sizes)}, those of `--quick` beside them. run_case: (kind, sizes, options, folder)
      -> rows. table: (case, kind, rows) -> text. limit: seconds by default per solver and case. outside: packages
      that only an interpreter of one's choice may have: adds `--peer-python`. last: record of all
      cases -> what is added to the record, and to the text.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, few repeats: checks that everything runs")
    parser.add_argument("--only", nargs="*", help="words that a case's name must contain")
    if outside:
        parser.add_argument("--peer-python", default=sys.executable, help=f"interpreter that has {outside}")
    parser.add_argument("--limit", type=float, default=limit, help="seconds allowed per solver and case")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    known = quick if options.quick else cases
    chosen = {case: found for case, found in known.items() if all(word in case for word in options.only or ())}
    if not chosen:
        parser.error(f"--only: found {options.only}, expected words of {list(known)}")
    header = machine()
    print(header)
    record, pieces = {"machine": header, "cases": {}}, []
    for case, (kind, sizes) in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = run_case(kind, sizes, options, Path(folder))
        record["cases"][case] = {"kind": kind, "rows": rows}
        pieces.append(table(case, kind, rows))
        print(f"\n{pieces[-1]}", flush=True)
    if last is not None:
        more, text = last(record["cases"])
        record |= more
        pieces += [text] if text else []
        print(f"\n{text}" if text else "")
    write(options.out, name, record, "\n\n".join([header, *pieces]))


def write(folder: Path, name: str, record: dict, text: str) -> None:
    """`name.json` and `name.md` in the folder, each moved into place whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in ((f"{name}.json", json.dumps(record, indent=1)), (f"{name}.md", text)):
        temporary = folder / f".{file}"
        temporary.write_text(content + "\n")
        temporary.replace(folder / file)
    print(f"\nwritten: {folder / name}.md, {folder / name}.json")
