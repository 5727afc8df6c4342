"""Presets: complete, named descriptions of a training run, and how hyperparameters change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from training_src.presets.keys import PresetError, Setting, settings_of, value_at
from training_src.presets.schema import ChoiceSweep, Preset, RangeSweep, Sweep, nearest
from training_src.problem import PROBLEMS

__all__ = [
    "ChoiceSweep",
    "Preset",
    "PresetError",
    "RangeSweep",
    "Setting",
    "Sweep",
    "load_preset",
    "parse_preset",
    "preset_names",
    "resolve",
]

MAX_BYTES = 1 << 20
_FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_preset(name_or_path: str | Path) -> Preset:
    """Read a preset by name, or from a file whose name ends in ``.yaml`` or ``.yml``.

    Raises:
        PresetError: there is none, or it is not valid; one line for each problem.
    """
    if str(name_or_path).endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    elif str(name_or_path) in (names := preset_names()):
        path = _FOLDER / f"{name_or_path}.yaml"
    else:
        raise PresetError(
            f"unknown preset {str(name_or_path)!r}, did you mean {nearest(str(name_or_path), names)!r}? "
            f"There are {', '.join(names)}; a file's name must end in .yaml"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PresetError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_preset(content, str(path))


def parse_preset(content: bytes, source: str) -> Preset:
    """Read a preset from YAML; ``source`` names it in messages.

    Raises:
        PresetError: it is not valid; one line for each problem.
    """
    if len(content) > MAX_BYTES:
        raise PresetError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        data = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PresetError(f"{source}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise PresetError(f"{source}: expected a mapping, got {type(data).__name__}")
    try:
        return Preset.parse(data)
    except PresetError as error:
        raise PresetError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from None


def resolve(preset: Preset, overrides: Mapping[str, str]) -> Preset:
    """Change a preset by a training job's hyperparameters.

    Args:
        preset: where to start.
        overrides: values by flat name (``Preset.settings``), plain or as JSON. ``preset`` names another preset to start
            from. A new ``environment_id`` or ``load_kind`` starts that section from its defaults.

    Raises:
        PresetError: an unknown name, a wrong type, a value out of range, or values that do not fit together; one line
            for each problem.
    """
    if "preset" in overrides:
        preset = load_preset(_plain(overrides["preset"]))
    data = preset.data()
    table = _select_variants(data, overrides)
    problems = [
        f"unknown hyperparameter {key!r}, did you mean {nearest(key, [*table, 'preset'])!r}?"
        for key in overrides
        if key not in table and key != "preset"
    ]
    for key, setting in table.items():
        if key in overrides and not setting.selects:
            try:
                _put(data, setting, setting.parse(overrides[key]))
            except PresetError as error:
                problems += [f"hyperparameter {line}" for line in str(error).splitlines()]
    if problems:
        raise PresetError("\n".join(problems))
    return preset.with_data(data)


def _select_variants(data: dict[str, Any], overrides: Mapping[str, str]) -> dict[str, Setting]:
    """Switch the sections of ``data`` whose variant the overrides name, and give the settings that there are then."""
    done: set[str] = set()
    while True:
        table = settings_of(Preset, data)
        selecting = [key for key, setting in table.items() if setting.selects and key in overrides and key not in done]
        if not selecting:
            return table
        setting = table[selecting[0]]
        done.add(setting.key)
        try:
            value = setting.parse(overrides[setting.key])
        except PresetError as error:
            raise PresetError(f"hyperparameter {error}") from None
        if value == value_at(data, setting.path):
            continue
        *outer, section, name = setting.path
        value_at(data, outer)[section] = {name: value}
        if value in PROBLEMS:
            data["environment"]["kwargs"] = PROBLEMS[value].model_dump(mode="json")


def _put(data: dict[str, Any], setting: Setting, value: Any) -> None:
    *parents, name = setting.path
    for parent in parents:
        data = data.setdefault(parent, {})
    data[name] = value


def _plain(text: str) -> str:
    """A text that may be a JSON string."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text
