"""How training tells what it does: metric lines, a progress bar on a terminal, and a file for plots."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training_src.metrics import format_line

_SHOWN = {"eval_reward_mean": "reward", "eval_violation_minutes_per_day": "violation min/day"}
"""What of an evaluation fits beside the progress bar."""


class TrainingLog:
    """Takes metrics during training; a context manager.

    Each call of ``metrics`` prints one line for SageMaker's regular expressions (on a terminal the progress bar shows
    the latest evaluation instead) and appends one JSON object to ``metrics.jsonl``.
    """

    def __init__(self, folder: Path) -> None:
        """Write ``metrics.jsonl`` into ``folder``."""
        self.path = folder / "metrics.jsonl"
        self._terminal = sys.stdout.isatty()
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            disable=not self._terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start the progress bar."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop the progress bar."""
        self._progress.stop()

    def progress(self, steps: int, total: int) -> None:
        """Say how far training is."""
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
        self._progress.update(self._task, completed=steps)

    def metrics(self, steps: int, values: Mapping[str, float]) -> None:
        """Report metrics by name after ``steps`` environment steps."""
        line = format_line(values)
        if not self._terminal:
            print(line, flush=True)
        elif self._task is not None:
            shown = ", ".join(f"{title} {values[name]:,.1f}" for name, title in _SHOWN.items() if name in values)
            if shown:
                self._progress.update(self._task, description=shown)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"steps": steps, **finite}) + "\n")

    def note(self, text: str) -> None:
        """Print a line that is not a metric."""
        if self._terminal:
            self._progress.console.print(text, highlight=False)
        else:
            print(text, flush=True)

    def forget_after(self, steps: int) -> None:
        """Drop what an earlier run logged after the checkpoint that training resumes from; it will come again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["steps"] <= steps:
                    kept.append(line)
            except ValueError:
                continue  # the line on which the earlier run was killed
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
