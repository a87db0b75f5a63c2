"""A transformer trained by each Nash-learning objective on an enumerated text game, every measure exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.text import bigram_text
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.nash import bradley_terry, equilibrium, log_normalise, win_probability
from rlcore.nash.deep import DeepNash, train
from rlcore.nash.objectives import (
    DNO,
    INPO,
    DNOPairs,
    OnlineDPO,
    PairIPO,
    PolicyGradient,
    ScoreRegression,
    UniformIPO,
)
from rlcore.nn.transformer import Transformer
from rlcore.solver import trace_steps

TITLE = "Deep Nash learning on an enumerated text game: exact final duality gap of each method (a study)"
PRECISION = "float64"  # of the equilibrium; training is in float32 throughout
METHODS = {
    "self-play": (PolicyGradient(0.0), {}),
    "Nash-MD-PG .125": (PolicyGradient(0.125), {}),
    "Nash-MD-PG .5": (PolicyGradient(0.5), {}),
    "best response": (PolicyGradient(1.0), {}),
    "Nash-MD-PG .125, per-token KL": (PolicyGradient(0.125, per_token_kl=True), {}),
    "Online IPO 2": (PairIPO(0.0), {}),
    "IPO-MD .125": (PairIPO(0.125), {}),
    "Nash-EMA-PG .99": (PolicyGradient(0.0), {"decay": 0.99}),
    "self-play, votes": (PolicyGradient(0.0, bernoulli=True), {}),
    "Online IPO 1": (UniformIPO(0.0), {}),
    "EGPO": (UniformIPO(0.0), {"extragradient": True}),
    "INPO": (INPO(2.0), {}),
    "online DPO": (OnlineDPO(), {}),
    "SPPO": (ScoreRegression(2.0), {}),
    "GPO": (ScoreRegression(0.5, logits=True), {}),
    "DNO": (DNO(0.5), {}),
    "DNO-Prct": (DNOPairs(0.5), {}),
}
MIXTURES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; every method has the same number of updates (EGPO uses two batches in each)."""

    num_seeds: int = 5
    num_steps: int = 1500
    every: int = 50
    learning_rate: float = 5e-4
    methods: tuple[str, ...] = tuple(METHODS)


QUICK = Config(num_seeds=2, methods=("Nash-MD-PG .125",))

PROTOTYPE = (0.0059, 0.0074, 0.028, 0.189, 0.019, 0.0030, 0.0027)
WHERE = "specification of the family, E7: one seed of an independent implementation, its spread not measured"
REFERENCES = {
    # A run of one seed: half of the value stands for the spread that was not measured.
    f"final gap, {name}": Reference(value, value / 2, "prototype of this project", WHERE)
    for name, value in zip(METHODS, PROTOTYPE, strict=False)
}
# Judged win rates of summaries against the RLHF policy, PaLM 2 as the judge: another game, so nothing to agree with.
QUOTED = {"self-play": 0.489, "Nash-MD-PG .125": 0.598, "Nash-MD-PG .5": 0.501, "best response": 0.148}
REFERENCES |= {
    f"win rate against RLHF, {name}": Reference(
        value, 0.023, "quoted by a later work", "digest of Munos et al. 2024, Table 1", comparable=False
    )
    for name, value in QUOTED.items()
}


def reward_policy(game):
    """The policy of RLHF: Bradley-Terry rewards of all pairs, at the temperature that agrees with tau near a tie."""
    rewards = bradley_terry(game.preference).value
    return log_normalise(game.reference_logits + rewards / (4 * game.temperature))


