"""Intervals and means for comparisons of policies on the same loads."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t, trim_mean

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: npt.NDArray[np.float64], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of the mean of paired differences, by the bootstrap over pairs, no narrower than Student's.

    The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) is too narrow
    for few pairs: the percentiles are moved outward as Hesterberg has it ("What Teachers Should Know About the
    Bootstrap", The American Statistician 69(4), 2015, the expanded percentile interval). Even so its ends lie within
    the data, so that of 5 pairs it could hold the true mean 94 times in 100 at most; Student's interval has no such
    limit, and the wider end of both is taken. Differences far from normal, say one day in ten that costs a hundred
    times the others, are covered less often than ``confidence`` says when they are few, as by any interval.

    Args:
        differences: shape ``(pairs,)``, one for each load that both policies met.
        confidence: coverage wanted.
        resamples: bootstrap samples.
        seed: of the resampling, so that a report is reproducible.

    Raises:
        ValueError: fewer than two pairs.
    """
    pairs = len(differences)
    if pairs < 2:
        raise ValueError(f"an interval needs two or more pairs, got {pairs}")
    rng = np.random.default_rng(seed)
    means = differences[rng.integers(pairs, size=(resamples, pairs))].mean(axis=1)
    quantile = -float(t.ppf((1 - confidence) / 2, pairs - 1))
    tail = norm.cdf(-math.sqrt(pairs / (pairs - 1)) * quantile)
    low, high = np.quantile(means, [tail, 1 - tail])
    mean, half = float(differences.mean()), quantile * float(differences.std(ddof=1)) / math.sqrt(pairs)
    return Interval(mean, min(float(low), mean - half), max(float(high), mean + half))


def interquartile_mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, section 4.3.
    """
    return float(trim_mean(values, 0.25))
