from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime import Policy, builtin_bundle, decide
from serving.errors import Refusal
from serving.loading import example_request
from serving.settings import Settings
from serving.telemetry import COUNTS, MAX_VALUES, NAMESPACE, JsonFormatter, Telemetry, embedded_metrics

POLICY = Policy(builtin_bundle())
REQUEST = example_request(POLICY)
RECORD = decide(POLICY, REQUEST)


def check_embedded_metrics(document: dict[str, Any]) -> None:
    """The rules of the specification that ``serving.telemetry`` links to."""
    line = json.dumps(document, allow_nan=False)
    assert len(line.encode()) <= 256 << 10
    assert isinstance(document["_aws"]["Timestamp"], int)
    for directive in document["_aws"]["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 1024
        for names in directive["Dimensions"]:
            assert 1 <= len(names) <= 30
            for name in names:
                value = document[name]
                assert 1 <= len(name) <= 250 and isinstance(value, str) and 1 <= len(value) <= 1024
                assert value.isascii() and value.isprintable() and value.strip()
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"} and metric["Unit"] in ("Count", "Microseconds")
            values = document[metric["Name"]]
            numbers = values if isinstance(values, list) else [values]
            assert 1 <= len(numbers) <= 100
            assert all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


@settings(deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(0, 10**9), min_size=len(COUNTS), max_size=len(COUNTS)),
    latencies=st.lists(st.floats(1e-6, 60.0), max_size=300),
    now=st.floats(1.7e9, 3e9),
)
def test_metrics_follow_the_specification(counts: list[int], latencies: list[float], now: float) -> None:
    document = embedded_metrics({"EndpointName": "x"}, dict(zip(COUNTS, counts, strict=True)), latencies, now)

    check_embedded_metrics(document)
    assert [document[name] for name in COUNTS] == counts
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == NAMESPACE
    assert ("Latency" in document) == bool(latencies)
    if latencies:
        assert len(document["Latency"]) == min(len(latencies), MAX_VALUES)
        assert document["Latency"] == sorted(document["Latency"])


def test_quantiles_stand_for_many_latencies() -> None:
    document = embedded_metrics({"EndpointName": "x"}, {}, [1e-6 * (i % 1000) for i in range(10_000)], 1.8e9)

    assert document["Latency"][49] == pytest.approx(495, abs=6)
    assert document["Latency"][98] == pytest.approx(985, abs=6)


def test_what_happened_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry = Telemetry(POLICY, Settings(log_records_per_minute=0))
    for action, fallback in (("add", False), ("add", True), ("keep", False), ("remove", False)):
        telemetry.decided({**RECORD, "action": action, "fallback": fallback}, REQUEST)
    telemetry.answered(0.0001)
    telemetry.rejected(Refusal(400, "load", "is odd"))

    telemetry.write_metrics()
    telemetry.write_metrics()

    (line,) = logged(caplog)
    check_embedded_metrics(line)
    assert [line[name] for name in COUNTS] == [2, 1, 1, 1, 1]
    assert line["Latency"] == [100.0]
    assert line["PolicyVersion"] == "1"


def test_metrics_are_written_early_when_there_are_many_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry = Telemetry(POLICY, Settings())
    for _ in range(25_000):
        telemetry.answered(0.001)

    assert len(logged(caplog)) == 2


@pytest.mark.parametrize(
    ("name", "changes", "dimensions"),
    [
        ("mine", {}, {"PolicyName": "mine"}),
        ("größe\n", {}, {"PolicyName": "gr??e?"}),
        (" ", {}, {"PolicyName": "?"}),
        ("mine", {"endpoint_name": "e", "variant_name": "v"}, {"EndpointName": "e", "VariantName": "v"}),
    ],
)
def test_the_dimensions_are_the_endpoint_or_the_policy(
    caplog: pytest.LogCaptureFixture, name: str, changes: dict[str, str], dimensions: dict[str, str]
) -> None:
    caplog.set_level(logging.INFO)
    policy = Policy(dataclasses.replace(builtin_bundle(), name=name))
    telemetry = Telemetry(policy, Settings(**changes))
    telemetry.answered(0.001)
    telemetry.write_metrics()

    line = caplog.records[0].fields  # type: ignore[attr-defined]
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [list(dimensions)]


def test_decisions_and_refusals_are_logged_at_a_limited_rate_and_without_history(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    telemetry = Telemetry(POLICY, Settings(log_records_per_minute=2), clock=lambda: now)
    for second in range(120):
        now = 100.0 + second
        telemetry.decided(RECORD, REQUEST)
        telemetry.rejected(Refusal(400, "load", "is odd"))

    lines = logged(caplog)
    assert len(lines) == 4
    assert lines[0]["message"] == "decision" and lines[0]["level"] == "info"
    assert lines[0]["last"] == {"load": 300.0, "failed": 0, "active": 1, "pending": 0}
    assert lines[0]["record"] == {name: value for name, value in RECORD.items() if name != "state"}


def test_an_exception_is_logged_with_its_traceback_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise RuntimeError("broken\nin two")
    except RuntimeError:
        logging.getLogger("serving.test").exception("it is %s", "broken")

    text = JsonFormatter().format(caplog.records[0])
    assert "\n" not in text
    assert "Traceback" in json.loads(text)["exception"] and json.loads(text)["message"] == "it is broken"
