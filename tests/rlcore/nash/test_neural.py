"""Descent through a network: on a table of logits it is each exact method; shared layers add up gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game
from rlcore.nash import (
    EGPO,
    IPO2,
    OMD,
    Advantage,
    NashMD,
    NashMDPG,
    NeuralDescent,
    OwnPairs,
    PreferenceGame,
    UniformPairs,
    log_normalise,
    observe_gaps,
    sgd_step_size,
)
from rlcore.nn.shared import SharedPerceptron
from rlcore.solver import Solver, iterate

RUNS, N, TAU, RATE, MIXTURE = 3, 5, 0.4, 0.05, 0.3
STEP = sgd_step_size(RATE, N, TAU)
KEY = jax.random.key(11)


@dataclasses.dataclass(frozen=True)
class Table:
    """The network that is a table of logits."""

    def init(self, key):
        return jax.random.normal(key, (RUNS, N))

    def apply(self, params):
        return params


NETWORK = SharedPerceptron(RUNS, N, width=4, dtype=jnp.float64)
# name -> (objective, extragradient, the exact method on tabular logits)
METHODS = {
    "Online IPO 1": (UniformPairs, {}, False, OMD(STEP)),
    "Nash-MD": (UniformPairs, {"mixture": MIXTURE}, False, NashMD(STEP, MIXTURE)),
    "Online IPO 2": (OwnPairs, {}, False, IPO2(RATE)),
    "IPO-MD": (OwnPairs, {"mixture": MIXTURE}, False, IPO2(RATE, MIXTURE)),
    "Nash-MD-PG": (Advantage, {"mixture": MIXTURE}, False, NashMDPG(RATE, MIXTURE)),
    "EGPO": (UniformPairs, {}, True, EGPO(STEP)),
}


def make(name, network, **how):
    objective, options, extragradient, _ = METHODS[name]
    return NeuralDescent(network, objective(**options, **how), RATE, extragradient)


@pytest.fixture(scope="module")
def setting():
    games, starts = jax.vmap(lambda key: random_game(key, N, temperature=TAU))(jax.random.split(KEY, RUNS))
    return games, starts


@pytest.mark.parametrize("name", METHODS)
def test_on_a_table_it_is_the_exact_method(name, setting):
    games, starts = setting
    ours = iterate(make(name, Table()), games, 4, state=make(name, Table()).start(starts))[0].log_policy
    exact = METHODS[name][3]
    theirs = jax.vmap(lambda game, start: iterate(exact, game, 4, state=exact.start(start))[0].log_policy)(
        games, starts
    )
    # 4 steps on logits below 10, with errors of (r - P q / tau) of a few dozen roundings each
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)
    assert np.max(np.abs(ours - starts)) > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_many_samples_give_the_exact_step(name, setting):
    games, starts = setting
    centre = lambda x: x - jnp.mean(x, axis=1, keepdims=True)  # noqa: E731
    step = jax.jit(lambda solver: solver.step(games, solver.start(starts), KEY).log_policy)
    move = lambda solver: centre(step(solver) - starts)  # noqa: E731
    exact, sampled = move(make(name, Table())), move(make(name, Table(), samples=400_000))
    # As for the tabular sampled methods: one sample moves a logit with a deviation below 1/2, policy gradient 1/10.
    deviation = 5 * (0.1 if name == "Nash-MD-PG" else 0.5) / np.sqrt(400_000)
    np.testing.assert_allclose(sampled, exact, rtol=0, atol=deviation)
    assert np.max(np.abs(exact)) > 5 * deviation


def test_shared_layers_follow_the_sum_of_the_runs_gradients(setting):
    games, _ = setting
    solver = make("Online IPO 1", NETWORK)
    state = solver.init(games, KEY)
    moved = jax.jit(solver.step)(games, state, None).params["params"]
    one = make("Online IPO 1", SharedPerceptron(1, N, width=4, dtype=jnp.float64))
    step = jax.jit(lambda params, game: one.step(game, one.start({"params": params}), None).params["params"])

    def alone(run):
        """The step that this run's loss alone would make."""
        params = {**state.params["params"], "virtual_input": state.params["params"]["virtual_input"][run : run + 1]}
        game = jax.tree.map(lambda x: x[run : run + 1], games)
        return params, step(params, game)

    changes = [jax.tree.map(lambda a, b: b - a, *alone(run)) for run in range(RUNS)]
    for name, old in state.params["params"].items():
        change = np.asarray(moved[name] - old)
        if name == "virtual_input":
            expected = np.concatenate([c[name] for c in changes])
        else:
            expected = sum(np.asarray(c[name]) for c in changes)
            # coupled: no run alone makes this change
            assert all(not np.allclose(change, c[name], rtol=1e-2, atol=0) for c in changes)
        # three gradients of size below 10, each rounded a few dozen times
        np.testing.assert_allclose(change, expected, rtol=0, atol=1e-14)


