"""Rounded stocks (T11), and laws on matching atoms (T13).

A stock between nodes of spacing d goes to the nearest, the one below or above, or is interpolated; L is the larger
slope of a two-slope utility, g the discount. Proofs: docs/proofs/distributional.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.claims import Bound, Falsifier, identity, statement
from rlcore.distributional import (
    Categorical,
    Lattice,
    StockGrid,
    StockPolicy,
    TwoSlope,
    dist_vi,
    law_evaluation,
    policy_action,
    stock_evaluation,
    stock_grid,
    stock_value,
    stock_vi,
    two_slope,
)
from rlcore.distributional.stock import StockValue, round_stock
from rlcore.distributional.stock_vi import stock_backup
from rlcore.mdp import MDP
from rlcore.types import Array
from theory_checks.distributional import PROOFS, derived, garnet

# The largest distance of a stock from its node, in spacings.
OFF = {"nearest": 0.5, "floor": 1.0, "ceil": 1.0, "linear": 0.5}
SIZE = 16.0


class Rounded(NamedTuple):
    """A problem, two slopes and the spacing of the nodes."""

    problem: MDP
    slopes: Array
    spacing: Array


def rounded_instance(key):
    """Three states, discount 1/2, an end in a tenth of the outcomes; slopes in [-1, 1]; spacing 0.3 or 0.7."""
    numbers = jax.random.uniform(key, (51,))
    problem = garnet(numbers[3:].reshape(4, 3, 2, 2), 0.5, ending=0.1)
    return Rounded(problem, 2 * numbers[:2] - 1, jnp.where(numbers[2] < 0.5, 0.3, 0.7))


# Fourteen spacings of 0.3 reach 4.2, beyond the largest return of 4; all stocks are multiples of 0.1.
FINE = stock_grid(-4.2, 4.2, 0.1)


def coarse(spacing, rounding):
    """29 nodes."""
    return StockGrid(Lattice(spacing, -14, 29), rounding)


def at_nodes(solution, utility, nodes):
    """A solution's values at any stocks, float[S, C]."""
    states = jnp.arange(solution.value.below.shape[-1])
    one = lambda s, c: stock_value(solution, utility, s, c)  # noqa: E731
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(states, nodes)


@statement(
    "distributional/T11",
    "Nodes of spacing d: |V^ - F*| <= L g e / (1 - g), e = d / 2 (nearest, linear), d (floor, ceil)",
    falsifiers=[Falsifier("rounding errors add up over steps (one step's)", {"accumulated": False}, share=0.1)],
    origin=derived("T11"),
    proof=f"{PROOFS}#t11",
    generator=rounded_instance,
)
def rounding_error(instance, accumulated=True):
    problem, utility = instance.problem, TwoSlope(*instance.slopes)
    best = stock_vi(problem, utility, FINE, tol=1e-13)
    bounds = []
    for rounding, off in OFF.items():
        grid = coarse(instance.spacing, rounding)
        found = stock_vi(problem, utility, grid, tol=1e-13)
        miss = jnp.abs(found.value.value - at_nodes(best, utility, grid.nodes))
        sums = 1 / (1 - problem.discount) if accumulated else 1.0
        limit = jnp.max(jnp.abs(instance.slopes)) * problem.discount * off * instance.spacing * sums
        bounds.append(Bound(miss, limit, SIZE, found.bound + best.bound, trivial=SIZE))
    return bounds


@statement(
    "distributional/T11.bracket",
    "f nondecreasing: V_floor <= F* <= V_ceil at every node, at no lattice spacing of the rewards",
    falsifiers=[Falsifier("f nondecreasing (-|x|)", {"slopes": (-1.0, 1.0)}, share=0.8)],
    origin=derived("T11"),
    proof=f"{PROOFS}#t11",
    generator=rounded_instance,
)
def bracket(instance, slopes=None):
    utility = two_slope(*(jnp.abs(instance.slopes) if slopes is None else slopes))
    best = stock_vi(instance.problem, utility, FINE, tol=1e-13)
    lower, upper = (
        stock_vi(instance.problem, utility, coarse(instance.spacing, word), tol=1e-13) for word in ("floor", "ceil")
    )
    true = at_nodes(best, utility, lower.policy.grid.nodes)
    return [
        Bound(lower.value.value, true, SIZE, lower.bound + best.bound),
        Bound(true, upper.value.value, SIZE, upper.bound + best.bound),
    ]


