"""Which functionals greedy distributional programming optimises: all policies of small trees enumerated."""

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
    almost_surely_nonnegative,
    brute_force_laws,
    cvar,
    dist_vi,
    distinct_laws,
    essential_infimum,
    expected_utility,
    lattice,
    mean,
    stock_grid,
    value_at_risk,
    variance,
)
from rlcore.distributional.lattice import Lattice
from rlcore.mdp import MDP, tabular

TITLE = "Which functionals greedy distributional programming optimises: all 128 policies of three steps (a study)"
PRECISION = "float64"
STATES, STEPS = 4, 3
DISCOUNTS = (1.0, 0.5)
# From stocks within 3 a discount of 1/2 leads to at most (3 + 2) 2, then 24, before the last step.
WINDOW = stock_grid(-24.0, 24.0, 1.0)
# Multiples of discount^2 hold all returns: at most 6 at discount 1, 3.5 at 1/2.
FIRST, ATOMS = -14, 29

FUNCTIONALS = {
    "E min(x, 0)": lambda law: expected_utility(law, lambda x: jnp.minimum(x, 0.0)),
    "E max(x, 0)": lambda law: expected_utility(law, lambda x: jnp.maximum(x, 0.0)),
    "-E |x|": lambda law: expected_utility(law, lambda x: -jnp.abs(x)),
    "P(x >= 0)": lambda law: expected_utility(law, lambda x: jnp.where(x >= 0, 1.0, 0.0)),
    "-E x^2": lambda law: expected_utility(law, lambda x: -(x**2)),
    "ess inf": essential_infimum,
    "x >= 0 surely": almost_surely_nonnegative,
    "-E exp(-x)": lambda law: expected_utility(law, lambda x: -jnp.exp(-x)),
    "E min(x - 1, 0)": lambda law: expected_utility(law, lambda x: jnp.minimum(x - 1, 0.0)),
    "CVaR 1/2": functools.partial(cvar, level=0.5),
    "median": functools.partial(value_at_risk, level=0.5),
    "mean - variance / 2": lambda law: mean(law) - variance(law) / 2,
    "mean + ess inf": lambda law: mean(law) + essential_infimum(law),
}
NAMES = tuple(FUNCTIONALS)
# What each lacks: indifference to the discount, or to mixtures.
LACKS = {"-E exp(-x)": "discount", "E min(x - 1, 0)": "discount"} | {name: "mixtures" for name in NAMES[9:]}


@dataclasses.dataclass(frozen=True)
class Config:
    """Random trees per functional and discount."""

    num_instances: int = 500


QUICK = Config(num_instances=12)

# Of the specification's 200 trees: how often greedy fell short at discounts 1 and 1/2, and by how much at most.
FOUND = {
    "-E exp(-x)": ((0, 37), (0.0, 2.75)),
    "E min(x - 1, 0)": ((0, 41), (0.0, 0.433)),
    "CVaR 1/2": ((43, 41), (0.616, 0.265)),
    "median": ((35, 41), (2.0, 1.5)),
    "mean - variance / 2": ((72, 78), (1.45, 0.678)),
    "mean + ess inf": ((48, 46), (1.68, 0.603)),
}
MINE, WHERE = "prototype of this project", "specification of the family, T3"


def _sampling(share, count):
    """Two standard errors of a share, of which one success and one failure more were seen: no share is without."""
    share = (share * count + 1) / (count + 2)
    return 2 * float(np.sqrt(share * (1 - share) / count))


def _fails(name, discount):
    """Whether a condition fails, so that some trees must be lost; else none may be."""
    return name in LACKS and not (LACKS[name] == "discount" and discount == 1)


def _references():
    out = {}
    for name in NAMES:
        failures, losses = FOUND.get(name, ((0, 0), (0.0, 0.0)))
        for discount, count, loss in zip(DISCOUNTS, failures, losses, strict=True):
            at = f"{name}, discount {discount:g}"
            error = _sampling(count / 200, 200) if _fails(name, discount) else 0.0
            out[f"share that fails, {at}"] = Reference(count / 200, error, MINE, WHERE)
            if loss:  # the largest of a sample: it grows with the sample
                out[f"largest loss, {at}"] = Reference(loss, 0.0, MINE, WHERE, comparable=False)
    for which, greedy, best in (("mixtures", -8.5, -25 / 3), ("discount", 0.5, 0.55)):
        out[f"by hand, {which}: greedy"] = Reference(greedy, 1e-9, MINE, f"{WHERE}, hand instances")
        out[f"by hand, {which}: best"] = Reference(best, 1e-9, MINE, f"{WHERE}, hand instances")
    return out


