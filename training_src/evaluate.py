"""Evaluate a policy bundle under SageMaker's training container contract.

The candidate is on the channel ``checkpoint``, the policy that serves now on ``incumbent``, a recorded load, if it is
to be evaluated on one, on ``trace``. Hyperparameters are those of training, which change the candidate's preset, and
those of ``Options``. Run it in a container as it is, or on any machine with a folder for ``/opt/ml``::

    python -m training_src.evaluate --root build/evaluation --set incumbent=builtin

It writes ``evaluation.json`` (``benchmark.document``), ``decisions.csv``, the report and its pictures to the output
folder and to the checkpoint folder, and the candidate with its evaluation to the model folder. ``evaluation.json``
comes last: where it is, everything is.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from policy_runtime.bundle import MANIFEST, Bundle, RulePart, builtin_bundle, read_bundle, write_bundle_folder
from policy_runtime.decision import Policy
from policy_runtime.errors import BundleError
from policy_runtime.spec import FleetSpec, GuardrailSpec
from training_src.benchmark.document import Document
from training_src.benchmark.evaluation import Entry, Evaluation, Protocol, run_evaluation
from training_src.benchmark.report import write_report
from training_src.envs.trace import Trace
from training_src.errors import UserError
from training_src.hyperparameters import DEFAULT_PRESET, assignment, job_parser, resolve_run
from training_src.metrics import format_line
from training_src.presets import Preset, load_preset, parse_preset
from training_src.presets.keys import explain, problems_in
from training_src.problem import Problem, Settings, TraceLoad
from training_src.sagemaker_io import Container

EVALUATION, DECISIONS = "evaluation.json", "decisions.csv"
THROUGHPUT_FACTOR = 2.0
"""A learned policy made for machines that are faster or slower by more than this factor is for another fleet."""


class Options(Settings):
    """What evaluation has to know besides the preset's settings."""

    incumbent: Literal["channel", "builtin"] = Field(
        "channel", description="channel: the bundle on that channel; builtin: the built-in rule, for a first evaluation"
    )
    throughput: Literal["bundle", "fitted"] = Field(
        "bundle",
        description="bundle: machines serve what the candidate's bundle says; fitted: the 99.9th percentile of the "
        "trace's tuning days is 40 machines, and bundles are run with the throughput that follows",
    )
    episodes: int = Field(20, ge=2, le=20, description="simulated episodes that results are of")


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate as the command line and the container's hyperparameters say."""
    options = job_parser("training_src.evaluate", __doc__).parse_args(arguments)
    container = Container(options.root)
    with container.reporting_failures():
        evaluate(container, container.hyperparameters() | dict(assignment(text) for text in options.set))


