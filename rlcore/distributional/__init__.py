"""Return distributions: stock-augmented dynamic programming, exact laws, risk and target objectives.

The deep agent is imported by itself, `rlcore.distributional.din`: it needs flax and optax."""

from rlcore.distributional.bracket import Bracket, bracket
from rlcore.distributional.brute_force import PolicyLaws, brute_force_laws, distinct_laws
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
from rlcore.distributional.max_cvar import CVaRCurve, cvar_curve, maximize_cvar, maximize_mean_cvar
from rlcore.distributional.max_expectile import maximize_expectile, maximize_omega
from rlcore.distributional.max_optimistic_cvar import CoinOptimum, maximize_optimistic_cvar
from rlcore.distributional.metrics import cramer, wasserstein
from rlcore.distributional.min_variance import minimize_variance
from rlcore.distributional.optimum import RiskOptimum
from rlcore.distributional.policy_law import PolicyLaw, policy_law, sample_returns
from rlcore.distributional.quantile_loss import quantile_huber_loss, quantile_levels
from rlcore.distributional.representations import Categorical, Quantiles, fitting_lattice
from rlcore.distributional.search_grid import search_grid
from rlcore.distributional.spectral_risk import SpectralSolution, maximize_spectral
from rlcore.distributional.stock import StockGrid, StockPolicy, policy_action, stock_grid
from rlcore.distributional.stock_vi import StockSolution, stock_value, stock_vi
from rlcore.distributional.stock_window import fitting_grid, return_range
from rlcore.distributional.targets import maximize_probability, maximize_value_at_risk, minimize_distance
from rlcore.distributional.td import CategoricalTable, QuantileTable, StockTD, StockTDState
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
from rlcore.environment import Environment, Step

__all__ = [
    "Bracket",
    "CVaRCurve",
    "Categorical",
    "CategoricalTable",
    "CoinOptimum",
    "Constrained",
    "Custom",
    "DistSolution",
    "Environment",
    "Lattice",
    "Law",
    "LawEvaluation",
    "NormDrive",
    "PolicyLaw",
    "PolicyLaws",
    "Power",
    "QuantileTable",
    "Quantiles",
    "Reach",
    "RiskOptimum",
    "SpectralSolution",
    "Step",
    "StockGrid",
    "StockPolicy",
    "StockSolution",
    "StockTD",
    "StockTDState",
    "TwoSlope",
    "VectorLaw",
    "VectorPolicy",
    "VectorSolution",
    "almost_surely_nonnegative",
    "bracket",
    "brute_force_laws",
    "categorical_law",
    "check_law",
    "constrained",
    "cramer",
    "cvar",
    "cvar_curve",
    "dist_pi",
    "dist_vi",
    "distinct_laws",
    "entropic",
    "essential_infimum",
    "expected_utility",
    "expectile",
    "fitting_grid",
    "fitting_lattice",
    "from_stop_loss",
    "lattice",
    "law_evaluation",
    "maximize_cvar",
    "maximize_expectile",
    "maximize_mean_cvar",
    "maximize_omega",
    "maximize_optimistic_cvar",
    "maximize_probability",
    "maximize_spectral",
    "maximize_value_at_risk",
    "mean",
    "merge",
    "minimize_distance",
    "minimize_variance",
    "norm_drive",
    "optimistic_cvar",
    "policy_action",
    "policy_law",
    "project_categorical",
    "project_quantile",
    "quantile_huber_loss",
    "quantile_law",
    "quantile_levels",
    "return_range",
    "sample_returns",
    "search_grid",
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
