"""What each assumption of the guarantee carries: one is broken at a time, and random phases fall below their share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.restless_bandits import persistent, restless_monotone
from envs.switching_bandits import blocking, interrupter, momentum, spike, uniform
from experiments import figures
from experiments.reference import Measured, Reference
from rlcore.lsd import (
    RandomPhase,
    Relaxation,
    Stretched,
    SwitchingBandit,
    alpha,
    cycle_programme,
    markov_schedule,
    occupation_programme,
    optimal_finite,
    simulate,
    simulate_restless,
)
from rlcore.pytree import pytree

TITLE = "Assumptions broken one at a time: spikes, momentum, interruptions, slow recovery, shared randomness (a study)"
PRECISION = "float64"
SPIKES = ((2, 3, 6), (3, 4, 5, 5), (4, 5, 6, 7, 8, 9))
MOMENTUM, INTERRUPTED, EPSILONS = (4, 8, 16), (4, 8, 16), (0.02, 0.002)
# One size for all schedules: arms, rest and play depths.
ARMS, RECOVERY, SATIATION = 17, 9, 20
# Rounds before rewards count. Good or bad arms forget their start by a factor of 0.96 per round.
WARM, RESTLESS_WARM = 100, 200


@dataclasses.dataclass(frozen=True)
class Config:
    """Draws of the phases and rounds of each; random restless instances; rounds of their chains."""

    replicas: int = 4000
    horizon: int = 1000
    num_restless: int = 15
    restless_horizon: int = 500
    num_decrement: int = 100


QUICK = Config(replicas=200, horizon=400, num_restless=4, restless_horizon=200, num_decrement=10)

MINE = "prototype of this project"
TIES = "docs/decisions.md, experiments of switching bandits: ties at random"


def _references():
    out = {}

    def add(name, value, error, where, **kwargs):
        out[name] = Reference(value, error, MINE, f"specification of the family, {where}", **kwargs)

    for delays, broken, kept in zip(SPIKES, (0.552, 0.483, 0.468), (0.724, 0.693, 0.671), strict=True):
        add(f"spikes {delays}", broken, 0.006, "T6 (i)")
        add(f"steps {delays}", kept, 0.006, "T6 (i)")
    for k, value in zip(MOMENTUM, (0.30, 0.28, 0.27), strict=True):
        add(f"momentum, k = {k}", value, 0.01, "T6 (ii), T11")
    rows = {0.02: ((0.231, 0.225, 0.222), (0.417, 0.418, 0.415)), 0.002: ((0.031, 0.030, 0.030), (0.437, 0.436, 0.440))}
    for epsilon, (phases, stretched) in rows.items():
        for n, x, y in zip(INTERRUPTED, phases, stretched, strict=True):
            add(f"interrupter, payoff {epsilon}, n = {n}, random phases", x, 0.01, "T11")
            add(f"interrupter, payoff {epsilon}, n = {n}, stretched", y, 0.01, "T11", explained=TIES)
    add("equal offsets, k = 4", 0.25, 1e-9, "T6 (iii)")
    add("good or bad arms, mirrored", 0.752, 0.006, "T15")
    add("good or bad arms, independent", 0.377, 0.006, "T15")
    add("random restless arms, least of alpha V, mirrored", 1.049, 0.05, "T15, 15 instances", comparable=False)
    add("random restless arms, least of alpha V, independent", 0.358, 0.05, "T15, 15 instances", comparable=False)
    add("slow recovery: V_3 at the start", 3.0, 1e-12, "T2")
    add("slow recovery: V of occupation", 0.5, 1e-8, "T2")
    return out


REFERENCES = _references()


def _pad(problem):
    """float[ARMS, S], the same payoffs with arms that never pay and depths RECOVERY, SATIATION."""
    tired = problem.payoffs[:, : problem.satiation]
    tired = jnp.pad(tired, ((0, 0), (SATIATION - problem.satiation, 0)), mode="edge")
    rested = jnp.pad(problem.rested, ((0, 0), (0, RECOVERY - problem.recovery)), mode="edge")
    return jnp.pad(jnp.concatenate([tired, rested], axis=1), ((0, ARMS - problem.num_arms), (0, 0)))


def schedule_of(cycles):
    """Relaxation by hand: arm i repeats cycles[i] = (idle, run); the others never play."""
    cycles = [*cycles, *[(1, 0)] * (ARMS - len(cycles))]
    idle, run = (jnp.asarray([[x, x] for x in column], jnp.int32) for column in zip(*cycles, strict=True))
    weight = jnp.tile(jnp.array([[1.0, 0.0]]), (ARMS, 1))
    zero = jnp.zeros(())
    return Relaxation(zero, zero, zero, idle, run, weight, zero)


def planned(problem, cycles):
    """What the cycles would earn per round, were they never in each other's way."""
    payoffs, low = np.asarray(problem.payoffs), problem.satiation
    total = 0.0
    for row, (idle, run) in zip(payoffs, cycles, strict=True):
        first = row[low + min(idle, problem.recovery) - 1]
        total += (first + sum(row[low - min(j, low)] for j in range(1, run))) / (idle + run)
    return total


