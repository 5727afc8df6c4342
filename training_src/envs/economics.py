"""What a step earns and costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training_src.problem import Economics

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One settled step of ``n`` fleets, each array of shape ``(n,)``.

    Attributes:
        reward: dollars; value of successes - machine cost - penalty.
        cost: dollars; machine cost + penalty + value of failed requests. As the load is given,
            ``reward + cost`` is the value of the whole load, which no decision changes.
        failed: requests.
        violation: whether the share of failed requests exceeds the threshold.
    """

    reward: Floats
    cost: Floats
    failed: Floats
    violation: npt.NDArray[np.bool_]


def settle(economics: Economics, minutes: float, load: Floats, capacity: Floats, billed: Floats) -> Outcome:
    """Settle one step.

    Args:
        economics: the prices.
        minutes: length of the step.
        load: shape ``(n,)``, requests that arrive.
        capacity: shape ``(n,)``, requests that the active machines can serve.
        billed: shape ``(n,)``, machines that cost money.
    """
    value = np.float32(economics.success_value / 1000.0)
    failed = np.maximum(load - capacity, np.float32(0.0))
    violation = failed > np.float32(economics.failure_threshold) * load
    cost = billed * np.float32(economics.machine_cost * minutes)
    cost += violation * np.float32(economics.violation_penalty * minutes)
    cost += failed * value
    return Outcome(load * value - cost, cost, failed, violation)
