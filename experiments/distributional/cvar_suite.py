"""The best CVaR of four costs at several levels beside golden values, and exact laws of the policies that have it."""

import dataclasses

import numpy as np

from envs.risk import betting, deep_sea_treasure, mud_and_nails, obstacle
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import (
    cvar,
    cvar_curve,
    mean,
    policy_action,
    policy_law,
    return_range,
    stock_vi,
    two_slope,
)

TITLE = "CVaR suite: betting, obstacle, mud and nails, deep-sea treasure (a study)"
PRECISION = "float64"
PROBLEMS = {
    "betting": betting,
    "obstacle": obstacle,
    "mud_and_nails": mud_and_nails,
    "deep_sea_treasure": deep_sea_treasure,
}
LEVELS = {
    "betting": (0.1, 0.2, 0.5),
    "obstacle": (0.1, 0.2, 0.3),
    "mud_and_nails": (0.1, 0.2, 0.3),
    "deep_sea_treasure": (0.1, 0.2, 0.5),
}
# Sweeps and pushes end at 1e-10, over the level 0.1, times the tens of steps that an episode may have left.
SWEEPS = 1e-7
# A slope above 0 that ranks policies of one CVaR by their mean, and is far below what tells two CVaRs apart.
TILT = 1e-7


@dataclasses.dataclass(frozen=True)
class Config:
    """The problems, of PROBLEMS."""

    problems: tuple[str, ...] = tuple(PROBLEMS)


QUICK = Config(problems=("betting",))

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 4"
DIGITS = 5.1e-7
# The best mean cost; by level: the best CVaR, the stock it is found at, the policy's mean cost, and the CVaR of the
# policy that is best for the mean. The last three may depend on ties.
GOLDEN = {
    "betting": (
        56.609101,
        {
            0.1: (93.862633, 92, 81.322861, 100.0),
            0.2: (92.193919, 88, 72.083918, 96.363330),
            0.5: (84.656789, 71, 63.001822, 85.365444),
        },
    ),
    "obstacle": (
        25.240160,
        {
            0.1: (49.109073, 42, 27.328782, 55.855791),
            0.2: (41.079294, 29, 27.497455, 47.164659),
            0.3: (36.523180, 27, 27.324903, 43.334152),
        },
    ),
    "deep_sea_treasure": (
        359.342353,
        {
            0.1: (474.034450, 465, 421.161333, 519.491848),
            0.2: (453.872599, 425, 380.252945, 473.040722),
            0.5: (419.982713, 370, 369.524935, 427.919285),
        },
    ),
}
COLUMNS = ("best CVaR", "stock", "its mean, over ties", "CVaR of the best mean")


def _references():
    out = {}
    for name, (least, levels) in GOLDEN.items():
        out[f"{name}: best mean"] = Reference(least, DIGITS, MINE, WHERE)
        for level, row in levels.items():
            for column, value in zip(COLUMNS, row, strict=True):
                error = 0.0 if column == "stock" else DIGITS
                out[f"{name}, {level:g}: {column}"] = Reference(value, error, MINE, WHERE)
    return out


REFERENCES = _references()

# East, south, west, north as (row, column).
COMPASS = ((0, 1), (1, 0), (0, -1), (-1, 0))
# Rows and columns of the two roads.
SHAPES = {"obstacle": (10, 10), "mud_and_nails": (3, 9)}
STARTS = {"obstacle": (0, 0), "mud_and_nails": (1, 0)}


def cells(problem, start):
    """{(row, column): state} of a road, by following the most likely outcome of each move from the start.

    Args: problem: of `SHAPES`; start: the cell of state 0, counted from 0. The car's tyre stays whole.
    """
    next_state, prob, terminal = (np.asarray(x) for x in (problem.next_state, problem.prob, problem.terminal))
    found, seen, todo = {start: 0}, {0}, [start]
    for cell in todo:  # grows while we read it: breadth first
        state = found[cell]
        for action, (down, right) in enumerate(COMPASS):
            likely = int(np.argmax(prob[state, action]))
            after = int(next_state[state, action, likely])
            if after not in seen and not terminal[state, action, likely]:
                target = (cell[0] + down, cell[1] + right)
                found[target] = after
                seen.add(after)
                todo.append(target)
    return found


