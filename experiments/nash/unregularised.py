"""Games without temperature: gap against mat-vecs of proximal points, weights and fictitious play."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import (
    EGPO,
    MWU,
    OMD,
    OMWU,
    FictitiousPlay,
    PreferenceGame,
    ProximalPoint,
    log_normalise,
    lottery,
    unregularised_gap,
)
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "Games without temperature: gap against mat-vecs of proximal, optimistic and averaged methods (a study)"
PRECISION = "float64"
# name -> mat-vecs per step of what runs (None: counted as it goes). The proximal point's own certificate is left out
# where nothing depends on it, and counted where it ends the inner loop.
ALGORITHMS = {
    "proximal, 12 OMD steps": 12,
    "proximal, 12 EGPO steps": 24,
    "proximal, EGPO to tolerance": None,
    "OMWU": 1,
    "MWU, average": 1,
    "MWU, last iterate": 1,
    "fictitious play, average": 1,
}
LEAST_OUTER = 100  # mat-vecs that an outer step to tolerance is assumed to take; one that takes none has converged
FLOOR = 1e-17  # gaps below are drawn as this: they are rounding
REFERENCES = {}  # the specification gives no number for random games


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings: `budget` mat-vecs per run; the proximal point's temperatures, in probability per nat, and its inner
    tolerance, in nats; OMWU's step, per probability (EGPO's is at most 2 without temperature)."""

    num_games: int = 100
    num_actions: int = 20
    budget: int = 30_000
    temperatures: tuple[float, ...] = (0.1, 0.02)
    omwu_step: float = 2.0
    tolerance: float = 1e-6
    num_rows: int = 80


QUICK = Config(num_games=20, budget=3_000, num_rows=40)


def make_solver(algorithm, tau, config):
    """The method, and the temperature of the game that it is given."""
    if algorithm.startswith("proximal"):
        solver = {
            # COMAL's released script takes 12 steps with eta tau = 1/3.
            "proximal, 12 OMD steps": ProximalPoint(OMD(1 / (3 * tau)), 12),
            "proximal, 12 EGPO steps": ProximalPoint(EGPO(), 12),
            "proximal, EGPO to tolerance": ProximalPoint(EGPO(), 1000, config.tolerance),
        }[algorithm]
        return solver, tau
    if algorithm == "fictitious play, average":
        # Cold enough to choose pure best replies unless they all but tie; the bias is below 2 tau log n.
        return FictitiousPlay(), 1e-6
    step_size = config.omwu_step if algorithm == "OMWU" else np.sqrt(8 * np.log(config.num_actions) / config.budget)
    return (OMWU if algorithm == "OMWU" else MWU)(step_size), 0.0


def observe_play(game, state):
    """Probabilities of the method's output; average first, where there is one."""
    return getattr(state, "average", jnp.exp(state.log_policy))


def observe_last(game, state):
    """Probabilities of the last iterate."""
    return jnp.exp(state.log_policy)


def observe_inner(game, state):
    """Output and inner steps so far of the proximal point."""
    return jnp.exp(state.log_policy), state.inner_steps


