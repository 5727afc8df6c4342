"""``make bench-serving``: how many decisions a second the endpoint gives, next to FastAPI and AWS's multi-model-server.

All servers decide by the same bundle, with a learned policy, and get the same requests, with seasonal values. Latency
is that of one connection, rate and CPU time are those of eight. A server's CPU time is that of all its processes. A
goal that is missed is said to be missed; nothing here fails because of it.
"""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from policy_runtime import Policy, decide
from policy_runtime.bundle import write_bundle_folder
from tests.benchmarks.serving import wrk
from tests.benchmarks.serving.processes import usage
from tests.benchmarks.serving.servers import (
    NotInstallable,
    Server,
    decision,
    endpoint,
    fastapi,
    multi_model_server,
    started,
)
from tests.samples import decision_request, learned_bundle

RESULT = Path("build/bench/serving.json")
STEPS = (1, 60, 10_080)
CONNECTIONS = 8
STARTS = 5
WARM_UP_SECONDS, RATE_SECONDS, LATENCY_SECONDS = 3, 4, 2


@dataclass(frozen=True)
class Measurement:
    """One server with one length of history.

    Attributes:
        server: its name.
        steps: steps of history in a request.
        rate: requests a second.
        p50, p99: latency of a lone connection, in microseconds.
        cpu: microseconds of CPU time a request.
        lone_cpu: the same of a lone connection.
    """

    server: str
    steps: int
    rate: float
    p50: float
    p99: float
    cpu: float
    lone_cpu: float


@dataclass(frozen=True)
class Footprint:
    """What a server needs.

    Attributes:
        server: its name.
        resident_mib: memory after the warm-up with an hour of history.
        first_answer: seconds from its start to its first decision, median.
    """

    server: str
    resident_mib: float
    first_answer: float


@dataclass(frozen=True)
class Goal:
    """What should be reached, and what was."""

    name: str
    value: float | None
    wanted: str
    met: bool


