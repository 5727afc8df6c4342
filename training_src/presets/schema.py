"""What a preset holds: environment, algorithm, budget, metrics, and ranges to tune over.

A tunable value may be written with the range that a tuning job explores beside it::

    learning_rate: {default: 0.001, sweep: {min: 0.0001, max: 0.003, scale: log}}
    n_steps: {default: 16, sweep: {values: [8, 16, 32]}}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from training_src.metrics import METRICS
from training_src.presets.keys import KeyPath, PresetError, Setting, explain, problems_in, settings_of, value_at
from training_src.problem import PROBLEMS, Problem, Settings

MAX_DEPTH = 32
MAX_SEED = 9_999  # higher seeds are kept for tuning rules and for reporting


class RangeSweep(Settings):
    """A tuning job explores the numbers from ``min`` to ``max``."""

    min: float
    max: float
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min ({self.min}) is not below max ({self.max})")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"min ({self.min}) must be above 0 on a log scale")
        return self

    def contains(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.min <= value <= self.max


class ChoiceSweep(Settings):
    """A tuning job explores the listed values."""

    values: tuple[JsonValue, ...] = Field(min_length=1)

    def contains(self, value: Any) -> bool:
        """Whether a value is in the list."""
        return value in self.values


Sweep = RangeSweep | ChoiceSweep


class ScalingEnvironment(Settings):
    """One of this project's environments; ``kwargs`` replace the problem that the id stands for, section by section."""

    id: Literal["AutoScaling-v0", "AutoScalingClassic-v0"]
    kwargs: Problem

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_registered_problem(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(given := data.get("kwargs", {}), Mapping):
            return {**data, "kwargs": {**PROBLEMS[data["id"]].model_dump(), **given}}
        return data


class OtherEnvironment(Settings):
    """Any other Gymnasium environment: an id that is registered, or ``module:Id`` to import ``module`` first."""

    id: str = Field(min_length=1, max_length=200)
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)


def _environment_kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "scaling" if str(value.get("id")) in PROBLEMS else "other"
    if isinstance(value, ScalingEnvironment):
        return "scaling"
    return "other" if isinstance(value, OtherEnvironment) else None


Environment = Annotated[
    Annotated[ScalingEnvironment, Tag("scaling")] | Annotated[OtherEnvironment, Tag("other")],
    Discriminator(_environment_kind),
]


class PPOHyperparameters(Settings):
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

    learning_rate: float = Field(gt=0.0, le=1.0)
    learning_rate_schedule: Literal["constant", "linear"] = Field(description="linear: falls to 0 over the budget")
    n_envs: int = Field(
        ge=1, le=MAX_SEED, description="environments that are stepped together, each with a training seed of its own"
    )
    n_steps: int = Field(ge=1, le=65_536, description="steps of each environment in a rollout")
    batch_size: int = Field(ge=2, le=1 << 24, description="samples in a gradient step")
    n_epochs: int = Field(ge=1, le=100, description="passes over a rollout")
    gamma: float = Field(gt=0.0, le=1.0, description="discount")
    gae_lambda: float = Field(ge=0.0, le=1.0)
    clip_range: float = Field(gt=0.0, le=1.0)
    ent_coef: float = Field(ge=0.0, le=1.0)
    vf_coef: float = Field(ge=0.0, le=10.0)
    max_grad_norm: float = Field(gt=0.0, le=1_000.0)
    weight_averaging: float = Field(
        ge=0.0, lt=1.0, description="share of the averaged weights that an update keeps; evaluated and exported; 0: off"
    )
    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=4_096)], ...] = Field(min_length=1, max_length=8)
    activation: Literal["relu", "tanh"]
    normalize_observation: bool
    normalize_reward: bool
    reward: Literal["cost", "reward"] = Field(
        description="what is learned from. cost: minus the cost, for scaling environments: the reward less the value "
        "of the load, which no action changes; reward: the environment's own"
    )

    @property
    def rollout_steps(self) -> int:
        """Environment steps between two updates."""
        return self.n_envs * self.n_steps

    @model_validator(mode="after")
    def _batches_fill_a_rollout(self) -> Self:
        if self.rollout_steps % self.batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) does not divide the rollout of n_envs x n_steps = "
                f"{self.n_envs} x {self.n_steps} = {self.rollout_steps} steps"
            )
        return self


