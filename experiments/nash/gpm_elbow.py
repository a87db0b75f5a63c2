"""Preferences of known rank learned from sampled pairs: held-out loss against the dimension of the embedding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import NullFormatter

from experiments import figures
from experiments.reference import Measured
from rlcore.nash import (
    BradleyTerry,
    GeneralPreference,
    Pairs,
    PreferenceGame,
    equilibrium,
    gpm_preference,
    log_loss,
    log_normalise,
)
from rlcore.sweep import sweep

TITLE = "GPM: held-out loss against the embedding's dimension, and the Nash of the fitted matrix (a study)"
PRECISION = "float64"
REFERENCES: dict = {}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; scores in logits, the temperature in probability per nat."""

    num_seeds: int = 10
    num_actions: int = 14
    ranks: tuple[int, ...] = (2, 4, 6)
    dims: tuple[int, ...] = (2, 4, 6, 8, 10)
    num_pairs: int = 6_000
    num_steps: int = 600
    scale: float = 2.0
    temperature: float = 0.05


QUICK = Config(num_seeds=3, num_actions=10, ranks=(2, 4), dims=(2, 4, 6), num_pairs=1_500, num_steps=150)


def random_preference(key, n, rank, scale):
    """A win-probability matrix whose scores have the given rank (traced), entries of one standard deviation."""
    largest = n - n % 2
    v = jax.random.normal(key, (n, largest))
    kept = jnp.arange(largest) < rank
    # n independent normal planes: a score is a sum of `rank` products of variance 1.
    return gpm_preference(jnp.where(kept[None, :], v, 0) * jnp.sqrt(scale / jnp.sqrt(jnp.asarray(rank, v.dtype))))


def sample_pairs(key, preference, count):
    """Uniform pairs of different actions, one vote each."""
    a, b, c = jax.random.split(key, 3)
    n = preference.shape[0]
    first = jax.random.randint(a, (count,), 0, n)
    second = (first + jax.random.randint(b, (count,), 1, n)) % n
    vote = jax.random.bernoulli(c, preference[first, second]).astype(preference.dtype)
    return Pairs(first.astype(jnp.int32), second.astype(jnp.int32), vote)


def loss_of_truth(preference, pairs):
    """Mean negative log-likelihood of the votes under the matrix that they were drawn from."""
    win = preference[pairs.first, pairs.second]
    return -jnp.mean(pairs.label * jnp.log(win) + (1 - pairs.label) * jnp.log1p(-win))


def run(config):
    """Loss above that of the truth, error and true gap over seed, rank and model."""
    n = config.num_actions
    models = {"Bradley-Terry": BradleyTerry()}
    models |= {f"GPM {dim}": GeneralPreference(dim, num_steps=config.num_steps) for dim in config.dims}

    def one_run(seed, rank, algorithm):
        truth_key, train_key, test_key, fit_key = jax.random.split(jax.random.key(seed), 4)
        truth = random_preference(truth_key, n, rank, config.scale)
        train = sample_pairs(train_key, truth, config.num_pairs)
        test = sample_pairs(test_key, truth, config.num_pairs)
        model = models[algorithm]
        params = model.fit(train, n, fit_key)
        fitted = model.matrix(params, n)
        return {
            # On the same votes: what chance does to both cancels.
            "excess": log_loss(model, params, n, test) - loss_of_truth(truth, test),
            "train_excess": log_loss(model, params, n, train) - loss_of_truth(truth, train),
            "error": jnp.max(jnp.abs(fitted - truth)),
            "truth": truth,
            "fitted": fitted,
        }

    data = sweep(
        one_run,
        {"seed": range(config.num_seeds), "rank": config.ranks},
        static={"algorithm": list(models)},
        dims={"truth": ("action", "opponent"), "fitted": ("action", "opponent")},
        batch="vmap",
    )
    order = ("seed", "rank", "algorithm", "action", "opponent")
    truth, fitted = (data[name].transpose(*order).values for name in ("truth", "fitted"))
    uniform = log_normalise(jnp.zeros(n))

    # One compilation for all models: the equilibrium does not care where its matrix comes from.
    @jax.jit
    @jax.vmap
    def judged(true, learned):
        star = equilibrium(learned, uniform, config.temperature)
        return PreferenceGame(true, uniform, jnp.asarray(config.temperature)).gap(star.value), star.bound

    flat = lambda x: jnp.asarray(x.reshape(-1, n, n))  # noqa: E731
    gap, bound = (np.asarray(x).reshape(truth.shape[:3]) for x in judged(flat(truth), flat(fitted)))
    return (
        data.drop_vars(["truth", "fitted"])
        .assign(gap=(order[:3], gap), bound=(order[:3], bound))
        .assign_attrs(title=TITLE)
    )


