"""The runner on claims whose outcome is known: it must answer as its contract says, and be able to say no."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import claims
from rlcore.claims import Bound, Chance, Exact, Falsifier, Sampled, identity, statement

HERE = claims.derived_here("docs/proofs/none.md")


def cauchy_schwarz(key, *, shift=0.0, constant=1.0):
    """<x, y> <= constant |x| |y|."""
    x, y = jax.random.normal(key, (2, 5))
    lhs, rhs = x @ y + shift, constant * jnp.linalg.norm(x) * jnp.linalg.norm(y)
    return Bound(lhs, rhs, scale=jnp.sum(jnp.abs(x * y)) + rhs)


SHIFTED = Falsifier("an added constant", {"shift": 10.0}, share=0.5)


def declared(claim, **kwargs):
    options = {"falsifiers": [SHIFTED], "origin": HERE, "proof": ""} | kwargs
    return statement("test/one", "a test", **options)(claim)


def test_a_true_claim_holds_and_its_falsifier_bites():
    report = claims.check(declared(cauchy_schwarz), instances=300)
    assert report.outcome == "holds" and report.passed
    assert report.applicable == report.nontrivial == 300 and report.violations == 0
    assert 0 < report.tightness <= 1 and report.worst_slack <= 0
    assert report.falsifiers[0].passed and report.falsifiers[0].measured > 0.5


def test_a_plain_function_and_a_broken_function_are_enough():
    report = claims.check(cauchy_schwarz, falsifier=lambda key: cauchy_schwarz(key, shift=10.0), instances=200)
    assert report.passed and "holds" in str(report)


def test_a_wrong_constant_is_violated_and_names_an_instance_that_replays():
    wrong = declared(lambda key, shift=0.0: cauchy_schwarz(key, shift=shift, constant=0.5))
    report = claims.check(wrong, instances=300, seed=3)
    assert report.outcome == "violated" and not report.passed and report.violations > 0
    failure = report.failures[0]
    bound = cauchy_schwarz(
        claims.instance_key(failure["seed"], "test/one", failure["case"], failure["index"]), constant=0.5
    )
    assert bound.lhs > bound.rhs
    again = claims.check(declared(cauchy_schwarz), instances=100, seed=9, replays=[failure])
    assert again.replayed == 1 and again.passed
    replayed = claims.check(wrong, instances=1, seed=9, replays=[failure])
    assert failure in [dict(f) for f in replayed.failures]


@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("field", ["lhs", "rhs", "scale", "error"])
def test_nan_and_infinities_fail_wherever_they_stand(poison, field):
    claim = lambda key: cauchy_schwarz(key)._replace(**{field: poison})  # noqa: E731
    assert claims.check(declared(claim, falsifiers=[SHIFTED_ANY]), instances=100).outcome == "violated"


SHIFTED_ANY = Falsifier("an added constant", lambda key: cauchy_schwarz(key, shift=10.0), share=0.5)


def test_vacuous_is_never_holding():
    too_few = claims.check(declared(cauchy_schwarz), instances=99)
    assert too_few.outcome == "vacuous" and not too_few.passed
    says_nothing = declared(lambda key, shift=0.0: cauchy_schwarz(key, shift=shift)._replace(trivial=0.0))
    assert claims.check(says_nothing, instances=200).outcome == "vacuous"
    no_premise = declared(lambda key, shift=0.0: cauchy_schwarz(key, shift=shift)._replace(applies=False))
    assert claims.check(no_premise, instances=200).outcome == "vacuous"


def test_instances_without_the_premise_do_not_count():
    def half(key, shift=0.0):
        bound = cauchy_schwarz(key, shift=shift, constant=1.0)
        applies = jax.random.uniform(jax.random.fold_in(key, 1)) < 0.5
        return bound._replace(applies=applies, lhs=jnp.where(applies, bound.lhs, jnp.nan))

    report = claims.check(declared(half), instances=600)
    assert report.outcome == "holds" and 200 < report.applicable < 400


def test_a_falsifier_that_does_not_bite_fails_the_statement():
    tame = Falsifier("nothing at all", {"shift": 0.0}, share=0.5)
    report = claims.check(declared(cauchy_schwarz, falsifiers=[tame]), instances=200)
    assert report.outcome == "holds" and not report.passed
    assert not report.falsifiers[0].passed and "measured share 0.000" in report.falsifiers[0].reason
    rare = Falsifier("a small constant", {"shift": 0.5}, share=0.9)
    assert not claims.check(declared(cauchy_schwarz, falsifiers=[rare]), instances=200).passed


def test_a_falsifier_whose_control_arm_fails_proves_nothing():
    bad_ground = Falsifier("an added constant", {"shift": 10.0}, share=0.5, setting={"constant": 0.1})
    report = claims.check(declared(cauchy_schwarz, falsifiers=[bad_ground]), instances=200)
    assert not report.passed and "unbroken claim fails" in report.falsifiers[0].reason


def test_nan_in_a_broken_claim_is_no_bite():
    broken = Falsifier("not a number", lambda key: cauchy_schwarz(key)._replace(lhs=jnp.nan), share=0.5)
    assert not claims.check(declared(cauchy_schwarz, falsifiers=[broken]), instances=200).passed


def test_the_tolerance_is_64_eps_scale_plus_error():
    eps = np.finfo(np.float64).eps
    at = lambda miss, error=0.0: lambda key: Bound(1.0 + miss, 1.0, 2.0, error)  # noqa: E731
    always = Falsifier("a miss", lambda key: Bound(2.0, 1.0, 2.0), share=1.0)
    run = lambda claim: claims.check(declared(claim, falsifiers=[always]), instances=100).outcome  # noqa: E731
    assert run(at(128 * eps)) == "holds"
    assert run(at(129 * eps)) == "violated"
    assert run(at(1e-6, error=1e-6)) == "holds"


def test_an_identity_is_two_bounds():
    def squares(key, wrong=0.0):
        x, y = jax.random.normal(key, (2,))
        return identity((x + y) * (x - y), x**2 - y**2 + wrong, scale=x**2 + y**2)

    for sign in (1.0, -1.0):
        entry = declared(squares, falsifiers=[Falsifier("a constant", {"wrong": sign * 1e-6}, share=1.0)])
        assert claims.check(entry, instances=200).passed


def test_several_bounds_and_cases_and_generators():
    def pair(key, n):
        return jax.random.normal(key, (2, n))

    def claim(instance, sign=1.0):
        x, y = instance
        rhs = jnp.linalg.norm(x) * jnp.linalg.norm(y)
        scale = jnp.sum(jnp.abs(x * y)) + rhs
        return [Bound(sign * x @ y, rhs, scale), Bound(-sign * jnp.sum(x * y), rhs, scale)]

    entry = declared(
        claim, generator=pair, cases=[{"n": 2}, {"n": 7}], falsifiers=[Falsifier("signs", {"sign": -20.0}, share=0.9)]
    )
    report = claims.check(entry, instances=201)
    assert report.outcome == "holds" and report.passed and report.applicable == 201
    # Either side alone fails for half of the signs of <x, y>: one inequality of several is enough.
    assert report.falsifiers[0].instances == 201 and report.falsifiers[0].measured > 0.9


def test_host_statements_run_outside_jit():
    def lp(key, shift=0.0):
        x = np.asarray(jax.random.normal(key, (3,)))
        return Bound(float(np.max(x)) + shift, float(np.linalg.norm(x)), float(np.sum(np.abs(x))))

    assert claims.check(declared(lp, host=True), instances=120).passed


def test_not_run_is_told_apart():
    def absent(key):
        raise claims.NotRun("the data set is not here")

    report = claims.check(declared(absent), instances=100)
    assert report.outcome == "not run" and "data set" in report.words


def test_refuted_needs_exact_arithmetic_and_words_follow_the_origin():
    counterexample = lambda: Exact(Fraction(2, 3), Fraction(1, 2), "x = 1/3")  # noqa: E731
    build = lambda origin, exact=counterexample: declared(  # noqa: E731
        lambda key, shift=0.0: cauchy_schwarz(key, shift=shift, constant=0.5),
        origin=origin,
        refutation=exact,
        corrected="test/two",
        falsifiers=[],
    )
    run = lambda entry: claims.check(entry, instances=100)  # noqa: E731
    assert run(build(claims.paper("v3, Theorem 1"))).words == "false as published (v3, Theorem 1)"
    quoted = run(build(claims.as_quoted("a digest")))
    assert quoted.words == "refuted as quoted in a digest; the paper's own statement was not read" and quoted.passed
    assert "released formula fails" in run(build(claims.released_code("a.py"))).words
    weak = run(build(claims.paper("v3"), lambda: Exact(Fraction(1, 2), Fraction(1, 2), "equal")))
    assert weak.outcome == "violated" and not weak.passed and "false" not in weak.words


@pytest.mark.parametrize(("threshold", "outcome"), [(0.6, "holds"), (0.4, "violated"), (0.5, "undecided")])
def test_expectations_are_decided_by_intervals(threshold, outcome):
    def mean_of_uniforms(key, data, shift=0.0):
        values = jax.vmap(lambda k: jax.random.uniform(k) + shift)(data)
        return Sampled(values, threshold, shift, 1.0 + shift, scale=1.0)

    entry = declared(mean_of_uniforms, chance=Chance("expectation", 256, 4096))
    report = claims.check(entry, instances=100)
    assert report.outcome == outcome and report.passed == (outcome == "holds")


@pytest.mark.parametrize(("delta", "outcome"), [(0.2, "holds"), (0.05, "violated"), (0.1, "undecided")])
def test_probabilities_are_tested_on_a_fixed_instance(delta, outcome):
    def fails_one_in_ten(key, data, rate=0.1):
        values = jax.vmap(lambda k: jax.random.uniform(k) < rate)(data)
        return Sampled(values.astype(float), delta, 0.0, 1.0, scale=1.0)

    entry = declared(
        fails_one_in_ten,
        chance=Chance("probability", 512, 4096),
        falsifiers=[Falsifier("a higher rate", {"rate": 0.6}, share=0.9)],
    )
    assert claims.check(entry, instances=100).outcome == outcome


def test_values_outside_their_declared_range_fail():
    def liar(key, data, shift=0.0):
        return Sampled(jax.vmap(jax.random.uniform)(data) + shift, 0.9, 0.0, 0.5, scale=1.0)

    assert claims.check(declared(liar, chance=Chance()), instances=100).outcome == "violated"


def test_the_error_of_an_expectation_counts_as_that_of_a_bound():
    def mean(key, data, shift=0.0, error=0.0):
        values = jax.vmap(jax.random.uniform)(data) + shift
        return Sampled(values, 0.9 - 0.5 * (error > 0), shift, 1.0 + shift, scale=1.0, error=error)

    def run(error):
        falsifiers = [Falsifier("an added constant", {"shift": 500.0}, 0.5)]
        claim = lambda key, data, shift=0.0: mean(key, data, shift, error)  # noqa: E731
        return claims.check(declared(claim, chance=Chance(), falsifiers=falsifiers), instances=100)

    small, excused = run(0.4), run(1.0)  # 1/2 <= 0.4 + error, of terms of size 1
    assert small.outcome == "holds" and -0.4 < small.worst_slack < 0 and excused.outcome == "vacuous"
    assert run(0.0).worst_slack < 0


def test_a_probability_takes_zeros_and_ones_alone():
    def shares(key, data, rate=0.3):
        values = jax.vmap(lambda k: rate * jax.random.uniform(k))(data)
        return Sampled(values, 0.9, 0.0, 1.0, scale=1.0)

    entry = declared(shares, chance=Chance("probability"), falsifiers=[Falsifier("a rate", {"rate": 0.9}, 0.9)])
    assert claims.check(entry, instances=100).outcome == "violated"


def test_a_nan_premise_or_range_of_an_expectation_fails():
    for field in ("applies", "trivial"):

        def mean(key, data, shift=0.0, field=field):
            values = jax.vmap(jax.random.uniform)(data) + shift
            return Sampled(values, 0.9, shift, 1.0 + shift, scale=1.0)._replace(**{field: jnp.nan})

        assert claims.check(declared(mean, chance=Chance()), instances=100).outcome == "violated"


def test_intervals_cover():
    rng = np.random.default_rng(0)
    trials, level, rate = 400, 0.05, 0.03
    k = rng.binomial(trials, rate, 4000)
    low, high = claims.clopper_pearson(k, np.full(4000, trials), level)
    # coverage is at least 95%; four standard errors of 4000 draws at 5% are 1.4%
    assert np.mean((low > rate) | (high < rate)) <= level + 0.014
    x = rng.beta(0.3, 0.9, (4000, 50))
    low, high = claims.empirical_bernstein(x.mean(1), x.var(1, ddof=1), 50, 0.0, 1.0, level)
    assert np.mean((low > 0.25) | (high < 0.25)) <= level + 0.014
    assert np.all(claims.clopper_pearson(0, 10, level)[0] == 0) and np.all(
        claims.clopper_pearson(10, 10, level)[1] == 1
    )


def test_instances_depend_on_id_and_seed_only():
    key = claims.instance_key(5, "a/1", 0, 7)
    assert jnp.all(jax.random.key_data(key) == jax.random.key_data(claims.instance_key(5, "a/1", 0, 7)))
    for other in [(5, "a/2", 0, 7), (6, "a/1", 0, 7), (5, "a/1", 1, 7), (5, "a/1", 0, 8)]:
        assert jnp.any(jax.random.key_data(key) != jax.random.key_data(claims.instance_key(*other)))


def test_declarations_without_the_means_to_fail_are_refused():
    with pytest.raises(ValueError, match="falsifiers: found none"):
        declared(cauchy_schwarz, falsifiers=[])
    with pytest.raises(ValueError, match="falsifier: found None"):
        claims.check(cauchy_schwarz)
    with pytest.raises(ValueError, match=r"falsifier: found \[\]"):
        claims.check(cauchy_schwarz, falsifier=[])
    with pytest.raises(ValueError, match="falsifiers: found none in 'a/1'"):
        claims.check(claims.Statement("a/1", "", cauchy_schwarz, (), HERE, ""))
    for given in ({"falsifier": SHIFTED}, {"generator": lambda key: key}):
        with pytest.raises(ValueError, match="a Statement declares its own"):
            claims.check(declared(cauchy_schwarz), **given)
    with pytest.raises(ValueError, match="case: found 3 among the kept instances"):
        claims.check(declared(cauchy_schwarz), replays=[{"case": 3, "seed": 0, "index": 0}])
    with pytest.raises(ValueError, match="exactly one changed argument"):
        Falsifier("two at once", {"shift": 1.0, "constant": 2.0}, share=0.5)
    with pytest.raises(ValueError, match=r"share: found 0"):
        Falsifier("no share", {"shift": 1.0}, share=0.0)
    with pytest.raises(ValueError, match="one to three"):
        declared(cauchy_schwarz, cases=[{}] * 4)
    with pytest.raises(ValueError, match="memory is no test target"):
        claims.Origin("remembered", "somewhere")
    with pytest.raises(TypeError, match="expected a Bound"):
        claims.check(declared(lambda key, shift=0.0: (0.0, 1.0)), instances=100)
    with pytest.raises(ValueError, match="instances: found 0"):
        claims.check(declared(cauchy_schwarz), instances=0)


def test_float64_is_asked_for():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="needs float64"):
        claims.check(declared(cauchy_schwarz))
