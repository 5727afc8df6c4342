"""What the server says about itself: JSON lines on standard output, for CloudWatch Logs.

Now and then a decision record, and once a minute a line from which CloudWatch makes metrics, in its embedded metric
format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from policy_runtime import Policy
from serving.errors import Refusal
from serving.settings import Settings

NAMESPACE = "FleetScaling"
COUNTS = ("DecisionsAdd", "DecisionsKeep", "DecisionsRemove", "Fallbacks", "Rejected")
"""Names of the metrics that count; ``Latency`` is the time from a whole request to its whole response."""
MAX_VALUES = 100
"""Values of one metric in one line, by the specification."""
_LAST = ("load", "failed", "active", "pending")  # of which the last value is logged
_MAX_LATENCIES = 10_000  # kept between two lines; then one is written before its time

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; ``extra={"fields": {...}}`` adds members to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        document = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document | getattr(record, "fields", {}), default=str).decode()


def log_as_json() -> None:
    """Send all log records of this process to standard output, as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class Telemetry:
    """Counts what happens, and logs it."""

    def __init__(self, policy: Policy, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._policy = {"PolicyName": policy.bundle.name, "PolicyVersion": policy.bundle.version}
        self._dimensions = _dimensions(policy, settings)
        self._metrics_seconds = settings.metrics_seconds
        self._log_interval = 60.0 / settings.log_records_per_minute if settings.log_records_per_minute else float("inf")
        self._clock = clock
        self._next_log = clock() if settings.log_records_per_minute else float("inf")
        self._counts: Counter[str] = Counter()
        self._latencies: list[float] = []

    def decided(self, record: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        """A decision was made from a valid request; from another one, ``request`` is empty."""
        self._counts[record["action"]] += 1
        if record["fallback"]:
            self._counts["Fallbacks"] += 1
        if self._may_log():
            last = {name: request[name][-1] for name in _LAST if name in request}
            shown = {name: value for name, value in record.items() if name != "state"}
            logger.info("decision", extra={"fields": {"last": last, "record": shown}})

    def answered(self, seconds: float) -> None:
        """A request was answered with decisions."""
        self._latencies.append(seconds)
        if len(self._latencies) == _MAX_LATENCIES:
            self.write_metrics()

    def rejected(self, refusal: Refusal) -> None:
        """A request was refused."""
        self._counts["Rejected"] += 1
        if self._may_log():
            fields = {"status": refusal.status, "field": refusal.field, "problem": refusal.message}
            logger.info("rejected", extra={"fields": fields})

    def write_metrics(self) -> None:
        """Write a line of metrics if anything happened since the last one."""
        if not self._counts and not self._latencies:
            return
        counts = {name: self._counts[name.removeprefix("Decisions").lower()] for name in COUNTS[:3]}
        counts |= {name: self._counts[name] for name in COUNTS[3:]}
        metrics = embedded_metrics(self._dimensions, counts, self._latencies, time.time())
        self._counts, self._latencies = Counter(), []
        logger.info("metrics", extra={"fields": metrics | self._policy})

    async def write_metrics_regularly(self) -> None:
        """Write metrics until cancelled."""
        while True:
            await asyncio.sleep(self._metrics_seconds)
            self.write_metrics()

    def _may_log(self) -> bool:
        now = self._clock()
        if now < self._next_log:
            return False
        self._next_log = now + self._log_interval
        return True


def embedded_metrics(
    dimensions: Mapping[str, str], counts: Mapping[str, int], latencies: Sequence[float], now: float
) -> dict[str, Any]:
    """A document in CloudWatch's embedded metric format.

    Args:
        dimensions: of all metrics.
        counts: metrics by name.
        latencies: in seconds. Of more than ``MAX_VALUES`` as many evenly spaced quantiles stand for all of them.
        now: seconds since 1970.
    """
    metrics = [{"Name": name, "Unit": "Count"} for name in counts]
    values: dict[str, Any] = dict(counts)
    if latencies:
        ordered = sorted(latencies)
        shown = min(len(ordered), MAX_VALUES)
        chosen = [ordered[int((position + 0.5) * len(ordered) / shown)] for position in range(shown)]
        metrics.append({"Name": "Latency", "Unit": "Microseconds"})
        values["Latency"] = [round(1e6 * latency, 1) for latency in chosen]
    directive = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
    return {"_aws": {"Timestamp": int(1000 * now), "CloudWatchMetrics": [directive]}, **dimensions, **values}


def _dimensions(policy: Policy, settings: Settings) -> dict[str, str]:
    """Names and values that CloudWatch accepts: printable ASCII, not blank."""
    named = {"EndpointName": settings.endpoint_name, "VariantName": settings.variant_name}
    chosen = {name: value for name, value in named.items() if value}
    if chosen:
        return chosen
    name = "".join(c if c.isascii() and c.isprintable() else "?" for c in policy.bundle.name)
    return {"PolicyName": name if name.strip() else "?"}
