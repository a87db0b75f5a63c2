"""Who solves what: PPO, DQN, tabular SQIRL and GORP on 29 problems, beside the effective horizon; correlations.

The form for a GPU, as long as the published runs, five seeds, the better of two settings per problem, a larger room:

    python -m experiments sqirl.success --ppo-steps 5000000 --dqn-steps 5000000 --sqirl-steps 5000000 --seeds 5 \\
        --settings 2 --larger Empty-16x16
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from envs.effective_horizon import PILOT, pilot_problems
from experiments import figures
from experiments.lanes import blockwise
from experiments.reference import Measured, Reference
from rlcore.episodic import stacked
from rlcore.mdp import StickyMDP, sticky
from rlcore.nn.dqn import DQN
from rlcore.nn.learning_curve import learning_curve
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.nn.tabular import category_sizes
from rlcore.sqirl import analyze_episodic, gorp_complexity, sample_complexity

TITLE = "PPO, DQN, SQIRL and GORP on 29 problems: who solves what, and how well horizons predict it (a study)"
PRECISION = "float64"
LEARNERS = ("PPO", "DQN", "SQIRL", "GORP")


@dataclasses.dataclass(frozen=True)
class Config:
    """Problems, and golden ones beside them; learners; seeds; steps for each; settings of PPO and DQN to choose from;
    depths of SQIRL and GORP; bootstrap's resamples; rungs."""

    problems: tuple[str, ...] = tuple(PILOT)
    larger: tuple[str, ...] = ()
    learners: tuple[str, ...] = LEARNERS
    seeds: int = 3
    ppo_steps: int = 300_000
    dqn_steps: int = 200_000
    sqirl_steps: int = 300_000
    settings: int = 1
    depths: tuple[int, ...] = (1, 2, 3)
    evaluations: int = 20
    max_k: int = 30
    resamples: int = 1000
    seed: int = 0


QUICK = Config(
    problems=("lock k=2", "lock k=3"),
    learners=("PPO", "SQIRL", "GORP"),
    seeds=1,
    ppo_steps=8192,
    sqirl_steps=100,
    depths=(1,),
    evaluations=4,
    max_k=3,
    resamples=50,
)

MINE, WHERE = "prototype of this project", "specification of the family, section 5, pilot"
PILOT_SOLVED = {"PPO": 25, "DQN": 27, "SQIRL": 21}
PILOT_RANK = {("SQIRL", "PPO"): 0.83, ("SQIRL", "DQN"): 0.83, ("PPO", "DQN"): 0.84}
PILOT_HORIZON = {"PPO": 0.60, "SQIRL": 0.85}
OTHER = "three garnets of 29 problems are other draws, and the pilot recorded neither its keys nor its cap on k"
DIGIT = 0.005  # half a unit of the last printed place; the chance of problems is in our own errors
REFERENCES = (
    {f"problems solved by {name}": Reference(n, 0.0, MINE, WHERE, noted=OTHER) for name, n in PILOT_SOLVED.items()}
    | {f"Spearman, {a} and {b}": Reference(r, DIGIT, MINE, WHERE, noted=OTHER) for (a, b), r in PILOT_RANK.items()}
    | {
        f"Spearman, effective horizon and {name}": Reference(r, DIGIT, MINE, WHERE, noted=OTHER)
        for name, r in PILOT_HORIZON.items()
    }
)


def all_sticky(problems):
    """Problems without stickiness become sticky with probability 0, so that all are of one kind."""
    return [p if isinstance(p, StickyMDP) else sticky(p, 0.0) for p in problems]


def when(last: int, count: int) -> np.ndarray:
    """At most `count` iterations to evaluate after, evenly spaced in their logarithm, the first and the last included.

    Args: last, count: at least 1. Returns: int[n], increasing.
    """
    return np.unique(np.round(np.geomspace(1, last, count)).astype(int)) if count > 1 else np.array([last])


def learner(name: str, stack, total_steps: int, setting: int = 0) -> PPO | DQN:
    """PPO or DQN with one of the specification's two settings and networks that fit a stack of problems."""
    sizes = category_sizes(stack)
    problem = stack.problem
    actions = getattr(problem, "base", problem).available.shape[-1]
    if name == "PPO":
        return PPO(ActorCritic(actions, sizes), num_steps=(128, 1280)[setting])
    network = Perceptron(actions, sizes, uniform=True)
    return DQN(network, total_steps=float(total_steps), exploration_fraction=(1.0, 0.1)[setting])


