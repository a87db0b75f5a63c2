"""Which depth should SQIRL plan with? Returns by k at a fixed number of steps, beside k95 of the exact analysis."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.effective_horizon import STICKINESS, golden_problems
from experiments import figures
from experiments.reference import Measured
from experiments.sqirl.success import analyses_of
from rlcore.episodic import episodic_values, policy_return, stacked
from rlcore.mdp import sticky
from rlcore.sqirl import TabularMean, pooled_sqirl, sqirl

TITLE = "Returns of SQIRL by its depth k at a fixed number of steps, beside k95 (a study)"
PRECISION = "float64"
VARIANTS = ("pooled", "by step")


@dataclasses.dataclass(frozen=True)
class Config:
    """Golden problems, all sticky; the largest depth; steps that a run may take; seeds."""

    problems: tuple[str, ...] = (
        "lock k=2",
        "lock k=3",
        "lock k=4",
        "lock k=6",
        "corridor-10 T20",
        "deepsea-10",
        "frozen4-det",
        "frozen4-slip",
        "lavagap5",
        "catch-5x3",
        "riverswim-6 T20",
    )
    max_depth: int = 8
    steps: int = 100_000
    seeds: int = 15
    seed: int = 0


QUICK = Config(problems=("lock k=2",), max_depth=2, steps=200, seeds=3)
REFERENCES = {}


@jax.jit(static_argnames="max_depth")
def _pooled(one, keys, episodes, max_depth):
    """Exact returns by depth and seed, and the steps taken."""

    def run(depth, key):
        learned = pooled_sqirl(one, key, depth=depth, episodes=episodes, max_depth=max_depth)
        return policy_return(one, learned.policy), learned.steps

    depths = jnp.arange(1, max_depth + 1, dtype=jnp.int32)
    return jax.vmap(lambda depth: jax.vmap(lambda key: run(depth, key))(keys))(depths)


@jax.jit(static_argnames=("depth", "episodes"))
def _by_step(one, keys, depth, episodes):
    def run(key):
        learned = sqirl(one, TabularMean(), key, depth=depth, episodes=episodes)
        return policy_return(one, learned.policy), learned.steps

    return jax.vmap(run)(keys)


def run(config):
    """Shares of the way from random to optimal by problem, variant, depth and seed."""
    import xarray as xr

    mdps = golden_problems(config.problems)
    problems = [sticky(mdp, STICKINESS) for mdp in mdps.values()]
    depths = range(1, config.max_depth + 1)
    analyses = jax.device_get(analyses_of(stacked(problems), max(depths)))
    share, taken = (np.full((len(problems), 2, config.max_depth, config.seeds), np.nan) for _ in range(2))
    for i, problem in enumerate(problems):
        one = jax.tree.map(lambda x: x[0], stacked([problem]))
        best, random = (float(problem.initial @ episodic_values(one, word).value[0]) for word in ("max", "mean"))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), i), config.seeds)
        # length^2 m steps at most; shorter episodes take fewer.
        episodes = max(1, config.steps // problem.horizon**2)
        found = jax.device_get(_pooled(one, keys, episodes, config.max_depth))
        split = [jax.device_get(_by_step(one, keys, depth, episodes)) for depth in depths]
        for v, (returns, steps) in enumerate((found, tuple(map(np.stack, zip(*split, strict=True))))):
            share[i, v], taken[i, v] = (returns - random) / (best - random), steps
    dims = ("problem", "version", "k", "seed")
    return xr.Dataset(
        {"share": (dims, share), "taken": (dims, taken)}
        | {name: ("problem", np.asarray(getattr(analyses, name))) for name in ("k95", "min_k", "effective_horizon")},
        {"problem": list(config.problems), "version": list(VARIANTS), "k": list(depths)},
        {"title": TITLE, "steps": config.steps, "max_depth": config.max_depth},
    )


def best_depth(data):
    """The first depth whose mean share is within a standard error of the best."""
    mean = data["share"].mean("seed")
    error = data["share"].std("seed", ddof=1) / np.sqrt(
        data["seed"].size if "seed" in data.coords else data.sizes["seed"]
    )
    top = mean.argmax("k")
    near = mean >= mean.max("k") - error.isel(k=top) - 1e-9
    return data["k"].isel(k=near.argmax("k"))


def measured(data):
    """The best depth of each problem beside k95; over problems, how often they are one."""
    out, best = {}, best_depth(data)
    inside = data["k95"] <= data.attrs["max_depth"]
    for version in data["version"].values:
        for name in data["problem"].values:
            out[f"{name}, {version}: best depth"] = Measured(float(best.sel(problem=name, version=version)), 0.0)
        same = (best.sel(version=version) == data["k95"]) & inside
        out[f"{version}: problems whose best depth is k95"] = Measured(int(same.sum()), 0.0)
        below = (best.sel(version=version) < data["k95"]) & inside
        out[f"{version}: problems whose best depth is below k95"] = Measured(int(below.sum()), 0.0)
    out["problems with k95 within the depths"] = Measured(int(inside.sum()), 0.0)
    return out


def plot(data):
    """Mean shares by depth, a panel per problem; k95 as a line."""
    names = list(data["problem"].values)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    with figures.style():
        figure, axes = figures.subplots(rows, columns, width=2.4 * columns, height=2.0, sharey=True)
        for axis, name in zip(axes, names, strict=False):
            here = data.sel(problem=name)
            for i, version in enumerate(VARIANTS):
                line = here["share"].sel(version=version)
                mean = line.mean("seed")
                error = line.std("seed", ddof=1) / np.sqrt(line.sizes["seed"])
                style = figures.line_style(i)
                axis.errorbar(here["k"], mean, 2 * error, marker="os"[i], markersize=3, label=version, **style)
            k95 = float(here["k95"])
            if k95 <= data.attrs["max_depth"]:
                axis.axvline(k95, color="0.4", linestyle=":", linewidth=1.2, label="$k_{95}$")
            axis.axhline(0.95, color="0.7", linewidth=0.8)
            axis.set(title=name, xlabel="depth $k$ [steps]", ylim=(-0.1, 1.05))
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        for axis in axes[::columns]:
            axis.set_ylabel("share of $J^* - J_{rand}$")
        axes[0].legend(loc="lower right", fontsize=7)
        figure.suptitle(
            f"A study: SQIRL with at most {data.attrs['steps']:,} steps, sticky (1/4); means of seeds, two standard "
            "errors; exact evaluation",
            fontsize=9,
        )
    return figure
