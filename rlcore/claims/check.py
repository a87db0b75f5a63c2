"""`check`: run a claim on thousands of random instances, run its falsifiers, and compute the outcome."""

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Rational
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims.bound import BITE, Bound, Sampled, Summary, summarise, tolerance
from rlcore.claims.chance import Chance, clopper_pearson, empirical_bernstein
from rlcore.claims.statement import ORIGINS, Falsifier, Origin, Statement
from rlcore.types import Array, Bool, Key, PyTree, RandomKey, require_float64

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
    bites: of these, instances on which the broken claim failed by at least 100 tolerances and the unbroken did not,
      not even in an inequality whose own premise is missing.
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
        if not np.isfinite(self.tightness) or not 0 < self.tightness < 0.95:
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
    seed: int, id: str, case: int, count: int, replays: Sequence[Mapping[str, int]] = ()
) -> Key[Array, " instances"]:
    base = jax.random.fold_in(_statement_key(seed, id), case)
    keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(jnp.arange(count))
    extra = [instance_key(r["seed"], id, case, r["index"]) for r in replays]
    return jnp.concatenate([keys, jnp.stack(extra)]) if extra else keys


@dataclasses.dataclass
class _Clock:
    """Seconds spent compiling and running, summed over the programs of one statement."""

    compiling: float = 0.0
    running: float = 0.0


def _hashable(setting: Mapping[str, Any]) -> tuple:
    try:
        items = tuple((name, type(value), value) for name, value in sorted(setting.items()))
        hash(items)
    except TypeError as error:
        raise TypeError(f"setting: found {dict(setting)}, expected hashable values ({error})") from None
    return items


def _call(function: Callable, items: tuple) -> Callable:
    return functools.partial(function, **{name: value for name, _, value in items})


# One compilation per generator and case, and per claim and setting, serves every arm that needs it.
@functools.lru_cache(maxsize=256)
def _drawer(generator: Callable, case: tuple) -> Callable:
    return jax.jit(jax.vmap(_call(generator, case)))


@functools.lru_cache(maxsize=256)
def _summariser(claim: Callable, setting: tuple) -> Callable:
    return jax.jit(jax.vmap(lambda instance: summarise(_call(claim, setting)(instance))))


def _length(instances: PyTree) -> int:
    return len(jax.tree.leaves(instances)[0])


def _take(instances: PyTree, rows) -> PyTree:
    return jax.tree.map(lambda x: x[rows], instances)


def _in_blocks(program: Callable, instances: PyTree, clock: _Clock) -> PyTree:
    """Call a vmapped program on blocks of one fixed size, padded at the end."""
    count = _length(instances)
    blocks = [np.resize(rows, BLOCK) for rows in np.split(np.arange(count), range(BLOCK, count, BLOCK))]
    start = time.perf_counter()
    jax.block_until_ready(program(_take(instances, blocks[0])))
    middle = time.perf_counter()
    # One block at a time: batched LAPACK calls of two blocks at once hang on JAX 0.10's CPU.
    outs = [jax.block_until_ready(program(_take(instances, block))) for block in blocks]
    out = jax.block_until_ready(jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *outs))
    running = time.perf_counter() - middle
    clock.compiling += max(middle - start - running / len(blocks), 0.0)
    clock.running += running
    return out


def _draw(entry: Statement, generator: Callable | None, case: Mapping[str, Any], keys: PyTree, clock: _Clock) -> PyTree:
    """The instances of the keys, stacked; the keys themselves without a generator."""
    if generator is None:
        return keys
    if entry.host:
        rows = [generator(keys[i], **case) for i in range(len(keys))]
        return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *rows)
    return _in_blocks(_drawer(generator, _hashable(case)), keys, clock)


