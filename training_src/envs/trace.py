"""Recorded loads: reading a CSV file, repairing it by a stated rule, resampling it to the environment's step.

The file has the header ``timestamp,value`` and one row a sample. The rule, applied in this order and reported in
``Trace.report``:

1. A timestamp is ISO 8601, with or without an offset (without: UTC), or a number of seconds since 1970; one file keeps
   to one of these three forms. Rows out of order are sorted; values of the same timestamp are averaged; a blank value
   is missing.
2. The trace's own *interval* is the median difference between timestamps. A value describes the interval that starts
   at its timestamp, so the trace ends one interval after the last one.
3. A value that is a count (``values="count"``) is divided by the number of steps in the interval.
4. Samples finer than the step are averaged within each step; coarser ones are joined by straight lines.
5. A difference above 1.5 intervals is a *gap*. Gaps of up to an hour, or two intervals if that is longer, are bridged
   by a straight line. In a longer gap each step takes the load at the same time on the nearest earlier day on which
   it is known, else on the nearest later day, else the straight line.

Steps start at multiples of the step since midnight UTC.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import DAY_SECONDS
from training_src.errors import UserError

MAX_BYTES = 256 << 20
MAX_YEARS = 5
MAX_VALUE = 1e12
GAP_INTERVALS = 1.5
BRIDGED_SECONDS = 3600.0
BRIDGED_INTERVALS = 2.0
MAX_SHOWN_GAPS = 10
_HEADER = ["timestamp", "value"]
_EARLIEST, _LATEST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1970, 2200))


class TraceError(UserError):
    """A trace that cannot be used; the message names the file, the line where there is one, and what to do."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """A stretch without samples.

    Attributes:
        start, end: timestamps of the samples around it.
        filled: how.
    """

    start: datetime
    end: datetime
    filled: Literal["by a line", "from other days", "from other days, the rest by a line"]

    @property
    def copied(self) -> bool:
        """Whether other days stand in for it."""
        return self.filled != "by a line"


@dataclasses.dataclass(frozen=True)
class TraceReport:
    """What was found in the file and done about it; ``str()`` gives readable lines.

    Attributes:
        path: the file.
        rows: rows below the header.
        duplicates: rows with a value whose timestamp an earlier row has too.
        missing: rows with a blank value.
        out_of_order: rows whose timestamp is before that of the row above.
        gaps: in order of time.
    """

    path: Path
    rows: int
    duplicates: int
    missing: int
    out_of_order: int
    gaps: tuple[Gap, ...]

    def __str__(self) -> str:
        """One line of counts, then one a gap, at most ``MAX_SHOWN_GAPS``."""
        counts = [f"{self.rows:,} rows"]
        if self.out_of_order:
            counts.append(f"{self.out_of_order:,} out of order (sorted)")
        if self.duplicates:
            counts.append(f"{self.duplicates:,} with a timestamp seen before (averaged)")
        if self.missing:
            counts.append(f"{self.missing:,} without a value")
        counts.append(f"{len(self.gaps):,} gap{'' if len(self.gaps) == 1 else 's'}")
        lines = [
            f"  gap {gap.start:%Y-%m-%d %H:%M:%S} to {gap.end:%Y-%m-%d %H:%M:%S} UTC, filled {gap.filled}"
            for gap in self.gaps[:MAX_SHOWN_GAPS]
        ]
        if len(self.gaps) > MAX_SHOWN_GAPS:
            lines.append(f"  and {len(self.gaps) - MAX_SHOWN_GAPS:,} more gaps")
        return "\n".join([f"{self.path}: {', '.join(counts)}", *lines])


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A load at the environment's step.

    Attributes:
        load: shape ``(T,)``, requests per step; not writeable.
        start: UTC time at which step 0 starts.
        step_seconds: length of a step.
        interval_seconds: the file's own interval.
        report: what was repaired.
    """

    load: npt.NDArray[np.float32]
    start: datetime
    step_seconds: int
    interval_seconds: float
    report: TraceReport

    @property
    def steps_per_day(self) -> int:
        """Steps in a day."""
        return DAY_SECONDS // self.step_seconds


@dataclasses.dataclass(frozen=True)
class _Samples:
    """The rows of a file in file order: seconds since 1970, value (NaN when blank), line number."""

    seconds: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    lines: npt.NDArray[np.int64]


