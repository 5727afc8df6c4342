from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policy_runtime import builtin_bundle
from training_src.benchmark.evaluation import Protocol, learning_curve
from training_src.benchmark.rollout import REPORTING_SEEDS, TUNING_SEEDS
from training_src.errors import UserError
from training_src.problem import Problem, TraceLoad


def test_simulated_loads_for_results_are_others_than_those_for_tuning() -> None:
    protocol = Protocol.of(Problem(), 7)

    assert (protocol.tuning_seeds, protocol.reporting_seeds) == (TUNING_SEEDS, REPORTING_SEEDS[:7])
    assert set(protocol.tuning_seeds).isdisjoint(protocol.reporting_seeds)
    assert (protocol.loads.blocks, protocol.loads.block_days) == (7, 7.0)
    assert "seeds 20,000 to 20,006" in protocol.loads.reporting


def test_the_test_days_of_a_trace_are_those_that_rules_are_not_tuned_on(trace: Path) -> None:
    protocol = Protocol.of(Problem(load=TraceLoad(path=str(trace))), 20)

    assert (protocol.tuning.load.part, protocol.reporting.load.part) == ("tune", "test")  # type: ignore[union-attr]
    assert (protocol.tuning.episode_steps, protocol.reporting.episode_steps) == (2 * 1440, 2 * 1440)
    assert protocol.start == datetime(1970, 1, 4, tzinfo=UTC)
    assert protocol.block_steps == 1440
    assert protocol.loads.blocks == 2
    assert protocol.loads.trace is not None and protocol.loads.trace["name"] == "load.csv"


def test_one_test_day_is_too_few_for_an_interval(trace: Path) -> None:
    with pytest.raises(UserError, match=r"load.csv: 1 whole day is left for testing"):
        Protocol.of(Problem(load=TraceLoad(path=str(trace), train_share=0.9)), 20)


def test_a_test_day_that_is_mostly_a_copy_of_another_day_is_refused(trace: Path) -> None:
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join(lines[: 3 * 288 + 20] + lines[3 * 288 + 200 :]) + "\n")

    with pytest.raises(UserError, match=r"load.csv: the test day from 1970-01-04 00:00 UTC on lacks 15 hours"):
        Protocol.of(Problem(load=TraceLoad(path=str(trace))), 20)

    trace.write_text("\n".join(lines[: 3 * 288 + 20] + lines[3 * 288 + 100 :]) + "\n")
    assert Protocol.of(Problem(load=TraceLoad(path=str(trace))), 20).loads.blocks == 2


@pytest.mark.parametrize(
    ("changed", "points"),
    [
        ({}, [(100, -5.0, False), (200, 7.5, False), (200, 8.0, True)]),
        ({"learning_curve": "x"}, []),
        ({"learning_curve": [[100, "much"]]}, []),
        ({"learning_curve": [[100]]}, []),
        ({"evaluation": None}, []),
    ],
)
def test_the_learning_curve_of_a_bundle_is_read_where_it_can_be(
    changed: dict[str, Any], points: list[tuple[int, float, bool]]
) -> None:
    provenance = {
        "steps": 200,
        "learning_curve": [[100, -5.0], [200, 7.5]],
        "evaluation": {"eval_reward_mean": 8.0},
    }
    bundle = dataclasses.replace(builtin_bundle(), provenance=provenance | changed)

    assert [(point.steps, point.reward, point.exported) for point in learning_curve(bundle)] == points


def test_a_bundle_that_was_not_trained_has_no_learning_curve() -> None:
    assert learning_curve(builtin_bundle()) == []
