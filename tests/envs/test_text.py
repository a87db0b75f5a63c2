"""The enumerable text problem: golden numbers of the specification, structure, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.text import bigram_text, cyclic_text
from rlcore.nash import equilibrium, kl


@pytest.fixture(scope="module")
def standard():
    return bigram_text(0)


@pytest.fixture(scope="module")
def solved(standard):
    return jax.jit(lambda t: equilibrium(*standard.game()._replace(temperature=t)).value)


def test_start_and_equilibrium_are_those_of_the_specification(standard, solved):
    game = standard.game()
    # As many digits as the specification prints.
    assert abs(float(game.gap(game.reference_logits)) - 0.449) < 5e-4
    assert abs(float(kl(solved(game.temperature), game.reference_logits)) - 3.01) < 5e-3


@pytest.mark.parametrize(
    ("mixture", "gap"), [(0, 0), (0.125, 1.6e-4), (0.25, 8.3e-4), (0.5, 1.06e-2), (0.75, 7.2e-2), (1, 0.170)]
)
def test_stationary_gaps_of_opponent_mixtures(standard, solved, mixture, gap):
    game = standard.game()
    # T3b: the best response to the equilibrium at temperature tau / (1 - c); at c = 1 to the reference.
    opponent = game.reference_logits if mixture == 1 else solved(game.temperature / (1 - mixture))
    found = float(game.gap(game.best_response(opponent)))
    digit = {0: 1e-12, 0.125: 5e-6, 0.25: 5e-6, 0.5: 5e-5, 0.75: 5e-4, 1: 5e-4}[mixture]
    assert abs(found - gap) <= digit


def test_other_seeds_and_the_cyclic_variant_are_in_the_printed_ranges():
    gaps = [float(g.gap(g.reference_logits)) for g in (bigram_text(s).game() for s in (1, 2))]
    assert all(0.285 <= gap <= 0.475 for gap in gaps)
    for cycle, gap in ((1.0, 0.0434), (0.6, 0.024)):
        game = cyclic_text(0, cycle=cycle).game()
        assert abs(float(game.gap(game.reference_logits)) - gap) < (5e-5 if cycle == 1 else 5e-4)


def test_reference_is_the_bigram_model():
    text = envs.make("text/bigram", seed=3, vocabulary=3, length=3)
    tokens = np.indices((3, 3, 3)).reshape(3, -1).T
    reference = np.asarray(text.reference)
    np.testing.assert_allclose(np.exp(reference).sum(1), 1, rtol=1e-14)
    byhand = [reference[3, a] + reference[a, b] + reference[b, c] for a, b, c in tokens]
    np.testing.assert_allclose(text.game().reference_logits, byhand, rtol=1e-13)
    assert float(jnp.max(jnp.abs(text.preference + text.preference.T - 1))) == 0
    assert text.astype(jnp.float32).reference.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vocabulary", dict(vocabulary=1)),
        ("length", dict(length=0)),
        ("vocabulary", dict(vocabulary=50, length=4)),
        ("temperature", dict(vocabulary=2, length=2, temperature=0.0)),
    ],
)
def test_bad_input_is_named(name, arguments):
    with pytest.raises(ValueError, match=f"^{name}.*found"):
        bigram_text(0, **arguments)
