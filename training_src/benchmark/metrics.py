"""What a record of an episode is summed up to."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from policy_runtime.spec import DAY_SECONDS
from training_src.benchmark.rollout import Record

Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Measures:
    """How a policy did, per day on average; ``success_rate`` and the shares of time are means over the blocks.

    Attributes:
        reward, cost: dollars; cost = machine_cost + penalties + lost_revenue.
        machine_cost, penalties, lost_revenue: the parts of the cost.
        violation_minutes: minutes whose share of failed requests exceeded the threshold.
        success_rate: share of the requests that succeeded, 0 to 1.
        machine_hours: paid for.
        machines_ordered: machines added, those included that were cancelled before they came.
        over_provisioned, under_provisioned: share of the time in which more, or fewer, machines were active than the
            load needed (``ceil(load / throughput)``), 0 to 1: the "wrong provisioning time shares" of Herbst et al.,
            "Quantifying Cloud Performance and Dependability", ACM TOMPECS 3(4), 2018.
        spare_machines, missing_machines: mean number of machines above, or below, what the load needed.
        actions: steps in which the size was changed.
        reversals: actions in the direction opposite to that of the action before.
    """

    reward: float
    cost: float
    machine_cost: float
    penalties: float
    lost_revenue: float
    violation_minutes: float
    success_rate: float
    machine_hours: float
    machines_ordered: float
    over_provisioned: float
    under_provisioned: float
    spare_machines: float
    missing_machines: float
    actions: float
    reversals: float


_MEANS = {"success_rate", "over_provisioned", "under_provisioned", "spare_machines", "missing_machines"}
"""What does not add up over a block."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """The measures of each block of a record (a seed's episode or a day of a trace), arrays of shape ``(blocks,)``.

    Attributes:
        days: length of a block.
        Others: as in ``Measures``; what adds up is the block's total.
    """

    days: float
    reward: Doubles
    cost: Doubles
    machine_cost: Doubles
    penalties: Doubles
    lost_revenue: Doubles
    violation_minutes: Doubles
    success_rate: Doubles
    machine_hours: Doubles
    machines_ordered: Doubles
    over_provisioned: Doubles
    under_provisioned: Doubles
    spare_machines: Doubles
    missing_machines: Doubles
    actions: Doubles
    reversals: Doubles

    def per_day(self) -> Measures:
        """Means over the blocks; what adds up is given for one day."""
        means = {field.name: float(getattr(self, field.name).mean()) for field in dataclasses.fields(Measures)}
        return Measures(**{name: mean if name in _MEANS else mean / self.days for name, mean in means.items()})


def summarise(record: Record, block_steps: int | None = None) -> Summary:
    """Sum a record up, load by load.

    Args:
        record: of ``n`` fleets.
        block_steps: length of a block; the whole episode when absent. A rest shorter than a block is left out.
    """
    steps, n = record.load.shape
    block_steps = block_steps or steps
    blocks = steps // block_steps
    fleet, economics = record.problem.fleet, record.problem.economics
    minutes = fleet.step_seconds / 60.0

    def total(values: npt.NDArray[np.generic]) -> Doubles:
        whole = values[: blocks * block_steps].reshape(blocks, block_steps, n)
        return np.asarray(whole.sum(axis=1, dtype=np.float64).T.ravel())

    billed = record.machines if fleet.billing == "request" else record.active
    violation_minutes, failed = total(record.violation) * minutes, total(record.failed)
    machine_hours = total(billed) * minutes / 60.0
    changes = record.changes
    # A load that needs a whole number exactly needs no machine more, whatever float32 makes of it.
    spare = record.active - np.ceil(record.load / np.float64(fleet.throughput) * (1 - 1e-6))
    return Summary(
        days=block_steps * fleet.step_seconds / DAY_SECONDS,
        reward=total(record.reward),
        cost=total(record.cost),
        machine_cost=machine_hours * 60.0 * economics.machine_cost,
        penalties=violation_minutes * economics.violation_penalty,
        lost_revenue=failed * economics.success_value / 1000.0,
        violation_minutes=violation_minutes,
        success_rate=1.0 - failed / np.maximum(total(record.load), 1e-12),
        machine_hours=machine_hours,
        machines_ordered=total(np.maximum(changes, 0.0)),
        over_provisioned=total(spare > 0) / block_steps,
        under_provisioned=total(spare < 0) / block_steps,
        spare_machines=total(np.maximum(spare, 0.0)) / block_steps,
        missing_machines=total(np.maximum(-spare, 0.0)) / block_steps,
        actions=total(changes != 0),
        reversals=total(_reversals(changes)),
    )


def _reversals(changes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where a change goes the other way than the change before it, shape ``(steps, n)``."""
    direction = np.sign(changes)
    step = np.where(direction != 0, np.arange(len(changes))[:, None], -1)
    last = np.maximum.accumulate(step, axis=0)
    before = np.vstack([np.full((1, changes.shape[1]), -1), last[:-1]])
    previous = np.where(before >= 0, np.take_along_axis(direction, np.maximum(before, 0), axis=0), 0)
    return np.asarray(direction * previous < 0)
