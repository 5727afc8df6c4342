"""The demo from end to end, with real processes and little training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policy_runtime import Policy, read_bundle
from training_src.benchmark.document import Document

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)

QUICK = ["--set", "total_steps=10240", "--set", "evaluation_episodes=1", "--set", "episode_steps=720"]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [sys.executable, "-m", "launcher.demo", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)


def test_the_demo_trains_evaluates_reports_and_is_quick_to_repeat(tmp_path: Path) -> None:
    arguments = ["--preset", "smoke", "--folder", str(tmp_path), *QUICK]

    first = demo(*arguments)

    assert first.returncode == 0, first.stderr
    (folder,) = tmp_path.iterdir()
    assert Policy(read_bundle(folder / "model.tar.gz")).learned is not None
    results = folder / "evaluation" / "output" / "data"
    document = Document.model_validate_json((results / "evaluation.json").read_bytes())
    assert (document.loads.blocks, document.candidate.name, document.incumbent.name) == (20, "smoke", "builtin")
    assert [point.steps for point in document.learning][-2:] == [10240, 10240]
    assert "<html" in (results / "report.html").read_text()
    assert f"report    {results / 'report.html'}" in first.stdout
    assert "learned policy: smoke" in first.stdout and "violation min" in first.stdout
    assert "resumed" not in first.stdout

    second = demo(*arguments)

    assert second.returncode == 0, second.stderr
    assert "resumed from the checkpoint at 10,240 steps" in second.stdout
    assert "evaluated before" in second.stdout
    assert first.stdout.partition("per day")[2] == second.stdout.partition("per day")[2]


def test_the_demo_runs_on_a_recorded_load(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = 1_750_000_000 + 300 * np.arange(5 * 288)
    load = 500 + 300 * np.sin(2 * np.pi * np.arange(5 * 288) / 288) + rng.normal(0, 20, 5 * 288)
    trace = tmp_path / "mine.csv"
    trace.write_text("timestamp,value\n" + "".join(f"{t},{v:.1f}\n" for t, v in zip(times, load, strict=True)))

    result = demo("--preset", "smoke", "--trace", str(trace), "--folder", str(tmp_path / "out"), *QUICK)

    assert result.returncode == 0, result.stderr
    assert "mine.csv: 1,440 rows" in result.stdout
    assert "test days" in result.stdout
    (path,) = (tmp_path / "out").glob("*/evaluation/output/data/evaluation.json")
    document = Document.model_validate_json(path.read_bytes())
    assert (document.loads.blocks, document.loads.block_days) == (2, 1.0)
    assert not document.candidate.fitted  # training has fitted its fleet to the trace


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "missing.csv"], "missing.csv"),
        (["--preset", "defualt"], "did you mean 'default'"),
        (["--set", "gama=1"], "gama"),
        (["--set", "environment_id=CartPole-v1", "--set", "reward=reward"], "not a scaling problem"),
    ],
)
def test_wrong_input_ends_the_demo_with_a_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = demo("--folder", str(tmp_path / "out"), *arguments)

    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
