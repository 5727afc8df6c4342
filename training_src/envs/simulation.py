"""The batched core: ``n`` independent scaling problems stepped together. Everything else is a view of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from policy_runtime.features import exogenous_features, feature_names, observe, seasonal_history, seasonal_names
from training_src.envs.economics import Outcome, settle
from training_src.envs.fleet import FleetBatch
from training_src.envs.load import LoadProfile, load_profile
from training_src.problem import Problem

Floats = npt.NDArray[np.float32]

INITIAL_UTILISATION = 0.6
_BLOCK = 256  # fleets whose features are computed together: their windows then fit into a core's cache
_CHUNK_FLOATS = 2**23  # features computed ahead, 32 MiB


class Simulation:
    """Load, fleet and economics of ``n`` problems with one clock.

    Before step ``t`` a decision is made on ``observation()``; ``step`` makes it, activates the orders that are due,
    serves the load of step ``t`` and settles it.

    Attributes:
        problem: the settings.
        time: steps done in this episode.
        load: shape ``(history + episode_steps, n)``, requests per step; row ``history + t`` is the load of step ``t``.
        clock: shape ``(n,)``, the step of the week of ``load[0]``.
        history: steps of load before the episode.
        fleets: the fleets' machines.
        failed: shape ``(n,)``, failed requests of the last step.
    """

    def __init__(self, problem: Problem, n: int, profile: LoadProfile | None = None) -> None:
        """Make the problems; ``profile`` overrides the problem's own load."""
        self.problem = problem
        self.n = n
        self.profile = profile or load_profile(problem.load, problem.fleet.step_seconds)
        self.fleet_spec = problem.fleet.spec()
        self.feature_spec = problem.features()
        self.feature_names = feature_names(self.feature_spec, self.fleet_spec)
        self.minutes = problem.fleet.step_seconds / 60.0
        # A week, so that rules which look back seven days have them too.
        self.history = max(
            self.feature_spec.history,
            seasonal_history(seasonal_names(self.feature_spec), self.feature_spec, self.fleet_spec),
            7 * self.fleet_spec.steps_per_day + 2 * 3600 // self.fleet_spec.step_seconds,
        )
        self.time = 0
        self.load = np.zeros((self.history + problem.episode_steps, n), np.float32)
        self.throughput: Floats | None = None
        self.clock = np.zeros(n, np.int64)
        self.fleets = FleetBatch(problem.fleet, n)
        self.failed = np.zeros(n, np.float32)
        exogenous = len(self.feature_names) - 3 - self.fleet_spec.provisioning_delay
        self._chunk = np.empty((min(240, max(16, _CHUNK_FLOATS // max(1, exogenous * n))), exogenous, n), np.float32)
        self._chunk_start = -len(self._chunk)
        self._start_generators: list[dict[str, Any]] = []

    def reset(self, generators: Sequence[np.random.Generator]) -> None:
        """Draw a new episode for each problem from its own generator, and start its fleet."""
        self._start_generators = [copy.deepcopy(dict(generator.bit_generator.state)) for generator in generators]
        steps, noise = self.problem.episode_steps, self.problem.fleet.throughput_noise
        if noise and self.throughput is None:
            self.throughput = np.empty((steps, self.n), np.float32)
        # Paths are drawn row by row and stored column by column; blocks make the transposition cheap.
        for first in range(0, self.n, 32):
            block = slice(first, min(first + 32, self.n))
            paths = [self.profile.draw(generator, self.history, steps) for generator in generators[block]]
            self.load[:, block] = np.stack([path.load for path in paths]).T
            self.clock[block] = [path.clock for path in paths]
            if self.throughput is not None:
                draws = [
                    generator.normal(self.problem.fleet.throughput, noise, steps) for generator in generators[block]
                ]
                self.throughput[:, block] = np.maximum(np.stack(draws), 0.0).T
        self.time = 0
        self._chunk_start = -len(self._chunk)
        self.failed = np.zeros(self.n, np.float32)
        initial = self.problem.fleet.initial_machines
        if initial is None:
            wanted = np.ceil(self.load[self.history - 1] / (INITIAL_UTILISATION * self.problem.fleet.throughput))
        else:
            wanted = np.full(self.n, initial, np.float32)
        self.fleets.reset(wanted.astype(np.float32))

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.time >= self.problem.episode_steps

    def observation(self) -> Floats:
        """What a policy sees before the next step, shape ``(features, n)``; a new array."""
        row = self.time - self._chunk_start
        if not 0 <= row < len(self._chunk):
            self._compute_chunk()
            row = 0
        return observe(
            self._chunk[row],
            self.feature_spec,
            self.fleets.active,
            self.fleets.queue,
            self.load[self.history + self.time - 1],
            self.failed,
        )

    def _compute_chunk(self) -> None:
        """Compute the exogenous features of the next steps (one more than the episode has: its last observation)."""
        count = min(len(self._chunk), self.problem.episode_steps + 1 - self.time)
        for first in range(0, self.n, _BLOCK):
            block = slice(first, min(first + _BLOCK, self.n))
            # Computed in a contiguous block and copied: rows of a wide batch lie on pages of their own.
            self._chunk[:count, :, block] = exogenous_features(
                self.load[:, block],
                self.history + self.time,
                count,
                self.feature_spec,
                self.fleet_spec,
                self.clock[block],
            )
        self._chunk_start = self.time

    def step(self, change: Floats) -> Outcome:
        """Add ``change`` machines, shape ``(n,)``, to each fleet and settle the step."""
        if self.done:
            raise RuntimeError("the episode is over: call reset() first")
        self.fleets.advance(change)
        load = self.load[self.history + self.time]
        throughput = (
            np.float32(self.problem.fleet.throughput) if self.throughput is None else self.throughput[self.time]
        )
        outcome = settle(
            self.problem.economics, self.minutes, load, self.fleets.active * throughput, self.fleets.billed
        )
        self.failed = outcome.failed
        self.time += 1
        return outcome

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to continue exactly here: JSON values and arrays, and no load path.

        The path is drawn again from the generators' states at the episode's start.
        """
        return {
            "generators": self._start_generators,
            "time": self.time,
            "active": self.fleets.active.copy(),
            "queue": self.fleets.queue.copy(),
            "failed": self.failed.copy(),
        }

    def restore(self, state: dict[str, Any], generators: Sequence[np.random.Generator]) -> None:
        """Continue from ``state``; the generators are left as they were after the episode's start."""
        for generator, start in zip(generators, state["generators"], strict=True):
            generator.bit_generator.state = start
        self.reset(generators)
        self.time = int(state["time"])
        self.fleets.active[:] = state["active"]
        self.fleets.queue[:] = state["queue"]
        self.fleets.total = self.fleets.active + self.fleets.queue.sum(axis=0)
        self.failed = np.array(state["failed"], np.float32)