def read_trace(path: str | Path, step_seconds: int = 60, values: Literal["rate", "count"] = "rate") -> Trace:
    """Read a trace and resample it; the module's docstring states the rule.

    Args:
        path: CSV file with the header ``timestamp,value``, UTF-8, with or without a byte order mark.
        step_seconds: the environment's step; divides a day.
        values: ``rate``: a value is the load per step at its time; ``count``: it is the sum over its own interval.

    Raises:
        TraceError: the file cannot be read, a row is wrong, or the trace is shorter than a day or longer than 5 years.
    """
    if DAY_SECONDS % step_seconds:
        raise ValueError(f"step_seconds: {step_seconds} does not divide a day")
    path = Path(path)
    samples = _read_samples(path)
    present = ~np.isnan(samples.values)
    if not present.any():
        raise TraceError(f"{path}: no row has a value; check that the second column is filled")
    stamps = np.unique(samples.seconds)
    if len(stamps) < 2:
        raise TraceError(f"{path}: fewer than 2 different timestamps; give a trace of at least a day")
    interval = float(np.median(np.diff(stamps)))

    times, inverse, counts = np.unique(samples.seconds[present], return_inverse=True, return_counts=True)
    rates = np.bincount(inverse, weights=samples.values[present]) / counts
    if values == "count":
        rates *= step_seconds / interval

    start = math.ceil(times[0] / step_seconds) * step_seconds
    n_steps = math.floor((times[-1] + interval - start) / step_seconds + 1e-6)
    if n_steps * step_seconds > MAX_YEARS * 366 * DAY_SECONDS:
        raise TraceError(
            f"{path}: spans more than {MAX_YEARS} years, from {_utc(times[0])} (line {_line_of(samples, times[0])}) "
            f"to {_utc(times[-1])} (line {_line_of(samples, times[-1])}); correct these timestamps or cut the trace"
        )
    if n_steps * step_seconds < DAY_SECONDS:
        raise TraceError(
            f"{path}: covers {max(0, n_steps) * step_seconds / 3600:.1f} hours; give a trace of at least a day"
        )

    points = np.floor(times / step_seconds) * step_seconds if interval < step_seconds else times
    knots, inverse, counts = np.unique(points, return_inverse=True, return_counts=True)
    grid = start + np.arange(n_steps, dtype=np.float64) * step_seconds
    load = np.interp(grid, knots, np.bincount(inverse, weights=rates) / counts).astype(np.float32)
    gaps = _fill_gaps(load, grid, times, points, interval, DAY_SECONDS // step_seconds)
    load.flags.writeable = False
    return Trace(
        load=load,
        start=_utc(start),
        step_seconds=step_seconds,
        interval_seconds=interval,
        report=TraceReport(
            path=path,
            rows=len(samples.seconds),
            duplicates=int(present.sum()) - len(times),
            missing=int((~present).sum()),
            out_of_order=int((np.diff(samples.seconds) < 0).sum()),
            gaps=gaps,
        ),
    )


def split_days(trace: Trace, train_share: float = 0.6) -> tuple[int, int]:
    """How many whole days of a trace are for training and tuning, and how many there are.

    Days are stretches of 24 hours from the trace's start. The first ``train_share`` of them, rounded down but at least
    one, are for training.

    Returns:
        ``(training days, days)``.

    Raises:
        TraceError: no day would be left for training or for testing.
    """
    days = len(trace.load) // trace.steps_per_day
    train_days = max(1, math.floor(train_share * days + 1e-9))
    if days - train_days < 1:
        raise TraceError(
            f"{trace.report.path}: {days} whole day(s) cannot be split into training and test days "
            f"({train_share:.0%} for training); give a longer trace"
        )
    return train_days, days


def scale_for(trace: Trace, train_steps: int, peak_machines: int = 40) -> float:
    """The throughput of a machine with which the training part's 99.9th percentile needs ``peak_machines``.

    Args:
        trace: the trace.
        train_steps: steps at the start that are for training.
        peak_machines: machines at the percentile, each fully used.

    Returns:
        Requests per machine and step.

    Raises:
        TraceError: the training part has no load.
    """
    peak = float(np.percentile(trace.load[:train_steps], 99.9))
    if peak <= 0.0:
        raise TraceError(f"{trace.report.path}: the training part has no load; give a trace with requests in it")
    return peak / peak_machines


class _Reader(Iterator[list[str]], Protocol):
    """What ``csv.reader`` returns; its class has no public name."""

    @property
    def line_num(self) -> int: ...


def _read_samples(path: Path) -> _Samples:
    try:
        if path.is_dir():
            raise TraceError(f"{path}: is a folder; give a CSV file with the columns timestamp,value")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise TraceError(
                f"{path}: {size / 2**20:.0f} MiB, more than {MAX_BYTES >> 20} MiB; aggregate it to a coarser interval"
            )
        # An undecodable byte becomes a character that no number holds, so that its line can be named.
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return _parse_rows(path, csv.reader(file))
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; give the path of a CSV file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_rows(path: Path, reader: _Reader) -> _Samples:
    seconds, values, lines = array("d"), array("d"), array("q")
    form = ""
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError("the file is empty; its first line must be timestamp,value")
        if [name.strip().lower() for name in header] != _HEADER:
            raise ValueError(f"expected the header timestamp,value, got {_quoted(','.join(header))}")
        for row in reader:
            if not row:
                continue
            if len(row) != 2:
                raise ValueError(f"expected 2 columns (timestamp,value), got {len(row)}")
            second, row_form = _parse_timestamp(row[0].strip())
            if row_form != (form or row_form):
                raise ValueError(
                    f"timestamp {_quoted(row[0])} is {row_form}, those above are {form}; write all of them the same way"
                )
            form = row_form
            seconds.append(second)
            values.append(_parse_value(row[1].strip()))
            lines.append(reader.line_num)
    except (ValueError, csv.Error) as error:
        raise TraceError(f"{path}, line {max(1, reader.line_num)}: {error}") from None
    if not lines:
        raise TraceError(f"{path}: no rows below the header; give a trace of at least a day")
    return _Samples(np.array(seconds), np.array(values), np.array(lines))


def _parse_timestamp(text: str) -> tuple[float, str]:
    """Seconds since 1970, and which of the three forms the timestamp has."""
    if (number := _finite(text)) is not None:
        second, form = number, "a number of seconds"
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"cannot read timestamp {_quoted(text)}; write it as 2026-01-31 23:59 (UTC), with an offset, "
                "or as seconds since 1970"
            ) from None
        form = "ISO 8601 without an offset" if moment.tzinfo is None else "ISO 8601 with an offset"
        second = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    if not _EARLIEST <= second < _LATEST:
        hint = "; numbers are seconds since 1970, not milliseconds" if form == "a number of seconds" else ""
        raise ValueError(f"timestamp {_quoted(text)} is not between 1970 and 2200{hint}")
    return second, form