@statement(
    "distributional/T11.seen",
    "Linear V^, policies of the true stock: one step ahead loses <= g L d / (1 - g)^2, nearest node <= L d / (1 - g)^2",
    falsifiers=[Falsifier("nodes have a distance (0)", {"apart": 0.0}, share=0.3)],
    origin=derived("T11"),
    proof=f"{PROOFS}#t11",
    generator=rounded_instance,
)
def seeing_policies(instance, apart=1.0):
    problem, utility = instance.problem, TwoSlope(*instance.slopes)
    best = stock_vi(problem, utility, FINE, tol=1e-13)
    found = stock_vi(problem, utility, coarse(instance.spacing, "linear"), tol=1e-13)
    states = jnp.arange(3)
    act = lambda s, c: policy_action(found.policy, s, c)  # noqa: E731
    nearest = jax.vmap(jax.vmap(act, (None, 0)), (0, None))(states, FINE.nodes)
    read = StockValue(at_nodes(found, utility, FINE.nodes), found.value.below, found.value.above)
    ahead = [jnp.argmax(x, axis=-1).astype(jnp.int32) for x in stock_backup(problem, utility, FINE, read)]
    g = problem.discount
    limit = apart * jnp.max(jnp.abs(instance.slopes)) * instance.spacing / (1 - g) ** 2
    bounds = []
    for actions, most in ((ahead, g * limit), ((nearest, found.policy.below, found.policy.above), limit)):
        own = stock_evaluation(problem, utility, StockPolicy(FINE, *actions), tol=1e-13)
        error = own.bound + best.bound + 2 * found.bound / (1 - g)
        bounds.append(Bound(best.value.value - own.value.value, most, SIZE, error, trivial=SIZE))
    return bounds


# ---- T11: policies that track the rounded stock ----------------------------------------------------------------------

STEPS = 4
PATHS = (np.arange(2**STEPS)[:, None] >> np.arange(STEPS)) & 1


def returning_instance(key):
    """State 1 pays 0 to 2 and leads to 0 or 1, 0 pays -2 or more and leads to 2 or 3, where rewards are in [0, 0.6].

    No return is below -2, and a stock just beyond 2 in state 0 comes back. Discount in [0.6, 1], slopes in [0, 1].
    """
    numbers = jax.random.uniform(key, (67,))
    problem = garnet(numbers[3:].reshape(4, 4, 2, 2), 0.6 + 0.4 * numbers[2], ending=0.05, horizon=STEPS)
    state = jnp.arange(4)[:, None, None]
    coin = problem.next_state % 2
    early = jnp.where(state == 0, problem.reward.at[0, :, 0].set(-2.0), jnp.floor(0.6 * (problem.reward + 2.5)))
    problem = MDP(
        jnp.where(state == 1, coin, 2 + coin),
        problem.prob,
        jnp.where(state < 2, early, 0.6 * numbers[3:].reshape(4, 4, 2, 2)[2]),
        problem.terminal,
        problem.available,
        problem.discount,
        problem.initial,
        STEPS,
    )
    return Rounded(problem, numbers[:2], jnp.asarray(0.3))


