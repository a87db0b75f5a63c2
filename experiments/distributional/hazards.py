"""A budget of hazards: the price of each one above it, and how the agent spends what it may."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments import figures
from experiments.distributional.lotteries import binomial, paths
from experiments.reference import Measured, Reference
from rlcore.distributional import constrained, vector_grids, vector_law, vector_stock_vi

TITLE = (
    "Hazards: the best trade of moves for hazards above a budget, by price and budget, and how it is spent (a study)"
)
PRECISION = "float64"
BUDGETS = (0, 1, 2, 3)
STRIKES = 0.5
PRICES = (0.5, 2.0, 8.0)  # of the numbers known
SHOWN = 8.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Prices 0, step, ..., `most` of a hazard above the budget, in moves; the known ones are added."""

    step: float = 0.1
    most: float = 10.0


QUICK = Config(step=0.5)

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 8"
VALUES = {0.5: (-4.75, -4.3125, -4.0625, -4.0), 2.0: (-6, -5.25, -4.25, -4), 8.0: (-6, -5.5, -4.5, -4)}
LENGTHS = (6.0, 5.5, 4.5, 4.0)  # at SHOWN
REFERENCES = {
    f"value, price {price:g}, budget {budget}": Reference(value, 1e-9, MINE, WHERE)
    for price, values in VALUES.items()
    for budget, value in zip(BUDGETS, values, strict=True)
}
REFERENCES |= {
    f"expected moves, price {SHOWN:g}, budget {budget}": Reference(length, 1e-9, MINE, WHERE)
    for budget, length in zip(BUDGETS, LENGTHS, strict=True)
}
REFERENCES[f"most hazards above the budget, price {SHOWN:g}"] = Reference(0.0, 1e-9, MINE, WHERE)


def without_stocks(problem, prices):
    """The largest value without stocks, float[price, budget]: the best path, whatever strikes on it."""
    pairs = paths(problem)
    probs = binomial(pairs[:, 1], STRIKES)
    above = np.maximum(np.arange(probs.shape[1]) - np.array(BUDGETS)[:, None], 0)
    values = -pairs[:, 0] - prices[:, None, None] * (above @ probs.T)
    return values.max(axis=2)


def run(config):
    """By price and budget: the value, expected moves and hazards above the budget; at one price, the law of both."""
    import xarray as xr

    problem, rewards = envs.make("hazards")
    starts = [(0.0, float(budget)) for budget in BUDGETS]
    grids = vector_grids(problem, rewards, starts)
    prices = np.arange(round(config.most / config.step) + 1) * config.step
    prices = np.unique(np.round(np.concatenate([prices, PRICES]), 9))
    solve = lambda price: vector_stock_vi(problem, rewards, constrained(price), grids)  # noqa: E731
    found = jax.jit(jax.vmap(solve))(jnp.asarray(prices))
    state = int(np.argmax(problem.initial))
    index = [
        tuple(int(np.argmin(np.abs(np.asarray(g.nodes) - c))) for g, c in zip(grids, x, strict=True)) for x in starts
    ]
    value = np.stack([np.asarray(found.value)[(slice(None), 0, state, *i)] for i in index], axis=1)
    moves, above = np.zeros(value.shape), np.zeros(value.shape)
    law = np.zeros((len(BUDGETS), problem.horizon + 1, problem.horizon + 1))
    for i, price in enumerate(prices):
        policy = jax.tree.map(lambda x, i=i: x[i], found.policy)
        policy = dataclasses.replace(policy, grids=grids)
        for j, (start, budget) in enumerate(zip(starts, BUDGETS, strict=True)):
            here = vector_law(problem, rewards, policy, jnp.asarray(start))
            lengths, met = -np.asarray(here.values).T
            probs = np.asarray(here.probs)
            moves[i, j] = probs @ lengths
            above[i, j] = probs @ np.maximum(met - budget, 0)
            if price == SHOWN:
                np.add.at(law[j], (np.rint(lengths).astype(int), np.rint(met).astype(int)), probs)
    count = np.arange(problem.horizon + 1)
    both = ("price", "budget")
    return xr.Dataset(
        {
            "value": (both, value),
            "moves": (both, moves),
            "above": (both, above),
            "without": (both, without_stocks(problem, prices)),
            "law": (("budget", "length", "met"), law),
        },
        {"price": prices, "budget": list(BUDGETS), "length": count, "met": count},
        {"title": TITLE},
    )


