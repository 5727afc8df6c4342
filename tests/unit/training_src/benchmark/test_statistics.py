from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t

from training_src.benchmark.statistics import interquartile_mean, paired_bootstrap


def coverage(draw: object, pairs: int, trials: int = 800) -> float:
    """The share of intervals that hold the true mean, 0."""
    rng = np.random.default_rng(1)
    found = [paired_bootstrap(draw(rng, pairs), resamples=1000, seed=trial) for trial in range(trials)]  # type: ignore[operator]
    return float(np.mean([interval.low <= 0.0 <= interval.high for interval in found]))


def normal(rng: np.random.Generator, pairs: int) -> npt.NDArray[np.float64]:
    return rng.normal(0.0, 3.0, pairs)


def skewed(rng: np.random.Generator, pairs: int) -> npt.NDArray[np.float64]:
    return rng.exponential(1.0, pairs) - 1.0


@pytest.mark.parametrize("pairs", [3, 5, 20, 80])
def test_of_normal_differences_95_percent_of_the_intervals_hold_the_mean(pairs: int) -> None:
    # Over 800 trials the share has a standard error of 0.8 points.
    assert coverage(normal, pairs) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("pairs", "least"), [(5, 0.85), (20, 0.90), (80, 0.92)])
def test_of_skewed_differences_fewer_do_and_the_more_the_pairs_the_nearer(pairs: int, least: float) -> None:
    assert least <= coverage(skewed, pairs) < 0.97


def test_the_interval_of_many_normal_differences_is_students() -> None:
    values = np.random.default_rng(3).normal(10.0, 2.0, 400)
    half = t.ppf(0.975, 399) * values.std(ddof=1) / 20

    interval = paired_bootstrap(values)

    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)


def test_for_few_pairs_the_interval_is_students_which_may_leave_the_data() -> None:
    values = np.array([1.0, 2.0, 4.0, 4.5, 7.0])
    half = t.ppf(0.975, 4) * values.std(ddof=1) / np.sqrt(5)

    interval = paired_bootstrap(values)

    assert interval.low == pytest.approx(values.mean() - half) and interval.low < values.min()
    assert interval.high == pytest.approx(values.mean() + half)


def test_where_differences_are_skewed_the_longer_side_is_the_bootstraps() -> None:
    values = np.array([0.0] * 18 + [10.0, 50.0])
    half = t.ppf(0.975, 19) * values.std(ddof=1) / np.sqrt(20)

    assert paired_bootstrap(values).high > values.mean() + half


def test_the_interval_is_reproducible_and_of_the_differences_alone() -> None:
    values = np.random.default_rng(5).normal(0.0, 1.0, 20)
    assert paired_bootstrap(values) == paired_bootstrap(values)
    shifted = paired_bootstrap(values + 5.0)
    assert shifted.low == pytest.approx(paired_bootstrap(values).low + 5.0)


def test_equal_policies_differ_by_nothing() -> None:
    interval = paired_bootstrap(np.zeros(20))
    assert (interval.low, interval.mean, interval.high) == (0.0, 0.0, 0.0)


def test_an_interval_of_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more pairs, got 1"):
        paired_bootstrap(np.array([1.0]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0, 1000.0], 2.5),
        ([-50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 900.0], 3.5),
        ([0.0, 10.0, 20.0], 10.0),  # a quarter of three values is none
        ([7.0], 7.0),
        ([5.0, 1.0, 3.0, 2.0, 4.0], 3.0),
    ],
)
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(expected)
