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
    "proximal, 4 EGPO steps": 8,
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
    """Settings: `budget` mat-vecs per run; the proximal point's temperature, in probability per nat, and
    its inner tolerance, in nats; OMWU's step, per probability."""

    num_games: int = 100
    num_actions: int = 20
    budget: int = 30_000
    temperature: float = 0.1
    omwu_step: float = 1.0
    tolerance: float = 1e-6
    num_rows: int = 80


QUICK = Config(num_games=20, budget=3_000, num_rows=40)


def make_solver(algorithm, config):
    """The method, and the temperature of the game that it is given."""
    tau = config.temperature
    if algorithm.startswith("proximal"):
        solver = {
            # COMAL's released script takes 12 steps with eta tau = 1/3.
            "proximal, 12 OMD steps": ProximalPoint(OMD(1 / (3 * tau)), 12),
            "proximal, 4 EGPO steps": ProximalPoint(EGPO(), 4),
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
    """gap0 over algorithm, game and mat-vecs, final policies, and each game's lottery by linear programming."""
    budgets = np.unique(np.geomspace(1, config.budget, config.num_rows).round().astype(int))
    make = lambda game: random_skew(jax.random.fold_in(jax.random.key(0), game), config.num_actions)  # noqa: E731
    preferences = jax.jit(jax.vmap(make))(jnp.arange(config.num_games))

    def one_run(game, algorithm):
        solver, temperature = make_solver(algorithm, config)
        preference = preferences[game]
        problem = PreferenceGame(preference, log_normalise(jnp.zeros(config.num_actions)), jnp.asarray(temperature))
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
        {"game": range(config.num_games)},
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


def measured(data):
    """log10 of median final gaps with the half-width of a 95% bootstrap interval, and the lottery as a check."""
    rng = np.random.default_rng(0)
    out = {}
    for algorithm in data["algorithm"].values:
        last = np.log10(np.maximum(data["gap"].sel(algorithm=algorithm).isel(matvecs=-1).values, FLOOR))
        again = np.median(rng.choice(last, (2000, last.size)), axis=1)
        low, high = np.quantile(again, [0.025, 0.975])
        middle = float(np.median(last))
        out[f"log10 median final gap, {algorithm}"] = Measured(middle, float(max(high - middle, middle - low)))
    best = data["policy"].sel(algorithm="proximal, 12 EGPO steps")
    distance = 0.5 * np.abs(best - data["lottery"]).sum("action")
    out["largest gap of a lottery"] = Measured(float(data["lottery_gap"].max()), 0.0)
    out["largest total variation, proximal (12 EGPO steps) to the lottery"] = Measured(float(distance.max()), 0.0)
    return out


def plot(data):
    """Left, medians with 10-90% bands; right, final distance from the lottery of every game against its final gap."""
    times = data["matvecs"].values
    with figures.style():
        figure, axes = figures.subplots(1, 2, width=9.0, height=3.8)
        for i, algorithm in enumerate(data["algorithm"].values):
            style = figures.line_style(i)
            rows = np.maximum(data["gap"].sel(algorithm=algorithm).transpose("matvecs", "game").values, FLOOR)
            low, middle, high = np.quantile(rows, [0.1, 0.5, 0.9], axis=1)
            axes[0].fill_between(times, low, high, alpha=0.15, color=style["color"], linewidth=0)
            axes[0].plot(times, middle, label=algorithm, **style)
            distance = 0.5 * np.abs(data["policy"].sel(algorithm=algorithm) - data["lottery"]).sum("action")
            axes[1].plot(np.maximum(distance, FLOOR), rows[-1], linestyle="none", marker="osv^D<>P"[i], markersize=3,
                         color=style["color"], alpha=0.6)  # fmt: skip
        n = data.sizes["action"]
        axes[0].plot(times[-1:], np.sqrt(2 * np.log(n) / times[-1:]), marker="_", markersize=14, color="black",
                     linestyle="none", label=r"$\sqrt{2\log n/T}$, proved for MWU's average")  # fmt: skip
        axes[0].set(xscale="log", yscale="log", xlabel="mat-vecs", ylabel="gap without temperature [probability]")
        axes[1].set(xscale="log", yscale="log", xlabel="total variation from the lottery (linear programme)")
        axes[1].set_title("every game, at the last budget")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(f"A study: {data.sizes['game']} random games of {n} actions; medians, 10–90% bands", fontsize=9)
    return figure
