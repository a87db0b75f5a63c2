"""EGPO's neural simulations: five algorithms through a perceptron that ten games share or not, exact or sampled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import Advantage, NeuralDescent, OwnPairs, PreferenceGame, UniformPairs, observe_gaps
from rlcore.nn.shared import SharedPerceptron
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "EGPO's neural simulations: duality gap of five algorithms, layers shared by ten games or not (a study)"
# The released code runs in float32, and its gap, a difference of game values, ends at 1e-6. The networks are tiny, so
# float64 costs little, and descent that cycles or diverges then does so by its own dynamics, not by rounding.
PRECISION = "float64"
ALGORITHMS = ("Online IPO 1 (OMD)", "Online IPO 2", "Nash-MD", "Nash-MD-PG", "EGPO")
PANELS = ("exact, shared layers", "exact, own layers", "sampled, shared layers")
# (temperature, learning rate) of the released code, which descends by plain SGD: no momentum, losses summed over games.
SETTINGS = {"exact": (0.01, 0.003), "sampled": (0.1, 0.001)}
NUM_ACTIONS, NUM_GAMES, WIDTH, HIDDEN = 100, 10, 10, 2
FLOOR = 1e-16  # gaps below are drawn as this: they are rounding
REFERENCES = {}  # no number of the neural panels was read


@dataclasses.dataclass(frozen=True)
class Config:
    """The released settings, 10 games that share a network, and `num_seeds` fresh such sets instead of one."""

    num_seeds: int = 5
    exact_steps: int = 10_000
    sampled_steps: int = 20_000
    samples: int = 100
    num_rows: int = 101
    algorithms: tuple[str, ...] = ALGORITHMS
    panels: tuple[str, ...] = PANELS


# Most of a short run is compilation: two algorithms, two panels.
QUICK = Config(2, exact_steps=1_000, num_rows=21, algorithms=(ALGORITHMS[0], ALGORITHMS[-1]), panels=PANELS[:2])


def make_solver(algorithm, network, learning_rate, temperature, samples):
    """SGD on each loss; the mixture is the released code's 2 lr / n, half of the tabular step times temperature."""
    mixture = 2 * learning_rate / NUM_ACTIONS
    objective, extragradient = {
        "Online IPO 1 (OMD)": (UniformPairs(0.0, samples), False),
        "Online IPO 2": (OwnPairs(0.0, samples), False),
        "Nash-MD": (UniformPairs(mixture, samples), False),
        "Nash-MD-PG": (Advantage(mixture, samples), False),
        "EGPO": (UniformPairs(0.0, samples), True),
    }[algorithm]
    return NeuralDescent(network, objective, learning_rate, extragradient)


def make_games(seed):
    """Ten random preferences, the parameters of a fresh network, and its policies, which are the references."""
    preference_key, network_key = jax.random.split(jax.random.key(seed))
    preference = jax.vmap(lambda key: random_skew(key, NUM_ACTIONS))(jax.random.split(preference_key, NUM_GAMES))
    params = make_network(NUM_GAMES).init(network_key)
    return preference, params


def make_network(runs):
    """The released network: two hidden layers of width 10."""
    return SharedPerceptron(runs, NUM_ACTIONS, WIDTH, HIDDEN, jnp.float64)


def own_params(params, game):
    """The parameters of one game alone: its input and a copy of the layers."""
    inner = params["params"]
    return {"params": {**inner, "virtual_input": inner["virtual_input"][game][None]}}


