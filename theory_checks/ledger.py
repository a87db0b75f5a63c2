"""Finding the statements, running them, and writing what came out: ledger.json, docs/theorems.md, kept instances."""

import collections
import dataclasses
import datetime
import difflib
import functools
import importlib
import json
import math
import operator
import os
import pkgutil
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlcore import claims
from rlcore.claims import Report, Statement

FOLDER = Path(__file__).parent
SCHEMA_VERSION = 1
PUBLISHED_KEPT = FOLDER / "kept.json"
OUTCOMES = ("holds", "refuted", "violated", "vacuous", "undecided", "not run")
# Statements between two clearings of the compiled programs: each statement leaves some hundred of them, each of about
# ten memory maps, and Linux gives a process 65 530 maps.
CLEAR_EVERY = 10


def families() -> dict[str, dict[str, Statement]]:
    """Every statement of this folder: family -> id -> Statement, in order of declaration.

    A family is a module, or several: `nash.py`, `nash_losses.py` and so on.

    Raises: ValueError for an id that does not start with its module's family or stands twice, and for a refuted
      entry whose correction is not in the ledger.
    """
    found: dict[str, dict[str, Statement]] = {}
    for module_info in pkgutil.iter_modules([str(FOLDER)]):
        if module_info.ispkg or module_info.name.startswith("_") or module_info.name == Path(__file__).stem:
            continue
        module = importlib.import_module(f"theory_checks.{module_info.name}")
        family = module_info.name.split("_")[0]
        for entry in vars(module).values():
            if not isinstance(entry, Statement):
                continue
            if not entry.id.startswith(family + "/") or entry.id in found.get(family, {}):
                raise ValueError(f"id: found {entry.id!r} in {module.__name__}, expected a new '{family}/...'")
            found.setdefault(family, {})[entry.id] = entry
    ids = {id for entries in found.values() for id in entries}
    for entry in (entry for entries in found.values() for entry in entries.values()):
        if entry.corrected is not None and entry.corrected not in ids:
            raise ValueError(f"corrected: found {entry.corrected!r} in {entry.id!r}, expected the id of a statement")
    return found


def select(names: Iterable[str]) -> dict[str, Statement]:
    """The statements of the named families (or of all, for no name), or single statements by id.

    Raises: ValueError for an unknown name, with the nearest known one.
    """
    known = families()
    every = {id: entry for entries in known.values() for id, entry in entries.items()}
    chosen: dict[str, Statement] = {}
    for name in list(names) or list(known):
        if name in known:
            chosen.update(known[name])
        elif name in every:
            chosen[name] = every[name]
        else:
            near = difflib.get_close_matches(name, [*known, *every], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"family: found {name!r}, expected one of {sorted(known)} or a statement's id{hint}")
    ordered: dict[str, Statement] = {}
    for entry in chosen.values():  # a refuted entry passes only beside its correction, which runs first
        if entry.corrected is not None:
            ordered[entry.corrected] = every[entry.corrected]
        ordered[entry.id] = entry
    return ordered


def run(
    entries: Mapping[str, Statement],
    instances: int,
    seed: int,
    kept: Mapping[str, Any],
    report: Callable[[int, Report], None] = lambda done, report: None,
) -> list[Report]:
    """Check the statements in order; `report` is called after each with the number done.

    A refuted entry passes only if its correction, earlier in the order (see `select`), holds.
    """
    reports = []
    for entry in entries.values():
        result = claims.check(
            entry,
            instances=instances,
            seed=seed,
            replays=failing_keys(entry, kept),
            hard=hard_instances(entry, kept),
        )
        if entry.corrected is not None:
            holds = any(r.id == entry.corrected and r.outcome == "holds" and r.passed for r in reports)
            result = dataclasses.replace(result, passed=result.passed and holds)
        reports.append(result)
        report(len(reports), result)
        if len(reports) % CLEAR_EVERY == 0:
            jax.clear_caches()
    return reports


