"""Which stocks a problem needs: the returns it may have, a grid that fits them, and what is refused.

Outside the window of a grid a utility must be affine for the rest of the episode, or no path may get there.
"""

import jax
import numpy as np

from rlcore.distributional.stock import StockGrid, stock_grid
from rlcore.distributional.utility import Utility
from rlcore.mdp import MDP

__all__ = ["check_grid", "check_stock_problem", "fitting_grid", "possible_rewards", "return_range", "reward_spacing"]


def possible_rewards(problem: MDP) -> np.ndarray:
    """The rewards that can occur, as one row on the host: those of available actions and positive probabilities.

    Raises: TypeError: a problem that is no outcome list. ValueError: NaN or infinite rewards, a discount of 0.
    Cost: one pass over the outcomes.
    """
    _check_type(problem)
    if not 0 < float(problem.discount) <= 1:
        raise ValueError(
            f"discount: found {float(problem.discount)}, expected a number in (0, 1]: the stock is divided by it"
        )
    reward = np.asarray(problem.reward)[_possible(problem)]
    if not np.all(np.isfinite(reward)):
        raise ValueError(f"reward: found {reward[~np.isfinite(reward)][0]}, expected finite numbers")
    return reward


def _check_type(problem: MDP) -> None:
    if not isinstance(problem, MDP):
        raise TypeError(f"problem: found {type(problem).__name__}, expected an MDP of outcomes: laws of rewards matter")


def _possible(problem: MDP) -> np.ndarray:
    return (np.asarray(problem.prob) > 0) & np.asarray(problem.available)[..., None]


def reward_spacing(problem: MDP, digits: int = 9) -> float:
    """The largest number of which every reward that can occur is a multiple.

    Args: problem: with concrete arrays; digits: decimals to which rewards are read.
    Returns: a number > 0 (1 where every reward is 0). Raises: ValueError where no number above 10^-digits does, or for
      NaN rewards.
    Cost: one pass on the host.
    """
    reward = possible_rewards(problem)
    whole = np.rint(reward * 10.0**digits)
    if np.any(np.abs(whole) >= 2**62):
        raise ValueError(f"reward: found {np.max(np.abs(reward))}, expected numbers below {2**62 / 10.0**digits:.3g}")
    step = int(np.gcd.reduce(np.unique(np.abs(whole)).astype(np.int64), initial=0))
    exact = reward * 10.0**digits
    if np.any(np.abs(whole - exact) > np.maximum(1e-3, 4 * np.finfo(float).eps * np.abs(exact))):
        raise ValueError(f"reward: found no common divisor to {digits} decimals: use a grid that rounds, not 'exact'")
    return step / 10.0**digits if step else 1.0


