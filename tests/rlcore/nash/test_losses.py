"""Losses and measures: gradients against the exact steps, sampled forms against population forms, and minimisers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game
from rlcore.nash import (
    IPO2,
    MWU,
    OMD,
    NashMD,
    NashMDPG,
    OnlineDPO,
    Pairs,
    SampledIPO1,
    all_judged_pairs,
    all_pairs,
    all_responses,
    all_tuples,
    all_votes,
    as_scores,
    best_and_worst,
    dno_loss,
    dpo_loss,
    geometric_mixture,
    inpo_loss,
    ipo_loss,
    judge,
    kl,
    log_normalise,
    paths_of_tree,
    policy_gradient,
    policy_gradient_loss,
    pooled,
    recorded_pairs,
    sampled_judged_pairs,
    sampled_pairs,
    sampled_tuples,
    score_regression_loss,
    sgd_step_size,
    token_policy_gradient_loss,
)

N, C, RATE = 4, 0.4, 0.1
KEY = jax.random.key(7)
# log-ratios and gains over tau up to 20, a few dozen operations
ROUNDING = 64 * 20 * 2.0**-52


@functools.cache
def game_and_start():
    return jax.jit(lambda key: random_game(key, N, temperature=0.5))(KEY)


def mixed(game, log_policy, c):
    return geometric_mixture(log_policy, game.reference_logits, c)


def ipo(game, log_policy, pairs):
    return ipo_loss(log_policy, game.reference_logits, pairs, game.temperature)


def online_ipo_1(game, lp, c):
    return ipo(game, lp, all_judged_pairs(game.preference, mixed(game, lp, c)))


def online_ipo_2(game, lp, c, votes=False):
    pairs = all_pairs(game.preference, mixed(game, lp, c), mixed(game, lp, c))
    return ipo(game, lp, all_votes(pairs) if votes else pairs)


def nash_md_pg(game, lp, c):
    responses = all_responses(game.preference, lp, mixed(game, lp, c))
    return policy_gradient_loss(lp, game.reference_logits, responses, game.temperature)


def online_dpo(game, lp, c, votes=False):
    pairs = all_pairs(game.preference, lp, lp)
    return dpo_loss(lp, game.reference_logits, all_votes(pairs) if votes else pairs, game.temperature)


votes = functools.partial
STEPS = {
    "Online IPO 1": (online_ipo_1, 0.0, lambda game: OMD(sgd_step_size(RATE, N, game.temperature))),
    "released Nash-MD": (online_ipo_1, C, lambda game: NashMD(sgd_step_size(RATE, N, game.temperature), C)),
    "Online IPO 2": (online_ipo_2, 0.0, lambda game: IPO2(RATE)),
    "Online IPO 2, votes": (votes(online_ipo_2, votes=True), 0.0, lambda game: IPO2(RATE)),
    "IPO-MD": (online_ipo_2, C, lambda game: IPO2(RATE, C)),
    "IPO-MD, votes": (votes(online_ipo_2, votes=True), C, lambda game: IPO2(RATE, C)),
    "self-play": (nash_md_pg, 0.0, lambda game: NashMDPG(RATE)),
    "Nash-MD-PG": (nash_md_pg, C, lambda game: NashMDPG(RATE, C)),
    "best response": (nash_md_pg, 1.0, lambda game: NashMDPG(RATE, 1.0)),
    "online DPO": (online_dpo, 0.0, lambda game: OnlineDPO(RATE)),
    "online DPO, votes": (votes(online_dpo, votes=True), 0.0, lambda game: OnlineDPO(RATE)),
}


@pytest.mark.parametrize("name", STEPS)
def test_gradient_descent_on_the_population_loss_is_the_exact_step(name):
    loss, c, make = STEPS[name]
    game, start = game_and_start()
    solver = make(game)
    ours = start - RATE * jax.jit(jax.grad(lambda x: loss(game, jax.nn.log_softmax(x), c)))(start)
    step = jax.jit(solver.step)(game, solver.start(start)).log_policy
    np.testing.assert_allclose(log_normalise(ours), step, rtol=0, atol=ROUNDING)
    assert float(jnp.max(jnp.abs(step - start))) > 1e-3


def test_policy_gradient_of_both_spellings():
    game, start = game_and_start()
    opponent = mixed(game, start, C)
    ours = -jax.grad(lambda x: nash_md_pg(game, jax.nn.log_softmax(x), C))(start)
    np.testing.assert_allclose(ours, policy_gradient(game, start, jnp.exp(opponent)), rtol=0, atol=ROUNDING)


def test_a_vote_adds_its_variance_to_the_squared_loss_and_nothing_to_the_logistic_one():
    game, start = game_and_start()
    pairs = all_pairs(game.preference, start, start)
    variance = jnp.sum(pairs.weight * (0.25 - pairs.gain**2)) / game.temperature**2
    soft, hard = (online_ipo_2(game, start, 0.0, v) for v in (False, True))
    np.testing.assert_allclose(hard, soft + variance, rtol=ROUNDING)
    np.testing.assert_allclose(online_dpo(game, start, 0.0, True), online_dpo(game, start, 0.0), rtol=ROUNDING)


def test_the_mean_over_all_samples_of_two_votes_is_the_population_gradient():
    # by brute force: every data set of two pairs and their votes, each with its probability
    game, start = random_game(KEY, 2, temperature=0.5)
    p, preference, reference = np.exp(start), np.asarray(game.preference), game.reference_logits
    singles = list(itertools.product(range(2), range(2), (0.0, 1.0)))
    sets = list(itertools.product(singles, repeat=2))
    chance = lambda i, j, z: p[i] * p[j] * preference[i, j] if z else p[i] * p[j] * preference[j, i]  # noqa: E731
    weights = jnp.array([chance(*a) * chance(*b) for a, b in sets])
    first, second, label = (jnp.array([[a[k], b[k]] for a, b in sets]) for k in range(3))

    def gradient(first, second, label):
        data = recorded_pairs(Pairs(first, second, label))
        return jax.grad(lambda x: ipo_loss(jax.nn.log_softmax(x), reference, data, game.temperature))(start)

    gradients = jax.jit(jax.vmap(gradient))(first, second, label)
    exact = jax.jit(jax.grad(lambda x: online_ipo_2(game, jax.nn.log_softmax(x), 0.0)))(start)
    np.testing.assert_allclose(weights @ gradients, exact, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(jnp.sum(weights), 1, rtol=ROUNDING)


def test_sampled_measures_have_the_weights_and_gains_of_the_exact_ones():
    game, start = game_and_start()
    other, count = game.reference_logits, 200_000
    exact = all_pairs(game.preference, start, other)
    uniform = all_judged_pairs(game.preference, other)
    for sampled, right in (
        (sampled_pairs(KEY, game.preference, start, other, count), exact),
        (sampled_pairs(KEY, game.preference, start, other, count, votes=True), exact),
        (sampled_judged_pairs(KEY, game.preference, other, count), uniform),
        (sampled_judged_pairs(KEY, game.preference, other, count, votes=True), uniform),
    ):
        ours = pooled(sampled, N)
        # Five standard deviations of a share, of a mean of gains in [-1, 1].
        share = 5 * jnp.sqrt(right.weight / count)
        np.testing.assert_array_less(jnp.abs(ours.weight - right.weight), share)
        np.testing.assert_array_less(
            jnp.abs(ours.weight * ours.gain - right.weight * right.gain), share + 1e-12, verbose=True
        )
        np.testing.assert_allclose(jnp.sum(sampled.weight), 1, rtol=1e-9)
    drawn, weight = sampled_tuples(KEY, start, count, 2)
    frequency = jnp.zeros((N, N)).at[drawn[:, 0], drawn[:, 1]].add(weight)
    tuples, chance = all_tuples(start, 2)
    np.testing.assert_array_less(jnp.abs(frequency[tuples[:, 0], tuples[:, 1]] - chance), 5 * jnp.sqrt(chance / count))


def test_pooling_changes_no_gradient():
    game, start = game_and_start()
    data = sampled_pairs(KEY, game.preference, start, start, 50, votes=True)
    for loss in (ipo_loss, dpo_loss):
        slope = jax.jit(jax.grad(lambda x, d, loss=loss: loss(x, game.reference_logits, d, game.temperature)))
        one, two = slope(start, data), slope(start, pooled(data, N))
        np.testing.assert_allclose(one, two, rtol=0, atol=ROUNDING)
    both = [dpo_loss(start, game.reference_logits, d, game.temperature) for d in (data, pooled(data, N))]
    np.testing.assert_allclose(*both, rtol=ROUNDING)


def test_best_and_worst_of_all_tuples_by_brute_force():
    game, start = game_and_start()
    p, preference, margin = np.exp(start), np.asarray(game.preference), 0.15
    expected = np.zeros((N, N))
    for tried in itertools.product(range(N), repeat=3):
        wins = [np.mean([preference[i, j] for j in tried]) for i in tried]
        best, worst = int(np.argmax(wins)), int(np.argmin(wins))
        if wins[best] - wins[worst] >= margin:
            expected[tried[best], tried[worst]] += np.prod(p[list(tried)])
    ours = pooled(best_and_worst(*all_tuples(start, 3), game.preference, margin), N)
    assert 0.1 < expected.sum() < 0.9
    np.testing.assert_allclose(ours.weight.reshape(N, N), expected / expected.sum(), rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(ours.gain, jnp.where(ours.weight > 0, 0.5, 0.0))
    nothing = best_and_worst(*all_tuples(start, 3), game.preference, 1.1)
    assert float(dpo_loss(start, start, nothing, 1.0)) == 0.0


def gradient_at(loss, log_policy):
    """Largest derivative in the logits."""
    return float(jnp.max(jnp.abs(jax.jit(jax.grad(lambda x: loss(jax.nn.log_softmax(x))))(log_policy))))


def test_where_the_regressions_have_their_minimum():
    game, anchor = game_and_start()
    reference, tau, step = game.reference_logits, game.temperature, 1.5
    own = all_pairs(game.preference, anchor, anchor)
    cases = {
        "INPO": (lambda x: inpo_loss(x, reference, anchor, own, tau, step), OMD(step)),
        "DNO": (lambda x: dno_loss(x, anchor, judge(own, game.preference, anchor), 1 / step), MWU(step)),
    }
    for loss, solver in cases.values():
        assert gradient_at(loss, solver.step(game, solver.start(anchor)).log_policy) < ROUNDING
        assert gradient_at(loss, anchor) > 1e-3
    # a data set from any policy nu: mu exp(P(. > nu) / tau)
    solution = log_normalise(reference + game.preference @ jnp.exp(anchor) / tau)
    for pairs in (own, all_votes(own)):
        assert gradient_at(lambda x, pairs=pairs: ipo(game, x, pairs), solution) < ROUNDING


@pytest.mark.parametrize("scores", [False, True])
def test_score_regression_stops_at_a_damped_step(scores):
    # log rho + k rho = eta g with rho = pi / pi_t and k = KL(pi_t || pi): found here by bisection on k and on rho.
    game, anchor = game_and_start()
    own = all_pairs(game.preference, anchor, anchor).responses()
    responses = as_scores(own) if scores else all_responses(game.preference, anchor, anchor)
    step, p = 0.8, np.exp(anchor)
    gain = np.zeros(N)
    np.add.at(gain, np.asarray(responses.response), np.asarray(responses.weight * responses.gain))
    gain = gain / p

    def solve(function, low, high):
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle) > 0 else (low, middle)
        return middle

    def ratios(k):
        return np.array([solve(lambda rho, g=g: step * g - np.log(rho) - k * rho, 1e-12, 1e3) for g in gain])

    k = solve(lambda k: p @ ratios(k) - 1, 0.0, 10.0)
    minimum = jnp.asarray(np.log(p * ratios(k)))
    np.testing.assert_allclose(kl(anchor, minimum), k, rtol=1e-9)
    loss = lambda x: score_regression_loss(x, anchor, responses, step)  # noqa: E731
    # bisection ends at 1e-15 of 10
    assert gradient_at(loss, minimum) < 1e-13
    exact = MWU(step).step(game, MWU(step).start(anchor)).log_policy
    assert scores or gradient_at(loss, exact) > 1e-4
    assert float(loss(minimum)) < float(loss(exact))


def levels_of(key, length=2, v=3):
    keys = jax.random.split(key, length)
    return [jax.random.normal(k, (v**t, v)) for t, k in enumerate(keys)]


def test_reward_to_go_is_the_gradient_of_the_regularised_value_and_per_token_cost_is_not():
    game, _ = random_game(KEY, 9, temperature=0.5)
    normal = lambda levels: paths_of_tree([jax.nn.log_softmax(x, axis=1) for x in levels])  # noqa: E731
    levels, reference = levels_of(jax.random.key(1)), normal(levels_of(jax.random.key(2)))
    opponent = jnp.sum(reference, axis=1)

    def value(levels):
        policy = jnp.sum(normal(levels), axis=1)
        return jnp.exp(policy) @ game.preference @ jnp.exp(opponent) - game.temperature * kl(policy, opponent)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(per_token):
        def loss(levels):
            tokens = normal(levels)
            responses = all_responses(game.preference, jnp.sum(tokens, axis=1), opponent)
            return -token_policy_gradient_loss(tokens, reference, responses, game.temperature, per_token)

        return jnp.concatenate([x.ravel() for x in jax.grad(loss)(levels)])

    exact = jnp.concatenate([x.ravel() for x in jax.jit(jax.grad(value))(levels)])
    np.testing.assert_allclose(gradient(False), exact, rtol=0, atol=ROUNDING)
    assert float(jnp.max(jnp.abs(gradient(True) - exact))) > 1e-2


def test_masked_responses_count_for_nothing():
    game, start = game_and_start()
    keep = np.array([0, 2, 3])
    hide = lambda x: log_normalise(jnp.where(jnp.arange(N) == 1, -jnp.inf, x))  # noqa: E731
    masked, policy = game._replace(reference_logits=hide(game.reference_logits)), hide(start)
    small = game._replace(preference=game.preference[keep][:, keep], reference_logits=masked.reference_logits[keep])
    for loss in (online_ipo_2, nash_md_pg, online_dpo):
        slope = jax.jit(jax.grad(lambda x, game, loss=loss: loss(game, jax.nn.log_softmax(x), C)))
        gradient, right = slope(policy, masked), slope(policy[keep], small)
        np.testing.assert_allclose(gradient[keep], right, rtol=0, atol=ROUNDING)
        assert float(gradient[1]) == 0.0


def test_precision_is_that_of_the_policy():
    game, start = jax.tree.map(lambda x: x.astype(jnp.float32), game_and_start())
    sampled = lambda game, lp, c: ipo(game, lp, sampled_pairs(KEY, game.preference, lp, lp, 5, votes=True))  # noqa: E731
    for loss in (sampled, online_dpo, nash_md_pg, online_ipo_1):
        assert jax.eval_shape(loss, game, start, C).dtype == jnp.float32


def test_bad_input_is_named():
    game, start = game_and_start()
    for call in (
        lambda: sampled_pairs(KEY, game.preference, start, start, 0),
        lambda: sampled_judged_pairs(KEY, game.preference, start, 0),
        lambda: sampled_tuples(KEY, start, 0, 2),
    ):
        with pytest.raises(ValueError, match="count: found 0, expected"):
            call()
    for call in (lambda: sampled_tuples(KEY, start, 2, 0), lambda: all_tuples(start, 0)):
        with pytest.raises(ValueError, match="samples: found 0, expected"):
            call()


@pytest.mark.parametrize("soft", [True, False])
def test_the_sampled_step_descends_the_loss_of_the_sampled_measure(soft):
    # The same key draws the same triples; the step sums its gradient by hand, the loss is differentiated.
    game, start = game_and_start()
    uniform = jnp.full(N, -jnp.log(N))
    solver = SampledIPO1(RATE, C, samples=20, soft=soft)

    @jax.jit
    def both(key):
        pairs = sampled_judged_pairs(key, game.preference, mixed(game, start, C), 20, not soft, uniform)
        gradient = jax.grad(lambda x: ipo(game, jax.nn.log_softmax(x), pairs))(start)
        return solver.step(game, solver.start(start), key).log_policy, log_normalise(start - RATE * gradient)

    ours, theirs = both(KEY)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING)
    assert float(jnp.max(jnp.abs(ours - start))) > 1e-3
