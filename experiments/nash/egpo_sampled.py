"""EGPO's tabular simulations with sampled gradients: 100 triples a step, soft labels, exact duality gap."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import (
    EGPO,
    IPO2,
    OMD,
    NashMD,
    NashMDPG,
    PreferenceGame,
    SampledEGPO,
    SampledIPO1,
    SampledIPO2,
    SampledNashMDPG,
    log_normalise,
    observe_gap,
    sgd_step_size,
)
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "EGPO's tabular simulations from samples: duality gap of five algorithms, beside exact gradients (a study)"
PRECISION = "float64"
ALGORITHMS = ("Online IPO 1 (OMD)", "Online IPO 2", "Nash-MD", "Nash-MD-PG", "EGPO")
NUM_ACTIONS, TEMPERATURE, LEARNING_RATE = 10, 0.01, 2e-4  # of the released code


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the released code: 10 games, 100 000 updates, 100 samples per gradient."""

    num_games: int = 10
    num_steps: int = 100_000
    samples: int = 100
    num_rows: int = 101


QUICK = Config(num_steps=400, num_rows=21)
REFERENCES = {}  # no number of the sampled panel was read


def make_solver(algorithm, sampled, samples):
    """Gradient descent on each loss, from samples or exact; the mixture is the released code's 2 lr / n."""
    step_size = sgd_step_size(LEARNING_RATE, NUM_ACTIONS, TEMPERATURE)
    mixture = 2 * LEARNING_RATE / NUM_ACTIONS
    exact, drawn = {
        "Online IPO 1 (OMD)": (OMD(step_size), SampledIPO1(LEARNING_RATE, samples=samples)),
        "Online IPO 2": (IPO2(LEARNING_RATE), SampledIPO2(LEARNING_RATE, samples=samples)),
        "Nash-MD": (NashMD(step_size, mixture), SampledIPO1(LEARNING_RATE, mixture, samples=samples)),
        "Nash-MD-PG": (NashMDPG(LEARNING_RATE, mixture), SampledNashMDPG(LEARNING_RATE, mixture, samples=samples)),
        "EGPO": (EGPO(step_size), SampledEGPO(LEARNING_RATE, samples=samples)),
    }[algorithm]
    return drawn if sampled else exact


def run(config):
    """Duality gap over game, algorithm, gradient (exact, sampled) and recorded update."""
    steps = np.unique(np.linspace(0, config.num_steps, config.num_rows).round().astype(int))

    def one_run(game, algorithm, gradient):
        preference_key, reference_key, run_key = jax.random.split(jax.random.key(game), 3)
        reference = log_normalise(jax.random.normal(reference_key, (NUM_ACTIONS,)))
        problem = PreferenceGame(random_skew(preference_key, NUM_ACTIONS), reference, jnp.asarray(TEMPERATURE))
        solver = make_solver(algorithm, gradient == "sampled", config.samples)
        return {"gap": iterate(solver, problem, config.num_steps, key=run_key, observe=observe_gap, every=steps)[1]}

    static = {"algorithm": ALGORITHMS, "gradient": ("exact", "sampled")}
    data = sweep(
        one_run, {"game": range(config.num_games)}, static=static, dims={"gap": ("step",)}, coords={"step": steps},
        batch="vmap",
    )  # fmt: skip
    return data.assign_attrs(title=TITLE)


def measured(data):
    """Median final gap over games and its standard error, 1.25 sd / sqrt n; no published number was read."""
    last = data["gap"].isel(step=-1)
    return {
        f"median final gap, {algorithm}, {gradient} gradient": Measured(
            float(values.median()), float(1.25 * values.std() / np.sqrt(values.size))
        )
        for algorithm in ALGORITHMS
        for gradient in ("sampled", "exact")
        for values in [last.sel(algorithm=algorithm, gradient=gradient)]
    }


def plot(data):
    """Left, medians of sampled runs; right, those of exact gradients; dots at the left's end repeat the right's."""
    with figures.style():
        figure, axes = figures.subplots(1, 2, height=3.2, sharey=True)
        steps = data["step"].values
        for axis, gradient in zip(axes, ("sampled", "exact"), strict=True):
            for i, algorithm in enumerate(ALGORITHMS):
                middle = data["gap"].sel(algorithm=algorithm, gradient=gradient).median("game")
                axis.plot(steps, middle, label=algorithm, **figures.line_style(i))
                if gradient == "sampled":
                    end = data["gap"].sel(algorithm=algorithm, gradient="exact").median("game").values[-1]
                    axis.plot(
                        steps[-1] * (1.02 + 0.015 * i), end, marker="o", markersize=4, color=figures.COLOURS[i],
                        clip_on=False, linestyle="none",
                    )  # fmt: skip
            axis.set(yscale="log", xlabel="updates", title=f"{gradient} gradients")
        axes[0].set_ylabel("duality gap [probability]")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(
            rf"Medians over {data.sizes['game']} games, $\tau = {TEMPERATURE:g}$; dots: the exact curves' ends",
            fontsize=9,
        )
    return figure
