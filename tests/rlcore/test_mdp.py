"""The MDP types against plain NumPy loops, against one another, and against everything they must refuse."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from rlcore import mdp as mdps
from rlcore.mdp import backup, dense, discounted, finite_horizon, from_dense, from_gym, sticky, tabular, to_dense

S, A, B = 5, 3, 4


def lists(seed, shape=(S, A, B)):
    """Random outcome lists with endings and repeated successors."""
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    return (
        rng.integers(0, shape[-3], shape),
        prob / prob.sum(-1, keepdims=True),
        rng.normal(size=shape),
        rng.random(shape) < 0.2,
    )


def random_mdp(seed, discount=0.9, **kwargs):
    next_state, prob, reward, terminal = lists(seed)
    return tabular(next_state, prob, reward, terminal=terminal, discount=discount, **kwargs)


def plain_backup(next_state, prob, reward, terminal, discount, value):
    q = np.zeros(next_state.shape[:2])
    for (s, a, b), p in np.ndenumerate(prob):
        go_on = 0.0 if terminal[s, a, b] else discount * value[next_state[s, a, b]]
        q[s, a] += p * (reward[s, a, b] + go_on)
    return q


def as_function(mdp):
    def outcomes(next_state, prob, reward, terminal, s, a):
        return next_state[s, a], prob[s, a], reward[s, a], terminal[s, a]

    bound = jax.tree_util.Partial(outcomes, mdp.next_state, mdp.prob, mdp.reward, mdp.terminal)
    return mdps.function_mdp(bound, *mdp.available.shape, discount=mdp.discount, initial=mdp.initial)


def materialised_sticky(mdp, probability):
    """The lifted table of a sticky MDP for t >= 1, written by loops: the oracle of the view."""
    num_states, num_actions, num_outcomes = mdp.prob.shape
    shape = (num_states * num_actions, num_actions, 2 * num_outcomes)
    next_state, prob, reward = np.zeros(shape, int), np.zeros(shape), np.zeros(shape)
    terminal = np.zeros(shape, bool)
    for s in range(num_states):
        for b in range(num_actions):
            for a in range(num_actions):
                for half, (executed, share) in enumerate(((a, 1 - probability), (b, probability))):
                    cells = slice(half * num_outcomes, (half + 1) * num_outcomes)
                    row = s * num_actions + b, a, cells
                    next_state[row] = np.asarray(mdp.next_state)[s, executed] * num_actions + executed
                    prob[row] = share * np.asarray(mdp.prob)[s, executed]
                    reward[row] = np.asarray(mdp.reward)[s, executed]
                    terminal[row] = np.asarray(mdp.terminal)[s, executed]
    initial = np.zeros((num_states, num_actions))
    initial[:, 0] = mdp.initial
    return tabular(
        next_state, prob, reward, terminal=terminal, discount=mdp.discount, horizon=mdp.horizon, initial=initial.ravel()
    )


# Sums of a few products of numbers of size one: 1e-13 leaves some 100 roundings.
close = dict(rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_backup_is_the_plain_sum(seed):
    arrays, value = lists(seed), np.random.default_rng(seed + 9).normal(size=S)
    expected = plain_backup(*arrays, 0.9, value)
    mdp = random_mdp(seed)
    for problem in (mdp, dense(mdp), as_function(mdp)):
        np.testing.assert_allclose(jax.jit(backup)(problem, jnp.asarray(value)), expected, **close)


def test_push_forward_is_the_adjoint_of_expected_next():
    mdp, rng = random_mdp(0), np.random.default_rng(0)
    mass, value, pair_value = (jnp.asarray(rng.random(shape)) for shape in ((S, A), (S,), (S, A)))
    for problem in (mdp, dense(mdp), as_function(mdp)):
        np.testing.assert_allclose(
            jnp.vdot(problem.push_forward(mass), value), jnp.vdot(mass, problem.expected_next(value)), **close
        )
        np.testing.assert_allclose(
            jnp.vdot(problem.push_forward(mass, keep_action=True), pair_value),
            jnp.vdot(mass, problem.expected_next(pair_value)),
            **close,
        )


def test_dense_rows_sum_to_the_chance_of_going_on_and_convert_back():
    mdp = random_mdp(1)
    transition, reward = to_dense(mdp)
    ends = np.sum(np.where(mdp.terminal, mdp.prob, 0), axis=-1)
    np.testing.assert_allclose(transition.sum(-1), 1 - ends, **close)
    again = from_dense(transition, reward, discount=0.9, missing_mass_ends=True)
    value = jnp.arange(float(S))
    np.testing.assert_allclose(backup(again, value), backup(mdp, value), **close)
    np.testing.assert_allclose(to_dense(again)[0], transition, **close)


def test_dense_rewards_may_depend_on_the_next_state():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(S), (S, A)) * (rng.random((S, A, S)) < 0.5) + np.eye(S)[:, None] * 1e-3
    transition /= transition.sum(-1, keepdims=True)
    reward = rng.normal(size=(S, A, S))
    mdp = from_dense(transition, reward)
    assert mdp.prob.shape[-1] == (transition > 0).sum(-1).max()
    np.testing.assert_allclose(mdp.expected_reward(), (transition * reward).sum(-1), **close)
    np.testing.assert_allclose(to_dense(mdp)[0], transition, rtol=1e-15)


def test_rows_may_err_by_the_rounding_of_all_their_terms():
    """A sparse row of a large matrix is held to the rounding of S terms by both dense constructors."""
    transition = np.zeros((1000, 1, 1000))
    transition[:, 0, :2] = 0.5, 0.5 - 2e-14
    mdp = from_dense(transition, np.zeros((1000, 1)))
    np.testing.assert_array_equal(mdp.prob[0, 0], [0.5, 0.5 - 2e-14])
    with pytest.raises(ValueError, match=r"transition\[0, 0\]: found sum"):
        from_dense(transition - 1e-9 * (transition > 0), np.zeros((1000, 1)))


@pytest.mark.parametrize(("id", "options"), [("FrozenLake-v1", {}), ("CliffWalking-v1", {}), ("Taxi-v4", {})])
def test_tables_of_gymnasium_itself(id, options):
    env = pytest.importorskip("gymnasium").make(id, **options).unwrapped
    mdp = from_gym(env.P, discount=0.9, initial=env.initial_state_distrib)
    value = np.random.default_rng(0).normal(size=len(env.P))
    expected = [
        [sum(p * (r + (0.0 if done else 0.9 * value[n])) for p, n, r, done in row[a]) for a in sorted(row)]
        for _, row in sorted(env.P.items())
    ]
    # rewards to 100
    np.testing.assert_allclose(backup(mdp, jnp.asarray(value)), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(mdp.initial, env.initial_state_distrib)


def test_gym_tables():
    table = {
        0: {0: [(0.25, 1, 1.0, False), (0.75, 0, 0.0, False)], 1: [(1.0, 1, 2.0, True)]},
        1: {0: [(1.0, 1, 0.0, True)]},
    }
    mdp = from_gym(table, discount=0.5)
    np.testing.assert_array_equal(mdp.available, [[True, True], [True, False]])
    q = backup(mdp, jnp.array([4.0, 8.0]))
    # by hand: .25 (1 + 4) + .75 (0 + 2) = 2.75; ending outcomes keep their reward only
    np.testing.assert_array_equal(q[0], [2.75, 2.0])
    assert q[1, 0] == 0.0


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_sticky_view_equals_the_materialised_lift(probability):
    mdp = random_mdp(2)
    view, lifted = sticky(mdp, probability), materialised_sticky(mdp, probability)
    rng = np.random.default_rng(0)
    value, mass = jnp.asarray(rng.normal(size=S * A)), jnp.asarray(rng.random((S * A, A)))
    for base in (mdp, dense(mdp), as_function(mdp)):
        twin = sticky(base, probability)
        np.testing.assert_allclose(backup(twin, value), backup(lifted, value), **close)
        np.testing.assert_allclose(twin.push_forward(mass), lifted.push_forward(mass), **close)
    first = backup(view.at_time(0), value).reshape(S, A, A)
    for b in range(A):  # never sticky at t = 0: the action before does not matter
        np.testing.assert_allclose(first[:, b], backup(materialised_sticky(mdp, 0.0), value)[b::A], **close)
    np.testing.assert_array_equal(view.initial, lifted.initial)
    np.testing.assert_array_equal(view.available, lifted.available)


def sizes_within(jaxpr):
    """Entries of every array that a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (math.prod(out.aval.shape) for out in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes_within(inner)


def test_the_sticky_view_never_becomes_a_table():
    next_state, prob, reward, terminal = lists(0, (7, 3, 11))
    mdp = tabular(next_state, prob, reward, terminal=terminal, discount=0.9)
    view = sticky(mdp, 0.25)
    assert sum(x.nbytes for x in jax.tree.leaves(view)) == sum(x.nbytes for x in jax.tree.leaves(mdp)) + 8
    for call, argument in ((backup, jnp.ones(21)), (type(view).push_forward, jnp.ones((21, 3)))):
        largest = max(sizes_within(jax.make_jaxpr(call)(view, argument).jaxpr))
        # the base's outcomes, with two coordinates each where they are gathered; the lift has 7 x 3 x 3 x 22 of them
        assert largest <= 2 * 7 * 3 * 11 < 7 * 3 * 3 * 11


def test_kernels_that_change_with_time():
    steps = 3
    next_state, prob, reward, terminal = lists(3, (steps, S, A, B))
    mdp = tabular(next_state, prob, reward, terminal=terminal, discount=0.9)
    assert mdp.horizon == steps
    value = jnp.arange(float(S))
    for t in range(steps):
        alone = tabular(next_state[t], prob[t], reward[t], terminal=terminal[t], discount=0.9)
        np.testing.assert_allclose(backup(mdp.at_time(t), value), backup(alone, value), **close)
        np.testing.assert_allclose(backup(dense(mdp).at_time(t), value), backup(alone, value), **close)
    with pytest.raises(ValueError, match="horizon: found 4"):
        finite_horizon(mdp, 4)


def test_relabelling_scaling_and_shifting():
    next_state, prob, reward, terminal = lists(4)
    rng = np.random.default_rng(0)
    states, actions, outcomes = (rng.permutation(n) for n in (S, A, B))
    where = np.argsort(states)  # old state -> new index
    pick = np.ix_(states, actions, outcomes)
    relabelled = tabular(where[next_state[pick]], prob[pick], reward[pick], terminal=terminal[pick], discount=0.9)
    value = rng.normal(size=S)
    mdp = tabular(next_state, prob, reward, terminal=terminal, discount=0.9)
    q = np.asarray(backup(mdp, jnp.asarray(value)))
    np.testing.assert_allclose(backup(relabelled, jnp.asarray(value[states])), q[np.ix_(states, actions)], **close)
    scaled = tabular(next_state, prob, 4 * reward, terminal=terminal, discount=0.9)
    np.testing.assert_allclose(backup(scaled, jnp.asarray(4 * value)), 4 * q, **close)
    shifted = tabular(next_state, prob, reward + 2, terminal=terminal, discount=0.9)
    np.testing.assert_allclose(backup(shifted, jnp.asarray(value)), q + 2, **close)


def test_views_replace_one_number_and_trace():
    mdp = random_mdp(5)
    assert finite_horizon(mdp, 7).horizon == 7 and finite_horizon(sticky(mdp, 0.1), 7).horizon == 7
    value = jnp.ones(S)
    gammas = jnp.array([0.0, 0.5, 1.0])
    lanes = jax.vmap(lambda g: backup(discounted(mdp, g), value))(gammas)
    for g, lane in zip(gammas, lanes, strict=True):
        np.testing.assert_allclose(lane, backup(discounted(mdp, float(g)), value), **close)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), random_mdp(5), random_mdp(6))
    both = jax.vmap(backup, (0, None))(stacked, value)
    np.testing.assert_allclose(both[1], backup(random_mdp(6), value), **close)


