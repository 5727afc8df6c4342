"""A real server process for tests, and a client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error, after checking that it has the form that all errors have."""
        assert 400 <= self.status < 500, self
        assert self.headers["content-type"] == "application/json", self
        document = self.json()
        assert set(document) == {"error"}
        error: dict[str, Any] = document["error"]
        assert {"field", "message"} <= set(error) <= {"field", "message", "index"}
        assert isinstance(error["field"], str) and error["message"]
        return error


class Server:
    """A running ``python -m serving serve``; ``stop`` it, or use it as a context."""

    def __init__(self, bundle: Path, log: Path, *, port: int | None = None, **environment: Any) -> None:
        self.port = port or free_port()
        self.log = log
        variables = {f"FLEET_SCALING_{name.upper()}": str(value) for name, value in environment.items()}
        command = [sys.executable, "-m", "serving", "serve"]
        command += ["--bundle", str(bundle), "--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self, seconds: float = 20.0) -> Server:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                assert self.get("/ping").status == 200
                return self
            time.sleep(0.02)
        raise TimeoutError(f"no answer within {seconds} seconds: {self.log.read_text()}")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send a signal unless the process has ended, and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def connection(self, timeout: float = 20.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def socket(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        with contextlib.closing(self.connection()) as connection:
            return ask(connection, method, path, body, headers)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, body: Any, content_type: str | None = "application/json", **headers: str) -> Answer:
        """An invocation; a ``body`` that is neither bytes nor text is sent as JSON."""
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            sent["Content-Type"] = content_type
        return self.request("POST", "/invocations", content, sent)

    def exchange(self, sent: bytes, timeout: float = 20.0) -> bytes:
        """Send bytes and read until the server closes the connection or says no more for a second."""
        with self.socket(timeout) as connection:
            connection.sendall(sent)
            connection.settimeout(1.0)
            received = b""
            with contextlib.suppress(TimeoutError):
                while part := connection.recv(65536):
                    received += part
        return received

    def logged(self) -> Iterator[dict[str, Any]]:
        """The lines of the log, all of which are JSON."""
        return (json.loads(line) for line in self.log.read_text().splitlines())


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over a connection that may stay open."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def good_request(steps: int = 60, **changes: Any) -> dict[str, Any]:
    """A request that each policy of these tests can decide on without its fallback."""
    return {
        "timestamp": "2026-01-05T12:00:00+00:00",
        "load": [6000.0 + 10 * (step % 7) for step in range(steps)],
        "failed": [0] * steps,
        "active": [24] * steps,
        "pending": [0] * steps,
        "seasonal": {f"day{day}_{name}": 6500.0 for day in (1, 7) for name in ("max", "mean", "level")},
        **changes,
    }
