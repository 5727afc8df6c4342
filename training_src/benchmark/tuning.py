"""Tuning rules: every configuration of a stated grid on the same tuning loads, a rule's whole grid in one pass."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from policy_runtime.features import seasonal_values
from policy_runtime.rules import RULES, Fleets, Rule, State, make_rule, make_rules
from policy_runtime.spec import DAY_SECONDS, FleetSpec
from training_src.envs.economics import settle
from training_src.envs.fleet import FleetBatch
from training_src.envs.simulation import Simulation
from training_src.problem import Problem

Doubles = npt.NDArray[np.float64]
Setting = Mapping[str, float]

_TARGETS = (0.2, 0.3, *(round(0.40 + 0.05 * i, 2) for i in range(12)))

GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "target_tracking": {
        "target": _TARGETS,
        "out_periods": (1, 3),
        "in_periods": (2, 5, 15, 60),
        "low_ratio": (0.5, 0.7, 0.9, 0.95),
    },
    "step_scaling": {
        "high": (0.5, 0.6, 0.7, 0.8, 0.9),
        "low": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "out_percent": (10.0, 30.0),
        "in_percent": (10.0, 20.0),
        "out_periods": (1, 3),
        "in_periods": (2, 15, 60),
    },
    "kubernetes_hpa": {
        "target": _TARGETS,
        "tolerance": (0.0, 0.05, 0.1),
        "stabilization": (1, 5, 10, 15, 30, 60),
    },
    "predictive": {
        "target": _TARGETS,
        "days": (1, 7, 14),
        "buffer": (0.0, 0.1),
        "out_periods": (1, 3),
        "in_periods": (5, 15, 60),
    },
    "hybrid": {
        "target": _TARGETS,
        "days": (7, 14),
        "quantile": (0.0, 0.2, 0.5, 0.8),
        "hold": (1, 5, 15, 60),
    },
}
"""Values tried of each rule's parameters, the published defaults among them; ``static`` tries sizes of the fleet.

They reach far enough for the recorded loads of the examples: on bursty ones low targets and waits of an hour are best,
on smooth ones high targets and none.
"""

_APART = 0.1
"""Least distance of step scaling's two alarms: closer ones make a fleet flap."""
_SIZES = 200
"""Sizes tried for a static fleet, at most."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A rule with the configuration that cost least on the tuning loads.

    Attributes:
        rule: its name.
        parameters: the configuration; the first in the order of the grid if several cost the same.
        cost_per_day: dollars, mean over the tuning loads.
        grid: the values tried of each parameter.
        configurations: how many combinations of them were tried.
    """

    rule: str
    parameters: Setting
    cost_per_day: float
    grid: Mapping[str, tuple[float, ...]]
    configurations: int


def grid_values(rule: str, fleet: FleetSpec) -> Mapping[str, tuple[float, ...]]:
    """The values tried of each parameter of a rule."""
    if rule == "static":
        sizes = np.linspace(fleet.min_machines, fleet.max_machines, _SIZES).round().astype(int)
        return {"machines": tuple(np.unique(sizes).tolist())}
    return GRIDS[rule]


def grid(rule: str, fleet: FleetSpec) -> list[dict[str, float]]:
    """Every configuration tried of a rule: all combinations of ``grid_values`` that make sense."""
    values = grid_values(rule, fleet)
    settings = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    return [one for one in settings if "high" not in one or one["low"] < one["high"] - _APART + 1e-9]


def tune(problem: Problem, seeds: range, progress: Callable[[int, int], None] | None = None) -> list[Tuned]:
    """Tune every rule, in parallel over the machine's cores.

    Args:
        problem: load, fleet and economics.
        seeds: of the tuning loads; a replayed trace is the same for each, so one is enough.
        progress: called with the rules done and the rules in all.
    """
    fleet = problem.fleet.spec()
    costs: dict[str, Doubles] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(RULES)), get_context("spawn")) as pool:
        futures = {pool.submit(costs_per_day, problem, seeds, rule, grid(rule, fleet)): rule for rule in RULES}
        for done, future in enumerate(as_completed(futures), start=1):
            costs[futures[future]] = future.result()
            if progress is not None:
                progress(done, len(futures))
    tuned = []
    for rule in RULES:
        settings, best = grid(rule, fleet), int(costs[rule].argmin())
        tuned.append(Tuned(rule, settings[best], float(costs[rule][best]), grid_values(rule, fleet), len(settings)))
    return tuned


def costs_per_day(problem: Problem, seeds: range, rule: str, settings: Sequence[Setting]) -> Doubles:
    """What a rule costs a day with each setting, dollars, mean over the loads; shape ``(settings,)``.

    The same as ``rollout.run`` with a ``RuleController`` for each setting, but nothing is recorded: fleet
    ``s * len(seeds) + i`` has setting ``s`` and meets the load of ``seeds[i]``.
    """
    simulation = Simulation(problem, len(seeds))
    simulation.reset([seeding.np_random(seed)[0] for seed in seeds])
    scaler = make_rules(rule, [setting for setting in settings for _ in seeds], simulation.fleet_spec)
    expected = _Expected(simulation, scaler, settings)
    n = len(settings) * len(seeds)
    fleets = FleetBatch(problem.fleet, n)
    fleets.reset(np.tile(simulation.fleets.active, len(settings)))
    load, throughput = np.empty((2, len(settings), len(seeds)), np.float32)
    load[:] = simulation.load[simulation.history - 1]
    throughput[:] = problem.fleet.throughput
    state: State = scaler.initial_state(n)
    cost = np.zeros(n)
    for step in range(problem.episode_steps):
        seen = Fleets(load.ravel(), fleets.active, fleets.pending)
        desired, state = scaler.desired(seen, state, expected.before(step))
        fleets.advance((desired - fleets.total).astype(np.float32))
        load[:] = simulation.load[simulation.history + step]
        if simulation.throughput is not None:
            throughput[:] = simulation.throughput[step]
        capacity = fleets.active * throughput.ravel()
        cost += settle(problem.economics, simulation.minutes, load.ravel(), capacity, fleets.billed).cost
    days = problem.episode_steps * problem.fleet.step_seconds / DAY_SECONDS
    return np.asarray(cost.reshape(len(settings), len(seeds)).mean(axis=1) / days)


class _Expected:
    """What a rule expects of each fleet, computed once for all steps and for all settings that expect the same."""

    def __init__(self, simulation: Simulation, scaler: Rule, settings: Sequence[Setting]) -> None:
        kinds = [tuple((name, setting[name]) for name in scaler.expected_from) for setting in settings]
        distinct = list(dict.fromkeys(kinds))
        steps = simulation.problem.episode_steps
        seasonal = seasonal_values(
            simulation.load,
            simulation.history,
            steps,
            scaler.seasonal,
            simulation.feature_spec,
            simulation.fleet_spec,
            simulation.clock,
        )
        by_name = {name: seasonal[:, column].ravel() for column, name in enumerate(scaler.seasonal)}
        self._loads: Doubles = np.empty((steps, len(distinct), simulation.n))
        for index, kind in enumerate(distinct):
            expected = make_rule(scaler.name, dict(kind), simulation.fleet_spec).expected(by_name)
            self._loads[:, index] = np.broadcast_to(expected, steps * simulation.n).reshape(steps, simulation.n)
        self._kind = np.array([distinct.index(kind) for kind in kinds])

    def before(self, step: int) -> Doubles:
        """The expected load of each fleet before a step, shape ``(n,)``."""
        return np.ravel(self._loads[step, self._kind])
