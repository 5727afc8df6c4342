"""Schemathesis makes requests from the endpoint's own description, valid and not, and checks the answers against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.serving_client import ROOT, Server

# What makes a request valid beyond JSON Schema (histories of one length, times in order) it cannot know.
CONFIGURATION = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 405, 406, 413, 415]
"""


@pytest.mark.parametrize("kind", ["builtin", "learned"])
def test_the_endpoint_does_what_its_description_says(
    kind: str, server: Server, learned_server: Server, learned_folder: Path, tmp_path: Path
) -> None:
    description = tmp_path / "openapi.json"
    bundle = [] if kind == "builtin" else ["--bundle", str(learned_folder)]
    with description.open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "serving", "schema", *bundle], cwd=ROOT, stdout=file, check=True, timeout=30
        )
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    asked = server if kind == "builtin" else learned_server

    result = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml"),
            *("run", description.name, "--url", f"http://127.0.0.1:{asked.port}"),
            *("--max-examples", "100", "--generation-deterministic", "--continue-on-failure", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert result.returncode == 0, result.stdout[:3000] + result.stdout[-3000:] + result.stderr[-3000:]
    assert "Tested: 2" in result.stdout
    assert not [line for line in asked.logged() if line["level"] == "error"]
