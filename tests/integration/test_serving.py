"""The endpoint's contract, with a real server."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from policy_runtime import Policy, builtin_bundle, decide
from policy_runtime.bundle import Bundle
from serving.formats import CSV_RECORD, MAX_DEPTH
from tests.integration.serving_client import JSON, Answer, Server, ask, good_request

ServerFactory = Callable[..., Server]
BUILTIN = Policy(builtin_bundle())


def csv_row(request: dict[str, Any], *columns: str) -> str:
    cells = []
    for name in columns or ("timestamp", "load", "failed", "active", "pending"):
        value = request[name]
        if isinstance(value, list):
            value = " ".join("" if item is None else str(item) for item in value)
        elif isinstance(value, dict):
            value = json.dumps(value)
        cells.append(value)
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(cells)
    return row.getvalue()


def test_ping_says_which_policy_decides(server: Server) -> None:
    answer = server.get("/ping")

    assert answer.status == 200
    assert answer.json() == {"policy": {"name": "builtin", "version": "1", "rule": "hybrid"}}


def test_a_request_gets_the_record_that_decide_gives(server: Server) -> None:
    request = good_request()

    answer = server.post(request)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == decide(BUILTIN, request)


def test_a_learned_policy_decides_over_http_as_in_process(learned_server: Server, learned_bundle: Bundle) -> None:
    request = good_request()

    record = learned_server.post(request).json()

    assert record == decide(Policy(learned_bundle), request)
    assert not record["fallback"] and record["policy"]["name"] == "random"


def test_the_state_of_a_record_can_be_sent_back_as_it_is(server: Server) -> None:
    first = server.post(good_request(steps=1)).json()

    second = server.post(good_request(steps=1, timestamp="2026-01-05T12:01:00Z", state=first["state"]))

    assert second.status == 200
    assert second.json()["state"]["decided_at"] == first["state"]["decided_at"] + 60


def test_a_list_gets_a_list_in_the_same_order(server: Server) -> None:
    requests = [good_request(active=[size] * 60) for size in (5, 50, 22)]

    answer = server.post(requests)

    assert answer.json() == [decide(BUILTIN, request) for request in requests]


@pytest.mark.parametrize("media_type", ["application/jsonlines", "application/jsonl", "application/x-ndjson"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_get_a_line_each(server: Server, media_type: str, end: str) -> None:
    requests = [good_request(active=[size] * 60) for size in (5, 50)]
    body = "\ufeff" + end.join(["", json.dumps(requests[0]), " ", json.dumps(requests[1])])

    answer = server.post(body.encode(), media_type)

    assert answer.headers["content-type"] == media_type
    assert answer.body.endswith(b"\n")
    assert [json.loads(line) for line in answer.body.splitlines()] == [decide(BUILTIN, request) for request in requests]


@pytest.mark.parametrize("head", ["", "timestamp,load,failed,active,pending\r\n", "\ufeff\r\n"])
def test_csv_rows_get_a_row_each(server: Server, head: str) -> None:
    gap = good_request()
    gap["load"][3] = None
    requests = [gap, good_request(active=[3] * 60)]
    rows = [csv_row(request) for request in requests]

    answer = server.post((head + "\r\n".join(rows)).encode(), "text/csv; charset=utf-8")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv")
    assert len(answer.body.splitlines()) == 2
    for row, request in zip(csv.reader(answer.body.decode().splitlines()), requests, strict=True):
        record = decide(BUILTIN, {name: value for name, value in request.items() if name != "seasonal"})
        shown = dict(zip(CSV_RECORD, row, strict=True))
        assert [int(shown[name]) for name in ("delta", "desired", "raw_desired")] == [
            record[name] for name in ("delta", "desired", "raw_desired")
        ]
        assert shown["action"] == record["action"] and shown["fallback"] == "false"
        assert shown["constraints"].split() == record["constraints"] and shown["reason"] == record["reason"]


def test_csv_takes_seasonal_values_and_state_as_json(learned_server: Server, learned_bundle: Bundle) -> None:
    policy = Policy(learned_bundle)
    first = decide(policy, good_request())
    request = good_request(timestamp="2026-01-05T12:01:00Z", state=first["state"])
    columns = ("timestamp", "load", "failed", "active", "pending", "seasonal", "state")

    answer = learned_server.post(csv_row(request, *columns), "text/csv")

    (row,) = csv.reader([answer.body.decode()])
    assert dict(zip(CSV_RECORD, row, strict=True))["reason"] == decide(policy, request)["reason"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/jsonlines;q=0.9, text/html", "application/jsonlines"),
        ("application/json;q=0.1, text/csv;q=0.2", "text/csv"),
        ("application/json;q=0, */*;q=0.5", "application/jsonlines"),
    ],
)
def test_accept_chooses_the_response(server: Server, accept: str, media_type: str) -> None:
    answer = server.post(good_request(), Accept=accept)

    assert (answer.status, answer.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize(
    ("status", "field", "content_type", "headers"),
    [
        (415, "Content-Type", None, {}),
        (415, "Content-Type", "text/html", {}),
        (415, "Content-Type", "application/json; charset=latin-1", {}),
        (415, "Content-Encoding", "application/json", {"Content_Encoding": "gzip"}),
        (406, "Accept", "application/json", {"Accept": "text/html, image/*;q=0.8"}),
    ],
)
def test_other_media_types_are_refused(
    server: Server, status: int, field: str, content_type: str | None, headers: dict[str, str]
) -> None:
    answer = server.post(good_request(), content_type, **headers)

    assert answer.status == status
    assert answer.error()["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/invocations", 405, "POST"),
        ("DELETE", "/invocations", 405, "POST"),
        ("POST", "/ping", 405, "GET"),
        ("GET", "/", 404, None),
        ("GET", "/invocations/", 404, None),
        ("POST", "/models/x/invoke", 404, None),
        ("GET", "/%2e%2e/etc/passwd", 404, None),
    ],
)
def test_other_methods_and_paths_are_refused(
    server: Server, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = server.request(method, path)

    assert answer.status == status
    assert answer.headers.get("allow") == allow
    assert answer.error()["field"] == ("method" if allow else "path")


def test_the_description_is_served_only_when_asked_for(server: Server, learned_server: Server) -> None:
    assert server.get("/schema").json()["openapi"] == "3.1.0"
    assert learned_server.get("/schema").status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"NaN", "body"),
        (b"[]", "body"),
        (b'{"load": [1e999]}', "body"),
        (b"3", "request"),
        (b"{}", "timestamp"),
        (json.dumps(good_request(active=[1.5] * 60)).encode(), "active[0]"),
        (json.dumps(good_request(load=[12345678901234567890123] * 60)).encode(), "load[0]"),
        (json.dumps(good_request(weather=1)).encode(), "weather"),
        (json.dumps(good_request(load=[1.0] * 41_761)).encode(), "load"),
        (json.dumps({"x" * 100_000: 1}).encode(), "x" * 197 + "..."),
    ],
)
def test_a_bad_request_is_refused_with_the_name_of_the_field(server: Server, body: bytes, field: str) -> None:
    answer = server.post(body)

    assert answer.status == 400
    assert answer.error()["field"] == field
    assert "index" not in answer.error()
    assert len(answer.body) < 2000


def test_of_a_key_given_twice_the_last_value_counts(server: Server) -> None:
    body = json.dumps(good_request())[:-1] + ', "active": ' + json.dumps([3] * 60) + "}"

    assert server.post(body).json() == decide(BUILTIN, good_request(active=[3] * 60))


@pytest.mark.parametrize("media_type", ["application/json", "application/jsonlines", "text/csv"])
def test_a_batch_with_a_bad_item_is_refused_as_a_whole(server: Server, media_type: str) -> None:
    requests = [good_request(), good_request(), good_request(failed=[-1] * 60)]
    body = {
        "application/json": json.dumps(requests),
        "application/jsonlines": "\n".join(map(json.dumps, requests)),
        "text/csv": "\n".join(map(csv_row, requests)),
    }[media_type]

    error = server.post(body, media_type).error()

    assert (error["field"], error["index"]) == ("failed[0]", 2)
    assert "item 2" in error["message"]


@pytest.mark.parametrize(
    ("body", "field", "index"),
    [
        ("", "body", None),
        ("2026-01-05T12:00:00Z,1,0,1", "body", 0),
        ("2026-01-05T12:00:00Z,one,0,1,0", "load", 0),
        ('2026-01-05T12:00:00Z,1,0,1,0,"{"', "seasonal", 0),
        ("time,load,failed,active,pending", "time", None),
        ("timestamp,active,failed,load,pending", "body", None),
        ('2026-01-05T12:00:00Z,"1,0,1,0', "body", None),
        ("\ud800", "body", None),
    ],
)
def test_bad_csv_is_refused(server: Server, body: str, field: str, index: int | None) -> None:
    error = server.post(body.encode(errors="surrogatepass"), "text/csv").error()

    if field == "time":  # not the header, so it is a row
        field, index = "load", 0
    assert (error["field"], error.get("index")) == (field, index)


def test_json_may_be_nested_as_deeply_as_the_limit_says(server: Server) -> None:
    def nested(depth: int) -> bytes:
        return b'{"load": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert server.post(nested(MAX_DEPTH)).error()["field"] == "timestamp"
    for depth in (MAX_DEPTH + 1, 1000, 100_000):
        assert "levels" in server.post(nested(depth)).error()["message"]
    assert server.post(b"[" * 100_000).status == 400
    assert server.post(good_request()).status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(start: ServerFactory) -> None:
    server = start(max_body_bytes=100_000)

    def chunks() -> Any:
        yield from [b" " * 10_000] * 11

    assert server.post(b" " * 100_000).error()["field"] == "body"
    assert server.post(b" " * 100_001).status == 413
    assert server.request("POST", "/invocations", chunks(), JSON).status == 413
    head = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n"
    assert server.exchange(head + b"\r\n").startswith(b"HTTP/1.1 413 ")
    waiting = server.exchange(head + b"Expect: 100-continue\r\n\r\n")
    assert waiting.startswith(b"HTTP/1.1 413 ") and b"connection: close" in waiting


def test_a_body_may_be_announced_with_expect(server: Server) -> None:
    body = json.dumps(good_request()).encode()
    head = b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: "
    with server.socket() as connection:
        connection.sendall(head + str(len(body)).encode() + b"\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_batch_that_is_too_long_is_refused(start: ServerFactory) -> None:
    server = start(max_batch=2)
    requests = [good_request(steps=1)] * 3
    bodies = {
        "application/json": json.dumps(requests),
        "application/jsonlines": "\n".join(map(json.dumps, requests)),
        "text/csv": "\n".join(map(csv_row, requests)),
    }

    for media_type, body in bodies.items():
        answer = server.post(body, media_type)
        assert answer.status == 413
        assert "more than 2 requests" in answer.error()["message"]


def test_pipelined_requests_are_answered_in_order_and_the_connection_stays_open(server: Server) -> None:
    bodies = [json.dumps(good_request(active=[size] * 60)).encode() for size in range(1, 9)]
    head = "POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"

    received = server.exchange(b"".join(head.format(len(body)).encode() + body for body in bodies))

    totals = [int(part.split(b" machines with ")[1].split()[0]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert totals == list(range(1, 9))
    with contextlib.closing(server.connection()) as connection:
        for _ in range(3):
            assert ask(connection, "POST", "/invocations", bodies[0], JSON).status == 200


def test_rubbish_after_a_good_request_does_not_cost_its_answer(server: Server) -> None:
    body = json.dumps(good_request()).encode()
    head = f"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    received = server.exchange(head.encode() + body + b"\x16\x03\x01 rubbish\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\n\r\n",
        "GET /\u00e4 HTTP/1.1\r\n\r\n".encode(),
    ],
)
def test_what_is_not_valid_http_gets_an_error_in_json(server: Server, sent: bytes) -> None:
    head, _, body = server.exchange(sent).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head and b"connection: close" in head
    assert json.loads(body)["error"]["field"] == "request"


def test_no_other_protocol_is_spoken(server: Server) -> None:
    upgrade = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    received = server.exchange(upgrade)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n") and b"connection: close" in received


def test_concurrent_clients_get_their_own_answers(server: Server) -> None:
    wrong: list[Answer] = []

    def client(size: int) -> None:
        request = good_request(active=[size] * 60)
        expected = decide(BUILTIN, request)
        body = json.dumps(request)
        with contextlib.closing(server.connection()) as connection:
            for _ in range(25):
                answer = ask(connection, "POST", "/invocations", body, JSON)
                if answer.status != 200 or answer.json() != expected:
                    wrong.append(answer)

    threads = [threading.Thread(target=client, args=(size,)) for size in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_long_batch_lets_others_pass(start: ServerFactory) -> None:
    server = start()
    batch = json.dumps([good_request(steps=30)] * 2000)
    done = threading.Event()
    answers: list[Answer] = []

    def client() -> None:
        answers.append(server.post(batch))
        done.set()

    thread = threading.Thread(target=client)
    thread.start()
    pings = 0
    while not done.is_set():
        assert server.get("/ping").status == 200
        pings += 1
    thread.join(60)

    assert answers[0].status == 200 and len(answers[0].json()) == 2000
    assert pings >= 5
