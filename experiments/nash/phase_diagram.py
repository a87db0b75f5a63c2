"""Which step sizes work at which temperature: final gap of OMD, Nash-MD and EGPO, exact or from labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import circulant, random_skew, rps
from experiments import figures
from rlcore.nash import EGPO, OMD, NashMD, PreferenceGame, critical_step_size, equilibrium, log_normalise
from rlcore.solver import iterate
from rlcore.sweep import sweep

TITLE = "Final gap over step size and temperature, with the closed-form stability boundary of OMD (a study)"
PRECISION = "float64"
ALGORITHMS = ("OMD", "Nash-MD", "EGPO", "OMD, sampled", "EGPO, sampled")
# A regular cycle needs an odd number of actions: 11 stands for the specification's 10.
GAMES = ("RPS", "circulant, n = 11", "random, n = 50")
FLOOR = 1e-16


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings: points per axis of the (step, temperature) grid, steps of a run, labels per action of sampled runs."""

    points: int = 60
    num_steps: int = 3_000
    labels: int = 8
    games: tuple[str, ...] = GAMES


QUICK = Config(points=12, num_steps=300, games=GAMES[:2])
REFERENCES = {}  # the boundary drawn is the closed form, no reading of a published figure


def make_game(name, temperature):
    """The game and a start near the reference: logits of standard deviation 1."""
    preference = {
        "RPS": lambda: rps(0.5),
        "circulant, n = 11": lambda: circulant(11, 0.5),
        "random, n = 50": lambda: random_skew(jax.random.key(0), 50),
    }[name]()
    n = preference.shape[0]
    start = log_normalise(jax.random.normal(jax.random.key(1), (n,)))
    return PreferenceGame(preference, log_normalise(jnp.zeros(n)), temperature), start


def make_solver(algorithm, step_size, labels):
    """The algorithm at the step; Nash-MD with its own mixture eta tau."""
    how = {"labels": labels} if algorithm.endswith("sampled") else {}
    return {"OMD": OMD, "Nash-MD": NashMD, "EGPO": EGPO}[algorithm.split(",")[0]](step_size, **how)


def run(config):
    """log10 of the final gap over step, temperature, algorithm and game, and OMD's critical step."""

    def one_run(step_size, temperature, algorithm, game):
        problem, start = make_game(game, temperature)
        solver = make_solver(algorithm, step_size, config.labels)
        state, _ = iterate(solver, problem, config.num_steps, state=solver.start(start), key=jax.random.key(2))
        gap = jnp.log10(jnp.maximum(problem.gap(state.log_policy), FLOOR))
        return {"log_gap": jnp.where(step_size * temperature <= 1, gap, jnp.nan)}

    steps, temperatures = np.geomspace(0.03, 30, config.points), np.geomspace(0.01, 1, config.points)
    grid = {"step_size": steps, "temperature": temperatures}
    data = sweep(one_run, grid, static={"algorithm": ALGORITHMS, "game": config.games}, batch="vmap")

    def boundary(temperature, game):
        problem, _ = make_game(game, temperature)
        return {"critical": critical_step_size(problem, equilibrium(*problem).value)}

    edge = sweep(boundary, {"temperature": temperatures}, static={"game": config.games})
    return data.merge(edge.drop_attrs(), join="exact").assign_attrs(title=TITLE)


def measured(data):
    """Nothing is compared."""
    return {}


def plot(data):
    """A row per game, a column per algorithm; white above eta tau = 1, the black line is OMD's critical step."""
    games, algorithms = data["game"].values, data["algorithm"].values
    with figures.style():
        figure, axes = figures.subplots(len(games), len(algorithms), width=9.0, height=2.2, sharex=True, sharey=True)
        tau = data["temperature"].values
        for k, axis in enumerate(axes):
            game, algorithm = games[k // len(algorithms)], algorithms[k % len(algorithms)]
            values = data["log_gap"].sel(game=game, algorithm=algorithm).transpose("step_size", "temperature").values
            mesh = axis.pcolormesh(tau, data["step_size"], values, cmap="viridis", vmin=-16, vmax=0, rasterized=True)
            critical = data["critical"].sel(game=game).values
            inside = critical * tau <= 1
            axis.plot(tau[inside], critical[inside], color="black", linewidth=1.2)
            if game == "RPS":
                closed = 2 * tau / (tau**2 + (0.5 / np.sqrt(3)) ** 2)
                keep = closed * tau <= 1
                axis.plot(tau[keep], closed[keep], color="white", linewidth=1.0, linestyle=":")
            axis.set(xscale="log", yscale="log")
            axis.grid(False)
            if k < len(algorithms):
                axis.set_title(algorithm)
            if k % len(algorithms) == 0:
                axis.set_ylabel(f"{game}\nstep " + r"$\eta$ [1/probability]")
            if k >= len(axes) - len(algorithms):
                axis.set_xlabel(r"temperature $\tau$")
        figure.colorbar(mesh, ax=axes, label=r"$\log_{10}$ final gap [probability]", fraction=0.02)
        figure.suptitle(
            r"White: $\eta\tau > 1$. Black: $\eta_c(\tau)$ of OMD; white dots: its closed form, $w = s/\sqrt{3}$",
            fontsize=9,
        )
    return figure