def _suite(name):
    """The arrays of one problem, by name, with their dimensions."""
    problem, levels = PROBLEMS[name](), LEVELS[name]
    found = cvar_curve(problem, list(levels))
    policy, grid = found.solution.policy, found.solution.policy.grid
    stocks = np.asarray(found.stock)
    # a stock of 0 is never lost: min(c + G, 0) = G, and the policy is best for the mean
    laws = [policy_law(problem, policy, c) for c in (*stocks, 0.0)]
    first = min(x.law.values[0].item() for x in laws)
    spacing = float(grid.lattice.spacing)
    size = round(-first / spacing) + 1
    probs = np.zeros((len(laws), size))  # by cost, in spacings
    for row, x in zip(probs, laws, strict=True):
        at = np.rint(-np.asarray(x.law.values) / spacing).astype(int)
        np.add.at(row, at[at >= 0], np.asarray(x.law.probs)[at >= 0])
    own = np.array([-float(mean(x.law)) for x in laws[:-1]])
    tied = np.stack([own, own])
    tails = [[-float(cvar(x.law, t)) for x, t in zip(laws, levels, strict=False)]]
    if np.isfinite(return_range(problem)[0]).all():  # else the worst mean is infinite
        for row, tilt in zip(tied, (TILT, -TILT), strict=True):
            other = stock_vi(problem, two_slope(tilt, 1.0), grid).policy
            others = [policy_law(problem, other, c).law for c in stocks]
            row[:] = [-float(mean(x)) for x in others]
            tails.append([-float(cvar(x, t)) for x, t in zip(others, levels, strict=True)])
    out = {
        "best": (("level",), -np.asarray(found.value)),
        "stock": (("level",), stocks),
        # of the policy of the first actions, then of those of extreme means
        "law_cvar": (("policy_found", "level"), np.array(tails)),
        "law_mean": (("level",), own),
        # the least and the greatest mean cost among policies of the best CVaR
        "tied_mean": (("end", "level"), tied),
        "mean_best": ((), -float(mean(laws[-1].law))),
        "mean_cvar": (("level",), [-float(cvar(laws[-1].law, level)) for level in levels]),
        "remaining": ((), max(float(x.remaining) for x in laws)),
        "curve": (("level", "node"), -np.asarray(found.curve)),
        "node": (("node",), np.asarray(grid.nodes)),
        "probs": (("policy", "point"), probs),
        "cost": (("point",), spacing * np.arange(size)),
        "first_action": (("node",), [int(policy_action(policy, 0, c)) for c in np.asarray(grid.nodes)]),
    }
    if name in SHAPES:
        where = cells(problem, STARTS[name])
        maps = np.full((2, *SHAPES[name]), -1)
        for i, c in enumerate((0.0, stocks[0])):
            for cell, state in where.items():
                maps[i][cell] = int(policy_action(policy, state, c))
        out["map"] = (("slice", "row", "column"), maps)
    return out


def run(config):
    """Curves of the search, laws and policies of every problem; a dimension per problem for what differs in size."""
    import xarray as xr

    data = {}
    for name in config.problems:
        for key, (dims, values) in _suite(name).items():
            data[f"{name}.{key}"] = (tuple(f"{name}.{d}" for d in dims), np.asarray(values))
    coords = {f"{name}.level": list(LEVELS[name]) for name in config.problems}
    return xr.Dataset(data, coords, {"title": TITLE})


def present(data):
    """The problems of a data set, in order."""
    return [name for name in PROBLEMS if f"{name}.best" in data]


def measured(data):
    """The table of the specification, costs positive; NaN for problems that the preset leaves out."""
    out = {name: Measured(np.nan, np.nan) for name in REFERENCES}
    furthest = unended = 0.0
    for name in present(data):
        get = lambda key, name=name: data[f"{name}.{key}"].values  # noqa: E731
        out[f"{name}: best mean"] = Measured(float(get("mean_best")), SWEEPS)
        least, most = get("tied_mean")
        # policies of one CVaR differ in their means: the middle of these, and half their range
        columns = (get("best"), get("stock"), (least + most) / 2, get("mean_cvar"))
        for i, level in enumerate(LEVELS[name]):
            for column, values in zip(COLUMNS, columns, strict=True):
                error = 0.0 if column == "stock" else SWEEPS
                error += (most - least)[i] / 2 if column == COLUMNS[2] else 0.0
                out[f"{name}, {level:g}: {column}"] = Measured(float(values[i]), error)
            out[f"{name}, {level:g}: mean of the first actions"] = Measured(float(get("law_mean")[i]), SWEEPS)
            out[f"{name}, {level:g}: CVaR of the policy's law"] = Measured(float(get("law_cvar")[0, i]), SWEEPS)
        furthest = max(furthest, float(np.max(np.abs(get("law_cvar") - get("best")[None]))))
        unended = max(unended, float(get("remaining")))
    out["largest probability of an episode cut off"] = Measured(unended, 0.0)
    out["largest difference of a law's CVaR from the search"] = Measured(furthest, SWEEPS)
    return out


NAMES = {"mud_and_nails": "mud and nails", "deep_sea_treasure": "deep-sea treasure", "obstacle": "obstacle-10"}
HEADINGS = ("E", "SE", "S", "SW", "W", "NW", "N", "NE")


