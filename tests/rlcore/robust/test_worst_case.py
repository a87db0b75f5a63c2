"""Worst-case operators against linear and conic programmes, against one another, and against what all must share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from rlcore.robust import (
    CHI2,
    HELLINGER,
    KL,
    REVERSE_KL,
    TV,
    Wasserstein,
    constrained_chi2,
    constrained_kl,
    constrained_tv,
    cressie_read,
    divergence_of,
    regularised_chi2,
    regularised_kl,
    regularised_tv,
    worst_case,
)
from rlcore.robust.operators import log1p

S = 5
NAMES = ("tv", "kl", "chi2")
# Closed forms err by a few roundings of the values' size (here at most 3); sums have at most S terms.
EXACT = 1e-13
# Names, then the members of the general dual.
GENERAL = {"TV": TV, "KL": KL, "CHI2": CHI2, "HELLINGER": HELLINGER, "REVERSE_KL": REVERSE_KL, "CR": cressie_read(1.5)}


def problem(key):
    """A law with zero masses and tied values, a price and a radius."""
    keys = jax.random.split(key, 6)
    law = jax.random.dirichlet(keys[0], jnp.full(S, 0.5))
    kept = (jax.random.uniform(keys[1], (S,)) > 0.3) | (law == jnp.max(law))
    law = jnp.where(kept, law, 0)
    values = 3 * jax.random.uniform(keys[2], (S,))
    values = jnp.where(jax.random.uniform(keys[3], (S,)) > 0.3, values, values[0])
    price = jnp.exp(jax.random.uniform(keys[4], minval=jnp.log(0.01), maxval=jnp.log(30.0)))
    radius = jnp.exp(jax.random.uniform(keys[5], minval=jnp.log(0.003), maxval=jnp.log(1.6)))
    return law / jnp.sum(law), values, price, radius


PROBLEMS = jax.jit(jax.vmap(problem))(jax.random.split(jax.random.key(0), 300))


@functools.cache
def batch(name, constrained=False):
    """The operator on every problem."""
    law, values, price, radius = PROBLEMS
    level = price
    if constrained:
        level = jnp.minimum(radius, 1.0) if name in ("tv", "cvar") else radius
    divergence = GENERAL.get(name, name)
    return jax.jit(jax.vmap(lambda m, v, x: worst_case(divergence, m, v, x, constrained)))(law, values, level), level


def rows():
    return zip(*(np.asarray(x) for x in PROBLEMS), strict=True)


# ---- independent programmes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("constrained", [False, True])
def test_total_variation_is_the_linear_programme(constrained):
    found, levels = batch("tv", constrained)
    for i, (law, values, *_) in enumerate(rows()):
        if i >= 60:
            break
        # q = m + up - down; TV is half of the sum of up and down
        level = levels[i].item()
        half = np.full(2 * S, 0.5)
        moves = np.concatenate([values, -values])
        equal = np.concatenate([np.ones(S), -np.ones(S)])[None]
        keep = np.concatenate([-np.eye(S), np.eye(S)], axis=1)
        if constrained:
            answer = linprog(moves, np.vstack([keep, half]), np.append(law, level), equal, [0.0])
        else:
            answer = linprog(moves + level * half, keep, law, equal, [0.0])
        # HiGHS's own tolerance is 1e-7 on constraints; on problems this small its vertices are exact
        assert abs(values @ law + answer.fun - found.value[i]) < 1e-9


@pytest.mark.parametrize("constrained", [False, True])
def test_wasserstein_is_the_linear_programme(constrained):
    place = jnp.array([0.0, 0.3, 0.4, 1.0, 2.0])
    cost = jnp.abs(place[:, None] - place[None, :])
    law, values, price, radius = PROBLEMS
    level = radius if constrained else price
    found = jax.vmap(lambda m, v, x: worst_case(Wasserstein(cost), m, v, x, constrained))(law, values, level)
    from_row = np.kron(np.eye(S), np.ones(S))
    for i, (law, values, *_) in enumerate(rows()):
        if i >= 40:
            break
        gain, flat = np.tile(values, S), np.asarray(cost).ravel()
        if constrained:
            answer = linprog(gain, flat[None], [level[i].item()], from_row, law)
        else:
            answer = linprog(gain + level[i].item() * flat, None, None, from_row, law)
        # the price of the ball is bisected: the mixture spends the radius to rounding
        assert abs(answer.fun - found.value[i]) < 1e-9
    np.testing.assert_allclose(jnp.sum(found.worst_kernel, axis=1), 1, rtol=0, atol=1e-14)


def test_cvar_is_the_linear_programme():
    law, values, *_ = PROBLEMS
    level = jnp.linspace(0.01, 1.0, len(law))
    found = jax.vmap(lambda m, v, x: worst_case("cvar", m, v, x, True))(law, values, level)
    for i in range(0, 300, 6):
        bounds = np.stack([np.zeros(S), np.asarray(law[i]) / level[i].item()], axis=1)
        answer = linprog(np.asarray(values[i]), A_eq=np.ones((1, S)), b_eq=[1.0], bounds=bounds)
        assert abs(answer.fun - found.value[i]) < 1e-9
    # the TV ball is the least value and the mean of the lowest 1 - radius
    radius = jnp.minimum(PROBLEMS[3], 0.99)
    tail = jax.vmap(lambda m, v, x: worst_case("cvar", m, v, x, True).value)(law, values, 1 - radius)
    ball = jax.vmap(constrained_tv)(law, values, radius).value
    np.testing.assert_allclose(radius * jnp.min(values, axis=1) + (1 - radius) * tail, ball, rtol=0, atol=EXACT)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", ["kl", "chi2"])
def test_conic_programmes(name, constrained):
    cp = pytest.importorskip("cvxpy")
    found, levels = batch(name, constrained)
    # The solver needs more than one state, masses above its tolerance, and worst laws that are not 50 nats away.
    good = lambda law, price: np.sum(law > 0) > 1 and np.min(law[law > 0]) > 1e-3 and price > 0.05  # noqa: E731
    steady = [i for i, (law, _, price, _) in enumerate(rows()) if good(law, price)]
    for i in steady[:12]:
        law, values = (np.asarray(x[i]) for x in PROBLEMS[:2])
        on = law > 0
        q, m, v = cp.Variable(on.sum()), law[on], values[on]
        distance = cp.sum(cp.rel_entr(q, m)) if name == "kl" else cp.sum_squares(cp.multiply(q - m, 1 / np.sqrt(m)))
        rules, level = [q >= 0, cp.sum(q) == 1], levels[i].item()
        if constrained:
            programme = cp.Problem(cp.Minimize(q @ v), [*rules, distance <= level])
        else:
            programme = cp.Problem(cp.Minimize(q @ v + level * distance), rules)
        # an interior-point method stops at about 1e-8 of its own scale
        assert abs(programme.solve(solver=cp.CLARABEL) - found.value[i]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constrained", [False, True])
def test_no_feasible_law_does_better(name, constrained):
    # The independent check that needs no solver: 2 000 laws per problem, near and far, and the one that is returned.
    found, levels = batch(name, constrained)
    law, values, *_ = PROBLEMS
    distance = jax.vmap(lambda q, m: divergence_of(name, q, m))

    def others(key, m, worst):
        far_key, mix_key = jax.random.split(key)
        far = jax.random.dirichlet(far_key, jnp.full(S, 0.3), (200,))
        far = jnp.where((m > 0)[None] | (name == "tv"), far, 0)
        far = far / jnp.sum(far, axis=1, keepdims=True)
        mix = jax.random.uniform(mix_key, (200, 1)) ** 3
        return jnp.concatenate([(1 - mix) * m[None] + mix * far, (1 - mix) * worst[None] + mix * far])

    laws = jax.vmap(others)(jax.random.split(jax.random.key(1), len(law)), law, found.worst_kernel)
    far = jax.vmap(lambda qs, m: jax.vmap(lambda q: divergence_of(name, q, m))(qs))(laws, law)
    expected = jnp.einsum("nks,ns->nk", laws, values)
    own, cost = jnp.einsum("ns,ns->n", found.worst_kernel, values), distance(found.worst_kernel, law)
    if constrained:
        feasible = far <= levels[:, None]
        assert jnp.mean(feasible) > 0.1
        assert np.all(jnp.where(feasible, expected, jnp.inf) >= found.value[:, None] - EXACT)
        # the root of a square (chi-square) and 64 bisections (KL) leave half of the digits of the distance
        assert np.all(cost <= levels * (1 + 1e-7) + EXACT)
        np.testing.assert_allclose(own, found.value, rtol=0, atol=1e-7)
    else:
        assert np.all(expected + levels[:, None] * far >= found.value[:, None] - EXACT * (1 + levels[:, None]))
        # a distance near 0 keeps eps, and is multiplied by the level
        assert np.all(jnp.abs(own + levels * cost - found.value) <= EXACT * (1 + levels))
    assert np.all(found.worst_kernel >= 0)
    np.testing.assert_allclose(jnp.sum(found.worst_kernel, axis=1), 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "general"), [("tv", "TV"), ("kl", "KL"), ("chi2", "CHI2")])
def test_the_general_dual_agrees_with_the_closed_forms(name, general):
    closed, general = batch(name)[0], batch(general)[0]
    levels = batch(name)[1]
    # 100 bisections leave a few roundings of values and level
    assert np.all(jnp.abs(closed.value - general.value) <= EXACT * (1 + levels))
    if name != "tv":  # a worst law of TV need not be unique
        np.testing.assert_allclose(closed.worst_kernel, general.worst_kernel, rtol=0, atol=1e-9)


def test_half_of_chi_square_is_a_cressie_read_divergence():
    law, values, price, _ = PROBLEMS
    half = jax.vmap(lambda m, v, x: worst_case(cressie_read(2.0), m, v, x))(law, values, 2 * price)
    assert np.all(jnp.abs(half.value - batch("chi2")[0].value) <= EXACT * (1 + price))


@pytest.mark.parametrize("name", ["HELLINGER", "REVERSE_KL", "CR"])
def test_other_divergences_are_attained_and_not_beaten(name):
    found, levels = batch(name)
    law, values, *_ = PROBLEMS
    distance = jax.vmap(lambda q, m: divergence_of(GENERAL[name], q, m))(found.worst_kernel, law)
    attained = jnp.einsum("ns,ns->n", found.worst_kernel, values) + levels * distance
    # the centre is bisected: an error e of the centre costs e^2 in the value and e in the law
    np.testing.assert_allclose(attained, found.value, rtol=1e-9, atol=1e-9)
    other = jax.random.dirichlet(jax.random.key(2), jnp.ones(S), law.shape[:1])
    for mix in (1e-3, 0.1, 1.0):
        moved = (1 - mix) * found.worst_kernel + mix * other
        cost = jax.vmap(lambda q, m: divergence_of(GENERAL[name], q, m))(moved, law)
        assert np.all(jnp.einsum("ns,ns->n", moved, values) + levels * cost >= found.value - 1e-9)


# ---- what all operators share --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "HELLINGER", "cvar"])
@given(seed=st.integers(0, 2**31), shift=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10.0))
def test_common_properties(name, seed, shift, scale):
    law, values, price, _ = problem(jax.random.key(seed))
    constrained = name == "cvar"
    level = jnp.minimum(price / 30, 1.0) if constrained else price
    solve = _solver(name, constrained)
    value = solve(law, values, level).value
    size = 3 + price
    # invariances: constants, and values with their price (a radius has no unit)
    assert abs(solve(law, values + shift, level).value - value - shift) <= 1e-13 * (abs(shift) + size)
    scaled = solve(law, scale * values, level if constrained else scale * level).value
    assert abs(scaled - scale * value) <= 1e-12 * scale * size
    # monotone, 1-Lipschitz, between the least value and the mean
    higher = values + jax.random.uniform(jax.random.key(seed + 1), (S,))
    above = solve(law, higher, level).value
    assert -1e-12 * size <= above - value <= jnp.max(higher - values) + 1e-12 * size
    assert jnp.min(values) - 1e-12 * size <= value <= law @ values + 1e-12 * size
    # concave in (values, level), nondecreasing in the level
    middle = solve(law, (values + higher) / 2, level).value
    assert middle >= (value + above) / 2 - 1e-12 * size
    if not constrained:
        between = solve(law, (values + higher) / 2, (level + 2 * level) / 2).value
        assert between >= (value + solve(law, higher, 2 * level).value) / 2 - 1e-12 * size
        assert solve(law, values, 2 * level).value >= value - 1e-12 * size


@functools.cache
def _solver(name, constrained):
    return jax.jit(lambda m, v, x: worst_case(GENERAL.get(name, name), m, v, x, constrained))


@pytest.mark.parametrize("name", NAMES)
def test_regularised_is_the_ball_at_its_price(name):
    ball, radius = batch(name, True)
    law, values, *_ = PROBLEMS
    at = jax.vmap(lambda m, v, x: {"tv": regularised_tv, "kl": regularised_kl, "chi2": regularised_chi2}[name](m, v, x))
    price = ball.dual
    np.testing.assert_allclose(at(law, values, price).value - price * radius, ball.value, rtol=0, atol=1e-9)
    for factor in (0.0, 0.5, 0.9, 1.1, 3.0):
        lower = at(law, values, factor * price + (1.0 if factor == 3.0 else 0.0))
        moved = factor * price + (1.0 if factor == 3.0 else 0.0)
        assert np.all(lower.value - moved * radius <= ball.value + 1e-9)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", [*NAMES, "HELLINGER"])
def test_the_gradient_is_the_worst_kernel(name, constrained):
    if constrained and name not in NAMES:
        pytest.skip("no ball of a general f")
    found, levels = batch(name, constrained)
    law, values, *_ = PROBLEMS
    solve = jax.jit(jax.vmap(_solver(name, constrained)))
    of = lambda m, v, x: _solver(name, constrained)(m, v, x).value  # noqa: E731
    by_law, by_value, by_level = jax.jit(jax.vmap(jax.grad(of, argnums=(0, 1, 2))))(law, values, levels)
    np.testing.assert_allclose(by_value, found.worst_kernel, rtol=0, atol=1e-15)
    # Differences, where the worst law is unique and smooth: no ties, off the kinks (the two one-sided ones agree).
    step = 1e-6
    up, down = (solve(law, values, levels * (1 + x)).value for x in (step, -step))
    middle = found.value
    smooth = jnp.abs(up + down - 2 * middle) < 1e-9
    assert jnp.mean(smooth) > 0.8
    numeric = (up - down) / (2 * step * levels)
    # error: curvature step^2 and rounding 1e-16 / step
    np.testing.assert_allclose(jnp.where(smooth, by_level - numeric, 0), 0, rtol=0, atol=2e-5)
    # a law moves along the simplex, towards another law on the same support
    on = jnp.where(law > 0, 1.0, 0.0)
    other = on / jnp.sum(on, axis=1, keepdims=True)
    plus = solve((1 - step) * law + step * other, values, levels).value
    smooth &= jnp.abs(plus - middle) < 1e-4
    slope = jnp.einsum("ns,ns->n", by_law, other - law)
    close = jnp.abs((plus - middle) / step - slope) < 1e-3 * (1 + jnp.abs(slope))
    assert jnp.mean(close | ~smooth) > 0.9


# ---- edges -----------------------------------------------------------------------------------------------------------

VALUES = jnp.array([2.0, 1.0, 0.5, 3.0])
LAW = jnp.array([0.3, 0.5, 0.0, 0.2])


@pytest.mark.parametrize("name", NAMES)
def test_extreme_levels(name):
    solve = jax.jit({"tv": regularised_tv, "kl": regularised_kl, "chi2": regularised_chi2}[name])
    gradient = jax.jit(jax.grad(lambda *at: solve(*at).value, (0, 1, 2)))
    mean, least = LAW @ VALUES, 0.5 if name == "tv" else 1.0
    infinite, none = solve(LAW, VALUES, jnp.inf), solve(LAW, VALUES, 0.0)
    np.testing.assert_allclose(infinite.value, mean, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(infinite.worst_kernel, LAW)
    assert none.value == least and none.worst_kernel[jnp.argmin(jnp.abs(VALUES - least))] == 1
    for level in (1e3, 1e8, 1e12, 1e200):
        gap = {"tv": 0.0, "kl": 0.61 / (2 * level), "chi2": 0.61 / (4 * level)}[name]  # variance 0.61
        # the next term is of order 1 / level^2; no digit is lost to the level itself
        assert abs(solve(LAW, VALUES, level).value - (mean - gap)) <= min(1.0, 1 / level) ** 2 + EXACT
    for level in (1e-3, 1e-12, 1e-300):
        found = solve(LAW, VALUES, level)
        assert least <= found.value <= least + level and jnp.all(jnp.isfinite(found.worst_kernel))
        assert all(jnp.all(jnp.isfinite(x)) for x in gradient(LAW, VALUES, level))


def test_nothing_moves_at_an_infinite_transport_price():
    cost = jnp.abs(jnp.arange(4.0)[:, None] - jnp.arange(4.0)[None, :])
    solve = lambda *at: worst_case(Wasserstein(cost), *at)  # noqa: E731
    for level in (jnp.inf, 1e300):
        found = solve(LAW, VALUES, level)
        assert abs(found.value - LAW @ VALUES) <= EXACT
        np.testing.assert_array_equal(found.worst_kernel, LAW)
    by_value, by_level = jax.grad(lambda v, x: solve(LAW, v, x).value, (0, 1))(VALUES, jnp.inf)
    np.testing.assert_array_equal(by_value, LAW)
    assert by_level == 0
    # where moving is free, mass moves at any price
    assert worst_case(Wasserstein(0 * cost), LAW, VALUES, jnp.inf).value == 0.5


@pytest.mark.parametrize("name", [n for n in GENERAL if n != "TV"])
def test_the_general_dual_at_levels_below_the_rounding_of_the_values(name):
    for dtype, level in ((jnp.float32, 1e-12), (jnp.float64, 1e-20)):
        found = _solver(name, False)(LAW.astype(dtype), VALUES.astype(dtype), dtype(level))
        # HELLINGER and REVERSE_KL may leave the support at a price, the others not
        least = 0.5 if name in ("HELLINGER", "REVERSE_KL") else 1.0
        np.testing.assert_allclose(found.value, least, rtol=0, atol=4 * jnp.finfo(dtype).eps)
        assert abs(found.worst_kernel[jnp.argmin(jnp.abs(VALUES - least))] - 1) < 1e-3


def test_integer_values_do_not_round_the_level():
    found = worst_case("tv", jnp.array([0.5, 0.5]), jnp.array([0, 1]), 0.25)
    assert found.value == 0.125


@pytest.mark.parametrize("name", NAMES)
def test_extreme_radii(name):
    solve = jax.jit({"tv": constrained_tv, "kl": constrained_kl, "chi2": constrained_chi2}[name])
    mean, least = LAW @ VALUES, 0.5 if name == "tv" else 1.0
    free = solve(LAW, VALUES, 0.0)
    np.testing.assert_allclose(free.value, mean, rtol=0, atol=EXACT)
    np.testing.assert_allclose(free.worst_kernel, LAW, rtol=0, atol=EXACT)
    by_law = jax.grad(lambda m: solve(m, VALUES, 0.0).value)(LAW)
    towards = jnp.array([0.2, -0.5, 0.0, 0.3])
    np.testing.assert_allclose(by_law @ towards, VALUES @ towards, rtol=0, atol=EXACT)
    whole = solve(LAW, VALUES, 1.0 if name == "tv" else 50.0)
    assert abs(whole.value - least) <= EXACT and whole.dual == 0
    for radius in (1e-6, 1e-12, 1e-20, 1e-30):
        gap = {"tv": 2.5 * radius, "kl": np.sqrt(2 * 0.61 * radius), "chi2": np.sqrt(0.61 * radius)}[name]
        # next order in the radius (third moments), and rounding
        assert abs(solve(LAW, VALUES, radius).value - (mean - gap)) <= 3 * radius + 2e-15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constrained", [False, True])
def test_degenerate_laws_and_values(name, constrained):
    level = 0.4
    one = worst_case(name, jnp.ones(1), jnp.array([1.5]), level, constrained)
    assert one.value == 1.5 and one.worst_kernel[0] == 1
    solve = _solver(name, constrained)
    flat = solve(LAW, jnp.full(4, 1.5), level)
    assert flat.value == 1.5 and abs(jnp.sum(flat.worst_kernel) - 1) < EXACT
    sure = solve(jnp.array([0.0, 1.0, 0.0, 0.0]), VALUES, level)
    if name == "tv":  # moves mass to state 2, at cost 0.5 > 0.4 or up to the radius
        assert abs(sure.value - (0.8 if constrained else 0.9)) < EXACT
    else:  # a Dirac mass cannot move
        assert sure.value == 1.0 and sure.worst_kernel[1] == 1
    # values off the support are never read by KL and chi-square, however large
    huge = solve(LAW, VALUES.at[2].set(1e300), level)
    assert abs(huge.value - solve(LAW, VALUES.at[2].set(3.0), level).value) < EXACT
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(lambda v: solve(LAW, v, level).value))(VALUES)))


@pytest.mark.parametrize("name", [*NAMES, "HELLINGER", "cvar"])
@pytest.mark.parametrize("constrained", [False, True])
def test_single_precision(name, constrained):
    if (name == "cvar") != constrained and name in ("cvar", "HELLINGER"):
        pytest.skip("no such problem")
    found, levels = batch(name, constrained)
    law, values, *_ = (x.astype(jnp.float32) for x in PROBLEMS)
    single = jax.jit(jax.vmap(_solver(name, constrained)))(law, values, levels.astype(jnp.float32))
    assert single.value.dtype == single.worst_kernel.dtype == single.dual.dtype == jnp.float32
    # 2^-24 relative on values and, in sums of squares and roots, about its square root at a boundary of the ball
    tolerance = 3e-3 if constrained and name != "cvar" else 1e-5
    np.testing.assert_allclose(single.value.astype(jnp.float64), found.value, rtol=0, atol=tolerance)
    assert worst_case("tv", law[0], values[0], 1).value.dtype == jnp.float32  # an integer price


def test_the_logarithm_keeps_its_digits():
    x = np.concatenate([-np.geomspace(1e-300, 0.999, 4000), np.geomspace(1e-300, 3, 1000)])
    found = jax.jit(log1p)(jnp.asarray(x))
    # XLA's own: 115 eps at -0.41; below -1/4 the sum 1 + x is rounded, which costs eps / log(4/3)
    np.testing.assert_allclose(found, np.log1p(x), rtol=4 * np.finfo(float).eps, atol=0)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l2", LAW, VALUES, 1.0), "divergence: found 'l2', expected one of tv, kl, chi2"),
        (("tv", LAW, VALUES, 0.0), "level: found 0.0, expected prices above 0"),
        (("kl", LAW, VALUES, -1.0), "level: found -1.0, expected prices above 0"),
        (("chi2", LAW, VALUES, np.nan), "level: found NaN"),
        ((HELLINGER, LAW, VALUES, np.inf), "level: found inf, expected finite prices"),
        (("tv", LAW, VALUES, 1.1, True), r"level: found 1.1, expected radii in \[0, 1\]"),
        (("kl", LAW, VALUES, -0.1, True), "level: found -0.1, expected finite radii"),
        (("chi2", LAW, VALUES, np.inf, True), "level: found inf, expected finite radii"),
        (("cvar", LAW, VALUES, 0.0, True), r"level: found 0.0, expected levels in \(0, 1\]"),
        (("cvar", LAW, VALUES, 0.5), "constrained: found False with 'cvar', expected True"),
        ((HELLINGER, LAW, VALUES, 0.5, True), "constrained: found True with hellinger"),
        (("tv", LAW, VALUES.at[0].set(np.nan), 1.0), "values: found NaN"),
        (("tv", LAW.at[0].set(np.nan), VALUES, 1.0), "reference: found NaN"),
        (("tv", LAW.at[0].set(-0.3), VALUES, 1.0), "reference: found shape"),
        (("tv", 2 * LAW, VALUES, 1.0), "reference: found .* sum 2"),
        (("tv", LAW, VALUES, jnp.ones(4)), r"level: found shape \(4,\), expected one number"),
        ((Wasserstein(jnp.ones((3, 3))), LAW, VALUES, 1.0), r"cost: found shape \(3, 3\), expected \(4, 4\)"),
        ((Wasserstein(jnp.ones((4, 4))), LAW, VALUES, 1.0), "cost: found entries .* diagonal up to 1"),
        ((Wasserstein(-1 + jnp.eye(4)), LAW, VALUES, 1.0), r"cost: found entries in \[-1, 0\]"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        worst_case(*arguments)
    with pytest.raises(ValueError, match=r"power: found 1\.0"):
        cressie_read(1.0)
    with pytest.raises(ValueError, match="divergence: found 'l2'"):
        divergence_of("l2", LAW, LAW)
    with pytest.raises(ValueError, match="divergence: found Wasserstein, expected a name or an FDivergence"):
        divergence_of(Wasserstein(jnp.zeros((4, 4))), LAW, LAW)
