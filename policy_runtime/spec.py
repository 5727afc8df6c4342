"""Typed descriptions that a policy bundle carries: the fleet, the features, the actions and the guardrails.

All lengths of time are counted in *steps* (one step is ``FleetSpec.step_seconds``, a minute by default) unless a name
says seconds. All specs are immutable, compare by value, and convert to and from plain JSON objects; unknown or missing
keys and values out of range raise ``ValueError`` with the name of the key.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Self

DAY_SECONDS = 86_400


@dataclasses.dataclass(frozen=True)
class Spec:
    """Base of the specs: strict conversion from and to JSON objects."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = field.metadata.get("bounds", (None, None))
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, (int, float)) and not isinstance(item, bool):
                    if isinstance(item, float) and not math.isfinite(item):
                        raise ValueError(f"{type(self).__name__}.{field.name}: {item} is not a finite number")
                    if (low is not None and item < low) or (high is not None and item > high):
                        raise ValueError(
                            f"{type(self).__name__}.{field.name}: {item} is out of range, allowed {low} to {high}"
                        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the spec from a JSON object, refusing unknown keys, missing keys and wrong types."""
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__}: expected an object, got {type(data).__name__}")
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - set(fields)):
            raise ValueError(f"{cls.__name__}: unknown key {unknown[0]!r}, known: {', '.join(fields)}")
        required = {
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if missing := sorted(required - set(data)):
            raise ValueError(f"{cls.__name__}: missing key {missing[0]!r}")
        return cls(**{name: _coerce(f"{cls.__name__}.{name}", value, hints[name]) for name, value in data.items()})

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object (tuples become lists)."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in dataclasses.fields(self)
        }


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Check one JSON value against a field's annotation; an integer is accepted where a float is expected."""
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name}: expected a list, got {type(value).__name__}")
        return tuple(_coerce(f"{name}[{i}]", item, typing.get_args(hint)[0]) for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name}: the number is too large") from None
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{name}: expected {hint.__name__}, got {value!r}")
    return value


def bounded(default: Any = dataclasses.MISSING, *, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field whose value (or every item of a tuple) must lie in ``[low, high]``."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


@dataclasses.dataclass(frozen=True)
class FleetSpec(Spec):
    """The fleet that a policy was made for.

    Attributes:
        throughput: requests that one machine serves in one step.
        min_machines, max_machines: limits of the fleet's size (active + pending).
        provisioning_delay: steps between ordering a machine and its first served request.
        step_seconds: length of a step; must divide a day.
    """

    throughput: float = bounded(300.0, low=1e-9, high=1e12)
    min_machines: int = bounded(1, low=0, high=1_000_000)
    max_machines: int = bounded(120, low=1, high=1_000_000)
    provisioning_delay: int = bounded(5, low=0, high=240)
    step_seconds: int = bounded(60, low=1, high=3600)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_machines > self.max_machines:
            raise ValueError(f"FleetSpec.min_machines: {self.min_machines} is above max_machines ({self.max_machines})")
        if DAY_SECONDS % self.step_seconds:
            raise ValueError(f"FleetSpec.step_seconds: {self.step_seconds} does not divide a day")

    @property
    def steps_per_day(self) -> int:
        """Steps in a day."""
        return DAY_SECONDS // self.step_seconds


@dataclasses.dataclass(frozen=True)
class FeatureSpec(Spec):
    """Which features a policy sees, in which order; see ``policy_runtime.features``.

    Attributes:
        version: of the feature definitions; a bundle of another version is refused.
        lags: ages in steps of single past loads (1 = the last completed step).
        windows: lengths of trailing windows whose maximum and mean load are seen.
        seasonal_days: earlier days whose load around the same time is seen.
        seasonal_window: half width in steps of the seasonal maximum around the time a new order arrives.
        calendar: whether sine and cosine of the time of day and of the week are seen.
    """

    version: int = bounded(1, low=1, high=1)
    lags: tuple[int, ...] = bounded((1, 2, 3, 5, 10), low=1, high=1440)
    windows: tuple[int, ...] = bounded((5, 15, 60), low=2, high=1440)
    seasonal_days: tuple[int, ...] = bounded((1, 7), low=1, high=28)
    seasonal_window: int = bounded(5, low=0, high=120)
    calendar: bool = True

    @functools.cached_property
    def history(self) -> int:
        """Steps of recent history that a decision needs."""
        return max((*self.lags, *self.windows, 1))


@dataclasses.dataclass(frozen=True)
class ActionSpec(Spec):
    """What a policy's output means: output ``i`` being the largest asks for ``steps[i]`` machines more or fewer."""

    steps: tuple[int, ...] = bounded((-3, -1, 0, 1, 3, 5), low=-100_000, high=100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.steps) < 2 or len(set(self.steps)) != len(self.steps) or 0 not in self.steps:
            raise ValueError(f"ActionSpec.steps: {list(self.steps)} must be two or more distinct steps that include 0")


@dataclasses.dataclass(frozen=True)
class GuardrailSpec(Spec):
    """Limits that hold whatever a policy says; see ``policy_runtime.decision``.

    Attributes:
        max_step_up, max_step_down: machines added or removed by one decision at most.
        scale_in_hold: steps without scale-in after a scale-out.
        stale_after_seconds: an observation older than this makes the decision refuse scale-in and use the rule.
        max_missing: missing values in the recent history that are filled; more make the policy give way to the rule.
        abnormal_drop: a fall of the load below this share of the recent median, from one step to the next, is taken
            for a failure of the measurement until it has lasted ``abnormal_steps``.
    """

    max_step_up: int = bounded(20, low=1, high=1_000_000)
    max_step_down: int = bounded(10, low=1, high=1_000_000)
    scale_in_hold: int = bounded(0, low=0, high=1440)
    stale_after_seconds: float = bounded(180.0, low=1.0, high=86_400.0)
    max_missing: int = bounded(3, low=0, high=1440)
    abnormal_drop: float = bounded(0.2, low=0.0, high=1.0)
    abnormal_steps: int = bounded(5, low=0, high=240)

    @classmethod
    def fitted(cls, fleet: FleetSpec, action_steps: Sequence[int] = ()) -> Self:
        """The default guardrails, with steps and times that suit a fleet.

        A decision may change a sixth of a large fleet up and a twelfth down, and whatever ``action_steps`` a policy
        was trained with; an observation may be three steps old.
        """
        default = cls()
        return dataclasses.replace(
            default,
            max_step_up=max(default.max_step_up, fleet.max_machines // 6, *action_steps),
            max_step_down=max(default.max_step_down, fleet.max_machines // 12, *(-step for step in action_steps)),
            stale_after_seconds=max(default.stale_after_seconds, 3.0 * fleet.step_seconds),
        )
