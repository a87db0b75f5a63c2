"""Reward shaping by distance on empty rooms: what it does to gaps, windows and horizons, and to PPO and DQN."""

import dataclasses

import jax
import numpy as np

from envs import make
from experiments import figures
from experiments.reference import Measured, Reference
from experiments.sqirl.success import learner, learning_curves
from rlcore.episodic import episodic, stacked
from rlcore.sqirl import analyze_episodic

TITLE = "Rewards shaped by distance in empty rooms: horizons, and how fast PPO and DQN learn (a study)"
PRECISION = "float64"
VARIANTS = ("goal only", "shaped")
LEARNERS = ("PPO", "DQN")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of rooms; depth of the ladder; seeds and steps of the learners, evaluated every `every` steps."""

    sizes: tuple[int, ...] = (5, 6, 8, 16)
    learners: tuple[str, ...] = LEARNERS
    max_k: int = 30
    seeds: int = 3
    steps: int = 200_000
    every: int = 10_240
    seed: int = 0


QUICK = Config(sizes=(5, 6), learners=("PPO",), max_k=12, seeds=1, steps=10_240, every=5_120)

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 6"
REFERENCES = {
    "size 16, goal only: window": Reference(27, 0.0, MINE, WHERE),
    "size 16, shaped: window": Reference(1, 0.0, MINE, WHERE),
    "size 16, goal only: gap at k = 1": Reference(1.31e-13, 5e-16, MINE, WHERE),
    "size 16, shaped: gap at k = 1": Reference(0.0154, 5e-5, MINE, WHERE),
    "size 16, goal only: effective horizon": Reference(28.0, 0.05, MINE, WHERE),
    "size 16, shaped: effective horizon": Reference(11.0, 0.05, MINE, WHERE),
}


def rooms(config):
    """Problems by size and variant, one after another."""
    return [make("minigrid_empty", size=n, shaped=shaped) for n in config.sizes for shaped in (False, True)]


def run(config):
    """Analyses and first successes by size and variant."""
    import xarray as xr

    problems = rooms(config)
    shape = (len(config.sizes), len(VARIANTS))
    # Each size is a program of its own: the largest room would decide for all.
    one = jax.jit(lambda problem: analyze_episodic(problem, max_k=config.max_k))
    found = [jax.device_get(one(episodic(problem))) for problem in problems]
    column = lambda values: (("size", "variant"), np.array(values).reshape(shape))  # noqa: E731
    data = {
        name: column([getattr(x, name) for x in found])
        for name in ("window", "min_k", "k95", "effective_horizon", "horizon_exact", "optimal_return", "random_return")
    }
    data["first_gap"] = column([x.gaps_by_k[0] for x in found])
    data["horizons_by_k"] = (("size", "variant", "k"), np.stack([x.horizons_by_k for x in found]).reshape(*shape, -1))
    stack = stacked(problems)
    first, returns = [], []
    for name in config.learners:
        agent = learner(name, stack, config.steps)
        at = np.arange(1, config.steps // config.every + 1) * (config.every // agent.steps_per_iteration)
        curve = learning_curves(agent, stack, at, config.seeds, config.seed)
        share = (curve.returns - curve.random[..., None]) / (curve.optimal - curve.random)[..., None]
        first.append(np.asarray(curve.first_success).reshape(*shape, -1))
        returns.append(np.asarray(share).reshape(*shape, config.seeds, -1))
    data["first_success"] = (("learner", "size", "variant", "seed"), np.stack(first))
    data["share"] = (("learner", "size", "variant", "seed", "step"), np.stack(returns))
    return xr.Dataset(
        data,
        {
            "size": list(config.sizes),
            "variant": list(VARIANTS),
            "k": np.arange(1, config.max_k + 1),
            "learner": list(config.learners),
            "step": config.every * np.arange(1, config.steps // config.every + 1),
        },
        {"title": TITLE},
    )


def measured(data):
    """Exact numbers of the analysis; median steps to the first success (infinite: none)."""
    out = {name: Measured(np.nan, 0.0) for name in REFERENCES}
    for size in data["size"].values:
        for variant in VARIANTS:
            here = data.sel(size=size, variant=variant)
            name = f"size {size}, {variant}"
            out[f"{name}: window"] = Measured(float(here["window"]), 0.0)
            # A difference of two values of size 1: their rounding, some units in the last place of 1.
            out[f"{name}: gap at k = 1"] = Measured(float(here["first_gap"]), 1e-15)
            out[f"{name}: effective horizon"] = Measured(float(here["effective_horizon"]), 1e-6)
            for agent in data["learner"].values:
                steps = np.median(here["first_success"].sel(learner=agent))
                out[f"{name}: steps of {agent}"] = Measured(float(steps), float(data["step"][0]))
    return out


def plot(data):
    """Horizons and gaps by size; learning curves without and with shaping."""
    learners = list(data["learner"].values)
    with figures.style():
        figure, axes = figures.subplots(1, 2 + len(learners), width=3.2 * (2 + len(learners)), height=3.4)
        depth, gap = axes[:2]
        for i, variant in enumerate(VARIANTS):
            here = data.sel(variant=variant)
            style = figures.line_style(i) | {"marker": "os"[i], "markersize": 4}
            depth.plot(here["size"], here["effective_horizon"], label=f"{variant}: effective horizon", **style)
            dashed = style | {"linestyle": ":", "markerfacecolor": "white"}
            depth.plot(here["size"], here["window"], label=f"{variant}: window", **dashed)
            gap.plot(here["size"], here["first_gap"], label=variant, **style)
        known = {"goal only": (28.0, 27, 1.31e-13), "shaped": (11.0, 1, 0.0154)}
        if 16 in data["size"].values:
            for variant, (horizon, window, first) in known.items():
                depth.plot([16, 16], [horizon, window], "kx", label="specification" if variant == "shaped" else None)
                gap.plot([16], [first], "kx")
        depth.set(xlabel="size of the room [cells]", ylabel="steps of lookahead")
        depth.legend(loc="upper left", fontsize=6.5)
        gap.set(xlabel="size of the room [cells]", ylabel="gap at $k = 1$ [reward]", yscale="log")
        gap.legend(loc="lower left", fontsize=7)
        for axis, agent in zip(axes[2:], learners, strict=True):
            for j, size in enumerate(data["size"].values):
                for i, variant in enumerate(VARIANTS):
                    line = data["share"].sel(learner=agent, size=size, variant=variant).median("seed")
                    style = {"color": figures.COLOURS[j], "linestyle": ("-", ":")[1 - i]}
                    axis.plot(data["step"], line, label=f"{size}, {variant}", **style)
            axis.axhline(0.95, color="0.6", linewidth=0.8)
            axis.set(xlabel=f"steps of {agent}", ylabel="$(J - J_{rand}) / (J^* - J_{rand})$", ylim=(-1.1, 1.05))
            axis.locator_params(axis="x", nbins=5)
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower right", ncols=8, fontsize=7)
        figure.suptitle(
            "A study: a reward of 0.1 per step of distance gained, on top of 1 for the goal; "
            "curves are medians of seeds, evaluated exactly",
            fontsize=9,
        )
    return figure
