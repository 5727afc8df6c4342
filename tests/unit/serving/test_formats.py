from __future__ import annotations

import csv
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import Refusal
from serving.formats import (
    CSV,
    CSV_RECORD,
    CSV_REQUEST,
    JSON,
    JSON_LINES,
    MAX_DEPTH,
    request_format,
    response_format,
)

RECORD: dict[str, Any] = {
    "timestamp": "2026-01-05T12:00:00+00:00",
    "action": "add",
    "delta": 3,
    "desired": 10,
    "raw_desired": 12,
    "constraints": ["max_step_up", "max_machines"],
    "reason": "Policy a asks for 12 machines with 7 there or on order; max_step_up made it 10.",
    "policy": {"name": "a", "version": "1"},
    "fallback": False,
    "state": None,
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@settings(deadline=None, max_examples=200)
@given(st.lists(VALUES.filter(lambda value: not isinstance(value, list)), min_size=1, max_size=3))
def test_json_and_json_lines_bring_back_what_was_sent(values: list[Any]) -> None:
    lines = "\r\n".join(map(json.dumps, values))

    assert JSON.decode(json.dumps(values).encode(), 3) == (values, False)
    assert JSON.decode(json.dumps(values[0]).encode(), 3) == ([values[0]], True)
    assert JSON_LINES.decode(lines.encode(), 3) == (values, False)


@settings(deadline=None, max_examples=300)
@given(
    levels=st.lists(st.sampled_from(["[", "{"]), min_size=MAX_DEPTH - 3, max_size=MAX_DEPTH + 3),
    text=st.text(st.sampled_from('[]{}"\\ a'), max_size=12),
    more=VALUES,
)
def test_the_depth_of_json_is_limited_whatever_its_strings_hold(levels: list[str], text: str, more: Any) -> None:
    value: Any = [text, more]
    for level in levels[1:]:
        value = [text, value, []] if level == "[" else {text: value, "more": {}}
    document = {"value": value, "fill": [[]] * MAX_DEPTH}

    if depth(document) <= MAX_DEPTH:
        assert JSON.decode(json.dumps(document).encode(), 1) == ([document], True)
    else:
        with pytest.raises(Refusal, match="levels"):
            JSON.decode(json.dumps(document).encode(), 1)


@pytest.mark.parametrize(
    "unit", [b"[", b"]", b"{", b"[]", b'"[', b'\\"[', b'"\\', b'[\\"', b"[{", b'"["', b'["\\\\"', b"[[]"]
)
def test_hostile_json_is_refused_in_little_time(unit: bytes) -> None:
    body = unit * ((3 << 20) // len(unit))

    begin = time.process_time()
    with pytest.raises(Refusal):
        JSON.decode(body, 10)
    assert time.process_time() - begin < 2.0


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["2026-01-05T12:00:00Z", 1767614400.0]),
            st.lists(st.none() | st.floats(0, 1e12), min_size=1, max_size=5),
            st.none() | st.dictionaries(st.sampled_from(["day1_max", "day7_level"]), st.floats(0, 1e9), min_size=1),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_csv_brings_back_what_was_sent(rows: list[tuple[Any, list[float | None], Any]], with_header: bool) -> None:
    requests, lines = [], [",".join(CSV_REQUEST)] if with_header else []
    for time_, values, seasonal in rows:
        requests.append({"timestamp": time_} | dict.fromkeys(CSV_REQUEST[1:5], values))
        cell = " ".join("nan" if value is None else repr(value) for value in values)
        quoted = '"' + json.dumps(seasonal).replace('"', '""') + '"' if seasonal else ""
        if seasonal:
            requests[-1]["seasonal"] = seasonal
        lines.append(f"{time_},{cell},{cell},{cell},{cell},{quoted},")

    assert CSV.decode("\n".join(lines).encode(), 3) == (requests, False)


def test_an_empty_item_of_a_csv_list_is_a_missing_value() -> None:
    (request,), _ = CSV.decode(b"0, 5 ,1  2,1 1 1,0 0 0", 1)

    assert request["load"] == [None, 5.0, None]
    assert request["failed"] == [1.0, None, 2.0]


def test_a_month_of_history_fits_into_a_csv_cell() -> None:
    cell = " ".join(["1234.5"] * 41_760)

    (request,), _ = CSV.decode(f"0,{cell},{cell},{cell},{cell}".encode(), 1)

    assert len(request["pending"]) == 41_760


@pytest.mark.parametrize("reason", ["plain", 'with "quotes", commas', "two\r\nlines"])
def test_a_csv_record_is_one_line(reason: str) -> None:
    encoded = CSV.encode({**RECORD, "reason": reason})

    (row,) = csv.reader([encoded.decode()])
    assert b"\n" not in encoded
    assert dict(zip(CSV_RECORD, row, strict=True)) == {
        "action": "add",
        "delta": "3",
        "desired": "10",
        "raw_desired": "12",
        "constraints": "max_step_up max_machines",
        "fallback": "false",
        "reason": " ".join(reason.split()),
    }


def test_a_batch_may_be_as_long_as_the_limit() -> None:
    for format, body in ((JSON, b"[1,2,3]"), (JSON_LINES, b"1\n\n2\n3\n\n"), (CSV, b"0,1,1,1,1\n" * 3)):
        assert len(format.decode(body, 3)[0]) == 3
        with pytest.raises(Refusal) as error:
            format.decode(body, 2)
        assert error.value.status == 413


@pytest.mark.parametrize("content_type", [b"Application/JSON", b'application/json ; charset="UTF-8"; x=y'])
def test_a_media_type_is_known_in_any_spelling(content_type: bytes) -> None:
    assert request_format(content_type) == (JSON, "application/json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/csv"),
        (b"", "text/csv"),
        (b"*/*", "text/csv"),
        (b"TEXT/*", "text/csv"),
        (b"text/html, application/json", "application/json"),
        (b"application/x-ndjson, text/csv;q=0.5", "application/x-ndjson"),
        (b"text/csv;q=0, text/*, */*;q=0.1", "application/json"),
        (b"text/csv;q=nonsense, application/jsonl;q=0.01", "application/jsonl"),
    ],
)
def test_the_response_has_the_most_liked_type_and_else_the_requests_own(accept: bytes | None, expected: str) -> None:
    format, media_type = response_format(accept, "text/csv")

    assert media_type == expected.encode()
    assert expected in format.media_types


@settings(deadline=None, max_examples=200)
@given(accept=st.binary(max_size=40), content_type=st.binary(max_size=40))
def test_any_header_is_understood_or_refused(accept: bytes, content_type: bytes) -> None:
    for choose, status in (
        (lambda: request_format(content_type), 415),
        (lambda: response_format(accept, "text/csv"), 406),
    ):
        try:
            assert choose()[0] in (JSON, JSON_LINES, CSV)
        except Refusal as refusal:
            assert refusal.status == status
