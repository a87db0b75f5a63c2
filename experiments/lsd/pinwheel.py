"""Pinwheel instances: the gap between the relaxation and the exact optimum, for all delays up to 8 and 4 arms."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import blocking
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import optimal_average, relaxation
from rlcore.sweep import sweep

TITLE = "Pinwheel gaps: relaxation and exact optimum of arms that pay 1 every D rounds (a study)"
PRECISION = "float64"


@dataclasses.dataclass(frozen=True)
class Config:
    """Longest delay, and most arms."""

    longest: int = 8
    most_arms: int = 4


QUICK = Config(longest=6)

MINE, WHERE = "prototype of this project", "specification of the family, T9"
LISTED = {
    (2, 4, 4): (1, 1),
    (3, 3, 3): (1, 1),
    (2, 4, 8, 8): (1, 1),
    (2, 3, 6): (1, 7 / 8),
    (2, 3, 7): (0.97619, 7 / 8),
    (3, 4, 5, 5): (0.98333, 0.9),
}
REFERENCES = {f"V, D = {d}": Reference(value, 6e-6, MINE, WHERE) for d, (value, _) in LISTED.items()} | {
    f"optimum, D = {d}": Reference(best, 1e-9, MINE, WHERE) for d, (_, best) in LISTED.items()
}


def run(config):
    """V and the bounds of the optimum by instance: every multiset of 2 .. `most_arms` delays in 2 .. `longest`."""
    import xarray as xr

    parts = []
    for k in range(2, config.most_arms + 1):
        delays = np.array(list(itertools.combinations_with_replacement(range(2, config.longest + 1), k)), float)
        table = jnp.asarray(delays)

        def one_run(instance, table=table):
            problem = blocking(table[instance], recovery=config.longest - 1)
            best = optimal_average(problem)
            return {"value": relaxation(problem).value, "lower": best.lower, "upper": best.upper}

        data = sweep(one_run, {"instance": range(len(delays))}, batch="vmap").drop_attrs()
        names = [str(tuple(int(d) for d in row)) for row in delays]
        data = data.assign_coords(arms=("instance", [k] * len(delays)), instance=names)
        parts.append(data.assign(density=("instance", np.sum(1 / delays, axis=1))))
    return xr.concat(parts, "instance").assign_attrs(title=TITLE)


def measured(data):
    """Numbers of the listed instances, to the width of the bounds; NaN for those that the preset leaves out."""
    out = {}
    for d in LISTED:
        here = data.sel(instance=str(d)) if str(d) in data["instance"].values else None
        missing = Measured(np.nan, np.nan)
        out[f"V, D = {d}"] = missing if here is None else Measured(here["value"].item(), 1e-12)
        low, high = (np.nan, np.nan) if here is None else (here["lower"].item(), here["upper"].item())
        out[f"optimum, D = {d}"] = Measured((low + high) / 2, (high - low) / 2)
    gap = (1 - data["lower"] / data["value"]).values
    worst = int(np.argmax(gap))
    out[f"largest gap, at D = {data['instance'].values[worst]}"] = Measured(float(gap[worst]), 0.0)
    open_ = gap > 1e-9
    out["share of instances with a gap"] = Measured(float(open_.mean()), 0.0)
    out["least density with a gap"] = Measured(float(data["density"].values[open_].min()), 0.0)
    full = np.abs(data["density"].values - 1) < 1e-9
    out["instances of density 1"] = Measured(float(full.sum()), 0.0)
    out["of them without a gap"] = Measured(float((full & ~open_).sum()), 0.0)
    return out


def plot(data):
    """Left, optimum over relaxation against the density sum 1 / D; right, both, for the instances listed before."""
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, width=7.5, height=3.9)
        ratio = (data["lower"] / data["value"]).values
        for i, k in enumerate(sorted(set(data["arms"].values.tolist()))):
            here = data["arms"].values == k
            left.plot(
                data["density"].values[here], ratio[here], "os^"[i % 3], color=figures.COLOURS[i], markersize=4,
                alpha=0.6, label=f"$k = {k}$, {here.sum()} instances",
            )  # fmt: skip
        left.axvline(1, color="black", linewidth=0.8, label="density 1: all rounds filled")
        left.set(xlabel=r"density $\Sigma_i\,1 / D_i$ [plays per round]", ylabel="optimum / relaxation")
        listed = [d for d in LISTED if str(d) in data["instance"].values]
        rows = np.arange(len(listed))[::-1]
        here = data.sel(instance=[str(d) for d in listed])
        right.plot(
            here["value"], rows, "|", color=figures.COLOURS[0], markersize=14, markeredgewidth=2, label="relaxation"
        )
        right.plot(here["lower"], rows, "o", color=figures.COLOURS[1], markersize=5, label="optimum")
        right.plot([LISTED[d][0] for d in listed], rows + 0.18, "kx", markersize=5, label="prototype: relaxation")
        right.plot([LISTED[d][1] for d in listed], rows - 0.18, "k+", markersize=6, label="prototype: optimum")
        right.set_yticks(rows, [str(d) for d in listed])
        right.set(xlabel="reward per round", ylabel="delays $D$", xlim=(0.86, 1.01), ylim=(-0.6, len(listed) - 0.4))
        for axis in (left, right):
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, columnspacing=1, handletextpad=0.4)
        figure.suptitle("A study: at density 1 there is no gap if and only if a perfect schedule exists", fontsize=9)
    return figure
