"""Confidence intervals that hold for every bounded distribution, and the plan of a sampled statement."""

import dataclasses

import numpy as np

__all__ = ["Chance", "clopper_pearson", "empirical_bernstein"]


@dataclasses.dataclass(frozen=True)
class Chance:
    """How a sampled statement spends its replicates.

    kind: "expectation" (values in [low, high], empirical Bernstein) or "probability" (values 0 or 1,
      Clopper-Pearson). "With probability 1 - delta" is the second with rhs = delta, on one fixed instance.
    replicates: fresh data sets in the first round; rounds double while undecided.
    cap: replicates after which an instance stays undecided.
    """

    kind: str = "expectation"
    replicates: int = 256
    cap: int = 65536

    def __post_init__(self):
        if self.kind not in ("expectation", "probability"):
            raise ValueError(f"kind: found {self.kind!r}, expected 'expectation' or 'probability'")
        if not 2 <= self.replicates <= self.cap:
            raise ValueError(f"replicates: found {self.replicates}, expected 2 <= replicates <= cap = {self.cap}")


def clopper_pearson(successes, trials, level: float):
    """Exact two-sided interval of a probability.

    Args:
      successes: int[...], counts.
      trials: int[...], numbers of independent trials, at least 1.
      level: probability that the interval misses, split evenly between the sides.

    Returns: (low, high), float[...] each.
    Source: Clopper and Pearson (1934), by quantiles of the beta distribution.
    """
    from scipy.stats import beta

    k, n = np.asarray(successes), np.asarray(trials)
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, beta.ppf(level / 2, k, n - k + 1), 0.0)
        high = np.where(k < n, beta.isf(level / 2, k + 1, n - k), 1.0)
    return low, high


def empirical_bernstein(mean, variance, count, low, high, level: float):
    """Two-sided interval of the mean of independent values in [low, high].

    Args:
      mean, variance: float[...], sample mean and unbiased sample variance.
      count: int[...], number of values, at least 2.
      low, high: float[...], the a-priori range of one value.
      level: probability that the interval misses.

    Returns: (low, high) of the expectation, float[...] each.
    Source: Maurer and Pontil (2009), Theorem 4, each side at level / 2.
    """
    log = np.log(4.0 / level)  # ln(2 / delta) with delta = level / 2
    half = np.sqrt(2.0 * variance * log / count) + 7.0 * (np.asarray(high) - low) * log / (3.0 * (count - 1))
    return mean - half, mean + half
