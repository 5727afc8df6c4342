"""The protocol of an evaluation: which loads, who is compared, and what is made of it.

Rules are tuned on the tuning loads. Then everybody meets the same reporting loads, which nothing was tuned on: the
candidate and the incumbent through ``policy_runtime.decide`` with their guardrails, as deployed; the rules as
published, without guardrails, with common settings and tuned; and the clairvoyant optimum.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import training_src
from policy_runtime.bundle import Bundle, OnnxPart
from training_src.benchmark.compare import OPTIMUM, RULE_NAMES, RULES_AS_THEY_COME, Contender, Result, evaluate, gain
from training_src.benchmark.document import (
    BundleIdentity,
    Document,
    Gate,
    LearningPoint,
    Loads,
    Optimum,
    PolicyResult,
    Role,
    Tuning,
)
from training_src.benchmark.metrics import Summary, summarise
from training_src.benchmark.rollout import REPORTING_SEEDS, TUNING_SEEDS, Record
from training_src.benchmark.statistics import CONFIDENCE, RESAMPLES, interquartile_mean, paired_bootstrap
from training_src.benchmark.tuning import Tuned, tune
from training_src.envs.load import TraceProfile
from training_src.envs.trace import Trace, read_trace
from training_src.errors import UserError
from training_src.problem import ClassicLoad, Problem, TraceLoad

WITHIN_STEPS = "optimum-within-steps"
_LIBRARIES = ("numpy", "onnxruntime", "scipy")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The loads of an evaluation.

    Attributes:
        tuning, tuning_seeds: for tuning rules.
        reporting, reporting_seeds: for results.
        block_steps: steps of a paired block; None: whole episodes.
        start: UTC time of the first reporting step; None for simulated loads.
        trace: name and sha256 of the recorded load, if that is what it is.
    """

    tuning: Problem
    tuning_seeds: range
    reporting: Problem
    reporting_seeds: range
    block_steps: int | None = None
    start: datetime | None = None
    trace: dict[str, str] | None = None

    @classmethod
    def of(cls, problem: Problem, episodes: int) -> Protocol:
        """The protocol for a problem.

        Args:
            problem: a trace's days are split by its ``train_share``: rules are tuned on the first, results are of the
                rest, and days are the blocks. Of a simulated load whole episodes are the blocks.
            episodes: simulated episodes for results, 2 to 20.

        Raises:
            UserError: the trace cannot be used, or has fewer than two test days.
        """
        if not isinstance(problem.load, TraceLoad):
            return cls(problem, TUNING_SEEDS, problem, REPORTING_SEEDS[:episodes])
        path = Path(problem.load.path)
        trace = read_trace(path, problem.fleet.step_seconds, problem.load.values)
        parts = {}
        for part in ("tune", "test"):
            load = problem.load.model_copy(update={"part": part})
            parts[part] = TraceProfile(load, trace)
        day = problem.fleet.spec().steps_per_day
        if (days := parts["test"].steps // day) < 2:
            raise UserError(
                f"{path}: {days} whole day is left for testing after {problem.load.train_share:.0%} for tuning; "
                "intervals need two or more: give a longer trace or a smaller load_train_share"
            )
        _check_filled(trace, parts["test"].first, days)
        tuning, reporting = (
            problem.model_copy(update={"load": profile.settings, "episode_steps": profile.steps})
            for profile in parts.values()
        )
        # A replay is the same for every seed.
        return cls(
            tuning,
            range(1),
            reporting,
            range(1),
            day,
            trace.start + timedelta(seconds=parts["test"].first * trace.step_seconds),
            {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        )

    @property
    def loads(self) -> Loads:
        """For the document."""
        day = self.reporting.fleet.spec().steps_per_day
        days = self.reporting.episode_steps / day
        if self.trace is not None:
            tuned_days = self.tuning.episode_steps // day
            description = f"the recorded load {self.trace['name']}"
            tuning = f"{tuned_days} day{'s' if tuned_days > 1 else ''} before the test days"
            reporting, blocks, length = f"{days:.0f} test days, unseen before", int(days), 1.0
        else:
            kind = "the published sample's load" if isinstance(self.tuning.load, ClassicLoad) else "simulated load"
            seeds, tuning_seeds = self.reporting_seeds, self.tuning_seeds
            description = f"{kind}, episodes of {days:.3g} day{'s' if days != 1 else ''}"
            tuning = f"{len(tuning_seeds)} episodes, seeds {tuning_seeds[0]:,} to {tuning_seeds[-1]:,}"
            reporting = f"{len(seeds)} episodes, seeds {seeds[0]:,} to {seeds[-1]:,}, unseen before"
            blocks, length = len(seeds), days
        return Loads(
            description=description,
            tuning=tuning,
            reporting=reporting,
            blocks=blocks,
            block_days=length,
            start=self.start.isoformat() if self.start else None,
            trace=self.trace,
        )


def _check_filled(trace: Trace, first: int, days: int) -> None:
    """Refuse test days that are mostly copies of other days, as they would count as days of their own."""
    step = timedelta(seconds=trace.step_seconds)
    for day in range(days):
        start = trace.start + (first + day * trace.steps_per_day) * step
        end = start + timedelta(days=1)
        filled = sum(
            (max(timedelta(0), min(gap.end, end) - max(gap.start, start)) for gap in trace.report.gaps if gap.copied),
            timedelta(0),
        )
        if filled > timedelta(hours=12):
            raise UserError(
                f"{trace.report.path}: the test day from {start:%Y-%m-%d %H:%M} UTC on lacks "
                f"{filled / timedelta(hours=1):.0f} hours, which were filled from other days: give a part of the trace "
                "without this gap, or a load_train_share with which it is not tested"
            )


@dataclasses.dataclass(frozen=True)
class Entry:
    """A bundle that is evaluated.

    Attributes:
        bundle: as it is run.
        original: as it was given.
    """

    bundle: Bundle
    original: Bundle

    @property
    def fitted(self) -> bool:
        """Whether it is run with another fleet than its own."""
        return self.bundle.fleet != self.original.fleet

    def identity(self) -> BundleIdentity:
        """For the document."""
        given = self.original
        return BundleIdentity(
            name=given.name, version=given.version, digest=str(given.manifest()["digest"]), fitted=self.fitted
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        document: all figures.
        results: by id: who did what, minute by minute.
    """

    document: Document
    results: dict[str, Result]


def run_evaluation(
    protocol: Protocol,
    preset: str,
    candidate: Entry,
    incumbent: Entry,
    notes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> Evaluation:
    """Tune the rules, run everybody on the reporting loads, and compare.

    Args:
        protocol: the loads.
        preset: name of the preset that the problem is from.
        candidate, incumbent: bundles.
        notes: what a reader has to know.
        progress: called with the name of a stage, and what is done of it.
    """
    tuning, running = "tuning the rules", "running all on the reporting loads"
    looking_back = "finding each rule's best setting with hindsight"
    progress(tuning, 0, 1)
    tuned = tune(protocol.tuning, protocol.tuning_seeds, lambda done, all: progress(tuning, done, all))
    progress(looking_back, 0, 1)
    hindsight = tune(protocol.reporting, protocol.reporting_seeds, lambda done, all: progress(looking_back, done, all))
    contenders = [
        Contender("candidate", candidate.bundle.name, bundle=candidate.bundle),
        Contender("incumbent", incumbent.bundle.name, bundle=incumbent.bundle),
        OPTIMUM,
        _within_steps(candidate.bundle),
        *RULES_AS_THEY_COME,
        *(_tuned_contender(one) for one in tuned),
    ]
    if same := candidate.identity() == incumbent.identity():
        del contenders[1]  # its decisions are those of the candidate
    progress(running, 0, 1)
    results = evaluate(
        contenders,
        protocol.reporting,
        protocol.reporting_seeds,
        lambda done, all: progress(running, done, all),
    )
    if same:
        twin = dataclasses.replace(results[0], contender=Contender("incumbent", incumbent.bundle.name))
        results.insert(1, twin)
    within = results.pop([result.contender.id for result in results].index(WITHIN_STEPS))
    by_id = {result.contender.id: result for result in results}
    summaries = {id: summarise(result.record, protocol.block_steps) for id, result in by_id.items()}
    policies = [_policy_result(result, summaries) for result in results]
    best = min((policy for policy in policies if policy.role == "rule"), key=lambda policy: policy.per_day.cost)
    provenance = candidate.bundle.provenance
    noisy = protocol.reporting.fleet.throughput_noise > 0
    document = Document(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=preset,
        seed=provenance.get("seed") if isinstance(provenance.get("seed"), int) else None,
        candidate=candidate.identity(),
        incumbent=incumbent.identity(),
        gate=_gate(summaries, best.id),
        optimum=Optimum(
            kind="expected" if noisy else "exact",
            within_action_steps=None if noisy else summarise(within.record).per_day().cost,
        ),
        policies=policies,
        tuning=[_tuning(*pair) for pair in zip(tuned, hindsight, strict=True)],
        loads=protocol.loads,
        problem=_without_folder(protocol.reporting).model_dump(mode="json", exclude={"episode_steps"}),
        learning=learning_curve(candidate.bundle),
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        versions={
            "this project": training_src.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        notes=[*notes, *_size_notes(by_id["candidate"].record), *_fallback_notes(by_id)],
    )
    return Evaluation(document, by_id)


def _tuned_contender(one: Tuned) -> Contender:
    return Contender(f"{one.rule}-tuned", RULE_NAMES[one.rule], rule=one.rule, parameters=one.parameters, tuned=True)


def _tuning(one: Tuned, hindsight: Tuned) -> Tuning:
    return Tuning(
        rule=one.rule,
        grid={name: list(values) for name, values in one.grid.items()},
        configurations=one.configurations,
        chosen=dict(one.parameters),
        cost_per_day=one.cost_per_day,
        hindsight=dict(hindsight.parameters),
        hindsight_cost_per_day=hindsight.cost_per_day,
    )


def _policy_result(result: Result, summaries: dict[str, Summary]) -> PolicyResult:
    contender, summary = result.contender, summaries[result.contender.id]
    optimum = summaries[OPTIMUM.id].cost
    role: Role = "rule"
    if contender.id in ("candidate", "incumbent", "optimum"):
        role = contender.id  # type: ignore[assignment]
    return PolicyResult(
        id=contender.id,
        label=contender.label,
        role=role,
        rule=contender.rule,
        parameters=dict(contender.parameters),
        tuned=contender.tuned,
        per_day=summary.per_day(),
        cost_to_optimum=float(summary.cost.sum() / optimum.sum()) if optimum.sum() > 0 else None,
        cost_to_optimum_iqm=interquartile_mean(summary.cost / optimum) if optimum.min() > 0 else None,
        candidate_gain=None if role == "candidate" else gain(summaries["candidate"], summary),
        cost_by_block=summary.cost.tolist(),
        violation_minutes_by_block=summary.violation_minutes.tolist(),
    )


def _gate(summaries: dict[str, Summary], best_rule: str) -> Gate:
    candidate, incumbent = summaries["candidate"], summaries["incumbent"]
    cost = float(incumbent.cost.mean())
    relative = (candidate.reward - incumbent.reward) / cost if cost > 0 else np.zeros_like(candidate.reward)
    return Gate(
        best_rule=best_rule,
        over_best_rule=gain(candidate, summaries[best_rule]),
        over_incumbent=gain(candidate, incumbent),
        over_incumbent_relative=paired_bootstrap(relative),
    )


def _within_steps(bundle: Bundle) -> Contender:
    """The optimum of those who change the size by no more in a step than a bundle may."""
    up, down = bundle.guardrails.max_step_up, bundle.guardrails.max_step_down
    if isinstance(bundle.policy, OnnxPart):
        up, down = min(up, max(bundle.actions.steps)), min(down, -min(bundle.actions.steps))
    return Contender(WITHIN_STEPS, "optimum within the candidate's steps", parameters={"step_limits": (up, down)})


def learning_curve(bundle: Bundle) -> list[LearningPoint]:
    """The learning curve that training wrote into the bundle; a bundle from elsewhere may hold anything there."""
    provenance = bundle.provenance
    try:
        points = [LearningPoint(steps=steps, reward=reward) for steps, reward in provenance.get("learning_curve", [])]
        if points:
            final = provenance["evaluation"]["eval_reward_mean"]
            points.append(LearningPoint(steps=provenance["steps"], reward=final, exported=True))
    except (TypeError, ValueError, KeyError):
        return []
    return points


def _size_notes(record: Record) -> list[str]:
    """Whether the load fits the fleet at all: a unit that is wrong by a factor shows here."""
    fleet = record.problem.fleet
    beyond = float(np.mean(record.load > fleet.max_machines * fleet.throughput))
    notes = []
    if beyond > 0.01:
        notes.append(
            f"{beyond:.0%} of the steps need more than max_machines ({fleet.max_machines}) of throughput "
            f"{fleet.throughput:g}: are the units right (load_values, fleet_throughput, throughput=fitted)?"
        )
    elif float(record.load.max()) <= max(1, fleet.min_machines) * fleet.throughput:
        notes.append(
            f"the load never needs more than {max(1, fleet.min_machines)} machine of throughput {fleet.throughput:g}: "
            "are the units right (load_values, fleet_throughput, throughput=fitted)?"
        )
    return notes


def _fallback_notes(results: dict[str, Result]) -> list[str]:
    notes = []
    for id in ("candidate", "incumbent"):
        decisions = [decision for lane in results[id].decisions for decision in lane]
        fallbacks = sum(decision.fallback for decision in decisions)
        if fallbacks:
            share = math.ceil(1000 * fallbacks / len(decisions)) / 10
            notes.append(f"the {id}'s fallback rule made {fallbacks:,} of its decisions (up to {share} %)")
    return notes


def _without_folder(problem: Problem) -> Problem:
    """The problem without this machine's folders."""
    if not isinstance(problem.load, TraceLoad):
        return problem
    load: Any = problem.load.model_copy(update={"path": Path(problem.load.path).name})
    return problem.model_copy(update={"load": load})
