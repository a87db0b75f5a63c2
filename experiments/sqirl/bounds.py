"""Bounds on steps to learn beside what PPO and DQN took: exact and bounded effective horizons, covering, windows."""

import dataclasses
import math

import jax
import numpy as np

from envs.effective_horizon import golden_problems
from experiments import figures
from experiments.reference import Measured, Reference
from experiments.sqirl.success import (
    balanced_accuracy,
    interval,
    iterations_of,
    kendall,
    learner,
    learning_curves,
    spearman,
)
from rlcore.episodic import episodic, stacked
from rlcore.sqirl import analyze, covering_length, gorp_horizon, optimistic_median, simple_bound

TITLE = "Bounds on the steps to learn deterministic problems, beside PPO and DQN (a study)"
PRECISION = "float64"
BOUNDS = {
    "worst case": "$A^T$",
    "covering": "covering, $T L$",
    "window": "window, $T^2 A^W$",
    "sound": "sound bound, $T^2 A^H$",
    "released": "released formula, $T^2 A^H$",
    "exact": "exact, $T^2 A^H$",
    "optimistic": "optimistic, run",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Deterministic golden problems; those with few sequences, for the exact horizon; its largest m; learners."""

    problems: tuple[str, ...] = (
        "lock k=2",
        "lock k=3",
        "lock k=4",
        "lock k=6",
        "corridor-5 T10",
        "corridor-10 T20",
        "corridor-10 T40",
        "deepsea-5",
        "deepsea-10",
        "frozen4-det",
        "frozen8-det",
        "fourrooms",
        "crossing9",
        "lavagap5",
        "cliff-0",
        "Empty-5x5",
        "Empty-6x6",
        "Empty-8x8",
        "KeyCorridorS3R1",
    )
    exact: tuple[str, ...] = (
        "lock k=2",
        "lock k=3",
        "lock k=4",
        "lock k=6",
        "corridor-5 T10",
        "deepsea-5",
        "frozen4-det",
        "lavagap5",
        "KeyCorridorS3R1",
    )
    max_m: int = 64
    learners: tuple[str, ...] = ("PPO", "DQN")
    seeds: int = 3
    ppo_steps: int = 300_000
    dqn_steps: int = 200_000
    evaluations: int = 20
    resamples: int = 1000
    seed: int = 0


QUICK = Config(
    problems=("lock k=2",),
    learners=("PPO",),
    max_m=8,
    seeds=1,
    ppo_steps=8192,
    evaluations=4,
    resamples=50,
)

MINE, WHERE = "prototype of this project", "specification of the family, 3.7"
REFERENCES = {
    "KeyCorridorS3R1: exact horizon": Reference(3.183, 5e-4, MINE, WHERE),
    "KeyCorridorS3R1: released formula's horizon": Reference(
        16.0, 0.05, "released code run", "specification of the family, T12"
    ),
}


def columns(name, mdp, config):
    """log10 of every bound of one problem, and the horizons behind them."""
    steps, actions = mdp.horizon, mdp.available.shape[1]
    analysis = analyze(mdp, max_k=min(30, steps))
    sound, released = (simple_bound(mdp, mode).horizon for mode in ("sound", "official"))
    exact = gorp_horizon(mdp, max_m=config.max_m) if name in config.exact else None
    followed, complete = (exact.horizon, exact.complete) if exact else (math.nan, False)
    by_horizon = lambda h: 2 * math.log10(steps) + h * math.log10(actions)  # noqa: E731
    key = jax.random.fold_in(jax.random.key(config.seed), len(name))
    tried = optimistic_median(mdp, key, runs=25, max_steps=10_000_000)
    return {
        "worst case": steps * math.log10(actions),
        "covering": math.log10(float(covering_length(episodic(mdp)).steps)),
        "window": by_horizon(int(analysis.window)),
        "sound": by_horizon(sound),
        "released": by_horizon(released),
        "exact": by_horizon(followed),
        "optimistic": math.log10(tried),
    }, {"sound": sound, "released": released, "exact": followed, "complete": complete}


def run(config):
    """Bounds by problem, and median first successes."""
    import xarray as xr

    problems = golden_problems(config.problems)
    found = {name: columns(name, mdp, config) for name, mdp in problems.items()}
    stack = stacked(list(problems.values()))
    budget, first = {"PPO": config.ppo_steps, "DQN": config.dqn_steps}, []
    for name in config.learners:
        agent = learner(name, stack, budget[name])
        at = iterations_of(agent, budget[name], config.evaluations)
        curves = learning_curves(agent, stack, at, config.seeds, config.seed)
        first.append(np.median(curves.first_success, axis=1))
    return xr.Dataset(
        {
            "log_bound": (("bound", "problem"), np.array([[found[n][0][b] for n in problems] for b in BOUNDS])),
            "first_success": (("learner", "problem"), np.stack(first)),
        }
        | {
            f"{name}_horizon": ("problem", np.array([found[n][1][name] for n in problems]))
            for name in ("sound", "released", "exact")
        }
        | {"complete": ("problem", np.array([found[n][1]["complete"] for n in problems]))},
        {"bound": list(BOUNDS), "problem": list(problems), "learner": list(config.learners)},
        {"title": TITLE, "resamples": config.resamples, "max_m": config.max_m},
    )


def measured(data):
    """Horizons of the specification; for each bound and learner four measures of how well it predicts."""
    out = {name: Measured(np.nan, 0.0) for name in REFERENCES}
    if "KeyCorridorS3R1" in data["problem"].values:
        here = data.sel(problem="KeyCorridorS3R1")
        out["KeyCorridorS3R1: exact horizon"] = Measured(float(here["exact_horizon"]), 1e-9)
        out["KeyCorridorS3R1: released formula's horizon"] = Measured(float(here["released_horizon"]), 1e-9)
    out["problems whose exact horizon is known"] = Measured(int(data["complete"].sum()), 0.0)
    for name in data["learner"].values:
        every = data["first_success"].sel(learner=name).values
        for bound in data["bound"].values:
            log = data["log_bound"].sel(bound=bound).values
            here = ~np.isnan(log)
            log, steps = log[here], every[here]
            low, high = interval(spearman, (log, steps), data.attrs["resamples"])
            out[f"{name}, {bound}: Spearman"] = Measured(spearman(log, steps), (high - low) / 2)
            out[f"{name}, {bound}: Kendall tau-b"] = Measured(kendall(log, steps), 0.0)
            off = np.where(np.isfinite(steps), log - np.log10(steps), np.nan)
            ratio = float(np.nanmedian(off)) if np.isfinite(off).any() else math.nan
            out[f"{name}, {bound}: median log10 of bound over steps"] = Measured(ratio, 0.0)
            accuracy = balanced_accuracy(log, np.isfinite(steps))
            out[f"{name}, {bound}: best balanced accuracy"] = Measured(accuracy, 0.0)
    return out


def plot(data):
    """Each bound against the steps that the learners took; infinities at the right."""
    learners = list(data["learner"].values)
    steps = {name: data["first_success"].sel(learner=name).values for name in learners}
    finite = np.concatenate([x[np.isfinite(x)] for x in steps.values()])
    never = 3 * finite.max() if finite.size else 1.0
    with figures.style():
        figure, axes = figures.subplots(2, 4, width=9.8, height=2.5)
        for axis, bound in zip(axes, data["bound"].values, strict=False):
            log = data["log_bound"].sel(bound=bound).values
            whole = data["complete"].values | (bound != "exact")
            for i, name in enumerate(learners):
                shown = np.where(np.isfinite(steps[name]), steps[name], never)
                for group, face in ((whole, figures.COLOURS[i]), (~whole, "white")):
                    style = {"color": figures.COLOURS[i], "markerfacecolor": face, "markersize": 4}
                    label = name if group is whole else None
                    axis.plot(shown[group], log[group], "os"[i], linestyle="none", label=label, **style)
            axis.axvline(never, color="0.7", linewidth=0.8)
            low = finite.min() if finite.size else 1.0
            axis.plot([low, never], np.log10([low, never]), color="0.6", linewidth=0.8)
            axis.set(xscale="log", xlabel="first success [steps]", ylabel="$\\log_{10}$ steps", title=BOUNDS[bound])
        axes[0].legend(loc="upper left", fontsize=7)
        axes[-1].set_visible(False)
        figure.suptitle(
            "A study: bounds against steps that learners took (right line: never); the grey line is equality; hollow: "
            f"no m up to {data.attrs['max_m']} settles the exact horizon",
            fontsize=9,
        )
    return figure
