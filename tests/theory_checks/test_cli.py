"""The command line on toy statements, in this process: requests, kept instances, and statements broken on purpose."""

import json
import re
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import jsonschema
import pytest

from rlcore import claims
from rlcore.claims import Bound, Exact, Falsifier, statement
from theory_checks import __main__ as runner
from theory_checks import ledger, nash

SCHEMA = json.loads((Path(ledger.__file__).parent / "ledger.schema.json").read_text())
HERE = claims.derived_here("docs/proofs/toy.md, one", "rlcore")
SHIFTED = Falsifier("an added constant", {"shift": 10.0}, share=0.5)


def cauchy_schwarz(key, shift=0.0, constant=1.0, poison=0.0, trivial=jnp.inf):
    x, y = jax.random.normal(key, (2, 5))
    rhs = constant * jnp.linalg.norm(x) * jnp.linalg.norm(y)
    return Bound(x @ y + shift + poison, rhs, jnp.sum(jnp.abs(x * y)) + rhs, trivial=trivial)


def toy(number="1", claim=cauchy_schwarz, **kwargs):
    options = {"falsifiers": [SHIFTED], "origin": HERE, "proof": "docs/proofs/toy.md#one"} | kwargs
    return statement(f"toy/{number}", "<x, y> <= |x| |y|", **options)(claim)


def wrong(shift=0.0):
    return lambda key, shift=shift: cauchy_schwarz(key, shift, constant=0.5)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """`run(entries, *arguments)` -> (exit status, stdout, stderr) of the command line on a ledger of toys."""
    monkeypatch.chdir(tmp_path)
    # The libraries are loaded and configured already; the published files are not touched.
    monkeypatch.setattr(runner, "_pin_sibling", lambda name: None)
    monkeypatch.setattr(runner, "_configure", lambda: None)
    monkeypatch.setattr(ledger, "PUBLISHED_KEPT", tmp_path / "published" / "kept.json")

    def call(entries, *arguments):
        if entries is not None:
            monkeypatch.setattr(ledger, "families", lambda: {"toy": {entry.id: entry for entry in entries}})
        try:
            status = runner.main([str(a) for a in arguments])
        except SystemExit as refused:  # argparse
            status = refused.code
        return status, *capsys.readouterr()

    return call


def written():
    content = json.loads(Path("results/ledger/ledger.json").read_text())
    jsonschema.validate(content, SCHEMA)
    return content


def kept():
    return json.loads(Path("results/ledger/kept.json").read_text())


# ---- requests ----------------------------------------------------------------------------------------------------


def test_a_run_prints_writes_and_exits_with_0(run):
    status, out, err = run([toy()], "--instances", 150, "--seed", 3)
    assert (status, err) == (0, "")
    assert out.startswith("ok   toy/1 ") and "1 statements: 1 holds; 1 of 1 falsifiers bite\n" in out
    assert "derived here: 1 holds" in out and "times smaller" in out
    content = written()
    assert content["seed"] == 3 and content["statements"][0]["applicable"] == 150
    assert not Path("results/ledger/kept.json").exists()
    assert not list(Path("results").rglob("*.part"))


