"""Every command and every piece of Python in the README and the docs is run, or checked as far as it can be here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from policy_runtime import builtin_bundle, write_bundle

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
    else:
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


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_in_the_docs_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(builtin_bundle(), tmp_path / "model.tar.gz")
    monkeypatch.chdir(tmp_path)
    history = {"load": [6000.0] * 60, "failed": [0.0] * 60, "active": [30] * 60, "pending": [0] * 60}
    names: dict[str, object] = {**history, "seasonal": {"day1_max": 6000.0}}

    exec(compile(code, page, "exec"), names)

    if "record" in names:
        assert names["record"]["action"] in ("add", "keep", "remove")  # type: ignore[index]
    else:
        assert "env" in names or names["values"] == {"eval_reward_mean": 4600.1, "eval_violation_minutes_per_day": 1.18}
