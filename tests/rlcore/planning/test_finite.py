"""Backward induction against enumeration of every policy and of every trajectory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.mdp import dense, greedy_policy, sticky, uniform_policy
from rlcore.planning import backward_induction, policy_return

H, S, A = 3, 3, 2


def expected_return(mdp, rule, state, t, before=None, stick=0.0):
    """Return from `state` at step t under `rule(t, state, before) -> action probabilities`, by recursion over paths."""
    if t == H:
        return 0.0
    total = 0.0
    kernel = [
        np.asarray(x[t] if mdp.prob.ndim == 4 else x) for x in (mdp.next_state, mdp.prob, mdp.reward, mdp.terminal)
    ]
    for chosen, weight in enumerate(rule(t, state, before)):
        sticking = stick if t > 0 else 0.0
        for executed, share in ((chosen, 1 - sticking), (before, sticking)):
            if weight * share == 0:
                continue
            for n, p, r, end in zip(*(x[state, executed] for x in kernel), strict=True):
                later = 0.0 if end else expected_return(mdp, rule, n, t + 1, executed, stick)
                total += weight * share * p * (r + float(mdp.discount) * later)
    return total


# Paths multiply at most 3 probabilities and add at most 6^3 terms of size one: 1e-13 leaves room.
close = dict(rtol=0, atol=1e-13)


def problem(oracle, varying, **kwargs):
    return oracle.make_problem(1, (H, S, A, 2) if varying else (S, A, 2), ends=0.2, horizon=H, **kwargs)


@pytest.mark.parametrize("varying", [False, True])
def test_best_and_worst_over_every_policy(oracle, varying):
    mdp = problem(oracle, varying, masked=True)
    choices = [np.flatnonzero(row) for _ in range(H) for row in np.asarray(mdp.available)]
    returns = []
    for table in itertools.product(*choices):
        rule = lambda t, s, b, table=table: np.eye(A)[table[t * S + s]]  # noqa: E731
        returns.append([expected_return(mdp, rule, s, 0) for s in range(S)])
    for twin in (mdp, dense(mdp)):
        np.testing.assert_allclose(backward_induction(twin, "max").value[0], np.max(returns, axis=0), **close)
        np.testing.assert_allclose(backward_induction(twin, "min").value[0], np.min(returns, axis=0), **close)
    best = backward_induction(mdp)
    actions = jnp.stack([greedy_policy(q, mdp.available) for q in best.q])
    np.testing.assert_allclose(backward_induction(mdp, actions).value, best.value, **close)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("stick", [None, 0.0, 0.3])
def test_policies_over_every_path(oracle, varying, stick):
    mdp = problem(oracle, varying)
    view = mdp if stick is None else sticky(mdp, stick)
    size = S if stick is None else S * A
    table = np.random.default_rng(0).dirichlet(np.ones(A), (H, size))

    def rule(t, s, before):
        return table[t, s if stick is None else s * A + (0 if before is None else before)]

    exact = [expected_return(mdp, rule, s, 0, None, stick or 0.0) for s in range(S)]
    values = jax.jit(backward_induction)(view, jnp.asarray(table))
    np.testing.assert_allclose(values.value[0][:: 1 if stick is None else A], exact, **close)
    np.testing.assert_allclose(policy_return(view, jnp.asarray(table)), np.mean(exact), **close)
    fixed = backward_induction(view, jnp.asarray(table[0]))
    np.testing.assert_allclose(fixed.value, backward_induction(view, jnp.asarray(table[[0] * H])).value, **close)


def test_mean_is_the_uniform_policy_and_lies_between(oracle):
    mdp = problem(oracle, False, masked=True)
    worst, mean, best = (backward_induction(mdp, word).value for word in ("min", "mean", "max"))
    np.testing.assert_allclose(mean, backward_induction(mdp, uniform_policy(mdp)).value, **close)
    assert np.all(worst <= mean + 1e-13) and np.all(mean <= best + 1e-13)
    np.testing.assert_array_equal(best[-1], 0)


def test_lanes_and_matrix_free(oracle):
    problems = [oracle.make_problem(seed, (S, A, 2), horizon=H) for seed in range(3)]
    lanes = jax.vmap(backward_induction)(oracle.stack(problems))
    for i, mdp in enumerate(problems):
        np.testing.assert_allclose(lanes.value[i], backward_induction(mdp).value, **close)
        np.testing.assert_allclose(backward_induction(oracle.as_function(mdp)).q, lanes.q[i], **close)


def test_bad_requests_are_named(oracle):
    with pytest.raises(ValueError, match=r"problem.horizon: found None"):
        backward_induction(oracle.make_problem(0))
    mdp = problem(oracle, False)
    with pytest.raises(ValueError, match="aggregate: found 'best'"):
        backward_induction(mdp, "best")
    with pytest.raises(ValueError, match=r"policy: found probabilities of shape \(2, 3\)"):
        backward_induction(mdp, jnp.ones((2, 3)) / 3)
