"""Wall time of the relaxation by its dual and by a simplex method on the host, against the number of arms."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures
from experiments.reference import Measured
from rlcore.lsd import SwitchingBandit, cycle_programme, relaxation

TITLE = "Scaling: seconds per relaxation, by cutting planes on its dual and by HiGHS on the cycle programme (a study)"
PRECISION = "float64"
REFERENCES = {}  # the specification has no times


@dataclasses.dataclass(frozen=True)
class Config:
    """Numbers of arms; rest and play depths; HiGHS goes on while the last size took less than `limit` seconds."""

    arms: tuple[int, ...] = (10, 30, 100, 300, 1_000, 3_000, 10_000)
    recovery: int = 32
    satiation: int = 32
    limit: float = 10.0
    repeats: int = 5


QUICK = Config(arms=(10, 30, 100), recovery=8, satiation=8, limit=0.5, repeats=3)


def _timed(call, repeats):
    """(least seconds of the repeats, the answer)."""
    seconds, answer = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - began)
    return min(seconds), answer


def run(config):
    """Seconds by arms and solver, compile seconds, steps of the dual, and how far the two values are apart."""
    import xarray as xr

    solve = jax.jit(relaxation)
    size = len(config.arms)
    ours, compiled, theirs, off, gap = (np.full(size, np.nan) for _ in range(5))
    steps = np.zeros(size)
    last = 0.0
    cycle_programme(SwitchingBandit(jnp.ones((2, 2)), 1))  # imports scipy
    for i, k in enumerate(config.arms):
        table = np.sort(np.random.default_rng(k).random((k, config.recovery + config.satiation)), axis=1)
        problem = SwitchingBandit(jnp.asarray(table), config.satiation)
        began = time.perf_counter()
        jax.block_until_ready(solve(problem))
        compiled[i] = time.perf_counter() - began
        ours[i], found = _timed(lambda x=problem: jax.block_until_ready(solve(x)), config.repeats)
        steps[i], gap[i] = float(found.steps), float(found.gap)
        if last < config.limit:
            theirs[i], other = _timed(lambda x=problem: cycle_programme(x), 1)
            last, off[i] = theirs[i], abs(other.value - float(found.value))
    names = {"dual": ours, "compilation": compiled, "HiGHS": theirs, "difference": off, "gap": gap, "steps": steps}
    return xr.Dataset(
        {name: (("arms",), values) for name, values in names.items()},
        {"arms": list(config.arms)},
        {"title": TITLE, "states": config.recovery + config.satiation},
    )


def measured(data):
    """Seconds, ratios and differences."""
    out = {}
    for k in data["arms"].values:
        here = data.sel(arms=k)
        out[f"seconds, dual, k = {k}"] = Measured(here["dual"].item(), 0.0)
        out[f"seconds, HiGHS, k = {k}"] = Measured(here["HiGHS"].item(), 0.0)
        out[f"HiGHS / dual, k = {k}"] = Measured((here["HiGHS"] / here["dual"]).item(), 0.0)
    out["largest difference of values"] = Measured(float(np.nanmax(data["difference"])), 0.0)
    out["largest duality gap"] = Measured(float(np.nanmax(data["gap"])), 0.0)
    out["most evaluations of the dual"] = Measured(data["steps"].max().item(), 0.0)
    return out


def plot(data):
    """Seconds against the number of arms."""
    k = data["arms"].values
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, width=7.5, height=3.0)
        for i, (name, label) in enumerate(
            (
                ("dual", "cutting planes, after compilation"),
                ("HiGHS", "HiGHS, cycle programme"),
                ("compilation", "compilation"),
            )
        ):
            left.plot(k, data[name], marker=".", label=label, **figures.line_style(i))
        left.set(xscale="log", yscale="log", xlabel="arms $k$", ylabel="seconds", title="one relaxation")
        left.legend(fontsize=7)
        right.plot(k, data["steps"], marker=".", **figures.line_style(0))
        right.set(xscale="log", xlabel="arms $k$", ylabel="evaluations of the dual", title="cutting planes")
        right.set_ylim(bottom=0)
        figure.suptitle(f"A study: random monotone tables of {data.attrs['states']} local states", fontsize=9)
    return figure
