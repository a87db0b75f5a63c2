"""Return distributions: stock-augmented dynamic programming, exact laws, risk and target objectives."""

from rlcore.distributional.dist_pi import dist_pi
from rlcore.distributional.dist_vi import DistSolution, dist_vi
from rlcore.distributional.evaluation import LawEvaluation, law_evaluation, stock_evaluation
from rlcore.distributional.functionals import (
    almost_surely_nonnegative,
    cvar,
    entropic,
    essential_infimum,
    expected_utility,
    expectile,
    mean,
    optimistic_cvar,
    spectral,
    value_at_risk,
    variance,
)
from rlcore.distributional.lattice import Lattice, lattice
from rlcore.distributional.laws import (
    Law,
    categorical_law,
    check_law,
    from_stop_loss,
    merge,
    project_categorical,
    project_quantile,
    quantile_law,
    to_stop_loss,
)
from rlcore.distributional.metrics import cramer, wasserstein
from rlcore.distributional.representations import Categorical, Quantiles, fitting_lattice
from rlcore.distributional.stock import StockGrid, StockPolicy, fitting_grid, policy_action, return_range, stock_grid
from rlcore.distributional.stock_vi import StockSolution, stock_value, stock_vi
from rlcore.distributional.utility import Custom, Power, Reach, TwoSlope, two_slope

__all__ = [
    "Categorical",
    "Custom",
    "DistSolution",
    "Lattice",
    "Law",
    "LawEvaluation",
    "Power",
    "Quantiles",
    "Reach",
    "StockGrid",
    "StockPolicy",
    "StockSolution",
    "TwoSlope",
    "almost_surely_nonnegative",
    "categorical_law",
    "check_law",
    "cramer",
    "cvar",
    "dist_pi",
    "dist_vi",
    "entropic",
    "essential_infimum",
    "expected_utility",
    "expectile",
    "fitting_grid",
    "fitting_lattice",
    "from_stop_loss",
    "lattice",
    "law_evaluation",
    "mean",
    "merge",
    "optimistic_cvar",
    "policy_action",
    "project_categorical",
    "project_quantile",
    "quantile_law",
    "return_range",
    "spectral",
    "stock_evaluation",
    "stock_grid",
    "stock_value",
    "stock_vi",
    "to_stop_loss",
    "two_slope",
    "value_at_risk",
    "variance",
    "wasserstein",
]
