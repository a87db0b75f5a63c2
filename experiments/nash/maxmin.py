"""Two groups of annotators, ten to one: whom a single reward, a mixture, MaxMin and Nash serve."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import bt
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.nash import (
    Pairs,
    RewardGroups,
    annotator_wins,
    bradley_terry,
    equilibrium,
    fit_reward_mixture,
    log_normalise,
    maxmin_policy,
    win_probability,
)
from rlcore.sweep import sweep

TITLE = "MaxMin, one reward for all, and Nash: the worse-off of two groups with shares 10 : 1 (a study)"
PRECISION = "float64"
ALGORITHMS = ("single reward", "mean of rewards", "MaxMin", "MaxMin, true rewards", "Nash")
GROUPS = ("majority", "minority")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; rewards and their temperature in logits."""

    num_seeds: int = 24
    num_actions: int = 10
    num_annotators: int = 110
    minority: int = 10
    num_pairs: int = 20
    reward_scale: float = 2.0
    temperature: float = 0.5
    correlations: tuple[float, ...] = (0.99, 0.95, 0.9, 0.8, 0.65, 0.5, 0.25, 0.0, -0.25, -0.5, -0.75, -1.0)


QUICK = Config(num_seeds=6, correlations=(0.9, 0.5, 0.0, -1.0))

QUOTED_MAXMIN = "win rate of MaxMin for the minority against the reference, unrelated groups"
QUOTED_SINGLE = "win rate of a single reward for the minority against the reference, unrelated groups"
_WHERE = "digests of Chakraborty et al. 2024, Tulu2-7B, groups 10 : 1"
REFERENCES = {
    QUOTED_MAXMIN: Reference(0.5667, 0.0001, "quoted by a later work", _WHERE, comparable=False),
    # The digests disagree about what this number is.
    QUOTED_SINGLE: Reference(0.42, 0.005, "quoted by a later work", _WHERE, comparable=False),
}


def population(key, correlation, config):
    """(rewards float[2, n] of mean 0 and one scale, kinds int[H], pairs [H, B])."""
    a, b, c, d = jax.random.split(key, 4)
    n, h = config.num_actions, config.num_annotators

    def standard(x):
        x = x - jnp.mean(x)
        return x / jnp.sqrt(jnp.mean(x**2))

    first = standard(jax.random.normal(a, (n,)))
    other = jax.random.normal(b, (n,))
    other = standard(other - jnp.mean(other * first) * first - jnp.mean(other))
    second = correlation * first + jnp.sqrt(1 - correlation**2) * other
    rewards = config.reward_scale * jnp.stack([first, second])
    kinds = (jnp.arange(h) < config.minority).astype(jnp.int32)
    one = jax.random.randint(c, (h, config.num_pairs), 0, n)
    # Another action, uniformly.
    two = (one + jax.random.randint(jax.random.fold_in(c, 1), one.shape, 1, n)) % n
    won = bt_rows(rewards, kinds, one, two)
    label = jax.random.bernoulli(d, won).astype(rewards.dtype)
    return rewards, kinds, Pairs(one.astype(jnp.int32), two.astype(jnp.int32), label)


def bt_rows(rewards, kinds, one, two):
    """Prob(one beats two) in the eyes of each annotator."""
    seen = rewards[kinds]
    return jax.nn.sigmoid(jnp.take_along_axis(seen, one, 1) - jnp.take_along_axis(seen, two, 1))


