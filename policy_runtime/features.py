"""Features of a load path and of a fleet: one definition for training, endpoint and edge.

Arrays are *time-major*: a load path has shape ``(T, n)`` for ``T`` steps of ``n`` independent fleets, and features have
shape ``(features, n)``, so that each operation runs over contiguous fleets. ``Observer`` computes the same bits for a
single decision of one fleet, where the number of NumPy calls is what costs.

A decision before step ``t`` sees loads up to step ``t - 1``. Trailing windows are reduced by doubling, in an order that
depends on the window alone: a feature has the same bits whether it was computed along a whole path or for one decision.

The load features are logarithms of machine equivalents, ``log(load / throughput + 1)``, less ``log(machines + 1)`` of
the fleet as ordered (active + pending). So a policy sees how far the load is from the fleet in relative terms, which is
the quantity that a scaling decision depends on, at any size of the fleet.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import FeatureSpec, FleetSpec

Floats = npt.NDArray[np.float32]

SEASONAL_NAME = re.compile(r"day([1-9]\d?)_(max|mean|level|hour)")
_WEEK_DAYS = 7
_ONE = np.ones(1, np.float32)
_LEAST_LOAD = np.float32(1e-9)
"""So that the share of failures is 0 without load."""


def trailing(reduce: np.ufunc, values: Floats, windows: Sequence[int]) -> list[Floats]:
    """Reduce each trailing window of a path with ``np.maximum`` or ``np.add``.

    Args:
        reduce: an associative ufunc.
        values: shape ``(T, n)``.
        windows: lengths in steps, each between 1 and ``T``.

    Returns:
        For each window ``w`` an array of shape ``(T - w + 1, n)`` whose row ``i`` reduces ``values[i : i + w]``.
    """
    powers = {1: values}
    width = 1
    while 2 * width <= max(windows, default=0):
        powers[2 * width] = reduce(powers[width][:-width], powers[width][width:])
        width *= 2
    results = []
    for window in windows:
        rows = len(values) - window + 1
        parts = [powers[width][offset : offset + rows] for offset, width in _blocks(window)]
        results.append(functools.reduce(reduce, parts))
    return results


def _blocks(window: int) -> list[tuple[int, int]]:
    """Offset and width of the blocks that a window is reduced in: its binary digits, the largest first."""
    blocks, offset = [], 0
    for digit in reversed(range(window.bit_length())):
        width = 1 << digit
        if window & width:
            blocks.append((offset, width))
            offset += width
    return blocks


def seasonal_names(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the seasonal values that a learned policy reads, as a decision request gives them."""
    return tuple(f"day{day}_{statistic}" for day in spec.seasonal_days for statistic in ("max", "mean", "level"))


def seasonal_history(names: Sequence[str], spec: FeatureSpec, fleet: FleetSpec) -> int:
    """Steps of load history before a decision from which all of ``names`` can be computed."""
    days = max((_parse_seasonal(name)[0] for name in names), default=0)
    margin = 2 * spec.seasonal_window + 1 + 3600 // fleet.step_seconds
    return days * fleet.steps_per_day + margin if days else 0


