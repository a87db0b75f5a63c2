"""A text game judged by a preference model learned from votes: what the model costs, and what training adds to it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.text import bigram_text
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import BradleyTerry, GeneralPreference, PairNetwork, Pairs, equilibrium, log_loss
from rlcore.nash.deep import DeepNash, train
from rlcore.nash.objectives import PairIPO
from rlcore.nash.oracle import draw_actions
from rlcore.nn.transformer import Transformer

TITLE = "Learned judges: true gap of IPO-MD trained on Bradley-Terry, GPM and pair-network preferences (a study)"
PRECISION = "float64"  # of equilibria; models and policies are trained in float32
VOCABULARY, LENGTH = 6, 4
MODELS = {
    "Bradley-Terry": BradleyTerry(ridge=1e-2),
    "GPM, 2 dimensions": GeneralPreference(dim=2, num_steps=400),
    "GPM, 6 dimensions": GeneralPreference(dim=6, num_steps=400),
    "pair network": PairNetwork(hidden=(32,), num_steps=400, learning_rate=3e-3),
}
EXACT = "exact"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings: votes on pairs of reference responses, data sets (a training for each), updates of the policy."""

    num_pairs: tuple[int, ...] = (1_000, 4_000, 16_000)
    num_seeds: int = 3
    num_steps: int = 1500
    models: tuple[str, ...] = tuple(MODELS)


QUICK = Config(num_pairs=(4_000,), num_seeds=1, num_steps=200, models=("GPM, 6 dimensions",))
REFERENCES = {}  # no published number is about this game


def bigram_counts() -> np.ndarray:
    """Features of all responses: how often each token follows each (the start included), float[n, (V + 1) V]."""
    tokens = np.indices((VOCABULARY,) * LENGTH).reshape(LENGTH, -1).T
    before = np.concatenate([np.full((len(tokens), 1), VOCABULARY), tokens[:, :-1]], axis=1)
    counts = np.zeros((len(tokens), (VOCABULARY + 1) * VOCABULARY))
    np.add.at(counts, (np.arange(len(tokens))[:, None], before * VOCABULARY + tokens), 1.0)
    return counts


def votes(key, game, count):
    """Pairs of responses of the reference, one vote each."""
    draw_key, vote_key = jax.random.split(key)
    first, second = draw_actions(draw_key, jnp.exp(jnp.sum(game.paths(), axis=1)), (2, count))
    win = game.preference[first, second]
    return Pairs(first, second, (jax.random.uniform(vote_key, win.shape, win.dtype) < win).astype(win.dtype))


def run(config):
    """True gaps of the trained policy and of the judge's own equilibrium, held-out loss, over judge, votes and seed."""
    import xarray as xr

    exact = bigram_text(0)
    plain, game = exact.game(), exact.astype(jnp.float32)
    features = jnp.asarray(bigram_counts(), jnp.float32)
    truth = equilibrium(plain.preference, plain.reference_logits, plain.temperature).value
    solver = DeepNash(PairIPO(0.125), Transformer(VOCABULARY, LENGTH), decay_steps=float(config.num_steps))
    # The judge is data: one compilation serves all.
    policy_gap = jax.jit(
        lambda judge, key: train(
            solver, game._replace(judge=judge), truth.astype(jnp.float32), config.num_steps, key, every=config.num_steps
        )[1]["gap"][-1]
    )

    @jax.jit
    def own_gap(judge):
        judge = judge.astype(plain.preference.dtype)
        judge = (1 + judge - judge.T) / 2
        return plain.gap(equilibrium(judge, plain.reference_logits, plain.temperature).value)

    held_out = votes(jax.random.key(10_000), game, 50_000)
    win = plain.preference[held_out.first, held_out.second]
    entropy = float(-jnp.mean(win * jnp.log(win) + (1 - win) * jnp.log(1 - win)))
    shape = (len(config.models), len(config.num_pairs), config.num_seeds)
    found = {name: np.full(shape, np.nan) for name in ("trained_gap", "judge_gap", "excess_loss")}
    for j, count in enumerate(config.num_pairs):
        for i, name in enumerate(config.models):
            model = MODELS[name]
            fit = jax.jit(lambda pairs, key, model=model: model.fit(pairs, features, key))
            for seed in range(config.num_seeds):
                key = jax.random.fold_in(jax.random.key(seed), count)
                params = fit(votes(key, game, count), jax.random.fold_in(key, 1))
                judge = model.matrix(params, features)
                found["trained_gap"][i, j, seed] = policy_gap(judge, jax.random.fold_in(key, 2))
                found["judge_gap"][i, j, seed] = own_gap(judge)
                soft = held_out._replace(label=win.astype(jnp.float32))
                found["excess_loss"][i, j, seed] = float(log_loss(model, params, features, soft)) - entropy
    judged = [float(policy_gap(game.preference, jax.random.key(seed))) for seed in range(config.num_seeds)]
    dims = ("judge", "pairs", "seed")
    data = {name: (dims, values) for name, values in found.items()}
    data["oracle_gap"] = ("seed", np.array(judged))
    data["start_gap"] = float(plain.gap(plain.reference_logits))
    coords = {"judge": list(config.models), "pairs": list(config.num_pairs), "seed": np.arange(config.num_seeds)}
    return xr.Dataset(data, coords, {"title": TITLE})


def measured(data):
    """Means over data sets at the largest number of votes, with 1.96 standard errors."""

    def mean(values):
        error = 1.96 * values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else 0.0
        return Measured(float(values.mean()), float(error))

    out = {"true gap, trained on the exact preference": mean(data["oracle_gap"].values)}
    last = data.isel(pairs=-1)
    for name in data["judge"].values:
        row = last.sel(judge=name)
        out[f"true gap, trained on {name}"] = mean(row["trained_gap"].values)
        out[f"true gap, equilibrium of {name}"] = mean(row["judge_gap"].values)
        out[f"held-out loss above the truth's, {name}"] = mean(row["excess_loss"].values)
    return out


def plot(data):
    """True gaps against the number of votes; the model's held-out loss beside them."""
    pairs = data["pairs"].values
    with figures.style():
        figure, axes = figures.subplots(1, 2, height=3.4)
        for i, name in enumerate(data["judge"].values):
            row, style = data.sel(judge=name), figures.line_style(i)
            axes[0].plot(pairs, row["trained_gap"].mean("seed"), marker="o", markersize=4, label=str(name), **style)
            own = row["judge_gap"].mean("seed")
            axes[0].plot(pairs, own, marker="x", markersize=6, linestyle="none", color=style["color"])
            axes[1].plot(pairs, row["excess_loss"].mean("seed"), marker="o", markersize=4, **style)
        axes[0].axhline(float(data["oracle_gap"].mean()), color="black", linewidth=0.8, linestyle=":")
        axes[0].axhline(float(data["start_gap"]), color="black", linewidth=0.8)
        axes[0].set(xscale="log", yscale="log", xlabel="votes", ylabel="true duality gap [probability]")
        axes[0].set_title("IPO-MD trained on the judge (dots)\nthe judge's own equilibrium (crosses)")
        axes[1].set(xscale="log", yscale="log", xlabel="votes", ylabel="excess held-out loss [nats]")
        axes[1].set_title("the judge")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle(
            f"A study: {data.sizes['seed']} data sets; solid line: the reference's gap; dotted: trained on the truth",
            fontsize=9,
        )
    return figure
