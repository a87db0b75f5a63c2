"""Short horizons: how far the exact optimum of T rounds may be above T times the relaxation."""

import dataclasses

import jax
import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from envs.switching_bandits import reference, uniform
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import optimal_average, optimal_finite, relaxation
from rlcore.sweep import sweep

TITLE = (
    "Horizon effect: the exact optimum of T rounds over T times the relaxation, and its bound (T + s0) / T (a study)"
)
PRECISION = "float64"
# Rounds of rest behind the first state: the depth M of all instances here, or 1.
STARTS = {"rested": 4, "one": 1}


@dataclasses.dataclass(frozen=True)
class Config:
    """Longest horizon; random instances of the reference instance's sizes."""

    horizon: int = 200
    num_instances: int = 500


QUICK = Config(num_instances=30)

MINE, WHERE = "prototype of this project", "specification of the family, T2, instance Q"
REFERENCES = {
    f"optimum of {t} rounds, Q, from one": Reference(value, 1e-9, MINE, WHERE)
    for t, value in ((1, 0.5), (2, 1.1), (5, 3.4), (10, 6.7), (50, 33.7))
} | {
    "optimum of 1 rounds, Q, from rested": Reference(1.0, 1e-9, MINE, WHERE),
    "optimum of 50 rounds, Q, from rested": Reference(34.5, 1e-9, MINE, WHERE),
    "relaxation, Q": Reference(0.68, 1e-9, MINE, WHERE),
    "long-run optimum, Q": Reference(0.673333, 6e-7, MINE, WHERE),
}


def run(config):
    """V_T / (T V) by instance, start and T; the optima of instance Q."""

    def one_run(instance, start):
        problem = uniform(jax.random.key(instance), 3, 4, 2)
        totals = optimal_finite(problem, config.horizon, start=start).values
        return {"total": totals, "value": relaxation(problem).value}

    rounds = np.arange(1, config.horizon + 1)
    data = sweep(
        one_run, {"instance": range(config.num_instances)}, static={"start": tuple(STARTS)},
        dims={"total": ("rounds",)}, coords={"rounds": rounds}, batch="vmap",
    )  # fmt: skip
    known = reference()
    best = optimal_average(known)
    totals = [np.asarray(optimal_finite(known, config.horizon, start=start).values) for start in STARTS]
    data["known"] = (("start", "rounds"), np.stack(totals))
    data["known_value"] = ((), float(relaxation(known).value))
    data["known_optimum"] = ((), float(best.lower + best.upper) / 2)
    return data.assign_attrs(title=TITLE)


def _excess(data):
    """V_T over its bound (T + s0) V, which is never above 1; by instance, rounds, start."""
    reach = data["rounds"].values[:, None] + np.array([STARTS[str(s)] for s in data["start"].values])[None, :]
    return (data["total"] / data["value"]).transpose("instance", "rounds", "start").values / reach[None]


def measured(data):
    """Exact numbers of Q, to rounding; the largest use of the bound by the random instances."""
    out = {}
    for start, listed in (("one", (1, 2, 5, 10, 50)), ("rested", (1, 50))):
        for t in listed:
            out[f"optimum of {t} rounds, Q, from {start}"] = Measured(
                data["known"].sel(start=start, rounds=t).item(), 1e-12
            )
    out["relaxation, Q"] = Measured(data["known_value"].item(), 1e-12)
    out["long-run optimum, Q"] = Measured(data["known_optimum"].item(), 1e-12)
    excess = _excess(data)
    for i, start in enumerate(data["start"].values):
        out[f"most of V_T / ((T + s0) V), from {start}"] = Measured(float(excess[:, :, i].max()), 0.0)
    without = (data["total"] / data["value"] / data["rounds"]).sel(start="rested", rounds=50)
    out["share with V_50 > 50 V, from rested"] = Measured((without > 1).mean().item(), 0.0)
    return out


def plot(data):
    """A panel per start: V_T / (T V) of Q and of random instances, under (T + s0) / T."""
    t = data["rounds"].values
    with figures.style():
        figure, axes = figures.subplots(1, 2, width=7.5, height=3.4, sharey=True)
        for axis, start in zip(axes, data["start"].values, strict=True):
            ratio = (data["total"] / data["value"] / data["rounds"]).sel(start=start).transpose("rounds", "instance")
            low, high = ratio.min("instance"), ratio.max("instance")
            axis.fill_between(t, low, high, color=figures.COLOURS[0], alpha=0.2, linewidth=0, label="random, range")
            axis.plot(t, ratio.median("instance"), label="random, median", **figures.line_style(0))
            known = data["known"].sel(start=start) / t / data["known_value"].item()
            axis.plot(t, known, label="instance $Q$", **figures.line_style(1))
            axis.plot(t, (t + STARTS[str(start)]) / t, label="$(T + s_0) / T$", **figures.line_style(2))
            axis.axhline(1, color="black", linewidth=0.6)
            listed = [
                (int(name.split()[2]), ref.value) for name, ref in REFERENCES.items() if name.endswith(f"from {start}")
            ]
            at = np.array(listed)
            axis.plot(at[:, 0], at[:, 1] / at[:, 0] / 0.68, "kx", markersize=6, zorder=3, label="prototype, $Q$")
            axis.set(xscale="log", xlabel="rounds $T$", title=f'start "{start}", $s_0 = {STARTS[str(start)]}$')
            # From 0.4 of the relaxation to the bound at T = 1: nothing is cut off.
            axis.set(yscale="log", ylim=(0.4, 5.3))
            axis.yaxis.set_major_locator(FixedLocator([0.5, 0.7, 1, 1.5, 2, 3, 5]))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_major_formatter("{x:g}")
        axes[0].set_ylabel(r"exact optimum / ($T \times$ relaxation)")
        axes[1].legend()
        figure.suptitle(
            f"A study: $Q$ and {data.sizes['instance']} random instances, $k = 3$, $M = 4$, $L = 2$", fontsize=9
        )
    return figure
