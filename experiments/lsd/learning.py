"""Learning the payoffs: reward over time, regret against what the learner would earn if it knew, and broken payoffs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.switching_bandits import blocking, reference, spike, uniform
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import (
    ExploreCommit,
    RandomPhase,
    SwitchingBandit,
    UCBGreedy,
    VirtualUCB,
    alpha,
    isi_comb_ucb1,
    learn,
    optimal_average,
    relaxation,
    replicate,
    virtual_ucb_regret_bound,
)
from rlcore.lsd.virtual_ucb import virtual_ucb_frame
from rlcore.sweep import sweep

TITLE = "Learning switching bandits: MV-UCB, explore-then-commit, ISI-CombUCB1 and UCB-greedy (a study)"
PRECISION = "float64"
CONFIDENCES = (1.0, 0.3)
UCB = tuple(f"MV-UCB, confidence {c:g}" for c in CONFIDENCES)
OTHERS = ("explore-then-commit", "ISI-CombUCB1, blocks of 8", "UCB-greedy")
DELAYS = (3, 4, 5, 5)  # of the steps that keep, and of the spikes that break, what MV-UCB builds on
POINTS = 200


@dataclasses.dataclass(frozen=True)
class Config:
    """Rounds of the learning curves and seeds; horizons of MV-UCB's regret, on Q and on random instances of its sizes;
    horizons on steps and spikes. MV-UCB and explore-then-commit are told their horizon."""

    horizon: int = 30_000
    num_seeds: int = 8
    horizons: tuple[int, ...] = (2_000, 8_000, 32_000, 128_000)
    num_random: int = 4
    spike_horizons: tuple[int, ...] = (8_000, 32_000)
    known_draws: int = 256


QUICK = Config(horizon=4_000, num_seeds=4, horizons=(4_000,), num_random=2, spike_horizons=(), known_draws=64)

MINE, WHERE = "prototype of this project", "specification of the family, T14"
SPIKES = {
    ("steps", True): (0.646, 0.665),
    ("spikes", True): (0.255, 0.351),
    ("spikes", False): (0.394, 0.440),
}
HORIZONS = (2_000, 8_000, 32_000, 128_000)
REGRETS = {1.0: (147, 386, 901, 2328), 0.3: (104, 257, 514, 977)}
REFERENCES = {
    f"counterpart regret, {name}, T = {t}": Reference(
        value, 0.1 * value, MINE, f"{WHERE}, an instance of Q's sizes, not given", comparable=False
    )
    for c, name in zip(CONFIDENCES, UCB, strict=True)
    for t, value in zip(HORIZONS, REGRETS[c], strict=True)
} | {
    f"regret bound, T = {t}": Reference(value, error, MINE, WHERE)
    for t, value, error in zip(HORIZONS, (4.4e3, 9.2e3, 19e3, 40e3), (50, 50, 500, 500), strict=True)
}
# An interval that the specification asks of the slope, of neither a confidence nor an instance in particular.
REFERENCES |= {
    f"slope of log counterpart regret, {name}, {which}": Reference(0.6, 0.15, MINE, f"{WHERE}, check: in [.45, .75]")
    for name in UCB
    for which in ("Q", "mean of random")
}


def _spike_name(payoffs, monotone, t):
    return f"last half / V, {payoffs}, {'with' if monotone else 'without'} cumulative minimum, T = {t}"


DECISION = "docs/decisions.md, experiments of switching bandits"
# Their number of seeds and the frame's draw leave a few thousandths per run.
REFERENCES |= {
    _spike_name(*case, t): Reference(value, 0.02, MINE, WHERE, explained=f"{DECISION}: ten local states")
    for case, row in SPIKES.items()
    for t, value in zip((8_000, 32_000), row, strict=True)
}
# The one that ten local states do not give.
REFERENCES[_spike_name("spikes", True, 32_000)] = Reference(
    SPIKES["spikes", True][1], 0.02, MINE, WHERE, noted=DECISION
)


def _learner(name, horizon):
    makers = {
        "explore-then-commit": lambda: ExploreCommit(horizon),
        "ISI-CombUCB1, blocks of 8": lambda: isi_comb_ucb1(8),
        "UCB-greedy": UCBGreedy,
    }
    return makers[name]()


def run(config):
    """Cumulative mean payoff by seed, algorithm and round; total and known average by T, instance, confidence."""
    import xarray as xr

    known = reference()
    stride = max(1, config.horizon // POINTS)
    rounds = stride * np.arange(1, config.horizon // stride + 1)

    def curve(learner, seed):
        paid = learn(known, learner, config.horizon, jax.random.key(seed)).trace
        return jnp.cumsum(jnp.sum(paid[: len(rounds) * stride].reshape(-1, stride), axis=1))

    def by_confidence(seed, confidence):
        return {"reward": curve(VirtualUCB(config.horizon, confidence), seed)}

    def by_algorithm(seed, algorithm):
        return {"reward": curve(_learner(algorithm, config.horizon), seed)}

    seeds = {"seed": range(config.num_seeds)}
    shape = {"dims": {"reward": ("round",)}, "coords": {"round": rounds}, "batch": "vmap"}
    first = sweep(by_confidence, {**seeds, "confidence": CONFIDENCES}, **shape)
    rest = sweep(by_algorithm, seeds, static={"algorithm": OTHERS}, **shape)
    first = first.rename(confidence="algorithm").assign_coords(algorithm=list(UCB)).drop_attrs()
    data = xr.concat([first, rest.drop_attrs()], "algorithm")

    draw = lambda key: uniform(key, 3, 4, 2).payoffs  # noqa: E731
    tables = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), max(config.num_random, 1)))
    tables = jnp.concatenate([known.payoffs[None], tables[: config.num_random]])

    def regret(seed, instance, confidence, length):
        problem = SwitchingBandit(tables[instance], 2)
        run = learn(problem, VirtualUCB(length, confidence), length, jax.random.key(seed), observe=None)
        return {"total": run.total}

    grid = {**seeds, "instance": range(len(tables)), "confidence": CONFIDENCES}
    data = data.assign(sweep(regret, grid, static={"length": config.horizons}, batch="vmap").data_vars)

    def informed(instance, length):
        """The same frames and phases, payoffs known."""
        problem = SwitchingBandit(tables[instance], 2)
        plan = relaxation(problem)
        planner = RandomPhase(plan, frame=virtual_ucb_frame(length, problem.num_local))
        # As many rounds as tell the frames' average: whole frames.
        frames = min(length, 40 * planner.frame) // planner.frame
        mean = replicate(problem, planner, frames * planner.frame, config.known_draws, jax.random.key(1))
        error = jnp.std(mean) / np.sqrt(config.known_draws)
        return {"known": jnp.mean(mean), "known_error": error, "value": plan.value}

    found = sweep(informed, {"instance": range(len(tables))}, static={"length": config.horizons}, batch="map")
    data = data.assign(found.data_vars)
    if config.spike_horizons:
        mean, error = _broken(config)
        data["broken"], data["broken_error"] = ((("case", "broken_length"), x) for x in (mean, error))
        cases = [f"{payoffs}, {monotone}" for payoffs, monotone in SPIKES]
        data = data.assign_coords(case=cases, broken_length=list(config.spike_horizons))
    best = optimal_average(known)
    data["optimum"] = ((), float(best.lower + best.upper) / 2)
    return data.assign_attrs(title=TITLE)


def _broken(config):
    """float[case, horizon] twice: MV-UCB's average over the last half of the rounds over V, and its standard error."""
    problems = {"steps": blocking(DELAYS, recovery=5), "spikes": spike(DELAYS, recovery=5)}
    out = np.zeros((2, len(SPIKES), len(config.spike_horizons)))
    for i, (payoffs, monotone) in enumerate(SPIKES):
        problem = problems[payoffs]
        value = float(relaxation(problem).value)
        for j, length in enumerate(config.spike_horizons):
            learner = VirtualUCB(length, 0.3, monotone=monotone)

            @jax.jit
            @jax.vmap
            def late(seed, problem=problem, learner=learner, length=length):
                paid = learn(problem, learner, length, jax.random.key(seed)).trace
                return jnp.mean(paid[length // 2 :])

            found = np.asarray(late(jnp.arange(4 * config.num_seeds))) / value
            out[:, i, j] = found.mean(), found.std(ddof=1) / np.sqrt(found.size)
    return out


def _regret(data):
    """T times the average with known payoffs, less the reward: by seed, instance, confidence, T."""
    return (data["known"] * data["length"] - data["total"]).transpose("seed", "instance", "confidence", "length")


def _slopes(regret, noise):
    """Least-squares slopes of log regret on log T, with two standard errors; regret by seed, instance and length.

    noise: standard error of the average with known payoffs, times T, by instance and length.
    """
    x, count = np.log(regret["length"].values), regret.sizes["instance"] - 1
    if len(x) < 2:
        return dict.fromkeys(("Q", "mean of random"), Measured(np.nan, np.nan))
    mean = np.maximum(regret.mean("seed").transpose("instance", "length").values, 1.0)
    weight = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    slopes = np.log(mean) @ weight
    spread = regret.isel(instance=0).std("seed", ddof=1).values / np.sqrt(regret.sizes["seed"])
    error = np.hypot(spread, noise.isel(instance=0).values)
    rest = np.std(slopes[1:], ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return {
        "Q": Measured(float(slopes[0]), float(2 * np.linalg.norm(weight * error / mean[0]))),
        "mean of random": Measured(float(np.mean(slopes[1:])), float(2 * rest)),
    }


def measured(data):
    """Averages over the optimum and alpha-regrets of the curves; counterpart regrets, their slopes and the bound."""
    out = {}
    t, value, best = data["round"].values[-1], data["value"].values.flat[0], data["optimum"].item()
    root = np.sqrt(data.sizes["seed"])
    for name in data["algorithm"].values:
        total = data["reward"].sel(algorithm=name).isel(round=-1)
        mean, error = total.mean().item(), 2 * total.std(ddof=1).item() / root
        out[f"average / optimum, {name}, T = {t}"] = Measured(mean / t / best, error / t / best)
        out[f"alpha-regret, {name}, T = {t}"] = Measured(float(alpha(3)) * value * t - mean, error)
        half = len(data["round"]) // 2
        late = (total - data["reward"].sel(algorithm=name).isel(round=half - 1)) / (t - data["round"].values[half - 1])
        error = 2 * late.std(ddof=1).item() / root / best
        out[f"average / optimum, {name}, last half"] = Measured(late.mean().item() / best, error)
    regret = _regret(data)
    lengths = [int(x) for x in data["length"].values]
    for c, name in zip(CONFIDENCES, UCB, strict=True):
        here = regret.sel(confidence=c)
        for length in (*HORIZONS, *(x for x in lengths if x not in HORIZONS)):
            key = f"counterpart regret, {name}, T = {length}"
            if length not in lengths:
                out[key] = Measured(np.nan, np.nan)
                continue
            q = here.sel(length=length).isel(instance=0)
            noise = data["known_error"].sel(length=length).isel(instance=0).item() * length
            out[key] = Measured(q.mean().item(), 2 * float(np.hypot(q.std(ddof=1).item() / root, noise)))
        for which, slope in _slopes(here, data["known_error"] * data["length"]).items():
            out[f"slope of log counterpart regret, {name}, {which}"] = slope
    for length in HORIZONS:
        out[f"regret bound, T = {length}"] = Measured(float(virtual_ucb_regret_bound(length, 3, 6)), 0.0)
    alpha_regret = float(alpha(3)) * data["value"] * data["length"] - data["total"].mean("seed")
    bound = np.array([virtual_ucb_regret_bound(length, 3, 6) for length in lengths])
    most = (alpha_regret.sel(confidence=1.0).transpose("instance", "length").values / bound).max()
    out["most of alpha-regret / bound, confidence 1"] = Measured(float(most), 0.0)
    for case in SPIKES:
        for length in (8_000, 32_000):
            number = Measured(np.nan, np.nan)
            if "broken" in data and length in data["broken_length"].values:
                here = data.sel(case=f"{case[0]}, {case[1]}", broken_length=length)
                number = Measured(here["broken"].item(), 2 * here["broken_error"].item())
            out[_spike_name(*case, length)] = number
    return out


def plot(data):
    """Reward per round so far; alpha-regret over rounds; MV-UCB's regret against its informed self by horizon."""
    t = data["round"].values
    value = data["value"].values.flat[0]
    share = float(alpha(3))
    with figures.style():
        figure, (left, centre, right) = figures.subplots(1, 3, width=11.0, height=4.0)
        for i, name in enumerate(data["algorithm"].values):
            reward = data["reward"].sel(algorithm=name).transpose("seed", "round").values
            for axis, rows in ((left, reward / t), (centre, share * value * t - reward)):
                mean, error = rows.mean(axis=0), 2 * rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
                style = figures.line_style(i)
                axis.plot(t, mean, label=str(name), **style)
                axis.fill_between(t, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
        left.axhline(value, color="black", linewidth=0.8, label="relaxation $V$")
        left.axhline(data["optimum"].item(), color="grey", linewidth=1.2, linestyle=":", label="exact optimum")
        left.axhline(share * value, color="grey", linewidth=1.0, linestyle="--", label=r"$\alpha V$")
        left.set(xscale="log", xlabel="round $t$", ylabel="mean payoff per round, so far", ylim=(0, 0.72))
        left.set_title("learning curves, instance Q")
        centre.axhline(0, color="black", linewidth=0.8)
        centre.set(xlabel="round $t$", ylabel=r"$\alpha V t$ less reward", title=r"$\alpha$-regret, instance Q")
        regret, lengths = _regret(data).mean("seed"), data["length"].values
        for i, (c, name) in enumerate(zip(CONFIDENCES, UCB, strict=True)):
            here = regret.sel(confidence=c)
            right.plot(lengths, here.isel(instance=0), marker=".", label=f"{name}, Q", **figures.line_style(i))
            for j in range(1, here.sizes["instance"]):
                label = f"random instances, confidence {c:g}" if j == 1 else None
                right.plot(
                    lengths, here.isel(instance=j), color=figures.COLOURS[i], linewidth=0.5, alpha=0.7, label=label
                )
            right.plot(
                HORIZONS, REGRETS[c], "kx" if c == 1 else "k+", markersize=5, label=f"prototype, confidence {c:g}"
            )
        bound = [virtual_ucb_regret_bound(int(x), 3, 6) for x in lengths]
        right.plot(lengths, bound, label=r"bound of the $\alpha$-regret", **figures.line_style(2))
        right.plot(lengths, 4 * np.sqrt(lengths), color="grey", linewidth=0.8, linestyle=":", label=r"$4 \sqrt{T}$")
        right.set(xscale="log", yscale="log", xlabel="horizon $T$", ylabel="reward lost to not knowing")
        right.set_title("regret against the informed self")
        right.set_ylim(20, 3e6)  # room for the legend
        right.legend(fontsize=6.5, loc="upper left")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(
            f"A study: means of {data.sizes['seed']} seeds, two standard errors; the prototype's instance is not known",
            fontsize=9,
        )
    return figure
