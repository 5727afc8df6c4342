from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from training_src.metrics import parse
from training_src.training_log import TrainingLog


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_printed_for_sagemaker_and_kept_for_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingLog(tmp_path) as log:
        log.progress(256, 1024)
        log.metrics(256, {"train_total_steps": 256, "eval_reward_mean": 12.5})
        log.metrics(512, {"eval_cost_mean": 1e-7})
        log.note("a remark")
    shown = capsys.readouterr().out
    assert list(parse(shown)) == [("train_total_steps", 256.0), ("eval_reward_mean", 12.5), ("eval_cost_mean", 1e-7)]
    assert shown.splitlines()[-1] == "a remark"
    assert lines(tmp_path) == [
        {"steps": 256, "train_total_steps": 256, "eval_reward_mean": 12.5},
        {"steps": 512, "eval_cost_mean": 1e-7},
    ]


def test_a_value_that_is_not_finite_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path) as log:
        log.metrics(1, {"train_explained_variance": math.nan, "train_value_loss": math.inf, "train_entropy": 1.0})
    assert capsys.readouterr().out == "train_entropy=1.0;\n"
    assert lines(tmp_path) == [{"steps": 1, "train_entropy": 1.0}]


def test_an_unknown_metric_is_refused_and_not_kept(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log, pytest.raises(KeyError, match="unknown metric 'eval_csot_mean'"):
        log.metrics(1, {"eval_csot_mean": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_on_a_terminal_a_bar_shows_the_latest_evaluation_instead_of_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with TrainingLog(tmp_path) as log:
        log.progress(256, 1024)
        log.metrics(256, {"train_total_steps": 256, "eval_reward_mean": 12.5})
        log.progress(512, 1024)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "50 %" in captured.err and "reward 12.5" in captured.err
    assert lines(tmp_path) == [{"steps": 256, "train_total_steps": 256, "eval_reward_mean": 12.5}]


def test_resuming_drops_what_came_after_the_checkpoint_and_what_was_cut_off(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:
        for steps in (10, 20, 30):
            log.metrics(steps, {"train_total_steps": steps})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"steps": 40, "train_to')
    resumed = TrainingLog(tmp_path)
    resumed.forget_after(20)
    resumed.metrics(30, {"train_total_steps": 31})
    assert [line["train_total_steps"] for line in lines(tmp_path)] == [10, 20, 31]


def test_resuming_on_another_machine_finds_no_earlier_lines(tmp_path: Path) -> None:
    TrainingLog(tmp_path).forget_after(20)
    assert list(tmp_path.iterdir()) == []