def _mean(values):
    return Measured(float(values.mean()), float(values.std() / np.sqrt(values.size)))


def dims_of(data):
    """The embedding dimensions among the algorithms."""
    return [int(str(a).split()[1]) for a in data["algorithm"].values if str(a).startswith("GPM")]


def measured(data):
    """Excess losses and gaps, means over seeds with standard errors."""
    excess = data["excess"]
    numbers = {}
    for rank in data["rank"].values:
        for dim in sorted({int(rank), max(int(rank) - 2, 2)}):
            if dim in dims_of(data):
                values = excess.sel(rank=rank, algorithm=f"GPM {dim}")
                numbers[f"held-out loss above the truth's [nats], rank {rank}, GPM {dim}"] = _mean(values)
        numbers[f"held-out loss above the truth's [nats], rank {rank}, Bradley-Terry"] = _mean(
            excess.sel(rank=rank, algorithm="Bradley-Terry")
        )
        right = f"GPM {int(rank)}" if int(rank) in dims_of(data) else str(data["algorithm"].values[-1])
        for algorithm in (right, "Bradley-Terry"):
            numbers[f"true gap of the fitted Nash, rank {rank}, {algorithm}"] = _mean(
                data["gap"].sel(rank=rank, algorithm=algorithm)
            )
    ratio = float((data["gap"] / (2 * data["error"])).max())
    return numbers | {"largest gap / (2 max |P - fitted P|), at most 1 by 8.7": Measured(ratio, 0.0)}


def plot(data):
    """Excess loss and true gap against the dimension, Bradley-Terry at the left, and the gap against the error."""
    dims = dims_of(data)
    names = [f"GPM {d}" for d in dims]
    with figures.style():
        figure, axes = figures.subplots(1, 3, height=3.2)
        for i, rank in enumerate(data["rank"].values):
            for axis, values in ((axes[0], data["excess"]), (axes[1], data["gap"])):
                here = values.sel(rank=rank)
                low, middle, high = (
                    here.sel(algorithm=names)
                    .quantile([0.1, 0.5, 0.9], "seed")
                    .transpose("quantile", "algorithm")
                    .values
                )
                axis.fill_between(dims, low, high, color=figures.COLOURS[i], alpha=0.15, linewidth=0)
                axis.plot(
                    dims, middle, label=f"rank {rank}", marker="os^D"[i % 4], markersize=4, **figures.line_style(i)
                )
                axis.plot(
                    [0.3 * (i - 1)], [here.sel(algorithm="Bradley-Terry").median()], marker="os^D"[i % 4], markersize=5,
                    color=figures.COLOURS[i], markerfacecolor="white", linestyle="none",
                )  # fmt: skip
                axis.axvline(rank, color=figures.COLOURS[i], linewidth=0.6, linestyle=":")
            axes[2].plot(
                data["error"].sel(rank=rank).values.ravel(), data["gap"].sel(rank=rank).values.ravel(),
                "os^D"[i % 4], markersize=3, color=figures.COLOURS[i], alpha=0.6,
            )  # fmt: skip
        reach = np.array([data["error"].values.min(), data["error"].values.max()])
        axes[2].plot(reach, 2 * reach, color="black", linewidth=1.0, label=r"$2\max|P-\hat{P}|$ (8.7)")
        axes[2].set(xscale="log", yscale="log", xlabel=r"$\max|P-\hat{P}|$ [probability]", title="error and gap")
        axes[2].xaxis.set_minor_formatter(NullFormatter())
        axes[2].set_ylabel("true duality gap [probability]")
        axes[2].legend(loc="lower right")
        axes[0].set(yscale="log", ylabel="held-out loss above the truth's [nats]", title="elbow at the rank")
        axes[1].set(yscale="log", ylabel="true duality gap [probability]", title="Nash of the fitted matrix")
        for axis in axes[:2]:
            axis.set(xlabel="embedding dimension", xticks=[0, *dims], xticklabels=["BT", *map(str, dims)])
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(
            f"A study: {data.sizes['seed']} random scores per rank, medians with 10–90% bands; white: Bradley-Terry; "
            "dotted: the rank",
            fontsize=8,
        )
    return figure