def tracked_value(problem, utility, policy: StockPolicy, remember):
    """E f(c + G) at step 0 of the policy that tracks its own rounded stock, over all paths of outcomes: float[S, C].

    remember: a stock that has left the window stays on that side.
    """
    nodes, size = policy.grid.nodes, policy.grid.lattice.size
    shape = (problem.initial.shape[0], size, len(PATHS))
    wide = lambda x: jnp.broadcast_to(x, shape)  # noqa: E731

    def step(carry, now):
        state, index, stock, side, total, chance, alive = carry
        t, coin, action, below, above = now
        chosen = jnp.where(side == 0, action[state, index], jnp.where(side < 0, below[state], above[state]))
        outcome = (state, chosen, wide(coin))
        reward = problem.reward[outcome]
        total = total + jnp.where(alive, problem.discount**t * reward, 0.0)
        chance = chance * problem.prob[outcome]
        alive = alive & ~problem.terminal[outcome]
        later = (stock + reward) / problem.discount
        at = round_stock(policy.grid, later)
        here = jnp.where(at.below, -1, jnp.where(at.above, 1, 0))
        side = jnp.where((side != 0) & remember, side, here)
        index = jnp.where(side == 0, at.index + (at.weight >= 0.5), 0).astype(jnp.int32)
        stock = jnp.where(side == 0, nodes[index], later)
        return (problem.next_state[outcome], index, stock, side, total, chance, alive), None

    start = (
        wide(jnp.arange(shape[0], dtype=jnp.int32)[:, None, None]),
        wide(jnp.arange(size, dtype=jnp.int32)[:, None]),
        wide(nodes[:, None]),
        wide(0),
        wide(0.0),
        wide(1.0),
        wide(True),
    )
    times = (jnp.arange(STEPS), jnp.asarray(PATHS.T), policy.action, policy.below, policy.above)
    total, chance = jax.lax.scan(step, start, times)[0][4:6]
    return jnp.sum(chance * utility(nodes[:, None] + total), axis=-1)


@statement(
    "distributional/T11.policy",
    "f nondecreasing, 4 steps: policies that track c^ earn V_floor or more, and within L e (g + g^2 + g^3) of V^",
    falsifiers=[
        Falsifier("it remembers that it has left the window (it looks up again)", {"remember": False}, share=0.05),
        Falsifier("rounding errors add up over steps (one step's)", {"accumulated": False}, share=0.1),
    ],
    origin=derived("T11"),
    proof=f"{PROOFS}#t11",
    generator=returning_instance,
)
def tracking_policies(instance, remember=True, accumulated=True):
    problem, utility = instance.problem, TwoSlope(*instance.slopes)
    bounds = []
    steps = problem.discount ** jnp.arange(1.0, STEPS)
    for rounding in ("floor", "nearest"):
        # nodes up to 2.1, beyond minus the least return; four rewards of 2 at most below
        grid = StockGrid(Lattice(instance.spacing, -28, 36), rounding)
        found = stock_vi(problem, utility, grid)
        earned = tracked_value(problem, utility, found.policy, remember)
        gain = earned - found.value.value[0]
        errors = jnp.sum(steps) if accumulated else steps[0]
        limit = jnp.max(instance.slopes) * OFF[rounding] * instance.spacing * errors
        bounds.append(Bound(jnp.abs(gain), limit, 2 * SIZE, trivial=SIZE))
        if rounding == "floor":
            bounds.append(Bound(-gain, 0.0, 2 * SIZE))
    return bounds


# ---- T13 -------------------------------------------------------------------------------------------------------------


class Matched(NamedTuple):
    """A problem, two slopes and a policy of state and stock, actions int[S, C + 2]."""

    problem: MDP
    slopes: Array
    choice: Array


# Discounts up to 0.6: returns within 2 / 0.4 = 5, telescoped ones within (2 + 0.6 * 0.5) / 0.4 = 5.75.
SPACING, REACH, FURTHEST = 0.5, 10, 12
SWEEPS = 6


def matched_instance(key):
    """Three states, discount in [0.4, 0.6], an end in a tenth of the outcomes; slopes in [-1, 1]; a random policy."""
    columns = 2 * REACH + 3
    numbers = jax.random.uniform(key, (51 + 3 * columns,))
    problem = garnet(numbers[3:51].reshape(4, 3, 2, 2), 0.4 + 0.2 * numbers[0], ending=0.1)
    choice = (numbers[51:].reshape(3, columns) < 0.5).astype(jnp.int32)
    return Matched(problem, 2 * numbers[1:3] - 1, choice)


