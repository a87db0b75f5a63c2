"""Real intransitive preferences: 43 rock-paper-scissors programs, their lottery and their regularised equilibria."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from envs.preferences import roshambo, roshambo_bots
from experiments import figures
from experiments.reference import Measured
from rlcore.nash import equilibrium, kl, log_normalise, lottery, unregularised_gap
from rlcore.sweep import sweep

TITLE = "43 rock-paper-scissors programs: lottery, three-cycles and regularised equilibria (a study)"
PRECISION = "float64"
THROWS = 1000
# Standard deviation of a margin of 1000 throws between random players: wins and losses have probability 1/3 each.
NOISE = float(np.sqrt(2 / 3 * THROWS) / (2 * THROWS))
REFERENCES: dict = {}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings: temperatures in probability per nat, log-spaced from `coldest` to `hottest`; matches drawn anew."""

    coldest: float = 1e-3
    hottest: float = 1.0
    num_temperatures: int = 61
    num_resamples: int = 200


QUICK = Config(num_temperatures=21, num_resamples=30)


def three_cycles(preference: np.ndarray, margin: float = 0.0) -> int:
    """The number of triples i > j > k > i, every step won by more than `margin`."""
    beats = (np.asarray(preference) - 0.5 > margin).astype(np.int64)
    return int(np.trace(beats @ beats @ beats)) // 3


def run(config):
    """The equilibrium of every temperature, the lottery, and lotteries of tables with fresh noise of the same size."""
    preference, names = roshambo(), np.array(roshambo_bots())
    n = names.size
    uniform = log_normalise(jnp.zeros(n))

    def one_run(temperature):
        star = equilibrium(preference, uniform, temperature)
        return {
            "policy": jnp.exp(star.value),
            "bound": star.bound,
            "kl_reference": kl(star.value, uniform),
            "unregularised_gap": unregularised_gap(preference, star.value),
        }

    temperatures = np.geomspace(config.coldest, config.hottest, config.num_temperatures)
    data = sweep(one_run, {"temperature": temperatures}, dims={"policy": ("bot",)}, coords={"bot": names})
    # A parametric bootstrap: each match of THROWS throws again, with the observed mean and the noise of random throws.
    rng = np.random.default_rng(0)
    noise = np.tril(rng.normal(scale=NOISE, size=(config.num_resamples, n, n)), -1)
    noisy = np.clip(np.asarray(preference) - 0.5 + noise - np.swapaxes(noise, 1, 2), -0.5, 0.5)
    again = np.stack([lottery(0.5 + payoff) for payoff in noisy])
    return data.assign(
        preference=(("bot", "opponent"), np.asarray(preference)),
        lottery=("bot", lottery(preference)),
        resampled_lottery=(("resample", "bot"), again),
        three_cycles=((), three_cycles(preference)),
        clear_three_cycles=((), three_cycles(preference, 3 * NOISE)),
    ).assign_attrs(title=TITLE)


def measured(data):
    """Counts are exact for this table; spreads are over the resampled matches."""
    support, again = data["lottery"] > 1e-9, data["resampled_lottery"] > 1e-9
    n = data.sizes["bot"]
    most = data["lottery"].values.argmax()
    spread = float(data["resampled_lottery"].isel(bot=most).std())
    return {
        "three-cycles": Measured(float(data["three_cycles"]), 0.0),
        "three-cycles whose steps exceed three deviations of chance": Measured(float(data["clear_three_cycles"]), 0.0),
        "triples": Measured(n * (n - 1) * (n - 2) / 6, 0.0),
        "programs in the lottery": Measured(float(support.sum()), float(again.sum("bot").std())),
        f"largest share of the lottery, {data['bot'].values[most]}": Measured(float(data["lottery"][most]), spread),
        "largest certified error of an equilibrium [nats]": Measured(float(data["bound"].max()), 0.0),
    }


def plot(data):
    """The table in order of mean win rate, the equilibria over temperature, and what is left to exploit."""
    order = np.argsort(-data["preference"].mean("opponent").values)
    top = np.argsort(-data["lottery"].values)[:6]
    tau = data["temperature"].values
    with figures.style():
        figure, axes = figures.subplots(2, 2, height=3.2)
        image = axes[0].imshow(data["preference"].values[order][:, order], cmap="PuOr", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes[0], label="share of throws won by the row", shrink=0.9)
        axes[0].set(xlabel="opponent, by mean win rate", ylabel="program, by mean win rate")
        axes[0].set_title(f"{int(data['three_cycles'])} three-cycles, {int(data['clear_three_cycles'])} beyond chance")
        axes[0].grid(False)
        for j, bot in enumerate(top):
            share = data["policy"].isel(bot=bot)
            axes[1].plot(tau, share, label=data["bot"].values[bot], **figures.line_style(j))
            axes[1].plot(tau[0] * 0.8, data["lottery"].values[bot], marker="o", markersize=4, color=figures.COLOURS[j],
                         linestyle="none", clip_on=False)  # fmt: skip
        axes[1].set(xscale="log", xlabel=r"temperature $\tau$ [probability per nat]", ylabel="share in the equilibrium")
        axes[1].set_title("equilibria; dots: lottery ($\\tau = 0$)")
        axes[1].set_ylim(0, 0.52)
        axes[1].legend(ncols=2, loc="upper right")
        axes[2].plot(tau, data["unregularised_gap"], **figures.line_style(0))
        axes[2].set(xscale="log", yscale="log", xlabel=r"temperature $\tau$ [probability per nat]")
        axes[2].set(ylabel="gap without temperature", title="what a best reply still gains")
        rows = data["resampled_lottery"].values[:, top]
        place = np.arange(top.size)
        low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], axis=0)
        axes[3].errorbar(place, middle, [middle - low, high - middle], fmt="none", color="grey", capsize=3,
                         label="fresh matches, 5–95%")  # fmt: skip
        axes[3].plot(place, data["lottery"].values[top], "o", color=figures.COLOURS[0], label="this table")
        axes[3].set_xticks(place, data["bot"].values[top], rotation=30, ha="right")
        axes[3].set(ylabel="share in the lottery", title="1000 throws hardly fix the lottery")
        axes[3].legend()
        figure.suptitle("A study: OpenSpiel's 43 programs, 1000 throws a pair, uniform reference", fontsize=9)
    return figure
