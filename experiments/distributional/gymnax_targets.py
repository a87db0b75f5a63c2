"""The deep agent on gymnax: CartPole's worst episodes, Breakout steered to a score; what it predicts, what it earns.

CartPole pays 1 a step and the time is observed, so an agent whose stock is frozen knows all the same what it has
earned; in Breakout it does not.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.gymnax_games import gymnax_game
from experiments import figures
from experiments.reference import Measured
from rlcore.distributional import Law, cvar, two_slope
from rlcore.distributional.din import DEtaN, play, train
from rlcore.nn.quantile import QuantileNetwork

TITLE = "D-eta-N on gymnax with sticky actions: CVaR of CartPole, scores of Breakout, predicted and earned (a study)"
PRECISION = "float32"
LEVEL = 0.25  # share of the worst episodes of CartPole
STICKY = 0.25
REFERENCES = {}  # a study: nobody's numbers
# Agent -> (slopes of its utility above and below 0, whether its stock is frozen).
CARTPOLE = {"CVaR": (0.0, 1.0, False), "CVaR, stock frozen": (0.0, 1.0, True), "mean": (1.0, 1.0, False)}
BREAKOUT = {"stock": (-1.0, 1.0, False), "stock frozen": (-1.0, 1.0, True)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Games; seeds; iterations with CartPole and with Breakout; environments; transitions kept and per update;
    iterations between copies to the target; test episodes per start; limit of an episode; largest target of Breakout.
    """

    games: tuple[str, ...] = ("CartPole", "Breakout")
    num_seeds: int = 2
    num_steps: int = 20_000
    breakout_steps: int = 6000
    num_envs: int = 32
    capacity: int = 65_536
    batch: int = 128
    refresh: int = 20
    num_episodes: int = 200
    limit: int = 200
    most: int = 6


# A training cut short, of one game: it shows that everything runs and is no result.
QUICK = Config(("CartPole",), 1, 600, 0, 16, 8192, 64, 10, 50, 60)


def agent_of(config, game, frozen):
    """The agent: dense layers for CartPole, a convolution before them for Breakout; windows hold all scores."""
    chosen = ("num_envs", "capacity", "batch", "refresh")
    settings = {field: getattr(config, field) for field in chosen} | {"frozen": frozen}
    if game == "CartPole":
        network, window, kappa, num_steps = QuantileNetwork(2), config.limit, 1.0, config.num_steps
    else:
        network, window, kappa = QuantileNetwork(3, channels=(16,)), 2 * config.most, 0.1
        num_steps = config.breakout_steps
    return DEtaN(network, window=float(window), kappa=kappa, num_steps=num_steps, **settings)


def starts_of(config, game):
    """First stocks: minus the returns that are asked for."""
    if game == "CartPole":
        return -jnp.linspace(0.0, config.limit, 21, dtype=jnp.float32)
    return -jnp.arange(config.most + 1.0, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames=("num_seeds", "num_episodes", "limit"))
def trained(game, agent, utility, starts, num_seeds, num_episodes, limit):
    """Train by seed, then play from every start.

    Returns: predicted E f(c + G) [seed, start], averaged over first observations; returns [seed, start, episode].
    """

    utility = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), utility)

    def one(key):
        state, _ = train(key, game, utility, agent, starts)
        keys = jax.random.split(key, num_episodes)
        first = jax.vmap(lambda k: game.reset(k)[1])(keys)
        best = lambda c, x: jnp.max(agent.scores(utility, state.params, x, c))  # noqa: E731
        value = jax.lax.map(lambda c: jnp.mean(jax.vmap(lambda x: best(c, x))(first)), starts)
        episode = lambda c, k: play(k, game, utility, agent, state.params, c, limit)  # noqa: E731
        return value, jax.lax.map(lambda c: jax.vmap(lambda k: episode(c, k))(keys), starts)

    keys = jax.random.split(jax.random.key(0), num_seeds)
    # convolutions with weights of their own are slower side by side than one after the other
    return jax.lax.map(one, keys) if agent.network.channels else jax.vmap(one)(keys)


