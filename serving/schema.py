"""The OpenAPI description of an endpoint, made from what the code itself checks and from the policy that it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_runtime import Policy
from policy_runtime.decision import HISTORIES, MAX_DAYS, MAX_TIME, MAX_VALUE, REQUEST_KEYS, REQUIRED_KEYS, STATE_KEYS
from policy_runtime.features import SEASONAL_NAME
from serving.formats import CSV, CSV_RECORD, CSV_REQUEST, JSON, JSON_LINES, Format
from serving.settings import Settings

Schema = dict[str, Any]

_NUMBER: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": MAX_VALUE}
_MACHINES: Schema = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_VALUE}
_SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": MAX_TIME}
_TEXT: Schema = {"type": "string"}


def openapi(policy: Policy, settings: Settings) -> Schema:
    """An OpenAPI 3.1 document: what ``POST /invocations`` of this policy reads and gives, and its limits."""
    bundle = policy.bundle
    paths: Schema = {
        "/ping": {
            "get": {
                "summary": "Whether the endpoint decides: it does not listen before it has decided once",
                "operationId": "ping",
                "responses": {"200": _response("The policy is loaded", {"application/json": {"schema": _ref("Ping")}})},
            }
        },
        "/invocations": {"post": _invocations(settings)},
    }
    if settings.schema:
        document = _response("This document", {"application/json": {"schema": {"type": "object"}}})
        paths["/schema"] = {
            "get": {"summary": "This document", "operationId": "schema", "responses": {"200": document}}
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Scaling decisions of policy {bundle.name}",
            "version": bundle.version,
            "description": "How many machines a fleet should have, from its recent load and sizes. The endpoint keeps "
            "nothing between requests: send the state of the last record with the next request.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Request": _request(policy),
                "State": _request_state(policy),
                "Record": _record(policy),
                "Error": _error(),
                "Ping": _object({"policy": _object({name: _TEXT for name in policy.identity})}),
            }
        },
    }


def _invocations(settings: Settings) -> Schema:
    batch = {"minItems": 1, "maxItems": settings.max_batch}
    lists = {name: {"type": "array", "items": _ref(name), **batch} for name in ("Request", "Record")}
    requests = {"application/json": {"schema": {"anyOf": [_ref("Request"), lists["Request"]]}}}
    records = {"application/json": {"schema": {"anyOf": [_ref("Record"), lists["Record"]]}}}
    for format, request, record in (
        (JSON_LINES, "One Request a line.", "One Record a line, in the order of the requests."),
        (
            CSV,
            f"One request a row: {', '.join(CSV_REQUEST)}; the last two may be left out. A list is a cell of numbers "
            "separated by single spaces, nan or nothing for a missing one; an object is JSON.",
            f"One record a row, in the order of the requests, without a header: {', '.join(CSV_RECORD)}; constraints "
            "are separated by spaces.",
        ),
    ):
        requests |= _texts(format, request)
        records |= _texts(format, record)
    limit = f"{settings.max_body_bytes} bytes"
    errors = {
        "400": "The body is not valid, a request is not usable (the field is named), or it is not HTTP",
        "406": "Accept names no supported media type",
        "408": f"The request took longer than {settings.receive_seconds:g} seconds to arrive",
        "413": f"The body is larger than {limit}, or holds more than {settings.max_batch} requests",
        "415": f"Content-Type is none of {', '.join(requests)}, or the body is compressed",
        "429": "Too many requests are being received, or too many connections are open",
    }
    return {
        "summary": "Decide",
        "description": "A batch is refused as a whole if one of its requests is; index says which.",
        "operationId": "decide",
        "requestBody": {"required": True, "description": f"At most {limit}, UTF-8.", "content": requests},
        "responses": {"200": _response("The decisions", records)}
        | {
            status: _response(description, {JSON.media_types[0]: {"schema": _ref("Error")}})
            for status, description in errors.items()
        },
    }


def _texts(format: Format, description: str) -> Schema:
    return {name: {"schema": {"type": "string", "description": description}} for name in format.media_types}


def _request(policy: Policy) -> Schema:
    fleet = policy.bundle.fleet
    steps = {"minItems": 1, "maxItems": MAX_DAYS * fleet.steps_per_day}
    per_step = f"a step of {fleet.step_seconds} seconds, the most recent last"
    histories = {
        "load": (_NUMBER, f"Requests in {per_step}; null: missing."),
        "failed": (_NUMBER, f"Failed requests in {per_step}; null: missing."),
        "active": (_MACHINES, f"Machines that served in {per_step}; null: missing, but not the last."),
        "pending": (
            _MACHINES,
            f"Machines ordered that do not serve yet, in {per_step}; null: missing, but not the last.",
        ),
    }
    properties: Schema = {
        "timestamp": _time("When the decision is made: the end of the last step."),
        "observed_at": _nullable(_time("When the last values were measured; timestamp by default.")),
        "seasonal": {
            "type": ["object", "null"],
            "description": "Loads around the same time on earlier days, in requests per step. What is left out is "
            f"computed if the history reaches back far enough ({policy.history} steps for all).",
            "properties": {name: _NUMBER for name in policy.seasonal},
            "patternProperties": {f"^{SEASONAL_NAME.pattern}$": _NUMBER},
            "additionalProperties": False,
        },
        "state": _nullable(_ref("State")),
    }
    for name in HISTORIES:
        items, description = histories[name]
        properties[name] = {"type": "array", "items": items, **steps, "description": description}
    request = _object({name: properties[name] for name in REQUEST_KEYS}, required=REQUIRED_KEYS)
    request["description"] = "Times and histories; the four histories have the same length."
    return request


def _request_state(policy: Policy) -> Schema:
    """Loosely typed: the state of another policy is not looked into."""
    identity = _object({name: {} for name in policy.identity}, required=())
    properties = {name: identity if name == "policy" else {} for name in STATE_KEYS}
    state = _object(properties, required=("policy",))
    state["description"] = "From the previous record, unchanged. The state of another policy is not used."
    return state


def _record(policy: Policy) -> Schema:
    bundle = policy.bundle
    identity = {name: {"const": value} for name, value in policy.identity.items()}
    rule: Schema = {}
    for name, array in policy.rule.initial_state(1).items():
        shape = array.shape[1:]
        number = {"type": "number"}
        rule[name] = {"type": "array", "items": number, "minItems": shape[0], "maxItems": shape[0]} if shape else number
    states = {
        "policy": _object(identity),
        "decided_at": _SECONDS,
        "last_scale_out": _nullable(_SECONDS),
        "rule": _object(rule),
    }
    state = _object({name: states[name] for name in STATE_KEYS}, required=STATE_KEYS[:-1])
    return _object(
        {
            "timestamp": {"type": "string", "description": "When the decision was made, ISO 8601."},
            "action": {"enum": ["add", "keep", "remove"]},
            "delta": {"type": "integer", "description": "Machines to add, or to remove if negative."},
            "desired": {"type": "integer", "minimum": 0, "description": "Machines wanted, active and pending."},
            "raw_desired": {"type": "integer", "minimum": 0, "description": "Machines wanted before the guardrails."},
            "constraints": {"type": "array", "items": _TEXT, "description": "Guardrails that changed it, in order."},
            "reason": _TEXT,
            "policy": _object({"name": {"const": bundle.name}, "version": {"const": bundle.version}}),
            "fallback": {"type": "boolean", "description": "Whether the rule stood in for the learned policy."},
            "state": _nullable(state) | {"description": "To be sent with the next request."},
        }
    )


def _error() -> Schema:
    error = {
        "field": {"type": "string", "description": "A header, body, or a field such as load[3]."},
        "message": _TEXT,
        "index": {"type": "integer", "minimum": 0, "description": "Position in a batch, counted from 0."},
    }
    return _object({"error": _object(error, required=("field", "message"))})


def _time(description: str) -> Schema:
    text = {"type": "string", "format": "date-time"}
    return {"anyOf": [text, _SECONDS], "description": f"{description} ISO 8601, or seconds since 1970."}


def _object(properties: Mapping[str, Schema], required: tuple[str, ...] | None = None) -> Schema:
    names = list(properties if required is None else required)
    return {"type": "object", "properties": dict(properties), "required": names, "additionalProperties": False}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _response(description: str, content: Schema) -> Schema:
    return {"description": description, "content": content}
