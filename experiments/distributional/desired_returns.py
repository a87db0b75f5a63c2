"""A gridworld in which any return can be asked for: how near the best policy comes, and what a frozen stock loses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.distributional import Custom, policy_law, stock_evaluation, stock_grid, stock_vi, two_slope

TITLE = "Desired returns: least distance from a target, largest chance to hit it, by chance of slipping (a study)"
PRECISION = "float64"
DISTANCE = two_slope(-1.0, 1.0)
WINDOW = 60  # 12 moves pay at most 3 each: no stock leaves it
RETURNS = np.arange(-36, 37)


@dataclasses.dataclass(frozen=True)
class Config:
    """Chances of slipping, with 0 and 0.2; targets -largest .. largest; targets whose laws are kept, every so many."""

    slips: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4)
    largest: int = 12
    every: int = 1


QUICK = Config(slips=(0.0, 0.2), every=3)

MINE, WHERE = "prototype of this project", "specification of the family, section 5, experiment 6"
SLIP = 0.2  # of the numbers known
DISTANCES = {-9: 0.265422, -6: 0.099355, -3: 0.038923, -1: 0.018541, 0: 0.0, 1: 0.118721, 3: 0.002546, 6: 0.011456}
DISTANCES |= {9: 0.034305}
HITS = {-9: 0.895384, -6: 0.947155, -3: 0.983066, -1: 0.992241, 1: 0.918953, 3: 0.999064, 6: 0.997084, 9: 0.992498}
REFERENCES = {
    "largest of the least E|G - g|, no slip": Reference(0.0, 1e-12, MINE, WHERE),
    **{f"least E|G - g|, slip {SLIP}, g = {g}": Reference(x, 6e-7, MINE, WHERE) for g, x in DISTANCES.items()},
    **{f"largest P(G = g), slip {SLIP}, g = {g}": Reference(x, 6e-7, MINE, WHERE) for g, x in HITS.items()},
}


def hits(x):
    """1 where the target is met."""
    return (jnp.abs(x) < 0.5).astype(x.dtype)


def frozen(policy, index):
    """The policy that goes on as if its stock were still the first one, the node of this index."""
    now = policy.action[..., index]
    return dataclasses.replace(
        policy, action=jnp.broadcast_to(now[..., None], policy.action.shape), below=now, above=now
    )


@jax.jit
def _frozen_distances(problem, policy, index):
    """E|G - g| from the first state when the stock is frozen, by index of the first stock."""
    one = lambda i: -stock_evaluation(problem, DISTANCE, frozen(policy, i)).value.value[0, :, i]  # noqa: E731
    return jax.vmap(lambda i: problem.initial @ one(i))(index)


def run(config):
    """By chance of slipping and target: least distance, with the stock frozen, largest chance to hit, laws."""
    import xarray as xr

    targets = np.arange(-config.largest, config.largest + 1)
    grid = stock_grid(-WINDOW, WINDOW, 1)
    index = jnp.asarray(WINDOW - targets)
    kept = targets[np.abs(targets) % config.every == 0]
    rows = {"distance": [], "frozen": [], "hit": [], "law": []}
    for slip in config.slips:
        problem = envs.make("desired_returns", slip=slip)
        near = stock_vi(problem, DISTANCE, grid)
        hit = stock_vi(problem, Custom(hits), grid)
        first = lambda solution, problem=problem: problem.initial @ solution.value.value[0][:, index]  # noqa: E731
        rows["distance"].append(np.maximum(-np.asarray(first(near)), 0))
        rows["hit"].append(np.asarray(first(hit)))
        rows["frozen"].append(np.asarray(_frozen_distances(problem, near.policy, index)))
        laws = [policy_law(problem, near.policy, float(-g)).law for g in kept]
        rows["law"].append(np.stack([_on_returns(law) for law in laws]))
    dims = {name: ("slip", "target") for name in ("distance", "frozen", "hit")} | {"law": ("slip", "kept", "return")}
    return xr.Dataset(
        {name: (dims[name], np.stack(values)) for name, values in rows.items()},
        {"slip": list(config.slips), "target": targets, "kept": kept, "return": RETURNS},
        {"title": TITLE},
    )


def _on_returns(law):
    """The probabilities of RETURNS, which are all that 12 moves can pay."""
    place = np.rint(np.asarray(law.values)).astype(int) - RETURNS[0]
    probs = np.asarray(law.probs)
    inside = (place >= 0) & (place < RETURNS.size)
    return np.bincount(place[inside], weights=probs[inside], minlength=RETURNS.size)


def measured(data):
    """Exact numbers, to rounding: sums of some thousand products below 100."""
    slip = data.sel(slip=SLIP)
    worst = data["distance"].sel(slip=0.0).max().item()
    out = {"largest of the least E|G - g|, no slip": Measured(worst, 1e-12)}
    for g in DISTANCES:
        out[f"least E|G - g|, slip {SLIP}, g = {g}"] = Measured(slip["distance"].sel(target=g).item(), 1e-12)
    for g in HITS:
        out[f"largest P(G = g), slip {SLIP}, g = {g}"] = Measured(slip["hit"].sel(target=g).item(), 1e-12)
    law = data["law"]
    earned = (law * np.abs(data["return"] - data["kept"])).sum("return")
    claimed = data["distance"].sel(target=data["kept"].values).values
    gap = float(np.abs(earned.transpose("slip", "kept").values - claimed).max())
    out["largest |E|G - g| of the policies' laws - least|"] = Measured(gap, 1e-12)
    for x in data["slip"].values:
        here = data.sel(slip=x)
        for name, field in (("least", "distance"), ("stock frozen", "frozen")):
            out[f"mean of E|G - g| over targets, {name}, slip {x:g}"] = Measured(here[field].mean().item(), 1e-12)
    return out


def plot(data):
    """Least distances and chances to miss by target; the law of the return by target; what a frozen stock loses."""
    target = data["target"].values
    root = {"functions": (lambda x: np.sqrt(np.maximum(x, 0)), np.square)}  # shows both 0 and small numbers
    with figures.style():
        figure, axes = figures.subplots(2, 2, width=7.8, height=3.1)
        near, miss, law, cold = axes
        for i, slip in enumerate(data["slip"].values):
            here, look = data.sel(slip=slip), figures.line_style(i)
            label = f"slip {slip:g}"
            near.plot(target, here["distance"], marker="osD^v"[i], markersize=3, label=label, **look)
            miss.plot(target, np.maximum(1 - here["hit"], 0), marker="osD^v"[i], markersize=3, label=label, **look)
            cold.plot(target, here["frozen"], marker="osD^v"[i], markersize=3, label=label, **look)
        near.plot(list(DISTANCES), list(DISTANCES.values()), "kx", markersize=6, zorder=3, label=f"prototype, {SLIP}")
        miss.plot(
            list(HITS), 1 - np.array(list(HITS.values())), "kx", markersize=6, zorder=3, label=f"prototype, {SLIP}"
        )
        near.set(ylabel="least $E|G - g|$ [reward]", title="as near as can be")
        near.set_yscale("function", **root)
        near.set_yticks([0, 0.05, 0.25, 0.5, 1, 2])
        near.set_ylim(0, 1.1 * data["distance"].max().item())
        miss.set(ylabel="least $P(G \\neq g)$", title="missed as seldom as can be")
        miss.set_yscale("function", **root)
        miss.set_yticks([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6])
        miss.set_ylim(0, 1.1 * (1 - data["hit"].min().item()))
        cold.set(ylabel="$E|G - g|$ [reward]", title="the same policy with its stock frozen", ylim=(-0.3, None))
        probs = data["law"].sel(slip=SLIP).transpose("return", "kept").values
        kept = data["kept"].values
        lowest = 1e-4
        shown = np.log10(np.where(probs >= lowest, probs, np.nan))
        width = float(kept[1] - kept[0])
        image = law.imshow(
            shown, origin="lower", aspect="auto", cmap="viridis_r", vmin=np.log10(lowest), vmax=0,
            extent=(kept[0] - width / 2, kept[-1] + width / 2, RETURNS[0] - 0.5, RETURNS[-1] + 0.5),
        )  # fmt: skip
        law.plot(kept, kept, color="black", linewidth=0.6, linestyle=":")
        law.set(ylabel="return $G$ [reward]", ylim=(-20, 20), title=f"law of the nearest return, slip {SLIP}")
        law.grid(False)
        bar = figure.colorbar(image, ax=law, ticks=[-4, -3, -2, -1, 0], label="probability")
        bar.ax.set_yticklabels(["$10^{-4}$", "$10^{-3}$", "0.01", "0.1", "1"])
        for axis in axes:
            axis.set(xlabel="target $g$ [reward]")
        handles, names = miss.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=6)
        figure.suptitle(
            f"A study: 12 moves, targets from {target[0]} to {target[-1]}, one programme per chance of slipping",
            fontsize=9,
        )
    return figure