def return_range(problem: MDP, *, max_steps: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest return of any path, whatever the policy.

    Args: problem: with concrete arrays. Returns: (low, high), host arrays [S], or [H, S] from each step with a horizon;
      -inf or inf where a path can go on earning for ever. Raises: ValueError: NaN rewards.
    Cost: one sweep per step of the horizon, or until nothing changes (discount < 1: to 1e-15 of the greatest reward).
    """
    largest = np.max(np.abs(possible_rewards(problem)), initial=0)
    possible = _possible(problem)
    next_state, reward, terminal = (np.asarray(x) for x in (problem.next_state, problem.reward, problem.terminal))
    discount, horizon = float(problem.discount), problem.horizon
    # a finite end is that of a path without repeated states, then perhaps of a cycle that earns nothing
    farthest = (2 * terminal.shape[-3] + 1) * largest

    def sweep(value, t, pick, empty):
        at = (t,) if possible.ndim == 4 else ()
        go_on = np.where(terminal[at], 0.0, value[next_state[at]])
        return pick(np.where(possible[at], reward[at] + discount * go_on, empty), axis=(-2, -1))

    ends = []
    for pick, empty in ((np.min, np.inf), (np.max, -np.inf)):
        value = np.zeros(possible.shape[-3])
        endless, nowhere = np.zeros((2, value.size), bool)
        if horizon is not None:
            rows = [value := sweep(value, t, pick, empty) for t in reversed(range(horizon))]
            ends.append(np.stack(rows[::-1]))
            continue
        for n in range(max_steps):
            new = sweep(value, 0, pick, empty)
            if discount == 1:
                # a path longer than the states repeats one: what moves outwards then does so for ever; what moves
                # inwards may stop, where going on is cheaper for a while than the price of an end
                outwards = (new != value) & (pick([new, value], axis=0) == new)
                endless |= outwards & (n > 2 * value.size)
                nowhere |= (new < -farthest) if pick is np.max else (new > farthest)
                new = np.where(endless, -empty, np.where(nowhere, empty, new))
            change = new != value
            small = discount < 1 and np.max(np.abs(new - value), where=change, initial=0) <= 1e-15 * largest
            if small or not change.any():
                break
            value = new
        slack = 1e-14 * largest / (1 - discount) if discount < 1 else 0.0
        ends.append(new - slack if pick is np.min else new + slack)
    return ends[0], ends[1]


def fitting_grid(
    problem: MDP, *, spacing: float | int | None = None, rounding: str | None = None, high: float | int | None = None
) -> StockGrid:
    """A grid outside which two-slope utilities are known exactly, and on which every start that matters lies.

    Args:
      problem: with concrete arrays.
      spacing: in units of reward; by default the rewards' common divisor where 1 / discount is an integer, else a
        400th of the window.
      rounding: "exact" by default where that is so, else "linear".
      high: the last node where returns have no lower bound (costs without a horizon), in units of reward.

    Returns: nodes from minus the greatest to minus the least possible return.
    Raises: TypeError, ValueError: a problem that is no outcome list, NaN rewards, a discount of 0; returns unbounded
      above, or below without `high`, or a first state from which no path ends.
    Cost: that of `return_range`.
    """
    low_return, high_return = return_range(problem)
    top, bottom = float(np.max(high_return)), float(np.min(low_return))
    if not np.isfinite(top):
        found = "returns without an upper bound" if top > 0 else "costs for ever on every path"
        raise ValueError(f"problem: found {found}, expected a horizon, a discount < 1 or an end")
    if problem.horizon is None and np.any(high_return[np.asarray(problem.initial) > 0] == -np.inf):
        raise ValueError("problem: found a first state with costs for ever on every path, expected one that can end")
    if high is None:
        if not np.isfinite(bottom):
            raise ValueError("high: found None for returns without a lower bound, expected the last node of the grid")
        high = -bottom
    inverse = 1 / float(problem.discount)
    whole = abs(inverse - round(inverse)) < 1e-12
    if spacing is None:
        spacing = reward_spacing(problem) if whole else max(high + top, 1e-9) / 400
    if rounding is None:
        rounding = "exact" if whole and _multiples(problem, spacing) else "linear"
    return stock_grid(min(-top, high), high, spacing, rounding=rounding)


def _multiples(problem: MDP, spacing: float) -> bool:
    steps = possible_rewards(problem) / spacing
    return bool(np.all(np.abs(steps - np.rint(steps)) <= 1e-9 * np.maximum(1, np.abs(steps))))


def check_grid(problem: MDP, grid: StockGrid) -> None:
    """Refuse, on the host, a problem without stocks or a grid that is not for it; tracers are the caller's promise.

    Raises:
      TypeError: a problem that is no outcome list.
      ValueError: NaN rewards; a discount of 0; "discounted" coordinates without a horizon; an "exact" grid that rewards
        or discount leave.
    Cost: one pass over the outcomes.
    """
    _check_type(problem)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((problem, grid))):
        return
    possible_rewards(problem)
    discount, horizon = float(problem.discount), problem.horizon
    if grid.coordinates == "discounted" and horizon is None:
        raise ValueError("coordinates: found 'discounted' without a horizon, expected one: the stock needs the time")
    if grid.rounding == "exact":
        inverse = 1.0 if grid.coordinates == "discounted" else 1 / discount
        spacing = float(grid.lattice.spacing)
        steps = range(horizon) if grid.coordinates == "discounted" and discount < 1 else (0,)
        if abs(inverse - round(inverse)) > 1e-12 or not all(_multiples(problem, spacing / discount**t) for t in steps):
            raise ValueError(
                f"grid: found rounding 'exact' with spacing {spacing} and discount {discount}, expected rewards that "
                "are multiples of the spacing and an integer 1 / discount; use 'linear', 'nearest', 'floor' or 'ceil'"
            )


def check_stock_problem(problem: MDP, utility: Utility, grid: StockGrid) -> None:
    """Refuse, on the host, what a stock dynamic programme cannot solve; tracers are the caller's promise.

    Raises:
      TypeError, ValueError: as `check_grid`; ValueError for a utility without a degree at discount < 1 in stock
        coordinates, or one of degree 0 there without a horizon; for a window that lets paths out before the utility is
        affine for the rest.
    Cost: that of `return_range`.
    """
    check_grid(problem, grid)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((problem, utility, grid))):
        return
    discount = float(problem.discount)
    if grid.coordinates == "stock" and discount < 1:
        if utility.degree is None:
            raise ValueError(
                f"utility: found {type(utility).__name__} without a degree at discount {discount}, expected "
                "f(discount x) = scale f(x), such as two_slope, Power or Reach: its order of laws changes with the "
                "discount. Use the coordinates 'discounted' with a horizon"
            )
        if utility.degree == 0 and problem.horizon is None:
            raise ValueError(
                f"utility: found {type(utility).__name__} at discount {discount} without a horizon, expected one: "
                "it jumps, and values of finite horizons need not converge to its own"
            )
    _check_window(problem, utility, grid)


def _check_window(problem: MDP, utility: Utility, grid: StockGrid) -> None:
    if utility.tails() is None and problem.horizon is not None:
        return  # nodes whose paths leave the window get NaN
    # on the host: inside a traced function even concrete numbers become tracers
    spacing = float(grid.lattice.spacing)
    low, high = spacing * grid.lattice.first, spacing * (grid.lattice.first + grid.lattice.size - 1)
    discount = float(problem.discount) if grid.coordinates == "stock" else 1.0
    reward = possible_rewards(problem)
    least, most = return_range(problem)
    if problem.horizon is not None and grid.coordinates == "discounted":
        steps = float(problem.discount) ** np.arange(problem.horizon)[:, None]
        least, most = steps * least, steps * most
    slack = 1e-9 * spacing
    affine = utility.tails() is not None
    # Either the rest is affine beyond the end, or no path crosses it: even the greatest reward leads back.
    if not (affine and high >= -least.min() - slack) and (high + reward.max(initial=0)) / discount > high + slack:
        raise ValueError(
            f"grid: found last node {high}, expected at least {-least.min()}, minus the least possible return: before "
            "that the utility is not affine for the rest"
        )
    if not (affine and low <= -most.max() + slack) and (low + reward.min(initial=0)) / discount < low - slack:
        raise ValueError(
            f"grid: found first node {low}, expected at most {-most.max()}, minus the greatest possible return: after "
            "that the utility is not affine for the rest"
        )
