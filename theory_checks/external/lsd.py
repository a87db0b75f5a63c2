"""Switching bandits beside markovianbandit-pkg: Whittle indices of single arms, and whether they exist."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.lsd import from_tables, indexable, whittle_index
from rlcore.lsd.problem import transition_tables
from theory_checks.external import Row, version

NUM_ARMS = 120
RECOVERY, SATIATION = 5, 3
TOLERANCE = 1e-9  # in units of payoff; ours are bisected to 1e-11


def their_index(payoffs: np.ndarray, play: np.ndarray, idle: np.ndarray) -> tuple[bool, np.ndarray]:
    """(indexable, index[S]) of one arm; NaN where the package finds a policy with two recurrent classes."""
    from markovianbandit import restless_bandit_from_P0P1_R0R1

    size = len(payoffs)
    arm = restless_bandit_from_P0P1_R0R1(np.eye(size)[idle], np.eye(size)[play], np.zeros(size), payoffs)
    # It prints a line for every such policy, and makes NumPy raise where it divides by zero.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        return bool(arm.is_indexable()), np.asarray(arm.whittle_indices())


def whittle(idle_rule: str, monotone: bool) -> Row:
    """Random arms of one idle rule."""
    kind = "monotone" if monotone else "arbitrary"
    what = f"Whittle indices of {NUM_ARMS} arms, {kind} payoffs, idle rule {idle_rule!r}"
    package = version("markovianbandit-pkg")
    if package is None:
        return Row(what, "markovianbandit-pkg missing", None, TOLERANCE)
    payoffs = np.random.default_rng(0).random((NUM_ARMS, RECOVERY + SATIATION))
    payoffs = np.sort(payoffs, axis=1) if monotone else payoffs
    up, down = payoffs[:, SATIATION:], payoffs[:, :SATIATION][:, ::-1]
    problem = from_tables(jnp.asarray(up), jnp.asarray(down), idle_rule=idle_rule)
    play, idle = (np.asarray(x) for x in transition_tables(problem))
    ours = jax.jit(whittle_index)(problem)
    exists = np.asarray(jax.jit(indexable)(problem, ours))
    answers = [their_index(arm, play, idle) for arm in payoffs]
    theirs = np.stack([index for _, index in answers])
    answered = np.isfinite(theirs)
    largest = float(np.max(np.abs(np.asarray(ours) - theirs), where=answered, initial=0.0))
    disagree = int(np.sum(exists != [fine for fine, _ in answers]))
    note = f"{int(answered.sum())} of {answered.size} states answered; {disagree} verdicts on indexability differ"
    return Row(what, package, np.inf if disagree or not answered.any() else largest, TOLERANCE, note)


def checks() -> list[Row]:
    """All comparisons of this family."""
    return [whittle(rule, monotone) for rule in ("reset", "decrement") for monotone in (True, False)]