REFERENCES = _references()


def random_problem(key, states, discount, *, horizon=None):
    """The specification's random problem: 2 actions, 2 outcomes of uniform laws, next states uniform, rewards -2 .. 2.

    Args: key: of the draws. states: int, static. discount: float[]. horizon: static. Returns: an MDP from state 0.
    """
    following, weight, reward = jax.random.uniform(key, (3, states, 2, 2))
    weight = -jnp.log1p(-weight)
    return MDP(
        jnp.floor(states * following).astype(jnp.int32),
        weight / jnp.sum(weight, axis=-1, keepdims=True),
        jnp.floor(5 * reward) - 2,
        jnp.zeros((states, 2, 2), bool),
        jnp.ones((states, 2), bool),
        jnp.asarray(discount),
        jnp.zeros(states).at[0].set(1.0),
        horizon,
    )


def by_number(law, which):
    """The functional of that number; `which` is traced, so that one program serves all."""
    return jax.lax.switch(which, list(FUNCTIONALS.values()), law)


@jax.jit
def _one_functional(which, keys, discount):
    """K of stock + return: of the greedy programme, float[n], and of every policy of the history, float[n, 128]."""
    functional = functools.partial(by_number, which=which)
    representation = Categorical(Lattice(discount ** (STEPS - 1), FIRST, ATOMS))

    def one(key):
        own, stock_key = jax.random.split(key)
        problem = random_problem(own, STATES, discount, horizon=STEPS)
        node = jax.random.randint(stock_key, (), -3, 4)
        stock = node.astype(problem.reward.dtype)
        # promised of all of them: what happens where it is false is the question
        solved = dist_vi(problem, functional, WINDOW, representation, homogeneous=True, shifts=False)
        kept = solved.laws[0, node - WINDOW.lattice.first]
        greedy = functional(Law(stock + representation.points.points, kept))
        laws = brute_force_laws(problem, jnp.asarray(0))
        return greedy, jax.vmap(lambda values, probs: functional(Law(stock + values, probs)))(laws.values, laws.probs)

    return jax.lax.map(one, keys)


def by_hand(which):
    """The specification's two instances: (problem, functional, its greedy solution, the laws of all policies).

    "mixtures": -10 with probability 1/2, else A (-1 with 1/5, 1 with 4/5) or B (0), CVaR at 3/5. "discount": at 1/2,
    no reward, then A (1) or B (1/5 or 3), E min(x, 1).
    """
    if which == "mixtures":
        next_state = np.array([[[0, 1], [0, 1]], [[1, 1], [1, 1]]])
        prob = np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [1.0, 0.0]]])
        reward = np.array([[[-10.0, 0.0], [-10.0, 0.0]], [[-1.0, 1.0], [0.0, 0.0]]])
        ends = np.array([[[True, False], [True, False]], [[True, True], [True, True]]])
        functional, grid, points = functools.partial(cvar, level=0.6), stock_grid(-11, 11, 1), lattice(-10, 1, 1)
        discount = 1.0
    else:
        next_state, prob = np.ones((2, 2, 2), int), np.array([[[1.0, 0.0]] * 2, [[1.0, 0.0], [0.5, 0.5]]])
        reward = np.array([[[0.0, 0.0]] * 2, [[1.0, 0.0], [0.2, 3.0]]])
        ends = np.array([[[False] * 2] * 2, [[True] * 2] * 2])
        functional, grid, points = _capped, stock_grid(-1, 4, 0.2), lattice(0, 3, 0.1)
        discount = 0.5
    problem = tabular(next_state, prob, reward, terminal=ends, discount=discount, horizon=2, initial=np.eye(2)[0])
    solved = dist_vi(problem, functional, grid, Categorical(points), homogeneous=True)
    at = -grid.lattice.first
    greedy = Law(points.points, solved.laws[0, at])
    return problem, functional, greedy, distinct_laws(problem, 0)


def _capped(law):
    return expected_utility(law, lambda x: jnp.minimum(x, 1.0))


