"""When a chart's axis is compressed, and its ticks then."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDE = 8.0
_ROUND = [factor * 10.0**power for power in range(-6, 10) for factor in (1, 2, 5)]


def is_wide(values: Sequence[float], floor: float = 0.0) -> bool:
    """Whether the largest value would press the others into a corner; what is below ``floor`` counts as ``floor``."""
    return max(values) > _WIDE * max(min(values), floor)


def square_root_ticks(values: Sequence[float]) -> list[float]:
    """Round values, from 0 on, about evenly spaced on a square-root scale."""
    most = max(values)
    ticks = [0.0]
    for value in _ROUND:
        if value <= most and math.sqrt(value) - math.sqrt(ticks[-1]) >= 0.09 * math.sqrt(most):
            ticks.append(value)
    return ticks


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round values for a logarithmic scale."""
    return [tick for tick in _ROUND if 0.5 * min(values) <= tick <= 2 * max(values)]
