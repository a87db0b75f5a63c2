"""Four small arcade games after MinAtar, made deterministic by a frozen key and tabulated up to their horizon.

Layouts and rules are this project's own. What MinAtar draws while playing (where things appear) is drawn once, from the
seed, as a schedule that repeats; its place in the schedule is part of a game's state, so dynamics do not change with
time. Each game is also a pure `step(state, action) -> (state, reward, done)` in JAX.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs.checks import check_flag, check_integer
from envs.tabulation import tabulate
from rlcore.mdp import MDP
from rlcore.planning.bisimulation import coarsest_bisimulation

__all__ = ["FAMILIES", "small_asterix", "small_breakout", "small_freeway", "small_invaders"]

State = dict[str, jax.Array]
NOTHING, GOLD, ENEMY = 0, 1, 2


def _whole(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.int32)


def _tabulated(game: tuple[Callable, State], num_actions: int, horizon: int, merge: bool) -> MDP:
    step, start = game
    check_integer("horizon", horizon, 1)
    check_flag("merge", merge)
    mdp = tabulate(step, start, num_actions, horizon).mdp
    return coarsest_bisimulation(mdp).mdp if merge else mdp


def breakout_rules(seed: int, width: int = 5, height: int = 6) -> tuple[Callable, State]:
    """The ball moves diagonally, bounces off walls, breaks bricks of the two top rows; a moving paddle steers it."""
    start_column = jax.random.randint(jax.random.key(seed), (), 0, width, jnp.int32)
    start = {
        "paddle": _whole(width // 2),
        "ball": jnp.stack([_whole(start_column), _whole(2)]),
        "speed": jnp.array([1, 1], jnp.int32),
        "bricks": jnp.ones((2, width), bool),
    }

    def step(state, action):
        move = _whole(action) - 1
        paddle = jnp.clip(state["paddle"] + move, 0, width - 1)
        across, down = state["speed"]
        column = state["ball"][0] + across
        across = jnp.where((column < 0) | (column >= width), -across, across)
        column = state["ball"][0] + across
        row = state["ball"][1] + down
        # The ceiling turns the ball back into the row that it is in.
        down, row = jnp.where(row < 0, 1, down), jnp.maximum(row, 0)
        hit = (row < 2) & state["bricks"][jnp.clip(row, 0, 1), column]
        bricks = (
            state["bricks"].at[jnp.clip(row, 0, 1), column].set(state["bricks"][jnp.clip(row, 0, 1), column] & ~hit)
        )
        # A brick sends the ball back without letting it in.
        down, row = jnp.where(hit, -down, down), jnp.where(hit, state["ball"][1], row)
        low = row >= height - 1
        caught = low & (paddle == column)
        across = jnp.where(caught & (move != 0), move, across)
        down = jnp.where(low, -1, down)
        after = {
            "paddle": paddle,
            "ball": jnp.stack([column, jnp.minimum(row, height - 1)]),
            "speed": jnp.stack([across, down]),
            "bricks": bricks,
        }
        return after, hit.astype(float), (low & ~caught) | ~jnp.any(bricks)

    return step, start


def freeway_rules(seed: int, width: int = 5, lanes: int = 4) -> tuple[Callable, State]:
    """Cross the lanes; a car sends the chicken back to the start, the far side pays 1 and does the same."""
    keys = jax.random.split(jax.random.key(seed), 2)
    offset = jax.random.randint(keys[0], (lanes,), 0, width, jnp.int32)
    pace = jax.random.randint(keys[1], (lanes,), 1, 3, jnp.int32) * (1 - 2 * (jnp.arange(lanes, dtype=jnp.int32) % 2))
    start = {"row": _whole(0), "phase": _whole(0)}

    def step(state, action):
        phase = (state["phase"] + 1) % width
        row = jnp.clip(state["row"] + _whole(action) - 1, 0, lanes + 1)
        cars = (offset + pace * phase) % width
        lane = jnp.clip(row - 1, 0, lanes - 1)
        struck = (row >= 1) & (row <= lanes) & (cars[lane] == width // 2)
        across = row == lanes + 1
        after = {"row": _whole(jnp.where(struck | across, 0, row)), "phase": _whole(phase)}
        return after, across.astype(float), jnp.zeros((), bool)

    return step, start


def asterix_rules(seed: int, size: int = 4, period: int = 6) -> tuple[Callable, State]:
    """Gold and enemies cross the rows; gold pays 1, an enemy ends the episode."""
    keys = jax.random.split(jax.random.key(seed), 2)
    rows = jax.random.randint(keys[0], (period,), 0, size, jnp.int32)
    # The first thing is gold, so that there is something to earn.
    kinds = _whole(jnp.where(jax.random.bernoulli(keys[1], 1 / 4, (period,)), GOLD, ENEMY)).at[0].set(GOLD)
    moves = jnp.array([[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]], jnp.int32)
    start = {
        "player": jnp.array([size // 2, size // 2], jnp.int32),
        "cells": jnp.full((size, size), NOTHING, jnp.int32),
        "phase": _whole(0),
    }

    def step(state, action):
        player = jnp.clip(state["player"] + moves[action], 0, size - 1)
        row, column = player
        cells, phase = state["cells"], state["phase"]

        def touch(cells):
            there = cells[row, column]
            return cells.at[row, column].set(jnp.where(there == GOLD, NOTHING, there)), there

        cells, before = touch(cells)
        # Even rows run to the right, odd ones to the left.
        right = jnp.roll(cells, 1, axis=1).at[:, 0].set(NOTHING)
        left = jnp.roll(cells, -1, axis=1).at[:, -1].set(NOTHING)
        even = jnp.arange(size) % 2 == 0
        cells = jnp.where(even[:, None], right, left)
        new = rows[phase]
        cells = cells.at[new, jnp.where(new % 2 == 0, 0, size - 1)].set(kinds[phase])
        cells, after = touch(cells)
        reward = (before == GOLD).astype(float) + (after == GOLD).astype(float)
        done = (before == ENEMY) | (after == ENEMY)
        return {"player": player, "cells": cells, "phase": _whole((phase + 1) % period)}, reward, done

    return step, start


def invaders_rules(seed: int, width: int = 5, height: int = 5) -> tuple[Callable, State]:
    """Aliens march and descend at the walls; one bullet at a time; an alien shot pays 1, an alien that lands ends."""
    column = jax.random.randint(jax.random.key(seed), (), 0, width - 2, jnp.int32)
    aliens = jnp.zeros((height, width), bool).at[0, column + jnp.arange(3, dtype=jnp.int32)].set(True)
    start = {
        "cannon": _whole(width // 2),
        "aliens": aliens,
        "march": _whole(1),
        "bullet": jnp.full((2,), -1, jnp.int32),
    }

    def step(state, action):
        cannon = jnp.clip(state["cannon"] + jnp.array([0, -1, 1, 0], jnp.int32)[action], 0, width - 1)
        bullet, aliens = state["bullet"], state["aliens"]
        free = bullet[0] < 0
        fired = jnp.stack([_whole(height - 1), cannon])
        bullet = jnp.where((action == 3) & free, fired, bullet)
        row, column = bullet[0] - 1, bullet[1]
        flying = bullet[0] >= 1
        safe = jnp.maximum(row, 0), jnp.maximum(column, 0)
        shot = flying & aliens[safe]
        aliens = aliens.at[safe].set(aliens[safe] & ~shot)
        gone = jnp.full((2,), -1, jnp.int32)
        bullet = jnp.where(flying & ~shot, jnp.stack([row, column]).astype(jnp.int32), gone)
        columns = jnp.any(aliens, axis=0)
        wall = jnp.where(state["march"] > 0, columns[-1], columns[0])
        across = jnp.where(state["march"] > 0, jnp.roll(aliens, 1, axis=1), jnp.roll(aliens, -1, axis=1))
        aliens = jnp.where(wall, jnp.roll(aliens, 1, axis=0), across)
        after = {
            "cannon": cannon,
            "aliens": aliens,
            "march": _whole(jnp.where(wall, -state["march"], state["march"])),
            "bullet": bullet,
        }
        return after, shot.astype(float), ~jnp.any(aliens) | jnp.any(aliens[-1])

    return step, start


def small_breakout(seed: int = 0, horizon: int = 20, merge: bool = True) -> MDP:
    """A 5 x 6 Breakout: the paddle's last move steers the ball; a brick pays 1; a ball missed ends the episode.

    States: paddle, ball, its direction, bricks left, as far as they can be reached. Actions: left, stay, right.
    Start: paddle in the middle, ball in row 2 of a column drawn from the seed. Deterministic.

    Args:
      seed: draws the ball's column.
      horizon: steps per episode, >= 1.
      merge: merge states that no policy could tell apart.

    Returns: a deterministic MDP with the horizon, discount 1.
    Raises: ValueError, TypeError naming the argument.
    Source: after MinAtar's Breakout (Young and Tian 2019), rules our own. Cost: one search of the states on the host.
    """
    return _tabulated(breakout_rules(check_integer("seed", seed, 0)), 3, horizon, merge)


def small_freeway(seed: int = 0, horizon: int = 30, merge: bool = True) -> MDP:
    """A Freeway of four lanes: crossing pays 1; a car sends the chicken back to the start.

    States: the chicken's row and the cars' phase. Actions: back, stay, on. Cars: one a lane, places and paces drawn
    from the seed. Never ends before the horizon. Deterministic.

    Args:
      seed: draws places and paces.
      horizon: steps per episode, >= 1.
      merge: merge states that no policy could tell apart.

    Returns: a deterministic MDP with the horizon, discount 1.
    Raises: ValueError, TypeError naming the argument.
    Source: after MinAtar's Freeway (Young and Tian 2019), rules our own. Cost: one search of the states on the host.
    """
    return _tabulated(freeway_rules(check_integer("seed", seed, 0)), 3, horizon, merge)


def small_asterix(seed: int = 0, horizon: int = 12, merge: bool = True) -> MDP:
    """A 4 x 4 Asterix: gold that crosses the rows pays 1, an enemy ends the episode.

    States: the player's cell, what is in every cell, the place in the schedule. Actions: stay, left, right, up, down.
    Things appear in an order of six drawn from the seed, one a step: gold first, then each with
    chance 1/4, else an enemy. Deterministic.

    Args:
      seed: draws the schedule.
      horizon: steps per episode, >= 1.
      merge: merge states that no policy could tell apart.

    Returns: a deterministic MDP with the horizon, discount 1.
    Raises: ValueError, TypeError naming the argument.
    Source: after MinAtar's Asterix (Young and Tian 2019), rules our own. Cost: one search of the states on the host.
    """
    return _tabulated(asterix_rules(check_integer("seed", seed, 0)), 5, horizon, merge)


def small_invaders(seed: int = 0, horizon: int = 20, merge: bool = True) -> MDP:
    """A 5 x 5 Space Invaders: three aliens march and descend; an alien shot pays 1; one that lands ends the episode.

    States: cannon, aliens, their direction, the bullet. Actions: stay, left, right, fire. The aliens' first column is
    drawn from the seed. Deterministic.

    Args:
      seed: draws the aliens' first column.
      horizon: steps per episode, >= 1.
      merge: merge states that no policy could tell apart.

    Returns: a deterministic MDP with the horizon, discount 1.
    Raises: ValueError, TypeError naming the argument.
    Source: after MinAtar's Space Invaders (Young and Tian 2019), rules our own. Cost: one search of the states on the
      host.
    """
    return _tabulated(invaders_rules(check_integer("seed", seed, 0)), 4, horizon, merge)


FAMILIES = {
    "small_asterix": small_asterix,
    "small_breakout": small_breakout,
    "small_freeway": small_freeway,
    "small_invaders": small_invaders,
}