def test_the_network_starts_as_released_and_descends(setting):
    games, _ = setting
    assert isinstance(make("EGPO", NETWORK), Solver)
    wide = SharedPerceptron(200, 100, dtype=jnp.float64).init(KEY)["params"]
    assert wide["virtual_input"].shape == (200, 10) and wide["weight_2"].shape == (10, 100)
    # Xavier-normal: variance 2 / (inputs + outputs), here of 1000 entries; their sample deviation is within 5 x 2.3%
    np.testing.assert_allclose(np.std(wide["weight_2"]), np.sqrt(2 / 110), rtol=0.12)
    np.testing.assert_allclose(np.std(wide["virtual_input"]), 1, rtol=0.12)
    assert all(np.all(wide[f"bias_{i}"] == 0) for i in range(3))
    start = make("EGPO", NETWORK).init(games, KEY)
    games = games._replace(reference_logits=start.log_policy)
    states = {name: iterate(make(name, NETWORK, samples=None), games, 300, state=start, key=KEY)[0] for name in METHODS}
    for name, state in states.items():
        np.testing.assert_allclose(jax.scipy.special.logsumexp(state.log_policy, axis=-1), 0, rtol=0, atol=2e-15)
        assert np.sum(observe_gaps(games, state)) < np.sum(observe_gaps(games, start)), name


def test_it_runs_under_vmap_with_traced_numbers_and_in_float32(setting):
    games, _ = setting
    solver = make("EGPO", NETWORK)
    state = solver.init(games, KEY)
    rates = jnp.array([0.0, RATE])
    step = jax.jit(lambda rate: dataclasses.replace(solver, learning_rate=rate).step(games, state, None).log_policy)
    still, moved = jax.jit(jax.vmap(step))(rates)
    np.testing.assert_allclose(still, state.log_policy, rtol=0, atol=4e-15)
    np.testing.assert_allclose(moved, step(RATE), rtol=0, atol=1e-14)
    low = make("EGPO", SharedPerceptron(RUNS, N, width=4))
    single = jax.tree.map(lambda x: x.astype(jnp.float32), games)
    abstract = jax.eval_shape(lambda: low.step(single, low.init(single, KEY), None))
    assert {x.dtype for x in jax.tree.leaves(abstract) if x.ndim} == {jnp.dtype("float32")}


@pytest.mark.parametrize("objective", [UniformPairs, OwnPairs, Advantage])
def test_bad_input_is_named(objective, setting):
    game = PreferenceGame(*(x[0] for x in setting[0]))
    policy = log_normalise(jnp.zeros(N))
    with pytest.raises(ValueError, match=r"key: found None with samples = 3, expected a key"):
        objective(samples=3).loss(None, game, policy, policy)
    with pytest.raises(ValueError, match=r"samples: found 0, expected an integer >= 1"):
        objective(samples=0).loss(KEY, game, policy, policy)
