"""Every command and every piece of Python in the README and the docs is run, or checked as far as it can be here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from policy_runtime import Policy, builtin_bundle, decide, write_bundle
from tests.integration.serving_client import Server, free_port

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            found.append((page.name, text))
    return found


def commands() -> list[tuple[str, str]]:
    inline = [(page.name, text) for page in PAGES for text in re.findall(r"`(make [a-z][^`]*)`", page.read_text())]
    lines = [(page, line) for page, text in blocks("sh") for line in text.splitlines()]
    return [(page, line.partition("#")[0].strip()) for page, line in [*lines, *inline]]


def test_the_pages_hold_commands_and_code() -> None:
    assert len(commands()) >= 6
    assert len(blocks("python")) >= 2


@pytest.mark.parametrize(("page", "command"), [c for c in commands() if c[1].startswith("make")])
def test_make_commands_name_a_target(page: str, command: str) -> None:
    result = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, f"{page}: {command}: {result.stderr}"


@pytest.mark.parametrize(("page", "command"), [c for c in commands() if not c[1].startswith("make")])
def test_other_commands_run(page: str, command: str, tmp_path: Path) -> None:
    words = shlex.split(command.removeprefix(". .venv/bin/activate && "))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if words[:2] == ["npx", "cdk"]:
        # Deploying needs an account; that the app and its context are right shows in the list of its stacks.
        assert words[2] == "deploy", command
        context = [word for word in words[3:] if word != "--all"]
        words = [str(ROOT / "node_modules/.bin/cdk"), "ls", *context, "--output", str(tmp_path / "cdk.out")]
        paths = [str(Path(sys.executable).parent), str(ROOT / "node_modules/.bin"), os.environ["PATH"]]
        environment["PATH"] = os.pathsep.join(paths)
        folder = ROOT
    elif words[:2] == [".venv/bin/rl", "serve"]:
        serve_once(words, tmp_path)
        return
    else:
        words[0] = words[0].removeprefix(".venv/bin/")
        assert words[0] == "python", command
        words[0] = sys.executable
        candidate = tmp_path / "build" / "evaluation" / "input" / "data" / "checkpoint"  # where the pages put it
        candidate.mkdir(parents=True)
        write_bundle(builtin_bundle(), candidate / "model.tar.gz")
        folder = tmp_path  # what it writes goes there
        (tmp_path / "docs").symlink_to(ROOT / "docs")

    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)

    assert result.returncode == 0, f"{page}: {command}: {result.stderr}"
    assert result.stdout.strip()


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_a_request_that_the_docs_show_gets_a_decision_and_so_does_the_next(page: str, text: str) -> None:
    policy, request = Policy(builtin_bundle()), json.loads(text)

    record = decide(policy, request)
    following = decide(policy, {**request, "state": record["state"]})

    assert record["action"] in ("add", "keep", "remove") and not record["fallback"]
    assert following["desired"] == record["desired"]


def serve_once(words: list[str], folder: Path) -> None:
    """Start the server that a page starts, with the bundle where the page has it, and ask it once."""
    bundle = folder / words[words.index("--bundle") + 1]
    write_bundle(builtin_bundle(), bundle)
    port = free_port()
    words = [sys.executable, "-m", "launcher.cli", *words[1:]]
    words[words.index("--bundle") + 1], words[words.index("--port") + 1] = str(bundle), str(port)
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0)
    try:
        for _ in range(200):
            time.sleep(0.1)
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping") as answer:
                assert answer.status == 200
                return
        raise AssertionError("the server did not answer within 20 seconds")
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl+C does
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output


@pytest.fixture
def sagemaker_runtime(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SageMaker's runtime API before a real server of the endpoint: it passes bodies on, as InvokeEndpoint does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path.startswith("/endpoints/") and self.path.endswith("/invocations")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = server.request("POST", "/invocations", body, {"Content-Type": self.headers["Content-Type"]})
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None: ...

    api = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=api.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{api.server_address[1]}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    yield
    api.shutdown()
    thread.join()
    api.server_close()


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_in_the_docs_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "boto3" in code:
        request.getfixturevalue("sagemaker_runtime")
    write_bundle(builtin_bundle(), tmp_path / "model.tar.gz")
    monkeypatch.chdir(tmp_path)
    history = {"load": [6000.0] * 60, "failed": [0.0] * 60, "active": [30] * 60, "pending": [0] * 60}
    names: dict[str, object] = {**history, "seasonal": {"day1_max": 6000.0}}

    exec(compile(code, page, "exec"), names)

    if "record" in names:
        assert names["record"]["action"] in ("add", "keep", "remove")  # type: ignore[index]
    else:
        assert "env" in names or names["values"] == {"eval_reward_mean": 4600.1, "eval_violation_minutes_per_day": 1.18}
