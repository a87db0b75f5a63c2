"""What collisions cost: random phases on the instances that lose most, by number of arms and by plays per round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import uniform
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import (
    RandomPhase,
    Relaxation,
    SwitchingBandit,
    alpha,
    occupancy,
    poisson_alpha,
    relaxation,
    simulate,
    virtual_value,
)
from rlcore.sweep import sweep

TITLE = "Tightness: identical arms of one period collide as much as any can, by arms and plays per round (a study)"
PRECISION = "float64"
PERIOD = 4  # of the arms in the study of plays per round: k = PERIOD m of them ask for m plays on average


@dataclasses.dataclass(frozen=True)
class Config:
    """Largest number of arms at one play per round; numbers of plays; draws of the phases; random tables."""

    most_arms: int = 50
    every: int = 1
    plays: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    replicas: int = 4000
    num_random: int = 200
    random_arms: int = 24


QUICK = Config(most_arms=20, every=3, plays=(1, 2, 4), replicas=1000, num_random=20, random_arms=12)

MINE = "prototype of this project"
LISTED = {2: 0.75, 3: 0.7037, 4: 0.6836, 5: 0.6723, 10: 0.6513}
LIMITS = {1: 0.6321, 2: 0.7293, 3: 0.7760}
REFERENCES = {
    f"alpha(k, 1), k = {k}": Reference(value, 6e-5, MINE, "specification of the family, T4")
    for k, value in LISTED.items()
} | {
    f"limit of alpha(k, m), m = {m}": Reference(value, 6e-5, MINE, "specification of the family, T4")
    for m, value in LIMITS.items()
}
SIMULATED = Reference(0.650, 0.003, MINE, "specification of the family, T7")
REFERENCES["random phases earn, k = 10, m = 1"] = SIMULATED


def identical(arms, period, size, most):
    """(problem of `most` arms, the first `arms` pay 1 after period - 1 rounds of rest; their symmetric plan)."""
    pays = (jnp.arange(size) >= period - 1)[None, :] & (jnp.arange(most) < arms)[:, None]
    payoffs = jnp.concatenate([jnp.zeros((most, 1)), jnp.where(pays[:, 1:], 1.0, 0.0)], axis=1)
    active = jnp.arange(most) < arms
    idle = jnp.where(active, period - 1, 1).astype(jnp.int32)
    run = jnp.where(active, 1, 0).astype(jnp.int32)
    zero = jnp.zeros(())
    both = lambda x: jnp.stack([x, x], axis=1)  # noqa: E731
    weight = jnp.stack([jnp.ones(most), jnp.zeros(most)], axis=1)
    return SwitchingBandit(payoffs, 1), Relaxation(zero, zero, zero, both(idle), both(run), weight, zero)


def run(config):
    """Reward per round over the plan's value by replica: identical arms, and tables; alpha beside both."""
    numbers = sorted({*range(2, config.most_arms + 1, config.every), *(k for k in LISTED if k <= config.most_arms)})
    most = config.most_arms

    def by_arms(arms, replica):
        problem, plan = identical(arms, arms, most, most)
        # Virtual states are stationary from the rested start: every round has the same mean.
        total = simulate(problem, RandomPhase(plan), most, jax.random.key(replica), observe=None).total
        return {"reward": total / most}

    data = sweep(by_arms, {"arms": numbers, "replica": range(config.replicas)}, batch="vmap")

    top = PERIOD * max(config.plays)

    def by_plays(replica, plays):
        problem, plan = identical(PERIOD * plays, PERIOD, PERIOD, top)
        planner = RandomPhase(plan, plays)
        total = simulate(problem, planner, PERIOD, jax.random.key(replica), observe=None).total
        return {"reward_by_plays": total / (PERIOD * plays)}

    def random_tables(table, plays):
        problem = uniform(jax.random.key(table), config.random_arms, 5, 3)
        plan = relaxation(problem, plays)
        return {"guarantee": virtual_value(problem, occupancy(problem, plan).play, plays) / plan.value}

    plays = {"plays": config.plays}
    more = sweep(by_plays, {"replica": range(config.replicas)}, static=plays, batch="vmap")
    tables = sweep(random_tables, {"table": range(config.num_random)}, static=plays, batch="vmap")
    data = data.assign(more.data_vars).assign(tables.data_vars)
    data["alpha"] = (("arms",), np.asarray(jax.vmap(alpha)(jnp.asarray(numbers))))
    m = jnp.asarray(config.plays)
    data["alpha_by_plays"] = (("plays",), np.asarray(jax.vmap(alpha)(PERIOD * m, m)))
    data["alpha_random"] = (("plays",), np.asarray(jax.vmap(lambda x: alpha(config.random_arms, x))(m)))
    data["limit"] = (("plays",), np.asarray(jax.vmap(poisson_alpha)(m)))
    return data.assign_attrs(title=TITLE, random_arms=config.random_arms)


