"""SQIRL's assumption on its regressions, measured for three oracles: error, amplification, and the bound they give."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.effective_horizon import golden_problems
from experiments import figures
from experiments.reference import Measured
from rlcore.episodic import episodic, policy_return
from rlcore.mdp import greedy_policy, uniform_policy
from rlcore.sqirl import (
    PerceptronFit,
    RidgeFit,
    Samples,
    TabularMean,
    basic_values,
    exploration_occupancy,
    qvi_step,
    rollouts,
    sqirl,
    sqirl_certificate,
)
from rlcore.sqirl.certificate import TABULAR_ERROR
from rlcore.sqirl.rollout import returns_to_go

TITLE = "SQIRL's regression assumption: error against m, amplification, and the bound they give (a study)"
PRECISION = "float64"
ORACLES = ("means", "linear, half the features", "network")


@dataclasses.dataclass(frozen=True)
class Config:
    """Deterministic golden problems and k for each; numbers of episodes m; seeds; injected error; the network."""

    problems: tuple[str, ...] = ("lock k=2", "catch-5x3", "corridor-5 T10")
    depths: tuple[int, ...] = (2, 1, 1)
    oracles: tuple[str, ...] = ORACLES
    episodes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048)
    seeds: int = 12
    injected: float = 0.5
    epochs: int = 30
    seed: int = 0


QUICK = Config(problems=("lock k=2",), depths=(2,), oracles=("means", "network"), episodes=(16, 64), seeds=4, epochs=3)
REFERENCES = {}


def oracle(name, problem, epochs, key):
    """An oracle for the problem; unvisited pairs are valued at half the range, as T9a has it."""
    states, actions = problem.available.shape
    if name == ORACLES[0]:
        return TabularMean(0.5)
    if name == ORACLES[1]:
        # Half as many random numbers as states for each action: most tables are not in the class.
        seen = jax.random.normal(key, (states, -(-states // 2)), jnp.float64)
        return RidgeFit(jnp.einsum("sf,ab->sabf", seen, jnp.eye(actions)).reshape(states, actions, -1), 1e-6)
    return PerceptronFit(jnp.eye(states, dtype=jnp.float32), epochs=epochs)


@functools.partial(jax.jit, static_argnames="episodes")
def errors(one, fitted, keys, injected, episodes):
    """Mean squared errors over seeds by step: of the first rung under the data's and the optimal policy's law; of the
    second rung without and with two injected errors; and the injected errors' squared norms."""
    problem = one.problem
    values = basic_values(one)
    first = values.exploration.q
    second = qvi_step(one, first)
    law = exploration_occupancy(one)
    best = jax.nn.one_hot(
        greedy_policy(values.optimal.q, problem.available), problem.available.shape[1], dtype=law.dtype
    )
    optimal_law = exploration_occupancy(one, best)
    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    explore = uniform_policy(problem)
    nobody = greedy_policy(first, problem.available)
    value = jnp.max(jnp.where(problem.available, first, -jnp.inf), axis=-1)
    value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    signs = jax.random.rademacher(jax.random.key(1), value.shape, value.dtype)
    wrong = injected * jnp.stack([jnp.zeros_like(value), jnp.ones_like(value), signs])

    def run(key):
        play, fits = jax.random.split(key)
        data = rollouts(one, nobody, jnp.int32(0), explore, play, episodes=episodes)

        def at(t):
            now = jax.tree.map(lambda x: x[t], data)
            weight = now.running.astype(law.dtype)
            key = jax.random.fold_in(fits, t)
            fit = lambda target: fitted.fit(  # noqa: E731
                Samples(now.state, now.action, target, weight), problem.available.shape, key
            )
            off = fit(returns_to_go(data, t, problem.discount)) - first[t]
            onward = lambda v: now.reward + problem.discount * jnp.where(now.over, 0.0, v[now.next_state])  # noqa: E731
            above = jnp.stack([fit(onward(value[t] + w[t])) - second[t] for w in wrong])
            squared = lambda mass, x: jnp.einsum("sa,...sa->...", mass[t], x**2)  # noqa: E731
            return squared(law, off), squared(optimal_law, off), squared(law, above)

        return jax.lax.map(at, steps)

    data_error, optimal_error, above = jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.lax.map(run, keys))
    next_mass = jnp.concatenate([jnp.sum(law, axis=-1)[1:], jnp.zeros_like(value[:1])])
    return data_error, optimal_error, above.T, jnp.sum(next_mass[None] * wrong[1:] ** 2, axis=-1)


@functools.partial(jax.jit, static_argnames=("depth", "episodes"))
def suboptimality(one, fitted, keys, depth, episodes):
    """J* - J of SQIRL with split folds by seed."""
    best = one.problem.initial @ basic_values(one).optimal.value[0]

    def run(key):
        learned = sqirl(one, fitted, key, depth=depth, episodes=episodes, folds="split", clip=(0.0, 1.0))
        return best - policy_return(one, learned.policy)

    return jax.lax.map(run, keys)


@functools.partial(jax.jit, static_argnames="depth")
def promised(one, depth, dimension, amplification):
    """T9's certificate with a measured D and alpha."""
    return sqirl_certificate(one, depth, dimension=dimension, amplification=amplification)


