"""KL to the equilibrium against steps: Nash-MD, OMD and EGPO on random games, beside what is proved about each."""

import dataclasses

import jax
import numpy as np

from envs.preferences import random_game
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.nash import EGPO, OMD, NashMD, egpo_step_size, equilibrium, kl, omd_step_size
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "Nash-MD, OMD, EGPO: KL to the equilibrium against steps and theory lines (a study)"
PRECISION = "float64"
ALGORITHMS = ("Nash-MD", "OMD", "EGPO")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; temperatures in units of probability per nat."""

    num_games: int = 100
    num_actions: int = 10
    temperatures: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    num_steps: int = 10_000
    num_rows: int = 60


QUICK = Config(num_games=30, num_steps=3_000, num_rows=40)

SLOPE = "slope of log KL against log T, Nash-MD"
REFERENCES = {
    SLOPE: Reference(-2.00, 0.05, "prototype of this project", "specification of the family, T3(a), 50 random games"),
}


def make_solver(algorithm, game):
    """The algorithm at the step for which its rate is proved."""
    if algorithm == "Nash-MD":
        return NashMD()
    return OMD(omd_step_size(game)) if algorithm == "OMD" else EGPO(egpo_step_size(game))


def run(config):
    """KL(pi*||pi_T) over game, temperature, algorithm and (log-spaced) step."""
    steps = np.unique(np.geomspace(1, config.num_steps, config.num_rows).round().astype(int))

    def one_run(game, temperature, algorithm):
        problem, start = random_game(jax.random.key(game), config.num_actions, temperature=temperature)
        star = equilibrium(*problem)
        solver = make_solver(algorithm, problem)
        observe = lambda problem, state: kl(star.value, state.log_policy)  # noqa: E731
        _, trace = iterate(solver, problem, config.num_steps, state=solver.start(start), observe=observe, every=steps)
        # Two policies that agree within `bound` in span have KL at most bound^2 / 8: nothing below is resolved.
        return {"kl": trace, "kl_start": kl(star.value, start), "floor": star.bound**2 / 8}

    grid = {"game": range(config.num_games), "temperature": config.temperatures}
    data = sweep(
        one_run, grid, static={"algorithm": ALGORITHMS}, dims={"kl": ("step",)}, coords={"step": steps}, batch="vmap"
    )
    return data.assign_attrs(title=TITLE)


def slopes(data):
    """Per game and temperature, the slope of log KL against log T of Nash-MD over T >= 100 and KL > 1e-12."""
    divergence = data["kl"].sel(algorithm="Nash-MD")
    found = []
    for temperature in data["temperature"].values:
        for row in divergence.sel(temperature=temperature).transpose("game", "step").values:
            keep = (data["step"].values >= 100) & (row > 1e-12)
            if keep.sum() >= 5:
                found.append(np.polyfit(np.log(data["step"].values[keep]), np.log(row[keep]), 1)[0])
    return np.array(found)


def measured(data):
    """Our numbers, with the standard error of a median (1.25 sd / sqrt n) or the range."""
    slope = slopes(data)
    time, tau = data["step"] + 1, data["temperature"]
    constant = (data["kl"].sel(algorithm="Nash-MD") * 2 * tau**2 * time).max().item()
    return {
        SLOPE: Measured(float(np.median(slope)), float(1.25 * slope.std() / np.sqrt(slope.size))),
        "largest KL / (1 / (2 tau^2 (T + 1))), Nash-MD": Measured(constant, 0.0),
    }


def plot(data):
    """One panel per temperature; medians over games with 10% to 90% bands, theory in thin black lines, a grey slope."""
    steps, temperatures = data["step"].values, data["temperature"].values
    with figures.style():
        figure, axes = figures.subplots(2, -(-len(temperatures) // 2), height=2.8, sharex=True, sharey=True)
        for axis, tau in zip(axes, temperatures, strict=False):
            here = data.sel(temperature=tau)
            for i, algorithm in enumerate(ALGORITHMS):
                rows = np.maximum(here["kl"].sel(algorithm=algorithm).transpose("step", "game").values, 1e-33)
                low, middle, high = np.quantile(rows, [0.1, 0.5, 0.9], axis=1)
                axis.fill_between(steps, low, high, alpha=0.2, color=figures.COLOURS[i], linewidth=0)
                axis.plot(steps, middle, label=algorithm, **figures.line_style(i))
                if algorithm == "Nash-MD":
                    slope, late = REFERENCES[SLOPE], steps >= min(100, steps[-1])
                    line = 3 * middle[late][0] * (steps[late] / steps[late][0]) ** slope.value
                    label = f"slope {slope.value:.2f}, {slope.kind}"
                    axis.plot(steps[late], line, label=label, color="grey", linewidth=1.0, linestyle=":")
            start = float(here["kl_start"].median())
            lines = {
                r"$8/(\tau^2 T)$, quoted": 8 / (tau**2 * steps),
                r"$1/(2\tau^2 T)$, derived here": 1 / (2 * tau**2 * steps),
                r"$K_0(1+4\tau^2)^{-T}$, OMD": start * (1 + 4 * tau**2) ** (-steps.astype(float)),
                r"$K_0(1+2\tau)^{-T}$, EGPO": start * (1 + 2 * tau) ** (-steps.astype(float)),
            }
            for j, (label, line) in enumerate(lines.items()):
                axis.plot(steps, line, color="black", linewidth=0.8, linestyle=figures.DASHES[j], label=label)
            axis.set(xscale="log", yscale="log", ylim=(1e-31, 1e6), title=rf"temperature $\tau = {tau:g}$")
        for axis in axes[-(-len(temperatures) // 2) :]:
            axis.set_xlabel("steps $T$")
        for axis in axes[:: -(-len(temperatures) // 2)]:
            axis.set_ylabel(r"$\mathrm{KL}(\pi^*\|\pi_T)$ [nats]")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        n = data.sizes["game"]
        figure.suptitle(f"A study: {n} random games, medians with 10–90% bands; theory in thin black lines", fontsize=9)
    return figure
