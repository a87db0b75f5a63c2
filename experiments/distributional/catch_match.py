"""Catch-match steered to every score by one deep agent, against the exact optimum, with and without the stock."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import NullLocator

import envs
from envs.catch_match_game import catch_match_game
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import fitting_grid, stock_vi, two_slope
from rlcore.distributional.din import DEtaN, play, train
from rlcore.nn.quantile import QuantileNetwork

TITLE = "D-eta-N on Catch-match: one agent steered to every score, regret against the exact optimum (a study)"
PRECISION = "float64"  # of the exact optimum; the agent is float32 throughout
SIZE, STICK = 5, 0.2
BALLS = 4
DISTANCE, MEAN = two_slope(-1.0, 1.0), two_slope(1.0, 1.0)
# What differs from the agent with the stock.
AGENTS = {"stock": {}, "stock not seen": {"sees_stock": False}, "stock frozen": {"frozen": True}}


@dataclasses.dataclass(frozen=True)
class Config:
    """Seeds, trained side by side; iterations; environments; transitions kept and per update; iterations between
    copies to the target; test episodes per target; names of agents; games of OPTIMA whose optima are compared. The
    defaults are the specification's settings.
    """

    num_seeds: int = 8
    num_steps: int = 6000
    num_envs: int = 64
    capacity: int = 65_536
    batch: int = 256
    refresh: int = 250
    num_episodes: int = 4000
    agents: tuple[str, ...] = tuple(AGENTS)
    games: tuple[tuple[int, float], ...] = ((4, 0.2), (6, 0.2), (4, 0.0))


# A training cut short: it shows the stock's worth, and is compared with no number of a full training.
QUICK = Config(1, 1000, 32, 16_384, 128, 50, 500, ("stock", "stock frozen"), ((4, 0.2),))

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 9"
# (balls, stick) -> target -> least mean distance
OPTIMA = {
    (4, 0.2): {-4: 0.002560, -3: 1.000001, -2: 0.001290, -1: 1.000001, 0: 0.001413, 1: 1.000206, 2: 0.024327}
    | {3: 1.023792, 4: 0.484676},
    (6, 0.2): {-6: 0.003840, -4: 0.001291, -2: 0.001291, 0: 0.001322, 2: 0.004617, 4: 0.090075, 6: 0.784031},
    (4, 0.0): {target: float(target % 2) for target in range(-4, 5)},
}
MEANS = {(4, 0.2): 3.515324, (6, 0.2): 5.215969}
# Mean regrets of single runs of the prototype; a run of ours is one more draw of the same.
RUNS = {"stock": (0.022, 0.040), "stock not seen": (0.030, 0.019, 0.022), "stock frozen": (0.42,)}


def _name(balls, stick):
    return f"{balls} balls, stick {stick:g}"


REFERENCES = {
    f"least E|G - g|, {_name(*game)}, g = {target}": Reference(value, 6e-7, MINE, WHERE)
    for game, listed in OPTIMA.items()
    for target, value in listed.items()
} | {f"largest E G, {_name(*game)}": Reference(value, 6e-7, MINE, WHERE) for game, value in MEANS.items()}
REFERENCES |= {
    f"mean regret of one run, {agent}": Reference(
        float(np.mean(runs)), float(np.ptp(runs)) / 2 + 0.005 * (agent == "stock frozen"), MINE, WHERE
    )
    for agent, runs in RUNS.items()
}


def exact(balls, stick):
    """Least mean distance by target -balls .. balls, float[2 balls + 1], and the largest mean score."""
    problem = envs.make("catch_match", balls=balls, size=SIZE, stick=stick)
    grid = fitting_grid(problem)
    by_stock = problem.initial @ stock_vi(problem, DISTANCE, grid).value.value[0]
    column = [int(np.argmin(np.abs(np.asarray(grid.nodes) + target))) for target in range(-balls, balls + 1)]
    best = problem.initial @ stock_vi(problem, MEAN, grid).value.value[0]
    start = int(np.argmin(np.abs(np.asarray(grid.nodes))))
    return np.abs(np.asarray(by_stock)[column]), float(best[start])


def agent_of(config, name):
    """The agent by name, with the specification's settings but for those of the config."""
    chosen = ("num_steps", "num_envs", "capacity", "batch", "refresh")
    settings = {field: getattr(config, field) for field in chosen}
    return DEtaN(QuantileNetwork(3), window=float(BALLS), **settings, **AGENTS[name])


