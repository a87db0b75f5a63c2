"""Last-switch-dependent bandits: relaxations, planners with certificates, exact planning, learning."""

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

__all__ = [
    "Learner",
    "Occupancy",
    "Planner",
    "Relaxation",
    "Round",
    "Simulation",
    "SwitchingBandit",
    "advance",
    "cycle_payoffs",
    "dual",
    "from_delays",
    "from_tables",
    "initial_state",
    "learn",
    "occupancy",
    "payoff_class",
    "relaxation",
    "simulate",
    "transition_tables",
]
