"""The dynamics of a fleet: active machines, ordered machines on their way, limits and billing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training_src.problem import Fleet

Floats = npt.NDArray[np.float32]


class FleetBatch:
    """``n`` independent fleets.

    An order made at step ``t`` becomes active at step ``t + provisioning_delay``, before that step's load arrives.
    Scale-in is immediate: it cancels the youngest pending order first, then takes active machines.

    Attributes:
        active: shape ``(n,)``, machines that serve.
        queue: shape ``(provisioning_delay, n)``; row ``j`` becomes active in ``j + 1`` steps.
        total: shape ``(n,)``, active + pending.
    """

    def __init__(self, settings: Fleet, n: int) -> None:
        self.settings = settings
        self.active = np.zeros(n, np.float32)
        self.queue = np.zeros((settings.provisioning_delay, n), np.float32)
        self.total = np.zeros(n, np.float32)

    def reset(self, machines: Floats) -> None:
        """Start with ``machines`` active machines each, within the limits, and nothing pending."""
        np.clip(machines, self.settings.min_machines, self.settings.max_machines, out=self.active)
        self.total = self.active.copy()
        self.queue[:] = 0.0

    def advance(self, change: Floats) -> Floats:
        """Order or release machines, then let the orders that are due become active.

        Args:
            change: shape ``(n,)``, whole machines to add (positive) or remove; cut to the fleet's limits.

        Returns:
            The change that was made.
        """
        target = self.total + change
        np.clip(target, self.settings.min_machines, self.settings.max_machines, out=target)
        made: Floats = np.subtract(target, self.total)
        self.total = target
        ordered = np.maximum(made, np.float32(0.0))
        release = ordered - made
        if release.any():
            for row in self.queue[::-1]:
                cancelled = np.minimum(row, release)
                row -= cancelled
                release -= cancelled
            self.active -= release
        if len(self.queue):
            self.active += self.queue[0]
            self.queue[:-1] = self.queue[1:]
            self.queue[-1] = ordered
        else:
            self.active += ordered
        return made

    @property
    def pending(self) -> Floats:
        """Shape ``(n,)``, machines ordered and not yet active."""
        return self.total - self.active

    @property
    def billed(self) -> Floats:
        """Shape ``(n,)``, machines that cost money now."""
        return self.total if self.settings.billing == "request" else self.active
