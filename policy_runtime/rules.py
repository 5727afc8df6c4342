"""Rule-based scalers: what a fleet has without learning, as rivals, as a fallback and as the built-in policy.

A rule sees ``n`` independent fleets at once (``Fleets``), each with a setting of its own if wanted (``make_rules``), so
that many settings and loads are tried in one pass; an endpoint's decision is ``n = 1``. A rule keeps no state of its
own: ``desired`` takes the state and returns the next one, arrays whose first axis is the fleet.

The metric of all rules is the load per active machine as a share of its throughput, as ``ALBRequestCountPerTarget`` or
a requests-per-pod metric has it: it is not capped at 100 % like a processor's utilisation. One step is taken as one
period of the metric (the services' alarms use one minute).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import FleetSpec, Spec, bounded

Array = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
State = Mapping[str, Doubles]

_ROUNDING = 1e-6
"""Machines by which a need may exceed a whole number through rounding errors without ordering one more."""


@dataclasses.dataclass(frozen=True)
class Fleets:
    """What a rule sees of ``n`` fleets before a step; each array has shape ``(n,)``.

    Attributes:
        load: requests of the last completed step.
        active: machines that serve.
        pending: machines ordered and not yet active.
        seasonal: values named as in ``features.seasonal_values``, requests per step; NaN = unknown.
    """

    load: Array
    active: Array
    pending: Array
    seasonal: Mapping[str, Array] = dataclasses.field(default_factory=dict)


class Rule(ABC):
    """A rule-based scaler.

    Attributes:
        name: the rule's name in presets and bundles.
        parameters_type: its parameters; the bounds are in the fields' metadata.
        expected_from: names of the parameters that ``expected`` depends on.
        seasonal: names of the seasonal values that it reads.
        memory: earlier steps that its state remembers; replaying so many from the initial state restores the state.
    """

    name: ClassVar[str]
    parameters_type: ClassVar[type[Spec]]
    expected_from: ClassVar[tuple[str, ...]] = ()
    seasonal: tuple[str, ...] = ()
    memory: int = 0

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        """Make the rule; ``settings`` are ``parameters_type``: one for all fleets, or one for each."""
        self._throughput = fleet.throughput
        self._min, self._max = float(fleet.min_machines), float(fleet.max_machines)

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """The state before the first step of ``n`` fleets."""
        return {}

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """The state of one fleet after some steps from the initial state: ``desired`` at each of them, without sizes.

        Args:
            path: arrays of shape ``(steps,)``, what the rule saw before each step.
        """
        return {}

    def expected(self, seasonal: Mapping[str, Array]) -> Doubles:
        """The load that the seasonal values make the rule expect, requests per step; 0 or NaN where nothing is known.

        It depends on nothing else, so that it can be computed for many steps at once, ahead of ``desired``.

        Args:
            seasonal: what ``self.seasonal`` names, arrays of shape ``(n,)``.
        """
        return _NOTHING

    def desired(self, fleets: Fleets, state: State, expected: Doubles | None = None) -> tuple[Doubles, State]:
        """The wanted sizes (active + pending), whole numbers within the fleet's limits, and the next state.

        Args:
            fleets: ``n`` fleets before a step.
            state: from ``initial_state(n)`` or the previous step; it is not changed.
            expected: ``self.expected(fleets.seasonal)`` where it has been computed ahead.
        """
        if expected is None:
            expected = self.expected(fleets.seasonal)
        wanted, state = self._wanted(fleets, expected, state)
        return np.minimum(np.maximum(wanted, self._min), self._max), state

    @abstractmethod
    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        """``desired`` before the fleet's limits."""

    def _machines_per_request(self, target: Doubles | float) -> Doubles:
        """Machines that a request per step needs at a utilisation of ``target``."""
        return np.asarray(1.0 / (target * self._throughput))


_NOTHING = np.zeros(1)


def _need(load: Array, machines_per_request: Doubles) -> Doubles:
    """Machines that ``load`` needs, not rounded up, less ``_ROUNDING``."""
    need: Doubles = np.multiply(load, machines_per_request, dtype=np.float64)
    need -= _ROUNDING
    return need


