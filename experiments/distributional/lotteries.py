"""Lotteries on the way: how the optimal plan for a tail, a target or an expectile gambles, and what stocks add."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import (
    Law,
    cvar,
    cvar_curve,
    expectile,
    maximize_cvar,
    maximize_expectile,
    maximize_probability,
    minimize_distance,
)

TITLE = "Lotteries: plans for the worst returns, for targets and for expectiles, with and without stocks (a study)"
PRECISION = "float64"
LOSS, CHANCE = 8.0, 0.15  # a lost lottery costs 8 more than a move
MEAN_MOVES, MEAN_TAKEN = 7, 3  # the plan for the mean: straight through all lotteries
SHOWN = (0.4, 0.5, 0.6, 0.7, 1.0)
RETURNS = np.arange(-40, -4)  # of the laws shown; the worst plan loses three lotteries


@dataclasses.dataclass(frozen=True)
class Config:
    """Levels in (0, 1], even; targets; levels of the expectile."""

    num_levels: int = 200
    targets: tuple[int, ...] = tuple(range(-20, -4))
    expectiles: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))


QUICK = Config(num_levels=50, targets=(-15, -13, -11, -9, -7), expectiles=(0.1, 0.25, 0.5, 0.75, 0.9))

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 5"
TAILS = {0.4: -13, 0.5: -12.92, 0.6: -12.60, 0.7: -12.111429, 0.8: -11.5, 0.9: -11, 1.0: -10.6}
MEAN_PLAN = {0.4: -16, 0.5: -14.2, 0.6: -13, 0.7: -12.142857, 0.8: -11.5, 0.9: -11, 1.0: -10.6}
STOCK_FREE = {0.5: -13.0, 0.6: -13.0}
LAW = {-31: 0.003375, -23: 0.03825, -15: 0.108375, -11: 0.85}  # of the plan for levels 0.5 and 0.6
CHANCES = {-7: 0.614125, -9: 0.7225, -11: 0.85, -13: 1.0}
EXPECTILES = {0.1: -13, 0.25: -13, 0.5: -10.6, 0.75: -8.615618}
DISTANCES = {-7: 3.6, -9: 2.178, -11: 0.96, -13: 0.0}
GOLDEN = {
    **{f"largest CVaR, level {level:g}": value for level, value in TAILS.items()},
    **{f"CVaR of the plan for the mean, level {level:g}": value for level, value in MEAN_PLAN.items()},
    **{f"largest CVaR without stocks, level {level:g}": value for level, value in STOCK_FREE.items()},
    **{f"P(G = {g}), plan for level {level:g}": p for level in (0.5, 0.6) for g, p in LAW.items()},
    **{f"largest P(G >= {b})": value for b, value in CHANCES.items()},
    **{f"largest expectile, level {q:g}": value for q, value in EXPECTILES.items()},
    **{f"least E|G - g|, g = {g}": value for g, value in DISTANCES.items()},
}
REFERENCES = {name: Reference(value, 6e-7, MINE, WHERE) for name, value in GOLDEN.items()}


def paths(problem):
    """Every pair (moves, chances taken) of a path, int[P, 2]: all that policies of state and time can do.

    Args: problem: one in which no move fails; a chance is an outcome that is drawn. Paths end at the horizon.
    Cost: O(H S A) sets.
    """
    next_state, prob, terminal = (np.asarray(x) for x in (problem.next_state, problem.prob, problem.terminal))
    drawn = np.sum(prob > 0, axis=2) > 1
    here, ended = {(int(np.argmax(problem.initial)), 0)}, set()
    for moves in range(1, problem.horizon + 1):
        after = set()
        for state, taken in here:
            for action in range(next_state.shape[1]):
                now = taken + int(drawn[state, action])
                if terminal[state, action, 0] or moves == problem.horizon:
                    ended.add((moves, now))
                else:
                    after.add((int(next_state[state, action, 0]), now))
        here = after
    return np.array(sorted(ended))


def binomial(counts, chance):
    """The probabilities of 0, 1, .. successes, float[P, largest count + 1]."""
    wins = np.arange(counts.max() + 1)
    return np.array([[math.comb(n, j) * chance**j * (1 - chance) ** max(n - j, 0) for j in wins] for n in counts])


def plans(problem):
    """Without stocks: the pairs of `paths` and the laws of their returns."""
    pairs = paths(problem)
    probs = binomial(pairs[:, 1], CHANCE)
    return pairs, Law(jnp.asarray(-pairs[:, :1] - LOSS * np.arange(probs.shape[1])), jnp.asarray(probs))


def _by_plan(functional, laws, parameters):
    """A functional of every plan's law, float[parameter, plan]."""
    parameters = jnp.asarray(parameters, float)
    each = jax.jit(jax.vmap(jax.vmap(functional, (0, None)), (None, 0)))
    return np.asarray(each(laws, parameters))


