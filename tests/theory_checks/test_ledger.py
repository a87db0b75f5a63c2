"""Every statement of the ledger: what it declares, and that it holds with all its falsifiers biting."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import jsonschema
import pytest

from rlcore.claims.bound import summarise
from rlcore.claims.statement import ORIGINS
from theory_checks import ledger

REPOSITORY = Path(ledger.__file__).parents[1]
SCHEMA = json.loads((Path(ledger.__file__).parent / "ledger.schema.json").read_text())
ENTRIES = ledger.select([])
# The run compiles for minutes when the compilation cache is empty.
patient = pytest.mark.timeout(2400)


@pytest.mark.parametrize("id", ENTRIES)
def test_a_statement_declares_what_a_reader_needs(id):
    entry = ENTRIES[id]
    assert re.fullmatch(r"[a-z_0-9]+/[A-Za-z0-9.+-]+", id) and entry.id == id
    assert 0 < len(entry.title) <= 120 and "\n" not in entry.title and entry.title == entry.title.strip()
    assert not re.search(r"paper\s+(proves|shows)|published", entry.title, re.IGNORECASE)
    assert entry.origin.kind in ORIGINS and entry.origin.where
    assert entry.falsifiers or entry.refutation is not None
    assert 1 <= len(entry.cases) <= 3
    assert all(0 < f.share <= 1 and f.name and len(f.cases or entry.cases) <= 3 for f in entry.falsifiers)
    assert len({f.name for f in entry.falsifiers}) == len(entry.falsifiers)


@pytest.mark.parametrize("id", ENTRIES)
def test_proofs_and_sources_are_where_a_statement_says(id):
    entry = ENTRIES[id]
    path, anchor = entry.proof.split("#")
    assert path == f"docs/proofs/{id.split('/')[0]}.md"
    assert f'<a id="{anchor}"></a>' in (REPOSITORY / path).read_text(encoding="utf-8")
    if entry.origin.bib is not None:
        assert ledger.bibtex(entry.origin.bib).startswith("@")
    if entry.origin.kind in ("paper", "paper, constants not read", "as quoted"):
        assert entry.origin.bib is not None


def test_proofs_have_no_duplicate_anchors_and_the_bibliography_no_duplicate_keys():
    for path in (REPOSITORY / "docs" / "proofs").glob("*.md"):
        anchors = re.findall(r'<a id="([^"]+)"', path.read_text(encoding="utf-8"))
        assert anchors and len(set(anchors)) == len(anchors)
    keys = re.findall(r"@\w+\{([^,]+),", (Path(ledger.__file__).parent / "references.bib").read_text(encoding="utf-8"))
    assert "rlcore" in keys and len(set(keys)) == len(keys)
    assert all(ledger.bibtex(key).count("@") == 1 for key in keys)


@pytest.mark.parametrize("id", [id for id, entry in ENTRIES.items() if entry.project is not None])
def test_an_attack_can_climb_every_statement_that_declares_a_projection(id):
    entry = ENTRIES[id]
    structure = []

    def draw(key):
        leaves, rebuild = jax.tree.flatten(entry.generator(key, **entry.cases[-1]))
        structure.append(rebuild)  # outside of the trace: a problem of shapes alone cannot be built
        return leaves

    with jax.numpy_rank_promotion("allow"):
        leaves = jax.eval_shape(draw, jax.random.key(0))
    moves = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    moved, kept = ([x for x, m in zip(leaves, moves, strict=True) if m is which] for which in (True, False))

    def excess(moved, kept):
        moved, kept = iter(moved), iter(kept)
        together = structure[0].unflatten([next(moved if m else kept) for m in moves])
        return summarise(entry.claim(entry.project(together))).excess

    # the ledger's own settings
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        slopes = jax.eval_shape(jax.grad(excess), moved, kept)
    assert moved and [x.shape for x in slopes] == [x.shape for x in moved]


def test_the_names_of_the_rooms_are_those_of_the_statements():
    assert set(ledger.families()) <= {"distributional", "sqirl", "robust", "lsd", "bq", "nash"}


# ---- one run of everything, from a folder of strangers -----------------------------------------------------------


@patient
def test_every_statement_holds_and_every_falsifier_bites(full_run):
    assert full_run.process.returncode == 0, full_run.process.stdout + full_run.process.stderr
    rows = full_run.ledger["statements"]
    assert [row["id"] for row in rows] == list(ENTRIES)
    for row in rows:
        expected = "holds" if ENTRIES[row["id"]].refutation is None else "refuted"
        assert row["outcome"] == expected and row["passed"], row["id"]
        assert len(row["falsifiers"]) == len(ENTRIES[row["id"]].falsifiers)
        for f in row["falsifiers"]:
            assert f["passed"] and f["control_failures"] == 0 and f["bites"] > 0, (row["id"], f["name"])


@patient
def test_the_file_obeys_the_schema_and_the_schema_is_strict(full_run):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.validate(full_run.ledger)

    def broken(change):
        copy = json.loads(json.dumps(full_run.ledger))
        change(copy)
        return not validator.is_valid(copy)

    assert broken(lambda x: x.update(extra=1)) and broken(lambda x: x.pop("revision"))
    assert broken(lambda x: x["statements"][0].update(outcome="proved"))
    assert broken(lambda x: x["statements"][0].update(outcome="vacuous"))  # passed, yet vacuous
    assert broken(lambda x: x["statements"][0].update(violations=1))  # holds, yet violated
    assert broken(lambda x: x["statements"][0].update(falsifiers=[]))
    assert broken(lambda x: x["statements"][0]["origin"].update(kind="remembered"))
    assert broken(lambda x: x["statements"][0]["falsifiers"][0].update(share=1.5))
    assert broken(lambda x: x["statements"][0]["failures"].append({"case": 0}))


@patient
def test_counts_and_printed_lines_agree_with_the_file(full_run):
    rows, out = full_run.ledger["statements"], full_run.process.stdout
    counts = full_run.ledger["counts"]
    assert sum(sum(row.values()) for row in counts.values()) == len(rows)
    for kind, by_outcome in counts.items():
        for outcome, number in by_outcome.items():
            assert number == sum(r["origin"]["kind"] == kind and r["outcome"] == outcome for r in rows)
        assert f"  {kind}: " in out
    lines = out.splitlines()
    for row in rows:
        (line,) = [x for x in lines if x.startswith(f"ok   {row['id']} ")]
        assert line.endswith(row["title"]) and row["outcome"] in line
        # a refuted entry passes by failing
        assert (row["violations"] > 0) == (row["outcome"] == "refuted")
        assert f"{row['applicable'] - row['violations']}/{row['applicable']}" in line.replace(" ", "")
        if row["tightness_sentence"]:
            # "a constant 1/tightness times smaller"
            assert f"a constant {1 / row['tightness']:.3g} times smaller" in row["tightness_sentence"]
            assert lines[lines.index(line) + 1].strip() == row["tightness_sentence"]
    falsifiers = sum(len(r["falsifiers"]) for r in rows)
    assert f"{len(rows)} statements: " in out and f"; {falsifiers} of {falsifiers} falsifiers bite" in out


@patient
def test_a_clean_run_is_silent_off_a_terminal_and_keeps_nothing(full_run):
    assert full_run.process.stderr == ""
    assert sorted(p.name for p in full_run.folder.iterdir()) == ["ledger.json"]
    assert full_run.ledger["seed"] == 5 and full_run.ledger["instances"] == 120


@patient
def test_the_page_is_made_from_the_file_alone(full_run):
    page = ledger.as_markdown(full_run.ledger)
    assert "**FAILED**" not in page and "NaN" not in page
    for row in full_run.ledger["statements"]:
        assert f"[{row['id']}]({row['proof'].removeprefix('docs/')})" in page
        assert row["tightness_sentence"] in page
    table_rows = [x for x in page.splitlines() if x.startswith("|")]
    # An unescaped bar in a title would add a cell.
    assert {len(re.findall(r"(?<!\\)\|", x)) for x in table_rows} == {8}


@patient
def test_citations_carry_the_source_and_the_line_with_seed_and_revision(full_run, python):
    row = next(r for r in full_run.ledger["statements"] if r["id"] == "nash/T4")
    there = python("-m", "theory_checks", "cite", "nash/T4")
    assert there.returncode == 0 and there.stderr == ""
    assert "@misc{tiapkin2025nashmp," in there.stdout and "@software{rlcore," in there.stdout
    assert row["words"] in there.stdout and "seed 5" in there.stdout
    assert f"revision {full_run.ledger['revision']}" in there.stdout
