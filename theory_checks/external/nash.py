"""Preference games beside pygambit (logit equilibria) and pref_voting (maximal lotteries)."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.preferences import random_skew
from rlcore.nash import equilibrium, log_normalise, lottery
from rlcore.solver import require_converged
from theory_checks.external import Row, version

NUM_GAMES = 100
SIZES = (2, 3, 5, 6, 7)
TOLERANCE = 1e-8  # in probability; ours are certified far below


def random_games():
    """(preference, temperature) pairs: sizes in turn, U(0, 1) preferences, temperatures log-spaced in [0.05, 2]."""
    temperatures = np.geomspace(0.05, 2.0, NUM_GAMES)
    rng = np.random.default_rng(0)
    for i, temperature in enumerate(rng.permutation(temperatures)):
        yield np.asarray(random_skew(jax.random.key(i), SIZES[i % len(SIZES)])), float(temperature)


def logit_equilibria() -> Row:
    """Symmetric logit quantal response equilibria: precision lambda = 1 / temperature, uniform reference."""
    what = f"regularised equilibria of {NUM_GAMES} random games, uniform reference"
    package = version("pygambit")
    if package is None:
        return Row(what, "pygambit missing", None, TOLERANCE)
    import pygambit

    largest = 0.0
    for preference, temperature in random_games():
        n = preference.shape[0]
        ours = require_converged(equilibrium(jnp.asarray(preference), log_normalise(jnp.zeros(n)), temperature)).value
        game = pygambit.Game.from_arrays(preference, preference.T)
        # Short steps along the branch: the solver corrects to its own accuracy at the end of each.
        (point,) = pygambit.qre.logit_solve_lambda(game, [1 / temperature], first_step=1e-3)
        first, second = ([float(point.profile[s]) for s in player.strategies] for player in game.players)
        largest = max(largest, *(float(np.max(np.abs(np.exp(ours) - other))) for other in (first, second)))
    return Row(what, package, largest, TOLERANCE)


def maximal_lotteries() -> Row:
    """The lottery of the margins, by enumeration of the vertices: no linear programme."""
    what = f"unregularised equilibria (maximal lotteries) of {NUM_GAMES} random games"
    package = version("pref_voting")
    if package is None:
        return Row(what, "pref_voting missing", None, TOLERANCE)
    from pref_voting.probabilistic_methods import maximal_lottery
    from pref_voting.weighted_majority_graphs import MarginGraph

    largest = 0.0
    for preference, _ in random_games():
        candidates = list(range(preference.shape[0]))
        margins = preference - preference.T
        edges = [(i, j, float(margins[i, j])) for i in candidates for j in candidates if margins[i, j] > 0]
        theirs = maximal_lottery(MarginGraph(candidates, edges), algorithm="enumeration")
        largest = max(largest, float(np.max(np.abs(lottery(preference) - [theirs[c] for c in candidates]))))
    return Row(what, package, largest, TOLERANCE)


def checks() -> list[Row]:
    """All comparisons of this family."""
    return [logit_equilibria(), maximal_lotteries()]
