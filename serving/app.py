"""The ASGI application: SageMaker's ``GET /ping`` and ``POST /invocations``.

It is bare ASGI: with three paths there is nothing to route, and a framework would more than double the CPU time of a
request besides its decision. Decisions take microseconds and run on the event loop; a batch lets others pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from policy_runtime import InputError, Policy, decide
from serving.errors import Refusal
from serving.formats import Format, request_format, response_format
from serving.schema import openapi
from serving.settings import Settings
from serving.telemetry import Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_DECISIONS_AT_ONCE = 32
"""Decisions of a batch between two chances for other requests."""

logger = logging.getLogger(__name__)


class App:
    """Answers requests with the decisions of a policy; whatever a request holds, the status is below 500."""

    def __init__(self, policy: Policy, settings: Settings, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._policy = policy
        self.settings = settings
        self._receiving = 0
        self._documents = {"/ping": orjson.dumps({"policy": policy.identity})}
        if settings.schema:
            self._documents["/schema"] = orjson.dumps(openapi(policy, settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            status, (media_type, body) = 200, await self._answer(scope, receive)
        except Refusal as refusal:
            self.telemetry.rejected(refusal)
            status, media_type, body, headers = refusal.status, b"application/json", refusal.body(), refusal.headers
        except ConnectionError:
            return  # the client is gone
        length = b"%d" % len(body)
        start = [(b"content-type", media_type), (b"content-length", length), *headers]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        metrics = asyncio.create_task(self.telemetry.write_metrics_regularly())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        metrics.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await metrics
        self.telemetry.write_metrics()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        """Media type and body of a response with status 200."""
        path, method = scope["path"], scope["method"]
        if path == "/invocations":
            if method != "POST":
                raise _not_allowed(method, path, b"POST")
            return await self._invoke(dict(scope["headers"]), receive)
        if path in self._documents:
            if method != "GET":
                raise _not_allowed(method, path, b"GET")
            return b"application/json", self._documents[path]
        known = ", ".join(("/invocations", *self._documents))
        raise Refusal(404, "path", f"{path!r:.100} is not one of {known}")

    async def _invoke(self, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[bytes, bytes]:
        limit = self.settings.max_body_bytes
        if b"content-length" in headers and int(headers[b"content-length"]) > limit:
            raise _too_large(limit, headers)
        try:
            encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
            if encoding.strip().lower() != "identity":
                raise Refusal(415, "Content-Encoding", f"{encoding!r:.100} is not supported, send the body as it is")
            source, media_type = request_format(headers.get(b"content-type"))
            target, response_type = response_format(headers.get(b"accept"), media_type)
        except Refusal as refusal:
            raise _closing(refusal, headers) from refusal
        body = await self._body(receive, headers)
        begin = time.perf_counter()
        requests, single = source.decode(body, self.settings.max_batch)
        records = []
        for index, request in enumerate(requests):
            if index % _DECISIONS_AT_ONCE == _DECISIONS_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                records.append(self._decide(request, target))
            except InputError as error:
                if single:
                    raise Refusal(400, error.field, str(error)) from error
                raise Refusal(400, error.field, f"item {index}: {error}", index=index) from error
        answer = target.join(records, single)
        self.telemetry.answered(time.perf_counter() - begin)
        return response_type, answer

    async def _body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """The whole body. A body that comes with its head, as most do, is there at once."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        limit = self.settings.max_body_bytes
        body: bytes = message["body"]
        if not message["more_body"]:
            if len(body) > limit:
                raise _too_large(limit, headers)
            return body
        if self._receiving == self.settings.max_receiving:
            problem = f"{self._receiving} other requests are being received; try again"
            raise Refusal(429, "request", problem, headers=((b"retry-after", b"1"),))
        self._receiving += 1
        try:
            parts, size = [body], len(body)
            while message["more_body"]:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                parts.append(message["body"])
                size += len(message["body"])
                if size > limit:
                    raise _too_large(limit, headers)
            return b"".join(parts)
        finally:
            self._receiving -= 1

    def _decide(self, request: Any, target: Format) -> bytes:
        """The encoded record of a decision."""
        try:
            record = decide(self._policy, request)
            encoded = target.encode(record)
        except InputError:
            raise
        except Exception:  # a defect of ours; the fleet is better off as it is than without an answer
            logger.exception("decide failed, the size is kept")
            record, request = kept(self._policy, request), {}
            encoded = target.encode(record)
        try:
            self.telemetry.decided(record, request)
        except Exception:  # neither must a defect of the telemetry cost the answer
            logger.exception("a decision could not be logged")
        return encoded


def kept(policy: Policy, request: Any) -> dict[str, Any]:
    """The record that keeps a fleet's size, for when no decision can be made.

    Raises:
        InputError: the size or the time cannot be read from the request.
    """
    try:
        total = int(request["active"][-1]) + int(request["pending"][-1])
        time = request["timestamp"]
        if not isinstance(time, str):
            time = dt.datetime.fromtimestamp(time, dt.UTC).isoformat()
    except Exception as error:
        raise InputError("request", "no decision can be made, and time, active or pending cannot be read") from error
    return {
        "timestamp": time,
        "action": "keep",
        "delta": 0,
        "desired": total,
        "raw_desired": total,
        "constraints": [],
        "reason": f"The size of {total} is kept because the decision failed; the server's log says why.",
        "policy": {"name": policy.bundle.name, "version": policy.bundle.version},
        "fallback": True,
        "state": None,
    }


def _not_allowed(method: str, path: str, allowed: bytes) -> Refusal:
    return Refusal(405, "method", f"{method} {path} is not allowed", headers=((b"allow", allowed),))


def _too_large(limit: int, headers: Mapping[bytes, bytes]) -> Refusal:
    return _closing(Refusal(413, "body", f"is larger than {limit} bytes"), headers)


def _closing(refusal: Refusal, headers: Mapping[bytes, bytes]) -> Refusal:
    """The refusal, closing the connection if the client waits for leave to send a body that nobody wants."""
    if b"expect" in headers:
        refusal.headers += ((b"connection", b"close"),)
    return refusal
