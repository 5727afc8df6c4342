"""Comparing controllers on the same loads: rules as they come, rules tuned, and a policy bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from policy_runtime.bundle import read_bundle
from policy_runtime.decision import Policy
from policy_runtime.rules import make_rule
from training_src.benchmark.metrics import Summary, summarise
from training_src.benchmark.rollout import BundleController, Controller, Record, RuleController, run
from training_src.benchmark.statistics import Interval, paired_bootstrap
from training_src.problem import Problem

TARGETS = tuple(round(0.40 + 0.05 * i, 2) for i in range(11))
"""The grid from which a rule's main parameter, the utilisation to aim at, is tuned."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that scales: a rule with parameters, or a bundle."""

    name: str
    rule: str | None = None
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bundle: Path | None = None
    tuned: bool = False

    def controller(self, problem: Problem) -> Controller:
        """Make it decide on a problem; raises ``BundleError`` or ``ValueError`` when it cannot."""
        if self.bundle is not None:
            return BundleController(Policy(read_bundle(self.bundle)))
        assert self.rule is not None
        return RuleController(make_rule(self.rule, self.parameters, problem.fleet.spec()))

    def with_target(self, target: float) -> Contender:
        """The rule aiming at another utilisation; step scaling's two alarms keep their distance."""
        if self.rule == "step_scaling":
            return dataclasses.replace(self, parameters={"high": target, "low": round(target - 0.2, 2)})
        return dataclasses.replace(self, parameters={**self.parameters, "target": target})

    @property
    def label(self) -> str:
        """The name and the utilisation aimed at."""
        target = self.parameters.get("target", self.parameters.get("high"))
        label = self.name if target is None else f"{self.name} {100 * target:.0f} %"
        return f"{label} (tuned)" if self.tuned else label


RULES_AS_THEY_COME = (
    Contender("target tracking", "target_tracking", {"target": 0.6}),
    Contender("target tracking", "target_tracking", {"target": 0.7}),
    Contender("step scaling", "step_scaling", {"high": 0.7, "low": 0.5}),
    Contender("Kubernetes HPA", "kubernetes_hpa", {"target": 0.7}),
    Contender("predictive + tracking", "predictive", {"target": 0.6}),
    Contender("seasonal hybrid", "hybrid", {"target": 0.7}),
)
"""The autoscalers that people have, with common settings."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a contender did.

    Attributes:
        contender: who.
        summary: by block: a seed's episode, or a day of a trace.
        lane: the record of the first load, for pictures.
    """

    contender: Contender
    summary: Summary
    lane: Record


@dataclasses.dataclass(frozen=True)
class _Task:
    index: int
    contender: Contender
    problem: Problem
    seeds: range
    block_steps: int | None


def evaluate(
    contenders: Iterable[Contender],
    problem: Problem,
    seeds: range,
    block_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Run contenders on the same loads, in parallel over the machine's cores.

    Args:
        contenders: what to run.
        problem: load, fleet and economics.
        seeds: of the loads.
        block_steps: length of the blocks that are compared; whole episodes when absent.
        progress: called with the share of the work that is done, as (done, all).
    """
    chosen = list(contenders)
    tasks = []
    for index, contender in enumerate(chosen):
        # A bundle decides load by load, in Python; a rule takes all loads in one batch.
        size = len(seeds) if contender.bundle is None else 1
        tasks += [
            _Task(index, contender, problem, seeds[first : first + size], block_steps)
            for first in range(0, len(seeds), size)
        ]
    tasks.sort(key=lambda task: task.contender.bundle is None)
    parts: dict[tuple[int, int], tuple[Summary, Record]] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), get_context("spawn")) as pool:
        futures = {pool.submit(_run, task): task for task in tasks}
        for done, future in enumerate(as_completed(futures), start=1):
            task = futures[future]
            parts[task.index, task.seeds.start] = future.result()
            if progress is not None:
                progress(done, len(tasks))
    results = []
    for index, contender in enumerate(chosen):
        found = [part for (owner, _), part in sorted(parts.items(), key=lambda item: item[0]) if owner == index]
        results.append(Result(contender, Summary.concatenate([summary for summary, _ in found]), found[0][1]))
    return results


def _run(task: _Task) -> tuple[Summary, Record]:
    record = run(task.problem, task.seeds, task.contender.controller(task.problem))
    return summarise(record, task.block_steps), record.lane(0)


def tune(problem: Problem, seeds: range, progress: Callable[[int, int], None] | None = None) -> list[Contender]:
    """Each rule with the target of ``TARGETS`` that costs least on the tuning loads."""
    rules = {contender.rule: contender for contender in RULES_AS_THEY_COME}
    candidates = [contender.with_target(target) for contender in rules.values() for target in TARGETS]
    results = evaluate(candidates, problem, seeds, progress=progress)
    best = []
    for rule in rules:
        mine = [result for result in results if result.contender.rule == rule]
        winner = min(mine, key=lambda result: float(result.summary.cost.mean())).contender
        best.append(dataclasses.replace(winner, tuned=True))
    return best


def advantage(policy: Result, rival: Result) -> Interval:
    """How much more reward a day the policy earns than the rival, with its 95 % interval over blocks."""
    difference = (policy.summary.reward - rival.summary.reward) / policy.summary.days
    return paired_bootstrap(np.asarray(difference))
