"""Suboptimality of R2PVI against the number of trajectories, between a proved upper and a proved lower bound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.linear_mdps import hard_instance, random_linear_mdp
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.ridge import ridge
from rlcore.robust import OfflineData, evaluate, lower_bound, plan, r2pvi, sample_trajectories, table, verify
from rlcore.sweep import sweep

TITLE = "R2PVI's suboptimality against the number of trajectories, its upper bounds and the lower bound (a study)"
PRECISION = "float64"
STATES, ACTIONS, HORIZON, FACTORS = 5, 3, 3, 3
LEVEL, RIDGE, DELTA = 0.5, 1.0, 0.05
HARD_BITS, HARD_HORIZON, HARD_LEVEL = 3, 4, 1.0
NAMES = {"tv": "TV", "kl": "KL", "chi2": r"$\chi^2$"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Instances and data sets; trajectories from 300 to `most`, and from 500 to `most_hard` on the hard class."""

    num_seeds: int = 40
    most: int = 300_000
    num_sizes: int = 7
    num_hard: int = 400
    most_hard: int = 32_000
    num_hard_sizes: int = 7
    divergences: tuple[str, ...] = ("tv", "kl", "chi2")  # on the hard class


QUICK = Config(
    num_seeds=10, most=30_000, num_sizes=3, num_hard=60, most_hard=4_000, num_hard_sizes=2, divergences=("tv",)
)

MINE = "prototype of this project"
SLOPE = "slope of log B1 against log K"
PLUG_IN = "Bayes suboptimality of the plug-in learner, K = 4000, tv"
REFERENCES = {
    # 0.75 at K = 300 to 0.030 at 300000; its instances and the range in the penalty are its own.
    SLOPE: Reference(float(np.log(0.030 / 0.75) / np.log(1000)), 0.05, MINE, "specification of the family, C10b"),
    PLUG_IN: Reference(0.045, 0.002, MINE, "specification of the family, C13 (b): divergence and ridge not given"),
    "lower bound, K = 4000": Reference(0.0073, 5e-5, MINE, "specification of the family, C13 (b)"),
}


def split_penalty(num_trajectories):
    """beta_h of the split-sample theorem for TV, float[H]; the range of the targets is at most the level, 0 at the end.

    Source: derived: specification of the family, C10b. Cost: O(H).
    """
    fold = jnp.floor(num_trajectories / HORIZON)
    log_det = FACTORS * jnp.log(1 + fold / (RIDGE * FACTORS))
    width = LEVEL * (0.5 * jnp.sqrt(2 * np.log(HORIZON / DELTA) + log_det) + np.sqrt(RIDGE * FACTORS))
    return jnp.where(jnp.arange(HORIZON) < HORIZON - 1, width, 0)


def folds(num_trajectories, most, horizon):
    """Weights float[H, most]: step h uses every H-th of the first trajectories alone, so its targets are fixed."""
    k = jnp.arange(most)
    own = (k[None, :] % horizon == jnp.arange(horizon)[:, None]) & (k[None, :] < num_trajectories)
    return jnp.where(own, 1.0, 0.0)


def noisy(data, key):
    """The same trajectories with standard normal noise on the rewards."""
    return OfflineData(data.states, data.actions, data.rewards + jax.random.normal(key, data.rewards.shape))


def run(config):
    """Suboptimality, B1, B2 and coverage by seed and K; Bayes suboptimality on the hard class by divergence and K."""
    draw = jax.jit(jax.vmap(lambda key: random_linear_mdp(key, STATES, ACTIONS, HORIZON, FACTORS, zeros=0.0)))
    models = draw(jax.random.split(jax.random.key(0), config.num_seeds))
    uniform = jnp.full((HORIZON, STATES, ACTIONS), 1 / ACTIONS)

    def one_run(seed, trajectories):
        model = jax.tree.map(lambda x: x[seed], models)
        data = sample_trajectories(jax.random.key(seed), model, uniform, config.most)
        space = table(model.features, model.reward_weights)
        learned = r2pvi(
            data, space, None, "tv", LEVEL, split_penalty(trajectories), RIDGE, centred=True,
            scale=folds(trajectories, config.most, HORIZON),
        )  # fmt: skip
        found = verify(model, learned, "tv", LEVEL)
        mean = lambda x: jnp.dot(model.initial, x)  # noqa: E731
        return {
            "suboptimality": mean(found.suboptimality),
            "upper": mean(found.upper),
            "upper_ball": mean(found.upper_ball),
            "event": jnp.where(found.event, 1.0, 0.0),
        }

    sizes = np.unique(np.geomspace(300, config.most, config.num_sizes).round().astype(int))
    data = sweep(one_run, {"seed": range(config.num_seeds), "trajectories": sizes}, batch="map")

    d, horizon = HARD_BITS, HARD_HORIZON
    plain = hard_instance(np.ones((horizon, d)), 1.0)
    # Actions e_1 .. e_d and 0 alike; their indices among the bit strings.
    played = jnp.asarray([2 ** (d - 1 - i) for i in range(d)] + [0])
    behaviour = jnp.zeros((horizon, 2, 2**d)).at[:, :, played].set(1 / (d + 1))
    start = jnp.array([(d + 1) / (d + 2), 1 / (d + 2)])

    def hard_run(hard_seed, hard_trajectories, divergence):
        sign_key, data_key, noise_key = jax.random.split(jax.random.key(hard_seed), 3)
        signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, (horizon, d)), 1.0, -1.0)
        gain = d**1.5 / jnp.sqrt(2 * hard_trajectories)
        bits = jnp.pad((signs + 1) / 2, ((0, 0), (0, 2))).at[:, d].set(0.5)
        model = dataclasses.replace(plain, reward_weights=gain * bits, initial=start)
        sampled = noisy(sample_trajectories(data_key, model, behaviour, config.most_hard), noise_key)
        used = jnp.where(jnp.arange(config.most_hard) < hard_trajectories, 1.0, 0.0)
        phi = model.features[sampled.states[:, :-1], sampled.actions]
        # Rewards are unknown in this class: their weights are estimated first.
        weights = jax.vmap(lambda x, r: ridge(x, RIDGE, used).fit(r), in_axes=1)(phi, sampled.rewards)
        scale = jnp.broadcast_to(used, (horizon, config.most_hard))
        learned = r2pvi(sampled, table(model.features, weights), None, divergence, HARD_LEVEL, 0.0, RIDGE, scale=scale)
        best = plan(model, divergence, HARD_LEVEL).values[0, 0]
        own = evaluate(model, learned.policy, divergence, HARD_LEVEL).values[0, 0]
        return {"hard_suboptimality": best - own}

    hard_sizes = np.unique(np.append(np.geomspace(500, config.most_hard, config.num_hard_sizes).round(), 4000)).astype(
        int
    )
    hard = sweep(
        hard_run, {"hard_seed": range(config.num_hard), "hard_trajectories": hard_sizes},
        static={"divergence": config.divergences}, batch="map",
    )  # fmt: skip
    return data.assign(hard.data_vars).assign_attrs(title=TITLE)


