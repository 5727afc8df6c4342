"""A Docker engine for tests: the machine's own if it answers, else one that root starts for the test alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_START_SECONDS = 30.0


class NoEngine(Exception):
    """Why no engine can run on this machine."""


@dataclass(frozen=True)
class Engine:
    """A Docker client with BuildKit, and the daemon that it talks to.

    Attributes:
        client: the client's path.
        host: the daemon's address; ``None`` for the one that the environment names.
    """

    client: str
    host: str | None = None

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``docker`` with these arguments.

        Raises:
            AssertionError: it failed and ``check`` is true; with all that it printed.
            subprocess.TimeoutExpired: it took more than ``timeout`` seconds.
        """
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", **({"DOCKER_HOST": self.host} if self.host else {})}
        done = subprocess.run(
            [self.client, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout, env=environment
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and result.returncode != 0:
            raise AssertionError(f"docker {arguments[0]} failed ({result.returncode}):\n{result.stdout}{result.stderr}")
        return result

    def answers(self) -> bool:
        """Whether the daemon can be used."""
        try:
            return self("info", check=False, timeout=20).returncode == 0
        except subprocess.TimeoutExpired:
            return False


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine; one that was started for this stops at the end, and all that it stored goes with it.

    Raises:
        NoEngine: there is none, and none can be started.
    """
    client = _client()
    if (engine := Engine(client)).answers():
        yield engine
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise NoEngine(
            "no Docker daemon answers, and starting one takes root and dockerd (Debian: apt-get install docker.io)"
        )
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
    try:
        with _daemon(client, folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder)


def _client() -> str:
    """The first client on the path that has BuildKit, as a plugin or (before version 23) built in."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    clients = [path for folder in folders if (path := shutil.which("docker", path=folder))]
    for client in clients:
        version = _output([client, "--version"])
        if _output([client, "buildx", "version"]) or ((match := re.search(r"(\d+)\.", version)) and int(match[1]) < 23):
            return client
    raise NoEngine("the Docker client lacks BuildKit (docker-buildx)" if clients else "there is no Docker client")


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.stdout if done.returncode == 0 else ""


@contextlib.contextmanager
def _daemon(client: str, folder: Path) -> Iterator[Engine]:
    """A daemon that keeps everything in ``folder`` and leaves the machine's network as it is."""
    engine, log = Engine(client, f"unix://{folder}/socket"), folder / "log"
    command = ["dockerd", "--host", f"unix://{folder}/socket", "--pidfile", f"{folder}/pid"]
    command += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--storage-driver", "overlay2"]
    command += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    if "--oom-score-adjust" in _output(["dockerd", "--help"]):  # gone in version 25, which leaves the score alone
        command += ["--oom-score-adjust", "0"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not engine.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise NoEngine(f"dockerd does not start here: {' '.join(last) or 'it says nothing'}")
            time.sleep(0.1)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
