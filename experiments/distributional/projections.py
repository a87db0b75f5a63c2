"""How far four representations of a law are from it: particles, quantiles, probabilities and stop-loss curves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import (
    Categorical,
    Law,
    Quantiles,
    StockPolicy,
    cvar,
    law_evaluation,
    mean,
    policy_law,
    project_categorical,
    quantile_law,
    stock_grid,
    variance,
    wasserstein,
)
from rlcore.distributional.lattice import Lattice
from rlcore.mdp import MDP

TITLE = (
    "Projected laws of the return: distance, variance and CVaR by atoms and discount, with the lines of T12 (a study)"
)
PRECISION = "float64"
STATES = 5
DISCOUNTS = (0.5, 0.8, 0.9)
LEVEL = 0.1
KINDS = ("particles", "quantiles", "categorical", "stop-loss")
# Sweeps until this much reward is left; the law of reference takes fixed steps, and counts what is left as its error.
TOL = 1e-12
STEPS = 150


@dataclasses.dataclass(frozen=True)
class Config:
    """Random chains per discount; numbers of atoms, odd; sweeps of particles, 2^n atoms; points of the true law."""

    num_chains: int = 10
    atoms: tuple[int, ...] = (11, 21, 51, 101, 201)
    particles: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    points: int = 2**13 + 1


QUICK = Config(num_chains=2, atoms=(11, 51), particles=(3, 6), points=2**10 + 1)

MINE = "prototype of this project"
WHERE = "specification of the family, T12; one chain that is not recorded"


def _references():
    out = {}
    for name, value in {
        "w_1, categorical": 0.103, "w_2, categorical": 0.121, "variance added, categorical": 0.139,
    }.items():  # fmt: skip
        out[f"{name}, discount 0.9, 51 atoms"] = Reference(value, 5e-4, MINE, WHERE, comparable=False)
    out["bound of w_2, categorical, discount 0.9, 51 atoms"] = Reference(0.459, 5e-4, MINE, WHERE)
    out["bound of the variance, categorical, discount 0.9, 51 atoms"] = Reference(0.211, 5e-4, MINE, WHERE)
    out["w_1, quantiles, discount 0.9, 51 atoms"] = Reference(0.303, 5e-4, MINE, f"{WHERE}, 50 atoms", comparable=False)
    out["bound of w_1, quantiles, discount 0.9, 50 atoms"] = Reference(2.0, 5e-2, MINE, WHERE)
    out["bias of the mean, quantiles, discount 0.9, 51 atoms"] = Reference(
        0.30, 5e-3, MINE, f"{WHERE}, 50 atoms", comparable=False
    )
    out["bias of the mean, categorical, all"] = Reference(0.0, 1e-11, MINE, WHERE)
    return out


REFERENCES = _references()


def chain(key, discount):
    """One action, two outcomes: uniform laws and next states, rewards uniform in [-1, 1].

    Args: key; discount: float[]. Returns: an MDP from state 0.
    """
    following, weight, reward = jax.random.uniform(key, (3, STATES, 1, 2))
    weight = -jnp.log1p(-weight)
    return MDP(
        jnp.floor(STATES * following).astype(jnp.int32),
        weight / jnp.sum(weight, axis=-1, keepdims=True),
        2 * reward - 1,
        jnp.zeros(reward.shape, bool),
        jnp.ones((STATES, 1), bool),
        jnp.asarray(discount),
        jnp.zeros(STATES).at[0].set(1.0),
        None,
    )


def only_policy():
    """The policy of a chain, which looks at no stock."""
    return StockPolicy(
        stock_grid(0, 1, 1, rounding="linear"), *(jnp.zeros(s, jnp.int32) for s in ((STATES, 2), STATES, STATES))
    )


def covering(discount, size):
    """`size` atoms, odd, over all returns."""
    return Lattice(2 / (1 - discount) / (size - 1), -(size // 2), size)


def true_law(problem, discount, points):
    """The law of the return from state 0, pushed forward on a fine lattice, and a bound of its error in w_1."""
    # one point more on each side for every reward that is shared by two
    wide = Lattice(2 / (1 - discount) / (points - 1), -(points // 2) - STEPS, points + 2 * STEPS)
    found = policy_law(problem, only_policy(), 0.0, points=wide, num_steps=STEPS)
    return found.law, found.error


def scattered(problem, points):
    """The categorical law of state 0 by scattering probabilities: the same projection, computed otherwise."""
    start = project_categorical(Law(jnp.zeros(1), jnp.ones(1)), points)

    def of_state(next_state, prob, reward, pmf):
        values = reward[:, None] + problem.discount * points.points[None]
        probs = prob[:, None] * pmf[next_state]
        return project_categorical(Law(values.ravel(), probs.ravel()), points)

    def sweep(_, pmf):
        rows = (problem.next_state[:, 0], problem.prob[:, 0], problem.reward[:, 0])
        return jax.vmap(lambda *row: of_state(*row, pmf))(*rows)

    sweeps = jnp.ceil(jnp.log(TOL * (1 - problem.discount)) / jnp.log(problem.discount)).astype(int)
    pmf = jax.lax.fori_loop(0, sweeps, sweep, jnp.broadcast_to(start, (STATES, points.size)))
    return Law(points.points, pmf[0])


def particle_law(problem, sweeps):
    """The exact law of the first rewards of state 0, 2^sweeps atoms: what is cut off is the error."""
    law = Law(jnp.zeros((STATES, 1)), jnp.ones((STATES, 1)))
    for _ in range(sweeps):
        values = problem.reward[:, 0, :, None] + problem.discount * law.values[problem.next_state[:, 0]]
        probs = problem.prob[:, 0, :, None] * law.probs[problem.next_state[:, 0]]
        law = Law(values.reshape(STATES, -1), probs.reshape(STATES, -1))
    return Law(law.values[0], law.probs[0])


def kept_law(problem, kind, size):
    """The law of state 0 in a representation of so many atoms; of particles, sweeps."""
    points = covering(problem.discount, size)
    if kind == "particles":
        return particle_law(problem, size)
    if kind == "categorical":
        return scattered(problem, points)
    representation = Categorical(points) if kind == "stop-loss" else Quantiles(size)
    # no stock: the law of the side above the window, where rewards are true
    kept = law_evaluation(problem, only_policy(), representation, tol=TOL).above[0]
    return Law(points.points, kept) if kind == "stop-loss" else quantile_law(kept)


def moments(problem):
    """The mean and the variance of the return from state 0, from two linear equations."""
    prob, reward = problem.prob[:, 0], problem.reward[:, 0]
    following = jax.nn.one_hot(problem.next_state[:, 0], STATES, dtype=prob.dtype)
    onward = jnp.sum(prob[..., None] * following, axis=1)
    own = jnp.sum(prob * reward, axis=1)
    first = jnp.linalg.solve(jnp.eye(STATES) - problem.discount * onward, own)
    both = reward**2 + 2 * problem.discount * reward * first[problem.next_state[:, 0]]
    second = jnp.linalg.solve(jnp.eye(STATES) - problem.discount**2 * onward, jnp.sum(prob * both, axis=1))
    return first[0], second[0] - first[0] ** 2


def compared(problem, law, truth):
    """What a kept law of state 0 misses; mean and variance by linear equations, the rest by the fine law."""
    tail = functools.partial(cvar, level=LEVEL)
    middle, spread = moments(problem)
    return {
        "w1": wasserstein(law, truth),
        "w2": wasserstein(law, truth, 2),
        "mean": mean(law) - middle,
        "variance": variance(law) - spread,
        "cvar": tail(law) - tail(truth),
    }


def run(config):
    """Distances and differences by chain, discount, representation and number of atoms."""
    import xarray as xr

    keys = jax.random.split(jax.random.key(0), config.num_chains)
    discounts = jnp.asarray(DISCOUNTS)

    def over_all(function):
        """[discount, chain, ...] of a function of a problem."""
        by_chain = lambda g: jax.lax.map(lambda key: function(chain(key, g)), keys)  # noqa: E731
        return jax.jit(lambda: jax.lax.map(by_chain, discounts))()

    truth, certain = over_all(lambda problem: true_law(problem, problem.discount, config.points))

    # padded to one size, so that one program compares all
    width = max(*config.atoms, *(2**n for n in config.particles))

    def padded(problem, kind, size):
        law = kept_law(problem, kind, size)
        return jax.tree.map(lambda x: jnp.pad(x, (0, width - x.size)), law)

    @jax.jit
    def compare(kept, truth):
        by_chain = lambda g, *laws: jax.lax.map(lambda x: compared(chain(x[0], g), *x[1:]), (keys, *laws))  # noqa: E731
        return jax.lax.map(lambda x: by_chain(*x), (discounts, kept, truth))

    rows = []
    for kind in KINDS:
        for size in config.particles if kind == "particles" else config.atoms:
            found = compare(over_all(functools.partial(padded, kind=kind, size=size)), truth)
            found = {name: (("discount", "chain"), np.asarray(x)) for name, x in found.items()}
            at = {"kind": kind, "atoms": 2**size if kind == "particles" else size}
            rows.append(xr.Dataset(found, {"discount": list(DISCOUNTS)}).assign_coords(**at))
    data = xr.concat(rows, "row")
    data["truth_error"] = (("discount", "chain"), np.asarray(certain))
    return data.assign_attrs(title=TITLE)


def categorical_bound(discount, size, power=1):
    """T12: of w_1 and w_2, d / (2 sqrt(1 - discount^2)); its square, of what the variance may gain."""
    spacing = 2 / (1 - discount) / (np.asarray(size, float) - 1)
    return (spacing / 2 / np.sqrt(1 - discount**2)) ** power


def quantile_bound(discount, size):
    """T12: of w_1, range / (2 size) / (1 - discount)."""
    return 1 / (1 - discount) / np.asarray(size, float) / (1 - discount)


def pick(data, kind, discount):
    """The rows of a representation, by increasing number of atoms."""
    return data.isel(row=np.flatnonzero(data["kind"].values == kind)).sel(discount=discount).sortby("atoms")


def _along(rows, values):
    """Numbers by row as a data array."""
    return rows["atoms"].copy(data=values)


def measured(data):
    """Means over chains with the largest distance from them, and the largest ratio to every bound of T12."""
    out = {}
    words = {"w1": "w_1", "w2": "w_2", "mean": "bias of the mean", "variance": "variance added", "cvar": "CVaR added"}
    for discount in DISCOUNTS:
        for kind in KINDS[1:3]:
            here = pick(data, kind, discount)
            here = here.isel(row=int(np.argmin(abs(here["atoms"].values - 51))))
            for name, word in words.items():
                values = abs(here[name].values) if name == "mean" else here[name].values
                middle = float(values.mean())
                spread = float(abs(values - middle).max())
                out[f"{word}, {kind}, discount {discount:g}, {here['atoms'].item()} atoms"] = Measured(middle, spread)
    out["bound of w_2, categorical, discount 0.9, 51 atoms"] = Measured(float(categorical_bound(0.9, 51)), 1e-15)
    out["bound of the variance, categorical, discount 0.9, 51 atoms"] = Measured(
        float(categorical_bound(0.9, 51, 2)), 1e-15
    )
    out["bound of w_1, quantiles, discount 0.9, 50 atoms"] = Measured(float(quantile_bound(0.9, 50)), 1e-14)
    categorical = [pick(data, "categorical", g) for g in DISCOUNTS]
    bias = max(float(abs(x["mean"]).max()) for x in categorical)
    out["bias of the mean, categorical, all"] = Measured(bias, 0.0)
    certain = data["truth_error"].max().item()
    for name, power in (("w1", 1), ("w2", 1), ("variance", 2)):
        ratio = max(
            float((x[name] / _along(x, categorical_bound(g, x["atoms"].values, power))).max())
            for g, x in zip(DISCOUNTS, categorical, strict=True)
        )
        out[f"{words[name]} / bound, categorical, largest"] = Measured(ratio, 0.0)
    quantiles = [pick(data, "quantiles", g) for g in DISCOUNTS]
    ratio = max(
        float((x["w1"] / _along(x, quantile_bound(g, x["atoms"].values))).max())
        for g, x in zip(DISCOUNTS, quantiles, strict=True)
    )
    out["w_1 / bound, quantiles, largest"] = Measured(ratio, 0.0)
    out["CVaR added, categorical, largest"] = Measured(
        max(float(x["cvar"].max()) for x in categorical), certain / LEVEL
    )
    both = [abs(pick(data, "stop-loss", g) - x).max() for g, x in zip(DISCOUNTS, categorical, strict=True)]
    out["stop-loss against scattered, largest difference"] = Measured(
        max(float(x[name]) for x in both for name in words), 0.0
    )
    out["true law, error in w_1 at most"] = Measured(certain, 0.0)
    return out


def plot(data):
    """Distances by atoms, one discount; then by discount: distance, variance and CVaR, with the bounds."""
    middle = DISCOUNTS[-1]
    with figures.style():
        figure, axes = figures.subplots(2, 3, width=11.5, height=3.1)
        for axis, name, title in ((axes[0], "w1", "w_1"), (axes[1], "w2", "w_2")):
            for i, kind in enumerate(KINDS):
                here = pick(data, kind, middle)
                x, y = here["atoms"].values, here[name]
                style = figures.line_style(i)
                if kind == "stop-loss":
                    axis.plot(x, y.mean("chain"), "o", markersize=7, markerfacecolor="none", color=style["color"],
                              label=kind)  # fmt: skip
                    continue
                axis.fill_between(x, y.min("chain"), y.max("chain"), color=style["color"], alpha=0.15, linewidth=0)
                axis.plot(x, y.mean("chain"), label=kind, marker=".", **style)
            x = pick(data, "categorical", middle)["atoms"].values
            axis.plot(
                x, categorical_bound(middle, x), color=figures.COLOURS[2], linewidth=0.8, label="T12, categorical"
            )
            if name == "w1":
                axis.plot(x, quantile_bound(middle, x), color=figures.COLOURS[1], linewidth=0.8, label="T12, quantiles")
            for kind, marker in (("quantiles", "k+"), ("categorical", "kx")):
                known = REFERENCES.get(f"{title}, {kind}, discount 0.9, 51 atoms")
                if known:
                    axis.plot(51, known.value, marker, markersize=7, label=f"prototype, {kind}, another chain")
            axis.set(xscale="log", yscale="log", xlabel="atoms", ylabel=f"${title}$ from the true law [reward]")
            axis.set_title(f"discount {middle:g}: mean and range over chains")
            axis.set_ylim(bottom=axis.get_ylim()[0] / 30)
            axis.legend(fontsize=6.5, loc="lower left", ncols=2)
        rest = {
            "w2": (axes[2], "$w_2$, categorical"),
            "variance": (axes[3], "variance added, categorical"),
            "cvar": (axes[4], f"CVaR {LEVEL:g} understated, categorical"),
            "mean": (axes[5], "largest bias of the mean"),
        }
        for i, discount in enumerate(DISCOUNTS):
            here = pick(data, "categorical", discount)
            x, colour = here["atoms"].values, figures.COLOURS[i]
            style = figures.line_style(i)
            for name in ("w2", "variance", "cvar"):
                axis = rest[name][0]
                y = here[name] if name != "cvar" else -here[name]
                axis.fill_between(x, y.min("chain"), y.max("chain"), color=colour, alpha=0.15, linewidth=0)
                axis.plot(x, y.mean("chain"), marker=".", label=f"discount {discount:g}", **style)
                # w_1 <= w_2 <= the bound, and a tail's mean moves by at most w_1 over its share
                limit = categorical_bound(discount, x, 2 if name == "variance" else 1)
                axis.plot(x, limit / (LEVEL if name == "cvar" else 1), color=colour, linewidth=0.8)
            axis = rest["mean"][0]
            axis.plot(x, np.maximum(abs(here["mean"]).max("chain"), 1e-17), marker="s", markersize=3,
                      label=f"categorical, {discount:g}", **style)  # fmt: skip
            other = pick(data, "quantiles", discount)
            bias = abs(other["mean"]).max("chain")
            axis.plot(other["atoms"], bias, marker="o", markersize=3, markerfacecolor="none",
                      label=f"quantiles, {discount:g}", **style)  # fmt: skip
        for name, (axis, title) in rest.items():
            axis.set(xscale="log", yscale="log", xlabel="atoms", title=title)
            axis.set_ylabel({"variance": "[reward squared]"}.get(name, "[reward]"))
            axis.legend(fontsize=6.5, loc="center left" if name == "mean" else "lower left")
        for axis in axes:
            axis.set_xticks(ticks := sorted({int(n) for n in data["atoms"].values if n % 2}), ticks, minor=False)
            axis.minorticks_off()
        axes[3].plot(51, REFERENCES["variance added, categorical, discount 0.9, 51 atoms"].value, "kx", markersize=6)
        axes[2].plot([], [], color="grey", linewidth=0.8, label="T12")
        axes[2].legend(fontsize=6.5, loc="lower left")
        figure.suptitle(
            f"A study: {data.sizes['chain']} random chains of {STATES} states, rewards in [-1, 1]; thin lines: bounds",
            fontsize=9,
        )
    return figure
