"""python -m experiments [name ...] [--quick] [--field value ...] | reproduce: list, run, or run everything quickly."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def _configure(precision: str) -> None:
    import jax

    jax.config.update("jax_enable_x64", precision == "float64")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlcore" / "jax"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _list() -> int:
    from experiments import record

    for name in record.names():
        print(f"{name:<28} {record.load(name).TITLE}")
    print("\npython -m experiments NAME [--quick] runs one; NAME --help shows its settings")
    return 0


def _run(names: list[str], arguments: argparse.Namespace, fields: list[str]) -> int:
    from experiments import record

    chosen = record.select(names)
    modules = {name: record.load(name) for name in chosen}
    precisions = {module.PRECISION for module in modules.values()}
    if len(precisions) > 1:
        # One process has one precision.
        for precision in sorted(precisions):
            group = [name for name, module in modules.items() if precision == module.PRECISION]
            flags = [f"--{flag}" for flag in ("quick", "publish") if getattr(arguments, flag)]
            flags += ["--out", str(arguments.out)]
            status = subprocess.run([sys.executable, "-m", "experiments", *group, *flags, *fields]).returncode
            if status:
                return status
        return 0
    _configure(precisions.pop())
    # Every setting is read before the first experiment runs.
    configs = {name: module.QUICK if arguments.quick else module.Config() for name, module in modules.items()}
    if fields:
        import tyro

        for name, default in configs.items():
            prog = f"python -m experiments {name}"
            configs[name] = tyro.cli(modules[name].Config, args=fields, default=default, prog=prog)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        if not os.access(arguments.out, os.W_OK):
            raise PermissionError("read-only")
    except OSError as problem:
        text = f"--out: found {str(arguments.out)!r} ({problem.strerror or problem}), expected a folder to write to"
        raise ValueError(text) from problem
    import jax

    for name, config in configs.items():
        # Programs of the experiments before would only hold memory maps, of which a process has 65 530.
        jax.clear_caches()
        quick = arguments.quick and config == modules[name].QUICK
        result = record.execute(name, config, arguments.out, quick=quick)
        _show(result)
        if arguments.publish:
            print(f"  published {record.publish(result)}")
    return 0


def _show(result: dict) -> None:
    print(f"{result['name']}: {result['title']} ({result['seconds']:.1f} s)")
    print(f"  data    {result['data']}\n  figure  {result['figure']}")
    if result["table"]:
        columns = ("quantity", "ours", "reference", "verdict", "source")
        _print_table([columns, *(tuple(row[c] for c in columns) for row in result["table"])])
    sys.stdout.flush()


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _reproduce(out: Path) -> int:
    """Every experiment's quick version, then the ledger; the status is that of the worst."""
    from experiments import record

    began, since = time.perf_counter(), time.time()
    run = lambda *words: subprocess.run([sys.executable, "-m", *words]).returncode  # noqa: E731
    print("== experiments, quick versions", flush=True)
    experiments = run("experiments", "--quick", "--all", "--out", str(out))
    print("\n== the ledger of theorems, 200 instances per statement", flush=True)
    ledger = run("theory_checks", "--instances", "200", "--out", str(out / "ledger"))
    minutes, seconds = divmod(time.perf_counter() - began, 60)
    print(f"\n== done in {minutes:.0f} min {seconds:.0f} s")
    _print_table([("experiment", "seconds", "compared", "figure", "data"), *record.summary(out, since)])
    print(f"experiments: {'all ran' if experiments == 0 else 'FAILED'}")
    print(f"ledger: {'all passed' if ledger == 0 else 'FAILED'}; {out}/ledger/ledger.json")
    print("full versions: python -m experiments NAME; all instances: python -m theory_checks")
    return experiments or ledger


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__, add_help=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true", help="the quick preset")
    parser.add_argument("--all", action="store_true", help="every experiment")
    parser.add_argument("--publish", action="store_true", help="copy the figure to docs/figures (full version only)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for results")
    arguments, fields = parser.parse_known_args(argv)
    if arguments.publish and arguments.quick:
        parser.error("--publish: found --quick, expected a full run")
    if arguments.names == ["reproduce"]:
        return _reproduce(arguments.out)
    if not arguments.names and not arguments.all:
        if fields and fields != ["--help"] and fields != ["-h"]:
            print(f"error: found {fields}, expected the name of an experiment first", file=sys.stderr)
            return 2
        print(__doc__ + "\n")
        return _list()
    return _run(arguments.names, arguments, fields)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
