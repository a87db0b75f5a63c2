"""What the robust optimum of the simulated linear MDP is when the model is known, and where it turns careful."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import perturbed, simulated
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.robust import evaluate, plan
from rlcore.sweep import sweep

TITLE = "The robust optimum of the simulated linear MDP with a known model: careful nowhere unless it leaks (a study)"
PRECISION = "float64"
DIVERGENCES = ("tv", "kl", "chi2")
NAMES = {"tv": "TV", "kl": "KL", "chi2": r"$\chi^2$"}
TARGETS = (0.0, 0.5, 1.0)
LOW, HIGH = 0.005, 5.0  # the bracket of the switches


@dataclasses.dataclass(frozen=True)
class Config:
    """Levels, log-spaced; leaks of the variant; halvings of the bracket of a switch."""

    num_levels: int = 61
    leaks: tuple[float, ...] = (0.0, 0.02, 0.1)
    halvings: int = 60


QUICK = Config(num_levels=31)

SWITCH = {0.02: {"tv": 1.27398, "kl": 0.32361, "chi2": 0.02696}, 0.1: {"tv": 1.38722, "kl": 0.62665, "chi2": 0.16243}}
MINE = "prototype of this project"
REFERENCES = {
    f"switch level, {divergence}, leak {leak:g}": Reference(value, 6e-6, MINE, "specification of the family, 6.1")
    for leak, row in SWITCH.items()
    for divergence, value in row.items()
} | {
    "switch of the goal factor's price at step 0, TV": Reference(
        1.24850, 6e-6, MINE, "specification of the family, 5.1"
    ),
    "switch of the goal factor's radius at step 0, TV": Reference(
        0.37575, 6e-6, MINE, "specification of the family, 5.1"
    ),
}


def careful(model, divergence, level, constrained=False):
    """Whether the robust optimum plays the most careful action, the first, in state x1 at step 0. Cost: one plan."""
    return plan(model, divergence, level, constrained).policy[0, 0] == 0


def switch(is_careful, halvings):
    """Where a test of the level turns False from True within [LOW, HIGH], NaN without a sign change. Cost: plans."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        here = is_careful(middle)
        return jnp.where(here, middle, low), jnp.where(here, high, middle)

    low, high = jax.lax.fori_loop(0, halvings, halve, (jnp.asarray(LOW), jnp.asarray(HIGH)))
    crosses = is_careful(jnp.asarray(LOW)) & ~is_careful(jnp.asarray(HIGH))
    return jnp.where(crosses, (low + high) / 2, jnp.nan)


def run(config):
    """First action's carefulness and returns in targets by divergence, leak, level; switches by divergence and leak."""
    levels = np.geomspace(LOW, HIGH, config.num_levels)
    models = jax.tree.map(lambda *x: jnp.stack(x), *(simulated(leak=leak) for leak in config.leaks))
    nominal = simulated()

    def one_run(level, leak_index, divergence):
        model = jax.tree.map(lambda x: x[leak_index], models)
        policy = plan(model, divergence, level).policy
        target = lambda q: evaluate(perturbed(nominal, q), policy).values[0, 0]  # noqa: E731
        return {"careful": jnp.where(policy[0, 0] == 0, 1.0, 0.0), "returns": jax.vmap(target)(jnp.asarray(TARGETS))}

    grid = {"level": levels, "leak_index": range(len(config.leaks))}
    data = sweep(
        one_run, grid, static={"divergence": DIVERGENCES}, dims={"returns": ("target",)},
        coords={"target": list(TARGETS)}, batch="vmap",
    )  # fmt: skip

    @jax.jit
    def switches():
        by_leak = lambda d: jax.vmap(lambda m: switch(lambda x: careful(m, d, x), config.halvings))(models)  # noqa: E731
        # Only the goal factor's level at step 0 moves; elsewhere there is no adversary.
        price = lambda x: jnp.full((3, 4), jnp.inf).at[0, 3].set(x)  # noqa: E731
        radius = lambda x: jnp.zeros((3, 4)).at[0, 3].set(x)  # noqa: E731
        by_price = switch(lambda x: careful(nominal, "tv", price(x)), config.halvings)
        # A larger radius is the careful end, so the test runs from 1 downwards.
        by_radius = 1 - switch(lambda x: careful(nominal, "tv", radius(1 - jnp.minimum(x, 1)), True), config.halvings)
        return jnp.stack([by_leak(d) for d in DIVERGENCES]), by_price, by_radius

    found, by_price, by_radius = switches()
    data["switch"] = (("divergence", "leak_index"), np.asarray(found))
    data["switch_price"], data["switch_radius"] = ((), float(by_price)), ((), float(by_radius))
    return data.assign_coords(leak=("leak_index", list(config.leaks))).assign_attrs(title=TITLE)


def measured(data):
    """Switches to the width of the last bracket; the share of careful optima without a leak."""
    width = (HIGH - LOW) * 2.0**-45
    out = {}
    for name in REFERENCES:
        if name.startswith("switch level"):
            _, divergence, leak = name.split(", ")
            index = int(np.argmin(np.abs(data["leak"].values - float(leak.split()[-1]))))
            out[name] = Measured(data["switch"].sel(divergence=divergence, leak_index=index).item(), width)
    out["switch of the goal factor's price at step 0, TV"] = Measured(data["switch_price"].item(), width)
    out["switch of the goal factor's radius at step 0, TV"] = Measured(data["switch_radius"].item(), width)
    for divergence in DIVERGENCES:
        share = data["careful"].sel(divergence=divergence, leak_index=0).mean().item()
        out[f"share of levels with a careful optimum, {divergence}, no leak"] = Measured(share, 0.0)
    return out


def plot(data):
    """One panel per leak: the return at q = 1 of each robust optimum against the level, the switches marked."""
    levels = data["level"].values
    with figures.style():
        figure, axes = figures.subplots(1, data.sizes["leak_index"], height=2.9, sharey=True)
        for j, axis in enumerate(axes):
            leak = data["leak"].values[j]
            for i, divergence in enumerate(DIVERGENCES):
                here = data.sel(divergence=divergence).isel(leak_index=j)
                # Three lines on top of each other are told apart by a small shift, said in the title.
                height = here["returns"].sel(target=1.0) + 0.012 * (i - 1)
                axis.plot(levels, height, label=NAMES[divergence], **figures.line_style(i))
                if leak in SWITCH:
                    axis.axvline(SWITCH[leak][divergence], color=figures.COLOURS[i], linewidth=0.8, linestyle=":")
            axis.set(xscale="log", xlabel=r"level $\lambda$ [value]", title=rf"leak $\ell = {leak:g}$")
        axes[0].set_ylabel("return of the robust optimum at $q = 1$")
        axes[0].legend(loc="center left")
        figure.suptitle("A study, known model; lines shifted by 0.012; dotted: switches of the prototype", fontsize=9)
    return figure
