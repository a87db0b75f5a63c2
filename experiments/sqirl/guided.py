"""Exploring with a policy that knows something: exact horizons of mixtures, beside PPO started from their clones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.effective_horizon import golden_problems
from experiments import figures
from experiments.lanes import blockwise
from experiments.reference import Measured
from experiments.sqirl.success import interval, iterations_of, learner, spearman
from rlcore.episodic import episodic, stacked
from rlcore.mdp import greedy_policy, uniform_policy
from rlcore.nn.cloning import behaviour_cloning
from rlcore.nn.learning_curve import learning_curve
from rlcore.sqirl import basic_values, exploration_occupancy, gorp_horizon

TITLE = (
    "Exploring with a mixture of the optimal and the uniform policy: exact horizons, and PPO from its clone (a study)"
)
PRECISION = "float64"


@dataclasses.dataclass(frozen=True)
class Config:
    """Deterministic golden problems; shares of the optimal policy; largest m; PPO's seeds, steps and evaluations."""

    problems: tuple[str, ...] = (
        "lock k=2",
        "lock k=3",
        "lock k=4",
        "corridor-5 T10",
        "deepsea-5",
        "frozen4-det",
        "lavagap5",
    )
    shares: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75)
    max_m: int = 256
    cloning: int = 500
    seeds: int = 3
    steps: int = 200_000
    evaluations: int = 24
    level: float = 0.9
    resamples: int = 1000
    seed: int = 0


QUICK = Config(
    problems=("lock k=2",), shares=(0.0, 0.5), max_m=8, cloning=20, seeds=1, steps=8192, evaluations=3, resamples=20
)
REFERENCES = {}


def mixtures(one, shares):
    """Probabilities [share, T, S, A] of the mixtures of the first best action and the uniform policy."""
    problem = one.problem
    best = greedy_policy(basic_values(one).optimal.q, problem.available)
    best = jax.nn.one_hot(best, problem.available.shape[1], dtype=problem.discount.dtype)
    return jax.vmap(lambda share: share * best + (1 - share) * uniform_policy(problem)[None])(shares)


@jax.jit(static_argnames=("agent", "updates"))
def _start(agent, stack, policies, key, updates):
    """Networks that imitate every policy of every problem, and their returns."""

    def one(problem, policy, key):
        occupancy = exploration_occupancy(problem, policy)
        return behaviour_cloning(agent.network, problem, policy, occupancy, key, updates=updates)

    keys = jax.random.split(key, policies.shape[:2])
    return jax.vmap(jax.vmap(one, (None, 0, 0)))(stack, policies, keys)


def run(config):
    """Exact horizons by problem and share, and PPO's curves from the cloned policies."""
    import xarray as xr

    problems = golden_problems(config.problems)
    shares = jnp.asarray(config.shares, jnp.float64)
    horizon, complete = (np.zeros((len(problems), len(config.shares))) for _ in range(2))
    for p, mdp in enumerate(problems.values()):
        for s, policy in enumerate(np.asarray(mixtures(episodic(mdp), shares))):
            found = gorp_horizon(mdp, max_m=config.max_m, policy=policy)
            horizon[p, s], complete[p, s] = found.horizon, found.complete
    stack = stacked(list(problems.values()))
    agent = learner("PPO", stack, config.steps)
    policies = jax.vmap(lambda one: mixtures(one, shares))(stack)
    key = jax.random.key(config.seed)
    params = _start(agent, stack, policies, key, config.cloning)
    at = np.concatenate([[0], iterations_of(agent, config.steps, config.evaluations - 1)])
    keys = jax.random.split(jax.random.fold_in(key, 1), config.seeds)
    shape = (len(problems), len(config.shares), config.seeds)
    spread = lambda x: jnp.reshape(jnp.broadcast_to(x, (*shape, *x.shape[3:])), (-1, *x.shape[3:]))  # noqa: E731
    every = (
        jax.tree.map(lambda x: spread(x[:, None, None]), stack),
        jax.tree.map(lambda x: spread(x[:, :, None]), params),
        spread(keys[None, None]),
    )
    one = lambda problem, params, key: learning_curve(  # noqa: E731
        agent, problem, key, at, level=config.level, params=params, sampled=True
    )
    curves = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), blockwise(one, every)())
    dims = ("problem", "share")
    span = (curves.optimal - curves.random)[..., None]
    return xr.Dataset(
        {
            "horizon": (dims, horizon),
            "complete": (dims, complete.astype(bool)),
            "first_success": ((*dims, "seed"), np.asarray(curves.first_success)),
            "way": ((*dims, "seed", "step"), np.asarray((curves.returns - curves.random[..., None]) / span)),
        },
        {
            "problem": list(problems),
            "share": list(config.shares),
            "step": np.asarray(curves.steps)[0, 0, 0],
        },
        {"title": TITLE, "level": config.level, "resamples": config.resamples},
    )