def test_progress_is_shown_on_a_terminal_only(run, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, err = run([toy(), toy("2")], "--instances", 100)
    assert "1/2 statements, about" in err and "s left" in err


def test_the_list_runs_nothing(run):
    status, out, _ = run([toy(), toy("2")], "--list")
    assert status == 0 and out.splitlines()[0].startswith("toy/1 ") and len(out.splitlines()) == 2
    assert "[derived here; 1 falsifiers]" in out and not Path("results").exists()
    _, out, _ = run([toy(), toy("2")], "--list", "toy/2")
    assert [line.split()[0] for line in out.splitlines()] == ["toy/2"]


def test_the_real_list_has_every_statement_of_the_issue(run):
    status, out, _ = run(None, "--list", "nash")
    listed = [line.split()[0] for line in out.splitlines()]
    assert status == 0 and {f"nash/{n}" for n in ("T1", "T2a", "T2b", "T2c", "T3", "T4", "T5")} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toi"], "found 'toi', expected one of ['toy'] or a statement's id; did you mean 'toy'?"),
        (["toy/l"], "did you mean 'toy/1'?"),
        (["--attack", "toy/l"], "did you mean 'toy/1'?"),
        (["--attack", "toy"], "--attack: found the family 'toy', expected the id of one statement"),
        (["--attack", "toy/1", "toy"], "--attack: found ['toy'] beside it"),
        (["cite", "toy/l"], "did you mean 'toy/1'?"),
        (["cite", "toy"], "cite: found the family 'toy'"),
        (["cite"], "usage: python -m theory_checks cite ID"),
        (["--instances", "0"], "--instances: found 0, expected an integer >= 1"),
        (["--seed", "-1"], "--seed: found -1, expected an integer in [0, 2^63)"),
        (["--seed", str(2**63)], "--seed: found 9223372036854775808"),
        (["--publish", "toy"], "--publish: found a selection of families, expected a full run"),
        (["--publish", "--instances", "999"], "--publish: found --instances 999, expected at least 1000"),
        (["--family", "toy"], "unrecognized arguments"),
        (["--out", "file/below"], "Not a directory"),
    ],
)
def test_a_bad_request_is_refused_with_2_before_anything_runs(run, monkeypatch, arguments, words):
    Path("file").touch()
    monkeypatch.setattr(ledger, "run", lambda *a, **k: pytest.fail("a refused request ran"))
    status, out, err = run([toy()], *arguments)
    assert status == 2 and words in err and out == ""
    assert not Path("results").exists()