def measured(data):
    """Exact numbers, to rounding."""
    out = {}
    for price in PRICES:
        for budget in BUDGETS:
            here = data["value"].sel(price=price, budget=budget).item()
            out[f"value, price {price:g}, budget {budget}"] = Measured(here, 1e-12)
    for budget in BUDGETS:
        here = data["moves"].sel(price=SHOWN, budget=budget).item()
        out[f"expected moves, price {SHOWN:g}, budget {budget}"] = Measured(here, 1e-12)
    over = [data["met"].values[data["law"].sel(budget=d).sum("length").values > 0].max() - d for d in BUDGETS]
    out[f"most hazards above the budget, price {SHOWN:g}"] = Measured(float(max(0, *over)), 0.0)
    claimed = -data["moves"] - data["price"] * data["above"]
    gap = float(np.abs((claimed - data["value"]).values).max())
    out["largest |moves and hazards of the law - value|"] = Measured(gap, 1e-12)
    gain = (data["value"] - data["without"]).max("price")
    for budget in BUDGETS:
        out[f"largest gain of stocks, budget {budget}"] = Measured(gain.sel(budget=budget).item(), 1e-12)
    return out


def plot(data):
    """Value, expected moves and hazards above the budget by price; at the highest known price, the laws of both."""
    price = data["price"]
    with figures.style():
        figure, axes = figures.subplots(2, 2, width=7.5, height=3.0)
        value, moves, above, law = axes
        for i, budget in enumerate(BUDGETS):
            here, look = data.sel(budget=budget), figures.line_style(i)
            value.plot(price, here["value"], label=f"budget {budget}", **look)
            value.plot(price, here["without"], color=look["color"], linewidth=0.7)
            moves.plot(price, here["moves"], **look)
            above.plot(price, here["above"], **look)
            value.plot(PRICES, [VALUES[x][i] for x in PRICES], "kx", markersize=5, zorder=3)
            moves.plot(SHOWN, LENGTHS[i], "kx", markersize=5, zorder=3)
            at, met = np.nonzero(data["law"].sel(budget=budget).values > 1e-12)
            probs = data["law"].sel(budget=budget).values[at, met]
            place = data["met"].values[met] + 0.18 * (i - 1.5)
            law.scatter(place, data["length"].values[at], s=260 * probs, color=look["color"], linewidth=0)
        value.plot([], [], color="grey", linewidth=0.7, label="without stocks")
        value.plot([], [], "kx", markersize=5, label="prototype")
        above.plot(SHOWN, 0, "kx", markersize=5, zorder=3, clip_on=False)
        value.set(ylabel="value [moves]", xlabel="price of a hazard above the budget [moves]")
        moves.set(ylabel="expected moves", xlabel="price of a hazard above the budget [moves]")
        above.set(ylabel="expected hazards above the budget", xlabel="price of a hazard above the budget [moves]")
        law.set(xlabel="hazards met", ylabel="moves", title=f"price {SHOWN:g}: areas are probabilities")
        law.set(xlim=(-0.6, 3.6), ylim=(3.5, 6.5))
        law.set_yticks([4, 5, 6])
        law.set_xticks([0, 1, 2, 3])
        handles, names = value.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=6)
        figure.suptitle("A study: a short way on which hazards strike, a longer one that is safe", fontsize=9)
    return figure
