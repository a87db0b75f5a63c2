"""Nash-MD, OMD, MMD and MWU: exact identities, conversions between their forms, fixed points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.preferences import dice, random_game, rps
from rlcore.nash import (
    APO,
    EGPO,
    GPO,
    IPO2,
    MMD,
    MWU,
    OMD,
    OMWU,
    BestResponse,
    FictitiousPlay,
    MovingMagnetMMD,
    NashEMA,
    NashEMAPG,
    NashEMAStart,
    NashMD,
    NashMDPG,
    OnlineDPO,
    OptimisticMD,
    ProximalPoint,
    check_step_size,
    critical_step_size,
    equilibrium,
    explicit_step_size,
    geometric_mixture,
    implicit_step_size,
    kl,
    log_normalise,
    nash_md_schedule,
    observe_average_gap,
    observe_gap,
    omd_step_size,
    preference_game,
)
from rlcore.solver import Solver, iterate

EPS = 2.0**-52
# One row per algorithm: the generic promises below hold for all of them.
ALGORITHMS = [
    NashMD(),
    NashMD(0.5),
    NashMD(0.5, 0.2),
    OMD(0.5),
    MMD(0.5),
    MWU(0.5),
    EGPO(),
    EGPO(0.5),
    OptimisticMD(0.3),
    OMWU(0.3),
    IPO2(0.05),
    IPO2(0.05, 0.2),
    NashMDPG(0.5),
    NashMDPG(0.5, 0.2),
    OnlineDPO(0.5),
    GPO(0.2),
    MovingMagnetMMD(0.5, 0.1),
    BestResponse(),
    FictitiousPlay(),
    NashEMA(0.5, 0.9),
    NashEMAStart(0.5, 0.9),
    NashEMAPG(0.5, 0.9),
    ProximalPoint(),
    ProximalPoint(OMD(0.5), 3),
    ProximalPoint(EGPO(), 2),
    APO(0.2, 0.5),
]


class SMALL:
    """Three games of 4 actions, a start of each, and the second game with a fifth action that is unavailable."""

    games, starts = jax.jit(jax.vmap(lambda key: random_game(key, 4, temperature=0.3)))(
        jax.random.split(jax.random.key(7), 3)
    )
    padded = preference_game(
        np.pad(games.preference[1], (0, 1), constant_values=0.5),
        np.append(games.reference_logits[1], 0.0),
        0.3,
        available=np.arange(5) < 4,
    )


@pytest.fixture(scope="module")
def games():
    games, starts = jax.jit(jax.vmap(lambda key: random_game(key, 5)))(jax.random.split(jax.random.key(2), 100))
    return games, starts, jax.vmap(lambda game: equilibrium(*game))(games).value


@pytest.mark.parametrize("solver", ALGORITHMS, ids=repr)
def test_promises_of_every_algorithm(solver):
    assert isinstance(solver, Solver)
    run = lambda game, start: iterate(solver, game, 20, state=solver.start(start), observe=observe_gap, every=10)  # noqa: E731
    states, gaps = jax.vmap(run)(SMALL.games, SMALL.starts)
    assert np.all(states.t == 20) and np.all(gaps >= 0)
    np.testing.assert_allclose(jax.scipy.special.logsumexp(states.log_policy, axis=-1), 0, atol=4 * EPS)
    np.testing.assert_array_equal(gaps[:, -1] > 0, True)
    # batched, single and padded programs round differently, and 20 steps of bounded expansion carry that on
    game = jax.tree.map(lambda x: x[1], SMALL.games)
    alone = iterate(solver, game, 20, state=solver.start(SMALL.starts[1]))[0].log_policy
    np.testing.assert_allclose(states.log_policy[1], alone, rtol=0, atol=1e-12)

    start = jnp.append(SMALL.starts[1], -jnp.inf)
    masked = iterate(solver, SMALL.padded, 20, state=solver.start(start))[0].log_policy
    np.testing.assert_allclose(masked[:4], alone, rtol=0, atol=1e-12)
    assert masked[4] == -np.inf
    np.testing.assert_array_equal(solver.init(SMALL.padded, None).log_policy, SMALL.padded.reference_logits)

    single = jax.tree.map(lambda x: x.astype(jnp.float32), (game, SMALL.starts[1]))
    low = iterate(solver, single[0], 20, state=solver.start(single[1]))[0].log_policy
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, alone, rtol=0, atol=1e-4)  # 20 steps of 2^-23 |log-probabilities|


def test_dice_step():
    game = preference_game(dice(), temperature=0.1)
    start = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    mixture = geometric_mixture(start, game.reference_logits, 0.5)
    np.testing.assert_allclose(jnp.exp(mixture), [0.4727, 0.3343, 0.1930], atol=5e-5)  # four printed digits
    state = NashMD(5.0).step(game, NashMD(5.0).start(start), None)
    np.testing.assert_allclose(jnp.exp(state.log_policy), [0.4909, 0.3088, 0.2003], atol=5e-5)


def one_nash_md_identity(game, policy, star, step_size):
    pull = step_size * game.temperature
    solver = NashMD(step_size)
    new = solver.step(game, solver.start(policy), None).log_policy
    q = geometric_mixture(policy, game.reference_logits, pull)
    payoff = step_size * ((game.preference - 0.5) @ jnp.exp(q))
    growth = jax.scipy.special.logsumexp(q + payoff)
    right = (1 - pull) * (kl(star, policy) - kl(q, policy)) - pull * kl(q, star) + growth
    return kl(star, new), right, growth, step_size


def test_nash_md_identity(games):
    batch, starts, stars = games
    step_sizes = jnp.linspace(0.01, 1, 100) / batch.temperature
    left, right, growth, eta = jax.vmap(one_nash_md_identity)(batch, starts, stars, step_sizes)
    # terms are at most 1/tau-sized log-ratios
    tolerance = 64 * EPS * (1 + jnp.max(jnp.abs(stars), -1) + jnp.max(jnp.abs(starts), -1) + eta)
    assert np.all(np.abs(left - right) <= tolerance)
    assert np.all(growth <= eta**2 / 8 + tolerance)


def test_nash_md_schedule_rate_and_its_first_step(games):
    batch, starts, stars = games
    steps = np.array([1, 3, 10, 30, 100, 300])

    def run(game, start, star):
        observe = lambda g, s: s.log_policy  # noqa: E731
        policies = iterate(NashMD(), game, 300, state=NashMD().start(start), observe=observe, every=steps)[1]
        return jax.vmap(lambda policy: kl(star, policy))(policies)

    distances = jax.vmap(run)(batch, starts, stars)
    assert np.all(2 * batch.temperature[:, None] ** 2 * distances <= 1 / (steps[None, :] + 1.0))
    first = jax.vmap(lambda game, start: NashMD().step(game, NashMD().start(start), None).log_policy)(batch, starts)
    reply = jax.vmap(lambda game: game.best_response(game.reference_logits))(batch)
    np.testing.assert_allclose(first, reply, rtol=0, atol=1e-13)
    assert nash_md_schedule(0.5, 2) == 1.0


@pytest.mark.parametrize(("step_size", "mixture"), [(0.7, None), (0.4, 0.3)])
def test_constant_step_stops_at_the_biased_point(step_size, mixture):
    tau = 0.3
    game, start = random_game(jax.random.key(11), 6, temperature=tau)
    c = step_size * tau if mixture is None else mixture
    solver = NashMD(step_size, mixture)
    state, _ = iterate(solver, game, 3000, state=solver.start(start))
    warmer = equilibrium(game.preference, game.reference_logits, tau / (1 - c)).value
    # at the fixed point rounding of a step, eps |log pi|, is amplified by 1 / (eta tau) at most a few times
    np.testing.assert_allclose(state.log_policy, game.best_response(warmer), rtol=0, atol=1e-13)
    mixed = geometric_mixture(state.log_policy, game.reference_logits, c)
    np.testing.assert_allclose(mixed, warmer, rtol=0, atol=1e-13)
    assert kl(equilibrium(*game).value, state.log_policy) > 1e-5


def test_the_forms_of_mirror_descent_agree(games):
    batch, starts, _ = games
    tau = batch.temperature

    def step(solver, game, start):
        return solver.step(game, solver.start(start), None).log_policy

    for h in (0.1, 1.0, 10.0):
        implicit = jax.vmap(lambda game, start, h=h: step(MMD(h), game, start))(batch, starts)
        explicit = jax.vmap(lambda game, start, t, h=h: step(OMD(explicit_step_size(h, t)), game, start))(
            batch, starts, tau
        )
        np.testing.assert_allclose(implicit, explicit, rtol=0, atol=1e-13)
        np.testing.assert_allclose(implicit_step_size(explicit_step_size(h, 0.3), 0.3), h, rtol=1e-14)
    selfplay = jax.vmap(lambda game, start: step(NashMD(0.4, 0.0), game, start))(batch, starts)
    omd = jax.vmap(lambda game, start: step(OMD(0.4), game, start))(batch, starts)
    np.testing.assert_allclose(selfplay, omd, rtol=0, atol=1e-13)
    # Nash-MD in the variable q is OMD with step eta (1 - eta tau) at temperature tau / (1 - eta tau)
    game, start = jax.tree.map(lambda x: x[0], batch), starts[0]
    eta = 0.3 / game.temperature
    new = geometric_mixture(step(NashMD(eta), game, start), game.reference_logits, 0.3)
    q = geometric_mixture(start, game.reference_logits, 0.3)
    warmer = game._replace(temperature=game.temperature / 0.7)
    np.testing.assert_allclose(new, step(OMD(0.7 * eta), warmer, q), rtol=0, atol=1e-13)


def test_omd_contracts_at_its_proved_step(games):
    batch, starts, stars = games

    def ratio(game, start, star):
        eta = omd_step_size(game)
        solver = OMD(eta)
        policies = iterate(solver, game, 30, state=solver.start(start), observe=lambda g, s: s.log_policy)[1]
        distances = jax.vmap(lambda policy: kl(star, policy))(policies)
        ratios = distances[1:] / ((1 - eta * game.temperature) * distances[:-1])
        return jnp.where(distances[1:] > 1e-12, ratios, 0)

    assert np.max(jax.vmap(ratio)(batch, starts, stars)) <= 1 + 1e-9


def test_omd_is_stable_below_the_critical_step_only():
    game = preference_game(rps(0.5), temperature=0.05)
    star = equilibrium(*game).value
    critical = critical_step_size(game, star)
    np.testing.assert_allclose(critical, 2 * 0.05 / (0.05**2 + (0.5 / np.sqrt(3)) ** 2), rtol=1e-12)
    near = log_normalise(star + 1e-3 * jnp.array([1.0, -1.0, 0.0]))
    end = lambda factor: iterate(OMD(factor * critical), game, 3000, state=OMD(0.1).start(near))[0].log_policy  # noqa: E731
    assert kl(star, end(0.99)) < 0.1 * kl(star, near) and kl(star, end(1.01)) > 10 * kl(star, near)
    transitive = preference_game([[0.5, 0.9], [0.1, 0.5]], temperature=0.5)
    assert np.isclose(critical_step_size(transitive, equilibrium(*transitive).value), 2 / 0.5)


def test_mwu_average_converges_while_the_last_iterate_leaves():
    game = preference_game(rps(0.5))
    solver = MWU(0.5)
    start = solver.start(jnp.log(jnp.array([0.4, 0.3, 0.3])))
    state, gaps = iterate(solver, game, 400, state=start, observe=observe_average_gap)
    assert kl(game.reference_logits, state.log_policy) > 1.2
    # twice the regret per step, log(1 / smallest start) / (eta T) + eta / 8
    assert gaps[-1] <= 2 * (np.log(1 / 0.3) / (0.5 * 400) + 0.5 / 8)
    steps, n = 500, 8
    tuned = MWU(np.sqrt(8 * np.log(n) / steps))
    games, _ = jax.jit(jax.vmap(lambda key: random_game(key, n, reference_scale=0.0)))(
        jax.random.split(jax.random.key(4), 30)
    )
    final = jax.vmap(lambda game: iterate(tuned, game, steps, observe=observe_average_gap, every=steps)[1][-1])(games)
    assert np.all(final <= np.sqrt(2 * np.log(n) / steps))
    one = iterate(solver, game, 1, state=start)[0]
    np.testing.assert_allclose(one.average, [0.4, 0.3, 0.3], rtol=1e-15)


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan, np.inf, 10.5])
def test_steps_outside_the_domain_are_named(step_size):
    with pytest.raises(ValueError, match="step_size: found"):
        check_step_size(step_size, 0.1)


EXPLICIT = [NashMD, OMD, EGPO, OptimisticMD, lambda step: NashEMA(step, 0.5), lambda step: NashEMAStart(step, 0.5)]


@pytest.mark.parametrize("method", EXPLICIT)
def test_a_run_with_too_long_a_step_does_not_start(method):
    game = preference_game(rps(0.5), temperature=0.1)
    with pytest.raises(ValueError, match=r"step_size: found 10.5 at temperature 0.1, expected 0 < step_size \* temp"):
        iterate(method(10.5), game, 3)
    assert method(10.0).init(game, None).t == 0
    # traced numbers are the caller's promise
    assert jax.jit(lambda step: method(step).init(game, None).t)(10.5) == 0


@pytest.mark.parametrize("method", [MMD(10.5), OMWU(10.5), MWU(10.5)], ids=repr)
def test_other_steps_have_no_such_limit(method):
    game = preference_game(rps(0.5), temperature=0.1)
    assert iterate(method, game, 3)[0].t == 3


def test_steps_inside_the_domain_pass():
    assert check_step_size(10.0, 0.1) == 10.0 and check_step_size(1e6, 0.0) == 1e6
    for tau in np.geomspace(1e-4, 10, 50):
        check_step_size(1 / tau, tau)
    assert jax.jit(lambda eta: check_step_size(eta, 0.1))(99.0) == 99.0
