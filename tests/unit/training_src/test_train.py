from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from training_src.train import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "preset"], "--set 'preset': expected NAME=VALUE"),
        (["--source-dir", "nowhere"], "--source-dir: nowhere is not a folder"),
        (["--set", 'preset="smokee"'], "did you mean 'smoke'"),
        (["--set", "preset=classic", "--set", "fleet_step_seconds=30"], "defined in steps of 60 seconds, not 30"),
    ],
)
def test_a_wrong_command_is_refused_with_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as exit_info:
        main(["--root", str(tmp_path), *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert message in (tmp_path / "output" / "failure").read_text()


def test_the_command_line_wins_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"preset": "smoke", "seed": "1"}))
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), "--set", "seed=-5"])
    assert "seed: -5 is out of range" in capsys.readouterr().err
