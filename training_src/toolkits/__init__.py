"""RL toolkits behind one small protocol: each turns a preset into a policy that can be exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from torch import nn

from training_src.presets import Preset
from training_src.training_log import TrainingLog


@dataclasses.dataclass(frozen=True)
class TrainedPolicy:
    """What training ends with.

    Attributes:
        module: maps observations of shape ``(batch, observation_size)`` to scores of shape ``(batch, action_size)``,
            both float32, with any normalisation inside.
        observation_size, action_size: of the flat observation and of the scores.
        action_kind: ``discrete``: the largest score is the action; ``continuous``: the scores are the action.
        steps: environment steps done.
        finished: False when training was stopped before its budget was spent.
        evaluation: metrics of the weights that were kept, by name.
        learning_curve: environment steps and mean reward of each evaluation during training.
    """

    module: nn.Module
    observation_size: int
    action_size: int
    action_kind: Literal["discrete", "continuous"]
    steps: int
    finished: bool
    evaluation: Mapping[str, float]
    learning_curve: tuple[tuple[int, float], ...] = ()


class Toolkit(Protocol):
    """Trains policies with one RL library."""

    def train(self, preset: Preset, checkpoints: Path, log: TrainingLog, stop: Callable[[], bool]) -> TrainedPolicy:
        """Train as the preset says.

        Args:
            preset: environment, algorithm and budget.
            checkpoints: folder to resume from when it holds a checkpoint, and to write checkpoints to.
            log: takes metrics.
            stop: polled between updates; once true, a checkpoint is written and training ends.
        """
        ...


def toolkit(name: str) -> Toolkit:
    """The toolkit of that name; it is imported only now, because each brings a large library."""
    if name == "sb3":
        from training_src.toolkits.sb3 import Sb3Toolkit

        return Sb3Toolkit()
    raise ValueError(f"unknown toolkit {name!r}, known: sb3")
