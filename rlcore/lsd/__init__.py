"""Last-switch-dependent bandits: relaxations, planners with certificates, exact planning, learning."""

from rlcore.lsd.baselines import (
    BestFixedArm,
    Greedy,
    RoundRobin,
    best_calendar,
    calibrated_calendar,
    purely_periodic,
)
from rlcore.lsd.block import (
    block_optimum,
)
from rlcore.lsd.comb_ucb import (
    calibrated_ucb1,
    comb_ucb1,
    isi_comb_ucb1,
)
from rlcore.lsd.coupled import (
    Coupled,
    coupled,
)
from rlcore.lsd.exact import (
    optimal_average,
    optimal_finite,
    optimal_restless,
    policy_cycle,
)
from rlcore.lsd.explore_commit import (
    ExploreCommit,
    etc_regret_bound,
    etc_sweeps,
)
from rlcore.lsd.guarantee import (
    alpha,
    minorant,
    poisson_alpha,
    virtual_value,
)
from rlcore.lsd.indices import (
    AdvantageIndex,
    WhittlePolicy,
    dual_price,
    indexable,
    whittle_index,
)
from rlcore.lsd.interleaved import (
    Interleaved,
    delay_relaxation,
    interleaved,
)
from rlcore.lsd.joint import (
    joint_policy,
)
from rlcore.lsd.markov import (
    MarkovSchedule,
    markov_schedule,
)
from rlcore.lsd.mirrored import (
    simulate_restless,
)
from rlcore.lsd.occupation import (
    cycle_programme,
    finite_programme,
    occupation_programme,
)
from rlcore.lsd.planner import (
    Certificate,
    best_of,
    candidates,
    certify,
    plan,
    replicate,
)
from rlcore.lsd.problem import (
    SwitchingBandit,
    advance,
    from_delays,
    from_tables,
    initial_state,
    payoff_class,
)
from rlcore.lsd.random_phase import (
    RandomPhase,
    random_phase,
    undominated,
)
from rlcore.lsd.relaxation import (
    Occupancy,
    Relaxation,
    dual,
    occupancy,
    relaxation,
)
from rlcore.lsd.restless import (
    RestlessBandit,
    as_restless,
    restless_bandit,
)
from rlcore.lsd.simulate import (
    Learner,
    Planner,
    Round,
    Simulation,
    learn,
    simulate,
)
from rlcore.lsd.stretched import (
    Stretched,
    stretched,
)
from rlcore.lsd.ucb_greedy import (
    UCBGreedy,
)
from rlcore.lsd.virtual_ucb import (
    VirtualUCB,
    virtual_ucb_regret_bound,
)

__all__ = [
    "AdvantageIndex",
    "BestFixedArm",
    "Certificate",
    "Coupled",
    "ExploreCommit",
    "Greedy",
    "Interleaved",
    "Learner",
    "MarkovSchedule",
    "Occupancy",
    "Planner",
    "RandomPhase",
    "Relaxation",
    "RestlessBandit",
    "Round",
    "RoundRobin",
    "Simulation",
    "Stretched",
    "SwitchingBandit",
    "UCBGreedy",
    "VirtualUCB",
    "WhittlePolicy",
    "advance",
    "alpha",
    "as_restless",
    "best_calendar",
    "best_of",
    "block_optimum",
    "calibrated_calendar",
    "calibrated_ucb1",
    "candidates",
    "certify",
    "comb_ucb1",
    "coupled",
    "cycle_programme",
    "delay_relaxation",
    "dual",
    "dual_price",
    "etc_regret_bound",
    "etc_sweeps",
    "finite_programme",
    "from_delays",
    "from_tables",
    "indexable",
    "initial_state",
    "interleaved",
    "isi_comb_ucb1",
    "joint_policy",
    "learn",
    "markov_schedule",
    "minorant",
    "occupancy",
    "occupation_programme",
    "optimal_average",
    "optimal_finite",
    "optimal_restless",
    "payoff_class",
    "plan",
    "poisson_alpha",
    "policy_cycle",
    "purely_periodic",
    "random_phase",
    "relaxation",
    "replicate",
    "restless_bandit",
    "simulate",
    "simulate_restless",
    "stretched",
    "undominated",
    "virtual_ucb_regret_bound",
    "virtual_value",
    "whittle_index",
]