def seasonal_values(
    load: Floats,
    first: int,
    count: int,
    names: Sequence[str],
    spec: FeatureSpec,
    fleet: FleetSpec,
    clock: npt.NDArray[np.int64],
) -> Floats:
    """Loads around the same time on earlier days, in requests per step.

    For day ``d`` before a decision at step ``t``, with ``a = t + provisioning_delay`` the step at which a machine
    ordered now first serves and ``w = seasonal_window``:

    - ``day{d}_max``, ``day{d}_mean``: maximum and mean over steps ``a - w`` to ``a + w``, ``d`` days earlier;
    - ``day{d}_level``: mean over the ``2 w + 1`` steps before ``t``, ``d`` days earlier;
    - ``day{d}_hour``: mean over the clock hour that holds ``a``, ``d`` days earlier.

    Args:
        load: path of shape ``(T, n)``.
        first: index into ``load`` of the first decision; it may equal ``T``.
        count: number of consecutive decisions.
        names: seasonal values to compute.
        spec, fleet: give window, delay and steps per day.
        clock: shape ``(n,)``, the step of the week of ``load[0]``, counted from Monday 00:00 UTC.

    Returns:
        Shape ``(count, len(names), n)``; NaN where the path does not reach back far enough.
    """
    width = 2 * spec.seasonal_window + 1
    hour = 3600 // fleet.step_seconds or 1
    result = np.full((count, len(names), load.shape[1]), np.nan, np.float32)
    for column, name in enumerate(names):
        day, statistic = _parse_seasonal(name)
        shift = first - day * fleet.steps_per_day
        arrival = shift + fleet.provisioning_delay
        if statistic == "hour":
            # Each fleet has its own clock, so the hour starts at another offset in each column.
            steps = arrival + np.arange(count)[:, None]
            start = steps - (clock[None, :] + steps) % hour
            known = (start >= 0) & (start + hour <= len(load))
            if known.any():
                (sums,) = trailing(np.add, load, [hour])
                rows = np.where(known, start, 0)
                values = np.take_along_axis(sums, rows, axis=0) / np.float32(hour)
                result[:, column] = np.where(known, values, np.nan)
            continue
        begin = shift - width if statistic == "level" else arrival - spec.seasonal_window
        skip = min(max(0, -begin), count)
        stop = min(count, len(load) - width - begin + 1)
        if stop <= skip:
            continue
        window = load[begin + skip : begin + stop + width - 1]
        (reduced,) = trailing(np.maximum if statistic == "max" else np.add, window, [width])
        result[skip:stop, column] = reduced if statistic == "max" else reduced / np.float32(width)
    return result


def _parse_seasonal(name: str) -> tuple[int, str]:
    match = SEASONAL_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"unknown seasonal value {name!r}, expected for example 'day1_max' or 'day7_hour'")
    return int(match[1]), match[2]


def exogenous_features(
    load: Floats,
    first: int,
    count: int,
    spec: FeatureSpec,
    fleet: FleetSpec,
    clock: npt.NDArray[np.int64],
    seasonal: Floats | None = None,
) -> Floats:
    """Features that no decision changes: recent load, seasonal load, calendar.

    Args:
        load: path of shape ``(T, n)`` in requests per step, with at least ``spec.history`` steps before ``first``.
        first, count, clock: as for ``seasonal_values``.
        spec, fleet: what to compute, and in which units.
        seasonal: values as ``seasonal_values`` gives them for ``seasonal_names(spec)``; computed when absent.

    Returns:
        Shape ``(count, exogenous features, n)``: the relative load features (``log(machines + 1)`` not yet
        subtracted), then the calendar.
    """
    if first < spec.history:
        raise ValueError(f"{spec.history} steps of history are needed before the first decision, got {first}")
    # row i of a trailing window of w steps ends at i + w - 1; a decision at t wants the one that ends at t - 1
    recent = load[first - spec.history : first + count - 1]
    rows = [recent[spec.history - lag : spec.history - lag + count] for lag in spec.lags]
    maxima, sums = trailing(np.maximum, recent, spec.windows), trailing(np.add, recent, spec.windows)
    rows += [window[spec.history - w :] for w, window in zip(spec.windows, maxima, strict=True)]
    rows += [window[spec.history - w :] / np.float32(w) for w, window in zip(spec.windows, sums, strict=True)]
    names = seasonal_names(spec)
    if seasonal is None:
        seasonal = seasonal_values(load, first, count, names, spec, fleet, clock)
    n_recent, n_load = len(rows), len(rows) + len(names)
    result = np.empty((count, n_load + (4 if spec.calendar else 0), load.shape[1]), np.float32)
    for column, row in enumerate(rows):
        result[:, column] = row
    result[:, n_recent:n_load] = seasonal
    machines = result[:, :n_load]
    machines *= np.float32(1.0 / fleet.throughput)
    machines += np.float32(1.0)
    np.log(machines, out=machines)
    if spec.calendar:
        table = _calendar_table(fleet.steps_per_day)
        step = (clock[None, :] + (first + np.arange(count))[:, None]) % table.shape[1]
        for angle in range(4):
            result[:, n_load + angle] = table[angle][step]
    return result


