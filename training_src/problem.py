"""The scaling problem as typed settings: load, fleet, economics, what a policy sees and does.

These models validate a preset's ``environment.kwargs`` and the keyword arguments of ``AutoScaling-v0`` alike.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy_runtime.spec import DAY_SECONDS, ActionSpec, FeatureSpec, FleetSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e12)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e12)]
Range = tuple[Positive, Positive]


class Settings(BaseModel):
    """Base of the settings: immutable, unknown keys and non-finite numbers refused, ranges in order."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> Self:
        for name, field in type(self).model_fields.items():
            annotation: Any = field.annotation
            # A pair typed as Range is an interval; other tuples (weekly factors, harmonics) are longer or free.
            if annotation == Range and (value := getattr(self, name))[0] > value[1]:
                raise ValueError(f"{name}: the range starts at {value[0]}, above its end {value[1]}")
        return self


class SyntheticLoad(Settings):
    """Simulated load: level x daily curve x weekly curve x noise + occasional spikes (``envs.load``)."""

    kind: Literal["synthetic"] = "synthetic"
    level: Positive = Field(6000.0, description="mean weekday load, requests per step")
    daily_amplitudes: tuple[NonNegative, ...] = Field(
        (0.5, 0.2), max_length=6, description="amplitude of each daily harmonic, as a share of the level"
    )
    weekday_factors: tuple[Positive, ...] = Field(
        (1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 0.6), min_length=7, max_length=7, description="Monday to Sunday"
    )
    day_noise: Share = Field(0.05, description="sd of the factor drawn for each day")
    correlated_noise: Share = Field(0.04, description="sd of the AR(1) noise factor")
    correlated_noise_minutes: float = Field(10.0, gt=0.0, le=10_080.0, description="time constant of the AR(1) noise")
    white_noise: Share = Field(0.02, description="sd of the white noise factor")
    spikes_per_day: float = Field(2.0, ge=0.0, le=200.0, description="rate of the Poisson process of spikes")
    spike_height: NonNegative = Field(0.4, description="mean of the exponential height, as a share of the level")
    spike_rise_minutes: Range = Field((1.0, 10.0), description="range of the linear rise")
    spike_decay_minutes: Range = Field((10.0, 60.0), description="range of the exponential decay's time constant")


class TraceLoad(Settings):
    """Replay of a recorded load (``envs.trace``).

    ``train`` draws a random window of the first ``train_share`` of whole days and augments it; ``tune`` (the same
    days), ``test`` (the other days) and ``all`` replay verbatim.
    """

    kind: Literal["trace"] = "trace"
    path: str = Field(min_length=1, description="CSV file with the columns timestamp,value")
    part: Literal["train", "tune", "test", "all"] = "train"
    values: Literal["rate", "count"] = Field(
        "rate",
        description="rate: a value is a load per step, interpolated; count: the sum over the trace's own interval, "
        "divided by the steps in it",
    )
    train_share: float = Field(0.6, gt=0.0, lt=1.0, description="share of whole days for training and tuning")
    level_jitter: float = Field(0.2, ge=0.0, le=2.0, description="training windows are scaled by exp(U(-j, j))")
    warp_minutes: float = Field(20.0, ge=0.0, le=240.0, description="training windows are shifted in time, smoothly")


class ClassicLoad(Settings):
    """The load of the published SageMaker RL sample, with its constants (``envs.load``)."""

    kind: Literal["classic"] = "classic"


Load = Annotated[SyntheticLoad | TraceLoad | ClassicLoad, Field(discriminator="kind")]


