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
from rlcore.distributional.spectral_risk import SpectralSolution, maximize_spectral
from rlcore.distributional.stock import StockGrid, StockPolicy, fitting_grid, policy_action, return_range, stock_grid
from rlcore.distributional.stock_vi import StockSolution, stock_value, stock_vi
from rlcore.distributional.utility import Custom, Power, Reach, TwoSlope, two_slope
from rlcore.distributional.vector_law import VectorLaw, vector_law
from rlcore.distributional.vector_stock import (
    VectorPolicy,
    VectorSolution,
    vector_evaluation,
    vector_grids,
    vector_policy_action,
    vector_stock_vi,
    vector_value,
)
from rlcore.distributional.vector_utility import Constrained, NormDrive, constrained, norm_drive

__all__ = [
    "Categorical",
    "Constrained",
    "Custom",
    "DistSolution",
    "Lattice",
    "Law",
    "LawEvaluation",
    "NormDrive",
    "Power",
    "Quantiles",
    "Reach",
    "SpectralSolution",
    "StockGrid",
    "StockPolicy",
    "StockSolution",
    "TwoSlope",
    "VectorLaw",
    "VectorPolicy",
    "VectorSolution",
    "almost_surely_nonnegative",
    "categorical_law",
    "check_law",
    "constrained",
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
    "maximize_spectral",
    "mean",
    "merge",
    "norm_drive",
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
    "vector_evaluation",
    "vector_grids",
    "vector_law",
    "vector_policy_action",
    "vector_stock_vi",
    "vector_value",
    "wasserstein",
]
