"""python -m theory_checks [family ...] [--instances N] [--seed S] [--list] [--attack ID] [--publish] | cite ID."""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def _pin_sibling(name: str) -> None:
    """Load the package beside this one under its name, whatever the current folder holds under the same name."""
    folder = HERE.parent / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _configure() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlcore" / "jax"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m theory_checks", description="Run the ledger of theorems.")
    parser.add_argument("names", nargs="*", metavar="family", help="families or statement ids; all by default")
    parser.add_argument("--instances", type=int, default=1000, help="random instances per statement (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--list", action="store_true", help="list the statements and stop")
    parser.add_argument("--attack", metavar="ID", help="search for the worst instance of one statement and keep it")
    parser.add_argument("--publish", action="store_true", help="rewrite docs/theorems.md (a full run only)")
    parser.add_argument("--out", type=Path, default=Path("results/ledger"), help="folder for ledger.json")
    arguments = parser.parse_args(argv)
    if arguments.instances < 1:
        parser.error(f"--instances: found {arguments.instances}, expected an integer >= 1")
    if not 0 <= arguments.seed < 2**63:
        parser.error(f"--seed: found {arguments.seed}, expected an integer in [0, 2^63)")
    if arguments.publish and arguments.names:
        parser.error("--publish: found a selection of families, expected a full run")
    if arguments.attack and arguments.names:
        parser.error(f"--attack: found {arguments.names} beside it, expected one statement's id alone")
    if arguments.publish and not (HERE.parent / "docs").is_dir():
        parser.error("--publish: found no docs folder beside the package, expected a checkout of the repository")
    if arguments.publish and not arguments.attack and arguments.instances < 1000:
        parser.error(f"--publish: found --instances {arguments.instances}, expected at least 1000")
    return arguments


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit status, 0 only if every statement passed, 2 for a bad request."""
    for name in ("rlcore", "envs"):
        _pin_sibling(name)
    _configure()
    from theory_checks import ledger

    if argv and argv[0] == "cite":
        if len(argv) != 2:
            print("usage: python -m theory_checks cite ID", file=sys.stderr)
            return 2
        # The latest run here, else the published one: a run of some statements says nothing of the others.
        paths = (Path("results/ledger/ledger.json"), HERE.parent / "docs" / "ledger.json")
        try:
            print(ledger.cite(argv[1], [ledger.read_ledger(path) for path in paths if path.exists()]))
        except ValueError as problem:
            return _refuse(problem)
        return 0

    arguments = _arguments(argv)
    local_kept = arguments.out / "kept.json"
    # Everything that may be wrong with the request is found before the first instance runs; what fails later is a bug.
    try:
        entries = ledger.select([arguments.attack] if arguments.attack else arguments.names)
        if arguments.list:
            for entry in entries.values():
                print(f"{entry.id:<20} {entry.title}  [{entry.origin.kind}; {len(entry.falsifiers)} falsifiers]")
            return 0
        if arguments.attack and arguments.attack not in entries:
            raise ValueError(f"--attack: found the family {arguments.attack!r}, expected the id of one statement")
        kept = ledger.read_kept(ledger.PUBLISHED_KEPT, local_kept)
        for entry in entries.values():
            ledger.failing_keys(entry, kept), ledger.hard_instances(entry, kept)
        arguments.out.mkdir(parents=True, exist_ok=True)
        if not os.access(arguments.out, os.W_OK):
            raise ValueError(f"--out: found {arguments.out}, which is read-only, expected a folder that can be written")
        if arguments.attack:
            return _attack(arguments, ledger, entries[arguments.attack], local_kept)
    except (ValueError, OSError) as problem:
        return _refuse(problem)
    if not arguments.names:
        for id in sorted({*kept["failures"], *kept["hard"]} - set(entries)):
            print(f"warning: kept instances of {id!r}, which is no statement, are not replayed", file=sys.stderr)

    began = time.perf_counter()
    on_terminal = sys.stderr.isatty()

    def show(done, report):
        if on_terminal:
            print("\r\033[K", end="", file=sys.stderr)
        print(ledger.line(report), flush=True)
        if not report.passed:
            print(report, flush=True)
        else:
            for remark in ledger.remarks(report):
                print(f"     {remark}", flush=True)
        if on_terminal and done < len(entries):
            left = (time.perf_counter() - began) / done * (len(entries) - done)
            print(f"{done}/{len(entries)} statements, about {left:.0f} s left", end="", file=sys.stderr, flush=True)

    reports = ledger.run(entries, arguments.instances, arguments.seed, kept, show)
    content = ledger.as_json(reports, arguments.instances, arguments.seed)
    ledger.write_json(arguments.out / "ledger.json", content)
    local = ledger.read_kept(local_kept)
    ledger.keep_failures(local, reports)
    if any(local.values()):
        ledger.write_json(local_kept, local)
    print(ledger.summary_line(reports))
    for text in ledger.origin_lines(reports):
        print(text)
    running, compiling = sum(r.seconds for r in reports), sum(r.compile_seconds for r in reports)
    print(f"{running:.1f} s running, {compiling:.1f} s compiling; written: {arguments.out / 'ledger.json'}")
    if arguments.publish:
        docs = HERE.parent / "docs"
        ledger.write_json(docs / "ledger.json", content)
        ledger.write_text(docs / "theorems.md", ledger.as_markdown(content))
        if any(local.values()):
            ledger.write_json(ledger.PUBLISHED_KEPT, ledger.read_kept(ledger.PUBLISHED_KEPT, local_kept))
        print("published: docs/theorems.md, docs/ledger.json")
    return 0 if all(r.passed for r in reports) else 1


def _refuse(problem: Exception) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return 2


def _attack(arguments: argparse.Namespace, ledger, entry, local_kept: Path) -> int:
    from rlcore import claims

    path = ledger.PUBLISHED_KEPT if arguments.publish else local_kept
    kept, violated = ledger.read_kept(path), False
    for case in range(len(entry.cases)):
        found = claims.attack(entry, case=case, seed=arguments.seed)
        violated |= found.violated
        print(
            f"{entry.id} {dict(entry.cases[case])}: {found.method}; tightness {found.tightness:.6g}, "
            f"excess {found.random:.3g} at random, {found.best:.3g} after the search"
            f"{'; VIOLATED' if found.violated else ''}"
        )
        ledger.keep_hard(kept, found)
    ledger.write_json(path, kept)
    print(f"kept: {path}")
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
