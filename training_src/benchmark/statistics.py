"""Intervals for comparisons of policies on the same loads."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: npt.NDArray[np.float64], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Interval of the mean of paired differences, by the percentile bootstrap over pairs.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        differences: shape ``(pairs,)``, one for each load that both policies met.
        confidence: coverage wanted.
        resamples: bootstrap samples.
        seed: of the resampling, so that a report is reproducible.

    Raises:
        ValueError: fewer than two pairs.
    """
    if len(differences) < 2:
        raise ValueError(f"an interval needs two or more pairs, got {len(differences)}")
    rng = np.random.default_rng(seed)
    means = differences[rng.integers(len(differences), size=(resamples, len(differences)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(differences.mean()), float(low), float(high))
