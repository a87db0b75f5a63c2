"""EM for kinds of annotators: monotone, exact on known cases, padding that says nothing, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.nash import (
    RewardEM,
    annotator_pairs,
    annotator_wins,
    bradley_terry,
    fit_reward_mixture,
    observe_objective,
)
from rlcore.solver import CONVERGED, STEP_LIMIT, iterate

REWARDS = np.array([[3.0, 1.0, -1.0, -3.0], [-3.0, 1.0, 3.0, -1.0]])


def labelled(seed, kinds, count=30, rewards=REWARDS):
    """Lists of comparisons of annotators of the given kinds, of different lengths."""
    rng = np.random.default_rng(seed)
    lists = []
    for h, kind in enumerate(kinds):
        first, second = rng.integers(0, rewards.shape[1], (2, count + h % 3))
        win = 1 / (1 + np.exp(rewards[kind][second] - rewards[kind][first]))
        lists.append((first, second, (rng.random(first.size) < win).astype(float)))
    return lists


KINDS = np.array([0] * 8 + [1] * 4)
WINS = annotator_wins(annotator_pairs(labelled(0, KINDS), 4), 4)


def test_padding_and_comparisons_with_oneself_say_nothing():
    lists = [([0, 1, 2], [1, 2, 2], [1.0, 0.25, 1.0]), ([3], [0], [1.0])]
    pairs = annotator_pairs(lists, 4)
    assert pairs.first.shape == (2, 3) and pairs.first.dtype == jnp.int32
    expected = np.zeros((2, 4, 4))
    expected[0, 0, 1], expected[0, 1, 2], expected[0, 2, 1], expected[1, 3, 0] = 1.0, 0.25, 0.75, 1.0
    np.testing.assert_array_equal(annotator_wins(pairs, 4), expected)


@pytest.mark.parametrize("hard", [False, True])
def test_the_objective_never_falls_and_is_what_it_says(hard):
    solver = RewardEM(2, hard)
    state, trace = iterate(solver, WINS, 40, key=jax.random.key(1), observe=observe_objective)
    # sums of 12 annotators' log-likelihoods, about 100 nats
    assert np.all(np.diff(trace) >= -64 * 2.0**-52 * 200) and trace[-1] > trace[0] + 10
    log_win = -np.logaddexp(0, state.rewards[:, None, :] - state.rewards[:, :, None])
    joint = np.asarray(state.log_shares)[None] + np.einsum("hij,uij->hu", WINS, log_win)
    likelihood = joint.max(1) if hard else np.logaddexp(*joint.T)
    expected = likelihood.sum() - 1e-3 * np.sum(np.asarray(state.rewards) ** 2)
    np.testing.assert_allclose(state.objective, expected, rtol=1e-13)


def test_clear_kinds_are_found_whatever_the_seed():
    for hard in (False, True):
        fit = fit_reward_mixture(WINS, 2, jax.random.key(2), hard=hard)
        assert fit.status == CONVERGED and fit.state.objective == np.max(fit.objectives)
        found = np.argmax(fit.responsibilities, axis=1)
        assert np.all(found == KINDS) or np.all(found == 1 - KINDS)
        np.testing.assert_allclose(np.sort(np.exp(fit.state.log_shares)), [1 / 3, 2 / 3], rtol=0, atol=1e-3)
    # Memberships that are certain leave two separate Bradley-Terry fits.
    for u in range(2):
        alone = bradley_terry(jnp.sum(WINS[found == u], axis=0))
        np.testing.assert_allclose(fit.state.rewards[u], alone.value, rtol=0, atol=2 * alone.bound)


def test_a_stationary_point_has_no_gradient():
    fit = fit_reward_mixture(WINS, 2, jax.random.key(3), tol=1e-13)

    def objective(parameters):
        shares, rewards = parameters
        return RewardEM(2).start(WINS, jax.nn.log_softmax(shares), rewards).objective

    gradient = jax.grad(objective)((fit.state.log_shares, fit.state.rewards))
    # The last step gained less than 1e-13 of a smooth function: its gradient is about the root of that.
    assert all(np.max(np.abs(g)) < 1e-5 for g in gradient)


def test_one_group_is_bradley_terry():
    fit = fit_reward_mixture(WINS, 1, jax.random.key(0), restarts=1)
    alone = bradley_terry(jnp.sum(WINS, axis=0))
    np.testing.assert_allclose(fit.state.rewards[0], alone.value, rtol=0, atol=2 * alone.bound)
    np.testing.assert_array_equal(fit.responsibilities, 1.0)


def test_annotators_in_another_order_have_the_same_likelihood():
    order = np.array([5, 0, 11, 3, 8, 1, 2, 10, 4, 9, 7, 6])
    one, other = (fit_reward_mixture(wins, 2, jax.random.key(4)) for wins in (WINS, WINS[order]))
    # Each run stops within about 1e-10 / (1 - contraction) of its limit.
    np.testing.assert_allclose(one.state.objective, other.state.objective, rtol=0, atol=1e-7)
    # Restarts that find the same limit under other names of the groups tie but for rounding.
    named = min(
        (one.responsibilities[order], one.responsibilities[order][:, ::-1]),
        key=lambda x: np.abs(x - other.responsibilities).max(),
    )
    np.testing.assert_allclose(named, other.responsibilities, rtol=0, atol=1e-5)


def test_fits_vmap_and_tell_when_they_stop_early():
    fits = jax.vmap(lambda key: fit_reward_mixture(WINS, 2, key, max_steps=2))(jax.random.split(jax.random.key(0), 2))
    assert np.all(fits.status == STEP_LIMIT) and np.all(fits.steps == 2)


def test_bad_input():
    good = ([0, 1], [1, 2], [1.0, 0.0])
    with pytest.raises(ValueError, match="annotators: found none"):
        annotator_pairs([], 3)
    with pytest.raises(ValueError, match=r"annotators\[1\]: pairs: found no pairs"):
        annotator_pairs([good, (np.zeros(0, int), np.zeros(0, int), np.zeros(0))], 3)
    with pytest.raises(ValueError, match=r"annotators\[1\]: second: found indices in \[1, 3\], expected \[0, 3\)"):
        annotator_pairs([good, ([0, 1], [1, 3], [1.0, 0.0])], 3)
    with pytest.raises(ValueError, match=r"annotators\[0\]: label: found values"):
        annotator_pairs([([0], [1], [2.0])], 3)
    with pytest.raises(TypeError, match=r"annotators\[0\]: first: found float64"):
        annotator_pairs([([0.0], [1], [1.0])], 3)
    with pytest.raises(ValueError, match=r"annotators\[0\]: found int, expected \(first, second, label\)"):
        annotator_pairs([3], 3)
    for name in ("num_groups", "restarts"):
        with pytest.raises(ValueError, match=f"{name}: found 0"):
            fit_reward_mixture(WINS, **{"num_groups": 2, "restarts": 5, name: 0}, key=jax.random.key(0))
