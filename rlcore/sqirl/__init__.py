"""The effective horizon: exact analysis of how far planning on random rollouts carries, and its algorithms."""

from rlcore.sqirl.analysis import Analysis, analyze, analyze_episodic, effective_horizons
from rlcore.sqirl.covering import Covering, covering_length, exploration_occupancy
from rlcore.sqirl.epsilon_horizon import EpsilonHorizon, epsilon_gap, epsilon_horizon
from rlcore.sqirl.gorp import GorpPlan, gorp, open_loop_return
from rlcore.sqirl.gorp_failure import GorpHorizon, SuccessCurve, gorp_failure, gorp_horizon, h_exact
from rlcore.sqirl.greedy_return import GreedyReturn, greedy_return
from rlcore.sqirl.ladder import Values, basic_values, best_value, immediate_values, qvi_step
from rlcore.sqirl.optimistic import optimistic_median, optimistic_steps
from rlcore.sqirl.released_bounds import released_failure, released_horizon, released_search
from rlcore.sqirl.return_law import ReturnLaw, return_law
from rlcore.sqirl.simple_bound import SimpleBound, simple_bound
from rlcore.sqirl.solvability import Gaps, confusable_gaps, min_k, num_reachable, reachable, solvable
from rlcore.sqirl.ties import greedy_actions, optimal_actions

__all__ = [
    "Analysis",
    "Covering",
    "EpsilonHorizon",
    "Gaps",
    "GorpHorizon",
    "GorpPlan",
    "GreedyReturn",
    "ReturnLaw",
    "SimpleBound",
    "SuccessCurve",
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
    "gorp",
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
    "qvi_step",
    "reachable",
    "released_failure",
    "released_horizon",
    "released_search",
    "return_law",
    "simple_bound",
    "solvable",
]
