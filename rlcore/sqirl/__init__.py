"""The effective horizon: exact analysis of how far planning on random rollouts carries, and its algorithms."""

from rlcore.sqirl.analysis import Analysis, analyze, analyze_episodic, effective_horizons
from rlcore.sqirl.certificate import SqirlCertificate, regression_errors, sqirl_certificate, tabular_squared_error
from rlcore.sqirl.complexity import SampleComplexity, gorp_complexity, sample_complexity
from rlcore.sqirl.covering import Covering, covering_length, exploration_occupancy
from rlcore.sqirl.deep import DeepLearned, DeepSqirl, deep_sqirl
from rlcore.sqirl.epsilon_horizon import EpsilonHorizon, epsilon_gap, epsilon_horizon
from rlcore.sqirl.estimated_k95 import K95Estimate, estimate_k95
from rlcore.sqirl.gorp import GorpPlan, gorp, open_loop_return
from rlcore.sqirl.gorp_failure import GorpHorizon, SuccessCurve, gorp_failure, gorp_horizon, h_exact
from rlcore.sqirl.greedy_return import GreedyReturn, greedy_return
from rlcore.sqirl.ladder import Values, basic_values, best_value, immediate_values, qvi_step
from rlcore.sqirl.optimistic import optimistic_median, optimistic_steps
from rlcore.sqirl.oracles import Oracle, PerceptronFit, RidgeFit, Samples, TabularMean
from rlcore.sqirl.pooled import PooledLearned, pooled_sqirl
from rlcore.sqirl.released_bounds import released_failure, released_horizon, released_search
from rlcore.sqirl.return_law import ReturnLaw, return_law
from rlcore.sqirl.rollout import Rollouts, rollouts
from rlcore.sqirl.simple_bound import SimpleBound, simple_bound
from rlcore.sqirl.solvability import Gaps, confusable_gaps, min_k, num_reachable, reachable, solvable
from rlcore.sqirl.sqirl import Learned, sqirl
from rlcore.sqirl.ties import greedy_actions, optimal_actions

__all__ = [
    "Analysis",
    "Covering",
    "DeepLearned",
    "DeepSqirl",
    "EpsilonHorizon",
    "Gaps",
    "GorpHorizon",
    "GorpPlan",
    "GreedyReturn",
    "K95Estimate",
    "Learned",
    "Oracle",
    "PerceptronFit",
    "PooledLearned",
    "ReturnLaw",
    "RidgeFit",
    "Rollouts",
    "SampleComplexity",
    "Samples",
    "SimpleBound",
    "SqirlCertificate",
    "SuccessCurve",
    "TabularMean",
    "Values",
    "analyze",
    "analyze_episodic",
    "basic_values",
    "best_value",
    "confusable_gaps",
    "covering_length",
    "deep_sqirl",
    "effective_horizons",
    "epsilon_gap",
    "epsilon_horizon",
    "estimate_k95",
    "exploration_occupancy",
    "gorp",
    "gorp_complexity",
    "gorp_failure",
    "gorp_horizon",
    "greedy_actions",
    "greedy_return",
    "h_exact",
    "immediate_values",
    "min_k",
    "num_reachable",
    "open_loop_return",
    "optimal_actions",
    "optimistic_median",
    "optimistic_steps",
    "pooled_sqirl",
    "qvi_step",
    "reachable",
    "regression_errors",
    "released_failure",
    "released_horizon",
    "released_search",
    "return_law",
    "rollouts",
    "sample_complexity",
    "simple_bound",
    "solvable",
    "sqirl",
    "sqirl_certificate",
    "tabular_squared_error",
]
