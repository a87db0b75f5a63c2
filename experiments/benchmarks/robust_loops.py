"""The put option's learners as plain loops in NumPy and SciPy, in the manner of the released code, to time beside ours.

Written anew; kept are the habits of that code which its times measure: a Python loop over trajectories, the Gram matrix
inverted for every action value, and Nelder-Mead per coordinate from H / 2 on an objective that solves the whole
regression at each evaluation. Two things differ: the strike is a parameter (the released code takes the number of
trajectories), and the last step is estimated like the others (every next value is 0 there). "DRPVI, exact cuts" is
DRPVI without the search: one sort and prefix sums.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["LEARNERS", "Paths", "library", "paths", "processor_seconds", "time_training", "train"]

PENALTY, RIDGE = 0.1, 1.0
SEARCHED = ("DRPVI", "DRVI-L")  # by Nelder-Mead


class Paths(NamedTuple):
    """prices: float[K, H + 1]; features: float[K, H + 1, d], of holding."""

    prices: np.ndarray
    features: np.ndarray


def paths(data, features) -> Paths:
    """Of an `OfflineData` that never exercises, and `hat_features`: what the released code has before it trains."""
    prices = np.asarray(data.states)
    hold = np.asarray(features.at(prices.ravel())[:, 0])
    return Paths(prices, hold.reshape(*prices.shape, -1))


# ---- estimates: (inverse float[d, d], features float[K, d], next values float[K], level, H) -> float[d] --------------


def _mean(inverse, features, values, level, horizon):
    del level, horizon
    total = np.zeros(len(inverse))
    for feature, value in zip(features, values, strict=True):
        total += inverse @ (feature * value)
    return total


def _tv(inverse, features, values, level, horizon):
    del horizon
    return inverse @ features.T @ np.minimum(values, values.min() + level)


def _kl(inverse, features, values, level, horizon):
    x = inverse @ features.T @ np.exp(-values / level)
    return -level * np.log(np.maximum(x, np.exp(-horizon / level)))


def _search(objective: Callable, count: int, low: float, high: float) -> np.ndarray:
    """The largest objective(x, i) that Nelder-Mead finds between low and high, for every coordinate i."""
    from scipy.optimize import minimize

    found = np.empty(count)
    for i in range(count):
        negated = lambda x, i=i: -objective(x[0], i)  # noqa: E731
        found[i] = -minimize(negated, [high / 2], method="Nelder-Mead", bounds=[(low, high)]).fun
    return found


def _ball_tv(inverse, features, values, radius, horizon):
    # From left to right d^2 K operations for all coordinates, of which one is used.
    objective = lambda cut, i: (inverse @ features.T @ np.minimum(values, cut))[i] - radius * cut  # noqa: E731
    return _search(objective, len(inverse), 0.0, horizon)


def _ball_kl(inverse, features, values, radius, horizon):
    def objective(price, i):
        x = 1 + (inverse @ features.T @ (np.exp(-values / price) - 1))[i]
        return -price * np.log(max(x, 1e-6)) - price * radius

    return _search(objective, len(inverse), 1e-6, horizon)


def _ball_tv_exact(inverse, features, values, radius, horizon):
    order = np.argsort(values)
    y, weights = values[order], (inverse @ features.T)[:, order]
    cuts = np.clip(np.concatenate([[0.0, horizon], y]), 0, horizon)
    sums = lambda x: np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, axis=1)], axis=1)  # noqa: E731
    at_most = np.searchsorted(y, cuts, side="right")
    below, mass = sums(weights * y)[:, at_most], sums(weights)
    return (below + (mass[:, -1:] - mass[:, at_most]) * cuts - radius * cuts).max(axis=1)


# name -> (estimate, level or radius); the radius is the first of the released driver
LEARNERS = {
    "PEVI": (_mean, 0.0),
    "R2PVI-TV": (_tv, 3.0),
    "R2PVI-KL": (_kl, 3.0),
    "DRPVI": (_ball_tv, 0.025),
    "DRPVI, exact cuts": (_ball_tv_exact, 0.025),
    "DRVI-L": (_ball_kl, 0.025),
}


def library(name: str, features) -> Callable:
    """This library's learner of the same name, level and rules: `OfflineData -> Estimate`."""
    from rlcore.robust import Rules, drpvi, drvi_l, pevi, r2pvi

    level, rest = LEARNERS[name][1], (PENALTY, RIDGE)
    if name == "PEVI":
        return lambda data: pevi(data, features, None, *rest, rules=Rules(floor=False, unvisited="estimate"))
    if name.startswith("R2PVI"):
        kind = name.removeprefix("R2PVI-").lower()
        return lambda data: r2pvi(data, features, None, kind, level, *rest, released_code=True)
    ball = drvi_l if name == "DRVI-L" else drpvi
    return lambda data: ball(data, features, None, level, *rest, released_code=True)


def _hold(gram, weights, feature, cap, ellipsoid):
    """Pessimistic value of holding at one state."""
    inverse = np.linalg.inv(gram)
    matrix = inverse if ellipsoid else np.diag(np.diag(inverse))
    return min(feature @ weights - PENALTY * np.sqrt(feature @ matrix @ feature), cap)


def train(name: str, given: Paths, strike: float = 100.0, start: np.ndarray | None = None) -> np.ndarray:
    """One training run.

    Args: name: one of `LEARNERS`; given: Paths; strike: units of money; start: float[H, d], weights from which each
      step looks ahead in place of the run's own: its answers then solve the problems of another run.
    Returns: weights float[H, d]. Cost: H K (d^3 + d^2) in a Python loop, and H d searches of about 40 K d^2.
    """
    estimate, level = LEARNERS[name]
    count, steps, d = given.features.shape
    horizon = steps - 1
    weights, ahead = np.zeros((horizon, d)), None
    for h in reversed(range(horizon)):
        gram = RIDGE * np.eye(d)
        for k in range(count):
            gram += np.outer(given.features[k, h], given.features[k, h])
        values = np.zeros(count)
        if ahead is not None:
            after = (weights if start is None else start)[h + 1]
            for k in range(count):
                hold = _hold(ahead, after, given.features[k, h + 1], horizon - h - 1, name == "PEVI")
                values[k] = max(hold, strike - given.prices[k, h + 1], 0.0)
        weights[h] = estimate(np.linalg.inv(gram), given.features[:, h], values, level, float(horizon))
        ahead = gram
    return weights


def processor_seconds(call: Callable, repeat: float) -> list[float]:
    """Processor seconds of up to nine calls within `repeat` of them, and of one at least.

    Not wall time: it hardly changes where others keep the machine busy.
    """
    times = []
    while not times or (sum(times) < repeat and len(times) < 9):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return times


def time_training(name: str, given: Paths, strike: float, repeat: float) -> list[float]:
    """`processor_seconds` of `train`; for a process whose BLAS has one thread, since more only wait here."""
    return processor_seconds(lambda: train(name, given, strike), repeat)
