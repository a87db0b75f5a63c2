"""The choice of a planner, its best draw and its certificate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.restless_bandits import persistent, restless_monotone
from envs.switching_bandits import tight
from rlcore.lsd import (
    Greedy,
    Interleaved,
    MarkovSchedule,
    RandomPhase,
    alpha,
    best_of,
    candidates,
    certify,
    dual_price,
    from_delays,
    from_tables,
    markov_schedule,
    minorant,
    occupation_programme,
    plan,
    poisson_alpha,
    random_phase,
    relaxation,
    replicate,
    simulate,
)
from rlcore.pytree import pytree

Q = from_tables(
    [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]],
    [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]],
    payoff_class="monotone",
)
KEY = jax.random.key(0)


def test_the_class_decides():
    rng = np.random.default_rng(0)
    concave = from_delays(np.cumsum(-np.sort(-(rng.random((3, 4)) ** 3)), axis=1) / 4, payoff_class="monotone")
    assert isinstance(plan(Q), RandomPhase)
    chosen = plan(concave)
    assert isinstance(chosen, Interleaved)
    assert chosen.guarantee(concave) >= (1 - 1 / (2 * np.e)) * relaxation(concave).value
    # a step is not concave: random phases keep alpha, interleaving need not
    step = from_delays(1.0 * (np.arange(1, 7)[None] >= np.array([2, 3, 6])[:, None]), payoff_class="monotone")
    assert plan(step).guarantee(step) >= alpha(3) * relaxation(step).value
    anything = from_tables(rng.random((3, 4)), rng.random((3, 2)))
    names = candidates(anything)
    assert set(names) == {"random_phase", "stretched", "coupled"} and set(candidates(Q)) == {"random_phase"}
    best = plan(anything).guarantee(anything)
    assert best == max(float(x.guarantee(anything)) for x in names.values())
    assert set(candidates(anything, 2)) == {"random_phase"} and plan(Q, 2).plays == 2
    # runs that pay in their course alone are left to the stretched schedule
    hill = from_tables(np.zeros((2, 2)), [[0.0, 1.0, 0.0]] * 2)
    assert type(plan(hill)).__name__ == "Stretched"
    spikes = from_tables([[0.0, 1.0, 0.0]] * 2, np.zeros((2, 2)))
    assert type(plan(spikes)).__name__ == "Coupled"


def test_best_draw_is_deterministic_and_no_worse_than_the_mean():
    planner = random_phase(Q)
    best = best_of(Q, planner, 200, 300, KEY)
    assert best.values.shape == (200,) and best.value == jnp.max(best.values) >= jnp.mean(best.values)
    for seed in (1, 2):
        again = simulate(Q, best.planner, 300, jax.random.key(seed)).total / 300
        np.testing.assert_allclose(again, best.value, rtol=1e-14)
    # the mean over draws is the planner's
    assert abs(jnp.mean(best.values) - 0.5878) < 4 * jnp.std(best.values) / 200**0.5 + 5e-3


def test_certificate():
    found = certify(Q, random_phase(Q), 300, 400, KEY)
    np.testing.assert_allclose([found.upper, found.guaranteed], [0.68, 0.533], rtol=0, atol=1e-12)
    assert found.guaranteed - 4 * found.error <= found.mean <= found.upper * (300 + 4) / 300
    # the reference instance's optimum, 101 / 150, which Howard's method encloses to a few roundings
    assert found.lower_optimum <= 101 / 150 <= found.upper_optimum < found.lower_optimum + 1e-12
    large = tight(10)
    unknown = certify(large, random_phase(large), 10, 2, KEY)
    assert jnp.isnan(unknown.lower_optimum) and jnp.isnan(unknown.upper_optimum)
    known = certify(Q, random_phase(Q), 300, 400, KEY, optimum=(0.6733, 0.6734))
    assert (known.lower_optimum, known.upper_optimum, known.mean) == (0.6733, 0.6734, found.mean)
    values = replicate(Q, random_phase(Q), 300, 400, KEY)
    np.testing.assert_allclose(found.error, np.std(values, ddof=1) / 20, rtol=1e-12)
    two = certify(Q, random_phase(Q, 2), 300, 400, KEY)
    assert two.guaranteed >= poisson_alpha(2) * two.upper and two.upper > found.upper

    # any planner can be certified; without a proof its guarantee is not a number
    @pytree
    class First:
        def init(self, problem, key):
            return ()

        def act(self, problem, state, local, t, key):
            return jnp.arange(3) == 0, ()

    other = certify(Q, First(), 300, 2, KEY, upper=1.0)
    assert jnp.isnan(other.guaranteed) and other.upper == 1 and other.error == 0
    np.testing.assert_allclose(other.mean, (0.9 + 0.3 + 298 * 0.1) / 300, rtol=1e-12)


@pytest.mark.parametrize("plays", [1, 2])
def test_one_call_plans_and_certifies_where_recovery_takes_a_runs_length(plays):
    slow = dataclasses.replace(Q, idle_rule="decrement")
    chosen = plan(slow, plays)
    assert isinstance(chosen, MarkovSchedule) and set(candidates(slow, plays)) == {"markov"}
    found = certify(slow, chosen, 300, 400, KEY)
    # the dual, by policy iteration on single arms, shares no code with the programme of the certificate
    np.testing.assert_allclose(found.upper, dual_price(slow, plays)[1], rtol=0, atol=1e-9)
    assert found.guaranteed >= alpha(3, plays) * found.upper - 1e-9
    assert found.guaranteed - 4 * found.error <= found.mean <= found.upper * (300 + 4 + 2 - 1) / 300
    assert found.guaranteed <= found.lower_optimum <= found.upper_optimum <= found.upper
    # payoffs of any kind: planned and ranked by the largest monotone ones below them
    rng = np.random.default_rng(2)
    anything = from_tables(rng.random((3, 4)), rng.random((3, 2)), idle_rule="decrement")
    chosen = plan(anything, plays)
    assert np.all(np.asarray(chosen.scores) <= np.asarray(anything.payoffs))
    least = minorant(anything, "monotone")
    found = certify(anything, chosen, 300, 400, KEY)
    assert found.guaranteed >= alpha(3, plays) * occupation_programme(least, plays).value - 1e-9
    assert found.guaranteed - 4 * found.error <= found.mean and found.upper >= found.upper_optimum


def schedule_of(arms, plays=1):
    return markov_schedule(occupation_programme(arms, plays).occupancy, plays)


def test_restless_arms_are_certified():
    arms = persistent()
    found = certify(arms, schedule_of(arms), 300, 400, KEY)
    # V = 1, and 3/4 is what both the chains and optimal play earn: some arm is good
    np.testing.assert_allclose([found.upper, found.guaranteed], [1, 0.75], rtol=0, atol=1e-9)
    assert found.upper >= 1 and found.lower_optimum <= 0.75 <= found.upper_optimum < found.lower_optimum + 1e-8
    assert abs(found.mean - 0.75) <= 4.5 * found.error
    for seed, plays in ((0, 1), (1, 2)):
        arms = restless_monotone(jax.random.key(seed), 3, 4)
        found = certify(arms, schedule_of(arms, plays), 300, 400, KEY)
        assert alpha(3, plays) * found.upper - 1e-9 <= found.guaranteed <= found.upper_optimum
        assert found.guaranteed - 4 * found.error <= found.mean
        assert found.lower_optimum <= found.upper_optimum <= found.upper
    large = restless_monotone(KEY, 5, 4)
    assert jnp.isnan(certify(large, schedule_of(large), 5, 2, KEY).lower_optimum)


def test_bad_input():
    with pytest.raises(ValueError, match=r"replicas: found 1, expected at least 2"):
        certify(Q, random_phase(Q), 10, 1, KEY)
    with pytest.raises(ValueError, match=r"replicas: found 0, expected an integer of at least 1"):
        replicate(Q, random_phase(Q), 10, 0, KEY)
    must = dataclasses.replace(Q, allow_idle=False)
    with pytest.raises(ValueError, match=r"must-play"):
        plan(must)
    with pytest.raises(ValueError, match=r"must-play"):
        replicate(must, random_phase(Q), 10, 4, KEY)
    with pytest.raises(ValueError, match=r"plays: found 4, expected an integer in \[1, 3\]"):
        plan(Q, 4)
    with pytest.raises(ValueError, match=r"must-play|allow_idle=False"):
        plan(dataclasses.replace(must, idle_rule="decrement"))
    arms = persistent()
    with pytest.raises(ValueError, match=r"planner: found Greedy, expected a MarkovSchedule"):
        replicate(arms, Greedy(), 10, 4, KEY)
    with pytest.raises(ValueError, match=r"planner: found MarkovSchedule with fixed=True"):
        replicate(arms, schedule_of(arms), 10, 4, KEY, fixed=True)