def run(config):
    """Duality gap over panel, algorithm, seed, game and recorded fraction of the updates."""
    fractions = np.linspace(0, 1, config.num_rows)
    # Drawn once: no program below has to compile the random numbers of a start.
    preferences, starts = jax.jit(jax.vmap(make_games))(jnp.arange(config.num_seeds))

    def one_run(seed, algorithm, panel):
        measure, layers = panel.split(", ")
        temperature, rate = SETTINGS[measure]
        steps = np.round(fractions * (config.exact_steps if measure == "exact" else config.sampled_steps)).astype(int)
        samples = config.samples if measure == "sampled" else None
        key = jax.random.fold_in(jax.random.key(1), seed) if samples else None
        preference, params = jax.tree.map(lambda x: x[seed], (preferences, starts))

        def play(preference, params):
            runs = preference.shape[0]
            solver = make_solver(algorithm, make_network(runs), rate, temperature, samples)
            state = solver.start(params)
            games = PreferenceGame(preference, state.log_policy, jnp.full(runs, temperature))
            return iterate(solver, games, None, state=state, key=key, observe=observe_gaps, every=steps)[1].T

        if layers == "shared layers":
            return {"gap": play(preference, params)}
        return {"gap": jax.vmap(lambda i: play(preference[i][None], own_params(params, i))[0])(jnp.arange(NUM_GAMES))}

    data = sweep(
        one_run,
        {"seed": range(config.num_seeds)},
        static={"algorithm": config.algorithms, "panel": config.panels},
        dims={"gap": ("game", "fraction")},
        coords={"fraction": fractions, "game": np.arange(NUM_GAMES)},
        batch="vmap",
    )
    updates = [config.exact_steps if panel.startswith("exact") else config.sampled_steps for panel in config.panels]
    return data.assign_coords(updates=("panel", updates)).assign_attrs(title=TITLE)


def measured(data):
    """log10 of median final gaps over all games; errors reach to the far end of a 95% interval over whole seeds."""
    rng = np.random.default_rng(0)
    out = {}
    for panel in data["panel"].values:
        for algorithm in data["algorithm"].values:
            last = data["gap"].sel(panel=panel, algorithm=algorithm).isel(fraction=-1).transpose("seed", "game").values
            last = np.maximum(last, FLOOR)
            # Games of one seed share a network: seeds are drawn again, not games.
            again = last[rng.integers(0, len(last), (2000, len(last)))].reshape(2000, -1)
            middle, (low, high) = np.median(last), np.quantile(np.median(again, axis=1), [0.025, 0.975])
            error = np.log10([middle / low, high / middle]).max()
            out[f"log10 median final gap, {algorithm}, {panel}"] = Measured(float(np.log10(middle)), float(error))
    return out


def plot(data):
    """A panel each for shared and own layers with exact gradients, and for samples; bands over all games."""
    with figures.style():
        figure, axes = figures.subplots(1, data.sizes["panel"], width=9.0, height=3.4)
        for axis, panel in zip(axes, data["panel"].values, strict=True):
            here = data.sel(panel=panel)
            times = here["fraction"].values * here["updates"].item()
            for i, algorithm in enumerate(data["algorithm"].values):
                rows = here["gap"].sel(algorithm=algorithm).stack(instance=("seed", "game"))
                rows = np.maximum(rows.transpose("fraction", "instance").values, FLOOR)
                low, middle, high = np.quantile(rows, [0.1, 0.5, 0.9], axis=1)
                axis.fill_between(times, low, high, alpha=0.15, color=figures.COLOURS[i], linewidth=0)
                axis.plot(times, middle, label=algorithm, **figures.line_style(i))
            temperature, rate = SETTINGS[str(panel).split(",")[0]]
            axis.set(yscale="log", xlabel="updates")
            if panel.startswith("exact"):
                axis.set_ylim(FLOOR / 2, 2)
            axis.set_title(f"{panel}\n" + rf"$\tau = {temperature:g}$, learning rate {rate:g}")
        axes[0].set_ylabel("duality gap [probability]")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        seeds, games = data.sizes["seed"], data.sizes["game"]
        figure.suptitle(
            f"A study: {seeds} networks for {games} games of {NUM_ACTIONS} actions each; medians, 10–90% bands",
            fontsize=9,
        )
    return figure
