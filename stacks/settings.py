"""Settings of an environment: ``config/<environment>.yaml``, checked before any stack is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

CONFIG_FOLDER = Path(__file__).parent.parent / "config"

TagKey = Annotated[str, StringConstraints(pattern=r"^[\w .:/=+@-]+$", max_length=128)]
TagValue = Annotated[str, StringConstraints(pattern=r"^[\w .:/=+@-]*$", max_length=256)]


class SettingsError(ValueError):
    """Settings that no stack can be made from: the message names the file, the key and what is wrong."""


class Settings(BaseModel):
    """One environment, as its file describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: str = Field(pattern=r"^[a-z][a-z0-9]{1,11}$", description="the file's own name, prefix of the stacks")
    account: str | None = Field(None, pattern=r"^\d{12}$", description="AWS account; null: the one of the credentials")
    region: str | None = Field(
        None, pattern=r"^[a-z]{2,}(-[a-z]+)+-\d$", description="AWS region; null: the one of the credentials"
    )
    tags: dict[TagKey, TagValue] = Field(default_factory=dict, max_length=40, description="tags of every resource")
    remove_data_on_destroy: bool = Field(
        False,
        description="whether buckets and keys go with their stack. CloudFormation removes empty buckets only: what is "
        "not empty stops the removal",
    )

    @model_validator(mode="after")
    def _account_comes_with_region(self) -> Self:
        if (self.account is None) != (self.region is None):
            raise ValueError("account and region are set together or not at all")
        return self


def environments(folder: Path = CONFIG_FOLDER) -> list[str]:
    """Names of the environments that have a file in ``folder``."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_settings(environment: str, folder: Path = CONFIG_FOLDER) -> Settings:
    """Read and check the settings of one environment.

    Raises:
        SettingsError: the environment has no file, or the file is not YAML, or a value is wrong.
    """
    allowed = environments(folder)
    if environment not in allowed:
        raise SettingsError(f"env: unknown environment {environment!r}, allowed: {', '.join(allowed)}")
    path = folder / f"{environment}.yaml"
    try:
        settings = Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems)) from error
    if settings.environment != environment:
        raise SettingsError(f"{path}: environment: is {settings.environment!r}, expected {environment!r}")
    return settings
