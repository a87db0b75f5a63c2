"""The two experiments of the LSD paper's released code: payoff curves, and the cumulative reward of every method."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import laforgue_main, laforgue_supplement
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import (
    Greedy,
    RandomPhase,
    block_optimum,
    calibrated_ucb1,
    comb_ucb1,
    isi_comb_ucb1,
    joint_policy,
    learn,
    optimal_average,
    relaxation,
    simulate,
)
from rlcore.lsd.baselines import Calendar
from rlcore.sweep import sweep

TITLE = "Laforgue et al.: cumulative reward in their two experiments, beside the totals stored with their code"
PRECISION = "float64"
PLANNERS = ("optimal", "random phases", "greedy")
UNFILLED = ("random phases, unfilled",)  # rounds that nobody asks for are left empty, as in the prototype
LEARNERS = ("ISI-CombUCB1", "CombUCB1", "CS-best", "CS-worst")
HORIZONS = {"main": 3600, "supplement": 3300}
# Rounds between two points of a curve; both horizons are multiples.
STRIDE = 60
BLOCKS = {"main": (4, 3), "supplement": (11, 10)}  # of ISI, and of the others
LENGTHS = {"main": (3, 4), "supplement": (11,)}  # of the blocks planned with known payoffs


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs per method; without `everything` the calibrated learners and the unfilled schedule are left out."""

    num_seeds: int = 400
    everything: bool = True


QUICK = Config(num_seeds=20, everything=False)

CODE, MINE = "released code run", "prototype of this project"
RELEASED = {
    "main": {"ISI-CombUCB1": 1064, "CombUCB1": 588, "greedy": 542, "CS-worst": 464, "CS-best": 757},
    "supplement": {"ISI-CombUCB1": 1253, "CombUCB1": 1374, "greedy": 183},
}
# Standard deviation of one run's total reward, as measured here: spread of the mean payoffs and of Bernoulli rewards.
RUN_SD = {
    "main": {"ISI-CombUCB1": 19, "CombUCB1": 155, "greedy": 22, "CS-worst": 20, "CS-best": 19},
    "supplement": {"ISI-CombUCB1": 16, "CombUCB1": 16, "greedy": 14},
}
# Of the supplement's learners: their planner falls short of the best block, ours does not.
PLANNER = "docs/decisions.md, experiments of switching bandits: exact blocks"


def _references():
    out = {
        f"total, {name}, {which}": Reference(
            total,
            2 * RUN_SD[which][name],
            CODE,
            "stored result file, one run",
            explained=PLANNER if which == "supplement" and name in LEARNERS else None,
        )
        for which, row in RELEASED.items()
        for name, total in row.items()
    }
    for which, number, value, error in (
        ("main", "optimum per round", 4.56 / 9, 1e-9),
        ("main", "relaxation per round", 4.56 / 9, 1e-9),
        ("main", "greedy with known payoffs, total", 548.4, 3.0),
        ("main", "random phases, unfilled, per round", 0.404, 0.005),
        ("main", "repeating the best ISI block of 4, per round", 0.3125, 1e-9),
        ("main", "repeating the best ISI block of 3, per round", 0.15, 1e-9),
        ("supplement", "optimum per round", 0.5, 1e-9),
        ("supplement", "relaxation per round", 0.5, 1e-9),
        ("supplement", "greedy with known payoffs, total", 198.0, 1.5),
        ("supplement", "random phases, unfilled, per round", 0.487, 0.005),
        ("supplement", "repeating the best ISI block of 11, per round", 0.46, 1e-9),
    ):
        out[f"{number}, {which}"] = Reference(value, error, MINE, "specification of the family, section 5")
    return out


REFERENCES = _references()


def problem_of(which):
    """The instance by name."""
    return laforgue_main() if which == "main" else laforgue_supplement()


def _facts(problem, lengths):
    """With known payoffs: bounds and policy of the optimum, the relaxation, and what the best blocks earn on repeat."""
    best, plan = optimal_average(problem), relaxation(problem)

    def repeated(length):
        arms = block_optimum(problem, length).arms
        actions = arms[:, None] == jnp.arange(problem.num_arms, dtype=arms.dtype)[None, :]
        # Two passes reach the cycle: no payoff here depends on more than the delay.
        paid = simulate(problem, Calendar(actions, jnp.zeros(())), 4 * length, jax.random.key(0)).trace
        return jnp.mean(paid[3 * length :])

    # The plan itself does not count first pulls.
    return best, plan, jnp.stack([repeated(length) for length in lengths])


def _players(problem, which, names, best, plan):
    """{name: (planner or learner, the problem it plays, the loop that runs it)}."""
    own, others = BLOCKS[which]
    k = problem.num_arms
    makers = {
        "optimal": lambda: joint_policy(problem, best.policy),
        "random phases": lambda: RandomPhase(plan),
        "random phases, unfilled": lambda: RandomPhase(plan),
        "greedy": Greedy,
        "ISI-CombUCB1": lambda: isi_comb_ucb1(own),
        "CombUCB1": lambda: comb_ucb1(others),
        "CS-worst": lambda: calibrated_ucb1(others, k, "rising"),
        "CS-best": lambda: calibrated_ucb1(others, k, "falling"),
    }
    may_idle = dataclasses.replace(problem, allow_idle=True)
    return {
        name: (makers[name](), may_idle if name in UNFILLED else problem, learn if name in LEARNERS else simulate)
        for name in names
    }


