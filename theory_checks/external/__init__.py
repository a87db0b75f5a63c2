"""Checks by code that nobody here wrote: other people's packages, from the extra `external`, beside our answers."""

import importlib.metadata
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison.

    what: the quantity, in words. package: name and version, or the missing package. difference: the largest difference
    found, None where it was not run. tolerance: what was promised. note: what came in the way.
    """

    what: str
    package: str
    difference: float | None
    tolerance: float
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "agrees", "DIFFERS" or "not run"."""
        if self.difference is None:
            return "not run"
        return "agrees" if self.difference <= self.tolerance else "DIFFERS"


def version(package: str) -> str | None:
    """Name and version of an installed distribution, or None."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None
