"""Sampled preferences: unbiased by exact enumeration, exact in the limit, fresh where they must be, judged in truth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import preferences
from envs.preferences import position_bias, random_game, rps, symmetrise
from rlcore.nash import (
    EGPO,
    MMD,
    MWU,
    OMD,
    OMWU,
    NashMD,
    OptimisticMD,
    draw_actions,
    estimate_win_rates,
    labelled_game,
    log_normalise,
    preference_game,
    query,
)
from rlcore.solver import iterate

KEY = jax.random.key(11)
SAMPLED = {
    "NashMD": lambda **how: NashMD(0.3, **how),
    "NashMD, schedule": lambda **how: NashMD(**how),
    "NashMD, mixture": lambda **how: NashMD(0.3, 0.5, **how),
    "OMD": lambda **how: OMD(0.3, **how),
    "MMD": lambda **how: MMD(0.3, **how),
    "MWU": lambda **how: MWU(0.3, **how),
    "EGPO": lambda **how: EGPO(0.3, **how),
    "EGPO, default": lambda **how: EGPO(**how),
    "OptimisticMD": lambda **how: OptimisticMD(0.3, **how),
    "OMWU": lambda **how: OMWU(0.3, **how),
}


def outcomes(p, opponent, num_labels, common):
    """(probability, estimate) of every possible sample, by brute force over opponents and labels."""
    n = len(opponent)
    for js in itertools.product(range(n), repeat=num_labels if common else n * num_labels):
        table = np.broadcast_to(np.reshape(js, (-1, num_labels)), (n, num_labels))
        win = np.array(p)[np.arange(n)[:, None], table]
        for labels in itertools.product((0, 1), repeat=n * num_labels):
            z = np.reshape(labels, (n, num_labels))
            weight = np.prod(np.array(opponent)[list(js)]) * np.prod(np.where(z, win, 1 - win))
            yield weight, z.mean(axis=1)


@pytest.mark.parametrize("common", [True, False])
def test_the_sampler_has_the_enumerated_law(common):
    p, opponent = preferences.random_skew(KEY, 2), jnp.array([0.3, 0.7])
    weights, estimates = map(np.array, zip(*outcomes(p, opponent, 2, common), strict=True))
    # unbiased exactly: a few hundred products, each rounded a dozen times
    np.testing.assert_allclose(weights @ estimates, p @ opponent, rtol=0, atol=1e-14)
    ask = jax.jit(jax.vmap(lambda key: query(p, opponent, key, 2, common)))
    drawn = np.array(ask(jax.random.split(KEY, 20_000)))
    for point in itertools.product((0, 0.5, 1), repeat=2):
        law = weights[np.all(estimates == np.array(point), axis=1)].sum()
        share = np.mean(np.all(drawn == np.array(point), axis=1))
        assert abs(share - law) < 5 * np.sqrt(law * (1 - law) / 20_000), (point, share, law)


@pytest.mark.parametrize("make", SAMPLED.values(), ids=SAMPLED)
def test_many_labels_give_the_exact_method(make):
    # the exact step is the N -> infinity limit: rates are off by 0.5 / sqrt(N), the policy by about eta times that
    game, start = random_game(KEY, 4, temperature=0.4)
    exact, sampled = make(), make(labels=200_000)
    ends = [iterate(s, game, 3, state=s.start(start), key=KEY)[0].log_policy for s in (exact, sampled)]
    assert 0 < np.max(np.abs(jnp.exp(ends[0]) - jnp.exp(ends[1]))) < 0.02
    rough = make(labels=4)
    end = iterate(rough, game, 3, state=rough.start(start), key=KEY)[0].log_policy
    assert np.max(np.abs(jnp.exp(ends[0]) - jnp.exp(end))) > 0.002


@pytest.mark.parametrize("make", SAMPLED.values(), ids=SAMPLED)
def test_keys_alone_decide_and_lanes_do_not_matter(make):
    game, start = random_game(KEY, 3)
    solver = make(labels=2)
    run = lambda key: iterate(solver, game, 5, state=solver.start(start), key=key)[0].log_policy  # noqa: E731
    keys = jax.random.split(KEY, 3)
    batch = jax.vmap(run)(keys)
    # a vmapped program may round differently
    np.testing.assert_allclose(batch[1], run(keys[1]), rtol=0, atol=1e-13)
    assert not np.allclose(batch[0], batch[1])


def test_labels_are_structure_and_numbers_are_not():
    leaves, structure = jax.tree.flatten(OMD(0.3, labels=8, common_opponents=True))
    assert leaves == [0.3] and structure != jax.tree.structure(OMD(0.3, labels=9, common_opponents=True))
    assert jax.tree.unflatten(structure, [0.5]) == OMD(0.5, labels=8, common_opponents=True)
    game, start = random_game(KEY, 3)
    run = lambda eta: OMD(eta, labels=2).step(game, OMD(eta).start(start), KEY).log_policy  # noqa: E731
    assert jax.vmap(run)(jnp.array([0.1, 0.2])).shape == (2, 3)


def test_the_half_step_asks_afresh():
    # On sure labels against a sure opponent nothing is random, so only ties (P = 1/2) carry noise: the two queries of
    # one step would agree in every coin if they shared their key.
    game = random_game(KEY, 2)[0]._replace(preference=jnp.full((2, 2), 0.5))
    solver = EGPO(0.3, labels=1)

    def coins(key):
        state = solver.step(game, solver.init(game), key)
        return [state.half_step - game.reference_logits, state.log_policy - game.reference_logits]

    first, second = jax.vmap(coins)(jax.random.split(KEY, 400))
    same = np.mean(np.abs(np.diff(first)[:, 0] - np.diff(second)[:, 0]) < 1e-12)
    # four equally likely pairs of coins give three differences: 1/16 + 1/4 + 1/16 = 3/8 agree by chance
    assert abs(same - 3 / 8) < 5 * np.sqrt(0.24 / 400)


def test_biased_labels_are_seen_by_solvers_and_judged_in_truth():
    game, start = random_game(KEY, 4, temperature=0.3)
    biased = position_bias(game.preference, 1.0)

    def gaps(label_source):
        judge = lambda _, state: game.gap(state.log_policy)  # noqa: E731
        return iterate(EGPO(0.3), labelled_game(game, label_source), 800, observe=judge, every=400)[1]

    # it converges, but elsewhere; random order of presentation gives the equilibrium of another, valid game
    assert abs(gaps(biased)[1] - gaps(biased)[2]) < 1e-9 * gaps(biased)[2] and gaps(biased)[2] > 1e-4
    fair = preference_game(symmetrise(biased), game.reference_logits, 0.3)
    end = iterate(EGPO(0.3), labelled_game(game, symmetrise(biased)), 800)[0].log_policy
    assert fair.gap(end) < 1e-12 < 1e-4 < game.gap(end)
    assert gaps(game.preference)[2] < 1e-12
    # one constant added to every label vanishes in the normalisation
    half = game._replace(preference=0.5 * game.preference)
    shifted = labelled_game(half, half.preference + 0.1)
    np.testing.assert_allclose(
        OMD(0.3).step(shifted, OMD(0.3).start(start)).log_policy,
        OMD(0.3).step(half, OMD(0.3).start(start)).log_policy,
        rtol=0,
        atol=1e-14,
    )


def test_common_opponents_help_rankings_and_hurt_cycles():
    # specification 3.14, N = 8: E span(noise)^2 is .16 against .19 for Bradley-Terry, .150 against .111 on cycles
    def noise(p, common):
        opponent = jnp.full(p.shape[0], 1 / p.shape[0])
        draws = jax.vmap(lambda key: query(p, opponent, key, 8, common))(jax.random.split(KEY, 4000))
        return jnp.mean(jnp.ptp(draws - (p @ opponent)[None], axis=1) ** 2)

    assert noise(rps(0.5), True) == pytest.approx(0.150, rel=0.05)
    assert noise(rps(0.5), False) == pytest.approx(0.111, rel=0.05)
    ranking = preferences.bt(jnp.linspace(-3.0, 3.0, 6))
    assert noise(ranking, True) < 0.95 * noise(ranking, False)


@given(st.integers(0, 10_000))
def test_unavailable_actions_are_never_drawn_and_harm_nobody(seed):
    key = jax.random.key(seed)
    policy = jnp.array([0.0, 0.2, 0.0, 0.8, 0.0])
    assert set(np.array(draw_actions(key, policy, (50,))).tolist()) <= {1, 3}
    # the largest uniform times the total may round up to the total
    assert draw_actions(key, jnp.array([1e-300, 0.0]), ()) == 0
    game = random_game(key, 5)[0]
    game = game._replace(reference_logits=log_normalise(jnp.where(policy > 0, game.reference_logits, -jnp.inf)))
    for solver in (EGPO(0.1, labels=2), OMD(0.1, labels=2), MMD(0.1, labels=2)):
        end = solver.step(game, solver.init(game), key).log_policy
        np.testing.assert_array_equal(end == -jnp.inf, policy == 0)
        assert abs(jnp.sum(jnp.exp(end)) - 1) < 1e-14


def test_large_games_draw_from_the_same_law():
    policy = jax.nn.softmax(jax.random.normal(KEY, (100,)))  # above 64 actions: binary search
    drawn = np.array(draw_actions(KEY, policy, (50_000,)))
    counts = np.bincount(drawn, minlength=100) / 50_000
    assert np.all(np.abs(counts - policy) < 6 * np.sqrt(policy / 50_000))


def test_single_precision_stays_single():
    game, start = random_game(KEY, 3)
    game, start = jax.tree.map(lambda x: x.astype(jnp.float32), (game, start))
    for make in SAMPLED.values():
        solver = make(labels=3)
        assert solver.step(game, solver.start(start), KEY).log_policy.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda game: query(game.preference, jnp.ones(3) / 3, KEY, 0), "labels: found 0"),
        (lambda game: OMD(0.1, labels=-1).step(game, OMD(0.1).init(game), KEY), "labels: found -1"),
        (lambda game: EGPO(0.1, labels=2).step(game, EGPO(0.1).init(game)), "key: found None with labels = 2"),
        (lambda game: estimate_win_rates(KEY, game.preference, jnp.zeros(3), 0), "num_labels: found 0"),
        (lambda game: labelled_game(game, jnp.zeros((2, 2))), r"label_source: found shape \(2, 2\)"),
        (lambda game: labelled_game(game, game.preference + 1), "label_source: found entries in"),
        (lambda game: labelled_game(game, game.preference.at[0, 0].set(jnp.nan)), "label_source: found entries in"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_game(KEY, 3)[0])
