from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training_src.benchmark.statistics import paired_bootstrap


def test_the_interval_agrees_with_scipys_bootstrap() -> None:
    differences = np.random.default_rng(1).gamma(2.0, 3.0, 20)
    expected = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval

    interval = paired_bootstrap(differences)

    width = interval.high - interval.low
    assert interval.mean == pytest.approx(differences.mean())
    assert interval.low == pytest.approx(expected.low, abs=0.05 * width)
    assert interval.high == pytest.approx(expected.high, abs=0.05 * width)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        interval = paired_bootstrap(rng.normal(5.0, 2.0, 20), resamples=500)
        hits += interval.low <= 5.0 <= interval.high
    # The percentile bootstrap is a little short for 20 pairs: about 93 % (Efron and Tibshirani, chapter 13).
    assert 0.89 <= hits / 400 <= 0.97


def test_the_same_differences_give_the_same_interval() -> None:
    differences = np.arange(10.0)
    assert paired_bootstrap(differences) == paired_bootstrap(differences)


def test_one_pair_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two or more pairs, got 1"):
        paired_bootstrap(np.ones(1))