def _arm(
    entry: Statement, claim: Callable, setting: Mapping[str, Any], instances: PyTree, keys: PyTree, level: float, clock
) -> tuple[Summary, Bool[np.ndarray, " instances"]]:
    """(summaries, undecided) of one claim on stacked instances; `keys` feed the fresh data of a sampled one."""
    if entry.chance is not None:
        return _sampled(_call(claim, _hashable(setting)), instances, keys, entry.chance, level, clock)
    if entry.host:
        start = time.perf_counter()
        rows = [summarise(claim(_take(instances, i), **setting)) for i in range(_length(instances))]
        summary = jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *rows)
        clock.running += time.perf_counter() - start
    else:
        program = _summariser(claim, _hashable(setting))
        summary = jax.tree.map(np.asarray, _in_blocks(program, instances, clock))
    return summary, np.zeros(_length(instances), bool)


def _sampled(claim: Callable, instances: PyTree, keys: PyTree, chance: Chance, level: float, clock: _Clock):
    """Decide E[value] <= rhs on every instance by intervals that shrink as replicates double."""

    def moments(instance_key_batch):
        instance, key, batch = instance_key_batch
        data = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 0xDA7A), batch), chance.replicates)
        s = claim(instance, data)
        if not isinstance(s, Sampled):
            raise TypeError(f"claim: found a result of type {type(s).__name__}, expected Sampled (chance is set)")
        wide = lambda x: jnp.asarray(x, jnp.float64)  # noqa: E731
        values = wide(s.values)
        mean = jnp.mean(values)
        return {
            "mean": mean,
            "m2": jnp.sum((values - mean) ** 2),
            "inside": jnp.all((values == 0) | (values == 1))
            if chance.kind == "probability"
            else jnp.all((values >= s.low) & (values <= s.high)),
            "rhs": wide(s.rhs),
            "low": wide(s.low),
            "high": wide(s.high),
            "tol": tolerance(Bound(0.0, 0.0, wide(s.scale), wide(s.error))),
            "applies": jnp.asarray(s.applies, bool),
            "known": ~jnp.isnan(wide(s.applies)) & ~jnp.isnan(wide(s.trivial)),
            "trivial": wide(s.trivial),
            "scale": wide(s.scale),
            "error": wide(s.error),
        }

    program = jax.jit(jax.vmap(moments))
    count = len(keys)
    n, mean, m2 = np.zeros(count), np.zeros(count), np.zeros(count)
    inside, verdict, lower = np.ones(count, bool), np.zeros(count, int), np.full(count, -np.inf)
    fixed: dict[str, np.ndarray] = {}
    batch = rounds = 0
    while True:
        todo = np.flatnonzero(verdict == 0)
        for _ in range(1 if rounds == 0 else 2 ** (rounds - 1)):
            batches = jnp.full(len(todo), batch, jnp.uint32)
            out = _in_blocks(program, (_take(instances, todo), keys[todo], batches), clock)
            out = {name: np.asarray(value) for name, value in out.items()}
            for name in ("rhs", "low", "high", "tol", "applies", "known", "trivial", "scale", "error"):
                fixed.setdefault(name, np.zeros(count, out[name].dtype))[todo] = out[name]
            old, new = n[todo], chance.replicates
            delta = out["mean"] - mean[todo]
            mean[todo] += delta * new / (old + new)
            m2[todo] += out["m2"] + delta**2 * old * new / (old + new)
            inside[todo] &= out["inside"]
            n[todo] += new
            batch += 1
        round_level = level / ((rounds + 1) * (rounds + 2))  # sums to `level` over all rounds
        if chance.kind == "probability":
            lo, hi = clopper_pearson(np.rint(mean[todo] * n[todo]), n[todo], round_level)
        else:
            variance = m2[todo] / (n[todo] - 1)
            lo, hi = empirical_bernstein(
                mean[todo], variance, n[todo], fixed["low"][todo], fixed["high"][todo], round_level
            )
        target = fixed["rhs"][todo] + fixed["tol"][todo]
        lower[todo] = lo
        usable = inside[todo] & fixed["known"][todo] & np.isfinite(mean[todo]) & np.isfinite(target)
        usable &= fixed["tol"][todo] >= 0
        verdict[todo] = np.where(~usable, -1, np.where(hi <= target, 1, np.where(lo > target, -1, 0)))
        verdict[todo] = np.where(fixed["applies"][todo], verdict[todo], 1)
        rounds += 1
        if not np.any(verdict == 0) or chance.replicates * 2**rounds > chance.cap:
            break
    miss, applies, rhs, error = lower - fixed["rhs"], fixed["applies"], fixed["rhs"], fixed["error"]
    unit = np.where(fixed["scale"] > 0, fixed["scale"], 1.0)
    summary = Summary(
        applies=applies,
        passes=verdict >= 0,
        # As in `summarise`: an error as large as the terms excuses everything.
        trivial=(rhs + fixed["tol"] >= fixed["trivial"]) | ((error > 0) & (error >= fixed["scale"])),
        bites=inside & np.isfinite(miss) & (miss > 0) & (miss >= BITE * fixed["tol"]),
        slack=np.where(applies, (mean - rhs - error) / unit, -np.inf),
        tightness=np.where(applies & (rhs > 0), mean / np.where(rhs > 0, rhs, 1.0), -np.inf),
        excess=np.full(count, -np.inf),
    )
    return summary, (verdict == 0) & applies


