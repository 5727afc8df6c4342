"""Running policies on the same loads, in parallel over the machine's cores: bundles, rules and the optimum."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np

from policy_runtime.bundle import Bundle
from policy_runtime.decision import Policy
from policy_runtime.rules import make_rules
from training_src.benchmark.metrics import Summary
from training_src.benchmark.optimum import run_optimum
from training_src.benchmark.rollout import BundleController, Decision, Record, RuleController, run
from training_src.benchmark.statistics import Interval, paired_bootstrap
from training_src.problem import Problem


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that scales: a bundle, a rule with parameters, or, with neither, the clairvoyant optimum.

    Attributes:
        id: short and unique among those compared.
        name: for people.
        bundle: decides with its guardrails, as deployed.
        rule, parameters: decides as published, without guardrails; of the optimum, the limits it keeps to.
        tuned: whether the parameters come from tuning.
    """

    id: str
    name: str
    bundle: Bundle | None = None
    rule: str | None = None
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tuned: bool = False

    @property
    def kind(self) -> Literal["bundle", "rule", "optimum"]:
        """What decides."""
        return "bundle" if self.bundle is not None else "rule" if self.rule is not None else "optimum"

    @property
    def label(self) -> str:
        """The name with the main parameter."""
        label = self.name
        if "machines" in self.parameters:
            label += f" {self.parameters['machines']}"
        elif (target := self.parameters.get("target", self.parameters.get("high"))) is not None:
            label += f" {100 * target:.0f} %"
        return f"{label} (tuned)" if self.tuned else label


OPTIMUM = Contender("optimum", "clairvoyant optimum")
RULE_NAMES = {
    "target_tracking": "target tracking",
    "step_scaling": "step scaling",
    "kubernetes_hpa": "Kubernetes HPA",
    "predictive": "predictive + tracking",
    "hybrid": "seasonal hybrid",
    "static": "fixed size",
}


def _as_it_comes(rule: str, percent: int, **parameters: Any) -> Contender:
    parameters = parameters or {"target": percent / 100}
    return Contender(f"{rule}-{percent}", RULE_NAMES[rule], rule=rule, parameters=parameters)


RULES_AS_THEY_COME = (
    _as_it_comes("target_tracking", 60),
    _as_it_comes("target_tracking", 70),
    _as_it_comes("step_scaling", 70, high=0.7, low=0.5),
    _as_it_comes("kubernetes_hpa", 70),
    _as_it_comes("predictive", 60),
    _as_it_comes("hybrid", 70),
)
"""The autoscalers that people have, with common settings."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a contender did.

    Attributes:
        contender: who.
        record: of all loads, in the order of the seeds.
        decisions: of a bundle, for each load step by step; else empty.
    """

    contender: Contender
    record: Record
    decisions: list[list[Decision]] = dataclasses.field(default_factory=list)


def evaluate(
    contenders: Iterable[Contender],
    problem: Problem,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Run contenders on the same loads.

    Args:
        contenders: what to run; each with an id of its own.
        problem: load, fleet and economics.
        seeds: of the loads.
        progress: called with the number of tasks that are done, and of all.

    Returns:
        One result for each contender, in the order asked.
    """
    chosen = list(contenders)
    # A bundle decides load by load, in Python; the settings of a rule and all loads go in one batch.
    tasks: list[tuple[tuple[Contender, ...], list[int]]] = []
    tasks += [((one,), [seed]) for one in chosen if one.kind == "bundle" for seed in seeds]
    tasks += [((one,), list(seeds)) for one in chosen if one.kind == "optimum"]
    rules = dict.fromkeys(one.rule for one in chosen if one.kind == "rule")
    tasks += [(tuple(one for one in chosen if one.kind == "rule" and one.rule == rule), list(seeds)) for rule in rules]
    parts: dict[str, dict[int, Result]] = {contender.id: {} for contender in chosen}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), get_context("spawn")) as pool:
        futures = {pool.submit(_run, group, problem, part): part for group, part in tasks}
        for done, future in enumerate(as_completed(futures), start=1):
            for result in future.result():
                parts[result.contender.id][seeds.index(futures[future][0])] = result
            if progress is not None:
                progress(done, len(tasks))
    return [_joined(contender, [part for _, part in sorted(parts[contender.id].items())]) for contender in chosen]


def _joined(contender: Contender, parts: list[Result]) -> Result:
    decisions = [lane for part in parts for lane in part.decisions]
    return Result(contender, Record.concatenate([part.record for part in parts]), decisions)


def _run(contenders: Sequence[Contender], problem: Problem, seeds: Sequence[int]) -> list[Result]:
    """Run contenders of one kind (and rule) on all seeds, in one batch."""
    first = contenders[0]
    if first.kind == "optimum":
        return [Result(first, run_optimum(problem, seeds, **first.parameters)[0])]
    if first.bundle is not None:
        controller = BundleController(Policy(first.bundle))
        return [Result(first, run(problem, seeds, controller), controller.decisions)]
    assert first.rule is not None
    parameters = [contender.parameters for contender in contenders for _ in seeds]
    rule = make_rules(first.rule, parameters, problem.fleet.spec())
    record = run(problem, [*seeds] * len(contenders), RuleController(rule))
    return [
        Result(contender, record.lanes(position * len(seeds), len(seeds)))
        for position, contender in enumerate(contenders)
    ]


def gain(policy: Summary, rival: Summary) -> Interval:
    """How much more reward a day the policy earns than the rival, with its 95 % interval over blocks."""
    return paired_bootstrap(np.asarray((policy.reward - rival.reward) / policy.days))