def run(config):
    """Greedy's value and all policies' by functional, discount and tree; the hand instances' laws."""
    import xarray as xr

    keys = jax.random.split(jax.random.key(0), config.num_instances)
    found = [[_one_functional(jnp.asarray(i), keys, jnp.asarray(g)) for g in DISCOUNTS] for i in range(len(NAMES))]
    greedy = np.array([[x[0] for x in row] for row in found])
    policies = np.array([[x[1] for x in row] for row in found])
    best = policies.max(axis=-1)
    loss = np.where(best - greedy > 1e-9 * (1 + np.abs(best)), best - greedy, 0.0)
    worst = np.argmax(loss, axis=-1)
    pick = np.take_along_axis
    data = {
        "loss": (("functional", "discount", "instance"), loss),
        "rounding": (("functional", "discount"), np.abs(best - greedy).max(axis=-1, where=loss == 0, initial=0)),
        "range": (("functional", "discount", "instance"), best - policies.min(axis=-1)),
        "worst_policies": (
            ("functional", "discount", "policy"),
            pick(policies, worst[..., None, None], axis=2)[:, :, 0],
        ),
        "worst_greedy": (("functional", "discount"), pick(greedy, worst[..., None], axis=2)[..., 0]),
    }
    for which in ("mixtures", "discount"):
        _, functional, law, laws = by_hand(which)
        values = np.array([float(functional(x)) for x in laws])
        data[f"greedy_{which}"] = ((), float(functional(law)))
        data[f"policies_{which}"] = ((f"plan_{which}",), values)
        atoms = np.unique(np.concatenate([np.asarray(x.values) for x in laws]))
        cdf = [[float(np.sum(np.asarray(x.probs)[np.asarray(x.values) <= a + 1e-9])) for a in atoms] for x in laws]
        data[f"cdf_{which}"] = ((f"plan_{which}", f"return_{which}"), np.array(cdf))
        data[f"return_{which}"] = ((f"return_{which}",), atoms)
    return xr.Dataset(data, {"functional": list(NAMES), "discount": list(DISCOUNTS)}, {"title": TITLE})


def measured(data):
    """Shares of trees on which greedy falls short, with two standard errors, and by how much; the hand instances."""
    out, count = {}, data.sizes["instance"]
    for name in NAMES:
        for discount in DISCOUNTS:
            loss, at = data["loss"].sel(functional=name, discount=discount), f"{name}, discount {discount:g}"
            share = float((loss > 0).mean())
            failing = _fails(name, discount)
            out[f"share that fails, {at}"] = Measured(share, _sampling(share, count) if failing else 0.0)
            if failing:
                out[f"largest loss, {at}"] = Measured(loss.max().item(), 0.0)
    out["largest difference where nothing fails"] = Measured(data["rounding"].max().item(), 0.0)
    for which in ("mixtures", "discount"):
        out[f"by hand, {which}: greedy"] = Measured(data[f"greedy_{which}"].item(), 1e-12)
        out[f"by hand, {which}: best"] = Measured(data[f"policies_{which}"].max().item(), 1e-12)
    return out


MARKERS = ("o", "s")