def iterations_of(agent: PPO | DQN, steps: int, count: int) -> np.ndarray:
    """The agent's iterations to evaluate after: whole units of 1024 steps where its iterations are shorter."""
    last = max(1, steps // agent.steps_per_iteration)
    unit = max(1, 1024 // agent.steps_per_iteration)
    return np.unique(np.minimum(unit * when(-(-last // unit), count), last))


def learning_curves(agent: PPO | DQN, stack, iterations: np.ndarray, seeds: int, seed: int):
    """`LearningCurve` of every problem and seed [problem, seed, ...], by one program on all cores."""
    count = stack.length.shape[0]
    keys = jnp.tile(jax.random.split(jax.random.key(seed), seeds), count)
    problems = jax.tree.map(lambda x: jnp.repeat(x, seeds, axis=0), stack)
    curves = blockwise(lambda problem, key: learning_curve(agent, problem, key, iterations), (problems, keys))()
    return jax.tree.map(lambda x: x.reshape(count, seeds, *x.shape[1:]), curves)


@jax.jit(static_argnames="max_k")
def analyses_of(stack, max_k):
    """`Analysis` of every problem of a stack."""
    # One after another: a rung costs what the problem's own steps cost, and the widest would decide for all.
    return jax.lax.map(lambda one: analyze_episodic(one, max_k=max_k), stack)


def best_setting(curves):
    """The curve by setting whose median seed succeeds first, ends highest among ties: int[problem]."""
    first = np.stack([np.median(curve.first_success, axis=1) for curve in curves])
    final = np.stack([np.median(curve.final, axis=1) for curve in curves])
    return np.lexsort((-final, first), axis=0)[0]


def open_loop(problem, key, config):
    """Steps of GORP: infinite for none within the budget, NaN where the problem is random even without stickiness."""
    base = problem.base
    single = ((np.asarray(base.prob) > 0).sum(-1) == 1).all() and (np.asarray(base.initial) > 0).sum() == 1
    if not single or not np.asarray(base.available).all():
        return np.nan
    steps, depths = config.sqirl_steps, config.depths
    if problem.horizon**2 * base.available.shape[1] ** min(depths) > steps:
        return np.inf
    return gorp_complexity(problem, key, depths=depths, seeds=config.seeds, max_steps=steps, growth=4).steps


def run(config):
    """First successes, final returns and analyses by problem."""
    import xarray as xr

    names = (*config.problems, *config.larger)
    problems = all_sticky(pilot_problems(names).values())
    stack = stacked(problems)
    curves, first, data = {}, {}, {}
    for name, steps in (("PPO", config.ppo_steps), ("DQN", config.dqn_steps)):
        if name in config.learners:
            tried = []
            for setting in range(config.settings):
                agent = learner(name, stack, steps, setting)
                at = iterations_of(agent, steps, config.evaluations)
                tried.append(learning_curves(agent, stack, at, config.seeds, config.seed))
            chosen = best_setting(tried)
            data[f"{name.lower()}_setting"] = ("problem", chosen)
            rows = [[getattr(tried[c], f)[p] for p, c in enumerate(chosen)] for f in ("first_success", "final")]
            # Returns on the way are those of the first setting: the others are evaluated at other steps.
            curves[name] = tried[0]._replace(first_success=np.stack(rows[0]), final=np.stack(rows[1]))
            first[name] = np.median(curves[name].first_success, axis=1)
    if "SQIRL" in config.learners:
        searches = [
            sample_complexity(
                jax.tree.map(lambda x, i=i: x[i], stack),
                jax.random.fold_in(jax.random.key(config.seed), i),
                depths=config.depths,
                seeds=config.seeds,
                max_steps=max(config.sqirl_steps, int(stack.length[i]) ** 2),
            )
            for i in range(len(problems))
        ]
        first["SQIRL"] = np.array([search.steps for search in searches])
        data["sqirl_depth"] = ("problem", np.array([search.depth for search in searches]))
        data["sqirl_episodes"] = ("problem", np.array([search.episodes for search in searches]))
    if "GORP" in config.learners:
        key = jax.random.key(config.seed + 1)
        first["GORP"] = np.array([open_loop(p, jax.random.fold_in(key, i), config) for i, p in enumerate(problems)])
    for name, curve in curves.items():
        low = name.lower()
        data |= {
            f"{low}_returns": (("problem", "seed", f"{low}_step"), np.asarray(curve.returns)),
            f"{low}_first": (("problem", "seed"), np.asarray(curve.first_success)),
            f"{low}_final": (("problem", "seed"), np.asarray(curve.final)),
            f"{low}_step": np.asarray(curve.steps)[0, 0],
        }
    analyses = jax.device_get(analyses_of(stack, config.max_k))
    for field in ("k95", "min_k", "solvable_k", "effective_horizon", "optimal_return", "random_return"):
        data[field] = ("problem", np.asarray(getattr(analyses, field)))
    data["target"] = data["random_return"][0], 0.05 * analyses.random_return + 0.95 * analyses.optimal_return
    learners = [name for name in LEARNERS if name in first]
    data["first_success"] = (("learner", "problem"), np.stack([first[name] for name in learners]))
    return xr.Dataset(
        data,
        {"learner": learners, "problem": list(names)},
        {"title": TITLE, "resamples": config.resamples, "max_k": config.max_k},
    )


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation with average ranks; infinities tie at the top; NaN where one side is constant."""
    from scipy.stats import rankdata

    a, b = (rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b; infinities tie; NaN where one side is constant."""
    from scipy.stats import kendalltau, rankdata

    if len(x) < 2:
        return math.nan
    return float(kendalltau(rankdata(x), rankdata(y)).statistic)


def median_log_ratio(x: np.ndarray, y: np.ndarray) -> float:
    """Median of log10(x / y) where both are finite."""
    both = np.isfinite(x) & np.isfinite(y)
    return float(np.median(np.log10(x[both] / y[both]))) if both.any() else math.nan


def balanced_accuracy(score: np.ndarray, solved: np.ndarray) -> float:
    """The best mean of both classes' accuracies of "solved where the score is at most a threshold"."""
    if solved.all() or not solved.any():
        return math.nan
    cuts = [score <= c for c in np.unique(score)]
    return max(float((np.mean(cut[solved]) + np.mean(~cut[~solved])) / 2) for cut in cuts)


def interval(statistic, columns, resamples: int, seed: int = 0) -> tuple[float, float]:
    """The statistic's 2.5 % and 97.5 % quantiles over problems drawn with replacement."""
    rng = np.random.default_rng(seed)
    size = len(columns[0])
    draws = [statistic(*(c[i] for c in columns)) for i in (rng.integers(size, size=size) for _ in range(resamples))]
    draws = np.array(draws)[~np.isnan(draws)]
    return tuple(np.quantile(draws, [0.025, 0.975])) if draws.size else (math.nan, math.nan)


def first_successes(data):
    """{learner: median steps by problem}."""
    return {str(name): data["first_success"].sel(learner=name).values for name in data["learner"].values}


def pairs(data):
    """(name, one column, the other) of the correlation table."""
    steps = first_successes(data)
    for a, b in (("SQIRL", "PPO"), ("SQIRL", "DQN"), ("PPO", "DQN")):
        if a in steps and b in steps:
            yield f"{a} and {b}", steps[a], steps[b]
    for name, column in steps.items():
        if name != "GORP":
            yield f"effective horizon and {name}", data["effective_horizon"].values, column
    if "PPO" in steps:
        yield "k95 and PPO", data["k95"].values.astype(float), steps["PPO"]


def measured(data):
    """Counts of problems; correlations, with half the width of their bootstrap intervals as errors."""
    out, steps = {}, first_successes(data)
    shallow = data["k95"].values == 1
    for name, column in steps.items():
        solved, applies = np.isfinite(column), ~np.isnan(column)
        out[f"problems solved by {name}"] = Measured(int(solved.sum()), 0.0)
        for word, group in (("k95 = 1", shallow & applies), ("k95 > 1", ~shallow & applies)):
            if group.any():
                out[f"share solved by {name}, {word}"] = Measured(float(np.mean(solved[group])), 0.0)
        accuracy = balanced_accuracy(data["effective_horizon"].values[applies], solved[applies])
        out[f"best balanced accuracy of the effective horizon for {name}"] = Measured(accuracy, 0.0)
        if name == "GORP":
            out["problems that GORP can be run on"] = Measured(int(applies.sum()), 0.0)
            for other in (n for n in steps if n != "GORP"):
                out[f"of these solved by {other}"] = Measured(int(np.isfinite(steps[other][applies]).sum()), 0.0)
        elif name != "SQIRL":
            low = name.lower()
            lost = np.isfinite(data[f"{low}_first"]) & (data[f"{low}_final"] < data["target"])
            out[f"runs of {name} that succeed and end below the target"] = Measured(int(lost.sum()), 0.0)
            if "SQIRL" in steps and solved.any():
                share = (solved & np.isfinite(steps["SQIRL"])).sum() / solved.sum()
                out[f"share that SQIRL solves of those {name} solves"] = Measured(float(share), 0.0)
    for name, x, y in pairs(data):
        low, high = interval(spearman, (x, y), data.attrs["resamples"])
        out[f"Spearman, {name}"] = Measured(spearman(x, y), (high - low) / 2)
        out[f"Kendall tau-b, {name}"] = Measured(kendall(x, y), 0.0)
        if not name.startswith(("effective horizon", "k95")):
            out[f"median log10 ratio, {name}"] = Measured(median_log_ratio(x, y), 0.0)
    if tuple(data["problem"].values) != tuple(PILOT):
        # Other problems than the pilot's are not compared with it.
        out |= {name: Measured(np.nan, 0.0) for name in REFERENCES}
    return out


def plot(data):
    """First success of each learner by problem; SQIRL against PPO and DQN; effective horizon against PPO."""
    problems = list(data["problem"].values)
    place = np.arange(len(problems))
    steps = first_successes(data)
    finite = np.concatenate([x[np.isfinite(x)] for x in steps.values()])
    never = 3 * finite.max() if finite.size else 1.0
    shown = {name: np.where(np.isposinf(x), never, x) for name, x in steps.items()}
    with figures.style():
        figure, axes = figures.subplots(1, 3, width=9.8, height=1.6 + 0.19 * len(problems))
        by_problem, against, horizon = axes
        for i, name in enumerate(steps):
            style = {"color": figures.COLOURS[i], "markersize": 4}
            by_problem.plot(shown[name], place + 0.2 * (i - 1), "osD^"[i], label=name, **style)
        by_problem.axvline(never, color="0.6", linewidth=0.8)
        by_problem.set(xscale="log", xlabel="first success [steps]; line: never")
        by_problem.set_yticks(place, problems)
        by_problem.invert_yaxis()
        shallow = data["k95"].values == 1
        for i, name in enumerate(name for name in steps if name in ("PPO", "DQN")):
            for group, face in ((shallow, figures.COLOURS[i]), (~shallow, "white")):
                style = {"color": figures.COLOURS[i], "markerfacecolor": face, "markersize": 5}
                against.plot(shown[name][group], shown["SQIRL"][group], "os"[i], linestyle="none", **style)
        against.plot([], [], "o", color="0.4", markerfacecolor="white", linestyle="none", label="hollow: $k_{95} > 1$")
        low = min(finite.min(), 1e2) if finite.size else 1.0
        against.plot([low, never], [low, never], color="0.7", linewidth=0.8)
        against.set(xscale="log", yscale="log", xlabel="first success of PPO or DQN [steps]")
        against.set(ylabel="first success of SQIRL [steps]")
        against.legend(loc="lower right", fontsize=7, frameon=True)
        for i, name in enumerate(steps):
            style = {"color": figures.COLOURS[i], "markersize": 4}
            horizon.plot(data["effective_horizon"], shown[name], "osD^"[i], linestyle="none", label=name, **style)
        horizon.set(yscale="log", xlabel="effective horizon [steps of lookahead]", ylabel="first success [steps]")
        figure.legend(*horizon.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(
            "A study: 95 % of the way from random to optimal return, by exact evaluation, in the median seed; all but "
            "slippery ice sticky (1/4)",
            fontsize=9,
        )
    return figure
