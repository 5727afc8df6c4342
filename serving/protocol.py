"""uvicorn's HTTP protocol with what it lacks: limits on time, heads and connections, errors in JSON, a gentle end.

A request has ``receive_seconds`` from its first byte to its last, and so has a response from its first to its last; one
timer for each connection looks after that, so that it costs nothing per request.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serving.app import App
from serving.errors import Refusal

MAX_HEAD_BYTES = 64 << 10
"""Bytes of a request line and headers that may arrive before their end does."""
LINGER_SECONDS = 0.5
"""Time in which a shutdown still answers requests that were on their way over open connections."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        app = cast(App, config.app)
        self._telemetry = app.telemetry
        self._settings = app.settings
        self._since: float | None = None  # when the request that is being received began
        self._stuck = False  # whether the response was not taken when last looked at
        self._head_bytes = 0
        self._in_head = True
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(
                Refusal(429, "connection", f"{self._settings.max_connections} connections are open; try again")
            )
            return
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self._settings.receive_seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes arrived."""
        if self.transport.is_closing():
            return
        if self._since is None:
            self._since = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(Refusal(431, "headers", f"are larger than {MAX_HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """A request begins."""
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()
        if self._leaving or self.parser.should_upgrade():  # no other protocol is spoken here
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The whole request is there."""
        self._since, self._in_head = None, True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. A request before it on the same connection gets its own answer instead."""
        if self._is_busy() and not self.cycle.more_body:
            self.cycle.keep_alive = False
        else:
            self._refuse(Refusal(400, "request", "is not valid HTTP/1.1"))

    def shutdown(self) -> None:
        """Close the connection once it is idle; one that is idle now may bring a last request, already on its way."""
        self._leaving = True
        if self._is_busy():
            super().shutdown()
        else:
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._is_busy() and not self._head_bytes:
            self.transport.close()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check(self) -> None:
        """End a connection whose client is too slow."""
        limit = self._settings.receive_seconds
        was_stuck, self._stuck = self._stuck, self.transport.get_write_buffer_size() > 0
        if was_stuck and self._stuck:
            self.transport.abort()
            return
        waited = 0.0 if self._since is None else self.loop.time() - self._since
        if waited < limit:
            self._timer = self.loop.call_later(limit - waited, self._check)
        elif self.cycle is None and not self._head_bytes:
            self.transport.close()
        elif self._in_head or self._is_busy():
            self._refuse(Refusal(408, "request", f"was not received within {limit:g} seconds"))
        else:
            self.transport.close()  # the answer is given, and the rest of the request was not wanted

    def _refuse(self, refusal: Refusal) -> None:
        """Answer outside the application, and close."""
        self._telemetry.rejected(refusal)
        body = refusal.body()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[refusal.status] + head + body)
        self.transport.close()
