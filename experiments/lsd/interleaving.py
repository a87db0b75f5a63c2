"""Interleaved and random-phase schedules on recharging arms: what each keeps of the relaxation, exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import blocking, cap, concave_random, exp_recharge
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import (
    Interleaved,
    SwitchingBandit,
    alpha,
    delay_relaxation,
    interleaved,
    occupancy,
    simulate,
    virtual_value,
)
from rlcore.lsd.interleaved import interleaved_value, play_rates
from rlcore.sweep import sweep

TITLE = "Interleaved against random-phase schedules on recharging arms, concave and by steps (a study)"
PRECISION = "float64"
CONCAVE, STEPS = ("concave_random", "exp_recharge", "cap"), ("blocking",)
STEP_DELAYS = ((3, 4, 5, 5), (2, 3, 7), (6, 7, 8, 9, 10, 11, 12))
WARM = 100  # rounds before rewards count
KEEPS = 1 - 1 / (2 * np.e)


@dataclasses.dataclass(frozen=True)
class Config:
    """Instances per family, arms, rest depth; arms without payoff in the tight instance; rounds and draws simulated."""

    num_instances: int = 500
    num_arms: int = 6
    recovery: int = 9
    crowd: int = 200
    horizon: int = 1000
    draws: int = 64
    num_simulated: int = 20


QUICK = Config(num_instances=100, horizon=200, num_simulated=4)

MINE = "prototype of this project"
REFERENCES = {
    "least share kept, interleaved, concave": Reference(
        0.939, 0.016, MINE, "specification of the family, T10: 40 instances; .923 on 30 others", comparable=False
    ),
    "tight instance, interleaved": Reference(0.818, 0.003, MINE, "specification of the family, T10, T = 4000"),
    "bound": Reference(0.81606, 6e-6, MINE, "specification of the family, T10"),
} | {
    f"steps {delays}, interleaved": Reference(value, 0.006, MINE, "specification of the family, T10")
    for delays, value in zip(STEP_DELAYS, (0.752, 0.750, 0.681), strict=True)
}
NO_DUMMY = f"steps {STEP_DELAYS[2]}, interleaved without the dummy arm"
REFERENCES[NO_DUMMY] = Reference(
    0.178, 0.006, MINE, "specification of the family, T10",
    explained="docs/decisions.md, experiments of switching bandits: per unit of virtual time",
)  # fmt: skip


def draw(family, key, config):
    """A random member: payoffs by delay."""
    k, depth = config.num_arms, config.recovery
    first, second = jax.random.split(key)
    rewards = jax.random.uniform(first, (k,), minval=0.1)
    time = jnp.exp(jax.random.uniform(second, (k,), minval=0.0, maxval=np.log(depth + 1)))
    if family == "concave_random":
        return concave_random(key, k, depth + 1)
    if family == "blocking":
        delays = jax.random.randint(second, (k,), 2, depth + 2).astype(rewards.dtype)
        return blocking(delays, rewards, depth)
    return {"exp_recharge": exp_recharge, "cap": cap}[family](time, rewards, depth)


def kept(problem):
    """Shares of the relaxation's value that the interleaved and the random-phase schedule keep, by their formulas."""
    plan = delay_relaxation(problem)
    exact = interleaved_value(problem, play_rates(plan))
    return exact / plan.value, virtual_value(problem, occupancy(problem, plan).play) / plan.value, plan.value


def tight(crowd):
    """One arm that pays min(d, 2) / 2 at delay d and half of the rounds, shared by `crowd` arms that pay nothing."""
    payoffs = jnp.zeros((crowd + 1, 2)).at[0].set(jnp.array([0.5, 1.0]))
    rates = jnp.full(crowd + 1, 1 / (2 * crowd)).at[0].set(0.5)
    # planned: a play every other round, at delay 2
    return SwitchingBandit(payoffs, 1), rates, 0.5


