"""The tabular simulations of EGPO's authors: five algorithms on random games at three temperatures, exact gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.nash import (
    EGPO,
    IPO2,
    OMD,
    NashMD,
    NashMDPG,
    PreferenceGame,
    critical_step_size,
    equilibrium,
    log_normalise,
    observe_gap,
    sgd_step_size,
)
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "EGPO's tabular simulations: duality gap of five algorithms at three temperatures (a study)"
PRECISION = "float64"
ALGORITHMS = ("Online IPO 1 (OMD)", "Online IPO 2", "Nash-MD", "Nash-MD-PG", "EGPO", "Nash-MD-PG, natural gradient")
# (temperature, updates, learning rate) of the released code.
SETTINGS = ((0.001, 100_000, 2e-4), (0.01, 5_000, 0.02), (0.1, 1_000, 0.1))
NUM_ACTIONS = 10
FLOOR = 1e-16  # gaps below are drawn and compared as this: they are rounding


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings: the released code uses 10 games and one seed; the reference medians of this project use 500."""

    num_games: int = 500
    seed: int = 0
    num_rows: int = 201


QUICK = Config(num_games=10)


def _reference(value):
    # Two digits are given; their own sampling error is not, hence a fifth of a decade.
    where = "specification of the family, E1: medians over 500 fresh games"
    return Reference(float(np.log10(max(value, FLOOR))), 0.2, "prototype of this project", where)


# Median final gaps; 0 stands for "0 to rounding".
MEDIANS = {
    0.001: (2.2e-2, 0.54, 2.3e-2, 0.32, 8.4e-9),
    0.01: (3e-7, 0.21, 2.8e-5, 0.27, 0.0),
    0.1: (0.0, 2.7e-7, 1.6e-5, 1.7e-2, 0.0),
}
REFERENCES = {
    f"log10 median final gap, {algorithm}, temperature {tau:g}": _reference(value)
    for tau, row in MEDIANS.items()
    for algorithm, value in zip(ALGORITHMS, row, strict=False)
} | {
    f"share of games with step > critical step, temperature {tau:g}": Reference(
        share, 0.05, "prototype of this project", "specification of the family, E1, 100 games"
    )
    for tau, share in ((0.001, 0.32), (0.01, 0.33))
}


def make_solver(algorithm, temperature, learning_rate):
    """Gradient descent on each loss, as the exact step it is; the mixture is the released code's 2 lr / n."""
    step_size = sgd_step_size(learning_rate, NUM_ACTIONS, temperature)
    mixture = 2 * learning_rate / NUM_ACTIONS
    return {
        "Online IPO 1 (OMD)": OMD(step_size),
        "Online IPO 2": IPO2(learning_rate),
        "Nash-MD": NashMD(step_size, mixture),
        "Nash-MD-PG": NashMDPG(learning_rate, mixture),
        "EGPO": EGPO(step_size),
        "Nash-MD-PG, natural gradient": NashMD(learning_rate, mixture),
    }[algorithm]


def random_simulation_game(key, temperature):
    """Preferences U(0, 1) below the diagonal, reference logits N(0, 1); the run starts at the reference."""
    preference_key, reference_key = jax.random.split(key)
    reference = log_normalise(jax.random.normal(reference_key, (NUM_ACTIONS,)))
    return PreferenceGame(random_skew(preference_key, NUM_ACTIONS), reference, temperature)


