"""The contract of the ledger: a claim is a `Bound`, and a claim is worth its falsifiers.

`check(claim, falsifier=..., instances=...)` runs a user's own bound; `statement` declares one for a ledger.
Nothing here needs any other package of this project.
"""

from rlcore.claims.attack import Attack, attack
from rlcore.claims.bound import TOLERANCE_IN_EPS, Bound, Sampled, identity
from rlcore.claims.chance import Chance, clopper_pearson, empirical_bernstein
from rlcore.claims.check import FalsifierReport, NotRun, Report, check, instance_key
from rlcore.claims.statement import (
    Exact,
    Falsifier,
    Origin,
    Statement,
    as_quoted,
    derived_here,
    paper,
    paper_constants_not_read,
    released_code,
    statement,
)

__all__ = [
    "TOLERANCE_IN_EPS",
    "Attack",
    "Bound",
    "Chance",
    "Exact",
    "Falsifier",
    "FalsifierReport",
    "NotRun",
    "Origin",
    "Report",
    "Sampled",
    "Statement",
    "as_quoted",
    "attack",
    "check",
    "clopper_pearson",
    "derived_here",
    "empirical_bernstein",
    "identity",
    "instance_key",
    "paper",
    "paper_constants_not_read",
    "released_code",
    "statement",
]
