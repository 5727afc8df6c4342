"""Synthesis for the infrastructure tests: once per environment in this process, or as the CLI does it, in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = ROOT / "node_modules/.bin/node"
# Read when aws_cdk is imported: the pinned Node where it is installed, and no 3-second check of templates.
if NODE.exists():
    os.environ["JSII_NODE"] = str(NODE)
os.environ["CDK_VALIDATION"] = "false"

import aws_cdk as cdk  # noqa: E402
from aws_cdk.assertions import Template  # noqa: E402

from app import create_stacks  # noqa: E402
from stacks.settings import environments, load_settings  # noqa: E402

CONTEXT = json.loads((ROOT / "cdk.json").read_text())["context"]


@pytest.fixture(scope="session", params=environments())
def environment(request: pytest.FixtureRequest) -> str:
    """Each environment that has a file in ``config``."""
    return request.param


@pytest.fixture(scope="session")
def stacks(environment: str) -> dict[str, cdk.Stack]:
    """The stacks of the environment, by name without the environment's prefix."""
    app = cdk.App(context=CONTEXT)
    create_stacks(app, load_settings(environment))
    stacks = [child for child in app.node.children if isinstance(child, cdk.Stack)]
    return {stack.stack_name.removeprefix(f"{environment}-fleet-scaling-"): stack for stack in stacks}


@pytest.fixture(scope="session")
def storage(stacks: dict[str, cdk.Stack]) -> Template:
    """The storage stack's template."""
    return Template.from_stack(stacks["storage"])


@pytest.fixture
def run_app(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``app.py`` as the CDK CLI does; its output folder is ``tmp_path/<folder>``."""

    def run(
        env: str, folder: str = "cdk.out", variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "JSII_NODE", "CDK_VALIDATION") if name in os.environ}
        cli = {"CDK_OUTDIR": str(tmp_path / folder), "CDK_CONTEXT_JSON": json.dumps({**CONTEXT, "env": env})}
        return subprocess.run(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env={**kept, **cli, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