def main() -> None:
    """Measure, print tables, write JSON."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=130)
    generator = wrk.version()
    measurements: list[Measurement] = []
    footprints: list[Footprint] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        bundle, port = Path(temporary) / "bundle", _free_port()
        write_bundle_folder(learned_bundle(), bundle)
        policy = Policy(learned_bundle())
        requests = {}
        for steps in STEPS:
            requests[steps] = Path(temporary) / f"{steps}.json"
            requests[steps].write_text(json.dumps(decision_request(policy, steps)), encoding="utf-8")
        builders: Mapping[str, Callable[[], Server]] = {
            "serving": lambda: endpoint(bundle, port),
            "fastapi": lambda: fastapi(bundle, port, _folder("fastapi")),
            "multi-model-server": lambda: multi_model_server(bundle, port, _folder("multi_model_server")),
        }
        for name, build in builders.items():
            console.print(f"measuring {name} ...")
            try:
                server = build()
            except NotInstallable as error:
                missing[name] = str(error)
                console.print(f"{name} is left out: {error}")
                continue
            found, footprint = measure(server, port, policy, requests)
            measurements += found
            footprints.append(footprint)
    goals = judge(measurements, footprints)
    for table in (measurement_table(measurements), footprint_table(footprints), goal_table(goals)):
        console.print(table, "")
    document = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "generator": generator,
        "connections": CONNECTIONS,
        "left_out": missing,
        "measurements": [asdict(measurement) for measurement in measurements],
        "footprints": [asdict(footprint) for footprint in footprints],
        "goals": [asdict(goal) for goal in goals],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console.print(f"load by {generator}; written to {RESULT}")


def _free_port() -> int:
    """A free port with a free one after it; multi-model-server needs two, below the range of outgoing connections."""
    for port in range(18_080, 32_768, 2):
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
    raise RuntimeError("no two ports in a row are free")


def _folder(name: str) -> Path:
    folder = RESULT.parent.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure(
    server: Server, port: int, policy: Policy, requests: Mapping[int, Path]
) -> tuple[list[Measurement], Footprint]:
    """Start a server a few times, then load it with requests of each length.

    Raises:
        RuntimeError: it does not start, decides otherwise than ``decide``, or fails under load.
    """
    address, log = f"http://127.0.0.1:{port}/invocations", RESULT.parent.resolve() / "server.log"
    bodies = {steps: path.read_bytes() for steps, path in requests.items()}
    records = {steps: json.loads(json.dumps(decide(policy, json.loads(body)))) for steps, body in bodies.items()}
    measurements, starts, resident = [], [], 0
    for _ in range(STARTS - 1):
        with started(server, port, bodies[60], records[60], log) as running:
            starts.append(running.first_answer)
    with started(server, port, bodies[60], records[60], log) as running:
        starts.append(running.first_answer)
        for steps in sorted(requests, key=lambda steps: steps != 60):  # memory is that of an hour of history
            if (found := decision(port, bodies[steps])) != records[steps]:
                raise RuntimeError(f"{server.name} decides {found}, expected {records[steps]}")
            wrk.post(address, requests[steps], CONNECTIONS, WARM_UP_SECONDS)
            before = usage(running.pid)
            resident = resident or before.resident_bytes
            load = wrk.post(address, requests[steps], CONNECTIONS, RATE_SECONDS)
            between = usage(running.pid)
            lone = wrk.post(address, requests[steps], 1, LATENCY_SECONDS)
            after = usage(running.pid)
            measurements.append(
                Measurement(
                    server=server.name,
                    steps=steps,
                    rate=load.requests / load.seconds,
                    p50=lone.p50,
                    p99=lone.p99,
                    cpu=(between.cpu_seconds - before.cpu_seconds) / load.requests * 1e6,
                    lone_cpu=(after.cpu_seconds - between.cpu_seconds) / lone.requests * 1e6,
                )
            )
    measurements.sort(key=lambda measurement: measurement.steps)
    return measurements, Footprint(server.name, resident / 2**20, statistics.median(starts))


def judge(measurements: Sequence[Measurement], footprints: Sequence[Footprint]) -> list[Goal]:
    """The goals of the endpoint; the comparison is missed where the rival could not be measured."""
    hour = {measurement.server: measurement for measurement in measurements if measurement.steps == 60}
    ours, footprint = hour["serving"], next(found for found in footprints if found.server == "serving")
    rival = hour.get("multi-model-server")
    ratio = ours.rate / rival.rate if rival else None
    return [
        Goal("CPU of a request with an hour of history, us", ours.cpu, "<= 80", ours.cpu <= 80),
        Goal("the same over a lone connection, us", ours.lone_cpu, "<= 80", ours.lone_cpu <= 80),
        Goal("rate, times that of multi-model-server", ratio, ">= 8", ratio is not None and ratio >= 8),
        Goal("resident memory, MiB", footprint.resident_mib, "<= 90", footprint.resident_mib <= 90),
        Goal("start to first answer, s", footprint.first_answer, "<= 0.5", footprint.first_answer <= 0.5),
    ]


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    """Rates, latencies and CPU times, with ratios to the endpoint's."""
    ours = {measurement.steps: measurement for measurement in measurements if measurement.server == "serving"}
    table = _table(
        "server", "history", "requests/s", "of ours", "p50 us", "p99 us", "CPU us", "of ours", "CPU us, lone"
    )
    for measurement in measurements:
        reference = ours[measurement.steps]
        table.add_row(
            measurement.server,
            f"{measurement.steps:,}",
            f"{measurement.rate:,.0f}",
            f"{measurement.rate / reference.rate:.2g}x",
            f"{measurement.p50:,.0f}",
            f"{measurement.p99:,.0f}",
            f"{measurement.cpu:,.0f}",
            f"{measurement.cpu / reference.cpu:.2g}x",
            f"{measurement.lone_cpu:,.0f}",
        )
    return table


def footprint_table(footprints: Sequence[Footprint]) -> Table:
    """Memory and time to start."""
    table = _table("server", "resident MiB", "first answer s")
    for footprint in footprints:
        table.add_row(footprint.server, f"{footprint.resident_mib:.0f}", f"{footprint.first_answer:.2f}")
    return table


def goal_table(goals: Sequence[Goal]) -> Table:
    """Goals, met or missed."""
    table = _table("goal", "value", "wanted", "")
    for goal in goals:
        value = "not measured" if goal.value is None else f"{goal.value:.3g}"
        table.add_row(goal.name, value, goal.wanted, "met" if goal.met else "[red]missed[/]")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    main()