def spent_instance(key):
    """State 2 pays and leads to 0, 0 may pay -2 and leads to 1, 1 pays within 0.3 for ever: returns are >= -2.45."""
    instance = matched_instance(key)
    problem, state = instance.problem, jnp.arange(3)[:, None, None]
    uniform = problem.prob
    reward = jnp.where(state == 1, 0.3 * (2 * uniform - 1), problem.reward.at[0, :, 0].set(-2.0))
    problem = MDP(
        jnp.broadcast_to(jnp.where(state == 2, 0, 1), reward.shape),
        problem.prob,
        jnp.where(state == 2, 2 * uniform, reward),
        problem.terminal,
        problem.available,
        problem.discount,
        problem.initial,
    )
    return instance._replace(problem=problem)


def matching_atoms(spacing):
    """Atoms over +-6 at least, of the stocks' spacing or another."""
    reach = int(np.ceil(FURTHEST * SPACING / spacing))
    return Categorical(Lattice(jnp.asarray(spacing), -reach, 2 * reach + 1))


def nodes_of(rounding, high=REACH):
    """Nodes from -5 to 5, or to another end."""
    return StockGrid(Lattice(jnp.asarray(SPACING), -REACH, REACH + high + 1), rounding)


# Six sweeps of curves of 25 atoms: stop-loss curves reach 12 and are rounded in each of the four operations of a sweep.
LAW_SIZE = 2 * 6 * 4 * 12.0


@statement(
    "distributional/T13",
    "Two slopes, window [-W, W], atoms at minus the nodes, none clipped: laws of dist_vi have the values of stock_vi",
    falsifiers=[
        Falsifier("atoms at minus the nodes (spacing 0.37 for 0.5)", {"spacing": 0.37}, share=0.8),
        Falsifier(
            "the window is [-W, W], W >= R / (1 - g) (it ends at 2.5, no return is below -2.45)",
            {"high": 5},
            share=0.05,
            generator=spent_instance,
        ),
    ],
    origin=derived("T13"),
    proof=f"{PROOFS}#t13",
    generator=matched_instance,
)
def lossless_control(instance, spacing=SPACING, high=REACH):
    problem, utility = instance.problem, TwoSlope(*instance.slopes)
    bounds = []
    for rounding in ("nearest", "linear"):
        grid = nodes_of(rounding, high)
        laws = dist_vi(problem, utility, grid, matching_atoms(spacing), num_steps=SWEEPS)
        scalar = stock_vi(problem, utility, grid, tol=-1.0, max_steps=SWEEPS)
        bounds += [identity(x, y, LAW_SIZE) for x, y in zip(laws.value, scalar.value, strict=True)]
    return bounds


@statement(
    "distributional/T13.policy",
    "Any policy's laws on atoms at minus the nodes, rewards telescoped: E f(c + G) of the scalar recursion, six sweeps",
    falsifiers=[
        Falsifier("rewards are telescoped (raw; nearest, floor and ceil)", {"telescoped": False}, share=0.8),
        Falsifier("atoms at minus the nodes (spacing 0.37 for 0.5)", {"spacing": 0.37}, share=0.8),
    ],
    origin=derived("T13"),
    proof=f"{PROOFS}#t13",
    generator=matched_instance,
)
def lossless_evaluation(instance, spacing=SPACING, telescoped=True):
    problem, utility, choice = instance.problem, TwoSlope(*instance.slopes), instance.choice
    bounds = []
    for rounding in ("nearest", "floor", "ceil", "linear"):
        grid = nodes_of(rounding)
        policy = StockPolicy(grid, choice[:, :-2], choice[:, -2], choice[:, -1])
        atoms = matching_atoms(spacing)
        laws = law_evaluation(problem, policy, atoms, num_steps=SWEEPS, telescoped=telescoped)
        scalar = stock_evaluation(problem, utility, policy, tol=-1.0, max_steps=SWEEPS).value
        worth = jnp.sum(laws.laws * utility(grid.nodes[:, None] + atoms.points.points), axis=-1)
        means = [jnp.sum(side * atoms.points.points, axis=-1) for side in (laws.below, laws.above)]
        bounds += [identity(x, y, LAW_SIZE) for x, y in zip((worth, *means), scalar, strict=True)]
    return bounds
