"""How much each adversary takes: one per factor or one per pair, and KL regressions where a factor has little data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import random_linear_mdp, simulated
from experiments import figures
from experiments.reference import Measured
from rlcore.robust import Rules, evaluate, nominal_values, plan, r2pvi, sample_trajectories, table
from rlcore.sweep import sweep

TITLE = "Conservatism: adversaries per factor and per pair, and centred KL regression with little data (a study)"
PRECISION = "float64"
NAMES = {"tv": "TV", "kl": "KL", "chi2": r"$\chi^2$"}
REGRESSIONS = ("towards H (paper)", "centred")
SIZES = (5, 3, 4, 3)  # states, actions, horizon, factors
LEVEL, RIDGE = 0.5, 1.0
REFERENCES = {}  # the specification has signs here, no numbers


@dataclasses.dataclass(frozen=True)
class Config:
    """Random instances and levels of the planning part; data sets and trajectories of the learning part."""

    num_models: int = 200
    num_levels: int = 21
    num_datasets: int = 200
    trajectories: tuple[int, ...] = (10, 30, 100, 300, 1000)
    penalties: tuple[float, ...] = (0.0, 0.1, 0.3)
    divergences: tuple[str, ...] = ("tv", "kl", "chi2")


QUICK = Config(
    num_models=30, num_levels=7, num_datasets=40, trajectories=(10, 100), penalties=(0.1,), divergences=("kl",)
)


def run(config):
    """Loss of value to each adversary by model, level; optimism of both KL regressions by data set, size, penalty."""
    draw = jax.jit(jax.vmap(lambda key: random_linear_mdp(key, *SIZES, zeros=0.0)))
    models = draw(jax.random.split(jax.random.key(0), config.num_models))

    nominal = jax.jit(jax.vmap(lambda m: jnp.dot(m.initial, nominal_values(m).values[0])))(models)

    def adversaries(model, level, divergence):
        problem = jax.tree.map(lambda x: x[model], models)
        mean = lambda found: jnp.dot(problem.initial, found.values[0])  # noqa: E731
        by_factor = mean(plan(problem, divergence, level))
        by_pair = mean(plan(problem, divergence, level, rectangular="sa"))
        return {"loss": nominal[model] - jnp.stack([by_factor, by_pair])}

    data = sweep(
        adversaries,
        {"model": range(config.num_models), "level": np.geomspace(0.03, 3, config.num_levels)},
        static={"divergence": config.divergences}, dims={"loss": ("adversary",)},
        coords={"adversary": ["per factor", "per pair"]}, batch="vmap",
    )  # fmt: skip

    # Leaky, so that KL is well posed; the behaviour jumps to the goal with one action in ten: that factor is poor.
    problem = simulated(leak=0.1)
    most = max(config.trajectories)
    space = table(problem.features, problem.reward_weights)
    best = plan(problem, "kl", LEVEL).values[0, 0]
    careful = jnp.full((3, 5, 16), 0.1 / 15).at[:, :, 0].set(0.9)

    def learners(dataset, size, penalty):
        sampled = sample_trajectories(jax.random.key(dataset), problem, careful, most)
        used = jnp.broadcast_to(jnp.where(jnp.arange(most) < size, 1.0, 0.0), (3, most))
        rules = Rules(unvisited="estimate")  # what the regression alone assumes
        learn = lambda centred: r2pvi(  # noqa: E731
            sampled, space, None, "kl", LEVEL, penalty, RIDGE, centred=centred, scale=used, rules=rules
        )
        found = [learn(False), learn(True)]
        policies = jnp.stack([x.policy for x in found])
        own = jax.vmap(lambda policy: evaluate(problem, policy, "kl", LEVEL).values[0, 0])(policies)
        return {"optimism": jnp.stack([x.values[0, 0] for x in found]) - own, "suboptimality": best - own}

    learned = sweep(
        learners,
        {"dataset": range(config.num_datasets), "size": config.trajectories, "penalty": config.penalties},
        dims={"optimism": ("regression",), "suboptimality": ("regression",)},
        coords={"regression": list(REGRESSIONS)}, batch="vmap",
    )  # fmt: skip
    return data.assign(learned.data_vars).assign_attrs(title=TITLE)


def measured(data):
    """Means with two standard errors: extra loss to an adversary per pair; share of estimates above the truth."""
    out = {}
    extra = data["loss"].sel(adversary="per pair") - data["loss"].sel(adversary="per factor")
    for divergence in data["divergence"].values:
        here = extra.sel(divergence=divergence)
        out[f"largest extra loss per pair, {divergence}"] = Measured(here.max().item(), 0.0)
        out[f"least extra loss per pair, {divergence}"] = Measured(here.min().item(), 0.0)
    for regression in REGRESSIONS:
        for size in (data["size"].values[0], data["size"].values[-1]):
            here = data["optimism"].sel(regression=regression, size=size, penalty=0.1)
            share = (here > 0).astype(float)
            error = float(2 * np.sqrt(share.var() / share.size))
            out[f"share of optimistic estimates, {regression}, K = {size}, penalty 0.1"] = Measured(
                share.mean().item(), error
            )
            lost = data["suboptimality"].sel(regression=regression, size=size, penalty=0.1)
            error = float(2 * lost.std() / np.sqrt(lost.size))
            out[f"suboptimality, {regression}, K = {size}, penalty 0.1"] = Measured(lost.mean().item(), error)
    return out


def plot(data):
    """Left, median loss to each adversary; middle, estimate less truth of the KL regressions; right, value lost."""
    with figures.style():
        figure, (left, centre, right) = figures.subplots(1, 3, width=9.5, height=3.2)
        levels = data["level"].values
        for i, divergence in enumerate(data["divergence"].values):
            middle = data["loss"].sel(divergence=divergence).median("model")
            left.plot(
                levels,
                middle.sel(adversary="per factor"),
                color=figures.COLOURS[i],
                label=f"{NAMES[divergence]}, per factor",
            )
            left.plot(
                levels, middle.sel(adversary="per pair"), color=figures.COLOURS[i], linestyle="--",
                label=f"{NAMES[divergence]}, per pair",
            )  # fmt: skip
        left.set(
            xscale="log",
            yscale="log",
            ylim=(1e-3, None),
            xlabel=r"level $\lambda$ [value]",
            ylabel="nominal less robust value",
        )
        left.set_title(f"known model, medians of {data.sizes['model']}", fontsize=9)
        for j, regression in enumerate(REGRESSIONS):
            for i, penalty in enumerate(data["penalty"].values):
                here = data.sel(regression=regression, penalty=penalty)
                style = {"color": figures.COLOURS[i], "linestyle": figures.DASHES[j], "marker": "."}
                label = rf"{regression}, $\beta = {penalty:g}$"
                centre.plot(data["size"], here["optimism"].mean("dataset"), label=label, **style)
                right.plot(data["size"], here["suboptimality"].mean("dataset"), label=label, **style)
        centre.axhline(0, color="black", linewidth=0.8)
        for axis, name in ((centre, "estimate less true robust value"), (right, "robust value lost")):
            axis.set(xscale="log", xlabel="trajectories $K$", ylabel=name)
            axis.set_title(rf"KL, $\lambda = {LEVEL:g}$, leaky simulated MDP")
        left.legend(fontsize=6.5, handlelength=3)
        right.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(0.0, 0.35), handlelength=3.5)
        figure.suptitle("A study: who may move what, and what is assumed of factors without data", fontsize=9)
    return figure