def measured(data):
    """Horizons and median steps by problem and share; rank correlation over all; how often either rises."""
    out = {}
    steps = np.median(data["first_success"], axis=-1)
    for p, problem in enumerate(data["problem"].values):
        for s, share in enumerate(data["share"].values):
            out[f"{problem}, {share:g}: exact horizon"] = Measured(float(data["horizon"][p, s]), 1e-9)
            out[f"{problem}, {share:g}: steps of PPO"] = Measured(float(steps[p, s]), 0.0)
    horizon = data["horizon"].values
    low, high = interval(spearman, (horizon.ravel(), steps.ravel()), data.attrs["resamples"])
    out["Spearman of horizon and steps, all cells"] = Measured(
        spearman(horizon.ravel(), steps.ravel()), (high - low) / 2
    )
    inside = [rank for h, x in zip(horizon, steps, strict=True) if not np.isnan(rank := spearman(h, x))]
    out["Spearman within a problem, mean"] = Measured(float(np.mean(inside)) if inside else np.nan, 0.0)
    rises = np.diff(horizon, axis=1) > 1e-9
    out["pairs of neighbouring shares where the horizon rises"] = Measured(int(rises.sum()), 0.0)
    out["cells whose horizon no m settles"] = Measured(int((~data["complete"].values).sum()), 0.0)
    return out


def plot(data):
    """Horizons and PPO's steps by share; one against the other."""
    share = data["share"].values
    steps = np.median(data["first_success"], axis=-1)
    finite = steps[np.isfinite(steps)]
    never = 3 * max(finite.max() if finite.size else 1.0, 1000.0)
    least = float(data["step"][1]) / 2
    shown = np.clip(np.where(np.isfinite(steps), steps, never), least, None)
    with figures.style():
        figure, axes = figures.subplots(1, 3, width=9.8, height=3.4)
        depth, learned, against = axes
        for p, problem in enumerate(data["problem"].values):
            style = figures.line_style(p) | {"marker": "osD^vPX"[p % 7], "markersize": 4}
            depth.plot(share, data["horizon"][p], label=problem, **style)
            learned.plot(share, shown[p], **style)
            against.plot(data["horizon"][p], shown[p], **style | {"linestyle": "none"})
        label = "share of the optimal policy in exploration"
        depth.set(xlabel=label, ylabel="exact effective horizon $H$ [steps]")
        for axis in (learned, against):
            axis.axhline(never, color="0.7", linewidth=0.8)
            axis.axhline(least, color="0.7", linewidth=0.8)
            axis.set(yscale="log", ylabel="first success of PPO [steps]")
        learned.set(xlabel=label)
        against.set(xlabel="exact effective horizon $H$ [steps]")
        figure.legend(*depth.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(
            f"A study: success is {data.attrs['level']:.0%} of the way from random to optimal by the policy PPO draws "
            "from, exactly, in the median seed;\nlines: never (above), before the first step (below)",
            fontsize=9,
        )
    return figure
