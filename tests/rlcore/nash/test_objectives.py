"""Objectives: the numbers of their inline predecessors, population forms against samples; the tabular outer loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import random_game
from envs.text import bigram_text
from rlcore.nash import (
    MWU,
    OMD,
    IterativePO,
    bradley_terry_votes,
    fit_policy,
    judge,
    kl,
    log_normalise,
    observe_kl,
    paths_of_tree,
    sampled_pairs,
)
from rlcore.nash import objectives as o
from rlcore.solver import iterate

V, L = 3, 2
KEY = jax.random.key(3)
# name -> objective, then (loss, gradient . cos(0, 1, ...), sum of |gradient|) as computed, on this key, by the losses
# that once stood inline in deep.py: the numbers of the deep experiment rest on them.
BEFORE = {
    "pg": (o.PolicyGradient(0.3, 64), (0.06571541614959395, 0.11127647772406131, 0.26624722210814633)),
    "whole": (
        o.PolicyGradient(0.3, 64, token_mixing=False),
        (0.09530735712187019, 0.12838683913843454, 0.3017447739128593),
    ),
    "per token": (
        o.PolicyGradient(0.0, 64, per_token_kl=True),
        (0.2152740308951882, 0.1433952011451615, 0.34152178513022524),
    ),
    "pg votes": (
        o.PolicyGradient(0.0, 64, bernoulli=True),
        (0.18953570454906749, 0.1533545806362127, 0.365512252493561),
    ),
    "ipo 2": (o.PairIPO(0.0, 64), (0.20765940971815489, 0.09478703768315518, 0.35828861526246103)),
    "ipo-md": (o.PairIPO(0.3, 64, bernoulli=True), (0.3804866594316278, 0.034902991545104, 0.2810296930212553)),
    "ipo 1": (o.UniformIPO(0.0, 64), (0.266516817579127, 0.12563509348155205, 0.3886027839478204)),
    "ipo 1 votes": (
        o.UniformIPO(0.3, 64, bernoulli=True),
        (0.6954781687060891, 0.06462302126267444, 0.37551239167023187),
    ),
    "dpo": (o.OnlineDPO(64, bernoulli=True), (1.7106285086252386, 0.08605591953698624, 0.2148749590599991)),
    "inpo": (o.INPO(2.0, 64, bernoulli=True), (0.40891021002431516, 0.1301719116576632, 0.5243193580304107)),
    "sppo": (o.ScoreRegression(2.0, 64), (0.9240224429683015, 0.6441210141247471, 1.603640897306109)),
    "sppo votes": (
        o.ScoreRegression(2.0, 64, bernoulli=True),
        (1.0889713952477804, 0.6356832374289076, 1.6200367092168562),
    ),
    "gpo": (o.ScoreRegression(0.5, 64, logits=True), (3.95080672839319, 2.650954628329967, 6.484474506969557)),
    "dno": (o.DNO(0.5, 64), (1.608393983199727, 0.08230754677038775, 0.27878778685063277)),
    "dno-prct": (o.DNOPairs(0.5, 0.25, 64), (1.8764448333574728, 0.45135123200762933, 1.77867272376185)),
}


def levels_of(seed):
    keys = jax.random.split(jax.random.key(seed), L)
    return [jax.nn.log_softmax(jax.random.normal(k, (V**t, V)), axis=1) for t, k in enumerate(keys)]


@pytest.fixture(scope="module")
def text():
    game = bigram_text(1, V, L, temperature=0.2)
    return game, o.Seen(game.paths(), paths_of_tree(levels_of(1)), jnp.sum(paths_of_tree(levels_of(2)), axis=1))


def value_and_gradient(objective, text):
    game, seen = text

    @jax.jit
    def both(levels, key):
        loss = lambda x: objective.loss(  # noqa: E731
            key, game, paths_of_tree([jax.nn.log_softmax(y, axis=1) for y in x]), seen
        )
        value, gradient = jax.value_and_grad(loss)(levels)
        return value, jnp.concatenate([x.ravel() for x in gradient])

    return both(levels_of(0), KEY)


@pytest.mark.parametrize("name", BEFORE)
def test_the_losses_are_those_that_stood_inline(name, text):
    objective, numbers = BEFORE[name]
    loss, gradient = value_and_gradient(objective, text)
    ours = loss, gradient @ jnp.cos(jnp.arange(gradient.size)), jnp.sum(jnp.abs(gradient))
    # 64 terms of size below 10
    np.testing.assert_allclose(ours, numbers, rtol=0, atol=1e-13)


POPULATION = {
    "pg": lambda batch: o.PolicyGradient(0.3, batch),
    "ipo-md": lambda batch: o.PairIPO(0.3, batch),
    "ipo 1": lambda batch: o.UniformIPO(0.3, batch),
    "dpo": lambda batch: o.OnlineDPO(batch),
    "inpo": lambda batch: o.INPO(2.0, batch),
    "sppo": lambda batch: o.ScoreRegression(2.0, batch),
    "gpo": lambda batch: o.ScoreRegression(0.5, batch, logits=True),
    "dno": lambda batch: o.DNO(0.5, batch),
    "dno-prct": lambda batch: o.DNOPairs(0.5, 0.25, batch, 3),
}


@pytest.mark.parametrize("name", POPULATION)
def test_without_a_batch_it_is_the_population_loss(name, text):
    make = POPULATION[name]
    _, exact = value_and_gradient(make(None), text)
    _, sampled = value_and_gradient(make(100_000), text)
    # One sample's gradient is below 5 per entry (GPO: scores up to 5), its deviation below 3: five of the mean.
    np.testing.assert_allclose(sampled, exact, rtol=0, atol=5 * 3 / np.sqrt(100_000))
    assert float(jnp.max(jnp.abs(exact))) > 0.03


# ---- the outer loop --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def game_and_start():
    return jax.jit(lambda key: random_game(key, 4, temperature=0.5))(jax.random.key(5))


@pytest.mark.parametrize(
    ("objective", "exact"), [(o.INPO(1.5, None), OMD(1.5)), (o.DNO(0.5, None), MWU(2.0))], ids=["INPO", "DNO"]
)
def test_exact_fits_are_mirror_steps(game_and_start, objective, exact):
    game, start = game_and_start
    solver = IterativePO(objective)
    ours, theirs = (iterate(s, game, 3, state=s.start(start))[0].log_policy for s in (solver, exact))
    # Newton ends at gradients of 1e-16 over curvatures above 1e-3.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_score_regression_takes_the_damped_step(game_and_start):
    game, start = game_and_start
    solver = IterativePO(o.ScoreRegression(2.0, None))
    log_rho = jax.jit(solver.step)(game, solver.start(start)).log_policy - start
    damping = kl(start, start + log_rho)
    gain = jnp.matmul(game.preference - 0.5, jnp.exp(start))
    np.testing.assert_allclose(log_rho + damping * jnp.exp(log_rho), 2 * gain, rtol=0, atol=1e-12)
    assert float(damping) > 0.01


@pytest.mark.parametrize(
    "make",
    [lambda b: o.INPO(1.5, b, bernoulli=True), lambda b: o.DNO(0.5, b), lambda b: o.ScoreRegression(0.5, b, True)],
    ids=["INPO", "DNO", "GPO"],
)
def test_sampled_fits_approach_the_exact_one(game_and_start, make):
    game, start = game_and_start
    few, many, exact = (IterativePO(make(b), inner_steps=6) for b in (200, 10_000, None))
    step = lambda s: jax.jit(jax.vmap(lambda k: s.step(game, s.start(start), k).log_policy))  # noqa: E731
    keys = jax.random.split(KEY, 4)
    right = step(exact)(keys[:1])
    error = [float(jnp.mean(jnp.abs(jnp.exp(step(s)(keys)) - jnp.exp(right)))) for s in (few, many)]
    # DNO's labels are exact: whatever pairs were drawn, its fit is (if they connect all responses).
    assert error[1] < error[0] / 2 or error[1] < 1e-12
    assert error[1] < 0.03


def test_an_action_that_is_not_drawn_keeps_its_logit_and_contrasts_end(game_and_start):
    game, start = game_and_start
    rare = log_normalise(start.at[1].set(-60.0))
    solver = IterativePO(o.INPO(1.0, 50))
    moved = jax.jit(solver.step)(game, solver.start(rare), KEY).log_policy
    assert float(moved[1]) < -50 and bool(jnp.all(jnp.isfinite(moved)))
    contrast = IterativePO(o.DNOPairs(0.5, 0.1, 64, 3))
    state, trace = iterate(contrast, game, 3, state=contrast.start(start), key=KEY, observe=observe_kl, every=1)
    assert bool(jnp.all(jnp.isfinite(trace))) and int(jnp.argmax(state.log_policy)) == 3
    # action 3 has the largest win rate against the start
    assert int(jnp.argmax(game.preference @ jnp.exp(start))) == 3


def test_masks_and_bad_input(game_and_start):
    game, start = game_and_start
    hide = lambda x: log_normalise(jnp.where(jnp.arange(4) == 1, -jnp.inf, x))  # noqa: E731
    game, start = game._replace(reference_logits=hide(game.reference_logits)), hide(start)
    solver = IterativePO(o.INPO(1.5, None))
    ours = jax.jit(solver.step)(game, solver.start(start)).log_policy
    theirs = OMD(1.5).step(game, OMD(1.5).start(start)).log_policy
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="key: found None, expected a key"):
        IterativePO(o.INPO(1.5)).step(game, solver.start(start))
    with pytest.raises(ValueError, match="num_steps: found 0"):
        IterativePO(o.INPO(1.5, None), inner_steps=0).step(game, solver.start(start))


def test_a_vote_of_dno_is_won_with_the_sigmoid_of_the_difference(game_and_start):
    game, start = game_and_start
    pairs = judge(sampled_pairs(KEY, game.preference, start, start, 100_000), game.preference, start)
    votes = bradley_terry_votes(KEY, pairs)
    assert set(np.unique(votes.gain)) == {-0.5, 0.5}
    excess = votes.gain + 0.5 - jax.nn.sigmoid(pairs.gain)
    # Five standard deviations of a mean, also against the gain itself.
    assert abs(float(jnp.mean(excess))) < 2.5 / np.sqrt(100_000)
    assert abs(float(jnp.mean(excess * pairs.gain))) < 2.5 / np.sqrt(100_000)


def test_fit_policy_finds_a_known_minimum_and_leaves_what_the_loss_does_not_see():
    target = log_normalise(jnp.array([0.0, 1.0, -2.0, 0.5]))
    start = log_normalise(jnp.zeros(4))
    ours = jax.jit(lambda start: fit_policy(lambda lp: -jnp.exp(target) @ lp, start))(start)
    np.testing.assert_allclose(ours, target, rtol=0, atol=1e-12)
    # only the difference of the first two is seen
    blind = jax.jit(lambda start: fit_policy(lambda lp: (lp[0] - lp[1] - 1) ** 2, start))(start)
    np.testing.assert_allclose(blind - blind[3], jnp.array([0.5, -0.5, 0.0, 0.0]), rtol=0, atol=1e-12)
    still = fit_policy(lambda lp: 0 * lp[0], target, num_steps=1)
    np.testing.assert_array_equal(still, log_normalise(target))