def test_policies():
    available = np.ones((S, A), bool)
    available[0, 0] = available[1, 1] = False
    mdp = random_mdp(6, available=available)
    np.testing.assert_array_equal(mdps.uniform_policy(mdp)[0], [0, 0.5, 0.5])
    q = jnp.array([[9.0, 1.0, 1.0]] * S)
    np.testing.assert_array_equal(mdps.greedy_policy(q, mdp.available), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(mdps.greedy_policy(q), np.zeros(S))
    policy = mdps.deterministic_policy(jnp.array([2, 0]), A)
    np.testing.assert_array_equal(policy, [[0, 0, 1], [1, 0, 0]])
    # an infinite value of an action that is never taken must not turn into NaN
    value = mdps.policy_backup(jnp.array([[-jnp.inf, 2.0, 4.0]]), jnp.array([[0.0, 0.5, 0.5]]))
    np.testing.assert_array_equal(value, [3.0])


def test_dtype_follows_the_input():
    next_state, prob, reward, _ = lists(7)
    prob32 = prob.astype(np.float32)
    mdp = tabular(next_state, prob32, reward.astype(np.float32))
    assert mdp.prob.dtype == mdp.initial.dtype == mdp.discount.dtype == jnp.float32
    assert backup(mdp, jnp.ones(S, jnp.float32)).dtype == jnp.float32
    assert tabular([[[0]]], [[[1]]], [[[2]]]).reward.dtype == jnp.float64


def changed(**changes):
    next_state, prob, reward, terminal = lists(0)
    arrays = dict(next_state=next_state, prob=prob, reward=reward, terminal=terminal)
    for name, change in changes.items():
        if callable(change):
            arrays[name] = change(np.array(arrays[name]))
        else:
            arrays[name] = change
    return tabular(arrays.pop("next_state"), arrays.pop("prob"), arrays.pop("reward"), **arrays)


def put(value, where=(1, 2, 3)):
    def change(x):
        x[where] = value
        return x

    return change


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prob": put(0.9)}, ValueError, r"prob\[1, 2\]: found sum .*expected 1 within rounding"),
        ({"prob": lambda p: p * (1 + 1e-12)}, ValueError, "expected 1 within rounding"),
        ({"prob": put(-0.1)}, ValueError, r"prob: found -0.1 at \(1, 2, 3\)"),
        ({"prob": put(np.nan)}, ValueError, "prob: found nan"),
        ({"reward": put(np.nan)}, ValueError, "reward: found nan"),
        ({"reward": put(np.inf)}, ValueError, "reward: found inf"),
        ({"next_state": put(S)}, ValueError, r"next_state: found 5 at \(1, 2, 3\), expected states 0..4"),
        ({"next_state": put(-1)}, ValueError, "next_state: found -1"),
        ({"next_state": lambda x: x.astype(float)}, TypeError, "next_state: found dtype float64"),
        ({"next_state": lambda x: x[0]}, ValueError, "next_state: found shape"),
        ({"prob": lambda x: x[:-1]}, ValueError, "prob: found shape"),
        ({"reward": lambda x: x[:-1]}, ValueError, "reward: found shape"),
        ({"reward": lambda x: x.astype(complex)}, TypeError, "reward: found dtype complex128"),
        ({"terminal": lambda x: x.astype(int)}, TypeError, "terminal: found dtype int64"),
        ({"terminal": lambda x: x[0]}, ValueError, "terminal: found shape"),
        ({"available": np.ones((S, A))}, TypeError, "available: found dtype"),
        ({"available": np.ones((A, S), bool)}, ValueError, "available: found shape"),
        ({"available": np.arange(S)[:, None] != np.full((1, A), 2)}, ValueError, "no action in state 2"),
        ({"discount": 1.1}, ValueError, r"discount: found 1.1, expected a number in \[0, 1\]"),
        ({"discount": -0.1}, ValueError, "discount"),
        ({"discount": np.nan}, ValueError, "discount"),
        ({"discount": np.ones(2)}, ValueError, "discount: found shape"),
        ({"discount": "high"}, TypeError, "discount: found dtype"),
        ({"horizon": 0}, ValueError, "horizon: found 0"),
        ({"horizon": 2.5}, TypeError, "horizon: found float"),
        ({"initial": np.ones(S)}, ValueError, "initial.*sum 5"),
        ({"initial": np.ones(S + 1)}, ValueError, "initial: found shape"),
    ],
)
def test_bad_tables_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        changed(**changes)


