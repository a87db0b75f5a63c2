"""Last-switch-dependent bandits: relaxations, planners with certificates, exact planning, learning."""

from rlcore.lsd.markov import MarkovSchedule, MarkovState, markov_schedule
from rlcore.lsd.occupation import (
    CycleProgramme,
    OccupationProgramme,
    cycle_programme,
    finite_programme,
    occupation_programme,
)
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
from rlcore.lsd.restless import RestlessBandit, as_restless, restless_bandit, restless_class, simulate_restless
from rlcore.lsd.simulate import Learner, Planner, Round, Simulation, learn, simulate

__all__ = [
    "CycleProgramme",
    "Learner",
    "MarkovSchedule",
    "MarkovState",
    "Occupancy",
    "OccupationProgramme",
    "Planner",
    "Relaxation",
    "RestlessBandit",
    "Round",
    "Simulation",
    "SwitchingBandit",
    "advance",
    "as_restless",
    "cycle_payoffs",
    "cycle_programme",
    "dual",
    "finite_programme",
    "from_delays",
    "from_tables",
    "initial_state",
    "learn",
    "markov_schedule",
    "occupancy",
    "occupation_programme",
    "payoff_class",
    "relaxation",
    "restless_bandit",
    "restless_class",
    "simulate",
    "simulate_restless",
    "transition_tables",
]