def _mean(values):
    return Measured(values.mean().item(), 2 * values.std(ddof=1).item() / np.sqrt(values.size))


def measured(data):
    """Means with two standard errors beside the closed forms; NaN for sizes that the preset leaves out."""
    out = {}
    for k in LISTED:
        out[f"alpha(k, 1), k = {k}"] = Measured(float(alpha(k)), 1e-15)
        here = data["reward"].sel(arms=k) if k in data["arms"].values else None
        out[f"random phases earn, k = {k}, m = 1"] = Measured(np.nan, np.nan) if here is None else _mean(here)
    for m in LIMITS:
        out[f"limit of alpha(k, m), m = {m}"] = Measured(float(poisson_alpha(m)), 1e-15)
    for m in data["plays"].values:
        here = data.sel(plays=m)
        name = f"k = {PERIOD * m}, m = {m}"
        out[f"alpha, {name}"] = Measured(here["alpha_by_plays"].item(), 1e-15)
        out[f"random phases earn, plays, {name}"] = _mean(here["reward_by_plays"])
        least = here["guarantee"].min().item()
        out[f"least V_virt / V of random tables, k = {data.attrs['random_arms']}, m = {m}"] = Measured(least, 0.0)
    return out


def plot(data):
    """Left, identical arms at one play per round; right, by plays per round, with random tables above."""
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, width=7.5, height=4.3)
        k = data["arms"].values
        error = 2 * data["reward"].std("replica") / np.sqrt(data.sizes["replica"])
        left.plot(k, data["alpha"], zorder=2, label=r"$\alpha(k, 1) = 1 - (1 - 1/k)^k$", **figures.line_style(0))
        left.errorbar(k, data["reward"].mean("replica"), error, fmt="o", markersize=3, linewidth=0.8, zorder=1,
                      color=figures.COLOURS[1], label="random phases, two standard errors")  # fmt: skip
        listed = [x for x in LISTED if x <= k.max()]
        left.plot(listed, [LISTED[x] for x in listed], "kx", markersize=6, zorder=3, label="prototype")
        left.errorbar(10, SIMULATED.value, SIMULATED.error, fmt="ks", markersize=5, markerfacecolor="none", zorder=3,
                      capsize=2, label="prototype, simulated, $k = 10$")  # fmt: skip
        left.axhline(1 - np.exp(-1), label="limit $1 - 1/e$", **figures.line_style(2))
        left.set(xlabel="arms $k$", ylabel="reward / relaxation", title="one play per round; the optimum is 1")
        m = data["plays"].values
        right.plot(m, data["alpha_by_plays"], label=rf"$\alpha(k, m)$, $k = {PERIOD} m$", **figures.line_style(0))
        here = data["reward_by_plays"]
        error = 2 * here.std("replica") / np.sqrt(here.sizes["replica"])
        right.errorbar(m, here.mean("replica"), error, fmt="o", markersize=4, color=figures.COLOURS[1],
                       label="random phases, identical arms")  # fmt: skip
        right.plot(m, data["limit"], label=r"limit $1 - m^m e^{-m} / m!$", **figures.line_style(2))
        tables = data["guarantee"]
        right.fill_between(m, tables.min("table"), tables.max("table"), color=figures.COLOURS[3], alpha=0.25,
                           linewidth=0)  # fmt: skip
        arms = data.attrs["random_arms"]
        right.plot(
            m, tables.mean("table"), label=f"guarantee, random tables, $k = {arms}$ (range)", **figures.line_style(3)
        )
        right.plot(m, data["alpha_random"], label=rf"$\alpha({arms}, m)$", **figures.line_style(4))
        right.plot(list(LIMITS), list(LIMITS.values()), "kx", markersize=6, label="prototype")
        right.set(xlabel="plays per round $m$", ylabel="reward / relaxation", title="more plays per round")
        for axis in (left, right):  # below: the curves leave no room for so many words
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
        figure.suptitle(f"A study: {data.sizes['replica']} draws of the phases", fontsize=9)
    return figure