def _streak(held: Bools, most: Doubles) -> Doubles:
    """For how many steps up to the last one a condition has held, counted up to ``most``; shape ``(1,)``."""
    broken = np.flatnonzero(~held)
    return np.minimum(len(held) - 1.0 - broken[-1] if len(broken) else float(len(held)), most)


def _column(settings: Sequence[Spec], name: str) -> Doubles:
    """A parameter's value in each of the settings, shape ``(1,)`` or ``(n,)``."""
    return np.array([getattr(one, name) for one in settings], np.float64)


class _TrailingMaximum:
    """The largest of the last values of each fleet, which are at least 0, in a window of each setting's own length."""

    def __init__(self, lengths: Doubles) -> None:
        self.length = int(lengths.max())
        self._unused = self.length - lengths.astype(np.intp)
        shorter = np.flatnonzero(self._unused)
        self._left = (shorter, self._unused[shorter] - 1) if len(shorter) else None

    def initial(self, n: int, value: float) -> Doubles:
        """Windows full of ``value``, shape ``(n, length)``; 0 before the beginning of a shorter one."""
        # Values of one age lie side by side, so that pushing and reducing run over contiguous fleets.
        history = np.full((n, self.length), value, order="F")
        if self._left is not None:
            history[np.arange(self.length) < self._unused[:, None]] = 0.0
        return history

    def push(self, history: Doubles, value: Doubles) -> tuple[Doubles, Doubles]:
        """The maxima of the windows with ``value`` as the newest, shape ``(n,)``, and those windows."""
        result = np.empty_like(history)
        result[:, :-1] = history[:, 1:]
        if self._left is not None:
            result[self._left] = 0.0
        result[:, -1] = value
        return np.maximum.reduce(result, axis=1), result

    def of_last(self, path: Doubles, value: float) -> Doubles:
        """``initial(1, value)`` after each value of ``path`` was pushed."""
        return np.concatenate([self.initial(1, value), path[None]], axis=1)[:, -self.length :]


class _EarlierDays:
    """A seasonal value of as many of the last days as each setting looks at."""

    def __init__(self, days: Doubles, statistic: str) -> None:
        count = int(days.max())
        self.names = tuple(f"day{day}_{statistic}" for day in range(1, count + 1))
        beyond = np.arange(1, count + 1)[:, None] > days
        self._beyond = beyond if beyond.any() else None

    def read(self, seasonal: Mapping[str, Array]) -> Doubles:
        """A new array of shape ``(days, n)``; NaN = unknown, or further back than a setting looks."""
        values = np.array([seasonal[name] for name in self.names], np.float64)
        if self._beyond is not None:
            values[self._beyond] = np.nan
        return values


@dataclasses.dataclass(frozen=True)
class StaticParameters(Spec):
    """Parameters of ``Static``.

    Attributes:
        machines: size of the fleet.
    """

    machines: int = bounded(40, low=0, high=1_000_000)


class Static(Rule):
    """A fixed number of machines."""

    name = "static"
    parameters_type = StaticParameters

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._machines = _column(settings, "machines")

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        return np.zeros(len(fleets.load)) + self._machines, state


@dataclasses.dataclass(frozen=True)
class TargetTrackingParameters(Spec):
    """Parameters of ``TargetTracking``.

    Attributes:
        target: utilisation to keep.
        out_periods: consecutive steps above the target that raise the high alarm.
        in_periods: consecutive steps below ``low_ratio`` x target that raise the low alarm.
        low_ratio: the low alarm's threshold as a share of the target.
    """

    target: float = bounded(0.6, low=0.05, high=1.0)
    out_periods: int = bounded(3, low=1, high=60)
    in_periods: int = bounded(15, low=1, high=240)
    low_ratio: float = bounded(0.9, low=0.1, high=1.0)