def failing_keys(entry: Statement, kept: Mapping[str, Any]) -> list[dict[str, int]]:
    """The kept failures of a statement.

    Raises: ValueError for one of a case that the statement no longer has: it would be forgotten in silence.
    """
    rows = kept.get("failures", {}).get(entry.id, [])
    for row in rows:
        if not 0 <= row["case"] < len(entry.cases):
            raise ValueError(
                f"kept instances: found {row} of {entry.id!r}, expected a case from 0 to {len(entry.cases) - 1}"
            )
    return rows


def hard_instances(entry: Statement, kept: Mapping[str, Any]) -> dict[int, Any]:
    """The kept instances of a statement, stacked per case.

    Raises: ValueError for an instance that no longer fits the statement.
    """
    hard = {}
    for name, rows in kept.get("hard", {}).get(entry.id, {}).items():
        case = int(name)
        if not 0 <= case < len(entry.cases):
            raise ValueError(f"kept instances: found case {case} of {entry.id!r}, expected 0 to {len(entry.cases) - 1}")
        leaves, tree = jax.tree.flatten(jax.eval_shape(functools.partial(_instance, entry, case), jax.random.key(0)))
        if any(len(row) != len(leaves) or [np.shape(x) for x in row] != [s.shape for s in leaves] for row in rows):
            raise ValueError(
                f"kept instances: found one of {entry.id!r}, case {case}, of another form, "
                f"expected leaves of shapes {[s.shape for s in leaves]}"
            )
        columns = [np.stack([np.asarray(row[i], s.dtype) for row in rows]) for i, s in enumerate(leaves)]
        stacked = jax.tree.map(jax.numpy.asarray, jax.tree.unflatten(tree, columns))
        hard[case] = stacked if entry.generator is not None else jax.random.wrap_key_data(stacked, impl="threefry2x32")
    return hard


def _instance(entry: Statement, case: int, key: Any) -> Any:
    """What is kept of an instance: its arrays, or the data of its key for a statement without generator."""
    return jax.random.key_data(key) if entry.generator is None else entry.generator(key, **entry.cases[case])


def keep_hard(kept: dict[str, Any], attack: claims.Attack) -> None:
    """Add the hardest instance of an attack to the kept ones."""
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    leaves = [np.asarray(plain(x)).tolist() for x in jax.tree.leaves(attack.instance)]
    rows = kept.setdefault("hard", {}).setdefault(attack.id, {}).setdefault(str(attack.case), [])
    if leaves not in rows:
        rows.append(leaves)


def keep_failures(kept: dict[str, Any], reports: Iterable[Report]) -> None:
    """Add the failing keys of a run to the kept ones: they are replayed in every later run.

    A refuted entry is meant to fail: nothing of it is kept.
    """
    for report in reports:
        if report.outcome == "refuted":
            continue
        rows = kept.setdefault("failures", {}).setdefault(report.id, [])
        rows += [dict(f) for f in report.failures if "index" in f and dict(f) not in rows]
        if not rows:
            del kept["failures"][report.id]


def read_kept(*paths: Path) -> dict[str, Any]:
    """The union of files of kept instances; a missing file is empty.

    Raises: ValueError for a file that is not what `write_json` wrote.
    """
    union: dict[str, Any] = {"failures": {}, "hard": {}}
    for path in paths:
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for id, rows in content["failures"].items():
                known = union["failures"].setdefault(id, [])
                for row in rows:
                    row = {name: operator.index(row[name]) for name in ("case", "seed", "index")}
                    if row not in known:
                        known.append(row)
            for id, by_case in content["hard"].items():
                for case, rows in by_case.items():
                    known = union["hard"].setdefault(id, {}).setdefault(str(int(case)), [])
                    known += [row for row in rows if _is_instance(row) and row not in known]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"kept instances: found a file that cannot be read, {path} ({error!r}); expected what a run wrote"
            ) from error
    return union


def _is_instance(row: Any) -> bool:
    if not isinstance(row, list):
        raise TypeError(f"found {type(row).__name__} as an instance, expected a list of arrays")
    return True


