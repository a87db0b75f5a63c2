"""Preference families: symmetry, the elementary examples of the papers, noise and sampled labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta

from envs import preferences
from envs.preferences import FAMILIES, NOISE
from rlcore.nash import (
    PreferenceGame,
    contextual_equilibrium,
    contextual_game,
    contextual_gap,
    equilibrium,
    kl,
    lottery,
    preference_game,
    win_probability,
)

KEY = jax.random.key(3)
# One instance of each family: a full table, so that a new family without a row fails the first test.
INSTANCES = {
    "bt": lambda: preferences.bt(jnp.array([0.0, 1.0, -3.0])),
    "circulant": lambda: preferences.circulant(5, 0.3),
    "condorcet_cycle": lambda: preferences.condorcet_cycle(6),
    "dice": preferences.dice,
    "elo_constrained": preferences.elo_constrained,
    "gpm": lambda: preferences.gpm(KEY, 7, 2, 3.0),
    "linear_lowrank": lambda: preferences.linear_lowrank(KEY, 7, 2),
    "mixture": lambda: preferences.mixture(jnp.array([0.3, 0.7]), jax.random.normal(KEY, (2, 4))),
    "mostly_dominated": lambda: preferences.mostly_dominated(8, 3),
    "near_tie": lambda: preferences.near_tie(KEY, 5),
    "perturbed_rps": preferences.perturbed_rps,
    "random_bt": lambda: preferences.random_bt(KEY, 5, 2.0),
    "random_skew": lambda: preferences.random_skew(KEY, 5),
    "roshambo": preferences.roshambo,
    "rps": preferences.rps,
    "spinning_top": lambda: preferences.spinning_top(KEY, 6),
    "three_type": lambda: preferences.three_type(0.1),
    "tournament": lambda: preferences.tournament(KEY, 6, 0.8),
    "weighted_rps": lambda: preferences.weighted_rps(0.1, 0.2, 0.3),
}
NOISY = {
    "adversarial_annotator": lambda p: preferences.adversarial_annotator(p, 0.2, 1),
    "flip": lambda p: preferences.flip(p, 0.2),
    "heteroscedastic": lambda p: preferences.heteroscedastic(KEY, p, 0.9),
    "position_bias": lambda p: preferences.symmetrise(preferences.position_bias(p, 0.4)),
}


def test_every_family_is_a_valid_preference():
    assert set(INSTANCES) == set(FAMILIES) and set(NOISY) == set(NOISE)
    for name, make in INSTANCES.items():
        p = make()
        preference_game(p)  # raises unless valid
        assert p.dtype == jnp.float64, name
        # one rounding of 1/2 + a and 1/2 - a each
        np.testing.assert_allclose(p + p.T, 1, rtol=0, atol=2**-52, err_msg=name)
        np.testing.assert_array_equal(jnp.diagonal(p), 0.5, err_msg=name)
    for name, noise in NOISY.items():
        preference_game(noise(preferences.random_skew(KEY, 5)))
        assert not np.allclose(noise(preferences.random_skew(KEY, 5)), preferences.random_skew(KEY, 5)), name


def test_random_families_vmap_over_keys_and_numbers():
    keys = jax.random.split(KEY, 3)
    for name in ("random_skew", "tournament", "gpm", "linear_lowrank", "near_tie", "spinning_top", "random_bt"):
        batch = jax.vmap(lambda key, name=name: FAMILIES[name](key, 4))(keys)
        # vmapped and single transcendental functions may differ in the last bits of a number of order 1
        np.testing.assert_allclose(batch[1], FAMILIES[name](keys[1], 4), rtol=0, atol=1e-15, err_msg=name)
        assert not np.allclose(batch[0], batch[1])
    strengths = jnp.array([0.1, 0.3])
    for family in (preferences.rps, lambda s: preferences.circulant(5, s), preferences.three_type):
        np.testing.assert_allclose(jax.vmap(family)(strengths)[1], family(0.3), rtol=0, atol=1e-15)
    games, starts = jax.vmap(lambda key: preferences.random_game(key, 4))(keys)
    assert games.preference.shape == (3, 4, 4) and starts.shape == (3, 4)


def test_families_mean_what_they_say():
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    np.testing.assert_allclose(
        preferences.bt(jnp.array([0.0, 1.0, -3.0]))[1], [sigmoid(1), 0.5, sigmoid(4)], rtol=1e-15
    )
    cycle = preferences.circulant(5, 0.3)
    np.testing.assert_allclose(cycle[0], [0.5, 0.8, 0.8, 0.2, 0.2], rtol=1e-15)
    np.testing.assert_allclose(
        preferences.weighted_rps(0.1, 0.2, 0.3), [[0.5, 0.6, 0.2], [0.4, 0.5, 0.7], [0.8, 0.3, 0.5]]
    )
    assert np.all(preferences.condorcet_cycle(6, 0.1)[0, 1:] == 0.6)
    assert np.all(preferences.mostly_dominated(8, 3, lead=0.2)[:3, 3:] == 0.7)
    tournament = preferences.tournament(KEY, 6, 0.8)
    assert set(np.round(np.unique(tournament), 12)) == {0.2, 0.5, 0.8}
    for k in (1, 2):
        lowrank = preferences.linear_lowrank(KEY, 8, k) - 0.5
        score = jax.scipy.special.logit(preferences.gpm(KEY, 8, k))
        assert np.linalg.matrix_rank(lowrank, 1e-10) == np.linalg.matrix_rank(score, 1e-10) == 2 * k
        np.testing.assert_allclose(jnp.max(jnp.abs(lowrank)), 0.5, rtol=1e-15)
    # the cyclic part of a spinning top is smaller among the skilled
    flat = preferences.spinning_top(KEY, 6, slope=0.0, decay=0.0)
    top = preferences.spinning_top(KEY, 6, slope=0.0, decay=3.0)
    shrink = jax.scipy.special.logit(top[1, 0]) / jax.scipy.special.logit(flat[1, 0])
    np.testing.assert_allclose(shrink, np.exp(-3 * (1.0 + 0.8) / 2), rtol=1e-12)


def test_transitive_annotators_can_make_a_cycle():
    # hard rankings ABC, BCA, CAB in equal shares: A beats B for two annotators of three
    rewards = 1e3 * jnp.array([[2.0, 1, 0], [0, 2, 1], [1, 0, 2]])
    p = preferences.mixture(jnp.full(3, 1 / 3), rewards)
    np.testing.assert_allclose([p[0, 1], p[1, 2], p[2, 0]], 2 / 3, rtol=1e-15)


@pytest.mark.parametrize("e", [-0.06, 0.0, 0.09])
def test_three_types(e):
    p = preferences.three_type(e)
    np.testing.assert_allclose([p[1, 0], p[2, 1], p[0, 2]], [2 / 3 - e / 2, 2 / 3 + e / 4, 2 / 3 + e / 4], rtol=1e-15)
    nash = jnp.array([1 / 3 + e / 2, 1 / 3 + e / 2, 1 / 3 - e])
    # every action earns exactly 1/2 against the equilibrium
    np.testing.assert_allclose(p @ nash, 0.5, rtol=0, atol=1e-15)
    borda = jnp.mean(p, axis=1)
    if e != 0:
        assert jnp.argmax(borda) == (1 if e < 0 else 0)


def test_dice_and_elo():
    p = preferences.dice()
    np.testing.assert_allclose([p[0, 1], p[1, 2], p[2, 0]], 5 / 9, rtol=1e-15)
    np.testing.assert_allclose(preferences.dice([[1, 2], [2, 3]])[1, 0], 7 / 8, rtol=1e-15)
    elo = preferences.elo_constrained()
    mixed, third = jnp.log(jnp.array([2 / 3, 1 / 3, 0.0])), jnp.log(jnp.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(win_probability(elo, third, mixed), 50 / 99, rtol=1e-14)


def test_noise_formulas():
    p = preferences.random_skew(KEY, 4)
    np.testing.assert_allclose(preferences.flip(p, 0.2), 0.8 * p + 0.2 * (1 - p), rtol=1e-14)
    np.testing.assert_allclose(preferences.flip(p, 0.5), 0.5, rtol=0, atol=1e-16)
    target = preferences.adversarial_annotator(p, 1.0, 2)
    np.testing.assert_array_equal(target[2], [1, 1, 0.5, 1])
    np.testing.assert_array_equal(target[0], [0.5, 0.5, 0, 0.5])
    biased = preferences.position_bias(p, 0.4)
    np.testing.assert_allclose(jax.scipy.special.logit(biased) - jax.scipy.special.logit(p), 0.4, rtol=1e-12)
    with pytest.raises(ValueError, match=r"P \+ P\^T = 1"):
        preference_game(biased)
    # rates in [0, 1/2] keep every winner
    heard = preferences.heteroscedastic(KEY, p, 0.5)
    np.testing.assert_array_equal(jnp.sign(heard - 0.5), jnp.sign(p - 0.5))


def test_position_bias_moves_the_equilibrium():
    p, logits = preferences.random_skew(KEY, 4), jnp.zeros(4)
    clean = equilibrium(p, logits, 0.2).value
    biased = equilibrium(preferences.symmetrise(preferences.position_bias(p, 0.4)), logits, 0.2).value
    assert kl(biased, clean) > 1e-4


def clopper_pearson(successes, trials, level=1e-6):
    """A two-sided interval that misses the probability at most with chance `level`."""
    low = beta.ppf(level / 2, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - level / 2, successes + 1, trials - successes) if successes < trials else 1.0
    return low, high


@pytest.mark.parametrize("n", [3, 5, 10])
def test_how_often_a_tournament_has_a_condorcet_winner(n):
    # n (1/2)^(n-1): each action beats all n - 1 others with that chance, and two cannot both
    trials, probability = 20_000, n / 2 ** (n - 1)
    games = jax.jit(jax.vmap(lambda key: preferences.tournament(key, n)))(jax.random.split(KEY, trials))
    winners = jnp.sum(jnp.sum(games > 0.5, axis=2) == n - 1, axis=1)
    assert jnp.max(winners) <= 1
    low, high = clopper_pearson(int(jnp.sum(winners)), trials)
    assert low <= probability <= high
    # sharp enough to tell n from n + 1
    assert not low <= (n + 1) / 2**n <= high


def test_labels_have_the_probability_of_their_pair():
    p, trials = preferences.random_skew(KEY, 3), 20_000
    i, j = jnp.full(trials, 2), jnp.full(trials, 0)
    wins = int(jnp.sum(preferences.bernoulli(KEY, p, i, j)))
    low, high = clopper_pearson(wins, trials)
    assert low <= p[2, 0] <= high and not low <= p[0, 2] <= high


@pytest.mark.parametrize("tau", [1.0, 0.05, 1e-3])
def test_games_of_two_kinds_of_actions_have_closed_forms(tau):
    # Uniform reference. By symmetry both kinds are uniform within, and one beats the other by `lead` whatever the
    # shares: log-odds lead / tau.
    logits = jnp.zeros(6)
    star = equilibrium(preferences.condorcet_cycle(6, lead=0.1), logits, tau)
    assert star.status == 0
    # the certificate bounds the error of every log-ratio
    np.testing.assert_allclose(star.value[0] - star.value[1:], 0.1 / tau, rtol=0, atol=float(star.bound))
    star = equilibrium(preferences.mostly_dominated(6, 3, lead=0.25), logits, tau)
    np.testing.assert_allclose(star.value[0] - star.value[3:], 0.25 / tau, rtol=0, atol=float(star.bound))
    np.testing.assert_allclose(star.value[:3], star.value[0], rtol=0, atol=float(star.bound))
    if tau == 1e-3:
        assert jnp.all(jnp.exp(star.value[3:]) < 1e-100) and jnp.all(jnp.isfinite(star.value))


def test_without_temperature_the_best_action_or_the_core_is_played():
    np.testing.assert_allclose(lottery(preferences.condorcet_cycle(8, 0.02)), np.eye(8)[0], rtol=0, atol=1e-12)
    core = lottery(preferences.mostly_dominated(9, 5, lead=0.01))
    np.testing.assert_allclose(core, np.append(np.full(5, 0.2), np.zeros(4)), rtol=0, atol=1e-12)
    # the best of a transitive game, and the known cycle of dice: all margins 1/18
    np.testing.assert_allclose(lottery(preferences.bt(jnp.array([0.1, 0.3, 0.2]))), [0, 1, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(lottery(preferences.dice()), 1 / 3, rtol=0, atol=1e-12)
    np.testing.assert_allclose(lottery(preferences.weighted_rps(0.1, 0.2, 0.3)), [1 / 3, 1 / 2, 1 / 6], atol=1e-12)


def test_a_spinning_top_is_a_ladder_with_a_cyclic_belly():
    skill = jnp.linspace(1, 0, 7)
    ladder = preferences.spinning_top(KEY, 7, slope=3.0, cycle=0.0)
    np.testing.assert_allclose(ladder, preferences.bt(3.0 * skill), rtol=0, atol=2**-52)
    games = jax.vmap(lambda key: preferences.spinning_top(key, 30, slope=2.0, cycle=6.0, decay=6.0))(
        jax.random.split(KEY, 20)
    )
    beats = (np.asarray(games) > 0.5).astype(int)
    cycles = lambda b: np.trace(b @ b @ b, axis1=1, axis2=2).sum()  # noqa: E731
    top, bottom = cycles(beats[:, :10, :10]), cycles(beats[:, 20:, 20:])
    assert top < bottom / 5


def test_near_ties_are_scaled_margins():
    near, plain = preferences.near_tie(KEY, 5, 1e-3), preferences.random_skew(KEY, 5)
    np.testing.assert_allclose((near - 0.5) * 1e3, plain - 0.5, rtol=0, atol=1e3 * 2**-52)


def test_what_noise_does_to_equilibria():
    p, logits = preferences.random_skew(KEY, 4), jnp.zeros(4)
    solve = lambda preference, tau=0.2: equilibrium(preference, logits, tau).value  # noqa: E731
    # flips shrink all margins by one factor: the same as a higher temperature
    np.testing.assert_allclose(solve(preferences.flip(p, 0.3)), solve(p, 0.2 / 0.4), rtol=0, atol=1e-12)
    # a rate of 1 reverses every preference
    np.testing.assert_allclose(preferences.flip(p, 1.0), p.T, rtol=0, atol=2**-52)
    # the more annotators promote an action, the more it is played; with all of them it is the Condorcet winner
    shares = jnp.linspace(0, 1, 6)
    promoted = jax.vmap(lambda share: solve(preferences.adversarial_annotator(p, share, 2))[2])(shares)
    assert np.all(np.diff(promoted) > 0)
    assert np.argmax(lottery(preferences.adversarial_annotator(p, 1.0, 2))) == 2
    # own rates per pair: margins shrink by factors in [1 - 2 largest, 1], one per pair; no rates, no change
    np.testing.assert_array_equal(preferences.heteroscedastic(KEY, p, 0.0), p)
    off = ~np.eye(4, dtype=bool)
    factor = np.asarray((preferences.heteroscedastic(KEY, p, 0.4) - 0.5)[off] / (p - 0.5)[off])
    assert np.all((factor >= 0.2) & (factor <= 1)) and np.unique(np.round(factor, 9)).size == 6
    # a bias for the first place: the two orders sum to more than 1, and random order is fair again
    biased = preferences.position_bias(p, 0.4)
    assert np.all(biased + biased.T > 1)
    fair = preferences.symmetrise(biased)
    np.testing.assert_allclose(fair + fair.T, 1, rtol=0, atol=2**-52)
    np.testing.assert_array_equal(np.sign(fair - 0.5), np.sign(p - 0.5))
    np.testing.assert_allclose(preferences.symmetrise(p), p, rtol=0, atol=2**-52)


def test_contexts_are_a_stack_of_any_families():
    stack = [preferences.circulant(3, 0.4), preferences.random_bt(KEY, 3), preferences.flip(preferences.dice(), 0.1)]
    references = jax.random.normal(KEY, (3, 3))
    game = contextual_game(stack, references, 0.1, [0.5, 0.2, 0.3])
    stars = contextual_equilibrium(game).value
    for i, preference in enumerate(stack):
        alone = equilibrium(preference, references[i], 0.1)
        np.testing.assert_allclose(stars[i], alone.value, rtol=0, atol=float(2 * alone.bound))
    assert contextual_gap(game, stars) < 1e-24
    gaps = [preference_game(p, references[i], 0.1).gap(jnp.log(jnp.full(3, 1 / 3))) for i, p in enumerate(stack)]
    uniform = jnp.log(jnp.full((3, 3), 1 / 3))
    np.testing.assert_allclose(contextual_gap(game, uniform), 0.5 * gaps[0] + 0.2 * gaps[1] + 0.3 * gaps[2], rtol=1e-12)


@pytest.mark.parametrize("common", [True, False])
def test_sampled_win_rates_are_unbiased(common):
    p = preferences.random_skew(KEY, 3)
    log_policy = jnp.log(jnp.array([0.7, 0.3, 0.0]))
    estimate = jax.jit(jax.vmap(lambda key: preferences.estimate_win_rates(key, p, log_policy, 8, common)))(
        jax.random.split(KEY, 4000)
    )
    np.testing.assert_array_equal(estimate * 8, jnp.round(estimate * 8))
    # 32 000 labels each: standard deviation of the mean <= 0.5 / sqrt(4000 * 8) x sqrt(8) for common opponents
    np.testing.assert_allclose(jnp.mean(estimate, 0), p @ jnp.exp(log_policy), rtol=0, atol=6 * 0.5 / np.sqrt(4000))
    # fresh labels against the opponents' law: variance p(1-p)/8 of every action in both designs
    mean = np.array(p @ jnp.exp(log_policy))
    np.testing.assert_allclose(jnp.var(estimate, axis=0), mean * (1 - mean) / 8, rtol=6 * np.sqrt(2 / 4000))


def test_common_opponents_correlate_actions():
    # on a cycle, an opponent good for one action is bad for another: covariances differ from independent ones
    p, log_policy = preferences.rps(), jnp.log(jnp.full(3, 1 / 3))
    draws = lambda common: jax.vmap(  # noqa: E731
        lambda key: preferences.estimate_win_rates(key, p, log_policy, 8, common)
    )(jax.random.split(KEY, 2000))
    correlation = lambda x: np.corrcoef(np.array(x).T)[0, 1]  # noqa: E731
    # labels are certain but for ties (coin): P = (1/2, 1, 0) cyclic has exact correlation -1/3
    assert abs(correlation(draws(True)) + 1 / 3) < 6 / np.sqrt(2000)
    assert abs(correlation(draws(False))) < 6 / np.sqrt(2000)


def test_bernoulli_labels():
    p = preferences.weighted_rps(0.5, 0.5, 0.5)
    i, j = jnp.array([[0, 1], [2, 1]]), jnp.array([[1, 2], [0, 0]])
    np.testing.assert_array_equal(preferences.bernoulli(KEY, p, i, j), [[1, 1], [1, 0]])


def test_random_game_is_the_generator():
    games, starts = jax.vmap(lambda key: preferences.random_game(key, 5))(jax.random.split(KEY, 300))
    assert isinstance(games, PreferenceGame)
    preference_game(games.preference, games.reference_logits, games.temperature)
    assert 0.03 <= jnp.min(games.temperature) < 0.05 and 1.5 < jnp.max(games.temperature) <= 2
    # log-normalised: each sum of five exponentials rounds to within a few eps of 1
    np.testing.assert_allclose(jnp.sum(jnp.exp(games.reference_logits), -1), 1, rtol=1e-14)
    np.testing.assert_allclose(jnp.sum(jnp.exp(starts), -1), 1, rtol=1e-14)
    uniform = jnp.ptp(games.reference_logits, axis=-1) == 0
    assert 0.2 < jnp.mean(uniform) < 0.47  # one third, 5 standard deviations
    game, _ = preferences.random_game(KEY, 5, temperature=0.1, reference_scale=0.0)
    assert game.temperature == 0.1 and jnp.ptp(game.reference_logits) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preferences.circulant(4), "n: found 4, expected an odd"),
        (lambda: preferences.condorcet_cycle(5), "n - 1: found 4"),
        (lambda: preferences.mostly_dominated(4, 5), "n - m: found -1"),
        (lambda: preferences.rps(0.6), "strength: found 0.6"),
        (lambda: preferences.weighted_rps(0.1, 0.7, 0.1), "w23: found 0.7"),
        (lambda: preferences.random_skew(KEY, 0), "n: found 0"),
        (lambda: preferences.linear_lowrank(KEY, 1), "n: found 1"),
        (lambda: preferences.gpm(KEY, 3, 0), "k: found 0"),
        (lambda: preferences.tournament(KEY, 3, 0.4), "win: found 0.4"),
        (lambda: preferences.mixture(jnp.array([0.5, 0.6]), jnp.zeros((2, 3))), "shares: found sum 1.1"),
        (lambda: preferences.three_type(0.5), "excess: found 0.5"),
        (lambda: preferences.dice([1, 2]), "faces: found shape"),
        (lambda: preferences.condorcet_cycle(4, 0.7), "lead: found 0.7"),
        (lambda: preferences.mostly_dominated(4, 3, lead=0.7), "lead: found 0.7"),
        (lambda: preferences.near_tie(KEY, 3, 2.0), "scale: found 2.0"),
        (lambda: preferences.flip(preferences.rps(), 1.5), "rate: found 1.5"),
        (lambda: preferences.heteroscedastic(KEY, preferences.rps(), 1.5), "largest: found 1.5"),
        (lambda: preferences.adversarial_annotator(preferences.rps(), -0.1, 0), "share: found -0.1"),
        (lambda: preferences.adversarial_annotator(preferences.rps(), 0.1, 3), "target: found 3"),
        (lambda: preferences.estimate_win_rates(KEY, preferences.rps(), jnp.zeros(3), 0), "num_labels: found 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_roshambo_bots_behave_as_known(tmp_path, monkeypatch):
    names, p = preferences.roshambo_bots(), preferences.roshambo()
    assert len(names) == len(set(names)) == 43 and p.shape == (43, 43)
    at = {name: i for i, name in enumerate(names)}
    # the constant bot loses to programs that notice it, in all but a few throws
    for strong in ("greenberg", "iocainebot", "phasenbott"):
        assert p[at[strong], at["rockbot"]] > 0.95
    # nobody beats the random bot by more than chance: a tie-or-win share with deviation sqrt(1/6/1000) = 0.013
    assert np.max(np.abs(p[at["randbot"]] - 0.5)) < 5 * 0.013
    damaged = tmp_path / "roshambo.csv"
    damaged.write_text(preferences.ROSHAMBO.read_text().replace("\n0,1,", "\n0,2,", 1))
    monkeypatch.setattr(preferences, "ROSHAMBO", damaged)
    with pytest.raises(ValueError, match="damaged table"):
        preferences.roshambo()