def run(config):
    """Utilities and win rates by group over seed, correlation and algorithm; who EM puts where."""
    beta = config.temperature

    def one_run(seed, correlation):
        data_key, em_key = jax.random.split(jax.random.key(seed))
        rewards, kinds, pairs = population(data_key, correlation, config)
        n = config.num_actions
        wins = annotator_wins(pairs, n)
        pooled = jnp.sum(wins, axis=0)
        fit = fit_reward_mixture(wins, 2, em_key, tol=1e-6, max_steps=200)
        found = jnp.argmax(fit.responsibilities, axis=1).astype(kinds.dtype)
        hits = jnp.mean((found == kinds).astype(rewards.dtype))
        uniform = log_normalise(jnp.zeros(n, rewards.dtype))
        mean = jnp.exp(fit.state.log_shares) @ fit.state.rewards
        groups = RewardGroups(rewards, uniform, jnp.asarray(beta, rewards.dtype))
        both = jax.tree.map(lambda *x: jnp.stack(x), groups, groups._replace(rewards=fit.state.rewards))
        maxmin = jax.vmap(maxmin_policy)(both)
        # A preference with one more win each way, and the temperature that agrees with beta near a tie.
        preference = (pooled + 1) / (pooled + pooled.T + 2)
        nash = equilibrium(preference, uniform, beta / 4)
        policies = jnp.stack(
            [
                log_normalise(uniform + bradley_terry(pooled).value / beta),
                log_normalise(uniform + mean / beta),
                maxmin.value.log_policy[1],
                maxmin.value.log_policy[0],
                nash.value,
            ]
        )
        against_reference = lambda lp: jax.vmap(lambda r: win_probability(bt(r), lp, uniform))(rewards)  # noqa: E731
        return {
            "utility": jax.vmap(groups.utilities)(policies),
            "win_rate": jax.vmap(against_reference)(policies),
            "recovered": jnp.maximum(hits, 1 - hits),
            "em_steps": fit.steps,
            "certified": jnp.maximum(jnp.max(maxmin.bound), nash.bound),
        }

    data = sweep(
        one_run,
        {"seed": range(config.num_seeds), "correlation": config.correlations},
        dims={"utility": ("algorithm", "group"), "win_rate": ("algorithm", "group")},
        coords={"algorithm": list(ALGORITHMS), "group": list(GROUPS)},
        batch="vmap",
    )
    return data.assign_attrs(title=TITLE, majority=1 - config.minority / config.num_annotators)


def _mean(values):
    return Measured(float(values.mean()), float(values.std() / np.sqrt(values.size)))


def measured(data):
    """Means over seeds and their standard errors, for unrelated groups and for opposed ones."""
    numbers = {}
    for name, at in (("unrelated", 0.0), ("opposed", -1.0)):
        here = data.sel(correlation=at, method="nearest")
        worst = here["utility"].min("group")
        for algorithm in ALGORITHMS:
            numbers[f"worse-off group's utility [logits], {name} groups, {algorithm}"] = _mean(
                worst.sel(algorithm=algorithm)
            )
        numbers[f"annotators that EM puts into their group, {name} groups"] = _mean(here["recovered"])
    minority = data.sel(correlation=0.0, method="nearest")["win_rate"].sel(group="minority")
    return numbers | {
        QUOTED_MAXMIN: _mean(minority.sel(algorithm="MaxMin")),
        QUOTED_SINGLE: _mean(minority.sel(algorithm="single reward")),
        "largest certified error of a policy": Measured(float(data["certified"].max()), 0.0),
    }


def plot(data):
    """EM's memberships, the worse-off group's utility, and the minority's win rate, against the groups' correlation."""
    x = data["correlation"].values
    with figures.style():
        figure, axes = figures.subplots(1, 3, height=3.4)

        def line(axis, values, label, i, band=True):
            low, middle, high = values.quantile([0.1, 0.5, 0.9], "seed").transpose("quantile", "correlation").values
            if band:
                axis.fill_between(x, low, high, color=figures.COLOURS[i], alpha=0.15, linewidth=0)
            axis.plot(x, middle, label=label, **figures.line_style(i))

        line(axes[0], data["recovered"], "EM, two groups", 0)
        axes[0].axhline(
            data.attrs["majority"], color="grey", linewidth=1.0, linestyle=":", label="everybody in the majority"
        )
        axes[0].set(ylabel="annotators in their group", ylim=(0.45, 1.02), title="recovery by EM")
        axes[0].legend(loc="lower left")
        for i, algorithm in enumerate(ALGORITHMS):
            band = algorithm in ("single reward", "MaxMin")
            line(axes[1], data["utility"].sel(algorithm=algorithm).min("group"), algorithm, i, band)
            line(axes[2], data["win_rate"].sel(algorithm=algorithm, group="minority"), algorithm, i, band)
        axes[1].set(ylabel="mean reward [logits]", title="the worse-off group")
        axes[2].set(ylabel="win rate against the reference", title="in the eyes of the minority")
        for name, text in ((QUOTED_MAXMIN, "MaxMin"), (QUOTED_SINGLE, "single")):
            value = REFERENCES[name].value
            axes[2].axhline(value, color="grey", linewidth=0.8, linestyle=":")
            axes[2].text(0.98, value + 0.005, f"{text}, quoted", fontsize=7, color="dimgrey", ha="left", va="bottom")
        for axis in axes:
            axis.set_xlabel("correlation of the rewards")
            axis.set_xlim(1.03, -1.03)
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.suptitle(
            f"A study: two groups 10 : 1, {data.sizes['seed']} seeds, medians with 10–90% bands (MaxMin, single)\n"
            "quoted numbers are of a language model (Tulu2-7B) and not comparable",
            fontsize=8,
        )
    return figure