def run(config):
    """gap0 over algorithm, game, temperature (of proximal points), mat-vecs; last policies; each game's lottery."""
    budgets = np.unique(np.geomspace(1, config.budget, config.num_rows).round().astype(int))
    make = lambda game: random_skew(jax.random.fold_in(jax.random.key(0), game), config.num_actions)  # noqa: E731
    preferences = jax.jit(jax.vmap(make))(jnp.arange(config.num_games))

    def one_run(game, temperature, algorithm):
        solver, heat = make_solver(algorithm, temperature, config)
        preference = preferences[game]
        problem = PreferenceGame(preference, log_normalise(jnp.zeros(config.num_actions)), jnp.asarray(heat))
        cost = ALGORITHMS[algorithm]
        if cost is None:
            # The certificate costs one mat-vec per inner step (of two) and one before the first.
            outer = max(config.budget // LEAST_OUTER, 1)
            policies, inner = iterate(solver, problem, outer, observe=observe_inner)[1]
            spent = 3 * inner + jnp.arange(outer + 1, dtype=inner.dtype)
        else:
            observe = observe_last if algorithm == "MWU, last iterate" else observe_play
            steps = np.unique(budgets // cost)
            policies, spent = iterate(solver, problem, None, observe=observe, every=steps)[1], jnp.asarray(steps * cost)
        gaps = jax.vmap(lambda policy: unregularised_gap(preference, jnp.log(policy)))(policies)
        # What a method has to show at a budget is what it had when it last finished a step.
        place = jnp.searchsorted(spent, jnp.asarray(budgets, spent.dtype), side="right") - 1
        return {"gap": gaps[place], "policy": policies[place[-1]]}

    data = sweep(
        one_run,
        {"game": range(config.num_games), "temperature": list(config.temperatures)},
        static={"algorithm": tuple(ALGORITHMS)},
        dims={"gap": ("matvecs",), "policy": ("action",)},
        coords={"matvecs": budgets, "action": np.arange(config.num_actions)},
        batch="vmap",
    )
    winners = np.stack([lottery(preference) for preference in np.asarray(preferences)])
    margin = np.einsum("gij,gj->gi", np.asarray(preferences) - 0.5, winners)
    data = data.assign(
        lottery=(("game", "action"), winners),
        lottery_gap=("game", 2 * margin.max(axis=1)),
        support=("game", (winners > 1e-9).sum(axis=1)),
    )
    return data.assign_attrs(title=TITLE)


def shown(data):
    """(name, algorithm, temperature): once where the temperature is not used."""
    for algorithm in data["algorithm"].values:
        for i, tau in enumerate(data["temperature"].values):
            if algorithm.startswith("proximal"):
                yield f"{algorithm}, temperature {tau:g}", algorithm, tau
            elif i == 0:
                yield algorithm, algorithm, tau


def measured(data):
    """log10 of median final gaps with the half-width of a 95% bootstrap interval, and the lottery as a check."""
    rng = np.random.default_rng(0)
    out = {}
    for name, algorithm, tau in shown(data):
        last = data["gap"].sel(algorithm=algorithm, temperature=tau).isel(matvecs=-1).values
        last = np.log10(np.maximum(last, FLOOR))
        again = np.median(rng.choice(last, (2000, last.size)), axis=1)
        low, high = np.quantile(again, [0.025, 0.975])
        middle = float(np.median(last))
        out[f"log10 median final gap, {name}"] = Measured(middle, float(max(high - middle, middle - low)))
    out["largest gap of a lottery"] = Measured(float(data["lottery_gap"].max()), 0.0)
    return out


def plot(data):
    """Medians with 10-90% bands per temperature of the proximal points; last, distance from the lottery and gap."""
    times, temperatures = data["matvecs"].values, data["temperature"].values
    with figures.style():
        figure, axes = figures.subplots(1, temperatures.size + 1, width=9.5, height=3.8)
        for axis, tau in zip(axes, temperatures, strict=False):
            for i, algorithm in enumerate(data["algorithm"].values):
                here = data["gap"].sel(algorithm=algorithm, temperature=tau).transpose("matvecs", "game")
                low, middle, high = np.quantile(np.maximum(here.values, FLOOR), [0.1, 0.5, 0.9], axis=1)
                style = figures.line_style(i)
                axis.fill_between(times, low, high, alpha=0.12, color=style["color"], linewidth=0)
                axis.plot(times, middle, label=algorithm, **style)
            n = data.sizes["action"]
            axis.plot(times[-1:], np.sqrt(2 * np.log(n) / times[-1:]), marker="_", markersize=14, color="black",
                      linestyle="none", label=r"$\sqrt{2\log n/T}$, proved for MWU's average")  # fmt: skip
            axis.set(xscale="log", yscale="log", ylim=(FLOOR / 2, 2), xlabel="mat-vecs")
            axis.set_title(rf"proximal points with $\tau = {tau:g}$")
        axes[0].set_ylabel("gap without temperature [probability]")
        for i, algorithm in enumerate(data["algorithm"].values):
            here = data.sel(algorithm=algorithm, temperature=temperatures[0])
            distance = 0.5 * np.abs(here["policy"] - here["lottery"]).sum("action")
            last = np.maximum(here["gap"].isel(matvecs=-1), FLOOR)
            axes[-1].plot(np.maximum(distance, FLOOR), last, linestyle="none", marker="osv^D<P"[i], markersize=3,
                          color=figures.COLOURS[i], alpha=0.6)  # fmt: skip
        axes[-1].set(xscale="log", yscale="log", ylim=(FLOOR / 2, 2), xlabel="total variation from the lottery")
        axes[-1].set_title(rf"every game at the end, $\tau = {temperatures[0]:g}$")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(
            f"A study: {data.sizes['game']} random games of {n} actions; medians with 10–90% bands; the lottery is a "
            "linear programme's",
            fontsize=9,
        )
    return figure