def cases():
    """(name, problem, cycles, the share that the guarantee would promise) of all that random phases are run on."""
    out = []
    for delays in SPIKES:
        cycles = [(d - 1, 1) for d in delays]
        # Deeper than the longest delay: a spike does not last.
        out.append((f"steps {delays}", blocking(delays), cycles))
        out.append((f"spikes {delays}", spike(delays), cycles))
    out += [(f"momentum, k = {k}", momentum(9, k), [((k - 1) * 10, 10)] * k) for k in MOMENTUM]
    for epsilon in EPSILONS:
        for n in INTERRUPTED:
            cycles = [(20, 20), *[(2 * n - 1, 1)] * n]
            out.append((f"interrupter, payoff {epsilon}, n = {n}", interrupter(n, epsilon), cycles))
    return out


def _late(total, warm, rounds):
    """Mean reward of `rounds` rounds after the first `warm`: the same run, stopped twice."""
    return (total(warm + rounds) - total(warm)) / rounds


@functools.partial(jax.jit, static_argnames=("config", "kind"))
def _rewards(payoffs, plans, config, kind):
    """float[case, replica], reward per round."""

    def one(table, plan, key):
        problem = SwitchingBandit(table, SATIATION)
        planner = RandomPhase(plan) if kind == "random phases" else Stretched(plan)
        return _late(lambda rounds: simulate(problem, planner, rounds, key, observe=None).total, WARM, config.horizon)

    keys = jax.random.split(jax.random.key(0), config.replicas)
    return jax.lax.map(lambda case: jax.vmap(lambda key: one(*case, key))(keys), (payoffs, plans))


def _equal_offsets(k, horizon):
    """Reward per round of k identical arms that ask in the same rounds; the plan's value is 1."""
    problem = blocking(np.full(k, k))
    rate = jnp.zeros(())
    both = lambda x: jnp.full((k, 2), x, jnp.int32)  # noqa: E731
    plan = Relaxation(rate, rate, rate, both(k - 1), both(1), jnp.tile(jnp.array([[1.0, 0.0]]), (k, 1)), rate)
    planner = RandomPhase(plan)
    state = planner.init(problem, jax.random.key(0))
    state = state._replace(phases=state.phases._replace(phase=jnp.zeros_like(state.phases.phase)))

    @pytree
    class InStep(RandomPhase):
        def init(self, problem, key):
            return state

    rounds = horizon // k * k
    return float(simulate(problem, InStep(plan), rounds, jax.random.key(0), observe=None).total) / rounds


