"""The load generator wrk."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured.

    Attributes:
        requests: answers received.
        seconds: how long it took.
        p50, p99: latency, in microseconds.
    """

    requests: int
    seconds: float
    p50: float
    p99: float


def version() -> str:
    """The version of wrk.

    Raises:
        FileNotFoundError: it is not installed.
    """
    if shutil.which("wrk") is None:
        raise FileNotFoundError("the load generator wrk is missing: install it (Debian: apt-get install wrk)")
    banner = subprocess.run(["wrk", "--version"], capture_output=True, text=True, timeout=10).stdout
    return " ".join(banner.split()[:2])


def post(address: str, body: Path, connections: int, seconds: int) -> Load:
    """Post a JSON file as fast as answers come, by one thread over so many connections.

    Raises:
        RuntimeError: a request failed, or its answer had another status than 2xx or 3xx.
    """
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", _SCRIPT, address, "--", body],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["failures"] or not found["requests"]:
        raise RuntimeError(f"{found['failures']} of {found['requests']} requests to {address} failed:\n{done.stdout}")
    return Load(found["requests"], found["microseconds"] / 1e6, found["p50"], found["p99"])