@functools.partial(jax.jit, static_argnames=("num_seeds", "num_episodes"))
def trained(agent, num_seeds, num_episodes):
    """Train by seed and play to each target: mean distance and score [seed, target]; sums of training [seed, row].

    The frozen agent differs by a number and compiles nothing of its own.
    """
    game, targets = catch_match_game(BALLS, SIZE, SIZE, STICK), jnp.arange(-BALLS, BALLS + 1.0)
    length = BALLS * (SIZE - 1)

    def one(key):
        state, totals = train(key, game, DISTANCE, agent, -targets)
        keys = jax.random.split(key, num_episodes)
        episode = lambda c, k: play(k, game, DISTANCE, agent, state.params, c, length)  # noqa: E731
        returns = jax.lax.map(lambda c: jax.vmap(lambda k: episode(c, k))(keys), -targets)
        missed = jnp.abs(returns - targets[:, None].astype(returns.dtype))
        return jnp.mean(missed, axis=1), jnp.mean(returns, axis=1), totals.utility, totals.episodes

    return jax.vmap(one)(jax.random.split(jax.random.key(0), num_seeds))


def run(config):
    """By agent, seed and target: mean distance and score of test episodes; on the way, of the training's episodes."""
    import xarray as xr

    data = {}
    for game in config.games:
        least, best = exact(*game)
        data[f"least {_name(*game)}"] = ((f"target_{game[0]}",), least)
        data[f"best mean {_name(*game)}"] = ((), best)
    found = [trained(agent_of(config, name), config.num_seeds, config.num_episodes) for name in config.agents]
    rows = zip(*found, strict=True)
    distance, score, utility, episodes = (np.stack([np.asarray(x, float) for x in row]) for row in rows)
    ended = np.diff(episodes, axis=2)
    # no episode may have ended between two rows of a very short training
    nearing = -np.diff(utility, axis=2) / np.where(ended > 0, ended, np.nan)
    data["distance"] = (("agent", "seed", f"target_{BALLS}"), distance)
    data["score"] = (("agent", "seed", f"target_{BALLS}"), score)
    data["training_distance"] = (("agent", "seed", "iteration"), nearing)
    every = config.num_steps // ended.shape[2]
    coords = {f"target_{balls}": np.arange(-balls, balls + 1) for balls, _ in config.games}
    coords |= {"agent": list(config.agents), "iteration": every * np.arange(1, ended.shape[2] + 1)}
    attrs = {"title": TITLE, "num_steps": config.num_steps, "num_episodes": config.num_episodes}
    return xr.Dataset(data, coords, attrs)


def _regret(data):
    """By agent, seed and target."""
    return data["distance"] - data[f"least {_name(BALLS, STICK)}"]


def measured(data):
    """Exact optima, to rounding; mean regrets over targets, of one run with two deviations of a run and of the mean."""
    out = {}
    for game, listed in OPTIMA.items():
        row = data.get(f"least {_name(*game)}")
        for target in listed:
            value = np.nan if row is None else row.sel({f"target_{game[0]}": target}).item()
            out[f"least E|G - g|, {_name(*game)}, g = {target}"] = Measured(value, 1e-12)
        if game in MEANS:
            best = data.get(f"best mean {_name(*game)}")
            out[f"largest E G, {_name(*game)}"] = Measured(np.nan if best is None else best.item(), 1e-12)
    full = data.attrs["num_steps"] >= Config().num_steps and data.sizes["seed"] > 1
    for agent in AGENTS:
        name = f"mean regret of one run, {agent}"
        out[name] = Measured(np.nan, np.nan)  # a training cut short, or an agent left out
        if agent not in data["agent"].values:
            continue
        by_seed = _regret(data).sel(agent=agent).mean(f"target_{BALLS}").values
        if not full:
            short = f"mean regret, {agent}, cut short at {data.attrs['num_steps']} iterations"
            out[short] = Measured(float(by_seed.mean()), np.inf)  # one seed says nothing about others
            continue
        spread, count = float(by_seed.std(ddof=1)), by_seed.size
        out[name] = Measured(float(by_seed.mean()), 2 * spread * float(np.sqrt(1 + 1 / count)))
        out[f"mean regret, {agent}"] = Measured(float(by_seed.mean()), 2 * spread / float(np.sqrt(count)))
        out[f"mean regret, {agent}, worst seed"] = Measured(float(by_seed.max()), 0.0)
        out[f"mean regret, {agent}, best seed"] = Measured(float(by_seed.min()), 0.0)
    return out


