from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from training_src.envs.load import ClassicProfile, SyntheticProfile, TraceProfile, arma_coefficients, week_clock
from training_src.envs.trace import Trace, TraceError, TraceReport
from training_src.errors import UserError
from training_src.problem import SyntheticLoad, TraceLoad

DAY, WEEK = 1440, 10_080
FACTORS = np.array(SyntheticLoad().weekday_factors)
QUIET: dict[str, Any] = {
    "daily_amplitudes": (),
    "day_noise": 0.0,
    "correlated_noise": 0.0,
    "white_noise": 0.0,
    "spikes_per_day": 0.0,
}
SUNDAY = datetime(2026, 1, 4, tzinfo=UTC)


def synthetic(step_seconds: int = 60, **changes: Any) -> SyntheticProfile:
    return SyntheticProfile(SyntheticLoad(**(QUIET | changes)), step_seconds)


def weekday(clock: int, length: int, steps_per_day: int = DAY) -> np.ndarray:
    return (clock + np.arange(length)) // steps_per_day % 7


def trace_of(days: float, start: datetime = SUNDAY, step_seconds: int = 60) -> Trace:
    """A trace whose value at each step is the step's number."""
    load = np.arange(round(days * 86_400 / step_seconds), dtype=np.float32)
    return Trace(load, start, step_seconds, float(step_seconds), TraceReport(Path("t.csv"), len(load), 0, 0, 0, ()))


def replay(trace: Trace, **changes: Any) -> TraceProfile:
    return TraceProfile(TraceLoad(path="t.csv", **changes), trace)


