"""No input gives a 5xx: bytes, JSON-like values, spoilt requests and spoilt HTTP, against a real server.

``SERVING_FUZZ_REQUESTS=10000`` sends that many instead of a few hundred.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.serving_client import Answer, Server, ask, good_request

REQUESTS = int(os.environ.get("SERVING_FUZZ_REQUESTS", "400"))
SHARE = max(REQUESTS // 4, 1)
FUZZ = settings(
    max_examples=SHARE, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)
pytestmark = pytest.mark.timeout(60 + REQUESTS // 5)

MEDIA_TYPES = ("application/json", "application/jsonlines", "text/csv")
GOOD = json.dumps(good_request(steps=8)).encode()
GOOD_BODIES = (
    GOOD,
    json.dumps([good_request(steps=3)] * 3).encode(),
    json.dumps(good_request(steps=2)).encode() + b"\n" + GOOD,
    b"timestamp,load,failed,active,pending\n2026-01-05T12:00:00Z,1 2,0 0,3 3,0 0\n",
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(["2026-01-05T12:00:00Z", "0001-01-01", "9999-12-31T23:59:59", "nan", -1, 0, 1e12, 1e300, 5e-324])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
STATE = {
    "policy": {"name": "builtin", "version": "1", "rule": "hybrid"},
    "decided_at": 1767614340.0,
    "last_scale_out": None,
    "rule": {"wanted": [21.0] * 15},
}


class Target:
    """A server, a connection that is kept open to it, and a check after each request."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = server.connection()

    def send(self, body: bytes, headers: dict[str, str], method: str = "POST", path: str = "/invocations") -> Answer:
        try:
            answer = ask(self.connection, method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionError):  # after an answer with "connection: close"
            self.connection.close()
            answer = ask(self.connection, method, path, body, headers)
        self.check(answer)
        return answer

    def check(self, answer: Answer) -> None:
        assert answer.status < 500, answer
        if answer.status != 200:
            answer.error()
        else:
            assert answer.headers["content-type"] in MEDIA_TYPES
        good = ask(self.connection, "POST", "/invocations", GOOD, {"Content-Type": MEDIA_TYPES[0]})
        assert good.status == 200 and good.json()["action"] in ("add", "keep", "remove")


@pytest.fixture(scope="module")
def target(server: Server) -> Iterator[Target]:
    target = Target(server)
    yield target
    target.connection.close()


@FUZZ
@given(
    body=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")),
    media_type=st.sampled_from(MEDIA_TYPES),
)
def test_any_bytes(target: Target, body: bytes, media_type: str) -> None:
    target.send(body, {"Content-Type": media_type})


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(("timestamp", "observed_at", "load", "failed", "active", "pending", "seasonal", "state"))
        | st.text(max_size=5),
        VALUES,
        min_size=1,
        max_size=3,
    ),
    in_list=st.booleans(),
)
def test_requests_with_other_values(target: Target, changes: dict[str, Any], in_list: bool) -> None:
    request = good_request(steps=6) | changes
    target.send(json.dumps([request] if in_list else request).encode(), {"Content-Type": MEDIA_TYPES[0]})


@FUZZ
@given(data=st.data())
def test_requests_with_one_value_changed_deep_inside(target: Target, data: st.DataObject) -> None:
    document: Any = copy.deepcopy(good_request(steps=4, state=STATE))
    place, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if data.draw(st.booleans()):
        place[key] = data.draw(VALUES)
    else:
        del place[key]
    target.send(json.dumps(document).encode(), {"Content-Type": MEDIA_TYPES[0]})


@FUZZ
@given(
    body=st.sampled_from(GOOD_BODIES),
    cut=st.integers(0, 400),
    inserted=st.binary(max_size=8),
    method=st.sampled_from(("POST", "POST", "POST", "GET", "PUT", "HEAD", "PATCH", "OPTIONS")),
    path=st.sampled_from(("/invocations", "/invocations", "/ping", "/schema"))
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(lambda text: "/" + text),
    headers=st.dictionaries(
        st.sampled_from(("Accept", "Content-Encoding", "Content-Type", "X-Any", "Connection")),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30).map(
            str.strip
        )
        | st.sampled_from((*MEDIA_TYPES, "*/*", "identity", "gzip", "keep-alive")),
        max_size=3,
    ),
)
def test_bodies_with_bytes_changed_and_any_head(
    target: Target, body: bytes, cut: int, inserted: bytes, method: str, path: str, headers: dict[str, str]
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    spoilt = body[:cut] + inserted + body[cut + len(inserted) :]
    if method == "HEAD":
        answer = ask(target.connection, method, path, None, {})
        assert answer.status in (404, 405) and not answer.body
    else:
        with contextlib.suppress(ValueError):  # the client refuses some heads itself
            target.send(spoilt, headers, method, path)


@settings(FUZZ, max_examples=max(SHARE // 4, 1))
@given(
    sent=st.binary(max_size=100)
    | st.builds(
        lambda cut, inserted: (
            (b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")[
                :cut
            ]
            + inserted
        ),
        st.integers(0, 110),
        st.binary(max_size=10),
    )
)
def test_any_bytes_in_place_of_http(target: Target, sent: bytes) -> None:
    with target.server.socket() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part

    if received:
        head, _, body = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert status < 500
        if status >= 400 and not sent.startswith(b"HEAD"):
            assert json.loads(body[: int(head.lower().split(b"content-length: ")[1].split()[0])])["error"]["message"]
    good = ask(target.connection, "POST", "/invocations", GOOD, {"Content-Type": MEDIA_TYPES[0]})
    assert good.status == 200


def test_nothing_was_logged_as_an_error(target: Target) -> None:
    assert not [line for line in target.server.logged() if line["level"] == "error"]
    assert target.server.process.poll() is None