class TargetTracking(Rule):
    """Target tracking of Amazon EC2 Auto Scaling and Application Auto Scaling.

    Source: Amazon EC2 Auto Scaling User Guide, "Target tracking scaling policies" (as-scaling-target-tracking), and
    the alarms that the service makes: high = 3 of 3 periods above the target, low = 15 of 15 periods below 90 % of it.

    - A raised high alarm asks for ``ceil(active x utilisation / target)``. Machines that warm up are not in the metric
      and not in the current capacity, but are in the desired one: the size becomes the larger of both, so that one
      breach orders once.
    - A raised low alarm asks for the same number (rounding up removes fewer), unless a scale-out is in progress.
    - An alarm acts at every step while it stays raised.

    Simplified: the service does not publish how it smooths scale-in; here it goes to the computed size at once. An
    alarm's memory starts empty. A fleet without an active machine and with load counts as above its target.
    """

    name = "target_tracking"
    parameters_type = TargetTrackingParameters

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._per_request = self._machines_per_request(_column(settings, "target"))
        self._low_ratio = _column(settings, "low_ratio")
        self._out_periods, self._in_periods = _column(settings, "out_periods"), _column(settings, "in_periods")
        self.memory = int(max(self._out_periods.max(), self._in_periods.max())) - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Steps for which each alarm's condition has held."""
        return {"above": np.zeros(n), "below": np.zeros(n)}

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """See ``Rule``."""
        _, high, low = self._breaches(path.load, np.asarray(path.active, np.float64))
        return {"above": _streak(high, self._out_periods), "below": _streak(low, self._in_periods)}

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        active = np.asarray(fleets.active, np.float64)
        total = active + fleets.pending
        need, high, low = self._breaches(fleets.load, active)
        above = np.minimum(state["above"] + 1.0, self._out_periods) * high
        below = np.minimum(state["below"] + 1.0, self._in_periods) * low
        size = np.ceil(need)
        wanted = np.where(above >= self._out_periods, np.maximum(total, size), total)
        scale_in = (below >= self._in_periods) & (total == active)
        return np.where(scale_in, size, wanted), {"above": above, "below": below}

    def _breaches(self, load: Array, active: Doubles) -> tuple[Doubles, Bools, Bools]:
        """Machines needed, and whether the conditions of the high and of the low alarm hold."""
        need = _need(load, self._per_request)
        return need, need > active, need < self._low_ratio * active - 2 * _ROUNDING


@dataclasses.dataclass(frozen=True)
class StepScalingParameters(Spec):
    """Parameters of ``StepScaling``.

    Attributes:
        high: utilisation at and above which the scale-out alarm is in breach.
        low: utilisation at and below which the scale-in alarm is in breach.
        out_percent: machines added by the first step adjustment, in percent of the active ones.
        in_percent: machines removed by the first step adjustment, likewise.
        out_periods, in_periods: consecutive steps in breach that raise the alarms.
    """

    high: float = bounded(0.7, low=0.1, high=1.0)
    low: float = bounded(0.5, low=0.0, high=0.95)
    out_percent: float = bounded(10.0, low=1.0, high=100.0)
    in_percent: float = bounded(10.0, low=1.0, high=50.0)
    out_periods: int = bounded(3, low=1, high=60)
    in_periods: int = bounded(15, low=1, high=240)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError(f"StepScalingParameters.low: {self.low} is not below high ({self.high})")


