"""`check`: run a claim on thousands of random instances, run its falsifiers, and compute the outcome."""

import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims.bound import BITE, Bound, Sampled, Summary, summarise, tolerance
from rlcore.claims.chance import Chance, clopper_pearson, empirical_bernstein
from rlcore.claims.statement import ORIGINS, Falsifier, Origin, Statement
from rlcore.types import Array, Key, PyTree, RandomKey, require_float64

__all__ = ["FalsifierReport", "NotRun", "Report", "check", "instance_key"]

ENOUGH = 100  # applicable, non-trivial instances below which nothing is said to hold
TRIVIAL_SHARE = 0.9  # a larger share of trivial instances makes a statement vacuous
FALSIFIER_LEVEL = 1e-3  # 99.9% Clopper-Pearson
CHANCE_LEVEL = 1e-6  # split over the instances of a run
BLOCK = 128  # instances per vmapped block
MAX_STORED_FAILURES = 10

HOLDS, VACUOUS, VIOLATED, UNDECIDED, NOT_RUN, REFUTED = (
    "holds",
    "vacuous",
    "violated",
    "undecided",
    "not run",
    "refuted",
)


class NotRun(Exception):
    """Raised by a claim whose data or optional package is absent; the text says what is missing."""


@dataclasses.dataclass(frozen=True)
class FalsifierReport:
    """What breaking one premise did.

    instances: those of the control arm on which the premise of the claim holds.
    bites: of these, instances on which the broken claim failed by at least 100 tolerances.
    share, measured: declared and measured share; measured_high: upper 99.9% Clopper-Pearson limit.
    control_failures: instances on which the unbroken claim failed too: then the falsifier proves nothing.
    """

    name: str
    instances: int
    bites: int
    share: float
    measured: float
    measured_high: float
    control_failures: int
    passed: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The computed outcome of one statement; `passed` is what decides a run's exit status."""

    id: str
    title: str
    outcome: str
    passed: bool
    words: str
    origin: Origin | None
    proof: str
    differs: str | None
    seed: int
    instances: int
    applicable: int
    nontrivial: int
    violations: int
    undecided: int
    worst_slack: float
    tightness: float
    falsifiers: tuple[FalsifierReport, ...]
    failures: tuple[Mapping[str, int], ...]
    replayed: int
    seconds: float
    compile_seconds: float

    def tightness_sentence(self) -> str:
        """How much smaller a constant these instances would allow, as a sentence; empty where it says nothing."""
        if not np.isfinite(self.tightness) or not 0 < self.tightness < 0.995:
            return ""
        return f"on these instances it would also hold with a constant {1 / self.tightness:.3g} times smaller"

    def __str__(self) -> str:
        lines = [
            f"{self.id}: {self.title}",
            f"  {self.words}",
            f"  {self.applicable} applicable instances of {self.instances}, {self.nontrivial} non-trivial, "
            f"{self.violations} violations",
            f"  worst slack {self.worst_slack:.3g} of scale, tightness {self.tightness:.3g}",
        ]
        if self.tightness_sentence():
            lines.append(f"  {self.tightness_sentence()}")
        for f in self.falsifiers:
            verdict = "bites" if f.passed else f"DOES NOT BITE ({f.reason})"
            lines.append(f"  falsifier {f.name!r}: {verdict}: {f.bites} of {f.instances}, declared {f.share:.0%}")
        for failure in self.failures:
            lines.append(f"  violated at {dict(failure)}")
        return "\n".join(lines)


def instance_key(seed: int, id: str, case: int, index: int) -> RandomKey:
    """The key of one instance: it follows from the run's seed and the statement's id, so no statement picks its own."""
    return jax.random.fold_in(jax.random.fold_in(_statement_key(seed, id), case), index)


def _statement_key(seed: int, id: str) -> RandomKey:
    # The implementation is named so that a user's default does not change the instances.
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), zlib.crc32(id.encode()))


def _case_keys(
    seed: int, id: str, case: int, count: int, replays: Sequence[Mapping[str, int]]
) -> Key[Array, " instances"]:
    base = jax.random.fold_in(_statement_key(seed, id), case)
    keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(jnp.arange(count))
    extra = [instance_key(r["seed"], id, case, r["index"]) for r in replays]
    return jnp.concatenate([keys, jnp.stack(extra)]) if extra else keys


