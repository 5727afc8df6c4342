"""Load profiles: where an episode's load comes from.

A profile draws whole paths, so that everything random about an episode is known when it starts: a step needs no
generator, a batched environment equals many single ones, and a clairvoyant optimum can be computed for the same path.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from policy_runtime.spec import DAY_SECONDS
from training_src.envs.trace import Trace, TraceError, read_trace, split_days
from training_src.errors import UserError
from training_src.problem import ClassicLoad, Load, SyntheticLoad, TraceLoad

Floats = npt.NDArray[np.float32]

_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS_OF_WEEK = 7


@dataclasses.dataclass(frozen=True)
class LoadPath:
    """The load of one episode and of the time before it.

    Attributes:
        load: shape ``(history + steps,)``, requests per step.
        clock: the step of the week of ``load[0]``, counted from Monday 00:00 UTC.
    """

    load: Floats
    clock: int


class LoadProfile(Protocol):
    """Draws load paths."""

    def draw(self, rng: np.random.Generator, history: int, steps: int) -> LoadPath:
        """Draw the path of one episode of ``steps`` steps and of ``history`` steps before it."""
        ...


def load_profile(settings: Load, step_seconds: int) -> LoadProfile:
    """The profile that the settings describe; reading a trace raises ``TraceError``."""
    match settings:
        case SyntheticLoad():
            return SyntheticProfile(settings, step_seconds)
        case ClassicLoad():
            return ClassicProfile(step_seconds)
        case TraceLoad():
            return TraceProfile(settings, read_trace(Path(settings.path), step_seconds, settings.values))


def week_clock(time: datetime, step_seconds: int) -> int:
    """The step of the week, counted from Monday 00:00 UTC, that holds ``time``."""
    return int((time - _MONDAY).total_seconds() // step_seconds) % (_DAYS_OF_WEEK * DAY_SECONDS // step_seconds)


class SyntheticProfile:
    """Level x daily curve x weekly curve x noise + occasional spikes; every parameter is in ``SyntheticLoad``.

    An episode starts at a random time of the week. The curve's phases, the days' levels, the noise and the spikes are
    drawn anew for each episode.
    """

    def __init__(self, settings: SyntheticLoad, step_seconds: int) -> None:
        self.settings = settings
        self.steps_per_day = DAY_SECONDS // step_seconds
        self.steps_per_minute = 60.0 / step_seconds
        self._angle = (2 * np.pi / self.steps_per_day * np.arange(self.steps_per_day)).astype(np.float32)

    def draw(self, rng: np.random.Generator, history: int, steps: int) -> LoadPath:
        """Draw a path of ``history + steps`` steps."""
        length = history + steps
        clock = int(rng.integers(_DAYS_OF_WEEK * self.steps_per_day))
        load = self._curve(rng, clock, length)
        load *= self._noise(rng, length)
        self._add_spikes(rng, load)
        np.maximum(load, 0.0, out=load)
        return LoadPath(load, clock)

    def _curve(self, rng: np.random.Generator, clock: int, length: int) -> Floats:
        amplitudes = self.settings.daily_amplitudes
        phases = rng.uniform(0.0, 2 * np.pi, len(amplitudes)).astype(np.float32)
        profile = np.ones(self.steps_per_day, np.float32)
        for harmonic, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), start=1):
            profile += np.float32(amplitude) * np.sin(np.float32(harmonic) * self._angle + phase)
        first_day, offset = divmod(clock, self.steps_per_day)
        days = (first_day + np.arange((offset + length - 1) // self.steps_per_day + 1)) % _DAYS_OF_WEEK
        factors = np.asarray(self.settings.weekday_factors)[days] * rng.normal(1.0, self.settings.day_noise, len(days))
        levels = (self.settings.level * factors).astype(np.float32)
        return np.multiply.outer(levels, profile).ravel()[offset : offset + length]

    def _noise(self, rng: np.random.Generator, length: int) -> Floats:
        numerator, denominator = arma_coefficients(
            self.settings.correlated_noise,
            self.settings.correlated_noise_minutes * self.steps_per_minute,
            self.settings.white_noise,
        )
        # After five time constants the filter has forgotten that it started from zero (e^-10 of its variance).
        settle = math.ceil(5 * self.settings.correlated_noise_minutes * self.steps_per_minute)
        innovations = rng.standard_normal(settle + length, dtype=np.float32)
        noise = lfilter(numerator, denominator, innovations)[settle:]
        noise += np.float32(1.0)
        return np.asarray(noise, np.float32)

    def _add_spikes(self, rng: np.random.Generator, load: Floats) -> None:
        settings = self.settings
        count = rng.poisson(settings.spikes_per_day * len(load) / self.steps_per_day)
        starts = rng.integers(len(load), size=count)
        heights = rng.exponential(settings.spike_height * settings.level, count)
        rises = rng.uniform(*settings.spike_rise_minutes, count) * self.steps_per_minute
        decays = rng.uniform(*settings.spike_decay_minutes, count) * self.steps_per_minute
        # All spikes in one flat array: 7 time constants of decay leave less than a thousandth of a spike.
        lengths = np.minimum(np.ceil(rises + 7 * decays), len(load) - starts).astype(np.int64)
        ends = np.cumsum(lengths)
        age = np.arange(1, lengths.sum() + 1) - np.repeat(ends - lengths, lengths)
        position = np.repeat(starts, lengths) + age - 1
        risen = age - np.repeat(rises, lengths)
        shape = np.exp(np.repeat(-1.0 / decays, lengths) * np.maximum(risen, 0.0), dtype=np.float32)
        shape *= np.minimum(age * np.repeat(1.0 / rises, lengths), 1.0)
        shape *= np.repeat(heights, lengths)
        load += np.bincount(position, shape, minlength=len(load))


@functools.lru_cache(maxsize=64)
def arma_coefficients(correlated_sd: float, time_constant: float, white_sd: float) -> tuple[Floats, Floats]:
    """Filter that turns unit white noise into an AR(1) process plus white noise.

    The sum of an AR(1) process and white noise is an ARMA(1, 1) process (Granger and Morris, 1976), so one stream of
    innovations is enough. With ``phi = exp(-1 / time_constant)`` the moving-average part ``s (1 + theta B)`` matches
    the autocovariances of ``x_t - phi x_(t-1)`` at lags 0 and 1.

    Args:
        correlated_sd: stationary standard deviation of the AR(1) process.
        time_constant: of its exponential autocorrelation, in steps.
        white_sd: standard deviation of the white noise.

    Returns:
        Numerator and denominator for ``scipy.signal.lfilter``.
    """
    phi = math.exp(-1.0 / time_constant)
    variance = correlated_sd**2 * (1 - phi**2) + white_sd**2 * (1 + phi**2)
    covariance = -phi * white_sd**2
    ratio = covariance / variance if variance else 0.0
    # max: with no correlated noise and phi near 1 rounding could make the discriminant slightly negative
    theta = 2 * ratio / (1 + math.sqrt(max(0.0, 1 - 4 * ratio**2)))
    scale = math.sqrt(variance / (1 + theta**2))
    return np.array([scale, scale * theta], np.float32), np.array([1.0, -phi], np.float32)


class ClassicProfile:
    """The load of the published sample (``autoscalesim.py`` of Amazon SageMaker's RL examples), with its constants.

    A daily sine, times a slow sine, times white noise, plus spikes that start at once and decay linearly, one after
    the other. As in the sample the first spike comes 100 to 1,000 minutes after the episode's start: the history
    before it, which the sample did not have, holds no spike.
    """

    MAX_LOAD = 100_000.0

    def __init__(self, step_seconds: int) -> None:
        if step_seconds != 60:
            raise UserError(f"step_seconds: the classic load is defined in steps of 60 seconds, not {step_seconds}")

    def draw(self, rng: np.random.Generator, history: int, steps: int) -> LoadPath:
        """Draw a path of ``history + steps`` steps."""
        low = rng.uniform(1000.0, 2000.0)
        high = low + rng.uniform(5000.0, 7000.0)
        noise = rng.uniform(0.01, 0.05)
        slow_amplitude, slow_period = rng.uniform(0.1, 0.2), rng.uniform(2.0, 5.0)
        day_phase, slow_phase = rng.uniform(-np.pi, np.pi, 2)
        angle = np.arange(1 - history, steps + 1) * (2 * np.pi / 1440) + day_phase
        load = (low + high) / 2 + (high - low) / 2 * np.sin(angle)
        load *= 1 + slow_amplitude * np.sin(angle / slow_period + slow_phase)
        load *= rng.normal(1.0, noise, len(load))
        wait = rng.uniform(100.0, 1000.0)
        position = 0.0
        while position + wait < steps:
            width, height = 5 + rng.lognormal(3.0, 2.0), high * rng.uniform(0.1, 0.2)
            begin = position + wait
            end = min(begin + width, float(steps))
            time = np.arange(math.ceil(begin), math.ceil(end))
            load[history + time] += height * (1 - (time - begin) / width)
            position, wait = end, rng.uniform(100.0, 1000.0)
        load = np.floor(np.clip(load, 0.0, self.MAX_LOAD))
        return LoadPath(load.astype(np.float32), int(rng.integers(_DAYS_OF_WEEK * 1440)))


class TraceProfile:
    """Replay of a recorded load.

    Before its first day a trace is continued backwards by repeating that day, so that there is always a history.
    ``train`` starts at a random step of the training part, after its first day when it has more than one (a window
    inside the repeated day would see its own future as yesterday), scales the load by ``exp(U(-j, j))`` and shifts
    time smoothly by up to ``warp_minutes``. ``tune`` is the same part, verbatim; ``test`` and ``all`` are replayed
    verbatim from their beginning.
    """

    def __init__(self, settings: TraceLoad, trace: Trace) -> None:
        self.settings = settings
        self.trace = trace
        self.steps_per_day = DAY_SECONDS // trace.step_seconds
        train_days, days = split_days(trace, settings.train_share)
        train_end = train_days * self.steps_per_day
        self.first, self.end = {
            "train": (min(1, train_days - 1) * self.steps_per_day, train_end),
            "tune": (min(1, train_days - 1) * self.steps_per_day, train_end),
            "test": (train_end, days * self.steps_per_day),
            "all": (0, len(trace.load)),
        }[settings.part]

    @property
    def steps(self) -> int:
        """Steps in the part: the longest episode."""
        return self.end - self.first

    def draw(self, rng: np.random.Generator, history: int, steps: int) -> LoadPath:
        """Cut a path out of the part; raises ``TraceError`` when the part is shorter than an episode."""
        if steps > self.steps:
            raise TraceError(
                f"the {self.settings.part} part of the trace has {self.steps} steps, fewer than an episode of {steps}: "
                "use a longer trace or a smaller episode_steps"
            )
        train = self.settings.part == "train"
        start = self.first + (int(rng.integers(self.steps - steps + 1)) if train else 0)
        position = np.arange(start - history, start + steps)
        load = self._at(self._warp(rng, position)) if train else self._at(position)
        if train:
            load = load * np.float32(math.exp(rng.uniform(-self.settings.level_jitter, self.settings.level_jitter)))
        clock = week_clock(self.trace.start, self.trace.step_seconds) + start - history
        return LoadPath(load, clock % (_DAYS_OF_WEEK * self.steps_per_day))

    def _warp(self, rng: np.random.Generator, position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Shift time by a slow sine: day by day the same features come a little earlier or later."""
        amplitude = rng.uniform(0.0, self.settings.warp_minutes) * 60 / self.trace.step_seconds
        period = rng.uniform(0.7, 3.0) * self.steps_per_day
        shift = amplitude * np.sin(2 * np.pi * position / period + rng.uniform(0.0, 2 * np.pi))
        moved: npt.NDArray[np.int64] = np.rint(position + shift).astype(np.int64)
        return np.minimum(moved, self.end - 1)

    def _at(self, position: npt.NDArray[np.int64]) -> Floats:
        return self.trace.load[np.where(position < 0, position % self.steps_per_day, position)]
