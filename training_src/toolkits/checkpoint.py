"""Checkpoints of a training run: one file each, written whole or not at all, loaded without unpickling objects.

A checkpoint is a nested dictionary of tensors, numbers, strings, lists and dictionaries, which is what
``torch.load(weights_only=True)`` accepts. NumPy arrays are stored as tensors, generator states as JSON text.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from training_src.errors import UserError

KEEP = 2
"""Checkpoints kept: the one before last serves when a copy of the last to or from S3 was cut short."""

_PATTERN = "checkpoint-*.pt"


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not belong to this run."""


def save_checkpoint(folder: Path, steps: int, content: dict[str, Any]) -> Path:
    """Write a checkpoint and remove all but the last ``KEEP``.

    Raises:
        OSError: it cannot be written; those that were there before are unchanged.
    """
    path = folder / f"checkpoint-{steps:012d}.pt"
    # One name, so that what a killed process left is written over.
    temporary = folder / ".checkpoint.tmp"
    packed = io.BytesIO()  # torch hides that a disk is full behind an error of its own
    torch.save(content, packed)
    try:
        with temporary.open("wb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot write the checkpoint: {error.strerror}", str(path)) from error
        raise
    for old in sorted(folder.glob(_PATTERN))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, warn: Any = print) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None when there is none.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    paths = sorted(folder.glob(_PATTERN), reverse=True)
    problems = []
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:  # torch writes checksums, but does not check them
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is damaged")
            content = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(content, dict):
                raise ValueError(f"holds a {type(content).__name__}")
        except Exception as error:  # torch raises many types for a damaged file; each means the same here
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            problems.append(f"{path}: {reason}")
            warn(f"warning: checkpoint skipped, it cannot be read: {problems[-1]}")
        else:
            return content
    if problems:
        raise CheckpointError(f"no checkpoint can be read, remove them to start again: {problems[0]}")
    return None


def check_settings(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings.

    Args:
        saved, wanted: settings by flat name (``Preset.values``).

    Raises:
        CheckpointError: names the settings that differ.
    """
    different = [
        f"{key} was {saved.get(key)!r}, is {wanted.get(key)!r}"
        for key in sorted(saved.keys() | wanted.keys())
        if saved.get(key) != wanted.get(key)
    ]
    if different:
        raise CheckpointError(
            f"the checkpoint was made with other settings ({'; '.join(different[:5])}): "
            "use the same ones, or remove the checkpoint to start again"
        )