def run(config):
    """Root mean squared errors, dimensions and amplifications by oracle, and bounds beside what SQIRL lost."""
    import xarray as xr

    problems = golden_problems(config.problems)
    longest = max(mdp.horizon for mdp in problems.values())
    shape = (len(problems), len(config.oracles), len(config.episodes))
    error, optimal_error = (np.full((*shape, longest), np.nan) for _ in range(2))
    bound, lost, premise = (np.full(shape, np.nan) for _ in range(3))
    dimension, amplification = (np.full(shape[:2], np.nan) for _ in range(2))
    pairs = np.zeros(len(problems))
    for p, (mdp, depth) in enumerate(zip(problems.values(), config.depths, strict=True)):
        one = episodic(mdp)
        pairs[p] = float(jnp.max(promised(one, depth, 1.0, 1.0).pairs))
        for o, name in enumerate(config.oracles):
            fitted = oracle(name, mdp, config.epochs, jax.random.key(p))
            keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), p), config.seeds)
            gains = []
            for i, episodes in enumerate(config.episodes):
                found = jax.device_get(errors(one, fitted, keys, config.injected, episodes))
                error[p, o, i, : mdp.horizon] = np.sqrt(found[0])
                optimal_error[p, o, i, : mdp.horizon] = np.sqrt(found[1])
                noise, *above = np.sqrt(found[2])
                gains += [(x - noise)[:-1] / np.sqrt(norm)[:-1] for x, norm in zip(above, found[3], strict=True)]
                lost[p, o, i] = np.mean(jax.device_get(suboptimality(one, fitted, keys, depth, episodes)))
            # The assumption asks for e <= b sqrt(D / m) at every step and m; b = 1 for returns-to-go.
            dimension[p, o] = np.nanmax(error[p, o] ** 2 * np.array(config.episodes)[:, None])
            amplification[p, o] = max(1.0, np.max(gains))
            promise = promised(one, depth, dimension[p, o], amplification[p, o])
            bound[p, o] = [float(promise.suboptimality(m)) for m in config.episodes]
            premise[p, o] = [float(promise.by_step) / m for m in config.episodes]
            # Every m is a program of its own, and a process may hold so many memory maps only.
            jax.clear_caches()
    dims = ("problem", "oracle", "m")
    return xr.Dataset(
        {
            "error": ((*dims, "t"), error),
            "optimal_error": ((*dims, "t"), optimal_error),
            "bound": (dims, bound),
            "unclipped_bound": (dims, premise),
            "suboptimality": (dims, lost),
            "dimension": (dims[:2], dimension),
            "amplification": (dims[:2], amplification),
            "pairs": ("problem", pairs),
        },
        {"problem": list(problems), "oracle": list(config.oracles), "m": list(config.episodes)},
        {"title": TITLE, "seeds": config.seeds, "depths": list(config.depths)},
    )


def slope(data):
    """Least-squares slope of log error against log m, of the worst step at each m."""
    worst = np.log(np.maximum(data["error"].max("t").values, 1e-12))
    m = np.log(data["m"].values.astype(float))
    m = m - m.mean()
    return worst @ m / (m @ m)


def measured(data):
    """Slopes, dimensions, amplifications, what the optimal policy's law sees, and whether the bound held."""
    out, slopes = {}, slope(data)
    broken = 0
    for p, problem in enumerate(data["problem"].values):
        for o, name in enumerate(data["oracle"].values):
            here = data.isel(problem=p, oracle=o)
            label = f"{problem}, {name}"
            out[f"{label}: slope of the error"] = Measured(float(slopes[p, o]), 0.0)
            out[f"{label}: D"] = Measured(float(here["dimension"]), 0.0)
            out[f"{label}: alpha"] = Measured(float(here["amplification"]), 0.0)
            last = here.isel(m=-1)
            ratio = float(last["optimal_error"].max("t") / last["error"].max("t"))
            out[f"{label}: error under the optimal law over the data's"] = Measured(ratio, 0.0)
            broken += int((here["suboptimality"] > here["bound"] + 1e-9).sum())
        out[f"{problem}: D that T9a proves for means"] = Measured(
            float(TABULAR_ERROR) * float(data["pairs"].isel(problem=p)), 0.0
        )
    out["cells where SQIRL lost more than the bound"] = Measured(broken, 0.0)
    return out


def plot(data):
    """Errors by m under both laws; what SQIRL lost beside the bound."""
    names, oracles = list(data["problem"].values), list(data["oracle"].values)
    m = data["m"].values.astype(float)
    with figures.style():
        figure, axes = figures.subplots(2, len(names), width=3.2 * max(2, len(names)), height=2.9)
        for p, problem in enumerate(names):
            off, lost = axes[p], axes[len(names) + p]
            here = data.isel(problem=p)
            for o, name in enumerate(oracles):
                one, style = here.isel(oracle=o), {"color": figures.COLOURS[o], "markersize": 4}
                off.plot(m, one["error"].max("t"), "os^"[o], linestyle="-", label=name, **style)
                off.plot(m, one["optimal_error"].max("t"), "os^"[o], linestyle=":", markerfacecolor="white", **style)
                lost.plot(m, np.maximum(one["suboptimality"], 1e-6), "os^"[o], linestyle="-", **style)
                lost.plot(m, one["unclipped_bound"], linestyle="--", **style)
            proved = np.sqrt(float(TABULAR_ERROR) * float(here["pairs"]) / m)
            off.plot(m, proved, color="0.4", linestyle="-.", linewidth=1, label="proved for means (T9a)")
            off.set(xscale="log", yscale="log", title=problem, xlabel="episodes $m$")
            lost.axhline(1.0, color="0.7", linewidth=0.8)
            lost.set(xscale="log", yscale="log", xlabel="episodes $m$ per fold", ylim=(3e-7, None))
        axes[0].set_ylabel("$L_2$ error at the worst step [return]")
        axes[len(names)].set_ylabel("$J^* - J$; floor: $10^{-6}$ or less")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(
            "A study: above, errors under the data's law (full) and the optimal policy's (dotted); below, what SQIRL "
            "lost (full)\nand the bound with the measured D and $\\alpha$ (dashed; above 1 it says nothing)",
            fontsize=9,
        )
    return figure