class Fleet(Settings):
    """The fleet's dynamics (``envs.fleet``)."""

    throughput: Positive = Field(300.0, description="requests that one machine serves in one step")
    throughput_noise: NonNegative = Field(0.0, description="sd of the throughput, one draw a step for the whole fleet")
    min_machines: int = Field(1, ge=0, le=1_000_000)
    max_machines: int = Field(120, ge=1, le=1_000_000)
    initial_machines: int | None = Field(
        None, ge=0, le=1_000_000, description="size at the start; null: 60 % utilisation at the load then seen"
    )
    provisioning_delay: int = Field(5, ge=0, le=240, description="steps from order to first served request")
    billing: Literal["request", "activation"] = Field("request", description="when a machine starts to cost")
    step_seconds: int = Field(60, ge=1, le=3600)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.min_machines > self.max_machines:
            raise ValueError(f"min_machines: {self.min_machines} is above max_machines ({self.max_machines})")
        if self.initial_machines is not None and not (self.min_machines <= self.initial_machines <= self.max_machines):
            raise ValueError(
                f"initial_machines: {self.initial_machines} is outside "
                f"min_machines..max_machines ({self.min_machines}..{self.max_machines})"
            )
        if DAY_SECONDS % self.step_seconds:
            raise ValueError(f"step_seconds: {self.step_seconds} does not divide a day")
        return self

    def spec(self) -> FleetSpec:
        """The part that a deployed policy needs."""
        return FleetSpec(
            throughput=self.throughput,
            min_machines=self.min_machines,
            max_machines=self.max_machines,
            provisioning_delay=self.provisioning_delay,
            step_seconds=self.step_seconds,
        )


class Economics(Settings):
    """What machines, successes and failures are worth (``envs.economics``), in dollars."""

    machine_cost: NonNegative = Field(0.05, description="per machine and minute")
    success_value: NonNegative = Field(0.9, description="per 1,000 requests that succeed")
    violation_penalty: NonNegative = Field(200.0, description="per minute whose failure share exceeds the threshold")
    failure_threshold: Share = Field(0.005, description="share of failed requests above which a step is a violation")


class Problem(Settings):
    """Everything that defines ``AutoScaling-v0``."""

    load: Load = Field(default_factory=SyntheticLoad)
    fleet: Fleet = Field(default_factory=Fleet)
    economics: Economics = Field(default_factory=Economics)
    action_steps: tuple[int, ...] = Field((-3, -1, 0, 1, 3, 5), description="machines that each action adds")
    episode_steps: int = Field(10_080, ge=2, le=1_000_000)
    lags: tuple[int, ...] = FeatureSpec().lags
    windows: tuple[int, ...] = FeatureSpec().windows
    seasonal_days: tuple[int, ...] = FeatureSpec().seasonal_days
    seasonal_window: int = FeatureSpec().seasonal_window
    calendar: bool = FeatureSpec().calendar

    @model_validator(mode="after")
    def _specs_are_valid(self) -> Self:
        self.actions()
        ahead = self.fleet.provisioning_delay + self.features().seasonal_window
        if ahead >= self.fleet.spec().steps_per_day:
            raise ValueError(
                f"fleet.provisioning_delay + seasonal_window: {ahead} steps reach a day ahead: yesterday's load then "
                "is not known yet; both count steps"
            )
        return self

    def actions(self) -> ActionSpec:
        """What each action means."""
        return ActionSpec(steps=self.action_steps)

    def features(self) -> FeatureSpec:
        """What a policy sees."""
        return FeatureSpec(
            lags=self.lags,
            windows=self.windows,
            seasonal_days=self.seasonal_days,
            seasonal_window=self.seasonal_window,
            calendar=self.calendar,
        )

    @classmethod
    def parse(cls, settings: dict[str, Any]) -> Problem:
        """Build from plain settings; raises ``pydantic.ValidationError`` naming each wrong key."""
        return cls.model_validate(settings)


CLASSIC: dict[str, Any] = {
    "load": {"kind": "classic"},
    "fleet": {
        "throughput": 300.0,
        "throughput_noise": 30.0,
        "min_machines": 0,
        "max_machines": 833,
        "initial_machines": 50,
        "provisioning_delay": 5,
        "billing": "activation",
    },
    "action_steps": [-10, -3, -1, 0, 1, 3, 10],
    "episode_steps": 10_000,
}
"""The problem of the published sample (``autoscalesim.py`` of Amazon SageMaker's RL examples)."""

PROBLEMS: dict[str, Problem] = {
    "AutoScaling-v0": Problem(),
    "AutoScalingClassic-v0": Problem.parse(CLASSIC),
}
"""The problem that each registered environment id stands for when no keyword argument is given."""
