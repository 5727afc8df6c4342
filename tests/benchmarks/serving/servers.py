"""The endpoint and its rivals, each as one process that decides (AWS's has a second one, in Java, before it)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


class NotInstallable(Exception):
    """Why a rival cannot run on this machine."""


@dataclass(frozen=True)
class Server:
    """How to start a server.

    Attributes:
        name: what the result calls it.
        command: what to run.
        environment: variables to set.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        pid: of the process that was started.
        first_answer: seconds from its start to its first decision.
    """

    pid: int
    first_answer: float


def endpoint(bundle: Path, port: int) -> Server:
    """This project's endpoint."""
    options = ["--bundle", str(bundle), "--host", "127.0.0.1", "--port", str(port)]
    return Server("serving", [sys.executable, "-m", "serving", "serve", *options], {"ORT_DISABLE_TELEMETRY": "1"})


def fastapi(bundle: Path, port: int, folder: Path) -> Server:
    """FastAPI with pydantic models, on the same uvicorn, uvloop and httptools.

    Raises:
        NotInstallable: its packages cannot be installed.
    """
    python = _environment(folder, "fastapi.txt")
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    command = [str(python), "-m", "uvicorn", "--app-dir", str(_HERE), "fastapi_app:app", *options]
    return Server("FastAPI, pydantic", command, {"BUNDLE": str(bundle), "ORT_DISABLE_TELEMETRY": "1"})


def multi_model_server(bundle: Path, port: int, folder: Path) -> Server:
    """AWS's multi-model-server with one worker, and without its lines of log for each request.

    Raises:
        NotInstallable: there is no Java, or its packages cannot be installed.
    """
    if shutil.which("java") is None:
        raise NotInstallable("there is no Java (Debian: apt-get install default-jre-headless)")
    python = _environment(folder, "multi_model_server.txt")
    model, temporary = folder / "models" / "decide", folder / "tmp"
    (model / "MAR-INF").mkdir(parents=True, exist_ok=True)
    temporary.mkdir(exist_ok=True)
    handler = "multi_model_server_handler"
    shutil.copy(_HERE / f"{handler}.py", model)
    manifest = {"specificationVersion": "1.0", "model": {"modelName": "decide", "handler": f"{handler}:handle"}}
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest), encoding="utf-8")
    settings = folder / "config.properties"
    settings.write_text(
        f"inference_address=http://127.0.0.1:{port}\n"
        f"management_address=http://127.0.0.1:{port + 1}\n"
        "default_workers_per_model=1\n"
        "decode_input_request=false\n"
        "async_logging=true\n",
        encoding="utf-8",
    )
    command = [str(python.with_name("multi-model-server")), "--start", "--foreground", "--mms-config", str(settings)]
    command += ["--model-store", str(model.parent), "--models", "decide=decide"]
    command += ["--log-config", str(_HERE / "log4j2.xml")]
    # It keeps its process id in the temporary folder, and starts its worker with PYTHONPATH.
    environment = {"TMPDIR": str(temporary), "TEMP": str(temporary), "BUNDLE": str(bundle)}
    return Server("multi-model-server", command, {**environment, "ORT_DISABLE_TELEMETRY": "1"})


def _environment(folder: Path, requirements: str) -> Path:
    """The Python of a virtual environment with these packages, made unless it is there already."""
    venv, stamp = folder / "venv", folder / "installed.txt"
    python, wanted = venv / "bin" / "python", (_HERE / requirements).read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        install = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(_HERE / requirements)]
        for command in ([sys.executable, "-m", "venv", "--clear", str(venv)], install):
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode != 0:
                raise NotInstallable(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
        stamp.write_text(wanted, encoding="utf-8")
    return python


@contextlib.contextmanager
def started(server: Server, port: int, request: bytes, expected: object, log: Path) -> Iterator[Running]:
    """Start a server, wait for its first decision, stop it at the end.

    Args:
        server: what to start.
        port: where it will listen.
        request: body of the first request.
        expected: the record that it must give.
        log: file for what the server prints.

    Raises:
        RuntimeError: it does not start, or decides otherwise.
    """
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), **server.environment}
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment,
            start_new_session=True,
        )
    try:
        while (answer := decision(port, request)) is None:
            if process.poll() is not None or time.monotonic() - start > _START_SECONDS:
                raise RuntimeError(f"{server.name} does not start, see {log}")
            time.sleep(0.002)
        first_answer = time.monotonic() - start
        if answer != expected:
            raise RuntimeError(f"{server.name} decides {answer}, expected {expected}")
        yield Running(process.pid, first_answer)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: multi-model-server's script would leave its Java behind."""
    deadline = time.monotonic() + _STOP_SECONDS
    number: int = signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):  # raised once the group is empty
        while True:
            os.killpg(process.pid, number)
            process.poll()
            number = signal.SIGKILL if time.monotonic() > deadline else 0
            time.sleep(0.01)
    process.wait()


def decision(port: int, request: bytes) -> object | None:
    """The record that a server on this port gives; ``None`` if it does not answer with status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/invocations", request, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    except OSError:
        return None
    finally:
        connection.close()
    return json.loads(body) if answer.status == 200 else None
