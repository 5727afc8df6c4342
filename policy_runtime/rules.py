"""Rule-based scalers: what a fleet has without learning, as rivals, as a fallback and as the built-in policy.

A rule sees ``n`` independent fleets at once (``Fleets``), so that many parameter values or seeds are tried in one pass;
an endpoint's decision is ``n = 1``. A rule keeps no state of its own: ``desired`` takes the state and returns the next
one, arrays whose first axis is the fleet.

The metric of all rules is the load per active machine as a share of its throughput, as ``ALBRequestCountPerTarget`` or
a requests-per-pod metric has it: it is not capped at 100 % like a processor's utilisation. One step is taken as one
period of the metric (the services' alarms use one minute).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import FleetSpec, Spec, bounded

Array = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
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
        seasonal: names of the seasonal values that it reads.
        memory: earlier steps that its state remembers; replaying so many from the initial state restores the state.
    """

    name: ClassVar[str]
    parameters_type: ClassVar[type[Spec]]
    seasonal: tuple[str, ...] = ()
    memory: int = 0

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        self.fleet = fleet

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """The state before the first step of ``n`` fleets."""
        return {}

    def desired(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        """The wanted sizes (active + pending), whole numbers within the fleet's limits, and the next state.

        Args:
            fleets: ``n`` fleets before a step.
            state: from ``initial_state(n)`` or the previous step; it is not changed.
        """
        wanted, state = self._wanted(fleets, state)
        return np.minimum(np.maximum(wanted, self.fleet.min_machines), self.fleet.max_machines), state

    @abstractmethod
    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        """``desired`` before the fleet's limits."""

    def _need(self, load: Array, target: float) -> Doubles:
        """Machines that serve ``load`` at a utilisation of ``target``, not rounded up, less ``_ROUNDING``."""
        need: Doubles = np.multiply(load, 1.0 / (target * self.fleet.throughput), dtype=np.float64)
        need -= _ROUNDING
        return need


def _push(history: Doubles, value: Doubles) -> Doubles:
    """The last values of each fleet, shape ``(n, length)``, with ``value`` of shape ``(n,)`` as the newest."""
    result = np.empty_like(history)
    result[:, :-1] = history[:, 1:]
    result[:, -1] = value
    return result


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = StaticParameters.from_json(parameters)

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        return np.full(len(fleets.load), float(self.parameters.machines)), state


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = TargetTrackingParameters.from_json(parameters)
        self.memory = max(self.parameters.out_periods, self.parameters.in_periods) - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Steps for which each alarm's condition has held."""
        return {"above": np.zeros(n), "below": np.zeros(n)}

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        p, active = self.parameters, fleets.active
        total = np.add(active, fleets.pending, dtype=np.float64)
        need = self._need(fleets.load, p.target)
        above = np.minimum(state["above"] + 1.0, p.out_periods) * (need > active)
        below = np.minimum(state["below"] + 1.0, p.in_periods) * (need < p.low_ratio * active - 2 * _ROUNDING)
        size = np.ceil(need)
        wanted = np.where(above >= p.out_periods, np.maximum(total, size), total)
        scale_in = (below >= p.in_periods) & (fleets.pending == 0)
        return np.where(scale_in, size, wanted), {"above": above, "below": below}


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = StepScalingParameters.from_json(parameters)
        self.memory = max(self.parameters.out_periods, self.parameters.in_periods) - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Steps for which each alarm's condition has held."""
        return {"above": np.zeros(n), "below": np.zeros(n)}

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        p, active = self.parameters, fleets.active
        total = np.add(active, fleets.pending, dtype=np.float64)
        busy = self._need(fleets.load, 1.0)  # machines' worth of load, a rounding error low
        least = busy + 2 * _ROUNDING
        high, low = least >= p.high * active, busy <= p.low * active
        above = np.minimum(state["above"] + 1.0, p.out_periods) * (high & (busy > 0))
        below = np.minimum(state["below"] + 1.0, p.in_periods) * low
        steps_out = 1.0 + (least >= (p.high + 0.10) * active) + (least >= (p.high + 0.25) * active)
        steps_in = 1.0 + (busy <= (p.low - 0.10) * active)
        grow = np.maximum(np.floor(active * (p.out_percent / 100) * steps_out + _ROUNDING), 1.0)
        shrink = np.maximum(np.floor(active * (p.in_percent / 100) * steps_in + _ROUNDING), 1.0)
        wanted = np.where(above >= p.out_periods, np.maximum(total, active + grow), total)
        scale_in = (below >= p.in_periods) & (fleets.pending == 0)
        return np.where(scale_in, active - shrink, wanted), {"above": above, "below": below}


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = KubernetesHpaParameters.from_json(parameters)
        self.memory = self.parameters.stabilization - 1
        # max(2 x, x + 4) once, then doubling: from 4 pods on, doubling is the larger of the two.
        self._growth = 2.0 ** (max(fleet.step_seconds // 15, 1) - 1)

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Recommendations of the last steps, oldest first; the largest possible ones hold the size at the start."""
        return {"recommended": np.full((n, self.parameters.stabilization), float(self.fleet.max_machines))}

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        p, active = self.parameters, fleets.active
        total = np.add(active, fleets.pending, dtype=np.float64)
        need = self._need(fleets.load, p.target)
        change = (need > (1.0 + p.tolerance) * total) | (need < (1.0 - p.tolerance) * active - 2 * _ROUNDING)
        recommendation = np.where(change, np.ceil(need), total)
        recommended = _push(state["recommended"], recommendation)
        size = np.maximum(recommendation, np.minimum(total, recommended.max(axis=1)))
        limit = np.maximum(2.0 * total, total + 4.0) * self._growth
        return np.minimum(size, limit), {"recommended": recommended}


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = PredictiveParameters.from_json(parameters)
        self.seasonal = tuple(f"day{day}_hour" for day in range(1, self.parameters.days + 1))
        dynamic = {field.name: getattr(self.parameters, field.name) for field in _TRACKING_FIELDS}
        self._dynamic = TargetTracking(fleet, **dynamic)
        self.memory = self._dynamic.memory

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Target tracking's state."""
        return self._dynamic.initial_state(n)

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        wanted, state = self._dynamic._wanted(fleets, state)
        hours = np.array([fleets.seasonal[name] for name in self.seasonal], np.float64)
        known = hours == hours
        total = hours.sum(axis=0, where=known)
        forecast = total / np.maximum(known.sum(axis=0), 1) * (1.0 + self.parameters.buffer)
        return np.maximum(wanted, np.ceil(self._need(forecast, self.parameters.target))), state


_TRACKING_FIELDS = dataclasses.fields(TargetTrackingParameters)


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

    def __init__(self, fleet: FleetSpec, /, **parameters: Any) -> None:
        super().__init__(fleet)
        self.parameters = HybridParameters.from_json(parameters)
        self.seasonal = tuple(f"day{day}_max" for day in range(1, self.parameters.days + 1))
        self.memory = self.parameters.hold - 1

    def initial_state(self, n: int) -> dict[str, Doubles]:
        """Sizes wanted in the last steps, oldest first."""
        return {"wanted": np.zeros((n, self.parameters.hold))}

    def _wanted(self, fleets: Fleets, state: State) -> tuple[Doubles, State]:
        p = self.parameters
        days = np.array([fleets.seasonal[name] for name in self.seasonal], np.float64)
        load = np.fmax(_known_quantile(days, p.quantile), fleets.load)
        wanted = _push(state["wanted"], np.maximum(np.ceil(self._need(load, p.target)), 0.0))
        return wanted.max(axis=1), {"wanted": wanted}


def _known_quantile(values: Doubles, quantile: float) -> Doubles:
    """``numpy.nanquantile`` along the first axis of a small ``(days, n)`` array, without its cost; sorts in place."""
    values.sort(axis=0)  # NaN last
    last = len(values) - 1
    lower: Doubles
    upper: Doubles
    share: Doubles | float
    if np.isnan(values[last]).any():
        last_known = np.maximum((values == values).sum(axis=0) - 1, 0)
        position = quantile * last_known
        row = position.astype(np.intp)
        column = np.arange(values.shape[1])
        lower, upper, share = values[row, column], values[np.minimum(row + 1, last_known), column], position - row
    else:
        first = int(quantile * last)
        lower, upper, share = values[first], values[min(first + 1, last)], quantile * last - first
    return lower + share * (upper - lower)


RULES: dict[str, type[Rule]] = {
    rule.name: rule for rule in (TargetTracking, StepScaling, KubernetesHpa, Predictive, Hybrid, Static)
}


def make_rule(name: str, parameters: Mapping[str, Any], fleet: FleetSpec) -> Rule:
    """The rule ``name`` for a fleet.

    Raises:
        ValueError: the rule or a parameter is unknown, of a wrong type, or out of range.
    """
    if name not in RULES:
        raise ValueError(f"unknown rule {name!r}, known: {', '.join(RULES)}")
    return RULES[name](fleet, **parameters)
