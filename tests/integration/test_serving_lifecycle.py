"""Start, stop, slow clients and the limits that keep the server alive, with real processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policy_runtime import builtin_bundle, write_bundle
from tests.integration.serving_client import JSON, Server, ask, good_request

ServerFactory = Callable[..., Server]
BODY = json.dumps(good_request()).encode()
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
    BODY
)


def read_all(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """What comes until the server closes the connection."""
    connection.settimeout(seconds)
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_there_is_no_ping_before_the_policy_has_decided(start: ServerFactory) -> None:
    server = start(ready=False)

    refusals = 0
    with contextlib.suppress(TimeoutError):
        while True:
            try:
                status = server.get("/ping").status
                break
            except OSError:
                refusals += 1
            time.sleep(0.01)

    assert refusals > 0
    assert status == 200
    assert server.post(BODY).status == 200


def test_sigterm_ends_an_idle_server_at_once_with_status_0(start: ServerFactory) -> None:
    server = start()
    with contextlib.closing(server.connection()) as idle:
        assert ask(idle, "GET", "/ping").status == 200

        begin = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begin < 3.0


def test_sigterm_under_load_costs_no_request_its_answer(start: ServerFactory) -> None:
    server = start()
    answered: list[int] = []
    failures: list[str] = []
    stopping = threading.Event()

    def client() -> None:
        with contextlib.closing(server.connection(timeout=20)) as connection:
            connection.connect()
            while True:
                try:
                    connection.request("POST", "/invocations", BODY, JSON)
                    response = connection.getresponse()
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))
                    return
                if response.status != 200 or json.loads(response.read())["action"] not in ("add", "keep", "remove"):
                    failures.append(f"status {response.status}")
                answered.append(response.status)
                if response.getheader("connection") == "close":
                    if not stopping.is_set():
                        failures.append("closed too early")
                    return

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    before = len(answered)
    stopping.set()
    status = server.stop(signal.SIGTERM)
    for thread in threads:
        thread.join(20)

    assert status == 0
    assert not failures
    assert before > 100 and len(answered) >= before


def test_a_request_that_is_being_received_is_answered_after_sigterm(start: ServerFactory) -> None:
    server = start()
    with server.socket() as connection, server.socket() as in_head:
        connection.sendall(HEAD + BODY[:100])
        in_head.sendall(HEAD[:50])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        connection.sendall(BODY[100:])
        in_head.sendall(HEAD[50:] + BODY)

        for received in (read_all(connection), read_all(in_head)):
            assert received.startswith(b"HTTP/1.1 200 OK\r\n") and b"connection: close" in received
    assert server.stop() == 0


def test_a_client_that_never_finishes_does_not_hold_up_sigterm(start: ServerFactory) -> None:
    server = start(receive_seconds=1)
    with server.socket() as connection:
        connection.sendall(HEAD + BODY[:100])
        time.sleep(0.3)

        begin = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begin < 4.0
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_a_killed_server_starts_again_on_the_same_port(start: ServerFactory) -> None:
    first = start()
    expected = first.post(BODY).json()

    assert first.stop(signal.SIGKILL) == -signal.SIGKILL

    second = start(port=first.port)
    assert second.post(BODY).json() == expected


def test_a_slow_body_is_refused_and_does_not_disturb_others(start: ServerFactory) -> None:
    server = start(receive_seconds=1)
    with server.socket() as slow:
        slow.sendall(HEAD)
        begin = time.monotonic()
        for byte in BODY[:8]:
            slow.sendall(bytes([byte]))
            assert server.post(BODY).status == 200
            time.sleep(0.05)
        received = read_all(slow)

    assert 0.5 < time.monotonic() - begin < 3.0
    assert received.startswith(b"HTTP/1.1 408 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["field"] == "request"


def test_a_slow_head_is_refused(start: ServerFactory) -> None:
    server = start(receive_seconds=1)
    with server.socket() as first, server.socket() as later:
        later.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}}"):  # head and body may come apart
            answer += later.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        first.sendall(HEAD[:30])
        later.sendall(HEAD[:30])

        assert read_all(first).startswith(b"HTTP/1.1 408 ")
        assert read_all(later).startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_requests_is_closed(start: ServerFactory) -> None:
    server = start(receive_seconds=1, keep_alive_seconds=1)
    with server.socket() as silent, server.socket() as idle, server.socket() as blank:
        idle.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        blank.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        blank.sendall(b"\r\n")  # which is allowed before a request

        assert read_all(silent) == b""
        assert read_all(idle).count(b"HTTP/1.1 200") == 1
        assert read_all(blank).count(b"HTTP/1.1 200") == 1


def test_a_client_that_does_not_take_its_answer_is_cut_off(start: ServerFactory) -> None:
    server = start(receive_seconds=1)
    batch = json.dumps([good_request(steps=1)] * 10_000).encode()
    head = HEAD.replace(b"%d" % len(BODY), b"%d" % len(batch))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(20)
        connection.sendall(head + batch)
        time.sleep(5)

        size = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                size += len(part)
    assert 0 < size < 4_000_000


def test_a_head_that_does_not_end_is_refused(start: ServerFactory) -> None:
    server = start()
    with server.socket() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\n")
        for _ in range(8):
            connection.sendall(b"X-Long: " + b"x" * 10_000 + b"\r\n")
        received = read_all(connection)

    assert received.startswith(b"HTTP/1.1 431 ")
    assert server.get("/ping").status == 200


def test_a_truncated_body_leaves_the_server_well(start: ServerFactory) -> None:
    server = start()
    for sent in (HEAD, HEAD + BODY[:-1], HEAD[:40]):
        with server.socket() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

    assert server.post(BODY).status == 200
    assert server.stop() == 0
    assert not [line for line in server.logged() if line["level"] in ("warning", "error")]


def test_too_many_bodies_at_once_are_refused_with_429(start: ServerFactory) -> None:
    server = start(max_receiving=2)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.socket()) for _ in range(2)]
        for connection in slow:
            connection.sendall(HEAD + BODY[:10])
        time.sleep(0.3)
        with server.socket() as third:
            third.sendall(HEAD + BODY[:10])
            received = third.recv(1000)
        assert received.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1" in received
        assert server.post(BODY).status == 200  # a body that comes at once is not waited for

        for connection in slow:
            connection.sendall(BODY[10:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_too_many_connections_are_refused_with_429(start: ServerFactory) -> None:
    server = start(max_connections=3)
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(contextlib.closing(server.connection())) for _ in range(3)]
        for connection in open_ones:
            assert ask(connection, "GET", "/ping").status == 200
        with server.socket() as fourth:
            assert read_all(fourth).startswith(b"HTTP/1.1 429 ")
        assert ask(open_ones[0], "POST", "/invocations", BODY, JSON).status == 200

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if server.get("/ping").status == 200:
                return
        time.sleep(0.05)
    pytest.fail("closed connections still count")


def test_an_archive_in_the_model_folder_is_served_too(start: ServerFactory, tmp_path: Path) -> None:
    write_bundle(builtin_bundle(), tmp_path / "model.tar.gz")

    assert start(tmp_path / "model.tar.gz").post(BODY).json() == start(tmp_path).post(BODY).json()


def test_without_its_model_part_the_rule_of_a_bundle_decides_and_says_so(
    start: ServerFactory, tmp_path: Path, learned_folder: Path, builtin_folder: Path
) -> None:
    bundle = tmp_path / "model"
    shutil.copytree(learned_folder, bundle)
    (bundle / "policy.onnx").unlink()

    record = start(bundle).post(BODY).json()

    assert record["fallback"] is True
    assert "the learned policy could not be loaded (policy.onnx is missing)" in record["reason"]
    assert record["desired"] == start(builtin_folder).post(BODY).json()["desired"]


@pytest.mark.parametrize("damage", ["missing", "empty", "manifest", "model", "truncated", "generic"])
def test_an_unreadable_bundle_ends_the_start_with_one_clear_line(
    start: ServerFactory, tmp_path: Path, learned_folder: Path, damage: str
) -> None:
    bundle = tmp_path / "model"
    if damage == "empty":
        bundle.mkdir()
    elif damage in ("manifest", "model", "generic"):
        shutil.copytree(learned_folder, bundle)
        if damage == "model":
            (bundle / "policy.onnx").write_bytes(b"not a model")
        else:
            manifest = json.loads((bundle / "bundle.json").read_text())
            manifest["kind"] = "generic" if damage == "generic" else manifest["kind"]
            manifest["version"] = "2"
            (bundle / "bundle.json").write_text(json.dumps(manifest))
    elif damage == "truncated":
        write_bundle(builtin_bundle(), tmp_path / "model.tar.gz")
        bundle = tmp_path / "model.tar.gz"
        bundle.write_bytes(bundle.read_bytes()[:-20])

    server = start(bundle, ready=False)

    assert server.process.wait(20) == 2
    (line,) = server.log.read_text().splitlines()
    assert str(bundle) in line and "Traceback" not in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch": "many"}, "FLEET_SCALING_MAX_BATCH: expected int, got 'many'"),
        ({"max_bath": "1"}, "unknown environment variable FLEET_SCALING_MAX_BATH, known: FLEET_SCALING_BUNDLE"),
        ({"receive_seconds": "0"}, "Settings.receive_seconds: 0.0 is out of range"),
    ],
)
def test_a_setting_that_is_not_valid_ends_the_start(
    start: ServerFactory, settings: dict[str, str], message: str
) -> None:
    server = start(ready=False, **settings)

    assert server.process.wait(20) == 2
    assert message in server.log.read_text()


def test_a_port_in_use_ends_the_start(start: ServerFactory) -> None:
    server = start(port=start().port, ready=False)

    assert server.process.wait(20) not in (0, 2)
    assert "address already in use" in server.log.read_text()


def test_the_log_is_json_with_decisions_refusals_and_metrics(start: ServerFactory) -> None:
    server = start(endpoint_name="mine", metrics_seconds=1, log_records_per_minute=6000)
    for _ in range(3):
        server.post(BODY)
        time.sleep(0.02)
    server.post(b"{}")
    time.sleep(1.5)
    assert server.stop() == 0

    lines = list(server.logged())
    assert lines[0]["message"] == "starting" and lines[0]["port"] == server.port
    decisions = [line for line in lines if line["message"] == "decision"]
    assert decisions and decisions[0]["record"]["policy"] == {"name": "builtin", "version": "1"}
    assert decisions[0]["last"] == {"load": 6030.0, "failed": 0, "active": 24, "pending": 0}
    assert [line["field"] for line in lines if line["message"] == "rejected"] == ["timestamp"]
    metrics = [line for line in lines if "_aws" in line]
    assert sum(line["DecisionsAdd"] + line["DecisionsKeep"] + line["DecisionsRemove"] for line in metrics) == 3
    assert sum(line["Rejected"] for line in metrics) == 1
    assert metrics[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["EndpointName"]]
    assert all(line["EndpointName"] == "mine" for line in metrics)
