"""What a record of an episode is summed up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import DAY_SECONDS
from training_src.benchmark.rollout import Record

Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Summary:
    """One number for each block of a record (a seed's episode or a day of a trace), arrays of shape ``(blocks,)``.

    Attributes:
        days: length of a block.
        reward, cost: dollars in the block.
        violation_minutes: minutes whose share of failed requests exceeded the threshold.
        machine_hours: paid for in the block.
        machines_ordered: machines added in the block, those included that were cancelled before they came.
        success_rate: share of the block's requests that succeeded.
    """

    days: float
    reward: Doubles
    cost: Doubles
    violation_minutes: Doubles
    machine_hours: Doubles
    machines_ordered: Doubles
    success_rate: Doubles

    def per_day(self) -> dict[str, float]:
        """Mean of each measure over the blocks; what adds up is given for one day."""
        return {
            "reward": float(self.reward.mean()) / self.days,
            "cost": float(self.cost.mean()) / self.days,
            "violation_minutes": float(self.violation_minutes.mean()) / self.days,
            "machine_hours": float(self.machine_hours.mean()) / self.days,
            "machines_ordered": float(self.machines_ordered.mean()) / self.days,
            "success_rate": float(self.success_rate.mean()),
        }

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The blocks of several summaries, in order."""
        names = [field.name for field in dataclasses.fields(cls)[1:]]
        return cls(parts[0].days, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def summarise(record: Record, block_steps: int | None = None) -> Summary:
    """Sum a record up, load by load.

    Args:
        record: of ``n`` fleets.
        block_steps: length of a block; the whole episode when absent. A rest shorter than a block is left out.
    """
    steps, n = record.load.shape
    block_steps = block_steps or steps
    blocks = steps // block_steps
    minutes = record.problem.fleet.step_seconds / 60.0

    def total(values: npt.NDArray[np.generic]) -> Doubles:
        whole = values[: blocks * block_steps].reshape(blocks, block_steps, n)
        return np.asarray(whole.sum(axis=1, dtype=np.float64).T.ravel())

    billed = record.machines if record.problem.fleet.billing == "request" else record.active
    changes = np.diff(record.machines, axis=0, prepend=record.machines[:1])
    return Summary(
        days=block_steps * record.problem.fleet.step_seconds / DAY_SECONDS,
        reward=total(record.reward),
        cost=total(record.cost),
        violation_minutes=total(record.violation) * minutes,
        machine_hours=total(billed) * minutes / 60.0,
        machines_ordered=total(np.maximum(changes, 0.0)),
        success_rate=1.0 - total(record.failed) / np.maximum(total(record.load), 1e-12),
    )
