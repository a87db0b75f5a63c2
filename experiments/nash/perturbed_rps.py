"""Magnetic mirror descent on perturbed rock-paper-scissors: equilibria at three temperatures, to eight digits."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from envs.preferences import perturbed_rps
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.nash import MMD, PreferenceGame, equilibrium, log_normalise
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "Magnetic mirror descent on perturbed rock-paper-scissors: equilibria at three temperatures (a study)"
PRECISION = "float64"
ACTIONS = ("rock", "paper", "scissors")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the released run: implicit step = temperature, uniform start and magnet."""

    num_steps: int = 10_000
    num_rows: int = 201


QUICK = Config(num_rows=101)

# The equilibria stand in the released code as constants that its runs are measured against: not the output of a run.
# A prototype of this project solved for them again, to all digits given, and that is the kind they get.
GOLDEN = {
    0.05: (0.1517447, 0.46794775, 0.38030755),
    0.1: (0.17347803, 0.48630324, 0.34021873),
    0.5: (0.29813319, 0.41382045, 0.28804635),
}
REFERENCES = {
    f"pi*({action}), temperature {tau:g}": Reference(
        value,
        5e-8 if value == 0.1517447 else 5e-9,  # half a unit of the last digit given
        "prototype of this project",
        "specification of the family, E4; constants too in the released code of Sokota et al. (2023), 2206.05825",
    )
    for tau, row in GOLDEN.items()
    for action, value in zip(ACTIONS, row, strict=True)
}


def observe_policy(game, state):
    """The log-policy itself."""
    return state.log_policy


def run(config):
    """Error of MMD over temperature and step, its last policy, and Newton's equilibrium with its certificate."""
    steps = np.unique(np.concatenate([[0], np.geomspace(1, config.num_steps, config.num_rows).round()]).astype(int))

    def one_run(temperature):
        game = PreferenceGame(perturbed_rps(), log_normalise(jnp.zeros(3)), temperature)
        star = equilibrium(*game)
        policies = iterate(MMD(temperature), game, config.num_steps, observe=observe_policy, every=steps)[1]
        error = jnp.log(jnp.maximum(jnp.max(jnp.abs(jnp.exp(policies) - jnp.exp(star.value)[None]), axis=1), 1e-17))
        return {
            "log_error": error,
            "policy": jnp.exp(policies[-1]),
            "equilibrium": jnp.exp(star.value),
            "bound": star.bound,
        }

    dims = {"log_error": ("step",), "policy": ("action",), "equilibrium": ("action",)}
    data = sweep(
        one_run, {"temperature": list(GOLDEN)}, dims=dims, coords={"step": steps, "action": list(ACTIONS)}, batch="vmap"
    )
    return data.assign_attrs(title=TITLE)


def measured(data):
    """MMD's last policy per temperature and action; its error is the distance from the certified equilibrium."""
    out = {}
    for tau in GOLDEN:
        here = data.sel(temperature=tau)
        # The certificate bounds the span of the error in log: probabilities are off by half of it at most, in L1.
        error = np.abs(here["policy"] - here["equilibrium"]).max().item() + here["bound"].item() / 2
        for action in ACTIONS:
            out[f"pi*({action}), temperature {tau:g}"] = Measured(here["policy"].sel(action=action).item(), error)
    return out


def plot(data):
    """Left, the error of MMD against steps; right, the equilibria, ours as bars and theirs as crosses."""
    with figures.style():
        figure, (left, right) = figures.subplots(1, 2, height=3.0)
        steps = data["step"].values
        for i, tau in enumerate(GOLDEN):
            error = np.exp(data["log_error"].sel(temperature=tau).values)
            left.plot(np.maximum(steps, 0.7), error, label=rf"$\tau = {tau:g}$", **figures.line_style(i))
            ours = data["policy"].sel(temperature=tau)
            place = np.arange(3) + 0.26 * (i - 1)
            right.bar(place, ours, width=0.24, color=figures.COLOURS[i], alpha=0.6, label=rf"MMD, $\tau = {tau:g}$")
            right.plot(
                place, GOLDEN[tau], linestyle="none", marker="x", color="black", markersize=5,
                label="released code's constants" if i == 2 else None,
            )  # fmt: skip
        left.set(xscale="log", yscale="log", ylim=(1e-17, 1), xlabel="steps", ylabel=r"$\max_y |\pi_t(y) - \pi^*(y)|$")
        left.set_title(r"MMD with implicit step $h = \tau$")
        left.legend(loc="lower left")
        right.set(ylabel="probability", ylim=(0, 0.72), title="equilibria")
        right.set_xticks(range(3), ACTIONS)
        right.legend(loc="upper left", ncols=2, fontsize=7)
    return figure