def _reached(law, target):
    return jnp.sum(jnp.where(law.values >= target - 1e-9, law.probs, 0))


def _distance(law, target):
    return jnp.sum(law.probs * jnp.abs(law.values - target))


def _on(law, values):
    """The probabilities of whole returns."""
    place = np.rint(np.asarray(law.values)).astype(int) - values[0]
    probs = np.asarray(law.probs)
    inside = (place >= 0) & (place < values.size)
    if probs[~inside].sum() > 1e-12:
        raise ValueError(f"values: found {values[0]} to {values[-1]}, expected all returns that occur")
    return np.bincount(place[inside], weights=probs[inside], minlength=values.size)


def run(config):
    """By level of the tail, target, level of the expectile: the optimum over all policies, and each fixed plan's."""
    import xarray as xr

    problem = envs.make("lotteries")
    even = np.arange(1, config.num_levels + 1) / config.num_levels
    levels = np.unique(np.round(np.concatenate([even, list(TAILS)]), 9))
    pairs, laws = plans(problem)
    straight = int(np.flatnonzero((pairs == (MEAN_MOVES, MEAN_TAKEN)).all(axis=1))[0])
    found = cvar_curve(problem, jnp.asarray(levels))
    tails = [maximize_cvar(problem, level) for level in SHOWN]
    chances = [maximize_probability(problem, target) for target in config.targets]
    roots = [maximize_expectile(problem, level) for level in config.expectiles]
    misses = [minimize_distance(problem, target) for target in config.targets]
    numbers = lambda rows, field: np.array([float(getattr(x, field)) for x in rows])  # noqa: E731
    width = lambda rows: np.abs(numbers(rows, "upper") - numbers(rows, "lower"))  # noqa: E731
    shown = [int(np.argmin(np.abs(levels - level))) for level in SHOWN]
    return xr.Dataset(
        {
            "cvar": ("level", np.asarray(found.value)),
            "cvar_by_plan": (("level", "plan"), _by_plan(cvar, laws, levels)),
            "curve": (("shown", "stock"), np.asarray(found.curve)[shown]),
            "start": ("shown", numbers(tails, "stock")),
            "earned": ("shown", numbers(tails, "lower")),
            "law": (("shown", "return"), np.stack([_on(x.law, RETURNS) for x in tails])),
            "chance": ("target", numbers(chances, "value")),
            "chance_width": ("target", width(chances)),
            "chance_by_plan": (("target", "plan"), _by_plan(_reached, laws, config.targets)),
            "expectile": ("expectile_level", numbers(roots, "value")),
            "expectile_width": ("expectile_level", width(roots)),
            "expectile_by_plan": (("expectile_level", "plan"), _by_plan(expectile, laws, config.expectiles)),
            "distance": ("target", numbers(misses, "upper")),
            "distance_width": ("target", width(misses)),
            "distance_by_plan": (("target", "plan"), _by_plan(_distance, laws, config.targets)),
        },
        {
            "level": levels,
            "shown": list(SHOWN),
            "stock": np.asarray(found.solution.policy.grid.nodes),
            "return": RETURNS,
            "moves": ("plan", pairs[:, 0]),
            "taken": ("plan", pairs[:, 1]),
            "target": list(config.targets),
            "expectile_level": list(config.expectiles),
        },
        {"title": TITLE, "straight": straight},
    )


def measured(data):
    """Exact numbers, to rounding or to the width of their certificates."""
    out = {}
    for level in TAILS:
        here = data.sel(level=level)
        out[f"largest CVaR, level {level:g}"] = Measured(here["cvar"].item(), 1e-12)
        mean_plan = here["cvar_by_plan"].isel(plan=data.attrs["straight"])
        out[f"CVaR of the plan for the mean, level {level:g}"] = Measured(mean_plan.item(), 1e-12)
        out[f"largest CVaR without stocks, level {level:g}"] = Measured(here["cvar_by_plan"].max().item(), 1e-12)
    for level in SHOWN:
        here = data.sel(shown=level)
        gap = float(abs(here["earned"] - data["cvar"].sel(level=level)))
        out[f"CVaR of the plan's own law less the optimum, level {level:g}"] = Measured(gap, 1e-12)
        for g in LAW if level in (0.5, 0.6) else ():
            out[f"P(G = {g}), plan for level {level:g}"] = Measured(here["law"].sel({"return": g}).item(), 1e-12)
    for name, listed, field, dim in (
        ("largest P(G >= {})", CHANCES, "chance", "target"),
        ("largest expectile, level {:g}", EXPECTILES, "expectile", "expectile_level"),
        ("least E|G - g|, g = {}", DISTANCES, "distance", "target"),
    ):
        for x in listed:
            here = data.sel({dim: x})
            out[name.format(x)] = Measured(here[field].item(), here[f"{field}_width"].item() + 1e-12)
    gain = data["cvar"] - data["cvar_by_plan"].max("plan")
    out["largest gain of stocks in CVaR"] = Measured(float(gain.max()), 1e-12)
    out["level of the largest gain"] = Measured(float(data["level"].values[int(np.argmax(gain.values))]), 0.0)
    return out