def _counts(total: int, cases: int) -> list[int]:
    return [total // cases + (i < total % cases) for i in range(cases)]


def _falsify(entry: Statement, falsifier: Falsifier, seed: int, instances: int, clock: _Clock) -> FalsifierReport:
    generator = entry.generator if falsifier.generator is None else falsifier.generator
    cases = entry.cases if falsifier.cases is None else falsifier.cases
    # Its own stream: the control arm then sees instances that the main run did not.
    stream = f"{entry.id}/{falsifier.name}"
    level = CHANCE_LEVEL / instances
    applicable = bites = control_failures = 0
    for i, (case, count) in enumerate(zip(cases, _counts(instances, len(cases)), strict=True)):
        if count == 0:
            continue
        keys = _case_keys(seed, stream, i, count)
        drawn = _draw(entry, generator, case, keys, clock)
        setting = dict(falsifier.setting) if generator is not None else {**case, **falsifier.setting}
        control, undecided = _arm(entry, entry.claim, setting, drawn, keys, level, clock)
        if callable(falsifier.broken):
            broken, _ = _arm(entry, falsifier.broken, setting, drawn, keys, level, clock)
        else:
            broken, _ = _arm(entry, entry.claim, {**setting, **falsifier.broken}, drawn, keys, level, clock)
        applicable += int(np.sum(control.applies))
        bites += int(np.sum(broken.bites & control.applies & ~control.bites))
        control_failures += int(np.sum(control.applies & (~control.passes | undecided)))
    measured = bites / applicable if applicable else 0.0
    # One-sided 99.9%: the two-sided interval at twice the level.
    high = float(clopper_pearson(bites, applicable, 2 * FALSIFIER_LEVEL)[1]) if applicable else 1.0
    reason = ""
    if applicable < ENOUGH:
        reason = f"only {applicable} applicable instances, {ENOUGH} needed"
    elif control_failures:
        reason = f"the unbroken claim fails on {control_failures} of its instances"
    elif bites == 0 or high < falsifier.share:
        reason = f"measured share {measured:.3f} (at most {high:.3f} at 99.9%), declared {falsifier.share:.3f}"
    return FalsifierReport(
        falsifier.name, applicable, bites, falsifier.share, measured, high, control_failures, not reason, reason
    )


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
        for name, value in (("falsifier", falsifier), ("generator", generator)):
            if value is not None:
                raise ValueError(f"{name}: found one beside a Statement, expected None: a Statement declares its own")
        if not claim.falsifiers and claim.refutation is None:
            raise ValueError(
                f"falsifiers: found none in {claim.id!r}, expected at least one: a check must be able to fail"
            )
        return claim
    given = falsifier if isinstance(falsifier, (list, tuple)) else [] if falsifier is None else [falsifier]
    if not given:
        raise ValueError(
            f"falsifier: found {falsifier}, expected a broken claim or a Falsifier: a check must be able to fail"
        )
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
    Raises: RuntimeError without float64; ValueError for a claim without falsifier, instances < 1, or a replayed
      or kept instance of a case that does not exist; TypeError for a claim that does not return a Bound, or a
      refutation that is not in exact arithmetic.
    Cost: one compilation per claim, setting and case, shared by all arms; instances run in vmapped blocks of 128.
    """
    require_float64("claims.check")
    if instances < 1:
        raise ValueError(f"instances: found {instances}, expected an integer >= 1")
    entry = _as_statement(claim, falsifier, share, generator)
    hard = hard or {}
    for case in [*(r["case"] for r in replays), *hard]:
        if not 0 <= case < len(entry.cases):
            raise ValueError(
                f"case: found {case} among the kept instances of {entry.id!r}, expected 0 to {len(entry.cases) - 1}"
            )
    try:
        return _check(entry, instances, seed, replays, hard)
    except NotRun as missing:
        words = f"not run: {missing}"
        return Report(
            entry.id, entry.title, NOT_RUN, True, words, entry.origin, entry.proof, entry.differs, seed,
            0, 0, 0, 0, 0, np.nan, np.nan, (), (), 0, 0.0, 0.0,
        )  # fmt: skip


def _confirmed(entry: Statement) -> bool:
    """Whether the counterexample of a refuted entry still violates the quoted bound, in exact arithmetic."""
    exact = entry.refutation()
    if not all(isinstance(x, Rational) for x in (exact.lhs, exact.rhs)):
        raise TypeError(
            f"refutation: found {type(exact.lhs).__name__} and {type(exact.rhs).__name__} in {entry.id!r}, "
            "expected two fractions: a refutation stands in exact arithmetic"
        )
    return exact.lhs > exact.rhs


def _check(entry: Statement, instances: int, seed: int, replays, hard) -> Report:
    parts, undecided_parts, failures = [], [], []
    clock, level, replayed = _Clock(), CHANCE_LEVEL / instances, 0
    for i, (case, count) in enumerate(zip(entry.cases, _counts(instances, len(entry.cases)), strict=True)):
        again = [dict(r) for r in replays if r["case"] == i]
        setting = {} if entry.generator is not None else case
        runs = []
        if count + len(again) > 0:
            keys = _case_keys(seed, entry.id, i, count, again)
            names = [{"case": i, "seed": seed, "index": k} for k in range(count)] + again
            runs.append((_draw(entry, entry.generator, case, keys, clock), keys, names))
        if i in hard:
            kept = _length(hard[i])
            spare = _case_keys(seed, f"{entry.id}/kept", i, kept)
            runs.append((hard[i], spare, [{"case": i, "hard": k} for k in range(kept)]))
            replayed += kept
        for drawn, keys, names in runs:
            summary, undecided = _arm(entry, entry.claim, setting, drawn, keys, level, clock)
            failures += [names[k] for k in np.flatnonzero(summary.applies & ~summary.passes)]
            parts.append(summary)
            undecided_parts.append(undecided)
        replayed += len(again)

    every = Summary(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    undecided = int(np.sum(np.concatenate(undecided_parts)))
    falsifier_reports = [_falsify(entry, falsifier, seed, instances, clock) for falsifier in entry.falsifiers]
    applicable = int(np.sum(every.applies))
    trivial = int(np.sum(every.applies & every.trivial))
    violations = int(np.sum(every.applies & ~every.passes))
    if entry.refutation is not None and _confirmed(entry):
        outcome = REFUTED
    elif violations:
        outcome = VIOLATED
    elif undecided:
        outcome = UNDECIDED
    elif applicable - trivial < ENOUGH or trivial > TRIVIAL_SHARE * applicable:
        outcome = VACUOUS
    else:
        outcome = HOLDS
    passed = outcome == (HOLDS if entry.refutation is None else REFUTED)
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
        seconds=clock.running,
        compile_seconds=clock.compiling,
    )
