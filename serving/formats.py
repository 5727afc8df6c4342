"""The media types of requests and responses, and how a client chooses one.

=========================  ================================================  ===========================================
media type                 request                                           response
=========================  ================================================  ===========================================
``application/json``       one request, or a list of them                    one record, or a list in the same order
``application/jsonlines``  one request a line, also as ``application/jsonl`` one record a line
                           or ``application/x-ndjson``
``text/csv``               one request a row, columns ``CSV_REQUEST``        one row a request, columns ``CSV_RECORD``
=========================  ================================================  ===========================================

All are UTF-8; a byte order mark and blank lines are ignored. In CSV a list is a cell of numbers separated by single
spaces, with ``nan`` or nothing for a missing one, and an object is JSON. The trailing columns of a request may be left
out, and a first row with the columns' names is skipped. A response has no such row, so that batch transform can put
rows of input and output side by side.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.errors import Refusal

MAX_DEPTH = 16
"""JSON arrays and objects inside one another; a list of requests with the state of a rule has 5."""
CSV_REQUEST = ("timestamp", "load", "failed", "active", "pending", "seasonal", "state")
CSV_RECORD = ("action", "delta", "desired", "raw_desired", "constraints", "fallback", "reason")
_CSV_REQUIRED = 5
_CSV_OBJECTS = ("seasonal", "state")
_BOM = b"\xef\xbb\xbf"
_CHARSETS = ("utf-8", "utf8", "us-ascii")
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # possessive: linear in time, whatever comes
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """How requests are read and records are written.

    Attributes:
        media_types: names, the usual one first.
        decode: from a body and the largest number of requests to the requests, and whether it is a single one that is
            not in a list; raises ``Refusal``.
        encode: from a record to its bytes.
        join: from encoded records, and whether it is a single one, to a body.
    """

    media_types: tuple[str, ...]
    decode: Callable[[bytes, int], tuple[list[Any], bool]]
    encode: Callable[[Record], bytes]
    join: Callable[[Sequence[bytes], bool], bytes]


def _decode_json(body: bytes, limit: int) -> tuple[list[Any], bool]:
    document = _parse_json(body.removeprefix(_BOM), None)
    if not isinstance(document, list):
        return [document], True
    return _counted(document, limit), False


def _decode_json_lines(body: bytes, limit: int) -> tuple[list[Any], bool]:
    lines = [line for line in body.removeprefix(_BOM).split(b"\n") if line.strip()]
    return [_parse_json(line, index) for index, line in enumerate(_counted(lines, limit))], False


def _decode_csv(body: bytes, limit: int) -> tuple[list[Any], bool]:
    try:
        text = body.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, "body", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    requests: list[Any] = []
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    # A month of history is longer than csv's own limit, which is the whole process's; the body's size is limited.
    usual = csv.field_size_limit(len(text) + 1)
    try:
        for row in rows:
            if not row or (row[0] == CSV_REQUEST[0] and not requests and _is_header(row)):
                continue
            if len(requests) == limit:
                _too_many(limit)
            requests.append(_csv_request(row, len(requests)))
    except csv.Error as error:
        raise Refusal(400, "body", f"is not valid CSV: line {rows.line_num}: {error}") from error
    finally:
        csv.field_size_limit(usual)
    return _counted(requests, limit), False


def _counted(requests: list[Any], limit: int) -> list[Any]:
    if not requests:
        raise Refusal(400, "body", "holds no request")
    if len(requests) > limit:
        _too_many(limit)
    return requests


def _too_many(limit: int) -> None:
    raise Refusal(413, "body", f"holds more than {limit} requests; send smaller batches")


def _parse_json(text: bytes, index: int | None) -> Any:
    where = "body" if index is None else f"item {index}"
    if _is_deep(text):
        raise Refusal(400, "body", f"{where}: has more than {MAX_DEPTH} levels of arrays and objects", index=index)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "body", f"{where}: is not valid JSON: {error}", index=index) from error


def _is_deep(text: bytes) -> bool:
    """Whether JSON is nested too deeply to be printed in an error message, say; of other text, anything."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False  # each request that is not in a batch
    brackets = _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS).translate(_ONE_KIND_OF_BRACKET)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return b"[]" in brackets


