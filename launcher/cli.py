"""The command line ``rl``: the workflow's steps from a shell.

``rl serve`` runs the endpoint's own server on this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with its status."""
    options = _parser().parse_args(arguments)
    raise SystemExit(options.run(options))


def serve(options: argparse.Namespace) -> int:
    """Serve a policy bundle until interrupted; the status is that of the server."""
    command = [sys.executable, "-m", "serving", "serve", "--bundle", str(options.bundle)]
    command += ["--host", options.host, "--port", str(options.port)]
    print(f"serving {options.bundle} on http://{options.host}:{options.port}/invocations; stop with Ctrl+C", flush=True)
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:  # the server has had it too, and has finished what it was doing
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rl", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="serve a policy bundle on this machine, as the endpoint does")
    command.add_argument("--bundle", type=Path, required=True, help="model.tar.gz, or the folder that it unpacks to")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    command.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    command.set_defaults(run=serve)
    return parser


if __name__ == "__main__":
    main()
