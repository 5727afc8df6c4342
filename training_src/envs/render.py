"""Drawing for ``AutoScalingEnv.render``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_load_and_capacity(
    load: npt.NDArray[np.float32], capacity: Sequence[float], minutes: float
) -> npt.NDArray[np.uint8]:
    """Draw load against capacity over time.

    Args:
        load, capacity: requests per step, equally long.
        minutes: length of a step.

    Returns:
        An RGB image of shape ``(height, width, 3)``.
    """
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    hours = np.arange(len(capacity)) * minutes / 60
    axes.plot(hours, load, color="#1f77b4", linewidth=1, label="load")
    axes.step(hours, capacity, where="post", color="#d95f02", linewidth=1.2, label="capacity")
    axes.fill_between(hours, capacity, load, where=np.asarray(load) > capacity, step="post", color="#c00000", alpha=0.4)
    axes.set(xlabel="hours", ylabel="requests per step", ylim=(0, None))
    axes.legend(loc="upper left", frameon=False)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