class StepScaling(Rule):
    """Step scaling of Amazon EC2 Auto Scaling with ``PercentChangeInCapacity``.

    Source: Amazon EC2 Auto Scaling User Guide, "Step and simple scaling policies" (as-scaling-simple-step).

    - Scale-out: the adjustment is ``out_percent`` from ``high``, twice that from ``high + 0.10``, three times from
      ``high + 0.25``; with the defaults +10 % from 70 %, +20 % from 80 %, +30 % from 95 %.
    - Scale-in: ``in_percent`` from ``low`` down, twice that from ``low - 0.10`` down; by default -10 % from 50 %, -20 %
      from 40 %.
    - Percentages are of the current capacity, which leaves out machines that warm up; rounded down, at least 1.
    - While machines warm up the desired size is the larger of the present one and current capacity + adjustment, so
      that a larger breach adds only the difference. Scale-in waits until they have warmed up.
    - Bounds are inclusive on the side of the breach. An alarm acts at every step while it stays raised.

    Simplified: the service's choice of bands is the user's; these three and two are one common form of it. Machines
    stop at once, so that none is "terminating".
    """

    name = "step_scaling"
    parameters_type = StepScalingParameters

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._per_request = self._machines_per_request(1.0)
        high, low = _column(settings, "high"), _column(settings, "low")
        self._high, self._higher, self._highest = high, high + 0.10, high + 0.25
        self._low, self._lower = low, low - 0.10
        self._out_share, self._in_share = _column(settings, "out_percent") / 100, _column(settings, "in_percent") / 100
        self._out_periods, self._in_periods = _column(settings, "out_periods"), _column(settings, "in_periods")
        self.memory = int(max(self._out_periods.max(), self._in_periods.max())) - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Steps for which each alarm's condition has held."""
        return {"above": np.zeros(n), "below": np.zeros(n)}

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """See ``Rule``."""
        _, high, low = self._breaches(path.load, np.asarray(path.active, np.float64))
        return {"above": _streak(high, self._out_periods), "below": _streak(low, self._in_periods)}

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        active = np.asarray(fleets.active, np.float64)
        total = active + fleets.pending
        busy, high, low = self._breaches(fleets.load, active)
        least = busy + 2 * _ROUNDING
        above = np.minimum(state["above"] + 1.0, self._out_periods) * high
        below = np.minimum(state["below"] + 1.0, self._in_periods) * low
        steps_out = 1.0 + (least >= self._higher * active) + (least >= self._highest * active)
        steps_in = 1.0 + (busy <= self._lower * active)
        grow = np.maximum(np.floor(active * self._out_share * steps_out + _ROUNDING), 1.0)
        shrink = np.maximum(np.floor(active * self._in_share * steps_in + _ROUNDING), 1.0)
        wanted = np.where(above >= self._out_periods, np.maximum(total, active + grow), total)
        scale_in = (below >= self._in_periods) & (total == active)
        return np.where(scale_in, active - shrink, wanted), {"above": above, "below": below}

    def _breaches(self, load: Array, active: Doubles) -> tuple[Doubles, Bools, Bools]:
        """Machines' worth of load, a rounding error low, and whether the conditions of both alarms hold."""
        busy = _need(load, self._per_request)
        high = (busy + 2 * _ROUNDING >= self._high * active) & (busy > 0)
        return busy, high, busy <= self._low * active


@dataclasses.dataclass(frozen=True)
class KubernetesHpaParameters(Spec):
    """Parameters of ``KubernetesHpa``.

    Attributes:
        target: utilisation to keep.
        tolerance: relative distance from the target within which nothing changes.
        stabilization: steps of the scale-down stabilisation window (5 minutes by default in Kubernetes).
    """

    target: float = bounded(0.7, low=0.05, high=1.0)
    tolerance: float = bounded(0.1, low=0.0, high=0.5)
    stabilization: int = bounded(5, low=1, high=120)


