"""The price that makes a regularised problem the constrained one, factor by factor, and what one common price loses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import random_linear_mdp
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.robust import plan
from rlcore.robust.worst_case import operator
from rlcore.sweep import sweep

TITLE = "Radius of a ball and price of a divergence: the exact map per step and factor, and a common price (a study)"
PRECISION = "float64"
DIVERGENCES = ("tv", "kl", "chi2")
NAMES = {"tv": "TV", "kl": "KL", "chi2": r"$\chi^2$"}
NUM_STATES, NUM_ACTIONS, HORIZON, NUM_FACTORS = 4, 3, 3, 3
RADIUS = 0.15  # of the prototype's comparison with one common price


@dataclasses.dataclass(frozen=True)
class Config:
    """Random instances; radii, log-spaced in [0.01, 0.9]; common prices tried, log-spaced in [0.01, 3]."""

    num_models: int = 200
    num_radii: int = 17
    num_prices: int = 400


QUICK = Config(num_models=20, num_radii=7, num_prices=200)

# Medians over 20 instances of the prototype; neither their law nor over what the error was taken is recorded.
MEDIANS = {"tv": 0.016, "kl": 0.004, "chi2": 0.005}
REFERENCES = {
    f"median error of the best common price, radius {RADIUS:g}, {divergence}": Reference(
        value,
        0.5 * value,
        "prototype of this project",
        "specification of the family, C7, 20 instances of a law not given",
        comparable=False,
    )
    for divergence, value in MEDIANS.items()
}


def regularised_by(model, divergence, levels, radius):
    """Values of the recursion w = (worst case at the prices) - price * radius, float[H + 1, S]. Cost: one plan."""
    solve = jax.vmap(operator(divergence), in_axes=(0, None, 0))

    def step(value, at):
        law, level, weights = at
        priced = jnp.where(jnp.isfinite(level), level, 0) * radius
        w = solve(law, value, level).value - priced
        q = jnp.einsum("sad,d->sa", model.features, weights + w, precision="highest")
        new = jnp.max(q, axis=1)
        return new, new

    end = jnp.zeros(model.features.shape[0])
    return jax.lax.scan(step, end, (model.factors, levels, model.reward_weights), reverse=True)[1]


def run(config):
    """Prices, the error of the recursion with them, and the least error over one common price, by radius and model."""
    prices = jnp.geomspace(0.01, 3, config.num_prices)
    # Drawn once: the Dirichlet laws take longer to compile than all the rest.
    sizes = (NUM_STATES, NUM_ACTIONS, HORIZON, NUM_FACTORS)
    draw = jax.jit(jax.vmap(lambda key: random_linear_mdp(key, *sizes, zeros=0.0)))
    models = draw(jax.random.split(jax.random.key(0), config.num_models))

    def one_run(model, radius, divergence):
        problem = jax.tree.map(lambda x: x[model], models)
        ball = plan(problem, divergence, radius, constrained=True)
        levels = ball.duals  # what `levels_of_radius` returns
        # One call for the exact prices and the common ones: it compiles once.
        tried = jnp.concatenate([levels[None], jnp.broadcast_to(prices[:, None, None], (prices.size, *levels.shape))])
        found = jax.vmap(lambda x: regularised_by(problem, divergence, x, radius))(tried)
        return {
            "level": levels,
            "error": jnp.max(jnp.abs(found[0] - ball.values[:-1])),
            "common_error": jnp.min(jnp.max(jnp.abs(found[1:, 0] - ball.values[0]), axis=1)),
        }

    radii = np.unique(np.append(np.geomspace(0.01, 0.9, config.num_radii), RADIUS))
    data = sweep(
        one_run, {"model": range(config.num_models), "radius": radii}, static={"divergence": DIVERGENCES},
        dims={"level": ("step", "factor")}, batch="vmap",
    )  # fmt: skip
    return data.assign_attrs(title=TITLE)


def measured(data):
    """Largest error of the exact map; medians of the common price's least error with their standard errors."""
    out = {}
    for divergence in DIVERGENCES:
        here = data.sel(divergence=divergence)
        out[f"largest error of the map, {divergence}"] = Measured(here["error"].max().item(), 0.0)
        common = here["common_error"].sel(radius=RADIUS).values
        name = f"median error of the best common price, radius {RADIUS:g}, {divergence}"
        out[name] = Measured(float(np.median(common)), float(1.25 * common.std() / np.sqrt(common.size)))
        out[f"least error of a common price, radius {RADIUS:g}, {divergence}"] = Measured(float(common.min()), 0.0)
    return out


def plot(data):
    """One panel per divergence: prices of all steps and factors against the radius; last, errors of a common price."""
    radii = data["radius"].values
    with figures.style():
        figure, axes = figures.subplots(2, 2, height=2.7)
        for i, (axis, divergence) in enumerate(zip(axes, DIVERGENCES, strict=False)):
            # The last step has no next value: its price is 0 whatever the radius.
            level = data["level"].sel(divergence=divergence).isel(step=slice(0, -1))
            rows = level.transpose("radius", "model", "step", "factor").values.reshape(len(radii), -1)
            low, middle, high = np.quantile(rows, [0.1, 0.5, 0.9], axis=1)
            axis.fill_between(radii, low, high, alpha=0.2, color=figures.COLOURS[i], linewidth=0)
            axis.plot(radii, middle, label="median, 10–90%", **figures.line_style(i))
            axis.plot(radii, rows[:, :6], color="grey", linewidth=0.5)  # of the first instance
            axis.plot([], [], color="grey", linewidth=0.5, label="six steps and factors")
            axis.set(xscale="log", xlabel=r"radius $\rho$", ylabel=r"price $\lambda^*$ [value]")
            axis.set_title(NAMES[divergence])
            axis.legend(fontsize=7)
            error = data["common_error"].sel(divergence=divergence).median("model")
            axes[3].plot(radii, np.maximum(error, 1e-17), label=NAMES[divergence], **figures.line_style(i))
            axes[3].plot(RADIUS, MEDIANS[divergence], "x", color=figures.COLOURS[i], markersize=6)
            exact = np.maximum(data["error"].sel(divergence=divergence).max("model"), 1e-17)
            axes[3].plot(radii, exact, color=figures.COLOURS[i], linewidth=0.8, linestyle=":")
        axes[3].set(xscale="log", yscale="log", xlabel=r"radius $\rho$", ylabel="largest error of a value")
        axes[3].set_title("common price, step 0 (dotted: exact map)")
        axes[3].legend(fontsize=7)
        figure.suptitle(
            f"A study: {data.sizes['model']} random instances; crosses: prototype, 20 of a law not recorded", fontsize=9
        )
    return figure
