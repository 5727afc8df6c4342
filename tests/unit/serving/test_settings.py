from __future__ import annotations

import pytest

from serving.settings import PREFIX, Settings


def test_without_settings_the_defaults_are_those_of_a_sagemaker_container() -> None:
    settings = Settings.read({"PATH": "/bin"})

    assert (settings.bundle, settings.host, settings.port) == ("/opt/ml/model", "0.0.0.0", 8080)
    assert not settings.schema
    assert settings == Settings()


def test_flags_win_over_variables_and_variables_over_sagemaker() -> None:
    environment = {"SAGEMAKER_BIND_TO_PORT": "8001", f"{PREFIX}HOST": "127.0.0.1"}

    assert Settings.read(environment).port == 8001
    assert Settings.read({**environment, f"{PREFIX}PORT": "8002"}).port == 8002
    settings = Settings.read({**environment, f"{PREFIX}PORT": "8002"}, port=8003, host=None)
    assert (settings.port, settings.host) == (8003, "127.0.0.1")


def test_a_variable_is_read_as_its_setting_is_typed() -> None:
    settings = Settings.read(
        {f"{PREFIX}SCHEMA": "True", f"{PREFIX}RECEIVE_SECONDS": "2.5", f"{PREFIX}ENDPOINT_NAME": "fleet"}
    )

    assert (settings.schema, settings.receive_seconds, settings.endpoint_name) == (True, 2.5, "fleet")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http", "SAGEMAKER_BIND_TO_PORT: expected int, got 'http'"),
        (f"{PREFIX}PORT", "0", "Settings.port: 0 is out of range, allowed 1 to 65535"),
        (f"{PREFIX}MAX_BATCH", "1.5", f"{PREFIX}MAX_BATCH: expected int"),
        (f"{PREFIX}SCHEMA", "yes", f"{PREFIX}SCHEMA: expected true or false, got 'yes'"),
        (f"{PREFIX}METRICS_SECONDS", "nan", "Settings.metrics_seconds: nan is not a finite number"),
        (f"{PREFIX}RECEIVE_SECONDS", "20", "Settings.receive_seconds: 20 is not below shutdown_seconds"),
        (f"{PREFIX}ENDPOINT_NAME", "café", "Settings.endpoint_name: 'café' is not a text"),
        (f"{PREFIX}ENDPOINT_NAME", " ", "Settings.endpoint_name: ' ' is not a text"),
        (f"{PREFIX}port", "1", f"unknown environment variable {PREFIX}port, known: {PREFIX}BUNDLE"),
        (f"{PREFIX}LOG", "1", f"unknown environment variable {PREFIX}LOG"),
    ],
)
def test_what_is_not_valid_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Settings.read({variable: value})

    assert str(error.value).startswith(message)
