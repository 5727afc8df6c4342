from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from policy_runtime import InputError, Policy, builtin_bundle
from serving.app import App, kept
from serving.loading import example_request
from serving.settings import Settings
from serving.telemetry import Telemetry


class Broken(Exception):
    pass


def invoke(policy: Policy, body: bytes, content_type: bytes = b"application/json") -> tuple[int, bytes]:
    """Status and body of a response, by ASGI."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    app = App(policy, Settings(), Telemetry(policy, Settings()))
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"content-type", content_type)]}
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


@pytest.fixture
def broken_policy(monkeypatch: pytest.MonkeyPatch) -> Policy:
    policy = Policy(builtin_bundle())

    def desired(*_: object) -> None:
        raise Broken("it cannot")

    monkeypatch.setattr(type(policy.rule), "desired", desired)
    return policy


def test_a_defect_keeps_the_size_and_is_logged(broken_policy: Policy, caplog: pytest.LogCaptureFixture) -> None:
    request = {**example_request(broken_policy), "active": [7] * 60, "pending": [2] * 60}

    status, body = invoke(broken_policy, json.dumps(request).encode())

    record = json.loads(body)
    assert status == 200
    assert (record["action"], record["delta"], record["desired"], record["fallback"]) == ("keep", 0, 9, True)
    assert "the decision failed" in record["reason"]
    assert "Broken: it cannot" in caplog.text


def test_a_defect_is_answered_in_csv_too(broken_policy: Policy) -> None:
    status, body = invoke(broken_policy, b"2026-01-05T12:00:00Z,1,0,7,0", b"text/csv")

    assert status == 200
    assert body.startswith(b"keep,0,7,7,,true,The size of 7 is kept")


def test_a_record_that_json_cannot_hold_keeps_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(builtin_bundle())
    monkeypatch.setattr("serving.app.decide", lambda *_: {"action": "add", "fallback": False, "delta": 2**70})

    status, body = invoke(policy, json.dumps(example_request(policy)).encode())

    assert status == 200
    assert json.loads(body)["action"] == "keep"


@pytest.mark.parametrize("request_", [None, {}, {"active": [], "pending": [1]}, {"active": [1], "pending": [None]}])
def test_a_size_that_cannot_be_read_cannot_be_kept(request_: Any) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        kept(Policy(builtin_bundle()), request_)


def test_a_kept_size_has_the_time_of_the_request() -> None:
    request = {"timestamp": 1767614400, "active": [1, 2], "pending": [0, 1]}

    record = kept(Policy(builtin_bundle()), request)

    assert (record["timestamp"], record["desired"]) == ("2026-01-05T12:00:00+00:00", 3)
