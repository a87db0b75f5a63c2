"""The golden table: solvability, gaps, windows and returns of 26 problems, with and without sticky actions."""

import dataclasses
import re

import jax
import numpy as np

from envs.effective_horizon import GOLDEN, STICKINESS, golden_problems
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.episodic import stacked
from rlcore.mdp import sticky
from rlcore.sqirl import analyze_episodic

TITLE = "The golden table of the effective horizon, with and without sticky actions (a study)"
PRECISION = "float64"
# Few shapes, so few programs: small state spaces, grids of 37 to 210 states, rooms with a heading, the large room.
GROUPS = {
    "small": tuple(
        name for name in GOLDEN if re.match("lock|corr|deepsea-5|deepsea-10|frozen4|lava|catch|river", name)
    ),
    "grids": ("deepsea-20", "frozen8-det", "fourrooms", "crossing9", "cliff-0"),
    "rooms": ("Empty-5x5", "Empty-6x6", "Empty-8x8", "KeyCorridorS3R1"),
    "large": ("Empty-16x16", "Empty-16x16 shaped"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Groups of problems; an action is optimal within `tol` [reward]; depth of the ladder."""

    groups: tuple[str, ...] = tuple(GROUPS)
    tol: float = 1e-4
    max_k: int = 30


QUICK = Config(groups=("small",))

# MDP|J*|J_rand|min_k|first C-solvable k, gap there|W|J_1, J_2|k95, each without/with sticky actions.
TABLE = """
lock k=2|1/.75|.1875/.171875|2/2|2,.5/2,.25|2/2|.5,1/.5,.75|2/2
lock k=3|1/.75|.140625/.1455|3/3|3,.5/3,.25|3/3|.5,.5/.5,.5|3/3
lock k=4|1/.75|.1289/.1340|4/4|4,.5/4,.25|4/4|.5,.5/.5,.5|4/4
lock k=6|1/.75|.1252/.1267|6/6|6,.5/6,.25|6/6|.5,.5/.5,.5|6/6
corridor-5 T10|1/1|.1748/.2852|1/1|1,.0625/1,.100|5/5|1,1/1,1|1/1
corridor-10 T20|1/1|.03842/.1090|1/1|1,.00195/1,.00682|10/10|1,1/1,1|1/1
corridor-10 T40|1/1|.1980/.3509|1/1|1,.00195/1,.00682|10/10|1,1/1,1|1/1
deepsea-5|.99/.99|.02625/.07129|1/1|1,.0605/1,.150|5/5|.99,.99/.99,.99|1/1
deepsea-10|.99/.99|-.004023/.002276|1/1|1,.000953/1,.0132|10/10|.99,.99/.99,.99|1/1
deepsea-20|.99/.99|-.004999/-.004934|13/9|13,.00131/9,.00102|20/20|0,0/0,0|13/9
frozen4-det|1/.999637|.01244/.01943|1/1|1,.00195/1,.000315|6/6|1,1/.9996,.9996|1/1
frozen4-slip|.461601/.224332|.01391/.01534|1/12|1,1.95e-5/12,5.81e-5|15/14|.4616,.3734/.1530,.1529|1/7
frozen8-det|1/1|.001160/.006198|1/1|1,2.38e-7/16,1.83e-4|14/14|1,1/1,1|1/1
fourrooms|1/1|.0002131/.001053|1/17|1,4.0e-9/17,8.57e-5|20/20|1,1/1,1|1/1
crossing9|1/.999998|.01369/.02305|1/1|1,1.43e-5/1,3.22e-5|12/12|1,1/1,1|1/1
lavagap5|1/.999929|.03128/.04238|1/1|1,.0156/1,.0115|4/4|1,1/.9999,.9999|1/1
cliff-0|1/1|2.471e-4/.001661|1/1|1,5.96e-8/1,6.77e-6|13/14|1,1/1,1|1/1
catch-5x3|1/.997396|.3333/.3333|1/3|1,.333/3,.0156|2/5|1,1/.9857,.9857|1/1
riverswim-6 T20|.169863/.169858|.002189/.004282|6/6|6,2.13e-4/6,1.72e-4|7/7|.005,.005/.1695,.1698|4/1
Empty-5x5|1/1|.7620/.7258|1/1|1,.00412/1,.00293|5/5|1,1/1,1|1/1
Empty-6x6|1/1|.4993/.5057|1/1|1,4.57e-4/1,7.32e-4|7/7|1,1/1,1|1/1
Empty-8x8|1/1|.1784/.2151|1/1|1,5.65e-6/1,4.58e-5|11/11|1,1/1,1|1/1
Empty-16x16|1/1|4.604e-4/.002123|1/1|1,1.31e-13/1,6.98e-10|27/27|1,1/1,1|1/1
Empty-16x16 shaped|3.7/3.7|.6883/.7718|1/13|1,.0154/14,8.72e-4|1/1|3.7,3.7/3.7,3.7|1/1
KeyCorridorS3R1|1/1|.0032357/.0010069|1/1|1,1.70e-11/16,1.83e-4|15/16|1,1/1,1|1/1
"""
# What changes at tol = 1e-9: (name, sticky): (first C-solvable k, its gap), and min_k where it changes too.
TIGHTER = {
    ("frozen4-slip", False): (13, "1.67e-4", 13),
    ("crossing9", True): (2, "1.15e-6", 2),
    ("Empty-16x16", True): (13, "4.29e-6", 13),
    ("corridor-10 T20", True): (None, ".0375", None),
    ("frozen4-slip", True): (None, "2.7e-6", None),
    ("frozen8-det", True): (None, "2.79e-9", None),
    ("fourrooms", True): (None, "2.79e-9", None),
    ("KeyCorridorS3R1", True): (None, "2.79e-9", None),
    ("riverswim-6 T60", False): (None, "7.1e-5", None),
    ("riverswim-6 T60", True): (None, "5.75e-5", None),
    ("Empty-16x16 shaped", True): (None, "7.51e-4", None),
}
COLUMNS = ("optimal_return", "random_return", "min_k", "solvable_k", "gap", "window", "J_1", "J_2", "k95")
COUNTS = ("min_k", "solvable_k", "window", "k95")


def golden_rows() -> dict[tuple[str, bool], dict[str, str]]:
    """The printed numbers, by problem and stickiness, by column."""
    rows = {}
    for line in TABLE.strip().splitlines():
        name, *cells = line.split("|")
        for sticking in (False, True):
            words = [cell.split("/")[sticking].strip() for cell in cells]
            rows[name, sticking] = dict(zip(COLUMNS, ",".join(words).split(","), strict=True))
    return rows


def half_digit(text: str) -> float:
    """Half a unit of a printed number's last place; short decimals (.5, 1, .99) are exact to 4 places and more."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2])
    if not exponent and places < 3:
        places = 4
    return 0.5000001 * 10.0 ** (int(exponent or 0) - places)


MINE, WHERE = "prototype of this project", "specification of the family, section 6"
REFERENCES = {
    f"{name}{', sticky' if sticking else ''}: printed numbers met": Reference(len(COLUMNS), 0.0, MINE, WHERE)
    for name, sticking in golden_rows()
}


@jax.jit(static_argnames="max_k")
def _analyses(stack, tol, max_k):
    return jax.vmap(lambda one: analyze_episodic(one, max_k=max_k, tol=tol))(stack)


def analysed(group: str, sticking: bool, tol: float = 1e-4, max_k: int = 30):
    """{name: `Analysis`} of one group of problems, in one program."""
    problems = golden_problems(GROUPS[group])
    stack = stacked([sticky(mdp, STICKINESS) if sticking else mdp for mdp in problems.values()])
    found = jax.device_get(_analyses(stack, tol, max_k))
    return {name: jax.tree.map(lambda x, i=i: x[i], found) for i, name in enumerate(problems)}


def row(analysis) -> dict[str, float]:
    """The table's columns of an `Analysis`, and the effective horizon."""
    first, second = analysis.returns_by_k[:2]
    named = {c: float(getattr(analysis, c)) for c in COLUMNS if not c.startswith("J_")}
    return named | {"J_1": float(first), "J_2": float(second), "effective_horizon": float(analysis.effective_horizon)}


def run(config):
    """Every column of the table by problem and stickiness."""
    import xarray as xr

    stickiness = (0.0, STICKINESS)
    rows = {}
    for group in config.groups:
        for p in stickiness:
            found = analysed(group, p > 0, config.tol, config.max_k)
            rows |= {(name, p): row(analysis) for name, analysis in found.items()}
    problems = [name for name in GOLDEN if (name, 0.0) in rows]
    return xr.Dataset(
        {
            column: (("problem", "stickiness"), np.array([[rows[n, p][column] for p in stickiness] for n in problems]))
            for column in (*COLUMNS, "effective_horizon")
        },
        {"problem": problems, "stickiness": list(stickiness)},
        {"title": TITLE, "max_k": config.max_k, "tol": config.tol},
    )


def deviation(data, name, sticking):
    """By column: ours less the printed number, in half units of its last digit; counts in units."""
    here = data.sel(problem=name).isel(stickiness=int(sticking))
    printed = golden_rows()[name, sticking]
    unit = {column: 1.0 if column in COUNTS else half_digit(printed[column]) for column in COLUMNS}
    return {column: abs(here[column].item() - float(printed[column])) / unit[column] for column in COLUMNS}


def measured(data):
    """How many of the nine printed numbers of each line ours round to (NaN: left out), and the largest deviation."""
    out, worst = {}, 0.0
    for name, sticking in golden_rows():
        met = np.nan
        if name in data["problem"].values:
            found = deviation(data, name, sticking)
            met = sum(x <= (0 if column in COUNTS else 1) for column, x in found.items())
            worst = max(worst, *(x for column, x in found.items() if column not in COUNTS))
        out[f"{name}{', sticky' if sticking else ''}: printed numbers met"] = Measured(met, 0.0)
    out["largest deviation, in half units of the last printed digit"] = Measured(worst, 0.0)
    return out


def plot(data):
    """Depths and gaps by problem, without and with sticky actions, over the printed ones."""
    problems = list(data["problem"].values)
    place = np.arange(len(problems))
    rows = golden_rows()
    marks = (
        ("k95", "o", 0, "$k_{95}$"),
        ("min_k", "s", 1, "least $k$, all greedy policies optimal"),
        ("solvable_k", "D", 2, "first C-solvable $k$"),
        ("window", "^", 3, "planning window $W$"),
    )
    with figures.style():
        figure, axes = figures.subplots(1, 3, width=9.6, height=1.4 + 0.19 * len(problems), sharey=True)
        for axis, p in zip(axes[:2], data["stickiness"].values, strict=True):
            here = data.sel(stickiness=p)
            for i, (column, marker, colour, label) in enumerate(marks):
                shift = 0.16 * (i - 1.5)
                style = {"color": figures.COLOURS[colour], "markersize": 4}
                axis.plot(here[column], place + shift, marker, label=label if p == 0 else None, **style)
                golden = [float(rows[n, p > 0][column]) if (n, p > 0) in rows else np.nan for n in problems]
                name = "specification" if i == 3 and p == 0 else None
                axis.plot(golden, place + shift, "kx", markersize=4, markeredgewidth=0.7, label=name)
            axis.set(xscale="log", xlabel="steps $k$", title=f"stickiness {p:g}")
            ticks = [1, 2, 3, 5, 10, 20, 30]
            axis.set_xticks(ticks, [str(t) for t in ticks])
            axis.set_xticks([], minor=True)
        gap = axes[2]
        for i, p in enumerate(data["stickiness"].values):
            values = data["gap"].sel(stickiness=p)
            gap.plot(values, place, "os"[i], color=figures.COLOURS[i], markersize=4, label=f"stickiness {p:g}")
            golden = [float(rows[n, p > 0]["gap"]) if (n, p > 0) in rows else np.nan for n in problems]
            gap.plot(golden, place, "kx", markersize=4, markeredgewidth=0.7)
        gap.set(xscale="log", xlabel="gap at the first C-solvable $k$ [reward]")
        gap.legend(loc="upper left", fontsize=7)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
        axes[0].set_yticks(place, problems)
        axes[0].invert_yaxis()
        figure.suptitle(
            f"A study: how deep one must look ahead; an action is optimal within {data.attrs['tol']:g} of the best",
            fontsize=9,
        )
    return figure
