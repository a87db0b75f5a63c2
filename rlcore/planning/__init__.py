"""Exact ground truth for tabular problems: optimal values, policy values, occupancies, linear programme."""

from rlcore.planning.batch import solve_batch
from rlcore.planning.bisimulation import Bisimulation, coarsest_bisimulation
from rlcore.planning.certificate import Certificate, span_certificate
from rlcore.planning.evaluation import policy_evaluation
from rlcore.planning.finite import FiniteValues, backward_induction
from rlcore.planning.kernel import Kernel, prepare
from rlcore.planning.linear_program import linear_programme
from rlcore.planning.occupancy import advantage, occupancy, performance_difference, policy_return
from rlcore.planning.optimal import (
    ModifiedPolicyIteration,
    Plan,
    PolicyIteration,
    ValueIteration,
    modified_policy_iteration,
    policy_iteration,
    solve_optimal,
    value_iteration,
)

__all__ = [
    "Bisimulation",
    "Certificate",
    "FiniteValues",
    "Kernel",
    "ModifiedPolicyIteration",
    "Plan",
    "PolicyIteration",
    "ValueIteration",
    "advantage",
    "backward_induction",
    "coarsest_bisimulation",
    "linear_programme",
    "modified_policy_iteration",
    "occupancy",
    "performance_difference",
    "policy_evaluation",
    "policy_iteration",
    "policy_return",
    "prepare",
    "solve_batch",
    "solve_optimal",
    "span_certificate",
    "value_iteration",
]