def _calendar_table(steps_per_day: int) -> Floats:
    """Sine and cosine of the time of day and of the week for each step of a week, shape ``(4, steps per week)``."""
    table = _CALENDARS.get(steps_per_day)
    if table is None:
        step = np.arange(_WEEK_DAYS * steps_per_day)
        day, week = 2 * np.pi * step / steps_per_day, 2 * np.pi * step / (_WEEK_DAYS * steps_per_day)
        table = np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)]).astype(np.float32)
        _CALENDARS[steps_per_day] = table
    return table


_CALENDARS: dict[int, Floats] = {}


def observe(
    exogenous: Floats,
    spec: FeatureSpec,
    active: Floats,
    pending: Floats,
    load: Floats,
    failed: Floats,
) -> Floats:
    """The observation of each fleet: exogenous features made relative to the fleet, and the fleet's own state.

    Args:
        exogenous: shape ``(exogenous features, n)``, one decision of ``exogenous_features``.
        spec: the features.
        active: shape ``(n,)``, machines that serve.
        pending: shape ``(provisioning_delay, n)``; row ``j`` becomes active in ``j + 1`` steps.
        load, failed: shape ``(n,)``, requests of the last completed step.

    Returns:
        Shape ``(features, n)``, in the order of ``feature_names``.
    """
    n_exogenous, n = exogenous.shape
    n_load = n_exogenous - (4 if spec.calendar else 0)
    out = np.empty((n_exogenous + 3 + len(pending), n), np.float32)
    machines = active + pending.sum(axis=0) + np.float32(1.0)
    log_machines = np.log(machines, out=out[n_exogenous])
    np.subtract(exogenous[:n_load], log_machines, out=out[:n_load])
    out[n_load:n_exogenous] = exogenous[n_load:]
    np.divide(active, machines, out=out[n_exogenous + 1])
    np.divide(failed, np.maximum(load, _LEAST_LOAD), out=out[n_exogenous + 2])
    np.divide(pending, machines, out=out[n_exogenous + 3 :])
    return out