def run(config):
    """Cumulative mean payoff by seed, method and round; optimum, relaxation and best blocks with known payoffs."""
    import xarray as xr

    out = []
    for which, horizon in HORIZONS.items():
        problem, lengths = problem_of(which), LENGTHS[which]
        best, plan, blocks = jax.jit(_facts, static_argnames="lengths")(problem, lengths)
        learners = LEARNERS if which == "main" and config.everything else LEARNERS[:2]
        methods = PLANNERS + learners + (UNFILLED if config.everything else ())
        players = _players(problem, which, methods, best, plan)

        def one_run(seed, method, horizon=horizon, players=players):
            player, played, loop = players[method]
            paid = loop(played, player, horizon, jax.random.key(seed)).trace
            return {"reward": jnp.cumsum(jnp.sum(paid.reshape(-1, STRIDE), axis=1))}

        points = STRIDE * np.arange(1, horizon // STRIDE + 1)
        data = sweep(
            one_run, {"seed": range(config.num_seeds)}, static={"method": methods},
            dims={"reward": (f"round_{which}",)}, coords={f"round_{which}": points}, batch="vmap",
        )  # fmt: skip
        data = data.rename({"method": f"method_{which}", "reward": f"reward_{which}"}).drop_attrs()
        data[f"optimum_{which}"] = ((), float(best.lower + best.upper) / 2)
        data[f"relaxation_{which}"] = ((), float(plan.value))
        data[f"block_{which}"] = ((f"length_{which}",), np.asarray(blocks))
        out.append(data.assign_coords({f"length_{which}": list(lengths)}))
    return xr.merge(out).assign_attrs(title=TITLE)


def measured(data):
    """Mean totals with two standard errors; NaN for what the preset leaves out."""
    out = {}
    for which, horizon in HORIZONS.items():
        ours = {}
        for name in (*PLANNERS, *UNFILLED, *LEARNERS):
            if name in data[f"method_{which}"].values:
                totals = data[f"reward_{which}"].sel({f"method_{which}": name}).isel({f"round_{which}": -1})
                error = 2 * totals.std(ddof=1).item() / np.sqrt(totals.size)
                ours[name] = Measured(totals.mean().item(), error)
            else:
                ours[name] = Measured(np.nan, np.nan)
        for name in (*RELEASED[which], "optimal"):
            out[f"total, {name}, {which}"] = ours[name]
        out[f"greedy with known payoffs, total, {which}"] = ours["greedy"]
        for name in ("random phases", *UNFILLED):
            out[f"{name}, per round, {which}"] = Measured(ours[name].value / horizon, ours[name].error / horizon)
        out[f"optimum per round, {which}"] = Measured(data[f"optimum_{which}"].item(), 1e-9)
        out[f"relaxation per round, {which}"] = Measured(data[f"relaxation_{which}"].item(), 1e-9)
        for n, value in zip(data[f"length_{which}"].values, data[f"block_{which}"].values, strict=True):
            out[f"repeating the best ISI block of {n}, per round, {which}"] = Measured(float(value), 1e-12)
    return out


def plot(data):
    """A row per experiment: left, payoff by delay; right, cumulative reward, crosses for the stored totals."""
    with figures.style():
        figure, axes = figures.subplots(2, 2, width=8.5, height=3.0)
        for row, which in enumerate(HORIZONS):
            left, right = axes[2 * row], axes[2 * row + 1]
            payoffs = np.asarray(problem_of(which).payoffs)
            groups = {}
            for arm, values in enumerate(payoffs):
                groups.setdefault(values.tobytes(), []).append(arm)
            for i, arms in enumerate(groups.values()):
                label = f"arm{'s' if len(arms) > 1 else ''} {', '.join(map(str, arms))}"
                delays = np.arange(1, payoffs.shape[1] + 1)
                left.plot(delays, payoffs[arms[0]], marker=".", label=label, **figures.line_style(i))
            left.set(xlabel="delay since the last play [rounds]", ylabel="mean payoff", title=f"{which}: payoffs")
            left.set_ylim(-0.05, 1.05)
            left.legend(loc="center right", bbox_to_anchor=(0.76, 0.62) if which == "main" else None)
            reward = data[f"reward_{which}"]
            rounds = data[f"round_{which}"].values
            for i, name in enumerate((*PLANNERS, *LEARNERS)):
                if name not in data[f"method_{which}"].values:
                    continue
                style = figures.line_style(i)
                here = reward.sel({f"method_{which}": name})
                right.plot(rounds, here.mean("seed"), label=name, **style)
                if name in RELEASED[which]:
                    total, sd = RELEASED[which][name], RUN_SD[which][name]
                    right.errorbar(
                        rounds[-1] * 1.02, total, 2 * sd, fmt="x", color=style["color"], markersize=6, capsize=2
                    )
            right.plot([], [], "kx", label="stored total (one run)")
            right.set(xlabel="round", ylabel="cumulative reward", title=f"{which}: means of {data.sizes['seed']} runs")
            right.legend(fontsize=7, loc="upper left")
        figure.suptitle("Rewards of known-payoff planners and of block learners; bars: two deviations of one run")
    return figure
