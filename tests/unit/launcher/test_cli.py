from __future__ import annotations

import pytest

from launcher.cli import main


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([])
    assert exit_info.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_bundle_that_is_missing_ends_serving_with_the_servers_own_message(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["serve", "--bundle", "nowhere/model.tar.gz", "--port", "8099"])
    assert exit_info.value.code == 2
    assert "nowhere/model.tar.gz" in capfd.readouterr().err
