"""The experiments on switching bandits on tiny settings: values known otherwise, labels, and figures that draw."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

from envs.switching_bandits import blocking, interrupter, momentum, reference, spike, tight, uniform
from experiments.lsd import (
    approximation,
    assumptions,
    horizon,
    interleaving,
    laforgue,
    learning,
    pinwheel,
    scaling,
    tightness,
)
from experiments.reference import table
from rlcore.lsd import (
    RandomPhase,
    SwitchingBandit,
    VirtualUCB,
    alpha,
    block_optimum,
    cycle_programme,
    learn,
    relaxation,
    simulate,
)


def drawn(module, data, panels):
    """The figure has its panels, each with an x label, and every reference is measured; returns the measurements."""
    figure = module.plot(data)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert len(axes) == panels and all(axis.get_xlabel() for axis in axes)
    figure.canvas.draw()
    numbers = module.measured(data)
    assert set(module.REFERENCES) <= set(numbers)
    table(module.REFERENCES, numbers)
    return numbers


def by_hand(payoffs, arms, start):
    """Rewards of a sequence of plays where payoffs go by delay, float[k, D]; start: delays before the first round."""
    delay, out = list(start), []
    for arm in arms:
        out.append(payoffs[arm][min(delay[arm], payoffs.shape[1]) - 1])
        delay = [1 if i == arm else d + 1 for i, d in enumerate(delay)]
    return np.array(out)


def by_greed(payoffs, length):
    """Total of greedy play, all arms just played at first; ties do not matter where they are among constant arms."""
    delay, total = np.ones(len(payoffs), int), 0.0
    for _ in range(length):
        now = payoffs[np.arange(len(payoffs)), np.minimum(delay, payoffs.shape[1]) - 1]
        arm, delay = np.argmax(now), delay + 1
        total, delay[arm] = total + now[arm], 1
    return total


def test_what_laforgues_blocks_and_greedy_earn():
    problem = laforgue.problem_of("main")
    payoffs = np.asarray(problem.payoffs)
    best, plan, blocks = jax.jit(laforgue._facts, static_argnames="lengths")(problem, (3,))
    arms = np.asarray(jax.jit(block_optimum, static_argnums=1)(problem, 3).arms)
    np.testing.assert_allclose(blocks, by_hand(payoffs, np.tile(arms, 5), [50] * 5)[-3:].mean(), rtol=1e-14)
    np.testing.assert_allclose(blocks, 0.15, rtol=1e-14)
    np.testing.assert_allclose([best.lower, plan.value], 4.56 / 9, rtol=1e-12)
    assert abs(by_greed(payoffs, 3600) - 548.4) < 0.06  # a digit printed
    assert abs(by_greed(np.asarray(laforgue.problem_of("supplement").payoffs), 3300) - 198) < 0.6


def test_laforgues_experiments_measure_and_draw():
    rng = np.random.default_rng(0)
    data = {}
    coords = {}
    for which, last in laforgue.HORIZONS.items():
        methods = [*laforgue.PLANNERS, *laforgue.LEARNERS[: 3 if which == "main" else 2]]
        lengths = laforgue.LENGTHS[which]
        rewards = np.sort(rng.random((4, len(methods), 3)) * last / 2)
        data[f"reward_{which}"] = (("seed", f"method_{which}", f"round_{which}"), rewards)
        data |= {f"optimum_{which}": ((), 0.5), f"relaxation_{which}": ((), 0.5)}
        data[f"block_{which}"] = ((f"length_{which}",), rng.random(len(lengths)))
        coords |= {f"method_{which}": methods, f"round_{which}": [60, 120, last], f"length_{which}": list(lengths)}
    data = xr.Dataset(data, coords)
    found = drawn(laforgue, data, 4)
    assert np.isnan(found["total, CS-worst, main"].value)
    ours = data["reward_supplement"].sel(method_supplement="greedy").values[:, -1]
    assert found["greedy with known payoffs, total, supplement"].value == pytest.approx(ours.mean())


@pytest.mark.slow
def test_laforgues_experiments():
    data = laforgue.run(laforgue.Config(num_seeds=2, everything=False))
    assert data["reward_main"].sizes == {"seed": 2, "method_main": 5, "round_main": 60}
    for which, length in laforgue.HORIZONS.items():
        payoffs = np.asarray(laforgue.problem_of(which).payoffs)
        end = data[f"reward_{which}"].isel({f"round_{which}": -1})
        np.testing.assert_allclose(end.sel({f"method_{which}": "greedy"}), by_greed(payoffs, length), rtol=1e-12)
        optimum = end.sel({f"method_{which}": "optimal"})
        assert abs(optimum.values - length * data[f"optimum_{which}"].item()).max() <= 5
    drawn(laforgue, data, 4)


@pytest.mark.parametrize("family", [*approximation.MONOTONE, *approximation.OTHERS])
def test_members_of_the_profile_are_of_their_class(family):
    # Tables are drawn depth by depth, each of which compiles.
    count = 2 if family in approximation.TABLES else 24
    keys = jax.random.split(jax.random.key(3), count)
    payoffs = np.asarray(jax.jit(lambda keys: approximation.draw(family, keys, 3))(keys))
    assert payoffs.shape == (count, 3, 8) and payoffs.min() >= 0 and payoffs.max() <= 1
    rising = np.all(np.diff(payoffs, axis=2) >= 0, axis=(1, 2))
    assert rising.all() if family in approximation.MONOTONE else not rising.any()
    assert len(np.unique(payoffs.reshape(count, -1), axis=0)) >= min(count, 20)


def test_depths_are_padded_without_changing_the_problem():
    for problem in (uniform(jax.random.key(0), 3, 2, 1), momentum(2, 3)):
        deeper = SwitchingBandit(approximation._embed(problem), approximation.SATIATION)
        wider = SwitchingBandit(assumptions._pad(problem), assumptions.SATIATION)
        values = [cycle_programme(x).value for x in (deeper, wider, problem)]
        # vertices of HiGHS
        np.testing.assert_allclose(values[:2], values[2], atol=1e-9)


def test_the_approximation_profile_measures_and_draws():
    rng = np.random.default_rng(0)
    rows = ("value", "optimum", "greedy", "advantage", "real", "certified", "reward", "error", "best_draw")
    data = xr.Dataset(
        {name: (("family", "instance"), 0.5 + rng.random((4, 6)) / 2) for name in rows},
        {"family": [*approximation.TABLES, "spike"], "arms": ("instance", [2, 2, 3, 3, 4, 4])},
    )
    found = drawn(approximation, data, 4)
    here = data.sel(family="spike")
    assert found["worst reward / V, spike"].value == pytest.approx(float((here["reward"] / here["value"]).min()))
    share = [float(alpha(k)) for k in (2, 2, 3, 3, 4, 4)]
    here = data.isel(family=slice(0, 3))
    assert found["mean of mean reward / (alpha V), tables"].value == pytest.approx(
        np.mean(here["reward"].values / here["value"].values / np.array(share)[None, :])
    )
    few = approximation.measured(data.isel(family=[0, 3]))
    assert np.isnan(few["mean of optimum / V, tables"].value)  # one family of three


@pytest.mark.slow
def test_the_approximation_profile():
    config = approximation.Config(num_instances=4, arms=(2,), horizon=40, draws=6, families=("uniform", "momentum"))
    data = approximation.run(config)
    assert data["reward"].sizes == {"family": 2, "instance": 4}
    assert np.all(data["optimum"] <= data["value"] + 1e-12) and np.all(data["certified"] <= data["value"] + 1e-12)
    tables = data.sel(family="uniform")
    assert np.all(tables["certified"] >= float(alpha(2)) * tables["value"] - 1e-12)
    payoffs = approximation.draw("uniform", jax.random.split(jax.random.key(0), 4), 2)
    problem = SwitchingBandit(payoffs[2], approximation.SATIATION)
    planner, warm = RandomPhase(relaxation(problem)), approximation.WARM
    keys = jax.random.split(jax.random.key(2), 6)
    trace = jax.jit(jax.vmap(lambda key: simulate(problem, planner, warm + 40, key).trace))(keys)
    rewards = np.asarray(trace)[:, warm:].mean(axis=1)
    # differences of sums of a hundred payoffs
    np.testing.assert_allclose(tables["reward"].isel(instance=2), rewards.mean(), rtol=1e-12)
    np.testing.assert_allclose(tables["best_draw"].isel(instance=2), rewards.max(), rtol=1e-12)
    drawn(approximation, data, 2)


def test_identical_arms_earn_their_distinct_phases():
    problem, plan = tightness.identical(4, 4, 6, 7)
    np.testing.assert_array_equal(problem.payoffs[:4, :4], tight(4).payoffs)
    assert not np.any(problem.payoffs[4:]) and np.all(problem.payoffs[:4, 4:] == 1)
    planner = RandomPhase(plan)
    for seed in range(5):
        key = jax.random.key(seed)
        phases = planner.init(problem, jax.random.split(key)[0]).phases
        distinct = len(set(np.asarray(phases.phase)[:4].tolist()))
        assert float(simulate(problem, planner, 8, key, observe=None).total) == 2 * distinct


def test_tightness():
    config = tightness.Config(most_arms=5, every=3, plays=(2,), replicas=400, num_random=5, random_arms=6)
    data = tightness.run(config)
    np.testing.assert_array_equal(data["arms"], [2, 3, 4, 5])
    for name, exact, dim in (("reward", "alpha", "arms"), ("reward_by_plays", "alpha_by_plays", "plays")):
        spread = data[name].std("replica") / 20
        # five standard errors, five means
        assert np.all(abs(data[name].mean("replica") - data[exact]) <= 5 * spread), dim
    assert np.all(data["guarantee"] >= data["alpha_random"] - 1e-12)
    drawn(tightness, data, 2)


def test_plans_by_hand_are_worth_what_the_specification_says():
    worth = {name: assumptions.planned(problem, cycles) for name, problem, cycles in assumptions.cases()}
    for name, value in worth.items():
        if name.startswith("interrupter"):
            epsilon = float(name.split()[2].rstrip(","))
            np.testing.assert_allclose(value, 1 / 40 + epsilon / 2, rtol=1e-12)
        elif name.startswith("momentum"):
            np.testing.assert_allclose(value, 0.1, rtol=1e-12)
    for delays in assumptions.SPIKES:
        rate = sum(1 / d for d in delays)
        np.testing.assert_allclose([worth[f"{x} {delays}"] for x in ("steps", "spikes")], rate, rtol=1e-12)
    assert assumptions._equal_offsets(4, 41) == 0.25


def test_the_padded_schedules_are_the_plain_ones():
    config = dataclasses.replace(assumptions.QUICK, replicas=3, horizon=60)
    for problem, cycles in ((spike((2, 3, 6)), [(1, 1), (2, 1), (5, 1)]), (interrupter(4), [(20, 20), *[(7, 1)] * 4])):
        plan = assumptions.schedule_of(cycles)
        padded = jax.tree.map(lambda x: x[None], (assumptions._pad(problem), plan))
        ours = np.asarray(assumptions._rewards(*padded, config, "random phases"))[0]
        wide = SwitchingBandit(padded[0][0], assumptions.SATIATION)
        for key, value in zip(jax.random.split(jax.random.key(0), 3), ours, strict=True):
            planner = RandomPhase(plan)
            phases = planner.init(wide, jax.random.split(key)[0]).phases
            arms, rounds = np.arange(len(cycles)), assumptions.WARM + 60
            state = np.full(len(cycles), 99)  # rounds since the last play, or minus the plays in a row
            phase, total = np.asarray(phases.phase)[: len(cycles)].copy(), 0.0
            payoffs, low = np.asarray(problem.payoffs), problem.satiation
            for t in range(rounds):
                idle, run = np.array(cycles).T
                asks = phase >= idle
                virtual = np.where(phase == idle, low + np.minimum(idle, problem.recovery) - 1, low - (phase - idle))
                score = np.where(asks, payoffs[arms, np.clip(virtual, 0, payoffs.shape[1] - 1)], -1)
                played = asks & (arms == np.argmax(score))
                real = np.where(state > 0, low + np.minimum(state, problem.recovery) - 1, np.maximum(low + state, 0))
                if t >= assumptions.WARM:
                    total += payoffs[arms, real][played].sum()
                state = np.where(played, np.where(state > 0, -1, state - 1), np.where(state > 0, state + 1, 1))
                phase = (phase + 1) % (idle + run)
            np.testing.assert_allclose(value, total / 60, atol=1e-12)


def test_assumptions_measure_and_draw():
    rng = np.random.default_rng(0)
    todo = [name for name, _, _ in assumptions.cases()]
    cut = [name for name in todo if name.startswith("interrupter")]
    names = [f"{name}, random phases" if name in cut else name for name in todo] + [f"{x}, stretched" for x in cut]
    n = len(names)
    data = xr.Dataset(
        {
            "ratio": (("case",), rng.random(n)),
            "error": (("case",), rng.random(n) / 50),
            "promised": (("case",), rng.random(n)),
            "in_step": ((), 0.25),
            "good_or_bad": (("coupling", "moment"), rng.random((2, 2))),
            "restless": (("instance", "coupling", "moment"), rng.random((3, 2, 2))),
            "slow_value": ((), 0.5),
            "slow_finite": (("rounds",), np.arange(1.0, 13)),
            "believed": (("table",), 1 + rng.random(4)),
            "true": (("table",), np.ones(4)),
        },
        {
            "case": names, "coupling": ["mirrored", "independent"], "moment": ["mean", "error"],
            "rounds": np.arange(1, 13),
        },
        {"replicas": 10},
    )  # fmt: skip
    drawn(assumptions, data, 3)


def test_what_both_schedules_keep():
    problem = blocking((3, 4, 5, 5))
    by_order, by_phase, value = (float(x) for x in interleaving.kept(problem))
    np.testing.assert_allclose(value, 1 / 3 + 1 / 4 + 2 / 5, rtol=1e-13)
    # all virtual plays pay 1: the chance that somebody asks
    np.testing.assert_allclose(by_phase * value, 1 - (2 / 3) * (3 / 4) * (4 / 5) ** 2, rtol=1e-13)
    assert abs(by_order - 0.752) < 0.006  # the prototype's simulation
    problem, rates, planned = interleaving.tight(3)
    np.testing.assert_allclose(np.sum(rates), 1, rtol=1e-15)
    assert planned == rates[0] * problem.payoffs[0, 1]


def test_interleaving_measures_and_draws():
    rng = np.random.default_rng(0)
    families = [*interleaving.CONCAVE, *interleaving.STEPS]
    data = xr.Dataset(
        {
            "interleaved": (("instance", "family"), rng.random((5, 4))),
            "random_phases": (("instance", "family"), rng.random((5, 4))),
            "simulated": (("instance_simulated",), rng.random(2)),
            "error": (("instance_simulated",), rng.random(2)),
            "steps": (("delays", "schedule"), rng.random((3, 2))),
            "bare": ((), 0.2),
            "tight": ((), 0.8),
        },
        {
            "family": families, "delays": [str(d) for d in interleaving.STEP_DELAYS],
            "schedule": ["interleaved", "random phases"],
        },
        {"alpha": 0.665, "arms": 6},
    )  # fmt: skip
    drawn(interleaving, data, 4)


def test_short_horizons():
    data = horizon.run(horizon.Config(horizon=50, num_instances=3))
    assert data["total"].sizes == {"instance": 3, "start": 2, "rounds": 50}
    found = drawn(horizon, data, 2)
    for name, theirs in horizon.REFERENCES.items():
        # totals of 50 rounds, printed exactly but for the long-run optimum
        assert abs(found[name].value - theirs.value) <= theirs.error + 1e-12, name
    assert np.all(horizon._excess(data) <= 1 + 1e-12)


def test_pinwheels():
    data = pinwheel.run(pinwheel.Config(longest=4, most_arms=3))
    assert data.sizes["instance"] == 6 + 10
    found = drawn(pinwheel, data, 2)
    for delays in ((2, 4, 4), (3, 3, 3)):
        assert found[f"optimum, D = {delays}"].value == pytest.approx(1, abs=1e-12)
    assert np.isnan(found["optimum, D = (2, 3, 6)"].value)
    assert found["instances of density 1"].value == 3  # and (2, 2)
    # arms of periods 2 and 3 collide: three plays in four rounds at best, of 5/6
    assert data["lower"].sel(instance="(2, 3)").item() == pytest.approx(0.75, abs=1e-12)


def test_learning_measures_and_draws():
    rng = np.random.default_rng(0)
    names = [*learning.UCB, *learning.OTHERS]
    data = xr.Dataset(
        {
            "reward": (("algorithm", "seed", "round"), np.cumsum(rng.random((5, 3, 4)), axis=2) * 100),
            "total": (("seed", "instance", "confidence", "length"), rng.random((3, 2, 2, 2)) * 100),
            "known": (("instance", "length"), 0.5 + rng.random((2, 2))),
            "known_error": (("instance", "length"), rng.random((2, 2)) / 1000),
            "value": (("instance", "length"), 0.5 + rng.random((2, 2))),
            "optimum": ((), 0.67),
            "broken": (("case", "broken_length"), rng.random((3, 2))),
            "broken_error": (("case", "broken_length"), rng.random((3, 2))),
        },
        {
            "algorithm": names, "round": [50, 100, 150, 200], "confidence": [1.0, 0.3], "length": [2_000, 8_000],
            "case": [f"{payoffs}, {monotone}" for payoffs, monotone in learning.SPIKES],
            "broken_length": [8_000, 32_000],
        },
    )  # fmt: skip
    found = drawn(learning, data, 3)
    here = data["broken"].sel(case="spikes, False", broken_length=8_000).item()
    assert found[learning._spike_name("spikes", False, 8_000)].value == here
    regret = (data["known"] * data["length"] - data["total"]).isel(instance=0).sel(confidence=0.3, length=8_000)
    assert found["counterpart regret, MV-UCB, confidence 0.3, T = 8000"].value == pytest.approx(regret.mean().item())
    assert np.isnan(found["counterpart regret, MV-UCB, confidence 0.3, T = 128000"].value)
    # Regrets c sqrt(T) have the slope 1/2, those that grow like T have 1; what the seeds do not share is its error.
    t = data["length"].values
    known, total = np.full((2, 2), 0.5), np.zeros((3, 2, 2, 2))
    total[:, :, 0] = 0.5 * t - np.array([2.0, 3.0])[:, None] * np.sqrt(t)
    total[:, :, 1] = 0.5 * t - 0.1 * t
    exact = data.assign(known=(("instance", "length"), known), known_error=0.0 * data["known_error"])
    exact = exact.assign(total=(data["total"].dims, total))
    for i, slope in enumerate((0.5, 1.0)):
        for which in ("Q", "mean of random"):
            name = f"slope of log counterpart regret, {learning.UCB[i]}, {which}"
            # logarithms of numbers of four digits' difference
            assert learning.measured(exact)[name].value == pytest.approx(slope, abs=1e-12)
    rows = {row["quantity"]: row for row in table(learning.REFERENCES, learning.measured(exact))}
    verdicts = [rows[f"slope of log counterpart regret, {name}, Q"]["verdict"] for name in learning.UCB]
    assert verdicts == ["agrees", "DIFFERS"]
    exact["total"][:, 0, 0, 1] += np.array([-80.0, 0.0, 80.0])  # standard error 80 / sqrt(3) at the longer of two
    error = learning.measured(exact)[f"slope of log counterpart regret, {learning.UCB[0]}, Q"].error
    assert error == pytest.approx(2 * 80 / np.sqrt(3) / (2 * np.sqrt(8_000)) / np.log(4), rel=1e-9)
    few = learning.measured(data.drop_vars(["broken", "broken_error", "case", "broken_length"]).isel(length=[1]))
    assert np.isnan(few[learning._spike_name("spikes", True, 8_000)].value)


@pytest.mark.slow
def test_learning(monkeypatch):
    monkeypatch.setattr(learning, "OTHERS", ("UCB-greedy",))
    monkeypatch.setattr(learning, "POINTS", 5)
    config = learning.Config(
        horizon=100, num_seeds=3, horizons=(100, 200), num_random=1, spike_horizons=(), known_draws=4
    )
    data = learning.run(config)
    assert data["reward"].sizes == {"algorithm": 3, "seed": 3, "round": 5}
    assert data["total"].sizes == {"seed": 3, "instance": 2, "confidence": 2, "length": 2}
    # the curve's end is the total of a run, and both sweeps make the same one
    ends = data["reward"].isel(round=-1).sel(algorithm="MV-UCB, confidence 0.3")
    np.testing.assert_allclose(ends, data["total"].sel(length=100, confidence=0.3).isel(instance=0), rtol=1e-12)
    run = learn(reference(), VirtualUCB(100, 0.3), 100, jax.random.key(1), observe=None)
    np.testing.assert_allclose(ends.isel(seed=1), run.total, rtol=1e-12)
    np.testing.assert_allclose(data["value"].isel(instance=0), 0.68, rtol=1e-12)
    found = drawn(learning, data, 3)
    assert np.isnan(found[learning._spike_name("spikes", True, 8000)].value)


def test_scaling():
    data = scaling.run(scaling.Config(arms=(3, 6), recovery=3, satiation=2, limit=9.0, repeats=1))
    assert float(data["difference"].max()) < 1e-9 and np.all(data["HiGHS"] > 0) and np.all(data["dual"] > 0)
    drawn(scaling, data, 2)
    assert np.isnan(scaling.run(scaling.Config((3, 4), 2, 2, limit=0.0, repeats=1))["HiGHS"]).all()
