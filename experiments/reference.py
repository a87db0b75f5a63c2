"""Numbers of others beside ours: where they come from, and whether they agree."""

import dataclasses
import math
from collections.abc import Mapping

KINDS = (
    "published table",
    "read from a published figure",
    "released code run",
    "quoted by a later work",
    "prototype of this project",
)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A number to compare with.

    value, error: the number and its uncertainty (reading error, spread of its sample, last digit printed).
    kind: one of KINDS; remembered values have no kind and are never drawn.
    where: the table, figure or file.
    explained: where a known difference is explained, if there is one.
    noted: where a difference is written down that nobody has explained yet.
    comparable: False if the settings differ so much that no verdict is due.
    """

    value: float
    error: float
    kind: str
    where: str
    explained: str | None = None
    noted: str | None = None
    comparable: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind: found {self.kind!r}, expected one of {KINDS}")
        if not self.error >= 0:
            raise ValueError(f"error: found {self.error}, expected a number >= 0")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number of ours and its uncertainty."""

    value: float
    error: float


def verdict(reference: Reference, ours: Measured) -> str:
    """ "agrees", "differs, explained at ...", "differs, not explained: ...", "DIFFERS" or "not comparable"."""
    if not reference.comparable:
        return "not comparable"
    if abs(ours.value - reference.value) <= reference.error + ours.error:
        return "agrees"
    if reference.noted:
        return f"differs, not explained: {reference.noted}"
    return f"differs, explained at {reference.explained}" if reference.explained else "DIFFERS"


def table(references: Mapping[str, Reference], ours: Mapping[str, Measured]) -> list[dict[str, str]]:
    """One row per number of ours: name, ours, theirs, verdict, source; none for NaN, which stands for "not run".

    Raises: ValueError for a reference that nothing measures.
    """
    missing = sorted(set(references) - set(ours))
    if missing:
        raise ValueError(f"measured: found nothing for {missing}, expected a number for every reference")
    rows = []
    for name, mine in ours.items():
        if math.isnan(mine.value):
            continue  # a quick preset leaves it out
        row = {"quantity": name, "ours": f"{mine.value:.3g} ± {mine.error:.2g}"}
        if name in references:
            theirs = references[name]
            row |= {
                "reference": f"{theirs.value:.3g} ± {theirs.error:.2g}",
                "verdict": verdict(theirs, mine),
                "source": f"{theirs.kind}: {theirs.where}",
            }
        else:
            row |= {"reference": "-", "verdict": "-", "source": "-"}
        rows.append(row)
    return rows
