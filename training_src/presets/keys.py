"""Flat names for the settings of a preset, built from its schema.

A hyperparameter of a training job is a name and a string, so every setting of a preset has a name without dots: its
path joined by underscores, less the sections in ``TRANSPARENT``: ``environment.kwargs.load.level`` is ``load_level``,
``algorithm.hyperparameters.gamma`` is ``gamma``.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from training_src.errors import UserError

TRANSPARENT = {("environment", "kwargs"), ("algorithm", "hyperparameters"), ("budget",)}
KeyPath = tuple[str, ...]

_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


class PresetError(UserError):
    """A preset or a hyperparameter that cannot be used; one line for each problem."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value of a preset that a hyperparameter can set.

    Attributes:
        key: the flat name.
        path: where the value is in the preset.
        annotation: its type.
        metadata: its bounds, as ``annotated_types``.
        selects: whether it decides which settings its section has (``load_kind``, ``environment_id``).
    """

    key: str
    path: KeyPath
    annotation: Any
    metadata: tuple[Any, ...]
    selects: bool = False

    def parse(self, text: str) -> Any:
        """The value that a hyperparameter's text stands for: JSON, or plain text.

        Raises:
            PresetError: it is of another type or out of range.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if isinstance(value, bool) and self.annotation in (int, float):
            value = text  # pydantic would read true as 1
        try:
            return self.checked(value)
        except PresetError:
            # A text such as 007 or null may be meant literally.
            if isinstance(value, str):
                raise
        try:
            return self.checked(text)
        except PresetError:
            return self.checked(value)

    def checked(self, value: Any) -> Any:
        """The value in JSON's types; raises ``PresetError`` when it is of another type or out of range."""
        annotation: Any = Annotated[(self.annotation, *self.metadata)] if self.metadata else self.annotation
        adapter = TypeAdapter[Any](annotation, config=ConfigDict(allow_inf_nan=False))
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            lines = []
            for details in problems_in(error):
                # The steps of the location that are not indexes name the type's parts, which say nothing to a user.
                where = "".join(f"[{part}]" for part in details["loc"] if isinstance(part, int))
                lines.append(f"{self.key}{where}: {explain(details, self.metadata)}")
            raise PresetError("\n".join(lines)) from None


def settings_of(model: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings of a preset by flat name.

    Args:
        model: the preset's schema; its fields that are sections themselves are walked, the others have no setting.
        data: the preset's nested values; they decide between the variants of a section.

    Raises:
        PresetError: two settings have the same name.
    """
    table: dict[str, Setting] = {}
    for setting in _walk(model, data, (), ""):
        if setting.key in table:
            raise PresetError(f"{'.'.join(setting.path)}: its name {setting.key} is taken; rename it")
        if len(setting.path) > 1:
            table[setting.key] = setting
    return table


def _walk(
    model: type[BaseModel], data: Any, path: KeyPath, prefix: str, selector: str | None = None
) -> Iterator[Setting]:
    data = data if isinstance(data, Mapping) else {}
    for name, field in model.model_fields.items():
        here, key, value = (*path, name), prefix + name, data.get(name)
        variants = _models(field.annotation)
        if variants:
            select = _selector(variants)
            chosen = _chosen(variants, select, value)
            if select is not None:
                yield Setting(f"{key}_{select}", (*here, select), _any_of(variants, select), (), selects=True)
            if chosen is not None:
                yield from _walk(chosen, value, here, "" if here in TRANSPARENT else f"{key}_", select)
        elif name != selector:
            yield Setting(key, here, field.annotation, tuple(field.metadata))
            if typing.get_origin(field.annotation) is dict and isinstance(value, Mapping):
                for item in value:
                    yield Setting(prefix + str(item), (*here, item), JsonValue, ())


def _models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The schemas that a field's type allows; none when the field is a plain value."""
    if typing.get_origin(annotation) is Annotated:
        return _models(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return tuple(model for option in typing.get_args(annotation) for model in _models(option))
    return (annotation,) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def _selector(variants: Sequence[type[BaseModel]]) -> str | None:
    """The field that tells variants apart: by convention their first."""
    return next(iter(variants[0].model_fields)) if len(variants) > 1 else None


def _any_of(variants: Sequence[type[BaseModel]], selector: str) -> Any:
    """The type of a selector, over all variants."""
    annotations = [variant.model_fields[selector].annotation for variant in variants]
    if all(typing.get_origin(annotation) is Literal for annotation in annotations):
        return Literal[tuple(value for annotation in annotations for value in typing.get_args(annotation))]
    return str


def _chosen(variants: Sequence[type[BaseModel]], selector: str | None, value: Any) -> type[BaseModel] | None:
    if selector is None:
        return variants[0]
    wanted = value.get(selector) if isinstance(value, Mapping) else None
    for variant in variants:
        annotation = variant.model_fields[selector].annotation
        if typing.get_origin(annotation) is not Literal or wanted in typing.get_args(annotation):
            return variant
    return None


def value_at(data: Any, path: Iterable[str]) -> Any:
    """The value at a path of nested mappings."""
    for part in path:
        data = data[part]
    return data


def problems_in(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found wrong, less what follows from a problem deeper inside (a list without its wrong items)."""
    found = error.errors(include_url=False)
    return [
        details
        for details in found
        if not any(
            len(other["loc"]) > len(details["loc"]) and other["loc"][: len(details["loc"])] == details["loc"]
            for other in found
        )
    ]


def explain(details: ErrorDetails, metadata: Iterable[Any] = ()) -> str:
    """What pydantic found wrong, in one plain line.

    Args:
        details: one of ``ValidationError.errors()``.
        metadata: the field's bounds, to show both ends of the range.
    """
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bounds = {name: getattr(item, name) for item in metadata for name in _BOUNDS if hasattr(item, name)}
        allowed = " and ".join(f"{_BOUNDS[name]} {bound:.12g}" for name, bound in (bounds or context).items())
        return f"{_shown(value)} is out of range, allowed {allowed}"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "literal_error":
        return f"expected {context['expected']}, got {_shown(value)}"
    if kind == "union_tag_invalid":
        return f"{_selector_in(context)}: expected {context['expected_tags']}, got {_shown(context['tag'])}"
    if kind == "union_tag_not_found":
        is_mapping = isinstance(value, Mapping)
        return f"{_selector_in(context)} is missing" if is_mapping else f"expected a mapping, got {_shown(value)}"
    if kind == "too_short":
        return f"expected {context['min_length']} or more items, got {_shown(value)}"
    if kind == "too_long":
        return f"expected {context['max_length']} or fewer items, got {_shown(value)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "finite_number":
        return f"expected a finite number, got {_shown(value)}"
    if kind.endswith(("_type", "_parsing", "_from_float", "_parsing_size")) and kind.split("_")[0] in _TYPES:
        return f"expected {_TYPES[kind.split('_')[0]]}, got {_shown(value)}"
    return f"{details['msg']}, got {_shown(value)}"


def _selector_in(context: Mapping[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
