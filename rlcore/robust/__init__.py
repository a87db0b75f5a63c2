"""Robust reinforcement learning: worst-case operators, d-rectangular linear MDPs, R2PVI and its rivals."""

from rlcore.robust.calibration import bootstrap_radius, calibrated_levels, estimate_model
from rlcore.robust.certificates import Deployment, Verification, deployment_bound, divergence_of, lower_bound, verify
from rlcore.robust.constrained import constrained_chi2, constrained_kl, constrained_tv, cvar
from rlcore.robust.data import Features, OfflineData, Table, check_coverage, offline_data, sample_trajectories, table
from rlcore.robust.discounted import (
    DiscountedPlan,
    ExponentialIteration,
    RobustValueIteration,
    functional_dual,
    plan_discounted,
    plan_exponential,
)
from rlcore.robust.general import (
    CHI2,
    HELLINGER,
    KL,
    REVERSE_KL,
    TV,
    FDivergence,
    Wasserstein,
    constrained_wasserstein,
    cressie_read,
    regularised_f,
    regularised_wasserstein,
)
from rlcore.robust.learners import drpvi, drvi_l, pevi, r2pvi, va_drpvi, va_r2pvi
from rlcore.robust.linear_mdp import LinearMDP, kernels, linear_mdp, one_hot, rewards, to_mdp
from rlcore.robust.operators import WorstCase
from rlcore.robust.pessimism import Estimate, Rules, act
from rlcore.robust.planning import RobustValues, evaluate, levels_of_radius, nominal_values, plan
from rlcore.robust.regularised import regularised_chi2, regularised_kl, regularised_tv
from rlcore.robust.report import report
from rlcore.robust.worst_case import worst_case

__all__ = [
    "CHI2",
    "HELLINGER",
    "KL",
    "REVERSE_KL",
    "TV",
    "Deployment",
    "DiscountedPlan",
    "Estimate",
    "ExponentialIteration",
    "FDivergence",
    "Features",
    "LinearMDP",
    "OfflineData",
    "RobustValueIteration",
    "RobustValues",
    "Rules",
    "Table",
    "Verification",
    "Wasserstein",
    "WorstCase",
    "act",
    "bootstrap_radius",
    "calibrated_levels",
    "check_coverage",
    "constrained_chi2",
    "constrained_kl",
    "constrained_tv",
    "constrained_wasserstein",
    "cressie_read",
    "cvar",
    "deployment_bound",
    "divergence_of",
    "drpvi",
    "drvi_l",
    "estimate_model",
    "evaluate",
    "functional_dual",
    "kernels",
    "levels_of_radius",
    "linear_mdp",
    "lower_bound",
    "nominal_values",
    "offline_data",
    "one_hot",
    "pevi",
    "plan",
    "plan_discounted",
    "plan_exponential",
    "r2pvi",
    "regularised_chi2",
    "regularised_f",
    "regularised_kl",
    "regularised_tv",
    "regularised_wasserstein",
    "report",
    "rewards",
    "sample_trajectories",
    "table",
    "to_mdp",
    "va_drpvi",
    "va_r2pvi",
    "verify",
    "worst_case",
]
