"""The report in words: what it says must be what `verify` finds."""

import jax
import jax.numpy as jnp
import pytest

from envs.linear_mdps import random_linear_mdp
from rlcore.robust import lower_bound, r2pvi, report, rewards, sample_trajectories, table, verify

MODEL = random_linear_mdp(jax.random.key(1), 4, 3, 3, 3, zeros=0.0)
UNIFORM = jnp.full((3, 4, 3), 1 / 3)
DATA = sample_trajectories(jax.random.key(2), MODEL, UNIFORM, 200)
SPACE = table(MODEL.features, MODEL.reward_weights)


def learn(penalty, ridge=1.0):
    return r2pvi(DATA, SPACE, None, "tv", 0.5, penalty, ridge)


def test_on_the_event_everything_is_promised_and_holds():
    learned = learn(1.0)
    found, text = verify(MODEL, learned, "tv", 0.5), report(MODEL, learned, "tv", 0.5, num_trajectories=200)
    assert bool(found.event) and jnp.all(rewards(MODEL) >= 0)
    event, order, bounds, least = text.splitlines()
    assert event.startswith("event, every weight within its penalty of the truth: yes")
    assert order.endswith("(holds)") and bounds.endswith("(holds)")
    for value in (found.estimate, found.policy_value, found.optimum):
        assert f"{float(MODEL.initial @ value):.4g}" in order
    for value in (found.suboptimality, found.upper, found.upper_ball):
        assert f"{float(MODEL.initial @ value):.4g}" in bounds
    # d = 3 features hide one sign a step
    assert f"{float(lower_bound(1, 3, 200)):.3g} <= " in least


def test_off_the_event_nothing_was_promised():
    text = report(MODEL, learn(1e-4, 1e-6), "tv", 0.5, num_trajectories=20)
    event, order, _, least = text.splitlines()
    assert "truth: no (least margin -" in event
    assert "fails, and was not promised" in order
    # K >= d^3 max(1/2, 1.05 H^2 / level^2) = 37.8
    assert least == "lower bound for every learner: none at 20 trajectories, it asks for 37.8"


def test_no_bound_over_a_ball_where_there_is_none():
    from rlcore.robust import HELLINGER

    learned = r2pvi(DATA, SPACE, None, HELLINGER, 0.5, 1.0, centred=True)
    assert report(MODEL, learned, HELLINGER, 0.5).splitlines()[2].count("<=") == 3
    with pytest.raises(ValueError, match="learned: found weights and values of shapes"):
        report(random_linear_mdp(jax.random.key(1), 4, 3, 2, 3), learned, "tv", 0.5)
