"""How many compared pairs one step of DNO needs: squared error of the learned policy against the number of pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import (
    MWU,
    PreferenceGame,
    all_pairs,
    bradley_terry_votes,
    dno_loss,
    dpo_loss,
    fit_policy,
    judge,
    log_normalise,
    pooled,
    sampled_pairs,
)
from rlcore.sweep import sweep

TITLE = "DNO, one step from votes: squared error of the learned policy against the number of pairs (a study)"
PRECISION = "float64"
SCALE = 1.0  # the paper's eta: the exact step is that of multiplicative weights with step 1
PAIRS_OF = ("the policy", "the policy without its likeliest action")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study: random games of a few actions, policies with standard normal logits."""

    num_games: int = 20
    num_data_sets: int = 100
    num_actions: int = 5
    most_pairs: int = 100_000
    num_rows: int = 13


QUICK = Config(num_games=4, num_data_sets=16, most_pairs=10_000, num_rows=5)
REFERENCES = {}  # Theorem 1 is informal: a rate, without a number


def run(config):
    """Squared total variation over game, data set, where pairs come from, and the number of pairs (nested)."""
    counts = np.unique(np.geomspace(100, config.most_pairs, config.num_rows).round().astype(int))
    n = config.num_actions

    def one_run(game, data_set):
        preference_key, policy_key = jax.random.split(jax.random.key(game))
        anchor = log_normalise(jax.random.normal(policy_key, (n,)))
        problem = PreferenceGame(random_skew(preference_key, n), anchor, jnp.zeros(()))
        exact = jnp.exp(MWU(1 / SCALE).step(problem, MWU(1 / SCALE).start(anchor)).log_policy)
        error = lambda policy: (jnp.sum(jnp.abs(jnp.exp(policy) - exact)) / 2) ** 2  # noqa: E731
        pair_key, vote_key = jax.random.split(jax.random.fold_in(jax.random.key(game), 1 + data_set))

        def learn(source):
            drawn = sampled_pairs(pair_key, problem.preference, source, source, config.most_pairs)
            votes = bradley_terry_votes(vote_key, judge(drawn, problem.preference, anchor))

            def learned(count):
                weight = jnp.where(jnp.arange(config.most_pairs, dtype=count.dtype) < count, 1 / count, 0.0)
                data = pooled(votes._replace(weight=weight), n)
                return error(fit_policy(lambda lp: dpo_loss(lp, anchor, data, SCALE), anchor))

            population = judge(all_pairs(problem.preference, source, source), problem.preference, anchor)
            limit = fit_policy(lambda lp: dno_loss(lp, anchor, population, SCALE), anchor)
            return jax.lax.map(learned, jnp.asarray(counts, anchor.dtype)), error(limit)

        without = log_normalise(jnp.where(jnp.arange(n) == jnp.argmax(anchor), -jnp.inf, anchor))
        squared, limit = jax.lax.map(learn, jnp.stack([anchor, without]))
        return {"squared_tv": squared, "limit": limit}

    data = sweep(
        one_run, {"game": range(config.num_games), "data_set": range(config.num_data_sets)},
        dims={"squared_tv": ("source", "pairs"), "limit": ("source",)},
        coords={"source": list(PAIRS_OF), "pairs": counts}, batch="map",
    )  # fmt: skip
    return data.assign_attrs(title=TITLE)


def _mean(data, source):
    """(mean over games and data sets, its standard error over games), per number of pairs."""
    per_game = data["squared_tv"].sel(source=source).mean("data_set").transpose("pairs", "game").values
    return per_game.mean(axis=1), per_game.std(axis=1, ddof=1) / np.sqrt(per_game.shape[1])


def slopes(data, source):
    """Per game, the slope of log mean squared error against log number of pairs, from 1 000 pairs on."""
    late = data["pairs"].values >= 1000
    rows = data["squared_tv"].sel(source=source).mean("data_set").transpose("game", "pairs").values
    return np.array([np.polyfit(np.log(data["pairs"].values[late]), np.log(row[late]), 1)[0] for row in rows])


def measured(data):
    """Slopes and last errors, mean over games with its standard error."""
    found = {}
    for source in PAIRS_OF:
        slope, (mean, error) = slopes(data, source), _mean(data, source)
        found[f"slope from 1 000 pairs on, pairs of {source}"] = Measured(
            float(slope.mean()), float(slope.std(ddof=1) / np.sqrt(slope.size))
        )
        found[f"mean squared TV at {data['pairs'].values[-1]} pairs of {source}"] = Measured(
            float(mean[-1]), float(error[-1])
        )
    limit = data["limit"].sel(source=PAIRS_OF[1]).isel(data_set=0)
    found["mean squared TV with all pairs but that action's"] = Measured(float(limit.mean()), 0.0)
    return found


def plot(data):
    """Means over games and data sets with two standard errors; the rate of the theorem and the limit in black."""
    counts = data["pairs"].values
    with figures.style():
        figure, (axis,) = figures.subplots(1, 1, width=5.5, height=3.6)
        for i, source in enumerate(PAIRS_OF):
            mean, error = _mean(data, source)
            axis.fill_between(
                counts, np.maximum(mean - 2 * error, mean / 10), mean + 2 * error, alpha=0.2, color=figures.COLOURS[i],
                linewidth=0,
            )  # fmt: skip
            axis.plot(counts, mean, marker="os"[i], markersize=4, label=f"pairs of {source}", **figures.line_style(i))
        mean, _ = _mean(data, PAIRS_OF[0])
        axis.plot(
            counts, 2 * mean[-1] * counts[-1] / counts, color="black", linewidth=0.8, linestyle=":",
            label=r"slope $-1$, DNO Theorem 1 (informal)",
        )  # fmt: skip
        limit = float(data["limit"].sel(source=PAIRS_OF[1]).mean())
        axis.axhline(
            limit, color="black", linewidth=0.8, linestyle=figures.DASHES[2], label="limit without that action"
        )
        axis.set(
            xscale="log", yscale="log", xlabel="compared pairs $N$, one vote each",
            ylabel=r"mean of $\mathrm{TV}(\hat\pi_{t+1}, \pi_{t+1})^2$ [probability$^2$]",
        )  # fmt: skip
        axis.legend(loc="lower left")
        figure.suptitle(
            f"A study: one step of DNO, {data.sizes['game']} random games of 5 actions, "
            f"{data.sizes['data_set']} data sets each",
            fontsize=9,
        )
    return figure