def plot(data):
    """Above, shares of failures, losses, and the worst tree's policies; below, the two instances by hand."""
    rows = np.arange(len(NAMES))[::-1]
    with figures.style():
        figure, axes = figures.subplots(
            2, 3, width=12.0, height=3.6, gridspec_kw={"height_ratios": (1.75, 1), "width_ratios": (1.1, 1, 1.1)}
        )
        shares, losses, trees, *hands, sizes = axes
        for i, discount in enumerate(DISCOUNTS):
            here = data.sel(discount=discount)
            style = {"color": figures.COLOURS[i], "label": f"discount {discount:g}", "hatch": ("", "///")[i]}
            at = rows + 0.2 - 0.4 * i
            shares.barh(at, (here["loss"] > 0).mean("instance"), 0.36, edgecolor="white", linewidth=0, **style)
            largest = np.maximum(here["loss"].max("instance"), here["rounding"])
            losses.barh(at, np.maximum(largest, 1e-17), 0.36, edgecolor="white", linewidth=0, **style)
            for y, exact in zip(at, largest.values == 0, strict=True):
                losses.text(1.5e-17, y, "0" if exact else "", fontsize=6, va="center", color=figures.COLOURS[i])
            known = [REFERENCES[f"share that fails, {name}, discount {discount:g}"] for name in NAMES]
            shares.errorbar([x.value for x in known], at, xerr=[x.error for x in known], fmt="kx", markersize=4,
                            linewidth=0.7, label="prototype, 200 trees" if i else None)  # fmt: skip
            high = [REFERENCES.get(f"largest loss, {name}, discount {discount:g}") for name in NAMES]
            losses.plot([x.value for x in high if x], [y for x, y in zip(high, at, strict=True) if x], "kx",
                        markersize=4, label="prototype" if i == 0 else None)  # fmt: skip
            for y, name in zip(at, NAMES, strict=True):
                tree = here.sel(functional=name)
                if not (tree["loss"] > 0).any():
                    continue
                values = tree["worst_policies"].values
                low, high = values.min(), values.max()
                at_policies = (values - low) / (high - low)
                trees.plot(at_policies, np.full(values.size, y), "|", color="grey", markersize=5, alpha=0.6)
                trees.plot(
                    (tree["worst_greedy"].item() - low) / (high - low),
                    y,
                    MARKERS[i],
                    color=figures.COLOURS[i],
                    markersize=5,
                )
        shares.set_yticks(rows, NAMES)
        for axis in (losses, trees):
            axis.set_yticks(rows, [])
        for axis in (shares, losses, trees):
            axis.set_ylim(-0.7, len(NAMES) - 0.3)
            for y in (3.5, 5.5):  # without mixtures, without the discount, with both
                axis.axhline(y, color="black", linewidth=0.7, linestyle=":")
        shares.set(xlabel="share of trees on which greedy is not best", title="x = stock + return", xlim=(0, 0.5))
        shares.legend(loc="upper right", fontsize=7)
        for y, text in ((5.7, "indifferent to mixtures and discount"), (4.0, "not to the discount")):
            shares.text(0.49, y + 0.05, text, fontsize=7, ha="right", style="italic")
        losses.set(xscale="log", xlim=(1e-17, 1e2), xlabel="largest loss [units of the functional]")
        losses.set_title("rounding, or a loss")
        trees.set(
            xlim=(-0.05, 1.05), xlabel="value, worst policy 0, best 1", title="the worst tree: 128 policies, greedy"
        )
        trees.plot([], [], "|", color="grey", label="a policy")
        for i, discount in enumerate(DISCOUNTS):
            trees.plot(
                [], [], MARKERS[i], color=figures.COLOURS[i], markersize=5, label=f"greedy, discount {discount:g}"
            )
        trees.legend(loc="upper left", fontsize=7)
        titles = {
            "mixtures": "by hand: CVaR 3/5, discount 1",
            "discount": "by hand: E min(x, 1), discount 1/2",
        }
        for axis, (which, title) in zip(hands, titles.items(), strict=True):
            x = data[f"return_{which}"].values
            width = x[-1] - x[0]
            wide = np.concatenate([[x[0] - 0.1 * width], x, [x[-1] + 0.1 * width]])
            chosen = data[f"greedy_{which}"].item()
            for j, value in enumerate(data[f"policies_{which}"].values):
                cdf = data[f"cdf_{which}"].values[j]
                taken = abs(value - chosen) < 1e-9
                label = f"{'A, greedy' if taken else 'B, best'}: {value:.4g}"
                axis.step(wide, [0, *cdf, 1], where="post", label=label, **figures.line_style(0 if taken else 1))
            axis.set(xlabel="return", ylabel="P(return at most that)", title=title, ylim=(-0.03, 1.05))
            axis.legend(loc="upper left" if which == "mixtures" else "lower right")
        for j, name in enumerate(LACKS):
            here = data.sel(functional=name, discount=0.5)
            lost = -np.sort(-(here["loss"] / here["range"].where(here["range"] > 0, 1.0)).values)
            sizes.plot(lost, (np.arange(lost.size) + 1) / lost.size, label=name, **figures.line_style(j))
        sizes.set(xlim=(0, 0.6), ylim=(0, 0.5), xlabel="loss / (best - worst policy)", ylabel="share that loses more")
        sizes.set_title("how much, discount 1/2")
        sizes.legend(fontsize=7)
        figure.suptitle(f"A study: {data.sizes['instance']} random trees of three steps per bar", fontsize=9)
    return figure
