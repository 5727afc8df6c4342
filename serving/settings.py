"""Settings of the server: defaults, then environment variables, then the command line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Self

from policy_runtime.spec import Spec, bounded

PREFIX = "FLEET_SCALING_"
"""``FLEET_SCALING_MAX_BATCH=100`` sets ``max_batch``."""
_BIND_TO_PORT = "SAGEMAKER_BIND_TO_PORT"


@dataclasses.dataclass(frozen=True)
class Settings(Spec):
    """What can be set.

    Attributes:
        bundle: a ``model.tar.gz``, or a folder that holds one or is an unpacked one.
        host: address to listen on: all of them, as a container needs; ``127.0.0.1`` for local use.
        port: port to listen on.
        schema: whether ``GET /schema`` answers.
        max_body_bytes: largest request body; SageMaker's batch transform sends 6 MB by default.
        max_batch: requests in one body.
        max_receiving: bodies that are received at the same time; each takes up to ``max_body_bytes`` of memory.
        max_connections: open connections.
        receive_seconds: time that a client has to send a request, and to take its answer.
        keep_alive_seconds: time after which a connection without requests is closed.
        shutdown_seconds: time after which a shutdown is not graceful any more; SageMaker kills after 30 seconds.
        metrics_seconds: time between two lines of metrics.
        log_records_per_minute: decision records and refusals that are logged at most.
        endpoint_name, variant_name: dimensions of the metrics; without them it is the policy's name.
    """

    bundle: str = "/opt/ml/model"
    host: str = "0.0.0.0"
    port: int = bounded(8080, low=1, high=65_535)
    schema: bool = False
    max_body_bytes: int = bounded(6 << 20, low=1024, high=100 << 20)
    max_batch: int = bounded(10_000, low=1, high=1_000_000)
    max_receiving: int = bounded(64, low=1, high=10_000)
    max_connections: int = bounded(1000, low=1, high=100_000)
    receive_seconds: float = bounded(10.0, low=0.1, high=600.0)
    keep_alive_seconds: int = bounded(75, low=1, high=3600)
    shutdown_seconds: int = bounded(20, low=1, high=600)
    metrics_seconds: float = bounded(60.0, low=0.1, high=3600.0)
    log_records_per_minute: int = bounded(60, low=0, high=1_000_000)
    endpoint_name: str = ""
    variant_name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.receive_seconds >= self.shutdown_seconds:
            raise ValueError(
                f"Settings.receive_seconds: {self.receive_seconds:g} is not below shutdown_seconds "
                f"({self.shutdown_seconds}), so a slow request would be cut off by a shutdown"
            )
        for name in ("endpoint_name", "variant_name"):
            value = getattr(self, name)
            if value and not (value.isascii() and value.isprintable() and value.strip() and len(value) <= 1024):
                raise ValueError(
                    f"Settings.{name}: {value!r:.80} is not a text of 1 to 1024 printable ASCII characters"
                )

    @classmethod
    def read(cls, environment: Mapping[str, str], **flags: Any) -> Self:
        """The defaults, changed by environment variables, changed by flags that are not ``None``.

        Raises:
            ValueError: a variable of ours is unknown, or a value is not valid; the message names it.
        """
        types = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        if environment.get(_BIND_TO_PORT):
            values["port"] = _parse(_BIND_TO_PORT, environment[_BIND_TO_PORT], int)
        for variable, text in environment.items():
            if variable.startswith(PREFIX):
                name = variable.removeprefix(PREFIX).lower()
                if name not in types or variable != variable.upper():
                    known = ", ".join(PREFIX + field.upper() for field in types)
                    raise ValueError(f"unknown environment variable {variable}, known: {known}")
                values[name] = _parse(variable, text, types[name])
        values |= {name: value for name, value in flags.items() if value is not None}
        return cls.from_json(values)


def _parse(variable: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{variable}: expected true or false, got {text!r:.80}")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{variable}: expected {kind.__name__}, got {text!r:.80}") from error
