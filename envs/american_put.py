"""An American put on a recombining binomial price, paid at exercise: a problem of stopping whose stock never moves."""

import math

from envs.checks import check_integer, check_number
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "american_put"]


def american_put(periods: int = 10, drift: float | int = -0.3, volatility: float | int = 0.3) -> MDP:
    """Hold or exercise the right to sell at 1 what starts at 1 and moves at random; in the last period one exercises.

    States: the (period, number of ups), period 0 first. Actions: 0 hold, 1 exercise. Over a year of periods of length
    dt the price is multiplied by u = exp(volatility sqrt(dt)) with probability (exp(drift dt) - 1/u) / (u - 1/u), else
    by 1/u. Rewards: max(1 - price, 0) at exercise, and in the last period, before the price moves, whatever one does;
    else 0. Termination: there. Start: period 0.

    Args: periods: >= 1; drift: in [-2, 2], per year; volatility: in [0.01, 2], per root year; together so that the
      probability is one.
    Returns: an MDP, [S = periods (periods + 1) / 2, A=2, B=2], horizon `periods`. Payoffs lie on no lattice, but the
      stock stays where it started until the episode ends: a grid of any spacing, rounding "linear", is exact at its
      nodes.
    Raises: TypeError or ValueError for a parameter out of range.
    Source: the option of RIGOR (Moghimi, Coache and Ku, arXiv 2602.04131), a geometric Brownian motion there, as
      specified, on a lattice that is this project's. Cost: O(periods^2) on the host.
    """
    check_integer("periods", periods, 1)
    check_number("drift", drift, -2.0, 2.0)
    check_number("volatility", volatility, 0.01, 2.0)
    step = 1 / periods
    up = math.exp(volatility * math.sqrt(step))
    chance = (math.exp(drift * step) - 1 / up) / (up - 1 / up)
    if not 0 <= chance <= 1:
        raise ValueError(
            f"drift: found {drift}, a chance of {chance:.6g} to rise, expected one in [0, 1]: more periods"
        )

    def outcomes(state, action):
        period, ups = state
        # powers of one number: prices that meet again are equal
        payoff = max(1 - up ** (2 * ups - period), 0.0)
        if action == 1 or period == periods - 1:
            return [Outcome(1.0, None, payoff)]
        return [Outcome(chance, (period + 1, ups + 1), 0.0), Outcome(1 - chance, (period + 1, ups), 0.0)]

    return from_rules(Rules((0, 0), outcomes, 2, periods))


FAMILIES = {"american_put": american_put}