def _is_header(row: list[str]) -> bool:
    if not _CSV_REQUIRED <= len(row) <= len(CSV_REQUEST) or tuple(row) != CSV_REQUEST[: len(row)]:
        raise Refusal(400, "body", f"the columns are {','.join(CSV_REQUEST)}, in this order, the last two optional")
    return True


def _csv_request(row: list[str], index: int) -> dict[str, Any]:
    if not _CSV_REQUIRED <= len(row) <= len(CSV_REQUEST):
        message = f"item {index}: has {len(row)} columns, expected {','.join(CSV_REQUEST)}, the last two optional"
        raise Refusal(400, "body", message, index=index)
    request: dict[str, Any] = {}
    for name, cell in zip(CSV_REQUEST, row, strict=False):
        if name == CSV_REQUEST[0]:
            request[name] = _number_or_text(cell)
        elif name not in _CSV_OBJECTS:
            request[name] = _numbers(cell, name, index)
        elif cell:
            try:
                request[name] = _parse_json(cell.encode(), index)
            except Refusal as refusal:
                raise Refusal(400, name, f"item {index}: {name}: {refusal.message}", index=index) from refusal
    return request


def _number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _numbers(cell: str, name: str, index: int) -> list[float | None]:
    try:
        return [None if item in ("", "nan", "NaN") else float(item) for item in cell.split(" ")]
    except ValueError as error:
        message = f"item {index}: {name}: expected numbers separated by single spaces: {error}"
        raise Refusal(400, name, message, index=index) from error


def _join_json(records: Sequence[bytes], single: bool) -> bytes:
    return records[0] if single else b"[" + b",".join(records) + b"]"


def _join_lines(records: Sequence[bytes], single: bool) -> bytes:
    return b"\n".join(records) + b"\n"


def _encode_csv(record: Record) -> bytes:
    row = io.StringIO()
    cells = {
        **record,
        "constraints": " ".join(record["constraints"]),
        "fallback": "true" if record["fallback"] else "false",
        "reason": " ".join(record["reason"].split()),  # a policy may be named with a line break, a row is one line
    }
    csv.writer(row, lineterminator="").writerow(cells[name] for name in CSV_RECORD)
    return row.getvalue().encode()


JSON = Format(("application/json",), _decode_json, orjson.dumps, _join_json)
JSON_LINES = Format(
    ("application/jsonlines", "application/jsonl", "application/x-ndjson"),
    _decode_json_lines,
    orjson.dumps,
    _join_lines,
)
CSV = Format(("text/csv",), _decode_csv, _encode_csv, _join_lines)
FORMATS = {name: format for format in (JSON, JSON_LINES, CSV) for name in format.media_types}


@functools.lru_cache(maxsize=32)
def request_format(content_type: bytes | None) -> tuple[Format, str]:
    """The format that a ``Content-Type`` names, and its media type; raises ``Refusal`` with status 415."""
    known = ", ".join(FORMATS)
    if content_type is None:
        raise Refusal(415, "Content-Type", f"is missing, expected one of {known}")
    media_type, parameters = _media_type(content_type.decode("latin-1"))
    if media_type not in FORMATS:
        raise Refusal(415, "Content-Type", f"{media_type!r:.100} is not one of {known}")
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in _CHARSETS:
        raise Refusal(415, "Content-Type", f"the charset {charset!r:.100} is not utf-8")
    return FORMATS[media_type], media_type


@functools.lru_cache(maxsize=32)
def response_format(accept: bytes | None, media_type: str) -> tuple[Format, bytes]:
    """The format of the response, and its media type: what ``Accept`` likes best, the request's own if it may be.

    Raises:
        Refusal: with status 406, none is acceptable.
    """
    if not accept or accept == b"*/*":
        return FORMATS[media_type], media_type.encode()
    weights = {}
    for item in accept.decode("latin-1").split(","):
        accepted, parameters = _media_type(item)
        weights[accepted] = _weight(parameters.get("q", "1"))
    best, best_weight = "", 0.0
    for name in (media_type, *FORMATS):
        ranges = (name, name.partition("/")[0] + "/*", "*/*")  # the most specific one counts
        weight = next((weights[accepted] for accepted in ranges if accepted in weights), 0.0)
        if weight > best_weight:
            best, best_weight = name, weight
    if not best:
        raise Refusal(406, "Accept", f"names none of {', '.join(FORMATS)}")
    return FORMATS[best], best.encode()


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    """A media type in lower case, and its parameters."""
    name, *parameters = text.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip().lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
