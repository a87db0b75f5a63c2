"""Last-switch-dependent bandits: relaxations, planners with certificates, exact planning, learning."""

from rlcore.lsd.block import Block, block_optimum
from rlcore.lsd.block_programme import GuidedBlock, block_programme, guided_block
from rlcore.lsd.comb_ucb import BlockUCB, calibrated_ucb1, comb_ucb1, isi_comb_ucb1
from rlcore.lsd.estimates import Estimates, isotonic, rising_upper_bound, upper_bound
from rlcore.lsd.explore_commit import ExploreCommit, etc_regret_bound, etc_sweeps, exploration_sweep
from rlcore.lsd.problem import (
    SwitchingBandit,
    advance,
    from_delays,
    from_tables,
    initial_state,
    payoff_class,
    transition_tables,
)
from rlcore.lsd.relaxation import Occupancy, Relaxation, cycle_payoffs, dual, occupancy, relaxation
from rlcore.lsd.simulate import Learner, Planner, Round, Simulation, learn, simulate
from rlcore.lsd.ucb_greedy import UCBGreedy
from rlcore.lsd.virtual_ucb import VirtualUCB, virtual_ucb_frame, virtual_ucb_regret_bound

__all__ = [
    "Block",
    "BlockUCB",
    "Estimates",
    "ExploreCommit",
    "GuidedBlock",
    "Learner",
    "Occupancy",
    "Planner",
    "Relaxation",
    "Round",
    "Simulation",
    "SwitchingBandit",
    "UCBGreedy",
    "VirtualUCB",
    "advance",
    "block_optimum",
    "block_programme",
    "calibrated_ucb1",
    "comb_ucb1",
    "cycle_payoffs",
    "dual",
    "etc_regret_bound",
    "etc_sweeps",
    "exploration_sweep",
    "from_delays",
    "from_tables",
    "guided_block",
    "initial_state",
    "isi_comb_ucb1",
    "isotonic",
    "learn",
    "occupancy",
    "payoff_class",
    "relaxation",
    "rising_upper_bound",
    "simulate",
    "transition_tables",
    "upper_bound",
    "virtual_ucb_frame",
    "virtual_ucb_regret_bound",
]
