"""`statement`: what a ledger entry must declare: its origin, its proof and the ways to break it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from rlcore.claims.chance import Chance

__all__ = [
    "Exact",
    "Falsifier",
    "Origin",
    "Statement",
    "as_quoted",
    "derived_here",
    "paper",
    "paper_constants_not_read",
    "released_code",
    "statement",
]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a statement was read, typed by hand; what may be printed about it follows from the kind.

    kind: one of ORIGINS.
    where: version and number read, the digest that quotes it, the file, or the proof.
    bib: key of the source in the ledger's bibliography, or None for what is new here.
    """

    kind: str
    where: str
    bib: str | None = None

    def __post_init__(self):
        if self.kind == "remembered":
            raise ValueError("origin: found 'remembered', expected a source that was read: memory is no test target")
        if self.kind not in ORIGINS:
            raise ValueError(f"origin: found {self.kind!r}, expected one of {sorted(ORIGINS)}")


ORIGINS = {
    "paper": "read in the paper: {where}",
    "paper, constants not read": "the paper's constants were not read: {where}",
    "as quoted": "as quoted in {where}; the paper's own statement was not read",
    "released code": "read in released code: {where}",
    "derived here": "derived here: {where}",
}


def paper(where: str, bib: str | None = None) -> Origin:
    """The primary text was read; `where` gives version and number."""
    return Origin("paper", where, bib)


def paper_constants_not_read(where: str, bib: str | None = None) -> Origin:
    """The claim is the paper's, its constants are ours."""
    return Origin("paper, constants not read", where, bib)


def as_quoted(where: str, bib: str | None = None) -> Origin:
    """Read in a digest, review or later work, named in `where`."""
    return Origin("as quoted", where, bib)


def released_code(where: str, bib: str | None = None) -> Origin:
    """Read in the authors' code; `where` names the file."""
    return Origin("released code", where, bib)


def derived_here(where: str, bib: str | None = None) -> Origin:
    """Proved in this repository; `where` points at the proof, `bib` at the work it sharpens, if any."""
    return Origin("derived here", where, bib)


@dataclasses.dataclass(frozen=True)
class Falsifier:
    """The claim with exactly one premise or line changed, which must then fail on a declared share of instances.

    name: the premise or line that is broken, in words.
    broken: the one keyword argument of the claim that changes, {name: value}; or another claim altogether
      (a function), for claims without such a keyword.
    share: the smallest acceptable share of instances on which the broken claim fails, in (0, 1].
    generator: instances on which it bites, if not the statement's own; the control arm, the unbroken claim on
      these very instances, must pass.
    setting: keyword arguments for both arms (a horizon, a temperature range).
    cases: shapes for this falsifier, if not the statement's own.
    """

    name: str
    broken: Mapping[str, Any] | Callable
    share: float
    generator: Callable | None = None
    setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share: found {self.share} in falsifier {self.name!r}, expected a number in (0, 1]")
        if not callable(self.broken) and len(self.broken) != 1:
            raise ValueError(
                f"broken: found {sorted(self.broken)} in falsifier {self.name!r}, expected exactly one changed argument"
            )


class Exact(NamedTuple):
    """A counterexample in exact arithmetic: lhs > rhs, both rational (or the near ends of intervals)."""

    lhs: Fraction
    rhs: Fraction
    text: str


@dataclasses.dataclass(frozen=True)
class Statement:
    """One entry of a ledger; made by `statement`. Fields are documented there."""

    id: str
    title: str
    claim: Callable
    falsifiers: tuple[Falsifier, ...]
    origin: Origin | None  # None only for a user's plain function
    proof: str
    differs: str | None = None
    generator: Callable | None = None
    project: Callable | None = None
    cases: tuple[Mapping[str, Any], ...] = ({},)
    host: bool = False
    chance: Chance | None = None
    refutation: Callable[[], Exact] | None = None
    corrected: str | None = None

    def __call__(self, *args, **kwargs):
        return self.claim(*args, **kwargs)


def statement(
    id: str,
    title: str,
    *,
    falsifiers: Sequence[Falsifier],
    origin: Origin,
    proof: str,
    differs: str | None = None,
    generator: Callable | None = None,
    project: Callable | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    host: bool = False,
    chance: Chance | None = None,
    refutation: Callable[[], Exact] | None = None,
    corrected: str | None = None,
) -> Callable[[Callable], Statement]:
    """Declare the decorated function as a ledger entry.

    The function is `claim(instance) -> Bound` (or a list of Bounds) with `instance = generator(key, **case)`;
    without a generator it is `claim(key, **case)`. Keyword arguments of the claim with defaults are its
    premises and lines: a falsifier changes exactly one of them.

    Args:
      id: "family/number", unique in the ledger; the keys of all instances follow from it and the run's seed.
      title: the inequality in one line.
      falsifiers: at least one, unless the entry is a refutation.
      origin: what was read, typed.
      proof: where the proof stands, "docs/proofs/<family>.md#<anchor>".
      differs: what differs from the source's statement, if anything.
      generator: `generator(key, **case) -> instance`, a pytree; needed to attack the statement by gradients.
      project: `project(instance) -> instance`, nearest valid instance, for the attack.
      cases: static arguments of the generator (sizes), at most three: one compilation each.
      host: the claim is not traceable (an LP); it runs instance by instance on the host.
      chance: makes the claim `claim(instance, keys[R]) -> Sampled`.
      refutation: returns an exact counterexample to a quoted claim; then `corrected` names the entry that holds.
      corrected: id of the corrected statement.

    Raises: ValueError for a missing falsifier, more than three cases, or a refutation without its correction.
    """
    if not falsifiers and refutation is None:
        raise ValueError(
            f"falsifiers: found none in statement {id!r}, expected at least one: a check must be able to fail"
        )
    if not 1 <= len(cases) <= 3:
        raise ValueError(f"cases: found {len(cases)} in statement {id!r}, expected one to three compiled shapes")
    if (refutation is None) != (corrected is None):
        raise ValueError(
            f"corrected: found {corrected!r} in statement {id!r}, expected an id exactly with a refutation"
        )

    def declare(claim: Callable) -> Statement:
        return Statement(
            id,
            title,
            claim,
            tuple(falsifiers),
            origin,
            proof,
            differs,
            generator,
            project,
            tuple(cases),
            host,
            chance,
            refutation,
            corrected,
        )

    return declare