def _search(axis, name, get):
    """c - V / level by stock, its least values and the golden ones."""
    for i, level in enumerate(LEVELS[name]):
        axis.plot(get("node"), get("curve")[i], label=f"level {level:g}", **figures.line_style(i))
        axis.plot(get("stock")[i], get("best")[i], "o", color=figures.COLOURS[i], markersize=5)
        if name in GOLDEN:
            cost, stock, *_ = GOLDEN[name][1][level]
            axis.plot(stock, cost, "kx", markersize=7, label="prototype" if i == 0 else None)
    low, high = get("best").min(), get("best").max()
    axis.set_ylim(low - 0.25 * (high - low) - 1, high + 1.2 * (high - low) + 3)
    axis.set(xlabel="first stock c [cost]", ylabel="cost", title=f"{NAMES.get(name, name)}: c - V(c) / level")
    nodes, best = get("node"), get("stock").max()
    axis.set_xlim(right=min(nodes[-1], best + 0.6 * (best - nodes[0])))
    axis.legend(fontsize=7, loc="lower left")


def _laws(axis, name, get):
    """How likely a cost is exceeded, by policy."""
    cost = get("cost")
    words = [f"CVaR {level:g}" for level in LEVELS[name]] + ["mean"]
    floor = 1e-3
    for i, (word, probs) in enumerate(zip(words, get("probs"), strict=True)):
        above = 1 - np.cumsum(probs)
        costs = [*(f"{x:.1f}" for x in get("law_mean")), f"{get('mean_best'):.1f}"]
        axis.step(cost, np.maximum(above, floor / 2), where="post", label=f"best {word}: mean {costs[i]}",
                  **figures.line_style(i if i < 3 else 6))  # fmt: skip
    above = 1 - np.cumsum(get("probs"), axis=1)
    last = cost[np.flatnonzero((above > floor).any(axis=0))[-1]]
    first = cost[np.flatnonzero((get("probs") > floor).any(axis=0))[0]]
    for i, level in enumerate(LEVELS[name]):
        axis.axhline(level, color=figures.COLOURS[i], linewidth=0.6)
    axis.set(yscale="log", ylim=(floor, 1.3), xlim=(first - 0.02 * (last - first), last * 1.02))
    axis.set(xlabel="cost x", ylabel="P(cost > x)", title="laws of the policies; lines: levels")
    axis.legend(fontsize=6.5, loc="lower left")


def _policy(axis, name, get):
    """What the policy does: arrows on a road, grey where they differ; else the first action by stock."""
    if f"{name}.map" not in get.data:
        axis.plot(get("node"), get("first_action"), drawstyle="steps-mid", **figures.line_style(0))
        count = 8 if name == "deep_sea_treasure" else 6
        for i, (level, stock) in enumerate(zip(LEVELS[name], get("stock"), strict=True)):
            axis.vlines(stock, -0.4, count - 0.6, label=f"best at {level:g}", linewidth=1, **figures.line_style(i))
        axis.set(xlabel="stock c [cost]", title="first action by stock; lines: best by level", ylim=(-0.4, count + 0.6))
        axis.set_yticks(range(count), HEADINGS if count == 8 else range(6))
        axis.set_ylabel("heading" if count == 8 else "bet")
        axis.legend(fontsize=7, ncols=3, loc="upper left")
        return
    maps = get("map")
    rows, columns = maps.shape[1:]
    differs = (maps[0] != maps[1]) & (maps[0] >= 0)
    axis.imshow(differs, cmap="Greys", vmin=0, vmax=3, aspect="auto")
    for i, colour in enumerate(("black", figures.COLOURS[1])):
        row, column = np.nonzero(maps[i] >= 0)
        down, right = np.array(COMPASS)[maps[i][row, column]].T
        axis.quiver(column, row + (i - 0.5) * 0.35, right, -down, color=colour, scale=4.2 * columns / 2, width=0.006,
                    headwidth=4, pivot="mid", linestyle=("-", "--")[i])  # fmt: skip
    axis.grid(visible=False)
    axis.set_xticks(range(columns), range(1, columns + 1))
    axis.set_yticks(range(rows), range(1, rows + 1))
    axis.set(xlabel="column", ylabel="row")
    axis.set_title(f"moves: black, best mean; orange, stock {get('stock')[0]:g}")


class _Get:
    """The arrays of one problem."""

    def __init__(self, data, name):
        self.data, self.name = data, name

    def __call__(self, key):
        return self.data[f"{self.name}.{key}"].values


def plot(data):
    """A row per problem: the search over stocks, the laws of its policies, what they do."""
    names = present(data)
    with figures.style():
        figure, axes = figures.subplots(
            len(names), 3, width=12.0, height=3.0, gridspec_kw={"width_ratios": (1, 1.1, 1.1)}
        )
        for i, name in enumerate(names):
            get = _Get(data, name)
            for axis, draw in zip(axes[3 * i : 3 * i + 3], (_search, _laws, _policy), strict=True):
                draw(axis, name, get)
        figure.suptitle("A study: level, the share of the worst costs; stock policies, exact laws", fontsize=9)
    return figure
