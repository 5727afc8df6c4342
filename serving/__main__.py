"""``python -m serving serve``: the endpoint; ``python -m serving schema``: its description."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from policy_runtime import BundleError, Policy, builtin_bundle
from serving.loading import load
from serving.schema import openapi
from serving.server import exit_on_signals, serve
from serving.settings import Settings
from serving.telemetry import log_as_json

UNUSABLE = 2
"""Exit status for a bundle or a setting that cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    exit_on_signals()
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="answer GET /ping and POST /invocations, as SageMaker asks for it")
    server.add_argument("--bundle", help="model.tar.gz, or the folder of one (default: /opt/ml/model)")
    server.add_argument("--host", help="address to listen on (default: all; 127.0.0.1: this machine only)")
    server.add_argument("--port", type=int, help="port to listen on (default: SAGEMAKER_BIND_TO_PORT, or 8080)")
    schema = commands.add_parser("schema", help="print the OpenAPI description of the endpoint")
    schema.add_argument("--bundle", help="describe this bundle's endpoint (default: that of the built-in bundle)")
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    try:
        settings = Settings.read(os.environ, **options)
        if command == "schema":
            policy = load(Path(options["bundle"])) if options["bundle"] else Policy(builtin_bundle())
            print(json.dumps(openapi(policy, settings), indent=2))
            return 0
        log_as_json()
        policy = load(Path(settings.bundle))
    except (BundleError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return UNUSABLE
    serve(policy, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
