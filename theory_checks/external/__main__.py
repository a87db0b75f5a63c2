"""python -m theory_checks.external [family ...]: compare with other people's packages, as far as they are installed."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and print one row each; 1 if something differs, 0 also where packages are missing."""
    known = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m theory_checks.external", description=__doc__.partition(": ")[2])
    parser.add_argument("family", nargs="*", help=f"some of {known}; all by default")
    names = parser.parse_args(arguments).family or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"family: found {unknown}, expected some of {known}")
    import jax

    jax.config.update("jax_enable_x64", True)
    rows = [row for name in names for row in importlib.import_module(f"theory_checks.external.{name}").checks()]
    for row in rows:
        size = "-" if row.difference is None else f"{row.difference:.1e}"
        line = f"{row.verdict:<8} {row.what}: largest difference {size}, tolerance {row.tolerance:g} [{row.package}]"
        print(line + (f" {row.note}" if row.note else ""))
    return int(any(row.verdict == "DIFFERS" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
