"""The effective horizon: exact analysis of how far planning on random rollouts carries, and its algorithms."""

from rlcore.sqirl.analysis import Analysis, analyze, analyze_episodic, effective_horizons
from rlcore.sqirl.certificate import SqirlCertificate, regression_errors, sqirl_certificate, tabular_squared_error
from rlcore.sqirl.complexity import SampleComplexity, sample_complexity
from rlcore.sqirl.covering import Covering, covering_length, exploration_occupancy
from rlcore.sqirl.epsilon_horizon import EpsilonHorizon, epsilon_gap, epsilon_horizon
from rlcore.sqirl.greedy_return import GreedyReturn, greedy_return
from rlcore.sqirl.ladder import Values, basic_values, best_value, immediate_values, qvi_step
from rlcore.sqirl.oracles import Oracle, RidgeFit, Samples, TabularMean
from rlcore.sqirl.pooled import PooledLearned, pooled_sqirl
from rlcore.sqirl.return_law import ReturnLaw, return_law
from rlcore.sqirl.rollout import Rollouts, rollouts
from rlcore.sqirl.solvability import Gaps, confusable_gaps, min_k, num_reachable, reachable, solvable
from rlcore.sqirl.sqirl import Learned, sqirl
from rlcore.sqirl.ties import greedy_actions, optimal_actions

__all__ = [
    "Analysis",
    "Covering",
    "EpsilonHorizon",
    "Gaps",
    "GreedyReturn",
    "Learned",
    "Oracle",
    "PooledLearned",
    "ReturnLaw",
    "RidgeFit",
    "Rollouts",
    "SampleComplexity",
    "Samples",
    "SqirlCertificate",
    "TabularMean",
    "Values",
    "analyze",
    "analyze_episodic",
    "basic_values",
    "best_value",
    "confusable_gaps",
    "covering_length",
    "effective_horizons",
    "epsilon_gap",
    "epsilon_horizon",
    "exploration_occupancy",
    "greedy_actions",
    "greedy_return",
    "immediate_values",
    "min_k",
    "num_reachable",
    "optimal_actions",
    "pooled_sqirl",
    "qvi_step",
    "reachable",
    "regression_errors",
    "return_law",
    "rollouts",
    "sample_complexity",
    "solvable",
    "sqirl",
    "sqirl_certificate",
    "tabular_squared_error",
]