def plot(data):
    """CVaR by level, laws of the plans, objectives of the first stock; below, targets, distances and expectiles."""
    with figures.style():
        figure, axes = figures.subplots(2, 3, width=9.6, height=3.1)
        tail, law, curve, chance, distance, root = axes
        stocks, free = figures.line_style(0), figures.line_style(1)
        level = data["level"]
        tail.plot(level, data["cvar"], label="with stocks", **stocks)
        tail.plot(level, data["cvar_by_plan"].max("plan"), label="best without stocks", **free)
        tail.plot(
            level,
            data["cvar_by_plan"].isel(plan=data.attrs["straight"]),
            label="plan for the mean",
            **figures.line_style(2),
        )
        tail.plot(list(TAILS), list(TAILS.values()), "kx", markersize=5, label="prototype")
        tail.plot(list(MEAN_PLAN), list(MEAN_PLAN.values()), "k+", markersize=6, label="prototype, mean")
        tail.set(xlabel="share of the worst returns $\\tau$", ylabel="CVaR$_\\tau$ [reward]", ylim=(-19, -10))
        tail.legend(loc="lower right", fontsize=7)
        styles = list(zip("osD^v", data["shown"].values, strict=True))
        for i, (marker, shown) in enumerate(styles):
            probs = data["law"].sel(shown=shown).values
            here = probs > 1e-12
            place = data["return"].values[here] + 0.2 * (i - 2)
            law.vlines(place, 1e-3, probs[here], color=figures.COLOURS[i], linewidth=0.9)
            law.plot(place, probs[here], marker, color=figures.COLOURS[i], markersize=4, label=f"$\\tau = {shown:g}$")
            line = data["curve"].sel(shown=shown)
            inside = (data["stock"].values >= 0) & (data["stock"].values <= 24)
            curve.plot(data["stock"].values[inside], line.values[inside], **figures.line_style(i))
            best = line.sel(stock=data["start"].sel(shown=shown).item()).item()
            curve.plot(data["start"].sel(shown=shown), best, marker, color=figures.COLOURS[i], markersize=5)
        law.plot(list(LAW), list(LAW.values()), "kx", markersize=5, label="prototype, .5, .6")
        law.set(yscale="log", ylim=(1e-3, 2), xlabel="return [reward]", ylabel="probability")
        law.set_xticks([-31, -23, -15, -11, -7])
        law.legend(loc="upper left", fontsize=7)
        curve.set(ylim=(-26, -8), xlabel="first stock $c$ [reward]", ylabel="$-c + V(c) / \\tau$ [reward]")
        target = data["target"]
        chance.plot(target, data["chance"], marker="o", markersize=3, **stocks)
        chance.plot(target, data["chance_by_plan"].max("plan"), marker="s", markersize=3, **free)
        chance.plot(list(CHANCES), list(CHANCES.values()), "kx", markersize=6)
        chance.set(xlabel="target $b$ [reward]", ylabel="largest $P(G \\geq b)$")
        distance.plot(target, data["distance"], marker="o", markersize=3, **stocks)
        distance.plot(target, data["distance_by_plan"].min("plan"), marker="s", markersize=3, **free)
        distance.plot(list(DISTANCES), list(DISTANCES.values()), "kx", markersize=6)
        distance.set(xlabel="target $g$ [reward]", ylabel="least $E|G - g|$ [reward]", ylim=(-0.2, None))
        root.plot(data["expectile_level"], data["expectile"], marker="o", markersize=3, **stocks)
        plan = data["expectile_by_plan"].max("plan")
        root.plot(data["expectile_level"], plan, marker="s", markersize=3, **free)
        root.plot(list(EXPECTILES), list(EXPECTILES.values()), "kx", markersize=6)
        root.set(xlabel="level of the expectile $q$", ylabel="largest expectile [reward]")
        figure.suptitle(
            "A study: three lotteries on the way, each avoided by two more moves; without stocks a policy walks one "
            "path, whatever it loses;\nmarkers on the curves at the upper right are the starts chosen",
            fontsize=9,
        )
    return figure