def evaluate(container: Container, overrides: dict[str, str]) -> Document:
    """Evaluate the candidate and write what was found.

    Args:
        container: the folders.
        overrides: hyperparameters as strings.

    Raises:
        UserError: a channel is missing, a bundle is for another environment, wrong hyperparameters, an unusable trace.
        BundleError: a bundle cannot be read.
    """
    for folder in (container.output_dir, container.checkpoint_dir):
        (folder / EVALUATION).unlink(missing_ok=True)  # that of an earlier run must not stand for this one
    options, overrides = _split(overrides)
    bundle = _channel_bundle(container, "checkpoint", "the candidate, as training wrote it")
    if options.incumbent == "builtin":
        incumbent = builtin_bundle()
    else:
        hint = "the policy that serves now; if there is none yet, say --set incumbent=builtin"
        incumbent = _channel_bundle(container, "incumbent", hint)
    trace_path = container.channel_file("trace", [".csv"])
    preset, trace = _resolve(bundle, options, overrides, trace_path)
    problem = preset.problem()
    if problem is None:
        raise UserError(
            f"environment_id: {preset.environment.id} is not a scaling problem: there is nothing to compare"
        )
    fitted = options.throughput == "fitted"
    candidate = _entry("checkpoint", bundle, problem, fitted)
    serving = _entry("incumbent", incumbent, problem, fitted)
    for channel, one in (("checkpoint", bundle), ("incumbent", incumbent)):
        _check_unseen(channel, one, problem)
    container.check_writable()
    protocol = Protocol.of(problem, options.episodes)
    print(f"preset {preset.name}: {protocol.loads.description}; results are of {protocol.loads.reporting}", flush=True)
    notes = []
    if trace is not None:
        report = dataclasses.replace(trace.report, path=Path(trace.report.path.name))
        notes += [f"load {line.strip()}" for line in str(report).splitlines()]
    for role, entry in (("candidate", candidate), ("incumbent", serving)):
        if entry.fitted:
            notes.append(
                f"the {role} {entry.bundle.name} was run with the fleet of this evaluation in place of its own"
            )
        if entry.bundle.fleet.throughput != problem.fleet.throughput:
            notes.append(
                f"the {role} {entry.bundle.name} takes a machine to serve {entry.bundle.fleet.throughput:g} requests a "
                f"step, here it serves {problem.fleet.throughput:g}"
            )
    for line in notes:
        print(line, flush=True)
    with _Stages() as stages:
        evaluation = run_evaluation(protocol, preset.name, candidate, serving, notes, stages.progress)
    _write(container, evaluation, bundle, protocol)
    print(format_line(_metrics(evaluation.document, protocol)), flush=True)
    return evaluation.document


def _split(overrides: dict[str, str]) -> tuple[Options, dict[str, str]]:
    """The options of evaluation, and the hyperparameters that are not."""
    mine = {key: value for key, value in overrides.items() if key in Options.model_fields}
    try:
        options = Options.model_validate(mine)
    except ValidationError as error:
        lines = [f"hyperparameter {details['loc'][0]}: {explain(details)}" for details in problems_in(error)]
        raise UserError("\n".join(lines)) from None
    return options, {key: value for key, value in overrides.items() if key not in mine}


def _channel_bundle(container: Container, name: str, what: str) -> Bundle:
    """The bundle of a channel: ``model.tar.gz``, or the files that it unpacks to."""
    folder = container.channel(name)
    if folder is None:
        raise UserError(
            f"channel {name!r}: is missing or empty ({container.root / 'input' / 'data' / name}): give {what}"
        )
    path = folder if (folder / MANIFEST).is_file() else container.channel_file(name, [".tar.gz"])
    assert path is not None
    bundle = read_bundle(path)
    if bundle.kind != "scaling":
        raise UserError(
            f"channel {name!r} ({path}): the bundle {bundle.name} is for another environment (kind {bundle.kind}): "
            "only a scaling policy can be compared with autoscalers"
        )
    if (failure := Policy(bundle).failure) is not None:
        raise BundleError(f"channel {name!r} ({path}): the learned policy cannot be loaded: {failure}")
    return bundle


def _resolve(
    bundle: Bundle, options: Options, overrides: dict[str, str], trace_path: Path | None
) -> tuple[Preset, Trace | None]:
    """The preset with the problem to evaluate on, and the recorded load."""
    if options.throughput == "fitted" and "fleet_throughput" in overrides:
        raise UserError("fleet_throughput: cannot be given together with throughput=fitted")
    base, recorded = None, trace_path is not None or "load_path" in overrides
    for name, given in (("episodes", options.model_fields_set), ("episode_steps", overrides)):
        if recorded and name in given:
            raise UserError(f"{name}: is for simulated loads; of a recorded one all test days are evaluated")
    if options.throughput == "fitted" and not recorded:
        raise UserError("throughput=fitted: there is no recorded load to fit to; give one on the channel 'trace'")
    if "preset" not in overrides and "preset.yaml" in bundle.files:
        base = parse_preset(bundle.files["preset.yaml"], f"preset.yaml of the bundle {bundle.name}")
        problem = base.problem()
        if problem is not None and isinstance(problem.load, TraceLoad) and not recorded:
            raise UserError(
                f"channel 'trace': is missing: {bundle.name} was trained on the recorded load {problem.load.path}; "
                "give this or another one, or name a preset to evaluate on (--set preset=default)"
            )
    elif "preset" not in overrides:
        base = load_preset(DEFAULT_PRESET)
        problem = base.problem()
        assert problem is not None
        fleet = problem.fleet.model_copy(update=bundle.fleet.to_json())
        base = base.with_problem(problem.model_copy(update={"fleet": fleet}))
    if options.throughput == "fitted":
        overrides = {key: value for key, value in overrides.items() if key != "fleet_throughput"}
    elif recorded:
        overrides = {"fleet_throughput": json.dumps(bundle.fleet.throughput)} | overrides
    return resolve_run(overrides, trace_path, base)


