"""Does stickiness itself shorten the horizon? Depths and effective horizons by the chance of repeating an action."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.effective_horizon import golden_problems
from experiments import figures
from experiments.reference import Measured, Reference
from experiments.sqirl.golden import GROUPS
from rlcore.episodic import stacked
from rlcore.mdp import sticky
from rlcore.sqirl import analyze_episodic

TITLE = "Depths and effective horizons by the probability that an action is repeated (a study)"
PRECISION = "float64"
# Deterministic ice and grids move in both directions; slippery ice and catch are random by themselves.
SMALL = ("lock k=4", "corridor-10 T20", "deepsea-10", "frozen4-det", "frozen4-slip", "lavagap5", "catch-5x3")
PROBLEMS = (*SMALL, "riverswim-6 T20", *GROUPS["grids"], *GROUPS["rooms"])


@dataclasses.dataclass(frozen=True)
class Config:
    """Problems; chances of repeating; an action is optimal within `tol` [reward]; depth of the ladder."""

    problems: tuple[str, ...] = PROBLEMS
    stickiness: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75)
    tol: float = 1e-4
    max_k: int = 30


QUICK = Config(problems=("lock k=4", "corridor-10 T20", "deepsea-20", "catch-5x3", "fourrooms"))

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 8"
DIRECTIONS = {"deepsea-20": {0.0: 13, 0.25: 9}, "fourrooms": {0.0: 1, 0.25: 17}}
REFERENCES = {
    f"{name}: least k, stickiness {p:g}": Reference(k, 0.0, MINE, WHERE)
    for name, ks in DIRECTIONS.items()
    for p, k in ks.items()
}


@jax.jit(static_argnames="max_k")
def _analyses(stack, stickiness, tol, max_k):
    """One stack at every stickiness."""

    def at(p, one):
        problem = dataclasses.replace(one.problem, probability=p)
        return analyze_episodic(dataclasses.replace(one, problem=problem), max_k=max_k, tol=tol)

    return jax.vmap(jax.vmap(at, (None, 0)), (0, None))(stickiness, stack)


def run(config):
    """Depths by problem and stickiness; the problems of one group share a program."""
    import xarray as xr

    found = {}
    for names in GROUPS.values():
        chosen = tuple(name for name in names if name in config.problems)
        if not chosen:
            continue
        stack = stacked([sticky(mdp, 0.0) for mdp in golden_problems(chosen).values()])
        answers = jax.device_get(_analyses(stack, jnp.asarray(config.stickiness), config.tol, config.max_k))
        found |= {name: jax.tree.map(lambda x, i=i: x[:, i], answers) for i, name in enumerate(chosen)}
    fields = ("k95", "min_k", "solvable_k", "gap", "window", "optimal_return", "random_return", "effective_horizon")
    problems = [name for name in config.problems if name in found]
    return xr.Dataset(
        {f: (("problem", "stickiness"), np.stack([getattr(found[name], f) for name in problems])) for f in fields},
        {"problem": problems, "stickiness": list(config.stickiness)},
        {"title": TITLE, "max_k": config.max_k, "tol": config.tol},
    )


def changes(data):
    """Effective horizons with stickiness 1/4 less those without."""
    return data["effective_horizon"].sel(stickiness=0.25) - data["effective_horizon"].sel(stickiness=0.0)


def measured(data):
    """Exact numbers; how many effective horizons stickiness 1/4 shortens, and how many it lengthens."""
    out = {}
    for name, ks in DIRECTIONS.items():
        for p in ks:
            out[f"{name}: least k, stickiness {p:g}"] = Measured(
                data["min_k"].sel(problem=name, stickiness=p).item(), 0
            )
    change = changes(data)
    out["problems"] = Measured(change.size, 0)
    for word, share in (("shorter", change < -1e-9), ("longer", change > 1e-9)):
        out[f"effective horizons {word} with stickiness 0.25"] = Measured(int(share.sum()), 0)
    out["median change of the effective horizon"] = Measured(float(np.median(change)), 0)
    return out


def plot(data):
    """Least k, k95 and effective horizon by stickiness, a line per problem."""
    with figures.style():
        figure, axes = figures.subplots(1, 3, width=9.6, height=4.2)
        columns = (
            ("min_k", "least $k$, all greedy policies optimal [steps]"),
            ("k95", "$k_{95}$ [steps]"),
            ("effective_horizon", "effective horizon [steps]"),
        )
        for axis, (column, label) in zip(axes, columns, strict=True):
            for i, name in enumerate(data["problem"].values):
                # Lines that fall together are set apart a little.
                shift = 0.0 if column == "effective_horizon" else 0.06 * (i - len(data["problem"]) / 2) / 2
                line = data[column].sel(problem=name)
                marker = "osD^v<>ph"[i % 9]
                style = figures.line_style(i % 7) | {"linestyle": figures.DASHES[(i // 7 + i) % 7]}
                axis.plot(data["stickiness"], line + shift, marker=marker, markersize=3.5, label=name, **style)
            axis.set(xlabel="probability of repeating", ylabel=label)
        for name, ks in DIRECTIONS.items():
            axes[0].plot(
                list(ks), list(ks.values()), "kx", markersize=7, label="specification" if name == "fourrooms" else None
            )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=7)
        change = changes(data)
        figure.suptitle(
            "A study: stickiness moves the least k both ways; the effective horizon, which weighs gaps, is longer at "
            f"0.25 than at 0 for {int((change > 1e-9).sum())} of {change.size};\n"
            f"an action is optimal within {data.attrs['tol']:g} of the best",
            fontsize=9,
        )
    return figure
