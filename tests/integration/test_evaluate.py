"""Evaluation as SageMaker runs it: a process, channels, files, exit codes."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from policy_runtime import builtin_bundle, read_bundle, write_bundle
from policy_runtime.bundle import Bundle, Interface, OnnxPart, RulePart
from policy_runtime.features import feature_names
from policy_runtime.spec import FeatureSpec, FleetSpec, GuardrailSpec
from training_src.benchmark.document import Document
from training_src.export import export_onnx
from training_src.hyperparameters import resolve_run
from training_src.metrics import parse

REPOSITORY = Path(__file__).parents[2]
TRACES = REPOSITORY.parent / "shared" / "traces"
pytestmark = pytest.mark.timeout(240)

QUICK = {"episodes": "2", "episode_steps": "720"}


def command(root: Path, settings: dict[str, str]) -> list[str]:
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "training_src.evaluate", "--root", str(root), *pairs]


def evaluate(root: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, settings), cwd=REPOSITORY, capture_output=True, text=True, timeout=230)


def give(root: Path, channel: str, bundle: Bundle) -> None:
    folder = root / "input" / "data" / channel
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(bundle, folder / "model.tar.gz")


def give_trace(root: Path, days: float, interval: int = 300) -> Path:
    rng = np.random.default_rng(0)
    count = int(days * 86_400 / interval)
    times = 1_750_032_000 + interval * np.arange(count)  # 2025-06-16 00:00 UTC
    load = 500 + 300 * np.sin(2 * np.pi * times / 86_400) + rng.normal(0, 20, count)
    path = root / "input" / "data" / "trace" / "mine.csv"
    path.parent.mkdir(parents=True)
    path.write_text("timestamp,value\n" + "".join(f"{t},{v:.1f}\n" for t, v in zip(times, load, strict=True)))
    return path


def document(root: Path) -> Document:
    return Document.model_validate_json((root / "output" / "data" / "evaluation.json").read_bytes())


def outputs(root: Path) -> list[Path]:
    """Whatever an evaluation wrote, the failure file aside."""
    folders = [root / "output" / "data", root / "checkpoints", root / "model"]
    return [path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()]


def careful(**parameters: float) -> Bundle:
    bundle = dataclasses.replace(builtin_bundle(), name="careful")
    return dataclasses.replace(bundle, policy=RulePart("hybrid", {"target": 0.5, **parameters}))


def test_an_evaluation_writes_everything_that_promotion_and_people_need(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", careful())
    give(tmp_path, "incumbent", builtin_bundle())

    done = evaluate(tmp_path, QUICK)

    assert done.returncode == 0, done.stderr
    output = tmp_path / "output" / "data"
    names = {path.name for path in output.iterdir()}
    assert names >= {"evaluation.json", "decisions.csv", "report.html", "load-and-capacity.png"}
    for name in names:
        assert (tmp_path / "checkpoints" / name).read_bytes() == (output / name).read_bytes()
    found = document(tmp_path)
    assert (found.candidate.name, found.incumbent.name) == ("careful", "builtin")
    assert not found.candidate.fitted
    assert [policy.role for policy in found.policies[:3]] == ["candidate", "incumbent", "optimum"]
    assert len([policy for policy in found.policies if policy.role == "rule"]) == 6 + 6
    assert {policy.rule for policy in found.policies if policy.tuned} == {one.rule for one in found.tuning}
    assert all(one.configurations >= 100 for one in found.tuning)
    # who is best, and by how much, follows from the figures
    cheapest = min((policy for policy in found.policies if policy.role == "rule"), key=lambda one: one.per_day.cost)
    assert found.gate.best_rule == cheapest.id
    candidate = found.policy("candidate")
    difference = candidate.per_day.reward - cheapest.per_day.reward
    assert found.gate.over_best_rule.mean == pytest.approx(difference)
    assert found.gate.over_best_rule == cheapest.candidate_gain
    assert found.gate.over_incumbent == found.policy("incumbent").candidate_gain
    # the optimum is a bound for all
    assert found.optimum.kind == "exact"
    assert all(policy.cost_to_optimum is not None and policy.cost_to_optimum >= 1 - 1e-6 for policy in found.policies)
    assert found.optimum.within_action_steps is not None
    assert found.policy("optimum").per_day.cost <= found.optimum.within_action_steps * (1 + 1e-6)
    assert found.optimum.within_action_steps <= candidate.per_day.cost * (1 + 1e-6)
    # metrics for CloudWatch
    metrics = dict(parse(done.stdout))
    assert metrics["eval_cost_to_optimum"] == pytest.approx(candidate.cost_to_optimum)
    assert metrics["eval_gain_over_best_rule_low"] == pytest.approx(found.gate.over_best_rule.low)
    assert metrics["eval_cost_mean"] == pytest.approx(candidate.per_day.cost / 2)
    # the bundle with its evaluation
    bundle = read_bundle(tmp_path / "model")
    assert bundle.name == "careful"
    assert Document.model_validate_json(bundle.files["evaluation.json"]) == found


def test_the_same_evaluation_twice_finds_the_same(tmp_path: Path) -> None:
    found = []
    for run in ("first", "second"):
        give(tmp_path / run, "checkpoint", careful())
        done = evaluate(tmp_path / run, {**QUICK, "incumbent": "builtin", "preset": "classic"})
        assert done.returncode == 0, done.stderr
        decisions = (tmp_path / run / "output" / "data" / "decisions.csv").read_bytes()
        found.append((document(tmp_path / run).model_copy(update={"created": ""}), decisions))

    assert found[0] == found[1]
    assert found[0][0].optimum.kind == "expected"  # of the random throughput it knows the distribution alone
    assert found[0][0].candidate.fitted  # a rule takes the fleet of the preset


def test_decisions_are_written_minute_by_minute_and_add_up(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", careful())

    done = evaluate(tmp_path, {**QUICK, "incumbent": "builtin"})

    assert done.returncode == 0, done.stderr
    with (tmp_path / "output" / "data" / "decisions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["seconds"]) for row in rows] == [60 * step for step in range(720)] * 2
    assert {row["episode"] for row in rows} == {"0", "1"}
    day = document(tmp_path).policy("candidate").per_day
    assert sum(int(row["violation"]) for row in rows) == pytest.approx(day.violation_minutes)
    machines = [int(row["active"]) + int(row["pending"]) for row in rows]
    assert sum(machines) / 60 == pytest.approx(day.machine_hours)
    changes = np.diff(machines)
    same_episode = np.array([row["seconds"] != "0" for row in rows[1:]])
    deltas = np.array([int(row["delta"]) for row in rows[1:]])
    np.testing.assert_array_equal(changes[same_episode], deltas[same_episode])
    assert all(row["constraints"] for row in rows if row["raw_desired"] != row["desired"])


def test_on_a_trace_days_are_compared_and_rules_are_tuned_on_the_days_before(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", careful())
    give_trace(tmp_path, 6)

    done = evaluate(tmp_path, {"incumbent": "builtin", "throughput": "fitted", "load_values": "count"})

    assert done.returncode == 0, done.stderr
    found = document(tmp_path)
    assert (found.loads.blocks, found.loads.block_days) == (3, 1.0)
    assert found.loads.start == "2025-06-19T00:00:00+00:00"
    assert found.loads.trace is not None and found.loads.trace["name"] == "mine.csv"
    assert found.candidate.fitted and found.incumbent.fitted
    assert len(found.policy("candidate").cost_by_block) == 3
    assert found.policy("candidate").per_day.machine_hours > 24 * 10  # 40 machines at the peak
    assert str(tmp_path) not in (tmp_path / "output" / "data" / "evaluation.json").read_text()


@pytest.mark.skipif(not TRACES.is_dir(), reason="the recorded traces lie beside the repository, and are not there")
def test_the_built_in_rule_is_evaluated_on_a_recorded_load(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", builtin_bundle())
    give(tmp_path, "incumbent", builtin_bundle())
    channel = tmp_path / "input" / "data" / "trace"
    channel.mkdir()
    (channel / "elb.csv").symlink_to(TRACES / "aws_elb_request_count_5min.csv")

    done = evaluate(tmp_path, {"throughput": "fitted", "load_values": "count"})

    assert done.returncode == 0, done.stderr
    found = document(tmp_path)
    assert found.loads.blocks == 6
    assert found.policy("candidate").per_day == found.policy("incumbent").per_day
    assert (found.gate.over_incumbent.low, found.gate.over_incumbent.high) == (0.0, 0.0)
    optimum = found.policy("optimum")
    for policy in found.policies:
        assert sum(policy.cost_by_block) >= sum(optimum.cost_by_block) * (1 - 1e-6)
    assert any("gap" in note for note in found.notes)


def generic() -> Bundle:
    return Bundle(
        name="cartpole",
        version="1",
        kind="generic",
        policy=OnnxPart(),
        interface=Interface(observation_size=4, action_size=2),
        files={"policy.onnx": export_onnx(torch.nn.Linear(4, 2), 4)},
    )


def learned_for(fleet: FleetSpec) -> Bundle:
    """A policy for another fleet, with random weights."""
    size = len(feature_names(FeatureSpec(), fleet))
    model = export_onnx(torch.nn.Linear(size, 6), size)
    return Bundle(name="other", version="1", policy=OnnxPart(), fleet=fleet, files={"policy.onnx": model})


def _nothing(root: Path) -> None: ...


def _empty_channel(root: Path) -> None:
    (root / "input" / "data" / "checkpoint").mkdir(parents=True)


def _candidate(root: Path) -> None:
    give(root, "checkpoint", builtin_bundle())


def _two_candidates(root: Path) -> None:
    _candidate(root)
    write_bundle(builtin_bundle(), root / "input" / "data" / "checkpoint" / "another.tar.gz")


def _damaged(root: Path) -> None:
    _candidate(root)
    path = root / "input" / "data" / "checkpoint" / "model.tar.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _other_environment(root: Path) -> None:
    give(root, "checkpoint", generic())


def _other_delay(root: Path) -> None:
    _candidate(root)
    give(root, "incumbent", learned_for(FleetSpec(provisioning_delay=9)))


def _other_throughput(root: Path) -> None:
    _candidate(root)
    give(root, "incumbent", learned_for(FleetSpec(throughput=3.0)))


def _short_trace(root: Path) -> None:
    _candidate(root)
    give_trace(root, 0.8)


def _one_test_day(root: Path) -> None:
    _candidate(root)
    give_trace(root, 2)


def _five_days(root: Path) -> None:
    _candidate(root)
    give_trace(root, 5)


def _trained_on_more_days(root: Path) -> None:
    trace = give_trace(root, 5)
    preset, _ = resolve_run({"preset": "smoke", "load_train_share": "0.6"}, trace)
    problem = preset.problem()
    assert problem is not None
    bundle = learned_for(problem.fleet.spec())
    files = {**bundle.files, "preset.yaml": preset.to_yaml().encode()}
    provenance = {"trace": {"name": trace.name, "sha256": hashlib.sha256(trace.read_bytes()).hexdigest()}}
    give(root, "checkpoint", dataclasses.replace(bundle, files=files, provenance=provenance))


def _one_day(root: Path) -> None:
    _candidate(root)
    give_trace(root, 1)


BAD: list[tuple[Callable[[Path], None], dict[str, str], str]] = [
    (_nothing, {}, "channel 'checkpoint': is missing or empty"),
    (_empty_channel, {}, "channel 'checkpoint': is missing or empty"),
    (_candidate, {}, "say --set incumbent=builtin"),
    (_two_candidates, {"incumbent": "builtin"}, "found 2"),
    (_damaged, {"incumbent": "builtin"}, "model.tar.gz"),
    (_other_environment, {"incumbent": "builtin"}, "the bundle cartpole is for another environment"),
    (_other_delay, {}, "its fleet's provisioning_delay is 9, that of this evaluation is 5"),
    (_other_throughput, {}, "its fleet's throughput is 3, that of this evaluation is 300"),
    (_short_trace, {"incumbent": "builtin"}, "give a trace of at least a day"),
    (_one_day, {"incumbent": "builtin"}, "cannot be split into training and test days"),
    (_one_test_day, {"incumbent": "builtin"}, "intervals need two or more"),
    (_five_days, {"incumbent": "builtin", "episodes": "2"}, "episodes: is for simulated loads"),
    (_five_days, {"incumbent": "builtin", "episode_steps": "720"}, "episode_steps: is for simulated loads"),
    (_trained_on_more_days, {"incumbent": "builtin", "load_train_share": "0.4"}, "on days that it was trained on"),
    (_candidate, {"incumbent": "builtin", "throughput": "fitted"}, "there is no recorded load to fit to"),
    (_candidate, {"incumbent": "built-in"}, "incumbent"),
    (_candidate, {"incumbent": "builtin", "episodes": "1"}, "episodes"),
    (_candidate, {"incumbent": "builtin", "epsiodes": "2"}, "epsiodes"),
    (
        _candidate,
        {"incumbent": "builtin", "environment_id": "CartPole-v1", "reward": "reward"},
        "not a scaling problem",
    ),
]


@pytest.mark.parametrize(("prepare", "settings", "message"), BAD)
def test_bad_input_ends_with_a_message_and_writes_nothing(
    prepare: Callable[[Path], None], settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    prepare(tmp_path)

    done = evaluate(tmp_path, settings)

    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert message in (tmp_path / "output" / "failure").read_text()
    assert outputs(tmp_path) == []


def test_bundles_that_do_not_fit_the_fleet_are_run_within_its_limits_and_noted(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", learned_for(FleetSpec(throughput=280.0, max_machines=500)))
    held = GuardrailSpec(scale_in_hold=30, max_step_down=1)
    give(tmp_path, "incumbent", dataclasses.replace(builtin_bundle(FleetSpec(max_machines=90)), guardrails=held))

    done = evaluate(tmp_path, {**QUICK, "preset": "default", "fleet_max_machines": "25"})

    assert done.returncode == 0, done.stderr
    found = document(tmp_path)
    assert found.candidate.fitted and found.incumbent.fitted
    assert any("takes a machine to serve 280 requests a step, here it serves 300" in note for note in found.notes)
    with (tmp_path / "output" / "data" / "decisions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(int(row["desired"]) for row in rows) <= 25
    actions = sum(row["delta"] != "0" for row in rows)
    assert actions == pytest.approx(found.policy("candidate").per_day.actions)
    # its own guardrails stay: one machine down a minute at most, half an hour after the last one up
    assert found.policy("incumbent").per_day.actions < 100
    # the bundle that was given, not the one that was run, goes on
    given = read_bundle(tmp_path / "input" / "data" / "checkpoint" / "model.tar.gz")
    assert found.candidate.digest == given.manifest()["digest"]
    assert read_bundle(tmp_path / "model").fleet == given.fleet


def test_a_load_that_the_fleet_can_never_serve_is_pointed_out(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", builtin_bundle(FleetSpec(throughput=1.0)))
    give_trace(tmp_path, 4)

    done = evaluate(tmp_path, {"incumbent": "builtin"})

    assert done.returncode == 0, done.stderr
    assert any("need more than max_machines (120) of throughput 1" in note for note in document(tmp_path).notes)


def test_a_run_that_fails_leaves_no_evaluation_of_an_earlier_one(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", builtin_bundle())
    for folder in (tmp_path / "output" / "data", tmp_path / "checkpoints"):
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text("{}")

    done = evaluate(tmp_path, {"incumbent": "builtin", "episodes": "200"})

    assert done.returncode == 2
    assert outputs(tmp_path) == []


def test_an_evaluation_that_is_killed_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    give(tmp_path, "checkpoint", builtin_bundle())
    process = subprocess.Popen(
        command(tmp_path, {"incumbent": "builtin"}),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert any(line.startswith("tuning") for line in lines)
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    assert outputs(tmp_path) == []


def test_evaluation_json_has_a_schema(tmp_path: Path) -> None:
    schema = json.loads((REPOSITORY / "docs" / "evaluation.schema.json").read_text())
    assert schema == Document.model_json_schema()