def _entry(channel: str, bundle: Bundle, problem: Problem, fitted: bool) -> Entry:
    """The bundle as it is run on the problem.

    A rule has no fleet of its own: it is given the problem's, and guardrails that fit it where its own are no more than
    those that fit its fleet. A learned policy sees loads in machines, so that it may be given other limits and, where
    that is wanted, another throughput, but the steps and the delay that it was trained with are part of it.

    Raises:
        UserError: the bundle is for another fleet.
    """
    fleet, guardrails = problem.fleet.spec(), bundle.guardrails
    if isinstance(bundle.policy, RulePart):
        if guardrails == GuardrailSpec.fitted(bundle.fleet):
            guardrails = GuardrailSpec.fitted(fleet)
        return Entry(dataclasses.replace(bundle, fleet=fleet, guardrails=guardrails), original=bundle)
    for name in ("step_seconds", "provisioning_delay"):
        if getattr(bundle.fleet, name) != getattr(fleet, name):
            raise UserError(_other_fleet(channel, bundle, fleet, name))
    if not fitted:
        if not 1 / THROUGHPUT_FACTOR <= bundle.fleet.throughput / fleet.throughput <= THROUGHPUT_FACTOR:
            raise UserError(_other_fleet(channel, bundle, fleet, "throughput"))
        fleet = dataclasses.replace(fleet, throughput=bundle.fleet.throughput)
    return Entry(dataclasses.replace(bundle, fleet=fleet), original=bundle)


def _check_unseen(channel: str, bundle: Bundle, problem: Problem) -> None:
    """Refuse to test a policy on days of the trace that it was trained on."""
    provenance = bundle.provenance.get("trace")
    if not isinstance(problem.load, TraceLoad) or not isinstance(provenance, dict) or "preset.yaml" not in bundle.files:
        return
    trained = parse_preset(bundle.files["preset.yaml"], f"preset.yaml of the bundle {bundle.name}").problem()
    if (
        trained is None
        or not isinstance(trained.load, TraceLoad)
        or trained.load.train_share <= problem.load.train_share
    ):
        return
    if provenance.get("sha256") == hashlib.sha256(Path(problem.load.path).read_bytes()).hexdigest():
        raise UserError(
            f"load_train_share: {problem.load.train_share:g} would test {bundle.name} (channel {channel!r}) on days "
            f"that it was trained on; it saw the first {trained.load.train_share:g} of this trace's days"
        )


def _other_fleet(channel: str, bundle: Bundle, fleet: FleetSpec, name: str) -> str:
    mine, wanted = getattr(bundle.fleet, name), getattr(fleet, name)
    return (
        f"channel {channel!r}: the bundle {bundle.name} {bundle.version} is for another environment: "
        f"its fleet's {name} is {mine:g}, that of this evaluation is {wanted:g}"
    )