@pytest.mark.parametrize("step_seconds", [60, 300])
def test_without_curve_noise_and_spikes_only_the_weekly_factors_are_left(step_seconds: int) -> None:
    profile = synthetic(step_seconds)
    path = profile.draw(np.random.default_rng(1), 500, WEEK)
    days = weekday(path.clock, 500 + WEEK, 86_400 // step_seconds)
    assert path.load.dtype == np.float32
    np.testing.assert_allclose(path.load, 6000 * FACTORS[days], rtol=1e-6)


def test_episodes_start_at_any_time_of_the_week() -> None:
    profile, rng = synthetic(), np.random.default_rng(0)
    clocks = np.array([profile.draw(rng, 10, 10).clock for _ in range(700)])
    counts = np.bincount(clocks // DAY, minlength=7)
    assert counts.min() > 60 and counts.max() < 150
    assert clocks.min() >= 0 and clocks.max() < WEEK


def test_the_daily_curve_has_the_harmonics_asked_for_and_a_phase_of_its_own_each_episode() -> None:
    profile, rng = synthetic(daily_amplitudes=(0.5, 0.2), weekday_factors=(1.0,) * 7), np.random.default_rng(3)
    phases = []
    for _ in range(20):
        spectrum = np.fft.rfft(profile.draw(rng, 0, DAY).load) / DAY / 6000
        np.testing.assert_allclose(np.abs(spectrum[:4]), [1.0, 0.25, 0.1, 0.0], atol=1e-5)
        phases.append(np.angle(spectrum[1]))
    assert np.std(phases) > 1.0


def test_the_level_of_a_day_varies_by_the_day_noise() -> None:
    profile, rng = synthetic(day_noise=0.05, weekday_factors=(1.0,) * 7), np.random.default_rng(5)
    levels = np.concatenate([np.unique(profile.draw(rng, 0, 10 * WEEK).load) for _ in range(10)]) / 6000
    assert 690 < len(levels) < 711
    assert levels.mean() == pytest.approx(1.0, abs=0.007)
    assert levels.std() == pytest.approx(0.05, rel=0.1)


def test_the_default_load_has_the_mean_that_its_parameters_say() -> None:
    profile, rng = SyntheticProfile(SyntheticLoad(), 60), np.random.default_rng(7)
    load = np.stack([profile.draw(rng, 0, WEEK).load for _ in range(100)])
    # Two spikes a day of mean height 0.4, mean rise 5.5 and mean decay 35 minutes, on the week's mean factor.
    expected = 6000 * (FACTORS.mean() + 2 * 0.4 * (5.5 / 2 + 35) / DAY)
    assert load.mean() == pytest.approx(expected, rel=0.01)


@given(
    correlated=st.floats(0, 0.5),
    minutes=st.floats(1, 200),
    white=st.floats(0, 0.5),
)
def test_the_noise_filter_has_the_autocovariance_of_an_ar1_process_plus_white_noise(
    correlated: float, minutes: float, white: float
) -> None:
    numerator, denominator = arma_coefficients(correlated, minutes, white)
    impulse = np.zeros(round(12 * minutes) + 50)
    impulse[0] = 1.0
    response = lfilter(numerator.astype(np.float64), denominator.astype(np.float64), impulse)
    for lag in (0, 1, 2, 5, 10, 30):
        found = float(response[: len(response) - lag] @ response[lag:])
        expected = correlated**2 * math.exp(-lag / minutes) + (white**2 if lag == 0 else 0.0)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_drawn_noise_has_that_autocovariance_from_the_first_step_on() -> None:
    profile = synthetic(correlated_noise=0.04, white_noise=0.02, weekday_factors=(1.0,) * 7)
    rng = np.random.default_rng(11)
    noise = np.stack([profile.draw(rng, 20, 100).load for _ in range(5000)]) / 6000 - 1
    assert noise.mean() == pytest.approx(0.0, abs=2e-3)
    for start in (0, 60):
        for lag in (0, 1, 10, 30):
            expected = 0.04**2 * math.exp(-lag / 10) + (0.02**2 if lag == 0 else 0.0)
            found = float((noise[:, start] * noise[:, start + lag]).mean())
            assert found == pytest.approx(expected, abs=1.3e-4)


def test_a_spike_rises_in_a_line_and_decays_exponentially() -> None:
    profile = synthetic(
        spikes_per_day=0.2, spike_rise_minutes=(10, 10), spike_decay_minutes=(30, 30), weekday_factors=(1.0,) * 7
    )
    rng = np.random.default_rng(0)
    paths = [profile.draw(rng, 0, DAY).load - 6000 for _ in range(40)]
    seen = 0
    for excess in paths:
        begin, peak = int(np.argmax(excess > 0.01)), int(np.argmax(excess))
        whole_and_alone = excess.max() > 100 and peak == begin + 9 and begin > 0 and peak < DAY - 100
        if whole_and_alone:
            seen += 1
            np.testing.assert_allclose(excess[begin:peak], excess[peak] * np.arange(1, 10) / 10, rtol=1e-2, atol=0.1)
            after = excess[peak : peak + 90]
            np.testing.assert_allclose(after, excess[peak] * np.exp(-np.arange(90) / 30), rtol=1e-2, atol=0.1)
            assert excess[peak + 221 :].max(initial=0.0) < 0.01
    assert seen >= 3


def test_spikes_come_as_often_and_as_high_as_asked_for() -> None:
    profile = synthetic(
        spikes_per_day=2, spike_rise_minutes=(1, 1), spike_decay_minutes=(10, 10), weekday_factors=(1.0,) * 7
    )
    rng = np.random.default_rng(2)
    excess = np.stack([profile.draw(rng, 0, WEEK).load for _ in range(150)]) / 6000 - 1
    area = 0.4 * (0.5 / 1 + 1 / math.expm1(0.1) + 1.0 - 0.5)  # a rise of one step, then the sum of exp(-k / 10)
    assert excess.mean() == pytest.approx(2 * area / DAY, rel=0.08)


def test_a_spike_longer_than_the_episode_is_cut_at_its_end() -> None:
    profile = synthetic(spikes_per_day=20, spike_decay_minutes=(1e11, 1e12), weekday_factors=(1.0,) * 7)
    load = profile.draw(np.random.default_rng(0), 0, DAY).load
    assert load.shape == (DAY,)
    assert (np.diff(load) >= -0.01).all() and load[-1] > 7000  # spikes pile up, nothing decays


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0, 1),
    amplitudes=st.lists(st.floats(0, 5), max_size=6),
    spikes=st.floats(0, 20),
    history=st.integers(0, 100),
    steps=st.integers(2, 2000),
    step_seconds=st.sampled_from([1, 60, 300, 3600]),
)
def test_a_load_is_finite_and_never_negative(
    seed: int, noise: float, amplitudes: list[float], spikes: float, history: int, steps: int, step_seconds: int
) -> None:
    settings = SyntheticLoad(
        daily_amplitudes=tuple(amplitudes),
        day_noise=noise,
        correlated_noise=noise,
        white_noise=noise,
        spikes_per_day=spikes,
    )
    path = SyntheticProfile(settings, step_seconds).draw(np.random.default_rng(seed), history, steps)
    assert path.load.shape == (history + steps,)
    assert np.isfinite(path.load).all() and (path.load >= 0).all()


def test_the_classic_load_is_whole_requests_about_the_published_mean() -> None:
    profile, rng = ClassicProfile(60), np.random.default_rng(0)
    load = np.stack([profile.draw(rng, 0, 10_000).load for _ in range(300)])
    assert (load == np.floor(load)).all() and load.min() >= 0 and load.max() <= 100_000
    # The published simulator's own mean, over 1,000 episodes of it: 4,610 +- 23 requests a minute.
    assert load.mean() == pytest.approx(4610, rel=0.03)