class Algorithm(Settings):
    """Which toolkit trains, by which algorithm."""

    toolkit: Literal["sb3"]
    name: Literal["ppo"]
    hyperparameters: PPOHyperparameters


class Budget(Settings):
    """How long to train, how often to look, and from which seed."""

    total_steps: int = Field(ge=1, le=10**12, description="environment steps, over all environments")
    evaluation_interval_steps: int = Field(ge=1, le=10**12)
    evaluation_episodes: int = Field(ge=1, le=10_000)
    checkpoint_interval_steps: int = Field(ge=1, le=10**12)
    seed: int = Field(ge=0, le=MAX_SEED)


class Preset(Settings):
    """A complete description of a training run; build it with ``parse``, not with the constructor."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = Field(min_length=1, max_length=1_000)
    environment: Environment
    algorithm: Algorithm
    budget: Budget
    metrics: tuple[str, ...] = Field(min_length=1)
    _sweeps: dict[str, Sweep] = PrivateAttr(default_factory=dict)

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [metric.name for metric in METRICS]
        for name in names:
            if name not in known:
                raise ValueError(f"unknown metric {name!r}, the nearest is {nearest(name, known)!r}")
        return names

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        hyperparameters = self.algorithm.hyperparameters
        if self.budget.total_steps < hyperparameters.rollout_steps:
            raise ValueError(
                f"total_steps ({self.budget.total_steps}) is less than one rollout of n_envs x n_steps = "
                f"{hyperparameters.rollout_steps} steps"
            )
        if hyperparameters.reward == "cost" and self.problem() is None:
            raise ValueError(
                f"reward: 'cost' is known for {' and '.join(PROBLEMS)} only; "
                f"set reward to 'reward' for {self.environment.id}"
            )
        return self

    @classmethod
    def parse(cls, data: Any, flat_names: bool = False) -> Self:
        """Build a preset from nested plain values, sweeps beside their defaults.

        Args:
            data: as read from YAML.
            flat_names: whether errors name a setting as hyperparameters do, rather than by its dotted path.

        Raises:
            PresetError: one line for each problem, which starts with the name of the setting.
        """
        data, raw_sweeps = _split_sweeps(data, ())
        try:
            preset = cls.model_validate(data)
        except ValidationError as error:
            raise PresetError(
                "\n".join(_line(cls, data, details, flat_names) for details in problems_in(error))
            ) from None
        by_path = {setting.path: setting for setting in preset.settings().values()}
        problems = []
        for path, raw in raw_sweeps.items():
            try:
                if path not in by_path:
                    raise PresetError("no hyperparameter sets this value, so it cannot be swept")
                setting = by_path[path]
                preset._sweeps[setting.key] = _sweep(raw, setting, value_at(preset.data(), path))
            except PresetError as error:
                problems += [f"{'.'.join(path)}.sweep: {line}" for line in str(error).splitlines()]
        if problems:
            raise PresetError("\n".join(problems))
        return preset

    def data(self) -> dict[str, Any]:
        """The preset as nested plain values, without sweeps."""
        return self.model_dump(mode="json")

    def settings(self) -> dict[str, Setting]:
        """What hyperparameters can set, by flat name."""
        return settings_of(type(self), self.data())

    def values(self) -> dict[str, Any]:
        """The value of each setting, in JSON's types, by flat name."""
        data = self.data()
        return {key: value_at(data, setting.path) for key, setting in self.settings().items()}

    def sweeps(self) -> dict[str, Sweep]:
        """What a tuning job explores, by flat name."""
        return dict(self._sweeps)

    def with_data(self, data: dict[str, Any]) -> Self:
        """The preset with other values; a sweep is kept where it still holds the value.

        Raises:
            PresetError: the values are not a preset.
        """
        changed = self.parse(data, flat_names=True)
        values = changed.values()
        changed._sweeps.update(
            {key: sweep for key, sweep in self._sweeps.items() if key in values and sweep.contains(values[key])}
        )
        return changed

    def problem(self) -> Problem | None:
        """The scaling problem; None for another environment."""
        return self.environment.kwargs if isinstance(self.environment, ScalingEnvironment) else None

    def with_problem(self, problem: Problem) -> Self:
        """The preset with another scaling problem.

        Raises:
            PresetError: the environment is not a scaling environment.
        """
        if self.problem() is None:
            raise PresetError(f"environment.id: {self.environment.id} has no scaling problem to replace")
        data = self.data()
        data["environment"]["kwargs"] = problem.model_dump(mode="json")
        return self.with_data(data)

    def to_yaml(self) -> str:
        """The preset as text, from which ``parse`` builds an equal one."""
        data = self.data()
        settings = self.settings()
        for key, sweep in self._sweeps.items():
            *parents, name = settings[key].path
            section = value_at(data, parents)
            section[name] = {"default": section[name], "sweep": sweep.model_dump(mode="json")}
        return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)


