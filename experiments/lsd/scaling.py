"""Time of the relaxation by its dual and by a simplex method on the host, against the number of arms."""

import contextlib
import dataclasses
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from experiments import figures
from experiments.reference import Measured
from rlcore.lsd import SwitchingBandit, cycle_programme, relaxation

TITLE = "Scaling: seconds per relaxation, by cutting planes on its dual and by HiGHS on the cycle programme (a study)"
PRECISION = "float64"
REFERENCES = {}  # the specification has no times


@dataclasses.dataclass(frozen=True)
class Config:
    """Numbers of arms; rest and play depths; HiGHS goes on until a size takes `limit` processor seconds or more."""

    arms: tuple[int, ...] = (10, 30, 100, 300, 1_000, 3_000, 10_000)
    recovery: int = 32
    satiation: int = 32
    limit: float = 10.0
    repeats: int = 5


QUICK = Config(arms=(10, 30, 100), recovery=8, satiation=8, limit=0.5, repeats=3)


@contextlib.contextmanager
def _compiled_anew():
    """Programs are compiled, not read from the disk."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # that a cache is used is looked up once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _timed(call, repeats):
    """(least wall and least processor seconds of the repeats, the answer)."""
    seconds, answer = [], None
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        answer = call()
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return np.min(seconds, axis=0), answer


def run(config):
    """Seconds by clock, arms and solver, compile seconds, steps of the dual, and how far the two values are apart."""
    import xarray as xr

    load = os.getloadavg()[0]  # what else the machine does: wall times depend on it
    solve = jax.jit(relaxation)
    size = len(config.arms)
    ours, compiled, theirs = (np.full((size, 2), np.nan) for _ in range(3))
    off, gap, steps = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size)
    last = 0.0
    cycle_programme(SwitchingBandit(jnp.ones((2, 2)), 1))  # imports scipy
    for i, k in enumerate(config.arms):
        table = np.sort(np.random.default_rng(k).random((k, config.recovery + config.satiation)), axis=1)
        problem = SwitchingBandit(jnp.asarray(table), config.satiation)
        call = lambda x=problem: jax.block_until_ready(solve(x))  # noqa: E731
        with _compiled_anew():
            first, _ = _timed(call, 1)
        ours[i], found = _timed(call, config.repeats)
        compiled[i] = first - ours[i]
        steps[i], gap[i] = float(found.steps), float(found.gap)
        if last < config.limit:
            theirs[i], other = _timed(lambda x=problem: cycle_programme(x), 1)
            last, off[i] = theirs[i, 1], abs(other.value - float(found.value))
    timed = {"dual": ours, "compilation": compiled, "HiGHS": theirs}
    names = {"difference": off, "gap": gap, "steps": steps}
    return xr.Dataset(
        {name: (("arms", "clock"), values) for name, values in timed.items()}
        | {name: (("arms",), values) for name, values in names.items()},
        {"arms": list(config.arms), "clock": ["wall", "processor"]},
        {
            "title": TITLE, "states": config.recovery + config.satiation, "limit": config.limit,
            "cores": len(os.sched_getaffinity(0)), "load": load,
        },
    )  # fmt: skip


def measured(data):
    """Seconds, ratios and differences."""
    out = {}
    for k in data["arms"].values:
        for clock in data["clock"].values:
            here = data.sel(arms=k, clock=clock)
            out[f"{clock} seconds, dual, k = {k}"] = Measured(here["dual"].item(), 0.0)
            out[f"{clock} seconds, HiGHS, k = {k}"] = Measured(here["HiGHS"].item(), 0.0)
            out[f"HiGHS / dual, {clock}, k = {k}"] = Measured((here["HiGHS"] / here["dual"]).item(), 0.0)
    out["largest difference of values"] = Measured(float(np.nanmax(data["difference"])), 0.0)
    out["largest duality gap"] = Measured(float(np.nanmax(data["gap"])), 0.0)
    out["most evaluations of the dual"] = Measured(data["steps"].max().item(), 0.0)
    return out


def plot(data):
    """Processor seconds, which other work on the machine hardly changes, and evaluations, by number of arms."""
    k = data["arms"].values
    seconds = data.sel(clock="processor")
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, width=7.5, height=3.4)
        for i, (name, label) in enumerate(
            (
                ("dual", "cutting planes, after compilation"),
                ("HiGHS", "HiGHS, cycle programme"),
                ("compilation", "compilation"),
            )
        ):
            left.plot(k, seconds[name], marker=".", label=label, **figures.line_style(i))
        left.set(xscale="log", yscale="log", xlabel="arms $k$", ylabel="processor time [s]", title="one relaxation")
        theirs = seconds["HiGHS"].values
        done = np.flatnonzero(np.isfinite(theirs))
        if 0 < done.size < k.size:
            left.annotate(
                f"stopped after {data.attrs['limit']:g} s", (k[done[-1]], theirs[done[-1]]),
                (5, -2), textcoords="offset points", fontsize=8, color=figures.COLOURS[1], va="center",
            )  # fmt: skip
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
        right.plot(k, data["steps"], marker=".", **figures.line_style(0))
        right.set(xscale="log", xlabel="arms $k$", ylabel="evaluations of the dual", title="cutting planes")
        right.set_ylim(bottom=0)
        figure.suptitle(
            f"A study: random monotone tables of {data.attrs['states']} local states; "
            f"{data.attrs['cores']} cores at a load of {data.attrs['load']:.0f}",
            fontsize=9,
        )
    return figure