def _parse_value(text: str) -> float:
    """The value of a row; NaN when it is blank."""
    if not text:
        return math.nan
    value = _finite(text)
    if value is None:
        raise ValueError(f"value {_quoted(text)} is not a finite number; correct it, or leave it blank if missing")
    if value < 0:
        raise ValueError(f"value {_quoted(text)} is negative; a load is zero or more")
    if value > MAX_VALUE:
        raise ValueError(f"value {_quoted(text)} is above {MAX_VALUE:g}; write the load in a larger unit")
    return value


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None  # Python reads 1_000 as a number


def _fill_gaps(
    load: npt.NDArray[np.float32],
    grid: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    points: npt.NDArray[np.float64],
    interval: float,
    steps_per_day: int,
) -> tuple[Gap, ...]:
    """Find the gaps between ``times`` and fill the long ones in ``load``, which holds straight lines there.

    Args:
        load: shape ``(T,)``, changed in place.
        grid: shape ``(T,)``, when each step starts.
        times: shape ``(n,)``, when the samples were taken.
        points: shape ``(n,)``, where the samples lie on the grid's axis.
        interval: the trace's own, in seconds.
        steps_per_day: steps in a day.
    """
    length = np.diff(times)
    step = float(grid[1] - grid[0])
    before = np.flatnonzero(length > GAP_INTERVALS * interval)
    is_long = length[before] > max(BRIDGED_SECONDS, BRIDGED_INTERVALS * interval)
    firsts = np.searchsorted(grid, points[before] + max(interval, step))
    lasts = np.maximum(firsts, np.searchsorted(grid, points[before + 1]))

    known = np.ones(-(-len(load) // steps_per_day) * steps_per_day, bool)
    known[len(load) :] = False
    for first, last in zip(firsts[is_long], lasts[is_long], strict=True):
        known[first:last] = False
    # For each step of the day, the nearest earlier day on which it is known, else the nearest later one.
    known_days = known.reshape(-1, steps_per_day)
    day = np.arange(len(known_days))[:, None]
    earlier = np.maximum.accumulate(np.where(known_days, day, -1), axis=0)
    later = np.minimum.accumulate(np.where(known_days, day, len(day))[::-1], axis=0)[::-1]
    donor_day = np.where(earlier >= 0, earlier, later).ravel()[: len(load)]
    donor = donor_day * steps_per_day + np.arange(len(load)) % steps_per_day
    has_donor = donor_day < len(day)
    fillable = ~known[: len(load)] & has_donor
    load[fillable] = load[donor[fillable]]

    gaps = []
    for index, first, last, filled_by_days in zip(before, firsts, lasts, is_long, strict=True):
        found = has_donor[first:last] if filled_by_days else has_donor[:0]
        gaps.append(
            Gap(
                start=_utc(times[index]),
                end=_utc(times[index + 1]),
                filled="by a line"
                if not found.any()
                else "from other days"
                if found.all()
                else "from other days, the rest by a line",
            )
        )
    return tuple(gaps)


def _line_of(samples: _Samples, second: float) -> int:
    """The first line with this timestamp."""
    return int(samples.lines[np.argmax(samples.seconds == second)])


def _utc(second: float) -> datetime:
    return datetime.fromtimestamp(float(second), UTC)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
