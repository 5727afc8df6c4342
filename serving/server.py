"""One process, one event loop, uvicorn."""

from __future__ import annotations

import logging
import signal
import sys

import uvicorn

from policy_runtime import Policy
from serving.app import App
from serving.protocol import LimitedProtocol
from serving.settings import Settings
from serving.telemetry import Telemetry

logger = logging.getLogger(__name__)


def exit_on_signals() -> None:
    """Make SIGTERM and SIGINT end this process with status 0, also as a container's process 1.

    uvicorn puts its own handlers in front of these while it serves, and raises the signal again when it is done.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def serve(policy: Policy, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is on its way, and return."""
    config = uvicorn.Config(
        App(policy, settings, Telemetry(policy, settings)),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # it warns of each request that is not HTTP; telemetry counts them
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    where = {"host": settings.host, "port": settings.port, "policy": policy.identity}
    logger.info("starting", extra={"fields": where})
    uvicorn.Server(config).run()