def _restless(problems, config):
    """float[instance, coupling], reward per round over V and its standard error, and V."""
    solved = [occupation_programme(problem) for problem in problems]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    rates = jax.tree.map(lambda *x: jnp.stack(x), *[x.occupancy for x in solved])
    keys = jax.random.split(jax.random.key(1), max(config.replicas // 10, 100))

    schedules = [markov_schedule(jax.tree.map(lambda x, i=i: x[i], rates)) for i in range(len(problems))]
    schedules = jax.tree.map(lambda *x: jnp.stack(x), *schedules)

    @jax.jit
    def both(problem, schedule):
        def one(key, coupling):
            run = lambda n: simulate_restless(problem, schedule, n, key, coupling=coupling, observe=None).total  # noqa: E731
            return _late(run, RESTLESS_WARM, config.restless_horizon)

        found = [jax.vmap(lambda key, c=c: one(key, c))(keys) for c in ("mirrored", "independent")]
        return jnp.stack([jnp.stack([jnp.mean(x), jnp.std(x) / np.sqrt(x.size)]) for x in found])

    found = [both(*(jax.tree.map(lambda x, i=i: x[i], y) for y in (stacked, schedules))) for i in range(len(problems))]
    value = np.array([x.value for x in solved])
    return np.stack(found) / value[:, None, None]


def run(config):
    """Rewards over the planned value by case; slow recovery's programmes; restless arms by coupling."""
    import xarray as xr

    todo = cases()
    values = np.array([planned(problem, cycles) for _, problem, cycles in todo])
    payoffs = jnp.stack([_pad(problem) for _, problem, _ in todo])
    plans = jax.tree.map(lambda *x: jnp.stack(x), *[schedule_of(cycles) for _, _, cycles in todo])
    ratio = np.asarray(_rewards(payoffs, plans, config, "random phases")) / values[:, None]
    cut = [i for i, (name, _, _) in enumerate(todo) if name.startswith("interrupter")]
    at = jnp.asarray(cut)
    whole = np.asarray(_rewards(payoffs[at], jax.tree.map(lambda x: x[at], plans), config, "stretched"))
    whole = whole / values[cut][:, None]
    names = [name for name, _, _ in todo]
    names = [f"{name}, random phases" if name.startswith("interrupter") else name for name in names]
    names += [f"{todo[i][0]}, stretched" for i in cut]
    ratio = np.concatenate([ratio, whole])
    # One arm, L = 3, that pays again after two plays in a row: three plays at once, one in two rounds for ever.
    slow = SwitchingBandit(jnp.array([[0.0, 1.0, 1.0, 1.0]]), 3, "decrement", start="one")
    tables = [uniform(jax.random.key(i), 2, 3, 3) for i in range(config.num_decrement)]
    believed = [cycle_programme(problem).value for problem in tables]
    true = [occupation_programme(dataclasses.replace(problem, idle_rule="decrement")).value for problem in tables]
    good_or_bad = _restless([persistent()], dataclasses.replace(config, replicas=10 * config.replicas))
    restless = [restless_monotone(jax.random.key(i), 3, 4) for i in range(config.num_restless)]
    share = float(alpha(3))
    return xr.Dataset(
        {
            "ratio": (("case",), ratio.mean(axis=1)),
            "error": (("case",), ratio.std(axis=1) / np.sqrt(config.replicas)),
            "promised": (("case",), [float(alpha(len(c))) for _, _, c in todo] + [0.25] * len(cut)),
            "in_step": ((), _equal_offsets(4, config.horizon)),
            "good_or_bad": (("coupling", "moment"), good_or_bad[0]),
            "restless": (("instance", "coupling", "moment"), _restless(restless, config) / share),
            "slow_value": ((), occupation_programme(slow).value),
            "slow_finite": (("rounds",), np.asarray(optimal_finite(slow, 12).values)),
            "believed": (("table",), believed),
            "true": (("table",), true),
        },
        {
            "case": names,
            "coupling": ["mirrored", "independent"],
            "moment": ["mean", "error"],
            "rounds": np.arange(1, 13),
        },
        {"title": TITLE, "replicas": config.replicas},
    )


def measured(data):
    """Means over the planned value with two standard errors; least ones of the restless instances."""
    out = {}
    for name in data["case"].values:
        here = data.sel(case=name)
        out[str(name)] = Measured(here["ratio"].item(), 2 * here["error"].item())
    out["equal offsets, k = 4"] = Measured(data["in_step"].item(), 1e-12)
    for coupling in ("mirrored", "independent"):
        here = data["good_or_bad"].sel(coupling=coupling)
        mean, error = (here.sel(moment=m).item() for m in ("mean", "error"))
        out[f"good or bad arms, {coupling}"] = Measured(mean, 2 * error)
        here = data["restless"].sel(coupling=coupling)
        worst = int(np.argmin(here.sel(moment="mean").values))
        mean, error = (here.sel(moment=m).values[worst] for m in ("mean", "error"))
        out[f"random restless arms, least of alpha V, {coupling}"] = Measured(float(mean), 2 * float(error))
    out["slow recovery: V of occupation"] = Measured(data["slow_value"].item(), 1e-9)
    out["slow recovery: V_3 at the start"] = Measured(data["slow_finite"].sel(rounds=3).item(), 1e-14)
    excess = (data["believed"] / data["true"]).values
    out["slow recovery: cycles over occupation, mean"] = Measured(float(excess.mean()), float(excess.std()))
    out["slow recovery: cycles over occupation, most"] = Measured(float(excess.max()), 0.0)
    return out


def plot(data):
    """Left, reward over plan by case, bars for what monotone payoffs guarantee; right, couplings and slow recovery."""
    names = [str(x) for x in data["case"].values]
    with figures.style():
        figure, (left, centre, right) = figures.subplots(
            1, 3, width=11.5, height=4.4, gridspec_kw={"width_ratios": (2.2, 1.2, 1)}
        )
        rows = np.arange(len(names))[::-1]
        kept = np.array([name.startswith("steps") or name.endswith("stretched") for name in names])
        for chosen, colour, marker, label in (
            (~kept, figures.COLOURS[1], "o", "assumption broken"),
            (kept, figures.COLOURS[0], "s", "kept, or stretched"),
        ):
            left.errorbar(
                data["ratio"].values[chosen], rows[chosen], xerr=2 * data["error"].values[chosen], fmt=marker,
                color=colour, markersize=4, label=label,
            )  # fmt: skip
        left.plot(data["promised"], rows, "|", color="black", markersize=9, label="guarantee (if kept)")
        known = [(REFERENCES[name].value, row) for name, row in zip(names, rows, strict=True) if name in REFERENCES]
        left.plot(*zip(*known, strict=True), "kx", markersize=5, label="prototype")
        left.set_yticks(rows, names, fontsize=7)
        left.set(xlim=(0, 0.85), xlabel="reward / plan", title="random phases, by payoffs")
        left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.0, 1.0))
        for i, coupling in enumerate(("mirrored", "independent")):
            here = data["restless"].sel(coupling=coupling, moment="mean").values
            error = data["restless"].sel(coupling=coupling, moment="error").values
            style = {"color": figures.COLOURS[i], "fmt": "os"[i], "markersize": 4}
            centre.errorbar(np.arange(len(here)), here, 2 * error, label=f"{coupling}, k = 3, S = 4", **style)
            two = data["good_or_bad"].sel(coupling=coupling, moment="mean").item() / 0.75
            centre.axhline(two, label=f"{coupling}, two good-or-bad arms", **figures.line_style(i))
            centre.plot(-1, REFERENCES[f"good or bad arms, {coupling}"].value / 0.75, "kx", markersize=5)
        centre.axhline(1, color="black", linewidth=0.8)
        centre.set(xlabel="restless instance", ylabel=r"reward / $\alpha V$", title="shared or separate transitions")
        centre.set_ylim(0, 2.1)
        centre.legend(fontsize=6.5, loc="upper left")
        rounds = data["rounds"].values
        value = data["slow_value"].item()
        right.plot(rounds, data["slow_finite"], marker=".", label="$V_T$, exact", **figures.line_style(0))
        right.plot(rounds, (rounds + 1) * value, label="$(T + s_0) V$: too low", **figures.line_style(1))
        right.plot(rounds, (rounds + 3) * value, label="$(T + s_0 + L - 1) V$", **figures.line_style(2))
        right.set(xlabel="rounds $T$", ylabel="total reward", title="slow recovery, one arm")
        right.legend(fontsize=7)
        figure.suptitle(
            f"A study: {data.attrs['replicas']} draws, two standard errors; crosses: prototype",
            fontsize=9,
        )
    return figure