def run(config):
    """Gap and divergences over algorithm, seed and step; win rates against RLHF; stationary gaps over the mixture."""
    import xarray as xr

    exact = bigram_text(0)
    plain, game = exact.game(), exact.astype(jnp.float32)
    solve = lambda temperature: equilibrium(plain.preference, plain.reference_logits, temperature).value  # noqa: E731
    star = solve(plain.temperature)
    keys = jax.random.split(jax.random.key(0), config.num_seeds)
    star32 = star.astype(jnp.float32)
    rival = reward_policy(plain)
    wins = jax.jit(jax.vmap(lambda policy: win_probability(plain.preference, log_normalise(policy), rival)))
    rows, beaten = [], []
    for name in config.methods:
        objective, options = METHODS[name]
        solver = DeepNash(objective, Transformer(6, 4), config.learning_rate, float(config.num_steps), **options)
        one = lambda key, s=solver: train(s, game, star32, config.num_steps, key, every=config.every)  # noqa: E731
        policy, trace = jax.jit(jax.vmap(one))(keys)
        rows.append({k: np.asarray(v) for k, v in trace.items()})
        beaten.append(np.asarray(wins(policy.astype(star.dtype))))
    stationary = [
        plain.gap(plain.best_response(plain.reference_logits if c == 1 else solve(plain.temperature / (1 - c))))
        for c in MIXTURES
    ]
    dims = ("algorithm", "seed", "step")
    data = {k: (dims, np.stack([row[k] for row in rows])) for k in rows[0]}
    coords = {
        "algorithm": list(config.methods),
        "seed": np.arange(config.num_seeds),
        "step": trace_steps(config.num_steps, config.every),
        "mixture": list(MIXTURES),
    }
    data["win_rlhf"] = (("algorithm", "seed"), np.stack(beaten))
    data["stationary_gap"] = ("mixture", np.array(stationary))
    data["star_win_rlhf"] = float(win_probability(plain.preference, star, rival))
    return xr.Dataset(data, coords, {"title": TITLE})


def measured(data):
    """Mean final gaps and win rates over seeds, with 1.96 standard errors; methods not run count as not measured."""
    out = {"win rate against RLHF, equilibrium": Measured(float(data["star_win_rlhf"]), 0.0)}
    for quantity, values in (("final gap", data["gap"].isel(step=-1)), ("win rate against RLHF", data["win_rlhf"])):
        for name in METHODS:
            found = values.sel(algorithm=name).values if name in data["algorithm"] else np.array([np.nan])
            error = 1.96 * found.std(ddof=1) / np.sqrt(found.size) if found.size > 1 else 0.0
            out[f"{quantity}, {name}"] = Measured(float(found.mean()), float(error))
    return out


def plot(data):
    """Gap against updates by group, and final gaps beside the prototype's and the stationary ones."""
    names = [str(x) for x in data["algorithm"].values]
    with figures.style():
        figure, axes = figures.subplots(1, 2, width=9.0, height=4.6)
        for i, name in enumerate([n for n in names if n in [*list(METHODS)[:4], "Online IPO 2", "EGPO", "INPO"]]):
            gap = data["gap"].sel(algorithm=name).mean("seed")
            axes[0].plot(data["step"], gap, label=name, **figures.line_style(i))
        axes[0].set(yscale="log", xlabel="updates", ylabel="duality gap [probability]")
        axes[0].legend(loc="lower left")
        axis, places = axes[1], np.arange(len(names))
        last = data["gap"].isel(step=-1)
        for i, name in enumerate(names):
            values = last.sel(algorithm=name).values
            axis.plot(values, np.full(values.size, i), ".", color=figures.COLOURS[0], label="ours, seeds" * (i == 0))
            if f"final gap, {name}" in REFERENCES:
                found = REFERENCES[f"final gap, {name}"]
                axis.plot(found.value, i, "x", color=figures.COLOURS[1], label=found.kind * (i == 0))
        known = {"Nash-MD-PG .125": 0.125, "IPO-MD .125": 0.125, "Nash-MD-PG .5": 0.5, "best response": 1.0}
        for j, (name, c) in enumerate((n, c) for n, c in known.items() if n in names):
            level = float(data["stationary_gap"].sel(mixture=c))
            axis.plot(
                level, names.index(name), "|", markersize=12, color="black", label="stationary (exact)" * (j == 0)
            )
        axis.set(xscale="log", xlabel="final duality gap [probability]", ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(places, names)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
