"""An environment of one's own: keep a room at its set point against a drifting outside temperature.

``preset.yaml`` names it as ``thermostat:Thermostat-v0``: this module is imported and registers the id.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt


class Thermostat(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Heat, do nothing or cool, each minute; the reward is minus the distance from 21 degrees."""

    def __init__(self, steps: int = 240) -> None:
        self.steps = steps
        self.observation_space = gym.spaces.Box(-40.0, 60.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(3)
        self.room = self.outside = 0.0
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start at a random temperature."""
        super().reset(seed=seed)
        self.room, self.outside = self.np_random.uniform(10, 30), self.np_random.uniform(-5, 35)
        self.time = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let a minute pass."""
        self.outside += self.np_random.normal(0.0, 0.2)
        self.room += 0.02 * (self.outside - self.room) + (0.5, 0.0, -0.5)[int(action)]
        self.time += 1
        return self._observation(), -abs(self.room - 21.0), False, self.time >= self.steps, {}

    def _observation(self) -> npt.NDArray[np.float32]:
        return np.array([self.room, np.clip(self.outside, -40.0, 60.0)], np.float32)


gym.register("Thermostat-v0", entry_point=Thermostat)
