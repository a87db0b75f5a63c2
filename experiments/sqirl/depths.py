"""How deep one must look: counts of k95 and of the least k over the golden problems, and returns by depth."""

import dataclasses

import numpy as np

from envs.effective_horizon import STICKINESS
from experiments import figures
from experiments.reference import Measured, Reference
from experiments.sqirl.golden import GROUPS, analysed

TITLE = "Depths of 26 problems: k for 95 % of the return, k for all of it, and returns by k (a study)"
PRECISION = "float64"


@dataclasses.dataclass(frozen=True)
class Config:
    """Groups of problems; depth of the ladder."""

    groups: tuple[str, ...] = tuple(GROUPS)
    max_k: int = 30


QUICK = Config(groups=("small",))

MINE = "prototype of this project"
# Worst returns of slippery ice by k, without stickiness; J_k is not monotone.
ICE = (0.461601, 0.373434, 0.373262, 0.371105, 0.353929, 0.353929, 0.353929, 0.457351, 0.459759, 0.461346, 0.461561)
ICE = (*ICE, 0.461595, 0.461601)
REFERENCES = {
    f"frozen4-slip: J_{k}": Reference(value, 5.1e-7, MINE, "specification of the family, T4")
    for k, value in enumerate(ICE, 1)
}
SHOWN_K = 15
ENDS = ("random_return", "optimal_return")


def run(config):
    """Returns of the worst greedy policy by k, and the depths."""
    import xarray as xr

    stickiness = (0.0, STICKINESS)
    found = {p: {} for p in stickiness}
    for group in config.groups:
        for p in stickiness:
            found[p] |= analysed(group, p > 0, max_k=config.max_k)
    problems = list(found[0.0])
    table = lambda field: np.array([[getattr(found[p][n], field) for p in stickiness] for n in problems])  # noqa: E731
    dims = ("problem", "stickiness")
    fields = ("k95", "min_k", "solvable_k", "window", "optimal_return", "random_return", "effective_horizon")
    return xr.Dataset(
        {name: (dims, table(name)) for name in fields}
        | {name: ((*dims, "k"), table(name)) for name in ("returns_by_k", "certificates")},
        {"problem": problems, "stickiness": list(stickiness), "k": np.arange(1, config.max_k + 1)},
        {"title": TITLE, "max_k": config.max_k},
    )


def share(data):
    """Returns by k as shares of the way from random to optimal."""
    return (data["returns_by_k"] - data["random_return"]) / (data["optimal_return"] - data["random_return"])


def measured(data):
    """Exact numbers, to rounding; counts of problems."""
    ice = data["returns_by_k"].sel(problem="frozen4-slip", stickiness=0.0)
    out = {f"frozen4-slip: J_{k}": Measured(ice.sel(k=k).item(), 1e-12) for k in range(1, len(ICE) + 1)}
    falls = (data["returns_by_k"].diff("k") < -1e-9).any("k")
    for p in data["stickiness"].values:
        here = data.sel(stickiness=p)
        for column, name in (("k95", "k95 = 1"), ("min_k", "least k = 1"), ("solvable_k", "C-solvable at k = 1")):
            out[f"problems with {name}, stickiness {p:g}"] = Measured(int((here[column] == 1).sum()), 0.0)
        out[f"problems whose J_k falls somewhere, stickiness {p:g}"] = Measured(int(falls.sel(stickiness=p).sum()), 0.0)
    return out


def plot(data):
    """Counts of depths, without and with sticky actions; below, returns by k where one step is not enough."""
    ks = np.arange(1, data.attrs["max_k"] + 2)
    shares = share(data)
    with figures.style():
        figure, axes = figures.subplots(2, 2, width=8.2, height=2.9)
        for axis, column, name in ((axes[0], "k95", "$k_{95}$"), (axes[1], "min_k", "least $k$, all greedy optimal")):
            for i, p in enumerate(data["stickiness"].values):
                counts = np.bincount(data[column].sel(stickiness=p), minlength=ks.size + 1)[1:]
                width = 0.4
                style = {"color": figures.COLOURS[i], "hatch": ("", "////")[i], "edgecolor": "white"}
                axis.bar(ks + width * (i - 0.5), counts, width, label=f"stickiness {p:g}", **style)
            axis.set(xlabel=f"{name} [steps]", ylabel="problems", xlim=(0, ks[-1]))
            axis.yaxis.get_major_locator().set_params(integer=True)
            axis.legend(loc="upper right")
        for axis, p in zip(axes[2:], data["stickiness"].values, strict=True):
            here = shares.sel(stickiness=p)
            deep = (here.isel(k=0) < 0.95) | (here.diff("k") < -1e-3).any("k")
            for i, name in enumerate(data["problem"].values[deep.values]):
                line = here.sel(problem=name).isel(k=slice(0, SHOWN_K))
                axis.plot(line["k"], line, marker="osD^v<>"[i % 7], markersize=3, label=name, **figures.line_style(i))
            if p == 0:
                low, high = (data[x].sel(problem="frozen4-slip", stickiness=0.0).item() for x in ENDS)
                golden = (np.array(ICE) - low) / (high - low)
                axis.plot(np.arange(1, len(ICE) + 1), golden, "kx", markersize=5, label="specification")
            axis.axhline(0.95, color="0.5", linewidth=0.8)
            axis.set(xlabel="$k$ [steps]", ylabel="$(J_k - J_{rand}) / (J^* - J_{rand})$", title=f"stickiness {p:g}")
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize=7)
        figure.suptitle(
            "A study: greedy policies of k backups on random exploration, worst tie-breaking; below, the problems "
            "that one step leaves\nunder 95 % or whose returns fall somewhere",
            fontsize=9,
        )
    return figure