def nearest(name: str, known: list[str]) -> str:
    """The known name that is most like a mistyped one."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _split_sweeps(data: Any, path: KeyPath) -> tuple[Any, dict[KeyPath, Any]]:
    """Separate values from the sweeps written beside them."""
    if not isinstance(data, dict):
        return data, {}
    if len(path) > MAX_DEPTH:
        raise PresetError(f"{'.'.join(path[:3])}...: nested more than {MAX_DEPTH} deep")
    if data.keys() == {"default", "sweep"}:
        return data["default"], {path: data["sweep"]}
    values, sweeps = {}, {}
    for key, item in data.items():
        values[key], found = _split_sweeps(item, (*path, str(key)))
        sweeps.update(found)
    return values, sweeps


def _sweep(raw: Any, setting: Setting, default: Any) -> Sweep:
    """Build a sweep whose every value the setting accepts, and which holds the default."""
    model = ChoiceSweep if isinstance(raw, dict) and "values" in raw else RangeSweep
    try:
        sweep: Sweep = model.model_validate(raw)
    except ValidationError as error:
        raise PresetError(
            "\n".join(": ".join([*map(str, details["loc"][:1]), explain(details)]) for details in problems_in(error))
        ) from None
    if isinstance(sweep, ChoiceSweep):
        sweep = ChoiceSweep(values=tuple(setting.checked(value) for value in sweep.values))
    else:
        sweep = sweep.model_copy(update={"min": setting.checked(sweep.min), "max": setting.checked(sweep.max)})
    if not sweep.contains(default):
        raise PresetError(f"does not hold the default, {default}")
    return sweep


def _line(model: type[Preset], data: Any, details: ErrorDetails, flat_names: bool) -> str:
    """One problem of a preset, after the name of its setting."""
    path: list[str] = []
    here: Any = data
    for part in details["loc"]:
        # Steps that are not in the data are pydantic's names of variants.
        if part in here if isinstance(here, dict) else isinstance(here, (list, tuple)):
            here = here[part]
            path.append(str(part))
    if details["type"] == "missing":
        path.append(str(details["loc"][-1]))
    settings = {setting.path: setting for setting in settings_of(model, data).values()}
    setting = settings.get(tuple(path))
    text = explain(details, setting.metadata if setting else ())
    if details["type"] == "extra_forbidden":
        paths = list(settings) + [(name,) for name in model.model_fields]
        depth = len(path) - 1
        siblings = sorted({known[depth] for known in paths if len(known) > depth and list(known[:depth]) == path[:-1]})
        text += f", did you mean {nearest(path[-1], siblings)!r}?" if siblings else ""
    name = setting.key if setting and flat_names else ".".join(path)
    return f"{name}: {text}" if name else text