def plot(data):
    """Distances and regrets by target, mean regrets by seed, and distances in training."""
    regret, target = _regret(data), data[f"target_{BALLS}"].values
    short = data.attrs["num_steps"] < Config().num_steps
    agents = [str(x) for x in data["agent"].values]
    with figures.style():
        figure, axes = figures.subplots(2, 2, width=7.5, height=3.0)
        near, lost, seeds, training = axes
        near.plot(target, data[f"least {_name(BALLS, STICK)}"], "k_", markersize=13, label="exact optimum", zorder=3)
        listed = OPTIMA[(BALLS, STICK)]
        near.plot(list(listed), list(listed.values()), "kx", markersize=5, label="prototype, exact", zorder=3)
        for i, agent in enumerate(agents):
            kind = list(AGENTS).index(agent)  # one look per agent, also where another is left out
            colour, marker, place = figures.COLOURS[kind], "osD"[kind], target + 0.18 * (i - (len(agents) - 1) / 2)
            here = data["distance"].sel(agent=agent)
            _with_range(near, place, here, colour, marker, agent)
            _with_range(lost, place, regret.sel(agent=agent), colour, marker, agent)
            by_seed = regret.sel(agent=agent).mean(f"target_{BALLS}").values
            spread = np.linspace(-0.15, 0.15, by_seed.size) if by_seed.size > 1 else np.zeros(1)
            seeds.plot(i + spread, by_seed, marker, color=colour, markersize=4)
            runs = RUNS[agent]
            if not short:
                seeds.plot([i + 0.3] * len(runs), runs, "kx", markersize=5, label="prototype, runs" if i == 0 else None)
            curve = data["training_distance"].sel(agent=agent)
            training.fill_between(
                data["iteration"], curve.min("seed"), curve.max("seed"), color=colour, alpha=0.2, linewidth=0
            )
            training.plot(data["iteration"], curve.mean("seed"), label=agent, **figures.line_style(kind))
        near.set(xlabel="target score $g$", ylabel="mean distance $E|G - g|$ [score]", ylim=(0, None))
        lost.axhline(0, color="black", linewidth=0.6)
        lost.set(xlabel="target score $g$", ylabel="regret [score]")
        for axis in (near, lost):
            axis.set_xticks(target)
        seeds.axhline(0.08, color="grey", linewidth=1.0, linestyle="--", label="asked for: at most, with stock")
        seeds.axhline(0.25, color="grey", linewidth=1.0, linestyle=":", label="asked for: at least, frozen")
        seeds.set_xticks(range(len(agents)), agents)
        seeds.set(yscale="log", xlabel="agent, a marker per seed", ylabel="mean regret over targets [score]")
        seeds.set(xlim=(-0.6, len(agents) - 0.4))
        floor = float(data[f"least {_name(BALLS, STICK)}"].mean())
        training.axhline(floor, color="black", linewidth=0.8, label="exact optimum, mean")
        training.set(xlabel="iteration", ylabel="mean distance in training [score]", ylim=(0, None))
        marks = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
        low, high = seeds.get_ylim()
        seeds.set_yticks([x for x in marks if low <= x <= high])
        seeds.yaxis.set_major_formatter("{x:g}")
        seeds.yaxis.set_minor_locator(NullLocator())
        seeds.set_ylim(low, high)
        training.legend()
        handles, names = (a + b for a, b in zip(*(x.get_legend_handles_labels() for x in (near, seeds)), strict=True))
        figure.legend(handles, names, loc="outside lower center", ncols=4)
        length = f"training cut short at {data.attrs['num_steps']} iterations" if short else "full training"
        figure.suptitle(
            f"A study: {BALLS} balls, stick {STICK:g}, seeds: {data.sizes['seed']}, {length};\n"
            "markers and bars are means and ranges of seeds",
            fontsize=9,
        )
    return figure


def _with_range(axis, place, rows, colour, marker, label):
    """Means over seeds with the range of seeds."""
    middle, low, high = rows.mean("seed").values, rows.min("seed").values, rows.max("seed").values
    axis.errorbar(
        place, middle, [middle - low, high - middle], fmt=marker, color=colour, markersize=4, capsize=2, linewidth=0.9,
        label=label,
    )  # fmt: skip