def test_rows_of_unavailable_pairs_are_padding_but_must_be_finite():
    available = np.ones((S, A), bool)
    available[1, 2] = False
    changed(prob=put(0.0, (1, 2)), available=available)
    with pytest.raises(ValueError, match="prob: found nan"):
        changed(prob=put(np.nan, (1, 2)), available=available)


def test_rounding_of_long_float32_rows_is_accepted():
    prob = np.random.default_rng(0).dirichlet(np.ones(2000), (1, 1)).astype(np.float32)
    tabular(np.zeros((1, 1, 2000), int), prob, np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_dense(np.ones((2, 1, 3)) / 3, np.zeros((2, 1))), ValueError, "transition: found shape"),
        (lambda: from_dense(np.ones((2, 1, 2)), np.zeros((2, 1))), ValueError, "sum 2"),
        (lambda: from_dense(np.ones((2, 1, 2)) / 4, np.zeros((2, 1))), ValueError, "sum 0.5"),
        (lambda: from_dense(np.ones((2, 1, 2)), np.zeros((2, 1)), missing_mass_ends=True), ValueError, "at most 1"),
        (lambda: from_dense(np.ones((2, 1, 2)) / 2, np.zeros((2, 2))), ValueError, "reward: found shape"),
        (lambda: from_dense(np.ones((2, 1, 2)) / 2, np.full((2, 1), np.inf)), ValueError, "reward: found inf"),
        (lambda: from_gym({}), ValueError, "table: found states"),
        (lambda: from_gym({0: {}, 2: {}}), ValueError, "expected states 0..1"),
        (lambda: from_gym({0: {}}), ValueError, "actions"),
        (lambda: from_gym({0: {0: []}}), ValueError, r"table\[0\]\[0\]"),
        (lambda: from_gym({0: {0: [(1.0, 0, 0.0)]}}), ValueError, r"table\[0\]\[0\]"),
        (lambda: from_gym({0: {0: [(1.0, 0, 0.0, False)]}, 1: {}}), ValueError, "no action in state 1"),
        (lambda: from_gym({0: {0: [(1.0, 5, 0.0, False)]}}), ValueError, "next_state: found 5"),
        (lambda: from_gym({0: {0: [(1.0, 0.7, 0.0, False)]}}), TypeError, "expected an int next_state"),
        (lambda: from_gym({0: {0: [(1.0, 0, 0.0, "no")]}}), TypeError, "a bool done"),
        (lambda: sticky(sticky(random_mdp(0), 0.5), 0.5), TypeError, "StickyMDP"),
        (lambda: sticky(random_mdp(0), 1.5), ValueError, "probability: found 1.5"),
        (
            lambda: sticky(dataclasses.replace(random_mdp(0), available=jnp.eye(S, A) < 1), 0),
            ValueError,
            "available",
        ),
        (lambda: discounted(random_mdp(0), 2.0), ValueError, "discount: found 2.0"),
        (lambda: finite_horizon(random_mdp(0), 0), ValueError, "horizon: found 0"),
        (lambda: constant_function(next_state=7), ValueError, "next_state: found 7"),
        (lambda: constant_function(prob=0.5), ValueError, "sum 0.5"),
        (lambda: constant_function(reward=np.nan), ValueError, "reward: found nan"),
        (lambda: constant_function(terminal=0.0), TypeError, "outcomes: found dtypes"),
        (lambda: constant_function(next_state=0.0), TypeError, "outcomes: found dtypes"),
        (lambda: constant_function(prob=1), TypeError, "outcomes: found dtypes"),
        (lambda: constant_function(reward=1), TypeError, "outcomes: found dtypes"),
        (lambda: constant_function(prob=(0.5, 0.5)), ValueError, "outcomes: found .* of one length"),
        (lambda: mdps.function_mdp(lambda s, a: (s, a, s, a), 2, 2), ValueError, "outcomes"),
    ],
)
def test_bad_calls_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def constant_function(next_state=0, prob=1.0, reward=0.0, terminal=False):
    one = lambda s, a: tuple(jnp.atleast_1d(jnp.asarray(x)) for x in (next_state, prob, reward, terminal))  # noqa: E731
    return mdps.function_mdp(one, 2, 2)


