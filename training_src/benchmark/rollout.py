"""Running controllers on simulated fleets, minute by minute, with everything that happened recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from policy_runtime.decision import Policy, decide
from policy_runtime.features import seasonal_values
from policy_runtime.rules import Fleets, Rule, State
from training_src.envs.load import LoadProfile
from training_src.envs.simulation import Simulation
from training_src.problem import Problem

Floats = npt.NDArray[np.float32]

TUNING_SEEDS = range(10_000, 10_020)
"""Loads for tuning rules and for keeping the best policy of a training run."""
REPORTING_SEEDS = range(20_000, 20_020)
"""Loads for reported results only."""

_WEEK = datetime(2024, 1, 1, tzinfo=UTC).timestamp()  # a Monday


class Controller(Protocol):
    """Decides for all fleets of a simulation."""

    def start(self, simulation: Simulation) -> None:
        """Forget everything: a new episode begins."""
        ...

    def change(self, simulation: Simulation) -> Floats:
        """Machines to add before the next step, shape ``(n,)``."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """What happened in one episode of ``n`` fleets, arrays of shape ``(steps, n)``.

    Attributes:
        problem: what was run.
        load, failed: requests.
        changes: machines added (positive) or removed by the decision before the step.
        machines: active + pending at the end of the step.
        active: machines that served.
        reward, cost: dollars.
        violation: whether the share of failed requests exceeded the threshold.
    """

    problem: Problem
    load: Floats
    failed: Floats
    changes: Floats
    machines: Floats
    active: Floats
    reward: Floats
    cost: Floats
    violation: npt.NDArray[np.bool_]

    @classmethod
    def empty(cls, simulation: Simulation) -> Self:
        """A record to be filled."""
        shape = (simulation.problem.episode_steps, simulation.n)
        arrays = {field.name: np.empty(shape, np.float32) for field in dataclasses.fields(cls)[1:-1]}
        return cls(simulation.problem, **arrays, violation=np.empty(shape, np.bool_))

    def lanes(self, first: int, count: int = 1) -> Self:
        """The record of ``count`` of the fleets."""
        part = slice(first, first + count)
        arrays = {field.name: getattr(self, field.name)[:, part].copy() for field in dataclasses.fields(self)[1:]}
        return dataclasses.replace(self, **arrays)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The fleets of several records of the same problem, in order."""
        names = [field.name for field in dataclasses.fields(cls)[1:]]
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names
        }
        return cls(parts[0].problem, **arrays)