def slope(data):
    """Slope of log mean B1 against log K."""
    return np.polyfit(np.log(data["trajectories"]), np.log(data["upper"].mean("seed")), 1)[0]


def measured(data):
    """Means with two standard errors; the slope with the spread over seeds."""
    rows = np.log(data["upper"].transpose("seed", "trajectories").values)
    each = [np.polyfit(np.log(data["trajectories"].values), row, 1)[0] for row in rows]
    out = {SLOPE: Measured(float(slope(data)), float(2 * np.std(each) / np.sqrt(len(each))))}
    for divergence in data["divergence"].values:
        here = data["hard_suboptimality"].sel(divergence=divergence, hard_trajectories=4000)
        name = f"Bayes suboptimality of the plug-in learner, K = 4000, {divergence}"
        out[name] = Measured(here.mean().item(), float(2 * here.std() / np.sqrt(here.size)))
    out["lower bound, K = 4000"] = Measured(float(lower_bound(HARD_BITS, HARD_HORIZON, 4000)), 0.0)
    out["share of data sets on the event"] = Measured(data["event"].mean().item(), 0.0)
    last = data.isel(trajectories=-1).mean("seed")
    for name, key in (("suboptimality", "suboptimality"), ("B1", "upper"), ("B2", "upper_ball")):
        out[f"mean {name}, K = {data['trajectories'].values[-1]}"] = Measured(last[key].item(), 0.0)
    return out


def plot(data):
    """Left, random instances and upper bounds; right, the hard class and the lower bound."""
    k, hard_k = data["trajectories"].values, data["hard_trajectories"].values
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, height=3.2)
        rows = (("upper_ball", "$B_2$, ball"), ("upper", "$B_1$, worst kernels"), ("suboptimality", "suboptimality"))
        for i, (key, label) in enumerate(rows):
            line = data[key].mean("seed").values
            # Below 1e-7 a mean over seeds is that of few seeds.
            left.plot(k, np.where(line > 1e-7, line, np.nan), label=label, marker=".", **figures.line_style(i))
        anchor = data["upper"].mean("seed").values[0]
        left.plot(
            k, 0.5 * anchor * (k / k[0]) ** -0.5, color="grey", linewidth=1.0, linestyle=":", label="slope $-1/2$"
        )
        left.plot(
            (300, 3000, 30_000, 300_000),
            (0.75, 0.28, 0.087, 0.030),
            "kx",
            markersize=5,
            label="prototype, $B_1$, its own instances",
        )
        left.set(title=rf"random instances, TV, $\lambda = {LEVEL:g}$; slope of $B_1$ {slope(data):.2f}")
        for i, divergence in enumerate(data["divergence"].values):
            line = data["hard_suboptimality"].sel(divergence=divergence).mean("hard_seed")
            right.plot(hard_k, line, label=f"plug-in learner, {NAMES[divergence]}", marker=".", **figures.line_style(i))
        bound = [lower_bound(HARD_BITS, HARD_HORIZON, int(n)) for n in hard_k]
        right.plot(hard_k, bound, color="black", linewidth=1.2, label=r"$d^{3/2} H / (32 \sqrt{2K})$, derived here")
        right.plot(4000, 0.045, "kx", markersize=5, label="prototype, its own draws")
        right.set(title=f"hard class, $d = {HARD_BITS}$, $H = {HARD_HORIZON}$")
        for axis in (left, right):
            axis.set(xscale="log", yscale="log", xlabel="trajectories $K$", ylabel="value lost")
            axis.legend(fontsize=7)
        right.set_ylim(top=0.6)
        n = data.sizes["seed"], data.sizes["hard_seed"]
        figure.suptitle(f"A study: means over {n[0]} random instances and {n[1]} draws of the hard class", fontsize=9)
    return figure