def test_a_function_is_checked_at_its_last_state_in_one_shape():
    traces = []

    def ring(length, s, a):
        traces.append(1)
        one = jnp.ones(1)
        return ((s + 1) % length)[None], jnp.where(s == length - 1, 1 + bad, 1) * one, one, one < 0

    for bad in (0, 1):
        traces.clear()
        call = lambda: mdps.function_mdp(lambda s, a: ring(5000, s, a), 5000, 1)  # noqa: E731
        if bad:
            with pytest.raises(ValueError, match=r"prob.*sum 2"):
                call()
        else:
            call()
            assert len(traces) == 2  # its shapes, and one compilation for both blocks


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (np.full(S, A), ValueError, r"policy: found action 3 at \(0,\), expected actions 0..2"),
        (np.full(S, -1), ValueError, "policy: found action -1"),
        (np.zeros(S, int), ValueError, r"policy: found an action that is not available at \(0, 0\)"),
        (np.full((S, A), 1 / 3), ValueError, r"policy: found an action that is not available at \(0, 0\)"),
        (np.full((S, A), 0.3), ValueError, r"policy\[0\]: found sum 0.8999"),
        (np.full((S, A), np.nan), ValueError, "policy: found nan"),
        (np.eye(S, A) * 2 - 1, ValueError, "policy: found -1.0"),
        (np.zeros((A, S)), ValueError, r"policy: found probabilities of shape \(3, 5\), expected \(5, 3\)"),
        (np.zeros((2, S), int), ValueError, r"policy: found actions of shape \(2, 5\), expected \(5,\)"),
        (np.zeros((S, A), complex), TypeError, "policy: found dtype complex128"),
    ],
)
def test_what_is_no_policy_is_named(policy, error, message):
    available = np.ones((S, A), bool)
    available[0, 0] = False
    mdp = random_mdp(0, available=available)
    with pytest.raises(error, match=message):
        mdps.check_policy(mdp, policy)
    fine = mdps.check_policy(mdp, np.array([[0, 0.5, 0.5]] * S, np.float32))
    assert fine.dtype == jnp.float64 and mdps.check_policy(mdp, np.ones(S, np.int64)).dtype == jnp.int32
    with pytest.raises(ValueError, match=r"expected \(5,\) or \(4, 5\)"):
        mdps.check_policy(finite_horizon(mdp, 4), np.zeros((3, S), int), by_time=True)