def run(
    problem: Problem,
    seeds: Sequence[int],
    controller: Controller,
    profile: LoadProfile | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Run a controller for one episode of each seed.

    Args:
        problem: load, fleet and economics.
        seeds: fleet ``i`` meets the load of ``seeds[i]``, whatever the controller does.
        controller: decides.
        profile: overrides the problem's own load.
        progress: called now and then with the steps done and the steps in all.
    """
    simulation = Simulation(problem, len(seeds), profile)
    simulation.reset([seeding.np_random(seed)[0] for seed in seeds])
    controller.start(simulation)
    record = Record.empty(simulation)
    while not simulation.done:
        step = simulation.time
        before = simulation.fleets.total
        outcome = simulation.step(controller.change(simulation))
        record.load[step] = simulation.load[simulation.history + step]
        record.failed[step] = outcome.failed
        record.changes[step] = simulation.fleets.total - before
        record.machines[step] = simulation.fleets.total
        record.active[step] = simulation.fleets.active
        record.reward[step] = outcome.reward
        record.cost[step] = outcome.cost
        record.violation[step] = outcome.violation
        if progress is not None and (simulation.time % 60 == 0 or simulation.done):
            progress(simulation.time, problem.episode_steps)
    return record


class ActionController:
    """A policy as a function of the batched observation, without guardrails: what training sees."""

    def __init__(self, act: Callable[[Floats], npt.NDArray[np.int64]]) -> None:
        """``act`` maps observations of shape ``(n, features)`` to actions of shape ``(n,)``."""
        self.act = act
        self._changes = np.zeros(0, np.float32)

    def start(self, simulation: Simulation) -> None:
        """A new episode begins."""
        self._changes = np.array(simulation.problem.action_steps, np.float32)

    def change(self, simulation: Simulation) -> Floats:
        """Machines to add."""
        return self._changes[self.act(simulation.observation().T)]


class RuleController:
    """A rule-based scaler, without guardrails: as published."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._state: State = {}
        self._seasonal = np.zeros((0, 0, 0), np.float32)

    def start(self, simulation: Simulation) -> None:
        """A new episode begins."""
        self._state = self.rule.initial_state(simulation.n)
        self._seasonal = _seasonal(simulation, self.rule.seasonal)

    def change(self, simulation: Simulation) -> Floats:
        """Machines to add."""
        fleets = Fleets(
            load=simulation.load[simulation.history + simulation.time - 1],
            active=simulation.fleets.active,
            pending=simulation.fleets.pending,
            seasonal=dict(zip(self.rule.seasonal, self._seasonal[simulation.time], strict=True)),
        )
        desired, self._state = self.rule.desired(fleets, self._state)
        return (desired - simulation.fleets.total).astype(np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What of a decision record is kept: the names are those of ``policy_runtime.decide``."""

    raw_desired: int
    desired: int
    delta: int
    fallback: bool
    constraints: tuple[str, ...]


class BundleController:
    """A policy bundle, asked through ``policy_runtime.decide`` as the endpoint and the edge component ask it.

    The requests hold the recent history and the seasonal values, and carry the state from record to record.

    Attributes:
        policy: decides.
        decisions: of each fleet, step by step.
        latest: each fleet's last decision record; empty before the first.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.decisions: list[list[Decision]] = []
        self.latest: list[dict[str, Any]] = []
        self._recent = 0
        self._seasonal_names: tuple[str, ...] = ()
        self._seasonal = np.zeros((0, 0, 0), np.float32)
        self._history = np.zeros((0, 0, 0))

    def start(self, simulation: Simulation) -> None:
        """A new episode begins."""
        self.decisions = [[] for _ in range(simulation.n)]
        self.latest = [{} for _ in range(simulation.n)]
        bundle = self.policy.bundle
        self._recent = max(bundle.features.history, bundle.fleet.provisioning_delay + 1, self.policy.rule.memory + 1)
        self._seasonal_names = self.policy.seasonal
        self._seasonal = _seasonal(simulation, self._seasonal_names)
        # Before the episode the fleet stood still and nothing failed: what its own monitoring would show.
        steps = self._recent + simulation.problem.episode_steps
        self._history = np.zeros((simulation.n, 4, steps))
        before = simulation.load[simulation.history - self._recent : simulation.history]
        self._history[:, 0, : self._recent] = before.T
        self._history[:, 2, : self._recent] = simulation.fleets.active[:, None]

    def change(self, simulation: Simulation) -> Floats:
        """Machines to add."""
        time = simulation.time
        if time:
            last = self._history[:, :, self._recent + time - 1]
            last[:, 0] = simulation.load[simulation.history + time - 1]
            last[:, 1] = simulation.failed
            last[:, 2] = simulation.fleets.active
            last[:, 3] = simulation.fleets.pending
        changes = np.empty(simulation.n, np.float32)
        for lane in range(simulation.n):
            record = decide(self.policy, self.request(simulation, lane))
            self.latest[lane] = record
            self.decisions[lane].append(
                Decision(
                    raw_desired=record["raw_desired"],
                    desired=record["desired"],
                    delta=record["delta"],
                    fallback=record["fallback"],
                    constraints=tuple(record["constraints"]),
                )
            )
            changes[lane] = record["delta"]
        return changes

    def request(self, simulation: Simulation, lane: int) -> dict[str, Any]:
        """The decision request of one fleet before the next step."""
        time = simulation.time
        load, failed, active, pending = self._history[lane, :, time : self._recent + time]
        steps = float(simulation.clock[lane] + simulation.history + time)
        request = {
            "timestamp": _WEEK + steps * simulation.fleet_spec.step_seconds,
            "load": load,
            "failed": failed,
            "active": active,
            "pending": pending,
            "seasonal": dict(zip(self._seasonal_names, self._seasonal[time, :, lane].tolist(), strict=True)),
        }
        if self.latest[lane]:
            request["state"] = self.latest[lane]["state"]
        return request


def _seasonal(simulation: Simulation, names: tuple[str, ...]) -> Floats:
    """Seasonal values of a whole episode, shape ``(steps, names, n)``."""
    return seasonal_values(
        simulation.load,
        simulation.history,
        simulation.problem.episode_steps,
        names,
        simulation.feature_spec,
        simulation.fleet_spec,
        simulation.clock,
    )