class KubernetesHpa(Rule):
    """The Kubernetes HorizontalPodAutoscaler, autoscaling/v2, with its default behaviour.

    Source: Kubernetes documentation, "Horizontal Pod Autoscaling" (algorithm details, default behaviour), and
    ``replica_calculator.go`` and ``horizontal.go`` of the controller.

    - ``ceil(ready x utilisation / target)``; no change while the ratio is within ``tolerance`` of 1.
    - With pods that are not yet ready, a scale-up is computed again as if they used nothing, over all pods; no change
      if the new ratio is within the tolerance or reverses the direction.
    - Scale-down goes to the highest recommendation of the stabilisation window, which starts with the size at hand.
    - Scale-up by at most +100 % or +4 pods, whichever is more, in 15 seconds: the controller syncs every 15 seconds, so
      a step of a minute may apply the limit four times.

    Simplified: the controller sees one load a step. Without a ready pod the real controller has no metric and waits;
    here the load counts against the pods on order.
    """

    name = "kubernetes_hpa"
    parameters_type = KubernetesHpaParameters

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._per_request = self._machines_per_request(_column(settings, "target"))
        tolerance = _column(settings, "tolerance")
        self._up, self._down = 1.0 + tolerance, 1.0 - tolerance
        self._window = _TrailingMaximum(_column(settings, "stabilization"))
        self.memory = self._window.length - 1
        # max(2 x, x + 4) once, then doubling: from 4 pods on, doubling is the larger of the two.
        self._growth = 2.0 ** (max(fleet.step_seconds // 15, 1) - 1)

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Recommendations of the last steps, oldest first; the largest possible ones hold the size at the start."""
        return {"recommended": self._window.initial(n, self._max)}

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """See ``Rule``."""
        active = np.asarray(path.active, np.float64)
        recommended = self._recommendation(path.load, active, active + path.pending)
        return {"recommended": self._window.of_last(recommended, self._max)}

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        active = np.asarray(fleets.active, np.float64)
        total = active + fleets.pending
        recommendation = self._recommendation(fleets.load, active, total)
        highest, recommended = self._window.push(state["recommended"], recommendation)
        size = np.maximum(recommendation, np.minimum(total, highest))
        limit = np.maximum(2.0 * total, total + 4.0) * self._growth
        return np.minimum(size, limit), {"recommended": recommended}

    def _recommendation(self, load: Array, active: Doubles, total: Doubles) -> Doubles:
        need = _need(load, self._per_request)
        change = (need > self._up * total) | (need < self._down * active - 2 * _ROUNDING)
        return np.where(change, np.ceil(need), total)


@dataclasses.dataclass(frozen=True)
class PredictiveParameters(TargetTrackingParameters):
    """Parameters of ``Predictive``: those of ``TargetTracking`` and of the forecast.

    Attributes:
        days: earlier days of which the forecast is the mean.
        buffer: share added to the forecast.
    """

    days: int = bounded(7, low=1, high=14)
    buffer: float = bounded(0.0, low=0.0, high=1.0)


class Predictive(Rule):
    """Predictive scaling of Amazon EC2 Auto Scaling together with target tracking.

    Source: Amazon EC2 Auto Scaling User Guide, "How predictive scaling works" (predictive-scaling-policy-overview): an
    hourly forecast from up to 14 days, capacity for it at the start of each hour, instances launched ahead by the
    scheduling buffer; it only scales out, and dynamic scaling scales in, but not below the forecast.

    The size is the larger of target tracking's and ``ceil(forecast / (target x throughput))``; the forecast is for the
    clock hour in which a machine ordered now first serves (the scheduling buffer is the provisioning delay).

    Simplified: the service's forecast model is not published; here it is the mean load of the same clock hour on the
    last ``days`` days, with unknown days left out. With none known there is target tracking alone.
    """

    name = "predictive"
    parameters_type = PredictiveParameters
    expected_from = ("days", "buffer")

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._per_request = self._machines_per_request(_column(settings, "target"))
        self._hours = _EarlierDays(_column(settings, "days"), "hour")
        self._margin = 1.0 + _column(settings, "buffer")
        self._dynamic = TargetTracking(fleet, settings)
        self.seasonal, self.memory = self._hours.names, self._dynamic.memory

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Target tracking's state."""
        return self._dynamic.initial_state(n)

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """See ``Rule``."""
        return self._dynamic.state_after(path)

    def expected(self, seasonal: Mapping[str, Array]) -> Doubles:
        """The forecast with its buffer; 0 where no day is known."""
        hours = self._hours.read(seasonal)
        known = hours == hours
        # Added day by day: a plain sum's order, and so its last bit, depends on the number of days and fleets.
        total = np.add.accumulate(np.where(known, hours, 0.0), axis=0)[-1]
        forecast: Doubles = total / np.maximum(known.sum(axis=0), 1)
        return forecast * self._margin

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        wanted, state = self._dynamic._wanted(fleets, expected, state)
        return np.maximum(wanted, np.ceil(_need(expected, self._per_request))), state


@dataclasses.dataclass(frozen=True)
class HybridParameters(Spec):
    """Parameters of ``Hybrid``.

    Attributes:
        target: utilisation to plan for.
        days: earlier days that are looked at.
        quantile: of the earlier days' maximum load around the time at which an order made now first serves.
        hold: the size is the largest wanted in so many steps.
    """

    target: float = bounded(0.7, low=0.05, high=1.0)
    days: int = bounded(7, low=1, high=14)
    quantile: float = bounded(0.8, low=0.0, high=1.0)
    hold: int = bounded(15, low=1, high=120)


class Hybrid(Rule):
    """Seasonal and reactive: ready for what this time of day usually brings, and for what is here now.

    ``ceil(max(quantile over days of day{d}_max, load now) / (target x throughput))``, held at the maximum of the last
    ``hold`` steps. Unknown days are left out; with none known it is reactive alone. The quantile interpolates linearly,
    as ``numpy.quantile`` does.

    Source: this project; the simplest rule that looks both back a day and at the present.
    """

    name = "hybrid"
    parameters_type = HybridParameters
    expected_from = ("days", "quantile")

    def __init__(self, fleet: FleetSpec, settings: Sequence[Spec]) -> None:
        super().__init__(fleet, settings)
        self._per_request = self._machines_per_request(_column(settings, "target"))
        self._days = _EarlierDays(_column(settings, "days"), "max")
        self._quantile = _column(settings, "quantile")
        self._window = _TrailingMaximum(_column(settings, "hold"))
        self.seasonal, self.memory = self._days.names, self._window.length - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Sizes wanted in the last steps, oldest first."""
        return {"wanted": self._window.initial(n, 0.0)}

    def state_after(self, path: Fleets) -> dict[str, Doubles]:
        """See ``Rule``."""
        return {"wanted": self._window.of_last(self._asked(path.load, self.expected(path.seasonal)), 0.0)}

    def expected(self, seasonal: Mapping[str, Array]) -> Doubles:
        """The quantile of the known days; NaN where no day is known."""
        return _known_quantile(self._days.read(seasonal), self._quantile)

    def _wanted(self, fleets: Fleets, expected: Doubles, state: State) -> tuple[Doubles, State]:
        largest, wanted = self._window.push(state["wanted"], self._asked(fleets.load, expected))
        return largest, {"wanted": wanted}

    def _asked(self, load: Array, expected: Doubles) -> Doubles:
        """The size wanted now."""
        return np.maximum(np.ceil(_need(np.fmax(expected, load), self._per_request)), 0.0)


def _known_quantile(values: Doubles, quantile: Doubles) -> Doubles:
    """``numpy.nanquantile`` along the first axis of a small ``(days, n)`` array, without its cost; sorts in place.

    Args:
        values: shape ``(days, n)``; NaN = unknown.
        quantile: shape ``(1,)`` or ``(n,)``.
    """
    values.sort(axis=0)  # NaN last
    last = len(values) - 1
    lower: Doubles
    upper: Doubles
    share: Doubles | float
    if len(quantile) == 1 and not np.logical_or.reduce(np.isnan(values[last])):
        position = float(quantile[0]) * last
        first = int(position)
        lower, upper, share = values[first], values[min(first + 1, last)], position - first
    else:
        last_known = np.maximum((values == values).sum(axis=0) - 1, 0)
        positions = quantile * last_known
        row = positions.astype(np.intp)
        column = np.arange(values.shape[1])
        lower, upper, share = values[row, column], values[np.minimum(row + 1, last_known), column], positions - row
    return lower + share * (upper - lower)


RULES: dict[str, type[Rule]] = {
    rule.name: rule for rule in (TargetTracking, StepScaling, KubernetesHpa, Predictive, Hybrid, Static)
}


def make_rule(name: str, parameters: Mapping[str, Any], fleet: FleetSpec) -> Rule:
    """The rule ``name`` with one setting for all fleets; raises as ``make_rules`` does."""
    return make_rules(name, [parameters], fleet)


def make_rules(name: str, settings: Sequence[Mapping[str, Any]], fleet: FleetSpec) -> Rule:
    """The rule ``name`` with a setting for each fleet, in order; a fleet fares as it would with ``make_rule``.

    Raises:
        ValueError: the rule or a parameter is unknown, of a wrong type, or out of range; there is no setting.
    """
    if name not in RULES:
        raise ValueError(f"unknown rule {name!r}, known: {', '.join(RULES)}")
    if not settings:
        raise ValueError(f"rule {name!r}: no setting")
    rule = RULES[name]
    return rule(fleet, [rule.parameters_type.from_json(parameters) for parameters in settings])
