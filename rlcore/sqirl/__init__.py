"""The effective horizon: exact analysis of how far planning on random rollouts carries, and its algorithms."""

from rlcore.sqirl.analysis import Analysis, analyze, analyze_episodic, effective_horizons
from rlcore.sqirl.greedy_return import GreedyReturn, greedy_return
from rlcore.sqirl.ladder import Values, basic_values, best_value, immediate_values, qvi_step
from rlcore.sqirl.solvability import Gaps, confusable_gaps, min_k, num_reachable, reachable, solvable
from rlcore.sqirl.ties import greedy_actions, optimal_actions

__all__ = [
    "Analysis",
    "Gaps",
    "GreedyReturn",
    "Values",
    "analyze",
    "analyze_episodic",
    "basic_values",
    "best_value",
    "confusable_gaps",
    "effective_horizons",
    "greedy_actions",
    "greedy_return",
    "immediate_values",
    "min_k",
    "num_reachable",
    "optimal_actions",
    "qvi_step",
    "reachable",
    "solvable",
]
