from __future__ import annotations

import random
import resource
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training_src.toolkits.checkpoint import CheckpointError, check_settings, load_checkpoint, save_checkpoint


def content(steps: int) -> dict[str, Any]:
    return {"steps": steps, "weights": {"w": torch.arange(float(steps))}, "text": "{}", "items": [1, 2.5, None]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, content(7))
    assert names(tmp_path) == [path.name] == ["checkpoint-000000000007.pt"]
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.pop("weights")["w"], torch.arange(7.0))
    assert loaded == {"steps": 7, "text": "{}", "items": [1, 2.5, None]}


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert load_checkpoint(tmp_path) is None


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for steps in (5, 50, 999_999, 1_000_000):
        save_checkpoint(tmp_path, steps, content(3) | {"steps": steps})
    assert names(tmp_path) == ["checkpoint-000000999999.pt", "checkpoint-000001000000.pt"]
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded["steps"] == 1_000_000


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, content(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, content(2))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_is_full_is_reported_with_the_path(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk: the same call fails with an OSError.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write the checkpoint: File too large: '.*000000000001\.pt'"):
            save_checkpoint(tmp_path, 1, content(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_half_written_is_neither_loaded_nor_kept(tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path, 1, content(1)).read_bytes()
    (tmp_path / ".checkpoint.tmp").write_bytes(whole[:100])
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded["steps"] == 1
    save_checkpoint(tmp_path, 2, content(2))
    assert names(tmp_path) == ["checkpoint-000000000001.pt", "checkpoint-000000000002.pt"]


def test_whoever_may_read_the_folder_may_read_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    path = save_checkpoint(tmp_path, 1, content(1))
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("kept", [0, 1, 50, 0.5, -1])
def test_a_newest_checkpoint_that_is_cut_short_gives_way_to_the_one_before(tmp_path: Path, kept: float) -> None:
    save_checkpoint(tmp_path, 1, content(1))
    newest = save_checkpoint(tmp_path, 2, content(2))
    data = newest.read_bytes()
    newest.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    warnings: list[str] = []
    loaded = load_checkpoint(tmp_path, warnings.append)
    assert loaded is not None and loaded["steps"] == 1
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: checkpoint skipped, it cannot be read: {newest}: ")


def test_damage_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, content(1))
    newest = save_checkpoint(tmp_path, 2, content(2))
    data, rng = newest.read_bytes(), random.Random(0)
    for _ in range(200):
        start = rng.randrange(len(data))
        damage = rng.randbytes(rng.randrange(1, 40))
        newest.write_bytes(data[:start] + damage + data[start + len(damage) :])
        loaded = load_checkpoint(tmp_path, lambda _: None)
        assert loaded is not None
        assert torch.equal(loaded.pop("weights")["w"], torch.arange(float(loaded["steps"])))
        assert loaded == {"steps": loaded["steps"], "text": "{}", "items": [1, 2.5, None]}


def test_when_none_can_be_read_that_is_an_error(tmp_path: Path) -> None:
    for steps in (1, 2):
        save_checkpoint(tmp_path, steps, content(steps)).write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint can be read, remove them to start again: .*000000002\.pt"
    ):
        load_checkpoint(tmp_path, lambda _: None)


class Unsafe:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    torch.save({"steps": 1, "trap": Unsafe(tmp_path / "sprung")}, tmp_path / "checkpoint-000000000001.pt")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        load_checkpoint(tmp_path, lambda _: None)
    assert not (tmp_path / "sprung").exists()


def test_arrays_have_to_be_stored_as_tensors(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"array": np.zeros(3)})
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path, lambda _: None)


def test_a_run_with_the_same_settings_may_go_on() -> None:
    check_settings({"gamma": 0.99, "action_steps": [-1, 0, 1]}, {"action_steps": [-1, 0, 1], "gamma": 0.99})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"gamma": 0.9, "seed": 0}, r"gamma was 0\.99, is 0\.9"),
        ({"gamma": 0.99}, r"seed was 0, is None"),
        ({"gamma": 0.99, "seed": 0, "load_level": 5}, r"load_level was None, is 5"),
    ],
)
def test_a_run_with_other_settings_is_refused_by_the_names_that_differ(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"other settings \({message}\)"):
        check_settings({"gamma": 0.99, "seed": 0}, wanted)
