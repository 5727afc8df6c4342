"""What a record of an episode is summed up to."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import DAY_SECONDS
from training_src.benchmark.rollout import Record


@dataclasses.dataclass(frozen=True)
class Summary:
    """One number for each block of a record (a seed's episode or a day of a trace), arrays of shape ``(blocks,)``.

    Attributes:
        reward, cost: dollars in the block.
        violation_minutes_per_day: minutes a day whose share of failed requests exceeded the threshold.
        machine_hours: paid for in the block.
        success_rate: share of the block's requests that succeeded.
    """

    reward: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    violation_minutes_per_day: npt.NDArray[np.float64]
    machine_hours: npt.NDArray[np.float64]
    success_rate: npt.NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """The mean of each measure over the blocks."""
        return {field.name: float(getattr(self, field.name).mean()) for field in dataclasses.fields(self)}


def summarise(record: Record, block_steps: int | None = None) -> Summary:
    """Sum a record up.

    Args:
        record: of ``n`` fleets.
        block_steps: length of a block; the whole episode when absent. A rest shorter than a block is left out.
    """
    steps, n = record.load.shape
    block_steps = block_steps or steps
    blocks = steps // block_steps
    minutes = record.problem.fleet.step_seconds / 60.0

    def total(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        whole = values[: blocks * block_steps].reshape(blocks, block_steps, n)
        return np.asarray(whole.sum(axis=1, dtype=np.float64).T.ravel())

    billed = record.machines if record.problem.fleet.billing == "request" else record.active
    load = total(record.load)
    return Summary(
        reward=total(record.reward),
        cost=total(record.cost),
        violation_minutes_per_day=total(record.violation) * minutes / (block_steps * minutes * 60 / DAY_SECONDS),
        machine_hours=total(billed) * minutes / 60.0,
        success_rate=1.0 - total(record.failed) / np.maximum(load, 1e-12),
    )