@functools.partial(jax.jit, static_argnames="num_games")
def simulation_games(seed, num_games):
    """(preference float[games, n, n], reference logits float[games, n]), the same at every temperature."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(num_games))
    return jax.vmap(lambda key: random_simulation_game(key, jnp.ones(()))[:2])(keys)


def run(config):
    """Duality gap over setting, algorithm, game and recorded update (setting indexes SETTINGS)."""
    temperatures, updates, rates = (jnp.array(column) for column in zip(*SETTINGS, strict=True))
    fractions = np.linspace(0, 1, config.num_rows)
    # Drawn here and not in each run: their random numbers took four fifths of every program's compile time.
    games = simulation_games(config.seed, config.num_games)

    def one_run(setting, algorithm):
        temperature, rate = temperatures[setting], rates[setting]
        # The number of updates is data: one compilation serves the three settings.
        steps = jnp.round(jnp.asarray(fractions) * updates[setting].astype(float)).astype(int)
        solver = make_solver(algorithm, temperature, rate)

        def play(preference, reference):
            problem = PreferenceGame(preference, reference, temperature)
            return iterate(solver, problem, None, observe=observe_gap, every=steps)[1]

        return {"gap": jax.vmap(play)(*games)}

    data = sweep(
        one_run,
        {"setting": range(len(SETTINGS))},
        static={"algorithm": ALGORITHMS},
        dims={"gap": ("game", "fraction")},
        coords={"fraction": fractions, "game": np.arange(config.num_games)},
    )

    def critical(setting):
        temperature = temperatures[setting]

        def of(preference, reference):
            problem = PreferenceGame(preference, reference, temperature)
            star = equilibrium(*problem)
            step_size = sgd_step_size(rates[setting], NUM_ACTIONS, temperature)
            return {
                "step_over_critical": step_size / critical_step_size(problem, star.value),
                "equilibrium_gap": problem.gap(star.value),
            }

        return jax.vmap(of)(*games)

    names = {"step_over_critical": ("game",), "equilibrium_gap": ("game",)}
    ratio = sweep(critical, {"setting": range(len(SETTINGS))}, dims=names)
    data = data.merge(ratio.drop_attrs(), join="exact")
    coords = {
        "temperature": ("setting", np.array([s[0] for s in SETTINGS])),
        "updates": ("setting", np.asarray(updates)),
    }
    return data.assign_coords(coords).assign_attrs(title=TITLE)


def measured(data):
    """log10 of median final gaps, shares of games; errors reach to the far end of a 95% interval."""
    rng = np.random.default_rng(0)
    out = {}
    for i, (tau, _, _) in enumerate(SETTINGS):
        for algorithm in ALGORITHMS:
            last = np.maximum(data["gap"].sel(setting=i, algorithm=algorithm).isel(fraction=-1).values, FLOOR)
            again = np.log10(np.median(rng.choice(last, (2000, last.size)), axis=1))
            middle, (low, high) = np.log10(np.median(last)), np.quantile(again, [0.025, 0.975])
            name = f"log10 median final gap, {algorithm}, temperature {tau:g}"
            # Games that cycle and games that converge are decades apart: the interval is far from symmetric.
            out[name] = Measured(float(middle), float(max(high - middle, middle - low)))
        if tau < 0.1:
            over = data["step_over_critical"].sel(setting=i).values > 1
            share, n = over.mean(), over.size
            error = 1.96 * np.sqrt((share * (1 - share) + 0.96 / n) / n)
            out[f"share of games with step > critical step, temperature {tau:g}"] = Measured(float(share), float(error))
    return out


def plot(data):
    """Curves per temperature with the reference medians at their ends, and the final gap of OMD against its step."""
    with figures.style():
        figure, axes = figures.subplots(2, 2, height=3.0)
        for i, (tau, updates, rate) in enumerate(SETTINGS):
            axis = axes[i]
            times = data["fraction"].values * updates
            for j, algorithm in enumerate(ALGORITHMS):
                rows = np.maximum(data["gap"].sel(setting=i, algorithm=algorithm).transpose("fraction", "game"), FLOOR)
                axis.plot(times, np.median(rows, axis=1), label=algorithm, **figures.line_style(j))
                name = f"log10 median final gap, {algorithm}, temperature {tau:g}"
                if name in REFERENCES:
                    axis.plot(
                        times[-1] * (1.03 + 0.03 * j), 10 ** REFERENCES[name].value, marker="o", markersize=4,
                        color=figures.COLOURS[j], clip_on=False, linestyle="none",
                    )  # fmt: skip
            axis.set(yscale="log", ylim=(FLOOR / 2, 2), xlabel="updates", ylabel="duality gap [probability]")
            axis.set_title(rf"$\tau = {tau:g}$, learning rate {rate:g}")
        axis, beyond = axes[3], []
        for i, (tau, _, _) in enumerate(SETTINGS):
            last = np.maximum(data["gap"].sel(setting=i, algorithm=ALGORITHMS[0]).isel(fraction=-1), FLOOR)
            ratio = data["step_over_critical"].sel(setting=i)
            name = f"share of games with step > critical step, temperature {tau:g}"
            if name in REFERENCES:
                beyond.append(f"{(ratio > 1).mean().item():.0%} (prototype {REFERENCES[name].value:.0%})")
            axis.plot(ratio, last, marker="os^"[i], linestyle="none", markersize=4, alpha=0.7, color=figures.COLOURS[i],
                      label=rf"$\tau = {tau:g}$")  # fmt: skip
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel=r"step / critical step $\eta/\eta_c$", ylabel="final gap of OMD")
        axis.set_title(f"OMD fails beyond the critical step:\n{', '.join(beyond)}")
        axis.legend(loc="upper left")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(
            f"Medians over {data.sizes['game']} games; dots: medians over 500 games (prototype of this project)",
            fontsize=9,
        )
    return figure