def test_the_classic_load_has_its_daily_curve_and_its_spikes_from_the_episodes_start_on() -> None:
    rng = np.random.default_rng(1)
    calm, spiky = [], []
    for _ in range(200):
        load = ClassicProfile(60).draw(rng, 4 * DAY, 6 * DAY).load
        by_day = load[: 4 * DAY].reshape(4, DAY)
        # min U(1000, 2000), max = min + U(5000, 7000), each up to 20 % more or less, noise up to 5 %
        assert 5000 * 0.8 < np.ptp(by_day.mean(axis=0)) < 7000 * 1.3
        change = np.diff(load) / load.mean()
        calm.append(change[: 4 * DAY + 100].max())
        spiky.append(change[4 * DAY + 100 :].max())
    # A spike starts at once, with 10 to 20 % of the maximum: more than 0.11 of the mean.
    assert np.median(spiky) > np.median(calm) + 0.08


def test_the_classic_load_is_defined_by_the_minute_only() -> None:
    with pytest.raises(UserError, match="steps of 60 seconds, not 300"):
        ClassicProfile(300)


def test_the_test_part_is_replayed_verbatim_after_the_part_before_it() -> None:
    path = replay(trace_of(10), part="test").draw(np.random.default_rng(0), 2 * DAY, 3 * DAY)
    assert path.load.tolist() == list(range(4 * DAY, 9 * DAY))
    assert path.clock == (6 + 4) % 7 * DAY  # a Sunday and four days


def test_before_its_first_day_a_trace_is_continued_by_that_day() -> None:
    path = replay(trace_of(10, SUNDAY + timedelta(hours=1)), part="all").draw(np.random.default_rng(0), 2 * DAY + 5, 50)
    first_day = list(range(DAY))
    assert path.load.tolist() == first_day[-5:] + first_day + first_day + list(range(50))
    assert path.clock == 4 * DAY + 60 - 5


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    days=st.integers(2, 12),
    share=st.floats(0.1, 0.9),
    warp=st.floats(0, 240),
    history=st.integers(0, WEEK),
    length=st.floats(0, 1),
)
def test_training_never_sees_the_test_part(
    seed: int, days: int, share: float, warp: float, history: int, length: float
) -> None:
    profile = replay(trace_of(days), train_share=share, warp_minutes=warp, level_jitter=0.0)
    path = profile.draw(np.random.default_rng(seed), history, max(2, round(length * profile.steps)))
    train_days = max(1, math.floor(share * days + 1e-9))
    assert path.load.max() < train_days * DAY
    assert path.load.min() >= 0


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), warp=st.floats(0, 240))
def test_a_training_window_lies_after_the_first_day_and_moves_by_no_more_than_the_warp(seed: int, warp: float) -> None:
    profile = replay(trace_of(10), warp_minutes=warp, level_jitter=0.0)
    path = profile.draw(np.random.default_rng(seed), 100, 2 * DAY)
    start = (path.clock + 100 - 6 * DAY) % WEEK  # the episode's first step, from its clock
    assert DAY <= start <= 4 * DAY
    moved = path.load[100:] - (start + np.arange(2 * DAY))
    assert np.abs(moved).max() <= warp + 0.5
    assert (np.abs(np.diff(moved)) <= 3).all()


def test_training_windows_start_anywhere_and_are_scaled_as_a_whole() -> None:
    profile, rng = replay(trace_of(10), warp_minutes=0.0, level_jitter=0.2), np.random.default_rng(0)
    starts, factors = [], []
    for _ in range(300):
        path = profile.draw(rng, 0, DAY)
        start = (path.clock - 6 * DAY) % WEEK
        ratio = path.load / (start + np.arange(DAY))
        assert np.ptp(ratio) < 1e-5
        starts.append(start)
        factors.append(math.log(ratio[0]))
    assert min(starts) < DAY + 300 and max(starts) > 5 * DAY - 300
    assert -0.2 <= min(factors) < -0.18 and 0.18 < max(factors) <= 0.2


@pytest.mark.parametrize(("part", "steps"), [("train", 5 * DAY), ("test", 4 * DAY), ("all", 10 * DAY)])
def test_an_episode_longer_than_the_part_is_refused(part: str, steps: int) -> None:
    profile = replay(trace_of(10), part=part)
    assert profile.steps == steps
    profile.draw(np.random.default_rng(0), 0, steps)
    with pytest.raises(TraceError, match=rf"the {part} part of the trace has {steps} steps, fewer than .* {steps + 1}"):
        profile.draw(np.random.default_rng(0), 0, steps + 1)


def test_the_week_begins_on_monday_at_midnight_utc() -> None:
    assert week_clock(datetime(2026, 1, 5, tzinfo=UTC), 60) == 0
    assert week_clock(datetime(1970, 1, 1, 0, 5, tzinfo=UTC), 300) == 3 * 288 + 1
    assert week_clock(datetime(2026, 1, 4, 23, 59, 59, tzinfo=UTC), 60) == WEEK - 1