def run(config):
    """By agent, seed and start: what is predicted and the returns of test episodes."""
    import xarray as xr

    data, coords = {}, {}
    for name in config.games:
        agents = CARTPOLE if name == "CartPole" else BREAKOUT
        id = {"CartPole": "CartPole-v1", "Breakout": "Breakout-MinAtar"}[name]
        game, starts = gymnax_game(id, sticky=STICKY, limit=config.limit), starts_of(config, name)
        found = []
        for above, below, frozen in agents.values():
            agent, utility = agent_of(config, name, frozen), two_slope(above, below)
            found.append(trained(game, agent, utility, starts, config.num_seeds, config.num_episodes, config.limit))
        value, returns = (np.stack([np.asarray(x, float) for x in rows]) for rows in zip(*found, strict=True))
        dims = (f"agent_{name}", "seed", f"start_{name}")
        data |= {f"predicted_{name}": (dims, value), f"returns_{name}": ((*dims, "episode"), returns)}
        coords |= {f"agent_{name}": list(agents), f"start_{name}": np.asarray(starts, float)}
    attrs = {"title": TITLE, "limit": config.limit}
    attrs["full"] = int(config.num_steps >= Config().num_steps)
    return xr.Dataset(data, coords, attrs)


def _cvar_curves(data):
    """Of the agents for CVaR, -c + E min(c + G, 0) / level by start: predicted, and earned by test episodes."""
    here = data.sel(agent_CartPole=[x for x in data["agent_CartPole"].values if x != "mean"])
    start = here["start_CartPole"]
    earned = np.minimum(here["returns_CartPole"] + start, 0).mean("episode") / LEVEL - start
    return here["predicted_CartPole"] / LEVEL - start, earned


def _chosen(data, agent):
    """Returns [seed, episode] from each seed's best predicted start, the predicted CVaR, and the starts."""
    returns = data["returns_CartPole"].sel(agent_CartPole=agent).transpose("seed", "start_CartPole", "episode").values
    start = data["start_CartPole"].values
    if agent == "mean":
        best = np.zeros(len(returns), int)
        predicted = np.full(len(returns), np.nan)
    else:
        curve = _cvar_curves(data)[0].sel(agent_CartPole=agent).transpose("seed", "start_CartPole").values
        best, predicted = curve.argmax(axis=1), curve.max(axis=1)
    return returns[np.arange(len(best)), best], predicted, start[best]


def _tail(returns):
    """The CVaR of each row of returns, float[seed]."""
    probs = jnp.full(returns.shape[1], 1 / returns.shape[1])
    return np.asarray(jax.vmap(lambda x: cvar(Law(x, probs), LEVEL))(jnp.asarray(returns)), float)


def _over_seeds(values):
    """Mean over seeds with two standard errors: infinite for one seed, which says nothing about others."""
    values = np.asarray(values, float)
    error = 2 * values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.inf
    return Measured(float(values.mean()), float(error))


def measured(data):
    """Means over seeds, with two standard errors."""
    out = {}
    if "returns_CartPole" in data:
        for agent in data["agent_CartPole"].values:
            returns, predicted, _ = _chosen(data, agent)
            if agent != "mean":
                out[f"CartPole, {agent}: CVaR {LEVEL} predicted"] = _over_seeds(predicted)
            out[f"CartPole, {agent}: CVaR {LEVEL} earned"] = _over_seeds(_tail(returns))
            out[f"CartPole, {agent}: mean earned"] = _over_seeds(returns.mean(axis=1))
    if "returns_Breakout" in data:
        missed = np.abs(data["returns_Breakout"] + data["start_Breakout"]).mean("episode")
        for agent in data["agent_Breakout"].values:
            rows = {"predicted": -data["predicted_Breakout"], "earned": missed}
            for kind, row in rows.items():
                here = row.sel(agent_Breakout=agent)
                out[f"Breakout, {agent}: mean of E|G - g| over targets, {kind}"] = _over_seeds(
                    here.mean("start_Breakout")
                )
            for start in data["start_Breakout"].values:
                value = missed.sel(agent_Breakout=agent, start_Breakout=start)
                out[f"Breakout, {agent}: E|G - g|, g = {-start:g}"] = _over_seeds(value)
    return out