def run(config):
    """Shares kept by family and instance; a few simulated; the listed steps and the tight instance."""

    def one_run(instance, family):
        problem = draw(family, jax.random.key(instance), config)
        by_order, by_phase, _ = kept(problem)
        return {"interleaved": by_order, "random_phases": by_phase}

    static = {"family": CONCAVE + STEPS}
    data = sweep(one_run, {"instance": range(config.num_instances)}, static=static, batch="vmap")

    def simulated(instance_simulated):
        problem = draw("blocking", jax.random.key(instance_simulated), config)
        planner = interleaved(problem)
        value = kept(problem)[2]
        keys = jax.random.split(jax.random.key(instance_simulated), config.draws)
        total = lambda key, rounds: simulate(problem, planner, rounds, key, observe=None).total  # noqa: E731
        rewards = jax.vmap(lambda key: total(key, WARM + config.horizon) - total(key, WARM))(keys) / config.horizon
        return {"simulated": jnp.mean(rewards) / value, "error": jnp.std(rewards) / np.sqrt(config.draws) / value}

    more = sweep(simulated, {"instance_simulated": range(config.num_simulated)}, batch="map")

    @jax.jit
    def listed():
        shares, bare = [], None
        for delays in STEP_DELAYS:
            problem = blocking(delays)
            by_order, by_phase, value = kept(problem)
            shares.append(jnp.stack([by_order, by_phase]))
            if delays == STEP_DELAYS[2]:
                rates = play_rates(delay_relaxation(problem))
                # Without the dummy the order of plays is that of rates which sum to 1.
                bare = interleaved_value(problem, rates / jnp.sum(rates)) / value
        problem, rates, planned = tight(config.crowd)
        return jnp.stack(shares), bare, Interleaved(rates).guarantee(problem) / planned

    shares, bare, crowded = (np.asarray(x) for x in listed())
    data = data.assign(more.data_vars)
    data["steps"] = (("delays", "schedule"), shares)
    data["bare"], data["tight"] = ((), float(bare)), ((), float(crowded))
    data = data.assign_coords(delays=[str(d) for d in STEP_DELAYS], schedule=["interleaved", "random phases"])
    return data.assign_attrs(title=TITLE, arms=config.num_arms, alpha=float(alpha(config.num_arms)))


def measured(data):
    """Least and mean shares by family; the formula beside simulation; the listed instances."""
    out = {}
    concave = [name for name in CONCAVE if name in data["family"].values]
    for name in ("interleaved", "random_phases"):
        label = name.replace("_", " ")
        here = data[name].sel(family=concave)
        out[f"least share kept, {label}, concave"] = Measured(here.min().item(), 0.0)
        for family in data["family"].values:
            mean = data[name].sel(family=family)
            out[f"mean share kept, {label}, {family}"] = Measured(mean.mean().item(), 0.0)
    formula = data["interleaved"].sel(family="blocking").values[: data.sizes["instance_simulated"]]
    off = np.abs(data["simulated"].values - formula)
    worst = int(np.argmax(off / np.maximum(data["error"].values, 1e-12)))
    out["simulated less formula, interleaved, farthest"] = Measured(
        float(off[worst]), 2 * float(data["error"].values[worst])
    )
    for delays in data["delays"].values:
        for schedule in data["schedule"].values:
            out[f"steps {delays}, {schedule}"] = Measured(
                data["steps"].sel(delays=delays, schedule=schedule).item(), 0.0
            )
    out[NO_DUMMY] = Measured(data["bare"].item(), 0.0)
    out["tight instance, interleaved"] = Measured(data["tight"].item(), 0.0)
    out["bound"] = Measured(KEEPS, 1e-15)
    return out


def plot(data):
    """A panel per family: share kept by interleaving against the share that random phases keep, an instance a dot."""
    names = [str(x) for x in data["family"].values]
    with figures.style():
        figure, axes = figures.subplots(1, len(names), width=10.0, height=3.0, sharex=True, sharey=True)
        for axis, name in zip(axes, names, strict=True):
            here = data.sel(family=name)
            axis.scatter(
                here["random_phases"], here["interleaved"], s=6, color=figures.COLOURS[0], alpha=0.5, label="instances"
            )
            axis.axhline(KEEPS, label="$1 - 1/(2e)$, concave", **figures.line_style(1))
            axis.axvline(data.attrs["alpha"], label=r"$\alpha(k, 1)$", **figures.line_style(2))
            axis.plot([0.5, 1], [0.5, 1], color="grey", linewidth=0.8, label="equal")
            axis.set(
                xlim=(0.6, 1.01), ylim=(0.5, 1.02), xlabel="random phases / relaxation", title=name.replace("_", " ")
            )
            if name in STEPS:
                steps = data["steps"].values
                axis.plot(steps[:, 1], steps[:, 0], "s", color=figures.COLOURS[3], markersize=5, label="listed steps")
                theirs = [REFERENCES[f"steps {d}, interleaved"].value for d in data["delays"].values]
                axis.plot(steps[:, 1], theirs, "kx", markersize=5, label="prototype")
        axes[0].set_ylabel("interleaved / relaxation")
        axes[0].legend(fontsize=7, loc="lower right")
        handles, labels = axes[-1].get_legend_handles_labels()
        axes[-1].legend(handles[4:], labels[4:], fontsize=7, loc="lower right")
        figure.suptitle(
            f"A study: {data.sizes['instance']} instances per family; exact means of both schedules' guarantees",
            fontsize=9,
        )
    return figure
