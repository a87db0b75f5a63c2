"""Episodes of a traced length: padding changes nothing, simulation follows the law, and the horizon is data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import make
from rlcore import episodic as ep
from rlcore.mdp import dense, discounted, finite_horizon, sticky, tabular
from rlcore.planning import backward_induction

# At most 12 steps of values of size one, each a sum of at most 8 terms: 1e-13 is room enough.
close = dict(rtol=0, atol=1e-13)


def random_problem(seed, shape=(5, 3, 2), horizon=6, masked=False, **kwargs):
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    available = rng.random(shape[-3:-1]) < 0.6 if masked else np.ones(shape[-3:-1], bool)
    available[:, 0] = True
    return tabular(
        rng.integers(0, shape[-3], shape),
        prob / prob.sum(-1, keepdims=True),
        rng.normal(size=shape),
        terminal=rng.random(shape) < 0.2,
        available=available,
        horizon=horizon,
        initial=rng.dirichlet(np.ones(shape[-3])),
        **kwargs,
    )


PROBLEMS = {
    "plain": lambda: random_problem(0),
    "masked": lambda: random_problem(1, masked=True),
    "sticky": lambda: sticky(random_problem(2), 0.3),
    "varying": lambda: random_problem(3, (6, 5, 3, 2)),
}
SHAPE = dict(states=8, actions=5, branches=4, steps=9)


def unpadded(problem, values):
    """Entries [..., S, A] of the padded values that belong to the problem."""
    states, actions = (problem.base if hasattr(problem, "base") else problem).available.shape
    values = values[: problem.horizon]
    if hasattr(problem, "base"):
        values = values.reshape(problem.horizon, 8, 5, 5)[:, :states, :actions]
        return values.reshape(problem.horizon, states * actions, 5)[..., :actions]
    return values[:, :states, :actions]


@pytest.mark.parametrize("aggregate", ["max", "min", "mean"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_values_are_those_of_backward_induction_and_padding_changes_nothing(name, aggregate):
    problem = PROBLEMS[name]()
    exact = backward_induction(problem, aggregate)
    ours = ep.episodic_values(ep.episodic(problem), aggregate)
    mask = np.asarray(problem.available)  # unavailable pairs hold numbers without meaning
    np.testing.assert_allclose(ours.q[:, mask], exact.q[:, mask], **close)
    np.testing.assert_allclose(ours.value, exact.value, **close)
    shape = SHAPE | ({"steps": 6} if name == "varying" else {})
    wide = ep.padded(problem, **shape)
    q = ep.episodic_values(wide, aggregate).q
    np.testing.assert_allclose(unpadded(problem, q)[:, mask], exact.q[:, mask], **close)
    assert not np.any(q[problem.horizon :])
    start = wide.problem.initial @ ep.episodic_values(wide, aggregate).value[0]
    np.testing.assert_allclose(start, problem.initial @ exact.value[0], **close)


def test_a_shorter_length_is_a_shorter_horizon():
    problem = sticky(random_problem(2), 0.3)
    short = ep.Episodic(problem, jnp.int32(4))
    exact = backward_induction(finite_horizon(problem, 4))
    np.testing.assert_allclose(ep.episodic_values(short).value[:5], exact.value, **close)
    assert not np.any(ep.episodic_values(short).value[4:])


def test_one_program_for_a_stack_of_all_shapes():
    problems = [random_problem(0), sticky(random_problem(4, (3, 2, 3), 4), 0.25), random_problem(5, (7, 2, 1), 9)]
    suite = ep.stacked(problems)
    assert suite.problem.base.prob.shape == (3, 7, 3, 3) and suite.problem.horizon == 9
    np.testing.assert_array_equal(suite.length, [6, 4, 9])
    start = jax.vmap(lambda one: one.problem.initial @ ep.episodic_values(one).value[0])(suite)
    np.testing.assert_allclose(start, [p.initial @ backward_induction(p).value[0] for p in problems], **close)


def test_policies_by_time_and_by_actions_agree():
    one = ep.padded(sticky(random_problem(2), 0.3), **SHAPE)
    actions = jax.random.randint(jax.random.key(0), (9, 40), 0, 3, jnp.int32)
    actions = jnp.where(jnp.arange(40)[None] >= 25, 0, actions)  # added states have action 0 alone
    by_actions = ep.policy_return(one, actions)
    np.testing.assert_allclose(by_actions, ep.policy_return(one, jax.nn.one_hot(actions, 5)), **close)
    assert by_actions <= one.problem.initial @ ep.episodic_values(one).value[0]


@pytest.mark.parametrize("name", PROBLEMS)
def test_simulated_returns_have_the_exact_mean(name):
    problem = PROBLEMS[name]()
    one = ep.padded(problem, **(SHAPE | ({"steps": 6} if name == "varying" else {})))
    actions = one.problem.available.shape[1]
    policy = jnp.where(one.problem.available, 1.0 + jnp.arange(actions, dtype=float), 0.0)
    policy = policy / jnp.sum(policy, axis=1, keepdims=True)

    def episode(key):
        def act(state, key):
            action_key, key = jax.random.split(key)
            action = jax.random.categorical(action_key, jnp.log(policy[ep.policy_state(one, state)]))
            state, reward, done = ep.step(one, state, action, key)
            return state, (reward, done, state.t)

        first, key = jax.random.split(key)
        state = ep.reset(one, first)
        return jax.lax.scan(act, state, jax.random.split(key, one.problem.horizon))[1]

    reward, done, t = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(1), 20_000))
    returns = np.asarray(reward).sum(axis=1)
    error = returns.std() / np.sqrt(len(returns))
    # Five standard errors: a right simulator fails once in two million keys, and the key is fixed.
    assert abs(returns.mean() - ep.policy_return(one, policy)) < 5 * error
    done, t, reward = np.asarray(done), np.asarray(t), np.asarray(reward)
    assert done[:, problem.horizon - 1 :].all()
    over = done[:, :-1]
    assert done[:, 1:][over].all() and not reward[:, 1:][over].any()
    assert (t[done] == problem.horizon).all()


def test_stickiness_repeats_what_was_executed_and_never_at_first():
    # The next state is the executed action; with probability one the first choice is repeated for ever.
    mdp = tabular(np.arange(3)[None, :, None].repeat(3, 0), np.ones((3, 3, 1)), np.zeros((3, 3, 1)), horizon=4)
    one = ep.episodic(sticky(mdp, 1.0))
    state = ep.reset(one, jax.random.key(0))
    for action in (2, 0, 1):
        state, _, _ = ep.step(one, state, jnp.int32(action), jax.random.key(action))
        assert (int(state.state), int(state.previous)) == (2, 2)


def test_outcomes_of_probability_zero_are_never_drawn():
    prob = np.array([0.0, 0.1, 0.0, 0.2, 0.7, 0.0])
    uniform = jnp.asarray(np.concatenate([np.linspace(0, 1, 1001)[:-1], [1 - 2.0**-52]]))
    drawn = np.asarray(jax.vmap(lambda u: ep._draw(jnp.asarray(prob), u))(uniform))
    assert set(drawn) == {1, 3, 4}
    # Row sums below one by rounding: the largest number below one is still inside.
    assert ep._draw(jnp.asarray([0.5, 0.5 - 2.0**-53, 0.0]), jnp.asarray(1 - 2.0**-52)) == 1


def test_what_cannot_be_padded_is_refused():
    mdp = random_problem(0)
    with pytest.raises(ValueError, match=r"states: found 4, expected at least the problem's 5"):
        ep.padded(mdp, states=4)
    with pytest.raises(ValueError, match=r"steps: found 9, expected 6"):
        ep.padded(random_problem(3, (6, 5, 3, 2)), steps=9)
    with pytest.raises(ValueError, match=r"problem.horizon: found None"):
        ep.episodic(random_problem(0, horizon=None))
    with pytest.raises(TypeError, match=r"problem: found DenseMDP"):
        ep.episodic(sticky(dense(mdp), 0.1))
    with pytest.raises(ValueError, match=r"problems: found none"):
        ep.stacked([])
    with pytest.raises(TypeError, match=r"float types"):
        ep.stacked([mdp, jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == float else x, mdp)])
    with pytest.raises(ValueError, match=r"aggregate: found 'best'"):
        ep.episodic_values(ep.episodic(mdp), "best")
    with pytest.raises(ValueError, match="policy"):
        ep.policy_return(ep.episodic(mdp), jnp.full((5, 3), 0.5))


def test_the_discount_is_the_problems():
    problem = discounted(make("corridor", length=3, horizon=5), 0.5)
    assert ep.policy_return(ep.episodic(problem), jnp.ones(3, int)) == 0.25