def plot(data):
    """A row per game: CartPole's objective by first stock and its returns; Breakout's distances and mean scores."""
    rows = [name for name in ("CartPole", "Breakout") if f"returns_{name}" in data]
    with figures.style():
        figure, axes = figures.subplots(len(rows), 2, width=7.5, height=3.3)
        for i, name in enumerate(rows):
            (_plot_cartpole if name == "CartPole" else _plot_breakout)(axes[2 * i], axes[2 * i + 1], data)
        full = data.attrs["full"]
        figure.suptitle(
            f"A study: actions stick with probability {STICKY:g}, at most {data.attrs['limit']} steps an episode;\n"
            f"seeds: {data.sizes['seed']}; training {'in full' if full else 'cut short, no result'}",
            fontsize=9,
        )
    return figure


def _plot_cartpole(curve, law, data):
    predicted, earned = _cvar_curves(data)
    for i, agent in enumerate(predicted["agent_CartPole"].values):
        colour, asked = figures.COLOURS[i], -data["start_CartPole"].values
        for rows, marker, filled in ((predicted, None, None), (earned, "osD"[i], "none")):
            here = rows.sel(agent_CartPole=agent)
            kind = "earned" if marker else "predicted"
            look = {"marker": marker, "linestyle": "none", "color": colour} if marker else figures.line_style(i)
            curve.plot(asked, here.mean("seed"), markerfacecolor=filled, label=f"{agent}: {kind}", markersize=4, **look)
    curve.set(xlabel="threshold $-c$ [steps]", ylabel=f"$-c + E\\min(c + G, 0) / {LEVEL:g}$ [steps]")
    curve.set(title=f"CartPole, CVaR of the worst {LEVEL:.0%}")
    curve.set_ylim(-0.5 * data.attrs["limit"], 1.2 * float(earned.max()))
    for i, agent in enumerate(data["agent_CartPole"].values):
        returns, _, _ = _chosen(data, agent)
        ordered = np.sort(returns.ravel())
        law.plot(ordered, np.arange(1, ordered.size + 1) / ordered.size, label=agent, **figures.line_style(i))
    law.axhline(LEVEL, color="grey", linewidth=0.8, linestyle=":")
    law.set(xlabel="return $G$ [steps]", ylabel="share of test episodes at most $G$", title="CartPole, chosen starts")
    curve.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    law.legend(fontsize=7)


def _plot_breakout(near, score, data):
    target = -data["start_Breakout"].values
    returns = data["returns_Breakout"]
    missed = np.abs(returns + data["start_Breakout"]).mean("episode")
    for i, agent in enumerate(data["agent_Breakout"].values):
        look = figures.line_style(i)
        near.plot(
            target,
            -data["predicted_Breakout"].sel(agent_Breakout=agent).mean("seed"),
            label=f"{agent}: predicted",
            **look,
        )
        here = missed.sel(agent_Breakout=agent).transpose("seed", "start_Breakout").values
        middle = here.mean(axis=0)
        bars = [middle - here.min(axis=0), here.max(axis=0) - middle]
        near.errorbar(
            target + 0.1 * (i - 0.5), middle, bars, fmt="os"[i], color=look["color"], capsize=2, markersize=4,
            linewidth=0.9, label=f"{agent}: earned",
        )  # fmt: skip
        low, mid, high = np.quantile(
            returns.sel(agent_Breakout=agent).transpose("start_Breakout", "seed", "episode").values, [0.1, 0.5, 0.9],
            axis=(1, 2),
        )  # fmt: skip
        score.fill_between(target, low, high, color=look["color"], alpha=0.2, linewidth=0)
        score.plot(target, mid, label=f"{agent}: median, 10-90%", marker="os"[i], markersize=4, **look)
    score.plot(target, target, color="black", linewidth=0.8, linestyle=":", label="asked for")
    near.set(xlabel="target score $g$", ylabel="$E|G - g|$ [score]", title="Breakout, distance from the target")
    score.set(xlabel="target score $g$", ylabel="score $G$", title="Breakout, scores of test episodes")
    for axis in (near, score):  # room for the names above the curves
        axis.set_ylim(None, 1.4 * axis.get_ylim()[1])
        axis.legend(fontsize=7, loc="upper left")