def read_ledger(path: Path) -> dict[str, Any]:
    """A ledger.json.

    Raises: ValueError for a file that is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA_VERSION:
            raise KeyError(f"schema {content['schema']}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"ledger: found a file that cannot be read, {path} ({error!r}); expected a ledger") from error
    return content


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON (no NaN, no infinities), whole or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def revision() -> str | None:
    """The git revision of the checkout this runs from, '+' for local changes; None outside a checkout."""
    try:
        git = ["git", "-C", str(FOLDER)]
        # A plain install may lie inside somebody else's repository, whose revision says nothing about this code.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def counts(reports: Iterable[Report]) -> dict[str, dict[str, int]]:
    """Outcomes broken down by origin: {origin: {outcome: number}}."""
    table: dict[str, dict[str, int]] = collections.defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    for report in reports:
        table[report.origin.kind][report.outcome] += 1
    return dict(table)


def as_json(reports: list[Report], instances: int, seed: int) -> dict[str, Any]:
    """The ledger as strict JSON; `ledger.schema.json` describes it."""
    rows = []
    for r in reports:
        rows.append(
            {
                "id": r.id,
                "title": r.title,
                "outcome": r.outcome,
                "passed": r.passed,
                "words": r.words,
                "origin": dataclasses.asdict(r.origin),
                "proof": r.proof,
                "differs": r.differs,
                "instances": r.instances,
                "applicable": r.applicable,
                "nontrivial": r.nontrivial,
                "violations": r.violations,
                "undecided": r.undecided,
                "worst_slack": _number(r.worst_slack),
                "tightness": _number(r.tightness),
                "tightness_sentence": r.tightness_sentence(),
                "falsifiers": [dataclasses.asdict(f) for f in r.falsifiers],
                "failures": [dict(f) for f in r.failures],
                "replayed": r.replayed,
                "seconds": round(r.seconds, 3),
                "compile_seconds": round(r.compile_seconds, 3),
            }
        )
    return {
        "schema": SCHEMA_VERSION,
        "seed": seed,
        "instances": instances,
        "date": datetime.date.today().isoformat(),
        "revision": revision(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
        "device": str(jax.devices()[0].device_kind),
        "counts": counts(reports),
        "statements": rows,
    }


def summary_line(reports: list[Report]) -> str:
    """One line: how many hold, and how many falsifiers bite."""
    parts = [f"{n} {o}" for o in OUTCOMES if (n := sum(r.outcome == o for r in reports))]
    falsifiers = [f for r in reports for f in r.falsifiers]
    bite = sum(f.passed for f in falsifiers)
    failed = [r.id for r in reports if not r.passed]
    tail = f"; FAILED: {', '.join(failed)}" if failed else ""
    return f"{len(reports)} statements: {', '.join(parts)}; {bite} of {len(falsifiers)} falsifiers bite{tail}"


def line(report: Report) -> str:
    """One line of the printed ledger."""
    bite = sum(f.passed for f in report.falsifiers)
    shares = ", ".join(f"{f.measured:.0%}" for f in report.falsifiers)
    return (
        f"{'ok  ' if report.passed else 'FAIL'} {report.id:<20} {report.outcome:<9} "
        f"{report.applicable - report.violations:>6}/{report.applicable:<6} slack {report.worst_slack:>9.2e}  "
        f"tight {report.tightness:>6.3f}  falsifiers {bite}/{len(report.falsifiers)} ({shares})  "
        f"{report.seconds:6.1f} s (+{report.compile_seconds:.1f} s compiling)  {report.title}"
    )


def remarks(report: Report) -> list[str]:
    """What must be read beside the line: the words of a refutation, and what the tightness says."""
    words = [report.words] if report.outcome in ("refuted", "not run") else []
    return words + ([report.tightness_sentence()] if report.tightness_sentence() else [])


def origin_lines(reports: Iterable[Report]) -> list[str]:
    """The outcomes counted by origin, one printed line each."""
    return [
        f"  {origin}: {', '.join(f'{n} {outcome}' for outcome, n in row.items() if n)}"
        for origin, row in counts(reports).items()
    ]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def as_markdown(ledger: Mapping[str, Any]) -> str:
    """docs/theorems.md from the ledger."""
    out = [
        "# The ledger of theorems",
        "",
        "Generated by `python -m theory_checks --publish`; do not edit. Every line was computed: "
        f"{ledger['instances']} random instances per statement, seed {ledger['seed']}, float64, "
        f"JAX {ledger['versions']['jax']}, {ledger['date']}, revision {ledger['revision'] or 'unknown'}.",
        "",
        "*slack* is the largest (lhs - rhs - certified solver error) / scale: at most 1.4e-14, negative where there is "
        "room to spare. *tightness* is the largest lhs / rhs. "
        "A falsifier is the same code with one premise or line broken; it must then fail on the declared share of "
        "instances, on which the unbroken claim passes.",
        "",
        "| origin | " + " | ".join(OUTCOMES) + " |",
        "| --- |" + " ---: |" * len(OUTCOMES),
    ]
    for origin, row in ledger["counts"].items():
        out.append(f"| {origin} | " + " | ".join(str(row[o]) for o in OUTCOMES) + " |")
    by_family: dict[str, list] = {}
    for s in ledger["statements"]:
        by_family.setdefault(s["id"].split("/")[0], []).append(s)
    for family, rows in by_family.items():
        out += ["", f"## {family}", "", "| id | statement | outcome | instances | slack | tightness | falsifiers |"]
        out.append("| --- | --- | --- | ---: | ---: | ---: | --- |")
        for s in rows:
            bite = "; ".join(
                f"{_escape(f['name'])}: {f['measured']:.0%} (declared {f['share']:.0%})" for f in s["falsifiers"]
            )
            slack = "-" if s["worst_slack"] is None else f"{s['worst_slack']:.1e}"
            tight = "-" if s["tightness"] is None else f"{s['tightness']:.3f}"
            proof = f"[{s['id']}]({s['proof'].removeprefix('docs/')})"
            mark = "" if s["passed"] else " **FAILED**"
            cells = [proof, _escape(s["title"]), _escape(s["words"]) + mark, s["applicable"], slack, tight, bite]
            out.append(f"| {' | '.join(map(str, cells))} |")
        for s in rows:
            if s["tightness_sentence"]:
                out += ["", f"`{s['id']}`: {s['tightness_sentence']}."]
            if s["differs"]:
                out += ["", f"`{s['id']}` differs from its source: {s['differs']}"]
    return "\n".join(out) + "\n"


def bibtex(key: str) -> str:
    """One entry of references.bib.

    Raises: ValueError for an unknown key.
    """
    text = (FOLDER / "references.bib").read_text(encoding="utf-8")
    match = re.search(r"@\w+\{" + re.escape(key) + r",.*?\n\}", text, flags=re.DOTALL)
    if match is None:
        raise ValueError(f"bib: found {key!r}, expected a key of theory_checks/references.bib")
    return match.group(0)


def cite(id: str, ledgers: Sequence[Mapping[str, Any]]) -> str:
    """BibTeX of a statement's source, and its line, with seed and revision, in the first ledger that has one."""
    entry = select([id])[id] if id not in families() else None
    if entry is None:
        raise ValueError(f"cite: found the family {id!r}, expected the id of one statement")
    out = [bibtex(entry.origin.bib)] if entry.origin.bib else []
    out.append(bibtex("rlcore"))
    ledger, row = next(((x, s) for x in ledgers for s in x.get("statements", ()) if s["id"] == id), (None, None))
    if row is None:
        out.append(f"% {id}: no ledger here yet; run: python -m theory_checks {id.split('/')[0]}")
    else:
        out.append(
            f"% {id}: {row['title']}\n% {row['words']}; {row['applicable']} instances, seed {ledger['seed']}, "
            f"worst slack {row['worst_slack']}, tightness {row['tightness']}, revision {ledger['revision']}"
        )
    return "\n\n".join(out)