def test_a_full_run_publishes_and_an_ordinary_one_does_not(run, monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(runner, "HERE", tmp_path / "theory_checks")
    assert run([toy()], "--instances", 1000)[0] == 0 and not list((tmp_path / "docs").iterdir())
    assert run([toy()], "--instances", 1000, "--publish")[0] == 0
    page = (tmp_path / "docs" / "theorems.md").read_text()
    assert "[toy/1](proofs/toy.md#one)" in page and re.search(r"an added constant: \d+% \(declared 50%\)", page)
    jsonschema.validate(json.loads((tmp_path / "docs" / "ledger.json").read_text()), SCHEMA)
    # An installed package has no docs folder beside it, and none is made.
    monkeypatch.setattr(runner, "HERE", tmp_path / "site" / "theory_checks")
    assert run([toy()], "--instances", 1000, "--publish")[0] == 2 and not (tmp_path / "site").exists()


def test_citations_with_and_without_a_ledger(run, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "HERE", tmp_path / "theory_checks")  # nothing published here
    status, out, _ = run([toy()], "cite", "toy/1")
    assert status == 0 and "@software{rlcore," in out and "no ledger here yet" in out
    run([toy()], "--instances", 120, "--seed", 11)
    status, out, _ = run([toy()], "cite", "toy/1")
    assert status == 0 and "120 instances, seed 11" in out and "holds (derived here: docs/proofs/toy.md, one)" in out
    # A later run of other statements leaves the published line.
    ledger.write_json(tmp_path / "docs" / "ledger.json", written())
    run([toy(), toy("2")], "toy/2", "--instances", 120, "--seed", 12)
    for id, seed in (("toy/1", 11), ("toy/2", 12)):
        assert f"120 instances, seed {seed}" in run([toy(), toy("2")], "cite", id)[1]
    for damaged in ('{"schema": 1, "statem', "[]", '{"schema": 99}'):
        Path("results/ledger/ledger.json").write_text(damaged)
        status, _, err = run([toy()], "cite", "toy/1")
        assert status == 2 and "ledger.json" in err and "cannot be read" in err


# ---- broken on purpose -------------------------------------------------------------------------------------------


def test_a_statement_that_gives_nan_is_violated_with_its_key(run):
    poisoned = toy(claim=lambda key, shift=0.0: cauchy_schwarz(key, shift, poison=jnp.nan), falsifiers=[SHIFTED])
    status, out, _ = run([poisoned], "--instances", 120, "--seed", 4)
    assert status == 1 and "FAIL toy/1" in out and "violated at {'case': 0, 'seed': 4, 'index': 0}" in out
    row = written()["statements"][0]
    assert row["outcome"] == "violated" and row["worst_slack"] is None and row["violations"] == 120
    assert "FAILED: toy/1" in out


@pytest.mark.parametrize("field", ["applies", "trivial"])
def test_a_nan_premise_or_range_is_a_violation_too(run, field):
    claim = lambda key, shift=0.0: cauchy_schwarz(key, shift)._replace(**{field: jnp.nan})  # noqa: E731
    assert run([toy(claim=claim)], "--instances", 120)[0] == 1
    assert written()["statements"][0]["outcome"] == "violated"


def test_a_vacuous_bound_fails(run):
    status, out, _ = run(
        [toy(claim=lambda key, shift=0.0: cauchy_schwarz(key, shift, trivial=0.0))], "--instances", 120
    )
    assert status == 1 and "vacuous" in out and written()["statements"][0]["nontrivial"] == 0
    status, out, _ = run([toy()], "--instances", 99)
    assert status == 1 and written()["statements"][0]["outcome"] == "vacuous"
    # A range that the tolerance alone covers, and an error as large as the terms, excuse everything.
    covered = lambda key, shift=0.0: cauchy_schwarz(key, shift)._replace(error=1e3, trivial=1e3)  # noqa: E731
    inflated = lambda key, shift=0.0: cauchy_schwarz(key, shift)._replace(error=1e3)  # noqa: E731
    for claim in (covered, inflated):
        assert run([toy(claim=claim)], "--instances", 120)[0] == 1
        assert written()["statements"][0]["outcome"] == "vacuous"


def test_a_falsifier_that_does_not_bite_fails(run):
    status, out, _ = run([toy(falsifiers=[SHIFTED, Falsifier("nothing", {"shift": 1e-9}, 0.5)])], "--instances", 120)
    assert status == 1 and "FAIL toy/1" in out and "falsifier 'nothing': DOES NOT BITE" in out
    row = written()["statements"][0]
    assert row["outcome"] == "holds" and not row["passed"]
    assert [f["passed"] for f in row["falsifiers"]] == [True, False]
    assert "1 of 2 falsifiers bite; FAILED: toy/1" in out


def test_a_bite_where_the_unbroken_claim_misses_too_does_not_count(run):
    def two(key, shift=0.0):
        absent = Bound(1.0, 0.0, 1.0, applies=False)  # misses, broken or not, but its premise is never there
        return [cauchy_schwarz(key), absent]

    status, _, _ = run([toy(claim=two)], "--instances", 120)
    assert status == 1 and written()["statements"][0]["falsifiers"][0]["bites"] == 0


def test_a_wrong_constant_is_violated_and_its_keys_are_replayed_for_ever(run):
    def sharp(constant):
        return statement(
            "nash/T3.sharp", "KL(pi*||pi_T) <= 1 / (2 tau^2 (T + 1))",
            falsifiers=[Falsifier("the pull to the reference", {"step": nash.no_pull_step}, 0.5)],
            origin=HERE, proof="docs/proofs/nash.md#t3", generator=nash.warm_instance, cases=[{"n": 5}],
        )(lambda instance, step=None: nash.schedule_bound(instance, constant, step, 1.0, num_steps=1024))  # fmt: skip

    # The ledger runs under JAX's ordinary promotion.
    with jax.numpy_dtype_promotion("standard"):
        _wrong_constant(run, sharp)


def _wrong_constant(run, sharp):
    status, out, _ = run([sharp(0.5 / 1000)], "--instances", 120)
    assert status == 1 and "FAIL nash/T3.sharp" in out and "violated" in out
    stored = kept()["failures"]["nash/T3.sharp"]
    assert len(stored) == 10 and all(f["seed"] == 0 for f in stored)
    # Another seed, and too few instances to meet a violation by luck: the stored keys are run beside them.
    status, _, _ = run([sharp(0.5 / 1000)], "--instances", 1, "--seed", 9)
    row = written()["statements"][0]
    assert status == 1 and row["replayed"] == 10 and row["violations"] >= 10
    # The mended statement passes on them, and they stay.
    status, out, _ = run([sharp(0.5)], "--instances", 120, "--seed", 2)
    assert status == 0 and written()["statements"][0]["replayed"] == 10 and "130/130" in out.replace(" ", "")
    assert [f for f in kept()["failures"]["nash/T3.sharp"] if f["seed"] == 0] == stored


def test_a_refuted_entry_passes_only_beside_a_correction_that_holds(run):
    exact = lambda: Exact(Fraction(2, 3), Fraction(1, 2), "x = 1/3")  # noqa: E731

    def absent(key, shift=0.0):
        raise claims.NotRun("its data set is not here")

    def refuted(refutation=exact):
        origin = claims.as_quoted("a digest", "rlcore")
        return toy("1", wrong(), falsifiers=[], refutation=refutation, corrected="toy/2", origin=origin)

    # Asked for alone, it brings its correction, which runs first.
    status, out, _ = run([refuted(), toy("2")], "toy/1", "--instances", 120)
    assert status == 0 and [r["id"] for r in written()["statements"]] == ["toy/2", "toy/1"]
    assert "refuted as quoted in a digest; the paper's own statement was not read" in out
    # It is meant to fail: its keys are not kept for replay.
    assert not Path("results/ledger/kept.json").exists()
    for correction in (
        toy("2", wrong()),
        toy("2", absent),
        toy("2", falsifiers=[Falsifier("no", {"shift": 0.0}, 1.0)]),
    ):
        status, out, _ = run([refuted(), correction], "--instances", 120)
        assert status == 1 and "FAIL toy/1" in out
    weak = lambda: Exact(Fraction(1, 2), Fraction(1, 2), "equal")  # noqa: E731
    status, out, _ = run([refuted(weak), toy("2")], "--instances", 120)
    assert status == 1 and "FAIL toy/1" in out and written()["statements"][1]["outcome"] == "violated"
    with pytest.raises(TypeError, match="a refutation stands in exact arithmetic"):
        run([refuted(lambda: Exact(0.5, 0.4, "floats")), toy("2")], "--instances", 120)


def test_what_cannot_be_run_is_counted_apart(run):
    def absent(key, shift=0.0):
        raise claims.NotRun("its data set is not here")

    status, out, _ = run([toy(claim=absent), toy("2")], "--instances", 120)
    assert status == 0 and "2 statements: 1 holds, 1 not run" in out and "not run: its data set is not here" in out
    assert written()["counts"]["derived here"] == dict.fromkeys(ledger.OUTCOMES, 0) | {"holds": 1, "not run": 1}


def test_a_statement_that_raises_is_a_bug_and_not_a_bad_request(run):
    def buggy(key, shift=0.0):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run([toy(claim=buggy)], "--instances", 120)


# ---- kept instances ----------------------------------------------------------------------------------------------


def vectors(key, n):
    return jax.random.normal(key, (2, n))


def to_ball(xy):
    return xy / jnp.maximum(jnp.linalg.norm(xy, axis=1, keepdims=True), 1.0)


def product(xy, constant=0.99, shift=0.0):
    x, y = xy
    rhs = constant * jnp.linalg.norm(x) * jnp.linalg.norm(y)
    return Bound(x @ y + shift, rhs, jnp.sum(jnp.abs(x * y)) + rhs)


def test_an_attack_keeps_the_hardest_instance_and_later_runs_meet_it(run):
    far = [Falsifier("an added constant", {"shift": 100.0}, share=0.9)]
    entry = toy(claim=product, generator=vectors, project=to_ball, cases=[{"n": 20}], falsifiers=far)
    assert run([entry], "--instances", 120)[0] == 0  # random vectors never come near equality
    status, out, _ = run([entry], "--attack", "toy/1")
    assert status == 1 and "VIOLATED" in out and "kept: results/ledger/kept.json" in out
    (row,) = kept()["hard"]["toy/1"]["0"]
    assert len(row) == 1 and len(row[0]) == 2 and len(row[0][0]) == 20
    status, out, _ = run([entry], "--instances", 120, "--seed", 1)
    assert status == 1 and "violated at {'case': 0, 'hard': 0}" in out
    assert written()["statements"][0]["violations"] == 1
    # The same instance is not kept twice, and the statement whose constant is right stands it.
    run([entry], "--attack", "toy/1")
    assert len(kept()["hard"]["toy/1"]["0"]) == 1
    mended = lambda xy, shift=0.0: product(xy, 1.0, shift)  # noqa: E731
    right = toy(claim=mended, generator=vectors, cases=[{"n": 20}], falsifiers=far)
    assert run([right], "--instances", 120)[0] == 0 and written()["statements"][0]["replayed"] == 1


def test_an_attack_on_a_statement_without_generator_keeps_the_key(run):
    status, out, _ = run([toy()], "--attack", "toy/1")
    assert status == 0 and "random search" in out
    assert run([toy()], "--instances", 120)[0] == 0 and written()["statements"][0]["replayed"] == 1
    broken = toy(claim=lambda key, shift=0.0: cauchy_schwarz(key, shift, constant=0.9))
    status, out, _ = run([broken], "--instances", 1)
    assert status == 1 and "'hard': 0" in out  # the best of 1024 draws is within a tenth of equality


@pytest.mark.parametrize(
    "damage",
    [
        '{"failures": {"toy/1": [{"case": 0',
        "[]",
        '{"failures": {}}',
        '{"failures": {"toy/1": [{"case": 0, "seed": 1}]}, "hard": {}}',
        '{"failures": {"toy/1": [{"case": 0.5, "seed": 1, "index": 2}]}, "hard": {}}',
        '{"failures": {}, "hard": {"toy/1": {"one": []}}}',
        '{"failures": {}, "hard": {"toy/1": {"0": [1.0]}}}',
        '{"failures": {}, "hard": {"toy/1": {"7": [[[1, 2]]]}}}',
        '{"failures": {}, "hard": {"toy/1": {"0": [[[1, 2, 3]]]}}}',
        '{"failures": {"toy/1": [{"case": 7, "seed": 1, "index": 2}]}, "hard": {}}',
    ],
)
def test_damaged_kept_instances_are_refused_and_left_alone(run, damage):
    path = Path("results/ledger/kept.json")
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    status, out, err = run([toy()], "--instances", 120)
    assert status == 2 and out == "" and "error: kept instances: found" in err and "Traceback" not in err
    assert path.read_text() == damage and not (path.parent / "ledger.json").exists()


def test_instances_of_a_statement_that_is_gone_are_not_forgotten_in_silence(run):
    run([toy("old", wrong())], "--instances", 120)
    status, _, err = run([toy()], "--instances", 120)
    assert status == 0 and "warning: kept instances of 'toy/old', which is no statement, are not replayed" in err
    assert kept()["failures"]["toy/old"]


def test_published_and_local_instances_are_joined_without_repeats(run):
    run([toy(claim=wrong())], "--instances", 120)
    ledger.write_json(ledger.PUBLISHED_KEPT, kept())
    run([toy()], "--instances", 120, "--seed", 1)
    assert written()["statements"][0]["replayed"] == 10


def test_a_correction_must_exist(monkeypatch):
    lost = toy(
        falsifiers=[], refutation=lambda: Exact(Fraction(1), Fraction(0), ""), corrected="nash/T99", proof="docs/x.md#y"
    )
    monkeypatch.setattr(nash, "lost", claims.Statement(**{**vars(lost), "id": "nash/lost"}), raising=False)
    with pytest.raises(ValueError, match=r"corrected: found 'nash/T99' in 'nash/lost'"):
        ledger.families()


# ---- a user's own theorem, from a folder of strangers ------------------------------------------------------------


USERS_OWN = """
import sys
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from rlcore import claims

def triangle(key, sign=1.0):
    x, y = jax.random.normal(key, (2, 5))
    return claims.Bound(jnp.linalg.norm(x + sign * y), jnp.linalg.norm(x) + sign * jnp.linalg.norm(y), scale=10.0)

report = claims.check(triangle, falsifier=lambda key: triangle(key, sign=-1.0), share=0.9, instances=300)
print(report)
assert report.passed and report.outcome == "holds"
ours = {"envs", "experiments", "theory_checks", "tests"} & {name.split(".")[0] for name in sys.modules}
heavy = {"matplotlib", "tyro", "xarray", "zarr", "gymnax", "distrax"} & set(sys.modules)
assert not ours and not heavy, (ours, heavy)
"""


def test_a_users_own_bound_needs_no_other_package(python, stranger):
    # Beside packages called envs and experiments that are not ours, and must not be touched.
    folder = stranger / "own"
    folder.mkdir()
    for name in ("envs", "experiments", "theory_checks"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('somebody else')\n")
    done = python("-c", USERS_OWN, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "holds" in done.stdout and "bites" in done.stdout