class Observer:
    """The observation before one decision of one fleet.

    ``exogenous_features`` and ``observe`` at ``n = 1``, bit for bit as long as the fleet has fewer than 2^24 machines
    (whole numbers up to there are exact in float32), in a tenth of the time: what depends on the specs alone is worked
    out once, and all windows are summed together.
    """

    def __init__(self, spec: FeatureSpec, fleet: FleetSpec) -> None:
        """Work out which values of the history each feature is made of."""
        blocks = [_blocks(window) for window in spec.windows]
        self._history = spec.history
        self._lags, self._windows = np.array(spec.lags, np.intp), np.array(spec.windows, np.intp)
        self._widths = self._windows.astype(np.float32)
        # The leaves of the sums: each block in a row of its own, the first blocks of all windows before the second
        # ones. What a row or a window has too few of is age 0, where the history is 0: adding that changes no bit.
        self._parts = max(map(len, blocks), default=1)
        self._levels = max((width.bit_length() - 1 for window in blocks for _, width in window), default=0)
        leaves = np.zeros((self._parts, len(blocks), 1 << self._levels), np.intp)
        for column, window in enumerate(spec.windows):
            for part, (offset, width) in enumerate(blocks[column]):
                leaves[part, column, :width] = window - offset - np.arange(width)
        self._leaves = leaves.ravel()
        self._per_request = np.array([1.0 / fleet.throughput], np.float32)
        self._loads = len(spec.lags) + 2 * len(spec.windows) + len(seasonal_names(spec))
        self._calendar = fleet.steps_per_day if spec.calendar else None

    def __call__(
        self,
        load: npt.NDArray[np.float64],
        seasonal: Sequence[float],
        clock: int,
        active: float,
        pending: Sequence[float],
        failed: float,
    ) -> Floats:
        """Observe a fleet.

        Args:
            load: requests per step, most recent last, at least ``spec.history`` values.
            seasonal: a value for each of ``seasonal_names(spec)``.
            clock: the step of the week that begins now, counted from Monday 00:00 UTC.
            active: machines that serve.
            pending: ``provisioning_delay`` numbers; item ``j`` becomes active in ``j + 1`` steps.
            failed: requests of the last completed step.

        Returns:
            Shape ``(features,)``, in the order of ``feature_names``.
        """
        by_age = np.zeros(self._history + 1, np.float32)  # the load of the last step has age 1
        by_age[1:] = load[: -self._history - 1 : -1]
        calendar = [] if self._calendar is None else _calendar_table(self._calendar)[:, clock].tolist()
        out = np.array(
            [
                *by_age[self._lags].tolist(),
                *np.maximum.accumulate(by_age)[self._windows].tolist(),
                *(self._sums(by_age) / self._widths).tolist(),
                *seasonal,
                *calendar,
                active + sum(pending),
                active,
                failed,
                *pending,
            ],
            np.float32,
        )
        loads, size, shares = out[: self._loads], self._loads + len(calendar), out[self._loads + len(calendar) + 1 :]
        loads *= self._per_request
        loads += _ONE
        np.log(loads, out=loads)
        machines = out[size : size + 1] + _ONE
        log_machines = np.log(machines, out=out[size : size + 1])
        loads -= log_machines
        failed_share = shares[1] / max(by_age[1], _LEAST_LOAD)
        shares /= machines
        shares[1] = failed_share
        return out

    def _sums(self, by_age: Floats) -> Floats:
        """The sum of each trailing window, added up in the order of ``trailing``."""
        sums = by_age[self._leaves]
        for _ in range(self._levels):
            sums = sums[::2] + sums[1::2]
        total: Floats = np.add.accumulate(sums.reshape(self._parts, -1), axis=0)[-1]
        return total


def feature_names(spec: FeatureSpec, fleet: FleetSpec) -> tuple[str, ...]:
    """Names of an observation's features, in order."""
    return (
        *(f"load_lag{lag}" for lag in spec.lags),
        *(f"load_max{window}" for window in spec.windows),
        *(f"load_mean{window}" for window in spec.windows),
        *seasonal_names(spec),
        *(("day_sin", "day_cos", "week_sin", "week_cos") if spec.calendar else ()),
        "log_machines",
        "active_share",
        "failed_share",
        *(f"pending_in_{step + 1}" for step in range(fleet.provisioning_delay)),
    )


def pending_queue(machines: Sequence[float], delay: int) -> list[float]:
    """Reconstruct when ordered machines arrive from the recent sizes of a fleet.

    A growth of the size (active + pending) is an order, due ``delay`` steps later; a reduction cancels the youngest
    order first, then takes active machines: the rule of ``training_src.envs.fleet``.

    Args:
        machines: the sizes at the end of the last steps, most recent last, at least ``delay + 1`` of them.
        delay: provisioning delay in steps.

    Returns:
        ``delay`` numbers; item ``j`` becomes active in ``j + 1`` steps.
    """
    queue: list[float] = []
    recent = machines[len(machines) - delay - 1 :]
    for before, after in itertools.pairwise(recent):
        if after >= before:
            queue.append(after - before)
            continue
        surplus = before - after
        queue.append(0.0)
        for slot in reversed(range(len(queue))):
            cancelled = min(queue[slot], surplus)
            queue[slot] -= cancelled
            surplus -= cancelled
    return queue
