"""An attack must find what random draws miss: the equality case of Cauchy-Schwarz in 20 dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore import claims
from rlcore.claims import Bound, Falsifier, statement


def vectors(key, n):
    return jax.random.normal(key, (2, n))


def to_ball(xy):
    return xy / jnp.maximum(jnp.linalg.norm(xy, axis=1, keepdims=True), 1.0)


def cauchy_schwarz(xy, constant=1.0, looped=False):
    x, y = xy
    if looped:  # no reverse derivative
        x = jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, 1.5 * c[1]), (0, x))[1]
    rhs = constant * jnp.linalg.norm(x) * jnp.linalg.norm(y)
    return Bound(x @ y, rhs, jnp.sum(jnp.abs(x * y)) + rhs)


def entry(**kwargs):
    options = {"generator": vectors, "project": to_ball, "cases": [{"n": 20}]} | kwargs
    return statement(
        "test/cs",
        "",
        falsifiers=[Falsifier("c", {"constant": 0.01}, 0.5)],
        origin=claims.derived_here("here"),
        proof="",
        **options,
    )(cauchy_schwarz)


def test_gradients_find_the_equality_case():
    found = claims.attack(entry(), candidates=128, population=4, generations=50)
    assert found.best > found.random and np.exp(2 * np.arctanh(found.random)) < 0.9  # lhs / rhs of random draws
    assert found.tightness > 0.99 and not found.violated
    assert "gradients" in found.method and "evolution" in found.method
    x, y = found.instance
    assert x @ y > 0.99 * np.linalg.norm(x) * np.linalg.norm(y)


def test_an_attack_violates_a_wrong_constant_that_random_draws_obey():
    setting = {"constant": 0.99}
    wrong = statement(
        "test/wrong", "", falsifiers=[Falsifier("c", {"constant": 0.01}, 0.5)], proof="",
        origin=claims.derived_here("here"),
        generator=vectors, project=to_ball, cases=[{"n": 20}],
    )(lambda xy, constant=0.99: cauchy_schwarz(xy, constant))  # fmt: skip
    assert claims.check(wrong, instances=300).outcome == "holds"
    found = claims.attack(entry(), candidates=128, population=4, generations=50, setting=setting)
    assert found.violated and found.tightness > 1
    kept = jax.tree.map(lambda x: x[None], found.instance)
    report = claims.check(wrong, instances=300, hard={0: jnp.asarray(kept)})
    assert report.outcome == "violated" and report.failures[0] == {"case": 0, "hard": 0}


def test_without_derivative_or_projection_the_report_says_so():
    looped = claims.attack(entry(), candidates=64, population=2, generations=300, setting={"looped": True})
    assert "gradients skipped" in looped.method and looped.best > looped.random
    keys_only = claims.attack(entry(project=None), candidates=64)
    assert keys_only.method == "random search" and keys_only.best == keys_only.random


def test_a_violation_that_no_ratio_measures_is_the_hardest_of_all():
    def mostly_fine(xy, constant=1.0, flaw=jnp.nan):
        rare = xy[0, 0] > 2.0  # one vector in 44
        bound = cauchy_schwarz(xy, constant)
        return bound._replace(lhs=jnp.where(rare, flaw, bound.lhs), rhs=jnp.where(rare, 0.0, bound.rhs))

    for flaw in (jnp.nan, 1.0):
        for project in (None, to_ball):
            falsifiers = [Falsifier("c", {"constant": 0.01}, 0.5)]
            flawed = statement(
                "test/flawed", "", falsifiers=falsifiers, origin=claims.derived_here("here"), proof="",
                generator=vectors, project=project, cases=[{"n": 3}],
            )(mostly_fine)  # fmt: skip
            found = claims.attack(
                flawed, candidates=512, population=2, gradient_steps=5, generations=5, setting={"flaw": flaw}
            )
            assert found.violated and found.best == np.inf


def test_more_climbers_than_candidates_are_not_needed():
    found = claims.attack(entry(), candidates=4, population=16, gradient_steps=2, generations=2)
    assert not found.violated


def test_what_cannot_be_attacked_is_refused():
    with pytest.raises(ValueError, match="case: found 3"):
        claims.attack(entry(), case=3)
    with pytest.raises(ValueError, match="host or sampled"):
        claims.attack(entry(host=True))