def _instance_of(generator: Callable | None, case: Mapping[str, Any]) -> Callable[[RandomKey], PyTree]:
    return (lambda key: key) if generator is None else (lambda key: generator(key, **case))


def _bind(claim: Callable, generator: Callable | None, case: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Callable:
    extra = {**({} if generator is not None else case), **kwargs}
    return lambda *args: claim(*args, **extra)


def _run_blocks(function: Callable, inputs: PyTree) -> tuple[PyTree, float, float]:
    """Map `function` over leading axes of `inputs` in vmapped blocks, in one compilation; with both timings."""
    count = len(jax.tree.leaves(inputs)[0])
    block = min(BLOCK, count)
    rows = -(-count // block)
    take = jnp.minimum(jnp.arange(rows * block), count - 1)
    padded = jax.tree.map(lambda x: x[take].reshape((rows, block, *x.shape[1:])), inputs)
    start = time.perf_counter()
    compiled = jax.jit(lambda x: jax.lax.map(jax.vmap(function), x)).lower(padded).compile()
    middle = time.perf_counter()
    out = jax.block_until_ready(compiled(padded))
    end = time.perf_counter()
    out = jax.tree.map(lambda x: np.asarray(x).reshape((rows * block, *x.shape[2:]))[:count], out)
    return out, middle - start, end - middle


def _run_host(function: Callable, inputs: PyTree) -> tuple[PyTree, float, float]:
    start = time.perf_counter()
    count = len(jax.tree.leaves(inputs)[0])
    rows = [function(jax.tree.map(lambda x, i=i: x[i], inputs)) for i in range(count)]
    out = jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *rows)
    return out, 0.0, time.perf_counter() - start


def _counts(total: int, cases: int) -> list[int]:
    return [total // cases + (i < total % cases) for i in range(cases)]


def _arms(
    claims: Sequence[Callable], instance_of: Callable, keys: PyTree, host: bool
) -> tuple[list[Summary], float, float]:
    """Summaries of several claims on the same instances."""

    def one(key):
        instance = instance_of(key)
        return tuple(summarise(claim(instance)) for claim in claims)

    summaries, compile_seconds, seconds = (_run_host if host else _run_blocks)(one, keys)
    return list(summaries), compile_seconds, seconds


def _sampled_summary(
    claim: Callable, instance_of: Callable, keys: Key[Array, " instances"], chance: Chance, level: float
):
    """Decide E[value] <= rhs on every instance by intervals; returns (Summary, undecided, seconds...)."""

    def draw(key, batch):
        instance = instance_of(key)
        data = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 0xDA7A), batch), chance.replicates)
        s = claim(instance, data)
        if not isinstance(s, Sampled):
            raise TypeError(f"claim: found a result of type {type(s).__name__}, expected Sampled (chance is set)")
        values = jnp.asarray(s.values, jnp.float64)
        mean = jnp.mean(values)
        wide = lambda x: jnp.asarray(x, jnp.float64)  # noqa: E731
        return {
            "mean": mean,
            "m2": jnp.sum((values - mean) ** 2),
            "inside": jnp.all((values >= s.low) & (values <= s.high)),
            "rhs": wide(s.rhs),
            "low": wide(s.low),
            "high": wide(s.high),
            "tol": tolerance(Bound(0.0, 0.0, wide(s.scale), wide(s.error))),
            "applies": jnp.asarray(s.applies, bool),
            "trivial": wide(s.rhs) >= s.trivial,
            "scale": wide(s.scale),
        }

    count = len(keys)
    block = min(64, count)
    compiled, compile_seconds, start = None, 0.0, time.perf_counter()
    n = np.zeros(count)
    mean, m2, inside = np.zeros(count), np.zeros(count), np.ones(count, bool)
    static: dict[str, np.ndarray] = {}
    decided = np.zeros(count, int)  # 1 holds, -1 violated
    lower = np.full(count, -np.inf)
    batch, rounds = 0, 0
    while True:
        todo = np.flatnonzero(decided == 0)
        for _ in range(1 if rounds == 0 else 2 ** (rounds - 1)):
            for lanes in np.array_split(todo, -(-len(todo) // block)):
                padded = np.resize(lanes, block)
                args = (keys[padded], jnp.full(block, batch))
                if compiled is None:
                    began = time.perf_counter()
                    compiled = jax.jit(jax.vmap(draw)).lower(*args).compile()
                    compile_seconds = time.perf_counter() - began
                out = {k: np.asarray(v)[: len(lanes)] for k, v in compiled(*args).items()}
                for k in ("rhs", "low", "high", "tol", "applies", "trivial", "scale"):
                    static.setdefault(k, np.zeros(count, out[k].dtype))[lanes] = out[k]
                old, r = n[lanes], chance.replicates
                delta = out["mean"] - mean[lanes]
                mean[lanes] += delta * r / (old + r)
                m2[lanes] += out["m2"] + delta**2 * old * r / (old + r)
                inside[lanes] &= out["inside"]
                n[lanes] += r
            batch += 1
        round_level = level / ((rounds + 1) * (rounds + 2))
        if chance.kind == "probability":
            lo, hi = clopper_pearson(np.rint(mean[todo] * n[todo]), n[todo], round_level)
        else:
            variance = m2[todo] / (n[todo] - 1)
            lo, hi = empirical_bernstein(
                mean[todo], variance, n[todo], static["low"][todo], static["high"][todo], round_level
            )
        target = static["rhs"][todo] + static["tol"][todo]
        lower[todo] = lo
        usable = inside[todo] & np.isfinite(mean[todo]) & np.isfinite(target)
        decided[todo] = np.where(~usable, -1, np.where(hi <= target, 1, np.where(lo > target, -1, 0)))
        decided[todo] = np.where(static["applies"][todo], decided[todo], 1)
        rounds += 1
        if not np.any(decided == 0) or chance.replicates * 2**rounds > chance.cap:
            break
    miss = lower - static["rhs"]
    summary = Summary(
        applies=static["applies"],
        passes=decided >= 0,
        trivial=static["trivial"],
        bites=inside & np.isfinite(miss) & (miss > 0) & (miss >= BITE * static["tol"]),
        slack=np.where(
            static["applies"], (mean - static["rhs"]) / np.where(static["scale"] > 0, static["scale"], 1), -np.inf
        ),
        tightness=np.where(
            static["applies"] & (static["rhs"] > 0), mean / np.where(static["rhs"] > 0, static["rhs"], 1), -np.inf
        ),
        excess=np.full(count, -np.inf),
    )
    undecided = (decided == 0) & static["applies"]
    return summary, undecided, compile_seconds, time.perf_counter() - start - compile_seconds


def _falsify(entry: Statement, falsifier: Falsifier, seed: int, instances: int) -> tuple[FalsifierReport, float, float]:
    generator = entry.generator if falsifier.generator is None else falsifier.generator
    cases = entry.cases if falsifier.cases is None else falsifier.cases
    # Its own stream: the control arm then sees instances that the main run did not.
    stream = f"{entry.id}/{falsifier.name}"
    applicable = bites = control_failures = 0
    compile_seconds = seconds = 0.0
    for i, (case, count) in enumerate(zip(cases, _counts(instances, len(cases)), strict=True)):
        control = _bind(entry.claim, generator, case, falsifier.setting)
        if callable(falsifier.broken):
            broken = _bind(falsifier.broken, generator, case, falsifier.setting)
        else:
            broken = _bind(entry.claim, generator, case, {**falsifier.setting, **falsifier.broken})
        keys = _case_keys(seed, stream, i, count, [])
        instance_of = _instance_of(generator, case)
        if entry.chance is None:
            (a, b), c, s = _arms([control, broken], instance_of, keys, entry.host)
            undecided = np.zeros(count, bool)
        else:
            a, undecided, c1, s1 = _sampled_summary(control, instance_of, keys, entry.chance, CHANCE_LEVEL / instances)
            b, _, c2, s2 = _sampled_summary(broken, instance_of, keys, entry.chance, CHANCE_LEVEL / instances)
            c, s = c1 + c2, s1 + s2
        compile_seconds, seconds = compile_seconds + c, seconds + s
        applicable += int(np.sum(a.applies))
        bites += int(np.sum(b.bites & a.applies))
        control_failures += int(np.sum(a.applies & (~a.passes | undecided)))
    measured = bites / applicable if applicable else 0.0
    high = float(clopper_pearson(bites, applicable, 2 * FALSIFIER_LEVEL)[1]) if applicable else 1.0
    reason = ""
    if applicable < ENOUGH:
        reason = f"only {applicable} applicable instances, {ENOUGH} needed"
    elif control_failures:
        reason = f"the unbroken claim fails on {control_failures} of its instances"
    elif bites == 0 or high < falsifier.share:
        reason = f"measured share {measured:.3f} (at most {high:.3f} at 99.9%), declared {falsifier.share:.3f}"
    report = FalsifierReport(
        falsifier.name, applicable, bites, falsifier.share, measured, high, control_failures, not reason, reason
    )
    return report, compile_seconds, seconds


def _words(outcome: str, origin: Origin | None) -> str:
    """What may be printed: the outcome is computed, the origin typed, and only a paper that was read can be false."""
    if origin is None:
        return outcome
    source = ORIGINS[origin.kind].format(where=origin.where)
    if outcome != REFUTED:
        return f"{outcome} ({source})"
    if origin.kind == "paper":
        return f"false as published ({origin.where})"
    if origin.kind == "released code":
        return f"the released formula fails ({origin.where})"
    if origin.kind == "derived here":
        return f"refuted: an error of ours ({origin.where})"
    return f"refuted as quoted in {origin.where}; the paper's own statement was not read"


def _as_statement(claim, falsifier, share, generator) -> Statement:
    if isinstance(claim, Statement):
        if falsifier is not None:
            raise ValueError("falsifier: found one beside a Statement, expected None: a Statement declares its own")
        return claim
    if falsifier is None:
        raise ValueError("falsifier: found None, expected a broken claim or a Falsifier: a check must be able to fail")
    given = falsifier if isinstance(falsifier, (list, tuple)) else [falsifier]
    falsifiers = tuple(
        f if isinstance(f, Falsifier) else Falsifier(getattr(f, "__name__", "broken claim"), f, share) for f in given
    )
    name = getattr(claim, "__name__", "claim")
    title = ((claim.__doc__ or name).strip().splitlines() or [name])[0]
    return Statement(f"user/{name}", title, claim, falsifiers, None, "", generator=generator)


def check(
    claim: Callable | Statement,
    *,
    falsifier: Falsifier | Callable | Sequence[Falsifier | Callable] | None = None,
    share: float = 0.5,
    instances: int = 1000,
    seed: int = 0,
    generator: Callable | None = None,
    replays: Sequence[Mapping[str, int]] = (),
    hard: Mapping[int, PyTree] | None = None,
) -> Report:
    """Run a claim and its falsifiers on random instances and compute what may be said of it.

    Args:
      claim: `claim(key) -> Bound`, or `claim(instance) -> Bound` with a generator, or a `Statement`.
      falsifier: for a plain function: a broken claim (same signature), a `Falsifier`, or a list of them.
      share: declared share of instances that a broken claim given as a function must fail.
      instances: random instances, split over the statement's cases.
      seed: of the run; instance i of statement s has the key `instance_key(seed, s, case, i)`.
      generator: `generator(key) -> instance`, for a plain function.
      replays: former failures {"case", "seed", "index"}, run again beside the new instances.
      hard: per case index, stacked instances (leading axis) kept from attacks, run again too.

    Returns: a `Report`. Outcome "holds" takes at least 100 applicable, non-trivial instances, all passing;
      "vacuous", "violated", "undecided", "not run" and "refuted" are told apart and never counted as holding.
    Raises: RuntimeError without float64; ValueError for a claim without falsifier or instances < 1;
      TypeError for a claim that does not return a Bound.
    Cost: one compilation per case and per case of each falsifier; instances run in vmapped blocks of 128.
    """
    require_float64("claims.check")
    if instances < 1:
        raise ValueError(f"instances: found {instances}, expected an integer >= 1")
    entry = _as_statement(claim, falsifier, share, generator)
    try:
        return _check(entry, instances, seed, replays, hard or {})
    except NotRun as missing:
        words = f"not run: {missing}"
        return Report(
            entry.id, entry.title, NOT_RUN, True, words, entry.origin, entry.proof, entry.differs, seed,
            0, 0, 0, 0, 0, np.nan, np.nan, (), (), 0, 0.0, 0.0,
        )  # fmt: skip


def _check(entry: Statement, instances: int, seed: int, replays, hard) -> Report:
    parts, undecided_parts, failures = [], [], []
    compile_seconds = seconds = 0.0
    replayed = 0
    for i, (case, count) in enumerate(zip(entry.cases, _counts(instances, len(entry.cases)), strict=True)):
        again = [r for r in replays if r["case"] == i]
        keys = _case_keys(seed, entry.id, i, count, again)
        unbroken = _bind(entry.claim, entry.generator, case, {})
        instance_of = _instance_of(entry.generator, case)
        if entry.chance is None:
            (summary,), c, s = _arms([unbroken], instance_of, keys, entry.host)
            undecided = np.zeros(len(keys), bool)
        else:
            level = CHANCE_LEVEL / instances
            summary, undecided, c, s = _sampled_summary(unbroken, instance_of, keys, entry.chance, level)
        names = [{"case": i, "seed": seed, "index": k} for k in range(count)] + [dict(r) for r in again]
        bad = np.flatnonzero(summary.applies & ~summary.passes)
        failures += [names[k] for k in bad]
        parts.append(summary)
        undecided_parts.append(undecided)
        compile_seconds, seconds, replayed = compile_seconds + c, seconds + s, replayed + len(again)
        if i in hard:
            (kept,), c, s = _arms([unbroken], lambda instance: instance, hard[i], entry.host)
            bad = np.flatnonzero(kept.applies & ~kept.passes)
            failures += [{"case": i, "hard": int(k)} for k in bad]
            parts.append(kept)
            undecided_parts.append(np.zeros(len(kept.passes), bool))
            compile_seconds, seconds, replayed = compile_seconds + c, seconds + s, replayed + len(kept.passes)

    every = Summary(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    undecided = int(np.sum(np.concatenate(undecided_parts)))
    falsifier_reports = []
    for falsifier in entry.falsifiers:
        report, c, s = _falsify(entry, falsifier, seed, instances)
        falsifier_reports.append(report)
        compile_seconds, seconds = compile_seconds + c, seconds + s

    applicable = int(np.sum(every.applies))
    trivial = int(np.sum(every.applies & every.trivial))
    violations = int(np.sum(every.applies & ~every.passes))
    if entry.refutation is not None:
        exact = entry.refutation()
        outcome = REFUTED if exact.lhs > exact.rhs else VIOLATED if violations else HOLDS
        passed = outcome == REFUTED
    else:
        if violations:
            outcome = VIOLATED
        elif undecided:
            outcome = UNDECIDED
        elif applicable - trivial < ENOUGH or trivial > TRIVIAL_SHARE * applicable:
            outcome = VACUOUS
        else:
            outcome = HOLDS
        passed = outcome == HOLDS
    return Report(
        id=entry.id,
        title=entry.title,
        outcome=outcome,
        passed=passed and all(f.passed for f in falsifier_reports),
        words=_words(outcome, entry.origin),
        origin=entry.origin,
        proof=entry.proof,
        differs=entry.differs,
        seed=seed,
        instances=instances,
        applicable=applicable,
        nontrivial=applicable - trivial,
        violations=violations,
        undecided=undecided,
        worst_slack=float(np.max(every.slack, where=every.applies, initial=-np.inf)),
        tightness=float(np.max(every.tightness, where=every.applies, initial=-np.inf)),
        falsifiers=tuple(falsifier_reports),
        failures=tuple(failures[:MAX_STORED_FAILURES]),
        replayed=replayed,
        seconds=seconds,
        compile_seconds=compile_seconds,
    )