def _metrics(document: Document, protocol: Protocol) -> dict[str, float]:
    """What the evaluation reports to CloudWatch; what is per episode there is of all reporting loads together here."""
    candidate, gate = document.policy("candidate"), document.gate
    day = candidate.per_day
    days = protocol.reporting.episode_steps / protocol.reporting.fleet.spec().steps_per_day
    values = {
        "eval_reward_mean": day.reward * days,
        "eval_cost_mean": day.cost * days,
        "eval_violation_minutes_per_day": day.violation_minutes,
        "eval_machine_hours": day.machine_hours * days,
        "eval_success_rate": day.success_rate,
        "eval_gain_over_best_rule": gate.over_best_rule.mean,
        "eval_gain_over_best_rule_low": gate.over_best_rule.low,
        "eval_gain_over_incumbent": gate.over_incumbent.mean,
        "eval_gain_over_incumbent_low": gate.over_incumbent.low,
    }
    if candidate.cost_to_optimum is not None:
        values["eval_cost_to_optimum"] = candidate.cost_to_optimum
    return values


def _write(container: Container, evaluation: Evaluation, bundle: Bundle, protocol: Protocol) -> None:
    """Write everything to the output folder, then all of it to the checkpoint folder, ``evaluation.json`` last."""
    document, output = evaluation.document, container.output_dir
    drawn = ("candidate", "incumbent", "optimum", document.gate.best_rule)
    records = {id: evaluation.results[id].record for id in drawn}
    report = write_report(output, document, records)
    _replace(output / DECISIONS, decisions_csv(evaluation, protocol).encode())
    files = {**bundle.files, EVALUATION: document.model_dump_json().encode()}
    write_bundle_folder(dataclasses.replace(bundle, files=files), container.model_dir)
    _replace(output / EVALUATION, document.model_dump_json(indent=2).encode() + b"\n")
    for path in (report.page, *report.pictures, output / DECISIONS, output / EVALUATION):
        copy = container.checkpoint_dir / path.name
        shutil.copyfile(path, copy.with_name(f".{copy.name}.part"))
        copy.with_name(f".{copy.name}.part").replace(copy)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def decisions_csv(evaluation: Evaluation, protocol: Protocol) -> str:
    """Minute by minute: the load, what the candidate decided and why, and who had how many machines active.

    ``seconds`` counts from the start of the episode, or of the test days of a trace.
    """
    document, results = evaluation.document, evaluation.results
    candidate = results["candidate"]
    others = ("incumbent", document.gate.best_rule, "optimum")
    columns = ["episode", "seconds", "load", "active", "pending", "failed", "violation", "delta", "desired"]
    columns += ["raw_desired", "constraints", "fallback", "incumbent_active", "best_rule_active", "optimum_active"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    step_seconds = protocol.reporting.fleet.step_seconds
    record = candidate.record
    for lane, decisions in enumerate(candidate.decisions):
        of_lane = [
            values[:, lane].tolist()
            for values in (record.load, record.active, record.machines - record.active, record.failed, record.violation)
        ]
        active = [results[id].record.active[:, lane].tolist() for id in others]
        for step, (load, serving, pending, failed, violation, decision, *rest) in enumerate(
            zip(*of_lane, decisions, *active, strict=True)
        ):
            numbers: list[Any] = [lane, step * step_seconds, f"{load:.6g}", int(serving), int(pending), f"{failed:.6g}"]
            numbers += [int(violation), decision.delta, decision.desired, decision.raw_desired]
            numbers += [" ".join(decision.constraints), int(decision.fallback), *map(int, rest)]
            writer.writerow(numbers)
    return text.getvalue()


class _Stages:
    """Shows how far each stage is: bars on a terminal, else a line when a stage begins."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stdout.isatty(),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Stages:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, title: str, done: int, total: int) -> None:
        """Say what is done of a stage."""
        if title not in self._tasks:
            self._tasks[title] = self._bar.add_task(title)
            if self._bar.disable:
                print(title, flush=True)
        self._bar.update(self._tasks[title], completed=done, total=total)


if __name__ == "__main__":
    main()
