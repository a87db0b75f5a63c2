"""Two drives to keep in balance: the least distance from it by first drives, and what a frozen stock loses."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import MaxNLocator

import envs
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import norm_drive, vector_evaluation, vector_grids, vector_law, vector_stock_vi

TITLE = "Homeostasis: the least distance from the balance of food and water after ten moves, by first drives (a study)"
PRECISION = "float64"
STARTS = ((0, 0), (5, 0), (0, 5), (-4, 4), (6, 6), (12, 12))
ORDERS = (1, 2)
SHOWN = (0, 0)  # first drives whose laws are kept


@dataclasses.dataclass(frozen=True)
class Config:
    """Chances of staying, with 0 and 0.2; first drives from `low` to `high` in both coordinates."""

    slips: tuple[float, ...] = (0.0, 0.2)
    low: int = -20
    high: int = 20


QUICK = Config(low=-6, high=12)

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 7"
ROOT = 2**0.5
GOLDEN = {
    (1, 0.0): (2, 2, 2, 2, 2, 4),
    (2, 0.0): (ROOT, ROOT, ROOT, 2, ROOT, 2 * ROOT),
    (1, 0.2): (6.260297, 3.454239, 3.454239, 5.311880, 2.694877, 4),
}


def _name(order, slip, start):
    return f"least E|c + G|, l{order}, slip {slip:g}, c = {start}"


REFERENCES = {
    _name(*key, start): Reference(value, 6e-7, MINE, WHERE)
    for key, values in GOLDEN.items()
    for start, value in zip(STARTS, values, strict=True)
}


def frozen(policy, index):
    """The policy that goes on as if its stock were still the first one, the node of these two indices."""
    now = policy.action[..., index[0], index[1]]
    return dataclasses.replace(policy, action=jnp.broadcast_to(now[..., None, None], policy.action.shape))


def _nodes(grids, start):
    """Indices of the nodes of a first stock."""
    return tuple(int(np.argmin(np.abs(np.asarray(g.nodes) - c))) for g, c in zip(grids, start, strict=True))


def run(config):
    """By chance of staying and norm: least distance over a plane of first drives; with the stock frozen; laws."""
    import xarray as xr

    side = np.arange(config.low, config.high + 1)
    corners = ((config.low, config.low), (config.high, config.high))
    shape = (len(config.slips), len(ORDERS))
    distance = np.zeros((*shape, side.size, side.size))
    cold = np.zeros((*shape, len(STARTS)))
    laws = {}
    for i, slip in enumerate(config.slips):
        problem, rewards = envs.make("homeostasis", slip=slip)
        grids = vector_grids(problem, rewards, corners)
        first = _nodes(grids, corners[0])
        window = tuple(slice(f, f + side.size) for f in first)
        state = int(np.argmax(problem.initial))
        for j, order in enumerate(ORDERS):
            drive = norm_drive(order)
            solution = vector_stock_vi(problem, rewards, drive, grids)
            distance[i, j] = np.abs(np.asarray(solution.value)[(0, state, *window)])
            for k, start in enumerate(STARTS):
                index = _nodes(grids, start)
                kept = frozen(solution.policy, index)
                value = vector_evaluation(problem, rewards, drive, kept).value
                cold[i, j, k] = abs(float(value[(0, state, *index)]))
                if start == SHOWN and order == 1:
                    for name, policy in (("stock", solution.policy), ("stock frozen", kept)):
                        laws[slip, name] = vector_law(problem, rewards, policy, jnp.asarray(start, float))
    ends = np.arange(-10, 21)  # ten moves pay between -1 and 2 each in both coordinates
    law = np.zeros((len(config.slips), 2, ends.size, ends.size))
    for i, slip in enumerate(config.slips):
        for j, name in enumerate(("stock", "stock frozen")):
            found = laws[slip, name]
            place = np.rint(np.asarray(found.values)).astype(int) - ends[0]
            np.add.at(law[i, j], (place[:, 0], place[:, 1]), np.asarray(found.probs))
    return xr.Dataset(
        {
            "distance": (("slip", "order", "food", "water"), distance),
            "frozen": (("slip", "order", "start"), cold),
            "law": (("slip", "agent", "food_return", "water_return"), law),
        },
        {
            "slip": list(config.slips), "order": list(ORDERS), "food": side, "water": side,
            "start": [str(x) for x in STARTS], "agent": ["stock", "stock frozen"], "food_return": ends,
            "water_return": ends,
        },
        {"title": TITLE},
    )  # fmt: skip


def measured(data):
    """Exact numbers, to rounding: sums of some thousand products below 100."""
    out = {}
    for slip in data["slip"].values:
        for order in ORDERS:
            here = data.sel(slip=slip, order=order)
            for start in STARTS:
                value = here["distance"].sel(food=start[0], water=start[1]).item()
                out[_name(order, float(slip), start)] = Measured(value, 1e-12)
            cold = here["frozen"].mean().item()
            out[f"mean over the starts, l{order}, slip {slip:g}, stock frozen"] = Measured(cold, 1e-12)
        law = data["law"].sel(slip=slip, agent="stock")
        norm = np.abs(data["food_return"] + SHOWN[0]) + np.abs(data["water_return"] + SHOWN[1])
        at = data["distance"].sel(slip=slip, order=1, food=SHOWN[0], water=SHOWN[1]).item()
        name = f"|E|c + G| of the policy's law - least|, l1, slip {slip:g}, c = {SHOWN}"
        out[name] = Measured(abs(float((law * norm).sum()) - at), 1e-12)
    return out


def plot(data):
    """Least distances over the plane of first drives; at the known starts, with a frozen stock; two laws."""
    food, water = data["food"].values, data["water"].values
    slip = float(data["slip"].values[-1])
    with figures.style():
        figure, axes = figures.subplots(2, 3, width=9.6, height=3.2)
        flat = data["distance"].sel(order=1)
        top = float(flat.max())
        for axis, (order, stays) in zip(axes[:3], ((1, 0.0), (1, slip), (2, slip)), strict=True):
            plane = data["distance"].sel(order=order, slip=stays).transpose("water", "food")
            image = axis.imshow(
                plane.values, origin="lower", cmap="viridis", vmin=0, vmax=top,
                extent=(food[0] - 0.5, food[-1] + 0.5, water[0] - 0.5, water[-1] + 0.5),
            )  # fmt: skip
            axis.plot(*np.array(STARTS).T, "wx", markersize=5)
            axis.set(xlabel="first drive for food $c_1$", ylabel="first drive for water $c_2$")
            axis.set_title(f"least $E\\|c + G\\|_{order}$, slip {stays:g}")
            axis.grid(False)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.colorbar(image, ax=axes[2], label="distance [drive]")
        known, steered, cold = axes[3:]
        place = np.arange(len(STARTS))
        shown = [(1, 0.0), (2, 0.0), (1, 0.2)]
        for i, (order, stays) in enumerate(shown):
            here = data.sel(order=order, slip=stays)
            least = [here["distance"].sel(food=a, water=b).item() for a, b in STARTS]
            at = place + 0.22 * (i - 1)
            label = f"$\\ell_{order}$, slip {stays:g}"
            known.plot(at, least, "osD"[i], color=figures.COLOURS[i], markersize=5, label=label)
            known.plot(at, here["frozen"], "osD"[i], color=figures.COLOURS[i], markersize=5, markerfacecolor="none")
            known.plot(at, GOLDEN[order, stays], "kx", markersize=4, label="prototype" if i == 2 else None)
        known.plot([], [], "o", color="grey", markerfacecolor="none", label="stock frozen")
        known.set_xticks(place, [str(x) for x in STARTS], rotation=20)
        known.set(xlabel="first drives $c$", ylabel="distance [drive]")
        known.set(ylim=(0, 1.45 * data["frozen"].max().item()))
        known.legend(fontsize=7, ncols=2, loc="upper center")
        for axis, agent in ((steered, "stock"), (cold, "stock frozen")):
            law = data["law"].sel(slip=slip, agent=agent).values
            i, j = np.nonzero(law > 1e-6)
            axis.scatter(
                data["food_return"].values[i] + SHOWN[0], data["water_return"].values[j] + SHOWN[1],
                s=400 * law[i, j], color=figures.COLOURS[0], alpha=0.7, linewidth=0,
            )  # fmt: skip
            axis.plot(0, 0, "k+", markersize=8)
            axis.set(xlim=(-12, 21), ylim=(-12, 21), xlabel="drive for food at the end", ylabel="drive for water")
            axis.set_title(f"from {SHOWN}, $\\ell_1$, slip {slip:g}: {agent}")
        figure.suptitle(
            "A study: both drives fall by 1 a move and rise by 3 where food or water is; "
            "white crosses: the known starts; areas are probabilities",
            fontsize=9,
        )
    return figure
